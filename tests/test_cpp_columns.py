"""Tiles of keys of any width: the columns that a kernel walks are the visible ones, each once, at every border."""

from __future__ import annotations

from shutil import which
from typing import Any

import pytest
import torch

from attnlang import load, parse
from attnlang.execute_programs import plan_for
from attnlang.ir import kernel as ir
from attnlang.ir.plan import Specialization
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import NAMES as COMPILERS
from tests.kernel_calls import error, inputs, rounding

LENGTHS = (1, 63, 64, 65, 191, 193, 255, 257, 384, 449, 577, 641)
SINKS = "mask (q - k < 90 or k < 5) and k <= q"
STRETCHES = "mask (k < 3 or (k >= q // 2 and k < q // 2 + 40) or k > q + 70) and k < 500"
BEFORE = "mask k > q"
NOTHING = "mask k < 0"
TARGET = "cpu:avx512"


def specialized(text: str) -> tuple[ir.Kernel, dict[str, int]]:
    """The kernel of a mask, and its arguments but for lengths."""
    plan = plan_for(parse(f"pattern p():\n    {text}").ir, Specialization(TARGET, "fp32", 64, 64), 128)
    return plan.branches[0].kernel, {"H": 1, "HK": 1, "q_offset": 0}


LISTS: dict[str, list[int]] = {}
"""What a kernel by lists reads, by argument."""


def value(expr: ir.Expr, known: dict[str, int]) -> int:
    """A whole number that a kernel computes; one for each lane is asked for with "lane"."""
    match expr:
        case ir.Const(number, _, _):
            return int(number)
        case ir.Var(name, _, _):
            return known[name]
        case ir.Lanes():
            return known["lane"]
        case ir.Load(pointer, base, offset, _, _, _, _):
            return LISTS[pointer][value(base, known) + value(offset, known)]
        case ir.Op(op, args, _, _):
            x = [value(arg, known) for arg in args]
            of: dict[str, Any] = {
                "add": lambda: x[0] + x[1], "sub": lambda: x[0] - x[1], "mul": lambda: x[0] * x[1],
                "floordiv": lambda: x[0] // x[1], "mod": lambda: x[0] % x[1], "min": lambda: min(x),
                "max": lambda: max(x), "lt": lambda: int(x[0] < x[1]), "le": lambda: int(x[0] <= x[1]),
                "cast": lambda: x[0], "neg": lambda: -x[0],
                "where": lambda: x[1] if x[0] else x[2],
            }  # fmt: skip
            return of[op]()
        case _:
            raise AssertionError(expr)


def walked(kernel: ir.Kernel, known: dict[str, int]) -> tuple[list[list[int]], list[list[int]]]:
    """The keys of every full and of every partial tile of one program."""
    known, kinds, told = dict(known), {"full": list[list[int]](), "partial": list[list[int]]()}, ""
    for statement in kernel.body:
        match statement:
            case ir.Remark(text):
                told = text
            case ir.Assign(name, expr) if not expr.shape and expr.type in ("i32", "i64", "i1"):
                if not name.endswith("_base"):
                    known[name] = value(expr, known)
            case ir.Loop(variable, start, stop, body, True, columns):
                assert columns is not None
                for turn in range(value(start, known), value(stop, known)):
                    here = {**known, variable: turn}
                    keys: list[int] = []
                    for inner in body:
                        if (
                            isinstance(inner, ir.Assign)
                            and inner.value.type == "i32"
                            and not inner.value.shape
                        ):
                            here[inner.name] = value(inner.value, here)
                    for lane in range(value(columns, here)):
                        lanes = {**here, "lane": lane}
                        for inner in body:
                            if isinstance(inner, ir.Assign) and (inner.value.shape, inner.value.type) == (
                                ("N",),
                                "i32",
                            ):
                                lanes[inner.name] = value(inner.value, lanes)
                        keys.append(lanes["k"])
                    kinds[told.split()[0]].append(keys)
            case _:
                pass
    return kinds["full"], kinds["partial"]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_visible_key_is_walked_once_and_no_hidden_one(length: int) -> None:
    """Of a window with sinks: full tiles hold what all rows see, partial ones what some row sees, none is repeated."""
    kernel, known = specialized(SINKS)
    rows = dict(kernel.dims)["M"]
    for program in range(-(-length // rows)):
        full, partial = walked(kernel, {**known, "NQ": length, "NK": length, "program": program})
        own = range(program * rows, min(length, (program + 1) * rows))
        seen = [{k for k in range(q + 1) if q - k < 90 or k < 5} for q in own]
        some = set[int]().union(*seen)
        every = set.intersection(*seen)
        flat_full, flat_partial = [k for tile in full for k in tile], [k for tile in partial for k in tile]
        assert sorted(flat_full + flat_partial) == sorted(some)
        assert set(flat_full) <= every
        if (
            length > 200 and program == 2
        ):  # a sink is full from its own band only; the window is full in its middle
            assert len(flat_full) >= len(every) - 5
        widths = [len(tile) for tile in (*full, *partial)]
        assert all(0 < width <= dict(kernel.dims)["N"] for width in widths)


def test_stretches_share_tiles_of_nearly_equal_width() -> None:
    """385 keys that all rows see are two or three tiles, not two and a rest of one key."""
    kernel, known = specialized("mask causal and q - k < 512")
    full, partial = walked(kernel, {**known, "NQ": 4096, "NK": 4096, "program": 40})
    rows = dict(kernel.dims)["M"]
    assert sum(map(len, full)) == 512 - rows + 1
    assert max(map(len, full)) - min(map(len, full)) < 36
    assert [len(tile) for tile in partial] == [2 * (rows - 1)]  # both borders of the window in one


@pytest.mark.parametrize("full", (0, 1, 3, 7, 8, 9, 17))
@pytest.mark.parametrize("partial", (0, 1, 5, 8, 12))
def test_listed_units_are_walked_once_in_as_few_tiles_as_can_be(full: int, partial: int) -> None:
    specialization = Specialization(TARGET, "fp32", 64, 64, walks=("lists",))
    plan = plan_for(parse("pattern p():\n    mask (q - k) mod 3 == 0").ir, specialization, 128)
    branch = plan.branches[0]
    unit, most = branch.listed, branch.tile.columns // branch.listed
    assert (unit, most) == (24, 8)
    numbers = [5 * i + 2 for i in range(full)] + [5 * i for i in range(partial)]
    before = 4  # numbers of other rows
    LISTS.update(
        tile_class=[0, 0], tile_heavy=[1, 0], tile_columns=[99] * before + numbers,
        tile_starts=[0, 0, 0, before, before + full, before + full + partial],
    )  # fmt: skip
    sizes = {"H": 1, "HK": 1, "q_offset": 0, "NQ": 128, "NK": 9999, "row_tiles": 2, "program": 0}
    whole, masked = walked(branch.kernel, sizes)
    keys = [k for tile in (*whole, *masked) for k in tile]
    assert sorted(keys) == sorted(unit * number + i for number in numbers for i in range(unit))
    known_full = {unit * number + i for number in numbers[:full] for i in range(unit)}
    assert {k for tile in whole for k in tile} <= known_full
    assert len(whole) + len(masked) == -(-(full + partial) // most) or (
        len(whole) == -(-full // most) and len(masked) == -(-partial // most)
    )
    if full % most and partial % most and full % most + partial % most <= most:
        assert len(whole) == full // most and len(masked) == -(-partial // most)
    for tiles in (whole, masked):
        assert all(len(tile) <= most * unit for tile in tiles)
        assert not tiles or max(map(len, tiles)) - min(map(len, tiles)) <= unit * (len(tiles) + 1)


@pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C++ compiler")
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("text", (SINKS, STRETCHES, BEFORE, NOTHING))
def test_results_at_every_border(text: str, dtype: torch.dtype) -> None:
    pattern = parse(f"pattern p():\n    {text}")
    for queries, keys in ((100, 700), (300, 300), (17, 193), (130, 64), *((n, n) for n in LENGTHS)):
        q, k, v = inputs(queries, keys, H=1, D=16, dtype=dtype)
        wanted = pattern(q.double(), k.double(), v.double(), target="eager")
        dense = pattern(q, k, v, target="eager")
        found = pattern(q, k, v, target="cpu")
        assert error(found, wanted) <= 2 * error(dense, wanted) + rounding(wanted, dtype), (queries, keys)


@pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C++ compiler")
def test_bands_of_the_catalogue_at_unlike_lengths() -> None:
    """Two bands, other lengths of keys than of queries, and queries that stand behind all keys."""
    pattern = load(EXAMPLES / "streaming.attn")
    for queries, keys, offset in ((70, 400, 330), (200, 200, 0), (64, 640, 576), (33, 50, 400)):
        q, k, v = inputs(queries, keys, H=2, D=24, dtype=torch.float32)
        given: Any = {"window": 100, "sinks": 7, "q_offset": offset}
        wanted = pattern(q.double(), k.double(), v.double(), target="eager", **given)
        found = pattern(q, k, v, target="cpu", **given)
        assert error(found, wanted) <= 4e-6
