"""Optimizers as checkpoints keep them, and parameter groups with names."""

from lit_rnn.optim.groups import named_groups
from lit_rnn.optim.spec import Factory, build, to_primitives

__all__ = ["Factory", "build", "named_groups", "to_primitives"]
