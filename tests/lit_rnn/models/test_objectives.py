"""Headline metrics over an epoch are those of all its terms at once: ragged batches, masks, windows, ranks, resumes."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sklearn
from torch import Tensor
from torchmetrics.text import Perplexity

from datamodules import Adding, CopyMemory, FlipFlop, Task, UserError
from datamodules.batch import Parts
from lit_rnn.callbacks.finite import FiniteLoss
from lit_rnn.models import VanillaRNN
from lit_rnn.models.meter import WeightedMean
from lit_rnn.models.objectives import METRICS, Meters, better, loss_of, metric_words
from tests.forked import forked_ranks
from tests.lit_rnn.conftest import rows
from tests.lit_rnn.runs.kills import differences
from tests.lit_rnn.runs.test_resume import state
from tests.trainers import quiet_trainer

Array = NDArray[Any]
CLASSES = 4


def softmax(o: Array) -> Array:
    weights = np.exp(o - o.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def nats(o: Array, t: Array) -> float:
    return float(-np.log(softmax(o)[np.arange(len(t)), t]).mean())


def one_against_the_rest(o: Array, t: Array) -> float:
    """The share of pairs (one of the class, one of the rest) in the right order, over classes that have such pairs."""
    p, shares = softmax(o), []
    for c in range(o.shape[1]):
        ours, others = p[t == c, c][:, None], p[t != c, c][None]
        if ours.size and others.size:
            shares.append(np.mean((ours > others) + 0.5 * (ours == others)))
    return float(np.mean(shares))


# of float64 outputs (N, O) and targets
OF_CLASSES: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": lambda o, t: sklearn.accuracy_score(t, o.argmax(-1)),
    "cross_entropy": lambda o, t: sklearn.log_loss(t, softmax(o), labels=range(o.shape[1])),
    **{f"bits_per_{unit}": lambda o, t: nats(o, t) / math.log(2) for unit in ("symbol", "character", "byte", "word")},
    "perplexity": lambda o, t: math.exp(nats(o, t)),
    "f1": lambda o, t: sklearn.f1_score(t, o.argmax(-1), average="macro"),
    "auroc": one_against_the_rest,
    "MulticlassJaccardIndex": lambda o, t: sklearn.jaccard_score(t, o.argmax(-1), average="macro"),
    "MatthewsCorrCoef": lambda o, t: sklearn.matthews_corrcoef(t, o.argmax(-1)),
}
OF_NUMBERS: dict[str, Callable[[Array, Array], float]] = {
    "mse": lambda o, t: sklearn.mean_squared_error(t, o),
    "rmse": lambda o, t: math.sqrt(((o - t) ** 2).mean()),
    "mae": lambda o, t: sklearn.mean_absolute_error(t, o),
    "r2": lambda o, t: sklearn.r2_score(t, o),
    "within_0.04": lambda o, t: float((np.abs(o - t) < 0.04).all(-1).mean()),
    "ExplainedVariance": lambda o, t: sklearn.explained_variance_score(t, o),
}


def task_of(
    metric: str, targets: Literal["label", "label_per_step", "value", "frame_per_step"], size: int, **more: Any
) -> Task:
    scored: Any = "all" if targets.endswith("per_step") else "last"
    options = {"scored": scored, "chance": 1.0, "higher_is_better": True, "length": 6, **more}
    return Task("t", "values", 1, targets, size, metric=metric, **options)


def epoch(task: Task, batches: list[tuple[Tensor, Tensor, Tensor | None]], meters: Meters | None = None) -> float:
    """What the meters of training say after these outputs (B, T, O) or (B, O), targets and masks."""
    meters = Meters(task) if meters is None else meters
    for outputs, targets, mask in batches:
        counted = outputs if mask is None else outputs[mask]
        meters.count("train", torch.tensor(1.0), counted, Parts(targets, targets, mask))
    return float(meters.of("train")[task.metric].compute())


def test_every_name_has_its_oracle() -> None:
    assert METRICS.keys() == {name for name in (*OF_CLASSES, *OF_NUMBERS) if name[0].islower()}


@pytest.mark.parametrize("metric", OF_CLASSES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("recall", [None, 2])
def test_classes_at_every_step(metric: str, masked: bool, recall: int | None) -> None:
    """Batches of 5, 5 and 1 sequences; in the last one nothing counts but one step. Some outputs lie in [0, 1]."""
    task = task_of(metric, "label_per_step", CLASSES, recall=recall)
    batches, all_outputs, all_targets = [], [], []
    for size in (5, 5, 1):
        outputs, targets = torch.rand(size, 6, CLASSES) * (1 if size == 5 else 9), torch.randint(CLASSES, (size, 6))
        mask = torch.rand(size, 6) < 0.6
        mask[0, -1] = True
        if size == 1:
            mask[:, :-1] = False
        used = mask.clone() if masked else torch.ones_like(mask)
        if recall is not None:
            used[:, :-recall] = False
        batches.append((outputs, targets, mask if masked else None))
        all_outputs.append(outputs[used].double().numpy())
        all_targets.append(targets[used].numpy())
    expected = OF_CLASSES[metric](np.concatenate(all_outputs), np.concatenate(all_targets))
    assert epoch(task, batches) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("metric", OF_NUMBERS)
@pytest.mark.parametrize("width", [1, 3])
def test_numbers(metric: str, width: int) -> None:
    """Far from zero, where float32's sums of squares would have lost the variance."""
    sizes = (7, 7, 2)
    targets = [1000 + torch.randn(size, width) for size in sizes]
    outputs = [target + 0.05 * torch.randn_like(target) for target in targets]
    expected = OF_NUMBERS[metric](torch.cat(outputs).double().numpy(), torch.cat(targets).double().numpy())
    batches: Any = [(o, t, None) for o, t in zip(outputs, targets, strict=True)]
    assert epoch(task_of(metric, "value", width), batches) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_masked_frames(metric: str) -> None:
    outputs, targets, mask = torch.randn(3, 6, 2), torch.randn(3, 6, 2), torch.rand(3, 6) < 0.5
    mask[0, -1] = mask[1, -2] = True
    last = mask.clone()
    last[:, :-3] = False
    expected = OF_NUMBERS[metric](outputs[last].double().numpy(), targets[last].double().numpy())
    task = task_of(metric, "frame_per_step", 2, recall=3)
    assert epoch(task, [(outputs, targets, mask)]) == pytest.approx(expected, rel=1e-6)


def test_labels_and_the_librarys_perplexity() -> None:
    outputs, targets = torch.randn(9, CLASSES), torch.randint(CLASSES, (9,))
    theirs = Perplexity()
    theirs.update(outputs[None], targets[None])
    batches = [(outputs[:8], targets[:8], None), (outputs[8:], targets[8:], None)]
    assert epoch(task_of("perplexity", "label", CLASSES), batches) == pytest.approx(float(theirs.compute()), rel=1e-5)
    # a softmax that underflows is no infinity: exp(200 / 2)
    far = torch.tensor([[0.0, 160.0], [0.0, 0.0]])
    value = epoch(task_of("perplexity", "label", 2), [(far, torch.tensor([0, 0]), None)])
    assert value == pytest.approx(math.exp((160 + math.log(2)) / 2), rel=1e-4)


def test_two_classes_are_scikit_learns_binary_auroc() -> None:
    outputs, targets = torch.randn(40, 2), torch.randint(2, (40,))
    expected = sklearn.roc_auc_score(targets.numpy(), (outputs[:, 1] - outputs[:, 0]).double().numpy())
    assert epoch(task_of("auroc", "label", 2), [(outputs, targets, None)]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc", "perplexity"])
def test_a_batch_in_which_nothing_counts(metric: str) -> None:
    """It changes nothing, and alone it is no number."""
    task = task_of(metric, "label_per_step", CLASSES)
    full: Any = (torch.randn(3, 6, CLASSES), torch.randint(CLASSES, (3, 6)), torch.ones(3, 6, dtype=torch.bool))
    empty: Any = (*full[:2], torch.zeros(3, 6, dtype=torch.bool))
    assert epoch(task, [empty, full, empty]) == epoch(task, [full])


@pytest.mark.parametrize("targets", ["label_per_step", "frame_per_step"])
def test_the_loss_of_nothing_is_zero_and_teaches_nothing(targets: Any) -> None:
    outputs = torch.randn(3, 6, CLASSES, requires_grad=True)
    y = torch.randint(CLASSES, (3, 6)) if targets == "label_per_step" else torch.randn(3, 6, CLASSES)
    nowhere = torch.zeros(3, 6, dtype=torch.bool)
    loss = loss_of(task_of("accuracy" if y.dim() == 2 else "mse", targets, CLASSES), outputs[nowhere], y[nowhere])
    loss.backward()
    assert loss == 0 and outputs.grad is not None and not outputs.grad.any()


class Asked(FlipFlop):
    """Of which only batches with an odd first word ask for anything; with ``never`` none does."""

    never = False

    def make_at(self, words: NDArray[np.uint64], length: int) -> Any:
        inputs, targets, mask = super().make_at(words, length)[:3]
        return inputs, targets, mask & bool(int(words[0, 0]) % 2 and not self.never)


def test_a_run_goes_on_behind_a_batch_in_which_nothing_counts() -> None:
    data = Asked(length=8, train_samples=16, val_samples=8, batch_size=2)
    asked = [bool(batch[2].any()) for batch in data.loader("train")]
    assert 0 < sum(asked) < len(asked)
    trainer = quiet_trainer(max_epochs=1, callbacks=[FiniteLoss(Path("none"))])
    trainer.fit(VanillaRNN(data.task, 4), data)
    assert all(value.isfinite() for value in trainer.callback_metrics.values())


@pytest.mark.parametrize(("stage", "words"), [("fit", "training"), ("validate", "validation"), ("test", "test")])
def test_an_epoch_in_which_nothing_counts_is_refused(stage: str, words: str) -> None:
    data = Asked(length=8, train_samples=4, val_samples=2, test_samples=2, batch_size=2)
    data.never = True
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=int(stage == "validate"))
    with pytest.raises(UserError, match=f"No target of the {words} split counts in any batch"):
        getattr(trainer, stage)(VanillaRNN(data.task, 4), data)


NO_ANSWERS = ([math.nan, 1.0], [math.nan] * 2, [math.inf, 0.0], [math.inf] * 2, [-math.inf] * 2)


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=str)
@pytest.mark.parametrize("metric", [*OF_CLASSES, "MulticlassAccuracy", "MulticlassHingeLoss"])
def test_an_answer_that_names_no_class(metric: str, answer: list[float]) -> None:
    """Of one in six, where all others are right: accuracy counts it as wrong, and whatever is no share is NaN."""
    outputs, targets = 9 * torch.eye(2).repeat(3, 1), torch.arange(6) % 2
    outputs[2] = torch.tensor(answer)
    batches: Any = [(outputs[:4], targets[:4], None), (outputs[4:], targets[4:], None)]
    meters = Meters(task_of(metric, "label", 2))
    value = epoch(meters.task, batches, meters)
    assert value == pytest.approx(5 / 6) if metric == "accuracy" else math.isnan(value)
    meters.reset("train")
    assert math.isfinite(epoch(meters.task, batches[1:], meters))


def test_a_class_that_is_ruled_out_is_an_answer() -> None:
    outputs, targets = (9 * torch.eye(2).repeat(3, 1)).log(), torch.arange(6) % 2
    for metric, best in (("accuracy", 1.0), ("f1", 1.0), ("auroc", 1.0), ("cross_entropy", 0.0)):
        assert epoch(task_of(metric, "label", 2), [(outputs, targets, None)]) == best


@pytest.mark.parametrize("metric", [*OF_NUMBERS, "SpearmanCorrCoef", "LogCoshError"])
@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all")
def test_a_number_that_is_none(metric: str) -> None:
    targets = torch.linspace(0, 1, 6)[:, None]
    outputs = targets.clone()
    outputs[2] = math.nan
    value = epoch(task_of(metric, "value", 1), [(outputs[:4], targets[:4], None), (outputs[4:], targets[4:], None)])
    assert value == pytest.approx(5 / 6) if metric == "within_0.04" else math.isnan(value)


def test_a_prediction_of_nan_is_no_class() -> None:
    data = CopyMemory(delay=3, val_samples=2)
    model = VanillaRNN(data.task, 4)
    with torch.no_grad():
        model.decoder.bias[0] = math.nan
    _, targets, predictions = model.predict_step(next(iter(data.loader("val"))), 0)
    assert predictions.shape == targets.shape and (predictions == -1).all()


def test_r2_of_one_number_is_no_number() -> None:
    assert math.isnan(epoch(task_of("r2", "value", 1), [(torch.ones(1, 1), torch.ones(1, 1), None)]))


# ---- what is refused


@pytest.mark.parametrize(
    ("metric", "targets", "words"),
    [
        ("acuracy", "label", ("'acuracy'", "accuracy", "auroc")),
        ("r2", "label", ("'r2'", "targets are classes")),
        ("f1", "value", ("'f1'", "targets are numbers", "rmse")),
        ("mse", "label_per_step", ("'mse'", "cross_entropy")),
        ("MulticlassConfusionMatrix", "label", ("one number",)),
        ("MulticlassFBetaScore", "label", ("beta",)),
        ("KLDivergence_", "value", ("torchmetrics.regression",)),
        ("PearsonCorrCoef", "value", ("put together",)),
        ("__doc__", "value", ("'__doc__'",)),
    ],
)
def test_metrics_that_are_none(metric: str, targets: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        VanillaRNN(task_of(metric, targets, 3 if targets.startswith("label") else 1), 4)
    assert all(word in str(error.value) for word in words) and "task.metric" in str(error.value)


def test_direction() -> None:
    task = task_of("rmse", "value", 1)
    with pytest.raises(UserError, match=r"higher_is_better is true"):
        better(task)
    assert better(replace(task, higher_is_better=False)) == "min" and better(task_of("f1", "label", 3)) == "max"
    assert metric_words(CopyMemory(delay=3).task) == "accuracy of the 10 recalled symbols"


OWN = '''
"""Tasks with metrics of the user's choice."""
from dataclasses import replace
from datamodules import Adding, CopyMemory
from datamodules.batch import Parts


class Copying(CopyMemory):
    def __init__(self, metric: str = "auroc", higher: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.task = replace(self.task, metric=metric, higher_is_better=higher)


class Sums(Adding):
    def __init__(self, metric: str = "r2", higher: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.task = replace(self.task, metric=metric, higher_is_better=higher)
'''
SIZES = {"train_samples": 32, "val_samples": 7, "test_samples": 5, "batch_size": 8}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_metrics"


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize(("metric", "higher", "word"), [("f2", True, "'f2'"), ("perplexity", True, "higher_is_better")])
def test_a_run_is_refused_at_the_start(
    refused: Any, config: Any, own: str, metric: str, higher: bool, word: str
) -> None:
    data = {"class_path": f"{own}.Copying", "init_args": {**SIZES, "metric": metric, "higher": higher}}
    assert word in refused("fit", "-c", config(data=data), "--run_dir", "r")


# ---- resumes and ranks


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("cls", "options"), [("Copying", {"delay": 3}), ("Sums", {"length": 9})])
@pytest.mark.parametrize("step", [3, 4])
def test_resumed(cli: Any, config: Any, own: str, cls: str, options: dict[str, int], step: int) -> None:
    """AUROC and R squared are no means of what the two parts of an epoch have."""
    data = {"class_path": f"{own}.{cls}", "init_args": {**SIZES, **options}}
    path = config(data=data)
    assert cli("fit", "-c", path, "--run_dir", "whole").status == 0
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", step).status == 0
    done = cli("fit", "-c", path, "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", "-1")
    assert done.status == 0, done.err
    assert not differences(state("whole"), state("r")) and rows("r") == rows("whole")
    # and a state_dict of tensors alone, which a test on another metric leaves aside
    assert all(isinstance(value, Tensor) for value in torch.load("r/checkpoints/last.ckpt")["state_dict"].values())
    assert cli("test", "-c", path, "--run_dir", "r", "--ckpt_path", "last").status == 0


@pytest.mark.parametrize("metric", ["auroc", "f1", "accuracy"])
def test_state_dict(metric: str) -> None:
    """Keys of today's metrics are those of older checkpoints; half an epoch and the rest are the epoch."""
    task = task_of(metric, "label", CLASSES)
    batches: Any = [(torch.randn(5, CLASSES), torch.randint(CLASSES, (5,)), None) for _ in range(4)]
    whole, half = Meters(task), Meters(task)
    epoch(task, batches[:2], half)
    saved = pickle.loads(pickle.dumps(copy.deepcopy(half))).state_dict()
    if metric == "accuracy":
        assert list(saved) == [f"train_{a}.{b}" for a in ("loss", "metric") for b in ("total", "weight")]
    resumed = Meters(task)
    resumed.load_state_dict(saved)
    assert epoch(task, batches[2:], resumed) == epoch(task, batches, whole)
    # at rest, and of another metric: fresh
    other = Meters(replace(task, metric="cross_entropy" if metric == "f1" else "f1"))
    other.load_state_dict(saved)
    assert all(not value.any() for value in other.state_dict().values())
    fresh = Meters(task)
    fresh.load_state_dict(Meters(task).state_dict())
    assert epoch(task, batches, fresh) == epoch(task, batches, Meters(task))


def test_moved_to_another_dtype() -> None:
    """Sums are never rounded: 300 terms of 1 are 300, which bfloat16 takes for 256; nor is one of 2^24 and 1."""
    model = VanillaRNN(replace(Adding(length=9).task, metric="r2"), 4)
    for dtype in (torch.bfloat16, torch.float32, torch.float16):
        model.to(dtype)
        loss, metric = model.meters.of("val").values()
        assert loss.total.dtype == metric.residual.dtype == torch.float64
    for weight in (*[1] * 300, 2**24):
        loss.update(torch.tensor(1.0), weight)
    for _ in range(1024):
        loss.update(torch.tensor(0.0), 1)
    assert float(loss.compute()) == pytest.approx((2**24 + 300) / (2**24 + 1324), rel=1e-12)


def test_sums_of_older_checkpoints_are_in_float32() -> None:
    """And those of all processes have to be alike."""
    meters = Meters(task_of("accuracy", "label", CLASSES))
    meters.load_state_dict({name: tensor.float() for name, tensor in meters.state_dict().items()})
    assert {tensor.dtype for tensor in meters.state_dict().values()} == {torch.float64}


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", ["cross_entropy", "bits_per_symbol", "perplexity", "mse", "within_0.04"])
def test_outputs_in_half_precision_are_measured_in_single(metric: str, half: torch.dtype) -> None:
    """A loss in bfloat16 would be off by up to 0.4 percent; here by 1e-6 from that of these very outputs."""
    outputs = torch.randn(64, CLASSES).to(half)
    if metric in OF_CLASSES:
        task, oracle, targets = task_of(metric, "label", CLASSES), OF_CLASSES[metric], torch.randint(CLASSES, (64,))
    else:
        task, oracle = task_of(metric, "value", CLASSES), OF_NUMBERS[metric]
        targets = (outputs + 0.03 * torch.randn(64, CLASSES)).to(half)
    o, t = outputs.double().numpy(), targets.double().numpy() if metric in OF_NUMBERS else targets.numpy()
    assert epoch(task, [(outputs, targets, None)]) == pytest.approx(oracle(o, t), rel=1e-6)
    expected = nats(o, t) if metric in OF_CLASSES else ((o - t) ** 2).mean()
    assert float(loss_of(task, outputs, targets)) == pytest.approx(expected, rel=1e-6)


def test_a_loss_in_half_precision() -> None:
    """2.5 of 40,000 terms sum up to more than float16 holds."""
    meter = WeightedMean()
    for value in (2.5, 3.5):
        meter.update(torch.tensor(value, dtype=torch.float16), 40_000)
    assert meter.compute() == 3.0


RECORDER = '''
"""What each rank's model answered, and what the run said of it."""
import torch
from pytorch_lightning import Callback


class Answers(Callback):
    def __init__(self, folder: str) -> None:
        self.folder, self.seen = folder, []

    def on_validation_epoch_start(self, trainer, pl_module):
        self.seen = []

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.seen.append((pl_module(batch[0]), batch[1]))

    def on_train_end(self, trainer, pl_module):
        value = trainer.callback_metrics.get("val/auroc")
        if value is not None:  # a run that was stopped has not validated
            seen = [torch.cat(parts) for parts in zip(*self.seen)]
            torch.save((*seen, value), f"{self.folder}/answers{trainer.global_rank}.pt")
'''


def test_two_processes(tmp_path: Path, write_tiny: Any, own: str) -> None:
    """The validation's AUROC is that of both ranks' answers, four and three; a resume has the training's of both."""
    (tmp_path / "answers.py").write_text(RECORDER)
    recorder = {"class_path": "answers.Answers", "init_args": {"folder": str(tmp_path)}}
    data = {"class_path": f"{own}.Copying", "init_args": {**SIZES, "delay": 2, "symbols": 3}}
    trainer = {"callbacks": [recorder], "max_epochs": 1}
    write_tiny(tmp_path / "a.yaml", {"data": data, "trainer": trainer, "model": {"init_args": {"hidden_size": 4}}})
    done = forked_ranks(tmp_path, "fit", "-c", "a.yaml", "--run_dir", "whole")
    assert done.returncode == 0, done.stderr
    parts = [torch.load(tmp_path / f"answers{rank}.pt") for rank in (0, 1)]
    assert [len(part[0]) for part in parts] == [4, 3] and parts[0][2] == parts[1][2]
    outputs, targets = (torch.cat([part[i] for part in parts])[:, -3:].flatten(0, 1).numpy() for i in (0, 1))
    assert float(parts[0][2]) == pytest.approx(one_against_the_rest(outputs, targets), rel=1e-5)

    more = ("--run_dir", "r")
    done = forked_ranks(tmp_path, "fit", "-c", "a.yaml", *more, "--trainer.max_steps", 1)
    assert done.returncode == 0, done.stderr
    done = forked_ranks(tmp_path, "fit", "-c", "a.yaml", *more, "--ckpt_path", "last", "--trainer.max_steps", -1)
    assert done.returncode == 0, done.stderr
    (a,), (b,) = ([row for row in rows(tmp_path / run) if "train/auroc" in row] for run in ("whole", "r"))
    assert a.keys() == b.keys() and a["train/auroc"] == b["train/auroc"]
    for key in a:  # sums of two ranks and of one are rounded apart
        assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-6), key


def test_chance_of_the_headline_metric_is_that_of_the_most_frequent_answer() -> None:
    """Of another batch, and among what the metric counts, by hand: labels that are asked, or symbols to recall."""
    x, asked = torch.zeros(2, 4, 1), torch.tensor([[False, True, True, True], [False, True, True, False]])
    seen, labels = torch.tensor([[0, 1, 1, 3], [0, 1, 0, 0]]), torch.tensor([[1, 1, 2, 3], [1, 2, 1, 0]])
    task = Task("t", "values", 1, "label_per_step", CLASSES, 4, "mask", 1.0, "accuracy", True)
    parts = Parts(x, seen, asked, None), Parts(x, labels, asked, None)
    assert Meters(task).guessed(*parts) == 2 / 5  # 1, of 1, 1, 3, 1, 0, among 1, 2, 3, 2, 1
    assert Meters(replace(task, metric="f1")).guessed(*parts) is None
    whole = Parts(x, seen, None, None), Parts(x, labels, None, None)
    assert Meters(replace(task, scored="all", recall=2)).guessed(*whole) == 1 / 4  # 0, of 1, 3, 0, 0, among 2, 3, 1, 0
    one = [Parts(torch.zeros(3, 4, 1), torch.tensor(each), None, None) for each in ([2, 2, 1], [2, 0, 1])]
    assert Meters(replace(task, targets="label", scored="last")).guessed(*one) == 1 / 3
