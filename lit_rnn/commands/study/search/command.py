"""A study with ``search:``, from its file to its table: trials are ordinary runs, and the same command goes on."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import UserError, require
from lit_rnn.commands.study import local, plan
from lit_rnn.commands.study.estimate import budget, took
from lit_rnn.commands.study.search.space import Search
from lit_rnn.commands.study.subject import Run, Setting, Study
from lit_rnn.commands.study.work import tell_estimate
from lit_rnn.report.console import new_console
from lit_rnn.runs.endings import FailedError

if TYPE_CHECKING:
    from lit_rnn.commands.study.search.trial import Objective
    from lit_rnn.commands.study.search.watch import Arm


def run(
    study: Study,
    folder: Path,
    processes: int,
    options: argparse.Namespace,
    check: Callable[[Sequence[Run], Path, bool], object],
) -> None:
    """Draw and run trials until there are as many as the study asks for; end with tables and pictures.

    ``check`` refuses what any of some runs in a folder would be refused for, on this machine or elsewhere.

    Raises:
        UserError: if Optuna is not installed, or the storage cannot be used, or holds another search.
        FailedError: if trials failed, or none has come to its end.
    """
    search = study.search
    assert search is not None
    for name in ("only", "export"):
        given = getattr(options, name)
        require(given is None, f"--{name}", given, "left out with search, which several processes can work at")
    if importlib.util.find_spec("optuna") is None:
        what = "search needs the Python package optuna, which is not installed"
        raise UserError(f"{what}: pip install 'lit_rnn[search]'.")
    path = search.storage or folder / "search.db"
    if search.storage is not None and not path.parent.is_dir():
        raise UserError(f"search.storage is {path}, but there is no folder {path.parent}: make it, or name another.")
    from lit_rnn.commands.study.search.trial import middle, objective, probes  # here: Lightning takes seconds

    check(probes(study, search), folder, not options.dry_run)
    if options.dry_run:
        for setting in study.settings:
            space = "; ".join(one.told() for one in search.spaces[setting.arm])
            print(
                f"{setting.arm}: {search.trials} trials by {search.sampler}, pruner {search.pruner}: {space}; such as"
            )
            print(shlex.join(["python", *local.command(middle(study, search, setting), folder, options.threads)[1:]]))
        return
    objectives = [objective(setting, search) for setting in study.settings]
    folder.mkdir(parents=True, exist_ok=True)
    failed = _work(study, search, path, objectives, folder, processes, options.threads)
    if failed:
        raise FailedError(f"{len(failed)} trials failed; the same command replaces them: {', '.join(failed)}.")


def _work(
    study: Study,
    search: Search,
    path: Path,
    objectives: Sequence[Objective],
    folder: Path,
    processes: int,
    threads: int,
) -> list[str]:
    """Trials that failed, by name, when there is no other left to run and all is reported."""
    from lit_rnn.commands.study.search.storage import Storage, Trials  # here: Optuna need not be there
    from lit_rnn.commands.study.search.watch import Arm

    storage = Storage(path)
    try:
        arms = [
            Arm(one, goal, Trials(storage, one.arm, search, _plan(study, search, one), goal.higher))
            for one, goal in zip(study.settings, objectives, strict=True)
        ]
        failed = _run(study, search, arms, folder, processes, threads)
        _report(study, arms, folder)
    finally:
        storage.close()
    return failed


def _plan(study: Study, search: Search, setting: Setting) -> dict[str, object]:
    """What trials must share to be compared; how many there are may change."""
    return {
        "options": [*setting.arguments(), "--seed_everything", str(study.seeds[0])],
        "base configs": [Path(one).read_text(encoding="utf-8") for one in setting.configs],
        "space": [repr(one) for one in search.spaces[setting.arm]],
        "sampler": [search.sampler, search.seed],
        "pruner": [search.pruner, dict(search.pruner_options)],
        "objective": search.objective,
    }


def _run(study: Study, search: Search, arms: Sequence[Arm], folder: Path, processes: int, threads: int) -> list[str]:
    """Run what is left, with a line for each trial that has ended; gives the names of those that failed."""
    from lit_rnn.commands.study.search.trial import middle, run_of
    from lit_rnn.commands.study.search.watch import Watch

    begun = plan.texts(study.settings)
    wanted, left = search.trials * len(arms), sum(arm.trials.left for arm in arms)
    place = arms[0].trials.storage.path
    print(f"{wanted} trials in {place}: {wanted - left} finished, {left} to go, {processes} side by side", flush=True)
    if not left:
        print("The search is finished: nothing is left to run. Raise search.trials to go on.")
        return []
    runs = [middle(study, search, arm.setting) for arm in arms for _ in range(arm.trials.left)]
    print(f"to go: {budget(runs)} at most", flush=True)
    done = [
        run_of(study, arm.setting, row.number, row.values)
        for arm in arms
        for row in arm.trials.rows()
        if row.state == "complete"  # not one that was stopped early
    ]
    tell_estimate(runs, processes, threads, took(done, folder))
    watch = Watch(study, search, arms, folder)
    pool = local.Pool(folder, processes, threads, watch.ended, watch.look)
    pool.run_all(plan.unchanged(begun, watch.claimed()))
    return watch.failed


def _report(study: Study, arms: Sequence[Arm], folder: Path) -> None:
    from lit_rnn.commands.study.search import measure, page, pictures
    from lit_rnn.commands.study.search.trial import run_of

    def summed_up(arm: Arm) -> measure.Found:
        return measure.summed_up(arm.objective, lambda number: run_of(study, arm.setting, number, {}).name, arm.trials)

    found = [summed_up(arm) for arm in arms]
    if all(one.best is None for one in found):
        raise FailedError(f"no trial has come to its end; the logs are in {folder}.")
    measure.write(found, folder)
    console = new_console()
    for table in page.tables(found):
        console.print(table.terminal())
    for note in page.notes(found):
        print(note)
    for picture in pictures.draw(found, folder):
        print(f"picture: {picture}")
    print(f"numbers: {folder / 'search.json'}, {folder / 'search.csv'}")
