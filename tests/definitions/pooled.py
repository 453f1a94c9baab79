"""Section F of the catalogue: pooled and hierarchical attention."""

import math

import torch
from torch import Tensor

from .common import Call, Given, Need, Result, TensorSpec, define, need, same_lengths, softmax

LEVELS = (0, 1, 2, 4, 8)


def groups(length: int, size: int) -> list[range]:
    """Consecutive groups of `size` positions; the last may be short."""
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def means(t: Tensor, parts: list[range]) -> Tensor:
    """[B,H,N,·] → [B,H,parts,·]: the mean over each part."""
    return torch.stack([t[:, :, part.start : part.stop].mean(2) for part in parts], 2)


def scores(call: Call, q: Tensor, k: Tensor) -> Tensor:
    """scale·⟨q,k⟩ of rows [B,H,M,D] and [B,H,N,D]."""
    return call.scale * torch.einsum("bhmd,bhnd->bhmn", q, k)


def one_softmax(s: Tensor, visible: Tensor, values: Tensor) -> Result:
    """One softmax over entries [B,H,NQ,E] with values [B,H,E,DV]."""
    weights, lse = softmax(s, visible)
    return Result(torch.einsum("bhqe,bhev->bhqv", weights, values), lse)


def not_later(call: Call) -> Tensor:
    """k ≤ q, [NQ,NK]."""
    return call.columns()[None, :] <= call.rows()[:, None]


@define(
    "F",
    params={"agents": 49},
    tensors={
        "a": TensorSpec(("b", "h", "agents", "d")),
        "bias1": TensorSpec(("h", "agents", "k")),
        "bias2": TensorSpec(("h", "q", "agents")),
    },
    lse=False,
)
def agent(call: Call, p: Given) -> Result:
    gathered = torch.softmax(scores(call, p.a, call.keys()) + p.bias1, -1)
    U = torch.einsum("bhmk,bhkv->bhmv", gathered, call.values())
    spread = torch.softmax(scores(call, call.q, p.a) + p.bias2, -1)
    return Result(torch.einsum("bhqm,bhmv->bhqv", spread, U))


@define("F", params={"stride": 4})
def pooled_keys(call: Call, p: Given) -> Result:
    parts = groups(call.sizes.NK, p.stride)
    s = scores(call, call.q, means(call.keys(), parts))
    return one_softmax(s, torch.ones(1, len(parts), dtype=torch.bool), means(call.values(), parts))


@define("F", params={"span": 64}, needs=(same_lengths,))
def combiner(call: Call, p: Given) -> Result:
    parts, K, V = groups(call.sizes.NK, p.span), call.keys(), call.values()
    mean_q, mean_k = means(call.q, parts), means(K, parts)
    summaries: list[Tensor] = []
    for t, part in enumerate(parts):
        inside = slice(part.start, part.stop)
        inner = torch.softmax(scores(call, mean_q[:, :, t : t + 1], K[:, :, inside]), -1)
        summaries.append(inner @ V[:, :, inside])
    c = call.rows()[:, None] // p.span
    same_span = call.columns()[None, :] // p.span == c
    earlier = torch.arange(len(parts))[None, :] < c
    return one_softmax(
        torch.cat([scores(call, call.q, K), scores(call, call.q, mean_k)], -1),
        torch.cat([same_span & not_later(call), earlier], -1),
        torch.cat([V, *summaries], 2),
    )


@define("F", params={"group": 16, "window": 64}, needs=(same_lengths,))
def core_context(call: Call, p: Given) -> Result:
    parts, K, V = groups(call.sizes.NK, p.group), call.keys(), call.values()
    core_k: list[Tensor] = []
    core_v: list[Tensor] = []
    for part in parts:
        inside, last = slice(part.start, part.stop), part.stop - 1
        e = torch.softmax(scores(call, call.q[:, :, last : last + 1], K[:, :, inside]), -1)
        core_k.append(e @ K[:, :, inside])
        core_v.append(e @ V[:, :, inside])
    first = p.group * ((call.rows()[:, None] - p.window + 1) // p.group).clamp(min=0)
    local = (first <= call.columns()[None, :]) & not_later(call)
    before = torch.tensor([part.stop for part in parts])[None, :] <= first
    return one_softmax(
        torch.cat([scores(call, call.q, K), scores(call, call.q, torch.cat(core_k, 2))], -1),
        torch.cat([local, before & (call.rows()[:, None] >= 0)], -1),
        torch.cat([V, *core_v], 2),
    )


@define("F", params={"sinks": 4, "window": 256}, tensors={"retrieval": TensorSpec(("h",), "bool")})
def compensated(call: Call, p: Given) -> Result:
    K, V, q, k = call.keys(), call.values(), call.rows()[:, None], call.columns()[None, :]
    kept = not_later(call) & ((k < p.sinks) | (q - k < p.window))
    dropped = not_later(call) & ~kept  # [NQ,NK]
    count = dropped.sum(-1)  # N, [NQ]
    share = dropped.double() / count.clamp(min=1)[:, None]
    mean_k = torch.einsum("qk,bhkd->bhqd", share, K)
    mean_v = torch.einsum("qk,bhkv->bhqv", share, V)
    extra = torch.log(count.clamp(min=1).double()) + call.scale * (call.q * mean_k).sum(-1)
    retrieval = p.retrieval[:, None, None]
    visible = torch.where(retrieval, not_later(call), kept)
    entry = ~retrieval[:, :, 0] & (count > 0)  # [H,NQ]
    weights, lse = softmax(
        torch.cat([call.dot(), extra[..., None]], -1), torch.cat([visible, entry[..., None]], -1)
    )
    out = torch.einsum("bhqk,bhkv->bhqv", weights[..., :-1], V) + weights[..., -1:] * mean_v
    return Result(out, lse)


def levels_divide(block: int, level: Tensor) -> bool:
    """Every level is known, and divides the block unless it is 0."""
    return all(n in LEVELS and (n == 0 or block % n == 0) for n in level.unique().tolist())


@define(
    "F",
    params={"block": 64},
    tensors={"level": TensorSpec(("b", "h", "q/block", "k/block"), "int")},
    needs=(
        Need("NK a multiple of block", lambda z, p: z.NK % p.block == 0),
        Need("every level in 0, 1, 2, 4, 8 and dividing block", lambda z, p: levels_divide(p.block, p.level)),
    ),
)
def pyramid(call: Call, p: Given) -> Result:
    z = call.sizes
    need(p.level.shape[2] == -(-z.NQ // p.block), "pyramid needs an axis q/block of length ceil(NQ/block)")
    level_of = p.level[:, :, torch.arange(z.NQ) // p.block]  # [B,H,NQ,NK/block]
    entries: list[Tensor] = []
    visible: list[Tensor] = []
    values: list[Tensor] = []
    for level in LEVELS[1:]:
        if p.block % level:
            continue
        parts = groups(z.NK, level)
        entries.append(scores(call, call.q, means(call.keys(), parts)) + math.log(level))
        visible.append((level_of == level)[..., [part.start // p.block for part in parts]])
        values.append(means(call.values(), parts))
    return one_softmax(torch.cat(entries, -1), torch.cat(visible, -1), torch.cat(values, 2))


@define(
    "F",
    params={"block": 32, "keep": 16},
    needs=(
        Need("NQ and NK multiples of block", lambda z, p: z.NQ % p.block == z.NK % p.block == 0),
        Need("keep ≥ NQ/block", lambda z, p: p.keep >= z.NQ // p.block),
    ),
)
def multiresolution(call: Call, p: Given) -> Result:
    z, K, V = call.sizes, call.keys(), call.values()
    q_parts, k_parts = groups(z.NQ, p.block), groups(z.NK, p.block)
    L = scores(call, means(call.q, q_parts), means(K, k_parts))
    below = (L - L.amax(-1, keepdim=True)).detach().flatten(2)  # row-major over (m, c)
    order = below.argsort(dim=-1, descending=True, stable=True)[..., : p.keep]
    R = torch.zeros_like(below, dtype=torch.bool).scatter(2, order, True).reshape(L.shape)
    m_of, c_of = torch.arange(z.NQ) // p.block, torch.arange(z.NK) // p.block
    return one_softmax(
        torch.cat([call.dot(), L[:, :, m_of] + math.log(p.block)], -1),
        torch.cat([R[:, :, m_of][..., c_of], ~R[:, :, m_of]], -1),
        torch.cat([V, means(V, k_parts)], 2),
    )
