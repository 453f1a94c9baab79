"""Native calls that were made before: with the same shapes, layouts and numbers, only contents of tensors are new.

A call of a pattern is checked, specialized and matched with a kernel. For one that differs from an earlier call in the
contents of tensors only, all of that comes out the same: what is left is to allocate the result and to launch. Where
contents decide what is seen, lists of tiles were made of them, and they are compared with what they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from attnlang.ir.kernel import spelled
from attnlang.ir.pattern import Pattern
from attnlang.ir.walk import reads_of
from attnlang.settings import options
from attnlang.watch import watching

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.ir.interpret import Inputs

Key = tuple[Any, ...]
Again = Callable[["Tensor", "Tensor", "Tensor", Mapping[str, Any]], tuple["Tensor", "Tensor"] | None]
_NUMBERS = (int, float, bool)
_SIMPLE = (int, float, type(None))


def key_of(
    q: Any, k: Any, v: Any, scale: Any, q_offset: Any, target: str | None, arguments: Mapping[str, Any]
) -> Key | None:
    """All of a call that its checks and its kernel depend on, but for contents of tensors; None where there may be
    more: gradients, other kinds of tensors or devices, graphs under construction, transforms of functions."""
    torch = sys.modules.get("torch")
    if (
        torch is None
        or watching()
        or not (type(q) is type(k) is type(v) is torch.Tensor)
        or torch.compiler.is_compiling()
    ):
        return None
    learns = torch.is_grad_enabled()
    if learns and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    if not q.is_cpu or q.is_neg() or k.is_neg() or v.is_neg() or _transformed(torch):
        return None
    if type(scale) not in _SIMPLE or type(q_offset) not in _SIMPLE or type(target) not in (str, type(None)):
        return None
    numbers: list[Any] = [type(scale), scale, type(q_offset), q_offset]
    plain = (torch.Tensor, torch.nn.Parameter)
    for name, value in arguments.items():
        kind = cast("type[object]", type(value))
        if kind in _NUMBERS:
            numbers += (name, kind, value)
        elif kind in plain and value.is_cpu and value.layout is torch.strided and not value.is_neg():
            if value.requires_grad and learns:
                return None
            numbers += (name, value.shape, value.stride(), value.dtype)
        else:
            return None
    shapes = (q.shape, q.stride(), k.shape, k.stride(), v.shape, v.stride())
    kinds = (q.dtype, k.dtype, v.dtype, k.is_cpu, v.is_cpu)
    chosen = options()
    return (*shapes, *kinds, target, chosen.target, chosen.cpu_level, chosen.compiler, *numbers)


def _transformed(torch: Any) -> bool:
    """Whether a transform of functions is under way, such as torch.vmap: tensors may stand for others then."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # PyTorch has no public name for it


def again(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Again | None:
    """A call made ready to be made again: a function of q, k, v and arguments that gives out and lse, or None where a
    tensor that decides what is seen has changed. None where more than one native kernel is needed for it, or where its
    checks or its tables depend on contents."""
    import torch

    from attnlang.execute import prepared_call, storable
    from attnlang.execute_launch import arguments_of, programs_of, threads_for
    from attnlang.execute_programs import kernel_cache
    from attnlang.execute_tilings import holds
    from attnlang.runtime.cpp_launch import prepare

    if "weights" in want or inputs.q is None:
        return None
    if any(reads_of(requirement.condition) for requirement in pattern.requirements):
        return None
    prepared = prepared_call(pattern, inputs, target, want)
    program, specialization = prepared.program, prepared.specialization
    if program.tables or program.combined or len(program.launches) != 1 or specialization.split:
        return None
    double = specialization.dtype == "fp64"
    own = {name: storable(tensor, double) for name, tensor in inputs.tensors.items()}
    if any(tensor.data_ptr() != inputs.tensors[name].data_ptr() for name, tensor in own.items()):
        return None
    (launch,) = program.launches
    if launch.source.language != "cpp":
        return None
    q = inputs.q
    symbols: dict[str, Any] = {spelled(n): number for n, number in {**inputs.sizes, **inputs.scalars}.items()}
    shape = (symbols["B"], symbols["H"], symbols["NQ"])
    real = torch.float64 if double else torch.float32
    lists: Mapping[str, Tensor] = {}
    walk = prepared.walks[0] if prepared.walks else None
    programs = programs_of(launch, walk, specialization, symbols)
    if walk is not None and walk.tiling is not None:
        lists, symbols = walk.tensors, {**symbols, **walk.numbers}
    made = (*shape, symbols["DV"])
    lse_shape = shape if specialization.lse else (1, 1, 1)
    results = {"out": torch.empty(made, dtype=q.dtype), "lse": torch.empty(lse_shape, dtype=real)}
    everything = {spelled(name): tensor for name, tensor in inputs.everything().items()}
    sample = {**everything, **lists, **results}
    kernel = prepare(launch.source, kernel_cache())
    run = kernel.bound((programs, 1, 1), arguments_of(launch.source, sample, symbols), threads_for(symbols))
    fixed = list(lists.values())
    named = list(inputs.tensors)
    shown = [spelled(name) for name in named]
    places = {name: place for place, name in enumerate(("Q", "K", "V", "out", "lse", *lists, *shown))}
    pointers = [argument.name for argument in launch.source.arguments if argument.kind == "pointer"]
    order = [places[name] for name in pointers]
    dtype = q.dtype
    unchanged = holds(prepared.walks)
    if unchanged is None:
        return None

    def call(q: Tensor, k: Tensor, v: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        if not unchanged(arguments):
            return None
        out, lse = torch.empty(made, dtype=dtype), torch.empty(lse_shape, dtype=real)
        given = (q, k, v, out, lse, *fixed, *[arguments[name] for name in named])
        run(*[given[place].data_ptr() for place in order])
        return out, lse

    return call
