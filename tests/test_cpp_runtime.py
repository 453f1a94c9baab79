"""Launches of C++ kernels: arguments, tasks, threads, forks and interruptions; kernels are written by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cpp_kernels import COPY_THROUGH_SCRATCH, COUNT, SPIN, SUM_ROWS, kernel, needs_compiler, pointer, scalar

from attnlang.artifact import KernelSource
from attnlang.runtime import cpp_launch, cpp_team
from attnlang.runtime.arguments import LaunchError
from attnlang.runtime.cache import Cache
from attnlang.runtime.cpp_launch import launch, prepare
from attnlang.runtime.cpp_wrapper import slots_of

pytestmark = needs_compiler

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("kernels"), 1 << 30)


def counted(cache: Cache, programs: int, **how: Any) -> list[int]:
    """How often each program ran."""
    out = torch.zeros(programs, dtype=torch.int64)
    launch(COUNT, (programs, 1, 1), {"out": out}, cache, **how)
    return out.tolist()


def in_child(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that runs `text`, with the kernels of these tests at hand."""
    where = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", text, *arguments],
        env=os.environ | {"PYTHONPATH": where, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("width", [1, 15, 16, 17, 100])
def test_rows_are_summed_whatever_their_tail(cache: Cache, width: int) -> None:
    x, out = torch.randn(37, width, dtype=torch.float64).float(), torch.empty(37)
    launch(SUM_ROWS, (37, 1, 1), {"x": x, "out": out, "width": width}, cache)
    torch.testing.assert_close(out, x.sum(1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 1234])
def test_scratch_is_there_and_aligned(cache: Cache, length: int) -> None:
    """The kernel stores vectors of 64 bytes into its scratch with instructions that need the alignment."""
    x, out = torch.randn(length), torch.zeros(length)
    programs = -(-length // 100)
    launch(COPY_THROUGH_SCRATCH, (programs, 1, 1), {"length": length, "x": x, "out": out}, cache, threads=2)
    assert torch.equal(out, x)


def test_every_program_of_the_grid_runs_once(cache: Cache) -> None:
    for programs in (1, 2, 31, 1000, 5000):
        assert counted(cache, programs) == [1] * programs
        assert counted(cache, programs, threads=1) == [1] * programs
    out = torch.zeros(24, dtype=torch.int64)
    launch(COUNT, (2, 3, 4), {"out": out}, cache)
    assert out.tolist() == [1] * 24


def test_a_grid_with_a_zero_does_nothing(cache: Cache) -> None:
    out = torch.zeros(1, dtype=torch.int64)
    launch(COUNT, (0, 1, 1), {"out": out}, cache)
    launch(COUNT, (1, 1, 1), {"out": out}, cache, tasks=torch.empty(0, dtype=torch.int64))
    assert out.tolist() == [0]


SCALARS = {"i1": True, "i8": -7, "u8": 200, "i32": -(2**31), "i64": 2**62 + 1, "fp32": 0.5, "fp64": 0.1}
C_TYPES = {
    "i1": "uint8_t",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "fp32": "float",
}


def scalars_kernel() -> KernelSource:
    """Scalars of all types between pointers, each written out in the widest type that holds it."""
    names = [f"a_{dtype}" for dtype in SCALARS]
    lines = [
        f"((int64_t*)arguments[3])[{n}] = *(const {C_TYPES[dtype]}*)arguments[{n + 4}];"
        for n, dtype in enumerate(SCALARS)
        if not dtype.startswith("fp")
    ]
    numbers = "((double*)arguments[0])[0] = *(const float*)arguments[9]; "
    numbers += "((double*)arguments[0])[1] = *(const double*)arguments[10];"
    given = [scalar(name, dtype) for name, dtype in zip(names, SCALARS, strict=True)]
    first = (pointer("reals", "fp64"), scalar("n"), scalar("m", "fp32"), pointer("wholes", "i64"))
    return kernel("scalars", (*first, *given), " ".join(lines) + numbers)


def test_scalars_of_every_type_arrive_as_they_are(cache: Cache) -> None:
    reals, wholes = torch.zeros(2, dtype=torch.float64), torch.zeros(7, dtype=torch.int64)
    values = {f"a_{dtype}": value for dtype, value in SCALARS.items()}
    launch(scalars_kernel(), (1, 1, 1), {"reals": reals, "n": 3, "m": 1, "wholes": wholes, **values}, cache)
    assert wholes.tolist() == [1, -7, 200, -(2**31), 2**62 + 1, 0, 0]
    assert reals.tolist() == [0.5, 0.1]
    values |= {"a_i1": False, "a_fp32": 1e300, "a_fp64": 7}
    launch(scalars_kernel(), (1, 1, 1), {"reals": reals, "n": 3, "m": 1, "wholes": wholes, **values}, cache)
    assert (wholes[0].item(), reals.tolist()) == (0, [float("inf"), 7.0])


def test_half_numbers_are_refused() -> None:
    source = kernel("halves", (scalar("x", "fp16"),), "")
    with pytest.raises(ValueError, match="takes x as a number of 16 bits"):
        slots_of(source)


# ------------------------------------------------------------------------------------------- arguments


def test_arguments_are_checked_before_the_launch(cache: Cache) -> None:
    source = kernel("fill", (pointer("out"), scalar("n", "i32"), scalar("on", "i1")), "")
    out = torch.zeros(1)
    good: dict[str, Any] = {"out": out, "n": 1, "on": True}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"out": None}, "must be a tensor of torch.float32, not NoneType"),
        ({"out": out.double()}, "not torch.float64"),
        ({"out": out.to("meta")}, "must be on the CPU, out is on meta"),
        ({"n": 2**31}, "of type i32, not 2147483648"),
        ({"n": 1.0}, "of type i32, not 1.0"),
        ({"on": 1}, "of type i1, not 1"),
        ({"m": 2}, "no argument called m"),
    )
    for change, said in cases:
        with pytest.raises(LaunchError, match=said):
            launch(source, (1, 1, 1), good | change, cache)
    with pytest.raises(LaunchError, match=r"out must be a tensor of torch\.float32, but is missing"):
        launch(source, (1, 1, 1), {"n": 1, "on": False}, cache)
    with pytest.raises(LaunchError, match="at least one thread, not 0"):
        launch(source, (1, 1, 1), good, cache, threads=0)
    launch(source, (1, 1, 1), good | {"n": True}, cache)  # unusual but right, as everywhere in Python


def test_a_triton_kernel_is_no_cpu_kernel(cache: Cache) -> None:
    with pytest.raises(ValueError, match="count is triton, not C"):
        prepare(replace(COUNT, language="triton"), cache)


def test_a_scratch_without_memory_is_an_error(cache: Cache) -> None:
    source = kernel("greedy", (pointer("out"),), "", scratch=2**62)
    for threads in (1, 2):
        with pytest.raises(MemoryError, match="scratch of greedy"):
            launch(source, (100, 1, 1), {"out": torch.zeros(1)}, cache, threads=threads)


# ------------------------------------------------------------------------------------- tasks and threads


def test_tasks_run_in_their_order_and_only_they(cache: Cache) -> None:
    body = "int64_t* const out = (int64_t*)arguments[0]; out[++out[0]] = program;"
    source = kernel("order", (pointer("out", "i64"),), body)
    out = torch.zeros(10, dtype=torch.int64)
    tasks = torch.tensor([5, 3, 8, 0])
    launch(source, (9, 1, 1), {"out": out}, cache, tasks=tasks, threads=1)
    assert out.tolist() == [4, 5, 3, 8, 0, 0, 0, 0, 0, 0]
    assert counted(cache, 9, tasks=tasks, threads=2) == [1, 0, 0, 1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_a_task_outside_of_the_grid_runs_nothing(cache: Cache, wrong: int) -> None:
    with pytest.raises(LaunchError, match="a program that the grid does not have"):
        counted(cache, 9, tasks=torch.tensor([1, wrong]))


@pytest.mark.parametrize(
    "tasks", [torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)[::2]]
)
def test_tasks_are_plain_numbers(cache: Cache, tasks: torch.Tensor) -> None:
    with pytest.raises(LaunchError, match=r"contiguous int64 tensor \[n\]"):
        counted(cache, 9, tasks=tasks)


def test_both_kinds_of_threads_share_the_programs(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that wait for one another end only if two threads run them."""
    body = """
        int64_t* const arrived = (int64_t*)arguments[0];
        __atomic_fetch_add(arrived, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 2) {}
    """
    source = kernel("meet", (pointer("arrived", "i64"),), body)
    for address in (cpp_team.parallel(), 0):
        monkeypatch.setattr(cpp_launch, "parallel", lambda address=address: address)
        arrived = torch.zeros(1, dtype=torch.int64)
        launch(source, (2, 1, 1), {"arrived": arrived}, cache, threads=2)
        assert arrived.item() == 2
        assert counted(cache, 1000, threads=7) == [1] * 1000


def test_openmp_is_the_one_of_pytorch() -> None:
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        pytest.skip("PyTorch has no OpenMP here")
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    address = cpp_team.parallel()
    bounds = [(tuple(int(end, 16) for end in line[0].split("-")), line[-1]) for line in maps]
    (home,) = [file for (low, high), file in bounds if low <= address < high]
    assert "omp" in Path(home).name
    assert len({file for _, file in bounds if "omp" in Path(file).name}) == 1, "a second OpenMP runtime"


def test_as_many_threads_as_pytorch_uses(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert cpp_team.default_threads() == threads
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(cpp_launch, "default_threads", lambda: 5)
    assert counted(cache, 100) == [1] * 100


def test_the_interpreter_runs_on_meanwhile(cache: Cache) -> None:
    """The kernel waits for a number that another Python thread writes."""
    body = "while (!__atomic_load_n((int64_t*)arguments[0], __ATOMIC_SEQ_CST)) {}"
    source = kernel("wait", (pointer("flag", "i64"),), body)
    flag = torch.zeros(1, dtype=torch.int64)
    threading.Timer(0.2, lambda: flag.fill_(1)).start()
    launch(source, (1, 1, 1), {"flag": flag}, cache, threads=1)
    assert flag.item() == 1


def test_several_python_threads_at_once(cache: Cache) -> None:
    x = torch.randn(200, 50)

    def work(seed: int) -> bool:
        out = torch.empty(200)
        for scale in range(20):
            given = x * (seed + scale)
            launch(SUM_ROWS, (200, 1, 1), {"x": given, "out": out, "width": 50}, cache, threads=2)
            if not torch.allclose(out, given.sum(1), atol=1e-2):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(12)))


def test_long_launches_come_back_in_between(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time at all, every return brings at least one program further, and none is run twice."""
    monkeypatch.setattr(cpp_launch, "SLICE_NANOSECONDS", 0)
    for threads in (1, 2):
        assert counted(cache, 40, threads=threads) == [1] * 40
        assert counted(cache, 40, threads=threads, tasks=torch.arange(39, -1, -1)) == [1] * 40


# ------------------------------------------------------------------------------ forks and interruptions

FORKED = """
import os, sys, torch
from pathlib import Path
from cpp_kernels import COUNT, SUM_ROWS
from attnlang.runtime.cache import Cache
from attnlang.runtime.cpp_launch import launch

cache = Cache(Path(sys.argv[1]), 1 << 30)
torch.set_num_threads(2)

def right():
    out = torch.zeros(100, dtype=torch.int64)
    launch(COUNT, (100, 1, 1), {"out": out}, cache, threads=2)
    return out.tolist() == [1] * 100

assert right()  # PyTorch's threads exist now
child = os.fork()
if child == 0:
    x, out = torch.ones(40, 3), torch.zeros(40)
    launch(SUM_ROWS, (40, 1, 1), {"x": x, "out": out, "width": 3}, cache, threads=2)  # compiled after the fork
    os._exit(0 if right() and out.tolist() == [3.0] * 40 else 1)
assert os.waitpid(child, 0)[1] == 0
assert right()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_computes_too(tmp_path: Path) -> None:
    done = in_child(FORKED, str(tmp_path))
    assert done.stdout == "fine\n", done.stderr


LONG = """
import signal, sys, time, torch
from pathlib import Path
from cpp_kernels import SPIN
from attnlang.runtime.cache import Cache
from attnlang.runtime.cpp_launch import launch, prepare

cache = Cache(Path(sys.argv[1]), 1 << 30)
prepare(SPIN, cache)
out = torch.zeros(1_000_000, dtype=torch.float64)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background are started without
print("running", flush=True)
try:
    launch(SPIN, (1_000_000, 1, 1), {"out": out, "rounds": 1_000_000}, cache, threads=int(sys.argv[2]))
    print("ended")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_long_launch(tmp_path: Path, threads: int) -> None:
    """A launch of many minutes ends within a second of the signal (here: of processor time and some patience)."""
    where = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [sys.executable, "-c", LONG, str(tmp_path), str(threads)],
        env=os.environ | {"PYTHONPATH": where},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "running\n"
            time.sleep(0.5)
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            said = child.stdout.readline()
            waited = time.monotonic() - start
        finally:
            child.kill()
    assert said == "interrupted\n"
    assert waited < (1.0 if os.getloadavg()[0] < 2 else 5.0)


def test_a_call_costs_little(cache: Cache) -> None:
    """Thirty arguments and one empty program; the bound is far above the few microseconds that it takes."""
    tensors, numbers = [f"t{n}" for n in range(6)], [f"n{n}" for n in range(24)]
    source = kernel("nothing", (*map(pointer, tensors), *map(scalar, numbers)), "")
    call, values = prepare(source, cache), {name: torch.zeros(4) for name in tensors}
    arguments = {**values, **{name: n for n, name in enumerate(numbers)}}

    def once() -> float:
        start = time.perf_counter()
        for _ in range(100):
            call((1, 1, 1), arguments)
        return (time.perf_counter() - start) / 100

    assert min(once() for _ in range(50)) < 15e-6


def test_spin_is_as_long_as_it_says(cache: Cache) -> None:
    out = torch.zeros(4, dtype=torch.float64)
    launch(SPIN, (4, 1, 1), {"out": out, "rounds": 2}, cache)
    expected = [(p * 0.999999 + 1) * 0.999999 + 1 for p in range(4)]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))
