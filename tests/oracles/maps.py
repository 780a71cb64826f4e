"""Constrained matrices rebuilt from their free numbers, densely, in float64 and complex128.

Cayley by the explicit inverse, reflections and rotations one full matrix at a time. A skew A holds its free numbers
above the diagonal row by row; a skew-Hermitian A = S + iH also those of the symmetric H, on and above the diagonal.

scoRNN's gradient by hand. With W = (I+A)^-1 (I-A) D,
    dW = -(I+A)^-1 dA (I+A)^-1 (I-A) D - (I+A)^-1 dA D = -(I+A)^-1 dA (W + D),
so dl = <G, dW> = -<V, dA> with V = (I+A)^-T G (D + W^T), G = dl/dW. A free number a_ij (i < j) sits at (i, j) and,
negated, at (j, i), hence dl/da_ij = (V^T - V)_ij: the paper's formula. It never says on which side W meets h; that is
in G alone. In the released code's order the column matrix is M = W^T, so there G = (dl/dM)^T.

scuRNN's. Torch leaves dl/dRe W + i dl/dIm W in W.grad, which is 2 conj(G) for the papers' halved, conjugate form
G = (dl/dRe W - i dl/dIm W) / 2, with which dl = 2 Re tr(G^T dW). With D = diag(d), d = e^{i theta},
Z = (I+A)^-1 (I-A), W = Z D,
    dW = -(I+A)^-1 dA (W + D) + Z i diag(d dtheta),
so dl = -2 Re tr(U^T dA) + 2 Re(i diag(G^T Z) d) . dtheta, with U = (I+A)^-T G (D + W^T). Put dA = dS + i dH and let
g = U^T - conj(U), the paper's dl/dA: the numbers of S have 2 Re g_ij, those of H off the diagonal 2 Im g_ij, where two
entries of A move, and those on it Im g_ii, where one does.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg

Array = np.ndarray
Numbers = dict[str, Array]
Layers = list[list[tuple[int, int]]]

# the pairs of every layer, by hand
EVEN_8, ODD_8 = [(0, 1), (2, 3), (4, 5), (6, 7)], [(1, 2), (3, 4), (5, 6)]
TUNABLE: dict[int, Layers] = {
    2: [[(0, 1)], []],
    4: [[(0, 1), (2, 3)], [(1, 2)], [(0, 1), (2, 3)], [(1, 2)]],
    6: [[(0, 1), (2, 3), (4, 5)], [(1, 2), (3, 4)], [(0, 1), (2, 3), (4, 5)], [(1, 2), (3, 4)]],
    8: [EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8],
}
FFT: dict[int, Layers] = {
    2: [[(0, 1)]],
    4: [[(0, 1), (2, 3)], [(0, 2), (1, 3)]],
    8: [EVEN_8, [(0, 2), (1, 3), (4, 6), (5, 7)], [(0, 4), (1, 5), (2, 6), (3, 7)]],
}


# -- generators ------------------------------------------------------------------------------------


def half(n: int) -> int:
    """How many numbers stand above the diagonal."""
    return n * (n - 1) // 2


def skew_matrix(free: Array, n: int) -> Array:
    A = np.zeros((n, n))
    A[np.triu_indices(n, 1)] = free
    return A - A.T


def free_part(M: Array) -> Array:
    """From what a skew A's entries have to what its free numbers have."""
    return (M - M.T)[np.triu_indices(len(M), 1)]


def generator(p: Numbers, n: int) -> Array:
    """Skew, or skew-Hermitian where there are numbers of H."""
    A = skew_matrix(p["skew"], n)
    if "symmetric" not in p:
        return A
    H = np.zeros((n, n))
    H[np.triu_indices(n)] = p["symmetric"]
    return A + 1j * (H + np.triu(H, 1).T)


def free_of(A: Array) -> Numbers:
    """The numbers of a skew-Hermitian A, the other way round."""
    n = len(A)
    return {"skew": A.real[np.triu_indices(n, 1)], "symmetric": A.imag[np.triu_indices(n)]}


def random_rotation(n: int, rng: np.random.Generator) -> Array:
    return linalg.expm(skew_matrix(rng.normal(size=half(n)), n))


def random_orthogonal(n: int, seed: int, det: int = 1) -> Array:
    """A generic element of one component of O(n)."""
    Q = random_rotation(n, np.random.default_rng(seed))
    Q[:, 0] *= det
    return Q


def random_unitary(n: int, seed: int | np.random.Generator) -> Array:
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]


def defect(W: Array) -> float:
    """max |W^H W - I|."""
    return float(np.abs(W.conj().T @ W - np.eye(len(W))).max())


def angles_of(W: Array) -> Array:
    """One angle of each conjugate pair, in [0, pi], sorted; n even."""
    return np.sort(np.abs(np.angle(linalg.eigvals(W))))[::2]


# -- maps of generators ----------------------------------------------------------------------------


def exponential_dense(p: Numbers, n: int) -> Array:
    return p.get("base", np.eye(n)) @ linalg.expm(generator(p, n))


def cayley_of(A: Array) -> Array:
    eye = np.eye(len(A))
    return np.linalg.inv(eye + A) @ (eye - A)


def cayley_dense(p: Numbers, n: int) -> Array:
    return p.get("base", np.eye(n)) @ cayley_of(generator(p, n))


def signs_of(n: int, negatives: int) -> Array:
    return np.diag([1.0] * (n - negatives) + [-1.0] * negatives)


def scaled_dense(p: Numbers, n: int, negatives: int | None = None, released: bool = False) -> Array:
    """Z D, or D Z^T as released; D has phases where there are some, and signs where not."""
    D = np.diag(np.exp(1j * p["phase"])) if "phase" in p else signs_of(n, n // 2 if negatives is None else negatives)
    W = cayley_of(generator(p, n)) @ D
    return W.T if released else W


def cayley_gradient(G: Array, A: Array, D: Array) -> Array:
    """(I+A)^-T G (D + W^T) of W = (I+A)^-1 (I-A) D."""
    return np.linalg.inv(np.eye(len(A)) + A).T @ G @ (D + (cayley_of(A) @ D).T)


def scornn_gradient(A: Array, D: Array, G: Array) -> Array:
    """(V^T - V)_ij for i < j: see the top of this file."""
    return -free_part(cayley_gradient(G, A, D))


def scurnn_gradient(p: Numbers, G: Array) -> Numbers:
    """From G in the halved, conjugate form to the free numbers: see the top of this file."""
    n = len(G)
    A, d = generator(p, n), np.exp(1j * p["phase"])
    U = cayley_gradient(G, A, np.diag(d))
    g = U.T - U.conj()
    return {
        "skew": 2 * g.real[np.triu_indices(n, 1)],
        "symmetric": ((2 - np.eye(n)) * g.imag)[np.triu_indices(n)],
        "phase": 2 * (1j * np.diag(G.T @ cayley_of(A)) * d).real,
    }


# -- products --------------------------------------------------------------------------------------


def reflection(v: Array) -> Array:
    return np.eye(len(v)) - 2 * np.outer(v, v.conj()) / np.vdot(v, v).real


def reflectors_of(free: Array, n: int, m: int) -> list[Array]:
    """u_1, ..., u_m: u_k is zero above row k and takes the next n - k + 1 free numbers."""
    vectors, taken = [], 0
    for k in range(m):
        vectors.append(np.concatenate([np.zeros(k), free[taken : taken + n - k]]))
        taken += n - k
    assert taken == len(free) == m * n - m * (m - 1) // 2
    return vectors


def householder_dense(p: Numbers, n: int, m: int | None = None) -> Array:
    W = np.eye(n)
    for u in reflectors_of(p["vectors"], n, n if m is None else m):
        W = W @ reflection(u)
    return W


def rotations_dense(p: Numbers, n: int, layers: Layers) -> Array:
    """L_last ... L_1 L_0, each rotation as a full matrix [[cos, -sin], [sin, cos]] on rows and columns i, j.

    Complex where there are phases: [[e^{i phi} cos, -sin], [e^{i phi} sin, cos]], and diag(e^{i omega}) at last.
    """
    phases = np.exp(1j * p["phi"]) if "phi" in p else np.ones(len(p["theta"]))
    W, number = np.eye(n, dtype=phases.dtype), 0
    for layer in layers:
        for i, j in layer:
            R = np.eye(n, dtype=phases.dtype)
            c, s, turn = math.cos(p["theta"][number]), math.sin(p["theta"][number]), phases[number]
            R[i, i], R[i, j], R[j, i], R[j, j] = turn * c, -s, turn * s, c
            W = R @ W
            number += 1
    assert number == len(p["theta"]) == len(phases)
    return np.diag(np.exp(1j * p["omega"])) @ W if "omega" in p else W


def restricted_dense(p: Numbers, n: int) -> Array:
    """D3 R2 F^-1 D2 Pi R1 F D1, every factor written out."""
    D1, D2, D3 = (np.diag(np.exp(1j * w)) for w in p["phases"])
    R1, R2 = (reflection(re + 1j * im) for re, im in p["reflections"])
    k = np.arange(n)
    F = np.exp(-2j * math.pi * np.outer(k, k) / n) / math.sqrt(n)
    Pi = np.zeros((n, n))
    Pi[k, p["permutation"]] = 1  # (Pi x)[i] = x[p[i]]
    return D3 @ R2 @ F.conj().T @ D2 @ Pi @ R1 @ F @ D1


def schur_dense(p: Numbers, n: int, released: bool = False) -> Array:
    """P (Theta + T) P^T with Theta = blockdiag(gamma_i R(theta_i)) and T above its 2x2 blocks, row by row.

    The released T is the strict upper triangle, added to Theta.
    """
    inner = np.zeros((n, n))
    for k in range(n // 2):
        c, s = math.cos(p["angles"][k]), math.sin(p["angles"][k])
        inner[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = p["gains"][k] * np.array([[c, -s], [s, c]])
    free = iter(p["upper"])
    for i in range(n):
        for j in range(i + 1 if released else 2 * (i // 2) + 2, n):
            inner[i, j] += next(free)
    assert next(free, None) is None
    P = linalg.expm(skew_matrix(p["basis.skew"], n))
    return P @ inner @ P.T
