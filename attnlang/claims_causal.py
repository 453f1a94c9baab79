"""`assert causal`: no output depends on a later token, by any route.

Everything that belongs to the tokens after a position is changed: rows of Q, K and V, and what tensors hold along q, k
and n. The outputs up to the position must stay as they are. What a tensor holds for a whole group (blocks, pages) or
for a head belongs to no token, and the number of tokens stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import chain, product

import torch
from torch import Tensor

from attnlang.call_interface import Interface
from attnlang.claims import Counterexample, Verdict
from attnlang.claims_cases import Case, Search
from attnlang.claims_inputs import Kind, axes_of, call_inputs, differ, draw, first_place, fits
from attnlang.claims_verdicts import counterexample, searched
from attnlang.ir.interpret import evaluate
from attnlang.ir.pattern import Claim

BASES: tuple[Kind, ...] = ("usual", "ties")
CHANGES: tuple[Kind, ...] = ("usual", "sharp", "ties")
MOST_CUTS, FEW_CUTS = 11, 3
_NEVER = 2**62

Tensors = Mapping[str, Tensor]


def causal(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert causal`; queries are positions of the keys."""
    search = Search(interface, dict(claim.where), inside=True)
    return searched(interface, claim, search, lambda case: _attempt(interface, case))


def _attempt(interface: Interface, case: Case) -> Counterexample | bool:
    trial = _Trial.of(interface, case)
    if trial is None:
        return False
    leaks = trial.leaks()
    if leaks is None:
        return False
    for leak in leaks:
        found = trial.counterexample(leak)
        if found is not None:
            return found
    return True


@dataclass(frozen=True)
class _Leak:
    """Two calls of one batch entry that differ in tokens after `cut` only, and the row and head where they show it."""

    cut: int
    row: int
    head: int
    before: Tensors
    after: Tensors


@dataclass(frozen=True)
class _Trial:
    """One case. `base`: the unchanged tensors, a batch entry for each kind; `tokens`: the positions that the elements
    of a tensor belong to, shaped to stand beside it."""

    interface: Interface
    case: Case
    base: Tensors
    tokens: Tensors

    @staticmethod
    def of(interface: Interface, case: Case) -> _Trial | None:
        """None where the call is refused."""
        if not fits(interface.pattern, case, len(BASES) * (1 + MOST_CUTS * len(CHANGES))):
            return None
        base = draw(interface.pattern, case, BASES, seed=1)
        if call_inputs(interface, case, base) is None:
            return None
        read = {name: axes for name, axes in axes_of(interface.pattern).items() if _matters(interface, name)}
        tokens = {name: _tokens(axes, base[name], case) for name, axes in read.items()}
        known = {name: positions for name, positions in tokens.items() if positions is not None}
        return _Trial(interface, case, base, known)

    # ----------------------------------------------------------------------------------------- evaluation

    def results(self, tensors: Tensors) -> Tensor | None:
        """Output and lse [B, H, NQ, DV or DV + 1]; None where the call is refused."""
        inputs = call_inputs(self.interface, self.case, tensors)
        if inputs is None:
            return None
        want = frozenset(("out", "lse"))
        result = evaluate(self.interface.pattern, inputs, dtype=torch.float64, want=want)
        return result.out if result.lse is None else torch.cat([result.out, result.lse.unsqueeze(-1)], -1)

    def batch_axis(self, name: str) -> int | None:
        """Where a tensor has its batch axis."""
        axes = axes_of(self.interface.pattern)[name]
        return axes.index("b") if "b" in axes else None

    def pick(self, tensors: Tensors, entries: list[int]) -> dict[str, Tensor]:
        """The tensors with these batch entries."""
        chosen = torch.tensor(entries)
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            dim = self.batch_axis(name)
            found[name] = tensor if dim is None else tensor.index_select(dim, chosen)
        return found

    # --------------------------------------------------------------------------------------------- search

    def cuts(self, most: int) -> list[int]:
        """Positions of queries that have later tokens, spread evenly where there are many."""
        first = self.case.q_offset
        last = max(self.case.sizes["NK"], first + self.case.sizes["NQ"]) - 1
        found = [place for place in range(first, first + self.case.sizes["NQ"]) if place < last]
        if len(found) <= most:
            return found
        return sorted({found[round(step * (len(found) - 1) / (most - 1))] for step in range(most)})

    def leaks(self) -> Iterator[_Leak] | None:
        """Changes that reach an earlier output: those within batch entries, then those of tensors without a batch.
        None where the changed call is refused."""
        plan = self._plan()
        cuts = torch.tensor([cut for _, cut, _ in plan])
        before, after = self._entries(plan, cuts)
        results = self.results(after)
        if results is None:
            return None
        base = results[: len(BASES)]
        of_entries = self._compared(before, after, base[[entry for entry, _, _ in plan]], results, cuts)
        return chain(of_entries, self._leaks_of_tables(base))

    def _plan(self) -> list[tuple[int, int, Kind]]:
        """For every batch entry which base it is, after which position it is changed, and how; the bases first."""
        plan: list[tuple[int, int, Kind]] = []
        for entry, kind in enumerate(BASES):
            plan.append((entry, _NEVER, kind))
        for entry in range(len(BASES)):
            for cut in self.cuts(MOST_CUTS):
                for kind in CHANGES:
                    plan.append((entry, cut, kind))
        return plan

    def _entries(self, plan: list[tuple[int, int, Kind]], cuts: Tensor) -> tuple[Tensors, Tensors]:
        """The tensors of all batch entries without and with their changes."""
        before = self.pick(self.base, [entry for entry, _, _ in plan])
        others = draw(self.interface.pattern, self.case, [kind for _, _, kind in plan], seed=2)
        after = dict(before)
        for name, tokens in self.tokens.items():
            dim = self.batch_axis(name)
            if dim is not None:
                limit = cuts.reshape([-1 if place == dim else 1 for place in range(tokens.dim())])
                after[name] = torch.where(tokens > limit, others[name], before[name])
        return before, after

    def _leaks_of_tables(self, base: Tensor) -> Iterator[_Leak]:
        if all(self.batch_axis(name) is not None for name in self.tokens):
            return
        for cut, (turn, kind) in product(self.cuts(FEW_CUTS), enumerate(CHANGES)):
            kinds: list[Kind] = [kind] * len(BASES)
            others = draw(self.interface.pattern, self.case, kinds, seed=3 + turn)
            after = dict(self.base)
            for name, tokens in self.tokens.items():
                after[name] = torch.where(tokens > cut, others[name], self.base[name])
            results = self.results(after)
            if results is not None:
                yield from self._compared(self.base, after, base, results, torch.full((len(BASES),), cut))

    def _compared(
        self, before: Tensors, after: Tensors, one: Tensor, other: Tensor, cuts: Tensor
    ) -> Iterator[_Leak]:
        places = self.case.q_offset + torch.arange(self.case.sizes["NQ"])
        changed = differ(one, other).any(-1) & (places <= cuts.reshape(-1, 1, 1))
        place = first_place(changed)
        if place is not None:
            entry, head, row = place
            yield _Leak(int(cuts[entry]), row, head, self.pick(before, [entry]), self.pick(after, [entry]))

    # ------------------------------------------------------------------------------------- counterexample

    def counterexample(self, leak: _Leak) -> Counterexample | None:
        """The first later token, and the tensor, whose change alone reaches the output; where none does alone, one
        that does after others have changed. None where only rounding did."""
        atoms = list(self._atoms(leak))
        for atom in atoms:
            found = self._told(leak, leak.before, atom, "")
            if found is not None:
                return found
        low, high = 0, len(atoms)  # the first `low` changes do not reach the output, the first `high` do
        before = self._output(leak, leak.before)
        while high - low > 1:
            middle = (low + high) // 2
            after = self._output(leak, self._changed(leak.before, leak, atoms[:middle]))
            reached = before is not None and after is not None and bool(differ(before, after).any())
            low, high = (low, middle) if reached else (middle, high)
        start = self._changed(leak.before, leak, atoms[:low])
        return self._told(leak, start, atoms[low], " after other later tokens have")

    def _output(self, leak: _Leak, tensors: Tensors) -> Tensor | None:
        """The numbers of the row and head of a leak; None where the call is refused."""
        results = self.results(tensors)
        return None if results is None else results[0, leak.head, leak.row]

    def _atoms(self, leak: _Leak) -> Iterator[tuple[str, int]]:
        """Tensors and tokens after the cut, in the order of tokens."""
        changing = {
            name: tokens for name, tokens in self.tokens.items() if leak.before[name] is not leak.after[name]
        }
        last = max(int(tokens.max()) for tokens in changing.values())
        order = sorted(changing, key=lambda name: ("KVQ".find(name) if name in "KVQ" else 3, name))
        for token in range(leak.cut + 1, last + 1):
            for name in order:
                if bool((changing[name] == token).any()):
                    yield name, token

    def _changed(self, start: Tensors, leak: _Leak, atoms: list[tuple[str, int]]) -> dict[str, Tensor]:
        found = dict(start)
        for name, token in atoms:
            found[name] = torch.where(self.tokens[name] == token, leak.after[name], found[name])
        return found

    def _told(self, leak: _Leak, start: Tensors, atom: tuple[str, int], after: str) -> Counterexample | None:
        """The counterexample that one more change makes, if it does."""
        first, second = self._output(leak, start), self._output(leak, self._changed(start, leak, [atom]))
        if first is None or second is None or not bool(differ(first, second).any()):
            return None
        (name, token), query = atom, leak.row + self.case.q_offset
        place = int(differ(first, second).nonzero()[0])
        what = "lse" if place == self.case.sizes["DV"] else f"output[{place}]"
        values = (
            f"{what} goes from {float(first[place]):.4g} to {float(second[place]):.4g} as it changes{after}"
        )
        whose = "query" if name == "Q" else "token"
        found = f"the output of q = {query} depends on {whose} {token}, through {name}: {values}"
        at = {"b": 0, "h": leak.head, "q": query, "k": token}
        return counterexample(self.case, at, found, start)


def _matters(interface: Interface, name: str) -> bool:
    return name in ("Q", "K", "V") or name in interface.read


def _tokens(axes: tuple[str, ...], tensor: Tensor, case: Case) -> Tensor | None:
    """For every element the last position it belongs to, with length 1 along other axes; None: to no token."""
    found: list[Tensor] = []
    for dim, index in enumerate(axes):
        if index in ("q", "k", "n"):
            start = case.q_offset if index == "q" else 0
            places = torch.arange(start, start + tensor.shape[dim])
            found.append(places.reshape([-1 if place == dim else 1 for place in range(len(axes))]))
    return reduce(torch.maximum, found) if found else None
