"""Operations on typed values: scalars spread over vectors, products contract, lengths must agree."""

from __future__ import annotations

from dataclasses import replace

from attnlang.elaborate.arithmetic import build
from attnlang.elaborate.values import Value
from attnlang.elaborate.wording import described
from attnlang.elaborate.work import DEEPEST, Work, shifted
from attnlang.errors_meaning import (
    ExpandsTooFar,
    FitsBothAxes,
    LengthsDisagree,
    NestsTooFar,
    WrongShape,
    WrongType,
)
from attnlang.ir.pattern import OPERATIONS, Apply, Axis, DType, Expr, Index, Literal, Reduce
from attnlang.ir.text import expression_text
from attnlang.source import Span

LARGEST = 20_000
_CONDITIONS = ("and", "or", "not")
_SPELLED = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "mod", "pow": "**", "neg": "-",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


def bounded(work: Work, value: Value, span: Span) -> Value | None:
    """The value, unless writing out its definitions has made it enormous."""
    if value.size > LARGEST:
        work.report(ExpandsTooFar(span, limit=LARGEST))
        return None
    if work.depth_of(value.expr) > DEEPEST:
        work.report(NestsTooFar(span, limit=DEEPEST))
        return None
    return value


def align(work: Work, span: Span, values: list[Value], scales: bool = False) -> list[Value] | None:
    """The values over one and the same feature axes; scalars stay scalars, and where the operation `scales`, a vector
    beside a matrix stays over that one of its axes that has its length."""
    axes = max((value.features for value in values), key=len)
    aligned: list[Value] = []
    for value in values:
        if not value.features or value.features == axes:
            aligned.append(value)
            continue
        target = axes
        if len(value.features) != len(axes):
            (mine,) = value.features
            found = _scaled_axis(work, span, mine, axes) if scales else None
            if not scales:
                hint = "a vector scales the rows or columns of a matrix with '*' or '/' only"
                expected = "a vector like the other"
                work.report(WrongShape(span, hint, what="one side", expected=expected, found="a matrix"))
            if found is None:
                return None
            target = (found,)
        for mine, theirs in zip(value.features, target, strict=True):
            if not work.same_size(mine.size, theirs.size):
                left, right = expression_text(theirs.size), expression_text(mine.size)
                work.report(LengthsDisagree(span, _one_length(left, right), left=left, right=right))
                return None
        changes: dict[Axis, Expr] = {
            mine: Index(theirs) for mine, theirs in zip(value.features, target, strict=True)
        }
        aligned.append(replace(shifted(value, changes), features=target))
    return aligned


def _one_length(left: str, right: str) -> str | None:
    return "write 'require DV == D' if they are meant to be one" if {left, right} == {"D", "DV"} else None


def _scaled_axis(work: Work, span: Span, vector: Axis, matrix: tuple[Axis, ...]) -> Axis | None:
    """The axis of a matrix that a vector scales along: the one of its length, if only one is."""
    found = [axis for axis in matrix if work.same_size(axis.size, vector.size)]
    if len(found) == 1:
        return found[0]
    length = expression_text(vector.size)
    if found:
        work.report(FitsBothAxes(span, length=length))
    else:
        both = " and ".join(expression_text(axis.size) for axis in matrix)
        work.report(LengthsDisagree(span, left=f"{both} of the matrix", right=length))
    return None


def result_kind(op: str, kinds: list[DType]) -> DType:
    """The kind of number an operation gives."""
    kind = OPERATIONS[op][1]
    if kind != "same":
        return kind
    kinds = kinds[1:] if op == "where" else kinds
    if "float" in kinds:
        return "float"
    return "bool" if op == "where" and "int" not in kinds else "int"


def _operands_fit(work: Work, op: str, values: list[Value], spans: list[Span]) -> bool:
    fits = True
    for position, (value, span) in enumerate(zip(values, spans, strict=True)):
        condition = op in _CONDITIONS or (op == "where" and position == 0)
        if condition and value.dtype != "bool":
            what = f"an operand of '{op}'" if op != "where" else "the condition behind 'if'"
            hint = "compare it, as in 'x > 0'"
            work.report(
                WrongType(
                    span,
                    hint,
                    what=what,
                    expected="a condition",
                    found=described(replace(value, features=())),
                )
            )
            fits = False
        elif value.dtype == "bool" and not condition and op not in ("eq", "ne", "where", "int", "float"):
            what = f"an operand of '{_SPELLED[op]}'" if op in _SPELLED else f"the argument of '{op}'"
            hint = "int(…) makes it 0 or 1"
            work.report(WrongType(span, hint, what=what, expected="a number", found="a condition"))
            fits = False
    pair = values[1:] if op == "where" else values
    if fits and op in ("eq", "ne", "where") and len({value.dtype == "bool" for value in pair}) == 2:
        odd = next(index for index, value in enumerate(pair) if value.dtype == "bool")
        span = spans[odd + (1 if op == "where" else 0)]
        hint = "int(…) makes it 0 or 1"
        work.report(
            WrongType(span, hint, what="this side", expected="a number like the other", found="a condition")
        )
        fits = False
    return fits


def elementwise(work: Work, op: str, span: Span, values: list[Value], spans: list[Span]) -> Value | None:
    """An operation on numbers or conditions, vectors element by element."""
    if not _operands_fit(work, op, values, spans):
        return None
    aligned = align(work, span, values, scales=op in ("mul", "div"))
    if aligned is None:
        return None
    if op in ("min", "max") and isinstance(aligned[0].expr, Literal):
        aligned = [aligned[1], aligned[0]]  # the gradient of max(x, 0) goes by the first operand
    kind = result_kind(op, [value.dtype for value in aligned])
    exprs = [value.expr for value in aligned]
    if op == "pow" and kind == "int" and not work.non_negative(exprs[1]):
        kind, exprs[0] = "float", as_float(exprs[0])
    expr = build(op, *exprs)
    if kind == "float" and isinstance(expr, Literal):
        expr = Literal(float(expr.value))
    features = max((value.features for value in aligned), key=len)
    size = 1 + sum(value.size for value in aligned)
    return bounded(work, Value(expr, kind, features, size=size), span)


def as_float(expr: Expr) -> Expr:
    """The number as a float."""
    return Literal(float(expr.value)) if isinstance(expr, Literal) else Apply("float", (expr,))


def product(work: Work, span: Span, left: Value, right: Value, spans: tuple[Span, Span]) -> Value | None:
    """`a @ b`: the last axis of a against the first of b."""
    for value, place in ((left, spans[0]), (right, spans[1])):
        if value.dtype == "bool":
            work.report(WrongType(place, what="an operand of '@'", expected="a vector", found="a condition"))
            return None
        if not value.features:
            hint = "'@' is the dot product; numbers are multiplied with '*'"
            work.report(
                WrongShape(place, hint, what="an operand of '@'", expected="a vector", found=described(value))
            )
            return None
    last, first = left.features[-1], right.features[0]
    if not work.same_size(last.size, first.size):
        left_size, right_size = expression_text(last.size), expression_text(first.size)
        hint = _one_length(left_size, right_size)
        work.report(LengthsDisagree(span, hint, left=left_size, right=right_size))
        return None
    kept_left, kept_right = left.features[:-1], right.features[1:]
    if kept_left and kept_right and kept_left[0] == kept_right[0]:
        other = work.feature_axis(kept_right[0].size, 1)
        right = replace(shifted(right, {kept_right[0]: Index(other)}), features=(first, other))
        kept_right = (other,)
    common = work.copy(last)
    body = build(
        "mul", shifted(left, {last: Index(common)}).expr, shifted(right, {first: Index(common)}).expr
    )
    kind: DType = "float" if "float" in (left.dtype, right.dtype) else "int"
    made = Value(
        Reduce("sum", (common,), body), kind, kept_left + kept_right, size=2 + left.size + right.size
    )
    return bounded(work, made, span)


def outer(work: Work, span: Span, left: Value, right: Value) -> Value | None:
    """`outer(a, b)`: the matrix a[i] · b[j]."""
    for value in (left, right):
        if len(value.features) != 1:
            work.report(
                WrongShape(span, what="an argument of 'outer'", expected="a vector", found=described(value))
            )
            return None
    (row,), (column,) = left.features, right.features
    if row == column:
        other = work.feature_axis(column.size, 1)
        right, column = shifted(right, {column: Index(other)}), other
    kind = result_kind("mul", [left.dtype, right.dtype])
    expr = build("mul", left.expr, right.expr)
    return bounded(work, Value(expr, kind, (row, column), size=1 + left.size + right.size), span)


def over_features(work: Work, op: str, span: Span, value: Value) -> Value | None:
    """`sum(vec)`, `mean(vec)`, `max(vec)`, `min(vec)`: over the feature axis of a vector."""
    if len(value.features) != 1:
        work.report(
            WrongShape(span, what=f"the argument of '{op}'", expected="a vector", found=described(value))
        )
        return None
    (axis,) = value.features
    common = work.copy(axis)
    body = shifted(value, {axis: Index(common)}).expr
    kind: DType = "float" if op in ("mean", "logsumexp") else "bool" if op in ("any", "all") else value.dtype
    match op:
        case "sum" | "max" | "min" | "mean" | "any" | "all" | "prod" | "logsumexp":
            return bounded(work, Value(Reduce(op, (common,), body), kind, size=2 + value.size), span)
        case _:
            raise ValueError(op)
