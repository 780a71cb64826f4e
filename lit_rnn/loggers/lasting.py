"""Loggers that may be lost: the run goes on without them."""

from __future__ import annotations

import contextlib
import functools
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lightning_fabric.loggers.logger import _DummyExperiment
from pytorch_lightning.loggers import CometLogger, LitLogger, Logger, MLFlowLogger, TensorBoardLogger

from datamodules.errors import UserError, chain, one_line

_PATIENCE = {  # that MLflow reads; by default it tries for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",  # within half a minute
}


def named(error: BaseException) -> str:
    """An error in a few words, without advice."""
    text = one_line(error).partition(" Consider ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def telling(method: Callable[..., None]) -> Callable[..., None]:
    """A method that tells a logger something: what fails goes to its ``lose``, and once lost it is told nothing."""

    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.lost:
            return
        try:
            method(self, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:  # whatever its client raises: the run goes on
            self.lose(error)

    return told


class _Lasting(Logger):
    """What `outlast` puts over a logger."""

    lost = False

    def lose(self, error: BaseException) -> None:
        """Say once that nothing more is told."""
        if not self.lost:
            self.lost = True
            why = textwrap.shorten(named(error), 160, placeholder=" ...")
            what = f"{type(self).__name__} takes no more notes ({why})"
            warnings.warn(f"{what}; the run goes on, and metrics.csv has everything.", stacklevel=2)

    @property
    def experiment(self) -> Any:
        """The logger's; one that takes no notice once that is lost. What is refused for another reason is raised."""
        try:
            return _DummyExperiment() if self.lost else super().experiment  # type: ignore[misc]  # that of the logger beside it
        except Exception as error:  # each client has its own for a server that is away
            if not _is_unreachable(error):
                raise
            self.lose(error)
            return _DummyExperiment()

    @telling
    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        super().log_metrics(*args, **kwargs)  # type: ignore[safe-super]  # that of the logger beside it

    @telling
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        super().log_hyperparams(*args, **kwargs)  # type: ignore[safe-super]  # that of the logger beside it

    @telling
    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        super().log_graph(*args, **kwargs)

    @telling
    def save(self) -> None:
        super().save()

    @telling
    def after_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super().after_save_checkpoint(*args, **kwargs)

    @telling
    def finalize(self, *args: Any, **kwargs: Any) -> None:
        super().finalize(*args, **kwargs)


def outlast(logger: Logger) -> None:
    """Let one of Lightning's loggers warn once where its server or its files are lost, instead of stopping the run."""
    if isinstance(logger, CometLogger | LitLogger | MLFlowLogger | TensorBoardLogger):
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        cls = type(logger)
        logger.__class__ = type(cls.__name__, (_Lasting, cls), {"__module__": cls.__module__})


@contextlib.contextmanager
def outlasting(logger: Logger) -> Iterator[None]:
    """What is told in the block by other ways than the methods of a logger, as pictures are."""
    try:
        yield
    except Exception as error:  # as `telling`
        if not isinstance(logger, _Lasting):
            raise
        logger.lose(error)


def _is_unreachable(last: BaseException | None) -> bool:
    """Whether a server cannot be reached, or does not answer."""
    for error in chain(last, hidden=True):
        away = type(error).__module__.partition(".")[0] in ("requests", "urllib3", "httpx")
        if away or isinstance(error, ConnectionError | TimeoutError):
            return True
    return False
