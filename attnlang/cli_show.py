"""`attnlang show`: pictures of the mask and its tiles, of what one query sees, and a page with sliders."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attnlang
from attnlang import compiler
from attnlang.call import Binding, bind, bind_sizes
from attnlang.call_interface import Interface
from attnlang.call_numbers import NotKnown, number
from attnlang.cli_console import progress, say
from attnlang.cli_load import Sizes, called, load_pattern, parameters_of
from attnlang.cli_options import Pair, UsageError, add_file, add_heads, add_length, count, natural
from attnlang.cli_write import write_file
from attnlang.errors import nearest
from attnlang.samples import random_inputs, random_tensors

if TYPE_CHECKING:
    from attnlang.show import Keys, Pairs, TilesAtScale
    from attnlang.show_seen import Branch

HEAD_DIM = 32
MOST_PAIRS = 2**22
"""Beyond so many pairs of a head the tiles are drawn from their classification."""
MOST_CHOSEN = 2**25
"""Up to so many pairs in all they are looked at where queries and keys decide who sees whom."""
MOST_IN_ALL = 2**24
MOST_ELEMENTS = 2**28
"""Of the random tensors of a call."""

DESCRIPTION = """\
Draw who sees whom: the mask and its tiles, a panel for each attention and for heads that differ; long sequences
by their tiles alone. With --query what one query sees, with --html a page whose sliders are the parameters.
"""
EXAMPLES = """\
examples:
  attnlang show swa.attn -n 256 -p window=64 -o mask.png             the mask and its tiles
  attnlang show swa.attn -n 1M -p window=4096 -o tiles.png           only the tiles: no pair is looked at
  attnlang show nsa.attn --branch near --heads 4 --head 2 -o m.svg   one attention, one head
  attnlang show na.attn -n 1024 -p height=32 -p width=32 --query 500 -o keys.png
  attnlang show swa.attn -n 256 -p window=64 --html page.html        sliders, in any browser
"""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the command: the pattern at its sizes, and which of its parts."""

    pattern: attnlang.Pattern
    parameters: dict[str, Any]
    sizes: Sizes
    branches: tuple[Branch, ...]
    head: int | None
    batch: int
    tile: int
    seed: int

    @property
    def symbols(self) -> dict[str, Any]:
        """Every number that the pattern may name; scale and lengths included."""
        values = {name: item.default for name, item in self.pattern.params.items()}
        offset = self.sizes.n - self.sizes.nq
        named = {**self.sizes.symbols(), "B": self.batch + 1, "q_offset": offset, "scale": HEAD_DIM**-0.5}
        return {**named, **values, **self.parameters}

    @property
    def title(self) -> str:
        """The call, and whether its tensors are made up."""
        return called(self.pattern, self.parameters) + (", random tensors" if self.is_random else "")

    @property
    def is_random(self) -> bool:
        """Whether what is drawn depends on random tensors, queries or keys."""
        from attnlang.show_seen import is_chosen, needed_by

        tensors = set(self.pattern.tensors)
        return any(
            is_chosen(self.pattern.ir, branch) or tensors & needed_by(self.pattern.ir, branch)
            for branch in self.branches
        )

    def size_of(self, branch: Branch) -> tuple[int, int]:
        """Rows and columns of a branch; UsageError where a tensor would be needed to know them."""
        try:
            return branch.shape(self.symbols)
        except (NotKnown, ArithmeticError) as error:
            raise UsageError(f"the size of '{branch.name or 'the mask'}' is not known: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_file(parser)
    add_length(parser, 256)
    add_heads(parser, 1)
    parser.add_argument("--head", metavar="H", type=natural, help="draw this head only (all)")
    parser.add_argument(
        "--branch", metavar="NAME", help="draw this attention only, where the pattern has several"
    )
    parser.add_argument(
        "--batch", metavar="B", type=natural, default=0, help="which sequence of the random tensors (0)"
    )
    parser.add_argument(
        "--tiles", dest="tile", metavar="N", type=count, default=64, help="rows and columns of a tile (64)"
    )
    parser.add_argument(
        "--query", metavar="Q", type=natural, help="draw what the query at this position sees, on its grid"
    )
    parser.add_argument(
        "--grid", metavar="HxW", type=extents, help="with --query: the grid of the keys, as in 32x32 or 8x16x16 "
        "(read from the pattern)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="of the random tensors of the pattern (0)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the picture: .png, .svg or .pdf; replaced when it exists"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="a page with the parameters as sliders; one file, no network needed"
    )


def extents(text: str) -> tuple[int, ...]:
    """`8x16x16`: one to three extents."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}([x×][1-9][0-9]{0,9}){0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no grid (as in 64x64 or 8x16x16)")
    return tuple(int(extent) for extent in re.split("[x×]", text))


def run(
    file: str,
    pattern: str | None,
    pairs: Sequence[Pair],
    n: int,
    nq: int | None,
    heads: int,
    kv_heads: int | None,
    head: int | None,
    branch: str | None,
    batch: int,
    tile: int,
    query: int | None,
    grid: tuple[int, ...] | None,
    seed: int,
    output: str | None,
    html: str | None,
) -> int:
    """Draw what is asked for; say how many tiles there are of each kind."""
    if output is None and html is None:
        raise UsageError("the following arguments are required: -o/--output (a picture) or --html (a page)")
    if grid is not None and query is None:
        raise UsageError("--grid says how the keys of one query are laid out: give --query too")
    if query is not None and output is None:
        raise UsageError("--query draws a picture: say where with -o")
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs)
    sizes = Sizes(n, nq or n, heads, kv_heads or heads, HEAD_DIM, HEAD_DIM)
    if head is not None and head >= heads:
        raise UsageError(f"--head {head}: there are {heads} heads, 0 to {heads - 1} (--heads says how many)")
    with progress(f"drawing {chosen.name}") as step:
        wanted = Wanted(chosen, parameters, sizes, _branches(chosen, branch), head, batch, tile, seed)
        said: list[str] = []
        if output is not None:
            from attnlang.show import check_format

            check_format(output)
            step(f"writing {output}")
            said += _draw_keys(wanted, query, grid, output) if query is not None else _draw(wanted, output)
            said.append(output)
        if html is not None:
            step(f"writing {html}")
            said += _write_page(wanted, html, named=branch is not None)
    say("\n".join(said))
    return 0


def _branches(pattern: attnlang.Pattern, name: str | None) -> tuple[Branch, ...]:
    """The attentions that are drawn; UsageError where there is none of that name."""
    from attnlang.show_seen import branches_of

    found = branches_of(pattern.ir)
    if name is None:
        return found
    known = [branch.attention.name for branch in found]
    if name not in known:
        near = nearest(name, known)
        advice = f"did you mean '{near}'?" if near else f"it has {', '.join(known)}"
        raise UsageError(f"--branch {name}: '{pattern.name}' has no attention of that name; {advice}")
    return (found[known.index(name)],)


# ------------------------------------------------------------------------------------------------ calls


def _binding(wanted: Wanted, *, whole: bool) -> Binding:
    """The checked call; `whole`: with queries, keys and values, which are made only where they are needed."""
    pattern, symbols, seed = wanted.pattern.ir, wanted.symbols, wanted.seed
    kept = pattern if whole else replace(pattern, tensors=_needed_tensors(wanted))
    for tensor in kept.tensors:
        elements = prod(int(number(axis.size, symbols)) for axis in tensor.axes)
        if elements > MOST_ELEMENTS:
            raise UsageError(f"'{tensor.name}' would have {elements:,} elements: try a smaller -n")
    arguments = {**wanted.parameters, **random_tensors(kept, symbols, seed)}
    interface = Interface(pattern)
    if whole:
        import torch

        made = random_inputs(pattern, symbols, torch.float32, seed)
        return bind(interface, made["q"], made["k"], made["v"], arguments=arguments)
    sizes = wanted.sizes
    return bind_sizes(
        interface, sizes.nq, sizes.n, heads=sizes.heads, kv_heads=sizes.kv_heads, batch=wanted.batch + 1,
        head_dim=HEAD_DIM, arguments=arguments,
    )  # fmt: skip


def _needed_tensors(wanted: Wanted) -> tuple[Any, ...]:
    from attnlang.show_seen import needed_by

    needed = frozenset[str]().union(*(needed_by(wanted.pattern.ir, branch) for branch in wanted.branches))
    return tuple(tensor for tensor in wanted.pattern.ir.tensors if tensor.name in needed)


def _is_chosen(wanted: Wanted) -> bool:
    from attnlang.show_seen import is_chosen

    return any(is_chosen(wanted.pattern.ir, branch) for branch in wanted.branches)


# ---------------------------------------------------------------------------------------- masks and tiles


def _draw(wanted: Wanted, output: str) -> list[str]:
    """The mask, or at scale its tiles; a line about each panel."""
    from attnlang.show import draw_views

    shapes = [wanted.size_of(branch) for branch in wanted.branches]
    largest = max(rows * columns for rows, columns in shapes)
    in_all = sum(rows * columns for rows, columns in shapes) * wanted.sizes.heads
    chosen = _is_chosen(wanted)
    dense = in_all <= MOST_CHOSEN if chosen else largest <= MOST_PAIRS and in_all <= MOST_IN_ALL
    binding = _binding(wanted, whole=dense and chosen)
    views = list(_pairs(wanted, binding) if dense else _tiles(wanted, binding))
    notes: list[str] = []
    if chosen and not dense:
        notes.append("What queries and keys choose is not looked at here: such tiles count as partial.")
    rows = len({view.name.partition(":")[0] for view in views}) if len(wanted.branches) > 1 else 1
    across = (
        len(views) // rows if rows > 1 and len(views) % rows == 0 and 1 < len(views) // rows <= 4 else None
    )
    counts = draw_views(views, output, title=wanted.title, tile=wanted.tile, across=across, notes=notes)
    return [
        f"{view.name + ': ' if view.name else ''}{tiles} tiles of {wanted.tile} × {wanted.tile}, "
        + (tiles.visible if tiles.most is not None else f"{tiles.density:.2%} of the pairs visible")
        for view, tiles in zip(views, counts, strict=True)
    ]


def _pairs(wanted: Wanted, binding: Binding) -> Iterator[Pairs]:
    """Every pair of every branch, heads that see alike once."""
    from attnlang.show import Pairs
    from attnlang.show_seen import alike, axis_name, seen_pairs

    for branch in wanted.branches:
        masks = seen_pairs(wanted.pattern.ir, branch, compiler.inputs_of(binding), wanted.batch)
        for heads, name in _named(wanted, branch, alike(masks)):
            mask = masks[heads[0]]
            yield Pairs(
                name, mask, axis_name(branch.over), axis_name(branch.row), branch.first(wanted.symbols)
            )


def _tiles(wanted: Wanted, binding: Binding) -> Iterator[TilesAtScale]:
    """The tiles of every branch from their classification, heads that see alike once."""
    from attnlang.show import TilesAtScale
    from attnlang.show_seen import axis_name, tile_pictures

    tensors = {name: tensor.numpy() for name, tensor in binding.tensors.items()}
    for branch in wanted.branches:
        rows, columns = wanted.size_of(branch)
        found = dict(
            tile_pictures(wanted.pattern.ir, branch, wanted.symbols, tensors, wanted.tile, wanted.batch)
        )
        for heads, name in _named(wanted, branch, list(found)):
            axes = axis_name(branch.over), axis_name(branch.row), branch.first(wanted.symbols)
            yield TilesAtScale(name, found[heads], rows, columns, *axes)


def _named(
    wanted: Wanted, branch: Branch, groups: list[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """The groups of heads that are drawn, and what their panels are called."""
    from attnlang.show_seen import heads_name

    total = sum(map(len, groups))
    for heads in groups:
        if wanted.head is None:
            name = heads_name(heads, total)
        elif total == 1 or wanted.head in heads:
            name = f"head {wanted.head}"
        else:
            continue
        yield heads, ": ".join(part for part in (branch.name, name) if part)


# -------------------------------------------------------------------------------------- keys of one query


def _draw_keys(wanted: Wanted, query: int, grid: tuple[int, ...] | None, output: str) -> list[str]:
    """What one query sees; a line about each panel."""
    from attnlang.show import draw_keys
    from attnlang.show_grid import grid_text

    last = wanted.sizes.n - 1
    first = wanted.sizes.n - wanted.sizes.nq
    if not first <= query <= last:
        raise UsageError(f"--query {query}: the queries stand at the positions {first} to {last}")
    views = list(_keys(wanted, query, grid))
    draw_keys(views, output, title=f"{wanted.title}\nwhat the query at position {query} sees")
    return [
        f"{view.name + ': ' if view.name else ''}{int(view.seen.sum()):,} of {len(view.seen):,} visible"
        + (f", on a grid of {grid_text(view.grid)}" if len(view.grid) > 1 else "")
        for view in views
    ]


def _keys(wanted: Wanted, query: int, grid: tuple[int, ...] | None) -> Iterator[Keys]:
    """The keys of a query in every branch whose rows are queries, heads that see alike once."""
    from attnlang.show import Keys
    from attnlang.show_grid import fits, grid_of, grid_text
    from attnlang.show_seen import alike, axis_name, seen_keys

    branches = [branch for branch in wanted.branches if branch.row.role == "query"]
    if not branches:
        raise UsageError(f"no attention of '{wanted.pattern.name}' that is drawn has queries as its rows")
    sizes = [wanted.size_of(branch)[1] for branch in branches]
    if grid is not None and not any(fits(grid, size) for size in sizes):
        raise UsageError(
            f"--grid {grid_text(grid)} has {prod(grid):,} places, and there are {sizes[0]:,} keys"
        )
    if _is_chosen(wanted) and wanted.sizes.n * wanted.sizes.nq * wanted.sizes.heads > MOST_CHOSEN:
        raise UsageError("queries and keys decide who sees whom: try a smaller -n")
    binding = _binding(wanted, whole=_is_chosen(wanted))
    for branch, size in zip(branches, sizes, strict=True):
        seen = seen_keys(wanted.pattern.ir, branch, compiler.inputs_of(binding), query, wanted.batch)
        found = (
            grid
            if grid is not None and fits(grid, size)
            else grid_of(branch.visible, branch.over, wanted.symbols)
        )
        own = query if branch.over.role == "key" and query < size else None
        for heads, name in _named(wanted, branch, alike(seen)):
            yield Keys(name, seen[heads[0]], found, own, axis_name(branch.over))


# -------------------------------------------------------------------------------------------------- pages


def _write_page(wanted: Wanted, html: str, *, named: bool) -> list[str]:
    """The page with sliders; which attentions it cannot show, and its file."""
    from attnlang.show_page import MOST_PAIRS as most
    from attnlang.show_page import page_of

    if wanted.sizes.n > most:
        raise UsageError(f"--html shows at most {most:,} × {most:,} pairs: try a smaller -n")
    binding = _binding(wanted, whole=False)
    page = page_of(
        wanted.pattern.ir, wanted.branches, binding, text=str(wanted.pattern), head=wanted.head or 0,
        batch=wanted.batch, tile=wanted.tile, all_needed=named,
    )  # fmt: skip
    write_file(Path(html), page.text)
    return [*page.left_out, html]
