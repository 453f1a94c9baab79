"""What the grammar reads: every construct, precedence, layout, spans, many mistakes at once, and sizes that hurt."""

from __future__ import annotations

import time

import pytest

from attnlang import syntax
from attnlang.errors import Diagnostics
from attnlang.grammar.formatter import format_file
from attnlang.grammar.parser import parse_expression, parse_file
from attnlang.source import Source
from attnlang.syntax import Binary, Binder, Call, Comparison, Conditional, Logical, Name, Number, Unary


def parse(text: str) -> syntax.File:
    return parse_file(Source("p.attn", text))


def expr(text: str) -> syntax.Expr:
    return parse_expression(Source("<text>", text))


def statement(line: str) -> syntax.AnyStatement:
    """The only statement of a pattern."""
    (pattern,) = parse(f"pattern p():\n    {line}\n").items
    assert isinstance(pattern, syntax.PatternDefinition)
    (only,) = pattern.body
    return only


def mistakes(text: str) -> list[tuple[str, int, int]]:
    """Code, line and column of every report."""
    with pytest.raises(Diagnostics) as caught:
        parse(text)
    return [(e.code, e.span.line, e.span.column) for e in caught.value.errors if e.span is not None]


a, b, c, d, k, q, x = map(Name, "abcdkqx")
ONE, TWO = Number(1), Number(2)


# ---------------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a or b and not c < d", "a or (b and (not (c < d)))"),
        ("a if b or c else d if x else q", "a if (b or c) else (d if x else q)"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c @ d // x mod q / k", "a + (((((b * c) @ d) // x) mod q) / k)"),
        ("-a ** -b ** c", "-(a ** (-(b ** c)))"),
        ("-a * b", "(-a) * b"),
        ("a * -b", "a * (-b)"),
        ("not not a == b", "not (not (a == b))"),
        ("a.b[c].d", "((a.b)[c]).d"),
        ("a +\n  b", "(a + b)"),
    ],
)
def test_precedence(text: str, same: str) -> None:
    assert expr(text) == expr(same)


def test_shapes_of_expressions() -> None:
    assert expr("a <= b < c != d") == Comparison(a, (("<=", b), ("<", c), ("!=", d)))
    assert expr("a and b and c") == Logical("and", (a, b, c))
    assert expr("(a and b) and c") == Logical("and", (Logical("and", (a, b)), c))
    assert expr("a if b else c") == Conditional(b, a, c)
    assert expr("-1") == Unary("-", ONE)
    assert expr("a ** 2 mod b") == Binary("mod", Binary("**", a, TWO), b)
    assert expr("f(a, b, x=c,)") == Call(Name("f"), (a, b), (("x", c),))
    assert expr("f()") == Call(Name("f"), ())
    assert expr("sum(a[k] for k in 2 * x if k < q)") == syntax.Reduction(
        Name("sum"), syntax.Subscript(a, (k,)), "k", Binary("*", TWO, x), Comparison(k, (("<", q),))
    )
    assert expr("true or False") == Logical("or", (syntax.Boolean(True), syntax.Boolean(False)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), ("1_000", 1000), ("0.5", 0.5), (".5", 0.5), ("1e-6", 1e-6), ("2.5E+3", 2500.0), ("007", 7)],
)
def test_numbers(text: str, value: float) -> None:
    number = expr(text)
    assert number == Number(value)
    assert isinstance(number, Number) and type(number.value) is type(value)


def test_keywords_are_names_where_no_keyword_can_stand() -> None:
    assert statement("let mask = score + by * over") == syntax.Let(
        "mask", (), Binary("+", Name("score"), Binary("*", Name("by"), Name("over")))
    )
    assert statement("tensor value[pattern]") == syntax.TensorDeclaration("value", (Name("pattern"),))
    assert statement("score orb + iffy - notes * inner") == statement(
        "score ((orb) + (iffy)) - ((notes) * (inner))"
    )


# ----------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("mask q", syntax.Section("mask", q)),
        ("tensor t", syntax.TensorDeclaration("t", ())),
        ("tensor t[q, 2 * a]: int", syntax.TensorDeclaration("t", (q, Binary("*", TWO, a)), "int")),
        ("grid q, k as (x: a, y: 2)", syntax.GridDeclaration(("q", "k"), (("x", a), ("y", TWO)))),
        ("blocks c of k by 2", syntax.BlocksDeclaration("c", "k", TWO)),
        ("blocks c of k by 2 every 1 from a", syntax.BlocksDeclaration("c", "k", TWO, every=ONE, start=a)),
        ("blocks c of k by (a) in b", syntax.BlocksDeclaration("c", "k", a, count=b)),
        (
            "blocks c of k by (y: 1, x: 2) from a",
            syntax.BlocksDeclaration("c", "k", start=a, boxes=(("y", ONE), ("x", TWO))),
        ),
        ("let y = a", syntax.Let("y", (), a)),
        ("let y[c, d in 2] = a", syntax.Let("y", (Binder("c"), Binder("d", TWO)), a)),
        ("scan y[c] = a restart b", syntax.Scan("y", (Binder("c"),), a, b)),
        ("select y = top(2) c by a", syntax.Select("y", (), Call(Name("top"), (TWO,)), (Binder("c"),), a)),
        (
            "select y[q] = mass(1, total=2) (c, d in 2) by a never d where b always c per (a, b)",
            syntax.Select(
                "y",
                (Binder("q"),),
                Call(Name("mass"), (ONE,), (("total", TWO),)),
                (Binder("c"), Binder("d", TWO)),
                a,
                where=b,
                always=c,
                never=d,
                scope=("a", "b"),
            ),
        ),
        ("normalize a | f(1) | b over q", syntax.Normalize((a, Call(Name("f"), (ONE,)), b), "q")),
        ("branch y:", syntax.Branch("y", (), None, ())),
        ("branch y[c in 2] over d in x:", syntax.Branch("y", (Binder("c", TWO),), Binder("d", x), ())),
        ("state y[d, c]", syntax.State("y", (d, c))),
        ("step y = a", syntax.Step("y", a)),
        ("require a == b", syntax.Require(Comparison(a, (("==", b),)))),
        ("assert a where b = 1, c = 2", syntax.Assert(a, (("b", ONE), ("c", TWO)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_statement(line: str, node: syntax.AnyStatement) -> None:
    assert statement(line) == node


def test_file() -> None:
    text = '''
# about
import "other.attn"
def near(n: int >= 1, m: float > 0 <= 1 = 0.5, l) = q - k < n   # behind
pattern p(w: int = 2, c: bool = false):
    """First line

    second
      deeper
    """
    # above
    mask (q # inside
          and k)  # behind
    branch y:
        value a

    output y
# end
'''
    file = parse(text)
    imported, near, pattern = file.items
    assert imported == syntax.Import("other.attn") and imported.comments == ("", "# about")
    assert isinstance(near, syntax.Definition) and near.trailing == "# behind"
    assert near.parameters == (
        syntax.Parameter("n", "int", ((">=", ONE),)),
        syntax.Parameter("m", "float", ((">", Number(0)), ("<=", ONE)), Number(0.5)),
        syntax.Parameter("l", None),
    )
    assert isinstance(pattern, syntax.PatternDefinition)
    assert pattern.doc == "First line\n\nsecond\n  deeper"
    assert pattern.body == (
        syntax.Section("mask", Logical("and", (q, k))),
        syntax.Branch("y", (), None, (syntax.Section("value", a),)),
        syntax.Section("output", Name("y")),
    )
    assert (pattern.body[0].comments, pattern.body[0].trailing) == (("# above", "# inside"), "# behind")
    assert pattern.body[2].comments == ("",)
    assert file.epilogue == ("# end",)


def test_spans_point_at_the_text() -> None:
    file = parse("def f = 1\n\npattern p():\n    mask  (a + b) * c[k] < f(x)\n")
    pattern = file.items[1]
    assert isinstance(pattern, syntax.PatternDefinition)
    (mask,) = pattern.body
    assert isinstance(mask, syntax.Section) and isinstance(mask.value, Comparison)
    assert (mask.span.line, mask.span.column, mask.span.text) == (4, 5, "mask  (a + b) * c[k] < f(x)")
    assert mask.value.span.text == "(a + b) * c[k] < f(x)"
    assert mask.value.first.span.text == "(a + b) * c[k]"
    assert mask.value.rest[0][1].span.location() == "p.attn:4:28"
    assert pattern.span.text == "pattern p():"


def test_pattern_without_lines_and_head_without_parentheses() -> None:
    assert parse("pattern a:\npattern b():") == parse("pattern a(   ) :\n\n\npattern b():\n# end")


# ------------------------------------------------------------------------------------------------- mistakes


def test_all_mistakes_at_once_and_the_good_lines_stay_good() -> None:
    text = """\
pattern a(n: int = 3)
    mask q >= k
    scroe dot
    branch b:
        value ]
        score dot % 2
    sparsity q - k < n &&& a
def f(x) = (x
pattern c():
    mask q = k
      output b
"""
    assert mistakes(text) == [
        ("E125", 1, 22),
        ("E124", 3, 5),
        ("E109", 5, 15),
        ("E127", 6, 19),
        ("E127", 7, 24),
        ("E108", 8, 12),
        ("E127", 10, 12),
    ]


def test_expression_alone() -> None:
    with pytest.raises(Diagnostics, match=r"<text>:1:5: error\[E127\]: '%' is no operator here"):
        expr("a   % b")
    with pytest.raises(Diagnostics, match="E123"):
        expr("")
    with pytest.raises(Diagnostics, match="E108"):
        expr("(a")
    with pytest.raises(Diagnostics, match="E118"):
        expr("(" * 200 + "a" + ")" * 200)


def test_too_many_mistakes_are_cut() -> None:
    found = mistakes("pattern p():\n" + "    mask %\n" * 20_000)
    assert len(found) == 101 and found[-1][0] == "E141" and found[99] == ("E127", 101, 10)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("(" * 100_000, "E118"),
        ("(" * 100_000 + "q" + ")" * 100_000, "E118"),
        ("[" * 50_000 + ")" * 50_000, "E118"),
        ("f(" * 60_000 + ")" * 60_000, "E118"),
        ("-" * 100_000 + "q", "E119"),
        ("-" * 9_000 + "q", "E118"),
        ("not " * 2_000 + "q", "E118"),
        ("q ** " * 1_000 + "q", "E118"),
        ("q" + " + q" * 50_000, "E119"),
        ("q" + " + q" * 1_000, "E118"),
        ("q" + "[q]" * 2_000, "E118"),
        ("q" + ".q" * 2_000, "E118"),
        ("q if q else " * 500 + "q", "E118"),
        ("9" * 900_000, "E120"),
        ("0." + "9" * 900_000, "E120"),
        ("1e" + "9" * 900_000, "E120"),
        ("x" * 900_000, "E122"),
        ("1e999", "E121"),
        ("9" * 19, "E121"),
        ('"' + "x " * 400_000, "E111"),
        ("'" * 900_000, "E119"),
        (". " * 400_000, "E119"),
        ("q\x00", "E107"),
    ],
)
def test_what_is_too_large_is_one_error_at_once(text: str, code: str) -> None:
    start = time.perf_counter()
    found = mistakes("pattern p():\n    mask " + text)
    assert [code for code, _, _ in found] == [code]
    assert time.perf_counter() - start < 10


def test_text_of_a_hundred_megabytes_is_refused() -> None:
    with pytest.raises(Diagnostics, match=r"error\[E104\]: 'p.attn' is larger than 1,000,000 bytes"):
        parse("q" * 100_000_000)


def test_a_thousand_alternatives_are_no_nesting() -> None:
    section = statement("mask " + " or ".join(["q == k"] * 800))
    assert isinstance(section, syntax.Section) and isinstance(section.value, Logical)
    assert len(section.value.operands) == 800


def test_deep_indentation_is_no_recursion() -> None:
    lines = [" " * depth + "branch x:" for depth in range(1, 1400)]
    assert mistakes("pattern p():\n" + "\n".join(lines))[0][0] == "E117"
    lines = [" " * depth + "pattern x():" for depth in range(1400)]
    assert mistakes("\n".join(lines))[0][0] == "E116"


def test_long_files_are_read_in_time() -> None:
    """200 kB, a fifth of what is read at all."""
    lines = "    mask  causal and q - k < w\n    score Q[q] @ K[k] * scale + bias[h, q - k]\n"
    text = "\n".join(f"pattern p{number}(w: int = 4):\n{lines}" for number in range(1_900))
    assert len(text) > 200_000
    start = time.perf_counter()
    file = parse(text)
    assert len(file.items) == 1_900
    assert format_file(file) == text
    assert time.perf_counter() - start < 30
