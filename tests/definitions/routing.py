"""Section E of the catalogue, blocks of keys: content routing; the selection has no gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import (
    REQUIRED,
    Call,
    Given,
    Need,
    Result,
    TensorSpec,
    define,
    need,
    same_lengths,
    softmax,
    softmax_attention,
    top,
)


def each_head(call: Call) -> list[tuple[int, int, int]]:
    """All (b, h, g(h))."""
    z = call.sizes
    return [(b, h, h // (z.H // z.HK)) for b in range(z.B) for h in range(z.H)]


def group_heads(call: Call, g: int) -> range:
    """The query heads of a key/value head."""
    share = call.sizes.H // call.sizes.HK
    return range(g * share, (g + 1) * share)


def nothing(call: Call) -> Tensor:
    """A selection [B,H,NQ,NK] without any pair."""
    z = call.sizes
    return torch.zeros(z.B, z.H, z.NQ, z.NK, dtype=torch.bool)


def block_means(t: Tensor, block: int) -> Tensor:
    """[B,HK,NK,·] → [B,HK,ceil(NK/block),·]: means of consecutive tokens, the last of what there is."""
    parts = [t[:, :, start : start + block].mean(2) for start in range(0, t.shape[2], block)]
    return torch.stack(parts, 2)


Chooser = Callable[[int, int, int, int], set[int]]
"""(b, h, row, own block) → the key blocks that the query keeps."""


def chosen_blocks(call: Call, block: int, kept_of: Chooser) -> Tensor:
    """The causal selection in which each query sees the blocks that `kept_of(b, h, row, own block)` names."""
    selection = nothing(call)
    for b, h, _ in each_head(call):
        for row, q in enumerate(call.rows().tolist()):
            if q < 0:
                continue
            kept = kept_of(b, h, row, q // block)
            for k in range(call.sizes.NK):
                selection[b, h, row, k] = k <= q and k // block in kept
    return selection


@define("E", params={"block": 64, "keep": 8})
def block_topk(call: Call, p: Given) -> Result:
    means = block_means(call.k.detach(), p.block)
    scores = torch.einsum("bhqd,bhjd->bhqj", call.q.detach(), call.per_head(means))

    def kept(b: int, h: int, row: int, own: int) -> set[int]:
        return {own, *top(p.keep - 1, scores[b, h, row].tolist(), list(range(min(own, means.shape[2]))))}

    return softmax_attention(call, call.dot(), chosen_blocks(call, p.block, kept))


@define(
    "E",
    params={"tile": 64, "keep": 8},
    tensors={"gate": TensorSpec(("b", "h", "q"))},
    needs=(same_lengths, Need("NQ a multiple of tile", lambda z, p: z.NQ % p.tile == 0)),
    lse=False,
)
def tile_topk(call: Call, p: Given) -> Result:
    Qc, Kc, Vc = (block_means(t, p.tile) for t in (call.q, call.k, call.v))
    Sc = call.scale * torch.einsum("bhmd,bhnd->bhmn", Qc, call.per_head(Kc))
    coarse = torch.einsum("bhmn,bhnv->bhmv", torch.softmax(Sc, -1), call.per_head(Vc))
    tile_of = torch.arange(call.sizes.NQ) // p.tile
    selection = nothing(call)
    for b, h, _ in each_head(call):
        for row in range(call.sizes.NQ):
            scores = Sc[b, h, row // p.tile].tolist()
            kept = top(p.keep, scores, list(range(len(scores))))
            selection[b, h, row] = torch.tensor([k // p.tile in kept for k in range(call.sizes.NK)])
    fine = softmax_attention(call, call.dot(), selection)
    return Result(p.gate[..., None] * coarse[:, :, tile_of] + fine.out)


@define(
    "E",
    params={"block": 64, "keep": 4, "window": 256},
    tensors={"gate": TensorSpec(("b", "h", "q", "3"))},
    needs=(Need("keep ≥ 2", lambda z, p: p.keep >= 2),),
    lse=False,
)
def native_sparse(call: Call, p: Given) -> Result:
    Kc, Vc = (call.per_head(block_means(t, p.block)) for t in (call.k, call.v))
    i = call.rows() // p.block
    earlier = torch.arange(Kc.shape[2])[None, :] < i[:, None]
    probabilities, _ = softmax(call.scale * torch.einsum("bhqd,bhjd->bhqj", call.q, Kc), earlier)
    first = torch.einsum("bhqj,bhjv->bhqv", probabilities, Vc)

    share = call.sizes.H // call.sizes.HK

    def kept(b: int, h: int, row: int, own: int) -> set[int]:
        importance = probabilities.detach()[b, group_heads(call, h // share), row].sum(0).tolist()
        always = {0, own}
        return always | set(top(p.keep - len(always), importance, list(range(1, min(own, Kc.shape[2])))))

    second = softmax_attention(call, call.dot(), chosen_blocks(call, p.block, kept)).out
    apart = call.rows()[:, None] - call.columns()[None, :]
    third = softmax_attention(call, call.dot(), (apart >= 0) & (apart < p.window)).out
    return Result(p.gate[..., 0:1] * first + p.gate[..., 1:2] * second + p.gate[..., 2:3] * third)


@define(
    "E",
    params={"stride": 8, "block": 64, "threshold": 0.9},
    needs=(
        same_lengths,
        Need("NQ a multiple of block", lambda z, p: z.NQ % p.block == 0),
        Need("stride dividing block", lambda z, p: p.block % p.stride == 0),
    ),
)
def antidiagonal(call: Call, p: Given) -> Result:
    N, per_block, cells = call.sizes.NQ, p.block // p.stride, call.sizes.NQ // p.stride
    picked_q = torch.tensor(
        [[i * p.stride + p.stride - 1 - t for t in range(p.stride)] for i in range(cells)]
    )
    picked_k = torch.tensor([[j * p.stride + t for t in range(p.stride)] for j in range(cells)])
    Q, K = call.q.detach()[:, :, picked_q], call.keys().detach()[:, :, picked_k]  # [B,H,cells,stride,D]
    A = torch.einsum("bhitd,bhjtd->bhij", Q, K) * call.scale / p.stride
    P, _ = softmax(A, torch.ones(cells, cells, dtype=torch.bool).tril())
    blocks = N // p.block
    score = P.reshape(*P.shape[:2], blocks, per_block, blocks, per_block).sum((3, 5))

    def kept_by(b: int, h: int, own: int) -> set[int]:
        row = score[b, h, own].tolist()
        kept = {0, own}
        for J in top(blocks, row, list(range(1, own))):
            if sum(row[j] for j in kept) >= p.threshold * per_block:
                break
            kept.add(J)
        return kept

    def kept(b: int, h: int, row: int, own: int) -> set[int]:
        return kept_by(b, h, row // p.block)

    return softmax_attention(call, call.dot(), chosen_blocks(call, p.block, kept))


@define(
    "E",
    params={"height": REQUIRED, "width": REQUIRED, "region": 8, "keep": 4},
    needs=(
        Need("NQ = NK = height·width", lambda z, p: z.NQ == z.NK == p.height * p.width),
        Need("region dividing height and width", lambda z, p: p.height % p.region == p.width % p.region == 0),
    ),
)
def region_routing(call: Call, p: Given) -> Result:
    across = p.width // p.region
    regions = (p.height // p.region) * across
    region_of = [(n // p.width // p.region) * across + n % p.width // p.region for n in range(call.sizes.NK)]
    members = [[n for n, r in enumerate(region_of) if r == number] for number in range(regions)]
    mean_q, mean_k = (
        torch.stack([t.detach()[:, :, inside].mean(2) for inside in members], 2)
        for t in (call.q, call.keys())
    )
    scores = torch.einsum("bhrd,bhsd->brs", mean_q, mean_k)
    selection = nothing(call)
    for b in range(call.sizes.B):
        for r, inside in enumerate(members):
            for s in top(p.keep, scores[b, r].tolist(), list(range(regions))):
                for q in inside:
                    selection[b, :, q, members[s]] = True
    return softmax_attention(call, call.dot(), selection)


@define(
    "E",
    params={"block": 64, "keep": 8},
    tensors={"gate": TensorSpec(("b", "h", "q/block", "k/block"))},
    needs=(same_lengths,),
    chooses=("gate",),
)
def learned_gate(call: Call, p: Given) -> Result:
    blocks = -(-call.sizes.NK // p.block)
    need(tuple(p.gate.shape[2:]) == (blocks, blocks), "learned_gate needs block axes of length ceil(N/block)")

    def kept(b: int, h: int, row: int, own: int) -> set[int]:
        return {own, *top(p.keep - 1, p.gate[b, h, own].tolist(), list(range(own)))}

    return softmax_attention(call, call.dot(), chosen_blocks(call, p.block, kept))


@define("E", params={"page": 16, "keep": 8, "sinks": 4, "near": 64})
def page_topk(call: Call, p: Given) -> Result:
    z, selection = call.sizes, nothing(call)
    pages = (z.NK - p.sinks) // p.page  # whole pages
    paged = call.k.detach()[:, :, p.sinks : p.sinks + max(pages, 0) * p.page]
    for b, h, g in each_head(call):
        queries = call.q.detach()[b, group_heads(call, g)].mean(0)  # [NQ,D]
        for row, q in enumerate(call.rows().tolist()):
            competing = [j for j in range(pages) if p.sinks + (j + 1) * p.page - 1 <= q - p.near]
            scores = [
                float(queries[row] @ paged[b, g, j * p.page : (j + 1) * p.page].mean(0)) for j in competing
            ]
            kept = top(p.keep, scores, competing)
            after = p.sinks + len(competing) * p.page  # the first key after the last competing page
            for k in range(z.NK):
                seen = k < p.sinks or k >= after or (k - p.sinks) // p.page in kept
                selection[b, h, row, k] = k <= q and seen
    return softmax_attention(call, call.dot(), selection)
