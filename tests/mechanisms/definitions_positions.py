"""Positions: biases of the distance, rotations, tables for keys and values, positions counted by content."""

import math
from typing import Any

import torch
from torch import Tensor

from .common import Given, at_queries, causal, dot, floats, heads, ints, mechanism, softmax


def biased(z: Given, bias: Any, seen: Tensor | None = None) -> Tensor:
    return softmax(dot(z) + bias, seen) @ z.v


@mechanism("alibi_asymmetric", behind=floats("H"), ahead=floats("H"))
def alibi_asymmetric(z: Given) -> Tensor:
    apart = z.i - z.j
    return biased(z, -torch.where(apart >= 0, heads(z.behind) * apart, -heads(z.ahead) * apart))


@mechanism("kerple_log", r1=floats("H", 0.1), r2=floats("H", 0.1))
def kerple_log(z: Given) -> Tensor:
    apart = torch.where(causal(z), z.i - z.j, 0)
    return biased(z, -heads(z.r1) * torch.log(1 + heads(z.r2) * apart), causal(z))


@mechanism("kerple_power", a=floats("H", 0.1), p=floats("H", 0.2, 1.9))
def kerple_power(z: Given) -> Tensor:
    apart = (z.i - z.j).abs().double()
    power = torch.where(apart > 0, torch.exp(heads(z.p) * apart.clamp(min=1).log()), 0.0)
    return biased(z, -heads(z.a) * power, causal(z))


@mechanism(
    "fire", params={"hidden": 4}, w1=floats("hidden"), b1=floats("hidden"), w2=floats("H, hidden"),
    c=floats(low=0.3), threshold=floats(low=1.2, high=3.7),
)  # fmt: skip
def fire(z: Given) -> Tensor:
    apart = torch.where(causal(z), z.i - z.j, 0)
    psi = torch.log(z.c * apart + 1) / torch.log(z.c * torch.maximum(z.threshold, z.i) + 1)
    inner = (psi[..., None] * z.w1 + z.b1).relu()
    return biased(z, torch.einsum("qkj,hj->hqk", inner, z.w2), causal(z))


@mechanism("cope", params={"positions_max": 4}, table=floats("H, D, positions_max"))
def cope(z: Given) -> Tensor:
    gates = torch.where(causal(z), torch.sigmoid(dot(z)), 0.0)
    p = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=z.positions_max - 1)
    low = p.floor().long()
    high = (low + 1).clamp(max=z.positions_max - 1)
    at = z.q @ z.table
    return biased(z, (1 - (p - low)) * at.gather(-1, low) + (p - low) * at.gather(-1, high), causal(z))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Halves of the features as real and imaginary parts, turned by angles [length, half]."""
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), -1)


def interleaved(x: Tensor) -> Tensor:
    """Neighbouring pairs to halves."""
    return torch.cat((x[..., 0::2], x[..., 1::2]), -1)


def rates(z: Given, base: float = 10000.0) -> Tensor:
    return base ** (-torch.arange(z.D // 2, dtype=torch.float64) / (z.D // 2))


@mechanism("rope", sizes="D=6", params={"base": 100.0})
def rope(z: Given) -> Tensor:
    rate = rates(z, 100.0)
    q, k = rotated(interleaved(z.q), z.i * rate), rotated(interleaved(z.k), z.j.T * rate)
    return softmax(z.scale * q @ k.mT, causal(z)) @ z.v


@mechanism("rope_half", sizes="D=6", params={"base": 100.0})
def rope_half(z: Given) -> Tensor:
    rate = rates(z, 100.0)
    return softmax(z.scale * rotated(z.q, z.i * rate) @ rotated(z.k, z.j.T * rate).mT, causal(z)) @ z.v


@mechanism("rope_axial", sizes="D=8, NK=12", params={"height": 3, "width": 4, "base": 100.0})
def rope_axial(z: Given) -> Tensor:
    rate = 100.0 ** (-torch.arange(2, dtype=torch.float64) / 2)

    def turned(x: Tensor, at: Tensor) -> Tensor:
        angles = torch.cat((at // z.width * rate, at % z.width * rate), -1)
        return rotated(interleaved(x), angles)

    return softmax(z.scale * turned(z.q, z.i) @ turned(z.k, z.j.T).mT) @ z.v


@mechanism("rope_three_axes", sizes="D=6", params={"first": 1, "second": 1}, at=ints(7, "B, 3, NK"))
def rope_three_axes(z: Given) -> Tensor:
    angles = z.at.mT[:, None] * rates(z)
    q, k = rotated(z.q, angles[:, :, z.q_offset :]), rotated(z.k, angles)
    return softmax(z.scale * q @ k.mT, causal(z)) @ z.v


@mechanism("xpos", params={"gamma": 0.4, "span": 16.0})
def xpos(z: Given) -> Tensor:
    half = z.D // 2
    zeta = (torch.arange(half, dtype=torch.float64) / half + z.gamma) / (1 + z.gamma)
    q = rotated(z.q, z.i * rates(z)) * (zeta ** (z.i / z.span)).repeat(1, 2)
    k = rotated(z.k, z.j.T * rates(z)) * (zeta ** (-z.j.T / z.span)).repeat(1, 2)
    return softmax(z.scale * q @ k.mT, causal(z)) @ z.v


@mechanism("sandwich", params={"dimensions": 8})
def sandwich(z: Given) -> Tensor:
    rate = 10000.0 ** (-2 * torch.arange(4, dtype=torch.float64) / 8)
    wave = torch.cos((z.i - z.j)[..., None] * rate).sum(-1) - 4
    return biased(z, 8 / (heads(torch.arange(z.H)) + 1.0).double() * wave, causal(z))


@mechanism(
    "t5_2d", sizes="NK=12", params={"height": 2, "width": 6, "buckets": 8, "far": 16},
    rows=floats("buckets, H"), columns=floats("buckets, H"),
)  # fmt: skip
def t5_2d(z: Given) -> Tensor:
    def bucket(x: int) -> int:
        size = abs(x)
        exact = 2
        far = exact + int(math.log(max(size, 1) / exact) / math.log(16 / exact) * (4 - exact))
        return (4 if x > 0 else 0) + (size if size < exact else min(3, far))

    def table(values: Tensor, apart: Tensor) -> Tensor:
        return values[torch.tensor([[bucket(int(x)) for x in row] for row in apart])].permute(2, 0, 1)

    vertical, horizontal = z.j // z.width - z.i // z.width, z.j % z.width - z.i % z.width
    return biased(z, table(z.rows, vertical) + table(z.columns, horizontal))


@mechanism("shaw", params={"reach": 3}, ak=floats("7, D"), av=floats("7, DV"))
def shaw(z: Given) -> Tensor:
    o = (z.j - z.i).clamp(-3, 3) + 3
    w = softmax(dot(z) + z.scale * torch.einsum("bhqd,qkd->bhqk", z.q, z.ak[o]))
    return w @ z.v + torch.einsum("bhqk,qke->bhqe", w, z.av[o])


@mechanism("deberta", params={"reach": 4}, KP=floats("H, 8, D"), QP=floats("H, 8, D"))
def deberta(z: Given) -> Tensor:
    there, back = (z.i - z.j + 4).clamp(0, 7), (z.j - z.i + 4).clamp(0, 7)
    c2p = torch.einsum("bhqd,hqkd->bhqk", z.q, z.KP[:, there])
    p2c = torch.einsum("bhkd,hqkd->bhqk", z.k, z.QP[:, back])
    return softmax((z.q @ z.k.mT + c2p + p2c) / (3 * z.D) ** 0.5) @ z.v


@mechanism("transformer_xl", u=floats("H, D"), v2=floats("H, D"), wr=floats("H, D, D"))
def transformer_xl(z: Given) -> Tensor:
    angle = torch.arange(z.NK)[:, None] * rates(z)
    r = torch.cat((angle.sin(), angle.cos()), -1) @ z.wr
    apart = (z.i - z.j).clamp(min=0)
    place = torch.einsum("bhqd,hqkd->bhqk", z.q + z.v2[:, None], r[:, apart])
    return softmax(z.scale * ((z.q + z.u[:, None]) @ z.k.mT + place), causal(z)) @ z.v


@mechanism("tupe", pq=floats("H, NK, D"), pk=floats("H, NK, D"), from_first=floats("H"), to_first=floats("H"))
def tupe(z: Given) -> Tensor:
    place = at_queries(z, z.pq, 1) @ z.pk.mT / (2 * z.D) ** 0.5
    place = torch.where(z.j == 0, heads(z.to_first), place)
    place = torch.where(z.i == 0, heads(z.from_first), place)
    return softmax(z.q @ z.k.mT / (2 * z.D) ** 0.5 + place) @ z.v


@mechanism("cyclic", params={"radius": 2}, slope=floats("H"))
def cyclic(z: Given) -> Tensor:
    apart = torch.minimum((z.i - z.j) % z.NK, (z.j - z.i) % z.NK)
    return biased(z, -heads(z.slope) * apart, apart <= 2)


@mechanism(
    "axial_sum", sizes="NK=12", params={"height": 3, "width": 4},
    rq=floats("H, 5, D"), rk=floats("H, 5, D"), rv=floats("H, 5, DV"),
)  # fmt: skip
def axial_sum(z: Given) -> Tensor:
    o = z.j // 4 - z.i // 4 + 2
    s = z.q @ z.k.mT + torch.einsum("bhqd,hqkd->bhqk", z.q, z.rq[:, o])
    w = softmax(s + torch.einsum("bhkd,hqkd->bhqk", z.k, z.rk[:, o]), z.i % 4 == z.j % 4)
    vertical = w @ z.v + torch.einsum("bhqk,hqke->bhqe", w, z.rv[:, o])
    return vertical + biased(z, 0.0, z.i // 4 == z.j // 4)
