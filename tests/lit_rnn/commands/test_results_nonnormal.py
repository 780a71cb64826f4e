"""The figures of the non-normal paper that need no training: what is committed, against closed forms."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from datamodules import Adding
from lit_rnn import analysis
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.study import estimate
from lit_rnn.commands.study.subject import read_study, resolved
from lit_rnn.files import read_json
from lit_rnn.report import style

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import nonnormal  # noqa: E402


@pytest.fixture
def found() -> dict[str, Any]:
    return read_json(ROOT / "results" / "nonnormal" / "memory.json")


def test_fisher_memory_is_that_of_the_closed_form(found: dict[str, Any]) -> None:
    """A chain: a^2k over the sum of a^2m up to k, 1 / (k + 1) at a = 1; a normal network: (1 - l^2) l^2k, 1 in all."""
    fisher = found["fisher"]
    assert fisher.keys() == {one.name for one in nonnormal.FISHER}
    lags = np.arange(100)
    assert fisher["chain, α = 1"]["curve"] == pytest.approx(1 / (lags + 1), rel=1e-5)
    assert fisher["chain, α = 1"]["total"] == pytest.approx(sum(1 / (lags + 1)), rel=1e-5)
    geometric = (1 - 1.02 ** (2 * (lags + 1))) / (1 - 1.02**2)
    assert fisher["chain, α = 1.02"]["curve"] == pytest.approx(1.02 ** (2 * lags) / geometric, rel=1e-5)
    for name in ("orthogonal, λ = 0.95", "identity, λ = 0.95"):
        assert fisher[name]["curve"] == pytest.approx((1 - 0.95**2) * 0.95 ** (2 * lags), rel=1e-5)
        assert fisher[name]["total"] == pytest.approx(1, abs=1e-5)
    assert fisher["fbchain, β = 0.01"]["total"] == pytest.approx(4.458, abs=5e-4), "found with another program"
    for one in nonnormal.FISHER:
        formula = [one.closed_form(lag) for lag in range(100)]
        assert None in formula or formula == pytest.approx(fisher[one.name]["curve"], rel=1e-5)


def test_what_is_committed_is_what_is_measured(found: dict[str, Any]) -> None:
    """The quick ones; fbchain takes seconds."""
    chain, orthogonal = nonnormal.DECODED
    source = np.eye(100)[0]
    for one in (chain, orthogonal):
        curve = analysis.decoder_memory(one.matrix(), source, range(100), "elu", samples=nonnormal.SAMPLES)
        assert found["decoded"]["ELU"][one.name] == pytest.approx(curve, abs=1e-4)
    assert np.allclose(orthogonal.matrix() @ orthogonal.matrix().T, np.eye(100))


def test_a_decoder_with_noise_reads_a_chain_as_theory_says(found: dict[str, Any]) -> None:
    """Unit k + 1 holds a^k s and noise of variance 0.01 sum a^2m: R² = J(k) / (J(k) + 0.01)."""
    chain = nonnormal.DECODED[0]
    exact = [chain.closed_form(lag) for lag in range(100)]
    theory = np.array([value / (value + nonnormal.NOISE) for value in exact if value is not None])
    measured = np.array(found["decoded"]["linear with noise"][chain.name])
    assert len(theory) == 100 and (measured < theory + 0.03).all()
    assert math.isclose(measured.mean(), theory.mean(), abs_tol=0.03)


def test_the_page_says_what_holds_and_moves_with_the_numbers(found: dict[str, Any]) -> None:
    text = nonnormal.section(found)
    assert "Does not hold" not in text and text.count("- Holds here: ") == 6
    assert "| chain, α = 1 | 5.187 | 5.187 |" in text and "| fbchain, β = 0.01 | 4.458 |  |" in text
    other = copy.deepcopy(found)
    for curve in other["decoded"]["ELU"].values():
        curve.reverse()
        curve[-1] = 0.0
    lines = [line for line in nonnormal.section(other).splitlines() if line.startswith("- ")]
    assert (
        lines[0].startswith("- **Does not hold here**: with ELU the oldest signals are read better")
        and "(0.00 and 0.00; the" in lines[0]
    )
    other["fisher"]["chain, α = 1"]["total"] = 101.0
    assert "**Does not hold here**: it is at most the number of units" in nonnormal.section(other)
    assert nonnormal.section(None) == ""


def test_every_network_has_one_look_of_its_own(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all panels: orthogonal networks of two gains are two networks."""
    looks: dict[str, set[tuple[Any, ...]]] = {}

    def gather(figure: Figure, path: Path) -> None:
        for line in (line for axes in figure.axes for line in axes.lines):
            looks.setdefault(str(line.get_label()), set()).add((line.get_color(), line.get_marker()))

    monkeypatch.setattr(style, "save", gather)
    nonnormal.draw(found, tmp_path / "memory.svg")
    assert looks.keys() == {one.name for one in (*nonnormal.FISHER, *nonnormal.DECODED)}
    assert all(len(of_one) == 1 for of_one in looks.values()) and len(set.union(*looks.values())) == len(looks) == 6


def test_the_campaign_ends_a_run_that_is_a_success_and_begins_with_the_most_telling() -> None:
    study = read_study("campaign/nonnormal.yaml")
    assert study.runs[0].name.startswith("copying-chain-lr=0.0003-alpha=1.02")
    base = yaml.safe_load((config_folder() / "campaign" / "base" / "nonnormal.yaml").read_text())
    (callback,) = base["trainer"]["callbacks"]
    success = yaml.safe_load(study.path.read_text())["success"]
    assert callback == {"class_path": "Solved", "init_args": success}
    laid_over = {
        setting.name.split("-")[0]: [Path(base).name for base in setting.bases[1:]] for setting in study.settings
    }
    twentieth = ["nonnormal.yaml"]
    whole, trained = [*twentieth, "nonnormal_whole.yaml"], [*twentieth, "nonnormal_trained.yaml"]
    copying = {"copying": twentieth, "copying_whole": whole}
    assert laid_over == copying | {"psmnist": trained, "psmnist_whole": [], "adding": trained}
    of_whole = [estimate._told(resolved(one)) for one in study.settings if "whole" in one.name]
    assert of_whole == 2 * [(375_000, 0)] + 2 * [(0, 100)]


def test_the_other_tasks_go_on_to_where_the_released_code_ends() -> None:
    base = yaml.safe_load((config_folder() / "campaign" / "base" / "nonnormal_trained.yaml").read_text())
    (callback,) = base["trainer"]["callbacks"]
    assert callback["class_path"] == "Solved"
    assert callback["init_args"]["below_chance"] * Adding(length=750).task.chance == pytest.approx(0.0025)
