"""Without a softmax, or with one that can be summed on the way: kernels, decays, states, recurrences."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu, logsigmoid, silu, softplus

from .common import Given, at_queries, causal, column, dot, floats, heads, l1, mechanism, softmax


def visible(z: Given, w: Tensor) -> Tensor:
    return torch.where(causal(z), w, 0.0)


def difference(z: Given, sums: Tensor) -> Tensor:
    """F[q] − F[k] for sums [B, H, NK], 0 where not visible."""
    return torch.where(causal(z), column(at_queries(z, sums)) - sums[:, :, None], 0.0)


def running(
    z: Given, width: int, step: Callable[[int, Tensor], Tensor], read: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Rows of a state [B, H, D, width] after each token."""
    state = z.k.new_zeros(z.B, z.H, z.D, width)
    rows: list[Tensor] = []
    for n in range(z.NK):
        state = step(n, state)
        if n >= z.q_offset:
            rows.append(read(n, state))
    return torch.stack(rows, 2)


def asked(z: Given) -> Callable[[int, Tensor], Tensor]:
    return lambda n, state: (z.q[:, :, n - z.q_offset, None] @ state)[:, :, 0]


def outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]


def corrected(state: Tensor, key: Tensor, value: Tensor, rate: Tensor) -> Tensor:
    told = (key[..., None, :] @ state)[..., 0, :]
    return state + rate[..., None, None] * outer(key, value - told)


@mechanism("cosformer")
def cosformer(z: Given) -> Tensor:
    def turned(x: Tensor, at: Tensor) -> Tensor:
        angle = math.pi / 2 * at.double() / z.NK
        return torch.cat((x.relu() * angle.cos(), x.relu() * angle.sin()), -1)

    w = visible(z, turned(z.q, z.i) @ turned(z.k, z.j.T).mT)
    return w / w.sum(-1, keepdim=True).clamp(min=1e-6) @ z.v


@mechanism("performer", params={"features_count": 4}, omega=floats("H, features_count, D"))
def performer(z: Given) -> Tensor:
    def phi(x: Tensor) -> Tensor:
        x = x * z.scale**0.5
        return torch.exp(x @ z.omega.mT - (x**2).sum(-1, keepdim=True) / 2) / 2

    return l1(visible(z, phi(z.q) @ phi(z.k).mT)) @ z.v


@mechanism(
    "random_features", params={"features_count": 8}, omega=floats("H, features_count, D"),
    gate=floats("B, H, NK", 0.2, 0.9),
)  # fmt: skip
def random_features(z: Given) -> Tensor:
    def phi(x: Tensor) -> Tensor:
        return torch.cat(((x @ z.omega.mT).sin(), (x @ z.omega.mT).cos()), -1)

    fade = torch.exp(difference(z, z.gate.log().cumsum(-1)))
    w = visible(z, phi(z.q) @ phi(z.k).mT * fade * (1 - z.gate)[:, :, None])
    total = w.sum(-1, keepdim=True)
    return w / torch.where(total.abs() > 0.1, total, 0.1) @ z.v


@mechanism("decayed_linear", decay=floats("H", 0.3, 0.95))
def decayed_linear(z: Given) -> Tensor:
    fade = heads(z.decay) ** (z.i - z.j).clamp(min=0)
    return l1(visible(z, fade * ((elu(z.q) + 1) @ (elu(z.k) + 1).mT))) @ z.v


@mechanism("state_space_duality", square=True, step_size=floats("B, H, NK"), a=floats("H"), skip=floats("H"))
def state_space_duality(z: Given) -> Tensor:
    dt = softplus(z.step_size)
    state = z.k.new_zeros(z.B, z.H, z.D, z.DV)
    rows: list[Tensor] = []
    for n in range(z.NK):
        fade = torch.exp(-torch.exp(z.a) * dt[:, :, n])[..., None, None]
        state = fade * state + dt[:, :, n, None, None] * outer(z.k[:, :, n], z.v[:, :, n])
        rows.append((z.q[:, :, n, None] @ state)[:, :, 0])
    return torch.stack(rows, 2) + heads(z.skip) * z.v


@mechanism("rwkv4", sizes="DV=4", decay=floats("H, DV"), bonus=floats("H, DV"))
def rwkv4(z: Given) -> Tensor:
    fade = torch.exp(-torch.exp(z.decay))
    above, below = torch.zeros_like(z.k[:, :, 0]), torch.zeros_like(z.k[:, :, 0])
    rows: list[Tensor] = []
    for n in range(z.NK):
        k, v = z.k[:, :, n], z.v[:, :, n]
        own = torch.exp(z.bonus + k)
        if n >= z.q_offset:
            r = torch.sigmoid(z.q[:, :, n - z.q_offset])
            rows.append(r * (above + own * v) / (below + own))
        above, below = fade * above + torch.exp(k) * v, fade * below + torch.exp(k)
    return torch.stack(rows, 2)


@mechanism("rwkv6", decay=floats("B, H, NK, D"), bonus=floats("H, D"))
def rwkv6(z: Given) -> Tensor:
    state = z.k.new_zeros(z.B, z.H, z.D, z.DV)
    rows: list[Tensor] = []
    for n in range(z.NK):
        kv = outer(z.k[:, :, n], z.v[:, :, n])
        if n >= z.q_offset:
            q = z.q[:, :, n - z.q_offset, None]
            rows.append((q @ (state + z.bonus[..., None] * kv))[:, :, 0])
        state = torch.exp(-torch.exp(z.decay[:, :, n]))[..., None] * state + kv
    return torch.stack(rows, 2)


@mechanism(
    "rwkv7",
    decay=floats("B, H, NK, D", 0.3, 0.95),
    removal=floats("B, H, NK, D"),
    rate=floats("B, H, NK, D", 0.1),
)
def rwkv7(z: Given) -> Tensor:
    kappa = z.removal / z.removal.norm(dim=-1, keepdim=True)

    def step(n: int, state: Tensor) -> Tensor:
        transition = torch.diag_embed(z.decay[:, :, n]) - outer(
            z.rate[:, :, n] * kappa[:, :, n], kappa[:, :, n]
        )
        return transition @ state + outer(z.k[:, :, n], z.v[:, :, n])

    return running(z, z.DV, step, asked(z))


@mechanism("gated_delta", alpha=floats("B, H, NK", 0.3), beta=floats("B, H, NK", 0.1))
def gated_delta(z: Given) -> Tensor:
    key = z.k / z.k.norm(dim=-1, keepdim=True)

    def step(n: int, state: Tensor) -> Tensor:
        faded = z.alpha[:, :, n, None, None] * state
        return corrected(faded, key[:, :, n], z.v[:, :, n], z.beta[:, :, n])

    return running(z, z.DV, step, asked(z))


@mechanism(
    "delta_product", beta=floats("B, H, NK, 2", 0.1), k2=floats("B, H, NK, D"), v2=floats("B, H, NK, DV")
)
def delta_product(z: Given) -> Tensor:
    def step(n: int, state: Tensor) -> Tensor:
        once = corrected(state, z.k[:, :, n], z.v[:, :, n], z.beta[:, :, n, 0])
        return corrected(once, z.k2[:, :, n], z.v2[:, :, n], z.beta[:, :, n, 1])

    return running(z, z.DV, step, asked(z))


@mechanism("hgrn2", forget=floats("B, H, NK, D", 0.3, 0.95))
def hgrn2(z: Given) -> Tensor:
    def step(n: int, state: Tensor) -> Tensor:
        f = z.forget[:, :, n]
        return f[..., None] * state + outer(1 - f, z.v[:, :, n])

    return running(z, z.DV, step, asked(z))


@mechanism("minimal_rnn", square=True, gate=floats("B, H, NK, DV", 0.1, 0.9))
def minimal_rnn(z: Given) -> Tensor:
    state = torch.zeros_like(z.v[:, :, 0])
    rows: list[Tensor] = []
    for n in range(z.NK):
        state = z.gate[:, :, n] * state + (1 - z.gate[:, :, n]) * z.v[:, :, n]
        rows.append(torch.sigmoid(z.gate[:, :, n]) * state)
    return torch.stack(rows, 2)


@mechanism("forgetting", forget=floats("B, H, NK"))
def forgetting(z: Given) -> Tensor:
    return softmax(dot(z) + difference(z, logsigmoid(z.forget).cumsum(-1)), causal(z)) @ z.v


@mechanism("moving_average", params={"chunk": 4}, alpha=floats("H"), gamma=floats("2, H, D"))
def moving_average(z: Given) -> Tensor:
    a = torch.sigmoid(z.alpha)[:, None]
    state = torch.zeros_like(z.k[:, :, 0])
    rows: list[Tensor] = []
    for n in range(z.NK):
        state = (1 - a) * state + a * z.k[:, :, n]
        rows.append(state)
    e = torch.stack(rows, 2)
    q, k = z.gamma[0, :, None] * e[:, :, z.q_offset :], z.gamma[1, :, None] * e
    return softmax(z.scale * q @ k.mT, causal(z) & (z.i // 4 == z.j // 4)) @ z.v


@mechanism("infini", params={"segment": 4}, gate=floats("H"))
def infini(z: Given) -> Tensor:
    local = softmax(dot(z), causal(z) & (z.i // 4 == z.j // 4)) @ z.v
    w = torch.where(z.j // 4 < z.i // 4, (elu(z.q) + 1) @ (elu(z.k) + 1).mT, 0.0)
    gate = torch.sigmoid(heads(z.gate))
    return gate * (l1(w) @ z.v) + (1 - gate) * local


LAMBDA: dict[str, Any] = {"lambda": floats("B, H, NK, levels")}
"""A name that is no keyword of the language, but one of Python."""


@mechanism("log_linear", params={"levels": 5}, **LAMBDA)
def log_linear(z: Given) -> Tensor:
    def level(i: int, j: int) -> int:
        return (i ^ j).bit_length()

    levels = torch.tensor([[min(level(int(i), int(j)), 4) for j in z.j[0]] for i in z.i[:, 0]])
    table = at_queries(z, getattr(z, "lambda"), 2)
    return visible(z, table.gather(-1, levels.expand(z.B, z.H, -1, -1)) * dot(z)) @ z.v


@mechanism("lightning_heads", decay=floats("H", 0.3, 0.95), gate=floats("B, H, NQ, DV"))
def lightning_heads(z: Given) -> Tensor:
    fade = heads(z.decay) ** (z.i - z.j).clamp(min=0)
    o = visible(z, fade * (silu(z.q) @ silu(z.k).mT)) @ z.v
    return o / torch.sqrt((o**2).mean(-1, keepdim=True) + 1e-6) * torch.sigmoid(z.gate)


@mechanism("based_hybrid", params={"window": 3}, mix=floats("B, H, NQ"))
def based_hybrid(z: Given) -> Tensor:
    near, far = causal(z) & (z.i - z.j < 3), z.i - z.j >= 3
    s = dot(z)
    mix = column(z.mix)
    return mix * (softmax(s, near) @ z.v) + (1 - mix) * (l1(torch.where(far, 1 + s + s**2 / 2, 0.0)) @ z.v)


@mechanism("conv_mixing", sizes="DV=4", square=True, filter=floats("H, NK"))
def conv_mixing(z: Given) -> Tensor:
    x = z.k * z.v
    size = 2 * z.NK
    mixed = torch.fft.irfft(torch.fft.rfft(x, size, 2) * torch.fft.rfft(z.filter, size)[..., None], size, 2)
    return z.q * mixed[:, :, : z.NK]


@mechanism("ttt_linear", params={"rate": 0.5}, eta=floats("B, H, NK", 0.1), start=floats("H, D, DV"))
def ttt_linear(z: Given) -> Tensor:
    def step(n: int, state: Tensor) -> Tensor:
        weight = state + z.start
        key, value = z.k[:, :, n], z.v[:, :, n]
        loss = outer(key, (key[..., None, :] @ weight)[..., 0, :] - value)
        return state - 0.5 * z.eta[:, :, n, None, None] * loss

    return running(z, z.DV, step, lambda n, s: asked(z)(n, s + z.start))


@mechanism("longhorn", beta=floats("B, H, NK", 0.1))
def longhorn(z: Given) -> Tensor:
    rate = z.beta / (1 + z.beta * (z.k**2).sum(-1))
    return running(z, z.DV, lambda n, s: corrected(s, z.k[:, :, n], z.v[:, :, n], rate[:, :, n]), asked(z))


@mechanism("comba", beta=floats("B, H, NK", 0.1), alpha=floats("B, H, NK", 0.3), closed=floats("H"))
def comba(z: Given) -> Tensor:
    def step(n: int, state: Tensor) -> Tensor:
        faded = z.alpha[:, :, n, None, None] * state
        told = (z.k[:, :, n, None] @ state)[:, :, 0]
        return faded + z.beta[:, :, n, None, None] * outer(z.k[:, :, n], z.v[:, :, n] - told)

    def read(n: int, state: Tensor) -> Tensor:
        q = z.q[:, :, n - z.q_offset] - z.closed[:, None] * z.k[:, :, n]
        return (q[:, :, None] @ state)[:, :, 0]

    return running(z, z.DV, step, read)
