"""Requirements on the values of tensors: held at every call, quoted with the element that breaks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang.call_interface import Interface
from attnlang.errors import Diagnostics
from attnlang.samples import random_tensors
from tests import catalogue


def parsed(*lines: str, parameters: str = "") -> attnlang.Pattern:
    """A pattern with these lines."""
    return attnlang.parse(f"pattern p({parameters}):\n" + "".join(f"    {line}\n" for line in lines))


def inputs(queries: int = 6) -> list[Tensor]:
    """q, k, v of two batch entries, four heads, two key heads, six keys."""
    make = torch.Generator().manual_seed(5)
    return [torch.randn(2, heads, n, 8, generator=make) for heads, n in ((4, queries), (2, 6), (2, 6))]


def report(pattern: attnlang.Pattern, *given: Tensor, **arguments: Any) -> str:
    """The one mistake of a call."""
    with pytest.raises(Diagnostics) as caught:
        pattern(*(given or inputs()), **arguments)
    (error,) = caught.value.errors
    return f"{error.code} {error.text} | {error.advice}".rstrip(" |")


def x(**changes: float) -> Tensor:
    """[2, 4, 6] of ones with some elements changed: `a012=3` is x[0, 1, 2] = 3."""
    tensor = torch.ones(2, 4, 6)
    for place, value in changes.items():
        tensor[tuple(int(digit) for digit in place[1:])] = value
    return tensor


READS = ("tensor x[b, h, 6]", "mask causal", "score x[b, h, k]")

CASES = [
    ("require x[b, h, n] > 0", x(a123=-2), "here x[1, 2, 3] = -2"),
    ("require x[b, h] > 0", x(a123=-2), "here x[1, 2, 3] = -2"),
    ("require x[b, h, k] > 0", x(a123=-2), "here x[1, 2, 3] = -2"),
    ("require all(x[b, h, n] > 0 for n in positions)", x(a103=0.25, a123=-2), "here x[1, 2, 3] = -2"),
    ("require all(x[b, h] > 0)", x(a123=-2), "here x[1, 2, 3] = -2"),
    ("require all(x[b, h, n] > 0 for n in positions if n > 3)", x(a105=-1), "here x[1, 0, 5] = -1, n_1 = 5"),
    ("require NK == 6 and x[b, h, 0] <= most", x(a110=3), "here x[1, 1, 0] = 3, most = 2.5"),
    ("require x[b, h, n] <= n + 1", x(a001=2.5), "here x[0, 0, 1] = 2.5, n = 1"),
    ("require sum(x[b, h]) == 6", x(a105=2), ""),
    ("require any(x[b, h, n] > 1 for n in positions)", x(a001=2), ""),
    ("require x[b, h, max(q - 1, 0)] > 0", x(a124=-1), "here x[1, 2, 4] = -1"),
    ("require x[b, h, 0] == x[b, h, 1]", x(a130=2), "here x[1, 3, 0] = 2, x[1, 3, 1] = 1"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "broken", "values"), CASES, ids=[case[0] for case in CASES])
def test_the_first_element_that_breaks_a_requirement_is_shown(line: str, broken: Tensor, values: str) -> None:
    pattern = parsed(*READS, line, parameters="most: float = 2.5")
    start = f"E311 'p' requires {line.removeprefix('require ')}"
    assert report(pattern, x=broken) == (f"{start} | {values}" if values else start)


@pytest.mark.parametrize("line", [case[0] for case in CASES if not case[0].startswith("require any")])
def test_calls_that_meet_a_requirement_run(line: str) -> None:
    pattern = parsed(*READS, line, parameters="most: float = 2.5")
    assert pattern(*inputs(), x=x()).shape == (2, 4, 6, 8)


def test_one_element_of_many_is_enough_for_any() -> None:
    pattern = parsed(*READS, "require any(x[b, h, n] > 1 for n in positions)")
    pattern(*inputs(), x=torch.arange(6.0).expand(2, 4, 6))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_ints_of_any_width_are_compared_as_ints(dtype: torch.dtype) -> None:
    pattern = parsed("tensor ids[b, n]: int", "mask ids[b, q] == ids[b, k]", "require ids[b, n] - 3 < 0")
    ids = torch.tensor([[0, 0, 1, 1, 2, 2]] * 2)
    pattern(*inputs(), ids=ids.to(dtype))
    ids[1, 4] = 3
    assert report(pattern, ids=ids.to(dtype)).endswith("here ids[1, 4] = 3")


def test_bools_are_shown_as_they_are_written() -> None:
    pattern = parsed("tensor dead[n]: bool", "mask not dead[k]", "require not dead[0]")
    assert report(pattern, dead=torch.ones(6, dtype=torch.bool)).endswith("here dead[0] = true")


def test_the_inputs_can_be_required_too() -> None:
    q, k, v = inputs()
    k[1, 1, 3] = 100.0
    assert report(parsed("require norm(K[k]) <= 50"), q, k, v).startswith(
        "E311 'p' requires norm(K[k]) <= 50"
    )
    q[1, 2, 3, 4] = float("nan")
    pattern = parsed("require abs(Q[q]) < 1000")
    assert report(pattern, q, k, v) == "E311 'p' requires abs(Q[q]) < 1000 | here Q[1, 2, 3, 4] = nan"


def test_groups_have_values_in_a_requirement() -> None:
    pattern = parsed(
        "blocks c of k by 4", "tensor y[c]", "mask causal", "score y[block(k)]", "require y[c] < 3 + c"
    )
    pattern(*inputs(), y=torch.tensor([2.0, 3.5]))
    assert report(pattern, y=torch.tensor([2.0, 4.5])).endswith("here y[1] = 4.5, c = 1")


def test_a_requirement_that_needs_no_tensor_but_a_sum_is_checked() -> None:
    assert report(parsed("require sum(i for i in 4) == 7")) == "E311 'p' requires sum(i for i in 4) == 7"
    parsed("require sum(i for i in 4) == 6")(*inputs())


def test_sizes_are_reported_before_values() -> None:
    pattern = parsed(*READS, "require NQ == NK", "require x[b, h, n] > 0")
    assert report(pattern, *inputs(5), x=x(a000=-1)).startswith("E311 'p' requires NQ == NK")


def test_without_the_tensor_there_is_nothing_to_check() -> None:
    pattern = parsed(*READS, "require x[b, h, n] > 0")
    assert pattern.mask(6, 6).shape == (1, 1, 6, 6)
    pattern.mask(6, 6, heads=4, batch=2, x=x())
    with pytest.raises(Diagnostics, match=r"here x\[0, 0, 0\] = -1"):
        pattern.mask(6, 6, heads=4, batch=2, x=x(a000=-1))


def test_only_patterns_with_such_a_requirement_pay_for_it() -> None:
    assert Interface(parsed("require NQ == NK").ir).value_requirements == ()
    assert len(Interface(parsed(*READS, "require x[b, h, n] > 0").ir).value_requirements) == 1


def test_gradients_pass_by() -> None:
    given = x().requires_grad_()
    parsed(*READS, "require x[b, h, n] > 0")(*inputs(), x=given).sum().backward()
    assert given.grad is not None and bool(given.grad.isfinite().all())


# --------------------------------------------------------------------------------------------- the catalogue


LEVELS = [(0, True), (1, True), (2, True), (4, True), (8, False), (3, False), (-1, False)]


@pytest.mark.parametrize(("level", "allowed"), LEVELS)
def test_levels_of_a_pyramid_divide_its_blocks(level: int, allowed: bool) -> None:
    pattern = attnlang.load(catalogue.EXAMPLES / "pyramid.attn")
    q, k = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 12, 8)
    levels = torch.ones(1, 2, 2, 3, dtype=torch.int64)
    levels[0, 1, 1, 2] = level
    if allowed:
        assert bool(pattern(q, k, k, level=levels, block=4).isfinite().all())
    else:
        assert report(pattern, q, k, k, level=levels, block=4).endswith(
            f"here level[0, 1, 1, 2] = {level}, block = 4"
        )


@pytest.mark.parametrize("head", [-1, 2])
def test_key_heads_that_heads_are_told_exist(head: int) -> None:
    pattern = attnlang.load(catalogue.EXAMPLES / "key_driven_groups.attn")
    told = torch.tensor([0, 1, head, 0])
    assert f"here kv_head[2] = {head}" in report(pattern, kv_head=told)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 6, 8])
def test_random_inputs_meet_requirements(block: int) -> None:
    pattern = attnlang.load(catalogue.EXAMPLES / "pyramid.attn")
    symbols = {"B": 1, "H": 2, "HK": 2, "NQ": 48, "NK": 48, "D": 8, "DV": 8, "block": block}
    levels = random_tensors(pattern.ir, symbols, 0)["level"]
    assert set(levels.unique().tolist()) == {0, *(level for level in (1, 2, 4, 8) if block % level == 0)}
    q = torch.randn(1, 2, 48, 8)
    assert pattern(q, q, q, level=levels, block=block).shape == (1, 2, 48, 8)
