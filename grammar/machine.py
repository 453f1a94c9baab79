"""The compiled grammar: made from attn.lark at the first use, then shared by all parses of the process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias, cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

LarkTree: TypeAlias = Tree[Token]
Part: TypeAlias = Token | LarkTree


@dataclass
class Refused(Exception):
    """A text that grammar does not know: where, what stands there (nothing at the end), what could have stood there.

    `expected` holds names of terminals; it is empty where not even a token was found.
    """

    at: int
    found: str
    expected: frozenset[str]


@cache
def machine() -> Lark:
    """The LALR tables with the starts `line` (one logical line) and `expr`."""
    text = files("attnlang.grammar").joinpath("attn.lark").read_text(encoding="utf-8")
    return Lark(
        text, parser="lalr", start=["line", "expr"], propagate_positions=True, maybe_placeholders=True
    )


def read(text: str, start: Literal["line", "expr"]) -> Part:
    """Lark's tree of a text, or its only token. Raises Refused."""
    parse = cast(Any, machine()).parse
    try:
        return cast(Part, parse(text, start=start))
    except UnexpectedCharacters as error:
        at = int(cast(Any, error).pos_in_stream)
        raise Refused(at, text[at], frozenset()) from None
    except UnexpectedToken as error:
        token = cast(Token, cast(Any, error).token)
        expected = frozenset(cast("set[str]", cast(Any, error).interactive_parser.accepts()))
        if token.type == "$END":
            raise Refused(len(text), "", expected) from None
        raise Refused(token.start_pos or 0, str(token), expected) from None
