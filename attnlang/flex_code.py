"""score_mod and mask_mod as Python that PyTorch can trace: an expression of indices becomes one line of source."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce as fold
from itertools import count
from typing import Any

import torch

from attnlang.call_numbers import number
from attnlang.errors_flex import NoFlexForm
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    Symbol,
    axis_of,
    dtype_of,
)  # fmt: skip
from attnlang.ir.rewrite import map_children, simplify

MOST_TERMS = 256
"""Terms that a sum is written out as."""

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "pow": "**", "and": "&", "or": "|",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_REAL = {
    "exp": "torch.exp", "exp2": "torch.exp2", "expm1": "torch.expm1", "log": "torch.log", "log2": "torch.log2",
    "log1p": "torch.log1p", "sqrt": "torch.sqrt", "rsqrt": "torch.rsqrt", "sin": "torch.sin", "cos": "torch.cos",
    "tanh": "torch.tanh", "sigmoid": "torch.sigmoid", "softplus": "torch.nn.functional.softplus", "erf": "torch.erf",
}  # fmt: skip
_ROUNDED = {"floor": "torch.floor", "ceil": "torch.ceil", "round": "torch.round", "int": "torch.trunc"}
_FOLDED = {"sum": "add", "mean": "add", "max": "max", "min": "min", "prod": "mul", "any": "or", "all": "and"}
_NEUTRAL: dict[str, bool | int | float] = {
    "sum": 0, "max": -math.inf, "min": math.inf, "prod": 1, "any": False, "all": True,
}  # fmt: skip
_INDICES: dict[Axis, str] = {BATCH: "b", HEAD: "h", QUERY: "q", KEY: "k"}
_files = count(1)


@dataclass(frozen=True)
class Mod:
    """A function of FlexAttention and its text."""

    function: Callable[..., torch.Tensor]
    source: str


def mask_code(
    name: str, visible: Expr, symbols: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], wide: bool
) -> Mod:
    """mask_mod(b, h, q_idx, kv_idx) of a predicate."""
    writer = _Writer(name, symbols, tensors)
    text = writer.tensor(writer.known(visible))
    return _made("mask_mod", "b, h, q_idx, kv_idx", f"({text}).to(torch.bool)", writer, wide)


def score_code(
    name: str, score: Expr, symbols: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], wide: bool
) -> Mod:
    """score_mod(score, b, h, q_idx, kv_idx) of an expression in which SCORE is what flex hands over."""
    writer = _Writer(name, symbols, tensors)
    text = writer.tensor(writer.known(score))
    return _made("score_mod", "score, b, h, q_idx, kv_idx", f"({text}).to(score.dtype)", writer, wide)


def _made(name: str, arguments: str, result: str, writer: _Writer, wide: bool) -> Mod:
    """The function of a text; the text is kept where tracebacks and PyTorch's tracer look for it."""
    offset = int(writer.symbols["q_offset"])
    longer = ".to(torch.int64)" if wide else ""
    lines = [
        f"def {name}({arguments}):",
        *([f"    b, h = b{longer}, h{longer}"] if wide else []),
        f"    q, k = q_idx{longer}{f' + {offset}' if offset else ''}, kv_idx{longer}",
        f"    return {result}",
    ]
    source = "\n".join(lines) + "\n"
    file = f"<attnlang {name} {next(_files)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"torch": torch, **{f"t_{key}": value for key, value in writer.tensors.items()}}
    exec(compile(source, file, "exec"), names)
    return Mod(names[name], source)


class _Writer:
    """Writes expressions; whatever has no free index is a Python number in the text."""

    def __init__(self, name: str, symbols: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        self.name = name
        self.symbols = symbols
        self.tensors = tensors

    def refuse(self, reason: str) -> NoFlexForm:
        return NoFlexForm(None, pattern=self.name, reason=reason)

    # ---- what is known

    def known(self, expr: Expr) -> Expr:
        """The expression with numbers in place of symbols and sums written out."""
        match map_children(expr, self.known) if not isinstance(expr, Reduce) else expr:
            case Symbol(name, _) if name in self.symbols:
                return Literal(self.symbols[name])
            case Apply(_, args) as found if all(isinstance(arg, Literal) for arg in args):
                try:
                    return Literal(number(found, {}))
                except ArithmeticError:
                    return found
            case Reduce() as sums:
                return self.known(self.written_out(sums))
            case found:
                return simplify(found)

    def written_out(self, sums: Reduce) -> Expr:
        """A sum over a few known values of its axes as its terms."""
        if sums.op not in _FOLDED or not sums.axes:
            raise self.refuse(f"its score or mask takes a '{sums.op}'")
        axis, *others = sums.axes
        size, start = (self.known(each) for each in (axis.size, axis.start))
        if not isinstance(size, Literal) or not isinstance(start, Literal) or int(size.value) > MOST_TERMS:
            raise self.refuse(f"its score or mask takes a '{sums.op}' over more than {MOST_TERMS} terms")
        inner = Reduce("sum" if sums.op == "mean" else sums.op, tuple(others), sums.body, sums.where)
        places = [int(start.value) + place for place in range(int(size.value))]
        terms = [self.term(inner, axis, place) for place in places]
        if sums.op == "mean":
            if others or sums.where is not None:
                raise self.refuse("its score or mask takes a mean under a condition")
            return Apply("div", (fold(_added, terms), Literal(len(terms))))
        op = _FOLDED[sums.op]
        return fold(lambda a, b: Apply(op, (a, b)), terms) if terms else Literal(_NEUTRAL[sums.op])

    def term(self, sums: Reduce, axis: Axis, place: int) -> Expr:
        """The body at one place of an axis."""

        def at(expr: Expr) -> Expr:
            return Literal(place) if expr == Index(axis) else map_children(expr, at)

        body, where = at(sums.body), None if sums.where is None else at(sums.where)
        if sums.axes:
            return Reduce(sums.op, sums.axes, body, where)
        if where is None:
            return body
        return Apply("where", (where, body, Literal(_NEUTRAL[sums.op])))

    # ---- text

    def tensor(self, expr: Expr) -> str:
        """The text of an expression that must be a tensor."""
        if isinstance(expr, Literal):
            return f"torch.full_like(kv_idx, {self.text(expr)}, dtype={_dtype(expr)})"
        return self.text(expr)

    def text(self, expr: Expr) -> str:
        match expr:
            case Literal(value):
                return (
                    f'float("{value}")'
                    if isinstance(value, float) and not math.isfinite(value)
                    else repr(value)
                )
            case Symbol("flex score", _):
                return "score"
            case Index(axis) if axis in _INDICES:
                return _INDICES[axis]
            case Read(source, at, _):
                return f"t_{source}[{', '.join(self.places(source, at))}]"
            case Apply(op, args):
                return self.operation(op, args)
            case _:
                raise self.refuse("its score or mask has an index of its own")

    def places(self, source: str, at: tuple[Expr, ...]) -> list[str]:
        """Indices of a tensor, kept inside it: pairs that are hidden may read beyond its ends."""
        found: list[str] = []
        for place, length in zip(at, self.tensors[source].shape, strict=True):
            place = simplify(place)
            if isinstance(place, Literal):
                found.append(str(min(max(int(place.value), 0), length - 1)))
            elif axis_of(place) is not None:
                found.append(self.text(place))
            else:
                found.append(f"torch.clamp({self.text(place)}, 0, {length - 1})")
        return found

    def real(self, expr: Expr) -> str:
        """As a float: whole numbers are exact in float64."""
        if isinstance(expr, Literal):
            return f"torch.full_like(kv_idx, {self.text(expr)}, dtype=torch.float64)"
        text = self.text(expr)
        return text if dtype_of(expr) == "float" else f"{text}.to(torch.float64)"

    def whole(self, expr: Expr) -> str:
        """As a number: truth values become 0 or 1."""
        text = self.text(expr)
        return (
            f"{text}.to(torch.int64)" if dtype_of(expr) == "bool" and not isinstance(expr, Literal) else text
        )

    def operation(self, op: str, args: tuple[Expr, ...]) -> str:
        match op, args:
            case (("and" | "or"), (x, y)):
                return f"({self.text(x)} {_INFIX[op]} {self.text(y)})"
            case _, (x, y) if op in _INFIX:
                return f"({self.whole(x)} {_INFIX[op]} {self.whole(y)})"
            case "div", (x, y):
                return f"({self.real(x) if not isinstance(x, Literal) else self.text(x)} / {self.divisor(y)})"
            case (("min" | "max"), (x, y)):
                return self.extreme(op, x, y)
            case "where", (condition, x, y):
                return f"torch.where({self.tensor(condition)}, {self.text(x)}, {self.text(y)})"
            case "not", (x,):
                return f"~{self.text(x)}"
            case "neg", (x,):
                return f"(-{self.whole(x)})"
            case (("abs" | "sign"), (x,)):
                return f"torch.{op}({self.whole(x)})"
            case "float", (x,):
                return self.real(x)
            case "detach", (x,):
                return f"{self.text(x)}.detach()"
            case _, (x,) if op in _ROUNDED:
                exact = dtype_of(x) != "float"
                return self.whole(x) if exact else f"{_ROUNDED[op]}({self.text(x)}).to(torch.int64)"
            case _, (x,) if op in _REAL:
                return f"{_REAL[op]}({self.real(x)})"
            case _:
                raise self.refuse(f"its score or mask uses '{op}'")

    def divisor(self, expr: Expr) -> str:
        return self.text(expr) if isinstance(expr, Literal) else self.real(expr)

    def extreme(self, op: str, x: Expr, y: Expr) -> str:
        """min and max; a number bounds a tensor by clamp."""
        if isinstance(x, Literal):
            x, y = y, x
        if isinstance(y, Literal):
            kind = "float" if "float" in (dtype_of(x), dtype_of(y)) else "int"
            text = self.real(x) if kind == "float" else self.whole(x)
            return f"torch.clamp({text}, {'max' if op == 'min' else 'min'}={self.text(y)})"
        return f"torch.{'minimum' if op == 'min' else 'maximum'}({self.whole(x)}, {self.whole(y)})"


def _added(a: Expr, b: Expr) -> Expr:
    return Apply("add", (a, b))


def _dtype(expr: Expr) -> str:
    return {"bool": "torch.bool", "int": "torch.int64", "float": "torch.float64"}[dtype_of(expr)]
