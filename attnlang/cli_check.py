"""`attnlang check`: files parsed, names, types and axes checked, claims proved or tried, every mistake told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnlang import compiler, syntax
from attnlang.cli_console import complain, counted, print_json, progress, say
from attnlang.cli_options import add_json
from attnlang.errors import AttnlangError, Diagnostic, Diagnostics
from attnlang.ir import pattern as ir

if TYPE_CHECKING:
    from attnlang.claims import Verdict


@dataclass(frozen=True)
class Checked:
    """A file: its patterns, as far as they mean something, its mistakes in the order of their places (refuted claims
    among them), and the verdicts on the claims of its patterns."""

    file: str
    patterns: tuple[ir.Pattern, ...]
    mistakes: tuple[Diagnostic, ...]
    verdicts: tuple[Verdict, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For editors."""
        patterns = [
            {
                "name": p.name,
                "doc": p.doc,
                "claims": [verdict.to_dict() for verdict in self.verdicts if verdict.pattern == p.name],
            }
            for p in self.patterns
        ]
        errors = [mistake.to_dict() for mistake in self.mistakes]
        return {"file": self.file, "ok": not self.mistakes, "patterns": patterns, "errors": errors}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", metavar="FILE", nargs="+", help=".attn files")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing of files without mistakes")
    add_json(parser)


def run(files: Sequence[str], quiet: bool, as_json: bool) -> int:
    """Check each file; 1 where any has a mistake."""
    results: list[Checked] = []
    with progress("checking") as step:
        for file in files:
            step(f"checking {file}")
            results.append(check_file(file))
    for result in results:
        for mistake in result.mistakes:
            complain(mistake.report())
        lines = [] if as_json or quiet else _lines(result)
        if lines:
            say("\n".join(lines))
    wrong = sum(bool(result.mistakes) for result in results)
    mistakes = sum(len(result.mistakes) for result in results)
    if as_json:
        print_json({"ok": not wrong, "files": [result.to_dict() for result in results]})
    elif wrong:
        complain(f"{counted(mistakes, 'mistake')} in {counted(wrong, 'file')}")
    return 1 if wrong else 0


def check_file(file: str) -> Checked:
    """Parse a file and find the meaning of all its patterns; mistakes are collected, none is raised."""
    try:
        tree = compiler.tree_of(compiler.source_of(file))
    except (Diagnostic, Diagnostics) as error:
        return Checked(file, (), _mistakes(error))
    found: dict[tuple[Any, ...], Diagnostic] = {}
    patterns: list[ir.Pattern] = []
    verdicts: list[Verdict] = []
    names = [item.name for item in tree.items if isinstance(item, syntax.PatternDefinition)]
    for name in dict.fromkeys(names):
        try:
            unit = compiler.load(file, name)
            patterns.append(unit.meaning)
            reached, refused = _claims(unit)
            verdicts += reached
            found |= {_identity(mistake): mistake for mistake in refused}
        except (Diagnostic, Diagnostics) as error:
            for mistake in _mistakes(error):
                found.setdefault(_identity(mistake), mistake)
    mistakes = sorted(found.values(), key=lambda mistake: _identity(mistake)[:2])
    return Checked(file, tuple(patterns), tuple(mistakes), tuple(verdicts))


def _claims(unit: compiler.Unit) -> tuple[tuple[Verdict, ...], list[Diagnostic]]:
    """The verdicts on the claims of a pattern, and the reports on those that are refuted or cannot be asked."""
    if not unit.meaning.claims:
        return (), []
    from attnlang.claims import decided

    others = {
        claim.other: compiler.meaning(unit.tree, claim.other) for claim in unit.meaning.claims if claim.other
    }
    verdicts, refused = decided(unit.meaning, others)
    refuted = [report for verdict in verdicts if (report := verdict.diagnostic()) is not None]
    return verdicts, [*refused, *refuted]


def _mistakes(error: AttnlangError) -> tuple[Diagnostic, ...]:
    match error:
        case Diagnostics():
            return tuple(error.errors)
        case Diagnostic():
            return (error,)
        case _:
            return ()


def _identity(mistake: Diagnostic) -> tuple[Any, ...]:
    """The same mistake of a def is found in every pattern that uses it."""
    place = ("", -1) if mistake.span is None else (mistake.span.source.name, mistake.span.start)
    return (*place, mistake.code, mistake.text)


def _lines(result: Checked) -> list[str]:
    """`file.attn: ok: name, name` where there is no mistake, and a line on each claim that is not refuted: why it
    holds, or how far it was searched."""
    names = ", ".join(pattern.name for pattern in result.patterns)
    head = f"{result.file}: ok: {names}" if names else f"{result.file}: ok, definitions only"
    return ([] if result.mistakes else [head]) + [
        f"  {verdict.claim.span.location()}: {verdict.pattern}: {verdict}"
        for verdict in result.verdicts
        if verdict.counterexample is None
    ]
