"""Forms of a network that one published code has: its recurrence and its start, written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from datamodules import CopyMemory, PixelMNIST
from datamodules.errors import UserError
from lit_rnn.cells import Cell, GORUCell, HouseholderRNNCell, LSTMCell, VanillaRNNCell
from lit_rnn.models import EURNN, GORU, LSTM, FullURNN, HouseholderRNN, LipschitzRNN, VanillaRNN
from lit_rnn.models.base import count_parameters
from lit_rnn.scan import choose_backend, scan, supports
from tests.oracles.cells import NONLINEARITIES, lstm
from tests.oracles.maps import Array, householder_dense
from tests.oracles.modules import below, close

F64 = torch.float64
PIXELS = PixelMNIST().task
T, B, I, N = 7, 3, 2, 6  # noqa: E741


def drawn(cell: Cell, seed: int = 0) -> tuple[Cell, dict[str, Array], Tensor]:
    """The cell in float64 with numbers of ours everywhere, those numbers, and inputs."""
    rng = np.random.default_rng(seed)
    cell = cell.double()
    for parameter in cell.parameters():
        parameter.data = torch.tensor(rng.normal(scale=0.7, size=tuple(parameter.shape)))
    p = {name: parameter.detach().numpy().copy() for name, parameter in cell.named_parameters()}
    return cell, p, torch.tensor(rng.normal(size=(T, B, I)))


# -- oRNN (Mhammedi et al. 2017) -------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loop", "fused", "native"])
@pytest.mark.parametrize("f", ["leaky_relu", "tanh"])
@pytest.mark.parametrize("m", [1, 4, N])
def test_ornn_with_its_bias_inside(f: Any, m: int, backend: Any) -> None:
    """h_t = f(H_1 .. H_m h_{t-1} + V x_t + b), u_k zero above row k."""
    cell, p, x = drawn(HouseholderRNNCell(I, N, m, nonlinearity=f), seed=m)
    W = householder_dense(below(p), N, m)
    h, expected = np.tile(p["initial.0"], (B, 1)), []
    for x_t in x.numpy():
        h = NONLINEARITIES[f](h @ W.T + x_t @ p["input.weight"].T + p["input.bias"])
        expected.append(h)
    y, (final,) = scan(cell, x, backend=backend)
    close(y, np.stack(expected))
    close(final, h)


def test_ornn_starts_as_released() -> None:
    """V Glorot uniform, b zero, h_0 within sqrt(3 / 2n); as many numbers as with modReLU, whose b lies outside."""
    torch.manual_seed(0)
    model = HouseholderRNN(PIXELS, 200, nonlinearity="leaky_relu", decoder_init="xavier")
    cell = model.cell_list()[0]
    assert not cell.input.bias.any()
    V, h = cell.input.weight.detach().abs(), cell.initial[0].detach().abs()
    for x, bound in ((V, (6 / 201) ** 0.5), (h, (3 / 400) ** 0.5)):
        assert 0.95 * bound < x.max() <= bound
    assert count_parameters(model) == count_parameters(HouseholderRNN(PIXELS, 200))


def test_an_unknown_nonlinearity_is_one_sentence() -> None:
    accepted = "modrelu, tanh, relu, leaky_relu, elu, identity"
    with pytest.raises(UserError, match=f"model.init_args.nonlinearity is 'OPLU', but it must be one of {accepted}."):
        HouseholderRNN(PIXELS, 8, nonlinearity="OPLU")  # type: ignore[arg-type]


# -- the LSTM of the uRNN papers (Arjovsky et al. 2016) --------------------------------------------


@pytest.mark.parametrize("backend", ["loop", "native"])
def test_lstm_with_an_output_matrix(backend: Any) -> None:
    """o_t = sigma(U_o x_t + W_o h_{t-1} + V_o c_t + b_o): the gate sees the new c_t by a full matrix."""
    cell, p, x = drawn(LSTMCell(I, N, learn_initial_state=True, output_matrix=True))
    expected, (h, c) = lstm(p, x.numpy(), tuple(np.tile(p[f"initial.{k}"], (B, 1)) for k in range(2)))
    y, final = scan(cell, x, backend=backend)
    close(y, expected)
    close(final[0], h)
    close(final[1], c)


@pytest.mark.parametrize("backend", ["loop", "native"])
def test_gradients_through_the_output_matrix(backend: Any) -> None:
    cell, _, x = drawn(LSTMCell(I, 3, learn_initial_state=True, output_matrix=True))
    parameters = list(cell.parameters())

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        for parameter, value in zip(parameters, values[1:], strict=True):
            parameter.data = value.data
        y, final = scan(cell, values[0], backend=backend)
        return y, *final

    x = x[:3, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: run(x, *parameters), x)
    loss = sum((part**2).sum() for part in run(x, *parameters))
    found = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, found, strict=True):
        for at in range(0, parameter.numel(), 5):
            step = torch.zeros(parameter.numel(), dtype=F64)
            step[at] = 1e-6
            losses = []
            for sign in (1, -1):
                moved = parameter.detach() + sign * step.view_as(parameter)
                kept, parameter.data = parameter.data, moved
                losses.append(sum((part**2).sum() for part in run(x, *parameters)).item())
                parameter.data = kept
            slope = (losses[0] - losses[1]) / 2e-6
            assert slope == pytest.approx(gradient.flatten()[at].item(), rel=1e-6, abs=1e-7)


def test_the_baseline_starts_and_counts_as_released() -> None:
    """Every matrix Glorot uniform by its own two sides, biases zero but the forget gate's 1, h_0 and c_0 trained."""
    torch.manual_seed(0)
    n, task = 68, CopyMemory(delay=10).task
    options: dict[str, Any] = {"learn_initial_state": True, "output_matrix": True}
    model = LSTM(task, n, init="xavier", decoder_init="xavier", **options)
    cell = model.cell_list()[0]
    matrices = [*cell.input.weight.chunk(4), *cell.recurrent.weight.chunk(4), cell.output.weight, model.decoder.weight]
    for M in matrices:
        bound = (6 / sum(M.shape)) ** 0.5
        assert 0.95 * bound < M.detach().abs().max() <= bound
    assert torch.equal(cell.input.bias, torch.tensor([0.0] * n + [1.0] * n + [0.0] * 2 * n))
    assert not any(start.any() for start in cell.initial) and len(cell.initial) == 2
    # W_{i,f,c,o}, U_{i,f,c,o}, V_o, four biases, h_0 and c_0, and the decoder
    assert count_parameters(model) == 4 * 10 * n + 4 * n * n + n * n + 4 * n + 2 * n + 9 * n + 9


def test_the_output_matrix_runs_where_it_can() -> None:
    cell = LSTMCell(I, N, output_matrix=True)
    assert not supports("torch", cell) and not supports("fused", cell)
    assert choose_backend("auto", cell) == ("native" if supports("native", cell) else "loop")
    with pytest.raises(UserError, match=r"model\.init_args\.output_matrix is true, but it must be false where"):
        LSTM(PIXELS, 8, peepholes=True, output_matrix=True)


# -- EURNN and GORU (Jing et al. 2017, 2019) -------------------------------------------------------


def test_an_eps_inside_the_relu_is_a_threshold_that_starts_there() -> None:
    """sign(z) relu(|z| + eps + b): EUNN's real network has eps 0.01 and b = 0, GORU eps 0.001 and b = 0.01."""
    torch.manual_seed(0)
    z = torch.cat((torch.randn(50), torch.tensor([0.0, 1e-3, -1e-3])))[None].repeat(1, 3)[:, :128].double()
    released: dict[str, tuple[Cell, float]] = {
        "EURNN": (EURNN(PIXELS, 128, unitary=False, modrelu_bias=0.01).cell_list()[0], 0.01),
        "GORU": (GORUCell(I, 128, released_biases=True), 0.001 + 0.01),
    }
    for cell, shift in released.values():
        found = cell.double().get_submodule("activation")(z).detach().numpy()
        x = z.numpy()
        np.testing.assert_allclose(found, np.sign(x) * np.maximum(np.abs(x) + shift, 0), rtol=0, atol=1e-8)


def test_gorus_released_biases() -> None:
    """b_r = 2 and b_g of TensorFlow's default, Glorot uniform of a vector (n,): both its sides are n."""
    torch.manual_seed(0)
    n = 512
    cell = GORUCell(I, n, released_biases=True)
    reset, update = cell.gates.bias.detach().chunk(2)
    assert (reset == 2).all()
    bound = (6 / (n + n)) ** 0.5
    assert 0.98 * bound < update.abs().max() <= bound
    assert update.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    torch.manual_seed(0)
    ours = GORUCell(I, n)
    assert (ours.activation.bias == 0.01).all() and not ours.gates.bias[n:].any()
    assert torch.equal(ours.input.weight, cell.input.weight)


def test_the_models_pass_the_starts_on() -> None:
    for model in (EURNN(PIXELS, 8, modrelu_bias=0.25), FullURNN(PIXELS, 8, layers=2, modrelu_bias=0.25)):
        assert all((cell.get_parameter("activation.bias") == 0.25).all() for cell in model.cell_list())
    before = FullURNN(PIXELS, 8).cell_list()[0].get_parameter("activation.bias")
    assert 0 < before.abs().max() <= 0.01
    with pytest.raises(UserError, match=r"modrelu_bias is 0\.0, but it must be null where"):
        HouseholderRNN(PIXELS, 8, nonlinearity="tanh", modrelu_bias=0.0)
    assert GORU(PIXELS, 8, released_biases=True).cell_list()[0].get_parameter("gates.bias")[8:].any()


# -- Lipschitz RNN (Erichson et al. 2021) ----------------------------------------------------------


def test_lipschitz_rnn_starts_as_its_driver_does() -> None:
    """A and W of M ~ N(0, (0.1 / n)^2), U and b U(-1/sqrt(I), 1/sqrt(I))."""
    torch.manual_seed(0)
    model = LipschitzRNN(PIXELS, 128, init_std=0.1, input_init="torch")
    for matrix in model.cell_list()[0].recurrent_parameters():
        assert stats.kstest(matrix.detach().flatten().numpy(), "norm", args=(0, 0.1 / 128)).pvalue > 1e-4
    for x in model.cell_list()[0].input.parameters():
        assert 0.95 < x.detach().abs().max() <= 1 and abs(x.mean().item()) < 0.2


# -- RNN-orth of the nnRNN paper (Kerg et al. 2019) ------------------------------------------------


@pytest.mark.parametrize("backend", ["loop", "fused", "native"])
def test_a_free_matrix_with_modrelu(backend: Any) -> None:
    """z = W h_{t-1} + V x_t + b, h_t = sign(z) relu(|z| + c): two biases, as the released code has them."""
    cell, p, x = drawn(VanillaRNNCell(I, N, "modrelu"))
    h, expected = np.zeros((B, N)), []
    for x_t in x.numpy():
        z = h @ p["recurrent.weight"].T + x_t @ p["input.weight"].T + p["input.bias"]
        h = np.sign(z) * np.maximum(np.abs(z) + p["activation.bias"], 0)
        expected.append(h)
    close(scan(cell, x, backend=backend)[0], np.stack(expected))


def test_rnn_orth_starts_as_released() -> None:
    """V Xavier normal, b torch's own, the threshold U(-0.01, 0.01)."""
    torch.manual_seed(0)
    model = VanillaRNN(PIXELS, 512, "modrelu", input_init="xavier_normal", input_bias="torch")
    cell = model.cell_list()[0]
    V, b, c = (cell.get_parameter(key).detach() for key in ("input.weight", "input.bias", "activation.bias"))
    assert V.std().item() == pytest.approx((2 / 513) ** 0.5, rel=0.1)
    assert 0.95 < b.abs().max() <= 1 and 0.0095 < c.abs().max() <= 0.01
    assert not VanillaRNN(PIXELS, 8, input_init="xavier_normal").cell_list()[0].get_parameter("input.bias").any()
