"""results/ and the pages made from it: reproduced byte for byte, moved by every number, and free of machine's paths."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
import yaml

from datamodules import UserError
from lit_rnn.commands.compare.page import chance_told
from lit_rnn.models import read_checkpoint

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import collect  # noqa: E402
import differences  # noqa: E402
import pages  # noqa: E402

RUN = "permuted_pixel_mnist/exprnn_170-seed=1"


def written(results: Path, root: Path) -> dict[str, bytes]:
    """The pages and pictures made of ``results``, by name."""
    pages.write(results, root)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("rendered")
def test_what_is_committed_is_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures where matplotlib is the one that drew them; another moves letters."""
    results = pages.read(ROOT / "results")
    monkeypatch.setattr(pages, "read", lambda _: results)  # once
    made = written(ROOT / "results", tmp_path)
    assert {f"docs/results/{name}" for name in pages.pictures_of(results)} == {n for n in made if n.endswith(".svg")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "results").iterdir()}
    assert there | {"RESULTS.md"} == made.keys()
    for name, content in made.items():
        committed = (ROOT / name).read_bytes()
        of_another = name.endswith(".svg") and f"Matplotlib v{matplotlib.__version__}".encode() not in committed
        assert committed == content or of_another, f"{name}: python results/pages.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results/ by hand: three seeds of expRNN, an LSTM that was not tested, an NRU by another protocol."""
    folder = tmp_path_factory.mktemp("made") / "results"
    unfinished = shutil.ignore_patterns("fit.json", "test.json")
    shutil.copytree(ROOT / "results" / RUN, folder / "going", ignore=unfinished)
    runs: list[tuple[str, str, int, int, float, float | None, dict[str, Any]]] = [
        ("a-seed=1", "ExpRNN", 1, 170, 0.90, 0.91, {"init": "cayley"}),
        ("a-seed=2", "ExpRNN", 2, 170, 0.92, 0.93, {"init": "cayley"}),
        ("a-seed=3", "ExpRNN", 3, 170, 0.97, 0.92, {"init": "cayley"}),
        ("b-seed=1", "LSTM", 1, 128, 0.5, None, {"t_max": None}),
        ("c-seed=1", "NRU", 1, 212, 0.9, 0.95, {}),
    ]
    for name, model, seed, size, value, test, options in runs:
        run = folder / "mnist" / name
        run.mkdir(parents=True)
        numbers = {"model": model, "task": "permuted_pixel_mnist", "parameters": 16415, "steps": 40, "split": "val"}
        numbers |= {"loss": 0.5, "chance": 2.302585, "metric": "accuracy", "value": value, "seconds": 1234.5}
        (run / "fit.json").write_text(json.dumps(numbers))
        if test is not None:
            (run / "test.json").write_text(json.dumps({**numbers, "split": "test", "value": test}))
        config = {
            "seed_everything": seed,
            "model": {"class_path": f"lit_rnn.models.{model}", "init_args": {"hidden_size": size, **options}},
            "data": {
                "class_path": "datamodules.PixelMNIST",
                "init_args": {"permute": True, "protocol": "nru" if model == "NRU" else "common"},
            },
            "trainer": {"max_epochs": 2},
        }
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "versions.json").write_text('{"commit": "0123456789"}')
        (run / "metrics.csv").write_text(f"step,train/loss_step,val/loss\n9,2.0,\n19,,{1 + seed}\n39,,0.5\n")
    return folder


def test_means_best_first_chance_and_published_stand_in_the_headline(made: Path, tmp_path: Path) -> None:
    """Test accuracies 0.91, 0.93, 0.92: mean 0.92, sample standard deviation 0.01."""
    files = written(made, tmp_path)
    text = files["RESULTS.md"].decode()
    table = [line for line in text.splitlines() if line.startswith("|")][:6]
    assert table[2].split(" | ")[0] == "| ExpRNN, n = 170, init cayley"
    assert r"0.920 ± 0.010, 3 seeds; published 0.949 \[secondary\]" in table[2]
    assert r"not tested, one seed; published 0.795 \[secondary\]" in table[3]
    assert table[4].startswith("| NRU, n = 212") and r"0.95, one seed; published 0.9538 \[unconfirmed\]" in table[4]
    assert table[5] == "| chance loss | 2.303 (accuracy 0.1) | 2.303 (accuracy 0.1) |"
    assert (
        "5 runs have ended, of 3 models on 1 task, beside the studies of [tracking](docs/results/tracking.md)" in text
    )
    assert "sample standard deviation over seeds. Of accuracy the higher is better. " in text
    assert "both stand on the [page of each paper](#every-published-figure).\n" in text and re.search(
        r"\d+ of 70 epochs", text
    )
    first = text[text.index("# Results") : text.index("| model |")]
    assert "**Ours is worse than 2 of the 2 published figures that it can stand beside:**" in first, "said first"
    theirs = r"published 0.949 \[secondary\] (Lezcano-Casado and Martínez-Rubio 2019)"
    assert f"ours 0.920 ± 0.010 (3 seeds), {theirs}: 0.029 worse." in first
    error = "standard error 0.0022 over 10,000 test images"  # the root of 0.95 times 0.05 over 10,000
    theirs = r"published 0.9538 \[unconfirmed\] (Chandar et al. 2019)"
    assert f"ours 0.95 (one seed; {error}), {theirs}: 0.0038 worse, within two standard errors." in first
    paper = files["docs/results/exprnn.md"].decode()
    assert "0.920 ± 0.010 (protocol common, 3 seeds, 16,415 parameters)" in paper
    first = paper[paper.index("# expRNN") : paper.index("| model |")]
    assert "Ours is worse than the one published figure" in first
    assert "Ours: permutation of seed 92916, trained on all images but 5,000, kept for validation, 2 epochs;" in first
    assert "Theirs: permutation of seed 92916, trained on all 60,000 images, batch 128, 70 epochs;" in first
    assert "Ours is" not in files["docs/results/dtriv.md"].decode(), "nothing stands beside it"
    curves = [re.findall(r"\((\w+-\d\.svg)\)", files[f"docs/results/{name}.md"].decode()) for name in pages.PAPERS]
    one, two = "permuted_pixel_mnist-1.svg", "permuted_pixel_mnist-2.svg"
    assert curves == [[one], [], [], [], [two], []], "only beside the figures that they belong to"
    assert "(docs/models/index.md)" in text and "(../models/index.md)" in files["docs/results/index.md"].decode()
    assert re.search(
        r"0\.9546 \\\[unconfirmed\\\] \| 0\.9 \(protocol nru, after the last epoch, one seed",
        files["docs/results/nru.md"].decode(),
    )


def test_what_came_of_a_model_stands_alone_on_the_page_of_models(made: Path, tmp_path: Path) -> None:
    """The same cell as in the headline; a model of a study alone has its link."""
    results = pages.read(made)
    page = pages.headline.page(results.comparisons, {"[Study](study.md)": {"ExpRNN", "CoRNN"}}, pages.NOTE)
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == sorted(headings, key=str.lower) and {"ExpRNN", "CoRNN"} <= set(headings)
    first = page.split("## ExpRNN\n\n")[1].split("\n## ")[0]
    assert "| n = 170, init cayley | test/accuracy | 0.920 ± 0.010, 3 seeds; published 0.949" in first
    assert "Also in [Study](study.md)." in first
    assert page.split("## CoRNN\n\n")[1].startswith("In [Study](study.md).")
    headline = pages.headline.headline(results.comparisons)
    cells = [cell for line in headline.splitlines()[2:-3] for cell in line.split(" | ")[1:] if line.startswith("|")]
    assert cells and all(cell.rstrip("| ") in page for cell in cells)


def test_what_differs_from_a_published_figure_is_judged_by_its_printed_digits(made: Path, tmp_path: Path) -> None:
    """Published are 0.949 (expRNN) and 0.9538 (NRU, unconfirmed)."""
    folder = shutil.copytree(made, tmp_path / "results")

    def told(nru: float, exprnn: tuple[float, ...] = (0.949,) * 3) -> str:
        for name, value in (("c-seed=1", nru), *((f"a-seed={seed}", exprnn[seed - 1]) for seed in (1, 2, 3))):
            path = folder / "mnist" / name / "test.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "value": value}))
        return differences.said_first(pages.read(folder).comparisons)

    assert told(0.95384, (0.9493, 0.9493, 0.9489)) == "", "the same, as printed"
    better = told(0.9539)
    assert "Ours is better than 1 of the 2 published figures" in better and ": 0.0001 better, within two st" in better
    both = told(0.9540, (0.94, 0.96, 0.94))  # 0.9467 ± 0.0115
    assert "Ours is worse than 1 and better than 1 of the 2 published figures" in both
    assert ": 0.0023 worse, within two standard deviations over seeds.\n" in both and both.index(
        "0.0023 worse"
    ) < both.index("0.0002 better")


def test_a_published_figure_counts_once_however_many_of_ours_stand_beside_it(made: Path, tmp_path: Path) -> None:
    """As where one run kept images for validation and another did not: one figure, two sentences."""
    folder = shutil.copytree(made / "mnist", tmp_path / "mnist")
    shutil.copytree(folder / "a-seed=1", folder / "d-seed=1")
    config = yaml.safe_load((folder / "d-seed=1" / "config.yaml").read_text())
    config["data"]["init_args"]["val_size"] = 1
    (folder / "d-seed=1" / "config.yaml").write_text(yaml.safe_dump(config))
    comparisons = pages.read(tmp_path).comparisons
    told = differences.said_first(comparisons)
    assert told.startswith("**Ours is worse than 2 of the 2 published figures") and told.count("\n- ") == 3
    told = differences.said_first(comparisons, ("Lezcano-Casado and Martínez-Rubio 2019",))
    assert told.startswith("**Ours is worse than the one published figure") and told.count("\n- ") == 2
    tables = r"0.920 ± 0.010 \(.*val\\_size 5,000, 3 seeds, .*\); 0.91 \(.*val\\_size 1, one seed"
    assert re.search(tables, pages.paper("exprnn", pages.read(tmp_path))), "one cell, two tables"


def test_chance_stands_in_the_unit_of_the_metric_where_it_follows(made: Path) -> None:
    """Of 1.0 nat: no share of equal classes; in bits 1 / ln 2. A variance may be any number."""
    one = replace(pages.read(made).comparisons[0], chance=1.0)
    assert [chance_told(replace(one, metric=metric)) for metric in ("accuracy", "bits_per_byte", "mse")] == [
        "1",
        "1 (1.443 bits)",
        "1",
    ]
    assert chance_told(replace(one, metric="mse", chance=1e6)) == "1.00e6"


def test_published_figures_stand_best_first(made: Path) -> None:
    """Within a metric and split; of bits the fewest first, and what did not converge last."""
    lines = [line.split(" | ") for line in pages.paper("others", pages.read(made)).splitlines() if " | test/" in line]
    spectrum = [line[4].split()[0] for line in lines if line[4].endswith(r"\[secondary\]") and line[3] == "test/mse"]
    assert spectrum[:2] == ["43.0", "45.7"] and spectrum[-2:] == ["59.6", "did"]
    bits = [float(line[4].split()[0]) for line in lines if line[3] == r"test/bits\_per\_character"]
    assert bits == sorted(bits) and len(bits) > 20
    text = pages.paper("others", pages.read(made))
    assert text.index("| test/mse | 14.45") < text.index("| val/mse | 14.41"), "what is tested before what chose it"


def test_whose_best_is_the_last_validation_is_told(made: Path, tmp_path: Path) -> None:
    """Of those that were tested; not the NRU, once its best comes before its end."""
    folder = shutil.copytree(made, tmp_path / "results")
    told = "Best at the last validation, so that more updates might do better: "
    first = "".join(map(pages.still_better, pages.read(folder).comparisons))
    assert first.count(told) == 2 and "better: c-seed=1." in first and "better: a." in first
    test = folder / "mnist" / "c-seed=1" / "test.json"
    test.write_text(test.read_text().replace('"steps": 40', '"steps": 20'))
    then = "".join(map(pages.still_better, pages.read(folder).comparisons))
    assert then.count(told) == 1 and "c-seed=1" not in then


def test_a_run_without_validation_is_told_apart(made: Path, tmp_path: Path) -> None:
    """Of all images but one: in a table of its own, its last weights tested, and no best checkpoint spoken of."""
    folder = shutil.copytree(made, tmp_path / "results")
    for name in ("a-seed=2", "a-seed=3", "b-seed=1", "c-seed=1"):
        shutil.rmtree(folder / "mnist" / name)
    run = shutil.copytree(folder / "mnist" / "a-seed=1", folder / "mnist" / "d-seed=1")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["init_args"]["val_size"] = 1
    config["trainer"]["limit_val_batches"] = 0
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    fit = json.loads((run / "fit.json").read_text())
    (run / "fit.json").write_text(json.dumps({**fit, "loss": None, "value": None}))
    comparisons = pages.read(folder).comparisons
    plain, all_images = "permuted\\_pixel\\_mnist (val\\_size 5,000)", "permuted\\_pixel\\_mnist (val\\_size 1)"
    assert f"| model | {plain}: test/accuracy | {all_images}: test/accuracy |" in pages.headline.headline(comparisons)
    said = differences.said_first(comparisons, pages.PAPERS["exprnn"][1])
    first, second = re.findall(r"on (permuted.*)", said)
    assert first.startswith(f"{plain}: ours 0.91") and "trained on all images but 5,000, kept for validation" in first
    assert first.partition(". Theirs")[0].endswith("read once, by the checkpoint that is best on validation")
    assert second.startswith(f"{all_images}: ours 0.91") and "trained on all images but 1, 2 epochs" in second
    assert second.partition(". Theirs")[0].endswith("read once, by the weights after the last epoch")
    late = "".join(map(pages.still_better, comparisons))
    assert "a-seed=1" in late and "d-seed=1" not in late


def test_seconds_are_told_with_the_machine(made: Path, tmp_path: Path) -> None:
    """One sentence for a table of one kind of machine; by run where one went on elsewhere, or another was elsewhere."""
    folder = shutil.copytree(made, tmp_path / "results")

    def kept(run: str, name: str, **versions: Any) -> None:
        (folder / "mnist" / run / name).write_text(json.dumps({"commit": "0123456789", **versions}))

    def told() -> str:
        return "".join(map(pages.clock, pages.read(folder).comparisons))

    for run in ("a-seed=1", "a-seed=2", "a-seed=3", "b-seed=1"):
        kept(run, "versions.json", devices=[], threads=2)
    assert "Seconds are wall clock, pauses included, measured on: CPU (2 threads).\n" in told()
    kept("b-seed=1", "versions.json", devices=["H200", "H200"], threads=2)
    kept("b-seed=1", "versions-2.json", devices=[], threads=1)
    assert "measured on: a: CPU (2 threads); b-seed=1: 2 x H200, then CPU (1 thread).\n" in told()
    kept("b-seed=1", "versions-3.json", devices=[], threads=1)  # on the same kind of machine
    assert "b-seed=1: 2 x H200, then CPU (1 thread).\n" in told()
    row = "| results/mnist/b-seed=1 | 1,234 | 2 x H200, then CPU (1 thread) | 0123456 |"
    assert row in pages.overview(pages.read(folder), "")


def test_of_several_rates_validation_chooses_and_the_window_is_told(tmp_path: Path) -> None:
    """Three rates: the best on validation (0.80) has 0.75 on the test set, where another has 0.90."""
    for name, rate, value, test in (("a", 0.1, 0.75, 0.90), ("b", 0.01, 0.80, 0.75), ("c", 0.001, 0.4, 0.4)):
        run = tmp_path / "results" / name
        run.mkdir(parents=True)
        numbers = {"model": "ExpRNN", "task": "permuted_pixel_mnist", "parameters": 16415, "steps": 40, "split": "val"}
        numbers |= {"loss": 0.5, "chance": 2.0, "metric": "accuracy", "seconds": 1.0}
        (run / "fit.json").write_text(json.dumps({**numbers, "value": value}))
        (run / "test.json").write_text(json.dumps({**numbers, "split": "test", "value": test}))
        options = {
            "hidden_size": 170,
            "init": "cayley",
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": rate}},
        }
        config = {
            "seed_everything": 1,
            "model": {"class_path": "lit_rnn.models.ExpRNN", "init_args": options},
            "data": {
                "class_path": "datamodules.PixelMNIST",
                "init_args": {"permute": True, "protocol": "common", "batch_size": 9},
            },
            "trainer": {"max_epochs": 2},
        }
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "versions.json").write_text('{"commit": "0123456789"}')
        (run / "metrics.csv").write_text(f"step,train/loss_step,val/loss\n9,2.0,\n19,,{rate + 0.9}\n39,,0.15\n")
    results = pages.read(tmp_path / "results")
    text = pages.texts(results)["RESULTS.md"]
    (row,) = [line for line in text.splitlines() if line.startswith("| ExpRNN, n = 170, init cayley |")]
    assert row.split(" | ")[1].removesuffix(" |") == (
        "0.75, one seed; best of 3 settings on validation; 2 of 3 learning rates within 10% of the best; "
        r"published 0.949 \[secondary\]"
    )
    (told,) = [line for line in text.splitlines() if line.startswith("- ExpRNN")]
    assert r"ours 0.75 (one seed; standard error 0.0043 over 10,000 test images), published 0.949 \[secondary\]" in told
    assert "All trained with batch 9, Adam at 0.001 or 0.01 or 0.1. The rates of parts" in text
    assert "No rate was searched" not in text
    assert "| ExpRNN | 170 | 16,415 | 3 from 0.001 to 0.1 | 0.01 | 0.8 | 2 of 3 |" in text
    # half of chance is 1.0, a tenth 0.2: of the losses at 20 updates 1.0 is not below 1.0, 0.91 and 0.901 are
    assert "| a | 40 | 40 |" in text and "| b | 20 | 40 |" in text and "| c | 20 | 40 |" in text
    assert "0.75 (one seed, 16,415 parameters, best of 3 settings on validation)" in pages.paper("exprnn", results)


def test_every_figure_has_its_status_on_every_page(made: Path, tmp_path: Path) -> None:
    from lit_rnn.published import published

    texts = "\n".join(content.decode() for name, content in written(made, tmp_path).items() if name.endswith(".md"))
    for one in published():
        value = str(one).removesuffix(f" [{one.status}]")
        assert f"{value} \\[{one.status}\\]" in texts, one


@pytest.mark.usefixtures("rendered")
def test_the_same_runs_give_the_same_bytes_and_another_number_other_ones(made: Path, tmp_path: Path) -> None:
    before = written(made, tmp_path / "1")
    assert before == written(made, tmp_path / "2")
    assert [name for name in before if name.endswith(".svg")] == [
        "docs/results/permuted_pixel_mnist-1.svg",
        "docs/results/permuted_pixel_mnist-2.svg",
    ]
    texts = pages.texts(pages.read(made))
    for name, old, new in (
        ("mnist/a-seed=3/metrics.csv", "19,,4", "19,,5"),
        ("mnist/a-seed=2/test.json", "0.93", "0.94"),
        ("mnist/b-seed=1/fit.json", "0.5", "0.25"),
        ("mnist/c-seed=1/fit.json", "16415", "16416"),
        ("mnist/a-seed=1/fit.json", "1234.5", "1334.5"),
        ("going/config.yaml", "max_epochs: 70", "max_epochs: 71"),
    ):
        copy = tmp_path / "changed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new))
        if name.endswith("metrics.csv"):
            assert written(copy, tmp_path / "2") != before, "the picture"
        else:
            assert pages.texts(pages.read(copy)) != texts, name


# ---- collecting


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_in_progress_goes_on_bit_for_bit_from_its_thin_form(
    config: Callable[..., str], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Three epochs in one go, and two that are collected and taken up again; nothing of this machine is in between."""
    path = config(trainer={"max_epochs": 3}, data={"init_args": {"val_samples": 16}})
    assert cli("fit", "-c", path, "--run_dir", "whole").status == 0
    run = tmp_path / "elsewhere" / "part"
    assert cli("fit", "-c", path, "--run_dir", run, "--trainer.max_epochs", "2").status == 0
    (run / "fit.json").unlink()  # as if it had been stopped there
    to = Path("results/copy/part")
    assert collect.main([str(run), str(to), "--commit", "abc"]) == 0
    names = {file.relative_to(to).as_posix() for file in to.rglob("*") if file.is_file()}
    assert names == {"config.yaml", "versions.json", "metrics.csv", "checkpoints/last.ckpt"}
    assert json.loads((to / "versions.json").read_text())["commit"] == "abc"
    assert (to / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    for file in (name for name in names if not name.endswith(".ckpt")):
        assert str(tmp_path) not in (to / file).read_text()
    kept = read_checkpoint(to / "checkpoints" / "last.ckpt")
    found: list[str] = []
    collect.changed(kept, lambda text: found.append(text) or text)
    assert not [text for text in found if str(tmp_path) in text]
    assert "results/copy/part/checkpoints/best.ckpt" in found

    shutil.rmtree(run)
    assert cli("fit", "--run_dir", to, "--ckpt_path", "last", "--trainer.max_epochs", "3").status == 0
    assert (to / "metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()
    ours, theirs = (read_checkpoint(Path(one) / "checkpoints" / "last.ckpt") for one in (to, "whole"))
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())

    assert collect.main([str(to), "results/copy/done", "--commit", "abc"]) == 0
    assert {file.name for file in Path("results/copy/done").iterdir()} == {
        "config.yaml",
        "versions.json",
        "versions-2.json",
        "metrics.csv",
        "fit.json",
    }


def finished(folder: Path, rows: int, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"# made by hand\n{yaml.safe_dump(config)}")
    (folder / "versions.json").write_text('{"commit": "abc"}')
    (folder / "fit.json").write_text(json.dumps({"seconds": 1.0, "steps": rows + 1}))
    lines = [f"0,{step},{step}.5," for step in range(rows)] + [f"0,{rows},,0.25"]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,train/loss_step,val/loss", *lines, ""]))
    return folder


def test_metrics_are_thinned_to_what_curves_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    collect.collect(finished(tmp_path / "r" / "a", 1000), Path("results/a"))
    with Path("results/a/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [*range(0, 1000, 5), 1000] and rows[-1]["val/loss"] == "0.25"
    collect.collect(finished(tmp_path / "r" / "b", 150), Path("results/a"))  # in place of what was there
    assert len(Path("results/a/metrics.csv").read_text().splitlines()) == 152


def test_paths_of_a_machine_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished(
        tmp_path / "r" / "a",
        1,
        run_dir="/far/runs/a",
        data={"root": "/far/data", "other": "../shared/text", "metric": "val/accuracy", "home": "~/x/y"},
        trainer={"callbacks": [{"dirpath": "/far/runs/a/checkpoints"}]},
        ckpt_path="/far/runs/a/checkpoints/last.ckpt",
    )
    collect.collect(run, Path("results/t/a"))
    text = Path("results/t/a/config.yaml").read_text()
    assert text.startswith("# made by hand\n")
    assert yaml.safe_load(text) == {
        "run_dir": "results/t/a",
        "data": {"root": "data", "other": "text", "metric": "val/accuracy", "home": "y"},
        "trainer": {"callbacks": [{"dirpath": "results/t/a/checkpoints"}]},
        "ckpt_path": None,
    }
    (run / "versions.json").write_text(json.dumps({"commit": "abc", "where": f"see {Path.home()}"}))
    with pytest.raises(UserError, match="path of this machine"):
        collect.collect(run, Path("results/t/b"))
    assert not Path("results/t/b").exists()


def test_files_of_ones_own_are_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text in two folders is one text; where it lay belongs to a machine."""
    monkeypatch.chdir(tmp_path)
    run = finished(tmp_path / "r", 20, data={"init_args": {"files": "data/text/shakespeare.txt", "val_files": None}})
    collect.collect(run, Path("results/a"))
    kept = yaml.safe_load(Path("results/a/config.yaml").read_text())["data"]["init_args"]
    assert kept == {"files": "shakespeare.txt", "val_files": None}


def test_what_cannot_be_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished(tmp_path / "r" / "a", 1)
    (run / "versions.json").write_text("{}")
    assert collect.main([str(run), "results/a"]) == 2, "no commit"
    assert collect.main([str(run), "results/a", "--commit", "abc"]) == 0
    for bad in (
        (str(tmp_path / "results" / "nowhere"), "results/b"),
        (str(run), str(tmp_path / "b")),
        (str(run), "../b"),
    ):
        assert collect.main([*bad, "--commit", "abc"]) == 2
    whole = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(whole[: whole.rindex("0,1,")])
    assert collect.main([str(run), "results/b", "--commit", "abc"]) == 2, "its last row is missing"
    (run / "metrics.csv").write_text(whole)
    (run / "fit.json").unlink()
    assert collect.main([str(run), "results/b", "--commit", "abc"]) == 2, "neither ended nor a checkpoint"
    assert not Path("results/b").exists()


def test_a_run_that_was_resumed_with_other_options_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More epochs, and another folder of the data, are no other options."""
    monkeypatch.chdir(tmp_path)
    began = {"model": {"init_args": {"lr": 0.1}}, "data": {"init_args": {"root": "a"}}, "trainer": {"max_epochs": 1}}
    run = finished(tmp_path / "r" / "a", 1, **began)
    again = {"model": {"init_args": {"lr": 0.1}}, "data": {"init_args": {"root": "b"}}, "trainer": {"max_epochs": 2}}
    (run / "config-2.yaml").write_text(yaml.safe_dump(again))
    assert collect.main([str(run), "results/a"]) == 0
    (run / "config-3.yaml").write_text(yaml.safe_dump({**again, "model": {"init_args": {"lr": 0.01}}}))
    assert collect.main([str(run), "results/b"]) == 2
    assert "a began with model.init_args.lr 0.1 and was resumed with another" in capsys.readouterr().err
    assert not Path("results/b").exists()


def test_what_is_committed_holds_no_path_of_a_machine() -> None:
    for path in (ROOT / "results").rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv"):
            assert not re.search(r"(^|[\s\"'])(/|~/|\.\./)\w", path.read_text()), path
        elif path.suffix == ".ckpt":
            collect.changed(read_checkpoint(path), collect._refuse_place)
        assert path.suffix != ".ckpt" or not (path.parents[1] / "fit.json").exists(), "weights of a finished run"
