"""Whatever model a checkpoint holds."""

from __future__ import annotations

import contextlib
import inspect
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datamodules.errors import UserError, one_line
from lit_rnn import class_paths
from lit_rnn.models.base import SequenceModel

OTHER_VERSION = (AttributeError, TypeError, ValueError, KeyError, RuntimeError)
"""What a model's code raises for options and weights of another version of it."""

_CHUNK = 1 << 20
_ARCHIVE = b"PK\3\4"  # begins a zip archive that has members
_DOS_FOLDER = 0x10  # of the attributes of a member


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's contents, primitives and tensors only, every byte of them checked by its CRC-32.

    Args:
        path: The file.
        map_location: Where tensors go, as in `torch.load`.

    Raises:
        UserError: if there is no such file, or it is not a whole, undamaged checkpoint of this project.
    """
    if not Path(path).is_file():
        last = Path(path) / "checkpoints" / "last.ckpt"  # of a run folder
        instead = last if last.is_file() else "a checkpoint, or on the command line a run by --run_dir"
        raise UserError(f"ckpt_path is {str(path)!r}, but there is no such file: name {instead}.")
    try:
        with Path(path).open("rb") as file:
            _check_sums(file)
            file.seek(0)
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
        model, options = checkpoint["lit_rnn"], checkpoint["hyper_parameters"]
        tensors, steps = checkpoint["state_dict"].values(), model["optimizer_steps"]
        sound = isinstance(options, Mapping) and all(isinstance(key, str) for key in options)
        sound = sound and "class_path" in model and isinstance(steps, int) and 0 <= steps < 2**63
        sound = sound and all(isinstance(tensor, torch.Tensor) for tensor in tensors)
    except Exception as error:  # a damaged pickle raises whatever its bytes say
        known = isinstance(error, pickle.UnpicklingError | zipfile.BadZipFile | OSError | EOFError)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}" if known else type(error).__name__
        raise UserError(
            f"ckpt_path {path} is not a whole checkpoint of lit_rnn ({reason}); "
            "it may have been cut short or changed: name another with --ckpt_path."
        ) from error
    if not sound:
        raise UserError(f"ckpt_path {path} is not a whole checkpoint of lit_rnn: name another with --ckpt_path.")
    return checkpoint


@contextlib.contextmanager
def taken_up(path: str | Path) -> Iterator[None]:
    """Turn what a checkpoint raises whose contents lack something, or have it of another kind, into a sentence.

    Raises:
        UserError: with that error in it.
    """
    try:
        yield
    except OTHER_VERSION as error:
        raise cannot_take_up(path, error) from error


def cannot_take_up(path: str | Path, error: BaseException) -> UserError:
    """The sentence for what an attempt to go on from a checkpoint, or to restore it, has raised."""
    return UserError(
        f"ckpt_path {path} cannot be taken up ({type(error).__name__}: {one_line(error)[:200]}): it was made by "
        "another version, or changed; name another with --ckpt_path."
    )


def _check_sums(file: BinaryIO) -> None:
    """Refuse an archive one of whose members is not what its CRC-32 says; torch itself does not look.

    Raises:
        zipfile.BadZipFile: naming the member.
    """
    if file.read(4) != _ARCHIVE:  # torch would read what stands before it, in its format without sums
        raise zipfile.BadZipFile("it does not begin as an archive")
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # torch stores; a small file must not become a large one
                raise zipfile.BadZipFile(f"{member.filename!r} is compressed")
            if member.external_attr & _DOS_FOLDER:  # torch reads nothing for a folder: a tensor of foreign memory
                raise zipfile.BadZipFile(f"{member.filename!r} is marked as a folder")
            with archive.open(member) as content:
                while content.read(_CHUNK):
                    pass


def class_of(checkpoint: Mapping[str, Any], path: str | Path) -> type[SequenceModel]:
    """The class of a checkpoint's model, after a look at all names of classes in it; nothing is imported.

    Raises:
        UserError: if a name is no loaded model, optimizer or scheduler.
    """
    options, name = checkpoint["hyper_parameters"], checkpoint["lit_rnn"]["class_path"]
    return checked_class(name, options, f"ckpt_path {path}")


def checked_class(name: object, options: Mapping[str, Any], file: str) -> type[SequenceModel]:
    """The loaded model class of that ``name``, after a look at the classes that ``options``, a file's, name.

    Raises:
        UserError: beginning with ``file``, if a name is no loaded model, optimizer or scheduler.
    """
    own = options.get("group_optimizers") or {}
    if not isinstance(own, Mapping):
        raise UserError(f"{file} holds group_optimizers that are no mapping: name another file.")
    optimizers = [("optimizer", spec, Optimizer) for spec in (options.get("optimizer"), *own.values())]
    for key, spec, base in [*optimizers, ("lr_scheduler", options.get("lr_scheduler"), LRScheduler)]:
        if spec is not None:
            named = spec.get("class_path") if isinstance(spec, Mapping) else spec
            class_paths.class_in(file, f"its {key}", named, base)
    return class_paths.class_in(file, "its model", name, SequenceModel)


def build(cls: type[SequenceModel], options: Mapping[str, Any]) -> SequenceModel:
    """A model from the hyperparameters that a file keeps: what its class gives itself is left out."""
    options = {key: value for key, value in options.items() if not key.startswith("_")}
    takes = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        options = {key: value for key, value in options.items() if key in takes}
    return cls(**options)


def load(path: str | Path, trust: Sequence[str] = ()) -> SequenceModel:
    """The model of a checkpoint, of the class that was saved, with its weights, on the CPU.

    Works for checkpoints of the command line and of a Trainer in Python. A class of your own has to be imported
    already, or its module named by ``trust``: a file never makes Python import anything (see SECURITY.md).

    Args:
        path: The file.
        trust: Modules to import first, such as ``["leaky"]``, so that the checkpoint may name their classes.

    Raises:
        UserError: if it is no whole checkpoint, names a class that is not loaded, or is one of another version of the
            model's code.
    """
    class_paths.trust(trust)
    checkpoint = read_checkpoint(path)
    return restored(class_of(checkpoint, path), checkpoint, path)


def restored(
    cls: type[SequenceModel],
    checkpoint: dict[str, Any],
    path: str | Path,
    given: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> SequenceModel:
    """The model of a checkpoint's hyperparameters, with ``given`` ones over them, and of its weights.

    Raises:
        UserError: if they do not fit the model's code, or each other.
    """
    try:
        model = build(cls, {**checkpoint["hyper_parameters"], **(given or {})})
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"], strict=strict)
        for state in checkpoint.values():  # Lightning keeps the data's under its class
            if isinstance(state, Mapping) and isinstance(state.get("learned"), Mapping):
                model.learned = state["learned"]
    except OTHER_VERSION as error:
        reason = one_line(error)
        if given:
            raise UserError(
                f"ckpt_path {path} does not fit {', '.join(given)} as given ({reason}): leave out what changes the "
                "network's shape."
            ) from error
        raise UserError(
            f"ckpt_path {path} was made by another version of {class_paths.class_path(cls)} ({reason}): use the "
            "version that made it, or train it again."
        ) from error
    return model
