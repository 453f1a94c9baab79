"""Who sees whom by choice: votes, pages, buckets, thresholds, fixed patterns with random blocks."""

import torch
from torch import Tensor

from .common import (
    Given,
    causal,
    column,
    dot,
    flags,
    floats,
    heads,
    ints,
    largest,
    logsumexp,
    mechanism,
    softmax,
)


def over(z: Given, seen: Tensor) -> Tensor:
    return softmax(dot(z), seen) @ z.v


@mechanism("heavy_hitters", params={"keep": 3, "window": 3})
def heavy_hitters(z: Given) -> Tensor:
    heavy = largest(softmax(dot(z), causal(z)).sum(-2), 3)
    return over(z, causal(z) & (heavy[:, :, None] | (z.i - z.j < 3)))


@mechanism("snap_kv", params={"keep": 3, "observed": 2, "pool": 3})
def snap_kv(z: Given) -> Tensor:
    votes = softmax(dot(z), causal(z))[:, :, -2:].sum(-2)
    pooled = torch.nn.functional.max_pool1d(votes, 3, 1, 1)
    old = z.j[0] < z.NK - 2
    kept = largest(torch.where(old, pooled, -torch.inf), 3)
    return over(z, causal(z) & (kept | ~old)[:, :, None])


@mechanism("twilight", params={"p": 0.8})
def twilight(z: Given) -> Tensor:
    w = softmax(dot(z), causal(z)).detach()
    order = w.argsort(-1, descending=True)
    sums = w.gather(-1, order).cumsum(-1)
    enough = sums - w.gather(-1, order) < 0.8
    return over(z, causal(z) & torch.zeros_like(enough).scatter(-1, order, enough))


@mechanism("quest", params={"page": 3, "keep": 2})
def quest(z: Given) -> Tensor:
    pages = z.k.reshape(z.B, z.H, 3, 3, z.D)
    low, high = pages.amin(3)[:, :, None], pages.amax(3)[:, :, None]
    q = z.q[:, :, :, None]
    bound = torch.maximum(q * low, q * high).sum(-1)
    page = torch.arange(3)
    bound = torch.where(page * 3 <= z.i, bound, -torch.inf)
    chosen = largest(torch.where(page == z.i // 3, 1e9, bound), 2)
    return over(z, causal(z) & chosen.repeat_interleave(3, -1))


@mechanism(
    "big_bird", sizes="NK=12", square=True, params={"block": 2, "random": 2, "globals": 1},
    pick=ints(6, "H, 6, 2"),
)  # fmt: skip
def big_bird(z: Given) -> Tensor:
    i, j = z.i // 2, z.j // 2
    random = torch.zeros(z.H, 6, 6, dtype=torch.bool).scatter(-1, z.pick, True)
    random = random.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return over(z, ((i - j).abs() <= 1) | (j < 1) | (i < 1) | random)


@mechanism("sparse_strided", params={"stride": 3})
def sparse_strided(z: Given) -> Tensor:
    apart = z.i - z.j
    even = heads(torch.arange(z.H)) % 2 == 0
    return over(z, causal(z) & torch.where(even, apart < 3, apart % 3 == 0))


@mechanism("sparse_fixed", params={"stride": 4, "summary": 2})
def sparse_fixed(z: Given) -> Tensor:
    return over(z, causal(z) & ((z.i // 4 == z.j // 4) | (z.j % 4 >= 2)))


@mechanism("log_sparse")
def log_sparse(z: Given) -> Tensor:
    apart = z.i - z.j
    powers = torch.tensor([0, *(2**e for e in range(20))])
    return over(z, torch.isin(apart, powers))


@mechanism("reformer", square=True, params={"half": 2}, rotation=floats("H, D, half"))
def reformer(z: Given) -> Tensor:
    x = z.q @ z.rotation
    bucket = torch.cat((x, -x), -1).argmax(-1)
    keys = z.q / z.q.norm(dim=-1, keepdim=True)
    s = z.scale * z.q @ keys.mT - 1e5 * (z.i == z.j)
    return softmax(s, causal(z) & (column(bucket) == bucket[:, :, None])) @ z.v


@mechanism("retrieval_heads", params={"sinks": 1, "window": 3}, alpha=floats("H"))
def retrieval_heads(z: Given) -> Tensor:
    alpha = heads(z.alpha)
    streaming = over(z, causal(z) & ((z.j < 1) | (z.i - z.j < 3)))
    return alpha * over(z, causal(z)) + (1 - alpha) * streaming


@mechanism("magic_sampling", square=True, params={"tables": 4, "least": 2}, code=ints(2, "B, H, NK, tables"))
def magic_sampling(z: Given) -> Tensor:
    hits = (z.code[:, :, :, None] == z.code[:, :, None]).sum(-1)
    chance = (0.5 + 0.4 * torch.tanh(dot(z))).clamp(0.05, 1.0)
    return softmax(dot(z) - chance.log(), causal(z) & ((hits >= 2) | (z.i == z.j))) @ z.v


@mechanism("query_block_top", params={"block": 3, "keep": 2})
def query_block_top(z: Given) -> Tensor:
    rows = z.NQ // 3
    qc = z.q.reshape(z.B, z.H, rows, 3, z.D).mean(3)
    kc = z.k.reshape(z.B, z.H, 3, 3, z.D).mean(3)
    by = torch.einsum("bhid,bhcd->bic", qc, kc)
    first = z.q_offset + 3 * torch.arange(rows)[:, None]
    c = torch.arange(3)
    by = torch.where(c * 3 <= first + 2, by, -torch.inf)
    always = (c == 0) | (c * 3 + 2 >= first)
    chosen = largest(torch.where(always, 1e9, by), 2) | always
    seen = chosen.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, None]
    return over(z, causal(z) & seen)


@mechanism("vertical_slash", square=True, params={"last": 3, "vertical": 2, "slash": 2})
def vertical_slash(z: Given) -> Tensor:
    w = softmax(dot(z), causal(z))[:, :, -3:]
    straight = largest(w.sum(-2), 2)
    diagonals = torch.zeros_like(w[:, :, 0])
    for row in range(3):
        i = z.NK - 3 + row
        diagonals[..., : i + 1] += w[:, :, row, : i + 1].flip(-1).detach()
    diagonals[..., 0] = 1e9
    slanted = largest(diagonals, 2)[..., (z.i - z.j).clamp(min=0)]
    return over(z, causal(z) & (straight[:, :, None] | slanted))


@mechanism("never_special", params={"keep": 3}, separator=flags("B, NK", 0.3), padding=flags("B, NK", 0.2))
def never_special(z: Given) -> Tensor:
    separator, padding = z.separator[:, None, None], z.padding[:, None, None]
    may = causal(z) & ~padding
    by = torch.where(separator, 1e9, z.q @ z.k.mT)
    kept = largest(torch.where(may, by, -torch.inf), 3) | (may & separator)
    return over(z, kept)


@mechanism("threshold_pairs", limit=floats("H"))
def threshold_pairs(z: Given) -> Tensor:
    return over(z, causal(z) & ((dot(z) > heads(z.limit)) | (z.i == z.j)))


@mechanism("landmark", params={"block": 3})
def landmark(z: Given) -> Tensor:
    s = dot(z)
    block, own = z.j // 3, z.i // 3
    gates = s[..., 2::3]
    before = torch.arange(3) < own
    local = (block == own) & causal(z)
    all_ = torch.logaddexp(logsumexp(gates, before | (own == 0)), logsumexp(s, local))
    alone = logsumexp(s, local)
    z_row = torch.where(own[:, 0] == 0, alone, all_)
    out = torch.where(local, torch.exp(torch.where(local, s - column(z_row), 0.0)), 0.0) @ z.v
    for c in range(3):
        inside = softmax(s, (block == c) & (z.j % 3 != 2) & causal(z)) @ z.v
        share = torch.where(
            c < own, torch.exp(torch.where(c < own, gates[..., [c]] - column(z_row), 0.0)), 0.0
        )
        out = out + share * inside
    return out


def mean_of(x: Tensor, member: Tensor) -> Tensor:
    """member [B, C, N], x [B, H, N, D]."""
    m = member.double()[:, None]
    return m @ x / m.sum(-1, keepdim=True).clamp(min=1)


@mechanism("cluster_queries", square=True, params={"clusters": 3}, ids=ints(3, "B, NK"))
def cluster_queries(z: Given) -> Tensor:
    member = z.ids[:, None] == torch.arange(3)[:, None]
    rows = softmax(z.scale * mean_of(z.q, member) @ z.k.mT) @ z.v
    return rows.gather(2, z.ids[:, None, :, None].expand(-1, z.H, -1, z.DV))


@mechanism("improved_clusters", square=True, params={"clusters": 3, "keep": 3}, ids=ints(3, "B, NK"))
def improved_clusters(z: Given) -> Tensor:
    member = z.ids[:, None] == torch.arange(3)[:, None]
    w = softmax(z.scale * mean_of(z.q, member) @ z.k.mT)
    w = w.gather(2, z.ids[:, None, :, None].expand(-1, z.H, -1, z.NK))
    large = largest(w.detach(), 3)
    mass = torch.where(large, w, 0.0).sum(-1, keepdim=True)
    return mass * over(z, large) + torch.where(large, 0.0, w) @ z.v


@mechanism("gated_slots", params={"slots": 3}, alpha=floats("B, H, NK, slots", 0.1, 0.9))
def gated_slots(z: Given) -> Tensor:
    ks, vs = z.k.new_zeros(z.B, z.H, 3, z.D), z.k.new_zeros(z.B, z.H, 3, z.DV)
    rows: list[Tensor] = []
    for n in range(z.NK):
        a = column(z.alpha[:, :, n])
        ks, vs = a * ks + (1 - a) * z.k[:, :, [n]], a * vs + (1 - a) * z.v[:, :, [n]]
        if n >= z.q_offset:
            rows.append(softmax(z.scale * z.q[:, :, [n - z.q_offset]] @ ks.mT) @ vs)
    return torch.cat(rows, 2)


@mechanism("budget_per_head", params={"recent": 2}, budget=ints(5, "B, H"))
def budget_per_head(z: Given) -> Tensor:
    votes = softmax(dot(z), causal(z))[:, :, -1].detach()
    rank = torch.where(z.j[0] < z.NK - 2, votes, -1.0).argsort(-1, descending=True).argsort(-1)
    kept = (rank < column(z.budget)) | (z.j[0] >= z.NK - 2)
    return over(z, causal(z) & kept[:, :, None])
