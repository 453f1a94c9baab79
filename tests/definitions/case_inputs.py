"""Inputs for a case: drawn from a seed, in the range that the meaning of each tensor asks for."""

import zlib
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from .case_shapes import Shape
from .common import Definition, TensorSpec

Draw = Callable[[tuple[int, ...], Generator, Shape], Tensor]


def normal(deviation: float, mean: float = 0.0) -> Draw:
    return lambda shape, g, z: mean + deviation * torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(low: float, high: float) -> Draw:
    return lambda shape, g, z: low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def chance(probability: float) -> Draw:
    return lambda shape, g, z: torch.rand(shape, generator=g) < probability


def integers(high: int) -> Draw:
    return lambda shape, g, z: torch.randint(0, high, shape, generator=g)


def alternating(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    """True, False, True, … along the heads."""
    return torch.arange(shape[0]) % 2 == 0


def sorted_ids(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    """Documents one after another, other borders in each batch entry."""
    return torch.randint(0, 4, shape, generator=g).sort(-1).values


def any_prefix(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    """From 0 to NK, both included."""
    return torch.randint(0, z.NK + 1, shape, generator=g)


def any_kv_head(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    return torch.randint(0, z.HK, shape, generator=g)


def near_identity(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    return torch.eye(shape[0], dtype=torch.float64) + normal(0.3)(shape, g, z)


def some_zero(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    """Gates in (0, 1), many of them 0, and the second head 0 throughout."""
    gates = uniform(0, 1)(shape, g, z) * (torch.rand(shape, generator=g) < 0.6)
    gates[..., 1:2] = 0.0
    return gates


def any_level(shape: tuple[int, ...], g: Generator, z: Shape) -> Tensor:
    """0, 1, 2, 4 or 8, as far as it divides the block; the first row of blocks of head 0 is dropped."""
    block = (z.params or {}).get("block", 64)
    assert isinstance(block, int)
    levels = torch.tensor([0, *(n for n in (1, 2, 4, 8) if block % n == 0)])
    chosen = levels[torch.randint(0, len(levels), shape, generator=g)]
    chosen[:, 0, 0] = 0
    return chosen


BY_TENSOR: dict[str, Draw] = {
    "slopes": uniform(0.01, 0.5),
    "table": normal(1.0),
    "x": normal(0.7),
    "tau": uniform(0.5, 1.5),
    "logit_scale": uniform(0.5, 5.5),
    "sigma": uniform(0.5, 2.5),
    "factor": uniform(0.5, 1.5),
    "decay": uniform(0.6, 1.0),
    "gate": uniform(0.05, 0.95),
    "router": uniform(0.05, 0.95),
    "pre": near_identity,
    "post": near_identity,
    "is_global": chance(0.1),
    "is_visual": chance(0.5),
    "is_temporal": alternating,
    "retrieval": alternating,
    "keep_q": chance(0.7),
    "keep_k": chance(0.7),
    "prefix": any_prefix,
    "kv_head": any_kv_head,
    "bucket": integers(4),
    "level": any_level,
}

BY_PATTERN: dict[tuple[str, str], Draw] = {
    ("document", "ids"): sorted_ids,
    ("region", "ids"): integers(4),
    ("distance_bias", "alpha"): uniform(0.0, 0.4),
    ("gated_positional", "gate"): normal(1.0),
    ("gated_positional", "direction"): normal(0.2),
    ("low_rank_bias", "left"): normal(0.7),
    ("low_rank_bias", "right"): normal(0.7),
    ("affine_scaled", "alpha"): uniform(0.5, 1.5),
    ("affine_scaled", "beta"): normal(0.1),
    ("tanh_static", "m"): normal(0.2),
    ("mixture_of_heads", "gate"): some_zero,
    ("learned_gate", "gate"): normal(1.0),
    ("delta", "beta"): uniform(0.05, 1.0),
    ("error_free_delta", "beta"): uniform(0.05, 1.0),
}

DEFAULT = normal(0.5)
UNSCALED = ("t5", "retention", "gated_linear")
"""Their products have no scale: Q is drawn smaller."""


def draw_inputs(definition: Definition, z: Shape, identity: str, seed: int) -> dict[str, Tensor]:
    """q, k, v and the tensors of the definition for this shape."""
    g = torch.Generator().manual_seed(zlib.crc32(identity.encode()) + seed)
    name = definition.name
    inputs = {
        "q": normal(0.4 if name in UNSCALED else 1.0)((z.B, z.H, z.NQ, z.D), g, z),
        "k": normal(1.0)((z.B, z.HK, z.NK, z.D), g, z),
        "v": normal(1.0)((z.B, z.HK, z.NK, z.DV), g, z),
    }
    if z.lattice:
        inputs["q"] = integers(5)((z.B, z.H, z.NQ, z.D), g, z).double() / 2 - 1
        inputs["k"] = integers(5)((z.B, z.HK, z.NK, z.D), g, z).double() / 2 - 1
    if name == "delta":  # beta·|K|² ≤ 1, or the state explodes
        inputs["k"] = torch.nn.functional.normalize(inputs["k"], dim=-1)
    if name == "error_free_delta" and z.NK > 1:
        inputs["k"][:, :, z.NK // 2] = 0.0
    for tensor, spec in definition.tensors.items():
        draw = BY_PATTERN.get((name, tensor)) or BY_TENSOR.get(tensor) or DEFAULT
        inputs[tensor] = draw(tensor_shape(spec, definition, z), g, z)
    return inputs


def tensor_shape(spec: TensorSpec, definition: Definition, z: Shape) -> tuple[int, ...]:
    """The lengths of the declared axes in a case."""
    return tuple(axis_length(axis, {**definition.params, **(z.params or {})}, z) for axis in spec.axes)


def axis_length(axis: str, params: dict[str, object], z: Shape) -> int:
    """The length of one axis as the catalogue writes it."""

    def number(name: str) -> int:
        value = params[name]
        assert isinstance(value, int)
        return value

    sizes = {"b": z.B, "h": z.H, "g": z.HK, "d": z.D, "q": z.NQ, "k": z.NK, "n": z.NK}
    match axis:
        case "(2*window-1)**2":
            return (2 * number("window") - 1) ** 2
        case "2*reach-1":
            return 2 * number("reach") - 1
        case "q/block":
            return -(-z.NQ // number("block"))
        case "k/block":
            return -(-z.NK // number("block"))
        case _:
            return int(axis) if axis.isdigit() else sizes[axis] if axis in sizes else number(axis)
