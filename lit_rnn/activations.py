"""Nonlinearities of the recurrent literature that torch lacks, and the table of plain ones by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import one_of

Nonlinearity = Literal["tanh", "relu", "leaky_relu", "elu", "identity"]
NonlinearityOrModReLU = Literal["modrelu", "tanh", "relu", "leaky_relu", "elu", "identity"]


def identity(z: Tensor) -> Tensor:
    """f(z) = z: a linear network."""
    return z


LEAK = 0.1


def leaky_relu(z: Tensor) -> Tensor:
    """f(z) = z for z > 0, else z / 10: the slope of oRNN (Mhammedi et al. 2017), ten times torch's default."""
    return nn.functional.leaky_relu(z, LEAK)


NONLINEARITIES: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": leaky_relu,
    "elu": nn.functional.elu,
    "identity": identity,
}


def modrelu(z: Tensor, bias: Tensor) -> Tensor:
    """Real modReLU, sign(z) relu(|z| + b): keeps the sign, shrinks or grows the modulus (Arjovsky et al. 2016).

    It is 0 at z = 0, with gradient 0 there; for b > 0 it jumps by b across zero on either side. The released code of
    EUNN (real) and GORU has |z| + eps inside the relu, 0.01 and 0.001: this with eps added to b.

    Args:
        z: (..., n).
        bias: b, (n,).
    """
    return torch.sign(z) * torch.relu(torch.abs(z) + bias)


class ModReLU(nn.Module):
    """`modrelu` with one trained bias per unit, started at U(-0.01, 0.01) as in the expRNN code."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size).uniform_(-0.01, 0.01))

    def forward(self, z: Tensor) -> Tensor:
        return modrelu(z, self.bias)

    def extra_repr(self) -> str:
        return f"{len(self.bias)}"


def nonlinearity(name: NonlinearityOrModReLU, size: int) -> Callable[[Tensor], Tensor]:
    """f of that name for ``size`` units: one of `NONLINEARITIES`, or a new `ModReLU`.

    Raises:
        UserError: for an unknown name.
    """
    known = get_args(NonlinearityOrModReLU)
    one_of(name, "model.init_args.nonlinearity", known)
    return ModReLU(size) if name == "modrelu" else NONLINEARITIES[name]


COMPLEX_EPS = 1e-5


def complex_modrelu(z: Tensor, bias: Tensor, eps: float = COMPLEX_EPS) -> Tensor:
    """Complex modReLU, z relu(r + b) / r with r = sqrt(|z|^2 + eps): keeps the phase (Arjovsky et al. 2016).

    The eps under the root keeps value and gradient finite at z = 0. At b = 0 it is the identity, as the released codes'
    nearly are; they differ in r and the divisor:

    - Wisdom, scuRNN: this r, but z relu(r + b) / (r + 1e-5): smaller by 0.3 % at z = 0, by 1e-5 / |z| far from it.
    - Arjovsky: r = |z|, the same divisor; its gradient at z = 0 is not a number.
    - EUNN: r = |z| + 0.01 throughout: b counts half as much at |z| = 0.01.

    Args:
        z: (..., n), complex.
        bias: b, (n,), real.
        eps: Added to the squared modulus.
    """
    modulus = torch.sqrt(z.real.square() + z.imag.square() + eps)
    return z * (torch.relu(modulus + bias) / modulus)


class ComplexModReLU(ModReLU):
    """`complex_modrelu` with one trained bias per unit, started at U(-0.01, 0.01)."""

    def forward(self, z: Tensor) -> Tensor:
        return complex_modrelu(z, self.bias)
