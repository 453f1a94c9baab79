"""The page and the picture of the CPU benchmark, from its results: `python benchmarks/cpu_page.py`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import RESULTS, ROOT

PAGE = ROOT / "docs" / "cpu-speed.md"
PICTURE = ROOT / "docs" / "images" / "cpu-speed.png"
RESULT = RESULTS / "cpu.json"
MARK = re.compile(r"<!-- results -->\n.*?<!-- end -->\n", re.DOTALL)
PICTURED = 4096
COLOURS = {"sdpa": "#4c72b0", "flex": "#dd8452", "eager": "#937860"}


def results(data: dict[str, Any] | None) -> str:
    """What the page says of a run: where it was made, every bar, every case; or that there is none yet."""
    if data is None:
        return "No run of the whole benchmark has been recorded yet.\n"
    parts = [_place(data), "## The bars\n\n" + _bars(data)]
    if "forward" in data:
        parts.append("## Forward\n\n![ratios](images/cpu-speed.png)\n\n" + _passes(data["forward"]))
    if "backward" in data:
        parts.append("## Backward\n\n" + _passes(data["backward"]))
    if "decode" in data:
        parts.append("## One query against a long cache\n\n" + _passes(data["decode"]))
    if "accuracy" in data:
        parts.append("## Errors with scores up to ±30\n\n" + _errors(data["accuracy"]))
    return "\n".join(parts)


def page(data: dict[str, Any] | None) -> str:
    """The page with its tables from these results."""
    text = f"<!-- results -->\n\n{results(data)}\n<!-- end -->\n"
    return MARK.sub(lambda _: text, PAGE.read_text(encoding="utf-8"))


def recorded() -> dict[str, Any] | None:
    """The results that are kept beside the code."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else None


def _place(data: dict[str, Any]) -> str:
    made, load, peak = data["machine"], data["load"], data["peak"]
    rows = [
        f"{made['device']}, {data['threads']} threads, {data['heads']} heads, one batch entry; "
        f"torch {made['torch']}, {made['compiler']}, {made['instructions']}; commit {made['commit']}"
        + (f" and {made['changed_files']} changed files" if made["changed_files"] else "")
        + f"; {made['time'][:10]}.",
        f"Best millisecond of the peak loops in the same process: float32 {peak['float32']:.0f} GF/s"
        + (f", bfloat16 {peak['bfloat16']:.0f} GF/s." if peak["bfloat16"] else ", no bfloat16 dot."),
    ]
    if load["under_load"]:
        rows.append(
            "**The machine was under load: other work took part of it, so these times measure no kernel.**"
        )
    return "\n".join(rows) + "\n"


def _bars(data: dict[str, Any]) -> str:
    lines = ["| | type | bar | worst | where | |\n", "| --- | --- | --- | --- | --- | --- |\n"]
    for each in data["bars"]:
        worst = "-" if each["worst"] is None else f"{each['worst']:.3g}{each['unit']}"
        count = (
            ""
            if each["met"] in ("met", "not measured")
            else f" ({each['measured']} of {each['cases']} cases)"
        )
        lines.append(
            f"| {each['title']} | {each['dtype']} | {each['bar']} | {worst} | {each['worst_case'] or '-'} "
            f"| {each['met']}{count} |\n"
        )
    return "".join(lines)


def _passes(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| pattern | N | D | type | ms | GF/s | of the peak | sdpa | flex | eager | error |\n",
        "| --- |" + " ---: |" * 10 + "\n",
    ]
    for row in rows:
        start = f"| {row['case']} | {row['N']} | {row['D']} | {row['dtype']} "
        if "failed" in row:
            lines.append(f"{start}| {row['failed'].replace('|', '/')} | | | | | | |\n")
            continue
        own, ratios = row["entries"]["attnlang"], row["ratio"]
        share = f"{row['share_of_peak']:.0f} %" if "share_of_peak" in row else "-"
        shown = " | ".join(f"{ratios[name]:.2f}×" if name in ratios else "-" for name in COLOURS)
        error = "-" if own["error"] is None else f"{own['error']:.1e}"
        lines.append(
            f"{start}| {own['median_ms']:.2f} | {own['gflops']:.0f} | {share} | {shown} | {error} |\n"
        )
    return "".join(lines)


def _errors(rows: list[dict[str, Any]]) -> str:
    names = ("attnlang", "eager", "sdpa")
    lines = [f"| pattern | N | D | type | {' | '.join(names)} |\n", "| --- |" + " ---: |" * 6 + "\n"]
    for row in rows:
        found = row.get("error", {})
        shown = " | ".join(f"{found[name]:.1e}" if name in found else "-" for name in names)
        lines.append(f"| {row['case']} | {row['N']} | {row['D']} | {row['dtype']} | {shown} |\n")
    return "".join(lines)


# --------------------------------------------------------------------------------------------------- the picture


def draw(data: dict[str, Any], file: Path) -> None:
    """How many times longer each rival takes at the greatest length up to PICTURED: a row of panels for each pass, a
    panel for each type, a group of bars for each case."""
    from matplotlib.figure import Figure

    parts = [part for part in ("forward", "backward") if data.get(part)]
    dtypes = list(dict.fromkeys(row["dtype"] for part in parts for row in data[part]))
    rows = {(part, dtype): _pictured(data[part], dtype) for part in parts for dtype in dtypes}
    longest = max(map(len, rows.values()), default=0)
    if not longest:
        return
    size = (7.0 * len(dtypes), 1.0 + len(parts) * (0.8 + 0.4 * longest))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(parts), len(dtypes), squeeze=False)
    for axes, ((part, dtype), shown) in zip(grid.flat, rows.items(), strict=True):
        axes.set_title(f"{part}, {dtype}")
        _panel(axes, shown)
    handles = {
        label: bars
        for axes in figure.axes
        for bars, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper right", frameon=False, ncols=len(handles)
    )
    threads = data["threads"]
    loaded = "; UNDER LOAD, no measurement" if data["load"]["under_load"] else ""
    figure.suptitle(
        f"time ÷ time of attnlang: {data['machine']['device']}, {threads} thread{'s' * (threads > 1)}{loaded}",
        x=0.01, ha="left",
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def _pictured(rows: list[dict[str, Any]], dtype: str) -> list[dict[str, Any]]:
    lengths = [row["N"] for row in rows if row["N"] <= PICTURED] or [row["N"] for row in rows]
    return [row for row in rows if row["dtype"] == dtype and row["N"] == max(lengths) and row.get("ratio")]


def _panel(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Bars from 1 to each ratio: to the right where attnlang is faster."""
    height = 0.8 / len(COLOURS)
    for place, (name, colour) in enumerate(COLOURS.items()):
        shown = [(at, row["ratio"][name]) for at, row in enumerate(rows) if name in row["ratio"]]
        if not shown:
            continue
        places, ratios = [at + (place - 1) * height for at, _ in shown], [ratio for _, ratio in shown]
        axes.barh(places, [ratio - 1 for ratio in ratios], height, left=1, color=colour, label=name)
        for at, ratio in zip(places, ratios, strict=True):
            axes.annotate(
                f"{ratio:.2g}", (ratio, at), xytext=(3 if ratio >= 1 else -3, 0), textcoords="offset points",
                va="center", ha="left" if ratio >= 1 else "right", fontsize=7,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}×")
    axes.xaxis.set_minor_formatter(lambda value, place: "")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['case']}, {row['N']} × {row['D']}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    found = recorded()
    PAGE.write_text(page(found), encoding="utf-8")
    if found is not None:
        draw(found, PICTURE)
    print(PAGE.name)
