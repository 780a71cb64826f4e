"""UEA: the UEA and UCR archive of time series, in its ``.ts`` format (Bagnall et al. 2018; Dau et al. 2019)."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.arrays import Layout, of_arrays
from datamodules.downloads import Download, fetch
from datamodules.errors import UserError, one_line, require
from datamodules.sequences import Sequences, joined
from datamodules.stored import Missing, StoredSequences

_ADDRESS = "https://timeseriesclassification.com/aeon-toolkit/{}.zip"


class UEA(StoredSequences):
    """A data set of the UEA and UCR archive, of equal or unequal lengths, with the archive's own test split.

    The validation split is drawn from the training file, class by class; a class with a single training sequence stays
    there. Files are read by aeon, an extra: ``pip install 'lit_rnn[uea]'``. Regression sets have the target ``value``.

    The files are looked for in ``root/DATASET``, then among those that aeon brings (JapaneseVowels, ACSF1 and others),
    and else downloaded to ``root/DATASET``. The archive publishes no sums: members of its zip are checked by their
    CRC-32.

    Args:
        dataset: Its name in the archive, such as ``JapaneseVowels`` or ``EigenWorms``.
        root: The folder that holds (or will hold) ``DATASET/DATASET_TRAIN.ts`` and ``DATASET/DATASET_TEST.ts``.
        val_share: Of the training sequences, drawn for validation.
        split_seed: Of the draw.
        standardize: By channel, by mean and standard deviation of the training split.
        missing: ``refuse`` or ``forward_fill``, as in `SequenceFiles`.
        metric: The headline metric; null: accuracy of classes, root of the mean squared error of numbers.
        bucket_by_length: Training batches are of sequences of similar length.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    task_options = (*StoredSequences.task_options, "dataset")

    def __init__(
        self,
        dataset: str = "JapaneseVowels",
        root: str = "data/UEA",
        val_share: float = 0.1,
        split_seed: int = 0,
        standardize: bool = True,
        missing: Missing = "refuse",
        metric: str | None = None,
        bucket_by_length: bool = False,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        accepted = "a name of the archive, letters, digits, - and _"
        require(re.fullmatch(r"[\w-]+", dataset) is not None, "data.init_args.dataset", dataset, accepted)
        self.dataset = dataset
        folder = _folder(dataset, Path(root).expanduser())
        (train, regression), (test, _) = (_read(folder / f"{dataset}_{part}.ts") for part in ("TRAIN", "TEST"))
        self._hold(
            joined([train.of_split("train"), test.of_split("test")], str(folder)),
            _layout(regression),
            name=dataset.lower(),
            missing=missing,
            standardize=standardize,
            val_share=val_share,
            test_share=0.0,
            split_seed=split_seed,
            metric=metric,
            bucket_by_length=bucket_by_length,
            every_class=False,
        )


def _aeon() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            return importlib.import_module("aeon.datasets")
    except ImportError as error:
        raise UserError(
            "UEA needs the Python package aeon, which is not installed, or not for this numpy "
            f"({one_line(error)}): pip install 'lit_rnn[uea]', without constraints.txt."
        ) from error


def _folder(dataset: str, root: Path) -> Path:
    """Where the two files are, downloaded if need be."""
    shipped = Path(_aeon().__file__).parent / "data" / dataset
    files = [f"{dataset}_{part}.ts" for part in ("TRAIN", "TEST")]
    for folder in (root / dataset, shipped):
        if all((folder / name).is_file() for name in files):
            return folder
    published = Download(_ADDRESS.format(dataset), {name: name for name in files})
    fetch(root / dataset, dataset, [published])
    return root / dataset


def _layout(regression: bool) -> Layout:
    return Layout("values", "value" if regression else "label")


def _read(path: Path) -> tuple[Sequences, bool]:
    """A file's sequences, and whether their targets are numbers."""
    try:
        x, y, told = _aeon().load_from_ts_file(str(path), return_meta_data=True)
        each = [np.ascontiguousarray(np.asarray(one, dtype=np.float64).T) for one in x]  # (T, channels)
    except Exception as error:  # a damaged file raises whatever its text says
        raise UserError(
            f"{path} is no whole .ts file ({one_line(error)[:200] or type(error).__name__}): delete it and run again "
            "to download it anew."
        ) from error
    regression = bool(told.get("targetlabel"))
    if not regression and not told.get("classlabel"):
        raise UserError(f"{path} has neither classes nor targets: a set for classification or regression is accepted.")
    return of_arrays(each, np.asarray(y), None, None, _layout(regression), str(path)), regression
