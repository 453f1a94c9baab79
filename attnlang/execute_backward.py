"""The backward pass by kernels: its program for a specialization, its launches, and how a call asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from typing import Literal as OneOf

from attnlang.artifact import KernelSource
from attnlang.execute_launch import run, workers
from attnlang.execute_programs import plan_for
from attnlang.ir.kernel import Kernel, Store, walk
from attnlang.ir.memo import Memo
from attnlang.ir.pattern import Pattern
from attnlang.ir.plan import Plan, Specialization, Tile
from attnlang.watch import debug, dump

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.execute_tilings import Walk
    from attnlang.runtime.autograd_kernels import Attend

ROWS = 128
"""The class of the number of queries of the forward plan that a backward pass is made from: its tiles are its own."""
KEYED = ("dK", "dV")
IDLE = 0.1
"""The share of the workers' time that may be lost rather than have more partial sums of dQ."""
Form = OneOf["split", "fused"]


@dataclass(frozen=True)
class Written:
    """A tensor that a kernel writes. `shared`: its outermost axis has the shares of the programs of a head; `each`: it
    is of each head, of which those that share a key/value head are to be added up."""

    name: str
    dtype: str
    shared: bool
    each: bool


@dataclass(frozen=True)
class BackwardLaunch:
    """One kernel: whose tokens its programs own, `rows` of them, how many others are behind a number of its lists, and
    what it writes."""

    source: KernelSource
    over: OneOf["NQ", "NK"]
    rows: int
    columns: int
    written: tuple[Written, ...]


@dataclass(frozen=True)
class Wanted:
    """What a backward pass is for: gradients by these of "QKV", whether some arrive at the lse, whether heads share
    key/value heads."""

    tensors: str
    lse: bool
    grouped: bool
    form: Form = "split"
    tiles: tuple[Tile, Tile] | None = None


def backward_program(
    pattern: Pattern, specialization: Specialization, wanted: Wanted
) -> Mapping[str, tuple[BackwardLaunch, ...]]:
    """The backward pass of each attention by its name, made once: the first launch makes delta. For a pattern whose
    forward pass has kernels, and `no_backward` no reason."""
    question = (specialization, wanted)
    return _programs.get(pattern, question, lambda: _made(pattern, specialization, wanted))


_programs: Memo[tuple[Specialization, Wanted], Mapping[str, tuple[BackwardLaunch, ...]]] = Memo(1024)


def no_backward(pattern: Pattern, specialization: Specialization) -> str:
    """Why the gradients by Q, K and V of a pattern whose forward pass has kernels are the dense evaluation's; '' where
    kernels give them."""
    return _reasons.get(pattern, specialization, lambda: _reason(pattern, specialization))


_reasons: Memo[Specialization, str] = Memo(1024)


def _reason(pattern: Pattern, specialization: Specialization) -> str:
    from attnlang.passes.lower_backward_plan import backward_obstacles

    blocked = backward_obstacles(_forward(pattern, specialization))
    return str(blocked[0]) if blocked else ""


def _forward(pattern: Pattern, specialization: Specialization) -> Plan:
    """The forward plan that the backward pass is made from."""
    return _plans.get(pattern, specialization, lambda: plan_for(pattern, specialization, ROWS))


_plans: Memo[Specialization, Plan] = Memo(64)


def _made(
    pattern: Pattern, specialization: Specialization, wanted: Wanted
) -> Mapping[str, tuple[BackwardLaunch, ...]]:
    from attnlang.passes.lower_backward_plan import plan_backward

    plan = _forward(pattern, specialization)
    made = plan_backward(
        plan, form=wanted.form, grouped=wanted.grouped, wanted=wanted.tensors, lse_gradient=wanted.lse,
        tiles=wanted.tiles,
    )  # fmt: skip
    return {
        own.attention.name: tuple(
            _launch(plan, kernel, wanted.grouped) for kernel in (own.delta, *own.kernels)
        )
        for own in made
    }


def _launch(plan: Plan, kernel: Kernel, grouped: bool) -> BackwardLaunch:
    from attnlang.codegen.cpp_kernel import print_cpp
    from attnlang.codegen.triton_kernel import print_triton
    from attnlang.ir.kernel_text import kernel_text
    from attnlang.passes.lower_columns import listed_columns

    family, _, level = plan.specialization.target.partition(":")
    source = print_cpp(kernel, level) if family == "cpu" else print_triton(kernel)
    debug("kernel", source.text)
    dump(plan.pattern.name, f"7-{source.name}.kernel.txt", kernel_text(kernel))
    dump(plan.pattern.name, f"8-{source.name}.{'cpp' if family == 'cpu' else 'py'}", source.text)
    added = {part.pointer for part in walk(kernel.body) if isinstance(part, Store) and part.accumulate}
    written = tuple(
        Written(pointer.name, pointer.type, pointer.name in added, grouped and pointer.name in KEYED)
        for pointer in kernel.pointers
        if pointer.written
    )
    by_query = any(result.name in ("delta", "dQ") and not result.shared for result in written)
    over = "NQ" if by_query else "NK"
    rows, columns = kernel.block("M"), dict(kernel.dims).get("N", 1)
    listed = listed_columns(plan.specialization.target, rows, columns)
    return BackwardLaunch(source, over, rows, listed, written)


def differentiable(
    attend: Attend, pattern: Pattern, specialization: Specialization, attention: str, tensors: Mapping[str, Tensor],
    symbols: Mapping[str, Any], walk: Walk | None, q: Tensor, k: Tensor, v: Tensor, *,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`attend()`, the result and lse of one attention by its kernel, with gradients by kernels in q, k and v.

    `tensors` and `symbols` are those of its launch, by their names there; `walk`: what it reads by lists; `form`:
    other kernels than those that are best for the target. Where `no_backward` has no reason.
    """
    from attnlang.runtime.autograd_kernels import Saved, with_kernel_backward

    alike = replace(specialization, split=False, lse=True)
    grouped = symbols["H"] != symbols["HK"]

    rest = {name: tensor for name, tensor in tensors.items() if name not in ("Q", "K", "V")}

    def backward(saved: Saved) -> dict[str, Tensor]:
        target = specialization.target
        main = (tensor.detach().resolve_neg() for tensor in saved.inputs)
        given = {**rest, **dict(zip("QKV", main, strict=True))}
        best = form or form_for(target, saved.needed)
        wanted = Wanted(saved.needed, saved.dlse is not None, grouped, best)
        launches = backward_program(pattern, alike, wanted)[attention]
        tiles = -(-symbols["NK"] // launches[-1].rows)
        shares = (
            shares_for(workers(target, saved.out), symbols["B"] * symbols["H"], tiles)
            if best == "fused"
            else 1
        )
        return gradients(
            launches, given, symbols, saved.out, saved.lse, saved.dout, saved.dlse,
            target=target, walks=_walks(launches, walk), shares=shares,
        )  # fmt: skip

    return with_kernel_backward(attend, backward, (q, k, v), tuple(rest.values()))


def form_for(target: str, needed: str) -> Form:
    """Which kernels give the gradients of `needed` of "QKV" soonest: on the CPU those with the fewest products, as a
    program adds to a dQ of its own at no cost; dQ alone needs no program that owns keys."""
    return "fused" if target.startswith("cpu") and needed != "Q" else "split"


def shares_for(workers: int, heads: int, tiles: int) -> int:
    """How many programs should share the key tiles of each head in "fused": the fewest that leave no more than a tenth
    of the workers' time idle, or else the best there are."""

    def idle(shares: int) -> float:
        programs = shares * heads
        return 1 - programs / (workers * -(-programs // workers)) if programs else 0.0

    choices = range(1, max(1, min(tiles, 2 * workers)) + 1)
    return next((n for n in choices if idle(n) <= IDLE), min(choices, key=idle))


def _walks(launches: tuple[BackwardLaunch, ...], walk: Walk | None) -> Walks | None:
    """The lists of each launch, for tiles of its own sides, where the forward pass read lists."""
    if walk is None or walk.tiling is None:
        return None
    found: dict[str, Walk] = {}
    for launch in launches[1:]:
        by_keys = launch.over == "NK"
        sides = (launch.columns, launch.rows) if by_keys else (launch.rows, launch.columns)
        found[launch.over] = walk.with_sides(*sides, by_keys)
    return found


Walks = Mapping[str, "Walk"]
"""Lists for the kernel whose programs own queries ("NQ"), and transposed ones for that whose programs own keys ("NK");
none of those that walk ranges."""


def gradients(
    launches: tuple[BackwardLaunch, ...], tensors: Mapping[str, Tensor], symbols: Mapping[str, Any], out: Tensor,
    lse: Tensor, dout: Tensor, dlse: Tensor | None, *, target: str, walks: Walks | None = None, shares: int = 1,
) -> dict[str, Tensor]:  # fmt: skip
    """The gradients of one attention by those of Q, K and V that its kernels write, of their types. For float64, what
    is float32 here is float64.

    `tensors` and `symbols` are those of the forward launch, by their names there; `out` [B, H, NQ, DV] and `lse`
    [B, H, NQ] float32 its results, `dout` and `dlse` what arrives at them. `shares`: the programs of a head in
    "fused", each with a dQ of its own.
    """
    import torch

    dout = dout.to(tensors["Q"].dtype)
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    values = {**tensors, "out": out, "lse": lse, "dout": dout, "delta": torch.empty_like(lse)}
    if dlse is not None:
        values["dlse"] = dlse.to(lse.dtype).contiguous()
    results = {result.name: result for launch in launches[1:] for result in launch.written}
    for name, result in results.items():
        values[name] = _empty(result, tensors[name[1:]], symbols, shares)
    for number, launch in enumerate(launches):
        listed = (walks or {}).get(launch.over) if number else None
        _run(launch, values, symbols, listed, shares, target)
    return {name[1:]: _summed(values[name], result, tensors[name[1:]]) for name, result in results.items()}


def _empty(result: Written, like: Tensor, symbols: Mapping[str, Any], shares: int) -> Tensor:
    import torch

    heads = symbols["H"] if result.each else like.shape[1]
    shape = (like.shape[0], heads, *like.shape[2:])
    dtype = {"fp32": torch.float32, "fp64": torch.float64}.get(result.dtype, like.dtype)
    if result.shared:
        return torch.zeros((shares, *shape), dtype=dtype, device=like.device)
    return torch.empty(shape, dtype=dtype, device=like.device)


def _summed(found: Tensor, result: Written, like: Tensor) -> Tensor:
    """The gradient in the shape and type of its tensor: all shares, and all heads of a key/value head."""
    if result.shared:
        found = found.sum(0) if found.shape[0] > 1 else found[0]
    if result.each:
        batch, groups = like.shape[:2]
        found = found.view(batch, groups, -1, *like.shape[2:]).sum(2)
    return found.to(like.dtype)


def _run(
    launch: BackwardLaunch, tensors: Mapping[str, Tensor], symbols: Mapping[str, Any], listed: Walk | None,
    shares: int, target: str,
) -> None:  # fmt: skip
    tiles = -(-symbols[launch.over] // launch.rows)
    if listed is not None:
        tensors, symbols = {**tensors, **listed.tensors}, {**symbols, **listed.numbers}
        tiles = listed.row_tiles
    if any(result.shared for result in launch.written):
        symbols, tiles = {**symbols, "shares": shares}, shares
    run(launch.source, tiles * symbols["B"] * symbols["H"], tensors, symbols, target)
