"""Instruction sets that C++ is printed for: lengths of vectors, shapes of the register tiles."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROWS = 8
"""Rows that a register tile reads along at a time: each has its pointer in a register."""

AHEAD = 12
"""How many rows before they are read their memory is asked for."""


@dataclass(frozen=True)
class Isa:
    """`bytes`: of one vector register; `across` × `down`: the largest register tile, in vectors × broadcast numbers;
    `bf16`: whether pairs of bfloat16 are multiplied and added in float32 by one instruction."""

    name: str
    bytes: int
    across: int
    down: int
    bf16: bool = False

    @property
    def most_down(self) -> int:
        """Rows that a register tile may read, or ask for, behind the last one."""
        return max(self.tile_down(1), AHEAD + MOST_ROWS)

    def tile_down(self, across: int) -> int:
        """Broadcast numbers of a register tile that is `across` vectors wide."""
        return self.across * self.down // across


ISAS: dict[str, Isa] = {
    "avx512bf16": Isa("avx512bf16", 64, 4, 6, bf16=True),
    "avx512": Isa("avx512", 64, 4, 6),
    "avx2": Isa("avx2", 32, 2, 6),
    "portable": Isa("portable", 16, 2, 6),
}
