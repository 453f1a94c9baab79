"""Forward and backward passes of the CPU benchmark, one query against many keys, and errors with large scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnlang.bench import Error, Measured, measure, upstream
from attnlang.bench_rivals import Absent, Ready, Rival, said
from benchmarks.cpu_cases import CASES, DTYPES, Case, eager, flex, inputs, ours, sdpa
from benchmarks.cpu_peak import loop

RIVALS = ("sdpa", "flex", "eager")
LONGEST_EAGER, LONGEST_EAGER_BACKWARD, LONGEST_REFERENCE_BACKWARD = 1024, 1024, 4096
LARGEST_SCORE = 30.0
ROUNDING = {"float32": 2.0**-22, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class Setting:
    """How it is measured: the target that stands for attnlang, heads, the rivals, seconds and runs for each."""

    target: str = "cpu"
    heads: int = 8
    rivals: tuple[str, ...] = RIVALS
    seconds: float = 2.0
    most: int = 200


def timed(
    name: str, tokens: int, features: int, dtype: str, setting: Setting, *, backward: bool = False
) -> dict[str, Any]:
    """One pattern at one size: times, ratios, errors, 10⁹ operations a second over the visible pairs."""
    case = CASES[name](tokens, setting.heads)
    tensors = inputs(tokens, features, DTYPES[dtype], setting.heads)
    rivals = [_prepared(each, case, setting, DTYPES[dtype], backward) for each in setting.rivals]
    row: dict[str, Any] = {"case": name, "N": tokens, "D": features, "dtype": dtype}
    products = 5 if backward else 2
    operations = 2 * products * case.pairs() * setting.heads * features
    return row | _measured(case, tensors, rivals, setting, operations, backward)


def decoded(tokens: int, features: int, dtype: str, setting: Setting) -> dict[str, Any]:
    """The last query of a sequence against all its keys."""
    case = Case("one query", "causal", tokens)
    tensors = inputs(tokens, features, DTYPES[dtype], setting.heads, queries=1)
    rivals = [_prepared(each, case, setting, DTYPES[dtype], False, queries=1) for each in setting.rivals]
    row: dict[str, Any] = {"case": case.name, "N": tokens, "D": features, "dtype": dtype}
    operations = 4 * tokens * setting.heads * features
    return row | _measured(case, tensors, rivals, setting, operations, False)


def _prepared(
    name: str, case: Case, setting: Setting, dtype: torch.dtype, backward: bool, queries: int | None = None
) -> Rival:
    try:
        return _rival(name, case, setting, dtype, backward, queries)
    except (RuntimeError, MemoryError, NotImplementedError) as error:  # its masks do not fit, or are refused
        return Absent(name, f"it raised {said(error)}")


def _rival(
    name: str, case: Case, setting: Setting, dtype: torch.dtype, backward: bool, queries: int | None
) -> Rival:
    tokens = case.tokens
    match name:
        case "sdpa":
            return sdpa(case, setting.heads, dtype)
        case "flex" if backward:
            return Absent(name, "FlexAttention has no backward pass on the CPU")
        case "flex":
            return flex(case)
        case "eager" if backward and tokens > LONGEST_EAGER_BACKWARD:
            return Absent(name, f"left out beyond {LONGEST_EAGER_BACKWARD:,} tokens: it keeps every pair")
        case "eager" if tokens > LONGEST_EAGER and queries is None:
            return Absent(name, f"left out beyond {LONGEST_EAGER:,} tokens: seconds for a call")
        case "eager":
            return eager(case)
        case _:
            raise ValueError(f"there is no rival {name!r}")


def _measured(
    case: Case, tensors: tuple[Tensor, Tensor, Tensor], rivals: Sequence[Rival], setting: Setting,
    operations: int, backward: bool,
) -> dict[str, Any]:  # fmt: skip
    """What was found, with the share of the processor's peak in the same turns; where attnlang itself fails, its report
    as `failed`."""
    dtype = str(tensors[0].dtype).removeprefix("torch.")
    peak = loop(dtype, torch.get_num_threads())
    try:
        found = measure(
            ours(case, setting.target), rivals, tensors, backward=backward, most=setting.most,
            seconds=setting.seconds, error=_error(case, tensors, backward),
            beside={} if peak is None else {"peak": peak.call},
        )  # fmt: skip
    except Exception as error:  # a target that fails on one pattern must not cost the other measurements
        return {"failed": said(error)}
    row = _row(found, operations)
    if peak is not None:
        row["peak_gflops"] = round(peak.operations / found.beside["peak"].median / 1e9, 1)
        row["share_of_peak"] = round(100 * row["entries"]["attnlang"]["gflops"] / row["peak_gflops"], 1)
    return row


def _row(found: Measured, operations: int) -> dict[str, Any]:
    entries = {
        each.name: {
            **{key: round(value, 5) for key, value in each.times.to_dict().items()},
            "gflops": round(operations / each.times.median / 1e9, 2), "error": each.error, "how": each.how,
        }
        for each in found.entries
    }  # fmt: skip
    ratios = {each.name: round(found.ratio(each), 3) for each in found.entries[1:]}
    return {"entries": entries, "ratio": ratios, "absent": {each.name: each.reason for each in found.absent}}


def _error(case: Case, tensors: tuple[Tensor, Tensor, Tensor], backward: bool) -> Error | None:
    """The largest error against float64 in the first head and, forward, the last; None where that is too large."""
    heads = tensors[0].shape[1]
    picked = slice(0, 1) if backward else slice(0, heads, max(1, heads - 1))
    if backward and case.tokens > LONGEST_REFERENCE_BACKWARD:
        return None
    leaves = [each[:, picked].double().requires_grad_(backward) for each in tensors]
    with torch.set_grad_enabled(backward):
        out = case.load().reference(leaves[0], leaves[1], leaves[2], **case.arguments(picked))
        gradient = upstream(torch.empty_like(tensors[0])).double()[:, picked]
        wanted = torch.autograd.grad(out, leaves, gradient) if backward else (out,)

    def error(found: Sequence[Tensor]) -> float:
        return max(
            float((result[:, picked].double() - right).abs().max())
            for result, right in zip(found, wanted, strict=True)
        )

    return error


# ------------------------------------------------------------------------------------------------------- accuracy


def accurate(name: str, tokens: int, features: int, dtype: str, setting: Setting) -> dict[str, Any]:
    """Errors against float64 with scores up to ±LARGEST_SCORE: of attnlang, of scaled_dot_product_attention where it
    can, of dense PyTorch; and what half types are allowed: twice the dense error and two roundings."""
    case = CASES[name](tokens, setting.heads)
    q, k, v = inputs(tokens, features, torch.float64, setting.heads)
    q = q * (LARGEST_SCORE * features**0.5 / float((q @ k.mT).abs().max()))
    given = [each.to(DTYPES[dtype]) for each in (q, k, v)]
    reference = case.load().reference(given[0], given[1], given[2], **case.arguments())
    row: dict[str, Any] = {"case": name, "N": tokens, "D": features, "dtype": dtype}
    errors: dict[str, float] = {}
    for each in (ours(case, setting.target), eager(case), sdpa(case, setting.heads, DTYPES[dtype])):
        if not isinstance(each, Ready):
            continue
        try:
            out = each.attend(given[0], given[1], given[2])
        except Exception as error:
            return row | {"failed": said(error)}
        errors[each.name] = float((out.double() - reference).abs().max())
    size = max(1.0, float(reference.abs().max()))
    return row | {"error": errors, "allowed": 2 * errors["eager"] + 2 * ROUNDING[dtype] * size}
