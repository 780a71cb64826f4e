"""Symbols drawn from a model of what comes next."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from datamodules.errors import UserError, as_seed, require
from lit_rnn.models.base import SequenceModel
from lit_rnn.robustness.objective import predicted_class


@torch.no_grad()
def sample(model: SequenceModel, prompt: Tensor, count: int, temperature: float, seed: int) -> Tensor:
    """Draw from p(x_{t+1} | x_1 .. x_t) to the power of 1 / ``temperature``, normalised, and read what was drawn.

    Args:
        model: Of a task with ``next_symbol`` targets, as it is to be used (``eval()``).
        prompt: (N,) symbols that are read first, N at least 1.
        count: How many are drawn.
        temperature: 1 draws what the model says; 0 takes the likeliest symbol each time.
        seed: Of the draws.

    Returns:
        (count,) symbols, on the CPU.

    Raises:
        UserError: if the task has other targets, a number is out of range, or the network answers NaN or infinity.
    """
    require(model.task.targets == "next_symbol", "task.targets", model.task.targets, "next_symbol")
    require(len(prompt) >= 1, "prompt", prompt.tolist(), "at least one symbol")
    require(temperature >= 0, "temperature", temperature, "0 or positive")
    generator = torch.Generator().manual_seed(as_seed(seed))
    drawn: list[int] = []
    with _same_weights(model):
        outputs, states = model.run(prompt.to(model.device, torch.int64)[None])
        for _ in range(count):
            logits = outputs[0, -1].double().cpu()
            if predicted_class(logits) < 0:
                place = f"after {len(prompt) + len(drawn)} symbols"
                raise UserError(f"{place} the network answers NaN or infinity, which names none.")
            if temperature == 0:
                symbol = int(logits.argmax())
            else:
                scaled = (logits - logits.max()) / temperature  # from the largest: it is 0, whatever the temperature
                symbol = int(torch.multinomial(scaled.softmax(-1), 1, generator=generator))
            drawn.append(symbol)
            outputs, states = model.run(torch.tensor([[symbol]], device=model.device), states)
    return torch.tensor(drawn, dtype=torch.int64)


@contextmanager
def _same_weights(model: SequenceModel) -> Iterator[None]:
    """Passes inside have each cell's ``weights()`` computed once: a pass of one step costs no W = exp(A)."""
    cells = model.cell_list()
    for cell in cells:
        vars(cell)["weights"] = functools.cache(cell.weights)
    try:
        yield
    finally:
        for cell in cells:
            del vars(cell)["weights"]
