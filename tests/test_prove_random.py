"""Whatever is proved of random predicates holds in every call that is tried, and plain truths are proved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnlang import AttnlangError, parse
from attnlang.call_interface import Interface
from attnlang.call_numbers import Number, number
from attnlang.claims_proof import proof
from attnlang.ir.pattern import Apply, Attention, Axis, Claim, Expr, Pattern
from attnlang.passes.prove import Prover
from tests.predicates import PARAMETERS, comparisons, numbers, predicates

EXAMPLES = int(os.environ.get("PROVE_EXAMPLES", "80"))
relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
WEAKER = st.sampled_from(("{p} or {x}", "{x} or {p}", "not (not {p} and {x})", "{p} if {x} else {p}"))
BOUNDS = st.sampled_from(
    ("a", "2 * a", "a + 1", "NK", "max(c, 0)", "max(a, c)", "3", "NK // 2 + 1", "(NK + a) // a")
)
CALLS = 60


@dataclass(frozen=True)
class Meaning:
    """A pattern with one attention over the keys."""

    pattern: Pattern
    query: Axis
    key: Axis
    visible: Expr


def meaning(text: str) -> Meaning | None:
    """The pattern that sees these pairs; None where a report says what is wrong with it."""
    try:
        pattern = parse(f"pattern p({PARAMETERS}):\n    sparsity {text}\n", "p").ir
    except AttnlangError:
        return None
    (stage,) = pattern.stages
    assert isinstance(stage, Attention)
    return Meaning(pattern, stage.rows[2], stage.over, Apply("and", (stage.mask, stage.sparsity)))


def calls(*, inside: bool, seed: int) -> Iterator[dict[str, Number]]:
    """Small calls: sizes, offset and parameters."""
    random = Random(seed)
    for _ in range(CALLS):
        keys = random.randint(1, 9)
        queries = random.randint(1, keys) if inside else random.randint(1, 7)
        offset = random.randint(0, keys - queries) if inside else random.randint(-9, 9)
        free = {"a": random.randint(1, 7), "c": random.randint(-6, 12)}
        yield {"NQ": queries, "NK": keys, "q_offset": offset, "H": 1, "HK": 1, "B": 1, **free}


def rows(found: Meaning, symbols: dict[str, Number]) -> Iterator[tuple[int, list[int]]]:
    """The queries of a call, and which keys each sees."""
    start = int(symbols["q_offset"])
    for query in range(start, start + int(symbols["NQ"])):
        keys = range(int(symbols["NK"]))
        yield query, [k for k in keys if number(found.visible, symbols, {found.query: query, found.key: k})]


@relaxed
@given(
    first=predicates(), second=comparisons(), form=WEAKER, weaker=st.booleans(), seed=st.integers(0, 2**16)
)
def test_what_is_implied_holds(first: str, second: str, form: str, weaker: bool, seed: int) -> None:
    text = form.format(p=first, x=second) if weaker else second
    one, other = meaning(first), meaning(f"({text})")
    if one is None or other is None:
        return
    prover = Prover(one.pattern, inside=False)
    proved = prover.valid(prover.terms.formula(other.visible, {}), (prover.terms.formula(one.visible, {}),))
    if not proved:
        return
    for symbols in calls(inside=False, seed=seed):
        for query, keys in rows(one, symbols):
            for key in keys:
                assert number(other.visible, symbols, {one.query: query, one.key: key}), (symbols, query, key)


@relaxed
@given(text=predicates(), seed=st.integers(0, 2**16))
def test_no_row_is_empty_that_is_proved_to_see_something(text: str, seed: int) -> None:
    found = meaning(text)
    if found is None or proof(Interface(found.pattern), Claim("nonempty"), None, quick=True) is None:
        return
    for symbols in calls(inside=True, seed=seed):
        for query, keys in rows(found, symbols):
            assert keys, (symbols, query)


@relaxed
@given(text=predicates(), seed=st.integers(0, 2**16))
def test_no_key_is_late_that_is_proved_not_to_be(text: str, seed: int) -> None:
    found = meaning(text)
    if found is None or proof(Interface(found.pattern), Claim("causal"), None, quick=True) is None:
        return
    for symbols in calls(inside=True, seed=seed):
        for query, keys in rows(found, symbols):
            assert max(keys, default=query) <= query, (symbols, query)


@relaxed
@given(
    text=predicates(),
    least=numbers(),
    most=numbers(),
    bound=BOUNDS,
    ranged=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_row_sees_more_than_is_proved(
    text: str, least: str, most: str, bound: str, ranged: bool, seed: int
) -> None:
    found = meaning(f"{least} <= k <= {most} and {text}" if ranged else text)
    if found is None:
        return
    with_claim = parse(f"pattern p({PARAMETERS}):\n    assert rows <= {bound}\n", "p").ir.claims[0]
    if proof(Interface(found.pattern), with_claim, None, quick=True) is None:
        return
    for symbols in calls(inside=False, seed=seed):
        assert with_claim.bound is not None
        limit = number(with_claim.bound, symbols)
        for query, keys in rows(found, symbols):
            assert len(keys) <= limit, (symbols, query, keys)


@relaxed
@given(
    text=predicates(),
    share=st.sampled_from(("0.5", "1 / a", "a / NK", "(NK + 1) / (2 * NK)", "0.75")),
    seed=st.integers(0, 99),
)
def test_no_density_is_above_what_is_proved(text: str, share: str, seed: int) -> None:
    found = meaning(text)
    if found is None:
        return
    claim = parse(f"pattern p({PARAMETERS}):\n    assert density <= {share}\n", "p").ir.claims[0]
    if proof(Interface(found.pattern), claim, None, quick=True) is None:
        return
    assert claim.bound is not None
    for symbols in calls(inside=False, seed=seed):
        symbols["q_offset"] = int(symbols["NK"]) - int(symbols["NQ"])
        seen = sum(len(keys) for _, keys in rows(found, symbols))
        pairs = int(symbols["NQ"]) * int(symbols["NK"])
        assert seen <= float(number(claim.bound, symbols)) * pairs + 1e-9, symbols


@relaxed
@given(text=predicates())
def test_everything_implies_itself(text: str) -> None:
    found = meaning(text)
    if found is None:
        return
    prover = Prover(replace(found.pattern), inside=False)
    formula = prover.terms.formula(found.visible, {})
    assert prover.valid(formula, (formula,))
