"""Which definitions and patterns a file can name: its own, those it imports, and the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.functions import BUILTIN_FUNCTIONS
from attnlang.elaborate.values import Definition, FileScope
from attnlang.elaborate.work import Reports
from attnlang.errors import NameTaken
from attnlang.errors_meaning import ImportMissing, NameTwice

LIBRARY = "the standard library"


def library_scope(prelude: syntax.File) -> FileScope:
    """The definitions of the standard library."""
    scope = FileScope(LIBRARY)
    for item in prelude.items:
        if isinstance(item, syntax.Definition):
            scope.functions[item.name] = Definition(item, scope)
    return scope


def file_scope(
    file: syntax.File, label: str, imported: Mapping[str, syntax.File], library: FileScope, reports: Reports
) -> FileScope:
    """A file's own names over those of its imports over the library's; names declared twice are reported."""
    scopes: dict[str, FileScope] = {}
    scope = _scope(file, label, imported, scopes, reports)
    for each in (scope, *scopes.values()):
        each.functions = {**library.functions, **each.functions}
    return scope


def _scope(
    file: syntax.File,
    label: str,
    imported: Mapping[str, syntax.File],
    scopes: dict[str, FileScope],
    reports: Reports,
) -> FileScope:
    scope = FileScope(label)
    for item in file.items:
        match item:
            case syntax.Import(path):
                other = _imported(item, path, imported, scopes, reports)
                if other is not None:
                    scope.functions.update(other.functions)
                    scope.patterns.update(other.patterns)
            case syntax.Definition() | syntax.PatternDefinition():
                pass
    for item in file.items:
        match item:
            case syntax.Definition(name):
                if _is_free(item, "a definition", scope, reports):
                    scope.functions[name] = Definition(item, scope)
            case syntax.PatternDefinition(name):
                if _is_free(item, "a pattern", scope, reports):
                    scope.patterns[name] = item
            case syntax.Import():
                pass
    return scope


def _imported(
    item: syntax.Import,
    path: str,
    imported: Mapping[str, syntax.File],
    scopes: dict[str, FileScope],
    reports: Reports,
) -> FileScope | None:
    if path not in imported:
        reports.add(ImportMissing(item.span, path=path))
        return None
    if path not in scopes:
        scopes[path] = FileScope(path)
        made = _scope(imported[path], path, imported, scopes, reports)
        scopes[path].functions.update(made.functions)
        scopes[path].patterns.update(made.patterns)
        for name, definition in made.functions.items():
            if definition.file is made:
                scopes[path].functions[name] = replace(definition, file=scopes[path])
    return scopes[path]


def _is_free(
    item: syntax.Definition | syntax.PatternDefinition, what: str, scope: FileScope, reports: Reports
) -> bool:
    """Whether a name can be declared here; definitions and patterns are looked up apart."""
    definition = isinstance(item, syntax.Definition)
    if definition and item.name in BUILTIN_FUNCTIONS:
        reports.add(NameTaken(item.span, name=item.name, what=what, meaning="a built-in function"))
        return False
    kind = "definition" if definition else "pattern"
    key = f"{kind} {item.name}"
    first = scope.spans.get(key)
    if first is not None:
        reports.add(NameTwice(item.span, name=item.name, first=f"{what}, line {first.line}"))
        return False
    scope.spans[key] = item.span
    return True
