"""The functions of printed C++ between tensors and tiles: rows packed, turned, copied, in pairs, gathered, written."""

from __future__ import annotations

ROWS: dict[str, str] = {
    "pack": """\
// rows that lie apart, as a tile with the lanes innermost
template <class T, class At>
INLINE void pack(float* to, int64_t width, const T* from, const At* at, int64_t length) {
  for (int64_t m = 0; m < width; m += LANES) {
    int64_t x = 0;
    for (; x + LANES <= length; x += LANES) {
      floats @registers@;
      @loads@
      transpose(@registers@);
      @stores@
    }
    for (; x < length; ++x)
      for (int64_t lane = m; lane < m + LANES; ++lane) { T r = from[at[lane] + x]; to[x * width + lane] = widen(r); }
  }
}
""",
    "pack_pairs": """\
// rows of bfloat that lie apart, as a tile of pairs with the lanes innermost
template <class At>
INLINE void pack_pairs(int32_t* to, int64_t width, const bfloat* from, const At* at, int64_t length) {
  for (int64_t m = 0; m < width; m += LANES) {
    int64_t x = 0;
    for (; x + LANES <= length; x += LANES) {
      floats @registers@;
      @pair_loads@
      transpose(@registers@);
      @pair_stores@
    }
    for (; x < length; ++x)
      for (int64_t lane = m; lane < m + LANES; ++lane) to[x * width + lane] = pair_at(from + at[lane] + 2 * x);
  }
}
""",
    "unpack": """\
// a tile with the lanes innermost, as rows that lie apart
template <class T, class At>
INLINE void unpack(T* to, const At* at, const int32_t* where, const float* from, int64_t width, int64_t length) {
  for (int64_t m = 0; m < width; m += LANES) {
    int64_t x = 0;
    for (; x + LANES <= length; x += LANES) {
      floats @registers@;
      @tile_loads@
      transpose(@registers@);
      @row_stores@
    }
    for (; x < length; ++x)
      for (int64_t lane = m; lane < m + LANES; ++lane)
        if (where[lane]) narrow(from[x * width + lane], to[at[lane] + x]);
  }
}
""",
    "gather": """\
// elements at offsets, one for each lane; where a condition fails, another value instead
template <class At> INLINE floats gather(const float* from, At at) {
  floats r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = from[at[lane]];
  return r;
}
template <class At> INLINE doubles gather(const double* from, At at) {
  doubles r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = from[at[lane]];
  return r;
}
template <class At> INLINE ints gather(const int32_t* from, At at) {
  ints r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = from[at[lane]];
  return r;
}
template <class At> INLINE longs gather(const int64_t* from, At at) {
  longs r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = from[at[lane]];
  return r;
}
template <class At> INLINE ints gather(const uint8_t* from, At at) {
  ints r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = -(int32_t)(from[at[lane]] != 0);
  return r;
}
template <class T, class At> INLINE floats gather(const T* from, At at) {
  floats r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = widen(from[at[lane]]);
  return r;
}
template <class T, class At, class V> INLINE V gather(const T* from, At at, ints where, V other) {
  return choose(where, gather(from, choose(where, at, At{})), other);
}
""",
    "scatter": """\
template <class T, class At, class V> INLINE void scatter(T* to, At at, V x, ints where) {
  for (int lane = 0; lane < LANES; ++lane)
    if (where[lane]) narrow(x[lane], to[at[lane]]);
}
""",
    "add_to": """\
// added to what is there
template <class T> INLINE void add_to(T& to, T x) { to += x; }
""",
    "scatter_add": """\
template <class T, class At, class V> INLINE void scatter_add(T* to, At at, V x, ints where) {
  for (int lane = 0; lane < LANES; ++lane)
    if (where[lane]) add_to(to[at[lane]], (T)x[lane]);
}
""",
    "add_row": """\
// a vector added to a row that may end before it does
template <class T, class V> INLINE void add_row(T* to, V x, int64_t left) {
  if (left >= LANES) return store(to, load(to) + x);
  for (int64_t lane = 0; lane < left; ++lane) to[lane] += x[lane];
}
""",
    "put_row": """\
// a vector as part of a row that may end before it does
template <class T, class V> INLINE void put_row(T* to, V x, int64_t left) {
  if (left >= LANES) return store(to, x);
  for (int64_t lane = 0; lane < left; ++lane) to[lane] = x[lane];
}
""",
    "row_products": """\
// for each lane the sum of the products of two rows
template <class T, class U, class At>
INLINE void row_products(float* to, int64_t width, const T* x, const At* x_at, const U* y, const At* y_at,
                         int64_t length) {
  for (int64_t m = 0; m < width; ++m) {
    const T* const a = x + x_at[m];
    const U* const b = y + y_at[m];
    floats sums{};
    int64_t i = 0;
    for (; i + LANES <= length; i += LANES) sums += load(a + i) * load(b + i);
    to[m] = across_sum(sums);
    for (; i < length; ++i) to[m] += widen(a[i]) * widen(b[i]);
  }
}
""",
    "turn": """\
// a tile with the lanes innermost, as one row for each lane
template <class T> INLINE void turn(T* to, int64_t width, const T* from, int64_t lanes, int64_t length) {
  for (int64_t lane = 0; lane < lanes; ++lane)
    for (int64_t x = 0; x < length; ++x) to[lane * width + x] = from[x * lanes + lane];
}
""",
    "narrow_row": """\
// numbers rounded to bfloat, two vectors at a time
INLINE void narrow_row(bfloat* to, const float* from, int64_t length) {
  int64_t i = 0;
  for (; i + 2 * LANES <= length; i += 2 * LANES) {
    ints both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(load(from + i + LANES)), "v"(load(from + i)));
    *(loose<ints, bfloat>::type*)(to + i) = both;
  }
  for (; i < length; ++i) narrow(from[i], to[i]);
}
""",
    "copy": """\
// a row of a tile: as it is stored, or as float
INLINE void copy(float* to, const float* from, int64_t length) {
  for (int64_t i = 0; i < length; ++i) to[i] = from[i];
}
template <class T> INLINE void copy(T* to, const T* from, int64_t length) {
  for (int64_t i = 0; i < length; ++i) to[i] = from[i];
}
template <class T> INLINE void copy(float* to, const T* from, int64_t length) {
  int64_t i = 0;
  for (; i + LANES <= length; i += LANES) store(to + i, load(from + i));
  for (; i < length; ++i) to[i] = widen(from[i]);
}
""",
    "interleave": """\
// the pairs of two rows of bfloat; the last row may stand alone
INLINE void interleave(int32_t* to, const bfloat* even, const bfloat* odd, int64_t length) {
  typedef loose<shorts, bfloat>::type row;
  int64_t i = 0;
  for (; i + LANES <= length; i += LANES) {
    const words low = __builtin_convertvector(*(const row*)(even + i), words);
    const words high = __builtin_convertvector(*(const row*)(odd + i), words);
    store(to + i, (ints)(high << 16 | low));
  }
  for (; i < length; ++i) to[i] = (int32_t)((uint32_t)odd[i].bits << 16 | even[i].bits);
}
INLINE int32_t pair_at(const bfloat* from) { int32_t r; __builtin_memcpy(&r, from, 4); return r; }
""",
}
