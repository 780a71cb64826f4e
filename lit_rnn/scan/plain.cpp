// h_t = f(W h_{t-1} + u_t) over a whole sequence, and its backward, for `lit_rnn/scan/native.py`.
//
// The batch is sharded over threads, which never meet: rows of a batch do not depend on one another. A step is one
// product whose accumulators stay in registers until f has been applied to them.
//
// Complex states are 2n real numbers, [Re | Im], as the outputs show them.

#include "vectors.h"

namespace {

template <class T> struct Real {
  int units;
  std::vector<Panel<T>> panels;
  Real(int units, const T* packed) : units(units), panels(panels_of(units, units, packed)) {}
};

// ---- forward: M is W^T; u, h: (T, B, n)

template <class T, int kind>
void forward(int steps, int first, int last, int batch, const Real<T>& M, const T* u, const T* h0, const T* bias, T* h) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  for (int t = 0; t < steps; ++t) {
    const int64_t now = (int64_t(t) * batch + first) * n;
    const T* before = t ? h + now - int64_t(batch) * n : h0 + int64_t(first) * n;
    step(M.panels, last - first, n, n, before, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
      for (int r = row; r < row + size; ++r)
        for (int c = 0; c < panel.vectors; ++c, ++sum) {
          const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
          const int64_t at = now + int64_t(r) * n + unit;
          const Vec<T> b = kind == kModRelu ? load(bias + unit, count) : Vec<T>{};
          store(h + at, apply<T, kind>(*sum + load(u + at, count), b), count);
        }
    });
  }
}

// u, h: (T, B, 2n); modulus: (T, B, n), or null where no backward follows
template <class T>
void forward_complex(int steps, int first, int last, int batch, const ComplexMatrix<T>& M, const T* u, const T* h0,
                     const T* bias, T* h, T* modulus, T eps) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  std::vector<T> scratch;
  for (int t = 0; t < steps; ++t) {
    const int64_t now = int64_t(t) * batch + first;
    const T* before = t ? h + (now - batch) * 2 * n : h0 + int64_t(first) * 2 * n;
    step(M, last - first, before, scratch,
         [&](const Panel<T>& panel, int row, int size, const Vec<T>* real, const Vec<T>* imaginary) {
           for (int r = row; r < row + size; ++r)
             for (int c = 0; c < panel.vectors; ++c, ++real, ++imaginary) {
               const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
               const int64_t at = (now + r) * 2 * n + unit;
               const Vec<T> x = *real + load(u + at, count), y = *imaginary + load(u + at + n, count);
               const Vec<T> m = root<T>(x * x + y * y + eps);
               const Vec<T> scale = shrink<T>(m, load(bias + unit, count));
               store(h + at, x * scale, count), store(h + at + n, y * scale, count);
               if (modulus) store(modulus + (now + r) * n + unit, m, count);
             }
         });
  }
}

// ---- backward: M is W, or conj W. grad_last is by the last of these steps; grad is null where the loss sees no other.

template <class T, int kind>
void backward(int steps, int first, int last, int batch, const Real<T>& M, const T* grad, const T* grad_last, const T* h,
              const T* bias, T* delta, T* by_bias) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t now = (int64_t(t) * batch + first) * n, next = int64_t(batch) * n;
    const T* direct = t == steps - 1 ? grad_last + int64_t(first) * n : grad ? grad + now : nullptr;
    const T* after = t == steps - 1 ? nullptr : delta + now + next;
    step(M.panels, last - first, n, n, after, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
      for (int r = row; r < row + size; ++r)
        for (int c = 0; c < panel.vectors; ++c, ++sum) {
          const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
          const int64_t at = int64_t(r) * n + unit;
          const Vec<T> g = direct ? *sum + load(direct + at, count) : *sum, value = load(h + now + at, count);
          const Vec<T> d = g * slope<T, kind>(value);
          store(delta + now + at, d, count);
          if constexpr (kind == kModRelu)
            store(by_bias + unit, load(by_bias + unit, count) + (value < 0 ? -d : d), count);
        }
    });
  }
}

template <class T>
void backward_complex(int steps, int first, int last, int batch, const ComplexMatrix<T>& M, const T* grad,
                      const T* grad_last, const T* h, const T* modulus, const T* bias, T* delta, T* by_bias) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  std::vector<T> scratch;
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t now = int64_t(t) * batch + first;
    const T* direct = t == steps - 1 ? grad_last + int64_t(first) * 2 * n : grad ? grad + now * 2 * n : nullptr;
    const T* after = t == steps - 1 ? nullptr : delta + (now + batch) * 2 * n;
    step(M, last - first, after, scratch,
         [&](const Panel<T>& panel, int row, int size, const Vec<T>* real, const Vec<T>* imaginary) {
           for (int r = row; r < row + size; ++r)
             for (int c = 0; c < panel.vectors; ++c, ++real, ++imaginary) {
               const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
               const int64_t at = int64_t(r) * 2 * n + unit;
               Vec<T> gx = *real, gy = *imaginary;
               if (direct) gx += load(direct + at, count), gy += load(direct + at + n, count);
               const Vec<T> m = load(modulus + (now + r) * n + unit, count), b = load(bias + unit, count);
               const Vec<T> x = load(h + now * 2 * n + at, count), y = load(h + now * 2 * n + at + n, count);
               const Vec<T> along = unshrink<T>(m, b, count, x, y, gx, gy);
               store(delta + now * 2 * n + at, gx, count), store(delta + now * 2 * n + at + n, gy, count);
               store(by_bias + unit, load(by_bias + unit, count) + along, count);
             }
         });
  }
}

template <class T>
void forward_all(int kind, int steps, int batch, int units, int threads, const T* packed, const T* u, const T* h0,
                 const T* bias, T* h, T* modulus, double eps) {
  constexpr decltype(&forward<T, kIdentity>) run[] = {
      forward<T, kIdentity>, forward<T, kRelu>, forward<T, kLeakyRelu>,
      forward<T, kTanh>,     forward<T, kElu>,  forward<T, kModRelu>};
  if (kind == kComplexModRelu) {
    const ComplexMatrix<T> M(units, packed);
    share(batch, threads, [&](int, int first, int last) {
      forward_complex(steps, first, last, batch, M, u, h0, bias, h, modulus, T(eps));
    });
  } else {
    const Real<T> M(units, packed);
    share(batch, threads,
          [&](int, int first, int last) { run[kind](steps, first, last, batch, M, u, h0, bias, h); });
  }
}

template <class T>
void backward_all(int kind, int steps, int batch, int units, int threads, const T* packed, const T* grad,
                  const T* grad_last, const T* h, const T* modulus, const T* bias, T* delta, T* by_bias) {
  h += int64_t(batch) * units * (kind == kComplexModRelu ? 2 : 1);
  constexpr decltype(&backward<T, kIdentity>) run[] = {
      backward<T, kIdentity>, backward<T, kRelu>, backward<T, kLeakyRelu>,
      backward<T, kTanh>,     backward<T, kElu>,  backward<T, kModRelu>};
  if (kind == kComplexModRelu) {
    const ComplexMatrix<T> M(units, packed);
    share(batch, threads, [&](int thread, int first, int last) {
      T* mine = by_bias + int64_t(thread) * units;
      backward_complex(steps, first, last, batch, M, grad, grad_last, h, modulus, bias, delta, mine);
    });
  } else {
    const Real<T> M(units, packed);
    share(batch, threads, [&](int thread, int first, int last) {
      T* mine = by_bias + int64_t(thread) * units;
      run[kind](steps, first, last, batch, M, grad, grad_last, h, bias, delta, mine);
    });
  }
}

}  // namespace

// u, grad, delta: (T, B, width); h: (T, B, width), or (T + 1, B, width) behind the state before for the backward;
// h0, grad_last: (B, width); modulus: (T, B, units); bias: (units,); by_bias: (threads, units), zeros. width is units, or twice that for complex states, with three packed matrices:
// real part, imaginary part, and their sum. All contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  LIT_RNN_PACK(T, name)                                                                                               \
  extern "C" void lit_rnn_forward_##name(int kind, int steps, int batch, int units, int threads, const T* packed,     \
                                         const T* u, const T* h0, const T* bias, T* h, T* modulus, double eps) {      \
    forward_all<T>(kind, steps, batch, units, threads, packed, u, h0, bias, h, modulus, eps);                         \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(int kind, int steps, int batch, int units, int threads, const T* packed,    \
                                          const T* grad, const T* grad_last, const T* h, const T* modulus,            \
                                          const T* bias, T* delta, T* by_bias) {                                      \
    backward_all<T>(kind, steps, batch, units, threads, packed, grad, grad_last, h, modulus, bias, delta, by_bias);   \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
