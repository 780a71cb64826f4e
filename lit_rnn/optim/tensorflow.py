"""RMSprop as TensorFlow 1 and the Theano code of the uRNN papers have it, and TensorFlow 1's Adam."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.errors import UserError, require
from lit_rnn.optim.closure import evaluated

Tensors = list[Tensor]


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones: every part has its own mean."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


class _Elementwise(Optimizer):
    """Steps a group at once, with dense gradients, complex numbers as pairs of real ones and L2 decay.

    Raises:
        UserError: for a negative option, or a sparse gradient at a step.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        for name, value in options.items():
            require(all(number >= 0 for number in _numbers(value)), name, value, "0 or positive")
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluated(closure)
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return
        if any(parameter.grad.is_sparse for parameter in moved):
            raise UserError(
                f"{type(self).__name__} got a sparse gradient, but it takes dense ones: use SparseAdam, or "
                "sparse=False."
            )
        parameters, gradients = [_real(p) for p in moved], [_real(p.grad) for p in moved]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        self._move(moved, parameters, gradients, group)

    @abstractmethod
    def _move(self, moved: Tensors, parameters: Tensors, gradients: Tensors, group: dict[str, Any]) -> None:
        """Change ``parameters``, real views of ``moved``, by ``gradients``."""

    def _kept(self, name: str, moved: Tensors, parameters: Tensors, start: float) -> Tensors:
        """The state ``name`` of all parameters, filled with ``start`` where there is none."""
        for parameter, real in zip(moved, parameters, strict=True):
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.full_like(real, start)
        return [self.state[parameter][name] for parameter in moved]


def _numbers(option: Any) -> tuple[float, ...]:
    return tuple(option) if isinstance(option, tuple | list) else (option,)


def _average(means: Tensors, gradients: Tensors, kept: float) -> None:
    """v <- kept v + (1 - kept) g^2."""
    torch._foreach_mul_(means, kept)
    torch._foreach_addcmul_(means, gradients, gradients, 1 - kept)


def _roots(means: Tensors, eps: float, inside: bool = False) -> Tensors:
    """sqrt(v) + eps, or sqrt(v + eps); never 0, which v of a weight without gradient becomes in some hundred steps."""
    if inside:
        roots = list(torch._foreach_add(means, eps))
        torch._foreach_sqrt_(roots)
    else:
        roots = list(torch._foreach_sqrt(means))
        torch._foreach_add_(roots, eps)
    if not eps:
        torch._foreach_clamp_min_(roots, [math.sqrt(torch.finfo(root.dtype).tiny) for root in roots])
    return roots


class RMSpropTF(_Elementwise):
    """v <- alpha v + (1 - alpha) g^2;  mom <- momentum mom + lr g / sqrt(v + eps);  p <- p - mom.

    Not torch's RMSprop, whose v starts at 0 and whose eps stands outside the root: with gradients near 1e-3 the first
    steps there are 3,000 times as long at the same alpha of 0.9. The defaults are TensorFlow 1's ``RMSPropOptimizer``.
    The Theano code of Arjovsky et al. (2016) and Wisdom et al. (2016) has ``initial_accumulator`` 1e-3 and ``eps`` 0.
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
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            initial_accumulator=initial_accumulator,
            eps_inside=eps_inside,
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def _move(self, moved: Tensors, parameters: Tensors, gradients: Tensors, group: dict[str, Any]) -> None:
        means = self._kept("square_avg", moved, parameters, group["initial_accumulator"])
        _average(means, gradients, group["alpha"])
        roots = _roots(means, group["eps"], group["eps_inside"])
        if not group["momentum"]:
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])
            return
        moves = self._kept("momentum_buffer", moved, parameters, 0.0)
        torch._foreach_mul_(moves, group["momentum"])
        torch._foreach_addcdiv_(moves, gradients, roots, group["lr"])
        torch._foreach_sub_(parameters, moves)


class AdamTF(_Elementwise):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    TensorFlow 1's ``AdamOptimizer``: the form before section 2.1 of Kingma and Ba (2015), whose "epsilon hat" is added
    to the root of a v that still has its bias. In torch's Adam eps sqrt(1 - b2^t) stands there, which is less at first:
    with gradients near eps / sqrt(1 - b2) = 3e-7 the first step here is half of torch's.

    Args:
        params: Parameters or groups; every option below may differ by group.
        lr: Learning rate.
        betas: b1 and b2, below 1.
        eps: Keeps the quotient finite. With 0, a v that underflows counts as the smallest positive number.
        weight_decay: L2: g + weight_decay p in place of g.

    Raises:
        UserError: for a negative option, a beta that is not below 1, or a sparse gradient at a step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        require(len(betas) == 2 and all(beta < 1 for beta in betas), "betas", betas, "two numbers from 0 to below 1")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _move(self, moved: Tensors, parameters: Tensors, gradients: Tensors, group: dict[str, Any]) -> None:
        b1, b2 = group["betas"]
        for parameter in moved:
            self.state[parameter].setdefault("step", torch.tensor(0.0)).add_(1)
        firsts = self._kept("exp_avg", moved, parameters, 0.0)
        seconds = self._kept("exp_avg_sq", moved, parameters, 0.0)
        torch._foreach_mul_(firsts, b1)
        torch._foreach_add_(firsts, gradients, alpha=1 - b1)
        _average(seconds, gradients, b2)
        roots = _roots(seconds, group["eps"])
        steps = [self.state[parameter]["step"].item() for parameter in moved]
        rates = [-group["lr"] * math.sqrt(1 - b2**t) / (1 - b1**t) for t in steps]
        torch._foreach_addcdiv_(parameters, firsts, roots, rates)
