"""The command line: one subcommand, one sentence where something is wrong, and an exit status that says so."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

COMMANDS = {
    "fit": ("lit_rnn.cli", "train a model; without a config, the quickstart"),
    "validate": ("lit_rnn.cli", "measure a checkpoint on the validation split"),
    "test": ("lit_rnn.cli", "measure a checkpoint on the test split"),
    "predict": ("lit_rnn.cli", "write inputs, targets and predictions of the validation split"),
    "study": ("lit_rnn.study.command", "many runs from one file: a grid, seeds, mean and spread"),
    "analyze": ("lit_rnn.report.analyze.command", "what training did to the recurrent matrices, in pictures"),
    "attack": ("lit_rnn.report.attack", "accuracy under attack, with certificates and honesty checks"),
    "compare": ("lit_rnn.report.compare", "finished runs side by side, as a table and a picture"),
}

USAGE = """usage: python -m lit_rnn COMMAND [options] [--trust MODULE] [--debug]

{commands}

--debug shows the traceback of an error.
--trust MODULE imports a module of your own, so that a checkpoint or a run folder may name its classes.
Exit status: 0 done, 1 the run failed, 2 bad input, 128 + n stopped by signal n.
python -m lit_rnn COMMAND --help lists a command's options.""".format(
    commands="\n".join(f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items())
)


def quiet() -> None:
    """Keep what others print about themselves out of the way; warnings stay."""
    # Lightning with this torch; a resume, in its own folder and into another
    for about in (".*LeafSpec.*deprecated", "Checkpoint directory .* exists", "The dirpath has changed from"):
        warnings.filterwarnings("ignore", message=about)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # not the line of code that gave it
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def trusted_modules(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options without every ``--trust NAME``, and those names."""
    from datamodules import UserError

    rest, names, left = [], [], list(options)
    while left:
        option = left.pop(0)
        if option != "--trust" and not option.startswith("--trust="):
            rest.append(option)
            continue
        name = option[len("--trust=") :] or (left.pop(0) if left and option == "--trust" else "")
        if not name or name.startswith("-"):
            raise UserError("--trust is given without a name: name a module of your own behind it.")
        names.append(name)
    return rest, names


def printable(text: str) -> str:
    """The text with escapes for what would move a terminal's cursor: names in it may come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see `USAGE`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    command, *options = given or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        print(f"lit_rnn: {printable(command)} is not a command; accepted: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    os.environ.setdefault("WANDB_SILENT", "true")
    # Threads that spin while they wait for work are 3 to 10 times slower beside another busy process, and no faster on
    # an idle machine. OpenMP reads this when torch loads it.
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    # imported here: torch and Lightning take seconds, and W&B reads its environment when imported
    from datamodules.errors import BadBatchError, UserError
    from lit_rnn import class_paths
    from lit_rnn.callbacks import DivergedError, Stopped
    from lit_rnn.memory import keep_freed_memory
    from lit_rnn.run_folder import first_process

    module = importlib.import_module(COMMANDS[command][0])
    quiet()  # after the imports: Lightning sets its own levels then
    keep_freed_memory()
    try:
        options, trusted = trusted_modules(options)
        class_paths.trust(trusted)
        module.run(command, options)
    except (UserError, DivergedError, Stopped) as error:
        if debug:
            raise
        told_by_one = isinstance(error, UserError) and not isinstance(error, BadBatchError)  # every process refuses
        if first_process() or not told_by_one:
            print(f"lit_rnn: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 128 + error.signum if isinstance(error, Stopped) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
