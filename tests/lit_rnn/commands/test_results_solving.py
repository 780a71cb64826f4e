"""Tasks whose runs end once they have solved them: what the results pages say of their updates."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lit_rnn.runs.endings import DivergedError, note_divergence

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import collect  # noqa: E402
import pages  # noqa: E402
import solving  # noqa: E402
import top_two  # noqa: E402

SOLVED = [{"class_path": "lit_rnn.callbacks.Solved", "init_args": {"below_chance": 0.1}}]


def run(
    folder: Path,
    model: str,
    seed: int,
    losses: list[float],
    callbacks: Any = SOLVED,
    delay: int = 9,
    rate: float | None = None,
) -> Path:
    """As if a run had been validated after 100, 200, ... updates; chance is 1."""
    folder.mkdir(parents=True)
    numbers = {"model": model, "task": "copy_memory", "parameters": 10, "steps": 100 * len(losses), "split": "val"}
    numbers |= {"loss": losses[-1], "chance": 1.0, "metric": "accuracy", "value": 0.5, "seconds": 1.0}
    if losses[-1] < 0.1:
        numbers["ended_early"] = "Stopping threshold reached"
    (folder / "fit.json").write_text(json.dumps(numbers))
    (folder / "test.json").write_text(json.dumps({**numbers, "split": "test"}))
    config = {
        "seed_everything": seed,
        "model": {"class_path": f"lit_rnn.models.{model}", "init_args": {"hidden_size": 8}},
        "data": {"class_path": "datamodules.CopyMemory", "init_args": {"delay": delay}},
        "trainer": {"max_epochs": 4, "callbacks": callbacks},
    }
    if rate is not None:
        config["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": rate}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "versions.json").write_text('{"commit": "0123456789"}')
    rows = [f"{100 * number - 1},{loss}" for number, loss in enumerate(losses, start=1)]  # steps count from 0
    (folder / "metrics.csv").write_text("\n".join(["step,val/loss", *rows]) + "\n")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Below a tenth after 300 and 200 updates; one of two; half of chance alone; never."""
    folder = tmp_path / "results"
    run(folder / "a-seed=1", "ExpRNN", 1, [0.9, 0.4, 0.05])
    run(folder / "a-seed=2", "ExpRNN", 2, [0.3, 0.09])
    run(folder / "b-seed=1", "NRU", 1, [0.05])
    run(folder / "b-seed=2", "NRU", 2, [0.9, 0.6, 0.3, 0.2])
    run(folder / "c-seed=1", "LSTM", 1, [1.0, 0.9, 0.45, 0.11])
    run(folder / "d-seed=1", "GRU", 1, [1.0, 0.9, 0.8, 0.7])
    return folder


def test_the_fewest_updates_of_all_seeds_come_first(made: Path) -> None:
    """Of 300 and 200 the mean is 250, the sample standard deviation 70.7; of the others, how far they came."""
    results = pages.read(made)
    text = pages.headline.headline(results.comparisons)
    told = "in every run by ExpRNN (2 of 2); in some by NRU (1 of 2); in none by LSTM (0 of 1), GRU (0 of 1)."
    told += " Further seeds are to be run of LSTM."
    how = "solved (loss below 0.1 of chance; validated every 100 updates; over all seeds)"
    assert text.startswith(f"{solving.RULE}\n\ncopy\\_memory (delay 9), {how}: {told}\n")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert rows[0][1] == r"copy\_memory (delay 9): updates to 0.1 of chance"
    assert rows[2:6] == [
        ["ExpRNN, n = 8", "250 ± 71 (2 of 2)"],
        ["NRU, n = 8", "100 (1 of 2)"],
        ["LSTM, n = 8", "not in 400 (0 of 1); half of chance after 300 (1 of 1)"],
        ["GRU, n = 8", "not in 400 (0 of 1)"],
    ]
    assert rows[6] == ["chance loss", "1"]
    page = pages.headline.page(results.comparisons, {}, pages.NOTE)
    assert "| n = 8 | updates to 0.1 of chance | 250 ± 71 (2 of 2) | 1 |" in page.split("## ExpRNN")[1]
    (table,) = (solving.milestones(one) for one in results.comparisons)
    assert table is not None and [row[1:] for row in table.rows] == [
        ["150 ± 71", "250 ± 71"],
        ["200 ± 141", "100 (1 of 2)"],
        ["300", "not reached"],
        ["not reached", "not reached"],
    ]
    late = "".join(map(pages.still_better, results.comparisons))
    assert "c-seed=1" in late and "d-seed=1" in late and "a" not in late.partition("better: ")[2].split(", ")


def test_of_several_rates_the_best_stands_for_the_model_and_the_window_is_told(tmp_path: Path) -> None:
    """ExpRNN solves it at two of three rates, the fastest of which is not its first; LSTM at none."""
    run(tmp_path / "a-seed=1", "ExpRNN", 1, [0.9, 0.8], rate=1e-4)
    run(tmp_path / "b-seed=1", "ExpRNN", 1, [0.9, 0.4, 0.05], rate=1e-3)
    run(tmp_path / "c-seed=1", "ExpRNN", 1, [0.9, 0.05], rate=1e-2)
    run(tmp_path / "d-seed=1", "NRU", 1, [0.9, 0.9, 0.9, 0.05])
    run(tmp_path / "e-seed=1", "LSTM", 1, [0.9, 0.8, 0.7], rate=1e-3)
    run(tmp_path / "f-seed=1", "LSTM", 1, [0.9, 0.8, 0.6], rate=1e-2)
    (comparison,) = pages.read(tmp_path).comparisons
    text = pages.headline.headline([comparison])
    over = (
        "over all seeds and learning rates): in every run by NRU (1 of 1); in some by ExpRNN (2 of 3); in none by LSTM"
    )
    assert over in text, "at its best rate it solves it always, but that was chosen"
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert rows[2:5] == [
        ["ExpRNN, n = 8", "200 (1 of 1) at rate 0.01; solved at 2 of 3 learning rates"],
        ["NRU, n = 8", "400 (1 of 1)"],
        ["LSTM, n = 8", "not in 300 (0 of 1) at rate 0.01; solved at 0 of 2 learning rates"],
    ]
    table = solving.rates_table(comparison)
    assert table is not None and table.rows == [
        [
            "ExpRNN, n = 8",
            "1.00e-4: not in 200 (0 of 1); 0.001: 300 (1 of 1); 0.01: 200 (1 of 1)",
            "2 of 3 learning rates",
        ],
        ["LSTM, n = 8", "0.001: not in 300 (0 of 1); 0.01: not in 300 (0 of 1)", "0 of 2 learning rates"],
    ]


def test_half_of_chance_that_was_lost_is_told(tmp_path: Path) -> None:
    run(tmp_path / "a-seed=1", "ExpRNN", 1, [0.9, 0.4, 0.6])
    run(tmp_path / "a-seed=2", "ExpRNN", 2, [0.9, 0.8, 0.4])
    run(tmp_path / "b-seed=1", "NRU", 1, [0.9, 0.8, 0.7])
    (comparison,) = pages.read(tmp_path).comparisons
    rows = [line for line in pages.headline.headline([comparison]).splitlines() if line.startswith("|")]
    told = "half of chance after 250 ± 71 (2 of 2), lost again by the end (1 of 2)"
    assert rows[2:4] == [f"| ExpRNN, n = 8 | not in 300 (0 of 2); {told} |", "| NRU, n = 8 | not in 300 (0 of 1) |"]


def lose(folder: Path) -> None:
    """As if the run had diverged."""
    (folder / "fit.json").unlink()
    (folder / "test.json").unlink()
    note_divergence(folder, DivergedError("The norm is nan at steps 1200, 1300, so that nothing is learnt; 2 left"))


def test_a_run_that_diverged_is_named_beside_those_that_solved_it(made: Path) -> None:
    """Of a model whose every run diverged there is a row as well, and it comes last, with how far it had come."""
    lose(run(made / "e-seed=1", "LEM", 1, [0.9, 0.2]))
    results = pages.read(made)
    text = pages.headline.headline(results.comparisons)
    assert "in none by LSTM (0 of 1), GRU (0 of 1), LEM (0 of 1); diverged: LEM (1). Further" in text
    assert "6 runs have ended, of 4 models on 1 task, and 1 diverged, beside" in pages.overview(results, "")
    assert "| GRU, n = 8 | not in 400 (0 of 1) |\n" in text
    assert (
        "\n| LEM, n = 8 | diverged at step 1,300 (0 of 1); half of chance after 200 (1 of 1) |\n| chance loss" in text
    )


def test_runs_that_diverged_count_where_others_solved_it(tmp_path: Path) -> None:
    """At a rate of which another seed solved it, and as a rate at which none did: neither is left out of the counts."""
    run(tmp_path / "a-seed=1", "ExpRNN", 1, [0.9, 0.05], rate=1e-3)
    lose(run(tmp_path / "a-seed=2", "ExpRNN", 2, [0.9], rate=1e-3))
    lose(run(tmp_path / "b-seed=1", "ExpRNN", 1, [0.9], rate=1e-2))
    (comparison,) = pages.read(tmp_path).comparisons
    text = pages.headline.headline([comparison])
    assert "learning rates): in some by ExpRNN (1 of 3); diverged: ExpRNN (2).\n" in text
    assert "| 200 (1 of 2) at rate 0.001; solved at 1 of 2 learning rates |" in text
    table, reached = solving.rates_table(comparison), solving.milestones(comparison)
    each = "0.001: 200 (1 of 2); 0.01: diverged at step 1,300 (0 of 1)"
    assert table is not None and table.rows == [["ExpRNN, n = 8", each, "1 of 2 learning rates"]]
    assert reached is not None and reached.rows == [["a-seed=1", "200 (1 of 2)", "200 (1 of 2)"]]


def test_seeds_of_one_rate_are_not_wanted_of_the_others(tmp_path: Path) -> None:
    """The fastest rate has one seed, another has all: none is to be run, though a model of the same class has fewer."""
    run(tmp_path / "a-seed=1", "DtrivRNN", 1, [0.05], rate=1e-2)
    for seed in (1, 2):
        run(tmp_path / f"b-seed={seed}", "DtrivRNN", seed, [0.9, 0.05], rate=1e-3)
    assert "seeds are to be run" not in pages.headline.headline(pages.read(tmp_path).comparisons)


def test_lengths_of_a_kind_of_task_stand_in_one_table(tmp_path: Path) -> None:
    """Another protocol in the next, in which a model that was not run on it has no row."""
    for delay in (9, 20):
        run(tmp_path / f"a-{delay}", "NRU", 1, [0.9, 0.05], delay=delay)
    other = run(tmp_path / "b", "LSTM", 1, [0.9, 0.05])
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["data"]["init_args"]["protocol"] = "exprnn"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        line for line in pages.headline.headline(pages.read(tmp_path).comparisons).splitlines() if line.startswith("| ")
    ]
    found = [row.strip("| ").split(" | ") for row in rows if not row.startswith("| ---")]
    models = [[row[0] for row in found if len(row) == columns] for columns in (3, 2)]
    named = [["model", "NRU, n = 8", "chance loss"], ["model", "LSTM, n = 8", "chance loss"]]
    assert models == named, "delays of 9 and 20 beside each other"


def test_the_picture_shows_every_model_once_at_the_rate_that_stands_for_it(tmp_path: Path) -> None:
    """Not the best of all settings, which are those of few models; and its title tells protocols apart."""
    run(tmp_path / "a-seed=1", "ExpRNN", 1, [0.9, 0.8], rate=1e-4)
    run(tmp_path / "b-seed=1", "ExpRNN", 1, [0.9, 0.05], rate=1e-3)
    run(tmp_path / "c-seed=1", "LSTM", 1, [0.9, 0.9])
    lose(run(tmp_path / "d-seed=1", "LEM", 1, [0.9]))
    results = pages.read(tmp_path)
    (drawn, title) = solving.pictured(results.comparisons[0], "copy_memory (delay 9)")
    assert [group.name for group in drawn.groups] == ["b-seed=1", "c-seed=1"]
    assert title == "copy_memory (delay 9), each model at its best learning rate"


def test_parts_that_keep_their_own_rate_are_named(tmp_path: Path) -> None:
    for number, rate in enumerate((1e-3, 1e-2)):
        folder = run(tmp_path / f"{number}-seed=1", "ScuRNN", 1, [0.9, 0.05], rate=rate)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"]["init_args"]["group_optimizers"] = {"recurrent": {"class_path": "torch.optim.RMSprop"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    table = solving.rates_table(pages.read(tmp_path).comparisons[0])
    assert table is not None and "parts with an optimizer of their own (ScuRNN) keep its rate" in str(table.title)


def test_the_nru_is_in_the_top_two_or_it_is_not(tmp_path: Path) -> None:
    """Undecided while others may still be better or worse; decided by two that are better on one task."""

    def told() -> str:
        return top_two.section(pages.read(tmp_path).comparisons)

    assert told().endswith("No run of `campaign/nru.yaml` has been collected yet.\n\n")
    run(tmp_path / "copying_100-nru-seed=1", "NRU", 1, [0.9, 0.9, 0.05])
    run(tmp_path / "copying_100-nru-seed=2", "NRU", 2, [0.05])
    run(tmp_path / "copying_100-eurnn-seed=1", "EURNN", 1, [0.9, 0.09])  # 200 updates, as the NRU in the mean
    run(tmp_path / "copying_100-lstm-seed=1", "LSTM", 1, [0.9, 0.8])
    run(tmp_path / "another-seed=1", "GRU", 1, [0.05])
    lines = told().splitlines()
    claim = "the NRU is the only model in the top two on every task"
    assert lines[2] == f"- Not measured yet: {claim} ({top_two.SHORT} it is 1 of 3 on copying\\_100)."
    assert [line.strip("| ").split(" | ") for line in lines[6:9]] == [
        ["eurnn", "1: 200 (1 of 1)"],
        ["nru", "1: 200 ± 141 (2 of 2)"],
        ["lstm", "3: not in 200 (0 of 1)"],
    ]
    assert "Missing: 57 of its 60 runs of the first seed." in lines[10]
    assert "a tenth of the paper's 200,000" in lines[10], "what is ours stands on the page"
    run(tmp_path / "denoising_100-goru-seed=1", "GORU", 1, [0.05], delay=20)
    run(tmp_path / "denoising_100-gru-seed=1", "GRU", 1, [0.9, 0.05], delay=20)
    assert "- Not measured yet" in told()
    run(tmp_path / "denoising_100-nru-seed=1", "NRU", 1, [0.2], delay=20)
    places = "it is 1 of 3 on copying\\_100, 3 of 3 on denoising\\_100"
    assert f"- **Does not hold here**: {claim} ({top_two.SHORT} {places})." in told()
    lose(tmp_path / "denoising_100-nru-seed=1")
    assert f"({top_two.SHORT} {places}, where it diverged)." in told()


@pytest.mark.parametrize(("second", "holds"), [("eurnn", False), ("goru", True)])
def test_the_nru_is_alone_in_the_top_two_or_it_is_not(second: str, holds: bool) -> None:
    """Second of every task is EURNN; or of one task GORU."""
    places = {task: {model: 3 for model in models} | {"nru": 1, "eurnn": 2} for task, models in top_two._arms().items()}
    assert len(places) == 6 and all(len(found) == 10 for found in places.values())
    places["copying_200"] |= {"eurnn": 3, second: 2}
    assert top_two._claim(places)[0] is holds
    del places["denoising_100"]
    assert top_two._claim(places)[0] is None, "a task has not been run"


def test_runs_that_go_on_have_their_own_table(made: Path) -> None:
    run(made / "e-seed=1", "LEM", 1, [0.9, 0.05, 0.01], callbacks=None, delay=20)
    first, second = pages.headline.headline(pages.read(made).comparisons).split(f"is better. {solving.ORDER}\n", 1)
    assert "LEM" in first and "NRU" not in first and "NRU" in second and "LEM" not in second


def test_every_run_of_a_folder_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for one that has kept nothing; of one that diverged what it said, without the place of its checkpoint."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        run(tmp_path / "runs" / f"a-seed={seed}", "NRU", seed, [0.9])
    run(tmp_path / "runs" / "begun", "NRU", 3, [0.9]).joinpath("fit.json").unlink()
    out = run(tmp_path / "runs" / "b-seed=1", "NRU", 1, [0.9])
    (out / "fit.json").unlink()
    note_divergence(out, DivergedError(f"The loss is nan at step 3; the last good checkpoint is {out}."))
    assert collect.main(["runs", "results/copying"]) == 0, capsys.readouterr().err
    assert {path.name for path in Path("results/copying").iterdir()} == {"a-seed=1", "a-seed=2", "b-seed=1"}
    assert json.loads(Path("results/copying/b-seed=1/diverged.json").read_text()) == {
        "said": "The loss is nan at step 3"
    }
    assert ("copying/b-seed=1", "NRU", "diverged", "0123456") in pages.read(Path("results")).going
    shutil.copytree(tmp_path / "runs", tmp_path / "more" / "again")
    shutil.copytree(tmp_path / "runs", tmp_path / "more" / "runs")
    assert collect.main(["more", "results/more"]) == 2 and not Path("results/more").exists()
    assert "two runs of the name a-seed=1" in capsys.readouterr().err
    assert yaml.safe_load(Path("results/copying/a-seed=2/config.yaml").read_text())["seed_everything"] == 2
    (tmp_path / "empty").mkdir()
    assert collect.main(["empty", "results/other"]) == 2


@pytest.mark.parametrize(
    ("callbacks", "share"),
    [
        (SOLVED, 0.1),
        (SOLVED[0] | {"init_args": {"below_chance": 0.5}}, 0.5),  # one, without a list
        ([{"class_path": "Solved"}], 0.1),
        (["lit_rnn.callbacks.LastCheckpoint", "Solved"], 0.1),
        ("Solved", 0.1),
        ([{"class_path": "lit_rnn.callbacks.WatchMatrices", "init_args": {"budget": 0.5}}], None),
        (None, None),
    ],
    ids=str,
)
def test_a_share_however_a_config_names_it(callbacks: Any, share: float | None) -> None:
    assert solving._share(SimpleNamespace(config={"trainer": {"callbacks": callbacks}})) == share
    assert solving._share(SimpleNamespace(config={})) is None
