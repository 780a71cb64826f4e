"""Whatever model a checkpoint holds."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from datamodules import UserError
from lit_rnn.class_paths import import_class
from lit_rnn.models.base import SequenceModel


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's contents, on the CPU, primitives and tensors only.

    Raises:
        UserError: if there is no such file, or it is not a whole checkpoint of this project.
    """
    if not Path(path).is_file():
        raise UserError(f"ckpt_path is {str(path)!r}, but there is no such file; see --run_dir.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["lit_rnn"]["class_path"], checkpoint["hyper_parameters"], checkpoint["state_dict"]
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, OSError, EOFError, KeyError, TypeError) as error:
        raise UserError(
            f"ckpt_path {path} is not a whole checkpoint of lit_rnn ({type(error).__name__}); "
            "it may have been cut short: name another with --ckpt_path."
        ) from error
    return checkpoint


def load(path: str | Path) -> SequenceModel:
    """The model of a checkpoint, of the class that was saved, with its weights, on the CPU.

    Works for checkpoints of the command line and of a Trainer in Python.

    Raises:
        UserError: if it is no whole checkpoint, or one of another version of the model's code.
    """
    checkpoint = read_checkpoint(path)
    options = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
    named = checkpoint["lit_rnn"]["class_path"]
    try:
        model = import_class(named)(**options)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (ImportError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(
            f"ckpt_path {path} was made by another version of {named} ({' '.join(str(error).split())}): "
            "use the version that made it, or train it again."
        ) from error
    return model
