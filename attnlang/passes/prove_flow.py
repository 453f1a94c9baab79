"""Causality for every call: from the output backwards, everything that is read belongs to tokens up to the query.

Each read is followed with the conditions under which it matters: tables, choices, normalizers, merges and states are
entered with new indices of their own. What is left are inequalities on positions, for the prover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from attnlang.ir.pattern import (
    NK,
    Q_OFFSET,
    Apply,
    Attention,
    Axis,
    Expr,
    Formula,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Symbol,
    Threshold,
    children,
)
from attnlang.passes.prove import Prover
from attnlang.passes.prove_formula import ALWAYS, at_least, both, either, negated, terms_in
from attnlang.passes.prove_formula import Formula as Condition
from attnlang.passes.prove_linear import Poly, constant, plus, terms_of
from attnlang.passes.prove_terms import Place, read_axes, steps_hide

Given = tuple[Condition, ...]
_INPUTS = {"Q": ("b", "h", "q", "d"), "K": ("b", "g", "k", "d"), "V": ("b", "g", "k", "e")}


class Late(Exception):
    """Something may be read that belongs to a later token."""


def causal(pattern: Pattern, prover: Prover) -> str | None:
    """Why no output depends on a later token, or None where that is not proved. The prover's queries are inside."""
    flow = _Flow(pattern, prover)
    try:
        flow.check(pattern.output, {}, ())
    except Late:
        return None
    return flow.told()


class _Flow:
    def __init__(self, pattern: Pattern, prover: Prover) -> None:
        self.pattern = pattern
        self.prover = prover
        self.terms = prover.terms
        self.limit = self.terms.index(pattern.axes[2])
        self.stages = {stage.name: stage for stage in pattern.stages}
        self.tokens = self._token_axes()
        self.inside: list[str] = [""]
        self.routes: dict[str, dict[str, None]] = {}
        self._checked: dict[object, bool] = {}

    def _token_axes(self) -> dict[str, tuple[tuple[int, Poly, Poly], ...]]:
        """For each input the axes that go along tokens: their place, the position of the first, and the last."""
        offset, last = self.terms.integer(Q_OFFSET, {}), plus(self.terms.integer(NK, {}), constant(-1))
        queries = plus(plus(self.terms.integer(self.pattern.axes[2].size, {}), offset), constant(-1))
        letters: dict[str, tuple[str, ...]] = dict(_INPUTS)
        for tensor in self.pattern.tensors:
            letters[tensor.name] = tuple(axis.index for axis in tensor.axes)
        none: Poly = ()
        ends: dict[str, tuple[Poly, Poly]] = {"q": (offset, queries), "k": (none, last), "n": (none, last)}
        return {
            name: tuple(
                (place, ends[letter][0], ends[letter][1])
                for place, letter in enumerate(axes)
                if letter in ends
            )
            for name, axes in letters.items()
        }

    # ----------------------------------------------------------------------------------------- expressions

    def check(self, expr: Expr, place: Place, given: Given) -> None:
        """Raises Late unless the value depends, where the given conditions hold, on tokens up to the query only."""
        key = (expr, frozenset(place.items()), given)
        known = self._checked.get(key)
        if known is None:
            self._checked[key] = True
            try:
                self._check(expr, place, given)
            except Late:
                self._checked[key] = False
                raise
        elif not known:
            raise Late

    def _check(self, expr: Expr, place: Place, given: Given) -> None:
        match expr:
            case Literal() | Symbol() | Index():
                pass
            case Apply("and" | "or" as op, _):
                self._joint(_flat(op, expr), place, given, op)
            case Apply("where", (condition, x, y)):
                self.check(condition, place, given)
                known = self.terms.formula(condition, place)
                self.check(x, place, _with(given, known))
                self.check(y, place, _with(given, negated(known)))
            case Apply(_, args):
                for arg in args:
                    self.check(arg, place, given)
            case Reduce(_, axes, body, where):
                inner = self._inside(place, given, axes)
                if where is not None:
                    given = _with(given, self._joint([where], inner, given, "and"))
                self.check(body, inner, given)
            case Read(source, at, _):
                for part in at:
                    self.check(part, place, given)
                self._read(source, tuple(self.terms.integer(part, place) for part in at), given)
            case _:
                assert_never(expr)

    def _inside(self, place: Place, given: Given, axes: Sequence[Axis]) -> dict[Axis, Poly]:
        """The place with some values for more axes, about which nothing is known yet."""
        used = frozenset[int]().union(*map(terms_of, place.values()), *map(terms_in, given))
        used = self.terms.named_in(used)
        found = dict(place)
        for axis in axes:
            found[axis] = self.terms.unused(axis, used)
            used |= terms_of(found[axis])
        return found

    def _joint(self, parts: Sequence[Expr], place: Place, given: Given, op: str) -> Condition:
        """Conditions of which each matters only where those that can be followed without it leave it open; what they
        come to."""
        pending = [part for whole in parts for part in _flat(op, whole)]
        found: list[Condition] = []
        while pending:
            late: list[Expr] = []
            for part in pending:
                try:
                    self.check(part, place, given)
                except Late:
                    late.append(part)
                    continue
                known = self.terms.formula(part, place)
                found.append(known)
                given = _with(given, known if op == "and" else negated(known))
            if len(late) == len(pending):
                raise Late
            pending = late
        return both(*found) if op == "and" else either(*found)

    # ------------------------------------------------------------------------------------------------ reads

    def _read(self, source: str, at: tuple[Poly, ...], given: Given) -> None:
        name, _, part = source.partition(".")
        stage = self.stages.get(name)
        if stage is None:
            self._element(name, at, given)
            return
        self.inside.append(name)
        try:
            match stage:
                case Let():
                    self.inside[-1] = self.inside[-2]
                    self.check(stage.body, self.terms.rows(stage.axes, at), given)
                case Merge():
                    for inner in stage.parts:
                        self._read(f"{inner}.lse", at if part == "lse" else at[:-1], given)
                        if part != "lse":
                            self._read(inner, at, given)
                case Select():
                    self._select(stage, self.terms.rows(read_axes(stage, part), at), given)
                case Attention():
                    self._attention(stage, part, self.terms.rows(read_axes(stage, part), at), given)
                case Recurrence():
                    if part != "previous":
                        self._recurrence(stage, self.terms.rows(read_axes(stage, part), at), given)
                case _:
                    assert_never(stage)
        finally:
            self.inside.pop()

    def _element(self, name: str, at: tuple[Poly, ...], given: Given) -> None:
        """An element belongs to the last of its positions; outside the tensor the nearest one is read."""
        for place, first, last in self.tokens[name]:
            position = plus(at[place], first)
            if not self.prover.valid(
                either(at_least(self.limit, position), at_least(self.limit, last)), given
            ):
                raise Late
            self.routes.setdefault(self.inside[-1], {})[name] = None

    def _select(self, stage: Select, place: Place, given: Given) -> None:
        """Whether a candidate is chosen: by what orders the candidates that may be chosen. Those that are always
        chosen come first whatever orders them, but count with their amount in `mass`."""
        self.check(stage.amount, place, given)
        given = _with(given, self._joint([stage.where], place, given, "and"))
        self.check(stage.always, place, given)
        first = stage.rule != "mass"
        if first:
            given = _with(given, negated(self.terms.formula(stage.always, place)))
        if stage.total is not None:
            self.check(stage.total, place, given)
        other = place if stage.rule == "above" else self._inside(place, given, stage.candidates)
        given = _with(given, self._joint([stage.where], other, given, "and"))
        self.check(stage.always, other, given)
        if first:
            given = _with(given, negated(self.terms.formula(stage.always, other)))
        self.check(stage.by, other, given)

    def _recurrence(self, stage: Recurrence, place: Place, given: Given) -> None:
        """The state after a token depends on the steps of all tokens up to it."""
        inner = self._inside(place, given, (*stage.axes, stage.token))
        given = _with(given, at_least(place[stage.token], inner[stage.token]))
        self.check(stage.step, inner, given)
        if stage.restart is not None:
            self.check(stage.restart, inner, given)

    # ------------------------------------------------------------------------------------------- attentions

    def _attention(self, stage: Attention, part: str, place: Place, given: Given) -> None:
        match part:
            case "scores" | "step0":
                self.check(stage.score, place, given)
            case "visible":
                self._visible(stage, place, given)
            case "" | "lse" | "max" | "count":
                pair = self._inside(place, given, (stage.over,))
                given = _with(given, self._visible(stage, pair, given))
                if part in ("lse", "max"):
                    self.check(stage.score, pair, given)
                elif part == "":
                    self._weight(stage, pair, given)
                    self.check(stage.value, pair, given)
            case "weights":
                self._weight(stage, place, _with(given, self._visible(stage, place, given)))
            case _:
                steps = len(stage.normalize) if part == "normalized" else int(part.removeprefix("step"))
                self._step(stage, steps, place, _with(given, self._visible(stage, place, given)))

    def _visible(self, stage: Attention, place: Place, given: Given) -> Condition:
        seen = self._joint([stage.mask, stage.sparsity], place, given, "and")
        if steps_hide(stage):
            for steps, step in enumerate(stage.normalize):
                if isinstance(step, Threshold) and step.kind == "top":
                    self.check(step.amount, place, _with(given, seen))
                    self._row(stage, steps, place, _with(given, seen))
        return seen

    def _weight(self, stage: Attention, place: Place, given: Given) -> None:
        if stage.reweight is None:
            self._step(stage, len(stage.normalize), place, given)
        else:
            self.check(stage.reweight, place, given)

    def _step(self, stage: Attention, steps: int, place: Place, given: Given) -> None:
        """The value of a visible pair after some steps of the normalizer."""
        if steps == 0:
            self.check(stage.score, place, given)
            return
        match stage.normalize[steps - 1]:
            case Formula(body, _):
                self.check(body, place, given)
            case Threshold("top", _):
                self._step(stage, steps - 1, place, given)
            case Threshold("sinkhorn", amount):
                self.check(amount, place, given)
                last = stage.rows[-1]
                self._row(stage, steps - 1, self._inside(place, given, (last,)), given)
            case Threshold(_, amount):
                self.check(amount, place, given)
                self._row(stage, steps - 1, place, given)

    def _row(self, stage: Attention, steps: int, place: Place, given: Given) -> None:
        """The values of all that a row sees, after some steps."""
        other = self._inside(place, given, (stage.over,))
        seen = self._joint([stage.mask, stage.sparsity], other, given, "and")
        self._step(stage, steps, other, _with(given, seen))

    # ---------------------------------------------------------------------------------------------- in words

    def told(self) -> str:
        """The argument in a line: what bounds the tokens that are read, for each stage that reads some."""
        said: list[str] = []
        for name, sources in self.routes.items():
            stage = self.stages.get(name)
            read = _listed(list(sources))
            match stage:
                case Attention() if stage.over.role == "key":
                    whose = "is visible" if len(self.routes) == 1 else f"'{name}' sees"
                    said.append(f"every key that {whose} has k <= q")
                case Attention():
                    said.append(f"what '{name}' reads of {read} is at positions up to q")
                case Select():
                    said.append(f"'{name}' is chosen by {read} at positions up to q")
                case Recurrence():
                    said.append(f"'{name}' is read after tokens up to q")
                case _:
                    said.append(f"{read} {'is' if len(sources) == 1 else 'are'} read at positions up to q")
        return "; ".join(said) or "nothing that belongs to a token is read"


def _flat(op: str, expr: Expr) -> list[Expr]:
    match expr:
        case Apply(own, _) if own == op:
            return [part for child in children(expr) for part in _flat(op, child)]
        case _:
            return [expr]


def _with(given: Given, condition: Condition) -> Given:
    return given if condition == ALWAYS or condition in given else (*given, condition)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
