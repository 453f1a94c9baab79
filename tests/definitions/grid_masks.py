"""Section A of the catalogue, its grids: masks on the coordinates of q and k, row-major."""

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
    grid_need,
    softmax_attention,
)
from .static_masks import plain


def neighbors(c_q: int, c_k: int, extent: int, window: int, stride: int, dilation: int, causal: bool) -> bool:
    """One axis of a neighborhood: coordinates c of an axis of the given extent L."""
    p_q, r_q = c_q // dilation, c_q % dilation
    p_k, r_k = c_k // dilation, c_k % dilation
    if r_q != r_k:
        return False
    length = -((r_q - extent) // dilation)  # ceil((L − r)/δ)
    if causal:
        lead = min((p_q // stride) * stride + stride - 1, length - 1)
        first = max(lead - window + 1, 0)
        return first <= p_k <= p_q
    lead = min((p_q // stride) * stride + stride // 2, length - 1)
    e = window // 2 + (window % 2) - 1
    first = max(lead - window // 2, 0) + (length - e - lead - 1 if lead + e >= length else 0)
    return first <= p_k < first + window


def neighborhood_1d(at: Place, q: int, k: int, p: Given) -> bool:
    return neighbors(q, k, p.length, p.window, p.stride, p.dilation, p.causal)


def neighborhood_2d(at: Place, q: int, k: int, p: Given) -> bool:
    (y_q, x_q), (y_k, x_k) = divmod(q, p.width), divmod(k, p.width)
    return neighbors(y_q, y_k, p.height, p.window_y, p.stride_y, p.dilation_y, p.causal_y) and neighbors(
        x_q, x_k, p.width, p.window_x, p.stride_x, p.dilation_x, p.causal_x
    )


def neighborhood_3d(at: Place, q: int, k: int, p: Given) -> bool:
    (t_q, y_q, x_q), (t_k, y_k, x_k) = place_3d(q, p), place_3d(k, p)
    return (
        neighbors(t_q, t_k, p.frames, p.window_t, p.stride_t, p.dilation_t, p.causal_t)
        and neighbors(y_q, y_k, p.height, p.window_y, p.stride_y, p.dilation_y, p.causal_y)
        and neighbors(x_q, x_k, p.width, p.window_x, p.stride_x, p.dilation_x, p.causal_x)
    )


def place_3d(n: int, p: Given) -> tuple[int, int, int]:
    """Coordinates (t, y, x) with n = (t·height + y)·width + x."""
    return n // (p.height * p.width), n // p.width % p.height, n % p.width


def inward(c_q: int, c_k: int, extent: int, r: int) -> bool:
    return c_q - r - max(r + c_q - extent + 1, 0) <= c_k <= c_q + r + max(r - c_q, 0)


def inward_window(at: Place, q: int, k: int, p: Given) -> bool:
    (_, y_q, x_q), (_, y_k, x_k) = place_3d(q, p), place_3d(k, p)
    return inward(y_q, y_k, p.height, p.radius_y) and inward(x_q, x_k, p.width, p.radius_x)


def same_swin_cell(c_q: int, c_k: int, extent: int, window: int, shift: int) -> bool:
    """One axis of a shifted window: the same cell after the shift, and the same side of the wrap."""
    moved_q, moved_k = (c_q - shift) % extent, (c_k - shift) % extent
    same_cell = moved_q // window == moved_k // window
    same_side = shift == 0 or (moved_q >= extent - shift) == (moved_k >= extent - shift)
    return same_cell and same_side


def swin_visible(at: Place, q: int, k: int, p: Given) -> bool:
    (y_q, x_q), (y_k, x_k) = divmod(q, p.width), divmod(k, p.width)
    return same_swin_cell(y_q, y_k, p.height, p.window, p.shift) and same_swin_cell(
        x_q, x_k, p.width, p.window, p.shift
    )


def swin_bias(call: Call, bias: Tensor, height: int, width: int, window: int, shift: int) -> Tensor:
    """bias[h, (y'_q − y'_k + window−1)·(2·window−1) + (x'_q − x'_k + window−1)], [H,NQ,NK]; 0 outside."""

    def index(q: int, k: int) -> int | None:
        down = (q // width - shift) % height - (k // width - shift) % height
        right = (q % width - shift) % width - (k % width - shift) % width
        if abs(down) >= window or abs(right) >= window:
            return None
        return (down + window - 1) * (2 * window - 1) + (right + window - 1)

    table = [[index(q, k) for k in range(call.sizes.NK)] for q in call.rows().tolist()]
    inside = torch.tensor([[i is not None for i in row] for row in table])
    where = torch.tensor([[0 if i is None else i for i in row] for row in table])
    return torch.where(inside, bias[:, where], 0.0)


def halo(at: Place, q: int, k: int, p: Given) -> bool:
    def near(c_q: int, c_k: int) -> bool:
        return (c_q // p.block) * p.block - p.halo <= c_k < (c_q // p.block + 1) * p.block + p.halo

    return near(q // p.width, k // p.width) and near(q % p.width, k % p.width)


def space(at: Place, q: int, k: int, p: Given) -> bool:
    return q // p.tokens == k // p.tokens


def time(at: Place, q: int, k: int, p: Given) -> bool:
    return q % p.tokens == k % p.tokens


def radial(at: Place, q: int, k: int, p: Given) -> bool:
    (i_q, a_q), (i_k, a_k) = divmod(q, p.tokens), divmod(k, p.tokens)
    apart = abs(i_q - i_k)
    power = 1
    while 2 * power <= max(apart, 1):
        power *= 2
    every = -(-power // p.tokens)  # ceil(2^e / tokens)
    return (
        (power <= p.tokens and (abs(a_q - a_k) + 1) * power <= p.tokens)
        or (apart % every == 0 and a_q == a_k)
        or (p.sink and i_k == 0)
    )


def spatial_temporal_heads(at: Place, q: int, k: int, p: Given) -> bool:
    (i_q, a_q), (i_k, a_k) = divmod(q, p.tokens), divmod(k, p.tokens)
    return abs(a_q - a_k) <= p.near_tokens if p.is_temporal[at.h] else abs(i_q - i_k) <= p.near_frames


def unidirectional_blocks(at: Place, q: int, k: int, p: Given) -> bool:
    (y_q, x_q), (y_k, x_k) = divmod(q, p.width), divmod(k, p.width)
    return (y_q // p.block - y_k // p.block) in (0, 1) and (x_q // p.block - x_k // p.block) in (0, 1)


def neighborhood_need(extent: str, axis: str) -> Need:
    """1 ≤ σ ≤ w and w·δ ≤ L on one axis ('' or '_t', '_y', '_x')."""
    return Need(
        f"1 ≤ stride{axis} ≤ window{axis} and window{axis}·dilation{axis} ≤ {extent}",
        lambda z, p: (
            1 <= getattr(p, f"stride{axis}") <= getattr(p, f"window{axis}")
            and getattr(p, f"window{axis}") * getattr(p, f"dilation{axis}") <= getattr(p, extent)
        ),
    )


def neighborhood_params(windows: dict[str, int]) -> dict[str, object]:
    """window, stride, dilation, causal, each for every axis ('' or '_t', '_y', '_x') in turn."""
    return {
        **{f"window{axis}": window for axis, window in windows.items()},
        **{f"stride{axis}": 1 for axis in windows},
        **{f"dilation{axis}": 1 for axis in windows},
        **{f"causal{axis}": False for axis in windows},
    }


windows_divide = Need(
    "window dividing height and width", lambda z, p: p.height % p.window == p.width % p.window == 0
)
frames_tokens: dict[str, object] = {"frames": REQUIRED, "tokens": REQUIRED}
height_width: dict[str, object] = {"height": REQUIRED, "width": REQUIRED}

plain(
    "neighborhood_1d",
    neighborhood_1d,
    params={"length": REQUIRED, **neighborhood_params({"": 7})},
    needs=(grid_need("length"), neighborhood_need("length", "")),
)
plain(
    "neighborhood_2d",
    neighborhood_2d,
    params={**height_width, **neighborhood_params({"_y": 7, "_x": 7})},
    needs=(grid_need("height", "width"), neighborhood_need("height", "_y"), neighborhood_need("width", "_x")),
)
plain(
    "neighborhood_3d",
    neighborhood_3d,
    params={
        "frames": REQUIRED,
        **height_width,
        **neighborhood_params({"_t": 5, "_y": 7, "_x": 7}),
    },
    needs=(
        grid_need("frames", "height", "width"),
        neighborhood_need("frames", "_t"),
        neighborhood_need("height", "_y"),
        neighborhood_need("width", "_x"),
    ),
)
plain(
    "inward_window",
    inward_window,
    params={"frames": REQUIRED, **height_width, "radius_y": 3, "radius_x": 3},
    needs=(grid_need("frames", "height", "width"),),
)
plain("halo", halo, params={**height_width, "block": 8, "halo": 3}, needs=(grid_need("height", "width"),))
plain("space", space, params=frames_tokens, needs=(grid_need("frames", "tokens"),))
plain("time", time, params=frames_tokens, needs=(grid_need("frames", "tokens"),))
plain("radial", radial, params={**frames_tokens, "sink": True}, needs=(grid_need("frames", "tokens"),))
plain(
    "spatial_temporal_heads",
    spatial_temporal_heads,
    params={**frames_tokens, "near_frames": 1, "near_tokens": 64},
    tensors={"is_temporal": TensorSpec(("h",), "bool")},
    needs=(grid_need("frames", "tokens"),),
    varies="h",
)
plain(
    "unidirectional_blocks",
    unidirectional_blocks,
    params={**height_width, "block": 8},
    needs=(grid_need("height", "width"),),
)


@define(
    "A",
    params={**height_width, "window": 8, "shift": 4},
    tensors={"bias": TensorSpec(("h", "(2*window-1)**2"))},
    needs=(
        grid_need("height", "width"),
        Need("0 ≤ shift < window", lambda z, p: 0 <= p.shift < p.window),
        windows_divide,
    ),
    visible=swin_visible,
)
def swin(call: Call, p: Given) -> Result:
    s = call.dot() + swin_bias(call, p.bias, p.height, p.width, p.window, p.shift)
    return softmax_attention(call, s, call.mask())
