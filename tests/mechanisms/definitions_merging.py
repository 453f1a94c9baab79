"""Several attentions at once: differences, memories, gates, results that feed another attention."""

import math

import torch
from torch import Tensor

from .common import (
    Given,
    at_queries,
    causal,
    column,
    dot,
    floats,
    heads,
    ints,
    logsumexp,
    mechanism,
    per_query_head,
    softmax,
)


@mechanism(
    "flamingo", params={"images": 2, "patches": 3}, ik=floats("B, HK, images, patches, D"),
    iv=floats("B, HK, images, patches, DV"), last_image=ints(2, "B, NK", low=-1), gate=floats("H"),
)  # fmt: skip
def flamingo(z: Given) -> Tensor:
    image = at_queries(z, z.last_image)
    pick = torch.nn.functional.one_hot(image.clamp(min=0), 2).double()
    ik = torch.einsum("bqi,bhipd->bhqpd", pick, per_query_head(z, z.ik))
    iv = torch.einsum("bqi,bhipe->bhqpe", pick, per_query_head(z, z.iv))
    w = softmax(z.scale * torch.einsum("bhqd,bhqpd->bhqp", z.q, ik), (image >= 0)[:, None, :, None])
    seen = torch.einsum("bhqp,bhqpe->bhqe", w, iv)
    return softmax(dot(z), causal(z)) @ z.v + torch.tanh(heads(z.gate)) * seen


@mechanism(
    "knn_memory", params={"memory": 6, "nearest": 2}, mk=floats("B, HK, memory, D"),
    mv=floats("B, HK, memory, DV"), gate=floats("H"),
)  # fmt: skip
def knn_memory(z: Given) -> Tensor:
    s = z.scale * z.q @ per_query_head(z, z.mk).mT
    best = s >= s.topk(2).values[..., 1:]
    recalled = softmax(s, best) @ per_query_head(z, z.mv)
    gate = torch.sigmoid(heads(z.gate))
    return gate * recalled + (1 - gate) * (softmax(dot(z), causal(z)) @ z.v)


@mechanism("differential", params={"initial": 0.8}, l1=floats("4, D"), gain=floats("DV"))
def differential(z: Given) -> Tensor:
    half = z.D // 2
    l1 = z.l1[:, :half]
    factor = torch.exp(l1[0] @ l1[1]) - torch.exp(l1[2] @ l1[3]) + 0.8

    def part(x: slice) -> Tensor:
        return softmax(z.q[..., x] @ z.k[..., x].mT / math.sqrt(half), causal(z)) @ z.v

    made = part(slice(0, half)) - factor * part(slice(half, None))
    return made * torch.rsqrt((made**2).mean(-1, keepdim=True) + 1e-5) * z.gain * 0.2


@mechanism("value_residual", first=floats("B, HK, NK, DV"), mix=floats("H"), gate=floats("B, H, NQ, DV"))
def value_residual(z: Given) -> Tensor:
    mix = heads(z.mix)
    v = mix * per_query_head(z, z.first) + (1 - mix) * z.v
    return torch.sigmoid(z.gate) * (softmax(dot(z), causal(z)) @ v)


@mechanism("hopfield", sizes="DV=4", square=False, beta=floats("H"))
def hopfield(z: Given) -> Tensor:
    x = softmax(heads(z.beta) * z.q @ z.k.mT) @ z.k
    return softmax(heads(z.beta) * x @ z.k.mT) @ z.v


@mechanism(
    "attention_on_attention", iq=floats("H, D, DV"), io=floats("H, DV, DV"), gq=floats("H, D, DV"),
    go=floats("H, DV, DV"),
)  # fmt: skip
def attention_on_attention(z: Given) -> Tensor:
    o = softmax(dot(z)) @ z.v
    return (z.q @ z.iq + o @ z.io) * torch.sigmoid(z.q @ z.gq + o @ z.go)


@mechanism("criss_cross", sizes="NK=12", square=True, params={"height": 3, "width": 4})
def criss_cross(z: Given) -> Tensor:
    w = softmax(dot(z), (z.i // 4 == z.j // 4) | (z.i % 4 == z.j % 4))
    return w @ (w @ z.v)


@mechanism("pointer", at=floats("2, DV"))
def pointer(z: Given) -> Tensor:
    w = softmax(dot(z), causal(z))
    return column(w @ z.j[0].double()) * z.at[0] + column(logsumexp(dot(z), causal(z))) * z.at[1]


@mechanism("two_values", u=floats("B, HK, NK, DV"))
def two_values(z: Given) -> Tensor:
    w = softmax(dot(z), causal(z))
    return w @ z.v * torch.sigmoid(w @ per_query_head(z, z.u))


@mechanism("joint_heads")
def joint_heads(z: Given) -> Tensor:
    k, v = z.k[:, :: z.H // z.HK].flatten(1, 2), z.v[:, :: z.H // z.HK].flatten(1, 2)
    seen = causal(z).repeat(1, z.HK)
    return softmax(z.scale * z.q @ k[:, None].mT, seen) @ v[:, None]
