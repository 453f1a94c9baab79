"""Diagnostics of the two ways between patterns and FlexAttention."""

from __future__ import annotations

from attnlang.errors import Diagnostic


class CannotTraceTorch(Diagnostic):
    """A function of PyTorch that patterns have no operation for."""

    code = "E280"
    message = "{what} has no counterpart in a pattern"
    hint = "an elementwise function of numbers has one: exp, tanh, where, abs, clamp, …"


class CannotTraceIndex(Diagnostic):
    """A captured tensor is read in a way that gives no single element."""

    code = "E281"
    message = "a captured tensor is read {how}"
    hint = "write one index for each of its axes: tensor[b, h, q_idx]"


class CannotBranch(Diagnostic):
    """Python asks for the value of something that depends on q_idx, kv_idx or the score."""

    code = "E282"
    message = "this has no value yet: the function is traced once, for every b, h, q_idx and kv_idx at the same time"
    hint = (
        "write torch.where(c, x, y) for 'if', & | ~ for 'and or not', (a <= x) & (x < b) for a chain, "
        "torch.maximum(x, y) for 'max'"
    )


class CannotTraceFunction(Diagnostic):
    """A function that is no mask_mod or score_mod, or that fails when it is traced."""

    code = "E283"
    message = "'{name}' {what}"


class NoFlexForm(Diagnostic):
    """FlexAttention has one softmax attention over the keys, a score of the product of Q and K, and the values V."""

    code = "E284"
    message = "'{pattern}' has no form in FlexAttention: {reason}"
