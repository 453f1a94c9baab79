"""The meaning of a pattern: its output, lse and weights by dense evaluation in torch.

In float64 this is the reference that every pass and backend is held against; in other types it is the target
`eager`, differentiable by autograd in Q, K, V and every float tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from attnlang.errors import Diagnostic
from attnlang.ir.interpret_chunks import chunks
from attnlang.ir.interpret_expr import Expressions
from attnlang.ir.interpret_scope import Scope
from attnlang.ir.interpret_stages import StageValues
from attnlang.ir.interpret_states import seen_through_states
from attnlang.ir.interpret_values import Range, Value, anywhere, expand
from attnlang.ir.pattern import KEY, Attention, Axis, Let, Merge, Pattern, Read, storage
from attnlang.ir.walk import reads_of, stage_expressions

BUDGET = 2**30
"""Bytes of intermediates that a call without gradients stays within, roughly."""


class NoKeyAttention(Diagnostic):
    """A mask was asked of a pattern that has no attention of queries over keys."""

    code = "E391"
    message = "pattern '{pattern}' has no mask: none of its attentions lets queries see keys"


class MissingInput(Diagnostic):
    """A mask or table depends on a tensor that was not given."""

    code = "E392"
    message = "the {what} of '{pattern}' depends on {tensor}, which was not given"
    hint = "pass {tensor}"


@dataclass(frozen=True)
class Inputs:
    """A call. q [B, H, NQ, D], k [B, HK, NK, D], v [B, HK, NK, DV] (None where only masks or tables are asked that
    do not need them); `sizes` B H HK NQ NK D DV; `scalars` q_offset, scale and the parameters; the declared tensors."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor | None
    sizes: Mapping[str, int]
    scalars: Mapping[str, int | float | bool]
    tensors: Mapping[str, Tensor]

    def everything(self) -> dict[str, Tensor]:
        """All tensors by the names patterns read them by."""
        given = {"Q": self.q, "K": self.k, "V": self.v}
        return {**self.tensors, **{name: tensor for name, tensor in given.items() if tensor is not None}}

    def device(self) -> torch.device:
        """Where the call computes."""
        return next((tensor.device for tensor in self.everything().values()), torch.device("cpu"))


@dataclass(frozen=True)
class Result:
    """out [B, H, NQ, DV] (empty unless wanted); lse [B, H, NQ] and weights [B, H, NQ, entries] of the pattern's
    result, None unless wanted."""

    out: Tensor
    lse: Tensor | None = None
    weights: Tensor | None = None


class _Evaluation:
    """One call of a pattern."""

    def __init__(self, pattern: Pattern, inputs: Inputs, dtype: torch.dtype) -> None:
        self.pattern = pattern
        self.dtype = dtype
        self.compute = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        symbols = {**inputs.sizes, **inputs.scalars}
        self.expressions = Expressions(inputs.everything(), symbols, self.compute, inputs.device())
        self.stages = StageValues(pattern, self.expressions)

    def size(self, axis: Axis) -> int:
        return self.expressions.size(axis)

    def over(self, value: Value, axes: tuple[Axis, ...], ranges: Mapping[Axis, Range]) -> Tensor:
        """The value over exactly these axes."""
        scope = Scope(ranges)
        return expand(value, axes, [self.expressions.length(axis, scope) for axis in axes])

    def wanted(self, want: frozenset[str]) -> dict[str, tuple[Read | None, tuple[Axis, ...], torch.dtype]]:
        """For each part of the result: what to read (None: the output), its axes and its type."""
        found: dict[str, tuple[Read | None, tuple[Axis, ...], torch.dtype]] = {}
        if "out" in want:
            found["out"] = (None, self.pattern.axes, self.dtype)
        stage = self.stages.stages.get(self.pattern.result)
        rows = self.pattern.axes[:3]
        at = tuple(storage(axis) for axis in rows)
        if "lse" in want and (isinstance(stage, Merge) or (isinstance(stage, Attention) and stage.has_lse)):
            found["lse"] = (Read(f"{stage.name}.lse", at), rows, self.compute)
        if "weights" in want and isinstance(stage, Attention):
            read = Read(f"{stage.name}.weights", (*at, storage(stage.over)))
            found["weights"] = (read, (*rows, stage.over), self.dtype)
        return found

    def part(self, read: Read | None, axes: tuple[Axis, ...], ranges: Mapping[Axis, Range]) -> Tensor:
        expr = self.pattern.output if read is None else read
        return self.over(self.expressions.floats(expr, Scope(ranges)), axes, ranges)


def evaluate(
    pattern: Pattern, inputs: Inputs, *, dtype: torch.dtype, want: frozenset[str] = frozenset(("out",))
) -> Result:
    """The pattern at the inputs, computed in `dtype` (half types: in float32, `out` and `weights` rounded).

    `want`: which of 'out', 'lse', 'weights' are computed; lse and weights stay None where the pattern has no single
    softmax or attention as its result. Without gradients the output is computed in pieces within `BUDGET` bytes.
    """
    evaluation = _Evaluation(pattern, inputs, dtype)
    parts = evaluation.wanted(want)
    differentiable = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in inputs.everything().values()
    )
    if differentiable:
        found = {name: evaluation.part(read, axes, {}).to(kind) for name, (read, axes, kind) in parts.items()}
        return _result(found, inputs)
    found = {
        name: torch.empty([evaluation.size(axis) for axis in axes], dtype=kind, device=inputs.device())
        for name, (_, axes, kind) in parts.items()
    }
    with torch.no_grad():
        width = torch.finfo(evaluation.compute).bits // 8
        for ranges in chunks(pattern, evaluation.size, BUDGET, width):
            evaluation.stages.forget(ranges)
            places = tuple(slice(*ranges[axis]) for axis in pattern.axes[:3])
            for name, (read, axes, _) in parts.items():
                found[name][places] = evaluation.part(read, axes, ranges).to(found[name].dtype)
    return _result(found, inputs)


def _result(found: dict[str, Tensor], inputs: Inputs) -> Result:
    empty = torch.empty(0, device=inputs.device())
    return Result(found.get("out", empty), found.get("lse"), found.get("weights"))


def visible(pattern: Pattern, inputs: Inputs) -> Tensor:
    """What mask and sparsity let queries see of the keys: bool [B or 1, H or 1, NQ, NK], 1 where nothing depends on it.

    What a normalizer hides further is seen here. Several attentions over the keys, or one with rows besides the
    queries: what any of them sees. States have seen the keys up to where they are read. Raises NoKeyAttention where
    there is neither, MissingInput where the visibility depends on a tensor that was not given (Q and K of a
    content-routed pattern).
    """
    rows = pattern.axes[:3]
    attentions = [
        stage
        for stage in pattern.stages
        if isinstance(stage, Attention) and stage.over.role == "key" and stage.rows[-1:] == rows[2:]
    ]
    if not attentions:
        return _seen_through_states(pattern, inputs)
    _check_given(pattern, inputs, [expr for stage in attentions for expr in _visibility(stage)], "visibility")
    evaluation = _Evaluation(pattern, inputs, torch.float64)
    with torch.no_grad():
        masks = [_dense_mask(evaluation, stage) for stage in attentions]
    mask = masks[0]
    for other in masks[1:]:
        mask = mask | other
    return mask


def _visibility(stage: Attention) -> list[Read]:
    at = tuple(storage(axis) for axis in (*stage.rows, stage.over))
    return [Read(f"{stage.name}.visible@0", at, "bool")]


def _dense_mask(evaluation: _Evaluation, stage: Attention) -> Tensor:
    """In pieces of rows, so that the positions compared stay within `BUDGET` bytes."""
    (read,) = _visibility(stage)
    query, lengths = stage.rows[-1], {axis: evaluation.size(axis) for axis in (*stage.rows, stage.over)}
    step = max(1, BUDGET // (64 * max(1, prod(lengths.values()) // max(1, lengths[query]))))
    pieces: list[Tensor] = []
    for low in range(0, max(1, lengths[query]), step):
        ranges = {query: (low, min(low + step, lengths[query]))}
        evaluation.stages.forget(ranges)
        value = anywhere(evaluation.expressions.condition(read, Scope(ranges)), stage.rows[2:-1])
        pieces.append(_spread_mask(evaluation, value, stage.over, ranges[query][1] - low))
    return torch.cat(pieces, 2)


def _spread_mask(evaluation: _Evaluation, value: Value, over: Axis, queries: int) -> Tensor:
    """Bool [B or 1, H or 1, queries, entries of `over`]."""
    axes = (*evaluation.pattern.axes[:3], over)
    shape = [evaluation.size(axis) if axis in value.axes else 1 for axis in axes[:2]]
    return expand(value, axes, [*shape, queries, evaluation.size(over)])


def _seen_through_states(pattern: Pattern, inputs: Inputs) -> Tensor:
    conditions = seen_through_states(pattern)
    if conditions is None:
        raise NoKeyAttention(pattern=pattern.name)
    evaluation = _Evaluation(pattern, inputs, torch.float64)
    queries = evaluation.size(pattern.axes[2])
    values = [evaluation.expressions.condition(condition, Scope({})) for condition in conditions]
    masks = [_spread_mask(evaluation, value, KEY, queries) for value in values]
    return torch.stack(masks).any(0)


def _check_given(pattern: Pattern, inputs: Inputs, reads: list[Read], what: str) -> None:
    """Raises MissingInput for a tensor that the reads depend on and the call did not give."""
    given = inputs.everything()
    stages = {stage.name: stage for stage in pattern.stages}
    seen: set[str] = set()
    queue = list(reads)
    while queue:
        read = queue.pop(0)
        name, _, part = read.source.partition(".")
        if name not in stages:
            if name not in given:
                raise MissingInput(what=what, pattern=pattern.name, tensor=name)
            continue
        if read.source in seen:
            continue
        seen.add(read.source)
        stage = stages[name]
        if isinstance(stage, Merge):
            queue += [Read(f"{inner}.{part}" if part else inner, ()) for inner in stage.parts]
        elif isinstance(stage, Attention) and part == "visible@0":
            queue += reads_of(stage.mask) + reads_of(stage.sparsity)
        else:
            queue += [found for expr in stage_expressions(stage) for found in reads_of(expr)]


def table(pattern: Pattern, name: str, inputs: Inputs, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """A `Let` over all its axes, in the pattern's order (bool and int tables keep their kind).

    Raises MissingInput where it depends on a tensor that was not given.
    """
    stage = next(stage for stage in pattern.stages if stage.name == name)
    if not isinstance(stage, Let):
        raise ValueError(f"{name} is no table")
    _check_given(pattern, inputs, [Read(name, ())], f"table '{name}'")
    evaluation = _Evaluation(pattern, inputs, dtype)
    shape = [evaluation.size(axis) for axis in stage.axes]
    if prod(shape) == 0:
        return torch.zeros(shape, dtype=_kind(stage, dtype), device=inputs.device())
    value = evaluation.stages.value(name, tuple((0, length) for length in shape))
    return evaluation.over(value, stage.axes, {}).to(_kind(stage, dtype)).contiguous()


def _kind(stage: Let, dtype: torch.dtype) -> torch.dtype:
    return {"bool": torch.bool, "int": torch.int64, "float": dtype}[stage.dtype]
