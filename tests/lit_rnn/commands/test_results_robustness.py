"""The page of robustness: collected from attacked runs, claims first, numbers by hand, moved by every number."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from datamodules import UserError
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.study import plan
from lit_rnn.commands.study.subject import read_study
from lit_rnn.report import style
from lit_rnn.runs import endings
from tests.kept import keep

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import attacked  # noqa: E402
import collect  # noqa: E402
import robustness  # noqa: E402

BASE = [f"{config_folder()}/studies/base/robustness/{name}.yaml" for name in ("digits", "vanillarnn")]
JORDAN = torch.tensor([[0.9, 1.0], [0.0, 0.9]])
FREE, HELD = "vanillarnn-recurrent_constraint=none", "vanillarnn-recurrent_constraint=spectral_radius"
ROWS = {  # clean, at 0.1 in L-infinity, half of it gone
    f"{FREE}-seed=1": (0.95, 0.30, 0.06),
    f"{FREE}-seed=2": (0.97, 0.20, 0.04),
    f"{HELD}-seed=1": (0.92, 0.60, 0.12),
}


def by_hand(folder: Path) -> Path:
    """A study of two networks and two seeds, of which one run diverged, and one network that has not begun."""
    grid = {attacked.CONSTRAINT: ["none", "spectral_radius"]}
    arms = {"vanillarnn": {"base": BASE, "grid": grid}, "chain": {"base": BASE}}
    (folder / "digits.yaml").write_text("# By hand.\n" + yaml.safe_dump({"seeds": [1, 2], "arms": arms}))
    plan.claim(read_study(str(folder / "digits.yaml")).runs, folder / "runs")
    rows = []
    for name, (clean, worst, half) in ROWS.items():
        run = folder / "runs" / name
        keep(0.5 * torch.eye(2), run / "checkpoints" / "init.ckpt")
        keep(JORDAN, run / "checkpoints" / "best.ckpt")
        numbers = {"model": "VanillaRNN", "task": "digits", "metric": "accuracy", "parameters": 5000}
        numbers |= {"steps": 9, "loss": 0.5, "chance": 2.3, "value": clean, "seconds": 36.0}
        (run / "fit.json").write_text(json.dumps(numbers))
        (run / "metrics.csv").write_text("step,val/loss,val/accuracy\n9,0.5,0.9\n")
        (run / "versions.json").write_text('{"commit": "0123456789", "platform": "Linux", "threads": 1}')
        (run / "attack").mkdir()
        checks = [
            {"name": "clean accuracy", "passed": True},
            {"name": "more steps", "passed": "none-seed=1" not in name},
        ]
        asked = {"steps": 20, "restarts": 2, "queries": 60, "draws": 10}
        (run / "attack" / "attack.json").write_text(json.dumps({"asked": asked, "seconds": 720.0, "checks": checks}))
        row = {"run": f"elsewhere/{name}", "setting": "x", "seed": "1", "task": "t", "model": "M", "samples": 200}
        row |= {"clean": clean, "worst_inf_0.1": worst, "worst_inf_0.3": 0.0, "worst_inf_0.5": 0.0}
        row |= {"worst_2_0.5": worst, "half_inf": half, "half_2": None, "spectral_radius": 7.0, "failed_checks": 0}
        rows.append(row)
    out = folder / "runs" / f"{HELD}-seed=2"
    out.mkdir()
    endings.note_divergence(out, endings.DivergedError("The loss is nan"))
    (folder / "runs" / "attack_study.json").write_text(json.dumps({"settings": [], "runs": rows}))
    return folder / "digits.yaml"


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness")
    study = by_hand(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert collect.main(["runs", "results/robustness/digits.json", "--study", str(study)]) == 0
    return folder


@pytest.fixture
def made(collected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(collected / "results" / "robustness", tmp_path / "robustness"))


def page(folder: Path) -> str:
    return robustness.page(attacked.read_all(folder), "", "p.svg")


def test_matrices_before_and_after_are_those_of_the_closed_form(collected: Path) -> None:
    """0.5 I, and the Jordan block of 0.9 with 1 above: see lit_rnn.analysis' own tests for the formulas."""
    content = json.loads((collected / "results" / "robustness" / "digits.json").read_text())
    assert [run["run"] for run in content["runs"]] == list(ROWS) and content["asked"]["queries"] == 60
    run = content["runs"][0]
    before = {"spectral_radius": 0.5, "spectral_norm": 0.5, "henrici": 0.0, "pseudospectral_radius": 0.51}
    assert run["before"] == pytest.approx({**before, "distance_to_instability": 0.5, "kreiss_lower_bound": 1.0})
    after = {
        "spectral_radius": 0.9,
        "spectral_norm": (1 + (1 + 4 * 0.81) ** 0.5) / 2,
        "henrici": (1 / 2.62) ** 0.5,
        "pseudospectral_radius": 0.9 + (0.01**2 + 0.01) ** 0.5,
        "distance_to_instability": ((1 + 4 * 0.01) ** 0.5 - 1) / 2,
        "kreiss_lower_bound": 2.6,
    }
    assert run["after"] == pytest.approx(after, rel=1e-5)
    assert run["attack"]["seconds"] == 720.0 and not {"run", "spectral_radius"} & run["attack"].keys()


def test_a_radius_above_one_has_an_infinite_kreiss_constant(tmp_path: Path) -> None:
    keep(2 * torch.eye(2), tmp_path / "c.ckpt")
    found = attacked.matrix_numbers(tmp_path / "c.ckpt")
    assert found["kreiss_lower_bound"] is None and found["distance_to_instability"] == 0.0


def test_what_does_not_hold_is_said_first(made: Path) -> None:
    """Inside the disk 60 % are left at 0.1; the free one falls from 96 % to 25 %; no radius is above 1."""
    lines = re.findall(r"^- .*\n(?: +- .*\n)*", page(made), flags=re.MULTILINE)  # with what stands beneath each
    assert [line.partition(":")[0] for line in lines] == [
        "- **Does not hold here**",
        "- **Does not hold here**",
        "- Holds here",
        "- Holds here",
        "- Not measured yet",
    ]
    assert "does not imply stability" in lines[0] and "Digits: none of them has ρ above 1." in lines[0]
    assert "unit disk" in lines[1]
    halves = "Digits: VanillaRNN (free: 25.0 %, ε½ 0.050 ± 0.014 in L∞, beyond in L2; ρ ≤ 1: 60.0 %, ε½ 0.120 in L∞, "
    assert halves in lines[1]
    fallen = "Digits: 1 of 2 accurate networks, VanillaRNN, free (96.0 → 25.0 %)."
    assert "does not imply robustness" in lines[2] and fallen in lines[2]
    assert "d rose in 2 of 2 networks" in lines[3] and "(0.00 → 0.62)" in lines[3]
    assert "three criteria" in lines[4], "two networks have no rank correlation"


def test_means_spreads_and_what_is_missing(made: Path) -> None:
    """Of 95 and 97 % the deviation is 1.4, of 30 and 20 % 7.1, of 0.06 and 0.04 0.014."""
    text = page(made)
    rows = [line for line in text.splitlines() if line.startswith("| VanillaRNN")]
    assert rows[:2] == [
        "| VanillaRNN, ρ ≤ 1 | 92.0 | 60.0 | 0.900 | 0 → 0.618 |",
        "| VanillaRNN, free | 96.0 ± 1.4 | 25.0 ± 7.1 † | 0.900 ± 0.000 | 0 → 0.618 |",
    ]
    assert "95 % has a standard error of 1.5 points, and 50 % one of 3.5, beside" in text, "of 200 examples"
    assert rows[3] == "| VanillaRNN, free | 96.0 ± 1.4 | 25.0 ± 7.1 | 0.0 ± 0.0 | 0.050 ± 0.014 |", "none stands at 0.3"
    assert rows[5] == "| VanillaRNN, free | 96.0 ± 1.4 | 25.0 ± 7.1 | beyond |"
    assert "→ 0.618 | 0.51 → 1 | 0.5 → 0.0099 | 1 → 2.6 |" in rows[7]
    assert (
        "Attacked so far, of the seeds: VanillaRNN, chain start (0 of 2); VanillaRNN, ρ ≤ 1 (1 of 2, 1 diverged). "
        in text
    )
    assert (
        "over all seeds: VanillaRNN, free, more steps (1). " in text
        and "Not begun: MNIST in order, permuted MNIST." in text
    )
    assert "Seeds of each: 2. Attacked: " in text and "lower worst case. 3 trainings" in text
    assert "3 trainings of commit 0123456 on Linux with 1 thread took 0.0 hours, and their attacks 0.6 hours." in text


def test_every_number_moves_the_page(made: Path) -> None:
    path = made / "digits.json"
    before, text = page(made), path.read_text()
    content = json.loads(text)
    run = content["runs"][1]
    places: list[tuple[dict[str, Any], str]] = [
        *((run["attack"], key) for key in ("clean", "worst_inf_0.1", "worst_2_0.5", "half_inf", "seconds")),
        *((run[when], key) for when in ("before", "after") for key in attacked.NUMBERS),
        (run["attack"], "samples"),
        (run["fit"], "seconds"),
        (content["asked"], "queries"),
    ]
    for one, key in places:
        old = one[key]
        one[key] = old + (3600 if key == "seconds" else 1)
        path.write_text(json.dumps(content))
        assert page(made) != before, key
        one[key] = old
    for old, new in (("0123456789", "1123456789"), ("more steps", "no masking")):
        path.write_text(text.replace(old, new, 1))
        assert page(made) != before


@pytest.mark.usefixtures("rendered")
def test_the_picture_has_a_curve_for_each_network(made: Path, tmp_path: Path) -> None:
    """The same runs give the same bytes: `test_results` draws what is committed again."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "lit_rnn", "svg.fonttype": "none"}):
        robustness.draw(attacked.read_all(made), tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert text.count(">ρ ≤ 1<") == 1 and text.count(">free<") == 1 and ">digits: VanillaRNN<" in text


def test_no_legend_lies_on_a_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    robustness.draw(attacked.read_all(ROOT / "results" / "robustness"), Path("p.png"))
    figures[0].canvas.draw()
    boxes = [legend.get_window_extent() for legend in figures[0].findobj(Legend)]
    assert len(boxes) == 4 and not any(box.overlaps(axes.bbox) for box in boxes for axes in figures[0].axes)


def networks(*by_seed: list[tuple[float, float, float | None]]) -> attacked.Study:
    """Plain networks, each of whose seeds has a clean accuracy, a spectral radius and a size that halves it."""
    settings = []
    for place, seeds in enumerate(by_seed):
        runs = [
            {"seed": seed, "attack": {"clean": clean, "half_inf": half}, "after": {"spectral_radius": radius}}
            for seed, (clean, radius, half) in enumerate(seeds, start=1)
        ]
        settings.append(attacked.Setting("vanillarnn", f"{place}", runs))
    return attacked.Study("digits", "", list(range(1, 1 + len(by_seed[0]))), settings, [], {}, [])


def test_criteria_are_ranked_by_sizes_where_no_example_stands_at_one() -> None:
    """Four networks, all at 0 at 0.1, one of which no size halves: of ranks 4 3 2 1 and 3 2 1 4 it is -0.2."""
    sizes = (0.04, 0.03, 0.02, None)
    study = networks(*([(0.99 - 0.01 * place, 1.0 + (place == 2), half)] for place, half in enumerate(sizes)))
    against, held, unsure = robustness._apart(study)
    assert against == unsure == [] and len(held) == 3
    ends = "-0.50 to +1.00 with a network or a seed left out"
    assert held[0] == f"clean accuracy and ε½ in L∞: -0.20 over 4 networks, {ends}"


def test_two_criteria_are_one_only_if_no_network_and_no_seed_decides_it() -> None:
    """With seed 2 alone clean accuracies have the ranks 5 1 2 3 4 6 by radius: 1 - 6 * 20 / (6 * 35)."""
    sure = [[(0.90 + place / 100, 1.1 + place / 10, 0.1)] * 2 for place in range(6)]
    assert [len(side) for side in robustness._apart(networks(*sure))] == [1, 0, 0]
    hangs = [[(0.90 + place / 100, 1.1 + place / 10, 0.1)] * 2 for place in range(6)]
    hangs[0] = [(0.84, 1.1, 0.1), (0.945, 1.1, 0.1)]
    against, held, unsure = robustness._apart(networks(*hangs))
    assert against == held == [] and unsure == [
        "clean accuracy and ρ: +1.00 over 6 networks, +0.43 to +1.00 with a network or a seed left out"
    ]
    held_at_one = [[(0.90 + place / 100, 1.0 + place * 1e-7, 0.1)] for place in range(6)]
    assert robustness._apart(networks(*held_at_one)) == ([], [], []), "rounding has no order"


def test_a_study_that_is_not_attacked_or_has_no_page(collected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collected)
    study = str(collected / "digits.yaml")
    for bad in ("results/robustness/x.json", "results/elsewhere/digits.json", "results/tracking/digits.json"):
        assert collect.main(["runs", bad, "--study", study]) == 2
    with pytest.raises(UserError, match="no attacked run: python -m lit_rnn attack --study"):
        attacked.with_attacks({"runs": [{"run": "x"}]}, collected / "results")
    assert robustness.page({}, "", "").endswith("there is no result.\n")


@pytest.mark.parametrize("task", attacked.TASKS)
def test_the_campaign_has_these_networks_and_two_more_seeds(task: str) -> None:
    """Those of studies/robustness_*.yaml."""
    ours = read_study(f"campaign/robustness_{task}.yaml")
    theirs = read_study(f"studies/robustness_{task.removeprefix('permuted_')}.yaml")
    assert ours.arms == theirs.arms and tuple(ours.arms) == tuple(attacked.MODELS)
    assert ours.seeds == (*theirs.seeds, 3, 4) and len(ours.settings) == 13


def test_a_matrix_of_gates_and_an_inaccurate_network_say_nothing_of_the_unit_disk() -> None:
    def judged(arm: str, clean: float) -> robustness.Judged:
        run = {"attack": {"clean": clean, "worst_inf_0.1": 0.2}}
        setting = attacked.Setting(arm, "spectral_radius", [run])
        study = attacked.Study("digits", "", [1], [setting], [], {}, [run])
        return next(claim for claim in robustness.CLAIMS if "unit disk" in claim.said).judge(study)

    told = "VanillaRNN (ρ ≤ 1: 20.0 %, ε½ beyond in L∞, beyond in L2)"
    assert judged("vanillarnn", 0.95) == ([], [told], [])
    assert judged("lstm", 0.95) == judged("vanillarnn", 0.5) == ([], [], [])
