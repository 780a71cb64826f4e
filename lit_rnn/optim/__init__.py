"""Optimizers as checkpoints keep them, parameter groups with names, and optimizers on the orthogonal group."""

from lit_rnn.optim.groups import named_groups
from lit_rnn.optim.riemannian import (
    RiemannianAdam,
    RiemannianOptimizer,
    RiemannianRMSprop,
    RiemannianSGD,
    retract,
    riemannian_gradient,
)
from lit_rnn.optim.spec import Factory, build, to_primitives

__all__ = [
    "Factory",
    "RiemannianAdam",
    "RiemannianOptimizer",
    "RiemannianRMSprop",
    "RiemannianSGD",
    "build",
    "named_groups",
    "retract",
    "riemannian_gradient",
    "to_primitives",
]
