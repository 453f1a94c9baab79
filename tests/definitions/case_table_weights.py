"""The cases of sections C, D, F, G and H."""

from collections.abc import Iterable
from dataclasses import replace

from .case_shapes import (
    BEFORE_END,
    BEYOND,
    CHUNK,
    DECODE,
    EMPTY,
    FREE,
    INSIDE,
    LONE,
    ODD,
    OFFSET,
    Shape,
    spread,
    square,
)

SQUARE = (*square(37, 48, 61), replace(ODD, label="same-features", DV=24))
LATTICE = replace(ODD, label="ties", D=16, lattice=True)


def equal_heads(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The same with HK = H."""
    return tuple(replace(shape, HK=shape.H) for shape in shapes)


def equal_features(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The same with DV = D."""
    return tuple(replace(shape, DV=shape.D) for shape in shapes)


NORMALIZERS: dict[str, Iterable[Shape]] = {
    "sigmoid": spread(FREE),
    "relu": spread(FREE),
    "softmax_one": spread(FREE),
    "sink_softmax": spread(FREE),
    "softplus_reweighted": spread(
        FREE, {}, {"power": 2}, {"power": 1, "offset": 0.5}, {"offset": 0.0}, {"power": 4, "offset": 1.2}
    ),
    "sparsemax": spread(FREE),
    "entmax": spread(FREE, {}, {"alpha": 1.25}, {"alpha": 2.0}, {"alpha": 1.75}, {"alpha": 1.05}),
    "sinkhorn": spread(SQUARE, {}, {"iterations": 1}, {"iterations": 0}, {"iterations": 10}),
    "affine_scaled": spread(FREE),
    "top_k": (
        *spread(FREE, {"keep": 5}, {"keep": 8}, {"keep": 1}, {"keep": 200}, {}),
        replace(LATTICE, params={"keep": 6}),
    ),
    "tanh_static": spread(FREE),
    "taylor": spread(FREE),
}

HEADS: dict[str, Iterable[Shape]] = {
    "talking_heads": spread((*FREE, replace(CHUNK, label="many-heads", H=6))),
    "composed_heads": spread(FREE, {}, {"rank": 1}, {"rank": 3}),
    "mixture_of_heads": spread(FREE),
    "key_driven_groups": spread(
        (
            *FREE,
            replace(CHUNK, label="five-over-three", H=5, HK=3),
            replace(ODD, label="three-over-two", H=3, HK=2),
        )
    ),
}

POOLED: dict[str, Iterable[Shape]] = {
    "agent": spread(FREE, {"agents": 7}, {}, {"agents": 1}, {"agents": 16}),
    "pooled_keys": spread(FREE, {}, {"stride": 3}, {"stride": 1}, {"stride": 16}, {"stride": 200}),
    "combiner": spread(SQUARE, {"span": 8}, {"span": 16}, {"span": 7}, {"span": 1}, {}),
    "core_context": spread(
        SQUARE,
        {"group": 4, "window": 10},
        {"group": 8, "window": 16},
        {"group": 5, "window": 1},
        {"group": 1, "window": 6},
        {"group": 7, "window": 3},
        {},
    ),
    "compensated": spread(
        FREE,
        {"sinks": 2, "window": 6},
        {"window": 16},
        {"sinks": 0, "window": 1},
        {"sinks": 3, "window": 9},
        {},
    ),
    "pyramid": spread(
        (
            replace(ODD, NK=48),
            replace(DECODE, NK=80),
            replace(CHUNK, NK=64),
            replace(EMPTY, NK=24, q_offset=0),
            replace(OFFSET, NQ=32, NK=64),
        ),
        {"block": 8},
        {"block": 16},
        {"block": 4},
        {"block": 6},
    ),
    "multiresolution": spread(
        (
            replace(ODD, NQ=40, NK=40),
            replace(CHUNK, NQ=16, NK=64),
            replace(DECODE, NQ=1, NK=50),
            replace(OFFSET, NQ=24, NK=48, q_offset=None),
            replace(ODD, label="all-kept", NQ=30, NK=30),
        ),
        {"block": 8, "keep": 9},
        {"block": 16, "keep": 1},
        {"block": 1, "keep": 12},
        {"block": 4, "keep": 20},
        {"block": 5, "keep": 100},
    ),
}

LINEAR: dict[str, Iterable[Shape]] = {
    "linear": spread(FREE),
    "retention": spread(FREE),
    "based": spread((replace(ODD, D=16), replace(DECODE, D=8), *FREE[2:])),
    "gated_linear": spread(BEFORE_END),
    "delta": spread(equal_heads(FREE)),
    "error_free_delta": spread(equal_heads(FREE)),
    "injective": spread((*INSIDE, EMPTY)),
    "magnitude_aware": spread((*INSIDE, EMPTY)),
    "flow": spread((*INSIDE, EMPTY, BEYOND)),
    "efficient": spread((*INSIDE, EMPTY, LONE)),
    "chunk_recurrent": spread(
        equal_features(BEFORE_END),
        {"chunk": 5},
        {"chunk": 16},
        {"chunk": 1},
        {"chunk": 8},
        {},
        {"chunk": 200},
    ),
}

LAYOUT: dict[str, Iterable[Shape]] = {
    "extra_tokens": spread(
        equal_features((*BEFORE_END, BEYOND)), {"extra": 3}, {}, {"extra": 1}, {"extra": 16}
    ),
    "memory_bank": spread(FREE, {}, {"temperature": 0.2}, {"temperature": 1.0}),
    "windowed_query": spread(
        SQUARE, {}, {"reach": 3, "alpha": 0.8}, {"reach": 1}, {"reach": 200, "alpha": 0.25}
    ),
}

TABLE: dict[str, tuple[Shape, ...]] = {
    name: tuple(shapes) for name, shapes in {**NORMALIZERS, **HEADS, **POOLED, **LINEAR, **LAYOUT}.items()
}
