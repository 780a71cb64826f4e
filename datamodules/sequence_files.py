"""SequenceFiles: the user's own sequences, from files or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from datamodules import unlabelled
from datamodules.arguments import checks_kinds
from datamodules.arrays import Layout, composed, of_arrays
from datamodules.base import SequenceDataModule
from datamodules.errors import require
from datamodules.sequences import joined
from datamodules.stored import Missing, StoredSequences
from datamodules.tables import read


class SequenceFiles(StoredSequences):
    """Your own sequences, from files; `from_arrays` takes arrays.

    A path is one of these:

    - a ``.csv`` or ``.parquet`` with one row for each step, and a column that names its sequence;
    - a ``.npz``, or a folder of ``.npy`` files, with the arrays ``x`` and ``y``, for unequal lengths also ``lengths``,
      and if need be ``splits``; or with ``x_train``, ``y_train``, ``x_test`` and so on;
    - a folder with one folder for each class, in which each file (``.npy``, ``.csv``, ``.parquet``) is one sequence;
      or with such folders in ``train``, ``val`` and ``test``.

    Labels and symbols are text or whole numbers, and get their number from their place in the sorted vocabulary. A
    split that is not given is drawn from the training sequences, class by class where there is one label each.
    ``chance`` is the entropy of the training labels, or the variance of the training targets. Targets that are numbers
    are left as they are.

    Args:
        path: The file or folder.
        inputs: ``values``, one or more numbers a step, or ``symbols``, one name a step.
        targets: ``label``, one class for each sequence; ``value``, one or more numbers for each; ``label_per_step`` or
            ``frame_per_step``, the same at each step.
        val_path: Validation sequences in a file or folder of their own.
        test_path: Test sequences likewise.
        predict_path: Sequences whose targets nobody knows: ``predict`` reads them in place of the validation split.
            Targets, splits and columns that training did not read are not read here, either.
        val_share: Of the training sequences, drawn for validation where no such split is given.
        test_share: Likewise for the test; 0 draws none.
        split_seed: Of the draw.
        standardize: Subtract each channel's mean, and divide by its standard deviation, both over the training steps. A
            checkpoint keeps them.
        missing: What happens to empty cells and NaN in the inputs: ``refuse``, or ``forward_fill``, the last value
            before it in its sequence, or the channel's training mean where there is none.
        sequence_column: Of a table: which sequence a row is a step of.
        step_column: Sorts the rows of each sequence, if there is such a column.
        split_column: Says train, val or test, if there is such a column.
        target_columns: The targets: one column for labels, one or more for numbers.
        input_columns: The inputs; every column must then be named here or elsewhere. Null: all that remain.
        ignored_columns: Columns that are not read.
        name: What tables and pictures call the task.
        metric: The headline metric; null: accuracy of classes, root of the mean squared error of numbers.
        bucket_by_length: Training batches are of sequences of similar length.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    task_options = (*StoredSequences.task_options, "inputs", "targets")

    def __init__(
        self,
        path: str,
        inputs: Literal["values", "symbols"] = "values",
        targets: Literal["label", "value", "label_per_step", "frame_per_step"] = "label",
        val_path: str | None = None,
        test_path: str | None = None,
        predict_path: str | None = None,
        val_share: float = 0.1,
        test_share: float = 0.2,
        split_seed: int = 0,
        standardize: bool = True,
        missing: Missing = "refuse",
        sequence_column: str = "sequence",
        step_column: str = "step",
        split_column: str = "split",
        target_columns: list[str] | None = None,
        input_columns: list[str] | None = None,
        ignored_columns: list[str] | None = None,
        name: str = "own_data",
        metric: str | None = None,
        bucket_by_length: bool = False,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        layout = Layout(
            inputs,
            targets,
            sequence=composed(sequence_column),
            step=composed(step_column),
            split=composed(split_column),
            target_columns=tuple(map(composed, target_columns or ("target",))),
            input_columns=tuple(map(composed, input_columns or ())),
            ignored_columns=tuple(map(composed, ignored_columns or ())),
        )
        require(path != "", "data.init_args.path", path, "the name of a file or folder")
        self.inputs, self.targets = inputs, targets
        more = {"val": val_path, "test": test_path}
        held = [read(Path(path).expanduser(), layout)]
        if any(more.values()):
            held[0] = held[0].of_split("train")
            for split, place in more.items():
                if place is not None:
                    held.append(read(Path(place).expanduser(), layout, f"data.init_args.{split}_path").of_split(split))
        self._hold(
            joined(held, path),
            layout,
            name=name,
            missing=missing,
            standardize=standardize,
            val_share=val_share,
            test_share=test_share,
            split_seed=split_seed,
            metric=metric,
            bucket_by_length=bucket_by_length,
        )
        if predict_path is not None:
            self._ask(
                unlabelled.read(Path(predict_path).expanduser(), layout, self.columns, "data.init_args.predict_path")
            )

    @classmethod
    @checks_kinds("data.init_args")
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        lengths: Any = None,
        splits: Any = None,
        inputs: Literal["values", "symbols"] = "values",
        targets: Literal["label", "value", "label_per_step", "frame_per_step"] = "label",
        val_share: float = 0.1,
        test_share: float = 0.2,
        split_seed: int = 0,
        standardize: bool = True,
        missing: Missing = "refuse",
        name: str = "own_data",
        metric: str | None = None,
        bucket_by_length: bool = False,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> Self:
        """The same of arrays.

        Args:
            x: (N, T) or (N, T, I), filled up behind ``lengths`` where those are given; or one sequence after another,
                (S,) or (S, I), where ``lengths`` sum to S; or a list of (T_i,) or (T_i, I).
            y: (N,) or (N, O); of targets per step, as ``x`` is.
            lengths: (N,) steps of each sequence.
            splits: (N,) of ``train``, ``val`` and ``test``.
            inputs: As for the class, and so are all that follow.
        """
        layout = Layout(inputs, targets)
        data = cls.__new__(cls)
        SequenceDataModule.__init__(data, batch_size, seed, num_workers)
        data.inputs, data.targets = inputs, targets
        data._hold(
            of_arrays(x, y, lengths, splits, layout, "from_arrays"),
            layout,
            name=name,
            missing=missing,
            standardize=standardize,
            val_share=val_share,
            test_share=test_share,
            split_seed=split_seed,
            metric=metric,
            bucket_by_length=bucket_by_length,
        )
        return data
