"""Kernels that read their tiles from lists, in the natural order of tokens and in another, against the definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import attnlang
from attnlang import execute_tilings
from attnlang.execute import prepared_call
from attnlang.execute_tilings import Walk
from attnlang.ir.interpret import Inputs
from attnlang.passes import packing, tiling
from attnlang.passes.boxes_map import Plain, TileMap
from attnlang.passes.boxes_runs import PARTIAL
from attnlang.passes.classify import Tiles
from attnlang.passes.order import Order, Ordered
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import check_call, error, inputs, narrowed, rounding
from tests.test_kernels import pattern_of

SECTIONS = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Walk]]:
    """Lists at every call whose predicate has no exact ranges, however small; gives the walks that were made."""
    execute_tilings.forget()
    monkeypatch.setattr(tiling, "FEWEST_TILES", 0)
    monkeypatch.setattr(tiling, "FEWEST_QUERIES", 0)
    monkeypatch.setattr(packing, "FEWEST_QUERIES", 0)  # nor are heads packed instead
    monkeypatch.setattr(tiling, "LIST_COST", 0.0)
    made: list[Walk] = []
    make = execute_tilings._walk  # pyright: ignore[reportPrivateUsage]

    def noted(*arguments: Any, **named: Any) -> Walk:
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(execute_tilings, "_walk", noted)
    yield made
    execute_tilings.forget()


def shuffled(attention: Any, symbols: Any, tensors: Any, rows: int, columns: int, *rest: Any) -> Ordered:
    """Tokens in a random order with free places, every tile partial: what a kernel must take."""
    chance = np.random.default_rng(7)

    def order(length: int, side: int) -> np.ndarray[Any, Any]:
        places = -(-(length + length // 3 + 1) // side) * side
        result = np.full(places, -1, np.int32)
        result[np.sort(chance.permutation(places)[:length])] = chance.permutation(length)
        return result

    found = Order(order(symbols["NQ"], rows), order(symbols["NK"], columns))
    heights, widths = len(found.queries) // rows, len(found.keys) // columns
    pointers = np.arange(heights + 1, dtype=np.int64)
    first, stop = np.zeros(heights, np.int32), np.full(heights, widths, np.int32)
    kinds, vectors = np.full(heights, PARTIAL, np.uint8), np.zeros((0, widths), np.uint8)
    sides = (np.full(heights, rows, np.int64), np.full(widths, columns, np.int64))
    each = TileMap(Plain(pointers, first, stop, kinds), None, vectors, *sides)
    tiles = Tiles(rows, columns, np.zeros((1, 1), np.int64), (each,), symbols["H"], symbols["B"])
    return Ordered(tiles, (found,), "shuffled", "to see whether kernels mind", "as they stand", each.counts)


def run_case(case: Case, dtype: torch.dtype, kernels: str = "interpret") -> None:
    """A case of the definitions by its kernel, with the tolerance of the kernel tests."""
    definition, pattern = DEFINITIONS[case.name], pattern_of(case.name)
    low = narrowed(case.make_inputs(0), dtype)
    high = narrowed(low, torch.float64)
    wanted = definition.function(**high, **case.params, scale=case.scale, q_offset=case.q_offset).out
    q, k, v = (low.pop(name) for name in "qkv")
    found: dict[str, Any] = {}
    for target in (kernels, "eager"):
        given: Any = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
        found[target] = pattern(q, k, v, **given, target=target)
    allowed = 2 * error(found["eager"], wanted) + rounding(wanted, dtype)
    assert error(found[kernels], wanted) <= allowed


INEXACT = [case for name in SECTIONS for case in cases(name)[:4]]


@pytest.mark.parametrize("case", INEXACT, ids=lambda case: case.id)
def test_lists_say_what_the_predicate_says(case: Case, always: list[Walk]) -> None:
    run_case(case, torch.float32)


@pytest.mark.parametrize("case", INEXACT[::2], ids=lambda case: case.id)
def test_any_order_of_tokens_gives_the_same(
    case: Case, always: list[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "find_order", shuffled)
    run_case(case, torch.bfloat16 if len(case.id) % 2 else torch.float32)
    assert all(walk.tiling is not None and walk.tiling.walk == "ordered" for walk in always)


@pytest.mark.parametrize("case", INEXACT[::5], ids=lambda case: case.id)
def test_units_of_keys_make_tiles_of_any_width(case: Case, always: list[Walk]) -> None:
    run_case(case, torch.bfloat16 if len(case.id) % 2 else torch.float32, "cpu")


@pytest.mark.parametrize("case", INEXACT[1::7], ids=lambda case: case.id)
def test_units_in_any_order_of_tokens(
    case: Case, always: list[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "find_order", shuffled)
    run_case(case, torch.float32, "cpu")


def test_most_of_these_patterns_read_lists(always: list[Walk]) -> None:
    for case in INEXACT[::4]:
        run_case(case, torch.float32)
    assert len(always) >= 10


DOCUMENT = attnlang.load(EXAMPLES / "document.attn")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each search for a tiling."""
    calls: list[int] = []
    choose = tiling.choose_tiling

    def noted(*arguments: Any) -> Any:
        calls.append(1)
        return choose(*arguments)

    monkeypatch.setattr(tiling, "choose_tiling", noted)
    return calls


def test_nothing_is_made_again_while_nothing_changes(
    always: list[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    q, k, v = inputs(100, 100)
    ids = torch.arange(100)[None] // 30
    first = DOCUMENT(q, k, v, ids=ids, target="interpret")
    again = DOCUMENT(q, k, v, ids=ids.clone(), scale=0.25, target="interpret")
    assert len(always) == 1 and len(calls) == 1
    ids[:, 50:] += 1  # the same tensor, changed in place
    other = DOCUMENT(q, k, v, ids=ids, target="interpret")
    assert len(always) == 2 and len(calls) == 2
    assert not torch.equal(first, other) and first.shape == again.shape
    check_call(DOCUMENT, q, k, v, ids=ids)


def test_contents_changed_behind_torch_are_seen(always: list[Walk]) -> None:
    numbers = np.zeros((1, 100), np.int64)
    ids = torch.from_numpy(numbers)
    q, k, v = inputs(100, 100)
    check_call(DOCUMENT, q, k, v, ids=ids)
    numbers[:, 40:] = 1
    check_call(DOCUMENT, q, k, v, ids=ids)


def test_short_calls_make_no_lists() -> None:
    execute_tilings.forget()
    q, k, v = inputs(100, 100)
    check_call(DOCUMENT, q, k, v, ids=torch.arange(100)[None] // 30)
    assert all(walk.tiling is None for made in execute_tilings.kept() for walk in made)


def test_long_calls_do() -> None:
    execute_tilings.forget()
    q, k, v = inputs(300, 300)
    check_call(DOCUMENT, q, k, v, ids=torch.arange(300)[None] // 30)
    (made,) = execute_tilings.kept()
    chosen = made[0].tiling
    assert chosen is not None
    assert chosen.tiles.counts.full + chosen.tiles.counts.partial < 30
    assert chosen.decisions[0].subject == "key ranges"


def test_users_may_call_things_as_kernels_do(always: list[Walk]) -> None:
    pattern = attnlang.parse(
        "pattern p(row_tiles: int = 3):\n    tensor tile_columns[n]: int\n"
        "    mask tile_columns[q] == tile_columns[k] and (q - k) mod row_tiles == 0\n"
    )
    q, k, v = inputs(70, 70, H=2)
    check_call(pattern, q, k, v, tile_columns=torch.arange(70) // 20)
    assert len(always) == 1


def test_heads_and_batch_entries_have_lists_of_their_own(always: list[Walk]) -> None:
    pattern = attnlang.parse(
        "pattern p():\n    tensor ids[b, n]: int\n    mask ids[b, q] == ids[b, k] and (q + h) mod 3 == k mod 3\n"
    )
    q, k, v = inputs(90, 90, B=2, H=4, HK=2)
    ids = torch.stack([torch.arange(90) // 20, torch.arange(90) // 35])
    check_call(pattern, q, k, v, ids=ids)
    chosen = always[0].tiling
    assert chosen is not None and chosen.classes.shape == (2, 4)
    assert len(chosen.tiles.maps) == 6


def test_lengths_and_parameters_make_no_new_kernel(always: list[Walk]) -> None:
    pattern = attnlang.parse(
        "pattern p(window: int = 4, dilation: int = 2, cap: float = 2.0):\n    tensor ids[b, n]: int\n"
        "    mask k <= q and ids[b, q] == ids[b, k]\n"
        "    sparsity q - k < window and (q - k) mod dilation == 0\n"
        "    score tanh(Q[q] @ K[k] * scale) * cap\n"
    )
    ranges = [*range(130, 150)]
    programs: set[int] = set()
    for place, length in enumerate(ranges):
        q, k, v = inputs(length, length)
        numbers = {"window": 8 + place % 10, "cap": 1.0 + place % 5}
        given = call_of(pattern, q, k, v, torch.arange(length)[None] // 40, numbers)
        found = prepared_call(pattern.ir, given, "cuda:90", frozenset(("out",)))
        programs |= {id(launch.source) for launch in found.program.launches}
    assert len(always) == len(ranges) and len(programs) <= 2  # in the natural order, or in another


def call_of(
    pattern: attnlang.Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    ids: torch.Tensor,
    numbers: Any,
) -> Inputs:
    """The call as the driver hands it on."""
    sizes = {"B": 1, "H": 1, "HK": 1, "NQ": q.shape[2], "NK": k.shape[2], "D": 16, "DV": 16}
    return Inputs(q, k, v, sizes, {"q_offset": 0, "scale": 0.25, "dilation": 2, **numbers}, {"ids": ids})


def gradient(ids: torch.Tensor, given: list[torch.Tensor]) -> torch.Tensor:
    """The gradient of V of the sum of all, by kernels."""
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    DOCUMENT(*leaves, ids=ids, target="interpret").square().sum().backward()
    assert leaves[2].grad is not None
    return leaves[2].grad


def test_lists_are_of_what_a_tensor_held_and_not_of_what_it_holds_now(always: list[Walk]) -> None:
    given = inputs(100, 100)
    first = torch.arange(100)[None] // 30
    second, changed = first.clone(), first.clone()
    wanted = gradient(first, given)
    execute_tilings.forget()
    DOCUMENT(*given, ids=changed, target="interpret")  # its lists are kept
    changed.copy_(torch.arange(100)[None] % 2)
    assert torch.equal(gradient(second, given), wanted)


def test_a_tensor_that_changes_before_the_backward_pass_is_an_error(always: list[Walk]) -> None:
    q, k, v = inputs(100, 100)
    ids = torch.arange(100)[None] // 30
    out = DOCUMENT(q.requires_grad_(), k, v, ids=ids, target="interpret")
    ids.add_(torch.arange(100)[None] % 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_without_a_tensor_that_decides_a_plan_has_no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("classified without the tensor that decides")

    monkeypatch.setattr(tiling, "classify", refuse)
    monkeypatch.setattr(tiling, "find_order", refuse)
    decisions = DOCUMENT.plan(4096, 4096, target="cuda:90").decisions
    (ranges,) = (decision for decision in decisions if decision.subject == "key ranges")
    assert "closed-form" in ranges.choice
