"""From torch modules to the arrays that oracles take, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.oracles.maps import Array, Numbers, random_rotation, random_unitary


def numbers(module: nn.Module, below: str = "") -> Numbers:
    """All parameters and buffers, or those whose names begin with ``below``, by the rest of their names."""
    state = module.state_dict().items()
    return {name.removeprefix(below): v.detach().numpy().copy() for name, v in state if name.startswith(below)}


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


def close(actual: Tensor | Array | float, expected: Any, atol: float = 1e-12) -> None:
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
