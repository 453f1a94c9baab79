"""One attention by its kernels: results allocated, arguments gathered, launched on Triton or as C++."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attnlang.artifact import KernelSource, Launch
from attnlang.ir.plan import Specialization
from attnlang.watch import debug

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.execute_tilings import Walk

FEWEST_KEYS = 512
"""Of one share of split keys."""
LEAST_WORK = 1 << 21
"""Of fewer multiplications one thread is done before another would have begun."""


def attend(
    launch: Launch,
    walk: Walk | None,
    tensors: Mapping[str, Tensor],
    symbols: Mapping[str, Any],
    specialization: Specialization,
) -> tuple[Tensor, Tensor]:
    """out [B, H, NQ, DV] and lse [B, H, NQ] of one attention (lse of no meaning unless asked for).

    `tensors` and `symbols`: what its kernels are given, by the names of their arguments.
    """
    import torch

    q = tensors["Q"]
    real = torch.float64 if specialization.dtype == "fp64" else torch.float32
    batch, heads, queries, width = (symbols[name] for name in ("B", "H", "NQ", "DV"))
    out = torch.empty((batch, heads, queries, width), dtype=q.dtype, device=q.device)
    shape = (batch, heads, queries) if specialization.lse else (1, 1, 1)
    results = {"out": out, "lse": torch.empty(shape, dtype=real, device=q.device)}
    programs = programs_of(launch, walk, specialization, symbols)
    if walk is not None:
        tensors, symbols = {**tensors, **walk.tensors}, {**symbols, **walk.numbers}
    if launch.combine is None:
        run(launch.source, programs, {**tensors, **results}, symbols, specialization.target)
        return results["out"], results["lse"]
    splits = shares(specialization.target, q, programs, symbols["NK"])
    symbols = {**symbols, "splits": splits}
    part = torch.empty((batch, heads, splits, queries, width), dtype=real, device=q.device)
    part_lse = torch.empty((batch, heads, splits, queries), dtype=real, device=q.device)
    parts = {**tensors, "out": part, "lse": part_lse}
    run(launch.source, programs * splits, parts, symbols, specialization.target)
    combined = {**results, "part": part, "part_lse": part_lse}
    rows = dict(launch.combine.constants)["BLOCK_M"]
    run(launch.combine, -(-queries // int(rows)) * batch * heads, combined, symbols, specialization.target)
    return results["out"], results["lse"]


def programs_of(
    launch: Launch, walk: Walk | None, specialization: Specialization, symbols: Mapping[str, Any]
) -> int:
    """How many programs a kernel has, where keys are not split: one for each tile of rows."""
    batch, heads, kv_heads, queries = (int(symbols[name]) for name in ("B", "H", "HK", "NQ"))
    if walk is not None and walk.tiling is not None:
        return walk.row_tiles * batch * heads
    if specialization.packed:
        return -(-queries * (heads // kv_heads) // launch.rows) * batch * kv_heads
    return -(-queries // launch.rows) * batch * heads


def shares(target: str, tensor: Tensor, programs: int, keys: int) -> int:
    """Into how many shares the keys of a call should fall, so that every processor has work; 1: not at all."""
    return max(1, min(keys // FEWEST_KEYS, -(-workers(target, tensor) // programs)))


def workers(target: str, tensor: Tensor) -> int:
    """How many programs run at once, as far as it is known: multiprocessors, or threads."""
    import torch

    if target == "interpret":
        return 1
    if tensor.device.type == "cuda":
        return int(cast("Any", torch.cuda).get_device_properties(tensor.device).multi_processor_count)
    return torch.get_num_threads()


def threads_for(symbols: Mapping[str, Any]) -> int | None:
    """How many threads a native call should have; None: as many as PyTorch has."""
    batch, heads, queries, keys = (int(symbols[name]) for name in ("B", "H", "NQ", "NK"))
    work = batch * heads * queries * keys * (int(symbols["D"]) + int(symbols["DV"]))
    return 1 if work < LEAST_WORK else None


def run(
    source: KernelSource,
    programs: int,
    tensors: Mapping[str, Tensor],
    symbols: Mapping[str, Any],
    target: str,
) -> None:
    """Launches a kernel with the arguments that it names."""
    arguments = arguments_of(source, tensors, symbols)
    debug("launch", f"{source.name}: {programs} programs")
    if source.language == "cpp":
        from attnlang.execute_programs import kernel_cache
        from attnlang.runtime.cpp_launch import launch as run_native

        run_native(source, (programs, 1, 1), arguments, kernel_cache(), threads=threads_for(symbols))
        return
    from attnlang.runtime.triton_launch import launch as run_triton

    run_triton(source, (programs, 1, 1), arguments, interpret=target == "interpret")


def arguments_of(
    source: KernelSource, tensors: Mapping[str, Tensor], symbols: Mapping[str, Any]
) -> dict[str, Any]:
    """What a kernel names, from the tensors and numbers of a call."""
    arguments: dict[str, Any] = {}
    for argument in source.arguments:
        tensor, _, axis = argument.name.rpartition("_stride_")
        if argument.kind == "pointer":
            arguments[argument.name] = tensors[argument.name]
        elif tensor in tensors:
            arguments[argument.name] = tensors[tensor].stride(int(axis))
        else:
            arguments[argument.name] = symbols[argument.name]
    return arguments
