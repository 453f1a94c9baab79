"""Traced Python functions that describe no pattern: every report points at the Python line."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Annotated, Any, cast

import pytest

from attnlang.decorator import Tensor, trace
from attnlang.errors import Diagnostic

Function = Callable[..., Any]
Axes: Any = Tensor
"""Outside of annotations a type checker takes `Tensor[…]` for a class."""


def refused(function: Function) -> Diagnostic:
    with pytest.raises(Diagnostic) as caught:
        trace(function)
    assert caught.value.span is not None
    return caught.value


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

    def tensor_default(p: Any, x: Any = 3) -> None: ...

    tensor_default.__annotations__["x"] = Axes["h"]

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
