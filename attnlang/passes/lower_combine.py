"""The kernel that puts the shares of split keys together: softmaxes over parts of a row become the one over all."""

from __future__ import annotations

from attnlang.ir import kernel as ir
from attnlang.ir.kernel import Const, Type, Var
from attnlang.ir.plan import Specialization
from attnlang.passes.lower_expr import padded
from attnlang.passes.typed import binary, cast, elementwise

ROWS = 16
MINUS_INFINITY = float("-inf")


def lower_combine(name: str, banner: tuple[str, ...], specialization: Specialization) -> ir.Kernel:
    """Reads `part` [B, H, splits, NQ, DV] and `part_lse` [B, H, splits, NQ], contiguous, float32; writes `out`
    [B, H, NQ, DV] and, where asked for, `lse` [B, H, NQ] float32.

    out = Σ part · w / Σ w and lse = m + log Σ w, with w = exp(part_lse − m) and m the largest part_lse of the row.
    """
    width = specialization.value_dim
    i64: Type = "i64"
    rows, features = ir.Lanes("M"), ir.Lanes("E")
    queries, splits = Var("NQ", "i32"), Var("splits", "i32")
    tiles, tile, pair = Var("tiles", "i32"), Var("tile", "i32"), Var("pair", "i32")
    row, first = Var("row", "i32", ("M",)), Var("row_first", "i32")
    exists = binary("lt", binary("add", first, rows), queries)
    m, total = Var("m", "fp32", ("M",)), Var("total", "fp32", ("M",))
    acc, share = Var("acc", "fp32", ("M", "E")), Var("s", "i32")
    part_base, shift = Var("part_base", i64), Var("shift", "fp32", ("M",))
    m_new, decay, p = (Var(label, "fp32", ("M",)) for label in ("m_new", "decay", "p"))
    whole = binary("lt", features, Const(width, "i32")) if padded(width) != width else None

    def last_row() -> ir.Expr:
        return binary("sub", queries, Const(1, "i32"))

    before = binary(
        "mul",
        binary("add", binary("mul", cast(pair, i64), cast(splits, i64)), cast(share, i64)),
        cast(queries, i64),
    )
    lse = ir.Load("part_lse", part_base, row, "fp32", ("M",))
    values = ir.Load(
        "part", binary("mul", part_base, Const(width, i64)),
        binary("add", binary("mul", row, Const(width, "i32")), features), "fp32", ("M", "E"), whole,
    )  # fmt: skip
    kept = elementwise(
        "where", [binary("eq", m_new, Const(MINUS_INFINITY, "fp32")), Const(0.0, "fp32"), m_new], "fp32"
    )
    heads = Var("H", "i32")
    b, h = binary("floordiv", pair, heads), binary("mod", pair, heads)
    empty = binary("eq", total, Const(0.0, "fp32"))
    divisor = Var("divisor", "fp32", ("M",))

    def place(result: str, count: int, spread: bool) -> tuple[ir.Expr, ir.Expr]:
        strides = [Var(f"{result}_stride_{i}", i64) for i in range(count)]
        base = binary("add", binary("mul", cast(b, i64), strides[0]), binary("mul", cast(h, i64), strides[1]))
        along = cast(strides[2], i64) if count > 2 else Const(1, i64)
        offset = binary("mul", cast(row, i64), along)
        return base, binary("add", offset, cast(features, i64)) if spread else offset

    stored = exists if whole is None else binary("and", exists, whole)
    out_base, out_offset = place("out", 3, spread=True)
    weighted = binary("mul", p, Var("values", "fp32", ("M", "E")))
    result = cast(elementwise("div", [acc, divisor], "fp32"), specialization.dtype)
    body: list[ir.Statement] = [
        ir.Remark("this program's head and rows"),
        ir.Assign("tiles", binary("floordiv", binary("add", queries, Const(ROWS - 1, "i32")), Const(ROWS, "i32"))),
        ir.Assign("tile", binary("mod", Var("program", "i32"), tiles)),
        ir.Assign("pair", binary("floordiv", Var("program", "i32"), tiles)),
        ir.Assign("row_first", binary("mul", tile, Const(ROWS, "i32"))),
        ir.Assign("row", binary("min", binary("add", first, rows), last_row())),
        ir.Assign("m", ir.Full(MINUS_INFINITY, "fp32", ("M",))),
        ir.Assign("total", ir.Full(0.0, "fp32", ("M",))),
        ir.Assign("acc", ir.Full(0.0, "fp32", ("M", "E"))),
        ir.Remark("each share counts with the sum of its weights"),
        ir.Loop("s", Const(0, "i32"), splits, (
            ir.Assign("part_base", before),
            ir.Assign("log", lse),
            ir.Assign("m_new", binary("max", m, Var("log", "fp32", ("M",)))),
            ir.Assign("shift", kept),
            ir.Assign("p", elementwise("exp", [binary("sub", Var("log", "fp32", ("M",)), shift)], "fp32")),
            ir.Assign("decay", elementwise("exp", [binary("sub", m, shift)], "fp32")),
            ir.Assign("total", binary("add", binary("mul", total, decay), p)),
            ir.Assign("values", values),
            ir.Assign("acc", binary("add", binary("mul", acc, decay), weighted)),
            ir.Assign("m", m_new),
        )),
        ir.Remark("divide by the sum and store; a row that saw nothing gives 0 and -inf"),
        ir.Assign("divisor", elementwise("where", [empty, Const(1.0, "fp32"), total], "fp32")),
        ir.Store("out", out_base, out_offset, result, stored),
    ]  # fmt: skip
    results = [
        ir.Pointer("out", specialization.dtype, tuple(f"out_stride_{i}" for i in range(3)), written=True)
    ]
    if specialization.lse:
        base, offset = place("lse", 2, spread=False)
        body.append(
            ir.Store("lse", base, offset, binary("add", m, elementwise("log", [divisor], "fp32")), exists)
        )
        results.append(ir.Pointer("lse", "fp32", tuple(f"lse_stride_{i}" for i in range(2)), written=True))
    pointers = (ir.Pointer("part", "fp32", ()), ir.Pointer("part_lse", "fp32", ()), *results)
    scalars = tuple(ir.Scalar(label, "i32") for label in ("H", "NQ", "splits"))
    dims = (("E", padded(width)), ("M", ROWS))
    return ir.Kernel(name, banner, pointers, scalars, dims, "program", tuple(body), 4, 2)
