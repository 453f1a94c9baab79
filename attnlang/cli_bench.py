"""`attnlang bench`: a pattern timed beside PyTorch's attentions and its dense evaluation, all in turn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attnlang
from attnlang.cli_console import Column, complain, print_json, print_table, progress, say, time_text
from attnlang.cli_load import RandomCall, Sizes, called, load_pattern, parameters_of, random_call
from attnlang.cli_options import (
    Pair,
    UsageError,
    add_file,
    add_heads,
    add_json,
    add_length,
    add_numbers,
    add_target,
    natural,
)
from attnlang.cli_run import first_call, place_of
from attnlang.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from attnlang.bench import Error, Measured
    from attnlang.bench_rivals import Name, Problem, Ready, Rival

RIVALS: tuple[Name, ...] = ("sdpa", "flex", "eager")
EXAMPLE = """\
example:
  attnlang bench window.attn -n 4096 --against sdpa,flex -p window=512

All take turns in one process; the table has the median of the runs, the fastest, the spread of the middle half, and
how many times longer a rival takes. sdpa is scaled_dot_product_attention: without a mask or with is_causal where that
is the pattern, else with a dense mask or bias. flex is torch.compile(flex_attention) with a block mask. eager is the
pattern in dense PyTorch. How many threads work is PyTorch's setting: OMP_NUM_THREADS=1 attnlang bench …
"""
MOST_PAIRS, MOST_PAIRS_BACKWARD = 2**28, 2**25
"""Pairs of query and key up to which the definition is evaluated in float64, and differentiated."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog, parser.formatter_class = EXAMPLE, argparse.RawDescriptionHelpFormatter
    add_file(parser)
    add_length(parser, 1024)
    add_heads(parser, 8)
    add_numbers(parser, 64, None)
    add_target(parser, None, "the one of this machine")
    parser.add_argument(
        "--against", metavar="NAMES", type=rivals, default=RIVALS,
        help="some of sdpa, flex and eager, with commas between them (all)",
    )  # fmt: skip
    parser.add_argument("--backward", action="store_true", help="time the backward pass alone")
    parser.add_argument(
        "--seconds", metavar="S", type=duration, default=2.0, help="time for each of them, about (2)"
    )
    parser.add_argument("--seed", metavar="N", type=natural, default=0, help="of the random inputs (0)")
    add_json(parser)


def rivals(text: str) -> tuple[Name, ...]:
    """`sdpa,flex` as names, each once, in this order."""
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in RIVALS:
            near = nearest(word, list(RIVALS))
            advice = f"did you mean {near!r}?" if near else f"there are {', '.join(RIVALS)}"
            raise argparse.ArgumentTypeError(f"there is no rival {word!r}; {advice}")
    if not words:
        raise argparse.ArgumentTypeError(f"{text!r} names no rival (as in {','.join(RIVALS)})")
    return tuple(name for name in RIVALS if name in words)


def duration(text: str) -> float:
    """A number of seconds above 0, at most an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds (as in 2 or 0.5)")
    return seconds


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
    against: tuple[Name, ...],
    backward: bool,
    seconds: float,
    seed: int,
    as_json: bool,
) -> int:
    """Time the pattern and its rivals, and compare them with the definition."""
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs)
    sizes = Sizes(n, nq or n, heads, kv_heads or heads, head_dim, value_dim or head_dim)
    if heads % sizes.kv_heads:
        raise UsageError(f"--heads {heads} is no multiple of --kv-heads {sizes.kv_heads}")
    place, device = place_of(target)
    dtype = dtype or ("bf16" if device == "cuda" else "fp32")
    with progress("making random inputs") as step:
        import torch

        from attnlang.bench import measure
        from attnlang.bench_rivals import Problem

        types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
        call = random_call(chosen, parameters, sizes, dtype=types[dtype], device=device, seed=seed)
        place, _, _ = first_call(chosen, call, place, device, asked=target is not None)
        problem = Problem(chosen, call.q, call.k, call.v, call.arguments)
        step(f"compiling {chosen.name} for {place}")
        ours, note = _ours(problem, place, named=target is not None)
        made: list[Rival] = []
        for name in against:
            step(f"preparing {name}")
            made.append(_rival(name, problem, ours, backward))
        step("evaluating the definition in float64")
        error = _error(chosen, call, backward)
        step(f"timing {', '.join(each.name for each in [ours, *made])}")
        found = measure(ours, made, (call.q, call.k, call.v), backward=backward, seconds=seconds, error=error)
        step("counting the visible pairs")
        density = _density(chosen, sizes, call, dtype)
    visible = None if density is None else density * sizes.n * sizes.nq * heads
    products = 5 * sizes.head_dim if backward else sizes.head_dim + sizes.value_dim
    flops = None if visible is None else 2 * visible * products
    if note:
        complain(f"note: {note}")
    data = {
        "ok": True, "pattern": chosen.name, "parameters": parameters, "sizes": sizes.symbols(), "dtype": dtype,
        "pass": "backward" if backward else "forward", "threads": torch.get_num_threads(), "seed": seed,
        "density": density, "note": note or None, "entries": _rows(found, flops),
        "absent": [{"name": each.name, "reason": each.reason} for each in found.absent],
    }  # fmt: skip
    if as_json:
        print_json(data)
    else:
        _print(called(chosen, parameters), data)
    return 0


def _ours(problem: Problem, place: str, *, named: bool) -> tuple[Ready, str]:
    """What attnlang runs on `place`, run once; with a note where the pattern has no kernel on a place nobody named."""
    from attnlang.bench_rivals import Ready
    from attnlang.execute_programs import NoKernel

    pattern, arguments = problem.pattern, problem.arguments

    def on(target: str) -> Ready:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return pattern(q, k, v, target=target, **arguments)

        return Ready("attnlang", f'target="{target}"', attend)

    ours = on(place)
    try:
        ours.attend(problem.q, problem.k, problem.v)
    except NoKernel as error:
        if named:
            raise
        return on("eager"), f"{error.text}; eager runs instead"
    return ours, ""


def _rival(name: Name, problem: Problem, ours: Ready, backward: bool) -> Rival:
    from attnlang.bench_rivals import Absent, rival

    pairs = problem.q.shape[1] * problem.q.shape[2] * problem.k.shape[2]
    if name == "eager" and ours.how == 'target="eager"':
        return Absent(name, "it is what attnlang itself runs here")
    if name == "eager" and pairs > MOST_PAIRS:
        return Absent(
            name, f"dense PyTorch takes long for {pairs:,} pairs of query and key; try a smaller -n"
        )
    return rival(name, problem, backward=backward)


def _error(pattern: attnlang.Pattern, call: RandomCall, backward: bool) -> Error | None:
    """The largest difference from the definition, evaluated now; None where that has too many pairs."""
    if call.q.shape[1] * call.q.shape[2] * call.k.shape[2] > (
        MOST_PAIRS_BACKWARD if backward else MOST_PAIRS
    ):
        return None
    import torch

    from attnlang.bench import upstream

    leaves = [each.double().requires_grad_(backward) for each in (call.q, call.k, call.v)]
    with torch.set_grad_enabled(backward):
        out = pattern.reference(leaves[0], leaves[1], leaves[2], **call.arguments)
        wanted = (
            torch.autograd.grad(out, leaves, upstream(call.q.new_empty(out.shape)).double())
            if backward
            else (out,)
        )

    def error(found: Sequence[Tensor]) -> float:
        return max(_largest(result.double() - right) for result, right in zip(found, wanted, strict=True))

    return error


def _largest(difference: Tensor) -> float:
    """Where both sides are infinite or NaN there is no difference to speak of."""
    finite = difference[difference.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _density(pattern: attnlang.Pattern, sizes: Sizes, call: RandomCall, dtype: str) -> float | None:
    """The share of visible pairs, None where it is not known without the values of Q and K."""
    report = pattern.plan(
        sizes.nq, sizes.n, heads=sizes.heads, kv_heads=sizes.kv_heads, head_dim=sizes.head_dim,
        value_dim=sizes.value_dim, dtype=dtype, **call.arguments,
    )  # fmt: skip
    return report.density


# ------------------------------------------------------------------------------------------------------ printing


def _rows(found: Measured, flops: float | None) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name, "how": entry.how, **entry.times.to_dict(), "ratio": found.ratio(entry),
            "gflops": None if flops is None else flops / entry.times.median / 1e9, "max_abs_error": entry.error,
        }
        for entry in found.entries
    ]  # fmt: skip


def _print(title: str, data: dict[str, Any]) -> None:
    sizes, threads = data["sizes"], data["threads"]
    say(
        f"{title}, {data['pass']}: {sizes['H']} heads, {sizes['NQ']} queries × {sizes['NK']} keys × {sizes['D']}, "
        f"{data['dtype']}, {threads} thread{'s' * (threads > 1)}"
    )
    heads = ("median", "fastest", "spread", "time ÷ ours", "GF/s", "error")
    print_table(
        [Column(""), *(Column(head, number=True) for head in heads)], [_cells(row) for row in data["entries"]]
    )
    for row in data["entries"]:
        say(f"{row['name']} is {row['how']}")
    for each in data["absent"]:
        say(f"{each['name']} takes no part: {each['reason']}")
    if data["entries"][0]["max_abs_error"] is not None:
        say("error: the largest difference from the definition in float64")
    else:
        say("no errors: too many pairs to evaluate the definition in float64; a smaller -n has them")
    if data["density"] is not None:
        products = 5 if data["pass"] == "backward" else 2
        say(f"GF/s: {products} products over the visible pairs, which are {data['density']:.2%} of all")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"], time_text(row["median_ms"] / 1e3), time_text(row["least_ms"] / 1e3), f"{row['spread']:.0%}",
        f"{row['ratio']:.2f}", "-" if row["gflops"] is None else f"{row['gflops']:.0f}",
        "-" if row["max_abs_error"] is None else f"{row['max_abs_error']:.1e}",
    ]  # fmt: skip
