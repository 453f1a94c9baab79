"""The catalogue through the door: loaded, called, masked and refused as a user would."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attnlang
from attnlang.call import bind
from attnlang.call_interface import Interface
from tests import catalogue
from tests.definitions import DEFINITIONS, Case, NeedError, cases

NAMES = sorted(DEFINITIONS)
FIRST = [cases(name)[0] for name in NAMES]


def with_id(case: Case) -> str:
    return case.id


def load(name: str) -> attnlang.Pattern:
    return attnlang.load(catalogue.EXAMPLES / f"{name}.attn")


def arguments(case: Case, given: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Everything but q, k and v, by name."""
    tensors = {name: given[name] for name in DEFINITIONS[case.name].tensors}
    return {**case.params, **tensors, "scale": case.scale, "q_offset": case.q_offset}


@pytest.mark.parametrize("case", FIRST, ids=with_id)
def test_reference_and_eager_calls(case: Case) -> None:
    given = case.make_inputs(3)
    pattern, wanted = load(case.name), catalogue.define(case, given)
    q, k, v, more = given["q"], given["k"], given["v"], arguments(case, given)
    torch.testing.assert_close(pattern.reference(q, k, v, **more), wanted.out, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(pattern(q, k, v, target="eager", **more), wanted.out, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_a_call(name: str) -> None:
    interface = Interface(load(name).ir)
    for case in cases(name):
        given = case.make_inputs(3)
        more = {name: given[name] for name in DEFINITIONS[case.name].tensors}
        call = bind(
            interface, given["q"], given["k"], given["v"], scale=case.scale, q_offset=case.q_offset,
            arguments={**case.params, **more},
        )  # fmt: skip
        assert call.sizes["NK"] == case.NK


@pytest.mark.parametrize("case", FIRST, ids=with_id)
def test_lse_exists_where_there_is_one_softmax(case: Case) -> None:
    given = case.make_inputs(3)
    pattern, q, k, v = load(case.name), given["q"], given["k"], given["v"]
    if DEFINITIONS[case.name].has_lse:
        _, lse = pattern.reference(q, k, v, return_lse=True, **arguments(case, given))
        wanted = catalogue.define(case, given).lse
        assert wanted is not None
        torch.testing.assert_close(lse, wanted, atol=1e-9, rtol=1e-9)
    else:
        with pytest.raises(attnlang.AttnlangError):
            pattern.reference(q, k, v, return_lse=True, **arguments(case, given))


def test_the_weights_of_additive_attention_are_its_pointers() -> None:
    case = cases("additive")[0]
    given = case.make_inputs(3)
    _, weights = load("additive").reference(
        given["q"], given["k"], given["v"], return_weights=True, **arguments(case, given)
    )
    wanted = catalogue.define(case, given).weights
    assert wanted is not None and weights.shape == (case.B, case.H, case.NQ, case.NK)
    torch.testing.assert_close(weights, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_dense_baseline_and_the_text(name: str) -> None:
    pattern = load(name)
    assert pattern.name == name
    assert attnlang.parse(str(pattern)) == pattern
    assert pattern.dense().name == name


# ------------------------------------------------------------------------------------------------- refusals

REFUSED: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("shifted_groups", {}, {"group": 5}),
    ("neighborhood_1d", {}, {"length": 31, "window": 3}),
    ("neighborhood_1d", {}, {"length": 32, "window": 3, "stride": 4}),
    ("neighborhood_1d", {}, {"length": 32, "window": 9, "dilation": 4}),
    ("neighborhood_2d", {}, {"height": 4, "width": 8, "window_y": 5, "window_x": 3}),
    (
        "neighborhood_3d",
        {},
        {"frames": 2, "height": 4, "width": 4, "window_t": 3, "window_y": 3, "window_x": 3},
    ),
    ("inward_window", {}, {"frames": 3, "height": 3, "width": 3}),
    ("swin", {}, {"height": 4, "width": 8, "window": 4, "shift": 4}),
    ("swin", {}, {"height": 4, "width": 8, "window": 3, "shift": 1}),
    ("cosine", {}, {"height": 4, "width": 8, "window": 3}),
    ("space", {}, {"frames": 3, "tokens": 5}),
    ("t5", {}, {"buckets": 1}),
    ("t5", {}, {"buckets": 8, "max_distance": 4}),
    ("entmax", {}, {"alpha": 1.0}),
    ("sinkhorn", {"NQ": 3}, {}),
    ("tile_topk", {"NQ": 3}, {"tile": 4}),
    ("tile_topk", {}, {"tile": 5}),
    ("native_sparse", {}, {"keep": 1}),
    ("antidiagonal", {}, {"stride": 3, "block": 8}),
    ("antidiagonal", {}, {"stride": 3, "block": 9}),
    ("region_routing", {}, {"height": 4, "width": 8, "region": 3}),
    ("learned_gate", {"NQ": 3}, {"block": 4}),
    ("routing", {"HK": 1}, {}),
    ("combiner", {"NQ": 3}, {}),
    ("core_context", {"NQ": 3}, {}),
    ("pyramid", {}, {"block": 5}),
    ("multiresolution", {}, {"block": 5}),
    ("multiresolution", {}, {"block": 4, "keep": 3}),
    ("delta", {"HK": 1}, {}),
    ("error_free_delta", {"HK": 1}, {}),
    ("chunk_recurrent", {"DV": 6}, {}),
    ("extra_tokens", {"DV": 6}, {}),
    ("windowed_query", {"NQ": 3}, {}),
    ("longformer", {"NQ": 33}, {}),
    ("document", {"q_offset": 1}, {}),
    ("distance_bias", {"q_offset": -1}, {}),
]


@pytest.mark.parametrize(("name", "sizes", "params"), REFUSED, ids=lambda part: str(part))
def test_what_an_entry_needs(name: str, sizes: dict[str, int], params: dict[str, Any]) -> None:
    definition = DEFINITIONS[name]
    z = {"B": 1, "H": 2, "HK": 2, "NQ": 32, "NK": 32, "D": 8, "DV": 8, **sizes}
    offset = z.pop("q_offset", None)
    lengths = {"b": z["B"], "h": z["H"], "g": z["HK"], "q": z["NQ"], "k": z["NK"], "n": z["NK"], "d": z["D"]}
    filled = {**definition.params, **params}

    def length(axis: str) -> int:
        if axis in ("q/block", "k/block"):
            return -(-lengths[axis[0]] // filled["block"])
        if axis in ("(2*window-1)**2",):
            return (2 * filled["window"] - 1) ** 2
        return lengths[axis] if axis in lengths else int(filled.get(axis, 0)) or int(axis)

    kinds = {"float": torch.float64, "int": torch.int64, "bool": torch.bool}
    tensors = {
        tensor: torch.ones([length(axis) for axis in spec.axes]).to(kinds[spec.dtype])
        for tensor, spec in definition.tensors.items()
    }
    q = torch.randn(z["B"], z["H"], z["NQ"], z["D"], dtype=torch.float64)
    k = torch.randn(z["B"], z["HK"], z["NK"], z["D"], dtype=torch.float64)
    v = torch.randn(z["B"], z["HK"], z["NK"], z["DV"], dtype=torch.float64)
    named: dict[str, Any] = {"q_offset": offset, **params, **tensors}
    with pytest.raises(NeedError):
        definition.function(q, k, v, **named)
    with pytest.raises(attnlang.AttnlangError) as caught:
        load(name).reference(q, k, v, **named)
    assert "error[E" in str(caught.value)


def test_rows_before_the_first_key_read_nothing_of_a_causal_pattern() -> None:
    pattern = load("document")
    ids = torch.zeros(1, 5, dtype=torch.int64)
    q, k = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 5, 8)
    out, lse = pattern.reference(q, k, k, ids=ids, return_lse=True)
    assert (out[:, :, :3] == 0).all() and lse[0, 0, 0] == -torch.inf
    assert torch.isfinite(lse[:, :, 3:]).all()
