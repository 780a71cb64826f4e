"""The same study for other machines' schedulers: a W&B sweep, a Slurm array."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from lit_rnn.commands.study.search.space import text
from lit_rnn.commands.study.subject import Study

THEN = "They run the grid. Give the study once more, without --export, for the runs of the best settings."


def sweeps(study: Study) -> dict[str, str]:
    """A W&B sweep for each arm, by file name: ``wandb sweep FILE``, then ``wandb agent`` on every machine."""
    files = {}
    for arm in dict.fromkeys(setting.arm for setting in study.settings):
        ours = [setting for setting in study.settings if setting.arm == arm]
        values: dict[str, list[Any]] = {key: [] for key, _ in ours[0].values}
        for key, value in (pair for setting in ours for pair in setting.values):
            # W&B writes a value as Python does; None, True and lists must reach `fit` as YAML has them
            told = value if type(value) in (int, float, str) else text(value)
            if told not in values[key]:
                values[key].append(told)
        bases = [part for base in ours[0].bases for part in ("-c", base)]
        sweep = {
            "method": "grid",
            "metric": {"name": "val/loss", "goal": "minimize"},
            "command": ["${env}", "python", "-m", "lit_rnn", "fit", *bases, "-c", "loggers/wandb.yaml", "${args}"],
            "parameters": {
                key: {"values": some} for key, some in {**values, "seed_everything": list(study.seeds)}.items()
            },
        }
        files[f"sweep-{arm}.yaml"] = yaml.safe_dump(sweep, sort_keys=False)
    return files


def slurm(study: Study, folder: Path, threads: int) -> dict[str, str]:
    """A Slurm array script, one task per run: ``sbatch study.sbatch``; run the study once more for its table."""
    line = ["python", "-m", "lit_rnn", "study", str(study.path), "--study_dir", str(folder), "--threads", str(threads)]
    place = str(folder).replace("%", "%%")  # which Slurm would read as the start of a name for something
    output = shlex.quote(f"{place}/%x-%a.out")
    script = f"""#!/bin/bash
#SBATCH --job-name={shlex.quote(study.path.stem)}
#SBATCH --array=0-{len(study.runs) - 1}
#SBATCH --cpus-per-task={threads}
#SBATCH --output={output}
{shlex.join(line)} --only "$SLURM_ARRAY_TASK_ID"
"""
    return {"study.sbatch": script}
