"""The `cpu` target as users meet it: what runs by default, without a compiler, again, in threads, and in float64."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import attnlang
from attnlang import compiler, settings
from attnlang.errors import AttnlangError, Diagnostic
from attnlang.runtime import autograd
from attnlang.runtime.cpp_errors import LevelMissing
from attnlang.settings import override
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import needs_compiler
from tests.kernel_calls import error, inputs, rounding

pytestmark = needs_compiler

CAUSAL = attnlang.load(EXAMPLES / "causal.attn")
WINDOW = attnlang.load(EXAMPLES / "sliding_window.attn")


def close(pattern: attnlang.Pattern, found: torch.Tensor, q: Any, k: Any, v: Any, **arguments: Any) -> None:
    """Whether a result is the pattern's, up to its own rounding."""
    wanted = pattern.reference(q.double(), k.double(), v.double(), **arguments)
    assert error(found, wanted) <= 4 * rounding(wanted, q.dtype)


def test_it_is_what_tensors_of_the_cpu_run_on() -> None:
    assert compiler.device_target(torch.device("cpu")) == "cpu"
    q, k, v = inputs(40, 40, H=2)
    with settings.override(target=None):
        close(CAUSAL, CAUSAL(q, k, v), q, k, v)


def test_a_pattern_without_kernel_is_said_to_run_densely() -> None:
    pattern = attnlang.load(EXAMPLES / "sinkhorn.attn")
    compiler.warn_dense.cache_clear()
    q, k, v = inputs(8, 8)
    with settings.override(target=None), pytest.warns(RuntimeWarning, match="runs as dense PyTorch on cpu"):
        pattern(q, k, v)
    with pytest.raises(Diagnostic, match="no kernel on cpu"):
        pattern(q, k, v, target="cpu")


def test_without_a_compiler_one_warning_names_what_to_install() -> None:
    compiler.warn_dense.cache_clear()
    q, k, v = inputs(24, 24)
    pattern = attnlang.parse("pattern p():\n    mask k <= q and k mod 3 < 2\n")
    with settings.override(target=None, compiler="no-such-compiler"):
        with pytest.warns(RuntimeWarning, match="install"):
            out = pattern(q, k, v)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(pattern(q, k, v), out)
        with pytest.raises(AttnlangError, match="compiler"):
            pattern(q, k, v, target="cpu")
        assert compiler.runnable_target(q.device) == "eager"
    assert compiler.runnable_target(q.device) == "cpu"
    close(pattern, out, q, k, v)


def test_calls_that_are_made_again_check_what_has_changed() -> None:
    q, k, v = inputs(40, 40, H=2)
    first = WINDOW(q, k, v, window=5, target="cpu")
    assert torch.equal(WINDOW(q, k, v, window=5, target="cpu"), first)
    close(WINDOW, WINDOW(q + 1, k, v, window=5, target="cpu"), q + 1, k, v, window=5)
    close(WINDOW, WINDOW(q, k, v, window=6, target="cpu"), q, k, v, window=6)
    close(WINDOW, WINDOW(q, k, v, window=5, scale=0.5, target="cpu"), q, k, v, window=5, scale=0.5)
    shorter: Any = (q[:, :, 3:], k, v)
    close(WINDOW, WINDOW(*shorter, window=5, target="cpu"), *shorter, window=5)
    turned: Any = tuple(tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v))
    close(WINDOW, WINDOW(*turned, window=5, target="cpu"), *turned, window=5)
    out, lse = WINDOW(q, k, v, window=5, target="cpu", return_lse=True)
    assert torch.equal(out, first) and lse.shape == (1, 2, 40)
    mistakes: list[dict[str, Any]] = [{"window": True}, {"window": 5.0}, {"window": 0}, {"other": 5}]
    for wrong in mistakes:
        with pytest.raises(AttnlangError):
            WINDOW(q, k, v, **wrong, target="cpu")
    with pytest.raises(AttnlangError):
        WINDOW(q, k[:, :, :7, :3], v, window=5, target="cpu")
    half: Any = tuple(tensor.bfloat16() for tensor in (q, k, v))
    assert WINDOW(*half, window=5, target="cpu").dtype == torch.bfloat16


def test_a_target_that_the_machine_lacks() -> None:
    q, k, v = inputs(20, 20)
    with override(cpu_level="avx2"):
        with pytest.raises(LevelMissing, match=r"cpu:avx512.* no wider vectors than avx2"):
            CAUSAL(q, k, v, target="cpu:avx512")
        close(CAUSAL, CAUSAL(q, k, v, target="cpu:portable"), q, k, v)


def test_calls_with_tensors_are_made_again_and_see_what_has_changed() -> None:
    pattern = attnlang.parse(
        "pattern p():\n    tensor ids[n]: int\n    tensor bias[h]\n    mask ids[q] == ids[k]\n"
        "    score Q[q] @ K[k] * scale - bias[h] * abs(q - k)\n"
    )
    q, k, v = inputs(700, 700, H=2, D=16)
    ids, bias = torch.arange(700) // 60, torch.tensor([0.1, 0.2])
    given: dict[str, Any] = {"ids": ids, "bias": bias}
    for _ in range(3):
        close(pattern, pattern(q, k, v, **given), q, k, v, **given)
    bias += 1
    close(pattern, pattern(q, k, v, **given), q, k, v, **given)
    for change in (lambda: ids[300:].add_(7), lambda: ids.zero_(), lambda: ids.copy_(torch.arange(700) % 5)):
        change()
        for _ in range(3):
            close(pattern, pattern(q, k, v, **given), q, k, v, **given)
    kept = pattern.with_tensors(**given)
    for _ in range(2):
        close(pattern, kept(q, k, v), q, k, v, **given)
    ids[:50] = 9
    close(pattern, kept(q, k, v), q, k, v, **given)
    other: dict[str, Any] = {"ids": ids.to(torch.int16), "bias": torch.nn.Parameter(bias.clone())}
    with torch.no_grad():
        for _ in range(2):
            close(pattern, pattern(q, k, v, **other), q, k, v, **other)
    assert pattern(q, k, v, **other).requires_grad
    for wrong in ({"ids": ids[1:]}, {"ids": ids.float()}, {"bias": bias.to_sparse()}):
        with pytest.raises(AttnlangError):
            pattern(q, k, v, **{**given, **wrong})


def test_requirements_on_values_are_checked_at_every_call() -> None:
    pattern = attnlang.parse(
        "pattern p():\n    tensor a[n]: int\n    require a[n] < 9\n    mask a[q] >= a[k]\n"
    )
    q, k, v = inputs(40, 40, H=2)
    a = torch.arange(40) // 5
    for _ in range(2):
        close(pattern, pattern(q, k, v, a=a), q, k, v, a=a)
    a[3] = 9
    with pytest.raises(AttnlangError, match="a"):
        pattern(q, k, v, a=a)


def test_a_call_inside_of_vmap_is_told_so_also_after_others() -> None:
    q, k, v = inputs(24, 24)
    for _ in range(2):
        CAUSAL(q, k, v, target="cpu")
    with pytest.raises(AttnlangError, match="vmap"):
        torch.vmap(lambda q: CAUSAL(q, k, v, target="cpu"))(torch.stack([q, q]))


def test_tensors_that_ask_for_gradients_get_them_also_after_calls_without() -> None:
    q, k, v = inputs(24, 24)
    CAUSAL(q, k, v, target="cpu")
    CAUSAL(q, k, v, target="cpu")
    q.requires_grad_()
    CAUSAL(q, k, v, target="cpu").sum().backward()
    assert q.grad is not None and bool(q.grad.isfinite().all())
    with torch.no_grad():
        assert not CAUSAL(q, k, v, target="cpu").requires_grad


def test_gradients_by_other_tensors_are_the_dense_evaluation_s() -> None:
    pattern = attnlang.parse(
        "pattern p():\n    tensor flags[n]: bool\n    tensor bias[h]\n    mask flags[k]\n"
        "    score Q[q] @ K[k] * scale - bias[h] * abs(q - k)\n"
    )
    q, k, v = inputs(40, 40, H=2)
    bias = torch.tensor([0.1, 0.2], requires_grad=True)
    flags = torch.arange(40) % 3 > 0
    pattern(q, k, v, flags=flags, bias=bias, target="cpu").sum().backward()
    found, bias.grad = bias.grad, None
    pattern.reference(q.double(), k.double(), v.double(), flags=flags, bias=bias).sum().backward()
    assert found is not None and bias.grad is not None and error(found, bias.grad) < 1e-3


@pytest.fixture
def no_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by dense evaluation are a failure."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("the gradient is the dense evaluation's")

    monkeypatch.setattr(autograd, "with_dense_backward", refuse)


GRADIENTS: dict[str, tuple[int, dict[str, Any]]] = {
    "causal": (150, {}),
    "sliding_window": (150, {"window": 40}),
    "softcap": (100, {}),
    "document": (300, {"ids": torch.arange(300)[None] // 70}),
    "neighborhood_2d": (400, {"height": 20, "width": 20}),
    "dilated_window": (320, {"window": 8, "dilation": 8}),
}


@pytest.mark.parametrize("target", ("cpu", "interpret"))
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_come_from_kernels(name: str, target: str, no_dense: None) -> None:
    length, arguments = GRADIENTS[name]
    pattern = attnlang.load(EXAMPLES / f"{name}.attn")
    given = [tensor.requires_grad_() for tensor in inputs(length, length, H=4, HK=2)]
    out, lse = pattern(*given, **arguments, target=target, return_lse=True)
    weights = torch.linspace(-1, 1, 16)
    ((out * weights).sum() + lse.sum()).backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    wanted, wanted_lse = pattern.reference(*exact, **arguments, return_lse=True)
    ((wanted * weights.double()).sum() + wanted_lse.sum()).backward()
    for own, other in zip(given, exact, strict=True):
        assert own.grad is not None and other.grad is not None
        assert error(own.grad, other.grad) < 3e-5


def test_float64_is_computed_in_float64() -> None:
    q, k, v = (tensor.double() for tensor in inputs(13, 17, H=2, D=8, DV=24))
    out, lse = WINDOW(q, k, v, window=7, target="cpu", return_lse=True)
    wanted, wanted_lse = WINDOW.reference(q, k, v, window=7, return_lse=True)
    assert out.dtype == lse.dtype == torch.float64
    assert error(out, wanted) < 1e-12 and error(lse, wanted_lse) < 1e-12
    small = [tensor[:, :, :5].clone().requires_grad_() for tensor in (q, k, v)]
    assert gradcheck(lambda *given: WINDOW(*given, window=3, target="cpu"), small)


def test_several_threads_may_call_at_once() -> None:
    q, k, v = inputs(200, 200, H=4)
    wanted = CAUSAL(q, k, v, target="cpu")
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not torch.equal(CAUSAL(q, k, v, target="cpu"), wanted):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
