"""``python -m lit_rnn study FILE``."""

from __future__ import annotations

import functools
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import require
from lit_rnn.commands.parser import Parser
from lit_rnn.commands.study import export, local, plan, tried, work
from lit_rnn.commands.study.best import every, following
from lit_rnn.commands.study.estimate import budget
from lit_rnn.commands.study.search import command as searching
from lit_rnn.commands.study.subject import overridden, read_study
from lit_rnn.files import check_folder, make_folder, refuse_links, write_file
from lit_rnn.runs.endings import FailedError
from lit_rnn.threads import cores


def run(command: str, arguments: Sequence[str], try_out: tried.TryOut) -> None:
    """Run every setting and seed of a study file, or the trials of its search, or what is left; end with a table."""
    check = functools.partial(tried.check, try_out)
    options = parser(command).parse_args(list(arguments))
    study = whole = read_study(options.file)
    if options.arms is not None:
        for name in ("only", "export"):  # which count the runs of the whole file
            require(getattr(options, name) is None, f"--{name}", getattr(options, name), "left out with --arms")
        study = study.of_arms(options.arms)
    for line in overridden(study, options.threads):
        warnings.warn(line, stacklevel=2)
    folder = options.study_dir or Path("runs", study.path.stem)
    refuse_links(folder)
    if not options.dry_run:
        check_folder(folder, "--study_dir")
    require(options.threads >= 1, "--threads", options.threads, "a whole number of at least 1")
    processes = max(1, cores() // options.threads) if options.processes is None else options.processes
    require(processes >= 1, "--processes", processes, "a whole number of at least 1")
    if study.search is not None:
        return searching.run(study, folder, processes, options, check)
    if options.export:  # whose tasks count all runs of the file
        require(options.only is None, "--only", options.only, "left out with --export, which is for all runs")
        require(not options.dry_run, "--dry_run", True, "left out with --export, which runs nothing")
    if options.only is not None:
        last = len(study.runs) - 1
        require(0 <= options.only <= last, "--only", options.only, f"a run from 0 to {last}")
        study = study.only(study.runs[options.only])
    runs = study.runs
    sizes = check(runs, folder, here=not (options.export or options.dry_run))
    if options.export:
        files = export.sweeps(study) if options.export == "wandb" else export.slurm(study, folder, options.threads)
        with work.alone(folder):
            work.claim(study, folder)  # that the tasks of an array run one by one
        for name, text in files.items():
            write_file(folder / name, text)
            print(f"written: {folder / name}")
        return print(export.THEN) if study.best is not None else None
    if options.dry_run:
        for number, one in enumerate(runs):
            print(f"{number}: {shlex.join(['python', *local.command(one, folder, options.threads)[1:]])}")
        print(f"parameters: {tried.in_words(sizes)}")
        if study.best is not None:
            print(f"then, for the best setting of each arm on validation: {following(study)}")
        print(f"{budget(every(study))} at most")
        return
    if options.only is not None:
        plan.check(whole.trainings, folder, plan.read(folder))  # written down by nobody: others may run beside it
        make_folder(folder, "--study_dir")
        failed = work.run_left(study, folder, processes, options.threads, estimated=False)
    else:
        with work.alone(folder):
            work.claim(whole, folder)  # some arms alone are of the same study as the others
            failed = work.run_left(study, folder, processes, options.threads, estimated=True)
            work.report(study, folder)
    if failed:
        names = ", ".join(one.told for one in failed)
        raise FailedError(f"{work.counted(failed, every(study))} failed; the same command tries them again: {names}.")


def parser(command: str) -> Parser:
    """The options."""
    made = Parser(command, run.__doc__)
    made.add_argument("file", help="the study, or the name of a shipped one such as studies/quickstart.yaml")
    made.add_argument("--study_dir", type=Path, help="where the run folders go (runs/<name of the file>)")
    made.add_argument("--threads", type=int, default=1, help="CPU threads of each run (1)")
    made.add_argument(
        "--processes",
        type=int,
        help="runs at a time; by default as many as the cores, or Slurm's or a container's limit, allow",
    )
    made.add_argument("--dry_run", action="store_true", help="only tell the commands, the parameters and the budget")
    made.add_argument("--only", type=int, metavar="I", help="only run number I, from 0 (for job arrays)")
    made.add_argument("--arms", nargs="+", metavar="ARM", help="only the runs of these arms, and their table")
    made.add_argument(
        "--export", choices=("wandb", "slurm"), help="write files for another scheduler instead of running"
    )
    return made
