"""What a target is and can do: the figures that choices of tiles and predictions of time are made from."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.errors import Diagnostic, nearest
from attnlang.settings import CPU_LEVELS


class UnknownTarget(Diagnostic):
    """A target that attnlang does not know."""

    code = "E502"
    message = "there is no target '{name}'"


class NothingToCompile(Diagnostic):
    """A target that has no kernels of its own, or none that could be made elsewhere."""

    code = "E609"
    message = "there is nothing to compile ahead of time for '{target}'"
    hint = "there are {targets}"


@dataclass(frozen=True)
class Target:
    """`shared`: bytes of shared memory a program may use. Throughputs are sustained, in FLOP/s (half types on tensor
    cores, and float32) and bytes/s; None where they are not known (docs/tour.md says from where they are)."""

    name: str
    kind: str
    shared: int
    half_flops: float | None = None
    single_flops: float | None = None
    bandwidth: float | None = None


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("cuda:80", "triton", 163 * 1024),
        Target("cuda:90", "triton", 227 * 1024, 742e12, None, 4.07e12),
        Target("cuda:100", "triton", 227 * 1024),
        Target("hip:gfx942", "triton", 64 * 1024),
        Target("interpret", "triton", 227 * 1024),
        Target("eager", "eager", 0),
        Target("cpu", "cpu", 0),
    )
}
COMPILED = ("cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100", "cuda:120")
AHEAD = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942", "cpu")


def target_of(name: object) -> Target:
    """The target of that name; `cuda:NN` of a related architecture takes the figures of the nearest known below.

    `cpu:LEVEL` is what `cpu` becomes on a machine: its kernels are printed for one level of vector instructions.
    """
    if not isinstance(name, str):
        raise UnknownTarget(None, f"a target is a str: {', '.join(TARGETS)}", name=name)
    if name in TARGETS:
        return TARGETS[name]
    if name.startswith("cpu:") and name[4:] in CPU_LEVELS:
        return Target(name, "cpu", 0)
    if name.startswith("cuda:") and name[5:].isdigit() and int(name[5:]) >= 80:
        known = max(
            int(t.name[5:])
            for t in TARGETS.values()
            if t.name.startswith("cuda:") and int(t.name[5:]) <= int(name[5:])
        )
        base = TARGETS[f"cuda:{known}"]
        small = int(name[5:]) in (86, 89, 120)
        return Target(name, "triton", 99 * 1024 if small else base.shared)
    close = nearest(name, list(TARGETS))
    hint = f"did you mean '{close}'?" if close else f"known: {', '.join(TARGETS)}"
    raise UnknownTarget(None, hint, name=name)


def target_ahead(name: object) -> str:
    """The target of that name, for which kernels can be compiled ahead of time: a GPU's, `cpu` (this machine's level)
    or `cpu:LEVEL`. Raises UnknownTarget, NothingToCompile."""
    if isinstance(name, str) and name.startswith("cpu:") and name[4:] not in CPU_LEVELS:
        raise UnknownTarget(None, f"the levels of a CPU are {', '.join(CPU_LEVELS)}", name=name)
    found = target_of(name).name
    if found.startswith("cuda:") and found not in COMPILED:
        raise UnknownTarget(None, f"kernels are compiled for {', '.join(COMPILED)}", name=found)
    if found in ("eager", "interpret"):
        raise NothingToCompile(target=found, targets=", ".join(AHEAD))
    return found
