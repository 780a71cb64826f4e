"""``python -m lit_rnn attack``: how much of a model's accuracy is left under attack."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from datamodules.errors import as_seed, require
from lit_rnn.commands.parser import Parser, add_model_options, add_threads, check_least, data_options
from lit_rnn.commands.quiet import quiet_lightning
from lit_rnn.robustness.effort import NAMES, Effort
from lit_rnn.threads import use_threads


def size(text: str) -> float:
    """0.1, 1e-2 or 8/255.

    Raises:
        ValueError: if it is no number.
    """
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except ZeroDivisionError as error:
        raise ValueError(text) from error


def parser(command: str) -> argparse.ArgumentParser:
    """The options, with their defaults in words."""
    effort = Effort()
    made = Parser(command, run.__doc__)
    what = made.add_argument_group("what is attacked")
    add_model_options(what.add_argument, "best")
    what.add_argument("--study", type=Path, nargs="+", metavar="DIR", help="every run of these studies, and one table")
    what.add_argument("--split", choices=("test", "val", "train"), default="test")
    what.add_argument("--samples", type=int, help="how many examples, drawn by --seed (200, or all there are)")
    what.add_argument("--seed", type=int, default=0, help="of all that is drawn (0)")
    how = made.add_argument_group("how")
    how.add_argument("--attacks", nargs="+", metavar="NAME", help=f"some of {', '.join(NAMES)} (all that fit the task)")
    how.add_argument("--norms", nargs="+", metavar="NORM", help="inf, 2 or both (both, or inf where --eps is given)")
    how.add_argument("--eps", nargs="+", type=size, metavar="E", help="sizes in the inputs' own units, 8/255 is one")
    how.add_argument("--bounds", nargs=2, type=float, metavar=("LOW", "HIGH"), help="valid inputs (the data's own)")
    how.add_argument("--symbols", choices=("swaps", "embedding"), help="how symbols are attacked (swaps)")
    how.add_argument("--tolerance", type=float, help="how far off a predicted number is wrong (0.04 for adding)")
    how.add_argument("--steps", type=int, default=effort.steps, help=f"steps of PGD ({effort.steps})")
    how.add_argument("--restarts", type=int, default=effort.restarts, help=f"starts of PGD ({effort.restarts})")
    how.add_argument("--queries", type=int, default=effort.queries, help=f"queries of a search ({effort.queries})")
    how.add_argument("--draws", type=int, default=effort.draws, help=f"draws of uniform noise ({effort.draws})")
    how.add_argument("--smoothing_sigma", type=float, default=0.25, help="noise of randomised smoothing (0.25)")
    how.add_argument("--smoothing_draws", type=int, default=1000, help="its votes (1000)")
    how.add_argument("--smoothing_samples", type=int, default=20, help="its examples (20; 0 leaves it out)")
    where = made.add_argument_group("where")
    where.add_argument("--out", type=Path, help="folder for the report (attack in the run folder)")
    where.add_argument("--batch_size", type=int, default=100, help="examples run at once; the draws are the same (100)")
    where.add_argument("--device", help="cpu, cuda, ... (cuda where there is one)")
    add_threads(where.add_argument)
    return made


def run(command: str, arguments: Sequence[str]) -> None:
    """Attack a trained model: accuracy against the size of the perturbation, in the inputs' own units."""
    options, unknown = parser(command).parse_known_args(list(arguments))
    given = data_options(unknown, command)
    _check(options)
    import torch  # behind --help: it takes a second

    from lit_rnn.commands.attack.work import check_device, one, study
    from lit_rnn.report.console import new_console

    check_device(options.device)
    quiet_lightning()
    torch.set_flush_denormal(True)  # as in training
    use_threads(options.threads)
    work = one if options.study is None else study
    work(options, given, new_console())


def _check(options: argparse.Namespace) -> None:
    check_least(options, batch_size=1, smoothing_draws=1)
    as_seed(options.seed, "--seed")
    require(options.smoothing_samples >= 0, "--smoothing_samples", options.smoothing_samples, "0 or positive")
    require(options.smoothing_sigma > 0, "--smoothing_sigma", options.smoothing_sigma, "positive")
    for eps in options.eps or ():
        require(0 <= eps < math.inf, "--eps", eps, "0 or positive, in the inputs' own units")
    if options.bounds is not None:
        low, high = options.bounds
        require(-math.inf < low < high < math.inf, "--bounds", options.bounds, "two numbers, the lower one first")
