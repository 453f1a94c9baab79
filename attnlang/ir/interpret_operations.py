"""The operations on scalars, elementwise over tensors; where no gradient arrives, none leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from attnlang.ir.interpret_values import Value, align, all_finite

Elementwise = Callable[..., Tensor]


class _Annihilating(torch.autograd.Function):
    """An elementwise function whose derivative, infinite or NaN as it may be, counts 0 where the incoming
    gradient is 0: entries that are hidden further on have no influence at all."""

    @staticmethod
    def forward(ctx: Any, function: Elementwise, *operands: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*operands)
        return function(*operands)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        needed: Sequence[bool] = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            operands = [
                operand.detach().requires_grad_(need)
                for operand, need in zip(ctx.saved_tensors, needed, strict=True)
            ]
            one = torch.ones((), dtype=gradient.dtype, device=gradient.device)
            hidden = gradient == 0
            result: Tensor = ctx.function(*(torch.where(hidden, one, operand) for operand in operands))
        wanted = [operand for operand in operands if operand.requires_grad]
        found = iter(torch.autograd.grad(result, wanted, gradient))
        return (None, *(next(found) if operand.requires_grad else None for operand in operands))


def annihilating(function: Elementwise, *operands: Tensor) -> Tensor:
    """`function` of the operands (floats of one dtype), with 0 × anything = 0 in its backward pass."""
    return cast(Tensor, cast(Any, _Annihilating).apply(function, *operands))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b


def _root(x: Tensor) -> Tensor:
    """√x with derivative 0 at 0, so that the length of a vector of zeros has gradient 0."""
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), torch.sqrt(x.detach()))


def _float_power(a: Tensor, b: Tensor) -> Tensor:
    """a ** b, with derivative 0 at 0 as well where it is infinite."""
    steep = (a == 0) & (b > 0) & (b < 1)
    return torch.where(steep, 0.0, torch.pow(torch.where(steep, 1.0, a), b))


# Functions whose backward pass multiplies by what may be infinite or NaN.
_STEEP: dict[str, Elementwise] = {
    "exp": torch.exp, "exp2": torch.exp2, "expm1": torch.expm1,
    "log": torch.log, "log2": torch.log2, "log1p": torch.log1p,
    "sqrt": _root, "rsqrt": torch.rsqrt, "sin": torch.sin, "cos": torch.cos,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": _softplus, "erf": torch.erf,
    "atan": torch.atan,
    "mul": _multiply, "div": _divide, "pow": _float_power,
}  # fmt: skip
_STEEP_WHERE_FINITE = frozenset(("pow",))


def _steep(op: str, operands: list[Tensor]) -> Tensor:
    function = _STEEP[op]
    if not (torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)):
        return function(*operands)
    if op not in _STEEP_WHERE_FINITE and all(map(all_finite, operands)):
        result = function(*operands)
        if all_finite(result):
            return result
    return annihilating(function, *operands)


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where((a > b) | a.isnan(), a, b)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where((a < b) | a.isnan(), a, b)


def _no_zero(divisor: Tensor) -> Tensor:
    """Ints divide by 0 only where the result is hidden."""
    return (
        divisor
        if divisor.is_floating_point()
        else torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    )


def _floor_divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, _no_zero(b), rounding_mode="floor")


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    return torch.remainder(a, _no_zero(b))


def _to_int(x: Tensor) -> Tensor:
    return x.nan_to_num(0.0, 0.0, 0.0).to(torch.int64) if x.is_floating_point() else x.to(torch.int64)


# Operations on operands of one kind (after `same kind` below).
_ARITHMETIC: dict[str, Elementwise] = {
    "add": torch.add, "sub": torch.sub, "neg": torch.neg, "abs": torch.abs, "sign": torch.sign,
    "floordiv": _floor_divide, "mod": _modulo, "min": _minimum, "max": _maximum,
}  # fmt: skip
_COMPARISON: dict[str, Elementwise] = {
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
}  # fmt: skip
_ROUNDING: dict[str, Elementwise] = {
    "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "int": torch.trunc,
}  # fmt: skip


def common_float(tensors: Sequence[Tensor], compute: torch.dtype) -> list[Tensor]:
    """All as floats of one dtype: `compute` where one of them has it already, else float64.

    What depends on indices and parameters only is computed in float64, however small `compute` is.
    """
    dtype = compute if any(tensor.dtype == compute for tensor in tensors) else torch.float64
    return [tensor.to(dtype) for tensor in tensors]


def _same_kind(tensors: list[Tensor], compute: torch.dtype) -> list[Tensor]:
    if any(tensor.is_floating_point() for tensor in tensors):
        return common_float(tensors, compute)
    return [tensor.to(torch.int64) for tensor in tensors]


def _truth(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.bool else tensor != 0


def _multiplication(op: str, tensors: list[Tensor], compute: torch.dtype) -> Tensor:
    operands = _same_kind(tensors, compute)
    if operands[0].is_floating_point():
        return _steep(op, operands)
    if op == "mul":
        return operands[0] * operands[1]
    return torch.pow(operands[0], operands[1].clamp(min=0))


def _apply(op: str, tensors: list[Tensor], compute: torch.dtype) -> Tensor:
    if op in ("mul", "pow"):
        return _multiplication(op, tensors, compute)
    if op in _STEEP:
        return _steep(op, common_float(tensors, compute))
    if op in _ARITHMETIC:
        return _ARITHMETIC[op](*_same_kind(tensors, compute))
    if op in _COMPARISON:
        return _COMPARISON[op](*_same_kind(tensors, compute))
    if op in _ROUNDING:
        return _to_int(_ROUNDING[op](tensors[0])) if tensors[0].is_floating_point() else _to_int(tensors[0])
    match op:
        case "and":
            return _truth(tensors[0]) & _truth(tensors[1])
        case "or":
            return _truth(tensors[0]) | _truth(tensors[1])
        case "not":
            return ~_truth(tensors[0])
        case "where":
            branches = tensors[1:]
            if any(branch.dtype != torch.bool for branch in branches):
                branches = _same_kind(branches, compute)
            return torch.where(_truth(tensors[0]), branches[0], branches[1])
        case "float":
            return tensors[0] if tensors[0].is_floating_point() else tensors[0].to(torch.float64)
        case "detach":
            return tensors[0].detach()
        case _:
            raise ValueError(f"unknown operation {op}")


def operate(op: str, operands: Sequence[Value], compute: torch.dtype) -> Value:
    """An operation of `OPERATIONS` over the union of the operands' axes."""
    tensors, axes = align(operands)
    return Value(_apply(op, tensors, compute), axes)
