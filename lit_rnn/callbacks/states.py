"""What the NRU paper looks at: states and their gradients over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules.base import data_of
from datamodules.batch import Batch, Parts
from lit_rnn.analysis import states_and_gradients
from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.files import whole_arrays, write_arrays
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import encoded, summed_loss

Traces = dict[str, NDArray[np.float64]]

_SEQUENCES = 10


def state_traces(model: SequenceModel, batch: Batch) -> Traces:
    """Norms over time, one (T,) array per layer and panel, named "layer panel"; means over the batch.

    With s_t all of a layer's state tensors side by side: |s_t|, |s_t - s_T| and |dL/ds_t|, the total derivative of the
    batch's summed loss by the state after step t, through all later steps (Chandar et al. 2019).
    """
    parts = Parts.of(batch).to(model.device)
    loss, traces = summed_loss(model, parts), dict[str, NDArray[np.float64]]()
    every = states_and_gradients(model.cell_list(), encoded(model, parts), loss, parts.lengths, model)
    for layer, (s, gradient) in enumerate(every):
        for panel, values in (("norm", s), ("distance", s - s[-1]), ("gradient", gradient)):
            traces[f"{layer} {panel}"] = values.double().norm(dim=-1).mean(1).cpu().numpy()
    return traces


class StatePicture(Callback):
    """Draws `state_traces` of ten validation sequences before and after training, and in between if asked.

    ``pictures/states.png`` goes to the run folder and to every logger that takes images; the numbers are beside it in
    ``states.npz``, by optimizer step, so that a resumed run goes on with them.

    Args:
        folder: The run folder.
        every_n_epochs: Also take the traces at the end of every so many epochs; 0 for none.
    """

    def __init__(self, folder: Path, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = every_n_epochs
        self.store = folder / "pictures" / "states.npz"
        self.path = folder / "pictures" / "states.png"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not whole_arrays(self.store):
            self._take(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._take(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take(trainer, pl_module)
        if self.store.is_file() and trainer.is_global_zero:
            from lit_rnn.report.states import draw_states  # behind the training: Matplotlib takes a while to load

            draw_states(whole_arrays(self.store), self.path)
            show.picture(trainer, "pictures/states", self.path)

    def _take(self, trainer: Trainer, model: LightningModule) -> None:
        data = data_of(trainer)
        if not is_recorded(model, trainer) or data is None:
            return
        if not model.is_stack():  # states of a cell that reads from the end have their time turned round
            return
        stored: Traces = whole_arrays(self.store)
        traces = state_traces(model, data.examples(_SEQUENCES))
        stored |= {f"{model.optimizer_steps} {name}": values for name, values in traces.items()}
        self.store.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(self.store, stored)
