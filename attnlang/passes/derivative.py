"""Derivatives of scores, factors and values: what reaches an element of Q, K or V from a number for every pair.

For Σ over pairs of `seed · expr`, `gradient` gives the derivative by `tensor[…, feature]` as a sum of products. A
product is later taken apart (`derivative_parts.py`) into what a matrix product contracts and what stands outside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import log, pi, sqrt

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    BATCH,
    FEATURE,
    HEAD,
    KEY,
    OPERATIONS,
    QUERY,
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    axis_of,
    dtype_of,
    free_axes,
    kv_head_of,
)  # fmt: skip
from attnlang.ir.rewrite import map_children, simplify
from attnlang.ir.stabilize import renamed
from attnlang.ir.walk import reads_of
from attnlang.passes.algebra import factors, product
from attnlang.passes.finite import is_finite

ZERO, UNIT = Literal(0.0), Literal(1.0)


class NoDerivative(Exception):
    """An expression depends on a tensor in a way that no kernel differentiates; says how, in the user's terms."""


# ------------------------------------------------------------------------------------------------- operations


def _op(name: str, *args: Expr) -> Expr:
    return Apply(name, args)


def _square(x: Expr) -> Expr:
    return _op("mul", x, x)


def _power(whole: Expr, x: Expr, y: Expr) -> tuple[Expr | None, Expr | None]:
    """d(x ** y): y · x ** (y − 1), and x ** y · ln x; 0 at x = 0 where it would be infinite, as in the reference."""
    match y:
        case Literal(0 | 0.0):
            return None, None
        case Literal(2 | 2.0):
            return _op("mul", Literal(2.0), x), None
        case Literal(int(power)) if power > 0:
            return _op("mul", Literal(float(power)), _op("pow", x, Literal(power - 1))), None
        case _:
            pass
    zero = _op("eq", x, ZERO)
    below = _op("pow", x, _op("sub", y, Literal(1 if dtype_of(y) == "int" else 1.0)))
    steep = _op("and", zero, _op("and", _op("gt", y, ZERO), _op("lt", y, UNIT)))
    slope = _op("where", _op("or", steep, _op("eq", y, ZERO)), ZERO, _op("mul", y, below))
    rise = _op("where", _op("and", zero, _op("ge", y, ZERO)), ZERO, _op("mul", whole, _op("log", x)))
    return slope, rise


# operation → its partial derivatives, from the whole expression and its operands; None: it is 0 everywhere.
# `where`, `min` and `max` pass the gradient on to one of their operands and stand in `_chosen`.
_Partials = Callable[[Expr, tuple[Expr, ...]], tuple[Expr | None, ...]]
PARTIALS: dict[str, _Partials] = {
    "add": lambda _, a: (UNIT, UNIT),
    "sub": lambda _, a: (UNIT, Literal(-1.0)),
    "mul": lambda _, a: (a[1], a[0]),
    "div": lambda w, a: (_op("div", UNIT, a[1]), _op("neg", _op("div", w, a[1]))),
    "mod": lambda _, a: (UNIT, _op("neg", _op("floordiv", *a))),
    "pow": lambda w, a: _power(w, *a),
    "neg": lambda _, a: (Literal(-1.0),),
    "abs": lambda _, a: (_op("sign", a[0]),),
    "exp": lambda w, a: (w,),
    "exp2": lambda w, a: (_op("mul", w, Literal(log(2))),),
    "expm1": lambda w, a: (_op("add", w, UNIT),),
    "log": lambda _, a: (_op("div", UNIT, a[0]),),
    "log2": lambda _, a: (_op("div", Literal(1 / log(2)), a[0]),),
    "log1p": lambda _, a: (_op("div", UNIT, _op("add", a[0], UNIT)),),
    "sqrt": lambda w, a: (_op("where", _op("gt", a[0], ZERO), _op("div", Literal(0.5), w), ZERO),),
    "rsqrt": lambda w, a: (_op("mul", Literal(-0.5), _op("mul", w, _square(w))),),
    "sin": lambda _, a: (_op("cos", *a),),
    "cos": lambda _, a: (_op("neg", _op("sin", *a)),),
    "tanh": lambda w, a: (_op("sub", UNIT, _square(w)),),
    "sigmoid": lambda w, a: (_op("mul", w, _op("sub", UNIT, w)),),
    "softplus": lambda _, a: (_op("sigmoid", *a),),
    "erf": lambda _, a: (_op("mul", Literal(2 / sqrt(pi)), _op("exp", _op("neg", _square(a[0])))),),
    "atan": lambda _, a: (_op("div", UNIT, _op("add", UNIT, _square(a[0]))),),
    "float": lambda _, a: (UNIT,),
    **dict.fromkeys(("sign", "floor", "ceil", "round", "int", "detach", "not"), lambda _, a: (None,)),
    **dict.fromkeys(
        ("floordiv", "lt", "le", "gt", "ge", "eq", "ne", "and", "or"), lambda _, a: (None, None)
    ),
}  # fmt: skip
CHOOSING = ("where", "min", "max")


def _chosen(op: str, args: tuple[Expr, ...]) -> Iterator[tuple[Expr, Expr]]:
    """For each operand the condition under which it is the result; equal operands give it to the second."""
    match op, args:
        case "where", (condition, x, y):
            yield x, condition
            yield y, _op("not", condition)
        case _, (x, y):
            first = _op("gt" if op == "max" else "lt", x, y)
            yield x, first
            yield y, _op("not", first)
        case _:
            raise AssertionError(f"{op} of {len(args)} operands")


assert {*PARTIALS, *CHOOSING} == set(OPERATIONS)


# --------------------------------------------------------------------------------------------------- gradient


@dataclass(frozen=True)
class _Leaf:
    """What arrives at one read of the tensor at feature `at`; None: at the index `own` of the walk."""

    adjoint: Expr
    at: Expr | None


def gradient(expr: Expr, seed: Expr, tensor: str, feature: Axis, facts: Facts) -> tuple[Expr, ...]:
    """The terms of ∂(Σ over pairs of seed · expr) / ∂tensor[…, feature], for every pair: products over the indices of
    the pair and `feature`, still to be summed over the pairs.

    Q must be read at its own query, K and V at their own key (`Q[q]`, `K[k]`, `V[k]`). Hidden pairs have seed 0, and
    0 times anything is 0. Raises NoDerivative where the expression depends on the tensor in another way.
    """
    walk = _Walk(tensor, feature, facts)
    return tuple(walk.at_feature(leaf) for leaf in walk.down(with_feature(expr, feature), seed))


class _Walk:
    """Reverse mode, from the top of an expression down to the reads of one tensor."""

    def __init__(self, tensor: str, feature: Axis, facts: Facts) -> None:
        self.tensor = tensor
        self.feature = feature
        self.own = replace(feature, name=f"{feature.name} of {tensor}")  # which no sum binds
        self.facts = facts

    def down(self, expr: Expr, adjoint: Expr) -> Iterator[_Leaf]:
        if not any(read.source == self.tensor for read in reads_of(expr)):
            return
        match expr:
            case Read(source, at, _) if source == self.tensor:
                self._check_place(at)
                yield _Leaf(adjoint, at[-1])
            case Apply(op, args) if op in CHOOSING:
                for operand, condition in _chosen(op, args):
                    yield from self.down(operand, self._where(condition, adjoint))
            case Apply(op, args):
                for operand, partial in zip(args, PARTIALS[op](expr, args), strict=True):
                    if partial is not None:
                        yield from self.down(operand, self._times(adjoint, partial))
            case Reduce():
                yield from self._reduce(expr, adjoint)
            case _:
                pass  # the tensor only stands in an index: whole numbers have no gradient

    def _reduce(self, expr: Reduce, adjoint: Expr) -> Iterator[_Leaf]:
        for leaf in self.down(expr.body, self._inside(expr, adjoint)):
            for axis in expr.axes:
                leaf = self._summed(leaf, axis)
            yield leaf

    def _inside(self, expr: Reduce, adjoint: Expr) -> Expr:
        """What arrives at each entry of a reduction."""
        match expr.op:
            case "sum":
                pass
            case "mean":
                ones = UNIT if expr.where is None else _op("where", expr.where, UNIT, ZERO)
                count = _op("max", Reduce("sum", expr.axes, ones), UNIT)
                adjoint = self._times(adjoint, _op("div", UNIT, count))
            case "logsumexp":
                adjoint = self._times(adjoint, _op("exp", _op("sub", expr.body, expr)))
            case "max" | "min":
                hit = _op("eq", expr.body, expr)
                seen = hit if expr.where is None else _op("and", hit, expr.where)
                ties = Reduce("sum", expr.axes, _op("where", seen, UNIT, ZERO))
                return self._where(seen, self._times(adjoint, _op("div", UNIT, _op("max", ties, UNIT))))
            case "prod":
                raise NoDerivative(f"it multiplies over features of {self.tensor}")
            case "any" | "all":
                raise NoDerivative(f"it asks a condition of features of {self.tensor}")
        return adjoint if expr.where is None else self._where(expr.where, adjoint)

    def _summed(self, leaf: _Leaf, axis: Axis) -> _Leaf:
        """A leaf below a reduction over `axis`: its own feature, or summed over."""
        if leaf.at == Index(axis):
            if axis.size != self.feature.size:
                raise NoDerivative(f"it sums over a part of the features of {self.tensor}")
            return _Leaf(renamed(leaf.adjoint, {axis: self.own}), None)
        if leaf.at is not None and axis in free_axes(leaf.at):
            raise NoDerivative(f"it reads the features of {self.tensor} in another order")
        parts = factors(leaf.adjoint)
        still = [part for part in parts if axis not in free_axes(part)]
        moving = [part for part in parts if axis in free_axes(part)]
        return _Leaf(product([*still, Reduce("sum", (axis,), product(moving))]), leaf.at)

    def at_feature(self, leaf: _Leaf) -> Expr:
        """The adjoint as a function of the feature: a read at one feature counts there alone."""
        if leaf.at is None:
            return simplify(_moved(leaf.adjoint, self.own, self.feature))
        match axis_of(leaf.at):
            case Axis() as axis if axis.size == self.feature.size:
                return simplify(_moved(leaf.adjoint, axis, self.feature))
            case _:
                here = _op("where", _op("eq", Index(self.feature), leaf.at), UNIT, ZERO)
                return simplify(product([*factors(leaf.adjoint), here]))

    def _times(self, adjoint: Expr, partial: Expr) -> Expr:
        """adjoint · partial; 0 where the adjoint is 0, even where the partial derivative is infinite there."""
        if partial == UNIT:
            return adjoint
        if partial == Literal(-1.0):
            return _op("neg", adjoint)
        together = _op("mul", adjoint, partial)
        if is_finite(partial, self.facts):
            return together
        return _op("where", _op("eq", adjoint, ZERO), ZERO, together)

    def _where(self, condition: Expr, adjoint: Expr) -> Expr:
        """The adjoint where the condition holds, as a factor of its own where that is safe."""
        if is_finite(adjoint, self.facts):
            return _op("mul", adjoint, _op("where", condition, UNIT, ZERO))
        return _op("where", condition, adjoint, ZERO)

    def _check_place(self, at: tuple[Expr, ...]) -> None:
        if not at_own_place(self.tensor, at):
            own = "q" if self.tensor == "Q" else "k"
            raise NoDerivative(
                f"it reads {self.tensor} elsewhere than at its own token, {self.tensor}[{own}]"
            )


def _moved(expr: Expr, old: Axis, new: Axis) -> Expr:
    """The expression at another index; sums that do not depend on it stay as they are, so that they are found again."""
    if old == new or old not in free_axes(expr):
        return expr
    match expr:
        case Index(_):
            return Index(new)
        case Reduce(_, axes, _, _) if new in axes:
            return renamed(expr, {old: new})
        case _:
            return map_children(expr, lambda part: _moved(part, old, new))


def at_own_place(tensor: str, at: tuple[Expr, ...]) -> bool:
    """Whether Q is read at (b, h, q), and K and V at (b, g(h), k)."""
    head = Index(HEAD) if tensor == "Q" else kv_head_of(Index(HEAD))
    token = axis_of(at[2])
    role = QUERY.role if tensor == "Q" else KEY.role
    return at[:2] == (Index(BATCH), head) and token is not None and token.role == role


def feature_axis(tensor: str, attention: Attention, head_dim: int) -> Axis:
    """The axis along which a gradient by Q, K or V is indexed."""
    return attention.feature if tensor == "V" else replace(FEATURE, size=Literal(head_dim))


def with_feature(expr: Expr, feature: Axis) -> Expr:
    """The expression with one name for all sums over the features, so that their tiles are one tile."""
    expr = map_children(expr, lambda part: with_feature(part, feature))
    match expr:
        case Reduce(op, (axis,), body, condition) if (
            axis.size == feature.size and axis.start == feature.start
        ):
            if feature in free_axes(body) or (condition is not None and feature in free_axes(condition)):
                return expr
            names = {axis: feature}
            seen = None if condition is None else renamed(condition, names)
            return Reduce(op, (feature,), renamed(body, names), seen)
        case _:
            return expr
