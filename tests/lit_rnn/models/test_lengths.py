"""Sequences of unequal lengths in a batch: all that a model says and learns is as of every sequence alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import Task
from datamodules.batch import Parts
from datamodules.checks import check_batch
from datamodules.errors import BadBatchError
from lit_rnn import analysis, models
from lit_rnn.callbacks.states import state_traces
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import encoded, gradient_flows, shortened, summed_loss
from lit_rnn.robustness import fgsm, pgd, random_search, smooth_certify, symbol_swap

LENGTHS = (4, 9, 1, 7, 9)
B, T = len(LENGTHS), 9
LABEL = Task("t", "values", 2, "label", 3, None, "last", 1.0, "accuracy", True)
TASKS = {
    "label": LABEL,
    "value": replace(LABEL, targets="value", metric="mse"),
    "frames": replace(LABEL, targets="frame_per_step", metric="mse", scored="all"),
    "labels": replace(LABEL, targets="label_per_step", scored="all", inputs="symbols", input_size=5),
    "masked": replace(LABEL, targets="label_per_step", scored="mask"),
    "recall": replace(LABEL, targets="label_per_step", scored="all", recall=3),
    "masked recall": replace(LABEL, targets="label_per_step", scored="mask", recall=3),
    "next symbol": replace(LABEL, targets="next_symbol", scored="all", inputs="symbols", metric="perplexity"),
}
BLOCKS = {"layers": 2, "norm": "layer", "residual": True}
MODELS: dict[str, Any] = {
    "LSTM": {"layers": 2, "learn_initial_state": True},
    "ExpRNN": {"layers": 2},
    "ScuRNN": {},
    "NRU": {"memory_size": 16, "heads": 4},
    "SLSTM": {"layers": 2},
    "LEM": {"layers": 2},
    "CoRNN": {"layers": 2},
    "UnICORNN": BLOCKS,
    "LRU": BLOCKS | {"encoder_size": 4},
    "LinOSS": BLOCKS | {"encoder_size": 4},
    "MinGRU": BLOCKS,
    "MinLSTM": BLOCKS,
    "DeltaProduct": BLOCKS | {"heads": 2},
}
SIX = ("LSTM", "ExpRNN", "ScuRNN", "NRU", "SLSTM", "LRU")  # on every task; the others on one of each shape
CASES = [(name, kind) for name in MODELS for kind in (TASKS if name in SIX else ("label", "masked"))]


def built(name: str, task: Task, **options: Any) -> SequenceModel:
    torch.manual_seed(0)
    model = getattr(models, name)(task, 4, **MODELS.get(name, {}) | options).double()
    model._log_meters = lambda *_: None  # no Trainer to log to
    return model


def batch_of(task: Task) -> Parts:
    """Padding that would be seen if it were read: NaN, no symbol, and no class."""
    torch.manual_seed(1)
    behind = ~(torch.arange(T) < torch.tensor(LENGTHS)[:, None])
    if task.inputs == "symbols":
        inputs = torch.randint(task.input_size, (B, T)).masked_fill(behind, -1)
    else:
        inputs = torch.randn(B, T, task.input_size, dtype=torch.float64).masked_fill(behind[..., None], torch.nan)
    shape = (B, T) if task.per_step else (B,)
    if task.classifies:
        targets = torch.randint(task.target_size, shape)
        targets = targets.masked_fill(behind, -7) if task.per_step else targets
    else:
        targets = torch.randn(*shape, task.target_size, dtype=torch.float64)
        targets = targets.masked_fill(behind[..., None], torch.nan) if task.per_step else targets
    mask = torch.rand(B, T) < 0.6 if task.scored == "mask" else None
    return Parts(inputs, targets, mask, torch.tensor(LENGTHS))


def alone(model: SequenceModel, parts: Parts) -> tuple[list[Tensor], Tensor, float]:
    """Of each sequence by itself: outputs; over all that counts: mean loss and headline metric, by hand."""
    task, outputs, losses, hits, recalled = model.task, [], [], [], []
    for b, length in enumerate(LENGTHS):
        out = model(parts.inputs[b : b + 1, :length])[0]
        outputs.append(out)
        for t in range(length) if task.per_step else [None]:
            if t is not None and parts.mask is not None and not parts.mask[b, t]:
                continue
            o, y = (out, parts.targets[b]) if t is None else (out[t], parts.targets[b, t])
            if task.classifies:
                losses.append(o.exp().sum().log() - o[y])
                hits.append(float(o.argmax() == y))
                recalled.append(task.recall is None or t is None or t >= length - task.recall)
            else:
                losses.extend((o - y).square())
    if task.metric == "accuracy":
        metric = float(np.mean([hit for hit, counts in zip(hits, recalled, strict=True) if counts]))
    else:
        mean = float(torch.stack(losses).mean().detach())
        metric = float(np.exp(mean)) if task.metric == "perplexity" else mean
    return outputs, torch.stack(losses).mean(), metric


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def check_each_alone(model: SequenceModel) -> None:
    """Outputs, loss, metric and gradients."""
    task, parts = model.task, batch_of(model.task)
    outputs, expected, metric = alone(model, parts)
    found = model(parts.inputs, parts.lengths)
    for b, length in enumerate(LENGTHS):
        close(found[b, :length] if task.per_step else found[b], outputs[b])
        assert not task.per_step or not found[b, length:].any(), "an output behind an end"
    loss = model._shared_step(tuple(part for part in parts if part is not None), "val")
    close(loss, expected)
    parameters = list(model.parameters())
    slopes = [torch.autograd.grad(total, parameters, materialize_grads=True) for total in (loss, expected)]
    close(*slopes)
    meters = model.meters.of("val")
    assert float(meters["loss"].compute()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert float(meters[task.metric].compute()) == pytest.approx(metric, rel=1e-6)


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("backend", ["loop", "auto"])
def test_outputs_loss_metric_and_gradients_are_of_every_sequence_alone(name: str, kind: str, backend: str) -> None:
    check_each_alone(built(name, TASKS[kind], backend=backend))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("backend", ["loop", "auto"])
def test_so_they_are_where_cells_read_both_ways(name: str, pooling: str, backend: str) -> None:
    encoded = 8 if "encoder_size" in MODELS[name] else None  # as wide as both together
    check_each_alone(built(name, LABEL, backend=backend, bidirectional=True, pooling=pooling, encoder_size=encoded))


@pytest.mark.parametrize("name", MODELS)
def test_the_final_state_is_the_one_after_each_last_step(name: str) -> None:
    model, parts = built(name, LABEL), batch_of(LABEL)
    _, states = model.run(parts.inputs, lengths=parts.lengths)
    for b, length in enumerate(LENGTHS):
        _, expected = model.run(parts.inputs[b : b + 1, :length])
        for layer, other in zip(states, expected, strict=True):
            close([part[b] for part in layer], [part[0] for part in other])


def test_decoding_all_steps_reads_each_last_one() -> None:
    """As analysis does, which has the outputs of all steps."""
    model, parts = built("LSTM", LABEL), batch_of(LABEL)
    y = torch.randn(T, B, 4, dtype=torch.float64)
    expected = torch.stack([model.decoder(y[length - 1, b]) for b, length in enumerate(LENGTHS)])
    close(model.decode(y, parts.lengths), expected)


@pytest.mark.parametrize("name", ["LSTM", "ExpRNN", "ScuRNN"])
@pytest.mark.parametrize("kind", ["label", "labels"])
def test_analyze_counts_lags_from_each_last_step(name: str, kind: str) -> None:
    task = TASKS[kind]
    model, parts = built(name, task), batch_of(task)
    found = gradient_flows(model, parts)
    # each alone; what a sequence adds to the summed loss of the batch is its share of the mean
    for layer, flow in enumerate(found):
        by_lag: list[list[float]] = [[] for _ in range(T)]
        for b, length in enumerate(LENGTHS):
            one = Parts(parts.inputs[b : b + 1, :length], parts.targets[b : b + 1])
            one = one._replace(targets=one.targets[:, :length]) if task.per_step else one
            share = length * B / sum(LENGTHS) if task.per_step else 1.0
            alone_ = analysis.gradient_against_lag(model.cell_list(), encoded(model, one), summed_loss(model, one))
            for lag, value in enumerate(alone_[layer].gradient):
                by_lag[lag].append(share * value)
        np.testing.assert_allclose(flow.gradient, [np.mean(some) for some in by_lag], rtol=1e-9)
    assert len(found[0].gradient) == max(LENGTHS)


def test_a_state_stands_still_behind_an_end() -> None:
    model, parts = built("LSTM", LABEL), batch_of(LABEL)
    x = encoded(model, parts)
    ((s, gradient),) = analysis.states_and_gradients(
        model.cell_list()[:1], x, lambda y: y.square().sum(), parts.lengths
    )
    for b, length in enumerate(LENGTHS):
        assert torch.equal(s[length:, b], s[length - 1, b].expand(T - length, -1))
        assert not gradient[length:, b].any() and gradient[length - 1, b].any()
    traces = state_traces(model, parts)
    assert all(np.isfinite(values).all() for values in traces.values())
    assert traces["0 distance"][-1] == 0


def test_a_shortened_batch_has_shorter_lengths() -> None:
    parts = batch_of(TASKS["masked"])
    short = Parts.of(shortened(built("LSTM", TASKS["masked"]), parts, 5))
    assert short.lengths is not None and short.lengths.tolist() == [4, 5, 1, 5, 5]
    assert short.inputs.shape[1] == 5 and short.targets.shape == (B, 5)
    assert short.mask is not None and short.mask.shape == (B, 5)


def test_attacks_hold_padding_and_ask_with_lengths() -> None:
    """And what they find is no worse than the start, example by example, though examples leave on the way."""
    model, parts = built("LSTM", LABEL), batch_of(LABEL)
    x, real = parts.filled(), parts.real()
    assert real is not None
    held = {"mask": real[..., None], "lengths": parts.lengths}
    clean = torch.nn.functional.cross_entropy(model(x, parts.lengths), parts.targets, reduction="none")
    for moved in (
        fgsm(model, x, parts.targets, 0.1, **held),
        pgd(model, x, parts.targets, 0.1, steps=5, early_stop=True, restarts=2, **held),
        random_search(model, x, parts.targets, 0.1, queries=10, loss="cross_entropy", **held),
    ):
        assert torch.equal(moved[~real], x[~real])
        assert bool((moved[real] != x[real]).any())
        padded = moved.masked_fill(~real[..., None], torch.nan)  # nothing there is read
        after = torch.nn.functional.cross_entropy(model(padded, parts.lengths), parts.targets, reduction="none")
        assert bool((after >= clean - 1e-9).all())


def test_swaps_and_smoothing_with_lengths() -> None:
    task = replace(LABEL, inputs="symbols", input_size=5)
    model, parts = built("LSTM", task), batch_of(task)
    real = parts.real()
    assert real is not None
    moved = symbol_swap(
        model, parts.filled(), parts.targets, 1, 5, queries=10, mask=real, lengths=parts.lengths, search="random"
    )
    assert torch.equal(moved[~real], parts.filled()[~real])
    model, parts = built("LSTM", LABEL), batch_of(LABEL)
    found = smooth_certify(model, parts.filled(), 0.01, n0=4, n=20, lengths=parts.lengths)
    alone_ = [
        smooth_certify(model, parts.inputs[b : b + 1, :length], 1e-6, n0=4, n=20).label[0]
        for b, length in enumerate(LENGTHS)
    ]
    assert found.label.tolist() == alone_


def test_adversarial_training_holds_padding() -> None:
    task = LABEL
    model = built("LSTM", task, adversarial={"eps": 0.1, "steps": 2})
    parts = batch_of(task)
    assert model.adversarial is not None
    moved = model.adversarial.perturb(model, task, parts, 1, 0)
    real = parts.real()
    assert real is not None
    assert not moved[~real].any() and bool((moved[real] != parts.inputs[real]).any())
    assert float((moved[real] - parts.inputs[real]).abs().max()) <= 0.1 + 1e-12


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((torch.tensor([1, 10]),), "10 as the length of sample 5, but it must be from 1 to 9"),
        ((torch.tensor([0, 3]),), "0 as the length of sample 4"),
        ((torch.tensor([[1, 2]]),), "lengths of torch.int64 and shape (1, 2)"),
        ((torch.ones(2),), "(float32, int64, float32)"),
        ((torch.tensor([1, 2]), torch.ones(2, 9, dtype=torch.bool)), "(float32, int64, int64, bool)"),
        ((torch.ones(2, 9, dtype=torch.bool),), "a mask, but its task has one target a sequence (label)"),
    ],
)
def test_lengths_that_are_none_are_refused(more: Any, words: str) -> None:
    batch = (torch.zeros(2, 9, 2), torch.zeros(2, dtype=torch.int64), *more)
    with pytest.raises(BadBatchError) as caught:
        check_batch(batch, LABEL, "Mine", "train", 0, np.array([4, 5]))
    assert words in str(caught.value)


def test_a_mask_that_is_missing_is_refused() -> None:
    """Every step would count, without a word."""
    batch = (torch.zeros(2, 9, 2), torch.zeros(2, 9, dtype=torch.int64))
    with pytest.raises(BadBatchError, match="no mask, but its task is scored 'mask': give every batch one"):
        check_batch(batch, TASKS["masked"], "Mine", "train", 0, np.arange(len(batch[0])))


@pytest.mark.parametrize("kind", TASKS)
def test_padding_is_not_checked(kind: str) -> None:
    task, parts = TASKS[kind], batch_of(TASKS[kind])
    as_read = Parts(*(p.float() if p is not None and p.is_floating_point() else p for p in parts))  # type: ignore[arg-type]
    given = tuple(part for part in as_read if part is not None)
    check_batch(given, task, "Mine", "train", 0, np.arange(len(given[0])))
