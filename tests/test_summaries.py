"""Tiles from the least and greatest values of blocks of tensors: as sound, and on whole blocks as tight as from all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attnlang.passes.classify import Tiles, classify
from attnlang.passes.summaries import Summary, summary_of
from attnlang.runtime.summaries import WHOLE, blocks_of, extremes
from tests.catalogue import call, example, seen
from tests.definitions import cases
from tests.test_classify import compare, only_attention

READING = ("longformer", "prefix_lm", "document", "region", "visual_isolated", "spatial_temporal_heads", "dropped",
           "hash_buckets")  # fmt: skip


def summarized(tensor: torch.Tensor, *block: int) -> Summary:
    """By torch, as on a device."""
    return Summary(*extremes(tensor, block), block, tuple(tensor.shape))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 12), (2, 13), (1, 3), (2, 3, 10), (4, 0)])
def test_the_least_and_greatest_of_each_block(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    make = torch.Generator().manual_seed(3)
    tensor = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=make).to(dtype)
    array = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    for block in ((1,) * len(shape), (1,) * (len(shape) - 1) + (4,), (3,) * len(shape)):
        low, high = extremes(tensor, block)
        expected = summary_of(array, block)
        assert low.tolist() == expected.low.tolist() and high.tolist() == expected.high.tolist()
        for place in np.ndindex(*array.shape):
            at = tuple(offset // length for offset, length in zip(place, block, strict=True))
            assert low[at] <= array[place] <= high[at]


def test_only_long_axes_of_large_tensors_are_in_blocks() -> None:
    assert blocks_of((2, 1 << 20), 128) == (1, 128)
    assert blocks_of((4, 1 << 14, 1 << 10), 64) == (1, 64, 64)
    assert blocks_of((2, 64), 16) == (1, 1)
    assert blocks_of((WHOLE,), 16) == (1,)


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("block", [2, 3, 4, 16])
def test_summaries_are_sound(name: str, block: int) -> None:
    for case in cases(name):
        given = case.make_inputs(0)
        inputs = call(case, given)
        some = {key: summarized(each, *(block,) * each.ndim) for key, each in inputs.tensors.items()}
        symbols = {**inputs.sizes, **inputs.scalars}
        for tile in ((4, 4), (8, 5), (1, 3)):
            compare(example(name), symbols, some, seen(case, given).numpy(), tile)


def tiles(name: str, tokens: int, tensors: dict[str, Any], side: int = 32) -> Tiles:
    """The tiles of a pattern with one head."""
    symbols: dict[str, Any] = {"B": 1, "H": 1, "HK": 1, "NQ": tokens, "NK": tokens, "q_offset": 0}
    symbols |= {each.name: each.default for each in example(name).parameters}
    return classify(only_attention(example(name)), symbols, tensors, side, side, example(name).stages)


def drawn(name: str, tokens: int) -> dict[str, np.ndarray]:
    """Tensors as they are met: packed documents, tokens of an image, a few global tokens."""
    draw = np.random.default_rng(5)
    return {
        "document": {"ids": np.sort(draw.integers(0, 12, (1, tokens)))},
        "prefix_lm": {"prefix": np.array([tokens // 3])},
        "longformer": {"is_global": np.arange(tokens)[None] < 7},
        "visual_isolated": {"is_visual": (np.arange(tokens) // 100 % 2 == 1)[None]},
    }[name]


@pytest.mark.parametrize("name", ["document", "prefix_lm", "longformer", "visual_isolated"])
@pytest.mark.parametrize("block", [32, 16, 8])
def test_whole_blocks_lose_nothing(name: str, block: int) -> None:
    tensors = drawn(name, 1000)
    whole = tiles(name, 1000, tensors)
    some = {
        key: summarized(torch.from_numpy(each), 1, *(block,) * (each.ndim - 1))
        for key, each in tensors.items()
    }
    assert tiles(name, 1000, some).map().dense().tolist() == whole.map().dense().tolist()
    assert whole.counts.empty > 0 and whole.counts.full > 0


def test_blocks_that_do_not_fit_the_tiles_are_wider() -> None:
    tensors = drawn("document", 1000)
    whole, some = tiles("document", 1000, tensors), {"ids": summary_of(tensors["ids"], (1, 48))}
    wider = tiles("document", 1000, some)
    assert whole.counts.partial < wider.counts.partial <= 2 * whole.counts.partial + 64
    assert wider.counts.full <= whole.counts.full


def test_a_fixed_element_of_a_block_is_known_where_all_are_alike() -> None:
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 64, "NK": 64, "q_offset": 0}
    attention = only_attention(example("prefix_lm"))
    alike = Summary(np.array([20]), np.array([20]), (4,), (3,))
    differing = Summary(np.array([10]), np.array([20]), (4,), (3,))
    exact = classify(attention, symbols, {"prefix": np.array([20])}, 8, 8)
    assert classify(attention, symbols, {"prefix": alike}, 8, 8).counts == exact.counts
    unknown = classify(attention, symbols, {"prefix": differing}, 8, 8)
    assert unknown.counts == classify(attention, symbols, None, 8, 8).counts != exact.counts


def test_blocks_must_cover_the_array() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        Summary(np.zeros(3), np.zeros(3), (4,), (13,))
