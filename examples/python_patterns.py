"""Patterns written as Python functions: each makes the very tree that `examples/<name>.attn` parses to."""

# ruff: noqa: F821 (the axes of Tensor["b", "n"] are no names of Python)

from typing import Annotated

from attnlang import Tensor, attention_pattern

AtLeastOne = Annotated[int, ">= 1"]


@attention_pattern
def sliding_window(p, window: AtLeastOne = 1024):
    p.mask(p.causal)
    p.sparsity(p.window(window))


@attention_pattern
def streaming(p, window: AtLeastOne = 1024, sinks: Annotated[int, ">= 0"] = 4):
    p.mask(p.causal)
    p.sparsity(p.window(window) | p.sinks(sinks))


@attention_pattern
def longformer(p, is_global: Tensor["b", "n"].bool, radius: Annotated[int, ">= 0"] = 256):
    p.sparsity(p.local(radius) | is_global[p.b, p.q] | is_global[p.b, p.k])


@attention_pattern
def visual_isolated(p, is_visual: Tensor["b", "n"].bool):
    p.mask(p.causal)
    p.sparsity(~(is_visual[p.b, p.q] & is_visual[p.b, p.k] & (p.q != p.k)))


@attention_pattern
def strided_blocks(p, block: AtLeastOne = 64, near: Annotated[int, ">= 0"] = 4, stride: AtLeastOne = 16):
    i = p.let("i", p.q // block)
    j = p.let("j", p.k // block)
    p.mask(p.causal)
    p.sparsity((j == 0) | (i - j < near) | ((j + p.h) % stride == 0))


@attention_pattern
def space(p, frames: AtLeastOne, tokens: AtLeastOne):
    p.grid(p.q, p.k, t=frames, a=tokens)
    p.sparsity(p.q.t == p.k.t)


@attention_pattern
def spatial_temporal_heads(
    p,
    is_temporal: Tensor["h"].bool,
    frames: AtLeastOne,
    tokens: AtLeastOne,
    near_frames: Annotated[int, ">= 0"] = 1,
    near_tokens: Annotated[int, ">= 0"] = 64,
):
    p.grid(p.q, p.k, t=frames, a=tokens)
    near_in_space = abs(p.q.a - p.k.a) <= near_tokens
    near_in_time = abs(p.q.t - p.k.t) <= near_frames
    p.sparsity(p.where(is_temporal[p.h], near_in_space, near_in_time))


@attention_pattern
def alibi(p, slopes: Tensor["h"]):
    p.mask(p.causal)
    p.score(p.dot * p.scale - slopes[p.h] * (p.q - p.k))


@attention_pattern
def music(p, rel: Tensor["h", "reach", "d"], reach: AtLeastOne = 512):
    p.mask(p.causal)
    p.score(p.scale * (p.dot + p.Q[p.q] @ rel[p.h, p.max(p.k - p.q, 1 - reach) + reach - 1]))


@attention_pattern
def t5(
    p, table: Tensor["h", "buckets"], buckets: Annotated[int, ">= 2"] = 32, max_distance: AtLeastOne = 128
):
    p.require(max_distance > buckets // 2)
    near = p.let("near", buckets // 2)
    rate = p.let("rate", (buckets - near) / p.ln(max_distance / near))
    i = p.index("i", max_distance + 1)
    far = p.floor(p.ln(p.max(i, near) / near) * rate + 1e-9)
    bucket = p.let("bucket", p.min(i, near) + far, at=i)
    p.mask(p.causal)
    p.score(p.dot + table[p.h, p.min(bucket[p.min(p.q - p.k, max_distance)], buckets - 1)])


@attention_pattern
def softcap(p, cap: Annotated[float, "> 0"] = 50.0):
    p.mask(p.causal)
    p.score(cap * p.tanh(p.dot * p.scale / cap))


@attention_pattern
def distance_bias(p, x: Tensor["b", "n", 3], alpha: Tensor["h"]):
    p.score(p.dot * p.scale - alpha[p.h] * p.sum((x[p.b, p.q] - x[p.b, p.k]) ** 2))


@attention_pattern
def gated_positional(p, direction: Tensor["h", 3], gate: Tensor["h"], height: AtLeastOne, width: AtLeastOne):
    p.grid(p.q, p.k, y=height, x=width)
    dx = p.let("dx", p.k.x - p.q.x)
    dy = p.let("dy", p.k.y - p.q.y)
    with p.branch("content") as content:
        p.score(p.dot * p.scale)
    with p.branch("place") as place:
        p.score(direction[p.h, 0] * dx + direction[p.h, 1] * dy + direction[p.h, 2] * (dx**2 + dy**2))
    p.output((1 - p.sigmoid(gate[p.h])) * content + p.sigmoid(gate[p.h]) * place)


@attention_pattern
def talking_heads(p, pre: Tensor["h", "h"], post: Tensor["h", "h"]):
    def score_of(m):
        return p.Q[p.b, m, p.q] @ p.K[p.b, p.g(m), p.k] * p.scale

    p.mask(p.causal)
    p.score(p.sum(lambda m: pre[p.h, m] * score_of(m), over=p.heads))
    p.normalize(p.softmax)
    p.reweight(p.sum(lambda m: post[p.h, m] * p.w[m], over=p.heads))


@attention_pattern
def native_sparse(
    p,
    gate: Tensor["b", "h", "q", 3],
    block: AtLeastOne = 64,
    keep: Annotated[int, ">= 2"] = 4,
    window: AtLeastOne = 256,
):
    p.mask(p.causal)
    c = p.blocks("c", of=p.k, by=block)
    KC = p.let("KC", p.mean(p.K[k] for k in c), at=c)
    VC = p.let("VC", p.mean(p.V[k] for k in c), at=c)

    with p.branch("coarse", over=c) as coarse:
        p.mask(c < p.block(p.q))
        p.score(p.Q[p.q] @ KC[c] * p.scale)
        p.value(VC[c])
    importance = p.let("importance", p.sum(lambda m: coarse.w[p.b, m, p.q, c], over=p.group(p.h)))
    chosen = p.select(
        "chosen",
        p.top(keep),
        c,
        by=importance,
        at=p.q,
        where=c <= p.block(p.q),
        always=(c == p.block(p.q)) | (c == 0),
    )
    with p.branch("fine") as fine:
        p.sparsity(chosen(p.q, p.k))
    with p.branch("near") as near:
        p.sparsity(p.window(window))

    results = (coarse, fine, near)
    first, *others = (gate[p.b, p.h, p.q, i] * result for i, result in enumerate(results))
    p.output(sum(others, first))


@attention_pattern
def multiresolution(p, block: AtLeastOne = 32, keep: AtLeastOne = 16):
    p.require((p.NQ % block == 0) & (p.NK % block == 0) & (keep >= p.NQ // block))
    m = p.blocks("m", of=p.q, by=block)
    c = p.blocks("c", of=p.k, by=block)
    QM = p.let("QM", p.mean(p.Q[q] for q in m), at=m)
    KM = p.let("KM", p.mean(p.K[k] for k in c), at=c)
    VM = p.let("VM", p.mean(p.V[k] for k in c), at=c)
    L = p.let("L", QM[m] @ KM[c] * p.scale, at=[m, c])
    highest = p.max(lambda x: L[m, x], over=p.groups(c))
    refined = p.select("refined", p.top(keep), [m, c], by=L[m, c] - highest)

    with p.branch("fine") as fine:
        p.sparsity(refined(p.q, p.k))
    with p.branch("coarse", over=c) as coarse:
        p.mask(~refined(p.q, c))
        p.score(L[p.block(p.q, m), c] + p.ln(block))
        p.value(VM[c])
    p.output(p.merge(fine, coarse))


@attention_pattern
def agent(
    p,
    a: Tensor["b", "h", "agents", "d"],
    bias1: Tensor["h", "agents", "k"],
    bias2: Tensor["h", "q", "agents"],
    agents: AtLeastOne = 49,
):
    m = p.index("m", agents)
    with p.branch("gathered", at=m) as gathered:
        p.score(a[p.b, p.h, m] @ p.K[p.k] * p.scale + bias1[p.h, m, p.k])
    with p.branch("told", over=m) as told:
        p.score(p.Q[p.q] @ a[p.b, p.h, m] * p.scale + bias2[p.h, p.q, m])
        p.value(gathered[m])
    p.output(told)


@attention_pattern
def delta(p, beta: Tensor["b", "h", "n"]):
    p.require(p.HK == p.H)
    S = p.state("S", p.d, p.e)
    p.step(S, S + beta[p.b, p.h, p.k] * p.outer(p.K[p.k], p.V[p.k] - p.K[p.k] @ S))
    p.output(p.Q[p.q] @ S)


@attention_pattern
def chunk_recurrent(p, gate: Tensor["b", "g", "n", "d"], chunk: AtLeastOne = 16):
    p.require(p.DV == p.D)
    keep = gate[p.b, p.g, p.n]
    start = p.n % chunk == 0
    KR = p.scan("KR", keep * p.KR[p.n - 1] + (1 - keep) * p.K[p.n], at=p.n, restart=start)
    VR = p.scan("VR", keep * p.VR[p.n - 1] + (1 - keep) * p.V[p.n], at=p.n, restart=start)
    p.mask(p.causal)
    p.sparsity(((p.k + 1) % chunk == 0) | (p.k == p.q))
    p.score(p.Q[p.q] @ KR[p.k] * p.scale)
    p.value(VR[p.k])
