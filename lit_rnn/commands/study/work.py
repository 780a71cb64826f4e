"""What a study does: its folder is claimed, what is left of it is run, and what it found is told."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lit_rnn.commands.study import local, plan
from lit_rnn.commands.study.best import Queue, ahead, diverged, every, undecided
from lit_rnn.commands.study.estimate import budget, estimate, took
from lit_rnn.commands.study.subject import Run, Study, numbers
from lit_rnn.files import make_folder, remove_partial
from lit_rnn.report.console import new_console
from lit_rnn.runs.endings import FailedError
from lit_rnn.runs.lock import Lock


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a study's folder for this process."""
    make_folder(folder, "--study_dir")
    lock = Lock(folder, "study_dir")
    try:
        remove_partial(folder)
        yield
    finally:
        lock.release()


def claim(study: Study, folder: Path) -> None:
    """Write the plan down, and wait for nobody.

    Raises:
        UserError: as `plan.check_idle` of each, and `plan.claim`.
    """
    for run in study.trainings:
        plan.check_idle(folder / run.name)
    for line in plan.claim(study.trainings, folder):  # those that may follow, too: which do is known when they are due
        print(line)


def counted(runs: Sequence[Run], of: Sequence[Run]) -> str:
    """In words: 1 of 6 runs and 2 of 4 tests."""
    parts = []
    for command, what in (("fit", "runs"), ("test", "tests")):
        some, all_of_them = (sum(run.command == command for run in given) for given in (runs, of))
        parts += [f"{some} of {all_of_them} {what}"] if some else []
    return " and ".join(parts)


def _bar(what: str) -> Progress:
    console = new_console()
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)


def tell_estimate(runs: Sequence[Run], processes: int, threads: int, finished: Sequence[tuple[Run, float]]) -> None:
    """Print how long ``runs`` will take, as `estimate` has it, and what one waits for where arms are tried for it."""
    with _bar("arms tried for the estimate") as bar:

        def tell(done: int, of: int) -> None:
            if not bar.tasks:
                bar.add_task("arms", total=of)
                print(f"a short run of each of {of} arms is tried, to say how long all will take", flush=True)
            bar.update(bar.tasks[0].id, completed=done)

        seconds, others = estimate(runs, processes, threads, finished, tell)
    print(f"about {datetime.timedelta(seconds=round(seconds))} if all take as long as {others}", flush=True)


def run_left(study: Study, folder: Path, processes: int, threads: int, estimated: bool) -> list[Run]:
    """Run what is not finished, with a progress bar; gives the runs that failed."""
    begun, left, planned = plan.texts(study.settings), ahead(study, folder), every(study, folder)
    finished = [run for run in planned if local.is_done(run, folder)]
    out = diverged([run for run in planned if run.command == "fit"], folder)
    parts = [f"{numbers(finished)} finished", *([f"{len(out)} diverged"] if out else []), f"{numbers(left)} to go"]
    print(f"{numbers(planned)} in {folder}: {', '.join(parts)}, {processes} side by side")
    if not left:
        return []
    if estimated:
        print(f"to go: {budget(left)} at most", flush=True)
    if estimated and (trainings := [run for run in left if run.command == "fit"]):
        tell_estimate(trainings, processes, threads, took(study.trainings, folder))
    with _bar("runs") as bar:
        task = bar.add_task("runs", total=len(left))

        def tell(one: Run, status: int, seconds: float) -> None:
            bar.advance(task)
            out = status != 0 and one.command == "fit" and local.has_diverged(folder, one)
            queue.ended(one, out)
            what = f"diverged, see {local.log(folder, one)}" if out else local.how_ended(status, folder, one)
            what = "done" if status == 0 else what
            bar.console.print(f"{one.told}: {what}, {seconds:.0f} s", highlight=False, soft_wrap=True)

        queue = Queue(study, folder)
        pool = local.Pool(folder, processes, threads, tell)
        ended = pool.run_all(plan.unchanged(begun, queue.runs()))
    return [one for one, status in ended.items() if status and one not in queue.diverged]


def report(study: Study, folder: Path) -> None:
    from lit_rnn.commands.study import measure, page, pictures

    rows = measure.results(study, folder)
    if all(row["diverged"] for row in rows):
        raise FailedError(f"no run of {study.path} has finished; the logs are in {folder}.")
    for arm in undecided(study, folder):
        print(f"{arm} has no best setting: a run of it is missing, or all have diverged")
    for line in filter(None, [*plan.drifted(study.trainings, folder), measure.without_curve(rows, folder)]):
        print(line)
    settings = measure.over_seeds(rows)
    measure.write(rows, settings, folder)
    new_console().print(page.table(rows, settings).terminal())
    for picture in pictures.draw(rows, settings, folder):
        print(f"picture: {picture}")
    print(f"numbers: {', '.join(str(folder / name) for name in ('study.json', 'study.csv', 'study_means.csv'))}")
