"""Keys shared out among programs, and their shares combined, against the definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attnlang
from attnlang import execute_launch
from attnlang.execute import specialization_of
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import check_call, inputs
from tests.test_list_kernels import run_case

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
DECODED = [case for name in NAMES for case in cases(name) if case.NQ <= 16]
CAUSAL = attnlang.load(EXAMPLES / "causal.attn")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with many processors, and shares of few keys; gives the numbers of shares that were asked for."""
    monkeypatch.setattr(execute_launch, "FEWEST_KEYS", 8)
    monkeypatch.setattr(execute_launch, "workers", lambda target, tensor: 24)
    asked: list[int] = []
    shares = execute_launch.shares

    def noted(*arguments: Any) -> int:
        asked.append(shares(*arguments))
        return asked[-1]

    monkeypatch.setattr(execute_launch, "shares", noted)
    return asked


@pytest.mark.parametrize("case", DECODED, ids=lambda case: case.id)
def test_shares_are_the_whole(case: Case, many: list[int]) -> None:
    run_case(case, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("queries", [1, 3, 16])
def test_decoding(queries: int, dtype: torch.dtype, many: list[int]) -> None:
    q, k, v = inputs(queries, 333, H=4, HK=2, D=24, DV=40, dtype=dtype)
    check_call(CAUSAL, q, k, v)
    assert max(many) == 6


def test_rows_that_see_nothing_in_some_shares_or_in_all(many: list[int]) -> None:
    pattern = attnlang.parse("pattern p(first: int = 0):\n    mask k >= first and k < first + 9\n")
    q, k, v = inputs(4, 200, H=2)
    check_call(pattern, q, k, v, first=100)
    out, lse = check_call(pattern, q, k, v, first=500)
    assert bool((out == 0).all()) and bool((lse == -torch.inf).all())


def test_many_queries_are_not_split(many: list[int]) -> None:
    q, k, v = inputs(17, 400)
    check_call(CAUSAL, q, k, v)
    assert many == []


def test_one_worker_splits_nothing() -> None:
    q, k, v = inputs(1, 4096)
    call: Any = attnlang.load(EXAMPLES / "causal.attn")
    found = specialization_of(call.ir, inputs_of(q, k, v), "interpret", frozenset(("out",)))
    assert not found.split


def inputs_of(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    """The call as the driver hands it on."""
    from attnlang.ir.interpret import Inputs

    sizes = {"B": 1, "H": 1, "HK": 1, "NQ": 1, "NK": 4096, "D": 16, "DV": 16}
    return Inputs(q, k, v, sizes, {"q_offset": 4095, "scale": 0.25}, {})
