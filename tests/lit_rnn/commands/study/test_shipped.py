"""The studies that come with lit_rnn: their sizes and budgets are those that their files tell."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from datamodules import Adding, CopyMemory, Denoise, Task
from lit_rnn import models
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.study import estimate
from lit_rnn.commands.study.subject import read_study, resolved
from lit_rnn.models.base import count_parameters

LETTERS = dataclasses.replace(  # as many as Tiny Shakespeare has
    CopyMemory(delay=3).task, name="text", input_size=65, targets="next_symbol", target_size=65, scored="all"
)


CAMPAIGN = {  # of each file of configs/campaign/: settings, runs, and the updates or epochs of a run
    "pixel_mnist": (8, 8, {(0, 70)}),
    "pixel_mnist_all_images": (4, 4, {(0, 70)}),
    "pixel_mnist_rates": (24, 24, {(0, 3)}),
    "copying_1000": (16, 16, {(4000, 0)}),
    "copying_1000_rates": (24, 24, {(4000, 0)}),
    "copying_2000": (16, 16, {(4000, 0)}),
    "adding_200": (16, 16, {(20_000, 0)}),
    "adding_400": (16, 16, {(20_000, 0)}),
    "adding_750": (16, 16, {(20_000, 0)}),
    "nru": (60, 60, {(20_000, 0)}),
    "nru_rates": (20, 20, {(20_000, 0)}),
    "nonnormal": (124, 124, {(18_750, 0), (0, 5)}),
    "tiny_shakespeare": (13, 13, {(0, 4)}),
    "tiny_shakespeare_rates": (24, 24, {(0, 1)}),
    "robustness_digits": (13, 52, {(0, 30)}),
    "robustness_mnist": (13, 52, {(0, 5)}),
    "robustness_permuted_mnist": (13, 52, {(0, 5)}),
}


@pytest.mark.parametrize("name", CAMPAIGN)
def test_the_campaign(name: str) -> None:
    """Sizes and budgets as the files tell them; some arms are read as `fit` reads them."""
    plan = read_study(f"campaign/{name}.yaml")
    settings, runs, amounts = CAMPAIGN[name]
    assert (len(plan.settings), len(plan.runs)) == (settings, runs)
    assert all(Path(base).is_file() for setting in plan.settings for base in setting.bases)
    some = plan.settings[:: -(-len(plan.settings) // 5)]
    assert {estimate._told(resolved(setting)) for setting in some} == amounts


@pytest.mark.parametrize(
    ("name", "arm", "task", "parameters"),
    [  # those whose size is ours, with what the file says of it
        ("copying_1000", "rnn_orthogonal", CopyMemory(delay=1000, protocol="exprnn").task, 21_951),
        ("copying_1000", "rnn_chain", CopyMemory(delay=1000, protocol="exprnn").task, 21_813),
        ("adding_200", "nru", Adding(length=200).task, 15_000),
        ("nru", "copying_100-eurnn", CopyMemory(delay=100).task, 23_455),
        ("nru", "denoising_200-goru", Denoise(delay=200).task, 23_430),
        *(("tiny_shakespeare", arm, LETTERS, 1_300_000) for arm in ("gru", "janet", "eurnn")),
    ],
)
def test_the_sizes_of_the_campaign_that_are_ours(name: str, arm: str, task: Task, parameters: int) -> None:
    setting = next(one for one in read_study(f"campaign/{name}.yaml").settings if one.arm == arm)
    config = resolved(setting)["model"]
    model = getattr(models, config["class_path"].rpartition(".")[2])(task=task, **config["init_args"])
    exact = parameters % 1000 != 0
    assert count_parameters(model) == pytest.approx(parameters, rel=0 if exact else 0.03)
    model.configure_optimizers()


def test_the_campaign_is_whole() -> None:
    """Those of who tracks and stores have `test_tracking_campaign`."""
    files = {path.stem for path in (config_folder() / "campaign").glob("*.yaml")}
    assert {name for name in files if not name.startswith("tracking_")} == CAMPAIGN.keys()


@pytest.mark.parametrize("path", sorted((config_folder() / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies(path: Path) -> None:
    plan = read_study(f"studies/{path.name}")
    published = {"chain": 462, "fbchain": 462, "identity": 594, "orthogonal": 594}
    if path.stem.startswith("nonnormal"):
        assert {arm: sum(run.setting.arm == arm for run in plan.runs) for arm in published} == published
    if path.stem == "nru_ablation_psmnist":  # one axis at a time through the released point
        assert len(plan.runs) == 1 + 3 + 3 + 2 + 1
    for setting in plan.settings[:: max(1, len(plan.settings) // 4)]:
        model = resolved(setting)["model"]["class_path"]
        expected = "NRU" if path.stem.startswith("nru") else "VanillaRNN"
        assert model.endswith(expected) or path.stem.startswith("robustness") or path.stem.endswith("lengths"), model
