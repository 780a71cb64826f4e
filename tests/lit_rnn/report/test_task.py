"""The picture of every kind of task: readable, not blank, and saying what is shown, cut, wrong and not counted."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from datamodules import Adding, CopyMemory, Denoise, PixelDigits, Task
from lit_rnn.report import style
from lit_rnn.report.curves import draw_curves
from lit_rnn.report.sequences import Steps, Strips, Symbols, cut, draw_channels, draw_image
from lit_rnn.report.task import draw_task
from lit_rnn.runs.curves import read_curve
from tests.pictures import check_picture

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
    figure.axes[-1].set(xlabel="optimizer steps", ylabel="loss")
    style.finish(figure)
    check_picture(figure)
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
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


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("inputs", "targets"), [("symbols", "label_per_step"), ("values", "label")])
def test_few_sequences(inputs: str, targets: str, count: int) -> None:
    kind = task(inputs, targets)
    check(draw_task(kind, *batch(kind, count)))


@pytest.mark.parametrize("steps", [1, 15, 300])
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
    assert axes[0].get_title() == f"target {targets[0]}, predicted {outputs[0].argmax()} ✗"
    assert axes[1].get_title() == f"target {targets[1]}, predicted {targets[1]} ✓"
    assert [ax.title.get_color() for ax in axes] == [style.WRONG] + [style.RIGHT] * (B - 1)


def test_a_prediction_has_the_colours_of_the_target() -> None:
    kind = task("symbols", "label_per_step")
    inputs, targets, _ = batch(kind)
    outputs = torch.nn.functional.one_hot(targets, C).float()
    figure = draw_task(kind, inputs, targets, outputs)
    strips = [ax.images[0] for ax in figure.axes[:-1]]
    assert len(strips) == 2 and len({(strip.norm.vmin, strip.norm.vmax) for strip in strips}) == 1
    for i, strip in enumerate(strips):
        rows = np.array(strip.get_array())
        assert np.array_equal(rows[0], inputs[i]) and np.array_equal(rows[1], rows[2])
    assert not any(ax.patches for ax in figure.axes[:-1]), "there is no mistake"
    (key,) = (legend for part in figure.subfigs for legend in part.legends)
    assert [text.get_text() for text in key.get_texts()] == [*map(str, range(V)), "mistake"]


def test_steps_that_do_not_count_are_no_mistakes() -> None:
    data = Denoise(delay=20, symbols=4, val_samples=2)
    inputs, targets, mask = data.split("val")[np.arange(2)]
    outputs = torch.nn.functional.one_hot((targets + 1) % 9, 9).float()  # wrong everywhere
    figure = draw_task(data.task, inputs, targets, outputs, mask)
    for ax in figure.axes[:-1]:
        rows = ax.images[0].get_array()
        assert np.ma.getmaskarray(rows).sum(1).tolist() == [0, 21, 21], "target and prediction are not shown there"
        framed = [patch for patch in ax.patches if not patch.get_fill()]
        assert len(framed) == 4 and all(patch.get_edgecolor()[:3] == to_rgb(style.WRONG) for patch in framed)
    names = [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]
    assert set(names) == {"blank", "marker", "mistake", "does not count", *map(str, range(1, 9))}


def test_a_long_silence_is_cut_and_said() -> None:
    data = CopyMemory(delay=1000, symbols=3, val_samples=2)
    inputs, targets = data.split("val")[np.arange(2)]
    predicted = targets.clone()
    predicted[0, 500], predicted[0, -1] = 5, targets[0, -1] % 8 + 1  # a mistake that is cut, and one that is not
    figure = draw_task(data.task, inputs, targets, torch.nn.functional.one_hot(predicted, 9).float())
    first, second = figure.axes[:2]
    assert [[text.get_text() for text in ax.texts if "steps" in text.get_text()] for ax in (first, second)] == [
        ["995 steps,\n1 mistake"],
        ["995 steps,\n0 mistakes"],
    ]
    rows = np.ma.filled(first.images[0].get_array().astype(float), -1)
    assert rows.shape[1] == 5 + 4 + 6, "three symbols and two quiet steps, the cut, two quiet steps, marker and answers"
    assert rows[1, -3:].tolist() == targets[0, -3:].tolist() and (rows[:, 5:9] == -1).all()
    ticks = [tick.get_text() for tick in second.get_xticklabels()]
    assert ticks == ["2", "4", "1002", "1004", "1006"]


def test_what_is_cut() -> None:
    busy = np.zeros(200, bool)
    assert cut(busy[:60]).shown == [(0, 60)], "there is room"
    busy[[0, 199]] = True
    assert cut(busy).shown == [(0, 3), (197, 200)] and cut(busy).cuts == [(3 + 1.5, 3, 197)]
    busy[6] = True
    assert cut(busy).shown == [(0, 9), (197, 200)], "too near for a cut"
    assert cut(np.ones(100, bool)).shown == [(0, 100)] and cut(np.ones(500, bool)).shown == [(0, 60), (440, 500)]
    assert Steps(9, [(0, 2), (7, 9)]).columns.tolist() == [0, 1, -1, -1, -1, -1, 7, 8]


def test_every_channel_is_shown_or_it_is_said() -> None:
    for width, name in ((1, "input"), (3, "channel"), (8, "6 of 8 channels")):
        axes = style.new_figure(4, 3).subplots()
        draw_channels(axes, np.random.default_rng(0).random((20, width)) * 10.0 ** np.arange(width))
        assert len(axes.lines) == min(width, 6) and axes.get_ylabel() == name
    axes = style.new_figure(3, 3).subplots()
    draw_image(axes, np.random.default_rng(0).random((4, 4, 3)))
    assert axes.images[0].get_array().shape == (4, 4, 3), "colours"
    draw_image(axes, np.ones((4, 4, 2)))
    assert axes.get_xlabel() == "channel 1 of 2"


def test_numbers_at_every_step() -> None:
    kind = task("values", "frame_per_step")
    inputs, targets, outputs = batch(kind)
    counts = torch.ones(B, T, dtype=torch.bool)
    counts[:, :5] = False
    answers = draw_task(kind, inputs, targets, outputs, counts).axes[1]
    drawn = {str(line.get_label()): line.get_ydata() for line in answers.lines}
    assert list(drawn) == [f"{word} {k}" for k in (1, 2, 3) for word in ("target", "prediction")]
    assert np.isnan(drawn["prediction 2"][:5]).all()
    np.testing.assert_allclose(drawn["prediction 2"][5:], outputs[0, 5:, 1])
    assert answers.get_ylabel() == "3 of 4 components"


def test_wide_frames_are_images_in_the_colours_of_their_targets() -> None:
    kind = replace(task("values", "frame_per_step"), input_size=20, target_size=20)
    torch.manual_seed(0)
    targets, outputs = torch.rand(3, T, 20), 5 * torch.rand(3, T, 20)
    counts = torch.ones(3, T, dtype=torch.bool)
    counts[1, 4:] = False
    panels = draw_task(kind, targets, targets, outputs, counts).axes[:4]
    assert [ax.get_ylabel() for ax in panels] == ["target", "prediction"] * 2
    drawn = [ax.images[0] for ax in panels]
    for image, frames, row in zip(drawn, (targets[0], outputs[0], targets[1], outputs[1]), (0, 0, 1, 1), strict=True):
        shown = np.ma.filled(image.get_array().astype(float), np.nan)  # bins upward, steps to the right
        assert np.isnan(shown[:, ~counts[row].numpy()]).all()
        np.testing.assert_allclose(shown[:, counts[row].numpy()], frames[counts[row]].T)
    counted = targets[:2][counts[:2]]
    assert {image.get_clim() for image in drawn} == {(float(counted.min()), float(counted.max()))}


def test_symbols_without_names_have_a_colour_bar() -> None:
    kind = replace(task("symbols", "next_symbol"), input_size=50, target_size=50)
    inputs = torch.randint(50, (2, 40))
    figure = draw_task(kind, inputs, inputs, torch.randn(2, 40, 50))
    assert "symbol" in [ax.get_ylabel() for ax in figure.axes]
    assert Symbols.of(kind).key() == [] and len(Symbols(12, True).key()) == 12
    assert Strips({"a": np.array([0, 0, 3, 0])}).busy.tolist() == [False, False, True, False]


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
@pytest.mark.parametrize("runs", [1, 3])
def test_every_curve_is_named(tmp_path: Path, chance: float, runs: int) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,train/loss_step\n0,,3.0\n1,,2.0\n1,2.5,\n3,1.5,\n")
    figure = style.new_figure(5, 4)
    axes = figure.subplots()
    draw_curves(axes, [*((f"run {k}", tmp_path) for k in range(runs)), ("none", tmp_path / "none")][: runs + 1], chance)
    style.legend(axes)
    style.finish(figure)
    check_picture(figure)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"chance, {chance:.4g}" in labels and not any("none" in label for label in labels)


def test_one_run_names_training_and_validation(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,train/loss_step\n0,,3.0\n1,,2.0\n1,2.5,\n")
    axes = style.new_figure(5, 4).subplots()
    draw_curves(axes, [("LSTM", tmp_path)], 0.1)
    assert axes.get_legend_handles_labels()[1] == ["LSTM, training", "LSTM, validation", "chance, 0.1"]
