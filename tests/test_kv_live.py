"""KV liveness: no key is dropped that a later query sees, and what windows no longer see is dropped."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnlang
from attnlang.errors import AttnlangError, Diagnostics
from attnlang.liveness import LiveKeys
from attnlang.samples import random_tensors
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS, Case, cases
from tests.predicates import predicates


@cache
def loaded(name: str) -> attnlang.Pattern:
    return attnlang.load(EXAMPLES / f"{name}.attn")


def kept(live: tuple[LiveKeys, ...], heads: int, length: int) -> torch.Tensor:
    """bool [heads, length]: what stays, each head in one class."""
    found = torch.zeros(heads, length, dtype=torch.bool)
    assert sorted(head for each in live for head in each.kv_heads) == list(range(heads))
    for each in live:
        for head in each.kv_heads:
            for first, stop in each.ranges:
                assert 0 <= first < stop <= length
                found[head, first:stop] = True
        assert each.count == int(found[each.kv_heads[0]].sum())
    return found


def needed(mask: torch.Tensor, heads: int, groups: int, position: int) -> torch.Tensor:
    """bool [groups, NK]: what any query from the position on sees, of a mask [B or 1, H or 1, NQ, NK]."""
    seen = mask[:, :, position:].any(2).any(0)
    return seen.expand(heads, -1).unflatten(0, (groups, heads // groups)).any(1)


def case_of(name: str) -> Case:
    return next(iter(cases(name)))


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_no_key_is_dropped_that_a_later_query_sees(name: str) -> None:
    pattern, case = loaded(name), case_of(name)
    parameters: dict[str, Any] = dict(case.params)
    sizes = {
        "B": case.B,
        "H": case.H,
        "HK": case.HK,
        "NQ": case.NK,
        "NK": case.NK,
        "D": case.D,
        "DV": case.DV,
    }
    defaults = {each: value.default for each, value in pattern.params.items() if value.default is not None}
    symbols = {**sizes, "q_offset": 0, **defaults, **case.params}
    arguments = {**parameters, **random_tensors(pattern.ir, symbols, 0)}
    length = case.NK
    heads: dict[str, Any] = {"heads": case.H, "kv_heads": case.HK, "batch": case.B}
    try:
        mask = pattern.mask(length, length, **heads, **arguments)
    except AttnlangError:
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
    for position in (0, 1, length // 2, length - 1):
        live = kept(pattern.kv_live(length, position, **heads, **arguments), case.HK, length)
        assert not (needed(mask, case.H, case.HK, position) & ~live).any()
        without = kept(pattern.kv_live(length, position, **heads, **parameters), case.HK, length)
        assert not (live & ~without).any()


@settings(max_examples=40, deadline=None)
@given(predicates(), st.integers(1, 24), st.integers(0, 23))
def test_random_predicates(predicate: str, length: int, position: int) -> None:
    text = f"pattern random(a: int >= 1 = 1, c: int = 0):\n    mask {predicate}\n"
    try:
        pattern = attnlang.parse(text)
        mask = pattern.mask(length, length, a=3, c=2)
    except Diagnostics:
        return
    live = kept(pattern.kv_live(length, position, a=3, c=2), 1, length)
    assert not (needed(mask, 1, 1, position) & ~live).any()


DROPPED: dict[str, dict[str, Any]] = {
    "sliding_window": {"window": 40}, "streaming": {"window": 40, "sinks": 5},
    "dilated_window": {"window": 9, "dilation": 8}, "strided_blocks": {"block": 8, "near": 2, "stride": 6},
    "sharded": {"block": 8, "near": 2, "period": 4}, "short_long_heads": {"window": 17, "short": 2},
    "neighborhood_1d": {"length": 900, "window": 9},
    "neighborhood_2d": {"height": 30, "width": 30, "window_y": 5, "window_x": 5},
    "neighborhood_3d": {"frames": 9, "height": 10, "width": 10}, "local_block": {"block": 64},
    "shifted_groups": {"group": 50}, "document": {}, "region": {}, "longformer": {"radius": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_exactly_the_keys_that_nobody_sees_are_dropped(name: str) -> None:
    """For predicates of every kind: mod and //, grids, classes of heads, tensors; 900 keys are several tiles."""
    pattern, given = loaded(name), DROPPED[name]
    length, sizes = 900, {"B": 2, "H": 4, "HK": 2, "NQ": 900, "NK": 900, "D": 8, "DV": 8}
    defaults = {each: value.default for each, value in pattern.params.items() if value.default is not None}
    tensors: dict[str, Any] = dict(
        random_tensors(pattern.ir, {**sizes, "q_offset": 0, **defaults, **given}, 3)
    )
    if name == "document":
        tensors = {"ids": torch.arange(900).div(70, rounding_mode="floor") * torch.tensor([[1], [2]])}
    heads: dict[str, Any] = {"heads": 4, "kv_heads": 2, "batch": 2}
    mask = pattern.mask(length, length, **heads, **given, **tensors)
    dropped = 0
    for position in (0, 1, 255, 256, 450, 700, 899):
        live = kept(pattern.kv_live(length, position, **heads, **given, **tensors), 2, length)
        assert torch.equal(live, needed(mask, 4, 2, position)), position
        dropped += int((~live).sum())
    assert dropped > 0 or name in ("region", "longformer")


def ranges(pattern: attnlang.Pattern, *sizes: int, **arguments: Any) -> dict[tuple[int, ...], object]:
    return {each.kv_heads: each.ranges for each in pattern.kv_live(*sizes, **arguments)}


def test_a_window_needs_its_window_and_sinks_stay() -> None:
    assert ranges(loaded("sliding_window"), 10_000, 5_000, window=512) == {(0,): ((4_489, 10_000),)}
    assert ranges(loaded("streaming"), 10_000, 5_000, window=512, sinks=4) == {
        (0,): ((0, 4), (4_489, 10_000))
    }
    assert ranges(loaded("streaming"), 10_000, 514, window=512, sinks=4) == {(0,): ((0, 10_000),)}
    assert ranges(loaded("causal"), 100, 50) == {(0,): ((0, 100),)}
    assert ranges(loaded("causal"), 100, 100) == {(0,): ()}


def test_borders_are_exact_where_not_every_key_is_looked_at() -> None:
    found = ranges(loaded("dilated_window"), 1 << 20, 1 << 19, window=512, dilation=8)
    assert found == {(0,): (((1 << 19) - 511 * 8, 1 << 20),)}


def test_heads_have_classes_and_groups_keep_what_any_of_their_heads_sees() -> None:
    pattern = loaded("short_long_heads")
    short = ((91, 100),)
    assert ranges(pattern, 100, 95, heads=8, window=5, short=4) == {
        (0, 1, 2, 3): short, (4, 5, 6, 7): ((0, 100),)
    }  # fmt: skip
    assert ranges(pattern, 100, 95, heads=8, kv_heads=2, window=5, short=4) == {
        (0,): short,
        (1,): ((0, 100),),
    }
    assert ranges(pattern, 100, 95, heads=8, kv_heads=2, window=5, short=3) == {(0, 1): ((0, 100),)}


def test_tensors_that_decide_by_head_and_batch_entry() -> None:
    pattern = attnlang.parse(
        "pattern some():\n    tensor retrieval[h]: bool\n    mask causal and (retrieval[h] or q - k < 8)\n"
    )
    retrieval = torch.tensor([True, False])
    everything, near = ((0, 64),), ((25, 64),)
    assert ranges(pattern, 64, 32, heads=2, retrieval=retrieval) == {(0,): everything, (1,): near}
    assert ranges(pattern, 64, 32, heads=2) == {(0, 1): everything}
    prefix = attnlang.parse("pattern some():\n    tensor p[b]: int\n    mask window(8) or k < p[b]\n")
    assert ranges(prefix, 64, 32, batch=2, p=torch.tensor([3, 5])) == {(0,): ((0, 5), (25, 64))}


@pytest.mark.parametrize("text", [
    "    blocks c of k by 4\n    let KC[c] = mean(K[k] for k in c)\n    mask window(4)\n    score Q[q] @ KC[k // 4]\n",
    "    mask window(4)\n    normalize sinkhorn(2)\n",
    "    mask window(4)\n    score Q[q] @ (K[k] + K[0]) * scale\n",
    "    mask window(4)\n    score Q[q] @ sum(K[m] for m in NK) * scale\n",
    "    mask window(4)\n    score sum(Q[b, m, q] @ K[b, m, k] for m in heads)\n",
])  # fmt: skip
def test_everything_stays_where_keys_enter_otherwise(text: str) -> None:
    try:
        pattern = attnlang.parse(f"pattern some():\n{text}")
    except Diagnostics as mistake:
        pytest.fail(str(mistake))
    assert ranges(pattern, 32, 20, heads=2) == {(0, 1): ((0, 32),)}


def test_mistakes_of_the_arguments() -> None:
    for position in (-1, 1.5, True, None):
        with pytest.raises(AttnlangError, match="an int of at least 0"):
            loaded("causal").kv_live(8, position)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Diagnostics, match="windw"):
        loaded("streaming").kv_live(8, 1, windw=3)
