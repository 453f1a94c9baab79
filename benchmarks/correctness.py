"""Every generated kernel against its pattern's reference on fresh random inputs, by the 2× rule."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import attnlang
from attnlang.errors import AttnlangError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.definitions import DEFINITIONS, Case, cases  # noqa: E402

ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-22}


@dataclass(frozen=True)
class Check:
    """One kernel on one case: its largest error, that of dense PyTorch in the same type, and whether it passes."""

    pattern: str
    case: str
    dtype: str
    error: float
    dense_error: float
    passed: bool
    note: str = ""


def patterns(sections: str = "AB") -> list[str]:
    """The catalogue's patterns of these sections."""
    return [name for name, definition in DEFINITIONS.items() if definition.section in sections]


def check_pattern(
    name: str, device: str, target: str | None, dtypes: list[str], seed: int, most: int
) -> list[dict[str, Any]]:
    """All checks of one pattern, as plain data: this runs in worker processes."""
    pattern = attnlang.load(ROOT / "examples" / f"{name}.attn")
    found: list[Check] = []
    for case in cases(name)[:most]:
        for dtype in dtypes:
            found.append(_check(pattern, case, getattr(torch, dtype), device, target, seed))
    return [asdict(check) for check in found]


def _check(
    pattern: attnlang.Pattern, case: Case, dtype: torch.dtype, device: str, target: str | None, seed: int
) -> Check:
    inputs = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).to(device)
        for name, tensor in case.make_inputs(seed).items()
    }
    q, k, v = (inputs.pop(name) for name in "qkv")
    call: dict[str, Any] = {"q_offset": case.q_offset, "scale": case.scale, **case.params, **inputs}
    shown = str(dtype).removeprefix("torch.")
    try:
        out = pattern(q, k, v, target=target, **call).double()
    except AttnlangError as error:
        return Check(case.name, case.id, shown, float("nan"), float("nan"), False, str(error).splitlines()[0])
    reference = pattern.reference(q, k, v, **call)
    dense = pattern(q, k, v, target="eager", **call).double()
    error, dense_error = ((value - reference).abs().max().item() for value in (out, dense))
    size = max(1.0, reference.abs().max().item())
    return Check(
        case.name, case.id, shown, error, dense_error, error <= 2 * dense_error + 2 * ROUNDING[dtype] * size
    )
