"""The two readings of the IR against each other: whole tensors, and one number at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from attnlang.ir.interpret import evaluate
from attnlang.ir.pattern import Literal, Merge, Pattern, Threshold
from attnlang.ir.scalar import evaluate_scalar
from attnlang.ir.scalar_operations import calculate
from tests import catalogue
from tests.definitions import cases
from tests.hand_patterns import (
    COARSE,
    COARSE_TABLES,
    SOFTMAX,
    SOFTMAX_ONE,
    attention,
    close,
    delta_rule,
    formula,
    inputs,
    op,
    pattern,
    read,
    talking_heads,
)

BY_HAND: dict[str, Pattern] = {
    "causal": pattern(attention()),
    "softmax one": pattern(attention(normalize=formula(SOFTMAX_ONE))),
    "entmax": pattern(attention(normalize=(Threshold("entmax", Literal(1.7)),))),
    "sinkhorn": pattern(attention(normalize=(Threshold("sinkhorn", Literal(2)),))),
    "top": pattern(attention(normalize=(Threshold("top", Literal(2)), SOFTMAX))),
    "merge": pattern(
        *COARSE_TABLES, COARSE, attention("fine"), Merge("both", ("fine", "coarse")), result="both"
    ),
    "delta rule": delta_rule(),
    "talking heads": talking_heads(),
}


@pytest.mark.parametrize("offset", [0, 3, -2])
@pytest.mark.parametrize("name", BY_HAND)
def test_patterns_by_hand(name: str, offset: int) -> None:
    if name == "delta rule" and offset < 0:
        pytest.skip("a state before the first token does not exist")
    torch.manual_seed(0)
    extra = {"beta": torch.rand(1, 2, 5), "pre": torch.randn(2, 2), "post": torch.randn(2, 2)}
    tensors = {key: tensor.double() for key, tensor in extra.items()}
    call = inputs(
        B=1, heads=2, kv=1, nq=4 if offset <= 0 else 2, nk=5, dim=2, dv=2, offset=offset, tensors=tensors
    )
    if name == "sinkhorn" and offset:
        pytest.skip("sinkhorn takes all queries")
    compare(BY_HAND[name], call)


def compare(p: Pattern, call: catalogue.Inputs) -> None:
    out, lse = evaluate_scalar(p, call)
    found = evaluate(p, call, dtype=torch.float64, want=frozenset(("out", "lse")))
    close(found.out, out, 1e-9)
    if lse is not None:
        close(found.lse, lse, 1e-9)


EXAMPLES = (
    "affine_scaled", "agent", "block_topk", "chunk_recurrent", "compensated", "composed_heads", "cosine", "dropped",
    "dynamic_mask", "expert_choice", "gated_positional", "music", "neighborhood_2d", "radial", "relu", "retention",
    "softplus_reweighted", "sparsemax", "swin", "t5", "taylor", "universal_rpe",
)  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    smallest = min(cases(name), key=lambda z: z.B * z.H * z.NQ * z.NK * (z.D + z.DV))
    compare(catalogue.example(name), catalogue.call(smallest, smallest.make_inputs(0)))


ELEMENTWISE = (
    "add",
    "sub",
    "mul",
    "div",
    "min",
    "max",
    "floordiv",
    "mod",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
)
FUNCTIONS = (
    "neg", "abs", "sign", "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "sin", "cos",
    "tanh", "sigmoid", "softplus", "erf", "floor", "ceil", "round", "int", "float",
)  # fmt: skip
NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


@settings(max_examples=200)
@drawn(st.sampled_from(ELEMENTWISE + FUNCTIONS), NUMBERS, NUMBERS)
def test_operations_on_floats(name: str, x: float, y: float) -> None:
    if name in ("floordiv", "mod") and y == 0:
        return
    binary = name in ELEMENTWISE
    body = op(name, read("x"), read("y")) if binary else op(name, read("x"))
    body = op("where", body, 1, 0) if name in ELEMENTWISE[8:] else body
    tensors = {"x": torch.tensor(x, dtype=torch.float64), "y": torch.tensor(y, dtype=torch.float64)}
    call = inputs(B=1, heads=1, kv=1, nq=1, nk=1, dim=1, dv=1, tensors=tensors)
    found = evaluate(pattern(output=body, result=""), call, dtype=torch.float64).out.item()
    expected = float(calculate(name, [x, y] if binary else [x]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["floordiv", "mod", "pow", "mul", "min", "max"])
@pytest.mark.parametrize("x", [-7, -1, 0, 2, 9])
@pytest.mark.parametrize("y", [-4, -1, 1, 3])
def test_operations_on_ints_floor_as_python_does(name: str, x: int, y: int) -> None:
    call = inputs(B=1, heads=1, kv=1, nq=1, nk=1, dim=1, dv=1)
    found = evaluate(pattern(output=op(name, x, y), result=""), call, dtype=torch.float64)
    assert found.out.item() == calculate(name, [x, y])
