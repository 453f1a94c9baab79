"""One row per operation of the kernel IR: how it is spelt, and how tightly it binds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A template over operands `{0}`, `{1}`, …; operands that bind less tightly than `binds` are bracketed."""

    template: str
    binds: int


ATOM, POWER, UNARY, PRODUCT, SUM, BITS, COMPARISON = 9, 8, 7, 6, 5, 4, 3


def _call(name: str, operands: int) -> Spelling:
    places = ", ".join(f"{{{position}}}" for position in range(operands))
    return Spelling(f"{name}({places})", ATOM)


def _infix(sign: str, binds: int) -> Spelling:
    return Spelling("{0} " + sign + " {1}", binds)


TRITON: dict[str, Spelling] = {
    "add": _infix("+", SUM), "sub": _infix("-", SUM), "mul": _infix("*", PRODUCT), "div": _infix("/", PRODUCT),
    "floordiv": _infix("//", PRODUCT), "mod": _infix("%", PRODUCT),
    "floordiv_signed": _call("floor_divide", 2), "mod_signed": _call("floor_modulo", 2),
    "floordiv_float": _call("floor_quotient", 2), "mod_float": _call("floor_rest", 2),
    "neg": Spelling("-{0}", UNARY), "not": Spelling("~{0}", UNARY),
    "and": _infix("&", BITS), "or": _infix("|", BITS),
    "lt": _infix("<", COMPARISON), "le": _infix("<=", COMPARISON), "gt": _infix(">", COMPARISON),
    "ge": _infix(">=", COMPARISON), "eq": _infix("==", COMPARISON), "ne": _infix("!=", COMPARISON),
    "min": _call("tl.minimum", 2), "max": _call("tl.maximum", 2), "where": _call("tl.where", 3),
    "abs": _call("tl.abs", 1), "sign": _call("sign", 1),
    "exp": _call("tl.exp", 1), "exp2": _call("tl.exp2", 1), "expm1": _call("expm1", 1),
    "log": _call("tl.log", 1), "log2": _call("tl.log2", 1), "log1p": _call("log1p", 1),
    "sqrt": _call("tl.sqrt_rn", 1), "rsqrt": _call("tl.rsqrt", 1), "sin": _call("tl.sin", 1), "cos": _call("tl.cos", 1),
    "tanh": _call("tanh", 1), "sigmoid": _call("tl.sigmoid", 1), "softplus": _call("softplus", 1),
    "erf": _call("tl.erf", 1), "atan": _call("atan", 1), "floor": _call("tl.floor", 1), "ceil": _call("tl.ceil", 1),
    "round": _call("round_half_even", 1), "pow": _call("power", 2), "pow_integer": _call("power_integer", 2),
    "pow_whole": _call("power_whole", 2),
}  # fmt: skip

# Arithmetic of C++ works alike for numbers and for vectors of them; the rest are functions (cpp_helpers, cpp_math).
CPP: dict[str, Spelling] = {
    "add": _infix("+", SUM), "sub": _infix("-", SUM), "mul": _infix("*", PRODUCT), "div": _infix("/", PRODUCT),
    "floordiv": _infix("/", PRODUCT), "mod": _infix("%", PRODUCT),
    "floordiv_signed": _call("floor_divide", 2), "mod_signed": _call("floor_modulo", 2),
    "floordiv_float": _call("floor_quotient", 2), "mod_float": _call("floor_rest", 2),
    "neg": Spelling("-{0}", UNARY), "not": Spelling("{0} == 0", COMPARISON),
    "and": _infix("&", BITS), "or": _infix("|", BITS),
    "lt": _infix("<", COMPARISON), "le": _infix("<=", COMPARISON), "gt": _infix(">", COMPARISON),
    "ge": _infix(">=", COMPARISON), "eq": _infix("==", COMPARISON), "ne": _infix("!=", COMPARISON),
    "min": _call("minimum", 2), "max": _call("maximum", 2), "where": _call("choose", 3),
    "abs": _call("absolute", 1), "sign": _call("sign", 1),
    "exp": _call("exp", 1), "exp2": _call("exp2", 1), "expm1": _call("expm1", 1),
    "log": _call("log", 1), "log2": _call("log2", 1), "log1p": _call("log1p", 1),
    "sqrt": _call("square_root", 1), "rsqrt": Spelling("1.0f / square_root({0})", PRODUCT),
    "sin": _call("sin", 1), "cos": _call("cos", 1),
    "tanh": _call("tanh", 1), "sigmoid": _call("sigmoid", 1), "softplus": _call("softplus", 1),
    "erf": _call("erf", 1), "atan": _call("atan", 1), "floor": _call("round_down", 1), "ceil": _call("round_up", 1),
    "round": _call("nearest", 1), "pow": _call("power", 2), "pow_integer": _call("power_integer", 2),
    "pow_whole": _call("power_whole", 2),
}  # fmt: skip

CPP_NUMBERS: dict[str, str] = {
    "i1": "bool", "i8": "int32_t", "i32": "int32_t", "i64": "int64_t",
    "fp16": "float", "bf16": "float", "fp32": "float", "fp64": "double",
}  # fmt: skip
"""Types of single numbers: what is stored in two bytes is computed with as float."""
CPP_VECTORS: dict[str, str] = {
    "i1": "ints", "i8": "ints", "i32": "ints", "i64": "longs",
    "fp16": "floats", "bf16": "floats", "fp32": "floats", "fp64": "doubles",
}  # fmt: skip
CPP_STORED: dict[str, str] = {
    "i1": "uint8_t", "i8": "int8_t", "i32": "int32_t", "i64": "int64_t",
    "fp16": "half", "bf16": "bfloat", "fp32": "float", "fp64": "double",
}  # fmt: skip

# Functions of the kernels' own, printed above a kernel that uses them. Each works for scalars and tiles.
TRITON_HELPERS: dict[str, str] = {
    "floor_divide": """\
@triton.jit
def floor_divide(a, b):
    # rounds down for any signs, whichever way the machine's division rounds
    quotient = a // b
    rest = a - quotient * b
    return quotient - tl.where((rest != 0) & ((rest < 0) != (b < 0)), 1, 0)
""",
    "floor_modulo": """\
@triton.jit
def floor_modulo(a, b):
    # has the sign of b
    rest = a - (a // b) * b
    return rest + tl.where((rest != 0) & ((rest < 0) != (b < 0)), b, 0)
""",
    "floor_quotient": """\
@triton.jit
def floor_quotient(x, y):
    # a quotient that was rounded past a whole number is seen by its rest
    quotient = tl.floor(x / y)
    rest = x - quotient * y
    high = tl.where(y > 0.0, rest < 0.0, rest > 0.0)
    low = tl.where(y > 0.0, rest >= y, rest <= y)
    return quotient + tl.where(high, -1.0, tl.where(low, 1.0, 0.0))
""",
    "floor_rest": """\
@triton.jit
def floor_rest(x, y):
    return x - floor_quotient(x, y) * y
""",
    "sign": """\
@triton.jit
def sign(x):
    return tl.where(x > 0, 1, tl.where(x < 0, -1, 0)).to(x.dtype)
""",
    "tanh": """\
@triton.jit
def tanh(x):
    # an odd polynomial near 0, where the quotient of exponentials loses digits
    square = x * x
    near = 0.021869488536155203 + square * (-0.008863235529902197 + square * 0.003592128036572481)
    near = 0.13333333333333333 + square * (-0.05396825396825397 + square * near)
    near = x + x * square * (-0.3333333333333333 + square * near)
    small = tl.exp2(tl.abs(x) * -2.8853900817779268)
    far = (1.0 - small) / (1.0 + small)
    return tl.where(tl.abs(x) < 0.5, near, tl.where(x < 0.0, -far, far))
""",
    "atan": """\
@triton.jit
def atan(x):
    # brought to |t| <= tan(pi / 8), then an odd polynomial (Cephes)
    size = tl.abs(x)
    flipped = size > 1.0
    near = tl.where(flipped, 1.0 / tl.where(flipped, size, 1.0), size)
    turned = near > 0.41421356
    t = tl.where(turned, (near - 1.0) / (near + 1.0), near)
    square = t * t
    series = ((8.05374449538e-2 * square - 1.38776856032e-1) * square + 1.99777106478e-1) * square - 3.33329491539e-1
    angle = series * square * t + t + tl.where(turned, 0.7853981633974483, 0.0)
    angle = tl.where(flipped, 1.5707963267948966 - angle, angle)
    return tl.where(x < 0.0, -angle, angle)
""",
    "softplus": """\
@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))
""",
    "log1p": """\
@triton.jit
def log1p(x):
    # the rounding of 1 + x is made good by the quotient
    whole = 1.0 + x
    rest = tl.where(whole == 1.0, 1.0, whole - 1.0)
    return tl.where(whole == 1.0, x, tl.log(whole) * (x / rest))
""",
    "expm1": """\
@triton.jit
def expm1(x):
    # the rounding of exp(x) is made good by its logarithm
    whole = tl.exp(x)
    rest = whole - 1.0
    log = tl.log(tl.where((whole <= 0.0) | (whole == 1.0), 2.0, whole))
    near = tl.where(whole == 1.0, x, rest * (x / log))
    return tl.where(tl.abs(x) < 0.5, near, rest)
""",
    "round_half_even": """\
@triton.jit
def round_half_even(x):
    down = tl.floor(x)
    rest = x - down
    odd = down - 2.0 * tl.floor(down * 0.5)
    return tl.where((rest > 0.5) | ((rest == 0.5) & (odd == 1.0)), down + 1.0, down)
""",
    "power": """\
@triton.jit
def power(x, y):
    # x < 0 has no real power and gives NaN; anything to the 0 is 1
    size = tl.exp2(y * tl.log2(tl.abs(x)))
    return tl.where(y == 0.0, 1.0, tl.where(x < 0.0, float("nan"), size))
""",
    "power_whole": """\
@triton.jit
def power_whole(x, y):
    # whole numbers, y not negative, by squaring
    result = x * 0 + 1
    for bit in tl.static_range(0, 31):
        result = tl.where(((y >> bit) & 1) != 0, result * x, result)
        x = x * x
    return result
""",
    "power_integer": """\
@triton.jit
def power_integer(x, y):
    # y is a whole number: an odd power keeps the sign of x
    size = tl.exp2(y * tl.log2(tl.abs(x)))
    odd = (y - 2.0 * tl.floor(y * 0.5)) == 1.0
    return tl.where(y == 0.0, 1.0, tl.where((x < 0.0) & odd, -size, size))
""",
}
TRITON_HELPER_NEEDS: dict[str, tuple[str, ...]] = {"softplus": ("log1p",), "floor_rest": ("floor_quotient",)}

TRITON_TYPES: dict[str, str] = {
    "i1": "tl.int1", "i8": "tl.int8", "i32": "tl.int32", "i64": "tl.int64",
    "fp16": "tl.float16", "bf16": "tl.bfloat16", "fp32": "tl.float32", "fp64": "tl.float64",
}  # fmt: skip
