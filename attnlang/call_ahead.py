"""What is known of a pattern's calls before there are any, checked: number format, features, values of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnlang.call import check_lengths, check_wanted
from attnlang.call_interface import Interface, bind_names, bind_parameters
from attnlang.call_numbers import Number
from attnlang.call_tensors import dtype_name
from attnlang.errors import Diagnostics
from attnlang.ir.kernel import Type


@dataclass(frozen=True)
class Ahead:
    """Calls to compile for: the type of Q, K and V, their features, the parameters that are known, and whether the lse
    is wanted."""

    dtype: Type
    head_dim: int
    value_dim: int
    parameters: Mapping[str, Number]
    lse: bool


def bind_ahead(
    interface: Interface,
    head_dim: object,
    value_dim: object,
    dtype: object,
    return_lse: bool,
    arguments: Mapping[str, object],
) -> Ahead:
    """The arguments of a compilation ahead of time; raises Diagnostics with every mistake in them, UnknownDType."""
    mistakes = bind_names(interface, arguments, all_tensors=False)
    parameters, found = bind_parameters(interface, arguments, partly=True)
    lengths = {"D": ("head_dim", head_dim), "DV": ("value_dim", value_dim)}
    sizes, wrong = check_lengths(interface, lengths)
    if mistakes + found + wrong:
        raise Diagnostics(mistakes + found + wrong)
    check_wanted(interface, lse=return_lse, weights=False)
    return Ahead(dtype_name(interface.name, dtype), sizes["D"], sizes["DV"], parameters, return_lse)
