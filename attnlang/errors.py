"""Every diagnostic: one class, one code, one message template, one hint.

The codes tell the stage: E1 reading and grammar, E2 names, types and axes, E3 the arguments of a call,
E4 what has no lowering yet, E5 the machine (cache, compilers, devices).
"""

from __future__ import annotations

from typing import Any, ClassVar

from attnlang.source import Span


class AttnlangError(Exception):
    """Base of everything attnlang raises on purpose; `str()` is the report that a user reads."""


class Diagnostic(AttnlangError):
    """One mistake at one place. Subclasses give `code`, `message` and perhaps `hint`, all filled from keywords.

    `Diagnostic(span, hint=…, **fields)`: `span` may be None where there is no text to point at.
    """

    code: ClassVar[str] = ""
    message: ClassVar[str] = ""
    hint: ClassVar[str] = ""
    registry: ClassVar[dict[str, type[Diagnostic]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.code:
            known = Diagnostic.registry.setdefault(cls.code, cls)
            if known is not cls and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"code {cls.code} is taken by {known.__name__}")

    def __init__(self, span: Span | None = None, hint: str | None = None, **fields: Any) -> None:
        self.span = span
        self.fields = fields
        self.text = self.message.format(**fields)
        self.advice = hint if hint is not None else self.hint.format(**fields)
        super().__init__(self.report())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.span, self.advice, self.fields)

    def report(self) -> str:
        """`place: error[code]: message`, then the line with carets and the hint."""
        if self.span is None:
            tail = f"\n  {self.advice}" if self.advice else ""
            return f"error[{self.code}]: {self.text}{tail}"
        lines = [f"{self.span.location()}: error[{self.code}]: {self.text}"]
        return "\n".join(lines + [f"  {line}" for line in self.span.excerpt(self.advice or None)])

    def to_dict(self) -> dict[str, Any]:
        """For editors: code, message, hint, file and 1-based line and column ranges."""
        place: dict[str, Any] = {}
        if self.span is not None:
            place = {
                "file": self.span.source.name,
                "line": self.span.line,
                "column": self.span.column,
                "start": self.span.start,
                "end": self.span.end,
            }
        return {"code": self.code, "message": self.text, "hint": self.advice, **place}


def _rebuild(cls: type[Diagnostic], span: Span | None, hint: str, fields: dict[str, Any]) -> Diagnostic:
    return cls(span, hint, **fields)


class Diagnostics(AttnlangError):
    """All mistakes of one text, in the order of their places. `partial`: what of its tree could be read."""

    def __init__(self, errors: list[Diagnostic], partial: object = None) -> None:
        self.errors = sorted(errors, key=lambda e: (e.span.source.name, e.span.start) if e.span else ("", -1))
        self.partial = partial
        super().__init__("\n".join(error.report() for error in self.errors))

    def __reduce__(self) -> tuple[Any, ...]:
        return Diagnostics, (self.errors,)


def nearest(name: str, candidates: list[str]) -> str | None:
    """The candidate a typing mistake away from `name`, if there is one."""
    from difflib import get_close_matches

    found = get_close_matches(name, candidates, n=1, cutoff=0.6)
    return found[0] if found else None


# -------------------------------------------------------------------------------------------------------------
# E1 reading and grammar
# -------------------------------------------------------------------------------------------------------------


class FileNotFound(Diagnostic):
    code = "E101"
    message = "there is no file '{file}'"


class FileIsDirectory(Diagnostic):
    code = "E102"
    message = "'{file}' is a directory"
    hint = "name one .attn file"


class FileCannotBeRead(Diagnostic):
    code = "E103"
    message = "'{file}' cannot be read: {reason}"


class FileTooLarge(Diagnostic):
    code = "E104"
    message = "'{file}' is larger than {limit:,} bytes"
    hint = "a pattern is a page of text; is this the right file?"


class FileIsEmpty(Diagnostic):
    code = "E105"
    message = "'{file}' is empty"
    hint = "a file holds at least one pattern or def: 'attnlang new NAME' writes one to start from"


class NotText(Diagnostic):
    code = "E106"
    message = "'{file}' is not a text in UTF-8: {reason} (line {line})"


class ControlCharacter(Diagnostic):
    code = "E107"
    message = "control character {character}"
    hint = "remove it"


class BracketNeverClosed(Diagnostic):
    code = "E108"
    message = "'{bracket}' is never closed"
    hint = "its partner is missing before the next statement"


class BracketWithoutOpening(Diagnostic):
    code = "E109"
    message = "'{bracket}' closes nothing"
    hint = "remove it, or open its partner before"


class BracketDoesNotMatch(Diagnostic):
    code = "E110"
    message = "'{bracket}' does not close the '{opening}' before it"


class StringNeverClosed(Diagnostic):
    code = "E111"
    message = "this string is never closed"
    hint = 'end it with the " or """ it began with'


class MixedIndentation(Diagnostic):
    code = "E112"
    message = "tabs and spaces are mixed in the indentation of this file"
    hint = "indent with four spaces"


class WrongIndentation(Diagnostic):
    code = "E113"
    message = "this line is indented {found} columns, the lines of its block {wanted}"
    hint = "begin it in column {column}"


class UnexpectedBlock(Diagnostic):
    code = "E114"
    message = "this line is indented, but the line above opens no block"
    hint = "only 'pattern' and 'branch' have a block"


class StatementOutsidePattern(Diagnostic):
    code = "E115"
    message = "'{keyword}' stands outside a pattern"
    hint = "indent it below a line such as 'pattern name():'"


class StatementInsidePattern(Diagnostic):
    code = "E116"
    message = "'{keyword}' stands inside a {block}"
    hint = "'{keyword}' belongs at the left margin"


class BranchInsideBranch(Diagnostic):
    code = "E117"
    message = "a branch stands inside another"
    hint = "branches stand side by side; one reads another's result by its name"


class NestedTooDeep(Diagnostic):
    code = "E118"
    message = "an expression is nested more than {limit} deep"
    hint = "name its parts with 'let'; every operator of a chain such as a + b + c counts"


class StatementTooLong(Diagnostic):
    code = "E119"
    message = "a statement of {length:,} characters, at most {limit:,} are read"
    hint = "name its parts with 'let'"


class NumberTooLong(Diagnostic):
    code = "E120"
    message = "a number of {digits:,} characters, at most {limit} are read"


class NumberTooLarge(Diagnostic):
    code = "E121"
    message = "this number is too large"
    hint = "an int fits into 64 bits, a float is below 1.8e308; 'inf' is infinity"


class NameTooLong(Diagnostic):
    code = "E122"
    message = "a name of {length:,} characters, at most {limit} are read"


class UnexpectedText(Diagnostic):
    code = "E123"
    message = "unexpected {found}"
    hint = "expected {expected}"


class UnknownStatement(Diagnostic):
    code = "E124"
    message = "no statement begins with '{word}'"
    hint = "a line begins with one of {words}"


class MissingColon(Diagnostic):
    code = "E125"
    message = "':' is missing at the end of this line"
    hint = "write ':' here, the block follows"


class SurplusMark(Diagnostic):
    code = "E126"
    message = "no '{found}' belongs after '{keyword}'"
    hint = "remove it: '{keyword} expression'"


class WrongOperator(Diagnostic):
    code = "E127"
    message = "'{found}' is no operator here"
    hint = "write {wanted}"


class WrongCharacter(Diagnostic):
    code = "E128"
    message = "the character '{found}' has no meaning here"
    hint = "{advice}"


class AssignmentWithoutLet(Diagnostic):
    code = "E129"
    message = "a definition begins with 'let'"
    hint = "write 'let {target} = …'"


class ForeignStatement(Diagnostic):
    code = "E130"
    message = "'{word}' is Python, not attnlang"
    hint = "{advice}"


class TextInExpression(Diagnostic):
    code = "E131"
    message = "text between quotes is no value"
    hint = 'strings are for docstrings and for import "file.attn"'


class DefinitionWithBlock(Diagnostic):
    code = "E132"
    message = "a def has no block: it names one expression"
    hint = "write 'def name(parameters) = expression'"


class LineBeginsWithOperator(Diagnostic):
    code = "E133"
    message = "a line cannot begin with '{operator}'"
    hint = "put the whole expression into parentheses to go on over several lines"


class ClauseTwice(Diagnostic):
    code = "E134"
    message = "'{clause}' stands twice in this statement"
    hint = "join both with 'and' or 'or'"


class KeywordBeforePositional(Diagnostic):
    code = "E135"
    message = "an argument without a name follows one with a name"
    hint = "named arguments come last"


class MisplacedDocstring(Diagnostic):
    code = "E136"
    message = "a docstring stands first in a pattern, and nowhere else"
    hint = "write a comment: # …"


class MethodCall(Diagnostic):
    code = "E137"
    message = "only functions are called, there are no methods"
    hint = "{advice}"


class MalformedNumber(Diagnostic):
    code = "E138"
    message = "'{found}' is neither a number nor a name"
    hint = "a name does not begin with a digit, a number is written 16, 0.5 or 1e-6"


class SliceInIndex(Diagnostic):
    code = "E139"
    message = "there are no slices: an index picks one element"
    hint = "name the index, as in 'sum(x[i] for i in n)'"


class NothingHere(Diagnostic):
    code = "E140"
    message = "'{keyword}' says nothing"
    hint = "{advice}"


class TooManyMistakes(Diagnostic):
    code = "E141"
    message = "more than {limit} mistakes, the others are not shown"
    hint = "is this an .attn file?"


# -------------------------------------------------------------------------------------------------------------
# E2 the meaning of a pattern: the others stand in errors_meaning.py
# -------------------------------------------------------------------------------------------------------------


class NameTaken(Diagnostic):
    code = "E202"
    message = "'{name}' cannot be the name of {what}: it is {meaning}"
    hint = "choose another name"


class NoSuchPattern(Diagnostic):
    code = "E214"
    message = "{problem}"


# -------------------------------------------------------------------------------------------------------------
# E26x Python functions
# -------------------------------------------------------------------------------------------------------------


class NoTruthValue(Diagnostic):
    code = "E260"
    message = (
        "this is neither true nor false yet: the function is traced once, for every q and k at the same time"
    )
    hint = "write p.where(c, a, b) for 'if', & | ~ for 'and or not', (a <= x) & (x < b) for a chain"


class NoNumberYet(Diagnostic):
    code = "E261"
    message = "this has no number yet: the function is traced before the pattern is called"
    hint = "write p.exp, p.floor, p.int, … in place of Python's functions"


class CannotBeTraced(Diagnostic):
    code = "E262"
    message = "a {kind} cannot be part of an expression"
    hint = "expressions are made of what p gives, parameters, tensors, numbers and truth values"


class CannotIterate(Diagnostic):
    code = "E263"
    message = "Python cannot run over this: it has no members until the pattern is called"
    hint = "write p.sum(lambda m: ..., over=...) or p.sum(... for m in ...)"


class MalformedReduction(Diagnostic):
    code = "E264"
    message = "a reduction {what}"
    hint = "write p.sum(lambda m: ..., over=..., where=lambda m: ...)"


class NotAFunction(Diagnostic):
    code = "E265"
    message = "only a name can be called"


class WrongSignature(Diagnostic):
    code = "E266"
    message = "'{name}' {what}"


class WrongAnnotation(Diagnostic):
    code = "E267"
    message = "the axis {axis} of a tensor cannot be read"
    hint = 'write Tensor["h", "2*reach - 1", 3]: index names, numbers, and + - * // % ** in parameters'


class ResultNotUsed(Diagnostic):
    code = "E268"
    message = "the result of '{name}' is not used, and p has no statement of that name"


class WrongStatement(Diagnostic):
    code = "E269"
    message = "{what}"
