"""One softmax attention → the kernels of its backward pass: dQ, dK and dV from dout, lse and delta.

The weights are computed again from the scores and the saved lse. Three forms share all of their statements:

- `lower_delta`: delta = Σ dout · out − dlse for every row, which the others subtract from each row's gradients;
- "split": one kernel over tiles of queries for dQ, one over tiles of keys for dK and dV. Every element is written
  once, by one program, so that the result is the same each time;
- "fused": one kernel over tiles of keys for all three, with five matrix products for a tile instead of seven. A
  program owns many tiles and adds to its share of dQ.

In every kernel "M" is the tokens that a program owns and "N" those it walks over. A kernel that owns keys computes its
scores as K · Qᵀ, so that no product takes the transpose of another product: Triton 3.4 to 3.7.0 miscompile that on
Hopper. Only the dQ of "fused" needs it, which is for targets without Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal as OneOf

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import Apply, Attention, Axis, Expr, Reduce
from attnlang.ir.plan import Band, Specialization, Tile, WalkKind
from attnlang.passes.lower_attention import Arguments
from attnlang.passes.lower_backward_frame import Frame, Result, remarks
from attnlang.passes.lower_backward_pairs import Pairs, Sum
from attnlang.passes.lower_backward_walk import (
    ColumnQueryWalk,
    ListQueryWalk,
    QueryWalk,
    UnitQueryWalk,
    heavy_last,
)
from attnlang.passes.lower_columns import ColumnWalk, UnitWalk, any_width
from attnlang.passes.lower_walk import Keys, ListWalk, RangeWalk, Walk
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary

Form = OneOf["split", "fused"]


def lower_delta(
    name: str, banner: tuple[str, ...], attention: Attention, rows: int, arguments: Arguments, facts: Facts,
    specialization: Specialization, lse_gradient: bool,
) -> ir.Kernel:  # fmt: skip
    """delta [B, H, NQ] float32 from out and dout [B, H, NQ, DV], and dlse [B, H, NQ] float32 if `lse_gradient`."""
    result = Result("delta", "fp32", axes=3)
    query = attention.rows[-1]
    tile = Tile(rows, 1, 4, 1)
    frame = Frame(attention, query, attention.over, tile, arguments, facts, specialization)
    lowering = frame.lowering
    walk = RangeWalk(lowering, frame.program, attention, (), tile, False, facts)
    number, tiles, pair = frame.place_program(walk.tiles(), shared=False)
    found = walk.queries(binary("add", walk.place(number, tiles, pair), ir.Lanes("M")), frame.rows)
    frame.place_own(found.at, found.exists)
    feature = attention.feature
    product = Apply("mul", (frame.read("dout", feature), frame.read("out", feature)))
    delta: Expr = Reduce("sum", (feature,), product)
    if lse_gradient:
        delta = Apply("sub", (delta, frame.read("dlse")))
    value = lowering.lower(delta, frame.rows)
    frame.store(frame.rows, result, value, (frame.own_at,), found.exists)
    body = remarks(
        ("this program's head and tile of queries", frame.program.statements),
        ("what each row's gradients are less", frame.rows.statements),
    )
    return frame.kernel(name, banner, body, (result,), None)


def lower_backward(
    name: str, banner: tuple[str, ...], attention: Attention, bands: tuple[Band, ...], tiles: tuple[Tile, Tile],
    arguments: Arguments, facts: Facts, specialization: Specialization, *, form: Form = "split",
    grouped: bool = False, wanted: str = "QKV", walk: WalkKind = "ranges",
) -> tuple[ir.Kernel, ...]:  # fmt: skip
    """The kernels of a backward pass. `bands`: those of the forward pass; `tiles`: of programs that own queries and of
    those that own keys; `rows` of a tile are the tokens that a program owns.

    Arguments, all with strides in elements, the innermost 1: the tensors the attention reads; `dout` [B, H, NQ, DV] of
    the type of Q; `lse` and `delta` [B, H, NQ] float32; and what is written:

    - `dQ` [B, H, NQ, D] of the type of Q; in "fused" [shares, B, H, NQ, D] float32, filled with zeros before;
    - `dK` [B, HK, NK, D] and `dV` [B, HK, NK, DV] of the types of K and V; `grouped`, for H > HK: [B, H, NK, …]
      float32, of which the caller adds up the heads of a group.

    A tensor on which the result does not depend is not written, and a kernel that would write nothing is left out.
    Programs are numbered tile + tiles · (b · H + h). In "fused" they are numbered share + shares · (b · H + h): each
    owns the tiles share, share + shares, … of its head and alone adds to its share of dQ, which the caller sums up, so
    that programs are independent and give the same result each time. By lists (`walk`), those of the kernel over keys
    are of key tiles, each with the query tiles that visit it.
    """
    build = _Build(name, banner, attention, arguments, facts, specialization, grouped)
    query, key = attention.rows[-1], attention.over
    first, last = ("Q" if "Q" in wanted else ""), "".join(tensor for tensor in "KV" if tensor in wanted)

    def keys_of(frame: Frame) -> Walk:
        free = any_width(specialization.target, frame.tile.rows)
        if walk != "ranges":
            kind = UnitWalk if free else ListWalk
            return kind(frame.lowering, frame.program, frame.tile, walk == "ordered")
        heavy = heavy_last(bands, query, facts)
        kind = ColumnWalk if free else RangeWalk
        return kind(frame.lowering, frame.program, attention, bands, frame.tile, heavy, facts)

    def queries_of(frame: Frame) -> Walk:
        fused, free = form == "fused", any_width(specialization.target, frame.tile.rows)
        if walk != "ranges":
            kind = UnitQueryWalk if free else ListQueryWalk
            return kind(frame.lowering, frame.program, frame.tile, walk == "ordered", whole=fused)
        kind = ColumnQueryWalk if free else QueryWalk
        return kind(frame.lowering, frame.program, attention, frame.tile, facts, whole=fused)

    if form == "fused":
        found = [build.kernel("", key, query, tiles[1], queries_of, kept=last, scattered=first)]
    else:
        found = [
            build.kernel("_queries", query, key, tiles[0], keys_of, kept=first),
            build.kernel("_keys", key, query, tiles[1], queries_of, kept=last),
        ]
    return tuple(kernel for kernel in found if kernel is not None)


@dataclass(frozen=True)
class _Build:
    """What the kernels of one backward pass have in common."""

    name: str
    banner: tuple[str, ...]
    attention: Attention
    arguments: Arguments
    facts: Facts
    specialization: Specialization
    grouped: bool

    def kernel(
        self, suffix: str, own: Axis, other: Axis, tile: Tile, walk_of: Callable[[Frame], Walk], *,
        kept: str, scattered: str = "",
    ) -> ir.Kernel | None:  # fmt: skip
        """The kernel whose programs own a tile of `own`: it keeps the gradients of `kept` in registers, and adds to
        that of `scattered` in memory. None where the attention depends on none of them."""
        frame = Frame(self.attention, own, other, tile, self.arguments, self.facts, self.specialization)
        pairs = Pairs(frame, self.facts)
        sums = {tensor: found for tensor in kept if (found := pairs.sums(tensor))}
        scatters = [tensor for tensor in scattered if pairs.parts(tensor)]
        if not sums and not scatters:
            return None
        walk = walk_of(frame)
        number, tiles, pair = frame.place_program(walk.tiles(), shared=bool(scatters))
        lanes = binary("add", walk.place(number, tiles, pair), ir.Lanes("M"))
        found = walk.queries(lanes, frame.rows)
        frame.place_own(found.at, found.exists)
        results = {tensor: self._result(tensor, tensor in scatters) for tensor in (*sums, *scatters)}
        loops: list[ir.Statement] = []
        for keys in walk.loops():
            told = (
                "partial tiles: the mask is applied" if keys.masked else "full tiles: every pair is visible"
            )
            loops += [ir.Remark(told), self._loop(pairs, walk, keys, sums, [results[t] for t in scatters])]
        ending = Scope(frozenset(), frame.rows)
        places = (lanes if walk.in_order else frame.own_at,)
        for tensor, own_sums in sums.items():
            value = pairs.total(ending, own_sums, tensor)
            dim = value.shape[-1]
            result = results[tensor]
            frame.store(ending, result, value, (*places, ir.Lanes(dim)), frame.own_exists)
        start = [
            ir.Assign(item.total.name, ir.Full(0.0, "fp32", item.total.shape))
            for items in sums.values()
            for item in items
        ]
        whose = "queries" if own == self.attention.rows[-1] else "keys"
        body = remarks(
            (f"this program's head and tile of {whose}", frame.program.statements),
            (f"what depends on the {whose} alone", frame.rows.statements),
            ("sums over all tiles", start),
        )
        end = remarks(("store", ending.statements))
        whole = frame.whole((*body, *loops, *end))
        return frame.kernel(f"{self.name}{suffix}", self.banner, whole, [*results.values()], walk)

    def _loop(
        self, pairs: Pairs, walk: Walk, keys: Keys, sums: Mapping[str, list[Sum]], scatters: list[Result]
    ) -> ir.Loop:
        frame = pairs.frame
        scope, counter = frame.loop()
        exists = frame.place_others(scope, walk, keys.lanes(scope, counter), keys.masked)
        pairs.place(scope, keys.masked, frame.own_exists if scatters else None)
        for items in sums.values():
            for item in items:
                pairs.add(scope, item)
        for result in scatters:
            pairs.scatter(scope, result, exists)
        frame.lowering.end_loop()
        columns = None if keys.columns is None else keys.columns(counter)
        body = tuple(scope.statements)
        return ir.Loop(counter.name, keys.start, keys.stop, body, pipelined=True, columns=columns)

    def _result(self, tensor: str, shared: bool) -> Result:
        kind = self.arguments.tensors[tensor][0]
        if tensor == "Q":
            return Result("dQ", "fp32" if shared else kind, axes=5 if shared else 4, shared=shared)
        return Result(f"d{tensor}", "fp32" if self.grouped else kind, keyed=not self.grouped)
