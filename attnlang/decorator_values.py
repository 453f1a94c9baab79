"""A value inside a traced Python function: what is done to it builds the tree that the text form has."""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any, TypeAlias, cast

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.errors import (
    CannotBeTraced,
    CannotIterate,
    MalformedReduction,
    NoNumberYet,
    NotAFunction,
    NoTruthValue,
    NumberTooLarge,
)

Operand: TypeAlias = "Traced | bool | int | float"
"""What an expression is made of."""

WITH_CONDITION = "write p.sum(lambda m: ..., over=..., where=lambda m: ...)"
MAX_INTEGER = 2**63 - 1
FILES_OF_THE_TRACER.add(__file__)

# ------------------------------------------------------------------------------------------------- values


RESERVED = ("mod", "true", "false", "True", "False")


def is_name(text: str) -> bool:
    """Whether the text form can write this as a name."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and text not in RESERVED


@dataclass
class Trace:
    """What one run of a function has called and not used yet: node by identity."""

    unused: dict[int, syntax.Call | syntax.Reduction] = field(
        default_factory=dict[int, syntax.Call | syntax.Reduction]
    )


class Traced:
    """An expression of the language. Operators, subscripts, attributes and calls give further expressions.

    Names that begin with an underscore are ours, all others are attributes of the language (`q.t`, `c.first`).
    """

    __slots__ = ("__domain__", "__expr__", "__trace__")

    def __init__(self, expr: syntax.Expr, trace: Trace, domain: syntax.Expr | None = None) -> None:
        self.__expr__ = expr
        self.__trace__ = trace
        self.__domain__ = domain

    def __repr__(self) -> str:
        name = f" {self.__expr__.id}" if isinstance(self.__expr__, syntax.Name) else ""
        return f"<traced {type(self.__expr__).__name__.lower()}{name}>"

    # ---- parts of it

    def __getattr__(self, name: str) -> Traced:
        if name.startswith("_"):
            raise AttributeError(name)
        return Traced(syntax.Attribute(lift(self), name, span=here()), self.__trace__)

    def __getitem__(self, index: Operand | tuple[Operand, ...]) -> Traced:
        indices = index if isinstance(index, tuple) else (index,)
        node = syntax.Subscript(lift(self), tuple(map(lift, indices)), span=here())
        return Traced(node, self.__trace__)

    def __call__(self, *arguments: object, **keywords: object) -> Traced:
        function = self.__expr__
        if not isinstance(function, syntax.Name):
            raise NotAFunction(here())
        if arguments and not isinstance(arguments[0], Traced) and _has_body(arguments[0]):
            node = _reduction(self.__trace__, function, arguments, keywords)
        else:
            named = tuple((name, lift(value)) for name, value in keywords.items())
            node = syntax.Call(function, tuple(map(lift, arguments)), named, span=here())
        self.__trace__.unused[id(node)] = node
        return Traced(node, self.__trace__)

    # ---- arithmetic

    def _binary(self, operator: str, left: object, right: object) -> Traced:
        return Traced(syntax.Binary(operator, lift(left), lift(right), span=here()), self.__trace__)

    def __add__(self, other: Operand) -> Traced:
        return self._binary("+", self, other)

    def __radd__(self, other: Operand) -> Traced:
        return self._binary("+", other, self)

    def __sub__(self, other: Operand) -> Traced:
        return self._binary("-", self, other)

    def __rsub__(self, other: Operand) -> Traced:
        return self._binary("-", other, self)

    def __mul__(self, other: Operand) -> Traced:
        return self._binary("*", self, other)

    def __rmul__(self, other: Operand) -> Traced:
        return self._binary("*", other, self)

    def __truediv__(self, other: Operand) -> Traced:
        return self._binary("/", self, other)

    def __rtruediv__(self, other: Operand) -> Traced:
        return self._binary("/", other, self)

    def __floordiv__(self, other: Operand) -> Traced:
        return self._binary("//", self, other)

    def __rfloordiv__(self, other: Operand) -> Traced:
        return self._binary("//", other, self)

    def __mod__(self, other: Operand) -> Traced:
        return self._binary("mod", self, other)

    def __rmod__(self, other: Operand) -> Traced:
        return self._binary("mod", other, self)

    def __pow__(self, other: Operand) -> Traced:
        return self._binary("**", self, other)

    def __rpow__(self, other: Operand) -> Traced:
        return self._binary("**", other, self)

    def __matmul__(self, other: Operand) -> Traced:
        return self._binary("@", self, other)

    def __rmatmul__(self, other: Operand) -> Traced:
        return self._binary("@", other, self)

    def __neg__(self) -> Traced:
        return Traced(syntax.Unary("-", lift(self), span=here()), self.__trace__)

    def __pos__(self) -> Traced:
        return self

    def __abs__(self) -> Traced:
        return Traced(syntax.Name("abs", span=here()), self.__trace__)(self)

    # ---- comparisons and logic

    def _compare(self, operator: str, other: object) -> Traced:
        return Traced(syntax.Comparison(lift(self), ((operator, lift(other)),), span=here()), self.__trace__)

    def __lt__(self, other: Operand) -> Traced:
        return self._compare("<", other)

    def __le__(self, other: Operand) -> Traced:
        return self._compare("<=", other)

    def __gt__(self, other: Operand) -> Traced:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Traced:
        return self._compare(">=", other)

    def __eq__(self, other: object) -> Any:
        return self._compare("==", other)

    def __ne__(self, other: object) -> Any:
        return self._compare("!=", other)

    def _logical(self, operator: str, left: object, right: object) -> Traced:
        """`a & b & c` is one `and` of three, as the text form reads it."""
        first = lift(left)
        before = (
            first.operands if isinstance(first, syntax.Logical) and first.operator == operator else (first,)
        )
        return Traced(syntax.Logical(operator, (*before, lift(right)), span=here()), self.__trace__)

    def __and__(self, other: Operand) -> Traced:
        return self._logical("and", self, other)

    def __rand__(self, other: Operand) -> Traced:
        return self._logical("and", other, self)

    def __or__(self, other: Operand) -> Traced:
        return self._logical("or", self, other)

    def __ror__(self, other: Operand) -> Traced:
        return self._logical("or", other, self)

    def __invert__(self) -> Traced:
        return Traced(syntax.Unary("not", lift(self), span=here()), self.__trace__)

    # ---- what Python would want to know now

    def __bool__(self) -> bool:
        caller = inspect.currentframe()
        inside = (
            caller is not None and caller.f_back is not None and caller.f_back.f_code.co_name == "<genexpr>"
        )
        raise NoTruthValue(here(), hint=WITH_CONDITION if inside else None)

    def __contains__(self, item: object) -> bool:
        raise NoTruthValue(here())

    def __index__(self) -> int:
        raise NoNumberYet(here())

    def __int__(self) -> int:
        raise NoNumberYet(here())

    def __float__(self) -> float:
        raise NoNumberYet(here())

    def __len__(self) -> int:
        raise NoNumberYet(here())

    def __iter__(self) -> Iterator[Traced]:
        return _Members(self)

    __hash__ = object.__hash__


def lift(value: object) -> syntax.Expr:
    """The expression of an operand; Python numbers become what the text form writes for them."""
    match value:
        case Traced():
            value.__trace__.unused.pop(id(value.__expr__), None)
            return value.__expr__
        case bool():
            return syntax.Boolean(value, span=here())
        case int() | numbers.Integral():
            return _number(int(value))
        case float() | numbers.Real():
            return _number(float(value))
        case _:
            raise CannotBeTraced(here(), kind=type(value).__name__)


def _number(value: int | float) -> syntax.Expr:
    """The text form has no negative numbers and writes `inf`."""
    span = here()
    if value != value:
        raise CannotBeTraced(span, kind="not-a-number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise NumberTooLarge(span)
    size = syntax.Name("inf", span=span) if math.isinf(value) else syntax.Number(abs(value), span=span)
    return syntax.Unary("-", size, span=span) if value < 0 else size


# --------------------------------------------------------------------------------------------- reductions


class _Members(Iterator[Traced]):
    """What `for k in c` runs over inside a reduction: one nameless member, named by the generator it stands in."""

    def __init__(self, domain: Traced) -> None:
        self.domain = domain
        self.variable: Traced | None = None

    def __next__(self) -> Traced:
        if self.variable is None:
            raise CannotIterate(here())
        return self.variable


def _has_body(argument: object) -> bool:
    return inspect.isfunction(argument) or inspect.isgenerator(argument)


def _reduction(
    trace: Trace, function: syntax.Name, arguments: tuple[object, ...], keywords: dict[str, object]
) -> syntax.Reduction:
    """`sum(lambda m: …, over=p.heads, where=lambda m: …)` and `sum(… for m in p.heads)`."""
    unknown = [name for name in keywords if name not in ("over", "where")]
    if len(arguments) != 1 or unknown:
        raise MalformedReduction(here(), what="takes one function, and 'over' and 'where' beside it")
    if inspect.isgenerator(arguments[0]):
        body, variable, domain = _from_generator(arguments[0], trace)
    elif "over" in keywords:
        variable = _variable(cast(Callable[..., object], arguments[0]))
        body, domain = _apply(arguments[0], variable, trace), lift(keywords["over"])
    else:
        raise MalformedReduction(here(), what="needs 'over', what its variable runs over")
    where = keywords.get("where")
    condition = None if where is None else _apply(where, variable, trace)
    return syntax.Reduction(function, body, variable, domain, condition, span=here())


def _from_generator(
    generator: GeneratorType[object, Any, Any], trace: Trace
) -> tuple[syntax.Expr, str, syntax.Expr]:
    """Body, variable and domain of `body for variable in domain`."""
    code, frame = generator.gi_code, generator.gi_frame
    members = None if frame is None else frame.f_locals.get(".0")
    names = [name for name in (*code.co_varnames, *code.co_cellvars) if name != ".0"]
    if not isinstance(members, _Members) or len(dict.fromkeys(names)) != 1:
        raise MalformedReduction(here(), what="runs one variable over one part of the pattern")
    members.variable = Traced(syntax.Name(names[0], span=here()), trace)
    body = lift(next(generator))
    generator.close()
    return body, names[0], lift(members.domain)


def _variable(body: Callable[..., object]) -> str:
    """The name of the one parameter of a function."""
    names = list(inspect.signature(body).parameters)
    if len(names) != 1:
        raise MalformedReduction(here(), what="needs a function of one variable")
    return names[0]


def _apply(body: object, variable: str, trace: Trace) -> syntax.Expr:
    """What a function says of the variable; a plain value says the same of every one."""
    if not inspect.isfunction(body):
        return lift(body)
    return lift(body(Traced(syntax.Name(variable, span=here()), trace)))
