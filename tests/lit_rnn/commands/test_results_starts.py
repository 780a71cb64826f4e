"""How often a non-normal start leads to success: collected from runs by hand, beside what is published."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_rnn.commands.study import plan
from lit_rnn.commands.study.subject import read_study
from lit_rnn.files import read_json
from lit_rnn.published import published
from lit_rnn.runs import endings
from tests.kept import keep

ROOT = Path(__file__).parents[3]
KEPT = Path("results", "nonnormal", "runs.json")
sys.path.insert(0, str(ROOT / "results"))

import collect  # noqa: E402
import starts  # noqa: E402

SHORT, WHOLE = "copying, T = 500, 5 of 100 epochs", "copying, T = 500, one setting, all epochs"
LOSSES = {  # of each validation; chance is 0.04
    "copying-chain-alpha=1.02-seed=1": [0.04, 0.019],
    "copying-chain-alpha=1.0-seed=1": [0.019, 0.03],  # it was one, once
    "copying-chain-alpha=0.5-seed=1": [0.04, 0.02],  # not below half
    "copying-orthogonal-seed=1": [0.04, 0.01],
    "copying_whole-chain-seed=1": [0.01],
    "copying_whole-orthogonal-seed=1": [0.04],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, those runs and what is kept of them: W before training is 0.5 I, after it with 3 (chain: 2) above."""
    folder = tmp_path_factory.mktemp("starts")
    arms = {
        "copying-chain": {
            "base": "nonnormal_paper/copying_500/chain.yaml",
            "grid": {"model.init_args.alpha": [1.02, 1.0, 0.5, 2.0]},
        },
        **{
            f"copying-{start}": {"base": f"nonnormal_paper/copying_500/{start}.yaml"}
            for start in ("orthogonal", "fbchain", "identity")
        },
        "adding-orthogonal": {"base": "nonnormal_paper/adding_750/orthogonal.yaml"},
        "copying_whole-chain": {"base": "nonnormal_paper/copying_500/chain.yaml"},  # a setting picked
        "copying_whole-orthogonal": {"base": "nonnormal_paper/copying_500/orthogonal.yaml"},
    }
    study = folder / "nonnormal.yaml"
    study.write_text("# By hand.\n" + yaml.safe_dump({"seeds": [1], "arms": arms}))
    plan.claim(read_study(str(study)).runs, folder / "runs")
    for name, losses in LOSSES.items():
        run = folder / "runs" / name
        keep(0.5 * torch.eye(2), run / "checkpoints" / "init.ckpt")
        keep(torch.tensor([[0.5, 2.0 if "chain" in name else 3.0], [0.0, 0.5]]), run / "checkpoints" / "best.ckpt")
        numbers = {"model": "VanillaRNN", "task": "copy_memory", "metric": "recall", "parameters": 12, "steps": 40}
        numbers |= {"loss": losses[-1], "chance": 0.04, "value": 0.5, "seconds": 36.0}
        (run / "fit.json").write_text(json.dumps(numbers))
        rows = "".join(f"{19 + 20 * place},{loss},0.5\n" for place, loss in enumerate(losses))
        (run / "metrics.csv").write_text(f"step,val/loss,val/recall\n{rows}")
        (run / "versions.json").write_text('{"commit": "0123456789", "platform": "Linux"}')
    out = folder / "runs" / "copying-chain-alpha=2.0-seed=1"
    out.mkdir()
    endings.note_divergence(out, endings.DivergedError("The loss is nan"))
    return collected(folder)


def collected(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert collect.main(["runs", str(KEPT), "--study", "nonnormal.yaml"]) == 0
    return folder


@pytest.fixture(scope="module")
def content(made: Path) -> dict[str, object]:
    return read_json(made / KEPT)


def test_a_machine_with_one_run_leaves_the_others_as_they_are(made: Path, tmp_path: Path) -> None:
    """Its own is read anew, Henrici's departure with it."""
    study, before = made / "nonnormal.yaml", read_json(made / KEPT)
    mine = next(run for run in before["runs"] if run["run"] == "copying-orthogonal-seed=1")
    without = {**before, "runs": [run for run in before["runs"] if run != mine]}
    shutil.copy(study, tmp_path)
    (tmp_path / KEPT).parent.mkdir(parents=True)
    (tmp_path / KEPT).write_text(json.dumps(without))
    plan.claim(read_study(str(study)).runs, tmp_path / "runs")
    shutil.copytree(made / "runs" / mine["run"], tmp_path / "runs" / mine["run"])
    after = read_json(collected(tmp_path) / KEPT)
    assert after == {**before, "runs": [*without["runs"], mine]}


def test_counts_stand_beside_the_published_ones(content: dict[str, object]) -> None:
    """Two of four chains, of which one diverged, and the one orthogonal network succeed, against the paper.

    Of [[a, c], [0, a]] d is c. Settings that were picked decide nothing about who succeeds more often.
    """
    text = starts.section(content)
    lines = [line for line in text.splitlines() if line[:2] in ("- ", "| ")]
    assert lines[0].startswith(f"- **Does not hold here**: on {SHORT}, non-normal starts succeed more often")
    assert lines[0].endswith("(chain 2 of 4, orthogonal 1 of 1).")
    assert lines[1].startswith(f"- Holds here: on {SHORT}, normal starts become non-normal in training (Henrici")
    assert lines[1].endswith("rose by more than 0.01 in 1 of 1 successful runs).")
    rows = [line for line in lines if line.startswith("| copying")]
    assert rows[0] == rf"| {SHORT} | chain | 2 of 4, 1 diverged | 46 of 462 \[confirmed\] | 0 ± 0 | 2 ± 0 |  |"
    assert rows[1] == rf"| {SHORT} | fbchain | not yet | 11 of 462 \[confirmed\] |  |  |  |"
    assert rows[2] == rf"| {SHORT} | orthogonal | 1 of 1 | 0 of 594 \[confirmed\] | 0 | 3 |  |"
    assert rows[4] == rf"| {WHOLE} | chain | 1 of 1 | 46 of 462 \[confirmed\] | 0 | 2 |  |"
    assert "more often" not in lines[1] + lines[2] and "all epochs | fbchain" not in text
    assert r"| adding, T = 750, 5 of 100 epochs | orthogonal | not yet |  |  |  | 2.74 ± 0.07 \[confirmed\] |" in text
    assert "Missing: 3 of 10 runs. One that diverged is no success. 6 trainings of commit 0123456 on Linux" in text
    assert "took 0.1 hours. By hand." in text


def test_ours_stands_in_the_table_of_published_figures(content: dict[str, object]) -> None:
    """Which says that it is empty where there is no run; ours are in a study's file, not in folders of runs."""
    told = {one.name: starts.ours(content, one) for one in published() if one.metric == "successes"}
    whole = f"1 of 1 ({WHOLE}; see Successes)"
    assert told["chain"] == f"2 of 4 ({SHORT}; see Successes); {whole}"
    assert (told["fbchain"], told["identity"]) == ("", "")
    (adding,) = [one for one in published() if (one.metric, one.task, one.name) == ("henrici", "adding", "orthogonal")]
    copying = replace(adding, task="copy_memory")
    assert starts.ours(content, adding) == "" and starts.ours(content, copying) == f"3 ({SHORT}, 1 run)"
    assert starts.ours(None, copying) == ""


def test_every_number_moves_the_section(content: dict[str, object]) -> None:
    before = starts.section(content)
    text = json.dumps(content)
    changes = [
        ('"success": true', '"success": false'),
        ('"after": 3.0', '"after": 4.0'),
        ('"before": 0.0', '"before": 0.5'),
        ('"seconds": 36.0', '"seconds": 9036.0'),
        ("0123456789", "1123456789"),
    ]
    for old, new in changes:
        assert old in text
        assert starts.section(json.loads(text.replace(old, new, 1))) != before, old
    assert "No run of" in starts.section(None)


def test_rounding_is_no_rise_and_no_success_at_all_decides_nothing(content: dict[str, object]) -> None:
    text = json.dumps(content)
    still = starts.section(json.loads(text.replace('"after": 3.0', '"after": 0.001')))
    assert f"- **Does not hold here**: on {SHORT}, normal starts become" in still and "in 0 of 1 succ" in still
    none = starts.section(json.loads(text.replace('"success": true', '"success": false')))
    assert "hold" not in none and "Holds" not in none and "| orthogonal | 0 of 1 |" in none


def test_a_grid_that_has_not_ended_decides_nothing(content: dict[str, Any]) -> None:
    """Its settings may be those that lead to success most often."""
    more = copy.deepcopy(content)
    more["arms"]["copying-chain"].append({"setting": "copying-chain-alpha=3.0", "options": {}})
    assert "more often" in starts.section(content) and "more often" not in starts.section(more)
    assert "| chain | 2 of 4, 1 diverged |" in starts.section(more)
