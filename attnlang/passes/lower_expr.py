"""Pattern expressions → kernel expressions: each part is computed once, in the outermost place that knows its indices.

A `Scope` is a place in the kernel where statements go: the program, the rows of its tile, a tile of keys, a loop over
features. What depends on b and h only lands in the program's scope, what depends on q in that of the rows, and so on:
hoisting is where a value is put, not a later pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts, interval
from attnlang.ir.kernel import Const, Type, Var, join
from attnlang.ir.pattern import (
    HEAD,
    HK,
    Apply,
    Axis,
    Expr,
    H,
    Index,
    Literal,
    Read,
    Reduce,
    Symbol,
    TensorAxis,
    axis_of,
    children,
    dtype_of,
    free_axes,
    kv_head_of,
)  # fmt: skip
from attnlang.ir.rewrite import simplify, substitute
from attnlang.passes.algebra import factors, product, sum_over, terms
from attnlang.passes.hints import hint, read_hint
from attnlang.passes.reductions import COMBINE, log_of_sum, neutral
from attnlang.passes.scopes import Scope, Source, is_outer, moving
from attnlang.passes.typed import binary, cast, dot_type, elementwise, operation, walk, weight

UNROLL = 8  # sums this short are written out
HEADS_PER_GROUP = Apply("floordiv", (H, HK))  # at least 1 wherever a head has a key/value head
WIDEST_LANES = 256  # reduced axes up to this length may become a dimension of a tile


class Lowering:
    """Lowers expressions of one kernel into its scopes."""

    def __init__(
        self, sources: Mapping[str, Source], symbols: Mapping[str, Type], facts: Facts, wide: bool, long: bool
    ) -> None:
        self.sources = sources
        self.symbols = symbols
        self.facts = facts
        self.offset_type: Type = "i64" if wide else "i32"
        self.whole: Type = "i64" if long else "i32"  # the type of whole numbers of mask and score
        self.dims: dict[str, int] = {}
        self.lanes: dict[Axis, str] = {}
        self.loops: list[Reduce] = []  # sums that are loops for every pair of query and key
        self.used_names: set[str] = set()
        self.loop_names: set[str] = set()  # of the loop over keys under construction
        self.past_names: set[str] = set()  # of those before it
        self.bounds_of: dict[
            str, ir.Expr
        ] = {}  # dimension → the number of its lanes that exist, where padded

    # ------------------------------------------------------------------------------------------- names

    def fresh(self, hint: str, scope: Scope | None = None) -> str:
        """A name not used before; inside a loop over keys, one that the loops before it may have used for their own."""
        inside = scope is not None and scope.is_inner()
        taken = (
            self.used_names | self.loop_names
            if inside
            else self.used_names | self.past_names | self.loop_names
        )
        hint = ir.spelled(hint)
        name, number = hint, 1
        while name in taken:
            number += 1
            name = f"{hint}_{number}"
        (self.loop_names if inside else self.used_names).add(name)
        return name

    def end_loop(self) -> None:
        """The names of the loop just built may serve again in the next one."""
        self.past_names |= self.loop_names
        self.loop_names = set()

    def assign(self, scope: Scope, hint: str, value: ir.Expr) -> Var | Const:
        """Puts `value` under a new name at the end of a scope; constants and names stay as they are."""
        if isinstance(value, Const) and not value.shape:
            return value
        name = self.fresh(hint, scope)
        scope.statements.append(ir.Assign(name, value))
        return Var(name, value.type, value.shape)

    # ------------------------------------------------------------------------------------------- placing

    def home(self, expr: Expr, scope: Scope) -> Scope:
        """The outermost scope from which all indices of `expr` are known."""
        missing = set(free_axes(expr)) - set(self.lanes)
        for place in scope.chain():
            missing -= place.axes
            if not missing:
                return place
        raise AssertionError(f"indices {[axis.name for axis in missing]} are known nowhere")

    def lower(self, expr: Expr, scope: Scope) -> ir.Expr:
        """The value of `expr`, computed in its home scope and named there when that is further out."""
        home = self.home(expr, scope)
        key = (
            expr,
            tuple(sorted((axis.name, self.lanes[axis]) for axis in free_axes(expr) if axis in self.lanes)),
        )
        for place in home.chain():
            if key in place.known:
                return place.known[key]
        value = self._build(expr, home)
        costly = any(isinstance(part, ir.Load | ir.Dot | ir.Fold) for part in walk(value))
        hoisted = home is not scope and isinstance(value, ir.Op)
        if costly or hoisted or self._is_large(value):
            value = self.assign(home, hint(expr), value)
        if isinstance(value, Var) or not isinstance(value, ir.Op):
            home.known[key] = value
        return value

    def _is_large(self, value: ir.Expr) -> bool:
        """Long expressions get a name, so that a statement stays on a line, and costly ones, so that they run once."""
        if not isinstance(value, ir.Op):
            return False
        return weight(value) > 6 or any(
            isinstance(part, ir.Op) and part.op in _COSTLY for part in walk(value)
        )

    # ------------------------------------------------------------------------------------------ building

    def _build(self, expr: Expr, scope: Scope) -> ir.Expr:
        match expr:
            case Literal(bool(value)):
                return Const(value, "i1")
            case Literal(int(value)):
                return Const(value, self.whole)
            case Literal(value):
                return Const(value, "fp32")
            case Symbol(name, _):
                return self.lengthen(Var(ir.spelled(name), self.symbols[name]))
            case Index(axis):
                return self.lengthen(self.index(axis, scope))
            case Read():
                return self.lengthen(self.widen(self.tile(expr, scope)))
            case Apply(op, args):
                return self._apply(op, args, scope)
            case Reduce():
                return self._reduce(expr, scope)

    def index(self, axis: Axis, scope: Scope) -> ir.Expr:
        """The values of an index: lanes of a dimension, or what its scope knows."""
        if axis in self.lanes:
            return ir.Lanes(self.lanes[axis])
        for place in reversed(scope.chain()):
            if axis in place.known:
                return place.known[axis]
        raise AssertionError(f"index {axis.name} has no value here")

    def lengthen(self, value: ir.Expr) -> ir.Expr:
        """A whole number in the type that whole numbers are computed with."""
        return cast(value, self.whole) if value.type == "i32" else value

    def widen(self, value: ir.Expr) -> ir.Expr:
        """Half types are computed with in fp32."""
        return cast(value, "fp32") if value.type in ("fp16", "bf16") else value

    # --------------------------------------------------------------------------------------------- reads

    def tile(self, expr: Read, scope: Scope) -> ir.Expr:
        """What `expr` reads, in its stored type, loaded once in its home scope."""
        home = self.home(expr, scope)
        key = ("tile", expr)
        if key not in home.known:
            home.known[key] = self.assign(home, read_hint(expr, loaded := self.read(expr, home)), loaded)
        return home.known[key]

    def read(self, expr: Read, scope: Scope) -> ir.Load:
        """Loads an element or a tile of a tensor, as it is stored; indices are kept within the tensor."""
        source = self.sources[expr.source]
        base: ir.Expr = Const(0, "i64")
        offset: ir.Expr = Const(0, self.offset_type)
        mask: ir.Expr | None = None
        strides: list[ir.Expr] = [Var(name, "i64") for name in source.pointer.strides]
        strides += [Const(1, "i64")] * (len(source.axes) - len(strides))
        for at, axis, step in zip(expr.at, source.axes, strides, strict=True):
            index = self.inside(at, axis, scope)
            if index.shape == ():
                base = binary("add", base, binary("mul", cast(index, "i64"), step))
                continue
            kind: Type = "i64" if index.type == "i64" else self.offset_type
            offset = binary("add", offset, binary("mul", cast(index, kind), cast(step, kind)))
            padded = self.padding(at, index, scope)
            if padded is not None:
                mask = padded if mask is None else binary("and", mask, padded)
        shape = join(offset.shape, mask.shape if mask else ())
        if base != Const(0, "i64"):
            base = self._name_base(base, expr, scope)
        return ir.Load(source.pointer.name, base, offset, source.pointer.type, shape, mask)

    def _name_base(self, base: ir.Expr, expr: Read, scope: Scope) -> ir.Expr:
        still = [
            at
            for at in expr.at
            if not {axis for axis in free_axes(at) if axis not in self.lanes} & moving(scope)
        ]
        place = scope.chain()[0] if len(still) == len(expr.at) or is_outer(base, scope) else scope
        key = ("base", base)
        for outer in place.chain():
            if key in outer.known:
                return outer.known[key]
        place.known[key] = self.assign(place, f"{expr.source}_base", base)
        return place.known[key]

    def inside(self, at: Expr, axis: TensorAxis, scope: Scope) -> ir.Expr:
        """The index, clamped into its axis unless it is an index variable of that very axis."""
        plain = axis_of(at)
        if plain is not None and plain.size == axis.size:
            return self._storage(plain, at, scope)
        if axis.size == HK and at == kv_head_of(Index(HEAD)):
            return self.lower(at, scope)
        low, high = interval(at, self.facts)
        value = self.lower(at, scope)
        last = simplify(Apply("sub", (axis.size, Literal(1))))
        if low < 0:
            value = binary("max", value, Const(0, value.type))
        if high > interval(last, self.facts)[0]:
            value = binary("min", value, cast(self.lower(last, scope), value.type))
        if value.shape and weight(value) > 2:
            home = self.home(at, scope)
            key = ("index", at, axis.size)
            if key not in home.known:
                home.known[key] = self.assign(home, "at", value)
            return home.known[key]
        return value

    def _storage(self, axis: Axis, at: Expr, scope: Scope) -> ir.Expr:
        for place in reversed(scope.chain()):
            if ("storage", axis) in place.known:
                return place.known["storage", axis]
        return self.lower(at, scope)

    def padding(self, at: Expr, index: ir.Expr, scope: Scope) -> ir.Expr | None:
        """Which lanes of a padded dimension exist, as a mask, for reads along it."""
        for dim in index.shape:
            if dim in self.bounds_of and any(self.lanes.get(axis) == dim for axis in free_axes(at)):
                return binary("lt", ir.Lanes(dim), self.bounds_of[dim])
        for place in reversed(scope.chain()):
            for axis in free_axes(at):
                if ("tail", axis) in place.known:
                    return place.known["tail", axis]
        return None

    # ---------------------------------------------------------------------------------------- operations

    def _apply(self, op: str, args: tuple[Expr, ...], scope: Scope) -> ir.Expr:
        values = [self.lower(arg, scope) for arg in args]
        match op, args:
            case "floordiv" | "mod", (x, y) if dtype_of(x) == dtype_of(y) == "int":
                least, most = interval(y, self.facts)
                if least <= 0 <= most and y != HEADS_PER_GROUP:
                    values[1] = _nonzero(values[1])
                signed = interval(x, self.facts)[0] < 0 or least < 0
                return binary(f"{op}_signed" if signed else op, *values)
            case "floordiv" | "mod", _:
                return elementwise(f"{op}_float", [cast(value, "fp32") for value in values], "fp32")
            case "pow", (_, Literal(int(power))) if 0 <= power <= UNROLL:
                return self._power(values[0], power)
            case "pow", (x, y) if dtype_of(x) == "int" and dtype_of(y) == "int":
                return elementwise("pow_whole", [cast(value, self.whole) for value in values], self.whole)
            case "pow", (_, y):
                floats = [cast(value, "fp32") for value in values]
                return elementwise("pow_integer" if dtype_of(y) == "int" else "pow", floats, "fp32")
            case _:
                return self.lengthen(operation(op, values))

    def _power(self, value: ir.Expr, power: int) -> ir.Expr:
        if power == 0:
            return Const(1, value.type)
        result = value
        for _ in range(power - 1):
            result = binary("mul", result, value)
        return result

    # ---------------------------------------------------------------------------------------- reductions

    def _reduce(self, expr: Reduce, scope: Scope) -> ir.Expr:
        """A sum that factors into rows and columns is a dot; over rows or columns alone a fold; else a loop."""
        if expr.op == "mean":
            total = Reduce("sum", expr.axes, expr.body, expr.where)
            ones = (
                Literal(1.0)
                if expr.where is None
                else Apply("where", (expr.where, Literal(1.0), Literal(0.0)))
            )
            count = Apply("max", (Reduce("sum", expr.axes, ones, None), Literal(1.0)))
            return self.lower(Apply("div", (total, count)), scope)
        if expr.op == "logsumexp":
            return self.lower(log_of_sum(expr), scope)
        taken = sum_over(expr)
        if taken is None:
            return self._loop(expr, scope)
        axis, body = taken
        outside = [part for part in factors(body) if axis not in free_axes(part)]
        inside = [part for part in factors(body) if axis in free_axes(part)]
        if outside:
            rest = Reduce("sum", (axis,), product(inside), None)
            return self.lower(product([*outside, rest if inside else _length(axis)]), scope)
        match axis.size:
            case Literal(int(size)) if size <= WIDEST_LANES:
                return self._static_sum(axis, size, inside, expr, scope)
            case _:
                return self._loop(expr, scope)

    def _static_sum(self, axis: Axis, size: int, parts: list[Expr], expr: Reduce, scope: Scope) -> ir.Expr:
        outer = scope.chain()
        row_axes = frozenset[Axis]().union(*(place.axes for place in outer[:2])) | {axis}
        column_axes = outer[0].axes | (outer[2].axes if len(outer) > 2 else frozenset[Axis]()) | {axis}
        rows = [part for part in parts if free_axes(part) <= row_axes]
        columns = [part for part in parts if part not in rows and free_axes(part) <= column_axes]
        if len(rows) + len(columns) == len(parts) and size > 1:
            dim = self.dimension(axis, size)
            self.lanes[axis] = dim
            if columns and any(free_axes(part) - outer[0].axes - {axis} for part in rows):
                return self._dot(rows, columns, dim, scope)
            masked = self._masked(self.lower(product(parts), scope), dim)
            return ir.Fold("sum", masked, dim, masked.type, tuple(d for d in masked.shape if d != dim))
        if size <= UNROLL:
            body = product(parts)
            pieces = [substitute(body, {Index(axis): Literal(i)}) for i in range(size)]
            total = pieces[0]
            for piece in pieces[1:]:
                total = Apply("add", (total, piece))
            return self.lower(simplify(total), scope)
        distributed = self._distribute(axis, parts, row_axes, column_axes)
        return self._loop(expr, scope) if distributed is None else self.lower(distributed, scope)

    def _distribute(
        self, axis: Axis, parts: list[Expr], row_axes: frozenset[Axis], column_axes: frozenset[Axis]
    ) -> Expr | None:
        """Σ (x + y) · z  ->  Σ x · z + Σ y · z, where every product then falls apart into rows and columns."""
        for position, part in enumerate(parts):
            pieces = terms(part)
            others = parts[:position] + parts[position + 1 :]
            factored = [factors(product([*others, piece])) for _, piece in pieces]
            if len(pieces) < 2 or not all(
                free_axes(item) <= row_axes or free_axes(item) <= column_axes
                for items in factored
                for item in items
            ):
                continue
            total: Expr = Literal(0.0)
            for (sign, _), items in zip(pieces, factored, strict=True):
                term = Reduce("sum", (axis,), product(items), None)
                total = Apply("add" if sign > 0 else "sub", (total, term))
            return simplify(total)
        return None

    def dimension(self, axis: Axis, size: int) -> str:
        """The tile dimension of a reduced axis: D for features, else by its length; padded to a power of two ≥ 16."""
        block = padded(size)
        dim = {"feature": "D", "value_feature": "E"}.get(axis.role, f"R{size}")
        if self.dims.get(dim, block) != block:
            dim = f"R{size}"
        self.dims[dim] = block
        if size != block:
            self.bounds_of[dim] = Const(size, "i32")
        return dim

    def _masked(self, value: ir.Expr, dim: str) -> ir.Expr:
        if dim not in self.bounds_of:
            return value
        exists = binary("lt", ir.Lanes(dim), self.bounds_of[dim])
        return elementwise("where", [exists, value, Const(0, value.type)], value.type)

    def _dot(self, rows: list[Expr], columns: list[Expr], dim: str, scope: Scope) -> ir.Expr:
        left, right = self.operand(rows, scope), self.operand(columns, scope)
        kind = left.type if left.type == right.type else dot_type(left.type, right.type)
        left, right = cast(left, kind), cast(right, kind)
        for position, value in enumerate((left, right)):
            if dim in self.bounds_of and not isinstance(value, Var | ir.Load):
                left, right = (
                    (self._masked(left, dim), right) if position == 0 else (left, self._masked(right, dim))
                )
        return ir.Dot(left, right, dim, "fp32", ("M", "N"))

    def operand(self, parts: list[Expr], scope: Scope) -> ir.Expr:
        """A factor of a dot: a stored tile as it is, anything computed in fp32 and rounded to the tensors' type."""
        if len(parts) == 1 and isinstance(parts[0], Read):
            return self.tile(parts[0], scope)
        whole = product(parts)
        home = self.home(whole, scope)
        key = ("operand", whole)
        if key not in home.known:
            value = self.lower(whole, home)
            home.known[key] = self.assign(home, "operand", cast(value, self._float_type(whole)))
        return home.known[key]

    def _float_type(self, expr: Expr) -> Type:
        match expr:
            case Read(source, _, "float"):
                return self.sources[source].pointer.type
            case _:
                found: list[Type] = [
                    self._float_type(child) for child in children(expr) if dtype_of(child) == "float"
                ]
                narrow: list[Type] = [kind for kind in found if kind != "fp32"]
                return narrow[0] if narrow else "fp32"

    def _loop(self, expr: Reduce, scope: Scope) -> ir.Expr:
        """Accumulates in a loop over the reduced axes, in the scope of the result."""
        if scope.is_inner():
            self.loops.append(expr)
        old, *more = expr.axes
        axis = replace(old, name=self.fresh(old.name, scope))
        renamed: dict[Expr, Expr] = {Index(old): Index(axis)}
        condition = None if expr.where is None else substitute(expr.where, renamed)
        body = substitute(expr.body, renamed)
        if more:
            body, condition = Reduce(expr.op, tuple(more), body, condition), None
        kind: Type = "i1" if expr.op in ("any", "all") else self.whole if dtype_of(expr) == "int" else "fp32"
        combine, start = COMBINE[expr.op], neutral(expr.op, kind)
        inner = Scope(frozenset((axis,)), scope)
        counter = Var(axis.name, "i32")
        index: ir.Expr = binary("add", counter, cast(self.lower(axis.start, scope), "i32"))
        inner.known[axis] = counter if axis.start == Literal(0) else index
        value = cast(self.lower(body, inner), kind)
        if condition is not None:
            value = elementwise("where", [self.lower(condition, inner), value, Const(start, kind)], kind)
        name = self.fresh(hint(expr), scope)
        shape = value.shape
        total = Var(name, kind, shape)
        scope.statements.append(ir.Assign(name, ir.Full(start, kind, shape) if shape else Const(start, kind)))
        inner.statements.append(ir.Assign(name, elementwise(combine, [total, value], kind)))
        stop = cast(self.lower(axis.size, scope), "i32")
        scope.statements.append(ir.Loop(counter.name, Const(0, "i32"), stop, tuple(inner.statements)))
        return total


_COSTLY = frozenset(
    {"pow", "pow_whole", "pow_integer", "exp", "log", "div", "sqrt", "tanh", "sigmoid", "softplus", "erf"}
)


def padded(size: int) -> int:
    """The side of a tile for a length: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


def _nonzero(divisor: ir.Expr) -> ir.Expr:
    """A whole divisor with 1 in place of 0, as the reference divides."""
    zero, one = Const(0, divisor.type), Const(1, divisor.type)
    return operation("where", [operation("eq", [divisor, zero]), one, divisor])


def _length(axis: Axis) -> Expr:
    return Apply("float", (axis.size,))
