"""The rule that shifts exponentials by their maximum: it never changes a meaning, and it reaches what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnlang.ir.interpret import Inputs, evaluate
from attnlang.ir.pattern import HEAD, KEY, Apply, Expr, Reduce, children
from attnlang.ir.stabilize import inline, renamed, stabilize
from attnlang.ir.walk import reads_of
from tests.hand_patterns import (
    ROWS,
    S0,
    SEEN,
    SOFTMAX_ONE,
    attention,
    close,
    dots,
    formula,
    inputs,
    k,
    op,
    parts,
    pattern,
    read,
)


def total(body: Expr) -> Expr:
    return Reduce("sum", (KEY,), body, SEEN)


E = op("exp", S0)
SINK = op("div", E, op("add", op("exp", read("sink", HEAD)), total(E)))
SQUARED = op("div", op("pow", E, 2), total(op("mul", E, E)))
ROOT = op("div", E, op("sqrt", total(op("mul", E, E))))
SHARPENED = op("div", op("exp", op("mul", S0, 20.0)), total(op("exp", op("mul", S0, 20.0))))
TIMES = op("mul", E, op("div", 1.0, total(E)))
MIXED = op("add", op("mul", 0.25, op("div", E, total(E))), op("mul", 0.75, SHARPENED))
CHOSEN = op("div", op("where", op("gt", S0, 0.0), E, 0.0), op("add", total(E), op("max", E, 1.0)))
DIFFERENCE = op(
    "div", op("sub", E, op("neg", op("mul", 3.0, E))), op("mul", 2.0, Reduce("max", (KEY,), E, SEEN))
)
SHIFTED = {
    "softmax one": SOFTMAX_ONE, "sink": SINK, "squared": SQUARED, "root": ROOT, "sharpened": SHARPENED, "times": TIMES,
    "mixed": MIXED, "chosen": CHOSEN, "difference": DIFFERENCE,
}  # fmt: skip
CONSTANT = op("exp", read("sink", HEAD))
LEFT = {
    "no exponential": op("div", S0, total(S0)),
    "not of one degree": E,
    "another degree": op("div", op("pow", E, 2), total(E)),
    "under a logarithm": op("div", op("log", E), 2.0),
    "of something not in the row": op(
        "div", op("exp", read("sink", HEAD)), op("add", 1.0, op("exp", read("sink", HEAD)))
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_nothing_to_do(name: str) -> None:
    assert stabilize(LEFT[name], KEY, SEEN) is None


def largest_exponents_are_shifted(expr: Expr) -> bool:
    """Every exponential is of a difference."""
    own = not (isinstance(expr, Apply) and expr.op == "exp") or (
        isinstance(expr.args[0], Apply) and expr.args[0].op in ("sub", "mul")
    )
    return own and all(largest_exponents_are_shifted(child) for child in children(expr))


@pytest.mark.parametrize("name", SHIFTED)
def test_the_meaning_stays(name: str) -> None:
    shifted = stabilize(SHIFTED[name], KEY, SEEN)
    assert shifted is not None and largest_exponents_are_shifted(shifted)
    assert {read_.source for read_ in reads_of(shifted)} >= {"attention.step0"}
    sink = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    call = inputs(tensors={"sink": sink})
    results: list[torch.Tensor] = []
    for body in (SHIFTED[name], shifted):
        found = evaluate(
            pattern(attention(normalize=formula(body))),
            call,
            dtype=torch.float64,
            want=frozenset(("weights",)),
        )
        assert found.weights is not None
        results.append(found.weights)
    close(results[0], results[1])
    close(results[0], by_hand(name, call, sink), 1e-12)


def by_hand(name: str, call: Inputs, sink: torch.Tensor) -> torch.Tensor:
    """The formulas as written, without any shift."""
    s = dots(call).masked_fill(~parts(call)[3], -torch.inf)
    e = s.exp()
    sums = e.sum(-1, keepdim=True)
    sharp = (20 * s).exp() / (20 * s).exp().sum(-1, keepdim=True)
    found = {
        "softmax one": lambda: e / (1 + sums),
        "sink": lambda: e / (sink[:, None, None].exp() + sums),
        "squared": lambda: e**2 / (e**2).sum(-1, keepdim=True),
        "root": lambda: e / (e**2).sum(-1, keepdim=True).sqrt(),
        "sharpened": lambda: sharp,
        "times": lambda: e / sums,
        "mixed": lambda: 0.25 * e / sums + 0.75 * sharp,
        "chosen": lambda: torch.where(s > 0, e, 0) / (sums + e.clamp(min=1)),
        "difference": lambda: 4 * e / (2 * e.amax(-1, keepdim=True)),
    }[name]()
    return torch.where(s == -torch.inf, 0.0, found)


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("size", [1.0, 400.0, -400.0])
def test_single_precision_neither_overflows_nor_loses_gradients(name: str, size: float) -> None:
    call = inputs(
        grad=True, scalars={"scale": size}, tensors={"sink": torch.tensor([0.5, 300.0, -300.0, 0.0]).double()}
    )
    p = pattern(attention(normalize=formula(SHIFTED[name])))
    exact = evaluate(p, call, dtype=torch.float64).out
    found = evaluate(p, call, dtype=torch.float32).out
    assert exact.isfinite().all()
    close(found, exact, 2e-3)
    found.sum().backward()
    assert call.q is not None and call.q.grad is not None and call.q.grad.isfinite().all()


STEP1 = read("attention.step1", *ROWS, KEY)


@pytest.mark.parametrize("second", ["sum", "one and sum", "something else between"])
def test_two_formulas_are_shifted_together(second: str) -> None:
    """exp(s) | s / sum(s): neither of the two can be shifted alone."""
    bodies = {
        "sum": op("div", STEP1, total(STEP1)),
        "one and sum": op("div", STEP1, op("add", 1.0, total(STEP1))),
        "something else between": op("div", STEP1, op("max", total(STEP1), 1.0)),
    }
    p = pattern(attention(normalize=(*formula(E), *formula(bodies[second]))))
    small, large = inputs(scalars={"scale": 0.7}), inputs(scalars={"scale": 400.0})
    s = dots(small).masked_fill(~parts(small)[3], -torch.inf)
    sums = s.exp().sum(-1, keepdim=True)
    below = {"sum": sums, "one and sum": 1 + sums, "something else between": sums.clamp(min=1)}[second]
    close(evaluate(p, small, dtype=torch.float64).out, s.exp() / below @ parts(small)[2])
    exact = evaluate(p, large, dtype=torch.float64).out
    assert exact.isfinite().all()
    close(evaluate(p, large, dtype=torch.float32).out, exact, 1e-3)


def test_inlining_needs_plain_indices() -> None:
    axes = (*ROWS, KEY)
    assert inline(STEP1, "attention.step1", axes, E) == E
    assert inline(read("attention.step1", *ROWS, op("add", k, 1)), "attention.step1", axes, E) is None
    other = replace(KEY, name="j")
    moved = inline(read("attention.step1", *ROWS, other), "attention.step1", axes, E)
    assert moved == op("exp", read("attention.step0", *ROWS, other))


def test_renaming_does_not_capture() -> None:
    other = replace(KEY, name="j")
    body = op("sub", S0, Reduce("sum", (other,), read("attention.step0", *ROWS, other)))
    fresh = replace(KEY, name="j'")
    expected = op(
        "sub",
        read("attention.step0", *ROWS, other),
        Reduce("sum", (fresh,), read("attention.step0", *ROWS, fresh)),
    )
    assert renamed(body, {KEY: other}) == expected
