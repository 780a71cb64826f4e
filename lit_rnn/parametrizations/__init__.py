"""Modules that turn free parameters into a constrained matrix: calling one gives W."""

from lit_rnn.parametrizations.cayley import Cayley, ScaledCayley, UnitaryScaledCayley
from lit_rnn.parametrizations.exponential import Exponential
from lit_rnn.parametrizations.householder import Householder
from lit_rnn.parametrizations.orthogonal import OrthogonalMap, drift
from lit_rnn.parametrizations.restricted import FreeUnitary, RestrictedUnitary
from lit_rnn.parametrizations.rotations import Rotations
from lit_rnn.parametrizations.schur import SchurForm
from lit_rnn.parametrizations.skew import SkewMap

__all__ = [
    "Cayley",
    "Exponential",
    "FreeUnitary",
    "Householder",
    "OrthogonalMap",
    "RestrictedUnitary",
    "Rotations",
    "ScaledCayley",
    "SchurForm",
    "SkewMap",
    "UnitaryScaledCayley",
    "drift",
]
