"""The verifier of pattern IR: what the elaborator makes passes, and every broken rule is named with its pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attnlang.ir.pattern import (
    BATCH,
    DV,
    FEATURE,
    HEAD,
    KEY,
    NK,
    ONE,
    QUERY,
    TRUE,
    VALUE_FEATURE,
    ZERO,
    Apply,
    Attention,
    Axis,
    Expr,
    Formula,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Requirement,
    Select,
    Stage,
    Symbol,
    Tensor,
    TensorAxis,
    storage,
)
from attnlang.ir.text import pattern_text
from attnlang.ir.verify import VerificationError, verify
from tests.catalogue import EXAMPLES, example

ROWS = (BATCH, HEAD, QUERY)
PAIRS = tuple(storage(axis) for axis in (*ROWS, KEY))
ATTENTION = Attention(
    "a",
    ROWS,
    KEY,
    VALUE_FEATURE,
    TRUE,
    TRUE,
    Literal(1.0),
    (Formula(Read("a.step0", PAIRS)),),
    None,
    Index(VALUE_FEATURE),
)
OUTPUT = Read("a", (*(storage(axis) for axis in ROWS), Index(VALUE_FEATURE)))
GOOD = Pattern("p", "", (), (), (), (*ROWS, VALUE_FEATURE), (ATTENTION,), OUTPUT, "a")


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.attn")))
def test_elaborated_patterns_keep_the_rules(name: str) -> None:
    verify(example(name), after="elaborate")


def test_a_small_pattern_keeps_the_rules() -> None:
    verify(GOOD, after="nothing")


def with_score(score: Expr) -> Pattern:
    """The small pattern with another score."""
    return replace(GOOD, stages=(replace(ATTENTION, score=score),))


def with_stage(*stages: Stage) -> Pattern:
    """The small pattern behind other stages."""
    return replace(GOOD, stages=(*stages, ATTENTION))


INNER = Axis("i", Literal(4), "range")
OTHER = replace(ATTENTION, name="c", rows=(BATCH, HEAD, Axis("m", NK, "range")), normalize=())

BROKEN = {
    "has no value": with_score(Index(FEATURE)),
    "the index 'k' has no value": replace(GOOD, output=Index(KEY)),
    "unknown operation 'twice'": with_score(Apply("twice", (ONE,))),
    "'add' has 1 operands": with_score(Apply("add", (ONE,))),
    "operand 1 of 'add' is bool": with_score(Apply("add", (TRUE, ONE))),
    "operand 2 of 'and' is int": with_score(Apply("int", (Apply("and", (TRUE, ONE)),))),
    "operand 1 of 'where' is int": with_score(Apply("where", (ONE, ONE, ZERO))),
    "'eq' of bool and int": with_score(Apply("int", (Apply("eq", (TRUE, ONE)),))),
    "true is bool, not float": with_score(TRUE),
    "1 is int, not bool": replace(GOOD, stages=(replace(ATTENTION, mask=ONE),)),
    "'x' cannot be read here": with_score(Read("x", ())),
    "'Q' takes 4 indices, not 1": with_score(Read("Q", (ZERO,))),
    "'Q' is float, read as int": with_score(Read("Q", (ZERO,) * 4, "int")),
    "1.5 is float, not int": with_score(Read("Q", (Literal(1.5), ZERO, ZERO, ZERO))),
    "the symbol 'size' is not known": with_score(Symbol("size", "int")),
    "the symbol 'NK' is not known as float": with_score(Symbol("NK", "float")),
    "sum over nothing": with_score(Reduce("sum", (), ONE)),
    "the index 'k' is bound twice": with_score(Reduce("sum", (KEY,), ONE)),
    "any of int": with_score(Apply("int", (Reduce("any", (INNER,), ONE),))),
    "sum of bool": with_score(Reduce("sum", (INNER,), TRUE)),
    "two of the axes i, i": with_score(Reduce("sum", (INNER, INNER), ONE)),
    "'a.step1' cannot be read here": replace(
        GOOD, stages=(replace(ATTENTION, normalize=(Formula(Read("a.step1", PAIRS)),)),)
    ),
    "'a.normalized' cannot be read here": with_score(Read("a.normalized", PAIRS)),
    "'a' cannot be read here": with_stage(Let("t", (KEY,), Read("a", (ZERO,) * 4))),
    "'a.lse' cannot be read here": replace(
        GOOD, stages=(replace(ATTENTION, has_lse=False),), output=Read("a.lse", (ZERO,) * 3)
    ),
    "'a' is defined twice": with_stage(ATTENTION),
    "'Q' is defined twice": with_stage(Let("Q", (KEY,), ONE, "int")),
    "1 is int, not bool_": with_stage(Let("t", (KEY,), ONE, "bool")),
    "is float, not int": with_stage(Let("t", (KEY,), Literal(1.0), "int")),
    "do not begin with batch and head": replace(
        GOOD, stages=(replace(ATTENTION, rows=(QUERY, BATCH, HEAD)),)
    ),
    "does not merge two or more attentions": replace(GOOD, stages=(ATTENTION, Merge("m", ("a",)))),
    "differ in their rows or features": replace(GOOD, stages=(ATTENTION, OTHER, Merge("m", ("a", "c")))),
    "the token stands at 4": with_stage(Recurrence("r", (BATCH,), KEY, 4, Literal(0.0))),
    "'r.previous' takes 1 indices, not 0": with_stage(
        Recurrence("r", (BATCH,), KEY, 1, Read("r.previous", ()))
    ),
    "the index 'h' has no value": with_stage(Recurrence("r", (BATCH,), KEY, 1, Index(HEAD))),
    "the index 'i' has no value": with_stage(Select("s", (), (INNER,), "top", Index(INNER), ONE, TRUE, TRUE)),
    "the result 't' is no attention": replace(with_stage(Let("t", (KEY,), ONE, "int")), result="t"),
    "requirement 'q': the index 'q'": replace(
        GOOD, requirements=(Requirement(Apply("lt", (Index(QUERY), ONE)), "q"),)
    ),
    "tensor x: the index 'k'": replace(GOOD, tensors=(Tensor("x", (TensorAxis("k", Index(KEY)),)),)),
}


@pytest.mark.parametrize(("problem", "pattern"), BROKEN.items(), ids=BROKEN)
def test_a_broken_rule_is_named(problem: str, pattern: Pattern) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(pattern, after="the pass")
    assert str(caught.value).startswith("after the pass: ")
    assert problem.rstrip("_") in str(caught.value)
    assert caught.value.after == "the pass"


def test_texts_of_different_examples_differ() -> None:
    texts = [pattern_text(example(path.stem)) for path in sorted(Path(EXAMPLES).glob("*.attn"))]
    assert len({text.split("\n", 1)[1] for text in texts}) > 0.9 * len(texts)
    assert all(DV.name in text for text in texts)
