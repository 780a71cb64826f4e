"""``python -m lit_rnn fit|validate|test|predict``: the config parsed and checked, then Lightning's loops."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer

from datamodules.errors import UserError
from lit_rnn import blame
from lit_rnn.commands.arguments import complete
from lit_rnn.commands.config_parser import ConfigCLI, in_sentences
from lit_rnn.commands.fit import settings
from lit_rnn.commands.fit.saved import SaveRun
from lit_rnn.commands.fit.subject import Taken, check_fits, enter, plain, prepared_loggers, run_name, take, unrestored
from lit_rnn.commands.fit.trainer import chosen, draws_bar, run_callbacks, run_loggers, run_plugins, told_of_answers
from lit_rnn.commands.quiet import quiet_lightning
from lit_rnn.runs import folder as run_folder
from lit_rnn.runs import limits
from lit_rnn.runs.endings import AllDone, DivergedError, Stopped
from lit_rnn.runs.ranks import end_all, lost_worker, processes_per_share, take_over, wait_for_all
from lit_rnn.threads import use_threads


class CLI(ConfigCLI):
    """Lightning's commands with run folders, and checkpoints checked before they load."""

    run_dir: Path
    _claim: run_folder.Claim | None = None
    _taken: Taken | None = None

    def __init__(self, arguments: Sequence[str]) -> None:
        try:
            super().__init__(arguments, save_config_callback=SaveRun, save_config_kwargs={"save_to_log_dir": False})
        except (UserError, Stopped):
            if self._claim is not None:
                self._claim.take_back()
            raise
        finally:
            if self._claim is not None:
                self._claim.release()

    def before_instantiate_classes(self) -> None:
        self.config[self.subcommand] = config = plain(self.config[self.subcommand])
        limits.check_parsed(config.as_dict())
        settings.check_options(config.as_dict())
        use_threads(config.threads)
        torch.set_flush_denormal(True)  # vanishing gradients are denormal, and x86 is up to 15 times slower on those
        settings.check_written(config.trainer, str(self.subcommand))
        settings.check_devices(config.trainer)
        settings.write_out_optimizer(config.model)
        settings.check_written_whole(self.parser.dump(self.config))
        if config.trainer.max_epochs is None and settings.has_timer(config.trainer):
            config.trainer.max_epochs = -1  # else Lightning stops it after 1000
        if config.get("weights_only") not in (None, True):
            raise UserError("weights_only is false, but a checkpoint is read without running its code: leave it out.")
        settings.seed_data(config)
        self.run_dir, self._claim = enter(config, str(self.subcommand))
        if config.ckpt_path is not None:
            self._taken = take(config, self.run_dir, str(self.subcommand))
            config.ckpt_path = str(self._taken.path)
        self._loggers = config.trainer.logger
        config.trainer.logger = prepared_loggers(self.run_dir, self._loggers)

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
        config = self.config[self.subcommand]
        if "seed" not in (config.data.get("init_args") or {}):  # a user's own data need not use it
            self.datamodule.seed = int(config.seed_everything)
        if config.get("probabilities"):
            settings.check_probabilities(self.model.task)
            self.model.predict_probabilities = True
        limits.check_memory(self.model, self.datamodule, self.trainer.strategy.root_device, self.subcommand == "fit")
        if self._taken is not None:
            check_fits(self.model, self.datamodule, self._taken, str(self.subcommand))

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
            wait_for_all(self.trainer)
        except (DivergedError, Stopped) as ending:
            end_all(self.trainer, ending, told=True)
            raise
        except Exception as error:
            refused = lost_worker(error) or blame.refusal(error, self._added) or unrestored(error, self._taken)
            try:
                end_all(self.trainer, error, told=refused is not None)
            except SystemExit as ended:
                if self._claim is not None and ended.code == 2:
                    self._claim.take_back()
                raise
            if refused is None:
                raise
            raise refused from error

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return {**kwargs, "verbose": False} if "verbose" in kwargs else kwargs  # the table at the end is ours

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given, command = self._get(self.config_init, "trainer"), str(self.subcommand)
        self.config[command].trainer.logger = self._loggers  # config.yaml has them as given: a folder may be moved
        self.trainer_defaults["callbacks"] = added = run_callbacks(self.run_dir, self.model, given, command)
        added += told_of_answers(self.config[command], self.run_dir, self.datamodule, command)
        settings.check_callbacks(given, added, self.model, list(self.datamodule.other_tasks()))
        name = run_name(self.model, self.config[command].seed_everything)
        loggers = run_loggers(self.run_dir, given["logger"], command, name)
        self._added = [*chosen(given), *(loggers if isinstance(loggers, list) else [])]
        with settings.in_sentences(given["precision"]):
            trainer = super().instantiate_trainer(
                default_root_dir=str(self.run_dir),
                logger=loggers,
                plugins=run_plugins(self.run_dir, given["plugins"]),
                enable_progress_bar=draws_bar(given),
                **kwargs,
            )
        take_over(trainer)
        if trainer.strategy.launcher is not None:
            use_threads(self.config[self.subcommand].threads, processes=processes_per_share(trainer))
            os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # or Lightning counts the cores in its own way
        return trainer


def run(command: str, arguments: Sequence[str]) -> None:
    """Run one Lightning subcommand."""
    quiet_lightning()
    completed = [command, *complete(command, arguments)]
    try:
        with in_sentences(completed):
            CLI(completed)
    except AllDone as done:
        print(done)
    finally:
        run_folder.forget_choice()
