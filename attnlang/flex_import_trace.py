"""One run of mask_mod and score_mod: what PyTorch is asked for on the way, and the tensors that are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch.overrides import TorchFunctionMode

from attnlang import syntax
from attnlang.call_interface import plain
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.decorator_values import lift as lift_number
from attnlang.errors import Diagnostic
from attnlang.errors_flex import CannotTraceIndex, CannotTraceTorch
from attnlang.flex_import_captures import Captures, free_name
from attnlang.flex_import_indices import counted_from_the_end
from attnlang.flex_import_make import Make
from attnlang.flex_import_torch import call, is_known
from attnlang.flex_import_values import Kind, Number, Observed, Part, Value

FILES_OF_THE_TRACER.add(__file__)
_CPU = torch.device("cpu")
_DTYPES: dict[Kind, torch.dtype] = {"bool": torch.bool, "int": torch.int64, "float": torch.float32}
_BARE = {"b", "h", "q", "k"}


@dataclass
class CapturedTensor:
    """A tensor that the functions read: its name, and how each of its axes is indexed ('' for an expression)."""

    name: str
    tensor: torch.Tensor
    uses: list[set[str]] = field(default_factory=list[set[str]])

    def declaration(self) -> syntax.TensorDeclaration:
        """Axes that are indexed by b, h, q or k alone carry that index; both q and k are positions n."""
        axes = [self._axis(use, length) for use, length in zip(self.uses, self.shape, strict=True)]
        kind = (
            "bool" if self.tensor.dtype == torch.bool else None if self.tensor.is_floating_point() else "int"
        )
        return syntax.TensorDeclaration(self.name, tuple(axes), kind, span=here())

    @property
    def shape(self) -> tuple[int, ...]:
        """That of `value`."""
        return tuple(self.tensor.shape) or (1,)

    @property
    def value(self) -> torch.Tensor:
        """What calls pass: a single number has one axis."""
        return self.tensor if self.tensor.dim() else self.tensor.reshape(1)

    def _axis(self, use: set[str], length: int) -> syntax.Expr:
        if use == {"q", "k"}:
            return syntax.Name("n", span=here())
        if len(use) == 1 and (name := next(iter(use))):
            return syntax.Name(name, span=here())
        return syntax.Number(length, span=here())


class FlexTrace(Make):
    """Makes the expressions of one run, and keeps the tensors that it reads."""

    def __init__(self, captures: Captures) -> None:
        self.captures = captures
        self.tensors: dict[int, CapturedTensor] = {}

    def value(
        self, expr: syntax.Expr, kind: Kind, number: Number | None = None, names: frozenset[str] = frozenset()
    ) -> Value:
        return Value(self, expr, kind, number, names)

    def index(self, name: str) -> Value:
        """b, h, q or k."""
        return self.value(syntax.Name(name, span=here()), "int")

    # ---- operands

    def lift(self, input: object) -> Value:
        """An operand as a value; a captured tensor without axes is read, one made on the way is a number."""
        if isinstance(input, Value):
            return input
        if isinstance(input, Part):
            raise input.refuse()
        if isinstance(input, torch.Tensor):
            return self._lift_tensor(input)
        number = plain(input)
        if not isinstance(number, bool | int | float):
            raise CannotTraceTorch(here(), what=f"a {type(number).__name__}")
        kind: Kind = "bool" if isinstance(number, bool) else "int" if isinstance(number, int) else "float"
        return self.value(lift_number(number), kind, number)

    def _lift_tensor(self, tensor: torch.Tensor) -> Value:
        if tensor.dim():
            what = f"a tensor of shape {list(tensor.shape)}"
            raise CannotTraceIndex(here(), how=f"as a whole, {what}, where one element is meant")
        if id(tensor) not in self.captures.tensor_names:
            return self.lift(tensor.item())
        read = self.read(tensor, ())
        assert isinstance(read, Value)
        return read

    # ---- captured tensors

    def read(self, tensor: torch.Tensor, places: tuple[object, ...]) -> Value | Part:
        """An element of a captured tensor, or the tensor with fewer indices than it has."""
        if len(places) > tensor.dim():
            raise CannotTraceIndex(here(), how=f"with {len(places)} indices, it has {tensor.dim()} axes")
        indices = [self._place(place, length) for place, length in zip(places, tensor.shape, strict=False)]
        if len(places) < tensor.dim():
            return Part(self, tensor, places)
        known = self._known(tensor)
        for use, index in zip(known.uses, indices, strict=False):
            name = index.id if isinstance(index, syntax.Name) and index.id in _BARE else ""
            use.add(name)
        kind: Kind = (
            "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "int"
        )
        at = tuple(indices) or (syntax.Number(0, span=here()),)
        return self.value(syntax.Subscript(syntax.Name(known.name, span=here()), at, span=here()), kind)

    def _place(self, place: object, length: int) -> syntax.Expr:
        if place is None or place is Ellipsis or isinstance(place, slice):
            raise CannotTraceIndex(here(), how="with a slice, None or ...")
        index = self.lift(place)
        if index.kind != "int":
            raise CannotTraceIndex(here(), how=f"at a {index.kind}")
        if isinstance(index.number, int) and index.number < 0 and not index.names:
            return syntax.Number(index.number + length, span=here())
        numbers = {name: number.value for name, number in self.captures.numbers.items()}
        return counted_from_the_end(index.expr, length, numbers, self._least)

    def _least(self, name: str) -> float:
        """The smallest element of a captured tensor."""
        (found,) = (each.tensor for each in self.tensors.values() if each.name == name)
        return float(found.min()) if found.numel() else 0.0

    def _known(self, tensor: torch.Tensor) -> CapturedTensor:
        if id(tensor) not in self.tensors:
            name = self.captures.tensor_names.get(id(tensor))
            if name is None:
                name = free_name("table", self.captures.taken)
                self.captures.taken.add(name)
            axes = max(1, tensor.dim())
            self.tensors[id(tensor)] = CapturedTensor(name, tensor, [set() for _ in range(axes)])
        return self.tensors[id(tensor)]

    # ---- functions and methods

    def apply(self, name: str, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> Value:
        """An operator or a function of PyTorch."""
        return call(name, self, arguments, dict(keywords))

    def attribute(self, value: Value, name: str) -> Any:
        """Methods and the few attributes of a tensor without axes."""
        plain: dict[str, object] = {
            "device": _CPU, "dtype": _DTYPES[value.kind], "shape": torch.Size(()), "ndim": 0, "is_cuda": False,
            "requires_grad": False,
        }  # fmt: skip
        if name in plain:
            return plain[name]
        if name in ("dim", "numel"):
            return (lambda: 0) if name == "dim" else (lambda: 1)
        if name == "item":
            return value.now
        if not is_known(name):
            raise CannotTraceTorch(here(), what=f"'.{name}'")
        return functools.partial(self._method, name, value)

    def _method(self, name: str, value: Value, *arguments: object, **keywords: object) -> Value:
        return self.apply(name, (value, *arguments), keywords)


class Tracer(TorchFunctionMode):
    """While it is entered, PyTorch's functions on values give values; all others run as ever."""

    def __init__(self, trace: FlexTrace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        keywords: dict[str, Any] = kwargs or {}
        values = [each for each in _flat((args, tuple(keywords.values()))) if isinstance(each, Value | Part)]
        if not values:
            return func(*args, **keywords)
        name = getattr(func, "__name__", str(func))
        if name == "__getitem__" and isinstance(args[0], torch.Tensor):
            places = cast("tuple[object, ...]", args[1]) if isinstance(args[1], tuple) else (args[1],)
            return self.trace.read(args[0], places)
        try:
            return self.trace.apply(name, args, keywords)
        except Diagnostic:
            names = frozenset[str]().union(*(each.names for each in values if isinstance(each, Value)))
            if names and all(isinstance(each, Value) and each.number is not None for each in values):
                raise Observed(names) from None
            raise


def _flat(given: object) -> list[object]:
    if isinstance(given, tuple | list):
        return [each for part in cast("tuple[object, ...]", given) for each in _flat(part)]
    return [given]
