"""What is no matrix, or no count, is refused by every function that takes one, in one sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lit_rnn import analysis
from lit_rnn.cells import LSTMCell
from tests.refusals import refusal, refuses_what_is_no_count

CALLS: dict[str, Callable[[Any], Any]] = {
    **{
        name: getattr(analysis, name)
        for name in (
            "commutator_norm",
            "distance_to_instability",
            "eigenvalue_condition_numbers",
            "eigenvalues",
            "eigenvalues_trusted",
            "eigenvector_condition",
            "feedforward_profile",
            "henrici",
            "kreiss_lower_bound",
            "numerical_radius",
            "numerical_range",
            "schur",
            "singular_values",
            "spectral_norm",
            "spectral_radius",
        )
    },
    "hidden_chain_profile": lambda W: analysis.hidden_chain_profile(W, v=np.ones(3)),
    "pseudospectral_abscissa": lambda W: analysis.pseudospectral_abscissa(W, 0.1),
    "pseudospectral_radius": lambda W: analysis.pseudospectral_radius(W, 0.1),
    "pseudospectrum": lambda W: analysis.pseudospectrum(W, points=3),
    "smallest_singular_values": lambda W: analysis.smallest_singular_values(W, np.array([1.0])),
    "spectral_radius by powers": lambda W: analysis.spectral_radius(W, method="power"),
    "transient_growth": lambda W: analysis.transient_growth(W, 3),
}
BAD = {
    "not square": np.ones((3, 4)),
    "a vector": np.ones(3),
    "a stack": np.ones((2, 3, 3)),
    "empty": np.zeros((0, 0)),
    "NaN": np.diag([1.0, math.nan, 0.0]),
    "infinite": np.diag([1.0, -math.inf, 0.0]),
    "one infinite entry": np.array([[math.inf]]),
    "complex NaN": np.array([[1.0, 0.0], [complex(0, math.nan), 1.0]]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("W", BAD.values(), ids=BAD.keys())
def test_bad_matrices_are_refused(name: str, W: np.ndarray) -> None:
    refusal(lambda: CALLS[name](W), "W")
    refusal(lambda: CALLS[name](torch.tensor(W)), "W")


W, v = 0.5 * np.eye(2), np.ones(2)
COUNTS: dict[str, tuple[int, Callable[[Any], Any]]] = {  # the least, and the call
    "horizon of fisher_memory_curve": (1, lambda n: analysis.fisher_memory_curve(W, v, n)),
    "iterations of fixed_points": (1, lambda n: analysis.fixed_points(CELL, np.ones(2), np.ones((1, 4)), n)),
    "most of fixed_points": (0, lambda n: analysis.fixed_points(CELL, np.ones(2), np.ones((1, 4)), 1, most=n)),
    "lags of decoder_memory": (0, lambda n: analysis.decoder_memory(W, v, [n], samples=8)),
    "steps of decoder_memory": (1, lambda n: analysis.decoder_memory(W, v, [0], steps=n, samples=8)),
    "samples of decoder_memory": (4, lambda n: analysis.decoder_memory(W, v, [0], samples=n)),
    "seed of decoder_memory": (0, lambda n: analysis.decoder_memory(W, v, [0], samples=8, seed=n)),
    "steps of hidden_chain_profile": (0, lambda n: analysis.hidden_chain_profile(W, v, n)),
    "seed of hidden_chain_profile": (0, lambda n: analysis.hidden_chain_profile(W, v, 1, n)),
    "steps of linear_probe": (1, lambda n: analysis.linear_probe(np.ones((2, 3, 1)), np.eye(2, 3, dtype=int), n)),
    "warmup of lyapunov_spectrum": (0, lambda n: analysis.lyapunov_spectrum([W] * 3, n)),
    "warmup of lyapunov_spectrum_of": (0, lambda n: analysis.lyapunov_spectrum_of(lambda u, h: u * h, v, [1, 2, 3], n)),
    "points of numerical_range": (1, lambda n: analysis.numerical_range(W, n)),
    "angles of numerical_radius": (1, lambda n: analysis.numerical_radius(W, n)),
    "points of pseudospectrum": (2, lambda n: analysis.pseudospectrum(W, n)),
    "memory of pseudospectrum": (1, lambda n: analysis.pseudospectrum(W, 2, memory=n)),
    "memory of smallest_singular_values": (1, lambda n: analysis.smallest_singular_values(W, v, memory=n)),
    "n of rounding_of_radius": (1, analysis.rounding_of_radius),
    "batch_size of StepMap.start": (1, lambda n: analysis.StepMap(CELL).start(n)),
    "steps of transient_growth": (0, lambda n: analysis.transient_growth(W, n)),
}
CELL = LSTMCell(2, 2)


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_count_is_refused(name: str) -> None:
    least, call = COUNTS[name]
    argument = name.partition(" ")[0]
    refuses_what_is_no_count(call, argument, least)
    if argument != "memory":  # one byte is too little, which is another sentence
        call(np.int64(max(least, 2)))


def test_counts_of_a_list_are_in_a_list() -> None:
    for lags in (0, [], [[0]], [2]):
        refusal(lambda lags=lags: analysis.decoder_memory(W, v, lags, steps=2, samples=8), "lags")
