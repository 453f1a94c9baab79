"""What a call of a pattern is checked against, found once per pattern, and the values of its parameters."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from attnlang.call_numbers import Number, is_number
from attnlang.call_reads import RowRead, reads, row_reads
from attnlang.errors import Diagnostic, Diagnostics, NameTaken, nearest
from attnlang.errors_driver import MissingArgument, ParameterOutOfRange, UnknownArgument, WrongArgumentType
from attnlang.ir.pattern import Attention, DType, Merge, Parameter, Pattern, Requirement, Tensor

LARGEST_INT = 2**63 - 1
_COMPARED = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "eq": "=", "ne": "≠"}
_HOLDS: dict[str, Callable[[int | float, int | float], bool]] = {
    "ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
_WORDS: dict[DType, str] = {"int": "an int", "float": "a number", "bool": "true or false"}


@dataclass(frozen=True)
class Interface:
    """A pattern and what its calls need to know of it; kept by whoever calls it often."""

    pattern: Pattern

    @cached_property
    def name(self) -> str:
        """How reports call the pattern."""
        return f"'{self.pattern.name}'"

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """By name, in the order of their declaration."""
        return {parameter.name: parameter for parameter in self.pattern.parameters}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """By name, in the order of their declaration."""
        return {tensor.name: tensor for tensor in self.pattern.tensors}

    @cached_property
    def read(self) -> frozenset[str]:
        """The tensors that anything in the pattern reads; the others may be left out (`dense()` leaves some)."""
        return frozenset(read.source for read in reads(self.pattern)) & frozenset(self.tensors)

    @cached_property
    def row_reads(self) -> tuple[RowRead, ...]:
        """The reads that need every query to be a position, or every position a query."""
        return row_reads(self.pattern)

    @cached_property
    def value_requirements(self) -> tuple[Requirement, ...]:
        """The requirements that sizes and parameters alone do not decide."""
        return tuple(each for each in self.pattern.requirements if not is_number(each.condition))

    @cached_property
    def result(self) -> Attention | Merge | None:
        """The one attention or merge whose lse and weights the pattern returns."""
        for stage in self.pattern.stages:
            if stage.name == self.pattern.result and isinstance(stage, Attention | Merge):
                return stage
        return None


RESERVED = {
    *("self", "scale", "q_offset", "return_lse", "return_weights", "target"),
    *("heads", "kv_heads", "batch", "head_dim", "value_dim", "dtype", "NQ", "NK"),
}
"""What the methods of Pattern take by name besides parameters and tensors."""


def check_reserved(pattern: Pattern) -> None:
    """Raises Diagnostics where a parameter or tensor could not be passed by its name, because it has a meaning."""
    declared = [(parameter.name, "a parameter", parameter.span) for parameter in pattern.parameters]
    declared += [(tensor.name, "a tensor", tensor.span) for tensor in pattern.tensors]
    mistakes: list[Diagnostic] = [
        NameTaken(
            span if span.source.text else None, name=name, what=what, meaning="an argument of every pattern"
        )
        for name, what, span in declared
        if name in RESERVED
    ]
    if mistakes:
        raise Diagnostics(mistakes)


def check_text(function: str, name: str, given: object) -> None:
    """Raises Diagnostics where an argument of attnlang.load or attnlang.parse is no str."""
    if not isinstance(given, str):
        advice = "attnlang.load(…) reads a file" if function == "parse" and name == "text" else ""
        found = described(given)
        raise Diagnostics(
            [
                WrongArgumentType(
                    None, advice, pattern=f"attnlang.{function}", name=name, expected="a str", found=found
                )
            ]
        )


def bind_names(
    interface: Interface, arguments: Mapping[str, object], *, all_tensors: bool
) -> list[Diagnostic]:
    """Unknown names among the arguments, and the tensors that are missing (where all are needed)."""
    mistakes: list[Diagnostic] = []
    known = [*interface.parameters, *interface.tensors]
    for name in arguments:
        if name in interface.parameters or name in interface.tensors:
            continue
        near = nearest(name, known)
        advice = (
            f"did you mean '{near}'?" if near else f"it has {', '.join(known)}" if known else "it has none"
        )
        mistakes.append(UnknownArgument(None, advice, pattern=interface.name, name=name))
    for name, tensor in interface.tensors.items():
        if all_tensors and name in interface.read and arguments.get(name) is None:
            axes = ", ".join(axis.written for axis in tensor.axes)
            advice = f"declared as {name}[{axes}]: {tensor.dtype}; pass {name}=…"
            mistakes.append(MissingArgument(None, advice, pattern=interface.name, kind="tensor", name=name))
    return mistakes


def bind_parameters(
    interface: Interface, arguments: Mapping[str, object], *, partly: bool = False
) -> tuple[dict[str, Number], list[Diagnostic]]:
    """Every parameter with its value, and the mistakes; `partly` leaves out those without value and default."""
    values: dict[str, Number] = {}
    mistakes: list[Diagnostic] = []
    for name, parameter in interface.parameters.items():
        if name in arguments:
            try:
                values[name] = parameter_value(interface.name, parameter, arguments[name])
            except Diagnostic as mistake:
                mistakes.append(mistake)
        elif parameter.default is not None:
            values[name] = parameter.default
        elif not partly:
            advice = f"it has no default; pass {name}=…"
            mistakes.append(
                MissingArgument(None, advice, pattern=interface.name, kind="parameter", name=name)
            )
    return values, mistakes


def parameter_value(pattern: str, parameter: Parameter, given: object) -> Number:
    """The value of one parameter: a Python number, or a NumPy scalar or tensor with a single one.

    Raises WrongArgumentType or ParameterOutOfRange.
    """
    value = plain(given)
    wanted = _WORDS[parameter.dtype]

    def wrong(hint: str = "") -> Diagnostic:
        found = described(given)
        return WrongArgumentType(
            None, hint, pattern=pattern, name=parameter.name, expected=wanted, found=found
        )

    if getattr(given, "requires_grad", False) is True:
        raise wrong("a parameter has no gradient; what is learned is declared as a tensor")
    match parameter.dtype, value:
        case "bool", bool():
            return value
        case "int", int() if not isinstance(value, bool):
            pass
        case "int", float() if value.is_integer():
            raise wrong(f"write {int(value)}")
        case "float", int() | float() if not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise wrong("it is too large") from None
            if math.isnan(value):
                raise wrong()
        case _:
            raise wrong()
    check_range(pattern, parameter, value)
    return value


def check_range(pattern: str, parameter: Parameter, value: int | float) -> None:
    """Raises ParameterOutOfRange where a declared bound does not hold, or an int needs more than 64 bits."""
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        short = f"an int of {value.bit_length()} bits"
        raise ParameterOutOfRange(
            parameter.span, "", pattern=pattern, name=parameter.name, bounds="below 2**63", value=short
        )
    if not all(_HOLDS[comparison](value, bound) for comparison, bound in parameter.bounds):
        bounds = " and ".join(f"{_COMPARED[comparison]} {bound}" for comparison, bound in parameter.bounds)
        raise ParameterOutOfRange(
            None, "", pattern=pattern, name=parameter.name, bounds=bounds, value=str(value)
        )


def plain(given: object) -> object:
    """A NumPy scalar or a tensor without axes as the Python number in it; anything else as it is."""
    if isinstance(given, bool | int | float):
        return given
    item = getattr(given, "item", None)
    if getattr(given, "shape", None) != () or not callable(item):
        return given
    if str(getattr(given, "device", "cpu")).startswith("meta"):
        return given
    return item()


def described(given: object) -> str:
    """What was passed, short enough for a report: `1.5`, `'wide'`, `a float32 tensor of shape [2, 3]`."""
    shape = getattr(given, "shape", None)
    if shape is not None:
        kind = str(getattr(given, "dtype", "")).removeprefix("torch.")
        what = "tensor" if type(given).__module__.startswith("torch") else type(given).__name__
        article = "an" if kind[:1] in ("i", "u") else "a"
        size = f"of shape {list(shape)}" if shape else "without axes"
        learned = " with a gradient" if getattr(given, "requires_grad", False) is True else ""
        return f"{article} {kind} {what} {size}{learned}"
    if given is None:
        return "None"
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:59]}… ({type(given).__name__})"
