"""The catalogue's examples, parsed and elaborated once, and calls of them by the oracle's cases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from attnlang import syntax
from attnlang.elaborate import elaborate
from attnlang.grammar.parser import parse_file
from attnlang.ir.interpret import Inputs, Result, evaluate, visible
from attnlang.ir.pattern import Pattern
from attnlang.source import Source
from tests.definitions import DEFINITIONS, Case
from tests.definitions import Result as Defined

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
EVERYTHING = frozenset(("out", "lse", "weights"))


@cache
def parsed(path: Path) -> syntax.File:
    """A file of the language as a tree."""
    return parse_file(Source(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))


@cache
def example(name: str) -> Pattern:
    """What the example of this name means."""
    return elaborate(parsed(EXAMPLES / f"{name}.attn"), name, {}, parsed(ROOT / "attnlang" / "prelude.attn"))


def call(case: Case, given: Mapping[str, Tensor]) -> Inputs:
    """The case as the interpreter takes it, with the defaults of the pattern."""
    pattern = example(case.name)
    sizes = {size: getattr(case, size) for size in ("B", "H", "HK", "NQ", "NK", "D", "DV")}
    scalars: dict[str, int | float | bool] = {
        "q_offset": case.NK - case.NQ if case.q_offset is None else case.q_offset,
        "scale": case.D**-0.5 if case.scale is None else case.scale,
    }
    for parameter in pattern.parameters:
        value = case.params.get(parameter.name, parameter.default)
        assert isinstance(value, bool | int | float)
        scalars[parameter.name] = value
    tensors = {tensor.name: given[tensor.name] for tensor in pattern.tensors}
    return Inputs(given["q"], given["k"], given["v"], sizes, scalars, tensors)


def run(
    case: Case,
    given: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float64,
    want: frozenset[str] = EVERYTHING,
) -> Result:
    """The example at the inputs of a case."""
    return evaluate(example(case.name), call(case, given), dtype=dtype, want=want)


def seen(case: Case, given: Mapping[str, Tensor]) -> Tensor:
    """The visibility of the example: bool [B or 1, H or 1, NQ, NK]."""
    return visible(example(case.name), call(case, given))


def define(case: Case, given: Mapping[str, Tensor]) -> Defined:
    """The definition at the inputs of a case."""
    return DEFINITIONS[case.name].function(**given, **case.params, scale=case.scale, q_offset=case.q_offset)
