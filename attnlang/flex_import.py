"""`from_flex`: FlexAttention's mask_mod and score_mod, run once, become a pattern.

def mask_mod(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)

pattern = attnlang.from_flex(mask_mod=mask_mod)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from importlib import import_module
from types import TracebackType
from typing import Any, cast

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here, span_in
from attnlang.decorator_values import is_name
from attnlang.decorator_values import lift as lift_number
from attnlang.errors import AttnlangError
from attnlang.errors_flex import CannotTraceFunction
from attnlang.flex_import_captures import CapturedNumber, Captures, Rebuilder, free_name
from attnlang.flex_import_torch import FUNCTIONS_WRITTEN
from attnlang.flex_import_trace import CapturedTensor, FlexTrace, Tracer
from attnlang.flex_import_values import Kind, Observed, Value
from attnlang.pattern import Pattern
from attnlang.source import Span

FILES_OF_THE_TRACER.add(__file__)
FILES_OF_THE_TRACER.update(
    str(import_module(f"torch.{name}").__file__)
    for name in ("overrides", "nn.attention.flex_attention", "nn.functional", "functional", "_tensor")
)
Mod = Callable[..., Any]
RESERVED = {
    "b", "h", "g", "q", "k", "n", "d", "e", "s", "w", "B", "H", "HK", "NQ", "NK", "D", "DV", "Q", "K", "V", "pi",
    "inf", "scale", "q_offset", "attention", "return_lse", "return_weights", "target", "heads", "kv_heads", "batch",
    "head_dim", "value_dim", "dtype", "device", "block_size", "self", "and", "or", "not", "if", "else", "for", "in",
    "true", "false", "min", "max", "count", *FUNCTIONS_WRITTEN,
}  # fmt: skip
"""Names that mean something else in a pattern or in its calls."""


def from_flex(
    *, mask_mod: Mod | None = None, score_mod: Mod | None = None, name: str | None = None
) -> Pattern:
    """The pattern that FlexAttention computes with `mask_mod(b, h, q_idx, kv_idx)` and `score_mod(score, b, h, q_idx,
    kv_idx)`; either may be left out.

    Numbers that the functions capture become parameters named like the variables, with their values as defaults;
    numbers whose value Python needs at once (`if`, `range`) are constants. Captured tensors become declared tensors,
    which the pattern keeps in `given`: calls may pass others. Positions count from 0: where there are fewer queries
    than keys, call it with `q_offset=0`. `name`: of the pattern, by default that of the function.

    Raises a Diagnostic that points at the Python line, where a function is data-dependent or beyond the language.
    """
    mods = {"mask_mod": mask_mod, "score_mod": score_mod}
    for kind, mod in mods.items():
        if mod is not None and not callable(mod):
            raise CannotTraceFunction(here(), name=kind, what="is no function")
    if mask_mod is None and score_mod is None:
        raise CannotTraceFunction(here(), name="from_flex", what="needs a mask_mod or a score_mod")
    if name is not None and not is_name(name):
        raise CannotTraceFunction(here(), name=name, what="cannot be the name of a pattern")
    constants: set[str] = set()
    while True:
        try:
            return _Run(constants).pattern(mask_mod, score_mod, name or _name_of(mask_mod, score_mod))
        except Observed as observed:
            constants |= observed.names


def _name_of(mask_mod: Mod | None, score_mod: Mod | None) -> str:
    """That of the first function that has one of its own."""
    plain = {"mask_mod", "score_mod", "and_mask", "or_mask", "mask", "score", "mod"}
    for mod in (mask_mod, score_mod):
        name = getattr(mod, "__name__", "")
        if is_name(name) and name not in plain | RESERVED:
            return name
    return "flex"


class _Run:
    """One try, with some captured numbers as constants."""

    def __init__(self, constants: set[str]) -> None:
        self.constants = constants
        self.captures = Captures(set(RESERVED))
        self.trace = FlexTrace(self.captures)
        self.rebuilder = Rebuilder(self.captures, self.replaced)

    def replaced(self, captured: CapturedNumber) -> object:
        """What stands in for a captured number while the functions run."""
        value, name = captured.value, captured.name
        if name in self.constants or value != value or abs(value) == float("inf"):
            return value
        kind: Kind = "int" if isinstance(value, int) else "float"
        return self.trace.value(syntax.Name(name, span=here()), kind, value, frozenset((name,)))

    def pattern(self, mask_mod: Mod | None, score_mod: Mod | None, name: str) -> Pattern:
        """The pattern of both functions."""
        b, h, q, k = (self.trace.index(index) for index in ("b", "h", "q", "k"))
        body: list[syntax.Section] = []
        if mask_mod is not None:
            expr = self.trace.cast(self.trace.lift(self.run("mask_mod", mask_mod, b, h, q, k)), "bool").expr
            if expr != syntax.Boolean(True):
                body.append(syntax.Section("mask", expr, span=here()))
        if score_mod is not None:
            score = self.trace.value(_plain_score(), "float")
            expr = self.trace.numeric(self.run("score_mod", score_mod, score, b, h, q, k)).expr
            if expr != score.expr:
                body.append(syntax.Section("score", expr, span=here()))
        return self.made(name, body)

    def run(self, kind: str, mod: Mod, *values: Value) -> object:
        """The result of a function; mistakes that Python reports are reported at the user's line."""
        try:
            with Tracer(self.trace):
                return self.rebuilder.rebuilt(kind, _plain(mod))(*values)
        except (AttnlangError, Observed):
            raise
        except Exception as error:
            rest = set(self.captures.numbers) - self.constants
            if rest:
                raise Observed(frozenset(rest)) from error
            what = f"cannot be traced: {type(error).__name__}: {error}"
            raise CannotTraceFunction(_place(error.__traceback__), name=kind, what=what) from error

    def made(self, name: str, body: list[syntax.Section]) -> Pattern:
        """The pattern of the sections, with what they name declared."""
        used = {node.id for section in body for node in _names(section.value)}
        divisors = {node.id for section in body for node in _divisors(section.value)}
        parameters = [
            _parameter(number, number.name in divisors)
            for number in self.captures.numbers.values()
            if number.name in used
        ]
        tensors: list[CapturedTensor] = [each for each in self.trace.tensors.values() if each.name in used]
        statements = (*(each.declaration() for each in tensors), *body)
        own = free_name(name, used | {each.name for each in parameters})
        definition = syntax.PatternDefinition(own, tuple(parameters), None, statements, span=here())
        return Pattern.of(definition).with_tensors(**{each.name: each.value for each in tensors})


def _plain(mod: Mod) -> Mod:
    """An object with a `__call__` of its own as that method."""
    if hasattr(mod, "__code__") or isinstance(mod, functools.partial):
        return cast(Mod, mod)
    return mod.__call__


def _plain_score() -> syntax.Expr:
    """`Q[q] @ K[k] * scale`."""
    span = here()
    query, key = (
        syntax.Subscript(syntax.Name(name, span=span), (syntax.Name(at, span=span),), span=span)
        for name, at in (("Q", "q"), ("K", "k"))
    )
    product = syntax.Binary("@", query, key, span=span)
    return syntax.Binary("*", product, syntax.Name("scale", span=span), span=span)


def _parameter(number: CapturedNumber, divides: bool) -> syntax.Parameter:
    """A parameter with its default; whole numbers that divide are at least 1 where they are."""
    kind = "int" if isinstance(number.value, int) else "float"
    bounds = ((">=", lift_number(1)),) if divides and kind == "int" and number.value >= 1 else ()
    return syntax.Parameter(number.name, kind, bounds, lift_number(number.value), span=here())


def _nodes(node: object) -> Iterator[syntax.Node]:
    """A node and all below it."""
    if isinstance(node, tuple):
        for each in cast("tuple[object, ...]", node):
            yield from _nodes(each)
    elif isinstance(node, syntax.Node):
        yield node
        for each in dataclasses.fields(node):
            yield from _nodes(getattr(node, each.name))


def _names(expr: syntax.Expr) -> list[syntax.Name]:
    return [node for node in _nodes(expr) if isinstance(node, syntax.Name)]


def _divisors(expr: syntax.Expr) -> list[syntax.Name]:
    """The names in what something is divided by."""
    divisions = [
        node for node in _nodes(expr) if isinstance(node, syntax.Binary) and node.operator in ("//", "mod")
    ]
    return [node.right for node in divisions if isinstance(node.right, syntax.Name)]


def _place(traceback: TracebackType | None) -> Span:
    """The last line of the user's in a traceback."""
    found = here()
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename not in FILES_OF_THE_TRACER:
            found = span_in(traceback.tb_frame)
        traceback = traceback.tb_next
    return found
