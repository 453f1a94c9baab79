"""Published mechanisms that no catalogue lists, each as a text of the language and as a definition in plain PyTorch."""

from . import (
    definitions_choosing,
    definitions_graphs,
    definitions_linear,
    definitions_merging,
    definitions_normalizers,
    definitions_pooled,
    definitions_positions,
    definitions_scores,
)
from .common import MECHANISMS, Call, Mechanism, calls

__all__ = ["FAMILIES", "MECHANISMS", "Call", "Mechanism", "calls"]

FAMILIES = (
    definitions_choosing,
    definitions_graphs,
    definitions_linear,
    definitions_merging,
    definitions_normalizers,
    definitions_pooled,
    definitions_positions,
    definitions_scores,
)
"""The modules whose import fills the registry."""
