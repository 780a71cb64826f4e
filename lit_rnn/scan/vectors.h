// Vectors, and the product whose accumulators stay in registers: what the recurrences in C++ share.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(LIT_RNN_ALONE)  // linked without a C++ library: what std::vector asks of one
void* operator new(std::size_t size) {
  if (void* memory = std::malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char*, ...) noexcept { std::abort(); }
_LIBCPP_END_NAMESPACE_STD
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRows = 4;
#else
constexpr int kBytes = 16, kRows = 4;
#endif
constexpr int kColumns = 3;  // vectors in a panel

template <class T> struct Number;
template <> struct Number<float> {
  typedef float Vec __attribute__((vector_size(kBytes)));
  typedef int32_t Int __attribute__((vector_size(kBytes)));
  static constexpr int kMantissa = 23, kBias = 127, kDegree = 8;
  static constexpr float kMagic = 12582912.f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kLargest = 88.f, kSaturated = 10.f;
};
template <> struct Number<double> {
  typedef double Vec __attribute__((vector_size(kBytes)));
  typedef int64_t Int __attribute__((vector_size(kBytes)));
  static constexpr int kMantissa = 52, kBias = 1023, kDegree = 14;
  static constexpr double kMagic = 6755399441055744.0, kLn2High = 6.93147180369123816490e-01,
                          kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLargest = 700.0, kSaturated = 20.0;
};
template <class T> using Vec = typename Number<T>::Vec;
template <class T> constexpr int kLanes = kBytes / sizeof(T);

template <class T> inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
// the first ``count`` of a vector; loaded, the others are zero
#if defined(__AVX512F__)
inline Vec<float> masked(const float* from, int count) { return _mm512_maskz_loadu_ps(__mmask16((1 << count) - 1), from); }
inline Vec<double> masked(const double* from, int count) { return _mm512_maskz_loadu_pd(__mmask8((1 << count) - 1), from); }
inline void masked(float* to, Vec<float> v, int count) { _mm512_mask_storeu_ps(to, __mmask16((1 << count) - 1), v); }
inline void masked(double* to, Vec<double> v, int count) { _mm512_mask_storeu_pd(to, __mmask8((1 << count) - 1), v); }
#else
template <class T> inline Vec<T> masked(const T* from, int count) {
  Vec<T> v = {};
  std::memcpy(&v, from, count * sizeof(T));
  return v;
}
template <class T> inline void masked(T* to, Vec<T> v, int count) { std::memcpy(to, &v, count * sizeof(T)); }
#endif
template <class T> inline Vec<T> load(const T* from, int count) {
  return count >= kLanes<T> ? load(from) : masked(from, count);
}
template <class T> inline void store(T* to, Vec<T> v, int count) {
  if (count >= kLanes<T>)
    std::memcpy(to, &v, sizeof v);
  else
    masked(to, v, count);
}

// ---- nonlinearities; a NaN stays one

// e^x = scale (1 + rest): scale = 2^k, rest = e^r - 1 by Taylor's series, r = x - k ln 2 in [-ln 2 / 2, ln 2 / 2]
template <class T> struct Power {
  Vec<T> scale, rest;
  explicit Power(Vec<T> x) {
    using N = Number<T>;
    using Int = typename N::Int;
    x = x < -N::kLargest ? Vec<T>{} - N::kLargest : x;
    x = x > N::kLargest ? Vec<T>{} + N::kLargest : x;
    Vec<T> k = (x * T(1.4426950408889634) + N::kMagic) - N::kMagic;
    Vec<T> r = (x - k * N::kLn2High) - k * N::kLn2Low;
    T factorial = 1;
    T inverse[N::kDegree + 1];
    for (int i = 1; i <= N::kDegree; ++i) inverse[i] = 1 / (factorial *= i);
    Vec<T> p = Vec<T>{} + inverse[N::kDegree];
    for (int i = N::kDegree - 1; i >= 1; --i) p = p * r + inverse[i];
    Int bits = (__builtin_convertvector(k, Int) + N::kBias) << N::kMantissa;
    std::memcpy(&scale, &bits, sizeof scale);
    rest = p * r;
  }
};
template <class T> inline Vec<T> exp(Vec<T> x) {
  const Power<T> power(x);
  return power.scale * power.rest + power.scale;
}
template <class T> inline Vec<T> expm1(Vec<T> x) {
  const Power<T> power(x);
  return power.scale * power.rest + (power.scale - 1);
}
template <class T> inline Vec<T> sigmoid(Vec<T> z) { return 1 / (1 + exp<T>(-z)); }
template <class T> inline Vec<T> tanh(Vec<T> z) {
  Vec<T> modulus = z < 0 ? -z : z;
  modulus = modulus > Number<T>::kSaturated ? Vec<T>{} + Number<T>::kSaturated : modulus;
  Vec<T> e = expm1<T>(2 * modulus);
  Vec<T> t = e / (e + 2);
  return z < 0 ? -t : t;
}
template <class T> inline Vec<T> root(Vec<T> x) {
  for (int i = 0; i < kLanes<T>; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

constexpr double kLeak = 0.1;  // as in activations.py
enum Kind { kIdentity, kRelu, kLeakyRelu, kTanh, kElu, kModRelu, kComplexModRelu };

template <class T, int kind> inline Vec<T> apply(Vec<T> z, Vec<T> bias) {
  const Vec<T> zero = {};
  if constexpr (kind == kRelu) return z < 0 ? zero : z;
  if constexpr (kind == kLeakyRelu) return z < 0 ? z * T(kLeak) : z;
  if constexpr (kind == kTanh) return tanh<T>(z);
  if constexpr (kind == kElu) {
    Vec<T> negative = z > 0 ? zero : z;
    return z > 0 ? z : expm1<T>(negative);
  }
  if constexpr (kind == kModRelu) {
    Vec<T> modulus = (z < 0 ? -z : z) + bias;
    modulus = modulus < 0 ? zero : modulus;
    return z == 0 ? zero : (z < 0 ? -modulus : modulus);
  }
  return z;
}
// f' by the value that f gave
template <class T, int kind> inline Vec<T> slope(Vec<T> h) {
  const Vec<T> zero = {};
  if constexpr (kind == kRelu) return h > 0 ? zero + 1 : zero;
  if constexpr (kind == kLeakyRelu) return h > 0 ? zero + 1 : zero + T(kLeak);
  if constexpr (kind == kTanh) return 1 - h * h;
  if constexpr (kind == kElu) return h > 0 ? zero + 1 : h + 1;
  if constexpr (kind == kModRelu) return h != 0 ? zero + 1 : zero;
  return zero + 1;
}

// Complex modReLU h = s z, s = relu(m + b) / m, m the modulus: s, ..
template <class T> inline Vec<T> shrink(Vec<T> m, Vec<T> b) {
  const Vec<T> grown = m + b;
  return (grown < 0 ? Vec<T>{} : grown) / m;
}
// .. and dL/dz = s g + z (s' / m) Re(conj(z) g) with z = h / s where s > 0, in place of g; gives dL/db.
template <class T> inline Vec<T> unshrink(Vec<T> m, Vec<T> b, int count, Vec<T> x, Vec<T> y, Vec<T>& gx, Vec<T>& gy) {
  const Vec<T> zero = {};
  for (int lane = count; lane < kLanes<T>; ++lane) m[lane] = 1;  // no unit there: nothing to divide by
  const Vec<T> grown = m + b, s = grown > 0 ? grown / m : zero, inverse = grown > 0 ? m / grown : zero;
  x *= inverse, y *= inverse;
  const Vec<T> along = (x * gx + y * gy) / m, bend = -b * along / (m * m);
  gx = s * gx + bend * x, gy = s * gy + bend * y;
  return along;
}

// ---- the product

template <class T> struct Panel {
  int first, units, vectors;  // units first .. first + units of the result, in this many vectors
  const T* weights;           // (rows, vectors * lanes)
};

// The panels of a matrix (rows, columns) that `pack` has written to ``packed``, for in (B, rows) times it.
template <class T> std::vector<Panel<T>> panels_of(int rows, int columns, const T* packed) {
  constexpr int L = kLanes<T>;
  std::vector<Panel<T>> panels;
  for (int first = 0; first < columns; first += kColumns * L) {
    const int units = std::min(columns - first, kColumns * L), vectors = (units + L - 1) / L;
    panels.push_back({first, units, vectors, packed});
    packed += int64_t(rows) * vectors * L;
  }
  return panels;
}

// Numbers between the starts of packed matrices: whole cache lines, since a load that crosses two takes two.
template <class T> int64_t packed_size(int rows, int columns) {
  constexpr int line = 64 / sizeof(T);
  return int64_t(rows) * ((columns + line - 1) / line * line);
}

// M (rows, columns), by its strides.
template <class T> void pack(const T* M, int rows, int columns, int64_t by_row, int64_t by_column, T* packed) {
  for (const auto& panel : panels_of<T>(rows, columns, packed))
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < panel.vectors * kLanes<T>; ++column)
        *packed++ = column < panel.units ? M[row * by_row + (panel.first + column) * by_column] : T(0);
}
#define LIT_RNN_PACK(T, name)                                                                                         \
  extern "C" void lit_rnn_pack_##name(const T* M, int rows, int columns, int64_t by_row, int64_t by_column,           \
                                      T* packed) {                                                                    \
    pack<T>(M, rows, columns, by_row, by_column, packed);                                                             \
  }

// sum (R, C) = in (R, rows) times a panel (rows, C): the accumulators are registers, whence the numbers known beforehand.
// ``across``: ``in`` is transposed, (rows, R).
template <class T, bool across, int R, int C>
void multiply(const T* in, int64_t stride, const T* weights, int rows, Vec<T>* to) {
  Vec<T> sum[R][C] = {};
  for (int k = 0; k < rows; ++k) {
    Vec<T> w[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) w[c] = load(weights + (int64_t(k) * C + c) * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T x = across ? in[k * stride + r] : in[r * stride + k];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] += x * w[c];
    }
  }
  std::memcpy(to, sum, sizeof sum);
}
template <class T, bool across, int R>
void multiply(int columns, const T* in, int64_t stride, const T* weights, int rows, Vec<T>* to) {
  if (columns == 1) multiply<T, across, R, 1>(in, stride, weights, rows, to);
  if (columns == 2) multiply<T, across, R, 2>(in, stride, weights, rows, to);
  if (columns == 3) multiply<T, across, R, 3>(in, stride, weights, rows, to);
}
template <class T, bool across = false>
void multiply(int size, const Panel<T>& panel, const T* in, int width, int stride, Vec<T>* to) {
  switch (size) {
    case 1: return multiply<T, across, 1>(panel.vectors, in, stride, panel.weights, width, to);
    case 2: return multiply<T, across, 2>(panel.vectors, in, stride, panel.weights, width, to);
    case 3: return multiply<T, across, 3>(panel.vectors, in, stride, panel.weights, width, to);
    case 4: return multiply<T, across, 4>(panel.vectors, in, stride, panel.weights, width, to);
#if defined(__AVX512F__)
    case 5: return multiply<T, across, 5>(panel.vectors, in, stride, panel.weights, width, to);
    case 6: return multiply<T, across, 6>(panel.vectors, in, stride, panel.weights, width, to);
    case 7: return multiply<T, across, 7>(panel.vectors, in, stride, panel.weights, width, to);
    case 8: return multiply<T, across, 8>(panel.vectors, in, stride, panel.weights, width, to);
#endif
  }
}

// Calls work(row, size) on blocks of rows, as few as registers allow, and even.
template <class Work> inline void in_blocks(int rows, Work work) {
  const int blocks = (rows + kRows - 1) / kRows;
  for (int block = 0, row = 0; block < blocks; ++block) {
    const int size = (rows - row + blocks - block - 1) / (blocks - block);
    work(row, size);
    row += size;
  }
}

// One step of these rows: each panel's product (of ``in``, rows ``stride`` apart; nothing if null), then ``finish`` on
// the sums of a block of rows.
template <class T, class Finish>
inline void step(const std::vector<Panel<T>>& panels, int rows, int width, int stride, const T* in, Finish finish) {
  Vec<T> sum[kRows * kColumns] = {};
  for (const auto& panel : panels)
    in_blocks(rows, [&](int row, int size) {
      if (in) multiply(size, panel, in + int64_t(row) * stride, width, stride, sum);
      finish(panel, row, size, sum);
    });
}

// The same of complex rows [Re | Im], and a complex matrix M, by Gauss's three real products instead of four: with
// a = Re Re M, b = Im Im M and c = (Re + Im) (Re M + Im M), the result is (a - b) + i (c - a - b).
template <class T> struct ComplexMatrix {
  int units;
  std::vector<Panel<T>> real, imaginary, both;
  ComplexMatrix(int units, const T* packed)
      : units(units),
        real(panels_of(units, units, packed)),
        imaginary(panels_of(units, units, packed + packed_size<T>(units, units))),
        both(panels_of(units, units, packed + 2 * packed_size<T>(units, units))) {}
};
template <class T, class Finish>
inline void step(const ComplexMatrix<T>& M, int rows, const T* in, std::vector<T>& scratch, Finish finish) {
  const int n = M.units, stride = 2 * n;
  Vec<T> a[kRows * kColumns] = {}, b[kRows * kColumns] = {}, c[kRows * kColumns] = {};
  scratch.resize(int64_t(rows) * n);
  if (in)
    for (int64_t row = 0; row < rows; ++row)
      for (int unit = 0; unit < n; ++unit) scratch[row * n + unit] = in[row * stride + unit] + in[row * stride + n + unit];
  for (size_t i = 0; i < M.real.size(); ++i)
    in_blocks(rows, [&](int row, int size) {
      if (in) {
        multiply(size, M.real[i], in + int64_t(row) * stride, n, stride, a);
        multiply(size, M.imaginary[i], in + int64_t(row) * stride + n, n, stride, b);
        multiply(size, M.both[i], scratch.data() + int64_t(row) * n, n, n, c);
        for (int v = 0; v < size * M.real[i].vectors; ++v) {
          c[v] -= a[v] + b[v];
          a[v] -= b[v];
        }
      }
      finish(M.real[i], row, size, a, c);
    });
}

}  // namespace
