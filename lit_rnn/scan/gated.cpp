// The cells that are more than one matrix and one nonlinearity over a whole sequence, and their backward, for
// `lit_rnn/scan/gated.py`.
//
// Every cell is one or two products, each followed by a function of one row of the batch. Of each step and row two
// records are kept: ``now``, the state (and what the second product reads), and ``z``, which starts as the drive, to
// which the products add, and in which the row functions leave what the backward reads. The backward turns them round:
// a row function writes delta, the gradient by z, the product adds delta W to the gradient by what the product read.
//
// Rows do not depend on one another: threads have rows of their own, and never meet.

#include "vectors.h"

namespace {

// ---- elementwise functions of a row: whole vectors, then the rest

template <class T> struct Whole {
  int i;
  Vec<T> operator()(const T* from) const { return load(from + i); }
  void put(T* to, Vec<T> v) const { std::memcpy(to + i, &v, sizeof v); }
  Vec<T> only(Vec<T> v) const { return v; }  // zero where there is no unit
};
template <class T> struct Rest {
  int i, count;
  Vec<T> operator()(const T* from) const { return load(from + i, count); }
  void put(T* to, Vec<T> v) const { store(to + i, v, count); }
  Vec<T> only(Vec<T> v) const {
    for (int lane = count; lane < kLanes<T>; ++lane) v[lane] = 0;
    return v;
  }
};
template <class T, class F> inline void each(int n, F f) {
  int i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(Whole<T>{i});
  if (i < n) f(Rest<T>{i, n - i});
}
template <class T> inline T total(Vec<T> v) {
  T sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += v[lane];
  return sum;
}

template <class T> struct Row {
  const T* before;
  T *now, *z;
};
template <class T> struct Back {
  const T *before, *now, *z;
  T* grad;   // by now; becomes what of it goes to ``before`` past the products
  T* delta;  // by z
  T* by;     // by the vectors of the cell, added up
};

// ---- the cells

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

// h' = relu(z_h); m' = m + sum over products of left x (q / |q|_5), left = sum over parts of +-w (p / |p|_5), the p of a
// product cut into parts. z = [z_h, w of every part, (p, q) of every product]; the second half of the products and
// parts is subtracted. The second product reads [h', m], so m is copied first.
template <class T> struct NRU {
  int hidden, memory, products, parts, side, length;  // parts of each product; of q; of a part of p. memory = side length
  const T* bias;                                      // of all but z_h, or null

  // v / |v|_5, of at most kLongest numbers, and 1 / |v|_5; both zero where nothing exceeds 1e-12
  static T unit(const T* v, int count, T* to) {
    T largest = 0;
    for (int i = 0; i < count; ++i) {
      const T modulus = std::abs(v[i]);
      if (modulus > largest || modulus != modulus) largest = modulus;  // a NaN stays
    }
    if (largest <= T(1e-12)) {
      std::fill(to, to + count, T(0));
      return 0;
    }
    T sum = 0;
    for (int i = 0; i < count; ++i) {
      const T x = v[i] / largest, square = x * x;
      sum += square * square * std::abs(x);
    }
    const T inverse = 1 / (largest * std::pow(sum, T(0.2)));
    for (int i = 0; i < count; ++i) to[i] = v[i] * inverse;
    return inverse;
  }
  // the gradient by v, from that by y = v / |v|_5
  static void unit_backward(const T* y, T inverse, const T* by_y, int count, T* to) {
    T along = 0;
    for (int i = 0; i < count; ++i) along += by_y[i] * y[i];
    for (int i = 0; i < count; ++i) to[i] = inverse * (by_y[i] - y[i] * y[i] * y[i] * std::abs(y[i]) * along);
  }
  int weights() const { return products * parts; }
  T sign(int product) const { return 2 * product < products ? 1 : -1; }

  void forward(int stage, Row<T> row) const {
    if (stage == 0) {
      each<T>(hidden, [&](auto at) { at.put(row.now, apply<T, kRelu>(at(row.z), Vec<T>{})); });
      std::copy(row.before + hidden, row.before + hidden + memory, row.now + hidden);
      return;
    }
    T* w = row.z + hidden;
    if (bias) each<T>(weights() + products * 2 * side, [&](auto at) { at.put(w, at(w) + at(bias)); });
    T* pq = w + weights();
    T part[kLongest], left[kLongest], q[kLongest];
    for (int j = 0; j < products; ++j, pq += 2 * side) {
      summed(w + j * parts, pq, sign(j), part, left);
      unit(pq + side, side, q);
      for (int a = 0; a < length; ++a) {
        T* m = row.now + hidden + a * side;
        each<T>(side, [&](auto at) { at.put(m, at(m) + left[a] * at(q)); });
      }
    }
  }
  void summed(const T* w, const T* p, T sign, T* part, T* left) const {
    std::fill(left, left + length, T(0));
    for (int i = 0; i < parts; ++i) {
      unit(p + i * length, length, part);
      for (int a = 0; a < length; ++a) left[a] += sign * w[i] * part[a];
    }
  }
  void backward(int stage, Back<T> row) const {
    if (stage == 0)
      return each<T>(hidden, [&](auto at) {
        at.put(row.delta, at(row.grad) * slope<T, kRelu>(at(row.now)));
        at.put(row.grad, Vec<T>{});
      });
    const T *w = row.z + hidden, *pq = w + weights();
    T *by_w = row.delta + hidden, *by_pq = by_w + weights();
    T part[kLongest], left[kLongest], q[kLongest], by_part[kLongest], by_left[kLongest], by_q[kLongest];
    for (int j = 0; j < products; ++j, pq += 2 * side, by_pq += 2 * side) {
      summed(w + j * parts, pq, sign(j), part, left);
      const T inverse = unit(pq + side, side, q);
      std::fill(by_q, by_q + side, T(0));
      for (int a = 0; a < length; ++a) {
        const T* g = row.grad + hidden + a * side;
        Vec<T> along = {};
        each<T>(side, [&](auto at) {
          along += at(g) * at(q);
          at.put(by_q, at(by_q) + left[a] * at(g));
        });
        by_left[a] = total<T>(along);
      }
      unit_backward(q, inverse, by_q, side, by_pq + side);
      for (int i = 0; i < parts; ++i) {
        const T size = unit(pq + i * length, length, part), weight = sign(j) * w[j * parts + i];
        T along = 0;
        for (int a = 0; a < length; ++a) along += by_left[a] * part[a], by_part[a] = weight * by_left[a];
        by_w[j * parts + i] = sign(j) * along;
        unit_backward(part, size, by_part, length, by_pq + i * length);
      }
    }
    if (bias) each<T>(weights() + products * 2 * side, [&](auto at) { at.put(row.by, at(row.by) + at(by_w)); });
  }
  static constexpr int kLongest = 256;
};

// ---- a sequence

struct Product {
  int reads, in, writes, out;  // columns reads .. reads + in of the state's record, writes .. writes + out of z
};
// as in gated.py
struct Shape {
  int kind, steps, batch, threads;
  int record, kept, keep;           // widths of the two records; whether z of every step is kept
  int drive, drive_at, seen;        // columns of the drive, and where in z; columns of the state the loss sees
  int vectors, products;            // numbers in the vectors
  Product product[2];
  int sizes[6];                     // of the cell
};
enum Cell { kJanet, kLSTM, kGRU, kGORU, kResetBefore, kEuler, kLayerNorm, kStatistical, kNRU, kOutputMatrix };

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
      T* start = z + int64_t(r) * s.kept;
      std::fill(start, start + s.kept, T(0));
      std::memcpy(start + s.drive_at, u + (at + r) * s.drive, s.drive * sizeof(T));
    }
    for (int i = 0; i < s.products; ++i) {
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
        T* to = total + int64_t(r) * s.record;
        const T* direct = grad + (at + r) * s.seen;
        each<T>(s.seen, [&](auto here) { here.put(to, here(to) + here(direct)); });
      }
    std::fill(by_step.begin(), by_step.end(), T(0));
    for (int i = s.products - 1; i >= 0; --i) {
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

}  // namespace

// W: packed, W^T (in, out) forward and W (out, in) backward; u: (T, B, drive); states: (T + 1, B, record), the first
// given; kept, delta: (T, B, kept), kept (1, B, kept) unless ``keep``; grad: (T, B, seen) or null; total: (B, record);
// by: (threads, vectors), zeros. All contiguous.
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
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
