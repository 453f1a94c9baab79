"""Triton functions as plain Python for the interpreter, meaning what the compiler takes them to mean."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from . import triton_numbers as numbers
from .triton_errors import require

tl: Any = numbers.tl
builder = numbers.MendedBuilder()
semantic: Any = numbers.MendedSemantic(builder)
_jit_function: Any = require("triton.runtime.jit").JITFunction
_namespaces: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
_functions: dict[int, tuple[Any, DeviceFunction]] = {}


class DeviceFunction:
    """A `@triton.jit` function rewritten for the interpreter; `fn` is plain Python."""

    def __init__(self, jitted: Any) -> None:
        self._jitted = jitted
        self._rewritten: Callable[..., Any] | None = None

    @property
    def fn(self) -> Callable[..., Any]:
        """The rewritten function, made when it is first needed."""
        if self._rewritten is None:
            self._rewritten = _rewrite(self._jitted.fn)
        return self._rewritten

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("_semantic", None)
        kwargs.pop("_generator", None)
        return self.fn(*args, **kwargs)


def device_function(jitted: Any) -> DeviceFunction:
    """The one `DeviceFunction` of a `JITFunction`; kept by identity, since hashing one reads its globals."""
    if id(jitted) not in _functions:
        _functions[id(jitted)] = (jitted, DeviceFunction(jitted))
    return _functions[id(jitted)][1]


def bound(member: Callable[..., Any]) -> Callable[..., Any]:
    """A builtin of the language with the interpreter as its `_semantic`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["_semantic"] = semantic
        return member(*args, **kwargs)

    return call


def interpreted(member: Any) -> Any:
    """What stands for a name of a Triton module during a launch; the same object where nothing changes."""
    if isinstance(member, _jit_function):
        return device_function(member)
    return bound(member) if tl.core.is_builtin(member) else member


def typed_range(first: Any, second: Any = None, step: Any = 1, **_: Any) -> Iterator[Any]:
    """`range` and `tl.range`: the loop variable is an integer tensor, as in a compiled kernel."""
    start, stop = (0, first) if second is None else (first, second)
    bounds = [semantic.to_tensor(bound) for bound in (start, stop, step)]
    dtype: Any = tl.int64 if any(bound.dtype == tl.int64 for bound in bounds) else tl.int32
    width: Any = np.int64 if dtype == tl.int64 else np.int32
    for value in range(*(int(bound.handle.data.item()) for bound in bounds)):
        yield tl.tensor(numbers.TensorHandle(np.array([value], dtype=width), dtype), dtype)


def to_tensor(value: Any) -> Any:
    """What an assignment does in a kernel: numbers become scalar tensors, in tuples too."""
    if type(value) is tuple:
        return tuple(to_tensor(part) for part in cast("tuple[Any, ...]", value))
    return semantic.to_tensor(value, False)


def condition(value: Any) -> Any:
    """What `if`, `while` and `… if … else …` ask: a block has no truth, and does not compile either."""
    if isinstance(value, tl.tensor) and value.type.is_block() and value.handle.data.size != 1:
        raise ValueError(f"a condition must be a scalar, not a block of shape {value.handle.data.shape}")
    return value


class _Meaning(ast.NodeTransformer):
    """`x = value`  ->  `x = _to_tensor(value)`;  `if test:`  ->  `if _condition(test):`, `while` likewise."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        self.generic_visit(node)
        node.value = _call("_to_tensor", node.value)
        return node

    def visit_If(self, node: ast.If) -> ast.If:
        self.generic_visit(node)
        node.test = _call("_condition", node.test)
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.test = _call("_condition", node.test)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.IfExp:
        self.generic_visit(node)
        node.test = _call("_condition", node.test)
        return node


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=[argument], keywords=[])


def _rewrite(function: Any) -> Callable[..., Any]:
    lines, start = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"{function.__name__} is not defined by a def statement")
    definition.decorator_list = []
    for statement in definition.body:
        _Meaning().visit(statement)
    ast.fix_missing_locations(tree)
    ast.increment_lineno(tree, start - 1)
    made: dict[str, Any] = {}
    exec(compile(tree, inspect.getfile(function), "exec"), _namespace(function.__globals__), made)
    return made[definition.name]


def _minimum(left: Any, right: Any) -> Any:
    return tl.minimum(left, right)


def _maximum(left: Any, right: Any) -> Any:
    return tl.maximum(left, right)


def _namespace(module: dict[str, Any]) -> dict[str, Any]:
    """A private copy of a module's globals in which every JIT function is its rewritten self."""
    if id(module) not in _namespaces:
        copy = {name: interpreted(value) for name, value in module.items()}
        copy |= {"_to_tensor": to_tensor, "_condition": condition}
        copy.setdefault("range", typed_range)
        copy.setdefault("min", _minimum)
        copy.setdefault("max", _maximum)
        _namespaces[id(module)] = (module, copy)
    return _namespaces[id(module)][1]
