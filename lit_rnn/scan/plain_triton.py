"""h_t = f(W h_{t-1} + u_t) over a whole sequence and its backward as Triton kernels, for `lit_rnn/scan/gpu.py`.

A program has some rows of the batch for all T steps, and W in its registers, read once: n is cut into tiles of BLOCK
units, so that n = 170 takes 192 x 192 numbers there. Where W is too large for one, the programs of a group share it:
each has the columns of its own units, writes their states to memory, waits for the others, and reads all.

Vectors are tuples of tiles (BLOCK,), rows first, then real and imaginary parts, then tiles of units. W is a tuple of
tiles (BLOCK from, BLOCK to): real and imaginary part, then tiles to multiply from, then to. A row times W is the sum
over the first axis; a thread adds up its own share, and all sums of a step meet in one reduction.

Nonlinearities and their derivatives are those of vectors.h; a NaN stays one.
"""

import triton
import triton.language as tl

from lit_rnn.activations import COMPLEX_EPS, LEAK
from lit_rnn.scan.recurrence import KINDS

_RELU = tl.constexpr(KINDS.index("relu"))
_LEAKY = tl.constexpr(KINDS.index("leaky_relu"))
_TANH = tl.constexpr(KINDS.index("tanh"))
_ELU = tl.constexpr(KINDS.index("elu"))
_MODRELU = tl.constexpr(KINDS.index("modrelu"))
_COMPLEX = tl.constexpr(KINDS.index("complex modrelu"))
_LEAK, _EPS = tl.constexpr(LEAK), tl.constexpr(COMPLEX_EPS)
_TERMS = tl.constexpr(14)  # of e^x - 1 for |x| < 1/2: the rest is below 1e-16


@triton.jit
def _expm1(x):
    series = tl.full(x.shape, 1.0, x.dtype)
    for i in tl.static_range(_TERMS - 1):
        series = series * x / (_TERMS - i) + 1
    return tl.where((x > -0.5) & (x < 0.5), series * x, tl.exp(x) - 1)


@triton.jit
def _f(z, bias, KIND: tl.constexpr):
    if KIND == _RELU:
        z = tl.where(z < 0, tl.zeros_like(z), z)
    elif KIND == _LEAKY:
        z = tl.where(z < 0, z * tl.full(z.shape, _LEAK, z.dtype), z)
    elif KIND == _TANH:
        modulus = tl.abs(z)
        e = _expm1(2 * tl.where(modulus > 20, tl.full(z.shape, 20, z.dtype), modulus))
        modulus = e / (e + 2)
        z = tl.where(z < 0, -modulus, modulus)
    elif KIND == _ELU:
        z = tl.where(z > 0, z, _expm1(tl.where(z > 0, tl.zeros_like(z), z)))
    elif KIND == _MODRELU:
        modulus = tl.abs(z) + bias
        modulus = tl.where(modulus < 0, tl.zeros_like(z), modulus)
        z = tl.where(z == 0, tl.zeros_like(z), tl.where(z < 0, -modulus, modulus))
    return z


@triton.jit
def _slope(h, KIND: tl.constexpr):
    """f' by the value that f gave."""
    one = tl.full(h.shape, 1, h.dtype)
    if KIND == _RELU:
        one = tl.where(h > 0, one, tl.zeros_like(h))
    elif KIND == _LEAKY:
        one = tl.where(h > 0, one, tl.full(h.shape, _LEAK, h.dtype))
    elif KIND == _TANH:
        one = 1 - h * h
    elif KIND == _ELU:
        one = tl.where(h > 0, one, h + 1)
    elif KIND == _MODRELU:
        one = tl.where(h != 0, one, tl.zeros_like(h))
    return one


@triton.jit
def _unshrink(m, b, x, y, gx, gy):
    """dL/dz of complex modReLU by that of h = x + iy, and dL/db."""
    grown = m + b
    alive = grown > 0
    s = tl.where(alive, grown / m, tl.zeros_like(m))
    inverse = tl.where(alive, m / grown, tl.zeros_like(m))
    x *= inverse
    y *= inverse
    along = (x * gx + y * gy) / m
    bend = -b * along / (m * m)
    return s * gx + bend * x, s * gy + bend * y, along


@triton.jit
def _load(at, row, B, n, first, ROWS: tl.constexpr, PLANES: tl.constexpr, COUNT: tl.constexpr,
          BLOCK: tl.constexpr, other: tl.constexpr):  # fmt: skip
    """COUNT tiles from tile ``first`` on of ROWS rows from ``row`` on; ``other`` where there is none."""
    tiles = ()
    for r in tl.static_range(ROWS):
        for plane in tl.static_range(PLANES):
            for i in tl.static_range(COUNT):
                unit = (first + i) * BLOCK + tl.arange(0, BLOCK)
                there = unit < tl.where(row + r < B, n, 0)
                number = tl.load(at + (row + r) * (PLANES * n) + plane * n + unit, mask=there, other=other)
                tiles = tiles + (number,)
    return tiles


@triton.jit
def _store(at, tiles, row, B, n, first, ROWS: tl.constexpr, PLANES: tl.constexpr, COUNT: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    for r in tl.static_range(ROWS):
        for plane in tl.static_range(PLANES):
            for i in tl.static_range(COUNT):
                unit = (first + i) * BLOCK + tl.arange(0, BLOCK)
                there = unit < tl.where(row + r < B, n, 0)
                tl.store(at + (row + r) * (PLANES * n) + plane * n + unit,
                         tiles[(r * PLANES + plane) * COUNT + i], mask=there)  # fmt: skip


@triton.jit
def _matrix(w, member, PLANES: tl.constexpr, ACROSS: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr):
    """A member's columns of each of the planes (ACROSS BLOCK, ACROSS BLOCK)."""
    tile = tl.arange(0, BLOCK)
    tiles = ()
    for plane in tl.static_range(PLANES):
        for j in tl.static_range(ACROSS):
            for i in tl.static_range(OWN):
                line = (plane * ACROSS + j) * BLOCK + tile
                column = (member * OWN + i) * BLOCK + tile
                number = tl.load(w + line[:, None] * (ACROSS * BLOCK) + column[None, :])
                tiles = tiles + (number,)
    return tiles


@triton.jit
def _joined(parts, first: tl.constexpr, count: tl.constexpr):
    """As many tensors, a power of two, from ``first`` on, along new axes of 2."""
    if count == 1:
        return parts[first]
    else:
        return tl.join(_joined(parts, first, count // 2), _joined(parts, first + count // 2, count // 2))


@triton.jit
def _apart(joined, count: tl.constexpr):
    if count == 1:
        return (joined,)
    else:
        a, b = tl.split(joined)
        return _apart(a, count // 2) + _apart(b, count // 2)


@triton.jit
def _sums(w, x, row, PLANES: tl.constexpr, ACROSS: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,
          FOLD: tl.constexpr):  # fmt: skip
    """A row of x times a member's columns of A, or (x + iy) (A + iB), as what is still to be added up, (FOLD, BLOCK):
    its lines lie in different threads."""
    sums = ()
    for plane in tl.static_range(PLANES):
        for i in tl.static_range(OWN):
            total = tl.zeros((BLOCK, BLOCK), w[0].dtype)
            for j in tl.static_range(ACROSS):
                real = x[row * PLANES * ACROSS + j][:, None]
                if PLANES == 1:
                    total += w[j * OWN + i] * real
                else:
                    imaginary = x[(row * 2 + 1) * ACROSS + j][:, None]
                    if plane == 0:
                        total += w[j * OWN + i] * real
                        total -= w[(ACROSS + j) * OWN + i] * imaginary
                    else:
                        total += w[(ACROSS + j) * OWN + i] * real
                        total += w[j * OWN + i] * imaginary
            if FOLD < BLOCK:
                total = tl.sum(tl.reshape(total, (BLOCK // FOLD, FOLD, BLOCK)), axis=0)
            sums = sums + (total,)
    return sums


@triton.jit
def _added(sums, count: tl.constexpr, JOIN: tl.constexpr):
    """``count`` tensors (FOLD, BLOCK) summed over their lines, JOIN of them in one reduction."""
    for _ in tl.static_range(-count % JOIN):
        sums = sums + (tl.zeros_like(sums[0]),)
    found = ()
    for k in tl.static_range(0, count, JOIN):
        found = found + _apart(tl.sum(_joined(sums, k, JOIN), axis=0), JOIN)
    return found


@triton.jit
def _products(w, x, source, row, B, n, ROWS: tl.constexpr, PLANES: tl.constexpr, GROUP: tl.constexpr,
              OWN: tl.constexpr, BLOCK: tl.constexpr, FOLD: tl.constexpr, JOIN: tl.constexpr):  # fmt: skip
    """Rows times a member's columns: of x, or where members of a group have the rest of them, of ``source``."""
    ACROSS: tl.constexpr = GROUP * OWN
    sums = ()
    if GROUP == 1:
        for r in tl.static_range(ROWS):
            sums = sums + _sums(w, x, r, PLANES, ACROSS, OWN, BLOCK, FOLD)
    else:
        for r in tl.static_range(ROWS):
            here = _load(source, row + r, B, n, 0, 1, PLANES, ACROSS, BLOCK, 0.0)
            sums = sums + _sums(w, here, 0, PLANES, ACROSS, OWN, BLOCK, FOLD)
    return _added(sums, ROWS * PLANES * OWN, JOIN)


@triton.jit
def _meet(ready, count):
    """Wait until ``count`` arrivals: what all who arrived had written can be read."""
    tl.debug_barrier()
    tl.atomic_add(ready, 1, sem="release")
    while tl.atomic_add(ready, 0, sem="acquire") < count:
        pass
    tl.debug_barrier()


_UNSPECIAL = ["T", "B", "start"]
_UNALIGNED = ["bias", "ready", "u", "before", "h", "modulus", "each", "last", "delta", "through", "by_bias"]


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def forward(w, u, before, bias, h, modulus, ready, T, B, start, n: tl.constexpr, KIND: tl.constexpr,
            KEEP: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,
            FOLD: tl.constexpr, JOIN: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W^T; u, h: (T, B, width); before: (B, width); modulus: (T, B, n) where KEEP; rows from ``start``."""
    PLANES: tl.constexpr = 2 if KIND == _COMPLEX else 1
    ACROSS: tl.constexpr = GROUP * OWN
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    row, first = start + group * ROWS, member * OWN
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, member, PLANES, ACROSS, OWN, BLOCK)
    if KIND == _MODRELU or KIND == _COMPLEX:
        threshold = _load(bias, 0, 1, n, first, 1, 1, OWN, BLOCK, 0.0)
    else:
        threshold = (0.0,) * OWN
    x = _load(before, row, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    source = before
    drive = _load(u, row, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    for t in range(T):
        now = one * t * B
        later = u + (now + B) * (PLANES * n)
        coming = _load(later, row, tl.where(t + 1 < T, B, 0), n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        z = _products(W, x, source, row, B, n, ROWS, PLANES, GROUP, OWN, BLOCK, FOLD, JOIN)
        new = ()
        if KIND == _COMPLEX:
            moduli = ()
            for r in tl.static_range(ROWS):
                real = ()
                imaginary = ()
                for i in tl.static_range(OWN):
                    a = z[2 * r * OWN + i] + drive[2 * r * OWN + i]
                    b = z[(2 * r + 1) * OWN + i] + drive[(2 * r + 1) * OWN + i]
                    m = tl.sqrt(a * a + b * b + tl.full(a.shape, _EPS, a.dtype))
                    grown = m + threshold[i]
                    s = tl.where(grown < 0, tl.zeros_like(m), grown) / m
                    real = real + (a * s,)
                    imaginary = imaginary + (b * s,)
                    moduli = moduli + (m,)
                new = new + real + imaginary
            if KEEP:
                _store(modulus + now * n, moduli, row, B, n, first, ROWS, 1, OWN, BLOCK)
        else:
            for k in tl.static_range(ROWS * OWN):
                new = new + (_f(z[k] + drive[k], threshold[k % OWN], KIND),)
        _store(h + now * (PLANES * n), new, row, B, n, first, ROWS, PLANES, OWN, BLOCK)
        x = new
        source = h + now * (PLANES * n)
        if GROUP > 1 and WAIT:
            _meet(ready + group, GROUP * (t + 1))
        drive = coming


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def backward(w, each, last, h, modulus, bias, delta, through, by_bias, ready, T, B, start, n: tl.constexpr,
             KIND: tl.constexpr, EACH: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr,
             BLOCK: tl.constexpr, FOLD: tl.constexpr, JOIN: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W, of a complex one those of its conjugate; each, h, delta: (T, B, width), each read where EACH;
    last: (B, width), by the last states, with all that comes through later ones; through: (B, width), by the states
    before the first; by_bias: (groups, n)."""
    PLANES: tl.constexpr = 2 if KIND == _COMPLEX else 1
    ACROSS: tl.constexpr = GROUP * OWN
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    row, first = start + group * ROWS, member * OWN
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, member, PLANES, ACROSS, OWN, BLOCK)
    if KIND == _MODRELU or KIND == _COMPLEX:
        threshold = _load(bias, 0, 1, n, first, 1, 1, OWN, BLOCK, 0.0)
    else:
        threshold = (0.0,) * OWN
    by_threshold = ()
    for _ in tl.static_range(OWN):
        by_threshold = by_threshold + (tl.zeros((BLOCK,), W[0].dtype),)
    total = _load(last, row, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    end = one * (T - 1) * B
    state = _load(h + end * (PLANES * n), row, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    if KIND == _COMPLEX:
        size = _load(modulus + end * n, row, B, n, first, ROWS, 1, OWN, BLOCK, 1.0)
    for back in range(T):
        now = one * (T - 1 - back) * B
        more = tl.where(back + 1 < T, B, 0)
        earlier = (now - B) * (PLANES * n)
        state_before = _load(h + earlier, row, more, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        if EACH:
            direct = _load(each + earlier, row, more, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        d = ()
        shares = by_threshold
        if KIND == _COMPLEX:
            size_before = _load(modulus + (now - B) * n, row, more, n, first, ROWS, 1, OWN, BLOCK, 1.0)
            for r in tl.static_range(ROWS):
                real = ()
                imaginary = ()
                grown = ()
                for i in tl.static_range(OWN):
                    a, b, along = _unshrink(
                        size[r * OWN + i], threshold[i],
                        state[2 * r * OWN + i], state[(2 * r + 1) * OWN + i],
                        total[2 * r * OWN + i], total[(2 * r + 1) * OWN + i])  # fmt: skip
                    real = real + (a,)
                    imaginary = imaginary + (b,)
                    grown = grown + (shares[i] + along,)
                d = d + real + imaginary
                shares = grown
            size = size_before
        else:
            for r in tl.static_range(ROWS):
                grown = ()
                for i in tl.static_range(OWN):
                    value = state[r * OWN + i]
                    by_z = total[r * OWN + i] * _slope(value, KIND)
                    d = d + (by_z,)
                    grown = grown + (shares[i] + tl.where(value < 0, -by_z, by_z),)
                shares = grown
        by_threshold = shares
        _store(delta + now * (PLANES * n), d, row, B, n, first, ROWS, PLANES, OWN, BLOCK)
        if GROUP > 1 and WAIT:
            _meet(ready + group, GROUP * (back + 1))
        source = delta + now * (PLANES * n)
        z = _products(W, d, source, row, B, n, ROWS, PLANES, GROUP, OWN, BLOCK, FOLD, JOIN)
        total = ()
        for k in tl.static_range(ROWS * PLANES * OWN):
            if EACH:
                total = total + (z[k] + direct[k],)
            else:
                total = total + (z[k],)
        state = state_before
    _store(through, total, row, B, n, first, ROWS, PLANES, OWN, BLOCK)
    if KIND == _MODRELU or KIND == _COMPLEX:
        _store(by_bias + row // ROWS * n, by_threshold, 0, 1, n, first, 1, 1, OWN, BLOCK)
