"""Forward and backward passes to be timed: a cell by `lit_rnn.scan`, and what it is measured against."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from measure import SkipError
from torch import Tensor, nn

import datamodules
from datamodules import SequenceDataModule
from lit_rnn import models
from lit_rnn.__main__ import main as lit_rnn
from lit_rnn.cells import Cell
from lit_rnn.models import SequenceModel
from lit_rnn.runs.config import with_full_names
from lit_rnn.scan import Backend, scan

CONFIGS = Path(__file__).parents[1] / "configs"

EXPECTED_PASSES = 10_000  # what auto is told: the published runs train for more optimizer steps

Reads = Literal["last", "all"]  # which outputs the loss looks at
Pass = Callable[[], None]


class Size(NamedTuple):
    """A sequence batch: T steps of B sequences of width I."""

    T: int
    B: int
    I: int  # noqa: E741  # as in the papers
    reads: Reads

    def __str__(self) -> str:
        return f"T = {self.T}, B = {self.B}"

    def inputs(self) -> Tensor:
        """(T, B, I): grey values where I = 1, else one-hot symbols."""
        if self.I == 1:
            return torch.rand(self.T, self.B, 1)
        return nn.functional.one_hot(torch.randint(self.I, (self.T, self.B)), self.I).float()

    def gradient(self, width: int) -> Tensor:
        """What comes back from the loss: to every output, or to the last alone."""
        return torch.randn(*((self.T,) if self.reads == "all" else ()), self.B, width)


def ours(cell: Cell, x: Tensor, size: Size, backend: Backend, **options: Any) -> Pass:
    """A pass by `scan`, one of many to come where ``auto`` asks."""
    gradient = size.gradient(cell.output_size)
    options = {"expected_passes": EXPECTED_PASSES, **options}

    def run() -> None:
        cell.zero_grad()
        outputs, _ = scan(cell, x, backend=backend, last_only=size.reads == "last", **options)
        (outputs if size.reads == "all" else outputs[-1]).backward(gradient)

    return run


def stepwise(loop: nn.Module, x: Tensor, size: Size, width: int) -> Pass:
    """A pass by a loop of `reference`."""
    gradient = size.gradient(width)

    def run() -> None:
        loop.zero_grad()
        outputs = loop(x)
        (torch.stack(outputs) if size.reads == "all" else outputs[-1]).backward(gradient)

    return run


def torch_relu_rnn(n: int, x: Tensor, size: Size) -> Pass:
    """A pass by torch's own layer."""
    layer, gradient = nn.RNN(size.I, n, nonlinearity="relu"), size.gradient(n)

    def run() -> None:
        layer.zero_grad()
        outputs, _ = layer(x)
        (outputs if size.reads == "all" else outputs[-1]).backward(gradient)

    return run


def bare_products(n: int, size: Size) -> Pass:
    """The products of the recurrence and nothing else: T times h W^T, T times delta W, and dW as one over all steps.

    Into memory that is there already. Nothing is carried from step to step, so every product has ordinary numbers.
    """
    W, h, delta = torch.randn(n, n), torch.randn(size.T, size.B, n), torch.randn(size.T, size.B, n)
    product, dW, W_T = torch.empty(size.T, size.B, n), torch.empty(n, n), W.T

    def run() -> None:
        for h_t, out in zip(h, product, strict=True):
            torch.mm(h_t, W_T, out=out)
        for delta_t, out in zip(delta, product, strict=True):
            torch.mm(delta_t, W, out=out)
        torch.mm(delta.flatten(0, 1).T, h.flatten(0, 1), out=dW)

    return run


def spent(run: Pass) -> str:
    """The operators that a pass spends most of its time in, with their shares, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    times: Counter[str] = Counter()
    for event in profile.events():
        times[event.name.removeprefix("aten::")] += event.self_cpu_time_total
    whole = times.total()
    return ", ".join(f"{name} {100 * time / whole:.0f} %" for name, time in times.most_common(4) if time > whole / 50)


def described(
    path: str, data: dict[str, Any] | None = None, **options: Any
) -> tuple[str, dict[str, Any], SequenceDataModule]:
    """What a file under configs/ says, some options changed: the model's class and arguments, and the data.

    Without the scheduler, which acts once an epoch.
    """
    config = yaml.safe_load((CONFIGS / path).read_text())
    built = getattr(datamodules, config["data"]["class_path"])(**{**config["data"]["init_args"], **(data or {})})
    arguments = {**config["model"]["init_args"], **options}
    arguments.pop("lr_scheduler", None)
    return config["model"]["class_path"], with_full_names(arguments, "model.init_args"), built


def from_config(
    path: str, data: dict[str, Any] | None = None, **options: Any
) -> tuple[SequenceModel, SequenceDataModule]:
    """The model and the data of a file under configs/; see `described`."""
    name, arguments, built = described(path, data, **options)
    return getattr(models, name)(built.task, **arguments), built


def fit(config: str, *options: str) -> None:
    """A fit of a file under configs/ by the command line, in this process, so without its imports."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = lit_rnn(["fit", "--config", str(CONFIGS / config), *options])
    if status:
        raise SkipError(f"fit ended with status {status}: {said.getvalue().strip().splitlines()[-1]}")


def train(model: SequenceModel, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """The bare training steps of a fit."""
    for inputs, targets in batches:
        optimizer.zero_grad()
        model.loss_of(model(inputs), targets).backward()
        optimizer.step()


def size_of(data: SequenceDataModule) -> Size:
    """The size of the batches that ``data`` gives."""
    assert data.task.length is not None, "sequences of one length"
    return Size(data.task.length, data.batch_size, data.task.input_size, "all" if data.task.per_step else "last")
