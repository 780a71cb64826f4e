// h_t = f(W h_{t-1} + u_t) over a whole sequence, and its backward, for `lit_rnn/scan/native.py`.
//
// The batch is sharded over threads, which never meet: rows of a batch do not depend on one another. A step is one
// product whose accumulators stay in registers until f has been applied to them. The weights are packed once per call
// into panels as wide as the accumulators.
//
// Complex states are stored as torch stores them, (real, imaginary) side by side, and multiplied as 2n real numbers.

#include "vectors.h"

namespace {

// ---- (real, imaginary) pairs

template <class T> inline void pairs(const T* from, int count, Vec<T>& real, Vec<T>& imaginary) {
  constexpr int L = kLanes<T>;
  Vec<T> a = load(from, std::min(2 * count, L)), b = {};
  if (2 * count > L) b = load(from + L, 2 * count - L);
  typename Number<T>::Int even, odd;
  for (int i = 0; i < L; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
  real = __builtin_shuffle(a, b, even);
  imaginary = __builtin_shuffle(a, b, odd);
}
template <class T> inline void store_pairs(T* to, int count, Vec<T> real, Vec<T> imaginary) {
  constexpr int L = kLanes<T>;
  typename Number<T>::Int low, high;
  for (int i = 0; i < L; ++i) low[i] = i / 2 + (i % 2) * L, high[i] = i / 2 + L / 2 + (i % 2) * L;
  store(to, __builtin_shuffle(real, imaginary, low), std::min(2 * count, L));
  if (2 * count > L) store(to + L, __builtin_shuffle(real, imaginary, high), 2 * count - L);
}

// ---- forward and backward

template <class T, int kind>
void forward(int steps, int first, int last, int batch, int width, const std::vector<Panel<T>>& panels, const T* u,
             const T* h0, const T* bias, T* h, T* z, T eps) {
  constexpr int L = kLanes<T>;
  for (int t = 0; t < steps; ++t) {
    const int64_t now = (int64_t(t) * batch + first) * width;
    const T* before = t ? h + now - int64_t(batch) * width : h0 + int64_t(first) * width;
    step(panels, last - first, width, width, before, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
      for (int r = row; r < row + size; ++r)
        for (int c = 0; c < panel.vectors; ++c, ++sum) {
          if constexpr (kind == kComplexModRelu) {
            const int64_t at = now + int64_t(r) * width + 2 * panel.first;
            const Vec<T> zero = {};
            Vec<T> real, imaginary;
            pairs(u + at, panel.units, real, imaginary);
            real += sum[0], imaginary += sum[1];
            ++c, ++sum;
            if (z) store_pairs(z + at, panel.units, real, imaginary);
            const Vec<T> modulus = root<T>(real * real + imaginary * imaginary + eps);
            Vec<T> scale = modulus + load(bias + panel.first, panel.units);
            scale = (scale < 0 ? zero : scale) / modulus;
            store_pairs(h + at, panel.units, real * scale, imaginary * scale);
          } else {
            const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
            const int64_t at = now + int64_t(r) * width + unit;
            const Vec<T> b = kind == kModRelu ? load(bias + unit, count) : Vec<T>{};
            store(h + at, apply<T, kind>(*sum + load(u + at, count), b), count);
          }
        }
    });
  }
}

// state: h, or z for complex states. grad_last is by the last of these steps; grad is null where the loss sees no other.
template <class T, int kind>
void backward(int steps, int first, int last, int batch, int width, const std::vector<Panel<T>>& panels, const T* grad,
              const T* grad_last, const T* state, const T* bias, T* delta, T* by_bias, T eps) {
  constexpr int L = kLanes<T>;
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t now = (int64_t(t) * batch + first) * width, next = int64_t(batch) * width;
    const T* direct = t == steps - 1 ? grad_last + int64_t(first) * width : grad ? grad + now : nullptr;
    const T* after = t == steps - 1 ? nullptr : delta + now + next;
    step(panels, last - first, width, width, after, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
      for (int r = row; r < row + size; ++r)
        for (int c = 0; c < panel.vectors; ++c, ++sum) {
          const Vec<T> zero = {};
          if constexpr (kind == kComplexModRelu) {
            // h = s z with s = relu(m + b) / m, m the modulus: dL/dz = s g + z (s' / m) Re(conj(z) g)
            const int64_t at = int64_t(r) * width + 2 * panel.first;
            Vec<T> x, y, gx = zero, gy = zero;
            pairs(state + now + at, panel.units, x, y);
            if (direct) pairs(direct + at, panel.units, gx, gy);
            gx += sum[0], gy += sum[1];
            ++c, ++sum;
            const Vec<T> b = load(bias + panel.first, panel.units), modulus = root<T>(x * x + y * y + eps);
            const Vec<T> alive = modulus + b > 0 ? zero + 1 : zero, along = alive * (x * gx + y * gy) / modulus;
            const Vec<T> scale = alive * (modulus + b) / modulus, bend = -b * along / (modulus * modulus);
            store_pairs(delta + now + at, panel.units, scale * gx + bend * x, scale * gy + bend * y);
            store(by_bias + panel.first, load(by_bias + panel.first, panel.units) + along, panel.units);
          } else {
            const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
            const int64_t at = int64_t(r) * width + unit;
            const Vec<T> g = direct ? *sum + load(direct + at, count) : *sum, h = load(state + now + at, count);
            const Vec<T> d = g * slope<T, kind>(h);
            store(delta + now + at, d, count);
            if constexpr (kind == kModRelu)
              store(by_bias + unit, load(by_bias + unit, count) + (h < 0 ? -d : d), count);
          }
        }
    });
  }
}

template <class T>
void forward_all(int kind, int steps, int batch, int width, int threads, const T* u, const T* h0, const T* W,
                 const T* bias, T* h, T* z, double eps) {
  constexpr decltype(&forward<T, kIdentity>) run[] = {forward<T, kIdentity>, forward<T, kRelu>,    forward<T, kTanh>,
                                                      forward<T, kElu>,      forward<T, kModRelu>, forward<T, kComplexModRelu>};
  std::unique_ptr<T[]> memory;
  const auto panels = pack<T>(W, width, width, 1, width, kind == kComplexModRelu, memory);  // W^T
  share(batch, threads, [&](int, int first, int last) {
    run[kind](steps, first, last, batch, width, panels, u, h0, bias, h, z, T(eps));
  });
}

template <class T>
void backward_all(int kind, int steps, int batch, int width, int threads, const T* grad, const T* grad_last, const T* W,
                  const T* state, const T* bias, T* delta, T* by_bias, double eps) {
  constexpr decltype(&backward<T, kIdentity>) run[] = {
      backward<T, kIdentity>, backward<T, kRelu>, backward<T, kTanh>, backward<T, kElu>, backward<T, kModRelu>,
      backward<T, kComplexModRelu>};
  const bool complex = kind == kComplexModRelu;
  std::unique_ptr<T[]> memory;
  const auto panels = pack<T>(W, width, width, width, 1, complex, memory);
  share(batch, threads, [&](int thread, int first, int last) {
    T* mine = by_bias + int64_t(thread) * (complex ? width / 2 : width);
    run[kind](steps, first, last, batch, width, panels, grad, grad_last, state, bias, delta, mine, T(eps));
  });
}

}  // namespace

// u, h, z, grad, delta: (T, B, width); h0, grad_last: (B, width); W: (width, width); bias: (units,);
// by_bias: (threads, units), zeros. width counts reals: n, or 2n for complex states. All contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                        \
  extern "C" void lit_rnn_forward_##name(int kind, int steps, int batch, int width, int threads, const T* u,          \
                                         const T* h0, const T* W, const T* bias, T* h, T* z, double eps) {            \
    forward_all<T>(kind, steps, batch, width, threads, u, h0, W, bias, h, z, eps);                                    \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(int kind, int steps, int batch, int width, int threads, const T* grad,      \
                                          const T* grad_last, const T* W, const T* state, const T* bias, T* delta,    \
                                          T* by_bias, double eps) {                                                   \
    backward_all<T>(kind, steps, batch, width, threads, grad, grad_last, W, state, bias, delta, by_bias, eps);        \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
