"""Tiles of every attention of sections A to F at a few of the small calls that benchmarks/sparsity.py goes through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnlang.ir.pattern import Attention
from attnlang.passes.classify import Tiles, classify
from benchmarks import sparsity_soundness
from benchmarks.sparsity_rival import watched
from benchmarks.sparsity_soundness import masked, sizes_of
from benchmarks.sparsity_tiles import FULL, PARTIAL, compared, kinds, load, tiles_of
from tests.definitions import DEFINITIONS

HIDING = sorted(set(masked()))
EXACT = ("causal", "sliding_window", "dilated_window", "strided_blocks", "sharded", "shifted_groups", "neighborhood_1d",
         "radial", "swin", "halo", "local_block")  # fmt: skip


@pytest.mark.parametrize(("name", "attention"), HIDING)
def test_no_tile_is_wrong(name: str, attention: str) -> None:
    report = sizes_of(name, attention, seed=3, every=23, longest=24)
    assert report.calls > 8 and report.counts["unsound"] == 0, report.wrong
    assert report.counts["truly_nonempty"] <= report.counts["visited"]
    if name in EXACT:
        assert report.counts["visited"] == report.counts["truly_nonempty"]
        assert report.counts["full"] == report.counts["truly_full"]


def test_every_section_is_there() -> None:
    found = {DEFINITIONS[name].section for name, _ in HIDING}
    assert found == set("ABCDEF") and len(HIDING) > 60


def test_a_wrong_tile_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: tiles of another window than the pairs."""

    def narrower(stage: Attention, symbols: dict[str, Any], *more: Any) -> Tiles:
        return classify(stage, {**symbols, "window": max(1, symbols["window"] // 2)}, *more)

    monkeypatch.setattr(sparsity_soundness, "classify", narrower)
    report = sizes_of("sliding_window", "attention", seed=1, every=7, longest=24)
    assert report.counts["unsound"] > 0 and report.wrong


def test_pairs_seen_by_some_and_by_all() -> None:
    some, every = np.ones((4, 4), bool), np.eye(4, dtype=bool)
    assert kinds(some, every, 2, 2).tolist() == [[PARTIAL, PARTIAL], [PARTIAL, PARTIAL]]
    assert kinds(some, some, 4, 2).tolist() == [[FULL, FULL]]
    tiles = tiles_of(load("full"), 4, 4, 1, (2, 2), {})
    assert compared(tiles, some[None, None], every[None, None])["unsound"] == 4


def test_a_worker_goes_through_the_lengths_and_stops_at_a_limit() -> None:
    rows = watched("causal", "ours", 60, 8, 2048)
    assert [row["tokens"] for row in rows] == [1024, 2048] and all(row["ms"] > 0 for row in rows)
    (stopped,) = watched("causal", "ours", 60, 0.0001, 2048)
    assert stopped["stopped"] == "more than 0.0001 GiB" and stopped["tokens"] == 1024
