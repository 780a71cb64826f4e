"""What a user may set; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

MATRIX_PARTS = ("spectrum", "pseudospectrum", "nonnormality", "transient", "memory")
PARTS = (*MATRIX_PARTS, "dynamics", "probe")
DATA_PARTS = ("dynamics", "probe", "fixed_points")  # the last takes seconds: only where it is named


@dataclass(frozen=True)
class Settings:
    """What a user may set.

    Args:
        points: Of the pseudospectrum's grid, per axis.
        steps: Powers of W, and lags of what it remembers.
        samples: Validation sequences.
    """

    points: int
    steps: int
    samples: int
