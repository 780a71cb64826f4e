"""Every task that is generated, and MNIST-1D, as small as they go; with each a model, laid out as in its configs."""

from __future__ import annotations

import importlib.util
from typing import Any

from datamodules import (
    MNIST1D,
    Adding,
    AssociativeRecall,
    CopyMemory,
    CycleNavigation,
    Denoise,
    Dyck,
    FlipFlop,
    GeneratedDataModule,
    InductionHeads,
    ListOps,
    ModularArithmetic,
    Parenthesis,
    Parity,
    PermutationWord,
    SelectiveCopy,
    SequenceDataModule,
)

BATCH = 12
# six batches an epoch, the last of them across a multiple of 64, where most tasks that draw lengths draw another
SAMPLES = {"train_samples": 72, "val_samples": 70, "test_samples": 65}
LENGTHS: dict[str, Any] = {"length": 11, "val_lengths": [13]}
BLOCKS = {"layers": 2, "norm": "layer", "residual": True}
EMBEDDED = BLOCKS | {"embedding_size": 3}
ENCODED = BLOCKS | {"encoder_size": 4, "pooling": "mean"}

# the data with their options, and a model with its own
Case = tuple[type[SequenceDataModule], dict[str, Any], str, dict[str, Any]]
CASES: dict[str, Case] = {
    "parity": (Parity, LENGTHS, "UnICORNN", EMBEDDED),
    "parity, growing": (
        Parity,
        LENGTHS | {"every_step": True, "curriculum": {"lengths": [4, 7], "steps": [2, 7]}},
        "LRU",
        EMBEDDED,
    ),
    "cycle": (CycleNavigation, LENGTHS | {"reuse": True}, "CoRNN", {}),
    "arithmetic": (ModularArithmetic, LENGTHS | {"every_step": True}, "MinLSTM", EMBEDDED),
    "brackets": (ModularArithmetic, LENGTHS | {"brackets": True}, "LEM", {}),
    "permutations": (
        PermutationWord,
        LENGTHS | {"group": "S3", "same_length": 1},
        "DeltaProduct",
        EMBEDDED | {"heads": 2},
    ),
    "Dyck": (Dyck, LENGTHS | {"kinds": 2}, "SLSTM", {}),
    "flip-flop": (FlipFlop, {"length": 12, "val_lengths": [16], "ignored": 0.5}, "MinGRU", EMBEDDED),
    "recall": (AssociativeRecall, {"length": 12, "pairs": 2, "vocabulary": 20}, "LinOSS", EMBEDDED),
    "selective copying": (SelectiveCopy, {"delay": 6, "symbols": 3, "val_lengths": [9]}, "DeltaProduct", EMBEDDED),
    "induction": (InductionHeads, LENGTHS | {"alphabet": 4}, "SLSTM", {}),
    "list operations": (
        ListOps,
        {"max_depth": 4, "max_args": 4, "min_length": 5, "max_length": 30},
        "MinGRU",
        EMBEDDED | {"pooling": "mean"},
    ),
    "copying, variable": (CopyMemory, {"delay": 9, "symbols": 2, "variable": True}, "LEM", {}),
    "adding": (Adding, LENGTHS, "LinOSS", ENCODED),
    "denoising": (Denoise, {"delay": 7, "symbols": 2}, "CoRNN", {}),
    "parenthesis": (Parenthesis, {"length": 9, "types": 3}, "UnICORNN", EMBEDDED),
}
if importlib.util.find_spec("mnist1d") is not None:
    CASES["MNIST-1D"] = (MNIST1D, {"val_share": 0.02}, "LRU", ENCODED)


def data_of(kind: str, processes: int = 1, **options: Any) -> SequenceDataModule:
    """The data for one of so many processes, which together take ``BATCH`` sequences a step."""
    cls, own, _, _ = CASES[kind]
    samples = SAMPLES if issubclass(cls, GeneratedDataModule) else {}
    return cls(**samples, **own, batch_size=BATCH // processes, seed=4, **options)
