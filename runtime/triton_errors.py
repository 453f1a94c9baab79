"""The errors of the Triton rooms, and the one door through which Triton is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from attnlang.errors import Diagnostic


class TritonMissing(Diagnostic):
    """Triton, or a tool that its wheel ships, is not installed."""

    code = "E540"
    message = "{what} is not available on this machine{detail}"
    hint = 'install it with `pip install "triton>=3.6"` (Linux), or use target="eager", which needs no Triton'


class TritonCompileError(Diagnostic):
    """Triton could not load, compile or interpret a kernel.

    `kernel`, `target`, `line` (the first relevant line of Triton's own message) and `source_line` (the line
    of the generated kernel it complains about, "" where unknown) say what and where.
    """

    code = "E541"
    message = "Triton failed on the kernel {kernel} (target {target}): {line}{where}"
    hint = 'the pattern itself runs with target="eager"; please report the kernel'

    def __init__(self, kernel: str, target: str, line: str, source_line: str = "") -> None:
        self.kernel = kernel
        self.target = target
        self.line = line
        self.source_line = source_line
        where = f"\n    in: {source_line}" if source_line else ""
        super().__init__(None, None, kernel=kernel, target=target, line=line, where=where)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kernel, self.target, self.line, self.source_line)


def require(name: str) -> Any:
    """The module `name` of Triton; `TritonMissing` where it is not installed or does not load."""
    try:
        return import_module(name)
    except ImportError as error:
        detail = "" if isinstance(error, ModuleNotFoundError) and error.name == "triton" else f" ({error})"
        raise TritonMissing(what=name, detail=detail) from None


def triton_version() -> tuple[int, int]:
    """Major and minor version of the installed Triton."""
    major, minor = str(require("triton").__version__).split(".")[:2]
    return int(major), int(minor)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text that says something, else its class name."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if any(letter.isalpha() for letter in line)]
    return said[0] if said else type(error).__name__


def compile_error(kernel: str, target: str, error: BaseException) -> TritonCompileError:
    """Triton's exception as ours: its message and the line of the kernel that it points at.

    A mistake inside a helper function arrives as a chain of exceptions; the innermost one is told.
    """
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    place, seen = "", error
    while seen is not None:
        text, number = getattr(seen, "src", None), getattr(getattr(seen, "node", None), "lineno", 0)
        if isinstance(text, str) and number:
            place = text.splitlines()[number - 1].strip()
        seen = seen.__cause__
    message = getattr(deepest, "error_message", None)
    said = RuntimeError(message) if message else deepest
    return TritonCompileError(kernel, target, first_line(said), place)
