"""Orders of tokens for random predicates with coordinates: no candidate is unsound, whatever was asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from attnlang import AttnlangError, parse
from attnlang.passes.classify import Work
from tests.predicates import COMPARISONS, predicates
from tests.test_classify import only_attention
from tests.test_order import check_candidates

EXAMPLES = int(os.environ.get("CLASSIFY_EXAMPLES", "150")) // 2
TILES = ((2, 2), (3, 4), (8, 4), (7, 16))
DIVISOR = st.integers(2, 9).map(str)
QUERY = st.sampled_from(("q", "q", "q + c", "q.x", "q.y", "c - q"))
relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def coordinates() -> SearchStrategy[str]:
    """What may be compared of a query: a quotient or remainder, a place on a grid, a label."""
    divided = st.tuples(QUERY, st.sampled_from(("//", "mod")), DIVISOR).map(
        lambda t: f"(({t[0]}) {t[1]} {t[2]})"
    )
    return divided | st.sampled_from(("q.x", "q.y", "label[b, q]", "max(q.x - 2, 0)", "height[h, q.y]"))


def of_key(text: str) -> str:
    """The same of a key."""
    return text.replace("label[b, q]", "label[b, k]").replace("q", "k")


def meetings() -> SearchStrategy[str]:
    """Conditions in which a coordinate of a query meets one of a key, or a remainder of their distance."""
    like = st.tuples(coordinates(), coordinates(), st.booleans()).map(
        lambda t: (t[0], of_key(t[0] if t[2] else t[1]))
    )
    near = st.tuples(like, st.integers(0, 3)).map(lambda t: f"(abs({t[0][0]} - {t[0][1]}) <= {t[1]})")
    compared = st.tuples(like, COMPARISONS).map(lambda t: f"({t[0][0]} {t[1]} {t[0][1]})")
    residue = st.tuples(DIVISOR, st.integers(0, 2)).map(lambda t: f"((q - k + c) mod {t[0]} <= {t[1]})")
    flag = st.sampled_from(("flag[b, q]", "flag[b, k]", "(k mod 5 == 1)", "(flag[b, q] == flag[b, k])"))
    return near | near | compared | residue | flag


def conditions() -> SearchStrategy[str]:
    """Several of them joined, with other predicates between."""
    joined = st.sampled_from(("and", "and", "or"))
    return st.recursive(
        meetings() | meetings() | predicates(),
        lambda smaller: (
            st.tuples(smaller, joined, smaller).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
            | smaller.map(lambda part: f"(not {part})")
        ),
        max_leaves=4,
    )


@dataclass(frozen=True)
class GridCall:
    """A predicate over a grid of `extents`, called with fewer queries than keys or as many."""

    text: str
    extents: tuple[int, int]
    missing: int
    tile: tuple[int, int]
    a: int
    c: int
    seed: int


CALLS = st.builds(
    GridCall,
    conditions(),
    st.tuples(st.integers(2, 7), st.integers(2, 9)),
    st.integers(0, 3),
    st.sampled_from(TILES),
    st.integers(1, 9),
    st.integers(-6, 12),
    st.integers(0, 9),
)


@relaxed
@given(call=CALLS)
def test_no_candidate_is_unsound(call: GridCall) -> None:
    rows, columns = call.extents
    keys = rows * columns
    draw = np.random.default_rng(call.seed)
    tensors: dict[str, Any] = {
        "label": draw.integers(0, 4, (1, keys)), "flag": draw.random((1, keys)) < 0.4,
        "height": draw.integers(0, 5, (2, rows)),
    }  # fmt: skip
    given_: dict[str, Any] = {"rows": rows, "columns": columns, "a": call.a, "c": call.c}
    text = (
        "pattern p(rows: int >= 1, columns: int >= 1, a: int >= 1 = 1, c: int = 0):\n"
        "    tensor label[b, n]: int\n    tensor flag[b, n]: bool\n    tensor height[h, rows]: int\n"
        "    grid q, k as (y: rows, x: columns)\n"
        f"    sparsity {call.text}\n"
    )
    queries = keys - call.missing
    try:
        pattern = parse(text, "p")
        held = {name: torch.from_numpy(array) for name, array in tensors.items()}
        mask = pattern.mask(queries, keys, heads=2, **held, **given_).numpy()
    except AttnlangError:
        reject()
    symbols = {"NQ": queries, "NK": keys, "H": 2, "HK": 2, "B": 1, "q_offset": call.missing, **given_}
    work = Work(only_attention(pattern.ir), symbols, tensors, pattern.ir.stages)
    check_candidates(work, np.broadcast_to(mask, (1, 2, queries, keys)), call.tile)
