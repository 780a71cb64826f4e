"""The command line: one subcommand, one sentence where something is wrong, and an exit status that says so."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` listens: not a traceback from some import

import contextlib
import errno
import gc
import importlib
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from datamodules.errors import BadBatchError, UserError, did_you_mean, printable
from lit_rnn import __version__
from lit_rnn.runs.endings import FailedError, Stopped, stopping
from lit_rnn.runs.launched import end_with_launcher, first_process

COMMANDS = {
    "fit": ("lit_rnn.commands.fit.command", "train a model; without a config, the quickstart"),
    "validate": ("lit_rnn.commands.fit.command", "measure a checkpoint on the validation split"),
    "test": ("lit_rnn.commands.fit.command", "measure a checkpoint on the test split"),
    "predict": ("lit_rnn.commands.fit.command", "write inputs, targets and predictions of the validation split"),
    "study": ("lit_rnn.commands.study.command", "many runs from one file: a grid, seeds, mean and spread"),
    "analyze": ("lit_rnn.commands.analyze.command", "what training did to the recurrent matrices, in pictures"),
    "attack": ("lit_rnn.commands.attack.command", "accuracy under attack, with certificates and honesty checks"),
    "compare": ("lit_rnn.commands.compare.command", "finished runs side by side, as a table and a picture"),
    "autotune": ("lit_rnn.commands.autotune.command", "which backend is the fastest on a GPU, as measured"),
}


def _try_out(arguments: Sequence[str], here: bool) -> tuple[dict[str, Any], int]:
    from lit_rnn.commands.fit.trial import try_out  # here: torch and Lightning take seconds

    return try_out(arguments, here)


# what a wing is given of another, as none imports another
HANDED: Mapping[str, Mapping[str, Callable[..., Any]]] = {"study": {"try_out": _try_out}}

# what the machine may refuse for no fault of the program's
UNUSABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE),
)

USAGE = """usage: python -m lit_rnn COMMAND [options] [--trust MODULE] [--debug]

{commands}

--debug shows the traceback of an error; --version tells this program's.
--completion bash, or zsh, prints what makes that shell complete the installed command lit_rnn.
--trust MODULE imports a module of your own, so that a checkpoint or a run folder may name its classes.
Exit status: 0 done, 1 the run failed, 2 bad input, 128 + n stopped by signal n.
python -m lit_rnn COMMAND --help lists a command's options.""".format(
    commands="\n".join(f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items())
)


def trusted_modules(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options without every ``--trust NAME``, and those names."""
    rest, names, left = [], [], list(options)
    while left:
        option = left.pop(0)
        if option != "--trust" and not option.startswith("--trust="):
            rest.append(option)
            continue
        name = option[len("--trust=") :] or (left.pop(0) if left and option == "--trust" else "")
        if not name or name.startswith("-"):
            raise UserError("--trust is given without a name: name a module of your own after it.")
        names.append(name)
    return rest, names


def completion(shells: Sequence[str]) -> int:
    """Print the script that makes a shell complete the installed command, from the options of every command."""
    if list(shells) not in (["bash"], ["zsh"]):
        given = printable(" ".join(shells)) or "not given"
        print(f"lit_rnn: --completion is {given}, but it must be bash or zsh.", file=sys.stderr)
        return 2
    from lit_rnn.commands.completion import lightning_options, script

    words = {name: what for name, (_, what) in COMMANDS.items()}
    with _importing():
        modules = {name: importlib.import_module(home) for name, (home, _) in COMMANDS.items()}
    parsers = {name: getattr(module, "parser", lightning_options)(name) for name, module in modules.items()}
    print(script(shells[0], parsers, words))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see `USAGE`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    try:
        try:
            return _main(given)
        finally:
            print(end="", flush=True)
    except OSError as error:
        if _is_lost() and isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        if "--debug" in given or error.errno not in UNUSABLE:
            raise
        way = "make room, or correct its rights or what stands in its place, then give the command again"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            way = "raise the limit on open files, as by ulimit -n 4096"
        _tell(f"{error.filename or 'the output'} cannot be used ({error.strerror}): {way}.")
        return 1


def _open_closed_streams() -> None:
    """Have a stream that was closed, as by ``>&-``, go nowhere.

    The next file to be opened, such as a checkpoint, would have its number, and be written what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _is_lost() -> bool:
    """Whether the output can go nowhere, as behind ``| head`` or on a full disk; what is left of it is dropped then."""
    try:
        number = sys.stdout.fileno()
    except OSError:
        return False  # it is kept in memory
    with contextlib.suppress(OSError):
        print(end="", flush=True)
        watched = select.poll()  # of a stream without a buffer nothing is left to be tried again
        watched.register(number, select.POLLERR)
        if not watched.poll(0):
            return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _main(given: list[str]) -> int:
    debug = "--debug" in given
    given = [_at_home(argument) for argument in given if argument != "--debug"]
    command, *options = given or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        print(f"lit_rnn {__version__}")
        return 0
    if command == "--completion":
        return completion(options)
    if command not in COMMANDS:
        meant = did_you_mean(command, COMMANDS)
        shown = printable(command)
        print(f"lit_rnn: {shown} is not a command{meant}; accepted: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    end_with_launcher()
    with stopping.listening():
        try:
            return _run(command, options, debug)
        except Stopped as stopped:
            return _stopped(stopped, first_process())


def _at_home(argument: str) -> str:
    """With the home folder in place of a ``~/`` that the shell has left, as it does in ``--run_dir=~/runs``."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return name + equals + (os.path.expanduser(value) if value.startswith("~/") else value)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Imports make next to no garbage, and looking for it among all that they make took a fifth of a start."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _run(command: str, options: Sequence[str], debug: bool) -> int:
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls what it deprecates
    # Threads that spin while they wait for work are 3 to 10 times slower beside another busy process, and no faster on
    # an idle machine. OpenMP reads this when torch loads it.
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    from lit_rnn.memory import keep_freed_memory, out_of_memory

    try:
        with stopping.exiting(), _importing():
            # imported here, because W&B and OpenMP read their environment when imported; a wing imports torch and
            # Lightning behind its own --help, because they take seconds
            from lit_rnn import class_paths
            from lit_rnn.commands.quiet import quiet_matplotlib, quiet_warnings
            from lit_rnn.files import WriteError

            quiet_matplotlib()  # some of what a wing imports imports it
            module = importlib.import_module(COMMANDS[command][0])
    except (ImportError, MemoryError) as error:
        if debug or (lacking := out_of_memory(error)) is None:
            raise
        _tell(str(lacking))
        return 2
    quiet_warnings()
    keep_freed_memory()
    try:
        options, trusted = trusted_modules(options)
        class_paths.trust(trusted)
        module.run(command, options, **HANDED.get(command, {}))
    except (UserError, FailedError) as error:
        if debug:
            raise
        told_by_one = isinstance(error, UserError) and not isinstance(error, BadBatchError)  # every process refuses
        if first_process() or not told_by_one:
            _tell(str(out_of_memory(error) or error))
        return 2 if isinstance(error, UserError) and not isinstance(error, WriteError) else 1
    except (SystemExit, Exception) as error:
        left = isinstance(error, SystemExit) and error.code is not None
        if debug or left:
            raise
        if stopping.signum is not None:  # an error that a signal has led to, or Lightning's own way to stop
            return _stopped(Stopped(stopping.signum, stopping.how), first_process())
        if (lacking := out_of_memory(error)) is not None:
            _tell(str(lacking))
            return 2
        raise
    return 0


def _stopped(stopped: Stopped, speaks: bool) -> int:
    if speaks:
        _tell(str(stopped))
    return 128 + stopped.signum


def _tell(sentence: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"lit_rnn: {printable(sentence)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
