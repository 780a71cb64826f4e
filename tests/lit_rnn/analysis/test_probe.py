"""A linear probe: all right where a plane tells classes apart, at chance where nothing does; and beyond its steps."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules import UserError
from lit_rnn.analysis import linear_probe

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(3, size=(40, 10))


def test_clusters_are_told_apart_and_noise_is_not() -> None:
    centres = 5 * np.eye(4)[:3]
    told = linear_probe(centres[CLASSES] + 0.1 * RNG.normal(size=(40, 10, 4)), CLASSES, 5)
    assert told.accuracy == told.beyond == 1.0 and told.by_step.shape == (10,)
    held = CLASSES[20:, :5]
    assert told.chance == max(float((held == kind).mean()) for kind in range(3))
    noise = linear_probe(RNG.normal(size=(40, 10, 4)), CLASSES, 5)
    assert abs(noise.accuracy - 1 / 3) < 0.15  # three standard deviations of 100 guesses


def test_what_no_plane_tells_apart_is_not_told() -> None:
    """Exclusive or of two signs."""
    signs = RNG.choice([-1.0, 1.0], size=(60, 20, 2))
    assert abs(linear_probe(signs, (signs.prod(-1) > 0).astype(int), 20).accuracy - 0.5) < 0.15


def test_it_is_measured_on_sequences_that_it_has_not_seen_and_step_by_step() -> None:
    states = np.eye(3)[CLASSES]
    states[:, 7:] = 0.0  # forgotten from here on, and never fitted there
    states[20:, 2] = np.eye(3)[(CLASSES[20:, 2] + 1) % 3]  # wrong in the second half alone, which is held out
    found = linear_probe(states, CLASSES, 5)
    np.testing.assert_array_equal(found.by_step[:7], [1, 1, 0, 1, 1, 1, 1])
    assert found.accuracy == pytest.approx(0.8) and found.beyond == pytest.approx(found.by_step[5:].mean())
    assert found.by_step[7:].max() < 1 and np.isnan(linear_probe(states, CLASSES, 10).beyond)


def test_refusals() -> None:
    states = np.zeros((4, 3, 2))
    for given, classes, steps, said in (
        (states, CLASSES, 3, "with classes"),
        (states[:1], np.zeros((1, 3), int), 3, "at least two"),
        (states, np.zeros((4, 3), int), 3, "of two kinds"),
        (states, np.eye(4, 3, dtype=int), 4, "from 1 to 3"),
        (states * np.nan, np.eye(4, 3, dtype=int), 3, "NaN"),
    ):
        with pytest.raises(UserError, match=said):
            linear_probe(given, classes, steps)
