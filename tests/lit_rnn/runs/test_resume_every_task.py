"""Every task, and every rival in the layout of its configs: a run that goes on is the one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from datamodules.batch import Batch, Parts
from lit_rnn import models
from lit_rnn.models import rivals
from tests.lit_rnn.runs.kills import differences, flat
from tests.tasks import CASES, data_of
from tests.trainers import quiet_trainer

STOPS = (6, 8)  # of 12 steps: between two epochs, and within the second
CYCLE = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.02, "total_steps": 13}}
# as published, on top of the layout
DROPPED = {
    "LRU": {"branch_dropout": 0.1},
    "LinOSS": {"branch_dropout": 0.1},
    "UnICORNN": {"layer_dropout": 0.1, "output_dropout": 0.1},
}


class Kept(pl.Callback):
    """The batches of a run; and a checkpoint behind each of `STOPS` where there is a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.batches = folder, list[Batch]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self.batches.append(batch)
        if self.folder is not None and trainer.global_step in STOPS:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def trained(kind: str, folder: Path | None = None, checkpoint: Path | None = None) -> dict[str, Any]:
    """What a run of two epochs, from its beginning or from a checkpoint, ends with, and its batches by their step."""
    torch.manual_seed(0 if checkpoint is None else 7)
    (_, _, name, layout), data, kept = CASES[kind], data_of(kind), Kept(folder)
    model = getattr(models, name)(data.task, 4, lr_scheduler=CYCLE, **layout, **DROPPED.get(name, {}))
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=6, num_sanity_val_steps=0, callbacks=[kept])
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    first = trainer.global_step - len(kept.batches)
    ended = {
        "model": model.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "metrics": trainer.callback_metrics,
        "steps": trainer.global_step,
        "batches": {first + number: Parts.of(batch) for number, batch in enumerate(kept.batches)},
    }
    return dict(flat(ended))


def test_every_rival_has_a_task() -> None:
    names = {name for name, cls in vars(rivals).items() if isinstance(cls, type) and cls.__module__ == rivals.__name__}
    assert names and names <= {name for _, _, name, _ in CASES.values()}


@pytest.mark.parametrize("kind", CASES)
def test_a_run_that_goes_on_is_the_one_that_never_stopped(kind: str, tmp_path: Path) -> None:
    """Bit for bit: weights, meters, optimizer, schedule, metrics, and the batches that were left."""
    whole = trained(kind, tmp_path)
    for stop in STOPS:
        done = {key for key in whole if key.startswith(tuple(f".batches.{step}[" for step in range(stop)))}
        again = trained(kind, checkpoint=tmp_path / f"{stop}.ckpt")
        assert not differences(again, {key: whole[key] for key in whole.keys() - done}), stop
