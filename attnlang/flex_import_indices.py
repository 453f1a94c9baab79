"""Indices of captured tensors that may be below 0: PyTorch counts these from the end of the axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here

FILES_OF_THE_TRACER.add(__file__)

POSITIONS = frozenset(("b", "h", "q", "k"))
Linear = tuple[dict[str, int], int]


def counted_from_the_end(
    index: syntax.Expr, length: int, numbers: Mapping[str, int | float], least: Callable[[str], float]
) -> syntax.Expr:
    """The index of an axis, `mod` its length where it may be below 0. `numbers`: of the parameters; `least`: the
    smallest element of a captured tensor."""
    if _is_natural(index, numbers, least) or _is_difference_in_a_table(index, length, numbers):
        return index
    return syntax.Binary("mod", index, syntax.Number(length, span=here()), span=here())


def _is_natural(expr: syntax.Expr, numbers: Mapping[str, int | float], least: Callable[[str], float]) -> bool:
    """Whether an expression is at least 0 wherever it is asked for."""

    def natural(part: syntax.Expr) -> bool:
        return _is_natural(part, numbers, least)

    match expr:
        case syntax.Number(value):
            return value >= 0
        case syntax.Name(name):
            return name in POSITIONS or numbers.get(name, -1) >= 0
        case syntax.Subscript(syntax.Name(name), _):
            return least(name) >= 0
        case syntax.Binary("+" | "*" | "/" | "//" | "**", left, right):
            return natural(left) and natural(right)
        case syntax.Binary("mod", _, right):
            return natural(right)
        case syntax.Conditional(_, then, otherwise):
            return natural(then) and natural(otherwise)
        case syntax.Call(syntax.Name("max"), arguments):
            return any(map(natural, arguments))
        case syntax.Call(syntax.Name("abs" | "exp" | "exp2" | "sqrt" | "sigmoid" | "softplus"), _):
            return True
        case syntax.Call(syntax.Name("min" | "floor" | "ceil" | "round" | "detach"), arguments):
            return all(map(natural, arguments))
        case syntax.Call(syntax.Name("int"), (argument,)):
            truth = isinstance(argument, syntax.Comparison | syntax.Logical | syntax.Boolean)
            return truth or natural(argument)
        case _:
            return False


def _is_difference_in_a_table(index: syntax.Expr, length: int, numbers: Mapping[str, int | float]) -> bool:
    """Whether an index is q − k + c with c in the middle of the table or beyond: with so many tokens that it falls
    below 0 it would also go beyond the end, which PyTorch refuses."""
    found = _linear(index, numbers)
    if found is None:
        return False
    factors, constant = found
    used = {name: factor for name, factor in factors.items() if factor}
    return used in ({"q": 1, "k": -1}, {"q": -1, "k": 1}) and 2 * constant >= length - 1


def _linear(expr: syntax.Expr, numbers: Mapping[str, int | float]) -> Linear | None:
    """Factors of the positions, and the constant, of a sum of them."""
    match expr:
        case syntax.Number(int() as value):
            return {}, value
        case syntax.Name(name) if name in POSITIONS:
            return {name: 1}, 0
        case syntax.Name(name) if isinstance(value := numbers.get(name), int):
            return {}, value
        case syntax.Unary("-", operand):
            return _sum(({}, 0), _linear(operand, numbers), -1)
        case syntax.Binary("+" | "-" as sign, left, right):
            return _sum(_linear(left, numbers), _linear(right, numbers), 1 if sign == "+" else -1)
        case _:
            return None


def _sum(left: Linear | None, right: Linear | None, times: int) -> Linear | None:
    if left is None or right is None:
        return None
    names = {**left[0], **right[0]}
    return {name: left[0].get(name, 0) + times * right[0].get(name, 0) for name in names}, (
        left[1] + times * right[1]
    )
