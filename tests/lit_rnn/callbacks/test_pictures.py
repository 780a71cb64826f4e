"""The picture of every kind of task, without warnings and not blank."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from datamodules import Adding, CopyMemory, PixelDigits, Task
from lit_rnn.callbacks.pictures import draw_task
from lit_rnn.report.curves import draw_curves
from lit_rnn.runs.curves import read_curve

B, T, V, C = 6, 16, 5, 4


def task(inputs: str, targets: str, name: str = "task", width: int = 2, length: int | None = T) -> Task:
    return Task(
        name=name,
        inputs=inputs,  # type: ignore[arg-type]
        input_size=V if inputs == "symbols" else width,
        targets=targets,  # type: ignore[arg-type]
        target_size=V if targets == "next_symbol" else C,
        length=length,
        scored="last" if targets in ("label", "value") else "all",
        chance=1.0,
        metric="accuracy",
        higher_is_better=True,
    )


def batch(task: Task, count: int = B, steps: int = T) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets and outputs of the shapes that `Task` promises."""
    symbols = task.inputs == "symbols"
    inputs = torch.randint(V, (count, steps)) if symbols else torch.rand(count, steps, task.input_size)
    size = task.target_size
    targets = {
        "label": torch.randint(size, (count,)),
        "label_per_step": torch.randint(size, (count, steps)),
        "next_symbol": torch.randint(size, (count, steps)),
        "value": torch.rand(count, size),
        "frame_per_step": torch.rand(count, steps, size),
    }[task.targets]
    return inputs, targets, torch.randn((count, steps, size) if task.per_step else (count, size))


def pixels(figure: Any) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=60)
    buffer.seek(0)
    return imread(buffer)[..., :3]


def check(figure: Any) -> None:
    image = pixels(figure)
    left = image[:, : image.shape[1] // 2]
    assert left.std() > 0.05 and len(np.unique(left.reshape(-1, 3), axis=0)) > 20, "blank"


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [("symbols", kind) for kind in ("label", "label_per_step", "next_symbol", "value")]
    + [("values", kind) for kind in ("label", "label_per_step", "value", "frame_per_step")],
)
def test_every_kind_of_task(inputs: str, targets: str) -> None:
    kind = task(inputs, targets)
    check(draw_task(kind, *batch(kind)))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    ("inputs", "targets"), [("symbols", "label_per_step"), ("values", "label"), ("values", "value")]
)
def test_few_sequences(inputs: str, targets: str, count: int) -> None:
    kind = task(inputs, targets)
    check(draw_task(kind, *batch(kind, count)))


@pytest.mark.parametrize("steps", [1, 15, 16, 300])
@pytest.mark.parametrize(("inputs", "targets"), [("symbols", "label_per_step"), ("values", "label")])
def test_any_length(inputs: str, targets: str, steps: int) -> None:
    kind = task(inputs, targets, length=None)
    check(draw_task(kind, *batch(kind, steps=steps)))


def test_an_image_is_drawn_as_one() -> None:
    """Side by side with its transpose, the picture differs; a permuted one is drawn as a curve."""
    image = task("values", "label", "pixels", 1)
    inputs, targets, outputs = batch(image)
    turned = inputs.view(B, 4, 4).mT.reshape(B, T, 1)
    assert not np.array_equal(*(pixels(draw_task(image, x, targets, outputs)) for x in (inputs, turned)))
    permuted = task("values", "label", "permuted_pixels", 1)
    lines = [len(ax.lines) for ax in draw_task(permuted, inputs, targets, outputs).axes[:-1]]
    assert lines == [1] * B
    assert all(not ax.lines and ax.images for ax in draw_task(image, inputs, targets, outputs).axes[:-1])


def test_titles_say_target_and_prediction() -> None:
    kind = task("values", "label", width=1)
    inputs, targets, outputs = batch(kind)
    outputs = torch.nn.functional.one_hot(targets, C).float()
    outputs[0] = outputs[0].roll(1)
    axes = draw_task(kind, inputs, targets, outputs).axes[:-1]
    assert axes[0].get_title() == f"target {targets[0]}, predicted {outputs[0].argmax()}"
    assert [ax.title.get_color() for ax in axes] == ["tab:red"] + ["tab:green"] * (B - 1)


def test_a_prediction_has_the_colours_of_the_target() -> None:
    kind = task("symbols", "label_per_step")
    inputs, targets, _ = batch(kind)
    outputs = torch.nn.functional.one_hot(targets, C).float()
    strips = [ax.images[0] for ax in draw_task(kind, inputs, targets, outputs).axes[:-1]]
    assert len(strips) == 6 and len({(strip.norm.vmin, strip.norm.vmax) for strip in strips}) == 1
    for first in (0, 3):
        assert torch.equal(torch.as_tensor(np.array(strips[first].get_array()))[0], inputs[first // 3])
        assert np.array_equal(strips[first + 1].get_array(), strips[first + 2].get_array())


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_outputs_that_are_no_numbers(wrong: float) -> None:
    for kind in (task("values", "value"), task("values", "label"), task("symbols", "label_per_step")):
        inputs, targets, outputs = batch(kind)
        pixels(draw_task(kind, inputs, targets, torch.full_like(outputs, wrong)))


@pytest.mark.parametrize(
    "data",
    [
        CopyMemory(delay=5, val_samples=8),
        CopyMemory(delay=200, val_samples=8, protocol="exprnn"),
        Adding(length=30, val_samples=8),
        PixelDigits(),
        PixelDigits(permute=True),
    ],
    ids=lambda data: data.task.name,
)
def test_real_tasks(data: Any) -> None:
    inputs, targets = data.split("val")[np.arange(6)]
    size = data.task.target_size
    check(
        draw_task(
            data.task, inputs, targets, torch.randn((*inputs.shape[:2], size) if data.task.per_step else (6, size))
        )
    )


# ---- curves


def test_curve_is_read_from_metrics(tmp_path: Any) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,train/loss_step\n0,,3.0\n1,,2.0\n1,2.5,\n")
    assert read_curve(tmp_path / "metrics.csv", "train/loss_step") == ([1, 2], [3.0, 2.0])
    assert read_curve(tmp_path / "metrics.csv", "val/loss") == ([2], [2.5])
    assert read_curve(tmp_path / "metrics.csv", "else") == ([], [])
    assert read_curve(tmp_path / "none.csv", "else") == ([], [])


@pytest.mark.parametrize("chance", [0.8, 0.0])
def test_curves(tmp_path: Any, chance: float) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "metrics.csv").write_text("step,val/loss,train/loss_step\n0,,3.0\n1,,2.0\n1,2.5,\n")
    figure = Figure()
    axes = figure.subplots()
    draw_curves(axes, [("a", tmp_path), ("b", tmp_path / "none")], chance)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "a" in labels and any("chance" in label for label in labels)
    pixels(figure)
