"""What codegen hands to runtime: a kernel's complete source text and everything needed to call it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

DTYPES = frozenset({"fp16", "bf16", "fp32", "fp64", "i1", "i8", "i32", "i64", "u8"})


@dataclass(frozen=True)
class Argument:
    """One run-time argument of a kernel.

    `kind` "pointer" is the first element of a tensor of `dtype` (`i1` is a `torch.bool` tensor, one byte
    an element); "scalar" is a number of exactly that dtype, whatever its value is.
    """

    name: str
    kind: Literal["pointer", "scalar"]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"argument {self.name} has the unknown dtype {self.dtype!r}")


@dataclass(frozen=True)
class KernelSource:
    """A kernel as text.

    `text` is complete (imports included), self-contained and deterministic; `name` is its entry function.
    `arguments` come in the order of the entry's parameters; `constants` are its compile-time parameters
    with their values. `warps` and `stages` are launch facts of Triton and ignored by C++.
    """

    language: Literal["triton", "cpp"]
    name: str
    text: str
    arguments: tuple[Argument, ...]
    constants: tuple[tuple[str, int | float | bool], ...]
    warps: int
    stages: int

    @cached_property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of everything above."""
        parts = (
            self.language,
            self.name,
            self.text,
            repr([(a.name, a.kind, a.dtype) for a in self.arguments]),
            repr(list(self.constants)),
            repr((self.warps, self.stages)),
        )
        state = sha256()
        for part in parts:
            encoded = part.encode()
            state.update(len(encoded).to_bytes(8, "little") + encoded)
        return state.hexdigest()
