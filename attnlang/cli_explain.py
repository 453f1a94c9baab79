"""`attnlang explain`: the plan of a pattern at a size: tiles, cost, algorithm, and the reason for each; or of two."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnlang.cli_compare import comparison, differences
from attnlang.cli_console import print_json, progress, say
from attnlang.cli_load import load_pattern, parameters_of
from attnlang.cli_options import Pair, add_file, add_heads, add_json, add_length, add_numbers, add_target

if TYPE_CHECKING:
    from attnlang.ir.plan import Report
    from attnlang.pattern import Pattern


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_file(parser)
    add_length(parser, 4096)
    add_heads(parser, 16)
    add_numbers(parser, 128, "bf16")
    add_target(parser, None, "the one of this machine")
    parser.add_argument(
        "--compare", metavar="OTHER", help="another .attn file: both plans side by side, with what differs"
    )
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
    compare: str | None,
    as_json: bool,
) -> int:
    """Print the plan, or two plans side by side; `-p` then goes to whichever of the patterns has the parameter."""

    def planned(chosen: Pattern, own: Sequence[Pair]) -> Report:
        parameters = parameters_of(chosen, own)
        with progress(f"planning {chosen.name}"):
            return chosen.plan(
                nq or n, n, heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=value_dim, dtype=dtype,
                target=target, **parameters,
            )  # fmt: skip

    chosen = load_pattern(file, pattern)
    if compare is None:
        report = planned(chosen, pairs)
        if as_json:
            print_json({"ok": True, **report.to_dict()})
        else:
            say(str(report))
        return 0
    other = load_pattern(compare, None)
    left = planned(
        chosen, [pair for pair in pairs if pair[0] in chosen.params or pair[0] not in other.params]
    )
    right = planned(other, [pair for pair in pairs if pair[0] in other.params])
    if as_json:
        plans = [report.to_dict() for report in (left, right)]
        print_json({"ok": True, "plans": plans, "differences": differences(left, right)})
    else:
        say(comparison(left, right))
    return 0
