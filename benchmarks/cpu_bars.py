"""What the CPU kernels are to reach, and what a run of the benchmark found of it: a verdict for every bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

DTYPES = ("float32", "bfloat16")
PLAIN = ("full", "causal")
ALL = (*PLAIN, "window 512", "sinks + window", "ALiBi", "softcap", "documents", "neighborhood 2-D")
LENGTHS, FEATURES = (1024, 4096), (64, 128)

Row = Mapping[str, Any]
Data = Mapping[str, Any]
Value = Callable[[Row], float | None]
"""The number that is held against a bar; None where the row has none."""


@dataclass(frozen=True)
class Bar:
    """A figure that must hold in every listed case: `part` of the results, `value` of each of its rows."""

    title: str
    unit: str
    dtype: str
    bound: Literal["≥", "≤"]
    limit: float
    part: str
    cases: tuple[tuple[str, int, int], ...]
    value: Value

    def holds(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value >= self.limit if self.bound == "≥" else value <= self.limit


@dataclass(frozen=True)
class Verdict:
    """What was found for a bar: the worst value and its case, how many of the cases have a value, and the reasons of
    those that failed. `met`: 'met', 'missed', 'met so far' where cases are missing, 'not measured'."""

    title: str
    dtype: str
    bar: str
    worst: float | None
    worst_case: str | None
    measured: int
    cases: int
    unit: str
    met: str
    failed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def verdict(bar: Bar, data: Data) -> Verdict:
    """The verdict on one bar."""
    rows: dict[tuple[Any, ...], Row] = {
        (row["case"], row["N"], row["D"]): row for row in data.get(bar.part, ()) if row["dtype"] == bar.dtype
    }
    found: list[tuple[float, str]] = []
    failed: list[str] = []
    for case in bar.cases:
        name, tokens, features = case
        label = f"{name}, N = {tokens:,}, D = {features}"
        row = rows.get(case)
        if row is None:
            continue
        value = bar.value(row)
        if value is not None:
            found.append((value, label))
        elif "failed" in row:
            failed.append(f"{label}: {row['failed']}")
    worst = min(found, default=(None, None)) if bar.bound == "≥" else max(found, default=(None, None))
    if failed or any(not bar.holds(value) for value, _ in found):
        met = "missed"
    elif not found:
        met = "not measured"
    else:
        met = "met" if len(found) == len(bar.cases) else "met so far"
    limit = f"{bar.bound} {bar.limit:g}{bar.unit}"
    return Verdict(
        bar.title,
        bar.dtype,
        limit,
        worst[0],
        worst[1],
        len(found),
        len(bar.cases),
        bar.unit,
        met,
        tuple(failed),
    )


def verdicts(data: Data) -> list[Verdict]:
    """All bars in the order of the table."""
    return [verdict(bar, data) for bar in bars()]


def bars() -> Iterator[Bar]:
    """The table, one bar for each of its numbers."""
    at_4096 = {name: _cases((name,), (4096,)) for name in ALL}
    for dtype, least in zip(DTYPES, (2.2, 4.0), strict=True):
        yield Bar("full and causal, against scaled_dot_product_attention", "×", dtype, "≥", least, "forward",
                  _cases(PLAIN, LENGTHS), _ratio("sdpa"))  # fmt: skip
    for dtype, least in zip(DTYPES, (2.4, 5.0), strict=True):
        yield Bar("all patterns, against torch.compile(flex_attention)", "×", dtype, "≥", least, "forward",
                  _cases(ALL, LENGTHS), _ratio("flex"))  # fmt: skip
    for dtype in DTYPES:
        yield Bar("window 512 at N = 4096, against scaled_dot_product_attention with its mask", "×", dtype, "≥",
                  15.0, "forward", at_4096["window 512"], _ratio("sdpa"))  # fmt: skip
    for dtype, least in zip(DTYPES, (80.0, 70.0), strict=True):
        yield Bar("share of the measured peak, full and causal, N = 4096", " %", dtype, "≥", least, "forward",
                  at_4096["full"] + at_4096["causal"], _share)  # fmt: skip
    for dtype, least in zip(DTYPES, (62.0, 58.0), strict=True):
        yield Bar("share of the measured peak, window 512, N = 4096, visible pairs only", " %", dtype, "≥", least,
                  "forward", at_4096["window 512"], _share)  # fmt: skip
    for dtype, least in zip(DTYPES, (2.3, 2.5), strict=True):
        yield Bar("backward, full and causal, against scaled_dot_product_attention's", "×", dtype, "≥", least,
                  "backward", _cases(PLAIN, LENGTHS), _ratio("sdpa"))  # fmt: skip
    yield Bar("error against float64, scores up to ±30", "", "float32", "≤", 2e-6, "accuracy",
              _cases(ALL, (1024,)), lambda row: row["error"]["attnlang"] if "error" in row else None)  # fmt: skip
    yield Bar("error ÷ what the 2× rule allows, scores up to ±30", "", "bfloat16", "≤", 1.0, "accuracy",
              _cases(ALL, (1024,)),
              lambda row: row["error"]["attnlang"] / row["allowed"] if "error" in row else None)  # fmt: skip
    for kind, most in (("cold", 1.5), ("warm", 0.1)):
        where = "empty cache" if kind == "cold" else "filled cache, new process"
        yield Bar(f"first call beyond imports, {where}", " s", "float32", "≤", most, "first",
                  (("causal", 1024, 64),), _number(kind))  # fmt: skip
    for dtype, least in zip(DTYPES, (1.0, 3.0), strict=True):
        yield Bar("one query against 16k keys, against scaled_dot_product_attention", "×", dtype, "≥", least,
                  "decode", _cases(("one query",), (16384,)), _ratio("sdpa"))  # fmt: skip
    yield Bar("call at N = 16, above its launch by ctypes", " µs", "float32", "≤", 15.0, "overhead",
              (("causal", 16, 64),), _number("above_ctypes_us"))  # fmt: skip


def _cases(names: tuple[str, ...], lengths: tuple[int, ...]) -> tuple[tuple[str, int, int], ...]:
    return tuple(product(names, lengths, FEATURES))


def _ratio(rival: str) -> Value:
    return lambda row: row.get("ratio", {}).get(rival)


def _number(name: str) -> Value:
    return lambda row: row.get(name)


def _share(row: Row) -> float | None:
    return row.get("share_of_peak")
