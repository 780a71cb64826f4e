"""Models to export: every one of the project, and the forms that some have; weights that no start gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from datamodules import Task
from lit_rnn import models
from lit_rnn.models import SequenceModel

N = 8
PER_STEP = Task("symbols", "symbols", 5, "label_per_step", 5, None, "all", 1.0, "accuracy", True)
LAST = Task("values", "values", 3, "value", 2, None, "last", 1.0, "mse", False)

Make = Callable[..., SequenceModel]


@pytest.fixture
def make() -> Make:
    """A model by its name, in float64, after a random step from its start."""

    def made(name: str, task: Task = PER_STEP, size: int = N, **options: Any) -> SequenceModel:
        torch.manual_seed(3)
        needed = {"NRU": {"memory_size": 9}, "StatisticalRU": {"statistics_size": 4, "summary_size": 3}}
        model = getattr(models, name)(task, size, **needed.get(name, {}), **options).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return made


@pytest.fixture
def last() -> Task:
    """A task of values with one answer at the end."""
    return LAST


@pytest.fixture
def inputs() -> Callable[..., torch.Tensor]:
    """Inputs (B, T) or (B, T, 3) of a model's task."""

    def drawn(model: SequenceModel, batch: int, steps: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(batch + steps)
        if model.task.inputs == "symbols":
            return torch.randint(model.task.input_size, (batch, steps), generator=generator)
        dtype = model.decoder.weight.dtype
        return torch.randn(batch, steps, model.task.input_size, generator=generator, dtype=dtype)

    return drawn
