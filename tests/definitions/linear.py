"""Section G of the catalogue: linear and recurrent attention, in its quadratic form or token by token."""

import torch
from torch import Tensor
from torch.nn.functional import elu

from .common import (
    Call,
    Given,
    Need,
    Result,
    TensorSpec,
    define,
    everything,
    not_later,
    queries_before_end,
    softmax,
    weighted,
)
from .normalizers import divided, taylor

equal_heads = Need("HK = H", lambda z, p: z.HK == z.H)


def distance(call: Call) -> Tensor:
    """max(q − k, 0), [NQ,NK]."""
    return (call.rows()[:, None] - call.columns()[None, :]).clamp(min=0)


def positive(t: Tensor) -> Tensor:
    """φ = elu + 1."""
    return elu(t) + 1


def plain(call: Call, weights: Tensor) -> Result:
    """The weighted sum, without an lse."""
    return Result(weighted(call, weights), None, weights)


@define("G", lse=False, visible=not_later)
def linear(call: Call, p: Given) -> Result:
    products = torch.einsum("bhqd,bhkd->bhqk", positive(call.q), positive(call.keys()))
    return plain(call, divided(products.masked_fill(~call.mask(), 0.0)))


@define("G", tensors={"decay": TensorSpec(("h",))}, lse=False, visible=not_later)
def retention(call: Call, p: Given) -> Result:
    faded = p.decay[:, None, None] ** distance(call) * call.products()
    return plain(call, faded.masked_fill(~call.mask(), 0.0))


@define("G", lse=False, visible=not_later)
def based(call: Call, p: Given) -> Result:
    return taylor(call, p)


@define(
    "G",
    tensors={"decay": TensorSpec(("b", "h", "n", "d"))},
    needs=(queries_before_end,),
    lse=False,
    visible=not_later,
)
def gated_linear(call: Call, p: Given) -> Result:
    z = call.sizes
    rows: list[Tensor] = []
    for q in call.rows().tolist():
        remaining = torch.ones(z.B, z.H, z.D, dtype=torch.float64)  # Π over k < j ≤ q of decay[j]
        weights: dict[int, Tensor] = {}
        for k in range(q, -1, -1):
            faded_q = call.q[:, :, q - z.q_offset] * remaining
            weights[k] = (faded_q * call.keys()[:, :, k]).sum(-1)
            remaining = remaining * p.decay[:, :, k]
        none = torch.zeros(z.B, z.H, dtype=torch.float64)
        rows.append(torch.stack([weights.get(k, none) for k in range(z.NK)], -1))
    return plain(call, torch.stack(rows, 2))


def delta_rule(call: Call, beta: Tensor) -> Result:
    """S ← S + beta·K ⊗ (V − Kᵀ S), token by token; O[q] = Q[q]ᵀ S after token q."""
    z = call.sizes
    S = torch.zeros(z.B, z.H, z.D, z.DV, dtype=torch.float64)
    after = [S]  # after[n]: the state when the tokens 0 … n−1 have passed
    for n in range(z.NK):
        K, V = call.k[:, :, n], call.v[:, :, n]
        error = V - torch.einsum("bhd,bhdv->bhv", K, S)
        S = S + beta[:, :, n, None, None] * K[..., :, None] * error[..., None, :]
        after.append(S)
    states = [after[min(max(q + 1, 0), z.NK)] for q in call.rows().tolist()]
    return Result(torch.einsum("bhqd,bhqdv->bhqv", call.q, torch.stack(states, 2)))


@define("G", tensors={"beta": TensorSpec(("b", "h", "n"))}, needs=(equal_heads,), lse=False)
def delta(call: Call, p: Given) -> Result:
    return delta_rule(call, p.beta)


@define("G", tensors={"beta": TensorSpec(("b", "h", "n"))}, needs=(equal_heads,), lse=False)
def error_free_delta(call: Call, p: Given) -> Result:
    squared = (call.k**2).sum(-1)
    zero = squared == 0
    safe = torch.where(zero, 1.0, squared)
    return delta_rule(call, torch.where(zero, p.beta, -torch.expm1(-p.beta * safe) / safe))


@define("G", lse=False, visible=everything)
def injective(call: Call, p: Given) -> Result:
    mean_k = call.keys().mean(2)
    to_mean = call.scale * torch.einsum("bhqd,bhd->bhq", call.q, mean_k)[..., None]
    return plain(call, (call.dot() + 1 - to_mean) / call.sizes.NK)


@define("G", lse=False, visible=everything)
def magnitude_aware(call: Call, p: Given) -> Result:
    Q, K = positive(call.q), positive(call.keys())
    z = call.scale * torch.einsum("bhqd,bhd->bhq", Q, K.mean(2))[..., None]
    beta = 1 + 1 / (z + 1e-6)
    weights = (beta * call.scale * torch.einsum("bhqd,bhkd->bhqk", Q, K) - z) / call.sizes.NK
    return plain(call, weights)


@define("G", lse=False)
def flow(call: Call, p: Given) -> Result:
    epsilon, NQ, NK = 1e-6, call.sizes.NQ, call.sizes.NK
    q, k = torch.sigmoid(call.q), torch.sigmoid(call.keys())

    def with_sum(t: Tensor, total: Tensor) -> Tensor:
        """⟨t + ε, total + ε⟩ for each row, [B,H,N,1]."""
        return ((t + epsilon) * (total[:, :, None] + epsilon)).sum(-1, keepdim=True)

    incoming = 1 / with_sum(q, k.sum(2))  # I
    outgoing = 1 / with_sum(k, q.sum(2))  # U
    conserved_in = with_sum(q, (k * outgoing).sum(2))  # Î
    conserved_out = with_sum(k, (q * incoming).sum(2)).clamp(-1, 1)  # Û
    competition = torch.softmax(conserved_out, dim=2) * NK
    gathered = torch.einsum("bhqd,bhkd->bhqk", q * incoming, k) * competition.transpose(2, 3)
    return Result(torch.sigmoid(conserved_in * NQ / NK) * weighted(call, gathered))


@define("G", lse=False)
def efficient(call: Call, p: Given) -> Result:
    summary = torch.einsum("bhkd,bhkv->bhdv", torch.softmax(call.keys(), dim=2), call.values())
    return Result(torch.softmax(call.q, dim=3) @ summary)


@define(
    "G",
    params={"chunk": 16},
    tensors={"gate": TensorSpec(("b", "g", "n", "d"))},
    needs=(Need("DV = D", lambda z, p: z.DV == z.D), queries_before_end),
)
def chunk_recurrent(call: Call, p: Given) -> Result:
    z = call.sizes

    def scan(t: Tensor) -> Tensor:
        """x̃_i = gate_i ⊙ x̃_{i−1} + (1 − gate_i) ⊙ x_i, from zero in each chunk; [B,H,NK,D]."""
        running: list[Tensor] = []
        for i in range(z.NK):
            before = torch.zeros_like(t[:, :, 0]) if i % p.chunk == 0 else running[-1]
            gate = p.gate[:, :, i]
            running.append(gate * before + (1 - gate) * t[:, :, i])
        return call.per_head(torch.stack(running, 2))

    K, V = scan(call.k), scan(call.v)
    s = call.scale * torch.einsum("bhqd,bhkd->bhqk", call.q, K)
    q, k = call.rows()[:, None], call.columns()[None, :]
    last_of_earlier = (k % p.chunk == p.chunk - 1) & (k // p.chunk < q // p.chunk)
    weights, lse = softmax(s, last_of_earlier | (k == q))
    return Result(torch.einsum("bhqk,bhkv->bhqv", weights, V), lse)
