"""Section E of the catalogue, single keys and queries: what each head, bucket or cluster takes."""

import torch

from .common import (
    Call,
    Given,
    Need,
    Place,
    Result,
    TensorSpec,
    define,
    queries_before_end,
    softmax,
    softmax_attention,
    top,
    unit_rows,
)
from .routing import each_head, nothing


@define("E", params={"keep": 64}, tensors={"delta": TensorSpec(("b", "g", "k"))})
def dynamic_mask(call: Call, p: Given) -> Result:
    selection = nothing(call)
    for b, h, g in each_head(call):
        for row, q in enumerate(call.rows().tolist()):
            past = [k for k in range(call.sizes.NK) if k <= q]
            selection[b, h, row, top(p.keep, p.delta[b, g].tolist(), past)] = True
    return softmax_attention(call, call.dot() + call.per_head(p.delta)[:, :, None, :], selection)


@define(
    "E",
    params={"keep": 64},
    tensors={"router": TensorSpec(("b", "h", "n"))},
    needs=(queries_before_end,),
)
def expert_choice(call: Call, p: Given) -> Result:
    selection = nothing(call)
    for b, h, _ in each_head(call):
        taken = top(p.keep, p.router[b, h].tolist(), list(range(call.sizes.NK)))
        for row, q in enumerate(call.rows().tolist()):
            if q in taken:
                selection[b, h, row, [k for k in taken if k <= q]] = True
    inner = softmax_attention(call, call.dot(), selection)
    router = call.at_rows(p.router, 2)[..., None]
    assert inner.weights is not None
    return Result(router * inner.out, inner.lse, router * inner.weights)


@define(
    "E",
    params={"clusters": 8, "keep": 64},
    tensors={"centroids": TensorSpec(("h", "clusters", "d"))},
    needs=(Need("HK = H", lambda z, p: z.HK == z.H),),
    lse=False,
    chooses=("centroids",),
)
def routing(call: Call, p: Given) -> Result:
    z, s = call.sizes, call.dot()
    near_q, near_k = (
        torch.einsum("bhnd,hcd->bhcn", unit_rows(t.detach()), p.centroids.detach()) for t in (call.q, call.k)
    )
    weights = torch.zeros_like(s)
    for b, h, _ in each_head(call):
        took = [0] * z.NQ
        sums = [torch.zeros(z.NK, dtype=s.dtype) for _ in range(z.NQ)]
        for c in range(p.clusters):
            rows = top(p.keep, near_q[b, h, c].tolist(), list(range(z.NQ)))
            keys = top(p.keep, near_k[b, h, c].tolist(), list(range(z.NK)))
            for row in rows:
                visible = torch.tensor([k in keys and k <= row + z.q_offset for k in range(z.NK)])
                took[row] += 1
                sums[row] = sums[row] + softmax(s[b, h, row], visible)[0]
        means = [total / max(count, 1) for total, count in zip(sums, took, strict=True)]
        weights = weights.index_put((torch.tensor(b), torch.tensor(h)), torch.stack(means))
    return Result(torch.einsum("bhqk,bhkv->bhqv", weights, call.values()), None, weights)


def same_bucket(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and p.bucket[at.b][at.h][q] == p.bucket[at.b][at.h][k]


@define(
    "E",
    tensors={"bucket": TensorSpec(("b", "h", "n"), "int")},
    needs=(queries_before_end,),
    visible=same_bucket,
    varies="bh",
)
def hash_buckets(call: Call, p: Given) -> Result:
    return softmax_attention(call, call.dot(), call.mask())


def both_kept(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and p.keep_q[at.b][at.h][q - at.q_offset] and p.keep_k[at.b][at.h][k]


@define(
    "E",
    tensors={"keep_q": TensorSpec(("b", "h", "q"), "bool"), "keep_k": TensorSpec(("b", "h", "k"), "bool")},
    visible=both_kept,
    varies="bh",
)
def dropped(call: Call, p: Given) -> Result:
    return softmax_attention(call, call.dot(), call.mask())
