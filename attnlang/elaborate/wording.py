"""How reports call things: expressions as they were written, kinds of values, counts."""

from __future__ import annotations

from typing import assert_never

from attnlang import syntax
from attnlang.elaborate.values import (
    Abbreviation,
    Attended,
    Entity,
    Group,
    Merged,
    Readable,
    Relation,
    Slot,
    Value,
)
from attnlang.ir.pattern import DType
from attnlang.ir.text import expression_text

_LEVELS = {"or": 2, "and": 3, "+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "mod": 7, "@": 7, "**": 9}
TYPE_WORDS: dict[DType, str] = {"bool": "a condition", "int": "an int", "float": "a number"}


def written(node: syntax.Expr, outer: int = 0) -> str:
    """The expression on one line, spelled as the formatter would."""
    text, level = _spell(node)
    return f"({text})" if level < outer else text


def _spell(node: syntax.Expr) -> tuple[str, int]:
    match node:
        case syntax.Number(value):
            return repr(value), 10
        case syntax.Boolean(value):
            return ("true" if value else "false"), 10
        case syntax.Name(name):
            return name, 10
        case syntax.Attribute(base, name):
            return f"{written(base, 10)}.{name}", 10
        case syntax.Subscript(base, indices):
            return f"{written(base, 10)}[{', '.join(map(written, indices))}]", 10
        case syntax.Call(function, arguments, keywords):
            parts = [*map(written, arguments), *(f"{name}={written(value)}" for name, value in keywords)]
            return f"{function.id}({', '.join(parts)})", 10
        case syntax.Reduction(function, body, variable, domain, condition):
            tail = "" if condition is None else f" if {written(condition)}"
            return f"{function.id}({written(body)} for {variable} in {written(domain)}{tail})", 10
        case syntax.Unary(operator, operand):
            if operator == "not":
                return f"not {written(operand, 4)}", 4
            return f"{operator}{written(operand, 8)}", 8
        case syntax.Binary(operator, left, right):
            level = _LEVELS[operator]
            first, second = (level + 1, 8) if operator == "**" else (level, level + 1)
            return f"{written(left, first)} {operator} {written(right, second)}", level
        case syntax.Comparison(first, rest):
            tail = "".join(f" {operator} {written(part, 6)}" for operator, part in rest)
            return written(first, 6) + tail, 5
        case syntax.Logical(operator, operands):
            level = _LEVELS[operator]
            return f" {operator} ".join(written(part, level + 1) for part in operands), level
        case syntax.Conditional(condition, then, otherwise):
            return f"{written(then, 2)} if {written(condition, 2)} else {written(otherwise, 1)}", 1
        case _:
            assert_never(node)


def described(entity: Entity) -> str:
    """What a report calls it: `a vector of length D`, `a relation`, …"""
    match entity:
        case Value(_, dtype, ()):
            return TYPE_WORDS[dtype]
        case Value(_, _, (axis,)):
            return f"a vector of length {expression_text(axis.size)}"
        case Value(_, _, axes):
            return "a matrix of " + " × ".join(expression_text(axis.size) for axis in axes)
        case Readable():
            return "a table"
        case Relation():
            return "a relation"
        case Attended():
            return "an attention"
        case Merged():
            return "a merge"
        case Abbreviation():
            return "an abbreviation"
        case Group():
            return "a coarse index"
        case _:
            assert_never(entity)


def index_kind(value: Value) -> str:
    """What an index counts."""
    if value.group is not None:
        return f"the groups '{value.group.name}'"
    return role_kind(value.role)


def role_kind(role: str | None) -> str:
    """What a role counts."""
    return {
        "batch": "the batch",
        "head": "query heads",
        "kv_head": "key/value heads",
        "query": "queries",
        "key": "keys",
        "position": "positions",
        "feature": "features",
        "value_feature": "value features",
    }.get(role or "", "a plain number")


def slot_kind(slot: Slot) -> str:
    """What a slot is indexed by."""
    return f"the groups '{slot.group.name}'" if slot.group is not None else role_kind(slot.role)


def forms(readable: Readable) -> str:
    """`bias[h, n]`, and with the leading axes where there are some."""
    own = [slot.written for slot in readable.own]
    texts = [f"{readable.name}[{', '.join(own)}]"] if own else [readable.name]
    if readable.leading:
        full = [slot.written for slot in readable.leading] + own
        texts.append(f"{readable.name}[{', '.join(full)}]")
    return " or ".join(texts)


def counted(number: int, word: str, plural: str = "") -> str:
    """`1 index`, `2 indices`."""
    return f"{number} {word if number == 1 else plural or word + 's'}"
