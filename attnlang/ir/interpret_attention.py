"""Evaluation of attentions: visibility, scores, the steps of the normalizer, weights, statistics and result."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlang.ir import thresholds
from attnlang.ir.interpret_expr import Expressions
from attnlang.ir.interpret_reduce import weighted_sum
from attnlang.ir.interpret_scope import Scope, Stages
from attnlang.ir.interpret_values import Ranges, Value, beside, both, narrow, union, where
from attnlang.ir.pattern import Attention, Axis, Expr, Formula, Read, Reduce, Threshold, storage
from attnlang.ir.stabilize import inline, stabilize
from attnlang.ir.walk import parts_of, reads_of, replace_reads

ROW_PARTS = ("lse", "max", "count")
"""The parts of an attention that are over its rows alone."""


class Attentions:
    """Attentions by parts; every part asks the store for those it is made of."""

    def __init__(self, expressions: Expressions, stages: Stages) -> None:
        self.expressions = expressions
        self.stages = stages
        self._formulas: dict[tuple[str, int], Expr] = {}

    def value(self, stage: Attention, part: str, ranges: Ranges) -> Value:
        """The result or a part of an attention, for the given ranges of its axes."""
        rows = {axis: ranges[axis] for axis in stage.rows}
        if part in ("", *ROW_PARTS) or part.startswith("count@"):
            return self._row_part(stage, part, rows, ranges)
        pointwise = part in ("scores", "step0", "visible@0") or (part == "visible" and not _narrows(stage))
        whole = (0, self.expressions.size(stage.over))
        if ranges[stage.over] != whole and not pointwise:
            value = self.stages.value(f"{stage.name}.{part}", (*rows.values(), whole))
            return narrow(value, stage.over, *ranges[stage.over])
        return self._pair_part(stage, part, rows, ranges)

    def _part(self, stage: Attention, part: str, rows: Ranges) -> Value:
        """A part over the given rows and all of `over`."""
        return self.stages.value(
            f"{stage.name}.{part}", (*rows.values(), (0, self.expressions.size(stage.over)))
        )

    def _row_part(self, stage: Attention, part: str, rows: Ranges, ranges: Ranges) -> Value:
        if part == "":
            return self._result(stage, rows, ranges)
        suffix = part.partition("@")[2] or str(len(stage.normalize))
        visible = self._part(stage, f"visible@{suffix}", rows)
        scope = Scope(rows)
        if part.startswith("count"):
            size = self.expressions.length(stage.over, scope)
            if stage.over not in visible.axes:
                return Value(visible.tensor.to(torch.int64) * size, visible.axes)
            dim = visible.axes.index(stage.over)
            return Value(visible.tensor.sum(dim), tuple(axis for axis in visible.axes if axis != stage.over))
        scores = self._part(stage, "scores", rows)
        axes = tuple(
            axis for axis in (*stage.rows, stage.over) if axis in (*union((scores, visible)), stage.over)
        )
        score, seen = (
            self.expressions.spread(value, axes, scope, (stage.over,)) for value in (scores, visible)
        )
        if part == "lse":
            return Value(thresholds.masked_logsumexp(score, seen).squeeze(-1), axes[:-1])
        if score.shape[-1] == 0:
            return Value(
                torch.full(score.shape[:-1], -torch.inf, dtype=score.dtype, device=score.device), axes[:-1]
            )
        return Value(torch.where(seen, score, -torch.inf).amax(-1), axes[:-1])

    def _result(self, stage: Attention, rows: Ranges, ranges: Ranges) -> Value:
        weights = self._part(stage, "weights", rows)
        visible = self._part(stage, f"visible@{len(stage.normalize)}", rows)
        scope = Scope({**rows, stage.feature: ranges[stage.feature]})
        return weighted_sum(self.expressions, (stage.value,), (weights,), visible, (stage.over,), scope)

    def _pair_part(self, stage: Attention, part: str, rows: Ranges, ranges: Ranges) -> Value:
        scope = Scope({**rows, stage.over: ranges[stage.over]})
        last = len(stage.normalize)
        if part in ("scores", "step0"):
            return self.expressions.floats(stage.score, scope)
        if part == "visible":
            return self._part(stage, f"visible@{last}", rows) if _narrows(stage) else self._seen(stage, scope)
        if part.startswith("visible@"):
            return self._visible(stage, int(part.removeprefix("visible@")), rows, scope)
        if part.startswith("step"):
            steps = int(part.removeprefix("step"))
            return self._held(stage, part, steps, self._step(stage, steps, rows, scope), rows)
        if part == "normalized":
            return self._held(stage, part, last, self._part(stage, f"step{last}", rows), rows)
        if part == "weights":
            return self._weights(stage, rows, scope)
        raise ValueError(f"an attention has no part called {part}")

    def _held(self, stage: Attention, part: str, steps: int, value: Value, rows: Ranges) -> Value:
        """Values after some steps, 0 where hidden if the attention reads them at the pairs of other rows."""
        return (
            where(self._part(stage, f"visible@{steps}", rows), value, 0) if _crosses(stage, part) else value
        )

    def _seen(self, stage: Attention, scope: Scope) -> Value:
        mask = self.expressions.condition(stage.mask, scope)
        return both(mask, self.expressions.condition(stage.sparsity, scope))

    def _visible(self, stage: Attention, steps: int, rows: Ranges, scope: Scope) -> Value:
        """What is seen after the first steps: `top` hides all but the largest."""
        if steps == 0:
            return self._seen(stage, scope)
        before = self._part(stage, f"visible@{steps - 1}", rows)
        step = stage.normalize[steps - 1]
        if not (isinstance(step, Threshold) and step.kind == "top"):
            return before
        scores = self._part(stage, f"step{steps - 1}", rows)
        amount = self.expressions.evaluate(step.amount, Scope(rows))
        axes = self._row_axes(stage, (scores, before, amount))
        by, seen = self._spread(stage, (scores, before), axes, scope)
        limit = beside(amount, axes[:-1])
        with torch.no_grad():
            return Value(thresholds.top(by, seen, torch.zeros_like(seen), limit), axes)

    def _spread(
        self, stage: Attention, values: tuple[Value, Value], axes: tuple[Axis, ...], scope: Scope
    ) -> tuple[Tensor, Tensor]:
        """Scores and visibility over the same axes, `over` last."""
        first, second = values
        last = (stage.over,)
        spread = self.expressions.spread
        return spread(first, axes, scope, last), spread(second, axes, scope, last)

    def _row_axes(self, stage: Attention, values: tuple[Value, ...]) -> tuple[Axis, ...]:
        found = union(values)
        return (*(axis for axis in stage.rows if axis in found), stage.over)

    def _step(self, stage: Attention, steps: int, rows: Ranges, scope: Scope) -> Value:
        """The values after the first `steps` steps."""
        step = stage.normalize[steps - 1]
        before = self._part(stage, f"step{steps - 1}", rows)
        seen = self._part(stage, f"visible@{steps - 1}", rows)
        match step:
            case Threshold("top"):
                return before
            case Threshold("sinkhorn"):
                return self._sinkhorn(stage, step, steps, rows)
            case Formula(_, "softmax"):
                axes = self._row_axes(stage, (before, seen))
                score, visible = (
                    self.expressions.spread(value, axes, scope, (stage.over,)) for value in (before, seen)
                )
                return Value(thresholds.masked_softmax(score, visible), axes)
            case Formula():
                return self.expressions.floats(self._formula(stage, steps - 1), scope)
            case Threshold():
                return self._entmax(stage, step, before, seen, rows)

    def _formula(self, stage: Attention, index: int) -> Expr:
        """The body of a formula, with exponentials that cannot overflow; those of the formula before it as well,
        where only the two together allow it (exp(s) | s / sum(s))."""
        key = (stage.name, index)
        if key not in self._formulas:
            at = tuple(storage(axis) for axis in (*stage.rows, stage.over))
            visible = Read(f"{stage.name}.visible@{index}", at, "bool")
            body = self._body(stage, index, index)
            both = self._with_the_one_before(stage, index, body)
            shifted = None if both is None else stabilize(both, stage.over, visible)
            self._formulas[key] = shifted or stabilize(body, stage.over, visible) or body
        return self._formulas[key]

    def _body(self, stage: Attention, index: int, seen: int) -> Expr:
        """A formula as written, over what is visible after the first `seen` steps."""
        step = stage.normalize[index]
        assert isinstance(step, Formula)
        names = {f"{stage.name}.{part}": f"{stage.name}.{part}@{seen}" for part in ("visible", "count")}
        return replace_reads(step.body, names)

    def _with_the_one_before(self, stage: Attention, index: int, body: Expr) -> Expr | None:
        before = stage.normalize[index - 1] if index else None
        if not isinstance(before, Formula) or before.kind == "softmax" or _crosses(stage, f"step{index}"):
            return None
        if any(isinstance(part, Reduce) for part in parts_of(before.body)):
            return None
        axes = (*stage.rows, stage.over)
        return inline(body, f"{stage.name}.step{index}", axes, self._body(stage, index - 1, index))

    def _entmax(self, stage: Attention, step: Threshold, before: Value, seen: Value, rows: Ranges) -> Value:
        scope = Scope(rows)
        one = Value(torch.tensor(2.0, dtype=before.tensor.dtype, device=before.tensor.device))
        amount = one if step.kind == "sparsemax" else self.expressions.floats(step.amount, scope)
        axes = self._row_axes(stage, (before, seen, amount))
        score, visible = (
            self.expressions.spread(value, axes, scope, (stage.over,)) for value in (before, seen)
        )
        return Value(thresholds.entmax(score, visible, beside(amount, axes[:-1])), axes)

    def _sinkhorn(self, stage: Attention, step: Threshold, steps: int, rows: Ranges) -> Value:
        """Over all queries at once: their sums take part."""
        query = stage.rows[-1]
        every = {**rows, query: (0, self.expressions.size(query))}
        if every != rows:
            value = self.stages.value(
                f"{stage.name}.step{steps}", (*every.values(), (0, self.expressions.size(stage.over)))
            )
            return narrow(value, query, *rows[query])
        scope = Scope(rows)
        before, seen = (self._part(stage, f"{part}{steps - 1}", rows) for part in ("step", "visible@"))
        found = union((before, seen))
        axes = (*(axis for axis in stage.rows[:-1] if axis in found), query, stage.over)
        score, visible = (
            self.expressions.spread(value, axes, scope, (stage.over,)) for value in (before, seen)
        )
        return Value(thresholds.sinkhorn(score, visible, self.expressions.number(step.amount)), axes)

    def _weights(self, stage: Attention, rows: Ranges, scope: Scope) -> Value:
        last = len(stage.normalize)
        if stage.reweight is None:
            weights = self._part(stage, f"step{last}", rows)
        else:
            weights = self.expressions.floats(stage.reweight, scope)
        return where(self._part(stage, f"visible@{last}", rows), weights, 0)


def _narrows(stage: Attention) -> bool:
    """Whether the normalizer hides entries: then the visibility depends on the scores."""
    return any(isinstance(step, Threshold) and step.kind == "top" for step in stage.normalize)


def _crosses(stage: Attention, part: str) -> bool:
    """Whether a formula or the reweight reads a part at other rows, as in w[m]: another head's pair may be hidden
    where one's own is seen."""
    source, own = f"{stage.name}.{part}", tuple(storage(axis) for axis in stage.rows)
    bodies = [step.body for step in stage.normalize if isinstance(step, Formula)]
    bodies += [] if stage.reweight is None else [stage.reweight]
    reads = (read for body in bodies for read in reads_of(body) if read.source == source)
    return any(read.at[: len(own)] != own for read in reads)
