"""Every cell against an independent float64 loop over time written from the papers' equations, and against torch.nn.

Column convention throughout: h_t = f(W h_{t-1} + V x_t + b), for a batch of rows h W^T.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn
from torch.func import functional_call

from datamodules import UserError
from lit_rnn.cells import DtrivRNNCell, ExpRNNCell, GRUCell, LSTMCell, VanillaRNNCell
from lit_rnn.init import identity_
from lit_rnn.scan import scan
from tests.oracles.cells import NONLINEARITIES, States, gru, lstm, modrelu_rnn, vanilla_rnn
from tests.oracles.maps import Array, Numbers, exponential_dense, skew_matrix
from tests.oracles.modules import below, close, fill, numbers

F64 = torch.float64
T, B, I, N = 7, 3, 4, 5  # noqa: E741


# -- the equations ---------------------------------------------------------------------------------


def rotation_of(p: Numbers, n: int) -> Array:
    return exponential_dense(below(p), n)


def exprnn(p: Numbers, x: Array, state: States, transpose: bool = False) -> tuple[Array, States, float]:
    W = rotation_of(p, state[0].shape[1])
    out, h, margin = modrelu_rnn(p, W.T if transpose else W, x, state[0])
    return out, (h,), margin


def smooth(oracle: Callable[..., tuple[Array, States]]) -> Callable[..., tuple[Array, States, float]]:
    """Never near a kink."""
    return lambda *given: (*oracle(*given), math.inf)


Oracle = Callable[[dict[str, Array], Array, States], tuple[Array, States, float]]
CELLS: dict[str, tuple[Callable[..., Any], Oracle]] = {
    "ExpRNN": (ExpRNNCell, exprnn),
    "DtrivRNN": (DtrivRNNCell, exprnn),
    **{
        f"VanillaRNN-{f}": (
            lambda *sizes, f=f, **kw: VanillaRNNCell(*sizes, nonlinearity=f, **kw),
            lambda p, x, s, f=f: vanilla_rnn(p, x, s, f),
        )
        for f in NONLINEARITIES
    },
    "LSTM": (LSTMCell, smooth(lstm)),
    "GRU": (GRUCell, smooth(gru)),
}
each_cell = pytest.mark.parametrize("name", CELLS)


def make(name: str, seed: int = 0, sizes: tuple[int, int] = (I, N), **options: Any) -> Any:
    """A float64 cell in which every number is ours, so that a test does not depend on anyone's initialiser."""
    return fill(CELLS[name][0](*sizes, **options).double(), seed, 0.5)


def draw(name: str, seed: int = 1, shape: tuple[int, int, int] = (T, B, I), n: int = N) -> tuple[Array, States]:
    rng = np.random.default_rng(seed)
    states = 2 if name == "LSTM" else 1
    return rng.normal(size=shape), tuple(rng.normal(size=(shape[1], n)) for _ in range(states))


def tensors(state: States) -> tuple[Tensor, ...]:
    return tuple(map(torch.tensor, state))


# -- the recurrence --------------------------------------------------------------------------------


@each_cell
def test_scan_equals_the_equations(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    y, final = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    expected, expected_final, _ = CELLS[name][1](numbers(cell), x, state)
    assert y.shape == (T, B, N) and cell.output_size == N and cell.hidden_size == N and cell.input_size == I
    close(y, expected)
    assert len(final) == len(expected_final)
    for actual, wanted in zip(final, expected_final, strict=True):
        close(actual, wanted)


@each_cell
def test_without_a_state_the_scan_starts_at_zero(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    assert not any(s.any() for s in cell.initial_state(B))
    assert [tuple(s.shape) for s in cell.initial_state(B)] == [s.shape for s in state]
    y, _ = scan(cell, torch.tensor(x), backend="loop")
    close(y, CELLS[name][1](numbers(cell), x, tuple(np.zeros_like(s) for s in state))[0])


@each_cell
def test_scan_is_weights_then_drive_then_steps(name: str) -> None:
    cell, (x, start) = make(name), draw(name)
    w = cell.weights()
    drive = cell.drive(torch.tensor(x), w)
    assert drive.shape[:2] == (T, B)
    state, outputs = tensors(start), []
    for t in range(T):
        y_t, state = cell.step(drive[t], state, w)
        outputs.append(y_t)
    y, final = scan(cell, torch.tensor(x), tensors(start), backend="loop")
    torch.testing.assert_close(y, torch.stack(outputs), rtol=0, atol=1e-14)
    torch.testing.assert_close(final, state, rtol=0, atol=1e-14)


@each_cell
def test_weights_are_computed_once_per_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, (x, _) = make(name), draw(name)
    calls, original = [], cell.weights
    monkeypatch.setattr(cell, "weights", lambda: (calls.append(1), original())[1])
    scan(cell, torch.tensor(x), backend="loop")
    assert len(calls) == 1


@each_cell
def test_a_carried_state_joins_two_scans_into_one(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    whole, end = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    first, middle = scan(cell, torch.tensor(x[:3]), tensors(state), backend="loop")
    second, last = scan(cell, torch.tensor(x[3:]), middle, backend="loop")
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(last, end, rtol=0, atol=1e-14)


@each_cell
def test_sequences_of_a_batch_do_not_meet(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    y, _ = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    alone, _ = scan(cell, torch.tensor(x[:, 1:2]), tensors(tuple(s[1:2] for s in state)), backend="loop")
    torch.testing.assert_close(y[:, 1:2], alone, rtol=0, atol=1e-14)


class Run(nn.Module):
    """A scan as a function of (parameters, inputs, initial state)."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, final = scan(self.cell, x, state or None, backend="loop")
        return (y, *final)


@pytest.mark.parametrize("learned", [False, True])
@each_cell
def test_gradcheck_of_a_short_scan(name: str, learned: bool) -> None:
    """Parameters, inputs and the initial state, given or learned. No unit is within 1e-3 of a kink (steps are 1e-6)."""
    t, b, i, n = 3, 2, 2, 3
    run = Run(make(name, seed=5, sizes=(i, n), learn_initial_state=learned))
    x, state = draw(name, seed=6, shape=(t, b, i), n=n)
    start = tuple(s.detach().numpy() for s in run.cell.initial_state(b)) if learned else state
    assert CELLS[name][1](numbers(run.cell), x, start)[2] > 1e-3
    names = [key for key, _ in run.named_parameters()]
    values = [value.detach().clone().requires_grad_() for _, value in run.named_parameters()]
    given = () if learned else tensors(state)

    def function(*args: Tensor) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, args[: len(names)], strict=True))
        return functional_call(run, parameters, args[len(names) :])

    arguments = (*values, torch.tensor(x).requires_grad_(), *(s.requires_grad_() for s in given))
    assert torch.autograd.gradcheck(function, arguments, atol=1e-7, rtol=1e-6)


# -- against torch.nn ------------------------------------------------------------------------------


def torch_twin(name: str, cell: nn.Module) -> tuple[nn.RNNBase, list[tuple[Tensor, Callable[[nn.RNNBase], Tensor]]]]:
    """torch's module, its weights copied into ours, and which of its gradients each of our parameters must have.

    torch carries two bias vectors that only ever appear as a sum, except in the GRU's candidate.
    """
    torch.manual_seed(3)
    rnn: nn.RNNBase
    match name.split("-"):
        case ["LSTM"]:
            rnn = nn.LSTM(I, N).double()
        case ["GRU"]:
            rnn = nn.GRU(I, N).double()
        case [_, nonlinearity]:
            rnn = nn.RNN(I, N, nonlinearity=nonlinearity).double()
    with torch.no_grad():
        cell.input.weight.copy_(rnn.weight_ih_l0)
        cell.recurrent.weight.copy_(rnn.weight_hh_l0)
        cell.input.bias.copy_(rnn.bias_ih_l0 + rnn.bias_hh_l0)
        if name == "GRU":
            cell.input.bias[2 * N :] = rnn.bias_ih_l0[2 * N :]
            cell.candidate_bias.copy_(rnn.bias_hh_l0[2 * N :])
    pairs = [
        (cell.input.weight, lambda r: r.weight_ih_l0.grad),
        (cell.recurrent.weight, lambda r: r.weight_hh_l0.grad),
        (cell.input.bias, lambda r: r.bias_ih_l0.grad),
    ]
    if name == "GRU":
        pairs.append((cell.candidate_bias, lambda r: r.bias_hh_l0.grad[2 * N :]))
    return rnn, pairs


@pytest.mark.parametrize("name", ["LSTM", "GRU", "VanillaRNN-tanh", "VanillaRNN-relu"])
def test_equals_torch_weight_for_weight(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    rnn, pairs = torch_twin(name, cell)
    assert {id(parameter) for parameter, _ in pairs} == {id(parameter) for parameter in cell.parameters()}
    start = tensors(state)
    y, final = scan(cell, torch.tensor(x), start, backend="loop")
    packed = tuple(s[None] for s in start)
    expected, end = rnn(torch.tensor(x), packed if name == "LSTM" else packed[0])
    end = end if name == "LSTM" else (end,)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(final, tuple(s[0] for s in end), rtol=0, atol=1e-12)
    G = torch.tensor(np.random.default_rng(2).normal(size=(T, B, N)))
    y.backward(G)
    expected.backward(G)
    for parameter, gradient in pairs:
        torch.testing.assert_close(parameter.grad, gradient(rnn), rtol=0, atol=1e-11)


# -- which way the matrix acts ---------------------------------------------------------------------


def silent(cell: nn.Module) -> None:
    """No input, no bias: what remains is the recurrent matrix."""
    with torch.no_grad():
        for key, parameter in cell.named_parameters():
            if not key.startswith("recurrent"):
                parameter.zero_()


@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN"])
def test_a_quarter_turn_acts_on_columns(name: str) -> None:
    """A = [[0, pi/2], [-pi/2, 0]] gives W = [[0, 1], [-1, 0]], so W e1 = -e2; a row vector times W would give +e2."""
    cell = make(name, sizes=(1, 2))
    silent(cell)
    with torch.no_grad():
        cell.recurrent.skew.fill_(math.pi / 2)
        if name == "DtrivRNN":
            cell.recurrent.base.copy_(torch.eye(2))
    y, _ = scan(cell, torch.zeros(2, 1, 1, dtype=F64), (torch.tensor([[1.0, 0.0]], dtype=F64),), backend="loop")
    close(y[:, 0], np.array([[0.0, -1.0], [-1.0, 0.0]]))
    close(cell.recurrent_matrices()["recurrent"], np.array([[0.0, 1.0], [-1.0, 0.0]]))


def test_a_sub_diagonal_chain_carries_unit_one_to_unit_two() -> None:
    """W_ij = [j = i - 1]: unit 1 is the source (Orhan and Pitkow, section 3)."""
    cell = make("VanillaRNN-identity", sizes=(1, 4))
    silent(cell)
    with torch.no_grad():
        cell.recurrent.weight.copy_(torch.diag(torch.ones(3), -1))
    start = torch.eye(4, dtype=F64)[:1]
    y, _ = scan(cell, torch.zeros(4, 1, 1, dtype=F64), (start,), backend="loop")
    close(y[:, 0], np.eye(5, 4)[1:])
    assert cell.recurrent_matrices()["recurrent"][1, 0] == 1


@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN"])
def test_the_transposed_rule_is_another_network(name: str) -> None:
    cell, (x, state) = make(name), draw(name)
    right, wrong = (exprnn(numbers(cell), x, state, transpose=flag)[0] for flag in (False, True))
    assert np.abs(right - wrong).max() > 0.1
    y, _ = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    assert np.abs(y.detach().numpy() - wrong).max() > 0.1


@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN", *(f"VanillaRNN-{f}" for f in NONLINEARITIES)])
def test_recurrent_matrix_is_the_w_of_the_equation(name: str) -> None:
    cell = make(name)
    p = numbers(cell)
    W = p["recurrent.weight"] if "recurrent.weight" in p else rotation_of(p, N)
    matrices = cell.recurrent_matrices()
    assert set(matrices) == {"recurrent"}
    close(matrices["recurrent"], W)


@pytest.mark.parametrize(
    ("name", "gates"),
    [("LSTM", ["input", "forget", "cell", "output"]), ("GRU", ["reset", "update", "candidate"])],
)
def test_gates_come_apart(name: str, gates: list[str]) -> None:
    cell = make(name)
    matrices = cell.recurrent_matrices()
    assert set(matrices) == set(gates)
    for gate, block in zip(gates, np.split(numbers(cell)["recurrent.weight"], len(gates)), strict=True):
        close(matrices[gate], block, atol=0)


# -- closed forms over time ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN"])
def test_without_bias_and_input_the_network_is_a_rotation(name: str) -> None:
    """modReLU with b = 0 is the identity, so h_T = W^T h_0 with |h_T| = |h_0|; for ExpRNN that is exp(T A) h_0."""
    cell, (_, state) = make(name), draw(name)
    silent(cell)
    steps = 40
    y, _ = scan(cell, torch.zeros(steps, B, I, dtype=F64), tensors(state), backend="loop")
    W = rotation_of(numbers(cell), N)
    close(y[-1], state[0] @ np.linalg.matrix_power(W, steps).T, atol=1e-11)
    close(y.norm(dim=-1), np.broadcast_to(np.linalg.norm(state[0], axis=1), (steps, B)), atol=1e-11)
    if name == "ExpRNN":
        close(y[-1], state[0] @ linalg.expm(steps * skew_matrix(numbers(cell)["recurrent.skew"], N)).T, atol=1e-11)


@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN"])
def test_gradient_through_time_keeps_its_norm(name: str) -> None:
    """dl/dh_0 = (W^T)^T dl/dh_T: an isometry of the gradient, which is what the architecture is for."""
    cell, (_, state) = make(name), draw(name)
    silent(cell)
    h0 = torch.tensor(state[0], requires_grad=True)
    y, _ = scan(cell, torch.zeros(200, B, I, dtype=F64), (h0,), backend="loop")
    G = torch.tensor(np.random.default_rng(0).normal(size=(B, N)))
    (g0,) = torch.autograd.grad(y[-1], h0, G)
    torch.testing.assert_close(g0.norm(dim=1), G.norm(dim=1), rtol=0, atol=1e-11)


def test_impulse_response_of_a_linear_network() -> None:
    """y_t = W^(t-1) V x_1 for an impulse at t = 1."""
    cell, (x, _) = make("VanillaRNN-identity"), draw("VanillaRNN-identity")
    p = numbers(cell)
    with torch.no_grad():
        cell.input.bias.zero_()
    x[1:] = 0
    y, _ = scan(cell, torch.tensor(x), backend="loop")
    for t in range(T):
        close(y[t], x[0] @ p["input.weight"].T @ np.linalg.matrix_power(p["recurrent.weight"], t).T, atol=1e-12)


def test_saturated_gates_hold_the_lstm_cell() -> None:
    """Forget gate open, input gate shut: c_t = c_0 for ever."""
    cell, (x, state) = make("LSTM"), draw("LSTM")
    with torch.no_grad():
        cell.input.bias[:N], cell.input.bias[N : 2 * N] = -200.0, 200.0
    _, (_, c) = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    close(c, state[1], atol=1e-15)


def test_saturated_update_gate_holds_the_gru_state() -> None:
    """z = 1 keeps h (torch's convention: h = (1 - z) n + z h)."""
    cell, (x, state) = make("GRU"), draw("GRU")
    with torch.no_grad():
        cell.input.bias[N : 2 * N] = 200.0
    _, (h,) = scan(cell, torch.tensor(x), tensors(state), backend="loop")
    close(h, state[0], atol=1e-15)


# -- learned initial state -------------------------------------------------------------------------


@each_cell
def test_learned_initial_state_adds_exactly_its_numbers(name: str) -> None:
    plain, learned = make(name), make(name, learn_initial_state=True)
    states = 2 if name == "LSTM" else 1
    assert sum(p.numel() for p in learned.parameters()) - sum(p.numel() for p in plain.parameters()) == states * N
    rows = learned.initial_state(B)
    assert [tuple(s.shape) for s in rows] == [(B, N)] * states
    assert all(s.any() and torch.equal(s, s[:1].expand(B, N)) for s in rows)


@each_cell
def test_learned_initial_state_gets_the_gradient_summed_over_the_batch(name: str) -> None:
    cell, (x, _) = make(name, learn_initial_state=True), draw(name)
    extra = [p for key, p in cell.named_parameters() if key not in dict(make(name).named_parameters())]
    G = torch.tensor(np.random.default_rng(2).normal(size=(T, B, N)))
    given = tuple(s.detach().clone().requires_grad_() for s in cell.initial_state(B))
    y_given, _ = scan(cell, torch.tensor(x), given, backend="loop")
    y, _ = scan(cell, torch.tensor(x), backend="loop")
    torch.testing.assert_close(y, y_given, rtol=0, atol=1e-14)
    expected = torch.cat([g.sum(0) for g in torch.autograd.grad(y_given, given, G)])
    actual = torch.cat([g.flatten() for g in torch.autograd.grad(y, extra, G)])
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(actual.sort().values, expected.sort().values, rtol=0, atol=1e-13)


# -- how a cell starts -----------------------------------------------------------------------------


@pytest.mark.parametrize("cell_class", [ExpRNNCell, DtrivRNNCell])
def test_orthogonal_cells_start_as_the_paper_says(cell_class: Callable[..., Any]) -> None:
    """V Kaiming normal for relu, std sqrt(2 / fan_in), no bias; b ~ U(-0.01, 0.01); W a rotation."""
    torch.manual_seed(0)
    cell = cell_class(50, 101)
    assert cell.input.bias is None
    V = cell.input.weight.detach().double().numpy().ravel()
    assert stats.kstest(V, "norm", args=(0, math.sqrt(2 / 50))).pvalue > 1e-4
    b = cell.activation.bias.detach().double().numpy()
    assert stats.kstest(b, "uniform", args=(-0.01, 0.02)).pvalue > 1e-4
    W = cell.recurrent_matrices()["recurrent"].detach().double().numpy()
    np.testing.assert_allclose(W.T @ W, np.eye(101), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(W), 1.0, atol=1e-4)


def test_vanilla_cell_starts_with_the_matrix_asked_for() -> None:
    W = VanillaRNNCell(3, 6).recurrent.weight.detach().double()
    torch.testing.assert_close(W.T @ W, torch.eye(6, dtype=F64), rtol=0, atol=1e-5)
    assert (W - torch.eye(6)).abs().max() > 0.1
    assert torch.equal(VanillaRNNCell(3, 6, init=identity_).recurrent.weight, torch.eye(6))


def test_vanilla_cell_is_tanh_unless_told() -> None:
    x = torch.randn(T, B, I)
    default, explicit = VanillaRNNCell(I, N), VanillaRNNCell(I, N, nonlinearity="tanh")
    explicit.load_state_dict(default.state_dict())
    assert torch.equal(scan(default, x, backend="loop")[0], scan(explicit, x, backend="loop")[0])


@pytest.mark.parametrize("forget_bias", [1.0, 3.5])
def test_forget_gate_starts_open(forget_bias: float) -> None:
    cell = LSTMCell(I, N, forget_bias=forget_bias)
    assert cell.input.bias[N : 2 * N].tolist() == [forget_bias] * N
    assert LSTMCell(I, N).input.bias[N : 2 * N].tolist() == [1.0] * N


@pytest.mark.parametrize("arguments", [(), (torch.zeros(5, 2, 3),), (torch.zeros(2, 3), (torch.zeros(2, 4),))], ids=len)
def test_a_call_says_what_to_call_instead(arguments: tuple[Any, ...]) -> None:
    for cell in (ExpRNNCell(3, 4), LSTMCell(3, 4)):
        told = (
            rf"^{type(cell).__name__} is one step of a recurrence and cannot be called: run it over a sequence with "
            r"lit_rnn\.scan\.scan\(cell, x\), x \(T, B, 3\), time first, or take one step with "
            r"cell\.step\(u_t, state, w\)\.$"
        )
        with pytest.raises(UserError, match=told):
            cell(*arguments)
