"""Sections A and B of the catalogue by their backward kernels, against float64 gradients of the reference."""

from __future__ import annotations

import pytest
import torch

from attnlang.execute_backward import Form
from attnlang.ir.plan import Tile
from tests.backward_calls import call_of, check_backward
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import narrowed
from tests.test_kernels import NAMES, pattern_of

FORMS: tuple[Form, Form] = ("split", "fused")
LARGE = (Tile(32, 64, 4, 1), Tile(64, 32, 4, 1))
"""Few tiles: these cases are about formulas, tests/test_backward_shapes.py about borders."""
LABELS = ("empty-rows", "beyond-the-end", "one-key")


def chosen() -> list[tuple[Case, torch.dtype, Form]]:
    """Of each pattern its first case, of section B its second, and those with rows that see nothing; precisions and
    forms take turns."""
    found: list[tuple[Case, torch.dtype, Form]] = []
    for position, name in enumerate(NAMES):
        for number, case in enumerate(cases(name)):
            first = number < (2 if DEFINITIONS[name].section == "B" else 1)
            if first or any(label in case.id for label in LABELS):
                dtype = (torch.float32, torch.bfloat16)[(position + number) % 2]
                found.append((case, dtype, FORMS[(position // 2 + number) % 2]))
    return found


@pytest.mark.parametrize(
    ("case", "dtype", "form"), [pytest.param(*c, id=f"{c[0].id}-{str(c[1])[6:]}-{c[2]}") for c in chosen()]
)
def test_gradients_are_those_of_the_reference(case: Case, dtype: torch.dtype, form: Form) -> None:
    low = narrowed(case.make_inputs(0), dtype)
    q, k, v = (low.pop(name) for name in "qkv")
    given = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
    call = call_of(pattern_of(case.name), q, k, v, given)
    check_backward(call, form, LARGE)
