"""nn.LSTM, nn.GRU and nn.RNN into our cells and back; the oracle is torch's own module, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import UserError
from lit_rnn import export
from lit_rnn.cells import Cell, GRUCell, JANETCell, LayerNormRNNCell, LSTMCell, VanillaRNNCell
from lit_rnn.scan import scan

WIDTH, N, T, B = 3, 5, 7, 2
TORCH: dict[str, Callable[..., nn.RNNBase]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "tanh": ("VanillaRNN", {}),
    "relu": ("VanillaRNN", {"nonlinearity": "relu"}),
}
CASES = [*itertools.product(TORCH, (1, 2), (True, False), (True, False))]


def x_of() -> Tensor:
    return torch.randn(T, B, WIDTH, dtype=torch.float64)


def run(cells: list[Cell], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs and final h of every layer, by the loop."""
    last = []
    for cell in cells:
        x, state = scan(cell, x, backend="loop")
        last.append(state[0])
    return x, last


def by_torch(rnn: nn.RNNBase, x: Tensor) -> tuple[Tensor, Tensor]:
    y, last = rnn(x.transpose(0, 1) if rnn.batch_first else x)
    return y.transpose(0, 1) if rnn.batch_first else y, last[0] if isinstance(last, tuple) else last


@pytest.mark.parametrize(("kind", "layers", "bias", "batch_first"), CASES)
def test_there_and_back(kind: str, layers: int, bias: bool, batch_first: bool) -> None:
    options = {"num_layers": layers, "bias": bias, "batch_first": batch_first, "dtype": torch.float64}
    rnn = TORCH[kind](WIDTH, N, **options)
    x = x_of()
    y, last = by_torch(rnn, x)
    cells = export.from_torch(rnn)
    assert [type(cell) for cell in cells] == [{"LSTM": LSTMCell, "GRU": GRUCell}.get(kind, VanillaRNNCell)] * layers
    ours, ours_last = run(cells, x)
    torch.testing.assert_close(ours, y, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(torch.stack(ours_last), last, rtol=1e-13, atol=1e-14)
    back = export.to_torch(cells, batch_first=batch_first)
    assert type(back) is type(rnn) and back.batch_first == batch_first and back.num_layers == layers
    torch.testing.assert_close(by_torch(back, x)[0], y, rtol=1e-13, atol=1e-14)
    again = export.from_torch(back)
    for cell, other in zip(cells, again, strict=True):
        for (name, one), two in zip(cell.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two), name


@pytest.mark.parametrize("kind", TORCH)
def test_a_model_takes_them_and_gives_them_back(kind: str, make: Any) -> None:
    name, options = MODELS[kind]
    model = make(name, layers=2, learn_initial_state=True, **options)
    rnn = TORCH[kind](5, 8, num_layers=2, dtype=torch.float64)
    export.load_torch_(model, rnn)
    symbols = torch.randint(5, (B, T))
    one_hot = nn.functional.one_hot(symbols, 5).double().transpose(0, 1)
    y, _ = rnn(one_hot)
    torch.testing.assert_close(model(symbols), model.decoder(y).transpose(0, 1), rtol=1e-12, atol=1e-13)
    still = make(name, layers=2, **options)
    back = export.to_torch(still)
    torch.testing.assert_close(still(symbols), still.decoder(back(one_hot)[0]).transpose(0, 1), rtol=1e-12, atol=1e-13)


def test_a_constrained_matrix_goes_as_it_is_applied(make: Any) -> None:
    model = make("VanillaRNN", recurrent_constraint="spectral_norm", constraint_bound=0.5)
    back = export.to_torch(model)
    assert torch.linalg.matrix_norm(back.weight_hh_l0, 2).item() == pytest.approx(0.5, abs=1e-12)
    orthogonal = make("HouseholderRNN", nonlinearity="tanh", learn_initial_state=False)
    W = export.to_torch(orthogonal).weight_hh_l0
    torch.testing.assert_close(W.mT @ W, torch.eye(8, dtype=W.dtype), rtol=0, atol=1e-12)
    for constrained in (model, orthogonal):
        with pytest.raises(UserError, match="constrains its recurrent matrix"):
            export.load_torch_(constrained, nn.RNN(5, 8, dtype=torch.float64))


def test_a_weight_that_torch_parametrizes_goes_as_it_is_applied() -> None:
    rnn = nn.RNN(WIDTH, N, dtype=torch.float64)
    nn.utils.parametrizations.orthogonal(rnn, "weight_hh_l0")
    x = x_of()
    torch.testing.assert_close(run(export.from_torch(rnn), x)[0], rnn(x)[0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("rnn", "told"),
    [
        (nn.LSTM(WIDTH, N, bidirectional=True), "rnn, a LSTM, is bidirectional"),
        (nn.LSTM(WIDTH, N, proj_size=2), "has proj_size"),
        (nn.GRU(WIDTH, N, 2, dropout=0.5), "has dropout"),
        (nn.LSTMCell(WIDTH, N), "rnn is a LSTMCell, but it must be a torch nn.LSTM, nn.GRU or nn.RNN"),
        (nn.Linear(WIDTH, N), "rnn is a Linear"),
        (None, "rnn is a NoneType"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_no_cell_computes_is_refused(rnn: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        export.from_torch(rnn)
    with pytest.raises(UserError, match=told):
        export.load_torch_(LSTMCell(WIDTH, N), rnn)


def test_a_module_that_does_more_is_refused() -> None:
    class Mine(nn.GRU):
        def forward(self, *arguments: Any) -> Any:
            return super().forward(*arguments)

    hooked = nn.GRU(WIDTH, N)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="rnn is a Mine"):
        export.from_torch(Mine(WIDTH, N))
    with pytest.raises(UserError, match="has hooks"):
        export.from_torch(hooked)


@pytest.mark.parametrize(
    ("target", "rnn", "told"),
    [
        (
            LSTMCell(WIDTH, N, peepholes=True),
            nn.LSTM(WIDTH, N),
            "LSTMCell of layer 0 does not compute what nn.LSTM does",
        ),
        (LSTMCell(WIDTH, N, output_matrix=True), nn.LSTM(WIDTH, N), "does not compute what nn.LSTM does"),
        (GRUCell(WIDTH, N, reset="before"), nn.GRU(WIDTH, N), "does not compute what nn.GRU does"),
        (VanillaRNNCell(WIDTH, N, "relu"), nn.RNN(WIDTH, N), "does not compute what nn.RNN with tanh does"),
        (LSTMCell(WIDTH, N), nn.GRU(WIDTH, N), "does not compute what nn.GRU does"),
        (
            LSTMCell(WIDTH, 6),
            nn.LSTM(WIDTH, N),
            r"Layer 0 of rnn reads 3 inputs and has 5 units, but the LSTMCell of layer 0 reads",
        ),
        (LSTMCell(WIDTH, N), nn.LSTM(WIDTH, N, 2), "rnn is 'of 2 layers', but it must be of 1"),
        (LSTMCell(WIDTH, N).double(), nn.LSTM(WIDTH, N), "rnn is 'in torch.float32', but it must be in torch.float64"),
        ([], nn.LSTM(WIDTH, N), "a SequenceModel, a Cell, or a list of Cells"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_target_of_another_form_is_refused(target: Any, rnn: nn.RNNBase, told: str) -> None:
    before = [] if target == [] else [parameter.clone() for parameter in target.parameters()]
    with pytest.raises(UserError, match=told):
        export.load_torch_(target, rnn)
    after = [] if target == [] else target.parameters()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True)), "written all the same"


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (LSTMCell(WIDTH, N, peepholes=True), "LSTMCell of layer 0 is none of torch's"),
        (GRUCell(WIDTH, N, reset="before"), "GRUCell of layer 0 is none of torch's"),
        (JANETCell(WIDTH, N), "JANETCell of layer 0 is none of torch's"),
        (LayerNormRNNCell(WIDTH, N), "LayerNormRNNCell of layer 0 is none of torch's"),
        (VanillaRNNCell(WIDTH, N, "modrelu"), "is none of torch's"),
        (GRUCell(WIDTH, N, learn_initial_state=True), "trains its initial state"),
        ([GRUCell(WIDTH, N), GRUCell(N, 4)], "layers that differ"),
        ([GRUCell(WIDTH, N), LSTMCell(N, N)], "layers that differ"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_torch_has_not_is_refused(cells: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        export.to_torch(cells)
