"""What is known of a scalar over many boxes of pairs at once: intervals of numbers, and four bits of a condition.

A condition over a box: CAN_TRUE and CAN_FALSE say what is not excluded, HAS_TRUE and HAS_FALSE what certainly occurs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes import BIG

Array = NDArray[Any]
Flags = Any
"""A bool for all boxes, or one for each."""
CAN_TRUE, CAN_FALSE, HAS_TRUE, HAS_FALSE = 1, 2, 4, 8
ALWAYS, NEVER, UNKNOWN, MIXED = CAN_TRUE | HAS_TRUE, CAN_FALSE | HAS_FALSE, 3, 15


@dataclass(frozen=True)
class Interval:
    """low ≤ value ≤ high; `tight`: both ends occur; `dense`: every whole number between them occurs, too."""

    low: Array
    high: Array
    tight: Flags = False
    dense: Flags = False


Bits = NDArray[np.uint8]


def number(value: Any) -> Interval:
    """One number."""
    array = np.asarray(value)
    return Interval(array, array, True, True)


def anything(whole: bool) -> Interval:
    """A number of which nothing is known."""
    return (
        Interval(np.asarray(-BIG), np.asarray(BIG))
        if whole
        else Interval(np.asarray(-np.inf), np.asarray(np.inf))
    )


def single(x: Interval) -> Flags:
    """Where an interval is one number."""
    return np.equal(x.low, x.high)


def bits(can_true: Any, can_false: Any, has_true: Any, has_false: Any) -> Bits:
    """The four flags as one number for each box; what is not excluded alone certainly occurs."""
    has_true = has_true | ~np.asarray(can_false)
    has_false = has_false | ~np.asarray(can_true)
    result = np.asarray(can_true, np.uint8) | np.left_shift(np.asarray(can_false, np.uint8), 1)
    return (
        result
        | np.left_shift(np.asarray(has_true, np.uint8), 2)
        | np.left_shift(np.asarray(has_false, np.uint8), 3)
    )


def in_range(form: Interval, low: int, high: int) -> Bits:
    """low ≤ form ≤ high"""
    can_true = (form.high >= low) & (form.low <= high)
    can_false = (form.low < low) | (form.high > high)
    end_inside = ((form.low >= low) & (form.low <= high)) | ((form.high >= low) & (form.high <= high))
    return bits(
        can_true, can_false, (form.dense & can_true) | (form.tight & end_inside), form.tight & can_false
    )


def compare(op: str, x: Interval, y: Interval, apart: bool) -> Bits:
    """x < y, x ≤ y, x = y of numbers; `apart`: they vary independently of one another."""
    tight = (x.tight & y.tight) if apart else (single(x) & single(y))
    match op:
        case "lt":
            can_true, can_false = x.low < y.high, x.high >= y.low
        case "le":
            can_true, can_false = x.low <= y.high, x.high > y.low
        case _:
            can_true = (x.low <= y.high) & (y.low <= x.high)
            can_false = ~(single(x) & single(y) & (x.low == y.low))
            return bits(can_true, can_false, False, tight & can_false & ~can_true)
    return bits(can_true, can_false, tight & can_true, tight & can_false)


# --------------------------------------------------------------------------------------------------- conditions


def _tabulated(rule: Callable[[Array, Array], Bits]) -> Bits:
    codes = np.arange(16, dtype=np.uint8)
    return rule(codes[:, None], codes[None, :]).reshape(-1)


def _split(x: Array) -> tuple[Array, Array, Array, Array]:
    return (x & 1) > 0, (x & 2) > 0, (x & 4) > 0, (x & 8) > 0


def _and(x: Array, y: Array) -> Bits:
    (a, b, c, d), (e, f, g, h) = _split(x), _split(y)
    return bits(a & e, b | f, (c & ~f) | (g & ~b), d | h)


def _same(x: Array, y: Array) -> Bits:
    (a, b, c, d), (e, f, g, h) = _split(x), _split(y)
    has_true = (c & ~f) | (d & ~e) | (g & ~b) | (h & ~a)
    has_false = (c & ~e) | (d & ~f) | (g & ~a) | (h & ~b)
    return bits((a & e) | (b & f), (a & f) | (b & e), has_true, has_false)


_NOT: Bits = np.array([(c >> 1 & 5) | (c << 1 & 10) for c in range(16)], dtype=np.uint8)
_AND = _tabulated(_and)
_SAME = _tabulated(_same)


def negation(x: Bits) -> Bits:
    """not x"""
    return _NOT[x]


def both(x: Bits, y: Bits) -> Bits:
    """x and y"""
    return _AND[(x << 4) | y]


def either(x: Bits, y: Bits) -> Bits:
    """x or y"""
    return negation(both(negation(x), negation(y)))


def same(x: Bits, y: Bits) -> Bits:
    """x = y of conditions"""
    return _SAME[(x << 4) | y]


def choose(condition: Bits, x: Bits, y: Bits) -> Bits:
    """x where the condition holds, else y, of conditions"""
    (a, b, c, d), (e, f, g, h), (k, m, n, p) = _split(condition), _split(x), _split(y)
    has_true = (c & ~f) | (d & ~m) | (~b & g) | (~a & n)
    has_false = (c & ~e) | (d & ~k) | (~b & h) | (~a & p)
    return bits((a & e) | (b & k), (a & f) | (b & m), has_true, has_false)


# ------------------------------------------------------------------------------------------------------ numbers


def as_number(x: Bits) -> Interval:
    """1 where a condition holds, else 0."""
    low, high = (x & CAN_FALSE) == 0, (x & CAN_TRUE) != 0
    tight = ((x & HAS_TRUE) != 0) == high
    tight &= ((x & HAS_FALSE) == 0) == low
    return Interval(low.astype(np.int64), high.astype(np.int64), tight, tight)


def blend(condition: Bits, x: Interval, y: Interval) -> Interval:
    """x where the condition holds, else y."""
    first, second = (condition & CAN_FALSE) == 0, (condition & CAN_TRUE) == 0
    low = np.where(first, x.low, np.where(second, y.low, np.minimum(x.low, y.low)))
    high = np.where(first, x.high, np.where(second, y.high, np.maximum(x.high, y.high)))
    return Interval(low, high, (first & x.tight) | (second & y.tight), (first & x.dense) | (second & y.dense))


def total(terms: list[tuple[int, Interval, int]], constant: int) -> Interval:
    """Σ factor·term + constant; the third of a term is the side it depends on."""
    low: Any = constant
    high: Any = constant
    tight: Flags = True
    dense: Flags = True
    sides = 0
    for factor, term, side in terms:
        apart = sides & side == 0
        ends = (term.low, term.high) if factor >= 0 else (term.high, term.low)
        low, high = low + factor * ends[0], high + factor * ends[1]
        tight = tight & term.tight if apart else tight & term.tight & single(term)
        steady = term.dense if abs(factor) == 1 else term.dense & single(term)
        dense = dense & steady if apart else dense & term.tight & single(term)
        sides |= side
    return Interval(np.asarray(low), np.asarray(high), tight, dense)


def absolute(x: Interval) -> Interval:
    """|x|"""
    across = (x.low < 0) & (x.high > 0)
    least = np.where(across, 0, np.minimum(np.abs(x.low), np.abs(x.high)))
    most = np.maximum(np.abs(x.low), np.abs(x.high))
    return Interval(least, most, x.dense | (x.tight & ~across), x.dense)


def quotient(x: Interval, divisor: Interval, whole: bool) -> Interval:
    """x // divisor; nothing is known of it where the divisor may be 0 or negative."""
    good = divisor.low > 0
    by = np.where(good, divisor.low, 1), np.where(good, divisor.high, 1)
    corners = [np.floor_divide(a, b) for a in (x.low, x.high) for b in by]
    low = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    high = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    none = anything(whole)
    fixed = single(divisor) & good
    return Interval(
        np.where(good, low, none.low), np.where(good, high, none.high), fixed & x.tight, fixed & x.dense
    )


def remainder(x: Interval, divisor: Interval, whole: bool) -> Interval:
    """x mod divisor; nothing is known of it where the divisor may be 0 or negative."""
    good = divisor.low > 0
    one = single(divisor) & good
    by = np.where(good, divisor.high, 1)
    first = np.floor_divide(x.low, by)
    inside = one & (first == np.floor_divide(x.high, by)) & whole
    inside |= (x.low >= 0) & (x.high < divisor.low) & good
    base = np.where(one, first * by, 0)
    most = by - 1 if whole else by
    around = one & x.dense & (x.high - x.low >= by - 1)
    crossed = one & x.dense & whole
    none = anything(whole)
    low = np.where(inside, x.low - base, np.where(good, 0, none.low))
    high = np.where(inside, x.high - base, np.where(good, most, none.high))
    return Interval(low, high, (inside & x.tight) | crossed, (inside & x.dense) | around)


def product(x: Interval, y: Interval, apart: bool) -> Interval:
    """x · y"""
    corners = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
    low = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    high = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    tight = x.tight & y.tight if apart else x.tight & y.tight & (single(x) | single(y))
    return Interval(low, high, tight)


def sharper(x: Interval, y: Interval, apart: bool, least: bool) -> Interval:
    """min(x, y) or max(x, y)"""
    pick = np.minimum if least else np.maximum
    decided_x = (x.high <= y.low) if least else (x.low >= y.high)
    decided_y = (y.high <= x.low) if least else (y.low >= x.high)
    tight = (decided_x & x.tight) | (decided_y & y.tight) | (apart & x.tight & y.tight)
    dense = (decided_x & x.dense) | (decided_y & y.dense) | (apart & x.dense & y.dense)
    return Interval(pick(x.low, y.low), pick(x.high, y.high), tight, dense)
