"""The other ways to compute a pattern on this machine: PyTorch's two fast attentions, and its dense evaluation.

Each is made for one call of a pattern, or is absent with a reason in words. FlexAttention is compiled, with the
functions and the block mask of `Pattern.to_flex`; scaled_dot_product_attention is called without a mask where the
pattern needs none, with `is_causal` where that is all the mask says, else with a dense mask or bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from attnlang.errors_flex import NoFlexForm
from attnlang.flex import FlexParts
from attnlang.flex_score import SCORE, scored
from attnlang.ir.pattern import Apply, Attention, Expr, children
from attnlang.pattern import Pattern

Name = Literal["sdpa", "flex", "eager"]
NAMES: tuple[Name, ...] = get_args(Name)

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [B, H, NQ, D], k [B, HK, NK, D], v [B, HK, NK, DV] → [B, H, NQ, DV]."""

MOST_ELEMENTS = 2**30
"""Elements of a dense mask or bias: beyond them, nobody would call it."""


@dataclass(frozen=True)
class Ready:
    """A way to compute the pattern that runs; `how` says what is called."""

    name: str
    how: str
    attend: Attend


@dataclass(frozen=True)
class Absent:
    """A way that cannot compute the pattern here, and why."""

    name: str
    reason: str


Rival: TypeAlias = Ready | Absent


@dataclass(frozen=True)
class Problem:
    """A call of a pattern that rivals are made for; `arguments` are its parameters and tensors."""

    pattern: Pattern
    q: Tensor
    k: Tensor
    v: Tensor
    arguments: Mapping[str, Any]

    def parts(self) -> FlexParts:
        """The pattern for FlexAttention. Raises NoFlexForm."""
        (batch, heads, queries, _), (_, kv_heads, keys, _) = self.q.shape, self.k.shape
        return self.pattern.to_flex(
            queries, keys, heads=heads, kv_heads=kv_heads, batch=batch, device=self.q.device, **self.arguments
        )


def rival(name: Name, problem: Problem, *, backward: bool = False) -> Rival:
    """The rival of that name for a problem, as it is before its first call, which may still show that it cannot."""
    try:
        match name:
            case "eager":
                return _eager(problem)
            case "sdpa":
                return _sdpa(problem)
            case "flex":
                return _flex(problem, backward)
    except NoFlexForm as error:
        return Absent(name, error.fields["reason"])


def said(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    first = next((line for line in str(error).splitlines() if line.strip()), "without a message")
    return f"{type(error).__name__}: {first.strip()[:200]}"


def _eager(problem: Problem) -> Rival:
    pattern, arguments = problem.pattern, problem.arguments

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return pattern(q, k, v, target="eager", **arguments)

    return Ready("eager", 'target="eager": dense PyTorch', attend)


# ------------------------------------------------------------------------------------------------ FlexAttention


def compiled_flex() -> Callable[..., Any]:
    """`torch.compile(flex_attention)`. Earlier compilations are forgotten: every call would first look through them."""
    library: Any = torch  # the types of its compiler are not known
    library.compiler.reset()
    return library.compile(flex_attention, dynamic=False)


def _flex(problem: Problem, backward: bool) -> Rival:
    if backward and problem.q.device.type == "cpu":
        return Absent("flex", "FlexAttention has no backward pass on the CPU")
    arguments = problem.parts().arguments
    attend = compiled_flex()
    named = [name for name in ("score_mod", "block_mask") if arguments[name] is not None]
    how = f"torch.compile(flex_attention){' with ' + ' and '.join(named) if named else ''}"
    return Ready("flex", how, lambda q, k, v: attend(q, k, v, **arguments))


# --------------------------------------------------------------------------------- scaled_dot_product_attention


def _sdpa(problem: Problem) -> Rival:
    pattern, parts = problem.pattern, problem.parts()
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    score = scored(attention.score, parts.scale)
    if parts.score_mod is not None and (score is None or not _is_sum(score.score)):
        return Absent("sdpa", "its score is more than the product of Q and K, scaled, plus a bias")
    (batch, heads, queries, _), keys = problem.q.shape, problem.k.shape[2]
    biases = queries * keys * (batch * heads if parts.score_mod is not None else 1)
    if (parts.score_mod is not None or parts.mask_mod is not None) and biases > MOST_ELEMENTS:
        return Absent(
            "sdpa", f"its dense {'bias' if parts.score_mod else 'mask'} would have {biases:,} elements"
        )
    mask, how = _dense(parts, problem)
    causal = mask is not None and _is_triangle(mask)
    given: dict[str, Any] = {"is_causal": True} if causal else {} if mask is None else {"attn_mask": mask}
    given |= {"scale": parts.scale, "enable_gqa": parts.enable_gqa}

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, **given)

    return Ready("sdpa", f"scaled_dot_product_attention {'with is_causal' if causal else how}", attend)


def _dense(parts: FlexParts, problem: Problem) -> tuple[Tensor | None, str]:
    """The mask (bool) or the bias (−∞ where hidden), of four axes, some of length 1, and how to call it."""
    (batch, heads, queries, _), keys, q = problem.q.shape, problem.k.shape[2], problem.q
    counts = (torch.arange(count, device=q.device) for count in (batch, heads, queries, keys))
    at = [row.view([-1 if axis == place else 1 for axis in range(4)]) for place, row in enumerate(counts)]
    visible = None if parts.mask_mod is None else _spread(parts.mask_mod(*at), queries, keys)
    if parts.score_mod is None:
        shape = "" if visible is None else f"{list(visible.shape)}"
        return visible, "without a mask" if visible is None else f"with a dense mask {shape}"
    bias = _spread(parts.score_mod(q.new_zeros(1, 1, 1, 1), *at), queries, keys)
    bias = bias if visible is None else bias.masked_fill(~visible, float("-inf"))
    return bias.to(q.dtype), f"with a dense bias {list(bias.shape)}"


def _spread(values: Tensor, queries: int, keys: int) -> Tensor:
    return values.expand(*values.shape[:2], queries, keys).contiguous()


def _is_triangle(mask: Tensor) -> bool:
    """Whether a mask is the one that `is_causal` stands for."""
    if mask.dtype != torch.bool or mask.shape[:2] != (1, 1) or mask.shape[2] != mask.shape[3]:
        return False
    return torch.equal(mask[0, 0], torch.ones_like(mask[0, 0]).tril())


def _is_sum(score: Expr) -> bool:
    """Whether a score is SCORE plus something without SCORE."""
    match score:
        case Apply("add", (left, right)) if _reads_score(left) != _reads_score(right):
            return _is_sum(left if _reads_score(left) else right)
        case Apply("sub", (left, right)) if not _reads_score(right):
            return _is_sum(left)
        case _:
            return score == SCORE


def _reads_score(expr: Expr) -> bool:
    return expr == SCORE or any(_reads_score(child) for child in children(expr))
