"""The static masks and the buckets of the definitions against pictures and integers worked out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.definitions import DEFINITIONS, mask
from tests.definitions.scores import t5_bucket

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picture(visible: Tensor, head: int = 0) -> list[str]:
    """One string for each query: '#' where a key is seen."""
    return ["".join("#" if seen else "." for seen in row) for row in visible[0, head].tolist()]


PICTURES: list[tuple[str, int, int, dict[str, Any], list[str]]] = [
    ("causal", 3, 4, {}, ["##..", "###.", "####"]),
    ("causal", 3, 4, {"q_offset": -1}, ["....", "#...", "##.."]),
    ("sliding_window", 4, 4, {"window": 2}, ["#...", "##..", ".##.", "..##"]),
    ("local", 3, 5, {"radius": 1}, [".###.", "..###", "...##"]),
    ("dilated_window", 3, 6, {"window": 2, "dilation": 2}, [".#.#..", "..#.#.", "...#.#"]),
    ("dilated_window", 1, 8, {"window": 2, "dilation": 3}, ["....#..#"]),
    ("streaming", 4, 5, {"window": 2, "sinks": 1}, ["##...", "###..", "#.##.", "#..##"]),
    (
        "longformer",
        4,
        4,
        {"radius": 0, "is_global": torch.tensor([[0, 1, 0, 0]]).bool()},
        ["##..", "####", ".##.", ".#.#"],
    ),
    ("prefix_lm", 3, 3, {"prefix": torch.tensor([2])}, ["##.", "##.", "###"]),
    ("document", 4, 4, {"ids": torch.tensor([[0, 0, 1, 0]])}, ["#...", "##..", "..#.", "##.#"]),
    ("region", 3, 3, {"ids": torch.tensor([[0, 1, 0]])}, ["#.#", ".#.", "#.#"]),
    ("diagonal_masked", 3, 3, {}, [".##", "#.#", "##."]),
    (
        "visual_isolated",
        4,
        4,
        {"is_visual": torch.tensor([[1, 1, 0, 1]]).bool()},
        ["#...", ".#..", "###.", "..##"],
    ),
    ("temporal_latent", 5, 5, {}, ["#....", ".#...", ".##..", ".#.#.", ".#.##"]),
    ("local_block", 4, 4, {"block": 3}, ["#...", "##..", "###.", "...#"]),
    (
        "neighborhood_1d",
        6,
        6,
        {"length": 6, "window": 3},
        ["###...", "###...", ".###..", "..###.", "...###", "...###"],
    ),
    (
        "neighborhood_1d",
        6,
        6,
        {"length": 6, "window": 2},
        ["##....", "##....", ".##...", "..##..", "...##.", "....##"],
    ),
    ("neighborhood_1d", 4, 4, {"length": 4, "window": 2, "stride": 2}, ["##..", "##..", "..##", "..##"]),
    (
        "neighborhood_1d",
        5,
        5,
        {"length": 5, "window": 2, "dilation": 2},
        ["#.#..", ".#.#.", "#.#..", ".#.#.", "..#.#"],
    ),
    (
        "neighborhood_1d",
        5,
        5,
        {"length": 5, "window": 3, "causal": True},
        ["#....", "##...", "###..", ".###.", "..###"],
    ),
    (
        "neighborhood_1d",
        5,
        5,
        {"length": 5, "window": 3, "stride": 2, "causal": True},
        ["#....", "##...", ".##..", ".###.", "..###"],
    ),
    (
        "inward_window",
        5,
        5,
        {"frames": 1, "height": 5, "width": 1, "radius_y": 1},
        ["###..", "###..", ".###.", "..###", "..###"],
    ),
    (
        "halo",
        5,
        5,
        {"height": 1, "width": 5, "block": 2, "halo": 1},
        ["###..", "###..", ".####", ".####", "...##"],
    ),
    ("space", 4, 4, {"frames": 2, "tokens": 2}, ["##..", "##..", "..##", "..##"]),
    ("time", 4, 4, {"frames": 2, "tokens": 2}, ["#.#.", ".#.#", "#.#.", ".#.#"]),
    ("unidirectional_blocks", 4, 4, {"height": 1, "width": 4, "block": 1}, ["#...", "##..", ".##.", "..##"]),
    ("unidirectional_blocks", 4, 4, {"height": 2, "width": 2, "block": 1}, ["#...", "##..", "#.#.", "####"]),
    # Δ = 0, 1, 2 has 2^e = 1, 1, 2: the same frame and the next see all, two frames on only a_q = a_k
    (
        "radial",
        6,
        6,
        {"frames": 3, "tokens": 2, "sink": False},
        ["#####.", "####.#", "######", "######", "#.####", ".#####"],
    ),
    # tokens = 1: 2^e ≤ 1 for Δ ≤ 1; then every ceil(2^e/1)-th frame: Δ = 2 (2), 4 (4), but not 3 (2), 5 (4)
    ("radial", 1, 6, {"frames": 6, "tokens": 1, "sink": False}, [".#.###"]),
    ("radial", 1, 6, {"frames": 6, "tokens": 1}, ["##.###"]),
]


@pytest.mark.parametrize(
    ("given", "firsts"),
    [
        ({"length": 8, "window": 3, "stride": 2}, [0, 2, 4, 5]),  # leads 1, 3, 5, 7
        ({"length": 12, "window": 5, "stride": 4}, [0, 4, 7]),  # leads 2, 6, 10
        ({"length": 12, "window": 6, "stride": 3}, [0, 1, 4, 6]),  # leads 1, 4, 7, 10, and e = 2
        ({"length": 16, "window": 3, "stride": 2, "dilation": 2}, [0, 2, 4, 5]),  # the same in both residues
    ],
)
def test_first_keys_of_neighborhoods(given: dict[str, int], firsts: list[int]) -> None:
    """The first key of each stride group, worked out from its lead."""
    L, stride, dilation = given["length"], given["stride"], given.get("dilation", 1)
    visible = mask("neighborhood_1d", L, L, **given)[0, 0]
    for q in range(L):
        first = firsts[q // dilation // stride] * dilation + q % dilation
        assert visible[q].nonzero().flatten().tolist() == list(
            range(first, first + given["window"] * dilation, dilation)
        )


@pytest.mark.parametrize(("name", "NQ", "NK", "given", "expected"), PICTURES)
def test_masks_by_hand(name: str, NQ: int, NK: int, given: dict[str, Any], expected: list[str]) -> None:
    assert picture(mask(name, NQ, NK, **given)) == expected


def test_masks_that_differ_by_head() -> None:
    short_long = mask("short_long_heads", 3, 3, heads=2, window=1, short=1)
    assert [picture(short_long, h) for h in (0, 1)] == [["#..", ".#.", "..#"], ["#..", "##.", "###"]]
    strided = mask("strided_blocks", 5, 5, heads=2, block=1, near=1, stride=2)
    assert picture(strided, 0) == ["#....", "##...", "#.#..", "#.##.", "#.#.#"]
    assert picture(strided, 1) == ["#....", "##...", "###..", "##.#.", "##.##"]
    sharded = mask("sharded", 4, 4, heads=4, kv_heads=2, block=1, near=1, period=8)  # a step of 2
    assert [picture(sharded, h)[3] for h in range(4)] == ["#..#", "#..#", "...#", "...#"]
    groups = mask("shifted_groups", 4, 4, heads=2, group=2)  # the second head: r = 3, 0, 1, 2
    assert [picture(groups, h) for h in (0, 1)] == [
        ["#...", "##..", "..#.", "..##"],
        ["#..#", ".#..", ".##.", "...#"],
    ]
    shared = mask(
        "spatial_temporal_heads",
        4,
        4,
        heads=2,
        frames=2,
        tokens=2,
        near_frames=0,
        near_tokens=0,
        is_temporal=torch.tensor([True, False]),
    )
    assert [picture(shared, h) for h in (0, 1)] == [["#.#.", ".#.#"] * 2, ["##..", "##..", "..##", "..##"]]


def test_swin_cells_and_bias() -> None:
    """On 4 places, windows of 2 shifted by 1: y' = 3, 0, 1, 2, and only y' = 3 lies beyond the wrap."""
    visible = mask("swin", 16, 16, height=4, width=4, window=2, shift=1)
    first_column = [[bool(visible[0, 0, 4 * a, 4 * b]) for b in range(4)] for a in range(4)]
    assert ["".join(".#"[seen] for seen in row) for row in first_column] == ["#...", ".##.", ".##.", "...#"]
    q, k, v, bias = random(1, 2, 4, 6), random(1, 2, 4, 6, seed=1), random(1, 2, 4, 5, seed=2), random(2, 9)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / 6**0.5
    offsets = torch.tensor([[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    expected = torch.softmax(scores + bias[:, offsets], -1) @ v
    torch.testing.assert_close(
        DEFINITIONS["swin"].function(q, k, v, height=2, width=2, window=2, shift=0, bias=bias).out, expected
    )


def test_swin_as_it_is_published() -> None:
    """Roll the image, number its nine parts, cut windows, attend where window and part agree, roll back."""
    height, width, window, shift = 9, 6, 3, 2
    q, k, v, bias = (
        random(1, 2, 54, 6),
        random(1, 2, 54, 6, seed=1),
        random(1, 2, 54, 5, seed=2),
        random(2, 25),
    )
    order = torch.arange(54).reshape(height, width).roll((-shift, -shift), (0, 1)).flatten()
    parts = torch.zeros(height, width)
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((a, b) for a in edges for b in edges):
        parts[rows, columns] = number
    y, x = torch.arange(54) // width, torch.arange(54) % width
    windows = (y // window) * width + x // window
    visible = windows[:, None] == windows[None, :]
    visible &= parts.flatten()[:, None] == parts.flatten()[None, :]
    index = (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)
    scores = q[:, :, order] @ k[:, :, order].mT / 6**0.5 + bias[:, index.clamp(0, 24)]
    rolled = torch.softmax(scores.masked_fill(~visible, -torch.inf), -1) @ v[:, :, order]
    expected = rolled[:, :, order.argsort()]
    got = (
        DEFINITIONS["swin"]
        .function(q, k, v, height=height, width=width, window=window, shift=shift, bias=bias)
        .out
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("L", "w", "stride", "dilation"), [(20, 7, 1, 1), (23, 4, 3, 1), (29, 5, 2, 3), (24, 6, 6, 4)]
)
def test_neighborhoods_have_their_size(L: int, w: int, stride: int, dilation: int) -> None:
    """Every query sees exactly w keys of its own residue, and all queries of a stride group the same."""
    visible = mask("neighborhood_1d", L, L, length=L, window=w, stride=stride, dilation=dilation)[0, 0]
    assert (visible.sum(-1) == w).all()
    for q in range(L):
        seen = visible[q].nonzero().flatten().tolist()
        assert (
            seen == list(range(seen[0], seen[0] + w * dilation, dilation))
            and seen[0] % dilation == q % dilation
        )
        group_first = (q // dilation) // stride * stride * dilation + q % dilation
        assert (visible[q] == visible[group_first]).all()


def test_neighborhoods_of_several_axes_are_conjunctions() -> None:
    """The mask of a grid is the product of those of its axes."""

    def axis(length: int, **given: Any) -> Tensor:
        return mask("neighborhood_1d", length, length, length=length, **given)[0, 0]

    t = axis(4, window=2, stride=2)
    y = axis(6, window=3, dilation=2, causal=True)
    x = axis(5, window=3, stride=3)
    plane = {
        "height": 6,
        "width": 5,
        "window_y": 3,
        "dilation_y": 2,
        "causal_y": True,
        "window_x": 3,
        "stride_x": 3,
    }
    flat = mask("neighborhood_2d", 30, 30, **plane)[0, 0].reshape(6, 5, 6, 5)
    assert (flat == (y[:, None, :, None] & x[None, :, None, :])).all()
    deep = mask("neighborhood_3d", 120, 120, frames=4, window_t=2, stride_t=2, **plane)[0, 0]
    product = (
        t[:, None, None, :, None, None] & y[None, :, None, None, :, None] & x[None, None, :, None, None, :]
    )
    assert (deep.reshape(4, 6, 5, 4, 6, 5) == product).all()


def test_grid_masks_of_two_axes() -> None:
    """Rows and columns that are told apart: the mask of a grid with different extents is the product of two."""

    def together(name: str, down: Tensor, right: Tensor, **given: Any) -> bool:
        visible = mask(name, 24, 24, height=4, width=6, **given)[0, 0].reshape(4, 6, 4, 6)
        return bool((visible == (down[:, None, :, None] & right[None, :, None, :])).all())

    c = torch.arange(6)
    blocks = c // 2
    ahead = blocks[:, None] - blocks[None, :]
    one_back = (ahead == 0) | (ahead == 1)
    assert together("unidirectional_blocks", one_back[:4, :4], one_back, block=2)
    near = (c[None, :] >= blocks[:, None] * 2 - 1) & (c[None, :] < blocks[:, None] * 2 + 3)
    assert together("halo", near[:4, :4], near, block=2, halo=1)
    same = blocks[:, None] == blocks[None, :]
    bias = torch.zeros(1, 9)
    assert together("swin", same[:4, :4], same, window=2, shift=0, bias=bias)
    assert together("cosine", same[:4, :4], same, window=2, bias=bias)
    down = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3]])  # radius 1 on four rows
    right = torch.tensor(
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    )
    pair = [torch.zeros(len(t), len(t), dtype=torch.bool).scatter(1, t, True) for t in (down, right)]
    assert together("inward_window", *pair, frames=1, radius_y=1, radius_x=2)


def test_t5_buckets_are_exact() -> None:
    assert [t5_bucket(n, 8, 16) for n in range(17)] == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7]
    # e = 2: n/e = 27^(m/3) exactly at n = 2, 6, 18, where a floating logarithm falls short
    assert [t5_bucket(n, 5, 54) for n in (1, 2, 5, 6, 17, 18, 53, 54, 10**6)] == [1, 2, 2, 3, 3, 4, 4, 4, 4]
    assert [t5_bucket(n, 32, 128) for n in (15, 16, 17, 18, 19, 127, 128, 1000)] == [
        15,
        16,
        16,
        16,
        17,
        31,
        31,
        31,
    ]
    assert [t5_bucket(n, 2, 2) for n in (0, 1, 2, 50)] == [0, 1, 1, 1]
