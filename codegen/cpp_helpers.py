"""The functions that printed C++ calls: vectors of one register, memory, conversions, mathematics.

Each is a piece of text with its name; a kernel has those that it calls on top. Vectors are those of GCC and clang; an
instruction set replaces a piece where it has instructions of its own for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .cpp_isa import Isa
from .cpp_leading_text import LEADING, LEADING_AVX512, LEADING_MARKS
from .cpp_math import MATH, MATH_AVX512
from .cpp_rows import ROWS

TYPES = """\
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))
#ifdef __clang__
#define SHUFFLED(x, y, places, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLED(x, y, places, ...) __builtin_shuffle(x, y, places{{__VA_ARGS__}})
#endif

// vectors of {lanes} numbers; a condition is a vector of integers, all bits set where it holds
constexpr int LANES = {lanes};
constexpr float infinity = __builtin_inff();
typedef float floats __attribute__((vector_size({single})));
typedef int32_t ints __attribute__((vector_size({single})));
typedef uint32_t words __attribute__((vector_size({single})));
typedef uint16_t shorts __attribute__((vector_size({short})));
typedef double doubles __attribute__((vector_size({double})));
typedef int64_t longs __attribute__((vector_size({double})));
struct half {{ uint16_t bits; }};
struct flags {{ uint16_t bits; }};
struct bfloat {{ uint16_t bits; }};
"""

PIECES: dict[str, str] = {
    "spread": """\
// one number in every lane
INLINE floats spread(float x) { return x - floats{}; }
INLINE doubles spread(double x) { return x - doubles{}; }
INLINE ints spread(int32_t x) { return x - ints{}; }
INLINE longs spread(int64_t x) { return x - longs{}; }
INLINE ints spread(bool x) { return -(int32_t)x - ints{}; }
""",
    "as": """\
// numbers of another type
template <class To, class From> INLINE To as(From x) { return __builtin_convertvector(x, To); }
""",
    "lanes_from": """\
INLINE ints lanes_from(int64_t first) { return (int32_t)first + ints{@steps@}; }
""",
    "halved": """\
// numbers of eight bytes as two vectors, in each of which they are compared and chosen
typedef int64_t half_longs __attribute__((vector_size(sizeof(ints))));
typedef double half_doubles __attribute__((vector_size(sizeof(ints))));
template <class V> struct two_parts { V low, high; };
template <class V, class From> INLINE two_parts<V> parts_of(From x) {
  two_parts<V> r;
  __builtin_memcpy(&r, &x, sizeof r);
  return r;
}
INLINE two_parts<half_longs> halved(longs x) { return parts_of<half_longs>(x); }
INLINE two_parts<half_doubles> halved(doubles x) { return parts_of<half_doubles>(x); }
INLINE ints joined(half_longs low, half_longs high) { return SHUFFLED((ints)low, (ints)high, ints, @evens@); }
#define COMPARED(sign) template <class V> INLINE ints operator sign(two_parts<V> x, two_parts<V> y) { \
  return joined((half_longs)(x.low sign y.low), (half_longs)(x.high sign y.high)); }
COMPARED(<) COMPARED(<=) COMPARED(>) COMPARED(>=) COMPARED(==) COMPARED(!=)
""",
    "choose": """\
template <class T> INLINE T choose(bool which, T x, T y) { return which ? x : y; }
INLINE floats choose(ints which, floats x, floats y) { return which ? x : y; }
INLINE ints choose(ints which, ints x, ints y) { return which ? x : y; }
template <class V> INLINE V chosen(ints which, V x, V y) {
  const auto w = halved(as<longs>(which));
  auto r = halved(x);
  const auto other = halved(y);
  r.low = w.low ? r.low : other.low;
  r.high = w.high ? r.high : other.high;
  __builtin_memcpy(&x, &r, sizeof x);
  return x;
}
INLINE doubles choose(ints which, doubles x, doubles y) { return chosen(which, x, y); }
INLINE longs choose(ints which, longs x, longs y) { return chosen(which, x, y); }
""",
    "flags_of": """\
// a condition as one bit for each lane
INLINE flags flags_of(ints x) {
  x &= ints{@powers@};
  int32_t bits = 0;
  for (int lane = 0; lane < LANES; ++lane) bits |= x[lane];
  return {(uint16_t)bits};
}
INLINE floats choose_by(flags which, floats x, floats y) {
  return ((int32_t)which.bits & ints{@powers@}) != 0 ? x : y;
}
INLINE doubles choose_by(flags which, doubles x, doubles y) {
  return __builtin_convertvector(((int32_t)which.bits & ints{@powers@}) != 0, longs) ? x : y;
}
""",
    "maximum": "template <class T> INLINE T maximum(T x, T y) { return x > y ? x : y; }\n",
    "minimum": "template <class T> INLINE T minimum(T x, T y) { return x < y ? x : y; }\n",
    "any": """\
INLINE bool any(ints x) {
  int32_t found = 0;
  for (int lane = 0; lane < LANES; ++lane) found |= x[lane];
  return found != 0;
}
""",
    "across": """\
// all lanes of a vector, added or compared
template <class V> INLINE auto across_sum(V x) {
  auto r = x[0];
  for (int lane = 1; lane < LANES; ++lane) r += x[lane];
  return r;
}
template <class V> INLINE auto across_max(V x) {
  auto r = x[0];
  for (int lane = 1; lane < LANES; ++lane) r = x[lane] > r ? x[lane] : r;
  return r;
}
template <class V> INLINE auto across_min(V x) {
  auto r = x[0];
  for (int lane = 1; lane < LANES; ++lane) r = x[lane] < r ? x[lane] : r;
  return r;
}
""",
    "bits_of": """\
INLINE uint32_t bits_of(float x) { uint32_t r; __builtin_memcpy(&r, &x, 4); return r; }
INLINE float float_of(uint32_t x) { float r; __builtin_memcpy(&r, &x, 4); return r; }
""",
    "widen": """\
// numbers of two bytes as float
INLINE float widen(float x) { return x; }
INLINE float widen(bfloat x) { return float_of((uint32_t)x.bits << 16); }
INLINE float widen(half x) {
  const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = (uint32_t)(x.bits & 0x7fff) << 13;
  const float size = float_of(rest) * 0x1p112f;
  return float_of(sign | (rest >= 0x0f800000 ? rest | 0x7f800000 : bits_of(size)));
}
INLINE floats widen(shorts x) {
  const words bits = __builtin_convertvector(x, words), rest = (bits & 0x7fff) << 13;
  const words size = (words)((floats)rest * 0x1p112f);
  return (floats)((bits & 0x8000) << 16 | (rest >= 0x0f800000 ? rest | 0x7f800000 : size));
}
""",
    "narrow": """\
// rounded to two bytes, ties to even
INLINE void narrow(float x, bfloat& to) {
  const uint32_t bits = bits_of(x);
  to.bits = x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
INLINE void narrow(float x, half& to) {
  const uint32_t sign = bits_of(x) >> 16 & 0x8000, size = bits_of(x) & 0x7fffffff;
  const uint32_t small = bits_of(float_of(size) + 0.5f) & 0xffff;
  const uint32_t normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
  const uint32_t large = size > 0x7f800000 ? 0x7e00 : 0x7c00;
  to.bits = (uint16_t)(sign | (size < 0x38800000 ? small : size >= 0x477ff000 ? large : normal));
}
INLINE shorts halves(floats x) {
  const words bits = (words)x, size = bits & 0x7fffffff;
  const words small = (words)((floats)size + 0.5f) & 0xffff;
  const words normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
  const words large = size > 0x7f800000 ? words{} + 0x7e00 : words{} + 0x7c00;
  const words r = size < 0x38800000 ? small : size >= 0x477ff000 ? large : normal;
  return __builtin_convertvector((bits >> 16 & 0x8000) | r, shorts);
}
INLINE void narrow(float x, float& to) { to = x; }
INLINE void narrow(double x, double& to) { to = x; }
INLINE void narrow(int32_t x, int32_t& to) { to = x; }
INLINE void narrow(int64_t x, int64_t& to) { to = x; }
""",
    "load": """\
// vectors in memory
template <class V, class T> struct loose { typedef V type __attribute__((aligned(sizeof(T)), may_alias)); };
INLINE floats load(const float* from) { return *(const loose<floats, float>::type*)from; }
INLINE doubles load(const double* from) { return *(const loose<doubles, double>::type*)from; }
INLINE ints load(const int32_t* from) { return *(const loose<ints, int32_t>::type*)from; }
INLINE longs load(const int64_t* from) { return *(const loose<longs, int64_t>::type*)from; }
INLINE ints load(const uint8_t* from) {
  ints r;
  for (int lane = 0; lane < LANES; ++lane) r[lane] = -(int32_t)(from[lane] != 0);
  return r;
}
INLINE floats load(const bfloat* from) {
  return (floats)(__builtin_convertvector(*(const loose<shorts, bfloat>::type*)from, words) << 16);
}
INLINE floats load(const half* from) { return widen(*(const loose<shorts, half>::type*)from); }
""",
    "store": """\
INLINE void store(float* to, floats x) { *(loose<floats, float>::type*)to = x; }
INLINE void store(double* to, doubles x) { *(loose<doubles, double>::type*)to = x; }
INLINE void store(int32_t* to, ints x) { *(loose<ints, int32_t>::type*)to = x; }
INLINE void store(int64_t* to, longs x) { *(loose<longs, int64_t>::type*)to = x; }
INLINE void store(bfloat* to, floats x) {
  const words bits = (words)x, even = bits + 0x7fff + ((bits >> 16) & 1);
  *(loose<shorts, bfloat>::type*)to = __builtin_convertvector((x == x ? even : words{} + 0x7fc00000u) >> 16, shorts);
}
INLINE void store(half* to, floats x) { *(loose<shorts, half>::type*)to = halves(x); }
""",
    "rounded": """\
// to the nearest number of two bytes, still as float
template <class T> INLINE float rounded(float x) { T r; narrow(x, r); return widen(r); }
template <class T> INLINE floats rounded(floats x) {
  alignas(64) T r[LANES];
  store(r, x);
  return load(r);
}
""",
    "transpose": """\
@exchanges@
// rows of numbers become rows of lanes: the bits of both numbers are exchanged one after the other
INLINE void transpose(@references@) {
@steps_of_transpose@
}
""",
    **ROWS,
    "pair": """\
// two vectors rounded to bfloat, the first in the lower halves of the lanes
INLINE ints pair(floats low, floats high) { return paired(narrowed(low, high)); }
""",
    "paired": """\
// two vectors of bfloat that stand one after the other: of each lane both side by side
INLINE ints paired(ints both) {
  typedef int16_t shorts __attribute__((vector_size(64)));
  return (ints)SHUFFLED((shorts)both, (shorts)both, shorts, @interleave@);
}
""",
    "narrowed": """\
// two vectors rounded to bfloat, one after the other
INLINE ints narrowed(floats low, floats high) {
  ints both;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(high), "v"(low));
  return both;
}
""",
    "put_two": """\
// two vectors of bfloat into two rows
INLINE void put_two(bfloat* to, int64_t width, ints both) {
  typedef int32_t part __attribute__((vector_size(32)));
  typedef loose<part, bfloat>::type row;
  asm("vextracti64x4 $0, %1, %0" : "=m"(*(row*)to) : "v"(both));
  asm("vextracti64x4 $1, %1, %0" : "=m"(*(row*)(to + width)) : "v"(both));
}
""",
    "stretch": """\
// columns from the first to before the last
struct stretch { int64_t first, stop; };
INLINE bool meets(stretch seen, int64_t first, int64_t stop) { return seen.first < stop && first < seen.stop; }

// the columns that some lane of one part of the vectors sees, the first and the last of them and all between
INLINE stretch seen_by_part(const flags* by, int64_t vectors, int64_t part, int64_t parts, int64_t count) {
  const int64_t many = vectors / parts;
  const auto sees = [&](int64_t column) INLINED {
    uint16_t found = 0;
    for (int64_t i = 0; i < many; ++i) found |= by[column * vectors + part * many + i].bits;
    return found != 0;
  };
  stretch seen = {0, count};
  while (seen.first < seen.stop && !sees(seen.first)) ++seen.first;
  while (seen.first < seen.stop && !sees(seen.stop - 1)) --seen.stop;
  return seen;
}
""",
    "in_memory": """\
// an array that stays in memory: what follows is not to be kept in registers beside the sums of a product
INLINE void in_memory(void* array) { asm volatile("" : : "r"(array) : "memory"); }
INLINE void settle() { asm volatile("" : : : "memory"); }
""",
    "keep": """\
// holds a vector in its register, where it would be loaded again for each use, or copied
INLINE void keep(ints& x) { asm("" : "+v"(x)); }
INLINE void keep(floats& x) { asm("" : "+v"(x)); }
""",
    "ahead": """\
// asks for the memory of a row that will be read soon
template <class T> INLINE void ahead(const T* from, int64_t step, int64_t length) {
  for (int64_t place = 0; place < length * (int64_t)sizeof(T); place += 64)
    __builtin_prefetch((const char*)from + step + place);
}
""",
    "last_lanes": """\
// the last lanes of a vector, 0 in those before them
template <int COUNT> INLINE floats last_lanes(floats x) {
  return ints{@steps@} >= LANES - COUNT ? x : floats{};
}
""",
    "folded": """\
@folds@
""",
    "dot2": """\
// sum + x · y of the pairs of each lane
INLINE floats dot2(floats sum, ints x, ints y) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
  return sum;
}
""",
    **LEADING,
    **MATH,
}

NEEDS: dict[str, tuple[str, ...]] = {
    "halved": ("as",),
    "choose": ("as", "halved"),
    "widen": ("bits_of",),
    "transpose": ("load",),
    "pack": ("transpose", "load", "store", "widen"),
    "pack_pairs": ("transpose", "load", "store", "interleave"),
    "interleave": ("load", "store"),
    "unpack": ("transpose", "load", "store", "narrow"),
    "narrow": ("bits_of",),
    "rounded": ("widen", "narrow", "load", "store"),
    "load": ("widen",),
    "store": ("load", "narrow"),
    "gather": ("widen", "choose"),
    "scatter": ("narrow",),
    "add_row": ("load", "store"),
    "put_row": ("store",),
    "narrow_row": ("load", "narrow"),
    "copy": ("load", "store", "widen"),
    "row_products": ("across", "load", "widen"),
}

AVX512: dict[str, str] = {
    "flags_of": """\
// a condition as one bit for each lane
INLINE flags flags_of(ints x) { return {(uint16_t)__builtin_ia32_cvtd2mask512(x)}; }
INLINE floats choose_by(flags which, floats x, floats y) {
#ifdef __clang__
  return __builtin_ia32_selectps_512(which.bits, x, y);
#else
  return __builtin_ia32_blendmps_512_mask(y, x, which.bits);
#endif
}
""",
    "interleave": """\
// the pairs of two rows of bfloat; the last row may stand alone
INLINE void interleave(int32_t* to, const bfloat* even, const bfloat* odd, int64_t length) {
  typedef uint16_t many __attribute__((vector_size(64)));
  typedef loose<many, bfloat>::type row;
  int64_t i = 0;
  for (; i + 32 <= length; i += 32) {
    const many x = *(const row*)(even + i), y = *(const row*)(odd + i);
    store(to + i, (ints)SHUFFLED(x, y, many, @first_pairs@));
    store(to + i + 16, (ints)SHUFFLED(x, y, many, @last_pairs@));
  }
  for (; i < length; ++i) to[i] = (int32_t)((uint32_t)odd[i].bits << 16 | even[i].bits);
}
INLINE int32_t pair_at(const bfloat* from) { int32_t r; __builtin_memcpy(&r, from, 4); return r; }
""",
    "any": "INLINE bool any(ints x) { return __builtin_ia32_cvtd2mask512(x) != 0; }\n",
    "gather": PIECES["gather"]
    + """\
INLINE floats gather(const float* from, ints at) {
  return __builtin_ia32_gathersiv16sf(floats{}, from, at, -1, 4);
}
INLINE ints gather(const int32_t* from, ints at) {
  typedef int sixteen __attribute__((vector_size(64)));
  return (ints)__builtin_ia32_gathersiv16si((sixteen)ints{}, from, at, -1, 4);
}
INLINE longs gather(const int64_t* from, ints at) {
  typedef int eight __attribute__((vector_size(32)));
  typedef long long wide __attribute__((vector_size(64)));
  eight at_half[2];
  wide found[2];
  __builtin_memcpy(at_half, &at, sizeof at);
  for (int half = 0; half < 2; ++half)
    found[half] = __builtin_ia32_gathersiv8di(wide{}, (const long long*)from, at_half[half], -1, 8);
  longs r;
  __builtin_memcpy(&r, found, sizeof r);
  return r;
}
""",
    **LEADING_AVX512,
    **MATH_AVX512,
}


def helpers(text: str, isa: Isa, lanes: int) -> str:
    """The types, and the functions that a text calls, those they need first."""
    pieces = PIECES
    if isa.bytes == 64 and lanes == 16:
        pieces = {**PIECES, **AVX512}
    wanted: list[str] = []

    def need(name: str) -> None:
        if name in wanted:
            return
        for other in _called(pieces[name], pieces):
            if other != name:
                need(other)
        wanted.append(name)

    for name in _called(text, pieces):
        need(name)
    types = TYPES.format(lanes=lanes, short=2 * lanes, single=4 * lanes, double=8 * lanes)
    steps = ", ".join(map(str, range(lanes)))
    woven = ", ".join(f"{i}, {i + lanes}" for i in range(lanes))
    filled = {
        "@steps@": steps,
        "@interleave@": woven,
        "@evens@": ", ".join(str(2 * i) for i in range(lanes)),
        "@first_pairs@": ", ".join(f"{i}, {i + 32}" for i in range(16)),
        "@last_pairs@": ", ".join(f"{i}, {i + 32}" for i in range(16, 32)),
        "@powers@": ", ".join(str(1 << i) for i in range(lanes)),
        **_transposition(lanes),
        **LEADING_MARKS,
    }
    shown = [pieces[name] for name in wanted]
    for mark, text in filled.items():
        shown = [piece.replace(mark, text) for piece in shown]
    return "\n".join([types, *shown])


def _transposition(lanes: int) -> dict[str, str]:
    """The parts of `transpose`, `pack` and `unpack` that name every register."""
    rows, bits = range(lanes), [1 << bit for bit in range(lanes.bit_length() - 1)]
    exchanges: list[str] = []
    folds: list[str] = []
    calls: list[str] = []
    for bit in bits:
        low = ", ".join(str(lanes + j - bit if j & bit else j) for j in rows)
        high = ", ".join(str(lanes + j if j & bit else j + bit) for j in rows)
        exchanges.append(
            f"INLINE void exchange_{bit}(floats& a, floats& b) {{\n"
            f"  const floats c = SHUFFLED(a, b, ints, {low});\n"
            f"  b = SHUFFLED(a, b, ints, {high});\n"
            "  a = c;\n}"
        )
        folds.append(
            f"INLINE floats folded_{bit}(floats a, floats b) {{\n"
            f"  return SHUFFLED(a, b, ints, {low}) + SHUFFLED(a, b, ints, {high});\n}}"
        )
        calls.append("  " + " ".join(f"exchange_{bit}(r{i}, r{i | bit});" for i in rows if not i & bit))
    return {
        "@exchanges@": "\n".join(exchanges),
        "@folds@": "\n".join(["// sums of two vectors in alternate lanes", *folds]),
        "@references@": ", ".join(f"floats& r{i}" for i in rows),
        "@steps_of_transpose@": "\n".join(calls),
        "@registers@": ", ".join(f"r{i}" for i in rows),
        "@loads@": "\n      ".join(f"r{i} = load(from + at[m + {i}] + x);" for i in rows),
        "@pair_loads@": "\n      ".join(
            f"r{i} = *(const loose<floats, bfloat>::type*)(from + at[m + {i}] + 2 * x);" for i in rows
        ),
        "@pair_stores@": "\n      ".join(f"store(to + (x + {i}) * width + m, (ints)r{i});" for i in rows),
        "@stores@": "\n      ".join(f"store(to + (x + {i}) * width + m, r{i});" for i in rows),
        "@tile_loads@": "\n      ".join(f"r{i} = load(from + (x + {i}) * width + m);" for i in rows),
        "@row_stores@": "\n      ".join(
            f"if (where[m + {i}]) store(to + at[m + {i}] + x, r{i});" for i in rows
        ),
    }


def _called(text: str, pieces: Mapping[str, str]) -> list[str]:
    """The pieces that define what a text calls, in the order of the table."""
    names: set[str] = set(re.findall(r"\b(\w+)(?=[(<])", text))
    names |= {each for each in ("across", "folded") if f"{each}_" in text}
    aliases = {"float_of": "bits_of", "pair_at": "interleave", "choose_by": "flags_of", "settle": "in_memory"}
    aliases |= {"meets": "stretch", "seen_by_part": "stretch"}
    found = {aliases.get(name, name) for name in names} & set(pieces)
    found |= {other for name in found for other in NEEDS.get(name, ())}
    return [name for name in pieces if name in found]
