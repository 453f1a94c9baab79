"""One measurement: ways to compute the same attention take turns, and their errors stand beside their times."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from attnlang.bench_rivals import Absent, Ready, Rival, said
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
    """Every way that ran, ours first, those that could not, and what other calls took that ran beside them."""

    entries: tuple[Entry, ...]
    absent: tuple[Absent, ...]
    beside: Mapping[str, Times] = field(default_factory=dict[str, Times])

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
    beside: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> Measured:
    """Times ours and the rivals on q, k and v: the forward pass without gradients, or the backward pass alone.

    Each gets about `seconds`, and at most `most` runs. What ours raises is raised; a rival that raises is absent.
    `beside`: other calls that take turns with them, after ours.
    """
    calls = {ours.name: _call(ours, inputs, backward)}
    hows, errors = {ours.name: ours.how}, {ours.name: _error(calls[ours.name], error, backward)}
    absent: list[Absent] = []
    for rival in rivals:
        match rival:
            case Absent():
                absent.append(rival)
                continue
            case Ready(name, how, _):
                pass
        try:
            call = _call(rival, inputs, backward)
            errors[name] = _error(call, error, backward)
        except Exception as raised:  # whatever a rival raises is the reason why it takes no part
            absent.append(Absent(name, f"it raised {said(raised)}"))
            continue
        calls[name], hows[name] = call, how
    with torch.set_grad_enabled(backward):
        turns = {ours.name: calls[ours.name], **beside, **calls}
        times = interleaved(turns, inputs[0].device.type, most, seconds)
    entries = tuple(Entry(name, hows[name], times[name], errors[name]) for name in calls)
    return Measured(entries, tuple(absent), {name: times[name] for name in beside})


def _error(call: Callable[[], tuple[Tensor, ...]], error: Error | None, backward: bool) -> float | None:
    """The error of a first call, which may compile; what libraries warn of is not shown."""
    with torch.set_grad_enabled(backward), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        results = call()
    return None if error is None else error(results)


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
