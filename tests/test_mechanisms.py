"""Published mechanisms that no list of ours names: the text against the definition, in values and gradients."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang import Pattern
from tests.mechanisms import FAMILIES, MECHANISMS, Call, calls
from tests.mechanisms.common import HERE

CALLS = [call for name in sorted(MECHANISMS) for call in calls(MECHANISMS[name])]


def named(call: Call) -> str:
    return f"{call.mechanism.name}-{call.NQ}"


@cache
def text(name: str) -> Pattern:
    """The pattern of the text."""
    return attnlang.load(MECHANISMS[name].path)


def test_every_text_has_a_definition() -> None:
    assert sorted(path.stem for path in HERE.glob("*.attn")) == sorted(MECHANISMS)
    assert len(FAMILIES) == len(list(HERE.glob("definitions_*.py")))


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_the_text_comes_back(name: str) -> None:
    pattern = text(name)
    assert pattern.name == name
    assert attnlang.parse(str(pattern), name) == pattern
    dense = pattern.dense()
    assert attnlang.parse(str(dense), name) == dense


@pytest.mark.parametrize("call", CALLS, ids=named)
def test_reference_is_the_definition(call: Call) -> None:
    arguments = {**call.params, **call.tensors}
    found = text(call.mechanism.name).reference(*call.inputs.values(), **arguments)
    torch.testing.assert_close(found, call.define(call.inputs, call.tensors), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("call", [call for call in CALLS if call.mechanism.smooth], ids=named)
def test_eager_has_the_gradients_of_the_definition(call: Call) -> None:
    found, wanted = gradients(call, by_definition=False), gradients(call, by_definition=True)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert torch.isfinite(gradient).all(), name
        torch.testing.assert_close(gradient, wanted[name], atol=1e-8, rtol=1e-8, msg=lambda m: f"{name}: {m}")  # noqa: B023


def gradients(call: Call, by_definition: bool) -> dict[str, Tensor]:
    """Of a fixed weighting of the result, for every float input; 0 where it does not depend on one."""
    leaves = {
        name: tensor.clone().requires_grad_()
        for name, tensor in {**call.inputs, **call.tensors}.items()
        if tensor.is_floating_point()
    }
    inputs = {name: leaves[name] for name in call.inputs}
    tensors = {name: leaves.get(name, tensor) for name, tensor in call.tensors.items()}
    if by_definition:
        out = call.define(inputs, tensors)
    else:
        out = text(call.mechanism.name)(*inputs.values(), target="eager", **call.params, **tensors)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=out.dtype)
    made = torch.autograd.grad((out * weight).sum(), list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), made, strict=True)
    }


def test_kernels_keep_the_sums_that_an_output_reads() -> None:
    pattern = attnlang.parse(
        """
pattern gated(window: int = 3):
    mask causal
    branch near:
        sparsity window(window)
    branch far:
        score Q[q] @ K[k]
    output sigmoid(near.lse - far.lse) * near + far
"""
    )
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, 2, 20, 16), generator=generator) for _ in range(3))
    found, wanted = pattern(q, k, v, target="interpret"), pattern.reference(q, k, v)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


def test_kernels_refuse_what_they_do_not_keep() -> None:
    q = torch.zeros(1, 2, 4, 16)
    with pytest.raises(attnlang.AttnlangError, match=r"do not keep attention\.w"):
        attnlang.parse("pattern p():\n    output attention * attention.w[q, 0]\n")(
            q, q, q, target="interpret"
        )
