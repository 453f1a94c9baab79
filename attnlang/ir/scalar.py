"""The meaning of a pattern once more, one number at a time: loops straight from the definitions.

Slow, and written independently of `ir/interpret.py`, which is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import assert_never

import torch
from torch import Tensor

from attnlang.ir.interpret import Inputs
from attnlang.ir.pattern import (
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
    Stage,
    Symbol,
    Threshold,
    dtype_of,
)
from attnlang.ir.scalar_operations import Number, calculate, reduced

Environment = dict[Axis, int]
Place = tuple[int, ...]


def evaluate_scalar(pattern: Pattern, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """out [B, H, NQ, DV] and, where the pattern has one, lse [B, H, NQ], in float64."""
    machine = _Machine(pattern, inputs)
    values = [machine.number(pattern.output, env) for env in machine.environments(pattern.axes)]
    out = torch.tensor(values, dtype=torch.float64).reshape([machine.size(axis) for axis in pattern.axes])
    stage = machine.stages.get(pattern.result)
    if not (isinstance(stage, Merge) or (isinstance(stage, Attention) and stage.has_lse)):
        return out, None
    rows = pattern.axes[:3]
    places = product(*(range(machine.size(axis)) for axis in rows))
    sums = [machine.element(f"{stage.name}.lse", place) for place in places]
    return out, torch.tensor(sums, dtype=torch.float64).reshape([machine.size(axis) for axis in rows])


class _Machine:
    """A call of a pattern; every element of every stage is computed once."""

    def __init__(self, pattern: Pattern, inputs: Inputs) -> None:
        self.stages: dict[str, Stage] = {stage.name: stage for stage in pattern.stages}
        self.symbols = {**inputs.sizes, **inputs.scalars}
        self.tensors = {name: tensor.detach() for name, tensor in inputs.everything().items()}
        self.known: dict[tuple[str, Place], Number] = {}
        self.choices: dict[tuple[str, Place], set[Place]] = {}
        self.rows: dict[tuple[str, Place], list[Number]] = {}
        self.seen: dict[tuple[str, Place, int], list[int]] = {}
        self.state: dict[tuple[str, int], dict[Place, Number]] = {}
        self.inside: list[tuple[str, int]] = []

    # ---------------------------------------------------------------------------------------- expressions

    def size(self, axis: Axis) -> int:
        return int(self.number(axis.size, {}))

    def start(self, axis: Axis) -> int:
        return int(self.number(axis.start, {}))

    def environments(self, axes: tuple[Axis, ...], outer: Environment | None = None) -> Iterator[Environment]:
        """All values of some indices, the last one fastest."""
        ranges = [range(self.start(axis), self.start(axis) + self.size(axis)) for axis in axes]
        for values in product(*ranges):
            yield {**(outer or {}), **dict(zip(axes, values, strict=True))}

    def at(self, axes: tuple[Axis, ...], place: Place) -> Environment:
        """Indices from offsets."""
        return {axis: self.start(axis) + offset for axis, offset in zip(axes, place, strict=True)}

    def number(self, expr: Expr, env: Environment) -> Number:
        """The value of an expression."""
        match expr:
            case Literal(value):
                return value
            case Symbol(name, _):
                return self.symbols[name]
            case Index(axis):
                return env[axis]
            case Read(source, at, _):
                return self.element(source, tuple(int(self.number(one, env)) for one in at))
            case Apply("where", (condition, first, second)):
                return self.number(first if self.number(condition, env) else second, env)
            case Apply("and", (first, second)):
                return bool(self.number(first, env)) and bool(self.number(second, env))
            case Apply("or", (first, second)):
                return bool(self.number(first, env)) or bool(self.number(second, env))
            case Apply(op, args):
                return calculate(op, [self.number(arg, env) for arg in args])
            case Reduce(op, axes, body, where):
                seen = (
                    here for here in self.environments(axes, env) if where is None or self.number(where, here)
                )
                values = [self.number(body, here) for here in seen]
                if not values and op in ("max", "min") and dtype_of(body) == "int":
                    return -(2**62) if op == "max" else 2**62
                return reduced(op, values)
            case _:
                assert_never(expr)

    # ---------------------------------------------------------------------------------------------- stages

    def element(self, source: str, place: Place) -> Number:
        """One element of a tensor or stage; what lies outside is read at the nearest place."""
        name, _, part = source.partition(".")
        stage = self.stages.get(name)
        if stage is None:
            tensor = self.tensors[source]
            return tensor[self.clamped(place, list(tensor.shape))].item()
        if part == "previous":
            return self.previous(name, place)
        lengths = [self.size(axis) for axis in self.axes(stage, part)]
        if 0 in lengths:
            return 0
        place = self.clamped(place, lengths)
        if (source, place) not in self.known or part in ("visible", "count"):
            self.known[source, place] = self.computed(stage, part, place)
        return self.known[source, place]

    def clamped(self, place: Place, lengths: list[int]) -> Place:
        return tuple(min(max(at, 0), length - 1) for at, length in zip(place, lengths, strict=True))

    def axes(self, stage: Stage, part: str) -> tuple[Axis, ...]:
        match stage:
            case Let():
                return stage.axes
            case Select():
                return stage.rows + stage.candidates
            case Recurrence():
                return (*stage.axes[: stage.position], stage.token, *stage.axes[stage.position :])
            case Merge():
                return self.axes(self.stages[stage.parts[0]], part)
            case Attention():
                if part in ("lse", "max", "count"):
                    return stage.rows
                return (*stage.rows, stage.over if part else stage.feature)
            case _:
                assert_never(stage)

    def computed(self, stage: Stage, part: str, place: Place) -> Number:
        match stage:
            case Let():
                return self.number(stage.body, self.at(stage.axes, place))
            case Select():
                split = len(stage.rows)
                return place[split:] in self.chosen(stage, place[:split])
            case Recurrence():
                token = place[stage.position]
                return self.states(stage, token)[place[: stage.position] + place[stage.position + 1 :]]
            case Merge():
                return self.merged(stage, part, place)
            case Attention():
                return self.attention(stage, part, place)
            case _:
                assert_never(stage)

    def chosen(self, stage: Select, place: Place) -> set[Place]:
        """What a row takes: `always` first, then by decreasing `by`, the lower index first among equals."""
        if (stage.name, place) in self.choices:
            return self.choices[stage.name, place]
        row = self.at(stage.rows, place)
        able = [env for env in self.environments(stage.candidates, row) if self.number(stage.where, env)]
        kept = [env for env in able if self.number(stage.always, env)]
        others = [env for env in able if not self.number(stage.always, env)]
        order = kept + sorted(others, key=lambda env: -self.number(stage.by, env))
        amount = self.number(stage.amount, row)
        match stage.rule:
            case "above":
                taken = [env for env in others if self.number(stage.by, env) > amount]
            case "top":
                taken = order[: max(int(amount), 0)]
            case "mass":
                whole = sum(self.number(stage.by, env) for env in able)
                wanted = amount * (whole if stage.total is None else self.number(stage.total, row))
                reached: float = 0.0
                taken: list[Environment] = []
                for env in order:
                    if reached >= wanted:
                        break
                    taken.append(env)
                    reached += self.number(stage.by, env)
            case _:
                assert_never(stage.rule)
        places = {tuple(env[axis] - self.start(axis) for axis in stage.candidates) for env in kept + taken}
        self.choices[stage.name, place] = places
        return places

    # ------------------------------------------------------------------------------------------ attentions

    def attention(self, stage: Attention, part: str, place: Place) -> Number:
        last, split = len(stage.normalize), len(stage.rows)
        match part:
            case "":
                env = self.at((*stage.rows, stage.feature), place)
                pairs = [
                    (k, {**env, **self.at((stage.over,), (k,))})
                    for k in self.keys(stage, place[:split], last)
                ]
                terms = (
                    self.weight(stage, (*place[:split], k)) * self.number(stage.value, pair)
                    for k, pair in pairs
                )
                return math.fsum(terms) if last else sum(terms)
            case "scores":
                return self.number(stage.score, self.at((*stage.rows, stage.over), place))
            case "visible":
                return place[split] in self.keys(stage, place[:split], self.reached(stage))
            case "count":
                return len(self.keys(stage, place, self.reached(stage)))
            case "lse":
                return reduced(
                    "logsumexp", [self.score(stage, place, k) for k in self.keys(stage, place, last)]
                )
            case "max":
                return reduced("max", [self.score(stage, place, k) for k in self.keys(stage, place, last)])
            case "normalized":
                seen = place[split] in self.keys(stage, place[:split], last)
                return self.row(stage, place[:split], last)[place[split]] if seen else 0.0
            case "weights":
                return self.weight(stage, place)
            case _:
                return self.row(stage, place[:split], int(part.removeprefix("step")))[place[split]]

    def score(self, stage: Attention, row: Place, key: int) -> float:
        return float(self.element(f"{stage.name}.scores", (*row, key)))

    def reached(self, stage: Attention) -> int:
        """How many steps of the normalizer are done where an expression is evaluated just now."""
        inner = [steps for name, steps in self.inside if name == stage.name]
        return inner[-1] if inner else len(stage.normalize)

    def keys(self, stage: Attention, row: Place, steps: int) -> list[int]:
        """What is visible after the first steps."""
        if (stage.name, row, steps) not in self.seen:
            self.seen[stage.name, row, steps] = self.found_keys(stage, row, steps)
        return self.seen[stage.name, row, steps]

    def found_keys(self, stage: Attention, row: Place, steps: int) -> list[int]:
        if steps == 0:
            envs = enumerate(self.environments((stage.over,), self.at(stage.rows, row)))
            return [k for k, env in envs if self.number(stage.mask, env) and self.number(stage.sparsity, env)]
        keys, step = self.keys(stage, row, steps - 1), stage.normalize[steps - 1]
        if not (isinstance(step, Threshold) and step.kind == "top"):
            return keys
        values = self.row(stage, row, steps - 1)
        amount = int(self.number(step.amount, self.at(stage.rows, row)))
        return sorted(sorted(keys, key=lambda k: -values[k])[: max(amount, 0)])

    def weight(self, stage: Attention, place: Place) -> Number:
        split, last = len(stage.rows), len(stage.normalize)
        if place[split] not in self.keys(stage, place[:split], last):
            return 0.0
        if stage.reweight is None:
            return self.row(stage, place[:split], last)[place[split]]
        return self.number(stage.reweight, self.at((*stage.rows, stage.over), place))

    def row(self, stage: Attention, row: Place, steps: int) -> list[Number]:
        """The values of a row after the first steps of the normalizer: scores, then 0 where hidden."""
        key = (f"{stage.name}.step{steps}", row)
        if key not in self.rows:
            self.rows[key] = self.normalized(stage, row, steps)
        return self.rows[key]

    def normalized(self, stage: Attention, row: Place, steps: int) -> list[Number]:
        if steps == 0:
            return [self.score(stage, row, k) for k in range(self.size(stage.over))]
        values: list[Number] = [0.0] * self.size(stage.over)
        before, keys = self.row(stage, row, steps - 1), self.keys(stage, row, steps - 1)
        found = self.step(stage, row, steps, {k: float(before[k]) for k in keys})
        for k in self.keys(stage, row, steps):
            values[k] = found[k]
        return values

    def step(self, stage: Attention, row: Place, steps: int, before: dict[int, float]) -> dict[int, Number]:
        match stage.normalize[steps - 1]:
            case Formula(_, "softmax"):
                whole = reduced("logsumexp", list(before.values()))
                return {
                    k: math.exp(value - whole) if whole > -math.inf else 0.0 for k, value in before.items()
                }
            case Formula(body, _):
                self.inside.append((stage.name, steps - 1))
                axes = (*stage.rows, stage.over)
                found = {k: self.number(body, self.at(axes, (*row, k))) for k in before}
                self.inside.pop()
                return found
            case Threshold("top", _):
                return dict(before)
            case Threshold("sinkhorn", amount):
                return self.sinkhorn(stage, row, steps, int(self.number(amount, {})))
            case Threshold(kind, amount):
                alpha = 2.0 if kind == "sparsemax" else float(self.number(amount, self.at(stage.rows, row)))
                return dict(entmax(before, alpha))

    def sinkhorn(self, stage: Attention, row: Place, steps: int, rounds: int) -> dict[int, Number]:
        """All rows of a head at once."""
        rows = [(*row[:-1], q) for q in range(self.size(stage.rows[-1]))]
        logits = {
            (q, k): float(self.row(stage, place, steps - 1)[k])
            for q, place in enumerate(rows)
            for k in self.keys(stage, place, steps - 1)
        }
        for turn in range(2 * rounds + 1):
            side = turn % 2
            sums = {
                line: reduced("logsumexp", [value for pair, value in logits.items() if pair[side] == line])
                for line in {pair[side] for pair in logits}
            }
            logits = {pair: value - sums[pair[side]] for pair, value in logits.items()}
        return {k: math.exp(value) for (q, k), value in logits.items() if q == row[-1]}

    # ----------------------------------------------------------------------------- merges and recurrences

    def entries(self, stage: Stage, row: Place) -> list[tuple[float, Attention, int]]:
        """The scores of everything that a row of a merge sees."""
        if isinstance(stage, Merge):
            return [entry for name in stage.parts for entry in self.entries(self.stages[name], row)]
        assert isinstance(stage, Attention)
        return [(self.score(stage, row, k), stage, k) for k in self.keys(stage, row, len(stage.normalize))]

    def merged(self, stage: Merge, part: str, place: Place) -> Number:
        row = place if part == "lse" else place[:-1]
        entries = self.entries(stage, row)
        whole = reduced("logsumexp", [score for score, _, _ in entries])
        if part == "lse":
            return whole
        total = 0.0
        for score, source, key in entries:
            env = {**self.at((*source.rows, source.feature), place), **self.at((source.over,), (key,))}
            total += math.exp(score - whole) * self.number(source.value, env)
        return total

    def states(self, stage: Recurrence, token: int) -> dict[Place, Number]:
        """The state after a token, by its places."""
        if (stage.name, token) in self.state:
            return self.state[stage.name, token]
        for earlier in range(token):
            self.states(stage, earlier)
        self.inside.append((stage.name, token))
        places = list(product(*(range(self.size(axis)) for axis in stage.axes)))
        found: dict[Place, Number] = {}
        for place in places:
            env = {**self.at(stage.axes, place), **self.at((stage.token,), (token,))}
            found[place] = self.number(stage.step, env)
        self.inside.pop()
        self.state[stage.name, token] = found
        return found

    def previous(self, name: str, place: Place) -> Number:
        """The state before the current token: 0 before the first and where it restarts."""
        stage = self.stages[name]
        assert isinstance(stage, Recurrence)
        token = next(step for inner, step in reversed(self.inside) if inner == name)
        env = {**self.at(stage.axes, place), **self.at((stage.token,), (token,))}
        if token == 0 or (stage.restart is not None and self.number(stage.restart, env)):
            return 0.0
        return self.state[name, token - 1][place]


def entmax(scores: dict[int, float], alpha: float) -> dict[int, float]:
    """w = max((α−1)s − τ, 0)^(1/(α−1)), τ by bisection."""
    if not scores:
        return {}
    z = {k: (alpha - 1) * value for k, value in scores.items()}
    high = max(z.values())
    low = high - 1

    def weights(threshold: float) -> dict[int, float]:
        return {k: max(value - threshold, 0.0) ** (1 / (alpha - 1)) for k, value in z.items()}

    for _ in range(200):
        middle = (low + high) / 2
        if sum(weights(middle).values()) >= 1:
            low = middle
        else:
            high = middle
    return weights(low)
