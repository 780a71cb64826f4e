"""Language models against hand computations: bits, perplexity, and what is sampled."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import TextCorpus, UserError
from lit_rnn.models import LSTM, ExpRNN, SequenceModel, VanillaRNN, sample
from tests.trainers import quiet_trainer

WORDS = "to be or not to be that is the question\n" * 6


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    path = tmp_path / "text.txt"
    path.write_text(WORDS)

    def make(**options: Any) -> TextCorpus:
        return TextCorpus(str(path), **{"tbptt": 7, "batch_size": 1} | options)

    return make


def measured(model: SequenceModel, data: TextCorpus) -> dict[str, float]:
    found = quiet_trainer().validate(model, datamodule=data, verbose=False)[0]
    return {name.removeprefix("val/"): value for name, value in found.items()}


@torch.no_grad()
def silent(model: SequenceModel, logits: Tensor) -> SequenceModel:
    """It says the same whatever it reads."""
    model.decoder.weight.zero_()
    model.decoder.bias.copy_(logits)
    return model.eval()


def frequencies(data: TextCorpus, split: Any) -> Tensor:
    counts = Counter(data.symbols(split).tolist()[1:])  # the targets
    total = sum(counts.values())
    return torch.tensor([counts[k] / total for k in range(data.task.input_size)], dtype=torch.float64)


def test_bits_per_character_by_hand(corpus: Any) -> None:
    """The mean of -log2 p of every next character, by a tanh network written out in a loop, over chunk borders."""
    data = corpus(val_share=0.3)
    torch.manual_seed(1)
    model = VanillaRNN(data.task, 6, backend="loop").double()
    cell = model.cell_list()[0]
    W, V, b = cell.recurrent.weight, cell.input.weight, cell.input.bias  # type: ignore[attr-defined, union-attr]
    text = data.vocabulary.decode(data.symbols("val").tolist())
    number = {symbol: k for k, symbol in enumerate(sorted(set(WORDS)))}
    h, bits = torch.zeros(6, dtype=torch.float64), 0.0
    for read, following in itertools.pairwise(text):
        h = torch.tanh(W @ h + V[:, number[read]] + b)
        scores = (model.decoder.weight @ h + model.decoder.bias).tolist()
        bits -= math.log2(math.exp(scores[number[following]]) / sum(map(math.exp, scores)))
    assert len(text) > 2 * data.tbptt
    found = measured(model, data)
    assert found["bits_per_character"] == pytest.approx(bits / (len(text) - 1), rel=1e-6)
    assert found["bits_per_character"] == pytest.approx(found["loss"] / math.log(2), rel=1e-6)


@pytest.mark.parametrize(("level", "metric"), [("char", "bits_per_character"), ("byte", "bits_per_byte")])
def test_the_bits_of_a_unigram_predictor_are_the_entropy(corpus: Any, level: str, metric: str) -> None:
    data = corpus(level=level, val_share=0.5, batch_size=2)
    p = frequencies(data, "val")
    model = silent(LSTM(data.task, 4), p.log().clamp_min(-1e4).float())
    entropy = float(-(p[p > 0] * p[p > 0].log2()).sum())
    assert measured(model, data)[metric] == pytest.approx(entropy, rel=1e-5)


def test_perplexity_is_two_to_the_bits(corpus: Any) -> None:
    data = [corpus(level="word", val_share=0.4, metric=metric) for metric in ("perplexity", "bits_per_word")]
    found = []
    for each in data:
        torch.manual_seed(2)
        found.append(measured(LSTM(each.task, 5), each))
    assert found[0]["perplexity"] == pytest.approx(2 ** found[1]["bits_per_word"], rel=1e-5)
    uniform = silent(LSTM(data[0].task, 4), torch.zeros(data[0].task.input_size))
    assert measured(uniform, data[0])["perplexity"] == pytest.approx(data[0].task.input_size, rel=1e-5)


# ---- samples


def test_frequencies_of_what_is_drawn(corpus: Any) -> None:
    """Of a model that says the same at every step, p^(1 / temperature) normalised."""
    task = corpus().task
    p = torch.linspace(1, 3, task.input_size).softmax(0)
    model = silent(LSTM(task, 2), p.log())
    for temperature in (1.0, 0.5):
        drawn = sample(model, torch.tensor([0]), 1000, temperature, seed=3)
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        share = torch.bincount(drawn, minlength=len(p)) / len(drawn)
        assert (share - expected).abs().max() < 4 * (0.25 / 1000) ** 0.5


def test_a_sample_is_what_reading_it_would_give(corpus: Any) -> None:
    """At temperature 0 every symbol is the likeliest one behind all before it, prompt and state carried."""
    task = corpus().task
    torch.manual_seed(4)
    model = VanillaRNN(task, 16, layers=2, lam=2.0).eval()  # it does not come to rest
    with torch.no_grad():
        model.decoder.weight.mul_(8)
    prompt = torch.tensor([3, 1, 4])
    drawn = sample(model, prompt, 12, temperature=0, seed=0)
    with torch.no_grad():
        said = model(torch.cat((prompt, drawn))[None])[0].argmax(-1)
    assert torch.equal(said[2:-1], drawn) and len(set(drawn.tolist())) > 1
    assert torch.equal(sample(model, prompt, 12, 1e-6, seed=5), drawn)


def test_a_seed_draws_the_same_text(corpus: Any) -> None:
    model = LSTM(corpus().task, 4).eval()
    first, again, other = (sample(model, torch.tensor([0]), 30, 1.0, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_sample_computes_the_weights_once(corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """W = exp(A) of a wide network took longer than all else in a pass of one step."""
    data = corpus()
    model = ExpRNN(data.task, hidden_size=5).eval()
    calls: list[int] = []
    weights = type(model.cells[0]).weights
    monkeypatch.setattr(type(model.cells[0]), "weights", lambda cell: calls.append(1) or weights(cell))
    drawn = sample(model, torch.tensor([0]), 12, temperature=0, seed=0)
    assert len(calls) == 1
    model(torch.tensor([[0]]))
    assert len(calls) == 2, "and anew in every pass behind"
    read = model(torch.cat((torch.tensor([0]), drawn[:-1]))[None])[0].argmax(-1)
    assert torch.equal(read, drawn)


def test_no_sample_of_this(corpus: Any) -> None:
    model = LSTM(corpus().task, 4)
    with pytest.raises(UserError, match="temperature is -1"):
        sample(model, torch.tensor([0]), 3, -1, 0)
    with pytest.raises(UserError, match=r"prompt is \[\]"):
        sample(model, torch.tensor([], dtype=torch.int64), 3, 1, 0)
    broken = silent(model, torch.full((model.task.input_size,), math.nan))
    for temperature in (0, 1):
        with pytest.raises(UserError, match="after 2 symbols the network answers NaN"):
            sample(broken, torch.tensor([0, 1]), 3, temperature, 0)
