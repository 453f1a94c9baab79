"""Compiling hand-written kernels ahead of time, without a GPU, and reading their machine code."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from triton import knobs
from triton_kernels import ALIGNED, attention, own_triton_cache, pointer, small

from attnlang.runtime import triton_aot, triton_home
from attnlang.runtime.triton_aot import AotKernel, aot_compile
from attnlang.runtime.triton_errors import TritonCompileError, TritonMissing
from attnlang.runtime.triton_loops import Instruction, innermost_loops, sass_instructions

pytestmark = pytest.mark.usefixtures(own_triton_cache.__name__)


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_attention_compiles_for_every_target(target: str) -> None:
    source = attention("bf16", rows=64, columns=64, depth=64, group=1)
    kernel = aot_compile(source, target, divisible_by_16=ALIGNED)
    assert kernel.problems() == []
    assert kernel.warps == 4 and kernel.ctas_per_sm >= 1
    assert 32 < kernel.registers <= 512
    assert 0 < kernel.shared_bytes <= kernel.shared_limit_bytes
    assert (kernel.spill_stores_bytes, kernel.hot_loop_spills) == (0, 0)
    assert (kernel.wgmma_count > 0) == (target == "cuda:90")
    assert (kernel.mma_count > 0) == (target != "cuda:90")
    assert (
        kernel.cubin.startswith(b"\x7fELF")
        and "attention_forward" in kernel.ptx
        and "tt.func" in kernel.ttgir
    )


def test_float32_compiles_in_small_tiles() -> None:
    kernel = aot_compile(attention("fp32", rows=32, columns=16, group=1), "cuda:90", divisible_by_16=ALIGNED)
    assert kernel.problems() == [] and kernel.wgmma_count == 0


def test_spills_in_a_hot_loop_and_lost_wgmma_are_found() -> None:
    source = attention("bf16", rows=128, columns=64, depth=64, group=1, warps=2)
    kernel = aot_compile(source, "cuda:90", divisible_by_16=ALIGNED)
    assert kernel.hot_loop_spills > 100 and kernel.spill_stores_bytes > 1000 and kernel.stack_bytes > 500
    problems = " ".join(kernel.problems())
    assert "innermost loops spill" in problems and "multiple of 4 warps" in problems


def test_every_problem_has_its_sentence() -> None:
    good = AotKernel("k", "cuda:90", "", b"", "", 100, 0, 0, 0, 1000, 2000, 4, 8, 0, False, 0, 2)
    assert good.problems() == []
    assert "cannot be launched" in replace(good, shared_bytes=3000).problems()[0]
    assert "serialized" in replace(good, wgmma_serialized=True).problems()[0]
    dot = "%3 = tt.dot %1, %2, %0 : tensor<{}x16xbf16, #a> * tensor<16x8xbf16, #b> -> tensor<64x8xf32, #c>"
    assert "wgmma" in replace(good, wgmma_count=0, ttgir=dot.format(64)).problems()[0]
    assert replace(good, wgmma_count=0, ttgir=dot.format(32)).problems() == []


def test_aot_refuses_unknown_targets() -> None:
    with pytest.raises(TritonCompileError, match="no such target, only cuda:80"):
        aot_compile(attention("bf16"), "cuda:9000")


def test_innermost_loops() -> None:
    def step(target: int | None = None, falls: bool = True) -> Instruction:
        return Instruction("X", target, falls)

    nested = [step(), step(), step(), step(2), step(1), step(falls=False), step(6, falls=False)]
    assert [len(loop) for loop in innermost_loops(nested)] == [2]
    outlined = [step(4), step(), step(0), step(falls=False), step(), step(1, falls=False)]
    assert [len(loop) for loop in innermost_loops(outlined)] == [5]
    assert innermost_loops([step(), step(falls=False)]) == [] == innermost_loops([])
    sass = "/*0000*/ MOV R1, R2 ; /* 0x0 */\n/*0010*/ @!P0 BRA 0x0 ;\n"
    sass += "/*0020*/ HGMMA.64x128x16.F32 R4, gdesc[UR4] ;\n/*0030*/ EXIT ;\n"
    code = sass_instructions(sass)
    assert [instruction.target for instruction in code] == [None, 0, None, None]
    assert [instruction.falls for instruction in code] == [True, True, True, False]


def test_the_compiler_divides_as_we_say() -> None:
    for expression, answer in (
        ("y // 2", -4),
        ("y % 2", -1),
        ("C // 2", -5),
        ("tl.full([4], C, tl.int32) // 2", -4),
    ):
        body = f"y = C\ntl.store(o_ptr + tl.arange(0, 4), {expression})"
        compiled = aot_compile(small(body, pointer("o_ptr", "i32"), C=-9), "cuda:80")
        assert f"arith.constant dense<{answer}>" in compiled.ttgir, expression


def test_without_ptxas(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.knobs import NvidiaTool

    triton_aot.tool.cache_clear()
    monkeypatch.setattr(NvidiaTool, "from_path", staticmethod(lambda path: None))
    with pytest.raises(TritonMissing, match="the CUDA tool ptxas"):
        aot_compile(small("tl.store(o_ptr, 12.0)", pointer("o_ptr")), "cuda:90")


def test_an_unwritable_cache_folder_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    triton_home.ensure_cache.cache_clear()
    source = small("tl.store(o_ptr, 13.0)", pointer("o_ptr"))
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path / "file" / "cache")
        with pytest.warns(RuntimeWarning, match=r"cannot be written.*TRITON_CACHE_DIR"):
            assert aot_compile(source, "cuda:80").registers > 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert aot_compile(source, "cuda:90").registers > 0
    triton_home.ensure_cache.cache_clear()
