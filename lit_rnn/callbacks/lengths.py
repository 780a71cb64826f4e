"""How well a network does at lengths that it was not trained at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules.base import data_of
from datamodules.batch import Parts
from datamodules.lengths import LengthDataModule
from datamodules.loader import IndexedBatches
from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.objectives import at_length, metric_words

_SEQUENCES, _SYMBOLS = 2048, 1 << 20  # at most so many of each length, by whose most frequent answer chance is told


class LengthPicture(Callback):
    """At the end of a fit, draws the headline metric against the lengths of ``val_lengths``.

    The picture goes to ``pictures/lengths.png`` in the run folder and to every logger that takes images.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pictures" / "lengths.png"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        if not is_recorded(pl_module, trainer) or not isinstance(data, LengthDataModule) or not data.other_tasks():
            return
        task, own = pl_module.task, data.own_length
        names = {own: task.metric, **{length: at_length(task.metric, length) for length in data.other_tasks()}}
        found = {length: trainer.callback_metrics.get(f"val/{name}") for length, name in names.items()}
        values = {length: float(value) for length, value in found.items() if value is not None}
        if not values:  # not validated
            return
        splits = dict(zip([own, *data.other_tasks()], [data.split("val"), *data.other_splits("val")], strict=True))
        guesses = {at: _guessed(pl_module, splits[at], at) for at in values}
        guessed = {at: value for at, value in guesses.items() if value is not None}
        from lit_rnn.report.lengths import draw_run  # behind the training: Matplotlib takes a while to load

        draw_run(type(pl_module).__name__, values, guessed, own, metric_words(task), data.length_option, self.path)
        show.picture(trainer, "pictures/lengths", self.path)


def _guessed(model: SequenceModel, split: IndexedBatches, length: int) -> float | None:
    """Chance at a length, of sequences like those of validation: they are drawn, however many that has."""
    count = min(max(_SYMBOLS // length, 8), _SEQUENCES)
    seen, asked = (Parts.of(split[np.arange(begin, begin + count)]) for begin in (0, count))
    return model.meters.guessed(seen, asked)
