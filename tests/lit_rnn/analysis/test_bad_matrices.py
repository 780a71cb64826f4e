"""What is no matrix is refused by every function of a matrix, in one sentence about W."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lit_rnn import analysis
from tests.refusals import refusal

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
