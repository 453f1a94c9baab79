"""What Triton's own launch compiles anew: nothing for another length or parameter."""

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime import driver
from triton_kernels import PretendDriver, own_triton_cache

import attnlang
from attnlang.execute import execute
from attnlang.ir.interpret import Inputs
from attnlang.runtime import triton_launch
from attnlang.runtime.triton_lock import SharedLock

pytestmark = pytest.mark.usefixtures(own_triton_cache.__name__)


def test_lengths_and_parameters_compile_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = attnlang.parse(
        "pattern p(window: int = 4, cap: float = 2.0):\n    tensor ids[b, n]: int\n    tensor slopes[h]\n"
        "    mask k <= q and ids[b, q] == ids[b, k]\n    sparsity q - k < window\n"
        "    score tanh(Q[q] @ K[k] * scale) * cap - slopes[h] * (q - k)\n"
    )
    pretend = PretendDriver()
    monkeypatch.setattr(triton_launch, "_device", lambda source, arguments: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: SharedLock().shared())
    monkeypatch.setattr(driver, "_active", pretend)
    lengths = [*range(129, 148), 256]
    for place, length in enumerate(lengths):
        q = torch.zeros(1, 2, length, 64, dtype=torch.float16)
        inputs = Inputs(
            q, q, q, {"B": 1, "H": 2, "HK": 2, "NQ": length, "NK": length, "D": 64, "DV": 64},
            {"q_offset": 0, "scale": 0.125, "window": [1, 16, 17, 4][place % 4], "cap": 1.0 + place % 5},
            {"ids": torch.zeros(1, length, dtype=torch.int64), "slopes": torch.zeros(2, dtype=torch.float16)},
        )  # fmt: skip
        execute(pattern.ir, inputs, "cuda:80", frozenset(("out", "lse")))
    assert len(pretend.launches) == len(lengths)
    assert len(pretend.sources) == 1
