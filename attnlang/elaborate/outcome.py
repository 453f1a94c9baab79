"""Which stages an output needs, and which attention's statistics the pattern returns."""

from __future__ import annotations

from attnlang.elaborate.arithmetic import sources_of
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    Apply,
    Attention,
    Expr,
    Merge,
    Read,
    Stage,
    children,
)
from attnlang.ir.walk import stage_expressions


def stages_read(expr: Expr) -> set[str]:
    """The stages (and tensors) whose values an expression reads."""
    return {source.split(".")[0] for source in sources_of(expr)}


def needed(stages: list[Stage], output: Expr) -> tuple[Stage, ...]:
    """The stages that the output depends on, in their order."""
    wanted = stages_read(output)
    kept: list[Stage] = []
    for stage in reversed(stages):
        if stage.name in wanted:
            kept.append(stage)
            wanted |= set(stage.parts) if isinstance(stage, Merge) else set()
            for expr in stage_expressions(stage):
                wanted |= stages_read(expr)
    return tuple(reversed(kept))


def result_of(stages: tuple[Stage, ...], output: Expr) -> str:
    """The attention or merge that the output is or scales linearly; '' where there is not exactly one.

    Other attentions may stand behind its scores, values or choices as long as it sums over the keys themselves:
    over agents and the like, no single row of scores says how much of the keys a query has seen.
    """
    attentions = {stage.name: stage for stage in stages if isinstance(stage, Attention)}
    merges = {stage.name: stage for stage in stages if isinstance(stage, Merge)}
    read = [name for name in (*attentions, *merges) if name in stages_read(output)]
    if len(read) != 1 or not _scales(output, read[0]):
        return ""
    names = merges[read[0]].parts if read[0] in merges else (read[0],)
    parts = [attentions[name] for name in names]
    if any(part.rows != (BATCH, HEAD, QUERY) for part in parts):
        return ""
    alone = len(parts) == len(attentions)
    return read[0] if alone or any(part.over == KEY for part in parts) else ""


def _scales(expr: Expr, name: str) -> bool:
    """Whether the expression is linear in the results of the attention, without a constant part."""
    match expr:
        case Read(source, at, _):
            return source == name and not any(_mentions(index, name) for index in at)
        case Apply("add" | "sub", (left, right)):
            return _scales(left, name) and _scales(right, name)
        case Apply("neg", (inner,)):
            return _scales(inner, name)
        case Apply("mul", (left, right)):
            return (_scales(left, name) and not _mentions(right, name)) or (
                _scales(right, name) and not _mentions(left, name)
            )
        case Apply("div", (left, right)):
            return _scales(left, name) and not _mentions(right, name)
        case Apply("where", (condition, then, otherwise)):
            parts = [part for part in (then, otherwise) if _mentions(part, name)]
            return bool(parts) and not _mentions(condition, name) and all(_scales(p, name) for p in parts)
        case _:
            return False


def _mentions(expr: Expr, name: str) -> bool:
    if isinstance(expr, Read) and expr.source.split(".")[0] == name:
        return True
    return any(_mentions(part, name) for part in children(expr))
