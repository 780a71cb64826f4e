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
