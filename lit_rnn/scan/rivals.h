// The step of each rival whose state is not linear, and its backward, for `gated.cpp`.

#pragma once

#include "rows.h"

namespace {

// log(1 + e) for e in [0, 1]: 2 artanh(s) = 2 (s + s^3 / 3 + ..), s = e / (2 + e) of at most 1/3
template <class T> inline Vec<T> log1p(Vec<T> e) {
  constexpr int terms = sizeof(T) == sizeof(float) ? 8 : 17;
  const Vec<T> s = e / (2 + e), square = s * s;
  Vec<T> sum = {};
#pragma GCC unroll 17
  for (int k = terms - 1; k >= 0; --k) sum = sum * square + T(1) / (2 * k + 1);
  return 2 * s * sum;
}

// k = log sigma(f) + m, m' = max(k, i), or i where n = 0; a = e^(k - m'), b = e^(i - m'); c' = a c + b tanh(j),
// n' = a n + b, h' = sigma(o) c' / n', z = [i, f, j, o], the state [h, c, n, m]
template <class T> struct SLSTM {
  int n;
  struct Gates {
    Vec<T> fades, kept, m, a, b;  // sigma(-f), k, m', a, b
    Gates(Vec<T> i, Vec<T> f, Vec<T> n, Vec<T> before) {
      const Vec<T> zero = {}, e = exp<T>(f < 0 ? f : -f), share = 1 / (1 + e);
      fades = f < 0 ? share : e * share;
      kept = (f < 0 ? f : zero) - log1p<T>(e) + before;
      m = (n == 0) | (kept < i) | (i != i) ? i : kept;
      a = exp<T>(kept > m ? zero : kept - m), b = exp<T>(i - m);
    }
  };
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> held = at(r.before + 2 * n), j = tanh<T>(at(r.z + 2 * n)), o = sigmoid<T>(at(r.z + 3 * n));
      const Gates g(at(r.z), at(r.z + n), held, at(r.before + 3 * n));
      const Vec<T> c = g.a * at(r.before + n) + g.b * j, norm = g.a * held + g.b;
      at.put(r.now, o * c / norm), at.put(r.now + n, c), at.put(r.now + 2 * n, norm), at.put(r.now + 3 * n, g.m);
      at.put(r.z + 2 * n, j), at.put(r.z + 3 * n, o);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> zero = {}, i = at(r.z), j = at(r.z + 2 * n), o = at(r.z + 3 * n);
      const Vec<T> c = at(r.before + n), held = at(r.before + 2 * n), inverse = 1 / at(r.now + 2 * n);
      const Gates g(i, at(r.z + n), held, at(r.before + 3 * n));
      const Vec<T> by_h = at(r.grad), h = at(r.now);
      const Vec<T> by_c = at(r.grad + n) + by_h * o * inverse, by_norm = at(r.grad + 2 * n) - by_h * h * inverse;
      // the exponents; at most 0, unless n = 0
      const Vec<T> by_a = g.kept > g.m ? zero : (by_c * c + by_norm * held) * g.a, by_b = (by_c * j + by_norm) * g.b;
      const Vec<T> by_m = at(r.grad + 3 * n) - by_a - by_b, half = T(0.5) * by_m;
      const Vec<T> of_k = held == 0 || g.kept < i ? zero : (g.kept == i ? half : by_m), by_k = by_a + of_k;
      at.put(r.delta, by_b + by_m - of_k), at.put(r.delta + n, by_k * g.fades);
      at.put(r.delta + 2 * n, by_c * g.b * (1 - j * j)), at.put(r.delta + 3 * n, by_h * h * (1 - o));
      at.put(r.grad, zero), at.put(r.grad + n, by_c * g.a), at.put(r.grad + 2 * n, by_norm * g.a);
      at.put(r.grad + 3 * n, by_k);
    });
  }
};

// z' = z + s (tanh(j) - z), s = dt sigma(s); y' = y + r (tanh(q) - y), r = dt sigma(r); z = [s, r, j, q], the state
// [y, z]; the second product reads z' for q
template <class T> struct LEM {
  int n;
  T dt;
  void forward(int stage, Row<T> row) const {
    each<T>(n, [&](auto at) {
      if (stage == 0) {
        const Vec<T> s = sigmoid<T>(at(row.z)), j = tanh<T>(at(row.z + 2 * n)), z = at(row.before + n);
        at.put(row.now + n, z + dt * s * (j - z));
        at.put(row.z, s), at.put(row.z + 2 * n, j);
      } else {
        const Vec<T> r = sigmoid<T>(at(row.z + n)), q = tanh<T>(at(row.z + 3 * n)), y = at(row.before);
        at.put(row.now, y + dt * r * (q - y));
        at.put(row.z + n, r), at.put(row.z + 3 * n, q);
      }
    });
  }
  void backward(int stage, Back<T> row) const {  // the same twice, for z and y
    const int gate = stage * n, inner = gate + 2 * n, state = n - gate;
    each<T>(n, [&](auto at) {
      const Vec<T> s = at(row.z + gate), j = at(row.z + inner), g = dt * at(row.grad + state);
      at.put(row.delta + gate, g * (j - at(row.before + state)) * s * (1 - s));
      at.put(row.delta + inner, g * s * (1 - j * j));
      at.put(row.grad + state, at(row.grad + state) - g * s);
    });
  }
};

// v' = v + dt (tanh(z) - gamma y - epsilon v), y' = y + dt v', the state [y, v]
template <class T> struct CoRNN {
  int n;
  T dt, gamma, epsilon;
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> force = tanh<T>(at(r.z)), y = at(r.before), v = at(r.before + n);
      const Vec<T> next = v + dt * (force - gamma * y - epsilon * v);
      at.put(r.now, y + dt * next), at.put(r.now + n, next), at.put(r.z, force);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> force = at(r.z), by_y = at(r.grad), by_v = at(r.grad + n) + dt * by_y, by_force = dt * by_v;
      at.put(r.delta, by_force * (1 - force * force));
      at.put(r.grad, by_y - gamma * by_force), at.put(r.grad + n, by_v - epsilon * by_force);
    });
  }
};

// v' = v - s (tanh(z + w y) + alpha y), y' = y + s v', the state [y, v]; no product
template <class T> struct UnICORNN {
  int n;
  T alpha;
  const T* w;  // then s
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> y = at(r.before), s = at(w + n), force = tanh<T>(at(r.z) + at(w) * y);
      const Vec<T> next = at(r.before + n) - s * (force + alpha * y);
      at.put(r.now, y + s * next), at.put(r.now + n, next), at.put(r.z, force);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> force = at(r.z), y = at(r.before), s = at(w + n), by_y = at(r.grad);
      const Vec<T> by_v = at(r.grad + n) + s * by_y, delta = -s * by_v * (1 - force * force);
      at.put(r.delta, delta);
      at.put(r.grad, by_y + delta * at(w) - alpha * s * by_v), at.put(r.grad + n, by_v);
      at.put(r.by, at(r.by) + delta * y);
      at.put(r.by + n, at(r.by + n) + by_y * at(r.now + n) - by_v * (force + alpha * y));
    });
  }
};

}  // namespace
