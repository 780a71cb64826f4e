"""``python -m lit_rnn analyze``: what training did to the recurrent matrices, as pictures, a table and numbers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from rich.progress import track

from datamodules import UserError
from datamodules.base import Batch
from datamodules.errors import require
from lit_rnn import run_folder
from lit_rnn.files import refuse_links
from lit_rnn.models import SequenceModel, read_checkpoint
from lit_rnn.report.analyze import measure, panels
from lit_rnn.report.analyze.findings import rows, save, table
from lit_rnn.report.analyze.measure import Settings
from lit_rnn.report.analyze.subject import load_finite, validation_batch
from lit_rnn.report.analyze.work import PARTS, Moment, Work, estimate
from lit_rnn.report.console import new_console
from lit_rnn.report.page import Page
from lit_rnn.report.trained import check_data, data_options, find_checkpoint, read_data
from lit_rnn.threads import use_threads


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m lit_rnn analyze --help.")


def run(command: str, arguments: Sequence[str]) -> None:
    """Take the recurrent matrices of a checkpoint apart: pictures, a table, analysis.json and analysis.html."""
    options, given_data = _options(command, arguments)
    use_threads(options.threads)
    path = find_checkpoint(options.ckpt_path, options.run_dir, "last")
    moments = _moments(path, options.against)
    settings = Settings(options.points, options.steps, options.samples)
    batch, missing = _batch(path, moments[-1].model, options, given_data)
    parts = options.only or PARTS
    if missing and "dynamics" in (options.only or ()):
        raise UserError(f"--only names dynamics, which need the run's data: {missing}")
    work = Work(moments, batch, parts, settings)
    if not work.subjects and "dynamics" not in (options.only or ()):
        raise UserError(
            f"ckpt_path {path} holds a {type(moments[-1].model).__name__}, which has no square recurrent matrix; "
            "--only dynamics looks at its step Jacobian."
        )
    folder = _folder(options.out, path, options.against)
    if sentence := estimate(work):
        print(sentence, flush=True)
    work.run()
    missed = [f"Dynamics are left out: {missing}"] if missing and "dynamics" in parts else []
    _write(work, [*missed, *work.sentences], folder)


_PARTS = """parts: spectrum: eigenvalues and singular values; pseudospectrum: contours, and how far they reach;
nonnormality: Henrici's departure, Schur form, hidden chain; transient: |W^k| and its bounds; memory: Fisher's and a
linear decoder's; dynamics, on validation data: Lyapunov exponents, gradients, the mean step Jacobian as a matrix"""


def _options(command: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = _Parser(prog=f"python -m lit_rnn {command}", description=run.__doc__, epilog=_PARTS, allow_abbrev=False)
    add = parser.add_argument
    add("--ckpt_path", metavar="FILE", help="a checkpoint file, or last or best with --run_dir")
    add("--run_dir", type=Path, metavar="DIR", help="a run folder; its last checkpoint if no other is named")
    add("-c", "--config", type=Path, help="take the data from this config, not from the run folder's")
    add("--data", help="a data module; --data.init_args.KEY VALUE sets its options")
    add("--against", metavar="WHAT", help="init, where the run began, or a checkpoint file of the same model")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where it all goes; analysis/<checkpoint> in the run folder",
    )
    add("--only", nargs="+", metavar="PART", help=f"some of {', '.join(PARTS)}")
    add("--points", type=int, default=100, help="of the pseudospectrum's grid, per axis (100)")
    add("--samples", type=int, default=8, help="validation sequences for the dynamics (8)")
    add("--steps", type=int, default=100, help="powers of W, and lags of its memory (100)")
    add("--threads", type=int, help="CPU threads; if not given, as many as there are cores, and one for NumPy")
    options, unknown = parser.parse_known_args(list(arguments))
    for name, least in (("points", 2), ("samples", 1), ("steps", 1)):
        value = getattr(options, name)
        require(value is None or value >= least, f"--{name}", value, f"a whole number of at least {least}")
    for name in options.only or ():
        require(name in PARTS, "--only", name, f"some of {', '.join(PARTS)}")
    return options, data_options(unknown, command)


# ---- what is taken apart


def _moments(path: Path, against: str | None) -> list[Moment]:
    """The model of the checkpoint, last; before it the one to compare with, if any."""
    paths = [path] if against is None else [_other(path, against), path]
    models = [load_finite(one) for one in paths]
    for model in models[:-1]:
        _require_same(paths[0], model, path, models[-1])
    return [Moment(*one) for one in zip(_labels(paths, models), paths, models, strict=True)]


def _labels(paths: Sequence[Path], models: Sequence[SequenceModel]) -> list[str]:
    """What tells checkpoints apart: their steps, with run folders or file names where that needs it."""
    steps = [f"step {model.optimizer_steps:,}" for model in models]
    runs = [run_folder.folder_of(path) for path in paths]
    if None not in runs and len(set(runs)) > 1:
        return [f"{run.name}, {step}" for run, step in zip(runs, steps, strict=True) if run]
    return steps if len(set(steps)) == len(steps) else [str(path) for path in paths]


def _other(path: Path, against: str) -> Path:
    if against != "init":
        return Path(against)
    folder = run_folder.folder_of(path)
    start = run_folder.initial_checkpoint(folder) if folder else None
    if start is None or not start.is_file():
        raise UserError(
            f"--against is init, but there is no init.ckpt beside {path}: fit keeps one where a run begins, not where "
            "it takes up a checkpoint of another folder; name a checkpoint file instead."
        )
    return start


def _require_same(other_path: Path, other: SequenceModel, path: Path, model: SequenceModel) -> None:
    if type(other) is not type(model):
        raise UserError(
            f"--against {other_path} holds a {type(other).__name__}, but {path} a {type(model).__name__}: "
            "name a checkpoint of the same model."
        )
    shapes, others = ({name: t.shape for name, t in m.weights_in(m.state_dict()).items()} for m in (model, other))
    if shapes != others:
        raise UserError(
            f"--against {other_path} holds a {type(other).__name__} of other sizes than {path}: "
            "name a checkpoint of the same sizes and task."
        )


def _batch(
    path: Path, model: SequenceModel, options: argparse.Namespace, given: dict[str, Any]
) -> tuple[Batch | None, str]:
    """Validation sequences, or why there are none.

    Raises:
        UserError: if there are none of the data that the options name.
    """
    try:
        data = read_data(path, options.config, options.data, given, seed=0)
        check_data(data, read_checkpoint(path), path)
        return validation_batch(data, options.samples), ""
    except UserError as error:
        if options.config or options.data or given:
            raise
        return None, str(error)


def _folder(given: Path | None, path: Path, against: str | None) -> Path:
    """Where the report goes, made."""
    run = run_folder.folder_of(path) or Path()
    name = path.stem if against is None else f"{path.stem}-against-{Path(against).stem}"
    folder = given or run / "analysis" / name
    refuse_links(folder if given else run / "analysis" if run == Path() else run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {folder} cannot be made ({error.strerror}); name a folder that can be written."
        ) from error
    return folder


# ---- what is left


def _write(work: Work, left_out: Sequence[str], folder: Path) -> None:
    moments, findings = work.moments, work.findings
    model = moments[-1].model
    title = f"{type(model).__name__} on {model.task.name}: {' and '.join(moment.label for moment in moments)}"
    head = {
        "model": type(model).__name__,
        "task": model.task.name,
        "moments": {
            moment.label: {"ckpt_path": moment.path, "steps": moment.model.optimizer_steps} for moment in moments
        },
        "parts": [*work.parts, *(["dynamics"] if work.batch else [])],
        "settings": {**asdict(work.settings), "eps": measure.EPS, "decoder_noise": measure.NOISE},
    }
    page = Page(title)
    page.text(", ".join(f"{moment.label}: {moment.path}" for moment in moments))
    for sentence in left_out:
        page.text(sentence, warning=True)
    console = new_console()
    hidden = not console.is_terminal
    for name, by_moment in track(
        findings.items(), "pictures", len(findings), console=console, transient=True, disable=hidden
    ):
        page.section(name)
        picture = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png"
        if panels.draw_page(f"{name}, {title}", by_moment, picture):
            page.picture(picture, panels.caption(by_moment))
        page.table(*rows(by_moment))
    page.save(folder / "analysis.html")
    files = save(head, findings, left_out, folder)
    lines, legend = table(findings)
    console.print(title, lines, legend, sep="\n", highlight=False)
    for sentence in left_out:
        console.print(sentence, highlight=False)
    print(f"report: {folder / 'analysis.html'}")
    print(f"numbers: {', '.join(str(file) for file in files)}")
