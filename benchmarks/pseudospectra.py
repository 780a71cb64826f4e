"""What pseudospectra cost: the grid against one dense SVD per point, and criss-cross.

    python benchmarks/pseudospectra.py grid  [--threads 1] [--size 128] [--points 100]
    python benchmarks/pseudospectra.py reach [--threads 1] [--size 100]

``grid`` takes the Lanczos process and the SVDs in turn, in one process on the same cores, medians of several rounds;
the SVDs of a sample of the grid's points, as all of them would take minutes. ``per point`` compares the points that are
worked out, ``whole grid`` is what a caller waits for: a real matrix needs half of its grid. The error is that of the
sample, where sigma is above 1e-10 |W|, so that a float64 SVD has five digits. ``reach`` times rho_eps and alpha_eps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence

from arguments import whole


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["grid", "reach"])
    parser.add_argument("--threads", type=whole(), default=1)
    parser.add_argument("--size", type=whole())
    parser.add_argument("--points", type=whole(2), default=100)
    parser.add_argument("--rounds", type=whole(), default=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    arguments = parsed()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)  # read by NumPy when it is imported

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from lit_rnn import analysis  # noqa: E402

Matrix = NDArray[np.float64] | NDArray[np.complex128]
SAMPLE = 200  # points of a grid, at most


def matrices(n: int) -> dict[str, Matrix]:
    rng = np.random.default_rng(0)

    def gaussian() -> NDArray[np.float64]:
        return rng.standard_normal((n, n)) / np.sqrt(n)

    Q = np.linalg.qr(gaussian())[0]
    return {
        "Gaussian": gaussian(),
        "Gaussian, complex": (gaussian() + 1j * gaussian()) / np.sqrt(2),
        "orthogonal": Q,
        "orthogonal + 0.1 Gaussian": Q + 0.1 * gaussian(),
        "symmetric + 0.01 Gaussian": (Q + Q.T) / 2 + 0.01 * gaussian(),
        "fbchain": 0.99 * np.eye(n, k=-1) + 0.04 * np.eye(n, k=1),
        "Grcar": np.triu(np.tril(np.ones((n, n)), 3)) - np.eye(n, k=-1),
    }


def seconds(work: Callable[..., object], *given: object) -> float:
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def peak_memory(work: Callable[..., object], *given: object) -> float:
    """In MiB."""
    tracemalloc.start()
    work(*given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def grid(n: int, points: int, rounds: int) -> Table:
    table = Table(title=f"{points} x {points} grid, n = {n}")
    for column in ("matrix", "grid s", "SVD ms/point", "per point", "whole grid", "largest error", "peak MiB"):
        table.add_column(column, justify="left" if column == "matrix" else "right")
    for name, W in track(matrices(n).items(), description="grid"):
        field = analysis.pseudospectrum(W, points)
        z = field.x + 1j * field.y[:, None]
        places = np.random.default_rng(1).choice(z.size, min(SAMPLE, z.size), replace=False)
        sample, found = z.flat[places], field.sigma.flat[places]
        true = analysis.smallest_singular_values(W, sample, "svd")
        clear = true > 1e-10 * analysis.spectral_norm(W)
        grids, svds = [], []
        for _ in range(rounds):
            grids.append(seconds(analysis.pseudospectrum, W, points))
            svds.append(seconds(analysis.smallest_singular_values, W, sample, "svd") / len(sample))
        whole, single = statistics.median(grids), statistics.median(svds)
        ratio = single * z.size / whole
        table.add_row(
            name,
            f"{whole:.2f}",
            f"{1e3 * single:.2f}",
            f"{ratio / (2 if np.isrealobj(W) else 1):.1f} x",
            f"{ratio:.1f} x",
            f"{np.max(np.abs(found - true)[clear] / true[clear]):.0e}",
            f"{peak_memory(analysis.pseudospectrum, W, points):.0f}",
        )
    return table


def reach(n: int, rounds: int) -> Table:
    levels = (1e-4, 1e-2, 1.0)
    found = {"rho": analysis.pseudospectral_radius, "alpha": analysis.pseudospectral_abscissa}
    table = Table("matrix", title=f"criss-cross, n = {n}, ms")
    for eps in levels:
        for what in found:
            table.add_column(f"{what}, eps {eps:g}", justify="right")
    for name, W in track(matrices(n).items(), description="reach"):
        times = [[seconds(f, W, eps) for _ in range(rounds)] for eps in levels for f in found.values()]
        table.add_row(name, *(f"{1e3 * statistics.median(each):.0f}" for each in times))
    return table


def main(arguments: argparse.Namespace) -> None:
    if arguments.what == "grid":
        table = grid(arguments.size or 128, arguments.points, arguments.rounds)
    else:
        table = reach(arguments.size or 100, arguments.rounds)
    Console(width=140).print(table)


if __name__ == "__main__":
    main(arguments)
