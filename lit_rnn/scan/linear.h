// Cells that are linear in their state, for `gated.cpp`: no product, and a z that is the drive alone. It is left as it
// was, so that none is kept: the backward is given the drive again.

#pragma once

#include "rows.h"

namespace {

// h_i = sum_j A_ij h_j + b_i u_i, two numbers h_i a unit; the vectors are A (2, 2, n) and b (2, n). u has two numbers a
// unit as well, or, ``shared``, one that enters both.
template <class T, bool shared> struct Pairs {
  int n;
  const T* A;
  void forward(int, Row<T> r) const {
    const T* b = A + 4 * n;
    each<T>(n, [&](auto at) {
      const Vec<T> x = at(r.before), y = at(r.before + n), u = at(r.z), v = shared ? u : at(r.z + n);
      at.put(r.now, at(A) * x + at(A + n) * y + at(b) * u);
      at.put(r.now + n, at(A + 2 * n) * x + at(A + 3 * n) * y + at(b + n) * v);
    });
  }
  void backward(int, Back<T> r) const {
    const T* b = A + 4 * n;
    const auto add = [](auto at, T* to, Vec<T> v) { at.put(to, at(to) + v); };
    each<T>(n, [&](auto at) {
      const Vec<T> x = at(r.before), y = at(r.before + n), u = at(r.z), v = shared ? u : at(r.z + n);
      const Vec<T> by_x = at(r.grad), by_y = at(r.grad + n), by_u = by_x * at(b), by_v = by_y * at(b + n);
      add(at, r.by, by_x * x), add(at, r.by + n, by_x * y);
      add(at, r.by + 2 * n, by_y * x), add(at, r.by + 3 * n, by_y * y);
      add(at, r.by + 4 * n, by_x * u), add(at, r.by + 5 * n, by_y * v);
      at.put(r.delta, shared ? by_u + by_v : by_u);
      if (!shared) at.put(r.delta + n, by_v);
      at.put(r.grad, at(A) * by_x + at(A + 2 * n) * by_y);
      at.put(r.grad + n, at(A + n) * by_x + at(A + 3 * n) * by_y);
    });
  }
};

// A candidate g(x), x itself or positive, and g'(x).
template <class T> struct Candidate {
  Vec<T> value, slope;
  Candidate(Vec<T> x, bool positive) : value(x), slope(Vec<T>{} + 1) {
    if (!positive) return;
    const Vec<T> low = sigmoid<T>(x);
    value = x >= 0 ? x + T(0.5) : low;
    slope = x >= 0 ? slope : low * (1 - low);
  }
};

// h' = (1 - s) h + s g(x), s = sigma(z); the drive is [x | z].
template <class T> struct MinGRU {
  int n;
  bool positive;
  // 1 - s without a difference of numbers that are nearly the same
  struct Gate {
    Vec<T> s, kept;
    explicit Gate(Vec<T> z) : s(sigmoid<T>(z)), kept(sigmoid<T>(-z)) {}
  };
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Gate gate(at(r.z + n));
      at.put(r.now, gate.kept * at(r.before) + gate.s * Candidate<T>(at(r.z), positive).value);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Gate gate(at(r.z + n));
      const Candidate<T> g(at(r.z), positive);
      const Vec<T> grad = at(r.grad);
      at.put(r.delta, grad * gate.s * g.slope);
      at.put(r.delta + n, grad * (g.value - at(r.before)) * gate.s * gate.kept);
      at.put(r.grad, grad * gate.kept);
    });
  }
};

// h' = a h + (1 - a) g(x), a = sigma(f) / (sigma(f) + sigma(i)); the drive is [x | f | i].
template <class T> struct MinLSTM {
  int n;
  bool positive;
  // With p = 1 + e^-i and q = 1 + e^-f, a = p / (p + q), both shrunk alike so that neither overflows.
  struct Gates {
    Vec<T> a, b;
    Gates(Vec<T> f, Vec<T> i) {
      const Vec<T> less = f < i ? f : i, m = less > 0 ? Vec<T>{} : less, one = exp<T>(m);
      const Vec<T> p = one + exp<T>(m - i), q = one + exp<T>(m - f);
      a = p / (p + q), b = q / (p + q);
    }
  };
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Gates gates(at(r.z + n), at(r.z + 2 * n));
      at.put(r.now, gates.a * at(r.before) + gates.b * Candidate<T>(at(r.z), positive).value);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> f = at(r.z + n), i = at(r.z + 2 * n), grad = at(r.grad);
      const Gates gates(f, i);
      const Candidate<T> g(at(r.z), positive);
      const Vec<T> by_ratio = grad * (at(r.before) - g.value) * gates.a * gates.b;  // by log sigma(f) - log sigma(i)
      at.put(r.delta, grad * gates.b * g.slope);
      at.put(r.delta + n, by_ratio * sigmoid<T>(-f)), at.put(r.delta + 2 * n, -by_ratio * sigmoid<T>(-i));
      at.put(r.grad, grad * gates.a);
    });
  }
};

}  // namespace
