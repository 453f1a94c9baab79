"""Sections A and B of the catalogue by native kernels, in every precision, against the independent definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.cpp_kernels import needs_compiler
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import error, narrowed, rounding
from tests.test_kernels import NAMES, pattern_of

pytestmark = needs_compiler

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHOSEN = [
    (case, DTYPES[(place + number) % 3])
    for place, name in enumerate(NAMES)
    for number, case in enumerate(cases(name)[:3:2])
]


@pytest.mark.parametrize(
    ("case", "dtype"), [pytest.param(c, d, id=f"{c.id}-{str(d)[6:]}") for c, d in CHOSEN]
)
def test_native_is_the_definition(case: Case, dtype: torch.dtype) -> None:
    definition, pattern = DEFINITIONS[case.name], pattern_of(case.name)
    low = narrowed(case.make_inputs(0), dtype)
    high = narrowed(low, torch.float64)
    wanted = definition.function(**high, **case.params, scale=case.scale, q_offset=case.q_offset)
    q, k, v = (low.pop(name) for name in "qkv")
    given: Any = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
    dense = pattern(q, k, v, **given, target="eager")
    for _ in range(2):  # made ready, and again
        out = pattern(q, k, v, **given, target="cpu")
        assert out.dtype == dtype
        assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, dtype)
