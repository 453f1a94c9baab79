"""`@attention_pattern`: a Python function, run once, becomes the very same tree that the text form parses to.

@attention_pattern
def faded(p, slopes: Tensor["h"], window: int = 1024):
    p.mask(p.q >= p.k)
    p.sparsity(p.q - p.k < window)
    p.score(p.dot * p.scale - slopes[p.h] * (p.q - p.k))
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Annotated, get_args, get_origin

from attnlang import syntax
from attnlang.decorator_recorder import STATEMENTS, Recorder
from attnlang.decorator_source import FILES_OF_THE_TRACER, here, source_of
from attnlang.decorator_values import Trace, Traced, is_name, lift
from attnlang.errors import ResultNotUsed, WrongAnnotation, WrongSignature, nearest
from attnlang.pattern import Pattern
from attnlang.source import Span

FILES_OF_THE_TRACER.add(__file__)

TYPES = {int: "int", float: "float", bool: "bool"}
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "mod", ast.Pow: "**",
}  # fmt: skip


# --------------------------------------------------------------------------------------------- annotations


@dataclass(frozen=True)
class TensorAnnotation:
    """The axes of a declared tensor and the kind of its elements (None: those of Q)."""

    axes: tuple[syntax.Expr, ...]
    dtype: str | None = None

    @property
    def int(self) -> TensorAnnotation:
        """The same tensor, of integers."""
        return replace(self, dtype="int")

    @property
    def bool(self) -> TensorAnnotation:
        """The same tensor, of truth values."""
        return replace(self, dtype="bool")


class Tensor:
    """Annotates a tensor: `Tensor["b", "n"]`, `Tensor["h", "2*reach - 1", 3]`, `Tensor["b", "n"].int`, `.bool`."""

    def __class_getitem__(cls, axes: str | int | tuple[str | int, ...]) -> TensorAnnotation:
        given = axes if isinstance(axes, tuple) else (axes,)
        return TensorAnnotation(tuple(map(_axis, given)))


def _axis(axis: str | int) -> syntax.Expr:
    """An axis as a Python expression of names, whole numbers and arithmetic."""
    span = here()
    try:
        return _axis_node(ast.parse(str(axis), mode="eval").body, span)
    except (SyntaxError, ValueError) as error:
        raise WrongAnnotation(span, axis=repr(axis)) from error


def _axis_node(node: ast.expr, span: Span) -> syntax.Expr:
    match node:
        case ast.Name(id=name):
            return syntax.Name(name, span=span)
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return syntax.Number(value, span=span)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            return syntax.Binary(
                OPERATORS[type(operator)], _axis_node(left, span), _axis_node(right, span), span=span
            )
        case _:
            raise ValueError(ast.dump(node))


# -------------------------------------------------------------------------------------------------- tracing


def attention_pattern(function: Callable[..., None]) -> Pattern:
    """The pattern that a Python function describes; see `Recorder` for what its first argument offers.

    Parameters annotated `int`, `float`, `bool` (or `Annotated[int, ">= 1"]`) are parameters of the pattern, those
    annotated `Tensor[…]` its tensors. Raises a `Diagnostic` that points at the Python line.
    """
    return Pattern.of(trace(function))


def trace(function: Callable[..., None]) -> syntax.PatternDefinition:
    """Runs the function once and returns the tree of what it said."""
    state = Trace()
    where = _place_of(function)
    given = _parameters(function, where)
    parameters = tuple(each for each in given if isinstance(each, syntax.Parameter))
    body: list[syntax.AnyStatement] = [each for each in given if isinstance(each, syntax.TensorDeclaration)]
    values = (Traced(syntax.Name(each.name, span=each.span), state) for each in given)
    by_name = {each.name: value for each, value in zip(given, values, strict=True)}
    if _call(function, Recorder(state, body), by_name) is not None:
        raise WrongSignature(where, name=function.__name__, what="returns something; write p.output(…)")
    for node in state.unused.values():
        close = nearest(node.function.id, STATEMENTS)
        hint = f"did you mean p.{close}?" if close else "use it in a statement, or leave it out"
        raise ResultNotUsed(node.span, hint=hint, name=f"p.{node.function.id}")
    return syntax.PatternDefinition(function.__name__, parameters, _doc(function), tuple(body), span=where)


def _call(function: Callable[..., object], recorder: Recorder, values: dict[str, Traced]) -> object:
    """Positional-only parameters by place, all others by name."""
    parameters = inspect.signature(function).parameters
    by_place = [name for name in values if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    by_name = {name: value for name, value in values.items() if name not in by_place}
    return function(recorder, *(values[name] for name in by_place), **by_name)


def _parameters(
    function: Callable[..., object], where: Span
) -> list[syntax.Parameter | syntax.TensorDeclaration]:
    """What stands behind `p` in the signature."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, SyntaxError, AttributeError, TypeError) as error:
        what = f"has an annotation that Python cannot read: {error}"
        raise WrongSignature(where, name=function.__name__, what=what) from error
    declared = [*signature.parameters.values()]
    if not declared or declared[0].kind not in (
        declared[0].POSITIONAL_ONLY,
        declared[0].POSITIONAL_OR_KEYWORD,
    ):
        raise WrongSignature(where, name=function.__name__, what="needs a first argument, by custom called p")
    return [_parameter(each, _place_in(where, each.name)) for each in declared[1:]]


def _parameter(parameter: inspect.Parameter, span: Span) -> syntax.Parameter | syntax.TensorDeclaration:
    """A parameter or a tensor of the pattern, told apart by the annotation."""
    name, annotation = parameter.name, parameter.annotation
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise WrongSignature(span, name=name, what="stands for any number of arguments; a pattern names each")
    if not is_name(name):
        raise WrongSignature(span, name=name, what="is a name that the text form cannot write")
    if isinstance(annotation, TensorAnnotation):
        if parameter.default is not parameter.empty:
            raise WrongSignature(span, name=name, what="is a tensor, which has no default")
        return syntax.TensorDeclaration(name, annotation.axes, annotation.dtype, span=span)
    default = None if parameter.default is parameter.empty else _default(parameter.default, name, span)
    bounds: tuple[tuple[str, syntax.Expr], ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        bounds = tuple(bound for note in notes for bound in _bounds(note, name, span))
    if annotation is parameter.empty and default is not None:
        return syntax.Parameter(name, None, bounds, default, span=span)
    if annotation not in TYPES:
        raise WrongSignature(span, name=name, what='needs a type: int, float, bool or Tensor["b", "n"]')
    return syntax.Parameter(name, TYPES[annotation], bounds, default, span=span)


def _default(value: object, name: str, span: Span) -> syntax.Expr:
    if not isinstance(value, bool | int | float):
        raise WrongSignature(
            span, name=name, what=f"has a {type(value).__name__} as default, which is no number"
        )
    return lift(value)


def _bounds(note: object, name: str, span: Span) -> list[tuple[str, syntax.Expr]]:
    """`">= 1"`, `"> 0 <= 1"`."""
    pieces = re.findall(r"(<=|>=|<|>)\s*(-?[\d.]+(?:e-?\d+)?)", note) if isinstance(note, str) else []
    if not pieces or re.sub(r"\s", "", "".join(map("".join, pieces))) != re.sub(r"\s", "", str(note)):
        raise WrongSignature(span, name=name, what=f'has the bound {note!r}; write ">= 1" or "> 0 <= 1"')
    numbers = [float(number) if set(number) & set(".e") else int(number) for _, number in pieces]
    return [(operator, lift(number)) for (operator, _), number in zip(pieces, numbers, strict=True)]


def _doc(function: Callable[..., object]) -> str | None:
    """The docstring without margins, as the text form keeps it."""
    doc = inspect.getdoc(function) if function.__doc__ else None
    lines = re.sub(r"[\x00-\x09\x0b-\x1f\x7f]", " ", doc or "").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip() or None


# --------------------------------------------------------------------------------------------------- places


def _place_of(function: Callable[..., object]) -> Span:
    """The name of a function where it is defined."""
    inner = inspect.unwrap(function)
    if not isinstance(inner, FunctionType) or not is_name(inner.__name__):
        raise WrongSignature(here(), name=str(function), what="is no Python function with a name of its own")
    code = inner.__code__
    source = source_of(code.co_filename)
    if code.co_firstlineno > len(source.line_starts):
        return here()
    start = source.line_starts[code.co_firstlineno - 1]
    found = re.compile(rf"\bdef\s+({re.escape(function.__name__)})\b").search(source.text, start)
    return Span(source, *found.span(1)) if found else Span(source, start, start)


def _place_in(function: Span, name: str) -> Span:
    """A parameter of the function that is defined there."""
    found = re.compile(rf"\b{re.escape(name)}\b").search(function.source.text, function.end)
    return Span(function.source, *found.span()) if found else function
