"""Definitions and files: what a definition sees, what an import brings, and that everything ends."""

from __future__ import annotations

from attnlang import errors_meaning
from attnlang.ir.text import expression_text
from tests.test_elaborate import attention, body, mistakes, whole

# --------------------------------------------------------------------------------------------- definitions


def test_parameters_of_a_definition_are_its_own() -> None:
    text = "def shift(k, x) = k + x\ndef twice(x) = shift(x, x)\npattern test():\n    score twice(q) + shift(k, q)\n"
    assert expression_text(attention(whole(text)).score) == "q + q + (k + q)"


def test_arguments_are_not_captured() -> None:
    text = "def total(x) = sum(x * i for i in 4)\npattern test():\n    score sum(total(i) for i in 3)\n"
    assert expression_text(attention(whole(text)).score) == "sum(sum(i_1 * i_2 for i_2 in 4) for i_1 in 3)"


def test_indices_are_those_of_the_place_of_use() -> None:
    text = "def here = Q[q] @ K[k]\npattern test():\n    score sum(here for k in keys if k < 4)\n"
    assert "K[b, h // (H // HK), k_1, d_1]" in expression_text(attention(whole(text)).score)


def test_functions_and_names_live_apart() -> None:
    pattern = body("sparsity window(window)", parameters="window: int = 8")
    assert expression_text(attention(pattern).sparsity) == "0 <= q - k and q - k < window"


def test_a_tensor_hides_the_weight() -> None:
    stage = attention(body("tensor w[h]", "reweight s * w[h]"))
    assert stage.reweight is not None
    assert expression_text(stage.reweight) == "attention.normalized[b, h, q - q_offset, k] * w[h]"


def test_bounds_of_definitions_become_requirements() -> None:
    text = "def near(size: int >= 1) = q - k < size\npattern test(size: int = 4):\n    mask near(size)\n"
    assert "size >= 1" in [requirement.written for requirement in whole(text).requirements]
    (mistake,) = mistakes(text.replace("near(size)\n", "near(0)\n"))
    assert isinstance(mistake, errors_meaning.WrongArguments)


# ----------------------------------------------------------------------------------------------------- files


def test_imports_bring_definitions_and_patterns() -> None:
    other = 'import "third.attn"\ndef near(n) = far(n) and causal\npattern base():\n    mask causal\n'
    text = 'import "other.attn"\npattern test():\n    mask near(4)\n    assert equal(base)\n'
    pattern = whole(text, other=other, third="def far(n) = q - k < n\n")
    assert expression_text(attention(pattern).mask) == "q - k < 4 and k <= q"
    assert [(claim.kind, claim.other) for claim in pattern.claims] == [("equal", "base")]


def test_own_definitions_come_before_imported_ones() -> None:
    text = 'import "other.attn"\ndef near(n) = k < n\npattern test():\n    mask near(4)\n'
    assert expression_text(attention(whole(text, other="def near(n) = q < n\n")).mask) == "k < 4"
    used = 'import "other.attn"\ndef near(n) = k < n\npattern test():\n    mask wide\n'
    other = "def near(n) = q < n\ndef wide = near(7)\n"
    assert expression_text(attention(whole(used, other=other)).mask) == "q < 7"


def test_a_missing_import() -> None:
    (mistake,) = mistakes('import "other.attn"\npattern test():\n    mask causal\n')
    assert str(mistake) == (
        "test.attn:1:1: error[E231]: the import 'other.attn' was not found\n"
        "    |\n"
        '  1 | import "other.attn"\n'
        "    | ^^^^^^^^^^^^^^^^^^^"
    )


def test_which_pattern_of_a_file() -> None:
    text = "pattern one():\n    mask causal\npattern two():\n    mask k != q\n"
    assert whole(text, "two").name == "two"
    assert [str(mistake) for mistake in mistakes(text)] == [
        "error[E214]: this file has several patterns (one, two): which one?\n  give its name"
    ]
    assert [str(mistake) for mistake in mistakes(text, "tow")] == [
        "error[E214]: there is no pattern 'tow' in this file\n  did you mean 'two'?"
    ]
    assert [str(mistake) for mistake in mistakes("def near(n) = q - k < n\n")] == [
        "error[E214]: there is no pattern in this file\n  a pattern begins with 'pattern name(parameters):'"
    ]


def test_mistakes_in_an_imported_definition_are_shown_where_it_is_used() -> None:
    text = 'import "other.attn"\npattern test():\n    mask near(4)\n'
    (mistake,) = mistakes(text, other="def near(n) = q - k + (q < n)\n")
    assert isinstance(mistake, errors_meaning.WrongInside)
    assert mistake.span is not None
    assert mistake.span.text == "near(4)"


# ------------------------------------------------------------------------------------------------- sizes


def test_definitions_cannot_explode() -> None:
    steps = "\n".join(f"def f{n}(x) = f{n - 1}(f{n - 1}(x))" for n in range(1, 40))
    found = mistakes(f"def f0(x) = x + x\n{steps}\npattern test():\n    score f39(q)\n")
    assert {type(mistake) for mistake in found} <= {
        errors_meaning.ExpandsTooFar,
        errors_meaning.DependsOnItself,
    }


def test_long_and_deep_files_end() -> None:
    doubled = "".join(f"    let x{n} = x{n - 1} + x{n - 1}\n" for n in range(1, 40))
    found = mistakes(f"pattern test():\n    let x0 = q\n{doubled}    score x39\n")
    assert {type(mistake) for mistake in found} <= {errors_meaning.ExpandsTooFar, errors_meaning.NestsTooFar}
    chained = "".join(f"    let x{n} = abs(x{n - 1})\n" for n in range(1, 200))
    (mistake,) = mistakes(f"pattern test():\n    let x0 = q\n{chained}    score x199\n")
    assert isinstance(mistake, errors_meaning.NestsTooFar)
    tables = "".join(f"    let x{n}[q] = abs(x{n - 1}[q])\n" for n in range(1, 200))
    assert len(whole(f"pattern test():\n    let x0[q] = q\n{tables}    score x199[q]\n").stages) == 201
    backwards = "".join(f"    let x{n - 1}[q] = abs(x{n}[q])\n" for n in range(1, 200))
    found = mistakes(f"pattern test():\n{backwards}    let x199[q] = q\n    score x0[q]\n")
    assert {type(mistake) for mistake in found} == {errors_meaning.NestsTooFar}
    many = " and ".join(f"k != {n}" for n in range(700))
    shown = expression_text(attention(body(f"mask {many}")).mask)
    assert shown.replace("(", "").replace(")", "") == many
