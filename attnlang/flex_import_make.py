"""Values of a traced mask_mod or score_mod are made here: conversions, calls, and the numbers that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.errors_flex import CannotTraceTorch
from attnlang.flex_import_values import Kind, Number, Value

FILES_OF_THE_TRACER.add(__file__)

NUMBERS: dict[str, Callable[..., Any]] = {
    "exp": math.exp, "log": math.log, "log2": math.log2, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos,
    "tanh": math.tanh, "floor": math.floor, "ceil": math.ceil, "round": round, "abs": abs, "min": min, "max": max,
}  # fmt: skip


class Make:
    """Makes values: subclassed by the trace, which knows the captured tensors."""

    def value(
        self, expr: syntax.Expr, kind: Kind, number: Number | None = None, names: frozenset[str] = frozenset()
    ) -> Value:
        raise CannotTraceTorch(here(), what="this")

    def lift(self, input: object) -> Value:
        raise CannotTraceTorch(here(), what=f"a {type(input).__name__}")

    def read(self, tensor: Any, places: tuple[object, ...]) -> Any:
        raise CannotTraceTorch(here(), what="this")

    def numeric(self, given: object) -> Value:
        """As a number: truth values become 0 or 1."""
        value = self.lift(given)
        return self.cast(value, "int") if value.kind == "bool" else value

    def truth(self, given: object) -> Value:
        """As a truth value; whole numbers are refused where bits could be meant."""
        value = self.lift(given)
        if value.kind != "bool":
            raise CannotTraceTorch(
                here(), "compare it first, as in x != 0", what="'&', '|', '^' or '~' of numbers"
            )
        return value

    def cast(self, value: Value, kind: Kind) -> Value:
        """Conversions that change the value; a whole number as a float stays as it is written."""
        if value.kind == kind:
            return value
        match value.kind, kind:
            case _, "bool" if (inner := _truth_inside(value.expr)) is not None:
                return self.value(inner, "bool")
            case _, "bool":
                zero = syntax.Number(0, span=here())
                node = syntax.Comparison(value.expr, (("!=", zero),), span=here())
                return self.value(
                    node, "bool", None if value.number is None else bool(value.number), value.names
                )
            case "bool", _:
                if isinstance(value.expr, syntax.Boolean):
                    return self.value(
                        syntax.Number(int(value.expr.value), span=here()), kind, int(value.expr.value)
                    )
                number = None if value.number is None else int(value.number)
                return self.value(self.called("int", value), kind, number, value.names)
            case "float", _:
                number = None if value.number is None else int(value.number)
                return self.value(self.called("int", value), "int", number, value.names)
            case _:
                return self.value(value.expr, "float", value.number, value.names)

    def called(self, name: str, *values: Value) -> syntax.Expr:
        """`name(a, b)`."""
        function = syntax.Name(name, span=here())
        return syntax.Call(function, tuple(value.expr for value in values), span=here())

    def function(self, name: str, *values: Value) -> Value:
        """A function of the language whose result is a float, or whole where it rounds."""
        numeric = [self.numeric(value) for value in values]
        kind: Kind = "int" if name in ("floor", "ceil", "round") else "float"
        return self.value(self.called(name, *numeric), kind, *self.folded(NUMBERS.get(name), numeric))

    def folded(
        self, compute: Callable[..., Any] | None, values: list[Value]
    ) -> tuple[Number | None, frozenset[str]]:
        """The number that an operation on numbers gives, and the captured names in it."""
        names = frozenset[str]().union(*(value.names for value in values))
        numbers = [value.number for value in values]
        if compute is None or any(number is None for number in numbers):
            return None, frozenset()
        try:
            return compute(*numbers), names
        except (ArithmeticError, ValueError):
            return None, frozenset()


def _truth_inside(expr: syntax.Expr) -> syntax.Expr | None:
    """What `int(…)` of a truth value was made of."""
    match expr:
        case syntax.Call(syntax.Name("int"), (syntax.Comparison() | syntax.Logical() as inner,)):
            return inner
        case _:
            return None
