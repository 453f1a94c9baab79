"""From FlexAttention to patterns, against PyTorch's own flex_attention, uncompiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import (
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
    noop_mask,
    or_masks,
)

import attnlang
from attnlang.errors import Diagnostic
from tests.docs_pages import DOCS
from tests.docs_pages import blocks as blocks_of

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
    return (q & k) == 0


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
    "E281 slice": (sliced, "IDS[b, :]"), "E280 bits": (bits, "q & k"), "E283": (fails, '{}["missing"]'),
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
