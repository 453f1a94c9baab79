"""Calls with wrong arguments: every mistake in one report, in the user's terms, and none that is none."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attnlang
from attnlang.call_reads import negative_rows_are_empty
from attnlang.errors import Diagnostic, Diagnostics

SOURCES = {
    "banded": """
        pattern banded(reach: int >= 1 <= 64 = 8, slope: float > 0 = 0.5, strict: bool = false):
            tensor bias[h, 2 * reach - 1]
            tensor hidden[b, n]: bool
            mask     k <= q and not hidden[b, k]
            sparsity q - k < reach and (k < q or not strict)
            score    Q[q] @ K[k] * scale + bias[h, q - k + reach - 1] - slope * (q - k)
    """,
    "images": """
        pattern images(height: int >= 1, width: int >= 1):
            grid q, k as (y: height, x: width)
            require height mod 2 == 0
            mask q.y == k.y
    """,
    "papers": """
        pattern papers():
            tensor ids[b, n]: int
            mask causal and ids[b, q] == ids[b, k]
    """,
    "regions": """
        pattern regions():
            tensor ids[b, n]: int
            mask ids[b, q] == ids[b, k]
    """,
    "mirror": """
        pattern mirror():
            require NQ == NK
            score Q[q] @ Q[k] * scale
    """,
    "beside": """
        pattern beside():
            tensor place[n]
            mask  causal
            score place[q + 1]
    """,
    "shared": """
        pattern shared():
            tensor t
            score Q[q] @ K[k] * t
    """,
    "squares": """
        pattern squares():
            mask causal
            weight (Q[q] @ K[k]) ** 2
    """,
    "halves": """
        pattern halves():
            branch past:
                mask causal
            branch first:
                mask k == 0
            output past + first
    """,
}


@cache
def pattern(name: str) -> attnlang.Pattern:
    """One of the patterns above."""
    lines = SOURCES[name].strip("\n").split("\n")
    return attnlang.parse("\n".join(line[8:] for line in lines))


def inputs(H: int = 4, HK: int = 2, NQ: int = 6, NK: int = 6, D: int = 8, DV: int = 8) -> list[Tensor]:
    """q, k, v of two batch entries."""
    return [torch.randn(2, H, NQ, D), torch.randn(2, HK, NK, D), torch.randn(2, HK, NK, DV)]


def banded(**changes: Any) -> dict[str, Any]:
    """Right arguments of `banded`, some changed, those that are None left out."""
    arguments = {"bias": torch.zeros(4, 15), "hidden": torch.zeros(2, 6, dtype=torch.bool), **changes}
    return {name: value for name, value in arguments.items() if value is not None}


def reports(name: str, *tensors: Any, **arguments: Any) -> list[str]:
    """The mistakes of a call, one text each, code first."""
    given = tensors or inputs()
    with pytest.raises(Diagnostics) as caught:
        pattern(name)(*given, **arguments)
    return [f"{error.code} {error.text} | {error.advice}".rstrip(" |") for error in caught.value.errors]


# ------------------------------------------------------------------------------------------------- names


def test_unknown_names() -> None:
    assert reports("banded", **banded(raech=4, other=1)) == [
        "E301 'banded' has no parameter or tensor 'raech' | did you mean 'reach'?",
        "E301 'banded' has no parameter or tensor 'other' | it has reach, slope, strict, bias, hidden",
    ]
    assert reports("mirror", zeal=4) == ["E301 'mirror' has no parameter or tensor 'zeal' | it has none"]


def test_missing_names() -> None:
    assert reports("images") == [
        "E302 'images' needs the parameter 'height' | it has no default; pass height=…",
        "E302 'images' needs the parameter 'width' | it has no default; pass width=…",
    ]
    assert reports("banded", **banded(bias=None)) == [
        "E302 'banded' needs the tensor 'bias' | declared as bias[h, 2 * reach - 1]: float; pass bias=…"
    ]


# -------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("changes", "report"),
    [
        ({"reach": True}, "E303 'banded': 'reach' must be an int, this is True"),
        ({"reach": 8.0}, "E303 'banded': 'reach' must be an int, this is 8.0 | write 8"),
        ({"reach": 7.5}, "E303 'banded': 'reach' must be an int, this is 7.5"),
        ({"reach": "8"}, "E303 'banded': 'reach' must be an int, this is '8'"),
        ({"reach": None}, ""),
        ({"slope": True}, "E303 'banded': 'slope' must be a number, this is True"),
        ({"slope": float("nan")}, "E303 'banded': 'slope' must be a number, this is nan"),
        ({"strict": 1}, "E303 'banded': 'strict' must be true or false, this is 1"),
        (
            {"slope": torch.zeros(2)},
            "E303 'banded': 'slope' must be a number, this is a float32 tensor of shape [2]",
        ),
        ({"reach": 0}, "E304 'banded': 'reach' must be ≥ 1 and ≤ 64, this is 0"),
        ({"reach": 65}, "E304 'banded': 'reach' must be ≥ 1 and ≤ 64, this is 65"),
        ({"slope": 0.0}, "E304 'banded': 'slope' must be > 0, this is 0.0"),
        ({"reach": 1 << 80}, "E304 'banded': 'reach' must be below 2**63, this is an int of 81 bits"),
    ],
)
def test_values_of_parameters(changes: dict[str, Any], report: str) -> None:
    if not report:
        pattern("banded")(*inputs(), **banded(**changes))  # left out: the default
        return
    assert reports("banded", **banded(**changes))[0] == report


def test_a_learned_parameter_is_refused_before_its_gradient_is_lost() -> None:
    (report,) = reports("banded", **banded(slope=torch.tensor(0.5, requires_grad=True)))
    assert report.endswith("a parameter has no gradient; what is learned is declared as a tensor")
    (report,) = reports("banded", **banded(scale=torch.tensor(0.5, requires_grad=True)))
    assert report.endswith("scale has no gradient; declare a tensor and write it into the score")


@pytest.mark.parametrize(
    "changes",
    [
        {"reach": np.int32(8), "slope": np.float32(0.5), "strict": np.bool_(False)},
        {"reach": torch.tensor(8), "slope": torch.tensor(0.5), "strict": torch.tensor(False)},
        {"reach": 8, "slope": np.float64(0.5)},
    ],
)
def test_numbers_of_numpy_and_torch_are_numbers(changes: dict[str, Any]) -> None:
    q, k, v = inputs()
    assert torch.equal(
        pattern("banded")(q, k, v, **banded(**changes)), pattern("banded")(q, k, v, **banded())
    )


def test_an_int_is_a_number() -> None:
    q, k, v = inputs()
    expected = pattern("banded")(q, k, v, **banded(slope=1.0))
    assert torch.equal(pattern("banded")(q, k, v, **banded(slope=1)), expected)


def test_scale_and_q_offset() -> None:
    assert reports("mirror", scale="1") == ["E303 'mirror': 'scale' must be a finite number, this is '1'"]
    assert reports("mirror", scale=float("inf")) == [
        "E303 'mirror': 'scale' must be a finite number, this is inf"
    ]
    assert reports("mirror", q_offset=0.5) == [
        "E303 'mirror': 'q_offset' must be an int of 60 bits, this is 0.5"
    ]


# ----------------------------------------------------------------------------------------------- tensors


def test_what_is_no_tensor() -> None:
    q, k, v = inputs()
    assert reports("mirror", q, k, 3) == [
        "E303 'mirror': 'v' must be a torch.Tensor, this is 3 | convert it with torch.as_tensor(…)"
    ]
    assert reports("mirror", q, np.zeros((2, 2)), v)[0] == (
        "E303 'mirror': 'k' must be a torch.Tensor, this is a float64 ndarray of shape [2, 2]"
        " | convert it with torch.as_tensor(…)"
    )
    assert reports("shared", t=3.0) == [
        "E303 'shared': 't' must be a torch.Tensor, this is 3.0 | convert it with torch.as_tensor(…)"
    ]
    pattern("shared")(q, k, v, t=torch.tensor(3.0))


def test_ranks_and_lengths() -> None:
    q, k, v = inputs()
    assert reports("mirror", q[0], k, v) == [
        "E305 'mirror': 'q' must have the axes [B, H, NQ, D], this has the shape [4, 6, 8]"
    ]
    assert reports("banded", **banded(bias=torch.zeros(4, 3, 15))) == [
        "E305 'banded': 'bias' must have the axes [h, 2 * reach - 1], this has the shape [4, 3, 15]"
    ]
    assert reports("banded", **banded(reach=16)) == [
        "E306 'banded': axis '2 * reach - 1' of 'bias' must have length 31, this has 15"
        " | declared as bias[h, 2 * reach - 1]; here reach = 16"
    ]
    assert reports(
        "banded", **banded(bias=torch.zeros(2, 15), hidden=torch.zeros(2, 7, dtype=torch.bool))
    ) == [
        "E306 'banded': axis 'h' of 'bias' must have length 4, this has 2"
        " | declared as bias[h, 2 * reach - 1]; here H = 4",
        "E306 'banded': axis 'n' of 'hidden' must have length 6, this has 7 | declared as hidden[b, n]; here NK = 6",
    ]


def test_a_tensor_that_is_shared_by_the_batch_is_not_broadcast_silently() -> None:
    assert reports("papers", ids=torch.zeros(1, 6, dtype=torch.int64)) == [
        "E306 'papers': axis 'b' of 'ids' must have length 2, this has 1 | declared as ids[b, n]; here B = 2"
    ]


def test_sizes_of_the_inputs() -> None:
    q, k, v = inputs()
    assert reports("mirror", q, k[..., :5], v) == [
        "E309 'mirror': the head size of q and k must be equal, they are 8 and 5"
    ]
    assert reports("mirror", q, k, v[:, :, :4]) == [
        "E309 'mirror': the number of keys of k and v must be equal, they are 6 and 4"
    ]
    assert reports("mirror", q[:1], k, v[:, :1])[:2] == [
        "E309 'mirror': the batch size of q and k must be equal, they are 1 and 2",
        "E309 'mirror': the batch size of q and v must be equal, they are 1 and 2",
    ]
    assert reports("mirror", q[:, :, :0], k, v) == [
        "E310 'mirror': the number of queries of 'q' must be at least 1, this is 0"
    ]


def test_elements() -> None:
    q, k, v = inputs()
    floats = "floats (float16, bfloat16, float32, float64)"
    assert reports("mirror", q.int(), k.int(), v.to(torch.complex64)) == [
        f"E307 'mirror': 'q' must hold {floats}, this holds int32 | convert it with .float()",
        f"E307 'mirror': 'k' must hold {floats}, this holds int32 | convert it with .float()",
        f"E307 'mirror': 'v' must hold {floats}, this holds complex64 | convert it with .float()",
    ]
    assert reports("mirror", q, k.half(), v) == [
        "E307 'mirror': 'q, k, v' must hold one dtype, this holds q float32, k float16, v float32"
        " | convert them with .to(dtype)"
    ]
    assert reports("banded", **banded(hidden=torch.zeros(2, 6))) == [
        "E307 'banded': 'hidden' must hold true and false (torch.bool), this holds float32"
        " | compare it with something, as in x != 0"
    ]
    assert reports("papers", ids=torch.zeros(2, 6)) == [
        "E307 'papers': 'ids' must hold ints (int64, int32, int16, int8, uint8), this holds float32"
        " | convert it with .long()"
    ]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_ints_of_any_width(dtype: torch.dtype) -> None:
    q, k, v = inputs()
    ids = torch.tensor([[0, 0, 1, 1, 1, 2]] * 2)
    assert torch.equal(pattern("papers")(q, k, v, ids=ids.to(dtype)), pattern("papers")(q, k, v, ids=ids))


def test_devices_and_layouts() -> None:
    q, k, v = inputs()
    assert reports("mirror", q, k, v.to("meta")) == ["E314 'mirror': 'v' is on 'meta' and has no values"]
    (report,) = reports("mirror", q.to_sparse(), k, v)
    assert report.startswith("E314 'mirror': 'q' is sparse or nested")


# ------------------------------------------------------------------------------- requirements and positions


def test_requirements_are_quoted_with_their_values() -> None:
    with pytest.raises(Diagnostics) as caught:
        pattern("images")(*inputs(), height=3, width=4)
    assert "requires height mod 2 == 0" in str(caught.value)
    assert "here height = 3" in str(caught.value)
    assert {error.code for error in caught.value.errors} == {"E311"}
    assert any("NK = 6" in error.advice for error in caught.value.errors)  # 3 · 4 ≠ 6
    pattern("images")(*inputs(), height=2, width=3)


def test_heads_must_be_shared_evenly() -> None:
    (report,) = reports("banded", *inputs(HK=3), **banded())
    assert report.startswith("E311 'banded' requires") and "H = 4, HK = 3" in report


IDS = torch.zeros(2, 6, dtype=torch.int64)


def test_queries_before_the_first_position_are_empty_rows_of_a_causal_pattern() -> None:
    q, k, v = inputs(NQ=9)
    out = pattern("papers")(q, k, v, ids=IDS)
    assert torch.equal(out[:, :, :3], torch.zeros(2, 4, 3, 8))
    assert bool(out[:, :, 3:].isfinite().all())


def test_queries_must_be_positions_where_a_tensor_is_read_at_them() -> None:
    wide = inputs(NQ=9)
    (report,) = reports("regions", *wide, ids=IDS)
    assert report[:4] in ("E311", "E312") and "q_offset = -3" in report
    (report,) = reports("papers", ids=IDS, q_offset=2)
    assert report[:4] in ("E311", "E312") and "q_offset = 2" in report
    pattern("papers")(*wide, ids=IDS, q_offset=-9)  # nothing but empty rows


def test_a_place_beside_the_query_must_be_a_position_too() -> None:
    assert reports("beside", place=torch.zeros(6)) == [
        "E312 'beside' reads axis 'n' of 'place' at the queries, 1 … 6, but it has length 6"
        " | here NQ = 6, NK = 6, q_offset = 0"
    ]
    pattern("beside")(*inputs(NQ=5), place=torch.zeros(6), q_offset=0)


@pytest.mark.parametrize(
    ("mask", "empty"),
    [
        ("k <= q", True),
        ("q >= k", True),
        ("q - k >= 0", True),
        ("0 <= q - k < 4", True),
        ("k < q + 1 and k != 3", True),
        ("k <= q and (q - k < 4 or k < 2)", True),
        ("not k > q", True),
        ("q // 4 >= k // 4", True),
        ("k // 4 < q // 4 if strict else k <= q", True),
        ("min(k, 3) <= q", True),
        ("q >= 0", True),
        ("k <= q or k < 2", False),
        ("k <= q + 1", False),
        ("abs(q - k) < 4", False),
        ("k != q", False),
        ("k <= q if strict else true", False),
        ("q // 4 == k // 4 or hot[k]", False),
    ],
)
def test_which_rows_before_the_first_position_are_empty(mask: str, empty: bool) -> None:
    text = f"pattern p(strict: bool = false):\n    tensor hot[n]: bool\n    mask {mask}\n    score 1 if hot[k] else 0\n"
    meaning = attnlang.parse(text).ir
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 9, "NK": 6, "q_offset": -3, "strict": False}
    assert negative_rows_are_empty(meaning, symbols) == empty


def test_keys_must_be_queries_where_queries_are_read_at_them() -> None:
    (report,) = reports("mirror", *inputs(NQ=4))
    assert report == "E311 'mirror' requires NQ == NK | here NQ = 4, NK = 6"
    (report,) = reports("mirror", q_offset=2)
    assert report == (
        "E312 'mirror' reads axis 'q' of 'Q' at the keys, -2 … 3, but it has length 6"
        " | here NQ = 6, NK = 6, q_offset = 2"
    )
    pattern("mirror")(*inputs())


# ---------------------------------------------------------------------------------- lse, weights, several


def test_lse_and_weights_that_do_not_exist() -> None:
    q, k, v = inputs()
    with pytest.raises(Diagnostic) as caught:
        pattern("squares")(q, k, v, return_lse=True)
    assert caught.value.code == "E313"
    assert caught.value.text == "'squares' has no lse: its weights are not one softmax"
    assert caught.value.advice == "call it without return_lse=True"
    for argument in ("return_lse", "return_weights"):
        asked: dict[str, Any] = {argument: True}
        with pytest.raises(Diagnostic) as caught:
            pattern("halves")(q, k, v, **asked)
        assert (caught.value.code, caught.value.advice) == ("E313", f"call it without {argument}=True")


def test_all_mistakes_of_a_call_come_together() -> None:
    q, k, v = inputs()
    found = reports("banded", q, k.int(), v, **banded(reach=0, slop=1, hidden=None, scale="a"))
    assert [report[:4] for report in found] == ["E301", "E302", "E307", "E304", "E303"]


def test_errors_have_a_form_for_programs() -> None:
    with pytest.raises(attnlang.AttnlangError) as caught:
        pattern("mirror")(*inputs(), widow=3)
    assert isinstance(caught.value, Diagnostics)
    assert caught.value.errors[0].to_dict()["code"] == "E301"


# ------------------------------------------------------------------------------------------ sizes alone


def test_masks_check_their_arguments_too() -> None:
    wrong: Any = 4.0
    with pytest.raises(Diagnostics) as caught:
        pattern("images").mask(0, wrong, heads=wrong, height=2, widht=2)
    assert [error.code for error in caught.value.errors] == ["E301", "E303", "E310", "E303", "E302"]
    with pytest.raises(Diagnostics) as caught:
        pattern("papers").mask(6, 6, ids=torch.zeros(2, 6, dtype=torch.int64))
    assert caught.value.errors[0].text == "'papers': axis 'b' of 'ids' must have length 1, this has 2"
    with pytest.raises(Diagnostics) as caught:
        pattern("beside").mask(6, 6, place=torch.zeros(6))
    assert caught.value.errors[0].code == "E312"


def test_masks_without_the_tensor_they_need() -> None:
    with pytest.raises(attnlang.AttnlangError, match="depends on ids, which was not given"):
        pattern("papers").mask(6, 6)
