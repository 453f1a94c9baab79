"""Mathematics of printed C++: functions of vectors and of single numbers, in float and in double."""

from __future__ import annotations


def _by_lanes(name: str, builtin: str, vectors: tuple[str, ...] = ("floats", "doubles")) -> str:
    """A function that the C library has, number by number."""
    lines = [
        f"INLINE float {name}(float x) {{ return {builtin}f(x); }}",
        f"INLINE double {name}(double x) {{ return {builtin}(x); }}",
    ]
    for kind in vectors:
        lines += [
            f"INLINE {kind} {name}({kind} x) {{",
            f"  for (int lane = 0; lane < LANES; ++lane) x[lane] = {name}(x[lane]);",
            "  return x;",
            "}",
        ]
    return "\n".join(lines) + "\n"


EXP2_SERIES = """\
// (2^x - 1) / x for |x| <= 1/2, relative error 2e-9 before rounding
INLINE floats exp2_slope(floats x) {
  floats r = 1.53533615e-4f * x + 1.33988750e-3f;
  r = r * x + 9.61843736e-3f;
  r = r * x + 5.55033247e-2f;
  r = r * x + 2.40226479e-1f;
  return r * x + 6.93147203e-1f;
}
"""

MATH: dict[str, str] = {
    "nearest": """\
// the nearest whole number, ties to even
INLINE float nearest(float x) { return __builtin_fabsf(x) < 0x1p22f ? x + 0x1.8p23f - 0x1.8p23f : x; }
INLINE floats nearest(floats x) {
  const floats r = x + 0x1.8p23f - 0x1.8p23f;
  return (x < 0x1p22f) & (x > -0x1p22f) ? r : x;
}
INLINE double nearest(double x) { return __builtin_fabs(x) < 0x1p51 ? x + 0x1.8p52 - 0x1.8p52 : x; }
INLINE doubles nearest(doubles x) {
  const doubles r = x + 0x1.8p52 - 0x1.8p52;
  return (x < 0x1p51) & (x > -0x1p51) ? r : x;
}
""",
    "round_down": """\
template <class T> INLINE T round_down(T x) {
  const T r = nearest(x);
  return r > x ? r - 1.0f : r;
}
""",
    "round_up": """\
template <class T> INLINE T round_up(T x) {
  const T r = nearest(x);
  return r < x ? r + 1.0f : r;
}
""",
    "exp2_slope": EXP2_SERIES,
    "times_power": """\
// x · 2^power for a whole power, in two steps, so that neither leaves the range too early
INLINE floats times_power(floats x, floats power) {
  const ints whole = __builtin_convertvector(power, ints), first = whole >> 1, second = whole - first;
  return x * (floats)((first + 127) << 23) * (floats)((second + 127) << 23);
}
""",
    "exp2": """\
INLINE floats exp2(floats x) {
  x = maximum(spread(-160.0f), minimum(spread(130.0f), x));
  const floats whole = nearest(x);
  const floats rest = x - whole;
  return times_power(exp2_slope(rest) * rest + 1.0f, whole);
}
"""
    + _by_lanes("exp2", "__builtin_exp2", ("doubles",)),
    "exp": """\
INLINE floats exp(floats x) {
  // 2^n · e^r with n · ln 2 taken off in two parts
  x = maximum(spread(-110.0f), minimum(spread(90.0f), x));
  const floats whole = nearest(x * 1.44269504f);
  const floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  floats r = 1.9875691500e-4f * rest + 1.3981999507e-3f;
  r = r * rest + 8.3334519073e-3f;
  r = r * rest + 4.1665795894e-2f;
  r = r * rest + 1.6666665459e-1f;
  r = r * rest + 5.0000001201e-1f;
  return times_power(r * (rest * rest) + rest + 1.0f, whole);
}
"""
    + _by_lanes("exp", "__builtin_exp", ("doubles",)),
    "log": """\
INLINE floats log(floats x) {
  // x = m · 2^e with sqrt(1/2) <= m < sqrt(2), then an odd polynomial (Cephes)
  const ints tiny = x < 0x1p-126f;
  const floats scaled = tiny ? x * 0x1p25f : x;
  ints e = (((ints)scaled >> 23) & 255) - 126;
  floats m = (floats)(((ints)scaled & 0x7fffff) | 0x3f000000);
  const ints low = m < 0.70710678f;
  e += low;
  e -= tiny & 25;
  m = (low ? m + m : m) - 1.0f;
  floats r = 7.0376836292e-2f * m - 1.1514610310e-1f;
  r = r * m + 1.1676998740e-1f;
  r = r * m - 1.2420140846e-1f;
  r = r * m + 1.4249322787e-1f;
  r = r * m - 1.6668057665e-1f;
  r = r * m + 2.0000714765e-1f;
  r = r * m - 2.4999993993e-1f;
  r = r * m + 3.3333331174e-1f;
  const floats whole = __builtin_convertvector(e, floats), square = m * m;
  r = r * m * square - 2.12194440e-4f * whole - 0.5f * square + m + 0.693359375f * whole;
  r = x == 0.0f ? floats{} - infinity : x == infinity ? x : r;
  return (x >= 0.0f) ? r : floats{} + __builtin_nanf("");
}
"""
    + _by_lanes("log", "__builtin_log", ("doubles",)),
    "log2": "INLINE floats log2(floats x) { return log(x) * 1.44269504f; }\n"
    + _by_lanes("log2", "__builtin_log2", ("doubles",)),
    "divided": """\
INLINE floats divided(floats x, float y) { return x / y; }
""",
    "quotient": """\
// x / y for y that is neither tiny nor huge
INLINE floats quotient(floats x, floats y) { return x / y; }
""",
    "tanh": """\
INLINE floats tanh(floats x) {
  // t / (t + 2) with t = e^2x - 1, which near 0 is taken from the series alone
  floats y = x * 2.88539008f;
  y = maximum(spread(-40.0f), minimum(spread(40.0f), y));
  const floats whole = nearest(y), rest = y - whole;
  const floats power = times_power(floats{} + 1.0f, whole);
  const floats t = power * (exp2_slope(rest) * rest) + (power - 1.0f);
  return quotient(t, t + 2.0f);
}
"""
    + _by_lanes("tanh", "__builtin_tanh", ("doubles",)),
    "sigmoid": "template <class T> INLINE T sigmoid(T x) { return 1.0f / (1.0f + exp(-x)); }\n",
    "log1p": """\
INLINE floats log1p(floats x) {
  // the rounding of 1 + x is made good by the quotient
  const floats whole = 1.0f + x, rest = whole - 1.0f;
  return rest == 0.0f ? x : x == infinity ? x : log(whole) * (x / rest);
}
"""
    + _by_lanes("log1p", "__builtin_log1p", ("doubles",)),
    "softplus": """\
template <class T> INLINE T softplus(T x) {
  return (x > 0.0f ? x : T{}) + log1p(exp(x > 0.0f ? -x : x));
}
""",
    "absolute": "template <class T> INLINE T absolute(T x) { return x < 0 ? -x : x; }\n",
    "sign": """\
template <class T> INLINE T sign(T x) {
  return x > 0 ? T{} + 1 : x < 0 ? T{} - 1 : T{};
}
""",
    "square_root": _by_lanes("square_root", "__builtin_sqrt"),
    "expm1": _by_lanes("expm1", "__builtin_expm1"),
    "sin": _by_lanes("sin", "__builtin_sin"),
    "cos": _by_lanes("cos", "__builtin_cos"),
    "erf": _by_lanes("erf", "__builtin_erf"),
    "atan": _by_lanes("atan", "__builtin_atan"),
    "floor_divide": """\
// rounded down for any signs
template <class T> INLINE T floor_divide(T x, T y) {
  const T quotient = x / y, rest = x - quotient * y;
  return ((rest != 0) & ((rest < 0) != (y < 0))) ? quotient - 1 : quotient;
}
""",
    "floor_modulo": """\
// has the sign of y
template <class T> INLINE T floor_modulo(T x, T y) {
  const T rest = x % y;
  return ((rest != 0) & ((rest < 0) != (y < 0))) ? rest + y : rest;
}
""",
    "floor_quotient": """\
// a quotient that was rounded past a whole number is seen by its rest
template <class T> INLINE T floor_quotient(T x, T y) {
  const T quotient = round_down(x / y), rest = x - quotient * y;
  const auto high = ((y > 0) & (rest < 0)) | ((y <= 0) & (rest > 0));
  const auto low = ((y > 0) & (rest >= y)) | ((y <= 0) & (rest <= y));
  return high ? quotient - 1.0f : low ? quotient + 1.0f : quotient;
}
""",
    "floor_rest": "template <class T> INLINE T floor_rest(T x, T y) { return x - floor_quotient(x, y) * y; }\n",
    "power": """\
// x < 0 has no real power and gives NaN; anything to the 0 is 1
INLINE float power(float x, float y) { return y == 0 ? 1 : x < 0 ? __builtin_nanf("") : __builtin_powf(x, y); }
INLINE double power(double x, double y) { return y == 0 ? 1 : x < 0 ? __builtin_nan("") : __builtin_pow(x, y); }
template <class V> INLINE V power(V x, V y) {
  for (int lane = 0; lane < LANES; ++lane) x[lane] = power(x[lane], y[lane]);
  return x;
}
""",
    "power_integer": """\
// y is a whole number: an odd power keeps the sign of x
INLINE float power_integer(float x, float y) { return __builtin_powf(x, y); }
INLINE double power_integer(double x, double y) { return __builtin_pow(x, y); }
template <class V> INLINE V power_integer(V x, V y) {
  for (int lane = 0; lane < LANES; ++lane) x[lane] = power_integer(x[lane], y[lane]);
  return x;
}
""",
    "power_whole": """\
// whole numbers, y not negative, by squaring
template <class T> INLINE T power_whole(T x, T y) {
  T result = T{} + 1;
  for (int bit = 0; bit < 31; ++bit) {
    result = ((y >> bit) & 1) != 0 ? result * x : result;
    x *= x;
  }
  return result;
}
""",
}

MATH_AVX512: dict[str, str] = {
    "divided": """\
// x / y, as exact as the slow instruction for it: a product, and what it misses by
INLINE floats divided(floats x, float y) {
  const float r = 1.0f / y;
  const floats near = x * r, exact = near + r * (x - near * y);
  return exact == exact ? exact : near;
}
""",
    "quotient": """\
// x / y for y that is neither tiny nor huge: an estimate of 1 / y, made better once
INLINE floats quotient(floats x, floats y) {
  const floats r = __builtin_ia32_rcp14ps512_mask(y, y, -1);
  return x * (r * (2.0f - y * r));
}
""",
    "nearest": """\
// the nearest whole number, ties to even
INLINE float nearest(float x) { return __builtin_fabsf(x) < 0x1p22f ? x + 0x1.8p23f - 0x1.8p23f : x; }
INLINE floats nearest(floats x) { return __builtin_ia32_rndscaleps_mask(x, 8, x, -1, 4); }
""",
    "times_power": """\
// x · 2^power for a whole power
INLINE floats times_power(floats x, floats power) {
  return __builtin_ia32_scalefps512_mask(x, power, x, -1, 4);
}
""",
    "exp2": """\
INLINE floats exp2(floats x) {
  const floats whole = nearest(x);
  const floats rest = x - whole;
  return times_power(exp2_slope(rest) * rest + 1.0f, whole);
}
"""
    + _by_lanes("exp2", "__builtin_exp2", ("doubles",)),
    "exp2_coarse": """\
// 2^x with a relative error of 3e-6, for what is rounded to two bytes
INLINE floats exp2_coarse(floats x) {
  const floats whole = nearest(x), rest = x - whole;
  floats r = 9.58285e-3f * rest + 5.590643e-2f;
  r = r * rest + 2.4024099e-1f;
  r = r * rest + 6.9312419e-1f;
  return times_power(r * rest + 1.0f, whole);
}
""",
}
