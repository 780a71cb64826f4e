"""Optimizers as checkpoints keep them, by named parameter groups, on the orthogonal group, and as other libraries."""

from lit_rnn.optim.grouped import GroupedOptimizer, build_optimizer
from lit_rnn.optim.groups import named_groups, split_off, with_other
from lit_rnn.optim.riemannian import (
    RiemannianAdam,
    RiemannianOptimizer,
    RiemannianRMSprop,
    RiemannianSGD,
    retract,
    riemannian_gradient,
)
from lit_rnn.optim.schedule import Interval, build_scheduler, interval_of
from lit_rnn.optim.spec import Factory, build, options_of, to_primitives
from lit_rnn.optim.tensorflow import AdamTF, RMSpropTF

__all__ = [
    "AdamTF",
    "Factory",
    "GroupedOptimizer",
    "Interval",
    "RMSpropTF",
    "RiemannianAdam",
    "RiemannianOptimizer",
    "RiemannianRMSprop",
    "RiemannianSGD",
    "build",
    "build_optimizer",
    "build_scheduler",
    "interval_of",
    "named_groups",
    "options_of",
    "retract",
    "riemannian_gradient",
    "split_off",
    "to_primitives",
    "with_other",
]
