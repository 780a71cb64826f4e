"""What follows for the best setting of each arm: chosen on validation, given more seeds, tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lit_rnn.commands.study.estimate import longest
from lit_rnn.commands.study.local import has_diverged, is_done
from lit_rnn.commands.study.measure import over_seeds, results
from lit_rnn.commands.study.subject import Run, Setting, Study


def best_setting(study: Study, arm: str, folder: Path, passed_over: frozenset[Run] = frozenset()) -> Setting | None:
    """The setting with the lowest mean over `seeds` of the best validation loss, the first of those that are equal;
    None while a run is missing, or where none has a finite loss with every seed. The only setting of an arm needs none,
    as where all samples are trained on.

    Args:
        passed_over: Runs whose settings are out, as they diverged; those with further seeds choose nothing.
    """
    ours = [run for run in study.runs if run.setting.arm == arm]
    out = {run.setting.name for run in passed_over if run in ours}
    ours = [run for run in ours if run.setting.name not in out]
    if not ours or not all(is_done(run, folder) for run in ours):
        return None
    if len({setting for setting in study.settings if setting.arm == arm}) == 1:
        return ours[0].setting
    first = over_seeds(results(study, folder, ours))[0]
    found: dict[str, Setting] = {run.setting.name: run.setting for run in ours}
    return found[first["setting"]] if first["best_loss_number"] == first["runs"] else None


def followed(study: Study, best: Setting, folder: Path) -> list[Run]:
    """What follows for the best setting of an arm, whose runs with the study's own seeds have ended."""
    first = [run for run in study.runs if run.setting == best]
    return study.following(best, all(row["success"] for row in results(study, folder, first)))


class Queue:
    """Every run of a study that is not finished, arm by arm: all settings, then what follows for the best of them."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.diverged = set(diverged(study.trainings, folder))  # they would do so again
        self._going: set[Run] = set()
        self._given: set[Run] = set()

    def runs(self) -> Iterator[Run | None]:
        """What to run next; None while that depends on runs which are going."""
        while True:
            run = next((run for arm in self.study.arms for run in self._due(arm)), None)
            if run is not None:
                self._given.add(run)
                self._going.add(run)
                yield run
            elif self._going and self.study.best is not None:
                yield None
            else:
                return

    def _due(self, arm: str) -> Iterator[Run]:
        grid = [run for run in self.study.runs if run.setting.arm == arm]
        yield from self._left(grid)
        if self.study.best is not None and not self._going.intersection(grid):
            best = best_setting(self.study, arm, self.folder, frozenset(self.diverged))
            following = [] if best is None else followed(self.study, best, self.folder)
            yield from (
                run
                for run in self._left(following)
                if run.command == "fit" or is_done(Run(run.setting, run.seed), self.folder)
            )

    def _left(self, runs: list[Run]) -> list[Run]:
        out = self._given | self.diverged
        return [run for run in runs if run not in out and not is_done(run, self.folder)]

    def ended(self, run: Run, diverged: bool) -> None:
        """Take note that a run which was given has ended."""
        self._going.discard(run)
        if diverged:
            self.diverged.add(run)


def every(study: Study, folder: Path | None = None) -> list[Run]:
    """All that a study runs; what follows for a best setting that is not known yet, for the longest of its arm."""
    found = []
    out = frozenset() if folder is None else diverged(study.runs, folder)
    lost = {run.setting for run in out}
    for arm in study.arms:
        found += [run for run in study.runs if run.setting.arm == arm]
        settings = [one for one in study.settings if one.arm == arm and one not in lost]
        if study.best is not None and settings:
            best = None if folder is None else best_setting(study, arm, folder, out)
            found += followed(study, best, folder) if best and folder else study.following(longest(settings))
    return found


def ahead(study: Study, folder: Path) -> list[Run]:
    """What of it is left to run: not what has diverged, nor tests of that."""
    out = diverged(study.trainings, folder)
    return [run for run in every(study, folder) if not is_done(run, folder) and Run(run.setting, run.seed) not in out]


def diverged(runs: Iterable[Run], folder: Path) -> frozenset[Run]:
    """Those of some trainings that have ended so."""
    return frozenset(run for run in runs if not is_done(run, folder) and has_diverged(folder, run))


def undecided(study: Study, folder: Path) -> list[str]:
    """The arms whose best setting is asked for and not known: a run is missing that has not diverged, or all have."""
    if study.best is None:
        return []
    out = diverged(study.runs, folder)
    return [arm for arm in study.arms if best_setting(study, arm, folder, out) is None]


def following(study: Study) -> str:
    """What follows for each best setting, in words: seeds 2, 3 and tests of all its runs."""
    assert study.best is not None
    seeds = f"seeds {', '.join(str(seed) for seed in study.best.seeds)}" if study.best.seeds else ""
    if study.best.if_success:
        seeds += " where it succeeds"
    return " and ".join(part for part in (seeds, "tests of all its runs" if study.best.test else "") if part)
