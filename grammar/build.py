"""From lark's tree of one logical line to the node of syntax.py that it is, every span in the source."""

from __future__ import annotations

from typing import TypeAlias

from lark import Token, Tree

from attnlang import syntax
from attnlang.errors import ClauseTwice, KeywordBeforePositional, NestedTooDeep, NumberTooLarge
from attnlang.source import Source, Span

from .layout import MAX_NESTING
from .literals import clean, unquote
from .machine import LarkTree, Part

OptionalPart: TypeAlias = Part | None

MAX_INTEGER = 2**63 - 1


class Docstring(str):
    """The text of a docstring line."""


Built: TypeAlias = (
    syntax.AnyStatement | syntax.Import | syntax.Definition | syntax.PatternDefinition | Docstring
)


def too_deep(part: Part, limit: int) -> Part | None:
    """A place more than `limit` levels below the root, found without recursion."""
    pending = [(part, 0)]
    while pending:
        node, level = pending.pop()
        if level > limit:
            return node
        if isinstance(node, Tree):
            children: list[OptionalPart] = [*node.children]
            pending += [(child, level + 1) for child in children if child is not None]
    return None


class Builder:
    """Builds the nodes of one text whose first character stands at `offset` of the source."""

    def __init__(self, source: Source, offset: int = 0) -> None:
        self.source = source
        self.offset = offset

    # ------------------------------------------------------------------------------------------ helpers

    def span(self, part: Part) -> Span:
        """Where a token or a tree stands in the source."""
        if isinstance(part, Token):
            start, end = part.start_pos or 0, part.end_pos or 0
        elif part.meta.empty:
            start = end = 0
        else:
            start, end = part.meta.start_pos, part.meta.end_pos
        return Span(self.source, self.offset + start, self.offset + end)

    def check_depth(self, part: Part) -> None:
        """Raises where the recursion of this class, or of a later stage, would not end well."""
        place = too_deep(part, MAX_NESTING)
        if place is not None:
            raise NestedTooDeep(self.span(place), limit=MAX_NESTING)

    def optional(self, part: OptionalPart) -> syntax.Expr | None:
        """The expression, or None where it was left out."""
        return None if part is None else self.expr(part)

    def wrapped(self, part: OptionalPart) -> syntax.Expr | None:
        """The expression inside a one-child tree such as `every`, or None."""
        return None if part is None else self.expr(_tree(part).children[0])

    def exprs(self, part: OptionalPart) -> tuple[syntax.Expr, ...]:
        """The expressions that are the children of a tree."""
        return tuple(self.expr(child) for child in _present(part))

    # -------------------------------------------------------------------------------------- expressions

    def expr(self, part: Part) -> syntax.Expr:
        """One expression."""
        if isinstance(part, Token):
            return self.leaf(part)
        span, children = self.span(part), part.children
        match str(part.data):
            case "binary":
                left, operator, right = children
                return syntax.Binary(str(operator), self.expr(left), self.expr(right), span=span)
            case "subscript":
                return syntax.Subscript(
                    self.expr(children[0]), tuple(map(self.expr, children[1:])), span=span
                )
            case "attribute":
                return syntax.Attribute(self.expr(children[0]), str(children[1]), span=span)
            case "call":
                return self.call(part)
            case "reduction":
                return self.reduction(part)
            case "comparison":
                pairs = zip(children[1::2], children[2::2], strict=True)
                rest = tuple((str(operator), self.expr(operand)) for operator, operand in pairs)
                return syntax.Comparison(self.expr(children[0]), rest, span=span)
            case "negative":
                return syntax.Unary("-", self.expr(children[1]), span=span)
            case "negation":
                return syntax.Unary("not", self.expr(children[0]), span=span)
            case "conjunction":
                return syntax.Logical("and", tuple(map(self.expr, children)), span=span)
            case "disjunction":
                return syntax.Logical("or", tuple(map(self.expr, children)), span=span)
            case "conditional":
                then, condition, otherwise = map(self.expr, children)
                return syntax.Conditional(condition, then, otherwise, span=span)
            case other:
                raise AssertionError(f"no expression is called {other}")

    def leaf(self, token: Token) -> syntax.Expr:
        """A number, a truth value or a name."""
        span = self.span(token)
        match token.type:
            case "INTEGER":
                value = int(token)
                if value > MAX_INTEGER:
                    raise NumberTooLarge(span)
                return syntax.Number(value, span=span)
            case "FLOAT":
                number = float(token)
                if number == float("inf"):
                    raise NumberTooLarge(span)
                return syntax.Number(number, span=span)
            case "TRUE" | "FALSE":
                return syntax.Boolean(token.type == "TRUE", span=span)
            case _:
                return syntax.Name(str(token), span=span)

    def name(self, part: Part) -> syntax.Name:
        """A token as a name."""
        return syntax.Name(str(part), span=self.span(part))

    def call(self, tree: LarkTree) -> syntax.Call:
        """`f(a, b, name=c)`."""
        arguments: list[syntax.Expr] = []
        keywords: list[tuple[str, syntax.Expr]] = []
        for argument in _present(tree)[1:]:
            if isinstance(argument, Tree) and argument.data == "keyword":
                name, value = argument.children
                if str(name) in (known for known, _ in keywords):
                    raise ClauseTwice(self.span(name), "name every argument once", clause=str(name))
                keywords.append((str(name), self.expr(value)))
            elif keywords:
                raise KeywordBeforePositional(self.span(argument))
            else:
                arguments.append(self.expr(argument))
        function = self.name(tree.children[0])
        return syntax.Call(function, tuple(arguments), tuple(keywords), span=self.span(tree))

    def reduction(self, tree: LarkTree) -> syntax.Reduction:
        """`f(body for v in domain if condition)`."""
        parts: list[OptionalPart] = [*tree.children]
        function, body, variable, domain = _present(tree)[:4]
        return syntax.Reduction(
            self.name(function),
            self.expr(body),
            str(variable),
            self.expr(domain),
            self.optional(parts[4]),
            span=self.span(tree),
        )

    # --------------------------------------------------------------------------------------- statements

    def line(self, part: Part) -> Built:
        """The node of a whole line; a pattern or a branch comes with an empty body."""
        tree = _tree(part)
        span = self.span(tree)
        parts: list[OptionalPart] = [*tree.children]
        match str(tree.data), parts:
            case "import_line", [Token() as path]:
                return syntax.Import(unquote(path), span=span)
            case "docstring", [Token() as text]:
                return Docstring(clean(unquote(text)))
            case "definition", [name, parameters, value]:
                return syntax.Definition(
                    str(name), self.parameters(parameters), self.expr(_part(value)), span=span
                )
            case "pattern_head", [name, parameters]:
                return syntax.PatternDefinition(str(name), self.parameters(parameters), None, (), span=span)
            case "branch_head", [name, rows, over]:
                binder = None if over is None else self.binder(_tree(over))
                return syntax.Branch(str(name), self.binders(rows), binder, (), span=span)
            case _:
                return self.statement(tree, parts, span)

    def statement(self, tree: LarkTree, parts: list[OptionalPart], span: Span) -> syntax.AnyStatement:
        """A line of a block that opens none itself."""
        match str(tree.data), parts:
            case "section", [keyword, value]:
                return syntax.Section(str(keyword), self.expr(_part(value)), span=span)
            case "normalize", [steps, over]:
                return syntax.Normalize(self.exprs(steps), None if over is None else str(over), span=span)
            case "tensor", [name, axes, dtype]:
                kind = None if dtype is None else str(dtype)
                return syntax.TensorDeclaration(str(name), self.exprs(axes), kind, span=span)
            case "grid", [names, extents]:
                indices = tuple(str(index) for index in _present(names))
                return syntax.GridDeclaration(indices, self.pairs(extents), span=span)
            case "blocks", [name, of, by, every, members, start]:
                return syntax.BlocksDeclaration(
                    str(name),
                    str(of),
                    self.expr(_part(by)),
                    self.wrapped(every),
                    self.wrapped(start),
                    self.wrapped(members),
                    span=span,
                )
            case "boxes", [name, of, extents, start]:
                return syntax.BlocksDeclaration(
                    str(name), str(of), start=self.wrapped(start), boxes=self.pairs(extents), span=span
                )
            case "let", [name, indices, value]:
                return syntax.Let(str(name), self.binders(indices), self.expr(_part(value)), span=span)
            case "scan", [name, indices, value, restart]:
                return syntax.Scan(
                    str(name),
                    self.binders(indices),
                    self.expr(_part(value)),
                    self.optional(restart),
                    span=span,
                )
            case "select", _:
                return self.select(parts, span)
            case "state", [name, axes]:
                return syntax.State(str(name), self.exprs(axes), span=span)
            case "step", [name, value]:
                return syntax.Step(str(name), self.expr(_part(value)), span=span)
            case "require", [condition]:
                return syntax.Require(self.expr(_part(condition)), span=span)
            case "assertion", [claim, sizes]:
                return syntax.Assert(self.expr(_part(claim)), self.pairs(sizes), span=span)
            case other, _:
                raise AssertionError(f"no statement is called {other}")

    def select(self, parts: list[OptionalPart], span: Span) -> syntax.Select:
        """`select near[q] = top(16) c by score where … per i`: each clause at most once, in any order."""
        name, indices, rule, candidates, by, clauses = parts
        found: dict[str, LarkTree] = {}
        for clause in map(_tree, _present(clauses)):
            if str(clause.data) in found:
                raise ClauseTwice(self.span(clause.children[0]), clause=str(clause.data))
            found[str(clause.data)] = clause
        return syntax.Select(
            str(name),
            self.binders(indices),
            self.call(_tree(rule)),
            self.binders(candidates),
            self.expr(_part(by)),
            where=self.wrapped(found.get("where")),
            always=self.wrapped(found.get("always")),
            never=self.wrapped(found.get("never")),
            scope=_scope(found["per"]) if "per" in found else None,
            span=span,
        )

    def binders(self, part: OptionalPart) -> tuple[syntax.Binder, ...]:
        """The indices of a definition."""
        return tuple(self.binder(_tree(child)) for child in _present(part))

    def binder(self, tree: LarkTree) -> syntax.Binder:
        """`c` or `m in agents`."""
        name, domain = tree.children
        return syntax.Binder(str(name), self.optional(domain), span=self.span(tree))

    def pairs(self, part: OptionalPart) -> tuple[tuple[str, syntax.Expr], ...]:
        """`t: frames, x: width` or `NK = 64, D = 8`."""
        trees = [_tree(child) for child in _present(part)]
        return tuple((str(tree.children[0]), self.expr(tree.children[1])) for tree in trees)

    def parameters(self, part: OptionalPart) -> tuple[syntax.Parameter, ...]:
        """The parameters of a pattern or of a def."""
        return tuple(self.parameter(_tree(child)) for child in _present(part))

    def parameter(self, tree: LarkTree) -> syntax.Parameter:
        """`window: int >= 1 = 1024`."""
        parts: list[OptionalPart] = [*tree.children]
        name, kind, bounds, default = parts
        limits = _present(bounds)
        pairs = zip(limits[::2], limits[1::2], strict=True)
        return syntax.Parameter(
            str(name),
            None if kind is None else str(kind),
            tuple((str(operator), self.expr(limit)) for operator, limit in pairs),
            self.optional(default),
            span=self.span(tree),
        )


def _present(part: OptionalPart) -> list[Part]:
    """The children that were written; none of what was left out."""
    if part is None:
        return []
    children: list[OptionalPart] = [*_tree(part).children]
    return [child for child in children if child is not None]


def _part(part: OptionalPart) -> Part:
    assert part is not None
    return part


def _tree(part: OptionalPart) -> LarkTree:
    assert isinstance(part, Tree)
    return part


def _scope(clause: LarkTree) -> tuple[str, ...]:
    """`per i` and `per (b, h)`: the names."""
    (child,) = clause.children
    return tuple(str(name) for name in _present(child)) if isinstance(child, Tree) else (str(child),)
