"""compare: what is found, what may stand side by side, means and spreads by hand, published figures, and its files."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.compare import measure, page, pictures, subject
from lit_rnn.commands.compare.subject import by_name_alone, find_runs, read_diverged, read_run
from lit_rnn.runs.endings import DivergedError, note_divergence
from tests.pictures import checked

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a run folder by hand, below an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(
        name: str,
        value: float | None = 0.9,
        seed: int = 1,
        model: str = "ExpRNN",
        size: int = 170,
        test: float | None = None,
        task: str = "permuted_pixel_mnist",
        data: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        finished: bool = True,
        **fit: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        numbers: dict[str, Any] = {
            "model": model,
            "task": task,
            "parameters": 16415,
            "steps": 40,
            "split": "val",
            "loss": 0.5,
            "chance": 2.3,
            "metric": "accuracy",
            "value": value,
            "seconds": 7.0,
            **fit,
        }
        if finished:
            (folder / "fit.json").write_text(json.dumps(numbers))
        if test is not None:
            (folder / "test.json").write_text(json.dumps({**numbers, "split": "test", "value": test, "steps": 30}))
        given = {"permute": True, "protocol": "common", "seed": seed, "root": f"place{seed}", **(data or {})}
        config = {
            "seed_everything": seed,
            "model": {"class_path": f"lit_rnn.models.{model}", "init_args": {"hidden_size": size, **(options or {})}},
            "data": {"class_path": "datamodules.PixelMNIST", "init_args": given},
            "trainer": {"max_epochs": 2, **(trainer or {})},
            "run_dir": name,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.csv").write_text("step,train/loss_step,val/loss\n9,2.0,\n19,,1.5\n39,,0.5\n")
        return folder

    return write


def compared(*folders: Path) -> list[measure.Comparison]:
    return measure.compare([read_run(folder) for folder in folders])


# ---- means and spreads


def test_means_and_spreads_of_seeds_by_hand(make: Make) -> None:
    """0.90, 0.92, 0.97: mean 0.93, deviations -0.03, -0.01, 0.04, variance (9 + 1 + 16)e-4 / 2 = 13e-4."""
    folders = [make(f"a-seed={s}", value, s, loss=s / 10) for s, value in ((1, 0.90), (2, 0.92), (3, 0.97))]
    (one,) = compared(*folders)
    (group,) = one.groups
    assert group.name == "a" and len(group.runs) == 3
    assert group.value is not None and group.value.number == 3
    assert group.value.mean == pytest.approx(0.93, rel=1e-12)
    assert group.value.std == pytest.approx(13e-4**0.5, rel=1e-12)
    assert group.loss is not None and (group.loss.mean, group.loss.std) == pytest.approx((0.2, 0.1))
    assert group.test is None


def test_one_seed_has_no_spread_and_missing_values_are_counted(make: Make) -> None:
    folders = [make("a-seed=1", 0.5, 1, test=0.25), make("a-seed=2", None, 2), make("b-seed=1", 0.75, 1, size=8)]
    (one,) = compared(*folders)
    a, b = one.groups
    assert b.value == measure.Spread(0.75, None, 1)
    assert a.value == measure.Spread(0.5, None, 1) and a.test == measure.Spread(0.25, None, 1)
    row = page.table(one).cells[0]
    assert "0.5 (1 of 2)" in row and "0.25 (1 of 2)" in row
    assert measure.spread_of([float("nan"), 1.0, 3.0, float("inf")]) == measure.Spread(2.0, 2**0.5, 2)
    assert measure.spread_of([None]) is None


def test_what_is_a_seed_of_one_setting(make: Make) -> None:
    """Places and backends do not make a setting; options, budgets and sizes do; one seed twice is no second seed."""
    make("a-seed=1", seed=1)
    make(
        "a-seed=2", seed=2, options={"backend": "fused"}, trainer={"default_root_dir": "x", "enable_progress_bar": True}
    )
    make("again", seed=1)
    make("longer", seed=2, trainer={"max_epochs": 3})
    make("rate", seed=2, options={"optimizer": {"init_args": {"lr": 0.1}}})
    make("batch", seed=2, data={"batch_size": 7})
    names = ["a-seed=1", "a-seed=2", "again", "longer", "rate", "batch"]
    (one,) = compared(*(Path(name) for name in names))
    assert [[run.folder.name for run in group.runs] for group in one.groups] == [
        names[:2],
        *([name] for name in names[2:]),
    ]


def test_what_trained_otherwise_is_no_seed(make: Make) -> None:
    """A batch is of each process; a resume may change a rate, and may as well go on for longer."""
    for seed, devices in enumerate([1, "1", "auto", 2, "0,1", [0, 1], "auto"], 1):
        make(f"a-seed={seed}", seed=seed, trainer={"devices": devices})
    Path("a-seed=7/versions.json").write_text(json.dumps({"devices": ["one", "another"]}))
    for seed, (key, was) in enumerate([("lr", 0.1), ("lr", 0.1), ("lr", 0.2)], 8):
        folder = make(f"a-seed={seed}", seed=seed, options={key: 0.2}, trainer={"devices": 1})
        text = (folder / "config.yaml").read_text()
        (folder / "config-2.yaml").write_text(text)
        (folder / "config.yaml").write_text(text.replace("lr: 0.2", f"lr: {was}").replace("epochs: 2", "epochs: 1"))
    make("a-seed=11", seed=11, options={"lr": 0.2}, trainer={"devices": 1})
    (one,) = compared(*(Path(f"a-seed={seed}") for seed in range(1, 12)))
    found = [[run.seed for run in group.runs] for group in one.groups]
    assert found == [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11]]


def test_groups_of_one_name_are_told_apart(make: Make) -> None:
    """By the folder above; where that is the same too, by the path."""
    make("s/a-seed=1", size=1)
    make("t/a-seed=1", size=2)
    (one,) = compared(Path("s/a-seed=1"), Path("t/a-seed=1"))
    assert [row[0] for row in page.table(one).cells] == ["s/a-seed=1", "t/a-seed=1"]
    make("r/one/x", seed=1)
    make("r/one/y", seed=2)
    make("r/two/one/x", size=3)
    make("r/two/one/y", size=3, seed=2)
    (two,) = compared(*(Path("r", name) for name in ("one/x", "one/y", "two/one/x", "two/one/y")))
    assert measure.names(two.groups) == ["r/one/x", "r/two/one/x"]


def test_best_first(make: Make) -> None:
    folders = [make("a", 0.9, test=0.1), make("b", 0.5, test=0.3), make("c", 0.99)]
    (one,) = compared(*folders)
    assert [group.name for group in one.best_first] == ["b", "a", "c"]
    assert [group.name for group in one.best_validated] == ["c", "a", "b"], "nor is one behind that was not tested"
    (other,) = compared(make("d", 3.0, metric="mse"), make("e", 2.0, metric="mse"))
    assert [group.name for group in other.best_first] == ["e", "d"]


def test_a_lost_seed_makes_no_group_better(make: Make) -> None:
    """The mean over the seeds that are left would be the highest; a seed that was not tested is not lost."""
    folders = [make(f"a-seed={seed}", value, seed, test=0.1) for seed, value in ((1, 0.99), (2, None))]
    folders += [make(f"b-seed={seed}", value, seed, size=2) for seed, value in ((1, 0.8), (2, 0.7))]
    folders += [make("b-seed=3", 0.7, 3, size=2, test=0.5), make("c", None, size=3)]
    (one,) = compared(*folders)
    assert [group.name for group in one.best_validated] == [group.name for group in one.best_first] == ["b", "a", "c"]
    assert measure.best_by_validation(one.groups, True) == one.groups[1]


@pytest.mark.parametrize(("higher", "first"), [(False, "b"), (True, "a")])
def test_the_run_says_which_way_its_metric_is_better(make: Make, higher: bool, first: str) -> None:
    """Any class of torchmetrics may be the metric, and of most only the task knew the direction."""
    odd = {"metric": "MeanAbsolutePercentageError", "higher_is_better": higher}
    (one,) = compared(make("a", 0.9, **odd), make("b", 0.5, **odd))
    assert one.best_first[0].name == measure.best_by_validation(one.groups, one.higher_is_better).name == first  # type: ignore[union-attr]


# ---- what is comparable


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": {"protocol": "nru"}}, "protocol is common in one and nru"),
        ({"data": {"val_size": 10}}, "val_size is null in one and 10"),
        ({"metric": "f1"}, "metric is accuracy in one and f1"),
        ({"split": "train"}, "split is val in one and train"),
        ({"chance": 1.0}, "chance is 2.3 in one and 1.0"),
    ],
)
def test_what_is_not_comparable_gets_another_table(make: Make, changes: dict[str, Any], named: str) -> None:
    comparisons = compared(make("a"), make("b", **changes), make("c"))
    assert [[group.name for group in one.groups] for one in comparisons] == [["a", "c"], ["b"]]
    assert measure.apart(comparisons) == [f"Kept apart, in two tables, on permuted_pixel_mnist: {named} in the other."]


def on_text(make: Make, name: str, files: str, kept: str | None, seed: int = 1, **more: Any) -> Path:
    """A run on a text, whose versions.json may have its fingerprint."""
    folder = make(name, seed=seed, data={"files": files, "val_files": None}, **more)
    told = {"devices": []} | ({} if kept is None else {"fingerprint": kept})
    (folder / "versions.json").write_text(json.dumps(told))
    return folder


def test_files_count_by_what_is_in_them(make: Make) -> None:
    """The same text at two places is one setting; another text at one of these is another task."""
    runs = [on_text(make, f"a-seed={seed}", f"{seed}/verse.txt", "aa", seed) for seed in (1, 2)]
    runs.append(on_text(make, "b", "1/verse.txt", "bb"))
    comparisons = compared(*runs)
    assert [[group.name for group in one.groups] for one in comparisons] == [["a"], ["b"]]
    (told,) = measure.apart(comparisons)
    assert told.endswith(": fingerprint is aa in one and bb in the other.")
    assert by_name_alone([read_run(run) for run in runs]) == ""
    both = on_text(make, "c", "3/verse.txt", "aa", metric="f1")
    (told,) = measure.apart(compared(runs[0], both))
    assert told.endswith(": metric is accuracy in one and f1 in the other."), "of files that are the same no word"
    rows = {row["run"]: row["data"] for row in page.rows(comparisons)}
    assert "fingerprint aa" in rows["a"] and "fingerprint bb" in rows["b"]


def test_runs_of_before_that_kept_no_fingerprint_are_told_by_the_names_of_their_files(make: Make) -> None:
    old, new = on_text(make, "old", "verse.txt", None, 2), on_text(make, "new", "verse.txt", "aa", 1)
    elsewhere = on_text(make, "elsewhere", "moved/verse.txt", "aa", 3)
    (one,) = compared(old, new, elsewhere)
    assert [len(group.runs) for group in one.groups] == [3]
    assert by_name_alone([read_run(run) for run in (old, new)]).endswith(f": {old}.")
    assert by_name_alone([read_run(run) for run in (old,)]) == ""
    # of two texts at one place it may be either: it stands by itself
    other = on_text(make, "other", "verse.txt", "bb")
    assert [[group.name for group in one.groups] for one in compared(old, new, other)] == [["old"], ["new"], ["other"]]


@pytest.mark.parametrize(
    "kept", [["aa"], {}, 7, "", "a" * 1_000_000, "\x1b[2J", "aa\nbb", "\u202eaa"], ids=lambda kept: repr(kept)[:9]
)
def test_what_is_no_fingerprint_says_nothing(make: Make, kept: Any) -> None:
    run = on_text(make, "a", "verse.txt", kept)
    (run / "versions.json").write_text(json.dumps({"fingerprint": kept, "devices": kept}))
    assert read_run(run).fingerprint is None and read_run(run).processes == 1


def test_the_fingerprint_of_somebody_elses_data(make: Make) -> None:
    """Which options name files is not known there: what the class says is heard all the same."""

    def of(name: str, kept: str | None, class_path: str = "mine.Recordings") -> Path:
        data = {"class_path": class_path, "init_args": {"batch_size": 32, "recordings": "x"}}
        folder = make(name, data=None)
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {"data": data}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "versions.json").write_text(json.dumps({} if kept is None else {"fingerprint": kept}))
        return folder

    runs = of("a", "aa"), of("b", None), of("c", "bb")
    assert [[group.name for group in one.groups] for one in compared(*runs[:2])] == [["a", "b"]]
    assert [len(one.groups) for one in compared(*runs)] == [1, 1, 1]
    assert read_run(of("d", "aa", "datamodules.TextCorpus")).fingerprint is None, "a text that comes with Python"


def test_files_that_a_resume_found_elsewhere(make: Make) -> None:
    first, second = on_text(make, "a-seed=1", "verse.txt", "aa", 1), on_text(make, "a-seed=2", "verse.txt", "aa", 2)
    text = (first / "config.yaml").read_text()
    (first / "config-2.yaml").write_text(text.replace("verse.txt", "moved/verse.txt"))
    (one,) = compared(first, second)
    assert [len(group.runs) for group in one.groups] == [2]


def test_a_test_on_other_files_is_none_of_the_run(make: Make) -> None:
    run = on_text(make, "a", "verse.txt", "aa", test=0.3)
    assert read_run(run).test is not None, "a test of before says nothing of files"
    told = json.loads((run / "test.json").read_text())
    (run / "test.json").write_text(json.dumps({**told, "fingerprint": "bb"}))
    assert read_run(run).test is None and "other files" in subject.tested_elsewhere([read_run(run)])


def test_diverged_runs_count_beside_those_on_the_same_files(make: Make) -> None:
    run, lost = on_text(make, "a", "verse.txt", "aa"), on_text(make, "b", "moved.txt", "aa", finished=False)
    other = on_text(make, "c", "verse.txt", "bb", finished=False)
    (one,) = measure.compare([read_run(run)], [read_diverged(lost), read_diverged(other)])
    assert [run.folder for run in one.diverged] == [lost]


def test_the_last_digits_of_chance_keep_nothing_apart(make: Make) -> None:
    """It is a sum, whose rounding is another on another machine or with another length."""
    (one,) = compared(make("a", chance=math.log(2)), make("b", chance=math.nextafter(math.log(2), 1)))
    assert [group.name for group in one.groups] == ["a", "b"]


def test_an_option_of_a_later_version_has_its_default_in_older_runs(make: Make) -> None:
    later = make("later", data={"dataset": "mnist", "pad_to": None}, options={"linear": False})
    (one,) = compared(make("older", seed=2), later)
    assert [len(group.runs) for group in one.groups] == [2]  # two seeds of one setting
    assert len(compared(make("other"), make("fashion", data={"dataset": "fashion_mnist"}))) == 2


def test_data_made_on_the_device_are_the_same_data(make: Make) -> None:
    (one,) = compared(make("a"), make("b", data={"on_device": True}, seed=2))
    assert [len(group.runs) for group in one.groups] == [2]


def test_sizes_of_splits_and_batches_keep_runs_together(make: Make) -> None:
    assert len(compared(make("a"), make("b", data={"batch_size": 3, "train_samples": 5, "num_workers": 2}))) == 1
    (one,) = compared(make("h"), make("i", seed=2, data={"bucket_by_length": True}))
    assert len(one.groups) == 2, "batches of similar lengths are another training, measured alike"
    assert len(compared(make("c"), make("d", data={"carry": 0.9, "tbptt": 7}), make("e", data={"carry": True}))) == 1
    assert len(compared(make("f"), make("g", data={"carry": False, "tbptt": 7}))) == 2, "chunks, each alone"


# ---- learning rates


def with_rate(rate: float, **options: Any) -> dict[str, Any]:
    return {"options": {"optimizer": {"class_path": "RMSprop", "init_args": {"lr": rate, "alpha": 0.9}}, **options}}


def test_the_share_of_learning_rates_near_the_best_by_hand(make: Make, cli: Callable[..., Any]) -> None:
    """Means over two seeds of 0.5, 0.82, 0.9 and nothing: 0.82 is within a tenth of 0.9, 0.5 is not: 2 of 4."""
    values = {1e-4: (0.4, 0.6), 1e-2: (0.89, 0.91), 1e-3: (0.83, 0.81), 1e-1: (None, None)}
    for rate, seeds in values.items():
        for seed, value in enumerate(seeds, 1):
            make(f"r/a-lr={rate}-seed={seed}", value, seed, test=0.1, **with_rate(rate))
    make("r/other-gain", 0.99, **with_rate(1e-2, gain=2))  # another setting, at one rate
    make("r/lower-1", 0.11, task="t", metric="mse", **with_rate(1e-4))
    make("r/lower-2", 0.10, task="t", metric="mse", **with_rate(1e-3))
    make("r/lower-3", 0.12, task="t", metric="mse", **with_rate(1e-2))
    make("r/none", 0.5, task="u")
    one, two, three = compared(*find_runs(["r"])[0])
    (rates,) = measure.by_rate(one)
    assert [measure.learning_rate(group) for group in rates.groups] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert rates.best is rates.groups[2] and rates.near == 2
    (rates,) = measure.by_rate(two)
    assert rates.best is rates.groups[1] and rates.near == 2, "0.11 is within a tenth of 0.10, 0.12 is not"
    assert measure.by_rate(three) == [] and page.rates_table(three) is None
    made = page.rates_table(one)
    assert made is not None and made.header[-1] == "within 10% of the best"
    row = ["a-lr=0.01", "ExpRNN", "170", "16,415", "4 from 1.00e-4 to 0.1", "0.01", "0.900 ± 0.014", "2 of 4"]
    assert made.cells == [row], "the run tells models of one class and size apart"
    done = cli("compare", "r", "--markdown", "m.md", "--latex", "l.tex", "--html", "h")
    assert done.status == 0 and "2 of 4" in done.out
    for file in ("m.md", "l.tex", "h/compare.html"):
        assert "2 of 4" in Path(file).read_text() and "Learning rates on" in Path(file).read_text()


def test_updates_until_a_loss_by_hand(make: Make) -> None:
    """Curves that pass 1 at 20 and 40 updates, and one that never does."""
    for seed, second in ((1, 0.9), (2, 1.5), (3, 1.2)):
        folder = make(f"r/a-seed={seed}", seed=seed)
        last = 1.2 if seed == 3 else 0.5
        (folder / "metrics.csv").write_text(f"step,val/loss\n9,2.0\n19,{second}\n39,{last}\n")
    ((group,),) = [one.groups for one in compared(*find_runs(["r"])[0])]
    assert measure.updates_until(group, 1.0) == measure.Spread(30.0, pytest.approx(200**0.5), 2)
    assert measure.updates_until(group, 0.1) is None


def test_a_picture_of_many_settings_shows_the_best(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(17):
        make(f"r/run{number}", number / 20, **with_rate(10.0**-number))
    drawn = checked(monkeypatch)
    (one,) = compared(*find_runs(["r"])[0])
    pictures.draw(one, Path("p.png"))
    assert drawn() == 1


# ---- published figures


def test_published_figures_stand_beside_their_own_model_size_and_protocol(make: Make) -> None:
    (one,) = compared(
        make("a", size=170, test=0.94),
        make("b", size=99),
        make("c", model="DtrivRNN", options={"rebase_every": 1}),
        make("d", model="DtrivRNN", options={"rebase_every": None}),
        make("e", model="DtrivRNN"),
    )
    found = [[str(entry) for entry in measure.beside(group, one)] for group in one.groups]
    assert found == [["0.949 [secondary]"], [], ["0.952 [secondary]"], ["0.950 [secondary]"], ["0.951 [secondary]"]]
    table, notes = page.published_table(one) or pytest.fail("nothing is published")
    by_name = {(row[0].split(" (")[0], row[2]): row[1] for row in table.cells}
    assert by_name["expRNN", "170"] == "ours: 0.94" and by_name["dtriv1", "170"] == "ours: not tested"
    assert by_name["expRNN", "360"] == "ours: size 170, 16,415 parameters; ours: size 99, 16,415 parameters"
    assert by_name["NRU", "212"] == "not comparable: protocol is nru there, common here"
    assert by_name["identity", "25"].startswith("not comparable: metric is henrici there")
    assert any("projUNN (arXiv 2203.05483), Table 2" in note for note in notes)


def test_successes_are_counted_over_a_grid(make: Make) -> None:
    """Half of chance is 1.15: of three chains the last validation loss is 0.5, but one never comes below 1.15."""
    names = {"task": "copy_memory", "model": "VanillaRNN", "size": 100, "data": {"delay": 480}}
    folders = [make(f"c{lr}", options={"init": "chain", "lr": lr}, **names) for lr in (1, 2, 3)]
    (folders[1] / "metrics.csv").write_text("step,val/loss\n9,1.16\n39,nan\n")
    (folders[2] / "metrics.csv").write_text("step,val/loss\n9,1.14\n39,9.0\n")
    (one,) = compared(*folders, make("o", options={"init": "orthogonal"}, **names))
    table, _ = page.published_table(one) or pytest.fail("nothing is published")
    by_name = {row[0].split(" (")[0]: (row[1], row[-1]) for row in table.cells}
    assert by_name["chain"] == ("ours: 2 of 3", "46 of 462 [confirmed]")
    assert by_name["orthogonal"] == ("ours: 1 of 1", "0 of 594 [confirmed]")
    assert by_name["fbchain"][0] == "" and not [entry for group in one.groups for entry in measure.beside(group, one)]
    (other,) = compared(make("p", options={"init": "chain"}, **{**names, "data": {"delay": 99}}))
    table, _ = page.published_table(other) or pytest.fail("nothing is published")
    assert {row[1] for row in table.cells} == {"not comparable: delay is 480 there, 99 here"}


def test_a_run_that_diverged_is_no_success(make: Make) -> None:
    """One success of one that has finished; of those that diverged, two had other data or another start."""
    names = {"task": "copy_memory", "model": "VanillaRNN", "size": 100, "data": {"delay": 480}}
    chain, other = {"options": {"init": "chain"}}, {"options": {"init": "identity"}}
    done = read_run(make("a", **names, **chain))
    lost = [
        make("b", finished=False, **names, **chain),
        make("c", finished=False, **names, **other),
        make("d", finished=False, **{**names, "data": {"delay": 9}}, **chain),
    ]
    (one,) = measure.compare([done], [read_diverged(folder) for folder in lost])
    table, _ = page.published_table(one) or pytest.fail("nothing is published")
    assert {row[0].split(" (")[0]: row[1] for row in table.cells if row[1]} == {
        "chain": "ours: 1 of 2",
        "identity": "ours: 0 of 1",
    }


def test_a_run_without_its_whole_curve_is_neither_success_nor_failure(make: Make, cli: Callable[..., Any]) -> None:
    names = {"task": "copy_memory", "model": "VanillaRNN", "size": 100, "data": {"delay": 480}}
    for name in ("r/whole", "r/cut", "r/half"):
        make(name, options={"init": "chain"}, **names)
    make("r/never-validated", None, options={"init": "identity"}, loss=None, **names)
    for name in ("cut", "never-validated"):
        Path(f"r/{name}/metrics.csv").write_text("step,train/lo")
    Path("r/half/metrics.csv").write_text("step,val/loss\n19,1.5\n")  # of 40 steps
    done = cli("compare", "r", "--published")
    assert done.status == 0 and "ours: 1 of 1" in done.out, done.err
    assert "a failure: r/cut, r/half." in " ".join(done.out.split())


def test_a_test_of_another_task_is_named_and_left_out(make: Make, cli: Callable[..., Any]) -> None:
    """As `test` leaves it that was given other data; chance may differ by rounding."""
    for name in ("r/own", "r/other"):
        make(name, test=0.8)
    for name, changed in {"own": {"chance": 2.3 * (1 + 1e-12)}, "other": {"task": "pixel_mnist"}}.items():
        path = Path(f"r/{name}/test.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    done = cli("compare", "r", "--csv", "r.csv")
    assert done.status == 0, done.err
    why = (
        "Left out, not a test of what was trained: r/other/test.json (task is pixel_mnist, and permuted_pixel_mnist in"
    )
    assert why in " ".join(done.out.split())
    assert [read_run(Path("r", name)).test is None for name in ("own", "other")] == [False, True]


def test_a_test_from_before_training_went_on_is_named_and_left_out(make: Make, cli: Callable[..., Any]) -> None:
    """All runs have 40 steps, and of before one has 20, another had not ended; those of older versions do not say."""
    told = {"own": {"trained_steps": 40}, "early": {"trained_steps": 20}, "cut": {"trained_steps": None}, "silent": {}}
    for name, more in told.items():
        path = make(f"r/{name}", test=0.8) / "test.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    done = cli("compare", "r")
    assert done.status == 0, done.err
    text = " ".join(done.out.split())
    assert "r/early/test.json (it was made after 20 steps of training, and fit.json is of 40)" in text
    assert "r/cut/test.json (it was made before training ended, and fit.json is of 40)" in text
    assert {name for name in told if read_run(Path("r", name)).test is None} == {"early", "cut"}


def test_seeds_that_were_tested_from_different_checkpoints_are_named(make: Make) -> None:
    folders = []
    for seed, checkpoint in ((1, "best.ckpt"), (2, "last.ckpt"), (3, None)):
        path = make(f"r/a-seed={seed}", seed=seed, test=0.5) / "test.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | ({"checkpoint": checkpoint} if checkpoint else {})))
        folders.append(path.parent)
        told = "The seeds of one row were tested from different checkpoints: a (best.ckpt, last.ckpt)."
        assert measure.tests_of_several(compared(*folders)) == (told if seed > 1 else "")


def test_a_published_figure_never_stands_without_its_status(make: Make, cli: Callable[..., Any]) -> None:
    make("s/a-seed=1", 0.9, 1, test=0.85)
    make("s/b-seed=1", 0.8, 1, model="NRU", size=212, data={"protocol": "nru"})
    done = cli("compare", "s", "--published", "--html", "page", "--csv", "--markdown", "--latex", "x/t.tex")
    assert done.status == 0, done.err
    texts = {name: Path(name).read_text() for name in ("page/compare.html", "compare.csv", "compare.md", "x/t.tex")}
    for name, text in {"terminal": done.out, **texts}.items():
        for figure in ("0.949", "0.9541", "0.8926"):
            there = re.findall(rf"{figure}(.{{0,16}})", text)
            assert there and all(re.match(r"[\s{\\]*\[", rest) for rest in there), (name, there)
        for status in ("secondary", "unconfirmed", "confirmed"):
            assert f"{status}: " in text or name == "compare.csv", name
    with Path("compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figures = [row for row in rows if not row["run"]]
    assert len(figures) > 60 and all(row["status"] and row["source"] for row in figures)
    assert not [row for row in figures if row["value_mean"]], "ours and theirs share no column"


def test_a_task_without_published_figures_is_named(make: Make, cli: Callable[..., Any]) -> None:
    make("a", task="pixel_digits")
    done = cli("compare", "a", "--published", "--html", "page", "--markdown", "--latex", "t.tex")
    assert done.status == 0, done.err
    texts = [done.out, *(Path(name).read_text() for name in ("page/compare.html", "compare.md", "t.tex"))]
    for text in texts:
        text = text.replace("\\", "")  # Markdown's and LaTeX's
        assert "No published figure is known here on pixel_digits." in text
        assert "confirmed:" not in text and "published test/" not in text


def test_without_the_option_nothing_published_shows(make: Make, cli: Callable[..., Any]) -> None:
    make("a")
    done = cli("compare", "a")
    assert done.status == 0 and "published" not in done.out and "0.949" not in done.out


# ---- what is found


def test_folders_studies_patterns_and_wandb(make: Make) -> None:
    for name in ("s/b-seed=1", "s/a-seed=1", "t/u/c"):
        make(name)
    make("s/going", finished=False)
    Path("s/plan.json").write_text(json.dumps({"b-seed=1": {}, "a-seed=1": {}}))
    Path("t/u/c/wandb/offline-run-20260101_000000-abc").mkdir(parents=True)
    names = lambda *given: [str(path) for path in find_runs(given)[0]]  # noqa: E731
    assert names("t/u/c") == ["t/u/c"]
    assert names("s") == ["s/b-seed=1", "s/a-seed=1"], "the study's own order"
    assert names(".") == ["s/b-seed=1", "s/a-seed=1", "t/u/c"]
    assert names("s/*-seed=1", "t", "s/a-seed=1") == ["s/a-seed=1", "s/b-seed=1", "t/u/c"], "each once"
    assert names("t/u/c/wandb/offline-run-20260101_000000-abc") == ["t/u/c"]
    assert find_runs(["s"])[1] == [Path("s/going")]
    Path(".hidden/d").mkdir(parents=True)
    Path(".hidden/d/config.yaml").touch()
    Path("t/link").symlink_to(Path("s").absolute())
    Path("plan.json").write_text("[1]")  # of something else
    assert names(".") == ["s/b-seed=1", "s/a-seed=1", "t/u/c"]
    assert names("t", "t/../t/u/c", str(Path("t").absolute()), "t/u/c/.") == ["t/u/c"], "whatever its name"
    for bad in (["nowhere"], ["nowhere*"], ["s/going"], ["t/u/c/wandb"]):
        with pytest.raises(UserError):
            find_runs(bad)


def test_runs_under_way_are_named_and_left_out(make: Make, cli: Callable[..., Any]) -> None:
    """Whoever puts names in a pattern's place: the shell, or `find_runs`."""
    make("r/done")
    make("r/going", finished=False)
    make("s/only/going", finished=False)
    for given in (["r/done", "r/going", "s/only"], ["r/*", "s"], ["r", "s/*/*"]):
        done = cli("compare", *given)
        assert done.status == 0, done.err
        assert "Left out, not finished: r/going, s/only/going." in " ".join(done.out.split())


def test_why_a_folder_has_nothing_to_compare(make: Make) -> None:
    for name in ("s/going", "s/lost"):
        make(name, finished=False)
    said = "The loss is nan at step 3; norms by layer: cell 1, decoder 2; no checkpoint yet."
    note_divergence(Path("s/lost"), DivergedError(said))
    Path("empty").mkdir()
    for given, why in {
        "s/lost": "s/lost has diverged, and has no numbers: The loss is nan at step 3.",
        "s/going": "s/going has not ended (no s/going/fit.json): name it once it has.",
        "s": "s holds no finished run; diverged: 1, not ended: 1.",
        "empty": "empty holds no run (no config.yaml, no fit.json): name run folders or studies.",
    }.items():
        with pytest.raises(UserError) as refused:
            find_runs([given])
        assert str(refused.value) == why
    with pytest.raises(UserError, match=r"s/going has not ended .* s/lost has diverged"):
        find_runs(["s/*"])


@pytest.mark.parametrize(("inside", "given"), [(".", "."), ("below", ".."), ("wandb", "offline-run-1")])
def test_the_folder_that_one_stands_in_has_its_name(
    make: Make, monkeypatch: pytest.MonkeyPatch, inside: str, given: str
) -> None:
    folder = make("runs/mine")
    (folder / "wandb" / "offline-run-1").mkdir(parents=True)
    (folder / "wandb" / "offline-run-1" / "run-1.wandb").touch()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / inside)
    (one,) = compared(*find_runs([given])[0])
    assert page.table(one).cells[0][0] == page.rows([one])[0]["run"] == "mine"


def test_a_run_of_wandb_without_its_run_folder_is_a_sentence(tmp_path: Path, refused: Callable[..., str]) -> None:
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "config.yaml").write_text("{}")
    (folder / "run-abc.wandb").write_bytes(b":W&B")
    assert "is a run of W&B's without the run folder" in refused("compare", "wandb/offline-run-20260101_000000-abc")


def test_numbers_that_are_none_are_a_sentence(make: Make, refused: Callable[..., str]) -> None:
    make("a", parameters="many")
    assert "parameters is not a number" in refused("compare", "a")
    make("b", loss=True)
    assert "loss is not a number" in refused("compare", "b")
    make("c")
    Path("c/config.yaml").write_text("- 1\n")
    assert "c/config.yaml is damaged" in refused("compare", "c")


# ---- what is written


def test_the_table_names_its_metrics_and_every_task_has_a_picture(
    make: Make, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = checked(monkeypatch)
    make("r/a-seed=1", 0.90, 1)
    make("r/a-seed=2", 0.92, 2)
    make("r/other", 0.5, task="other task", data={"permute": False})
    make("r/going", finished=False)
    make("r/lost", finished=False)
    note_divergence(Path("r/lost"), DivergedError("The loss is nan at step 3."))
    files = ("--csv", "all.csv", "--markdown", "m.md", "--latex", "l.tex", "--html", "h")
    done = cli("compare", "r", "--picture", "p/x.png", *files, "--threads", "1")
    assert done.status == 0 and pictures() == 2, done.err
    assert "val/accuracy" in done.out and "test/accuracy" in done.out and "0.910 ± 0.014" in done.out
    assert "sample standard deviation over seeds" in done.out and "r/going, r/lost (diverged)." in done.out
    for name in ("m.md", "l.tex", "h/compare.html"):
        assert "r/going, r/lost (diverged)." in Path(name).read_text(), f"left out, as {name} says"
    for name in ("p/x-permuted-pixel-mnist.png", "p/x-other-task.png"):
        assert Path(name).stat().st_size > 5000 and f"picture: {name}" in done.out
    with Path("all.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["value_mean"], first["seeds"], second["run"]) == ("0.91", "2", "other")
    assert float(first["value_std"]) == pytest.approx(2**0.5 / 100, rel=1e-12)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["ExpRNN", "DtrivRNN"], [0, 1]),
        (["DtrivRNN", "ExpRNN"], [1, 0]),
        (["LSTM", "LSTM", "LSTM", "ExpRNN"], [3, 11, 1, 0]),  # the second in its colour, the third in a free one
        (["LSTM", "JANET", "LSTM"], [3, 11, 0]),
        (["Mine", "ExpRNN", "Mine"], [1, 0, 2]),
        (["LSTM"] * 20, [3, 11, 0, 1, 2, *range(4, 11), *range(12, 20)]),
        ([], []),
    ],
)
def test_a_model_has_one_look_in_every_picture(models: list[str], expected: list[int]) -> None:
    assert pictures.model_looks(models) == expected


def test_pictures_of_one_task_are_numbered(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "draw", lambda comparison, picture: None)
    protocols = [compared(make(name, data={"protocol": name}))[0] for name in "abc"]
    other = compared(make("d", task="other"))
    names = ["permuted-pixel-mnist", "other", "permuted-pixel-mnist-2", "permuted-pixel-mnist-3"]
    drawn = pictures.draw_each([protocols[0], *other, *protocols[1:]], Path("x.png"))
    assert drawn == [Path(f"x-{name}.png") for name in names]


def test_the_page_opens_offline(make: Make, cli: Callable[..., Any]) -> None:
    make("<b>a")
    assert cli("compare", "<b>a", "--html", "page", "--published").status == 0
    text = Path("page/compare.html").read_text()
    assert "&lt;b&gt;a" in text and "<b>a" not in text
    assert text.count("data:image/png;base64,") == 1
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "<script" not in text


@pytest.mark.parametrize("option", ["--csv", "--markdown", "--latex", "--picture"])
def test_a_folder_is_no_file(option: str, make: Make, refused: Callable[..., str]) -> None:
    make("a")
    make("b")
    assert f"{option} a is a folder" in refused("compare", option, "a", "b")
    assert "--threads" in refused("compare", "a", "--threads", "0")


def test_a_comment_of_latex_ends_with_its_note() -> None:
    assert page.latex([], ["Left out: a\n\\input{b}."], False).splitlines()[1:] == ["% Left out: a \\input{b}."]
