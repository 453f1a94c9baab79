"""Small C++ kernels written by hand, in the form in which the runtime takes them."""

from __future__ import annotations

from collections.abc import Sequence
from shutil import which

import pytest

from attnlang.artifact import Argument, KernelSource
from attnlang.runtime.cpp_compiler import NAMES


def pointer(name: str, dtype: str = "fp32") -> Argument:
    return Argument(name, "pointer", dtype)


def scalar(name: str, dtype: str = "i64") -> Argument:
    return Argument(name, "scalar", dtype)


def kernel(name: str, arguments: Sequence[Argument], body: str, scratch: int = 0) -> KernelSource:
    """A kernel whose `body` runs one program: `program` is its number, `arguments` and `scratch` its surroundings."""
    text = f"""#include <stdint.h>

extern "C" int64_t {name}_scratch() {{ return {scratch}; }}

extern "C" void {name}(const void* const* arguments, int64_t first, int64_t last, void* scratch) {{
    for (int64_t program = first; program < last; ++program) {{
        {body}
    }}
}}
"""
    return KernelSource("cpp", name, text, tuple(arguments), (), 1, 1)


SUM_ROWS = kernel(
    "sum_rows",
    (pointer("x"), pointer("out"), scalar("width", "i32")),
    """
        typedef float lanes __attribute__((vector_size(64), aligned(4)));
        const int32_t width = *(const int32_t*)arguments[2];
        const float* const row = (const float*)arguments[0] + program * width;
        lanes partial = {};
        int32_t at = 0;
        for (; at + 16 <= width; at += 16) partial += *(const lanes*)(row + at);
        float total = 0;
        for (int lane = 0; lane < 16; ++lane) total += partial[lane];
        for (; at < width; ++at) total += row[at];
        ((float*)arguments[1])[program] = total;
    """,
)

COPY_THROUGH_SCRATCH = kernel(
    "copy_through_scratch",
    (scalar("length"), pointer("x"), pointer("out")),
    """
        typedef float lanes __attribute__((vector_size(64)));
        const int64_t length = *(const int64_t*)arguments[0], from = program * 100;
        const int64_t many = length - from < 100 ? length - from : 100;
        lanes* const block = (lanes*)scratch;
        for (int at = 0; at < 8; ++at) block[at] = lanes{};
        for (int64_t at = 0; at < many; ++at) ((float*)scratch)[at] = ((const float*)arguments[1])[from + at];
        for (int64_t at = 0; at < many; ++at) ((float*)arguments[2])[from + at] = ((float*)scratch)[at];
    """,
    scratch=512,
)

COUNT = kernel(
    "count",
    (pointer("out", "i64"),),
    "__atomic_fetch_add((int64_t*)arguments[0] + program, 1, __ATOMIC_RELAXED);",
)
"""How often each program ran."""

SPIN = kernel(
    "spin",
    (pointer("out", "fp64"), scalar("rounds")),
    """
        double value = double(program);
        for (int64_t round = *(const int64_t*)arguments[1]; round > 0; --round) value = value * 0.999999 + 1.0;
        ((double*)arguments[0])[program] = value;
    """,
)
"""Work of any length: `rounds` dependent operations for each program."""

needs_compiler = pytest.mark.skipif(not any(map(which, NAMES)), reason="no C++ compiler here")
