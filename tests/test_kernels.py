"""Sections A and B of the catalogue by their kernels, in every precision, against the independent definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import Pattern, load
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS, Case, cases, mask
from tests.kernel_calls import error, narrowed, rounding

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PATTERNS: dict[str, Pattern] = {}
LABELS = ("empty-rows", "beyond-the-end", "one-key")


def pattern_of(name: str) -> Pattern:
    """The example, loaded once."""
    if name not in PATTERNS:
        PATTERNS[name] = load(EXAMPLES / f"{name}.attn")
    return PATTERNS[name]


def chosen() -> list[tuple[Case, torch.dtype]]:
    """Of each pattern its first three cases, each in another precision, and those with rows that see nothing."""
    found: list[tuple[Case, torch.dtype]] = []
    for position, name in enumerate(NAMES):
        for number, case in enumerate(cases(name)):
            if number < 3 or any(label in case.id for label in LABELS):
                found.append((case, DTYPES[(position + number) % 3]))
    return found


def test_the_sections_are_whole() -> None:
    assert len(NAMES) == 43
    assert {(case.name, dtype) for case, dtype in chosen()} >= {(n, d) for n in NAMES for d in DTYPES}


@pytest.mark.parametrize(
    ("case", "dtype"), [pytest.param(c, d, id=f"{c.id}-{str(d)[6:]}") for c, d in chosen()]
)
def test_kernel_is_the_definition(case: Case, dtype: torch.dtype) -> None:
    definition, pattern = DEFINITIONS[case.name], pattern_of(case.name)
    low = narrowed(case.make_inputs(0), dtype)
    wanted = definition.function(
        **narrowed(low, torch.float64), **case.params, scale=case.scale, q_offset=case.q_offset
    )
    q, k, v = (low.pop(name) for name in "qkv")

    def call(target: str) -> tuple[Tensor, Tensor | None]:
        given: Any = {**low, **case.params}
        result = pattern(
            q, k, v, **given, scale=case.scale, q_offset=case.q_offset,
            target=target, return_lse=definition.has_lse,
        )  # fmt: skip
        return result if definition.has_lse else (result, None)

    out, lse = call("interpret")
    dense, dense_lse = call("eager")
    assert out.dtype == dtype
    assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, dtype)
    if lse is None or dense_lse is None or wanted.lse is None:
        assert not definition.has_lse
        return
    assert lse.dtype == torch.float32
    assert error(lse, wanted.lse) <= 2 * error(dense_lse, wanted.lse) + rounding(wanted.lse, dtype)
    empty = wanted.lse == -torch.inf
    assert bool((out[empty] == 0).all())


STATIC = [name for name in NAMES if DEFINITIONS[name].visible is not None]


@pytest.mark.parametrize("case", [c for n in STATIC for c in cases(n)[::2]], ids=lambda case: case.id)
def test_mask_is_brute_force(case: Case) -> None:
    given = case.make_inputs(0)
    tensors: Any = {name: given[name] for name in DEFINITIONS[case.name].tensors}
    sizes: Any = {"heads": case.H, "kv_heads": case.HK, "batch": case.B, "q_offset": case.q_offset}
    wanted = mask(case.name, case.NQ, case.NK, **sizes, **case.params, **tensors)
    found = pattern_of(case.name).mask(case.NQ, case.NK, **sizes, **case.params, **tensors)
    shape = torch.broadcast_shapes(found.shape, wanted.shape)
    assert found.dtype == torch.bool
    assert torch.equal(found.expand(shape), wanted.expand(shape))
