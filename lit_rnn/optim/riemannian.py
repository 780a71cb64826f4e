"""SGD, RMSprop and Adam on the orthogonal and the unitary group.

A tangent vector at W is Omega W with Omega skew-Hermitian. Momentum is kept as Omega: carrying it to the next W by
right translation keeps it exactly tangent and its norm unchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.errors import one_of, require
from lit_rnn.optim.closure import evaluated
from lit_rnn.parametrizations.exponential import exp_normal
from lit_rnn.parametrizations.orthogonal import hold_, or_nan, polar

Metric = Literal["euclidean", "canonical"]
Retraction = Literal["cayley", "qr", "polar", "exp"]


def skew_gradient(W: Tensor, G: Tensor, metric: Metric) -> Tensor:
    """Omega of the Riemannian gradient Omega W: G W^H - W G^H, and half of it in the Euclidean metric."""
    one_of(metric, "metric", get_args(Metric))
    product = G @ W.mH
    return (product - product.mH) * (0.5 if metric == "euclidean" else 1.0)


def riemannian_gradient(W: Tensor, G: Tensor, metric: Metric = "euclidean") -> Tensor:
    """The gradient on O(n) or U(n) at W of a function whose gradient in the matrix space is G (torch's, also complex).

    ``euclidean``: (G - W G^H W) / 2, the projection of G on the tangent space. ``canonical``: G - W G^H W, twice that
    for square W (Edelman et al. 1998; Wisdom et al. 2016 step along it).
    """
    return skew_gradient(W, G, metric) @ W


def retract(W: Tensor, Omega: Tensor, retraction: Retraction) -> Tensor:
    """A point of the group near W + Omega W.

    ``cayley``: (I - Omega/2)^-1 (I + Omega/2) W; ``exp``: exp(Omega) W, the geodesic; ``polar``: the nearest unitary
    matrix to W + Omega W; ``qr``: its Q factor, with the diagonal of R positive (first order only, the others second).
    """
    one_of(retraction, "retraction", get_args(Retraction))
    if retraction == "exp":
        return exp_normal(Omega) @ W
    step = Omega @ W
    if retraction == "cayley":
        identity = torch.eye(len(W), dtype=W.dtype, device=W.device)
        return torch.linalg.solve_ex(identity - Omega / 2, W + step / 2)[0]  # never singular
    if retraction == "polar":
        return or_nan(polar, W + step)
    Q, R = torch.linalg.qr(W + step)
    diagonal = torch.diagonal(R)
    return Q * (diagonal / diagonal.abs())


class RiemannianOptimizer(Optimizer):
    """Groups with ``manifold: True`` hold square orthogonal or unitary matrices; all others take torch's own step.

    Args:
        params: Parameters or groups.
        options: Those that torch's optimizer, ``flat_class``, takes as well, and those only of manifold groups.
        metric: The metric whose gradient is followed.
        retraction: How a step is brought back to the group.
        drift_bound: A matrix with max |W^H W - I| above this after a step is brought back by `hold_`.
    """

    flat_class: ClassVar[type[Optimizer]]

    def __init__(
        self,
        params: Iterable[Any],
        options: Mapping[str, Any],
        metric: Metric = "euclidean",
        retraction: Retraction = "cayley",
        drift_bound: float = 1e-5,
    ) -> None:
        one_of(metric, "metric", get_args(Metric))
        one_of(retraction, "retraction", get_args(Retraction))
        require(drift_bound > 0, "drift_bound", drift_bound, "positive")
        require(options["lr"] >= 0, "lr", options["lr"], "0 or positive")
        manifold = {"manifold": False, "metric": metric, "retraction": retraction, "drift_bound": drift_bound}
        flat = {name: value for name, value in options.items() if name in self._flat().defaults}  # torch checks them
        super().__init__(params, {**self._flat(**flat).defaults, **manifold, **options})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a checkpoint from before an option was there
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def _flat(self, **options: Any) -> Optimizer:
        return self.flat_class([torch.zeros(1)], **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        given = param_group["params"]
        param_group["params"] = [given] if isinstance(given, Tensor) else list(given)
        for parameter in param_group["params"] if param_group.get("manifold") else ():
            square = parameter.dim() == 2 and parameter.shape[0] == parameter.shape[1]
            require(square, "A parameter of a manifold group", tuple(parameter.shape), "a square matrix")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluated(closure)
        flat = self._flat()  # made anew: a copied or restored optimizer has nothing but state and groups
        flat.param_groups = [group for group in self.param_groups if not group["manifold"]]
        flat.state = self.state
        flat.step()
        for group in self.param_groups:
            for W in group["params"] if group["manifold"] else ():
                if W.grad is not None:
                    Omega = self.direction(W, W.grad, self.state[W], group)
                    W.copy_(retract(W, -group["lr"] * Omega, group["retraction"]))
                    hold_(W, group["drift_bound"])
        return loss

    @abstractmethod
    def direction(self, W: Tensor, G: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Omega of the direction to go against, from the gradient G and the optimizer's state of W."""


class RiemannianSGD(RiemannianOptimizer):
    """Omega_t = momentum Omega_{t-1} + Omega(G); W <- retract(W, -lr Omega_t).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Share of the last direction that is kept.
        **geometry: ``metric``, ``retraction`` and ``drift_bound`` of `RiemannianOptimizer`.
    """

    flat_class = torch.optim.SGD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        **geometry: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **geometry)

    def direction(self, W: Tensor, G: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        Omega = skew_gradient(W, G, group["metric"])
        if group["momentum"]:
            kept = state.get("momentum_buffer")
            Omega = Omega if kept is None else group["momentum"] * kept + Omega
            state["momentum_buffer"] = Omega
        return Omega


class RiemannianRMSprop(RiemannianOptimizer):
    """v = alpha v + (1 - alpha) |G|^2 elementwise; W <- retract(W, -lr Omega(G / (sqrt(v) + eps))).

    Normalise first, then take the Riemannian gradient: what the full-capacity uRNN does on MNIST, and nowhere else
    (Wisdom et al. 2016; their code there has ``apart``, alpha 0.9 and the canonical metric).
    It is not a descent method on the group: where G is not zero it leaves an exact minimum again; let the rate decay.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        alpha: Share of the running mean that is kept.
        eps: Keeps the quotient finite.
        apart: Of complex matrices, v of real and of imaginary parts apart, as in the released code and as all else here
            takes its RMSprop; otherwise |G|^2, which no change of phase moves.
        **geometry: ``metric``, ``retraction`` and ``drift_bound`` of `RiemannianOptimizer`.
    """

    flat_class = torch.optim.RMSprop

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        alpha: float = 0.99,
        eps: float = 1e-8,
        apart: bool = False,
        **geometry: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "apart": apart}, **geometry)

    def direction(self, W: Tensor, G: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        apart = group["apart"] and G.is_complex()
        parts = torch.view_as_real(G) if apart else G
        if not state:
            state["square_avg"] = torch.zeros_like(parts.abs())
        mean = state["square_avg"].mul_(group["alpha"]).add_(parts.abs().square(), alpha=1 - group["alpha"])
        scaled = parts / (mean.sqrt() + group["eps"])
        return skew_gradient(W, torch.view_as_complex(scaled) if apart else scaled, group["metric"])


class RiemannianAdam(RiemannianOptimizer):
    """m = b1 m + (1 - b1) Omega(G);  v = b2 v + (1 - b2) |Omega(G)|_F^2, one number per matrix;
    W <- retract(W, -lr m^ / (sqrt(v^) + eps)) with Adam's bias corrections (Becigneul and Ganea 2019, as geoopt).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: b1 and b2.
        eps: Keeps the quotient finite.
        **geometry: ``metric``, ``retraction`` and ``drift_bound`` of `RiemannianOptimizer`.
    """

    flat_class = torch.optim.Adam

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **geometry: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps}, **geometry)

    def direction(self, W: Tensor, G: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        Omega = skew_gradient(W, G, group["metric"])
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(Omega)
            state["exp_avg_sq"] = torch.zeros_like(Omega.abs()[0, 0])
        first, second = group["betas"]
        state["step"] += 1
        step = int(state["step"])  # it is on the CPU
        mean = state["exp_avg"].mul_(first).add_(Omega, alpha=1 - first)
        square = state["exp_avg_sq"].mul_(second).add_(Omega.abs().square().sum(), alpha=1 - second)
        return mean / (1 - first**step) / ((square / (1 - second**step)).sqrt() + group["eps"])
