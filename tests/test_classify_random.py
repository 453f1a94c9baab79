"""Tiles of random predicates against every pair: whole numbers, fractions, sums, heads, and what tensors hold."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from attnlang import AttnlangError, Pattern, parse
from attnlang.ir.interpret import Inputs, visible
from attnlang.passes.summaries import summary_of
from tests.predicates import COMPARISONS, PARAMETERS, numbers, predicates
from tests.test_classify import compare

EXAMPLES = int(os.environ.get("CLASSIFY_EXAMPLES", "150")) // 2
TILES = ((1, 1), (3, 4), (4, 4), (16, 8), (7, 16))
relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@dataclass(frozen=True)
class WholeCall:
    """A predicate over whole numbers, and a call of it: queries, keys, offset."""

    text: str
    sizes: tuple[int, int, int]
    tile: tuple[int, int]
    a: int
    c: int


WHOLE_CALLS = st.builds(
    WholeCall,
    predicates(),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(-30, 30)),
    st.sampled_from(TILES),
    st.integers(1, 9),
    st.integers(-6, 12),
)


@relaxed
@given(call=WHOLE_CALLS)
def test_whole_numbers(call: WholeCall) -> None:
    assert check_whole(call) == 0, "a tile is partial that is not"


def check_whole(call: WholeCall) -> int:
    """Fails where a tile is unsound; else the number of tiles called partial that are not."""
    queries, keys, offset = call.sizes
    try:
        pattern = parse(f"pattern p({PARAMETERS}):\n    sparsity {call.text}\n", "p")
        seen = pattern.mask(queries, keys, q_offset=offset, a=call.a, c=call.c).numpy()
    except AttnlangError:  # a constant divided by 0, a number that is no condition
        reject()
    symbols = {
        "NQ": queries,
        "NK": keys,
        "H": 1,
        "HK": 1,
        "B": 1,
        "q_offset": offset,
        "a": call.a,
        "c": call.c,
    }
    return compare(pattern.ir, symbols, {}, seen, call.tile)[0]


# ---------------------------------------------------------------------------------------------- everything else

FRACTIONS = ("0.5", "2.5", "f", "(q / 3)", "(k * f)", "x[b, q]", "x[b, k]", "temper[h]", "((q - k) / 4)")
CONDITIONS = (
    "flag[b, q]", "flag[b, k]", "(flag[b, q] == flag[b, k])", "any((q + e) mod 3 == k mod 3 for e in 2)",
    "all(k != q + e for e in a)", "(h < H // 2)", "grid_seen[b, q // 4, k // 4]", "(if_even and k <= q)",
    "(limit[h] <= k)",
)  # fmt: skip
WHOLE = (
    "floor(log2(max(q - k, 1)))", "floor(q / 2.5)", "max(e * q for e in 3)", "clip(q - k, 0, 4)", "round(k / 4)",
    "2 ** min(abs(q - k), 5)", "sum(e * k for e in 3)", "t[b, q]", "t[b, k]", "level[b, q // 8, k // 4]",
    "line[abs(q - k)]", "line[k mod 7]", "limit[h]", "(h * a)", "floor(sqrt(max(q - k, 0)))", "int(q < k)",
    "(q // 6)", "(k // 6)", "(q mod 6)", "(k mod 6)", "abs(q mod 6 - k mod 6)", "(q // 6 mod 3)", "sign(q - k)",
)  # fmt: skip
HEADER = """pattern p(a: int >= 1 = 1, c: int = 0, f: float = 0.5, if_even: bool = true):
    tensor t[b, n]: int
    tensor flag[b, n]: bool
    tensor limit[h]: int
    tensor temper[h]
    tensor x[b, n]
    tensor level[b, 12, 12]: int
    tensor grid_seen[b, 12, 12]: bool
    tensor line[48]: int
    let used = (0 * (t[0, 0] + limit[0] + level[0, 0, 0] + line[0]) + floor(0 * (x[0, 0] + temper[0]))) == 0

"""


def _compared(one: SearchStrategy[str], other: SearchStrategy[str]) -> SearchStrategy[str]:
    return st.tuples(one, COMPARISONS, other).map(lambda t: f"({t[0]} {t[1]} {t[2]})")


def _sums(one: SearchStrategy[str]) -> SearchStrategy[str]:
    return st.tuples(one, st.sampled_from(("+", "-", "*")), one).map(lambda t: f"({t[0]} {t[1]} {t[2]})")


def conditions() -> SearchStrategy[str]:
    """Conditions with floats, reductions, tensors and heads."""
    whole = st.sampled_from(WHOLE) | numbers()
    fraction = st.sampled_from(FRACTIONS)
    atoms = st.one_of(
        st.sampled_from(CONDITIONS), _compared(whole, whole), _compared(whole, whole | _sums(whole)),
        _compared(fraction, whole | fraction | _sums(fraction)),
    )  # fmt: skip
    return st.recursive(
        atoms,
        lambda smaller: st.one_of(
            st.tuples(smaller, st.sampled_from(("and", "or", "==")), smaller).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            smaller.map(lambda part: f"(not {part})"),
            st.tuples(smaller, smaller, smaller).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        ),
        max_leaves=4,
    )


def tensors(keys: int, heads: int, seed: int) -> dict[str, np.ndarray]:
    """What the header declares; ids in order in one batch entry, in blocks in the other."""
    draw = np.random.default_rng(seed)
    ordered = np.sort(draw.integers(0, 5, keys))
    blocks = np.repeat(draw.integers(0, 4, keys // 6 + 1), 6)[:keys]
    return {
        "t": np.stack([ordered, blocks]), "flag": draw.random((2, keys)) < 0.2, "limit": draw.integers(0, keys, heads),
        "temper": draw.normal(size=heads), "x": draw.normal(size=(2, keys)), "level": draw.integers(0, 3, (2, 12, 12)),
        "grid_seen": draw.random((2, 12, 12)) < 0.4, "line": draw.integers(-3, 9, 48),
    }  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A predicate over what the header declares, and a call of it; `more`: keys beyond the queries."""

    text: str
    queries: int
    more: int
    tile: tuple[int, int]
    numbers: tuple[int, int, float, bool]
    seed: int


CALLS = st.builds(
    Call,
    conditions(),
    st.integers(1, 40),
    st.integers(0, 8),
    st.sampled_from(TILES),
    st.tuples(st.integers(1, 6), st.integers(-6, 12), st.sampled_from((0.5, -1.25, 3.0)), st.booleans()),
    st.integers(0, 10**6),
)


@relaxed
@given(call=CALLS)
def test_everything_else(call: Call) -> None:
    check_everything(call)


def check_everything(call: Call) -> None:
    """Fails where a tile is unsound, with the tensors and without them."""
    keys, heads = call.queries + call.more, 2
    try:
        pattern = parse(f"{HEADER}    sparsity {call.text} and used\n", "p")
    except AttnlangError:
        reject()
    given_tensors = tensors(keys, heads, call.seed)
    sizes = {"B": 2, "H": heads, "HK": heads, "NQ": call.queries, "NK": keys, "D": 1, "DV": 1}
    numbers = dict(zip(("a", "c", "f", "if_even"), call.numbers, strict=True))
    scalars = {"q_offset": call.more, "scale": 1.0, **numbers}
    seen = truth(pattern, sizes, scalars, given_tensors)
    symbols = {**sizes, **scalars}
    compare(pattern.ir, symbols, given_tensors, seen, call.tile)
    compare(pattern.ir, symbols, {}, seen, call.tile)  # where tensors are not at hand
    blocks = 2 + call.seed % 7
    some = {
        name: summary_of(array, (1, *(blocks,) * (array.ndim - 1))) for name, array in given_tensors.items()
    }
    compare(pattern.ir, symbols, some, seen, call.tile)  # where only summaries are


def truth(
    pattern: Pattern,
    sizes: dict[str, int],
    scalars: dict[str, int | float | bool],
    given: dict[str, np.ndarray],
) -> np.ndarray:
    """Every pair, by the interpreter: [B or 1, H or 1, NQ, NK]."""
    nothing = torch.zeros(sizes["B"], sizes["H"], sizes["NK"], 1, dtype=torch.float64)
    found = {name: torch.from_numpy(array) for name, array in given.items()}
    return visible(
        pattern.ir, Inputs(nothing[:, :, : sizes["NQ"]], nothing, nothing, sizes, scalars, found)
    ).numpy()
