"""Shorter sequences: boxes, blocks, words, landmarks, latents, projections along the sequence."""

import torch
from torch import Tensor

from .common import Given, causal, dot, floats, ints, mechanism, softmax


def joint(s: list[Tensor], seen: list[Tensor], values: list[Tensor]) -> Tensor:
    """One softmax over several lists of keys."""
    visible = [torch.broadcast_to(one, scores.shape) for one, scores in zip(seen, s, strict=True)]
    return softmax(torch.cat(s, -1), torch.cat(visible, -1)) @ torch.cat(values, 2)


@mechanism(
    "focal", sizes="NK=20", params={"height": 4, "width": 5, "fine": 1, "box": 2, "reach": 1}
)  # fmt: skip
def focal(z: Given) -> Tensor:
    place = torch.arange(20)
    box = place // 5 // 2 * 3 + place % 5 // 2
    pool = torch.nn.functional.one_hot(box, 6).double().T
    pool = pool / pool.sum(-1, keepdim=True)

    def near(a: Tensor, c: Tensor, width: int) -> Tensor:
        return ((a // width - c // width).abs() <= 1) & ((a % width - c % width).abs() <= 1)

    kc, vc = pool @ z.k, pool @ z.v
    return joint(
        [dot(z), z.scale * z.q @ kc.mT],
        [near(z.i, z.j, 5), near(box[z.i], torch.arange(6)[None], 3)],
        [z.v, vc],
    )


@mechanism("transient_global", params={"block": 3, "radius": 2}, gain=floats("H, D"), side=floats("H, NK"))
def transient_global(z: Given) -> Tensor:
    sums = z.k.reshape(z.B, z.H, 3, 3, z.D).sum(3)
    kg = sums * torch.rsqrt((sums**2).mean(-1, keepdim=True) + 1e-6) * z.gain[:, None]
    vg = z.v.reshape(z.B, z.H, 3, 3, z.DV).sum(3)
    apart = (z.i // 3 - torch.arange(3)).abs()
    everything = torch.ones_like(apart, dtype=torch.bool)
    far = z.q @ kg.mT + z.side[:, apart]
    return joint([z.q @ z.k.mT, far], [(z.i - z.j).abs() <= 2, everything], [z.v, vg])


@mechanism(
    "overlapping",
    sizes="NK=10",
    params={"span": 4, "stride": 2},
    wk=floats("H, span, D"),
    wv=floats("H, span"),
)
def overlapping(z: Given) -> Tensor:
    first = torch.arange(0, 7, 2)
    kc = torch.stack([(z.k[:, :, f : f + 4] * z.wk).sum(2) for f in first], 2)
    vc = torch.stack([(z.v[:, :, f : f + 4] * z.wv[..., None]).sum(2) for f in first], 2)
    return softmax(z.scale * z.q @ kc.mT, first + 3 <= z.i) @ vc


@mechanism("funnel", sizes="NK=8", square=True, params={"stride": 2})
def funnel(z: Given) -> Tensor:
    pooled = torch.maximum(z.q[:, :, 0::2], z.q[:, :, 1::2])
    return (softmax(z.scale * pooled @ z.k.mT) @ z.v).repeat_interleave(2, 2)


def some_words(z: Given, generator: torch.Generator) -> Tensor:
    return torch.tensor([[0, 0, 0, 2, 2, 3, 3, 3, 3], [1, 1, 2, 2, 2, 2, 2, 0, 0]])


@mechanism("words", params={"count_of": 4}, word=some_words)
def words(z: Given) -> Tensor:
    pool = (z.word[:, None] == torch.arange(4)[:, None]).double()
    size = pool.sum(-1)
    last = torch.where(pool > 0, torch.arange(z.NK), -1).amax(-1)
    mean = pool / size.clamp(min=1)[..., None]
    kc, vc = mean[:, None] @ z.k, mean[:, None] @ z.v
    far = z.scale * z.q @ kc.mT + size.clamp(min=1).log()[:, None, None]
    whole = ((size > 0)[:, None] & (last[:, None] <= z.i))[:, None]
    own = z.word[:, z.i[:, 0]][:, None, :, None] == z.word[:, None, None]
    return joint([far, dot(z)], [whole, causal(z) & own], [vc, z.v])


@mechanism("hierarchical", sizes="NK=14", params={"size": 2})
def hierarchical(z: Given) -> Tensor:
    parts = list(range(0, 14, 4))
    kc = torch.stack([z.k[:, :, p : p + 4].mean(2) for p in parts], 2)
    vc = torch.stack([z.v[:, :, p : p + 4].mean(2) for p in parts], 2)
    size = torch.tensor([4, 4, 4, 2], dtype=torch.float64)
    near = causal(z) & (z.i // 4 - z.j // 4 <= 1)
    far = torch.arange(4) < z.i // 4 - 1
    return joint([dot(z), z.scale * z.q @ kc.mT + size.log()], [near, far], [z.v, vc])


@mechanism("linformer", params={"rank": 4}, e_k=floats("H, rank, NK"), e_v=floats("H, rank, NK"))
def linformer(z: Given) -> Tensor:
    return softmax(z.scale * z.q @ (z.e_k @ z.k).mT) @ (z.e_v @ z.v)


@mechanism("nystrom", square=True, params={"segments": 3})
def nystrom(z: Given) -> Tensor:
    qm, km = (x.reshape(z.B, z.H, 3, 3, z.D).mean(3) for x in (z.q, z.k))
    a = softmax(z.scale * qm @ km.mT)
    norms = a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1)
    inverse = a.mT / norms[..., None, None]
    eye = torch.eye(3, dtype=torch.float64)
    for _ in range(2):
        az = a @ inverse
        inverse = inverse @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return softmax(z.scale * z.q @ km.mT) @ inverse @ (softmax(z.scale * qm @ z.k.mT) @ z.v)


@mechanism("induced_set", sizes="DV=4", params={"points": 3}, seed=floats("H, points, D"))
def induced_set(z: Given) -> Tensor:
    h = z.seed + softmax(z.scale * z.seed @ z.k.mT) @ z.v
    return softmax(z.scale * z.q @ h.mT) @ h


@mechanism("latent_array", sizes="DV=4", params={"latents": 3}, z=floats("B, H, latents, D"))
def latent_array(z: Given) -> Tensor:
    x = softmax(z.scale * z.z @ z.k.mT) @ z.v
    x = softmax(z.scale * x @ x.mT) @ x
    return softmax(z.scale * z.q @ x.mT) @ x


@mechanism("cross_covariance", sizes="DV=4", square=True, temperature=floats("H"))
def cross_covariance(z: Given) -> Tensor:
    q, k = z.q / z.q.norm(dim=2, keepdim=True), z.k / z.k.norm(dim=2, keepdim=True)
    return z.v @ softmax(z.temperature[:, None, None] * k.mT @ q, dim=-2)


@mechanism("landmark_pool", square=True, query=floats("H, D"), mix=floats("H, DV, DV"))
def landmark_pool(z: Given) -> Tensor:
    pool = softmax(z.scale * z.query[:, None] @ z.k.mT) @ z.v
    return z.v * torch.sigmoid(pool @ z.mix)


@mechanism("sparse_sinkhorn", square=True, params={"block": 3, "rounds": 3})
def sparse_sinkhorn(z: Given) -> Tensor:
    def blocked(x: Tensor) -> Tensor:
        return x.unflatten(2, (3, 3))

    s = z.scale * blocked(z.q).sum(3) @ blocked(z.k).sum(3).mT
    for _ in range(3):
        s = s.log_softmax(-1)
        s = s.log_softmax(-2)
    p = s.softmax(-1)
    kb, vb = (torch.einsum("bhic,bhcrd->bhird", p, blocked(x)) for x in (z.k, z.v))
    q, k, v = blocked(z.q), torch.cat((kb, blocked(z.k)), 3), torch.cat((vb, blocked(z.v)), 3)
    return (softmax(z.scale * q @ k.mT) @ v).flatten(2, 3)


def sampled(z: Given, values: Tensor, place: Tensor) -> Tensor:
    """values [B, H, N, E] at integer places [B, H, NQ, P]; nothing outside."""
    inside = (place >= 0) & (place < values.shape[2])
    index = place.clamp(0, values.shape[2] - 1).flatten(2)[..., None].expand(-1, -1, -1, values.shape[3])
    found = values.gather(2, index).unflatten(2, place.shape[2:])
    return torch.where(inside[..., None], found, 0.0)


@mechanism("deformable", params={"points": 3}, at=floats("B, H, NQ, points"), a=floats("B, H, NQ, points"))
def deformable(z: Given) -> Tensor:
    x = z.i + 1.0 * z.at
    left = x.floor().long()
    part = (x - left)[..., None]
    values = (1 - part) * sampled(z, z.v, left) + part * sampled(z, z.v, left + 1)
    return (z.a.softmax(-1)[..., None] * values).sum(3)


@mechanism(
    "deformable_image", sizes="NK=12", params={"height": 3, "width": 4, "points": 2},
    reference=floats("B, NQ, 2", 0.0), offset=floats("B, H, NQ, points, 2", -0.4, 0.4), a=floats("B, H, NQ, points"),
)  # fmt: skip
def deformable_image(z: Given) -> Tensor:
    place = z.reference[:, None, :, None] + z.offset
    grid = 2 * place.flip(-1).flatten(0, 1) - 1
    image = z.v.mT.flatten(0, 1).unflatten(-1, (3, 4))
    values = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    values = values.unflatten(0, (z.B, z.H))
    return torch.einsum("bheqp,bhqp->bhqe", values, z.a.softmax(-1))


@mechanism("dynamic_convolution", params={"taps": 3}, filter=floats("H, taps, D"))
def dynamic_convolution(z: Given) -> Tensor:
    back = z.i - torch.arange(3)
    w = softmax(z.q @ z.filter.mT, back >= 0)
    return torch.einsum("bhqj,bhqje->bhqe", w, z.v[:, :, back.clamp(min=0)])


@mechanism("external", params={"slots": 4}, mk=floats("slots, D"), mv=floats("slots, DV"))
def external(z: Given) -> Tensor:
    w = (z.q @ z.mk.T).softmax(-2)
    return w / (w.sum(-1, keepdim=True) + 1e-9) @ z.mv


@mechanism("additive_global", sizes="DV=4", square=True, wq=floats("H, D"), wk=floats("H, D"))
def additive_global(z: Given) -> Tensor:
    query = ((z.scale * z.q @ z.wq[..., None]).softmax(2) * z.q).sum(2, keepdim=True)
    p = query * z.k
    key = ((z.scale * p @ z.wk[..., None]).softmax(2) * p).sum(2, keepdim=True)
    return key * z.v + z.q


@mechanism("gathered", params={"slots": 4}, index=ints(9, "B, NQ, slots", low=-1), bias=floats("H, slots"))
def gathered(z: Given) -> Tensor:
    index = z.index[:, None].expand(-1, z.H, -1, -1)
    k, v = sampled(z, z.k, index), sampled(z, z.v, index)
    s = z.scale * torch.einsum("bhqd,bhqjd->bhqj", z.q, k) + z.bias[:, None]
    w = softmax(s, (index >= 0) & (index <= z.i))
    return torch.einsum("bhqj,bhqje->bhqe", w, v)
