"""Every test: one torch thread, a fixed seed, no network, no leftovers in the source tree."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from lit_rnn.threads import use_threads

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
use_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(1)
    yield
