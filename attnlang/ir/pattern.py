"""Pattern IR: what a pattern means, in scalars over explicit indices.

Everything is a scalar expression; a vector of the language is an expression with a free feature axis.
A pattern is a tuple of stages in order of dependence, and an output over (b, h, q, e). The interpreter in
`ir/interpret.py` gives each construct its meaning; every pass is held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as OneOf

from attnlang.source import NOWHERE, Span

DType = OneOf["bool", "int", "float"]
Role = OneOf[
    "batch", "head", "kv_head", "query", "key", "position", "feature", "value_feature", "group", "range"
]


# ---------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Literal:
    """A constant; infinities are floats."""

    value: bool | int | float


@dataclass(frozen=True)
class Symbol:
    """A number known when the pattern is called: a size (B H HK NQ NK D DV), `q_offset`, `scale`, a parameter."""

    name: str
    dtype: DType


@dataclass(frozen=True)
class Axis:
    """An index variable with the values start … start + size − 1. Two axes are one when all fields agree.

    `name` is unique in a pattern except where the axis is meant to be the same (the rows q of every stage).
    """

    name: str
    size: Expr
    role: Role
    start: Expr = Literal(0)


@dataclass(frozen=True)
class Index:
    """The value of an index variable, as an int (absolute for q)."""

    axis: Axis


@dataclass(frozen=True)
class Read:
    """An element of a tensor (`Q`, `K`, `V` and the declared ones) or of a stage; one int per axis, from 0. An int
    outside its axis reads the nearest element.

    Stages are read by what they define: a `Let`, `Select` or `Recurrence` by its name; an `Attention` called `a`
    as `a` (its result, over rows and feature), `a.scores`, `a.visible`, `a.weights` (after reweighting, over rows
    and `over`), `a.lse`, `a.max`, `a.count` (over rows), inside its own normalizer `a.step0`, `a.step1`, … (the
    values before formula 0, 1, …, i.e. `a.step0` are the scores, of hidden pairs too; later values are 0 where
    hidden) and inside its own reweight `a.normalized`, 0 where hidden;
    a `Merge` as its name and `.lse`; a `Recurrence` called `S`, inside its own step, as `S.previous` (without the
    token axis).
    """

    source: str
    at: tuple[Expr, ...]
    dtype: DType = "float"


@dataclass(frozen=True)
class Apply:
    """An operation of `OPERATIONS` on scalars."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Reduce:
    """`op` over all values of `axes` where the condition holds (None: everywhere).

    Over nothing: sum → 0, max → −inf (ints: −2**62), min → +inf (ints: 2**62), mean → 0, any → false, all → true,
    prod → 1, logsumexp → −inf. `count` is a sum of ones.
    """

    op: OneOf["sum", "max", "min", "mean", "any", "all", "prod", "logsumexp"]
    axes: tuple[Axis, ...]
    body: Expr
    where: Expr | None = None


Expr = Literal | Symbol | Index | Read | Apply | Reduce

# operation → (number of operands, kind of result). "same": the widest of the operands; "float": always float.
OPERATIONS: dict[str, tuple[int, OneOf["same", "float", "int", "bool"]]] = {
    "add": (2, "same"), "sub": (2, "same"), "mul": (2, "same"), "div": (2, "float"),
    "floordiv": (2, "same"), "mod": (2, "same"), "pow": (2, "same"), "neg": (1, "same"),
    "min": (2, "same"), "max": (2, "same"), "abs": (1, "same"), "sign": (1, "same"),
    "lt": (2, "bool"), "le": (2, "bool"), "gt": (2, "bool"), "ge": (2, "bool"), "eq": (2, "bool"), "ne": (2, "bool"),
    "and": (2, "bool"), "or": (2, "bool"), "not": (1, "bool"), "where": (3, "same"),
    "exp": (1, "float"), "exp2": (1, "float"), "expm1": (1, "float"),
    "log": (1, "float"), "log2": (1, "float"), "log1p": (1, "float"),
    "sqrt": (1, "float"), "rsqrt": (1, "float"), "sin": (1, "float"), "cos": (1, "float"),
    "tanh": (1, "float"), "sigmoid": (1, "float"), "softplus": (1, "float"), "erf": (1, "float"), "atan": (1, "float"),
    "floor": (1, "int"), "ceil": (1, "int"), "round": (1, "int"),
    "int": (1, "int"), "float": (1, "float"), "detach": (1, "same"),
}  # fmt: skip
# max(a, b) passes its gradient to a only where a > b, else to b: so the derivative of max(x, 0) at 0 is 0.
# sqrt(x), and x ** p with p < 1, have derivative 0 at 0: the length of a vector of zeros has gradient 0.
# `floordiv` and `mod` floor. "int" of a bool is 0 or 1; "detach" is the value without its gradient.


# --------------------------------------------------------------------------------------------------- stages


@dataclass(frozen=True)
class Let:
    """A table: `body` for every value of `axes`."""

    name: str
    axes: tuple[Axis, ...]
    body: Expr
    dtype: DType = "float"
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Select:
    """A relation over rows × candidates, chosen by `by` among the candidates where `where` and not `never`.

    top: the `amount` largest, the lower index first among equals, all where there are fewer. mass: in decreasing
    order until the kept sum of `by` is ≥ amount × total (total: the sum over all candidates, unless given).
    above: all with by > amount. Candidates in `always` (where visible) are kept first and count.
    Bool, without gradient. Read by rows, then candidates.
    """

    name: str
    rows: tuple[Axis, ...]
    candidates: tuple[Axis, ...]
    rule: OneOf["top", "mass", "above"]
    amount: Expr
    by: Expr
    where: Expr
    always: Expr
    total: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Formula:
    """A normalizer step: an expression over rows and `over` that reads `name.stepI`; its row sums are `Reduce`s
    whose `where` is the visibility read as `name.visible`. `kind` names the algebra the elaborator or a pass has
    recognized ('softmax' for exp(s)/sum(exp(s)) and its shifts), '' where it has not."""

    body: Expr
    kind: OneOf["", "softmax"] = ""


@dataclass(frozen=True)
class Threshold:
    """A step whose threshold is found by search. sparsemax, entmax(alpha): w = max((alpha−1)s − τ, 0)^(1/(alpha−1))
    with τ such that the row sums to 1. sinkhorn(n): log-domain, n rounds over keys and queries, last over keys,
    then exp. top(m): passes the scores and hides all but the m largest of a row from the following steps."""

    kind: OneOf["sparsemax", "entmax", "sinkhorn", "top"]
    amount: Expr


Step = Formula | Threshold


@dataclass(frozen=True)
class Attention:
    """A normalized sum over `over`: result[rows, feature] = Σ over visible of weights × value.

    visible = mask and sparsity; `mask` is what may interact, `sparsity` what the pattern keeps of it. `normalize` is
    applied in order to the scores (empty: the scores are the weights). Hidden pairs have weight 0; a row with
    nothing visible gives 0, and −inf as lse. `lse` is log Σ exp(score) over the visible, where `has_lse`.
    """

    name: str
    rows: tuple[Axis, ...]
    over: Axis
    feature: Axis
    mask: Expr
    sparsity: Expr
    score: Expr
    normalize: tuple[Step, ...]
    reweight: Expr | None
    value: Expr
    has_lse: bool = True
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Merge:
    """One softmax over the union of what several softmax attentions see (same rows and feature)."""

    name: str
    parts: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Recurrence:
    """A value per token and `axes`: step of the value before it (`name.previous`, over `axes`), which is 0 before
    the first token and wherever `restart` holds. Axes that stand before the token (batch, head) come first in `axes`;
    read by `axes` with the token inserted at `position`."""

    name: str
    axes: tuple[Axis, ...]
    token: Axis
    position: int
    step: Expr
    restart: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Stage = Let | Select | Attention | Merge | Recurrence


# ------------------------------------------------------------------------------------------------- patterns


@dataclass(frozen=True)
class Parameter:
    """A number of the call. `bounds`: comparisons (`ge`, 1) it must satisfy. `default` None: must be given."""

    name: str
    dtype: DType
    bounds: tuple[tuple[str, int | float], ...] = ()
    default: bool | int | float | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class TensorAxis:
    """An axis of a declared tensor: as written, its length, and what it is indexed by ('b' 'h' 'g' 'q' 'k' 'n' 'd',
    a coarse index, or '' for a plain length)."""

    written: str
    size: Expr
    index: str = ""


@dataclass(frozen=True)
class Tensor:
    """A declared tensor."""

    name: str
    axes: tuple[TensorAxis, ...]
    dtype: DType = "float"
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Requirement:
    """A condition that a call must satisfy, over symbols and tensors, without free index variables; `written` is how
    the report names it."""

    condition: Expr
    written: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Claim:
    """An `assert`: causal, nonempty, density or rows compared with a number, or equal to another pattern's output."""

    kind: OneOf["causal", "nonempty", "density", "rows", "equal"]
    comparison: str = ""
    bound: Expr | None = None
    other: str = ""
    where: tuple[tuple[str, Expr], ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Pattern:
    """A whole pattern. `output` is over (b, h, q, e): `axes` are these four. `result` names the attention or merge
    whose lse and weights the pattern returns, '' where there is not exactly one."""

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    tensors: tuple[Tensor, ...]
    requirements: tuple[Requirement, ...]
    axes: tuple[Axis, Axis, Axis, Axis]
    stages: tuple[Stage, ...]
    output: Expr
    result: str
    claims: tuple[Claim, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


# -------------------------------------------------------------------------------------------------- helpers

TRUE, FALSE = Literal(True), Literal(False)
ZERO, ONE = Literal(0), Literal(1)
Q_OFFSET, SCALE = Symbol("q_offset", "int"), Symbol("scale", "float")
B, H, HK, NQ, NK, D, DV = (Symbol(name, "int") for name in ("B", "H", "HK", "NQ", "NK", "D", "DV"))
SIZES: dict[str, Symbol] = {size.name: size for size in (B, H, HK, NQ, NK, D, DV)}

BATCH = Axis("b", B, "batch")
HEAD = Axis("h", H, "head")
KV_HEAD = Axis("g", HK, "kv_head")
QUERY = Axis("q", NQ, "query", Q_OFFSET)
KEY = Axis("k", NK, "key")
POSITION = Axis("n", NK, "position")
FEATURE = Axis("d", D, "feature")
VALUE_FEATURE = Axis("e", DV, "value_feature")


def storage(axis: Axis) -> Expr:
    """Where a value of the axis lies in a tensor indexed by it: index − start."""
    return Index(axis) if axis.start == ZERO else Apply("sub", (Index(axis), axis.start))


def axis_of(at: Expr) -> Axis | None:
    """The axis whose `storage` this is, or None: the test for reads that need no gather."""
    match at:
        case Index(axis) if axis.start == ZERO:
            return axis
        case Apply("sub", (Index(axis), start)) if start == axis.start:
            return axis
        case _:
            return None


def kv_head_of(head: Expr) -> Expr:
    """g(h) = h // (H // HK)."""
    return Apply("floordiv", (head, Apply("floordiv", (H, HK))))


def dtype_of(expr: Expr) -> DType:
    """The kind of number an expression is."""
    match expr:
        case Literal(bool()):
            return "bool"
        case Literal(int()):
            return "int"
        case Literal(_):
            return "float"
        case Symbol(_, dtype) | Read(_, _, dtype):
            return dtype
        case Index(_):
            return "int"
        case Apply(op, args):
            kind = OPERATIONS[op][1]
            if kind != "same":
                return kind
            kinds = [dtype_of(arg) for arg in (args[1:] if op == "where" else args)]
            return "float" if "float" in kinds else "int" if op != "where" or "int" in kinds else "bool"
        case Reduce(op, _, body, _):
            if op in ("any", "all"):
                return "bool"
            return "float" if op in ("mean", "logsumexp") else dtype_of(body)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions (axis sizes excluded)."""
    match expr:
        case Read(_, at, _):
            return at
        case Apply(_, args):
            return args
        case Reduce(_, _, body, where):
            return (body,) if where is None else (body, where)
        case _:
            return ()


def free_axes(expr: Expr) -> frozenset[Axis]:
    """The index variables an expression depends on."""
    match expr:
        case Index(axis):
            return frozenset((axis,))
        case Reduce(_, axes, _, _):
            return frozenset[Axis]().union(*map(free_axes, children(expr))) - frozenset(axes)
        case _:
            return frozenset[Axis]().union(*map(free_axes, children(expr)))
