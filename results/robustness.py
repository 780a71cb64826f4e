"""The page of how robust recurrent networks are, made of results/robustness/*.json."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import studies
from attacked import HELD, MODELS, NUMBERS, TASKS, Setting, Study, column
from scipy.stats import spearmanr
from verdicts import untold, verdict

from lit_rnn.commands.attack.words import percent, size_words
from lit_rnn.report.tables import Table, number, plain_markdown

TITLE = "How robust are recurrent networks?"
GATED = ("lstm", "gru")

HALF = 0.5  # of the examples: below, a network is not robust
ACCURATE = 0.9
AT = 0.1  # the size, in L-infinity, at which claims are asked
ONE = 1 + 1e-3  # a spectral radius above is above 1
RISEN = 0.01  # of Henrici's departure over |W|_F
ALIKE = 0.9  # of a rank correlation, from which two criteria are one
NORMS = (("inf", "L∞"), ("2", "L2"))


# ---- in words


Judged = tuple[list[str], list[str], list[str]]  # what is against a claim, what is for it, what leaves it open


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what it is asked by here."""

    said: str
    asked: str
    judge: Callable[[Study], Judged]


def _accurate(study: Study) -> list[Setting]:
    return [one for one in study.settings if one.mean("clean") >= ACCURATE]


def _one_is_enough(found: Sequence[str], others: str, among: Sequence[Setting]) -> Judged:
    """A claim that one thing does not imply another: one network that has the one without the other shows it."""
    if not among:
        return [], [], []
    return ([], list(found), []) if found else ([others], [], [])


def _without_gates(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose recurrent matrix says whether they are stable."""
    return [one for one in settings if one.arm not in GATED]


def _not_robust(study: Study) -> Judged:
    among = _accurate(study)
    found = sorted((one for one in among if one.worst(AT) < HALF), key=lambda one: -one.worst(AT))
    ends = [*found[:1], *found[1:][-1:]]  # the others stand in the tables
    told = " to ".join(f"{one.name} ({percent(one.mean('clean'))} → {percent(one.worst(AT))} %)" for one in ends)
    said = [f"{len(found)} of {len(among)} accurate networks, {told}"] if found else []
    return _one_is_enough(said, f"all {len(among)} accurate networks keep half", among)


def _not_stable(study: Study) -> Judged:
    among = _without_gates(_accurate(study))
    radii = {one.name: statistics.fmean(one.matrix("spectral_radius")) for one in among}
    found = [f"{name} (ρ = {number(radius, 3)})" for name, radius in radii.items() if radius > ONE]
    return _one_is_enough(found, "none of them has ρ above 1", among)


def _inside_the_disk(study: Study) -> Judged:
    against, held = [], []
    for one in _without_gates(_accurate(study)):
        if one.held == "spectral_radius":
            kin = (other for other in study.settings if other.arm == one.arm)
            told = "; ".join(f"{HELD[other.held]}: {_left(other)}" for other in kin if other.held)
            (held if one.worst(AT) < HALF else against).append(f"{MODELS[one.arm]} ({told})")
    return against, held, []


def _left(one: Setting) -> str:
    """The claim is of the held network alone: who is ahead of whom is left to the reader, as the norms do not agree."""
    halves = ", ".join(f"{_number(one.attack(f'half_{norm}'))} in {sign}" for norm, sign in NORMS)
    return f"{percent(one.worst(AT))} %, ε½ {halves}"


def _turns_non_normal(study: Study) -> Judged:
    """Those that may: not ExpRNN's, which stays orthogonal."""
    among = [one for one in study.settings if one.arm != "exprnn"]
    risen = [one for one in among if one.risen > RISEN]
    if not among:
        return [], [], []
    told = f"d rose in {len(risen)} of {len(among)} networks"
    if risen:
        most = max(risen, key=lambda one: one.risen)
        before, after = (statistics.fmean(most.matrix("henrici", when)) for when in ("before", "after"))
        told += f", most in {most.name} ({before:.2f} → {after:.2f})"
    return ([], [told], []) if 2 * len(risen) > len(among) else ([told], [], [])


def _apart(study: Study) -> Judged:
    """Rank correlations over the networks without gates: of so few, with so few seeds, one may decide, so that what
    leaving out any network or any seed would undo is open."""
    among = _without_gates(study.settings)
    fewer = [[*among[:place], *among[place + 1 :]] for place in range(len(among))]
    for seed in study.seeds if len(study.seeds) > 1 else ():
        fewer.append([replace(one, runs=[run for run in one.runs if run["seed"] != seed]) for one in among])
    against, held, open_ = [], [], []
    for first, second in (("clean accuracy", "ε½ in L∞"), ("ρ", "ε½ in L∞"), ("clean accuracy", "ρ")):
        value = _rank_correlation(first, second, among)
        if len(among) < 4 or value is None:
            continue
        others = [other for some in fewer if (other := _rank_correlation(first, second, some)) is not None] or [value]
        ends = f"{min(others):+.2f} to {max(others):+.2f} with a network or a seed left out"
        told = f"{first} and {second}: {value:+.2f} over {len(among)} networks, {ends}"
        if abs(value) < ALIKE:
            held.append(told)
        else:
            (against if min(map(abs, others)) >= ALIKE else open_).append(told)
    return against, held, open_


def _rank_correlation(first: str, second: str, among: Sequence[Setting]) -> float | None:
    """Spearman's, of means over seeds; None where one of them is the same for all."""
    sides = [[CRITERIA[name](one) for one in among if one.runs] for name in (first, second)]
    return float(spearmanr(*sides).statistic) if all(len(set(side)) > 1 for side in sides) else None


CRITERIA: Mapping[str, Callable[[Setting], float]] = {
    "clean accuracy": lambda one: round(one.mean("clean"), 6),  # means of the same examples are the same
    "ρ": lambda one: round(statistics.fmean(one.matrix("spectral_radius")), 3),  # as shown: 1 is held but for rounding
    "ε½ in L∞": lambda one: statistics.fmean(math.inf if size is None else size for size in one.attack("half_inf")),
}  # by ε½, as the accuracies at one size may all be 0


OF = "of networks without gates, as the radius of a gate's matrix decides nothing"
CLAIMS = (
    Claim("high accuracy does not imply robustness",
          f"a clean accuracy of {ACCURATE:.0%} or more and a worst case below {HALF:.0%} at L∞ {AT:g}", _not_robust),
    Claim("high accuracy does not imply stability",
          f"a clean accuracy of {ACCURATE:.0%} or more and a spectral radius above 1; {OF}", _not_stable),
    Claim("recurrent maps whose spectrum is held in the unit disk are stable but highly non-robust",
          f"a clean accuracy of {ACCURATE:.0%} or more, ρ ≤ 1 and a worst case below {HALF:.0%} at L∞ {AT:g}; {OF}",
          _inside_the_disk),
    Claim("training by gradients often makes recurrent matrices non-normal",
          f"Henrici's departure over |W| rose by more than {RISEN:g} in more than half of the networks, leaving out "
          "ExpRNN, which stays normal", _turns_non_normal),
    Claim("accuracy, stability and robustness are three criteria, not one",
          f"no rank correlation over the networks' means is {ALIKE:g} or more, either way; {OF}", _apart),
)  # fmt: skip


def claims(found: Mapping[str, Study]) -> str:
    """What does not hold here comes first."""
    against, held, waiting = [], [], []
    for claim in CLAIMS:
        judged = {TASKS[task]: claim.judge(study) for task, study in found.items()}
        no, yes, unsure = (
            {name: "; ".join(one[side]) for name, one in judged.items() if one[side]} for side in range(3)
        )
        said = f"{claim.said}. Asked here: {claim.asked}"
        if no:
            beneath = [*_each(no), *_each(yes, "it holds for "), *_each(unsure, "open for ")]
            against.append(verdict(False, said, beneath))
        elif unsure:
            against.append(untold(said, [*_each(unsure), *_each(yes, "it holds for ")]))
        elif yes:
            held.append(verdict(True, said, _each(yes)))
        else:
            waiting.append(claim.said)
    return "".join([*against, *held, *([verdict(None, "; ".join(waiting))] if waiting else [])])


def _each(told: Mapping[str, str], before: str = "") -> list[str]:
    return [_first_up(f"{before}{task}: {text}") for task, text in told.items()]


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def _share(values: Sequence[float | None]) -> str:
    """Mean and spread, in percent."""
    known = [value for value in values if value is not None]
    std = f" ± {percent(statistics.stdev(known))}" if len(known) > 1 else ""
    return f"{percent(statistics.fmean(known))}{std}"


def _number(values: Sequence[float | None]) -> str:
    """Mean and spread; infinite if one is, and beyond the sizes where one has no number."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "beyond"
    mean = statistics.fmean(known)
    if math.isinf(mean):
        return number(mean)
    return f"{mean:.3f} ± {statistics.stdev(known):.3f}" if len(known) > 1 else f"{mean:.3f}"


def headline(found: Mapping[str, Study]) -> str:
    """Network by data set, the most robust of the first data set first."""
    names = list(dict.fromkeys(one.name for study in found.values() for one in study.settings))
    by_name = {task: {one.name: one for one in study.settings} for task, study in found.items()}
    first = by_name[next(iter(found))]
    names.sort(key=lambda name: -first[name].worst(AT) if name in first else math.inf)
    header = ["network"]
    for task in found:
        header += [f"{TASKS[task]}: clean, %", f"worst case at L∞ {AT:g}, %", "ρ after training", "d before → after"]
    rows = []
    for name in names:
        row = [name]
        for task in found:
            one = by_name[task].get(name)
            row += ["not yet", "", "", ""] if one is None else [
                _share(one.attack("clean")),
                _share(one.attack(column("inf", AT))) + (" †" if one.weakly and one.worst(AT) else ""),
                _number(one.matrix("spectral_radius")), _before_after(one, "henrici"),
            ]  # fmt: skip
        rows.append(row)
    return Table(header, rows).markdown()


def _before_after(one: Setting, key: str) -> str:
    """Means; beyond four decimals is the rounding of float32."""
    before, after = (statistics.fmean(one.matrix(key, when)) for when in ("before", "after"))
    return f"{number(round(before, 4), 3)} → {number(round(after, 4), 3)}"


def of_task(study: Study) -> str:
    """Tables of one data set: accuracy by size in each norm, then matrices."""
    ordered = sorted(study.settings, key=lambda one: -one.worst(AT))
    parts = []
    for norm, sign in NORMS:
        sizes = study.sizes(norm)
        rows = [[one.name, _share(one.attack("clean")), *(_share(one.attack(column(norm, eps))) for eps in sizes),
                 _number(one.attack(f"half_{norm}"))] for one in ordered]  # fmt: skip
        header = ["worst case, %", "clean", *(f"{sign} {size_words(eps)}" for eps in sizes), "ε½"]
        parts.append(Table(header, rows).markdown())
    rows = [[one.name, *(_before_after(one, key) for key in NUMBERS)] for one in ordered]
    parts.append(Table(["matrices, before → after", *NUMBERS.values()], rows).markdown())
    return "\n\n".join([*parts, _state(study)])


def _state(study: Study) -> str:
    """What is not there, what the attacks were, and what all took."""
    told = f"Attacked so far, of the seeds: {'; '.join(study.missing)}. " if study.missing else ""
    examples = sorted({run["attack"]["samples"] for run in study.runs})
    asked = study.asked
    told += (
        f"Seeds of each: {len(study.seeds)}. Attacked: {', '.join(f'{count:,}' for count in examples)} test examples, "
        f"{asked['steps']} steps of PGD from {asked['restarts']} starts, {asked['queries']} queries, "
        f"{asked['draws']} draws of noise. Of so few examples, the same for all, 95 % has a standard error of "
        f"{100 * math.sqrt(0.95 * 0.05 / min(examples)):.1f} points, and 50 % one of "
        f"{100 * math.sqrt(0.25 / min(examples)):.1f}, beside the spread over seeds. "
    )
    failed = {one.name: Counter(name for run in one.runs for name in run["attack"]["failed_checks"])
              for one in study.settings}  # fmt: skip
    broken = [f"{name}, {check} ({count})" for name, counts in failed.items() for check, count in counts.items()]
    told += f"Failed checks of the evaluation, over all seeds: {'; '.join(broken) or 'none'}. "
    told += "Where a check failed, a stronger attack may find a lower worst case. " if broken else ""
    attacks = sum(run["attack"]["seconds"] for run in study.runs)
    return plain_markdown(f"{told}{studies.cost(study.runs)}, and their attacks {attacks / 3600:.1f} hours.") + "\n"


SOURCE = """Asked in the spirit of Sengupta and Friston 2018, "How Robust are Deep Neural Networks?"
([arXiv 1804.11313](https://arxiv.org/abs/1804.11313)). Only its abstract and the opening of its introduction could be
checked. What they say is above; which networks, data, perturbations and sizes stand behind it is not known, so that no
figure of the paper stands here, and what each claim is asked by is our choice.
"""
RULE = """Worst case: the share of test examples that no attack fools at this size or a smaller one: one gradient step
(FGSM), PGD (projected gradient descent, on the loss and on the margin), a random search without gradients, and uniform
draws; clean is without an attack, of the same few examples and not of the whole test split. Mean ± sample standard
deviation over seeds. ε½ is the size at which half of the clean accuracy is gone. Weights are those of the best
validation accuracy. † marks networks with a failed check of the evaluation, named below their tables: a stronger
attack may leave less of them. ρ is the spectral radius, σ the spectral norm, d Henrici's departure over the Frobenius
norm (0 is normal), ρ_0.01 the pseudospectral radius (ρ + 0.01 if W is normal), β the distance to instability (0 if ρ
is 1 or more) and K a lower bound on the Kreiss constant, which in turn bounds the largest norm of a power of W from
below (∞ if ρ is above 1). Of several matrices, such as those of gates, each is the largest, and β the smallest; for
gated networks they do not decide stability, and of a plain one ρ above 1 tells that without inputs the state zero is
unstable, not what inputs do.
"""


def link(found: Mapping[str, Study], docs: str) -> str:
    """From the first page of results."""
    done = ", ".join(TASKS[task] for task in found) or "nothing"
    about = f"[Accuracy under attack, and recurrent matrices before and after]({docs}robustness.md)"
    return f"## {TITLE}\n\n{about}: {done} so far.\n\n"


def page(found: Mapping[str, Study], note: str, picture: str) -> str:
    """The whole page."""
    parts = [f"{note}\n\n# {TITLE}\n\n", claims(found), f"\n{SOURCE}\n"]
    if not found:
        return "".join([*parts, "No network has been attacked yet: there is no result.\n"])
    parts += [f"![Worst-case accuracy against the size of the attack]({picture})\n\n", headline(found)]
    parts += [f"\n\n{plain_markdown(RULE)}\n\n"]
    missing = [name for task, name in TASKS.items() if task not in found]
    parts += [f"Not begun: {', '.join(missing)}.\n\n"] if missing else []
    for task, study in found.items():
        parts += [f"## {_first_up(TASKS[task])}\n\n{plain_markdown(study.note)}\n\n{of_task(study)}\n"]
    return "".join(parts)


# ---- as a picture

_PANELS = {
    "VanillaRNN": ("vanillarnn",),
    "LSTM": ("lstm",),
    "GRU": ("gru",),
    "others": ("exprnn", "chain", "nnrnn", "adversarial"),
}


def draw(found: Mapping[str, Study], path: Path) -> None:
    """Worst-case accuracy against epsilon in L-infinity: a row a data set, a panel a model; bars are over seeds."""
    from lit_rnn.report import style

    @style.styled
    def drawn() -> None:
        figure = style.new_figure(10.0, 0.6 + 2.9 * len(found))
        grid = figure.subplots(len(found), len(_PANELS), squeeze=False, sharey=True)
        for below, (title, arms) in zip(grid.T, _PANELS.items(), strict=True):
            handles: dict[str, Any] = {}  # by the network, whose look is the same in every row
            for axes, (task, study) in zip(below, found.items(), strict=True):
                for one in study.settings:
                    if one.arm in arms:
                        place = list(handles).index(one.name) if one.name in handles else len(handles)
                        handles[one.name] = _curve(axes, one, study.sizes("inf"), style.look(place))
                axes.set(title=f"{TASKS[task]}: {title}", ylim=(-0.03, 1.03), xlim=(-0.01, 0.31), xlabel="ε in L∞")
                axes.grid(color="0.92")
            if handles:  # below the column: curves fill the panels
                below[-1].legend(handles=list(handles.values()), loc="upper center", bbox_to_anchor=(0.5, -0.25))
        for axes in grid[:, 0]:
            axes.set_ylabel("share right, worst case")
        style.save(figure, path)

    drawn()


def _curve(axes: Any, one: Setting, sizes: Sequence[float], look: Mapping[str, Any]) -> Any:
    columns = ["clean", *(column("inf", eps) for eps in sizes)]
    values = [[value for value in one.attack(key) if value is not None] for key in columns]
    deviations = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in values]
    label = one.name.removeprefix("VanillaRNN, ") if one.held is None else HELD[one.held]
    means = [statistics.fmean(some) for some in values]
    return axes.errorbar([0.0, *sizes], means, deviations, label=label, elinewidth=0.8, **look)
