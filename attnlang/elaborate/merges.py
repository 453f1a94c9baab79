"""`merge(a, b)`: one softmax over the union of what several attentions see."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.names import look_up
from attnlang.elaborate.values import SLOTS, Attended, Merged, Readable
from attnlang.elaborate.wording import written
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import WrongMerge
from attnlang.ir.pattern import Merge


def is_merge(node: syntax.Expr) -> bool:
    """Whether an expression is a merge and nothing else."""
    return isinstance(node, syntax.Call) and node.function.id == "merge"


def merge_of(work: Work, node: syntax.Call, context: Context, name: str | None) -> Merged | None:
    """The merge, as a stage of its own; the same parts are merged once."""
    parts = _parts(work, node, context)
    if parts is None:
        return None
    names = tuple(dict.fromkeys(n for _, part in parts for n in _names(part)))
    (_, first), others = parts[0], parts[1:]
    for argument, part in others:
        if part.row_slots != first.row_slots or not work.same_size(part.feature.size, first.feature.size):
            problem = (
                f"'{written(argument)}' and '{written(node.arguments[0])}' differ in their rows or features"
            )
            work.report(WrongMerge(argument.span, problem=problem))
            return None
    for stage in work.stages:
        if isinstance(stage, Merge) and stage.parts == names and name is None:
            return _merged(stage.name, names, first)
    stage_name = name or _free_name(work)
    work.stages.append(Merge(stage_name, names, node.span))
    return _merged(stage_name, names, first)


def _free_name(work: Work) -> str:
    taken = {stage.name for stage in work.stages} | set(work.declared)
    return next(name for number in range(1, len(taken) + 2) if (name := f"merge_{number}") not in taken)


def _names(part: Attended | Merged) -> tuple[str, ...]:
    return part.parts if isinstance(part, Merged) else (part.result.source,)


def _merged(name: str, parts: tuple[str, ...], like: Attended | Merged) -> Merged:
    leading = (SLOTS["b"], SLOTS["h"])
    result = Readable(name, name, like.row_slots, leading, (like.feature,))
    return Merged(result, parts, like.row_slots, like.feature)


def _parts(
    work: Work, node: syntax.Call, context: Context
) -> list[tuple[syntax.Expr, Attended | Merged]] | None:
    parts: list[tuple[syntax.Expr, Attended | Merged]] = []
    failed = False
    if len(node.arguments) < 2 or node.keywords:
        work.report(
            WrongMerge(node.span, "write merge(a, b)", problem="a merge takes at least two attentions")
        )
        failed = True
    for argument in node.arguments:
        part = _part(work, argument, context)
        failed = failed or part is None
        if part is not None:
            parts.append((argument, part))
    return None if failed else parts


def _part(work: Work, argument: syntax.Expr, context: Context) -> Attended | Merged | None:
    if isinstance(argument, syntax.Call) and is_merge(argument):
        return merge_of(work, argument, context, None)
    entity = look_up(work, argument.id, argument.span, context) if isinstance(argument, syntax.Name) else None
    if isinstance(entity, Merged) or (isinstance(entity, Attended) and entity.softmax):
        return entity
    if isinstance(entity, Attended):
        hint = "only plain softmaxes have one union: leave out normalize and reweight"
        work.report(WrongMerge(argument.span, hint, problem=f"'{written(argument)}' is not a plain softmax"))
    elif entity is not None or not isinstance(argument, syntax.Name):
        work.report(WrongMerge(argument.span, problem=f"'{written(argument)}' is no attention"))
    return None
