"""Every test: one torch thread, a fixed seed, no network, no leftovers in the source tree."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(1)
    yield
