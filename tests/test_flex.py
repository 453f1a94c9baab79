"""Both ways between patterns and FlexAttention, against PyTorch's own flex_attention, uncompiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import (
    BlockMask,
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
    noop_mask,
    or_masks,
)

import attnlang
from attnlang.errors import AttnlangError, Diagnostic, Diagnostics
from attnlang.errors_flex import NoFlexForm
from attnlang.samples import random_tensors
from tests.catalogue import EXAMPLES
from tests.docs_pages import DOCS
from tests.docs_pages import blocks as blocks_of
from tests.predicates import predicates

Mod = Callable[..., Any]
B, H, N, D = 2, 4, 12, 8


def inputs(heads: int = H, length: int = N, queries: int | None = None, groups: int | None = None) -> Any:
    make = torch.Generator().manual_seed(1)
    shapes = ((heads, queries or length), (groups or heads, length), (groups or heads, length))
    return tuple(torch.randn(B, *shape, D, generator=make) for shape in shapes)


def flex(*arguments: Any, **keywords: Any) -> torch.Tensor:
    """flex_attention as it is, without torch.compile."""
    run: Any = flex_attention
    return run(*arguments, **keywords)


# ------------------------------------------------------------------------------------------ from FlexAttention

WINDOW = 5
BLOCK = 4
CAP = 2.0
SLOPES = torch.linspace(0.1, 0.8, H)
BIAS = torch.linspace(-1, 1, H * 23).view(H, 23)
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
PREFIX = torch.tensor([3, 7])
FIRST = torch.tensor(4)
EVEN = torch.arange(N) % 2 == 0


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)


def near(size: int) -> Mod:
    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return q - k < size

    return mask


def blocks(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q // BLOCK == k // BLOCK) | ((k + h) % BLOCK == 0) | (q == k)


def documents(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (IDS[b, q] == IDS[b, k]) & (q >= k)


def by_document(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (IDS[b][q] == IDS[b][k]) | (k < PREFIX[b]) & ~(h == 3) | (k < FIRST) | EVEN[k] & EVEN[q]


def functions(b: Any, h: Any, q: Any, k: Any) -> Any:
    inside = torch.logical_and(torch.abs(q - k) <= 3, torch.where(h < 2, q >= k, k >= 0))
    return torch.logical_or(inside, (k == 0).logical_and(h.eq(1))) | (torch.maximum(q, k) % 5).eq(0)


def constant(b: Any, h: Any, q: Any, k: Any) -> Any:
    found = q == k
    for step in range(1, WINDOW):
        found = found | (q - k == step * step)
    return found if WINDOW > 2 else ~found


def python(b: Any, h: Any, q: Any, k: Any) -> Any:
    reach = WINDOW if isinstance(WINDOW, int) else 0
    step = {5: 2, 6: 3}[WINDOW] + math.floor(CAP) + len(f"{WINDOW}")
    return (
        ((q - k < reach) * (q >= k))
        | (torch.arange(BLOCK)[k % BLOCK] == step - 2).all()
        | (k < min(BLOCK, 2))
    )


class Held:
    def __init__(self) -> None:
        self.ids = IDS
        self.reach = 3

    def mask(self, b: Any, h: Any, q: Any, k: Any) -> Any:
        return (self.ids[b, q] == self.ids[b, k]) & (q - k < self.reach)

    def __call__(self, b: Any, h: Any, q: Any, k: Any) -> Any:
        return self.mask(b, h, q, k)


def sized(size: int, b: Any, h: Any, q: Any, k: Any) -> Any:
    return abs(q - k) <= size


MASKS: dict[str, Mod] = {
    "causal": causal, "window": window, "near": and_masks(causal, near(4)), "blocks": blocks,
    "documents": documents, "python": python, "by_document": by_document, "functions": functions, "constant": constant,
    "two": or_masks(and_masks(causal, near(3)), and_masks(documents, near(6)), lambda b, h, q, k: k < 1),
    "method": Held().mask, "object": Held(), "partial": functools.partial(sized, 2), "noop": noop_mask,
}  # fmt: skip


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + SLOPES[h] * (kv_idx - q_idx)


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return CAP * torch.tanh(score / CAP)


def relative(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + BIAS[h, q_idx - kv_idx + 11]


def hidden(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return torch.where(q_idx >= kv_idx, score, -float("inf"))


def many(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    far = (q - k).abs().to(torch.float32)
    bias = torch.exp(-far / 2) + far.clamp(min=1, max=6).log2() - torch.sigmoid(far - CAP) * (q == k)
    return (
        torch.clamp(score, -3.0, 3) + bias.sqrt().nan_to_num()
        if CAP < 0
        else score * 0.5 + bias + math.sqrt(CAP)
    )


SCORES: dict[str, Mod] = {
    "alibi": alibi, "softcap": softcap, "relative": relative, "hidden": hidden, "many": many,
    "same": lambda score, b, h, q, k: score, "none": lambda score, b, h, q, k: score * 0 + (k == q),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_mod_is_the_pattern(name: str) -> None:
    pattern = attnlang.from_flex(mask_mod=MASKS[name])

    def theirs(b: Any, h: Any, q: Any, k: Any) -> Any:  # PyTorch miscounts the arguments of methods
        return MASKS[name](b, h, q, k)

    wanted = create_mask(theirs, B, H, N, N, device="cpu")
    torch.testing.assert_close(pattern.mask(N, N, heads=H, batch=B).expand(wanted.shape), wanted)
    parsed = attnlang.parse(str(pattern))
    assert parsed == pattern
    q, k, v = inputs()
    found = pattern.reference(q, k, v).float()
    torch.testing.assert_close(parsed.with_tensors(**pattern.given).reference(q, k, v).float(), found)
    if name in ("window", "by_document"):
        block = create_block_mask(MASKS[name], B, H, N, N, device="cpu", BLOCK_SIZE=4)
        torch.testing.assert_close(found, flex(q, k, v, block_mask=block), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_mod_is_the_pattern(name: str) -> None:
    pattern = attnlang.from_flex(score_mod=SCORES[name])
    assert attnlang.parse(str(pattern)) == pattern
    q, k, v = inputs()
    wanted = flex(q, k, v, score_mod=SCORES[name], scale=0.7)
    torch.testing.assert_close(pattern.reference(q, k, v, scale=0.7).float(), wanted, rtol=1e-4, atol=1e-5)


def test_the_text_reads_like_the_function() -> None:
    assert str(attnlang.from_flex(mask_mod=window, score_mod=softcap)) == (
        "pattern window(WINDOW: int = 5, CAP: float = 2.0):\n"
        "    mask  q >= k and q - k <= WINDOW\n"
        "    score CAP * tanh(Q[q] @ K[k] * scale / CAP)\n"
    )
    assert str(attnlang.from_flex(mask_mod=documents, score_mod=alibi, name="packed")) == (
        "pattern packed():\n"
        "    tensor IDS[b, n]: int\n"
        "    tensor SLOPES[h]\n"
        "    mask  IDS[b, q] == IDS[b, k] and q >= k\n"
        "    score Q[q] @ K[k] * scale + SLOPES[h] * (k - q)\n"
    )
    assert str(attnlang.from_flex(mask_mod=blocks)).startswith("pattern blocks(BLOCK: int >= 1 = 4):\n")
    assert str(attnlang.from_flex(mask_mod=noop_mask)).startswith("pattern noop_mask():\n")


def test_parameters_and_tensors_may_change() -> None:
    pattern = attnlang.from_flex(mask_mod=window)
    assert pattern.mask(20, 20, WINDOW=1).sum() == 39
    packed = attnlang.from_flex(mask_mod=documents)
    assert dict(packed.given).keys() == {"IDS"}
    assert packed.mask(12, 12, batch=2, IDS=torch.zeros(2, 12, dtype=torch.int64)).sum() == 2 * 78
    q, k, v = inputs()
    assert torch.equal(packed(q, k, v, IDS=IDS), packed(q, k, v))
    assert attnlang.from_flex(mask_mod=constant).params == {}
    two = attnlang.from_flex(mask_mod=MASKS["two"])
    assert {name: each.default for name, each in two.params.items()} == {"size": 3, "size_2": 6}


def test_fewer_queries_count_from_zero() -> None:
    q, k, v = inputs(queries=5)
    pattern = attnlang.from_flex(mask_mod=window)
    block = create_block_mask(window, None, None, 5, N, device="cpu")
    found = pattern.reference(q, k, v, q_offset=0).float()
    torch.testing.assert_close(found, flex(q, k, v, block_mask=block), rtol=1e-4, atol=1e-5)


def if_of_index(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= k if h < 2 else q == k


def unknown_function(b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.cumsum(q, 0) > k


def unknown_method(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q.cumsum(0) > k


def too_few(b: Any, h: Any, q: Any, k: Any) -> Any:
    return IDS[q] == k


def too_few_twice(b: Any, h: Any, q: Any, k: Any) -> Any:
    return IDS[q] == IDS[k]


def negated_part(b: Any, h: Any, q: Any, k: Any) -> Any:
    return -IDS[q] >= k


def sliced(b: Any, h: Any, q: Any, k: Any) -> Any:
    return IDS[b, :] == k


def bits(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q & 3) == k


def fails(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= {}["missing"]


def number(b: Any, h: Any, q: Any, k: Any) -> Any:
    return range(q)


def text(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= "k"


REFUSED: dict[str, tuple[Mod, str]] = {
    "E282": (if_of_index, "return q >= k if h < 2"), "E280": (unknown_function, "torch.cumsum"),
    "E280 method": (unknown_method, "q.cumsum"), "E281": (too_few, "IDS[q] == k"),
    "E281 twice": (too_few_twice, "IDS[q] == IDS[k]"), "E281 negated": (negated_part, "-IDS[q]"),
    "E281 slice": (sliced, "IDS[b, :]"), "E280 bits": (bits, "q & 3"), "E283": (fails, '{}["missing"]'),
    "E282 number": (number, "range(q)"), "E280 text": (text, 'q >= "k"'),
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
def test_what_cannot_be_traced_is_reported_at_the_line(code: str) -> None:
    mod, line = REFUSED[code]
    with pytest.raises(Diagnostic) as caught:
        attnlang.from_flex(mask_mod=mod)
    error = caught.value
    assert error.code == code.split()[0], error
    assert error.span is not None
    assert line in error.span.source.line_text(error.span.line), error
    assert error.span.source.name.endswith("test_flex.py")


def test_other_mistakes_of_from_flex() -> None:
    for arguments in ({}, {"mask_mod": 3}, {"mask_mod": causal, "name": "a b"}, {"mask_mod": lambda: True}):
        with pytest.raises(Diagnostic, match="E283"):
            attnlang.from_flex(**arguments)  # pyright: ignore[reportArgumentType]


# -------------------------------------------------------------------------------------------- to FlexAttention

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
EXACT = (
    "causal", "sliding_window", "local", "streaming", "short_long_heads", "local_block", "prefix_lm",
    "alibi", "softcap",
)  # fmt: skip


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


@pytest.mark.parametrize(("queries", "length"), [(48, 48), (21, 46)])
@pytest.mark.parametrize("name", [name for name in PATTERNS if name not in ("full", "swin")])
def test_blocks_are_sound_and_exact_where_bands_are(name: str, queries: int, length: int) -> None:
    given = {"height": 6, "width": 8, "frames": 6, "tokens": 8, "length": 48}
    pattern = loaded(name)
    grid = any(each.default is None for each in pattern.params.values())
    if grid and length != 48:
        length = 48
    arguments = arguments_of(name, queries, length, H)
    arguments |= {each: given[each] for each, value in pattern.params.items() if value.default is None}
    symbols: dict[str, Any] = {each: value.default for each, value in pattern.params.items()}
    symbols |= {
        "B": B,
        "H": H,
        "HK": H,
        "NQ": queries,
        "NK": length,
        "D": D,
        "DV": D,
        "q_offset": length - queries,
    }
    arguments |= random_tensors(pattern.ir, {**symbols, **arguments}, 0)
    parts = pattern.to_flex(queries, length, heads=H, batch=B, block_size=8, **arguments)
    if parts.block_mask is None:
        return
    ours, wanted = compared(parts, queries, length, 8)
    if name in EXACT:
        assert torch.equal(ours != 0, wanted != 0)
        if name in ("causal", "sliding_window", "local", "local_block", "alibi"):
            assert torch.equal(ours, wanted)


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


def test_the_page_on_flex_attention_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = [DOCS / "from-flexattention.md"]
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks_of("py", page)):
        file = tmp_path / f"block_{number}.py"
        file.write_text(block.text, encoding="utf-8")
        exec(compile(block.text, str(file), "exec"), names)
    printed = capsys.readouterr().out
    said = blocks_of("text", page)
    assert said and all(block.text in printed for block in said)
