"""What is no count is refused by every attack and certificate that takes one, in one sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_rnn import robustness
from lit_rnn.cells import VanillaRNNCell
from tests.refusals import refusal, refuses_what_is_no_count

X, Y, SYMBOLS = torch.rand(2, 3, 2), torch.tensor([0, 1]), torch.tensor([[0, 1, 2], [2, 1, 0]])


def values(x: Tensor) -> Tensor:
    return x.sum(1)


def symbols(x: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(x, 9).sum(1).float()


def swapped(**options: Any) -> Tensor:
    return robustness.symbol_swap(symbols, SYMBOLS, Y, **{"swaps": 1, "vocabulary": 9, "queries": 2, **options})


def certified(**options: Any) -> Any:
    return robustness.smooth_certify(values, X, 0.1, **{"n0": 2, "n": 2, **options})


def examples(**options: Any) -> Any:
    return robustness.Examples(values, X, Y, torch.ones_like(X, dtype=torch.bool), **options)


def effort(name: str, count: Any) -> Any:
    return robustness.Effort(**{name: count})


COUNTS: dict[str, tuple[int, Callable[[Any], Any]]] = {  # the least, and the call
    "steps of pgd": (1, lambda n: robustness.pgd(values, X, Y, 0.1, steps=n)),
    "restarts of pgd": (1, lambda n: robustness.pgd(values, X, Y, 0.1, steps=1, restarts=n)),
    "seed of pgd": (0, lambda n: robustness.pgd(values, X, Y, 0.1, steps=1, seed=n)),
    "draws of random_draws": (1, lambda n: robustness.random_draws(values, X, Y, 0.1, draws=n)),
    "queries of random_search": (1, lambda n: robustness.random_search(values, X, Y, 0.1, queries=n)),
    "seed of additive_noise": (0, lambda n: robustness.additive_noise(X, 0.1, seed=n)),
    "swaps of symbol_swap": (0, lambda n: swapped(swaps=n)),
    "vocabulary of symbol_swap": (0, lambda n: swapped(vocabulary=n + 1 if type(n) is np.int64 else n)),
    "queries of symbol_swap": (1, lambda n: swapped(queries=n)),
    "steps of lipschitz_bound": (1, lambda n: robustness.lipschitz_bound(VanillaRNNCell(2, 2), torch.eye(2), n)),
    "n of clopper_pearson_lower": (1, lambda n: robustness.clopper_pearson_lower(1, n)),
    "n0 of smooth_certify": (1, lambda n: certified(n0=n)),
    "n of smooth_certify": (1, lambda n: certified(n=n)),
    "batch_size of smooth_certify": (1, lambda n: certified(batch_size=n)),
    "seed of smooth_certify": (0, lambda n: certified(seed=n)),
    "vocabulary of Examples": (0, lambda n: examples(vocabulary=n)),
    "batch_size of Examples": (1, lambda n: examples(batch_size=n)),
    **{f"{name} of Effort": (1, partial(effort, name)) for name in ("steps", "restarts", "queries", "draws")},
}


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_count_is_refused(name: str) -> None:
    least, call = COUNTS[name]
    refuses_what_is_no_count(call, name.partition(" ")[0], least)
    call(np.int64(2))


def test_successes_are_whole_numbers() -> None:
    for k in (2.5, -1, 5, np.nan, [1, 1.5]):
        refusal(partial(robustness.clopper_pearson_lower, k, 4), "k is")
