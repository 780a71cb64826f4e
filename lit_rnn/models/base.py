"""SequenceModel: encoder, scanned cells, decoder; loss, metrics and logging from the Task."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datamodules.base import data_of
from datamodules.batch import Batch, Parts, at
from datamodules.errors import UserError, did_you_mean, require, whole, whole_or_null
from datamodules.task import Task
from lit_rnn import optim
from lit_rnn.dtypes import KeepsKind, as_plain
from lit_rnn.init import DecoderInit, InputInit
from lit_rnn.models import joint
from lit_rnn.models.blocks import Mixing, Norm, Pooling
from lit_rnn.models.objectives import Meters, loss_of
from lit_rnn.models.size import check_size
from lit_rnn.models.training import Training
from lit_rnn.parametrizations import Constraint, spectral_norm_penalty
from lit_rnn.robustness import AdversarialTraining
from lit_rnn.robustness.objective import predicted_class
from lit_rnn.scan import Backend, foreseen


def count_parameters(module: nn.Module) -> int:
    """How many free numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class SequenceModel(KeepsKind, Training):
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
            of one, or a config's {"class_path", "init_args"}. None: ``default_optimizer``, here RMSprop with lr 1e-3.
        group_optimizers: Optimizers of single groups by name, such as {recurrent: {class_path: Adagrad}}; the others
            take ``optimizer``. The rate of such a group is its optimizer's own: no ratio applies.
        lr_scheduler: Any torch scheduler of plain options; None keeps the rate. The rates of the groups keep their
            ratios; ``max_lr`` and the like, and Lightning's ``swa_lrs``, are those of the group ``other``.
        lr_scheduler_interval: Step it after every ``epoch`` or every optimizer ``step``. None: as torch means it, which
            is every step for OneCycleLR and CyclicLR, and every epoch for the others.
        backend: How the cell is run over time; see `lit_rnn.scan.choose_backend`.
        checkpoint_every: Keep the states only at every so many steps and run the rest again in the backward, which is
            what a very long sequence needs: about a third more time, least memory near sqrt(T). Null keeps all.
        recurrent_constraint: Hold the largest singular value (``spectral_norm``) or the largest modulus of an
            eigenvalue (``spectral_radius``) of every recurrent matrix, gate by gate, at or below a bound.
        constraint_bound: That bound.
        norm_penalty: lambda; lambda / 2 times the sum of the recurrent matrices' squared spectral norms is added to
            the training loss (Yoshida and Miyato 2017).
        adversarial: Train on inputs moved by PGD; the options of `lit_rnn.robustness.AdversarialTraining`, such as
            {eps: 0.1, bounds: [0, 1]}. Training loss and metric are then those under attack.
        embedding_size: Width of an embedding of symbols, from U(-0.1, 0.1); null reads them one-hot.
        tied_decoder: The decoder's matrix is the embedding's; ``embedding_size`` is then what the decoder reads.
        embedding_dropout: Share of the symbols whose embedding is dropped; this and the next four only in training,
            one mask for a whole pass (`lit_rnn.models.blocks.Dropouts`).
        input_dropout: Share of the units that the first cell reads.
        layer_dropout: Share of the units that each other cell reads.
        output_dropout: Share of the units that the decoder reads.
        weight_dropout: Share of the entries of every cell's W (DropConnect).
        branch_dropout: Share of the units of what each cell and its mixing give, before a residual is added.
        encoder_size: Width of an affine map of the inputs (values, or one-hot symbols) that the first layer reads; null
            has none. Over an encoder the first layer is a block like all others: norm and residual are its, too.
        residual: Every layer above the first adds what it reads to what its cell gives.
        norm: ``layer`` or ``rms``: LayerNorm or RMSNorm, with a scale to learn, of what each layer above the first
            reads; with ``residual`` only of the cell's branch.
        mixing: What mixes the units behind each cell, inside the residual: ``glu`` (gelu and a gated linear unit) or
            ``mlp`` (4n units wide); see `lit_rnn.models.blocks`.
        pooling: What the decoder reads of a sequence with one target: its ``last`` output, or the ``mean`` or ``max``
            of all, unit by unit.
        bidirectional: Every layer has a second cell that reads from the end, and gives both their outputs side by side;
            for tasks with one target a sequence.
    """

    training_options: ClassVar[frozenset[str]] = frozenset(
        (
            "optimizer",
            "group_optimizers",
            "lr_scheduler",
            "lr_scheduler_interval",
            "recurrent_lr_ratio",
            "input_init",
            "decoder_init",
            "backend",
            "checkpoint_every",
            "norm_penalty",
            "adversarial",
            "embedding_dropout",
            "input_dropout",
            "layer_dropout",
            "output_dropout",
            "weight_dropout",
            "branch_dropout",
        )
    )
    """Options that say how weights start, move or are computed; of given weights all others change the function.

    A subclass names only its own.
    """

    decays_recurrent: ClassVar[bool] = True  # whether weight decay reaches the group ``recurrent``
    predict_probabilities = False  # of a task with classes
    learned: Mapping[str, Any] = MappingProxyType({})
    """What the data of a loaded checkpoint had measured: `datamodules.SequenceDataModule.learned`."""

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
        lr_scheduler_interval: optim.Interval | None = None,
        backend: Backend = "auto",
        checkpoint_every: int | None = None,
        recurrent_constraint: Constraint = "none",
        constraint_bound: float = 1.0,
        norm_penalty: float = 0.0,
        adversarial: dict[str, Any] | None = None,
        embedding_size: int | None = None,
        tied_decoder: bool = False,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        branch_dropout: float = 0.0,
        encoder_size: int | None = None,
        residual: bool = False,
        norm: Norm = "none",
        mixing: Mixing = "none",
        pooling: Pooling = "last",
        bidirectional: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        whole(hidden_size, "model.init_args.hidden_size", 1)
        whole(layers, "model.init_args.layers", 1)
        for key, rate in (("recurrent_lr_ratio", recurrent_lr_ratio), ("norm_penalty", norm_penalty)):
            require(0 <= rate < torch.inf, f"model.init_args.{key}", rate, "0 or positive")
        whole_or_null(checkpoint_every, "model.init_args.checkpoint_every", 1)
        require(isinstance(task, Task | Mapping), "task", task, "a datamodules.Task, which data has as data.task")
        self.task = task if isinstance(task, Task) else Task(**task)
        self.adversarial = None if adversarial is None else AdversarialTraining.of(adversarial, self.task)
        self._save_primitives(given)
        optim.interval_of(self.hparams["lr_scheduler"], self.hparams["lr_scheduler_interval"])
        check_size(self)
        self._build(input_init)
        self.meters = Meters(self.task)
        self._warn_of_unread()

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
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """The model of a checkpoint, as Lightning's method of this name, under the rules of `lit_rnn.models.load`.

        ``SequenceModel.load_from_checkpoint`` gives the class that was saved.

        Args:
            checkpoint_path: The file.
            map_location: Where the model goes, as in `torch.load`; None is the CPU.
            hparams_file: Not taken: a checkpoint holds its hyperparameters.
            strict: Whether the weights must be those of the model, name by name; None is true.
            weights_only: None or true: nothing but primitives and tensors is ever read.
            **kwargs: Options of the model, instead of the checkpoint's.

        Raises:
            UserError: if it is no whole checkpoint, of another class, or does not fit the options.
        """
        from lit_rnn.models import loading  # it knows this class

        require(isinstance(checkpoint_path, str | os.PathLike), "checkpoint_path", checkpoint_path, "a file's path")
        require(hparams_file is None, "hparams_file", hparams_file, "None: give single options as keyword arguments")
        require(weights_only in (None, True), "weights_only", weights_only, "left out: files are not trusted")
        location = "cpu" if map_location is None else map_location
        checkpoint = loading.read_checkpoint(checkpoint_path, location)
        held = loading.class_of(checkpoint, checkpoint_path)
        if not issubclass(held, cls):
            raise UserError(
                f"{checkpoint_path} holds a {held.__name__}, which is no {cls.__name__}: call "
                f"{held.__name__}.load_from_checkpoint, or lit_rnn.models.load for whatever it holds."
            )
        lineage = [base for base in held.__mro__ if issubclass(base, SequenceModel)]
        known = {name for base in lineage for name in inspect.signature(base.__init__).parameters} - {"self", "kwargs"}
        for name in kwargs:
            if name not in known:
                raise UserError(f"{held.__name__} has no option {name!r}{did_you_mean(name, known)}.")
        model = loading.restored(held, checkpoint, checkpoint_path, kwargs, strict is not False)
        first = next(iter(checkpoint["state_dict"].values()), model.decoder.weight)
        return cast(Self, model.to(first.device))

    @classmethod
    def function_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a constructor's ``options`` that decide the function, the defaults of what is not given among them.

        `training_options` are left out, and the task; an option that nobody put there counts.
        """
        harmless = frozenset[str]().union(*(vars(base).get("training_options", ()) for base in cls._lineage()))
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in {**cls._defaults(), **options}.items()
            if key not in harmless and key != "task" and not key.startswith("_")
        }

    @classmethod
    def _lineage(cls) -> list[type[SequenceModel]]:
        return [base for base in reversed(cls.__mro__) if issubclass(base, SequenceModel)]

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Of the options of this class, where one has one."""
        return {
            name: parameter.default
            for base in cls._lineage()
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }

    def _warn_of_unread(self) -> None:
        """Tell of options that are not at their default and that the others leave without effect."""
        defaults = self._defaults()
        for key, beside in self.unread().items():
            value = self.options[key]
            if value != defaults[key]:
                warnings.warn(f"model.init_args.{key} is {value!r}, which has no effect with {beside}.", stacklevel=2)

    # ---- what an architecture says, beside `after_step`

    def unread(self) -> dict[str, str]:
        """Options that have no effect beside the others, and beside which: {"capacity": "layout: fft"}."""
        o = self.options
        unread = {"constraint_bound": "recurrent_constraint: none"} if o.recurrent_constraint == "none" else {}
        own = o.group_optimizers or ()
        rates = {f"{name}_lr_ratio": f"group_optimizers.{name}, whose rate is its own" for name in own}
        return unread | {key: beside for key, beside in rates.items() if key in o}

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Parameters by group name, a partition. Here: ``recurrent`` and ``other``."""
        return optim.with_other(self, recurrent=[p for cell in self.cell_list() for p in cell.recurrent_parameters()])

    def group_options(self) -> dict[str, dict[str, Any]]:
        """Optimizer options by group name; ``lr_ratio`` is the group's learning rate over the optimizer's."""
        undecayed = {} if self.decays_recurrent else {"weight_decay": 0.0}
        return {"recurrent": {"lr_ratio": self.options.recurrent_lr_ratio, **undecayed}}

    def penalty(self) -> Tensor | None:
        """What is added to the training loss, and not to the loss that is shown; None adds nothing."""
        return None

    # ---- training

    def loss_of(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean loss over what counts, from `forward`'s outputs; a subclass may weigh classes, say.

        Args:
            outputs: (B, target_size), or (B, T, target_size); without a mask also the steps that count alone.
            targets: As the Task says, of as many.
            mask: (B, T) bool, where targets count; None: everywhere.
        """
        if mask is not None:
            outputs, targets = at(outputs, mask), at(targets, mask)
        return loss_of(self.task, outputs, targets)

    def _shared_step(self, batch: Batch, stage: str, loader: int = 0) -> Tensor:
        """The loss of a batch, which is counted; ``loader`` is which of a stage's loaders it is of."""
        parts = Parts.of(batch)
        counts = parts.counts(self.task)
        y = self._features_of(parts, stage)
        # only where it counts
        outputs = self.decode(y, parts.lengths) if counts is None else self.decode_steps(at(y.transpose(0, 1), counts))
        loss = self.loss_of(outputs, parts.targets if counts is None else at(parts.targets, counts))
        share = parts.share(self.task)
        loss = loss if share is None else loss * share
        length = self._length_of(loader)
        self.meters.count(stage, loss, outputs, parts, length)
        self._log_meters(stage, length)
        return loss

    def _features_of(self, parts: Parts, stage: str) -> Tensor:
        """`features` of a batch, which in chunks of streams go on from the states after the last one of this stage."""
        if parts.reset is None:
            return self.features(parts.inputs, None, parts.lengths)[0]
        y, states = self.features(
            parts.inputs, self.carried.before(stage, parts.reset, parts.inputs.device), None, parts.reset
        )
        self.carried.keep(stage, states)
        return y

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # a seed per step and rank, so that a resumed run sees the same attacks and drops the same
        parts, step = self._parts(batch, "train", batch_idx), self.optimizer_steps
        seed = (step << 32) + (batch_idx << 12) + self.global_rank
        if self.dropouts.any():
            words = np.random.SeedSequence([getattr(self._data(), "seed", 0) or 0, seed]).generate_state(1, np.uint64)
            self.draws = torch.Generator().manual_seed(int(words[0]))
        if self.adversarial is not None:
            data = data_of(self._trainer)
            free = None if data is None else data.changeable(parts.filled())
            parts = parts._replace(inputs=self.adversarial.perturb(self, self.task, parts, step, seed, free))
        loss, shown = self._of_all_processes(self._shared_step(parts, "train"), parts)
        self.draws = None  # a generator cannot be copied
        self.shown_loss = None if shown is None else shown.detach()
        if shown is not None and self._loss_is_followed:
            self.log("train/loss_step", shown, prog_bar=shown.device.type == "cpu")  # which reads it at every step
        if getattr(self._data(), "curriculum", None) is not None:
            self.log("train/sequence_length", float(parts.inputs.shape[1]))
        penalty = self.penalty()
        if self.options.norm_penalty:
            loss = loss + self.options.norm_penalty * spectral_norm_penalty(self.cell_list())
        return loss if penalty is None else loss + penalty

    def _of_all_processes(self, loss: Tensor, parts: Parts) -> tuple[Tensor, Tensor | None]:
        """What this process goes back through, of its own mean loss, and what is shown, if any: see `models.joint`."""
        world_size = 1 if self._trainer is None else self._trainer.world_size
        if world_size == 1:
            return loss, loss if joint.anything_counts(self.task, parts) else None
        if joint.counts_may_differ(self.task, parts):
            return joint.joint_loss(loss, joint.how_many(self.task, parts), world_size)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning at run time
        logged = every > 0 and (self.optimizer_steps + 1) % every == 0
        return loss, joint.mean_loss(loss, world_size) if logged else loss

    def backends(self) -> list[str]:
        """The backend that each cell trains with."""
        passes, batch = max(((count, size) for (_, size), count in self._passes.items()), default=(0, None))
        asked, length = self.options.backend, self.task.length
        return [foreseen(asked, cell, passes, batch, length) for cell in self.cell_list()]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._shared_step(self._parts(batch, "val", batch_idx), "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._shared_step(self._parts(batch, "test", batch_idx), "test", dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, ...]:
        """Inputs, targets, predictions (`predicted_class` or numbers), and probabilities if `predict_probabilities`."""
        inputs, targets, _, lengths, _ = parts = self._parts(batch, "predict", batch_idx)
        outputs = self.decode(self._features_of(parts, "predict"), lengths)
        predictions = predicted_class(outputs) if self.task.classifies else as_plain(outputs)
        found = (as_plain(inputs), as_plain(targets), predictions)
        return (*found, as_plain(outputs).softmax(-1)) if self.predict_probabilities else found
