"""Kills a small run at every file event, or at random moments, and compares what goes on with the uninterrupted run.

A run is a forked process: what takes seconds, the imports, is done once. From the folder of the sources:

    python tests/lit_rnn/runs/kills.py           # every event of every setting, and 30 random moments
    python tests/lit_rnn/runs/kills.py --events 12 --moments 3    # a sample, which the tests take
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_rnn.__main__ import main
from lit_rnn.commands.fit import command, saved  # noqa: F401  # with all that they import, before the first fork
from lit_rnn.files import write_file
from lit_rnn.report import spectra, states, task

ADAM = {"class_path": "Adam", "init_args": {"lr": 0.01}}
PLATEAU = {  # every epoch is a bad one, so that a lost or doubled step shows
    "class_path": "pytorch_lightning.cli.ReduceLROnPlateau",
    "init_args": {"monitor": "val/loss", "patience": 0, "factor": 0.5, "threshold": 10.0},
}
MODEL = {"class_path": "ExpRNN", "init_args": {"hidden_size": 6, "optimizer": ADAM}}
DATA = {"delay": 3, "train_samples": 24, "val_samples": 8, "batch_size": 8}  # 3 steps an epoch
SETTINGS: dict[str, dict[str, Any]] = {
    "max_epochs": {"trainer": {"max_epochs": 3}},
    "max_steps": {"trainer": {"max_steps": 7}},
    "both": {"trainer": {"max_epochs": 3, "max_steps": 1000}},
    "plateau": {
        "model": {**MODEL, "init_args": {**MODEL["init_args"], "lr_scheduler": PLATEAU}},
        "trainer": {"max_epochs": 3},
    },
    "accumulated": {"trainer": {"max_epochs": 3, "accumulate_grad_batches": 2}},
    "every step": {
        "trainer": {"max_steps": 5, "callbacks": [{"class_path": "LastCheckpoint", "init_args": {"every_n_steps": 1}}]}
    },
}
# what changes files, but for writing into an open one: that is whole at the fsync behind it
EVENTS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate")


def write_config(setting: str, folder: Path) -> Path:
    trainer = {"accelerator": "cpu", "log_every_n_steps": 1, **SETTINGS[setting]["trainer"]}
    data = {"class_path": "CopyMemory", "init_args": DATA}
    model = SETTINGS[setting].get("model", MODEL)
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({"threads": 1, "model": model, "data": data, "trainer": trainer}))
    return path


def draw_nothing(*given: Any) -> None:
    """A picture takes longer than the run; its file is there."""
    given[-1].parent.mkdir(exist_ok=True)
    write_file(given[-1], b"a picture")


def run(config: Path, folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """``fit --resume auto`` in a process of its own; gives its exit status, negative for a signal's number."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            output = os.open(folder.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1), os.dup2(output, 2)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))  # noqa: SIM115
            states.draw_states = spectra.draw_spectra = task.draw_run = draw_nothing
            saved._commit = lambda: None  # whoever works on the sources meanwhile changes it
            before()
            status = main(["fit", "-c", str(config), "--run_dir", str(folder), "--resume", "auto"])
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def counting(folder: Path, kill_at: int | None, count: Path | None = None) -> Callable[[], None]:
    """Let a process kill itself right before file event number ``kill_at`` in a folder, or count the events."""

    def begin() -> None:
        seen, root = [0], str(folder)

        def event(name: str, *_: Any) -> None:
            seen[0] += 1
            if seen[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if count is not None:
                with contextlib.suppress(OSError), open(count, "w") as file:
                    file.write(str(seen[0]))

        def hook(name: str, given: tuple[Any, ...]) -> None:
            if name not in EVENTS or not isinstance(given[0], str | os.PathLike):
                return
            writes = name != "open" or bool(given[2] & (os.O_WRONLY | os.O_RDWR))
            if writes and str(given[0]).startswith(root):
                event(name)

        real = os.fsync
        os.fsync = lambda descriptor: (event("fsync"), real(descriptor))[1]
        sys.addaudithook(hook)

    return begin


def later(seconds: float) -> Callable[[], None]:
    """Let a process be killed after so many seconds."""

    def begin() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return begin


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dicts and lists with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flat(item, f"{name}[{index}]")
    else:
        yield name, value


def kept(folder: Path) -> dict[str, Any]:
    """All that has to be the same at the end: checkpoints, metrics.csv, fit.json, and which files there are."""
    found: dict[str, Any] = {"metrics.csv": (folder / "metrics.csv").read_bytes()}
    found["fit.json"] = {**json.loads((folder / "fit.json").read_text()), "seconds": 0}
    found["files"] = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    for name in ("init", "last", "best"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        wanted = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
        found |= flat({key: checkpoint[key] for key in wanted if key in checkpoint}, name)
        found |= flat(checkpoint["lit_rnn"]["optimizer_steps"], f"{name} steps")
        found |= flat(checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader"), f"{name} loader")
    return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    def same(x: Any, y: Any) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x == y

    return {
        key: (a.get(key), b.get(key)) for key in {**a, **b} if key not in a or key not in b or not same(a[key], b[key])
    }


def survive(config: Path, place: Path, whole: dict[str, Any], before: Callable[[], None]) -> tuple[bool, list[str]]:
    """Whether a run was killed, and what differs once the same command has gone on with it."""
    shutil.rmtree(place / "r", ignore_errors=True)
    status = run(config, place / "r", before)
    killed = status in (-signal.SIGKILL, -signal.SIGALRM)
    if not killed and status != 0:
        return False, [f"status {status}"]
    again = run(config, place / "r")
    if again != 0:
        return killed, [f"status {again} of the command that goes on"]
    return killed, list(differences(whole, kept(place / "r")))


def main_(events: int | None, moments: int, names: list[str]) -> int:
    """Print a line for each setting, and what did not survive; gives how many that is."""
    failed = survived = 0
    torch.set_num_threads(1)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            config = write_config(name, place)
            start = time.monotonic()
            assert run(config, place / "w", counting(place / "w", None, place / "count")) == 0, output(place)
            seconds = time.monotonic() - start
            whole, total = kept(place / "w"), int((place / "count").read_text())
            cases: list[tuple[str, Callable[[], None]]] = []
            chosen = range(1, total + 1)
            if events is not None:
                chosen = sorted(random.Random(name).sample(chosen, min(events, total)))
            cases += [(f"event {k} of {total}", counting(place / "r", k)) for k in chosen]
            source = random.Random(name)
            cases += [(f"{s:.3f} s", later(s)) for s in (source.uniform(0, seconds) for _ in range(moments))]
            killed = 0
            for case, before in cases:
                was_killed, different = survive(config, place, whole, before)
                killed += was_killed
                if different:
                    failed += 1
                    print(f"{name}, killed at {case}: {sorted(different)[:6]}", flush=True)
                    print(output(place)[-600:], flush=True)
                else:
                    survived += was_killed
                (place / "output").unlink(missing_ok=True)
            print(f"{name}: {total} events, {killed} kills in {time.monotonic() - start:.0f} s", flush=True)
    print(f"{survived} kills survived, {failed} not", flush=True)
    return failed


def output(place: Path) -> str:
    return (place / "output").read_text(errors="replace") if (place / "output").is_file() else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, help="so many of the events of each setting instead of all")
    parser.add_argument("--moments", type=int, default=5, help="random moments of each setting")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    sys.exit(main_(options.events, options.moments, options.settings) > 0)
