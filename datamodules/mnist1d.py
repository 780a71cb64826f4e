"""MNIST-1D: ten shapes along a line (Greydanus and Kobak 2024)."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from datamodules.arrays import Layout, of_arrays
from datamodules.errors import UserError, one_line
from datamodules.sequences import joined
from datamodules.stored import StoredSequences


class MNIST1D(StoredSequences):
    """MNIST-1D: 40 steps of one number, in which of ten shapes? 4,000 training and 1,000 test sequences.

    A shape of 12 points is padded, moved, scaled, sheared, blurred with noise and sampled at 40 points. The package
    mnist1d, an extra, makes them as published, from its own settings and seed; nothing is downloaded. The numbers of
    all 5,000 together have mean 0 and variance 1, and there are 500 of each class.

    Greydanus and Kobak 2024 ("Scaling down deep learning with MNIST-1D"), whose GRU has 91 % of the test set right, and
    of the permuted one 57 %.

    Args:
        permute: All sequences in one other order of their steps, that of the package.
        val_share: Of the training sequences, drawn for validation.
        split_seed: Of the draw.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    task_options = (*StoredSequences.task_options, "permute")

    def __init__(
        self,
        permute: bool = False,
        val_share: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 100,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.permute = permute
        made, layout = _made(permute), Layout("values", "label")
        parts = [
            of_arrays(made[f"x{part}"][..., None], made[f"y{part}"].astype(str), None, None, layout, "MNIST-1D")
            for part in ("", "_test")
        ]
        self._hold(
            joined([parts[0].of_split("train"), parts[1].of_split("test")], "MNIST-1D"),
            layout,
            name="permuted_mnist1d" if permute else "mnist1d",
            missing="refuse",
            standardize=False,
            val_share=val_share,
            test_share=0.0,
            split_seed=split_seed,
            metric=None,
            bucket_by_length=False,
        )


@functools.cache  # it takes seconds
def _made(permute: bool) -> dict[str, Any]:
    """What the package makes: x, y, x_test and y_test."""
    try:
        import mnist1d.data as package
    except ImportError as error:
        raise UserError(
            f"MNIST1D needs the Python package mnist1d, which is not installed ({one_line(error)}): "
            "pip install 'lit_rnn[mnist1d]'."
        ) from error
    settings = package.get_dataset_args()
    settings.shuffle_seq = permute
    with _same_draws():
        made: dict[str, Any] = package.make_dataset(settings)
    return made


@contextlib.contextmanager
def _same_draws() -> Iterator[None]:
    """What is drawn behind is what would have been drawn: the package seeds the generators of the whole process."""
    kept = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
