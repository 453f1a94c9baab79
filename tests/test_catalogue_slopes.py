"""The gradients of every catalogue example in float64 against finite differences, one input at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import catalogue
from tests.definitions import DEFINITIONS, Case, cases

STEP = 1e-6
CASES = [cases(name)[0] for name in DEFINITIONS]


def output(case: Case, given: dict[str, Tensor]) -> Tensor:
    return catalogue.run(case, given, want=frozenset(("out",))).out


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_are_slopes(case: Case) -> None:
    """d/dt of a random projection of the output along a random direction, choices held by the smallness of the step."""
    given = case.make_inputs(3)
    make = torch.Generator().manual_seed(4)
    projection = torch.randn(output(case, given).shape, generator=make, dtype=torch.float64)
    for name in DEFINITIONS[case.name].differentiable:
        direction = torch.randn(given[name].shape, generator=make, dtype=torch.float64)
        leaf = given[name].clone().requires_grad_()
        (gradient,) = torch.autograd.grad((output(case, {**given, name: leaf}) * projection).sum(), leaf)
        ends = [
            (output(case, {**given, name: given[name] + sign * STEP * direction}) * projection).sum()
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        along = (gradient * direction).sum()
        size = 1 + (gradient.abs() * direction.abs()).sum()
        assert abs(slope - along) <= 1e-6 * size, (name, float(slope), float(along))
