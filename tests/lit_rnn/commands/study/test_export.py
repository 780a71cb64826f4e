"""What other schedulers are given."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path

import pytest
import yaml

from datamodules.errors import UserError
from lit_rnn.commands.fit import command as cli
from lit_rnn.commands.study import export
from lit_rnn.commands.study.subject import read_study
from tests.lit_rnn.commands.study.made import LR, Write, run_study


def test_a_sweep_gives_values_as_fit_reads_them(study: Write) -> None:
    """W&B puts --key=value with Python's own spelling: None and True would be words."""
    name = study(grid={"model.init_args.lr_scheduler": [None], "model.init_args.learn_initial_state": [True, False]})
    parameters = yaml.safe_load(export.sweeps(read_study(name))["sweep-study.yaml"])["parameters"]
    given = [f"--{key}={parameters[key]['values'][0]}" for key in parameters]
    assert "--model.init_args.lr_scheduler=null" in given and "--model.init_args.learn_initial_state=true" in given
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.run("fit", ["-c", "base.yaml", *given, "--print_config"])
    options = yaml.safe_load(printed.getvalue())["model"]["init_args"]
    assert options["lr_scheduler"] is None and options["learn_initial_state"] is True


def test_what_other_schedulers_are_given(study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {LR: [0.1, 0.01], "trainer.callbacks": [[]]}
    name = study(grid=grid, seeds=[1, 2], arms={"a": {}, "b": {"grid": {"model.init_args.lam": [0.5]}}})
    run_study(name, "--export", "wandb")
    sweep = yaml.safe_load(Path("runs/study/sweep-b.yaml").read_text())
    assert sweep["method"] == "grid" and sweep["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert sweep["parameters"] == {
        LR: {"values": [0.1, 0.01]},
        "trainer.callbacks": {"values": ["[]"]},
        "model.init_args.lam": {"values": [0.5]},
        "seed_everything": {"values": [1, 2]},
    }
    assert sweep["command"][:7] == ["${env}", "python", "-m", "lit_rnn", "fit", "-c", "base.yaml"]
    assert sweep["command"][-1] == "${args}"
    run_study(name, "--export", "slurm", "--threads", "3", tried=False)
    script = Path("runs/study/study.sbatch").read_text()
    assert json.loads(Path("runs/study/plan.json").read_text()).keys() == {run.name for run in read_study(name).runs}
    assert "#SBATCH --array=0-7\n" in script and "#SBATCH --cpus-per-task=3\n" in script
    words = shlex.split(script.splitlines()[-1])
    assert words[:4] == ["python", "-m", "lit_rnn", "study"] and words[-2:] == ["--only", "$SLURM_ARRAY_TASK_ID"]
    capsys.readouterr()
    run_study(name, "--dry_run", "--only", "5", tried=False)
    told = capsys.readouterr().out
    assert told.startswith("0: python -m lit_rnn fit -c base.yaml ") and "--model.init_args.lam 0.5" in told
    assert export.sweeps(read_study(name)).keys() == {"sweep-a.yaml", "sweep-b.yaml"}


@pytest.mark.parametrize("option", [["--only", "0"], ["--dry_run"]])
def test_what_is_exported_is_the_whole_study(study: Write, option: list[str]) -> None:
    """Of --only 5 the array would have had one task, and that run 0."""
    with pytest.raises(UserError, match=f"{option[0]} .*left out with --export"):
        run_study(study(), "--export", "slurm", *option, tried=False)
    assert not Path("runs").exists()


def test_a_slurm_script_stands_a_folder_of_any_name(study: Write) -> None:
    """A space would end an option, and % begins what Slurm fills in."""
    script = export.slurm(read_study(study()), Path("my runs/50%"), 1)["study.sbatch"].splitlines()
    assert "#SBATCH --output='my runs/50%%/%x-%a.out'" in script
    assert shlex.split(script[-1])[-5:-1] == ["my runs/50%", "--threads", "1", "--only"]
