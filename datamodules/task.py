"""Task: the one thing that data tells a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from datamodules.arguments import ChecksKinds
from datamodules.errors import require, whole, whole_or_null

Inputs = Literal["symbols", "values"]
Targets = Literal["label", "label_per_step", "value", "frame_per_step", "next_symbol"]
Scored = Literal["last", "all", "mask", "padded"]


@dataclass(frozen=True)
class Task(metaclass=ChecksKinds):
    """What comes in, what goes out, which steps count, and what a trivial predictor gets.

    A batch is ``(inputs, targets)``, batch first, and may go on with ``mask``, ``lengths`` (B,) int64, or both in this
    order: see `datamodules.batch.Parts`. Only primitives live here, so a Task survives a checkpoint as
    ``dataclasses.asdict(task)``.

    Args:
        name: Short name for folders, tables and pictures.
        inputs: ``symbols``: int64 (B, T); ``values``: float32 (B, T, input_size).
        input_size: Vocabulary size of symbols, or width of values.
        targets: ``label``: int64 (B,), one per sequence; ``label_per_step`` and ``next_symbol``: int64 (B, T);
            ``value``: float32 (B, target_size); ``frame_per_step``: float32 (B, T, target_size).
        target_size: Number of classes, or width of the value or frame.
        length: Steps in a sequence; None when it varies.
        scored: Which steps the loss averages over: the ``last``, ``all``, or those where the batch's bool ``mask``
            (B, T) is true; never those behind a sequence's end. ``padded`` is ``all``, but the mean is over the whole
            batch, where steps behind an end have no error: of published figures alone, with the metric ``mse``.
        recall: The headline metric counts only the last ``recall`` steps; None counts the steps of the loss.
        chance: Loss of the best predictor that does not look at the input, in nats or squared units.
        metric: The headline metric. Of classes: ``accuracy``, ``cross_entropy``, ``bits_per_symbol`` (of text also
            called ``bits_per_character``, ``bits_per_byte`` or ``bits_per_word``), ``perplexity``, ``f1`` and ``auroc``
            (means of the classes); of numbers: ``mse``, ``rmse``, ``mae``, ``r2``, ``within_0.04`` (share of
            predictions closer than 0.04 to their value). Or a class of torchmetrics by its name, such as
            ``MulticlassJaccardIndex``: see `lit_rnn.models.objectives.headline`. Where the network answers NaN, or
            infinity for a class, ``accuracy`` and ``within_0.04`` count it as wrong, and all others are NaN.
        higher_is_better: Direction of the headline metric.
        labels: How many labels every step has, each of ``target_size`` classes, of ``label_per_step``: with more than
            one, targets are (B, T, labels) and outputs (B, T, labels, target_size). Loss and metric are over all.

    Raises:
        UserError: if an option is of another kind, or one contradicts another.
    """

    options_at: ClassVar[str] = "task"

    name: str
    inputs: Inputs
    input_size: int
    targets: Targets
    target_size: int
    length: int | None
    scored: Scored
    chance: float
    metric: str
    higher_is_better: bool
    recall: int | None = None
    labels: int = 1

    def __post_init__(self) -> None:
        for key in ("input_size", "target_size", "labels"):
            whole(getattr(self, key), f"task.{key}", 1)
        whole_or_null(self.length, "task.length", 1)
        each = f"with targets {self.targets}"
        apart = not self.per_step or self.scored != "last"
        require(apart, "task.scored", self.scored, f"all or mask {each}, one of which stands at every step")
        require(self.recall is None or self.per_step, "task.recall", self.recall, f"null {each}, one a sequence")
        whole_or_null(self.recall, "task.recall", 1)
        several = self.labels == 1 or self.targets == "label_per_step"
        require(several, "task.labels", self.labels, f"1 {each}: label_per_step alone has several")

    @property
    def per_step(self) -> bool:
        """Whether there is a target at every step, rather than one per sequence."""
        return self.targets in ("label_per_step", "frame_per_step", "next_symbol")

    @property
    def classifies(self) -> bool:
        """Whether targets are classes (cross-entropy) rather than numbers (squared error)."""
        return self.targets in ("label", "label_per_step", "next_symbol")
