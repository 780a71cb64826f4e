"""The trials that this process runs: claimed, watched after every validation, and told to the storage when they end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_rnn.commands.study import plan
from lit_rnn.commands.study.local import has_diverged, how_ended
from lit_rnn.commands.study.search.space import Search
from lit_rnn.commands.study.search.storage import Trials
from lit_rnn.commands.study.search.trial import Objective, run_of
from lit_rnn.commands.study.subject import Run, Setting, Study
from lit_rnn.runs.lock import in_use
from lit_rnn.runs.results import is_finished


@dataclass(frozen=True)
class Arm:
    """An arm of the study: its setting, what its trials are judged by, and the trials."""

    setting: Setting
    objective: Objective
    trials: Trials


@dataclass
class _Going:
    arm: Arm
    number: int
    reported: int
    pruned: bool = False
    size: int = field(default=-1)


class Watch:
    """Feeds a `Pool` with trials, and hears from it how they end."""

    def __init__(self, study: Study, search: Search, arms: Sequence[Arm], folder: Path) -> None:
        self.study, self.arms, self.folder = study, arms, folder
        self.prunes = search.pruner != "none"
        self.failed: list[str] = []
        self._going: dict[Run, _Going] = {}

    def claimed(self) -> Iterator[Run]:
        """Trials to run, until there is none left; one whose run has finished already is only told.

        Raises:
            UserError: if the folder of a trial holds a run with other values.
        """
        for arm in self.arms:

            def is_run(number: int, arm: Arm = arm) -> bool:
                return in_use(self.folder / run_of(self.study, arm.setting, number, {}).name)

            while (found := arm.trials.claim(is_run)) is not None:
                run = run_of(self.study, arm.setting, found.number, found.values)
                plan.check([run], self.folder, {})  # of another storage, maybe, by the same name
                self._going[run] = _Going(arm, found.number, found.reported)
                if is_finished(self.folder / run.name):
                    self.ended(run, 0, 0.0)
                else:
                    yield run

    def look(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        """Stop a run that the pruner gives up; it saves, as ever."""
        going = self._going[run]
        metrics = self.folder / run.name / "metrics.csv"
        if not self.prunes or going.pruned or not metrics.is_file() or metrics.stat().st_size == going.size:
            return
        going.size = metrics.stat().st_size
        if self._report(run):
            going.pruned = True
            process.terminate()

    def _report(self, run: Run) -> bool:
        """Tell the storage of new validations; whether the run should end."""
        going = self._going[run]
        curve = going.arm.objective.curve(self.folder / run.name)
        new, going.reported = list(enumerate(curve))[going.reported :], max(going.reported, len(curve))
        return any([going.arm.trials.report(going.number, step, value) for step, value in new])

    def ended(self, run: Run, status: int, seconds: float) -> None:
        """Tell the storage, and print, how a run has ended."""
        going = self._going[run]
        arm, number = going.arm, going.number
        self._report(run)
        value = arm.objective.best(arm.objective.curve(self.folder / run.name))
        if status == 0 and value is not None:
            arm.trials.complete(number, value)
            what = f"best {arm.objective.column} {value:.4g}"
        elif going.pruned or has_diverged(self.folder, run):
            what = f"pruned after {going.reported} validations" if going.pruned else "diverged"
            arm.trials.prune(number, what)
        else:
            what = how_ended(status, self.folder, run) if status else f"no {arm.objective.column}"
            arm.trials.fail(number, what)
            self.failed.append(run.name)
        del self._going[run]
        print(f"{run.name}: {what}, {seconds:.0f} s", flush=True)
