"""The tensors of a call: what they hold, where they are, and whether their axes have the lengths they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnlang.call_interface import described
from attnlang.call_numbers import NotKnown, Number, number, symbols_of
from attnlang.errors import Diagnostic
from attnlang.errors_driver import (
    NoValues,
    SizeIsZero,
    SizesDisagree,
    UnknownDType,
    WrongArgumentType,
    WrongDevice,
    WrongElements,
    WrongLength,
    WrongRank,
)
from attnlang.ir.kernel import Type
from attnlang.ir.pattern import DType, Expr, Literal, Tensor

if TYPE_CHECKING:
    import torch

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTS = ("int64", "int32", "int16", "int8", "uint8")
ELEMENTS: dict[DType, tuple[str, ...]] = {"float": FLOATS, "int": INTS, "bool": ("bool",)}
_ADVICE: dict[DType, str] = {
    "float": "convert it with .float()",
    "int": "convert it with .long()",
    "bool": "",
}
_AXES = {"q": "[B, H, NQ, D]", "k": "[B, HK, NK, D]", "v": "[B, HK, NK, DV]"}
_SIZES = {"q": ("B", "H", "NQ", "D"), "k": ("B", "HK", "NK", "D"), "v": ("B", "HK", "NK", "DV")}
_MEANING = {
    "B": "the batch size", "H": "the number of heads", "HK": "the number of key/value heads",
    "NQ": "the number of queries", "NK": "the number of keys", "D": "the head size", "DV": "the head size",
}  # fmt: skip


@dataclass(frozen=True)
class InputsFound:
    """q, k and v as far as they are tensors, the sizes on which they agree, and the mistakes."""

    tensors: dict[str, torch.Tensor]
    sizes: dict[str, int]
    mistakes: list[Diagnostic]


def check_inputs(pattern: str, q: object, k: object, v: object) -> InputsFound:
    """What q, k and v are, with the sizes B H HK NQ NK D DV that they agree on."""
    mistakes: list[Diagnostic] = []
    tensors: dict[str, torch.Tensor] = {}
    sizes: dict[str, int] = {}
    owners: dict[str, str] = {}
    wrong: set[str] = set()
    for name, given in (("q", q), ("k", k), ("v", v)):
        tensor, found = _tensor(pattern, name, given, "float")
        mistakes += found
        if tensor is None:
            continue
        tensors[name] = tensor
        if tensor.dim() != 4:
            shape = list(tensor.shape)
            mistakes.append(WrongRank(None, pattern=pattern, name=name, axes=_AXES[name], shape=shape))
            continue
        for size, length in zip(_SIZES[name], tensor.shape, strict=True):
            if length == 0:
                what = f"{_MEANING[size]} of '{name}'"
                mistakes.append(SizeIsZero(None, pattern=pattern, what=what, found=0))
                wrong.add(size)
            elif sizes.setdefault(size, length) != length:
                mistakes.append(_disagree(pattern, size, owners[size], name, sizes[size], length))
                wrong.add(size)
            owners.setdefault(size, name)
    agreed = {size: length for size, length in sizes.items() if size not in wrong}
    return InputsFound(tensors, agreed, mistakes)


def _disagree(pattern: str, size: str, first: str, second: str, left: int, right: int) -> Diagnostic:
    return SizesDisagree(
        None, pattern=pattern, what=_MEANING[size], first=first, second=second, left=left, right=right
    )


def check_tensor(
    pattern: str, declared: Tensor, given: object, symbols: Mapping[str, Number]
) -> tuple[torch.Tensor | None, list[Diagnostic]]:
    """A declared tensor with the mistakes in it; lengths that depend on unknown sizes are not checked."""
    tensor, mistakes = _tensor(pattern, declared.name, given, declared.dtype)
    if tensor is None:
        return None, mistakes
    written = f"[{', '.join(axis.written for axis in declared.axes)}]"
    if tensor.dim() != len(declared.axes):
        shape = list(tensor.shape)
        return None, [
            *mistakes,
            WrongRank(None, pattern=pattern, name=declared.name, axes=written, shape=shape),
        ]
    for axis, length in zip(declared.axes, tensor.shape, strict=True):
        try:
            expected: Number | str = number(axis.size, symbols)
        except NotKnown:
            continue
        except ArithmeticError as error:
            expected = f"{axis.written} ({error})"
        if length != expected:
            advice = _origin(declared, axis.size, symbols)
            mistakes.append(
                WrongLength(
                    None, advice, pattern=pattern, axis=axis.written, name=declared.name, expected=expected,
                    found=length,
                )
            )  # fmt: skip
    return tensor, mistakes


def _origin(declared: Tensor, size: Expr, symbols: Mapping[str, Number]) -> str:
    """Where a length comes from: `bias[h, 2 * reach - 1], here reach = 512`."""
    shape = f"{declared.name}[{', '.join(axis.written for axis in declared.axes)}]"
    if isinstance(size, Literal):
        return f"declared as {shape}"
    names = [name for name in symbols_of(size) if name in symbols]
    return f"declared as {shape}; here {', '.join(f'{name} = {symbols[name]}' for name in names)}"


def check_together(pattern: str, tensors: Mapping[str, torch.Tensor]) -> list[Diagnostic]:
    """Whether q, k and v have one dtype, and all tensors one device."""
    mistakes: list[Diagnostic] = []
    inputs = {name: tensors[name].dtype for name in ("q", "k", "v") if name in tensors}
    if len(set(inputs.values())) > 1 and all(_kind(dtype) in FLOATS for dtype in inputs.values()):
        found = ", ".join(f"{name} {_kind(dtype)}" for name, dtype in inputs.items())
        mistakes.append(
            WrongElements(
                None,
                "convert them with .to(dtype)",
                pattern=pattern,
                name="q, k, v",
                expected="one dtype",
                found=found,
            )
        )
    devices: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        devices.setdefault(str(tensor.device), []).append(name)
    if len(devices) > 1:
        found = ", ".join(f"{' '.join(names)} on {device}" for device, names in devices.items())
        mistakes.append(WrongDevice(None, pattern=pattern, found=found))
    return mistakes


def _tensor(
    pattern: str, name: str, given: object, dtype: DType
) -> tuple[torch.Tensor | None, list[Diagnostic]]:
    """The argument as a tensor that holds `dtype`, or None; what it holds may be wrong while its shape counts."""
    import torch

    if not isinstance(given, torch.Tensor):
        advice = "convert it with torch.as_tensor(…)" if given is not None else ""
        report = WrongArgumentType(
            None, advice, pattern=pattern, name=name, expected="a torch.Tensor", found=described(given)
        )
        return None, [report]
    if given.layout != torch.strided or given.is_nested:
        problem = "is sparse or nested: only strided tensors have a layout that kernels can read"
        return None, [
            NoValues(None, "convert it with .to_dense()", pattern=pattern, name=name, problem=problem)
        ]
    if given.device.type == "meta":
        return None, [NoValues(None, pattern=pattern, name=name, problem="is on 'meta' and has no values")]
    if _is_mapped(given):
        advice = "make the mapped axis part of the batch, the first axis of q, k and v"
        return None, [
            NoValues(None, advice, pattern=pattern, name=name, problem="is mapped over by torch.vmap")
        ]
    kind = _kind(given.dtype)
    if kind in ELEMENTS[dtype]:
        return given, []
    words = {"float": "floats", "int": "ints", "bool": "true and false (torch.bool)"}[dtype]
    expected = f"{words} ({', '.join(ELEMENTS[dtype])})" if dtype != "bool" else words
    advice = "compare it with something, as in x != 0" if dtype == "bool" else _ADVICE[dtype]
    return given, [WrongElements(None, advice, pattern=pattern, name=name, expected=expected, found=kind)]


def _is_mapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor stands for many inside torch.vmap: what depends on values cannot be asked of it."""
    import torch

    functorch: Any = getattr(torch, "_C")._functorch  # noqa: B009  # PyTorch has no public name for it
    return bool(functorch.is_batchedtensor(tensor))


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_NAMES: dict[str, Type] = {
    "fp16": "fp16", "float16": "fp16", "half": "fp16", "bf16": "bf16", "bfloat16": "bf16",
    "fp32": "fp32", "float32": "fp32", "float": "fp32", "fp64": "fp64", "float64": "fp64", "double": "fp64",
    "int64": "i64", "i64": "i64", "int32": "i32", "i32": "i32", "int8": "i8", "i8": "i8", "bool": "i1", "i1": "i1",
}  # fmt: skip


def dtype_name(pattern: str, dtype: object) -> Type:
    """`bf16` for "bf16", "bfloat16" and torch.bfloat16; raises UnknownDType."""
    text = str(dtype).removeprefix("torch.")
    if text not in _NAMES:
        raise UnknownDType(pattern=pattern, dtype=repr(text), dtypes="fp16, bf16, fp32, fp64")
    return _NAMES[text]
