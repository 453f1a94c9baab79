"""Wrong snippets and the advice they get, in the user's terms: a tuple of rules, the first that knows one answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attnlang.errors import (
    AssignmentWithoutLet,
    DefinitionWithBlock,
    Diagnostic,
    ForeignStatement,
    LineBeginsWithOperator,
    MalformedNumber,
    MethodCall,
    MissingColon,
    NothingHere,
    SliceInIndex,
    SurplusMark,
    TextInExpression,
    UnexpectedText,
    UnknownStatement,
    WrongCharacter,
    WrongOperator,
    nearest,
)
from attnlang.source import Span

from .expected import in_words, keywords
from .foreign import CHARACTERS, NAMESAKES, OPERATORS, STATEMENTS
from .layout import STATEMENT_WORDS, LogicalLine
from .machine import Refused

Opens: TypeAlias = Literal["", "pattern", "branch", "foreign"]
"""The block that a wrong line opens; the lines of a foreign one are not read."""

RESERVED = ("if", "else", "and", "or", "not", "mod", "for", "in", "true", "false", "True", "False")
"""Words that are no names anywhere; the other keywords are names where no keyword is expected."""

SECTIONS = ("mask", "sparsity", "score", "weight", "reweight", "value", "output", "normalize")


def opened_by(word: str) -> Opens:
    """The block that a line with this first word opens."""
    return "pattern" if word == "pattern" else "branch" if word == "branch" else ""


@dataclass(frozen=True)
class Advice:
    """A mistake, and the block that goes with its line."""

    mistake: Diagnostic
    opens: Opens = ""


@dataclass(frozen=True)
class Wrong:
    """A line that grammar refused: where in its text, what stands there, and what could have stood there."""

    line: LogicalLine
    at: int
    found: str
    expected: frozenset[str]

    @property
    def text(self) -> str:
        """The line."""
        return self.line.text

    @property
    def rest(self) -> str:
        """From the refused place on."""
        return self.text[self.at :]

    @property
    def before(self) -> str:
        """What was accepted."""
        return self.text[: self.at].rstrip()

    @property
    def word(self) -> str:
        """The name that the line begins with."""
        return self.line.first_word()

    def span(self, start: int, length: int) -> Span:
        """A range of the line in its source."""
        return Span(self.line.source, self.line.start + start, self.line.start + start + max(1, length))

    def here(self, length: int = 0) -> Span:
        """The refused token, or so many characters from its start."""
        return self.span(self.at, length or len(self.found))


def explain(line: LogicalLine, refused: Refused, *, statement: bool = True) -> Advice:
    """The advice for a line that grammar refused, a statement or an expression alone."""
    wrong = Wrong(line, refused.at, refused.found, refused.expected)
    for rule in LINE_RULES + PLACE_RULES if statement else PLACE_RULES:
        advice = rule(wrong)
        if advice is not None:
            return advice if isinstance(advice, Advice) else Advice(advice, opened_by(wrong.word))
    raise AssertionError("the last rule answers always")


# ------------------------------------------------------------------------------------------- the whole line


def foreign_statement(wrong: Wrong) -> Advice | None:
    """`import os`, `return x`, `@attention_pattern`, `for i in …:`"""
    word = "@" if wrong.text.startswith("@") else re.split(r"[^A-Za-z_0-9]", wrong.text, maxsplit=1)[0]
    if word not in STATEMENTS or (word == "import" and not re.match(r"import\s+[A-Za-z_.]", wrong.text)):
        return None
    return Advice(ForeignStatement(wrong.span(0, len(word)), word=word, advice=STATEMENTS[word]), "foreign")


def definition_with_block(wrong: Wrong) -> Advice | None:
    """`def f(x):`"""
    if wrong.word == "def" and re.search(r":\s*$", wrong.text) and "=" not in wrong.before.rpartition(")")[2]:
        return Advice(DefinitionWithBlock(wrong.span(len(wrong.text) - 1, 1)), "foreign")
    return None


def missing_colon(wrong: Wrong) -> Diagnostic | None:
    """`pattern f(n: int = 3)`"""
    if wrong.word in ("pattern", "branch") and not wrong.found and "COLON" in wrong.expected:
        return MissingColon(wrong.here())
    return None


def surplus_mark(wrong: Wrong) -> Diagnostic | None:
    """`mask: causal`, `score = …`"""
    found = re.match(r"[A-Za-z_]+\s*(:=|:|=(?!=))", wrong.text)
    if wrong.word in SECTIONS and found and wrong.at == found.start(1):
        return SurplusMark(wrong.here(len(found.group(1))), found=found.group(1), keyword=wrong.word)
    return None


def assignment(wrong: Wrong) -> Diagnostic | None:
    """`x = …`, `x[c] = …`, `x += …`"""
    found = re.match(r"([A-Za-z_][A-Za-z_0-9]*)\s*(\[[^\]]*\])?\s*([-+*/@]?)=(?!=)", wrong.text)
    if found is None or wrong.word in STATEMENT_WORDS:
        return None
    target = found.group(1) + (found.group(2) or "")
    span = wrong.span(0, len(found.group(1)))
    if found.group(3):
        return AssignmentWithoutLet(span, "nothing is changed in place: name the new value with 'let'")
    return AssignmentWithoutLet(span, target=target)


def operator_first(wrong: Wrong) -> Diagnostic | None:
    """A line such as `or q == k`."""
    found = re.match(r"(and|or|mod|not|in|where)\b|[-+*/@|<>=&.,]+", wrong.text)
    if wrong.at or found is None:
        return None
    if found.group().startswith("//"):
        return WrongCharacter(wrong.here(2), found="//", advice="a comment begins with #")
    return LineBeginsWithOperator(wrong.here(len(found.group())), operator=found.group())


def unknown_statement(wrong: Wrong) -> Advice | Diagnostic | None:
    """`normalise softmax`, `patern f():`"""
    if not wrong.word or wrong.word in STATEMENT_WORDS or wrong.at > len(wrong.word):
        return None
    meant = NAMESAKES.get(wrong.word.lower()) or nearest(wrong.word.lower(), list(STATEMENT_WORDS))
    hint = f"did you mean '{meant}'?" if meant else None
    words = ", ".join(STATEMENT_WORDS[3:] if wrong.line.indent else STATEMENT_WORDS[:3])
    mistake = UnknownStatement(wrong.span(0, len(wrong.word)), hint, word=wrong.word, words=words)
    return Advice(mistake, opened_by(meant or ""))


def says_nothing(wrong: Wrong) -> Diagnostic | None:
    """`mask` alone."""
    if wrong.found or wrong.text.strip() not in STATEMENT_WORDS:
        return None
    advice = f"expected {in_words(wrong.expected)} after it"
    return NothingHere(wrong.span(0, len(wrong.word)), keyword=wrong.word, advice=advice)


# --------------------------------------------------------------------------------------- the refused place


def malformed_number(wrong: Wrong) -> Diagnostic | None:
    """`16abc`, `1.`, `0x10`"""
    for number in re.finditer(r"(?<![0-9A-Za-z_.\])])[0-9][0-9A-Za-z_.]*", wrong.text):
        readable = re.fullmatch(r"[0-9_]+|[0-9_]*\.[0-9_]+([eE][0-9]+)?|[0-9_]+[eE][0-9]+", number.group())
        if number.start() <= wrong.at and not wrong.text[number.end() : wrong.at].strip() and not readable:
            span = wrong.span(number.start(), len(number.group()))
            return MalformedNumber(span, found=number.group())
    return None


def text_between_quotes(wrong: Wrong) -> Diagnostic | None:
    """`f"…"`, `'doc'`, `x == "a"`"""
    if not re.match(r"[\"']", wrong.rest):
        return None
    quoted = re.match(r"\"[^\"]*\"|'[^']*'", wrong.rest)
    span = wrong.here(len(quoted.group()) if quoted else 1)
    if wrong.rest.startswith("'") and not wrong.before:
        return TextInExpression(span, 'a docstring is written with double quotes: "…"')
    if wrong.word == "import":
        return TextInExpression(span, 'write import "file.attn" with double quotes')
    return TextInExpression(span)


def method_call(wrong: Wrong) -> Diagnostic | None:
    """`K.mean()`, `torch.exp(x)`"""
    called = re.search(r"(?:([A-Za-z_0-9\])]+)\s*\.\s*)?([A-Za-z_][A-Za-z_0-9]*|\)|\])$", wrong.before)
    if wrong.found != "(" or called is None or "PLUS" not in wrong.expected:
        return None
    owner, name = called.groups()
    if owner:
        start = called.start(2)
        inner = (
            "x"
            if owner in ("torch", "np", "numpy", "math", "F", "jnp")
            else owner
            if owner.isidentifier()
            else "…"
        )
        return MethodCall(wrong.span(start, len(name)), advice=f"write '{name}({inner})'")
    return MethodCall(wrong.here(), advice="a function is a name; did you mean '*'?")


def slice_in_index(wrong: Wrong) -> Diagnostic | None:
    """`Q[q, :]`, `K[0:4]`"""
    if wrong.found == ":" and wrong.before.count("[") > wrong.before.count("]"):
        return SliceInIndex(wrong.here())
    return None


def conditional_without_else(wrong: Wrong) -> Diagnostic | None:
    """`x if q > k`"""
    if "_ELSE" not in wrong.expected:
        return None
    condition = [found for found in re.finditer(r"\bif\b", wrong.before)]
    if not condition or wrong.found not in ("", ")", "]", ",", ":"):
        return None
    hint = "every 'if' needs its value otherwise: 'a if condition else b'"
    return UnexpectedText(wrong.here(), hint, found=_described(wrong), expected="'else'")


def foreign_operator(wrong: Wrong) -> Diagnostic | None:
    """`&&`, `%`, `^`, `=` for `==`, …"""
    attached = re.search(r"\b(?:lambda|xor|is|div)$|[-<>=!&|~]*$", wrong.text[: wrong.at].rstrip(" "))
    starts = [wrong.at]
    if attached is not None and (attached.group().isalpha() or attached.end() == wrong.at):
        starts.insert(0, attached.start())
    for start in starts:
        for pattern, wanted in OPERATORS:
            found = pattern.match(wrong.text, start)
            if found is not None and (found.end() > wrong.at or found.group().isalpha()):
                return WrongOperator(
                    wrong.span(start, len(found.group())), found=found.group(), wanted=wanted
                )
    return None


def foreign_character(wrong: Wrong) -> Diagnostic | None:
    """`≤`, `×`, `α`, and every other character without a meaning."""
    character = wrong.rest[:1]
    if not character or (character.isascii() and character not in "\\;$`'{}?~!"):
        return None
    if character in CHARACTERS:
        advice = CHARACTERS[character]
    elif character.isalpha():
        advice = "names are made of the letters a-z, digits and _"
        name = unicodedata.name(character, "")
        advice += f"; write '{name.rpartition(' ')[2].lower()}'" if "GREEK" in name else ""
    else:
        advice = "remove it"
    return WrongCharacter(wrong.here(1), found=character, advice=advice)


def misspelt_keyword(wrong: Wrong) -> Diagnostic | None:
    """`blocks c off k by 4`"""
    if not re.match(r"[A-Za-z_]", wrong.found):
        return None
    meant = nearest(wrong.found.lower(), keywords(wrong.expected))
    if meant is None:
        return None
    return UnexpectedText(wrong.here(), f"did you mean '{meant}'?", found=_described(wrong), expected="")


def surplus_colon(wrong: Wrong) -> Diagnostic | None:
    """`blocks c of k by 64:`"""
    simple = wrong.word in STATEMENT_WORDS and not opened_by(wrong.word)
    if wrong.found == ":" and not wrong.rest[1:].strip() and simple:
        return SurplusMark(
            wrong.here(), "remove it: this line opens no block", found=":", keyword=f"{wrong.word} …"
        )
    return None


def anything_else(wrong: Wrong) -> Diagnostic:
    """What could have stood there."""
    hint = None if wrong.expected else "remove it"
    return UnexpectedText(wrong.here(), hint, found=_described(wrong), expected=in_words(wrong.expected))


def _described(wrong: Wrong) -> str:
    if not wrong.found:
        return "end of the line"
    if wrong.found in RESERVED:
        return f"keyword '{wrong.found}'"
    shown = wrong.found if len(wrong.found) <= 40 else wrong.found[:40] + "…"
    return f"'{shown}'"


Rule: TypeAlias = Callable[[Wrong], Advice | Diagnostic | None]

LINE_RULES: tuple[Rule, ...] = (
    foreign_statement,
    definition_with_block,
    missing_colon,
    surplus_mark,
    assignment,
    operator_first,
    unknown_statement,
    says_nothing,
)
PLACE_RULES: tuple[Rule, ...] = (
    malformed_number,
    text_between_quotes,
    method_call,
    slice_in_index,
    conditional_without_else,
    foreign_operator,
    foreign_character,
    misspelt_keyword,
    surplus_colon,
    anything_else,
)
