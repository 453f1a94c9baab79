"""Decoding on the CPU: tiles of few rows, and grouped heads as rows of one tile; against the definitions in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang import execute, execute_launch
from attnlang.artifact import Program
from attnlang.execute_programs import native_level
from attnlang.passes.packing import reason_apart
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import needs_compiler
from tests.cpp_printed import ISAS
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import error, inputs, narrowed, randoms, rounding

pytestmark = needs_compiler

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
GROUPS = ((8, 8), (8, 4), (8, 2), (8, 1), (6, 2), (16, 1))
CAUSAL = attnlang.load(EXAMPLES / "causal.attn")
FULL = attnlang.load(EXAMPLES / "full.attn")
ALIBI = attnlang.load(EXAMPLES / "alibi.attn")
WINDOW = attnlang.parse("pattern w(window: int = 40):\n    mask q - k < window and k <= q\n")
BIASED = attnlang.parse(
    """\
pattern biased():
    tensor slope[h]
    tensor bias[h, k]
    tensor rotated[h, d]

    mask k <= q and (q - k) mod 3 < 2
    score (Q[q] * rotated[h]) @ K[k] * scale - slope[h] * (q - k) + bias[h, k]
"""
)


def check(pattern: attnlang.Pattern, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """A call's out and lse, which may miss float64 by twice what dense PyTorch does, and rounding; in float64, where
    dense PyTorch is the reference, by a few roundings."""
    roundings = 4 if q.dtype == torch.float64 else 1
    high: Any = {name: x.double() if isinstance(x, Tensor) else x for name, x in given.items()}
    out, lse = pattern(q, k, v, target="cpu", return_lse=True, **given)
    wanted, wanted_lse = pattern.reference(q.double(), k.double(), v.double(), return_lse=True, **high)
    dense, dense_lse = pattern(q, k, v, target="eager", return_lse=True, **given)
    assert out.dtype == q.dtype
    assert error(out, wanted) <= 2 * error(dense, wanted) + roundings * rounding(wanted, q.dtype)
    allowed = 2 * error(dense_lse, wanted_lse) + roundings * rounding(wanted_lse, q.dtype)
    assert error(lse, wanted_lse) <= allowed
    return out, lse


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The kernels that are launched from here on, with the number of their programs."""
    made: list[tuple[str, int]] = []
    run = execute_launch.run

    def noted(source: Any, programs: int, *rest: Any) -> None:
        made.append((source.name, programs))
        run(source, programs, *rest)

    monkeypatch.setattr(execute_launch, "run", noted)
    return made


@pytest.mark.parametrize("queries", range(1, 18))
def test_every_number_of_queries(queries: int) -> None:
    dtype = DTYPES[(queries + queries // 4) % 4]
    features, values = ((64, 64), (40, 24), (24, 128), (128, 40))[queries % 4]
    q, k, v = inputs(queries, 333, B=2, H=2, D=features, DV=values, dtype=dtype)
    check(CAUSAL, q, k, v)
    check(WINDOW, q, k, v, q_offset=200)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("queries", [1, 2, 3, 7, 16])
def test_heads_that_share_keys(queries: int, place: int) -> None:
    heads, dtype = GROUPS[place], DTYPES[(place + queries) % 4]
    q, k, v = inputs(queries, 300, B=2, H=heads[0], HK=heads[1], D=32, DV=48, dtype=dtype)
    check(CAUSAL, q, k, v)
    check(ALIBI, q, k, v, q_offset=77, slopes=randoms((heads[0],), dtype=dtype)[0].abs())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [1, 3, 8])
def test_scores_that_differ_between_heads(queries: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(queries, 150, B=2, H=6, HK=2, D=24, dtype=dtype)
    shapes = {"slope": (6,), "bias": (6, 150), "rotated": (6, 24)}
    given = dict(zip(shapes, randoms(*shapes.values(), dtype=dtype, seed=1), strict=True))
    check(BIASED, q, k, v, **{**given, "slope": given["slope"] / 64})


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_strides_of_any_layout(queries: int) -> None:
    """Tokens before heads, and features apart: results are those of contiguous tensors."""
    q, k, v = inputs(queries, 200, B=2, H=8, HK=2, D=40, dtype=torch.bfloat16)
    wanted, _ = check(CAUSAL, q, k, v)
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(check(CAUSAL, *apart)[0], wanted)
    turned = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    check(CAUSAL, *turned)


@pytest.mark.parametrize("heads", [(2, 2), (8, 2)], ids=str)
@pytest.mark.parametrize("keys", [1, 15, 255, 256, 257, 1030])
def test_keys_of_any_number(keys: int, heads: tuple[int, int]) -> None:
    """What lies behind the last key is not read into a result: it is not even finite here."""
    for queries in (2, 3, 9):
        q, k, v = inputs(queries, keys, H=heads[0], HK=heads[1], D=64)
        wide_k, wide_v = (torch.full((1, heads[1], keys + 40, 64), torch.nan) for _ in "kv")
        wide_k[:, :, :keys], wide_v[:, :, :keys] = k, v
        check(FULL, q, wide_k[:, :, :keys], wide_v[:, :, :keys])


def test_rows_that_see_nothing() -> None:
    pattern = attnlang.parse("pattern p(first: int = 0):\n    mask k >= first + 9 * q and k < first + 20\n")
    for heads in ((4, 4), (4, 1)):
        q, k, v = inputs(4, 300, H=heads[0], HK=heads[1])
        out, lse = check(pattern, q, k, v, first=100, q_offset=0)
        assert bool((lse[:, :, 3] == -torch.inf).all()) and bool((out[:, :, 3] == 0).all())
        assert bool(lse[:, :, :3].isfinite().all())
        out, _ = check(pattern, q, k, v, first=500, q_offset=0)
        assert bool((out == 0).all())


def test_infinite_features_stay_in_their_places() -> None:
    """The last vector of a row that is no whole number of them: what it shares with the one before it counts once."""
    q, k, v = inputs(3, 70, H=2, D=24)
    q = q.abs()
    k[:, :, 5, 10], v[:, :, 7, 9] = -torch.inf, torch.inf
    out, _ = FULL(q, k, v, target="cpu", return_lse=True)
    assert bool((out[..., 9] == torch.inf).all())
    assert bool(out[..., :9].isfinite().all()) and bool(out[..., 10:].isfinite().all())


def grouped_cases() -> list[Case]:
    """Cases of the catalogue with few queries, and heads that share keys."""
    names = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
    found = [case for name in names for case in cases(name)]
    return [case for case in found if case.NQ <= 16 and case.HK < case.H]


@pytest.mark.parametrize("place", range(len(grouped_cases())), ids=lambda place: grouped_cases()[place].id)
def test_every_pattern_by_grouped_heads(place: int) -> None:
    case, dtype = grouped_cases()[place], (torch.float32, torch.float16)[place % 2]
    level = ISAS[(len(case.id) + (dtype == torch.float32)) % 4]
    native = f"cpu:{min(level, native_level(), key=ISAS.index)}"
    definition, pattern = DEFINITIONS[case.name], attnlang.load(EXAMPLES / f"{case.name}.attn")
    low = narrowed(case.make_inputs(0), dtype)
    exact = narrowed(low, torch.float64)
    wanted = definition.function(**exact, **case.params, scale=case.scale, q_offset=case.q_offset)
    q, k, v = (low.pop(name) for name in "qkv")
    given: Any = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
    dense, out = (pattern(q, k, v, **given, target=target) for target in ("eager", native))
    assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, dtype)


def test_sixteen_numbers_of_queries_are_few_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[str] = set()
    build = execute.program_for

    def noted(*arguments: Any) -> Program:
        program = build(*arguments)
        made.update(launch.source.text for launch in program.launches)
        return program

    monkeypatch.setattr(execute, "program_for", noted)
    for queries in range(1, 17):
        CAUSAL(*inputs(queries, 100), target="cpu")
    assert len(made) == 5
    made.clear()
    for queries in range(1, 17):
        CAUSAL(*inputs(queries, 100, H=4, HK=2), target="cpu")
    assert len(made) == 5, "2, 4, 8, 16 and 32 rows"


def test_a_group_is_one_program(launched: list[tuple[str, int]]) -> None:
    q, k, v = inputs(2, 100, B=3, H=8, HK=2)
    check(CAUSAL, q, k, v)
    assert ("causal_packed_forward", 6) in launched or ("causal_forward_packed", 6) in launched


def test_what_cannot_be_packed_says_why() -> None:
    differs = attnlang.parse("pattern p():\n    mask k <= q and k > q - 10 * (h + 1)\n")
    assert "ranges of keys differ" in reason_apart(differs.ir)
    assert reason_apart(CAUSAL.ir) == "" == reason_apart(BIASED.ir)
    plan = str(differs.plan(2, 500, heads=8, kv_heads=2, target="cpu"))
    assert "one by one" in plan and "ranges of keys differ" in plan
    q, k, v = inputs(2, 100, H=8, HK=2)
    check(differs, q, k, v)


def test_the_plan_of_a_packed_call_counts_its_tiles() -> None:
    plan = CAUSAL.plan(3, 1000, heads=8, kv_heads=2, target="cpu", dtype="fp32")
    assert [each.choice for each in plan.decisions if each.subject == "heads"] == ["packed"]
    (count,) = plan.tiles
    assert (count.rows, count.visited + count.empty) == (16, 2 * -(-1000 // count.columns))
    alone = CAUSAL.plan(3, 1000, heads=8, target="cpu", dtype="fp32")
    assert not [each for each in alone.decisions if each.subject == "heads"]


def test_gradients_by_grouped_heads() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(3, 60, H=4, HK=2))
    wanted = torch.autograd.grad(CAUSAL(q, k, v, target="eager").square().sum(), (q, k, v))
    found = torch.autograd.grad(CAUSAL(q, k, v, target="cpu").square().sum(), (q, k, v))
    for one, other in zip(found, wanted, strict=True):
        assert error(one, other) <= 4 * rounding(other, torch.float32)


def test_shares_of_keys_with_packed_heads(
    monkeypatch: pytest.MonkeyPatch, launched: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(execute_launch, "FEWEST_KEYS", 64)
    monkeypatch.setattr(execute_launch, "workers", lambda target, tensor: 12)
    q, k, v = inputs(3, 1100, H=4, HK=2, D=40)
    check(CAUSAL, q, k, v)
    check(ALIBI, q, k, v, slopes=torch.tensor([0.5, 0.25, 0.1, 0.02]))
    assert max(programs for _, programs in launched) == 12
