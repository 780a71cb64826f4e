"""AWD-LSTM's last layer, as wide as the embedding that the decoder is tied to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules import Task, UserError
from lit_rnn.models import LSTM
from lit_rnn.models.base import count_parameters


def text(symbols: int) -> Task:
    return Task("text", "symbols", symbols, "next_symbol", symbols, None, "all", 1.0, "accuracy", True)


def awd(symbols: int, n: int, emb: int, layers: int = 3, **options: Any) -> LSTM:
    tied: dict[str, Any] = {"embedding_size": emb, "tied_decoder": True, "last_hidden_size": emb}
    return LSTM(text(symbols), n, layers=layers, **{**tied, **options})


@pytest.mark.parametrize(("init", "layers"), [("plain", 2), ("chain", 3), ("mixed", 3), ("orthogonal", 3)])
def test_it_is_torchs_layers_one_upon_another(init: Any, layers: int) -> None:
    """torch.nn.LSTM with these weights, layer by layer, and the embedding's matrix as the decoder's."""
    model = awd(11, 8, 5, layers, init=init).double()
    with torch.no_grad():
        model.decoder.bias.uniform_()
    x = torch.randint(11, (3, 7))
    y = model.embedding.weight[x]  # type: ignore[union-attr]
    for cell, n in zip(model.cell_list(), [8] * (layers - 1) + [5], strict=True):
        assert cell.hidden_size == n and cell.input_size == y.shape[-1]
        h = torch.zeros(3, n, dtype=torch.float64)
        state, w = cell.initial_state(3), cell.weights()
        state = tuple(part.double() for part in state)
        outputs = []
        for u in cell.drive(y.transpose(0, 1), w):
            h, state = cell.step(u, state, w)
            outputs.append(h)
        y = torch.stack(outputs, 1)
    expected = y @ model.embedding.weight.T + model.decoder.bias  # type: ignore[union-attr]
    torch.testing.assert_close(model(x), expected)


def test_published_sizes() -> None:
    """AWD's 13.8M, 24.2M and 47M: torch's LSTM has a second bias for every gate."""
    for symbols, n, emb, published in ((50, 1000, 200, 13.8e6), (10_000, 1150, 400, 24.2e6), (205, 1840, 400, 47.3e6)):
        sizes = [(emb, n), (n, n), (n, emb)]
        formula = sum(4 * h * (i + h) + 4 * h for i, h in sizes) + symbols * emb + symbols
        assert formula + sum(4 * h for _, h in sizes) == pytest.approx(published, rel=4e-3)
        if n == 1000:
            assert count_parameters(awd(symbols, n, emb)) == formula == 13_778_850


def test_its_options_make_it_again() -> None:
    model = awd(11, 8, 5)
    again = LSTM(**model.hparams)
    again.load_state_dict(model.state_dict())
    x = torch.randint(11, (2, 4))
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("options", [{"layers": 1}, {"residual": True}, {"last_hidden_size": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="last_hidden_size"):
        awd(11, 8, 5, **options)
