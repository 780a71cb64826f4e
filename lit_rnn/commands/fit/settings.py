"""Lightning's options that cannot be used here, refused before anything is made."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from pytorch_lightning.strategies import StrategyRegistry

from datamodules import Task
from datamodules.arguments import OURS
from datamodules.errors import UserError, did_you_mean, one_line, require
from lit_rnn import optim
from lit_rnn.class_paths import loaded
from lit_rnn.memory import machine_memory
from lit_rnn.models import OrthogonalRNN, SequenceModel, averages
from lit_rnn.models.objectives import measured_names
from lit_rnn.runs.options import listed, walk

_REFUSED = {
    "StochasticWeightAveraging": "it saves other weights than it validates; WeightAveraging and EMAWeightAveraging do "
    "not",
    "LearningRateFinder": "the rate of the run would not be the one in config.yaml; a study tries rates",
    "BatchSizeFinder": "the batches would not be of the size in config.yaml; give data.init_args.batch_size",
    "ModelPruning": "it replaces the parameters that the recurrence reads",
    "OnExceptionCheckpoint": "last.ckpt is kept whatever ends a run",
}
_DEVICES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "gpu": ("GPU", (CUDAAccelerator, MPSAccelerator)),
    "cuda": ("CUDA GPU", (CUDAAccelerator,)),
    "mps": ("Apple GPU", (MPSAccelerator,)),
    "tpu": ("TPU", (XLAAccelerator,)),
}
_PROCESS = 0.8e9  # bytes that a process takes before it has a model, as measured
_LEAST = {  # numbers that Lightning would take, and then fail or do something else
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
    "num_nodes": 1,
    "min_epochs": 0,
    "min_steps": 0,
}
_COPIES = r"spawn|fork|notebook"
_CLUSTERS = (SLURMEnvironment, TorchElasticEnvironment, LSFEnvironment, MPIEnvironment)  # Kubeflow sets MASTER_ADDR
_PRECISIONS = "64-true, 32-true, bf16-true, 16-true, bf16-mixed, or 16-mixed on a GPU"


def has_end(trainer: Any) -> bool:
    """Whether a trainer config says when training is over."""
    if trainer.max_epochs is not None or trainer.max_steps != -1 or trainer.max_time is not None:
        return True
    return bool(trainer.fast_dev_run) or has_timer(trainer)


def has_timer(trainer: Any) -> bool:
    """Whether a Timer callback ends training."""
    arguments = [(entry.class_path, entry.get("init_args")) for entry in listed(trainer.callbacks)]
    return any(path.endswith(".Timer") and options.get("duration") is not None for path, options in arguments)


def _check_duration(key: str, given: Any) -> None:
    """Refuse a time limit that Lightning cannot read, or that ends before the first step."""
    options = vars(given) if isinstance(given, Namespace) else given
    try:
        limit = Timer(options).time_remaining()  # in seconds, as Lightning reads it
    except (MisconfigurationException, TypeError, ValueError, AttributeError, OverflowError):
        limit = 0.0
    accepted = "a positive time, as DD:HH:MM:SS or as {hours: 12}, or null for no limit"
    require(limit is None or limit > 0, key, given, accepted)


def check_written(trainer: Any, command: str) -> None:
    """Refuse a trainer config that asks for what no run here can do.

    Raises:
        UserError: naming the key.
    """
    accepted = "a mapping of the Trainer's options, such as {max_epochs: 10}"
    require(isinstance(trainer, Namespace), "trainer", trainer, accepted)
    for key in ("max_epochs", "max_steps", "limit_train_batches") if command == "fit" else ():
        value = trainer.get(key)
        if value == 0 and value is not False:
            raise UserError(f"trainer.{key} is {value}, so nothing would be trained: raise it, or leave it out.")
    for key, least in _LEAST.items():
        value = trainer.get(key)
        require(value is None or value >= least, f"trainer.{key}", value, f"a whole number of at least {least}")
    _check_duration("trainer.max_time", trainer.max_time)
    clipped = trainer.gradient_clip_val
    fits = clipped is None or 0 <= clipped < math.inf
    require(fits, "trainer.gradient_clip_val", clipped, "a positive number, or null or 0 for no clipping")
    if isinstance(trainer.strategy, str):
        names = ("auto", *StrategyRegistry.available_strategies())
        accepted = f"one of {', '.join(name for name in names if not re.search(_COPIES, name))}"
        meant = did_you_mean(trainer.strategy, names)
        require(trainer.strategy in names, "trainer.strategy", trainer.strategy, accepted + meant)
    if command == "fit" and not has_end(trainer):
        raise UserError(
            "trainer.max_epochs is not given: set it, or trainer.max_steps or max_time, or the run has no end."
        )
    if trainer.default_root_dir is not None:
        raise UserError("trainer.default_root_dir is given, but the run folder is named by --run_dir: use that.")
    for entry in listed(trainer.callbacks):
        name = entry.class_path.rpartition(".")[2]
        if name in _REFUSED:
            raise UserError(f"trainer.callbacks names {name}, which cannot be used here: {_REFUSED[name]}.")
        if name == "Timer":
            _check_duration("trainer.callbacks (Timer): duration", (entry.get("init_args") or {}).get("duration"))
    require(not trainer.barebones, "trainer.barebones", True, "false: a run keeps its metrics and checkpoints")
    for_tpu = "xla" in str(trainer.profiler).lower()
    require(not for_tpu, "trainer.profiler", trainer.profiler, "simple, advanced or pytorch: this one is of TPUs")
    replaced = "transformer-engine" in str(trainer.precision)
    why = f"{_PRECISIONS}: Transformer Engine replaces linear layers whose weights the recurrence reads"
    require(not replaced, "trainer.precision", trainer.precision, why)
    strategy = str(trainer.strategy)
    copied = re.search(_COPIES, strategy) is not None
    require(not copied, "trainer.strategy", strategy, "ddp for several processes, each of which runs the command")


def check_devices(trainer: Any) -> None:
    """Refuse a trainer config that asks for a GPU or TPU where there is none.

    Raises:
        UserError: saying what to set instead, and what may be missing.
    """
    accelerator, devices = trainer.accelerator, trainer.devices
    alone = "MASTER_ADDR" not in os.environ
    if trainer.num_nodes > 1 and alone and not any(cluster.detect() for cluster in _CLUSTERS):
        raise UserError(
            f"trainer.num_nodes is {trainer.num_nodes}, but nothing says where the other nodes are: start the command "
            "by torchrun or Slurm on every node, or set MASTER_ADDR and NODE_RANK, or leave it out."
        )
    if isinstance(accelerator, str) and accelerator in _DEVICES:
        what, kinds = _DEVICES[accelerator]
        if not any(kind.is_available() for kind in kinds):
            hint = _missing_cuda() if CUDAAccelerator in kinds else ""
            raise UserError(
                f"trainer.accelerator is {accelerator!r}, but torch finds no {what} on this machine: set it to cpu, or "
                f"to auto, which takes a GPU where there is one{hint}."
            )
    require(str(devices) != "0", "trainer.devices", devices, "a whole number of at least 1, or auto")
    several = re.fullmatch(r"\d+", str(devices)) is not None and int(devices) > 1
    if accelerator == "auto" and several and not any(k.is_available() for _, kinds in _DEVICES.values() for k in kinds):
        raise UserError(
            f"trainer.devices is {devices}, but there is no GPU on this machine: leave it out, or add "
            f"--trainer.accelerator cpu for {devices} processes on the CPU."
        )
    memory = machine_memory() or math.inf
    if accelerator == "cpu" and several and int(devices) * _PROCESS > memory:
        raise UserError(
            f"trainer.devices is {devices}, but so many processes need about {int(devices) * _PROCESS / 1e9:,.0f} GB "
            f"of memory, and this machine has {memory / 1e9:.0f} GB: at most {memory / _PROCESS:.0f} fit."
        )


def _missing_cuda() -> str:
    """What to look at where torch finds no GPU."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f". This torch ({torch.__version__}) is built without CUDA: a GPU needs another build, see pytorch.org"
    return ". If there is a GPU, see whether nvidia-smi lists it and CUDA_VISIBLE_DEVICES hides it"


def check_probabilities(task: Task) -> None:
    """Refuse to write probabilities where a task has none.

    Raises:
        UserError: naming the task.
    """
    accepted = f"left out: {task.name} has {task.targets} targets, not classes"
    require(task.classifies, "probabilities", True, accepted)


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse options that the parser takes, and with which a class could not be built as it is meant.

    Raises:
        UserError: naming the key.
    """
    _check_past_options(config)
    for top in ("model", "data"):
        _check_wanted(top, config[top])


def _check_wanted(top: str, given: Mapping[str, Any]) -> None:
    """Refuse a class of the user's without an option that has no default: one without annotation is null by then."""
    cls, options = loaded(given["class_path"], object), given.get("init_args") or {}
    for name, parameter in inspect.signature(cls).parameters.items() if cls else ():
        wanted = parameter.default is parameter.annotation is parameter.empty
        if wanted and options.get(name, 0) is None and name != "task":
            key = f"{top}.init_args.{name}"
            raise UserError(f"{key} is missing; give it in the config or as --{key}.")


def _check_past_options(config: Mapping[str, Any]) -> None:
    """Refuse what goes past the options of a class that takes no others: building it would fail."""
    for key, value in walk(config, ""):
        given = value.get("dict_kwargs") if isinstance(value, Mapping) else None
        cls = loaded(value["class_path"], object) if given else None
        if cls is None:
            continue
        others = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls).parameters.values())
        passed_on = cls.__module__.partition(".")[0] in OURS  # to a class that takes no others
        accepted = f"left out: {cls.__name__} takes its options by init_args alone"
        require(others and not passed_on, f"{key}.dict_kwargs", given, accepted)


def seed_data(config: Any) -> None:
    """Give the run's seed to data that take one and were given none."""
    options = config.data.get("init_args") or {}  # of a class without options there are none
    if options.get("seed", 0) is None:
        options["seed"] = int(config.seed_everything)


def write_out_optimizer(model: Any) -> None:
    """Put the optimizer that a model takes by default into its config, so that config.yaml says what ran."""
    options, cls = model.init_args, loaded(model.class_path, SequenceModel)
    if cls is None or "optimizer" not in options or options.optimizer is not None:
        return
    default = cls.default_optimizer
    options["optimizer"] = Namespace(class_path=default["class_path"], init_args=Namespace(optim.options_of(default)))


def check_written_whole(config: str) -> None:
    """Refuse a config that config.yaml could not keep whole: it could not be run again.

    Args:
        config: The config as config.yaml would have it.
    """
    lost = re.search(r"^\s*-? ?(\w+): .*Unable to serialize instance (.*?)['\"]?$", config, re.MULTILINE)
    if lost:
        raise UserError(f"{lost[1]} is {lost[2]}, which config.yaml cannot keep: leave it out, or give it as text.")


@contextlib.contextmanager
def in_sentences(precision: Any) -> Iterator[None]:
    """Turn what Lightning refuses of a trainer's options into one sentence.

    Raises:
        UserError: naming the option where it is the precision.
    """
    try:
        with warnings.catch_warnings():
            # Lightning would run bf16-mixed, and config.yaml say otherwise
            warnings.filterwarnings("error", "You passed .*16-mixed.*not supported on CPU")
            yield
    except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"trainer cannot be built: {one_line(error)}") from error
    except UserWarning as warning:
        accepted = "bf16-mixed (or bf16-true, 16-true): a CPU has no float16 arithmetic for the mixed one"
        raise UserError(f"trainer.precision is {precision!r}, but it must be {accepted}.") from warning


def check_callbacks(
    trainer: Mapping[str, Any], added: Sequence[Any], model: SequenceModel, lengths: Sequence[int]
) -> None:
    """Refuse callbacks that would train or report something other than what the config says, or not resume as it was.

    Args:
        trainer: The config's, with the callbacks that it names.
        added: Those that the run has beside them.
        model: What they would watch.
        lengths: Others than that of training at which that is measured.

    Raises:
        UserError: naming the callback.
    """
    key, chosen, validates = "trainer.callbacks", listed(trainer["callbacks"]), trainer["limit_val_batches"] != 0
    averages.check(chosen, model)
    for callback in chosen:
        name = type(callback).__name__
        monitor = getattr(callback, "monitor", None)
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and monitor is not None:
            names = measured_names(model.task, lengths) if validates else []
            _check_monitor(f"{key}: the monitor of {name}", monitor, model, [f"val/{name}" for name in names])
    check_states(chosen, added)


def check_states(chosen: Sequence[Any], added: Sequence[Any]) -> None:
    """Refuse callbacks that a checkpoint would keep one state for, as `check_callbacks` does.

    Raises:
        UserError: naming the callback.
    """
    ours = {callback.state_key for callback in added if _keeps_state(callback)}
    seen: set[str] = set()
    for callback in filter(_keeps_state, chosen):
        name, key = type(callback).__name__, callback.state_key
        monitors = "monitor" in inspect.signature(type(callback)).parameters
        what, instead = (f" with the monitor {callback.monitor}", ", or give it another") if monitors else ("", "")
        if key in ours:
            raise UserError(f"trainer.callbacks names {name}{what}, which every run has: leave it out{instead}.")
        if key in seen:
            why = "but a checkpoint keeps one state for both: leave one out"
            raise UserError(f"trainer.callbacks names {name} twice{what}, {why}{instead}.")
        seen.add(key)


def _keeps_state(callback: Callback) -> bool:
    """Whether a checkpoint keeps something of it, under its state key."""
    own = (getattr(type(callback), name, None) for name in ("state_dict", "load_state_dict"))
    return any(method not in (Callback.state_dict, Callback.load_state_dict) for method in own)


def _check_monitor(key: str, monitor: str, model: SequenceModel, validated: Sequence[str]) -> None:
    if not type(model).__module__.startswith("lit_rnn.") or monitor.startswith("lr-"):
        return  # a user's own model may log more
    known = [f"train/{name}" for name in measured_names(model.task)] + [*validated, "train/loss_step"]
    known += ["recurrent/drift"] if isinstance(model, OrthogonalRNN) else []
    require(monitor in (*known, "epoch", "step"), key, monitor, f"one of {', '.join(known)}")
