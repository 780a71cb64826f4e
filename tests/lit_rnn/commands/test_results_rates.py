"""Short trainings at several learning rates: what the results pages say of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from lit_rnn.runs.endings import DivergedError, note_divergence

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import pages  # noqa: E402
import rates  # noqa: E402


def run(folder: Path, model: str, rate: float, accuracy: float | None, updates: int = 40) -> None:
    """As if a run had ended; without an accuracy it has diverged."""
    folder.mkdir(parents=True)
    options = {"hidden_size": 8, "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": rate}}}
    config = {
        "seed_everything": 1,
        "model": {"class_path": f"lit_rnn.models.{model}", "init_args": options},
        "data": {"class_path": "datamodules.PixelMNIST", "init_args": {"permute": True}},
        "trainer": {"max_epochs": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "versions.json").write_text('{"commit": "0123456789"}')
    (folder / "metrics.csv").write_text("step,epoch,train/loss,val/loss\n39,0,2.0,\n39,0,,0.5\n")
    if accuracy is None:
        note_divergence(folder, DivergedError("it grew"))
        return
    numbers = {"model": model, "task": "permuted_pixel_mnist", "parameters": 99, "steps": updates, "split": "val"}
    numbers |= {"loss": 0.5, "chance": 2.0, "metric": "accuracy", "value": accuracy, "seconds": 1.0}
    (folder / "fit.json").write_text(json.dumps(numbers))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """One long run, and of two models short ones, better than it: 0.9 of the best of the GRU is 0.81."""
    folder = tmp_path / "results"
    run(folder / "mnist" / "long", "GRU", 0.01, 0.7)
    for rate, accuracy in ((0.003, 0.80), (0.01, 0.82), (0.03, 0.90)):
        run(folder / "rates" / "mnist" / f"gru-{rate}", "GRU", rate, accuracy)
    for rate, found in ((0.003, 0.5), (0.01, 0.46), (0.03, None)):
        run(folder / "rates" / "mnist" / f"lstm-{rate}", "LSTM", rate, found, updates=90)
    return folder


def test_every_rate_is_told_the_best_model_first_and_one_that_diverged_is_not_near(made: Path) -> None:
    text = pages.overview(pages.read(made), "")
    section = text.partition(f"## {rates.TITLE}\n")[2].partition("\n## ")[0]
    header, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert header == "| model | updates | val/accuracy at each rate | best rate | within 10% of the best |"
    assert rows == [
        "| GRU, n = 8 | 40 | 0.003: 0.8; 0.01: 0.82; 0.03: 0.9 | 0.03 | 2 of 3 |",
        "| LSTM, n = 8 | 90 | 0.003: 0.5; 0.01: 0.46; 0.03: diverged | 0.003 | 2 of 3 |",
    ]
    assert "permuted\\_pixel\\_mnist; chance loss 2" in section
    assert "The best rate is the largest that was tried for GRU, n = 8. The best rate is the smallest " in section


def test_short_trainings_stand_beside_no_longer_one(made: Path) -> None:
    results = pages.read(made)
    (alone,) = results.comparisons
    assert [one.folder.name for group in alone.groups for one in group.runs] == ["long"]
    assert not alone.diverged
    text = pages.overview(results, "")
    assert f"No rate was searched here. How wide the window of rates is: [{rates.TITLE}](#{rates.ANCHOR})." in text


def test_without_them_there_is_no_section(made: Path) -> None:
    (made / "rates").rename(made.parent / "away")
    text = pages.overview(pages.read(made), "")
    assert rates.TITLE not in text
