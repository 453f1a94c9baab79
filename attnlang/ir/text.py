"""A readable dump of pattern IR: expressions in infix notation, one stage a paragraph."""

from __future__ import annotations

from typing import assert_never

from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
    Claim,
    Expr,
    Formula,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Stage,
    Step,
    Symbol,
    Threshold,
)

# operation -> (spelling, how tightly it binds)
_INFIX: dict[str, tuple[str, int]] = {
    "or": ("or", 2), "and": ("and", 3),
    "lt": ("<", 5), "le": ("<=", 5), "gt": (">", 5), "ge": (">=", 5), "eq": ("==", 5), "ne": ("!=", 5),
    "add": ("+", 6), "sub": ("-", 6), "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("mod", 7),
    "pow": ("**", 9),
}  # fmt: skip
_CONDITIONAL, _NOT, _NEGATION, _ATOM = 1, 4, 8, 10


def expression_text(expr: Expr) -> str:
    """An expression on one line, with as few parentheses as the precedences allow."""
    return _text(expr, 0)


def axis_text(axis: Axis) -> str:
    """`c in (NK + 63) // 64`, with `from start` where it does not begin at 0."""
    start = "" if axis.start == Literal(0) else f" from {expression_text(axis.start)}"
    return f"{axis.name} in {expression_text(axis.size)}{start}"


def pattern_text(pattern: Pattern) -> str:
    """The whole pattern; equal patterns give equal texts."""
    lines = [f"pattern {pattern.name}"]
    if pattern.doc:
        lines.append(f"  # {' '.join(pattern.doc.split())}")
    for parameter in pattern.parameters:
        bounds = "".join(f" {_INFIX[op][0]} {value}" for op, value in parameter.bounds)
        default = "" if parameter.default is None else f" = {_literal(parameter.default)}"
        lines.append(f"  parameter {parameter.name}: {parameter.dtype}{bounds}{default}")
    for tensor in pattern.tensors:
        axes = ", ".join(
            axis.written + (f" in {axis.index}" if axis.index and axis.index != axis.written else "")
            for axis in tensor.axes
        )
        lines.append(f"  tensor {tensor.name}[{axes}]: {tensor.dtype}")
    for requirement in pattern.requirements:
        lines.append(f"  require {expression_text(requirement.condition)}")
    for stage in pattern.stages:
        lines += [f"  {line}" for line in stage_lines(stage)]
    axes = ", ".join(axis_text(axis) for axis in pattern.axes)
    lines.append(f"  output[{axes}] = {expression_text(pattern.output)}")
    lines += [f"  {claim_text(claim)}" for claim in pattern.claims]
    lines.append(f"  result {pattern.result or '(none)'}")
    return "\n".join(lines) + "\n"


def stage_lines(stage: Stage) -> list[str]:
    """One stage: what it defines, then its parts."""
    match stage:
        case Let():
            return [f"let {stage.name}[{_axes(stage.axes)}]: {stage.dtype} = {expression_text(stage.body)}"]
        case Select():
            rule = f"{stage.rule}({expression_text(stage.amount)})"
            lines = [f"select {stage.name}[{_axes(stage.rows)}] = {rule} of ({_axes(stage.candidates)})"]
            lines.append(f"  by {expression_text(stage.by)}")
            lines.append(f"  where {expression_text(stage.where)}")
            lines.append(f"  always {expression_text(stage.always)}")
            if stage.total is not None:
                lines.append(f"  total {expression_text(stage.total)}")
            return lines
        case Attention():
            lines = [f"attention {stage.name}[{_axes(stage.rows)}] over {axis_text(stage.over)}"]
            lines.append(f"  mask {expression_text(stage.mask)}")
            lines.append(f"  sparsity {expression_text(stage.sparsity)}")
            lines.append(f"  score {expression_text(stage.score)}")
            lines += [f"  normalize {_step(step)}" for step in stage.normalize]
            if stage.reweight is not None:
                lines.append(f"  reweight {expression_text(stage.reweight)}")
            lines.append(f"  value[{axis_text(stage.feature)}] {expression_text(stage.value)}")
            lines.append(f"  lse {'yes' if stage.has_lse else 'no'}")
            return lines
        case Merge():
            return [f"merge {stage.name} = {', '.join(stage.parts)}"]
        case Recurrence():
            lines = [
                f"recurrence {stage.name}[{_axes(stage.axes)}] after each {axis_text(stage.token)}"
                f" at {stage.position}"
            ]
            lines.append(f"  step {expression_text(stage.step)}")
            if stage.restart is not None:
                lines.append(f"  restart {expression_text(stage.restart)}")
            return lines
        case _:
            assert_never(stage)


def claim_text(claim: Claim) -> str:
    """`assert density <= 0.1 where NK = 65536`."""
    what = claim.kind
    if claim.kind == "equal":
        what = f"equal({claim.other})"
    elif claim.bound is not None:
        what = f"{claim.kind} {_INFIX[claim.comparison][0]} {expression_text(claim.bound)}"
    sizes = ", ".join(f"{name} = {expression_text(value)}" for name, value in claim.where)
    return f"assert {what}" + (f" where {sizes}" if sizes else "")


def _axes(axes: tuple[Axis, ...]) -> str:
    return ", ".join(axis_text(axis) for axis in axes)


def _step(step: Step) -> str:
    match step:
        case Formula(body, kind):
            return (f"({kind}) " if kind else "") + expression_text(body)
        case Threshold(kind, amount):
            return f"{kind}({expression_text(amount)})"
        case _:
            assert_never(step)


def _literal(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(expr: Expr, outer: int) -> str:
    match expr:
        case Literal(value):
            text = _literal(value)
            return f"({text})" if text.startswith("-") and outer > _NEGATION else text
        case Symbol(name, _):
            return name
        case Index(axis):
            return axis.name
        case Read(source, at, _):
            return f"{source}[{', '.join(_text(index, 0) for index in at)}]"
        case Apply(op, args):
            return _operation(op, args, outer)
        case Reduce(op, axes, body, where):
            condition = "" if where is None else f" if {_text(where, 2)}"
            return f"{op}({_text(body, 2)} for {_axes(axes)}{condition})"
        case _:
            assert_never(expr)


def _operation(op: str, args: tuple[Expr, ...], outer: int) -> str:
    if op in _INFIX:
        spelling, level = _INFIX[op]
        right_first = op == "pow"
        left = _text(args[0], level + (1 if right_first or level == 5 else 0))
        right = _text(args[1], level + (0 if right_first else 1))
        text = f"{left} {spelling} {right}"
    elif op == "where":
        level = _CONDITIONAL
        text = f"{_text(args[1], 2)} if {_text(args[0], 2)} else {_text(args[2], 1)}"
    elif op in ("not", "neg"):
        level = _NOT if op == "not" else _NEGATION
        text = ("not " if op == "not" else "-") + _text(args[0], level)
    else:
        level = _ATOM
        text = f"{op}({', '.join(_text(arg, 0) for arg in args)})"
    return f"({text})" if level < outer else text
