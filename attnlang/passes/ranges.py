"""Key ranges in closed form: a predicate over (q, k) becomes bands lower(q) ≤ k ≤ upper(q), as expressions.

A predicate is taken apart into alternatives (disjunctive form); in each, every comparison that is affine in k, also
below `//`, `abs`, `min`, `max`, gives a bound; what cannot be solved leaves the band inexact. Bounds are symbolic, so
lengths and parameters may change from call to call.
"""

from __future__ import annotations

from functools import reduce

from attnlang.ir.bounds import Facts, direction, interval
from attnlang.ir.pattern import (
    FALSE,
    ONE,
    TRUE,
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    dtype_of,
    free_axes,
)  # fmt: skip
from attnlang.ir.plan import Band, KeyRange
from attnlang.ir.rewrite import conjunction, simplify, substitute

MOST_BANDS = 4
NEGATION = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def bands(visible: Expr, query: Axis, key: Axis, facts: Facts) -> tuple[Band, ...]:
    """The alternatives of a predicate; none when it is false, one without bounds when nothing is known."""
    alternatives = _alternatives(simplify(visible), query, key)
    found = tuple(dict.fromkeys(_band(clause, query, key, facts) for clause in alternatives))
    found = tuple(band for band in found if band.guard != FALSE)
    if len(found) <= MOST_BANDS:
        return found
    lower = tuple(bound for bound in found[0].lower if all(bound in band.lower for band in found))
    upper = tuple(bound for bound in found[0].upper if all(bound in band.upper for band in found))
    return (Band(lower, upper, TRUE, exact=False),)


def key_range(band: Band, query: Axis, key: Axis, first: Expr, last: Expr, facts: Facts) -> KeyRange:
    """The keys of the queries first … last, within 0 … NK."""
    lowers = [_extremes(bound, query, first, last, facts) for bound in band.lower]
    uppers = [_extremes(tidy(Apply("add", (bound, ONE))), query, first, last, facts) for bound in band.upper]
    some_first = _fold("max", [Literal(0), *(least for least, _ in lowers if least is not None)])
    some_stop = _fold("min", [key.size, *(most for _, most in uppers if most is not None)])
    stop = _when(band.guard, some_stop)
    every = [most for _, most in lowers] + [least for least, _ in uppers]
    if not band.exact or None in every:
        return KeyRange(some_first, stop, None, None)
    full_first = _fold("max", [Literal(0), *(most for _, most in lowers if most is not None)])
    full_stop = _fold("min", [key.size, *(least for least, _ in uppers if least is not None)])
    return KeyRange(some_first, stop, full_first, _when(band.guard, full_stop))


def _when(guard: Expr, stop: Expr) -> Expr:
    return stop if guard == TRUE else Apply("where", (guard, stop, Literal(0)))


def _fold(op: str, parts: list[Expr]) -> Expr:
    return reduce(lambda a, b: simplify(Apply(op, (a, b))), dict.fromkeys(parts))


def _extremes(
    bound: Expr, query: Axis, first: Expr, last: Expr, facts: Facts
) -> tuple[Expr | None, Expr | None]:
    """Least and greatest value of a bound over the queries first … last; None where its direction is not known."""
    along = direction(bound, query, facts)
    if along is None:
        return None, None
    at_first = simplify(substitute(bound, {Index(query): first}))
    at_last = simplify(substitute(bound, {Index(query): last}))
    return (at_first, at_last) if along >= 0 else (at_last, at_first)


# ---------------------------------------------------------------------------------------- alternatives (DNF)

Clause = tuple[Expr, ...]


def _alternatives(expr: Expr, query: Axis, key: Axis, positive: bool = True) -> list[Clause]:
    """Disjunctive form over atoms; comparisons inside are split where abs, min, max or a condition stands in them."""
    match expr:
        case Literal(value):
            return [()] if bool(value) == positive else []
        case Apply("not", (x,)):
            return _alternatives(x, query, key, not positive)
        case Apply("and" | "or" as op, (x, y)):
            left, right = (_alternatives(part, query, key, positive) for part in (x, y))
            if (op == "and") == positive:
                return _trim([a + tuple(atom for atom in b if atom not in a) for a in left for b in right])
            return _trim(left + [clause for clause in right if clause not in left])
        case Apply("where", (condition, x, y)) if dtype_of(expr) == "bool":
            both = Apply("or", (_and(condition, x), _and(Apply("not", (condition,)), y)))
            return _alternatives(both if positive else Apply("not", (both,)), query, key)
        case Apply("lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, (x, y)) if _is_int(x) and _is_int(y):
            return _comparison(op if positive else NEGATION[op], x, y, query, key)
        case _:
            return [(expr if positive else Apply("not", (expr,)),)]


def _and(x: Expr, y: Expr) -> Expr:
    return Apply("and", (x, y))


def _is_int(expr: Expr) -> bool:
    return dtype_of(expr) == "int"


def _trim(clauses: list[Clause]) -> list[Clause]:
    """Beyond 64 alternatives the predicate counts as unknown: one clause with the atoms common to all."""
    if len(clauses) <= 64:
        return clauses
    common = [atom for atom in clauses[0] if all(atom in clause for clause in clauses)]
    return [(*common, _UNKNOWN)]


_UNKNOWN: Expr = Apply("float", (Literal(1.0),))  # an atom that no rule solves


def _comparison(op: str, x: Expr, y: Expr, query: Axis, key: Axis) -> list[Clause]:
    """An integer comparison as `E ≥ 0`, split where needed."""
    difference = {"ge": (x, y, 0), "gt": (x, y, 1), "le": (y, x, 0), "lt": (y, x, 1)}
    if op == "eq":
        return _alternatives(_and(Apply("ge", (x, y)), Apply("le", (x, y))), query, key)
    if op == "ne":
        if key not in free_axes(x) | free_axes(y):
            return [(Apply("ne", (x, y)),)]
        return _alternatives(Apply("or", (Apply("gt", (x, y)), Apply("lt", (x, y)))), query, key)
    a, b, slack = difference[op]
    return _nonnegative(Apply("sub", (Apply("sub", (a, b)), Literal(slack))), query, key)


def _nonnegative(expr: Expr, query: Axis, key: Axis) -> list[Clause]:
    terms, constant = linear(expr)
    for term, factor in terms.items():
        split = _split(term, factor, query, key)
        if split is None:
            continue
        op, choices = split
        parts = [_rebuild({**terms, term: 0}, constant, choice, factor) for choice in choices]
        tests = [Apply("ge", (part, Literal(0))) for part in parts]
        match term:
            case Apply("where", (condition, _, _)):
                both = Apply("or", (_and(condition, tests[0]), _and(Apply("not", (condition,)), tests[1])))
                return _alternatives(both, query, key)
            case _:
                return _alternatives(Apply(op, (tests[0], tests[1])), query, key)
    return [(Apply("ge", (_rebuild(terms, constant, Literal(0), 0), Literal(0))),)]


def _split(term: Expr, factor: int, query: Axis, key: Axis) -> tuple[str, tuple[Expr, Expr]] | None:
    """How `… + factor·term ≥ 0` falls apart: min(a, b) ≥ … is an `and`, max(a, b) ≥ … an `or`."""
    axes = free_axes(term)
    match term:
        case Apply("abs", (x,)) if query in axes or key in axes:
            return ("or" if factor > 0 else "and"), (x, Apply("neg", (x,)))
        case Apply("max", (x, y)) if key in axes:
            return ("or" if factor > 0 else "and"), (x, y)
        case Apply("min", (x, y)) if key in axes:
            return ("and" if factor > 0 else "or"), (x, y)
        case Apply("where", (_, x, y)) if key in axes:
            return "where", (x, y)
        case _:
            return None


# ------------------------------------------------------------------------------------------- linear forms


def linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    """An int expression as Σ factor·term + constant; a product with a literal and nothing else is taken apart."""
    terms: dict[Expr, int] = {}
    constant = 0

    def add(part: Expr, factor: int) -> None:
        nonlocal constant
        match part:
            case Literal(value):
                constant += factor * int(value)
            case Apply("add", (x, y)):
                add(x, factor)
                add(y, factor)
            case Apply("sub", (x, y)):
                add(x, factor)
                add(y, -factor)
            case Apply("neg", (x,)):
                add(x, -factor)
            case Apply("mul", (Literal(int(value)), x)) | Apply("mul", (x, Literal(int(value)))):
                add(x, factor * value)
            case _:
                terms[part] = terms.get(part, 0) + factor

    add(simplify(expr), 1)
    return {term: factor for term, factor in terms.items() if factor}, constant


def tidy(expr: Expr) -> Expr:
    """The linear form written out: added terms first, then subtracted ones, the constant last."""
    terms, constant = linear(expr)
    return _rebuild(terms, constant, Literal(0), 0)


def _rebuild(terms: dict[Expr, int], constant: int, extra: Expr, extra_factor: int) -> Expr:
    rows = [(term, factor) for term, factor in [*terms.items(), (extra, extra_factor)] if factor]
    total: Expr | None = None
    for term, factor in sorted(rows, key=lambda row: row[1] < 0):
        size = term if abs(factor) == 1 else Apply("mul", (Literal(abs(factor)), term))
        if total is None:
            total = size if factor > 0 else Apply("neg", (size,))
        else:
            total = Apply("add" if factor > 0 else "sub", (total, size))
    if total is None:
        return Literal(constant)
    if constant:
        total = Apply("add" if constant > 0 else "sub", (total, Literal(abs(constant))))
    return simplify(total)


# ------------------------------------------------------------------------------------------ solving for k


def _band(clause: Clause, query: Axis, key: Axis, facts: Facts) -> Band:
    lower: list[Expr] = []
    upper: list[Expr] = []
    guard: Expr = TRUE
    exact = True
    for atom in clause:
        axes = free_axes(atom)
        if query not in axes and key not in axes and atom != _UNKNOWN:
            guard = conjunction(guard, atom)
            continue
        solved = _solve(atom, key, facts) if key in axes else None
        if solved is None:
            exact = False
            continue
        (lower if solved[0] == "lower" else upper).append(solved[1])
    return Band(tuple(dict.fromkeys(lower)), tuple(dict.fromkeys(upper)), guard, exact)


def _solve(atom: Expr, key: Axis, facts: Facts) -> tuple[str, Expr] | None:
    """`k ≥ bound` as ("lower", bound), `k ≤ bound` as ("upper", bound), None where k cannot be isolated."""
    match atom:
        case Apply("ge", (expr, Literal(0))) if dtype_of(expr) == "int":
            return _isolate(expr, key, facts)
        case _:
            return None


def _isolate(expr: Expr, key: Axis, facts: Facts) -> tuple[str, Expr] | None:
    """Solves expr ≥ 0 for k."""
    terms, constant = linear(expr)
    with_key = [(term, factor) for term, factor in terms.items() if key in free_axes(term)]
    if len(with_key) != 1:
        return None
    term, factor = with_key[0]
    rest = _rebuild({t: f for t, f in terms.items() if t != term}, constant, Literal(0), 0)
    if factor > 0:  # term ≥ ceil(−rest / factor)
        return _below(term, "lower", Apply("neg", (Apply("floordiv", (rest, Literal(factor))),)), key, facts)
    return _below(term, "upper", Apply("floordiv", (rest, Literal(-factor))), key, facts)


def _below(term: Expr, side: str, bound: Expr, key: Axis, facts: Facts) -> tuple[str, Expr] | None:
    """Solves term ≥ bound (lower) or term ≤ bound (upper) for k."""
    bound = tidy(bound)
    match term:
        case Index(axis) if axis == key:
            return side, bound
        case Apply("floordiv", (inner, divisor)) if _positive(divisor, key, facts):
            scaled = Apply("mul", (bound, divisor))
            if side == "upper":
                scaled = Apply("add", (scaled, Apply("sub", (divisor, ONE))))
        case Apply("mul", (divisor, inner)) | Apply("mul", (inner, divisor)) if _positive(
            divisor, key, facts
        ):
            if side == "upper":
                scaled = Apply("floordiv", (bound, divisor))
            else:
                scaled = Apply("neg", (Apply("floordiv", (Apply("neg", (bound,)), divisor)),))
        case _:
            return None
    difference = (inner, scaled) if side == "lower" else (scaled, inner)
    return _isolate(Apply("sub", difference), key, facts)


def _positive(expr: Expr, key: Axis, facts: Facts) -> bool:
    return key not in free_axes(expr) and interval(expr, facts)[0] > 0
