"""`attnlang explain --compare`: two plans side by side, and the decisions in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnlang.ir.plan import Report
from attnlang.ir.report_text import engineering


def comparison(left: Report, right: Report) -> str:
    """The numbers of both plans in two columns, the ratio of the second to the first behind them."""
    sizes = " ".join(f"{name}={value}" for name, value in left.sizes.items())
    rows = [("", left.pattern, right.pattern, ""), *_rows(left, right)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"plans on {left.target} at {sizes}"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in (1, 2, 3))]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    for difference in differences(left, right):
        lines.append(f"  {difference['subject']}:")
        lines += [
            f"    {report.pattern}: {choice}"
            for report, choice in zip((left, right), difference["choices"], strict=True)
        ]
    return "\n".join(lines)


def differences(left: Report, right: Report) -> list[dict[str, Any]]:
    """Subjects on which the plans decided otherwise, each with both choices and their reasons ('' for none)."""
    subjects = dict.fromkeys(each.subject for report in (left, right) for each in report.decisions)
    found: list[dict[str, Any]] = []
    for subject in subjects:
        choices, said = zip(*(_said(report, subject) for report in (left, right)), strict=True)
        if choices[0] != choices[1]:
            found.append({"subject": subject, "choices": list(said)})
    return found


def _said(report: Report, subject: str) -> tuple[list[str], str]:
    """What a plan chose on a subject, bare and with the reasons."""
    own = [each for each in report.decisions if each.subject == subject]
    return [each.choice for each in own], "; ".join(
        f"{each.choice} ({each.reason})" for each in own
    ) or "nothing"


def _rows(left: Report, right: Report) -> list[tuple[str, str, str, str]]:
    both = (left, right)
    rows: list[tuple[str, str, str, str]] = []
    given = [" ".join(f"{name}={value}" for name, value in each.parameters.items()) or "-" for each in both]
    rows.append(("parameters", *_two(given), ""))
    rows.append(("runs as", *_two([each.algorithm for each in both]), ""))
    for word, kinds in (
        ("visited", ("full", "partial")),
        ("full", ("full",)),
        ("partial", ("partial",)),
        ("empty", ("empty",)),
    ):
        counts = [_tiles(each, kinds) for each in both]
        shown = ["-" if count is None else f"{count:,}" for count in counts]
        rows.append((f"tiles {word}", *_two(shown), _ratio(counts)))
    pairs = [_pairs(each) for each in both]
    shown = ["-" if count is None else f"{count:,}" for count in pairs]
    rows.append(("pairs in them", *_two(shown), _ratio(pairs)))
    shown = [_density(each) for each in both]
    rows.append(("density", *_two(shown), _ratio([each.density for each in both])))
    for name, unit, numbers in (
        ("operations", "FLOP", [each.flops for each in both]),
        ("memory", "B", [each.bytes for each in both]),
        ("index lists", "B", [each.index_bytes for each in both]),
        ("intensity", "FLOP/B", [each.intensity for each in both]),
        ("computing", "s", [each.compute_seconds for each in both]),
        ("moving", "s", [each.memory_seconds for each in both]),
        ("at least", "s", [each.seconds for each in both]),
    ):
        shown = ["not known" if number is None else f"{engineering(number)}{unit}" for number in numbers]
        rows.append((name, *_two(shown), _ratio(numbers)))
    return rows


def _density(report: Report) -> str:
    """Exact, or between two bounds."""
    if report.density is not None:
        return f"{report.density:.4%}"
    low, high = report.density_bounds
    return f"{low:.2%} to {high:.2%}"


def _two(texts: list[str]) -> tuple[str, str]:
    return texts[0], texts[1]


def _tiles(report: Report, kinds: tuple[str, ...]) -> int | None:
    """Tiles over all branches; None for a plan without any."""
    counts = [getattr(count, kind) for count in report.tiles for kind in kinds]
    return sum(counts) if report.tiles else None


def _pairs(report: Report) -> int | None:
    """Pairs of query and key in the visited tiles: what plans with tiles of other sizes can be compared by."""
    return sum(each.visited * each.rows * each.columns for each in report.tiles) if report.tiles else None


def _ratio(numbers: Sequence[float | None]) -> str:
    left, right = numbers
    return f"× {right / left:.3g}" if left and right is not None else ""
