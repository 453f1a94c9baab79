"""The pattern that a command is about, and the parameters that `-p` gives it."""

from __future__ import annotations

from collections.abc import Sequence

import attnlang
from attnlang.cli_options import Pair, values_of
from attnlang.errors import Diagnostic


class TensorAsParameter(Diagnostic):
    """`-p` names a tensor of the pattern."""

    code = "E606"
    message = "'{name}' is a tensor of {pattern}, -p gives parameters"
    hint = "'attnlang run' and 'attnlang show' make random tensors themselves; from Python pass {name}=…"


def load_pattern(file: str, name: str | None) -> attnlang.Pattern:
    """The pattern called `name` in a file, or the only one in it."""
    return attnlang.load(file, name)


def parameters_of(pattern: attnlang.Pattern, pairs: Sequence[Pair]) -> dict[str, bool | int | float]:
    """What `-p` says, as keyword arguments of the pattern's methods. Raises TensorAsParameter, UsageError."""
    for name, _ in pairs:
        if any(tensor == name for tensor in pattern.tensors):
            raise TensorAsParameter(name=name, pattern=pattern.name)
    return dict(values_of(pairs))


def called(pattern: attnlang.Pattern, parameters: dict[str, bool | int | float]) -> str:
    """`name(window=64)`, for titles."""
    values = ", ".join(f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in parameters.items())
    return f"{pattern.name}({values})"
