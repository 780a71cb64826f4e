"""The eigenvalues that a run draws, against NumPy's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Task
from lit_rnn.callbacks.spectrum import SpectrumPicture, spectra, spectra_rows
from lit_rnn.models import GRU, LEM, ScoRNN, SequenceModel, VanillaRNN
from lit_rnn.models.probes import cell_matrices
from lit_rnn.report import spectra as pictures

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


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_matrix_of_no_numbers_is_left_out(number: float, tmp_path: Path) -> None:
    """Of NaN, torch's eigenvalues on a CPU end the process: in MKL, by a segmentation fault."""
    model, trainer = VanillaRNN(TASK, 6), SimpleNamespace(is_global_zero=True, fast_dev_run=False, loggers=[])
    with torch.no_grad():
        model.cell_list()[0].recurrent.weight.fill_(number)
    assert spectra(model) == {}
    SpectrumPicture(tmp_path).on_fit_end(trainer, model)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [0, 8])
def test_what_is_called_before_training_is(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from another folder's checkpoint was at step 8 here, and has no start to show."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "draw_spectra", lambda spectra, path: drawn.update(spectra))
    trainer: Any = SimpleNamespace(is_global_zero=True, fast_dev_run=False, loggers=[])
    model, callback = VanillaRNN(TASK, 6), SpectrumPicture(tmp_path)
    start = spectra(model)
    model.optimizer_steps = steps
    callback.on_fit_start(trainer, model)
    with torch.no_grad():
        model.cell_list()[0].recurrent.weight.mul_(2)
    callback.on_fit_end(trainer, model)
    sets = drawn["recurrent"].values
    assert list(sets) == (["after"] if steps else ["before training", "after"])
    assert steps or np.allclose(np.sort_complex(sets["before training"]), np.sort_complex(start["recurrent"]))
    row = spectra_rows({} if steps else start, spectra(model))[0]
    assert bool(np.isnan(row[2])) is bool(steps) and np.isclose(row[5], 2 * np.abs(start["recurrent"]).max())
