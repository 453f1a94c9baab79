"""From patterns to FlexAttention, against PyTorch's own flex_attention and create_block_mask, uncompiled."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask, flex_attention

import attnlang
from attnlang.errors import AttnlangError, Diagnostics
from attnlang.errors_flex import NoFlexForm
from attnlang.samples import random_tensors
from tests.catalogue import EXAMPLES
from tests.predicates import predicates

B, H, N, D = 2, 4, 12, 8


def inputs(heads: int = H, length: int = N, queries: int | None = None, groups: int | None = None) -> Any:
    make = torch.Generator().manual_seed(1)
    shapes = ((heads, queries or length), (groups or heads, length), (groups or heads, length))
    return tuple(torch.randn(B, *shape, D, generator=make) for shape in shapes)


def flex(*arguments: Any, **keywords: Any) -> torch.Tensor:
    """flex_attention as it is, without torch.compile."""
    run: Any = flex_attention
    return run(*arguments, **keywords)


PATTERNS: dict[str, dict[str, Any]] = {
    "full": {}, "causal": {}, "sliding_window": {"window": 5}, "local": {"radius": 3},
    "dilated_window": {"window": 3, "dilation": 2}, "streaming": {"window": 4, "sinks": 2}, "longformer": {"radius": 2},
    "strided_blocks": {"block": 2, "near": 2, "stride": 3}, "sharded": {"block": 2, "near": 1, "period": 4},
    "prefix_lm": {}, "document": {}, "region": {}, "diagonal_masked": {}, "visual_isolated": {},
    "short_long_heads": {"window": 3, "short": 2}, "neighborhood_1d": {"length": 12, "window": 3},
    "radial": {"frames": 3, "tokens": 4}, "temporal_latent": {}, "local_block": {"block": 4},
    "shifted_groups": {"group": 4}, "alibi": {}, "softcap": {"cap": 2.0}, "t5": {"buckets": 8, "max_distance": 9},
    "distance_bias": {}, "low_rank_bias": {"rank": 3}, "pair_bias": {}, "selective": {},
    "gaussian_mixture": {"height": 3, "width": 4}, "swin": {"height": 4, "width": 4, "window": 2, "shift": 1},
}  # fmt: skip


@cache
def loaded(name: str) -> attnlang.Pattern:
    return attnlang.load(EXAMPLES / f"{name}.attn")


def arguments_of(name: str, queries: int, length: int, groups: int) -> dict[str, Any]:
    pattern, given = loaded(name), PATTERNS[name]
    defaults = {each: value.default for each, value in pattern.params.items() if value.default is not None}
    sizes = {"B": B, "H": H, "HK": groups, "NQ": queries, "NK": length, "D": D, "DV": D}
    symbols: dict[str, Any] = {**sizes, "q_offset": length - queries, **defaults, **given}
    return {**given, **random_tensors(pattern.ir, symbols, 0)}


@pytest.mark.parametrize("queries", [0, 5])
@pytest.mark.parametrize("name", PATTERNS)
def test_flex_attention_gives_what_the_pattern_means(name: str, queries: int) -> None:
    length = 16 if name == "swin" else 12
    q, k, v = inputs(length=length, queries=queries or length, groups=2)
    pattern, arguments = loaded(name), arguments_of(name, queries or length, length, 2)
    parts = pattern.to_flex(
        queries or length, length, heads=H, kv_heads=2, batch=B, block_size=4, **arguments
    )
    found = flex(q, k, v, **parts.arguments)
    torch.testing.assert_close(found, pattern.reference(q, k, v, **arguments).float(), rtol=1e-4, atol=1e-5)
    if parts.mask_mod is not None:
        wanted = pattern.mask(queries or length, length, heads=H, kv_heads=2, batch=B, **arguments)
        shape = (B, H, queries or length, length)
        assert torch.equal(create_mask(parts.mask_mod, *shape, device="cpu"), wanted.expand(shape))


def kinds(mask: BlockMask, rows: int, columns: int) -> torch.Tensor:
    """0 empty, 1 partial, 2 full for every block [B, H, rows, columns]."""
    found = torch.zeros(*mask.kv_num_blocks.shape[:2], rows, columns, dtype=torch.int64)
    lists = ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
    for kind, (counts, indices) in enumerate(lists, 1):
        assert counts is not None and indices is not None
        for place in torch.cartesian_prod(*map(torch.arange, counts.shape)):
            at = tuple(int(each) for each in place)
            found[at][indices[at][: int(counts[at])].long()] = kind
    return found


def compared(parts: Any, queries: int, length: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Our blocks and those of create_block_mask; ours are never unsound."""
    true = create_block_mask(parts.mask_mod, B, H, queries, length, device="cpu", BLOCK_SIZE=block)
    rows, columns = -(-queries // block), -(-length // block)
    wanted = kinds(true, rows, columns)
    ours = kinds(parts.block_mask, rows, columns).expand(wanted.shape)
    assert not ((ours == 0) & (wanted != 0)).any(), "a visible pair in a block that is not visited"
    assert not ((ours == 2) & (wanted != 2)).any(), "a hidden pair in a full block"
    return ours, wanted


def case(name: str, queries: int, length: int) -> dict[str, Any]:
    """Parameters and tensors of a pattern at a size, grids of 48 places included."""
    given = {"height": 6, "width": 8, "frames": 6, "tokens": 8, "length": 48}
    pattern = loaded(name)
    arguments = dict(PATTERNS[name])
    arguments |= {each: given[each] for each, value in pattern.params.items() if value.default is None}
    symbols: dict[str, Any] = {each: value.default for each, value in pattern.params.items()}
    symbols |= {"B": B, "H": H, "HK": H, "NQ": queries, "NK": length, "D": D, "DV": D}
    symbols["q_offset"] = length - queries
    return arguments | random_tensors(pattern.ir, {**symbols, **arguments}, 0)


@pytest.mark.parametrize(("queries", "length", "block"), [(48, 48, 8), (21, 46, 8), (48, 48, 5)])
@pytest.mark.parametrize("name", [name for name in PATTERNS if name not in ("full", "swin")])
def test_blocks_are_those_that_looking_at_every_pair_finds(
    name: str, queries: int, length: int, block: int
) -> None:
    if any(each.default is None for each in loaded(name).params.values()):
        length = 48
    parts = loaded(name).to_flex(
        queries, length, heads=H, batch=B, block_size=block, **case(name, queries, length)
    )
    if parts.block_mask is None:
        return
    ours, wanted = compared(parts, queries, length, block)
    assert torch.equal(ours, wanted)


def transposed(mask: BlockMask) -> tuple[torch.Tensor | None, ...]:
    """The lists for the backward pass, made by PyTorch from those for the forward pass."""
    made = BlockMask.from_kv_blocks(
        mask.kv_num_blocks, mask.kv_indices, mask.full_kv_num_blocks, mask.full_kv_indices, mask.BLOCK_SIZE,
        mask.mask_mod, mask.seq_lengths,
    )  # fmt: skip
    return made.q_num_blocks, made.q_indices, made.full_q_num_blocks, made.full_q_indices


@pytest.mark.parametrize(
    "name", ["causal", "strided_blocks", "document", "short_long_heads", "neighborhood_1d"]
)
def test_lists_by_key_block_are_those_that_pytorch_makes(name: str) -> None:
    mask = loaded(name).to_flex(48, 48, heads=H, batch=B, block_size=8, **case(name, 48, 48)).block_mask
    assert mask is not None
    found = (mask.q_num_blocks, mask.q_indices, mask.full_q_num_blocks, mask.full_q_indices)
    for ours, theirs in zip(
        (found[:2], found[2:]), (transposed(mask)[:2], transposed(mask)[2:]), strict=True
    ):
        assert ours[0] is not None and ours[1] is not None and theirs[0] is not None and theirs[1] is not None
        assert torch.equal(ours[0], theirs[0])
        listed = torch.arange(ours[1].shape[-1]) < ours[0][..., None]
        assert torch.equal(ours[1][listed], theirs[1][listed])
    assert str(mask) and mask.to_dense().shape[-1] == 6
    assert mask[:, 0:1].kv_num_blocks.shape[1] == 1


def test_two_halves_that_fill_a_block_make_it_full() -> None:
    pattern = attnlang.parse(
        "pattern halves():\n    mask k mod 8 < 4 or k mod 8 >= 4 and k // 16 <= q // 16\n"
    )
    mask = pattern.to_flex(64, 64, heads=1, block_size=16).block_mask
    assert mask is not None and mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks[0, 0].tolist() == [1, 2, 3, 4]
    assert mask.kv_num_blocks[0, 0].tolist() == [3, 2, 1, 0]


def test_tensors_decide_by_batch_entry_and_head() -> None:
    pattern = attnlang.parse("pattern some():\n    tensor least[b]: int\n    tensor wide[h]: bool\n"
                             "    mask causal and (k < least[b] or wide[h])\n")  # fmt: skip
    n, wide = torch.tensor([16, 16, 32]), torch.tensor([False, True])
    mask = pattern.to_flex(64, 64, heads=2, batch=3, block_size=16, least=n, wide=wide).block_mask
    assert mask is not None and mask.kv_indices.shape == (3, 2, 4, 4)
    same = pattern.to_flex(
        64, 64, heads=2, batch=3, block_size=16, least=n[:1].expand(3), wide=wide
    ).block_mask
    assert same is not None and same.kv_indices.shape == (1, 2, 4, 4)
    half = torch.tensor([16.0, 16.0]).bfloat16().requires_grad_()
    floats = attnlang.parse("pattern some():\n    tensor least[b]\n    mask k < least[b]\n")
    found = floats.to_flex(64, 64, heads=1, batch=2, block_size=16, least=half).block_mask
    assert found is not None and found.kv_indices.shape == (1, 1, 4, 4)


@settings(max_examples=25, deadline=None)
@given(predicates(), st.integers(1, 24), st.integers(1, 24))
def test_random_predicates(predicate: str, queries: int, length: int) -> None:
    try:
        pattern = attnlang.parse(f"pattern random(a: int >= 1 = 1, c: int = 0):\n    mask {predicate}\n")
        mask = pattern.mask(queries, length, a=3, c=2)
    except Diagnostics:
        return
    parts = pattern.to_flex(queries, length, heads=1, block_size=4, a=3, c=2)
    if parts.mask_mod is None:
        assert mask.all()
        return
    assert torch.equal(
        create_mask(parts.mask_mod, 1, 1, queries, length, device="cpu"), mask.expand(1, 1, -1, -1)
    )
    compared(parts, queries, length, 4)


def test_lists_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(NoFlexForm, match="GiB") as caught:
        loaded("causal").to_flex(2**24, 2**24, heads=1)
    assert "block_size=1024" in str(caught.value)
    with pytest.raises(NoFlexForm, match="8 different masks"):
        loaded("sharded").to_flex(2**20, 2**20, heads=8)


def test_long_sequences_are_quick_and_heads_share_what_is_the_same() -> None:
    parts = loaded("sliding_window").to_flex(131_072, 131_072, heads=16, window=1024)
    assert parts.block_mask is not None
    assert parts.block_mask.kv_indices.shape == (1, 1, 1024, 1024)
    counts, full = parts.block_mask.kv_num_blocks[0, 0], parts.block_mask.full_kv_num_blocks
    assert full is not None
    assert counts.tolist() == [1] * 8 + [2] * 1016
    assert full[0, 0].tolist() == [*range(8), *[7] * 1016]
    several = loaded("short_long_heads").to_flex(256, 256, heads=8, window=64, short=4)
    assert several.block_mask is not None and several.block_mask.kv_num_blocks.shape == (1, 8, 2)


def test_the_score_is_asked_for_with_the_scale_it_needs() -> None:
    plain = loaded("causal").to_flex(8, 8, heads=2)
    assert (plain.score_mod, plain.scale) == (None, None)
    assert loaded("full").to_flex(8, 8, heads=2, scale=0.3).arguments == {
        "score_mod": None, "block_mask": None, "scale": 0.3, "enable_gqa": False,
    }  # fmt: skip
    odd = attnlang.parse("pattern odd():\n    score (Q[q] @ K[k] + k - q) * scale\n")
    with pytest.raises(NoFlexForm, match="'scale' otherwise"):
        odd.to_flex(12, 12, heads=H)
    parts = odd.to_flex(12, 12, heads=H, scale=0.2)
    assert parts.scale == 1.0
    assert "score_mod(score, b, h, q_idx, kv_idx)" in parts.source
    q, k, v = inputs()
    wanted = odd.reference(q, k, v, scale=0.2).float()
    torch.testing.assert_close(flex(q, k, v, **parts.arguments), wanted, rtol=1e-4, atol=1e-5)


def test_there_and_back() -> None:
    parts = loaded("streaming").to_flex(24, 24, heads=1, window=6, sinks=2)
    again = attnlang.from_flex(mask_mod=parts.mask_mod, name="again")
    assert torch.equal(again.mask(24, 24), loaded("streaming").mask(24, 24, window=6, sinks=2))


@pytest.mark.parametrize(("text", "reason"), [
    ("normalize sparsemax", "its normalizer is not softmax"),
    ("value 2 * V[k]", "its values are not V[k]"),
    ("reweight 2 * w", "it reweights"),
    ("output attention / 2", "its output is not"),
    ("score Q[q] @ K[k] * scale + K[k] @ K[k]", "reads Q, K or V otherwise"),
    ("select near[q] = top(2) c by Q[q] @ KC[c]\n    sparsity near(q, k)", "more than one attention"),
    ("tensor x[h]\n    score Q[q] @ K[k] * scale + x[h]", "the tensor 'x' was not given"),
    ("weight Q[q] @ K[k]", "its normalizer is not softmax"),
])  # fmt: skip
def test_patterns_without_a_form_in_flex(text: str, reason: str) -> None:
    blocks = "blocks c of k by 4\n    let KC[c] = mean(K[k] for k in c)\n    " if "KC" in text else ""
    pattern = attnlang.parse(f"pattern other():\n    {blocks}{text}\n")
    with pytest.raises(NoFlexForm) as caught:
        pattern.to_flex(8, 8, heads=2)
    assert reason in str(caught.value)


def test_mistakes_of_the_arguments() -> None:
    with pytest.raises(AttnlangError, match="block_size"):
        loaded("causal").to_flex(8, 8, heads=2, block_size=0)
    with pytest.raises(Diagnostics, match="windw"):
        loaded("streaming").to_flex(8, 8, heads=2, windw=3)
