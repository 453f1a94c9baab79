"""What functions have captured: numbers, which become parameters, and tensors with the names they go by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch

from attnlang.decorator_source import FILES_OF_THE_TRACER
from attnlang.decorator_values import is_name

FILES_OF_THE_TRACER.add(__file__)

DEEPEST = 4
"""How far into containers and objects the names of tensors are looked for."""


@dataclass(frozen=True)
class CapturedNumber:
    """A number behind a variable: the parameter that it becomes."""

    name: str
    value: int | float


@dataclass
class Captures:
    """`numbers` by parameter name, `tensor_names` by the identity of the tensor, `taken` names of both."""

    taken: set[str]
    numbers: dict[str, CapturedNumber] = field(default_factory=dict[str, CapturedNumber])
    tensor_names: dict[int, str] = field(default_factory=dict[int, str])
    variables: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])
    kept: list[object] = field(default_factory=list[object])

    def number(self, place: tuple[int, str], written: str, value: int | float) -> CapturedNumber:
        """The parameter of a variable, the same each time it is met."""
        if place not in self.variables:
            name = free_name(written, self.taken)
            self.taken.add(name)
            self.variables[place] = name
            self.numbers[name] = CapturedNumber(name, value)
        return self.numbers[self.variables[place]]

    def tensor(self, written: str, tensor: torch.Tensor) -> None:
        """The name of a tensor is that of the first variable it is found behind."""
        if id(tensor) not in self.tensor_names:
            name = free_name(written, self.taken)
            self.taken.add(name)
            self.tensor_names[id(tensor)] = name
            self.kept.append(tensor)


def free_name(written: str, taken: set[str]) -> str:
    """The name as the text form can write it, with a number behind where it is taken."""
    base = written.strip("_") or "value"
    base = base if is_name(base) else "value"
    if base not in taken:
        return base
    return next(name for number in range(2, 10**6) if (name := f"{base}_{number}") not in taken)


class Rebuilder:
    """Makes copies of functions in which captured numbers are replaced, through and_masks and other helpers."""

    def __init__(self, captures: Captures, replace: Callable[[CapturedNumber], object]) -> None:
        self.captures = captures
        self.replace = replace
        self.done: dict[int, object] = {}

    def rebuilt(self, name: str, given: object) -> Any:
        """A captured object with the numbers in it replaced; the tensors in it get names."""
        match given:
            case FunctionType():
                return self._function(given)
            case MethodType():
                self._names_in(name, given.__self__, DEEPEST)
                inner = given.__func__
                return self.rebuilt(name, inner).__get__(given.__self__)
            case functools.partial():
                part = cast("functools.partial[Any]", given)
                for each, value in part.keywords.items():
                    self._names_in(each, value, DEEPEST)
                return functools.partial(self.rebuilt(name, part.func), *part.args, **part.keywords)
            case tuple() | list() if any(callable(each) for each in cast("tuple[object, ...]", given)):
                members = [self.rebuilt(name, each) for each in cast("tuple[object, ...]", given)]
                return tuple(members) if isinstance(given, tuple) else members
            case _:
                self._names_in(name, given, DEEPEST)
                return given

    def _function(self, function: FunctionType) -> object:
        if id(function) in self.done:
            return self.done[id(function)]
        if function.__module__ and function.__module__.startswith("torch") and function.__closure__ is None:
            return function
        names: dict[str, Any] = dict(function.__globals__)
        cells = tuple(CellType() for _ in function.__closure__ or ())
        made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells or None)
        made.__kwdefaults__ = function.__kwdefaults__
        self.done[id(function)] = made
        self.captures.kept.append(function)
        for default in (function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            for each in default:
                self._names_in("table", each, 0)
        for name in sorted(_global_names(function.__code__) & set(names)):
            names[name] = self._variable(id(function.__globals__), name, names[name])
        for name, cell, old in zip(
            function.__code__.co_freevars, cells, function.__closure__ or (), strict=True
        ):
            if _is_filled(old):
                cell.cell_contents = self._variable(id(old), name, old.cell_contents)
        return made

    def _variable(self, place: int, name: str, given: object) -> object:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return self.replace(self.captures.number((place, name), name, given))
        return self.rebuilt(name, given)

    def _names_in(self, name: str, given: object, depth: int) -> None:
        """Finds tensors behind containers and attributes."""
        if isinstance(given, torch.Tensor):
            self.captures.tensor(name, given)
        elif depth and not isinstance(given, ModuleType | type | FunctionType):
            for inner, value in _members(name, given):
                self._names_in(inner, value, depth - 1)


def _members(name: str, given: object) -> Iterator[tuple[str, object]]:
    if isinstance(given, dict):
        for key, value in cast("dict[object, object]", given).items():
            yield (key if isinstance(key, str) else name), value
    elif isinstance(given, tuple | list):
        for value in cast("tuple[object, ...]", given):
            yield name, value
    elif hasattr(given, "__dict__"):
        yield from vars(given).items()


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _global_names(code: CodeType) -> set[str]:
    inner = [_global_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)
