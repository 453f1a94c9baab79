"""Autograd through an attention with kernels for its backward pass; what has none is told, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import Pattern, load, parse
from attnlang import execute as driver
from attnlang.execute_backward import differentiable, no_backward
from attnlang.ir.interpret import Inputs
from attnlang.ir.kernel import spelled
from attnlang.ir.plan import Specialization
from tests.backward_calls import call_of
from tests.catalogue import EXAMPLES
from tests.kernel_calls import inputs

WINDOW = load(EXAMPLES / "sliding_window.attn")
BOTH = frozenset(("out", "lse"))


def attended(pattern: Pattern, given: Inputs, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Result and lse of the interpreted kernels, differentiable by kernels."""
    specialization = driver.specialization_of(pattern.ir, given, "interpret", BOTH)
    values = {spelled(name): tensor.detach() for name, tensor in given.everything().items()}
    symbols = {spelled(name): number for name, number in {**given.sizes, **given.scalars}.items()}

    def attend() -> tuple[Tensor, Tensor]:
        result = driver.execute(pattern.ir, given, "interpret", BOTH)
        assert result.lse is not None
        return result.out, result.lse

    return differentiable(attend, pattern.ir, specialization, "attention", values, symbols, None, q, k, v)


def live(*tensors: Tensor) -> list[Tensor]:
    """Leaves that want a gradient."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def reference(given: Inputs, pattern: Pattern, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    numbers: dict[str, Any] = dict(given.scalars)
    return pattern.reference(q, k, v, return_lse=True, **numbers)


@pytest.mark.parametrize("uses", ("out", "lse", "both"))
def test_gradients_flow(uses: str) -> None:
    q, k, v = inputs(30, 40, B=2, H=4, HK=2, D=16, DV=24)
    call = call_of(WINDOW, q, k, v, {"window": 11})

    def loss(out: Tensor, lse: Tensor) -> Tensor:
        parts = {"out": out.square().sum(), "lse": lse.sin().sum()}
        return parts["out"] + parts["lse"] if uses == "both" else parts[uses]

    mine = live(q, k, v)
    found = torch.autograd.grad(loss(*attended(WINDOW, call.inputs, *mine)), mine)
    theirs = live(q.double(), k.double(), v.double())
    wanted = torch.autograd.grad(
        loss(*reference(call.inputs, WINDOW, *theirs)), theirs, allow_unused=True, materialize_grads=True
    )
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-4, atol=2e-5)


def test_only_one_input_wants_a_gradient() -> None:
    q, k, v = inputs(20, 20)
    call = call_of(WINDOW, q, k, v, {"window": 7})
    (q_live,) = live(q)
    out, lse = attended(WINDOW, call.inputs, q_live, k, v)
    out.sum().backward()
    assert q_live.grad is not None and lse.grad_fn is not None
    (other,) = live(q.double())
    reference(call.inputs, WINDOW, other, k.double(), v.double())[0].sum().backward()
    assert other.grad is not None
    torch.testing.assert_close(q_live.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


def test_the_same_each_time() -> None:
    q, k, v = inputs(70, 70, H=4, HK=2)
    call = call_of(WINDOW, q, k, v, {"window": 31})

    def once() -> tuple[Tensor, ...]:
        mine = live(q, k, v)
        return torch.autograd.grad(attended(WINDOW, call.inputs, *mine)[0].square().sum(), mine)

    for first, second in zip(once(), once(), strict=True):
        assert torch.equal(first, second)


# -------------------------------------------------------------------------------------------------- obstacles

OBSTACLES: dict[str, tuple[str, str]] = {
    "product": (
        "    score max(Q[b, h, q, d] * Q[b, h, q, d] for d in D) + prod(K[b, g, k, d] for d in D)\n",
        "score: it multiplies over features of K, which no kernel differentiates",
    ),
    "order": (
        "    score sum(Q[b, h, q, (d + 1) mod D] * K[b, g, k, d] for d in D)\n",
        "score: it reads the features of Q in another order, which no kernel differentiates",
    ),
    "elsewhere": (
        "    score Q[q] @ K[k] * scale + Q[b, h, 0] @ K[k]\n",
        "score: it reads Q elsewhere than at its own token, Q[q], which no kernel differentiates",
    ),
    "table": (
        "    let length[b, n] = sum(K[b, 0, n, d] ** 2 for d in D)\n    score Q[q] @ K[k] * length[b, k]\n",
        "let: the table length is made of K",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_has_no_backward_kernel(name: str) -> None:
    text, reason = OBSTACLES[name]
    pattern = parse(f"pattern blocked():\n{text}")
    specialization = Specialization("interpret", "fp32", 16, 16, lse=True)
    assert no_backward(pattern.ir, specialization).startswith(reason)
    assert no_backward(WINDOW.ir, specialization) == ""
