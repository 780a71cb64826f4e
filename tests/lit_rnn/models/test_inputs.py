"""What a model says of inputs that it cannot read: their own shape, and its own order of dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datamodules import CopyMemory, UserError
from datamodules.task import Task
from lit_rnn.models import LSTM

VALUES = Task("digits", "values", 1, "label", 10, 64, "last", 2.3, "accuracy", False)


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 64),
        torch.ones(2, 64, dtype=torch.int64),
        torch.rand(2, 64, 3),
        torch.rand(2, 0, 1),
        torch.rand(2, 64, 1, dtype=torch.complex64),  # torch would drop the imaginary part
        [1.0],
    ],
)
def test_values(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"reads \(B, T, 1\), batch first, real") as caught:
        LSTM(task=VALUES, hidden_size=4)(x)
    shape = str(tuple(x.shape)) if isinstance(x, torch.Tensor) else "list"
    assert shape in str(caught.value)


def test_symbols() -> None:
    task = CopyMemory(delay=3).task
    model = LSTM(task=task, hidden_size=4)
    x = torch.zeros(2, 5, dtype=torch.int64)
    assert torch.equal(model(x), model(model.one_hot(x)))
    for wrong in (x[0], x[..., None], torch.rand(2, 5), torch.rand(2, 5, task.input_size + 1)):
        with pytest.raises(UserError, match=r"reads whole numbers \(B, T\), batch first"):
            model(wrong)


@pytest.mark.parametrize("options", [{}, {"embedding_size": 3}, {"encoder_size": 3}])
def test_unknown_symbols(options: dict[str, int]) -> None:
    """torch's own error named neither the symbol nor those that there are; behind a sequence's end all is padding."""
    task = CopyMemory(delay=3).task
    model = LSTM(task, 4, **options)
    known = torch.arange(10).view(2, 5) % task.input_size
    for unknown in (task.input_size, -1, 2**40):
        x = known.clone()
        x[1, 3] = unknown
        sentence = f"The input is {unknown} at (1, 3), but LSTM on copy_memory reads symbols from 0 to 9."
        for call in (model, model.one_hot, model.encode):
            with pytest.raises(UserError) as caught:
                call(x)
            assert str(caught.value) == sentence
        lengths = torch.tensor([5, 3])
        assert torch.equal(model(x, lengths), model(known, lengths))


@pytest.mark.parametrize("options", [{}, {"embedding_size": 3}, {"encoder_size": 3}])
def test_symbols_are_whole_numbers_of_any_size(options: dict[str, int]) -> None:
    model = LSTM(CopyMemory(delay=3).task, 4, **options)
    x = torch.arange(10).view(2, 5)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(model(x.to(dtype)), model(x))
    for wrong in (x.bool(), x.to(torch.complex64)):
        with pytest.raises(UserError, match=r"reads whole numbers \(B, T\), batch first"):
            model(wrong)


@pytest.mark.parametrize("options", [{}, {"embedding_size": 3}, {"encoder_size": 3}])
def test_vectors_for_symbols_are_real_numbers_of_any_precision(options: dict[str, int]) -> None:
    """Over an embedding torch refused all but the model's own."""
    model = LSTM(CopyMemory(delay=3).task, 4, **options)
    one_hot = model.one_hot(torch.arange(10).view(2, 5))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert torch.equal(model(one_hot.to(dtype)), model(one_hot))


@pytest.mark.parametrize("lengths", [[5, 3], np.array([5, 3]), torch.tensor([[5, 3]]), torch.tensor(5), 5])
def test_lengths_are_a_vector_of_whole_numbers(lengths: Any) -> None:
    for task, x in ((VALUES, torch.rand(2, 5, 1)), (CopyMemory(delay=3).task, torch.zeros(2, 5, dtype=torch.int64))):
        with pytest.raises(UserError, match=r"lengths is .*, but it must be int64 \(2,\), one number a sequence"):
            LSTM(task, 4)(x, lengths)


def test_states_are_a_list() -> None:
    x = torch.rand(2, 64, 1)
    with pytest.raises(UserError, match=r"states is 'float32 \(2, 4\) on cpu', but it must be 1, one a layer"):
        LSTM(task=VALUES, hidden_size=4).run(x, torch.zeros(2, 4))  # type: ignore[arg-type]  # that is refused
