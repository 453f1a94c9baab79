"""A plan at a size as people read it: a column of names, a column of what there is to say."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlang.ir.plan import Decision, Report, TileCount

NAMES = 14
"""Columns of the names on the left."""
WIDTH = 108
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
Row = tuple[str, str]


def text(report: Report) -> str:
    """All of a plan."""
    tiles = [row for count in report.tiles for row in _tiles(count, len(report.tiles) > 1)]
    rows: list[Row] = [
        ("at", _sizes(report.sizes)),
        *([("parameters", _listed(report.parameters))] if report.parameters else []),
        ("runs as", report.algorithm),
        *tiles,
        ("density", density(report)),
        ("work", work(report)),
        ("memory", memory(report)),
        ("intensity", f"{engineering(report.intensity)}FLOP for each byte"),
        ("time", time(report)),
        *(("no kernel", str(obstacle)) for obstacle in report.obstacles),
    ]
    lines = [f"plan of {report.pattern} on {report.target}"]
    lines += [line for name, said in rows for line in _row(name, said)]
    lines.append("decisions")
    lines += [line for decision in report.decisions for line in _decision(decision)]
    if report.recompiles_with:
        lines.append("another kernel for another")
        lines += _wrapped(", ".join(report.recompiles_with), 2, 2)
    return "\n".join(lines)


def density(report: Report) -> str:
    """The share of visible pairs, or what is known of it."""
    low, high = report.density_bounds
    missing = f"; it depends on {_names(report.missing)}, not given here" if report.missing else ""
    if report.density is not None:
        return f"{report.density:.4%} of all pairs are visible"
    return f"between {low:.4%} and {high:.4%} of all pairs are visible{missing}"


def work(report: Report) -> str:
    """The FLOPs, and of what."""
    where = "in the visited tiles" if report.tiles else "over all pairs"
    return f"{engineering(report.flops)}FLOP: both matrix products {where}"


def memory(report: Report) -> str:
    """The bytes that are moved, and those of index lists."""
    held = f"{engineering(report.index_bytes)}B of index lists" if report.index_bytes else "no index lists"
    return f"{engineering(report.bytes)}B read and written at least; {held}"


def time(report: Report) -> str:
    """The predicted time and what bounds it, or why there is none."""
    if report.seconds is None or report.compute_seconds is None or report.memory_seconds is None:
        reason = "its throughput is not known" if report.tiles else "dense PyTorch"
        return f"not predicted: {reason}"
    rate, speed = report.flops / report.compute_seconds, report.bytes_moved / report.memory_seconds
    computing = f"computing {engineering(report.compute_seconds)}s at {engineering(rate)}FLOP/s"
    moving = f"moving {engineering(report.memory_seconds)}s at {engineering(speed)}B/s"
    return f"at least {engineering(report.seconds)}s ({computing}, {moving})"


def engineering(value: float) -> str:
    """A number with three digits and the prefix that fits, a blank before the unit."""
    if not value:
        return "0 "
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value / 1e-9:.3g} n"


def _tiles(count: TileCount, named: bool) -> list[Row]:
    """The tiles of one attention: all, then by kind, numbers under one another."""
    total = count.visited + count.empty
    of = f" of '{count.branch}'" if named else ""
    shown = {
        "visited": count.visited, "full": count.full, "partial": count.partial, "empty": count.empty
    }  # fmt: skip
    said = {
        "visited": "computed by the kernel",
        "full": "every pair visible: computed without a mask",
        "partial": "some pairs hidden: computed and masked",
        "empty": "skipped",
    }
    width = len(f"{max(shown.values()):,}")
    rows: list[Row] = [
        ("tiles", f"{total:,}{of}, {count.rows} queries × {count.columns} keys each, over all heads")
    ]
    for kind, number in shown.items():
        rows.append(("", f"{kind:<8}{number:>{width},}  {number / max(total, 1):>6.1%}  {said[kind]}"))
    return rows


def _decision(decision: Decision) -> list[str]:
    """The choice, then why, then what else there is."""
    lines = _row(decision.subject, decision.choice)
    for word, said in (("why", decision.reason), ("else", decision.alternative)):
        if said:
            lines += _wrapped(f"{word:<5}{said}", NAMES + 4, NAMES + 9)
    return lines


def _row(name: str, said: str) -> list[str]:
    first, *rest = wrap(said, WIDTH - NAMES - 2, break_long_words=False) or [""]
    return [f"  {name:<{NAMES}}{first}".rstrip(), *(f"  {'':<{NAMES}}{line}" for line in rest)]


def _wrapped(said: str, first: int, rest: int) -> list[str]:
    return wrap(said, WIDTH, initial_indent=" " * first, subsequent_indent=" " * rest, break_long_words=False)


def _sizes(sizes: dict[str, int]) -> str:
    """The sizes in words; what is as usual is left out."""
    heads = f"{sizes['H']} heads" if sizes["H"] != 1 else "1 head"
    if sizes["HK"] != sizes["H"]:
        heads += f" on {sizes['HK']} of keys and values"
    features = f"head size {sizes['D']}" + (f", values {sizes['DV']}" if sizes["DV"] != sizes["D"] else "")
    return f"batch {sizes['B']}, {heads}, {sizes['NQ']:,} queries, {sizes['NK']:,} keys, {features}"


def _listed(values: dict[str, bool | int | float]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
