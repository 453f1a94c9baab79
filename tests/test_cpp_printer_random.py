"""Random small patterns, written as texts: their printed C++ agrees with the reference."""

from __future__ import annotations

from shutil import which

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import test_random_kernels as kernels
from tests.cpp_kernels import NAMES as COMPILERS
from tests.cpp_printed import ISAS, printed_for

TILES = ((16, 48), (32, 32), (64, 80))
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
agrees = kernels.test_kernel_is_the_reference.hypothesis.inner_test  # pyright: ignore


@pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C++ compiler")
@settings(max_examples=16, deadline=None, suppress_health_check=SLOW)
@given(
    isa=st.sampled_from(ISAS), tile=st.sampled_from(TILES), mask=kernels.masks(), score=kernels.scores(),
    value=kernels.VALUES, sizes=kernels.SIZES, a=st.integers(1, 9), c=st.integers(-6, 12),
)  # fmt: skip
def test_printed_code_is_the_reference(
    isa: str, tile: tuple[int, int], mask: str, score: str, value: str,
    sizes: tuple[int, int, int, int, int, int], a: int, c: int,
) -> None:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        printed_for(patch, isa, *tile)
        agrees(mask=mask, score=score, value=value, sizes=sizes, a=a, c=c)
