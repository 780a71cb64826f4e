"""How a run may end before its time."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path


class DivergedError(Exception):
    """The loss became NaN or infinite."""


class Stopped(Exception):  # noqa: N818  # not an error: the user asked for it
    """The run was asked to stop by a signal and has saved where it was."""

    def __init__(self, signum: int, step: int, run_dir: Path, trust: Sequence[str] = ()) -> None:
        super().__init__(
            f"Stopped by {signal.Signals(signum).name} after step {step}; "
            f"go on with: python -m lit_rnn fit --run_dir {run_dir} --ckpt_path last"
            + "".join(f" --trust {module}" for module in trust)
        )
        self.signum = signum
