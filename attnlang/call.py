"""The arguments of a call, checked: sizes, parameters and tensors, or every mistake at once in the user's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnlang.call_interface import LARGEST_INT, Interface, bind_names, bind_parameters, described, plain
from attnlang.call_numbers import NotKnown, Number, number
from attnlang.call_reads import negative_rows_are_empty
from attnlang.call_requirements import check_sizes, check_values
from attnlang.call_tensors import check_inputs, check_tensor, check_together
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.errors_driver import (
    NotOneSoftmax,
    PositionOutside,
    SizeIsZero,
    SizeTooLarge,
    WrongArgumentType,
)
from attnlang.ir.pattern import Attention, Merge

if TYPE_CHECKING:
    import torch


LARGEST_SIZE = 2**31
_DEFAULTS = {"HK": "H", "D": "", "DV": "D"}
"""Sizes that need not be given, and those they are then equal to."""


@dataclass(frozen=True)
class Binding:
    """What is known of a call without its queries, keys and values.

    `sizes` B H HK NQ NK, and D DV where they are known; `parameters` all of them, typed and in range; `tensors`
    the declared ones that were given.
    """

    sizes: Mapping[str, int]
    parameters: Mapping[str, Number]
    q_offset: int
    scale: float
    tensors: Mapping[str, torch.Tensor]

    @property
    def scalars(self) -> dict[str, Number]:
        """The parameters, q_offset and scale: what the pattern reads as symbols besides the sizes."""
        return {**self.parameters, "q_offset": self.q_offset, "scale": self.scale}


@dataclass(frozen=True)
class Call(Binding):
    """A call: q [B, H, NQ, D], k [B, HK, NK, D], v [B, HK, NK, DV], of one dtype on one device."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of q, k and v."""
        return self.q.dtype

    @property
    def device(self) -> torch.device:
        """Where every tensor of the call is."""
        return self.q.device


def bind(
    interface: Interface,
    q: object,
    k: object,
    v: object,
    *,
    scale: object = None,
    q_offset: object = None,
    arguments: Mapping[str, object],
) -> Call:
    """The checked call. Raises Diagnostics with every mistake of the arguments."""
    mistakes = bind_names(interface, arguments, all_tensors=True)
    inputs = check_inputs(interface.name, q, k, v)
    mistakes += inputs.mistakes
    known, found = _bind(interface, inputs.sizes, scale, q_offset, arguments, partly=False)
    mistakes += found
    mistakes += check_together(interface.name, {**inputs.tensors, **known.tensors})
    if mistakes:
        raise Diagnostics(mistakes)
    three = q, k, v = inputs.tensors["q"], inputs.tensors["k"], inputs.tensors["v"]
    symbols = {**known.sizes, **known.scalars}
    mistakes = check_values(interface, symbols, {**known.tensors, "Q": q, "K": k, "V": v})
    if mistakes:
        raise Diagnostics(mistakes)
    return Call(known.sizes, known.parameters, known.q_offset, known.scale, known.tensors, *three)


def bind_sizes(
    interface: Interface,
    NQ: object,
    NK: object,
    *,
    heads: object = 1,
    kv_heads: object = None,
    batch: object = 1,
    head_dim: object = None,
    value_dim: object = None,
    q_offset: object = None,
    scale: object = None,
    arguments: Mapping[str, object],
) -> Binding:
    """A call that has sizes in place of q, k and v; tensors may be left out. Raises Diagnostics.

    Without `head_dim` and `value_dim` the sizes D and DV are unknown and what depends on them is not checked.
    """
    mistakes = bind_names(interface, arguments, all_tensors=False)
    given = {
        "B": ("batch", batch), "H": ("heads", heads), "HK": ("kv_heads", kv_heads),
        "NQ": ("NQ", NQ), "NK": ("NK", NK),
        "D": ("head_dim", head_dim), "DV": ("value_dim", value_dim),
    }  # fmt: skip
    sizes, found = check_lengths(interface, given)
    mistakes += found
    binding, found = _bind(interface, sizes, scale, q_offset, arguments, partly=True)
    mistakes += found
    mistakes += check_together(interface.name, binding.tensors)
    if not mistakes:
        mistakes += check_values(interface, {**binding.sizes, **binding.scalars}, binding.tensors)
    if mistakes:
        raise Diagnostics(mistakes)
    return binding


def check_lengths(
    interface: Interface, given: Mapping[str, tuple[str, object]]
) -> tuple[dict[str, int], list[Diagnostic]]:
    """The sizes B HK … from arguments: size → name, value. None is the default, where there is one."""
    mistakes: list[Diagnostic] = []
    sizes: dict[str, int] = {}
    for size, (name, value) in given.items():
        value = plain(value)
        if value is None and size in _DEFAULTS:
            if (default := _DEFAULTS[size]) in sizes:
                sizes[size] = sizes[default]
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            found = described(value)
            mistakes.append(
                WrongArgumentType(None, pattern=interface.name, name=name, expected="an int", found=found)
            )
        elif value < 1:
            mistakes.append(SizeIsZero(None, pattern=interface.name, what=f"'{name}'", found=value))
        elif value >= LARGEST_SIZE:
            mistakes.append(
                SizeTooLarge(None, pattern=interface.name, what=f"'{name}'", limit="2**31", found=value)
            )
        else:
            sizes[size] = value
    return sizes, mistakes


def check_wanted(interface: Interface, *, lse: bool, weights: bool) -> None:
    """Raises NotOneSoftmax where the pattern has no lse or weights to return."""
    stage = interface.result
    reason = "its result is not one attention"
    if lse and not (isinstance(stage, Merge) or (isinstance(stage, Attention) and stage.has_lse)):
        reason = reason if stage is None else "its weights are not one softmax"
        raise NotOneSoftmax(None, pattern=interface.name, what="lse", reason=reason, argument="return_lse")
    if weights and not isinstance(stage, Attention):
        raise NotOneSoftmax(
            None, pattern=interface.name, what="weights", reason=reason, argument="return_weights"
        )


def check_position(interface: Interface, given: object) -> int:
    """The position of a query, from 0; raises WrongArgumentType."""
    return _whole(interface, "q", given, 0)


def check_block(interface: Interface, given: object) -> int:
    """The length of a block, from 1; raises WrongArgumentType."""
    return _whole(interface, "block_size", given, 1)


def _whole(interface: Interface, name: str, given: object, least: int) -> int:
    value = plain(given)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        expected, found = f"an int of at least {least}", described(given)
        raise WrongArgumentType(None, pattern=interface.name, name=name, expected=expected, found=found)
    return value


# --------------------------------------------------------------------------------------------------- parts


def _bind(
    interface: Interface,
    sizes: dict[str, int],
    scale: object,
    offset: object,
    arguments: Mapping[str, object],
    *,
    partly: bool,
) -> tuple[Binding, list[Diagnostic]]:
    """Everything but q, k and v. Where sizes are missing after a mistake, what depends on them is not checked."""
    parameters, mistakes = bind_parameters(interface, arguments)
    symbols: dict[str, Number] = {**sizes, **parameters}
    tensors: dict[str, torch.Tensor] = {}
    for name, declared in interface.tensors.items():
        if arguments.get(name) is not None:
            tensor, found = check_tensor(interface.name, declared, arguments[name], symbols)
            mistakes += found
            if tensor is not None:
                tensors[name] = tensor
    try:
        q_offset = _q_offset(interface, sizes, offset)
        factor = _scale(interface, sizes, scale)
    except Diagnostic as mistake:
        return Binding(sizes, parameters, 0, 1.0, tensors), [*mistakes, mistake]
    symbols |= {"scale": factor}
    if q_offset is not None:
        symbols["q_offset"] = q_offset
        mistakes += check_sizes(interface, symbols)
        if not mistakes:
            mistakes += _check_rows(interface, symbols, tensors if partly else None)
    return Binding(sizes, parameters, q_offset or 0, factor, tensors), mistakes


def _q_offset(interface: Interface, sizes: Mapping[str, int], given: object) -> int | None:
    """The position of the first query; None where the lengths are not known."""
    value = plain(given)
    if value is None:
        return sizes["NK"] - sizes["NQ"] if "NQ" in sizes and "NK" in sizes else None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST_INT // 4:
        found = described(given)
        raise WrongArgumentType(
            None, pattern=interface.name, name="q_offset", expected="an int of 60 bits", found=found
        )
    return value


def _scale(interface: Interface, sizes: Mapping[str, int], given: object) -> float:
    """The factor of the scores: 1/√D unless given (1 where D is not known either)."""
    value = plain(given)
    if value is None:
        return sizes["D"] ** -0.5 if "D" in sizes else 1.0
    learned = getattr(given, "requires_grad", False) is True
    try:
        factor = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        factor = None
    if factor is None or learned or not abs(factor) < float("inf"):
        advice = "scale has no gradient; declare a tensor and write it into the score" if learned else ""
        raise WrongArgumentType(
            None,
            advice,
            pattern=interface.name,
            name="scale",
            expected="a finite number",
            found=described(given),
        )
    return factor


def _check_rows(
    interface: Interface, symbols: Mapping[str, Number], given: Mapping[str, object] | None
) -> list[Diagnostic]:
    """Whether the queries are positions where a tensor over positions is read at them, and the other way round.

    Queries before position 0 are let through where they see nothing and give 0. `given`: of the tensors only these
    are checked.
    """
    mistakes: list[Diagnostic] = []
    tensors = {*interface.tensors, "Q", "K", "V"}
    empty: bool | None = None
    for read in interface.row_reads:
        if given is not None and read.tensor not in given and read.tensor in tensors:
            continue
        first, count = int(number(read.axis.start, symbols)), int(number(read.axis.size, symbols))
        last = first + count - 1
        if read.axis.role == "query" and first < 0:
            empty = negative_rows_are_empty(interface.pattern, symbols) if empty is None else empty
            first = 0 if empty and not read.shown else first
        if first > last:
            continue
        try:
            ends = [number(read.at, symbols, {read.axis: place}) for place in (first, last)]
            length = number(read.length, symbols)
        except (NotKnown, ArithmeticError):
            continue
        if min(ends) >= 0 and max(ends) < length:
            continue
        at_queries = read.axis.role == "query"
        advice = f"here NQ = {symbols['NQ']}, NK = {symbols['NK']}, q_offset = {symbols['q_offset']}"
        report = PositionOutside(
            None, advice, pattern=interface.name, axis=read.written, name=read.tensor,
            place="the queries" if at_queries else "the keys", low=min(ends), high=max(ends), length=length,
        )  # fmt: skip
        if all(report.text != known.text for known in mistakes):
            mistakes.append(report)
    return mistakes
