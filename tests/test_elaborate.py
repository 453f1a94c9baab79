"""From tree to meaning: the same meaning written in two ways, what is recognized, what a definition can see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnlang import errors_meaning
from attnlang.elaborate import elaborate
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.grammar.parser import parse_file
from attnlang.ir.pattern import (
    DV,
    KEY,
    KV_HEAD,
    NK,
    Attention,
    Formula,
    Let,
    Literal,
    Merge,
    Pattern,
    Recurrence,
    Select,
    Symbol,
    Threshold,
    dtype_of,
)
from attnlang.ir.text import expression_text, pattern_text
from attnlang.ir.verify import verify
from attnlang.source import Source

ROOT = Path(__file__).parent.parent
PRELUDE = parse_file(Source("prelude.attn", (ROOT / "attnlang" / "prelude.attn").read_text(encoding="utf-8")))


def whole(text: str, name: str | None = None, **imported: str) -> Pattern:
    """The meaning of a file; `imported` gives the texts behind "name.attn"."""
    files = {f"{key}.attn": parse_file(Source(f"{key}.attn", other)) for key, other in imported.items()}
    pattern = elaborate(parse_file(Source("test.attn", text)), name, files, PRELUDE)
    verify(pattern, after="elaborate")
    return pattern


def body(*lines: str, parameters: str = "") -> Pattern:
    """A pattern with these lines."""
    return whole(f"pattern test({parameters}):\n" + "".join(f"    {line}\n" for line in lines))


def mistakes(text: str, name: str | None = None, **imported: str) -> list[Diagnostic]:
    """What is reported about a file."""
    with pytest.raises(Diagnostics) as caught:
        whole(text, name, **imported)
    return caught.value.errors


def attention(pattern: Pattern, name: str = "attention") -> Attention:
    """One of its attentions."""
    stage = next(stage for stage in pattern.stages if stage.name == name)
    assert isinstance(stage, Attention)
    return stage


def score(text: str, *lines: str, parameters: str = "") -> str:
    """How the dump shows a score."""
    return expression_text(attention(body(*lines, f"score {text}", parameters=parameters)).score)


# ------------------------------------------------------------------------------ one meaning, written in two ways

SAME = [
    ("full() is full() with every section", "mask causal", "mask k <= q\nscore Q[q] @ K[k] * scale\nvalue V[k]"),
    ("normalize softmax is the default", "normalize softmax", "normalize exp(s) / sum(exp(s))"),
    ("a definition without parentheses", "mask causal()", "mask causal"),
    ("written out inputs", "score Q[q] @ K[k]", "score Q[b, h, q] @ K[b, g(h), k]"),
    ("g alone is g(h)", "score Q[q] @ K[b, g, k]", "score Q[q] @ K[k]"),
    ("the unnamed attention is the output", "mask causal", "mask causal\noutput attention"),
    ("abbreviations", "let gap = q - k\nmask gap >= 0", "mask q - k >= 0"),
    ("order does not matter", "mask a[q] > k\nlet a[q] = q + 1", "let a[q] = q + 1\nmask a[q] > k"),
    ("what is not used is left out", "let unused[q] = q + 1\nmask causal", "mask causal"),
    ("conditions in a chain", "mask 0 <= q - k < 4", "mask 0 <= q - k and q - k < 4"),
    ("numbers are folded", "mask k < 2 * 8 + 1", "mask k < 17"),
    ("the number stands second in max", "score max(0, Q[q] @ K[k])", "score max(Q[q] @ K[k], 0)"),
    ("relu", "score relu(Q[q] @ K[k])", "score max(Q[q] @ K[k], 0)"),
    ("clip", "score clip(Q[q] @ K[k], -1, 1)", "score min(max(Q[q] @ K[k], -1), 1)"),
    ("ln", "score ln(q + 1)", "score log(q + 1)"),
    ("sum of a vector", "score sum(Q[q] * K[k])", "score Q[q] @ K[k]"),
    ("min of three", "score min(q, k, 7)", "score min(min(q, k), 7)"),
    ("where", "score where(q < k, 1.0, 2)", "score 1.0 if q < k else 2"),
    ("double negation", "mask not not causal", "mask causal"),
    ("window", "sparsity window(8)", "sparsity 0 <= q - k < 8"),
    ("a tensor handed to a definition", "tensor t[b, n]: int\nmask document(t)",
     "tensor t[b, n]: int\nmask k <= q and t[b, q] == t[b, k]"),
    ("named arguments", "sparsity dilated(step=2, size=8)", "sparsity dilated(8, 2)"),
    ("a name for a merge", "branch x:\n    mask causal\nbranch y:\n    mask k > q\nlet m = merge(x, y)\noutput m",
     "let m = merge(x, y)\nbranch x:\n    mask causal\nbranch y:\n    mask k > q\noutput merge(x, y)"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_two_texts_have_one_meaning(left: str, right: str) -> None:
    first, second = body(*left.split("\n")), body(*right.split("\n"))
    if "merge" in left:
        renamed = pattern_text(second).replace("merge_1", "m")
        assert sorted(pattern_text(first).split("\n")) == sorted(renamed.split("\n"))
    else:
        assert first == second


def test_text_of_a_pattern() -> None:
    pattern = body(
        "tensor slopes[h]", "mask causal", "score Q[q] @ K[k] - slopes[h] * (q - k)", parameters="size = 8"
    )
    assert pattern_text(pattern) == (
        "pattern test\n"
        "  parameter size: int = 8\n"
        "  tensor slopes[h]: float\n"
        "  require H mod HK == 0\n"
        "  attention attention[b in B, h in H, q in NQ from q_offset] over k in NK\n"
        "    mask k <= q\n"
        "    sparsity true\n"
        "    score sum(Q[b, h, q - q_offset, d_1] * K[b, h // (H // HK), k, d_1] for d_1 in D) - slopes[h] * (q - k)\n"
        "    normalize (softmax) exp(attention.step0[b, h, q - q_offset, k])"
        " / sum(exp(attention.step0[b, h, q - q_offset, k_1]) for k_1 in NK"
        " if attention.visible[b, h, q - q_offset, k_1])\n"
        "    value[e in DV] V[b, h // (H // HK), k, e]\n"
        "    lse yes\n"
        "  output[b in B, h in H, q in NQ from q_offset, e in DV] = attention[b, h, q - q_offset, e]\n"
        "  result attention\n"
    )


# ----------------------------------------------------------------------------------------- kinds of numbers

KINDS = [
    ("q", "int"), ("q + 1", "int"), ("q + 1.0", "float"), ("q / 2", "float"), ("q // 2", "int"), ("q mod 2", "int"),
    ("k ** 2", "int"), ("k ** 0.5", "float"), ("2 ** k", "int"), ("2 ** q", "float"), ("2 ** (q - k)", "float"),
    ("size ** low", "int"), ("size ** any", "float"), ("int(q < k)", "int"), ("float(q)", "float"),
    ("floor(q / 2)", "int"), ("exp(q)", "float"), ("max(q, k)", "int"), ("max(q, 0.5)", "float"),
    ("sum(i for i in 4)", "int"), ("mean(i for i in 4)", "float"), ("count(i < 2 for i in 4)", "int"),
    ("(1 if q < k else 2)", "int"), ("(1 if q < k else 0.5)", "float"), ("max(2 ** e for e in 31 if e < 4)", "int"),
    ("abs(q - k)", "int"), ("scale", "float"), ("NK", "int"), ("size", "int"), ("log(q + 1)", "float"),
    ("weight[h]", "float"), ("number[h]", "int"), ("number[h] * 2", "int"), ("number[h] * weight[h]", "float"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_ints_stay_ints(text: str, kind: str) -> None:
    lines = ("tensor weight[h]", "tensor number[h]: int", f"score {text}")
    pattern = body(*lines, parameters="size: int >= 1 = 2, low: int >= 0 = 1, any: int = 1")
    assert dtype_of(attention(pattern).score) == kind


# ------------------------------------------------------------------------------------------------ normalizers

NORMALIZERS = [
    ("softmax", "softmax", True), ("exp(s) / sum(exp(s))", "softmax", True),
    ("exp(s - max(s)) / sum(exp(s - max(s)))", "softmax", True),
    ("exp(s - bias[h]) / sum(exp(s - bias[h]))", "softmax", True),
    ("exp(s - bias[h]) / sum(exp(s))", "", True), ("exp(s - tilt[k]) / sum(exp(s - tilt[k]))", "", False),
    ("exp(2 * s) / sum(exp(2 * s))", "", False), ("softmax_one", "", True),
    ("exp(s) / (exp(bias[h]) + sum(exp(s)))", "", True), ("exp(s) / count", "", False), ("exp(s)", "", False),
    ("s / sum(s)", "", False), ("sigmoid(s)", "", False), ("l1", "", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "lse"), NORMALIZERS)
def test_softmax_is_recognized(text: str, kind: str, lse: bool) -> None:
    stage = attention(body("tensor bias[h]", "tensor tilt[k]", f"normalize {text}"))
    (step,) = stage.normalize
    assert isinstance(step, Formula)
    assert (step.kind, stage.has_lse) == (kind, lse)


def test_steps_read_what_the_step_before_left() -> None:
    stage = attention(body("normalize softplus(s) | l1 | s ** 3", "reweight w * 2 + w[0]"))
    texts = [expression_text(step.body) for step in stage.normalize if isinstance(step, Formula)]
    for number, text in enumerate(texts):
        assert f"attention.step{number}[" in text
        assert f"attention.step{number + 1}[" not in text
    assert stage.reweight is not None
    assert expression_text(stage.reweight) == (
        "attention.normalized[b, h, q - q_offset, k] * 2 + attention.normalized[b, 0, q - q_offset, k]"
    )
    assert not stage.has_lse


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("sparsemax", "sparsemax", Literal(2.0)),
        ("entmax(1.5)", "entmax", Literal(1.5)),
        ("sinkhorn(size)", "sinkhorn", Symbol("size", "int")),
        ("top(size)", "top", Symbol("size", "int")),
    ],
)
def test_steps_with_a_threshold(text: str, kind: str, amount: Literal | Symbol) -> None:
    stage = attention(body(f"normalize {text}", parameters="size: int = 4"))
    (step,) = stage.normalize
    assert isinstance(step, Threshold)
    assert (step.kind, step.amount) == (kind, amount)
    assert not stage.has_lse


def test_a_softmax_behind_top_has_a_lse() -> None:
    assert attention(body("normalize top(4) | softmax")).has_lse
    assert not attention(body("normalize sparsemax | softmax")).has_lse


def test_a_normalizer_over_queries_sums_over_queries() -> None:
    pattern = whole("pattern test():\n    normalize exp(s) / sum(exp(s)) over q\n")
    (step,) = attention(pattern).normalize
    assert isinstance(step, Formula)
    assert step.kind == ""
    assert "for q_1 in NQ from q_offset if attention.visible[b, h, q_1 - q_offset, k]" in expression_text(
        step.body
    )


# --------------------------------------------------------------------------------------------------- results

BRANCHES = "    branch x:\n        mask causal\n    branch y:\n        mask k > q\n"
RESULTS = [
    ("    mask causal\n", "attention"), ("    output 2 * attention\n", "attention"),
    ("    output attention / NK - attention\n", "attention"), ("    output attention + Q[q] @ Q[q]\n", ""),
    ("    output attention * attention\n", ""), ("    output tanh(attention)\n", ""),
    ("    weight Q[q] @ K[k]\n", "attention"), (f"{BRANCHES}    output x + y\n", ""),
    (f"{BRANCHES}    output merge(x, y)\n", "merge_1"), (f"{BRANCHES}    let m = merge(x, y)\n    output 2 * m\n", "m"),
    (f"{BRANCHES}    output merge(x, y) + x\n", ""),
    ("    branch x[m in 4]:\n        score 1\n    branch y over m in 4:\n        score 1\n        value x[m]\n"
     "    output y\n", ""),
    ("    branch x[k]  over q:\n        score 1\n        value Q[q]\n    branch y:\n        score x[k] @ K[k]\n"
     "    output y\n", "y"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "result"), RESULTS)
def test_the_result_is_the_one_that_is_scaled(text: str, result: str) -> None:
    assert whole(f"pattern test():\n    require DV == D\n{text}").result == result


def test_a_single_branch_is_the_output() -> None:
    assert whole("pattern test():\n    branch x:\n        mask causal\n").result == "x"


# ------------------------------------------------------------------------------------------------- vectors


def test_features_are_one_where_lengths_are() -> None:
    for text in ("Q[q] @ V[k]", "Q[q] @ outer(K[k], V[k]) @ K[k]", "(Q[q] + V[k]) @ Q[q]"):
        (mistake,) = mistakes(f"pattern test():\n    score {text}\n")
        assert isinstance(mistake, errors_meaning.LengthsDisagree)
        assert body("require DV == D", f"score {text}").result == "attention"


def test_the_output_is_over_the_value_features() -> None:
    assert attention(body("require D == DV", "value K[k]")).feature.size == DV
    assert attention(body("require D == DV", "value V[k] + Q[q]")).feature.size == DV
    (mistake,) = mistakes("pattern test():\n    value K[k]\n")
    assert isinstance(mistake, errors_meaning.WrongShape)


def test_products_contract_the_right_sides() -> None:
    assert score("Q[q] @ outer(K[k], V[k]) @ V[k]") == (
        "sum(sum(Q[b, h, q - q_offset, d_1] * (K[b, h // (H // HK), k, d_1] * V[b, h // (H // HK), k, e_1])"
        " for d_1 in D) * V[b, h // (H // HK), k, e_1] for e_1 in DV)"
    )
    square = score("Q[q] @ outer(K[k], K[k]) @ Q[q]")
    assert square.count("d_1") == 3
    assert "K[b, h // (H // HK), k, d_1] * K[b, h // (H // HK), k, f_2]" in square


def test_vectors_of_a_tensor() -> None:
    lines = ("tensor a[h, size]", "tensor c[size, size]", "tensor u[d]", "tensor t")
    text = score("a[h] @ c @ a[h] + Q[q] @ u + a[h][1] + t", *lines, parameters="size: int = 3")
    assert "a[h, f_3] * c[f_3, f_4]" in text
    assert text.endswith("+ a[h, 1] + t[]")


# ------------------------------------------------------------------------------------------ batch and heads


def test_tables_have_the_axes_they_depend_on() -> None:
    def axes(text: str) -> list[str]:
        pattern = body(
            "blocks c of k by 4", "tensor x[b, n]", "tensor y[h]", f"let T[c] = {text}", "score T[0]"
        )
        return [axis.name for axis in pattern.stages[0].axes] if isinstance(pattern.stages[0], Let) else []

    assert axes("c * 2") == ["c"]
    assert axes("sum(x[b, k] for k in c)") == ["b", "c"]
    assert axes("y[h] + c") == ["h", "c"]
    assert axes("sum(K[k] @ K[k] for k in c)") == ["b", "g", "c"]
    assert axes("sum(K[k] @ Q[q_offset] for k in c)") == ["b", "h", "c"]
    assert axes("sum(Q[b, m, q_offset] @ K[c.first] for m in group(h))") == ["b", "g", "c"]


def test_leading_axes_are_filled_or_written() -> None:
    lines = ("blocks c of k by 4", "let T[c] = mean(K[k] for k in c)")
    filled, other = score("Q[q] @ T[0]", *lines), score("sum(Q[b, m, q] @ T[b, m, 0] for m in heads)", *lines)
    assert "T[b, h // (H // HK), 0, d_1]" in filled
    assert "T[b, m_1 // (H // HK), 0, d_1]" in other
    assert "T[b, h // (H // HK), 0, 2]" in score("T[b, g, 0, 2]", *lines)
    assert "U[0]" in score("U[b, h, 0]", "let U[i in 4] = i")


def test_the_heads_must_divide_only_where_groups_are_used() -> None:
    def required(*lines: str) -> bool:
        return any(requirement.written == "H mod HK == 0" for requirement in body(*lines).requirements)

    assert required("mask causal")
    assert not required("tensor head[h]: int", "score Q[q] @ K[b, head[h], k]", "value V[b, head[h], k]")


def test_a_choice_for_key_value_heads() -> None:
    pattern = body(
        "tensor x[b, g, n]", "select near[q] = top(4) k by x[b, g, k] where k <= q", "sparsity near(q, k)"
    )
    (choice, _) = pattern.stages
    assert isinstance(choice, Select)
    assert choice.rows[1] == KV_HEAD
    assert choice.candidates == (KEY,)
    assert "near[b, h // (H // HK), q - q_offset, k]" in expression_text(attention(pattern).sparsity)
    wide = body("tensor x[n]", "select near = top(4) n by x[n]", "sparsity near(k)").stages[0]
    assert isinstance(wide, Select)
    assert wide.rows == ()


# ------------------------------------------------------------------------------------------- whole patterns


def test_parameters_and_tensors() -> None:
    pattern = body(
        "tensor bias[h, (2 * size - 1) ** 2]",
        "tensor ids[b, n]: int",
        "score bias[h, 0] * ids[b, q]",
        parameters="size: int >= 1 <= 9 = 4, alpha: float > 0 = 1, on = true, rate = 0.5, length: int",
    )
    shown = [(p.name, p.dtype, p.bounds, p.default) for p in pattern.parameters]
    assert shown == [
        ("size", "int", (("ge", 1), ("le", 9)), 4),
        ("alpha", "float", (("gt", 0),), 1.0),
        ("on", "bool", (), True),
        ("rate", "float", (), 0.5),
        ("length", "int", (), None),
    ]
    assert [tensor.dtype for tensor in pattern.tensors] == ["float", "int"]
    assert [axis.written for axis in pattern.tensors[0].axes] == ["h", "(2 * size - 1) ** 2"]
    assert [(axis.index, axis.size) for axis in pattern.tensors[1].axes] == [
        ("b", Symbol("B", "int")),
        ("n", NK),
    ]


def test_requirements_of_a_grid() -> None:
    pattern = body(
        "grid q, k as (y: height, x: 2 * half)", "mask q.x == k.x", parameters="height: int, half: int >= 1"
    )
    written = [requirement.written for requirement in pattern.requirements]
    assert written[:2] == ["height >= 1", "NK == height * (2 * half)"]
    assert expression_text(attention(pattern).mask) == "q mod (2 * half) == k mod (2 * half)"


def test_recurrences_stand_over_what_they_depend_on() -> None:
    pattern = body(
        "tensor beta[b, g, n]",
        "state S[d, e]",
        "step S = S - beta[b, g, k] * outer(K[k], K[k] @ S) + outer(K[k], V[k])",
        "output Q[q] @ S",
    )
    (state,) = pattern.stages
    assert isinstance(state, Recurrence)
    assert [axis.name for axis in state.axes] == ["b", "g", "d", "e"]
    assert (state.token, state.position) == (KEY, 2)
    assert re.search(
        r"S\[b, h // \(H // HK\), max\(min\(q, NK - 1\), 0\), d_\d, e\] if q >= 0 else 0.0",
        expression_text(pattern.output),
    )


def test_a_merge_of_merges_is_flat() -> None:
    more = "    branch z:\n        mask k == 0\n"
    pattern = whole(f"pattern test():\n{BRANCHES}{more}    let m = merge(x, y)\n    output merge(m, z)\n")
    merge = next(
        stage for stage in pattern.stages if isinstance(stage, Merge) and stage.name == pattern.result
    )
    assert merge.parts == ("x", "y", "z")


def test_blocks_of_queries_count_rows_and_blocks_of_keys_positions() -> None:
    lines = "pattern test():\n    blocks i of q by 4\n    blocks c of k by 4\n    tensor x[i, c]\n"
    found = mistakes(f"{lines}    score x[block(q), block(k)]\n")
    assert {type(mistake) for mistake in found} == {errors_meaning.WrongBlocks}
    (mistake,) = mistakes(f"{lines}    score x[block(q, c), block(k, c)]\n")
    assert isinstance(mistake, errors_meaning.WrongAxis)
    named = attention(whole(f"{lines}    score x[block(q, i), block(k, c)]\n"))
    assert expression_text(named.score) == "x[(q - q_offset) // 4, k // 4]"
    whole(f"{lines}    require NQ == NK\n    score x[block(q), block(k)]\n")


def test_mistakes_that_a_scan_needs_first_are_heard() -> None:
    text = "pattern test():\n    scan x[n] = x[n - 1] + y[n]\n    let y[n] = n + true\n    score x[k]\n"
    (mistake,) = mistakes(text)
    assert isinstance(mistake, errors_meaning.WrongType)


def test_claims() -> None:
    pattern = body(
        "mask causal",
        "assert causal",
        "assert nonempty",
        "assert density <= 0.5 where NK = 64, NQ = 64",
        "assert rows < 9",
    )
    assert [(claim.kind, claim.comparison, claim.bound) for claim in pattern.claims] == [
        ("causal", "", None),
        ("nonempty", "", None),
        ("density", "le", Literal(0.5)),
        ("rows", "lt", Literal(9)),
    ]
    assert pattern.claims[2].where == (("NK", Literal(64)), ("NQ", Literal(64)))


def test_the_lengths_of_a_call_may_be_equal() -> None:
    text = "pattern test():\n    tensor x[q]\n    score x[k]\n"
    (mistake,) = mistakes(text)
    assert isinstance(mistake, errors_meaning.WrongAxis)
    assert body("require NQ == NK", "tensor x[q]", "score x[k]").requirements[0].written == "NQ == NK"


def test_every_code_is_shown_somewhere() -> None:
    shown = {path.name[:4] for path in (ROOT / "tests" / "errors").glob("E2*.attn")}
    here = {"E214", "E231"}
    mine = {code for code, kind in Diagnostic.registry.items() if kind.__module__ == errors_meaning.__name__}
    assert mine - shown - here == set()
