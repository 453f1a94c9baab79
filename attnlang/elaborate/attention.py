"""The sections of an attention, the pattern's own or a branch's, become one stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from attnlang import syntax
from attnlang.elaborate.binders import Bound, bind, bind_one, heads
from attnlang.elaborate.normalizers import Normalizer, normalizer
from attnlang.elaborate.operators import condition, number
from attnlang.elaborate.values import SLOTS, Attended, Readable, Value
from attnlang.elaborate.wording import described
from attnlang.elaborate.work import Context, Row, Work, index_value, shifted
from attnlang.errors_meaning import (
    SectionMissing,
    SectionsDisagree,
    SectionTwice,
    WrongBranch,
    WrongShape,
    WrongType,
)
from attnlang.ir.pattern import BATCH, HEAD, KEY, QUERY, TRUE, VALUE_FEATURE, Attention, Axis, Expr, Index
from attnlang.source import Span

KEYWORDS = ("mask", "sparsity", "score", "weight", "normalize", "reweight", "value")


@dataclass
class Sections:
    """The sections of one attention, by keyword."""

    place: str
    found: dict[str, syntax.Section] = field(default_factory=dict[str, syntax.Section])
    normalize: syntax.Normalize | None = None

    def add(self, work: Work, statement: syntax.Section | syntax.Normalize) -> None:
        """Takes a section; a second one of its kind is an error."""
        if isinstance(statement, syntax.Normalize):
            keyword, first = "normalize", self.normalize
            self.normalize = first or statement
        else:
            keyword, first = statement.keyword, self.found.get(statement.keyword)
            self.found.setdefault(keyword, statement)
        if first is not None:
            where = first.span.line
            work.report(SectionTwice(statement.span, keyword=keyword, place=self.place, line=where))

    def value_of(self, keyword: str) -> syntax.Expr | None:
        """The expression of a section, if it is there."""
        section = self.found.get(keyword)
        return None if section is None else section.value

    def statements(self) -> Iterable[tuple[str, Span]]:
        """Keyword and place of all that was written."""
        yield from ((keyword, section.span) for keyword, section in self.found.items())
        if self.normalize is not None:
            yield "normalize", self.normalize.span


def branch_sections(work: Work, branch: syntax.Branch) -> Sections:
    """The sections in the block of a branch; anything else there is an error."""
    sections = Sections(f"branch '{branch.name}'")
    for statement in branch.body:
        match statement:
            case syntax.Section(keyword="output"):
                reason = "the output belongs to the pattern, a branch has a 'value'"
                work.report(SectionsDisagree(statement.span, keyword="output", reason=reason))
            case syntax.Section() | syntax.Normalize():
                sections.add(work, statement)
            case _:
                reason = "a branch holds sections only, declare this above it"
                keyword = type(statement).__name__.lower()
                work.report(SectionsDisagree(statement.span, keyword=keyword, reason=reason))
    return sections


def branch(
    work: Work, statement: syntax.Branch, sections: Sections, inherited: syntax.Expr | None
) -> Attended | None:
    """A branch: its rows, what it goes over, its sections; it takes the pattern's mask over keys."""
    outside = Context("here", heads(work), work.file)
    rows = _rows(work, statement, outside)
    if statement.over is None:
        over = Bound("k", KEY, None, index_value(KEY))
    else:
        bound = bind_one(work, statement.over, outside)
        if bound is None:
            return None
        over = bound
    if rows is None:
        return None
    if any(row.axis == over.axis for row in rows):
        problem = f"'{over.name}' is an index of the rows and of what is summed over"
        work.report(WrongBranch(statement.span, problem=problem))
        return None
    mask = inherited if over.axis == KEY and sections.value_of("mask") is None else None
    return attention(work, statement.name, rows, over, sections, mask, statement.span)


def _rows(work: Work, statement: syntax.Branch, context: Context) -> list[Bound] | None:
    if not statement.rows:
        return [Bound("q", QUERY, None, index_value(QUERY))]
    binders = tuple(
        binder for binder in statement.rows if binder.domain is not None or binder.name not in "bh"
    )
    for binder in binders:
        if binder.name == "g" and binder.domain is None:
            work.report(
                WrongBranch(binder.span, problem="the rows of a branch are per query head, 'g' is not free")
            )
            return None
    return bind(work, binders, context)


def own_attention(work: Work, sections: Sections, span: Span) -> Attended | None:
    """The attention of the pattern's own sections, over queries and keys."""
    row = Bound("q", QUERY, None, index_value(QUERY))
    over = Bound("k", KEY, None, index_value(KEY))
    return attention(work, "attention", [row], over, sections, None, span)


@dataclass(frozen=True)
class Maker:
    """Where the parts of one attention are elaborated."""

    work: Work
    name: str
    sections: Sections
    context: Context
    rows: tuple[Axis, ...]
    over: Axis

    def inside(self, keyword: str) -> Context:
        """The context of one section."""
        where = (
            f"in the {keyword}" if self.name == "attention" else f"in the {keyword} of branch '{self.name}'"
        )
        return replace(self.context, place=where)

    def predicate(self, keyword: str, otherwise: syntax.Expr | None = None) -> Expr | None:
        """A mask or sparsity; everything where it is left out."""
        node, context = self.sections.value_of(keyword), self.inside(keyword)
        if node is None and otherwise is not None:
            context = replace(context, place=f"in branch '{self.name}', which takes the mask of the pattern")
            node = otherwise
        if node is None:
            return TRUE
        value = condition(self.work, node, context, f"the {keyword}")
        return None if value is None else value.expr


def attention(
    work: Work,
    name: str,
    rows: list[Bound],
    over: Bound,
    sections: Sections,
    inherited: syntax.Expr | None,
    span: Span,
) -> Attended | None:
    """One attention as a stage; None when a part of it has a mistake, after all parts have been looked at."""
    indices = {**heads(work), **{row.name: row.value for row in rows}, over.name: over.value}
    axes = (BATCH, HEAD, *(row.axis for row in rows))
    maker = Maker(work, name, sections, Context("here", indices, work.file), axes, over.axis)
    _check_combination(work, sections)
    mask, sparsity = maker.predicate("mask", inherited), maker.predicate("sparsity")
    score = _score(maker)
    steps = _normalizer(maker)
    reweight = _reweight(maker)
    value = _value(maker)
    if (
        mask is None
        or sparsity is None
        or score is None
        or steps is None
        or value is None
        or reweight is False
    ):
        return None
    feature = value.features[0]
    work.stages.append(
        Attention(
            name,
            axes,
            over.axis,
            feature,
            mask,
            sparsity,
            score,
            steps.steps,
            None if reweight is True else reweight.expr,
            value.expr,
            steps.has_lse,
            span,
        )
    )
    own, leading = tuple(row.slot for row in rows), (SLOTS["b"], SLOTS["h"])
    result = Readable(name, name, own, leading, (feature,))
    weights = Readable(f"{name}.w", f"{name}.weights", (*own, over.slot), leading)
    plain = steps.softmax and reweight is True
    return Attended(result, weights, over.slot, own, feature, plain, steps.has_lse)


def _check_combination(work: Work, sections: Sections) -> None:
    if "weight" not in sections.found:
        return
    for keyword, span in sections.statements():
        if keyword in ("score", "normalize"):
            reason = "'weight' replaces score and normalize"
            work.report(SectionsDisagree(span, keyword=keyword, reason=reason))


def _named(name: str, *indices: str) -> syntax.Expr:
    return syntax.Subscript(syntax.Name(name), tuple(syntax.Name(index) for index in indices))


DEFAULT_SCORE = syntax.Binary(
    "*", syntax.Binary("@", _named("Q", "q"), _named("K", "k")), syntax.Name("scale")
)
DEFAULT_VALUE = _named("V", "k")


def _score(maker: Maker) -> Expr | None:
    keyword = "weight" if "weight" in maker.sections.found else "score"
    node = maker.sections.value_of(keyword)
    if node is None:
        if maker.over != KEY or QUERY not in maker.rows:
            hint = "the score Q[q] @ K[k] * scale is understood for rows q over keys k only"
            what = maker.sections.place
            work_span = _place_of(maker)
            maker.work.report(SectionMissing(work_span, hint, what=what, keyword="score"))
            return None
        node = DEFAULT_SCORE
    value = number(maker.work, node, maker.inside(keyword), f"the {keyword}")
    return None if value is None else value.expr


def _place_of(maker: Maker) -> Span:
    declared = maker.work.declared.get(maker.name)
    return maker.work.pattern.span if declared is None else declared.span


def _normalizer(maker: Maker) -> Normalizer | None:
    if "weight" in maker.sections.found:
        return Normalizer((), False, False)
    node = maker.sections.normalize
    return normalizer(maker.work, maker.name, maker.rows, maker.over, node, maker.inside("normalize"))


def _reweight(maker: Maker) -> Value | bool:
    """The weights after normalizing; True where they stay, False after a report."""
    node = maker.sections.value_of("reweight")
    if node is None:
        return True
    row = Row(maker.name, maker.rows, maker.over, maker.over, f"{maker.name}.normalized", True)
    value = number(maker.work, node, replace(maker.inside("reweight"), row=row), "the weight")
    return False if value is None else value


def _value(maker: Maker) -> Value | None:
    work, node = maker.work, maker.sections.value_of("value")
    if node is None:
        if maker.over != KEY:
            hint = "the value V[k] is understood over keys k only"
            work.report(SectionMissing(_place_of(maker), hint, what=maker.sections.place, keyword="value"))
            return None
        node = DEFAULT_VALUE
    value = work.evaluate(node, maker.inside("value"))
    if value is None:
        return None
    if len(value.features) != 1:
        work.report(WrongShape(node.span, what="the value", expected="a vector", found=described(value)))
        return None
    if value.dtype == "bool":
        work.report(
            WrongType(node.span, what="the value", expected="a vector of numbers", found="conditions")
        )
        return None
    return as_output(work, value)


def as_output(work: Work, value: Value) -> Value:
    """A vector as long as the output, over the axis of the output."""
    (axis,) = value.features
    if axis == VALUE_FEATURE or not work.same_size(axis.size, VALUE_FEATURE.size):
        return value
    return replace(shifted(value, {axis: Index(VALUE_FEATURE)}), features=(VALUE_FEATURE,))
