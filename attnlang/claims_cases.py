"""The calls at which claims are tried: sizes and parameters, small ones first, within ranges and requirements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from attnlang.call_interface import Interface, check_range
from attnlang.call_numbers import NotKnown, Number, number, symbols_of
from attnlang.errors_driver import ParameterOutOfRange
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import NK, Apply, Expr, Parameter, Requirement

EVERY, LARGEST, LARGER = 8, 12, 36
"""All lengths of keys and queries up to EVERY are tried together, chosen ones up to LARGEST, a few up to LARGER."""

_LONG = (17, 32)
_HEADS = ((1, 1), (2, 1), (2, 2), (4, 2), (3, 3), (4, 1), (3, 1), (4, 4))
_FEATURES = ((2, 2), (3, 2), (2, 3), (1, 1), (4, 4), (8, 8))
_DRAWS, _ATTEMPTS = 300, 3000
_LARGEST_DEFAULT = 4096
_SMALLER = 60


@dataclass(frozen=True)
class Case:
    """A call without its tensors: `sizes` H HK NQ NK D DV, every parameter, and the position of the first query."""

    sizes: Mapping[str, int]
    parameters: Mapping[str, Number]
    q_offset: int

    def symbols(self, batch: int = 1) -> dict[str, Number]:
        """All that the pattern's expressions may name; the scale is the default one."""
        scale = self.sizes["D"] ** -0.5
        return {**self.sizes, "B": batch, **self.parameters, "q_offset": self.q_offset, "scale": scale}

    def __str__(self) -> str:
        """`NQ = 2, NK = 4, H = 2, HK = 1, window = 3`; what has its usual value is left out."""
        known: dict[str, Number] = {name: self.sizes[name] for name in ("NQ", "NK", "H")}
        if self.sizes["HK"] != self.sizes["H"]:
            known["HK"] = self.sizes["HK"]
        if self.q_offset != self.sizes["NK"] - self.sizes["NQ"]:
            known["q_offset"] = self.q_offset
        return ", ".join(f"{name} = {shown(value)}" for name, value in {**known, **self.parameters}.items())


def shown(value: Number) -> str:
    """A number as the language writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Search:
    """Which calls are searched. `fixed`: sizes and parameters that the claim gives. `inside`: the queries are
    positions of the keys (0 ≤ q_offset ≤ NK − NQ); else there may also be more queries than keys."""

    interface: Interface
    fixed: Mapping[str, Expr]
    inside: bool

    def cases(self) -> tuple[Case, ...]:
        """The calls, those with the fewest keys first; the same every time."""
        random = Random(0)
        draws = self._draws(random)
        turn = 0
        found: dict[str, Case] = {}
        for keys, queries, repeats in self._lengths(draws):
            fitting = [draw for draw in draws if self._forced(draw) in (None, keys)]
            wanted = repeats
            for step in range(min(len(fitting), 40)):
                turn += 1
                draw = fitting[(turn * 7 + step) % len(fitting)]
                case = self._case(draw, keys, queries, turn, random)
                if case is not None and str(case) not in found:
                    found[str(case)] = case
                    wanted -= 1
                if wanted == 0:
                    break
        return tuple(sorted(found.values(), key=_size))

    def smaller(self, case: Case) -> Iterator[Case]:
        """Calls with the same parameters and fewer keys, queries, heads or features, the smallest first."""
        found: dict[str, Case] = {}
        for keys, queries in self._shorter(case):
            same = (keys, queries) == (case.sizes["NK"], case.sizes["NQ"])
            for heads, kv_heads in sorted(_HEADS) if same else _HEADS[:3]:
                sizes = {"H": heads, "HK": kv_heads, "NQ": queries, "NK": keys}
                offset = case.q_offset if same else keys - queries
                other = self._with_features(Case({**case.sizes, **sizes}, case.parameters, offset))
                if other is not None and _size(other) < _size(case):
                    found.setdefault(str(other), other)
        ordered = sorted(found.values(), key=_size)
        yield from ordered[:_SMALLER]
        yield from ordered[max(_SMALLER, len(ordered) - len(_HEADS)) :]

    def _shorter(self, case: Case) -> list[tuple[int, int]]:
        """Numbers of keys and queries up to those of a call, where the claim does not give them."""
        keys, queries = case.sizes["NK"], case.sizes["NQ"]
        if "NK" in self.fixed or "NQ" in self.fixed:
            return [(keys, queries)]
        lengths = [
            (few, fewer)
            for few in range(1, keys + 1)
            for fewer in range(1, (few if self.inside else queries) + 1)
        ]
        least = [length for length in lengths if length <= (keys, queries)][:_SMALLER]
        return [*least, (keys, queries)]

    def _with_features(self, case: Case) -> Case | None:
        """The call with the first sizes of features that the requirements allow."""
        fixed = self._fixed_sizes(case.symbols())
        for features, value_features in _FEATURES:
            sizes = {**case.sizes, "D": features, "DV": value_features, **fixed}
            other = Case(sizes, case.parameters, case.q_offset)
            if sizes["H"] % sizes["HK"] == 0 and self.allows(other):
                return other
        return None

    # ---------------------------------------------------------------------------------------- parameters

    def _draws(self, random: Random) -> list[dict[str, Number]]:
        """Values for all parameters that can meet the requirements: corners first, then random ones."""
        values = {
            name: _candidates(parameter, self._ties(name))
            for name, parameter in self.interface.parameters.items()
        }
        draws: dict[tuple[Number, ...], dict[str, Number]] = {}
        for draw in _combinations(values, random):
            draw = self._with_fixed(draw)
            met = all(holds(requirement, draw) for requirement in self.interface.pattern.requirements)
            if met and ((self._forced(draw) or 0) <= LARGER or "NK" in self.fixed):
                draws.setdefault(tuple(draw.values()), draw)
            if len(draws) >= _DRAWS:
                break
        return list(draws.values())

    def _ties(self, name: str) -> bool:
        """Whether a parameter takes part in a length, as the extents of a grid do."""
        return any(
            {"NQ", "NK"} & set(names) and name in names
            for names in (symbols_of(item.condition) for item in self.interface.pattern.requirements)
        )

    def _with_fixed(self, draw: dict[str, Number]) -> dict[str, Number]:
        for name, expr in self.fixed.items():
            if name in draw:
                value = self._value(expr, draw)
                draw = {**draw, **({} if value is None else {name: value})}
        return draw

    def _value(self, expr: Expr, symbols: Mapping[str, Number]) -> Number | None:
        try:
            return number(expr, symbols)
        except (NotKnown, ArithmeticError):
            return None

    def _forced(self, draw: Mapping[str, Number]) -> int | None:
        """The number of keys that a requirement such as NK == height * width fixes."""
        for requirement in self.interface.pattern.requirements:
            match requirement.condition:
                case Apply("eq", (left, right)) if NK in (left, right):
                    value = self._value(right if left == NK else left, draw)
                    if value is not None:
                        return int(value)
                case _:
                    pass
        return None

    # ------------------------------------------------------------------------------------------- lengths

    def _lengths(self, draws: list[dict[str, Number]]) -> Iterator[tuple[int, int, int]]:
        """Keys, queries, and how many calls are wanted."""
        for keys in self._keys(draws) if "NK" not in self.fixed else self._given("NK", draws):
            given = self._given("NQ", [{**draw, "NK": keys} for draw in draws])
            chosen = list(range(1, keys + 1)) if keys <= EVERY else sorted({1, keys // 2, keys})
            if not self.inside and keys <= EVERY:
                chosen.append(keys + 1)
            if keys > LARGEST and "NK" not in self.fixed:
                chosen = [keys]
            for queries in chosen if "NQ" not in self.fixed else given:
                yield keys, queries, self._repeats(keys, queries)

    def _repeats(self, keys: int, queries: int) -> int:
        """How many calls of these lengths are wanted."""
        given = {"NQ", "NK"} & set(self.fixed)
        if len(given) == 2 or ("NK" in given and queries == keys):
            return 8
        if keys > LARGEST or (queries != keys and not given):
            return 1
        return 3 + min(len(self.interface.parameters), 3)

    def _keys(self, draws: list[dict[str, Number]]) -> list[int]:
        """Numbers of keys: all up to LARGEST, and a few larger ones that the requirements allow."""
        forced = sorted({self._forced(draw) or 0 for draw in draws})
        longer = [keys for keys in forced if LARGEST < keys <= LARGER][-4:] if any(forced) else list(_LONG)
        return [*range(1, LARGEST + 1), *longer]

    def _given(self, size: str, draws: list[dict[str, Number]]) -> list[int]:
        """The values of a size that the claim gives."""
        if size not in self.fixed:
            return []
        values = {self._value(self.fixed[size], draw) for draw in draws}
        return sorted(int(value) for value in values if value is not None and value >= 1)

    # --------------------------------------------------------------------------------------------- calls

    def _case(
        self, draw: Mapping[str, Number], keys: int, queries: int, turn: int, random: Random
    ) -> Case | None:
        """A call of these lengths; None where no number of heads and features meets the requirements."""
        offset = keys - queries
        if self.inside and offset > 0 and turn % 3 == 0:
            offset = random.randrange(offset + 1)
        for step in range(len(_HEADS)):
            heads, kv_heads = _HEADS[(turn + step) % len(_HEADS)]
            sizes = {"H": heads, "HK": kv_heads, "NQ": queries, "NK": keys, "D": 1, "DV": 1}
            case = self._with_features(Case(sizes, draw, offset))
            if case is not None:
                return case
        return None

    def _fixed_sizes(self, symbols: Mapping[str, Number]) -> dict[str, int]:
        values = {
            name: self._value(self.fixed[name], symbols)
            for name in ("H", "HK", "D", "DV")
            if name in self.fixed
        }
        sizes = {name: int(value) for name, value in values.items() if value is not None}
        return {"HK": sizes["H"], **sizes} if "H" in sizes else sizes

    def allows(self, case: Case) -> bool:
        """Whether a call meets the requirements."""
        symbols = case.symbols()
        return all(holds(requirement, symbols) for requirement in self.interface.pattern.requirements)


def holds(requirement: Requirement, symbols: Mapping[str, Number]) -> bool:
    """Whether a requirement holds, or cannot be decided yet."""
    try:
        return bool(number(requirement.condition, symbols))
    except NotKnown:
        return True
    except ArithmeticError:
        return False


def _size(case: Case) -> tuple[object, ...]:
    sizes = case.sizes
    return (
        sizes["NK"],
        sizes["NQ"],
        sizes["H"],
        sizes["HK"],
        sum(abs(value) for value in case.parameters.values()),
    )


def _combinations(values: Mapping[str, tuple[Number, ...]], random: Random) -> Iterator[dict[str, Number]]:
    """The first value of each, one changed at a time, then random ones, in which early values are likelier."""
    if not all(values.values()):
        return
    first = {name: choices[0] for name, choices in values.items()}
    yield first
    if not values:
        return
    for name, choices in values.items():
        for value in choices[1:]:
            yield {**first, name: value}
    for _ in range(_ATTEMPTS):
        yield {
            name: choices[min(random.randrange(len(choices)), random.randrange(len(choices)))]
            for name, choices in values.items()
        }


def _candidates(parameter: Parameter, tied: bool) -> tuple[Number, ...]:
    """Values of a parameter, the small ones first; its default among them unless a length hangs on it."""
    low, high = Facts.of((parameter,)).symbols[parameter.name]
    default = [] if parameter.default is None else [parameter.default]
    match parameter.dtype:
        case "bool":
            return (False, True)
        case "int":
            base = int(low) if math.isfinite(low) else int(high) - 3 if math.isfinite(high) else 0
            found: list[Number] = [
                base + step for step in ((*range(8), 9, 11, 15) if tied else (0, 1, 2, 3, 5, 7))
            ]
            found += [value for value in default if not tied and abs(value) <= _LARGEST_DEFAULT]
            found += [] if math.isfinite(low) or math.isfinite(high) else [-1, -2]
        case "float":
            ends = [end for end in (low, high) if math.isfinite(end)]
            start = ends[0] if ends else 0.0
            middle = [(low + high) / 2] if len(ends) == 2 else [start + 0.5, start + 1.0, start + 3.0]
            found = [*default, *middle, *ends, *([] if ends else [-1.0])]
            found = [float(value) for value in found]
    return tuple(value for value in dict.fromkeys(found) if _in_range(parameter, value))


def _in_range(parameter: Parameter, value: Number) -> bool:
    try:
        check_range("", parameter, value)
    except ParameterOutOfRange:
        return False
    return True
