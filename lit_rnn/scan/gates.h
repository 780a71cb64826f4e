// The step of each gated cell, and its backward, for `gated.cpp`.

#pragma once

#include "rows.h"

namespace {

// h' = sigma(s) h + sigma(beta - s) tanh(j), z = [s, j]
template <class T> struct Janet {
  int n;
  T shift;  // e^-beta
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> e = exp<T>(at(r.z)), j = tanh<T>(at(r.z + n));
      at.put(r.now, e / (1 + e) * at(r.before) + j / (1 + shift * e));
      at.put(r.z + n, j);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> e = exp<T>(at(r.z)), j = at(r.z + n), g = at(r.grad);
      const Vec<T> keep = e / (1 + e), take = 1 / (1 + shift * e);
      at.put(r.delta, g * (keep / (1 + e) * at(r.before) - shift * e * take * take * j));
      at.put(r.delta + n, g * take * (1 - j * j));
      at.put(r.grad, g * keep);
    });
  }
};

// c' = f c + i g, h' = o tanh(c'), z = [i, f, g, o]; peepholes w: i and f see w c, o sees w c'
template <class T> struct LSTM {
  int n;
  const T* peepholes;  // w_i, w_f, w_o, or null
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> c = at(r.before + n), g = tanh<T>(at(r.z + 2 * n));
      Vec<T> i = at(r.z), f = at(r.z + n), o = at(r.z + 3 * n);
      if (peepholes) i += at(peepholes) * c, f += at(peepholes + n) * c;
      i = sigmoid<T>(i), f = sigmoid<T>(f);
      const Vec<T> next = f * c + i * g;
      if (peepholes) o += at(peepholes + 2 * n) * next;
      o = sigmoid<T>(o);
      at.put(r.now, o * tanh<T>(next));
      at.put(r.now + n, next);
      at.put(r.z, i), at.put(r.z + n, f), at.put(r.z + 2 * n, g), at.put(r.z + 3 * n, o);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const Vec<T> i = at(r.z), f = at(r.z + n), g = at(r.z + 2 * n), o = at(r.z + 3 * n);
      const Vec<T> c = at(r.before + n), next = at(r.now + n), t = tanh<T>(next), by_h = at(r.grad);
      const Vec<T> by_o = by_h * t * o * (1 - o);
      Vec<T> by_c = at(r.grad + n) + by_h * o * (1 - t * t);
      if (peepholes) by_c += by_o * at(peepholes + 2 * n);
      const Vec<T> by_i = by_c * g * i * (1 - i), by_f = by_c * c * f * (1 - f);
      at.put(r.delta, by_i), at.put(r.delta + n, by_f);
      at.put(r.delta + 2 * n, by_c * i * (1 - g * g)), at.put(r.delta + 3 * n, by_o);
      by_c *= f;
      if (peepholes) {
        by_c += by_i * at(peepholes) + by_f * at(peepholes + n);
        at.put(r.by, at(r.by) + by_i * c);
        at.put(r.by + n, at(r.by + n) + by_f * c);
        at.put(r.by + 2 * n, at(r.by + 2 * n) + by_o * next);
      }
      at.put(r.grad, Vec<T>{}), at.put(r.grad + n, by_c);
    });
  }
};

// c' = f c + i g, h' = o tanh(c'), z = [i, f, g, o]; the second product reads c' for o
template <class T> struct OutputMatrix {
  int n;
  void forward(int stage, Row<T> r) const {
    each<T>(n, [&](auto at) {
      if (stage == 0) {
        const Vec<T> i = sigmoid<T>(at(r.z)), f = sigmoid<T>(at(r.z + n)), g = tanh<T>(at(r.z + 2 * n));
        at.put(r.now + n, f * at(r.before + n) + i * g);
        at.put(r.z, i), at.put(r.z + n, f), at.put(r.z + 2 * n, g);
      } else {
        const Vec<T> o = sigmoid<T>(at(r.z + 3 * n));
        at.put(r.now, o * tanh<T>(at(r.now + n))), at.put(r.z + 3 * n, o);
      }
    });
  }
  void backward(int stage, Back<T> r) const {
    each<T>(n, [&](auto at) {
      if (stage == 1) {
        const Vec<T> o = at(r.z + 3 * n), t = tanh<T>(at(r.now + n)), by_h = at(r.grad);
        at.put(r.delta + 3 * n, by_h * t * o * (1 - o));
        at.put(r.grad, Vec<T>{}), at.put(r.grad + n, at(r.grad + n) + by_h * o * (1 - t * t));
      } else {
        const Vec<T> i = at(r.z), f = at(r.z + n), g = at(r.z + 2 * n), by_c = at(r.grad + n);
        at.put(r.delta, by_c * g * i * (1 - i)), at.put(r.delta + n, by_c * at(r.before + n) * f * (1 - f));
        at.put(r.delta + 2 * n, by_c * i * (1 - g * g)), at.put(r.grad + n, by_c * f);
      }
    });
  }
};

// c = f(u + r q), h' = c + g (h - c), z = [q, r, g, u]: GRU with f = tanh and a bias on q, GORU with f = modReLU
template <class T, int kind> struct ResetAfter {
  int n;
  const T* bias;
  void forward(int, Row<T> row) const {
    each<T>(n, [&](auto at) {
      const Vec<T> b = at(bias), q = kind == kModRelu ? at(row.z) : at(row.z) + b;
      const Vec<T> r = sigmoid<T>(at(row.z + n)), g = sigmoid<T>(at(row.z + 2 * n));
      const Vec<T> c = apply<T, kind>(at(row.z + 3 * n) + r * q, b);
      at.put(row.now, c + g * (at(row.before) - c));
      at.put(row.z, q), at.put(row.z + n, r), at.put(row.z + 2 * n, g), at.put(row.z + 3 * n, c);
    });
  }
  void backward(int, Back<T> row) const {
    each<T>(n, [&](auto at) {
      const Vec<T> q = at(row.z), r = at(row.z + n), g = at(row.z + 2 * n), c = at(row.z + 3 * n);
      const Vec<T> by_h = at(row.grad), by_c = by_h * (1 - g) * slope<T, kind>(c), by_q = by_c * r;
      at.put(row.delta, by_q), at.put(row.delta + n, by_c * q * r * (1 - r));
      at.put(row.delta + 2 * n, by_h * (at(row.before) - c) * g * (1 - g)), at.put(row.delta + 3 * n, by_c);
      at.put(row.by, at(row.by) + (kind == kModRelu ? (c < 0 ? -by_c : by_c) : by_q));
      at.put(row.grad, by_h * g);
    });
  }
};

// c = tanh(u + W (r h)), h' = c + g (h - c), z = [r, g, c]; the second product reads r h, which stands behind h
template <class T> struct ResetBefore {
  int n;
  void forward(int stage, Row<T> row) const {
    each<T>(n, [&](auto at) {
      if (stage == 0) {
        const Vec<T> r = sigmoid<T>(at(row.z));
        at.put(row.z, r), at.put(row.now + n, r * at(row.before));
      } else {
        const Vec<T> g = sigmoid<T>(at(row.z + n)), c = tanh<T>(at(row.z + 2 * n));
        at.put(row.now, c + g * (at(row.before) - c));
        at.put(row.z + n, g), at.put(row.z + 2 * n, c);
      }
    });
  }
  void backward(int stage, Back<T> row) const {
    each<T>(n, [&](auto at) {
      const Vec<T> h = at(row.before), by_h = at(row.grad);
      if (stage == 1) {
        const Vec<T> g = at(row.z + n), c = at(row.z + 2 * n);
        at.put(row.delta + n, by_h * (h - c) * g * (1 - g));
        at.put(row.delta + 2 * n, by_h * (1 - g) * (1 - c * c));
        at.put(row.grad, by_h * g);
      } else {
        const Vec<T> r = at(row.z), by_product = at(row.grad + n);
        at.put(row.delta, by_product * h * r * (1 - r));
        at.put(row.grad, by_h + by_product * r), at.put(row.grad + n, Vec<T>{});
      }
    });
  }
};

// h' = h + eps (a + tanh(z)), z = [a, z], or [z] without a linear part
template <class T> struct Euler {
  int n;
  bool linear;
  T eps;
  void forward(int, Row<T> r) const {
    each<T>(n, [&](auto at) {
      T* inner = r.z + (linear ? n : 0);
      const Vec<T> t = tanh<T>(at(inner));
      at.put(r.now, at(r.before) + eps * (linear ? at(r.z) + t : t));
      at.put(inner, t);
    });
  }
  void backward(int, Back<T> r) const {
    each<T>(n, [&](auto at) {
      const int inner = linear ? n : 0;
      const Vec<T> g = eps * at(r.grad), t = at(r.z + inner);
      if (linear) at.put(r.delta, g);
      at.put(r.delta + inner, g * (1 - t * t));
    });
  }
};

// h' = f(gain x + offset), x = (z - mean) / sqrt(variance + eps); kept: [x, 1 / sqrt(variance + eps)]
template <class T, int kind> struct LayerNorm {
  int n;
  T eps;
  const T* gain;  // then the offset
  void forward(int, Row<T> r) const {
    Vec<T> sum = {}, squares = {};
    each<T>(n, [&](auto at) { sum += at(r.z); });
    const T mean = total<T>(sum) / n;
    each<T>(n, [&](auto at) {
      const Vec<T> centred = at.only(at(r.z) - mean);
      squares += centred * centred;
    });
    const T scale = 1 / std::sqrt(total<T>(squares) / n + eps);
    each<T>(n, [&](auto at) {
      const Vec<T> x = (at(r.z) - mean) * scale;
      at.put(r.now, apply<T, kind>(x * at(gain) + at(gain + n), Vec<T>{}));
      at.put(r.z, x);
    });
    r.z[n] = scale;
  }
  void backward(int, Back<T> r) const {
    Vec<T> sum = {}, along = {};
    each<T>(n, [&](auto at) {
      const Vec<T> x = at(r.z), by_y = at(r.grad) * slope<T, kind>(at(r.now)), g = by_y * at(gain);
      at.put(r.by, at(r.by) + by_y * x), at.put(r.by + n, at(r.by + n) + by_y);
      sum += at.only(g), along += g * x;
      at.put(r.delta, g), at.put(r.grad, Vec<T>{});
    });
    const T mean = total<T>(sum) / n, slant = total<T>(along) / n;
    each<T>(n, [&](auto at) { at.put(r.delta, r.z[n] * (at(r.delta) - mean - slant * at(r.z))); });
    r.delta[n] = 0;
  }
};

// r = relu(z_r + b), phi = relu(z_phi), mu_a' = a mu_a + (1 - a) phi; z = [r, phi], r stands behind mu
template <class T> struct Statistical {
  int summary, statistics, averages;
  const double* decays;
  const T* bias;
  void forward(int stage, Row<T> row) const {
    if (stage == 0)
      return each<T>(summary, [&](auto at) {
        at.put(row.now + averages * statistics, apply<T, kRelu>(at(row.z) + at(bias), Vec<T>{}));
      });
    each<T>(statistics, [&](auto at) {
      const Vec<T> phi = apply<T, kRelu>(at(row.z + summary), Vec<T>{});
      for (int a = 0, i = 0; a < averages; ++a, i += statistics)
        at.put(row.now + i, T(decays[a]) * at(row.before + i) + (1 - T(decays[a])) * phi);
      at.put(row.z + summary, phi);
    });
  }
  void backward(int stage, Back<T> row) const {
    T* by_summary = row.grad + averages * statistics;
    if (stage == 0)
      return each<T>(summary, [&](auto at) {
        const Vec<T> by_r = at(by_summary) * slope<T, kRelu>(at(row.now + averages * statistics));
        at.put(row.delta, by_r), at.put(row.by, at(row.by) + by_r), at.put(by_summary, Vec<T>{});
      });
    each<T>(statistics, [&](auto at) {
      Vec<T> by_phi = {};
      for (int a = 0, i = 0; a < averages; ++a, i += statistics) {
        const Vec<T> g = at(row.grad + i);
        by_phi += (1 - T(decays[a])) * g;
        at.put(row.grad + i, T(decays[a]) * g);
      }
      at.put(row.delta + summary, by_phi * slope<T, kRelu>(at(row.z + summary)));
    });
  }
};

}  // namespace
