"""How a Trainer trains a model: one optimizer of named groups, its scheduler, and checkpoints that go on exactly."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ProgressBar
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from datamodules import Task
from datamodules.arguments import OURS, ChecksKinds
from datamodules.base import data_of
from datamodules.batch import Batch, Parts
from datamodules.checks import SPLIT_WORDS, check_batch
from datamodules.errors import UserError, one_of, require
from lit_rnn import optim
from lit_rnn.class_paths import class_path, is_own
from lit_rnn.models import apart, averages, changes, made_on, resuming
from lit_rnn.models.carried import Carried
from lit_rnn.models.network import Network
from lit_rnn.models.objectives import Meters, measured_names


class Training(Network, LightningModule, metaclass=ChecksKinds):
    """The hooks around the steps of a model, which says its task, its meters and its parameter groups."""

    options_at: ClassVar[str] = "model.init_args"

    task: Task
    meters: Meters

    default_optimizer: ClassVar[Mapping[str, Any]] = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 1e-3}}
    # what a checkpoint that names none means, where that is not default_optimizer: those of today name it
    unnamed_optimizer: ClassVar[Mapping[str, Any] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.optimizer_steps = 0  # not trainer.global_step: it has to hold without a Trainer too
        self.changed_options: dict[str, tuple[Any, Any]] = {}  # of a resume: what was, what is
        self._passes: dict[tuple[bool, int], int] = {}  # by mode and batch size, once a Trainer tells
        self.carried = Carried()
        self._noted: dict[str, Any] | None = None  # of the checkpoint that a fit goes on from
        self._validated = False
        self._has_meters = False  # whether Lightning has the meters of this epoch's training
        self.shown_loss: Tensor | None = None  # of the last training step, if anything counted
        self._loss_is_followed = True  # until a Trainer tells

    @property
    def options(self) -> Any:
        """The constructor's arguments, as the checkpoint keeps them."""
        return self.hparams

    @abstractmethod
    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Parameters by group name, a partition."""

    @abstractmethod
    def group_options(self) -> dict[str, dict[str, Any]]:
        """Optimizer options by group name."""

    @abstractmethod
    def backends(self) -> list[str]:
        """The backend that each cell trains with, where it is; raises if that cannot run it."""

    def after_step(self, step: int) -> None:
        """Called behind optimizer step number ``step`` (from 1), under no_grad, the same on every rank.

        Change tensors in place.
        """

    def not_averaged(self) -> str | None:
        """Why a mean of the parameters over steps is no network of this kind, None if it is one."""
        return None

    # ---- optimizer and scheduler

    def configure_optimizers(self) -> Any:
        complex_ones = any(parameter.is_complex() for parameter in self.parameters())
        scaled = self._trainer is not None and self.trainer.precision == "16-mixed"
        accepted = f"bf16-mixed: torch scales no complex gradients, and {type(self).__name__} has some"
        require(not (scaled and complex_ones), "trainer.precision", "16-mixed", accepted)
        options = self.group_options()
        groups = [
            {**group, **options.get(group["name"], {})} for group in optim.named_groups(self, self.parameter_groups())
        ]
        optimizer = optim.build_optimizer(groups, self.options.optimizer, self.options.group_optimizers)
        optimizer.register_step_post_hook(self._count_step)
        if self.options.lr_scheduler is None:
            return optimizer
        scheduler = optim.build_scheduler(self.options.lr_scheduler, optimizer)
        watched = self._watched(scheduler)
        known = [f"train/{name}" for name in measured_names(self.task)]
        known += [f"val/{name}" for name in measured_names(self.task, self._other_lengths())]
        one_of(watched, "model.init_args.lr_scheduler.init_args.monitor", known)
        interval = optim.interval_of(self.options.lr_scheduler, self.options.lr_scheduler_interval)
        # not Lightning's: it wants the metric after every epoch, measured or not
        schedule = {"scheduler": scheduler, "monitor": watched, "interval": interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning, but ``value`` also clips complex gradients, their real and imaginary parts apart.

        A bound of 0, or a negative one, clips nothing, which is what Lightning means by it.
        """
        if gradient_clip_val is None or gradient_clip_algorithm != "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for group in optimizer.param_groups if gradient_clip_val > 0 else ():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.resolve_conj()
                    parts = torch.view_as_real(parameter.grad) if parameter.is_complex() else parameter.grad
                    parts.clamp_(-gradient_clip_val, gradient_clip_val)

    @staticmethod
    def _watched(scheduler: Any) -> str:
        """The metric that a scheduler steps on, if it does."""
        return getattr(scheduler, "monitor", "val/loss")

    @torch.no_grad()
    def _count_step(self, *_: Any) -> None:
        self.optimizer_steps += 1
        self.after_step(self.optimizer_steps)
        if self._trainer is not None:
            averages.follow(self._trainer, self)

    def on_after_backward(self) -> None:
        if self.optimizer_steps or self.trainer.world_size > 1:  # a process may hold no part of a cell
            return
        for cell in self.cell_list():
            trained = {name: one.grad is not None for name, one in cell.named_parameters() if one.requires_grad}
            missed = [name for name, reached in trained.items() if not reached]
            if missed and not any(trained.values()):
                raise UserError(
                    f"No gradient reaches {type(cell).__name__}: its weights, drive or step detach what they give, or "
                    "run under torch.no_grad."
                )
            if missed and is_own(type(cell)):
                warnings.warn(
                    f"No gradient reaches {', '.join(missed)} of {type(cell).__name__}, which stay as they start: "
                    "weights, drive and step do not use them, or detach what they compute with them.",
                    stacklevel=2,
                )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's step of a scheduler, but for ours that watch a metric: `on_train_epoch_end` has theirs."""
        if not isinstance(scheduler, ReduceLROnPlateau) or metric is not None:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Step schedulers that watch a metric, where it was measured anew, and a curriculum: here, so that the epoch's
        checkpoint has it."""
        if self.trainer.is_last_batch:
            self._refuse_nothing("train")
        metrics = self.trainer.callback_metrics  # on every rank: reading it synchronises
        data, own = data_of(self._trainer), metrics.get(f"train/{self.task.metric}")
        if self.trainer.is_last_batch and data is not None and own is not None:
            data.epoch_ended(float(own))
        for scheduler in self._plateaus() if self.trainer.is_last_batch else ():
            name = self._watched(scheduler)
            if name in metrics and (name.startswith("train/") or getattr(scheduler, "unread", True)):
                scheduler.step(float(metrics[name]))
                scheduler.unread = False

    def _plateaus(self) -> list[Any]:
        """Our schedulers that watch a metric; those of a subclass's own `configure_optimizers` are Lightning's."""
        configs = self.trainer.lr_scheduler_configs
        ours = [config.scheduler for config in configs if not config.reduce_on_plateau]
        return [scheduler for scheduler in ours if isinstance(scheduler, ReduceLROnPlateau)]

    # ---- epochs

    def on_fit_start(self) -> None:
        averages.keep_ratios(self.trainer)

    def on_train_start(self) -> None:
        self._has_meters = False
        self._loss_is_followed = self._may_be_followed()
        for optimizer in self.trainer.optimizers[:1]:
            if self._count_step not in optimizer._optimizer_step_post_hooks.values():  # a subclass made its own
                optimizer.register_step_post_hook(self._count_step)
        self.expect_passes()
        self.backends()  # refuses one that cannot run where the trainer has put the cells
        self._check_schedule()
        if self._noted is not None:
            noted, self._noted = self._noted, None
            averages.take_up(self.trainer, self)
            place = resuming.take_up(self.trainer, self, noted)
            if place == "behind the last batch":
                self.meters.mark_updated("train")  # no step is left that would
                self._log_meters("train")
                resuming.close_epoch(self.trainer)
            elif place == "between epochs":
                self.meters.reset("train")

    def _may_be_followed(self) -> bool:
        """Whether somebody may read the loss of every step in Lightning's collection: hooks of the user's own, a bar
        that is not ours (which reads ``shown_loss``), or what monitors it."""
        own = filter(is_own, type(self).__mro__)
        if any(name.startswith("on_") or name.endswith("_step") for base in own for name in vars(base)):
            return True
        return any(
            is_own(type(callback))
            or getattr(callback, "monitor", None) == "train/loss_step"
            or (isinstance(callback, ProgressBar) and class_path(type(callback)).partition(".")[0] not in OURS)
            for callback in self.trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning at run time
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Hand the loss to the loggers where they take it: at every step that would cost as much as a small network.

        Here, since a callback may just have ended the run, whose last step they take too.
        """
        if self._loss_is_followed or self.shown_loss is None:
            return
        if self.trainer._logger_connector.should_update_logs:
            self.log("train/loss_step", self.shown_loss)

    def _check_schedule(self) -> None:
        """Refuse a cycle that is over before the run is: torch would, in the middle of training; and a plateau of what
        is never measured."""
        for scheduler in self._plateaus():
            watched = self._watched(scheduler)
            require(
                watched.startswith("train/") or self.trainer.enable_validation,
                "model.init_args.lr_scheduler.init_args.monitor",
                watched,
                "train/loss or another of training: this run has no validation",
            )
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, OneCycleLR):
                epochs = self.trainer.max_epochs
                known = math.inf if epochs is None or epochs < 0 else epochs
                steps = self.trainer.estimated_stepping_batches if config.interval == "step" else known
                total = config.scheduler.total_steps
                accepted = f"at least the {steps:,} {config.interval}s of the run"
                require(
                    total >= steps or steps == math.inf,
                    "model.init_args.lr_scheduler (OneCycleLR): the length of its cycle",
                    total,
                    accepted,
                )

    def expect_passes(self) -> None:
        """Tell the scan how often it will run, so that it compiles where that pays."""
        trainer, batch = self.trainer, getattr(self._data(), "batch_size", None)
        epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
        steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
        if batch is None or (epochs < 0 and steps == math.inf):  # no end is known
            return
        trained = min(steps, trainer.num_training_batches * epochs if epochs >= 0 else math.inf)
        rounds = trained / max(1, trainer.num_training_batches) / (trainer.check_val_every_n_epoch or 1)
        validated = rounds * sum(trainer.num_val_batches)
        if math.isfinite(trained) and math.isfinite(validated):  # loaders of a user's own may not know their length
            self._passes = {(True, batch): int(trained), (False, batch): int(validated)}

    def on_train_epoch_start(self) -> None:
        self.meters.reset("train")  # they travel in checkpoints, so that an epoch goes on with its values
        self._has_meters = False

    def setup(self, stage: str) -> None:
        self.meters.measure_at(self._other_lengths())
        if stage == "fit" and self._trainer is not None:
            averages.prepare(self._trainer, self)

    def _other_lengths(self) -> list[int]:
        """At which validation and test measure too, in the order of their loaders behind the first."""
        data = data_of(self._trainer)
        return [] if data is None else list(data.other_tasks())

    def _length_of(self, loader: int) -> int | None:
        """The other length that a loader of validation or test is of; None for the first, and in training."""
        others = self._other_lengths() if loader else []
        if loader > len(others):
            raise UserError(
                f"Validation or test has loader number {loader + 1}, but the data names {len(others)} other lengths in "
                "data.init_args.val_lengths: give one loader for each after the first, or a single one."
            )
        return others[loader - 1] if loader else None

    def _parts(self, batch: Batch, stage: str, number: int) -> Parts:
        """A batch by name, which must be what the task says: our own data has looked for itself."""
        if self._trainer is not None and data_of(self._trainer) is None:
            check_batch(batch, self.task, "The loader", stage, number, exact=False)
        parts = Parts.of(batch)
        if stage == "train" and not number and not self.optimizer_steps:
            apart.warn_of_mixing(self, parts)
        return parts

    def _log_meters(self, stage: str, length: int | None = None) -> None:
        if stage == "train":  # the same ones in all steps of an epoch, and each `log` takes as long as a small network
            if self._has_meters:
                return
            self._has_meters = True
        shown = stage != "train" and length is None
        for label, meter in self.meters.of(stage, length).items():
            name = f"{stage}/{label}"
            self.log(name, meter, on_step=False, on_epoch=True, prog_bar=shown, add_dataloader_idx=False)

    # ---- checkpoints

    @staticmethod
    def weights_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state_dict but for what was measured."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("meters.")}

    def on_validation_start(self) -> None:
        self._validated = False

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._refuse_nothing("val")
            for scheduler in self._plateaus():
                scheduler.unread = True  # a checkpoint keeps it, as all of a scheduler
        self._validated = True

    def on_test_epoch_end(self) -> None:
        self._refuse_nothing("test")

    def _refuse_nothing(self, stage: str) -> None:
        """Refuse an epoch in which nothing counted, whose means are no numbers and which trained nothing."""
        loss: Any = self.meters.of(stage)["loss"]
        told = torch.tensor([float(loss.weight), loss.updates], device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(told)
        weight, batches = told.tolist()
        if batches and not weight:  # without batches a loop of somebody's own has counted for itself
            raise UserError(
                f"No target of the {SPLIT_WORDS[stage]} split counts in any batch of the epoch, as masks are false "
                f"throughout: mark the steps that the Task {self.task.name} scores."
            )

    def _data(self) -> object:
        """The data module, where the trainer has one."""
        return getattr(self._trainer, "datamodule", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept: dict[str, Any] = {"class_path": class_path(type(self)), "optimizer_steps": self.optimizer_steps}
        if self._noted is not None:  # not yet taken up
            kept = {**self._noted, **kept}
        elif self.trainer.state.fn == "fit":
            kept |= resuming.note(self.trainer, self, self._validated and self.trainer.validating)
            _put_in(checkpoint, self.meters.of_all_ranks("meters."))
            kept |= self.carried.note("train", self.all_gather, self.trainer.world_size)
        checkpoint["lit_rnn"] = {**kept, "data": made_on.note(self._data())}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Before the weights are put in: they would be rounded to float32, and moved to float64 after that."""
        self.optimizer_steps = checkpoint["lit_rnn"]["optimizer_steps"]
        if self._trainer is not None:
            found = made_on.differences(checkpoint, self._data(), self.task)
            if self.trainer.state.fn == "fit":
                made_on.refuse(found)
            elif self.trainer.is_global_zero:
                made_on.warn(found, self._data())
        weights = self.weights_in(checkpoint["state_dict"])
        in_double = any(tensor.dtype == torch.float64 for tensor in weights.values())
        if in_double and (self._trainer is None or self.trainer.precision == "64-true"):
            self.double()
        goes_on = self._trainer is not None and self.trainer.state.fn == "fit" and "optimizer_states" in checkpoint
        self.changed_options = changes.apply(self, checkpoint) if goes_on else {}
        self._noted = resuming.straighten(checkpoint) if goes_on else None
        if goes_on:
            resuming.recount(checkpoint, self.trainer)
            self.carried.take_up("train", checkpoint["lit_rnn"], self.global_rank, self.trainer.world_size)
        if self._trainer is not None and self.global_rank > 0:  # the first has the measurements of all
            self.meters.reset("train")
            _put_in(checkpoint, self.meters.state_dict(prefix="meters."))


def _put_in(checkpoint: dict[str, Any], measured: Mapping[str, Any]) -> None:
    """What was measured, into every state of the model: beside a mean of the weights, Lightning keeps and loads two."""
    for key in ("state_dict", "current_model_state"):
        if key in checkpoint:
            checkpoint[key] |= measured
