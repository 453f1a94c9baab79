"""The patterns in the documentation run, mean what stands beside them, and have kernels where the page says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attnlang
from attnlang.call import bind
from attnlang.call_interface import Interface
from attnlang.compiler import inputs_of
from attnlang.ir.scalar import evaluate_scalar
from tests.docs_pages import BY_HAND, DOCS, SIZES, Block, Call, blocks, patterns_of

# ------------------------------------------------------------------------------------------- attnlang in the docs


@pytest.mark.parametrize("block", blocks("attn", BY_HAND), ids=str)
def test_patterns_of_the_docs_run(block: Block, tmp_path: Path) -> None:
    patterns = patterns_of(block.text, tmp_path)
    assert patterns
    for pattern in patterns:
        assert attnlang.parse(str(pattern), pattern.name) == pattern
        call = Call.of(pattern, block.numbers())
        wanted = call(pattern.reference)
        assert wanted.dtype == torch.float64 and bool(wanted.isfinite().all())
        assert wanted.abs().sum() > 0
        call.arguments["target"] = "eager"
        found = call(pattern)
        torch.testing.assert_close(found.double(), wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("block", blocks("attn", [DOCS / "language.md"]), ids=str)
def test_patterns_marked_eager_are_those_without_kernel(block: Block, tmp_path: Path) -> None:
    for pattern in patterns_of(block.text, tmp_path):
        numbers = {name: value for name, value in block.numbers().items() if name not in SIZES}
        length = numbers.get("height", 16) * numbers.get("width", 1)
        heads = block.numbers().get("HK", 2)
        arguments: dict[str, Any] = {**numbers, "target": "cuda:90"}
        plan = pattern.plan(length, length, heads=4, kv_heads=heads, head_dim=8, **arguments)
        assert bool(plan.obstacles) == ("[eager]" in block.text), plan.obstacles


@pytest.mark.parametrize("block", blocks("attn", BY_HAND), ids=str)
def test_patterns_of_the_docs_mean_what_loops_over_their_definition_give(
    block: Block, tmp_path: Path
) -> None:
    small = {"B": 1, "D": 4, "DV": 4 if "DV" in block.numbers() else 3}
    for pattern in patterns_of(block.text, tmp_path):
        call = Call.of(pattern, {**block.numbers(), **small}, torch.float64)
        q, k, v = (call.inputs[name] for name in ("q", "k", "v"))
        bound = bind(Interface(pattern.ir), q, k, v, arguments=call.arguments)
        wanted, _ = evaluate_scalar(pattern.ir, inputs_of(bound))
        torch.testing.assert_close(call(pattern.reference), wanted, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------- the reference, construct by construct


def _softmax(score: torch.Tensor, seen: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    weights = score.masked_fill(~seen, -torch.inf).softmax(-1)
    return weights.nan_to_num(0) @ values


def _neighbour_head(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    beside = torch.tensor([1, 2, 3, 0])
    score = (q + q[:, beside]) @ k[:, beside].mT / 8**0.5 + q[..., :1]
    return _softmax(score, k_at <= q_at, v)


def _soft_window(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    score = q @ k.mT / 8**0.5 - 0.5 * ((q_at - k_at >= 4) & (k_at >= 1))
    return _softmax(score, k_at <= q_at, v)


def _mixed(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    score = q @ (2 * k - v).mT / 8**0.5 + (k_at % 2 == 0)
    return _softmax(score, (k_at <= q_at) & (q_at - k_at < 6), v)


def _by_columns(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    return (q @ k.mT / 8**0.5).softmax(-2) @ v


def _centred(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    product = q @ k.mT
    return _softmax((product - product.mean(1, keepdim=True)) / 8**0.5, k_at <= q_at, v)


def _staircase(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    even = torch.tensor([True, False, True, False])[:, None, None]
    seen = (q_at // 4 == k_at // 4) | ((k_at // 4 < q_at // 4) & even)
    return _softmax(q @ k.mT / 8**0.5, seen, v)


def _axial(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    return _softmax(q @ k.mT / 8**0.5, (q_at // 4 == k_at // 4) | (q_at % 4 == k_at % 4), v)


def _best(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    score = (q @ k.mT / 8**0.5).masked_fill(k_at > q_at, -torch.inf)
    return _softmax(score, score >= score.topk(3, -1).values[..., 2:], v)


def _pooled(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    keys, values = k.unflatten(2, (3, 4)).mean(3), v.unflatten(2, (3, 4)).mean(3)
    return _softmax(q @ keys.mT / 8**0.5, torch.arange(3) * 4 <= q_at, values)


def _routed(q: Any, k: Any, v: Any, q_at: Any, k_at: Any) -> torch.Tensor:
    fit = q @ k.unflatten(2, (4, 3)).mean(3).mT
    block = torch.arange(4)
    fit = fit.masked_fill(block * 3 > q_at, -torch.inf).masked_fill(block == q_at // 3, torch.inf)
    chosen = torch.zeros_like(fit, dtype=torch.bool).scatter(-1, fit.topk(2, -1).indices, True)
    return _softmax(q @ k.mT / 8**0.5, chosen.repeat_interleave(3, -1) & (k_at <= q_at), v)


MEANINGS: dict[str, Callable[..., torch.Tensor]] = {
    "neighbour_head": _neighbour_head, "soft_window": _soft_window, "mixed": _mixed, "by_columns": _by_columns,
    "centred": _centred, "staircase": _staircase, "axial": _axial, "best": _best, "pooled": _pooled, "routed": _routed,
}  # fmt: skip


@pytest.mark.parametrize("name", MEANINGS)
def test_a_construct_means_what_the_reference_says(name: str) -> None:
    (block,) = [block for block in blocks("attn", [DOCS / "language.md"]) if f"pattern {name}(" in block.text]
    pattern = attnlang.parse(block.text)
    call = Call.of(pattern, block.numbers(), torch.float64)
    groups = call.sizes["H"] // call.sizes["HK"]
    keys, values = (call.inputs[name].repeat_interleave(groups, 1) for name in ("k", "v"))
    at = torch.arange(12)
    wanted = MEANINGS[name](call.inputs["q"], keys, values, at[:, None], at[None, :])
    torch.testing.assert_close(call(pattern.reference), wanted, rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------------------- FlexAttention's idioms


def _pairs() -> list[tuple[Block, Block]]:
    """Each of FlexAttention's functions with the pattern below it."""
    page = [DOCS / "from-flexattention.md"]
    return list(zip(blocks("python", page), blocks("attn", page), strict=True))


@pytest.mark.parametrize(("theirs", "ours"), _pairs(), ids=str)
def test_a_pattern_is_what_stands_beside_it(theirs: Block, ours: Block) -> None:
    from torch.nn.attention.flex_attention import create_mask, flex_attention

    made: dict[str, Any] = {"torch": torch}
    exec(theirs.text, made)
    pattern = attnlang.parse(ours.text)
    call = Call.of(pattern, {**ours.numbers(), "DV": 8})
    call.arguments.update({name: made[name] for name in pattern.tensors})
    q, k, v = (call.inputs[name] for name in ("q", "k", "v"))
    found = pattern.reference(q, k, v, **call.arguments).float()
    sizes = (call.sizes["B"], call.sizes["H"], call.sizes["NQ"], call.sizes["NK"])
    wanted: Any
    if "mask_mod" in made:
        seen = create_mask(made["mask_mod"], *sizes, device="cpu")
        torch.testing.assert_close(
            seen, pattern.mask(12, 12, heads=4, batch=2, **call.arguments).expand(sizes)
        )
        groups = call.sizes["H"] // call.sizes["HK"]
        keys, values = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        wanted = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
    else:
        wanted = flex_attention(q, k, v, score_mod=made["score_mod"], enable_gqa=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------- papers beside patterns


def _definitions() -> list[tuple[Block, Block]]:
    """Each pattern with its definition in PyTorch."""
    page = [DOCS / "from-paper-to-file.md"]
    return list(zip(blocks("attn", page), blocks("python", page), strict=True))


@pytest.mark.parametrize(("ours", "definition"), _definitions(), ids=str)
def test_a_pattern_is_its_definition(ours: Block, definition: Block) -> None:
    made: dict[str, Any] = {"torch": torch}
    exec(definition.text, made)
    pattern = attnlang.parse(ours.text)
    call = Call.of(pattern, {}, torch.float64)
    groups = call.sizes["H"] // call.sizes["HK"]
    keys, values = (call.inputs[name].repeat_interleave(groups, 1) for name in ("k", "v"))
    wanted = made["definition"](call.inputs["q"], keys, values, **call.arguments)
    torch.testing.assert_close(call(pattern.reference), wanted, rtol=1e-9, atol=1e-9)


def test_the_page_on_papers_says_which_have_kernels() -> None:
    page = DOCS / "from-paper-to-file.md"
    plans = [attnlang.parse(block.text).plan(64, 64, target="cuda:90") for block in blocks("attn", [page])]
    kernels = [number for number, plan in enumerate(plans, 1) if not plan.obstacles]
    eager = [number for number, plan in enumerate(plans, 1) if plan.obstacles]
    said = f"{_list(kernels)} have Triton kernels; {_list(eager)} run as dense PyTorch"
    assert said in page.read_text(encoding="utf-8")


def _list(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"
