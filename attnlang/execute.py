"""The kernel half of the driver: a call's specialization, its program, the launches, PyTorch's part of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnlang.artifact import Program
from attnlang.execute_backward import differentiable, no_backward
from attnlang.execute_launch import attend, shares
from attnlang.execute_programs import native_target, no_kernel, program_for
from attnlang.execute_tilings import Walk, walks_of
from attnlang.ir.kernel import Type, spelled
from attnlang.ir.pattern import Attention, Pattern, TensorAxis
from attnlang.ir.pattern import Tensor as Declared
from attnlang.ir.plan import Specialization

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from attnlang.ir.interpret import Inputs, Result

MOST_ELEMENTS = 2**31
DECODED = 16  # so few queries share their keys out among programs
LARGEST = 2**30  # a kernel adds a few positions and lengths of 32 bits
_TYPES: dict[str, Type] = {
    "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64", "int64": "i64", "int32": "i32",
    "bool": "i1",
}  # fmt: skip


def execute(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Result:
    """Runs a pattern by its kernels: out [B, H, NQ, DV], and lse [B, H, NQ] where wanted, float32 (float64 for
    float64).

    Raises NoKernel where it has none on the target, or where the weights themselves are wanted.
    """
    return _differentiable(pattern, inputs, prepared_call(pattern, inputs, target, want), want)


def prepared_call(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Prepared:
    """The kernels of a call, and what they read besides its tensors and numbers. Raises NoKernel."""
    target = native_target(target)
    if "weights" in want:
        raise no_kernel(pattern, target, "kernels do not keep the weights")
    specialization = specialization_of(pattern, inputs, target, want)
    program = program_for(pattern, specialization, _rows_class(inputs, specialization))
    if not program.launches:
        raise no_kernel(pattern, target, program.reason)
    return _with_lists(pattern, inputs, program, specialization)


@dataclass(frozen=True)
class Prepared:
    """A call's kernels and what they read besides its tensors and numbers."""

    specialization: Specialization
    program: Program
    walks: tuple[Walk, ...]


def _with_lists(
    pattern: Pattern, inputs: Inputs, program: Program, specialization: Specialization
) -> Prepared:
    """A program by ranges becomes one that reads lists of tiles, where these save work at this call."""
    if all(launch.exact for launch in program.launches):
        return Prepared(specialization, program, ())
    walks = walks_of(pattern, inputs, program, specialization)
    if any(walk.tiling for walk in walks):
        kinds = tuple(walk.tiling.walk if walk.tiling else "ranges" for walk in walks)
        specialization = replace(specialization, walks=kinds)
        program = program_for(pattern, specialization, _rows_class(inputs, specialization))
    return Prepared(specialization, program, walks)


def _rows_class(inputs: Inputs, specialization: Specialization) -> int:
    """The class of the number of rows that tiles are made of."""
    from attnlang.passes.packing import rows_of
    from attnlang.passes.tiles import rows_class

    queries = inputs.sizes["NQ"]
    rows = rows_of(queries, inputs.sizes) if specialization.packed else queries
    return rows_class(rows, specialization.target)


def specialization_of(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Specialization:
    """What of a call shapes its code."""
    from attnlang.passes.magnitude import needs_long
    from attnlang.passes.packing import packs
    from attnlang.passes.specialize import reads_lse, static_parameters

    tensors = inputs.everything()
    q = tensors["Q"]
    dtype = _type_of(q)
    stored = {name: _type_of(t, double=dtype == "fp64") for name, t in tensors.items()}
    types = tuple((name, kind) for name, kind in stored.items() if kind != dtype)
    statics = tuple((name, inputs.scalars[name]) for name in static_parameters(pattern))
    strided = tuple(name for name, t in tensors.items() if t.dim() and t.shape[-1] > 1 and t.stride(-1) != 1)
    wide = any(_extent(t) >= MOST_ELEMENTS for t in tensors.values())
    wide = wide or inputs.sizes["NQ"] * inputs.sizes["DV"] >= MOST_ELEMENTS
    lse = "lse" in want or reads_lse(pattern) or _by_kernels(inputs)
    specialization = Specialization(
        target, dtype, inputs.sizes["D"], inputs.sizes["DV"], statics, types, strided,
        lse, wide, inputs.scalars["q_offset"] >= 0, needs_long(pattern, {**inputs.sizes, **inputs.scalars}),
    )  # fmt: skip
    packed = not _by_kernels(inputs) and packs(pattern, specialization, inputs.sizes)
    programs = inputs.sizes["B"] * inputs.sizes["HK" if packed else "H"]
    split = inputs.sizes["NQ"] <= DECODED and shares(target, q, programs, inputs.sizes["NK"]) > 1
    return replace(specialization, split=split, packed=packed)


def _type_of(tensor: Tensor, double: bool = False) -> Any:
    """The type in which a kernel loads a tensor; `double`: it computes in float64, and so are all its floats."""
    if double and tensor.dtype.is_floating_point:
        return "fp64"
    name = str(tensor.dtype).removeprefix("torch.")
    return _TYPES.get(name, "i32" if not tensor.dtype.is_floating_point else name)


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last of a tensor's largest part that a kernel addresses by one offset."""
    return sum((size - 1) * abs(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _differentiable(pattern: Pattern, inputs: Inputs, prepared: Prepared, want: frozenset[str]) -> Result:
    import torch

    from attnlang.ir.interpret import Result, evaluate
    from attnlang.runtime.autograd import with_dense_backward

    tensors = inputs.everything()
    names = list(tensors)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors.values())):
        return _run(pattern, inputs, prepared, want)
    if _by_kernels(inputs) and not no_backward(pattern, prepared.specialization):
        return _run(pattern, inputs, prepared, want, backward=True)

    dtype = tensors["Q"].dtype

    def kernel(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return _parts(_run(pattern, _with(inputs, names, given), prepared, want))

    def dense(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return _parts(evaluate(pattern, _with(inputs, names, given), dtype=dtype, want=want))

    results = with_dense_backward(kernel, dense, [tensors[name] for name in names])
    return Result(results[0], results[1] if "lse" in want else None)


def _by_kernels(inputs: Inputs) -> bool:
    """Whether gradients are wanted by Q, K and V alone, which kernels may give."""
    import torch

    main = (inputs.q, inputs.k, inputs.v)
    wanted = any(tensor is not None and tensor.requires_grad for tensor in main)
    others = any(tensor.requires_grad for tensor in inputs.tensors.values())
    return torch.is_grad_enabled() and wanted and not others


def _parts(result: Result) -> tuple[Tensor, ...]:
    return (result.out,) if result.lse is None else (result.out, result.lse)


def _with(inputs: Inputs, names: Sequence[str], given: Sequence[Tensor]) -> Inputs:
    tensors = dict(zip(names, given, strict=True))
    rest = {name: tensor for name, tensor in tensors.items() if name in inputs.tensors}
    return replace(inputs, q=tensors["Q"], k=tensors["K"], v=tensors["V"], tensors=rest)


def _run(
    pattern: Pattern, inputs: Inputs, prepared: Prepared, want: frozenset[str], backward: bool = False
) -> Result:
    import torch

    from attnlang.ir.interpret import Result

    program, specialization = prepared.program, prepared.specialization
    double = specialization.dtype == "fp64"
    real = torch.float64 if double else torch.float32
    values = {spelled(name): storable(tensor, double) for name, tensor in inputs.everything().items()}
    for name in program.tables:
        values[spelled(name)] = _table(pattern, name, inputs, real, specialization.long)
    results: dict[str, Tensor] = {}
    symbols = {spelled(name): number for name, number in {**inputs.sizes, **inputs.scalars}.items()}
    for name, value in _too_large(program, symbols):
        reason = f"{name} = {value} is beyond 2**30, as far as kernels count"
        raise no_kernel(pattern, specialization.target, reason)
    for place, launch in enumerate(program.launches):
        walk = prepared.walks[place] if prepared.walks else None
        forward = partial(attend, launch, walk, values, symbols, specialization)
        if backward:
            assert inputs.q is not None and inputs.k is not None and inputs.v is not None
            main = (inputs.q, inputs.k, inputs.v)
            out, lse = differentiable(
                forward, pattern, specialization, launch.attention, values, symbols, walk, *main
            )
        else:
            out, lse = forward()
        results |= {launch.attention: out, f"{launch.attention}.lse": lse}
    out = _combine(pattern, inputs, results) if program.combined else results[program.launches[0].attention]
    lse = results[f"{pattern.result}.lse"] if "lse" in want else None
    return Result(out.to(values["Q"].dtype), lse)


def _too_large(program: Program, symbols: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The numbers of the call that its kernels take in 32 bits and that do not fit."""
    taken = {a.name for launch in program.launches for a in launch.source.arguments if a.dtype == "i32"}
    return [(name, symbols[name]) for name in sorted(taken & symbols.keys()) if abs(symbols[name]) >= LARGEST]


def storable(tensor: Tensor, double: bool) -> Tensor:
    """The tensor in a type that kernels load: other integers become int32, a pending sign (`.imag`) is written out."""
    import torch

    tensor = tensor.resolve_neg()
    if double and tensor.dtype.is_floating_point:
        return tensor.detach().double()
    known = tensor.dtype.is_floating_point or tensor.dtype in (torch.bool, torch.int32, torch.int64)
    return tensor.detach() if known else tensor.to(torch.int32)


def _table(pattern: Pattern, name: str, inputs: Inputs, real: torch.dtype, long: bool) -> Tensor:
    import torch

    from attnlang.ir.interpret import table

    value = table(pattern, name, inputs)
    if value.dtype == torch.bool:
        return value
    whole = torch.int64 if long else torch.int32
    return value.to(real if value.is_floating_point() else whole)


def _combine(pattern: Pattern, inputs: Inputs, results: Mapping[str, Tensor]) -> Tensor:
    """The output expression, evaluated by PyTorch with the attentions' results as if they were tensors."""
    from attnlang.ir.interpret import evaluate

    stages = tuple(stage for stage in pattern.stages if not isinstance(stage, Attention))
    attentions = {stage.name: stage for stage in pattern.stages if isinstance(stage, Attention)}
    declared: list[Declared] = []
    for name, stage in attentions.items():
        rows = tuple(TensorAxis(axis.name, axis.size) for axis in stage.rows)
        declared.append(Declared(name, (*rows, TensorAxis(stage.feature.name, stage.feature.size))))
        declared.append(Declared(f"{name}.lse", rows))
    rest = replace(pattern, tensors=(*pattern.tensors, *declared), stages=stages, result="")
    filled = replace(inputs, tensors={**inputs.tensors, **results})
    assert inputs.q is not None
    return evaluate(rest, filled, dtype=inputs.q.dtype).out
