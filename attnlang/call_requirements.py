"""The requirements of a pattern: conditions on sizes and parameters, and on the values of the tensors of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from attnlang.call_interface import Interface
from attnlang.call_numbers import NotKnown, Number, number
from attnlang.errors import Diagnostic
from attnlang.errors_driver import RequirementFails
from attnlang.ir.pattern import Axis, Expr, Index, Read, Reduce, Requirement, Symbol, children

if TYPE_CHECKING:
    import torch

MOST_SHOWN = 4


def check_sizes(interface: Interface, symbols: Mapping[str, Number]) -> list[Diagnostic]:
    """Reports on the requirements that do not hold, as far as sizes and parameters decide them."""
    mistakes: list[Diagnostic] = []
    for requirement in interface.pattern.requirements:
        trouble = ""
        try:
            if number(requirement.condition, symbols):
                continue
        except NotKnown:
            continue
        except ArithmeticError as error:
            trouble = f" ({error})"
        shown = ", ".join(_symbols(requirement.condition, symbols))
        mistakes.append(_report(interface, requirement, shown + trouble))
    return mistakes


def check_values(
    interface: Interface, symbols: Mapping[str, Number], tensors: Mapping[str, torch.Tensor]
) -> list[Diagnostic]:
    """Reports on the requirements on the values of tensors (`Q`, `K`, `V` and declared ones) that do not hold, each
    with the first element that breaks it. One that reads what is not given is not checked."""
    mistakes: list[Diagnostic] = []
    for requirement in interface.value_requirements:
        parts = list(_parts(requirement.condition))
        sources = {part.source for part in parts if isinstance(part, Read)}
        names = {part.name for part in parts if isinstance(part, Symbol)}
        if sources <= tensors.keys() and names <= symbols.keys():
            mistakes += _check_values(
                interface, requirement, symbols, {name: tensors[name] for name in sources}
            )
    return mistakes


def _check_values(
    interface: Interface,
    requirement: Requirement,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, torch.Tensor],
) -> list[Diagnostic]:
    from attnlang.ir.interpret_requirement import first_failure

    try:
        failure = first_failure(requirement.condition, tensors, symbols)
    except ArithmeticError as error:
        return [_report(interface, requirement, f"({error})")]
    if failure is None:
        return []
    shown = [
        *_elements(failure.condition, symbols, failure.place, tensors),
        *_indices(failure.condition, failure.place),
        *_symbols(failure.condition, symbols),
    ]
    return [_report(interface, requirement, ", ".join(dict.fromkeys(shown)))]


def _report(interface: Interface, requirement: Requirement, values: str) -> Diagnostic:
    span = requirement.span if requirement.span.source.text else None
    hint = f"here {values}" if values else ""
    return RequirementFails(span, hint, pattern=interface.name, written=requirement.written)


# ---------------------------------------------------------------------------------------- what is shown


def _elements(
    condition: Expr,
    symbols: Mapping[str, Number],
    place: Mapping[Axis, int],
    tensors: Mapping[str, torch.Tensor],
) -> list[str]:
    """`level[0, 1, 3, 2] = 5`: the elements that are read at a place, the first few."""
    found: dict[str, None] = {}
    for part in _parts(condition):
        if not isinstance(part, Read):
            continue
        try:
            at = [int(number(index, symbols, place)) for index in part.at]
        except (NotKnown, ArithmeticError):
            continue
        tensor = tensors[part.source]
        if all(0 <= offset < length for offset, length in zip(at, tensor.shape, strict=True)):
            name = f"{part.source}[{', '.join(map(str, at))}]" if at else part.source
            found[f"{name} = {_element(tensor[tuple(at)].item())}"] = None
    return list(found)[:MOST_SHOWN]


def _indices(condition: Expr, place: Mapping[Axis, int]) -> list[str]:
    """`q = 3`: index variables that enter as numbers."""
    match condition:
        case Index(axis) if axis in place:
            return [f"{axis.name} = {place[axis]}"]
        case Read():
            return []
        case _:
            return [text for part in children(condition) for text in _indices(part, place)]


def _symbols(condition: Expr, symbols: Mapping[str, Number]) -> list[str]:
    """`block = 4`: the parameters and sizes that enter, in the order of their first use."""
    names = dict.fromkeys(part.name for part in _written_parts(condition) if isinstance(part, Symbol))
    return [f"{name} = {_shown(symbols[name])}" for name in names if name in symbols]


def _written_parts(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it, but for the places of reads and the lengths of index variables."""
    yield expr
    if not isinstance(expr, Read):
        for child in children(expr):
            yield from _written_parts(child)


def _parts(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it, with the lengths and starts of its index variables."""
    yield expr
    axes = expr.axes if isinstance(expr, Reduce) else (expr.axis,) if isinstance(expr, Index) else ()
    for part in (*children(expr), *(bound for axis in axes for bound in (axis.size, axis.start))):
        yield from _parts(part)


def _element(value: Number) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _shown(value)


def _shown(value: Number) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
