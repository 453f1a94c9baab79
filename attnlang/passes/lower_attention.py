"""One softmax attention → the kernel of its forward pass: online softmax in base 2 over full and partial tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import Const, Type, Var
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KV_HEAD,
    Apply,
    Attention,
    Literal,
    TensorAxis,
)  # fmt: skip
from attnlang.ir.plan import Band, Specialization, Tile, WalkKind
from attnlang.ir.rewrite import simplify
from attnlang.passes.algebra import scaled
from attnlang.passes.lower_columns import ALWAYS, ColumnWalk, UnitWalk, any_width
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.lower_walk import Keys, ListWalk, RangeWalk, Walk
from attnlang.passes.prune import prune
from attnlang.passes.reweight import factor_of
from attnlang.passes.scopes import Scope, Source
from attnlang.passes.tiles import few_rows
from attnlang.passes.typed import binary, cast, elementwise, weight

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class Arguments:
    """What a kernel is called with: tensors with their types and axes, and the numbers of the call by type."""

    tensors: Mapping[str, tuple[Type, tuple[TensorAxis, ...]]]
    scalars: Mapping[str, Type]


def lower_attention(
    name: str,
    banner: tuple[str, ...],
    attention: Attention,
    bands: tuple[Band, ...],
    tile: Tile,
    heavy_first: bool,
    arguments: Arguments,
    facts: Facts,
    specialization: Specialization,
    walk: WalkKind = "ranges",
) -> ir.Kernel:
    """The kernel of one attention. Its arguments: the tensors it reads, `out` [B, H, NQ, DV], `lse` [B, H, NQ] float32
    where asked for; their strides in elements; the sizes and parameters it names. Split: `out` and `lse` are those of
    each share of the keys, float32, with `splits` as third axis (`lower_combine` puts them together).
    Packed: of an attention that has the key/value head as an index of its own (`packing.packed`)."""
    build = _Forward(attention, bands, tile, heavy_first, arguments, facts, specialization, walk)
    body = prune(build.body())
    pointers, scalars = build.used_arguments(body)
    dims = tuple(sorted({**build.lowering.dims, "M": tile.rows, "N": tile.columns}.items()))
    return ir.Kernel(name, banner, pointers, scalars, dims, "program", body, tile.warps, tile.stages)


class _Forward:
    """Builds the statements scope by scope."""

    def __init__(
        self,
        attention: Attention,
        bands: tuple[Band, ...],
        tile: Tile,
        heavy_first: bool,
        arguments: Arguments,
        facts: Facts,
        specialization: Specialization,
        walk: WalkKind,
    ) -> None:
        self.attention = attention
        self.tile = tile
        self.arguments = arguments
        self.facts = facts
        self.specialization = specialization
        self.query, self.key = attention.rows[-1], attention.over
        sources: dict[str, Source] = {}
        for tensor, (kind, axes) in arguments.tensors.items():
            strides = self._strides(ir.spelled(tensor), len(axes), tensor in specialization.strided)
            sources[tensor] = Source(ir.Pointer(ir.spelled(tensor), kind, strides), axes)
        symbols: dict[str, Type] = {**arguments.scalars, "q_first": "i32", "q_last": "i32"}
        self.lowering = Lowering(sources, symbols, facts, specialization.wide, specialization.long)
        self.lowering.used_names |= {ir.spelled(name) for name in (*arguments.scalars, *sources)}
        self.lowering.used_names |= {"out", "lse", "program"}
        self.lowering.used_names |= {
            stride for source in sources.values() for stride in source.pointer.strides
        }
        self.packed = specialization.packed
        self.program = Scope(frozenset((BATCH, KV_HEAD if self.packed else HEAD)))
        self.rows = Scope(frozenset((self.query, *((HEAD,) if self.packed else ()))), self.program)
        self.split: ir.Expr = Const(0, "i32")
        free = any_width(specialization.target, tile.rows, few_rows(specialization.dtype))
        self.ranges = (ColumnWalk if free else RangeWalk)(
            self.lowering, self.program, attention, bands, tile, heavy_first, facts, self.packed
        )
        self.walk: Walk = self.ranges
        if walk != "ranges":
            assert not self.packed  # lists are of the tiles of single heads
            kind = UnitWalk if free else ListWalk
            self.walk = kind(self.lowering, self.program, tile, walk == "ordered")

    def _strides(self, shown: str, count: int, strided: bool = False) -> tuple[str, ...]:
        """The names of the strides that are arguments; the innermost is 1 unless it is not (`strided`)."""
        return tuple(f"{shown}_stride_{i}" for i in range(count if strided else count - 1))

    # ----------------------------------------------------------------------------------------- the body

    def body(self) -> tuple[ir.Statement, ...]:
        """All statements, phase by phase."""
        lowering = self.lowering
        self._place_program()
        self._place_rows()
        acc_dim = self._value_dimension()
        spans = self.walk.loops()
        shape, wide = ("M",), ("M", acc_dim)
        running = _Running(
            Var(lowering.fresh("m"), "fp32", shape),
            Var(lowering.fresh("total"), "fp32", shape),
            Var(lowering.fresh("acc"), "fp32", wide),
        )
        start: list[ir.Statement] = [
            ir.Remark("running maximum (base 2), sum and weighted values of each row"),
            ir.Assign(running.m.name, ir.Full(MINUS_INFINITY, "fp32", shape)),
            ir.Assign(running.total.name, ir.Full(0.0, "fp32", shape)),
            ir.Assign(running.acc.name, ir.Full(0.0, "fp32", wide)),
        ]
        loops: list[ir.Statement] = []
        for keys in spans:
            told = (
                "partial tiles: the mask is applied" if keys.masked else "full tiles: every pair is visible"
            )
            loops += [ir.Remark(told), self._loop(keys, running)]
        ending = self._ending(running, acc_dim)
        phases: list[ir.Statement] = [
            ir.Remark("this program's head and tile of queries"),
            *self.program.statements,
        ]
        return (
            *phases,
            ir.Remark("what depends on the query alone"),
            *self.rows.statements,
            *start,
            *loops,
            *ending,
        )

    def _place_program(self) -> None:
        scope, lowering = self.program, self.lowering
        program: ir.Expr = Var("program", "i32")
        heads = Var("HK" if self.packed else "H", "i32")
        if self.specialization.split:
            splits = Var("splits", "i32")
            self.split = lowering.assign(scope, "split", binary("mod", program, splits))
            program = lowering.assign(scope, "unsplit", binary("floordiv", program, splits))
        tiles = lowering.assign(scope, "tiles", self.walk.tiles())
        number = lowering.assign(scope, "tile", binary("mod", program, tiles))
        pair = lowering.assign(scope, "pair", binary("floordiv", program, tiles))
        scope.known[BATCH] = lowering.assign(scope, "b", binary("floordiv", pair, heads))
        head, hint = (KV_HEAD, "g") if self.packed else (HEAD, "h")
        scope.known[head] = lowering.assign(scope, hint, binary("mod", pair, heads))
        self.first_row = self.walk.place(number, tiles, pair)

    def _place_rows(self) -> None:
        """Rows that do not exist are computed as copies of one that does, and not stored."""
        scope, lowering = self.rows, self.lowering
        lanes = binary("add", self.first_row, ir.Lanes("M"))
        found = self.walk.queries(lanes, scope)
        self.row_exists = found.exists
        if self.packed:
            at = lowering.assign(scope, "packed_row", found.at)
            first = binary("mul", self.program.known[KV_HEAD], self.ranges.group)
            head = binary("add", first, binary("mod", at, self.ranges.group))
            scope.known[HEAD] = lowering.assign(scope, "h", head)
            found = replace(found, at=self.ranges.query_of(at))
        self.row = lowering.assign(scope, "row", found.at)
        self.places = lanes if self.walk.in_order and not self.packed else self.row
        scope.known["storage", self.query] = self.row
        scope.known[self.query] = lowering.assign(scope, "q", binary("add", self.row, Var("q_offset", "i32")))

    def _value_dimension(self) -> str:
        feature = self.attention.feature
        size = self.specialization.value_dim
        dim = self.lowering.dimension(feature, size)
        self.lowering.lanes[feature] = dim
        return dim

    # -------------------------------------------------------------------------------------------- loops

    def _loop(self, keys: Keys, running: _Running) -> ir.Loop:
        """The online softmax over the tiles of one loop."""
        lowering = self.lowering
        scope = Scope(frozenset((self.key,)), self.rows)
        number = Var(lowering.fresh("t", scope), "i32")
        self._place_keys(scope, keys.lanes(scope, number), keys.masked)
        self._update(scope, keys.masked, running)
        lowering.end_loop()
        start, stop = self._share(keys)
        columns = None if keys.columns is None else keys.columns(number)
        return ir.Loop(number.name, start, stop, tuple(scope.statements), pipelined=True, columns=columns)

    def _share(self, keys: Keys) -> tuple[ir.Expr, ir.Expr]:
        """This program's part of a loop."""
        if not self.specialization.split:
            return keys.start, keys.stop
        splits, scope = Var("splits", "i32"), self.program
        length = self.lowering.assign(scope, "length", binary("sub", keys.stop, keys.start))

        def end(split: ir.Expr) -> ir.Expr:
            done = binary(
                "floordiv", binary("mul", cast(length, "i64"), cast(split, "i64")), cast(splits, "i64")
            )
            return self.lowering.assign(scope, "share", binary("add", keys.start, cast(done, "i32")))

        return end(self.split), end(binary("add", self.split, Const(1, "i32")))

    def _place_keys(self, scope: Scope, lanes: ir.Expr, masked: bool) -> None:
        lowering = self.lowering
        found = self.walk.keys(lanes, scope)
        scope.known[self.key] = found.at
        scope.known["storage", self.key] = found.at
        if masked and found.exists != ALWAYS:
            scope.known["tail", self.key] = lowering.assign(scope, "exists", found.exists)

    def _update(self, scope: Scope, masked: bool, running: _Running) -> None:
        """One step of the online softmax: the running values take in a tile of keys."""
        lowering = self.lowering
        m, total, acc = running.m, running.total, running.acc
        moving = frozenset((self.query, self.key))
        score = cast(lowering.lower(simplify(scaled(self.attention.score, LOG2E, moving)), scope), "fp32")
        if masked:
            visible = simplify(Apply("and", (self.attention.mask, self.attention.sparsity)))
            exists = scope.known.get(("tail", self.key), ALWAYS)
            shown = (
                exists if visible == Literal(True) else binary("and", lowering.lower(visible, scope), exists)
            )
            if weight(shown) > 1:
                shown = lowering.assign(scope, "visible", shown)
            score = elementwise("where", [shown, score, Const(MINUS_INFINITY, "fp32")], "fp32")
        s = lowering.assign(
            scope, "s", ir.Op("spread", (score,), "fp32", ("M", "N")) if score.shape != ("M", "N") else score
        )
        top = binary("max", m, ir.Fold("max", s, "N", "fp32", ("M",)))
        m_new = lowering.assign(scope, "m_new", top)
        empty = binary("eq", m_new, Const(MINUS_INFINITY, "fp32"))
        shift = elementwise("where", [empty, Const(0.0, "fp32"), m_new], "fp32")
        shift = lowering.assign(scope, "shift", shift)
        p = lowering.assign(scope, "p", elementwise("exp2", [binary("sub", s, shift)], "fp32"))
        decay = lowering.assign(scope, "decay", elementwise("exp2", [binary("sub", m, shift)], "fp32"))
        add = scope.statements.append
        add(
            ir.Assign(
                total.name, binary("add", binary("mul", total, decay), ir.Fold("sum", p, "N", "fp32", ("M",)))
            )
        )
        weights: ir.Expr = p
        factor = factor_of(self.attention)
        if factor is not None:
            weights = lowering.assign(
                scope, "weights", binary("mul", p, cast(lowering.lower(factor, scope), "fp32"))
            )
        values = lowering.operand([self.attention.value], scope)
        scaled_acc = binary("mul", acc, decay)
        add(
            ir.Assign(
                acc.name, ir.Dot(cast(weights, values.type), values, "N", "fp32", acc.shape, scaled_acc)
            )
        )
        add(ir.Assign(m.name, m_new))

    # ------------------------------------------------------------------------------------------- ending

    def _ending(self, running: _Running, dim: str) -> list[ir.Statement]:
        """Divides by the sum and stores; a row that saw nothing gives 0 and −inf."""
        lowering = self.lowering
        m, total, acc = running.m, running.total, running.acc
        scope = Scope(frozenset(), self.rows)
        zero, one = Const(0.0, "fp32"), Const(1.0, "fp32")
        empty = lowering.assign(scope, "empty", binary("eq", total, zero))
        divisor = lowering.assign(scope, "divisor", elementwise("where", [empty, one, total], "fp32"))
        kind = self._result_type()
        value = cast(elementwise("div", [acc, divisor], "fp32"), kind)
        base, offset = self._place_of("out", (self.places, ir.Lanes(dim)))
        mask = self.row_exists
        if dim in lowering.bounds_of:
            mask = binary("and", mask, binary("lt", ir.Lanes(dim), lowering.bounds_of[dim]))
        remark: list[ir.Statement] = [
            ir.Remark("divide by the sum and store; a row that saw nothing gives 0 and -inf")
        ]
        scope.statements.append(ir.Store("out", base, offset, value, mask))
        if self._stores_lse():
            log = binary("mul", binary("add", m, elementwise("log2", [divisor], "fp32")), Const(LN2, "fp32"))
            value = elementwise("where", [empty, Const(MINUS_INFINITY, "fp32"), log], "fp32")
            base, offset = self._place_of("lse", (self.places,))
            scope.statements.append(ir.Store("lse", base, offset, value, self.row_exists))
        return [*remark, *scope.statements]

    def _place_of(self, name: str, indices: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ir.Expr]:
        """Base and offset of this program's part of a result, at these indices behind batch, head and share."""
        head = self.rows.known[HEAD] if self.packed else self.program.known[HEAD]
        split = (self.split,) if self.specialization.split else ()
        places = (self.program.known[BATCH], head, *split, *indices)
        strides: list[ir.Expr] = [Var(stride, "i64") for stride in self._strides(name, len(places))]
        strides += [Const(1, "i64")] * (len(places) - len(strides))
        kind = self.lowering.offset_type
        base: ir.Expr = Const(0, "i64")
        offset: ir.Expr = Const(0, kind)
        for index, stride in zip(places, strides, strict=True):
            if index.shape:
                offset = binary("add", offset, binary("mul", cast(index, kind), cast(stride, kind)))
            else:
                base = binary("add", base, binary("mul", cast(index, "i64"), stride))
        return self.lowering.assign(self.program, f"{name}_base", base), offset

    # ---------------------------------------------------------------------------------------- arguments

    def used_arguments(
        self, body: tuple[ir.Statement, ...]
    ) -> tuple[tuple[ir.Pointer, ...], tuple[ir.Scalar, ...]]:
        """The pointers and scalars that the statements name, in the order of declaration; results last."""
        names = ir.names(body)
        sources = self.lowering.sources.values()
        tensors = [source.pointer for source in sources if source.pointer.name in names]
        split = self.specialization.split
        results = [ir.Pointer("out", self._result_type(), self._strides("out", 4 + split), written=True)]
        if self._stores_lse():
            results.append(ir.Pointer("lse", "fp32", self._strides("lse", 3 + split), written=True))
        numbers = [ir.Scalar(ir.spelled(name), kind) for name, kind in self.arguments.scalars.items()]
        scalars = [number for number in numbers if number.name in names]
        extra = (ir.Scalar("splits", "i32"),) if split else ()
        return (*tensors, *self.walk.pointers, *results), (*scalars, *self.walk.scalars, *extra)

    def _result_type(self) -> Type:
        return "fp32" if self.specialization.split else self.specialization.dtype

    def _stores_lse(self) -> bool:
        return self.specialization.lse or self.specialization.split


@dataclass(frozen=True)
class _Running:
    """Of each row: the maximum of the scores so far (base 2), the sum of the weights, the weighted values."""

    m: Var
    total: Var
    acc: Var
