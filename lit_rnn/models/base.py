"""SequenceModel: encoder, scanned cells, decoder; loss, metrics and logging from the Task."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, get_args

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from datamodules import Task
from datamodules.errors import UserError, require
from lit_rnn import optim
from lit_rnn.blame import defined
from lit_rnn.cells import Cell, State
from lit_rnn.class_paths import class_path
from lit_rnn.dtypes import KeepsKind, as_plain
from lit_rnn.init import DecoderInit, InputInit, decoder_
from lit_rnn.models import changes, resuming
from lit_rnn.models.meter import WeightedMean
from lit_rnn.parametrizations import Constraint, constrain_recurrent, spectral_norm_penalty
from lit_rnn.robustness import AdversarialTraining
from lit_rnn.scan import Backend, choose_backend, scan

STAGES = ("train", "val", "test")


def count_parameters(module: nn.Module) -> int:
    """How many free numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class SequenceModel(KeepsKind, LightningModule, ABC):
    """A recurrent network for a `Task`: scanned cells between a one-hot (or no) encoder and a linear decoder.

    A subclass names its cell in `build_cell` and, where it needs them, its own parameter groups and what to do after
    each optimizer step. There is one optimizer; its groups ``recurrent`` (the parameters behind the recurrent
    matrices) and ``other`` are a partition of the parameters.

    Args:
        task: The Task, or its dict; the command line links it from the data.
        hidden_size: Width n of each cell.
        layers: How many cells, each reading the one below.
        learn_initial_state: Train the initial state instead of keeping it zero.
        input_init: Start of the input map V, gate by gate: ``cell`` (what the cell's own docstring says), ``torch``
            (U(-1/sqrt(I), 1/sqrt(I))), ``kaiming`` (normal), ``xavier`` (Glorot uniform), ``xavier_normal`` or
            ``uniform`` (U(-0.01, 0.01)); see `lit_rnn.init`. Biases stay the cell's, but for ``torch`` in a cell
            without gates, which draws them too.
        decoder_init: Start of the decoder: ``torch`` (torch's own, biases too), ``kaiming``, ``xavier`` or
            ``xavier_normal`` (the same laws, biases zero), ``tensorflow`` (xavier, of the biases too: scoRNN's and
            scuRNN's copying scripts), or ``eunn`` (EUNN's and GORU's scripts, biases 0.01).
        recurrent_lr_ratio: Learning rate of the group ``recurrent`` over that of the rest.
        optimizer: Any torch optimizer, called with the parameter groups. In Python: a class, a ``functools.partial``
            of one, or {"class_path", "init_args"}. None: the class's ``default_optimizer``, RMSprop with lr 1e-3.
        group_optimizers: Optimizers of single groups by name, such as {recurrent: {class_path: Adagrad}}; the others
            take ``optimizer``. The rate of such a group is its optimizer's own: no ratio applies.
        lr_scheduler: Any torch scheduler of plain options, stepped once per epoch; None keeps the rate. The rates of
            the groups keep their ratios; ``max_lr`` and the like are those of the group ``other``.
        backend: How the cell is run over time; see `lit_rnn.scan.choose_backend`.
        checkpoint_every: Keep the states at every so many steps alone and run the rest again in the backward, which is
            what a very long sequence needs: about a third more time, least memory near sqrt(T). Null keeps all.
        recurrent_constraint: Hold the largest singular value (``spectral_norm``) or the largest modulus of an
            eigenvalue (``spectral_radius``) of every recurrent matrix, gate by gate, at or below a bound.
        constraint_bound: That bound.
        norm_penalty: lambda; lambda / 2 times the sum of the recurrent matrices' squared spectral norms is added to
            the training loss (Yoshida and Miyato 2017).
        adversarial: Train on inputs moved by PGD; the options of `lit_rnn.robustness.AdversarialTraining`, such as
            {eps: 0.1, bounds: [0, 1]}. Training loss and metric are then those under attack.
    """

    training_options: ClassVar[frozenset[str]] = frozenset(
        (
            "optimizer",
            "group_optimizers",
            "lr_scheduler",
            "recurrent_lr_ratio",
            "input_init",
            "decoder_init",
            "backend",
            "checkpoint_every",
            "norm_penalty",
            "adversarial",
        )
    )
    """Options that say how weights start, move or are computed; of given weights all others change the function.

    A subclass names its own alone.
    """

    default_optimizer: ClassVar[Mapping[str, Any]] = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 1e-3}}
    # what a checkpoint that names none means, where that is not default_optimizer: those of today name it
    unnamed_optimizer: ClassVar[Mapping[str, Any] | None] = None

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        layers: int = 1,
        learn_initial_state: bool = False,
        input_init: InputInit = "cell",
        decoder_init: DecoderInit = "torch",
        recurrent_lr_ratio: float = 1.0,
        optimizer: OptimizerCallable | None = None,
        group_optimizers: dict[str, OptimizerCallable] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        backend: Backend = "auto",
        checkpoint_every: int | None = None,
        recurrent_constraint: Constraint = "none",
        constraint_bound: float = 1.0,
        norm_penalty: float = 0.0,
        adversarial: dict[str, Any] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        require(hidden_size >= 1, "model.init_args.hidden_size", hidden_size, "a whole number of at least 1")
        require(layers >= 1, "model.init_args.layers", layers, "a whole number of at least 1")
        require(recurrent_lr_ratio >= 0, "model.init_args.recurrent_lr_ratio", recurrent_lr_ratio, "0 or positive")
        require(
            checkpoint_every is None or checkpoint_every >= 1,
            "model.init_args.checkpoint_every",
            checkpoint_every,
            "null or a whole number of at least 1",
        )
        starts = (("input_init", input_init, InputInit), ("decoder_init", decoder_init, DecoderInit))
        for key, start, names in starts:
            require(start in get_args(names), f"model.init_args.{key}", start, f"one of {', '.join(get_args(names))}")
        require(norm_penalty >= 0, "model.init_args.norm_penalty", norm_penalty, "0 or positive")
        self.task = task if isinstance(task, Task) else Task(**task)
        self.adversarial = None if adversarial is None else AdversarialTraining.of(adversarial, self.task)
        self._save_primitives(given)
        self._passes: dict[tuple[bool, int], int] = {}  # by mode and batch size, once a Trainer tells
        self.changed_options: dict[str, tuple[Any, Any]] = {}  # of a resume: what was, what is
        self._noted: dict[str, Any] | None = None  # of the checkpoint that a fit goes on from
        self._validated = False
        self.optimizer_steps = 0  # not trainer.global_step: it has to hold without a Trainer too
        self.cells = nn.ModuleList()
        for _ in range(layers):
            below = self.cell_list()[-1].output_size if len(self.cells) else self.task.input_size
            cell: object = self.build_cell(below)
            if not isinstance(cell, Cell):
                place = defined(type(self).build_cell)
                raise UserError(f"{place}: build_cell returns {cell!r}, but it must return a lit_rnn.cells.Cell.")
            self.cells.append(cell)
            if input_init != "cell":
                self.cell_list()[-1].start_input_(input_init)
            constrain_recurrent(self.cell_list()[-1], recurrent_constraint, constraint_bound)
            choose_backend(backend, self.cell_list()[-1])
        decoder = nn.Linear(self.cell_list()[-1].output_size, self.task.target_size)
        self.decoder = decoder_(decoder, decoder_init, self.task.input_size)
        self.loss_function = nn.functional.cross_entropy if self.task.classifies else nn.functional.mse_loss
        # weighted means, so that ragged batches, masks and ranks are counted exactly
        self.meters = nn.ModuleDict(
            {f"{stage}_{name}": WeightedMean() for stage in STAGES for name in ("loss", "metric")}
        )
        for name in ("train_loss", "train_metric"):
            self._meter(name).persistent(True)

    def _save_primitives(self, given: dict[str, Any]) -> None:
        """Keep the constructor's arguments for the checkpoint, as primitives, and ours where it hides some of them."""
        self.save_hyperparameters(logger=False)
        for name, value in given.items():
            self.hparams.setdefault(name, value)
        self.hparams["task"] = asdict(self.task)
        self.hparams["optimizer"] = self.hparams["optimizer"] or dict(self.default_optimizer)
        for key, base in (("optimizer", Optimizer), ("lr_scheduler", LRScheduler)):
            self.hparams[key] = optim.to_primitives(self.hparams[key], f"model.init_args.{key}", base)
        own = self.hparams["group_optimizers"]
        if own is not None:
            key = "model.init_args.group_optimizers"
            self.hparams["group_optimizers"] = {
                name: optim.to_primitives(factory, f"{key}.{name}", Optimizer) for name, factory in own.items()
            }

    @classmethod
    def function_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a constructor's ``options`` that decide the function, the defaults of what is not given among them.

        `training_options` are left out, and the task; an option that nobody put there counts.
        """
        lineage = [base for base in reversed(cls.__mro__) if issubclass(base, SequenceModel)]
        harmless = frozenset[str]().union(*(vars(base).get("training_options", ()) for base in lineage))
        defaults = {
            name: parameter.default
            for base in lineage
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in {**defaults, **options}.items()
            if key not in harmless and key != "task" and not key.startswith("_")
        }

    @property
    def options(self) -> Any:
        """The constructor's arguments, as the checkpoint keeps them."""
        return self.hparams

    # ---- what an architecture says

    @abstractmethod
    def build_cell(self, input_size: int) -> Cell:
        """The cell of one layer; `options` holds the constructor's arguments."""

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Parameters by group name, a partition. Here: ``recurrent`` and ``other``."""
        recurrent = [parameter for cell in self.cell_list() for parameter in cell.recurrent_parameters()]
        ours = {id(parameter) for parameter in recurrent}
        return {"recurrent": recurrent, "other": [p for p in self.parameters() if id(p) not in ours]}

    def group_options(self) -> dict[str, dict[str, Any]]:
        """Optimizer options by group name; ``lr_ratio`` is the group's learning rate over the optimizer's."""
        return {"recurrent": {"lr_ratio": self.options.recurrent_lr_ratio}}

    def penalty(self) -> Tensor | None:
        """What is added to the training loss, and not to the loss that is shown; None adds nothing."""
        return None

    def not_averaged(self) -> str | None:
        """Why a mean of the parameters over steps is no network of this kind, None if it is one."""
        return None

    def after_step(self, step: int) -> None:
        """Called behind optimizer step number ``step`` (from 1), under no_grad, the same on every rank.

        Change tensors in place.
        """

    # ---- the network

    def cell_list(self) -> list[Cell]:
        """The cells, from the bottom up."""
        return list(self.cells)  # type: ignore[arg-type]  # ModuleList does not tell its element type

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, values or frames: (B, target_size), or (B, T, target_size) where the task has a target per step."""
        return self.run(inputs)[0]

    def run(self, inputs: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """`forward` from given states, one per layer; also returns the states after the last step.

        Raises:
            UserError: unless there are as many states as layers, each as its cell's ``initial_state(B)``.
        """
        y, finals = self.features(inputs, states)
        return self.decode(y), finals

    def features(self, inputs: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """What the decoder reads, time first: the last cell's outputs at every step, or at the last one alone."""
        if states is not None:
            require(
                len(states) == len(self.cells), "states", f"{len(states)} of them", f"{len(self.cells)}, one a layer"
            )
        y = self.encode(inputs).transpose(0, 1)
        finals = []
        for layer, cell in enumerate(self.cell_list()):
            y, final = scan(
                cell,
                y,
                None if states is None else states[layer],
                self.options.backend,
                last_only=not self.task.per_step and layer == len(self.cells) - 1,
                checkpoint_every=self.options.checkpoint_every,
                expected_passes=self._passes.get((self.training, y.shape[1]), 0) if self._passes else None,
            )
            finals.append(final)
        return y, finals

    def encode(self, inputs: Tensor) -> Tensor:
        """What the first cell reads, (B, T, input_size), in the model's dtype: values as they are, symbols one-hot.

        One-hot vectors are taken as they are too, so that an attack can move them.
        """
        if self.task.inputs == "values" or inputs.is_floating_point():
            return inputs.to(self.decoder.weight.dtype)
        return nn.functional.one_hot(inputs, self.task.input_size).to(self.decoder.weight.dtype)

    def decode(self, y: Tensor) -> Tensor:
        """From the last cell's outputs (T, B, output_size) to what `forward` gives."""
        return self.decoder(y).transpose(0, 1) if self.task.per_step else self.decoder(y[-1])

    # ---- training

    def _meter(self, name: str) -> WeightedMean:
        meter = self.meters[name]
        assert isinstance(meter, WeightedMean)
        return meter

    def loss_of(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean loss over what counts, from `forward`'s outputs."""
        return self._loss(outputs if mask is None else outputs[mask], targets, mask)[0]

    def _loss(self, outputs: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, int]:
        """The mean loss and how many terms it has; ``outputs`` are those where the mask is true, if there is one."""
        if mask is not None:
            targets = targets[mask]
        if self.task.classifies:
            outputs = outputs.flatten(0, -2)
            targets = targets.flatten()
        return self.loss_function(outputs, targets), targets.numel()

    def _metric(self, outputs: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, int]:
        """The headline metric and how many terms it has; ``outputs`` as in `_loss`."""
        recall = self.task.recall
        if recall is not None and mask is None:
            outputs, targets = outputs[:, -recall:], targets[:, -recall:]
        if self.task.metric == "accuracy":
            right = outputs.argmax(-1) == (targets if mask is None else targets[mask])
            if recall is not None and mask is not None:
                recalled = torch.zeros_like(mask)
                recalled[:, -recall:] = True
                right = right[recalled[mask]]
            return right.float().mean(), right.numel()
        if self.task.metric == "within_0.04":
            close = ((outputs - targets).abs() < 0.04).all(-1)
            return close.float().mean(), close.numel()
        loss, count = self._loss(outputs, targets, mask)
        return (loss / torch.log(loss.new_tensor(2.0)) if self.task.metric == "bits_per_symbol" else loss), count

    def _shared_step(self, batch: tuple[Tensor, ...], stage: str) -> Tensor:
        inputs, targets = batch[:2]
        mask = batch[2] if len(batch) > 2 else None
        y = self.features(inputs)[0]
        outputs = self.decode(y) if mask is None else self.decoder(y.transpose(0, 1)[mask])  # only where it counts
        loss, terms = self._loss(outputs, targets, mask)
        with torch.no_grad():
            metric, counted = self._metric(outputs.detach(), targets, mask)
        for name, value, weight in (("loss", loss.detach(), terms), ("metric", metric, counted)):
            self._meter(f"{stage}_{name}").update(value, weight)
            self._log_meter(stage, name)
        return loss

    def _log_meter(self, stage: str, name: str) -> None:
        label = self.task.metric if name == "metric" else name
        meter = self._meter(f"{stage}_{name}")
        self.log(f"{stage}/{label}", meter, on_step=False, on_epoch=True, prog_bar=stage != "train")

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        if self.adversarial is not None:  # a seed per step and rank, so that a resumed run sees the same attacks
            step = self.optimizer_steps
            seed = (step << 32) + (batch_idx << 12) + self.global_rank
            batch = (self.adversarial.perturb(self, self.task, batch, step, seed), *batch[1:])
        loss = self._shared_step(batch, "train")
        self.log("train/loss_step", loss, prog_bar=True)
        penalty = self.penalty()
        if self.options.norm_penalty:
            loss = loss + self.options.norm_penalty * spectral_norm_penalty(self.cell_list())
        return loss if penalty is None else loss + penalty

    def on_train_start(self) -> None:
        self.expect_passes()
        if self._noted is not None:
            noted, self._noted = self._noted, None
            place = resuming.take_up(self.trainer, self, noted)
            if place == "behind the last batch":
                for name in ("loss", "metric"):  # no step is left that would
                    self._meter(f"train_{name}").update_called_before()
                    self._log_meter("train", name)
                resuming.close_epoch(self.trainer)
            elif place == "between epochs":
                self._reset_training_means()

    def expect_passes(self) -> None:
        """Tell the scan how often it will run, so that it compiles where that pays."""
        trainer, batch = self.trainer, getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)
        epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
        steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
        if batch is None or (epochs < 0 and steps == math.inf):  # no end is known
            return
        trained = min(steps, trainer.num_training_batches * epochs if epochs >= 0 else math.inf)
        rounds = trained / max(1, trainer.num_training_batches) / (trainer.check_val_every_n_epoch or 1)
        validated = rounds * sum(trainer.num_val_batches)
        self._passes = {(True, batch): int(trained), (False, batch): int(validated)}

    def backends(self) -> list[str]:
        """The backend that each cell trains with."""
        options, passes = self.options, max(self._passes.values(), default=0)
        return [choose_backend(options.backend, cell, passes * (self.task.length or 0)) for cell in self.cell_list()]

    def on_train_epoch_start(self) -> None:
        self._reset_training_means()

    def _reset_training_means(self) -> None:
        for name in ("loss", "metric"):  # they travel in checkpoints, so that an epoch goes on with its means
            self._meter(f"train_{name}").reset()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's step of a scheduler, but for those that watch a metric: `on_train_epoch_end` has theirs."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Step schedulers that watch a metric: here, so that it is in the checkpoint of the epoch's end."""
        metrics = self.trainer.callback_metrics  # on every rank: reading it synchronises
        for config in self.trainer.lr_scheduler_configs if self.trainer.is_last_batch else ():
            watched = metrics.get(self._watched(config.scheduler))
            if isinstance(config.scheduler, ReduceLROnPlateau) and watched is not None:
                config.scheduler.step(float(watched))

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._shared_step(batch, "val")

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._shared_step(batch, "test")

    def predict_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and predictions (classes or numbers)."""
        inputs, targets = batch[:2]
        outputs = self(inputs)
        return as_plain(inputs), as_plain(targets), outputs.argmax(-1) if self.task.classifies else as_plain(outputs)

    def configure_optimizers(self) -> Any:
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
        known = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", self.task.metric)]
        require(
            watched in known, "model.init_args.lr_scheduler.init_args.monitor", watched, f"one of {', '.join(known)}"
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": watched}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning, but ``value`` also clips complex gradients, their real and imaginary parts apart."""
        if gradient_clip_val is None or gradient_clip_algorithm != "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for group in optimizer.param_groups:
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

    def on_validation_start(self) -> None:
        self._validated = False

    def on_validation_epoch_end(self) -> None:
        self._validated = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept: dict[str, Any] = {"class_path": class_path(type(self)), "optimizer_steps": self.optimizer_steps}
        if self._noted is not None:  # not yet taken up
            kept = {**self._noted, **kept}
        elif self.trainer.state.fn == "fit":
            kept |= resuming.note(self.trainer, self, self._validated and self.trainer.validating)
        checkpoint["lit_rnn"] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Before the weights are put in: they would be rounded to float32, and moved to float64 after that."""
        self.optimizer_steps = checkpoint["lit_rnn"]["optimizer_steps"]
        in_double = any(tensor.dtype == torch.float64 for tensor in checkpoint["state_dict"].values())
        if in_double and (self._trainer is None or self.trainer.precision == "64-true"):
            self.double()
        goes_on = self._trainer is not None and self.trainer.state.fn == "fit" and "optimizer_states" in checkpoint
        self.changed_options = changes.apply(self, checkpoint) if goes_on else {}
        self._noted = resuming.straighten(checkpoint) if goes_on else None
