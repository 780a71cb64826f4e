"""What stands around the cells, against a loop in float64 over each sequence by hand; and nothing where it is off."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import Parts, Task, UserError
from lit_rnn import analysis, models
from lit_rnn.callbacks.states import state_traces
from lit_rnn.cells import LSTMCell
from lit_rnn.export.network import network
from lit_rnn.export.torch_rnn import to_torch
from lit_rnn.models import SequenceModel, load
from lit_rnn.models.base import count_parameters
from lit_rnn.models.probes import encoded, gradient_flows, recurrent_matrices, summed_loss
from lit_rnn.robustness.certified import _single_cell
from tests.lit_rnn.models.test_tbptt import Text
from tests.trainers import SaveEachStep, quiet_trainer

LENGTHS = (4, 7, 1, 7)
B, T, V = len(LENGTHS), 7, 6
VALUES = Task("t", "values", 2, "label", 3, None, "last", 1.0, "accuracy", True)
SYMBOLS = replace(VALUES, inputs="symbols", input_size=V)
TEXT = Task("text", "symbols", V, "next_symbol", V, None, "all", 1.8, "perplexity", False)
CELLS: dict[str, dict[str, Any]] = {
    "LSTM": {"peepholes": True},
    "ExpRNN": {},
    "ScuRNN": {},
    "NRU": {"memory_size": 16},
    "VanillaRNN": {},
    "GRU": {},
    "GORU": {},
    "EURNN": {},
    "StatisticalRU": {"statistics_size": 5, "summary_size": 3},
    "LipschitzRNN": {},
}


def built(name: str, task: Task, **options: Any) -> SequenceModel:
    torch.manual_seed(0)
    model = getattr(models, name)(task, 4, **{**CELLS.get(name, {}), **options}).double()
    with torch.no_grad():
        for parameter in model.norms.parameters() if model.norms is not None else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def inputs_of(task: Task) -> Tensor:
    torch.manual_seed(1)
    if task.inputs == "symbols":
        return torch.randint(task.input_size, (B, T))
    return torch.randn(B, T, task.input_size, dtype=torch.float64)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def slopes(model: SequenceModel, out: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out.square().sum(), list(model.parameters()), materialize_grads=True)


# ---- the oracle: one sequence, one step at a time


def stepped(cell: Any, xs: list[Tensor], W: Any = lambda w: w) -> list[Tensor]:
    state, w, ys = cell.initial_state(1), W(cell.weights()), []
    for x in xs:
        y, state = cell.step(cell.drive(x[None, None], w)[0], state, w)
        ys.append(y[0])
    return ys


def normed(kind: str, module: Any, x: Tensor) -> Tensor:
    if kind == "layer":
        centred = x - x.mean()
        return centred / (centred.square().mean() + module.eps).sqrt() * module.weight + module.bias
    return x / (x.square().mean() + torch.finfo(x.dtype).eps).sqrt() * module.weight


def mixed(kind: str, module: Any, y: Tensor) -> Tensor:
    """A gated linear unit of gelu(y), or an MLP; gelu(z) = z Phi(z)."""

    def gelu(z: Tensor) -> Tensor:
        return z * torch.special.ndtr(z)

    if kind == "glu":
        first, second = module.gated.weight.chunk(2)
        (b, c), g = module.gated.bias.chunk(2), gelu(y)
        return (first @ g + b) / (1 + torch.exp(-(second @ g + c)))
    return module.narrow.weight @ gelu(module.wide.weight @ y + module.wide.bias) + module.narrow.bias


def by_hand(model: SequenceModel, inputs: Tensor) -> Tensor:
    """The outputs of one sequence (T,) or (T, I)."""
    o, task = model.options, model.task
    if task.inputs == "values":
        xs = list(inputs)
    elif model.embedding is not None:
        xs = [model.embedding.weight[symbol] for symbol in inputs]
    else:
        xs = list(torch.eye(V, dtype=torch.float64)[inputs])
    if model.encoder is not None:
        xs = [model.encoder.weight @ x + model.encoder.bias for x in xs]
    deep = 0 if model.encoder is not None else 1  # the first layer with norm and residual
    for layer, cell in enumerate(model.cells):
        read = xs
        if layer >= deep and o.norm != "none":
            assert model.norms is not None
            read = [normed(o.norm, model.norms[layer - deep], x) for x in xs]
        ys = stepped(cell, read)
        if o.bidirectional:
            assert model.turned_cells is not None
            zs = stepped(model.turned_cells[layer], read[::-1])[::-1]
            ys = [torch.cat(pair) for pair in zip(ys, zs, strict=True)]
        if o.mixing != "none":
            assert model.mixers is not None
            ys = [mixed(o.mixing, model.mixers[layer], y) for y in ys]
        xs = [x + y for x, y in zip(xs, ys, strict=True)] if layer >= deep and o.residual else ys
    if task.per_step:
        return torch.stack([model.decoder(x) for x in xs])
    if o.pooling == "last":
        half = len(xs[0]) // 2
        pooled = torch.cat((xs[-1][:half], xs[0][half:])) if o.bidirectional else xs[-1]
    else:
        together = torch.stack(xs)
        pooled = together.sum(0) / len(xs) if o.pooling == "mean" else together.max(0).values
    return model.decoder(pooled)


OPTIONS: list[dict[str, Any]] = [
    {"layers": 2, "residual": True, "norm": "layer"},
    {"layers": 3, "residual": True, "norm": "rms", "embedding_size": 3},
    {"pooling": "mean"},
    {"pooling": "max", "layers": 2, "norm": "layer"},
    {"mixing": "glu", "layers": 2, "residual": True, "norm": "layer", "pooling": "mean"},
    {"mixing": "mlp"},
    {"bidirectional": True},
    {"bidirectional": True, "layers": 2, "residual": True, "norm": "rms", "embedding_size": 3},
    {"bidirectional": True, "layers": 2, "pooling": "mean"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["LSTM", "ExpRNN", "ScuRNN", "NRU"])
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
def test_blocks_are_what_a_loop_says(name: str, options: dict[str, Any], unequal: bool) -> None:
    task = SYMBOLS if "embedding_size" in options else VALUES
    model, inputs = built(name, task, **options), inputs_of(task)
    lengths = LENGTHS if unequal else (T,) * B
    given = inputs if not unequal or task.inputs == "symbols" else inputs.clone()
    for b, length in enumerate(lengths):
        given[b, length:] = -1 if task.inputs == "symbols" else torch.nan
    found = model(given, torch.tensor(lengths) if unequal else None)
    expected = torch.stack([by_hand(model, row[:length]) for row, length in zip(given, lengths, strict=True)])
    close(found, expected)
    slopes = [
        torch.autograd.grad(out.square().sum(), list(model.parameters()), materialize_grads=True)
        for out in (found, expected)
    ]
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_works_inside(name: str) -> None:
    """Embedding, tied decoder, norm, residual, at every step; and both ways for a label."""
    model = built(name, TEXT, layers=2, norm="rms", residual=True, embedding_size=3)
    width = model.decoder.in_features
    model = built(name, TEXT, layers=2, norm="rms", residual=True, embedding_size=width, tied_decoder=True)
    inputs = inputs_of(TEXT)
    close(model(inputs), torch.stack([by_hand(model, row) for row in inputs]))
    model = built(name, VALUES, layers=2, bidirectional=True, pooling="max")
    inputs = inputs_of(VALUES)
    close(model(inputs), torch.stack([by_hand(model, row) for row in inputs]))


DEEP = {"layers": 2, "norm": "layer", "residual": True, "mixing": "glu"}


@pytest.mark.parametrize("task", [VALUES, TEXT], ids=["values", "symbols"])
@pytest.mark.parametrize("name", ["LRU", "LinOSS", *CELLS])
def test_over_an_encoder_the_first_layer_is_a_block(name: str, task: Task) -> None:
    """The published shape of the deep networks, for every cell: encoder, then norm, cell, GLU, and what was read."""
    own = {"glu": False} if name in ("LRU", "LinOSS") else {}
    width = built(name, task, **own).decoder.in_features
    options: dict[str, Any] = {**DEEP, **own, "encoder_size": width}
    model, inputs = built(name, task, **options), inputs_of(task)
    assert model.norms is not None and len(model.norms) == 2 and not model.is_chain()
    found, expected = model(inputs), torch.stack([by_hand(model, row) for row in inputs])
    close(found, expected)
    for mine, theirs in zip(slopes(model, found), slopes(model, expected), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    if task is VALUES:  # behind a sequence's end biases are no outputs
        pooled = built(name, task, **{**options, "pooling": "mean"})
        expected = torch.stack([by_hand(pooled, row[:n]) for row, n in zip(inputs, LENGTHS, strict=True)])
        close(pooled(inputs, torch.tensor(LENGTHS)), expected)
        assert len(gradient_flows(pooled, Parts(inputs, torch.tensor([0, 1, 2, 0])))) == 2


def test_one_hot_vectors_are_taken_for_symbols() -> None:
    """So that an attack can move them, behind an embedding or an encoder, too."""
    for options in ({}, {"embedding_size": 3}, {"encoder_size": 3}):
        model, inputs = built("LSTM", TEXT, **options), inputs_of(TEXT)
        close(model(model.one_hot(inputs)), model(inputs))


# ---- dropout


def test_a_branch_is_dropped_and_what_is_added_is_not() -> None:
    options: dict[str, Any] = {"residual": True, "encoder_size": 4, "mixing": "mlp"}
    model, inputs = built("LSTM", TEXT, **options, branch_dropout=0.5), inputs_of(TEXT)
    model.train()
    model.draws = torch.Generator().manual_seed(5)
    found = model(inputs)
    drawn = (torch.rand((1, B, 4), generator=torch.Generator().manual_seed(5)) >= 0.5).double() * 2
    assert model.encoder is not None and model.mixers is not None
    x = model.encoder(model.one_hot(inputs))
    y = torch.stack([torch.stack(stepped(model.cells[0], list(row))) for row in x])
    close(found, model.decoder(x + model.mixers[0](y) * drawn.transpose(0, 1)))


def test_dropouts_are_one_mask_for_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once against the loop, the masks drawn in this order."""
    shares = {"embedding": 0.3, "input": 0.4, "layer": 0.5, "output": 0.2, "weight": 0.6}
    options = {f"{name}_dropout": share for name, share in shares.items()}
    model, inputs = built("LSTM", TEXT, layers=2, embedding_size=3, **options), inputs_of(TEXT)
    model.train()
    model.draws = torch.Generator().manual_seed(5)
    found = model(inputs)
    draw = torch.Generator().manual_seed(5)

    def mask(share: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=draw) >= share).double() / (1 - share)

    assert model.embedding is not None
    embedded = (model.embedding.weight * mask(0.3, V, 1))[inputs]
    x = embedded * mask(0.4, 1, B, 3).transpose(0, 1)
    for layer, cell in enumerate(model.cells):
        if layer:
            x = x * mask(0.5, 1, B, 4).transpose(0, 1)
        W = mask(0.6, 16, 4)
        x = torch.stack([torch.stack(stepped(cell, list(row), lambda w, W=W: w * W)) for row in x])
    close(found, model.decoder(x * mask(0.2, 1, B, 4).transpose(0, 1)))
    model.eval()
    plain = built("LSTM", TEXT, layers=2, embedding_size=3)
    close(model(inputs), plain(inputs))


@pytest.mark.parametrize("name", CELLS)
def test_dropped_weights_have_the_gradient_of_the_loop(name: str) -> None:
    """In whatever backend runs the cell, and with checkpoints: W is dropped once a pass, and its gradient as well."""
    inputs = inputs_of(TEXT)
    results = []
    for options in ({"backend": "loop"}, {"backend": "auto"}, {"backend": "auto", "checkpoint_every": 3}):
        model = built(name, TEXT, weight_dropout=0.5, **options)
        model.draws = torch.Generator().manual_seed(5)
        out = model(inputs)
        results.append(
            (out, *torch.autograd.grad(out.square().sum(), list(model.parameters()), materialize_grads=True))
        )
    undropped = built(name, TEXT)
    assert not torch.allclose(results[0][0], undropped(inputs))
    for other in results[1:]:
        for mine, theirs in zip(other, results[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def trained(folder: Path, checkpoint: Path | None = None) -> SequenceModel:
    torch.manual_seed(0 if checkpoint is None else 7)  # what is drawn does not hang on torch's own generator
    shares = {f"{name}_dropout": 0.4 for name in ("embedding", "input", "layer", "output", "weight")}
    model = models.LSTM(replace(TEXT), 5, layers=2, embedding_size=5, tied_decoder=True, **shares)
    trainer = quiet_trainer(max_epochs=2, callbacks=[SaveEachStep(folder)] if checkpoint is None else [])
    trainer.fit(model, datamodule=Text((9, 40)), ckpt_path=checkpoint)
    return model


def test_a_resume_drops_what_the_uninterrupted_run_drops(tmp_path: Path) -> None:
    whole = trained(tmp_path)
    again = trained(tmp_path, tmp_path / "3.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert copy.deepcopy(whole).embedding is not None
    loaded = load(tmp_path / "10.ckpt")
    assert loaded.embedding is not None and loaded.decoder.weight is loaded.embedding.weight
    inputs = inputs_of(TEXT)
    assert torch.equal(loaded.eval()(inputs), whole.eval()(inputs))


# ---- sizes


def test_tied_weights_are_one_in_every_dtype() -> None:
    model = models.LSTM(TEXT, 4, embedding_size=4, tied_decoder=True)
    untied = models.LSTM(TEXT, 4, embedding_size=4)
    assert count_parameters(untied) - count_parameters(model) == 4 * V
    moved = model.double()
    assert moved.embedding is not None and moved.decoder.weight is moved.embedding.weight


def ptb(name: str, hidden: int, vocabulary: int = 50, **options: Any) -> int:
    task = replace(TEXT, input_size=vocabulary, target_size=vocabulary)
    return count_parameters(getattr(models, name)(task, hidden, **options))


def test_published_language_models_have_their_sizes() -> None:
    """Single layers of the NRU paper's char-PTB, about 2.1 to 2.3 million; three layers of AWD's, 13.8 million.

    Of every vector of biases we keep one where torch keeps two; the published figure counts both.
    """
    single = 200 * 50 + 4 * 600 * (200 + 600 + 1) + 601 * 50
    assert ptb("LSTM", 600, embedding_size=200) == single
    awd, below_all, n = 0, 200, 1000  # emsize 200, nhid 1000, its last layer as wide as the embedding
    for width, below in ((n, below_all), (n, n), (below_all, n)):
        awd += 4 * width * (below + width + 2)
    awd += 50 * below_all + 50
    assert round(awd / 1e6, 1) == 13.8
    ours = ptb("LSTM", 1000, layers=3, embedding_size=200)
    assert ours == 50 * 200 + 4 * 1000 * (1201 + 2 * 2001) + 1001 * 50
    # nnRNN's protocol: embedding 200, hidden 1024
    assert ptb("ExpRNN", 1024, embedding_size=200) == 50 * 200 + 1024 * 1023 // 2 + 1024 * 201 + 1025 * 50


# ---- off, and refused


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    torch.manual_seed(0)
    model = models.LSTM(VALUES, 4, layers=2)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"cells", "decoder"} and model.is_chain()
    torch.manual_seed(0)
    first, second, decoder = LSTMCell(2, 4), LSTMCell(4, 4), torch.nn.Linear(4, 3)  # in this order, as ever
    for mine, theirs in zip((*model.cells, model.decoder), (first, second, decoder), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (VALUES, {"embedding_size": 3}, "embedding_size is 3, but accepted is null: the inputs of t are values"),
        (SYMBOLS, {"embedding_size": 0}, "embedding_size is 0"),
        (TEXT, {"tied_decoder": True}, "give model.init_args.embedding_size"),
        (SYMBOLS, {"tied_decoder": True, "embedding_size": 4}, "whose classes are not its symbols"),
        (TEXT, {"tied_decoder": True, "embedding_size": 5}, "embedding_size is 5, but accepted is 4"),
        (TEXT, {"embedding_dropout": 0.1}, "embedding_dropout is 0.1"),
        (TEXT, {"output_dropout": 1.0}, "output_dropout is 1.0, but accepted is from 0 to below 1"),
        (TEXT, {"norm": "batch"}, "one of none, layer, rms"),
        (TEXT, {"norm": "layer"}, "layers is at least 2"),
        (TEXT, {"residual": True}, "layers is at least 2"),
        (TEXT, {"layer_dropout": 0.1}, "layers is at least 2"),
        (TEXT, {"mixing": "gelu"}, "one of none, glu, mlp"),
        (TEXT, {"encoder_size": 3, "embedding_size": 3}, "encoder_size is 3"),
        (
            TEXT,
            {"encoder_size": 3, "residual": True},
            "encoder_size is 3, but accepted is 4, what the first layer gives",
        ),
        (TEXT, {"pooling": "mean"}, "last for text, which has a target at every step"),
        (TEXT, {"bidirectional": True}, "false for text, which has a target at every step"),
    ],
)
def test_what_has_no_meaning_is_refused(task: Task, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        models.LSTM(task, 4, **options)
    sentence = str(caught.value)
    assert words.split(", but accepted is ")[0] in sentence and words.split("accepted is ")[-1] in sentence


# ---- looked at


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_analysis_reads_through_the_blocks(options: dict[str, Any]) -> None:
    """The loss that it goes back from is the model's own."""
    task = SYMBOLS if "embedding_size" in options else VALUES
    model, inputs = built("LSTM", task, **options), inputs_of(task)
    parts, seen = Parts(inputs, torch.tensor([0, 1, 2, 0])), []

    def loss(y: Tensor) -> Tensor:
        seen.append(summed_loss(model, parts)(y))
        return seen[-1]

    analysis.states_and_gradients(model.cell_list(), encoded(model, parts), loss, None, model)
    close(seen[0], model.loss_of(model(inputs), parts.targets) * B)
    assert len(gradient_flows(model, parts)) == len(model.cells)
    assert all(np.isfinite(values).all() for values in state_traces(model, parts).values())


def test_cells_from_the_end_have_their_name_and_no_trajectory() -> None:
    model = built("LSTM", VALUES, bidirectional=True, layers=2)
    names = set(recurrent_matrices(model))
    assert {"layer 0 input", "layer 1 input", "layer 0 from the end input", "layer 1 from the end output"} <= names
    assert not model.is_stack() and len(model.cell_list()) == 4
    _, states = model.run(inputs_of(VALUES))
    assert len(states) == 4


@pytest.mark.parametrize("options", [*OPTIONS, {"embedding_size": 3}], ids=str)
def test_export_and_certificates_refuse_what_they_do_not_know(options: dict[str, Any]) -> None:
    task = SYMBOLS if "embedding_size" in options else VALUES
    model = built("LSTM", task, peepholes=False, **options)
    assert not model.is_chain()
    with pytest.raises(UserError, match="only those are exported"):
        network(model, "step")
    if model.cells_follow_each_other():
        assert isinstance(to_torch(model), torch.nn.LSTM)
    else:
        with pytest.raises(UserError, match="norm, residual, mixing or bidirectional"):
            to_torch(model)
    with pytest.raises(UserError, match="this bound is for a single cell"):
        _single_cell(model)
