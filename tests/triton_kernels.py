"""Kernels for the tests of the Triton runtime, and a quiet place to run them."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnlang.artifact import Argument, KernelSource
from attnlang.runtime.triton_launch import launch

ATTENTION = (Path(__file__).parent / "fixtures" / "attention_forward.py").read_text()
ALIGNED = frozenset({"q_ptr", "k_ptr", "v_ptr", "keep_ptr", "o_ptr", "lse_ptr", "q_head", "k_head"})
HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def own_triton_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from triton import knobs

    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


def attention(
    dtype: str, *, rows: int = 32, columns: int = 32, depth: int = 32, **facts: Any
) -> KernelSource:
    """The attention kernel of the fixture."""
    tensors = ["q_ptr", "k_ptr", "v_ptr", "keep_ptr", "o_ptr", "lse_ptr"]
    dtypes = {"keep_ptr": "i1", "lse_ptr": "fp32"}
    arguments = [Argument(name, "pointer", dtypes.get(name, dtype)) for name in tensors]
    arguments += [
        Argument("scale", "scalar", "fp32"),
        Argument("nq", "scalar", "i32"),
        Argument("nk", "scalar", "i32"),
    ]
    arguments += [Argument("q_head", "scalar", "i64"), Argument("k_head", "scalar", "i64")]
    constants = {
        "HEADS_PER_KV": facts.get("group", 2), "D": depth, "BLOCK_M": rows, "BLOCK_N": columns,
        "CAUSAL": facts.get("causal", True), "IEEE": dtype == "fp32",
    }  # fmt: skip
    return KernelSource(
        "triton", "attention_forward", ATTENTION, tuple(arguments), tuple(constants.items()),
        facts.get("warps", 4), facts.get("stages", 2),
    )  # fmt: skip


def small(body: str, *arguments: Argument, **constants: int | float | bool) -> KernelSource:
    """A kernel called `kernel` of a few lines."""
    names = [a.name for a in arguments] + [f"{name}: tl.constexpr" for name in constants]
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    text = f"{HEAD}def kernel({', '.join(names)}):\n{lines}"
    return KernelSource("triton", "kernel", text, arguments, tuple(constants.items()), 4, 1)


def pointer(name: str, dtype: str = "fp32") -> Argument:
    return Argument(name, "pointer", dtype)


def interpret(source: KernelSource, **arguments: torch.Tensor | int | float) -> None:
    launch(source, (1, 1, 1), arguments, interpret=True)


class PretendDriver:
    """Compiles for sm_80 and writes launches down instead of doing them."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.sources: list[Any] = []
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": 2**20},
            load_binary=lambda *args: ("module", "function", 32, 0, 1024),
        )

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 80, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        self.sources.append((source, metadata))
        return lambda *args: self.launches.append(args)
