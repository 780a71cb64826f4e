"""The eigenvalues that a run draws, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import Task
from lit_rnn.callbacks.spectrum import spectra
from lit_rnn.models import GRU, LEM, ScoRNN, SequenceModel, VanillaRNN
from lit_rnn.models.probes import cell_matrices

TASK = Task("letters", "symbols", 5, "next_symbol", 5, None, "all", 1.6, "bits_per_symbol", False)


@pytest.mark.parametrize("kind", [VanillaRNN, GRU, LEM, ScoRNN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalues_in_both_precisions(kind: type[SequenceModel], dtype: torch.dtype) -> None:
    """In float64 a recurrent matrix is the parameter itself, which needs a gradient."""
    model = kind(TASK, 6).to(dtype)
    found = spectra(model)
    matrices = cell_matrices(model.cell_list()[0])
    assert found.keys() == matrices.keys() and len(found) > 0
    for name, W in matrices.items():
        assert np.allclose(
            np.sort_complex(found[name]), np.sort_complex(np.linalg.eigvals(W.detach().double().numpy())), atol=1e-10
        )
