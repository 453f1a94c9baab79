"""A page with sliders: the predicates of a pattern as a script, its parameters as controls, in one HTML file."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from attnlang.call import Binding
from attnlang.call_numbers import Number, is_number, symbols_of
from attnlang.ir.pattern import Apply, Expr, Parameter, Pattern, Symbol
from attnlang.show_script import NotInAPage, Script, model_text
from attnlang.show_seen import Branch

LONGEST = 1024
"""Where the slider of the length ends."""
MOST_PAIRS = 2048
"""Sides of a mask that a page still shows."""
MOST_ELEMENTS = 1 << 18
"""Of a tensor that is written into a page."""
TEMPLATE = "show_page.html"


@dataclass(frozen=True)
class Page:
    """The text of an HTML file that needs nothing else, and why attentions of the pattern are not in it."""

    text: str
    left_out: tuple[str, ...]


def page_of(
    pattern: Pattern,
    branches: Sequence[Branch],
    binding: Binding,
    *,
    text: str,
    head: int = 0,
    batch: int = 0,
    tile: int = 64,
    all_needed: bool = False,
) -> Page:
    """The page of a pattern that starts at the sizes, parameters and tensors of a call, NQ = NK = N.

    `text`: the pattern as it is shown. Attentions that a page cannot compute are left out, unless all are needed or
    none is left. Raises NotInAPage.
    """
    script = Script(pattern)
    printed: dict[str, str] = {}
    refused: list[tuple[str, NotInAPage]] = []
    for branch in branches:
        name = branch.attention.name
        try:
            printed[name] = script.branch(branch)
        except NotInAPage as mistake:
            refused.append((name, mistake))
    if refused and (all_needed or not printed):
        raise refused[0][1]
    left_out = tuple(f"'{name}' is not in the page: {mistake.fields['reason']}" for name, mistake in refused)
    numbers = {**binding.sizes, **binding.scalars}
    numbers["NQ"], numbers["q_offset"] = numbers["NK"], 0
    requirements = [
        f"[{_json(each.written)}, () => {script.text(each.condition)}]"
        for each in pattern.requirements
        if is_number(each.condition)
    ]
    tensors = {name: _embedded(pattern.name, name, binding.tensors[name]) for name in script.tensors}
    spec = {
        "name": pattern.name,
        "text": text.strip(),
        "numbers": numbers,
        "controls": [
            _control(each, numbers[each.name], _fixed_by_tensors(script)) for each in pattern.parameters
        ],
        "length": _length(script, binding.sizes["NK"]),
        "branches": list(printed),
        "heads": binding.sizes["H"],
        "head": head,
        "batch": batch,
        "tile": tile,
        "notes": [*_tensor_notes(tensors), *left_out],
    }
    parts = [
        f"const spec = {_json(spec)};",
        f"const tensors = {_json(tensors)};",
        model_text(script, printed, list(numbers), requirements),
        f"const lengthOf = {_length_of(pattern, script, list(numbers))};",
    ]
    template = files("attnlang").joinpath(TEMPLATE).read_text("utf-8")
    page = template.replace("{{title}}", html.escape(pattern.name)).replace("{{model}}", "\n".join(parts))
    return Page(page, left_out)


# ------------------------------------------------------------------------------------------------- controls


def _control(parameter: Parameter, value: Number, fixed: frozenset[str]) -> dict[str, Any]:
    """A parameter as a control: its range is what it is declared to be, the end of its slider a guess."""
    least = _bound(parameter, ("ge", "gt", "eq"))
    most = _bound(parameter, ("le", "lt", "eq"))
    if parameter.name in fixed:  # the tensors in the page are no longer
        most = value if most is None else min(most, value)
    if most is not None:
        end = most
    elif parameter.dtype == "int":
        end = max(16, 2 * value)
    else:
        end = max(1.0, 2 * abs(value))
    if least is None and parameter.dtype != "bool":
        least = min(0, 2 * value)
    return {
        "name": parameter.name,
        "kind": parameter.dtype,
        "value": value,
        "min": least,
        "max": end,
        "limit": most,
    }


def _bound(parameter: Parameter, kinds: tuple[str, ...]) -> Number | None:
    """The nearest number that a declared bound allows."""
    found = [(kind, bound) for kind, bound in parameter.bounds if kind in kinds]
    if not found:
        return None
    kind, bound = found[0]
    if kind not in ("gt", "lt"):
        return bound
    if parameter.dtype == "int":
        return bound + 1 if kind == "gt" else bound - 1
    return math.nextafter(bound, math.inf if kind == "gt" else -math.inf)


def _length(script: Script, value: int) -> dict[str, Any]:
    """The length as a control; tensors over tokens end it where they end."""
    limit = value if _over_tokens(script) else MOST_PAIRS
    return {"kind": "int", "value": value, "min": 1, "max": min(max(LONGEST, value), limit), "limit": limit}


def _over_tokens(script: Script) -> bool:
    return bool({"NQ", "NK"} & _fixed_by_tensors(script))


def _fixed_by_tensors(script: Script) -> frozenset[str]:
    """The symbols on which the lengths of the tensors in the page depend."""
    axes = (axis for name in script.tensors for axis in script.declared[name].axes)
    return frozenset(symbol for axis in axes for symbol in symbols_of(axis.size))


def _length_of(pattern: Pattern, script: Script, names: Sequence[str]) -> str:
    """`NK == height * width` as a function of the parameters; null where the pattern requires nothing of the kind."""
    for requirement in pattern.requirements:
        match requirement.condition:
            case Apply("eq", (Symbol("NK", _), size)) | Apply("eq", (size, Symbol("NK", _))) if _is_given(
                size
            ):
                unpacked = ", ".join(f"{name}: ${name}" for name in names)
                return f"({{{unpacked}}}) => {script.text(size)}"
            case _:
                pass
    return "null"


def _is_given(size: Expr) -> bool:
    """Whether parameters alone decide a length."""
    return is_number(size) and bool(symbols_of(size)) and not {"NQ", "NK"} & set(symbols_of(size))


# -------------------------------------------------------------------------------------------------- tensors


def _embedded(pattern: str, name: str, tensor: Any) -> dict[str, Any]:
    """A tensor as nested data of a script: its shape, and its values in order."""
    array = np.asarray(tensor)
    if array.size > MOST_ELEMENTS:
        reason = f"'{name}' has {array.size:,} elements, more than the {MOST_ELEMENTS:,} that a page can hold"
        raise NotInAPage(None, "try a smaller -n", name=pattern, reason=reason)
    values = array.astype(np.int64) if array.dtype == np.bool_ else array
    return {"shape": list(array.shape), "values": values.ravel().tolist()}


def _tensor_notes(tensors: Mapping[str, Any]) -> list[str]:
    if not tensors:
        return []
    many = len(tensors) > 1
    return [f"The tensor{'s' * many} {', '.join(tensors)} {'hold' if many else 'holds'} random values."]


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
