"""How wide the window of learning rates is of models that train too long to be run at several: short trainings."""

from __future__ import annotations

from collections.abc import Sequence

from differences import label, titles

from lit_rnn.commands.compare.measure import NEAR, Comparison, Group, Rates, by_rate, learning_rate
from lit_rnn.commands.compare.page import chance_told, shown
from lit_rnn.report.tables import Table, number, plain_markdown

FOLDER = "rates"  # in results/: what is there stands beside no longer training
TITLE = "Learning rates, in short trainings"
ANCHOR = TITLE.lower().replace(",", "").replace(" ", "-")
ABOUT = """Each model at a third of the rate that it has above, at it, and at three times it, all else alike, one seed;
what learns faster here need not be ahead in the end. A value is that of the last validation."""


def section(comparisons: Sequence[Comparison]) -> str:
    """A table for each task; nothing where no model was run at several rates."""
    named = zip(titles(comparisons), comparisons, strict=True)
    made = [f"{found.markdown()}\n\n{_at_the_end(one)}" for title, one in named if (found := _table(title, one))]
    return f"## {TITLE}\n\n{ABOUT}\n\n{''.join(made)}" if made else ""


def link(comparison: Comparison, short: Sequence[Comparison]) -> str:
    """Where the window of the rates of a task stands; nothing where it was not run."""
    there = any(one.task == comparison.task and by_rate(one) for one in short)
    return f" How wide the window of rates is: [{TITLE}](#{ANCHOR})." if there else ""


def _table(title: str, comparison: Comparison) -> Table | None:
    """A row for each model, in the order of their best."""
    windows = sorted(by_rate(comparison), key=lambda one: _first(one, comparison), reverse=comparison.higher_is_better)
    rows = [_row(rates, comparison) for rates in windows]
    if not rows:
        return None
    values = f"{comparison.split}/{comparison.metric} at each rate"
    told = f"{title}; chance loss {chance_told(comparison)}"
    return Table(["model", "updates", values, "best rate", f"within {NEAR:.0%} of the best"], rows, texts=1, title=told)


def _at_the_end(comparison: Comparison) -> str:
    """Of whom the best rate is the largest or smallest that was tried, so that a better one may lie beyond."""
    told = []
    for end, which in ((max, "largest"), (min, "smallest")):
        ours = [label(one.groups[0]) for one in by_rate(comparison) if one.best is not None
                and learning_rate(one.best) == end(map(_rate, (*one.groups, *_lost(one, comparison))))]  # fmt: skip
        told += [f"The best rate is the {which} that was tried for {'; '.join(ours)}."] if ours else []
    return plain_markdown(" ".join(told)) + "\n\n" if told else ""


def _rate(group: Group) -> float:
    rate = learning_rate(group)
    assert rate is not None  # by_rate takes no other
    return rate


def _lost(rates: Rates, comparison: Comparison) -> list[Group]:
    """Those that diverged, at other rates."""
    name = label(rates.groups[0])
    return [one for one in (Group((run,)) for run in comparison.diverged) if label(one) == name]


def _first(rates: Rates, comparison: Comparison) -> float:
    value = None if rates.best is None else rates.best.value
    return (float("-inf") if comparison.higher_is_better else float("inf")) if value is None else value.mean


def _row(rates: Rates, comparison: Comparison) -> list[str]:
    """A rate at which it diverged was tried, and is not near the best."""
    name = label(rates.groups[0])
    each = {learning_rate(group): shown(group.value, group) for group in rates.groups}
    for lost in _lost(rates, comparison):
        each[learning_rate(lost)] = "diverged"
    told = "; ".join(f"{number(rate)}: {value}" for rate, value in sorted(each.items(), key=lambda pair: pair[0] or 0))
    best = "" if rates.best is None else number(learning_rate(rates.best))
    updates = " to ".join(f"{step:,}" for step in sorted({step for group in rates.groups for step in group.steps}))
    return [name, updates, told, best, f"{rates.near} of {len(each)}"]
