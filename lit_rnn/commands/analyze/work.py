"""All parts of all matrices: how long they will take, and doing them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from datamodules.errors import UserError
from lit_rnn import analysis
from lit_rnn.analysis.pseudospectra import Box, common_box
from lit_rnn.commands.analyze import measure
from lit_rnn.commands.analyze.measure import Finding
from lit_rnn.commands.analyze.settings import DATA_PARTS, Settings
from lit_rnn.commands.analyze.states import measure as of_states
from lit_rnn.commands.analyze.subject import Matrix, Moment, Sequences, matrices, watched
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import extrapolated, layer_name, shortened, state_sizes
from lit_rnn.report.console import new_console

JACOBIAN = "mean Jacobian"  # of a step, over time and sequences
STATES = "states"
_LARGE = 128  # units, from which on the work is first estimated


class Work:
    """All parts of all matrices at all moments.

    Args:
        moments: In the order in which they are shown.
        sequences: Of validation; None leaves out all that needs them.
        parts: Names from `settings`.
        settings: See `Settings`.
    """

    def __init__(
        self,
        moments: Sequence[Moment],
        sequences: Sequences | None,
        parts: Sequence[str],
        settings: Settings,
    ) -> None:
        self.moments, self.settings = moments, settings
        self.sequences = sequences
        self.parts = [part for part in measure.MATRIX_PARTS if part in parts]
        self.data_parts = [part for part in DATA_PARTS if part in parts and sequences is not None]
        if sequences is None or sequences.tracked is None:
            self.data_parts = [part for part in self.data_parts if part != "probe"]
        self.batch = sequences.batch if sequences is not None and "dynamics" in self.data_parts else None
        self.subjects: dict[str, dict[str, Matrix]] = {}
        for moment in moments:
            for matrix in matrices(moment.model, moments[-1].model):
                self.subjects.setdefault(matrix.name, {})[moment.label] = matrix
        self.findings: dict[str, dict[str, Finding]] = {}
        for name, by_moment in self.subjects.items():
            self.findings[name] = {label: {} for label in by_moment}
            if history := watched(moments[-1].path, name):
                self.findings[name][moments[-1].label]["history"] = history
        self.notes: dict[str, list[str]] = {}  # what is left out or doubtful, with all it holds for

    def run(self) -> None:
        """Measure, with a progress bar."""
        layers = len(self.moments[-1].model.cells) if self.batch else 0
        of_jacobians = [part for part in self.parts if part != "memory"]
        per_moment = len(self.parts) * len(self.subjects) + len(of_jacobians) * layers + len(self.data_parts)
        console = new_console()
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=len(self.moments) * per_moment)
            for name, part, step in self._steps():
                bar.update(task, description=f"{part} of {name}")
                step()
                bar.advance(task)

    def _steps(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        for part in self.data_parts:
            for moment in self.moments:
                yield moment.label, part, functools.partial(self._data_part, part, moment)
        for name, by_moment in self.subjects.items():
            box = common_box([matrix.W for matrix in by_moment.values()])
            for label, matrix in by_moment.items():
                finding = self.findings[name][label]
                finding["eigenvalues_in_double"] = analysis.eigenvalues_trusted(matrix.W)
                finding["matrix"] = matrix.W
                for part in self.parts:
                    if part == "memory" and JACOBIAN in name:  # nothing is fed into it
                        continue
                    yield f"{name}, {label}", part, functools.partial(self._part, part, matrix, label, box)

    def _part(self, part: str, matrix: Matrix, label: str, box: Box) -> None:
        where = f"{matrix.name}, {label}"
        with self._noting(part, where):
            finding = measure.MATRIX_PARTS[part](matrix, self.settings, box)
            for sentence in finding.pop("left_out", ()):
                self.notes.setdefault(sentence, []).append(where)
            self.findings[matrix.name][label] |= finding

    def _data_part(self, part: str, moment: Moment) -> None:
        with self._noting(part, moment.label):
            for layer, finding in enumerate(self._on_data(part, moment.model)):
                kind = JACOBIAN if part == "dynamics" else STATES
                name = layer_name(moment.model, layer, kind)
                if kind == JACOBIAN:
                    self.subjects.setdefault(name, {})[moment.label] = Matrix(name, finding.pop("mean_jacobian"))
                self.findings.setdefault(name, {}).setdefault(moment.label, {}).update(finding)

    def _on_data(self, part: str, model: SequenceModel) -> list[Finding]:
        assert self.sequences is not None
        if part == "probe":
            assert self.sequences.tracked is not None
            return of_states.probes(model, self.sequences.tracked)
        return {"dynamics": measure.dynamics, "fixed_points": of_states.fixed_points}[part](model, self.sequences.batch)

    @contextlib.contextmanager
    def _noting(self, part: str, where: str) -> Iterator[None]:
        """Note what cannot be computed, and what comes with a warning."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", analysis.IllConditionedWarning)
            try:
                yield
            except (UserError, np.linalg.LinAlgError) as error:
                self.notes.setdefault(f"{part} is left out, because {error}".rstrip("."), []).append(where)
        for warning in caught:
            self.notes.setdefault(str(warning.message).rstrip("."), []).append(where)

    @property
    def sentences(self) -> list[str]:
        """The notes as sentences."""
        return [f"{note}: {'; '.join(dict.fromkeys(places))}." for note, places in self.notes.items()]


# ---- how long it will take


def estimate(work: Work) -> str:
    """How long the work will take and in what memory, in a sentence; empty where it is a matter of seconds.

    Every part is tried on the leading eighth and quarter of the largest matrix, dynamics on an eighth of the time
    steps. A part costs a + b n^p, with p between 2 and 3.
    """
    label, model = work.moments[-1].label, work.moments[-1].model
    ours = [by_moment[label] for by_moment in work.subjects.values()]
    sizes = [len(matrix.W) for matrix in ours]
    if max(sizes, default=0) < _LARGE:
        return ""
    largest = max(ours, key=lambda matrix: len(matrix.W))
    seconds, memory = np.zeros(2), 0.0
    for part in work.parts:
        small, large = (_cost_of_piece(part, largest, len(largest.W) // share, work.settings) for share in (8, 4))
        jacobians = [size for size in state_sizes(model) if work.batch and part != "memory"]
        for n in (*sizes, *jacobians):
            ratio = n / (len(largest.W) // 4)
            seconds += [extrapolated(small.seconds, large.seconds, ratio, power) for power in (2, 3)]
            growth = min(max(math.log2(large.memory / small.memory), 1.0), 2.0)
            memory = max(memory, large.memory * ratio**growth)
    if work.batch:
        steps = work.batch[0].shape[1]
        few = max(steps // 8, 1)
        cost = _cost(functools.partial(measure.dynamics, model, shortened(model, work.batch, few)))
        seconds, memory = seconds + cost.seconds * steps / few, max(memory, cost.memory)
    if "fixed_points" in work.data_parts:
        assert work.sequences is not None
        cost = _cost(functools.partial(of_states.fixed_points, model, work.sequences.batch, iterations=1))
        seconds, memory = seconds + cost.seconds * of_states.ITERATIONS / 5, max(memory, cost.memory)
    low, high = (datetime.timedelta(seconds=round(total)) for total in seconds * len(work.moments))
    size = f"{memory / 2**20:.0f} MiB beyond torch's own memory"
    return f"about {low} to {high} (h:mm:ss) and {size}, estimated from small pieces"


@dataclass(frozen=True)
class _Cost:
    seconds: float
    memory: float  # bytes of NumPy's arrays, at the peak


def _cost_of_piece(part: str, matrix: Matrix, size: int, settings: Settings) -> _Cost:
    source = None if matrix.source is None else matrix.source[:size]
    piece = Matrix("piece", matrix.W[:size, :size], source)
    return _cost(lambda: measure.MATRIX_PARTS[part](piece, settings, common_box([piece.W])))


def _cost(work: Callable[[], object]) -> _Cost:
    tracemalloc.start()
    start = time.perf_counter()
    with warnings.catch_warnings(), contextlib.suppress(UserError, np.linalg.LinAlgError):
        warnings.simplefilter("ignore", analysis.IllConditionedWarning)
        work()
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return _Cost(seconds, float(peak))
