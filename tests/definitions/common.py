"""Shared pieces of the definitions: declarations, sizes, one call's tensors, brute-force masks, softmax."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

REQUIRED = object()
"""The default of a parameter that the caller has to give."""

Given = SimpleNamespace
"""Parameters and tensors by name, as a caller gave them (for a predicate, tensors as nested lists)."""


class NeedError(ValueError):
    """A call that the catalogue forbids: a "Needs …", or an unknown or a missing name."""


@dataclass(frozen=True)
class TensorSpec:
    """A declared tensor: its axes as the catalogue writes them (in ASCII) and the kind of its elements."""

    axes: tuple[str, ...]
    dtype: Literal["float", "int", "bool"] = "float"


@dataclass(frozen=True)
class Sizes:
    """The sizes of one call, and the absolute position of its first query row."""

    B: int
    H: int
    HK: int
    NQ: int
    NK: int
    D: int
    DV: int
    q_offset: int


@dataclass(frozen=True)
class Place(Sizes):
    """The sizes together with one batch entry and one query head, for a scalar predicate."""

    b: int
    h: int

    @property
    def g(self) -> int:
        """The key/value head of this query head."""
        return self.h // (self.H // self.HK)


Predicate = Callable[[Place, int, int, Given], bool]
"""May query q (absolute) see key k?"""


@dataclass(frozen=True)
class Need:
    """A condition without which an entry gives an error."""

    text: str
    holds: Callable[[Sizes, Given], bool]


@dataclass(frozen=True)
class Result:
    """What a definition gives: out [B,H,NQ,DV]; lse [B,H,NQ] and weights [B,H,NQ,NK] where they exist."""

    out: Tensor
    lse: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Definition:
    """One entry of the catalogue: its interface and its meaning in float64."""

    name: str
    section: str
    function: Callable[..., Result]
    params: Mapping[str, object]
    tensors: Mapping[str, TensorSpec]
    needs: tuple[Need, ...]
    has_lse: bool
    differentiable: tuple[str, ...]
    """The inputs that have a gradient: q, k, v and float tensors, without those that only choose."""
    visible: Predicate | None
    """The static visibility, where there is one."""
    varies: str
    """'b' and 'h' where the visibility depends on the batch entry and on the head."""


@dataclass(frozen=True)
class Call:
    """The tensors of one call, with the parts of a score that most entries share."""

    q: Tensor
    k: Tensor
    v: Tensor
    sizes: Sizes
    scale: float
    mask: Callable[[], Tensor]
    """The static visibility [B or 1, H or 1, NQ, NK] of the entry that is called."""

    def rows(self) -> Tensor:
        """The absolute positions of the queries, [NQ]."""
        return torch.arange(self.sizes.NQ) + self.sizes.q_offset

    def columns(self) -> Tensor:
        """The positions of the keys, [NK]."""
        return torch.arange(self.sizes.NK)

    def per_head(self, t: Tensor) -> Tensor:
        """[B,HK,…] → [B,H,…]: what each query head finds at its key/value head."""
        z = self.sizes
        return t[:, [h // (z.H // z.HK) for h in range(z.H)]]

    def keys(self) -> Tensor:
        """K of each query head, [B,H,NK,D]."""
        return self.per_head(self.k)

    def values(self) -> Tensor:
        """V of each query head, [B,H,NK,DV]."""
        return self.per_head(self.v)

    def products(self) -> Tensor:
        """⟨Q[q], K[k]⟩ without the scale, [B,H,NQ,NK]."""
        return torch.einsum("bhqd,bhkd->bhqk", self.q, self.keys())

    def dot(self) -> Tensor:
        """scale·⟨Q[q], K[k]⟩, [B,H,NQ,NK]."""
        return self.scale * self.products()

    def at_rows(self, t: Tensor, axis: int) -> Tensor:
        """Read axis n of a tensor at the queries; a row with q < 0 reads entry 0 in place of nothing."""
        return t.index_select(axis, self.rows().clamp(min=0))


REGISTRY: dict[str, Definition] = {}
"""Every definition, from the moment that its module is imported."""


def need(condition: bool, text: str) -> None:
    """Raise NeedError unless the condition holds."""
    if not condition:
        raise NeedError(text)


def define(
    section: str,
    *,
    params: Mapping[str, object] | None = None,
    tensors: Mapping[str, TensorSpec] | None = None,
    needs: tuple[Need, ...] = (),
    lse: bool = True,
    chooses: tuple[str, ...] = (),
    visible: Predicate | None = None,
    varies: str = "",
) -> Callable[[Callable[[Call, Given], Result]], Callable[[Call, Given], Result]]:
    """Register the decorated body under its own name; `chooses` names float tensors that have no gradient."""
    declared = dict(tensors or {})
    defaults = dict(params or {})
    learned = tuple(n for n, spec in declared.items() if spec.dtype == "float" and n not in chooses)

    def register(body: Callable[[Call, Given], Result]) -> Callable[[Call, Given], Result]:
        name = body.__name__

        def function(
            q: Tensor,
            k: Tensor,
            v: Tensor,
            *,
            scale: float | None = None,
            q_offset: int | None = None,
            **given: Any,
        ) -> Result:
            (B, H, NQ, D), (_, HK, NK, _), DV = q.shape, k.shape, v.shape[3]
            z = Sizes(B, H, HK, NQ, NK, D, DV, NK - NQ if q_offset is None else q_offset)
            p = fill(REGISTRY[name], given, partly=False)
            check_needs(REGISTRY[name], z, p)

            def static_mask() -> Tensor:
                return brute_force(REGISTRY[name], z, p)

            return body(Call(q, k, v, z, D**-0.5 if scale is None else scale, static_mask), p)

        REGISTRY[name] = Definition(
            name,
            section,
            function,
            defaults,
            declared,
            needs,
            lse,
            ("q", "k", "v", *learned),
            visible,
            varies,
        )
        return body

    return register


def fill(definition: Definition, given: Mapping[str, Any], *, partly: bool) -> Given:
    """The given names with the defaults of the others; `partly` lets tensors be missing."""
    for name in given:
        need(name in definition.params or name in definition.tensors, f"{definition.name} has no '{name}'")
    for name, default in definition.params.items():
        need(default is not REQUIRED or name in given, f"{definition.name} needs the parameter '{name}'")
    for name in definition.tensors:
        need(partly or name in given, f"{definition.name} needs the tensor '{name}'")
    return Given(**{**definition.params, **given})


def check_needs(definition: Definition, z: Sizes, p: Given) -> None:
    """Raise NeedError with the text of the first need that does not hold."""
    for wanted in definition.needs:
        need(wanted.holds(z, p), f"{definition.name} needs {wanted.text}")


def brute_force(definition: Definition, z: Sizes, p: Given) -> Tensor:
    """The static visibility, one pair at a time: a bool tensor [B or 1, H or 1, NQ, NK]."""
    visible = definition.visible
    if visible is None:
        raise NeedError(f"{definition.name} has no static visibility")
    plain = Given(**{n: t.tolist() if isinstance(t, Tensor) else t for n, t in vars(p).items()})
    batches = range(z.B) if "b" in definition.varies else range(1)
    heads = range(z.H) if "h" in definition.varies else range(1)
    rows = range(z.q_offset, z.q_offset + z.NQ)
    table = [
        [
            [[visible(place, q, k, plain) for k in range(z.NK)] for q in rows]
            for place in (Place(**asdict(z), b=b, h=h) for h in heads)
        ]
        for b in batches
    ]
    return torch.tensor(table, dtype=torch.bool).reshape(len(batches), len(heads), z.NQ, z.NK)


def softmax(s: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [.., k] and lse [..] of a softmax over the visible entries; an empty row gives 0 and −inf."""
    masked = s.masked_fill(~visible, -torch.inf)
    some = visible.broadcast_to(s.shape).any(-1, keepdim=True)
    highest = masked.detach().amax(-1, keepdim=True).masked_fill(~some, 0.0)
    powers = torch.exp(masked - highest)
    total = torch.where(some, powers.sum(-1, keepdim=True), 1.0)
    lse = (highest + torch.log(total)).masked_fill(~some, -torch.inf)
    return powers / total, lse.squeeze(-1)


def weighted(call: Call, weights: Tensor) -> Tensor:
    """Σ_k w(q,k) V[k], [B,H,NQ,DV]."""
    return torch.einsum("bhqk,bhkv->bhqv", weights, call.values())


def softmax_attention(call: Call, s: Tensor, visible: Tensor) -> Result:
    """The plain case: softmax of the scores over the visible keys, then the weighted sum of the values."""
    weights, lse = softmax(s, visible)
    return Result(weighted(call, weights), lse, weights)


def top(m: int, scores: list[float], candidates: list[int]) -> list[int]:
    """The m candidates of largest score, the lower index first among equals, all where there are fewer."""
    return sorted(candidates, key=lambda c: (-scores[c], c))[: max(m, 0)]


def unit_rows(t: Tensor) -> Tensor:
    """Rows divided by their L2 norm, the norm floored at 1e−6."""
    return t / torch.linalg.vector_norm(t, dim=-1, keepdim=True).clamp(min=1e-6)


def everything(at: Place, q: int, k: int, p: Given) -> bool:
    """No mask."""
    return True


def not_later(at: Place, q: int, k: int, p: Given) -> bool:
    """Causal."""
    return k <= q


def grid_need(*extents: str) -> Need:
    """NK is the product of the named parameters."""

    def holds(z: Sizes, p: Given) -> bool:
        product = 1
        for extent in extents:
            product *= getattr(p, extent)
        return product == z.NK and all(getattr(p, e) >= 1 for e in extents)

    return Need(f"NK = {'·'.join(extents)}", holds)


queries_inside = Need("0 ≤ q < NK", lambda z, p: z.q_offset >= 0 and z.q_offset + z.NQ <= z.NK)
queries_before_end = Need("q < NK", lambda z, p: z.q_offset + z.NQ <= z.NK)
same_lengths = Need("NQ = NK", lambda z, p: z.NQ == z.NK)
