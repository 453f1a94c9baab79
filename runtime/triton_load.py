"""From a kernel's source text to Triton's JIT function; no file is written.

Triton reads a function's source through `inspect`, which looks into `linecache`: the text is put there
under an invented file name.
"""

from __future__ import annotations

import inspect
import linecache
from collections import Counter
from threading import Lock
from typing import Any

from attnlang.artifact import Argument, KernelSource

from .triton_errors import TritonCompileError, first_line, require
from .triton_lock import TRITON

_loaded: dict[str, Any] = {}
_loading = Lock()

LARGE = 3
"""A tensor with so many strides among the arguments is large: a batch of heads of rows."""


def file_name(source: KernelSource) -> str:
    """The invented file name under which the text stands in `linecache` and in tracebacks."""
    return f"<attnlang:{source.digest[:24]}>"


def load(source: KernelSource) -> Any:
    """The Triton `JITFunction` of `source`, its run-time parameters strictly typed by `source.arguments`.

    Cached by digest, so that the kernels that Triton compiled for it are found again. Raises
    `TritonMissing` without Triton, `TritonCompileError` for a text that does not run or does not
    declare the parameters it promises.
    """
    known = _loaded.get(source.digest)
    if known is not None:
        return known
    require("triton")
    with TRITON.shared(), _loading:
        if source.digest not in _loaded:
            _loaded[source.digest] = _load(source)
        return _loaded[source.digest]


def type_name(argument: Argument) -> str:
    """An argument's type as Triton writes it in signatures: `*bf16`, `i64`, `fp32`."""
    dtype = "u1" if argument.dtype == "i1" and argument.kind == "scalar" else argument.dtype
    return f"*{dtype}" if argument.kind == "pointer" else dtype


def line_of(source: KernelSource, number: int) -> str:
    """Line `number` (1-based) of the kernel's text without its indentation, "" outside of it."""
    lines = source.text.splitlines()
    return lines[number - 1].strip() if 1 <= number <= len(lines) else ""


def _load(source: KernelSource) -> Any:
    if source.language != "triton":
        raise TritonCompileError(source.name, "triton", f"its language is {source.language}")
    name = file_name(source)
    lines = source.text.splitlines(keepends=True)
    linecache.cache[name] = (len(source.text), None, lines, name)
    namespace: dict[str, Any] = {"__name__": f"attnlang_kernel_{source.digest[:12]}"}
    try:
        exec(compile(source.text, name, "exec"), namespace)
    except SyntaxError as error:
        place = line_of(source, error.lineno or 0)
        raise TritonCompileError(source.name, "triton", first_line(error), place) from error
    except Exception as error:
        raise TritonCompileError(source.name, "triton", f"{type(error).__name__}: {error}") from error
    return _typed(source, namespace.get(source.name))


def _typed(source: KernelSource, entry: Any) -> Any:
    """The entry with the types of `source.arguments` in place of whatever its annotations say."""
    jit_function = require("triton.runtime.jit").JITFunction
    if not isinstance(entry, jit_function):
        raise TritonCompileError(source.name, "triton", "its text defines no such @triton.jit function")
    jitted: Any = entry
    function: Any = jitted.fn
    constants = [parameter.name for parameter in jitted.params if parameter.is_constexpr]
    arguments = [parameter.name for parameter in jitted.params if not parameter.is_constexpr]
    promised = [argument.name for argument in source.arguments]
    if arguments != promised or sorted(constants) != sorted(name for name, _ in source.constants):
        told = f"its parameters are {arguments} and {constants}, its description says {promised} and "
        raise TritonCompileError(
            source.name,
            "triton",
            told + str([name for name, _ in source.constants]),
            str(inspect.signature(function)),
        )
    for argument in source.arguments:
        function.__annotations__[argument.name] = type_name(argument)
    return jit_function(function, noinline=jitted.noinline, do_not_specialize=_plain_numbers(source))


def _plain_numbers(source: KernelSource) -> list[str]:
    """The scalars of which Triton must not compile a variant for the value 1 and one for multiples of 16.

    These are lengths, parameters and strides of tensors with few axes; strides of larger ones keep their variants, for
    loads in pieces of 16 bytes.
    """
    named = [argument.name for argument in source.arguments if argument.kind == "scalar"]
    owners = Counter(name.rpartition("_stride_")[0] for name in named if "_stride_" in name)
    return [name for name in named if owners[name.rpartition("_stride_")[0]] < LARGE]
