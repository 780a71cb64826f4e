"""``python -m lit_rnn analyze``: what training did to the recurrent matrices, as pictures, a table and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import UserError, require
from lit_rnn.commands.analyze.settings import DATA_PARTS, MATRIX_PARTS, PARTS, Settings
from lit_rnn.commands.parser import Parser, add_model_options, add_threads, check_least, data_options
from lit_rnn.commands.quiet import quiet_lightning
from lit_rnn.files import make_folder, refuse_links
from lit_rnn.runs.checkpoints import find_checkpoint, folder_of
from lit_rnn.threads import use_threads


def run(command: str, arguments: Sequence[str]) -> None:
    """Take the recurrent matrices of a checkpoint apart: pictures, a table, analysis.json and analysis.html."""
    options, given_data = _options(command, arguments)
    from lit_rnn.commands.analyze.page import write  # behind --help: torch and Lightning take seconds
    from lit_rnn.commands.analyze.subject import read_moments, read_sequences
    from lit_rnn.commands.analyze.work import Work, estimate

    quiet_lightning()
    use_threads(options.threads)
    path = find_checkpoint(options.ckpt_path, options.run_dir, "last")
    moments = read_moments(path, options.against)
    settings = Settings(options.points, options.steps, options.samples)
    model, samples, wanted = moments[-1].model, options.samples, tuple(options.only or ())
    sequences, missing = read_sequences(path, model, options.config, options.data, given_data, samples)
    parts = wanted or PARTS
    for part in set(wanted).intersection(DATA_PARTS):
        if sequences is None:
            verb = "needs" if part == "probe" else "need"
            raise UserError(f"--only names {part}, which {verb} the run's data: {missing}")
        if part == "probe" and sequences.tracked is None:
            raise UserError(
                f"--only names probe, which needs a task whose data say what must be tracked at every step "
                f"(Parity, CycleNavigation, PermutationWord, Dyck, ModularArithmetic without brackets): "
                f"{model.task.name} does not."
            )
    work = Work(moments, sequences, parts, settings)
    if not work.subjects and not set(wanted).intersection(DATA_PARTS):
        raise UserError(
            f"ckpt_path {path} holds a {type(moments[-1].model).__name__}, which has no square recurrent matrix; "
            "--only dynamics looks at its step Jacobian."
        )
    folder = _folder(options.out, path, options.against)
    if sentence := estimate(work):
        print(sentence, flush=True)
    work.run()
    missed = [f"Dynamics are left out: {missing}"] if missing and "dynamics" in parts else []
    write(work, [*missed, *work.sentences], folder)


_ALL = (*MATRIX_PARTS, *DATA_PARTS)
_PARTS = """parts: spectrum: eigenvalues and singular values; pseudospectrum: contours, and how far they reach;
nonnormality: Henrici's departure, Schur form, hidden chain; transient: |W^k| and its bounds; memory: Fisher's and a
linear decoder's; dynamics, on validation data: Lyapunov exponents, gradients, the mean step Jacobian as a matrix;
probe, of tasks that track a state: what a linear map reads of it; fixed_points, only where named: points where the
state stands still under a held input"""


def parser(command: str) -> Parser:
    """The options."""
    made = Parser(command, run.__doc__, epilog=_PARTS)
    add = made.add_argument
    add_model_options(add, "last")
    add("--against", metavar="WHAT", help="init, where the run began, or a checkpoint file of the same model")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where it all goes (analysis/<checkpoint> in the run folder)",
    )
    add("--only", nargs="+", metavar="PART", help=f"some of {', '.join(_ALL)}")
    add("--points", type=int, default=100, help="of the pseudospectrum's grid, per axis (100)")
    add("--samples", type=int, default=8, help="validation sequences for the dynamics (8)")
    add("--steps", type=int, default=100, help="powers of W, and lags of its memory (100)")
    add_threads(add)
    return made


def _options(command: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    options, unknown = parser(command).parse_known_args(list(arguments))
    check_least(options, points=2, samples=1, steps=1)
    for name, most in (("points", 10_000), ("steps", 1_000_000)):  # which memory holds
        value = getattr(options, name)
        require(value <= most, f"--{name}", value, f"a whole number of at most {most:,}")
    for name in options.only or ():
        require(name in _ALL, "--only", name, f"some of {', '.join(_ALL)}")
    return options, data_options(unknown, command)


def _folder(given: Path | None, path: Path, against: str | None) -> Path:
    """Where the report goes, made."""
    run = folder_of(path) or Path()
    name = path.stem if against is None else f"{path.stem}-against-{Path(against).stem}"
    folder = given or run / "analysis" / name
    refuse_links(folder if given else run / "analysis" if run == Path() else run)
    make_folder(folder, "--out")
    return folder
