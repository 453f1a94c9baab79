"""Pattern: what the user holds and calls.

As in:

    pattern = attnlang.load("window.attn")
    out = pattern(q, k, v, window=512)
    out, lse = pattern(q, k, v, window=512, return_lse=True)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from attnlang import compiler, syntax
from attnlang.call import Call, bind, bind_sizes, check_block, check_position, check_wanted
from attnlang.call_ahead import bind_ahead
from attnlang.call_interface import Interface
from attnlang.call_tensors import dtype_name
from attnlang.execute_again import Again, Key, key_of
from attnlang.ir import pattern as ir

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from attnlang.claims import Verdict
    from attnlang.execute_ahead import Compiled, GpuTarget
    from attnlang.execute_ahead_cpu import CompiledCpp, CpuTarget
    from attnlang.flex import FlexParts
    from attnlang.ir.interpret import Result
    from attnlang.ir.plan import Report
    from attnlang.liveness import LiveKeys

MOST_AGAIN = 256
"""Calls that are kept ready to be made again."""


class Pattern:
    """An attention pattern. Two are equal when their trees are; `str(pattern)` is the canonical text."""

    def __init__(
        self,
        tree: syntax.File,
        name: str,
        meaning: ir.Pattern | None = None,
        given: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """`tree`: the pattern `name` and the definitions it uses, without imports; `meaning` where it is known;
        `given`: tensors that calls use unless they pass others."""
        self._tree = tree
        self._name = name
        self._meaning = meaning
        self._given = dict(given)
        self._again: dict[tuple[bool, Key], Again | None] = {}

    @staticmethod
    def of(definition: syntax.PatternDefinition, *definitions: syntax.Definition) -> Pattern:
        """The pattern of a tree that was not parsed; raises Diagnostics with every mistake of meaning."""
        tree = syntax.File((*definitions, definition), span=definition.span)
        return _pattern(compiler.compiled_tree(tree, definition.name))

    # ------------------------------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """As declared."""
        return self._name

    @property
    def doc(self) -> str:
        """The docstring, or nothing."""
        return self.ir.doc

    @property
    def params(self) -> Mapping[str, ir.Parameter]:
        """The parameters by name, in order: `dtype`, `bounds`, and `default` (None: must be given)."""
        return MappingProxyType(self._interface.parameters)

    @property
    def tensors(self) -> Mapping[str, ir.Tensor]:
        """The declared tensors by name, in order: `axes` (each with `written`) and `dtype`."""
        return MappingProxyType(self._interface.tensors)

    @property
    def tree(self) -> syntax.File:
        """The pattern as written, with the definitions it uses, without comments."""
        return self._tree

    @property
    def ir(self) -> ir.Pattern:
        """The pattern IR: what the pattern means."""
        if self._meaning is None:
            self._meaning = compiler.meaning(self._tree, self._name)
        return self._meaning

    @cached_property
    def _interface(self) -> Interface:
        return Interface(self.ir)

    def __str__(self) -> str:
        return compiler.text_of(self._tree)

    def __repr__(self) -> str:
        names = [*self._interface.parameters, *self._interface.tensors]
        return f"<attnlang.Pattern {self._name}({', '.join(names)})>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        return (self._name, self._tree) == (other._name, other._tree)

    def __hash__(self) -> int:
        return hash((self._name, self._tree))

    def __reduce__(self) -> tuple[type[Pattern], tuple[syntax.File, str, None, dict[str, Tensor]]]:
        return Pattern, (self._tree, self._name, None, self._given)

    def dense(self) -> Pattern:
        """The pattern without its sparsity: what it approximates."""
        return Pattern(compiler.dense(self._tree, self._name), self._name, given=self._given)

    def with_tensors(self, **tensors: Tensor) -> Pattern:
        """The same pattern, whose calls use these tensors unless they pass others by the same names."""
        return Pattern(self._tree, self._name, self._meaning, {**self._given, **tensors})

    @property
    def given(self) -> Mapping[str, Tensor]:
        """The tensors that calls use unless they pass others: those of `with_tensors` and of `from_flex`."""
        return MappingProxyType(self._given)

    # --------------------------------------------------------------------------------------------- calling

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        /,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        return_lse: bool = False,
        return_weights: bool = False,
        target: str | None = None,
        **arguments: object,
    ) -> Any:
        """The attention of q [B, H, NQ, D] to k [B, HK, NK, D] and v [B, HK, NK, DV].

        Returns out [B, H, NQ, DV], or the tuple of out and what else is asked for.

        `scale`: factor of the scores (default 1/√D). `q_offset`: position of the first query (default NK − NQ).
        `return_lse`, `return_weights`: also the log of the sum of exponentials [B, H, NQ], and the weights
        [B, H, NQ, NK], in this order. `target`: where it runs, by default the device of the tensors. `arguments`:
        the parameters and tensors of the pattern by name.

        Raises Diagnostics with every mistake of the arguments.
        """
        arguments = self._known(arguments)
        key = None if return_weights else key_of(q, k, v, scale, q_offset, target, arguments)
        if key is not None and (known := self._again.get((return_lse, key))) is not None:
            if (done := known(q, k, v, arguments)) is not None:
                return done if return_lse else done[0]
            self._again.pop((return_lse, key), None)
        inputs = (q, k, v, scale, q_offset, arguments)
        return compiler.untraced(self._call, inputs, return_lse, return_weights, target, key)

    def _call(
        self, inputs: tuple[Any, ...], lse: bool, weights: bool, target: str | None, key: Key | None
    ) -> Any:
        call = self._bind(*inputs)
        want = self._want(lse, weights)
        result = compiler.run(self.ir, call, target, want)
        if key is not None and (lse, key) not in self._again:
            if len(self._again) >= MOST_AGAIN:
                self._again.clear()
            self._again[lse, key] = compiler.again(self.ir, call, target, want)
        return _returned(result, lse, weights)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        /,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        return_lse: bool = False,
        return_weights: bool = False,
        target: str | None = None,
        **arguments: object,
    ) -> Any:
        """The same call, dense and in float64: the meaning of the pattern. `target` is ignored."""
        inputs = (q, k, v, scale, q_offset, self._known(arguments))
        return compiler.untraced(self._reference, inputs, return_lse, return_weights)

    def _reference(self, inputs: tuple[Any, ...], lse: bool, weights: bool) -> Any:
        call = self._bind(*inputs)
        return _returned(compiler.reference(self.ir, call, self._want(lse, weights)), lse, weights)

    def _bind(
        self,
        q: object,
        k: object,
        v: object,
        scale: object,
        q_offset: object,
        arguments: Mapping[str, object],
    ) -> Call:
        return bind(self._interface, q, k, v, scale=scale, q_offset=q_offset, arguments=arguments)

    def _known(self, arguments: dict[str, object]) -> dict[str, object]:
        """The arguments of a call and the tensors that it uses unless it passes others."""
        return {**self._given, **arguments} if self._given else arguments

    def _want(self, lse: bool, weights: bool) -> frozenset[str]:
        check_wanted(self._interface, lse=lse, weights=weights)
        return frozenset(("out", *(("lse",) if lse else ()), *(("weights",) if weights else ())))

    # ------------------------------------------------------------------------------- without calling it

    def check(self) -> tuple[Verdict, ...]:
        """A verdict for every `assert` of the pattern, in order: by a proof for all calls, else a search of small ones.

        Each has `outcome` ('proved', 'refuted', 'searched', 'undecided'), `cases` (calls tried), `reason` and
        `counterexample` (None unless refuted); `str()` says it in a line. Raises Diagnostics with the claims that
        cannot be asked.
        """
        from attnlang.claims import check_claims

        claimed = [claim.other for claim in self.ir.claims if claim.other]
        return check_claims(self.ir, {other: compiler.meaning(self._tree, other) for other in claimed})

    def mask(
        self,
        NQ: int,
        NK: int,
        *,
        heads: int = 1,
        kv_heads: int | None = None,
        batch: int = 1,
        q_offset: int | None = None,
        **arguments: object,
    ) -> Tensor:
        """What the queries see of the keys: bool [B or 1, H or 1, NQ, NK], 1 where it is the same for all.

        Tensors that the visibility does not read may be left out. Raises Diagnostics with every mistake of the
        arguments, and an AttnlangError where the visibility depends on Q and K or on a tensor that is missing.
        """
        binding = bind_sizes(
            self._interface, NQ, NK, heads=heads, kv_heads=kv_heads, batch=batch, q_offset=q_offset,
            arguments=self._known(arguments),
        )  # fmt: skip
        return compiler.mask(self.ir, binding)

    def plan(
        self,
        NQ: int,
        NK: int,
        *,
        heads: int = 1,
        kv_heads: int | None = None,
        head_dim: int = 128,
        value_dim: int | None = None,
        batch: int = 1,
        q_offset: int | None = None,
        dtype: str | torch.dtype = "bf16",
        target: str | None = None,
        **arguments: object,
    ) -> Report:
        """The decision record at a size: tiles, density, FLOPs, bytes, algorithm, predicted time, with reasons.

        `str()` prints it, `.to_dict()` is JSON, `.kv_live(q)` says which keys a decoder still needs. `target`: by
        default the GPU of this machine, else `cuda:90`. Tensors may be left out: what they decide is then not known,
        and the density has bounds. Raises Diagnostics with every mistake of the arguments.
        """
        binding = bind_sizes(
            self._interface, NQ, NK, heads=heads, kv_heads=kv_heads, batch=batch, head_dim=head_dim,
            value_dim=value_dim, q_offset=q_offset, arguments=arguments,
        )  # fmt: skip
        return compiler.report(self.ir, binding, target, dtype_name(self._interface.name, dtype))

    def kv_live(
        self,
        NK: int,
        q: int,
        *,
        heads: int = 1,
        kv_heads: int | None = None,
        batch: int = 1,
        **arguments: object,
    ) -> tuple[LiveKeys, ...]:
        """The keys that a decoder at position `q` may still need, for itself and all positions up to NK − 1.

        One entry per class of key/value heads with the same needs: `kv_heads`, `ranges` of keys (first, stop), `count`.
        What is in no range may be dropped from the cache; no key is left out that one of the queries can see. Queries
        at NK and beyond are not asked about: give the greatest length that decoding may reach. Tensors may be left
        out: what depends on them then stays. Raises Diagnostics with every mistake of the arguments.
        """
        from attnlang.liveness import live_keys

        binding = bind_sizes(
            self._interface, NK, NK, heads=heads, kv_heads=kv_heads, batch=batch, arguments=arguments
        )
        return live_keys(self.ir, binding, check_position(self._interface, q))

    def to_flex(
        self,
        NQ: int,
        NK: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        batch: int = 1,
        scale: float | None = None,
        q_offset: int | None = None,
        device: str | torch.device = "cpu",
        block_size: int = 128,
        **arguments: object,
    ) -> FlexParts:
        """The pattern for PyTorch's FlexAttention at a size: `flex_attention(q, k, v, **pattern.to_flex(…).arguments)`.

        `score_mod`, `mask_mod` and `block_mask`, which is built by classifying its blocks as a whole and not from the
        pairs: what cannot be decided is visited and masked. Batch entries and heads that see alike share their lists.
        `scale` as in a call; it is needed where the score uses `scale` otherwise than as a factor of the product of Q
        and K. `block_size`: keys and queries of a block.

        Raises Diagnostics with every mistake of the arguments, and NoFlexForm where the pattern is not one softmax
        attention over the keys with a score of the product of Q and K, or where the lists would not fit into memory.
        """
        from attnlang.flex import flex_parts

        binding = bind_sizes(
            self._interface, NQ, NK, heads=heads, kv_heads=kv_heads, batch=batch, scale=scale, q_offset=q_offset,
            arguments=self._known(arguments),
        )  # fmt: skip
        factor = None if scale is None else binding.scale
        return flex_parts(self.ir, binding, factor, device, check_block(self._interface, block_size))

    @overload
    def compile(
        self, *, target: GpuTarget, head_dim: int = 128, value_dim: int | None = None,
        dtype: str | torch.dtype = "bf16", return_lse: bool = False, **arguments: object,
    ) -> Compiled: ...  # fmt: skip

    @overload
    def compile(
        self, *, target: CpuTarget, head_dim: int = 128, value_dim: int | None = None,
        dtype: str | torch.dtype = "bf16", return_lse: bool = False, **arguments: object,
    ) -> CompiledCpp: ...  # fmt: skip

    @overload
    def compile(
        self, *, target: str | None = None, head_dim: int = 128, value_dim: int | None = None,
        dtype: str | torch.dtype = "bf16", return_lse: bool = False, **arguments: object,
    ) -> Compiled | CompiledCpp: ...  # fmt: skip

    def compile(
        self,
        *,
        target: str | None = None,
        head_dim: int = 128,
        value_dim: int | None = None,
        dtype: str | torch.dtype = "bf16",
        return_lse: bool = False,
        **arguments: object,
    ) -> Compiled | CompiledCpp:
        """The kernels for a target, ahead of time. For a GPU, which need not be here: `.source`, `.ptx`, `.cubin`,
        `.registers`, `.spills`, `.shared`. For `cpu` (the vector instructions of this machine) or `cpu:avx2` and its
        like: `.source` in C++ and `.library`, kept in the cache, where calls on this machine find it.

        They are those of calls with many queries (65 or more, on a CPU 33); kernels for fewer, and those of the
        backward pass, are made by calls.
        `arguments`: the values of parameters; those that shape the code must be known. `target`: by default the GPU
        of this machine, else `cuda:90`. Raises Diagnostics, or an AttnlangError where there is no kernel, or no
        C++ compiler for `cpu`.
        """
        calls = bind_ahead(self._interface, head_dim, value_dim, dtype, return_lse, arguments)
        return compiler.compile_ahead(self.ir, target, calls)


def load(path: str | Path, name: str | None = None) -> Pattern:
    """The pattern `name` of a file; without a name its only one, or the one named like the file.

    Raises Diagnostics (an AttnlangError) with every mistake of the file.
    """
    return _pattern(compiler.load(path, name))


def load_all(path: str | Path) -> dict[str, Pattern]:
    """Every pattern of a file by name, in order."""
    return {unit.name: _pattern(unit) for unit in compiler.load_all(path)}


def parse(text: str, name: str | None = None) -> Pattern:
    """The pattern of a text, as `load` reads it from a file; a text cannot import."""
    return _pattern(compiler.parse(text, name))


def _pattern(unit: compiler.Unit) -> Pattern:
    return Pattern(unit.tree, unit.name, unit.meaning)


def _returned(result: Result, lse: bool, weights: bool) -> Tensor | tuple[Tensor, ...]:
    """out alone, or with what else was asked for."""
    more = (result.lse if lse else None, result.weights if weights else None)
    asked = tuple(tensor for tensor in more if tensor is not None)
    return (result.out, *asked) if asked else result.out
