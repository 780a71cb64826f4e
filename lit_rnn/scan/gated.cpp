// The cells that are more than one matrix and one nonlinearity over a whole sequence, and their backward, for
// `lit_rnn/scan/gated.py`.
//
// Every cell is one or two products, each followed by a function of one row of the batch, or such a function alone. Of
// each step and row two records are kept: ``now``, the state (and what the second product reads), and ``z``, which
// starts as the drive, to which the products add, and in which the row functions leave what the backward reads. The
// backward turns them round: a row function writes delta, the gradient by z, the product adds delta W to the gradient by
// what the product read.
//
// Rows do not depend on one another: threads have rows of their own, and never meet.

#include "gates.h"
#include "linear.h"
#include "nru.h"
#include "rivals.h"
#include "threads.h"

namespace {

// ---- a sequence

struct Product {
  int reads, in, writes, out;  // columns reads .. reads + in of the state's record, writes .. writes + out of z
};
// as `_Call` in gated.py fills it, from a `Plan` of plans.py
struct Shape {
  int kind, steps, batch, threads;
  int record, kept, keep;           // widths of the two records; whether z of every step is kept
  int drive, drive_at;              // columns of the drive, and where in z
  int seen, seen_at;                // columns of the state that the loss sees, and where
  int vectors, products;            // numbers in the vectors
  Product product[2];
  int sizes[6];                     // of the cell
  int stages() const { return std::max(1, products); }
};
enum Cell {
  kJanet, kLSTM, kGRU, kGORU, kResetBefore, kEuler, kLayerNorm, kStatistical, kNRU, kOutputMatrix,
  kSLSTM, kLEM, kCoRNN, kUnICORNN, kPairs, kMinGRU, kMinLSTM
};

template <class T, class Use>
void with_cell(const Shape& shape, const double* numbers, const T* vectors, Use use) {
  const int* s = shape.sizes;
  switch (shape.kind) {
    case kJanet: return use(Janet<T>{s[0], T(std::exp(-numbers[0]))});
    case kLSTM: return use(LSTM<T>{s[0], vectors});
    case kGRU: return use(ResetAfter<T, kTanh>{s[0], vectors});
    case kGORU: return use(ResetAfter<T, kModRelu>{s[0], vectors});
    case kResetBefore: return use(ResetBefore<T>{s[0]});
    case kEuler: return use(Euler<T>{s[0], s[1] != 0, T(numbers[0])});
    case kLayerNorm:
      if (s[1] == kIdentity) use(LayerNorm<T, kIdentity>{s[0], T(numbers[0]), vectors});
      if (s[1] == kRelu) use(LayerNorm<T, kRelu>{s[0], T(numbers[0]), vectors});
      if (s[1] == kLeakyRelu) use(LayerNorm<T, kLeakyRelu>{s[0], T(numbers[0]), vectors});
      if (s[1] == kTanh) use(LayerNorm<T, kTanh>{s[0], T(numbers[0]), vectors});
      if (s[1] == kElu) use(LayerNorm<T, kElu>{s[0], T(numbers[0]), vectors});
      return;
    case kStatistical: return use(Statistical<T>{s[0], s[1], s[2], numbers, vectors});
    case kNRU: return use(NRU<T>{s[0], s[1], s[2], s[3], s[4], s[5], vectors});
    case kOutputMatrix: return use(OutputMatrix<T>{s[0]});
    case kSLSTM: return use(SLSTM<T>{s[0]});
    case kLEM: return use(LEM<T>{s[0], T(numbers[0])});
    case kCoRNN: return use(CoRNN<T>{s[0], T(numbers[0]), T(numbers[1]), T(numbers[2])});
    case kUnICORNN: return use(UnICORNN<T>{s[0], T(numbers[0]), vectors});
    case kPairs: return s[1] ? use(Pairs<T, true>{s[0], vectors}) : use(Pairs<T, false>{s[0], vectors});
    case kMinGRU: return use(MinGRU<T>{s[0], s[1] != 0});
    case kMinLSTM: return use(MinLSTM<T>{s[0], s[1] != 0});
  }
}

template <class T> void add(const Panel<T>& panel, int row, int size, const Vec<T>* sum, T* to, int stride) {
  for (int r = row; r < row + size; ++r, sum += panel.vectors) {
    T* at = to + int64_t(r) * stride + panel.first;
    each<T>(panel.units, [&](auto here) { here.put(at, here(at) + sum[here.i / kLanes<T>]); });
  }
}

template <class T, class C>
void forward(const Shape& s, const C& cell, const std::vector<Panel<T>>* panels, int first, int last, const T* u,
             T* states, T* kept) {
  const int rows = last - first;
  for (int t = 0; t < s.steps; ++t) {
    const int64_t at = int64_t(t) * s.batch + first;
    T *before = states + at * s.record, *now = before + int64_t(s.batch) * s.record;
    T* z = kept + (s.keep ? at : first) * s.kept;
    for (int r = 0; r < rows; ++r) {
      T *start = z + int64_t(r) * s.kept, *driven = start + s.drive_at;
      std::fill(start, driven, T(0));
      std::memcpy(driven, u + (at + r) * s.drive, s.drive * sizeof(T));
      std::fill(driven + s.drive, start + s.kept, T(0));
    }
    for (int i = 0; i < s.stages(); ++i) {
      const Product& p = s.product[i];
      step(panels[i], rows, p.in, s.record, (i ? now : before) + p.reads,
           [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
             add(panel, row, size, sum, z + p.writes, s.kept);
           });
      for (int64_t r = 0; r < rows; ++r)
        cell.forward(i, {before + r * s.record, now + r * s.record, z + r * s.kept});
    }
  }
}

// grad: by the columns seen of every state, or null; total: by the last record, becomes that by the first
template <class T, class C>
void backward(const Shape& s, const C& cell, const std::vector<Panel<T>>* panels, int first, int last, const T* grad,
              const T* states, const T* kept, T* total, T* delta, T* by) {
  const int rows = last - first;
  total += int64_t(first) * s.record;
  std::vector<T> by_step(s.vectors + kLanes<T>);  // sums of sums round less
  for (int t = s.steps - 1; t >= 0; --t) {
    const int64_t at = int64_t(t) * s.batch + first;
    const T *before = states + at * s.record, *now = before + int64_t(s.batch) * s.record;
    const T* z = kept + at * s.kept;
    T* d = delta + at * s.kept;
    if (grad)
      for (int r = 0; r < rows; ++r) {
        T* to = total + int64_t(r) * s.record + s.seen_at;
        const T* direct = grad + (at + r) * s.seen;
        each<T>(s.seen, [&](auto here) { here.put(to, here(to) + here(direct)); });
      }
    std::fill(by_step.begin(), by_step.end(), T(0));
    for (int i = s.stages() - 1; i >= 0; --i) {
      const Product& p = s.product[i];
      for (int64_t r = 0; r < rows; ++r)
        cell.backward(i, {before + r * s.record, now + r * s.record, z + r * s.kept, total + r * s.record,
                          d + r * s.kept, by_step.data()});
      step(panels[i], rows, p.out, s.kept, d + p.writes,
           [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
             add(panel, row, size, sum, total + p.reads, s.record);
           });
    }
    for (int i = 0; i < s.vectors; ++i) by[i] += by_step[i];
  }
}

template <class T>
void forward_all(const Shape& s, const double* numbers, const T* vectors, const T* const* W, const T* u, T* states,
                 T* kept) {
  std::vector<Panel<T>> panels[2];
  for (int i = 0; i < s.products; ++i) panels[i] = panels_of(s.product[i].in, s.product[i].out, W[i]);
  with_cell(s, numbers, vectors, [&](const auto& cell) {
    share(s.batch, s.threads,
          [&](int, int first, int last) { forward(s, cell, panels, first, last, u, states, kept); });
  });
}

template <class T>
void backward_all(const Shape& s, const double* numbers, const T* vectors, const T* const* W, const T* grad,
                  const T* states, const T* kept, T* total, T* delta, T* by) {
  std::vector<Panel<T>> panels[2];
  for (int i = 0; i < s.products; ++i) panels[i] = panels_of(s.product[i].out, s.product[i].in, W[i]);
  with_cell(s, numbers, vectors, [&](const auto& cell) {
    share(s.batch, s.threads, [&](int thread, int first, int last) {
      backward(s, cell, panels, first, last, grad, states, kept, total, delta, by + int64_t(thread) * s.vectors);
    });
  });
}

struct Outer {
  int rows, m, a_stride, n, b_stride, stride, threads;
};
// threads have columns of a of their own; some at a time, so that a tile of them stays in the cache
template <class T> void outer_all(const Outer& s, const T* a, const T* b, T* to) {
  constexpr int some = 256;
  share(s.m, s.threads, [&](int, int first, int last) {
    std::vector<T> scratch;
    for (int column = first; column < last; column += some)
      in_tiles(0, s.rows, [&](int64_t at, int rows) {
        add_outer(rows, a + at * s.a_stride + column, std::min(some, last - column), s.a_stride, b + at * s.b_stride, s.n,
                  s.b_stride, to + int64_t(column) * s.stride, s.stride, scratch);
      });
  });
}

}  // namespace

// W: packed, W^T (in, out) forward and W (out, in) backward; u: (T, B, drive); states: (T + 1, B, record), the first
// given; kept, delta: (T, B, kept), kept (1, B, kept) unless ``keep``; grad: (T, B, seen) or null; total: (B, record);
// by: (threads, vectors), zeros. All contiguous. outer: adds a^T b to (m, n), a (rows, m) and b (rows, n), rows of each apart.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  LIT_RNN_PACK(T, name)                                                                                               \
  extern "C" void lit_rnn_forward_##name(const Shape* shape, const double* numbers, const T* vectors, const T* W0,    \
                                         const T* W1, const T* u, T* states, T* kept) {                              \
    const T* W[] = {W0, W1};                                                                                          \
    forward_all<T>(*shape, numbers, vectors, W, u, states, kept);                                                     \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(const Shape* shape, const double* numbers, const T* vectors, const T* W0,   \
                                          const T* W1, const T* grad, const T* states, const T* kept, T* total,       \
                                          T* delta, T* by) {                                                          \
    const T* W[] = {W0, W1};                                                                                          \
    backward_all<T>(*shape, numbers, vectors, W, grad, states, kept, total, delta, by);                               \
  }                                                                                                                   \
  extern "C" void lit_rnn_outer_##name(const Outer* shape, const T* a, const T* b, T* to) {                           \
    outer_all<T>(*shape, a, b, to);                                                                                   \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
