"""h_t = f(W h_{t-1} + u_t) over a whole sequence and its backward as Triton kernels, for `lit_rnn/scan/gpu.py`.

A program has some rows of the batch for all T steps, and W in its registers, read once: n is cut into tiles of BLOCK
units, so that n = 170 takes 192 x 192 numbers there. Where W is too large for one, the programs of a group share it:
each has the columns of its own units, writes their states to memory, waits for the others, and reads all.

Vectors are tuples of parts (tiles, BLOCK), rows first, then real and imaginary parts, then the parts that units are
cut into: OWN has the tiles of each of a member's, ALL those of all, powers of two. W is a tuple of parts (tiles from,
tiles to, BLOCK to, BLOCK from): real and imaginary part, then parts to multiply from, then to. In memory the units to
multiply from follow one another: a tile's are then spread over few threads of a warp, the units to multiply to over the
others and over warps, and the sum of a row times W passes from thread to thread within a warp, without a barrier. The
states then go to the threads that multiply from them, part by part: each costs the step a way through shared memory.
"""

import triton
import triton.language as tl

from lit_rnn.scan.kinds_triton import COMPLEX, MODRELU, arrive, await_all, f, shrink, slope, summed, unshrink


@triton.jit
def _units(first, TILES: tl.constexpr, BLOCK: tl.constexpr):
    """Of as many tiles from tile ``first`` on."""
    return (first + tl.arange(0, TILES))[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]


@triton.jit
def _zeros(TILES: tl.constexpr, BLOCK: tl.constexpr, dtype: tl.constexpr):
    return tl.zeros((TILES, BLOCK), dtype)


@triton.jit
def _load(at, row, B, n, first, ROWS: tl.constexpr, PLANES: tl.constexpr, OWN: tl.constexpr,
          BLOCK: tl.constexpr, other: tl.constexpr):  # fmt: skip
    """The parts from tile ``first`` on of ROWS rows from ``row`` on; ``other`` where there is none."""
    parts = ()
    for r in tl.static_range(ROWS):
        for plane in tl.static_range(PLANES):
            tile = first
            for i in tl.static_range(len(OWN)):
                unit = _units(tile, OWN[i], BLOCK)
                there = unit < tl.where(row + r < B, n, 0)
                number = tl.load(at + (row + r) * (PLANES * n) + plane * n + unit, mask=there, other=other)
                parts = parts + (number,)
                tile += OWN[i]
    return parts


@triton.jit
def _thresholds(bias, n, first, KIND: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr):
    """A member's, of modReLU."""
    if KIND == MODRELU or KIND == COMPLEX:
        return _load(bias, 0, 1, n, first, 1, 1, OWN, BLOCK, 0.0)
    else:
        return (0.0,) * len(OWN)


@triton.jit
def _row(at, row, n, PLANES: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr):
    """All parts of a row that is there."""
    parts = ()
    for plane in tl.static_range(PLANES):
        tile = 0
        for j in tl.static_range(len(ALL)):
            unit = _units(tile, ALL[j], BLOCK)
            parts = parts + (tl.load(at + row * (PLANES * n) + plane * n + unit, mask=unit < n, other=0.0),)
            tile += ALL[j]
    return parts


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
def _store(at, parts, row, B, n, first, ROWS: tl.constexpr, PLANES: tl.constexpr, OWN: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """Each part of all rows and planes at once: on the way each number goes from its thread to another."""
    LINES: tl.constexpr = ROWS * PLANES
    last = tl.minimum(B, row + ROWS) * PLANES
    tile = first
    for i in tl.static_range(len(OWN)):
        number = tl.reshape(_joined(parts, i, len(OWN), LINES), (OWN[i], BLOCK, LINES))
        line = row * PLANES + tl.arange(0, LINES)[None, None, :]
        unit = _units(tile, OWN[i], BLOCK)[:, :, None]
        tl.store(at + line * n + unit, number, mask=(unit < n) & (line < last))
        tile += OWN[i]


@triton.jit
def _matrix(w, first, PLANES: tl.constexpr, ALL: tl.constexpr, OWN: tl.constexpr, SIDE: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    """What goes to a member's units, of each of the planes (to, from), each (SIDE, SIDE).

    Loaded as lines of BLOCK units to multiply from, so that threads and warps are spread over the units of one tile.
    """
    parts = ()
    for plane in tl.static_range(PLANES):
        start = 0
        for j in tl.static_range(len(ALL)):
            end = plane * (SIDE // BLOCK) + first
            for i in tl.static_range(len(OWN)):
                line = tl.arange(0, ALL[j] * OWN[i] * BLOCK)[:, None]
                source = (start + line // (OWN[i] * BLOCK)) * BLOCK + tl.arange(0, BLOCK)[None, :]
                to = end * BLOCK + line % (OWN[i] * BLOCK)
                parts = parts + (tl.reshape(tl.load(w + to * SIDE + source), (ALL[j], OWN[i], BLOCK, BLOCK)),)
                end += OWN[i]
            start += ALL[j]
    return parts


@triton.jit
def _times(w, x, plane: tl.constexpr, of: tl.constexpr, i: tl.constexpr, ALL: tl.constexpr, OWN: tl.constexpr):
    """x, from its part ``of`` on, times a plane of w, to the part i, not yet summed over the units of a tile."""
    total = tl.sum(w[plane * len(ALL) * len(OWN) + i] * x[of][:, None, None, :], axis=0)
    for j in tl.static_range(1, len(ALL)):
        total += tl.sum(w[(plane * len(ALL) + j) * len(OWN) + i] * x[of + j][:, None, None, :], axis=0)
    return total


@triton.jit
def _product(w, x, row, PLANES: tl.constexpr, ALL: tl.constexpr, OWN: tl.constexpr):
    """A row of x times a member's columns of A, or (x + iy) (A + iB)."""
    found = ()
    for plane in tl.static_range(PLANES):
        for i in tl.static_range(len(OWN)):
            total = _times(w, x, plane, row * PLANES * len(ALL), i, ALL, OWN)
            if PLANES == 2:
                other = _times(w, x, 1 - plane, (row * 2 + 1) * len(ALL), i, ALL, OWN)
                total = total - other if plane == 0 else total + other
            found = found + (tl.sum(total, axis=2),)
    return found


@triton.jit
def _products(w, x, source, row, B, n, ROWS: tl.constexpr, PLANES: tl.constexpr, GROUP: tl.constexpr,
              ALL: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Rows times a member's columns: of x, or of ``source`` where members of a group have the rest of x."""
    found = ()
    for r in tl.static_range(ROWS):
        if GROUP == 1:
            found = found + _product(w, x, r, PLANES, ALL, OWN)
        else:
            whole = _row(source, tl.minimum(row + r, B - 1), n, PLANES, ALL, BLOCK)
            found = found + _product(w, whole, 0, PLANES, ALL, OWN)
    return found


_UNSPECIAL = ["T", "B", "chunks"]
_UNALIGNED = ["bias", "ready", "u", "modulus", "each", "last", "by_bias"]


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def forward(w, u, before, bias, h, modulus, ready, T, B, chunks, n: tl.constexpr, KIND: tl.constexpr,
            KEEP: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, ALL: tl.constexpr, OWN: tl.constexpr,
            SIDE: tl.constexpr, BLOCK: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W; u, h: (T, B, width); before: (B, width); modulus: (T, B, n) where KEEP.

    A group has ``chunks`` times ROWS rows, worked on in turn.
    """
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    PARTS: tl.constexpr = len(OWN)
    start, first = group * chunks * ROWS, member * (SIDE // BLOCK // GROUP)
    counter = ready + group * chunks
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, first, PLANES, ALL, OWN, SIDE, BLOCK)
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
        z = _products(W, x, source, row, B, n, ROWS, PLANES, GROUP, ALL, OWN, BLOCK)
        x = ()
        if KIND == COMPLEX:
            moduli = ()
            for r in tl.static_range(ROWS):
                real = ()
                imaginary = ()
                for i in tl.static_range(PARTS):
                    a = z[2 * r * PARTS + i] + drive[2 * r * PARTS + i]
                    b = z[(2 * r + 1) * PARTS + i] + drive[(2 * r + 1) * PARTS + i]
                    a, b, m = shrink(a, b, threshold[i])
                    real = real + (a,)
                    imaginary = imaginary + (b,)
                    moduli = moduli + (m,)
                x = x + real + imaginary
            if KEEP:
                _store(modulus + now * n, moduli, row, B, n, first, ROWS, 1, OWN, BLOCK)
        else:
            for i in tl.static_range(ROWS * PARTS):
                x = x + (f(z[i] + drive[i], threshold[i % PARTS], KIND),)
        _store(h + now * (PLANES * n), x, row, B, n, first, ROWS, PLANES, OWN, BLOCK)
        drive = coming
        if GROUP > 1:
            if WAIT:
                arrive(counter + k % chunks)
            if (k + 1) % chunks == 0:
                source = h + now * (PLANES * n)


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def backward(w, each, last, h, modulus, bias, delta, by_bias, ready, T, B, chunks, n: tl.constexpr, KIND: tl.constexpr,
             EACH: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, ALL: tl.constexpr, OWN: tl.constexpr,
             SIDE: tl.constexpr, BLOCK: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: planes of W^T, of a complex one those of its adjoint; each, h, delta: (T, B, width), each read where EACH;
    last: (B, width), by the last states, with all that comes through later ones; by_bias: (groups, n)."""
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    PARTS: tl.constexpr = len(OWN)
    start, first = group * chunks * ROWS, member * (SIDE // BLOCK // GROUP)
    counter = ready + group * chunks
    one = tl.full((), 1, tl.int64)
    W = _matrix(w, first, PLANES, ALL, OWN, SIDE, BLOCK)
    threshold = _thresholds(bias, n, first, KIND, OWN, BLOCK)
    by_threshold = ()
    for i in tl.static_range(PARTS):
        by_threshold = by_threshold + (_zeros(OWN[i], BLOCK, W[0].dtype),)
    d = by_threshold * (ROWS * PLANES)
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
        z = _products(W, d, source, row, B, n, ROWS, PLANES, GROUP, ALL, OWN, BLOCK)
        d = ()
        shares = by_threshold
        for r in tl.static_range(ROWS):
            real = ()
            imaginary = ()
            grown = ()
            for i in tl.static_range(PARTS):
                a = summed(z[r * PLANES * PARTS + i], direct[r * PLANES * PARTS + i], t + 1 < T)
                if KIND == COMPLEX:
                    b = summed(z[(2 * r + 1) * PARTS + i], direct[(2 * r + 1) * PARTS + i], t + 1 < T)
                    a, b, along = unshrink(
                        size[r * PARTS + i],
                        threshold[i],
                        state[r * PLANES * PARTS + i],
                        state[(2 * r + 1) * PARTS + i],
                        a,
                        b,
                    )
                    imaginary = imaginary + (b,)
                else:
                    a = a * slope(state[r * PLANES * PARTS + i], KIND)
                    along = tl.where(state[r * PLANES * PARTS + i] < 0, -a, a)
                real = real + (a,)
                grown = grown + (shares[i] + along,)
            d = d + real + imaginary
            shares = grown
        by_threshold = shares
        _store(delta + now * (PLANES * n), d, row, B, n, first, ROWS, PLANES, OWN, BLOCK)
        state = state_coming
        direct = direct_coming
        if KIND == COMPLEX:
            size = size_coming
        if GROUP > 1:
            if WAIT:
                arrive(counter + k % chunks)
            if (k + 1) % chunks == 0:
                source = delta + now * (PLANES * n)
    if KIND == MODRELU or KIND == COMPLEX:
        _store(by_bias + group * n, by_threshold, 0, 1, n, first, 1, 1, OWN, BLOCK)
