"""Kernel IR → self-contained C++ for one instruction set."""

from __future__ import annotations

from attnlang.artifact import Argument, KernelSource
from attnlang.ir.kernel import Kernel, names

from .banner import banner
from .cpp_helpers import helpers
from .cpp_isa import ISAS
from .cpp_layout import Layout
from .cpp_page import Page
from .cpp_passes import Printer
from .cpp_points import Scene
from .cpp_products import columns_text, rows_text
from .cpp_words import spelled
from .ops import CPP_NUMBERS, CPP_STORED
from .printer import Lines


def print_cpp(kernel: Kernel, isa: str) -> KernelSource:
    """The complete source of a kernel for `isa` ("avx512bf16", "avx512", "avx2", "portable").

    It defines NAME(arguments, first, last, memory), which runs programs first … last − 1, and NAME_scratch(), the
    bytes of memory that one thread needs for it.
    """
    arguments = [
        argument
        for pointer in kernel.pointers
        for argument in (
            Argument(pointer.name, "pointer", pointer.type),
            *(Argument(stride, "scalar", "i64") for stride in pointer.strides),
        )
    ]
    arguments += [Argument(scalar.name, "scalar", scalar.type) for scalar in kernel.scalars]
    layout = Layout(kernel, ISAS[isa])
    known = names(layout.body) | {argument.name for argument in arguments} | {kernel.program}
    words = spelled(known)
    shown = words.get(kernel.program, kernel.program)
    lines = Lines("  ")
    lines.depth = 1
    page = Page(layout, lines, set(known) | set(words.values()))
    printer = Printer(page)
    lengths = {dim: str(size) for dim, size in layout.sizes.items()}
    scene = Scene(layout.lane, lengths, layout.sizes, words)
    with lines.block("for (int64_t number = first; number < last; ++number) {"):
        lines.add(f"const int32_t {shown} = (int32_t)number;")
        printer.body(layout.body, scene)
    lines.add("}")
    head = Lines("  ")
    entry = f'extern "C" void {kernel.name}(const void* const* arguments, int64_t first, int64_t last, void* memory) {{'
    with head.block(entry):
        written = {pointer.name for pointer in kernel.pointers if pointer.written}
        for number, argument in enumerate(arguments):
            head.add(_argument(argument, number, words, argument.name in written))
        head.add("char* const scratch = (char*)memory;")
        if page.zeros:
            head.add("alignas(64) static const char zeros[4096] = {};")
    tiles = [rows_text(shape) for shape in printer.products.rows] + [
        columns_text(shape) for shape in printer.products.columns
    ]
    tiles += printer.products.few.texts()
    body = head.text() + lines.text() + "}\n"
    rest = "\n".join([*tiles, body])
    top = "\n".join(banner(kernel.banner, "//"))
    visible = '__attribute__((visibility("default")))'
    size = f'extern "C" {visible} int64_t {kernel.name}_scratch() {{ return {page.memory.most}; }}\n'
    rest = rest.replace('extern "C" void', f'extern "C" {visible} void')
    text = "\n".join([top, helpers(rest, layout.isa, layout.lanes), rest, size])
    constants = tuple((f"BLOCK_{dim}", length) for dim, length in kernel.dims)
    return KernelSource("cpp", kernel.name, text, tuple(arguments), constants, kernel.warps, kernel.stages)


def _argument(argument: Argument, number: int, words: dict[str, str], written: bool) -> str:
    name = words.get(argument.name, argument.name)
    if argument.kind == "pointer":
        stored = f"{'' if written else 'const '}{CPP_STORED[argument.dtype]}*"
        return f"{stored} const {name} = ({stored})arguments[{number}];"
    kind = "uint8_t" if argument.dtype == "i1" else CPP_NUMBERS[argument.dtype]
    return f"const {CPP_NUMBERS[argument.dtype]} {name} = *(const {kind}*)arguments[{number}];"
