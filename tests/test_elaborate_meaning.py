"""What elaborated constructs compute, held against plain Python loops: groups of every shape, choices, scans."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnlang.ir.interpret import Inputs, evaluate, table, visible
from attnlang.ir.pattern import Pattern
from tests.test_elaborate import body, whole

LENGTH, HEIGHT, WIDTH = 23, 3, 7


def given(
    pattern: Pattern,
    queries: int = LENGTH,
    keys: int = LENGTH,
    **tensors: Tensor,
) -> Inputs:
    """A call with one batch, two heads and random inputs, its parameters at their defaults."""
    heads, features = 2, 4
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(1, heads, queries, features), normal(1, 1, keys, features), normal(1, 1, keys, features)
    sizes = {"B": 1, "H": heads, "HK": 1, "NQ": queries, "NK": keys, "D": features, "DV": features}
    scalars: dict[str, int | float | bool] = {"q_offset": keys - queries, "scale": features**-0.5}
    for parameter in pattern.parameters:
        assert parameter.default is not None
        scalars[parameter.name] = parameter.default
    return Inputs(q, k, v, sizes, scalars, tensors)


Groups = Callable[[int], list[list[int]]]


def uniform(by: int, every: int | None = None, start: int = 0) -> Groups:
    """Runs of `by` positions, one every `every`, until all positions are in one."""

    def groups(length: int) -> list[list[int]]:
        found: list[list[int]] = []
        first = start
        while first < length and (not found or found[-1][-1] < length - 1):
            found.append(list(range(first, min(first + by, length))))
            first += every or by
        return found

    return groups


def boxes(height: int, width: int, y: int, x: int) -> Groups:
    """Boxes of a grid, row by row."""

    def groups(length: int) -> list[list[int]]:
        corners = [(top, left) for top in range(0, height, y) for left in range(0, width, x)]
        return [
            [
                row * width + column
                for row in range(top, min(top + y, height))
                for column in range(left, min(left + x, width))
            ]
            for top, left in corners
        ]

    return groups


IDS = [0, 0, 2, 1, 1, 2, 2, 0, 4, 1, 4, 4, 0, 2, 1, 0, 0, 4, 2, 1, 1]
GRID = f"grid q, k as (y: {HEIGHT}, x: {WIDTH})"

SHAPES: list[tuple[str, str, Groups, int]] = [
    ("uniform", "blocks c of k by 4", uniform(4), LENGTH),
    ("exact", "blocks c of k by 4", uniform(4), 24),
    ("one", "blocks c of k by 64", uniform(64), LENGTH),
    ("single", "blocks c of k by 1", uniform(1), LENGTH),
    ("from", "blocks c of k by 4 from 3", uniform(4, start=3), LENGTH),
    ("overlapping", "blocks c of k by 6 every 4", uniform(6, 4), LENGTH),
    ("overlapping twice", "blocks c of k by 7 every 2", uniform(7, 2), LENGTH),
    ("overlapping from", "blocks c of k by 5 every 3 from 2", uniform(5, 3, 2), LENGTH),
    ("boxes", f"{GRID}\nblocks c of k by (y: 2, x: 3)", boxes(HEIGHT, WIDTH, 2, 3), 21),
    ("columns", f"{GRID}\nblocks c of k by (x: 2)", boxes(HEIGHT, WIDTH, HEIGHT, 2), 21),
    ("rows", f"{GRID}\nblocks c of k by (y: 1)", boxes(HEIGHT, WIDTH, 1, WIDTH), 21),
    (
        "ids",
        "tensor ids[n]: int\nblocks c of k by ids[n] in 5",
        lambda _: [[n for n, label in enumerate(IDS) if label == group] for group in range(5)],
        21,
    ),
]


@pytest.mark.parametrize(("lines", "groups", "length"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_groups_have_their_members(lines: str, groups: Groups, length: int) -> None:
    pattern = body(
        *lines.split("\n"),
        "let total[c] = sum(k * k for k in c)",
        "let long[c] = count(k for k in c)",
        "let size[c] = c.size",
        "let first[c] = c.first",
        "let last[c] = c.last",
        "let centre[c] = mean(K[k] for k in c)",
        "score Q[q] @ centre[0] + total[0] + long[0] + size[0] + first[0] + last[0]",
    )
    tensors = {"ids": torch.tensor(IDS)} if "ids" in lines else dict[str, Tensor]()
    call = given(pattern, length, length, **tensors)
    members = groups(length)
    filled = [group for group, inside in enumerate(members) if inside]

    def values(name: str) -> list[int]:
        return table(pattern, name, call).tolist()

    assert len(values("total")) == len(members)
    assert values("total") == [sum(n * n for n in inside) for inside in members]
    assert values("long") == values("size") == [len(inside) for inside in members]
    assert [values("first")[group] for group in filled] == [min(members[group]) for group in filled]
    assert [values("last")[group] for group in filled] == [max(members[group]) for group in filled]
    assert call.k is not None
    wanted = [call.k[0, 0, inside].mean(0) if inside else torch.zeros(4) for inside in members]
    torch.testing.assert_close(table(pattern, "centre", call)[0, 0], torch.stack(wanted).to(torch.float64))


@pytest.mark.parametrize(("lines", "groups", "length"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_a_choice_of_groups_is_seen_at_their_members(lines: str, groups: Groups, length: int) -> None:
    pattern = body(
        *lines.split("\n"),
        "tensor liked[64]",
        "select near[q] = top(2) c by liked[c] + 0.0 * q",
        "sparsity near(q, k)",
    )
    tensors = {"ids": torch.tensor(IDS)} if "ids" in lines else dict[str, Tensor]()
    liked = torch.tensor([(37 * n) % 64 for n in range(64)], dtype=torch.float64)
    seen = visible(pattern, given(pattern, length, length, liked=liked, **tensors))
    members = groups(length)
    best = sorted(range(len(members)), key=lambda group: -float(liked[group]))[:2]
    wanted = [any(key in members[group] for group in best) for key in range(length)]
    assert seen.expand(1, 2, length, length)[0, 0].tolist() == [wanted] * length


def test_blocks_of_queries_count_rows() -> None:
    pattern = body(
        "blocks i of q by 4",
        "tensor level[i]",
        "let first[i] = i.first",
        "let mean_query[i] = mean(Q[q] for q in i)",
        "score level[block(q)] + first[0] + mean_query[0] @ K[k]",
    )
    call = given(pattern, 10, LENGTH, level=torch.tensor([1.0, 2.0, 3.0]))
    assert call.q is not None
    assert table(pattern, "first", call).tolist() == [13, 17, 21]
    wanted = torch.stack([call.q[0, :, rows].mean(1) for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])], 1)
    torch.testing.assert_close(table(pattern, "mean_query", call)[0], wanted)


CHOICES = [
    ("select near[q] = top(3) k by x[k]", 3, None),
    ("select near[q] = top(3) k by x[k] where k <= q", 3, None),
    ("select near[q] = top(3) k by x[k] where k <= q never k == 0", 3, None),
    ("select near[q] = top(3) k by x[k] where k < q always k == q", 3, None),
    ("select near[q] = mass(0.6) k by x[k]", None, 0.6),
    ("select near[q] = mass(0.6, total=4) k by x[k] where k <= q", None, 0.6),
    ("select near[q] = above(0.5) k by x[k] where k <= q", None, None),
]


@pytest.mark.parametrize(("line", "keep", "mass"), CHOICES, ids=range(len(CHOICES)))
def test_choices(line: str, keep: int | None, mass: float | None) -> None:
    x = [0.9, 0.1, 0.8, 0.8, 0.3, 0.7, 0.2, 0.6, 0.5]
    pattern = body("tensor x[n]", line, "sparsity near(q, k)")
    seen = visible(pattern, given(pattern, 9, 9, x=torch.tensor(x, dtype=torch.float64)))[0, 0].tolist()
    for q in range(9):
        allowed = [k for k in range(9) if "where" not in line or k <= q if "never" not in line or k != 0]
        always = [q] if "always" in line else []
        ranked = always + sorted((k for k in allowed if k not in always), key=lambda k: (-x[k], k))
        if keep is not None:
            wanted = ranked[:keep]
        elif mass is not None:
            goal, wanted = mass * (4.0 if "total" in line else sum(x[k] for k in allowed)), list[int]()
            for k in ranked:
                if sum(x[j] for j in wanted) < goal:
                    wanted.append(k)
        else:
            wanted = [k for k in allowed if x[k] > 0.5]
        assert [k for k in range(9) if seen[q][k]] == sorted(wanted), f"query {q}"


def test_a_choice_per_block_of_queries() -> None:
    text = "select near[q] = top(2) c by u[i] * c per i"
    lines = ("tensor u[i]", "blocks i of q by 3", "blocks c of k by 4", text, "sparsity near(q, k)")
    pattern = body(*lines)
    seen = visible(pattern, given(pattern, 9, 12, u=torch.tensor([1.0, -1.0, 1.0])))[0, 0]
    late, early = [k >= 4 for k in range(12)], [k < 8 for k in range(12)]
    assert seen.tolist() == [late] * 3 + [early] * 3 + [late] * 3
    assert pattern == body(*lines[:3], text.replace("[q]", "[i]").replace(" per i", ""), lines[4])


def test_a_choice_over_the_whole_matrix() -> None:
    pattern = body(
        "blocks i of q by 2",
        "blocks c of k by 2",
        "tensor x[i, c]",
        "select kept = top(3) (i, c) by x[i, c]",
        "sparsity kept(q, k)",
    )
    x = torch.tensor([[5.0, 1.0], [4.0, 6.0], [0.0, 2.0]])
    seen = visible(pattern, given(pattern, 6, 4, x=x))[0, 0]
    wanted = torch.tensor([[True, False], [True, True], [False, False]])
    assert torch.equal(seen, wanted.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("restart", ["", " restart n mod 4 == 0", " restart ids[n] != ids[max(n - 1, 0)]"])
def test_scans(restart: str) -> None:
    pattern = body(
        "tensor a[b, g, n]",
        "tensor ids[n]: int",
        f"scan x[n] = a[b, g, n] * x[n - 1] + (1 - a[b, g, n]) * K[n]{restart}",
        "score Q[q] @ x[k]",
    )
    rate = torch.linspace(0.1, 0.9, 21, dtype=torch.float64)
    call = given(pattern, 21, 21, a=rate[None, None], ids=torch.tensor(IDS))
    assert call.q is not None
    assert call.k is not None
    assert call.v is not None
    running, rows = torch.zeros(4, dtype=torch.float64), list[Tensor]()
    for n in range(21):
        again = (n % 4 == 0 and "mod" in restart) or ("ids" in restart and n > 0 and IDS[n] != IDS[n - 1])
        running = (
            rate[n] * (torch.zeros_like(running) if again else running) + (1 - rate[n]) * call.k[0, 0, n]
        )
        rows.append(running)
    wanted = torch.softmax(call.q[0] @ torch.stack(rows).T, -1) @ call.v[0, 0]
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], wanted)


def test_a_scan_with_an_index_of_its_own() -> None:
    pattern = body(
        "tensor r[4]", "scan x[m in 4, n] = r[m] * x[m, n - 1] + 1.0", "score sum(x[m, k] for m in 4) + q"
    )
    rates = torch.tensor([0.0, 0.5, 0.9, 1.0], dtype=torch.float64)
    call = given(pattern, 5, 5, r=rates)
    assert call.v is not None
    summed = [float(sum(sum(r**step for step in range(n + 1)) for r in rates.tolist())) for n in range(5)]
    wanted = torch.softmax(torch.tensor(summed, dtype=torch.float64), -1) @ call.v[0, 0]
    out = evaluate(pattern, call, dtype=torch.float64).out
    torch.testing.assert_close(out[0, 0], wanted.expand(5, 4))


def test_states_of_every_shape() -> None:
    pattern = whole(
        "pattern test():\n"
        "    state S[d, e]\n"
        "    state z[d]\n"
        "    state t\n"
        "    step S = 0.5 * S + outer(K[k], V[k])\n"
        "    step z = 0.5 * z + K[k]\n"
        "    step t = t + 1.0\n"
        "    output Q[q] @ S / (1 + (Q[q] @ z) ** 2) + t * V[q]\n"
    )
    call = given(pattern, 5, 7)
    assert call.q is not None
    assert call.k is not None
    assert call.v is not None
    matrix, vector, rows = torch.zeros(4, 4), torch.zeros(4), list[Tensor]()
    for n in range(7):
        matrix = 0.5 * matrix + torch.outer(call.k[0, 0, n], call.v[0, 0, n])
        vector = 0.5 * vector + call.k[0, 0, n]
        if n >= 2:
            queries = call.q[0, :, n - 2]
            rows.append(queries @ matrix / (1 + (queries @ vector)[:, None] ** 2) + (n + 1) * call.v[0, 0, n])
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], torch.stack(rows, 1))


def test_statistics_of_a_branch() -> None:
    pattern = whole(
        "pattern test():\n"
        "    branch x:\n"
        "        mask causal\n"
        "    branch y:\n"
        "        mask k > q\n"
        "    let a = exp(x.lse)\n"
        "    let c = exp(y.lse) if y.count > 0 else 0\n"
        "    output (a * x + c * y) / (a + c) + 0 * (x.max + sum(x.w[q, k] for k in keys) - 1)\n"
    )
    call = given(pattern, 6, 6)
    assert call.q is not None
    assert call.k is not None
    assert call.v is not None
    wanted = torch.softmax(call.q[0] @ call.k[0, 0].T / math.sqrt(4), -1) @ call.v[0, 0]
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], wanted)


LIBRARY = [
    ("sparsity local(3)", lambda q, k: abs(q - k) <= 3),
    ("sparsity dilated(3, 2)", lambda q, k: 0 <= q - k < 6 and (q - k) % 2 == 0),
    ("sparsity window(3) or sinks(2)", lambda q, k: 0 <= q - k < 3 or k < 2),
    ("mask document(ids)", lambda q, k: k <= q and IDS[q] == IDS[k]),
    ("mask same(ids)", lambda q, k: IDS[q] == IDS[k]),
]


@pytest.mark.parametrize(("line", "wanted"), LIBRARY, ids=[line for line, _ in LIBRARY])
def test_the_library_of_masks(line: str, wanted: Callable[[int, int], bool]) -> None:
    pattern = body("tensor ids[b, n]: int", line)
    seen = visible(pattern, given(pattern, 21, 21, ids=torch.tensor([IDS])))
    assert seen[0, 0].tolist() == [[wanted(q, k) for k in range(21)] for q in range(21)]


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (3, 7)])
def test_the_library_of_distance_buckets(buckets: int, distance: int) -> None:
    pattern = body("tensor table[h, 32]", "mask causal", f"score t5(table, {buckets}, {distance})")
    length = 2 * distance
    values = torch.arange(32, dtype=torch.float64).repeat(2, 1) / 8
    call = given(pattern, 1, length, table=values)
    assert call.v is not None

    def bucket(n: int) -> int:
        half = buckets // 2
        far = half
        while (
            n >= half
            and far < buckets - 1
            and half * (distance / half) ** ((far + 1 - half) / (buckets - half)) <= n
        ):
            far += 1
        return n if n < half else far

    scores = torch.tensor([bucket(length - 1 - k) / 8 for k in range(length)], dtype=torch.float64)
    wanted = torch.softmax(scores, -1) @ call.v[0, 0]
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0, 0, 0], wanted)


ACTIVATIONS = [
    ("silu(x)", torch.nn.functional.silu), ("gelu(x)", torch.nn.functional.gelu),
    ("elu(x)", torch.nn.functional.elu), ("relu(x)", torch.relu), ("square(x)", torch.square),
    ("softplus(x)", torch.nn.functional.softplus), ("clip(x, -1, 0.5)", lambda x: x.clip(-1, 0.5)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), ACTIVATIONS, ids=[text for text, _ in ACTIVATIONS])
def test_the_library_of_functions(text: str, wanted: Callable[[Tensor], Tensor]) -> None:
    pattern = body("tensor t[8]", f"let y[i in 8] = {text.replace('(x', '(t[i]')}", "score y[0]")
    points = torch.tensor([-700.0, -2.0, -0.7, 0.0, 0.3, 1.0, 5.0, 700.0], dtype=torch.float64)
    found = table(pattern, "y", given(pattern, t=points))
    torch.testing.assert_close(found, wanted(points))


def test_vectors_of_the_library() -> None:
    pattern = body("score cosine(Q[q], K[k]) + unit(Q[q]) @ unit(K[k]) + norm(Q[q])")
    call = given(pattern)
    assert call.q is not None
    assert call.k is not None
    assert call.v is not None
    norms = call.q[0].norm(dim=-1, keepdim=True)
    scores = 2 * call.q[0] @ call.k[0, 0].T / (norms * call.k[0, 0].norm(dim=-1)) + norms
    wanted = torch.softmax(scores, -1) @ call.v[0, 0]
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], wanted)


def test_a_scan_per_head() -> None:
    pattern = body(
        "tensor r[h]", "scan x[h, n] = r[h] * x[h, n - 1] + 1.0", "score x[h, k] + 0 * x[1 - h, q]"
    )
    call = given(pattern, 5, 5, r=torch.tensor([0.5, 2.0], dtype=torch.float64))
    assert call.v is not None
    for head, rate in enumerate((0.5, 2.0)):
        scores = torch.tensor(
            [sum(rate**step for step in range(n + 1)) for n in range(5)], dtype=torch.float64
        )
        wanted = torch.softmax(scores, -1) @ call.v[0, 0]
        out = evaluate(pattern, call, dtype=torch.float64).out
        torch.testing.assert_close(out[0, head], wanted.expand(5, 4))


def test_groups_by_an_id_per_head() -> None:
    pattern = body(
        "tensor ids[h, n]: int",
        "blocks c of k by ids[h, n] in 2",
        "let total[c] = sum(k for k in c)",
        "sparsity block(q) == block(k)",
        "score total[block(k)] * 1.0",
    )
    ids = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0]])
    call = given(pattern, 4, 4, ids=ids)
    assert table(pattern, "total", call).tolist() == [[2, 4], [3, 3]]
    assert torch.equal(visible(pattern, call)[0], ids[:, :, None] == ids[:, None, :])


@pytest.mark.parametrize(("frames", "tokens"), [(1, 20), (6, 8), (21, 1), (10, 2), (33, 3)])
@pytest.mark.parametrize("sink", ["true", "false"])
def test_the_library_of_bands(frames: int, tokens: int, sink: str) -> None:
    pattern = body(f"sparsity radial({tokens}, sink={sink})")
    length = frames * tokens
    seen = visible(pattern, given(pattern, length, length))[0, 0]

    def wanted(q: int, k: int) -> bool:
        gap, apart = abs(q // tokens - k // tokens), abs(q % tokens - k % tokens)
        power = 1
        while power * 2 <= gap:
            power *= 2
        near = power <= tokens and (apart + 1) * power <= tokens
        return near or (gap % -(-power // tokens) == 0 and apart == 0) or (sink == "true" and k < tokens)

    assert seen.tolist() == [[wanted(q, k) for k in range(length)] for q in range(length)]
