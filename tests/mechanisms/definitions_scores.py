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
