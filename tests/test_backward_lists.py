"""Backward kernels that read their tiles from lists, in the natural order of the tokens and in another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attnlang import Pattern, load
from attnlang import execute as driver
from attnlang.execute_backward import Form, Wanted, backward_program, gradients
from attnlang.execute_tilings import Walk
from attnlang.ir.kernel import spelled
from attnlang.ir.pattern import Attention, Let
from attnlang.passes.classify import classify
from attnlang.passes.order import find_order
from attnlang.passes.specialize import specialize
from attnlang.passes.tile_lists import Lists, lists, transposed_lists
from tests.backward_calls import Call, call_of, dense
from tests.catalogue import EXAMPLES
from tests.kernel_calls import error, inputs, rounding

QUERIES, KEYS = 16, 32  # sides of the interpreter's tiles


def listed(
    made: Lists, classes: np.ndarray, shape: tuple[int, int], orders: dict[str, np.ndarray], others: int
) -> Walk:
    """The arguments of a kernel by lists."""
    arrays = {
        "tile_class": np.ascontiguousarray(np.broadcast_to(classes, shape)), "tile_starts": made.starts,
        "tile_columns": np.append(made.columns, 0), "tile_heavy": made.heavy, **orders,
    }  # fmt: skip
    tensors = {name: torch.as_tensor(array.astype(np.int32)) for name, array in arrays.items()}
    numbers = {"row_tiles": made.heavy.shape[1], **({"key_tiles": others} if orders else {})}
    return Walk(tensors, numbers, numbers["row_tiles"])


def found_by_lists(call: Call, form: Form, ordered: bool) -> dict[str, torch.Tensor]:
    """The gradients by kernels that read lists of tiles."""
    pattern, given = call.pattern.ir, call.inputs
    want = frozenset(("out", "lse"))
    ranges = driver.specialization_of(pattern, given, "interpret", want)
    special = specialize(pattern, ranges.head_dim, ranges.value_dim, dict(ranges.statics))
    (attention,) = (stage for stage in special.stages if isinstance(stage, Attention))
    stages = [stage for stage in special.stages if isinstance(stage, Let)]
    symbols: dict[str, Any] = {**given.sizes, **given.scalars}
    arrays = {name: tensor.numpy() for name, tensor in given.tensors.items()}
    tiles, orders = classify(attention, symbols, arrays, QUERIES, KEYS, stages), {}
    if ordered:
        better = find_order(attention, symbols, arrays, QUERIES, KEYS, stages)
        assert better is not None
        tiles = better.tiles
        orders = {
            "query_order": np.stack([order.queries for order in better.orders]),
            "key_order": np.stack([order.keys for order in better.orders]),
        }
    shape = (given.sizes["B"], given.sizes["H"])
    down, across = lists(tiles), transposed_lists(tiles)
    walks = {
        "NQ": listed(down, tiles.classes, shape, orders, across.heavy.shape[1]),
        "NK": listed(across, tiles.classes, shape, orders, down.heavy.shape[1]),
    }
    specialization = replace(ranges, walks=("ordered" if ordered else "lists",))
    grouped = given.sizes["H"] != given.sizes["HK"]
    program = backward_program(pattern, specialization, Wanted("QKV", True, grouped, form))
    (launches,) = program.values()
    forward = driver.execute(pattern, given, "interpret", want)
    assert forward.lse is not None
    values = {spelled(name): tensor for name, tensor in given.everything().items()}
    numbers = {spelled(name): number for name, number in symbols.items()}
    return gradients(
        launches,
        values,
        numbers,
        forward.out,
        forward.lse,
        call.dout,
        call.dlse,
        target="interpret",
        walks=walks,
        shares=3,
    )


def grid(name: str, **numbers: int) -> tuple[Pattern, dict[str, int]]:
    """An example and its parameters."""
    pattern = load(EXAMPLES / f"{name}.attn")
    return pattern, {key: value for key, value in numbers.items() if key in pattern.params}


@pytest.mark.parametrize("form", ("split", "fused"))
@pytest.mark.parametrize(
    ("name", "ordered"), (("document", False), ("neighborhood_2d", False), ("dilated_window", True))
)
def test_lists(name: str, ordered: bool, form: Form) -> None:
    pattern, numbers = grid(name, height=16, width=16, window_y=5, window_x=5, window=24, dilation=8)
    length = 256 if "height" in pattern.params else 200
    q, k, v = inputs(length, length, H=2, HK=1, seed=3)
    tensors = {"ids": torch.arange(length)[None] // 41} if "ids" in pattern.tensors else {}
    call = call_of(pattern, q, k, v, {**numbers, **tensors})
    exact, lse = dense(call, pattern.ir, torch.float64)
    rough, _ = dense(call, pattern.ir, q.dtype)
    for own, value in found_by_lists(call, form, ordered).items():
        limit = 2 * error(rough[own], exact[own]) + (1 + 4 * lse) * rounding(exact[own], q.dtype)
        assert error(value, exact[own]) <= limit, own
