"""What a dashboard shows and metrics.csv does not need: the best value of a run, and the norms of gradients."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import MLFlowLogger
from torch.optim import Optimizer

from lit_rnn.files import write_json
from lit_rnn.loggers import WandbDashboard, show
from lit_rnn.models import SequenceModel
from lit_rnn.models.objectives import better
from lit_rnn.runs.endings import Stopped
from lit_rnn.runs.folder import keeps_files


class Dashboard(Callback):
    """Sets up W&B's sections, and logs ``grad/norm`` and ``grad/norm_<group>``, before clipping, to the dashboards.

    The norms are taken at every ``trainer.log_every_n_steps``-th step only: a norm makes a GPU wait for the host.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and isinstance(pl_module, SequenceModel):
            for logger in trainer.loggers:
                if isinstance(logger, WandbDashboard):
                    logger.sections(pl_module.task.metric, better(pl_module.task))
                elif isinstance(logger, MLFlowLogger) and keeps_files(trainer):  # a resume goes on with the run
                    kept = Path(trainer.default_root_dir) / "mlflow.json"
                    if logger.run_id is not None:  # a server was there
                        write_json(kept, {"run_id": logger.run_id})

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning at run time
        if not trainer.is_global_zero or not keeps_files(trainer) or (trainer.global_step + 1) % max(every, 1):
            return
        norms: dict[str, torch.Tensor] = {}
        for number, group in enumerate(optimizer.param_groups):
            parts = [p.grad.detach().norm().double() for p in group["params"] if p.grad is not None]
            if parts:
                norms[f"grad/norm_{group.get('name', number)}"] = torch.stack(parts).norm()
        if norms:
            norms["grad/norm"] = torch.stack(list(norms.values())).norm()
            values = {name: float(norm) for name, norm in norms.items()}
            for logger in show.dashboards(trainer):
                logger.log_metrics(values, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped) and exception.signum != signal.SIGINT:
            for logger in trainer.loggers:
                if isinstance(logger, WandbDashboard):
                    logger.preempted()
