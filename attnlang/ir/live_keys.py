"""What a decoder must keep: keys by classes of key/value heads."""

from __future__ import annotations

from dataclasses import dataclass

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
