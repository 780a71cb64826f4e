"""Modules that turn free parameters into a constrained matrix: calling one gives W."""

from lit_rnn.parametrizations.exponential import Exponential
from lit_rnn.parametrizations.orthogonal import OrthogonalMap, drift

__all__ = ["Exponential", "OrthogonalMap", "drift"]
