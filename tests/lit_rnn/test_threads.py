"""How many threads a command uses."""

from __future__ import annotations

import pytest
import torch
from threadpoolctl import threadpool_info

from datamodules import UserError
from lit_rnn.threads import use_threads


def blas() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_torch_and_blas_are_limited() -> None:
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2 and blas() == {2}
        use_threads(None)
        assert torch.get_num_threads() == 2 and blas() == {1}
        with pytest.raises(UserError, match="threads is 0"):
            use_threads(0)
    finally:
        use_threads(1)
    assert torch.get_num_threads() == 1 and blas() == {1}
