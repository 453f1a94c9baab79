"""The Triton runtime: loading, interpreting, compiling ahead of time and launching hand-written kernels."""

import math
import pickle
import sys
from dataclasses import replace
from threading import Thread
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnlang.artifact import Argument

pytest.importorskip("triton")

import triton.language as tl
from triton.runtime import driver
from triton_kernels import PretendDriver, attention, interpret, one_thread, own_triton_cache, pointer, small

from attnlang.errors import AttnlangError
from attnlang.runtime import triton_launch
from attnlang.runtime.arguments import TORCH_DTYPES, LaunchError
from attnlang.runtime.triton_aot import aot_compile
from attnlang.runtime.triton_errors import TritonCompileError, TritonMissing
from attnlang.runtime.triton_launch import launch
from attnlang.runtime.triton_load import load
from attnlang.runtime.triton_lock import SharedLock

pytestmark = pytest.mark.usefixtures(one_thread.__name__, own_triton_cache.__name__)


def elementwise(expression: str, x: torch.Tensor, output: str = "fp32", **constants: int) -> torch.Tensor:
    """`expression` of the loaded block `x`, calculated by the interpreter."""
    names = {dtype: name for name, dtype in TORCH_DTYPES.items()}
    body = f"at = tl.arange(0, {x.numel()})\nx = tl.load(x_ptr + at)\ntl.store(o_ptr + at, {expression})"
    out = torch.empty(x.shape, dtype=TORCH_DTYPES[output])
    interpret(
        small(body, pointer("x_ptr", names[x.dtype]), pointer("o_ptr", output), **constants),
        x_ptr=x,
        o_ptr=out,
    )
    return out


# --- the interpreter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(77, 101), (50, 17), (1, 64)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 3e-6), ("fp16", 2e-3), ("bf16", 2e-2)])
def test_attention_agrees_with_float64(
    dtype: str, tolerance: float, queries: int, keys: int, causal: bool
) -> None:
    heads, group, depth = 2, 2, 32
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    sizes = [(heads, queries), (heads // group, keys), (heads // group, keys)]
    q, k, v = (torch.randn(*s, depth, generator=generator).to(TORCH_DTYPES[dtype]) for s in sizes)
    keep = torch.rand(keys, generator=generator) > 0.2
    keep[:3] = False
    o, lse = torch.full_like(q, math.nan), torch.full((heads, queries), math.nan)
    steps: list[tuple[int, int]] = []
    arguments = {"q_ptr": q, "k_ptr": k, "v_ptr": v, "keep_ptr": keep, "o_ptr": o, "lse_ptr": lse}
    numbers = {"scale": math.log2(math.e) / math.sqrt(depth), "nq": queries, "nk": keys}
    strides = {"q_head": queries * depth, "k_head": keys * depth}
    grid = (-(-queries // 32), heads, 1)
    source = attention(dtype, group=group, causal=causal)
    launch(
        source, grid, {**arguments, **numbers, **strides}, interpret=True,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    visible = keep.expand(queries, keys)
    if causal:
        visible = visible & (torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries)
    k, v = (tensor.double().repeat_interleave(group, 0) for tensor in (k, v))
    scores = (q.double() @ k.transpose(1, 2) / math.sqrt(depth)).masked_fill(~visible, -math.inf)
    expected = torch.softmax(scores, -1).nan_to_num() @ v
    torch.testing.assert_close(o.double(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(lse.double(), torch.logsumexp(scores, -1), atol=1e-5, rtol=0)
    assert steps == [(i + 1, math.prod(grid)) for i in range(math.prod(grid))]


MATH = {
    "tl.exp(x)": torch.exp, "tl.exp2(x)": torch.exp2, "tl.log(x)": torch.log, "tl.log2(x)": torch.log2,
    "tl.sqrt(x)": torch.sqrt, "tl.rsqrt(x)": torch.rsqrt, "tl.sin(x)": torch.sin, "tl.cos(x)": torch.cos,
    "tl.erf(x)": torch.erf, "tl.floor(x - 2)": lambda x: torch.floor(x - 2),
    "tl.ceil(x - 2)": lambda x: torch.ceil(x - 2), "tl.abs(x - 1)": lambda x: torch.abs(x - 1),
    "tl.sigmoid(x)": torch.sigmoid, "tl.math.fma(x, x, 1.0)": lambda x: x * x + 1, "-x": torch.neg,
    "1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)": torch.tanh, "tl.where(x > 1, x, 0.0)": lambda x: x * (x > 1),
    "tl.maximum(x, 1.0)": lambda x: x.clamp(min=1), "tl.minimum(x, 1.0)": lambda x: x.clamp(max=1),
    "tl.clamp(x, 0.5, 1.0)": lambda x: x.clamp(0.5, 1), "tl.cumsum(x, 0)": lambda x: x.cumsum(0),
    "x - tl.max(x, 0) + tl.min(x, 0)": lambda x: x - x.max() + x.min(),
    "x / tl.sum(x, 0)": lambda x: x / x.sum(), "tl.softmax(x)": lambda x: torch.softmax(x, 0),
    "tl.sort(x)": lambda x: x.sort().values,
}  # fmt: skip


@pytest.mark.parametrize("expression", MATH)
def test_mathematics(expression: str) -> None:
    x = torch.rand(16, generator=torch.Generator().manual_seed(3)) * 4 + 0.1
    torch.testing.assert_close(elementwise(expression, x), MATH[expression](x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "expression", ["x + 1", "x * x", "x - 0.3", "x / 3", "tl.abs(x)", "tl.maximum(x, 1.0)", "-x"]
)
def test_bfloat16_arithmetic_rounds_to_nearest_even(expression: str) -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(4)).bfloat16()
    scope = {"x": x.float(), "tl": SimpleNamespace(abs=torch.abs, maximum=lambda a, b: a.clamp(min=b))}
    wanted = eval(expression.replace("0.3", "0.30078125"), scope).bfloat16()
    assert torch.equal(elementwise(expression, x, "bf16"), wanted)


def test_float32_to_bfloat16_is_what_torch_does() -> None:
    bits = torch.randint(-(2**31), 2**31, (4096,), generator=torch.Generator().manual_seed(5)).to(torch.int32)
    special = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 3.4e38, 1e-40, 1.00390625])
    x = torch.cat([bits.view(torch.float32)[: 4096 - 8], special])
    ours, theirs = elementwise("x.to(tl.bfloat16)", x, "bf16"), x.bfloat16()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(elementwise("x.to(tl.float32)", theirs)[~x.isnan()], theirs.float()[~x.isnan()])


@pytest.mark.parametrize("reduction", ["sum", "max", "min"])
def test_bfloat16_reductions(reduction: str) -> None:
    x = torch.randn(32, generator=torch.Generator().manual_seed(6)).bfloat16()
    got = elementwise(f"x * 0.0 + tl.{reduction}(x, 0)", x)[0]
    torch.testing.assert_close(got, getattr(x.float(), reduction)(), atol=2e-2, rtol=0)


def test_nan_loses_in_maximum_and_reduction() -> None:
    x = torch.tensor([1.0, math.nan, 3.0, -1.0])
    assert elementwise("tl.maximum(x, 0.5)", x).tolist() == [1.0, 0.5, 3.0, 0.5]
    assert elementwise("tl.max(x, 0) + tl.min(x, 0) + x * 0", x).tolist()[0] == 2.0


# What compiled kernels answer: integers are divided towards zero, but what the compiler itself calculates
# from compile-time parameters is Python's.
INTEGERS = {
    "x // 2": -4,
    "x % 2": -1,
    "x // -2": 4,
    "x % -2": -1,
    "y // 2": -4,
    "y % 2": -1,
    "C // 2": -5,
    "C % 2": 1,
    "x >> 1": -5,
    "tl.cdiv(y, 2)": -4,
    "(x / 2).to(tl.int32)": -4,
    "tl.abs(y)": 9,
    "min(y, 2)": -9,
    "max(y, 2)": 2,
    "tl.minimum(y, n)": -9,
    "y // n": -3,
    "n * 2000000000 // 2": 852516352,
    "((n > 0) + (n > 1)).to(tl.int32)": 0,
    "tl.full([4], 3e9, tl.float32).to(tl.int32)": 2147483647,
    "tl.sum(x < 0)": 4,
    "(t[1] + 4) // 2": -2,
    "tl.full([4], float('nan'), tl.float32).to(tl.int32)": 0,
    "tl.full([4], -1e30, tl.float32).to(tl.int32)": -2147483648,
    "5 if y < 0 and n > 0 else 7": 5,
    "7 if not y < 0 or n > 5 else 3": 3,
    "(y.to(tl.int64) // 2).to(tl.int32)": -4,
    "z": -3,
}


@pytest.mark.parametrize("expression", INTEGERS)
def test_integers_mean_what_they_mean_compiled(expression: str) -> None:
    body = (
        "x = tl.full([4], C, tl.int32)\ny = C\nt = n, C\nz = 0\nfor i in range(-7, n - 9):\n    z = i // 2\n"
    )
    body += f"tl.store(o_ptr + tl.arange(0, 4), {expression})"
    out = torch.zeros(4, dtype=torch.int32)
    source = small(body, pointer("o_ptr", "i32"), Argument("n", "scalar", "i32"), C=-9)
    interpret(source, o_ptr=out, n=3)
    assert out.tolist() == [INTEGERS[expression]] * 4


def test_loops_with_runtime_bounds() -> None:
    body = """
total = start * 0
for i in range(start, stop, step):
    total += i
while total > limit:
    total = total // 2
if total % 2 == 0:
    total += 1
else:
    total -= 1
tl.store(o_ptr, total)"""
    scalars = [Argument(name, "scalar", "i64") for name in ("start", "stop", "step", "limit")]
    out = torch.zeros(1, dtype=torch.int64)
    for start, stop, step, limit in (
        (0, 10, 1, 100),
        (-5, 2**33, 2**31, 10**9),
        (3, 3, 1, 5),
        (0, 100, 7, 50),
    ):
        interpret(
            small(body, pointer("o_ptr", "i64"), *scalars),
            o_ptr=out,
            start=start,
            stop=stop,
            step=step,
            limit=limit,
        )
        total = sum(range(start, stop, step))
        while total > limit:
            total = total // 2
        assert out.item() == (total + 1 if total % 2 == 0 else total - 1)


def test_scalars_have_their_declared_type() -> None:
    body = "at = tl.arange(0, 4)\ntl.store(o_ptr + at, tl.load(x_ptr + at) * s)\n"
    body += "if flag:\n    tl.store(n_ptr, n * 4)"
    x, out, big = torch.full((4,), 0.1).half(), torch.zeros(4), torch.zeros(1, dtype=torch.int64)
    arguments = (
        pointer("x_ptr", "fp16"),
        pointer("o_ptr"),
        pointer("n_ptr", "i64"),
        Argument("s", "scalar", "fp32"),
    )
    source = small(body, *arguments, Argument("n", "scalar", "i64"), Argument("flag", "scalar", "i1"))
    interpret(source, x_ptr=x, o_ptr=out, n_ptr=big, s=0.1, n=2**31, flag=False)
    assert torch.equal(out, x.float() * torch.tensor(0.1)) and big.item() == 0
    interpret(source, x_ptr=x, o_ptr=out, n_ptr=big, s=0.1, n=2**31, flag=True)
    assert big.item() == 2**33


@pytest.mark.parametrize("dtype", ["i1", "u8", "i8", "i32", "i64", "fp16", "bf16", "fp32", "fp64"])
def test_every_dtype_is_loaded_and_stored(dtype: str) -> None:
    x = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]).to(TORCH_DTYPES[dtype])
    body = "at = tl.arange(0, 8)\nok = at < 6\nx = tl.load(x_ptr + at, mask=ok, other=0)\n"
    body += "tl.store(o_ptr + at, x, mask=ok)\ntl.store(f_ptr + at, tl.where(x, 2.0, 3.0))"
    if dtype != "i1":
        body = body.replace("tl.where(x,", "tl.where(x != 0,")
    source = small(body, pointer("x_ptr", dtype), pointer("o_ptr", dtype), pointer("f_ptr"))
    out, chosen = torch.ones_like(x), torch.zeros(8)
    interpret(source, x_ptr=x, o_ptr=out, f_ptr=chosen)
    assert out.float().tolist() == [0, 1, 1, 0, 1, 0, 1, 1]
    assert chosen.tolist() == [3, 2, 2, 3, 2, 3, 3, 3]
    assert aot_compile(source, "cuda:80").registers > 0


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "i32", "i1", "u8"])
def test_masked_elements_without_a_value_are_poisoned(dtype: str) -> None:
    body = (
        "at = tl.arange(0, 4)\nx = tl.load(x_ptr + at, mask=at < 2{})\ntl.store(f_ptr + at, x.to(tl.float32))"
    )
    x = torch.ones(4).to(TORCH_DTYPES[dtype])
    wanted = {"i32": -(2.0**31), "i1": 1.0, "u8": 255.0}.get(dtype, math.nan)
    for other, rest in (("", wanted), (", other=0", 0.0)):
        out = torch.full((4,), 9.0)
        interpret(small(body.format(other), pointer("x_ptr", dtype), pointer("f_ptr")), x_ptr=x, f_ptr=out)
        torch.testing.assert_close(out, torch.tensor([1.0, 1.0, rest, rest]), equal_nan=True)
    scalar = "tl.store(f_ptr, tl.load(x_ptr, mask=False, other=0).to(tl.float32))"
    interpret(small(scalar, pointer("x_ptr", dtype), pointer("f_ptr")), x_ptr=x, f_ptr=out)
    assert out[0] == 0


def test_strided_views_and_random_numbers() -> None:
    base = torch.arange(64.0).reshape(8, 8)
    view = base[1:5, 2:6].t()
    body = "i = tl.arange(0, 4)\nx = tl.load(x_ptr + i[:, None] * a + i[None, :] * b)\n"
    body += "tl.store(o_ptr + i[:, None] * 4 + i[None, :], x + 0.0 * tl.rand(7, i)[:, None])"
    strides = [Argument("a", "scalar", "i64"), Argument("b", "scalar", "i64")]
    out = torch.empty(4, 4)
    source = small(body, pointer("x_ptr"), pointer("o_ptr"), *strides)
    interpret(source, x_ptr=view, o_ptr=out, a=view.stride(0), b=view.stride(1))
    assert torch.equal(out, view)


# --- what goes wrong ---------------------------------------------------------------------------------------


def test_memory_outside_of_the_arguments_is_an_error() -> None:
    x, out = torch.zeros(8)[:4], torch.zeros(8)
    for body in ("tl.store(o_ptr, tl.load(x_ptr + 4))", "tl.store(o_ptr - 1, 0.0)"):
        with pytest.raises(TritonCompileError, match="outside of every argument") as caught:
            interpret(small(body, pointer("x_ptr"), pointer("o_ptr")), x_ptr=x, o_ptr=out)
        assert caught.value.source_line == body


@pytest.mark.parametrize("target", ["interpret", "cuda:90"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tl.store(o_ptr, tl.dot(x, x))", "K >= 16"),
        ("tl.store(o_ptr, tl.exp(x.to(tl.float16)))", "Expected dtype"),
        ("tl.store(o_ptr, nothing)", "nothing"),
        ("y = x + tl.zeros([4, 8], tl.float32)", "Cannot make_shape_compatible"),
        ("tl.static_assert(False, 'no')", ""),
    ],
)
def test_a_kernel_that_cannot_work_says_where(line: str, said: str, target: str) -> None:
    source = small(f"x = tl.zeros([4, 4], tl.float32)\n{line}", pointer("o_ptr"))
    with pytest.raises(TritonCompileError, match="kernel") as caught:
        if target == "interpret":
            interpret(source, o_ptr=torch.zeros(1))
        else:
            aot_compile(source, target)
    error = caught.value
    assert isinstance(error, AttnlangError)
    assert (error.kernel, error.target, error.source_line) == ("kernel", target, line)
    assert said in error.line and "\n" not in error.line and ".py" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_block_has_no_truth() -> None:
    with pytest.raises(TritonCompileError, match="condition must be a scalar"):
        interpret(
            small("if tl.arange(0, 4) > 1:\n    tl.store(o_ptr, 1.0)", pointer("o_ptr")), o_ptr=torch.zeros(1)
        )


def test_texts_that_do_not_fit_their_description() -> None:
    good = small("tl.store(o_ptr, 1.0)", pointer("o_ptr"))
    assert load(good) is load(replace(good))
    for bad, said in (
        (replace(good, name="other"), "defines no such"),
        (replace(good, arguments=(pointer("p_ptr"),)), "its description says"),
        (replace(good, constants=(("C", 1),)), "its description says"),
        (replace(good, text="def kernel(:"), "invalid syntax"),
        (replace(good, text="1 / 0"), "ZeroDivisionError"),
        (replace(good, language="cpp"), "its language is cpp"),
    ):
        with pytest.raises(TritonCompileError, match=said):
            load(bad)
    with pytest.raises(ValueError, match="unknown dtype"):
        Argument("x", "scalar", "fp8")


def test_arguments_are_checked_before_the_launch() -> None:
    source = small("tl.store(o_ptr, n)", pointer("o_ptr"), Argument("n", "scalar", "i32"))
    out = torch.zeros(1)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"o_ptr": None, "n": 1}, "must be a tensor of torch.float32, not NoneType"),
        ({"o_ptr": out.double(), "n": 1}, "not torch.float64"),
        ({"o_ptr": out}, "but is missing"),
        ({"o_ptr": out, "n": 2**31}, "of type i32, not 2147483648"),
        ({"o_ptr": out, "n": 1.0}, "of type i32, not 1.0"),
        ({"o_ptr": out, "n": 1, "m": 2}, "no argument called m"),
        ({"o_ptr": out.to("meta"), "n": 1}, "CPU tensors"),
    )
    for arguments, said in cases:
        with pytest.raises(LaunchError, match=said):
            launch(source, (1, 1, 1), arguments, interpret=True)
    with pytest.raises(LaunchError, match="one CUDA device, they are on cpu"):
        launch(source, (1, 1, 1), {"o_ptr": out, "n": 1}, interpret=False)
    launch(source, (0, 1, 1), {"o_ptr": out, "n": 1}, interpret=False)


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    source = small("tl.store(o_ptr, 12.0)", pointer("o_ptr"))
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TritonMissing, match=r'pip install .* target="eager"'):
        load(source)


# --- nothing is left behind, nothing is shared -------------------------------------------------------------


def snapshot() -> list[dict[str, Any]]:
    owners: list[Any] = [tl, tl.core, tl.math, tl.standard, tl.random, tl.tensor, tl.dtype]
    return [dict(vars(owner)) for owner in owners]


def test_the_language_is_restored_after_success_and_failure() -> None:
    before = snapshot()
    elementwise("tl.softmax(x) + tl.sum(x, 0)", torch.ones(4))
    with pytest.raises(TritonCompileError):
        elementwise("tl.load(x_ptr + 100)", torch.ones(4))
    after = snapshot()
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(old[name] is new[name] for name in old)


def test_compiling_and_interpreting_in_many_threads() -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                c = 100 * number + turn
                source = small(
                    "at = tl.arange(0, 16)\ntl.store(o_ptr + at, tl.sum(at, 0) + C)", pointer("o_ptr"), C=c
                )
                if number % 2:
                    assert aot_compile(source, "cuda:80").registers > 0
                else:
                    out = torch.zeros(16)
                    interpret(source, o_ptr=out)
                    assert out.tolist() == [120 + c] * 16
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_lock_lets_readers_in_together_and_writers_alone() -> None:
    lock = SharedLock()
    seen: list[str] = []

    def write() -> None:
        with lock.exclusive():
            seen.append("writer")

    def read_twice() -> None:
        with lock.shared(), lock.shared():
            writer.start()
            while not lock.has_waiting_writer():
                sleep(0.001)
            with lock.shared():  # who is inside may enter again although a writer waits
                seen.append("reader")

    writer, reader = Thread(target=write, daemon=True), Thread(target=read_twice, daemon=True)
    reader.start()
    reader.join(5)
    writer.join(5)
    assert seen == ["reader", "writer"]


# --- the JIT launch, with everything but the GPU -----------------------------------------------------------


def test_jit_launch_is_strictly_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "tl.store(o_ptr + n, s)\ntl.store(b_ptr, tl.load(b_ptr) & (m > 0))"
    arguments = (pointer("o_ptr", "bf16"), pointer("b_ptr", "i1"), Argument("n", "scalar", "i64"))
    source = small(body, *arguments, Argument("m", "scalar", "i32"), Argument("s", "scalar", "fp32"), C=3)
    source = replace(source, warps=2)
    pretend = PretendDriver()
    monkeypatch.setattr(triton_launch, "_device", lambda source, arguments: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: SharedLock().shared())
    monkeypatch.setattr(driver, "_active", pretend)
    out, flags = torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.bool)
    for n, m, s in ((1, 1, 1), (3, 5, 0.5), (2**40 + 1, 2**31 - 1, -1.0), (32, 16, 0.0)):
        values = {"o_ptr": out, "b_ptr": flags, "n": n, "m": m, "s": s}
        launch(source, (4, 2, 1), values, interpret=False)
    assert [args[:3] for args in pretend.launches] == [(4, 2, 1)] * 4
    signatures = [tuple(found.signature.values()) for found, _ in pretend.sources]
    expected = ("*bf16", "*i1", "i64", "i32", "fp32", "constexpr")
    assert len(signatures) == 1  # none of its own for the value 1 or for multiples of 16
    assert all(tuple(t.replace("u1", "i1") for t in found) == expected for found in signatures)
    assert {metadata.num_warps for _, metadata in pretend.sources} == {2}


def test_grids_beyond_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "_device", lambda source, arguments: torch.device("cuda", 0))
    source = small("tl.store(o_ptr, 1.0)", pointer("o_ptr"))
    with pytest.raises(LaunchError, match="axis y has 65536 programs"):
        launch(source, (1, 65536, 1), {"o_ptr": torch.zeros(1)}, interpret=False)
