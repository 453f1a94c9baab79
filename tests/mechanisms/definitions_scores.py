"""What a pair gets: scores without Q and K, kernels, convolved scores and keys, scores that see all heads."""

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, pad, silu, softplus

from .common import Given, at_queries, causal, column, dot, floats, heads, mechanism, per_query_head, softmax


@mechanism("synthesizer_random", r=floats("H, NK, NK"))
def synthesizer_random(z: Given) -> Tensor:
    return softmax(at_queries(z, z.r, 1), causal(z)) @ z.v


@mechanism(
    "synthesizer_dense", params={"hidden": 3},
    w1=floats("H, D, hidden"), b1=floats("H, hidden"), w2=floats("H, hidden, NK"),
)  # fmt: skip
def synthesizer_dense(z: Given) -> Tensor:
    return softmax((z.q @ z.w1 + z.b1[:, None]).relu() @ z.w2, causal(z)) @ z.v


@mechanism("synthesizer_factorized", params={"a": 3, "c": 3}, wa=floats("H, D, a"), wc=floats("H, D, c"))
def synthesizer_factorized(z: Given) -> Tensor:
    repeated = (z.q @ z.wa).repeat_interleave(z.c, -1)
    tiled = (z.q @ z.wc).repeat(1, 1, 1, z.a)
    return softmax((repeated * tiled)[..., : z.NK], causal(z)) @ z.v


@mechanism("gaussian_kernel")
def gaussian_kernel(z: Given) -> Tensor:
    return torch.exp(-z.scale / 2 * ((z.q[:, :, :, None] - z.k[:, :, None]) ** 2).sum(-1)) @ z.v


@mechanism("l2_attention")
def l2_attention(z: Given) -> Tensor:
    return softmax(-z.scale * ((z.q[:, :, :, None] - z.k[:, :, None]) ** 2).sum(-1), causal(z)) @ z.v


@mechanism("token_temperature", tq=floats("B, H, NQ"), tk=floats("B, HK, NK"))
def token_temperature(z: Given) -> Tensor:
    tk = per_query_head(z, z.tk)
    return softmax(dot(z) / (column(softplus(z.tq)) * softplus(tk)[:, :, None] + 0.1), causal(z)) @ z.v


@mechanism("multi_token", square=True, params={"cq": 2, "ck": 3}, theta=floats("H, cq, ck"))
def multi_token(z: Given) -> Tensor:
    s = torch.where(causal(z), dot(z), 0.0)
    kernel = z.theta.flip(1)[:, None]  # correlation over queries q − i, keys k + j − ck // 2
    half = z.ck // 2
    mixed = torch.nn.functional.conv2d(pad(s, (half, half, z.cq - 1, 0)), kernel, groups=z.H)
    return softmax(mixed, causal(z)) @ z.v


def before(x: Tensor, steps: int = 1) -> Tensor:
    return pad(x, (0, 0, steps, 0))[..., : x.shape[-2], :]


@mechanism("token_shift", mk=floats("H, D"), mv=floats("H, DV"))
def token_shift(z: Given) -> Tensor:
    mk, mv = z.mk[:, None], z.mv[:, None]
    k, v = mk * z.k + (1 - mk) * before(z.k), mv * z.v + (1 - mv) * before(z.v)
    return softmax(z.scale * z.q @ k.mT, causal(z)) @ v


@mechanism(
    "depthwise", square=True, params={"taps": 3},
    cq=floats("H, taps, D"), ck=floats("H, taps, D"), cv=floats("H, taps, DV"),
)  # fmt: skip
def depthwise(z: Given) -> Tensor:
    def convolved(x: Tensor, c: Tensor) -> Tensor:
        return torch.stack([c[:, j, None] * before(x, j) for j in range(z.taps)]).sum(0)

    q, k, v = convolved(z.q, z.cq), convolved(z.k, z.ck), convolved(z.v, z.cv)
    return softmax(z.scale * q @ k.mT, causal(z)) @ v


@mechanism(
    "disentangled_time", params={"buckets": 6}, time=floats("B, NK", 0.0, 40.0), by_time=floats("H, buckets"),
    by_place=floats("H, 2 * NK - 1"), u=floats("B, H, NQ, DV"),
)  # fmt: skip
def disentangled_time(z: Given) -> Tensor:
    apart = (column(at_queries(z, z.time)) - z.time[:, None]).abs().clamp(min=1)
    bucket = (apart.log() / 0.301).floor().long().clamp(0, z.buckets - 1)
    bias = z.by_time[:, bucket].transpose(0, 1) + z.by_place[:, z.i - z.j + z.NK - 1]
    w = torch.where(causal(z), silu(dot(z) + bias) / z.NK, 0.0)
    return z.u * (w @ z.v)


@mechanism(
    "dape", params={"hidden": 3}, slopes=floats("H"), w1=floats("2 * H, hidden"), w2=floats("hidden, H")
)
def dape(z: Given) -> Tensor:
    bias = (-heads(z.slopes) * (z.i - z.j)).expand(z.B, -1, -1, -1)
    both = torch.cat((dot(z), bias), 1)
    inner = leaky_relu(torch.einsum("bmqk,mj->bjqk", both, z.w1), 0.01)
    return softmax(dot(z) + bias + torch.einsum("bjqk,jh->bhqk", inner, z.w2), causal(z)) @ z.v


@mechanism("reattention", theta=floats("H, H"))
def reattention(z: Given) -> Tensor:
    m = torch.einsum("hm,bmqk->bhqk", z.theta, dot(z).softmax(-1))
    centred = m - m.mean(1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(1, keepdim=True) + 1e-5) @ z.v


@mechanism(
    "latent_heads", params={"latent": 3, "rotary": 4}, c=floats("B, NK, latent"), up_k=floats("H, latent, D"),
    up_v=floats("H, latent, DV"), qr=floats("B, H, NQ, rotary"), kr=floats("B, NK, rotary"),
)  # fmt: skip
def latent_heads(z: Given) -> Tensor:
    k, v = z.c[:, None] @ z.up_k, z.c[:, None] @ z.up_v
    rate = 10000.0 ** (-torch.arange(2, dtype=torch.float64) / 2)

    def turned(x: Tensor, at: Tensor) -> Tensor:
        one, two = x[..., :2], x[..., 2:]
        cos, sin = torch.cos(at[:, None] * rate), torch.sin(at[:, None] * rate)
        return torch.cat((one * cos - two * sin, two * cos + one * sin), -1)

    rotary = turned(z.qr, z.i[:, 0]) @ turned(z.kr, z.j[0])[:, None].mT
    return softmax((z.q @ k.mT + rotary) / (z.D + z.rotary) ** 0.5, causal(z)) @ v


@mechanism(
    "two_simplicial",
    sizes="NK=6",
    params={"window": 3},
    K2=floats("B, HK, NK, D"),
    V2=floats("B, HK, NK, DV"),
)
def two_simplicial(z: Given) -> Tensor:
    k2, v2 = per_query_head(z, z.K2), per_query_head(z, z.V2)
    near = causal(z) & (z.i - z.j < 3)
    s = z.scale * torch.einsum("bhqd,bhjd,bhkd->bhqjk", z.q, z.k, k2)
    seen = (near[:, :, None] & near[:, None]).flatten(-2)
    w = softmax(s.flatten(-2), seen).unflatten(-1, (z.NK, z.NK))
    return torch.einsum("bhqjk,bhje,bhke->bhqe", w, z.v, v2)


@mechanism("lambda_layer", square=True, place=floats("NK, NK, D"))
def lambda_layer(z: Given) -> Tensor:
    content = z.k.softmax(2).mT @ z.v
    return z.q @ content + torch.einsum("bhqd,qkd,bhke->bhqe", z.q, z.place, z.v)


@mechanism("attention_free", sizes="DV=4", bias=floats("H, NK, NK"))
def attention_free(z: Given) -> Tensor:
    logits = z.k[:, :, None] + at_queries(z, z.bias, 1)[..., None]
    w = softmax(logits, causal(z)[:, :, None], dim=3)
    return torch.sigmoid(z.q) * (w * z.v[:, :, None]).sum(3)


@mechanism("path", square=True, beta=floats("B, H, NK", 0.1, 1.9), direction=floats("B, H, NK, D"))
def path(z: Given) -> Tensor:
    u = z.direction / z.direction.norm(dim=-1, keepdim=True)
    rows: list[Tensor] = []
    for i in range(z.NK):
        r, row = z.q[:, :, i], [torch.zeros_like(z.q[:, :, 0, 0])] * z.NK
        for j in range(i, -1, -1):
            row[j] = z.scale * (r * z.k[:, :, j]).sum(-1)
            r = r - (z.beta[:, :, j] * (u[:, :, j] * r).sum(-1))[..., None] * u[:, :, j]
        rows.append(torch.stack(row, -1))
    s = torch.stack(rows, 2)
    return softmax(s, causal(z)) @ z.v


@mechanism("monotonic", square=True)
def monotonic(z: Given) -> Tensor:
    p = torch.sigmoid(dot(z))
    a = torch.zeros_like(p[:, :, 0]) + (z.j[0] == 0)
    rows: list[Tensor] = []
    for i in range(z.NQ):
        carried, row = torch.zeros_like(a[..., 0]), []
        for j in range(z.NK):  # what arrives at j: what started there, and what went past j − 1
            carried = (carried * (1 - p[:, :, i, j - 1]) if j else carried) + a[..., j]
            row.append(p[:, :, i, j] * carried)
        a = torch.stack(row, -1)
        rows.append(a)
    return torch.stack(rows, 2) @ z.v


@mechanism("fourier", square=True)
def fourier(z: Given) -> Tensor:
    return torch.fft.fft2(z.v).real


@mechanism(
    "diagonal_state", params={"states": 3}, damping=floats("H, states"), speed=floats("H, states"),
    real=floats("H, states"), imaginary=floats("H, states"), step_size=floats("H"),
)  # fmt: skip
def diagonal_state(z: Given) -> Tensor:
    t = (z.i - z.j).clamp(min=0) * heads(z.step_size.exp())
    root = torch.complex(-z.damping.exp(), z.speed)
    c = torch.complex(z.real, z.imaginary)
    filtered = 2 * (c[..., None, None] * torch.exp(root[..., None, None] * t[:, None])).real.sum(1)
    return torch.where(causal(z), filtered, 0.0) @ z.v


@mechanism("rank_bias", params={"ranks": 4}, bias=floats("H, ranks"))
def rank_bias(z: Given) -> Tensor:
    s = torch.where(causal(z), dot(z), -torch.inf)
    rank = s.argsort(-1, descending=True).argsort(-1).clamp(max=3)
    table = z.bias[None, :, None].expand(z.B, -1, z.NQ, -1)
    return softmax(dot(z) + table.gather(-1, rank), causal(z)) @ z.v


@mechanism("hyperbolic", beta=floats("H", 0.3), c=floats("H"))
def hyperbolic(z: Given) -> Tensor:
    def lifted(x: Tensor) -> Tensor:
        return torch.cat((torch.sqrt(1 + (x**2).sum(-1, keepdim=True)), x), -1)

    q, k, v = lifted(z.q), lifted(z.k), lifted(z.v)
    apart = torch.acosh((q[..., :1] * k[..., :1].mT - q[..., 1:] @ k[..., 1:].mT).clamp(min=1 + 1e-9))
    w = softmax(-heads(z.beta) * apart, causal(z)) * v[..., :1].mT
    klein = w / w.sum(-1, keepdim=True) @ (z.v / v[..., :1])
    return klein * torch.rsqrt((1 - (klein**2).sum(-1, keepdim=True)).clamp(min=1e-9))
