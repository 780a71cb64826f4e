// y = C h + D x and, where there is a G, o = (W_1 g + b_1) sigma(W_2 g + b_2) with g = gelu(y), of any number of rows, and
// the backward, for `lit_rnn/scan/readout.py`.
//
// These products are most of what a state-space layer costs. They are done a tile of rows at a time, which stays in the
// cache from the first to the last of them; kept are y and z = G g + b. Threads have rows of their own, and sum the
// gradients by the weights apart.

#include "rows.h"
#include "threads.h"

namespace {

// as `_Call` in readout.py fills it
struct Shape {
  int rows, threads, seen, stride, units, inputs;  // h has rows of ``seen`` numbers, ``stride`` apart
};

constexpr double kRoot = 0.7978845608028654, kCube = 0.044715;  // of gelu by tanh, (1 + tanh(u)) / 2 = sigma(2 u)
template <class T> inline Vec<T> gate(Vec<T> y) { return sigmoid<T>(T(2 * kRoot) * (y + T(kCube) * y * y * y)); }
template <class T> inline Vec<T> gelu_slope(Vec<T> y, Vec<T> s) {
  return s + y * s * (1 - s) * T(2 * kRoot) * (1 + T(3 * kCube) * y * y);
}

template <class T> using Panels = std::vector<Panel<T>>;

// to (rows, .) = in (rows, width) times the panels, or what it adds to what is there.
template <class T, bool adds = false>
void times(const Panels<T>& panels, int rows, int width, int stride, const T* in, T* to, int to_stride) {
  step(panels, rows, width, stride, in, [&](const Panel<T>& panel, int row, int size, const Vec<T>* sum) {
    for (int r = row; r < row + size; ++r, sum += panel.vectors) {
      T* at = to + int64_t(r) * to_stride + panel.first;
      each<T>(panel.units, [&](auto here) {
        const Vec<T> product = sum[here.i / kLanes<T>];
        here.put(at, adds ? here(at) + product : product);
      });
    }
  });
}

// C, D, G: packed, transposed. y, z: null where no backward follows; G, b: null where there is none, then y is o.
template <class T>
void forward(const Shape& s, const T* h, const T* x, const T* C, const T* D, const T* G, const T* b, T* y, T* z, T* o) {
  const int n = s.units;
  const Panels<T> by_C = panels_of<T>(s.seen, n, C), by_D = panels_of<T>(s.inputs, n, D);
  const Panels<T> by_G = G ? panels_of<T>(n, 2 * n, G) : Panels<T>{};
  share(s.rows, s.threads, [&](int, int first, int last) {
    std::vector<T> g(kTile * n), own_y(y || !G ? 0 : kTile * n), own_z(z || !G ? 0 : kTile * 2 * n);
    in_tiles(first, last, [&](int64_t at, int rows) {
      T* y_at = !G ? o + at * n : y ? y + at * n : own_y.data();
      times(by_C, rows, s.seen, s.stride, h + at * s.stride, y_at, n);
      times<T, true>(by_D, rows, s.inputs, s.inputs, x + at * s.inputs, y_at, n);
      if (!G) return;
      T* z_at = z ? z + at * 2 * n : own_z.data();
      each<T>(rows * n, [&](auto here) {
        const Vec<T> v = here(y_at);
        here.put(g.data(), v * gate<T>(v));
      });
      times(by_G, rows, n, n, g.data(), z_at, 2 * n);
      for (int r = 0; r < rows; ++r) {
        T *row = z_at + int64_t(r) * 2 * n, *to = o + (at + r) * n;
        each<T>(2 * n, [&](auto here) { here.put(row, here(row) + here(b)); });
        each<T>(n, [&](auto here) { here.put(to, here(row) * sigmoid<T>(here(row + n))); });
      }
    });
  });
}

// C, D, G: packed. by_C (threads, n, seen), by_D (threads, n, inputs), by_G (threads, 2n, n) and by_b (threads, 2n): zeros;
// these, by_h and by_x are null where not asked for.
template <class T>
void backward(const Shape& s, const T* grad, const T* h, const T* x, const T* C, const T* D, const T* G, const T* y,
              const T* z, T* by_h, T* by_x, T* by_C, T* by_D, T* by_G, T* by_b) {
  const int n = s.units;
  const Panels<T> to_h = panels_of<T>(n, s.seen, C), to_x = panels_of<T>(n, s.inputs, D);
  const Panels<T> to_g = G ? panels_of<T>(2 * n, n, G) : Panels<T>{};
  share(s.rows, s.threads, [&](int thread, int first, int last) {
    std::vector<T> scratch, dz(G ? kTile * 2 * n : 0), dy(kTile * n), g(G ? kTile * n : 0), b_sum(2 * n + kLanes<T>);
    in_tiles(first, last, [&](int64_t at, int rows) {
      const T* dy_at = grad + at * n;
      if (G) {
        std::fill(b_sum.begin(), b_sum.end(), T(0));
        for (int r = 0; r < rows; ++r) {
          const T *row = z + (at + r) * 2 * n, *direct = grad + (at + r) * n;
          T *to = dz.data() + int64_t(r) * 2 * n, *sum = b_sum.data();
          each<T>(n, [&](auto here) {
            const Vec<T> s = sigmoid<T>(here(row + n)), by = here(direct), first = by * s;
            const Vec<T> second = first * here(row) * (1 - s);
            here.put(to, first), here.put(to + n, second);
            here.put(sum, here(sum) + first), here.put(sum + n, here(sum + n) + second);
          });
        }
        if (by_b)
          for (int i = 0; i < 2 * n; ++i) by_b[int64_t(thread) * 2 * n + i] += b_sum[i];
        times(to_g, rows, 2 * n, 2 * n, dz.data(), dy.data(), n);
        const T* y_at = y + at * n;
        each<T>(rows * n, [&](auto here) {
          const Vec<T> v = here(y_at), s = gate<T>(v);
          here.put(g.data(), v * s);
          here.put(dy.data(), here(dy.data()) * gelu_slope<T>(v, s));
        });
        if (by_G) add_outer(rows, dz.data(), 2 * n, 2 * n, g.data(), n, n, by_G + int64_t(thread) * 2 * n * n, n, scratch);
        dy_at = dy.data();
      }
      const T *h_at = h + at * s.stride, *x_at = x + at * s.inputs;
      if (by_C) add_outer(rows, dy_at, n, n, h_at, s.seen, s.stride, by_C + int64_t(thread) * n * s.seen, s.seen, scratch);
      if (by_D)
        add_outer(rows, dy_at, n, n, x_at, s.inputs, s.inputs, by_D + int64_t(thread) * n * s.inputs, s.inputs, scratch);
      if (by_h) times(to_h, rows, n, n, dy_at, by_h + at * s.seen, s.seen);
      if (by_x) times(to_x, rows, n, n, dy_at, by_x + at * s.inputs, s.inputs);
    });
  });
}

}  // namespace

// h: (rows, seen), rows ``stride`` apart; x: (rows, inputs); y, o, grad: (rows, n); z: (rows, 2n); otherwise contiguous.
#define LIT_RNN_DEFINE(T, name)                                                                                       \
  LIT_RNN_PACK(T, name)                                                                                               \
  extern "C" void lit_rnn_forward_##name(const Shape* shape, const T* h, const T* x, const T* C, const T* D,         \
                                         const T* G, const T* b, T* y, T* z, T* o) {                                  \
    forward<T>(*shape, h, x, C, D, G, b, y, z, o);                                                                    \
  }                                                                                                                   \
  extern "C" void lit_rnn_backward_##name(const Shape* shape, const T* grad, const T* h, const T* x, const T* C,     \
                                          const T* D, const T* G, const T* y, const T* z, T* by_h, T* by_x, T* by_C, \
                                          T* by_D, T* by_G, T* by_b) {                                                \
    backward<T>(*shape, grad, h, x, C, D, G, y, z, by_h, by_x, by_C, by_D, by_G, by_b);                               \
  }
LIT_RNN_DEFINE(float, float32)
LIT_RNN_DEFINE(double, float64)
