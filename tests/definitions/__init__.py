"""Independent definitions of every catalogue pattern, in float64: the oracle of the compiler's tests."""

from typing import Any

from torch import Tensor

from . import (
    grid_masks,
    heads,
    layout,
    linear,
    normalizers,
    pooled,
    routing,
    scores,
    static_masks,
    token_routing,
)
from .cases import Case, cases
from .common import (
    REGISTRY,
    REQUIRED,
    Definition,
    Need,
    NeedError,
    Result,
    Sizes,
    TensorSpec,
    brute_force,
    check_needs,
    fill,
)

__all__ = [
    "DEFINITIONS",
    "REQUIRED",
    "Case",
    "Definition",
    "Need",
    "NeedError",
    "Result",
    "TensorSpec",
    "cases",
    "mask",
]

SECTIONS = (
    static_masks,
    grid_masks,
    scores,
    normalizers,
    heads,
    routing,
    token_routing,
    pooled,
    linear,
    layout,
)
"""The modules whose import fills the registry."""

DEFINITIONS: dict[str, Definition] = dict(sorted(REGISTRY.items(), key=lambda item: item[1].section))
"""Every pattern of the catalogue by name, section after section."""


def mask(
    name: str,
    NQ: int,
    NK: int,
    *,
    heads: int = 1,
    kv_heads: int | None = None,
    batch: int = 1,
    q_offset: int | None = None,
    **given: Any,
) -> Tensor:
    """The static visibility of an entry, pair by pair: bool [batch or 1, heads or 1, NQ, NK].

    Raises NeedError where a need of the entry does not hold, and where it has no static visibility.
    """
    definition = DEFINITIONS[name]
    offset = NK - NQ if q_offset is None else q_offset
    z = Sizes(batch, heads, heads if kv_heads is None else kv_heads, NQ, NK, 1, 1, offset)
    p = fill(definition, given, partly=True)
    check_needs(definition, z, p)
    return brute_force(definition, z, p)
