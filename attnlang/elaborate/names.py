"""What a bare name means, and what the author may have meant by one that means nothing."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.values import (
    CANONICAL,
    CONSTANTS,
    INPUTS,
    Abbreviation,
    Entity,
    Value,
)
from attnlang.elaborate.wording import counted
from attnlang.elaborate.work import Context, Row, Work
from attnlang.errors import nearest
from attnlang.errors_meaning import IndexNotHere, OnlyInNormalizer, UnknownFunction, UnknownName, WrongUse
from attnlang.ir.pattern import (
    HEAD,
    KV_HEAD,
    ONE,
    Q_OFFSET,
    SCALE,
    SIZES,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    storage,
)
from attnlang.source import Span

MOST_SUGGESTIONS = 100  # looking for near names takes time
ROW_NAMES = ("s", "w", "count")
FOREIGN: dict[str, str] = {
    "argmax": "the first index of the largest: min(i for i in n if x[i] == max(x[j] for j in n))",
    "argmin": "the first index of the smallest: min(i for i in n if x[i] == min(x[j] for j in n))",
    "argsort": "the rank of x[i] is count(x[j] > x[i] for j in n); 'select' chooses the largest",
    "sort": "the rank of x[i] is count(x[j] > x[i] for j in n); 'select' chooses the largest",
    "topk": "'select near[q] = top(m) k by …' chooses, 'normalize top(m) | softmax' keeps the largest scores",
    "cumsum": "a running value is a scan: 'scan c[n] = c[n - 1] + x[b, n]'",
    "cumprod": "the sum of logarithms is a scan: 'scan c[n] = c[n - 1] + ln(x[b, n])', used as exp(c[q] - c[k])",
    "concat": "a product of joined vectors is a sum of products: a @ c + b @ d",
    "cat": "a product of joined vectors is a sum of products: a @ c + b @ d",
    "transpose": "'x @ m' goes over the first axis of the matrix m, 'm @ x' over its last",
    "matmul": "products are written a @ b",
    "dot": "products are written a @ b",
    "einsum": "products are written a @ b, other sums sum(… for i in n)",
    "clamp": "clip(x, low, high)",
    "log10": "ln(x) / ln(10)",
    "log_softmax": "x - logsumexp(x), of a vector",
    "dropout": "what was drawn is a tensor: 'tensor keep[b, h, q, k]: bool', 'reweight w * int(keep[b, h, q, k])'",
    "pow": "x ** y",
    "tril": "the mask 'k <= q' is called 'causal'",
    "len": "the sizes are B H HK NQ NK D DV; a group has c.size",
    "range": "a variable that goes from 0 to n - 1 is written 'for i in n'",
    "concatenate": "a product of joined vectors is a sum of products: a @ c + b @ d",
}
"""Functions of other languages, and how the same is said here."""
INDEX_NAMES = tuple(CANONICAL)


def look_up(work: Work, name: str, span: Span, context: Context) -> Entity | None:
    """What a name stands for at a place; None after a report."""
    if name in context.locals:
        return context.locals[name]
    if name in context.indices:
        return context.indices[name]
    if name == "g" and "h" in context.indices:
        return kv_index(work, context.indices["h"])
    if not context.inside:
        if name in context.previous:
            return context.previous[name]
        if name in work.declared:
            return work.entity(name, span)
        if name in INPUTS:
            return INPUTS[name]
    elif name in INPUTS:
        return INPUTS[name]
    return _built_in(work, name, span, context)


def _built_in(work: Work, name: str, span: Span, context: Context) -> Entity | None:
    if name in ROW_NAMES and context.row is not None:
        return _of_this_pair(work, name, span, context, context.row)
    if name in SIZES:
        return Value(SIZES[name], "int")
    if name in context.file.functions:
        definition = context.file.functions[name].node
        if all(parameter.default is not None for parameter in definition.parameters):
            return Abbreviation("", syntax.Call(syntax.Name(name, span=span), (), span=span))
    if name in CONSTANTS:
        return Value(Literal(CONSTANTS[name]), "float")
    if name == "scale":
        return Value(SCALE, "float")
    if name == "q_offset":
        return Value(Q_OFFSET, "int")
    report_unknown(work, name, span, context)
    return None


def _of_this_pair(work: Work, name: str, span: Span, context: Context, row: Row) -> Value | None:
    """`s`, `w` or `count`, unless an inner variable hides an index of the pair and is meant in its place."""
    for axis in row.rows if name == "count" else row.axes:
        here = context.indices.get(axis.name)
        if here is None or here.expr == Index(axis):
            continue
        if axis == row.along:
            hint = (
                f"over the visible pairs of a row go sum({name}), mean({name}), max({name}) and min({name})"
            )
        elif axis == HEAD:
            hint = f"'{name}[m]' with another name than 'h' is the value of head m"
        else:
            hint = "the weights of other rows are read from another branch: name.w[q, k]"
        what = f"the value of this pair, '{axis.name}' is another one here"
        work.report(WrongUse(span, hint, name=name, what=what))
        return None
    return row_value(work, name, row)


def kv_index(work: Work, head: Value) -> Value:
    """g(h) as an index."""
    if head.expr == Index(KV_HEAD):
        return head
    return Value(work.kv_head(head.expr), "int", (), "kv_head", size=head.size + 4)


def row_value(work: Work, name: str, row: Row) -> Value:
    """`s`, `w`, `count` of the row at hand."""
    if name == "count":
        fresh = work.copy(row.along)
        return Value(Reduce("sum", (fresh,), ONE, row_visible(row, fresh)), "int", size=4)
    return Value(row_read(row, row.source, {}), "float", size=len(row.axes))


def row_read(row: Row, source: str, changes: dict[Axis, Expr]) -> Expr:
    """A read of something kept per row and `over`, with some of the indices changed."""
    at: list[Expr] = []
    for axis in row.axes:
        value = changes.get(axis)
        at.append(storage(axis) if value is None else value)
    return Read(source, tuple(at))


def row_visible(row: Row, fresh: Axis) -> Expr:
    """The visibility along a copy of the axis that a row reduction goes through."""
    at = tuple(storage(fresh if axis == row.along else axis) for axis in row.axes)
    return Read(f"{row.attention}.visible", at, "bool")


def of_other_head(row: Row, head: Value, read: str) -> Expr:
    """`s[m]` and `w[m]`."""
    return row_read(row, read, {HEAD: head.expr})


# ------------------------------------------------------------------------------------------------- reports


def report_missing_index(work: Work, name: str, span: Span, context: Context) -> None:
    """An index that exists, but not here."""
    here = [f"'{index}'" for index in context.indices if index not in ("b", "h", "g")]
    hint = f"the indices here are {', '.join(here)}" if here else None
    work.report(IndexNotHere(span, hint, name=name, place=context.place))


def report_unknown(work: Work, name: str, span: Span, context: Context) -> None:
    """A name that nothing declares, with the nearest that something does."""
    if name in INDEX_NAMES:
        report_missing_index(work, name, span, context)
    elif name in ROW_NAMES:
        work.report(OnlyInNormalizer(span, name=name))
    elif name in context.file.functions:
        definition = context.file.functions[name].node
        parameters = ", ".join(parameter.name for parameter in definition.parameters)
        hint = f"write {name}({parameters})"
        what = f"a definition with {counted(len(definition.parameters), 'parameter')}"
        work.report(WrongUse(span, hint, name=name, what=what))
    elif name in BUILTIN_FUNCTIONS:
        work.report(WrongUse(span, f"write {name}(…)", name=name, what="a function"))
    else:
        near = suggestion(work, name, context) if len(work.reports.errors) < MOST_SUGGESTIONS else None
        work.report(UnknownName(span, near, name=name))


BUILTIN_FUNCTIONS: set[str] = set()
"""The names of the built-in functions, filled by `functions`."""


def known_names(work: Work, context: Context) -> dict[str, str]:
    """Every name that could stand at a place, with what it is."""
    known = {name: "a constant" for name in (*CONSTANTS, "scale", "q_offset")}
    for name, definition in context.file.functions.items():
        if not definition.node.parameters:
            known[name] = definition_place(work, name, context)
    known |= {name: "a size" for name in SIZES} | {name: "an input" for name in INPUTS}
    if context.row is not None:
        known |= {name: "the row at hand" for name in ROW_NAMES}
    if not context.inside:
        for name, declared in work.declared.items():
            if declared.kind == "parameter":
                known[name] = f"parameter of this pattern, line {declared.span.line}"
            else:
                known[name] = declared.described
    known |= {name: "an index" for name in context.indices} | {
        name: "a local name" for name in context.locals
    }
    return known


def definition_place(work: Work, name: str, context: Context) -> str:
    """`a definition, line 3`, or in the standard library."""
    definition = context.file.functions[name]
    if definition.file.label == work.file.label:
        return f"a definition, line {definition.node.span.line}"
    return f"a definition of {definition.file.label}"


def suggestion(work: Work, name: str, context: Context) -> str | None:
    """`did you mean 'window'? (parameter of this pattern, line 2)`."""
    if context.inside and name in work.declared:
        return f"a definition sees its own parameters only: give '{context.inside}' one for '{name}'"
    known = known_names(work, context)
    found = nearest(name, list(known))
    if found is not None:
        return f"did you mean '{found}'? ({known[found]})"
    other = {"true": "true", "false": "false", "none": "0"}.get(name.lower())
    return f"did you mean '{other}'?" if other else None


def report_unknown_function(work: Work, name: str, span: Span, context: Context) -> None:
    """A function that nothing defines."""
    if not context.inside and name in work.declared:
        declared = work.declared[name]
        hint = f"write {name}[…]" if declared.kind in ("tensor", "let", "scan", "branch") else None
        work.report(WrongUse(span, hint, name=name, what=f"{declared.described}, and is not called"))
        return
    functions = [*context.file.functions, *sorted(BUILTIN_FUNCTIONS), *_relations(work)]
    found = nearest(name, functions)
    hint = FOREIGN.get(name.lower())
    if hint is not None:
        pass
    elif found is not None and found in context.file.functions:
        hint = f"did you mean '{found}'? ({definition_place(work, found, context)})"
    elif found is not None:
        hint = f"did you mean '{found}'?"
    work.report(UnknownFunction(span, hint, name=name))


def _relations(work: Work) -> list[str]:
    return [name for name, declared in work.declared.items() if declared.kind == "select"]
