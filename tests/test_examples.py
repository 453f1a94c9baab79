"""The Python examples run, and say what they promise."""

from __future__ import annotations

from importlib import import_module

import pytest

PROMISES = {
    "quickstart": ("result (1, 8, 300, 64)", "####........", "plan of sliding_window on cuda:90"),
    "write_your_own": ("pattern fading(", "gradient of the rates", "did you mean 'rate'?"),
    "compile_ahead": ("@triton.jit", " spills", "bytes of cubin"),
}


@pytest.mark.parametrize("name", PROMISES)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    import_module(f"examples.{name}").main()
    printed = capsys.readouterr().out
    for promise in PROMISES[name]:
        assert promise in printed
