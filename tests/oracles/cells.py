"""Recurrences over time, in float64 and complex128: h_t = f(W h_{t-1} + V x_t + b), one sample or one step at a time.

Weights are given by the names that they have in a cell, W by hand where a map makes it (`tests.oracles.maps`). Each
returns the outputs and the last state; those with a kink also how near any unit came to it.

The gated cells stand once more in test_gated_by_the_papers.py, on purpose: written from the papers by someone who had
seen neither this file nor the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.oracles.maps import Array, Numbers

States = tuple[Array, ...]


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


NONLINEARITIES: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z < 0, 0.1 * z, z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "identity": lambda z: z,
}


def modrelu_rnn(p: Numbers, W: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """Real. Also how near any unit came to the jump at 0 or the corner at -b."""
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        z = np.stack([W @ h[k] + p["input.weight"] @ x_t[k] for k in range(len(h))])
        margin = min(margin, np.abs(z).min(), np.abs(np.abs(z) + b).min())
        h = np.sign(z) * np.maximum(np.abs(z) + b, 0)
        out.append(h)
    return np.stack(out), h, margin


def complex_rnn(p: Numbers, W: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """z relu(r + b) / r with r = sqrt(re^2 + im^2 + 1e-5), one modulus in both places; smooth but where r = -b."""
    n = len(W)
    V = p["input.weight"][:n] + 1j * p["input.weight"][n:]
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        z = np.stack([W @ h[k] + V @ x_t[k] for k in range(len(h))])
        r = np.sqrt(z.real**2 + z.imag**2 + 1e-5)
        margin = min(margin, np.abs(r + b).min())
        h = z * np.maximum(r + b, 0) / r
        out.append(h)
    return np.stack(out), h, margin


def goru(p: Numbers, Q: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """r, g = sigmoid(W h + U x + b); c = modReLU(r * (Q h) + U_c x; b_c); h' = g h + (1 - g) c. Order r, g, c."""
    n = len(Q)
    W_r, W_g = p["gates.weight"][:n], p["gates.weight"][n:]
    b_r, b_g = p["gates.bias"][:n], p["gates.bias"][n:]
    U_r, U_g, U_c = np.split(p["input.weight"], 3)
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        rows = []
        for k in range(len(h)):
            r = sigmoid(W_r @ h[k] + U_r @ x_t[k] + b_r)
            g = sigmoid(W_g @ h[k] + U_g @ x_t[k] + b_g)
            z = r * (Q @ h[k]) + U_c @ x_t[k]
            margin = min(margin, np.abs(z).min(), np.abs(np.abs(z) + b).min())
            rows.append(g * h[k] + (1 - g) * np.sign(z) * np.maximum(np.abs(z) + b, 0))
        h = np.stack(rows)
        out.append(h)
    return np.stack(out), h, margin


def vanilla_rnn(p: Numbers, x: Array, state: States, nonlinearity: str) -> tuple[Array, States, float]:
    (h,) = state
    out, margin = [], math.inf
    for x_t in x:
        z = (
            np.stack([p["recurrent.weight"] @ h[k] + p["input.weight"] @ x_t[k] for k in range(len(h))])
            + p["input.bias"]
        )
        margin = min(margin, np.abs(z).min())
        h = NONLINEARITIES[nonlinearity](z)
        out.append(h)
    return np.stack(out), (h,), margin


def lstm(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    """i, f, o = sigmoid, g = tanh of W x + R h + b, gates stacked i, f, g, o; c = f c + i g; h = o tanh(c).

    Peepholes (Graves 2013) add w_i c and w_f c of the old c, w_o c of the new; an output matrix adds V_o c of the new.
    """
    h, c = state
    w_i, w_f, w_o = p.get("peephole", np.zeros((3, h.shape[1])))
    out = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ p["input.weight"].T + h @ p["recurrent.weight"].T + p["input.bias"], 4, axis=1)
        c = sigmoid(f + w_f * c) * c + sigmoid(i + w_i * c) * np.tanh(g)
        h = sigmoid(o + (c @ p["output.weight"].T if "output.weight" in p else w_o * c)) * np.tanh(c)
        out.append(h)
    return np.stack(out), (h, c)


def gru(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    """r, z = sigmoid(W x + R h + b); h = (1 - z) n + z h. Order r, z, n.

    n = tanh(W_n x + b_n + r * (R_n h + b_hn)) where there is a b_hn, and tanh(W_n x + b_n + R_n (r * h)) where not.
    """
    (h,) = state
    W, R, b = (np.split(p[k], 3) for k in ("input.weight", "recurrent.weight", "input.bias"))
    out = []
    for x_t in x:
        r, z = (sigmoid(x_t @ W[k].T + h @ R[k].T + b[k]) for k in range(2))
        inner = r * (h @ R[2].T + p["candidate_bias"]) if "candidate_bias" in p else (r * h) @ R[2].T
        h = (1 - z) * np.tanh(x_t @ W[2].T + b[2] + inner) + z * h
        out.append(h)
    return np.stack(out), (h,)
