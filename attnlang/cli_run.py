"""`attnlang run`: a pattern on random inputs, compared with its definition, and timed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import attnlang
from attnlang import compiler
from attnlang.cli_console import complain, counted, print_json, progress, say, time_text
from attnlang.cli_load import RandomCall, Sizes, called, load_pattern, parameters_of, random_call
from attnlang.cli_options import (
    Pair,
    add_file,
    add_heads,
    add_json,
    add_length,
    add_numbers,
    add_target,
    natural,
)
from attnlang.targets import target_of

if TYPE_CHECKING:
    import torch

FAULT = 70
BUDGET_SECONDS = 3.0
MOST_TIMES = 20
EPSILON = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-20}
"""An error of a few times this, relative to the largest result, is rounding whatever the plain evaluation shows."""

MANY_PAIRS = 2**29
"""Above this many the definition takes a minute or more."""

MARGIN = 4.0
"""A kernel may have this many times the error of the plain evaluation: it adds in another order."""


@dataclass(frozen=True)
class Comparison:
    """The largest differences from the definition (float64), and the largest value of the result itself."""

    kernel: float
    eager: float
    largest: float
    not_finite: int

    def agrees(self, dtype: str) -> bool:
        """Whether the difference is one of rounding."""
        allowed = max(MARGIN * self.eager, MARGIN * EPSILON[dtype] * max(self.largest, 1e-30))
        return not self.not_finite and self.kernel <= allowed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_file(parser)
    add_length(parser, 1024)
    add_heads(parser, 16)
    add_numbers(parser, 64, None)
    add_target(
        parser, None, "the one of this machine; eager, which is plain PyTorch, where that has no kernel"
    )
    parser.add_argument("--seed", metavar="N", type=natural, default=0, help="of the random inputs (0)")
    add_json(parser)


def run(
    file: str,
    pattern: str | None,
    pairs: Sequence[Pair],
    n: int,
    nq: int | None,
    heads: int,
    kv_heads: int | None,
    head_dim: int,
    value_dim: int | None,
    dtype: str | None,
    target: str | None,
    seed: int,
    as_json: bool,
) -> int:
    """Run, compare, time; a result that disagrees is a fault of attnlang."""
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs)
    sizes = Sizes(n, nq or n, heads, kv_heads or heads, head_dim, value_dim or head_dim)
    place, device = place_of(target)
    dtype = dtype or ("bf16" if device == "cuda" else "fp32")
    pairs_in_all = sizes.n * sizes.nq * heads
    if pairs_in_all > MANY_PAIRS:
        complain(
            f"note: the definition is evaluated for all {pairs_in_all:.1e} pairs in float64: this takes a while"
        )
    with progress("making random inputs") as step:
        call = random_call(chosen, parameters, sizes, dtype=_dtype(dtype), device=device, seed=seed)
        step(f"running {chosen.name} on {place}")
        place, result, first = first_call(chosen, call, place, device, asked=target is not None)
        step(f"comparing {chosen.name} with its definition")
        compared = compare(chosen, call, result)
        step(f"timing {chosen.name} on {place}")
        times = _times(lambda: _call(chosen, call, place), device, first)
    agrees = compared.agrees(dtype)
    if as_json:
        print_json(
            {
                "ok": agrees, "pattern": chosen.name, "target": place, "dtype": dtype, "sizes": sizes.symbols(),
                "parameters": parameters, "seed": seed, "max_abs_error": compared.kernel,
                "eager_max_abs_error": compared.eager, "max_abs_value": compared.largest,
                "not_finite": compared.not_finite, "seconds": median(times), "first_seconds": first,
                "times": len(times),
            }
        )  # fmt: skip
    else:
        say(_report(chosen, call, place, dtype, compared, times, first))
    if not agrees:
        complain(f"attnlang: the result on {place} is not what '{chosen.name}' means: please report this")
    return 0 if agrees else FAULT


def place_of(target: str | None) -> tuple[str, str]:
    """The target that is meant, and the device its tensors live on. Raises UnknownTarget."""
    import torch

    from attnlang.settings import options

    named = target or options().target
    if named is not None:
        name = target_of(named).name
        return name, "cuda" if name.startswith(("cuda:", "hip:")) and torch.cuda.is_available() else "cpu"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return compiler.device_target(torch.device(device)), device


def first_call(
    pattern: attnlang.Pattern, call: RandomCall, place: str, device: str, *, asked: bool
) -> tuple[str, torch.Tensor, float]:
    """The target that runs the pattern, the result and the seconds of the first call: `eager`, with a note, where the
    target of this machine has no kernel and nobody asked for it by name."""
    from attnlang.compiler import not_here

    try:
        return place, *_timed(lambda: _call(pattern, call, place), device)
    except not_here() as missing:
        if asked:
            raise
        complain(f"note: {missing.text}: it runs as dense PyTorch")
    return "eager", *_timed(lambda: _call(pattern, call, "eager"), device)


def compare(pattern: attnlang.Pattern, call: RandomCall, result: torch.Tensor) -> Comparison:
    """The result of a target, and of plain PyTorch in the same number format, beside the definition."""
    reference = cast("torch.Tensor", pattern.reference(call.q, call.k, call.v, **call.arguments))
    eager = _call(pattern, call, "eager")
    finite = reference.isfinite()
    wrong = (
        (result.double() != reference) & ~(result.isnan() & reference.isnan()) & ~(finite & result.isfinite())
    )
    if not bool(finite.any()):
        return Comparison(0.0, 0.0, 0.0, int(wrong.sum()))
    return Comparison(
        _largest((result.double() - reference)[finite & result.isfinite()]),
        _largest((eager.double() - reference)[finite & eager.isfinite()]),
        _largest(reference[finite]),
        int(wrong.sum()),
    )


def _call(pattern: attnlang.Pattern, call: RandomCall, target: str) -> torch.Tensor:
    return cast("torch.Tensor", pattern(call.q, call.k, call.v, target=target, **call.arguments))


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _timed(action: Callable[[], Any], device: str) -> tuple[Any, float]:
    import torch

    start = time.perf_counter()
    result = action()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _times(action: Callable[[], Any], device: str, first: float) -> list[float]:
    """Seconds of several calls within the budget; where one call takes longer than that, the one there was."""
    times: list[float] = []
    while len(times) < MOST_TIMES and sum(times) + (max(times) if times else first) <= BUDGET_SECONDS:
        times.append(_timed(action, device)[1])
    return times or [first]


def _report(
    pattern: attnlang.Pattern,
    call: RandomCall,
    place: str,
    dtype: str,
    found: Comparison,
    times: list[float],
    first: float,
) -> str:
    how = {
        "eager": "eager: dense PyTorch, no kernel",
        "interpret": "interpret: the kernel under Triton's interpreter",
    }
    once = "one call" if len(times) == 1 else f"median of {len(times)} calls"
    verdict = "agrees with its definition" if found.agrees(dtype) else "DISAGREES with its definition"
    lines = [
        f"{called(pattern, call.parameters)}: {verdict}",
        f"  inputs   {_shapes(call)}, {dtype}, random",
        f"  target   {how.get(place, place)}",
        f"  error    {found.kernel:.2e} at most, beside {found.eager:.2e} of plain {dtype} evaluation"
        f" (largest value {found.largest:.3g})",
        f"  time     {time_text(median(times))}, {once}; the first took {time_text(first)}",
    ]
    if found.not_finite:
        lines.insert(4, f"  wrong    {found.not_finite} values are infinite or NaN on one side only")
    return "\n".join(lines)


def _shapes(call: RandomCall) -> str:
    """`16 heads × 1024 tokens × 64`, and the tensors of the pattern."""
    heads, queries, features = call.q.shape[1:]
    kv_heads, keys, values = call.v.shape[1:]
    grouped = f" ({kv_heads} for keys)" if kv_heads != heads else ""
    length = counted(keys, "token") if queries == keys else f"{queries} queries, {keys} keys"
    width = f"{features}" if values == features else f"{features} and {values}"
    tensors = "".join(f", {name} {list(tensor.shape)}" for name, tensor in call.tensors.items())
    return f"{counted(heads, 'head')}{grouped} × {length} × {width}{tensors}"


def _dtype(name: str) -> torch.dtype:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]
