"""By CPU time, with one thread: `native` beside torch's kernels, by which `auto` decides, beside the rivals' loop,
and beside itself where sequences are of unequal lengths, or begin anew inside a chunk.

    python benchmarks/one_thread.py             # medians of 11 pairs
    python benchmarks/one_thread.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from arguments import whole

from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.memory import keep_freed_memory
from lit_rnn.scan import Backend, scan

# name, cell, T, B
ROWS: list[tuple[str, Callable[[], Cell], int, int]] = [
    ("LSTM n = 68", lambda: cells.LSTMCell(10, 68), 200, 20),
    ("LSTM n = 128", lambda: cells.LSTMCell(10, 128), 200, 20),
    ("LSTM n = 128", lambda: cells.LSTMCell(1, 128), 100, 128),
    ("GRU n = 82", lambda: cells.GRUCell(10, 82), 120, 10),
    ("GRU n = 128", lambda: cells.GRUCell(10, 128), 200, 20),
    ("RNN (tanh) n = 128", lambda: cells.VanillaRNNCell(10, 128), 200, 20),
    ("RNN (relu) n = 128", lambda: cells.VanillaRNNCell(10, 128, "relu"), 200, 20),
]
# name, cell, T, B: against the loop
RIVALS: list[tuple[str, Callable[[], Cell], int, int]] = [
    ("sLSTM n = 128", lambda: cells.SLSTMCell(1, 128), 784, 128),
    ("LEM n = 128", lambda: cells.LEMCell(1, 128), 784, 128),
    ("coRNN n = 128", lambda: cells.CoRNNCell(1, 128), 784, 128),
    ("UnICORNN n = 128", lambda: cells.UnICORNNCell(1, 128), 784, 128),
    ("LRU n = 128", lambda: cells.LRUCell(1, 128), 784, 128),
    ("LinOSS n = 64", lambda: cells.LinOSSCell(1, 64), 784, 64),
    ("minGRU n = 32", lambda: cells.MinGRUCell(1, 32), 784, 128),
    ("minLSTM n = 32", lambda: cells.MinLSTMCell(1, 32), 784, 128),
    ("minLSTM n = 64", lambda: cells.MinLSTMCell(1, 64), 784, 64),
    ("DeltaProduct n = 128, 4 heads", lambda: cells.DeltaProductCell(1, 128, heads=4), 784, 128),
]
# name, cell, T, B, whether the loss sees the last step alone: lengths from 1 to T, against as many real steps
UNEQUAL: list[tuple[str, Callable[[], Cell], int, int, bool]] = [
    ("ExpRNN n = 170", lambda: cells.ExpRNNCell(1, 170), 784, 128, True),
    ("ExpRNN n = 190", lambda: cells.ExpRNNCell(10, 190), 1020, 20, False),
    ("ExpRNN n = 190", lambda: cells.ExpRNNCell(10, 190), 120, 20, False),
    ("ExpRNN n = 128", lambda: cells.ExpRNNCell(4, 128), 100, 32, True),
    ("ExpRNN n = 64", lambda: cells.ExpRNNCell(4, 64), 200, 64, False),
    ("LSTM n = 128", lambda: cells.LSTMCell(1, 128), 784, 128, True),
]
# name, cell, T, B, how many documents begin inside a chunk of streams: against a chunk in which none does
RESETS: list[tuple[str, Callable[[], Cell], int, int, int]] = [
    ("ExpRNN n = 256", lambda: cells.ExpRNNCell(50, 256), 150, 32, 8),
    ("LSTM n = 256", lambda: cells.LSTMCell(50, 256), 150, 32, 8),
]


def seconds(cell: Cell, x: torch.Tensor, backend: Backend, **options: Any) -> float:
    """CPU time of the process for a forward and backward pass: waiting for others does not count."""
    start = time.process_time()
    scan(cell, x, backend=backend, **options)[0].sum().backward()
    return time.process_time() - start


def unequal(rounds: int) -> None:
    for name, make, T, B, last_only in UNEQUAL:
        torch.manual_seed(0)
        cell, lengths = make(), torch.randint(1, T + 1, (B,))
        ragged = torch.randn(T, B, cell.input_size)
        even = torch.randn(round(float(lengths.float().mean())), B, cell.input_size)
        pairs = [
            (
                seconds(cell, ragged, "native", lengths=lengths, last_only=last_only),
                seconds(cell, even, "native", last_only=last_only),
            )
            for _ in range(rounds + 1)
        ][1:]
        reads = "last output" if last_only else "every output"
        tell(f"{name}, T = {T}, B = {B}, {reads}", "unequal", "equal", pairs)


def resets(rounds: int) -> None:
    """A chunk of truncated backpropagation, from a state that is carried."""
    for name, make, T, B, documents in RESETS:
        torch.manual_seed(0)
        cell, x = make(), torch.randn(T, B, make().input_size)
        reset = torch.zeros(T * B, dtype=torch.bool)
        reset[torch.randperm(T * B)[:documents]] = True
        state = cell.initial_state(B)
        pairs = [
            (
                seconds(cell, x, "native", state=state, reset=reset.view(T, B)),
                seconds(cell, x, "native", state=state, reset=torch.zeros(T, B, dtype=torch.bool)),
            )
            for _ in range(rounds + 1)
        ][1:]
        tell(f"{name}, T = {T}, B = {B}, {documents} documents begin", "with", "without", pairs)


def tell(work: str, ours: str, theirs: str, pairs: list[tuple[float, float]]) -> None:
    """The least of both sides, their ratio, and the median of the pairs' own."""
    one, other = (min(side) for side in zip(*pairs, strict=True))
    median = statistics.median(a / b for a, b in pairs)
    print(
        f"{work}: {ours} {one * 1e3:.1f} ms, {theirs} {other * 1e3:.1f} ms, {one / other:.2f} (median of the pairs "
        f"{median:.2f})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole(), default=11, help="pairs of each (11)")
    rounds = parser.parse_args(arguments).rounds
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    against: list[tuple[list[tuple[str, Callable[[], Cell], int, int]], Backend]] = [(ROWS, "torch"), (RIVALS, "loop")]
    for rows, other in against:
        for name, make, T, B in rows:
            cell, x = make(), torch.randn(T, B, make().input_size)
            pairs = [(seconds(cell, x, "native"), seconds(cell, x, other)) for _ in range(rounds + 1)][1:]
            tell(f"{name}, T = {T}, B = {B}", "native", other, pairs)
    unequal(rounds)
    resets(rounds)


if __name__ == "__main__":
    main()
