"""The patterns that the CPU benchmark times, and each of them again as users of PyTorch's attentions write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

import attnlang
from attnlang.bench_rivals import MOST_ELEMENTS, Absent, Ready, Rival, compiled_flex
from benchmarks.machine import ROOT

WINDOW, SINKS, CAP, SIDE = 512, 4, 50.0, 13
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Bias = Callable[[Tensor, Tensor], Tensor]
"""(q [N, 1], k [1, N]) → what is added to the scores [H, N, N]."""


@dataclass(frozen=True)
class Case:
    """One pattern at one length: its arguments for attnlang, and what the rivals are given.

    `mask_mod` and `score_mod` are written for FlexAttention; `bias` is what scaled_dot_product_attention can add, None
    where nothing is; `library` is False where it cannot compute the pattern at all.
    """

    name: str
    pattern: str
    tokens: int
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    mask_mod: MaskMod | None = None
    score_mod: ScoreMod | None = None
    bias: Bias | None = None
    library: bool = True

    def load(self) -> attnlang.Pattern:
        """The pattern."""
        return attnlang.load(ROOT / "examples" / f"{self.pattern}.attn")

    def arguments(self, heads: slice = slice(None)) -> dict[str, Any]:
        """Parameters and tensors by name, those of some heads only."""
        chosen = {name: each[heads] if each.dim() == 1 else each for name, each in self.tensors.items()}
        return {**self.parameters, **chosen}

    def visible(self, first: int, last: int) -> Tensor:
        """What the queries first … last − 1 see, by the mask that users write: bool [last − first, N]."""
        q, k = torch.arange(first, last)[:, None], torch.arange(self.tokens)[None, :]
        if self.mask_mod is None:
            return torch.ones(last - first, self.tokens, dtype=torch.bool)
        zero = torch.zeros((), dtype=torch.int64)
        return self.mask_mod(zero, zero, q, k)

    def _stripes(self) -> Iterator[Tensor]:
        """The mask, some queries at a time: the numbers it is made from take eight times its memory and more."""
        step = max(1, 2**24 // self.tokens)
        for at in range(0, self.tokens, step):
            yield self.visible(at, min(at + step, self.tokens))

    def mask(self) -> Tensor:
        """What every query sees: bool [N, N]."""
        return torch.cat(list(self._stripes()))

    def pairs(self) -> int:
        """Visible pairs of one head."""
        return sum(int(stripe.sum()) for stripe in self._stripes())


def ours(case: Case, target: str) -> Ready:
    """The pattern on a target."""
    pattern, arguments = case.load(), case.arguments()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return pattern(q, k, v, target=target, **arguments)

    return Ready("attnlang", f'target="{target}"', attend)


def eager(case: Case) -> Ready:
    """The pattern in dense PyTorch."""
    return Ready("eager", 'target="eager"', ours(case, "eager").attend)


def sdpa(case: Case, heads: int, dtype: torch.dtype) -> Rival:
    """scaled_dot_product_attention: bare, with `is_causal`, or with a dense mask or bias."""
    if not case.library:
        return Absent("sdpa", "it has no function of the score")
    if case.mask_mod is None and case.bias is None:
        return Ready("sdpa", "no mask", scaled_dot_product_attention)
    if case.mask_mod is causal and case.bias is None:
        return Ready(
            "sdpa", "is_causal", lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
        )
    elements = case.tokens**2 * (1 if case.bias is None else heads)
    if elements > MOST_ELEMENTS:
        return Absent("sdpa", f"its dense bias would have {elements:,} elements")
    mask = case.mask()
    if case.bias is not None:
        row = torch.arange(case.tokens)
        mask = case.bias(row[:, None], row[None, :]).to(dtype).masked_fill(~mask, float("-inf"))[None]
    how = "dense mask" if case.bias is None else "dense bias"
    return Ready("sdpa", how, lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask))


def flex(case: Case) -> Ready:
    """torch.compile(flex_attention) with the block mask of create_block_mask."""
    attend, blocks = compiled_flex(), None
    if case.mask_mod is not None:
        batch = 1 if case.tensors.get("ids") is not None else None
        blocks = create_block_mask(case.mask_mod, batch, None, case.tokens, case.tokens, device="cpu")
    return Ready(
        "flex", "compiled", lambda q, k, v: attend(q, k, v, score_mod=case.score_mod, block_mask=blocks)
    )


# ---------------------------------------------------------------------------------------------------- the cases


def causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """A token sees itself and what came before."""
    return q >= k


def window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The last WINDOW tokens."""
    return (q >= k) & (q - k < WINDOW)


def sinks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The last WINDOW tokens, and the first SINKS."""
    return (q >= k) & ((q - k < WINDOW) | (k < SINKS))


def softcap(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Scores between −CAP and CAP."""
    return CAP * torch.tanh(score / CAP)


def _alibi(tokens: int, heads: int) -> Case:
    slopes = torch.exp2(-8 * torch.arange(1, heads + 1) / heads)

    def score(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score - slopes[h] * (q - k)

    def bias(q: Tensor, k: Tensor) -> Tensor:
        return -slopes[:, None, None] * (q - k)

    return Case("ALiBi", "alibi", tokens, {}, {"slopes": slopes}, causal, score, bias)


def _documents(tokens: int, heads: int) -> Case:
    """About eight documents of uneven length, the same in every run."""
    del heads
    ends = torch.rand(7, generator=torch.Generator().manual_seed(0)).mul(tokens).long()
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    ids[0, ends] = 1
    ids = ids.cumsum(1)

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (ids[b, q] == ids[b, k])

    return Case("documents", "document", tokens, {}, {"ids": ids}, mask)


def _neighborhood(tokens: int, heads: int) -> Case:
    """SIDE × SIDE neighbours on a square image, moved inwards at its borders."""
    del heads
    side = isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens are no square image")

    def near(q: Tensor, k: Tensor) -> Tensor:
        first = torch.clamp(q - SIDE // 2, 0, side - SIDE)
        return (k >= first) & (k < first + SIDE)

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return near(q // side, k // side) & near(q % side, k % side)

    given = {"height": side, "width": side, "window_y": SIDE, "window_x": SIDE}
    return Case("neighborhood 2-D", "neighborhood_2d", tokens, given, {}, mask)


CASES: dict[str, Callable[[int, int], Case]] = {
    "full": lambda tokens, heads: Case("full", "full", tokens),
    "causal": lambda tokens, heads: Case("causal", "causal", tokens, mask_mod=causal),
    "window 512": lambda tokens, heads: Case(
        "window 512", "sliding_window", tokens, {"window": WINDOW}, {}, window
    ),
    "sinks + window": lambda tokens, heads: Case(
        "sinks + window", "streaming", tokens, {"window": WINDOW, "sinks": SINKS}, {}, sinks
    ),
    "ALiBi": _alibi,
    "softcap": lambda tokens, heads: Case(
        "softcap", "softcap", tokens, {"cap": CAP}, {}, causal, softcap, library=False
    ),
    "documents": _documents,
    "neighborhood 2-D": _neighborhood,
}
"""By name: tokens and heads → the case."""


def inputs(
    tokens: int, features: int, dtype: torch.dtype, heads: int, queries: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Normal q [1, H, NQ, D] and k, v [1, H, N, D]."""
    make = torch.Generator().manual_seed(seed)
    lengths = (tokens if queries is None else queries, tokens, tokens)
    q, k, v = (torch.randn(1, heads, length, features, generator=make).to(dtype) for length in lengths)
    return q, k, v
