"""What an orthogonal map costs, and how far it drifts.

    python benchmarks/maps.py cost  [--threads 2]     forward and backward of each map as a share of a training step
    python benchmarks/maps.py drift [--threads 2]     max |W^H W - I| after 1,000 RMSprop steps at lr 1e-3, in float32

``cost`` takes the copying task (one-hot input, T = 220, B = 20) and times the map alone and the whole step
(forward, backward, optimizer) in turn, in one process, medians of several rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from arguments import whole
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from datamodules import CopyMemory, UserError
from lit_rnn import models
from lit_rnn.models import SequenceModel
from lit_rnn.optim import RiemannianRMSprop
from lit_rnn.parametrizations import (
    Cayley,
    Exponential,
    FreeUnitary,
    Householder,
    OrthogonalMap,
    RestrictedUnitary,
    Rotations,
    ScaledCayley,
    UnitaryScaledCayley,
)

STEP_MODELS: dict[str, Callable[..., SequenceModel]] = {
    "ExpRNN": models.ExpRNN,
    "ExpRNN, map in float64": lambda task, n: models.ExpRNN(task, n, double_precision_map=True),
    "ExpRNN, map: cayley": lambda task, n: models.ExpRNN(task, n, map="cayley"),
    "ExpRNN, unitary": lambda task, n: models.ExpRNN(task, n, unitary=True),
    "DtrivRNN": models.DtrivRNN,
    "ScoRNN": models.ScoRNN,
    "ScuRNN": models.ScuRNN,
    "URNN": models.URNN,
    "EURNN, tunable 2": models.EURNN,
    "HouseholderRNN, m = n": models.HouseholderRNN,
    "NnRNN": models.NnRNN,
}

MAPS: dict[str, Callable[[int], OrthogonalMap]] = {
    "Exponential": Exponential,
    "Exponential, trivialized": lambda n: Exponential(n, trivialized=True),
    "Exponential, unitary": lambda n: Exponential(n, unitary=True),
    "Cayley": Cayley,
    "ScaledCayley": ScaledCayley,
    "UnitaryScaledCayley": UnitaryScaledCayley,
    "RestrictedUnitary": RestrictedUnitary,
    "Rotations, tunable 2": lambda n: Rotations(n, 2),
    "Rotations, unitary": lambda n: Rotations(n, 2, unitary=True),
    "Householder, m = n": Householder,
    "FreeUnitary, Riemannian": FreeUnitary,
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cost(sizes: list[int], rounds: int) -> Table:
    table = Table(title="map, forward and backward, as a share of a training step (copying, T = 220, B = 20)")
    for column in ("model", *(f"{what}, n = {n}" for n in sizes for what in ("map ms", "step ms", "share"))):
        table.add_column(column, justify="left" if column == "model" else "right")
    data = CopyMemory(delay=200, batch_size=20, train_samples=20)
    batch = next(iter(data.train_dataloader()))
    for name, build in track(STEP_MODELS.items(), description="cost"):
        row = [name]
        for n in sizes:
            model = build(data.task, n)
            optimizer = model.configure_optimizers()
            cell = model.cell_list()[0]

            def step(model: SequenceModel = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
                optimizer.zero_grad()
                outputs = model(batch[0]).flatten(0, 1)
                torch.nn.functional.cross_entropy(outputs, batch[1].flatten()).backward()
                optimizer.step()

            def one_map(cell: torch.nn.Module = cell) -> None:
                W = cell.get_submodule("recurrent")()
                W.backward(torch.ones_like(W))

            step(), one_map()
            maps, steps = zip(*((seconds(one_map), seconds(step)) for _ in range(rounds)), strict=True)
            share = statistics.median(a / b for a, b in zip(maps, steps, strict=True))
            row += [f"{1e3 * statistics.median(maps):.1f}", f"{1e3 * statistics.median(steps):.0f}", f"{share:.0%}"]
        table.add_row(*row)
    return table


def drift_after(build: Callable[[int], OrthogonalMap], n: int, double_precision: bool, steps: int) -> float:
    """Drift after ``steps`` of RMSprop at 1e-3 down a fixed random linear function of W, rebased every 100."""
    module = build(n)
    module.double_precision = double_precision
    optimizer: torch.optim.Optimizer
    if isinstance(module, FreeUnitary):
        optimizer = RiemannianRMSprop([{"params": list(module.parameters()), "manifold": True}], lr=1e-3)
    else:
        optimizer = torch.optim.RMSprop(module.parameters(), lr=1e-3)
    direction: Tensor = torch.randn(n, n)
    for step in range(steps):
        optimizer.zero_grad()
        (module().real * direction).sum().backward()
        optimizer.step()
        if getattr(module, "base", None) is not None and (step + 1) % 100 == 0:
            module.rebase_()
    return float(module.drift())


def drifts(sizes: list[int], steps: int) -> Table:
    table = Table(title=f"max |W^H W - I| after {steps} RMSprop steps at 1e-3, float32 (in brackets: map in float64)")
    for column in ("map", *(f"n = {n}" for n in sizes)):
        table.add_column(column, justify="left" if column == "map" else "right")
    for name, build in track(MAPS.items(), description="drift"):
        row = [name]
        for n in sizes:
            try:
                plain, fine = (drift_after(build, n, double, steps) for double in (False, True))
                row.append(f"{plain:.1e} ({fine:.1e})")
            except UserError:  # a size that the design does not admit
                row.append("refused")
        table.add_row(*row)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "drift"))
    parser.add_argument("--sizes", type=whole(), nargs="+")
    parser.add_argument("--rounds", type=whole(), default=7)
    parser.add_argument("--steps", type=whole(), default=1000)
    parser.add_argument("--threads", type=whole(), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    if options.what == "cost":
        Console().print(cost(options.sizes or [190, 512], options.rounds))
    else:
        Console().print(drifts(options.sizes or [1, 2, 3, 17, 128], options.steps))


if __name__ == "__main__":
    main()
