"""Closed-form key ranges against brute force: nothing visible is left out, nothing hidden is in a full range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attnlang import AttnlangError, Pattern, load, parse
from attnlang.execute_programs import plan_for
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import HEAD, Attention, Index
from attnlang.ir.plan import Band, Specialization
from attnlang.ir.rewrite import conjunction
from attnlang.passes.counting import FIRST, LAST, count_tiles, value_of, visible_pairs
from attnlang.passes.ranges import MOST_BANDS, bands, key_range
from tests.catalogue import EXAMPLES
from tests.predicates import PARAMETERS, predicates


def attention_of(pattern: Pattern) -> Attention:
    """The one attention of a pattern."""
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    return attention


def bands_of(pattern: Pattern, offset: int = 0) -> tuple[Band, ...]:
    """The bands of what its queries see."""
    attention = attention_of(pattern)
    visible = conjunction(attention.mask, attention.sparsity)
    facts = Facts.of(pattern.ir.parameters, (0.0 if offset >= 0 else -np.inf, np.inf))
    return bands(visible, attention.rows[-1], attention.over, facts)


Numbers = dict[str, int]
Run = tuple[int, int, int, int]


def runs(pattern: Pattern, found: tuple[Band, ...], numbers: Numbers, first: int, last: int) -> list[Run]:
    """first, stop, full_first, full_stop of each band for the queries first … last."""
    attention = attention_of(pattern)
    facts = Facts.of(pattern.ir.parameters, (0.0 if numbers["q_offset"] >= 0 else -np.inf, np.inf))
    result: list[Run] = []
    for band in found:
        keys = key_range(band, attention.rows[-1], attention.over, FIRST, LAST, facts)
        symbols = {**numbers, "q_first": first, "q_last": last}
        parts = (keys.first, keys.stop, keys.full_first, keys.full_stop)
        values = [0 if part is None else int(value_of(part, symbols, {Index(HEAD): 0})) for part in parts]
        result.append((values[0], values[1], values[2], values[3]))
    return result


def check(pattern: Pattern, NQ: int, NK: int, offset: int, rows: int, **parameters: int) -> None:
    """Every tile of `rows` queries, and the counts of tiles and pairs of the whole plan."""
    visible = pattern.mask(NQ, NK, q_offset=offset, **parameters)[0, 0].numpy()
    numbers = {"NQ": NQ, "NK": NK, "H": 1, "HK": 1, "B": 1, "q_offset": offset, **parameters}
    found = bands_of(pattern, offset)
    assert len(found) <= MOST_BANDS
    for top in range(0, NQ, rows):
        tile = visible[top : top + rows]
        last = min(top + rows, NQ) - 1
        covered = np.zeros(NK, dtype=bool)
        for first, stop, full_first, full_stop in runs(pattern, found, numbers, top + offset, last + offset):
            assert first >= 0 and stop <= NK
            covered[first : max(stop, 0)] = True
            assert bool(tile[:, full_first : max(full_stop, 0)].all()), "a hidden pair in a full range"
        assert not (tile.any(0) & ~covered).any(), "a visible pair outside the ranges"


@settings(max_examples=250)
@given(
    text=predicates(),
    sizes=st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(-30, 30)),
    rows=st.sampled_from((1, 3, 4, 16)),
    a=st.integers(1, 9),
    c=st.integers(-6, 12),
)
def test_no_visible_pair_is_left_out(
    text: str, sizes: tuple[int, int, int], rows: int, a: int, c: int
) -> None:
    NQ, NK, offset = sizes
    try:
        pattern = parse(f"pattern random({PARAMETERS}):\n    mask {text}\n")
    except AttnlangError:  # a comparison of constants that can never hold, or the like
        assume(False)
        raise
    check(pattern, NQ, NK, offset, rows, a=a, c=c)


NAMED = {
    "causal": [{}],
    "sliding_window": [{"window": 1}, {"window": 3}, {"window": 7}, {"window": 50}],
    "streaming": [{"window": 3, "sinks": 0}, {"window": 4, "sinks": 2}, {"window": 1, "sinks": 30}],
    "local": [{"radius": 0}, {"radius": 3}, {"radius": 60}],
    "local_block": [{"block": 1}, {"block": 4}, {"block": 5}, {"block": 40}],
}


@pytest.mark.parametrize("name", ("causal", "sliding_window", "streaming", "local", "local_block"))
def test_the_ranges_are_exact(name: str) -> None:
    """Of these the ranges hold what is visible and nothing else, at every length, offset and tile."""
    pattern = load(EXAMPLES / f"{name}.attn")
    attention = attention_of(pattern)
    found = bands_of(pattern)
    assert all(band.exact for band in found)
    for parameters in NAMED[name]:
        for NQ, NK, offset in ((13, 13, 0), (5, 17, 12), (9, 11, 0), (4, 6, 20), (1, 9, 8), (16, 3, 0)):
            visible = pattern.mask(NQ, NK, q_offset=offset, **parameters)[0, 0].numpy()
            numbers = {"NQ": NQ, "NK": NK, "H": 1, "HK": 1, "B": 1, "q_offset": offset, **parameters}
            for rows in (1, 2, 5, 16):
                for top in range(0, NQ, rows):
                    tile = visible[top : top + rows]
                    last = min(top + rows, NQ) - 1
                    some, every = np.zeros(NK, dtype=bool), np.zeros(NK, dtype=bool)
                    for run in runs(pattern, found, numbers, top + offset, last + offset):
                        some[run[0] : max(run[1], 0)] = True
                        every[run[2] : max(run[3], 0)] = True
                    assert np.array_equal(some, tile.any(0)) or _within_hull(some, tile.any(0), len(found))
                    assert np.array_equal(every, tile.all(0))
    assert attention.over.role == "key"


def _within_hull(some: Any, wanted: Any, count: int) -> bool:
    """A range per band may not be tighter than from its first visible key to its last."""
    ends = np.flatnonzero(wanted)
    inside = np.zeros_like(some)
    if len(ends):
        inside[ends[0] : ends[-1] + 1] = True
    return count == 1 and np.array_equal(some, inside)


@pytest.mark.parametrize("name", ("causal", "sliding_window", "streaming", "local", "local_block"))
def test_tiles_are_counted_without_looking_at_pairs(name: str) -> None:
    pattern = load(EXAMPLES / f"{name}.attn")
    plan = plan_for(pattern.ir, Specialization("interpret", "fp32", 16, 16), 128)
    (branch,) = plan.branches
    rows, columns = branch.tile.rows, branch.tile.columns
    for parameters in NAMED[name]:
        parameters = {key: value * 9 for key, value in parameters.items()}
        for NQ, NK in ((100, 100), (33, 200), (200, 64)):
            offset = max(NK - NQ, 0)
            numbers = {"NQ": NQ, "NK": NK, "H": 3, "HK": 1, "B": 1, "q_offset": offset, **parameters}
            facts = Facts.of(pattern.ir.parameters, (0.0, np.inf))
            counted = count_tiles(branch, numbers, facts)
            visible = pattern.mask(NQ, NK, q_offset=offset, **parameters)[0, 0].numpy()
            tiles = [
                visible[r : r + rows, c : c + columns]
                for r in range(0, NQ, rows)
                for c in range(0, NK, columns)
            ]
            some = sum(bool(tile.any()) for tile in tiles)
            every = sum(bool(tile.all()) and tile.shape[1] == columns for tile in tiles)
            assert counted.visited == 3 * some
            if len(branch.bands) == 1:
                assert counted.full == 3 * every
            else:  # a tile that two ranges fill together counts as partial
                assert 3 * (every - len(tiles) // 4) <= counted.full <= 3 * every
            assert counted.visited + counted.empty == 3 * len(tiles)
            assert visible_pairs(branch, numbers) == 3 * int(visible.sum())


@pytest.mark.parametrize(
    ("text", "exact"),
    (
        ("abs(q - k) <= 3", True),
        ("q // 4 - k // 4 == 1", False),
        ("(k - 2) // a <= q", True),
        ("min(q, 9) >= k and k * 3 >= q", True),
        ("(q + k) mod 3 == 0", False),
        ("k mod 4 == 0 and k <= q", False),
    ),
)
def test_what_can_be_solved(text: str, exact: bool) -> None:
    pattern = parse(f"pattern one({PARAMETERS}):\n    mask {text}\n")
    found = bands_of(pattern)
    assert found
    if exact:
        assert all(band.exact for band in found)
    for offset in (0, 3, -5):
        check(pattern, 14, 15, offset, 4, a=3, c=0)


def test_many_alternatives_become_one_range() -> None:
    text = " or ".join(f"k == {number}" for number in range(40))
    pattern = parse(f"pattern many():\n    mask k <= q and ({text})\n")
    found = bands_of(pattern)
    assert len(found) == 1 and not found[0].exact and found[0].upper
    check(pattern, 30, 50, 10, 4)


def test_false_has_no_range() -> None:
    assert bands_of(parse("pattern none():\n    mask k < 0 and false\n")) == ()
    check(parse("pattern none():\n    mask k < 0\n"), 5, 5, 0, 2)
