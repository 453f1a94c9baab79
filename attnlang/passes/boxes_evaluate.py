"""Evaluation of a graph over many boxes at once; which values are known beforehand is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import BIG, COLUMN, FUZZY, ROW, Graph, Node
from attnlang.passes.boxes_numbers import numeric
from attnlang.passes.boxes_values import Bits, Interval

Value = Interval | Bits
Leaf = Callable[[Node], Value | None]
SLACK = 1e-12
"""By how much, relatively, two libraries may differ in a function of a float."""
_RISING = frozenset(
    ("exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "erf")
)


class Evaluation:
    """The values of nodes over some boxes, each computed once. `leaf` gives those that are known beforehand;
    `wild`: nodes that may exceed what is computed without overflow; `residues`: remainders of sums over both sides are
    narrowed by the remainders of each side, which pays where tokens stand by them."""

    def __init__(
        self, graph: Graph, leaf: Leaf, wild: frozenset[Node] = frozenset(), residues: bool = False
    ) -> None:
        self.graph = graph
        self.leaf = leaf
        self.wild = wild
        self.residues = residues
        self._found: dict[Node, Value] = {}

    def number(self, node: Node) -> Interval:
        """The interval of a number; conditions count 0 and 1."""
        value = self._value(node)
        return value if isinstance(value, Interval) else known.as_number(value)

    def condition(self, node: Node) -> Bits:
        """The four bits of a condition."""
        value = self._value(node)
        if not isinstance(value, Interval):
            return value
        zero = known.in_range(value, 0, 0) if value.low.dtype.kind in "iu" else np.asarray(3, np.uint8)
        return known.negation(zero)

    def _value(self, node: Node) -> Value:
        found = self._found.get(node)
        if found is None:
            found = self.leaf(node)
            if found is None:
                found = known.anything(node.dtype == "int") if node in self.wild else self._compute(node)
            self._found[node] = found
        return found

    def _compute(self, node: Node) -> Value:
        if node.op == "const":
            if node.dtype == "bool":
                return np.asarray(known.ALWAYS if node.value else known.NEVER, np.uint8)
            return known.number(node.value)
        if node.dtype == "bool":
            return self._condition(node)
        if node.op == "sum":
            terms = [
                (factor, self.number(term), term.side)
                for factor, term in zip(node.data[:-1], node.args, strict=True)
            ]
            return known.total(terms, node.data[-1])
        if node.op == "where":
            condition, x, y = node.args
            numbers = self._numbers(node, (x, y))
            return known.blend(self.condition(condition), *numbers)
        return self._number(node)

    def _condition(self, node: Node) -> Bits:
        match node.op, node.args:
            case "range", (form,):
                return known.in_range(self.number(form), *node.data)
            case "and", (x, y):
                return known.both(self.condition(x), self.condition(y))
            case "or", (x, y):
                return known.either(self.condition(x), self.condition(y))
            case "not", (x,):
                return known.negation(self.condition(x))
            case "same", (x, y):
                return known.same(self.condition(x), self.condition(y))
            case "where", (condition, x, y):
                return known.choose(self.condition(condition), self.condition(x), self.condition(y))
            case "read", _:
                found = self._read(node)
                return known.bits(found.high, ~found.low, found.tight & found.high, found.tight & ~found.low)
            case ("lt" | "le" | "eq") as op, (x, y):
                return known.compare(op, self.number(x), self.number(y), x.side & y.side == 0)
            case _:
                return np.asarray(known.UNKNOWN, np.uint8)

    # -------------------------------------------------------------------------------------------- numbers

    def _read(self, node: Node) -> Interval:
        """The range of an array over the offsets that are possible."""
        shape = self.graph.shape(node)
        at = [self.number(arg) for arg in node.args]
        ends = [(_offset(x.low, size), _offset(x.high, size)) for x, size in zip(at, shape, strict=True)]
        if len(at) == 1:
            low, high, tight = self.graph.table(node).over(*ends[0])
            tight = tight & at[0].dense
            return _of_kind(node, low, high, tight, tight & self.graph.table(node).dense)
        if len(at) > 2:
            return self._unread(node)
        found = self.graph.plane(node).over((ends[0][0], ends[1][0]), (ends[0][1], ends[1][1]))
        if found is None:
            return self._unread(node)
        low, high, tight = found
        apart = node.args[0].side & node.args[1].side == 0
        return _of_kind(node, low, high, tight & at[0].dense & at[1].dense & apart, False)

    def _unread(self, node: Node) -> Interval:
        if node.dtype == "bool":
            return Interval(np.asarray(False), np.asarray(True))
        return known.anything(node.dtype == "int")

    def _numbers(self, node: Node, args: tuple[Node, ...]) -> list[Interval]:
        """Operands, as floats where the result is one."""
        found = [self.number(arg) for arg in args]
        if node.dtype != "float":
            return found
        return [Interval(_float(x.low), _float(x.high), x.tight, x.dense & known.single(x)) for x in found]

    def _number(self, node: Node) -> Interval:
        with np.errstate(all="ignore"):
            result = self._operation(node)
        if node.dtype != "float":
            return result
        broken = np.isnan(result.low) | np.isnan(result.high)
        if broken.any():
            fine = ~broken
            return Interval(
                np.where(broken, -np.inf, result.low), np.where(broken, np.inf, result.high),
                result.tight & fine, result.dense & fine,
            )  # fmt: skip
        return result

    def _operation(self, node: Node) -> Interval:
        whole = node.dtype == "int"
        if node.op == "read":
            return self._read(node)
        if node.op in ("floor", "ceil", "round", "int"):
            return self._rounded(node)
        args = self._numbers(node, node.args)
        apart = len(node.args) == 2 and node.args[0].side & node.args[1].side == 0
        match node.op, args:
            case ("abs", [x]):
                return known.absolute(x)
            case ("floordiv", [x, y]):
                return known.quotient(x, y, whole)
            case ("mod", [x, y]):
                found = known.remainder(x, y, whole)
                sides = self._by_residues(node) if self.residues and whole else None
                return found if sides is None else _narrower(found, sides)
            case ("mul", [x, y]):
                return known.product(x, y, apart)
            case ("min" | "max", [x, y]):
                return known.sharper(x, y, apart, node.op == "min")
            case ("add", [x, y]):
                return known.total([(1, x, node.args[0].side), (1, y, node.args[1].side)], 0)
            case ("sub", [x, y]):
                return known.total([(1, x, node.args[0].side), (-1, y, node.args[1].side)], 0)
            case ("neg", [x]):
                return known.total([(-1, x, 0)], 0)
            case ("float", [x]):
                return x
            case ("sign", [x]):
                return Interval(np.sign(x.low), np.sign(x.high), x.tight)
            case ("div", [x, y]):
                inverse = Interval(1.0 / y.high, 1.0 / y.low)
                away = (y.low > 0) | (y.high < 0)
                corners = known.product(x, inverse, apart)
                slack = SLACK * np.maximum(np.abs(corners.low), np.abs(corners.high))
                return Interval(
                    np.where(away, corners.low - slack, -np.inf), np.where(away, corners.high + slack, np.inf)
                )
            case ("pow", [x, y]):
                return self._power(x, y, whole)
            case (op, [x]) if op in _RISING:
                return _padded(numeric(op, [x.low], False), numeric(op, [x.high], False), op)
            case ("rsqrt", [x]):
                return _padded(numeric("rsqrt", [x.high], False), numeric("rsqrt", [x.low], False), "rsqrt")
            case ("sin" | "cos", [_]):
                return Interval(np.asarray(-1.0), np.asarray(1.0))
            case _:
                return known.anything(whole)

    def _by_residues(self, node: Node) -> Interval | None:
        """(x + y + c) mod d as (x mod d + y mod d + c) mod d, where x is of one side and y of the other."""
        form, divisor = node.args
        if form.op != "sum" or divisor.op != "const" or divisor.value <= 0:
            return None
        if sorted(part.side for part in form.args) != [ROW, COLUMN]:
            return None
        rests = [
            self.graph.apply("mod", [self.graph.sum(((factor, part),), 0), divisor])
            for factor, part in zip(form.data[:-1], form.args, strict=True)
        ]
        terms = [(1, self.number(rest), rest.side) for rest in rests]
        return known.remainder(known.total(terms, form.data[-1]), known.number(divisor.value), True)

    def _power(self, x: Interval, y: Interval, whole: bool) -> Interval:
        """Where base and exponent are at least 1 and 0 (ints) or 0 and anything fixed (floats), else unknown."""
        none = known.anything(whole)
        good = (x.low >= 1) & (y.low >= 0) & (y.high * np.log2(np.maximum(x.high, 1.0)) < 60)
        base = np.where(good, x.low, 1), np.where(good, x.high, 1)
        power = np.where(good, y.low, 0), np.where(good, y.high, 0)
        low, high = base[0] ** power[0], base[1] ** power[1]
        if not whole:
            padded = _padded(low, high, "pow")
            low, high = padded.low, padded.high
        return Interval(np.where(good, low, none.low), np.where(good, high, none.high))

    def _rounded(self, node: Node) -> Interval:
        """floor, ceil, round and int of floats rise; what is infinite becomes 0."""
        x = self.number(node.args[0])
        if x.low.dtype.kind != "f":
            return x
        finite = np.isfinite(x.low) & np.isfinite(x.high) & (np.maximum(np.abs(x.low), np.abs(x.high)) < BIG)
        low, high = (numeric(node.op, [np.where(finite, end, 0.0)], False) for end in (x.low, x.high))
        return Interval(np.where(finite, low, -BIG), np.where(finite, high, BIG), finite & x.tight)


def _narrower(x: Interval, y: Interval) -> Interval:
    """What both say of one number; a tight one cannot be narrowed."""
    low, high = np.maximum(x.low, y.low), np.minimum(x.high, y.high)
    dense = (x.tight & x.dense) | (y.tight & y.dense)
    return Interval(low, high, np.asarray(x.tight) | y.tight, dense)


def _offset(at: Any, size: int) -> Any:
    return np.clip(at, 0, size - 1).astype(np.int64)


def _of_kind(node: Node, low: Any, high: Any, tight: Any, dense: Any) -> Interval:
    """As the numbers that are computed with; NaN is nothing known."""
    if node.dtype == "int":
        low, high = low.astype(np.int64), high.astype(np.int64)
    elif node.dtype == "float":
        low, high, dense = low.astype(np.float64), high.astype(np.float64), False
    return Interval(low, high, tight, dense)


def _float(x: Any) -> Any:
    """As floats; what stands for infinity among whole numbers becomes it."""
    values = np.asarray(x)
    if values.dtype.kind == "f":
        return values
    return np.where(np.abs(values) >= BIG, np.sign(values) * np.inf, values.astype(np.float64))


def _padded(low: Any, high: Any, op: str) -> Interval:
    """Ends of a function of floats, moved outwards where it is not exact; whole results of logarithms to base 2 and
    of roots are."""
    if op == "sqrt":
        return Interval(low, high)
    exact = op in ("log2", "exp2")
    slack = [np.where(exact & (np.rint(end) == end), 0.0, SLACK * (1 + np.abs(end))) for end in (low, high)]
    assert op in FUZZY
    return Interval(low - slack[0], high + slack[1])
