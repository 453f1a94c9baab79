"""Random inputs for a pattern: Q, K, V and every declared tensor, with values that its formulas can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnlang.call_numbers import NotKnown, Number, number
from attnlang.ir.pattern import (
    HK,
    NK,
    NQ,
    Apply,
    Attention,
    Axis,
    B,
    Expr,
    H,
    Index,
    Let,
    Literal,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Tensor,
    children,
)
from attnlang.ir.rewrite import map_children
from attnlang.ir.walk import stage_expressions

if TYPE_CHECKING:
    import torch

FEW = 4
"""Different values of an int tensor of which nothing is known, such as document ids."""

_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
_POSITIONS = {"query", "key", "position"}
_TOKENS = {"n", "k", "q"}


def random_inputs(
    pattern: Pattern, sizes: Mapping[str, int], dtype: torch.dtype, seed: int
) -> dict[str, torch.Tensor]:
    """Q [B, H, NQ, D], K [B, HK, NK, D] and V [B, HK, NK, DV] as `q`, `k`, `v`, normal, of `dtype`, on the CPU.

    Keys of a pattern with a recurrence have length 1, as its models make them: with others a state may grow forever.
    """
    import torch

    make = torch.Generator().manual_seed(seed)
    shapes = {"q": ("B", "H", "NQ", "D"), "k": ("B", "HK", "NK", "D"), "v": ("B", "HK", "NK", "DV")}
    made = {
        name: torch.randn([sizes[size] for size in shape], generator=make) for name, shape in shapes.items()
    }
    if any(isinstance(stage, Recurrence) for stage in pattern.stages):
        made["k"] = torch.nn.functional.normalize(made["k"], dim=-1)
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def random_tensors(pattern: Pattern, symbols: Mapping[str, Number], seed: int) -> dict[str, torch.Tensor]:
    """The declared tensors on the CPU; `symbols` holds the sizes and the parameters.

    Bools are true in one of four places. Ints are what the pattern compares them with or uses them for, and requires
    of them, else one of FEW; along positions they rise, as the ids of documents do. Floats over features but not
    tokens are normal; all others, which may be decays, gates or slopes, lie between 0.05 and 0.95; both float32. A
    tensor whose lengths are not known is left out.
    """
    import torch

    make = torch.Generator().manual_seed(seed + 1)
    made: dict[str, torch.Tensor] = {}
    for tensor in pattern.tensors:
        try:
            shape = [max(int(number(axis.size, symbols)), 0) for axis in tensor.axes]
        except (NotKnown, ArithmeticError):
            continue
        indices = {axis.index for axis in tensor.axes}
        match tensor.dtype:
            case "bool":
                made[tensor.name] = torch.rand(shape, generator=make) < 0.25
            case "int":
                made[tensor.name] = _ints(pattern, tensor, shape, symbols, make)
            case "float" if indices & {"d", "e"} and not indices & _TOKENS:
                made[tensor.name] = torch.randn(shape, generator=make)
            case "float":
                made[tensor.name] = torch.rand(shape, generator=make) * 0.9 + 0.05
    return made


def _ints(
    pattern: Pattern, tensor: Tensor, shape: list[int], symbols: Mapping[str, Number], make: torch.Generator
) -> torch.Tensor:
    import torch

    choices = _allowed(pattern, tensor.name, _Use.of(pattern, tensor.name).choices(symbols), symbols)
    values = torch.tensor(choices)[torch.randint(len(choices), shape, generator=make)]
    ordered = [place for place, axis in enumerate(tensor.axes) if axis.index in _TOKENS]
    return values.sort(dim=ordered[-1]).values if ordered else values


def _allowed(pattern: Pattern, name: str, choices: list[int], symbols: Mapping[str, Number]) -> list[int]:
    """Those of the choices that the requirements allow everywhere in the tensor; all of them if they allow none."""

    def holds(condition: Expr, value: int) -> bool:
        match condition:
            case Reduce("all", _, body, None):
                return holds(body, value)
            case _:
                pass
        try:
            return bool(number(_filled(condition, name, value), symbols))
        except (NotKnown, ArithmeticError):
            return True

    conditions = [requirement.condition for requirement in pattern.requirements]
    return [value for value in choices if all(holds(condition, value) for condition in conditions)] or choices


def _filled(expr: Expr, name: str, value: int) -> Expr:
    """The expression with a number in place of every element of a tensor."""
    if _is_read(expr, name):
        return Literal(value)
    return map_children(expr, lambda part: _filled(part, name, value))


# ----------------------------------------------------------------------------------------- what ints are for


@dataclass
class _Use:
    """What a pattern does with the values of an int tensor."""

    compared: set[int] = field(default_factory=set[int])
    limits: list[Expr] = field(default_factory=list[Expr])
    is_position: bool = False

    @staticmethod
    def of(pattern: Pattern, name: str) -> _Use:
        """Found by looking at every comparison with the tensor and every read at it."""
        use = _Use()
        lengths = _lengths(pattern)
        for expr in _expressions(pattern):
            match expr:
                case Apply(op, (left, right)) if op in _COMPARISONS:
                    use._compare(name, left, right)
                    use._compare(name, right, left)
                case Read(source, at, _):
                    for place, length in zip(at, lengths.get(source, ()), strict=False):
                        if _is_read(place, name):
                            use.limits.append(length)
                case _:
                    pass
        return use

    def _compare(self, name: str, one: Expr, other: Expr) -> None:
        if not _is_read(one, name):
            return
        match other:
            case Literal(bool() | float()):
                pass
            case Literal(value):
                self.compared.add(int(value))
            case Index(axis) if axis.role in _POSITIONS:
                self.is_position = True
            case Index(axis):
                self.limits.append(axis.size)
            case _:
                pass

    def choices(self, symbols: Mapping[str, Number]) -> list[int]:
        """The values to choose from, never none."""
        if self.compared:
            return sorted(self.compared | {0})
        limits: list[int] = []
        for limit in self.limits:
            try:
                limits.append(int(number(limit, symbols)))
            except (NotKnown, ArithmeticError):
                continue
        if not limits and self.is_position:
            return list(range(int(symbols["NK"])))
        return list(range(max(1, min(limits, default=FEW))))


def _is_read(expr: Expr, name: str) -> bool:
    return isinstance(expr, Read) and expr.source == name


def _expressions(pattern: Pattern) -> Iterator[Expr]:
    """Every subexpression, each object once."""
    queue = [pattern.output, *(expr for stage in pattern.stages for expr in stage_expressions(stage))]
    seen: set[int] = set()
    while queue:
        expr = queue.pop()
        if id(expr) not in seen:
            seen.add(id(expr))
            yield expr
            queue += children(expr)


def _lengths(pattern: Pattern) -> dict[str, tuple[Expr, ...]]:
    """The lengths of the axes of everything that can be read at an int."""
    found: dict[str, tuple[Expr, ...]] = {"Q": (B, H, NQ), "K": (B, HK, NK), "V": (B, HK, NK)}
    for tensor in pattern.tensors:
        found[tensor.name] = tuple(axis.size for axis in tensor.axes)
    for stage in pattern.stages:
        match stage:
            case Let():
                found[stage.name] = _sizes(stage.axes)
            case Select():
                found[stage.name] = _sizes((*stage.rows, *stage.candidates))
            case Attention():
                found[stage.name] = _sizes(stage.rows)
            case _:
                pass
    return found


def _sizes(axes: tuple[Axis, ...]) -> tuple[Expr, ...]:
    return tuple(axis.size for axis in axes)
