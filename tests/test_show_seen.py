"""Who sees whom in each attention: branches, heads that see alike, one query's keys, tiles at scale, grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnlang import parse, show_seen, show_tiles
from attnlang.ir.interpret import Inputs
from attnlang.ir.pattern import Pattern
from attnlang.passes.classify import classify
from attnlang.show_colours import EMPTY, FAINTEST, FULL, PARTIAL, pixels_of_shares, rgb, tile_kinds
from attnlang.show_grid import fits, grid_of
from attnlang.show_seen import (
    Branch,
    alike,
    branches_of,
    heads_name,
    is_chosen,
    needed_by,
    seen_keys,
    seen_pairs,
    tile_pictures,
)
from attnlang.show_tiles import tile_picture, tile_shares
from tests.catalogue import call, example, seen
from tests.definitions import DEFINITIONS, cases

KEY_ONLY = [
    name
    for name in DEFINITIONS
    if any(branch.over.role == "key" and branch.row.role == "query" for branch in branches_of(example(name)))
]


def overall(pattern: Pattern, inputs: Inputs) -> list[Branch]:
    """The branches in which queries see keys."""
    return [each for each in branches_of(pattern) if each.over.role == "key" and each.row.role == "query"]


@pytest.mark.parametrize("name", KEY_ONLY)
def test_the_branches_together_see_what_the_pattern_sees(name: str) -> None:
    case = cases(name)[0]
    given = case.make_inputs(0)
    pattern, inputs = example(name), call(case, given)
    mask = seen(case, given).numpy()
    for batch in range(case.B):
        whole = np.zeros((case.H, case.NQ, case.NK), np.bool_)
        for branch in overall(pattern, inputs):
            whole |= seen_pairs(pattern, branch, inputs, batch)
        expected = np.broadcast_to(mask, (case.B, case.H, case.NQ, case.NK))[batch]
        assert whole.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["streaming", "document", "native_sparse", "routing", "agent", "longformer"])
def test_one_query_and_pieces_of_rows_see_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases(name)[0]
    pattern, inputs = example(name), call(case, case.make_inputs(0))
    for branch in branches_of(pattern):
        pairs = seen_pairs(pattern, branch, inputs)
        monkeypatch.setattr(show_seen, "MOST_AT_ONCE", 3 * pairs.shape[2])
        assert seen_pairs(pattern, branch, inputs).tolist() == pairs.tolist()
        monkeypatch.undo()
        first = branch.first({**inputs.sizes, **inputs.scalars})
        for row in (0, pairs.shape[1] - 1):
            assert seen_keys(pattern, branch, inputs, first + row).tolist() == pairs[:, row].tolist()


def test_branches_have_names_where_there_are_several() -> None:
    assert [branch.name for branch in branches_of(example("native_sparse"))] == ["coarse", "fine", "near"]
    assert [branch.name for branch in branches_of(example("causal"))] == [""]
    assert [branch.attention.name for branch in branches_of(example("delta"))] == ["states"]


def test_what_decides_who_sees_whom() -> None:
    fine, near = branches_of(example("native_sparse"))[1:]
    assert is_chosen(example("native_sparse"), fine) and not is_chosen(example("native_sparse"), near)
    (document,) = branches_of(example("document"))
    assert needed_by(example("document"), document) == {"ids"}
    (radial,) = branches_of(example("radial"))
    assert needed_by(example("radial"), radial) == {"octave"} and not is_chosen(example("radial"), radial)


# -------------------------------------------------------------------------------------------------- heads


def test_heads_that_see_alike_stand_together() -> None:
    masks = np.zeros((5, 3, 3), np.bool_)
    masks[[1, 3]] = np.eye(3, dtype=np.bool_)
    masks[4, 0, 0] = True
    assert alike(masks) == [(0, 2), (1, 3), (4,)]


@pytest.mark.parametrize(
    ("heads", "total", "name"),
    [
        ((0,), 1, ""), ((0, 1, 2), 3, "all 3 heads"), ((2,), 4, "head 2"), ((0, 1, 2), 4, "heads 0–2"),
        ((0, 2, 5, 6, 7), 8, "heads 0, 2, 5–7"),
    ],
)  # fmt: skip
def test_names_of_heads(heads: tuple[int, ...], total: int, name: str) -> None:
    assert heads_name(heads, total) == name


# -------------------------------------------------------------------------------------------------- tiles


def symbols_of(pattern: Pattern, length: int, heads: int = 1, **given: Any) -> dict[str, Any]:
    """Every number of a call of equally many queries and keys."""
    sizes = {"B": 1, "H": heads, "HK": heads, "NQ": length, "NK": length, "q_offset": 0, "D": 8, "DV": 8}
    return sizes | {each.name: given.get(each.name, each.default) for each in pattern.parameters}


def boxes(kinds: np.ndarray, step: int, kind: int) -> np.ndarray:
    """The share of a kind in every box of `step` × `step` tiles, one box after the other."""
    down, across = -(-kinds.shape[0] // step), -(-kinds.shape[1] // step)
    return np.array(
        [
            [
                (kinds[i * step : (i + 1) * step, j * step : (j + 1) * step] == kind).mean()
                for j in range(across)
            ]
            for i in range(down)
        ]
    )


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize(("name", "given"), [("streaming", {"window": 40}), ("dilated_window", {"window": 9}),
                                             ("sharded", {}), ("causal", {})])  # fmt: skip
def test_shares_of_tiles_are_those_of_the_pairs(name: str, given: dict[str, int], step: int) -> None:
    pattern, tokens = example(name), 200
    (branch,) = branches_of(pattern)
    symbols = symbols_of(pattern, tokens, **given)
    tiles = classify(branch.attention, symbols, {}, 8, 8, pattern.stages).map()
    full, partial = tile_shares(tiles, step)
    numbers = {
        key: value for key, value in symbols.items() if key not in ("B", "H", "HK", "NQ", "NK", "D", "DV")
    }
    mask = seen_pairs(pattern, branch, Inputs(None, None, None, symbols, {**numbers, "scale": 1.0}, {}))[0]
    kinds = tile_kinds(mask, 8)
    assert full.tolist() == boxes(kinds, step, FULL).tolist()
    assert partial.tolist() == boxes(kinds, step, PARTIAL).tolist()


def test_where_too_many_tiles_are_visited_the_pixels_are_classified(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = example("causal")
    (branch,) = branches_of(pattern)

    def classified(side: int) -> Any:
        return classify(branch.attention, symbols_of(pattern, 512), {}, side, side, pattern.stages).map()

    exact = tile_picture(classified(8), lambda times: classified(8 * times), most=16)
    monkeypatch.setattr(show_tiles, "MOST_LISTED", 10)
    rough = tile_picture(classified(8), lambda times: classified(8 * times), most=16)
    assert (exact.step, rough.step, exact.counts) == (4, 4, rough.counts)
    diagonal = np.eye(16, dtype=np.bool_)
    assert exact.pixels[~diagonal].tolist() == rough.pixels[~diagonal].tolist()
    assert rough.pixels[diagonal].tolist() == [list(rgb("#e07b1a"))] * 16


def test_a_million_tokens_are_drawn_without_their_pairs() -> None:
    pattern = example("streaming")
    (branch,) = branches_of(pattern)
    symbols = symbols_of(pattern, 1 << 20, heads=8, window=4096)
    ((heads, picture),) = tile_pictures(pattern, branch, symbols, {}, 64)
    assert (heads, picture.step, picture.pixels.shape) == (tuple(range(8)), 16, (1024, 1024, 3))
    counts = picture.counts
    assert counts.full + counts.partial + counts.empty == (1 << 14) ** 2
    assert counts.most is not None and counts.density < 4096 / 2**20 < counts.most < 1.05 * 4100 / 2**20
    paper = np.array(rgb("#f2f4f7"))
    coloured = (picture.pixels != paper).any(axis=2)
    assert coloured[:, 0].all() and coloured.diagonal().all()  # the sinks, and the window
    assert not coloured[np.triu_indices(1024, 1)].any()


def test_heads_at_scale_are_grouped_and_tensors_are_read() -> None:
    pattern = parse(
        "pattern p():\n    tensor reach[h]: int\n    mask causal\n    sparsity q - k < reach[h]\n"
    ).ir
    (branch,) = branches_of(pattern)
    symbols = symbols_of(pattern, 4096, heads=4)
    found = dict(tile_pictures(pattern, branch, symbols, {"reach": np.array([64, 512, 64, 512])}, 64))
    assert list(found) == [(0, 2), (1, 3)]
    assert (found[0, 2].counts.full, found[0, 2].counts.partial) == (0, 64 + 63)
    unknown = dict(tile_pictures(pattern, branch, symbols, {}, 64))
    assert all(each.counts.full == 0 and each.counts.partial == 64 * 65 // 2 for each in unknown.values())


def test_thin_lines_are_never_lost() -> None:
    full, partial = np.array([[0.0, 1.0, 0.001]]), np.array([[0.0, 0.0, 0.0]])
    nothing, whole, line = pixels_of_shares(full, partial)[0].tolist()
    assert (tuple(nothing), tuple(whole)) == (rgb("#f2f4f7"), rgb("#2b6cb0"))
    assert line[0] == round(FAINTEST * rgb("#2b6cb0")[0] + (1 - FAINTEST) * rgb("#f2f4f7")[0])
    assert EMPTY == 0


# -------------------------------------------------------------------------------------------------- grids


@pytest.mark.parametrize(
    ("name", "tokens", "given", "grid"),
    [
        ("neighborhood_2d", 96, {"height": 8, "width": 12}, (8, 12)),
        ("neighborhood_3d", 480, {"frames": 5, "height": 8, "width": 12, "window_t": 3}, (5, 8, 12)),
        ("radial", 96, {"frames": 6, "tokens": 16}, (6, 16)),
        ("unidirectional_blocks", 256, {"height": 16, "width": 16, "block": 4}, (16, 16)),
        ("sliding_window", 96, {}, (96,)),
        ("dilated_window", 96, {}, (96,)),
        ("local_block", 96, {"block": 16}, (6, 16)),
        ("local_block", 100, {"block": 16}, (7, 16)),
    ],
)
def test_the_grid_is_read_from_the_predicate(
    name: str, tokens: int, given: dict[str, int], grid: tuple[int, ...]
) -> None:
    (branch,) = branches_of(example(name))
    assert grid_of(branch.visible, branch.over, symbols_of(example(name), tokens, **given)) == grid


def test_numbers_that_do_not_divide_one_another_make_no_grid() -> None:
    pattern = parse("pattern p():\n    sparsity k // 6 == q // 6 or k // 4 == q // 4 or k // 12 == 0\n").ir
    (branch,) = branches_of(pattern)
    assert grid_of(branch.visible, branch.over, symbols_of(pattern, 48)) == (4, 3, 4)


def test_grids_that_fit() -> None:
    assert fits((8, 12), 96) and fits((8, 12), 90) and not fits((8, 12), 84) and not fits((8, 12), 97)
