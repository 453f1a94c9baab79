"""Backward passes of patterns by their interpreted kernels, held against float64 and autograd of the same precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attnlang import Pattern
from attnlang import execute as driver
from attnlang.execute_backward import Form, Wanted, backward_program, gradients, no_backward
from attnlang.execute_programs import program_for
from attnlang.ir.interpret import Inputs, evaluate
from attnlang.ir.interpret import table as evaluated
from attnlang.ir.kernel import spelled
from attnlang.ir.pattern import Attention, Read, storage
from attnlang.ir.pattern import Pattern as Meaning
from attnlang.ir.plan import Tile
from attnlang.passes.tiles import rows_class
from tests.kernel_calls import error, narrowed, rounding

MAIN = ("Q", "K", "V")


@dataclass(frozen=True)
class Call:
    """A call of a pattern and what arrives at its results."""

    pattern: Pattern
    inputs: Inputs
    dout: Tensor
    dlse: Tensor | None


def call_of(
    pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, given: Mapping[str, Any], *, lse: bool = True
) -> Call:
    """A call with random gradients at the result and, if wanted, at the lse; `given`: its other arguments."""
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    scalars = {
        name: value for name, value in given.items() if not isinstance(value, Tensor) and value is not None
    }
    B, H, NQ, D = q.shape
    sizes = {"B": B, "H": H, "HK": k.shape[1], "NQ": NQ, "NK": k.shape[2], "D": D, "DV": v.shape[3]}
    defaults = {name: p.default for name, p in pattern.params.items() if p.default is not None}
    known = {"q_offset": sizes["NK"] - NQ, "scale": D**-0.5, **defaults, **scalars}
    generator = torch.Generator().manual_seed(5)
    dout = torch.randn((B, H, NQ, v.shape[3]), generator=generator).to(q.dtype)
    dlse = torch.randn((B, H, NQ), generator=generator) if lse else None
    return Call(pattern, Inputs(q, k, v, sizes, known, tensors), dout, dlse)


def alone(meaning: Meaning, attention: Attention) -> Meaning:
    """The pattern whose output is one of its attentions."""
    places = tuple(storage(axis) for axis in (*attention.rows, attention.feature))
    axes = (*meaning.axes[:3], attention.feature)
    rest = tuple(s for s in meaning.stages if not isinstance(s, Attention) or s == attention)
    return replace(
        meaning, stages=rest, output=Read(attention.name, places), axes=axes, result=attention.name
    )


def dense(call: Call, meaning: Meaning, dtype: torch.dtype) -> tuple[dict[str, Tensor], float]:
    """The gradients of the dense evaluation in some precision, and the size of its lse; rows that see nothing have no
    gradient by the lse."""
    high = narrowed(call.inputs.tensors, dtype)
    assert call.inputs.q is not None and call.inputs.k is not None and call.inputs.v is not None
    live = [
        tensor.detach().to(dtype).requires_grad_() for tensor in (call.inputs.q, call.inputs.k, call.inputs.v)
    ]
    inputs = replace(call.inputs, q=live[0], k=live[1], v=live[2], tensors=high)
    with torch.enable_grad():
        result = evaluate(meaning, inputs, dtype=dtype, want=frozenset(("out", "lse")))
        total = (result.out * call.dout.to(dtype)).sum()
        assert result.lse is not None
        seen = result.lse.isfinite()
        largest = result.lse[seen].abs().max().item() if bool(seen.any()) else 0.0
        if call.dlse is not None:
            total = total + torch.where(seen, result.lse, 0.0).mul(call.dlse.to(result.lse.dtype)).sum()
        if not total.requires_grad:
            return {name: torch.zeros_like(tensor) for name, tensor in zip(MAIN, live, strict=True)}, largest
        found = torch.autograd.grad(total, live, allow_unused=True)
    grads = {
        name: torch.zeros_like(tensor) if grad is None else grad
        for name, tensor, grad in zip(MAIN, live, found, strict=True)
    }
    return grads, largest


def kernels(
    call: Call,
    meaning: Meaning,
    form: Form = "split",
    tiles: tuple[Tile, Tile] | None = None,
    wanted: str = "QKV",
    target: str = "interpret",
) -> dict[str, Tensor]:
    """The gradients of the generated kernels from the results of the forward kernel."""
    inputs = call.inputs
    want = frozenset(("out", "lse"))
    specialization = driver.specialization_of(meaning, inputs, target, want)
    grouped = inputs.sizes["H"] != inputs.sizes["HK"]
    asked = Wanted(wanted, call.dlse is not None, grouped, form, tiles)
    assert no_backward(meaning, specialization) == ""
    program = backward_program(meaning, specialization, asked)
    forward = driver.execute(meaning, inputs, target, want)
    assert forward.lse is not None
    values = {spelled(name): tensor for name, tensor in inputs.everything().items()}
    for table in program_for(
        meaning, specialization, rows_class(inputs.sizes["NQ"], specialization.target)
    ).tables:
        made = evaluated(meaning, table, inputs)
        whole = torch.int64 if specialization.long else torch.int32
        kind = (
            torch.float32 if made.is_floating_point() else torch.bool if made.dtype == torch.bool else whole
        )
        values[spelled(table)] = made.to(kind)
    symbols = {spelled(name): number for name, number in {**inputs.sizes, **inputs.scalars}.items()}
    (launches,) = program.values()
    found = gradients(
        launches,
        values,
        symbols,
        forward.out,
        forward.lse,
        call.dout,
        call.dlse,
        target=target,
        shares=2,
    )
    everything = inputs.everything()
    zeros = {name: torch.zeros_like(everything[name]) for name in MAIN if name in wanted}
    return {**zeros, **found}


def check_backward(
    call: Call,
    form: Form = "split",
    tiles: tuple[Tile, Tile] | None = None,
    wanted: str = "QKV",
    target: str = "interpret",
) -> None:
    """Each attention's gradients may miss float64 by twice what autograd of their precision does, and rounding; that
    of the saved lse to float32 is relative to its size, and multiplies the weights of its row."""
    meaning = call.pattern.ir
    q = call.inputs.q
    assert q is not None
    for attention in meaning.stages:
        if not isinstance(attention, Attention):
            continue
        own = alone(meaning, attention)
        exact, lse = dense(call, own, torch.float64)
        rough, _ = dense(call, own, q.dtype)
        for name, value in kernels(call, own, form, tiles, wanted, target).items():
            assert value.dtype == q.dtype and value.shape == exact[name].shape
            limit = 2 * error(rough[name], exact[name]) + rounding(exact[name], q.dtype)
            limit += 4 * max(1.0, lse) * rounding(exact[name], torch.float32)
            assert error(value, exact[name]) <= limit, f"{name}: {error(value, exact[name])} > {limit}"
