"""What the Triton kernels of the plain recurrence do to numbers, wherever W is: `plain_triton`, `streamed_triton`.

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
MODRELU = tl.constexpr(KINDS.index("modrelu"))
COMPLEX = tl.constexpr(KINDS.index("complex modrelu"))
_LEAK, _EPS = tl.constexpr(LEAK), tl.constexpr(COMPLEX_EPS)
_TERMS = tl.constexpr(14)  # of e^x - 1 for |x| < 1/2: the rest is below 1e-16


@triton.jit
def _expm1(x):
    series = tl.full(x.shape, 1.0, x.dtype)
    for i in tl.static_range(_TERMS - 1):
        series = series * x / (_TERMS - i) + 1
    return tl.where((x > -0.5) & (x < 0.5), series * x, tl.exp(x) - 1)


@triton.jit
def f(z, bias, KIND: tl.constexpr):
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
    elif KIND == MODRELU:
        modulus = tl.abs(z) + bias
        modulus = tl.where(modulus < 0, tl.zeros_like(z), modulus)
        z = tl.where(z == 0, tl.zeros_like(z), tl.where(z < 0, -modulus, modulus))
    return z


@triton.jit
def slope(h, KIND: tl.constexpr):
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
    elif KIND == MODRELU:
        one = tl.where(h != 0, one, tl.zeros_like(h))
    return one


@triton.jit
def shrink(x, y, b):
    """Complex modReLU of x + iy with threshold b, and the modulus."""
    m = tl.sqrt(x * x + y * y + tl.full(x.shape, _EPS, x.dtype))
    grown = m + b
    s = tl.where(grown < 0, tl.zeros_like(m), grown) / m
    return x * s, y * s, m


@triton.jit
def unshrink(m, b, x, y, gx, gy):
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
def summed(through, direct, both):
    """Of the gradients through later steps, where there are any, and at this one."""
    return tl.where(both, through, tl.zeros_like(through)) + direct


@triton.jit
def arrive(ready):
    """What this program has written until now can be read by those who `await_all`."""
    tl.debug_barrier()
    tl.atomic_add(ready, 1, sem="release")


@triton.jit
def await_all(ready, count):
    """Until ``count`` programs have arrived."""
    while tl.atomic_add(ready, 0, sem="acquire") < count:
        pass
    tl.debug_barrier()
