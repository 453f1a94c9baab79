"""Random well-typed expressions of the language, as text: what may be read where, and all operators and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

Scope = Mapping[str, str]
"""Index variables and what each counts: query key position head kv_head batch feature value_feature, `group c`
(of the coarse index c), `range 3`."""

POSITIONS = ("query", "key", "position")


@dataclass(frozen=True)
class Readable:
    """Something declared: read by indices of these kinds, it is a float, int, bool, or a vector `D`, `DV`, `3`."""

    name: str
    slots: tuple[str, ...]
    kind: str


@dataclass
class Writer:
    """Writes expressions over what has been declared so far."""

    random: Random
    equal_lengths: bool = False
    readables: list[Readable] = field(default_factory=list[Readable])
    floats: list[str] = field(default_factory=list[str])
    ints: list[str] = field(default_factory=list[str])
    bools: list[str] = field(default_factory=list[str])
    groups: dict[str, bool] = field(default_factory=dict[str, bool])
    """Coarse indices, and whether a position is in at most one group."""
    grid: bool = False
    functions: list[str] = field(default_factory=list[str])
    relations: list[tuple[str, tuple[str, ...]]] = field(default_factory=list[tuple[str, tuple[str, ...]]])
    fresh: int = 0

    # ------------------------------------------------------------------------------------------- helpers

    def pick(self, options: list[str]) -> str:
        return self.random.choice(options)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def variable(self) -> str:
        self.fresh += 1
        return f"v{self.fresh}"

    def of_kind(self, scope: Scope, *kinds: str) -> list[str]:
        return [name for name, kind in scope.items() if kind in kinds]

    def any_of(self, choices: list[Callable[[], str | None]]) -> str:
        """One of the choices that can be made here."""
        order = self.random.sample(choices, len(choices))
        for make in order:
            text = make()
            if text is not None:
                return text
        raise AssertionError("nothing can be written here")

    # ------------------------------------------------------------------------------------------- indices

    def index(self, slot: str, scope: Scope, depth: int) -> str | None:
        """An expression that may stand at an axis of this kind, and lies inside."""
        names = self.of_kind(scope, slot)
        match slot.split():
            case ["range", length]:
                plain = [
                    str(self.random.randrange(int(length))),
                    f"({self.int(scope, depth - 1)}) mod {length}",
                ]
                return self.pick(plain + names * 2)
            case ["group", _]:
                return self.group_index(slot, scope) if not names or self.chance(0.2) else self.pick(names)
            case ["head"]:
                return self.pick([*names, *names, "(h + 1) mod H", "0"] if "h" in scope else names or ["0"])
            case ["kv_head"]:
                heads = [f"g({name})" for name in self.of_kind(scope, "head")]
                return self.pick(names + heads or ["0"])
            case ["batch"]:
                return self.pick(names or ["0"])
            case ["query"]:
                return self.pick(names) if names else None
            case ["key"]:
                both = (
                    self.of_kind(scope, *POSITIONS)
                    if self.equal_lengths
                    else self.of_kind(scope, "key", "position")
                )
                return self.position(both, scope, depth)
            case ["position"]:
                return self.position(self.of_kind(scope, *POSITIONS), scope, depth)
            case _:
                return self.pick([*names, "0", "1"])

    def position(self, names: list[str], scope: Scope, depth: int) -> str:
        plain = [f"clip({self.int(scope, depth - 1)}, 0, NK - 1)", "0"]
        if names:
            plain += [f"max({self.pick(names)} - 1, 0)"] + names * 4
        return self.pick(plain)

    def group_index(self, slot: str, scope: Scope) -> str | None:
        name = slot.split()[1]
        of = self.of_kind(scope, "query") if name.startswith("i") else self.of_kind(scope, "key", "position")
        if self.groups[name] and of and self.chance(0.7):
            return f"block({self.pick(of)}, {name})"
        return "0"

    def read(self, kind: str, scope: Scope, depth: int) -> str | None:
        """A declared tensor, table or result of this kind, with all indices written."""
        fitting = [one for one in self.readables if one.kind == kind]
        self.random.shuffle(fitting)
        for one in fitting:
            at = [self.index(slot, scope, depth) for slot in one.slots]
            if None not in at:
                return f"{one.name}[{', '.join(map(str, at))}]" if at else one.name
        return None

    # ------------------------------------------------------------------------------------------- numbers

    def domain(self, scope: Scope) -> tuple[str, str]:
        """What a reduction goes through, and the kind of its variable."""
        groups = [kind for kind in scope.values() if kind.startswith("group ")]
        options = [
            ("keys", "key"), ("queries", "query"), ("positions", "position"), ("heads", "head"),
            ("kv_heads", "kv_head"), ("3", "range 3"), ("2", "range 2"),
        ]  # fmt: skip
        if "h" in scope:
            options.append(("group(h)", "head"))
        for name, kind in scope.items():
            if kind in groups:
                member = "query" if kind.split()[1].startswith("i") else "key"
                options += [(name, member)] * 3
        options += [(f"groups({name})", f"group {name}") for name in self.groups]
        return self.random.choice(options)

    def reduction(self, ops: list[str], body: Callable[[Scope], str], scope: Scope, depth: int) -> str:
        domain, kind = self.domain(scope)
        name = self.variable()
        inner = {**scope, name: kind}
        condition = f" if {self.bool(inner, depth - 1)}" if self.chance(0.4) else ""
        return f"{self.pick(ops)}({body(inner)} for {name} in {domain}{condition})"

    def int(self, scope: Scope, depth: int) -> str:
        counted = [name for name, kind in scope.items() if kind not in ("batch", "feature", "value_feature")]
        atoms = [str(self.random.randrange(4)), *counted, *counted, *self.ints, "NK"]
        if depth <= 0:
            return self.pick(atoms)
        a, b = (lambda: self.int(scope, depth - 1)), self.random.randrange(1, 4)

        def of_group() -> str | None:
            names = [name for name, kind in scope.items() if kind.startswith("group ")]
            return f"{self.pick(names)}.{self.pick(['first', 'last', 'size'])}" if names else None

        def coordinate() -> str | None:
            names = self.of_kind(scope, *POSITIONS)
            return f"{self.pick(names)}.{self.pick(['y', 'x'])}" if names and self.grid else None

        return self.any_of(
            [
                lambda: self.pick(atoms),
                lambda: f"({a()} {self.pick(['+', '-'])} {a()})",
                lambda: f"{self.pick(['min', 'max'])}({a()}, {a()})",
                lambda: f"({a()}) {self.pick(['//', 'mod'])} {b}",
                lambda: f"{self.pick(['abs', 'sign', '-'])}({a()})",
                lambda: f"({a()} if {self.bool(scope, depth - 1)} else {a()})",
                lambda: f"int({self.bool(scope, depth - 1)})",
                lambda: f"floor({self.float(scope, depth - 1)} * 0.7 + 0.123)" if self.chance(0.3) else None,
                lambda: self.reduction(["count"], lambda s: self.bool(s, depth - 2), scope, depth - 1),
                lambda: self.reduction(["sum"], lambda s: self.int(s, depth - 2), scope, depth - 1),
                lambda: self.read("int", scope, depth),
                of_group,
                of_group,
                coordinate,
                coordinate,
            ]
        )

    def bool(self, scope: Scope, depth: int) -> str:
        def relation() -> str | None:
            options = self.random.sample(self.relations, len(self.relations))
            for name, slots in options:
                at = [self.asked(slot, scope, depth) for slot in slots]
                if None not in at:
                    return f"{name}({', '.join(map(str, at))})"
            return None

        a = lambda: self.int(scope, min(depth - 1, 1))  # noqa: E731
        compare = lambda: self.pick(["<", "<=", ">", ">=", "==", "!="])  # noqa: E731
        choices: list[Callable[[], str | None]] = [
            lambda: f"{a()} {compare()} {a()}",
            lambda: f"{a()} <= {a()} < {a()}",
            lambda: self.read("bool", scope, depth),
            lambda: self.pick(self.bools) if self.bools else None,
            relation,
            relation,
        ]
        if {"query", "key"} <= set(scope.values()):
            q, k = self.pick(self.of_kind(scope, "query")), self.pick(self.of_kind(scope, "key"))
            choices += [
                lambda: f"{k} <= {q}",
                lambda: f"abs({q} - {k}) <= 1",
                lambda: f"({q} - {k}) mod 2 == 0",
            ]
        if depth > 0:
            choices += [
                lambda: (
                    f"({self.bool(scope, depth - 1)} {self.pick(['and', 'or'])} {self.bool(scope, depth - 1)})"
                ),
                lambda: f"not ({self.bool(scope, depth - 1)})",
                lambda: self.reduction(["any", "all"], lambda s: self.bool(s, depth - 2), scope, depth - 1),
                lambda: f"({self.float(scope, depth - 1)}) * 1.3 > 0.0717",
            ]
        return self.any_of(choices)

    def asked(self, slot: str, scope: Scope, depth: int) -> str | None:
        """What may stand in a relation: a group, or a position of one of its members."""
        if slot.startswith("group ") and self.chance(0.7):
            kinds = ("query",) if slot.split()[1].startswith("i") else ("key", "position")
            names = self.of_kind(scope, *kinds)
            if names:
                return self.pick(names)
        return self.index(slot, scope, depth)

    def float(self, scope: Scope, depth: int) -> str:
        a = lambda: self.float(scope, depth - 1)  # noqa: E731

        def dot() -> str | None:
            q, k = self.index("query", scope, 0), self.of_kind(scope, "key", "position")
            return (
                f"Q[{q}] @ K[{self.pick(k)}] * scale" if q and k and "h" in scope and "b" in scope else None
            )

        atoms: list[Callable[[], str | None]] = [
            lambda: self.read("float", scope, depth),
            lambda: self.read("float", scope, depth),
            dot,
            dot,
            lambda: self.pick(["0.5", "-1.25", "2", "scale", "pi", *self.floats]),
        ]
        if depth <= 0:
            return self.any_of(atoms)
        smooth = [
            "tanh",
            "sigmoid",
            "softplus",
            "sin",
            "cos",
            "erf",
            "atan",
            "relu",
            "elu",
            "abs",
            "silu",
            "gelu",
            "square",
        ]
        return self.any_of(
            [
                *atoms,
                lambda: f"({a()} {self.pick(['+', '-', '*'])} {a()})",
                lambda: f"({a()} {self.pick(['+', '-', '*'])} {a()})",
                lambda: f"{self.pick(smooth)}({a()})",
                lambda: f"{self.pick(['exp', 'expm1', 'exp2'])}(min({a()}, 2))",
                lambda: f"{self.pick(['sqrt', 'ln', 'log2', 'rsqrt', 'log1p'])}(abs({a()}) + 0.1)",
                lambda: f"{a()} / (1 + ({a()}) ** 2)",
                lambda: f"({a()}) ** {self.random.randrange(4)}",
                lambda: f"{self.pick(['min', 'max'])}({a()}, {a()})",
                lambda: f"clip({a()}, -1.5, 1.5)",
                lambda: f"({a()} if {self.bool(scope, depth - 1)} else {a()})",
                lambda: f"where({self.bool(scope, depth - 1)}, {a()}, {a()})",
                lambda: f"float({self.int(scope, depth - 1)}) * 0.1",
                lambda: f"{self.int(scope, depth - 1)} / 5",
                lambda: self.reduced(["sum", "mean"], scope, depth),
                lambda: f"max(-4, {self.reduced(['max', 'logsumexp'], scope, depth)})",
                lambda: f"min(4, {self.reduced(['min', 'prod'], scope, depth)})",
                lambda: self.products(scope, depth),
                lambda: f"{self.pick(['sum', 'mean', 'max', 'min', 'norm'])}({self.vector('D', scope, depth - 1)})",
                lambda: f"detach({a()})",
                lambda: f"{self.pick(self.functions)}({a()}, {a()})" if self.functions else None,
            ]
        )  # fmt: skip

    def reduced(self, ops: list[str], scope: Scope, depth: int) -> str:
        return self.reduction(ops, lambda inner: self.float(inner, depth - 2), scope, depth - 1)

    def products(self, scope: Scope, depth: int) -> str:
        length = self.pick(["D", "DV", "3"])
        a, b = self.vector(length, scope, depth - 1), self.vector(length, scope, depth - 1)
        if self.chance(0.25):
            return f"({a}) @ outer({b}, {a}) @ ({b})"
        return f"({a}) @ ({b})"

    # ------------------------------------------------------------------------------------------- vectors

    def vector(self, length: str, scope: Scope, depth: int) -> str:
        def given() -> str | None:
            if length == "3" or not {"b", "h"} <= set(scope):
                return None
            queries = self.index("query", scope, 0)
            keys = self.of_kind(scope, "key", "position")
            if length == "D" and queries and self.chance(0.5):
                return f"Q[{queries}]"
            return f"{'K' if length == 'D' else 'V'}[{self.pick(keys)}]" if keys else None

        atoms: list[Callable[[], str | None]] = [
            given,
            given,
            lambda: self.read(length, scope, depth),
            lambda: self.read(length, scope, depth),
        ]
        if depth <= 0:
            return self.any_of([*atoms, lambda: f"unit_{length}"])
        a, x = (lambda: self.vector(length, scope, depth - 1)), (lambda: self.float(scope, depth - 1))
        return self.any_of(
            [
                *atoms,
                *atoms,
                lambda: f"({a()} {self.pick(['+', '-', '*'])} {a()})",
                lambda: f"({x()}) * {a()}",
                lambda: f"({a()} + {x()})",
                lambda: f"{self.pick(['tanh', 'sigmoid', 'relu', 'abs', 'cos'])}({a()})",
                lambda: f"({a()} if {self.bool(scope, depth - 1)} else {a()})",
                lambda: self.reduction(
                    ["sum", "mean"], lambda s: self.vector(length, s, depth - 2), scope, depth - 1
                ),
                lambda: f"unit({a()} + 0.3)",
                lambda: f"max({a()}, {x()})",
            ]
        )
