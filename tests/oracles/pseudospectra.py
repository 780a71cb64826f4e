"""Pseudospectra by other ways than the library's; nothing here uses the functions under test.

- closed forms, for 2 x 2 and nilpotent Jordan blocks, normal matrices and unitarily rotated direct sums of them;
- sigma_min(z I - W) = 1 / |(z I - W)^-1|, inverted in ball arithmetic: right to all digits where float64 has none;
- the smallest singular value over a whole circle |z| = r, or a line Re z = x. By the maximum principle it grows
  strictly with r > rho (x > alpha), so that it equals eps at the pseudospectral radius (abscissa) and nowhere else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flint
import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from tests.oracles.spectra import Matrix, chain, dense_sigma, gaussian, grcar, jordan, norm, shift, unitary


def nonnegative(n: int, seed: int, radius: float) -> Matrix:
    W = np.random.default_rng(seed).random((n, n)) ** 4
    return W * radius / np.abs(np.linalg.eigvals(W)).max()


def triangular(n: int, seed: int) -> Matrix:
    """Strongly non-normal and stable."""
    rng = np.random.default_rng(seed)
    return np.diag(rng.uniform(-0.8, 0.8, n)) + np.triu(rng.standard_normal((n, n)), 1) / math.sqrt(n)


# spectra, sizes and degrees of non-normality of many kinds; each is small enough for brute force
GENERAL: dict[str, Matrix] = {
    "1x1": np.array([[-0.7]]),
    "1x1 complex": np.array([[0.3 - 0.4j]]),
    "gaussian 2": gaussian(2, 0),
    "gaussian 5": gaussian(5, 1),
    "gaussian 20": gaussian(20, 2),
    "complex gaussian 3": gaussian(3, 3, True),
    "complex gaussian 12": gaussian(12, 4, True),
    "triangular 8": triangular(8, 5),
    "triangular 15": triangular(15, 6),
    "grcar 10": grcar(10),
    "i grcar 8": 1j * grcar(8),
    "defective pair": scipy.linalg.block_diag(jordan(3, 0.5j, 2.0), jordan(2, -0.6, 1.0)),
    "rank one": np.outer(np.arange(1.0, 7.0), [1.0, -1.0, 2.0, 0.5, 0.0, -0.3]) / 10,
    "real rotation and shear": scipy.linalg.block_diag([[0.0, -0.9], [0.9, 0.0]], [[0.2, 3.0], [0.0, 0.1]]),
    "companion": np.eye(6, k=-1) + np.outer(np.eye(6)[0], [0.3, -0.2, 0.5, 0.1, -0.4, 0.6]),
}


def exact(W: Matrix, z: complex) -> float:
    """The same with every digit right, by inversion in ball arithmetic."""
    before, flint.ctx.prec = flint.ctx.prec, 512  # bits
    try:
        A = complex(z) * np.eye(len(W)) - W.astype(complex)
        inverse = flint.acb_mat([[flint.acb(v.real, v.imag) for v in row] for row in A.tolist()]).inv()
        return 1 / norm(np.array([[complex(v) for v in row] for row in inverse.tolist()]))
    finally:
        flint.ctx.prec = before


def lowest(f: Callable[[NDArray[np.float64]], NDArray[np.float64]], grid: NDArray[np.float64]) -> float:
    """The global minimum of f over a grid's range, its deepest local minima on the grid refined."""
    values = f(grid)
    inner = 1 + np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:]))
    best = float(values.min())
    for i in inner[np.argsort(values[inner])][:4]:
        found = scipy.optimize.minimize_scalar(
            lambda t: float(f(np.array([t]))[0]),
            bounds=(grid[i - 1], grid[i + 1]),
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = min(best, float(found.fun))
    return best


def on_circle(W: Matrix, r: float) -> float:
    half = not np.iscomplexobj(W)
    # a step beyond both ends, so that a minimum at an end is an inner one
    grid = np.linspace(-0.05, (math.pi if half else 2 * math.pi) + 0.05, 181 if half else 361)
    return lowest(lambda angle: dense_sigma(W, r * np.exp(1j * angle)), grid)


def on_line(W: Matrix, x: float, reach: float) -> float:
    grid = np.linspace(-0.05 if not np.iscomplexobj(W) else -reach, reach, 301)
    return lowest(lambda y: dense_sigma(W, x + 1j * y), grid)


def direct_sum(blocks: list[tuple[complex, float]]) -> Matrix:
    """2 x 2 Jordan blocks (eigenvalue, coupling)."""
    return scipy.linalg.block_diag(*(jordan(2, z, c) for z, c in blocks))


def disk(c: float, eps: float) -> float:
    """The radius of the eps-pseudospectrum of [[l, c], [0, l]], a disk about l."""
    return math.sqrt(eps**2 + eps * c)


def sigma_jordan(c: float, distance: Any) -> Any:
    """(sqrt(c^2 + 4 d^2) - c) / 2 without its cancellation."""
    return 2 * distance**2 / (np.sqrt(c**2 + 4 * distance**2) + c)


def kreiss_jordan(modulus: float, c: float) -> float:
    d = 1 - modulus
    return c / (4 * d) + d / c if c > 2 * d else 1.0


NORMAL: dict[str, Matrix] = {
    "shift 10": shift(10),
    "shift 100": shift(100),
    "orthogonal 20": unitary(20, 7),
    "unitary 33": unitary(33, 8, True),
    "diagonal": np.diag([0.9, -0.5, 0.3j, 0.2 + 0.1j]),
    "symmetric": gaussian(12, 9) + gaussian(12, 9).T,
    "scaled rotation": 0.9 * np.array([[0.5, -math.sqrt(0.75)], [math.sqrt(0.75), 0.5]]),
    "identity": np.eye(7),
    "zero": np.zeros((4, 4)),
    "1x1": np.array([[2.0 - 1.0j]]),
}


# one block has the dominant eigenvalue, another one the larger pseudospectrum
SUMS: dict[str, list[tuple[complex, float]]] = {
    "behind the dominant eigenvalue": [(0.8, 0.0), (-0.3, 5.0)],
    "at an angle": [(0.7, 0.1), (0.5j, 1.5), (-0.6 + 0.2j, 0.4)],
    "equal moduli": [(0.6 * np.exp(2j * math.pi * k / 5), 0.2 * k) for k in range(5)],
    "many": [(0.95 * np.exp(1j * k) * (k / 50) ** 0.5, 0.02 * k) for k in range(50)],
    "far left": [(-0.9, 0.0), (0.1, 0.5), (0.0, 0.0)],
}


def stable(name: str) -> Matrix:
    W = GENERAL[name]
    return W * 0.8 / max(0.8, abs(np.linalg.eigvals(W)).max())


FBCHAIN = chain(100, 0.99, 0.04)


# inside, on and outside of the ellipse alpha e^{i t} + beta e^{-i t} that the pseudospectra fill
POINTS = np.array([0.2, 0.398, 0.739, 0.9, 1.0, 1.02, 1.05, 1.3, 0.5j, 0.94j, 0.99j, 0.7 + 0.5j, -1.0 + 0.2j])


@functools.cache
def fbchain_truth() -> NDArray[np.float64]:
    return np.array([exact(FBCHAIN, z) for z in POINTS])
