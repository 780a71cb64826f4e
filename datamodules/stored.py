"""StoredSequences: data that is read whole, split, filled and standardised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules import sequences as parts
from datamodules.arrays import Layout
from datamodules.base import SequenceDataModule, Split, entropy
from datamodules.errors import UserError, require
from datamodules.sequences import Sequences, Statistics, StoredSplit
from datamodules.task import Task

Missing = Literal["refuse", "forward_fill"]
_CLASS_METRICS = ("accuracy", "f1", "auroc", "cross_entropy", "bits_per_symbol", "perplexity")
_NUMBER_METRICS = ("rmse", "mse", "mae", "r2", "within_0.04")
_LARGEST = float(np.finfo(np.float32).max)
_MOST = f"networks compute in single precision, which holds at most {_LARGEST:.3g}: take another unit"
_HIGHER = ("accuracy", "f1", "auroc", "r2", "within_0.04")
_SHOWN = 20


class StoredSequences(SequenceDataModule, ABC):
    """Base of data that is read whole: names numbered, missing values filled, split, standardised.

    What was measured on the training split (`learned`) goes into every checkpoint, and what is read with a checkpoint
    uses that.
    """

    task_options: ClassVar[tuple[str, ...]] = ("missing", "standardize", "val_share", "test_share", "split_seed")

    @abstractmethod
    def __init__(self, batch_size: int, seed: int | None, num_workers: int) -> None:
        """A subclass reads its files, and gives what it read to `_hold`."""
        super().__init__(batch_size, seed, num_workers)

    def _hold(
        self,
        sequences: Sequences,
        layout: Layout,
        *,
        name: str,
        missing: Missing,
        standardize: bool,
        val_share: float,
        test_share: float,
        split_seed: int,
        metric: str | None,
        bucket_by_length: bool,
        every_class: bool = True,
    ) -> None:
        """Take what was read. ``every_class``: a split that lacks a class is refused; else training alone may not."""
        metrics = _CLASS_METRICS if layout.labels else _NUMBER_METRICS
        require(metric in (None, *metrics), "data.init_args.metric", metric, f"one of {', '.join(metrics)}")
        require(0 <= split_seed < 2**63, "data.init_args.split_seed", split_seed, "a whole number of at least 0")
        require(0 < val_share < 1, "data.init_args.val_share", val_share, "above 0 and below 1")
        require(
            0 <= test_share < 1 - val_share,
            "data.init_args.test_share",
            test_share,
            "0 or more, and below 1 - val_share",
        )
        self._asked: Sequences | None = None
        self.missing, self.standardize, self.bucket_by_length = missing, standardize, bucket_by_length
        self.val_share, self.test_share, self.split_seed = val_share, test_share, split_seed
        self.source, self.layout, self.columns = sequences.source, layout, sequences.columns
        self.classes: list[str] | None = None
        self.vocabulary: list[str] | None = None
        self._lengths, self._starts = sequences.lengths, sequences.starts
        self._equal = len(np.unique(sequences.lengths)) == 1
        self._targets = self._read_targets(sequences)
        self._inputs = self._read_inputs(sequences)
        self._names = sequences.names
        if layout.inputs == "symbols":
            self._inputs, self.vocabulary = parts.numbered(self._inputs)
        groups = self._targets if layout.targets == "label" else None
        shares = {"test": test_share, "val": val_share}
        self._splits = parts.drawn_splits(sequences, shares, split_seed, groups, self.classes or [], every_class)
        if groups is not None:
            parts.check_classes(sequences, self._splits, groups, self.classes or [], everywhere=every_class)
        self._tell_unread(sequences, shares)
        self._contents = parts.contents(self._inputs, self._targets, self._lengths, self._splits == "train")
        self.statistics = self._measured(sequences)
        self.task = self._described(name, metric or metrics[0])

    def _tell_unread(self, sequences: Sequences, shares: Mapping[str, float]) -> None:
        given = [] if sequences.splits is None else [name for name in shares if (sequences.splits == name).any()]
        for name in given:
            self.tell_unread(f"{name}_share", shares[name], f"a {name} split that is given")
        self.draws_splits = any(share > 0 and name not in given for name, share in shares.items())
        if not self.draws_splits:
            self.tell_unread("split_seed", self.split_seed, "splits that are all given")
        if self._equal:
            self.tell_unread("bucket_by_length", self.bucket_by_length, "sequences of equal length")
        if self.layout.inputs == "symbols":
            self.tell_unread("standardize", self.standardize, "inputs: symbols")
            self.tell_unread("missing", self.missing, "inputs: symbols")

    # ---- what was read, as numbers

    def _read_targets(self, sequences: Sequences) -> NDArray[Any]:
        """Classes, numbered, or finite numbers."""
        targets = sequences.targets
        first = np.arange(len(targets)) if self.layout.per_step else sequences.starts
        bad = targets == "" if self.layout.labels else ~np.isfinite(targets).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            found = "no" if self.layout.labels or np.isnan(targets[row]).any() else "an infinite"
            raise UserError(f"{sequences.at(int(first[row]))} has {found} target; every sequence needs a finite one.")
        if not self.layout.labels:
            large = (np.abs(targets) > _LARGEST).any(axis=1)
            if large.any():
                row = int(np.flatnonzero(large)[0])
                found = f"{np.abs(targets[row]).max():g} as the size of a target"
                raise UserError(f"{sequences.at(int(first[row]))} has {found}, but {_MOST}.")
            return targets.astype(np.float32)
        codes, self.classes = parts.numbered(targets)
        if len(self.classes) == 1:
            raise UserError(
                f"{sequences.source} has one class only, {self.classes[0]!r} from {sequences.at(0)} on: there is "
                "nothing to tell apart."
            )
        return codes

    def _read_inputs(self, sequences: Sequences) -> NDArray[Any]:
        """Texts of symbols, or numbers, NaN alone where nothing came before."""
        inputs: NDArray[Any] = sequences.inputs
        if self.layout.inputs == "symbols":
            if (inputs == "").any():
                raise UserError(
                    f"{sequences.at(int(np.flatnonzero(inputs == '')[0]))} has no symbol; every step needs one."
                )
            return inputs
        infinite = np.isinf(inputs).any(axis=1)
        if infinite.any():
            step = int(np.flatnonzero(infinite)[0])
            raise UserError(f"{sequences.at(step)} has an infinite value{self._channel(np.isinf(inputs[step]))}.")
        large = np.abs(inputs) > _LARGEST
        if large.any():
            step = int(np.flatnonzero(large.any(axis=1))[0])
            found = f"{inputs[step][large[step]][0]:g}{self._channel(large[step])}"
            raise UserError(f"{sequences.at(step)} has {found}, but {_MOST}.")
        missing = np.isnan(inputs).any(axis=1)
        if not missing.any():
            return inputs
        if self.missing == "refuse":
            step = int(np.flatnonzero(missing)[0])
            raise UserError(
                f"{sequences.at(step)} has a missing value{self._channel(np.isnan(inputs[step]))}, one of "
                f"{int(np.isnan(inputs).sum()):,}: fill them in, or set data.init_args.missing to forward_fill."
            )
        return parts.filled_forward(inputs, sequences.starts, sequences.lengths)

    def _channel(self, where: NDArray[np.bool_]) -> str:
        number = int(np.flatnonzero(where)[0])
        return f" in column {self.columns[number]}" if self.columns else f" in channel {number}"

    def _rows_of(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The steps of the chosen sequences."""
        lengths = self._lengths[chosen]
        begins: NDArray[np.int64] = np.repeat(self._starts[chosen] - (lengths.cumsum() - lengths), lengths)
        return begins + np.arange(int(lengths.sum()), dtype=np.int64)

    def _measured(self, sequences: Sequences) -> Statistics | None:
        if self.layout.inputs == "symbols":
            return None
        training = self._inputs[self._rows_of(np.flatnonzero(self._splits == "train"))]
        empty = np.isnan(training).all(axis=0)
        if empty.any():
            raise UserError(f"{sequences.source} has no value at all{self._channel(empty)} of the training split.")
        return Statistics.of(training)

    def _described(self, name: str, metric: str) -> Task:
        layout = self.layout
        trained = np.flatnonzero(self._splits == "train")
        targets = self._targets[self._rows_of(trained) if layout.per_step else trained]
        if layout.labels:
            chance = entropy(np.bincount(targets) / len(targets))
        else:
            chance = float(targets.astype(np.float64).var(axis=0).mean())
        return Task(
            name=name,
            inputs=layout.inputs,
            input_size=len(self.vocabulary) if self.vocabulary is not None else self._inputs.shape[1],
            targets=layout.targets,
            target_size=len(self.classes) if self.classes is not None else self._targets.shape[1],
            length=int(self._lengths[0]) if self._equal else None,
            scored="all" if layout.per_step else "last",
            chance=chance,
            metric=metric,
            higher_is_better=metric in _HIGHER,
        )

    # ---- splits

    def split(self, name: Split) -> StoredSplit:
        chosen = np.flatnonzero(self._splits == name)
        if not len(chosen):
            raise UserError(f"{self.source} has no {name} split: give one, or raise data.init_args.{name}_share.")
        rows = self._rows_of(chosen)
        inputs, per_step = self._inputs[rows], self.layout.per_step
        if self.statistics is not None:
            inputs = self.statistics.applied(inputs, self.standardize)
        targets = self._targets[rows if per_step else chosen]
        return StoredSplit(
            torch.from_numpy(inputs), torch.from_numpy(targets), self._lengths[chosen], per_step, self._equal
        )

    # ---- sequences whose targets nobody knows

    def _ask(self, asked: Sequences) -> None:
        """Let `predict` read these in place of the validation split.

        Raises:
            UserError: if they are of another width or length, or have a symbol that no file of training has.
        """
        inputs, task = self._read_inputs(asked), self.task
        if self.vocabulary is not None:
            numbers = {name: number for number, name in enumerate(self.vocabulary)}
            codes = np.array([numbers.get(name, -1) for name in inputs.tolist()])
            strange = np.flatnonzero(codes < 0)
            if len(strange):
                raise UserError(
                    f"{asked.at(int(strange[0]))} has the symbol {str(inputs[strange[0]])!r}, which {self.source} does "
                    "not have: a network knows the symbols that it was trained on."
                )
            inputs = codes
        elif inputs.shape[1] != task.input_size:
            raise UserError(
                f"{asked.source} has inputs of width {inputs.shape[1]}, but {self.source} has {task.input_size}."
            )
        other = np.flatnonzero(asked.lengths != (task.length or asked.lengths))
        if len(other):
            raise UserError(
                f"{asked.at(int(asked.starts[other[0]]))} begins a sequence of {asked.lengths[other[0]]} steps, but "
                f"all of {self.source} have {task.length}."
            )
        self._asked = replace(asked, inputs=inputs)

    def predict_dataloader(self) -> Any:
        """Of the sequences whose targets nobody knows, which have zeros there; else of the validation split."""
        if self._asked is None:
            return super().predict_dataloader()
        inputs, lengths = self._asked.inputs, self._asked.lengths
        if self.statistics is not None:
            inputs = self.statistics.applied(inputs, self.standardize)
        rows = len(inputs) if self.layout.per_step else len(lengths)
        targets = torch.from_numpy(np.zeros((rows, *self._targets.shape[1:]), dtype=self._targets.dtype))
        split = StoredSplit(torch.from_numpy(inputs), targets, lengths, self.layout.per_step, self._equal)
        return self._loader_of(split, "val", *self._processes())

    def beside_predictions(self) -> dict[str, Any]:
        names = self._names[self._splits == "val"] if self._asked is None else self._asked.names
        meant = {"classes": self.classes, "symbols": self.vocabulary}
        return {"sequences": names, **{key: np.array(value) for key, value in meant.items() if value is not None}}

    @property
    def answers_known(self) -> bool:
        return self._asked is None

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "contents": self._contents}

    def fingerprint(self) -> str | None:
        return parts.contents(np.array([self._contents]), self._splits.astype("U5"))

    # ---- what a checkpoint keeps

    def learned(self) -> dict[str, Any]:
        """The statistics of the training split, what numbers and channels mean, and what becomes of missing values."""
        return {
            **({} if self.statistics is None else self.statistics.primitives()),
            "classes": self.classes,
            "vocabulary": self.vocabulary,
            "columns": list(self.columns),
            "missing": self.missing,
        }

    def learn(self, kept: Mapping[str, Any]) -> None:
        own = self.learned()
        for key, what in (("classes", "classes"), ("vocabulary", "symbols"), ("columns", "input columns")):
            was, now = kept.get(key), own[key]
            if was != now and was is not None and (key != "columns" or (was and now)):  # arrays have no columns
                raise UserError(
                    f"{self.source} has the {what} {_listed(now)}, but the checkpoint was made on {_listed(was)}: its "
                    "numbers would mean others; give data with the same."
                )
        if self.statistics is None:
            return
        self.statistics = Statistics.in_checkpoint(kept, self.task.input_size, self.source)
        self.__dict__.pop("_validation", None)  # made with the others

    def told(self) -> str:
        counts = ", ".join(f"{int((self._splits == name).sum()):,} {name}" for name in parts.SPLITS)
        lines = [f"{self.source}: {counts}"]
        if self.columns:
            lines.append(f"inputs {_listed(self.columns)}")
        if self.statistics is not None and self.standardize:
            lines.append("standardised by the training split")
        for what, names in (("classes", self.classes), ("symbols", self.vocabulary)):
            if names is not None:
                lines.append(f"{what} {_listed([f'{number} = {name}' for number, name in enumerate(names)])}")
        return "; ".join(lines)


def _listed(names: object) -> str:
    if not isinstance(names, list | tuple) or not names:
        return "none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(str, names[:_SHOWN]))}{more}"
