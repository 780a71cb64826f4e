"""RMSprop as TensorFlow 1 and the Theano code of the uRNN papers have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.errors import UserError, require


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones: every part has its own mean."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


class RMSpropTF(Optimizer):
    """v <- alpha v + (1 - alpha) g^2;  mom <- momentum mom + lr g / sqrt(v + eps);  p <- p - mom.

    Not torch's RMSprop, whose v starts at 0 and whose eps stands outside the root: with gradients near 1e-3 the first
    steps there are up to 3,000 times as long. The defaults are TensorFlow 1's ``RMSPropOptimizer``. The Theano code of
    Arjovsky et al. (2016) and Wisdom et al. (2016) has ``initial_accumulator`` 1e-3 and ``eps`` 0.
    Real and imaginary parts count as numbers of their own, as in torch.

    Args:
        params: Parameters or groups; every option below may differ by group.
        lr: Learning rate.
        alpha: Share of the running mean v that is kept.
        eps: Keeps the quotient finite. With 0, a v that underflows counts as the smallest positive number.
        initial_accumulator: v before the first step.
        eps_inside: sqrt(v + eps); false takes sqrt(v) + eps.
        momentum: Share of the last move that is kept; the rate is inside the sum, as in TensorFlow.
        weight_decay: L2: g + weight_decay p in place of g.

    Raises:
        UserError: for a negative option, or a sparse gradient at a step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        alpha: float = 0.9,
        eps: float = 1e-10,
        initial_accumulator: float = 1.0,
        eps_inside: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        options = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "initial_accumulator": initial_accumulator,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        for name, value in options.items():
            require(value >= 0, name, value, "0 or positive")
        super().__init__(params, {**options, "eps_inside": eps_inside})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return
        if any(parameter.grad.is_sparse for parameter in moved):
            raise UserError(
                "RMSpropTF got a sparse gradient, but it takes dense ones: use SparseAdam, or sparse=False."
            )
        parameters, gradients = [_real(p) for p in moved], [_real(p.grad) for p in moved]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter, real in zip(moved, parameters, strict=True):
            if "square_avg" not in self.state[parameter]:
                self.state[parameter]["square_avg"] = torch.full_like(real, group["initial_accumulator"])
        means = [self.state[parameter]["square_avg"] for parameter in moved]
        torch._foreach_mul_(means, group["alpha"])
        torch._foreach_addcmul_(means, gradients, gradients, 1 - group["alpha"])
        roots = self._roots(means, group)
        if not group["momentum"]:
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])
            return
        for parameter, real in zip(moved, parameters, strict=True):
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(real)
        moves = [self.state[parameter]["momentum_buffer"] for parameter in moved]
        torch._foreach_mul_(moves, group["momentum"])
        torch._foreach_addcdiv_(moves, gradients, roots, group["lr"])
        torch._foreach_sub_(parameters, moves)

    @staticmethod
    def _roots(means: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        if group["eps_inside"]:
            roots = list(torch._foreach_add(means, group["eps"]))
            torch._foreach_sqrt_(roots)
        else:
            roots = list(torch._foreach_sqrt(means))
            torch._foreach_add_(roots, group["eps"])
        if not group["eps"]:  # v of a weight without gradient has decayed to 0 after some hundred steps: 0 / 0
            torch._foreach_clamp_min_(roots, [math.sqrt(torch.finfo(root.dtype).tiny) for root in roots])
        return roots
