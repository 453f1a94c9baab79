"""How scores become weights: formulas, competing queries or heads, shares of what is left."""

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
    l1,
    logsumexp,
    mechanism,
    softmax,
)


def visible(z: Given, w: Tensor) -> Tensor:
    return torch.where(causal(z), w, 0.0)


@mechanism("sigmoid_scheduled")
def sigmoid_scheduled(z: Given) -> Tensor:
    return visible(z, torch.sigmoid(dot(z) - torch.log(causal(z).sum(-1, keepdim=True).double()))) @ z.v


@mechanism("squared_relu")
def squared_relu(z: Given) -> Tensor:
    return visible(z, dot(z).relu() ** 2 / causal(z).sum(-1, keepdim=True)) @ z.v


@mechanism("laplace")
def laplace(z: Given) -> Tensor:
    mu, sigma = 0.5**0.5, (1 / (4 * math.pi)) ** 0.5
    return visible(z, (1 + torch.erf((dot(z) - mu) / (sigma * 2**0.5))) / 2) @ z.v


@mechanism("scalable_softmax", slope=floats("H"))
def scalable_softmax(z: Given) -> Tensor:
    return softmax(heads(z.slope) * torch.log((z.i + 1).double()) * dot(z), causal(z)) @ z.v


@mechanism("dual_softmax", params={"temperature": 0.7})
def dual_softmax(z: Given) -> Tensor:
    s = z.q @ z.k.mT / z.temperature
    return s.softmax(-1) * s.softmax(-2) @ z.v


@mechanism("slot_attention", params={"epsilon": 1e-3})
def slot_attention(z: Given) -> Tensor:
    w = dot(z).softmax(-2) + z.epsilon
    return w / w.sum(-1, keepdim=True) @ z.v


@mechanism("softmax_twice")
def softmax_twice(z: Given) -> Tensor:
    return softmax(softmax(dot(z), causal(z)), causal(z)) @ z.v


@mechanism("polynomial", params={"degree": 4})
def polynomial(z: Given) -> Tensor:
    return l1(visible(z, dot(z) ** 4)) @ z.v


@mechanism(
    "mixture_of_softmaxes", params={"parts": 3},
    project=floats("H, parts, D, D"), gate=floats("B, H, NQ, parts"),
)  # fmt: skip
def mixture_of_softmaxes(z: Given) -> Tensor:
    q = torch.tanh(torch.einsum("bhqd,hmde->bmhqe", z.q, z.project))
    parts = softmax(z.scale * q @ z.k[:, None].mT, causal(z)) @ z.v[:, None]
    return torch.einsum("bhqm,bmhqe->bhqe", z.gate.softmax(-1), parts)


@mechanism("mlstm", input=floats("B, H, NK"), forget=floats("B, H, NK"))
def mlstm(z: Given) -> Tensor:
    f = torch.nn.functional.logsigmoid(z.forget).cumsum(-1)
    gate = column(at_queries(z, f)) - f[:, :, None] + z.input[:, :, None]
    gate = torch.where(causal(z), gate, -torch.inf)
    m = gate.amax(-1, keepdim=True)
    c = dot(z) * torch.exp(gate - m)
    return c / torch.maximum(c.sum(-1, keepdim=True).abs(), torch.exp(-m)) @ z.v


@mechanism("stick_breaking")
def stick_breaking(z: Given) -> Tensor:
    b = torch.where(z.j < z.i, torch.sigmoid(dot(z)), 0.0)
    rest = torch.ones_like(b[..., 0])
    out = torch.zeros_like(z.q[..., :1] * z.v[..., :1, :])
    for k in reversed(range(z.NK)):
        out = out + column(b[..., k] * rest) * z.v[:, :, None, k]
        rest = rest * (1 - b[..., k])
    return out


@mechanism("selective_tokens", square=True)
def selective_tokens(z: Given) -> Tensor:
    s = dot(z)
    mark = torch.where((z.j < z.i) & (z.j > 0), s[:, :1].relu(), 0.0)
    return softmax(s - (mark.cumsum(-2) - mark), causal(z)) @ z.v


@mechanism("entmax_per_head", a=floats("H"))
def entmax_per_head(z: Given) -> Tensor:
    power = torch.sigmoid(heads(z.a))
    s = torch.where(causal(z), power * dot(z), -torch.inf)
    high = s.amax(-1, keepdim=True)
    low = high - 1
    with torch.no_grad():
        for _ in range(100):
            middle = (low + high) / 2
            enough = ((s - middle).relu() ** (1 / power)).sum(-1, keepdim=True) >= 1
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    t = low.detach()
    for _ in range(2):  # Newton's step at the root carries the gradient of the threshold
        inside = torch.where(s > t, s - t, 1.0)
        w = torch.where(s > t, inside ** (1 / power), 0.0)
        slope = torch.where(s > t, inside ** (1 / power - 1) / power, 0.0).sum(-1, keepdim=True).detach()
        t = t + (w.sum(-1, keepdim=True) - 1) / slope
    w = torch.where(s > t, torch.where(s > t, s - t, 1.0) ** (1 / power), 0.0)
    return w @ z.v


@mechanism("head_competition")
def head_competition(z: Given) -> Tensor:
    return l1(visible(z, dot(z).softmax(1))) @ z.v


@mechanism("rela", gain=floats("H, DV"), gate=floats("H, DV"))
def rela(z: Given) -> Tensor:
    o = visible(z, dot(z).relu()) @ z.v
    normed = o * torch.rsqrt((o**2).mean(-1, keepdim=True) + 1e-6)
    return z.gain[:, None] * normed * torch.sigmoid(z.gate[:, None] * o)


@mechanism("above_mean")
def above_mean(z: Given) -> Tensor:
    mean = visible(z, dot(z)).sum(-1, keepdim=True) / causal(z).sum(-1, keepdim=True)
    return softmax(dot(z), causal(z) & (dot(z) >= mean)) @ z.v


@mechanism("lse_gate", params={"window": 3}, offset=floats("H"))
def lse_gate(z: Given) -> Tensor:
    near = causal(z) & (z.i - z.j < z.window)
    far = causal(z) & ~near
    s = dot(z)
    some = far.any(-1)
    lse_far = logsumexp(s, far | ~column(some))
    share = torch.where(some, torch.sigmoid(logsumexp(s, near) - lse_far + z.offset[:, None]), 1.0)
    return column(share) * (softmax(s, near) @ z.v) + column(1 - share) * (softmax(s, far) @ z.v)


@mechanism("head_temperature_by_entropy")
def head_temperature_by_entropy(z: Given) -> Tensor:
    w = softmax(dot(z), causal(z))
    entropy = -(w * torch.log(w.clamp(min=1e-9))).sum(-1, keepdim=True)
    return softmax(dot(z) * (1 + entropy), causal(z)) @ z.v
