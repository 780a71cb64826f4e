"""Models in a Trainer of Lightning's own, with loaders of a user's."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from datamodules.errors import UserError
from lit_rnn.callbacks import Progress
from lit_rnn.models import DtrivRNN, SequenceModel, VanillaRNN, resuming
from tests.trainers import quiet_trainer

TASK: dict[str, Any] = {
    "name": "t",
    "inputs": "values",
    "input_size": 2,
    "targets": "label",
    "target_size": 3,
    "length": 5,
    "scored": "last",
    "chance": 1.0,
    "metric": "accuracy",
    "higher_is_better": True,
}


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    """Ends, but does not say when."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(torch.randn(5, 2), torch.tensor(1))] * 8)


class Data(LightningDataModule):
    batch_size = 4

    def __init__(self, dataset: Any = None) -> None:
        super().__init__()
        self.dataset = dataset or Endless()

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=4)

    def val_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=4)


def fitted(model: SequenceModel, data: Data | None = None, **options: Any) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = quiet_trainer(num_sanity_val_steps=0, **options)
        trainer.fit(model, datamodule=data or Data())
    return trainer


def watching(metric: str) -> VanillaRNN:
    """Whose rate falls to a tenth after each bad measurement, which is every one but the first."""
    plateau = {"patience": 0, "threshold": 0.999, "factor": 0.1, "monitor": metric}
    return VanillaRNN(
        TASK,
        4,
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}},
        lr_scheduler={"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": plateau},
    )


@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_steps": 2}, {"max_epochs": 1, "limit_val_batches": 0}])
def test_loaders_that_do_not_know_their_length(options: dict[str, Any]) -> None:
    assert fitted(VanillaRNN(TASK, 4), **options).global_step == 2


def test_a_plateau_is_looked_for_where_there_was_a_validation() -> None:
    """Of four epochs two are validated: the first gives the best loss, the second is bad, and the rate falls once."""
    trainer = fitted(watching("val/loss"), max_epochs=4, check_val_every_n_epoch=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(("every", "epochs", "rate"), [(6, 6, 0.05), (2, 3, 0.005), (1, 3, 0.005)])
def test_a_plateau_counts_each_validation_once(every: int, epochs: int, rate: float) -> None:
    """Epochs have two batches: one without a validation says nothing new, and as the first it ended the run."""
    trainer = fitted(watching("val/loss"), max_epochs=epochs, check_val_every_n_epoch=None, val_check_interval=every)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)


def test_a_plateau_of_what_is_never_measured_is_refused_at_the_start() -> None:
    with pytest.raises(UserError, match=r"lr_scheduler.*'val/loss'.*train/loss"):
        fitted(watching("val/loss"), max_epochs=2, limit_val_batches=0)
    assert fitted(watching("train/loss"), max_epochs=1, limit_val_batches=0).global_step == 2


@pytest.mark.parametrize("make", [partial(SGD, lr=0.1), partial(LBFGS, lr=0.1, max_iter=3)], ids=["SGD", "LBFGS"])
def test_an_optimizer_of_a_subclass_is_followed(make: Any) -> None:
    """A step of LBFGS, which runs its closure several times, is one."""

    class Own(DtrivRNN):
        def configure_optimizers(self) -> Any:
            return make(self.parameters())

    model = Own(TASK, 4, rebase_every=2)
    base = model.cells[0].recurrent.base.clone()
    fitted(model, max_epochs=1)
    assert model.optimizer_steps == 2 and not model.cells[0].recurrent.skew.any()
    assert not torch.equal(model.cells[0].recurrent.base, base)


def test_a_plateau_of_a_subclass_is_lightnings() -> None:
    class Own(VanillaRNN):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.5)
            plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=0.999)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "train/loss"}}

    trainer = fitted(Own(TASK, 4), max_epochs=2, limit_val_batches=0)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "CohenKappa"])
def test_a_trained_model_can_be_pickled(metric: str) -> None:
    """As a process that is spawned gets it: its meters were made of functions without a name."""
    model = DtrivRNN({**TASK, "metric": metric}, 4, rebase_every=2)
    fitted(model, max_epochs=1)
    again = pickle.loads(pickle.dumps(model))
    x = torch.randn(3, 5, 2)
    assert torch.equal(again(x), model(x)) and again.optimizer_steps == 2
    assert fitted(again, max_epochs=1).callback_metrics.keys() >= {f"val/{metric}"}


def test_both_states_beside_an_average_have_the_measurements_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on with the second, which had those of the first process alone, in every process."""
    model, state = VanillaRNN(TASK, 4), SimpleNamespace(fn="fit")
    model._trainer = SimpleNamespace(state=state, world_size=2, global_rank=1, validating=False, precision="32-true")  # type: ignore[assignment]
    measured = {"meters.train_loss.total": torch.tensor(6.0), "meters.train_loss.weight": torch.tensor(3.0)}
    monkeypatch.setattr(model.meters, "of_all_ranks", lambda _: measured)
    monkeypatch.setattr(resuming, "note", lambda *_: {})
    checkpoint: dict[str, Any] = {"state_dict": {**model.state_dict()}, "current_model_state": {**model.state_dict()}}
    model.on_save_checkpoint(checkpoint)
    for key in ("state_dict", "current_model_state"):
        assert {name: checkpoint[key][name] for name in measured} == measured, key
    model.on_load_checkpoint(checkpoint)  # on the second process: the first has them
    for key in ("state_dict", "current_model_state"):
        assert all(checkpoint[key][name] == 0 for name in measured), key


X, Y = torch.randn(4, 5, 2), torch.tensor([0, 1, 2, 0])
FRAMES = {**TASK, "targets": "frame_per_step", "target_size": 1, "scored": "all", "metric": "mse"}
FRAMES["higher_is_better"] = False


@pytest.mark.parametrize(
    ("task", "parts", "words"),
    [
        (TASK, [X, Y + 1], "3 in the targets of sample 2, but they must be from 0 to 2"),
        (TASK, [X, Y.float()], "targets of torch.float32"),
        (TASK, [X], r"\(float32\), but it must give \(inputs, targets\)"),
        (TASK, [X, Y, torch.tensor([5, 3, 2, 1], dtype=torch.int32)], "int32"),  # lengths that nobody would read
        (TASK, [X * torch.nan, Y], "nan in the inputs"),
        (
            FRAMES,
            [X, X[..., 0]],
            r"shape \(4, 5\), but its task needs torch.float32 and \(4, 5, 1\)",
        ),  # would broadcast
    ],
)
def test_a_batch_of_anothers_loader_that_is_not_what_the_task_says(
    task: dict[str, Any], parts: list[Tensor], words: str
) -> None:
    with pytest.raises(UserError, match=f"The loader gives, in batch 0 of the training split, .*{words}"):
        fitted(VanillaRNN(task, 4), Data(TensorDataset(*parts)), max_epochs=1)


def test_a_loss_of_ones_own_is_what_is_trained() -> None:
    """Classes may be weighed, say; double precision is fine in another's loader."""

    class Weighed(VanillaRNN):
        def loss_of(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
            return 100 + super().loss_of(outputs, targets, mask)

    shown = fitted(Weighed(TASK, 4), Data(TensorDataset(X.double(), Y)), max_epochs=1).callback_metrics
    assert shown["train/loss"] > 100 and shown["val/loss"] > 100


class Noted(VanillaRNN):
    """Keeps the losses of its training, and the names that it logs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses: list[float] = []
        self.logged: list[str] = []

    def loss_of(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        loss = super().loss_of(outputs, targets, mask)
        if self.training:
            self.losses.append(float(loss))
        return loss

    def log(self, name: str, *arguments: Any, **options: Any) -> None:
        self.logged.append(name)
        super().log(name, *arguments, **options)


def test_the_meters_of_an_epoch_are_handed_to_lightning_once() -> None:
    """And their means are over all batches of it: 8 sequences in each of the two epochs."""
    model = Noted(TASK, 4)
    shown = fitted(model, max_epochs=2).callback_metrics
    assert float(shown["train/loss"]) == pytest.approx(sum(model.losses[-2:]) / 2, rel=1e-6)
    assert len(model.losses) == 4
    assert model.logged.count("train/loss") == model.logged.count("train/accuracy") == 2
    assert "train/loss_step" not in model.logged, "nobody reads it"


class Kept(CSVLogger):
    """The loss of steps, as a logger is given it."""

    def __init__(self) -> None:
        super().__init__("unused")
        self.losses: dict[int, float] = {}

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if "train/loss_step" in metrics:
            assert step is not None
            self.losses[step] = metrics["train/loss_step"]

    def save(self) -> None:
        pass


class Ends(Callback):
    """As one of ours: behind the seventh step."""

    __module__ = "lit_rnn.callbacks"

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 7


class Reads(Callback):
    """As one of the user's own, which may read the loss of every step."""

    def __init__(self) -> None:
        self.read: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.read.append(float(trainer.callback_metrics["train/loss_step"]))


@pytest.mark.parametrize("kinds", [[Ends], [Ends, Reads]])
def test_the_loss_of_a_step_reaches_the_loggers_that_take_it(kinds: list[type[Callback]]) -> None:
    """At every third step, and at the last, behind which a callback ends the run; each step's own."""
    model, logger, added = Noted(TASK, 4), Kept(), [kind() for kind in kinds]
    fitted(model, logger=logger, callbacks=added, max_epochs=4, log_every_n_steps=3)
    assert len(model.losses) == 7
    assert logger.losses == {step: pytest.approx(model.losses[step]) for step in (2, 5, 6)}
    for reader in (one for one in added if isinstance(one, Reads)):
        assert reader.read == pytest.approx(model.losses)


class Hooked(VanillaRNN):
    """Of the user's own, as `Noted` is, which has no hook."""

    def on_before_zero_grad(self, *_: Any) -> None:
        pass


class Stepping:
    """As a mixin of the user's own."""

    def lr_scheduler_step(self, *_: Any) -> None:
        pass


class Mixed(Stepping, VanillaRNN):
    pass


@pytest.mark.parametrize(
    ("kind", "callbacks", "followed"),
    [
        (VanillaRNN, [], False),
        (VanillaRNN, [Progress()], False),
        (VanillaRNN, [RichProgressBar()], True),
        (VanillaRNN, [ModelCheckpoint("unused", monitor="val/loss")], False),
        (VanillaRNN, [ModelCheckpoint("unused", monitor="train/loss_step")], True),
        (Noted, [], False),
        (Hooked, [], True),
        (Mixed, [], True),
    ],
)
def test_who_may_read_the_loss_of_every_step(
    kind: type[SequenceModel], callbacks: list[Callback], followed: bool
) -> None:
    model = kind(TASK, 4)
    model.trainer = SimpleNamespace(callbacks=callbacks)
    assert model._may_be_followed() is followed
