"""What a plan says of a call: tiles, density, work, bytes, time, decisions, and the keys that a decoder needs."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnlang
from attnlang.cli_compare import comparison, differences
from attnlang.errors import AttnlangError, Diagnostics
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import Attention
from attnlang.ir.plan import Report
from attnlang.passes.density import share_of_pairs
from attnlang.samples import random_tensors
from tests.predicates import predicates

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def planned(name: str, length: int, **arguments: Any) -> Report:
    given = {"heads": 2, "target": "cuda:90", **arguments}
    return attnlang.load(EXAMPLES / f"{name}.attn").plan(length, length, **given)


def kinds_of(mask: torch.Tensor, rows: int, columns: int) -> tuple[int, int]:
    """Tiles that hold a visible pair, and those of them that hide none, of a mask [1, H, N, N]."""
    tiles = mask[0].unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).transpose(2, 3).flatten(3)
    return int(tiles.any(-1).sum()), int(tiles.all(-1).sum())


GRID = {"height": 32, "width": 32}
PARAMETERS: dict[str, dict[str, Any]] = {
    "causal": {}, "sliding_window": {"window": 200}, "streaming": {"window": 100, "sinks": 3},
    "short_long_heads": {"window": 70, "short": 1}, "strided_blocks": {"block": 32, "near": 2, "stride": 4},
    "neighborhood_2d": GRID, "radial": {"frames": 4, "tokens": 256}, "sharded": {"block": 64, "near": 1, "period": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_tiles_and_density_are_those_of_the_mask(name: str) -> None:
    given = PARAMETERS[name]
    plan = planned(name, 1024, **given)
    mask = attnlang.load(EXAMPLES / f"{name}.attn").mask(1024, 1024, heads=2, **given).expand(1, 2, -1, -1)
    (count,) = plan.tiles
    visited, full = kinds_of(mask, count.rows, count.columns)
    if any(each.subject == "token order" for each in plan.decisions):
        assert count.visited < visited
    else:
        assert (count.visited, count.full) == (visited, full)
        assert count.visited + count.empty == 2 * (1024 // count.rows) * (1024 // count.columns)
    assert plan.density == pytest.approx(mask.double().mean().item(), abs=0)
    assert plan.density_bounds == (plan.density, plan.density)


def test_density_by_differences_where_no_range_is_closed() -> None:
    plan = planned("dilated_window", 4096, window=30, dilation=7)
    mask = attnlang.load(EXAMPLES / "dilated_window.attn").mask(4096, 4096, window=30, dilation=7)
    assert plan.density == mask.double().mean().item()
    offset = attnlang.load(EXAMPLES / "dilated_window.attn").plan(
        100, 4096, q_offset=50, heads=1, window=9, dilation=5, target="cuda:90"
    )
    seen = attnlang.load(EXAMPLES / "dilated_window.attn").mask(100, 4096, q_offset=50, window=9, dilation=5)
    assert offset.density == seen.double().mean().item()


@pytest.mark.parametrize("name", ["document", "region", "prefix_lm", "diagonal_masked"])
def test_density_of_what_tensors_decide(name: str) -> None:
    pattern = attnlang.load(EXAMPLES / f"{name}.attn")
    sizes = {"B": 2, "H": 2, "HK": 2, "NQ": 300, "NK": 300, "D": 8, "DV": 8, "q_offset": 0}
    tensors: dict[str, Any] = dict(random_tensors(pattern.ir, sizes, 1))
    without = planned(name, 300, batch=2)
    assert set(without.missing) <= set(pattern.tensors)
    known = planned(name, 300, batch=2, **tensors)
    true = pattern.mask(300, 300, heads=2, batch=2, **tensors).double().mean().item()
    assert known.missing == ()
    assert known.density == pytest.approx(true, abs=1e-12)
    low, high = without.density_bounds
    assert low <= true <= high
    if without.missing:
        assert without.density is None and "not given here" in " ".join(str(without).split())


@settings(max_examples=60, deadline=None)
@given(predicates(), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_density_of_random_predicates(predicate: str, queries: int, keys: int, offset: int) -> None:
    try:
        pattern = attnlang.parse(f"pattern some(a: int >= 1 = 1, c: int = 0):\n    mask {predicate}\n")
        mask = pattern.mask(queries, keys, q_offset=offset, a=3, c=2)
    except Diagnostics:
        return
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    sizes = {"B": 1, "H": 1, "HK": 1, "NQ": queries, "NK": keys, "D": 8, "DV": 8, "q_offset": offset}
    facts = Facts.of(pattern.ir.parameters, (0.0, float("inf")))
    symbols = {**sizes, "a": 3, "c": 2, "scale": 1.0}
    low, high = share_of_pairs(attention, symbols, {}, pattern.ir.stages, facts)
    true = mask.double().mean().item()
    assert low - 1e-12 <= true <= high + 1e-12


def test_density_is_bounded_where_pairs_are_too_many_to_look_at() -> None:
    plan = planned("neighborhood_2d", 65_536, heads=1, height=256, width=256)
    low, high = plan.density_bounds
    assert plan.density is None and 0 <= low < 49 / 65_536 < high < 0.01
    assert "between" in str(plan)


def test_work_and_bytes() -> None:
    plan = planned("causal", 4096, heads=8, kv_heads=2, head_dim=64, value_dim=32, batch=3)
    (count,) = plan.tiles
    assert plan.flops == 2 * 96 * count.visited * count.rows * count.columns * 3
    assert plan.bytes == 3 * 96 * 4096 * (8 + 2) * 2
    assert plan.index_bytes == 0
    assert plan.intensity == plan.flops / plan.bytes
    assert plan.compute_seconds == plan.flops / 742e12
    assert plan.memory_seconds == plan.bytes / 4.07e12
    assert plan.seconds == max(plan.flops / 742e12, plan.bytes / 4.07e12)
    bias = planned("pair_bias", 256)
    assert bias.bytes == 2 * 256 * (128 + 128) * 2 * 2 + _tensor_bytes("pair_bias", 256)
    assert planned("causal", 256, target="cuda:80").seconds is None
    assert "not predicted" in str(planned("causal", 256, target="cuda:80"))


def _tensor_bytes(name: str, length: int) -> int:
    pattern = attnlang.load(EXAMPLES / f"{name}.attn")
    sizes = {"B": 1, "H": 2, "HK": 2, "NQ": length, "NK": length, "D": 8, "DV": 8, "q_offset": 0}
    return sum(2 * tensor.numel() for tensor in random_tensors(pattern.ir, sizes, 0).values())


def test_index_lists_are_counted_and_explained() -> None:
    plan = planned("neighborhood_2d", 1024, **GRID)
    assert plan.index_bytes > 0
    (ranges,) = [each for each in plan.decisions if each.subject == "key ranges"]
    assert "lists of" in ranges.choice and ranges.alternative
    assert f"{plan.tiles[0].visited:,}" in ranges.choice


@pytest.mark.parametrize("name", ["causal", "sliding_window", "streaming"])
def test_exact_ranges_need_no_lists(name: str) -> None:
    plan = planned(name, 1024)
    assert plan.index_bytes == 0
    assert not [each for each in plan.decisions if each.subject == "sparsity"]


def test_a_plan_is_plain_data_in_a_stable_shape() -> None:
    plan = planned("streaming", 512)
    found = json.loads(json.dumps(plan.to_dict()))
    assert list(found) == [
        "pattern", "target", "sizes", "parameters", "algorithm", "tiles", "density", "density_bounds", "missing",
        "flops", "bytes", "index_bytes", "compute_seconds", "memory_seconds", "decisions", "obstacles",
        "recompiles_with", "intensity", "seconds",
    ]  # fmt: skip
    assert list(found["tiles"][0]) == ["branch", "rows", "columns", "full", "partial", "empty", "visited"]
    assert all(list(each) == ["subject", "choice", "reason", "alternative"] for each in found["decisions"])
    assert found == planned("streaming", 512).to_dict() | {
        "density_bounds": list(plan.density_bounds), "missing": []
    }  # fmt: skip
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan and again.kv_live(400) == plan.kv_live(400)


def test_dense_plans_say_what_they_compute() -> None:
    plan = planned("sinkhorn", 128)
    assert plan.tiles == () and plan.seconds is None
    assert plan.flops == 2 * 256 * 2 * 128 * 128
    assert "dense PyTorch" in str(plan) and "no kernel" in str(plan)


def test_the_text_is_aligned_and_not_too_wide() -> None:
    for name, arguments in PARAMETERS.items():
        lines = str(planned(name, 1024, **arguments)).splitlines()
        assert max(map(len, lines)) <= 110
        said = [
            line for line in lines[1:] if line.startswith("  ") and line[2] not in " " and line[14:16] != "  "
        ]
        places = {len(line) - len(line[15:].lstrip()) for line in said if len(line) > 16 and line[15] == " "}
        assert places <= {16}, lines


def test_two_plans_side_by_side_show_all_of_them() -> None:
    left, right = planned("sliding_window", 4096, window=64), planned("document", 4096)
    shown = comparison(left, right)
    for name in ("parameters", "runs as", "tiles visited", "tiles full", "tiles partial", "tiles empty", "density",
                 "operations", "memory", "index lists", "intensity", "computing", "moving", "at least"):  # fmt: skip
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
    assert re.search(r"^  density +[\d.]+% +0.00% to [\d.]+%$", shown, re.MULTILINE)
    assert [each["subject"] for each in differences(left, right)]


def test_the_keys_of_a_plan_are_those_of_its_pattern() -> None:
    pattern = attnlang.load(EXAMPLES / "streaming.attn")
    plan = pattern.plan(1, 10_000, heads=4, kv_heads=2, window=512, sinks=4, target="cuda:90")
    wanted = pattern.kv_live(10_000, 5_000, heads=4, kv_heads=2, window=512, sinks=4)
    assert plan.kv_live(5_000) == wanted
    assert wanted[0].ranges == ((0, 4), (4_489, 10_000))
    for position in (-1, 1.5, None):
        with pytest.raises(AttnlangError, match="an int of at least 0"):
            plan.kv_live(position)  # pyright: ignore[reportArgumentType]


def test_tensors_of_other_queries_say_nothing_of_later_ones() -> None:
    pattern = attnlang.parse(
        "pattern some():\n    tensor near[q]: bool\n    mask causal and (near[q] or k < 3)\n"
    )
    near = torch.zeros(16, dtype=torch.bool)
    assert pattern.plan(16, 16, near=near, target="cuda:90").kv_live(8)[0].ranges == ((0, 3),)
    part = pattern.plan(4, 16, near=near[:4], target="cuda:90")
    assert part.kv_live(8)[0].ranges == ((0, 16),)
