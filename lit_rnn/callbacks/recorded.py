"""What callbacks ask before they write: whether anything of a run is kept here, and of which files it is."""

from __future__ import annotations

from typing import TypeGuard

from pytorch_lightning import LightningModule, Trainer

from datamodules.base import data_of
from lit_rnn.models import SequenceModel
from lit_rnn.runs.folder import keeps_files


def is_recorded(module: LightningModule, trainer: Trainer) -> TypeGuard[SequenceModel]:
    """Whether this process writes what there is to see of a model, which is one of ours."""
    return trainer.is_global_zero and keeps_files(trainer) and isinstance(module, SequenceModel)


def fingerprint(trainer: Trainer) -> dict[str, str]:
    """What tells the files that the run's data read from others, by its key in JSON; empty where nothing does."""
    data = data_of(trainer)
    found = None if data is None else data.fingerprint()
    return {} if found is None else {"fingerprint": found}
