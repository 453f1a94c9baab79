"""One measurement: ways to compute the same attention take turns, and their errors stand beside their times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnlang.bench_rivals import Absent, Ready, Rival, tried
from attnlang.bench_timing import Times, interleaved

Error = Callable[[Sequence[Tensor]], float]
"""The largest error of (out,), or of the gradients (dq, dk, dv)."""


@dataclass(frozen=True)
class Entry:
    """What one way takes, and its largest error (None: not computed)."""

    name: str
    how: str
    times: Times
    error: float | None


@dataclass(frozen=True)
class Measured:
    """Every way that ran, ours first, and those that could not."""

    entries: tuple[Entry, ...]
    absent: tuple[Absent, ...]

    def ratio(self, entry: Entry) -> float:
        """How many times the median of ours a way takes: above 1, ours is faster."""
        return entry.times.median / self.entries[0].times.median


def measure(
    ours: Ready,
    rivals: Sequence[Rival],
    inputs: tuple[Tensor, Tensor, Tensor],
    *,
    backward: bool = False,
    most: int = 100,
    seconds: float = 1.0,
    error: Error | None = None,
) -> Measured:
    """Times ours and the rivals on q, k and v: the forward pass without gradients, or the backward pass alone.

    Each gets about `seconds`, and at most `most` runs. What ours raises is raised; a rival that raises is absent.
    """
    checked = [tried(each, inputs, backward) for each in rivals]
    running = [ours, *(each for each in checked if isinstance(each, Ready))]
    calls = {ready.name: _call(ready, inputs, backward) for ready in running}
    with torch.set_grad_enabled(backward):
        errors = {name: None if error is None else error(call()) for name, call in calls.items()}
        times = interleaved(calls, inputs[0].device.type, most, seconds)
    entries = tuple(Entry(each.name, each.how, times[each.name], errors[each.name]) for each in running)
    return Measured(entries, tuple(each for each in checked if isinstance(each, Absent)))


def _call(
    ready: Ready, inputs: tuple[Tensor, Tensor, Tensor], backward: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward: (out,). Backward: (dq, dk, dv) for the gradient `upstream`, from one forward pass that is kept."""
    attend = ready.attend
    if not backward:
        return lambda: (attend(*inputs),)
    leaves = tuple(each.detach().requires_grad_() for each in inputs)
    with torch.enable_grad():
        out = attend(*leaves)
    gradient = upstream(out)
    return lambda: torch.autograd.grad(out, leaves, gradient, retain_graph=True)


def upstream(out: Tensor) -> Tensor:
    """The gradient of an output that backward passes start from: normal, the same for the same shape."""
    made = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return made.to(out.device, out.dtype)
