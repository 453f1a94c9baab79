"""Ways to compute a pattern beside one another: rivals compute the same, and calls take turns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

import attnlang
from attnlang import bench_rivals
from attnlang.bench import measure
from attnlang.bench_rivals import NAMES, Absent, Problem, Ready, rival
from attnlang.bench_timing import FEWEST, Times, interleaved

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def flex_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention's eager form: the same functions and masks, in milliseconds."""
    monkeypatch.setattr(bench_rivals, "compiled_flex", lambda: flex_attention)


def problem(text: str, *, kv_heads: int = 2, tokens: int = 24, **arguments: Any) -> Problem:
    make = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, tokens, 16, generator=make)
    k, v = (torch.randn(2, kv_heads, tokens, 16, generator=make) for _ in range(2))
    pattern = attnlang.load(EXAMPLES / text) if text.endswith(".attn") else attnlang.parse(text)
    return Problem(pattern, q, k, v, arguments)


def ready(found: bench_rivals.Rival) -> Ready:
    assert isinstance(found, Ready), found
    return found


def ours(given: Problem) -> Ready:
    return Ready(
        "attnlang", "eager", lambda q, k, v: given.pattern(q, k, v, target="eager", **given.arguments)
    )


# --------------------------------------------------------------------------------------------------------- rivals


@pytest.mark.parametrize(
    ("text", "arguments", "how"),
    [
        ("full.attn", {}, "without a mask"),
        ("causal.attn", {}, "with is_causal"),
        ("sliding_window.attn", {"window": 5}, "with a dense mask [1, 1, 24, 24]"),
        (
            "document.attn",
            {"ids": torch.arange(24).div(7).long().expand(2, 24)},
            "a dense mask [2, 1, 24, 24]",
        ),
        ("alibi.attn", {"slopes": torch.rand(4)}, "with a dense bias [1, 4, 24, 24]"),
        ("pattern sharp():\n    mask causal\n    score Q[q] @ K[k]", {}, "with is_causal"),
        (
            "pattern far():\n    score Q[q] @ K[k] * scale + 0.1 * (q - k)",
            {},
            "with a dense bias [1, 1, 24, 24]",
        ),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_rival_computes_the_pattern(
    name: bench_rivals.Name, text: str, arguments: dict[str, Any], how: str
) -> None:
    given = problem(text, **arguments)
    found = ready(rival(name, given))
    reference = given.pattern.reference(given.q, given.k, given.v, **arguments)
    torch.testing.assert_close(
        found.attend(given.q, given.k, given.v).double(), reference, rtol=1e-4, atol=2e-5
    )
    if name == "sdpa":
        assert how in found.how


def test_one_query_after_its_keys_is_no_triangle() -> None:
    given = problem("causal.attn")
    late = Problem(given.pattern, given.q[:, :, -3:], given.k, given.v, {})
    found = ready(rival("sdpa", late))
    assert "dense mask [1, 1, 3, 24]" in found.how
    reference = late.pattern.reference(late.q, late.k, late.v)
    torch.testing.assert_close(found.attend(late.q, late.k, late.v).double(), reference, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("sdpa", "softcap.attn", "its score is more than the product of Q and K, scaled, plus a bias"),
        ("sdpa", "pattern half():\n    score (Q[q] @ K[k]) * 0.5", "its score is more than the product"),
        ("sdpa", "linear.attn", "its normalizer is not softmax"),
        ("flex", "linear.attn", "its normalizer is not softmax"),
    ],
)
def test_a_rival_that_cannot_says_why(name: bench_rivals.Name, text: str, reason: str) -> None:
    found = rival(name, problem(text))
    assert isinstance(found, Absent) and reason in found.reason


def test_a_mask_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_rivals, "MOST_ELEMENTS", 24 * 24 - 1)
    found = rival("sdpa", problem("causal.attn"))
    assert found == Absent("sdpa", "its dense mask would have 576 elements")


def test_flex_has_no_backward_pass_on_the_cpu() -> None:
    given = problem("causal.attn")
    assert isinstance(rival("flex", given, backward=True), Absent)
    leaf = given.q.clone().requires_grad_()
    with pytest.raises(
        NotImplementedError, match="backward on CPU"
    ):  # else the sentence above is out of date
        flex_attention(leaf, given.k, given.v, enable_gqa=True)


def test_what_a_rival_raises_is_the_reason_why_it_is_absent() -> None:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("\nno such thing\nand more")

    given = problem("causal.attn")
    for backward in (False, True):
        broken = Ready("sdpa", "", attend)
        found = measure(
            ours(given), [broken], (given.q, given.k, given.v), backward=backward, most=3, seconds=0.01
        )
        assert [entry.name for entry in found.entries] == ["attnlang"]
        assert found.absent == (Absent("sdpa", "it raised RuntimeError: no such thing"),)
    with pytest.raises(RuntimeError, match="no such thing"):
        measure(broken, [], (given.q, given.k, given.v))


# --------------------------------------------------------------------------------------------------------- timing


def test_calls_take_turns_and_a_slow_one_sits_out_evenly() -> None:
    order: list[str] = []

    def call(name: str, seconds: float) -> Any:
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    times = interleaved({"fast": call("fast", 0.001), "slow": call("slow", 0.02)}, "cpu", 12, 0.06)
    assert len(times["fast"].seconds) == 12 and len(times["slow"].seconds) == FEWEST
    measured = order[-15:]
    assert [place for place, name in enumerate(measured) if name == "slow"] == [4, 9, 14]
    assert times["slow"].least >= 0.02


def test_medians_and_spread() -> None:
    times = Times((5.0, 1.0, 3.0, 2.0, 4.0))
    assert (times.median, times.least, times.spread) == (3.0, 1.0, pytest.approx(2 / 3))
    assert times.to_dict() == {
        "median_ms": 3000.0,
        "least_ms": 1000.0,
        "spread": pytest.approx(2 / 3),
        "runs": 5,
    }


def test_a_measurement_holds_times_ratios_and_errors() -> None:
    given = problem("causal.attn", kv_heads=4)
    wanted = given.pattern.reference(given.q, given.k, given.v)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return wanted.float() + 0.5

    rivals = [Ready("wrong", "half too much", attend), Absent("gone", "no reason")]
    found = measure(
        ours(given), rivals, (given.q, given.k, given.v), most=3, seconds=0.01,
        error=lambda results: float((results[0] - wanted).abs().max()), beside={"nap": lambda: time.sleep(0.01)},
    )  # fmt: skip
    right, wrong = found.entries
    assert found.beside["nap"].least >= 0.01 and len(found.beside["nap"].seconds) == 3
    assert (right.name, wrong.name, found.absent) == ("attnlang", "wrong", (rivals[1],))
    assert right.error is not None and right.error < 1e-5 and wrong.error == pytest.approx(0.5, abs=1e-5)
    assert found.ratio(right) == 1 and found.ratio(wrong) == wrong.times.median / right.times.median > 1


def test_backward_passes_give_gradients() -> None:
    given = problem("causal.attn", kv_heads=4)
    shapes: list[list[torch.Size]] = []

    def error(results: Any) -> float:
        shapes.append([each.shape for each in results])
        return float(sum(each.abs().sum() for each in results))

    inputs = (given.q, given.k, given.v)
    found = measure(
        ours(given), [rival("sdpa", given)], inputs, backward=True, most=3, seconds=0.01, error=error
    )
    assert shapes == [[given.q.shape, given.k.shape, given.v.shape]] * 2
    left, right = (entry.error for entry in found.entries)
    assert left == pytest.approx(right, rel=1e-4)
