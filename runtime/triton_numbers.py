"""Triton's interpreter arithmetic, mended where it differs from what compiled kernels compute.

Upstream keeps bfloat16 as raw 16-bit integers and calculates with those, truncates fp32 to bf16, and lets
NaN win in `tl.maximum` and `tl.minimum`. Here bf16 values are widened to fp32, calculated, and rounded to
nearest even; NaN loses in maximum and minimum, conversions to integers saturate and truth values add
without a carry, as on the hardware. Every access to memory is checked
against the arguments of the launch, so that a wrong offset is an error instead of a stray read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .triton_errors import require

Array = npt.NDArray[Any]
Operation = Callable[..., Any]

tl: Any = require("triton.language")
upstream: Any = require("triton.runtime.interpreter")
TensorHandle: Any = upstream.TensorHandle
InterpreterBuilder: Any = upstream.InterpreterBuilder
TritonSemantic: Any = require("triton.language.semantic").TritonSemantic


def bf16_to_fp32(raw: Array) -> Array:
    """Raw bf16 bits (uint16) as fp32, exactly."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def fp32_to_bf16(values: Array) -> Array:
    """fp32 as raw bf16 bits (uint16), rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(np.shape(values))
    rounded = bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))
    quiet = bits | np.uint32(0x00400000)
    return (np.where(np.isnan(values), quiet, rounded) >> np.uint32(16)).astype(np.uint16)


def widen(handle: Any) -> Any:
    """A bf16 handle as an fp32 one; every other handle unchanged."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return TensorHandle(bf16_to_fp32(handle.data), tl.float32)


def narrow(data: Array, dtype: Any) -> Any:
    """Calculated `data` as a handle of `dtype`: rounded if that is bf16, truth values kept as they are."""
    if dtype.scalar == tl.bfloat16 and data.dtype != np.bool_:
        return TensorHandle(fp32_to_bf16(data.astype(np.float32)), tl.bfloat16)
    return TensorHandle(data, dtype.scalar)


class Memory:
    """The bytes that a launch may touch: one half-open interval of addresses for each tensor argument."""

    def __init__(self, intervals: list[tuple[int, int]]) -> None:
        filled = sorted(interval for interval in intervals if interval[0] < interval[1])
        merged: list[tuple[int, int]] = []
        for start, end in filled:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._starts = np.array([start for start, _ in merged], dtype=np.uint64)
        self._ends = np.array([end for _, end in merged], dtype=np.uint64)

    def check(self, action: str, pointers: Array, mask: Array, width: int) -> None:
        """`IndexError` if an unmasked address, `width` bytes wide, lies outside of every argument."""
        wanted = pointers[np.broadcast_to(mask, pointers.shape)]
        if not wanted.size:
            return
        place = np.searchsorted(self._starts, wanted, side="right") - 1
        inside = (
            (place >= 0) & (wanted + np.uint64(width) <= self._ends[np.maximum(place, 0)])
            if self._starts.size
            else np.zeros(wanted.shape, dtype=bool)
        )
        if not inside.all():
            count = int(wanted.size - np.count_nonzero(inside))
            raise IndexError(f"{action} outside of every argument at {count} of {wanted.size} addresses")


class MendedBuilder(InterpreterBuilder):
    """The interpreter's operations. `memory` holds the arguments of the launch that runs at the moment;
    `undefined` is set while a load has a mask but no value for what is masked."""

    memory: Memory
    undefined: bool

    def __init__(self) -> None:
        InterpreterBuilder.__init__(self)
        self.memory = Memory([])
        self.undefined = False
        self.options: Any = replace(self.options, sanitize_overflow=False)
        self.codegen_fns["min_dot_size"] = _min_dot_size

    def get_bf16(self, value: float) -> Any:
        return narrow(np.array([value], dtype=np.float32), tl.bfloat16)

    def create_masked_load(self, ptrs: Any, mask: Any, other: Any, *rest: Any) -> Any:
        self.memory.check("load", ptrs.data, mask.data, _byte_width(ptrs))
        if self.undefined:
            other = _poison(ptrs)
        return InterpreterBuilder.create_masked_load(self, ptrs, mask, other, *rest)

    def create_masked_store(self, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        self.memory.check("store", ptrs.data, mask.data, _byte_width(ptrs))
        return InterpreterBuilder.create_masked_store(self, ptrs, value, mask, *rest)

    def create_atomic_rmw(self, rmwOp: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any) -> Any:
        self.memory.check("atomic update", ptr.data, mask.data, _byte_width(ptr))
        return InterpreterBuilder.create_atomic_rmw(self, rmwOp, ptr, val, mask, sem, scope)

    def create_atomic_cas(self, ptr: Any, cmp: Any, val: Any, sem: Any, scope: Any) -> Any:
        self.memory.check("atomic update", ptr.data, np.array(True), _byte_width(ptr))
        return InterpreterBuilder.create_atomic_cas(self, ptr, cmp, val, sem, scope)

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        source = widen(src)
        if dst_type.scalar == tl.bfloat16:
            return narrow(source.data.astype(np.float32), dst_type)
        if source.dtype.scalar.is_floating() and dst_type.scalar in (tl.int32, tl.int64):
            return TensorHandle(_saturate(source.data, upstream._get_np_dtype(dst_type)), dst_type.scalar)
        return InterpreterBuilder.cast_impl(self, source, dst_type)

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        nearest = rounding_mode is None or rounding_mode == upstream._ir.ROUNDING_MODE.RTNE
        standard = all(ty.scalar.is_standard_floating() for ty in (src.dtype, dst_type))
        if nearest and standard:
            return self.cast_impl(src, dst_type)
        if dst_type.scalar == tl.bfloat16 and not standard:
            return narrow(InterpreterBuilder.create_fp_to_fp(self, src, tl.float32, None).data, dst_type)
        return InterpreterBuilder.create_fp_to_fp(self, widen(src), dst_type, rounding_mode)

    def binary_op(self, lhs: Any, rhs: Any, op: Operation) -> Any:
        if lhs.dtype.scalar != tl.bfloat16:
            return InterpreterBuilder.binary_op(self, lhs, rhs, op)
        return narrow(op(widen(lhs).data, widen(rhs).data), lhs.dtype)

    def unary_op(self, arg: Any, op: Operation) -> Any:
        return narrow(op(widen(arg).data), arg.dtype)

    def create_splat(self, ret_ty: Any, arg: Any) -> Any:
        """Upstream casts the data to the type of the handle, which for a comparison is that of what was compared."""
        return TensorHandle(np.full(ret_ty.shape, arg.data.item(), dtype=arg.data.dtype), arg.dtype.scalar)

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        return narrow(widen(x).data * widen(y).data + widen(z).data, z.dtype)

    def create_clampf(self, arg: Any, lo: Any, hi: Any, propagate_nans: Any) -> Any:
        return narrow(np.clip(widen(arg).data, widen(lo).data, widen(hi).data), arg.dtype)

    def create_add(self, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.bitwise_xor if _are_truths(lhs, rhs) else np.add)

    def create_sub(self, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.bitwise_xor if _are_truths(lhs, rhs) else np.subtract)

    def create_maxnumf(self, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.fmax)

    def create_minnumf(self, lhs: Any, rhs: Any) -> Any:
        return self.binary_op(lhs, rhs, np.fmin)

    def create_dot(self, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        if any(_is_fp8(operand.dtype) for operand in (a, b)):
            return InterpreterBuilder.create_dot(self, a, b, d, input_precision, max_num_imprecise_acc)
        work = _accumulator(d.data.dtype)
        product = np.matmul(widen(a).data.astype(work), widen(b).data.astype(work))
        return TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)


class MendedSemantic(TritonSemantic):
    """Notes which loads leave their masked elements undefined: those get NaN or the most negative integer
    here, so that a kernel that uses them is found out."""

    def load(self, ptr: Any, mask: Any, other: Any, *rest: Any) -> Any:
        self.builder.undefined = mask is not None and other is None
        try:
            return TritonSemantic.load(self, ptr, mask, other, *rest)
        finally:
            self.builder.undefined = False


def reduce(value: Any, axis: int | None, combine: Any, keep_dims: bool = False, **_: Any) -> Any:
    """`tl.reduce` for the interpreter: bf16 in fp32; NaN loses in maximum and minimum."""
    value, original = _widened(value)
    fast = {id(tl.standard._elementwise_max): np.fmax, id(tl.standard._elementwise_min): np.fmin}
    operation = fast.get(id(combine))
    operations = upstream.ReduceOps(axis, combine, keep_dims)
    if operation is None or isinstance(value, tuple) or value.dtype.is_int():
        return _restored(operations.apply(value), original)
    data = operation.reduce(value.handle.data, axis=axis, keepdims=keep_dims)
    return _restored(operations.to_tensor(data, value.dtype), original)


def scan(value: Any, axis: int, combine: Any, reverse: bool = False, **_: Any) -> Any:
    """`tl.associative_scan` for the interpreter: bf16 in fp32."""
    value, original = _widened(value)
    return _restored(upstream.ScanOps(axis, combine, reverse).apply(value), original)


def _widened(value: Any) -> tuple[Any, tuple[Any, ...]]:
    """The tensors with bf16 as fp32, and the dtypes they had."""
    single = not isinstance(value, tuple)
    parts: tuple[Any, ...] = (value,) if single else tuple(cast("tuple[Any, ...]", value))
    wide = tuple(part.to(tl.float32) if part.dtype == tl.bfloat16 else part for part in parts)
    return (wide[0] if single else wide), tuple(part.dtype for part in parts)


def _restored(result: Any, dtypes: tuple[Any, ...]) -> Any:
    """bf16 again where it was bf16."""

    def back(part: Any, dtype: Any) -> Any:
        return part.to(tl.bfloat16) if dtype == tl.bfloat16 else part

    if not isinstance(result, tuple):
        return back(result, dtypes[0])
    parts = cast("tuple[Any, ...]", result)
    return tuple(back(part, dtype) for part, dtype in zip(parts, dtypes, strict=True))


def _min_dot_size(lhs: Any, rhs: Any) -> tuple[int, int, int]:
    """The same bound as on CUDA, so that a dot that cannot be compiled fails here too."""
    return (1, 1, 32) if lhs.scalar.primitive_bitwidth == 8 else (1, 1, 16)


def _saturate(values: Array, dtype: Any) -> Array:
    """Floats as integers, as GPUs convert them: towards zero, NaN is 0, too large is the largest."""
    bounds = np.iinfo(dtype)
    numbers = np.trunc(np.nan_to_num(values.astype(np.float64), nan=0.0))
    inside = np.clip(numbers, float(bounds.min), np.nextafter(float(bounds.max) + 1.0, 0.0))
    whole = inside.astype(dtype)
    return np.where(numbers >= float(bounds.max) + 1.0, dtype.type(bounds.max), whole)


def _poison(pointers: Any) -> Any:
    """What stands for undefined values: NaN, the most negative integer, the largest unsigned one."""
    dtype = pointers.get_element_ty()
    kind = upstream._get_np_dtype(dtype)
    shape = pointers.data.shape
    if dtype.is_floating():
        nan = np.full(shape, np.nan, dtype=np.float32)
        return narrow(nan, dtype) if dtype == tl.bfloat16 else TensorHandle(nan.astype(kind), dtype)
    if kind == np.bool_:
        return TensorHandle(np.ones(shape, dtype=kind), dtype)
    bounds = np.iinfo(kind)
    return TensorHandle(np.full(shape, bounds.min or bounds.max, dtype=kind), dtype)


def _are_truths(lhs: Any, rhs: Any) -> bool:
    """Both are i1: one bit is added without a carry, as compiled kernels do it."""
    return bool(lhs.data.dtype == np.bool_ and rhs.data.dtype == np.bool_)


def _accumulator(dtype: Any) -> Any:
    return np.float32 if dtype == np.float16 else dtype


def _is_fp8(dtype: Any) -> bool:
    return bool(dtype.scalar.is_fp8())


def _byte_width(pointer: Any) -> int:
    return max(1, int(pointer.get_element_ty().primitive_bitwidth) // 8)
