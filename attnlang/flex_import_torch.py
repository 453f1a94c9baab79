"""PyTorch's elementwise functions by name, each as the expression of the language that means it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.errors_flex import CannotTraceTorch
from attnlang.flex_import_make import NUMBERS, Make
from attnlang.flex_import_values import Kind, Number, Value
from attnlang.flex_import_whole import bits, complement, is_bits, remainder_of_truncated, shifted, truncated

FILES_OF_THE_TRACER.add(__file__)


MOST_ELEMENTS = 64
"""Numbers that `isin` is written out for."""


def _divided(x: Any, y: Any) -> Any:
    return x / y


def _floored(x: Any, y: Any) -> Any:
    return x // y


def _raised(x: Any, y: Any) -> Any:
    return x**y


def _both(x: Any, y: Any) -> Any:
    return x and y


def _either(x: Any, y: Any) -> Any:
    return x or y


_INFIX: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "add": ("+", operator.add), "sub": ("-", operator.sub), "mul": ("*", operator.mul),
    "div": ("/", _divided), "floor_divide": ("//", _floored), "remainder": ("mod", operator.mod),
    "pow": ("**", _raised),
}  # fmt: skip
_COMPARED: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "lt": ("<", operator.lt), "le": ("<=", operator.le), "gt": (">", operator.gt), "ge": (">=", operator.ge),
    "eq": ("==", operator.eq), "ne": ("!=", operator.ne),
}  # fmt: skip
_OF_ONE = (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "erf",
    "floor", "ceil", "round",
)  # fmt: skip
FUNCTIONS_WRITTEN = (*_OF_ONE, "abs", "sign", "detach", "softplus", "int")
"""What the expressions call."""
_SAME = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "truediv": "div",
    "floordiv": "floor_divide", "mod": "remainder", "negative": "neg", "absolute": "abs", "sgn": "sign",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
    "logical_and": "and", "bitwise_and": "and", "logical_or": "or", "bitwise_or": "or",
    "logical_xor": "xor", "bitwise_xor": "xor", "logical_not": "not", "bitwise_not": "not", "invert": "not",
    "bitwise_left_shift": "lshift", "bitwise_right_shift": "rshift", "ilshift": "lshift", "irshift": "rshift",
    "iand": "and", "ior": "or", "ixor": "xor", "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div",
    "maximum": "max", "minimum": "min", "clip": "clamp", "float_power": "pow", "special_expit": "sigmoid",
    "type": "to", "type_as": "to", "detach_": "detach",
}  # fmt: skip
_CASTS: dict[str, Kind] = {
    "float": "float", "double": "float", "half": "float", "bfloat16": "float", "int": "int", "long": "int",
    "short": "int", "bool": "bool",
}  # fmt: skip
_BEFOREHAND = {
    "bucketize", "searchsorted", "cumsum", "cumprod", "sort", "argsort", "topk", "repeat_interleave", "histc", "unique",
    "diff", "nonzero", "stack", "cat", "matmul", "einsum", "outer", "tril", "triu", "roll", "flip",
}  # fmt: skip
"""Functions of whole tensors: what they give for every position can be computed beforehand."""
_PASSED_ON = ("contiguous", "clone", "cpu", "cuda", "squeeze", "positive")


def canonical(name: str) -> str:
    """One name for `__and__`, `logical_and` and `and`."""
    bare = name.strip("_") or name
    return _SAME.get(bare, bare)


def is_known(name: str) -> bool:
    """Whether there is a function or method of this name."""
    found = canonical(name)
    return found in FUNCTIONS or found in _INFIX or found in _COMPARED or found in _CASTS or found in _OF_ONE


def call(name: str, make: Make, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Value:
    """The expression of a function of PyTorch; raises CannotTraceTorch where there is none."""
    found = canonical(name)
    try:
        if found in FUNCTIONS:
            return FUNCTIONS[found](make, *arguments, **keywords)
        if found in _CASTS:
            return make.cast(make.lift(*arguments, **keywords), _CASTS[found])
        if found in _INFIX:
            return _arithmetic(make, found, *arguments, **keywords)
        if found in _COMPARED:
            return _comparison(make, found, *arguments, **keywords)
        if found in _OF_ONE:
            return make.function(found, make.lift(*arguments, **keywords))
    except TypeError as error:
        raise CannotTraceTorch(here(), what=f"'{name}' with these arguments") from error
    if found in _BEFOREHAND:
        hint = "compute it for all positions before, table = … torch.arange(n) …, and read table[q_idx] here"
        raise CannotTraceTorch(here(), hint, what=f"torch's '{name}' of an index")
    raise CannotTraceTorch(here(), what=f"torch's '{name}'")


def _wider(*values: Value) -> Kind:
    return "float" if any(value.kind == "float" for value in values) else "int"


def _arithmetic(make: Make, name: str, input: object, other: object, rounding_mode: object = None) -> Value:
    if name == "div" and rounding_mode == "floor":
        name = "floor_divide"
    elif name == "div" and rounding_mode == "trunc":
        return truncated(make, input, other)
    elif rounding_mode is not None:
        raise CannotTraceTorch(here(), what=f"'{name}' with rounding_mode={rounding_mode!r}")
    x, y = make.lift(input), make.lift(other)
    if x.kind == "bool" and y.kind == "bool" and name in ("mul", "add"):
        return _logical(make, "and" if name == "mul" else "or", x, y)
    x, y = make.numeric(x), make.numeric(y)
    sign, compute = _INFIX[name]
    kind: Kind = "float" if name == "div" else _wider(x, y)
    node = syntax.Binary(sign, x.expr, y.expr, span=here())
    return make.value(node, kind, *make.folded(compute, [x, y]))


def _comparison(make: Make, name: str, input: object, other: object) -> Value:
    x, y = make.lift(input), make.lift(other)
    if x.kind == "bool" and y.kind == "bool" and name in ("eq", "ne"):
        different = _xor(make, x, y)
        return different if name == "ne" else _not(make, different)
    x, y = make.numeric(x), make.numeric(y)
    sign, compute = _COMPARED[name]
    node = syntax.Comparison(x.expr, ((sign, y.expr),), span=here())
    return make.value(node, "bool", *make.folded(compute, [x, y]))


def _logical(make: Make, name: str, input: object, other: object) -> Value:
    """`and`, `or`; true and false that are written out fall away."""
    x, y = make.truth(input), make.truth(other)
    for one, rest in ((x, y), (y, x)):
        if isinstance(one.expr, syntax.Boolean):
            return rest if one.expr.value == (name == "and") else one
    before = x.expr.operands if isinstance(x.expr, syntax.Logical) and x.expr.operator == name else (x.expr,)
    compute = _both if name == "and" else _either
    return make.value(
        syntax.Logical(name, (*before, y.expr), span=here()), "bool", *make.folded(compute, [x, y])
    )


def _and(make: Make, input: object, other: object) -> Value:
    if is_bits(make, input, other):
        return bits(make, input, other)
    return _logical(make, "and", input, other)


def _or(make: Make, input: object, other: object) -> Value:
    return _logical(make, "or", input, other)


def _not(make: Make, input: object) -> Value:
    if is_bits(make, input):
        return complement(make, input)
    x = make.truth(input)
    if isinstance(x.expr, syntax.Boolean):
        return make.lift(not x.expr.value)
    return make.value(syntax.Unary("not", x.expr, span=here()), "bool", *make.folded(operator.not_, [x]))


def _xor(make: Make, input: object, other: object) -> Value:
    x, y = make.truth(input), make.truth(other)
    return _or(make, _and(make, x, _not(make, y)), _and(make, _not(make, x), y))


def _neg(make: Make, input: object) -> Value:
    x = make.numeric(input)
    return make.value(syntax.Unary("-", x.expr, span=here()), x.kind, *make.folded(operator.neg, [x]))


def _keeping_kind(name: str) -> Callable[..., Value]:
    def made(make: Make, input: object) -> Value:
        x = make.numeric(input)
        return make.value(make.called(name, x), x.kind, *make.folded(NUMBERS.get(name), [x]))

    return made


def _extreme(name: str) -> Callable[..., Value]:
    def made(make: Make, input: object, other: object) -> Value:
        x, y = make.numeric(input), make.numeric(other)
        return make.value(make.called(name, x, y), _wider(x, y), *make.folded(NUMBERS[name], [x, y]))

    return made


def _where(make: Make, condition: object, input: object, other: object) -> Value:
    test, x, y = make.truth(condition), make.lift(input), make.lift(other)
    if x.kind == "bool" and y.kind == "bool":
        return _or(make, _and(make, test, x), _and(make, _not(make, test), y))
    x, y = make.numeric(x), make.numeric(y)
    if isinstance(test.expr, syntax.Boolean):
        return x if test.expr.value else y
    return make.value(syntax.Conditional(test.expr, x.expr, y.expr, span=here()), _wider(x, y))


def _masked_fill(make: Make, input: object, mask: object, value: object) -> Value:
    return _where(make, mask, value, input)


def _clamp(make: Make, input: object, min: object = None, max: object = None) -> Value:
    x = make.numeric(input)
    x = x if min is None else _extreme("max")(make, x, min)
    return x if max is None else _extreme("min")(make, x, max)


def _relu(make: Make, input: object, inplace: bool = False) -> Value:
    return _extreme("max")(make, input, 0)


def _softplus(make: Make, input: object, beta: float = 1, threshold: float = 20) -> Value:
    if beta != 1:
        raise CannotTraceTorch(here(), what="softplus with another beta than 1")
    return make.function("softplus", make.lift(input))


def _square(make: Make, input: object) -> Value:
    return _arithmetic(make, "mul", input, input)


def _reciprocal(make: Make, input: object) -> Value:
    return _arithmetic(make, "div", 1, input)


def _kind_of(dtype: torch.dtype) -> Kind:
    return "bool" if dtype == torch.bool else "float" if dtype.is_floating_point else "int"


def _to(make: Make, input: object, *arguments: object, **keywords: object) -> Value:
    for given in (*arguments, *keywords.values()):
        if isinstance(given, torch.dtype):
            return make.cast(make.lift(input), _kind_of(given))
        if isinstance(given, Value):
            return make.cast(make.lift(input), given.kind)
    return make.lift(input)


def _filled(make: Make, input: object, value: Number, dtype: torch.dtype | None) -> Value:
    kind = make.lift(input).kind if dtype is None else _kind_of(dtype)
    return make.lift(bool(value)) if kind == "bool" else make.cast(make.lift(value), kind)


def _ones(make: Make, input: object, size: object = (), *, dtype: Any = None, device: object = None) -> Value:
    return _filled(make, input, 1, dtype)


def _zeros(
    make: Make, input: object, size: object = (), *, dtype: Any = None, device: object = None
) -> Value:
    return _filled(make, input, 0, dtype)


def _new_full(
    make: Make, input: object, size: object, fill_value: Any, *, dtype: Any = None, device: object = None
) -> Value:
    return make.lift(fill_value) if isinstance(fill_value, Value) else _filled(make, input, fill_value, dtype)


def _full_like(
    make: Make, input: object, fill_value: Any, *, dtype: Any = None, device: object = None
) -> Value:
    return _new_full(make, input, (), fill_value, dtype=dtype)


def _isin(make: Make, elements: object, test_elements: object) -> Value:
    """Equal to one of a few numbers."""
    found = make.lift(False)
    tensor = test_elements if isinstance(test_elements, torch.Tensor) else torch.as_tensor(test_elements)
    if tensor.dim() != 1 or len(tensor) > MOST_ELEMENTS:
        raise CannotTraceTorch(
            here(), what=f"torch's 'isin' with other than 1 to {MOST_ELEMENTS} elements in a row"
        )
    for place in range(len(tensor)):
        found = _or(make, found, _comparison(make, "eq", elements, make.read(tensor, (place,))))
    return found


def _take(make: Make, input: Any, index: object) -> Value:
    if input.dim() != 1:
        raise CannotTraceTorch(here(), "write tensor[i, j]", what="a look-up in a tensor of several axes")
    return make.read(input, (index,))


def _gathered(make: Make, input: Any, dim: int, index: object) -> Value:
    return _take(make, input, index)


def _truth(make: Make, input: object) -> Value:
    return make.truth(input)


def _same(make: Make, input: object) -> Value:
    return make.lift(input)


def _shift_left(make: Make, input: object, other: object) -> Value:
    return shifted(make, input, other, "*")


def _shift_right(make: Make, input: object, other: object) -> Value:
    return shifted(make, input, other, "//")


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "and": _and, "or": _or, "not": _not, "xor": _xor, "neg": _neg, "where": _where, "masked_fill": _masked_fill,
    "abs": _keeping_kind("abs"), "sign": _keeping_kind("sign"), "detach": _keeping_kind("detach"),
    "min": _extreme("min"), "max": _extreme("max"), "clamp": _clamp, "clamp_min": _clamp,
    "all": _truth, "any": _truth, "isin": _isin, "take": _take, "gather": _gathered,
    "fmod": remainder_of_truncated, "lshift": _shift_left, "rshift": _shift_right,
    "relu": _relu, "softplus": _softplus, "square": _square, "reciprocal": _reciprocal, "to": _to,
    "ones_like": _ones, "new_ones": _ones, "zeros_like": _zeros, "new_zeros": _zeros, "new_full": _new_full,
    "full_like": _full_like, **dict.fromkeys(_PASSED_ON, _same),
}  # fmt: skip
