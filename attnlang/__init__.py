"""A language for attention mechanisms, compiled to kernels that are as fast as their equations allow.

    pattern = attnlang.load("window.attn")
    out = pattern(q, k, v, window=512)

Importing this loads nothing large: each name is brought when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlang.decorator import Tensor, attention_pattern
    from attnlang.errors import AttnlangError, Diagnostic, Diagnostics
    from attnlang.flex_import import from_flex
    from attnlang.pattern import Pattern, load, load_all, parse

__version__ = "0.1.0"

__all__ = [
    "AttnlangError",
    "Diagnostic",
    "Diagnostics",
    "Pattern",
    "Tensor",
    "__version__",
    "attention_pattern",
    "from_flex",
    "load",
    "load_all",
    "parse",
]

_HOMES = {
    "attnlang.pattern": ("Pattern", "load", "load_all", "parse"),
    "attnlang.decorator": ("Tensor", "attention_pattern"),
    "attnlang.flex_import": ("from_flex",),
    "attnlang.errors": ("AttnlangError", "Diagnostic", "Diagnostics"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(home), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'attnlang' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
