"""mask_mods as people publish them, and rarer ways of writing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import and_masks, or_masks

Mod = Callable[..., Any]
B, H, N = 2, 4, 24


def causal_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


SLIDING_WINDOW = 7


def sliding_window_causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    causal = q_idx >= kv_idx
    window_mask = q_idx - kv_idx <= SLIDING_WINDOW
    return causal & window_mask


def generate_sliding_window(window_size: int) -> Mod:
    def sliding_window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx - kv_idx <= window_size

    sliding_window_mask = and_masks(sliding_window, causal_mask)
    sliding_window_mask.__name__ = f"sliding_window_{window_size}"
    return sliding_window_mask


def generate_prefix_lm_mask(prefix_length: int) -> Mod:
    def prefix_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx < prefix_length

    prefix_lm_causal_mask = or_masks(prefix_mask, causal_mask)
    prefix_lm_causal_mask.__name__ = f"prefix_lm_causal_mask_{prefix_length}"
    return prefix_lm_causal_mask


def offsets_to_doc_ids(offsets: Tensor) -> Tensor:
    counts = offsets[1:] - offsets[:-1]
    return torch.repeat_interleave(torch.arange(len(counts), dtype=torch.int32), counts)


def generate_doc_mask_mod(mask_mod: Mod, offsets: Tensor) -> Mod:
    document_id = offsets_to_doc_ids(offsets)

    def doc_mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        same_doc = document_id[q_idx] == document_id[kv_idx]
        q_logical = q_idx - offsets[document_id[q_idx]]
        kv_logical = kv_idx - offsets[document_id[kv_idx]]
        inner_mask = mask_mod(b, h, q_logical, kv_logical)
        return same_doc & inner_mask

    return doc_mask_mod


def generate_natten(canvas_w: int, canvas_h: int, kernel_w: int, kernel_h: int) -> Mod:
    def get_x_y(idx: Any) -> Any:
        return idx // canvas_w, idx % canvas_w

    def natten_mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_x, q_y = get_x_y(q_idx)
        kv_x, kv_y = get_x_y(kv_idx)
        kernel_x = q_x.clamp(kernel_w // 2, (canvas_w - 1) - kernel_w // 2)
        kernel_y = q_y.clamp(kernel_h // 2, (canvas_h - 1) - kernel_h // 2)
        hori_mask = (kernel_x - kv_x).abs() <= kernel_w // 2
        vert_mask = (kernel_y - kv_y).abs() <= kernel_h // 2
        return hori_mask & vert_mask

    natten_mask_mod.__name__ = f"natten_c{canvas_w}x{canvas_h}_k{kernel_w}x{kernel_h}"
    return natten_mask_mod


def generate_tiled_natten(w: int, h: int, k_w: int, k_h: int, t_w: int, t_h: int) -> Mod:
    def get_idx_tiled(idx: Any) -> Any:
        t_id = idx // (t_h * t_w)
        tile_x, tile_y = t_id // (w // t_w), t_id % (w // t_w)
        t_offset = idx % (t_h * t_w)
        i_x, i_y = t_offset // t_w, t_offset % t_w
        return tile_x * t_w + i_x, tile_y * t_h + i_y

    def tiled_natten_mask_mod(b: Any, head: Any, q: Any, kv: Any) -> Any:
        q_x, q_y = get_idx_tiled(q)
        kv_x, kv_y = get_idx_tiled(kv)
        kernel_x = q_x.clamp(k_w // 2, (w - 1) - k_w // 2)
        kernel_y = q_y.clamp(k_h // 2, (h - 1) - k_h // 2)
        return ((kernel_x - kv_x).abs() <= k_w // 2) & ((kernel_y - kv_y).abs() <= k_h // 2)

    return tiled_natten_mask_mod


def morton_encode(x: int, y: int) -> int:
    return sum(((x >> i) & 1) << (2 * i) | ((y >> i) & 1) << (2 * i + 1) for i in range(4))


def generate_morton_natten(kernel: int) -> Mod:
    places = [(x, y) for x in range(4) for y in range(6)]
    order = sorted(range(24), key=lambda place: morton_encode(*places[place]))
    decode_x = torch.tensor([places[place][0] for place in order])
    decode_y = torch.tensor([places[place][1] for place in order])

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_x, q_y = decode_x[q_idx], decode_y[q_idx]
        kv_x, kv_y = decode_x[kv_idx], decode_y[kv_idx]
        return ((q_x - kv_x).abs() <= kernel // 2) & ((q_y - kv_y).abs() <= kernel // 2)

    return mask


def generate_dilated_sliding_window(window: int, dilation: int) -> Mod:
    def dilated(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        diff = torch.abs(q_idx - kv_idx)
        in_window = diff <= window
        is_dilated = (diff % dilation) == 0
        return in_window & is_dilated

    return dilated


def per_head_windows(windows: Tensor) -> Mod:
    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (q - k < windows[h])

    return mask


def padding(lengths: Tensor) -> Mod:
    def padded(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.where(kv_idx < lengths[b], q_idx < lengths[b], False)

    return padded


def generate_vlm_mask(is_image: Tensor, image_id: Tensor) -> Mod:
    """Bidirectional inside an image, causal elsewhere."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        together = is_image[b, q] & is_image[b, kv] & (image_id[b, q] == image_id[b, kv])
        return (q >= kv) | together

    return mask


def sinks_and_window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ((kv_idx < 2) | (q_idx - kv_idx < 6)) & (q_idx >= kv_idx)


def chunked(chunk: int) -> Mod:
    """Attention inside chunks, as in Llama 4."""

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q // chunk == k // chunk) & (k <= q)

    return mask


def block_diffusion(block_size: int, n: int) -> Mod:
    """A noisy half and a clean half; block diagonal, offset block causal, and block causal."""

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        x0_flag_q = q_idx >= n
        x0_flag_kv = kv_idx >= n
        block_q = torch.where(x0_flag_q == 1, (q_idx - n) // block_size, q_idx // block_size)
        block_kv = torch.where(x0_flag_kv == 1, (kv_idx - n) // block_size, kv_idx // block_size)
        block_diagonal = (block_q == block_kv) & (x0_flag_q == x0_flag_kv)
        offset_block_causal = (block_q > block_kv) & (x0_flag_kv == 1) & (x0_flag_q == 0)
        block_causal = (block_q >= block_kv) & (x0_flag_kv == 1) & (x0_flag_q == 1)
        return block_diagonal | offset_block_causal | block_causal

    return mask


def not_self(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return ~(q_idx == kv_idx) | (q_idx == 0)


def strided(stride: int, c: int) -> Mod:
    """The fixed pattern of sparse transformers."""

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        same_block = torch.div(q, stride, rounding_mode="floor") == torch.div(
            k, stride, rounding_mode="floor"
        )
        summary = torch.remainder(k, stride) >= stride - c
        return torch.logical_and(k <= q, torch.logical_or(same_block, summary))

    return mask


def global_tokens(flags: Tensor) -> Mod:
    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return flags[q] | flags[k] | ((q - k).abs() <= 2)

    return mask


def decode_offset(offset: Tensor, mod: Mod) -> Mod:
    """The shift that people write for decoding; the offset is a tensor without axes."""

    def shifted(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return mod(b, h, q + offset, kv)

    return shifted


def dense_lookup(bias: Tensor) -> Mod:
    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return bias[b, 0, q, k].bool()

    return mask


def frames(tokens: int, reach: int) -> Mod:
    """Video: near frames, the same place in all."""

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        q_frame, k_frame = q // tokens, k // tokens
        near = (q_frame - k_frame).abs() <= reach
        place = (q % tokens) == (k % tokens)
        return torch.where(h % 2 == 0, near, place)

    return mask


def minimum_maximum(b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.minimum(q, k) * 2 >= torch.maximum(q, k)


def power_of_two(b: Any, h: Any, q: Any, k: Any) -> Any:
    """LogSparse: itself, its neighbours, and 2^i back."""
    seen = q == k
    for i in range(5):
        seen = seen | (q - k == 2**i)
    return seen


def float_ratio(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (k.float() / 2.0).floor().to(torch.int32) <= q.to(torch.int64) // 2


@dataclass
class Config:
    window: int = 5
    local_layers: tuple[int, ...] = (0, 2)


def of_a_config(config: Config, layer: int) -> Mod:
    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        causal = q >= k
        if layer in config.local_layers:
            return causal & (q - k < config.window)
        return causal

    return mask


class Layer(nn.Module):
    """A module whose buffer the mask reads."""

    ids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ids", torch.arange(N) // 7)
        self.window = 4

    def mask(self, b: Any, h: Any, q: Any, k: Any) -> Any:
        return (self.ids[q] == self.ids[k]) & (q - k < self.window)


@lru_cache
def cached(window: int) -> Mod:
    return partial(_windowed, window)


def _windowed(window: int, b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q - k < window) & (k - q < window)


def bit_mask(flags: Tensor) -> Mod:
    """Bits of a number for each head."""

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        return ((flags[h] >> 1) & 1 == 1) | (q >= k)

    return mask


IDS = torch.arange(N) // 7
FLAGS = torch.tensor([1, 2, 3, 4])
"""Ways of writing that are rarer: bits, truncating division, look-ups, whole numbers as truth values."""
RARER: dict[str, Mod] = {
    "bits": bit_mask(FLAGS), "shifts": lambda b, h, q, k: (q >> 2) == (k << 1),
    "and with a number": lambda b, h, q, k: ((q - k) & 3 == 0) | (q & 5 == 1),
    "complement": lambda b, h, q, k: ~(q - k) < -2, "shift by an index": lambda b, h, q, k: q - k < (1 << h),
    "fmod": lambda b, h, q, k: torch.fmod(k - q, 5) == torch.fmod(q, 3),
    "trunc": lambda b, h, q, k: torch.div(k - q, 3, rounding_mode="trunc") >= -2,
    "isin": lambda b, h, q, k: torch.isin(k, torch.tensor([0, 3, 9])) | (q == k),
    "take": lambda b, h, q, k: torch.take(IDS, q) == IDS.gather(0, k),
    "ints": lambda b, h, q, k: (q >= k).int() * (q - k < 5),
    "sums of truths": lambda b, h, q, k: ((q >= k).int() + (q - k < 4).long()) == 2,
    "from the end": lambda b, h, q, k: IDS[q - 1] == IDS[k],
    "difference from the end": lambda b, h, q, k: (torch.arange(2 * N) > 9)[q - k],
    "chosen": lambda b, h, q, k: torch.where(h == 0, q >= k, q - k < 4) & torch.where(h < 2, True, k >= 0),
    "exclusive": lambda b, h, q, k: torch.logical_xor(q >= k, k == 0) | ((q > 3) ^ (k > 3)),
    "clamped by indices": lambda b, h, q, k: torch.clamp(k, min=q - 2, max=q) == k,
    "views": lambda b, h, q, k: IDS.view(-1).unsqueeze(0).expand(B, N)[b][q] == IDS.to(k.device)[k],
    "a number": lambda b, h, q, k: q - k < torch.tensor(4),
    "logarithm": lambda b, h, q, k: torch.log2((q - k).clamp(min=1).float()) % 1 == 0,
    "reduced": and_masks(*[generate_sliding_window(size) for size in (9, 5)], lambda b, h, q, k: h >= 0),
}  # fmt: skip
OFFSETS = torch.tensor([0, 5, 6, 17, 24])
IMAGE = torch.arange(N) % 9 > 4
MASKS: dict[str, Mod] = {
    "causal": causal_mask, "sliding window": sliding_window_causal, "generated window": generate_sliding_window(5),
    "prefix": generate_prefix_lm_mask(6), "documents": generate_doc_mask_mod(causal_mask, OFFSETS),
    "documents, window": generate_doc_mask_mod(generate_sliding_window(3), OFFSETS),
    "natten": generate_natten(6, 4, 3, 3), "tiled natten": generate_tiled_natten(6, 4, 3, 3, 2, 2),
    "morton": generate_morton_natten(3), "dilated": generate_dilated_sliding_window(9, 3),
    "heads": per_head_windows(torch.tensor([1, 3, 9, 24])), "padding": padding(torch.tensor([24, 13])),
    "images": generate_vlm_mask(IMAGE.expand(B, N), (torch.arange(N) // 9).expand(B, N)),
    "sinks": sinks_and_window, "chunks": chunked(7), "block diffusion": block_diffusion(4, 12), "not self": not_self,
    "strided": strided(6, 2), "global": global_tokens(torch.arange(N) % 11 == 0),
    "decode": decode_offset(torch.tensor(3), causal_mask),
    "lookup": dense_lookup((torch.arange(B * N * N) % 3 == 0).float().view(B, 1, N, N)),
    "frames": frames(6, 1), "extremes": minimum_maximum, "powers": power_of_two, "floats": float_ratio,
    "config": of_a_config(Config(), 2), "config, other": of_a_config(Config(), 1), "module": Layer().mask,
    "partial": cached(4),
}  # fmt: skip
