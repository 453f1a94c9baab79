"""Random well-typed programs: printed and parsed, and evaluated twice, by whole tensors and one number at a time."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnlang
from attnlang import Pattern
from attnlang.ir.interpret import Inputs
from attnlang.ir.scalar import evaluate_scalar
from tests.random_programs import Program, program


@settings(max_examples=200)
@given(st.integers(0, 2**24), st.integers(1, 2))
def test_a_program_means_the_same_twice(seed: int, depth: int) -> None:
    made = program(seed, depth)
    pattern = attnlang.parse(made.text)
    arguments: dict[str, Any] = {**made.params, **made.tensors}
    assert attnlang.parse(str(pattern)) == pattern
    found = pattern.reference(made.q, made.k, made.v, q_offset=made.q_offset, **arguments)
    wanted, _ = evaluate_scalar(pattern.ir, inputs(pattern, made))
    torch.testing.assert_close(
        found, wanted, atol=1e-9, rtol=1e-7, equal_nan=True, msg=lambda m: f"{m}\n{made.text}"
    )


@settings(max_examples=100)
@given(st.integers(0, 2**24))
def test_a_gradient_is_the_slope(seed: int) -> None:
    """Of the result along a random direction of all float inputs, where the result is smooth there."""
    made = program(seed, 1)
    pattern = attnlang.parse(made.text)
    generator = torch.Generator().manual_seed(seed)
    leaves = {name: x for name, x in {"q": made.q, "k": made.k, "v": made.v, **made.tensors}.items()}
    floats = [name for name, x in leaves.items() if x.is_floating_point()]
    ways = {n: torch.randn(leaves[n].shape, generator=generator, dtype=torch.float64) for n in floats}

    def result(step: float, needs: bool = False) -> torch.Tensor:
        at = {n: (x + step * ways[n]).requires_grad_(needs) if n in ways else x for n, x in leaves.items()}
        made_at.update(at)
        rest: dict[str, Any] = {**made.params, **{name: at[name] for name in made.tensors}}
        out = pattern(at["q"], at["k"], at["v"], q_offset=made.q_offset, target="eager", **rest)
        return out.square().sum() if needs else out.detach().square().sum()

    made_at: dict[str, torch.Tensor] = {}
    out = result(0.0, needs=True)
    if not out.requires_grad or not torch.isfinite(out):
        return
    gradients = torch.autograd.grad(out, [made_at[n] for n in floats], allow_unused=True)
    slope = sum(float((g * ways[n]).sum()) for n, g in zip(floats, gradients, strict=True) if g is not None)
    coarse, fine = (float(result(h) - result(-h)) / (2 * h) for h in (1e-4, 1e-5))
    if "detach" in made.text or abs(coarse - fine) > 1e-5 * (1 + abs(fine)):
        return
    assert abs(slope - fine) <= 1e-4 * (1 + abs(fine)), made.text


def inputs(pattern: Pattern, made: Program) -> Inputs:
    """The call as the interpreters take it."""
    (B, H, NQ, D), (_, HK, NK, DV) = made.q.shape, made.v.shape
    sizes = {"B": B, "H": H, "HK": HK, "NQ": NQ, "NK": NK, "D": D, "DV": DV}
    offset = NK - NQ if made.q_offset is None else made.q_offset
    scalars = {"q_offset": offset, "scale": D**-0.5, **made.params}
    tensors = {name: made.tensors[name] for name in pattern.tensors}
    return Inputs(made.q, made.k, made.v, sizes, scalars, tensors)
