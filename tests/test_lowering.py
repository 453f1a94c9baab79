"""Lowering: kernels are checked, work stands outside the loops where it can, and calls share programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from attnlang import Pattern, load, parse
from attnlang import execute_programs as programs
from attnlang.artifact import Program
from attnlang.ir.kernel import (
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Full,
    Kernel,
    Lanes,
    Load,
    Loop,
    Op,
    Pointer,
    Scalar,
    Statement,
    Store,
    Type,
    Var,
    children,
    walk,
)  # fmt: skip
from attnlang.ir.plan import Specialization
from attnlang.passes.verify_kernel import KernelError, verify_kernel
from tests.catalogue import EXAMPLES
from tests.definitions import DEFINITIONS
from tests.kernel_calls import inputs

COMPILED = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")


def kernel_of(pattern: Pattern, target: str = "cuda:90", dtype: Type = "bf16", **facts: Any) -> Kernel:
    """The kernel of the first attention, for 64 features."""
    statics = {name: facts.pop(name, parameter.default) for name, parameter in pattern.params.items()}
    shaping = tuple((n, v) for n, v in statics.items() if n in _shaping(pattern) and v is not None)
    special = Specialization(target, dtype, 64, 64, shaping, **facts)
    return programs.plan_for(pattern.ir, special, 128).branches[0].kernel


def _shaping(pattern: Pattern) -> tuple[str, ...]:
    from attnlang.passes.specialize import static_parameters

    return static_parameters(pattern.ir)


def example(name: str) -> Kernel:
    """The kernel of an example, on a grid of 16 where it has one."""
    sizes: dict[str, Any] = {
        "height": 16,
        "width": 16,
        "frames": 4,
        "tokens": 16,
        "length": 64,
        "channels": 4,
    }
    given = {key: size for key, size in sizes.items() if key in DEFINITIONS[name].params}
    return kernel_of(load(EXAMPLES / f"{name}.attn"), **given)


def parts(statements: tuple[Statement, ...]) -> Iterator[Expr]:
    """Every expression below these statements."""

    def below(expr: Expr) -> Iterator[Expr]:
        yield expr
        for child in children(expr):
            yield from below(child)

    for statement in walk(statements):
        match statement:
            case Assign(_, value):
                yield from below(value)
            case Store(_, base, offset, value, _):
                for part in (base, offset, value):
                    yield from below(part)
            case _:
                pass


def loops_of(kernel: Kernel) -> list[Loop]:
    """The loops over keys."""
    return [statement for statement in kernel.body if isinstance(statement, Loop)]


# ------------------------------------------------------------------------------------------------ verification

ROW = ("M",)
X = Var("x", "fp32", ROW)
ZEROS = Assign("x", Full(0.0, "fp32", ROW))
TILE, OTHER = Full(0.0, "bf16", ("M", "D")), Full(0.0, "bf16", ("N", "D"))
BASE, OFFSET = Const(0, "i64"), Lanes("M")

BROKEN: dict[str, tuple[Statement, ...]] = {
    "reads y": (Assign("z", Var("y", "fp32")),),
    "reads x as": (ZEROS, Assign("z", Var("x", "bf16", ROW))),
    "x was": (ZEROS, Assign("x", Const(0.0, "fp32"))),
    "reads inside": (
        Loop("t", Const(0, "i32"), Const(4, "i32"), (Assign("inside", Const(1, "i32")),)),
        Assign("z", Var("inside", "i32")),
    ),
    "reads t": (Loop("t", Const(0, "i32"), Const(4, "i32"), ()), Assign("z", Var("t", "i32"))),
    "dimension of unknown length": (Assign("z", Full(0.0, "fp32", ("P",))),),
    "add of shapes": (ZEROS, Assign("z", Op("add", (X, Lanes("N", "i32")), "fp32", ROW))),
    "loads nothing": (Assign("z", Load("nothing", BASE, OFFSET, "fp32", ROW)),),
    "loads source at offsets": (Assign("z", Load("source", BASE, OFFSET, "fp32", ())),),
    "stores to nothing": (ZEROS, Store("nothing", BASE, OFFSET, X)),
    "stores a value over": (Store("out", BASE, OFFSET, Const(0.0, "fp32")),),
    "dot of": (Assign("z", Dot(TILE, Full(0.0, "fp32", ("N", "D")), "D", "fp32", ("M", "N"))),),
    "over N": (Assign("z", Dot(TILE, OTHER, "N", "fp32", ("M", "D"))),),
    "('M', 'D') bf16 and ('N', 'D') bf16 over D": (
        Assign("z", Dot(TILE, OTHER, "D", "fp32", ("M", "N"), Full(0.0, "fp32", ROW))),
    ),
    "folds": (Assign("z", Fold("sum", TILE, "D", "bf16", ("D",))),),
}  # fmt: skip


def small(*body: Statement) -> Kernel:
    """A kernel of these statements."""
    pointers = (Pointer("source", "fp32", ("source_stride_0",)), Pointer("out", "fp32", (), written=True))
    return Kernel(
        "small", (), pointers, (Scalar("NQ", "i32"),), (("M", 16), ("N", 16), ("D", 16)), "program", body
    )


@pytest.mark.parametrize("said", BROKEN)
def test_broken_kernels_are_caught(said: str) -> None:
    with pytest.raises(KernelError) as caught:
        verify_kernel(small(*BROKEN[said]), "some_pass")
    assert str(caught.value).startswith("after some_pass, in small: ") and said in str(caught.value)


def test_whole_kernels_pass() -> None:
    product = Dot(TILE, OTHER, "D", "fp32", ("M", "N"))
    verify_kernel(small(ZEROS, Assign("z", product), Store("out", BASE, OFFSET, X)), "some_pass")


@pytest.mark.parametrize("name", COMPILED)
def test_lowered_kernels_pass_and_damaged_ones_do_not(name: str) -> None:
    """Leaving out any statement that later ones need is noticed."""
    kernel = example(name)
    verify_kernel(kernel, "lowering")
    assigned = [i for i, statement in enumerate(kernel.body) if isinstance(statement, Assign)]
    for position in assigned[::4]:
        damaged = replace(kernel, body=kernel.body[:position] + kernel.body[position + 1 :])
        with pytest.raises(KernelError):
            verify_kernel(damaged, "damage")


# ---------------------------------------------------------------------------------------------------- hoisting


def count(kernel: Kernel, op: str) -> tuple[int, int]:
    """How often an operation stands outside and inside the loop over partial tiles."""
    inside = sum(isinstance(part, Op) and part.op == op for part in parts(loops_of(kernel)[-1].body))
    outer = tuple(statement for statement in kernel.body if not isinstance(statement, Loop))
    return sum(isinstance(part, Op) and part.op == op for part in parts(outer)), inside


def test_what_depends_on_the_head_alone_is_computed_once() -> None:
    text = "pattern one():\n    tensor t[h]\n    score Q[q] @ K[k] * scale + sin(t[h]) * (q - k)\n"
    assert count(kernel_of(parse(text)), "sin") == (1, 0)


def test_what_depends_on_the_row_alone_stands_before_the_loop() -> None:
    text = "pattern one():\n    tensor t[b, h, q]\n    score Q[q] @ K[k] * (scale * sin(t[b, h, q]))\n"
    kernel = kernel_of(parse(text))
    assert count(kernel, "sin") == (1, 0)
    sine = next(p for p in parts(kernel.body) if isinstance(p, Op) and p.op == "sin")
    assert sine.shape == ("M",)


def test_what_depends_on_the_column_alone_is_computed_for_columns() -> None:
    text = "pattern one():\n    tensor t[b, h, k]\n    score Q[q] @ K[k] * scale + sin(t[b, h, k])\n"
    kernel = kernel_of(parse(text))
    assert count(kernel, "sin") == (0, 1)
    sine = next(p for p in parts(kernel.body) if isinstance(p, Op) and p.op == "sin")
    assert sine.shape == ("N",)


def test_the_predicate_falls_apart_into_rows_and_columns() -> None:
    text = "pattern one():\n    mask q // 7 + h == k // 7 and (q * q) mod 5 < 3\n"
    kernel = kernel_of(parse(text))
    inside = [part for part in parts(loops_of(kernel)[-1].body) if isinstance(part, Op)]
    assert not [part for part in inside if part.op in ("floordiv", "mod") and part.shape == ("M", "N")]
    assert not [part for part in inside if part.op == "mod"]


@pytest.mark.parametrize("name", ("causal", "sliding_window", "alibi", "softcap", "streaming"))
def test_loops_hold_what_they_must(name: str) -> None:
    """In the loop over full tiles: two dots, a load for each operand, and no mask."""
    kernel = kernel_of(load(EXAMPLES / f"{name}.attn"))
    full, partial = loops_of(kernel)
    for loop in (full, partial):
        found = list(parts(loop.body))
        assert sum(isinstance(part, Dot) for part in found) == 2
        assert sorted(part.pointer for part in found if isinstance(part, Load)) == ["K", "V"]
        assert sum(isinstance(part, Fold) for part in found) == 2
    compared = [p for p in parts(full.body) if isinstance(p, Op) and p.op in ("lt", "le", "gt", "ge")]
    assert not [part for part in compared if part.shape == ("M", "N")]
    assert any(isinstance(p, Op) and p.op in ("lt", "le", "gt", "ge") for p in parts(partial.body))
    assert not any(isinstance(part, Load) and part.mask is not None for part in parts(full.body))


def test_one_factor_for_scale_and_base() -> None:
    """scale · log2 e is one number, multiplied once for each pair."""
    kernel = kernel_of(load(EXAMPLES / "full.attn"))
    for loop in loops_of(kernel):
        products = [
            p for p in parts(loop.body) if isinstance(p, Op) and p.op == "mul" and p.shape == ("M", "N")
        ]
        assert len(products) == 1


@pytest.mark.parametrize("name", COMPILED)
def test_dots_take_their_accumulator_as_it_lies(name: str) -> None:
    """A dot adds to a tile of its own shape, computed in fp32: Triton loses tensor cores on a transposed one."""
    kernel = example(name)
    dots = [part for loop in loops_of(kernel) for part in parts(loop.body) if isinstance(part, Dot)]
    assert dots
    for dot in dots:
        assert dot.left.shape[0] == "M" and dot.left.shape[1] == dot.over
        if dot.accumulator is not None:
            assert dot.accumulator.shape == dot.shape == ("M", dot.right.shape[-1])
            assert dot.accumulator.type == "fp32" and dot.right.shape[0] == dot.over


# ------------------------------------------------------------------------------------------------ recompilation


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Program]]:
    """Every program that is made from here on, with a memory of its own."""
    made: list[Program] = []
    build = programs.program_for
    seen: set[int] = set()

    def counted(pattern: Any, specialization: Specialization, rows_limit: int) -> Program:
        program = build(pattern, specialization, rows_limit)
        if id(program) not in seen:
            seen.add(id(program))
            made.append(program)
        return program

    monkeypatch.setattr("attnlang.execute.program_for", counted)
    yield made


def test_lengths_do_not_recompile(built: list[Program]) -> None:
    """20 lengths are at most as many programs as there are classes of query counts."""
    causal = load(EXAMPLES / "causal.attn")
    for length in range(1, 80, 4):
        causal(*inputs(length, length), target="interpret")
    assert len(built) == 4
    for length in range(65, 85):
        causal(*inputs(length, length + 3), target="interpret")
        causal(*inputs(66, length), target="interpret", q_offset=3)
    assert len(built) == 4


def test_parameters_do_not_recompile(built: list[Program]) -> None:
    window, softcap = load(EXAMPLES / "sliding_window.attn"), load(EXAMPLES / "softcap.attn")
    q, k, v = inputs(33, 40)
    for size in (1, 2, 3, 8, 16, 33, 64, 100, 4096, 2**20):
        window(q, k, v, window=size, target="interpret")
    assert len(built) == 1
    for cap in (1.0, 2.5, 10.0, 50.0, 1000.0):
        softcap(q, k, v, cap=cap, scale=1 / cap, target="interpret")
    assert len(built) == 2


def test_batch_heads_and_layout_do_not_recompile(built: list[Program]) -> None:
    causal = load(EXAMPLES / "causal.attn")
    for B, H, HK in ((1, 1, 1), (2, 4, 2), (3, 2, 1)):
        q, k, v = inputs(40, 40, B=B, H=H, HK=HK)
        causal(q, k, v, target="interpret")
        causal(*(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)), target="interpret")
    assert len(built) == 1


def test_what_shapes_the_code_recompiles(built: list[Program]) -> None:
    causal = load(EXAMPLES / "causal.attn")
    q, k, v = inputs(40, 40)
    causal(q, k, v, target="interpret")
    causal(q.bfloat16(), k.bfloat16(), v.bfloat16(), target="interpret")
    causal(*inputs(40, 40, D=32), target="interpret")
    causal(*inputs(40, 40, DV=32), target="interpret")
    causal(q, k, v, target="interpret", return_lse=True)
    causal(q, k, v, target="interpret", q_offset=-1)
    assert len(built) == 6
    assert len({launch.source.text for program in built for launch in program.launches}) >= 5


def test_gradients_pass_through_the_kernel() -> None:
    """Until kernels have a backward pass of their own, gradients are those of dense PyTorch."""
    alibi = load(EXAMPLES / "alibi.attn")
    q, k, v = (tensor.requires_grad_() for tensor in inputs(20, 30, H=2))
    slopes = torch.tensor([0.5, 0.1], requires_grad=True)
    leaves = (q, k, v, slopes)
    found = torch.autograd.grad(alibi(q, k, v, slopes=slopes, target="interpret").square().sum(), leaves)
    wanted = torch.autograd.grad(alibi(q, k, v, slopes=slopes, target="eager").square().sum(), leaves)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
