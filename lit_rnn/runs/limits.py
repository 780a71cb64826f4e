"""What no run can be: numbers beyond 64 bits, texts that no file can hold, batches larger than memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer

from datamodules import SequenceDataModule
from datamodules.errors import UserError, require
from lit_rnn.class_paths import arguments_of, loaded
from lit_rnn.files import check_path
from lit_rnn.memory import require_memory
from lit_rnn.models import SequenceModel
from lit_rnn.runs.config import PLACES, check_places
from lit_rnn.runs.options import listed, walk

LARGEST = 2**63 - 1
_FLOAT = torch.finfo(torch.float32).max
_PLAIN = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
_PATHS = ("run_dir", "ckpt_path")


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse numbers beyond 64 bits, of a model beyond float32, and texts that no file or name can have.

    Raises:
        UserError: naming the key.
    """
    for key, value in walk(config, ""):
        if isinstance(value, int):
            require(abs(value) <= LARGEST, key, value, f"a whole number of 64 bits, at most {LARGEST}")
        if isinstance(value, float) and key.startswith("model."):
            fits = abs(value) <= _FLOAT or not math.isfinite(value)
            require(fits, key, value, f"a number that float32 can hold, at most {_FLOAT:.2g}")
        if isinstance(value, str):
            sound = "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
            require(sound, key, value, "text without the character NUL and without halves of characters")
            if key in _PATHS:
                check_path(value, key)


def check_parsed(config: Mapping[str, Any]) -> None:
    """`check_values` and `check_places` of a whole config, and no null where a number, text or choice belongs.

    The parser lets null pass.

    Raises:
        UserError: naming the key.
    """
    check_values(config)
    check_places(config)
    sections = [
        (f"{key}.init_args", loaded(config[key]["class_path"], PLACES[key]), config[key].get("init_args"))
        for key in ("model", "data")
    ]
    if isinstance(trainer := config["trainer"], Mapping):
        sections.append(("trainer", Trainer, trainer))
        for place in ("trainer.callbacks", "trainer.logger"):  # one, a list, or none; a logger may be true
            some = [one for one in listed(trainer.get(place.partition(".")[2])) if isinstance(one, Mapping)]
            sections += [(place, loaded(one["class_path"], PLACES[place]), one.get("init_args")) for one in some]
    for key, cls, options in sections:
        given = options or {}
        takes = {} if cls is None else arguments_of(cls)
        for name in given.keys() & takes.keys():
            kind = takes[name].annotation
            kind = kind.__name__ if isinstance(kind, type) else kind
            kinds = kind.split(" | ") if isinstance(kind, str) else []
            if given[name] is None and takes[name].default is not None and kinds and _PLAIN.keys() >= set(kinds):
                raise UserError(f"{key}.{name} is null, but it must be {' or '.join(_PLAIN[one] for one in kinds)}.")


def check_memory(model: SequenceModel, data: SequenceDataModule, device: torch.device, trains: bool) -> None:
    """Refuse what this machine's memory cannot hold, counting only what has to be there at the same time.

    That is the order of the samples and a batch of inputs; on the CPU also the parameters, in training with their
    gradients, and then every state of the batch, unless some are recomputed.

    Raises:
        UserError: with the number.
    """
    samples, task = getattr(data, "samples", {}), model.task
    for split, count in samples.items():
        require_memory(8 * count, f"data.init_args.{split}_samples", count, "the order of so many samples")
    rows, steps = min(data.batch_size, samples.get("train", data.batch_size)), task.length or 0
    each = rows * (8 if task.inputs == "symbols" else 4 * task.input_size)
    for other in data.other_tasks().values():
        so_long = f"a batch of {rows:,} sequences of {other.length:,} steps"
        require_memory(each * (other.length or 0), "data.init_args.val_lengths", list(data.other_tasks()), so_long)
    inputs = each * steps
    key, what = "data.init_args.batch_size", f"a batch of {rows:,} sequences of {steps:,} steps"
    require_memory(inputs, key, data.batch_size, what)
    if device.type != "cpu":
        return
    weights = sum(parameter.nbytes for parameter in model.parameters())
    holding = "holding its weights" + " and their gradients" * trains
    require_memory(weights * (1 + trains), "model.class_path", type(model).__name__, holding)
    if trains and model.hparams.get("checkpoint_every") is None:
        width = sum(cell.hidden_size for cell in model.cell_list())
        states = rows * steps * width * model.decoder.weight.element_size()
        require_memory(inputs + states, key, data.batch_size, f"{what} with all states")
