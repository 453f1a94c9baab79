"""Names of the user's that mean something in a kernel: every one of them must work."""

import keyword
from typing import Any

import pytest
import torch

import attnlang
from attnlang.codegen.ops import TRITON_HELPERS
from attnlang.ir.kernel import HELPERS, spelled

CLASHES = [
    ["lambda", "out", "program"],
    ["tl", "triton", "lse"],
    ["tile", "Q_stride_0", "BLOCK_M"],
    ["floor_divide", "range", "float"],
    ["class", "m", "acc"],
    ["user_out", "k_first", "tanh"],
]


@pytest.mark.parametrize("names", CLASHES, ids=lambda names: names[0])
def test_tensors_and_parameters_may_have_any_name(names: list[str]) -> None:
    tensors = "".join(f"    tensor {name}[h]\n" for name in names[:2])
    terms = "".join(f" + {name}[h] * (q - k)" for name in names[:2])
    text = (
        f"pattern sum({names[2]}: float = 0.5):\n{tensors}    mask causal\n"
        f"    score Q[q] @ K[k] * scale{terms} + tanh({names[2]} * ((q - 7) // 3)) * {names[2]}\n"
    )
    pattern = attnlang.parse(text)
    q = torch.randn(1, 2, 40, 16)
    call: dict[str, Any] = {name: torch.rand(2) for name in names[:2]}
    error = pattern(q, q, q, target="interpret", **call) - pattern.reference(q, q, q, **call)
    assert error.abs().max() < 1e-4


def test_helpers_of_the_printer_are_reserved() -> None:
    assert set(TRITON_HELPERS) == set(HELPERS)


def test_no_two_names_are_spelled_alike() -> None:
    names = [*keyword.kwlist, "out", "user_out", "user_user_out", "window", "x_stride_1", "user_x_stride_1"]
    assert len({spelled(name) for name in names}) == len(names)
