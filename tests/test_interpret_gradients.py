"""Gradients of the interpreter: exact, and untouched by what is hidden."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnlang.ir.pattern import (
    HEAD,
    KEY,
    Literal,
    Merge,
    Pattern,
    Threshold,
)
from tests.hand_patterns import (
    COARSE,
    COARSE_TABLES,
    DOT,
    SOFTMAX,
    SOFTMAX_ONE,
    attention,
    close,
    delta_rule,
    formula,
    inputs,
    k,
    op,
    pattern,
    q,
    read,
    run,
    talking_heads,
)

CASES: dict[str, tuple[Pattern, dict[str, tuple[int, ...]]]] = {
    "causal": (pattern(attention()), {}),
    "softmax one": (pattern(attention(normalize=formula(SOFTMAX_ONE))), {}),
    "talking heads": (talking_heads(), {"pre": (4, 4), "post": (4, 4)}),
    "delta rule": (delta_rule(), {"beta": (2, 4, 5)}),
    "sparsemax": (pattern(attention(normalize=(Threshold("sparsemax", Literal(0)),))), {}),
    "entmax": (pattern(attention(normalize=(Threshold("entmax", Literal(1.3)),))), {}),
    "sinkhorn": (pattern(attention(normalize=(Threshold("sinkhorn", Literal(2)),))), {}),
    "top": (pattern(attention(normalize=(Threshold("top", Literal(2)), SOFTMAX))), {}),
    "coarse": (pattern(*COARSE_TABLES, COARSE, attention("fine"),
                       Merge("both", ("fine", "coarse")), result="both"), {}),
    "decay": (pattern(attention(normalize=(), score=op("mul", op("pow", read("decay", HEAD), op("sub", q, k)), DOT))),
              {"decay": (4,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    p, shapes = CASES[name]
    torch.manual_seed(1)
    extra = {key: torch.rand(shape, dtype=torch.float64) for key, shape in shapes.items()}
    given = inputs(nq=4, nk=5, dim=3, dv=2, tensors=extra)
    names = ["q", "k", "v", *extra]
    given_tensors = [tensor for tensor in (given.q, given.k, given.v, *extra.values()) if tensor is not None]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in given_tensors]

    def function(*tensors: Tensor) -> Tensor:
        now = dict(zip(names, tensors, strict=True))
        changed = replace(given, q=now.pop("q"), k=now.pop("k"), v=now.pop("v"), tensors=now)
        return run(p, changed).out

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_hidden_entries_do_not_matter(bad: float, everywhere: bool) -> None:
    """Keys 7 and 8 hold NaN: hidden from all rows, or from all but the last two (which are NaN then)."""
    given = inputs(grad=True, offset=1 if everywhere else 3)
    clean = inputs(grad=True, offset=1 if everywhere else 3)
    assert given.k is not None and given.v is not None and clean.q is not None
    with torch.no_grad():
        given.k[:, :, 7:] = bad
        given.v[:, :, 7:] = bad
    rows = 6 if everywhere else 4
    gradients: list[Tensor] = []
    for one in (given, clean):
        out = run(pattern(attention()), one).out[:, :, :rows]
        out.square().sum().backward()
        assert one.q is not None and one.q.grad is not None and one.k is not None and one.k.grad is not None
        assert one.v is not None and one.v.grad is not None
        gradients += [out.detach(), one.q.grad, one.k.grad, one.v.grad]
    close(gradients[0], gradients[4])
    close(gradients[1][:, :, :rows], gradients[5][:, :, :rows])
    if everywhere:
        close(gradients[2], gradients[6])
        close(gradients[3], gradients[7])


def test_steep_functions_of_hidden_entries_have_no_gradient() -> None:
    """1/(q−k) is infinite where k = q, which is hidden; log of a tensor that is 0 there."""
    x = torch.rand(9, dtype=torch.float64)
    x[4] = 0
    given = inputs(nq=9, tensors={"x": x.requires_grad_()}, grad=True)
    score = op("add", DOT, op("div", op("log", read("x", KEY)), op("sub", q, k)))
    hidden = op("and", op("lt", k, q), op("ne", k, 4))
    out = run(pattern(attention(mask=hidden, score=score)), given).out
    assert out.isfinite().all()
    out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad[4] == 0 and (x.grad != 0).any()


def test_gradient_of_maximum_at_a_tie_goes_to_the_second() -> None:
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    given = inputs(tensors={"x": x})
    score = op("add", DOT, op("max", read("x", HEAD), 0.0))
    run(pattern(attention(normalize=(), score=score)), given).out.sum().backward()
    assert x.grad is not None and (x.grad == 0).all()
