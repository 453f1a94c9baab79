"""A predicate over concrete numbers as a shared graph of operations on one row index and one column index.

Equal subexpressions are one node. Whole numbers are kept as linear forms whose part in the row, part in the column and
rest are apart, so that `q − k` and its kind have exact ranges over a box; comparisons of whole numbers are ranges
`a ≤ form ≤ b`, and ranges of one form that must hold together are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.pattern import OPERATIONS, DType
from attnlang.passes.boxes_numbers import numeric
from attnlang.passes.boxes_tables import Plane, Table
from attnlang.passes.summaries import Summary, plane_of, table_of

Array = NDArray[Any]
ROW, COLUMN, BOTH = 1, 2, 3
BIG = 1 << 60
"""Beyond every whole number that is told from infinity here."""
MOST_CHOICES = 4
_KINDS: dict[DType, Any] = {"bool": np.bool_, "int": np.int64, "float": np.float64}
FUZZY = frozenset(
    ("exp", "exp2", "expm1", "log", "log2", "log1p", "rsqrt", "sin", "cos", "tanh", "sigmoid", "softplus", "erf", "pow")
)  # fmt: skip
"""Operations on floats that libraries round differently."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """`side`: what it depends on (ROW, COLUMN, BOTH, 0). `data`: the value of a "const"; factors and constant of a
    "sum"; ends of a "range"; source, fixed offsets and identity of a "read". `fuzzy`: rounding enters it, or it is
    `coarse`: it reads arrays of which only summaries are at hand."""

    number: int
    op: str
    args: tuple[Node, ...]
    data: tuple[Any, ...]
    dtype: DType
    side: int
    fuzzy: bool
    coarse: bool

    @property
    def value(self) -> Any:
        """Of a constant."""
        return self.data[0]


class Graph:
    """Makes nodes, simplified, each once."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self.arrays: dict[int, Array] = {}
        self._summaries: dict[int, Summary] = {}
        self._tables: dict[tuple[Any, ...], Table] = {}
        self._planes: dict[tuple[Any, ...], Plane] = {}

    def _node(
        self,
        op: str,
        args: tuple[Node, ...],
        data: tuple[Any, ...],
        dtype: DType,
        side: int = 0,
        coarse: bool = False,
    ) -> Node:
        key = (op, tuple(arg.number for arg in args), data, dtype)
        found = self._nodes.get(key)
        if found is None:
            for arg in args:
                side |= arg.side
                coarse |= arg.coarse
            fuzzy = coarse or (op in FUZZY and dtype == "float") or any(arg.fuzzy for arg in args)
            found = self._nodes[key] = Node(len(self._nodes), op, args, data, dtype, side, fuzzy, coarse)
        return found

    # ------------------------------------------------------------------------------------------- leaves

    def const(self, value: Any) -> Node:
        """A number."""
        plain: bool | int | float = np.asarray(value).item()
        dtype: DType = "bool" if isinstance(plain, bool) else "int" if isinstance(plain, int) else "float"
        return self._node("const", (), (plain,), dtype)

    def index(self, side: int) -> Node:
        """The row or the column index itself."""
        return self._node("index", (), (side,), "int", side)

    def unknown(self, occurrence: object, dtype: DType) -> Node:
        """A number of which nothing is known; one per occurrence in the text."""
        return self._node("unknown", (), (occurrence,), dtype, BOTH)

    def read(self, source: str, array: Array | Summary, at: Sequence[Node]) -> Node:
        """An element of an array; offsets beyond it are moved to its nearest element."""
        fixed = tuple(
            min(max(int(node.value), 0), array.shape[dim] - 1) if node.op == "const" else None
            for dim, node in enumerate(at)
        )
        free = tuple(node for node in at if node.op != "const")
        dtype: DType = "bool" if array.dtype == np.bool_ else "int" if array.dtype.kind in "iu" else "float"
        data = (source, fixed, id(array))
        if isinstance(array, Summary):
            some = array.at(fixed)
            if not free:
                known = bool(some.low == some.high)
                return self.const(some.low.item()) if known else self.unknown(data, dtype)
            node = self._node("read", free, data, dtype, coarse=True)
            self._summaries[node.number] = some.cast(_KINDS[dtype])
            return node
        part: Array = array[tuple(slice(None) if offset is None else offset for offset in fixed)]
        if not free:
            return self.const(part.item())
        node = self._node("read", free, data, dtype)
        self.arrays[node.number] = part
        return node

    def finest_block(self) -> int:
        """The least length of the blocks of which arrays are known."""
        lengths = [length for some in self._summaries.values() for length in some.block if length > 1]
        return min(lengths, default=1)

    def shape(self, node: Node) -> tuple[int, ...]:
        """The lengths of the array that a "read" is of."""
        some = self._summaries.get(node.number)
        return self.arrays[node.number].shape if some is None else some.shape

    def table(self, node: Node) -> Table:
        """The array with one dimension that a "read" is of."""
        if node.data not in self._tables:
            if (some := self._summaries.get(node.number)) is not None:
                self._tables[node.data] = table_of(some)
            else:
                array = self._computable(node)
                self._tables[node.data] = Table(0, array, array)
        return self._tables[node.data]

    def _computable(self, node: Node) -> Array:
        """The array of a "read" in the type that is computed with."""
        return self.arrays[node.number].astype(_KINDS[node.dtype], copy=False)

    def plane(self, node: Node) -> Plane:
        """The array with two dimensions that a "read" is of."""
        if node.data not in self._planes:
            some = self._summaries.get(node.number)
            self._planes[node.data] = Plane(self._computable(node)) if some is None else plane_of(some)
        return self._planes[node.data]

    # --------------------------------------------------------------------------------------- operations

    def apply(self, op: str, args: Sequence[Node]) -> Node:
        """An operation of the pattern IR."""
        if all(arg.op == "const" for arg in args):
            return self.const(numeric(op, [arg.value for arg in args], _ints(args)))
        match op:
            case "and":
                return self.both(args[0], args[1])
            case "or":
                return self.either(args[0], args[1])
            case "not":
                return self.negation(args[0])
            case "where":
                return self._where(args[0], args[1], args[2])
            case "detach":
                return args[0]
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                return self._comparison(op, args[0], args[1])
            case "int" | "floor" | "ceil" | "round" if args[0].dtype == "int":
                return args[0]
            case "float" if args[0].dtype == "float":
                return args[0]
            case _:
                return self._arithmetic(op, args)

    def _arithmetic(self, op: str, args: Sequence[Node]) -> Node:
        kind = OPERATIONS[op][1]
        whole = _ints(args)
        if op not in ("int", "float"):
            args = [self.apply("int", [arg]) if arg.dtype == "bool" else arg for arg in args]
        if whole and kind == "same":
            match op:
                case "add":
                    return self.sum(((1, args[0]), (1, args[1])), 0)
                case "sub":
                    return self.sum(((1, args[0]), (-1, args[1])), 0)
                case "neg":
                    return self.sum(((-1, args[0]),), 0)
                case "mul" if args[0].op == "const" or args[1].op == "const":
                    number, other = (args[0], args[1]) if args[0].op == "const" else (args[1], args[0])
                    return self.sum(((int(number.value), other),), 0)
                case "min" | "max" if args[0] is args[1]:
                    return args[0]
                case "floordiv" if args[1].op == "const" and args[1].value in (0, 1):
                    return args[0]
                case "mod" if args[1].op == "const" and args[1].value in (0, 1):
                    return self.const(0)
                case "mod" if args[1].op == "const" and args[1].value > 0:
                    args = [self._reduced(args[0], int(args[1].value)), args[1]]
                    if args[0].op == "const":
                        return args[0]
                case _:
                    pass
        dtype: DType = ("int" if whole else "float") if kind == "same" else kind
        return self._node(op, tuple(args), (), dtype)

    def _reduced(self, x: Node, divisor: int) -> Node:
        """A number with the same remainder: (d·x + y + c) mod d  ->  (y + c mod d) mod d"""
        terms, constant = self.linear([(1, x)], 0)
        left = [(factor, term) for term, factor in terms.items() if factor % divisor]
        return self.sum(left, constant % divisor)

    def _where(self, condition: Node, x: Node, y: Node) -> Node:
        if condition.op == "const":
            return x if condition.value else y
        if x is y:
            return x
        if x.dtype == y.dtype == "bool":
            if x.op == "const" or y.op == "const":
                either = self.both(condition, x), self.both(self.negation(condition), y)
                return self.either(*either)
            return self._node("where", (condition, x, y), (), "bool")
        x, y = (self.apply("int", [part]) if part.dtype == "bool" else part for part in (x, y))
        dtype: DType = "float" if "float" in (x.dtype, y.dtype) else "int"
        return self._node("where", (condition, x, y), (), dtype)

    # -------------------------------------------------------------------------------------------- logic

    def truth(self, node: Node) -> Node:
        """A number as a condition: not 0."""
        return node if node.dtype == "bool" else self.apply("ne", [node, self.const(0)])

    def negation(self, x: Node) -> Node:
        """not x"""
        x = self.truth(x)
        if x.op == "const":
            return self.const(not x.value)
        return x.args[0] if x.op == "not" else self._node("not", (x,), (), "bool")

    def both(self, x: Node, y: Node) -> Node:
        """x and y; ranges of one form become their intersection."""
        parts: dict[Node, None] = {}
        ranges: dict[Node, Node] = {}
        for part in (*self._conjuncts(self.truth(x)), *self._conjuncts(self.truth(y))):
            if part.op == "range" and (before := ranges.get(part.args[0])) is not None:
                low, high = max(before.data[0], part.data[0]), min(before.data[1], part.data[1])
                merged = self.range(part.args[0], low, high)
                parts.pop(before, None)
                part = merged
            if part.op == "const":
                if not part.value:
                    return part
                continue
            if part.op == "range":
                ranges[part.args[0]] = part
            parts[part] = None
        for part in [part for part in parts if part.op == "or"]:
            self._drawn_in(part, parts, ranges)
        return self._all(list(parts))

    def _drawn_in(self, part: Node, parts: dict[Node, None], ranges: Mapping[Node, Node]) -> None:
        """r and (r' or x)  ->  (r and r') or (r and x), where r and r' are ranges of one form"""
        choices = self._disjuncts(part)
        if len(choices) > MOST_CHOICES:
            return
        forms = {each.args[0] for choice in choices for each in self._conjuncts(choice) if each.op == "range"}
        for form, drawn_in in ranges.items():
            if form in forms and form.side == BOTH and drawn_in in parts:
                del parts[part], parts[drawn_in]
                result = self.const(False)
                for choice in choices:
                    result = self.either(result, self.both(drawn_in, choice))
                parts[result] = None
                return

    def _disjuncts(self, x: Node) -> tuple[Node, ...]:
        return (*self._disjuncts(x.args[0]), x.args[1]) if x.op == "or" else (x,)

    def _all(self, parts: list[Node]) -> Node:
        result = self.const(True)
        for part in parts:
            if part.op == "const" or result.op == "const":
                kept = [each for each in (result, part) if each.op != "const" or not each.value]
                result = kept[0] if kept else result
                continue
            if (part.op == "not" and part.args[0] is result) or (
                result.op == "not" and result.args[0] is part
            ):
                return self.const(False)
            result = self._node("and", (result, part), (), "bool")
        return result

    def _conjuncts(self, x: Node) -> tuple[Node, ...]:
        return (*self._conjuncts(x.args[0]), x.args[1]) if x.op == "and" else (x,)

    def either(self, x: Node, y: Node) -> Node:
        """x or y"""
        x, y = self.truth(x), self.truth(y)
        for one, other in ((x, y), (y, x)):
            if one.op == "const":
                return one if one.value else other
        return x if x is y else self._node("or", (x, y), (), "bool")

    # -------------------------------------------------------------------------------------- comparisons

    def _comparison(self, op: str, x: Node, y: Node) -> Node:
        if x.dtype == y.dtype == "bool" and op in ("eq", "ne"):
            same = self._same(x, y)
            return same if op == "eq" else self.negation(same)
        x, y = (self.apply("int", [part]) if part.dtype == "bool" else part for part in (x, y))
        if x.dtype != y.dtype:
            found = self._with_fraction(op, x, y)
            if found is not None:
                return found
        if x.dtype == y.dtype == "int":
            low, high = {"lt": (-BIG, -1), "le": (-BIG, 0), "gt": (1, BIG), "ge": (0, BIG)}.get(op, (0, 0))
            found = self._in_range([(1, x), (-1, y)], 0, low, high)
            return self.negation(found) if op == "ne" else found
        if op in ("gt", "ge"):
            return self._node("lt" if op == "gt" else "le", (y, x), (), "bool")
        if op == "ne":
            return self.negation(self._node("eq", (x, y), (), "bool"))
        return self._node(op, (x, y), (), "bool")

    def _same(self, x: Node, y: Node) -> Node:
        for one, other in ((x, y), (y, x)):
            if one.op == "const":
                return other if one.value else self.negation(other)
        return self.const(True) if x is y else self._node("same", (x, y), (), "bool")

    def _with_fraction(self, op: str, x: Node, y: Node) -> Node | None:
        """A whole number compared with a constant float, as a range."""
        mirrored = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(op, op)
        if x.op == "const":
            x, y, op = y, x, mirrored
        if y.op != "const" or x.dtype != "int" or not abs(y.value) < BIG:
            return None
        low, high = math.ceil(y.value), math.floor(y.value)
        match op:
            case "lt":
                return self._in_range([(1, x)], 0, -BIG, low - 1)
            case "le":
                return self._in_range([(1, x)], 0, -BIG, high)
            case "gt":
                return self._in_range([(1, x)], 0, high + 1, BIG)
            case "ge":
                return self._in_range([(1, x)], 0, low, BIG)
            case _:
                found = self._in_range([(1, x)], 0, low, high)
                return found if op == "eq" else self.negation(found)

    def range(self, form: Node, low: int, high: int) -> Node:
        """low ≤ form ≤ high"""
        return self._in_range([(1, form)], 0, low, high)

    def _in_range(self, terms: Sequence[tuple[int, Node]], constant: int, low: int, high: int) -> Node:
        found, constant = self.linear(terms, constant)
        low, high = max(low - constant, -BIG), min(high - constant, BIG)
        if not found:
            return self.const(low <= 0 <= high)
        divisor = math.gcd(*found.values())
        if next(iter(found.values())) < 0:
            divisor = -divisor
            low, high = -high, -low
        scale = abs(divisor)
        low = -BIG if low <= -BIG // 2 else -(-low // scale)
        high = BIG if high >= BIG // 2 else high // scale
        if low > high:
            return self.const(False)
        if low == -BIG and high == BIG:
            return self.const(True)
        reduced = {term: factor // divisor for term, factor in found.items()}
        if len(reduced) == 1 and (taken := self._taken_apart(next(iter(reduced)), low, high)) is not None:
            return taken
        form = self.sum([(factor, term) for term, factor in reduced.items()], 0)
        return self._node("range", (form,), (low, high), "bool")

    def _taken_apart(self, term: Node, low: int, high: int) -> Node | None:
        """A range of a single nonlinear term as ranges of what stands in it; None where that is not simpler."""
        if term.op == "int" and term.args[0].dtype == "bool":
            has_one, has_zero = low <= 1 <= high, low <= 0 <= high
            if has_one and has_zero:
                return self.const(True)
            condition = term.args[0]
            return condition if has_one else self.negation(condition) if has_zero else self.const(False)
        if term.side != BOTH:
            return None
        match term.op:
            case "abs":
                x = term.args[0]
                if low <= 0:
                    return self.range(x, -high, high)
                return self.either(self.range(x, low, high), self.range(x, -high, -low))
            case "floordiv" if term.args[1].op == "const" and term.args[1].value > 0:
                by = int(term.args[1].value)
                ends = (low if low == -BIG else low * by), (high if high == BIG else high * by + by - 1)
                return self.range(term.args[0], *ends)
            case "max":
                x, y = term.args
                above = self.either(self.range(x, low, BIG), self.range(y, low, BIG))
                return self.both(above, self.both(self.range(x, -BIG, high), self.range(y, -BIG, high)))
            case "min":
                x, y = term.args
                below = self.either(self.range(x, -BIG, high), self.range(y, -BIG, high))
                return self.both(below, self.both(self.range(x, low, BIG), self.range(y, low, BIG)))
            case "where":
                condition, x, y = term.args
                return self._where(condition, self.range(x, low, high), self.range(y, low, high))
            case _:
                return None

    # ------------------------------------------------------------------------------------- linear forms

    def linear(self, terms: Sequence[tuple[int, Node]], constant: int) -> tuple[dict[Node, int], int]:
        """Σ factor·term + constant over terms that are no sums, ordered by when they were made."""
        found: dict[Node, int] = {}
        for factor, term in terms:
            if term.op == "const":
                constant += factor * int(term.value)
            elif term.op == "sum":
                inner, more = self.linear(list(zip(term.data[:-1], term.args, strict=True)), term.data[-1])
                constant += factor * more
                for part, times in inner.items():
                    found[part] = found.get(part, 0) + factor * times
            else:
                found[term] = found.get(term, 0) + factor
        ordered = sorted(found.items(), key=lambda item: item[0].number)
        return {term: factor for term, factor in ordered if factor}, constant

    def sum(self, terms: Sequence[tuple[int, Node]], constant: int) -> Node:
        """A linear form; the terms of one side are a form of their own."""
        found, constant = self.linear(terms, constant)
        sides = {term.side for term in found}
        if len(sides) > 1:
            parts: list[tuple[int, Node]] = []
            for side in (ROW, COLUMN):
                own = {term: factor for term, factor in found.items() if term.side == side}
                if own:
                    parts.append((1, self._plain_sum(own, 0)))
            parts += [(factor, term) for term, factor in found.items() if term.side == BOTH]
            factors = tuple(factor for factor, _ in parts)
            return self._node("sum", tuple(term for _, term in parts), (*factors, constant), "int")
        return self._plain_sum(found, constant)

    def _plain_sum(self, found: Mapping[Node, int], constant: int) -> Node:
        if not found:
            return self.const(constant)
        if constant == 0 and list(found.values()) == [1]:
            return next(iter(found))
        return self._node("sum", tuple(found), (*found.values(), constant), "int")


def _ints(args: Sequence[Node]) -> bool:
    """Whether an operation on them is one on whole numbers."""
    return all(arg.dtype != "float" for arg in args)


def nodes_of(root: Node) -> list[Node]:
    """A node and all below it, each once, operands first."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for arg in node.args:
                visit(arg)
            found[node] = None

    visit(root)
    return list(found)
