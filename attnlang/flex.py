"""A pattern for PyTorch's FlexAttention: score_mod, mask_mod and a BlockMask from classified tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention.flex_attention import BlockMask

from attnlang.errors_flex import NoFlexForm
from attnlang.flex_blocks import block_mask
from attnlang.flex_code import Mod, mask_code, score_code
from attnlang.flex_score import SCORE, Scored, scored
from attnlang.ir.interpret import Inputs, MissingInput, table
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    TRUE,
    Attention,
    Expr,
    Formula,
    Index,
    Let,
    Pattern,
    Read,
    children,
    kv_head_of,
)  # fmt: skip
from attnlang.ir.rewrite import conjunction
from attnlang.passes.magnitude import needs_long
from attnlang.passes.obstacles import plain_output

if TYPE_CHECKING:
    from attnlang.call import Binding


@dataclass(frozen=True)
class FlexParts:
    """What `flex_attention` needs: `flex_attention(q, k, v, **parts.arguments)`.

    `score_mod` is None where the score is the plain scaled product, `mask_mod` and `block_mask` where every pair is
    visible; `scale` is the factor that flex_attention applies before score_mod (None: its default 1/√D). `source`:
    the two functions as Python.
    """

    score_mod: Callable[..., torch.Tensor] | None
    mask_mod: Callable[..., torch.Tensor] | None
    block_mask: BlockMask | None
    scale: float | None
    enable_gqa: bool
    source: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of flex_attention."""
        return {
            "score_mod": self.score_mod, "block_mask": self.block_mask, "scale": self.scale,
            "enable_gqa": self.enable_gqa,
        }  # fmt: skip


def flex_parts(
    pattern: Pattern, binding: Binding, scale: float | None, device: str | torch.device, block: int
) -> FlexParts:
    """The parts for one call; `block`: the length of a block of queries and of keys. Raises NoFlexForm."""
    attention = _only_attention(pattern)
    parts = scored(attention.score, scale)
    if parts is None:
        reason = "its score uses 'scale' otherwise than as a factor of Q[q] @ K[k]"
        raise NoFlexForm(None, "pass scale=…", pattern=pattern.name, reason=reason)
    visible = conjunction(attention.mask, attention.sparsity)
    tensors = _tensors(pattern, binding, (parts.score, visible), torch.device(device))
    symbols = {**binding.sizes, **binding.scalars}
    if scale is not None:
        symbols["scale"] = scale
    wide = needs_long(pattern, symbols)
    score_mod = _score_mod(pattern, parts, symbols, tensors, wide)
    mask_mod: Mod | None = None
    blocks: BlockMask | None = None
    if visible != TRUE:
        mask_mod = mask_code(pattern.name, visible, symbols, tensors, wide)
        blocks = block_mask(
            pattern.name, attention, symbols, tensors, block, torch.device(device), mask_mod.function
        )
    return FlexParts(
        score_mod and score_mod.function,
        mask_mod and mask_mod.function,
        blocks,
        1.0 if parts.unscaled else scale,
        binding.sizes["HK"] != binding.sizes["H"],
        "\n".join(mod.source for mod in (score_mod, mask_mod) if mod is not None),
    )


def _score_mod(
    pattern: Pattern, parts: Scored, symbols: dict[str, Any], tensors: dict[str, torch.Tensor], wide: bool
) -> Mod | None:
    if parts.score == SCORE:
        return None
    return score_code(pattern.name, parts.score, symbols, tensors, wide)


def _only_attention(pattern: Pattern) -> Attention:
    """The softmax attention of queries over keys that the pattern is; raises NoFlexForm."""

    def refuse(reason: str) -> NoFlexForm:
        return NoFlexForm(None, pattern=pattern.name, reason=reason)

    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    others = [stage for stage in pattern.stages if not isinstance(stage, Attention | Let)]
    if len(attentions) != 1 or others:
        raise refuse("it is more than one attention over the keys")
    (attention,) = attentions
    if attention.rows != (BATCH, HEAD, QUERY) or attention.over != KEY:
        raise refuse("its attention is not one of queries over keys")
    match attention.normalize:
        case (Formula(_, "softmax"),):
            pass
        case _:
            raise refuse("its normalizer is not softmax")
    if attention.reweight is not None:
        raise refuse("it reweights after normalizing")
    match attention.value:
        case Read("V", at) if at[:3] == (Index(BATCH), kv_head_of(Index(HEAD)), Index(KEY)):
            pass
        case _:
            raise refuse("its values are not V[k]")
    if not plain_output(pattern.output, attention.name):
        raise refuse("its output is not the result of the attention as it is")
    return attention


def _tensors(
    pattern: Pattern, binding: Binding, used: tuple[Expr, ...], device: torch.device
) -> dict[str, torch.Tensor]:
    """Every tensor that score and visibility read, tables evaluated, on the device. Raises NoFlexForm."""
    found: dict[str, torch.Tensor] = {}
    inputs = Inputs(None, None, None, binding.sizes, binding.scalars, binding.tensors)
    tables = {stage.name for stage in pattern.stages if isinstance(stage, Let)}
    for name in dict.fromkeys(read for expr in used for read in _sources(expr)):
        if name in binding.tensors:
            found[name] = binding.tensors[name].to(device)
        elif name in tables:
            try:
                found[name] = table(pattern, name, inputs).to(device)
            except MissingInput as missing:
                reason = f"'{name}' is computed from more than the arguments that were given"
                raise NoFlexForm(None, missing.text, pattern=pattern.name, reason=reason) from None
        elif name in ("Q", "K", "V"):
            reason = "its score or mask reads Q, K or V otherwise than as the product Q[q] @ K[k]"
            raise NoFlexForm(None, pattern=pattern.name, reason=reason)
        elif name in {tensor.name for tensor in pattern.tensors}:
            reason = f"the tensor '{name}' was not given"
            raise NoFlexForm(None, f"pass {name}=…", pattern=pattern.name, reason=reason)
        else:
            raise NoFlexForm(None, pattern=pattern.name, reason=f"its score or mask reads '{name}'")
    return found


def _sources(expr: Expr) -> tuple[str, ...]:
    own = (expr.source,) if isinstance(expr, Read) else ()
    return (*own, *(name for child in children(expr) for name in _sources(child)))
