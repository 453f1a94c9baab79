"""The formatter: what it writes is read back as the same tree, and formatting twice changes nothing."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnlang import syntax
from attnlang.grammar.formatter import WIDTH, format_expression, format_file, format_pattern
from attnlang.grammar.literals import clean
from attnlang.grammar.parser import parse_expression, parse_file
from attnlang.source import Source

ROOT = Path(__file__).parent.parent
TEXTS = sorted([*ROOT.glob("examples/*.attn"), *ROOT.glob("attnlang/*.attn")])
T = TypeVar("T")


def parse(text: str) -> syntax.File:
    return parse_file(Source("p.attn", text))


def formatted(text: str) -> str:
    return format_file(parse(text))


# -------------------------------------------------------------------------------------------- random trees

RESERVED = {"if", "else", "and", "or", "not", "mod", "for", "in", "true", "false"}
KEYWORDS = [
    *(
        "import",
        "def",
        "pattern",
        "tensor",
        "grid",
        "blocks",
        "let",
        "scan",
        "select",
        "mask",
        "value",
        "output",
    ),
    *(
        "normalize",
        "branch",
        "state",
        "step",
        "require",
        "assert",
        "as",
        "of",
        "by",
        "every",
        "from",
        "restart",
    ),
    *("where", "always", "never", "per", "over"),
]

names = st.one_of(
    st.sampled_from([*"abcdhkmnqsxQKV", "KC", "window", "is_global", "_x1", *KEYWORDS]),
    st.text(string.ascii_letters + "_", min_size=1, max_size=24).filter(
        lambda name: name.lower() not in RESERVED
    ),
)
numbers = st.one_of(
    st.integers(0, 2**63 - 1),
    st.floats(0, allow_nan=False, allow_infinity=False).filter(lambda x: str(x)[0] != "-"),
)
leaves = st.one_of(
    st.builds(syntax.Name, names), st.builds(syntax.Number, numbers), st.builds(syntax.Boolean, st.booleans())
)


def some(strategy: st.SearchStrategy[T], least: int = 1, most: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


def pairs(values: st.SearchStrategy[T], least: int) -> st.SearchStrategy[tuple[tuple[str, T], ...]]:
    """Names, each once, with values."""
    listed = st.lists(st.tuples(names, values), min_size=least, max_size=3, unique_by=lambda pair: pair[0])
    return listed.map(tuple)


def larger(inner: st.SearchStrategy[syntax.Expr]) -> st.SearchStrategy[syntax.Expr]:
    """Every way to make an expression of smaller ones."""
    functions = st.builds(syntax.Name, names)
    comparisons = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    return st.one_of(
        st.builds(syntax.Attribute, inner, names),
        st.builds(syntax.Subscript, inner, some(inner)),
        st.builds(syntax.Call, functions, some(inner, 0), pairs(inner, 0)),
        st.builds(syntax.Reduction, functions, inner, names, inner, st.none() | inner),
        st.builds(syntax.Unary, st.sampled_from(["-", "not"]), inner),
        st.builds(syntax.Binary, st.sampled_from(["+", "-", "*", "/", "//", "mod", "@", "**"]), inner, inner),
        st.builds(syntax.Comparison, inner, some(st.tuples(comparisons, inner))),
        st.builds(syntax.Logical, st.sampled_from(["and", "or"]), some(inner, 2, 4)),
        st.builds(syntax.Conditional, inner, inner, inner),
    )


expressions: st.SearchStrategy[syntax.Expr] = st.recursive(leaves, larger, max_leaves=12)
small: st.SearchStrategy[syntax.Expr] = st.recursive(leaves, larger, max_leaves=3)

binders = st.builds(syntax.Binder, names, st.none() | small)
calls = st.builds(syntax.Call, st.builds(syntax.Name, names), some(small, 0), pairs(small, 0))
sections = st.one_of(
    st.builds(
        syntax.Section,
        st.sampled_from(["mask", "sparsity", "score", "weight", "reweight", "value", "output"]),
        expressions,
    ),
    st.builds(syntax.Normalize, some(small), st.none() | names),
)
blocks = st.one_of(
    st.builds(
        syntax.BlocksDeclaration,
        names,
        names,
        small,
        every=st.none() | small,
        start=st.none() | small,
        count=st.none() | small,
    ),
    st.builds(syntax.BlocksDeclaration, names, names, boxes=pairs(small, 1), start=st.none() | small),
)
statements = st.one_of(
    sections,
    st.builds(
        syntax.TensorDeclaration, names, some(small, 0), st.none() | st.sampled_from(["int", "float", "bool"])
    ),
    st.builds(syntax.GridDeclaration, some(names), pairs(small, 1)),
    blocks,
    st.builds(syntax.Let, names, some(binders, 0), expressions),
    st.builds(syntax.Scan, names, some(binders, 0), expressions, st.none() | small),
    st.builds(
        syntax.Select,
        names,
        some(binders, 0),
        calls,
        some(binders),
        small,
        where=st.none() | small,
        always=st.none() | small,
        never=st.none() | small,
        scope=st.none() | some(names),
    ),
    st.builds(syntax.State, names, some(small, 0)),
    st.builds(syntax.Step, names, expressions),
    st.builds(syntax.Require, expressions),
    st.builds(syntax.Assert, small, pairs(small, 0)),
)
branches = st.builds(syntax.Branch, names, some(binders, 0), st.none() | binders, some(sections, 0))
words = st.one_of(st.text(max_size=60), st.text('ab"\\n\n\t #', max_size=40)).filter(
    lambda text: "\r" not in text
)
docs = words.map(clean)
parameters = st.builds(
    syntax.Parameter,
    names,
    st.none() | st.sampled_from(["int", "float", "bool"]),
    st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">="]), small), max_size=2).map(tuple),
    st.none() | small,
)
patterns = st.builds(
    syntax.PatternDefinition, names, some(parameters, 0), st.none() | docs, some(statements | branches, 0, 5)
)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
items = st.one_of(
    patterns,
    st.builds(syntax.Definition, names, some(parameters, 0), expressions),
    st.builds(syntax.Import, paths),
)
files = st.builds(syntax.File, some(items, 0, 3))


@given(expressions)
def test_every_expression_is_read_back(expr: syntax.Expr) -> None:
    text = format_expression(expr)
    assert "\n" not in text
    assert parse_expression(Source("<text>", text)) == expr


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files)
def test_every_file_is_read_back(file: syntax.File) -> None:
    text = format_file(file)
    assert parse(text) == file
    assert formatted(text) == text


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(patterns)
def test_every_pattern_is_read_back(pattern: syntax.PatternDefinition) -> None:
    text = format_pattern(pattern)
    assert parse(text).items == (pattern,)
    assert text == format_file(syntax.File((pattern,)))


@given(words)
def test_clean_docstrings_stay_as_they_are(text: str) -> None:
    assert clean(clean(text)) == clean(text)


comments = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(
    lambda text: ("# " + text).rstrip()
)


noise = st.tuples(st.integers(0, 40), st.integers(0, 8), st.one_of(comments, st.just("")))
"""Before which line, in which column, which comment or blank line."""


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(patterns, st.lists(noise, max_size=8))
def test_comments_and_blank_lines_between_any_lines(
    pattern: syntax.PatternDefinition, added: list[tuple[int, int, str]]
) -> None:
    """Comments between lines change no tree; none is lost, and none moves when the text is formatted twice."""
    plain = replace(pattern, doc=pattern.doc and pattern.doc.split("\n")[0])
    lines = format_pattern(plain).split("\n")
    for place, column, comment in added:
        lines.insert(place % len(lines), " " * column + comment)
    once = formatted("\n".join(lines))
    assert parse(once).items == (plain,)
    assert formatted(once) == once
    found = [line.strip() for line in once.split("\n")]
    assert [comment for _, _, comment in added if comment not in ("", *found)] == []


# --------------------------------------------------------------------------------------------- real texts


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_real_files_are_read_back(path: Path) -> None:
    file = parse(path.read_text(encoding="utf-8"))
    text = format_file(file)
    assert parse(text) == file
    assert formatted(text) == text
    assert max(map(len, (line for line in text.split("\n") if "#" not in line))) <= WIDTH
    for comment in (line.partition("#")[2] for line in path.read_text(encoding="utf-8").split("\n")):
        assert comment.rstrip() in text


def test_there_are_real_files() -> None:
    assert len(TEXTS) > 50


# ----------------------------------------------------------------------------------------------- the style


def same(text: str) -> None:
    """A text that is canonical already."""
    assert formatted(text) == text


def test_canonical_text() -> None:
    same('''\
# Longformer: a window, plus tokens that see and are seen by everyone
import "windows.attn"  # relative

def near(n) = abs(q - k) <= n
def causal = k <= q

pattern longformer(radius: int >= 1 = 256, sink: float > 0 <= 1 = 0.5, wide: bool = false):
    """What it says

    and why
    """
    tensor is_global[b, n]: bool

    # what is kept
    sparsity  near(radius) or is_global[b, q] or is_global[b, k]
    score     Q[q] @ K[k] * scale  # as usual
    normalize softmax

    value V[k]
    blocks c of k by 64 every 32 from 1
    blocks d of k by ids[b, n] in count
    blocks e of k by (y: 8, x: 8)
    select chosen[q] = top(4) (i, c) by share[c] where c.last < q never c == 1 per (b, h)
    branch coarse[m in agents] over j in extra:
        mask  j < m
        score 1
    state  S[d, e]
    step   S = S + outer(K[k], V[k])
    output Q[q] @ S
    assert density <= 0.1 where NK = 65536, D = 64

pattern full():
# the end
''')


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("((a))+(b)", "a + b"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("a-(b+c)*d", "a - (b + c) * d"),
        ("(a*b)/(c*d)", "a * b / (c * d)"),
        ("(-a)**2", "(-a) ** 2"),
        ("-(a**2)", "-a ** 2"),
        ("-(-a)", "--a"),
        ("a**(b**c)", "a ** b ** c"),
        ("(a**b)**c", "(a ** b) ** c"),
        ("(a<b)==c", "(a < b) == c"),
        ("not(a and b)or c", "not (a and b) or c"),
        ("(a and b)or(c and d)", "a and b or c and d"),
        ("(a if b else c)if d else x", "(a if b else c) if d else x"),
        ("a if b else(c if d else x)", "a if b else c if d else x"),
        ("(a+b).x[ ( c ) ]", "(a + b).x[c]"),
        ("f( a ,b , x = c , )", "f(a, b, x=c)"),
        (
            "sum( (a if b else c)for k in(x if y else z)if( q))",
            "sum(a if b else c for k in (x if y else z) if q)",
        ),
        ("1E-06*1_000+0.50+1e22", "1e-6 * 1000 + 0.5 + 1e22"),
        ("True or False", "true or false"),
    ],
)
def test_expressions(written: str, canonical: str) -> None:
    assert format_expression(parse_expression(Source("<text>", written))) == canonical


def test_long_lines_are_broken_inside_brackets() -> None:
    long = "abs(q - k) <= radius or is_global[b, q] or is_global[b, k] or something_long[b, h, q, k]"
    same(f"""\
def f(first_parameter_with_a_name, second_parameter_with_a_name, third_parameter_with_a) = (
    first_parameter_with_a_name + second_parameter_with_a_name
)

pattern p(
    first_parameter: int = 1, second_parameter: int = 2, third_parameter: int = 3, fourth: int = 4
):
    mask     (
        {long}
    )
    sparsity (
        abs(q - k) <= radius
        or is_global[b, q]
        or is_global[b, k]
        or something_very_long[b, h, q, k]
        or something_else[b, h, q, k]
    )
    let y = sum(
        first[b, h, q, m] * second[b, h, m, k] + third[b, h, q, m] * last[b, m, k] for m in heads
    )
""")


def test_blank_lines_and_indentation_become_regular() -> None:
    text = "\n\n# a\n\n\n# b\npattern p() :\n\n\n  # c\n  mask  q\n\n\n  score k\n  # d\n"
    text += "pattern r():\n    mask k\n\n\n\n# e\n\n"
    assert formatted(text) == (
        "# a\n\n# b\npattern p():\n    # c\n    mask q\n\n    score k\n\n# d\npattern r():\n    mask k\n\n# e\n"
    )


def test_a_pattern_alone_has_no_comments() -> None:
    (pattern,) = parse("# a\npattern p(): # b\n  # c\n  mask q # d\n\n  score k\n").items
    assert isinstance(pattern, syntax.PatternDefinition)
    assert format_pattern(pattern) == "pattern p():\n    mask  q\n    score k\n"


def test_nothing() -> None:
    assert format_file(syntax.File(())) == formatted("") == formatted("\n\n") == ""
    assert formatted("# only\n") == "# only\n"


def test_a_long_domain_outside_brackets_goes_on_in_parentheses() -> None:
    total = " + ".join(["a_rather_long_name"] * 8)
    text = f"pattern p():\n    branch wide over j in {total}:\n        score 1.0\n"
    tree = parse_file(Source("p.attn", text))
    shown = format_file(tree)
    assert max(map(len, shown.splitlines())) <= 100
    assert parse_file(Source("p.attn", shown)) == tree
