"""Tensors for the calls at which claims are tried: usual ones, and such as make choices tie, flip and vanish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal as OneOf

import torch
from torch import Tensor

from attnlang.call import bind
from attnlang.call_interface import Interface
from attnlang.call_numbers import NotKnown, number
from attnlang.claims_cases import Case
from attnlang.errors import Diagnostics
from attnlang.ir.interpret import Inputs
from attnlang.ir.pattern import Pattern, Recurrence
from attnlang.ir.pattern import Tensor as Declared
from attnlang.samples import random_inputs, random_tensors

Kind = OneOf["usual", "ties", "sharp"]
"""How tensors are filled. ties: few different numbers, no bool true, one int everywhere. sharp: large numbers, every
bool true, ints in any order."""

LARGEST_TENSOR = 2**22
MOST_SHOWN = 16
_INPUTS = {"Q": ("b", "h", "q", "d"), "K": ("b", "g", "k", "d"), "V": ("b", "g", "k", "e")}


def axes_of(pattern: Pattern) -> dict[str, tuple[str, ...]]:
    """What the axes of Q, K, V and of every declared tensor are indexed by."""
    declared = {tensor.name: tuple(axis.index for axis in tensor.axes) for tensor in pattern.tensors}
    return {**_INPUTS, **declared}


def fits(pattern: Pattern, case: Case, batch: int) -> bool:
    """Whether every tensor of the call has a length, and a moderate size."""
    symbols = case.symbols(batch)
    try:
        sizes = [prod(int(number(axis.size, symbols)) for axis in tensor.axes) for tensor in pattern.tensors]
    except (NotKnown, ArithmeticError):
        return False
    return all(0 <= size <= LARGEST_TENSOR for size in sizes)


def draw(pattern: Pattern, case: Case, kinds: Sequence[Kind], seed: int) -> dict[str, Tensor]:
    """Q, K, V and the declared tensors, floats in float64: one batch entry for each kind; what has no batch axis is
    filled as the first kind says."""
    symbols = case.symbols(len(kinds))
    sizes = {**case.sizes, "B": len(kinds)}
    made = random_inputs(pattern, sizes, torch.float64, seed)
    found = {name.upper(): tensor for name, tensor in made.items()}
    found |= random_tensors(pattern, symbols, seed)
    axes = axes_of(pattern)
    declared = {tensor.name: tensor for tensor in pattern.tensors}
    large = 3.0 if any(isinstance(stage, Recurrence) for stage in pattern.stages) else 30.0
    make = torch.Generator().manual_seed(seed + 2)
    for name, tensor in found.items():
        if tensor.is_floating_point():
            tensor = tensor.double()
        if "b" in axes[name]:
            dim = axes[name].index("b")
            entries = [
                _filled(part, kind, declared.get(name), axes[name][:dim] + axes[name][dim + 1 :], large, make)
                for part, kind in zip(tensor.unbind(dim), kinds, strict=True)
            ]
            found[name] = torch.stack(entries, dim)
        else:
            found[name] = _filled(tensor, kinds[0], declared.get(name), axes[name], large, make)
    return found


def _filled(
    tensor: Tensor,
    kind: Kind,
    declared: Declared | None,
    axes: tuple[str, ...],
    large: float,
    make: torch.Generator,
) -> Tensor:
    """A tensor of usual numbers, changed as its kind says; `axes` are those of this part."""
    if kind == "usual" or tensor.numel() == 0:
        return tensor
    if tensor.dtype == torch.bool:
        return torch.full_like(tensor, kind == "sharp")
    if not tensor.is_floating_point():
        if kind == "ties":
            return torch.full_like(tensor, int(tensor.reshape(-1)[0]))
        tokens = [dim for dim, index in enumerate(axes) if index in ("q", "k", "n")]
        return tensor if not tokens else _shuffled(tensor, tokens[-1], make)
    if declared is None or float(tensor.min()) < 0:
        return tensor.round().clamp(-1, 1) if kind == "ties" else tensor * large
    return torch.full_like(tensor, 0.5) if kind == "ties" else torch.where(tensor < 0.5, 0.02, 0.98)


def _shuffled(tensor: Tensor, dim: int, make: torch.Generator) -> Tensor:
    return tensor.index_select(dim, torch.randperm(tensor.shape[dim], generator=make))


def call_inputs(interface: Interface, case: Case, tensors: Mapping[str, Tensor]) -> Inputs | None:
    """The call with these tensors, or None where it is refused."""
    declared = {name: tensor for name, tensor in tensors.items() if name in interface.tensors}
    try:
        call = bind(
            interface, tensors["Q"], tensors["K"], tensors["V"], q_offset=case.q_offset,
            arguments={**case.parameters, **declared},
        )  # fmt: skip
    except Diagnostics:
        return None
    return Inputs(call.q, call.k, call.v, call.sizes, call.scalars, call.tensors)


def one_entry(pattern: Pattern, tensors: Mapping[str, Tensor], entry: int) -> dict[str, Tensor]:
    """The call of one batch entry."""
    return {
        name: tensor.narrow(axes.index("b"), entry, 1) if "b" in axes else tensor
        for (name, tensor), axes in ((item, axes_of(pattern)[item[0]]) for item in tensors.items())
    }


def small_values(interface: Interface, tensors: Mapping[str, Tensor], read: frozenset[str]) -> str:
    """`ids = [0, 0, 1]`: the bools and ints among the tensors that are read, where they are short."""
    parts: list[str] = []
    for name, tensor in tensors.items():
        shown = name in read and name in interface.tensors and not tensor.is_floating_point()
        if shown and tensor.numel() <= MOST_SHOWN:
            values = [str(value.item()).lower() for value in tensor.reshape(-1)]
            parts.append(f"{name} = [{', '.join(values)}]")
    return ", ".join(parts)


def first_place(condition: Tensor) -> tuple[int, ...] | None:
    """Where a condition over [B, H, NQ, …] holds first: the first query, then the first head and batch entry."""
    places = [tuple(int(index) for index in place) for place in condition.nonzero()]
    return min(places, key=lambda place: (place[2], place[1], place[0]), default=None)


def differ(one: Tensor, other: Tensor) -> Tensor:
    """Where two results are not the same number, up to rounding in float64; NaN is like NaN."""
    same = (one == other) | (one.isnan() & other.isnan())
    near = (one - other).abs() <= 1e-9 * (1 + torch.maximum(one.abs(), other.abs()))
    return ~(same | near)
