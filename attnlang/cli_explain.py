"""`attnlang explain`: the plan of a pattern at a size: tiles, cost, algorithm, and the reason for each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from attnlang.cli_console import print_json, progress, say
from attnlang.cli_load import load_pattern, parameters_of
from attnlang.cli_options import Pair, add_file, add_heads, add_json, add_length, add_numbers, add_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_file(parser)
    add_length(parser, 4096)
    add_heads(parser, 16)
    add_numbers(parser, 128, "bf16")
    add_target(parser, None, "the one of this machine")
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
    dtype: str,
    target: str | None,
    as_json: bool,
) -> int:
    """Print the plan."""
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs)
    with progress(f"planning {chosen.name}"):
        report = chosen.plan(
            nq or n, n, heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=value_dim, dtype=dtype,
            target=target, **parameters,
        )  # fmt: skip
    if as_json:
        print_json({"ok": True, **report.to_dict()})
    else:
        say(str(report))
    return 0
