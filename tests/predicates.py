"""Random predicates over q and k as texts of the language, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

PARAMETERS = "a: int >= 1 = 1, c: int = 0"
"""The numbers that the predicates name, besides q, k, NQ and NK."""

ATOMS = st.sampled_from(("q", "k", "q", "k", "q - k", "k - q", "a", "c", "NK", "NQ"))
NUMBERS = st.integers(-4, 20).map(lambda number: str(number) if number >= 0 else f"({number})")
DIVISORS = st.integers(1, 9).map(str) | st.just("a")
COMPARISONS = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))


def _grown(smaller: SearchStrategy[str]) -> SearchStrategy[str]:
    pairs = st.tuples(smaller, smaller)
    return st.one_of(
        st.tuples(smaller, st.sampled_from("+-"), smaller).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(smaller, st.sampled_from(("2", "3", "a", "(-1)", "c"))).map(lambda t: f"({t[0]} * {t[1]})"),
        st.tuples(smaller, st.sampled_from(("//", "//", "mod")), DIVISORS).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        st.tuples(st.sampled_from(("min", "max")), pairs).map(lambda t: f"{t[0]}({t[1][0]}, {t[1][1]})"),
        smaller.map(lambda part: f"abs({part})"),
        st.tuples(smaller, smaller, COMPARISONS, smaller).map(
            lambda t: f"({t[0]} if {t[1]} {t[2]} a else {t[3]})"
        ),
    )


def numbers() -> SearchStrategy[str]:
    """Whole numbers of q, k and the parameters."""
    return st.recursive(ATOMS | NUMBERS, _grown, max_leaves=4)


def comparisons() -> SearchStrategy[str]:
    """One comparison."""
    return st.tuples(numbers(), COMPARISONS, numbers()).map(lambda t: f"({t[0]} {t[1]} {t[2]})")


def predicates() -> SearchStrategy[str]:
    """Comparisons joined by `and`, `or` and `not`."""
    joined = st.sampled_from(("and", "or"))
    return st.recursive(
        comparisons(),
        lambda smaller: (
            st.tuples(smaller, joined, smaller).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
            | smaller.map(lambda part: f"(not {part})")
        ),
        max_leaves=4,
    )
