"""Symbolic derivatives of scores, factors and values against autograd of the interpreter, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, note, settings
from torch import Tensor

from attnlang import AttnlangError, Pattern, load, parse
from attnlang.ir import pattern as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.interpret import Inputs, table
from attnlang.ir.pattern import (
    BATCH,
    FEATURE,
    HEAD,
    NK,
    NQ,
    OPERATIONS,
    SCALE,
    Apply,
    Attention,
    Axis,
    B,
    Expr,
    H,
    Index,
    Let,
    Literal,
    Read,
    Reduce,
    TensorAxis,
    storage,
)  # fmt: skip
from attnlang.passes.derivative import CHOOSING, PARTIALS, gradient
from attnlang.passes.derivative_parts import Part, parts
from attnlang.passes.specialize import specialize, static_parameters
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import narrowed
from tests.predicates import PARAMETERS
from tests.test_random_kernels import TENSORS as DECLARED
from tests.test_random_kernels import scores
from tests.test_random_kernels import tensors as contents

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
SEED = "seed"


def sizes_of(q: Tensor, k: Tensor, v: Tensor) -> dict[str, int]:
    """B H HK NQ NK D DV."""
    shape = {"B": q.shape[0], "H": q.shape[1], "HK": k.shape[1], "NQ": q.shape[2], "NK": k.shape[2]}
    return {**shape, "D": q.shape[3], "DV": v.shape[3]}


def written_out(
    attention: Attention, expr: Expr, tensor: str, feature: Axis, facts: Facts
) -> tuple[tuple[Part, ...], Expr, tuple[Axis, ...]]:
    """The parts of the derivative, as one expression over (b, h, token, feature)."""
    query, key = attention.rows[-1], attention.over
    seed = Read(SEED, (Index(BATCH), Index(HEAD), storage(query), storage(key)))
    terms = gradient(expr, seed, tensor, feature, facts)
    kept, summed = (query, key) if tensor == "Q" else (key, query)
    found = parts(terms, kept, summed, feature)
    total: Expr = Literal(0.0)
    for part in found:
        inside = Apply("mul", (part.weight, part.vector))
        total = Apply("add", (total, Apply("mul", (part.outer, Reduce("sum", (summed,), inside)))))
    return found, total, (BATCH, HEAD, kept, feature)


def check(
    pattern: ir.Pattern, attention: Attention, expr: Expr, inputs: Inputs, wanted: str = "QKV"
) -> dict[str, tuple[Part, ...]]:
    """Holds the derivative by Q, K and V of Σ seed · expr against autograd; returns its parts."""
    shape = tuple(inputs.sizes[name] for name in ("B", "H", "NQ", "NK"))
    seed = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seed = torch.where(torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.3, 0.0, seed)
    axes = tuple(TensorAxis("", size) for size in (B, H, NQ, NK))
    declared = replace(
        pattern, tensors=(*pattern.tensors, ir.Tensor(SEED, axes)), result="",
        stages=tuple(stage for stage in pattern.stages if not isinstance(stage, Attention)),
    )  # fmt: skip
    given = replace(inputs, tensors={**inputs.tensors, SEED: seed})
    values = {name: t.clone().requires_grad_() for name, t in inputs.everything().items() if name in "QKV"}
    live = replace(given, q=values["Q"], k=values["K"], v=values["V"])
    whole = Let("whole", (*attention.rows, attention.over), expr)
    with torch.enable_grad():
        total = _table(declared, whole, live, pairs=True)
        summed = (torch.where(seed == 0, 0.0, total) * seed).sum()
        names = [name for name in wanted if summed.requires_grad]
        grads = torch.autograd.grad(summed, [values[n] for n in names], allow_unused=True) if names else ()
    facts = Facts.of(pattern.parameters)
    result: dict[str, tuple[Part, ...]] = {}
    for name, grad in zip(names, grads, strict=True):
        size = inputs.sizes["D"] if name != "V" else inputs.sizes["DV"]
        feature = replace(FEATURE, size=Literal(size), name="d" if name != "V" else "e")
        found, written, places = written_out(attention, expr, name, feature, facts)
        result[name] = found
        if grad is None:
            assert not found
            continue
        value = _table(declared, Let("slope", places, written), given)
        if name != "Q":
            group = inputs.sizes["H"] // inputs.sizes["HK"]
            value = value.unflatten(1, (inputs.sizes["HK"], group)).sum(2)
        torch.testing.assert_close(value, grad, rtol=1e-9, atol=1e-9)
    return result


def _table(pattern: ir.Pattern, let: Let, inputs: Inputs, pairs: bool = False) -> Tensor:
    """The values of a table; differentiable ones are evaluated as an attention's weights are."""
    if not pairs:
        return table(replace(pattern, stages=(*pattern.stages, let)), let.name, inputs)
    from attnlang.ir.interpret_expr import Expressions
    from attnlang.ir.interpret_scope import Scope
    from attnlang.ir.interpret_stages import StageValues
    from attnlang.ir.interpret_values import expand

    symbols = {**inputs.sizes, **inputs.scalars}
    expressions = Expressions(inputs.everything(), symbols, torch.float64, inputs.device())
    StageValues(pattern, expressions)
    scope = Scope({})
    value = expressions.floats(let.body, scope)
    return expand(value, let.axes, [expressions.length(axis, scope) for axis in let.axes])


def inputs_of(
    pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, tensors: Mapping[str, Tensor], **scalars: Any
) -> Inputs:
    """A call in float64."""
    sizes = sizes_of(q, k, v)
    defaults = {name: p.default for name, p in pattern.params.items() if p.default is not None}
    offset = sizes["NK"] - sizes["NQ"]
    given = {name: value for name, value in scalars.items() if value is not None}
    known: dict[str, Any] = {"q_offset": offset, "scale": sizes["D"] ** -0.5, **defaults, **given}
    high = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    return Inputs(q.double(), k.double(), v.double(), sizes, known, high)


def special(pattern: Pattern, inputs: Inputs) -> ir.Pattern:
    """The pattern with its head sizes and static parameters as numbers."""
    statics = {name: inputs.scalars[name] for name in static_parameters(pattern.ir)}
    return specialize(pattern.ir, inputs.sizes["D"], inputs.sizes["DV"], statics)


@pytest.mark.parametrize("case", [cases(name)[0] for name in NAMES], ids=lambda case: case.id)
def test_scores_of_the_catalogue(case: Case) -> None:
    pattern = load(EXAMPLES / f"{case.name}.attn")
    low = narrowed(case.make_inputs(0), torch.float64)
    q, k, v = (low.pop(name) for name in "qkv")
    inputs = inputs_of(
        pattern, q, k, v, low, **{**case.params, "scale": case.scale, "q_offset": case.q_offset}
    )
    meaning = special(pattern, inputs)
    for stage in meaning.stages:
        if isinstance(stage, Attention):
            found = check(meaning, stage, stage.score, inputs)
            if DEFINITIONS[case.name].section == "A":  # one matrix product each, the scale outside it
                assert [(len(own), own[0].mixed, own[0].is_row) for own in (found["Q"], found["K"])] == [
                    (1, False, False)
                ] * 2
                assert found["Q"][0].outer == SCALE and not found["V"]


PATTERN = "pattern p({parameters}):\n{tensors}    score {score}\n    value {value}\n"


def pattern_of(score: str, value: str = "V[k]") -> Pattern:
    """A pattern of this score, with the tensors it reads declared."""
    lines = [line for line in DECLARED.splitlines() if line.strip()]
    read = [line for line in lines if line.split()[1].split("[")[0] + "[" in score + value]
    declared = "".join(f"{line}\n" for line in read)
    return parse(PATTERN.format(parameters=PARAMETERS, tensors=declared, score=score, value=value))


def attention_of(pattern: ir.Pattern) -> Attention:
    """Its only attention."""
    return next(stage for stage in pattern.stages if isinstance(stage, Attention))


def check_text(
    score: str, D: int = 6, NQ: int = 5, NK: int = 7, H: int = 2, HK: int = 1
) -> dict[str, tuple[Part, ...]]:
    """`check` for a score as text."""
    pattern = pattern_of(score)
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(s, generator=generator) for s in ((2, H, NQ, D), (2, HK, NK, D), (2, HK, NK, D)))
    given = {n: t for n, t in contents(2, H, HK, NQ, NK, D).items() if n in pattern.tensors}
    inputs = inputs_of(pattern, q, k, v, given)
    meaning = special(pattern, inputs)
    return check(meaning, attention_of(meaning), attention_of(meaning).score, inputs)


@given(scores())
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_scores(score: str) -> None:
    note(score)
    try:
        pattern_of(score)
    except AttnlangError as mistake:  # a text that means nothing, such as a score that is a whole number
        note(str(mistake))
        assume(False)
    check_text(score)


DOT = "Q[q] @ K[k] * scale"
EACH_OPERATION: dict[str, str] = {
    "add": f"{DOT} + 1", "sub": f"1 - {DOT}", "mul": f"({DOT}) * ({DOT})", "div": f"({DOT}) / (2 + cos({DOT}))",
    "floordiv": f"({DOT}) // 0.3 + {DOT}", "mod": f"({DOT}) mod 0.7", "pow": f"(2 + tanh({DOT})) ** (1 + sin({DOT}))",
    "neg": f"-({DOT})", "min": f"min({DOT}, 0.1)", "max": f"max({DOT}, Q[q] @ Q[q])", "abs": f"abs({DOT})",
    "sign": f"sign({DOT}) + {DOT}", "where": f"{DOT} if k <= q else sin({DOT})", "exp": f"exp({DOT})",
    "exp2": f"exp2({DOT})", "expm1": f"expm1({DOT})", "log": f"ln(3 + tanh({DOT}))", "log2": f"log2(3 + cos({DOT}))",
    "log1p": f"log1p(abs({DOT}))", "sqrt": f"sqrt(abs({DOT}))", "rsqrt": f"rsqrt(1 + ({DOT}) ** 2)",
    "sin": f"sin({DOT})", "cos": f"cos({DOT})", "tanh": f"tanh({DOT})", "sigmoid": f"sigmoid({DOT})",
    "softplus": f"softplus({DOT})", "erf": f"erf({DOT})", "atan": f"atan({DOT})", "detach": f"detach({DOT}) * ({DOT})",
    "floor": f"floor({DOT}) * ({DOT})", "ceil": f"ceil({DOT}) * ({DOT})", "round": f"round({DOT}) * ({DOT})",
    "int": f"int({DOT}) * ({DOT})", "float": f"float({DOT})",
    **{op: f"{DOT} if {DOT} {sign} 0.2 else 2 * ({DOT})" for op, sign in
       (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!="))},
    "and": f"{DOT} if {DOT} > 0 and {DOT} < 1 else 0", "or": f"{DOT} if {DOT} < 0 or {DOT} > 1 else 0",
    "not": f"{DOT} if not {DOT} < 0 else 0",
}  # fmt: skip
EACH_FORM: dict[str, str] = {
    "a cube": f"({DOT}) ** 3", "a negative power": f"(2 + cos({DOT})) ** (-2)", "a root": f"abs({DOT}) ** 0.5",
    "cosine": "cosine(Q[q], K[k])", "one feature": "Q[b, h, q, 1] * K[b, g, k, 0]",
    "largest": "max(Q[b, h, q, d] * coat[h, d] for d in D)", "least": "min(K[b, g, k, d] for d in D) * Q[b, h, q, 0]",
    "mean": "mean(Q[b, h, q, d] * K[b, g, k, d] for d in D if d mod 2 == 0)",
    "logsumexp": "logsumexp(Q[b, h, q, d] * K[b, g, k, d] for d in D)",
    "mixed": "sum(tanh(Q[b, h, q, d] + K[b, g, k, d]) for d in D)",
    "rectified": "sum(max(Q[b, h, q, d], 0) * max(K[b, g, k, d], 0) for d in D)",
    "nested": "sum(sum(Q[b, h, q, d] * K[b, g, k, d] for d in D) * coat[h, e] * Q[b, h, q, e] for e in D)",
    "infinite where hidden": "(ln(q - k) if q > k else 0) * (Q[q] @ K[k])",
}  # fmt: skip


def test_every_operation_has_its_case() -> None:
    assert set(EACH_OPERATION) == set(PARTIALS) | set(CHOOSING) == set(OPERATIONS)


@pytest.mark.parametrize("name", [*EACH_OPERATION, *EACH_FORM])
def test_each(name: str) -> None:
    check_text({**EACH_OPERATION, **EACH_FORM}[name])


def test_rectified_features_stay_matrix_products() -> None:
    for parts_of in check_text(EACH_FORM["rectified"]).values():
        assert all(not part.mixed for part in parts_of)
