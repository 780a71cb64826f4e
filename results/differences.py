"""Where ours differs from a published figure, which every page says first; which setting stands for a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datamodules
from datamodules.pixels import PixelDataModule
from lit_rnn.commands.compare.measure import Comparison, Group, Spread, beside, best_by_validation
from lit_rnn.commands.compare.page import shown
from lit_rnn.published import Published
from lit_rnn.report.tables import plain_markdown, words

TEST_IMAGES = {"pixel_mnist": 10_000, "permuted_pixel_mnist": 10_000}  # by task


def label(group: Group) -> str:
    """The model with what makes it that model, alike for all lengths of a task."""
    options = group.runs[0].options("model")
    named = [f"{key} {options[key]}" for key in ("init", "rebase_every") if options.get(key) is not None]
    named += ["chrono"] if options.get("t_max") is not None else []
    named += ["never rebased"] if "rebase_every" in options and options["rebase_every"] is None else []
    return ", ".join([group.model, f"n = {group.size}", *named])


def seeds(group: Group) -> str:
    """How many there are, in words."""
    return f"{len(group.runs)} seeds" if len(group.runs) > 1 else "one seed"


def by_label(comparison: Comparison) -> dict[str, list[Group]]:
    """The groups of each model, the best model first, by what stands for it in the headline."""
    found: dict[str, list[Group]] = {}
    for group in comparison.groups:
        found.setdefault(label(group), []).append(group)
    if all(len(groups) == 1 for groups in found.values()):
        return found
    stand = {name: standing(groups, comparison) for name, groups in found.items()}
    order = [id(group) for group in comparison.groups]
    return {name: found[name] for name in sorted(found, key=lambda name: order.index(id(stand[name])))}


def standing(groups: Sequence[Group], comparison: Comparison) -> Group:
    """Of several settings of a model the best on validation: nothing is chosen on a test set."""
    return best_by_validation(groups, comparison.higher_is_better) or groups[0]


def titles(comparisons: Sequence[Comparison]) -> list[str]:
    """The tasks' names, with what they read or how long it is, and what differs where a task has several tables."""
    found = []
    for one in comparisons:
        others = [other.data for other in comparisons if other.task == one.task]
        told = [key for key in ("files", "path", "delay", "length") if one.data.get(key)]
        differing = [key for key in one.data if any(other.get(key) != one.data[key] for other in others)]
        values = {key: words(_given(key, one)) or "by default" for key in dict.fromkeys(told + differing)}
        named = ", ".join(f"{key} {value}" for key, value in values.items())
        found.append(f"{one.task} ({named})" if named else one.task)
    return found


def _given(key: str, comparison: Comparison) -> Any:
    """An option of the data, or what pixels take for it where it is left to them."""
    value, pixels = comparison.data[key], _pixels(comparison.groups[0])
    return getattr(pixels, key, None) if value is None and pixels is not None else value


def _pixels(group: Group) -> PixelDataModule | None:
    """The data of a group, if they are pixels."""
    run = group.runs[0]
    cls = getattr(datamodules, str(run.config["data"]["class_path"]).rpartition(".")[2])
    return cls(**run.options("data")) if issubclass(cls, PixelDataModule) else None


@dataclass(frozen=True)
class Pair:
    """Our test figure, and a published one that it can stand beside."""

    group: Group
    comparison: Comparison
    title: str  # of the comparison
    ours: Spread
    theirs: Published
    value: float  # theirs, in the metric's own unit

    @property
    def is_same(self) -> bool:
        """To the digits that are printed."""
        return f"{self.ours.mean:.{self.theirs.decimals}f}" == f"{self.value:.{self.theirs.decimals}f}"

    @property
    def is_worse(self) -> bool:
        return not self.is_same and (self.ours.mean < self.value) == self.comparison.higher_is_better

    @property
    def sentence(self) -> str:
        gap = abs(self.ours.mean - self.value)
        how = f"{gap:.2g} {'worse' if self.is_worse else 'better'}"
        told, error = seeds(self.group), self._error
        if len(self.group.runs) > 1:
            within = self.ours.std is not None and gap <= 2 * self.ours.std
            how += ", within two standard deviations over seeds" if within else ""
        elif error is not None:
            told += f"; standard error {error:.2g} over {TEST_IMAGES[self.comparison.task]:,} test images"
            how += ", within two standard errors" if gap <= 2 * error else ""
        ours = f"{label(self.group)} on {self.title}: ours {shown(self.ours, self.group)} ({told})"
        return f"{ours}, published {self.theirs} ({self.theirs.paper}): {how}."

    @property
    def _error(self) -> float | None:
        """How far an accuracy is known from so many test images, where no spread over seeds says more."""
        images = TEST_IMAGES.get(self.comparison.task)
        if images is None or self.comparison.metric != "accuracy":
            return None
        return math.sqrt(self.ours.mean * (1 - self.ours.mean) / images)

    @property
    def protocols(self) -> str:
        """What differs, in the words of both."""
        return f"Ours: {_protocol(self.group)}. Theirs: {self.theirs.protocol}."


def _protocol(group: Group) -> str:
    """How the runs of a group were trained, and which of their checkpoints was tested."""
    run = group.runs[0]
    options, trainer = run.options("data"), run.config["trainer"]
    told, validated = [], trainer.get("limit_val_batches") != 0
    if (pixels := _pixels(group)) is not None:
        seed = pixels.permutation_seed
        told += [f"permutation {f'of seed {seed}' if isinstance(seed, int) else seed}"] if pixels.permute else []
        told.append(f"trained on all images but {pixels.val_size:,}{', kept for validation' if validated else ''}")
    told += [f"batch {options['batch_size']}"] if "batch_size" in options else []
    told += [f"{trainer['max_epochs']} epochs"] if (trainer.get("max_epochs") or 0) > 0 else []
    tested = "the checkpoint that is best on validation" if validated else "the weights after the last epoch"
    return f"{', '.join(told)}; the test set is read once, by {tested}"


def pairs(comparisons: Sequence[Comparison], papers: Sequence[str] | None = None) -> list[Pair]:
    """Every published test figure of ``papers`` that ours can stand beside, of every paper if None."""
    found = []
    for comparison, title in zip(comparisons, titles(comparisons), strict=True):
        for groups in by_label(comparison).values():
            group = standing(groups, comparison)
            for entry in beside(group, comparison):
                if group.test is not None and entry.number is not None and (papers is None or entry.paper in papers):
                    found.append(Pair(group, comparison, title, group.test, entry, entry.number))
    return found


def _figures(some: Sequence[Pair]) -> int:
    """How many published figures; beside one may stand several of ours."""
    return len({id(one.theirs) for one in some})


def said_first(comparisons: Sequence[Comparison], papers: Sequence[str] | None = None) -> str:
    """A sentence for each figure that ours differs from, with both protocols on the page of its paper."""
    found = pairs(comparisons, papers)
    worse = [one for one in found if one.is_worse]
    better = [one for one in found if not one.is_worse and not one.is_same]
    sides = {word: some for word, some in (("worse", worse), ("better", better)) if some}
    if not sides:
        return ""
    counts = " and ".join(f"{word} than {_figures(some)}" for word, some in sides.items())
    told = f"{counts} of the {_figures(found)} published figures"
    if _figures(found) == 1:
        told = f"{' and '.join(sides)} than the one published figure"
    lines = [f"**Ours is {told} that it can stand beside:**\n\n"]
    for one in (*worse, *better):
        detail = f" {one.protocols}" if papers is not None else ""
        lines.append(f"- {plain_markdown(one.sentence + detail)}\n")
    apart = "Protocols differ: both stand on the [page of each paper](#every-published-figure).\n\n"
    return "".join([*lines, "\n", *([] if papers is not None else [apart])])
