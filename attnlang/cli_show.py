"""`attnlang show`: the mask as a picture, its tiles coloured by what a kernel does with them, a panel for each head."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import attnlang
from attnlang import compiler
from attnlang.call import bind
from attnlang.call_interface import Interface
from attnlang.cli_console import progress, say
from attnlang.cli_load import Sizes, called, load_pattern, parameters_of, random_call
from attnlang.cli_options import Pair, UsageError, add_file, add_heads, add_length, count, natural
from attnlang.ir.pattern import Select

HEAD_DIM = 32
MOST_PAIRS = 2**29


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_file(parser)
    add_length(parser, 256)
    add_heads(parser, 1)
    parser.add_argument("--head", metavar="H", type=natural, help="draw this head only (all)")
    parser.add_argument(
        "--tiles", dest="tile", metavar="N", type=count, default=64, help="rows and columns of a tile (64)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="of the random tensors of the pattern (0)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the picture: .png, .svg or .pdf; replaced when it exists",
    )


def run(
    file: str,
    pattern: str | None,
    pairs: Sequence[Pair],
    n: int,
    nq: int | None,
    heads: int,
    kv_heads: int | None,
    head: int | None,
    tile: int,
    seed: int,
    output: str,
) -> int:
    """Draw the mask and count its tiles."""
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs)
    sizes = Sizes(n, nq or n, heads, kv_heads or heads, HEAD_DIM, HEAD_DIM)
    if head is not None and head >= heads:
        raise UsageError(f"--head {head}: there are {heads} heads, 0 to {heads - 1} (--heads says how many)")
    if sizes.n * sizes.nq * heads > MOST_PAIRS:
        raise UsageError(f"{heads} × {sizes.nq} × {n} pairs are too many to draw: try a smaller -n")
    with progress(f"drawing {chosen.name}") as step:
        from attnlang.show import check_format, draw_mask

        check_format(output)
        masks, names = _masks(chosen, parameters, sizes, head, seed)
        step(f"writing {output}")
        title = called(chosen, parameters) + (", random tensors" if _is_random(chosen) else "")
        counts = draw_mask(
            masks, output, title=title, tile=tile, head_names=names, q_offset=sizes.n - sizes.nq
        )
    for name, tiles in zip(names, counts, strict=True):
        say(
            f"{name + ': ' if name else ''}{tiles} tiles of {tile} × {tile}, {tiles.density:.2%} of the pairs visible"
        )
    say(output)
    return 0


def _masks(
    pattern: attnlang.Pattern, parameters: dict[str, Any], sizes: Sizes, head: int | None, seed: int
) -> tuple[Any, list[str]]:
    """The masks to draw [panels, NQ, NK] and what the panels are called: one where all heads see the same."""
    import torch

    call = random_call(pattern, parameters, sizes, dtype=torch.float32, seed=seed)
    bound = bind(Interface(pattern.ir), call.q, call.k, call.v, arguments=call.arguments)
    mask = compiler.mask(pattern.ir, bound)[0]
    if head is not None:
        return mask[[min(head, len(mask) - 1)]], [f"head {head}"]
    if bool((mask == mask[:1]).all()):
        return mask[:1], [f"all {sizes.heads} heads" if sizes.heads > 1 else ""]
    return mask, [f"head {number}" for number in range(len(mask))]


def _is_random(pattern: attnlang.Pattern) -> bool:
    """Whether what is visible may depend on tensors, which are random here."""
    return bool(pattern.tensors) or any(isinstance(stage, Select) for stage in pattern.ir.stages)
