"""The definitions of the catalogue as a family: complete, finite, steady, strict, equal where they meet."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.definitions import DEFINITIONS, REQUIRED, Case, Definition, NeedError, Result, cases, mask
from tests.definitions.signatures import SIGNATURES

torch.set_num_threads(1)

ALL_CASES = [case for name in DEFINITIONS for case in cases(name)]
SECTION_SIZES = {"A": 29, "B": 14, "C": 12, "D": 4, "E": 12, "F": 7, "G": 11, "H": 3}


def evaluate(case: Case, inputs: dict[str, Tensor]) -> Result:
    function = DEFINITIONS[case.name].function
    return function(**inputs, scale=case.scale, q_offset=case.q_offset, **case.params)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(N: int = 24, *, NQ: int | None = None, H: int = 4, HK: int = 2, D: int = 8) -> tuple[Tensor, ...]:
    return random(2, H, NQ or N, D), random(2, HK, N, D, seed=1), random(2, HK, N, D, seed=2)


def signature(definition: Definition) -> str:
    """The interface of a definition as the catalogue would write it."""

    def parameter(name: str, default: object) -> str:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        return name if default is REQUIRED else f"{name}={shown}"

    kinds = {"float": "", "int": ": int", "bool": ": bool"}
    params = ", ".join(parameter(*item) for item in definition.params.items())
    tensors = ", ".join(f"{n}[{','.join(t.axes)}]{kinds[t.dtype]}" for n, t in definition.tensors.items())
    return f"{definition.name}({params})" + (f" [{tensors}]" if tensors else "")


def test_every_pattern_is_there_to_the_letter() -> None:
    assert Counter(d.section for d in DEFINITIONS.values()) == SECTION_SIZES
    written = SIGNATURES.strip().replace("\n    ", " ").splitlines()
    assert [signature(d) for d in DEFINITIONS.values()] == written


@pytest.mark.parametrize("name", DEFINITIONS)
def test_cases_are_enough(name: str) -> None:
    chosen = cases(name)
    assert 4 <= len(chosen) <= 9
    assert all(case.NQ <= 100 and case.NK <= 100 for case in chosen)
    assert len({case.id for case in chosen}) == len(chosen)
    assert any(case.DV != case.D for case in chosen) or name in ("extra_tokens", "chunk_recurrent")
    assert any(case.HK < case.H for case in chosen) or name in ("delta", "error_free_delta", "routing")
    assert any(case.scale is not None for case in chosen)


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.id)
def test_results_and_gradients_are_finite(case: Case) -> None:
    definition = DEFINITIONS[case.name]
    inputs = case.make_inputs(0)
    learned = [inputs[name].requires_grad_() for name in definition.differentiable]
    result = evaluate(case, inputs)
    assert result.out.shape == (case.B, case.H, case.NQ, case.DV)
    assert result.out.isfinite().all()
    objective = (result.out * random(*result.out.shape)).sum()
    assert (result.lse is not None) == definition.has_lse
    if result.lse is not None:
        assert result.lse.shape == (case.B, case.H, case.NQ)
        assert not result.lse.isnan().any()
        assert (result.out[result.lse == -torch.inf] == 0).all()
        objective = objective + result.lse[result.lse.isfinite()].sum()
    for gradient in torch.autograd.grad(objective, learned):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [n for n, d in DEFINITIONS.items() if d.visible is not None])
def test_weights_stay_inside_the_mask(name: str) -> None:
    for case in cases(name):
        inputs = case.make_inputs(1)
        weights = evaluate(case, inputs).weights
        tensors = {t: inputs[t] for t in DEFINITIONS[name].tensors}
        visible = mask(
            name,
            case.NQ,
            case.NK,
            heads=case.H,
            kv_heads=case.HK,
            batch=case.B,
            q_offset=case.q_offset,
            **tensors,
            **case.params,
        )
        assert visible.shape[2:] == (case.NQ, case.NK)
        assert visible.shape[0] in (1, case.B) and visible.shape[1] in (1, case.H)
        if weights is not None:
            assert (weights.masked_fill(visible, 0.0) == 0).all()


CHOOSING = [
    case
    for case in ALL_CASES
    if (DEFINITIONS[case.name].section == "E" or case.name in ("top_k", "multiresolution"))
    and "ties" not in case.id  # those are exact in every precision, and a nudge would break them
]


@pytest.mark.parametrize("case", CHOOSING, ids=lambda case: case.id)
def test_choices_do_not_hang_on_rounding(case: Case) -> None:
    """The same keys are chosen when every input is off by what single precision may lose."""
    for seed in (0, 1):
        inputs = case.make_inputs(seed)
        nudged = {
            name: tensor * (1 + 3e-7 * random(*tensor.shape, seed=9))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in inputs.items()
        }
        expected = evaluate(case, inputs).out
        torch.testing.assert_close(evaluate(case, nudged).out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [None, 0.4])
@pytest.mark.parametrize(("name", "NQ"), [("full", 24), ("full", 7), ("causal", 24)])
def test_against_scaled_dot_product_attention(name: str, NQ: int, scale: float | None) -> None:
    q, k, v = qkv(NQ=NQ)
    expected = scaled_dot_product_attention(q, k, v, is_causal=name == "causal", scale=scale, enable_gqa=True)
    torch.testing.assert_close(DEFINITIONS[name].function(q, k, v, scale=scale).out, expected)


def test_positions_default_to_the_end() -> None:
    q, k, v = qkv()
    whole = DEFINITIONS["causal"].function(q, k, v)
    last = DEFINITIONS["causal"].function(q[:, :, -5:], k, v)
    first = DEFINITIONS["causal"].function(q[:, :, :5], k, v, q_offset=0)
    assert whole.lse is not None and last.lse is not None
    torch.testing.assert_close(last.out, whole.out[:, :, -5:])
    torch.testing.assert_close(last.lse, whole.lse[:, :, -5:])
    torch.testing.assert_close(first.out, whole.out[:, :, :5])


def test_empty_rows() -> None:
    q, k, v = qkv(N=4, NQ=7)
    result = DEFINITIONS["causal"].function(q, k, v)
    assert result.lse is not None
    assert (result.out[:, :, :3] == 0).all() and (result.lse[:, :, :3] == -torch.inf).all()
    assert result.lse[:, :, 3:].isfinite().all()


H4 = torch.zeros(4).double()
ONES = torch.ones(2, 4, 24).double()
SAME = {"causal": DEFINITIONS["causal"].function, "full": DEFINITIONS["full"].function}
COMPOSED = {
    f"{side}_{part}": torch.zeros(shape).double()
    for side in ("pre", "post")
    for part, shape in {
        **dict.fromkeys(("q1", "q2", "k1", "k2"), (2, 24, 2, 4)),
        **dict.fromkeys(("qd", "kd"), (2, 24, 4)),
    }.items()
}
GATE3 = torch.tensor([0.0, 1.0, 0.0]).double().expand(2, 4, 24, 3)

DEGENERATE: list[tuple[str, str, dict[str, Any]]] = [
    ("sliding_window", "causal", {"window": 24}),
    ("local", "full", {"radius": 23}),
    ("dilated_window", "causal", {"window": 24, "dilation": 1}),
    ("streaming", "causal", {"window": 1, "sinks": 24}),
    ("longformer", "full", {"radius": 0, "is_global": torch.ones(2, 24, dtype=torch.bool)}),
    ("strided_blocks", "causal", {"block": 4, "near": 0, "stride": 1}),
    ("sharded", "causal", {"block": 4, "near": 6}),
    ("shifted_groups", "causal", {"group": 48}),
    ("prefix_lm", "causal", {"prefix": torch.tensor([0, 0])}),
    ("prefix_lm", "full", {"prefix": torch.tensor([24, 24])}),
    ("document", "causal", {"ids": torch.full((2, 24), 7)}),
    ("region", "full", {"ids": torch.full((2, 24), 7)}),
    ("visual_isolated", "causal", {"is_visual": torch.zeros(2, 24, dtype=torch.bool)}),
    ("short_long_heads", "causal", {"short": 0}),
    ("neighborhood_1d", "full", {"length": 24, "window": 24}),
    ("neighborhood_1d", "causal", {"length": 24, "window": 24, "causal": True}),
    ("inward_window", "full", {"frames": 2, "height": 3, "width": 4, "radius_y": 2}),
    ("halo", "full", {"height": 4, "width": 6, "halo": 6}),
    ("space", "full", {"frames": 1, "tokens": 24}),
    ("time", "full", {"frames": 24, "tokens": 1}),
    ("radial", "full", {"frames": 1, "tokens": 24}),
    ("temporal_latent", "causal", {"stride": 1}),
    ("local_block", "causal", {"block": 24}),
    ("alibi", "causal", {"slopes": H4}),
    ("music", "causal", {"reach": 3, "rel": torch.zeros(4, 3, 8).double()}),
    ("distance_bias", "full", {"x": random(2, 24, 3), "alpha": H4}),
    ("low_rank_bias", "full", {"left": random(2, 4, 24, 8), "right": torch.zeros(2, 4, 24, 8).double()}),
    ("pair_bias", "full", {"bias": torch.ones(2, 4, 24, 24).double()}),
    ("softcap", "causal", {"cap": 1e6}),
    ("gated_positional", "full", {"height": 4, "width": 6, "direction": random(4, 3), "gate": H4 - 60}),
    (
        "universal_rpe",
        "full",
        {"reach": 2, "bias": H4[:, None].expand(4, 3), "factor": torch.ones(4, 3).double()},
    ),
    ("sink_softmax", "causal", {"sink": H4 - 60}),
    ("affine_scaled", "causal", {"alpha": ONES, "beta": 0 * ONES}),
    ("top_k", "causal", {"keep": 24}),
    ("talking_heads", "causal", {"pre": torch.eye(4).double(), "post": torch.eye(4).double()}),
    ("composed_heads", "causal", COMPOSED),
    ("mixture_of_heads", "causal", {"gate": torch.ones(2, 24, 4).double()}),
    ("key_driven_groups", "causal", {"kv_head": torch.tensor([0, 0, 1, 1])}),
    ("block_topk", "causal", {"block": 4, "keep": 6}),
    ("tile_topk", "full", {"tile": 4, "keep": 6, "gate": 0 * ONES}),
    ("native_sparse", "causal", {"block": 4, "keep": 6, "gate": GATE3}),
    ("native_sparse", "causal", {"block": 4, "window": 24, "gate": GATE3.roll(1, -1)}),
    ("antidiagonal", "causal", {"block": 4, "stride": 2, "threshold": 1.1}),
    ("region_routing", "full", {"height": 4, "width": 6, "region": 2, "keep": 6}),
    ("learned_gate", "causal", {"block": 4, "keep": 6, "gate": random(2, 4, 6, 6)}),
    ("dynamic_mask", "causal", {"keep": 24, "delta": torch.ones(2, 2, 24).double()}),
    ("expert_choice", "causal", {"keep": 24, "router": ONES}),
    ("hash_buckets", "causal", {"bucket": torch.zeros(2, 4, 24, dtype=torch.int64)}),
    ("dropped", "causal", {"keep_q": ONES.bool(), "keep_k": ONES.bool()}),
    ("page_topk", "causal", {"page": 3, "keep": 8, "near": 0}),
    ("page_topk", "causal", {"page": 3, "keep": 1, "near": 24}),
    ("pooled_keys", "full", {"stride": 1}),
    ("combiner", "causal", {"span": 24}),
    ("combiner", "causal", {"span": 1}),
    ("core_context", "causal", {"group": 5, "window": 24}),
    ("core_context", "causal", {"group": 1, "window": 3}),
    ("compensated", "causal", {"window": 3, "retrieval": torch.ones(4, dtype=torch.bool)}),
    ("compensated", "causal", {"window": 24, "retrieval": torch.zeros(4, dtype=torch.bool)}),
    ("pyramid", "full", {"block": 4, "level": torch.ones(2, 4, 6, 6, dtype=torch.int64)}),
    ("multiresolution", "full", {"block": 4, "keep": 36}),
    ("chunk_recurrent", "causal", {"chunk": 1, "gate": torch.zeros(2, 2, 24, 8).double()}),
    ("extra_tokens", "causal", {"extra": 0, "ek": random(2, 2, 0, 8), "ev": random(2, 2, 0, 8)}),
    ("windowed_query", "causal", {"reach": 1}),
]


@pytest.mark.parametrize(
    ("name", "plain", "given"), DEGENERATE, ids=lambda x: x if isinstance(x, str) else ""
)
def test_degenerate_calls_are_plain_attention(name: str, plain: str, given: dict[str, Any]) -> None:
    q, k, v = qkv()
    expected = SAME[plain](q, k, v).out
    torch.testing.assert_close(DEFINITIONS[name].function(q, k, v, **given).out, expected)


def test_defaults_are_filled_and_names_checked() -> None:
    q, k, v = qkv()
    function = DEFINITIONS["space"].function
    assert DEFINITIONS["space"].params == {"frames": REQUIRED, "tokens": REQUIRED}
    with pytest.raises(NeedError, match="needs the parameter 'tokens'"):
        function(q, k, v, frames=4)
    with pytest.raises(NeedError, match="has no 'token'"):
        function(q, k, v, frames=4, tokens=6, token=6)
    with pytest.raises(NeedError, match="needs the tensor 'slopes'"):
        DEFINITIONS["alibi"].function(q, k, v)


BROKEN_NEEDS: list[tuple[str, dict[str, Any]]] = [
    ("space", {"frames": 5, "tokens": 5}),
    ("shifted_groups", {"group": 7}),
    ("neighborhood_1d", {"length": 24, "window": 3, "stride": 4}),
    ("neighborhood_1d", {"length": 24, "window": 13, "dilation": 2}),
    ("swin", {"height": 4, "width": 6, "window": 4, "bias": random(4, 49)}),
    ("swin", {"height": 4, "width": 6, "window": 2, "shift": 2, "bias": random(4, 9)}),
    ("t5", {"buckets": 8, "max_distance": 4, "table": random(4, 8)}),
    ("entmax", {"alpha": 1.0}),
    ("longformer", {"q_offset": -1, "is_global": ONES[:, 0].bool()}),
    ("document", {"q_offset": 1, "ids": ONES[:, 0].long()}),
    ("native_sparse", {"keep": 1, "gate": GATE3}),
    ("antidiagonal", {"block": 8, "stride": 3}),
    ("antidiagonal", {"block": 5, "stride": 5}),
    ("region_routing", {"height": 4, "width": 6, "region": 4}),
    ("routing", {"centroids": random(4, 8, 8)}),
    ("delta", {"beta": ONES}),
    ("pyramid", {"block": 6, "level": torch.full((2, 4, 4, 4), 4)}),
    ("pyramid", {"block": 7, "level": torch.ones(2, 4, 4, 4)}),
    ("multiresolution", {"block": 4, "keep": 5}),
]


@pytest.mark.parametrize(("name", "given"), BROKEN_NEEDS, ids=[name for name, _ in BROKEN_NEEDS])
def test_needs_are_checked(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(NeedError, match=f"{name} needs"):
        DEFINITIONS[name].function(*qkv(), **given)


@pytest.mark.parametrize("name", ["sinkhorn", "combiner", "core_context", "learned_gate", "windowed_query"])
def test_equal_lengths_are_checked(name: str) -> None:
    tensors = {t: ONES for t in DEFINITIONS[name].tensors}
    with pytest.raises(NeedError, match="needs NQ = NK"):
        DEFINITIONS[name].function(*qkv(NQ=5), **tensors)
