"""The tree as written: one frozen class per grammar rule, spans and comments outside equality."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnlang.source import NOWHERE, Span


@dataclass(frozen=True, kw_only=True)
class Node:
    """What every node carries: where it stands."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


# ---------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Number(Node):
    """`16`, `0.5`, `1e-6`: an int stays an int."""

    value: int | float


@dataclass(frozen=True)
class Boolean(Node):
    """`true` or `false` (also accepted: `True`, `False`)."""

    value: bool


@dataclass(frozen=True)
class Name(Node):
    """An identifier: an index, a size, a parameter, a tensor, a definition."""

    id: str


@dataclass(frozen=True)
class Attribute(Node):
    """`c.first`, `q.t`, `coarse.w`."""

    base: Expr
    name: str


@dataclass(frozen=True)
class Subscript(Node):
    """`Q[q]`, `bias[h, q, k]`."""

    base: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True)
class Call(Node):
    """`window(512)`, `top(m)`, `exp(s)`; keywords follow the positional arguments."""

    function: Name
    arguments: tuple[Expr, ...]
    keywords: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True)
class Reduction(Node):
    """`mean(K[k] for k in c if k < q)`: `domain` is an index space, a group, or the length of a range."""

    function: Name
    body: Expr
    variable: str
    domain: Expr
    condition: Expr | None = None


@dataclass(frozen=True)
class Unary(Node):
    """`-x`, `not x`."""

    operator: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """`+ - * / // mod ** @`."""

    operator: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Comparison(Node):
    """`a <= b < c`: the first operand, then operator and operand, chained as in Python."""

    first: Expr
    rest: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class Logical(Node):
    """`a and b and c`, or the same with `or`."""

    operator: str
    operands: tuple[Expr, ...]


@dataclass(frozen=True)
class Conditional(Node):
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr


Expr = (
    Number
    | Boolean
    | Name
    | Attribute
    | Subscript
    | Call
    | Reduction
    | Unary
    | Binary
    | Comparison
    | Logical
    | Conditional
)


# ----------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, kw_only=True)
class Statement(Node):
    """A line of a block. Comments are kept for the formatter: those above, and the one behind."""

    comments: tuple[str, ...] = field(default=(), compare=False, repr=False)
    trailing: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Binder(Node):
    """An index on the left of a definition: `c`, or `m in agents` for a range of its own."""

    name: str
    domain: Expr | None = None


@dataclass(frozen=True)
class TensorDeclaration(Statement):
    """`tensor bias[h, 2*reach - 1]: float`. An axis is an index name, a size, or an expression in parameters."""

    name: str
    axes: tuple[Expr, ...]
    dtype: str | None = None


@dataclass(frozen=True)
class GridDeclaration(Statement):
    """`grid q, k as (t: frames, y: height, x: width)`: row-major coordinates of positions."""

    indices: tuple[str, ...]
    extents: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class BlocksDeclaration(Statement):
    """`blocks c of k by 64`, `by 32 every 16`, `by ids[b, n]` (one group per id, `in count` says how many),
    `by (y: 8, x: 8)` (boxes of a grid), optionally `from start`."""

    name: str
    of: str
    by: Expr | None = None
    every: Expr | None = None
    start: Expr | None = None
    count: Expr | None = None
    boxes: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True)
class Let(Statement):
    """`let KC[c] = mean(K[k] for k in c)`; without indices, a name for an expression."""

    name: str
    indices: tuple[Binder, ...]
    value: Expr


@dataclass(frozen=True)
class Scan(Statement):
    """`scan kt[n] = a[n] * kt[n-1] + K[n] restart n mod 16 == 0`: a running value per token, zero before."""

    name: str
    indices: tuple[Binder, ...]
    value: Expr
    restart: Expr | None = None


@dataclass(frozen=True)
class Select(Statement):
    """`select near[q] = top(16) c by score where … always … never … per i`.

    `candidates` are the indices that are chosen from; `scope` the indices that choose as one.
    """

    name: str
    indices: tuple[Binder, ...]
    rule: Call
    candidates: tuple[Binder, ...]
    by: Expr
    where: Expr | None = None
    always: Expr | None = None
    never: Expr | None = None
    scope: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Section(Statement):
    """`mask`, `sparsity`, `score`, `weight`, `reweight`, `value`, `output`: a keyword and its expression."""

    keyword: str
    value: Expr


@dataclass(frozen=True)
class Normalize(Statement):
    """`normalize softplus(s) | l1 | power(3) | l1`, optionally `over q`."""

    steps: tuple[Expr, ...]
    over: str | None = None


@dataclass(frozen=True)
class Branch(Statement):
    """`branch coarse[m in agents] over c:` and a block of sections."""

    name: str
    rows: tuple[Binder, ...]
    over: Binder | None
    body: tuple[AnyStatement, ...]


@dataclass(frozen=True)
class State(Statement):
    """`state S[d, e]`: the axes of a recurrent state, zero before the first token."""

    name: str
    axes: tuple[Expr, ...]


@dataclass(frozen=True)
class Step(Statement):
    """`step S = S - …`: the state after a token, from the state before it."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Require(Statement):
    """`require group mod 2 == 0`: a condition on parameters, sizes and tensors, checked when the pattern is called."""

    condition: Expr


@dataclass(frozen=True)
class Assert(Statement):
    """`assert density <= 0.1 where NK = 65536`: a claim that `attnlang check` proves or refutes."""

    claim: Expr
    where: tuple[tuple[str, Expr], ...] = ()


AnyStatement = (
    TensorDeclaration
    | GridDeclaration
    | BlocksDeclaration
    | Let
    | Scan
    | Select
    | Section
    | Normalize
    | Branch
    | State
    | Step
    | Require
    | Assert
)


# -------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Parameter(Node):
    """`window: int >= 1 = 1024`; `type` is int, float or bool, `bounds` pairs of comparison and number."""

    name: str
    type: str | None
    bounds: tuple[tuple[str, Expr], ...] = ()
    default: Expr | None = None


@dataclass(frozen=True)
class Import(Statement):
    """`import "file.attn"`: brings its definitions and patterns in."""

    path: str


@dataclass(frozen=True)
class Definition(Statement):
    """`def window(n) = 0 <= q - k < n`: a named expression with parameters; indices are those of the place of use."""

    name: str
    parameters: tuple[Parameter, ...]
    value: Expr


@dataclass(frozen=True)
class PatternDefinition(Statement):
    """`pattern name(parameters):`, a docstring and the statements."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str | None
    body: tuple[AnyStatement, ...]


@dataclass(frozen=True)
class File(Node):
    """A whole file; `epilogue` holds the comments after the last statement."""

    items: tuple[Import | Definition | PatternDefinition, ...]
    epilogue: tuple[str, ...] = field(default=(), compare=False, repr=False)
