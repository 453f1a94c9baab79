"""What kernels of a pattern are called with: its tensors and tables with their element types, its numbers."""

from __future__ import annotations

from attnlang.ir.kernel import Type
from attnlang.ir.pattern import HK, NK, NQ, B, DType, Expr, H, Let, Literal, Pattern, Tensor, TensorAxis
from attnlang.ir.plan import Specialization
from attnlang.passes.lower_attention import Arguments

_STORED: dict[DType, Type] = {"float": "fp32", "int": "i32", "bool": "i1"}


def kernel_arguments(pattern: Pattern, tables: tuple[Let, ...], specialization: Specialization) -> Arguments:
    """Of a specialized pattern; `tables` are evaluated before the kernels and handed over as tensors."""
    types = dict(specialization.tensors)
    stored: dict[DType, Type] = {**_STORED, "int": "i64" if specialization.long else "i32"}

    def main(name: str, heads: Expr, length: Expr, features: int) -> tuple[Type, tuple[TensorAxis, ...]]:
        sizes = (B, heads, length, Literal(features))
        return types.get(name, specialization.dtype), tuple(TensorAxis("", size) for size in sizes)

    tensors: dict[str, tuple[Type, tuple[TensorAxis, ...]]] = {
        "Q": main("Q", H, NQ, specialization.head_dim),
        "K": main("K", HK, NK, specialization.head_dim),
        "V": main("V", HK, NK, specialization.value_dim),
    }
    for tensor in pattern.tensors:
        tensors[tensor.name] = (types.get(tensor.name, _default(tensor, specialization)), tensor.axes)
    for table in tables:
        tensors[table.name] = (stored[table.dtype], tuple(TensorAxis(a.name, a.size) for a in table.axes))
    scalars: dict[str, Type] = {"q_offset": "i32", "scale": "fp32"}
    scalars |= {size.name: "i32" for size in (B, H, HK, NQ, NK)}
    statics = dict(specialization.statics)
    scalars |= {p.name: stored[p.dtype] for p in pattern.parameters if p.name not in statics}
    return Arguments(tensors, scalars)


def _default(tensor: Tensor, specialization: Specialization) -> Type:
    return specialization.dtype if tensor.dtype == "float" else "i32" if tensor.dtype == "int" else "i1"
