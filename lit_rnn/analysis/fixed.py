"""Where a driven recurrence stands still: fixed and slow points of a step map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import require, whole
from lit_rnn.analysis.arrays import Complex, Real, array
from lit_rnn.analysis.eigen import eigenvalues
from lit_rnn.analysis.steps import StepMap
from lit_rnn.cells import Cell

_FIXED = 1e-8  # of a point's own norm, or of 1 if that is more: below it a speed is zero
_SETTLED = 1e-13  # likewise: there is nothing left to gain
_APART = 1e-3  # of the spread of the starts: closer points are one
_ON_CIRCLE = 1e-6
_PATIENCE = 50  # iterations in which a search has to halve the speed, or its longest step
_LEAST, _MOST = 1e-12, 1e12  # of the damping, relative to the curvature


class FixedPoints(NamedTuple):
    """P points, the slowest first."""

    points: Real  # (P, N), flat joint states
    speed: Real  # (P,), |F(s, x) - s|
    fixed: NDArray[np.bool_]  # (P,), whether that is zero up to rounding
    eigenvalues: Complex  # (P, N), of dF/ds there
    starts: NDArray[np.int64]  # (P,), how many starts ended there

    @property
    def growing(self) -> NDArray[np.int64]:
        """(P,), in how many directions small differences grow: eigenvalues outside the unit circle."""
        return (np.abs(self.eigenvalues) > 1 + _ON_CIRCLE).sum(1)

    @property
    def kinds(self) -> list[str]:
        """Of each point: ``slow``, or of a fixed one ``stable`` (all eigenvalues inside the unit circle), ``unstable``
        (one is outside) or ``marginal`` (the largest is on it, up to 1e-6): not told by the Jacobian, as on a line of
        fixed points.
        """
        largest = np.abs(self.eigenvalues).max(1, initial=0.0)
        names = np.where(largest > 1 + _ON_CIRCLE, "unstable", np.where(largest < 1 - _ON_CIRCLE, "stable", "marginal"))
        return [str(name) for name in np.where(self.fixed, names, "slow")]


def fixed_points(
    cell: Cell,
    x: ArrayLike | Tensor,
    starts: ArrayLike | Tensor,
    iterations: int = 500,
    slow: float = 0.1,
    most: int = 32,
) -> FixedPoints:
    """Fixed and slow points of s -> F(s, x) under an input that is held: minima of |F(s, x) - s|^2.

    From every start at once, in float64, by Levenberg and Marquardt's damped Gauss-Newton steps

        (A^T A + mu I) d = -A^T r,  r = F(s) - s,  A = dF/ds - I,

    which are taken where they lower |r|, and damped more where they do not. Whether a point is stable does not matter
    to them, so that saddles are found as well. Points that differ by less than a thousandth of the starts' spread (root
    mean square distance from their mean) are one. A minimum with |r| > 0 is a slow point: the state drifts by. A search
    that in 50 iterations halves neither |r| nor its longest step is given up: it goes down a valley without end, such
    as sLSTM's where its stabiliser grows. What it, or a search at the limit of iterations, has come to is no minimum,
    and is dropped.

    Args:
        cell: Any cell; it is copied.
        x: (I,), the input that is held.
        starts: (S, N), flat joint states to start from, such as visited ones; see `flat_state`.
        iterations: At most so many.
        slow: Points that are no fixed points and faster than this times the median speed at the starts are dropped.
        most: Of the points, the most that are kept: those that most starts came to.

    Raises:
        UserError: for an x or starts of other shapes, or not finite.

    Cost of an iteration: S N steps of the cell, forward and backward, and S solves of order N. Source: Sussillo and
    Barak 2013, "Opening the Black Box", who minimise the same function (there by a Gauss-Newton method with a trust
    region).
    """
    held, s = torch.from_numpy(array(x, "x")), torch.from_numpy(array(starts, "starts"))
    iterations, most = whole(iterations, "iterations", 1), whole(most, "most")
    accepted = f"a vector ({cell.input_size},), as wide as the cell's input"
    require(held.shape == (cell.input_size,), "x", f"an array of shape {tuple(held.shape)}", accepted)
    F = StepMap(cell)
    N = F.start(1).shape[1]
    ok = s.ndim == 2 and len(s) > 0 and s.shape[1] == N
    require(ok, "starts", f"an array of shape {tuple(s.shape)}", f"states (S, {N}), at least one")
    u = F.drive(held[None, None])[0]
    before = (F(u.expand(len(s), *u.shape[1:]), s) - s).detach().norm(dim=1)
    found, speed, J, ended = _minima(F, u, s, iterations)
    scale = found.norm(dim=1).clamp(min=1)
    taken = (speed <= _FIXED * scale) | (ended & (speed <= slow * before.median()))
    spread = float((s - s.mean(0)).square().sum(1).mean().sqrt()) or 1.0
    kept, counts = _distinct(found, speed, taken.numpy(), _APART * spread)
    chosen = np.argsort(-counts, kind="stable")[:most]
    chosen = np.sort(chosen)  # slowest first, as they are
    kept, counts = kept[chosen], counts[chosen]
    values = [eigenvalues(J[place].numpy()) for place in kept]
    return FixedPoints(
        found[kept].numpy(),
        speed[kept].numpy(),
        (speed <= _FIXED * scale)[kept].numpy(),
        np.stack(values) if values else np.empty((0, N), np.complex128),
        counts,
    )


def _minima(F: StepMap, u: Tensor, starts: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each start came to, the speed there, dF/ds there, and whether the search was at its end."""
    s = starts.clone()
    f, J = F.with_jacobian(u.expand(len(s), *u.shape[1:]), s)
    eye = torch.eye(s.shape[1], dtype=s.dtype)
    r, mu, at_work = f - s, s.new_full((len(s),), 1e-3), torch.ones(len(s), dtype=torch.bool)
    given_up, last = torch.zeros_like(at_work), torch.full_like(mu, torch.inf)
    longest, longest_before = torch.full_like(mu, torch.inf), torch.full_like(mu, torch.inf)
    for iteration in range(iterations):
        if iteration % _PATIENCE == 0:
            given_up |= at_work & (r.norm(dim=1) > last / 2) & (longest > longest_before / 2)
            at_work &= ~given_up
            last, longest, longest_before = r.norm(dim=1), torch.zeros_like(mu), longest
        at = at_work.nonzero()[:, 0]
        if not len(at):
            break
        A = J[at] - eye
        square = A.mT @ A
        curvature = square.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(s.dtype).tiny)
        damped = square + (mu[at] * curvature)[:, None, None] * eye
        d, failed = torch.linalg.solve_ex(damped, -(A.mT @ r[at, :, None]))
        tried = s[at] + d[..., 0]
        f, there = F.with_jacobian(u.expand(len(at), *u.shape[1:]), tried)
        now = f - tried
        lower = (failed == 0) & now.isfinite().all(1) & (now.norm(dim=1) < r[at].norm(dim=1))
        better = at[lower]
        moved = d[..., 0].norm(dim=1)
        longest[at] = torch.maximum(longest[at], moved)
        s[better], r[better], J[better] = tried[lower], now[lower], there[lower]
        mu[at] = torch.where(lower, mu[at] / 8, mu[at] * 8).clamp(min=_LEAST)
        scale = _SETTLED * s[at].norm(dim=1).clamp(min=1)
        at_work[at] = (r[at].norm(dim=1) > scale) & (moved > scale) & (mu[at] < _MOST)
    return s, r.norm(dim=1), J, ~(at_work | given_up)


def _distinct(
    points: Tensor, speed: Tensor, taken: NDArray[np.bool_], apart: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the points that are taken, one for each place, the slowest; and how many lie there."""
    kept: list[int] = []
    counts: list[int] = []
    near = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") <= apart
    for place in np.argsort(speed.numpy(), kind="stable"):
        if not taken[place]:
            continue
        known = near[place, kept].nonzero()
        if len(known):
            counts[int(known[0])] += 1
        else:
            kept.append(int(place))
            counts.append(1)
    return np.array(kept, dtype=np.int64), np.array(counts, dtype=np.int64)
