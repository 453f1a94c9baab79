"""Functions of printed C++ for pairs that lead their rows: how they are found, computed, and added."""

from __future__ import annotations

LARGE = 8.0
"""Base-2 scores whose rounding matters: a tile whose rows all have smaller maxima stays as it is."""
BELOW = (5.0, 3.5, 2.0)
"""A pair leads its row if its score is less than this below the row's maximum: its weight is above 1/32, …"""
MOST, MOST_OF_ROW = 12, 32
"""Pairs that may leave a tile: for each row of a vector of rows on average, and of a row by itself. Where more are
alike, each counts for less, and only nearer ones are asked for; where even these are too many, the rows stay."""
GONE = 100.0
"""How far below its row's maximum a pair is that has left the tile: its weight there, 2^-100, is lost in any sum, but
infinite values stay infinite."""

_EXACT_DOT = """\
// the sum of products in double: of rows, or of numbers that lie apart
INLINE double exact_dot(const float* x, const float* y, int64_t length) {
"""
_PARTS = """\
  typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
  typedef double wide __attribute__((vector_size(32)));
  wide a{}, b{};
  int64_t i = 0;
  for (; i + 8 <= length; i += 8) {
    a += as<wide>(*(const four*)(x + i)) * as<wide>(*(const four*)(y + i));
    b += as<wide>(*(const four*)(x + i + 4)) * as<wide>(*(const four*)(y + i + 4));
  }
  a += b;
  double sum = (a[0] + a[1]) + (a[2] + a[3]);
"""
_PARTS_AVX512 = """\
  typedef float part __attribute__((vector_size(32), aligned(4), may_alias));
  typedef double wide __attribute__((vector_size(64)));
  const auto widened = [](const float* from) INLINED {
    return (wide)__builtin_ia32_cvtps2pd512_mask(*(const part*)from, wide{}, -1, 4);
  };
  wide a{}, b{};
  int64_t i = 0;
  for (; i + 16 <= length; i += 16) {
    a += widened(x + i) * widened(y + i);
    b += widened(x + i + 8) * widened(y + i + 8);
  }
  a += b;
  typedef double half_of_it __attribute__((vector_size(32)));
  const half_of_it low = __builtin_ia32_extractf64x4_mask(a, 0, half_of_it{}, -1);
  const half_of_it c = low + __builtin_ia32_extractf64x4_mask(a, 1, half_of_it{}, -1);
  double sum = (c[0] + c[1]) + (c[2] + c[3]);
"""

LEADING: dict[str, str] = {
    "vectors_above": """\
// the vectors from `from` on, `step` apart, with lanes above `least`: which one, and a bit for each such lane
INLINE int32_t vectors_above(floats least, const float* from, int64_t step, int64_t count,
    int32_t* found, int32_t& lanes) {
  int32_t length = lanes = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = flags_of(load(from + i * step) > least).bits;
    found[length] = (int32_t)((uint32_t)i << 16 | bits);
    length += bits != 0;
    lanes += __builtin_popcount(bits);
  }
  return length;
}
""",
    "vectors_near": """\
// the same for lanes that are less than some distance below `top`, the smallest for which they are no more than `most`
INLINE int32_t vectors_near(floats top, const float* from, int64_t step, int64_t count,
    int32_t* found, int32_t most) {
  const float distances[] = {@below@};
  for (const float below : distances) {
    int32_t lanes, length = vectors_above(top - below, from, step, count, found, lanes);
    if (lanes <= most) return length;
  }
  return 0;
}
""",
    "take_leading_across": """\
// pairs whose scores are near the largest of their rows, where these are large: their scores become tiny
static __attribute__((noinline)) int32_t take_leading_across(float* scores, const float* shift, const float* top,
    int64_t rows, int64_t columns, float least, int32_t* in_m, int32_t* in_n) {
  ints large{};
  for (int64_t m = 0; m < rows; m += LANES) large |= (load(shift + m) > @large@) | (load(shift + m) < least);
  if (!any(large)) return 0;
  int32_t count = 0, found[columns];
  for (int64_t m = 0; m < rows; m += LANES) {
    if (!any(load(top + m) > load(shift + m) - @farthest@)) continue;
    const int32_t length = vectors_near(load(shift + m), scores + m, rows, columns, found, @most@ * LANES);
    for (int32_t i = 0; i < length; ++i)
      for (uint32_t bits = found[i] & 65535; bits != 0; bits &= bits - 1) {
        in_m[count] = (int32_t)m + __builtin_ctz(bits);
        in_n[count] = found[i] >> 16;
        scores[in_n[count] * rows + in_m[count]] = shift[in_m[count]] - @gone@;
        ++count;
      }
  }
  return count;
}
""",
    "take_leading_along": """\
// the same for a tile whose lanes are its columns
static __attribute__((noinline)) int32_t take_leading_along(float* scores, const float* shift, const float* top,
    int64_t rows, int64_t columns, float least, int32_t* in_m, int32_t* in_n) {
  int32_t count = 0, found[columns];
  bool large = false;
  for (int64_t m = 0; m < rows; ++m) large |= shift[m] > @large@ || shift[m] < least;
  if (large) for (int64_t m = 0; m < rows; ++m) {
    if (!(top[m] > shift[m] - @farthest@)) continue;
    float* const row = scores + m * columns;
    const int32_t length = vectors_near(spread(shift[m]), row, LANES, columns / LANES, found, @most_of_row@);
    for (int32_t i = 0; i < length; ++i)
      for (uint32_t bits = found[i] & 65535; bits != 0; bits &= bits - 1) {
        in_m[count] = (int32_t)m;
        in_n[count] = (found[i] >> 16) * LANES + __builtin_ctz(bits);
        row[in_n[count++]] = shift[m] - @gone@;
      }
  }
  return count;
}
""",
    "exact_dot": _EXACT_DOT
    + _PARTS
    + """\
  for (; i < length; ++i) sum += (double)x[i] * y[i];
  return sum;
}
INLINE double exact_dot(const float* x, const float* y, int64_t x_step, int64_t y_step, int64_t length) {
  double even = 0, odd = 0;
  int64_t i = 0;
  for (; i + 2 <= length; i += 2) {
    even += (double)x[i * x_step] * y[i * y_step];
    odd += (double)x[(i + 1) * x_step] * y[(i + 1) * y_step];
  }
  return i < length ? even + odd + (double)x[i * x_step] * y[i * y_step] : even + odd;
}
""",
    "add_rows": """\
// to row in_m[i] of `to`: the row in_n[i] of a tensor times its factor
static __attribute__((noinline)) void add_rows(float* to, int64_t length, int32_t count, const int32_t* in_m,
    const int32_t* in_n, const float* factors, const float* const* rows) {
  for (int32_t i = 0; i < count; ++i) {
    float* const sums = to + in_m[i] * length;
    const float* const row = rows[in_n[i]];
    int64_t e = 0;
    for (; e + LANES <= length; e += LANES) store(sums + e, load(sums + e) + factors[i] * load(row + e));
    for (; e < length; ++e) sums[e] += factors[i] * row[e];
  }
}
""",
    "add_turned_rows": """\
// the same for a tile whose lanes are its rows
static __attribute__((noinline)) void add_turned_rows(float* to, int64_t width, int64_t length, int32_t count,
    const int32_t* in_m, const int32_t* in_n, const float* factors, const float* const* rows,
    float* sums, float* turned) {
  for (int64_t i = 0; i < width * length; ++i) sums[i] = 0;
  add_rows(sums, length, count, in_m, in_n, factors, rows);
  int32_t at[width];
  for (int64_t m = 0; m < width; ++m) at[m] = (int32_t)(m * length);
  pack(turned, width, (const float*)sums, at, length);
  for (int64_t i = 0; i < width * length; i += LANES) store(to + i, load(to + i) + load(turned + i));
}
""",
}
LEADING_AVX512: dict[str, str] = {
    "exact_dot": LEADING["exact_dot"].replace(_PARTS, _PARTS_AVX512),
}

LEADING_MARKS: dict[str, str] = {
    "@gone@": f"{GONE}f",
    "@large@": f"{LARGE}f",
    "@below@": ", ".join(f"{each}f" for each in BELOW),
    "@farthest@": f"{BELOW[0]}f",
    "@most@": str(MOST),
    "@most_of_row@": str(MOST_OF_ROW),
}
