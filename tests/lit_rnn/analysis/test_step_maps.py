"""Jacobians of every cell against finite differences, and gradients through time against their products."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.analysis import (
    StepMap,
    flat_state,
    gradient_against_lag,
    lyapunov_spectrum,
    lyapunov_spectrum_of,
    states_and_gradients,
    step_jacobians,
)
from lit_rnn.cells import Cell, State
from tests.refusals import refusal

BUILD: dict[str, Callable[[], Cell]] = {
    "AntisymmetricRNN": lambda: cells.AntisymmetricRNNCell(3, 4),
    "CoRNN": lambda: cells.CoRNNCell(3, 4),
    "DeltaProduct": lambda: cells.DeltaProductCell(3, 4, key_size=2),
    "DtrivRNN": lambda: cells.DtrivRNNCell(3, 4),
    "EURNN": lambda: cells.EURNNCell(3, 4),
    "FullURNN": lambda: cells.FullURNNCell(3, 4),
    "GORU": lambda: cells.GORUCell(3, 4),
    "GRU": lambda: cells.GRUCell(3, 4),
    "HouseholderRNN": lambda: cells.HouseholderRNNCell(3, 4),
    "LEM": lambda: cells.LEMCell(3, 4),
    "LRU": lambda: cells.LRUCell(3, 4),
    "LinOSS": lambda: cells.LinOSSCell(3, 2),
    "MinGRU": lambda: cells.MinGRUCell(3, 4),
    "MinLSTM": lambda: cells.MinLSTMCell(3, 4),
    "SLSTM": lambda: cells.SLSTMCell(3, 4),
    "UnICORNN": lambda: cells.UnICORNNCell(3, 4),
    "JANET": lambda: cells.JANETCell(3, 4),
    "LSTM, peepholes": lambda: cells.LSTMCell(3, 4, peepholes=True),
    "LSTM, output matrix": lambda: cells.LSTMCell(3, 4, output_matrix=True),
    "LayerNormRNN": lambda: cells.LayerNormRNNCell(3, 4),
    "LipschitzRNN": lambda: cells.LipschitzRNNCell(3, 4),
    "NRU": lambda: cells.NRUCell(3, 5, 4),
    "NnRNN": lambda: cells.NnRNNCell(3, 4),
    "ScuRNN": lambda: cells.ScuRNNCell(3, 4),
    "StatisticalRU": lambda: cells.StatisticalRUCell(3, 4, 3, 2),
    "URNN": lambda: cells.URNNCell(3, 4),
    "VanillaRNN": lambda: cells.VanillaRNNCell(3, 4, learn_initial_state=True),
}


def in_double(cell: Cell) -> Cell:
    cell.double()  # leaves complex parameters as they are
    for tensor in cell.parameters():
        tensor.data = tensor.data.to(torch.complex128) if tensor.is_complex() else tensor.data
    return cell


def moved(state: State, column: int, by: float) -> State:
    """The state with one entry of its flat form changed."""
    result, start = [], 0
    for tensor in state:
        width = tensor.shape[-1]
        unit = torch.zeros(width, dtype=tensor.dtype)
        if start <= column < start + width:
            unit[column - start] = by
        if tensor.is_complex() and start + width <= column < start + 2 * width:
            unit[column - start - width] = 1j * by
        result.append(tensor + unit)
        start += width * (2 if tensor.is_complex() else 1)
    return tuple(result)


@pytest.mark.parametrize("name", BUILD)
def test_jacobians_against_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    cell, x = BUILD[name](), torch.randn(3, 2, 3)
    start = tuple(torch.randn_like(part) for part in cell.initial_state(2))  # off the kinks at zero
    before = {key: value.clone() for key, value in cell.state_dict().items()}
    with torch.inference_mode():
        J = step_jacobians(cell, x, start)
    assert J.dtype == torch.float64 and cell.training
    assert all(
        value.dtype == before[key].dtype and value.equal(before[key]) for key, value in cell.state_dict().items()
    )
    cell, h = in_double(cell), 1e-6
    with torch.no_grad():
        w, state = (
            cell.weights(),
            tuple(part.to(torch.complex128 if part.is_complex() else torch.float64) for part in start),
        )
        for u, jacobian in zip(cell.drive(x.double(), w), J, strict=True):
            for column in range(J.shape[-1]):
                high, low = (flat_state(cell.step(u, moved(state, column, by), w)[1]) for by in (h, -h))
                assert torch.allclose((high - low) / (2 * h), jacobian[..., column], atol=1e-7)
            state = cell.step(u, state, w)[1]


@pytest.mark.parametrize("name", ["LSTM, peepholes", "NRU", "URNN"])
def test_gradients_are_products_of_jacobians(name: str) -> None:
    torch.manual_seed(0)
    lower, cell, x = cells.VanillaRNNCell(3, 3).double(), in_double(BUILD[name]()), torch.randn(6, 2, 3).double()

    def loss(y: Tensor) -> Tensor:
        return y[-1].square().sum()

    (_, first), (states, gradients) = states_and_gradients([lower, cell], x, loss)
    assert first[0].any()
    J = step_jacobians(cell, states_and_gradients(lower, x, torch.sum)[0][0])
    for t in range(5, 0, -1):
        assert torch.allclose(gradients[t - 1], (gradients[t, :, None] @ J[t])[:, 0], atol=1e-12)
    flow = gradient_against_lag([lower, cell], x, loss)[1]
    assert flow.gradient == pytest.approx(gradients.flip(0).norm(dim=-1).mean(1).numpy())
    assert flow.state_norm == pytest.approx(states.flip(0).norm(dim=-1).mean(1).numpy())
    assert flow.zero_fraction[0] == pytest.approx(float((gradients[-1] == 0).double().mean()))


class Clocked(cells.VanillaRNNCell):
    """A second state that no parameter reaches: how many steps there were."""

    def __init__(self) -> None:
        super().__init__(1, 4)
        self.state_sizes = (4, 1)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h, clock = state
        y, (h,) = super().step(u * (1 + clock), (h,), w)
        return y, (h, clock + 1)


def test_a_state_that_no_parameter_reaches_has_a_gradient() -> None:
    ((states, gradients),) = states_and_gradients(Clocked(), torch.ones(3, 2, 1), torch.sum)
    assert states[:, 0, -1].tolist() == [1, 2, 3]
    assert gradients[:2, :, -1].all() and not gradients[2, :, -1].any()


def test_what_a_cell_cannot_be_driven_by_is_refused() -> None:
    cell, x = cells.LSTMCell(3, 4), torch.ones(5, 2, 3)
    wrong: Any = torch.nn.LSTM(3, 4)
    refusal(partial(step_jacobians, wrong, x), "cell")
    wrong = "LSTM"
    refusal(partial(StepMap, wrong), "cell")
    for wrong in (x[0], x[:0], x[..., :2], x.to(torch.complex64), x.numpy(), 1):
        refusal(partial(step_jacobians, cell, wrong), "x")
        refusal(partial(StepMap(cell).drive, wrong), "x")
        refusal(partial(states_and_gradients, cell, wrong, torch.sum), "x")


def test_dead_units_and_saturated_ones() -> None:
    relu = cells.VanillaRNNCell(1, 4, "relu", init=torch.nn.init.zeros_)
    relu.input.weight.data = torch.tensor([[1.0], [1.0], [1.0], [-1.0]])
    flow = gradient_against_lag(relu, torch.full((5, 2, 1), 3.0), lambda y: y[-1].sum())[0]
    assert flow.saturation.tolist() == [0.25] * 5  # and 3 is no bound of relu's
    assert flow.zero_fraction.tolist() == [0, 1, 1, 1, 1] and flow.gradient.tolist() == [2, 0, 0, 0, 0]
    tanh = cells.VanillaRNNCell(1, 4, "tanh", init=torch.nn.init.zeros_)
    tanh.input.weight.data = torch.tensor([[3.0], [-3.0], [0.1], [0.2]])
    assert gradient_against_lag(tanh, torch.ones(2, 1, 1), torch.sum)[0].saturation.tolist() == [0.5, 0.5]


def test_exponents_of_trajectories_beside_each_other() -> None:
    J = np.random.default_rng(0).standard_normal((20, 3, 4, 4))
    together = lyapunov_spectrum(iter(torch.from_numpy(J)), warmup=5)
    assert together.shape == (3, 4) and np.all(np.diff(together) < 0)
    for b in range(3):
        assert together[b] == pytest.approx(lyapunov_spectrum(J[:, b], warmup=5), abs=1e-12)
    assert together.sum(1) == pytest.approx(np.log(np.abs(np.linalg.det(J[5:]))).mean(0), abs=1e-12)


def test_a_step_function_and_its_cell_agree() -> None:
    torch.manual_seed(0)
    cell, x = cells.GRUCell(2, 3).double(), torch.randn(30, 1, 2).double()
    w = cell.weights()
    drive = cell.drive(x, w)[:, 0].detach()

    plain = lyapunov_spectrum(step_jacobians(cell, x)[:, 0], warmup=3)

    def step(u: Tensor, h: Tensor) -> Tensor:
        return cell.step(u[None], (h[None],), w)[1][0][0]

    with torch.no_grad():
        assert lyapunov_spectrum_of(step, np.zeros(3), drive, warmup=3) == pytest.approx(plain, abs=1e-12)
    singular = lyapunov_spectrum_of(lambda u, h: torch.stack((h[0] / 2, h[0])), np.ones(2), np.zeros(9))
    assert singular[0] == pytest.approx(np.log(0.5), abs=0.1) and singular[1] == -np.inf


@pytest.mark.parametrize(
    "state",
    [
        (torch.zeros(3, 4),),
        (torch.zeros(3, 5), torch.zeros(3, 4)),
        (torch.zeros(2, 4), torch.zeros(2, 4)),
        (torch.zeros(3, 4, dtype=torch.complex64), torch.zeros(3, 4)),
        torch.zeros(3, 4),
        (None, None),
        3,
    ],
)
def test_a_state_that_is_not_the_cells_is_told(state: Any) -> None:
    """One of another batch size went as far as torch's own sentence."""
    x = torch.rand(5, 3, 2)
    with pytest.raises(UserError, match=r"that of LSTMCell must be \(\(3, 4\), \(3, 4\)\), real and real"):
        step_jacobians(cells.LSTMCell(2, 4), x, state)
