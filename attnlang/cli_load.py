"""The pattern that a command is about, the parameters that `-p` gives it, and calls of it with random inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attnlang
from attnlang.call_numbers import Number
from attnlang.cli_options import Pair, values_of
from attnlang.errors import Diagnostic, Diagnostics, nearest
from attnlang.errors_driver import MissingArgument, UnknownArgument
from attnlang.samples import random_inputs, random_tensors

if TYPE_CHECKING:
    import torch


class TensorAsParameter(Diagnostic):
    """`-p` names a tensor of the pattern."""

    code = "E606"
    message = "'{name}' is a tensor of '{pattern}', and -p gives parameters"
    hint = "'attnlang run' and 'attnlang show' make random tensors themselves; from Python pass {name}=…"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a call."""

    n: int
    nq: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int

    def symbols(self) -> dict[str, int]:
        """By the names they have in patterns."""
        return {
            "B": 1, "H": self.heads, "HK": self.kv_heads, "NQ": self.nq, "NK": self.n,
            "D": self.head_dim, "DV": self.value_dim,
        }  # fmt: skip


@dataclass(frozen=True)
class RandomCall:
    """The arguments of a call: q [1, H, NQ, D], k [1, HK, NK, D], v [1, HK, NK, DV], parameters and tensors."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    parameters: Mapping[str, Number]
    tensors: Mapping[str, torch.Tensor]

    @property
    def arguments(self) -> dict[str, Any]:
        """What is passed by name."""
        return {**self.parameters, **self.tensors}


def load_pattern(file: str, name: str | None) -> attnlang.Pattern:
    """The pattern called `name` in a file, or the only one in it."""
    return attnlang.load(file, name)


def parameters_of(
    pattern: attnlang.Pattern, pairs: Sequence[Pair], *, all_needed: bool = True
) -> dict[str, Any]:
    """What `-p` says, as keyword arguments of the pattern's methods.

    Raises UsageError for what is no value, Diagnostics for names that are no parameters, and for parameters without
    value and default where all are needed.
    """
    values = values_of([item for item in pairs if item[0] not in pattern.tensors])
    mistakes: list[Diagnostic] = []
    known = list(pattern.params)
    for name, _ in pairs:
        if name in pattern.tensors:
            mistakes.append(TensorAsParameter(name=name, pattern=pattern.name))
        elif name not in pattern.params:
            near = nearest(name, known)
            advice = (
                f"did you mean '{near}'?"
                if near
                else f"it has {', '.join(known)}"
                if known
                else "it has none"
            )
            mistakes.append(UnknownArgument(None, advice, pattern=f"'{pattern.name}'", name=name))
    for name, parameter in pattern.params.items():
        if all_needed and parameter.default is None and name not in values:
            advice = f"it has no default; add -p {name}=…"
            mistakes.append(
                MissingArgument(None, advice, pattern=f"'{pattern.name}'", kind="parameter", name=name)
            )
    if mistakes:
        raise Diagnostics(mistakes)
    return values


def random_call(
    pattern: attnlang.Pattern,
    parameters: Mapping[str, Number],
    sizes: Sizes,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
    seed: int,
) -> RandomCall:
    """Random arguments; the same for the same seed on every device. Float tensors of the pattern are float32."""
    defaults = {name: item.default for name, item in pattern.params.items() if item.default is not None}
    symbols: dict[str, Number] = {**sizes.symbols(), "q_offset": sizes.n - sizes.nq, **defaults, **parameters}
    made = random_inputs(pattern.ir, sizes.symbols(), dtype, seed)
    inputs = {name: tensor.to(device) for name, tensor in made.items()}
    tensors = {name: tensor.to(device) for name, tensor in random_tensors(pattern.ir, symbols, seed).items()}
    return RandomCall(inputs["q"], inputs["k"], inputs["v"], parameters, tensors)


def called(pattern: attnlang.Pattern, parameters: Mapping[str, Number]) -> str:
    """`name(window=64)`, for titles: all parameters that have a value."""
    values: dict[str, Number] = {}
    for name, parameter in pattern.params.items():
        value = parameters.get(name, parameter.default)
        if value is not None:
            values[name] = value
    return f"{pattern.name}({', '.join(f'{name}={_shown(value)}' for name, value in values.items())})"


def _shown(value: Number) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
