"""`python -m attnlang.demo`: one pattern from its text to a kernel, its result, its plan and its picture.

It compiles examples/sliding_window.attn for a GPU that need not be there, runs it on this machine, compares with the
definition, and leaves source, PTX, cubin, plan and picture in ./demo.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

import attnlang
from attnlang import compiler
from attnlang.settings import options
from attnlang.show import draw_mask

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sliding_window.attn"
OUTPUT = Path("demo")
TARGET = "cuda:90"
HEADS, LENGTH, HEAD_DIM, WINDOW = 16, 4096, 64, 1024
SMALL_LENGTH, SMALL_WINDOW = 256, 64
PICTURE_LENGTH, PICTURE_WINDOW, TILE = 512, 160, 64
MOST_CALLS, BUDGET_SECONDS = 5, 10.0
MARGIN = 4.0


class Demo:
    """The steps, each with a heading; `agrees` turns false where a result is not what the pattern means."""

    def __init__(self, console: Console, pattern: attnlang.Pattern, output: Path) -> None:
        self.console = console
        self.pattern = pattern
        self.output = output
        self.agrees = True

    def heading(self, text: str) -> None:
        """A line across the page."""
        self.console.print()
        self.console.print(Rule(Text(text, style="bold"), align="left"))

    def show(self, text: str) -> None:
        """Text as it is, indented."""
        self.console.print(Padding(Text(text), (0, 0, 0, 2), expand=False))

    def write(self, name: str, content: str | bytes) -> None:
        """A file of the demo, and a line that says so."""
        path = self.output / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.show(f"{path}  {path.stat().st_size:,} bytes")

    def source(self) -> None:
        """The pattern."""
        self.heading(f"The pattern: {_short(EXAMPLE)}")
        text = EXAMPLE.read_text(encoding="utf-8").rstrip()
        coloured = Syntax(text, "python", theme="ansi_light", background_color="default")
        self.console.print(Padding(coloured, (0, 0, 0, 2), expand=False))

    def compile(self) -> None:
        """Ahead of time, for a GPU that need not be here."""
        self.heading(f"Compiled for {TARGET}, bf16, head size {HEAD_DIM}, no GPU needed")
        start = time.perf_counter()
        with self.console.status(f"compiling for {TARGET}"):
            compiled = self.pattern.compile(target=TARGET, head_dim=HEAD_DIM, dtype="bf16", window=WINDOW)
        seconds = time.perf_counter() - start
        table = Table.grid(padding=(0, 3))
        for kernel in compiled.kernels:
            table.add_row("registers", f"{kernel.registers} per thread")
            table.add_row(
                "spills", f"{kernel.spill_stores_bytes} bytes stored, {kernel.spill_loads_bytes} loaded"
            )
            table.add_row("shared memory", f"{kernel.shared_bytes:,} of {kernel.shared_limit_bytes:,} bytes")
            table.add_row("matrix instructions", f"{kernel.wgmma_count} wgmma, {kernel.mma_count} mma")
            table.add_row("programs", f"{kernel.warps} warps each, {kernel.ctas_per_sm} at once on an SM")
        table.add_row("compiled in", f"{seconds:.1f} s")
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))
        for problem in compiled.problems():
            self.show(f"warning: {problem}")
        place = f"{self.pattern.name}.{TARGET.replace(':', '-')}"
        self.write(f"{place}.py", compiled.source)
        self.write(f"{place}.ptx", compiled.ptx)
        self.write(f"{place}.cubin", compiled.cubin)

    def plan(self) -> None:
        """How it would run, and why."""
        self.heading(f"The plan: {HEADS} heads × {LENGTH} tokens × {HEAD_DIM}, bf16, on {TARGET}")
        report = self.pattern.plan(
            LENGTH, LENGTH, heads=HEADS, head_dim=HEAD_DIM, dtype="bf16", target=TARGET, window=WINDOW
        )
        self.show(str(report))
        self.write(f"{self.pattern.name}.plan.txt", f"{report}\n")

    def run_here(self) -> None:
        """On the device of this machine, at full size."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        target = compiler.runnable_target(device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        how = "dense PyTorch: there is no GPU and no C++ compiler" if target == "eager" else "its kernel"
        self.heading(f"Run here: {HEADS} heads × {LENGTH} tokens × {HEAD_DIM} on {target} ({how})")
        self.compare(target, HEADS, LENGTH, WINDOW, dtype, device)

    def interpret(self) -> None:
        """The generated kernel itself, without a GPU; the interpreter is slow, so the size is small."""
        size = f"1 head × {SMALL_LENGTH} tokens × {HEAD_DIM}"
        self.heading(f"The generated Triton, without a GPU: under its interpreter, so {size}")
        self.compare("interpret", 1, SMALL_LENGTH, SMALL_WINDOW, torch.bfloat16, torch.device("cpu"))

    def compare(
        self, target: str, heads: int, length: int, window: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Random inputs on a target: the largest difference from the definition, and the time of a call."""
        make = torch.Generator().manual_seed(0)
        shape = (1, heads, length, HEAD_DIM)
        q, k, v = (torch.randn(shape, generator=make).to(device, dtype) for _ in range(3))
        times: list[float] = []

        def once() -> torch.Tensor:
            start = time.perf_counter()
            result = self.pattern(q, k, v, target=target, window=window)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            return result

        with self.console.status(f"running on {target}"), torch.no_grad():
            out = once()
            while len(times) <= MOST_CALLS and sum(times) < BUDGET_SECONDS:
                out = once()
        with self.console.status("evaluating the definition in float64"), torch.no_grad():
            reference = self.pattern.reference(q, k, v, window=window)
            error = float((out.double() - reference).abs().max())
            allowed = MARGIN * torch.finfo(dtype).eps * float(reference.abs().max())
        kind = str(dtype).removeprefix("torch.")
        verdict = "agrees with its definition" if error <= allowed else "DISAGREES with its definition"
        self.agrees &= error <= allowed
        self.show(f"{kind}, window {window}: {verdict}")
        self.show(f"largest difference {error:.2e}, where rounding explains up to {allowed:.2e}")
        first, *others = (1e3 * seconds for seconds in times)
        if others:
            self.show(
                f"{median(others):,.1f} ms, median of {len(others)}; the first call took {first:,.1f} ms"
            )
        else:
            self.show(f"{first:,.1f} ms")

    def picture(self) -> None:
        """Who sees whom."""
        self.heading(f"The picture: {PICTURE_LENGTH} tokens, window {PICTURE_WINDOW}")
        path = self.output / f"{self.pattern.name}.png"
        mask = self.pattern.mask(PICTURE_LENGTH, PICTURE_LENGTH, window=PICTURE_WINDOW)
        title = f"{self.pattern.name}(window={PICTURE_WINDOW})"
        counts = draw_mask(mask[0], path, title=title, tile=TILE)
        self.show(f"{counts[0]} tiles of {TILE} × {TILE}: only the first two kinds are computed")
        self.show(f"{path}  {path.stat().st_size:,} bytes")


def _short(path: Path) -> str:
    """The path from here, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def main() -> int:
    """The whole demonstration; 1 where a result is not what the pattern means, or a step is not possible."""
    console = Console(
        no_color=not options().color,
        highlight=False,
        width=None if sys.stdout.isatty() else 110,
        soft_wrap=False,
    )
    try:
        demo = Demo(console, attnlang.load(EXAMPLE), OUTPUT)
        OUTPUT.mkdir(exist_ok=True)
        for step in (demo.source, demo.compile, demo.plan, demo.run_here, demo.interpret, demo.picture):
            step()
    except attnlang.AttnlangError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{OUTPUT}/ cannot be written: {error}", file=sys.stderr)
        return 1
    console.print()
    return 0 if demo.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
