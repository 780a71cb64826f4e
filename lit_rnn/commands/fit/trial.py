"""What a command line would build, without the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from lit_rnn.commands.arguments import complete
from lit_rnn.commands.config_parser import in_sentences
from lit_rnn.commands.fit import settings
from lit_rnn.commands.fit.command import CLI
from lit_rnn.commands.quiet import quiet_lightning
from lit_rnn.models.base import count_parameters
from lit_rnn.runs import folder as run_folder


class Trial(CLI):
    """All that `fit` builds, its optimizer too, without a run: no data is read, and nothing is written.

    Args:
        here: Whether the run would be on this machine; else it is not asked for the run's devices.

    Attributes:
        resolved: The whole config of the run.
    """

    resolved: dict[str, Any]

    def __init__(self, arguments: Sequence[str], here: bool) -> None:
        self._here = here
        super().__init__(arguments)

    def before_instantiate_classes(self) -> None:
        self.resolved = self.config[self.subcommand].as_dict()
        trainer = self.config[self.subcommand].trainer
        settings.check_written(trainer, "fit")
        trainer.fast_dev_run = True  # leaves every folder alone
        if not self._here:
            trainer.accelerator, trainer.devices, trainer.num_nodes = "cpu", 1, 1
            trainer.strategy, trainer.precision = "auto", None
        super().before_instantiate_classes()
        trainer.logger = False  # some write when they are built

    def _run_subcommand(self, subcommand: str) -> None:
        self.model.configure_optimizers()


def try_out(arguments: Sequence[str], here: bool = True) -> tuple[dict[str, Any], int]:
    """The whole config that ``fit`` with these arguments has, and how many trainable parameters its model.

    Raises:
        UserError: where ``fit`` would before it has read its data.
    """
    quiet_lightning()
    completed = ["fit", *complete("fit", arguments)]
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        with in_sentences(completed):
            trial = Trial(completed, here)
        return trial.resolved, count_parameters(trial.model)
    finally:
        torch.set_flush_denormal(False)
        run_folder.forget_choice()
        for name, value in seeds.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
