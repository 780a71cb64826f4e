"""An evaluation from what was asked to its files; one model, or every run of some studies."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.errors import UserError, as_in_yaml
from lit_rnn.commands.attack.findings import as_json, example_rows
from lit_rnn.commands.attack.many.page import collect
from lit_rnn.commands.attack.many.subject import finished_runs
from lit_rnn.commands.attack.measure import Outcome, plan, run_shots
from lit_rnn.commands.attack.page import show, write_page
from lit_rnn.commands.attack.pictures import draw_all
from lit_rnn.commands.attack.subject import Subject, describe, read_subject
from lit_rnn.files import check_folder, in_whole, make_folder, read_json, refuse_links, write_csv, write_json
from lit_rnn.robustness import Effort
from lit_rnn.robustness.certified import Smoothing
from lit_rnn.robustness.shots import Shot, gradients_of, seconds_per_gradient
from lit_rnn.runs.results import runs_below


def check_device(name: str | None) -> None:
    """Refuse a device that is not there."""
    try:
        torch.empty(0, device=name or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device is {name!r}, which this machine or torch does not have.") from error


def one(options: argparse.Namespace, given: dict[str, Any], console: Console) -> None:
    """Attack one model and leave its report."""
    subject = read_subject(options, given)
    effort = Effort(options.steps, options.restarts, options.queries, options.draws)
    shots = plan(subject, options.attacks, options.norms, options.eps)
    out = options.out or (subject.folder or Path()) / "attack"
    if subject.folder is not None and options.out is None:
        refuse_links(subject.folder)
    claim(out)
    smoothing = Smoothing(options.smoothing_sigma, options.smoothing_draws, options.smoothing_samples, options.seed)
    outcome = run_all(subject, shots, effort, smoothing, options.seed, console)
    write(outcome, out, as_asked(options, given))
    show(outcome, console)
    print(f"report: {out / 'attack.html'}\nnumbers: {out / 'attack.json'}, {out / 'examples.csv'}")


def study(options: argparse.Namespace, given: dict[str, Any], console: Console) -> None:
    """Attack every run of some studies that has no report yet, and set all reports side by side.

    Raises:
        UserError: if a report that is there was made with other options; behind all others, naming the runs that could
            not be attacked.
    """
    for name in ("ckpt_path", "run_dir", "config", "data"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is given beside --study, which takes the runs' own: leave one of them out.")
    runs, asked = finished_runs(options.study), as_asked(options, given)
    for folder in runs:
        path = folder / "attack" / "attack.json"
        before = read_json(path, ["asked"])["asked"] if path.is_file() else asked
        with in_whole(path):
            changed = next((key for key in {**asked, **before} if before.get(key) != asked.get(key)), None)
        if changed:
            raise UserError(
                f"{path} was made with {changed} {as_in_yaml(before.get(changed))}, "
                f"not {as_in_yaml(asked.get(changed))}: "
                "give the same options, or remove that report."
            )
    left = [folder for folder in runs if not (folder / "attack" / "attack.json").is_file()]
    for folder in left:
        check_folder(folder / "attack", "--study: the report")
    summary = options.out or options.study[0]
    refuse_links(summary)
    check_folder(summary, "--out")
    print(f"{len(runs)} runs, {len(runs) - len(left)} with a report, {len(left)} to go", flush=True)
    if unfinished := [run for place in options.study for run in runs_below(place) if not (run / "fit.json").is_file()]:
        print(f"left out, not finished: {', '.join(map(str, unfinished))}", flush=True)
    refused: dict[Path, UserError] = {}
    for number, folder in enumerate(left, 1):
        print(f"{number} of {len(left)}: {folder}", flush=True)
        try:
            one(argparse.Namespace(**{**vars(options), "run_dir": folder, "out": None}), given, console)
        except UserError as error:  # the others are none the worse for a damaged checkpoint
            refused[folder] = error
    if len(refused) == len(runs):  # what was asked for, then
        raise next(iter(refused.values()))
    collect([run for run in runs if run not in refused], summary, console)
    if refused:
        told = " ".join(f"{folder}: {error}" for folder, error in refused.items())
        raise UserError(f"{len(refused)} of {len(runs)} runs could not be attacked, and are left out. {told}")


def as_asked(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The options that numbers depend on, as primitives; those of the data apart, which may have the same names."""
    places = ("ckpt_path", "run_dir", "study", "config", "data", "out", "batch_size", "device", "threads")
    return {
        **{key: value for key, value in vars(options).items() if key not in places},
        **({"data_options": given} if given else {}),
    }


def claim(out: Path) -> None:
    """Refuse a folder that holds a report, or cannot be written.

    Raises:
        UserError: saying what to do.
    """
    if (out / "attack.json").is_file():
        raise UserError(f"{out} already holds a report; name another folder with --out.")
    refuse_links(out)
    make_folder(out, "--out")


def run_all(
    subject: Subject, shots: Sequence[Shot], effort: Effort, smoothing: Smoothing, seed: int, console: Console
) -> Outcome:
    """All shots, with an estimate before and a bar meanwhile."""
    batches = len(list(subject.examples.batches()))
    total = batches * sum(gradients_of(shot, effort) for shot in shots)
    most = datetime.timedelta(seconds=round(total * seconds_per_gradient(subject.examples)))
    print(f"{subject.title}: {len(shots)} attacks on {len(subject.indices)} examples", flush=True)
    print(f"at most about {most}: a fooled example is not computed again", flush=True)
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def tell(what: str, gradients: float) -> None:
            bar.update(task, description=what, advance=gradients)

        return run_shots(subject, shots, effort, smoothing, seed, tell)


def write(outcome: Outcome, out: Path, asked: dict[str, Any]) -> None:
    """attack.json, examples.csv, pictures and attack.html."""
    about = {**describe(outcome.subject), "asked": asked}
    pictures = draw_all(outcome, out / "pictures")
    write_page(outcome, pictures, {**about, "seconds": round(outcome.seconds, 1)}, out / "attack.html")
    write_csv(out / "examples.csv", example_rows(outcome))
    write_json(out / "attack.json", as_json(outcome, about))  # last: marks it as whole
