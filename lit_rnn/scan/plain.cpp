// h_t = f(W h_{t-1} + u_t) over a whole sequence, and its backward, for `lit_rnn/scan/native.py`.
//
// The batch is sharded over threads, which never meet: rows of a batch do not depend on one another. A step is one
// product whose accumulators stay in registers until f has been applied to them.
//
// Sequences of unequal lengths lie packed, the longest first: at step t the first rows[t] of them are at work, and those
// rows of all steps follow one another in memory, N in all.
//
// Complex states are 2n real numbers, [Re | Im], as the outputs show them.

#include "threads.h"
#include "vectors.h"

namespace {

template <class T> struct Real {
  int units;
  std::vector<Panel<T>> panels;
  Real(int units, const T* packed) : units(units), panels(panels_of(units, units, packed)) {}
};

// How many of the rows from ``first`` to before ``last`` are at work at a step.
inline int of_share(int rows, int first, int last) { return std::max(0, std::min(rows, last) - first); }

// ---- forward: M is W^T; u, h: (N, n)

template <class T, int kind>
void forward(int steps, int first, int last, const int* rows, const Real<T>& M, const T* u, const T* h0, const T* bias,
             T* h) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  const T* before = h0;
  int64_t start = 0;  // the packed row with which a step begins
  for (int t = 0; t < steps; start += rows[t++]) {
    const int count_here = of_share(rows[t], first, last);
    if (!count_here) return;
    const int64_t now = (start + first) * n;
    step(M.panels, count_here, n, n, before + int64_t(first) * n,
         [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
           for (int r = row; r < row + size; ++r)
             for (int c = 0; c < panel.vectors; ++c, ++sum) {
               const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
               const int64_t at = now + int64_t(r) * n + unit;
               const Vec<T> b = kind == kModRelu ? load(bias + unit, count) : Vec<T>{};
               store(h + at, apply<T, kind>(*sum + load(u + at, count), b), count);
             }
         });
    before = h + start * n;
  }
}

// u, h: (N, 2n); modulus: (N, n), or null where no backward follows
template <class T>
void forward_complex(int steps, int first, int last, const int* rows, const ComplexMatrix<T>& M, const T* u, const T* h0,
                     const T* bias, T* h, T* modulus, T eps) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  std::vector<T> scratch;
  const T* before = h0;
  int64_t start = 0;
  for (int t = 0; t < steps; start += rows[t++]) {
    const int count_here = of_share(rows[t], first, last);
    if (!count_here) return;
    const int64_t now = start + first;
    step(M, count_here, before + int64_t(first) * 2 * n, scratch,
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
    before = h + start * 2 * n;
  }
}

// ---- backward: M is W, or conj W

// The loss's own gradients, of width numbers a row: ``each`` by the states of every step (N, .), null where the loss
// sees the last of every row alone; ``ended`` by those, (B, .); and ``last`` by the last of these steps, (B', .), of
// whose rows some go on: it has all that comes through later steps.
template <class T> struct Loss {
  const T *each, *ended, *last;
  int width;
  // by the states of a step that begins with packed row ``start``, from row ``first`` on; null where there is none
  const T* of(bool final, bool ends, int64_t start, int first) const {
    if (final) return last + int64_t(first) * width;
    if (each) return each + (start + first) * width;
    return ends ? ended + int64_t(first) * width : nullptr;
  }
};

// Calls work(rows, first row, delta of the next step or null, gradient of the loss or null, packed row) from the last
// step to the first: on those that go on, and on those that end with the step.
template <class T, class Work>
void from_the_end(int steps, int first, int last, const int* rows, const Loss<T>& loss, const T* delta, Work work) {
  int64_t start = 0;
  for (int t = 0; t < steps; ++t) start += rows[t];
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t next = start;
    start -= rows[t];
    const bool final = t == steps - 1;
    const int here = of_share(rows[t], first, last), on = final ? 0 : of_share(rows[t + 1], first, last);
    if (on) work(on, delta + (next + first) * loss.width, loss.of(final, false, start, first), start + first);
    if (here > on)
      work(here - on, static_cast<const T*>(nullptr), loss.of(final, true, start, first + on), start + first + on);
  }
}

template <class T, int kind>
void backward(int steps, int first, int last, const int* rows, const Real<T>& M, const Loss<T>& loss, const T* h,
              const T* bias, T* delta, T* by_bias) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  from_the_end(steps, first, last, rows, loss, delta, [&](int many, const T* after, const T* direct, int64_t now) {
    step(M.panels, many, n, n, after, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
      for (int r = row; r < row + size; ++r)
        for (int c = 0; c < panel.vectors; ++c, ++sum) {
          const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
          const int64_t at = int64_t(r) * n + unit, here = now * n + at;
          const Vec<T> g = direct ? *sum + load(direct + at, count) : *sum, value = load(h + here, count);
          const Vec<T> d = g * slope<T, kind>(value);
          store(delta + here, d, count);
          if constexpr (kind == kModRelu)
            store(by_bias + unit, load(by_bias + unit, count) + (value < 0 ? -d : d), count);
        }
    });
  });
}

template <class T>
void backward_complex(int steps, int first, int last, const int* rows, const ComplexMatrix<T>& M, const Loss<T>& loss,
                      const T* h, const T* modulus, const T* bias, T* delta, T* by_bias) {
  constexpr int L = kLanes<T>;
  const int n = M.units;
  std::vector<T> scratch;
  from_the_end(steps, first, last, rows, loss, delta, [&](int many, const T* after, const T* direct, int64_t now) {
    step(M, many, after, scratch,
         [&](const Panel<T>& panel, int row, int size, const Vec<T>* real, const Vec<T>* imaginary) {
           for (int r = row; r < row + size; ++r)
             for (int c = 0; c < panel.vectors; ++c, ++real, ++imaginary) {
               const int unit = panel.first + c * L, count = std::min(L, panel.units - c * L);
               const int64_t at = int64_t(r) * 2 * n + unit, here = now * 2 * n + at;
               Vec<T> gx = *real, gy = *imaginary;
               if (direct) gx += load(direct + at, count), gy += load(direct + at + n, count);
               const Vec<T> m = load(modulus + (now + r) * n + unit, count), b = load(bias + unit, count);
               const Vec<T> x = load(h + here, count), y = load(h + here + n, count);
               const Vec<T> along = unshrink<T>(m, b, count, x, y, gx, gy);
               store(delta + here, gx, count), store(delta + here + n, gy, count);
               store(by_bias + unit, load(by_bias + unit, count) + along, count);
             }
         });
  });
}

template <class T>
void forward_all(int kind, int steps, int units, int threads, const int* rows, const T* packed, const T* u, const T* h0,
                 const T* bias, T* h, T* modulus, double eps) {
  constexpr decltype(&forward<T, kIdentity>) run[] = {
      forward<T, kIdentity>, forward<T, kRelu>, forward<T, kLeakyRelu>,
      forward<T, kTanh>,     forward<T, kElu>,  forward<T, kModRelu>};
  const auto cuts = even_cuts(rows, steps, threads);
  if (kind == kComplexModRelu) {
    const ComplexMatrix<T> M(units, packed);
    share(cuts, [&](int, int first, int last) {
      forward_complex(steps, first, last, rows, M, u, h0, bias, h, modulus, T(eps));
    });
  } else {
    const Real<T> M(units, packed);
    share(cuts, [&](int, int first, int last) { run[kind](steps, first, last, rows, M, u, h0, bias, h); });
  }
}

template <class T>
void backward_all(int kind, int steps, int units, int threads, const int* rows, const T* packed, const T* ended,
                  const T* each, const T* last_grad, const T* h, const T* modulus, const T* bias, T* delta, T* by_bias) {
  constexpr decltype(&backward<T, kIdentity>) run[] = {
      backward<T, kIdentity>, backward<T, kRelu>, backward<T, kLeakyRelu>,
      backward<T, kTanh>,     backward<T, kElu>,  backward<T, kModRelu>};
  const auto cuts = even_cuts(rows, steps, threads);
  const Loss<T> loss{each, ended, last_grad, kind == kComplexModRelu ? 2 * units : units};
  if (kind == kComplexModRelu) {
    const ComplexMatrix<T> M(units, packed);
    share(cuts, [&](int thread, int first, int last) {
      T* mine = by_bias + int64_t(thread) * units;
      backward_complex(steps, first, last, rows, M, loss, h, modulus, bias, delta, mine);
    });
  } else {
    const Real<T> M(units, packed);
    share(cuts, [&](int thread, int first, int last) {
      T* mine = by_bias + int64_t(thread) * units;
      run[kind](steps, first, last, rows, M, loss, h, bias, delta, mine);
    });
  }
}

}  // namespace

// rows: (steps,), never more than before; u, h, delta, each: (N, width); h0: (rows[0], width); ended: (rows[0], width),
// read where each is null; last: (rows[steps - 1], width); modulus: (N, units); bias: (units,); by_bias:
// (threads, units), zeros. width is units, or twice that for complex states, with three packed matrices: real part,
// imaginary part, and their sum. All contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  LIT_RNN_PACK(T, name)                                                                                               \
  extern "C" void lit_rnn_forward_##name(int kind, int steps, int units, int threads, const int* rows,                \
                                         const T* packed, const T* u, const T* h0, const T* bias, T* h, T* modulus,   \
                                         double eps) {                                                                \
    forward_all<T>(kind, steps, units, threads, rows, packed, u, h0, bias, h, modulus, eps);                          \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(int kind, int steps, int units, int threads, const int* rows,               \
                                          const T* packed, const T* ended, const T* each, const T* last, const T* h,  \
                                          const T* modulus, const T* bias, T* delta, T* by_bias) {                    \
    backward_all<T>(kind, steps, units, threads, rows, packed, ended, each, last, h, modulus, bias, delta, by_bias);  \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
