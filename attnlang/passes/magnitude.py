"""Whether the whole numbers of a mask, score or table may leave 32 bits in a call: then they are computed in 64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from attnlang.ir.bounds import Facts, Interval, interval
from attnlang.ir.memo import Memo
from attnlang.ir.pattern import Apply, Attention, Expr, Let, Literal, Pattern, Symbol, dtype_of
from attnlang.ir.walk import parts_of
from attnlang.passes.specialize import reads

LARGEST = 2**29  # key ranges add a few such numbers before they are cut off


def needs_long(pattern: Pattern, symbols: Mapping[str, bool | int | float]) -> bool:
    """Whether sums and products of whole numbers may go beyond 32 bits, for the sizes and parameters of a call.

    Depends on the number of bits of each size and parameter only, so that few values of them are few answers.
    """
    bits = tuple((name, _bits(value)) for name, value in symbols.items() if not isinstance(value, float))

    def find() -> bool:
        facts = Facts({name: _range(count) for name, count in bits})
        return any(_is_large(part, facts) for part in _computed(pattern))

    return _answers.get(pattern, bits, find)


_answers: Memo[tuple[tuple[str, int], ...], bool] = Memo(4096)


def _bits(value: int) -> int:
    """Bits of a whole number, with its sign."""
    return int(value).bit_length() * (-1 if value < 0 else 1)


@cache
def _range(bits: int) -> Interval:
    """All numbers with these bits."""
    low, high = (0, 0) if bits == 0 else (2 ** (abs(bits) - 1), 2 ** abs(bits) - 1)
    return (low, high) if bits >= 0 else (-high, -low)


def _computed(pattern: Pattern) -> Iterator[Expr]:
    """Every expression that a kernel computes."""
    used: set[str] = set()
    for stage in pattern.stages:
        if isinstance(stage, Attention):
            for expr in (stage.mask, stage.sparsity, stage.score, stage.value, stage.reweight):
                if expr is not None:
                    used |= reads(expr)
                    yield from parts_of(expr)
    for stage in pattern.stages:
        if isinstance(stage, Let) and stage.name in used:
            yield from parts_of(stage.body)


def _is_large(expr: Expr, facts: Facts) -> bool:
    match expr:
        case Symbol(_, "int") | Literal(int()):
            pass
        case Apply("add" | "sub" | "mul" | "pow", _) if dtype_of(expr) == "int":
            pass
        case _:
            return False
    low, high = interval(expr, facts)
    return low < -LARGEST or high > LARGEST
