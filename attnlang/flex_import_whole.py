"""Operations on whole numbers that the language writes otherwise: shifts, bits under a constant, division towards 0."""

from __future__ import annotations

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.errors_flex import CannotTraceTorch
from attnlang.flex_import_indices import POSITIONS
from attnlang.flex_import_make import Make
from attnlang.flex_import_values import Kind, Value

FILES_OF_THE_TRACER.add(__file__)

MOST_BITS = 16


def shifted(make: Make, input: object, other: object, sign: str) -> Value:
    """x << n is x · 2^n, x >> n is x // 2^n."""
    x, n = _whole(make, input, "a shift"), _whole(make, other, "a shift")
    if n.number is not None:
        power: syntax.Expr = syntax.Number(2 ** int(n.now()), span=here())
    else:
        power = syntax.Binary("**", syntax.Number(2, span=here()), n.expr, span=here())
    return make.value(syntax.Binary(sign, x.expr, power, span=here()), "int")


def bits(make: Make, input: object, other: object) -> Value:
    """x & c, c a number: x mod 2^n where c is 2^n − 1, else each of its bits for itself."""
    x, c = make.lift(input), make.lift(other)
    if c.number is None:
        x, c = c, x
    if c.number is None:
        hint = "one of them must be a number, as in x & 3; or look the result up in a tensor"
        raise CannotTraceTorch(here(), hint, what="'&' of two whole numbers that depend on indices")
    mask = int(c.now())
    if mask < 0 or mask.bit_length() > MOST_BITS:
        raise CannotTraceTorch(here(), what=f"'&' with {mask}")
    if mask & (mask + 1) == 0:
        return make.value(_binary("mod", x.expr, mask + 1), "int")
    terms = [_bit(x.expr, place) for place in range(mask.bit_length()) if mask >> place & 1]
    total = terms[0]
    for term in terms[1:]:
        total = syntax.Binary("+", total, term, span=here())
    return make.value(total, "int")


def _bit(expr: syntax.Expr, place: int) -> syntax.Expr:
    """One bit of a number, at its place."""
    if not place:
        return _binary("mod", expr, 2)
    return _binary("*", _binary("mod", _binary("//", expr, 1 << place), 2), 1 << place)


def complement(make: Make, input: object) -> Value:
    """~x of a whole number is −x − 1."""
    x = _whole(make, input, "'~'")
    return make.value(_binary("-", syntax.Unary("-", x.expr, span=here()), 1), "int")


def truncated(make: Make, input: object, other: object) -> Value:
    """x / y rounded towards 0: sign(x · y) · (|x| // |y|)."""
    x, y = make.numeric(input), make.numeric(other)
    quotient = syntax.Binary("//", _size(make, x), _size(make, y), span=here())
    if _is_natural(x) and _is_natural(y):
        return make.value(quotient, _kind(x, y))
    product = make.value(syntax.Binary("*", x.expr, y.expr, span=here()), _kind(x, y))
    node = syntax.Binary("*", make.called("sign", product), quotient, span=here())
    return make.value(node, _kind(x, y))


def remainder_of_truncated(make: Make, input: object, other: object) -> Value:
    """torch.fmod: what truncating division leaves, with the sign of x."""
    x, y = make.numeric(input), make.numeric(other)
    rest = syntax.Binary("mod", _size(make, x), _size(make, y), span=here())
    if _is_natural(x):
        return make.value(rest, _kind(x, y))
    return make.value(syntax.Binary("*", make.called("sign", x), rest, span=here()), _kind(x, y))


def _size(make: Make, value: Value) -> syntax.Expr:
    return value.expr if _is_natural(value) else make.called("abs", value)


def _is_natural(value: Value) -> bool:
    """Whether it is a position, or a number that is no parameter and at least 0."""
    if value.number is not None:
        return not value.names and value.number >= 0
    return isinstance(value.expr, syntax.Name) and value.expr.id in POSITIONS


def _kind(x: Value, y: Value) -> Kind:
    return "float" if "float" in (x.kind, y.kind) else "int"


def is_bits(make: Make, *operands: object) -> bool:
    """Whether '&' and '~' are meant bit by bit."""
    return all(make.lift(each).kind == "int" for each in operands)


def _binary(sign: str, left: syntax.Expr, right: int) -> syntax.Expr:
    return syntax.Binary(sign, left, syntax.Number(right, span=here()), span=here())


def _whole(make: Make, given: object, what: str) -> Value:
    value = make.numeric(given)
    if value.kind != "int":
        raise CannotTraceTorch(here(), what=f"{what} of a float")
    return value
