"""A study's file: the grid, and what is refused before anything starts."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.config_parser import ConfigParser
from lit_rnn.commands.study.search.space import text
from lit_rnn.commands.study.subject import read_study, resolved
from tests.lit_rnn.commands.study.made import BASE, LR, Write, run_study


def test_the_grid_is_every_combination_of_the_common_and_the_arms(study: Write) -> None:
    arms = {"a": {"grid": {"model.init_args.lam": [0.9, 1.0]}}, "b": {"grid": {"model.init_args.init": ["identity"]}}}
    plan = read_study(study(grid={LR: [0.1, 0.01, 0.001]}, seeds=[3, 5], arms=arms))
    assert len(plan.settings) == 3 * 2 + 3 and len(plan.runs) == 18
    assert plan.runs[0].name == "a-lr=0.1-lam=0.9-seed=3" and plan.runs[1].name == "a-lr=0.1-lam=0.9-seed=5"
    assert plan.runs[-1].name == "b-lr=0.001-seed=5"
    last = plan.runs[-1].arguments()
    expected = f"-c base.yaml --{LR} 0.001 --model.init_args.init identity --seed_everything 5"
    assert last == expected.split()
    assert resolved(plan.settings[-1])["model"]["init_args"]["init"] == "identity"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"grids": {}}, "grids"),
        ({"grid": {LR: []}}, LR),
        ({"grid": {LR: 0.1}}, LR),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
        ({"base": []}, "base"),
        ({"base": None}, "base is not given"),
        ({"base": 3}, "base is 3"),
        ({"base": ["base.yaml", None]}, "a config or a list of them"),
        ({"arms": {"a": {"base": {"model": 1}}}}, "a config or a list of them"),
        ({"arms": {"a": {"grids": {}}}}, "grids"),
        ({"success": {"under": 1}}, "under"),
        ({"success": {"below": "low"}}, "success.below is 'low'"),
        ({"success": {"below": True}}, "success.below is true"),
        ({"success": {"below": -1.0}}, "success.below"),
        ({"success": {"below": ".inf"}}, "success.below"),
        ({"success": {"below_chance": [0.5]}}, "success.below_chance"),
        ({"success": {"below": 1.0, "below_chance": 0.5}}, "not both"),
        ({"best": [2]}, "best"),
        ({"best": {}}, "something follows"),
        ({"best": {"seed": [2]}}, "seed"),
        ({"best": {"seeds": [2, 2]}}, "best.seeds"),
        ({"best": {"seeds": [-1]}}, "whole numbers from 0 to 4294967295, none"),
        ({"seeds": [2**32]}, "different whole numbers from 0 to 4294967295"),
        ({"best": {"seeds": [1]}}, "none of which is in seeds"),
        ({"best": {"seeds": [2], "test": "yes"}}, "best.test is 'yes'"),
        ({"best": {"seeds": [2], "if_success": 1}}, "best.if_success is 1"),
        ({"best": {"test": True, "checkpoint": "first"}}, "best.checkpoint is 'first', but it must be best or last"),
        ({"best": {"seeds": [2], "checkpoint": "last"}}, "best.checkpoint is 'last', but it must be left out without"),
        ({"best": {"test": True, "if_success": True}}, "at least one seed beside if_success"),
        (
            {"best": {"test": True}, "search": {"trials": 1, "space": {LR: {"float": [0.1, 1]}}}},
            "left out beside search",
        ),
        ({"grid": {"model.init_args.lam": [1.0, "1.0"]}}, "lam=1.0"),
        ({"grid": {"model.init_args.lamb": [1.0]}}, "lamb"),
        ({"grid": {"model.init_args.hidden_size": [6, "many"]}}, "hidden_size"),
        ({"grid": {"model.init_args.hidden_size": [6, -1]}}, "hidden_size=-1-seed=1: .*hidden_size is -1"),
        ({"grid": {"data.init_args.delay": [3, -1]}}, "delay"),
        ({"grid": {LR: [0.1, -1.0]}}, "Invalid learning rate"),
        ({"grid": {"trainer.devices": [1, "many"]}}, "devices"),
        ({"grid": {"seed_everything": [1, 2]}}, "grid.seed_everything cannot vary, .*: list the seeds under seeds"),
        ({"arms": {"a": {"grid": {"run_dir": ["b"]}}}}, "arms.a.grid.run_dir cannot vary, .* --study_dir"),
        (
            {"grid": {LR: [0.1, 1.0]}, "arms": {"a": {"grid": {"model.optimizer.lr": [0.5]}}}},
            f"{LR} and model.optimizer.lr are one option",
        ),
        (
            {"grid": {LR: [0.1], "model.optimizer": [{"class_path": "SGD", "init_args": {"lr": 0.5}}]}},
            f"{LR} and model.optimizer are one option",
        ),
        (
            {"grid": {"model.optimizer.lr": [0.1]}, "search": {"trials": 1, "space": {LR: {"float": [0.1, 1]}}}},
            "are one option",
        ),
        ({"search": {"trials": 1, "space": {"threads": {"int": [1, 2]}}}}, "search.space.threads cannot vary"),
        ({"grid": {"model.x": [datetime.date(2020, 1, 2)]}}, "value 2020-01-02 of an option .* in quotes"),
        ({"search": {"trials": 1, "space": {"model.x": {"choice": [b"x", 1]}}}}, "put it in quotes"),
        ({"grid": {"data.init_args.variable": [True, "True"]}}, "has the values true and True, which mean the same"),
        ({"grid": {LR: [-0.00001]}}, "Invalid learning rate: -1e-05"),
        ({"grid": {LR: [0.1, "1e-1"]}}, f"{LR} has the values 0.1 and 1e-1, which mean the same, .* in study: leave"),
        ({"arms": {"a": {"grid": {"model.lam": [1, 1.0]}}}}, "model.lam has the values 1 and 1.0"),
        (
            {"search": {"trials": 1, "space": {LR: {"choice": [0.1, "1e-1"]}, "model.lam": {"choice": [1, 0.9]}}}},
            f"{LR} has the values 0.1 and 1e-1",
        ),
        ({"grid": {"config": ["base.yaml", "./base.yaml"]}}, "config has the values base.yaml and ./base.yaml"),
    ],
)
def test_bad_files_are_refused_before_anything_starts(study: Write, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as error:
        run_study(study(**keys))
    assert "\n" not in str(error.value)
    assert not Path("runs").exists()


def test_numbers_that_an_option_tells_apart_may_both_be_tried(study: Write) -> None:
    """One batch, or all of them: trainer.limit_val_batches takes 1 as a number and 1.0 as a share."""
    run_study(study(grid={"trainer.limit_val_batches": [1, 1.0]}), "--dry_run")


def test_mappings_may_be_tried(study: Write) -> None:
    """Their text is in the folder's name, which need not be YAML."""
    solved = {"class_path": "Solved", "init_args": {"below_chance": 0.1}}
    run_study(study(grid={"trainer.callbacks": [[solved], []]}), "--dry_run")


def test_what_is_no_number_in_json_is_given_as_yaml_has_it() -> None:
    assert [text(float(value)) for value in ("inf", "-inf", "nan", "1e-9")] == [".inf", "-.inf", ".nan", "1e-09"]
    parser = ConfigParser()
    parser.add_argument("--x", type=float)
    for given, value in ((".inf", math.inf), ("-.inf", -math.inf), ("-1e-05", -1e-5), ("-1.E+3", -1e3), ("-.5", -0.5)):
        assert parser.parse_args(["--x", given]).x == value


def test_what_a_study_overrides_is_told(study: Write) -> None:
    Path("base.yaml").write_text(yaml.safe_dump({**BASE, "seed_everything": 7, "threads": 4, "run_dir": "there"}))
    with pytest.warns(UserWarning) as told:
        run_study(study(seeds=[1, 2]), "--dry_run", tried=False)
    assert [str(one.message) for one in told] == [
        "base.yaml says seed_everything: 7, which has no effect, as the study gives seed_everything to every run: "
        "list the seeds under seeds.",
        "base.yaml says threads: 4, which has no effect, as the study gives threads to every run: "
        "choose their number with --threads.",
        "base.yaml says run_dir: 'there', which has no effect, as the study gives run_dir to every run: "
        "choose the folder with --study_dir.",
    ]
    Path("base.yaml").write_text(yaml.safe_dump({**BASE, "seed_everything": 7, "threads": 4}))
    run_study(study(seeds=[7, 8]), "--dry_run", "--threads", "4", tried=False)  # as the study says: no warning


def test_a_threshold_without_a_point_is_a_number(study: Write) -> None:
    """YAML 1.1 reads 1e-1 as text; the runs would be over before a comparison with it failed."""
    Path("study.yaml").write_text("base: base.yaml\nsuccess: {below: 1e-1}\n")
    assert read_study("study.yaml").below == 0.1
    Path("study.yaml").write_text("base: base.yaml\nsuccess: {below_chance: 2e-1}\n")
    plan = read_study("study.yaml")
    assert plan.below is None and plan.below_chance == 0.2


def test_other_bad_input(study: Write) -> None:
    name = study()
    for options in (
        ["nowhere.yaml"],
        [name, "--only", "1"],
        [name, "--threads", "0"],
        [name, "--processes", "-1"],
        [name, "--processes", "0"],
    ):
        with pytest.raises(UserError):
            run_study(*options)
    Path("study.yaml").write_text("base: [")
    with pytest.raises(UserError, match="not YAML"):
        run_study("study.yaml")
    Path("study.yaml").write_text("")
    with pytest.raises(UserError, match="mapping"):
        run_study("study.yaml")


def test_some_arms_alone(study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    name = study(grid={LR: [0.1, 0.01]}, seeds=[1, 2], arms={"a": {}, "b": {}, "c": {}}, best={"test": True})
    run_study(name, "--dry_run", "--arms", "c", "a", tried=False)
    out = capsys.readouterr().out
    assert out.count(" fit ") == 8 and "a-lr=0.1-seed=1" in out and "c-lr=0.01-seed=2" in out and "b-lr" not in out
    for options, named in (
        (["--arms", "a", "d"], "--arms is 'd', but it must be an arm of study.yaml; they are a, b, c"),
        (["--arms", "a", "--only", "0"], "--only is 0, but it must be left out with --arms"),
        (["--arms", "a", "--export", "slurm"], "--export is 'slurm', but it must be left out with --arms"),
    ):
        with pytest.raises(UserError, match=re.escape(named)):
            run_study(name, *options, tried=False)
