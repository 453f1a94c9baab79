"""Which keys a decoder may still need: what the queries from a position on can see, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    Attention,
    Expr,
    Formula,
    Index,
    Let,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    kv_head_of,
    storage,
)  # fmt: skip
from attnlang.ir.rewrite import conjunction
from attnlang.ir.walk import parts_of
from attnlang.passes.concrete import KnownCall, heads_differ, known_bands, resolve, runs_of

if TYPE_CHECKING:
    from attnlang.call import Binding

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LiveKeys:
    """The keys `first … stop − 1` of each range are needed by these key/value heads from a position on; all others
    may be dropped. Ranges ascend and do not touch."""

    kv_heads: tuple[int, ...]
    ranges: Ranges

    @property
    def count(self) -> int:
        """How many keys stay."""
        return sum(stop - first for first, stop in self.ranges)


def live_keys(pattern: Pattern, binding: Binding, position: int) -> tuple[LiveKeys, ...]:
    """What the queries at `position … NK − 1` of any batch entry may read of K and V, by classes of heads.

    Never leaves out a key that one of them can see. Where K or V enters anything but scores and values of visible
    pairs (pooled keys, choices by content, recurrences, normalizers over hidden pairs) everything stays.
    """
    call = known_call(binding)
    heads, keys, groups = call.number("H"), call.number("NK"), call.number("HK")
    attentions = _plain_attentions(pattern)
    if position >= keys or attentions is None:
        everything: Ranges = () if position >= keys else ((0, keys),)
        return (LiveKeys(tuple(range(groups)), everything),)
    differ = any(heads_differ(conjunction(each.mask, each.sparsity))[1] for each in attentions)
    by_head = [_seen_by(attentions, call, head, position) for head in range(heads if differ else 1)]
    by_head = by_head if differ else by_head * heads
    share = max(1, heads // groups)
    classes: dict[Ranges, list[int]] = {}
    for group in range(groups):
        members = by_head[group * share : (group + 1) * share]
        ranges = _union([each for member in members for each in member])
        classes.setdefault(ranges, []).append(group)
    return tuple(LiveKeys(tuple(members), ranges) for ranges, members in classes.items())


def known_call(binding: Binding) -> KnownCall:
    """The numbers of a call, with elements of its tensors where they were given."""

    def element(name: str, at: tuple[int, ...]) -> bool | int | float | None:
        tensor = binding.tensors.get(name)
        if tensor is None or len(at) != tensor.dim():
            return None
        if not all(0 <= place < length for place, length in zip(at, tensor.shape, strict=True)):
            return None
        return tensor[at].item()

    return KnownCall({**binding.sizes, **binding.scalars}, element)


def _seen_by(attentions: list[Attention], call: KnownCall, head: int, position: int) -> Ranges:
    """The keys that a query head sees from the position on, over all attentions and batch entries."""
    first, last = np.array([position]), np.array([call.number("NK") - 1])
    found: list[tuple[int, int]] = []
    for attention in attentions:
        visible = conjunction(attention.mask, attention.sparsity)
        entries = call.number("B") if heads_differ(visible)[0] else 1
        for batch in range(entries):
            predicate = resolve(visible, call, batch, head)
            for band in known_bands(predicate, QUERY, KEY, call):
                runs = runs_of(band, QUERY, KEY, call, first, last)
                found.append((int(runs.first[0]), int(runs.stop[0])))
    return _union(found)


def _union(ranges: list[tuple[int, int]]) -> Ranges:
    """Ascending, merged where they meet, empty ones left out."""
    merged: list[tuple[int, int]] = []
    for first, stop in sorted(each for each in ranges if each[0] < each[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((first, stop))
    return tuple(merged)


# -------------------------------------------------------------------------------- where visibility says everything


def _plain_attentions(pattern: Pattern) -> list[Attention] | None:
    """The attentions of queries over keys, where nothing else reads keys, values or hidden pairs; else None."""
    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    names = {attention.name for attention in attentions}
    elsewhere = [pattern.output, *(each.condition for each in pattern.requirements)]
    for stage in pattern.stages:
        match stage:
            case Attention():
                if not _is_plain(stage):
                    return None
                elsewhere += [stage.mask, stage.sparsity, *([stage.reweight] if stage.reweight else [])]
                elsewhere += [step.body for step in stage.normalize if isinstance(step, Formula)]
                if not all(_harmless(expr, names, in_pair=True) for expr in (stage.score, stage.value)):
                    return None
            case Let(body=body):
                elsewhere.append(body)
            case Merge():
                pass
            case Select() | Recurrence():
                return None
    return attentions if all(_harmless(expr, names, in_pair=False) for expr in elsewhere) else None


def _is_plain(attention: Attention) -> bool:
    """Whether queries attend to keys, row by row, and no step of the normalizer looks at hidden pairs."""
    if attention.rows != (BATCH, HEAD, QUERY) or attention.over != KEY:
        return False
    steps = [step.body for step in attention.normalize if isinstance(step, Formula)]
    sums = [part for body in steps for part in parts_of(body) if isinstance(part, Reduce)]
    shown = all(part.where is not None and _reads_visible(part.where) for part in sums)
    return shown and len(steps) == len(attention.normalize)


def _reads_visible(expr: Expr) -> bool:
    return any(isinstance(part, Read) and part.source.endswith(".visible") for part in parts_of(expr))


def _harmless(expr: Expr, attentions: set[str], *, in_pair: bool) -> bool:
    """Whether K and V are read at the key and the head of a visible pair only, and attentions at their own row."""
    for part in parts_of(expr):
        if isinstance(part, Reduce) and {KEY, HEAD, BATCH} & set(part.axes):
            return False
        if not isinstance(part, Read):
            continue
        if part.source in ("K", "V") and not (in_pair and _of_the_pair(part)):
            return False
        base, _, field = part.source.partition(".")
        if base in attentions and (field == "scores" or part.at[2:3] != (storage(QUERY),)):
            return False
    return True


def _of_the_pair(read: Read) -> bool:
    return read.at[:3] == (Index(BATCH), kv_head_of(Index(HEAD)), Index(KEY))
