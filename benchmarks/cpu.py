"""Times the native CPU kernels beside PyTorch's attentions, in one process, and says which bars they reach.

    python benchmarks/cpu.py                            everything; 16 minutes with --seconds 1
    python benchmarks/cpu.py --quick                    the same steps at tiny sizes, in a minute
    python benchmarks/cpu.py --only forward --cases causal --lengths 4096 --dims 64

forward, backward: eight patterns, ours, scaled_dot_product_attention, compiled FlexAttention and dense PyTorch in turn.
accuracy: errors against float64 with scores up to ±30. decode: one query against 16k keys. overhead: a call at N = 16
beside its launch by ctypes. first: the first call of a new process, with an empty and with a filled cache. Shares of
the peak: a loop of nothing but multiply-adds or bfloat16 dots (cpu_peak.py) takes turns with the others, and medians
are compared; the JSON also has shares of the best millisecond that the loop had in the process. A run of everything
writes cpu.json and its picture, from which cpu_page.py makes docs/cpu-speed.md; other runs are written under other
names.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attnlang.errors import AttnlangError
from attnlang.execute_programs import kernel_cache
from attnlang.runtime.cpp_compiler import find_compiler
from attnlang.targets import target_of
from benchmarks import cpu_bars, machine
from benchmarks.cpu_cases import CASES, DTYPES
from benchmarks.cpu_first import first_calls
from benchmarks.cpu_load import Watch
from benchmarks.cpu_overhead import overhead
from benchmarks.cpu_page import draw
from benchmarks.cpu_passes import RIVALS, Setting, accurate, decoded, timed
from benchmarks.cpu_peak import peak

PARTS = ("forward", "backward", "accuracy", "decode", "overhead", "first")
LONG = 16384
Rows = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """0 when no bar that was measured is missed, 1 when one is, 2 when nothing can be measured here."""
    options = options_of(arguments)
    setting = Setting(options.target, options.heads, tuple(options.rivals), options.seconds, options.most)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        compiler = _compiler()
    except AttnlangError as error:  # without a compiler there is neither a kernel nor a peak
        print(error, file=sys.stderr)
        return 2
    watch, peaks = Watch.start(), [_peak()]
    data: dict[str, Any] = {
        "machine": machine.describe() | compiler, "threads": torch.get_num_threads(), "heads": options.heads,
        "target": options.target, "parts": options.only, "quick": options.quick,
    }  # fmt: skip
    for part in options.only:
        start = time.perf_counter()
        data[part] = _run(part, options, setting)
        data.setdefault("seconds", {})[part] = round(time.perf_counter() - start, 1)
        peaks.append(_peak())
    data["peak"] = {name: max((each[name] or 0.0) for each in peaks) or None for name in peaks[0]}
    data["load"] = watch.end()
    for part in ("forward", "backward"):
        for row in data.get(part, ()):
            _add_best_share(row, data["peak"])
    found = cpu_bars.verdicts(data)
    data["bars"] = [each.to_dict() for each in found]
    name = name_of(options)
    path = machine.write(name, data, options.output)
    _print_bars(found, data["load"])
    if any(part in data for part in ("forward", "backward")):
        draw(data, options.output / f"{name}.png")
    print(path)
    return 1 if any(each.met == "missed" for each in found) else 0


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with the sizes that they leave open filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts only")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few runs: checks the code")
    parser.add_argument("--long", action="store_true", help="also N = 16,384 (forward)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--lengths", nargs="+", type=int, help="N (1024 4096)")
    parser.add_argument("--dims", nargs="+", type=int, help="D (64 128)")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, help="(all; --quick: without flex)")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--target", default="cpu", help="what stands for attnlang (cpu)")
    parser.add_argument("--threads", type=int, help="(those of PyTorch)")
    parser.add_argument("--seconds", type=float, help="time for each contestant of a case, about (2)")
    parser.add_argument("--most", type=int, help="runs of a contestant in a case (200)")
    parser.add_argument("--output", type=Path, default=machine.RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    try:
        target_of(options.target)
    except AttnlangError as error:
        parser.error(str(error))
    quick = options.quick
    options.lengths = options.lengths or ([256] if quick else [*cpu_bars.LENGTHS, *([LONG] * options.long)])
    options.dims = options.dims or ([64] if quick else list(cpu_bars.FEATURES))
    options.seconds = options.seconds or (0.02 if quick else 2.0)
    options.most = options.most or (5 if quick else 200)
    if options.rivals is None:
        options.rivals = [name for name in RIVALS if name != "flex"] if quick else list(RIVALS)
    return options


def name_of(options: argparse.Namespace) -> str:
    """`cpu` for a run of everything; what else is written does not take its place."""
    if options.quick:
        return "cpu-quick"
    whole = (
        options.only == list(PARTS) and options.cases == list(CASES) and options.dtypes == list(DTYPES)
        and options.heads == 8 and options.target == "cpu" and options.rivals == list(RIVALS)
        and set(options.lengths) >= set(cpu_bars.LENGTHS) and set(options.dims) >= set(cpu_bars.FEATURES)
    )  # fmt: skip
    return "cpu" if whole else f"cpu-{'-'.join(options.only) if options.only != list(PARTS) else 'some'}"


def _run(part: str, options: argparse.Namespace, setting: Setting) -> Rows:
    sizes = [(tokens, features) for tokens in options.lengths for features in options.dims]
    match part:
        case "forward" | "backward":
            return _shown(
                timed(name, tokens, features, dtype, setting, backward=part == "backward")
                for name in options.cases
                for tokens, features in sizes
                if part == "forward" or tokens < LONG
                for dtype in options.dtypes
            )
        case "accuracy":
            tokens = 256 if options.quick else 1024
            return _shown(
                accurate(name, tokens, features, dtype, setting)
                for name in options.cases
                for features in options.dims
                for dtype in options.dtypes
            )
        case "decode":
            tokens = 512 if options.quick else 16384
            return _shown(
                decoded(tokens, features, dtype, setting)
                for features in options.dims
                for dtype in options.dtypes
            )
        case "overhead":
            return _shown(overhead(16, 64, dtype, setting) for dtype in options.dtypes)
        case _:
            sizes = (64, 16) if options.quick else (1024, 64)
            return _shown([first_calls("causal", options.target, *sizes, 1 if options.quick else 5)])


def _shown(rows: Iterable[dict[str, Any]]) -> Rows:
    """The rows, each printed when it is known."""
    kept: Rows = []
    for row in rows:
        kept.append(row)
        print(f"{row['case']:17} N={row['N']:<6} D={row['D']:<4} {row['dtype']:9} {_line(row)}", flush=True)
    return kept


def _line(row: dict[str, Any]) -> str:
    match row:
        case {"failed": reason}:
            return f"FAILED {reason}"
        case {"entries": entries, "ratio": ratios}:
            own = entries["attnlang"]
            shown = "".join(f"  {name} {ratio:.2f}×" for name, ratio in ratios.items())
            shown = f"  {row['share_of_peak']:5.1f} %{shown}" if "share_of_peak" in row else shown
            error = "" if own["error"] is None else f"  error {own['error']:.1e}"
            return f"{own['median_ms']:9.3f} ms {own['gflops']:7.1f} GF/s{shown}{error}"
        case {"error": errors, "allowed": allowed}:
            shown = "  ".join(f"{name} {error:.1e}" for name, error in errors.items())
            return f"{shown}  (the 2× rule allows {allowed:.1e})"
        case {"median_us": medians, "above_ctypes_us": above}:
            shown = "  ".join(f"{name} {value:.1f}" for name, value in medians.items())
            return f"{shown} µs; {above:.1f} µs above ctypes"
        case _:
            kinds = ((kind, row[kind], row[f"{kind}_load"]) for kind in ("cold", "warm"))
            return "  ".join(
                f"{kind} {call:.3f} s after {load:.3f} s of loading" for kind, call, load in kinds
            )


# ------------------------------------------------------------------------------------------------- the machine


def _peak() -> dict[str, float | None]:
    """10⁹ operations a second of the multiply-add loop and of the bfloat16 dot loop, on all threads of PyTorch."""
    found = peak(torch.get_num_threads())
    return {"float32": found.fp32, "bfloat16": found.bf16}


def _compiler() -> dict[str, Any]:
    found = find_compiler(kernel_cache())
    return {"compiler": found.version, "instructions": found.level}


def _add_best_share(row: dict[str, Any], peaks: dict[str, float | None]) -> None:
    """The share of the best that the loop ever reached in this process, in some lucky millisecond."""
    best = peaks[row["dtype"]]
    if best and "entries" in row:
        row["share_of_best_peak"] = round(100 * row["entries"]["attnlang"]["gflops"] / best, 1)


def _print_bars(found: list[cpu_bars.Verdict], load: dict[str, Any]) -> None:
    for each in found:
        worst = "" if each.worst is None else f"{each.worst:.3g}{each.unit} ({each.worst_case})"
        print(f"{each.met:12}  {each.dtype:8}  {each.title} {each.bar}: {worst or '-'}")
        for reason in each.failed:
            print(f"{'':24}{reason}")
    if load["under_load"]:
        print(
            "UNDER LOAD: other work took part of the machine, so these times are no measurement of the kernels"
        )


if __name__ == "__main__":
    sys.exit(main())
