"""From torch modules to the arrays that oracles take, and back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.oracles.maps import Array, Numbers, random_rotation, random_unitary


def numbers(module: nn.Module) -> Numbers:
    """All parameters and buffers by their names."""
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def below(p: Numbers, prefix: str = "recurrent.") -> Numbers:
    """The numbers of a submodule, by their names there."""
    return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def fill(module: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """Every free number ours, and a base point that is a random rotation or unitary matrix."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(torch.tensor(scale * rng.normal(size=tuple(parameter.shape))))
        for key, buffer in module.named_buffers():
            if key.endswith("base"):
                n = len(buffer)
                buffer.copy_(torch.tensor(random_unitary(n, seed) if buffer.is_complex() else random_rotation(n, rng)))
    return module


def put(module: nn.Module, **values: Array) -> None:
    with torch.no_grad():
        for key, array in values.items():
            module.get_parameter(key).copy_(torch.tensor(array))


def value(module: nn.Module) -> Array:
    """What a map gives."""
    return module().detach().numpy()


def check_gradients(module: nn.Module) -> None:
    """Of what a map gives, by all its free numbers, against finite differences."""
    free = {key: v.detach().clone().requires_grad_() for key, v in module.named_parameters() if v.numel()}

    def function(*values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(free, values, strict=True)), ())

    assert torch.autograd.gradcheck(function, tuple(free.values()), atol=1e-7, rtol=1e-6)


def check_copies(module: nn.Module, other: nn.Module) -> None:
    """A copy of a map is independent of it, and its state dict makes ``other``, one like it, the same map."""
    before = value(module).copy()
    twin = copy.deepcopy(module)
    other.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(value(twin), before)
    np.testing.assert_array_equal(value(other), before)
    fill(twin, seed=8)
    np.testing.assert_array_equal(value(module), before)


def close(actual: Tensor | Array | float, expected: Any, atol: float = 1e-12) -> None:
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
