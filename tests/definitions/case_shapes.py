"""The sizes that the cases are made of, and how the parameters of a pattern are spread over them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle


@dataclass(frozen=True)
class Shape:
    """The sizes of a case and its parameters, before it has a name and inputs."""

    label: str
    B: int
    H: int
    HK: int
    NQ: int
    NK: int
    D: int
    DV: int
    q_offset: int | None = None
    params: Mapping[str, object] | None = None
    scale: float | None = None
    lattice: bool = False
    """Q and K on a coarse lattice, exact in every dtype: ties are real and are the same everywhere."""


ODD = Shape("odd", 2, 4, 2, 37, 37, 24, 40)
DECODE = Shape("decode", 2, 4, 1, 1, 83, 16, 16)
CHUNK = Shape("chunk", 1, 3, 3, 19, 70, 40, 24)
OFFSET = Shape("offset", 1, 4, 2, 23, 61, 16, 24, q_offset=20)
EMPTY = Shape("empty-rows", 2, 2, 1, 29, 21, 24, 24)
BEYOND = Shape("beyond-the-end", 1, 2, 2, 17, 40, 24, 16, q_offset=30)
LONE = Shape("one-key", 1, 1, 1, 5, 1, 8, 8, q_offset=-2)

INSIDE = (ODD, DECODE, CHUNK, OFFSET)
"""0 ≤ q < NK in each."""
BEFORE_END = (*INSIDE, EMPTY)
"""q < NK in each, and q < 0 in the last."""
FREE = (*BEFORE_END, BEYOND, LONE)
"""Any relation of queries and keys."""

Params = Mapping[str, object]


def spread(shapes: tuple[Shape, ...], *params: Params) -> Iterator[Shape]:
    """Each shape with the next of the parameters, until both are used up; the second has its own scale."""
    choices = params or ({},)
    count = max(len(shapes), len(choices))
    for number, shape, chosen in zip(range(count), cycle(shapes), cycle(choices), strict=False):
        yield replace(shape, params=chosen, scale=0.3 if number == 1 else None)


def square(*lengths: int) -> tuple[Shape, ...]:
    """NQ = NK for each length, with head counts and features that change from one to the next."""
    others = cycle(((2, 4, 2, 24, 40), (1, 3, 3, 16, 16), (1, 4, 1, 40, 24)))
    return tuple(
        Shape(f"square-{n}", B, H, HK, n, n, D, DV)
        for n, (B, H, HK, D, DV) in zip(lengths, others, strict=False)
    )


def on_grid(*params: Params, NK: int | None = None, extents: tuple[str, ...] = ()) -> Iterator[Shape]:
    """For each set of parameters: NQ = NK = the product of its extents, or a few rows of it."""
    variants = (("whole", 2, 4, 2), ("rows", 1, 2, 1), ("part", 1, 3, 3), ("one", 2, 2, 1))
    for number, (chosen, (label, B, H, HK)) in enumerate(zip(params, cycle(variants), strict=False)):
        length = product(chosen, extents) if NK is None else NK
        NQ = {"whole": length, "rows": length // 3, "part": length // 2, "one": 1}[label]
        offset = length // 4 if label == "part" else None
        D, DV = ((24, 40), (16, 16), (40, 24))[number % 3]
        scale = 0.3 if number == 1 else None
        yield Shape(f"{label}-{number}", B, H, HK, NQ, length, D, DV, offset, chosen, scale)


def product(params: Params, extents: tuple[str, ...]) -> int:
    """The product of the named parameters."""
    total = 1
    for name in extents:
        extent = params[name]
        assert isinstance(extent, int)
        total *= extent
    return total
