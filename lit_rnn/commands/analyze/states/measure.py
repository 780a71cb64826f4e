"""Fixed points of each layer, and what a linear probe reads off its states."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.automata import Tracked
from datamodules.batch import Batch, Parts
from lit_rnn import analysis
from lit_rnn.analysis.arrays import Real
from lit_rnn.cells import Cell
from lit_rnn.commands.analyze.measure import Finding
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import read_by_cells, state_sizes

ITERATIONS = 300  # of the search for fixed points, at most
_STARTS = 128  # visited states from which fixed points are searched, fewer where their Jacobians are large
_NUMBERS = 2**23  # of all their Jacobians
_SHOWN = 8  # trajectories in the picture
_PROBED = 2**24  # numbers in the states that are probed


def visited(cell: Cell, x: Tensor) -> Tensor:
    """The joint states (T, B, N) behind each step, in float64, along inputs x (T, B, I)."""
    step = analysis.StepMap(cell)
    s, states = step.start(x.shape[1]), []
    with torch.no_grad():
        for u in step.drive(x):
            s = step(u, s)
            states.append(s)
    return torch.stack(states)


# ---- fixed points


def fixed_points(model: SequenceModel, batch: Batch, iterations: int = ITERATIONS) -> list[Finding]:
    """Of each layer, under an input that is held, from states visited along the batch."""
    lengths = Parts.of(batch).lengths
    held, name = _held(model, batch)
    findings = []
    for layer, (cell, x) in enumerate(zip(model.cell_list(), read_by_cells(model, batch), strict=True)):
        common = len(x) if lengths is None else int(lengths.min())
        states = visited(cell, x[:common])
        every = states.flatten(0, 1)
        count = min(_STARTS, len(every), max(8, _NUMBERS // every.shape[1] ** 2))
        starts = every[np.linspace(0, len(every) - 1, count).round().astype(int)]
        given = held if layer == 0 and held is not None else x[:common].double().mean((0, 1))
        found = analysis.fixed_points(cell, given, starts, iterations)
        kinds = found.kinds
        findings.append(
            {
                "held_input": name if layer == 0 else "the mean of what the layer reads",
                "fixed_points": found.points,
                "fixed_eigenvalues": found.eigenvalues,
                "fixed_speed": found.speed,
                "fixed_kinds": kinds,
                "fixed_growing": found.growing,
                "fixed_starts": found.starts,
                "fixed_count": int(found.fixed.sum()),
                **{f"{kind}_count": kinds.count(kind) for kind in ("stable", "marginal", "unstable", "slow")},
                **_projected(states[:, :_SHOWN].numpy(), every.numpy(), found.points),
            }
        )
    return findings


def _held(model: SequenceModel, batch: Batch) -> tuple[Tensor | None, str]:
    """What the first cell is held at, and its name: the most frequent symbol; None of values, which have a mean."""
    parts = Parts.of(batch)
    if model.task.inputs != "symbols" or parts.inputs.is_floating_point():
        return None, "the mean input"
    steps = torch.arange(parts.inputs.shape[1])
    read = parts.inputs if parts.lengths is None else parts.inputs[steps < parts.lengths[:, None]]
    symbol = int(read.flatten().bincount().argmax())
    with model.without_dropout(), torch.no_grad():
        return model.encode(torch.tensor([[symbol]]))[0, 0].double(), f"symbol {symbol}, the most frequent"


def _projected(shown: Real, every: Real, points: Real) -> Finding:
    """Trajectories (T, B, 2) and points (P, 2) on the two principal axes of all visited states."""
    centre = every.mean(0)
    _, singular, axes = np.linalg.svd(every - centre, full_matrices=False)
    plane = np.zeros((2, every.shape[1]))
    plane[: len(axes[:2])] = axes[:2]
    total = float((singular**2).sum()) or 1.0
    return {
        "plane_trajectories": (shown - centre) @ plane.T,
        "plane_points": (points - centre) @ plane.T,
        "plane_explained": [float(value**2 / total) for value in singular[:2]],
    }


# ---- what a linear probe reads


def probes(model: SequenceModel, tracked: Tracked) -> list[Finding]:
    """Of each layer: how well its joint state tells what a machine that solves the task would keep."""
    steps, findings = tracked.inputs.shape[1], []
    rows = min(len(tracked.inputs), max(8, _PROBED // (steps * max(state_sizes(model)))))
    inputs, elements = tracked.inputs[:rows], tracked.elements[:rows]
    for cell, x in zip(model.cell_list(), read_by_cells(model, (inputs, elements)), strict=True):
        states = visited(cell, x).transpose(0, 1).numpy()
        found = analysis.linear_probe(states, elements.numpy(), tracked.trained)
        findings.append(
            {
                "probe_accuracy": found.accuracy,
                "probe_beyond": found.beyond,
                "probe_chance": found.chance,
                "probe_by_step": found.by_step,
                "probe_trained": tracked.trained,
                "probe_elements": tracked.kinds,
            }
        )
    return findings
