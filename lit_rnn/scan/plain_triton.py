"""h_t = f(W h_{t-1} + u_t) over a whole sequence and its backward as Triton kernels, for `lit_rnn/scan/gpu.py`.

A program has some rows of the batch for all T steps, and W in its registers, read once: n is cut into tiles of BLOCK
units, so that n = 170 takes 192 x 192 numbers there. Where W is too large for one, the programs of a group share it:
each has the columns of its own units, writes their states to memory, waits for the others, and reads all.

Vectors are tuples of tiles (BLOCK,), rows first, then real and imaginary parts, then tiles of units. W is a tuple of
tiles (BLOCK from, BLOCK to): real and imaginary part, then tiles to multiply from, then to. In memory the units to
multiply from follow one another: they are then spread over the threads of a warp, the units to multiply to over warps,
and the sum of a row times W passes from thread to thread within a warp, without a barrier.
"""

import triton
import triton.language as tl

from lit_rnn.scan.kinds_triton import COMPLEX, MODRELU, arrive, await_all, f, shrink, slope, summed, unshrink


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
def _thresholds(bias, n, first, KIND: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """A member's, of modReLU."""
    if KIND == MODRELU or KIND == COMPLEX:
        return _load(bias, 0, 1, n, first, 1, 1, COUNT, BLOCK, 0.0)
    else:
        return (0.0,) * COUNT


@triton.jit
def _row(at, row, n, PLANES: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """All tiles of a row that is there."""
    tiles = ()
    for plane in tl.static_range(PLANES):
        for j in tl.static_range(COUNT):
            unit = j * BLOCK + tl.arange(0, BLOCK)
            place = at + row * (PLANES * n) + plane * n + unit
            if (j + 1) * BLOCK <= n:
                tiles = tiles + (tl.load(place),)
            else:
                tiles = tiles + (tl.load(place, mask=unit < n, other=0.0),)
    return tiles


@triton.jit
def _joined(parts, first: tl.constexpr, apart: tl.constexpr, count: tl.constexpr):
    """As many tensors, a power of two, from ``first`` on, ``apart`` from one another, along new axes of 2."""
    if count == 1:
        return parts[first]
    else:
        return tl.join(
            _joined(parts, first, 2 * apart, count // 2), _joined(parts, first + apart, 2 * apart, count // 2)
        )


@triton.jit
def _store(at, tiles, row, B, n, first, ROWS: tl.constexpr, PLANES: tl.constexpr, COUNT: tl.constexpr,
           BLOCK: tl.constexpr, JOIN: tl.constexpr):  # fmt: skip
    """All at once, filled up to JOIN, a power of two: on the way each number goes from its thread to another."""
    for _ in tl.static_range(JOIN - ROWS * PLANES * COUNT):
        tiles = tiles + (tl.zeros_like(tiles[0]),)
    number = tl.reshape(_joined(tiles, 0, 1, JOIN), (BLOCK, JOIN))
    tile = tl.arange(0, JOIN)[None, :]
    unit = (first + tile % COUNT) * BLOCK + tl.arange(0, BLOCK)[:, None]
    line = row * PLANES + tile // COUNT  # of rows and their planes
    last = tl.minimum(B, row + ROWS) * PLANES
    tl.store(at + line * n + unit, number, mask=(unit < n) & (line < last))


@triton.jit
def _matrix(w, member, PLANES: tl.constexpr, ACROSS: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr):
    """What goes to a member's units, of each of the planes (to, from), each ACROSS BLOCK."""
    tile = tl.arange(0, BLOCK)
    tiles = ()
    for plane in tl.static_range(PLANES):
        for j in tl.static_range(ACROSS):
            for i in tl.static_range(OWN):
                line = j * BLOCK + tile
                column = (plane * ACROSS + member * OWN + i) * BLOCK + tile
                number = tl.load(w + line[:, None] + column[None, :] * (ACROSS * BLOCK))
                tiles = tiles + (number,)
    return tiles


@triton.jit
def _product(w, x, row, PLANES: tl.constexpr, ACROSS: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr):
    """A row of x times a member's columns of A, or (x + iy) (A + iB)."""
    found = ()
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
            found = found + (tl.sum(total, axis=0),)
    return found


@triton.jit
def _products(w, x, source, row, B, n, ROWS: tl.constexpr, PLANES: tl.constexpr, GROUP: tl.constexpr,
              OWN: tl.constexpr, BLOCK: tl.constexpr, READ: tl.constexpr):  # fmt: skip
    """Rows times a member's columns: of x; of ``source`` with READ, or where members of a group have the rest of x."""
    found = ()
    for r in tl.static_range(ROWS):
        if GROUP == 1 and not READ:
            found = found + _product(w, x, r, PLANES, OWN, OWN, BLOCK)
        else:
            whole = _row(source, tl.minimum(row + r, B - 1), n, PLANES, GROUP * OWN, BLOCK)
            found = found + _product(w, whole, 0, PLANES, GROUP * OWN, OWN, BLOCK)
    return found


_UNSPECIAL = ["T", "B", "chunks"]
_UNALIGNED = ["bias", "ready", "u", "modulus", "each", "last", "by_bias"]


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def forward(w, u, before, bias, h, modulus, ready, T, B, chunks, n: tl.constexpr, KIND: tl.constexpr,
            KEEP: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,
            JOIN: tl.constexpr, READ: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W; u, h: (T, B, width); before: (B, width); modulus: (T, B, n) where KEEP.

    A group has ``chunks`` times ROWS rows, worked on in turn.
    """
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    start, first = group * chunks * ROWS, member * OWN
    counter = ready + group * chunks
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, member, PLANES, GROUP * OWN, OWN, BLOCK)
    threshold = _thresholds(bias, n, first, KIND, OWN, BLOCK)
    x = _load(before, start, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    source = before
    drive = _load(u, start, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    for k in range(T * chunks):
        if GROUP == 1:
            t = k
            later = k + 1
            row = start
            row_coming = start
        else:
            t = k // chunks
            later = (k + 1) // chunks
            row = start + k % chunks * ROWS
            row_coming = start + (k + 1) % chunks * ROWS
        now = one * t * B
        there = tl.where(later < T, B, 0)
        at = one * later * B * (PLANES * n)
        coming = _load(u + at, row_coming, there, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        if GROUP > 1 and WAIT:
            await_all(counter + k % chunks, GROUP * t)
        z = _products(W, x, source, row, B, n, ROWS, PLANES, GROUP, OWN, BLOCK, READ)
        x = ()
        if KIND == COMPLEX:
            moduli = ()
            for r in tl.static_range(ROWS):
                real = ()
                imaginary = ()
                for i in tl.static_range(OWN):
                    a = z[2 * r * OWN + i] + drive[2 * r * OWN + i]
                    b = z[(2 * r + 1) * OWN + i] + drive[(2 * r + 1) * OWN + i]
                    a, b, m = shrink(a, b, threshold[i])
                    real = real + (a,)
                    imaginary = imaginary + (b,)
                    moduli = moduli + (m,)
                x = x + real + imaginary
            if KEEP:
                _store(modulus + now * n, moduli, row, B, n, first, ROWS, 1, OWN, BLOCK, JOIN // 2)
        else:
            for i in tl.static_range(ROWS * OWN):
                x = x + (f(z[i] + drive[i], threshold[i % OWN], KIND),)
        _store(h + now * (PLANES * n), x, row, B, n, first, ROWS, PLANES, OWN, BLOCK, JOIN)
        drive = coming
        if GROUP > 1:
            if WAIT:
                arrive(counter + k % chunks)
            if (k + 1) % chunks == 0:
                source = h + now * (PLANES * n)
        elif READ:
            source = h + now * (PLANES * n)
            tl.debug_barrier()


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def backward(w, each, last, h, modulus, bias, delta, by_bias, ready, T, B, chunks, n: tl.constexpr, KIND: tl.constexpr,
             EACH: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,
             JOIN: tl.constexpr, READ: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W^T, of a complex one those of its adjoint; each, h, delta: (T, B, width), each read where EACH;
    last: (B, width), by the last states, with all that comes through later ones; by_bias: (groups, n)."""
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    start, first = group * chunks * ROWS, member * OWN
    counter = ready + group * chunks
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, member, PLANES, GROUP * OWN, OWN, BLOCK)
    threshold = _thresholds(bias, n, first, KIND, OWN, BLOCK)
    by_threshold = ()
    for _ in tl.static_range(OWN):
        by_threshold = by_threshold + (tl.zeros((BLOCK,), W[0].dtype),)
    d = ()
    for _ in tl.static_range(ROWS * PLANES * OWN):
        d = d + (tl.zeros((BLOCK,), W[0].dtype),)
    end = one * (T - 1) * B
    direct = _load(last, start, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    state = _load(h + end * (PLANES * n), start, B, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
    if KIND == COMPLEX:
        size = _load(modulus + end * n, start, B, n, first, ROWS, 1, OWN, BLOCK, 1.0)
    source = delta
    for k in range(T * chunks):
        if GROUP == 1:
            t = T - 1 - k
            earlier = t - 1
            row = start
            row_coming = start
        else:
            t = T - 1 - k // chunks
            earlier = T - 1 - (k + 1) // chunks
            row = start + k % chunks * ROWS
            row_coming = start + (k + 1) % chunks * ROWS
        now = one * t * B
        at = one * earlier * B
        there = tl.where(earlier >= 0, B, 0)
        state_coming = _load(h + at * (PLANES * n), row_coming, there, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        if KIND == COMPLEX:
            size_coming = _load(modulus + at * n, row_coming, there, n, first, ROWS, 1, OWN, BLOCK, 1.0)
        if EACH:
            by_state = tl.where(earlier == T - 1, last, each + at * (PLANES * n))
            direct_coming = _load(by_state, row_coming, there, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        else:
            whole = tl.where(earlier == T - 1, B, 0)
            direct_coming = _load(last, row_coming, whole, n, first, ROWS, PLANES, OWN, BLOCK, 0.0)
        if GROUP > 1 and WAIT:
            await_all(counter + k % chunks, GROUP * (T - 1 - t))
        z = _products(W, d, source, row, B, n, ROWS, PLANES, GROUP, OWN, BLOCK, READ)
        d = ()
        shares = by_threshold
        for r in tl.static_range(ROWS):
            real = ()
            imaginary = ()
            grown = ()
            for i in tl.static_range(OWN):
                a = summed(z[r * PLANES * OWN + i], direct[r * PLANES * OWN + i], t + 1 < T)
                if KIND == COMPLEX:
                    b = summed(z[(2 * r + 1) * OWN + i], direct[(2 * r + 1) * OWN + i], t + 1 < T)
                    a, b, along = unshrink(
                        size[r * OWN + i], threshold[i], state[r * PLANES * OWN + i], state[(2 * r + 1) * OWN + i], a, b
                    )
                    imaginary = imaginary + (b,)
                else:
                    a = a * slope(state[r * PLANES * OWN + i], KIND)
                    along = tl.where(state[r * PLANES * OWN + i] < 0, -a, a)
                real = real + (a,)
                grown = grown + (shares[i] + along,)
            d = d + real + imaginary
            shares = grown
        by_threshold = shares
        _store(delta + now * (PLANES * n), d, row, B, n, first, ROWS, PLANES, OWN, BLOCK, JOIN)
        state = state_coming
        direct = direct_coming
        if KIND == COMPLEX:
            size = size_coming
        if GROUP > 1:
            if WAIT:
                arrive(counter + k % chunks)
            if (k + 1) % chunks == 0:
                source = delta + now * (PLANES * n)
        elif READ:
            source = delta + now * (PLANES * n)
            tl.debug_barrier()
    if KIND == MODRELU or KIND == COMPLEX:
        _store(by_bias + group * n, by_threshold, 0, 1, n, first, 1, 1, OWN, BLOCK, JOIN)
