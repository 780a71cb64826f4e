// Vectors, the product whose accumulators stay in registers, and threads: what the recurrences in C++ share.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRows = 4;
#else
constexpr int kBytes = 16, kRows = 4;
#endif
constexpr int kColumns = 3;  // vectors in a panel; a complex panel has 2: real and imaginary parts

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
template <class T> inline Vec<T> load(const T* from, int count) {
  if (count >= kLanes<T>) return load(from);
  Vec<T> v = {};
  std::memcpy(&v, from, count * sizeof(T));
  return v;
}
template <class T> inline void store(T* to, Vec<T> v, int count) {
  std::memcpy(to, &v, std::min(count, kLanes<T>) * sizeof(T));
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

enum Kind { kIdentity, kRelu, kTanh, kElu, kModRelu, kComplexModRelu };

template <class T, int kind> inline Vec<T> apply(Vec<T> z, Vec<T> bias) {
  const Vec<T> zero = {};
  if constexpr (kind == kRelu) return z < 0 ? zero : z;
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
  if constexpr (kind == kTanh) return 1 - h * h;
  if constexpr (kind == kElu) return h > 0 ? zero + 1 : h + 1;
  if constexpr (kind == kModRelu) return h != 0 ? zero + 1 : zero;
  return zero + 1;
}

// ---- the product

template <class T> struct Panel {
  int first, units, vectors;  // units first .. first + units of the result, in this many vectors
  const T* weights;           // (rows, vectors * lanes)
};

// Panels of M (rows, columns) given by strides, for in (B, rows) times M. For complex states M is (2n, 2n) with real and
// imaginary parts side by side, and a panel holds the real parts of its units, then their imaginary parts.
template <class T>
std::vector<Panel<T>> pack(const T* M, int rows, int columns, int64_t by_row, int64_t by_column, bool complex,
                           std::unique_ptr<T[]>& memory) {
  constexpr int L = kLanes<T>;
  const int units = complex ? columns / 2 : columns, wide = complex ? 1 : kColumns;
  const int total = (units + L - 1) / L * (complex ? 2 : 1);
  memory.reset(new T[int64_t(rows) * total * L + L]);
  std::vector<Panel<T>> panels;
  const uintptr_t start = reinterpret_cast<uintptr_t>(memory.get());
  T* to = reinterpret_cast<T*>((start + kBytes - 1) / kBytes * kBytes);  // a load that crosses cache lines takes two
  for (int first = 0; first < units; first += wide * L) {
    const int here = std::min(units - first, wide * L), vectors = complex ? 2 : (here + L - 1) / L;
    panels.push_back({first, here, vectors, to});
    for (int row = 0; row < rows; ++row)
      for (int v = 0; v < vectors; ++v)
        for (int lane = 0; lane < L; ++lane) {
          const int unit = first + (complex ? lane : v * L + lane);
          const int column = complex ? 2 * unit + v : unit;
          *to++ = unit < units ? M[row * by_row + column * by_column] : T(0);
        }
  }
  return panels;
}

// sum (R, C) = in (R, rows) times a panel (rows, C): the accumulators are registers, whence the numbers known beforehand
template <class T, int R, int C>
void multiply(const T* in, int64_t stride, const T* weights, int rows, Vec<T>* to) {
  Vec<T> sum[R][C] = {};
  for (int k = 0; k < rows; ++k) {
    Vec<T> w[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) w[c] = load(weights + (int64_t(k) * C + c) * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T x = in[r * stride + k];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] += x * w[c];
    }
  }
  std::memcpy(to, sum, sizeof sum);
}
template <class T, int R> void multiply(int columns, const T* in, int64_t stride, const T* weights, int rows, Vec<T>* to) {
  if (columns == 1) multiply<T, R, 1>(in, stride, weights, rows, to);
  if (columns == 2) multiply<T, R, 2>(in, stride, weights, rows, to);
  if (columns == 3) multiply<T, R, 3>(in, stride, weights, rows, to);
}
template <class T> void multiply(int size, const Panel<T>& panel, const T* in, int width, int stride, Vec<T>* to) {
  switch (size) {
    case 1: return multiply<T, 1>(panel.vectors, in, stride, panel.weights, width, to);
    case 2: return multiply<T, 2>(panel.vectors, in, stride, panel.weights, width, to);
    case 3: return multiply<T, 3>(panel.vectors, in, stride, panel.weights, width, to);
    case 4: return multiply<T, 4>(panel.vectors, in, stride, panel.weights, width, to);
#if defined(__AVX512F__)
    case 5: return multiply<T, 5>(panel.vectors, in, stride, panel.weights, width, to);
    case 6: return multiply<T, 6>(panel.vectors, in, stride, panel.weights, width, to);
    case 7: return multiply<T, 7>(panel.vectors, in, stride, panel.weights, width, to);
    case 8: return multiply<T, 8>(panel.vectors, in, stride, panel.weights, width, to);
#endif
  }
}

// One step of these rows: each panel's product (of ``in``, rows ``stride`` apart; nothing if null), then ``finish`` on
// the sums of a block of rows. Blocks are as few as registers allow, and even.
template <class T, class Finish>
inline void step(const std::vector<Panel<T>>& panels, int rows, int width, int stride, const T* in, Finish finish) {
  Vec<T> sum[kRows * kColumns] = {};
  const int blocks = (rows + kRows - 1) / kRows;
  for (const auto& panel : panels)
    for (int block = 0, row = 0; block < blocks; ++block) {
      const int size = (rows - row + blocks - block - 1) / (blocks - block);
      if (in) multiply(size, panel, in + int64_t(row) * stride, width, stride, sum);
      finish(panel, row, size, sum);
      row += size;
    }
}

// ---- threads

// Runs work(first row, last row) on that many threads, this one among them; all flush denormals if this one does.
template <class Work> void share(int rows, int threads, Work work) {
  threads = std::max(1, std::min(threads, rows));
#if defined(__SSE2__)
  const unsigned mode = _mm_getcsr();
#endif
  const auto part = [=](int i) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(mode);
#endif
    work(i, int(int64_t(rows) * i / threads), int(int64_t(rows) * (i + 1) / threads));
#if defined(__SSE2__)
    _mm_setcsr(before);
#endif
  };
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int i = 0; i < threads; ++i) part(i);
#else
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(part, i);
  part(0);
  for (auto& other : others) other.join();
#endif
}

}  // namespace
