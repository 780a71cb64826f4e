"""How many CPU threads a command uses."""

from __future__ import annotations

import scipy.linalg  # noqa: F401  # loaded, or its OpenBLAS would not be limited
import torch
from threadpoolctl import threadpool_limits

from datamodules.errors import require


def use_threads(count: int | None) -> None:
    """Let torch use ``count`` threads, its own choice if None; NumPy's and SciPy's BLAS as many, or one.

    OpenBLAS's threads wait for each other without sleeping: on a busy machine an SVD of n = 100 took 0.6 s with two of
    them, and 1.6 ms with one.

    Raises:
        UserError: for a count below 1.
    """
    if count is not None:
        require(count >= 1, "--threads", count, "a whole number of at least 1")
        torch.set_num_threads(count)
    threadpool_limits(count or 1, user_api="blas")
