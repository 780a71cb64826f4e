"""What a network needs is counted before it is built: what it then has, and never more."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch

from datamodules import CopyMemory, UserError
from lit_rnn import memory, models
from lit_rnn.models import size
from lit_rnn.models.base import SequenceModel

TASK = CopyMemory(delay=5).task
MODELS = ["ExpRNN", "NnRNN", "ScoRNN", "ScuRNN", "URNN", "FullURNN", "EURNN", "GORU", "HouseholderRNN", "VanillaRNN"]
MODELS += ["LSTM", "GRU", "JANET", "NRU", "StatisticalRU", "LipschitzRNN", "AntisymmetricRNN", "DtrivRNN"]
MORE: dict[str, dict[str, Any]] = {
    "NRU": {"memory_size": 16},
    "StatisticalRU": {"statistics_size": 4, "summary_size": 4},
}


def counted(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> tuple[int, SequenceModel]:
    """What is counted for a model, and the model."""
    needs: list[int] = []
    monkeypatch.setattr(size, "LARGE", 0)
    monkeypatch.setattr(size, "require_memory", lambda needed, *_: needs.append(needed))
    model = getattr(models, name)(TASK, **MORE.get(name, {}), **options)
    return needs[-1], model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layers", [1, 3])
def test_never_more_than_there_will_be(monkeypatch: pytest.MonkeyPatch, name: str, layers: int) -> None:
    needed, model = counted(monkeypatch, name, hidden_size=16, layers=layers)
    held = sum(t.nbytes for t in (*model.cells.parameters(), *model.cells.buffers(), model.decoder.weight))
    assert needed - layers * size.LAYER <= held


@pytest.mark.parametrize("name", ["ExpRNN", "LSTM", "VanillaRNN", "EURNN", "NRU"])
def test_the_weights_are_counted_in_full(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On the device meta, not by the vector that is the least."""
    needed, model = counted(monkeypatch, name, hidden_size=16, layers=3)
    held = sum(t.nbytes for t in (*model.cells.parameters(), *model.cells.buffers(), model.decoder.weight))
    assert needed - 3 * size.LAYER == held


def test_a_layer_takes_more_than_is_counted_for_its_modules() -> None:
    def taken(layers: int) -> int:
        tracemalloc.start()
        kept = models.VanillaRNN(TASK, hidden_size=1, layers=layers)  # tensors are not Python's memory
        current = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del kept
        return current

    def least(layers: int) -> int:
        return min(taken(layers) for _ in range(3))  # other threads, and garbage, can only add to it

    least(1)
    assert (least(30) - least(10)) / 20 > size.LAYER


@pytest.mark.parametrize("name", ["ExpRNN", "NRU"])
def test_counting_draws_no_random_numbers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(3)
    expected = getattr(models, name)(TASK, hidden_size=8, **MORE.get(name, {}))
    torch.manual_seed(3)
    _, model = counted(monkeypatch, name, hidden_size=8)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """One 100,000 x 100,000 float32 matrix is 37.3 GiB."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 32 << 30)
    with pytest.raises(UserError, match=r"hidden_size is 100000, but VanillaRNN .* 37\.3 GiB .* has 32\.0 GiB"):
        models.VanillaRNN(TASK, hidden_size=100_000)
    with pytest.raises(UserError, match=r"hidden_size is 30000, but VanillaRNN .* 30\.2 GiB"):  # of them 26.8 an MLP's
        monkeypatch.setattr(memory, "machine_memory", lambda: 20 << 30)
        models.VanillaRNN(TASK, hidden_size=30_000, mixing="mlp")
    with pytest.raises(UserError, match=r"layers is 1000000000, but VanillaRNN"):
        models.VanillaRNN(TASK, hidden_size=1, layers=10**9)


def test_a_structured_matrix_may_be_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """n = 2^20 with O(n) parameters fits where a dense matrix never would."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 << 30)
    n = 2**20
    size.check_size(
        type("Half", (), {"task": TASK, "options": Options(n), "build_cell": lambda _, i: Diagonal(i, n)})()
    )
    with pytest.raises(UserError, match="hidden_size"):
        models.VanillaRNN(TASK, hidden_size=n)


class Options(dict[str, Any]):
    """As hparams: an option is a key and an attribute."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size=hidden_size, layers=1, embedding_size=None, encoder_size=None, mixing="none")
        self.__dict__ = self


class Diagonal(torch.nn.Module):
    """A diagonal recurrence."""

    def __init__(self, input_size: int, n: int) -> None:
        super().__init__()
        self.output_size, self.diagonal = n, torch.nn.Parameter(torch.ones(n))
