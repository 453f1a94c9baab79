"""How a row of scores becomes weights: formulas over the row, and the steps whose threshold is searched."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import build, rename
from attnlang.elaborate.functions import wrong_count
from attnlang.elaborate.names import ROW_NAMES, row_read, row_visible
from attnlang.elaborate.operators import number, scalar
from attnlang.elaborate.reductions import known_at_call
from attnlang.elaborate.wording import counted, written
from attnlang.elaborate.work import Context, Row, Work
from attnlang.errors_meaning import NotKnownAtCall, SectionsDisagree
from attnlang.ir.pattern import (
    Apply,
    Axis,
    Expr,
    Formula,
    Index,
    Literal,
    Read,
    Reduce,
    Step,
    Threshold,
    free_axes,
)

# name -> (the least amount, whether it may be equal to it, whether it must be an int); None: it takes no amount
THRESHOLDS: dict[str, tuple[int, bool, bool] | None] = {
    "sparsemax": None,
    "entmax": (1, False, False),
    "sinkhorn": (0, True, True),
    "top": (1, True, True),
}


@dataclass(frozen=True)
class Normalizer:
    """The steps, whether they are one plain softmax, whether the row has a log of a sum of exponentials."""

    steps: tuple[Step, ...]
    softmax: bool
    has_lse: bool


def _softmax_node() -> syntax.Expr:
    exponential = syntax.Call(syntax.Name("exp"), (syntax.Name("s"),))
    return syntax.Binary("/", exponential, syntax.Call(syntax.Name("sum"), (exponential,)))


SOFTMAX = _softmax_node()


def normalizer(
    work: Work, name: str, rows: tuple[Axis, ...], over: Axis, node: syntax.Normalize | None, context: Context
) -> Normalizer | None:
    """The steps of `normalize`, or a softmax where it is left out."""
    nodes = (SOFTMAX,) if node is None else node.steps
    along: Axis | None = over
    if node is not None and node.over is not None:
        along = next(
            (axis for axis in (*rows, over) if axis.name == node.over and axis.role != "batch"), None
        )
        if along is None:
            rows_here = ", ".join(axis.name for axis in (*rows[2:], over))
            reason = f"'over {node.over}' names no index of this attention, which has {rows_here}"
            work.report(SectionsDisagree(node.span, keyword="normalize", reason=reason))
            return None
    assert along is not None
    steps: list[Step] = []
    for position, part in enumerate(nodes):
        row = Row(name, rows, over, along, f"{name}.step{position}", False)
        inner = replace(context, row=row)
        step = _step(work, part, row, _without_names(inner) if node is None else inner)
        if step is not None:
            steps.append(step)
    if len(steps) < len(nodes):
        return None
    return Normalizer(tuple(steps), _is_softmax(steps), along == over and _has_lse(name, rows, over, steps))


def _without_names(context: Context) -> Context:
    """Nothing of the pattern but its indices, so that a parameter called `s` does not hide the scores."""
    indices = {name: value for name, value in context.indices.items() if name not in ROW_NAMES}
    return replace(context, indices=indices, locals={}, previous={}, inside="softmax")


def _is_softmax(steps: list[Step]) -> bool:
    return len(steps) == 1 and isinstance(steps[0], Formula) and steps[0].kind == "softmax"


def _step(work: Work, node: syntax.Expr, row: Row, context: Context) -> Step | None:
    match node:
        case syntax.Name(name) if name in THRESHOLDS and name not in context.file.functions:
            return _threshold(work, syntax.Call(node, (), span=node.span), context)
        case syntax.Call(syntax.Name(name)) if name in THRESHOLDS and name not in context.file.functions:
            return _threshold(work, node, context)
        case _:
            value = number(work, node, context, "a step of normalize")
            return (
                None
                if value is None
                else Formula(value.expr, "softmax" if is_softmax(value.expr, row) else "")
            )


def _threshold(work: Work, node: syntax.Call, context: Context) -> Step | None:
    name = node.function.id
    limits = THRESHOLDS[name]
    expected = 0 if limits is None else 1
    if len(node.arguments) != expected or node.keywords:
        wrong_count(work, node, counted(expected, "argument") if expected else "none", len(node.arguments))
        return None
    if limits is None:
        return Threshold("sparsemax", Literal(2.0))
    (argument,) = node.arguments
    least, closed, whole = limits
    outside = replace(context, row=None)
    amount = scalar(work, argument, outside, f"the argument of '{name}'", "int" if whole else "float")
    if amount is None:
        return None
    if not known_at_call(amount.expr):
        if name == "sinkhorn" or context.row is None or context.row.over in free_axes(amount.expr):
            what = f"the argument of '{name}'"
            work.report(NotKnownAtCall(argument.span, what=what, found="an index or a tensor"))
            return None
    else:
        operator = ">=" if closed else ">"
        condition = build("ge" if closed else "gt", amount.expr, Literal(least))
        work.require(condition, f"{written(argument)} {operator} {least}", argument.span)
    match name:
        case "entmax":
            return Threshold("entmax", amount.expr)
        case "sinkhorn":
            return Threshold("sinkhorn", amount.expr)
        case _:
            return Threshold("top", amount.expr)


# --------------------------------------------------------------------------------------------- recognition


def is_softmax(body: Expr, row: Row) -> bool:
    """Whether the formula is exp(s − m) / sum(exp(s − m)) along what is summed over, with any m of the row."""
    if row.along != row.over:
        return False
    match body:
        case Apply("div", (Apply("exp", (exponent,)), Reduce("sum", (axis,), Apply("exp", (inner,)), where))):
            along = {row.over: Index(axis)}
            same = where == row_visible(row, axis) and _strip(rename(exponent, along)) == _strip(inner)
            return same and _is_shifted(exponent, row)
        case _:
            return False


def _strip(expr: Expr) -> Expr:
    """The expression with the variables of its reductions renamed in order, so that copies compare equal."""
    counter = 0

    def visit(part: Expr) -> Expr:
        nonlocal counter
        match part:
            case Reduce(op, axes, body, where):
                named = tuple(Axis(f"_{counter + n}", a.size, a.role, a.start) for n, a in enumerate(axes))
                counter += len(axes)
                changes: dict[Axis, Expr] = {old: Index(new) for old, new in zip(axes, named, strict=True)}
                inner_where = None if where is None else visit(rename(where, changes))
                return Reduce(op, named, visit(rename(body, changes)), inner_where)
            case Apply(op, args):
                return Apply(op, tuple(visit(arg) for arg in args))
            case Read(source, at, dtype):
                return Read(source, tuple(visit(index) for index in at), dtype)
            case _:
                return part

    return visit(expr)


def _is_shifted(exponent: Expr, row: Row) -> bool:
    scores = row_read(row, row.source, {})
    match exponent:
        case Apply("sub" | "add", (left, shift)) if left == scores:
            return row.over not in free_axes(shift)
        case _:
            return exponent == scores


def _has_lse(name: str, rows: tuple[Axis, ...], over: Axis, steps: list[Step]) -> bool:
    """Whether, after any top(m), the first formula has exp of the scores as its numerator, over a sum of them."""
    first = next((n for n, step in enumerate(steps) if not _is_top(step)), None)
    if first is None:
        return False
    row = Row(name, rows, over, over, f"{name}.step{first}", False)
    step = steps[first]
    if not isinstance(step, Formula):
        return False
    match step.body:
        case Apply("div", (Apply("exp", (exponent,)), denominator)) if _is_shifted(exponent, row):
            return _sums_exponentials(denominator)
        case _:
            return False


def _is_top(step: Step) -> bool:
    return isinstance(step, Threshold) and step.kind == "top"


def _sums_exponentials(expr: Expr) -> bool:
    match expr:
        case Reduce("sum", _, Apply("exp"), _):
            return True
        case Apply("add" | "max", parts):
            return any(_sums_exponentials(part) for part in parts)
        case _:
            return False
