"""Backward kernels as C++: float32 against autograd of its precision, float64 to the last digits."""

from __future__ import annotations

import pytest
import torch

from attnlang import load
from attnlang.execute_backward import Form
from attnlang.execute_programs import native_level
from tests.backward_calls import call_of, check_backward, dense, kernels
from tests.catalogue import EXAMPLES
from tests.kernel_calls import error, inputs
from tests.test_cpp_printer import needs_compiler

pytestmark = needs_compiler
CAUSAL, SOFTCAP = (load(EXAMPLES / f"{name}.attn") for name in ("causal", "softcap"))
FORMS: tuple[Form, Form] = ("split", "fused")


@pytest.mark.parametrize("form", FORMS)
def test_float64(form: Form) -> None:
    q, k, v = inputs(150, 170, H=4, HK=2, D=16, DV=24, dtype=torch.float64)
    call = call_of(CAUSAL, q, k, v, {})
    exact, _ = dense(call, CAUSAL.ir, torch.float64)
    for name, value in kernels(call, CAUSAL.ir, form, target=f"cpu:{native_level()}").items():
        assert error(value, exact[name]) < 1e-12, name


@pytest.mark.parametrize("form", FORMS)
def test_float32(form: Form) -> None:
    q, k, v = inputs(150, 170, H=2, D=32)
    check_backward(call_of(SOFTCAP, q, k, v, {}), form, target=f"cpu:{native_level()}")
