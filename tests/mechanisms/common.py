"""What the definitions share: how a mechanism is declared, the inputs of a call, masked softmax, positions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent

Given = SimpleNamespace
"""q, k, v (k and v once per query head), sizes, scale, parameters and tensors of a call by name, and besides:
`i` [NQ, 1] and `j` [1, NK], the absolute positions of queries and keys."""

Make = Callable[[Given, torch.Generator], Tensor]
Definition = Callable[[Given], Tensor]


@dataclass(frozen=True)
class Mechanism:
    """A text `<name>.attn` and the function that it must agree with."""

    name: str
    function: Definition
    params: dict[str, Any]
    tensors: dict[str, Make]
    sizes: dict[str, int]
    square: bool
    smooth: bool

    @property
    def path(self) -> Path:
        """The text."""
        return HERE / f"{self.name}.attn"


@dataclass(frozen=True)
class Call:
    """The inputs of one call of a mechanism; float64."""

    mechanism: Mechanism
    NQ: int
    seed: int
    params: dict[str, Any] = field(init=False)
    inputs: dict[str, Tensor] = field(init=False)
    tensors: dict[str, Tensor] = field(init=False)
    given: Given = field(init=False)

    def __post_init__(self) -> None:
        sizes = {**self.mechanism.sizes, "NQ": self.NQ}
        generator = torch.Generator().manual_seed(self.seed)
        z = Given(**sizes, **self.mechanism.params)
        z.q_offset, z.scale = z.NK - z.NQ, z.D**-0.5
        tensors = {name: make(z, generator) for name, make in self.mechanism.tensors.items()}
        inputs = {
            "q": floats("B, H, NQ, D")(z, generator),
            "k": floats("B, HK, NK, D")(z, generator),
            "v": floats("B, HK, NK, DV")(z, generator),
        }
        for name, value in (
            ("params", dict(self.mechanism.params)), ("inputs", inputs), ("tensors", tensors), ("given", z),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def define(self, inputs: dict[str, Tensor], tensors: dict[str, Tensor]) -> Tensor:
        """The result by the definition."""
        z = Given(**vars(self.given), **inputs, **tensors)
        z.k, z.v = per_query_head(z, inputs["k"]), per_query_head(z, inputs["v"])
        z.i = torch.arange(z.q_offset, z.q_offset + z.NQ)[:, None]
        z.j = torch.arange(z.NK)[None, :]
        return self.mechanism.function(z)


MECHANISMS: dict[str, Mechanism] = {}


def mechanism(
    name: str,
    *,
    sizes: str = "",
    square: bool = False,
    smooth: bool = True,
    params: dict[str, Any] | None = None,
    **tensors: Make,
) -> Callable[[Definition], Definition]:
    """Registers a definition. `sizes`: what differs, as in "D=6, HK=4"; `square`: it needs NQ = NK;
    `smooth`: its gradients are compared."""
    base = {"B": 2, "H": 4, "HK": 2, "NK": 9, "D": 4, "DV": 3}
    changed = {part.split("=")[0].strip(): int(part.split("=")[1]) for part in sizes.split(",") if part}

    def register(function: Definition) -> Definition:
        assert name not in MECHANISMS
        MECHANISMS[name] = Mechanism(
            name, function, params or {}, tensors, {**base, **changed}, square, smooth
        )
        return function

    return register


def calls(one: Mechanism) -> list[Call]:
    """As many queries as keys, and, where that may be, the last three of them."""
    whole = Call(one, one.sizes["NK"], 0)
    return [whole] if one.square else [whole, Call(one, 3, 1)]


# -------------------------------------------------------------------------------------------------- tensors


def _shape(z: Given, shape: str) -> list[int]:
    return [int(eval(part, {}, vars(z))) for part in shape.split(",") if part.strip()]


def floats(shape: str = "", low: float | None = None, high: float = 1.0) -> Make:
    """Normal numbers, or uniform ones where `low` is given; the shape in sizes and parameters."""

    def make(z: Given, generator: torch.Generator) -> Tensor:
        if low is None:
            return torch.randn(_shape(z, shape), generator=generator, dtype=torch.float64)
        return low + (high - low) * torch.rand(_shape(z, shape), generator=generator, dtype=torch.float64)

    return make


def ints(high: int, shape: str, low: int = 0) -> Make:
    """low ≤ n < high."""
    return lambda z, generator: torch.randint(low, high, _shape(z, shape), generator=generator)


def flags(shape: str, share: float = 0.5) -> Make:
    """True with this probability."""
    return lambda z, generator: torch.rand(_shape(z, shape), generator=generator) < share


# --------------------------------------------------------------------------------------------------- pieces


def per_query_head(z: Given, x: Tensor) -> Tensor:
    """[B, HK, …] → [B, H, …]."""
    return x.repeat_interleave(z.H // z.HK, 1)


def at_queries(z: Given, x: Tensor, dim: int = -1) -> Tensor:
    """What an axis over positions holds at the queries."""
    return x.index_select(dim, z.i[:, 0])


def dot(z: Given) -> Tensor:
    """scale · ⟨Q, K⟩ [B, H, NQ, NK]."""
    return z.scale * z.q @ z.k.mT


def causal(z: Given) -> Tensor:
    """[NQ, NK]."""
    return z.j <= z.i


def softmax(s: Tensor, seen: Tensor | None = None, dim: int = -1) -> Tensor:
    """Over what is seen; 0 where nothing is."""
    if seen is None:
        return torch.softmax(s, dim)
    seen = torch.broadcast_to(seen, s.shape)
    high = torch.where(seen, s, -torch.inf).amax(dim, keepdim=True).detach()
    high = torch.where(torch.isfinite(high), high, 0.0)
    e = torch.where(seen, torch.exp(torch.where(seen, s - high, 0.0)), 0.0)
    total = e.sum(dim, keepdim=True)
    return e / torch.where(total > 0, total, 1.0)


def logsumexp(s: Tensor, seen: Tensor) -> Tensor:
    """Over the last axis where seen."""
    return torch.where(seen, s, -torch.inf).logsumexp(-1)


def l1(w: Tensor) -> Tensor:
    """Divided by the sum of the row, where that is not 0."""
    total = w.sum(-1, keepdim=True)
    return w / torch.where(total != 0, total, 1.0)


def largest(x: Tensor, m: int) -> Tensor:
    """The m largest of a row, the lower index first among equals, as flags; −∞ never."""
    order = torch.sort(x, dim=-1, descending=True, stable=True).indices
    chosen = torch.zeros_like(x, dtype=torch.bool).scatter(-1, order[..., :m], True)
    return chosen & (x > -torch.inf)


def column(x: Tensor) -> Tensor:
    """[…] → […, 1]."""
    return x[..., None]


def heads(x: Tensor) -> Tensor:
    """[H] → [H, 1, 1]."""
    return x[:, None, None]
