"""One softmax attention → the kernel of its forward pass: online softmax in base 2 over full and partial tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import Const, Type, Var
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    Apply,
    Attention,
    Expr,
    Literal,
    Symbol,
    TensorAxis,
)  # fmt: skip
from attnlang.ir.plan import Band, Specialization, Tile
from attnlang.ir.rewrite import simplify
from attnlang.passes.algebra import scaled
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.prune import prune
from attnlang.passes.ranges import key_range
from attnlang.passes.reweight import factor_of
from attnlang.passes.scopes import Scope, Source
from attnlang.passes.typed import binary, cast, elementwise, weight

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
MINUS_INFINITY = float("-inf")
FIRST, LAST = Symbol("q_first", "int"), Symbol("q_last", "int")


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
) -> ir.Kernel:
    """The kernel of one attention. Its arguments: the tensors it reads, `out` [B, H, NQ, DV], `lse` [B, H, NQ] float32
    where asked for; their strides in elements; the sizes and parameters it names."""
    build = _Forward(attention, bands, tile, heavy_first, arguments, facts, specialization)
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
    ) -> None:
        self.attention = attention
        self.bands = bands
        self.tile = tile
        self.heavy_first = heavy_first
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
        self.program = Scope(frozenset((BATCH, HEAD)))
        self.rows = Scope(frozenset((self.query,)), self.program)

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
        segments = self._segments()
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
        if segments.full is not None:
            loops += [
                ir.Remark("full tiles: every pair is visible"),
                self._loop(segments.full, False, running),
            ]
        loops += [
            ir.Remark("partial tiles: the mask is applied"),
            self._loop(segments.partial, True, running),
        ]
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
        program = Var("program", "i32")
        heads, queries = Var("H", "i32"), Var("NQ", "i32")
        rows = Const(self.tile.rows, "i32")
        tiles = lowering.assign(
            scope, "tiles", binary("floordiv", binary("add", queries, Const(self.tile.rows - 1, "i32")), rows)
        )
        number = lowering.assign(scope, "tile", binary("mod", program, tiles))
        if self.heavy_first:
            number = lowering.assign(
                scope, "tile", binary("sub", binary("sub", tiles, Const(1, "i32")), number)
            )
        pair = lowering.assign(scope, "pair", binary("floordiv", program, tiles))
        scope.known[BATCH] = lowering.assign(scope, "b", binary("floordiv", pair, heads))
        scope.known[HEAD] = lowering.assign(scope, "h", binary("mod", pair, heads))
        self.first_row = lowering.assign(scope, "row_first", binary("mul", number, rows))
        offset = Var("q_offset", "i32")
        last_row = binary("min", binary("add", self.first_row, Const(self.tile.rows, "i32")), queries)
        first = lowering.assign(scope, "q_first", binary("add", self.first_row, offset))
        scope.known[FIRST, ()] = lowering.lengthen(first)
        last = binary("sub", binary("add", last_row, offset), Const(1, "i32"))
        scope.known[LAST, ()] = lowering.lengthen(lowering.assign(scope, "q_last", last))

    def _place_rows(self) -> None:
        """Rows beyond the last are computed as copies of it, and not stored."""
        scope, lowering = self.rows, self.lowering
        lanes = binary("add", self.first_row, ir.Lanes("M"))
        self.row_exists = binary("lt", lanes, Var("NQ", "i32"))
        last = binary("sub", Var("NQ", "i32"), Const(1, "i32"))
        row = lowering.assign(scope, "row", binary("min", lanes, last))
        scope.known["storage", self.query] = row
        scope.known[self.query] = lowering.assign(scope, "q", binary("add", row, Var("q_offset", "i32")))

    def _value_dimension(self) -> str:
        feature = self.attention.feature
        size = self.specialization.value_dim
        dim = self.lowering.dimension(feature, size)
        self.lowering.lanes[feature] = dim
        return dim

    # ------------------------------------------------------------------------------------- tile numbers

    def _segments(self) -> _Segments:
        """Tile numbers of full and partial tiles, from the closed-form key ranges of the bands."""
        lowering, scope = self.lowering, self.program
        columns = Const(self.tile.columns, "i32")
        pieces: list[_Piece] = []
        for band in self.bands:
            keys = key_range(band, self.query, self.key, FIRST, LAST, self.facts)
            first = binary("floordiv", self._scalar(keys.first), columns)
            stop = self._ceiling(binary("max", self._scalar(keys.stop), Const(0, "i32")))
            first = lowering.assign(scope, "first", first)
            stop = lowering.assign(
                scope, "stop", stop if first == Const(0, "i32") else binary("max", stop, first)
            )
            if keys.full_first is None or keys.full_stop is None:
                pieces.append(_Piece(first, stop, first, first))
                continue
            full_first = binary("max", self._ceiling(self._scalar(keys.full_first)), first)
            if full_first != first:
                full_first = lowering.assign(scope, "full_first", binary("min", full_first, stop))
            full_stop = self._signed_floor(self._scalar(keys.full_stop))
            if full_first != Const(0, "i32"):
                full_stop = binary("max", full_stop, full_first)
            full_stop = binary("min", full_stop, stop)
            pieces.append(_Piece(first, stop, full_first, lowering.assign(scope, "full_stop", full_stop)))
        pieces = self._disjoint(pieces)
        any_full = any(band.exact for band in self.bands)
        left = [_Run(piece.first, piece.full_first) for piece in pieces]
        right = [
            _Run(piece.full_stop, piece.stop) for piece in pieces
        ]  # an empty run where both ends are one name
        full = [_Run(piece.full_first, piece.full_stop) for piece in pieces]
        partial = [run for pair in zip(left, right, strict=True) for run in pair if run.first != run.stop]
        return _Segments(full if any_full else None, partial)

    def _scalar(self, expr: Expr) -> ir.Expr:
        """A number of keys; one that is computed in 64 bits is cut off before it becomes a short one."""
        value = self.lowering.lower(expr, self.program)
        if value.type == "i64":
            value = binary("min", binary("max", value, Const(0, "i64")), cast(Var("NK", "i32"), "i64"))
        return cast(value, "i32")

    def _ceiling(self, value: ir.Expr) -> ir.Expr:
        """Tiles that hold the first `value` keys; at most 0 where there are none."""
        up = binary("add", value, Const(self.tile.columns - 1, "i32"))
        return binary("floordiv", up, Const(self.tile.columns, "i32"))

    def _signed_floor(self, value: ir.Expr) -> ir.Expr:
        return binary("floordiv", binary("max", value, Const(0, "i32")), Const(self.tile.columns, "i32"))

    def _disjoint(self, pieces: list[_Piece]) -> list[_Piece]:
        """Sorts the bands' tile ranges by their first tile and cuts what an earlier one has covered."""
        lowering, scope = self.lowering, self.program
        for end in range(len(pieces) - 1, 0, -1):
            for i in range(end):
                swap = lowering.assign(scope, "swap", binary("lt", pieces[i + 1].first, pieces[i].first))
                pieces[i], pieces[i + 1] = (
                    self._choose(swap, pieces[i + 1], pieces[i]),
                    self._choose(swap, pieces[i], pieces[i + 1]),
                )
        result: list[_Piece] = []
        for piece in pieces:
            if result:
                first = lowering.assign(scope, "first", binary("max", piece.first, result[-1].stop))
                stop = lowering.assign(scope, "stop", binary("max", piece.stop, first))
                full_first = binary("min", binary("max", piece.full_first, first), stop)
                full_first = lowering.assign(scope, "full_first", full_first)
                full_stop = lowering.assign(scope, "full_stop", binary("max", piece.full_stop, full_first))
                piece = _Piece(first, stop, full_first, full_stop)
            result.append(piece)
        return result

    def _choose(self, swap: ir.Expr, yes: _Piece, no: _Piece) -> _Piece:
        def pick(name: str, x: ir.Expr, y: ir.Expr) -> ir.Expr:
            return self.lowering.assign(self.program, name, elementwise("where", [swap, x, y], "i32"))

        return _Piece(
            pick("first", yes.first, no.first),
            pick("stop", yes.stop, no.stop),
            pick("full_first", yes.full_first, no.full_first),
            pick("full_stop", yes.full_stop, no.full_stop),
        )

    # -------------------------------------------------------------------------------------------- loops

    def _loop(self, runs: list[_Run], masked: bool, running: _Running) -> ir.Loop:
        """The loop over the tiles of all runs: its counter runs through them one after the other."""
        lowering = self.lowering
        scope = Scope(frozenset((self.key,)), self.rows)
        number = Var(lowering.fresh("t", scope), "i32")
        kind = "partial" if masked else "full"
        end: ir.Expr = Const(0, "i32")
        chosen: ir.Expr = number
        for position, run in enumerate(runs):
            here = (
                binary("add", run.first, binary("sub", number, end))
                if position
                else binary("add", run.first, number)
            )
            chosen = (
                elementwise("where", [binary("lt", number, end), chosen, here], "i32") if position else here
            )
            end = lowering.assign(
                self.program, f"{kind}_end", binary("add", end, binary("sub", run.stop, run.first))
            )
        self._place_keys(scope, chosen, masked)
        self._update(scope, masked, running)
        lowering.end_loop()
        return ir.Loop(number.name, Const(0, "i32"), end, tuple(scope.statements), pipelined=True)

    def _place_keys(self, scope: Scope, chosen: ir.Expr, masked: bool) -> None:
        lowering = self.lowering
        first = lowering.assign(scope, "k_first", binary("mul", chosen, Const(self.tile.columns, "i32")))
        key = lowering.assign(scope, "k", binary("add", first, ir.Lanes("N")))
        scope.known[self.key] = key
        scope.known["storage", self.key] = key
        if masked:
            exists = lowering.assign(scope, "exists", binary("lt", key, Var("NK", "i32")))
            scope.known["tail", self.key] = exists

    def _update(self, scope: Scope, masked: bool, running: _Running) -> None:
        """One step of the online softmax: the running values take in a tile of keys."""
        lowering = self.lowering
        m, total, acc = running.m, running.total, running.acc
        moving = frozenset((self.query, self.key))
        score = cast(lowering.lower(simplify(scaled(self.attention.score, LOG2E, moving)), scope), "fp32")
        if masked:
            visible = simplify(Apply("and", (self.attention.mask, self.attention.sparsity)))
            exists = scope.known["tail", self.key]
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
        value = cast(elementwise("div", [acc, divisor], "fp32"), self.specialization.dtype)
        base, offset = self._place_of("out", (("M", self.first_row), (dim, None)))
        mask = self.row_exists
        if dim in lowering.bounds_of:
            mask = binary("and", mask, binary("lt", ir.Lanes(dim), lowering.bounds_of[dim]))
        remark: list[ir.Statement] = [
            ir.Remark("divide by the sum and store; a row that saw nothing gives 0 and -inf")
        ]
        scope.statements.append(ir.Store("out", base, offset, value, mask))
        if self.specialization.lse:
            log = binary("mul", binary("add", m, elementwise("log2", [divisor], "fp32")), Const(LN2, "fp32"))
            value = elementwise("where", [empty, Const(MINUS_INFINITY, "fp32"), log], "fp32")
            base, offset = self._place_of("lse", (("M", self.first_row),))
            scope.statements.append(ir.Store("lse", base, offset, value, self.row_exists))
        return [*remark, *scope.statements]

    def _place_of(self, name: str, dims: tuple[tuple[str, ir.Expr | None], ...]) -> tuple[ir.Expr, ir.Expr]:
        """Base and offset of this program's part of a result."""
        strides: list[ir.Expr] = [Var(stride, "i64") for stride in self._strides(name, 2 + len(dims))]
        strides += [Const(1, "i64")] * (2 + len(dims) - len(strides))
        b, h = (cast(self.program.known[axis], "i64") for axis in (BATCH, HEAD))
        base = self.lowering.assign(
            self.program,
            f"{name}_base",
            binary("add", binary("mul", b, strides[0]), binary("mul", h, strides[1])),
        )
        offset: ir.Expr = Const(0, self.lowering.offset_type)
        for (dim, start), stride in zip(dims, strides[2:], strict=True):
            lanes: ir.Expr = ir.Lanes(dim) if start is None else binary("add", start, ir.Lanes(dim))
            kind = self.lowering.offset_type
            offset = binary("add", offset, binary("mul", cast(lanes, kind), cast(stride, kind)))
        return base, offset

    # ---------------------------------------------------------------------------------------- arguments

    def used_arguments(
        self, body: tuple[ir.Statement, ...]
    ) -> tuple[tuple[ir.Pointer, ...], tuple[ir.Scalar, ...]]:
        """The pointers and scalars that the statements name, in the order of declaration; results last."""
        names = ir.names(body)
        sources = self.lowering.sources.values()
        tensors = [source.pointer for source in sources if source.pointer.name in names]
        out = ir.Pointer("out", self.specialization.dtype, self._strides("out", 4), written=True)
        results = [out]
        if self.specialization.lse:
            results.append(ir.Pointer("lse", "fp32", self._strides("lse", 3), written=True))
        numbers = [ir.Scalar(ir.spelled(name), kind) for name, kind in self.arguments.scalars.items()]
        scalars = [number for number in numbers if number.name in names]
        return (*tensors, *results), tuple(scalars)


@dataclass(frozen=True)
class _Running:
    """Of each row: the maximum of the scores so far (base 2), the sum of the weights, the weighted values."""

    m: Var
    total: Var
    acc: Var


@dataclass(frozen=True)
class _Piece:
    """Tile numbers of one band: first ≤ full_first ≤ full_stop ≤ stop."""

    first: ir.Expr
    stop: ir.Expr
    full_first: ir.Expr
    full_stop: ir.Expr


@dataclass(frozen=True)
class _Run:
    """Tile numbers first … stop − 1."""

    first: ir.Expr
    stop: ir.Expr


@dataclass(frozen=True)
class _Segments:
    """The runs of full tiles (None: no band has any) and of partial ones."""

    full: list[_Run] | None
    partial: list[_Run]
