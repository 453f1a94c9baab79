"""What a kernel of the backward pass does with a tile of pairs: weights again, their gradients, and matrix products.

p = exp2(score · log2 e − lse · log2 e);  ds = p · (factor · dout·value − delta);  then for each gradient the sums that
its derivative consists of (`derivative_parts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import Const, Var
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    TRUE,
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    storage,
)  # fmt: skip
from attnlang.ir.rewrite import conjunction, simplify
from attnlang.ir.stabilize import renamed
from attnlang.passes.algebra import factors, scaled
from attnlang.passes.derivative import feature_axis, gradient, with_feature
from attnlang.passes.derivative_parts import UNIT, Part, parts
from attnlang.passes.lower_attention import LOG2E, MINUS_INFINITY
from attnlang.passes.lower_backward_frame import Frame, Result
from attnlang.passes.lower_columns import ALWAYS
from attnlang.passes.reweight import factor_of
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary, cast, elementwise, weight

P, DS, WEIGHT, DFACTOR = "p", "ds", "weight", "dfactor"
INFINITY = Literal(float("inf"))
TILE = ("M", "N")


@dataclass(frozen=True)
class Sum:
    """One part of a gradient, and where its sum is kept between tiles: a tile, or a number for each own token."""

    part: Part
    feature: Axis
    total: Var


class Pairs:
    """Expressions over a pair of query and key, and the statements for a tile of them."""

    def __init__(self, frame: Frame, facts: Facts) -> None:
        self.frame = frame
        self.facts = facts
        attention = frame.attention
        self.attention = attention
        query, key = attention.rows[-1], attention.over
        at = (Index(BATCH), Index(HEAD), storage(query), storage(key))
        self.p, self.ds, self.weight, self.dfactor = (
            Read(f"{name} of a pair", at) for name in (P, DS, WEIGHT, DFACTOR)
        )
        self.factor = factor_of(attention)
        size = frame.specialization.head_dim
        self.features = {tensor: feature_axis(tensor, attention, size) for tensor in "QKV"}
        frame.lowering.used_names |= {
            axis.name for axis in self.features.values()
        }  # their axes are lanes, no loops
        product = Apply("mul", (frame.read("dout", attention.feature), attention.value))
        self.dp = Reduce("sum", (attention.feature,), product)
        self.score = with_feature(attention.score, self.features["Q"])

    # -------------------------------------------------------------------------------------- derivatives

    def terms(self, tensor: str) -> tuple[Expr, ...]:
        """What each pair adds to the gradient by a tensor."""
        feature = self.features[tensor]
        found = gradient(self.score, self.ds, tensor, feature, self.facts)
        if self.factor is not None:
            found += gradient(self.factor, self.dfactor, tensor, feature, self.facts)
        return found + gradient(self.dp, self.weight, tensor, feature, self.facts)

    def parts(self, tensor: str) -> tuple[Part, ...]:
        """The same as sums over the tokens that do not index the gradient."""
        query, key = self.attention.rows[-1], self.attention.over
        kept, summed = (query, key) if tensor == "Q" else (key, query)
        return parts(self.terms(tensor), kept, summed, self.features[tensor])

    def sums(self, tensor: str) -> list[Sum]:
        """A running sum for each part of the gradient of an own token."""
        feature = self.features[tensor]
        dim = self.dimension(feature)
        found: list[Sum] = []
        for part in self.parts(tensor):
            shape = ("M",) if part.is_row else ("M", dim)
            name = self.frame.lowering.fresh(f"d{tensor.lower()}")
            found.append(Sum(part, feature, Var(name, "fp32", shape)))
        return found

    def dimension(self, feature: Axis) -> str:
        """The dimension of tiles along a feature axis."""
        size = feature.size
        assert isinstance(size, Literal)
        dim = self.frame.lowering.dimension(feature, int(size.value))
        self.frame.lowering.lanes[feature] = dim
        return dim

    # ------------------------------------------------------------------------------------------- a tile

    def place(self, scope: Scope, masked: bool, also: ir.Expr | None) -> None:
        """The weights of a tile of pairs and the gradients by score and factor. `also`: pairs count only where it
        holds, if masked."""
        lowering = self.frame.lowering
        moving = frozenset((self.attention.rows[-1], self.attention.over))
        delta = self.frame.read("delta")
        shift = lowering.lower(self._shift(), scope)
        shift = shift if isinstance(shift, Var) else lowering.assign(scope, "shift", shift)
        score = cast(lowering.lower(simplify(scaled(self.score, LOG2E, moving)), scope), "fp32")
        if masked:
            shown = self._shown(scope, also)
            score = elementwise("where", [shown, score, Const(MINUS_INFINITY, "fp32")], "fp32")
        exponent = binary("sub", score, shift)
        if exponent.shape != TILE:
            exponent = ir.Op("spread", (exponent,), "fp32", TILE)
        self._name(scope, self.p, "p", elementwise("exp2", [exponent], "fp32"))
        weighted = self.p if self.factor is None else Apply("mul", (self.p, self.factor))
        self._name(scope, self.weight, "weights", lowering.lower(weighted, scope))
        lowering.lower(delta, scope)
        upward: Expr = self.dp if self.factor is None else Apply("mul", (self.factor, self.dp))
        slope = Apply("sub", (upward, delta))
        self._name(scope, self.ds, "ds", lowering.lower(Apply("mul", (self.p, slope)), scope))
        if self.factor is not None:
            self._name(scope, self.dfactor, "dfactor", lowering.lower(Apply("mul", (self.p, self.dp)), scope))

    def _shift(self) -> Expr:
        """lse · log2 e; +inf for a row that sees nothing, whose weights are 0."""
        lse = self.frame.read("lse")
        empty = Apply("eq", (lse, Literal(MINUS_INFINITY)))
        return Apply("mul", (Apply("where", (empty, INFINITY, lse)), Literal(LOG2E)))

    def _shown(self, scope: Scope, also: ir.Expr | None) -> ir.Expr:
        lowering = self.frame.lowering
        visible = conjunction(self.attention.mask, self.attention.sparsity)
        shown = scope.known.get(("tail", self.frame.other), ALWAYS)
        if visible != TRUE:
            shown = binary("and", lowering.lower(visible, scope), shown)
        if also is not None:
            shown = binary("and", shown, also)
        return lowering.assign(scope, "visible", shown) if weight(shown) > 1 else shown

    def _name(self, scope: Scope, read: Read, hint: str, value: ir.Expr) -> None:
        """Makes `read` stand for a value of the tile."""
        if value.shape != TILE:
            value = ir.Op("spread", (value,), value.type, TILE)
        named = (
            value if isinstance(value, Var) else self.frame.lowering.assign(scope, hint, cast(value, "fp32"))
        )
        scope.known[read, ()] = named

    # --------------------------------------------------------------------------------------------- sums

    def add(self, scope: Scope, item: Sum) -> None:
        """The running sum of an own token takes in a tile."""
        lowering, part, total = self.frame.lowering, item.part, item.total
        if part.mixed:
            self._each_feature(scope, item.part, item.feature, total)
            return
        weights = self._tile(part.weight, scope)
        if part.is_row:
            value = binary("add", total, ir.Fold("sum", weights, "N", "fp32", ("M",)))
        else:
            vector = lowering.operand(factors(part.vector), scope)
            value = ir.Dot(cast(weights, vector.type), vector, "N", "fp32", total.shape, total)
        scope.statements.append(ir.Assign(total.name, value))

    def _tile(self, expr: Expr, scope: Scope) -> ir.Expr:
        value = cast(self.frame.lowering.lower(expr, scope), "fp32")
        return value if value.shape == TILE else ir.Op("spread", (value,), "fp32", TILE)

    def _each_feature(self, scope: Scope, part: Part, feature: Axis, total: Var) -> None:
        """A sum in which query, key and feature are mixed: one feature after the other."""
        inner, counter, column = self._column(scope, part, feature, "N")
        dim = total.shape[-1]
        here = binary("eq", ir.Lanes(dim), counter)
        added = elementwise("where", [here, binary("add", total, column), total], "fp32")
        inner.statements.append(ir.Assign(total.name, added))
        self._end(scope, inner, counter, feature)

    def _column(self, scope: Scope, part: Part, feature: Axis, over: str) -> tuple[Scope, Var, ir.Expr]:
        """A loop over the features, and in it the sum for one of them."""
        lowering = self.frame.lowering
        weights = self._tile(part.weight, scope)
        axis = replace(feature, name=lowering.fresh(feature.name, scope), role="range")
        inner = Scope(frozenset((axis,)), scope)
        counter = Var(axis.name, "i32")
        inner.known[axis] = counter
        vector = lowering.lower(renamed(part.vector, {feature: axis}), inner)
        product = (
            cast(vector, "fp32") if part.weight == UNIT else binary("mul", weights, cast(vector, "fp32"))
        )
        left = "M" if over == "N" else "N"
        column = lowering.assign(inner, "column", ir.Fold("sum", product, over, "fp32", (left,)))
        return inner, counter, column

    def _end(self, scope: Scope, inner: Scope, counter: Var, feature: Axis) -> None:
        assert isinstance(feature.size, Literal)
        stop = Const(int(feature.size.value), "i32")
        scope.statements.append(ir.Loop(counter.name, Const(0, "i32"), stop, tuple(inner.statements)))

    # ------------------------------------------------------------------------------------------ results

    def total(self, scope: Scope, sums: Sequence[Sum], tensor: str) -> ir.Expr:
        """The gradient of the own tokens from the sums over all tiles."""
        wide = ("M", self.dimension(self.features[tensor]))
        result: ir.Expr | None = None
        for item in sums:
            value = self._outer(scope, item.part, item.total)
            result = value if result is None else binary("add", result, value)
        assert result is not None
        return result if result.shape == wide else ir.Op("spread", (result,), "fp32", wide)

    def _outer(self, scope: Scope, part: Part, value: ir.Expr) -> ir.Expr:
        if part.outer == UNIT:
            return value
        return binary("mul", value, cast(self.frame.lowering.lower(part.outer, scope), "fp32"))

    def scatter(self, scope: Scope, result: Result, mask: ir.Expr) -> None:
        """A tile's share in the gradient of the tokens walked over is added to it in memory."""
        tensor = result.name[1:]
        frame, lowering, feature = self.frame, self.frame.lowering, self.features[tensor]
        dim = self.dimension(feature)
        at = scope.known["storage", frame.other]
        whole: ir.Expr | None = None
        for part in self.parts(tensor):
            if part.mixed:
                inner, counter, column = self._column(scope, part, feature, "M")
                outer = renamed(part.outer, {feature: next(iter(inner.axes))})
                value = self._outer(inner, replace(part, outer=outer), column)
                frame.store(inner, result, value, (at, counter), mask)
                self._end(scope, inner, counter, feature)
                continue
            weights = self._tile(part.weight, scope)
            if part.is_row:
                share: ir.Expr = ir.Fold("sum", weights, "M", "fp32", ("N",))
            else:
                vector = lowering.operand(factors(part.vector), scope)
                share = ir.Dot(cast(weights, vector.type), vector, "M", "fp32", ("N", dim))
            value = self._outer(scope, part, lowering.assign(scope, f"d{tensor.lower()}", share))
            whole = value if whole is None else binary("add", whole, value)
        if whole is not None:
            if dim not in whole.shape:
                whole = ir.Op("spread", (whole,), "fp32", ("N", dim))
            frame.store(scope, result, whole, (at, ir.Lanes(dim)), mask)
