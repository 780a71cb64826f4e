"""`native` beside torch's own kernels with one thread, by CPU time: what `auto` decides by for one thread.

python benchmarks/one_thread.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

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


def seconds(cell: Cell, x: torch.Tensor, backend: Backend) -> float:
    """CPU time of the process for a forward and backward pass: waiting for others does not count."""
    start = time.process_time()
    scan(cell, x, backend=backend)[0].sum().backward()
    return time.process_time() - start


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    for name, make, T, B in ROWS:
        cell, x = make(), torch.randn(T, B, make().input_size)
        pairs = [(seconds(cell, x, "native"), seconds(cell, x, "torch")) for _ in range(rounds + 1)][1:]
        native, kernel = (min(side) for side in zip(*pairs, strict=True))
        median = statistics.median(ours / theirs for ours, theirs in pairs)
        print(
            f"{name}, T = {T}, B = {B}: native {native * 1e3:.1f} ms, torch {kernel * 1e3:.1f} ms, "
            f"{native / kernel:.2f} (median of the pairs {median:.2f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
