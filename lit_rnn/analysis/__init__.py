"""What matrices and step maps do: functions of NumPy or torch arrays, in double precision inside."""

from lit_rnn.analysis.dynamics import (
    GradientFlow,
    each_step_jacobian,
    gradient_against_lag,
    lyapunov_spectrum,
    lyapunov_spectrum_of,
    states_and_gradients,
    step_jacobians,
)
from lit_rnn.analysis.eigen import (
    IllConditionedWarning,
    eigenvalue_condition_numbers,
    eigenvalues,
    eigenvalues_trusted,
    eigenvector_condition,
    is_nilpotent,
    numerical_radius,
    numerical_range,
    rounding_of_radius,
    singular_values,
    spectral_norm,
    spectral_radius,
)
from lit_rnn.analysis.fixed import FixedPoints, fixed_points
from lit_rnn.analysis.memory import decoder_memory, fisher_memory_curve, total_fisher_memory
from lit_rnn.analysis.nonnormal import commutator_norm, feedforward_profile, henrici, hidden_chain_profile, schur
from lit_rnn.analysis.probe import Probe, linear_probe
from lit_rnn.analysis.pseudospectra import (
    Pseudospectrum,
    distance_to_instability,
    kreiss_lower_bound,
    pseudospectral_abscissa,
    pseudospectral_radius,
    pseudospectrum,
)
from lit_rnn.analysis.resolvent import smallest_singular_values
from lit_rnn.analysis.steps import StepMap, flat_state
from lit_rnn.analysis.transient import TransientGrowth, transient_growth

__all__ = [
    "FixedPoints",
    "GradientFlow",
    "IllConditionedWarning",
    "Probe",
    "Pseudospectrum",
    "StepMap",
    "TransientGrowth",
    "commutator_norm",
    "decoder_memory",
    "distance_to_instability",
    "each_step_jacobian",
    "eigenvalue_condition_numbers",
    "eigenvalues",
    "eigenvalues_trusted",
    "eigenvector_condition",
    "feedforward_profile",
    "fisher_memory_curve",
    "fixed_points",
    "flat_state",
    "gradient_against_lag",
    "henrici",
    "hidden_chain_profile",
    "is_nilpotent",
    "kreiss_lower_bound",
    "linear_probe",
    "lyapunov_spectrum",
    "lyapunov_spectrum_of",
    "numerical_radius",
    "numerical_range",
    "pseudospectral_abscissa",
    "pseudospectral_radius",
    "pseudospectrum",
    "rounding_of_radius",
    "schur",
    "singular_values",
    "smallest_singular_values",
    "spectral_norm",
    "spectral_radius",
    "states_and_gradients",
    "step_jacobians",
    "total_fisher_memory",
    "transient_growth",
]
