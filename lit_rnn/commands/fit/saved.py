"""What a run records before it starts: config.yaml and versions.json."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

import lit_rnn
from lit_rnn.blame import is_users
from lit_rnn.callbacks.recorded import fingerprint
from lit_rnn.files import inside, read_bytes, set_aside, write_file
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.base import count_parameters
from lit_rnn.runs.folder import damaged_configs, keeps_files, kept_code, number_of, numbered


class SaveRun(SaveConfigCallback):
    """config.yaml and versions.json in the run folder, and the config to every logger."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not keeps_files(trainer):
            return
        folder = Path(trainer.default_root_dir)
        config = self.config.clone()
        if config.ckpt_path is not None and inside(config.ckpt_path, folder):
            config.ckpt_path = None  # going on is no other config
        config.resume = None
        for damaged in damaged_configs(folder):
            set_aside(damaged, "it is no whole config")
        _keep(folder, "config.yaml", self.parser.dump(config, skip_none=False))
        kept = versions(_devices(trainer)) | fingerprint(trainer) | {"own_code": _own_code()}
        _tell_of_changes(folder, kept["own_code"])
        _keep(folder, "versions.json", json.dumps(kept, indent=1) + "\n")
        if not show.dashboards(trainer):
            return
        told = show.flat(json.loads(self.parser.dump(self.config, skip_none=False, format="json")))
        if isinstance(pl_module, SequenceModel):
            told |= {"task": pl_module.task.name, "parameters": count_parameters(pl_module)}
        show.hyperparameters(trainer, told)


def _keep(folder: Path, name: str, text: str) -> None:
    """Write a file of that name; where there is another one, as of a resume with other options, one beside it."""
    there = numbered(folder, name)
    if not there:
        write_file(folder / name, text)
    elif read_bytes(there[-1]) != text.encode():
        path = folder / name
        write_file(path.with_stem(f"{path.stem}-{number_of(there[-1]) + 1}"), text)


_NOT_OWN = ("__main__", "_remote_module_non_scriptable")  # which older versions of torch write to a temporary folder


def _own_code() -> dict[str, str]:
    """By module, the beginning of the SHA-256 of each of the user's own that this process has imported."""
    named = {name: getattr(module, "__dict__", {}).get("__file__") for name, module in list(sys.modules.items())}
    own = {name: Path(file) for name, file in sorted(named.items()) if name not in _NOT_OWN and is_users(file)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in own.items()}


def _tell_of_changes(folder: Path, now: Mapping[str, str]) -> None:
    """Warn where a run goes on with other code of the user's own than before."""
    changed = [name for name, was in (kept_code(folder) or [{}])[-1].items() if now.get(name, was) != was]
    if changed:
        warnings.warn(
            f"{', '.join(changed)} changed since the run in {folder} was last begun: its further steps are of the new "
            "code.",
            stacklevel=2,
        )


def _devices(trainer: Trainer) -> list[str]:
    """The names of the devices that a trainer computes on; none for the CPU."""
    root = trainer.strategy.root_device.type
    if root != "cuda":
        return [] if root == "cpu" else [root]
    return [torch.cuda.get_device_name(number) for number in trainer.device_ids]


def versions(devices: Sequence[str]) -> dict[str, Any]:
    """What the numbers of a run depend on besides its config, the ``devices`` that it computes on among them."""
    packages = ("pytorch-lightning", "torchmetrics", "torchvision", "numpy", "scipy", "jsonargparse")
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build: CPU and CUDA round differently
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "devices": list(devices),
        "lit_rnn": lit_rnn.__version__,  # not of its metadata: a clone on the path has none
        **{package: version(package) for package in packages},
    }


@functools.cache  # what this process has imported stays
def _commit() -> str | None:
    """The commit of the clone that this code runs from, with -dirty behind it where files differ; None outside one."""
    root = Path(lit_rnn.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    call = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):  # no git here, or it does not trust the folder
        return None
