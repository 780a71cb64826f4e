"""``python -m lit_rnn fit|validate|test|predict``: LightningCLI with run folders and checkpoints checked first."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from yaml import YAMLError

from datamodules import SequenceDataModule, UserError
from datamodules.errors import require
from lit_rnn import blame, run_config, run_folder, settings
from lit_rnn.arguments import complete, explain, one_line
from lit_rnn.callbacks import DivergedError, Stopped
from lit_rnn.class_paths import class_path, loaded
from lit_rnn.files import check_yaml
from lit_rnn.models import SequenceModel, changes, made_on, read_checkpoint
from lit_rnn.models.loading import class_of
from lit_rnn.threads import use_threads
from lit_rnn.trainer import chosen, draws_bar, run_callbacks, run_loggers, run_plugins

_load_yaml = get_loader("yaml")


def _load_measured(text: str) -> Any:
    check_yaml(text)
    return _load_yaml(text)


# no YAML is built before it is measured, and no class is made where an option takes anything
set_loader("yaml", _load_measured, (YAMLError,))
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class _RefusedError(Exception):
    """What the parser says, before it is put in a sentence."""


class Parser(LightningArgumentParser):
    """Raises instead of printing usage and leaving; takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # or a misspelt --trainer.max_epoch would pass
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise _RefusedError(message) from ex


class SaveRun(SaveConfigCallback):
    """config.yaml and versions.json in the run folder, and the config to every logger."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not run_folder.keeps_files(trainer):
            return
        folder = Path(trainer.default_root_dir)
        config = self.parser.dump(self.config, skip_none=False)
        for name, text in (("config.yaml", config), ("versions.json", json.dumps(versions(), indent=1) + "\n")):
            path = folder / name
            number = 1
            while path.exists() and path.read_text() != text:  # a resume with other options: keep both
                number += 1
                path = folder / f"{Path(name).stem}-{number}{path.suffix}"
            path.write_text(text)
        for logger in trainer.loggers:
            logger.log_hyperparams(json.loads(self.parser.dump(self.config, skip_none=False, format="json")))


def versions() -> dict[str, Any]:
    """What the numbers of a run depend on besides its config."""
    packages = (
        "lit_rnn",
        "pytorch-lightning",
        "torchmetrics",
        "torchvision",
        "numpy",
        "scipy",
        "jsonargparse",
    )
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build: CPU and CUDA round differently
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **{package: version(package) for package in packages},
    }


class CLI(LightningCLI):
    """LightningCLI with the Task linked from data to model, run folders, and checkpoints checked before they load."""

    run_dir: Path

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            SequenceModel,
            SequenceDataModule,
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"log_every_n_steps": 10, "enable_model_summary": False},
            seed_everything_default=1,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m lit_rnn"},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=list(arguments),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Run folder; runs/<data>-<model>-<number> if not given."
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads; if not given, as many as there are cores for this process, and one for NumPy.",
        )
        parser.link_arguments(
            "data", "model.init_args.task", compute_fn=lambda data: asdict(data.task), apply_on="instantiate"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # `run` gives a list

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's hyperparameters must not beat the command line; `_checkpoint` compares them."""

    def before_instantiate_classes(self) -> None:
        self.config[self.subcommand] = config = _plain(self.config[self.subcommand])
        run_config.check_places(config.as_dict())
        use_threads(config.threads)
        torch.set_flush_denormal(True)  # vanishing gradients are denormal, and x86 is up to 15 times slower on those
        settings.check_written(config.trainer, str(self.subcommand))
        settings.check_written_whole(self.parser.dump(self.config))
        if config.trainer.max_epochs is None and settings.has_timer(config.trainer):
            config.trainer.max_epochs = -1  # else Lightning stops it after 1000
        if config.get("weights_only") not in (None, True):
            raise UserError("weights_only is false, but a checkpoint is read without running its code: leave it out.")
        if "seed" in config.data.init_args and config.data.init_args.seed is None:
            config.data.init_args.seed = int(config.seed_everything)
        self.run_dir = self._choose_folder(config)
        if config.ckpt_path is not None:
            config.ckpt_path = str(self._checkpoint(config))
        if not config.trainer.fast_dev_run:
            run_folder.check(self.run_dir, starts=self.subcommand == "fit" and config.ckpt_path is None)
        self._keep_wandb_in(self.run_dir, config.trainer.logger)

    @staticmethod
    def _keep_wandb_in(folder: Path, loggers: Any) -> None:
        """W&B's own folder goes into the run folder, unless the config puts it elsewhere."""
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and logger.class_path.endswith("WandbLogger") and arguments.save_dir == ".":
                arguments.save_dir = str(folder)

    def _choose_folder(self, config: Any) -> Path:
        if config.run_dir is not None:
            require(config.run_dir.strip() != "", "run_dir", config.run_dir, "the name of a folder")
            return Path(config.run_dir)
        data, model = (str(config[key].class_path).rpartition(".")[2] for key in ("data", "model"))
        name = f"{data}-{model}".lower()
        if config.ckpt_path in ("last", "best"):
            return run_folder.newest(name) or run_folder.RUNS / f"{name}-1"
        if config.ckpt_path is not None and self.subcommand != "fit":
            return run_folder.folder_of(Path(config.ckpt_path)) or run_folder.fresh(name)
        return run_folder.fresh(name)

    def _checkpoint(self, config: Any) -> Path:
        """The file that ckpt_path means, after a look inside: it must hold the model that the config describes."""
        named = {"last": run_folder.last_checkpoint, "best": run_folder.best_checkpoint}
        path = named[config.ckpt_path](self.run_dir) if config.ckpt_path in named else Path(config.ckpt_path)
        kept = read_checkpoint(path)
        held, self._made_with, self._kept = class_of(kept, path), kept["hyper_parameters"], kept["lit_rnn"]
        run_config.check_state(kept.get("callbacks"), path)
        self._shapes = {name: tensor.shape for name, tensor in held.weights_in(kept["state_dict"]).items()}
        if held is not loaded(config.model.class_path, SequenceModel):
            raise UserError(
                f"ckpt_path {path} holds a {class_path(held)}, but model.class_path is {config.model.class_path}; "
                "give the config that the checkpoint was made with."
            )
        return path

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything cannot be used: {error}.") from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:  # jsonargparse wraps what constructors raise
            raise blame.refusal(error) or error from None

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint whose weights would not fit, or make another function, before the run starts."""
        config = self.config[self.subcommand]
        if "seed" not in config.data.init_args:  # data of a user's own, which may not care
            self.datamodule.seed = int(config.seed_everything)
        made_with = getattr(self, "_made_with", None)
        if made_with is None:
            return
        given, kept = self.model.hparams["task"], made_with["task"]
        if any(given[size] != kept[size] for size in ("inputs", "input_size", "targets", "target_size")):
            raise UserError(
                f"data gives a task with {given['inputs']} of {given['input_size']} and {given['target_size']} "
                f"targets, but the checkpoint was made on {kept['name']} with {kept['inputs']} of "
                f"{kept['input_size']} and {kept['target_size']} targets: use the data it was made on."
            )
        given, kept = (self.model.function_options(options) for options in (self.model.hparams, made_with))
        for key, value in given.items():
            if kept.get(key) != value:
                raise UserError(
                    f"model.init_args.{key} is {value!r}, but the checkpoint was made with {kept.get(key)!r}, and its "
                    "weights are those of another function then: use the same."
                )
        weights = self.model.weights_in(self.model.state_dict())
        if self._shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise UserError("The checkpoint's weights do not fit this version's model: train it again.")
        if self.subcommand == "fit":
            changes.check(self.model, made_with)
            checkpoint = {"lit_rnn": self._kept, "hyper_parameters": made_with}
            made_on.refuse(made_on.differences(checkpoint, self.datamodule, self.model.task))

    def _run_subcommand(self, subcommand: str) -> None:
        leaves_files = not self.config[self.subcommand].trainer.fast_dev_run
        claim = run_folder.Claim(self.run_dir) if leaves_files else None
        try:
            super()._run_subcommand(subcommand)
        except (DivergedError, Stopped):
            raise
        except Exception as error:
            refused = blame.refusal(error, self._added)
            if refused is None:
                raise
            if claim is not None:
                claim.take_back()
            raise refused from error

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return {**kwargs, "verbose": False} if "verbose" in kwargs else kwargs  # the table at the end is ours

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given, command = self._get(self.config_init, "trainer"), str(self.subcommand)
        settings.check_callbacks(chosen(given), self.model, validates=given["limit_val_batches"] != 0)
        self.trainer_defaults["callbacks"] = run_callbacks(self.run_dir, self.model, given, command)
        loggers = run_loggers(self.run_dir, given["logger"], command)
        self._added = [*chosen(given), *(loggers if isinstance(loggers, list) else [])]
        try:
            with warnings.catch_warnings():
                # Lightning would run bf16-mixed, and config.yaml say otherwise
                warnings.filterwarnings("error", "You passed .*16-mixed.*not supported on CPU")
                trainer = super().instantiate_trainer(
                    default_root_dir=str(self.run_dir),
                    logger=loggers,
                    plugins=run_plugins(given["plugins"]),
                    enable_progress_bar=draws_bar(given),
                    **kwargs,
                )
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            raise UserError(f"trainer cannot be built: {one_line(str(error))}") from error
        except UserWarning as warning:
            accepted = "bf16-mixed (or bf16-true, 16-true): a CPU has no float16 arithmetic for the mixed one"
            raise UserError(f"trainer.precision is {given['precision']!r}, but it must be {accepted}.") from warning
        if trainer.num_devices > 1:
            use_threads(self.config[self.subcommand].threads, processes=trainer.num_devices)
            os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # or Lightning counts the cores in its own way
        return trainer


def _plain(value: Any) -> Any:
    """A config with Lightning's enums, such as Timer's interval, as the text that YAML can hold."""
    if isinstance(value, Namespace):
        for key, inner in vars(value).items():
            value[key] = _plain(inner)
    elif isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value.value) if isinstance(value, Enum) and isinstance(value, str) else value


def run(command: str, arguments: Sequence[str]) -> None:
    """Run one Lightning subcommand."""
    completed = [command, *complete(command, arguments)]
    try:
        CLI(completed)
    except _RefusedError as error:
        raise blame.refusal(error) or UserError(explain(str(error), completed)) from error
    finally:
        run_folder.forget_choice()
