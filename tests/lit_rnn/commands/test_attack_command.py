"""``attack`` from checkpoint to report: numbers against closed forms, warnings, many runs in one table, bad input."""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from datamodules import Adding, CopyMemory, Parity, PixelDigits, SequenceDataModule
from datamodules.pixels import PixelDataModule
from lit_rnn.class_paths import class_path
from lit_rnn.commands.attack.many.findings import short
from lit_rnn.commands.attack.many.measure import correlations, half_size, over_seeds, shown_sizes
from lit_rnn.commands.attack.many.page import table_of
from lit_rnn.commands.attack.many.subject import setting_of
from lit_rnn.commands.attack.measure import Outcome, halving
from lit_rnn.commands.attack.pictures import image_of
from lit_rnn.commands.attack.work import as_asked
from lit_rnn.models import LSTM, SequenceModel, VanillaRNN
from lit_rnn.robustness import AttackResult, Examples
from lit_rnn.robustness.certified import Certificate, Smoothing, certificates, soundness
from lit_rnn.robustness.worst import interval
from tests.pictures import checked

DIGITS = {"pixels_per_step": 8}
ADDING = {"length": 6, "test_samples": 60, "val_samples": 8, "train_samples": 8, "batch_size": 8, "seed": 3}
COPYING = {**ADDING, "delay": 4, "symbols": 2, "alphabet": 3}
COPYING.pop("length")
QUICK = ["--steps", 8, "--queries", 12, "--draws", 4, "--smoothing_samples", 2, "--smoothing_draws", 60, "--threads", 1]


def keep(model: SequenceModel, folder: Path, data: type[SequenceDataModule], options: dict[str, Any]) -> Path:
    """A run folder as ``fit`` leaves it, as far as ``attack`` looks at it."""
    (folder / "checkpoints").mkdir(parents=True)
    made = {"class_path": class_path(type(model)), "optimizer_steps": 7}
    kept = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "lit_rnn": made}
    torch.save(kept, folder / "checkpoints" / "best.ckpt")
    config = {"data": {"class_path": class_path(data), "init_args": options}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fit.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def trained() -> SequenceModel:
    """A contracting network that reads digits row by row, most of them right."""
    torch.manual_seed(0)
    data = PixelDigits(**DIGITS)
    model = VanillaRNN(data.task, 32, recurrent_constraint="spectral_norm", constraint_bound=0.7)
    x, y = data.split("train")[np.arange(1257)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


@pytest.fixture
def digits(trained: SequenceModel, tmp_path: Path) -> Path:
    return keep(trained, tmp_path / "run", PixelDigits, DIGITS)


def numbers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "attack" / "attack.json").read_text())


# ---- a whole report


def test_a_report(cli: Any, digits: Path, trained: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = checked(monkeypatch)
    before = (digits / "checkpoints" / "best.ckpt").read_bytes()
    done = cli("attack", "--run_dir", digits, "--samples", 60, "--eps", "8/255", 0.3, 1, "--norms", "inf", "2", *QUICK)
    assert done.status == 0 and done.err == "", done.err
    assert (digits / "checkpoints" / "best.ckpt").read_bytes() == before
    made = {path.relative_to(digits / "attack").as_posix() for path in (digits / "attack").rglob("*.*")}
    pictures = {f"pictures/{name}.png" for name in ("accuracy", "inputs", "time", "spectrum")}
    assert made == {"attack.json", "attack.html", "examples.csv", *pictures}
    page = (digits / "attack" / "attack.html").read_text()
    assert drawn() == 4
    assert page.count("data:image/png;base64,") == 4 and "http" not in page and "<script" not in page
    found = numbers(digits)
    assert found["split"] == "test" and found["samples"] == 60 and found["bounds"] == [0.0, 1.0]
    # the clean accuracy is the model's
    data = PixelDigits(**DIGITS)
    chosen = np.sort(np.random.default_rng(0).choice(360, 60, replace=False))
    x, y = data.split("test")[chosen]
    with torch.no_grad():
        right = (trained(x).argmax(1) == y).double().mean().item()
    assert found["clean"]["accuracy"] == pytest.approx(right) and right > 0.8
    # every number has its threat model, and the worst case is at most every attack
    worst = {(w["norm"], w["eps"]): w for w in found["worst_case"]}
    assert len(worst) == 6
    for result in found["results"]:
        assert result["low"] <= result["accuracy"] <= result["high"] and result["examples"] == 60
        assert "untargeted" in result["threat"] and result["settings"]["seed"] == 0
        if (result["norm"], result["eps"]) in worst and result["kind"] != "noise":
            assert worst[result["norm"], result["eps"]]["accuracy"] <= result["accuracy"]
    sizes = sorted({result["eps"] for result in found["results"] if result["attack"] == "pgd"})
    assert sizes == [8 / 255, 0.3, 1.0]
    assert worst["inf", 1.0]["accuracy"] == 0 and worst["2", 8 / 255]["accuracy"] > 0.8
    # a row per example: the smallest size that fools it, in both norms
    with (digits / "attack" / "examples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == chosen.tolist()
    for norm in ("inf", "2"):
        for eps in sizes:
            fooled = np.mean([row[f"eps_{norm}"] != "" and float(row[f"eps_{norm}"]) <= eps for row in rows])
            assert 1 - fooled == pytest.approx(worst[norm, eps]["accuracy"])
    # certificates: they say something here, and hold
    certified = {c["name"]: c["accuracy"] for c in found["certificates"]}
    assert set(certified) == {"lipschitz", "smoothing", "interval"}
    assert certified["lipschitz"][0]["accuracy"] > 0.3 and certified["interval"][0]["accuracy"] >= 0
    for name, norm in (("lipschitz", "2"), ("interval", "inf")):
        for at in certified[name]:
            assert at["accuracy"] <= worst[norm, at["eps"]]["accuracy"]
    checks = {check["name"]: check for check in found["checks"]}
    assert len(checks) == 15 and checks["no attack beats a certificate"]["passed"] is True
    assert checks["unbounded attack succeeds"]["passed"] is True
    W = trained.cell_list()[0].recurrent_matrices()["recurrent"].detach()
    spectral = found["matrices"]["recurrent"]
    assert spectral["spectral_norm"] == pytest.approx(0.7, rel=1e-5)
    assert spectral["spectral_radius"] == pytest.approx(float(torch.linalg.eigvals(W).abs().max()), rel=1e-4)
    for words in (
        "VanillaRNN on pixel_digits_by_8",
        "worst case",
        "certified lipschitz",
        "first 2 only *",
        "spectral radius",
    ):
        assert words in done.out, words
    # and it is not overwritten
    done = cli("attack", "--run_dir", digits, *QUICK)
    assert done.status == 2 and "already holds a report" in done.err


def test_a_linear_network_is_known_exactly(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding, f the identity: the largest change inside ball, box and mask in closed form, example by example."""
    data = Adding(**ADDING)
    torch.manual_seed(2)
    model = VanillaRNN(data.task, 3, nonlinearity="identity")
    with torch.no_grad():
        model.decoder.bias.fill_(0.5)
    keep(model, tmp_path / "run", Adding, ADDING)
    checked(monkeypatch)
    eps, tolerance = (0.1, 0.4), 0.6
    done = cli("attack", "--run_dir", "run", "--samples", 60, "--eps", *eps, "--tolerance", tolerance, *QUICK)
    assert done.status == 0, done.err
    x, y = data.split("test")[np.arange(60)]
    cell = model.cell_list()[0]
    W, V, D = (t.detach().double().numpy() for t in (cell.weights(), cell.input.weight, model.decoder.weight))
    w = np.stack([(D @ np.linalg.matrix_power(W, 5 - t) @ V)[0, 0] for t in range(6)])
    with torch.no_grad():
        error = (model(x) - y).double().numpy()[:, 0]
    values, free = x[..., 0].double().numpy(), x[..., 1].numpy() == 0
    found = {at["eps"]: at["accuracy"] for at in numbers(tmp_path / "run")["worst_case"]}
    expected = {}
    for size in eps:
        moves = [w * (np.clip(values + s * size, 0, 1) - values) for s in (1, -1)]
        up, down = (free * np.maximum(*moves)).sum(1), (free * np.minimum(*moves)).sum(1)
        expected[size] = float(((error + up <= tolerance) & (error + down >= -tolerance)).mean())
    assert found == pytest.approx(expected) and 0 < expected[0.4] < expected[0.1] < 1
    assert numbers(tmp_path / "run")["share_that_may_be_changed"] == pytest.approx(4 / 12)


@pytest.mark.parametrize("mode", [None, "embedding"])
def test_symbols_by_swaps_and_in_embedding_space(
    cli: Any, tmp_path: Path, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    drawn = checked(monkeypatch)
    keep(LSTM(CopyMemory(**COPYING).task, 6), tmp_path / "run", CopyMemory, COPYING)
    done = cli("attack", "--run_dir", "run", "--samples", 12, *QUICK, *(["--symbols", mode] if mode else []))
    assert done.status == 0 and done.err == "", done.err
    assert ("one-hot vectors are moved" if mode else "attacked by swaps") in done.out.replace("\n", " ")
    found = numbers(tmp_path / "run")
    assert {w["norm"] for w in found["worst_case"]} == ({"2"} if mode else {"swaps"})
    assert found["certificates"] == [] and found["bounds"] is None
    page = (tmp_path / "run" / "attack" / "attack.html").read_text()
    assert ("embedding space" if mode else "swaps") in page and drawn() == 4


def test_a_saturated_network_warns_and_falls_to_the_margin(cli: Any, trained: SequenceModel, tmp_path: Path) -> None:
    """Logits a hundred thousand times as large: the same predictions, and cross-entropy without any gradient."""
    model = VanillaRNN(trained.task, 32, recurrent_constraint="spectral_norm", constraint_bound=0.7)
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        model.decoder.weight.mul_(1e5), model.decoder.bias.mul_(1e5)
    keep(model, tmp_path / "run", PixelDigits, DIGITS)
    attacks = ("fgsm", "pgd", "pgd_margin")
    done = cli("attack", "--run_dir", "run", "--samples", 40, "--eps", 0.3, "--attacks", *attacks, *QUICK)
    assert done.status == 0, done.err
    found = numbers(tmp_path / "run")
    rates = {result["attack"]: result["accuracy"] for result in found["results"]}
    assert rates["fgsm"] == found["clean"]["accuracy"] > 0.8 and rates["pgd_margin"] < 0.2 < rates["pgd"]
    assert "check failed, no gradient masking" in done.out and "attack with margin" in done.out.replace("\n", " ")
    assert min(found["zero_gradients"]["cross_entropy"]) > 0.8 and max(found["zero_gradients"]["margin"]) < 0.1


def test_a_real_run_is_attacked_by_its_folder_alone(cli: Any, config: Any) -> None:
    """The config that ``fit`` writes holds all that ``attack`` needs; the checkpoint's path does as well."""
    data = {"class_path": "PixelDigits", "init_args": {"pixels_per_step": 16, "permute": True}}
    limits = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    made = config(model={"class_path": "GRU", "init_args": {"hidden_size": 4}}, data=data, trainer=limits)
    assert cli("fit", "-c", made, "--run_dir", "run").status == 0
    options = ["--samples", 6, "--eps", 0.1, "--attacks", "pgd", *QUICK]
    done = cli("attack", "--run_dir", "run", *options)
    assert done.status == 0 and done.err == "", done.err
    found = numbers(Path("run"))
    assert found["task"] == "permuted_pixel_digits_by_16" and found["optimizer_steps"] == 2
    assert set(found["matrices"]) == {"reset", "update", "candidate"}
    again = cli("attack", "--ckpt_path", "run/checkpoints/last.ckpt", "--out", "elsewhere", *options)
    assert again.status == 0 and Path("elsewhere/attack.html").is_file()
    assert numbers(Path("run"))["results"][0]["accuracy"] == found["results"][0]["accuracy"]


# ---- parts of it


def test_options_of_the_data_are_told_apart() -> None:
    options = argparse.Namespace(seed=0, steps=5, data="PixelDigits", out=None)
    assert as_asked(options, {"seed": 1}) == {"seed": 0, "steps": 5, "data_options": {"seed": 1}}
    assert as_asked(options, {}) == {"seed": 0, "steps": 5}, "as reports of before have it"


def test_the_interval_is_clopper_pearson() -> None:
    low, high = interval(np.zeros(50, dtype=bool))
    assert low == pytest.approx(0.025 ** (1 / 50)) and high == 1
    low, high = interval(np.arange(20) < 5)  # 15 of 20: the tails of the binomial are 2.5 % at either end
    from scipy.stats import binom

    assert binom.sf(14, 20, low) == pytest.approx(0.025) and binom.cdf(15, 20, high) == pytest.approx(0.025)


def test_what_is_shown_is_the_size_that_halves_the_accuracy() -> None:
    """Of 8 examples 2 are wrong before: half is 5. Where nothing comes so far the largest size shows most."""

    def result(eps: float, fooled: int) -> AttackResult:
        return AttackResult("pgd", "iterative", 2.0, eps, np.arange(8) < fooled, np.zeros(8))

    clean = result(0.0, 2)
    for fooled, expected in (((2, 5, 8), 2.0), ((2, 2, 2), 3.0), ((2, 3, 3), 3.0), ((7, 7, 7), 1.0)):
        table = [result(float(eps), some) for eps, some in enumerate(fooled, 1)]
        assert halving(table, clean).eps == expected, fooled


def test_a_larger_ball_is_never_safer() -> None:
    """What fooled an example at a smaller size, or without an attack, is allowed at a larger one too."""

    def result(eps: float, *fooled: int, attack: str = "swaps", norm: float | str = "swaps") -> AttackResult:
        return AttackResult(attack, "gradient_free", norm, eps, np.isin(np.arange(6), fooled), np.zeros(6))

    results = [result(1.0, 1, 3), result(4.0, 2), result(2.0, 4, attack="random_swaps"), result(1.0, 5, norm=2.0)]
    found = SimpleNamespace(results=results, harder=[result(2.0, 0)], clean=result(0.0, 1))
    worst = Outcome.worst(found, "swaps")  # type: ignore[arg-type]
    assert [(w.eps, np.flatnonzero(w.fooled).tolist()) for w in worst] == [
        (1.0, [1, 3]),
        (2.0, [0, 1, 3, 4]),
        (4.0, [0, 1, 2, 3, 4]),
    ]
    assert worst[1].attacks == ["swaps", "random_swaps"]


def test_a_beaten_certificate_is_told() -> None:
    holds = {0.1: np.array([True, False]), 0.2: np.array([False, False])}
    certificate = Certificate("lipschitz", 2.0, "", holds)

    def check(eps: float, norm: float, fooled: list[bool], of_model: bool = True) -> bool | None:
        result = AttackResult("pgd", "iterative", norm, eps, np.array(fooled), np.zeros(2))
        return soundness([Certificate("lipschitz", 2.0, "", holds, of_model)], [result]).passed

    assert check(0.1, 2.0, [False, True]) is True
    assert check(0.1, 2.0, [True, False]) is False
    assert check(0.2, 2.0, [True, True]) is True
    assert check(0.1, math.inf, [True, True]) is None, "another ball"
    assert check(0.1, 2.0, [True, True], of_model=False) is None
    assert (
        "pgd fools 1 examples"
        in soundness(
            [certificate], [AttackResult("pgd", "iterative", 2.0, 0.1, np.array([True, True]), np.zeros(2))]
        ).sentence
    )


@pytest.mark.parametrize("pixels", [1, 4])
def test_images_are_shown_as_they_were(pixels: int) -> None:
    plain = PixelDigits()
    permuted: PixelDataModule = PixelDigits(permute=True, pixels_per_step=pixels)
    x, z = plain.split("val")[np.arange(3)][0], permuted.split("val")[np.arange(3)][0]
    for k in range(3):
        np.testing.assert_array_equal(image_of(permuted, z[k])[..., 0], x[k].view(8, 8).numpy())


def test_smoothing_is_drawn_by_the_seed() -> None:
    torch.manual_seed(0)
    model, x = VanillaRNN(PixelDigits(**DIGITS).task, 8), torch.rand(40, 8, 8)
    examples = Examples(model, x, model(x).argmax(1), torch.ones_like(x).bool(), (0.0, 1.0))

    def holds(seed: int) -> list[float]:
        sizes = {2.0: np.linspace(0, 0.1, 40).tolist()}
        *_, smoothed = certificates(model, examples, sizes, Smoothing(0.1, 30, 40, seed))
        return [float(some.mean()) for some in smoothed.holds.values()]

    assert holds(1) == holds(1) != holds(2)


def test_where_half_of_the_accuracy_is_lost() -> None:
    worst = [{"norm": "2", "eps": eps, "accuracy": a} for eps, a in ((0.5, 0.8), (1.0, 0.2), (2.0, 0.0))]
    report = {"clean": {"accuracy": 0.9}, "worst_case": [{"norm": "inf", "eps": 0.1, "accuracy": 0.7}, *worst]}
    assert half_size(report, "2") == pytest.approx(0.5 + 0.5 * 0.35 / 0.6)
    assert half_size(report, "inf") is None
    report["clean"]["accuracy"] = 0.0
    assert half_size(report, "2") is None


def test_means_spreads_and_rank_correlations() -> None:
    rows = [
        {"task": "t", "setting": "a", "model": "A", "clean": 0.9, "half_2": 1.0, "spectral_norm": 3.0},
        {"task": "t", "setting": "a", "model": "A", "clean": 0.7, "half_2": 2.0, "spectral_norm": 2.0},
        {"task": "t", "setting": "b", "model": "B", "clean": 0.8, "half_2": 3.0, "spectral_norm": 1.0},
        {"task": "t", "setting": "b", "model": "B", "clean": 0.8, "half_2": 4.0, "spectral_norm": 0.5},
    ]
    first, second = over_seeds(rows)
    assert first["clean"] == pytest.approx(0.8) and first["clean_std"] == pytest.approx(0.1 * math.sqrt(2))
    assert (first["runs"], second["half_2"], second["clean_std"]) == (2, 3.5, 0)
    (beyond,) = over_seeds([rows[0], {**rows[1], "half_2": None}])  # the mean of those that fell is no mean of both
    assert (beyond["half_2"], beyond["half_2_std"], beyond["half_2_number"]) == (1.0, None, 1)
    assert table_of([beyond], ["clean", "half_2"]).rows == [["a", 2, "80.0 ± 14.1", "1 (1 of 2)"]]
    (nothing,) = over_seeds([{**rows[0], "clean": 0.0, "half_2": None}])  # right: no half of it, at any size
    assert [table_of([some], ["half_2"]).rows[0][-1] for some in (nothing, {**nothing, "clean": 0.9})] == ["", "beyond"]
    ((half, key, rank, p, count),) = correlations(rows)
    assert (half, key, rank, count) == ("half_2", "spectral_norm", -1.0, 4) and p == 0
    # one that never falls has the highest rank, here against the trend: 1 - 6 (9 + 1 + 1 + 9 + 0) / 120
    ((*_, rank, _, count),) = correlations([*rows, {**rows[0], "half_2": None, "spectral_norm": 4.0}])
    assert (rank, count) == (pytest.approx(0.0), 5)
    ((*_, rank, _, count),) = correlations([*rows, {**rows[0], "clean": 0.0, "half_2": None, "spectral_norm": 4.0}])
    assert (rank, count) == (-1.0, 4)
    assert short("gru-recurrent_constraint=none-lr=0.1") == "gru, none, 0.1"
    assert setting_of(Path("x/a-lr=0.1-seed=2")) == ("a-lr=0.1", "2") and setting_of(Path("mine")) == ("mine", "")


def test_the_sizes_shown_are_those_around_one_half() -> None:
    rows = [
        {"worst_inf_0.1": 0.9, "worst_inf_0.2": 0.7, "worst_inf_0.3": 0.2, "worst_2_1": 0.4, "worst_2_9": 0.0},
        {"worst_inf_0.1": 0.9, "worst_inf_0.2": 0.5, "worst_inf_0.3": 0.1, "worst_2_1": 0.4, "worst_inf_0.4": 0.0},
    ]
    assert shown_sizes(rows) == (["worst_inf_0.2", "worst_inf_0.3", "worst_2_1"], ["worst_inf_0.3", "worst_2_1"])


# ---- many runs


def test_a_study(cli: Any, trained: SequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    other = LSTM(trained.task, 5)
    for name, model in (("a-seed=1", trained), ("a-seed=2", trained), ("b-seed=1", other)):
        keep(model, tmp_path / "s" / name, PixelDigits, DIGITS)
    options = ["--samples", 20, "--eps", 0.1, 0.5, "--attacks", "pgd", *QUICK]
    assert cli("attack", "--run_dir", "s/a-seed=1", *options).status == 0
    stamp = (tmp_path / "s/a-seed=1/attack/attack.json").stat().st_mtime_ns
    done = cli("attack", "--study", "s", *options)
    assert done.status == 0 and done.err == "", done.err
    assert "3 runs, 1 with a report, 2 to go" in done.out
    assert (tmp_path / "s/a-seed=1/attack/attack.json").stat().st_mtime_ns == stamp, "what is there is kept"
    for name in ("json", "csv", "html"):
        assert (tmp_path / "s" / f"attack_study.{name}").is_file()
    assert (tmp_path / "s" / "attack_study_pixel_digits_by_8.png").is_file()
    kept = json.loads((tmp_path / "s/attack_study.json").read_text())
    assert [(s["setting"], s["runs"]) for s in kept["settings"]] == [("a", 2), ("b", 1)]
    single = numbers(tmp_path / "s/a-seed=1")
    assert kept["settings"][0]["clean"] == single["clean"]["accuracy"] and kept["settings"][0]["clean_std"] == 0
    assert kept["runs"][0]["worst_inf_0.1"] == single["worst_case"][0]["accuracy"]
    assert kept["runs"][2]["spectral_norm"] == max(
        float(torch.linalg.matrix_norm(W.detach().double(), ord=2))
        for W in other.cell_list()[0].recurrent_matrices().values()
    )
    # other options would be compared with these
    done = cli("attack", "--study", "s", *options, "--seed", 1)
    assert done.status == 2 and "made with seed 0, not 1" in done.err
    shutil.move(tmp_path / "s/b-seed=1", tmp_path / "s/gru-recurrent_constraint=spectral_radius-seed=1")
    shutil.rmtree(tmp_path / "s/a-seed=2")
    drawn = checked(monkeypatch)
    done = cli("attack", "--study", "s", *options)
    assert done.status == 0 and "2 runs, 2 with a report, 0 to go" in done.out and drawn() == 1
    # a run that cannot be attacked, or is under way, keeps none from the table
    shutil.rmtree(tmp_path / "s/a-seed=1/attack")
    (tmp_path / "s/a-seed=1/checkpoints/best.ckpt").write_bytes(b"PK")
    (tmp_path / "s/going").mkdir()
    (tmp_path / "s/going/config.yaml").write_text("data: {}")
    done = cli("attack", "--study", "s", *options)
    assert done.status == 2 and "1 of 2 runs could not be attacked, and are left out. s/a-seed=1: " in done.err
    assert "left out, not finished: s/going" in done.out
    assert len(json.loads((tmp_path / "s/attack_study.json").read_text())["runs"]) == 1


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["ckpt_path is not given", "--run_dir"]),
        (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt", "no such file"]),
        (["--ckpt_path", "best"], ["ckpt_path is best", "run's folder is not given"]),
        (["--run_dir", "nowhere"], ["nowhere", "holds no checkpoint"]),
        (["--run_dir", "run", "--eps", 1.5], ["eps", "1.5", "the width of the data's range"]),
        (["--run_dir", "run", "--eps", -0.1], ["eps is -0.1"]),
        (["--run_dir", "run", "--eps", "much"], ["--eps", "much"]),
        (["--run_dir", "run", "--eps", 0.1, "--bounds", 0, 0.5], ["--bounds", "holds the inputs"]),
        (["--run_dir", "run", "--attacks", "noise", "--bounds", 0, 0.5], ["--bounds", "holds the inputs"]),
        (["--run_dir", "run", "--norms", "1"], ["--norms", "inf or 2"]),
        (["--run_dir", "run", "--attacks", "dgp"], ["--attacks", "dgp", "pgd"]),
        (["--run_dir", "run", "--attacks", "swaps"], ["swaps", "the inputs are values", "pgd"]),
        (["--run_dir", "run", "--attacks", "pgd_over"], ["pgd_over", "needs numbers"]),
        (["--run_dir", "run", "--symbols", "swaps"], ["--symbols", "are values"]),
        (["--run_dir", "run", "--tolerance", 0.1], ["--tolerance", "has classes"]),
        (["--run_dir", "run", "--samples", 100_000], ["--samples", "360"]),
        (["--run_dir", "run", "--steps", 0], ["steps", "at least 1"]),
        (["--run_dir", "run", "--stepz", 3], ["--stepz", "--help"]),
        (["--run_dir", "run", "--split", "dev"], ["--split", "test"]),
        (["--run_dir", "run", "--device", "abacus"], ["--device", "abacus"]),
        (["--run_dir", "run", "--out", "run/config.yaml/x"], ["--out", "writable"]),
        (["--run_dir", "run", "--data", "PixelDigit"], ["--data", "PixelDigits"]),
        (["--run_dir", "run", "--data", "Adding"], ["data gives adding", "trained on pixel_digits_by_8"]),
        (["--run_dir", "run", "--data.init_args.pixels_per_step", 4], ["pixel_digits_by_4", "pixel_digits_by_8"]),
        (["--run_dir", "run", "--data.init_args.permute", "true"], ["permuted_pixel_digits_by_8"]),
        (["--run_dir", "run", "--data.init_args.pixel_per_step", 4], ["pixel_per_step", "pixels_per_step"]),
        (["--run_dir", "run", "--data.init_args.seed"], ["--data.init_args.seed needs a value"]),
        (["--run_dir", "run", "--config", "nowhere.yaml"], ["--config", "nowhere.yaml"]),
        (["--run_dir", "copy", "--attacks", "pgd"], ["pgd", "symbols", "--symbols embedding"]),
        (["--run_dir", "copy", "--eps", 0.5], ["whole number of swaps"]),
        (["--run_dir", "copy", "--bounds", 0, 1], ["--bounds", "symbols"]),
        (["--ckpt_path", "alone.ckpt"], ["is not in a run folder", "--data"]),
        (["--study", "nowhere"], ["nowhere", "no finished run"]),
        (["--study", "run", "--run_dir", "run"], ["--run_dir", "--study"]),
    ],
)
def test_bad_input_is_one_sentence(
    refused: Any, digits: Path, tmp_path: Path, arguments: list[Any], words: list[str]
) -> None:
    keep(LSTM(CopyMemory(**COPYING).task, 4), tmp_path / "copy", CopyMemory, COPYING)
    shutil.copy(digits / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    sentence = refused("attack", *arguments)
    assert all(word in sentence for word in words), sentence


def test_where_nothing_may_change_there_is_nothing_to_attack(cli: Any, tmp_path: Path) -> None:
    options = {**ADDING, "length": 5, "val_lengths": None}
    folder = keep(LSTM(Parity(**options).task, 3), tmp_path / "run", Parity, options)
    done = cli("attack", "--run_dir", folder, *QUICK)
    assert (
        done.status == 2 and done.err.startswith("lit_rnn: parity has nothing to attack") and done.err.count("\n") == 1
    )
    assert not (folder / "attack").exists()


def test_help_names_the_command(cli: Any) -> None:
    assert "attack" in cli("--help").out
    with pytest.raises(SystemExit) as left:
        cli("attack", "--help")
    assert left.value.code == 0
