"""One optimizer object for named groups: the same update for all, or one of its own for some."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer, SparseAdam

from datamodules.errors import UserError, require
from lit_rnn.optim.closure import evaluated
from lit_rnn.optim.riemannian import RiemannianOptimizer
from lit_rnn.optim.spec import Factory, build, to_primitives

KEY = "model.init_args.optimizer"
GROUP_KEY = "model.init_args.group_optimizers"


class GroupedOptimizer(Optimizer):
    """One optimizer per parameter group, which look like one optimizer with all the groups and one state.

    The parts work on the very dicts in ``param_groups`` and ``state``: schedulers, hooks, checkpoints and gradient
    scalers see only this object.

    Args:
        parts: The optimizers, of one group each.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            self.state.update(part.state)  # Adagrad has one before the first step
        self.parts = list(parts)
        if any({"momentum", "betas"} & group.keys() for group in self.param_groups):
            self.defaults["momentum"] = 0.0  # where schedulers look whether there is one to cycle
        self._share()

    def _share(self) -> None:
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.__setstate__({"state": self.state, "param_groups": [group]})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Behind `load_state_dict`, a copy and unpickling, all of which make new dicts."""
        super().__setstate__(state)
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if hasattr(self, "parts"):
            raise UserError(
                f"{GROUP_KEY} is given, but a parameter group is added later, which would have no optimizer: "
                f"leave {GROUP_KEY} out."
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = evaluated(closure)
        for part in self.parts:
            part.step()
        return loss


def _build(factory: Factory, groups: list[dict[str, Any]], key: str) -> Optimizer:
    """Call the factory; check what only the optimizer itself can tell."""
    try:
        optimizer: Optimizer = build(factory, groups, Optimizer)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, UserError) as error:
        raise UserError(f"{key} cannot be built: {str(error).rstrip('.')}.") from error
    largest = torch.finfo(torch.float32).max
    for name, value in (item for group in optimizer.param_groups for item in group.items()):
        fits = not isinstance(value, float) or abs(value) <= largest
        require(fits, f"{key}.init_args.{name}", value, "a finite number")
    manifold = [group["name"] for group in optimizer.param_groups if group.get("manifold")]
    require(
        not manifold or isinstance(optimizer, RiemannianOptimizer),
        key,
        type(optimizer).__name__,
        "RiemannianSGD, RiemannianRMSprop or RiemannianAdam for the group "
        f"{', '.join(manifold)}, whose matrices stay unitary by such steps alone (or {GROUP_KEY} has one for it)",
    )
    require(not isinstance(optimizer, SparseAdam), key, "SparseAdam", "an optimizer of dense gradients, such as Adam")
    for group in optimizer.param_groups:
        _check_eps(group, f"{key}.init_args.eps")
    return optimizer


def _check_eps(group: dict[str, Any], key: str) -> None:
    """An eps that the parameters' precision takes for 0 keeps no quotient finite: the first step gives NaN."""
    eps = group.get("eps")
    if not isinstance(eps, float) or eps == 0:
        return
    for dtype in {parameter.dtype for parameter in group["params"]}:
        smallest = torch.finfo(dtype).smallest_normal
        lost = dtype.itemsize < 4 and torch.tensor(eps, dtype=dtype) == 0
        require(
            not lost, key, eps, f"at least {smallest:.2g}: in {dtype} it is 0 (or set trainer.precision: bf16-true)"
        )


def _of_group(group: dict[str, Any], factory: Factory, key: str) -> Optimizer:
    """A group's own optimizer: its rate is its own, and so is a weight decay that is not the class's default."""
    options = {name: value for name, value in group.items() if name != "lr_ratio"}
    optimizer = _build(factory, [options], key)
    require(not isinstance(optimizer, LBFGS), key, "LBFGS", "an optimizer that steps without evaluating the loss again")
    default = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    decay = (to_primitives(factory, key, Optimizer) or {}).get("init_args", {}).get("weight_decay")
    if decay is not None and default is not None and decay != default.default:
        optimizer.param_groups[0]["weight_decay"] = decay
    return optimizer


def build_optimizer(
    groups: list[dict[str, Any]], optimizer: Factory, group_optimizers: Mapping[str, Factory] | None = None
) -> Optimizer:
    """The optimizer of named groups, with ``lr_ratio`` of each group multiplied into its rate.

    Args:
        groups: {"name", "params", options}.
        optimizer: For all groups that are not named in ``group_optimizers``.
        group_optimizers: By name of the group. Such a group's ``lr_ratio`` does not apply, and its ``weight_decay``
            only where the optimizer's own is its class's default.

    Raises:
        UserError: for an option that an optimizer does not take, a name that no group has, or a group of unitary
            matrices without a Riemannian optimizer.
    """
    own = group_optimizers or {}
    names = [group["name"] for group in groups]
    for name in own:
        require(name in names, f"A name in {GROUP_KEY}", name, f"a group of this model: {', '.join(names)}")
    built = (
        GroupedOptimizer(
            [
                _of_group(group, own[group["name"]], f"{GROUP_KEY}.{group['name']}")
                if group["name"] in own
                else _build(optimizer, [group], KEY)
                for group in groups
            ]
        )
        if own
        else _build(optimizer, groups, KEY)
    )
    for group in built.param_groups:
        group["lr"] *= group.get("lr_ratio", 1.0)
    return built
