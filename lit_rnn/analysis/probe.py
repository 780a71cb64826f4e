"""What can be read off a state by a linear map."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from datamodules.errors import require, whole
from lit_rnn.analysis.arrays import Real, array

_MOST = 4096  # states that the probe is fitted to
_ITERATIONS = 200


class Probe(NamedTuple):
    """How well a linear probe tells classes apart, on sequences that it was not fitted to."""

    accuracy: float  # on as many steps as it was fitted to
    beyond: float  # on all later ones; nan where there are none
    chance: float  # of whoever always names the class that is most frequent there
    by_step: Real  # (T,), at each step


def linear_probe(states: ArrayLike, classes: ArrayLike, steps: int) -> Probe:
    """A logistic regression from states to classes, fitted to the first half of the sequences.

    To standardised states, with scikit-learn's penalty |w|^2 / 2 beside the summed loss, for at most 200 iterations, on
    at most 4,096 states.

    Args:
        states: (B, T, N).
        classes: (B, T), whole numbers from 0 on.
        steps: How many first steps it is fitted to; the others show what becomes of them beyond.

    Raises:
        UserError: for other shapes, states that are not finite, fewer than two sequences, or less than two classes
            among those that it is fitted to.

    Source: Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes".
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression

    s, y = array(states, "states"), np.asarray(classes)
    ok = s.ndim == 3 and s.shape[2] > 0 and s.shape[:2] == y.shape
    require(
        ok, "states", f"an array of shape {s.shape}", f"(B, T, N), N at least 1, with classes (B, T), here {y.shape}"
    )
    half = len(s) // 2
    require(half >= 1, "states", f"{len(s)} sequences", "at least two: half of them are held out")
    steps = whole(steps, "steps", 1)
    require(steps <= s.shape[1], "steps", steps, f"from 1 to {s.shape[1]}, which is T")
    fitted, told = s[:half, :steps].reshape(-1, s.shape[2]), y[:half, :steps].ravel()
    require(len(np.unique(told)) > 1, "classes", "all the same", "of two kinds at least")
    chosen = np.linspace(0, len(fitted) - 1, min(_MOST, len(fitted))).round().astype(int)
    centre, scale = fitted.mean(0), fitted.std(0)
    scale[scale <= 1e-12 * np.abs(centre)] = 1.0  # a unit that stands still
    scale[scale == 0] = 1.0
    probe = LogisticRegression(max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is a penalised fit that was stopped, and says so above
        probe.fit((fitted[chosen] - centre) / scale, told[chosen])
    held, asked = s[half:], y[half:]
    named = probe.predict(((held - centre) / scale).reshape(-1, s.shape[2])).reshape(asked.shape)
    right = named == asked
    return Probe(
        accuracy=float(right[:, :steps].mean()),
        beyond=float(right[:, steps:].mean()) if s.shape[1] > steps else float("nan"),
        chance=float(np.unique(asked[:, :steps], return_counts=True)[1].max() / asked[:, :steps].size),
        by_step=right.mean(0),
    )
