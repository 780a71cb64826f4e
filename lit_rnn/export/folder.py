"""A model as a folder: model.safetensors, its weights, and config.json, from which it is built again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.base import data_of
from datamodules.errors import UserError, one_line, require
from datamodules.extras import needed
from lit_rnn import __version__, class_paths, files
from lit_rnn.dtypes import dtype_name
from lit_rnn.models import SequenceModel
from lit_rnn.models.loading import OTHER_VERSION, build, checked_class

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_KEYS = ("format", "lit_rnn", "class_path", "init_args", "task", "dtype", "complex", "sha256")
_DTYPES = {dtype_name(dtype): dtype for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.half)}


def save(model: SequenceModel, folder: str | Path) -> Path:
    """Write ``model`` to ``folder``, as `load` reads it; gives the folder. Files of an earlier `save` are replaced.

    ``model.safetensors`` holds every parameter and buffer of the network by the name that it has in ``state_dict``; a
    complex tensor (...) as real and imaginary parts (..., 2), its name listed in ``config.json`` under ``complex``.
    ``config.json`` also has ``format``, the version of ``lit_rnn``, the model's ``class_path``, ``init_args`` and
    ``task``, what its data had ``learned``, its ``dtype``, and the ``sha256`` of the weights' file.

    Raises:
        UserError: if safetensors is not installed, an option of the model is nothing that JSON keeps, or the folder
            cannot be made.
    """
    safetensors = needed("safetensors.torch", "lit_rnn.export.save", "export")
    require(isinstance(model, SequenceModel), "model", type(model).__name__, "a lit_rnn.models.SequenceModel")
    dtype = dtype_name(model.decoder.weight.dtype)
    require(dtype in _DTYPES, "model", f"of dtype {dtype}", f"of one of {', '.join(_DTYPES)}")
    weights = {name: tensor.detach().cpu() for name, tensor in model.weights_in(model.state_dict()).items()}
    parts = {
        name: (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).contiguous().clone()
        for name, tensor in weights.items()
    }
    content = safetensors.save(parts, metadata={"format": "pt"})
    options = {key: value for key, value in model.hparams.items() if key != "task" and not key.startswith("_")}
    config = {
        "format": FORMAT,
        "lit_rnn": __version__,
        "class_path": class_paths.class_path(type(model)),
        "init_args": options,
        "task": asdict(model.task),
        "learned": learned(model),
        "dtype": dtype,
        "complex": sorted(name for name, tensor in weights.items() if tensor.is_complex()),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        text = json.dumps(config, indent=2) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The options of this {type(model).__name__} cannot be kept in {CONFIG} ({one_line(error)}): "
            "they must be numbers, strings, lists and mappings."
        ) from error
    folder = Path(folder)
    files.make_folder(folder, "folder")
    files.write_file(folder / WEIGHTS, content)
    files.write_file(folder / CONFIG, text)
    return folder


def learned(model: SequenceModel) -> dict[str, Any]:
    """What the data that a model was trained on had measured: the Trainer's, or that of its checkpoint."""
    data = data_of(model._trainer)
    return dict(model.learned) if data is None else data.learned()


def load(folder: str | Path, trust: Sequence[str] = ()) -> SequenceModel:
    """The model that `save` wrote, on the CPU, in its dtype; its outputs are the same bit for bit.

    A class of your own has to be imported already, or its module named by ``trust``, as in `lit_rnn.models.load`.

    Args:
        folder: Where the two files are.
        trust: Modules to import first, such as ``["leaky"]``, so that the folder may name their classes.

    Raises:
        UserError: if a file is missing, damaged, or of another kind or version, or a class that it names is not loaded.
    """
    safetensors = needed("safetensors.torch", "lit_rnn.export.load", "export")
    class_paths.trust(trust)
    where, path = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    for file in (where, path):
        if not file.is_file():
            raise UserError(f"There is no file {file}: name a folder that lit_rnn.export.save wrote.")
    config = files.read_json(where, _KEYS)
    if config["format"] != FORMAT:
        shown = class_paths.shorten(config["format"])
        raise UserError(
            f"{where} is of format {shown}, and this version of lit_rnn reads {FORMAT}: use the one it names."
        )
    options, task, names = config["init_args"], config["task"], config["complex"]
    known = isinstance(config["dtype"], str) and config["dtype"] in _DTYPES
    if not (known and isinstance(options, Mapping) and isinstance(task, Mapping) and isinstance(names, list)):
        raise UserError(f"{where} is damaged (init_args, task, dtype or complex): make it anew.")
    cls = checked_class(config["class_path"], options, str(where))
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != config["sha256"]:
            raise UserError(
                f"{path} is not the file that {where} was written with (its SHA-256 differs): copy both anew."
            )
        parts: dict[str, Tensor] = safetensors.load(content)
    except UserError:
        raise
    except Exception as error:  # safetensors has a class of its own for a damaged header
        raise UserError(f"{path} is no safetensors file ({one_line(error)}): copy it anew.") from error
    try:
        weights = {name: torch.view_as_complex(part) if name in names else part for name, part in parts.items()}
        model = build(cls, {**options, "task": dict(task)}).to(_DTYPES[config["dtype"]])
        own = model.state_dict()
        model.load_state_dict({**own, **weights})
        differing = {**model.weights_in(own), **weights}
        for name, tensor in weights.items():
            if (own[name].dtype, own[name].shape) == (tensor.dtype, tensor.shape):
                del differing[name]
        if differing:
            raise ValueError(f"other weights are {', '.join(differing)}")
    except OTHER_VERSION as error:
        raise UserError(
            f"{folder} does not fit this version of {class_paths.class_path(cls)} ({one_line(error)}): it is of "
            f"lit_rnn {class_paths.shorten(config['lit_rnn'])}, and this is {__version__}."
        ) from error
    model.learned = found if isinstance(found := config.get("learned"), Mapping) else {}
    return model
