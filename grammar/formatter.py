"""Trees to canonical text: `parse(format(tree)) == tree`, and formatting twice changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from attnlang import syntax

from .document import Document, Group, join, layout
from .expressions import SUM, arguments, document, statement_value
from .literals import escape, quote

WIDTH = 100
INDENT = 4
CLAUSE_WORDS = ("by", "every", "from", "over", "restart", "where", "always", "never", "per")
"""Keywords that may follow an expression: right behind one they are no names."""


def format_file(file: syntax.File) -> str:
    """The canonical text of a file, with its comments and its blank lines (at most one in a row)."""
    lines: list[str] = []
    previous: syntax.Statement | None = None
    for item in file.items:
        apart = isinstance(item, syntax.PatternDefinition) or type(previous) not in (type(None), type(item))
        lines += _comments(item, 0, first=previous is None, apart=apart)
        lines += _item(item, comments=True)
        previous = item
    epilogue = _squeezed(file.epilogue, keep_first=bool(lines))
    while epilogue and not epilogue[-1]:
        epilogue.pop()
    return "\n".join(lines + epilogue) + "\n" if lines or epilogue else ""


def format_pattern(pattern: syntax.PatternDefinition) -> str:
    """The canonical text of one pattern, without comments and blank lines: equal trees give equal texts."""
    return "\n".join(_item(pattern, comments=False)) + "\n"


def format_expression(expr: syntax.Expr) -> str:
    """The canonical text of an expression on one line."""
    return layout(Group(document(expr)), width=10**9)


# ---------------------------------------------------------------------------------------------------- files


def _item(item: syntax.Import | syntax.Definition | syntax.PatternDefinition, *, comments: bool) -> list[str]:
    trailing = _trailing(item) if comments else ""
    match item:
        case syntax.Import(path=path):
            return [f"import {quote(path)}{trailing}"]
        case syntax.Definition(name=name, parameters=parameters, value=value):
            head: Document = (
                "def ",
                name,
                _parameters(parameters) if parameters else "",
                " = ",
                statement_value(value),
            )
            return _lines(head, 0, trailing)
        case syntax.PatternDefinition(name=name, parameters=parameters, doc=doc, body=body):
            lines = _lines(("pattern ", name, _parameters(parameters), ":"), 0, trailing)
            lines += _docstring(doc, INDENT) if doc is not None else []
            return lines + _block(body, INDENT, comments=comments)
        case _:
            assert_never(item)


def _parameters(parameters: Sequence[syntax.Parameter]) -> Document:
    return arguments("(", [_parameter(parameter) for parameter in parameters], ")")


def _parameter(parameter: syntax.Parameter) -> Document:
    """`window: int >= 1 = 1024`."""
    parts: list[Document] = [parameter.name]
    if parameter.type is not None:
        parts.append(f": {parameter.type}")
    for operator, bound in parameter.bounds:
        parts += [f" {operator} ", document(bound, least=SUM)]
    if parameter.default is not None:
        parts += [" = ", document(parameter.default)]
    return tuple(parts)


def _docstring(doc: str, indent: int) -> list[str]:
    margin = " " * indent
    if "\n" not in doc:
        return [f'{margin}"{escape(doc)}"']
    first, *others = escape(doc).split("\n")
    lines = [f"{margin}{line}" if line else "" for line in others]
    if all(
        line.startswith(" ") for line in others if line
    ):  # their common margin would be taken for the block's
        return [f'{margin}"""', margin + first, *lines, f'{margin}"""']
    return [f'{margin}"""{first}', *lines, f'{margin}"""']


# --------------------------------------------------------------------------------------------------- blocks


def _block(body: Sequence[syntax.AnyStatement], indent: int, *, comments: bool) -> list[str]:
    """The lines of a block; the sections that follow one another are aligned."""
    lines: list[str] = []
    for first, run in _runs(body, comments=comments):
        width = max((len(_keyword(statement)) for statement in run), default=0)
        for position, statement in enumerate(run):
            if comments:
                lines += _comments(statement, indent, first=first and position == 0)
            lines += _statement(statement, indent, width, comments=comments)
    return lines


def _runs(
    body: Sequence[syntax.AnyStatement], *, comments: bool
) -> Iterable[tuple[bool, list[syntax.AnyStatement]]]:
    """Statements that are aligned as one: sections without a blank line between; the others one by one."""
    runs: list[list[syntax.AnyStatement]] = []
    for statement in body:
        blank = comments and bool(statement.comments) and statement.comments[0] == ""
        if runs and _keyword(statement) and _keyword(runs[-1][-1]) and not blank:
            runs[-1].append(statement)
        else:
            runs.append([statement])
    return [(number == 0, run) for number, run in enumerate(runs)]


def _keyword(statement: syntax.AnyStatement) -> str:
    """The keyword of a section, of a state or of its step: what is aligned. Otherwise nothing."""
    match statement:
        case syntax.Section(keyword=keyword):
            return keyword
        case syntax.Normalize():
            return "normalize"
        case syntax.State():
            return "state"
        case syntax.Step():
            return "step"
        case _:
            return ""


def _statement(statement: syntax.AnyStatement, indent: int, width: int, *, comments: bool) -> list[str]:
    trailing = _trailing(statement) if comments else ""
    if isinstance(statement, syntax.Branch):
        over: Document = () if statement.over is None else (" over ", _open_binder(statement.over))
        head = ("branch ", statement.name, _binders(statement.rows), over, ":")
        return _lines(head, indent, trailing) + _block(statement.body, indent + INDENT, comments=comments)
    return _lines(_content(statement, width), indent, trailing)


def _content(statement: syntax.AnyStatement, width: int) -> Document:
    """A statement without its comments; `width` is that of the keywords it is aligned with."""
    match statement:
        case syntax.Section(keyword=keyword, value=value):
            return (keyword.ljust(width), " ", statement_value(value))
        case syntax.Normalize(steps=steps, over=over):
            return ("normalize".ljust(width), " ", _steps(steps), f" over {over}" if over else "")
        case syntax.TensorDeclaration(name=name, axes=axes, dtype=dtype):
            return ("tensor ", name, _axes(axes), f": {dtype}" if dtype else "")
        case syntax.GridDeclaration(indices=indices, extents=extents):
            return ("grid ", ", ".join(indices), " as ", _extents(extents))
        case syntax.BlocksDeclaration():
            return _blocks(statement)
        case syntax.Let(name=name, indices=indices, value=value):
            return ("let ", name, _binders(indices), " = ", statement_value(value))
        case syntax.Scan(name=name, indices=indices, value=value, restart=restart):
            return (
                "scan ",
                name,
                _binders(indices),
                " = ",
                statement_value(value),
                _clause("restart", restart),
            )
        case syntax.Select():
            return _select(statement)
        case syntax.State(name=name, axes=axes):
            return ("state".ljust(width), " ", name, _axes(axes))
        case syntax.Step(name=name, value=value):
            return ("step".ljust(width), " ", name, " = ", statement_value(value))
        case syntax.Require(condition=condition):
            return ("require ", statement_value(condition))
        case syntax.Assert(claim=claim, where=where):
            sizes = ", ".join(f"{name} = {format_expression(value)}" for name, value in where)
            return ("assert ", statement_value(claim), f" where {sizes}" if sizes else "")
        case syntax.Branch():
            raise AssertionError("a branch is more than a line")
        case _:
            assert_never(statement)


def _blocks(statement: syntax.BlocksDeclaration) -> Document:
    """`blocks c of k by 64 every 16 from start`."""
    by = statement_value(statement.by) if statement.by is not None else _extents(statement.boxes)
    every, count, start = statement.every, statement.count, statement.start
    head = ("blocks ", statement.name, " of ", statement.of, " by ", by)
    return (head, _clause("every", every), _clause("in", count), _clause("from", start))


def _select(statement: syntax.Select) -> Document:
    """`select near[q] = top(16) c by score where … always … never … per i`."""
    candidates = statement.candidates
    alone = len(candidates) == 1 and candidates[0].name not in CLAUSE_WORDS
    chosen = (
        _open_binder(candidates[0]) if alone else arguments("(", [_binder(each) for each in candidates], ")")
    )
    head = (
        "select ",
        statement.name,
        _binders(statement.indices),
        " = ",
        document(statement.rule),
        " ",
        chosen,
    )
    clauses = (
        _clause("by", statement.by),
        _clause("where", statement.where),
        _clause("always", statement.always),
        _clause("never", statement.never),
    )
    return (head, clauses, _scope(statement.scope))


def _scope(scope: tuple[str, ...] | None) -> str:
    if not scope:
        return ""
    return f" per {scope[0]}" if len(scope) == 1 else f" per ({', '.join(scope)})"


def _clause(keyword: str, value: syntax.Expr | None) -> Document:
    return "" if value is None else (f" {keyword} ", statement_value(value))


def _steps(steps: Sequence[syntax.Expr]) -> Document:
    return join(" | ", [statement_value(step) for step in steps])


def _axes(axes: Sequence[syntax.Expr]) -> Document:
    return arguments("[", [document(axis) for axis in axes], "]") if axes else ""


def _extents(extents: Sequence[tuple[str, syntax.Expr]]) -> Document:
    return arguments("(", [(name, ": ", document(extent)) for name, extent in extents], ")")


def _binders(binders: Sequence[syntax.Binder]) -> Document:
    return arguments("[", [_binder(binder) for binder in binders], "]") if binders else ""


def _binder(binder: syntax.Binder) -> Document:
    return binder.name if binder.domain is None else (binder.name, " in ", document(binder.domain))


def _open_binder(binder: syntax.Binder) -> Document:
    """One that stands outside brackets."""
    return binder.name if binder.domain is None else (binder.name, " in ", statement_value(binder.domain))


# -------------------------------------------------------------------------------------------- lines, comments


def _lines(content: Document, indent: int, trailing: str) -> list[str]:
    """The lines of a statement, with the comment behind it."""
    text = layout(content, WIDTH, column=indent, indent=indent)
    return (" " * indent + text + trailing).split("\n")


def _trailing(statement: syntax.Statement) -> str:
    return f"  {statement.trailing}" if statement.trailing else ""


def _comments(statement: syntax.Statement, indent: int, *, first: bool, apart: bool = False) -> list[str]:
    """The comments above a statement; an empty one is a blank line, which never stands first in a block."""
    comments = ("", *statement.comments) if apart else statement.comments
    return [
        " " * indent + comment if comment else "" for comment in _squeezed(comments, keep_first=not first)
    ]


def _squeezed(comments: Sequence[str], *, keep_first: bool) -> list[str]:
    """At most one blank line in a row; none at the beginning unless it is kept."""
    kept: list[str] = []
    for comment in comments:
        if comment or (kept[-1] if kept else keep_first):
            kept.append(comment)
    return kept
