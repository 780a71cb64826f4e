"""What training does to the recurrent matrices, while it does it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.base import data_of
from datamodules.batch import Batch, Parts
from datamodules.errors import UserError, require, whole, whole_or_null
from lit_rnn import analysis
from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import extrapolated, gradient_flows, layer_name, recurrent_matrices, shortened
from lit_rnn.parametrizations.orthogonal import drift

_LAGS = 5
_PIECE = 32  # units of the piece that a first estimate is made on
_CLOSE = 1e-4  # share of the norm, to which a pseudospectral radius is right
_SHORT = 8  # as many times shorter is the trajectory that it is made on


class Account:
    """The time that watching takes, kept below a share of a run's.

    A run is watched at the ends of epochs number p, 2p, 3p, ..., with the smallest power of two for p that keeps to the
    share: a slower machine watches a subset of the epochs that a faster one does.

    Args:
        share: Of the run's time.
        clock: Seconds.
    """

    trial = 0.3  # seconds of allowance, from which on a first estimate is made
    safety = 1.5  # times what one watch took: what the next is expected to

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.share, self.clock = share, clock
        self.spent, self.expected = 0.0, math.inf
        self._before, self._start = 0.0, clock()

    def state(self) -> dict[str, float]:
        return {"spent": self.spent, "expected": self.expected, "seconds": self.seconds}

    def resume(self, state: dict[str, float]) -> None:
        self.spent, self.expected, self._before = (float(state[key]) for key in ("spent", "expected", "seconds"))

    def start(self) -> None:
        self._start = self.clock()

    @property
    def seconds(self) -> float:
        """Of the run so far."""
        return self._before + self.clock() - self._start

    @property
    def allowance(self) -> float:
        """Seconds that one more watch may take."""
        return self.share * self.seconds - self.spent

    def is_due(self, epoch: int, estimate: Callable[[], float]) -> bool:
        """Whether to watch after epoch number ``epoch``, from 1; ``estimate`` gives the seconds of the first watch."""
        if math.isinf(self.expected) and self.allowance >= self.trial:
            with self.paying():
                seconds = estimate()
            self.expected = self.safety * seconds
        if self.expected > self.allowance:
            return False
        epochs = self.expected * epoch / (self.share * self.seconds)  # that pay for one watch
        return epoch % 2 ** math.ceil(math.log2(max(epochs, 1.0))) == 0

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Count the time of the block, and expect the next watch to take as long."""
        start = self.clock()
        yield
        seconds = self.clock() - start
        self.spent += seconds
        self.expected = self.safety * seconds


class WatchMatrices(Callback):
    """Logs how far from normal the recurrent matrices are, and how far gradients reach back, while training goes on.

    ``matrix/<name>/`` spectral_radius, spectral_norm, henrici, pseudospectral_radius and drift = max |W^H W - I|;
    ``gradient/lag_<k>`` = |dL/ds_{T-k}| on a few validation sequences, at five lags k from 0 to T - 1, and
    ``gradient/zero_fraction``, the share of its entries that are exactly zero. Spectral radius and Henrici's departure
    are left out where float64 gives wrong eigenvalues; `analyze` has them. The pseudospectral radius is right to 1e-4
    of the norm. Dashboards have all of it in their sections recurrent and grad.

    At its default it watches at the ends of epochs, as many as keep watching below 2 % of the run's time (`Account`);
    what one watch takes is measured, and before the first tried on small pieces. Runs of some seconds are not watched.
    The first process watches; random numbers and the gradients of parameters are not touched, so that the weights
    are the same with and without.

    Args:
        every_n_steps: Watch after every so many optimizer steps instead, whatever that costs.
        budget: The largest share of the run's time; 0 switches watching off.
        eps: Of the pseudospectral radius.
        samples: Validation sequences for the gradient.
    """

    def __init__(
        self, every_n_steps: int | None = None, budget: float = 0.02, eps: float = 0.01, samples: int = 8
    ) -> None:
        whole_or_null(every_n_steps, "WatchMatrices.every_n_steps", 1)
        require(0 <= budget <= 1, "WatchMatrices.budget", budget, "a share from 0 to 1")
        require(eps > 0, "WatchMatrices.eps", eps, "positive")
        whole(samples, "WatchMatrices.samples", 1)
        self.every_n_steps, self.eps, self.samples = every_n_steps, eps, samples
        self.account = Account(budget)
        self._step = 0
        self._batch: Batch | None = None

    def state_dict(self) -> dict[str, float]:
        return self.account.state()

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.account.resume(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.account.start()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step > self._step  # not where gradients are still accumulated
        self._step = trainer.global_step
        if self.every_n_steps and stepped and self._step % self.every_n_steps == 0 and _is_watched(pl_module, trainer):
            self._watch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_steps or self.account.share == 0 or not _is_watched(pl_module, trainer):
            return
        if self.account.is_due(trainer.current_epoch + 1, partial(self._estimate, trainer, pl_module)):
            self._watch(trainer, pl_module)

    def _watch(self, trainer: Trainer, model: SequenceModel) -> None:
        with self.account.paying():
            metrics: dict[str, float] = {}
            for name, W in recurrent_matrices(model).items():
                metrics |= {f"matrix/{name}/{key}": value for key, value in _numbers(W, self.eps).items()}
            batch = self._sequences(trainer, model)
            if batch is not None:
                metrics |= _gradients(model, batch)
            show.metrics(trainer, metrics, step=trainer.global_step - 1)  # the step that was taken last, from 0

    def _sequences(self, trainer: Trainer, model: SequenceModel) -> Batch | None:
        """The first validation sequences, the same every time."""
        data = data_of(trainer)
        if self._batch is None and data is not None:
            like = model.decoder.weight
            self._batch = Parts.of(data.examples(self.samples)).to(like.device, like.dtype)
        return self._batch

    def _estimate(self, trainer: Trainer, model: SequenceModel) -> float:
        """Seconds that a watch will take, from pieces of the matrices and of the sequences."""
        matrices = list(recurrent_matrices(model).values())
        seconds = 0.0
        for n in {len(W) for W in matrices}:
            alike = [W for W in matrices if len(W) == n]
            m = min(n, _PIECE)
            small, large = (_seconds(partial(_numbers, alike[0][:k, :k], self.eps)) for k in (-(-m // 2), m))
            seconds += len(alike) * extrapolated(small, large, n / m, 3)
        batch = self._sequences(trainer, model)
        if batch is not None:
            short = shortened(model, batch, -(-batch[0].shape[1] // _SHORT))
            seconds += _SHORT * _seconds(partial(_gradients, model, short))
        return seconds


def _is_watched(model: LightningModule, trainer: Trainer) -> TypeGuard[SequenceModel]:
    """Whether this process has something to watch, and someone to tell."""
    return is_recorded(model, trainer) and len(trainer.loggers) > 0


def _numbers(W: Tensor, eps: float) -> dict[str, float]:
    """What is logged of a matrix; nothing where it cannot be had: no run ends because it is watched."""
    try:
        norm, trusted = analysis.spectral_norm(W), analysis.eigenvalues_trusted(W)
        radius = analysis.spectral_radius(W) if trusted else 0.0
        # rho + eps <= rho_eps <= |W| + eps; to search an orthogonal matrix takes an SVD for each eigenvalue
        known = norm - radius <= _CLOSE * norm
        numbers = {
            "spectral_norm": norm,
            "pseudospectral_radius": norm + eps if known else analysis.pseudospectral_radius(W, eps),
            "drift": float(drift(W)),
        }
        return numbers | ({"spectral_radius": radius, "henrici": analysis.henrici(W)} if trusted else {})
    except (UserError, np.linalg.LinAlgError):
        return {}


def _gradients(model: SequenceModel, batch: Batch) -> dict[str, float]:
    """What is logged of gradients, layer by layer."""
    metrics: dict[str, float] = {}
    if not model.is_stack():  # a cell that reads from the end has its lags turned round
        return metrics
    for layer, flow in enumerate(gradient_flows(model, batch)):
        name = layer_name(model, layer, "gradient")
        for lag in np.linspace(0, len(flow.gradient) - 1, _LAGS).round().astype(int).tolist():
            metrics[f"{name}/lag_{lag}"] = float(flow.gradient[lag])
        metrics[f"{name}/zero_fraction"] = float(flow.zero_fraction.mean())
    return metrics


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
