"""The step of an online softmax in the body of a loop: scores, weights, and everything that takes in the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnlang.ir.kernel import Assign, Dot, Expr, Fold, Op, Statement, Var

from .cpp_normal import reads


@dataclass(frozen=True)
class Softmax:
    """weight = 2^(score − shift), where `shift` comes from `top`, the maximum of each row of scores. `sums` and
    `products`: what adds up over the columns what is 0 where the weight is; nothing else reads scores or weights."""

    score: Var
    top: str
    shift: Var
    weight: Var
    sums: Mapping[str, Expr]
    products: Mapping[str, Dot]


def softmax_of(statements: tuple[Statement, ...]) -> Softmax | None:
    """The step that a body takes in float32; None: it takes none, or weights are used otherwise than in sums."""
    for statement in statements:
        match statement:
            case Assign(
                name,
                Op("exp2", (Op("sub", (Var(_, "fp32", ("M", "N")) as score, Var(_, _, ("M",)) as shift)),)),
            ):
                top = _top(statements, score, shift)
                weight = Var(name, "fp32", ("M", "N"))
                return None if top is None else _users(statements, score, top, shift, weight)
            case _:
                pass
    return None


def _top(statements: tuple[Statement, ...], score: Var, shift: Var) -> str | None:
    """The name of the maximum of each row of scores, if `shift` is computed from it."""
    top: str | None = None
    derived: set[str] = set()
    for statement in statements:
        match statement:
            case Assign(name, Fold("max", value, "N")) if value == score:
                top = name
                derived.add(name)
            case Assign(name) if reads(statement) & derived:
                derived.add(name)
            case _:
                pass
    return top if shift.name in derived else None


def _users(
    statements: tuple[Statement, ...], score: Var, top: str, shift: Var, weight: Var
) -> Softmax | None:
    zero = {weight.name}
    sums: dict[str, Expr] = {}
    products: dict[str, Dot] = {}
    for statement in statements:
        read = reads(statement) & (zero | {score.name})
        match statement:
            case Assign(name) if not read or name in (weight.name, top):
                pass
            case Assign(name, Fold("sum", value, "N", "fp32")) if is_zero(value, zero):
                sums[name] = value
            case Assign(name, Dot(Var(left), _, "N", "fp32") as dot) if read == frozenset((left,)) <= zero:
                products[name] = dot
            case Assign(name, Op() as value) if is_zero(value, zero) and score.name not in read:
                zero.add(name)
            case _ if read:
                return None
            case _:
                pass
    return Softmax(score, top, shift, weight, sums, products)


def is_zero(expr: Expr, zero: set[str]) -> bool:
    """Whether an expression is 0 where the named values are."""
    match expr:
        case Var(name):
            return name in zero
        case Op("mul", args):
            return any(is_zero(arg, zero) for arg in args)
        case Op("div", (x, _)) | Op("neg" | "spread", (x,)):
            return is_zero(x, zero)
        case _:
            return False
