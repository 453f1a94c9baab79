"""The lists of tiles that a call's kernels read: made when they are first needed, kept while nothing changes."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from threading import Lock
from typing import TYPE_CHECKING, Any

from attnlang.artifact import Launch, Program
from attnlang.ir.memo import Memo
from attnlang.ir.pattern import Attention, Pattern
from attnlang.ir.plan import Specialization, WalkKind
from attnlang.watch import debug

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from attnlang.ir.interpret import Inputs
    from attnlang.passes.tiling import Tiling

MOST_CALLS = 64
"""Calls that differ in numbers, for which lists are kept."""
MOST_COPIED = 1 << 20
"""Elements of a tensor that are copied from a device to classify tiles by."""


@dataclass(frozen=True, eq=False)
class Walk:
    """What one launch reads: tensors and numbers by argument, and how many tiles of queries a head has. `tiling` is
    None where the kernel walks ranges."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, int]
    row_tiles: int
    tiling: Tiling | None = None
    call: Classified | None = None
    others: dict[tuple[int, int, bool], Walk] = field(default_factory=dict[tuple[int, int, bool], "Walk"])

    def with_sides(self, rows: int, columns: int, by_keys: bool) -> Walk:
        """The same for tiles of other sides, kept: for kernels whose programs own tiles of queries, or of keys."""
        assert self.tiling is not None and self.call is not None
        key = (rows, columns, by_keys)
        if key not in self.others:
            self.others[key] = _walk(self.call.tiling(self.tiling.walk, rows, columns), self.call, by_keys)
        return self.others[key]


@dataclass(frozen=True, eq=False)
class Classified:
    """An attention of a specialized pattern at a call: its numbers, contents of its tensors, and where lists go."""

    pattern: Pattern
    attention: Attention
    symbols: Mapping[str, bool | int | float]
    arrays: Mapping[str, Any]
    device: torch.device

    def tiling(self, walk: WalkKind, rows: int, columns: int) -> Tiling:
        """Lists for tiles of some sides."""
        from attnlang.passes.tiling import tiling_like

        return tiling_like(walk, self.pattern, self.attention, self.symbols, self.arrays, rows, columns)


def walks_of(
    pattern: Pattern, inputs: Inputs, program: Program, specialization: Specialization
) -> tuple[Walk, ...]:
    """For each launch of a program by ranges, how it should walk: by the same ranges, or by lists.

    Lists depend on the numbers that the predicate names and on the contents of the tensors that it reads: they are
    made again when one of these has changed. On a GPU a tensor that is the same object, unchanged by any operation of
    PyTorch, counts as unchanged; elsewhere contents are compared.
    """
    named = _named.get(pattern, None, lambda: _read_by(pattern))
    symbols = {**inputs.sizes, **inputs.scalars}
    tensors = {name: inputs.tensors[name] for name in sorted(named[0]) if name in inputs.tensors}
    sides = tuple((launch.rows, launch.columns) for launch in program.launches)
    numbers = tuple((name, symbols[name]) for name in sorted(named[1]) if name in symbols)
    device = str(inputs.device())
    key = (
        id(pattern),
        numbers,
        sides,
        specialization.statics,
        specialization.head_dim,
        device,
        tuple(tensors),
    )
    known = _made.get(key)
    if known is not None and known.holds(tensors):
        return known.walks
    walks = _make(pattern, program.launches, specialization, symbols, tensors, inputs)
    with _changing:
        _made.pop(key, None)
        while len(_made) >= MOST_CALLS:
            _made.popitem(last=False)
        _made[key] = _Made(pattern, {name: _Content(tensor) for name, tensor in tensors.items()}, walks)
    return walks


def holds(walks: tuple[Walk, ...]) -> Callable[[Mapping[str, Tensor]], bool] | None:
    """Whether tensors, by their names, hold what they held when `walks` were found; None where that is not known any
    more."""
    if not walks:
        return lambda tensors: True
    made = next((each for each in reversed(_made.values()) if each.walks is walks), None)
    return None if made is None else made.holds


def kept() -> list[tuple[Walk, ...]]:
    """What is kept, the oldest first."""
    return [made.walks for made in _made.values()]


def forget() -> None:
    """Lets go of all lists."""
    with _changing:
        _made.clear()


class _Content:
    """What a tensor held, as far as it can be told later."""

    def __init__(self, tensor: Tensor) -> None:
        self.copy: Tensor | None = None
        self.same: weakref.ref[Tensor] | None = None
        self.version = 0
        if tensor.device.type == "cpu" or tensor.is_inference():
            self.copy = tensor.detach().clone()
        else:
            self.same, self.version = weakref.ref(tensor), tensor._version

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor holds the same still."""
        import torch

        if self.copy is not None:
            alike = self.copy.shape == tensor.shape and self.copy.dtype == tensor.dtype
            return alike and torch.equal(self.copy, tensor.detach())
        known = self.same is not None and self.same() is tensor
        return known and not tensor.is_inference() and self.version == tensor._version


@dataclass(frozen=True, eq=False)
class _Made:
    """Lists of a call, with the pattern (whose id is in the key) and what its tensors held."""

    pattern: Pattern
    contents: Mapping[str, _Content]
    walks: tuple[Walk, ...]

    def holds(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the tensors hold what they held."""
        return all(content.holds(tensors[name]) for name, content in self.contents.items())


_made: OrderedDict[tuple[Any, ...], _Made] = OrderedDict()
_changing = Lock()
_named: Memo[None, tuple[frozenset[str], frozenset[str]]] = Memo(1024)


def _read_by(pattern: Pattern) -> tuple[frozenset[str], frozenset[str]]:
    from attnlang.passes.tiling import read_by

    tensors: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    for stage in pattern.stages:
        if isinstance(stage, Attention):
            read, named = read_by(stage, pattern.stages)
            tensors, numbers = tensors | read, numbers | named
    return tensors, numbers


def specialized(pattern: Pattern, specialization: Specialization) -> Pattern:
    """The pattern with the numbers that shape its code in place of their names."""
    from attnlang.passes.specialize import specialize

    statics = dict(specialization.statics)
    return specialize(pattern, specialization.head_dim, specialization.value_dim, statics)


def tilings_of(
    special: Pattern,
    specialization: Specialization,
    sides: Sequence[tuple[int, int]],
    symbols: Mapping[str, bool | int | float],
    tensors: Mapping[str, Any] | None,
) -> tuple[Tiling | None, ...]:
    """For each attention of a specialized pattern, the lists that its kernel with tiles of `sides` should read; None:
    ranges."""
    from attnlang.passes.planning import facts_of
    from attnlang.passes.tiling import choose_tiling

    facts = facts_of(special, specialization)
    attentions = [stage for stage in special.stages if isinstance(stage, Attention)]
    return tuple(
        choose_tiling(special, attention, symbols, tensors, rows, columns, facts)
        for attention, (rows, columns) in zip(attentions, sides, strict=True)
    )


def _make(
    pattern: Pattern,
    launches: tuple[Launch, ...],
    specialization: Specialization,
    symbols: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    inputs: Inputs,
) -> tuple[Walk, ...]:
    sides = [(launch.rows, launch.columns) for launch in launches]
    block = gcd(*(side for pair in sides for side in pair))
    arrays = {name: contents(tensor, block) for name, tensor in tensors.items()}
    special = specialized(pattern, specialization)
    attentions = [stage for stage in special.stages if isinstance(stage, Attention)]
    found = tilings_of(special, specialization, sides, symbols, arrays)
    walks: list[Walk] = []
    for launch, attention, tiling in zip(launches, attentions, found, strict=True):
        call = Classified(special, attention, symbols, arrays, inputs.device())
        if tiling is None:
            walks.append(Walk({}, {}, -(-symbols["NQ"] // launch.rows)))
        else:
            debug("plan", "".join(f"{decision}\n" for decision in tiling.decisions))
            walks.append(_walk(tiling, call, by_keys=False))
    return tuple(walks)


def contents(tensor: Tensor, block: int) -> Any:
    """What the classification may know of a tensor: a copy of its elements, which may change later, or of a large one
    on another device the least and the greatest of each block, found there."""
    from attnlang.passes.summaries import Summary
    from attnlang.runtime.summaries import blocks_of, extremes

    tensor = tensor.detach().resolve_neg()
    if tensor.device.type != "cpu" and tensor.numel() > MOST_COPIED:
        lengths = blocks_of(tensor.shape, block)
        return Summary(*extremes(tensor, lengths), lengths, tuple(tensor.shape))
    own = tensor.double() if tensor.dtype.is_floating_point else tensor
    return own.to("cpu", copy=True).numpy()


def _walk(tiling: Tiling, call: Classified, by_keys: bool) -> Walk:
    import torch

    made = tiling.transposed if by_keys else tiling.lists
    tensors = {
        name: torch.as_tensor(array, device=call.device) for name, array in tiling.arrays(made).items()
    }
    numbers = tiling.numbers(made)
    return Walk(tensors, numbers, numbers["row_tiles"], tiling, call)
