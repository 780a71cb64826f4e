"""The loss of several processes, against means and gradients written out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import CopyMemory, SequenceFiles, Task, UserError
from datamodules.batch import Parts
from lit_rnn.models import GRU
from lit_rnn.models.joint import counts_may_differ, how_many, joint_loss
from tests.trainers import quiet_trainer

PER_STEP = CopyMemory(delay=2, symbols=1).task  # a target at each of 4 steps


def parts(steps: int = 4, **more: Any) -> Parts:
    zeros = torch.zeros(2, steps, dtype=torch.int64)
    return Parts(zeros, zeros, **more)


@pytest.mark.parametrize("counts", [(5, 0, 2), (1, 1, 1), (7, 3, 11)], ids=str)
def test_processes_go_back_through_the_mean_over_all_that_counts(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    x = [torch.randn(count, 3, generator=generator, dtype=torch.float64) for count in counts]
    means = [(one @ w).square().mean() for one in x]
    told: list[Tensor] = []  # all_reduce, twice over: what each process tells, and then the sum of that
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: told.append(tensor.clone()))
    for mean, count in zip(means, counts, strict=True):
        joint_loss(mean, torch.tensor(count), 3)
    together = torch.stack(told).sum(0)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.copy_(together))
    found = [joint_loss(mean, torch.tensor(count), 3) for mean, count in zip(means, counts, strict=True)]

    expected = sum(float((row @ w).detach()) ** 2 for one in x for row in one) / sum(counts)
    slope = sum(2 * float((row @ w).detach()) * row for one in x for row in one) / sum(counts)
    averaged = torch.stack([torch.autograd.grad(loss, w)[0] for loss, _ in found]).mean(0)  # as DDP does
    torch.testing.assert_close(averaged, slope, rtol=1e-12, atol=1e-12)
    assert float(sum(loss.detach() for loss, _ in found)) / 3 == pytest.approx(expected, rel=1e-12)
    assert [float(shown) for _, shown in found] == pytest.approx([expected] * 3, rel=1e-12)


def test_nothing_is_learnt_where_nothing_counts_in_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    loss, shown = joint_loss(torch.tensor(torch.nan), torch.tensor(0), 2)
    assert loss == 0 and shown.isnan()


@pytest.mark.parametrize(
    ("task", "batch", "expected"),
    [
        (PER_STEP, parts(), False),
        (replace(PER_STEP, scored="mask"), parts(mask=torch.ones(2, 4, dtype=torch.bool)), True),
        (replace(PER_STEP, length=None), parts(), True),  # variable copying: a length for each batch
        (replace(PER_STEP, length=None), parts(lengths=torch.tensor([4, 2])), True),
        (replace(PER_STEP, length=None), parts(reset=torch.zeros(2, 4, dtype=torch.bool)), False),
        (replace(PER_STEP, targets="label", recall=None, length=None), parts(lengths=torch.tensor([4, 2])), False),
    ],
)
def test_the_task_says_whether_processes_tell_their_counts(task: Task, batch: Parts, expected: bool) -> None:
    assert counts_may_differ(task, batch) is expected


@pytest.mark.parametrize(
    ("scored", "more", "expected"),
    [
        ("all", {}, 8),
        ("all", {"lengths": torch.tensor([4, 2])}, 6),
        ("mask", {"mask": torch.eye(2, 4) > 0, "lengths": torch.tensor([4, 1])}, 1),
        ("padded", {"lengths": torch.tensor([4, 2])}, 8),
    ],
)
def test_what_a_loss_is_the_mean_over(scored: Any, more: dict[str, Any], expected: int) -> None:
    assert int(how_many(replace(PER_STEP, scored=scored, length=None), parts(**more))) == expected


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, ["a mask", "'all'", "scored 'mask'"]),
        ({"lengths": torch.tensor([4, 2])}, ["lengths", "length 4", "length None"]),
    ],
)
def test_counts_that_the_task_does_not_speak_of_are_refused(more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        counts_may_differ(PER_STEP, parts(**more))
    assert all(word in str(refused.value) for word in words)


def test_processes_tell_nothing_where_counts_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the loss that is logged, in the steps in which it is."""
    told: list[Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", told.append)
    model = GRU(PER_STEP, 2)
    model._trainer = SimpleNamespace(world_size=2, log_every_n_steps=3)  # type: ignore[assignment]
    loss = torch.tensor(2.0)
    for model.optimizer_steps in range(6):
        back, _ = model._of_all_processes(loss, parts())
        assert back is loss
        assert len(told) == (model.optimizer_steps + 1) // 3


def test_an_accumulated_step_is_the_mean_of_the_means_of_its_batches() -> None:
    """Not of all that counts in them: Lightning's own definition, which does not know of the batches to come."""
    x, y = [[1, 0, 2, 2, 1], [0], [2, 1], [1]], [[0, 1, 2, 0, 1], [2], [0, 1], [2]]
    splits = ["train", "train", "val", "test"]
    named: dict[str, Any] = {"inputs": "symbols", "targets": "label_per_step", "splits": splits}
    data = SequenceFiles.from_arrays(x, y, batch_size=1, seed=0, **named)
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}
    model = GRU(data.task, 2, optimizer=optimizer).double()  # type: ignore[arg-type]
    logits = [model(torch.tensor([x[i]]))[0] for i in (0, 1)]
    losses = [out.exp().sum(1).log() - out[torch.arange(len(out)), torch.tensor(y[i])] for i, out in enumerate(logits)]
    means = [sum(loss) / len(loss) for loss in losses]
    slope = torch.autograd.grad((means[0] + means[1]) / 2, model.decoder.weight)[0]
    expected = model.decoder.weight.detach() - 0.5 * slope
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "limit_val_batches": 0}
    quiet_trainer(precision="64-true", max_steps=1, **options).fit(model, data)
    torch.testing.assert_close(model.decoder.weight.detach(), expected, rtol=1e-12, atol=1e-12)
