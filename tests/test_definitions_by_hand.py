"""The definitions against results worked out by hand, or by another road to the same number."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.definitions import DEFINITIONS

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(numbers: list[Any]) -> Tensor:
    """The numbers in float64, never rounded to float32 on the way."""
    return torch.tensor(numbers, dtype=torch.float64)


def uniform(*shape: int, seed: int = 3) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(N: int = 20, H: int = 2, D: int = 6, DV: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    return random(1, H, N, D), random(1, H, N, D, seed=1), random(1, H, N, DV, seed=2)


def run(name: str, *inputs: Tensor, **given: Any) -> Tensor:
    return DEFINITIONS[name].function(*inputs, **given).out


def test_t5_has_no_scale() -> None:
    q, k, v = qkv()
    table = torch.zeros(2, 32).double()
    expected = run("causal", q, k, v, scale=1.0)
    torch.testing.assert_close(run("t5", q, k, v, table=table, scale=0.1), expected)


def test_music_and_alibi_agree_on_a_linear_table() -> None:
    """A relative table whose row m is slope·(m − reach + 1)·c with ⟨Q,c⟩ = 1 is ALiBi."""
    q, k, v = qkv()
    q[..., 0] = 1.0
    rel = torch.zeros(2, 20, 6).double()
    rel[..., 0] = 0.3 * (torch.arange(20) - 19) * 6**0.5
    slopes = torch.full((2,), 0.3).double()
    torch.testing.assert_close(run("music", q, k, v, reach=20, rel=rel), run("alibi", q, k, v, slopes=slopes))


def test_distance_is_a_bias_of_rank_five() -> None:
    q, k, v = qkv()
    x, alpha = random(1, 20, 3, seed=5), uniform(2)
    squared = (x**2).sum(-1, keepdim=True)
    left = torch.cat([-squared, -torch.ones_like(squared), 2 * x], -1)[:, None] * alpha[:, None, None]
    right = torch.cat([torch.ones_like(squared), squared, x], -1)[:, None].expand(1, 2, 20, 5)
    expected = run("low_rank_bias", q, k, v, rank=5, left=left, right=right)
    torch.testing.assert_close(run("distance_bias", q, k, v, x=x, alpha=alpha), expected)
    bias = torch.einsum("bhqr,bhkr->bhqk", left, right)
    torch.testing.assert_close(run("pair_bias", q, k, v, bias=bias), expected)


def test_variate_by_loops() -> None:
    q, k, v = qkv(12, H=2, D=4)
    names = {
        "q_content": (2, 4),
        "q_time": (2, 4),
        "q_channel": (2, 4),
        "r_time": (1, 128, 4),
        "r_channel": (1, 3, 4),
    }
    t = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(names.items())}
    k, v = k[:, :1], v[:, :1]
    got = DEFINITIONS["variate"].function(q, k, v, channels=3, near=1, scale=0.5, **t)
    assert got.weights is not None and got.lse is not None
    row, h = 7, 1  # t = 2, c = 1
    scores: list[Tensor] = []
    for key in range(9):
        s = (q[0, h, row] + t["q_time"][h]) @ t["r_time"][0, 2 - key // 3]
        s = s + (q[0, h, row] + t["q_channel"][h]) @ t["r_channel"][0, abs(1 - key % 3)]
        s = s + ((q[0, h, row] + t["q_content"][h]) @ k[0, 0, key] if key >= 3 else 0.0)
        scores.append(0.5 * s)
    torch.testing.assert_close(got.lse[0, h, row], torch.logsumexp(torch.stack(scores), 0))
    torch.testing.assert_close(got.weights[0, h, row, :9], torch.softmax(torch.stack(scores), 0))


def test_gated_positional_is_a_mixture() -> None:
    q, k, v = qkv(6)
    direction = exact([[0.0, 0.0, -1e3], [1e3, 0.0, 0.0]])
    out = run(
        "gated_positional",
        q,
        k,
        v,
        height=2,
        width=3,
        direction=direction,
        gate=torch.full((2,), 50.0).double(),
    )
    torch.testing.assert_close(out[:, 0], v[:, 0])  # every query on itself
    right = v[:, 1, [2, 5]].mean(1)  # or on the two places of the last column
    torch.testing.assert_close(out[:, 1], right[:, None].expand(1, 6, 5))


def test_softmax_one_is_a_zero_sink_and_lse_leaves_it_out() -> None:
    q, k, v = qkv()
    one = DEFINITIONS["softmax_one"].function(q, k, v)
    sink = DEFINITIONS["sink_softmax"].function(q, k, v, sink=torch.zeros(2).double())
    causal = DEFINITIONS["causal"].function(q, k, v)
    assert one.lse is not None and causal.lse is not None and sink.lse is not None
    torch.testing.assert_close(one.out, sink.out)
    torch.testing.assert_close(one.lse, causal.lse)
    torch.testing.assert_close(sink.lse, causal.lse)
    torch.testing.assert_close(one.out, causal.out * torch.sigmoid(causal.lse)[..., None])


def test_entmax() -> None:
    q, k, v = qkv()
    scores = exact([2.0, 1.6, 0.0])
    unit = torch.ones(1, 1, 1, 1).double()
    keys = scores[None, None, :, None]
    sparse = DEFINITIONS["sparsemax"].function(unit, keys, keys, scale=1.0)
    assert sparse.weights is not None
    torch.testing.assert_close(sparse.weights[0, 0, 0], exact([0.7, 0.3, 0.0]))  # τ = 1.3
    torch.testing.assert_close(run("entmax", q, k, v, alpha=2.0), run("sparsemax", q, k, v))
    torch.testing.assert_close(
        run("entmax", q, k, v, alpha=1.0005), run("causal", q, k, v), rtol=0, atol=2e-3
    )
    for alpha in (1.25, 1.5, 3.0):
        weights = DEFINITIONS["entmax"].function(q, k, v, alpha=alpha).weights
        assert weights is not None
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 20).double())


def test_sinkhorn_approaches_doubly_stochastic_weights() -> None:
    weights = DEFINITIONS["sinkhorn"].function(*qkv(), iterations=200).weights
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 20).double())
    torch.testing.assert_close(weights.sum(-2), torch.ones(1, 2, 20).double())


def test_softplus_reweighted_by_hand() -> None:
    """Equal scores give A = 1/(q+1) and R = (1 − [q ≥ 3]·offset)^power for every visible key."""
    q, k, v = (
        random(1, 1, 1, 4).expand(1, 1, 6, 4),
        random(1, 1, 1, 4, seed=1).expand(1, 1, 6, 4),
        qkv(6, H=1)[2],
    )
    means = torch.stack([v[:, :, : n + 1].mean(2) for n in range(6)], 2)
    torch.testing.assert_close(run("softplus_reweighted", q, k, v, offset=0.25), means)
    nothing_left = run("softplus_reweighted", q, k, v, offset=1.5)
    torch.testing.assert_close(nothing_left[:, :, :3], means[:, :, :3])
    assert (nothing_left[:, :, 3:] == 0).all()


def test_magnitude_aware_by_hand() -> None:
    """φ = 1 at 0 and almost 0 far below: z = 1e−6 there, and the ε counts."""
    q, k = torch.zeros(1, 1, 2, 1).double(), torch.zeros(1, 1, 2, 1).double()
    q[0, 0, 0, 0] = math.log(1e-6)
    k[0, 0, 1, 0] = 2.0  # φ(K) = 1, 3, with mean 2
    weights = DEFINITIONS["magnitude_aware"].function(q, k, k, scale=0.5).weights
    assert weights is not None
    small, one = (1 + 1 / 2e-6) * 0.5e-6, (1 + 1 / (1 + 1e-6)) * 0.5
    expected = exact([[small - 1e-6, 3 * small - 1e-6], [one - 1, 3 * one - 1]]) / 2
    torch.testing.assert_close(weights[0, 0], expected)


def test_agent_by_hand() -> None:
    """Two agents, told apart by their biases: the first gathers key 1, the second key 2; rows choose by bias2."""
    q, k, v = qkv(4, H=1)
    bias1, bias2 = torch.zeros(1, 2, 4).double(), torch.zeros(1, 4, 2).double()
    bias1[0, 0, 1] = bias1[0, 1, 2] = bias2[0, 0, 0] = bias2[0, 1, 1] = 200.0
    a = torch.zeros(1, 1, 2, 6).double()
    out = run("agent", q, k, v, agents=2, a=a, bias1=bias1, bias2=bias2)
    both = (v[0, 0, 1] + v[0, 0, 2]) / 2
    torch.testing.assert_close(out[0, 0], torch.stack([v[0, 0, 1], v[0, 0, 2], both, both]))
    one = random(1, 1, 1, 6, seed=5)
    free = {"bias1": torch.zeros(1, 1, 4).double(), "bias2": torch.zeros(1, 4, 1).double()}
    got = run("agent", q, k, v, agents=1, a=one, scale=0.8, **free)
    torch.testing.assert_close(got, run("full", one, k, v, scale=0.8).expand(1, 1, 4, 5))


def test_compensated_stands_for_what_it_drops() -> None:
    """Where the dropped keys are all equal, one entry replaces them exactly."""
    q, k, v = qkv()
    k[:, :, 2:15] = k[:, :, 2:3]
    result = DEFINITIONS["compensated"].function(
        q, k, v, sinks=2, window=5, retrieval=torch.tensor([True, False])
    )
    plain = DEFINITIONS["causal"].function(q, k, v)
    assert result.lse is not None and plain.lse is not None
    torch.testing.assert_close(result.out, plain.out)
    torch.testing.assert_close(result.lse, plain.lse)


def test_pools_stand_for_equal_keys() -> None:
    """Where the keys of each group of four are equal, so are all ways of pooling them."""
    q, k, v = qkv(24)
    k = k[:, :, ::4].repeat_interleave(4, 2)
    full = run("full", q, k, v)
    torch.testing.assert_close(run("pooled_keys", q, k, v, stride=4), full)
    level = torch.tensor([1, 2, 4]).repeat(2)[None, None, None].expand(1, 2, 6, 6)
    torch.testing.assert_close(run("pyramid", q, k, v, block=4, level=level), full)
    same_rows = q[:, :, ::4].repeat_interleave(4, 2)
    full = run("full", same_rows, k, v)
    torch.testing.assert_close(run("multiresolution", same_rows, k, v, block=4, keep=6), full)


def test_combiner_and_core_context_by_hand() -> None:
    """With all scores equal, each span or core token counts as one entry, the mean of its values."""
    q, k, v = torch.zeros(1, 1, 6, 2).double(), random(1, 1, 6, 2), torch.eye(6).double()[None, None]
    expected = exact([1 / 2, 1 / 2, 1 / 2, 1 / 2, 1, 1]) / 4
    torch.testing.assert_close(run("combiner", q, k, v, span=2)[0, 0, 5], expected)
    # window 3: the first local key is 2·(3//2) = 2
    expected = exact([1 / 2, 1 / 2, 1, 1, 1, 1]) / 5
    torch.testing.assert_close(run("core_context", q, k, v, group=2, window=3)[0, 0, 5], expected)


def test_linear_forms_equal_quadratic_forms() -> None:
    q, k, v = qkv()
    a, b = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    states = torch.einsum("bhkd,bhkv->bhkdv", b, v).cumsum(2)
    norm = torch.einsum("bhqd,bhqd->bhq", a, b.cumsum(2))
    expected = torch.einsum("bhqd,bhqdv->bhqv", a, states) / norm[..., None]
    torch.testing.assert_close(run("linear", q, k, v), expected)
    features = [
        torch.cat(
            [torch.ones(1, 2, 20, 1), t, torch.einsum("bhnd,bhne->bhnde", t, t).flatten(3) / 2**0.5], -1
        )
        for t in (q / 6**0.5, k)
    ]
    states = torch.einsum("bhkd,bhkv->bhkdv", features[1], v).cumsum(2)
    norm = torch.einsum("bhqd,bhqd->bhq", features[0], features[1].cumsum(2))
    expected = torch.einsum("bhqd,bhqdv->bhqv", features[0], states) / norm[..., None]
    torch.testing.assert_close(run("based", q, k, v), expected)
    torch.testing.assert_close(run("efficient", q, k, v), torch.softmax(q, -1) @ (torch.softmax(k, 2).mT @ v))


def test_recurrences() -> None:
    q, k, v = qkv()
    decay = uniform(1, 2, 20, 6) * 0.5 + 0.5
    state, rows = torch.zeros(1, 2, 6, 5).double(), []
    for n in range(20):
        state = state * decay[:, :, n, :, None] + k[:, :, n, :, None] * v[:, :, n, None, :]
        rows.append(torch.einsum("bhd,bhdv->bhv", q[:, :, n], state))
    torch.testing.assert_close(run("gated_linear", q, k, v, decay=decay), torch.stack(rows, 2))
    constant = exact([0.7, 0.9])
    same = run("gated_linear", q, k, v, decay=constant[:, None, None].expand(1, 2, 20, 6))
    torch.testing.assert_close(run("retention", q, k, v, decay=constant), same)


def test_delta_rule_stores_and_overwrites() -> None:
    k = normalize(random(1, 1, 4, 6), dim=-1)
    k[:, :, 3] = k[:, :, 0]
    v, ones = random(1, 1, 4, 5, seed=4), torch.ones(1, 1, 4).double()
    out = run("delta", k, k, v, beta=ones)  # with beta = 1 each token reads back what it has just stored
    torch.testing.assert_close(out, v)
    late = run("delta", k[:, :, :1], k, v, beta=ones, q_offset=3)
    torch.testing.assert_close(late[:, :, 0], v[:, :, 3])
    none = run("delta", k, k, v, beta=ones, q_offset=-2)
    assert (none[:, :, :2] == 0).all()


def test_error_free_delta() -> None:
    q, k, v = qkv()
    beta = uniform(1, 2, 20)
    squared = (k**2).sum(-1)
    exact = (1 - torch.exp(-beta * squared)) / squared
    torch.testing.assert_close(run("error_free_delta", q, k, v, beta=beta), run("delta", q, k, v, beta=exact))
    k = 1e-9 * k
    k[:, :, 4] = 0.0
    torch.testing.assert_close(run("error_free_delta", q, k, v, beta=beta), run("delta", q, k, v, beta=beta))


def test_whole_sequence_forms() -> None:
    q, k, v = qkv()
    ones = torch.ones(1, 2, 20).double()
    for name in ("injective", "magnitude_aware"):
        weights = DEFINITIONS[name].function(q, k, v).weights
        assert weights is not None
        torch.testing.assert_close(weights.sum(-1), ones, rtol=0, atol=1e-5)
    flat = torch.zeros_like(q)  # φ = 1/2 everywhere: each weight is σ(1)/NK up to ε
    expected = torch.sigmoid(torch.ones(1).double()) * v.mean(2, keepdim=True).expand(1, 2, 20, 5)
    torch.testing.assert_close(run("flow", flat, flat, v), expected, rtol=0, atol=1e-4)


def test_chunk_recurrent_by_hand() -> None:
    q, k = torch.zeros(1, 1, 5, 1).double(), random(1, 1, 5, 1)
    v = exact([1.0, 2.0, 4.0, 8.0, 16.0])[None, None, :, None]
    gate = torch.full((1, 1, 5, 1), 0.5).double()
    # ṽ = 0.5, 1.25 | 2, 5 | 8
    expected = exact([0.5, 1.25, (1.25 + 2) / 2, (1.25 + 5) / 2, (1.25 + 5 + 8) / 3])
    torch.testing.assert_close(run("chunk_recurrent", q, k, v, chunk=2, gate=gate)[0, 0, :, 0], expected)


def test_layout() -> None:
    q, k, v = qkv(DV=6)
    ek, ev = random(1, 2, 3, 6, seed=7), random(1, 2, 3, 6, seed=8)
    joined = run("prefix_lm", q, torch.cat([ek, k], 2), torch.cat([ev, v], 2), prefix=torch.tensor([3]))
    torch.testing.assert_close(run("extra_tokens", q, k, v, extra=3, ek=ek, ev=ev), joined)
    expected = run("full", normalize(q, dim=-1), normalize(k, dim=-1), v, scale=4.0)
    torch.testing.assert_close(run("memory_bank", q, k, v, temperature=0.25, scale=9.0), expected)
    smooth = torch.stack([q[:, :, max(0, n - 2) : n + 1].mean(2) for n in range(20)], 2)
    expected = 0.3 * run("causal", q, k, v) + 0.7 * run("causal", smooth, k, v)
    torch.testing.assert_close(run("windowed_query", q, k, v, reach=3, alpha=0.3), expected)


SMALL: dict[str, dict[str, Any]] = {
    "softcap": {"cap": 1.5},
    "softmax_one": {},
    "taylor": {},
    "sparsemax": {},
    "entmax": {"alpha": 1.5},
    "softplus_reweighted": {"power": 3, "offset": 0.5},
    "compensated": {"sinks": 1, "window": 2, "retrieval": torch.tensor([True, False])},
    "combiner": {"span": 2},
    "core_context": {"group": 2, "window": 2},
    "multiresolution": {"block": 2, "keep": 3},
    "magnitude_aware": {},
    "flow": {},
    "sinkhorn": {"iterations": 2},
    "windowed_query": {"reach": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_the_derivatives(name: str) -> None:
    inputs = [t.requires_grad_() for t in qkv(6, D=3, DV=2)]
    assert torch.autograd.gradcheck(lambda q, k, v: run(name, q, k, v, **SMALL[name]), inputs)
