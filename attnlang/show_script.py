"""Who sees whom as JavaScript: the predicates of a pattern, printed so that a page can evaluate them for any pair.

Numbers are JavaScript's doubles, whole ones exact up to 2^53. The functions that the text calls (`floordiv`, `mod`,
`reduce`, …) stand in show_page.html.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from attnlang.errors import Diagnostic
from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Let,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Symbol,
    dtype_of,
    free_axes,
)
from attnlang.ir.pattern import Literal as Constant
from attnlang.show_seen import Branch

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&&", "or": "||",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_CALLS = {
    "min": "min", "max": "max", "sign": "Math.sign", "abs": "Math.abs",
    "exp": "Math.exp", "exp2": "exp2", "expm1": "Math.expm1", "log": "Math.log", "log2": "Math.log2",
    "log1p": "Math.log1p", "sqrt": "Math.sqrt", "rsqrt": "rsqrt", "sin": "Math.sin", "cos": "Math.cos",
    "tanh": "Math.tanh", "atan": "Math.atan", "sigmoid": "sigmoid", "softplus": "softplus",
    "floor": "floor", "ceil": "ceil", "round": "round", "int": "trunc",
}  # fmt: skip


class NotInAPage(Diagnostic):
    """Something on which the mask of a pattern depends cannot be computed in a browser."""

    code = "E610"
    message = "a page cannot show '{name}': {reason}"
    hint = "'attnlang show -o' draws it as a picture"


Level = Literal["h", "q", "k"]
"""What a part of a predicate is computed for: a head, a row or a column."""


@dataclass(frozen=True)
class _Hoisted:
    """Parts of a predicate that depend on less than the pair, by their text, and the names they are given."""

    head: frozenset[Axis]
    row: Axis
    over: Axis
    found: dict[Level, dict[str, str]] = field(default_factory=lambda: {"h": {}, "q": {}, "k": {}})

    def level(self, expr: Expr) -> Level | None:
        """For what an expression is computed; None for each pair, or where it is too short to have a name."""
        if not isinstance(expr, Apply | Reduce | Read):
            return None
        free = free_axes(expr) - self.head
        return (
            "h"
            if not free
            else "q"
            if free == frozenset((self.row,))
            else "k"
            if free == frozenset((self.over,))
            else None
        )

    def name(self, level: Level, text: str) -> str:
        """The name of a part."""
        return self.found[level].setdefault(text, f"{level}{len(self.found[level])}")


class Script:
    """Prints the predicates of one pattern; `tables` and `tensors` are those that they read, each once."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.stages = {stage.name: stage for stage in pattern.stages}
        self.declared = {tensor.name: tensor for tensor in pattern.tensors}
        self.tables: dict[str, str] = {}
        self.tensors: dict[str, str] = {}
        self._hoisted: _Hoisted | None = None

    def branch(self, branch: Branch) -> str:
        """An attention: its sizes, and its predicate as a function of batch and head, then row, then column.

        Raises NotInAPage with the construct that has no form in a page.
        """
        rows, over = branch.attention.rows, branch.over
        outer = tuple(axis for axis in rows[:-1] if axis.role not in ("batch", "head", "kv_head"))
        self._hoisted = _Hoisted(frozenset(rows[:-1]) - frozenset(outer), branch.row, over)
        body = f"!!({self.text(branch.visible)})"
        if outer:
            body = self._loop("any", outer, body, None)
        of_head, of_row, of_column = (self._hoisted.found[level] for level in ("h", "q", "k"))
        self._hoisted = None
        named = {axis.role: self.index(axis) for axis in rows[:-1]}
        batch, head = named.get("batch", "_batch"), named.get("head", named.get("kv_head", "_head"))
        row, column = self.index(branch.row), self.index(over)
        size, left = self.text(over.size), self.text(over.start)
        lines = [
            f"{{name: {json.dumps(branch.attention.name)}, rows: {self.text(branch.row.size)}, columns: {size}, "
            f"first: {self.text(branch.row.start)}, left: {left}, row: {json.dumps(branch.row.name)}, "
            f"column: {json.dumps(over.name)},",
            f"  visible: ({batch}, {head}) => {{",
            *(f"    const {name} = {text};" for text, name in of_head.items()),
            *(
                f"    const {name} = each({size}, {left}, {column} => {text});"
                for text, name in of_column.items()
            ),
            f"    return {row} => {{",
            *(f"      const {name} = {text};" for text, name in of_row.items()),
            f"      return {column} => {body};",
            "    };",
            "  }}",
        ]
        return "\n    ".join(lines)

    def index(self, axis: Axis) -> str:
        """The name of an index variable."""
        return f"_{axis.name.replace(' ', '_')}"

    def text(self, expr: Expr) -> str:
        """An expression, every operation in parentheses; what depends on less than the pair is computed before."""
        hoisted = self._hoisted
        level = None if hoisted is None else hoisted.level(expr)
        if hoisted is None or level is None:
            return self._text(expr)
        self._hoisted = None
        name = hoisted.name(level, self._text(expr))
        self._hoisted = hoisted
        return (
            f"{name}[{self.index(hoisted.over)} - {self.text(hoisted.over.start)}]" if level == "k" else name
        )

    def _text(self, expr: Expr) -> str:
        match expr:
            case Constant(value):
                return _literal(value)
            case Symbol(name, _):
                return f"${name}"
            case Index(axis):
                return self.index(axis)
            case Read(source, at, _):
                self._need(source)
                return f"{source.replace('.', '_')}_at({', '.join(self.text(place) for place in at)})"
            case Apply(op, args):
                return self._operation(op, args)
            case Reduce(op, axes, body, where):
                shown = None if where is None else self.text(where)
                if op in ("max", "min") and dtype_of(body) == "int":
                    return self._loop(f"{op}Int", axes, self.text(body), shown)
                return self._loop(op, axes, self.text(body), shown)
            case _:
                assert_never(expr)

    def _operation(self, op: str, args: Sequence[Expr]) -> str:
        words = [self.text(arg) for arg in args]
        if op in _INFIX:
            return f"({words[0]} {_INFIX[op]} {words[1]})"
        if op in _CALLS:
            return f"{_CALLS[op]}({', '.join(words)})"
        match op:
            case "floordiv" | "mod":
                whole = all(dtype_of(arg) != "float" for arg in args)
                return f"{op}({', '.join(words)}{'' if whole else ', NaN'})"
            case "pow":
                whole = all(dtype_of(arg) != "float" for arg in args)
                return f"{'intpow' if whole else 'Math.pow'}({', '.join(words)})"
            case "where":
                return f"({words[0]} ? {words[1]} : {words[2]})"
            case "not":
                return f"(!{words[0]})"
            case "neg":
                return f"(-{words[0]})"
            case "float":
                return f"Number({words[0]})"
            case "detach":
                return words[0]
            case _:
                raise self._refused(f"'{op}' has no counterpart in JavaScript")

    def _loop(self, kind: str, axes: tuple[Axis, ...], body: str, where: str | None) -> str:
        """A reduction: nested loops over its axes."""
        names = ", ".join(self.index(axis) for axis in axes)
        ranges = ", ".join(f"[{self.text(axis.start)}, {self.text(axis.size)}]" for axis in axes)
        condition = "null" if where is None else f"({names}) => {where}"
        return f'reduce("{kind}", [{ranges}], ({names}) => {body}, {condition})'

    def _need(self, source: str) -> None:
        """Prints what is read, before it is read; refuses what only tensors of a call decide."""
        if source in self.tables or source in self.tensors:
            return
        hoisted, self._hoisted = self._hoisted, None
        self._print(source)
        self._hoisted = hoisted

    def _print(self, source: str) -> None:
        if source in self.declared:
            lengths = ", ".join(self.text(axis.size) for axis in self.declared[source].axes)
            self.tensors[source] = (
                f"const {source}_at = reader({json.dumps(source)}, tensors.{source}, [{lengths}], broken);"
            )
            return
        stage = self.stages.get(source.partition(".")[0])
        match stage:
            case Let():
                names = ", ".join(self.index(axis) for axis in stage.axes)
                ranges = ", ".join(
                    f"[{self.text(axis.start)}, {self.text(axis.size)}]" for axis in stage.axes
                )
                body = self.text(stage.body)
                self.tables[source] = f"const {source}_at = table([{ranges}], ({names}) => {body});"
            case Select():
                raise self._refused(f"'{stage.name}' is chosen by a score (select)")
            case Attention() | Merge():
                raise self._refused(f"it reads the result of the attention '{stage.name}'")
            case Recurrence():
                raise self._refused(f"it reads the running value '{stage.name}'")
            case None:
                raise self._refused(f"it reads {source}, the {_INPUTS.get(source, 'inputs')} of a call")
            case _:
                assert_never(stage)

    def _refused(self, reason: str) -> NotInAPage:
        return NotInAPage(name=self.pattern.name, reason=reason)


_INPUTS = {"Q": "queries", "K": "keys", "V": "values"}


def _literal(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "(-Infinity)"
    return repr(value) if value >= 0 else f"({value!r})"


def symbols_line(names: Sequence[str]) -> str:
    """The numbers of a call, unpacked."""
    return "const " + ", ".join(f"${name} = numbers[{json.dumps(name)}]" for name in names) + ";"


def model_text(
    script: Script, branches: Mapping[str, str], names: Sequence[str], requirements: Sequence[str]
) -> str:
    """`model(numbers)`: the sizes and predicates of a call, and what is wrong with it: requirements of the pattern that
    do not hold, tensors that are too short."""
    held = ",\n    ".join(requirements)
    found = ",\n    ".join(branches.values())
    lines = [
        symbols_line(names),
        f"const broken = [\n    {held}].filter(([, holds]) => !holds()).map(([written]) => `required: ${{written}}`);",
        *script.tensors.values(),
        *script.tables.values(),
        f"const branches = [\n    {found}];",
        "return {branches, broken};",
    ]
    return "const model = numbers => {\n  " + "\n  ".join(lines) + "\n};"
