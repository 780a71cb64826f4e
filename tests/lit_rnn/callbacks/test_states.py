"""The traces of states over time, against a linear network worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Adding, CopyMemory, Denoise
from lit_rnn.callbacks.states import state_traces
from lit_rnn.models import LSTM, URNN, SequenceModel, VanillaRNN
from tests.pictures import checked


def test_a_linear_network_by_hand() -> None:
    """h_t = W h_{t-1} + V x_t: the gradient at t is W^T to the power T - t of the gradient at T."""
    torch.manual_seed(0)
    data = Adding(length=7, seed=1)
    model = VanillaRNN(data.task, 5, "identity", "gaussian").double()
    x, y = data.split("val")[np.arange(3)]
    traces = state_traces(model, (x.double(), y.double()))
    cell = model.cell_list()[0]
    W = cell.recurrent_matrices()["recurrent"].detach().numpy()
    V = cell.get_parameter("input.weight").detach().numpy()
    readout, b = model.decoder.weight.detach().numpy(), model.decoder.bias.detach().numpy()
    states = [np.zeros((3, 5))]
    for t in range(7):
        states.append(states[-1] @ W.T + x[:, t].double().numpy() @ V.T)
    error = 2 * (states[-1] @ readout.T + b - y.double().numpy())  # of the summed loss
    for t in range(1, 8):
        gradient = error @ readout @ np.linalg.matrix_power(W, 7 - t)
        assert traces["0 norm"][t - 1] == pytest.approx(np.linalg.norm(states[t], axis=1).mean(), rel=1e-12)
        assert traces["0 gradient"][t - 1] == pytest.approx(np.linalg.norm(gradient, axis=1).mean(), rel=1e-12)
        distance = np.linalg.norm(states[t] - states[-1], axis=1).mean()
        assert traces["0 distance"][t - 1] == pytest.approx(distance, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("model_class", [LSTM, URNN])
def test_joint_and_complex_states_and_masks(model_class: type[SequenceModel]) -> None:
    data = Denoise(delay=4, symbols=2, seed=0)
    model = model_class(data.task, 4, layers=2)
    traces = state_traces(model, data.split("val")[np.arange(3)])
    assert set(traces) == {f"{layer} {panel}" for layer in (0, 1) for panel in ("norm", "distance", "gradient")}
    assert all(values.shape == (7,) and np.isfinite(values).all() for values in traces.values())
    assert traces["0 distance"][-1] == 0 and traces["1 gradient"][0] > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_pictures_of_a_run_and_of_its_resume(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = checked(monkeypatch)
    assert CopyMemory(delay=3).task.length == 23
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0 and drawn() == 3
    store = Path("r/pictures/states.npz")
    with np.load(store) as first:
        steps = {int(key.split()[0]) for key in first}
    assert min(steps) == 0 and len(steps) == 2 and Path("r/pictures/states.png").stat().st_size > 10_000
    more = ("--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert cli("fit", "--run_dir", "r", *more).status == 0
    with np.load(store) as second:
        assert {int(key.split()[0]) for key in second} > steps
