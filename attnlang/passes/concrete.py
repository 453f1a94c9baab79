"""Closed-form key ranges of one known call, head by head: parameters, sizes and small tensors are numbers here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    BATCH,
    FALSE,
    HEAD,
    TRUE,
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Symbol,
    free_axes,
)
from attnlang.ir.plan import Band
from attnlang.ir.rewrite import map_children, simplify
from attnlang.passes.counting import FIRST, LAST, Unknown, value_of
from attnlang.passes.ranges import bands, key_range

Number = bool | int | float
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class KnownCall:
    """The numbers of a call: `symbols` are sizes, parameters and q_offset; `element` reads a tensor at a place, or
    gives None where the tensor was not given or has no such place."""

    symbols: Mapping[str, Number]
    element: Callable[[str, tuple[int, ...]], Number | None]

    @property
    def facts(self) -> Facts:
        """The same numbers as intervals of one value."""
        return Facts({name: (float(value), float(value)) for name, value in self.symbols.items()})

    def number(self, name: str) -> int:
        """A size or q_offset."""
        return int(self.symbols[name])


@dataclass(frozen=True)
class Runs:
    """Keys of tiles of queries, half-open, one entry per tile: `first … stop` hold every visible key of an
    alternative, `full_first … full_stop` only keys that every query of the tile sees (empty where not known)."""

    first: Numbers
    stop: Numbers
    full_first: Numbers
    full_stop: Numbers


def heads_differ(expr: Expr) -> tuple[bool, bool]:
    """Whether a predicate depends on the batch entry and on the head."""
    axes = free_axes(expr)
    return BATCH in axes, HEAD in axes


def resolve(expr: Expr, call: KnownCall, batch: int | None = None, head: int | None = None) -> Expr:
    """The expression with everything that is known written as a number; index axes keep their identity."""

    def change(part: Expr) -> Expr:
        match map_children(part, change):
            case Symbol(name, _) if name in call.symbols:
                return Literal(call.symbols[name])
            case Index(axis) if axis == BATCH and batch is not None:
                return Literal(batch)
            case Index(axis) if axis == HEAD and head is not None:
                return Literal(head)
            case Read(source, at, _) as read:
                places = tuple(simplify(place) for place in at)
                if not all(isinstance(place, Literal) for place in places):
                    return Read(source, places, read.dtype)
                spot = tuple(int(place.value) for place in places if isinstance(place, Literal))
                value = call.element(source, spot)
                return read if value is None else Literal(value)
            case other:
                return other

    return simplify(change(expr))


def known_bands(visible: Expr, query: Axis, key: Axis, call: KnownCall) -> tuple[Band, ...]:
    """The alternatives of a resolved predicate, with bounds that numbers can be put in; what depends on the contents
    of tensors is left out of them, so that they hold every visible key still and count as inexact."""
    found = (_settled(band) for band in bands(visible, query, key, call.facts))
    return tuple(band for band in found if band is not None)


def _settled(band: Band) -> Band | None:
    lower = tuple(bound for bound in band.lower if not _reads(bound))
    upper = tuple(bound for bound in band.upper if not _reads(bound))
    guard = simplify(band.guard)
    if guard == FALSE:
        return None
    exact = band.exact and (lower, upper) == (band.lower, band.upper) and guard == TRUE
    return Band(lower, upper, TRUE, exact)


def _reads(expr: Expr) -> bool:
    match expr:
        case Read() | Symbol():
            return True
        case Apply(_, args):
            return any(map(_reads, args))
        case _:
            return False


def runs_of(band: Band, query: Axis, key: Axis, call: KnownCall, first: Numbers, last: Numbers) -> Runs:
    """The keys of the tiles with the queries first … last (absolute positions)."""
    found = key_range(band, query, key, FIRST, LAST, call.facts)
    env = {**call.symbols, "q_first": first, "q_last": last}
    keys = call.number("NK")

    def numbers(expr: Expr | None, otherwise: int) -> Numbers:
        try:
            value = otherwise if expr is None else value_of(expr, env, {})
        except Unknown:
            value = otherwise
        return np.broadcast_to(np.asarray(value, dtype=np.int64), first.shape)

    start = np.clip(numbers(found.first, 0), 0, keys)
    stop = np.maximum(np.clip(numbers(found.stop, keys), 0, keys), start)
    full_first = np.clip(numbers(found.full_first, keys), start, stop)
    full_stop = np.clip(numbers(found.full_stop, 0), full_first, stop)
    return Runs(start, stop, full_first, full_stop)
