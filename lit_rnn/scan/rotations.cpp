// h_t = f(W h_{t-1} + u_t) over a whole sequence, and its backward, with W layers of 2x2 rotations that are applied one
// after another instead of W, for `lit_rnn/scan/rotations.py`.
//
// A layer is y_i = D_i x_i + E_i x_p(i), p(p(i)) = i. Rows do not depend on one another: each goes through a step alone,
// in memory that stays in the cache. Complex states are 2n real numbers, [Re | Im], and D and E as well.

#include "threads.h"
#include "vectors.h"

namespace {

template <class T, bool complex> struct Layers {
  static constexpr int parts = complex ? 2 : 1;
  int n, count;
  const int* partner;  // (count, n)
  const T* numbers;    // (count, 2, parts n): D and E
  std::vector<T> turned;  // E_p(i), (count, parts n)

  Layers(int n, int count, const int* partner, const T* numbers)
      : n(n), count(count), partner(partner), numbers(numbers), turned(int64_t(count) * width()) {
    for (int l = 0; l < count; ++l)
      for (int i = 0; i < width(); ++i) turned[l * width() + i] = E(l)[i / n * n + p(l)[i % n]];
  }
  int width() const { return parts * n; }
  const int* p(int l) const { return partner + l * n; }
  const T* D(int l) const { return numbers + 2 * l * width(); }
  const T* E(int l) const { return D(l) + width(); }

  // y = layer l of x
  void apply(int l, const T* __restrict x, T* __restrict y) const {
    const int* __restrict q = p(l);
    const T *__restrict d = D(l), *__restrict e = E(l);
    if constexpr (complex)
      for (int i = 0; i < n; ++i) {
        const T a = x[i], b = x[n + i], c = x[q[i]], s = x[n + q[i]];
        y[i] = d[i] * a - d[n + i] * b + e[i] * c - e[n + i] * s;
        y[n + i] = d[i] * b + d[n + i] * a + e[i] * s + e[n + i] * c;
      }
    else
      for (int i = 0; i < n; ++i) y[i] = d[i] * x[i] + e[i] * x[q[i]];
  }

  // dx from dy, and what x adds to the gradients by D and E
  void back(int l, const T* __restrict x, const T* __restrict dy, T* __restrict dx, T* __restrict by) const {
    const int* __restrict q = p(l);
    const T *__restrict d = D(l), *__restrict e = turned.data() + int64_t(l) * width();
    T *__restrict by_d = by + 2 * l * width(), *__restrict by_e = by_d + width();
    if constexpr (complex)
      for (int i = 0; i < n; ++i) {
        const int j = q[i];
        const T a = dy[i], b = dy[n + i], c = dy[j], s = dy[n + j];
        by_d[i] += a * x[i] + b * x[n + i], by_d[n + i] += b * x[i] - a * x[n + i];
        by_e[i] += a * x[j] + b * x[n + j], by_e[n + i] += b * x[j] - a * x[n + j];
        dx[i] = d[i] * a + d[n + i] * b + e[i] * c + e[n + i] * s;
        dx[n + i] = d[i] * b - d[n + i] * a + e[i] * s - e[n + i] * c;
      }
    else
      for (int i = 0; i < n; ++i) {
        by_d[i] += dy[i] * x[i], by_e[i] += dy[i] * x[q[i]];
        dx[i] = d[i] * dy[i] + e[i] * dy[q[i]];
      }
  }
};

// ---- f on one row: h from z, and delta = f' g with what it adds to the gradient by the bias

template <class T, int kind>
void activate(int n, const T* z, const T* u, const T* bias, T* h, T* modulus, T eps) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < n; i += L) {
    const int count = std::min(L, n - i);
    const Vec<T> b = kind == kModRelu || kind == kComplexModRelu ? load(bias + i, count) : Vec<T>{};
    if constexpr (kind == kComplexModRelu) {
      const Vec<T> x = load(z + i, count) + load(u + i, count), y = load(z + n + i, count) + load(u + n + i, count);
      const Vec<T> m = root<T>(x * x + y * y + eps), scale = shrink<T>(m, b);
      store(h + i, x * scale, count), store(h + n + i, y * scale, count);
      if (modulus) store(modulus + i, m, count);
    } else {
      store(h + i, apply<T, kind>(load(z + i, count) + load(u + i, count), b), count);
    }
  }
}
template <class T, int kind>
void slopes(int n, const T* g, const T* h, const T* modulus, const T* bias, T* delta, T* by_bias) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < n; i += L) {
    const int count = std::min(L, n - i);
    if constexpr (kind == kComplexModRelu) {
      const Vec<T> m = load(modulus + i, count), b = load(bias + i, count);
      const Vec<T> x = load(h + i, count), y = load(h + n + i, count);
      Vec<T> gx = load(g + i, count), gy = load(g + n + i, count);
      const Vec<T> along = unshrink<T>(m, b, count, x, y, gx, gy);
      store(delta + i, gx, count), store(delta + n + i, gy, count);
      store(by_bias + i, load(by_bias + i, count) + along, count);
    } else {
      const Vec<T> value = load(h + i, count), d = load(g + i, count) * slope<T, kind>(value);
      store(delta + i, d, count);
      if constexpr (kind == kModRelu) store(by_bias + i, load(by_bias + i, count) + (value < 0 ? -d : d), count);
    }
  }
}

// ---- a sequence

template <class T, int kind, bool complex = kind == kComplexModRelu>
void forward(int steps, int first, int last, int batch, const Layers<T, complex>& layers, const T* u, const T* h0,
             const T* bias, T* h, T* modulus, T eps) {
  const int n = layers.n, width = layers.width();
  std::vector<T> x(width), y(width);
  for (int t = 0; t < steps; ++t)
    for (int row = first; row < last; ++row) {
      const int64_t at = int64_t(t) * batch + row;
      const T* before = t ? h + (at - batch) * width : h0 + int64_t(row) * width;
      layers.apply(0, before, x.data());
      for (int l = 1; l < layers.count; ++l) layers.apply(l, x.data(), y.data()), x.swap(y);
      activate<T, kind>(n, x.data(), u + at * width, bias, h + at * width, modulus ? modulus + at * n : nullptr, eps);
    }
}

// h0: the state before the first step; through: the gradient by the last state, becomes that by h0; by:
// (count, 2, width), by D and E
template <class T, int kind, bool complex = kind == kComplexModRelu>
void backward(int steps, int first, int last, int batch, const Layers<T, complex>& layers, const T* h0, const T* grad,
              T* through, const T* h, const T* modulus, const T* bias, T* delta, T* by_bias, T* by) {
  const int n = layers.n, width = layers.width(), size = 2 * layers.count * width;
  std::vector<T> between(int64_t(layers.count) * width), g(2 * width), by_step(size), by_bias_step(n);
  std::vector<const T*> inputs(layers.count);
  for (int t = steps - 1; t >= 0; --t) {  // sums of sums round less
    std::fill(by_step.begin(), by_step.end(), T(0)), std::fill(by_bias_step.begin(), by_bias_step.end(), T(0));
    for (int row = first; row < last; ++row) {
      const int64_t at = int64_t(t) * batch + row;
      T *carried = through + int64_t(row) * width, *d = delta + at * width;
      if (grad && t < steps - 1)
        for (int i = 0; i < width; ++i) carried[i] += grad[at * width + i];
      slopes<T, kind>(n, carried, h + at * width, modulus ? modulus + at * n : nullptr, bias, d,
                      by_bias_step.data());
      inputs[0] = t ? h + (at - batch) * width : h0 + int64_t(row) * width;
      for (int l = 0; l + 1 < layers.count; ++l) {
        layers.apply(l, inputs[l], between.data() + l * width);
        inputs[l + 1] = between.data() + l * width;
      }
      const T* dy = d;
      for (int l = layers.count - 1; l >= 0; --l) {
        T* dx = l ? g.data() + l % 2 * width : carried;
        layers.back(l, inputs[l], dy, dx, by_step.data());
        dy = dx;
      }
    }
    for (int i = 0; i < size; ++i) by[i] += by_step[i];
    for (int i = 0; i < n; ++i) by_bias[i] += by_bias_step[i];
  }
}

template <class T, int kind>
void forward_all(int steps, int batch, int units, int threads, int count, const int* partner, const T* numbers,
                 const T* u, const T* h0, const T* bias, T* h, T* modulus, double eps) {
  const Layers<T, kind == kComplexModRelu> layers(units, count, partner, numbers);
  share(batch, threads, [&](int, int first, int last) {
    forward<T, kind>(steps, first, last, batch, layers, u, h0, bias, h, modulus, T(eps));
  });
}
template <class T, int kind>
void backward_all(int steps, int batch, int units, int threads, int count, const int* partner, const T* numbers,
                  const T* h0, const T* grad, T* through, const T* h, const T* modulus, const T* bias, T* delta,
                  T* by_bias, T* by) {
  const Layers<T, kind == kComplexModRelu> layers(units, count, partner, numbers);
  share(batch, threads, [&](int thread, int first, int last) {
    backward<T, kind>(steps, first, last, batch, layers, h0, grad, through, h, modulus, bias, delta,
                      by_bias + int64_t(thread) * units, by + int64_t(thread) * 2 * count * layers.width());
  });
}

}  // namespace

// u, h, grad, delta: (T, B, width); h0, through: (B, width); modulus: (T, B, units), of complex states alone; bias:
// (units,); partner: (count, units); numbers: (count, 2, width); by_bias: (threads, units) and by: (threads, count, 2,
// width), zeros. width is units, or twice that for complex states. grad is null where the loss sees the last state alone.
// All contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  extern "C" void lit_rnn_forward_##name(int kind, int steps, int batch, int units, int threads,                      \
                                         const int* partner, const T* numbers, const T* u, const T* h0,               \
                                         const T* bias, T* h, T* modulus, int count, double eps) {                    \
    constexpr decltype(&forward_all<T, kIdentity>) run[] = {                                                          \
        forward_all<T, kIdentity>, forward_all<T, kRelu>, forward_all<T, kLeakyRelu>, forward_all<T, kTanh>,          \
        forward_all<T, kElu>, forward_all<T, kModRelu>, forward_all<T, kComplexModRelu>};                             \
    run[kind](steps, batch, units, threads, count, partner, numbers, u, h0, bias, h, modulus, eps);                   \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(int kind, int steps, int batch, int units, int threads,                     \
                                          const int* partner, const T* numbers, const T* h0, const T* grad,           \
                                          T* through, const T* h, const T* modulus, const T* bias, T* delta,          \
                                          T* by_bias, T* by, int count) {                                             \
    constexpr decltype(&backward_all<T, kIdentity>) run[] = {                                                         \
        backward_all<T, kIdentity>, backward_all<T, kRelu>, backward_all<T, kLeakyRelu>, backward_all<T, kTanh>,      \
        backward_all<T, kElu>, backward_all<T, kModRelu>, backward_all<T, kComplexModRelu>};                          \
    run[kind](steps, batch, units, threads, count, partner, numbers, h0, grad, through, h, modulus, bias, delta,      \
              by_bias, by);                                                                                           \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
