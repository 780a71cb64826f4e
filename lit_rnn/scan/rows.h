// Elementwise functions of a row of a batch, and what one step of a cell reads and writes: for the cells of `gated.cpp`.

#pragma once

#include "vectors.h"

namespace {

template <class T, int bytes> struct Of {
  typedef T Vec __attribute__((vector_size(bytes)));
};

// whole vectors, then the rest
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
template <class T, int bytes = kBytes> inline T total(typename Of<T, bytes>::Vec v) {
  if constexpr (bytes == sizeof(T)) {
    return v[0];
  } else {  // halves of halves: lane after lane would wait for one addition after another
    typename Of<T, bytes / 2>::Vec low, high;
    std::memcpy(&low, &v, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return total<T, bytes / 2>(low + high);
  }
}

constexpr int kTile = 128;  // rows: many products for every load of what gradients by weights have summed up to
template <class Work> void in_tiles(int first, int last, Work work) {
  for (int row = first; row < last; row += kTile) work(int64_t(row), std::min(kTile, last - row));
}

// Adds a^T b to (m, n), from a (rows, m) and b (rows, n): gradients by weights. Each of them has a stride of rows.
template <class T>
void add_outer(int rows, const T* a, int m, int a_stride, const T* b, int n, int b_stride, T* to, int stride,
               std::vector<T>& scratch) {
  scratch.resize(packed_size<T>(rows, n));
  T* packed = scratch.data();
  Vec<T> sum[kRows * kColumns];
  for (const auto& panel : panels_of<T>(rows, n, packed)) {
    for (int row = 0; row < rows; ++row, packed += panel.vectors * kLanes<T>) {
      std::memcpy(packed, b + int64_t(row) * b_stride + panel.first, panel.units * sizeof(T));
      std::fill(packed + panel.units, packed + panel.vectors * kLanes<T>, T(0));
    }
    in_blocks(m, [&](int first, int size) {
      multiply<T, true>(size, panel, a + first, rows, a_stride, sum);
      for (int r = 0; r < size; ++r) {
        T* at = to + int64_t(first + r) * stride + panel.first;
        each<T>(panel.units, [&](auto here) { here.put(at, here(at) + sum[r * panel.vectors + here.i / kLanes<T>]); });
      }
    });
  }
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

}  // namespace
