// DeltaProduct over some steps, and its backward, for `lit_rnn/scan/deltaproduct.py`.
//
// One head of one sequence goes through all steps before the next one does: its matrix H stays in the cache, and a step is
// a few passes over it, each of which adds a product of two vectors and at once multiplies what comes out by another
// vector. Nothing is kept but the matrices before the first step: the backward runs the steps again. It needs sums over
// rows and over columns of the same matrices, so that it has these, and their transposes, side by side.
//
// Rows and heads do not depend on one another: threads have some of their own, and never meet.

#include "rows.h"
#include "threads.h"

namespace {

// as `_call` in deltaproduct.py fills it
struct Shape {
  int steps, rows, threads, heads, m, d, d_v, largest;  // beta is below 1 or 2
  double unit, rms;                                     // inside the roots of the norms
  int width() const { return heads * (d + m * (d + d_v + 1)); }
  int k_at(int head, int j) const { return heads * d + (j * heads + head) * d; }
  int v_at(int head, int j) const { return heads * d * (1 + m) + (j * heads + head) * d_v; }
  int beta_at(int head, int j) const { return heads * (d + m * (d + d_v)) + j * heads + head; }
};

template <class T> int padded(int n) { return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }

// Of M (rows, columns), padded: M += left right^T if ``adds``, then sum = by^T M if ``sums``; C vectors of columns.
template <class T, int C, bool adds, bool sums>
void panel(int rows, int stride, T* M, const T* left, const T* right, const T* by, T* sum) {
  constexpr int L = kLanes<T>;
  Vec<T> even[C] = {}, odd[C] = {}, added[C] = {};  // two sums, so that neither waits for its last addition
  if (adds)
    for (int c = 0; c < C; ++c) added[c] = load(right + c * L);
  const auto one = [&](int row, Vec<T>* total) {
    T* at = M + int64_t(row) * stride;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      Vec<T> v = load(at + c * L);
      if (adds) {
        v += left[row] * added[c];
        std::memcpy(at + c * L, &v, sizeof v);
      }
      if (sums) total[c] += by[row] * v;
    }
  };
  int row = 0;
  for (; row + 1 < rows; row += 2) one(row, even), one(row + 1, odd);
  if (row < rows) one(row, even);
  if (sums)
    for (int c = 0; c < C; ++c) {
      const Vec<T> v = even[c] + odd[c];
      std::memcpy(sum + c * L, &v, sizeof v);
    }
}
template <class T, bool adds, bool sums>
void pass(int rows, int columns, T* M, const T* left, const T* right, const T* by, T* sum) {
  constexpr int L = kLanes<T>;
  for (int c = 0; c < columns; c += 4 * L) {
    const T* r = adds ? right + c : nullptr;
    T* s = sums ? sum + c : nullptr;
    switch (std::min(4, (columns - c) / L)) {
      case 1: panel<T, 1, adds, sums>(rows, columns, M + c, left, r, by, s); break;
      case 2: panel<T, 2, adds, sums>(rows, columns, M + c, left, r, by, s); break;
      case 3: panel<T, 3, adds, sums>(rows, columns, M + c, left, r, by, s); break;
      case 4: panel<T, 4, adds, sums>(rows, columns, M + c, left, r, by, s); break;
    }
  }
}

template <class T> T dot(int n, const T* a, const T* b) {
  Vec<T> sum = {};
  each<T>(n, [&](auto at) { sum += at(a) * at(b); });
  return total<T>(sum);
}

template <class T> T silu(int n, const T* z, T* to) {  // and the square of its length
  Vec<T> squares = {};
  each<T>(n, [&](auto at) {
    const Vec<T> s = at(z) * sigmoid<T>(at(z));
    at.put(to, s), squares += s * s;
  });
  return total<T>(squares);
}
template <class T> void scale(int n, T factor, T* v) {
  each<T>(n, [&](auto at) { at.put(v, factor * at(v)); });
}
// dz, from the gradient by silu(z)
template <class T> void silu_back(int n, const T* z, const T* by, T* to) {
  each<T>(n, [&](auto at) {
    const Vec<T> v = at(z), s = sigmoid<T>(v);
    at.put(to, at(by) * s * (1 + v * (1 - s)));
  });
}
// dz, from the gradient by v = silu(z) / length, in its place
template <class T> void unit_back(int n, const T* z, const T* v, T length, T* by, T* to) {
  const T along = dot(n, v, by);
  each<T>(n, [&](auto at) { at.put(by, (at(by) - along * at(v)) / length); });
  silu_back(n, z, by, to);
}

// One step of a head as the maps of the inputs give it, and what it computes on the way; all padded with zeros.
template <class T> struct Step {
  T *q, *o, *k, *rest, *w, *beta, *lengths;  // k, rest = v - H^T k, w = beta rest, beta: m of each; of k and of q
  static int size(const Shape& s) {
    return padded<T>(s.d) * (1 + s.m) + padded<T>(s.d_v) * (1 + 2 * s.m) + padded<T>(s.m) + padded<T>(1 + s.m);
  }
  Step(const Shape& s, T* at) {
    const int d = padded<T>(s.d), d_v = padded<T>(s.d_v);
    q = at, k = q + d, o = k + s.m * d, rest = o + d_v, w = rest + s.m * d_v, beta = w + s.m * d_v;
    lengths = beta + padded<T>(s.m);
  }

  void prepare(const Shape& s, int head, const T* z) {
    const int d = padded<T>(s.d), d_v = padded<T>(s.d_v);
    lengths[s.m] = std::sqrt(silu(s.d, z + head * s.d, q) + T(s.unit));
    scale(s.d, 1 / (lengths[s.m] * std::sqrt(T(s.d))), q);
    for (int j = 0; j < s.m; ++j) {
      lengths[j] = std::sqrt(silu(s.d, z + s.k_at(head, j), k + j * d) + T(s.unit));
      scale(s.d, 1 / lengths[j], k + j * d);
      silu(s.d_v, z + s.v_at(head, j), rest + j * d_v);
      beta[j] = z[s.beta_at(head, j)];
    }
    each<T>(padded<T>(s.m), [&](auto at) { at.put(beta, T(s.largest) * sigmoid<T>(at(beta))); });
  }
  // H (d, d_v) to that behind the step, and what q reads of it
  void advance(const Shape& s, T* H, T* sum) {
    const int d = padded<T>(s.d), d_v = padded<T>(s.d_v);
    pass<T, false, true>(s.d, d_v, H, nullptr, nullptr, k, sum);
    for (int j = 0; j < s.m; ++j) {
      T *r = rest + j * d_v, *w_j = w + j * d_v;
      each<T>(d_v, [&](auto at) {
        const Vec<T> left = at(r) - at(sum);
        at.put(r, left), at.put(w_j, beta[j] * left);
      });
      const bool last = j + 1 == s.m;
      pass<T, true, true>(s.d, d_v, H, k + j * d, w_j, last ? q : k + (j + 1) * d, last ? o : sum);
    }
  }
  T root(const Shape& s) const { return 1 / std::sqrt(dot(s.d_v, o, o) / s.d_v + T(s.rms)); }
};

// Between (d, d_v) in one piece and padded; ``across``: the padded one is transposed.
template <class T> void unpack(const Shape& s, const T* flat, T* H, bool across) {
  const int stride = padded<T>(across ? s.d : s.d_v);
  for (int a = 0; a < s.d; ++a)
    for (int c = 0; c < s.d_v; ++c) H[across ? c * stride + a : a * stride + c] = flat[a * s.d_v + c];
}
template <class T> void pack_again(const Shape& s, const T* H, T* flat) {
  for (int a = 0; a < s.d; ++a) std::memcpy(flat + a * s.d_v, H + a * padded<T>(s.d_v), s.d_v * sizeof(T));
}

template <class T> void forward(const Shape& s, const T* z, const T* norm, T* state, T* y) {
  share(s.rows * s.heads, s.threads, [&](int, int first, int last) {
    std::vector<T> H(s.d * padded<T>(s.d_v)), memory(Step<T>::size(s)), sum(padded<T>(s.d_v));
    Step<T> step(s, memory.data());
    for (int item = first; item < last; ++item) {
      const int row = item / s.heads, head = item % s.heads;
      T* own = state + int64_t(item) * s.d * s.d_v;
      unpack(s, own, H.data(), false);
      for (int t = 0; t < s.steps; ++t) {
        const int64_t at = int64_t(t) * s.rows + row;
        step.prepare(s, head, z + at * s.width());
        step.advance(s, H.data(), sum.data());
        const T root = step.root(s);
        T* to = y + (at * s.heads + head) * s.d_v;
        each<T>(s.d_v, [&](auto here) { here.put(to, here(norm) * here(step.o) * root); });
      }
      pack_again(s, H.data(), own);
    }
  });
}

// state: before the first step; through: the gradient by the last state, becomes that by ``state``; by_norm: (threads,
// d_v), zeros
template <class T>
void backward(const Shape& s, const T* z, const T* norm, const T* state, const T* grad, T* through, T* delta, T* by_norm) {
  const int d = padded<T>(s.d), d_v = padded<T>(s.d_v), size = Step<T>::size(s), across = s.d_v * d;
  share(s.rows * s.heads, s.threads, [&](int thread, int first, int last) {
    std::vector<T> H(s.d * d_v), G(s.d * d_v), Gt(across), memory(int64_t(s.steps) * size);
    std::vector<T> Ht(int64_t(s.steps + 1) * across);  // before every step, and behind the last
    std::vector<T> by_o(d_v), by_q(d), by_w(d_v), by_p(d_v), by_k(d), sum(std::max(d, d_v));
    T* by_norm_here = by_norm + int64_t(thread) * s.d_v;
    for (int item = first; item < last; ++item) {
      const int row = item / s.heads, head = item % s.heads;
      const T* start = state + int64_t(item) * s.d * s.d_v;
      T* carried = through + int64_t(item) * s.d * s.d_v;
      unpack(s, start, H.data(), false), unpack(s, start, Ht.data(), true);
      unpack(s, carried, G.data(), false), unpack(s, carried, Gt.data(), true);
      for (int t = 0; t < s.steps; ++t) {
        Step<T> step(s, memory.data() + int64_t(t) * size);
        step.prepare(s, head, z + (int64_t(t) * s.rows + row) * s.width());
        step.advance(s, H.data(), sum.data());
        T* next = Ht.data() + int64_t(t + 1) * across;
        std::memcpy(next, next - across, across * sizeof(T));
        for (int j = 0; j < s.m; ++j)
          pass<T, true, false>(s.d_v, d, next, step.w + j * d_v, step.k + j * d, nullptr, nullptr);
      }
      for (int t = s.steps - 1; t >= 0; --t) {
        Step<T> step(s, memory.data() + int64_t(t) * size);
        const int64_t at = int64_t(t) * s.rows + row;
        const T *inputs = z + at * s.width(), *direct = grad + (at * s.heads + head) * s.d_v;
        T *to = delta + at * s.width(), *behind = Ht.data() + int64_t(t + 1) * across;
        // y = norm o root
        const T root = step.root(s);
        Vec<T> along = {};
        each<T>(s.d_v, [&](auto here) {
          const Vec<T> o = root * here(step.o), by = here(direct) * here(norm);
          here.put(by_norm_here, here(by_norm_here) + here(direct) * o);
          along += by * o;
        });
        const T mean = total<T>(along) / s.d_v;
        each<T>(s.d_v, [&](auto here) {
          here.put(by_o.data(), root * (here(direct) * here(norm) - mean * root * here(step.o)));
        });
        // o = H^T q
        pass<T, false, true>(s.d_v, d, behind, nullptr, nullptr, by_o.data(), by_q.data());
        int j = s.m - 1;
        pass<T, true, true>(s.d, d_v, G.data(), step.q, by_o.data(), step.k + j * d, by_w.data());
        pass<T, true, true>(s.d_v, d, Gt.data(), by_o.data(), step.q, step.w + j * d_v, by_k.data());
        for (; j >= 0; --j) {  // H' = H + k w^T, w = beta (v - p), p = H^T k
          const T *k = step.k + j * d, *rest = step.rest + j * d_v;
          T* p = by_p.data();
          const T beta = step.beta[j], by_beta = dot(s.d_v, by_w.data(), rest);
          to[s.beta_at(head, j)] = by_beta * beta * (1 - beta / s.largest);
          each<T>(d_v, [&](auto here) { here.put(p, -beta * here(by_w.data())); });
          scale(s.d_v, beta, by_w.data());
          silu_back(s.d_v, inputs + s.v_at(head, j), by_w.data(), to + s.v_at(head, j));
          // H is that behind all steps without what this one and later ones of this input have added
          pass<T, false, true>(s.d_v, d, behind, nullptr, nullptr, p, sum.data());
          each<T>(d, [&](auto here) { here.put(by_k.data(), here(by_k.data()) + here(sum.data())); });
          for (int i = j; i < s.m; ++i) {
            const T twice = dot(s.d_v, step.w + i * d_v, p);
            each<T>(d, [&](auto here) { here.put(by_k.data(), here(by_k.data()) - twice * here(step.k + i * d)); });
          }
          unit_back(s.d, inputs + s.k_at(head, j), k, step.lengths[j], by_k.data(), to + s.k_at(head, j));
          if (j) {
            pass<T, true, true>(s.d, d_v, G.data(), k, p, k - d, by_w.data());
            pass<T, true, true>(s.d_v, d, Gt.data(), p, k, step.w + (j - 1) * d_v, by_k.data());
          } else {
            pass<T, true, false>(s.d, d_v, G.data(), k, p, nullptr, nullptr);
            pass<T, true, false>(s.d_v, d, Gt.data(), p, k, nullptr, nullptr);
          }
        }
        const T shrunk = std::sqrt(T(s.d));  // q has length 1 / sqrt(d)
        scale(s.d, shrunk, step.q), scale(s.d, 1 / shrunk, by_q.data());
        unit_back(s.d, inputs + head * s.d, step.q, step.lengths[s.m], by_q.data(), to + head * s.d);
      }
      pack_again(s, G.data(), carried);
    }
  });
}

}  // namespace

// z, delta: (steps, rows, width), q, k, v and beta as maps of the inputs give them; y, grad: (steps, rows, heads d_v);
// state, through: (rows, heads d d_v); norm: (d_v,). All contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  extern "C" void lit_rnn_forward_##name(const Shape* shape, const T* z, const T* norm, T* state, T* y) {             \
    forward<T>(*shape, z, norm, state, y);                                                                            \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(const Shape* shape, const T* z, const T* norm, const T* state,              \
                                          const T* grad, T* through, T* delta, T* by_norm) {                          \
    backward<T>(*shape, z, norm, state, grad, through, delta, by_norm);                                               \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
