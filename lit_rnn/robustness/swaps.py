"""Attacks on symbols: some of them are swapped for others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from datamodules.errors import UserError, require, whole
from lit_rnn.robustness.attacks import check_examples, expand_mask
from lit_rnn.robustness.draws import Draws, Seed
from lit_rnn.robustness.objective import Loss, Objective, Wrong
from lit_rnn.robustness.search import Search
from lit_rnn.robustness.state import Model, frozen


def symbol_swap(
    model: Model,
    x: Tensor,
    y: Tensor,
    swaps: int,
    vocabulary: int,
    search: Literal["greedy", "random"] = "greedy",
    queries: int = 200,
    loss: Loss = "margin",
    targeted: bool = False,
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    wrong: Wrong | None = None,
    seed: Seed = 0,
    lengths: Tensor | None = None,
) -> Tensor:
    """Change at most ``swaps`` symbols of each sequence (Hamming distance), without gradients, so that the loss grows.

    ``random`` draws ``queries`` sets of swaps and keeps the worst. ``greedy`` makes one swap a round, the worst of
    ``queries / swaps`` single ones drawn at random, and goes on from there; a round that finds none leaves the
    sequence. A fooled sequence is no longer computed.

    Args:
        model: From symbols to logits (B, C) or (B, T, C).
        x: int64 (B, T).
        y: Labels, (B,) or (B, T).
        swaps: 0 returns x bit for bit.
        vocabulary: Symbols are 0, ..., vocabulary - 1.
        search: ``greedy`` or ``random``.
        queries: Evaluations of the model per example.
        loss: As in `lit_rnn.robustness.pgd`.
        targeted: Minimise the loss to y instead.
        mask: Which positions may be changed, broadcastable to x.
        scored: (B, T) bool: steps that count, where there is a target per step.
        wrong: When a prediction is wrong; see `lit_rnn.robustness.objective.Objective`.
        seed: Of the draws.
        lengths: As in `lit_rnn.robustness.pgd`.

    Raises:
        UserError: for values, no examples, and options that cannot work.
    """
    check_examples(x)
    if x.is_floating_point():
        raise UserError(f"inputs are {x.dtype}, values, but symbol_swap needs symbols (int64): take pgd.")
    require(search in ("greedy", "random"), "search", search, "greedy or random")
    swaps, vocabulary, queries = whole(swaps, "swaps"), whole(vocabulary, "vocabulary"), whole(queries, "queries", 1)
    require(swaps <= x.shape[1], "swaps", swaps, f"from 0 to the sequence's length {x.shape[1]}")
    require(int(x.min()) >= 0, "x", int(x.min()), f"a symbol from 0 to {vocabulary - 1} wherever it stands")
    require(vocabulary > max(1, int(x.max())), "vocabulary", vocabulary, f"at least {max(2, int(x.max()) + 1)}")
    if swaps == 0:
        return x.clone()
    free = expand_mask(x, mask)
    draws = Draws.of(seed, len(x))

    def drawn(current: Tensor, count: int) -> Tensor:
        """``current`` with ``count`` positions changed to another symbol, drawn among those still free."""
        untouched = free & (current == x)
        ranks = draws.uniform(*x.shape[1:], dtype=torch.float32).to(x.device).masked_fill(~untouched, 2.0)
        chosen = (ranks.argsort(1).argsort(1) < count) & untouched
        shift = draws.whole(1, vocabulary, *x.shape[1:]).to(x.device)
        return torch.where(chosen, (current + shift) % vocabulary, current)

    with frozen(model, x.device), torch.no_grad():
        best = Search(Objective(model, loss, targeted, scored, wrong, lengths), x, y)
        rounds = swaps if search == "greedy" else 1
        for _ in range(rounds):
            current = best.x.clone()
            for rows in best.rounds(max(1, queries // rounds)):
                best.judge(drawn(current, 1 if search == "greedy" else swaps)[rows], rows)
        return best.x
