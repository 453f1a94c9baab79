"""Traced Python functions: the same trees as the text form, and reports that point at the Python line."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import pytest

from attnlang import decorator, syntax
from attnlang.decorator import Tensor, trace
from attnlang.errors import Diagnostic
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


def refused(function: Function) -> Diagnostic:
    with pytest.raises(Diagnostic) as caught:
        trace(function)
    assert caught.value.span is not None
    return caught.value


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


# --------------------------------------------------------------------------------------------- the mistakes


def test_the_report_shows_the_python_line() -> None:
    def report(p: Any, window: int = 3) -> None:
        p.mask(0 <= p.q - p.k < window)

    error = refused(report)
    line = report.__code__.co_firstlineno + 1
    gutter = " " * len(str(line))
    assert error.span is not None
    assert str(error) == "\n".join(
        (
            f"{error.span.source.name}:{line}:16: error[E260]: this is neither true nor false yet: "
            "the function is traced once, for every q and k at the same time",
            f"  {gutter} |",
            f"  {line} |         p.mask(0 <= p.q - p.k < window)",
            f"  {gutter} |                ^^^^^^^^^^^^^^^^^^^^^^^ write p.where(c, a, b) for 'if', "
            "& | ~ for 'and or not', (a <= x) & (x < b) for a chain",
        )
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_truth_of_a_traced_value() -> None:
    def by_if(p: Any) -> None:
        if p.q > p.k:
            p.mask(True)

    def by_and(p: Any) -> None:
        p.mask(p.q > p.k and p.h == 0)

    def by_builtin(p: Any) -> None:
        p.score(max(p.q, p.k))

    def by_member(p: Any) -> None:
        p.mask(3 in p.keys)

    def by_generator(p: Any) -> None:
        p.score(p.sum(m for m in p.keys if m < 3))

    places = {by_if: "p.q > p.k", by_and: "p.q > p.k and p.h == 0", by_builtin: "max(p.q, p.k)"}
    for function, text in (places | {by_member: "3 in p.keys", by_generator: "m < 3"}).items():
        error = refused(function)
        assert error.code == "E260"
        assert error.span is not None and error.span.text.startswith(text.split(" and ")[0])
    assert "where=lambda" in refused(by_generator).advice


def test_numbers_are_not_known_yet() -> None:
    def by_range(p: Any, n: int = 3) -> None:
        for _ in range(n):
            p.mask(True)

    def by_math(p: Any, n: int = 3) -> None:
        p.score(math.exp(n))

    def by_int(p: Any, n: int = 3) -> None:
        p.score(int(n))

    def by_length(p: Any) -> None:
        p.score(len(p.keys))

    places = {by_range: "range(n)", by_math: "math.exp(n)", by_int: "int(n)", by_length: "len(p.keys)"}
    for function, text in places.items():
        error = refused(function)
        assert error.code == "E261" and error.span is not None and error.span.text == text


def test_what_no_expression_is_made_of() -> None:
    def text(p: Any) -> None:
        p.score(p.dot + "ä")

    def nothing(p: Any) -> None:
        p.mask(None)

    def not_a_number(p: Any) -> None:
        p.score(p.dot * math.nan)

    def cut(p: Any) -> None:
        p.score(p.Q[p.q][0:2])

    kinds = {text: "str", nothing: "NoneType", not_a_number: "not-a-number", cut: "slice"}
    for function, kind in kinds.items():
        error = refused(function)
        assert error.code == "E262" and kind in error.text

    def enormous(p: Any) -> None:
        p.score(p.dot * 2**64)

    assert refused(enormous).code.startswith("E1")


def test_python_cannot_run_over_a_traced_value() -> None:
    def by_for(p: Any) -> None:
        for _ in p.keys:
            p.mask(True)

    def by_unpacking(p: Any) -> None:
        first, _ = p.q
        p.mask(first)

    for function in (by_for, by_unpacking):
        assert refused(function).code == "E263"


def test_reductions_that_are_none() -> None:
    def no_domain(p: Any) -> None:
        p.score(p.sum(lambda m: m))

    def two_variables(p: Any) -> None:
        p.score(p.sum(lambda m, n: m, over=p.keys))

    def two_loops(p: Any) -> None:
        p.score(p.sum(m + n for m in p.keys for n in p.keys))

    def of_a_list(p: Any) -> None:
        p.score(p.sum(p.q + m for m in [1, 2]))

    def surplus(p: Any) -> None:
        p.score(p.sum(lambda m: m, over=p.keys, axis=1))

    for function in (no_domain, two_variables, two_loops, of_a_list, surplus):
        assert refused(function).code == "E264"


def test_only_names_are_called() -> None:
    def product(p: Any) -> None:
        p.score((p.q * p.k)(3))

    error = refused(product)
    assert error.code == "E265" and error.span is not None and error.span.text == "(p.q * p.k)(3)"


def test_signatures_that_describe_no_pattern() -> None:
    def nothing() -> None: ...

    def untyped(p: Any, window) -> None: ...

    def wrong_type(p: Any, window: str) -> None: ...

    def unknown_bound(p: Any, window: Annotated[int, "at least one"]) -> None: ...

    def wrong_default(p: Any, window: int = cast(int, None)) -> None: ...

    def many(p: Any, *windows: int) -> None: ...

    def reserved(p: Any, mod: int) -> None: ...

    def returning(p: Any) -> Any:
        return p.q

    @with_tensors(x=Axes["h"])
    def tensor_default(p: Any, x: Any = 3) -> None: ...

    def nowhere(p: Any, window: int) -> None: ...

    nowhere.__annotations__["window"] = "Nix"
    functions: list[Function] = [nothing, untyped, wrong_type, unknown_bound, wrong_default, many, reserved]
    for function in [*functions, returning, tensor_default, nowhere, lambda p: None]:
        assert refused(function).code == "E266", function
    error = refused(wrong_type)
    assert error.span is not None and error.span.text == "window"


def test_axes_that_cannot_be_read() -> None:
    for axes in ("h +", "f(h)", "0.5", "h[0]"):
        with pytest.raises(Diagnostic) as caught:
            Axes[axes]
        assert caught.value.code == "E267"


def test_a_misspelled_statement_is_no_silence() -> None:
    def misspelled(p: Any) -> None:
        p.maks(p.q >= p.k)

    error = refused(misspelled)
    assert (error.code, error.advice) == ("E268", "did you mean p.mask?")
    assert error.span is not None and error.span.text == "p.maks(p.q >= p.k)"


def test_statements_in_the_wrong_form() -> None:
    def nested(p: Any) -> None:
        with p.branch("a"), p.branch("b"):
            p.mask(True)

    def name_first(p: Any) -> None:
        p.let(p.q, 3)

    def no_rule(p: Any) -> None:
        p.select("near", 3, p.k, by=p.k)

    def no_index(p: Any) -> None:
        p.grid(p.q + 1, t=3)

    for function in (nested, name_first, no_rule, no_index):
        assert refused(function).code == "E269", function


def test_errors_of_python_stay_what_they_are() -> None:
    def broken(p: Any) -> None:
        p.mask(p.q >= p.k)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(broken)
