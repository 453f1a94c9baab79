"""What codegen hands to runtime: a kernel's complete source text and everything needed to call it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

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


@dataclass(frozen=True)
class Launch:
    """One kernel of a program: the attention it computes, the queries and keys of its tiles in lists, how it finds them
    ("ranges", "lists", "ordered"), whether ranges say exactly what its predicate says, and what puts the shares of
    split keys together (None: keys are not split)."""

    attention: str
    rows: int
    columns: int
    source: KernelSource
    walk: str = "ranges"
    exact: bool = True
    combine: KernelSource | None = None


@dataclass(frozen=True)
class Program:
    """What a pattern became for one specialization: the tables evaluated before, the launches, and whether PyTorch
    combines their results into the output. Empty `launches`: the pattern runs as dense PyTorch, for `reason`."""

    tables: tuple[str, ...]
    launches: tuple[Launch, ...]
    combined: bool
    reason: str = ""

    def to_json(self) -> str:
        """A text from which `from_json` makes the same program."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Program:
        """The program of a text made by `to_json`."""
        data = json.loads(text)
        return Program(
            tuple(data["tables"]),
            tuple(
                Launch(
                    item["attention"],
                    item["rows"],
                    item["columns"],
                    _source(item["source"]),
                    item["walk"],
                    item["exact"],
                    None if item["combine"] is None else _source(item["combine"]),
                )
                for item in data["launches"]
            ),
            data["combined"],
            data["reason"],
        )


def _source(data: dict[str, Any]) -> KernelSource:
    arguments = tuple(Argument(**item) for item in data["arguments"])
    constants = tuple((name, value) for name, value in data["constants"])
    return KernelSource(
        data["language"], data["name"], data["text"], arguments, constants, data["warps"], data["stages"]
    )
