// The step of the NRU, and its backward, for `gated.cpp`.

#pragma once

#include "rows.h"

namespace {

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

}  // namespace
