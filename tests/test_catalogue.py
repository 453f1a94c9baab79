"""Every pattern of the catalogue: example against definition, in values, visibility and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import catalogue
from tests.definitions import DEFINITIONS, Case, cases, mask
from tests.definitions.common import REQUIRED

NAMES = sorted(DEFINITIONS)
CASES = [case for name in NAMES for case in cases(name)]
ROUTED = {name for name in NAMES if DEFINITIONS[name].section == "E"} | {"top_k", "multiresolution"}
"""What chooses by scores may choose otherwise in float32."""


def with_id(case: Case) -> str:
    return case.id


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Equal within the tolerance, absolute and relative, infinities at the same places."""
    torch.testing.assert_close(found, wanted.to(found.dtype), atol=tolerance, rtol=tolerance)


# ------------------------------------------------------------------------------------------------ the text


def test_there_is_one_example_for_each_entry() -> None:
    assert sorted(path.stem for path in catalogue.EXAMPLES.glob("*.attn")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_interface_is_the_catalogues(name: str) -> None:
    definition, pattern = DEFINITIONS[name], catalogue.example(name)
    assert pattern.name == name
    given = {p.name: REQUIRED if p.default is None else p.default for p in pattern.parameters}
    assert list(given.items()) == list(definition.params.items())
    for parameter in pattern.parameters:
        if parameter.default is not None:
            assert type(parameter.default).__name__ == parameter.dtype
    assert [tensor.name for tensor in pattern.tensors] == list(definition.tensors)
    for tensor in pattern.tensors:
        spec = definition.tensors[tensor.name]
        assert tensor.dtype == spec.dtype
        assert len(tensor.axes) == len(spec.axes)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_what_it_is(name: str) -> None:
    lines = (catalogue.EXAMPLES / f"{name}.attn").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and len(lines[0]) > 20
    assert all(len(line) <= 110 for line in lines)


# ---------------------------------------------------------------------------------------------- the meaning


@pytest.mark.parametrize("case", CASES, ids=with_id)
def test_reference_is_the_definition(case: Case) -> None:
    given = case.make_inputs(0)
    found, wanted = catalogue.run(case, given), catalogue.define(case, given)
    close(found.out, wanted.out, 1e-9)
    assert (found.lse is None) == (wanted.lse is None)
    if found.lse is not None and wanted.lse is not None:
        close(found.lse, wanted.lse, 1e-9)
    if found.weights is not None and wanted.weights is not None:
        close(found.weights, wanted.weights, 1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if DEFINITIONS[c.name].visible is not None], ids=with_id)
def test_visibility_is_brute_force(case: Case) -> None:
    given = case.make_inputs(0)
    tensors = {name: given[name] for name in DEFINITIONS[case.name].tensors}
    wanted = mask(
        case.name,
        case.NQ,
        case.NK,
        heads=case.H,
        kv_heads=case.HK,
        batch=case.B,
        q_offset=case.q_offset,
        **case.params,
        **tensors,
    )
    found = catalogue.seen(case, given)
    assert torch.equal(
        found.expand(torch.broadcast_shapes(found.shape, wanted.shape)), wanted.expand_as(found)
    )


@pytest.mark.parametrize("case", CASES[::3], ids=with_id)
def test_float32_is_near(case: Case) -> None:
    given = case.make_inputs(1)
    narrow = {name: t.float() if t.is_floating_point() else t for name, t in given.items()}
    found = catalogue.run(case, narrow, torch.float32, frozenset(("out",)))
    assert found.out.dtype == torch.float32
    wanted = catalogue.run(
        case, {name: t.double() if t.is_floating_point() else t for name, t in narrow.items()}
    )
    off = (found.out - wanted.out).abs() > 2e-3 * (1 + wanted.out.abs())
    limit = 0.02 if case.name in ROUTED else 0.0
    assert off.double().mean() <= limit


# -------------------------------------------------------------------------------------------- the gradients


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of a fixed random functional of the result; 0 where it does not depend on an input."""
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=out.dtype)
    found = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


SMALL = [case for name in NAMES for case in sorted(cases(name), key=lambda c: c.NQ * c.NK * c.H)[-1:]]


@pytest.mark.parametrize("case", SMALL, ids=with_id)
def test_gradients_are_the_definitions(case: Case) -> None:
    given = case.make_inputs(2)
    learned = DEFINITIONS[case.name].differentiable
    for name in learned:
        given[name].requires_grad_()
    leaves = [given[name] for name in learned]
    out = catalogue.run(case, given, want=frozenset(("out",))).out
    found, wanted = gradients(out, leaves), gradients(catalogue.define(case, given).out, leaves)
    for name, mine, theirs in zip(learned, found, wanted, strict=True):
        assert torch.isfinite(mine).all(), name
        close(mine, theirs, 1e-8)
