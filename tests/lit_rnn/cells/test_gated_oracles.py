"""NRU and the gated baselines: the papers' equations in NumPy, gradcheck, torch's own layers, printed sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, PixelDigits, Task, UserError
from lit_rnn.cells import Cell, GRUCell, JANETCell, LayerNormRNNCell, LSTMCell, NRUCell, StatisticalRUCell
from lit_rnn.models import GRU, JANET, LSTM, NRU, SequenceModel, StatisticalRU, VanillaRNN
from lit_rnn.models.base import count_parameters
from lit_rnn.scan import scan
from tests.oracles.cells import gru, lstm, sigmoid
from tests.oracles.maps import Array
from tests.oracles.modules import numbers

I, N, B, T = 3, 5, 2, 6  # noqa: E741  # the papers' letters


def lstm_of(cell: Cell, x: Array) -> Array:
    return lstm(numbers(cell), x, (np.zeros((B, N)), np.zeros((B, N))))[0]


def gru_of(cell: Cell, x: Array) -> Array:
    return gru(numbers(cell), x, (np.zeros((B, N)),))[0]


class P:
    """A cell's parameters as NumPy arrays: p.input.W and p.input.b."""

    def __init__(self, cell: nn.Module) -> None:
        for name, value in cell.named_parameters():
            *path, last = name.split(".")
            setattr(self, "_".join([*path, {"weight": "W", "bias": "b"}.get(last, last)]), value.detach().numpy())


def nru(cell: NRUCell, x: Array) -> Array:
    """Released form: mean over heads of one outer product cut in rows. Paper: a sum, an outer product per head."""
    p: Any = P(cell)
    h, m, outputs = np.zeros((B, cell.hidden_size), x.dtype), np.zeros((B, cell.memory_size), x.dtype), []
    relu = (lambda z: np.maximum(z, 0)) if cell.use_relu else (lambda z: z)
    for xt in x:
        z = xt @ p.input_W.T + p.input_b + h @ p.recurrent_W.T + m @ p.memory_W.T
        if isinstance(cell.norm, nn.LayerNorm):
            centred = z - z.mean(1, keepdims=True)
            z = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * p.norm_W + p.norm_b
        h = np.maximum(z, 0)
        c = np.concatenate((h, m, xt) if cell.form == "paper" else (h, m), axis=1)
        change = np.zeros_like(m)
        for b in range(B):
            for sign, gate, which in ((1, "alpha", "write"), (-1, "beta", "erase")):
                weight = relu(c[b] @ getattr(p, f"{gate}_W").T + getattr(p, f"{gate}_b"))
                pq = c[b] @ getattr(p, f"{which}_W").T + getattr(p, f"{which}_b")
                if cell.form == "released":
                    side = len(pq) // 2
                    rows = np.outer(pq[:side], pq[side:]).reshape(cell.heads, cell.memory_size)
                else:
                    side = math.isqrt(cell.memory_size)
                    pairs = pq.reshape(cell.heads, 2, side)
                    rows = np.stack([np.outer(*pair).ravel() for pair in pairs])
                rows = relu(rows)
                norms = (np.abs(rows) ** 5).sum(1) ** 0.2
                rows = np.where(norms[:, None] > 0, rows / np.where(norms > 0, norms, 1)[:, None], 0)
                heads = weight[:, None] * rows
                change[b] += sign * (heads.mean(0) if cell.form == "released" else heads.sum(0))
        m = m + change
        outputs.append(h)
    return np.stack(outputs)


def janet(cell: JANETCell, x: Array) -> Array:
    p: Any = P(cell)
    h, outputs = np.zeros((B, N), x.dtype), []
    for xt in x:
        s, j = np.split(xt @ p.input_W.T + p.input_b + h @ p.recurrent_W.T, 2, axis=1)
        h = sigmoid(s) * h + (1 - sigmoid(s - cell.beta)) * np.tanh(j)
        outputs.append(h)
    return np.stack(outputs)


def statistical(cell: StatisticalRUCell, x: Array) -> Array:
    p: Any = P(cell)
    alphas = cell.alphas
    mu, outputs = [np.zeros((B, 4), x.dtype) for _ in alphas], []
    for xt in x:
        r = np.maximum(np.concatenate(mu, 1) @ p.summary_W.T + p.summary_b, 0)
        phi = np.maximum(xt @ p.input_W.T + p.input_b + r @ p.recurrent_W.T, 0)
        mu = [a * old + (1 - a) * phi for a, old in zip(alphas, mu, strict=True)]
        outputs.append(np.maximum(np.concatenate(mu, 1) @ p.output_W.T + p.output_b, 0))
    return np.stack(outputs)


def normed(cell: LayerNormRNNCell, x: Array) -> Array:
    p: Any = P(cell)
    h, outputs = np.zeros((B, N), x.dtype), []
    for xt in x:
        z = xt @ p.input_W.T + p.input_b + h @ p.recurrent_W.T
        centred = z - z.mean(1, keepdims=True)
        h = np.maximum(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * p.norm_W + p.norm_b, 0)
        outputs.append(h)
    return np.stack(outputs)


CASES: dict[str, tuple[Callable[[], Cell], Callable[..., Array]]] = {
    "nru": (lambda: NRUCell(I, N, 9, 4), nru),
    "nru relu": (lambda: NRUCell(I, N, 4, 4, use_relu=True), nru),
    "nru norm": (lambda: NRUCell(I, N, 8, 2, layer_norm=True), nru),
    "nru paper": (lambda: NRUCell(I, N, 9, 3, form="paper"), nru),
    "nru paper relu": (lambda: NRUCell(I, N, 4, 2, use_relu=True, form="paper"), nru),
    "lstm": (lambda: LSTMCell(I, N), lstm_of),
    "lstm peepholes": (lambda: LSTMCell(I, N, peepholes=True, init="glorot"), lstm_of),
    "lstm chrono": (lambda: LSTMCell(I, N, t_max=20), lstm_of),
    "gru": (lambda: GRUCell(I, N), gru_of),
    "gru before": (lambda: GRUCell(I, N, reset="before", init="glorot"), gru_of),
    "janet": (lambda: JANETCell(I, N), janet),
    "janet without beta": (lambda: JANETCell(I, N, beta=0.0, t_max=9, chrono_integers=True), janet),
    "statistical": (lambda: StatisticalRUCell(I, N, 4, 3, (0.0, 0.5, 0.9)), statistical),
    "layer norm": (lambda: LayerNormRNNCell(I, N), normed),
}


@pytest.mark.parametrize(("make", "oracle"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_steps_are_the_papers(
    make: Callable[[], Cell], oracle: Callable[..., Array], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(3)
    cell = make()
    for parameter in cell.parameters():  # biases that start at zero would hide
        nn.init.normal_(parameter, std=0.25)
    steps = T if dtype == torch.float64 else 2  # the bound is on a step; these networks amplify its rounding
    x = torch.randn(T, B, I, dtype=torch.float64)[:steps]
    expected = oracle(cell.to(torch.float64), x.numpy())
    found = scan(cell.to(dtype), x.to(dtype))[0].detach()
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=10 * tolerance, atol=tolerance)
    assert expected.std() > 0.01


@pytest.mark.parametrize(("make", "oracle"), CASES.values(), ids=CASES.keys())
def test_gradients(make: Callable[[], Cell], oracle: Callable[..., Array]) -> None:
    torch.manual_seed(5)
    cell = make().double()
    for parameter in cell.parameters():  # zero biases would stand on the corners of ReLU
        nn.init.normal_(parameter, std=0.4)
    parameters = tuple(cell.parameters())
    x = torch.randn(3, B, I, dtype=torch.float64, requires_grad=True)
    names = [f"cell.{name}" for name, _ in cell.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(_Scan(cell), dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *parameters), eps=1e-6, atol=1e-6, fast_mode=True)


class _Scan(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return scan(self.cell, x, backend="loop")[0]


def test_torchs_own_layers_weight_for_weight() -> None:
    torch.manual_seed(0)
    x = torch.randn(T, B, I)
    for theirs, ours in ((nn.LSTM(I, N), LSTMCell(I, N)), (nn.GRU(I, N), GRUCell(I, N))):
        with torch.no_grad():
            ours.input.weight.copy_(theirs.weight_ih_l0)
            ours.recurrent.weight.copy_(theirs.weight_hh_l0)
            bias = theirs.bias_ih_l0.clone()
            if isinstance(ours, GRUCell):
                assert ours.candidate_bias is not None
                bias[: 2 * N] += theirs.bias_hh_l0[: 2 * N]
                ours.candidate_bias.copy_(theirs.bias_hh_l0[2 * N :])
            else:
                bias += theirs.bias_hh_l0
            ours.input.bias.copy_(bias)
        torch.testing.assert_close(scan(ours, x)[0], theirs(x)[0], rtol=1e-5, atol=1e-6)


# ---- corners of the NRU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # to the second, 1e-12 is 0
@pytest.mark.parametrize("use_relu", [False, True])
def test_a_zero_row_has_a_finite_gradient(use_relu: bool, dtype: torch.dtype) -> None:
    cell = NRUCell(I, N, 4, 4, use_relu=use_relu).to(dtype)
    with torch.no_grad():
        for linear in (cell.write, cell.erase):
            linear.weight.zero_()
            linear.bias.copy_(torch.tensor([-1.0] * 4 + [1.0] * 4) if use_relu else torch.zeros(8))
    y, (_, m) = scan(cell, torch.randn(4, B, I).to(dtype))
    assert not m.any()
    (y.sum() + m.sum()).backward()
    for parameter in cell.parameters():
        assert parameter.grad is None or (parameter.grad.isfinite().all() and parameter.grad.abs().max() < 1e3)


@pytest.mark.parametrize("scale", [1e-5, 1e3])
def test_fifth_powers_neither_vanish_nor_overflow(scale: float) -> None:
    cell = NRUCell(I, N, 4, 4)
    with torch.no_grad():
        for linear in (cell.write, cell.erase):
            linear.bias.uniform_(0.5, 1).mul_(scale)
            linear.weight.mul_(0)
    x = torch.randn(3, B, I)
    small = scan(cell, x)[1][1]
    torch.testing.assert_close(small.double(), scan(cell.double(), x.double())[1][1], rtol=1e-5, atol=1e-6)
    assert small.isfinite().all() and small.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("M", "k", "form"), [(5, 4, "released"), (64, 3, "released"), (8, 2, "paper"), (0, 4, "released")]
)
def test_sizes_that_do_not_factor_are_refused(M: int, k: int, form: Any) -> None:
    with pytest.raises(UserError, match="memory_size"):
        NRUCell(I, N, M, k, form=form)


@pytest.mark.parametrize("t_max", [1, 0, -3])
def test_a_chrono_start_needs_two_steps(t_max: int) -> None:
    for cell in (LSTMCell, JANETCell):
        with pytest.raises(UserError, match="t_max"):
            cell(I, N, t_max=t_max)  # type: ignore[operator]


# ---- sizes and starts

COPY, PIXELS = CopyMemory().task, PixelDigits().task


@pytest.mark.parametrize(
    ("task", "model", "arguments", "count"),
    [
        (COPY, NRU, {"hidden_size": 80, "memory_size": 64}, 23_569),
        (COPY, LSTM, {"hidden_size": 70, "peepholes": True}, 23_529),
        (COPY, GRU, {"hidden_size": 82, "reset": "before"}, 23_625),
        (COPY, JANET, {"hidden_size": 101}, 23_542),
        (COPY, VanillaRNN, {"hidden_size": 143, "layer_norm": True}, 23_604),
        (COPY, StatisticalRU, {"hidden_size": 60, "statistics_size": 55, "summary_size": 16}, 23_010),
        (PIXELS, NRU, {"hidden_size": 212, "memory_size": 256}, 165_554),
        (PIXELS, LSTM, {"hidden_size": 200, "peepholes": True}, 164_210),
        (PIXELS, GRU, {"hidden_size": 232, "reset": "before"}, 165_194),
        (PIXELS, JANET, {"hidden_size": 283}, 164_150),
        (PIXELS, VanillaRNN, {"hidden_size": 400, "layer_norm": True}, 165_610),
        (PIXELS, StatisticalRU, {"hidden_size": 150, "statistics_size": 155, "summary_size": 50}, 164_770),
    ],
)
def test_published_sizes(task: Task, model: type[SequenceModel], arguments: dict[str, Any], count: int) -> None:
    assert count_parameters(model(task, **arguments)) == count


def test_starts_of_the_lstm_gate_by_gate() -> None:
    n = 50
    chain, rise = 1.02 * np.eye(n, k=-1), np.subtract.outer(np.arange(n), np.arange(n)) * 0.01 / (n - 1)
    for init, sigmoids, candidate in (("chain", chain, chain), ("mixed", rise, chain)):
        cell = LSTMCell(3, n, init=init)  # type: ignore[arg-type]
        gates = {name: W.detach().numpy() for name, W in cell.recurrent_matrices().items()}
        for name in ("input", "forget", "output"):
            np.testing.assert_allclose(gates[name], sigmoids, atol=1e-7)
        np.testing.assert_allclose(gates["cell"], candidate, atol=1e-7)
        for V in cell.input.weight.detach().split(n):
            np.testing.assert_allclose(V.numpy(), 0.9 * np.eye(n, 3), atol=1e-7)
    for init in ("orthogonal", "glorot"):
        cell = LSTMCell(3, n, init=init, peepholes=True)  # type: ignore[arg-type]
        for W in cell.recurrent_matrices().values():
            np.testing.assert_allclose((W.T @ W).detach().numpy(), np.eye(n), atol=1e-5)
        assert cell.peephole is not None and cell.peephole.min() >= 0 and cell.peephole.max() <= 1
        assert cell.input.bias[n : 2 * n].eq(1).all() and cell.input.bias.sum() == n


@pytest.mark.parametrize("integers", [False, True])
def test_the_chrono_start(integers: bool) -> None:
    torch.manual_seed(0)
    n = 1000
    i, f, *rest = LSTMCell(3, n, t_max=30, chrono_integers=integers, init="glorot").input.bias.detach().split(n)
    u = f.exp()
    assert torch.equal(i, -f) and not any(other.any() for other in rest)
    assert u.min() >= 1 - 1e-6 and u.max() <= (30 if integers else 29) + 1e-4
    assert float(u.mean()) == pytest.approx(15.5 if integers else 15.0, abs=0.5)
    assert ((u - u.round()).abs().max() < 1e-4) == integers


@pytest.mark.parametrize(
    ("init", "options"), [("identity", {"lam": 1.05}), ("chain", {"alpha": 1.2}), ("fbchain", {"beta": 0.9})]
)
def test_a_start_that_explodes_is_told(init: Any, options: dict[str, float]) -> None:
    task = CopyMemory(delay=480).task
    with pytest.warns(UserWarning, match="growth of") as caught:
        VanillaRNN(task, 100, "elu", init, **options)  # type: ignore[arg-type]
    factor = float(str(caught[0].message).split("growth of ")[1].split(" ")[0])
    W = {
        "identity": 1.05 * np.eye(100),
        "chain": 1.2 * np.eye(100, k=-1),
        "fbchain": 0.99 * np.eye(100, k=-1) + 0.9 * np.eye(100, k=1),
    }[init]
    expected = 1.2**99 if init == "chain" else np.linalg.norm(np.linalg.matrix_power(W, 500), 2)
    assert factor == pytest.approx(expected, rel=0.01)
    VanillaRNN(task, 100, "tanh", init, **options)  # saturates: no warning, which would be an error here


def test_a_start_that_overflows_is_told() -> None:
    with pytest.warns(UserWarning, match="growth of inf over 1000 steps"):
        VanillaRNN(CopyMemory(delay=980).task, 8, "relu", "gaussian", lam=9.0)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_orthogonal_penalty_is_that_of_the_weights_as_they_are(precision: str) -> None:
    """W^T W - I cancels: of an orthogonal W in float32, a product in bfloat16 leaves a gradient of 0.1."""
    model = VanillaRNN(CopyMemory(delay=5).task, 64, orthogonal_penalty=1.0)
    if precision == "bf16-true":
        model.bfloat16()
    W = model.cell_list()[0].recurrent_matrices()["recurrent"].detach().double()
    exact = (W.T @ W - torch.eye(64, dtype=torch.float64)).square().sum()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        penalty = model.penalty()
    assert penalty is not None
    torch.testing.assert_close(penalty.detach().double(), exact, rtol=1e-3, atol=1e-9)
