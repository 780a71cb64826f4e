"""What matrices and step maps do: functions of NumPy or torch arrays, in double precision inside."""

from lit_rnn.analysis.eigen import (
    IllConditionedWarning,
    eigenvalue_condition_numbers,
    eigenvalues,
    eigenvalues_trusted,
    eigenvector_condition,
    is_nilpotent,
    numerical_radius,
    numerical_range,
    singular_values,
    spectral_norm,
    spectral_radius,
)
from lit_rnn.analysis.memory import decoder_memory, fisher_memory_curve, total_fisher_memory
from lit_rnn.analysis.nonnormal import commutator_norm, feedforward_profile, henrici, hidden_chain_profile, schur

__all__ = [
    "IllConditionedWarning",
    "commutator_norm",
    "decoder_memory",
    "eigenvalue_condition_numbers",
    "eigenvalues",
    "eigenvalues_trusted",
    "eigenvector_condition",
    "feedforward_profile",
    "fisher_memory_curve",
    "henrici",
    "hidden_chain_profile",
    "is_nilpotent",
    "numerical_radius",
    "numerical_range",
    "schur",
    "singular_values",
    "spectral_norm",
    "spectral_radius",
    "total_fisher_memory",
]
