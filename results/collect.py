"""Copy a run folder into results/ in its thin form: ``python results/collect.py RUN results/TASK/NAME``.

What is kept: config.yaml, versions.json with the commit, fit.json and test.json, and metrics.csv thinned to what
curves need. A run in progress keeps metrics.csv whole and its last.ckpt, so that it goes on bit for bit. No path of the
machine comes along: those of the run folder become the new folder's, any other keeps its last part.

Of a folder of runs, such as a study's, each becomes a folder: ``python results/collect.py STUDY_DIR results/TASK``; one
that has neither ended nor kept a checkpoint is left out.

A study of who tracks and stores becomes one file, in which arms that were not run here stay as they are:
``python results/collect.py STUDY_DIR results/tracking/TASK.json --study FILE``, and so does that of non-normal starts,
``results/nonnormal/runs.json``. One of robustness becomes ``results/robustness/DATA.json``, all of it, once
``attack --study STUDY_DIR`` has attacked it.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attacked
import starts
import studies
import tracking
import yaml

from datamodules.errors import UserError
from lit_rnn.files import make_folder, read_json, read_yaml, refuse_links
from lit_rnn.runs.checkpoints import last_checkpoint
from lit_rnn.runs.curves import is_whole
from lit_rnn.runs.endings import diverged, how_diverged, is_diverged
from lit_rnn.runs.folder import newest_config
from lit_rnn.runs.options import section
from lit_rnn.runs.results import as_kept, is_finished, runs_below

ROWS = 200  # of training losses
_OF_A_STEP = ("epoch", "step", "train/loss_step")
STUDIES = {  # the files that a page shows, by their folder
    "tracking": tuple(tracking.TASKS),
    "robustness": tuple(attacked.TASKS),
    "nonnormal": ("runs",),
}
_KEPT = ("config.yaml", "versions.json", "metrics.csv", "fit.json", "test.json", "diverged.json")


def collect(run: Path, to: Path, commit: str | None = None) -> None:
    """Write the thin form of ``run`` into ``to``, in place of what an earlier call wrote there.

    Raises:
        UserError: if there is no run, if it was resumed with other options, if the commit it began with is not known,
            if a path of the machine is left, or if metrics.csv is not whole.
    """
    path = newest_config(run)
    if path is None or to.is_absolute() or ".." in to.parts:
        what = f"{run} holds no run (no config.yaml)" if path is None else f"{to} is not below the current folder"
        raise UserError(f"{what}: python results/collect.py RUN results/TASK/NAME.")
    studies.check_one_setting(run)
    versions = studies.versions_of(run, commit)
    words = path.read_text()
    told = [str(read_yaml(one, "config").get("run_dir")) for one in run.glob("config*.yaml")]
    rewrite = rewriter([str(run), str(run.resolve()), *told], to)
    config = changed(read_yaml(path, "config"), rewrite) | {"run_dir": to.as_posix(), "ckpt_path": None}
    own = section(section(config, "data"), "init_args")  # files of the user's: where they lay is of that machine
    own |= {key: Path(own[key]).name for key in ("files", "val_files", "test_files") if isinstance(own.get(key), str)}
    out = is_diverged(run)
    state = None if is_finished(run) or out else changed(_read_checkpoint(last_checkpoint(run)), rewrite)
    for value in (config, versions, state):
        changed(value, _refuse_place)  # before anything is written
    if is_finished(run) and not is_whole(run / "metrics.csv", read_json(run / "fit.json", ["steps"])["steps"]):
        raise UserError(
            f"{run / 'metrics.csv'} ends before {run / 'fit.json'} says that the run did: copy it once more."
        )

    refuse_links(to)
    make_folder(to, "the folder in results")
    for name in (*_KEPT, "checkpoints"):
        old = to / name
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    comment = "".join(line for line in words.splitlines(keepends=True) if line.startswith("#"))
    (to / "config.yaml").write_text(comment + yaml.safe_dump(config, sort_keys=False))
    (to / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    for old in to.glob("versions-*.json"):
        old.unlink()
    for name in ("fit.json", "test.json", *sorted(path.name for path in run.glob("versions-*.json"))):
        if (run / name).is_file():
            (to / name).write_text(json.dumps(as_kept(read_json(run / name)), indent=1) + "\n")
    if out:
        said = how_diverged(run)  # without its checkpoint, a path of there
        diverged(to).write_text(json.dumps({"said": said}) + "\n")
    if out and not (run / "metrics.csv").is_file():
        return  # it did so before anything was logged
    if state is None:
        _thin(run / "metrics.csv", to / "metrics.csv")
    else:
        import torch

        shutil.copyfile(run / "metrics.csv", to / "metrics.csv")
        last_checkpoint(to).parent.mkdir()
        torch.save(state, last_checkpoint(to))


def collect_all(folder: Path, to: Path, commit: str | None = None) -> None:
    """`collect` every run in ``folder`` that has ended or kept a checkpoint, each into a folder of its name.

    Raises:
        UserError: if two of them have one name.
    """
    kept = (is_finished, is_diverged, lambda run: last_checkpoint(run).is_file())
    runs = [run for run in runs_below(folder) if any(has(run) for has in kept)]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{folder} holds two runs of the name {twice}, which would become one: collect each by itself.")
    for run in runs:
        collect(run, to / run.name, commit)


def collect_study(study: str, folder: Path, to: Path, commit: str | None = None) -> None:
    """Write what a study has come to so far into one file, in place of what an earlier call wrote there of its arms.

    Raises:
        UserError: as `studies.collected`, `studies.with_arms_of` and `attacked.with_attacks` do, or if a path of the
            machine is left.
    """
    if to.is_absolute() or ".." in to.parts or to.suffix != ".json":
        raise UserError(f"{to} is no .json below the current folder: name results/tracking/TASK.json.")
    if to.stem not in STUDIES.get(to.parent.name, ()):
        known = "; ".join(f"{kind}/ with {', '.join(names)}" for kind, names in STUDIES.items())
        raise UserError(f"No page shows {to}: name one of {known}, and .json.")
    content = studies.collected(study, folder, commit)
    if to.parent.name == "robustness":
        content = attacked.with_attacks(content, folder)
    elif to.parent.name == "nonnormal":
        content = starts.with_henrici(content, folder)
    if to.is_file() and to.parent.name != "robustness":  # whose networks are attacked together
        content = studies.with_arms_of(read_json(to), content)
    changed(content, _refuse_place)
    studies.write(content, to)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    from lit_rnn.models import read_checkpoint

    if not path.is_file():
        raise UserError(f"{path} is missing: the run has neither ended nor kept a checkpoint.")
    return read_checkpoint(path)


def rewriter(folders: Sequence[str], to: Path) -> Callable[[str], str]:
    """What becomes of a text: a path in one of ``folders``, the run's, is one in ``to``; else see `collect`."""
    known = [Path(folder) for folder in folders if len(Path(folder).parts) > 1]  # "val" would also be val/accuracy

    def rewrite(text: str) -> str:
        for folder in known:
            if Path(text).is_relative_to(folder):
                return Path(to, Path(text).relative_to(folder)).as_posix()
        return Path(text).name if _leads_away(text) else text

    return rewrite


def _leads_away(text: str) -> bool:
    """Whether a text is a path that only one machine has."""
    return re.match(r"(/|~|[A-Za-z]:\\)[^\s]", text) is not None or ".." in Path(text).parts


def _refuse_place(text: str) -> str:
    if _leads_away(text) or str(Path.home()) in text:
        raise UserError(f"{text} is a path of this machine, and stays out of results/.")
    return text


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A value with ``change`` applied to every text in it, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        items = {changed(key, change): changed(item, change) for key, item in value.items()}
        return OrderedDict(items) if isinstance(value, OrderedDict) else items  # as torch keeps weights
    if isinstance(value, list | tuple):
        return type(value)(changed(item, change) for item in value)
    return value


def _thin(metrics: Path, to: Path) -> None:
    """Every row that holds more than the loss of one step, and `ROWS` of the others, evenly spread."""
    with metrics.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or []), list(reader)
    alone = [number for number, row in enumerate(rows) if not any(row[key] for key in columns if key not in _OF_A_STEP)]
    stride = max(1, -(-len(alone) // ROWS))
    dropped = set(alone) - set(alone[::stride])
    with to.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row for number, row in enumerate(rows) if number not in dropped)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder, or a folder of runs")
    parser.add_argument("to", type=Path, help="its folder in results/, or that of all of them, or the study's file")
    parser.add_argument("--study", help="the study, of which all finished runs are put into one file")
    parser.add_argument("--commit", help="what the run began with, where its versions.json does not say")
    options = parser.parse_args(arguments)
    try:
        if options.study is None:
            one = newest_config(options.run) is not None or not runs_below(options.run)
            (collect if one else collect_all)(options.run, options.to, options.commit)
        else:
            collect_study(options.study, options.run, options.to, options.commit)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
