"""Optimizers' steps in NumPy: the elementwise rules of released code, and steps on O(n) and U(n).

For a real function f of W and torch's gradient G = df/dRe W + i df/dIm W, the derivative of f along X is Re tr(G^H X).
The tangent space at W is {Omega W : Omega = -Omega^H}, and the gradient is the tangent vector that stands for that
derivative in the metric: Re tr(X^H Y), or the canonical Re tr(X^H (I - W W^H / 2) Y), which is half of it here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from tests.oracles.maps import Array

Rule = Callable[[Array, Array], Array]


# -- elementwise rules; real and imaginary parts are numbers of their own ---------------------------


@dataclass
class RMSProp:
    """v <- rho v + (1 - rho) g^2, mom <- momentum mom + lr g / (sqrt(v + inside) + outside), p <- p - mom."""

    lr: float
    start: float
    inside: Any = 0.0
    outside: float = 0.0
    rho: float = 0.9
    momentum: float = 0.0
    v: Any = None
    moved: Any = 0.0

    def scaled(self, g: Array) -> Array:
        flat = np.ascontiguousarray(g).view(np.float64)
        self.v = self.rho * (self.start if self.v is None else self.v) + (1 - self.rho) * flat**2
        return (flat / (np.sqrt(self.v + self.inside) + self.outside)).view(g.dtype).reshape(g.shape)

    def __call__(self, p: Array, g: Array) -> Array:
        self.moved = self.momentum * self.moved + self.lr * self.scaled(g)
        return p - self.moved


tensorflow_rmsprop = functools.partial(RMSProp, start=1.0, inside=1e-10)
theano_rmsprop = functools.partial(RMSProp, start=1e-3)
keras_rmsprop = functools.partial(RMSProp, start=0.0, outside=1e-8)


@dataclass
class TensorflowAdagrad:
    """v <- v + g^2 from 0.1, p <- p - lr g / sqrt(v)."""

    lr: float
    v: Any = 0.1

    def __call__(self, p: Array, g: Array) -> Array:
        self.v = self.v + g**2
        return p - self.lr * g / np.sqrt(self.v)


@dataclass
class TensorflowAdam:
    """p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + 1e-8)."""

    lr: float
    b1: float = 0.9
    b2: float = 0.999
    t: int = 0
    m: Any = 0.0
    v: Any = 0.0

    def __call__(self, p: Array, g: Array) -> Array:
        flat = np.ascontiguousarray(g).view(np.float64)
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * flat
        self.v = self.b2 * self.v + (1 - self.b2) * flat**2
        rate = self.lr * np.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t)
        return p - (rate * self.m / (np.sqrt(self.v) + 1e-8)).view(g.dtype).reshape(g.shape)


# -- steps on O(n) and U(n) --------------------------------------------------------------------------


def normal(rng: np.random.Generator, n: int, is_complex: bool) -> Array:
    M = rng.normal(size=(n, n))
    return M + 1j * rng.normal(size=(n, n)) if is_complex else M


def adjoint(M: Array) -> Array:
    return M.conj().T


def skew(M: Array) -> Array:
    return (M - adjoint(M)) / 2


def random_skew(rng: np.random.Generator, n: int, is_complex: bool, norm: float = 1.0) -> Array:
    """With the given spectral norm, which is the largest angle of its exponential."""
    Omega = skew(normal(rng, n, is_complex))
    size = np.linalg.norm(Omega, 2)
    return Omega * (norm / size) if size else Omega


def random_point(rng: np.random.Generator, n: int, is_complex: bool, det: int = 1) -> Array:
    """Haar; over the reals with the determinant asked for."""
    Q, R = np.linalg.qr(normal(rng, n, is_complex))
    Q = Q * (np.diag(R) / abs(np.diag(R)))
    if not is_complex and np.linalg.det(Q) * det < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def inner(X: Array, Y: Array) -> float:
    return float(np.sum(X.conj() * Y).real)


def metric_at(metric: str, W: Array, X: Array, Y: Array) -> float:
    if metric == "euclidean":
        return inner(X, Y)
    return inner(X, Y - W @ adjoint(W) @ Y / 2)


def skew_basis(n: int, is_complex: bool) -> list[Array]:
    """n(n-1)/2 skew-symmetric matrices, or the n^2 of u(n)."""
    basis = []
    for i in range(n):
        for j in range(i):
            E = np.zeros((n, n), dtype=complex if is_complex else float)
            E[i, j], E[j, i] = 1, -1
            basis.append(E)
            if is_complex:
                basis.append(1j * abs(E))
        if is_complex:
            basis.append(1j * np.diag(np.eye(n)[i]))
    return basis


def gradient_by_linear_algebra(W: Array, G: Array, metric: str) -> Array:
    """The X = sum_k c_k E_k W with <X, E_l W>_metric = Re tr(G^H E_l W) for every l."""
    tangents = [E @ W for E in skew_basis(len(W), np.iscomplexobj(W))]
    if not tangents:
        return np.zeros_like(W)
    gram = np.array([[metric_at(metric, W, X, Y) for Y in tangents] for X in tangents])
    c = np.linalg.solve(gram, [inner(G, X) for X in tangents])
    return sum((c_k * X for c_k, X in zip(c, tangents, strict=True)), np.zeros_like(W))


def retract_by_hand(W: Array, Omega: Array, retraction: str) -> Array:
    eye = np.eye(len(W))
    if retraction == "exp":
        return linalg.expm(Omega) @ W
    if retraction == "cayley":
        return np.linalg.inv(eye - Omega / 2) @ (eye + Omega / 2) @ W
    M = W + Omega @ W
    if retraction == "qr":  # R^H is the Cholesky factor of M^H M, and its diagonal is positive
        return M @ np.linalg.inv(adjoint(np.linalg.cholesky(adjoint(M) @ M)))
    values, vectors = np.linalg.eigh(adjoint(M) @ M)
    return M @ vectors @ np.diag(values**-0.5) @ adjoint(vectors)


class ByHand:
    """The steps of the three optimizers, one matrix, in NumPy."""

    def __init__(self, name: str, metric: str, retraction: str, options: dict[str, Any]) -> None:
        self.rule = name.split("-")[0]
        self.factor = {"euclidean": 0.5, "canonical": 1.0}[metric]
        self.retraction, self.options = retraction, options
        self.Omega: Any = 0.0
        self.second: Any = 0.0
        self.steps = 0

    def generator(self, W: Array, G: Array) -> Array:
        return self.factor * (G @ adjoint(W) - W @ adjoint(G))

    def step(self, W: Array, G: Array) -> Array:
        options = self.options
        self.steps += 1
        if self.rule == "SGD":
            self.Omega = options.get("momentum", 0.0) * self.Omega + self.generator(W, G)
            move = self.Omega
        elif self.rule == "RMSprop":
            self.second = options["alpha"] * self.second + (1 - options["alpha"]) * abs(G) ** 2
            move = self.generator(W, G / (np.sqrt(self.second) + options["eps"]))
        else:
            beta1, beta2 = options["betas"]
            gradient = self.generator(W, G)
            self.Omega = beta1 * self.Omega + (1 - beta1) * gradient
            self.second = beta2 * self.second + (1 - beta2) * inner(gradient @ W, gradient @ W)
            mean = self.Omega / (1 - beta1**self.steps)
            move = mean / (math.sqrt(self.second / (1 - beta2**self.steps)) + options["eps"])
        return retract_by_hand(W, -options["lr"] * move, self.retraction)


class Problem:
    """f(W) = 1/2 |A W B - C|^2, whose torch gradient is A^H (A W B - C) B^H."""

    def __init__(self, n: int, is_complex: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.A, self.B, self.C = (normal(rng, n, is_complex) for _ in range(3))
        self.start = random_point(rng, n, is_complex)
        self.tensors = [torch.tensor(M) for M in (self.A, self.B, self.C)]

    def gradient(self, W: Array) -> Array:
        return adjoint(self.A) @ (self.A @ W @ self.B - self.C) @ adjoint(self.B)

    def loss(self, W: Tensor) -> Tensor:
        A, B, C = self.tensors
        return 0.5 * (A @ W @ B - C).abs().square().sum()


@dataclass
class CayleyStep:
    """Wisdom et al.: Omega = G W* - W G*, W <- (I + lr/2 Omega)^-1 (I - lr/2 Omega) W; G over its RMS first, if any."""

    lr: float
    rms: RMSProp | None = None

    def step(self, W: Array, G: Array) -> Array:
        G = G if self.rms is None else self.rms.scaled(G)
        half = self.lr / 2 * (G @ W.conj().T - W @ G.conj().T)
        eye = np.eye(len(W))
        return np.linalg.inv(eye + half) @ (eye - half) @ W


# -- torch's side ----------------------------------------------------------------------------------


def parameter(W: Array) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(W))


def on_manifold(*parameters: torch.nn.Parameter, **options: Any) -> list[dict[str, Any]]:
    return [{"params": list(parameters), "manifold": True, **options}]


def array(W: Tensor) -> Array:
    return W.detach().numpy().copy()


def distance(a: Any, b: Any) -> float:
    return float(abs(np.asarray(a) - np.asarray(b)).max())


def drift(W: Tensor) -> float:
    M = W.detach().numpy().astype(np.complex128)
    return distance(adjoint(M) @ M, np.eye(len(M)))


def run(
    optimizer: torch.optim.Optimizer, W: Tensor, loss: Callable[[Tensor], Tensor], steps: int, decay: float = 1.0
) -> None:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(W).backward()
        optimizer.step()
        schedule.step()
