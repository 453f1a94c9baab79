"""Imports: the files a file names, each once, from its own folder and never from outside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

from attnlang import syntax
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.errors_driver import (
    ImportCircle,
    ImportClash,
    ImportOutside,
    ImportTooDeep,
    ImportWithoutFolder,
)

DEEPEST = 32

Item = syntax.Definition | syntax.PatternDefinition
Parse = Callable[[str], syntax.File]


@dataclass(frozen=True)
class Whole:
    """A file with all that its imports bring in. `own`: the patterns that stand in the file itself."""

    file: syntax.File
    own: tuple[str, ...]


def with_imports(
    file: syntax.File, path: str | Path | None, parse: Parse, standard: frozenset[str] = frozenset()
) -> Whole:
    """The file with the definitions and patterns of its imports before its own; `path` None: a text, without folder.

    `parse` reads a file by its path, `standard` are the names of the standard library. Raises Diagnostics: paths
    that lead outside, circles, missing files, names that clash, and every mistake in the imported files.
    """
    own = tuple(item.name for item in file.items if isinstance(item, syntax.PatternDefinition))
    if not any(isinstance(item, syntax.Import) for item in file.items):
        return Whole(file, own)
    reader = _Reader(parse)
    reader.take(file, None if path is None else str(path))
    reader.check_clashes(standard)
    if reader.mistakes:
        raise Diagnostics(reader.mistakes)
    return Whole(replace(file, items=tuple(item for item, _ in reader.items)), own)


class _Reader:
    """Follows imports depth first; what a file brings in comes before it."""

    def __init__(self, parse: Parse) -> None:
        self.parse = parse
        self.items: list[tuple[Item, str]] = []
        self.mistakes: list[Diagnostic] = []
        self.stack: list[tuple[str, str]] = []  # real path, path as reports name it
        self.done: dict[str, str] = {}  # real path -> path as reports name it
        self.sees: dict[str, set[str]] = {}  # path as reports name it -> the files whose names it knows

    def take(self, file: syntax.File, path: str | None) -> None:
        """Everything of a file, its imports first; each import leads to `path`'s folder or below."""
        label = "the text" if path is None else path
        self.stack.append(("" if path is None else os.path.realpath(path), label))
        self.sees[label] = {label}
        for item in file.items:
            if isinstance(item, syntax.Import):
                try:
                    self.follow(item, path)
                except Diagnostics as mistakes:
                    self.mistakes += mistakes.errors
                except Diagnostic as mistake:
                    self.mistakes.append(mistake)
        self.items += [(item, label) for item in file.items if not isinstance(item, syntax.Import)]
        real, _ = self.stack.pop()
        self.done[real] = label
        if self.stack:
            self.sees[self.stack[-1][1]] |= self.sees[label]

    def follow(self, item: syntax.Import, path: str | None) -> None:
        """One import statement."""
        if path is None:
            raise ImportWithoutFolder(item.span, path=item.path)
        target = _inside(item, Path(path).parent)
        real = os.path.realpath(target)
        if real in self.done:
            self.sees[self.stack[-1][1]] |= self.sees[self.done[real]]
            return
        known = [place for place, _ in self.stack]
        if real in known:
            labels = [os.path.basename(label) for _, label in self.stack[known.index(real) :]]
            raise ImportCircle(item.span, circle=" → ".join([*labels, labels[0]]))
        if len(self.stack) > DEEPEST:
            raise ImportTooDeep(item.span, limit=DEEPEST)
        try:
            file = self.parse(str(target))
        except Diagnostic as mistake:  # the file cannot be read: the statement that names it is the place
            raise type(mistake)(item.span, mistake.advice, **mistake.fields) from None
        self.take(file, str(target))

    def check_clashes(self, standard: frozenset[str]) -> None:
        """Names that two files define, and names of the standard library that only one of them redefines."""
        homes: dict[tuple[type[Item], str], str] = {}
        for item, home in self.items:
            first = homes.setdefault((type(item), item.name), home)
            if first != home:
                self.mistakes.append(ImportClash(item.span, name=item.name, first=first, second=home))
        for item, home in self.items:
            for name in sorted(set(names_in(item)) & standard):
                other = homes.get((syntax.Definition, name), home)
                if other not in self.sees[home]:
                    advice = f"'{home}' means the '{name}' of the standard library; rename the other one"
                    first = "the standard library"
                    clash = ImportClash(item.span, advice, name=name, first=first, second=other)
                    self.mistakes.append(clash)


def _inside(item: syntax.Import, folder: Path) -> Path:
    """The file that an import names; raises ImportOutside unless it lies in the folder, links followed."""
    written = item.path
    if not written or "\0" in written:
        raise ImportOutside(item.span, path=written, advice='name one file, as in import "masks.attn"')
    if os.path.isabs(written) or written[1:2] == ":" or "\\" in written:
        advice = 'write the path from this folder on, with slashes: "folder/file.attn"'
        raise ImportOutside(item.span, path=written, advice=advice)
    if ".." in written.split("/"):
        raise ImportOutside(item.span, path=written, advice="an import stays in its folder and below")
    target = folder / written
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(target)]) != root:
        raise ImportOutside(item.span, path=written, advice="a link on the way points outside")
    return target


# ----------------------------------------------------------------------------------------- names in a tree


def names_in(node: object) -> Iterator[str]:
    """Every name in a piece of the tree: of values, of functions, of indices."""
    if isinstance(node, syntax.Name):
        yield node.id
    elif isinstance(node, tuple):
        for part in cast("tuple[object, ...]", node):
            yield from names_in(part)
    elif isinstance(node, syntax.Node):
        for part in fields(node):
            if part.compare:
                yield from names_in(getattr(node, part.name))


def claimed_equal(pattern: syntax.PatternDefinition) -> frozenset[str]:
    """The names in the claims of a pattern: other patterns that it says it equals."""
    claims = [statement for statement in pattern.body if isinstance(statement, syntax.Assert)]
    return frozenset(name for claim in claims for name in names_in(claim.claim))


def needed_by(file: syntax.File, name: str) -> syntax.File:
    """The file without comments and without what the named pattern does not use: what makes it what it is."""
    items = [item for item in file.items if not isinstance(item, syntax.Import)]
    functions = {item.name: item for item in items if isinstance(item, syntax.Definition)}
    patterns = {item.name: item for item in items if isinstance(item, syntax.PatternDefinition)}
    needed: list[Item] = []
    queue: list[Item] = [patterns[name]]
    while queue:
        item = queue.pop()
        if any(item is known for known in needed):
            continue
        needed.append(item)
        queue += [functions[used] for used in sorted(set(names_in(item)) & set(functions))]
        if isinstance(item, syntax.PatternDefinition):
            queue += [patterns[other] for other in sorted(claimed_equal(item) & set(patterns))]
    kept = tuple(
        cast("Item", without_comments(item)) for item in items if any(item is used for used in needed)
    )
    return syntax.File(kept, span=file.span)


def without_comments(statement: syntax.Statement) -> syntax.Statement:
    """The statement without its comments, and those of its block."""
    if isinstance(statement, syntax.PatternDefinition | syntax.Branch):
        body = tuple(without_comments(part) for part in statement.body)
        return replace(
            statement, body=cast("tuple[syntax.AnyStatement, ...]", body), comments=(), trailing=""
        )
    return replace(statement, comments=(), trailing="")


def without_sparsity(pattern: syntax.PatternDefinition) -> syntax.PatternDefinition:
    """The pattern without sparsity, in its branches too, without what only the sparsity has read, and without its
    claims: they are about the sparse one."""

    def kept(body: tuple[syntax.AnyStatement, ...]) -> tuple[syntax.AnyStatement, ...]:
        found: list[syntax.AnyStatement] = []
        for statement in body:
            match statement:
                case syntax.Section("sparsity", _) | syntax.Assert():
                    continue
                case syntax.Branch():
                    found.append(replace(statement, body=kept(statement.body)))
                case _:
                    found.append(statement)
        return tuple(found)

    return replace(pattern, body=_still_read(pattern.body, kept(pattern.body)))


def _still_read(
    before: tuple[syntax.AnyStatement, ...], body: tuple[syntax.AnyStatement, ...]
) -> tuple[syntax.AnyStatement, ...]:
    """The statements without the branches, tables and choices that were read before and are no more."""

    def read(statement: syntax.AnyStatement, among: tuple[syntax.AnyStatement, ...]) -> bool:
        match statement:
            case (
                syntax.Branch(name=name)
                | syntax.Let(name=name)
                | syntax.Scan(name=name)
                | syntax.Select(name=name)
            ):
                return any(name in names_in(other) for other in among if getattr(other, "name", "") != name)
            case _:
                return True

    kept = tuple(one for one in body if read(one, body) or not read(one, before))
    return kept if kept == body else _still_read(before, kept)
