"""Section A of the catalogue: static masks, each a scalar predicate on absolute positions."""

from collections.abc import Mapping

from .common import (
    Call,
    Given,
    Need,
    Place,
    Predicate,
    Result,
    TensorSpec,
    define,
    everything,
    not_later,
    queries_before_end,
    queries_inside,
    softmax_attention,
)


def plain(
    name: str,
    visible: Predicate,
    *,
    params: Mapping[str, object] | None = None,
    tensors: Mapping[str, TensorSpec] | None = None,
    needs: tuple[Need, ...] = (),
    varies: str = "",
) -> None:
    """Register a mask whose score is dot."""

    def body(call: Call, p: Given) -> Result:
        return softmax_attention(call, call.dot(), call.mask())

    body.__name__ = name
    define("A", params=params, tensors=tensors, needs=needs, visible=visible, varies=varies)(body)


def sliding_window(at: Place, q: int, k: int, p: Given) -> bool:
    return 0 <= q - k < p.window


def local(at: Place, q: int, k: int, p: Given) -> bool:
    return abs(q - k) <= p.radius


def dilated_window(at: Place, q: int, k: int, p: Given) -> bool:
    return 0 <= q - k < p.window * p.dilation and (q - k) % p.dilation == 0


def streaming(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and (q - k < p.window or k < p.sinks)


def longformer(at: Place, q: int, k: int, p: Given) -> bool:
    return abs(q - k) <= p.radius or p.is_global[at.b][q] or p.is_global[at.b][k]


def strided_blocks(at: Place, q: int, k: int, p: Given) -> bool:
    i, j = q // p.block, k // p.block
    return k <= q and (j == 0 or i - j < p.near or (j + at.h) % p.stride == 0)


def sharded(at: Place, q: int, k: int, p: Given) -> bool:
    i, j = q // p.block, k // p.block
    step = max(1, p.period // at.H)
    return k <= q and (i - j < p.near or (j + at.g * step) % p.period == 0)


def shifted_groups(at: Place, q: int, k: int, p: Given) -> bool:
    def r(position: int) -> int:
        return position if at.h < at.H // 2 else (position - p.group // 2) % at.NK

    return r(q) // p.group == r(k) // p.group and r(k) <= r(q)


def prefix_lm(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q or k < p.prefix[at.b]


def document(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and p.ids[at.b][q] == p.ids[at.b][k]


def region(at: Place, q: int, k: int, p: Given) -> bool:
    return p.ids[at.b][q] == p.ids[at.b][k]


def diagonal_masked(at: Place, q: int, k: int, p: Given) -> bool:
    return k != q


def visual_isolated(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and not (p.is_visual[at.b][q] and p.is_visual[at.b][k] and q != k)


def short_long_heads(at: Place, q: int, k: int, p: Given) -> bool:
    return 0 <= q - k < p.window if at.h < p.short else k <= q


def temporal_latent(at: Place, q: int, k: int, p: Given) -> bool:
    return (k <= q and (k + 1) % p.stride == 0) or k == q


def local_block(at: Place, q: int, k: int, p: Given) -> bool:
    return k <= q and q // p.block == k // p.block


ids = {"ids": TensorSpec(("b", "n"), "int")}

plain("full", everything)
plain("causal", not_later)
plain("sliding_window", sliding_window, params={"window": 1024})
plain("local", local, params={"radius": 512})
plain("dilated_window", dilated_window, params={"window": 512, "dilation": 2})
plain("streaming", streaming, params={"window": 1024, "sinks": 4})
plain(
    "longformer",
    longformer,
    params={"radius": 256},
    tensors={"is_global": TensorSpec(("b", "n"), "bool")},
    needs=(queries_inside,),
    varies="b",
)
plain("strided_blocks", strided_blocks, params={"block": 64, "near": 4, "stride": 16}, varies="h")
plain("sharded", sharded, params={"block": 64, "near": 16, "period": 16}, varies="h")
plain(
    "shifted_groups",
    shifted_groups,
    params={"group": 2048},
    needs=(Need("an even group", lambda z, p: p.group % 2 == 0),),
    varies="h",
)
plain("prefix_lm", prefix_lm, tensors={"prefix": TensorSpec(("b",), "int")}, varies="b")
plain("document", document, tensors=ids, needs=(queries_before_end,), varies="b")
plain("region", region, tensors=ids, needs=(queries_inside,), varies="b")
plain("diagonal_masked", diagonal_masked)
plain(
    "visual_isolated",
    visual_isolated,
    tensors={"is_visual": TensorSpec(("b", "n"), "bool")},
    needs=(queries_before_end,),
    varies="b",
)
plain("short_long_heads", short_long_heads, params={"window": 256, "short": 4}, varies="h")
plain("temporal_latent", temporal_latent, params={"stride": 2})
plain("local_block", local_block, params={"block": 64})
