"""Section B of the catalogue: scores and position biases; softmax, no mask unless the entry says so."""

import math

import torch
from torch import Tensor

from .common import (
    REQUIRED,
    Call,
    Given,
    Need,
    Place,
    Result,
    TensorSpec,
    define,
    everything,
    grid_need,
    not_later,
    queries_inside,
    softmax,
    softmax_attention,
    unit_rows,
    weighted,
)
from .grid_masks import same_swin_cell, swin_bias, windows_divide

height_width: dict[str, object] = {"height": REQUIRED, "width": REQUIRED}


def distance(call: Call) -> Tensor:
    """q − k, [NQ,NK]."""
    return call.rows()[:, None] - call.columns()[None, :]


def column(t: Tensor) -> Tensor:
    """[H] → [H,1,1]."""
    return t[:, None, None]


@define("B", tensors={"slopes": TensorSpec(("h",))}, visible=not_later)
def alibi(call: Call, p: Given) -> Result:
    return softmax_attention(call, call.dot() - column(p.slopes) * distance(call), call.mask())


@define("B", params={"reach": 512}, tensors={"rel": TensorSpec(("h", "reach", "d"))}, visible=not_later)
def music(call: Call, p: Given) -> Result:
    index = (-distance(call)).clamp(min=1 - p.reach) + p.reach - 1
    index = index.clamp(max=p.reach - 1)  # only at keys that the mask leaves out
    relative = torch.einsum("bhqd,hqkd->bhqk", call.q, p.rel[:, index])
    return softmax_attention(call, call.scale * (call.products() + relative), call.mask())


def t5_bucket(n: int, buckets: int, max_distance: int) -> int:
    """β(n), n ≥ 0, in integers: the largest m with (max_distance/e)^m ≤ (n/e)^(buckets−e), added to e."""
    e = buckets // 2
    if n < e:
        return n
    r, m = buckets - e, 0
    while e + m < buckets - 1 and max_distance ** (m + 1) * e**r <= n**r * e ** (m + 1):
        m += 1
    return e + m


@define(
    "B",
    params={"buckets": 32, "max_distance": 128},
    tensors={"table": TensorSpec(("h", "buckets"))},
    needs=(
        Need(
            "buckets ≥ 2 and max_distance > buckets//2",
            lambda z, p: p.buckets >= 2 and p.max_distance > p.buckets // 2,
        ),
    ),
    visible=not_later,
)
def t5(call: Call, p: Given) -> Result:
    bucket = [
        [t5_bucket(max(n, 0), p.buckets, p.max_distance) for n in row] for row in distance(call).tolist()
    ]
    return softmax_attention(call, call.products() + p.table[:, torch.tensor(bucket)], call.mask())


@define(
    "B",
    tensors={"x": TensorSpec(("b", "n", "3")), "alpha": TensorSpec(("h",))},
    needs=(queries_inside,),
    visible=everything,
)
def distance_bias(call: Call, p: Given) -> Result:
    apart = call.at_rows(p.x, 1)[:, None, :, None] - p.x[:, None, None, :]
    return softmax_attention(call, call.dot() - column(p.alpha) * (apart**2).sum(-1), call.mask())


@define(
    "B",
    params={"rank": 8},
    tensors={"left": TensorSpec(("b", "h", "q", "rank")), "right": TensorSpec(("b", "h", "k", "rank"))},
    visible=everything,
)
def low_rank_bias(call: Call, p: Given) -> Result:
    s = call.dot() + torch.einsum("bhqr,bhkr->bhqk", p.left, p.right)
    return softmax_attention(call, s, call.mask())


@define("B", tensors={"bias": TensorSpec(("b", "h", "q", "k"))}, visible=everything)
def pair_bias(call: Call, p: Given) -> Result:
    return softmax_attention(call, call.dot() + p.bias, call.mask())


@define("B", params={"cap": 50.0}, visible=not_later)
def softcap(call: Call, p: Given) -> Result:
    return softmax_attention(call, p.cap * torch.tanh(call.dot() / p.cap), call.mask())


@define("B", tensors={"tau": TensorSpec(("b", "h", "q")), "alpha": TensorSpec(("h",))}, visible=not_later)
def selective(call: Call, p: Given) -> Result:
    seen = torch.log((call.rows() + 1).clamp(min=1).double())  # rows with q < 0 are empty
    temperature = p.tau + torch.sigmoid(p.alpha)[:, None] * seen
    return softmax_attention(call, temperature[..., None] * call.dot(), call.mask())


def cosine_visible(at: Place, q: int, k: int, p: Given) -> bool:
    (y_q, x_q), (y_k, x_k) = divmod(q, p.width), divmod(k, p.width)
    return same_swin_cell(y_q, y_k, p.height, p.window, 0) and same_swin_cell(x_q, x_k, p.width, p.window, 0)


@define(
    "B",
    params={**height_width, "window": 8},
    tensors={"logit_scale": TensorSpec(("h",)), "bias": TensorSpec(("h", "(2*window-1)**2"))},
    needs=(grid_need("height", "width"), windows_divide),
    visible=cosine_visible,
)
def cosine(call: Call, p: Given) -> Result:
    cosines = torch.einsum("bhqd,bhkd->bhqk", unit_rows(call.q), unit_rows(call.keys()))
    sharpness = torch.exp(p.logit_scale.clamp(max=math.log(100)))
    s = cosines * column(sharpness) + swin_bias(call, p.bias, p.height, p.width, p.window, 0)
    return softmax_attention(call, s, call.mask())


def offsets_2d(call: Call, width: int) -> tuple[Tensor, Tensor]:
    """Δx = x_k − x_q and Δy = y_k − y_q, [NQ,NK]."""
    rows, columns = call.rows()[:, None], call.columns()[None, :]
    return columns % width - rows % width, columns // width - rows // width


@define(
    "B",
    params={**height_width, "components": 2},
    tensors={"alpha": TensorSpec(("h", "components")), "sigma": TensorSpec(("h", "components"))},
    needs=(grid_need("height", "width"),),
    visible=everything,
)
def gaussian_mixture(call: Call, p: Given) -> Result:
    across, down = offsets_2d(call, p.width)
    squared = (across**2 + down**2).double()
    bells = [
        column(p.alpha[:, j]) * torch.exp(-squared / (2 * (column(p.sigma[:, j]) ** 2 + 1e-5)))
        for j in range(p.components)
    ]
    return softmax_attention(call, call.dot() * torch.stack(bells).sum(0), call.mask())


@define(
    "B",
    params=height_width,
    tensors={"direction": TensorSpec(("h", "3")), "gate": TensorSpec(("h",))},
    needs=(grid_need("height", "width"),),
    lse=False,
    visible=everything,
)
def gated_positional(call: Call, p: Given) -> Result:
    across, down = offsets_2d(call, p.width)
    place = (
        column(p.direction[:, 0]) * across
        + column(p.direction[:, 1]) * down
        + column(p.direction[:, 2]) * (across**2 + down**2)
    )
    content, _ = softmax(call.dot(), call.mask())
    position, _ = softmax(place[None], call.mask())
    gate = column(torch.sigmoid(p.gate))
    weights = (1 - gate) * content + gate * position
    return Result(weighted(call, weights), None, weights)


@define(
    "B",
    params={"reach": 512},
    tensors={"bias": TensorSpec(("h", "2*reach-1")), "factor": TensorSpec(("h", "2*reach-1"))},
    visible=everything,
)
def universal_rpe(call: Call, p: Given) -> Result:
    o = (-distance(call)).clamp(1 - p.reach, p.reach - 1) + p.reach - 1
    normalized, lse = softmax(call.dot() + p.bias[:, o], call.mask())
    weights = normalized * p.factor[:, o]
    return Result(weighted(call, weights), lse, weights)


def variate_visible(at: Place, q: int, k: int, p: Given) -> bool:
    return k // p.channels <= q // p.channels


@define(
    "B",
    params={"channels": REQUIRED, "near": 10},
    tensors={
        "q_content": TensorSpec(("h", "d")),
        "q_time": TensorSpec(("h", "d")),
        "q_channel": TensorSpec(("h", "d")),
        "r_time": TensorSpec(("g", "128", "d")),
        "r_channel": TensorSpec(("g", "channels", "d")),
    },
    visible=variate_visible,
)
def variate(call: Call, p: Given) -> Result:
    z = call.sizes
    groups = [h // (z.H // z.HK) for h in range(z.H)]
    rows, columns = call.rows()[:, None], call.columns()[None, :]
    steps = rows // p.channels - columns // p.channels  # t_q − t_k
    apart = (rows % p.channels - columns % p.channels).abs()  # |c_q − c_k|
    time_keys = p.r_time[groups][:, steps.clamp(0, 127)]  # [H,NQ,NK,D]
    channel_keys = p.r_channel[groups][:, apart]
    content = torch.einsum("bhqd,bhkd->bhqk", call.q + p.q_content[:, None], call.keys())
    time = torch.einsum("bhqd,hqkd->bhqk", call.q + p.q_time[:, None], time_keys)
    channel = torch.einsum("bhqd,hqkd->bhqk", call.q + p.q_channel[:, None], channel_keys)
    s = call.scale * (content * (steps <= p.near) + time + channel)
    return softmax_attention(call, s, call.mask())


@define("B", tensors={"w": TensorSpec(("h", "d"))}, visible=everything)
def additive(call: Call, p: Given) -> Result:
    sums = call.q[:, :, :, None] + call.keys()[:, :, None]  # [B,H,NQ,NK,D]
    s = torch.einsum("hd,bhqkd->bhqk", p.w, torch.tanh(sums))
    return softmax_attention(call, s, call.mask())
