"""Whether two patterns can be called alike, so that `assert equal(other)` means something."""

from __future__ import annotations

from attnlang.call_interface import Interface
from attnlang.claims import not_meant
from attnlang.ir.pattern import Claim


def check_interfaces(interface: Interface, claim: Claim, other: Interface) -> None:
    """Raises ClaimNotMeant unless the two can be called alike."""
    for one, two in ((interface, other), (other, interface)):
        first, second = one.pattern.name, two.pattern.name
        for name, tensor in one.tensors.items():
            if name not in two.tensors and name in one.read:
                raise not_meant(interface, claim, f"'{first}' has a tensor '{name}', and '{second}' has none")
            if name in two.tensors:
                kinds = [
                    f"[{', '.join(axis.written for axis in found.axes)}]: {found.dtype}"
                    for found in (tensor, two.tensors[name])
                ]
                if kinds[0] != kinds[1]:
                    reason = f"the tensor '{name}' is {kinds[0]} in '{first}' and {kinds[1]} in '{second}'"
                    raise not_meant(interface, claim, reason)
        for name, parameter in one.parameters.items():
            if name not in two.parameters and parameter.default is None:
                reason = f"'{first}' has a parameter '{name}' without a default, and '{second}' has none"
                raise not_meant(interface, claim, reason)
            if name in two.parameters and parameter.dtype != two.parameters[name].dtype:
                reason = f"the parameter '{name}' is {parameter.dtype} in '{first}' and not in '{second}'"
                raise not_meant(interface, claim, reason)
