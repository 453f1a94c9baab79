"""The cases of every pattern: small calls that reach its corners, with float64 inputs drawn from a seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .case_inputs import draw_inputs
from .case_shapes import Shape
from .case_table_routing import TABLE as ROUTING_TABLE
from .case_table_static import TABLE as STATIC_TABLE
from .case_table_weights import TABLE as WEIGHTS_TABLE
from .common import REGISTRY

TABLE = {**STATIC_TABLE, **WEIGHTS_TABLE, **ROUTING_TABLE}


@dataclass(frozen=True)
class Case:
    """One call of a pattern: `function(**case.make_inputs(seed), **case.params, scale=…, q_offset=…)`."""

    name: str
    id: str
    B: int
    H: int
    HK: int
    NQ: int
    NK: int
    D: int
    DV: int
    params: Mapping[str, object]
    q_offset: int | None
    scale: float | None
    make_inputs: Callable[[int], dict[str, Tensor]]
    """seed → q, k, v and the tensors of the pattern by name, float64 (or int64, bool)."""


def cases(name: str) -> list[Case]:
    """The cases of the named pattern."""
    return [make_case(name, number, shape) for number, shape in enumerate(TABLE[name])]


def make_case(name: str, number: int, shape: Shape) -> Case:
    """Name a shape and attach its inputs."""
    z, params = shape, dict(shape.params or {})
    identity = f"{name}-{number}-{z.label}"
    make_inputs = partial(draw_inputs, REGISTRY[name], z, identity)
    return Case(
        name, identity, z.B, z.H, z.HK, z.NQ, z.NK, z.D, z.DV, params, z.q_offset, z.scale, make_inputs
    )
