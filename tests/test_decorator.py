"""Traced Python functions make the same trees as the text form."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

import attnlang
import examples.python_patterns
from attnlang import decorator, syntax
from attnlang.decorator import Tensor, trace
from attnlang.grammar.formatter import format_pattern
from attnlang.grammar.parser import parse_file
from attnlang.source import Source

Function = Callable[..., Any]
AtLeastOne = Annotated[int, ">= 1"]
Axes: Any = Tensor
"""Outside of annotations a type checker takes `Tensor[…]` for a class."""


def with_tensors(**tensors: decorator.TensorAnnotation) -> Callable[[Function], Function]:
    """Annotates parameters with tensors, where a type checker would take the axes for types."""

    def annotated(function: Function) -> Function:
        function.__annotations__.update(tensors)
        return function

    return annotated


def parsed(text: str) -> syntax.PatternDefinition:
    (item,) = parse_file(Source("text", text)).items
    assert isinstance(item, syntax.PatternDefinition)
    return item


def same(function: Function, text: str) -> None:
    """The function and the text make one tree, and print alike."""
    traced, written = trace(function), parsed(text)
    assert format_pattern(traced) == format_pattern(written)
    assert traced == written
    assert parsed(format_pattern(traced)) == traced


# ------------------------------------------------------------------------------------------------- the tree


def test_sections_parameters_and_tensors() -> None:
    @with_tensors(slopes=Axes["h"])
    def alibi(p: Any, slopes: Any, window: int = 1024) -> None:
        p.mask(p.q >= p.k)
        p.sparsity(p.q - p.k < window)
        p.score(p.dot * p.scale - slopes[p.h] * (p.q - p.k))

    same(
        alibi,
        """
pattern alibi(window: int = 1024):
    tensor slopes[h]
    mask q >= k
    sparsity q - k < window
    score Q[q] @ K[k] * scale - slopes[h] * (q - k)
""",
    )


def test_kinds_of_parameters() -> None:
    def kinds(
        p: Any,
        a: int,
        b: AtLeastOne,
        c: Annotated[float, "> 0 <= 1.5"] = 0.5,
        d: bool = True,
        e=-3,
        f=math.inf,
    ) -> None:
        p.mask(p.k < a)

    same(
        kinds,
        """
pattern kinds(a: int, b: int >= 1, c: float > 0 <= 1.5 = 0.5, d: bool = true, e = -3, f = inf):
    mask k < a
""",
    )


def test_keyword_only_and_positional_only_parameters() -> None:
    def kinds(p: Any, a: int, /, b: int, *, c: int = 2) -> None:
        p.mask(p.k < a + b + c)

    same(kinds, "pattern kinds(a: int, b: int, c: int = 2):\n    mask k < a + b + c\n")


def test_axes_and_kinds_of_tensors() -> None:
    @with_tensors(
        x=Axes["h", "(2*window - 1)**2", 3], ids=Axes["b", "n"].int, kept=Axes["n // 2", "n % 3"].bool
    )
    def axes(p: Any, x: Any, ids: Any, kept: Any, window: int = 4) -> None:
        p.mask(ids[p.b, p.q] == ids[p.b, p.k])

    same(
        axes,
        """
pattern axes(window: int = 4):
    tensor x[h, (2 * window - 1) ** 2, 3]
    tensor ids[b, n]: int
    tensor kept[n // 2, n mod 3]: bool
    mask ids[b, q] == ids[b, k]
""",
    )


def test_every_operator() -> None:
    def operators(p: Any, a: int = 1) -> None:
        p.mask((p.q < p.k) & (p.q <= p.k) & (a > 2) | ~(a >= 3) & (p.q == p.k) | (p.q != 1))
        p.score((1 + p.q - p.k) * 2 / a // 3 % 4**p.h - -a + abs(p.q) - 5 % p.q - 2**a - 7 // a - 8 / a)
        p.value(p.where(True & (p.q > 0), p.V[p.k], 0.5 * p.V[p.k]))

    same(
        operators,
        """
pattern operators(a: int = 1):
    mask q < k and q <= k and a > 2 or not a >= 3 and q == k or q != 1
    score (1 + q - k) * 2 / a // 3 mod 4 ** h - -a + abs(q) - 5 mod q - 2 ** a - 7 // a - 8 / a
    value V[k] if true and q > 0 else 0.5 * V[k]
""",
    )


def test_reductions_by_functions_and_by_generators() -> None:
    def reductions(p: Any, n: int = 3) -> None:
        near = p.let("near", p.sum(lambda m: p.sum(lambda j: j * m, over=n), over=p.heads))
        far = p.let("far", p.sum(p.sum(j * m for j in p.keys) for m in p.heads))
        some = p.let("some", p.mean(lambda m: m, over=p.queries, where=lambda m: m < p.q))
        p.score(near + far + some + p.max(p.q, p.k) + p.count)

    same(
        reductions,
        """
pattern reductions(n: int = 3):
    let near = sum(sum(j * m for j in n) for m in heads)
    let far = sum(sum(j * m for j in keys) for m in heads)
    let some = mean(m for m in queries if m < q)
    score near + far + some + max(q, k) + count
""",
    )


def test_blocks_of_every_kind() -> None:
    @with_tensors(ids=Axes["b", "n"].int)
    def blocked(p: Any, ids: Any, n: int = 4) -> None:
        p.grid(p.q, p.k, y=n, x=2 * n)
        p.blocks("a", of=p.k, by=n)
        p.blocks("c", of=p.k, by=n, every=2, start=1)
        p.blocks("i", of=p.k, by=ids[p.b, p.n], count=n)
        j = p.blocks("j", of=p.q, by={"y": 2, "x": n})
        p.mask(j.first < p.k)

    same(
        blocked,
        """
pattern blocked(n: int = 4):
    tensor ids[b, n]: int
    grid q, k as (y: n, x: 2 * n)
    blocks a of k by n
    blocks c of k by n every 2 from 1
    blocks i of k by ids[b, n] in n
    blocks j of q by (y: 2, x: n)
    mask j.first < k
""",
    )


def test_select_with_every_clause() -> None:
    def chosen(p: Any, n: int = 4) -> None:
        c = p.blocks("c", of=p.k, by=n)
        i = p.blocks("i", of=p.q, by=n)
        near = p.select(
            "near",
            p.mass(0.9, total=2),
            c,
            by=c * 1.0,
            at=p.q,
            where=c < 3,
            always=c == 0,
            never=c == 1,
            per=i,
        )
        pairs = p.select("pairs", p.top(n), [i, p.index("z", n)], by=i, per=[p.b, p.h])
        p.sparsity(near(p.q, p.k) | pairs(p.q, 0))

    same(
        chosen,
        """
pattern chosen(n: int = 4):
    blocks c of k by n
    blocks i of q by n
    select near[q] = mass(0.9, total=2) c by c * 1.0 where c < 3 always c == 0 never c == 1 per i
    select pairs = top(n) (i, z in n) by i per (b, h)
    sparsity near(q, k) or pairs(q, 0)
""",
    )


def test_branches_merge_requirements_and_claims() -> None:
    def several(p: Any, n: int = 4) -> None:
        """Two attentions,

        merged.
        """
        p.require(n < p.NK)
        m = p.index("m", n)
        with p.branch("inner", at=m) as inner:
            p.weight(1)
        with p.branch("outer", over=m) as outer:
            p.normalize(p.softplus(p.s), p.l1, over=p.q)
            p.reweight(p.w * 2)
            p.value(inner[m])
        joined = p.let("joined", p.merge(inner, outer))
        p.output(joined + outer.lse)
        p.claim(p.causal)
        p.claim(p.density <= 0.1, where={"NK": 65536})

    same(
        several,
        '''
pattern several(n: int = 4):
    """Two attentions,

    merged."""
    require n < NK
    branch inner[m in n]:
        weight 1
    branch outer over m in n:
        normalize softplus(s) | l1 over q
        reweight w * 2
        value inner[m]
    let joined = merge(inner, outer)
    output joined + outer.lse
    assert causal
    assert density <= 0.1 where NK = 65536
''',
    )


def test_scans_and_states() -> None:
    def recurrent(p: Any, n: int = 4) -> None:
        p.scan("total", p.total[p.n - 1] + p.K[p.n], at=p.n, restart=p.n % n == 0)
        S = p.state("S", p.d, p.e)
        p.step(S, S + p.outer(p.K[p.k], p.V[p.k]))
        p.output(p.Q[p.q] @ S)

    same(
        recurrent,
        """
pattern recurrent(n: int = 4):
    scan total[n] = total[n - 1] + K[n] restart n mod n == 0
    state S[d, e]
    step S = S + outer(K[k], V[k])
    output Q[q] @ S
""",
    )


def test_python_runs_while_tracing() -> None:
    def unrolled(p: Any) -> None:
        def power(x: Any, exponent: int) -> Any:
            return x if exponent == 1 else power(x, exponent - 1) * x

        seen = p.k == p.q
        for distance in (2, 4):
            seen = seen | (p.q - p.k == distance)
        p.mask(seen)
        p.score(power(p.dot, 3))

    same(
        unrolled,
        """
pattern unrolled():
    mask k == q or q - k == 2 or q - k == 4
    score Q[q] @ K[k] * (Q[q] @ K[k]) * (Q[q] @ K[k])
""",
    )


def test_nodes_know_their_python_lines() -> None:
    def placed(p: Any, window: int = 3) -> None:
        p.mask(p.q - p.k < window)

    traced = trace(placed)
    (mask,) = traced.body
    assert isinstance(mask, syntax.Section)
    assert mask.span.text == "p.mask(p.q - p.k < window)"
    assert mask.value.span.text == "p.q - p.k < window"
    assert traced.span.text == "placed"
    assert traced.parameters[0].span.text == "window"
    assert Path(mask.span.source.name).name == Path(__file__).name


# ------------------------------------------------------------------------------------------------- patterns


PATTERNS = [each for each in vars(examples.python_patterns).values() if isinstance(each, attnlang.Pattern)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_the_examples_in_both_forms_are_one(pattern: attnlang.Pattern) -> None:
    written = attnlang.load(Path(__file__).parent.parent / "examples" / f"{pattern.name}.attn")
    assert str(pattern) == str(written)
    assert pattern == written
    assert attnlang.parse(str(pattern)) == pattern


def test_there_are_many_examples() -> None:
    assert len(PATTERNS) >= 19


def test_mistakes_of_meaning_point_at_the_python_line() -> None:
    with pytest.raises(attnlang.Diagnostics) as caught:

        @attnlang.attention_pattern
        def typo(p: Any, window: int = 3) -> None:
            p.sparsity(p.q - p.k < p.widow)

    (error,) = caught.value.errors
    assert error.code == "E203" and "'window'" in error.advice
    assert error.span is not None and error.span.text == "p.widow"
    assert Path(error.span.source.name).name == Path(__file__).name
