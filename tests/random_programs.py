"""Random well-typed programs of the language, as text with the inputs of one small call: all kinds of statements."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor

from tests.random_expressions import Readable, Scope, Writer

ROWS: dict[str, str] = {"q": "query", "k": "key", "n": "position", "h": "head", "b": "batch"}

HEADER = """def blend(x, y) = x * 0.25 + y * sigmoid(x)

pattern random(many: int >= 1 = 2, r: float > 0 = 0.5, flag: bool = true):
"""

# Steps of a normalizer, and whether a row keeps its lse, is a plain softmax, or goes over the queries.
NORMALIZERS: tuple[tuple[str, str], ...] = (
    ("softmax", "softmax"),
    ("exp(s - max(s)) / sum(exp(s - max(s)))", "softmax"),
    ("softmax_one", "lse"),
    ("exp(s) / (2 + sum(exp(s)))", "lse"),
    ("top(2) | softmax", "lse"),
    ("sigmoid(s)", ""),
    ("relu(s) | l1", ""),
    ("softplus(s) | l1 | power(3) | l1", ""),
    ("exp(s) | top(2) | l1", ""),
    ("sparsemax", ""),
    ("entmax(1.5)", ""),
    ("entmax(1 + r)", ""),
    ("softmax over q", "query"),
    ("exp(s) / sum(exp(s)) | s * 2 over q", "query"),
    ("sinkhorn(2)", "query"),
    ("s / count", ""),
    ("s - mean(s) | softmax", ""),
    ("1 + s + s ** 2 / 2 | l1", ""),
    ("exp(s) / sum(exp(s[m]) for m in heads)", ""),
    ("exp(s) * float(s + 0.0001 >= mean(s)) | l1", ""),
    ("exp(s) | s / sum(s[m] for m in heads)", ""),
)


@dataclass(frozen=True)
class Program:
    """A text, and what it is called with."""

    text: str
    q: Tensor
    k: Tensor
    v: Tensor
    tensors: dict[str, Tensor]
    params: dict[str, Any]
    q_offset: int | None


@dataclass
class Sizes:
    B: int
    H: int
    HK: int
    NQ: int
    NK: int
    D: int
    DV: int


@dataclass
class Maker:
    """One program in the making."""

    random: Random
    depth: int
    lines: list[str] = field(default_factory=list[str])
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    unused: list[str] = field(default_factory=list[str])
    """What the output must read, as vectors of length DV."""
    mergeable: list[str] = field(default_factory=list[str])
    stats: list[Readable] = field(default_factory=list[Readable])

    def make(self) -> Program:
        r = self.random
        square = r.random() < 0.4
        NK = r.choice([3, 4, 4])
        NQ = NK if square else r.randrange(1, NK + 1)
        H, HK = r.choice([(1, 1), (2, 1), (2, 2)])
        equal = r.random() < 0.3
        self.sizes = Sizes(r.choice([1, 2]), H, HK, NQ, NK, 2, 2 if equal else 3)
        self.writer = Writer(r, equal_lengths=square)
        self.head(square, equal)
        self.declare()
        for _ in range(r.randrange(2, 5)):
            r.choice(
                [self.table, self.table, self.scan, self.select, self.branch, self.branch, self.abbreviation]
            )()
        if r.random() < 0.3:
            self.merge()
        own = r.random() < 0.6 or not self.unused
        state = self.state() if r.random() < 0.25 else ""
        if own:
            self.sections("", self.scope(q="query", k="key"), ["query"], "key")
        self.output(own, state)
        text = "\n".join(f"    {line}" for line in self.lines)
        s = self.sizes
        params = {"many": r.randrange(1, 4), "r": r.choice([0.25, 0.8]), "flag": r.random() < 0.5}
        offset = 0 if r.random() < 0.2 else None
        floats = self.floats
        q, k, v = floats(s.B, s.H, s.NQ, s.D), floats(s.B, s.HK, s.NK, s.D), floats(s.B, s.HK, s.NK, s.DV)
        return Program(HEADER + text + "\n", q, k, v, self.tensors, params, offset)

    # ------------------------------------------------------------------------------------------- helpers

    def floats(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.random.randrange(2**31))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def scope(self, **more: str) -> Scope:
        return {"b": "batch", "h": "head", **more}

    def name(self, base: str) -> str:
        return base + self.writer.variable()[1:]

    def add(self, line: str) -> None:
        self.lines.append(line)

    def reads(self, name: str, slots: tuple[str, ...], kind: str) -> None:
        self.writer.readables.append(Readable(name, slots, kind))

    # -------------------------------------------------------------------------------------- declarations

    def head(self, square: bool, equal: bool) -> None:
        w = self.writer
        w.floats, w.bools, w.functions = ["r"], ["flag"], ["blend"]
        w.ints = ["NQ"]
        if square:
            self.add("require NQ == NK")
        if equal:
            self.add("require DV == D and NK >= 1")
        if self.sizes.NK == 4 and self.random.random() < 0.4:
            self.add("grid q, k as (y: 2, x: 2)")
            w.grid = True
        for length, size in (("D", self.sizes.D), ("DV", self.sizes.DV), ("3", 3)):
            axis = {"D": "d", "DV": "e", "3": "3"}[length]
            self.add(f"tensor unit_{length}[{axis}]")
            self.tensors[f"unit_{length}"] = self.floats(size)

    def declare(self) -> None:
        r, s = self.random, self.sizes
        axes = {
            "b": ("batch", s.B), "h": ("head", s.H), "g": ("kv_head", s.HK), "q": ("query", s.NQ),
            "k": ("key", s.NK), "n": ("position", s.NK), "3": ("range 3", 3), "2": ("range 2", 2),
        }  # fmt: skip
        lengths = {"d": ("D", s.D), "e": ("DV", s.DV), "3": ("3", 3)}
        for _ in range(r.randrange(1, 4)):
            name, chosen = self.name("t"), r.sample(list(axes), r.randrange(0, 3))
            kind = r.choice(["float", "float", "int", "bool", "vector"])
            shape = [axes[axis][1] for axis in chosen]
            slots = tuple(axes[axis][0] for axis in chosen)
            if kind == "vector":
                axis = r.choice(list(lengths))
                self.add(f"tensor {name}[{', '.join([*chosen, axis])}]")
                self.tensors[name] = self.floats(*shape, lengths[axis][1])
                self.reads(name, slots, lengths[axis][0])
                continue
            written = f"[{', '.join(chosen)}]" if chosen else ""
            self.add(f"tensor {name}{written}" + ("" if kind == "float" else f": {kind}"))
            values = self.floats(*shape)
            self.tensors[name] = (
                (values * 1.7).floor().long() if kind == "int" else values > 0 if kind == "bool" else values
            )
            self.reads(name, slots, kind)
        for _ in range(r.randrange(0, 3)):
            self.blocks()

    def blocks(self) -> None:
        r = self.random
        of = r.choice(["k", "k", "q", "n"])
        name = self.name("i" if of == "q" else "c")
        form = r.choice(
            ["by 2", "by 2", "by 3", "by many", "by 2 every 1", "by 3 every 2", "by 2 from 1", "ids", "boxes"]
        )
        if form == "by 2 from 1" and of == "q":
            form = "by 2"  # one query would leave no group at all
        if form == "ids":
            self.add(f"tensor ids_{name}[b, n]: int")
            self.tensors[f"ids_{name}"] = (self.floats(self.sizes.B, self.sizes.NK) * 1.2).floor().long() + 1
            form = f"by ids_{name}[b, n] in 3"
        elif form == "boxes":
            form = r.choice(["by (y: 1)", "by (x: 1)", "by (y: 2, x: 1)"]) if self.writer.grid else "by 2"
        self.add(f"blocks {name} of {of} {form}")
        self.writer.groups[name] = "every" not in form
        # the number of groups is read as an axis by tables and branches only

    def binders(self, count: int) -> tuple[list[str], dict[str, str]]:
        """Indices of a definition as text, and what they count."""
        r = self.random
        options = [*ROWS.items(), *((name, f"group {name}") for name in self.writer.groups)]
        options += [("m", "range 3"), ("m", "head"), ("j", "range 2"), ("k", "key"), ("q", "query")]
        texts: list[str] = []
        kinds: dict[str, str] = {}
        for name, kind in r.sample(options, len(options)):
            if len(kinds) == count:
                break
            if (
                name in kinds
                or (name == "m" and kind == "head" and "h" in kinds)
                or (name == "h" and "m" in kinds)
            ):
                continue
            if name == "m":
                texts.append("m in 3" if kind == "range 3" else "m in heads")
            else:
                texts.append("j in 2" if name == "j" else name)
            kinds[name] = kind
        return texts, kinds

    # ---------------------------------------------------------------------------------------- statements

    def expression(self, kind: str, scope: Scope, depth: int | None = None) -> str:
        depth = self.depth if depth is None else depth
        match kind:
            case "float":
                return self.writer.float(scope, depth)
            case "int":
                return self.writer.int(scope, depth)
            case "bool":
                return self.writer.bool(scope, depth)
            case _:
                return self.writer.vector(kind, scope, depth)

    def table(self) -> None:
        texts, kinds = self.binders(self.random.randrange(1, 3))
        kind = self.random.choice(["float", "float", "int", "bool", "D", "DV"])
        name = self.name("T")
        body = self.expression(kind, self.scope(**kinds))
        self.add(f"let {name}[{', '.join(texts)}] = {body}")
        self.reads(name, tuple(kinds.values()), kind)

    def abbreviation(self) -> None:
        """Used in sections over q and k only, where its indices have a value."""
        name, kind = self.name("a"), self.random.choice(["float", "int", "bool"])
        self.add(f"let {name} = {self.expression(kind, self.scope(q='query', k='key'))}")
        self.abbreviations = [*getattr(self, "abbreviations", []), (name, kind)]

    def scan(self) -> None:
        r, name = self.random, self.name("X")
        groups = [(each, f"group {each}") for each in self.writer.groups]
        token, kind = r.choice([("n", "position"), ("n", "position"), ("k", "key"), ("q", "query"), *groups])
        other = r.choice([{}, {}, {"j": "range 2"}])
        scope = self.scope(**other, **{token: kind})
        at = ", ".join([*other, f"{token} - 1"])
        value = r.choice(["float", "D", "DV"])
        factor, more = self.expression("float", scope, 1), self.expression(value, scope, 1)
        before = f"{name}[{at}]"
        form = r.choice(
            [
                f"tanh({factor}) * {before} + {more}",
                f"{more} - {before} / (1 + ({factor}) ** 2)",
                f"({before} if {self.expression('bool', scope, 0)} else {more})",
            ]
        )
        restart = f" restart {self.expression('bool', scope, 1)}" if r.random() < 0.4 else ""
        written = ["j in 2"] if other else []
        self.add(f"scan {name}[{', '.join([*written, token])}] = {form}{restart}")
        self.reads(name, (*other.values(), kind), value)

    def select(self) -> None:
        r, w, name = self.random, self.writer, self.name("R")
        groups = [(each, f"group {each}") for each in w.groups]
        keys = [one for one in groups if one[0].startswith("c")]
        rows = dict(
            r.choice([[("q", "query")], [("q", "query")], [], [("k", "key")], *([one] for one in groups)])
        )
        options = [[("k", "key")], [("n", "position")], *([one] for one in keys), [("m", "range 3")]]
        if keys:
            options.append([("q", "query"), keys[0]])
        candidates = dict(r.choice([o for o in options if not {n for n, _ in o} & set(rows)]))
        scope = self.scope(**rows, **candidates)
        rule = r.choice(
            ["top(2)", "top(many)", "top(1)", "mass(0.6)", "mass(r)", "mass(0.5, total=2)", "above(0.1)"]
        )
        by = f"{self.expression('float', scope, 2)} + 0.0137 * {' * '.join(candidates)}"
        if rule.startswith("mass"):
            by = f"softplus({by})"
        clauses = ""
        for clause, share in (("where", 0.4), ("always", 0.3), ("never", 0.2)):
            if r.random() < share:
                clauses += f" {clause} {self.expression('bool', scope, 1)}"
        left = f"[{', '.join(rows)}]" if rows else ""
        blocks_of_queries = [each for each in w.groups if each.startswith("i")]
        if list(rows) == ["q"] and "q" not in clauses + by and blocks_of_queries and r.random() < 0.5:
            rows = {blocks_of_queries[0]: f"group {blocks_of_queries[0]}"}
            clauses += f" per {blocks_of_queries[0]}"
        written = ["m in 3" if each == "m" else each for each in candidates]
        target = written[0] if len(written) == 1 else f"({', '.join(written)})"
        self.add(f"select {name}{left} = {rule} {target} by {by}{clauses}")
        w.relations.append((name, (*rows.values(), *candidates.values())))

    def branch(self) -> None:
        r, w, name = self.random, self.writer, self.name("B")
        groups = [(each, f"group {each}") for each in w.groups]
        rows = dict(r.choice([[("q", "query")]] * 3 + [[("m", "range 3")], *([one] for one in groups)]))
        if len(rows) == 1 and "q" not in rows and r.random() < 0.3:
            rows["q"] = "query"
        over, kind = r.choice([("k", "key")] * 3 + [("j", "range 2"), *groups])
        if over in rows:
            over, kind = "k", "key"
        left = (
            ""
            if list(rows) == ["q"]
            else f"[{', '.join('m in 3' if each == 'm' else each for each in rows)}]"
        )
        right = "" if over == "k" else f" over {'j in 2' if over == 'j' else over}"
        at = len(self.lines)
        length = self.sections(name, self.scope(**rows, **{over: kind}), list(rows.values()), kind)
        self.lines[at:] = [f"branch {name}{left}{right}:", *(f"    {line}" for line in self.lines[at:])]
        self.reads(name, tuple(rows.values()), length)
        vector = name if list(rows) == ["q"] else self.summed(name, rows)
        self.unused.append(vector if length == "DV" else f"norm({vector}) * unit_DV")
        w.ints.append("2")

    def summed(self, name: str, rows: dict[str, str]) -> str:
        text = f"{name}[{', '.join(rows)}]"
        for each, kind in rows.items():
            if kind != "query":
                domain = "3" if each == "m" else f"groups({each})"
                text = f"sum({text} for {each} in {domain})"
        return text

    def sections(self, name: str, scope: Scope, rows: list[str], over: str) -> str:
        """The sections of an attention; returns the length of its values."""
        r, w = self.random, self.writer
        plain = rows == ["query"] and over == "key"
        before = (list(w.floats), list(w.ints), list(w.bools))
        if plain:
            for each, kind in getattr(self, "abbreviations", []):
                {"float": w.floats, "int": w.ints, "bool": w.bools}[kind].append(each)
        lines: list[str] = []
        for keyword, share in (("mask", 0.5), ("sparsity", 0.4)):
            if r.random() < share or (keyword == "mask" and rows != ["query"]):
                known = (w.readables, w.relations)
                if not name and keyword == "mask":
                    # branches take it too, so that it cannot read what reads them
                    w.readables, w.relations = [one for one in known[0] if one.name.startswith("t")], []
                lines.append(f"{keyword} {self.expression('bool', scope)}")
                w.readables, w.relations = known
        steps, kind = r.choice(NORMALIZERS)
        if kind == "query" and rows[-1:] != ["query"]:
            steps, kind = NORMALIZERS[0]
        reweighted = r.random() < 0.25
        if r.random() < 0.2:
            lines.append(f"weight {self.expression('float', scope)}")
            kind = "weight"
        else:
            if not plain or r.random() < 0.8:
                score = self.expression("float", scope)
                score = f"3 * tanh({score})" if kind != "softmax" else score
                tie = f" + 0.0137 * {[*scope][-1]}" if "top" in steps else ""
                lines.append(f"score {score}{tie}")
            if r.random() < 0.2:
                w.floats += ["s", "s", "s", "sum(tanh(s))", "max(s)", "mean(s)", "float(count)"]
                steps, kind = self.expression("float", scope, 2), ""
                w.floats = before[0] + w.floats[len(before[0]) : -7]
            if steps != "softmax" or r.random() < 0.3:
                lines.append(f"normalize {steps}")
        if reweighted:
            form = r.choice(
                ["w * 2 + 0.1", "w / (1 + sum(abs(w)))", "sum(w[m] * 0.3 for m in heads)", "gate"]
            )
            gate = f"w * ({self.expression('float', scope, 1)})"
            lines.append(f"reweight {gate if form == 'gate' else form}")
        length = "DV" if not name or r.random() < 0.7 else r.choice(["D", "3"])
        if over != "key" or length != "DV" or r.random() < 0.5:
            lines.append(f"value {self.expression(length, scope)}")
        w.floats, w.ints, w.bools = before
        self.lines += lines
        if name:
            self.statistics(name, rows, over, kind)
            if kind == "softmax" and not reweighted and rows == ["query"] and length == "DV":
                self.mergeable.append(name)
        return length

    def statistics(self, name: str, rows: list[str], over: str, kind: str) -> None:
        self.reads(f"{name}.w", (*rows, over), "float")
        self.reads(f"{name}.count", tuple(rows), "int")
        self.stats.append(Readable(f"{name}.max", tuple(rows), "float"))
        if kind in ("softmax", "lse"):
            self.stats.append(Readable(f"{name}.lse", tuple(rows), "float"))

    def merge(self) -> None:
        if len(self.mergeable) < 2:
            return
        name, parts = self.name("M"), self.random.sample(self.mergeable, 2)
        self.add(f"let {name} = merge({', '.join(parts)})")
        self.reads(name, ("query",), "DV")
        self.stats.append(Readable(f"{name}.lse", ("query",), "float"))
        self.unused.append(name)

    def state(self) -> str:
        r, name = self.random, self.name("S")
        scope = self.scope(k="key")
        a, c = self.expression("float", scope, 1), self.expression("float", scope, 1)
        u, v = self.expression("D", scope, 1), self.expression("DV", scope, 1)
        self.add(f"state {name}[d, e]")
        self.add(
            "step "
            + r.choice(
                [
                    f"{name} = tanh({a}) * {name} + outer({u}, {v})",
                    f"{name} = {name} + sigmoid({c}) * outer({u}, {v} - ({u}) @ {name})",
                    f"{name} = {name} - outer({u}, ({u}) @ {name} - {v}) / (1 + ({a}) ** 2)",
                ]
            )
        )
        return f"Q[q] @ {name}"

    def output(self, own: bool, state: str) -> None:
        scope = self.scope(q="query")
        terms = [*self.unused, *([state] if state else []), *(["attention"] if own else [])]
        for one in self.random.sample(self.stats, min(len(self.stats), 2)):
            at = [self.writer.index(slot, scope, 0) for slot in one.slots]
            if None not in at:
                terms.append(f"max(-3, {one.name}[{', '.join(map(str, at))}]) * unit_DV")
        if self.random.random() < 0.4:
            terms.append(self.expression("DV", scope))
        if terms != ["attention"] or self.random.random() < 0.2:
            self.add(f"output {' + '.join(f'({term})' if ' ' in term else term for term in terms)}")


def program(seed: int, depth: int) -> Program:
    """The program of that seed; larger `depth` nests further."""
    return Maker(Random(seed), depth).make()
