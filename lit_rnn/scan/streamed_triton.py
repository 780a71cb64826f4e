"""h_t = f(W h_{t-1} + u_t) and its backward as Triton kernels that read W anew at every step, for matrices too large
for registers: see `lit_rnn/scan/streamed.py`.

A program has ROWS rows of the batch for all T steps, and the columns of OWN tiles of BLOCK units of its own; the GROUP
programs of the same rows wait for one another after every step. A step reads the states that the one before wrote to
memory, and W, which stays in the L2 cache, DEEP lines at a time: (width, width), from (row) to (column). A complex W is
the real matrix of twice the width that does the same to [Re | Im].
"""

import triton
import triton.language as tl

from lit_rnn.scan.kinds_triton import COMPLEX, MODRELU, arrive, await_all, f, shrink, slope, unshrink


@triton.jit
def _times(z, x, w, rows, there, units, own, WIDTH: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr):
    """z plus rows of x times those columns of w."""
    for start in range(0, WIDTH, DEEP):
        inner = start + tl.arange(0, DEEP)
        inside = inner < WIDTH
        a = tl.load(x + rows[:, None] * WIDTH + inner[None, :], mask=there[:, None] & inside[None, :], other=0.0)
        b = tl.load(w + inner[:, None] * WIDTH + units[None, :], mask=inside[:, None] & own[None, :], other=0.0)
        z = tl.dot(a, b, z, input_precision=PRECISION, out_dtype=z.dtype)
    return z


@triton.jit
def _wait(ready, count, GROUP: tl.constexpr, WAIT: tl.constexpr):
    """What this step has written can be read by all programs of the group."""
    if GROUP > 1:
        if WAIT:
            arrive(ready)
            await_all(ready, GROUP * count)
    else:
        tl.debug_barrier()


_UNSPECIAL = ["T", "B"]
_UNALIGNED = ["bias", "ready", "u", "modulus", "each", "last", "by_bias"]


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def forward(w, u, before, bias, h, modulus, ready, T, B, n: tl.constexpr, KIND: tl.constexpr, KEEP: tl.constexpr,
            ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr,
            PRECISION: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: W^T; u, h: (T, B, width); before: (B, width); modulus: (T, B, n) where KEEP."""
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    WIDTH: tl.constexpr = PLANES * n
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    rows = group * ROWS + tl.arange(0, ROWS)
    there = rows < B
    source = before
    step = tl.full((), 1, tl.int64) * B * WIDTH
    for t in range(T):
        for i in range(OWN):
            unit = (member * OWN + i) * BLOCK + tl.arange(0, BLOCK)
            own = unit < n
            mask = there[:, None] & own[None, :]
            place = t * step + rows[:, None] * WIDTH + unit[None, :]
            x = _times(tl.load(u + place, mask=mask, other=0.0).to(w.dtype.element_ty), source, w, rows, there, unit,
                       own, WIDTH, DEEP, PRECISION)  # fmt: skip
            threshold = tl.zeros((BLOCK,), w.dtype.element_ty)
            if KIND == MODRELU or KIND == COMPLEX:
                threshold = tl.load(bias + unit, mask=own, other=0.0)
            if KIND == COMPLEX:
                y = _times(tl.load(u + place + n, mask=mask, other=0.0).to(w.dtype.element_ty), source, w, rows, there,
                           n + unit, own, WIDTH, DEEP, PRECISION)  # fmt: skip
                x, y, m = shrink(x, y, threshold[None, :])
                tl.store(h + place + n, y, mask=mask)
                if KEEP:
                    at = t * (step // 2) + rows[:, None] * n + unit[None, :]
                    tl.store(modulus + at, m, mask=mask)
            else:
                x = f(x, threshold[None, :], KIND)
            tl.store(h + place, x, mask=mask)
        source = h + t * step
        _wait(ready + group, t + 1, GROUP, WAIT)


@triton.jit(do_not_specialize=_UNSPECIAL, do_not_specialize_on_alignment=_UNALIGNED)
def backward(w, each, last, h, modulus, bias, delta, by_bias, ready, T, B, n: tl.constexpr, KIND: tl.constexpr,
             EACH: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,
             DEEP: tl.constexpr, PRECISION: tl.constexpr, WAIT: tl.constexpr):  # fmt: skip
    """w: W; each, h, delta: (T, B, width), each read where EACH; last: (B, width), by the last states, with all that
    comes through later ones; by_bias: (groups, n)."""
    PLANES: tl.constexpr = 2 if KIND == COMPLEX else 1
    WIDTH: tl.constexpr = PLANES * n
    group = tl.program_id(0) // GROUP
    member = tl.program_id(0) % GROUP
    rows = group * ROWS + tl.arange(0, ROWS)
    there = rows < B
    step = tl.full((), 1, tl.int64) * B * WIDTH
    for k in range(T):
        t = T - 1 - k
        inner = there & (k > 0)  # nothing comes through what is behind the last step
        source = delta + tl.where(k > 0, t + 1, t) * step
        for i in range(OWN):
            unit = (member * OWN + i) * BLOCK + tl.arange(0, BLOCK)
            own = unit < n
            mask = there[:, None] & own[None, :]
            place = rows[:, None] * WIDTH + unit[None, :]
            if EACH:
                direct = tl.where(k > 0, each + t * step, last)
                ours = mask
            else:
                direct = last
                ours = mask & (k == 0)
            x = _times(tl.load(direct + place, mask=ours, other=0.0), source, w, rows, inner, unit, own, WIDTH, DEEP,
                       PRECISION)  # fmt: skip
            state = tl.load(h + t * step + place, mask=mask, other=0.0)
            if KIND == COMPLEX:
                y = _times(tl.load(direct + place + n, mask=ours, other=0.0), source, w, rows, inner, n + unit, own,
                           WIDTH, DEEP, PRECISION)  # fmt: skip
                at = t * (step // 2) + rows[:, None] * n + unit[None, :]
                size = tl.load(modulus + at, mask=mask, other=1.0)
                threshold = tl.load(bias + unit, mask=own, other=0.0)
                imaginary = tl.load(h + t * step + place + n, mask=mask, other=0.0)
                x, y, along = unshrink(size, threshold[None, :], state, imaginary, x, y)
                tl.store(delta + t * step + place + n, y, mask=mask)
            else:
                x = x * slope(state, KIND)
                along = tl.where(state < 0, -x, x)
            tl.store(delta + t * step + place, x, mask=mask)
            if KIND == MODRELU or KIND == COMPLEX:
                shares = by_bias + group * n + unit
                tl.store(shares, tl.load(shares, mask=own & (k > 0), other=0.0) + tl.sum(along, axis=0), mask=own)
        _wait(ready + group, k + 1, GROUP, WAIT)
