"""Names that mean something in printed C++, and what the kernel's own names become beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .cpp_helpers import AVX512, PIECES, TYPES

KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
    concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete
    do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires return short signed sizeof static static_assert static_cast struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
    arguments first last memory scratch number zeros sum found done typeof linux unix e i n main
"""
_TEXTS = "".join((TYPES, *PIECES.values(), *AVX512.values()))
_FUNCTIONS: list[str] = re.findall(r"INLINE [^(;]*?\b(\w+)\(", _TEXTS)
_TYPES: list[str] = re.findall(r"typedef \w+ (\w+)", TYPES)
_OTHERS = ("half", "bfloat", "LANES", "infinity", "INLINE", "INLINED")
TAKEN = frozenset((*KEYWORDS.split(), *_FUNCTIONS, *_TYPES, *_OTHERS))


def spelled(names: Iterable[str]) -> dict[str, str]:
    """What each name that means something in C++ is called instead; never a name that another has."""
    known, result = set(names), dict[str, str]()
    for name in sorted(known):
        if name in TAKEN or name.startswith(("in_", "rows_", "columns_", "__")):
            shown = f"{name}_"
            while shown in known or shown in TAKEN:
                shown += "_"
            result[name] = shown
            known.add(shown)
    return result
