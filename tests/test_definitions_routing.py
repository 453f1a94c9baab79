"""The choices of the definitions of section E, worked out by hand or by another road to the same keys."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.definitions import DEFINITIONS

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(numbers: list[Any]) -> Tensor:
    """The numbers in float64, never rounded to float32 on the way."""
    return torch.tensor(numbers, dtype=torch.float64)


def qkv(N: int = 20, H: int = 2, D: int = 6, DV: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    return random(1, H, N, D), random(1, H, N, D, seed=1), random(1, H, N, DV, seed=2)


def run(name: str, *inputs: Tensor, **given: Any) -> Tensor:
    return DEFINITIONS[name].function(*inputs, **given).out


def test_ties_go_to_the_lower_index() -> None:
    q = torch.ones(1, 1, 1, 1).double()
    k = exact([0.0, 1.0, 1.0, 1.0, 0.0])[None, None, :, None]
    v = torch.arange(5).double()[None, None, :, None]
    assert run("top_k", q, k, v, keep=2).item() == 1.5
    own_and_tied = run("block_topk", q, k, v, block=1, keep=2, scale=0.0)  # the own block 4, and 1 of 1, 2, 3
    assert own_and_tied.item() == 2.5
    delta = k[:, :, :, 0]
    assert run("dynamic_mask", q, k, v, keep=2, delta=delta, scale=0.0).item() == 1.5
    gate, five = torch.zeros(1, 1, 5, 5).double(), q.expand(1, 1, 5, 1)
    out = run("learned_gate", five, k, v, block=1, keep=3, gate=gate, scale=0.0)
    assert out[0, 0, 4].item() == pytest.approx((0 + 1 + 4) / 3)


def test_page_topk_by_hand() -> None:
    """q = 11, pages {1,2}, {3,4}, …, {9,10}; the three with a last key ≤ 8 compete, and one is kept."""
    k = exact([0, 0, 1, 3, 3, 9, 0, 9, 9, 9, 9, 9])[None, None, :, None]
    q = torch.ones(1, 1, 1, 1).double()
    v = torch.eye(12).double()[None, None]
    out = run("page_topk", q, k, v, page=2, keep=1, sinks=1, near=3, scale=0.0)
    seen = out[0, 0, 0].nonzero().flatten().tolist()
    assert seen == [0, 7, 8, 9, 10, 11]
    out = run("page_topk", q, k, v, page=2, keep=2, sinks=1, near=3, scale=0.0)
    assert out[0, 0, 0].nonzero().flatten().tolist() == [0, 5, 6, 7, 8, 9, 10, 11]


def test_native_sparse_by_hand() -> None:
    """Blocks of one key: block 0, the own one, and the most important of the rest."""
    k = exact([0.0, 1.0, 3.0, 2.0, 0.0])[None, None, :, None]
    q, v = torch.ones(1, 1, 1, 1).double(), torch.eye(5).double()[None, None]
    for gate, seen in (([1, 0, 0], [0, 1, 2, 3]), ([0, 1, 0], [0, 2, 4]), ([0, 0, 1], [3, 4])):
        gates = exact(gate).reshape(1, 1, 1, 3)
        out = run("native_sparse", q, k, v, block=1, keep=3, window=2, gate=gates)
        assert out[0, 0, 0].nonzero().flatten().tolist() == seen


def test_antidiagonal_by_hand() -> None:
    """Equal scores: block I gives each block up to itself 1/(I+1); at 0.6 block 3 needs three of four."""
    q, k, v = (
        torch.zeros(1, 1, 8, 2).double(),
        torch.zeros(1, 1, 8, 2).double(),
        torch.eye(8).double()[None, None],
    )
    out = run("antidiagonal", q, k, v, stride=2, block=2, threshold=0.6)
    assert out[0, 0, 7].nonzero().flatten().tolist() == [0, 1, 2, 3, 6, 7]
    assert out[0, 0, 5].nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert out[0, 0, 2].nonzero().flatten().tolist() == [0, 1, 2]


def test_antidiagonal_by_loops() -> None:
    """Every pair of tokens on an antidiagonal of its cell counts once; the blocks are then taken one by one."""
    (q, k, v), stride, block, blocks = qkv(24, H=1), 2, 4, 6
    cells = torch.full((12, 12), -torch.inf).double()
    for i in range(12):
        for j in range(i + 1):
            pairs = [(x, y) for x in range(2) for y in range(2) if x + y == stride - 1]
            products = [q[0, 0, stride * i + x] @ k[0, 0, stride * j + y] for x, y in pairs]
            cells[i, j] = 0.7 * torch.stack(products).sum() / stride
    shares = torch.softmax(cells, -1)
    visible = torch.zeros(24, 24, dtype=torch.bool)
    for own in range(blocks):
        score = [float(shares[2 * own : 2 * own + 2, 2 * j : 2 * j + 2].sum()) for j in range(blocks)]
        kept = {0, own}
        while sum(score[j] for j in kept) < 0.6 * 2:
            kept.add(max(set(range(own)) - kept, key=lambda j: score[j]))
        for q_at in range(block * own, block * own + block):
            visible[q_at] = torch.tensor([k_at <= q_at and k_at // block in kept for k_at in range(24)])
    assert visible.sum() < 300 - 2 * 16  # something was left out
    expected = torch.softmax((0.7 * q @ k.mT).masked_fill(~visible, -torch.inf), -1) @ v
    got = run("antidiagonal", q, k, v, stride=stride, block=block, threshold=0.6, scale=0.7)
    torch.testing.assert_close(got, expected)


def test_coarse_parts() -> None:
    """The coarse part alone is attention between means."""
    q, k, v = qkv(24)
    means = [t.unflatten(2, (6, 4)).mean(3) for t in (q, k, v)]
    coarse = run("full", *means).repeat_interleave(4, 2)
    gate = torch.full((1, 2, 24), 0.5).double()
    fine = run("tile_topk", q, k, v, tile=4, keep=2, gate=0 * gate)
    got = run("tile_topk", q, k, v, tile=4, keep=2, gate=gate)
    torch.testing.assert_close(got - fine, 0.5 * coarse)
    first = exact([1.0, 0.0, 0.0]).expand(1, 2, 24, 3)
    expected = run("full", q[:, :, 12:16], means[1][:, :, :3], means[2][:, :, :3])
    got = run("native_sparse", q, k, v, block=4, keep=2, gate=first)
    torch.testing.assert_close(got[:, :, 12:16], expected)
    assert (got[:, :, :4] == 0).all()


def test_groups_choose_together() -> None:
    """Two heads of one group: pages by the mean query, blocks by the summed importance, regions over all heads."""
    q = exact([[3.0, 0.0], [0.0, 1.0]])[None, :, None]  # [1,2,1,2]: the sum prefers feature 0
    k = torch.zeros(1, 1, 4, 2).double()
    k[0, 0, 1, 1] = k[0, 0, 2, 0] = 1.0
    v = torch.eye(4).double()[None, None]
    for name, given in (
        ("page_topk", {"page": 1, "keep": 1, "sinks": 1, "near": 1}),
        ("native_sparse", {"block": 1, "keep": 3, "gate": torch.eye(3).double()[1].expand(1, 2, 1, 3)}),
    ):
        out = run(name, q, k, v, scale=1.0, **given)
        assert [out[0, h, 0].nonzero().flatten().tolist() for h in (0, 1)] == [[0, 2, 3], [0, 2, 3]]
    places = q.expand(1, 2, 4, 2)
    out = run("region_routing", places, k, v, height=2, width=2, region=1, keep=1)
    assert [out[0, h, 3].nonzero().flatten().tolist() for h in (0, 1)] == [[2], [2]]
    out = run("block_topk", q, k, v, block=1, keep=2)  # each head for itself
    assert [out[0, h, 0].nonzero().flatten().tolist() for h in (0, 1)] == [[2, 3], [1, 3]]


def test_region_routing_by_loops() -> None:
    """Regions of 2×2 on 4×6 places: means over regions, sums over heads, the same choice for all of them."""
    q, k, v = qkv(24)

    def members(region: int) -> list[int]:
        down, right = divmod(region, 3)
        return [(2 * down + y) * 6 + 2 * right + x for y in range(2) for x in range(2)]

    visible = torch.zeros(24, 24, dtype=torch.bool)
    for r in range(6):
        likeness = [
            sum(float(q[0, h, members(r)].mean(0) @ k[0, h, members(s)].mean(0)) for h in range(2))
            for s in range(6)
        ]
        for s in sorted(range(6), key=lambda s: -likeness[s])[:2]:
            for place in members(r):
                visible[place, members(s)] = True
    expected = torch.softmax((q @ k.mT * 0.7).masked_fill(~visible, -torch.inf), -1) @ v
    got = run("region_routing", q, k, v, height=4, width=6, region=2, keep=2, scale=0.7)
    torch.testing.assert_close(got, expected)


def test_expert_choice_and_clusters_by_hand() -> None:
    q, k, v = (
        torch.zeros(1, 1, 4, 2).double(),
        torch.zeros(1, 1, 4, 2).double(),
        torch.eye(4).double()[None, None],
    )
    router = exact([0.5, 0.1, 0.2, 0.4])[None, None]
    out = run("expert_choice", q, k, v, keep=2, router=router)
    expected = torch.zeros(4, 4).double()
    expected[0, 0], expected[3, 0], expected[3, 3] = 0.5, 0.2, 0.2
    torch.testing.assert_close(out[0, 0], expected)
    q[..., 0], k[..., 0] = torch.tensor([1.0, -1, 2, 3]), torch.tensor([-1.0, 1, 1, -1])
    centroids = exact([[[1.0, 0], [0, 1]]])  # 0 takes q = 0, 2 and k = 1, 2; 1 the first two of each
    out = run("routing", q, k, v, clusters=2, keep=2, centroids=centroids, scale=0.0)
    rows = [[0.5, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(out[0, 0], exact(rows))
