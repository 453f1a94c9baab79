"""Native calls that were made before: with the same shapes, layouts and numbers, only tensors are new.

A call of a pattern is checked, specialized and matched with a kernel. For one that differs from an earlier call in the
contents of Q, K and V only, all of that comes out the same: what is left is to allocate the result and to launch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attnlang.ir.kernel import spelled
from attnlang.ir.pattern import Pattern
from attnlang.settings import options
from attnlang.watch import watching

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.ir.interpret import Inputs

Key = tuple[Any, ...]
Again = Callable[["Tensor", "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]
_NUMBERS = (int, float, bool)
_SIMPLE = (int, float, type(None))


def key_of(
    q: Any, k: Any, v: Any, scale: Any, q_offset: Any, target: str | None, arguments: Mapping[str, Any]
) -> Key | None:
    """All of a call that its checks and its kernel depend on; None where there may be more: gradients, tensors besides
    Q, K and V, tensors of another kind, graphs under construction."""
    torch = sys.modules.get("torch")
    if (
        torch is None
        or watching()
        or not (type(q) is type(k) is type(v) is torch.Tensor)
        or torch.compiler.is_compiling()
    ):
        return None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    if not q.is_cpu or q.is_neg() or k.is_neg() or v.is_neg():
        return None
    if type(scale) not in _SIMPLE or type(q_offset) not in _SIMPLE or type(target) not in (str, type(None)):
        return None
    numbers: list[Any] = [type(scale), scale, type(q_offset), q_offset]
    for name, value in arguments.items():
        if type(value) not in _NUMBERS:
            return None
        numbers += (name, type(value), value)
    shapes = (q.shape, q.stride(), k.shape, k.stride(), v.shape, v.stride())
    kinds = (q.dtype, k.dtype, v.dtype, k.is_cpu, v.is_cpu)
    chosen = options()
    return (*shapes, *kinds, target, chosen.target, chosen.cpu_level, chosen.compiler, *numbers)


def again(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Again | None:
    """A call made ready to be made again, as a function of q, k and v that gives out and lse; None where more than one
    native kernel is needed for it."""
    import torch

    from attnlang.execute import prepared_call
    from attnlang.execute_launch import arguments_of, programs_of, threads_for
    from attnlang.execute_programs import kernel_cache
    from attnlang.runtime.cpp_launch import prepare

    if inputs.tensors or "weights" in want or inputs.q is None:
        return None
    prepared = prepared_call(pattern, inputs, target, want)
    program, specialization = prepared.program, prepared.specialization
    if program.tables or program.combined or len(program.launches) != 1 or specialization.split:
        return None
    (launch,) = program.launches
    if launch.source.language != "cpp":
        return None
    q = inputs.q
    symbols: dict[str, Any] = {spelled(n): number for n, number in {**inputs.sizes, **inputs.scalars}.items()}
    shape = (symbols["B"], symbols["H"], symbols["NQ"])
    real = torch.float64 if specialization.dtype == "fp64" else torch.float32
    lists: Mapping[str, Tensor] = {}
    walk = prepared.walks[0] if prepared.walks else None
    programs = programs_of(launch, walk, specialization, symbols)
    if walk is not None and walk.tiling is not None:
        lists, symbols = walk.tensors, {**symbols, **walk.numbers}
    made = (*shape, symbols["DV"])
    lse_shape = shape if specialization.lse else (1, 1, 1)
    results = {"out": torch.empty(made, dtype=q.dtype), "lse": torch.empty(lse_shape, dtype=real)}
    sample = {**inputs.everything(), **lists, **results}
    kernel = prepare(launch.source, kernel_cache())
    run = kernel.bound((programs, 1, 1), arguments_of(launch.source, sample, symbols), threads_for(symbols))
    fixed = list(lists.values())
    places = {name: place for place, name in enumerate(("Q", "K", "V", "out", "lse", *lists))}
    pointers = [argument.name for argument in launch.source.arguments if argument.kind == "pointer"]
    order = [places[name] for name in pointers]
    dtype = q.dtype

    def call(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty(made, dtype=dtype), torch.empty(lse_shape, dtype=real)
        given = (q, k, v, out, lse, *fixed)
        run(*[given[place].data_ptr() for place in order])
        return out, lse

    return call
