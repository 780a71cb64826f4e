"""Modules that turn free parameters into a constrained matrix: calling one gives W."""

from lit_rnn.parametrizations.cayley import Cayley, ScaledCayley, UnitaryScaledCayley
from lit_rnn.parametrizations.exponential import Exponential
from lit_rnn.parametrizations.householder import Householder
from lit_rnn.parametrizations.orthogonal import OrthogonalMap, drift
from lit_rnn.parametrizations.restricted import FreeUnitary, RestrictedUnitary
from lit_rnn.parametrizations.rotations import Rotations
from lit_rnn.parametrizations.schur import SchurForm
from lit_rnn.parametrizations.shifted import Antisymmetric, Shifted
from lit_rnn.parametrizations.skew import SkewMap
from lit_rnn.parametrizations.spectrum import (
    Constraint,
    SpectralNormBound,
    SpectralRadiusBound,
    constrain_recurrent,
    spectral_norm_penalty,
    spectral_radius_with_gradient,
)

__all__ = [
    "Antisymmetric",
    "Cayley",
    "Constraint",
    "Exponential",
    "FreeUnitary",
    "Householder",
    "OrthogonalMap",
    "RestrictedUnitary",
    "Rotations",
    "ScaledCayley",
    "SchurForm",
    "Shifted",
    "SkewMap",
    "SpectralNormBound",
    "SpectralRadiusBound",
    "UnitaryScaledCayley",
    "constrain_recurrent",
    "drift",
    "spectral_norm_penalty",
    "spectral_radius_with_gradient",
]
