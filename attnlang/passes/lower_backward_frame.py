"""What every kernel of a backward pass stands in: its arguments, its head and own tile of tokens, its stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import Const, Type, Var
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    NQ,
    Attention,
    Axis,
    B,
    H,
    Index,
    Literal,
    Read,
    TensorAxis,
    kv_head_of,
    storage,
)  # fmt: skip
from attnlang.ir.plan import Specialization, Tile
from attnlang.passes.lower_attention import Arguments
from attnlang.passes.lower_columns import ALWAYS
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.lower_walk import Walk
from attnlang.passes.prune import prune
from attnlang.passes.scopes import Scope, Source
from attnlang.passes.typed import binary, cast

TURN = "turn"
ROWS = (TensorAxis("", B), TensorAxis("", H), TensorAxis("", NQ))


@dataclass(frozen=True)
class Result:
    """A tensor that a kernel writes, with `axes` axes. `keyed`: its heads are key/value heads; `shared`: programs add
    to it, and its outermost axis is their share."""

    name: str
    type: Type
    axes: int = 4
    keyed: bool = False
    shared: bool = False


class Frame:
    """Arguments and scopes of one kernel, whose programs own a tile of tokens `own` and walk over tiles of `other`.

    In its tiles "M" is the own tokens and "N" the others, whichever are queries. Reads of `out`, `dout`, `lse`,
    `delta` and `dlse` are expressions like those of any tensor: `self.read`.
    """

    def __init__(
        self, attention: Attention, own: Axis, other: Axis, tile: Tile, arguments: Arguments, facts: Facts,
        specialization: Specialization,
    ) -> None:  # fmt: skip
        self.attention = attention
        self.own, self.other = own, other
        self.tile = tile
        self.arguments = arguments
        self.specialization = specialization
        self._shown = self._names(arguments)
        sources = self._sources(arguments, specialization)
        symbols: dict[str, Type] = {**arguments.scalars, "q_first": "i32", "q_last": "i32"}
        self.lowering = Lowering(sources, symbols, facts, specialization.wide, specialization.long)
        used = {ir.spelled(name) for name in arguments.scalars}
        used |= {source.pointer.name for source in sources.values()}
        used |= {stride for source in sources.values() for stride in source.pointer.strides}
        used |= {name for result in ir.BACKWARD for name in (result, *self._strides(result, 5))}
        self.lowering.used_names |= used | {"program", TURN}
        self.outer = Scope(frozenset())
        self.share: ir.Expr = Const(0, "i32")
        self.turns: ir.Expr | None = None
        self.program = Scope(frozenset((BATCH, HEAD)))
        self.rows = Scope(frozenset((own,)), self.program)

    # ---------------------------------------------------------------------------------------- arguments

    def _names(self, arguments: Arguments) -> dict[str, str]:
        """The names by which expressions read the arguments of the backward pass: none of the pattern's."""
        found: dict[str, str] = {}
        for name in ("out", "lse", "dout", "dlse", "delta"):
            shown = name
            while shown in arguments.tensors:
                shown = f"{shown}_"
            found[name] = shown
        return found

    def _sources(self, arguments: Arguments, specialization: Specialization) -> dict[str, Source]:
        sources: dict[str, Source] = {}
        for tensor, (kind, axes) in arguments.tensors.items():
            strides = self._strides(ir.spelled(tensor), len(axes), tensor in specialization.strided)
            sources[tensor] = Source(ir.Pointer(ir.spelled(tensor), kind, strides), axes)
        values = (*ROWS, TensorAxis("", Literal(specialization.value_dim)))
        for name, shown in self._shown.items():
            axes = values if name in ("out", "dout") else ROWS
            kind: Type = specialization.dtype if name in ("out", "dout") else "fp32"
            sources[shown] = Source(ir.Pointer(name, kind, self._strides(name, len(axes))), axes)
        return sources

    def _strides(self, shown: str, count: int, strided: bool = False) -> tuple[str, ...]:
        return tuple(f"{shown}_stride_{i}" for i in range(count if strided else count - 1))

    def read(self, name: str, feature: Axis | None = None) -> Read:
        """An argument of the backward pass at the query, and at a feature of the values."""
        query = self.attention.rows[-1]
        at = (Index(BATCH), Index(HEAD), storage(query))
        return Read(self._shown[name], at if feature is None else (*at, Index(feature)))

    def kernel(
        self, name: str, banner: tuple[str, ...], body: tuple[ir.Statement, ...], results: Sequence[Result],
        walk: Walk | None,
    ) -> ir.Kernel:  # fmt: skip
        """The kernel of these statements, with the arguments that they name."""
        body = prune(body)
        named = ir.names(body)
        written = {result.name for result in results}
        sources = [source.pointer for source in self.lowering.sources.values()]
        pointers = [pointer for pointer in sources if pointer.name in named - written]
        for result in results:
            strides = self._strides(result.name, result.axes)
            pointers.append(ir.Pointer(result.name, result.type, strides, written=True))
        numbers = [ir.Scalar(ir.spelled(shown), kind) for shown, kind in self.arguments.scalars.items()]
        scalars = [number for number in numbers if number.name in named]
        if any(result.shared for result in results):
            scalars.append(ir.Scalar("shares", "i32"))
        if walk is not None:
            pointers += walk.pointers
            scalars += walk.scalars
        dims = {**self.lowering.dims, "M": self.tile.rows, "N": self.tile.columns}
        if walk is None:
            del dims["N"]
        tile = self.tile
        return ir.Kernel(
            name, banner, tuple(pointers), tuple(scalars), tuple(sorted(dims.items())), "program", body,
            tile.warps, tile.stages,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ program

    def place_program(self, tiles: ir.Expr, shared: bool) -> tuple[ir.Expr, ir.Expr, ir.Expr]:
        """Batch, head and the number of the program's own tile among the `tiles` of its head; number, tiles, pair.
        `shared`: a program owns every `shares`-th tile of its head, one after the other."""
        lowering, program = self.lowering, Var("program", "i32")
        scope = self.outer if shared else self.program
        tiles = lowering.assign(scope, "tiles", tiles)
        count = Var("shares", "i32") if shared else tiles
        first = lowering.assign(scope, "share" if shared else "tile", binary("mod", program, count))
        pair = lowering.assign(scope, "pair", binary("floordiv", program, count))
        number: ir.Expr = first
        if shared:
            self.share = first
            rest = binary("sub", binary("add", binary("sub", tiles, first), count), Const(1, "i32"))
            self.turns = lowering.assign(scope, "turns", binary("floordiv", rest, count))
            number = binary("add", first, binary("mul", Var(TURN, "i32"), count))
            number = lowering.assign(self.program, "tile", number)
        for axis, hint, op in ((BATCH, "b", "floordiv"), (HEAD, "h", "mod")):
            self.program.known[axis] = lowering.assign(scope, hint, binary(op, pair, Var("H", "i32")))
        return number, tiles, pair

    def whole(self, phases: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
        """The statements of a program from those for one own tile."""
        if self.turns is None:
            return phases
        loop = ir.Loop(TURN, Const(0, "i32"), self.turns, phases)
        return (*remarks(("this program's head and share of its tiles", self.outer.statements)), loop)

    def place_own(self, at: ir.Expr, exists: ir.Expr) -> None:
        """The own tokens, each one that exists; results of others are not stored."""
        self.own_exists = exists
        self.own_at = self.lowering.assign(self.rows, "row" if self._is_query(self.own) else "k", at)
        self._place(self.rows, self.own, self.own_at)

    def _is_query(self, axis: Axis) -> bool:
        return axis == self.attention.rows[-1]

    def _place(self, scope: Scope, axis: Axis, at: ir.Expr) -> None:
        scope.known["storage", axis] = at
        scope.known[axis] = at
        if self._is_query(axis):
            moved = binary("add", at, Var("q_offset", "i32"))
            scope.known[axis] = self.lowering.assign(scope, "q", moved)

    def place_others(self, scope: Scope, walk: Walk, lanes: ir.Expr, masked: bool) -> ir.Expr:
        """A tile of the tokens walked over; returns which of them exist."""
        lowering = self.lowering
        found = walk.keys(lanes, scope)
        self._place(scope, self.other, found.at)
        if masked and found.exists != ALWAYS:
            scope.known["tail", self.other] = lowering.assign(scope, "exists", found.exists)
        return found.exists

    def loop(self) -> tuple[Scope, Var]:
        """An empty loop over tiles: its scope and its counter."""
        scope = Scope(frozenset((self.other,)), self.rows)
        return scope, Var(self.lowering.fresh("t", scope), "i32")

    # ------------------------------------------------------------------------------------------- stores

    def store(
        self, scope: Scope, result: Result, value: ir.Expr, indices: Sequence[ir.Expr], mask: ir.Expr
    ) -> None:
        """Writes a tile of a result at these indices behind batch and head."""
        base, offset = self._place_of(result, indices)
        for dim in value.shape:
            if dim in self.lowering.bounds_of:
                mask = binary("and", mask, binary("lt", ir.Lanes(dim), self.lowering.bounds_of[dim]))
        value = cast(value, result.type)
        scope.statements.append(ir.Store(result.name, base, offset, value, mask, result.shared))

    def _place_of(self, result: Result, indices: Sequence[ir.Expr]) -> tuple[ir.Expr, ir.Expr]:
        strides: list[ir.Expr] = [Var(stride, "i64") for stride in self._strides(result.name, result.axes)]
        strides.append(Const(1, "i64"))
        scope, lowering = self.program, self.lowering
        key = ("result", result.name)
        if key not in scope.known:
            head = kv_head_of(Index(HEAD)) if result.keyed else Index(HEAD)
            outer = [lowering.lower(Index(BATCH), scope), lowering.lower(head, scope)]
            if result.shared:
                outer.insert(0, self.share)
            start: ir.Expr = Const(0, "i64")
            for index, stride in zip(outer, strides, strict=False):
                start = binary("add", start, binary("mul", cast(index, "i64"), stride))
            scope.known[key] = lowering.assign(scope, f"{result.name}_base", start)
        kind = lowering.offset_type
        offset: ir.Expr = Const(0, kind)
        for index, stride in zip(indices, strides[-len(indices) :], strict=True):
            offset = binary("add", offset, binary("mul", cast(index, kind), cast(stride, kind)))
        return scope.known[key], offset


def remarks(*phases: tuple[str, Sequence[ir.Statement]]) -> tuple[ir.Statement, ...]:
    """Statements under comments, those of empty phases left out."""
    return tuple(item for text, body in phases if body for item in (ir.Remark(text), *body))
