"""A run on Weights & Biases, which may be late, but never stops it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import string
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from datamodules.errors import UserError, one_line
from lit_rnn.files import read_text, write_json
from lit_rnn.loggers.lasting import named, telling

STEP = "trainer/global_step"  # Lightning's name of the x axis
_LOOK = 5.0  # seconds in which a server answers, or counts as lost
_INIT, _FINISH = 30.0, 60.0  # seconds; WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT say otherwise


class WandbDashboard(WandbLogger):
    """Lightning's W&B logger, for runs that must not depend on a server.

    - Without a key or a server at the start it goes offline, with one warning that says how to sync later.
    - What W&B raises later is one warning, and the run goes on. At the end, at most a minute is waited for uploads
      (``WANDB_FINISH_TIMEOUT``); what is left is on disk for ``wandb sync``.
    - A run folder is one W&B run: its id is kept in ``wandb.json``, and a resume goes on with it.

    The options are those of ``pytorch_lightning.loggers.WandbLogger``; ``log_model: true`` sends ``best.ckpt`` as an
    artifact.
    """

    lost = False
    _folder: Path | None = None
    _preempted = False

    # ---- begin

    def belong(self, folder: Path, name: str) -> None:
        """Be the W&B run of a run folder.

        Args:
            folder: The run's; the id of its W&B run is in ``wandb.json`` there, or will be.
            name: Shown for the run, unless the config gives another.
        """
        self._folder = folder
        kept = folder / "wandb.json"
        options = self._wandb_init
        if options.get("name") is None:
            options["name"] = name
        if options.get("id") is None:
            options["id"] = read_text(kept, "id") if kept.is_file() else _new_id()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run; one that takes no notice once W&B is lost."""
        if self.lost:
            return _DummyExperiment()
        if self._experiment is None:
            self._begin()
        return self._experiment

    def _begin(self) -> None:
        import wandb

        options = self._wandb_init
        options.pop("anonymous", None)  # Lightning always sends it, and wandb warns about it
        options.setdefault("settings", _patience())
        reason = None if self._is_offline() else _obstacle()
        try:
            if reason is None:
                try:
                    super().experiment  # noqa: B018  # makes it
                except wandb.errors.CommError as error:
                    reason = named(error)
                    _let_go()  # of the run that waits for its answer, or its id would be in use
            if reason is not None:
                options["mode"] = "offline"
                super().experiment  # noqa: B018
        except wandb.errors.UsageError as error:
            raise UserError(f"trainer.logger: W&B refuses its options: {one_line(error)}") from error
        if reason is not None:
            self._warn(f"W&B goes offline ({reason}); the run goes on")
        run = self._experiment
        if self._folder is not None and self._folder.is_dir() and run is not None:
            told = {"id": run.id, "project": run.project, "entity": run.entity, "url": run.url}
            write_json(self._folder / "wandb.json", told)

    def _is_offline(self) -> bool:
        """Whether the user wants no server."""
        import wandb

        mode = self._wandb_init.get("mode") or os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        return self._offline or str(mode) in ("offline", "dryrun", "disabled")

    def lose(self, error: BaseException) -> None:
        """Go on without W&B."""
        self.lost = True
        _let_go()
        self._warn(f"W&B takes no more notes ({named(error)}); the run goes on, and metrics.csv has everything")

    def _warn(self, what: str) -> None:
        runs = (
            f"{shlex.quote(str(self._wandb_init.get('dir') or '.'))}/wandb/*run-*-{self._wandb_init.get('id') or '*'}"
        )
        warnings.warn(f"{what}. Later: wandb sync --include-online {runs}", stacklevel=2)

    # ---- tell

    @telling
    def sections(self, metric: str, mode: Literal["max", "min"]) -> None:
        """Say which axis everything has, and which value is the best of a run.

        Args:
            metric: The headline metric.
            mode: Which of its values is the best.
        """
        for hidden in (STEP, "epoch"):
            self.experiment.define_metric(hidden, hidden=True)
        for stage in ("train", "val", "recurrent", "grad"):
            self.experiment.define_metric(f"{stage}/*", step_metric=STEP)
        for name, best in {"val/loss": "min", f"val/{metric}": mode}.items():
            self.experiment.define_metric(name, step_metric=STEP, summary=f"{best},last")

    @rank_zero_only
    @telling
    def log_hyperparams(self, params: Any) -> None:
        super().log_hyperparams(params)

    @rank_zero_only
    @telling
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)

    @rank_zero_only
    @telling
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        super().log_image(key, images, step, **kwargs)

    @rank_zero_only
    @telling
    def log_audio(self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any) -> None:
        super().log_audio(key, audios, step, **kwargs)

    @telling
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        super().log_table(key, columns, data, dataframe, step)  # type: ignore[arg-type]  # W&B takes any rows

    @telling
    def summarize(self, values: Mapping[str, Any]) -> None:
        """Put values into the summary of the run."""
        self.experiment.summary.update(dict(values))

    # ---- end

    def preempted(self) -> None:
        """The run is stopped from outside, and will be taken up again."""
        self._preempted = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the artifacts, then end W&B's run, waiting for uploads no longer than is set."""
        if self._experiment is None or self.lost:
            return
        self._finalize(status)
        if status in ("success", "failed") and not self.lost:
            self._finish(0 if status == "success" else 1)

    @telling
    def _finalize(self, status: str) -> None:
        super().finalize(status)

    @telling
    def _finish(self, code: int) -> None:
        run, self._experiment = self._experiment, None
        if self._preempted:
            run.mark_preempting()  # type: ignore[union-attr]  # finalize has looked
        run.finish(code)  # type: ignore[union-attr]  # finalize has looked


def _let_go() -> None:
    """End what is left of W&B in this process, or a dead service would have its say at the exit of Python."""
    import wandb

    with contextlib.suppress(Exception, SystemExit):
        wandb.teardown()


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _patience() -> Any:
    """W&B's settings, with its waits kept short where the environment does not say how long."""
    import wandb

    waits: dict[str, Any] = {"init_timeout": _INIT, "finish_timeout": _FINISH}
    left = {name: seconds for name, seconds in waits.items() if f"WANDB_{name}".upper() not in os.environ}
    return wandb.Settings(**left, finish_timeout_raises=True)


def _obstacle() -> str | None:
    """Why W&B cannot be online, found within seconds; None if nothing speaks against it."""
    import requests
    import wandb

    settings = wandb.setup().settings
    server = os.environ.get("WANDB_BASE_URL") or settings.base_url
    named = any(os.environ.get(f"WANDB_{name}") for name in ("API_KEY", "IDENTITY_TOKEN_FILE"))
    if not (named or settings.api_key or requests.utils.get_netrc_auth(server)):
        return "no key: set WANDB_API_KEY, or run wandb login"
    try:
        requests.head(server, timeout=_LOOK)
    except requests.RequestException as error:
        return f"{server} does not answer: {type(error).__name__}"
    return None
