"""The kernel half of the driver: a call's specialization, its program, the launches, PyTorch's part of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attnlang.artifact import Launch, Program
from attnlang.execute_programs import NoKernel, program_for
from attnlang.ir.kernel import Type, spelled
from attnlang.ir.pattern import Attention, Pattern, TensorAxis
from attnlang.ir.pattern import Tensor as Declared
from attnlang.ir.plan import Specialization
from attnlang.watch import debug

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.ir.interpret import Inputs, Result

MOST_ELEMENTS = 2**31
LARGEST = 2**30  # a kernel adds a few positions and lengths of 32 bits
_TYPES: dict[str, Type] = {
    "float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64", "int64": "i64", "int32": "i32",
    "bool": "i1",
}  # fmt: skip


def execute(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Result:
    """Runs a pattern by its kernels: out [B, H, NQ, DV], and lse [B, H, NQ] float32 where wanted.

    Raises NoKernel where it has none on the target, or where the weights themselves are wanted.
    """
    from attnlang.passes.tiles import rows_class

    if "weights" in want:
        raise NoKernel(None, pattern=pattern.name, target=target, reason="kernels do not keep the weights")
    specialization = specialization_of(pattern, inputs, target, want)
    program = program_for(pattern, specialization, rows_class(inputs.sizes["NQ"]))
    if not program.launches:
        raise NoKernel(None, pattern=pattern.name, target=target, reason=program.reason)
    return _differentiable(pattern, inputs, program, specialization, want)


def specialization_of(pattern: Pattern, inputs: Inputs, target: str, want: frozenset[str]) -> Specialization:
    """What of a call shapes its code."""
    from attnlang.passes.magnitude import needs_long
    from attnlang.passes.specialize import reads_lse, static_parameters

    tensors = inputs.everything()
    q = tensors["Q"]
    dtype = _type_of(q)
    types = tuple((name, _type_of(t)) for name, t in tensors.items() if _type_of(t) != dtype)
    statics = tuple((name, inputs.scalars[name]) for name in static_parameters(pattern))
    strided = tuple(name for name, t in tensors.items() if t.dim() and t.shape[-1] > 1 and t.stride(-1) != 1)
    wide = any(_extent(t) >= MOST_ELEMENTS for t in tensors.values())
    wide = wide or inputs.sizes["NQ"] * inputs.sizes["DV"] >= MOST_ELEMENTS
    lse = "lse" in want or reads_lse(pattern)
    return Specialization(
        target, dtype, inputs.sizes["D"], inputs.sizes["DV"], statics, types, strided,
        lse, wide, inputs.scalars["q_offset"] >= 0, needs_long(pattern, {**inputs.sizes, **inputs.scalars}),
    )  # fmt: skip


def _type_of(tensor: Tensor) -> Any:
    name = str(tensor.dtype).removeprefix("torch.")
    return _TYPES.get(name, "i32" if not tensor.dtype.is_floating_point else name)


def _extent(tensor: Tensor) -> int:
    """Elements from the first to the last of a tensor's largest part that a kernel addresses by one offset."""
    return sum((size - 1) * abs(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _differentiable(
    pattern: Pattern, inputs: Inputs, program: Program, specialization: Specialization, want: frozenset[str]
) -> Result:
    import torch

    from attnlang.ir.interpret import Result, evaluate
    from attnlang.runtime.autograd import with_dense_backward

    tensors = inputs.everything()
    names = list(tensors)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors.values())):
        return _run(pattern, inputs, program, specialization, want)

    def kernel(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return _parts(_run(pattern, _with(inputs, names, given), program, specialization, want))

    def dense(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return _parts(evaluate(pattern, _with(inputs, names, given), dtype=given[0].dtype, want=want))

    results = with_dense_backward(kernel, dense, [tensors[name] for name in names])
    return Result(results[0], results[1] if "lse" in want else None)


def _parts(result: Result) -> tuple[Tensor, ...]:
    return (result.out,) if result.lse is None else (result.out, result.lse)


def _with(inputs: Inputs, names: Sequence[str], given: Sequence[Tensor]) -> Inputs:
    tensors = dict(zip(names, given, strict=True))
    rest = {name: tensor for name, tensor in tensors.items() if name in inputs.tensors}
    return replace(inputs, q=tensors["Q"], k=tensors["K"], v=tensors["V"], tensors=rest)


def _run(
    pattern: Pattern, inputs: Inputs, program: Program, specialization: Specialization, want: frozenset[str]
) -> Result:
    import torch

    from attnlang.ir.interpret import Result

    values = {spelled(name): _storable(tensor) for name, tensor in inputs.everything().items()}
    for name in program.tables:
        values[spelled(name)] = _table(pattern, name, inputs, specialization.long)
    sizes = inputs.sizes
    q = values["Q"]
    shape = (sizes["B"], sizes["H"], sizes["NQ"])
    results: dict[str, Tensor] = {}
    symbols = {spelled(name): number for name, number in {**inputs.sizes, **inputs.scalars}.items()}
    for name, value in _too_large(program, symbols):
        reason = f"{name} = {value} is beyond 2**30, as far as kernels count"
        raise NoKernel(None, pattern=pattern.name, target=specialization.target, reason=reason)
    for launch in program.launches:
        out = torch.empty((*shape, sizes["DV"]), dtype=q.dtype, device=q.device)
        lse = torch.empty(shape if specialization.lse else (1, 1, 1), dtype=torch.float32, device=q.device)
        _launch(launch, {**values, "out": out, "lse": lse}, symbols, specialization)
        results |= {launch.attention: out, f"{launch.attention}.lse": lse}
    out = _combine(pattern, inputs, results) if program.combined else results[program.launches[0].attention]
    lse = results[f"{pattern.result}.lse"] if "lse" in want else None
    return Result(out.to(q.dtype), lse)


def _too_large(program: Program, symbols: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The numbers of the call that its kernels take in 32 bits and that do not fit."""
    taken = {a.name for launch in program.launches for a in launch.source.arguments if a.dtype == "i32"}
    return [(name, symbols[name]) for name in sorted(taken & symbols.keys()) if abs(symbols[name]) >= LARGEST]


def _storable(tensor: Tensor) -> Tensor:
    """The tensor in a type that kernels load: other integers become int32, a pending sign (`.imag`) is written out."""
    import torch

    tensor = tensor.resolve_neg()
    known = tensor.dtype.is_floating_point or tensor.dtype in (torch.bool, torch.int32, torch.int64)
    return tensor.detach() if known else tensor.to(torch.int32)


def _table(pattern: Pattern, name: str, inputs: Inputs, long: bool) -> Tensor:
    import torch

    from attnlang.ir.interpret import table

    value = table(pattern, name, inputs)
    if value.dtype == torch.bool:
        return value
    whole = torch.int64 if long else torch.int32
    return value.to(torch.float32 if value.is_floating_point() else whole)


def _launch(
    launch: Launch, tensors: Mapping[str, Tensor], symbols: Mapping[str, Any], specialization: Specialization
) -> None:
    from attnlang.runtime.triton_launch import launch as run_kernel

    arguments: dict[str, Any] = {}
    for argument in launch.source.arguments:
        tensor, _, axis = argument.name.rpartition("_stride_")
        if argument.kind == "pointer":
            arguments[argument.name] = tensors[argument.name]
        elif tensor in tensors:
            arguments[argument.name] = tensors[tensor].stride(int(axis))
        else:
            arguments[argument.name] = symbols[argument.name]
    tiles = -(-symbols["NQ"] // launch.rows)
    grid = (tiles * symbols["B"] * symbols["H"], 1, 1)
    debug("launch", f"{launch.source.name}: {grid[0]} programs")
    run_kernel(launch.source, grid, arguments, interpret=specialization.target == "interpret")


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
