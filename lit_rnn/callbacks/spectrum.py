"""What training did to the eigenvalues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.files import whole_arrays, write_arrays
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import recurrent_matrices

Spectra = dict[str, NDArray[np.complex128]]
_COLUMNS = ("matrix", "units", "least before", "largest before", "least after", "largest after")  # |eigenvalue|


def spectra(model: SequenceModel) -> Spectra:
    """Eigenvalues of every recurrent matrix of numbers, by layer and name, in double precision."""
    matrices = recurrent_matrices(model).items()  # of NaN MKL has no eigenvalues, and ends the process
    return {name: torch.linalg.eigvals(W).cpu().numpy() for name, W in matrices if W.isfinite().all()}


class SpectrumPicture(Callback):
    """Draws the eigenvalues before and after training against the unit circle.

    ``pictures/spectrum.png`` goes to the run folder and to every logger that takes images; the eigenvalues at the start
    are kept beside it, so that a resumed run still shows them. A run that began elsewhere, or lost them, shows those
    after alone.
    """

    def __init__(self, folder: Path) -> None:
        self.start = folder / "pictures" / "spectrum_start.npz"
        self.path = folder / "pictures" / "spectrum.png"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_recorded(pl_module, trainer):
            return
        if pl_module.optimizer_steps == 0 and not whole_arrays(self.start):
            self.start.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(self.start, spectra(pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_recorded(pl_module, trainer):
            return
        after = spectra(pl_module)
        if not after:  # an architecture without a square matrix
            return
        # behind the training: Matplotlib takes a while to load
        from lit_rnn.report.spectra import Spectrum, draw_spectra

        before = whole_arrays(self.start)
        known = {name: {"before training": before[name]} if name in before else {} for name in after}
        draw_spectra({name: Spectrum({**known[name], "after": values}) for name, values in after.items()}, self.path)
        show.picture(trainer, "pictures/spectrum", self.path)
        show.table(trainer, "tables/spectra", _COLUMNS, spectra_rows(before, after))


def spectra_rows(before: Spectra, after: Spectra) -> list[list[str | int | float]]:
    """For every matrix its size, and the least and largest modulus of an eigenvalue before and after training.

    NaN before, where those are not known.
    """
    rows: list[list[str | int | float]] = []
    for name in after:
        moduli = [np.abs(values.get(name, np.nan)) for values in (before, after)]
        rows.append([name, len(after[name]), *(float(end) for one in moduli for end in (one.min(), one.max()))])
    return rows
