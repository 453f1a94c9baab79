"""Reweighting that a kernel can do in place: w · factor, with a factor that does not read the weights."""

from __future__ import annotations

from attnlang.ir.pattern import Attention, Expr, Read, children
from attnlang.passes.algebra import factors, product


def factor_of(attention: Attention) -> Expr | None:
    """The factor by which each weight is multiplied after normalizing; None where there is none.

    Raises ValueError where the reweighting is no such product: the lowering has been asked for too much.
    """
    if attention.reweight is None:
        return None
    parts = factors(attention.reweight)
    own = [part for part in parts if isinstance(part, Read) and part.source == f"{attention.name}.normalized"]
    others = [part for part in parts if part not in own]
    if len(own) != 1 or any(_reads_weights(part, attention.name) for part in others):
        raise ValueError(f"the reweighting of {attention.name} is not a product of the weight and a factor")
    return product(others)


def is_product(attention: Attention) -> bool:
    """Whether `factor_of` can be had."""
    try:
        factor_of(attention)
    except ValueError:
        return False
    return True


def _reads_weights(expr: Expr, name: str) -> bool:
    if isinstance(expr, Read) and expr.source.startswith(f"{name}."):
        return True
    return any(_reads_weights(child, name) for child in children(expr))
