"""The page of who tracks, stores and recalls: collected from runs, claims first, moved by every number."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.study import plan as study_plan
from lit_rnn.commands.study.subject import read_study
from lit_rnn.runs import endings

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "results"))

import collect  # noqa: E402
import studies  # noqa: E402
import tracking  # noqa: E402

LR = "model.init_args.optimizer.init_args.lr"


def by_hand(folder: Path, accuracies: dict[str, dict[str, list[tuple[float, float]]]]) -> Path:
    """Runs of a study with rates 0.1 and 0.01 and a third seed for the best, by arm and setting: (at 40, at 160)."""
    base = {"base": str(config_folder() / "quickstart.yaml")}
    arms = {arm: base for arm in [*accuracies, "gru"]}
    plan = {"grid": {LR: [0.1, 0.01]}, "seeds": [1], "best": {"seeds": [2, 3], "test": True}, "arms": arms}
    (folder / "parity.yaml").write_text("# Who tracks, who stores, who recalls: by hand.\n" + yaml.safe_dump(plan))
    study_plan.claim(read_study(str(folder / "parity.yaml")).trainings, folder / "runs")
    for arm, settings in accuracies.items():
        for rate, seeds in settings.items():
            for seed, (own, far) in enumerate(seeds, 1):
                run = folder / "runs" / f"{arm}-lr={rate}-seed={seed}"
                run.mkdir(parents=True)
                numbers = {"model": "M", "task": "parity", "metric": "accuracy", "parameters": 20123, "steps": 40}
                numbers |= {"loss": 1 - own, "chance": 0.69, "value": own, "seconds": 36.0, "trained_at": 40}
                numbers |= {"value_at_40": own, "value_at_160": far, "loss_at_40": 0.5, "chance_at_40": 0.69}
                (run / "fit.json").write_text(json.dumps(numbers))
                if len(seeds) > 1:
                    (run / "test.json").write_text(json.dumps(numbers))
                (run / "metrics.csv").write_text(f"step,val/loss,val/accuracy\n19,nan,{own}\n39,{1 - own},{own}\n")
                (run / "versions.json").write_text('{"commit": "0123456789", "platform": "Linux", "torch": "2"}')
    return folder / "parity.yaml"


ACCURACIES = {
    "mingru": {"0.1": [(0.6, 0.5)], "0.01": [(0.95, 0.95), (0.99, 0.97), (0.8, 0.5)]},  # against what is claimed
    "lstm": {"0.1": [(1.0, 1.0), (1.0, 0.92), (1.0, 0.89)], "0.01": [(0.95, 0.5)]},
    "exprnn": {"0.1": [(0.75, 0.5)]},  # the other rate is missing
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/tracking/parity.json of runs by hand; here is the root."""
    monkeypatch.chdir(tmp_path)
    study = by_hand(tmp_path, ACCURACIES)
    assert collect.main(["runs", "results/tracking/parity.json", "--study", str(study)]) == 0
    return tmp_path / "results"


def test_a_study_is_one_file_with_what_every_run_was_and_came_to(made: Path) -> None:
    content = json.loads((made / "tracking" / "parity.json").read_text())
    assert len(content["runs"]) == 4 + 4 + 1 and content["seeds"] == [1] and content["study"] == "parity.yaml"
    run = next(one for one in content["runs"] if one["run"] == "lstm-lr=0.1-seed=2")
    assert (run["seed"], run["versions"]["commit"], run["test"]["value_at_160"]) == (2, "0123456789", 0.92)
    assert run["curves"] == {"val/loss": [[20, 40], [None, 0.0]], "val/accuracy": [[20, 40], [1.0, 1.0]]}
    assert content["arms"]["lstm"][0] == {"setting": "lstm-lr=0.1", "options": {LR: 0.1}}
    lines = (made / "tracking" / "parity.json").read_text().splitlines()
    assert sum(line.startswith('{"run"') for line in lines) == 9, "one a line"


def test_what_does_not_hold_is_said_first_then_the_table_best_first(made: Path) -> None:
    """minGRU: 0.9133 at 40 and 0.8067 at 160, two of three each; LSTM: all three at 40, two at 160, 0.9367."""
    text = tracking.page(tracking.read_all(made / "tracking"), "", "p.svg")
    lines = [line for line in text.splitlines() if line]
    assert lines[1].startswith("- **Does not hold here**: a diagonal recurrence") and "MinGRU 2 of 3." in lines[1]
    assert lines[2].startswith("- Holds here: the LSTM keeps parity (Delétang") and "LSTM 2 of 3." in lines[2]
    assert "; sLSTM keeps parity (Beck et al. 2024, released code);" in lines[3] and lines[3].startswith(
        "- Not measured yet: a linear"
    )
    assert "orthogonal and unitary cells keep" not in text
    table = [line for line in lines if line.startswith("| ")]
    first = next(place for place, line in enumerate(table) if line.startswith("| LSTM"))
    assert table[first : first + 3] == [
        "| LSTM | 1.00 (3/3) → 0.94 (2/3) |",
        "| MinGRU | 0.91 (2/3) → 0.81 (2/3) |",
        "| a guess among all | 0.5 |",
    ]
    assert "| LSTM | 1.000 ± 0.000, 3 of 3 | 0.937 ± 0.057, 2 of 3 | 0.1 | 2 of 2 | 20,123 |" in text
    assert "| MinGRU | 0.913 ± 0.100, 2 of 3 | 0.807 ± 0.266, 2 of 3 | 0.01 | 1 of 2 | 20,123 |" in text
    assert "Rate not chosen or not tested yet: ExpRNN (1 of 2 rates). Missing: GRU. Rates tried: 0.01, 0.1. " in text
    assert "largest that was tried for LSTM. The best rate is the smallest that was tried for MinGRU. 9 tr" in text
    assert "took 0.1 hours" in text, "36 s each; the seconds of a test have the training in them"
    assert "(Chandar et al. 2019, in curves \\[unconfirmed\\])" in text
    assert "): 2 of 29 models, 1 of 7 tasks so far." in tracking.link(tracking.read_all(made / "tracking"), "")
    assert "Not begun: modular arithmetic, A5" in text and "9 trainings of commit 0123456 on Linux took" in text


def test_what_was_not_learnt_or_not_kept_is_no_refutation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept, never = ({"0.1": [pair] * 3, "0.01": [(0.5, 0.5)]} for pair in ((1.0, 0.5), (0.6, 0.5)))
    study = by_hand(tmp_path, {"lstm": kept, "slstm": never})
    assert collect.main(["runs", "tracking/parity.json", "--study", str(study)]) == 0
    text = tracking.page(tracking.read_all(tmp_path / "tracking"), "", "")
    assert "\n- **Not kept here**: the LSTM keeps parity" in text
    assert "4 times the length of training: LSTM 0 of 3; at the length of training: LSTM 3 of 3.\n" in text
    assert "\n- **Not learnt here**: sLSTM keeps parity" in text and ": SLSTM 0 of 3.\n" in text


@pytest.mark.parametrize(("second", "word"), [(0.9, "Cannot be told"), (0.895, "Cannot be told"), (0.885, "Not kept")])
def test_a_seed_within_a_hair_of_success_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: float, word: str
) -> None:
    """One seed keeps it, one does not, and the third is at 0.9, a little or clearly below."""
    monkeypatch.chdir(tmp_path)
    seeds = [(1.0, 1.0), (1.0, second), (1.0, 0.5)]
    study = by_hand(tmp_path, {"lstm": {"0.1": seeds, "0.01": [(0.5, 0.5)]}})
    assert collect.main(["runs", "tracking/parity.json", "--study", str(study)]) == 0
    text = tracking.page(tracking.read_all(tmp_path / "tracking"), "", "")
    count = 1 + (second >= 0.9)
    near = f", and one at {second:.3f}, too near to 0.9 to tell" if word == "Cannot be told" else ""
    assert f"\n- **{word} here**: the LSTM keeps parity" in text
    assert f": LSTM {count} of 3{near}; at the length of training: LSTM 3 of 3.\n" in text


def test_what_was_not_learnt_at_the_length_of_training_was_not_lost_beyond_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lost, never = {"0.1": [(1.0, 0.5)] * 3}, {"0.1": [(0.95, 0.5), *[(0.6, 0.5)] * 2]}
    study = by_hand(tmp_path, {"lru": lost, "linoss": never, "mingru": never})
    assert collect.main(["runs", "tracking/parity.json", "--study", str(study)]) == 0
    text = tracking.page(tracking.read_all(tmp_path / "tracking"), "", "")
    few = "At the length of training already too few seeds succeeded for there to be anything to keep"
    assert "\n- Holds here: a linear recurrence" in text and f": LRU 0 of 3. {few}: LinOSS 1 of 3.\n" in text
    assert "\n- **Cannot be told here**: a diagonal recurrence" in text and f"). {few}: MinGRU 1 of 3.\n" in text


def test_what_few_updates_did_not_teach_stands_beside_those_that_they_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no recurrence of a kind copies selectively says something once others do."""
    seeds = {"lru": 0, "linoss": 1, "lstm": 2, "gru": 1}
    monkeypatch.setattr(
        tracking.Tracking,
        "succeeded",
        lambda self, task, name, times: (seeds[name], 3) if task == "selective_copy" and name in seeds else None,
    )
    text = tracking.claims(tracking.Tracking({}))
    assert "LRU 0 of 3, LinOSS 1 of 3; in as many updates 1 of 2 other models did.\n" in text


def test_arms_of_another_machine_stay_as_they_are(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An arm that has begun here is as it is here, whatever the file held."""
    path, runs = made / "tracking" / "parity.json", made.parent / "runs"
    before = json.loads(path.read_text())
    for run in runs.glob("*"):
        if run.name.startswith(("mingru", "lstm-lr=0.01", "lstm-lr=0.1-seed=3")):
            shutil.rmtree(run)
    call = ["runs", "results/tracking/parity.json", "--study", str(made.parent / "parity.yaml")]
    assert collect.main(call) == 0
    names = [[run["run"] for run in content["runs"]] for content in (before, json.loads(path.read_text()))]
    assert sorted(set(names[0]) - set(names[1])) == ["lstm-lr=0.01-seed=1", "lstm-lr=0.1-seed=3"]
    kept = [run for run in before["runs"] if run["setting"].startswith("mingru")]
    assert len(kept) == 4 and all(run in json.loads(path.read_text())["runs"] for run in kept)
    plan = yaml.safe_load((made.parent / "parity.yaml").read_text())
    for key, value in (("seeds", [1, 4]), ("best", {"seeds": [2], "test": True})):
        (made.parent / "parity.yaml").write_text("# by hand\n" + yaml.safe_dump(plan | {key: value}))
        capsys.readouterr()
        assert collect.main(call) == 2
        assert f"runs of mingru, of which none is here, but {key} of the study was another" in capsys.readouterr().err
    plan["arms"]["mingru"] = plan["arms"]["mingru"] | {"grid": {"model.init_args.hidden_size": [7]}}
    (made.parent / "parity.yaml").write_text("# by hand\n" + yaml.safe_dump(plan))
    assert collect.main(call) == 2 and "arms.mingru of the study was another" in capsys.readouterr().err


def test_orthogonal_cells_are_told_by_their_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {("urnn", 4): (3, 3), ("urnn", 8): (1, 3), ("goru", 4): (3, 3), ("goru", 8): (3, 3)}
    monkeypatch.setattr(tracking.Tracking, "succeeded", lambda _, task, name, times: counts.get((name, times)))
    told = tracking._orthogonal(tracking.Tracking({}))
    assert told.endswith("Seeds that succeeded at 4 and at 8 times the length of training: URNN 3 and 1 of 3.\n")


def test_what_is_tested_is_the_last_checkpoint() -> None:
    """As the page says: the best on validation may have seen the curriculum's first lengths alone."""
    for path in (ROOT / "results" / "tracking").glob("*.json"):
        content = json.loads(path.read_text())
        assert content["best"]["checkpoint"] == "last", path
        assert all(run["test"]["steps"] == run["fit"]["steps"] for run in content["runs"] if run["test"]), path


def test_a_rate_that_is_still_to_try_is_told(made: Path) -> None:
    """As where a study was given another rate after its runs."""
    path = made / "tracking" / "parity.json"
    content = json.loads(path.read_text())
    content["runs"] = [run for run in content["runs"] if run["setting"] != "lstm-lr=0.01"]
    path.write_text(json.dumps(content))
    text = tracking.page(tracking.read_all(made / "tracking"), "", "")
    assert "With rates still to try: LSTM (1 of 2 rates). Rate not chosen" in text
    assert "tried for LSTM" not in text, "of one rate, no end"


def test_every_number_moves_the_page(made: Path) -> None:
    path = made / "tracking" / "parity.json"
    before, text = tracking.page(tracking.read_all(made / "tracking"), "", ""), path.read_text()
    for old, new in (
        ('"value_at_160": 0.97', '"value_at_160": 0.87'),
        ('"parameters": 20123', '"parameters": 20124'),
        ('"seconds": 36.0', '"seconds": 9036.0'),
        ("0123456789", "1123456789"),
        ("[null, 0.0]", "[null, 0.9]"),  # another rate would be the best
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        assert tracking.page(tracking.read_all(made / "tracking"), "", "") != before, old


@pytest.mark.usefixtures("rendered")
def test_the_picture_is_the_same_for_the_same_numbers(made: Path, tmp_path: Path) -> None:
    from matplotlib import rc_context

    found = tracking.read_all(made / "tracking")
    with rc_context({"svg.hashsalt": "lit_rnn", "svg.fonttype": "none"}):
        tracking.draw(found, tmp_path / "1.svg")
        tracking.draw(found, tmp_path / "2.svg")
    text = (tmp_path / "1.svg").read_text()
    assert text == (tmp_path / "2.svg").read_text()
    assert ">0.94<" in text and ">MinGRU<" in text and ">ExpRNN<" not in text


def test_a_study_that_cannot_be_collected(made: Path, tmp_path: Path) -> None:
    study = str(tmp_path / "parity.yaml")
    with pytest.raises(UserError, match="no finished run"):
        studies.collected(study, tmp_path / "nowhere")
    for bad in ("results/tracking", "../parity.json", str(tmp_path / "parity.json"), "results/tracking/x.json"):
        assert collect.main(["runs", bad, "--study", study]) == 2
    run = tmp_path / "runs" / "exprnn-lr=0.1-seed=1"
    told = tmp_path / "runs" / "plan.json"
    kept, entries = told.read_text(), json.loads(told.read_text())
    options = entries[run.name]["arguments"]
    options[options.index("--seed_everything") + 1] = "7"
    told.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="other options or base configs"):
        studies.collected(study, tmp_path / "runs")
    told.write_text(kept)
    (run / "versions.json").write_text("{}")
    with pytest.raises(UserError, match="give --commit"):
        studies.collected(study, tmp_path / "runs")
    assert studies.collected(study, tmp_path / "runs", "abc")["runs"]


def test_what_diverged_has_been_tried(made: Path, tmp_path: Path) -> None:
    """A rate that diverged is not one that is still to try; a test loss that is no number does not break the file."""
    (tmp_path / "runs" / "exprnn-lr=0.01-seed=1").mkdir()
    endings.note_divergence(tmp_path / "runs" / "exprnn-lr=0.01-seed=1", endings.DivergedError("The loss is nan"))
    test = tmp_path / "runs" / "lstm-lr=0.1-seed=1" / "test.json"
    test.write_text(json.dumps(json.loads(test.read_text()) | {"loss": float("nan")}))
    assert collect.main(["runs", "results/tracking/parity.json", "--study", str(tmp_path / "parity.yaml")]) == 0
    content = json.loads((made / "tracking" / "parity.json").read_text())
    assert content["diverged"] == [{"setting": "exprnn-lr=0.01", "seed": 1}]
    assert [run["test"]["loss"] for run in content["runs"] if run["run"] == "lstm-lr=0.1-seed=1"] == [None]
    arm = next(arm for arm in studies.read(made / "tracking" / "parity.json").arms if arm.name == "exprnn")
    assert arm.tried == (2, 2) and arm.rates == (0.1,) and arm.lost_rates == (0.01,)


def test_a_rate_that_diverged_was_tried_and_is_named(made: Path) -> None:
    """Above LSTM's best one there was another: the best was not the largest that was tried."""
    path = made / "tracking" / "parity.json"
    content = json.loads(path.read_text())
    content["arms"]["lstm"].append({"setting": "lstm-lr=1.0", "options": {LR: 1.0}})
    content["diverged"].append({"setting": "lstm-lr=1.0", "seed": 1})
    path.write_text(json.dumps(content))
    text = tracking.page(tracking.read_all(made / "tracking"), "", "")
    assert "Diverged at a rate: LSTM (1). " in text and "Rates tried: 0.01, 0.1, 1. " in text
    assert "largest that was tried for LSTM" not in text


def test_a_further_seed_that_diverged_has_not_succeeded(made: Path, tmp_path: Path) -> None:
    """Of minGRU's seeds 1 and 2 of three."""
    run = tmp_path / "runs" / "mingru-lr=0.01-seed=3"
    shutil.rmtree(run)
    run.mkdir()
    endings.note_divergence(run, endings.DivergedError("The loss is nan"))
    assert collect.main(["runs", "results/tracking/parity.json", "--study", str(tmp_path / "parity.yaml")]) == 0
    text = tracking.page(tracking.read_all(made / "tracking"), "", "")
    assert "| MinGRU | 0.97 (2/3) → 0.96 (2/3) |" in text and "Diverged: MinGRU (1 of 3 seeds). Missing" in text
    assert "fewer seeds" not in text


@pytest.mark.parametrize(("succeeded", "whole"), [(True, False), (False, True)])
def test_seeds_for_successes_alone_are_not_missed(made: Path, succeeded: bool, whole: bool) -> None:
    path = made / "tracking" / "parity.json"
    content = json.loads(path.read_text())
    content["best"]["if_success"] = True
    content["runs"] = [run | {"success": succeeded} for run in content["runs"] if run["seed"] == 1]
    path.write_text(json.dumps(content))
    arm = next(arm for arm in studies.read(path).arms if arm.name == "lstm")
    assert (arm.is_whole, arm.ended, arm.wanted) == (whole, 1, 1 if whole else 3)


def test_a_model_that_has_not_run_every_task_stands_apart() -> None:
    """Whatever it has on those it ran: 0 on the others would put it among worse ones, and no total compares them."""

    def study(name: str, **values: float) -> studies.Finished:
        tests = {arm: ({"value": value, "trained_at": 40},) for arm, value in values.items()}
        arms = [studies.Arm(arm, (1, 1), 1, test, 0, 1, 1, (0.1,), (), 0.1) for arm, test in tests.items()]
        return studies.Finished(name, "", tuple(arms), [{"fit": {"trained_at": 40}}])

    found = tracking.Tracking(
        {
            "parity": study("parity", lstm=0.6, gru=0.7, lstm_deep=0.9, exprnn_deep=1),
            "copying": study("c", lstm=1, gru=1),
        }
    )
    assert found.models == ["gru", "lstm", "exprnn_deep", "lstm_deep"]
    first, told, second = tracking.headline(found).split("\n\n")
    assert told == "Not on every task yet, by the mean over those that were run:"
    assert [line.split(" | ")[0] for line in first.splitlines()[2:]] == ["| GRU", "| LSTM", "| a guess among all"]
    assert second.splitlines()[2] == "| deep ExpRNN | 1.00 (1/1) | not yet |"


def test_every_model_and_task_of_the_studies_has_a_name() -> None:
    files = {path.stem.removeprefix("tracking_") for path in (config_folder() / "campaign").glob("tracking_*.yaml")}
    assert files == tracking.TASKS.keys()
    arms = yaml.safe_load((config_folder() / "campaign" / "tracking_s5.yaml").read_text())["arms"]
    assert arms.keys() == tracking.NAMES.keys()
    assert not any("," in name for name in tracking.NAMES.values()), "they stand in lists"
    assert {name for claim in tracking.CLAIMS for name in claim.arms} <= arms.keys()
    assert {claim.task for claim in tracking.CLAIMS} <= files and set(tracking.ORTHOGONAL) <= arms.keys()


@pytest.mark.parametrize(("group", "moved", "even"), [("A5", 3, True), ("S5", 2, False)])
def test_a_guess_by_the_step_gets_what_the_page_says(group: str, moved: int, even: bool) -> None:
    """A walk on the group: where it most often is behind each of 40 steps."""
    everything = [p for p in itertools.permutations(range(5)) if not even or np.linalg.det(np.eye(5)[list(p)]) > 0]
    drawn = [p for p in everything if sum(i != k for i, k in enumerate(p)) <= moved]
    place = {p: number for number, p in enumerate(everything)}
    behind = np.array([[place[tuple(x[i] for i in s)] for x in drawn] for s in everything])  # (states, drawn)
    share, best = np.eye(len(everything))[0], []
    for _ in range(40):
        share = np.bincount(behind.ravel(), np.repeat(share / len(drawn), len(drawn)))
        best.append(share.max())
    assert f"{np.mean(best):.3f} ({group})" in tracking.RULE.replace("\n", " ")
