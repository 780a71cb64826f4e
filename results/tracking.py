"""The page of who tracks, who stores and who recalls, made of results/tracking/*.json."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studies import Arm, Finished, cost, read
from verdicts import not_here, untold, verdict

from lit_rnn.report.tables import Table, number, plain_markdown

TITLE = "Who tracks, who stores, who recalls"
GOOD = 0.9  # of the accuracy, from which a seed has succeeded
HAIR = 0.01  # of it: what hangs on a seed that is so near is not decided


@dataclass(frozen=True)
class Asked:
    """A task: what it is called, what it needs, and the accuracy of a guess among all labels."""

    name: str
    needs: str
    chance: float


TASKS = {  # by the study's file
    "parity": Asked("parity", "tracks", 1 / 2),
    "modular_arithmetic": Asked("modular arithmetic", "tracks", 1 / 5),
    "a5": Asked("A5", "tracks", 1 / 60),
    "s5": Asked("S5", "tracks", 1 / 120),
    "copying": Asked("copying 200", "stores", 1 / 8),
    "mqar": Asked("MQAR", "recalls", 1 / 40),
    "selective_copy": Asked("selective copying", "recalls", 1 / 14),
}
MODELS = {
    "exprnn": "ExpRNN", "exprnn_linear": "linear ExpRNN", "dtriv": "DtrivRNN", "scornn": "ScoRNN", "scurnn": "ScuRNN",
    "urnn": "URNN", "fullurnn": "FullURNN", "eurnn": "EURNN", "goru": "GORU", "householder": "HouseholderRNN",
    "nnrnn": "NnRNN", "rnn_orthogonal": "RNN from an orthogonal start", "rnn_chain": "RNN from a chain", "lstm": "LSTM",
    "gru": "GRU", "janet": "JANET", "nru": "NRU", "statistical": "StatisticalRU", "lipschitz": "LipschitzRNN",
    "antisymmetric": "AntisymmetricRNN", "cornn": "CoRNN", "unicornn": "UnICORNN", "lem": "LEM", "slstm": "SLSTM",
    "lru": "LRU", "linoss": "LinOSS", "mingru": "MinGRU", "minlstm": "MinLSTM", "deltaproduct": "DeltaProduct",
}  # fmt: skip
DEEP = {f"{name}_deep": f"deep {MODELS[name]}" for name in ("exprnn", "exprnn_linear", "lstm")}
NAMES = MODELS | DEEP


@dataclass(frozen=True)
class Claim:
    """What somebody says that models do on a task: succeed, or not, at so many times the length of training."""

    said: str
    source: str
    arms: tuple[str, ...]
    task: str
    times: int
    succeed: bool


LINEAR = ("exprnn_linear", "exprnn_linear_deep", "lru", "linoss")
# [unconfirmed], as in lit_rnn/published.yaml: recalled, and found in nothing that could be read here
CLAIMS = (
    Claim("a linear recurrence whose transition does not depend on the input does not keep parity",
          "Khavari et al. 2025, of earlier theorems", LINEAR, "parity", 4, False),
    Claim("a diagonal recurrence whose transitions are positive does not keep parity",
          "Sarrof et al. 2024; Grazzi et al. 2025", ("mingru", "minlstm"), "parity", 4, False),
    Claim("generalised Householder steps with negative eigenvalues, as in DeltaProduct, keep parity",
          "Grazzi et al. 2025, of DeltaNet", ("deltaproduct",), "parity", 4, True),
    Claim("DeltaProduct with negative eigenvalues keeps products of swaps in S5", "Siems et al. 2025 [unconfirmed]",
          ("deltaproduct",), "s5", 4, True),
    Claim("the LSTM keeps parity", "Delétang et al. 2023", ("lstm",), "parity", 4, True),
    Claim("sLSTM keeps parity", "Beck et al. 2024, released code", ("slstm",), "parity", 4, True),
    Claim("orthogonal and unitary recurrences copy over 200 steps", "the papers of each, in curves [unconfirmed]",
          ("exprnn", "dtriv", "scornn", "scurnn", "urnn", "fullurnn", "eurnn", "goru"), "copying", 1, True),
    Claim("the NRU copies over 200 steps", "Chandar et al. 2019, in curves [unconfirmed]", ("nru",), "copying", 1,
          True),
    Claim("a recurrence whose transition does not depend on the input does not copy selectively",
          "Gu and Dao 2023 [unconfirmed]", LINEAR, "selective_copy", 1, False),
    Claim("minGRU and minLSTM copy selectively", "Feng et al. 2024 [unconfirmed]", ("mingru", "minlstm"),
          "selective_copy", 1, True),
)  # fmt: skip
ORTHOGONAL = ("exprnn", "dtriv", "scornn", "scurnn", "urnn", "fullurnn", "eurnn", "householder")  # without gates


@dataclass(frozen=True)
class Tracking:
    """The studies that there are, by their task."""

    studies: dict[str, Finished]

    def arm(self, task: str, name: str) -> Arm | None:
        """A model that has been tested on a task, or None."""
        study = self.studies.get(task)
        found = None if study is None else next((arm for arm in study.arms if arm.name == name), None)
        return found if found is not None and found.tests else None

    def length(self, task: str, times: int) -> int | None:
        """The length so many times that of training, if it was measured."""
        lengths = self.studies[task].lengths
        return next((length for length in lengths if length == times * lengths[0]), None)

    def accuracy(self, task: str, name: str, times: int) -> float | None:
        """Mean over seeds; None where nothing was tested."""
        arm, length = self.arm(task, name), self.length(task, times) if task in self.studies else None
        return None if arm is None or length is None else statistics.fmean(arm.values(length))

    def succeeded(self, task: str, name: str, times: int) -> tuple[int, int] | None:
        """Seeds at or above `GOOD`, of how many; one that diverged is not."""
        arm, length = self.arm(task, name), self.length(task, times) if task in self.studies else None
        if arm is None or length is None:
            return None
        return sum(value >= GOOD for value in arm.values(length)), arm.ended

    def near(self, task: str, name: str, times: int) -> list[float]:
        """Accuracies within a hair of `GOOD`, where they decide whether more than half of the seeds succeed."""
        arm, length = self.arm(task, name), self.length(task, times) if task in self.studies else None
        if arm is None or length is None:
            return []
        values = arm.values(length)
        low, high = (sum(value >= GOOD + by for value in values) > arm.ended / 2 for by in (-HAIR, HAIR))
        return [value for value in values if abs(value - GOOD) <= HAIR] if low != high else []

    def above_chance(self, task: str, name: str, times: int) -> float | None:
        """0 of a guess, 1 of a network that is always right."""
        value = self.accuracy(task, name, times)
        chance = TASKS[task].chance
        return None if value is None else (value - chance) / (1 - chance)

    def ran_all(self, name: str) -> bool:
        """Whether a model has been tested on every task of which there is a study."""
        return all(self.arm(task, name) for task in self.studies)

    @property
    def models(self) -> list[str]:
        """The best first, by how far above chance they are at the length of training and at 4 times it.

        Those that have not run every task come behind the others, by the mean over what they have run.
        """

        def place(name: str) -> tuple[bool, float, int]:
            found = [self.above_chance(task, name, times) for task in self.studies for times in (1, 4)]
            mean = statistics.fmean([value for value in found if value is not None])
            return not self.ran_all(name), -mean, list(NAMES).index(name)

        return sorted((name for name in NAMES if any(self.arm(task, name) for task in self.studies)), key=place)


def read_all(folder: Path) -> Tracking:
    """results/tracking/."""
    return Tracking({task: read(folder / f"{task}.json") for task in TASKS if (folder / f"{task}.json").is_file()})


# ---- in words


def judged(claim: Claim, found: Tracking) -> tuple[list[str], list[str], list[str], list[str]]:
    """The models for which a claim does not hold here, those for which it does: more than half of the seeds; those of
    which it says nothing, as they have not learnt at the length of training what they are said to lose beyond it; and
    those of which a seed decides that is within a hair of success."""
    against: list[str] = []
    held: list[str] = []
    unlearnt: list[str] = []
    close: list[str] = []
    for name in claim.arms:
        own, far = (found.succeeded(claim.task, name, times) for times in (1, claim.times))
        if own is None or far is None:
            continue
        learnt, succeeds = (seeds > of / 2 for seeds, of in (own, far))
        told, near = f"{NAMES[name]} {far[0]} of {far[1]}", found.near(claim.task, name, claim.times)
        if not (learnt or succeeds or claim.succeed or claim.times == 1):
            unlearnt.append(f"{NAMES[name]} {own[0]} of {own[1]}")
        elif near:
            close.append(f"{told}, and one at {' and '.join(f'{value:.3f}' for value in near)}")
        else:
            (held if succeeds == claim.succeed else against).append(told)
    return against, held, unlearnt, close


def claims(found: Tracking) -> str:
    """What does not hold here comes first."""
    against, held, waiting = [], [], []
    for claim in CLAIMS:
        where = "the length of training" if claim.times == 1 else f"{claim.times} times the length of training"
        said = f"{claim.said} ({claim.source})"
        no, yes, blank, close = map(", ".join, judged(claim, found))
        few = "At the length of training already too few seeds succeeded for there to be anything to keep"
        last = f". {few}: {blank}" if blank else ""
        hair = f"too near to {GOOD:g} to tell" if close else ""
        learnt = ", ".join(judged(replace(claim, times=1), found)[1]) if claim.succeed and claim.times > 1 else ""
        also = f"; it holds for {yes}" if yes else ""
        also += f"; at the length of training: {learnt}" if learnt else ""
        if no:
            also += f"; {hair}: {close}" if close else ""
            line = f"{said}. Seeds that succeeded at {where}: {no}{also}{last}"
            against.append(not_here("kept" if learnt else "learnt", line) if claim.succeed else verdict(False, line))
        elif close:
            against.append(untold(f"{said}. Seeds that succeeded at {where}: {close}, {hair}{also}{last}"))
        elif yes:
            others = _others(claim, found) if claim.times == 1 and not claim.succeed else ""
            held.append(verdict(True, f"{said}. Seeds that succeeded at {where}: {yes}{last}{others}"))
        elif blank:
            against.append(untold(said + last))
        else:
            waiting.append(said)
    open_ = [verdict(None, "; ".join(waiting))] if waiting else []
    return "".join([*against, _orthogonal(found), *held, *open_])


def _others(claim: Claim, found: Tracking) -> str:
    """How many of the other models did what these did not: in few updates it would say nothing if none had."""
    counts = [found.succeeded(claim.task, name, claim.times) for name in MODELS if name not in claim.arms]
    known = [count for count in counts if count is not None]
    return f"; in as many updates {sum(seeds > of / 2 for seeds, of in known)} of {len(known)} other models did"


def _orthogonal(found: Tracking) -> str:
    """What no source claims."""
    counts = {name: [found.succeeded("parity", name, times) for times in (4, 8)] for name in ORTHOGONAL}
    told = [
        f"{NAMES[name]} {near[0]} and {far[0]} of {near[1]}" for name, (near, far) in counts.items() if near and far
    ]
    if not told:
        return ""
    asked = "Do nonlinear orthogonal and unitary cells without gates keep parity? No source that we know says."
    return f"- {asked} Seeds that succeeded at 4 and at 8 times the length of training: {', '.join(told)}.\n"


def _cell(found: Tracking, task: str, name: str) -> str:
    parts = []
    for times in (1, 4):
        value, count = found.accuracy(task, name, times), found.succeeded(task, name, times)
        if value is not None and count is not None:
            parts.append(f"{value:.2f} ({count[0]}/{count[1]})")
    return " → ".join(parts) or "not yet"


def headline(found: Tracking) -> str:
    """Model by task; those that have not run every task have a table of their own."""
    tasks = list(found.studies)
    header = ["model", *(f"{TASKS[task].needs}: {TASKS[task].name}" for task in tasks)]
    chance = ["a guess among all", *(number(TASKS[task].chance, 3) for task in tasks)]
    parts = []
    for ran_all, models in itertools.groupby(found.models, found.ran_all):
        rows = [[NAMES[name], *(_cell(found, task, name) for task in tasks)] for name in models]
        parts += [] if ran_all else ["Not on every task yet, by the mean over those that were run:"]
        parts += [Table(header, [*rows, chance]).markdown()]
    return "\n\n".join(parts)


def of_task(found: Tracking, task: str) -> str:
    """A table of one task: mean and deviation at every length, seeds that succeeded, and the window of rates."""
    study = found.studies[task]
    lengths = study.lengths
    rows = []
    for arm in study.arms:
        if arm.tests:
            means = [statistics.fmean(arm.values(length)) for length in lengths]
            counts = [sum(value >= GOOD for value in arm.values(length)) for length in lengths]
            spreads = [f" ± {statistics.stdev(some):.3f}" if len(some) > 1 else "" for some in map(arm.values, lengths)]
            shown = [
                f"{mean:.3f}{spread}, {count} of {arm.ended}"
                for mean, spread, count in zip(means, spreads, counts, strict=True)
            ]
            more = [
                "" if arm.rate is None else number(arm.rate),
                f"{arm.window} of {arm.tried[1]}",
                f"{arm.parameters:,}",
            ]
            rows.append((sum(means[:2]), [NAMES[arm.name], *shown, *more]))
    rows.sort(key=lambda row: -row[0])
    made = [row for _, row in rows] + [["a guess among all", *[f"{TASKS[task].chance:.3f}"] * len(lengths), "", "", ""]]
    names = [f"at {length}" if place else f"at {length}, as trained" for place, length in enumerate(lengths)]
    table = Table(["model", *names, "rate", "rates within a tenth of the best", "parameters"], made).markdown()
    return f"{table}\n\n{_state(study)}"


def _state(study: Finished) -> str:
    """What is not there yet, and what the rest took."""
    part = [f"{NAMES[arm.name]} ({arm.ended} of {arm.wanted} seeds)" for arm in study.arms
            if arm.tests and not arm.is_whole]  # fmt: skip
    going = [f"{NAMES[arm.name]} ({arm.tried[0]} of {arm.tried[1]} rates)" for arm in study.arms
             if not arm.tests and arm.tried[0]]  # fmt: skip
    early = [f"{NAMES[arm.name]} ({arm.tried[0]} of {arm.tried[1]} rates)" for arm in study.arms
             if arm.tests and arm.tried[0] < arm.tried[1]]  # fmt: skip
    out = [f"{NAMES[arm.name]} ({arm.diverged} of {arm.wanted} seeds)" for arm in study.arms if arm.diverged]
    lost = [f"{NAMES[arm.name]} ({', '.join(map(number, arm.lost_rates))})" for arm in study.arms if arm.lost_rates]
    none = [NAMES[arm.name] for arm in study.arms if not arm.tests and not arm.tried[0]]
    missing = [(part, "With fewer seeds than planned"), (early, "With rates still to try"),
               (going, "Rate not chosen or not tested yet"), (out, "Diverged"), (lost, "Diverged at a rate"),
               (none, "Missing")]  # fmt: skip
    told = "".join(f"{what}: {', '.join(names)}. " for names, what in missing if names)
    sizes = [arm.parameters for arm in study.arms if arm.tests]
    small = [f"{NAMES[arm.name]} ({arm.parameters:,})" for arm in study.arms
             if arm.tests and arm.parameters < 0.9 * statistics.median(sizes)]  # fmt: skip
    told += f"Of fewer parameters, with the most units that are allowed: {', '.join(small)}. " if small else ""
    tried = {arm.name: (*arm.rates, *arm.lost_rates) for arm in study.arms}
    rates = sorted({rate for some in tried.values() for rate in some})  # the config's may have changed since
    told += f"Rates tried: {', '.join(map(number, rates))}. " if rates else ""
    for end, which in ((max, "largest"), (min, "smallest")):
        ours = [NAMES[arm.name] for arm in study.arms
                if arm.tests and len(tried[arm.name]) > 1 and arm.rate == end(tried[arm.name])]  # fmt: skip
        told += f"The best rate is the {which} that was tried for {', '.join(ours)}. " if ours else ""
    return f"{told}{cost(study.runs)}.\n"


def _to_training_alone(chance: float) -> str:
    """Accuracy at 4 times the length of training of one who is right up to there, and guesses behind it."""
    return number((1 + 3 * chance) / 4, 2)


RULE = f"""Of each model and task the accuracy on the test split, mean over seeds, at the length of training and at 4
times it; in brackets the seeds that reached {GOOD:g}, behind the comma in the tables of the tasks, where ± is the
sample standard deviation. Models stand by how far they are above a guess in all. The learning rate is the one of three
with the best validation loss of seed 1; tested are the weights behind the last update, as under a curriculum
validation cannot tell checkpoints apart that soon know its first lengths; nothing is chosen on the test split. Rates
within a tenth of the best are by the validation accuracy of seed 1. In the sentences above a model succeeds where more
than half of its seeds do, and nothing is told where that hangs on a seed within {HAIR:g} of {GOOD:g}. All models of a
task have the same updates and rates to try, and as nearly the same number of parameters as whole units, and at most
256 of them, allow. The budget is small: a model that does not succeed here may do so with more updates. LRU, LinOSS,
MinGRU, MinLSTM, DeltaProduct and UnICORNN have two layers with norm and residual over an embedding, as the deep forms
of others have, with a gated linear unit behind each layer; models in one form have the embedding on MQAR alone: what
they are compared by is not the cell alone.
A source marked unconfirmed is recalled, and was found in nothing that could be read; the others were read, at least in
abstract.
Accuracies are over all steps that are asked, those up to the length of training among them: at 4 times it one who is
right up to there, and guesses behind it, has {_to_training_alone(1 / 2)} of parity, {_to_training_alone(1 / 5)} of
modular arithmetic and {_to_training_alone(1 / 120)} of S5.
A5 and S5: which even permutation of five things a product of 3-cycles is, and which of all permutations a product of
swaps. A guess is among all labels: of the first 40, one that knows the step, and how few products there are at first,
is right in 0.018 (A5) and 0.014 (S5). MQAR: recall of two values, each by its key; one that knows which two there are,
and no more, is right in half.
"""


def link(found: Tracking, docs: str) -> str:
    """From the first page of results: how much of the plan is there."""
    models = sum(name in MODELS for name in found.models)
    done = f"{models} of {len(MODELS)} models, {len(found.studies)} of {len(TASKS)} tasks so far"
    return f"## {TITLE}\n\n[State tracking, copying and recall at matched parameters]({docs}tracking.md): {done}.\n\n"


def page(found: Tracking, note: str, picture: str) -> str:
    """The whole page."""
    parts = [f"{note}\n\n# {TITLE}\n\n"]
    if not found.studies:
        return "".join([*parts, "No study has a finished run yet: there is no result.\n"])
    parts += [claims(found), "\n"]
    if found.models:
        parts += [
            f"![Accuracy above chance of each model on each task]({picture})\n\n",
            headline(found),
            f"\n\n{RULE}\n",
        ]
    else:
        parts += ["No model has been tested yet: there is no result.\n\n"]
    missing = [one.name for task, one in TASKS.items() if task not in found.studies]
    parts += [f"Not begun: {', '.join(missing)}.\n\n"] if missing else []
    for task, study in found.studies.items():
        about = study.note.removeprefix(f"{TITLE}: ")
        parts += [
            f"## {TASKS[task].name[0].upper()}{TASKS[task].name[1:]}\n\n",
            plain_markdown(about[:1].upper() + about[1:]),
        ]
        parts += ["\n\n", of_task(found, task), "\n"]
    return "".join(parts)


# ---- as a picture


def draw(found: Tracking, path: Path) -> None:
    """Model by task: how far above chance, at the length of training (left half) and at 4 times it (right half).

    What has not been measured is hatched; below the line are models that have not run every task.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    from lit_rnn.report import style

    shades = LinearSegmentedColormap.from_list("above chance", ["#f4f1ea", "#b9d6e8", style.BLUE])

    @style.styled
    def drawn(models: Sequence[str], tasks: Sequence[str]) -> None:
        figure = style.new_figure(9.5, 1.2 + 0.27 * len(models))
        axes = figure.subplots()
        for row, name in enumerate(models):
            for column, task in enumerate(tasks):
                for half, times in enumerate((1, 4)):
                    value = found.above_chance(task, name, times)
                    place = (column + 0.05 + 0.46 * half, row + 0.06)
                    if value is None:
                        axes.add_patch(
                            Rectangle(place, 0.44, 0.88, facecolor="none", edgecolor="0.85", hatch="////", lw=0)
                        )
                        continue
                    axes.add_patch(Rectangle(place, 0.44, 0.88, facecolor=shades(min(max(value, 0.0), 1.0)), lw=0))
                    shown = found.accuracy(task, name, times)
                    axes.text(place[0] + 0.22, row + 0.52, f"{shown:.2f}", ha="center", va="center", fontsize=6.5,
                              color="white" if value > 0.75 else "0.25")  # fmt: skip
        whole = sum(map(found.ran_all, models))
        if 0 < whole < len(models):
            axes.axhline(whole, color="0.3", lw=0.8)
        for column in range(1, len(tasks)):
            if TASKS[tasks[column]].needs != TASKS[tasks[column - 1]].needs:
                axes.axvline(column, color="0.3", lw=0.8)
        axes.set(xlim=(0, len(tasks)), ylim=(len(models), 0))
        axes.set_yticks([row + 0.5 for row in range(len(models))], [NAMES[name] for name in models])
        axes.set_xticks([column + 0.5 for column in range(len(tasks))], [_label(task) for task in tasks])
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        figure.suptitle(
            "Test accuracy at the length of training, and at 4 times it; the darker, the further above a guess"
        )
        style.save(figure, path)

    drawn(found.models, list(TASKS))


def _label(task: str) -> str:
    asked = TASKS[task]
    return f"{asked.needs}\n{asked.name}\n(a guess: {asked.chance:.3g})"
