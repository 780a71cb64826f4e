"""Configs and command lines that nobody would write: a step is trained, or one sentence says why not.

``python tests/fuzz.py --cases 2000`` tries that many; `test_fuzz` a few. A case runs in a fork of this process, in a
folder of its own, with bounded time and memory, and all its processes end with it. Numbers of devices are not tried:
each is a process that imports everything anew.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import inspect
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import hypothesis
import torch
import yaml
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the command; pytest has it already

import pytorch_lightning as pl  # noqa: E402

from datamodules import SequenceDataModule  # noqa: E402
from lit_rnn import callbacks  # noqa: E402
from lit_rnn.__main__ import COMMANDS, main  # noqa: E402
from lit_rnn.commands.completion import lightning_options  # noqa: E402
from lit_rnn.commands.sentences import known_names, options_of  # noqa: E402
from lit_rnn.models import SequenceModel  # noqa: E402

SECONDS, MEMORY = 60, 6 << 30
SIZES = {  # what makes any shipped config small
    "model": {"hidden_size": 8, "memory_size": 4, "capacity": 2, "negatives": 4},
    "data": {
        "delay": 5,
        "symbols": 3,
        "length": 6,
        "train_samples": 16,
        "val_samples": 8,
        "test_samples": 8,
        "batch_size": 8,
    },
    "trainer": {"max_epochs": 1, "log_every_n_steps": 1, "accelerator": "cpu"},
}
ODD: list[Any] = [
    *(0, 1, -1, 2, 3, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**9), 0.5, -0.5, 1e-300, 1e308),
    *(float("nan"), float("inf"), -float("inf"), True, False, None, "", " ", "x", "#x", "null", "~", "true", "1e5"),
    *("1_0", "0x10", "1:2", "-1", "--x", "{a", "[", "*a", "&a b", "!!python/name:os.system", "%x", "a: b", "a\nb"),
    *("a\0b", "é" * 200, "x" * 256, "/etc/passwd", "/", ".", "..", "../x", "a/b", "~/x", "$HOME", "\x1b[2J"),
    *([], {}, [1], ["x"], [None], [[]], {"a": 1}, {"class_path": "x"}, {"class_path": 1}, {"class_path": "os.system"}),
    {"class_path": "ExpRNN", "init_args": []},
]


WITHOUT_FILES = ("CopyMemory", "Denoise", "Adding", "PixelDigits")  # data that needs no download
NUMBERS = [value for value in ODD if isinstance(value, int | float | None)] + [1, 2, 3, 4, 5, 7, 16, 0.1, 0.3, 0.9, 1.5]


# ---- cases


@dataclass(frozen=True)
class Case:
    """A command line, and the files that are there before."""

    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict, hash=False)
    run: bool = False
    """Whether the finished run `made` is there."""

    def __str__(self) -> str:
        return "\n".join([repr(list(self.arguments)), *(f"--- {n}\n{c!r}" for n, c in self.files.items())])


@functools.cache
def shipped() -> list[tuple[str, dict[str, Any]]]:
    """The shipped configs of runs, small, by name."""
    found = []
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        if not {"model", "data"} <= config.keys() or config["data"]["class_path"] not in WITHOUT_FILES:
            continue
        for part in ("model", "data"):
            options, takes = config[part].setdefault("init_args", {}), known_options(part, config[part]["class_path"])
            options |= {key: value for key, value in SIZES[part].items() if key in takes}
        config["trainer"] = {**config.get("trainer", {}), **SIZES["trainer"]}
        config["trainer"].pop("max_steps", None)
        found.append((str(path.relative_to(ROOT)), config))
    return found


def text_of(value: Any) -> str:
    """A value as it stands behind an option."""
    return (
        value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=9999).split("\n")[0]
    )


@functools.cache
def kinds(part: str, name: str) -> dict[str, str]:
    """The annotations of what a class takes, as text."""
    base: dict[str, type] = {"model": SequenceModel, "data": SequenceDataModule}
    named = [] if part == "trainer" else [c for c in everything(base[part]) if c.__name__ == name.rpartition(".")[2]]
    classes = [pl.Trainer] if part == "trainer" else [above for cls in named for above in reversed(cls.__mro__)]
    return {
        option: str(parameter.annotation)
        for cls in classes
        if "__init__" in vars(cls)
        for option, parameter in inspect.signature(cls.__init__).parameters.items()
    }


@functools.cache
def known_options(part: str, name: str) -> list[str]:
    base: dict[str, type] = {"model": SequenceModel, "data": SequenceDataModule}
    if part == "trainer":
        return [option for option in inspect.signature(pl.Trainer).parameters if option not in ("self", "devices")]
    cls = next((c for c in everything(base[part]) if c.__name__ == name.rpartition(".")[2]), None)
    return [] if cls is None else options_of(cls)


def everything(base: type) -> Iterator[type]:
    for cls in base.__subclasses__():
        yield cls
        yield from everything(cls)


def paths_in(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a config."""
    found = [here] if here else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths_in(inner, (*here, key))
    return found


@st.composite
def odd_values(draw: Any) -> Any:
    which = draw(st.integers(0, 19))
    if which == 0:
        return draw(st.text(max_size=30))
    if which == 1:
        return draw(st.integers())
    if which == 2:
        return draw(st.floats())
    return draw(st.sampled_from(ODD if which < 10 else NUMBERS))


@st.composite
def values_like(draw: Any, kind: str) -> Any:
    """Mostly values of the kind that an annotation names, sound ones and others."""
    fitting: list[Any] = [value for value in NUMBERS if isinstance(value, int) and "int" in kind]
    fitting += [value for value in NUMBERS if isinstance(value, float) and "float" in kind]
    fitting += [True, False] * ("bool" in kind) + [None] * ("None" in kind)
    fitting += re.findall(r"'(\w+)'", kind.partition("Literal")[2])
    return draw(st.sampled_from(fitting)) if fitting and draw(st.integers(0, 9)) > 1 else draw(odd_values())


def optimizer_names() -> list[str]:
    return known_names(torch.optim.Optimizer)


def scheduler_names() -> list[str]:
    return known_names(torch.optim.lr_scheduler.LRScheduler)


CALLBACKS = ["EarlyStopping", "Timer", "ModelCheckpoint", "EMAWeightAveraging", "RichProgressBar", "TQDMProgressBar"]
CALLBACKS += [
    "GradientAccumulationScheduler",
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "ModelSummary",
    "WatchMatrices",
]


@st.composite
def mutated(draw: Any) -> tuple[dict[str, Any], str]:
    """A shipped config with one to three changes, and its name."""
    name, config = draw(st.sampled_from(shipped()))
    config = copy.deepcopy(config)
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        places = paths_in(config)
        place = draw(st.sampled_from(places))
        inner: Any = config
        for key in place[:-1]:
            inner = inner[key]
        how = draw(st.sampled_from(["value", *["option"] * 5, "drop", "misspell", "class", "class"]))
        part = draw(st.sampled_from(["model", "data", "trainer"]))
        section = config.get(part)
        if how == "option" and isinstance(section, dict):
            options = known_options(part, str(section.get("class_path")))
            where = section if part == "trainer" else section.get("init_args")
            if options and isinstance(where, dict):
                option = draw(st.sampled_from(options))
                where[option] = draw(values_like(kinds(part, str(section.get("class_path"))).get(option, "")))
        elif how == "class" and isinstance(section, dict):
            kind = draw(st.sampled_from(["part", "optimizer", "lr_scheduler", "callback"]))
            options = config.get("model", {}).get("init_args") if isinstance(config.get("model"), dict) else None
            if kind == "part" and part != "trainer":
                base = SequenceModel if part == "model" else SequenceDataModule
                section["class_path"] = draw(st.sampled_from(known_names(base)))
            elif kind == "callback" and isinstance(config.get("trainer"), dict):
                config["trainer"]["callbacks"] = [{"class_path": draw(st.sampled_from(CALLBACKS))}]
            elif isinstance(options, dict) and kind in ("optimizer", "lr_scheduler"):
                names = optimizer_names() if kind == "optimizer" else scheduler_names()
                chosen = draw(st.sampled_from(names))
                base = torch.optim.Optimizer if kind == "optimizer" else torch.optim.lr_scheduler.LRScheduler
                cls = next(c for c in everything(base) if c.__name__ == chosen)
                takes = list(inspect.signature(cls).parameters)[1:]
                given = {draw(st.sampled_from(takes)): draw(odd_values())} if takes else {}
                options[kind] = {"class_path": chosen, "init_args": given}
        elif how == "value":
            inner[place[-1]] = draw(odd_values())
        elif how == "drop" and isinstance(inner, dict):
            del inner[place[-1]]
        elif how == "misspell" and isinstance(inner, dict):
            inner[f"{place[-1]}{draw(st.sampled_from(['x', '.', ' ', '-', '_']))}"] = inner.pop(place[-1])
    return config, name


@st.composite
def configs(draw: Any) -> Case:
    """``fit`` of a changed config."""
    config, _ = draw(mutated())
    text = yaml.safe_dump(config, allow_unicode=True)
    if draw(st.integers(0, 9)) == 0:  # and of its text
        at = draw(st.integers(0, max(0, len(text) - 1)))
        piece = draw(
            st.sampled_from(["{", "[", ":", "\t", "#", "&a ", "*a", "\0", "- ", "\n\n", "'", '"', "é", "!!x "])
        )
        text = text[:at] + piece + text[at + draw(st.integers(0, 5)) :]
    folder = draw(st.sampled_from([[], ["--run_dir", "r"], ["--run_dir", "r"]]))
    return Case(("fit", "-c", "case.yaml", *folder), {"case.yaml": text.encode()})


@functools.cache
def options_of_command(command: str) -> list[str]:
    module = importlib.import_module(COMMANDS[command][0])
    parser = getattr(module, "parser", lightning_options)(command)
    return sorted(
        {option for action in parser._actions for option in action.option_strings}
        - {"-h", "--help", "--trainer.devices"}
    )


@st.composite
def command_lines(draw: Any) -> Case:
    """A sound command line with one to three odd options, or odd values."""
    command = draw(st.sampled_from([*COMMANDS, "fit"]))
    arguments: list[str] = [command]
    files: dict[str, bytes] = {}
    if command == "fit":
        _, config = draw(st.sampled_from(shipped()))
        files["case.yaml"] = yaml.safe_dump(config).encode()
        arguments += ["-c", "case.yaml", "--run_dir", "r"]
    elif command in ("validate", "test", "predict"):
        arguments += ["--run_dir", "made", "--ckpt_path", "best"]
    elif command == "study":
        study: Any = {"base": "case.yaml", "grid": {"model.init_args.hidden_size": [4, 8]}, "seeds": [1]}
        place = draw(
            st.sampled_from([("base",), ("grid",), ("seeds",), ("grid", "model.init_args.hidden_size"), ("arms",)])
        )
        if draw(st.booleans()):
            inner = study
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = draw(odd_values())
        elif draw(st.booleans()):
            study["arms"] = {draw(st.sampled_from([v for v in ODD if isinstance(v, str | int | float | None)])): {}}
        _, config = draw(st.sampled_from(shipped()))
        files = {"case.yaml": yaml.safe_dump(config).encode(), "study.yaml": yaml.safe_dump(study).encode()}
        arguments += ["study.yaml", draw(st.sampled_from(["--dry_run", "--export=slurm", "--export=wandb"]))]
    elif command == "compare":
        arguments += ["made"]
    else:
        arguments += ["--run_dir", "made", "--threads", "1"]
        if command == "analyze":
            arguments += ["--only", "spectrum"]
        if command == "attack":
            arguments += ["--data.test_samples", "8", "--attacks", "swaps"]
    options = options_of_command(command)
    for _ in range(draw(st.integers(1, 2))):
        option = draw(st.sampled_from(options))
        if draw(st.integers(0, 19)) == 0:
            option += draw(st.sampled_from(["x", "=", ".", "+", " ", "\0"]))
        value = draw(odd_values())
        arguments += [option] if draw(st.integers(0, 9)) == 0 else [option, text_of(value)]
    return Case(tuple(arguments), files, run=command not in ("fit", "study"))


cases = st.one_of(configs(), command_lines())


# ---- running one


@dataclass(frozen=True)
class Ended:
    """What one case did; ``status`` is None where it had to be killed."""

    status: int | None
    out: str
    err: str
    trained: bool
    seconds: float
    left: tuple[str, ...]
    """What is there, or has changed, since before."""


class StopSoon(pl.Callback):
    """One step is enough: notes it, and ends training as Lightning does."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= 1:
            Path(os.environ["FUZZ_TRAINED"]).touch()
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
            trainer.should_stop = True


def without_pictures() -> None:
    """Of a short run they are most of the time."""
    from lit_rnn.commands.fit import command

    for cls in (callbacks.TaskPicture, callbacks.SpectrumPicture, callbacks.StatePicture):
        for hook in ("on_fit_start", "on_fit_end"):
            setattr(cls, hook, getattr(pl.Callback, hook))
    made = command.run_callbacks
    command.run_callbacks = lambda *given: [*made(*given), StopSoon()]  # type: ignore[assignment]


def no_network(*_: Any, **__: Any) -> Any:
    raise URLError("no network in here")


def tree(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b"folder"
        found[str(path.relative_to(folder))] = f"{len(content)} {hash(content)}"
    return found


def in_a_fork(work: Callable[[], int], folder: Path, seconds: float) -> tuple[int | None, float]:
    """The exit status of ``work``, done in ``folder``, by a process group that is gone afterwards."""
    began = time.monotonic()
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = work()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
    status = None
    while time.monotonic() - began < seconds:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    return status, time.monotonic() - began


def ended(case: Case, made: Path | None, seconds: float = SECONDS) -> Ended:
    """Run a case in a folder of its own, which is removed."""
    with tempfile.TemporaryDirectory() as place:
        folder, marker = Path(place, "here"), Path(place, "trained")
        folder.mkdir()
        for name, content in case.files.items():
            (folder / name).write_bytes(content)
        if case.run and made is not None:
            shutil.copytree(made, folder / "made")
        before = tree(folder)

        def work() -> int:
            os.environ["FUZZ_TRAINED"] = str(marker)
            without_pictures()
            urllib.request.urlopen = no_network  # type: ignore[assignment]
            return main(case.arguments)

        status, took = in_a_fork(work, folder, seconds)
        after = tree(folder)
        left = tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
        out, err = (
            Path(f"{folder}.{name}").read_text(errors="replace") if Path(f"{folder}.{name}").exists() else ""
            for name in ("out", "err")
        )
        return Ended(status, out, err, marker.exists(), took, left)


def make_run(folder: Path) -> Path:
    """A finished run, small, for the commands on one."""
    _, config = next(one for one in shipped() if one[0].endswith("copying/exprnn.yaml"))
    config = {**config, "threads": 1}
    made = ended(
        Case(("fit", "-c", "case.yaml", "--run_dir", str(folder)), {"case.yaml": yaml.safe_dump(config).encode()}), None
    )
    assert made.status == 0, made
    return folder


# ---- judging it


def fault(case: Case, did: Ended) -> str | None:
    """What is wrong with what a case did, None if nothing: it must train or end, or refuse in one sentence."""
    if did.status is None:
        return None if did.trained else "hangs"
    if "Traceback (most recent call last)" in did.out + did.err:
        last = [
            line for line in did.err.splitlines() if re.match(r"[\w.]+(Error|Exception|Warning|Interrupt)?\b.*:?", line)
        ]
        return f"traceback: {last[-1][:120] if last else '?'}"
    if did.status == 0:
        return None
    if did.status < 0 or did.status not in (1, 2):
        return f"status {did.status}"
    lines = [line for line in did.err.splitlines() if line and not line.startswith("warning: ")]
    if did.status == 1:
        return None if "The loss is" in did.err else f"status 1: {lines[-1:]}"
    if len(lines) != 1 or not lines[0].startswith("lit_rnn: "):
        return f"not one sentence but {len(lines)}: {lines[:2]}"
    if len(lines[0]) > 1500:
        return "a sentence that nobody reads"
    left = [name for name in did.left if name.partition("/")[0] != "data"]  # what a download has begun
    if not did.trained and left:
        return f"refused, and leaves {left[:3]}"
    for jargon in ("Union", "Namespace", "NestedArg", "<class", "typing.", "Parser key", "enforce fail"):
        if jargon in lines[0]:
            return f"jargon: {jargon}"
    return None if names_a_place(case, lines[0]) else "names neither key nor file"


def names_a_place(case: Case, sentence: str) -> bool:
    """Whether a refusal says where to look: an option, a key or a file."""
    text = " ".join([*case.arguments, *(c.decode(errors="replace") for c in case.files.values())])
    words = set(re.findall(r"[A-Za-z_]{3,}", text))
    named = set(re.findall(r"[A-Za-z_]{3,}", sentence.removeprefix("lit_rnn: ")))
    options = {word for argument in case.arguments for word in (argument, argument.lstrip("-c")) if word}
    return (
        any(option in sentence for option in options)
        or bool(named & words)
        or "config" in named
        or "--" in sentence
        or "." in sentence[9:-1]
    )


# ---- many


def many(count: int, seed: int, tell: Callable[[Case, Ended, str | None], None], made: Path) -> None:
    """Try ``count`` different cases, the same for a seed."""

    seen: set[str] = set()
    settings = hypothesis.settings(
        max_examples=9,  # from the tenth on, Hypothesis varies what it had
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def one(case: Case) -> None:
        if len(seen) < count and str(case) not in seen:
            seen.add(str(case))
            did = ended(case, made)
            tell(case, did, fault(case, did))

    for run in range(count):
        if len(seen) < count:
            hypothesis.seed(seed * 1_000_003 + run)(settings(hypothesis.given(cases)(one)))()


def command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=Path, help="write every case with a fault there")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    number = 0
    began = time.monotonic()

    def tell(case: Case, did: Ended, what: str | None) -> None:
        nonlocal number
        number += 1
        kind = "faults" if what else "trained" if did.trained else "refused" if did.status == 2 else "done"
        found[kind] += 1
        if what:
            told = f"case {number}: {what}\n{case}\n{did.err[-1500:]}\n"
            if options.faults:
                with options.faults.open("a") as file:
                    file.write(told + "\n")
            print(f"case {number}: {what}  {list(case.arguments)}", flush=True)
        if number % 50 == 0:
            print(f"{number} cases, {time.monotonic() - began:.0f} s: {dict(found)}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        many(options.cases, options.seed, tell, make_run(Path(place, "made")))
    print(f"{number} cases, {time.monotonic() - began:.0f} s: {dict(found)}")
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
