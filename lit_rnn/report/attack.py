"""``python -m lit_rnn attack``: how much of a model's accuracy is left under attack."""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules import UserError
from datamodules.errors import require
from lit_rnn.files import read_json, refuse_links
from lit_rnn.report.attack_certificates import Smoothing
from lit_rnn.report.attack_outcome import (
    Outcome,
    Shot,
    as_json,
    example_rows,
    gradients_of,
    plan,
    run_shots,
    seconds_per_gradient,
)
from lit_rnn.report.attack_page import show, write_page
from lit_rnn.report.attack_pictures import draw_all
from lit_rnn.report.attack_study import collect, finished_runs
from lit_rnn.report.attack_subject import Subject, describe, read_subject
from lit_rnn.report.console import new_console
from lit_rnn.report.trained import data_options
from lit_rnn.robustness import ATTACKS, Effort
from lit_rnn.threads import use_threads


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m lit_rnn attack --help.")


def _size(text: str) -> float:
    """0.1, 1e-2 or 8/255."""
    return float(Fraction(text)) if "/" in text else float(text)


def parser() -> argparse.ArgumentParser:
    """The options, with their defaults in words."""
    effort = Effort()
    made = _Parser(prog="python -m lit_rnn attack", description=run.__doc__, allow_abbrev=False)
    what = made.add_argument_group("what is attacked")
    what.add_argument("--ckpt_path", help="a checkpoint file, or best or last with --run_dir")
    what.add_argument("--run_dir", type=Path, help="a run folder: its best checkpoint, and its data")
    what.add_argument("--study", type=Path, nargs="+", metavar="DIR", help="every run of these studies, and one table")
    what.add_argument("-c", "--config", type=Path, help="take the data from this config, not from the run folder's")
    what.add_argument("--data", help="a data module; --data.init_args.KEY VALUE sets its options")
    what.add_argument("--split", choices=("test", "val", "train"), default="test")
    what.add_argument("--samples", type=int, help="examples, drawn by --seed; 200 if the split has them")
    what.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    how = made.add_argument_group("how")
    how.add_argument("--attacks", nargs="+", metavar="NAME", help=f"all that apply of {', '.join(ATTACKS)}")
    how.add_argument("--norms", nargs="+", metavar="NORM", help="inf, 2 or both; both, or inf where --eps is given")
    how.add_argument("--eps", nargs="+", type=_size, metavar="E", help="sizes in the inputs' own units, 8/255 is one")
    how.add_argument("--bounds", nargs=2, type=float, metavar=("LOW", "HIGH"), help="valid inputs; the data's own")
    how.add_argument("--symbols", choices=("swaps", "embedding"), help="how symbols are attacked; swaps")
    how.add_argument("--tolerance", type=float, help="how far off a predicted number is wrong; 0.04 for adding")
    how.add_argument("--steps", type=int, default=effort.steps, help=f"of PGD; {effort.steps}")
    how.add_argument("--restarts", type=int, default=effort.restarts, help=f"starts of PGD; {effort.restarts}")
    how.add_argument("--queries", type=int, default=effort.queries, help=f"of searches; {effort.queries}")
    how.add_argument("--draws", type=int, default=effort.draws, help=f"of uniform noise; {effort.draws}")
    how.add_argument("--smoothing_sigma", type=float, default=0.25, help="noise of randomised smoothing; 0.25")
    how.add_argument("--smoothing_draws", type=int, default=1000, help="its votes; 1000")
    how.add_argument("--smoothing_samples", type=int, default=20, help="its examples; 20, 0 leaves it out")
    where = made.add_argument_group("where")
    where.add_argument("--out", type=Path, help="folder for the report; attack in the run folder")
    where.add_argument("--batch_size", type=int, default=100, help="examples run at once; 100")
    where.add_argument("--device", help="cpu, cuda, ...; cuda where there is one")
    where.add_argument(
        "--threads", type=int, help="CPU threads; if not given, as many as there are cores, and one for NumPy"
    )
    return made


def run(command: str, arguments: Sequence[str]) -> None:
    """Attack a trained model: accuracy against the size of the perturbation, in the inputs' own units."""
    given = list(arguments)
    options, unknown = parser().parse_known_args(given)
    _check(options)
    torch.set_flush_denormal(True)  # as in training
    use_threads(options.threads)
    if options.study is None:
        one(options, unknown, new_console())
    else:
        study(options, unknown, new_console())


def one(options: argparse.Namespace, unknown: list[str], console: Console) -> None:
    """Attack one model and leave its report."""
    subject = read_subject(options, unknown)
    effort = Effort(options.steps, options.restarts, options.queries, options.draws)
    shots = plan(subject, options.attacks, options.norms, options.eps)
    out = options.out or (subject.folder or Path()) / "attack"
    if subject.folder is not None and options.out is None:
        refuse_links(subject.folder)
    claim(out)
    smoothing = Smoothing(options.smoothing_sigma, options.smoothing_draws, options.smoothing_samples)
    outcome = _run(subject, shots, effort, smoothing, options.seed, console)
    write(outcome, out, as_asked(options, unknown))
    show(outcome, console)
    print(f"report: {out / 'attack.html'}\nnumbers: {out / 'attack.json'}, {out / 'examples.csv'}")


def study(options: argparse.Namespace, unknown: list[str], console: Console) -> None:
    """Attack every run of some studies that has no report yet, and set all reports side by side.

    Raises:
        UserError: if a report that is there was made with other options.
    """
    for name in ("ckpt_path", "run_dir", "config", "data"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is given beside --study, which takes the runs' own: leave one of them out.")
    runs, asked = finished_runs(options.study), as_asked(options, unknown)
    for folder in runs:
        path = folder / "attack" / "attack.json"
        before = read_json(path, ["asked"])["asked"] if path.is_file() else asked
        changed = next((key for key in asked if before.get(key) != asked[key]), None)
        if changed:
            raise UserError(
                f"{path} was made with {changed} {before.get(changed)}, not {asked[changed]}: "
                "give the same options, or remove that report."
            )
    left = [folder for folder in runs if not (folder / "attack" / "attack.json").is_file()]
    print(f"{len(runs)} runs, {len(runs) - len(left)} with a report, {len(left)} to go", flush=True)
    for number, folder in enumerate(left, 1):
        print(f"{number} of {len(left)}: {folder}", flush=True)
        one(argparse.Namespace(**{**vars(options), "run_dir": folder, "out": None}), unknown, console)
    refuse_links(options.out or options.study[0])
    collect(runs, options.out or options.study[0], console)


def as_asked(options: argparse.Namespace, unknown: list[str]) -> dict[str, Any]:
    """The options that numbers depend on, as primitives."""
    places = ("ckpt_path", "run_dir", "study", "config", "data", "out", "batch_size", "device", "threads")
    return {
        **{key: value for key, value in vars(options).items() if key not in places},
        **data_options(unknown, "attack"),
    }


def _check(options: argparse.Namespace) -> None:
    for name in ("batch_size", "smoothing_draws"):
        value = getattr(options, name)
        require(value is None or value >= 1, f"--{name}", value, "a whole number of at least 1")
    require(options.seed >= 0, "--seed", options.seed, "0 or a positive whole number")
    require(options.smoothing_samples >= 0, "--smoothing_samples", options.smoothing_samples, "0 or positive")
    require(options.smoothing_sigma > 0, "--smoothing_sigma", options.smoothing_sigma, "positive")
    try:
        torch.empty(0, device=options.device or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device is {options.device!r}, which this machine or torch does not have.") from error


def claim(out: Path) -> None:
    """Refuse a folder that holds a report, or cannot be written.

    Raises:
        UserError: saying what to do.
    """
    if (out / "attack.json").is_file():
        raise UserError(f"{out} already holds a report; name another folder with --out.")
    refuse_links(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made ({error.strerror}); name a writable folder.") from error


def _run(
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
    rows = example_rows(outcome)
    with (out / "examples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (out / "attack.json").write_text(json.dumps(as_json(outcome, about), indent=1) + "\n")  # last: marks it as whole
