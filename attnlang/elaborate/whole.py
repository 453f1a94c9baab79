"""A pattern from its statements: names first, then the output and all it needs, then what nobody used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attnlang import syntax
from attnlang.elaborate.arithmetic import build
from attnlang.elaborate.attention import Sections, as_output, branch, branch_sections, own_attention
from attnlang.elaborate.binders import heads
from attnlang.elaborate.choices import select
from attnlang.elaborate.claims import claim, note_equal_sizes, require
from attnlang.elaborate.declarations import blocks, grid, let, tensor
from attnlang.elaborate.expressions import evaluate
from attnlang.elaborate.files import file_scope, library_scope
from attnlang.elaborate.outcome import needed, result_of
from attnlang.elaborate.parameters import parameter
from attnlang.elaborate.recurrences import scan, state
from attnlang.elaborate.unused import check_unused
from attnlang.elaborate.values import CANONICAL, CONSTANTS, INPUTS, Attended, Entity, Kind, Value
from attnlang.elaborate.wording import described
from attnlang.elaborate.work import DEEPEST, Context, Declared, Reports, Work, index_value
from attnlang.errors import Diagnostic, Diagnostics, NameTaken, NoSuchPattern, TooManyMistakes, nearest
from attnlang.errors_meaning import (
    NameTwice,
    NestsTooFar,
    SectionMissing,
    SectionsDisagree,
    UnusedSection,
    WrongRecurrence,
    WrongShape,
)
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    HK,
    QUERY,
    SIZES,
    VALUE_FEATURE,
    ZERO,
    Claim,
    Expr,
    H,
    Pattern,
    Stage,
    Tensor,
)

MOST_MISTAKES = 100
AXES = (BATCH, HEAD, QUERY, VALUE_FEATURE)


def elaborate(
    file: syntax.File, name: str | None, imported: Mapping[str, syntax.File], prelude: syntax.File
) -> Pattern:
    """The meaning of the pattern `name` of a file (None: of its only one).

    `imported` holds the file behind every import path, `prelude` the standard library. Raises `Diagnostics` with
    every mistake of the pattern and of the definitions it can name.
    """
    reports = Reports()
    scope = file_scope(file, "this file", imported, library_scope(prelude), reports)
    node = _chosen(file, name, reports)
    if node is None:
        raise Diagnostics(reports.errors)
    work = Work(node, scope, evaluate, reports)
    made: Pattern | None = None
    try:
        made = _Whole(work).pattern()
        check_unused(work, file)
    except RecursionError:
        reports.add(NestsTooFar(node.span, limit=DEEPEST))
    if reports.errors or made is None:
        raise Diagnostics(_first(reports.errors))
    return made


def _first(mistakes: list[Diagnostic]) -> list[Diagnostic]:
    """The first mistakes of a pattern, and one that says that there are more."""
    if len(mistakes) <= MOST_MISTAKES:
        return mistakes
    first = Diagnostics(mistakes).errors[:MOST_MISTAKES]
    return [*first, TooManyMistakes(first[-1].span, limit=MOST_MISTAKES)]


def _chosen(file: syntax.File, name: str | None, reports: Reports) -> syntax.PatternDefinition | None:
    patterns = [item for item in file.items if isinstance(item, syntax.PatternDefinition)]
    names = [pattern.name for pattern in patterns]
    if not patterns:
        hint = "a pattern begins with 'pattern name(parameters):'"
        reports.add(NoSuchPattern(None, hint, problem="there is no pattern in this file"))
        return None
    if name is None:
        if len(patterns) > 1:
            problem = f"this file has several patterns ({', '.join(names)}): which one?"
            reports.add(NoSuchPattern(None, "give its name", problem=problem))
            return None
        return patterns[0]
    for pattern in patterns:
        if pattern.name == name:
            return pattern
    found = nearest(name, names)
    hint = f"did you mean '{found}'?" if found else f"there is {', '.join(names)}"
    reports.add(NoSuchPattern(None, hint, problem=f"there is no pattern '{name}' in this file"))
    return None


@dataclass
class _Whole:
    """The statements of one pattern, sorted by what they do."""

    work: Work
    own: Sections = field(default_factory=lambda: Sections("this pattern"))
    output: syntax.Section | None = None
    branches: dict[str, syntax.Branch] = field(default_factory=dict[str, syntax.Branch])
    states: dict[str, syntax.State] = field(default_factory=dict[str, syntax.State])
    steps: dict[str, syntax.Step] = field(default_factory=dict[str, syntax.Step])

    def pattern(self) -> Pattern | None:
        """Everything in order; None after reports."""
        work, node = self.work, self.work.pattern
        for each in node.parameters:
            self._declare(each.name, "parameter", each, lambda each=each: parameter(work, each))
        for statement in node.body:
            self._collect(statement)
        for each in node.parameters:
            if each.name in work.declared:
                work.entity(each.name, each.span)
        self._first()
        for name, declared in list(work.declared.items()):
            if declared.kind not in ("attention", "let") or self._is_table(name):
                work.entity(name, declared.span)
        output = self._output()
        stages = () if output is None else needed(work.stages, output)
        self._unused(stages, report=output is not None)
        claims = self._last()
        if output is None or work.reports.errors:
            return None
        parameters, tensors = tuple(work.parameters), tuple(self._tensors_in_order())
        return Pattern(
            node.name, node.doc or "", parameters, tensors, tuple(work.requirements), AXES, stages, output,
            result_of(stages, output), tuple(claims), node.span,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- first: names

    def _declare(self, name: str, kind: Kind, node: syntax.Node, make: Callable[[], Entity | None]) -> None:
        work = self.work
        if name in CANONICAL or name in SIZES or name in INPUTS or name in CONSTANTS:
            meaning = "an index" if name in CANONICAL else "a size" if name in SIZES else "an input"
            meaning = "a constant" if name in CONSTANTS else meaning
            work.report(NameTaken(node.span, name=name, what=f"a {kind}", meaning=meaning))
        elif name == "attention" and kind != "branch":
            meaning = "the attention of the pattern's own sections"
            work.report(NameTaken(node.span, name=name, what=f"a {kind}", meaning=meaning))
        elif name in work.declared:
            work.report(NameTwice(node.span, name=name, first=work.declared[name].described))
        else:
            work.declared[name] = Declared(name, kind, node.span, make)

    def _collect(self, statement: syntax.AnyStatement) -> None:
        """Declares what a statement declares; sections are kept for their attention."""
        work, declare = self.work, self._declare
        match statement:
            case syntax.TensorDeclaration(name=name):
                declare(name, "tensor", statement, lambda: tensor(work, statement))
            case syntax.BlocksDeclaration(name=name):
                declare(name, "blocks", statement, lambda: blocks(work, statement))
            case syntax.Let(name=name):
                declare(name, "let", statement, lambda: let(work, statement))
            case syntax.Scan(name=name):
                declare(name, "scan", statement, lambda: scan(work, statement))
            case syntax.Select(name=name):
                declare(name, "select", statement, lambda: select(work, statement))
            case syntax.Branch(name=name):
                sections = branch_sections(work, statement)
                declare(name, "branch", statement, lambda: self._branch(statement, sections))
                self.branches.setdefault(name, statement)
            case syntax.State(name=name):
                declare(name, "state", statement, lambda: state(work, statement, self.steps.get(name)))
                self.states.setdefault(name, statement)
            case syntax.Step(name=name):
                if name in self.steps:
                    first = f"a step, line {self.steps[name].span.line}"
                    work.report(NameTwice(statement.span, name=f"step {name}", first=first))
                self.steps.setdefault(name, statement)
            case syntax.Section(keyword="output"):
                if self.output is not None:
                    self.own.found.setdefault("output", self.output)
                    self.own.add(work, statement)
                    del self.own.found["output"]
                self.output = self.output or statement
            case syntax.Section() | syntax.Normalize():
                self.own.add(work, statement)
            case syntax.Require():
                note_equal_sizes(work, statement)
            case syntax.GridDeclaration() | syntax.Assert():
                pass

    def _branch(self, statement: syntax.Branch, sections: Sections) -> Attended | None:
        return branch(self.work, statement, sections, self.own.value_of("mask"))

    def _first(self) -> None:
        """Grids and coarse indices, on which the meaning of other names depends, then tensors."""
        work = self.work
        if "attention" not in work.declared:
            span = work.pattern.span
            sections = self.own
            make = lambda: own_attention(work, sections, span)  # noqa: E731
            work.declared["attention"] = Declared("attention", "attention", span, make)
        for statement in work.pattern.body:
            if isinstance(statement, syntax.GridDeclaration):
                grid(work, statement)
        for kind in ("blocks", "tensor"):
            for name, declared in work.declared.items():
                if declared.kind == kind:
                    work.entity(name, declared.span)
        for name, step in self.steps.items():
            if name not in self.states:
                found = nearest(name, list(self.states))
                hint = f"did you mean '{found}'?" if found else f"declare it: 'state {name}[d, e]'"
                work.report(WrongRecurrence(step.span, hint, problem=f"there is no state '{name}'"))

    def _tensors_in_order(self) -> list[Tensor]:
        order = list(self.work.declared)
        return sorted(self.work.tensors, key=lambda each: order.index(each.name))

    # --------------------------------------------------------------------------------------- then: output

    def _output(self) -> Expr | None:
        work = self.work
        context = Context("in the output", {**heads(work), "q": index_value(QUERY)}, work.file)
        if self.output is not None:
            node: syntax.Expr = self.output.value
        else:
            name = self._only_attention()
            if name is None:
                return None
            span = work.declared[name].span
            node = syntax.Name(name, span=span)
        value = work.evaluate(node, context)
        return None if value is None else self._as_result(node, value)

    def _only_attention(self) -> str | None:
        """What the output is where it is left out."""
        work = self.work
        if not self.branches and not self.states:
            return "attention"
        own = any(keyword != "mask" for keyword, _ in self.own.statements())
        if len(self.branches) == 1 and not own and not self.states:
            return next(iter(self.branches))
        hint = (
            "say how the branches are put together: 'output …'"
            if self.branches
            else "write 'output Q[q] @ S'"
        )
        work.report(SectionMissing(work.pattern.span, hint, what="this pattern", keyword="output"))
        return None

    def _as_result(self, node: syntax.Expr, value: Value) -> Expr | None:
        work = self.work
        if len(value.features) != 1 or value.dtype == "bool":
            expected, found = "a vector of length DV", described(value)
            work.report(WrongShape(node.span, what="the output", expected=expected, found=found))
            return None
        value = as_output(work, value)
        if value.features != (VALUE_FEATURE,):
            hint = (
                "write 'require DV == D' if they are meant to be one"
                if described(value).endswith(" D")
                else None
            )
            expected = "a vector of length DV"
            work.report(
                WrongShape(node.span, hint, what="the output", expected=expected, found=described(value))
            )
            return None
        return value.expr

    # ------------------------------------------------------------------------------------------ the rest

    def _is_table(self, name: str) -> bool:
        lets = (each for each in self.work.pattern.body if isinstance(each, syntax.Let) and each.name == name)
        return any(each.indices for each in lets)

    def _unused(self, stages: tuple[Stage, ...], report: bool) -> None:
        """Branches and sections that the output does not need; the pattern's mask is for its branches too."""
        work = self.work
        names = {stage.name for stage in stages}
        for name, statement in self.branches.items():
            if report and name not in names and any(stage.name == name for stage in work.stages):
                reason = "the output does not use it"
                work.report(SectionsDisagree(statement.span, keyword=f"branch {name}", reason=reason))
        written = [each for each in self.own.statements() if each[0] != "mask" or not self.branches]
        if not written or "attention" in names or work.declared["attention"].kind != "attention":
            return
        if report:
            for keyword, span in written:
                work.report(UnusedSection(span, keyword=keyword))
        else:
            work.entity("attention", work.pattern.span)

    def _last(self) -> list[Claim]:
        """Requirements and claims, and the requirement that comes with key/value heads."""
        work = self.work
        claims: list[Claim] = []
        for statement in work.pattern.body:
            match statement:
                case syntax.Require():
                    require(work, statement)
                case syntax.Assert():
                    made = claim(work, statement)
                    claims += [] if made is None else [made]
                case _:
                    pass
        if work.uses_kv_heads:
            work.require(build("eq", build("mod", H, HK), ZERO), "H mod HK == 0", work.pattern.span)
        return claims
