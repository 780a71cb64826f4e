"""The numbers of `analyze`: each part takes a matrix, or a layer on data, and gives its findings by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import Batch, Parts
from lit_rnn import analysis
from lit_rnn.analysis.arrays import Complex, Real
from lit_rnn.analysis.pseudospectra import Box
from lit_rnn.commands.analyze.settings import Settings
from lit_rnn.commands.analyze.subject import Matrix
from lit_rnn.models import SequenceModel
from lit_rnn.models.probes import gradient_flows, read_by_cells

Finding = dict[str, Any]  # numbers, arrays and sentences by name

EPS = (1e-4, 1e-3, 1e-2, 1e-1)
NOISE = 0.01  # variance in every unit and step, where a decoder reads
_JACOBIANS = 16  # along a trajectory, of which singular values are taken
_SAME = 1e-12  # times the largest entry: two Jacobians in float64 are the same matrix
_WARMUP = 0.1  # of the trajectory, before Lyapunov exponents are counted


# ---- of a matrix


def spectrum(matrix: Matrix, settings: Settings, box: Box) -> Finding:
    """Eigenvalues, singular values, and what one number says of them."""
    W = matrix.W
    values = analysis.eigenvalues(W)
    return {
        "eigenvalues": values,
        "singular_values": analysis.singular_values(W),
        "spectral_radius": float(np.abs(values).max()),
        "spectral_abscissa": float(values.real.max()),
        "spectral_norm": analysis.spectral_norm(W),
        "numerical_radius": analysis.numerical_radius(W),
        "eigenvector_condition": analysis.eigenvector_condition(W, matrix.precision),
    }


def nonnormality(matrix: Matrix, settings: Settings, box: Box) -> Finding:
    """Henrici's departure, and where the feedforward part lies."""
    W = matrix.W
    finding: Finding = {
        "henrici": analysis.henrici(W),
        "henrici_normalized": analysis.henrici(W, normalized=True),
        "commutator_normalized": analysis.commutator_norm(W),
        "schur": np.abs(analysis.schur(W)[0]),
        "feedforward": analysis.feedforward_profile(W),
    }
    if matrix.source is not None:
        offsets, weights = analysis.hidden_chain_profile(W, matrix.source)
        finding |= {"chain_offsets": offsets, "chain": np.abs(weights) if np.iscomplexobj(weights) else weights}
    return finding


def pseudospectrum(matrix: Matrix, settings: Settings, box: Box) -> Finding:
    """sigma_min(z I - W) on a grid, and how far the pseudospectra reach."""
    W = matrix.W
    x, y, sigma = analysis.pseudospectrum(W, settings.points, box)
    return {
        "x": x,
        "y": y,
        "sigma": sigma,
        "eigenvalues": analysis.eigenvalues(W),
        "numerical_range": analysis.numerical_range(W),
        **{f"pseudospectral_radius_{eps:g}": analysis.pseudospectral_radius(W, eps) for eps in EPS},
        **{f"pseudospectral_abscissa_{eps:g}": analysis.pseudospectral_abscissa(W, eps) for eps in EPS},
        "distance_to_instability": analysis.distance_to_instability(W),
    }


def transient(matrix: Matrix, settings: Settings, box: Box) -> Finding:
    """|W^k| with its bounds."""
    growth = analysis.transient_growth(matrix.W, settings.steps, matrix.precision)
    peak = int(growth.norms.argmax())
    return {
        "powers": growth.norms,
        "bound_spectral": growth.spectral,
        "bound_numerical": growth.numerical,
        "bound_eigenvector": growth.eigenvector,
        "bound_level_curve": growth.level_curve,
        "kreiss_lower_bound": growth.kreiss,
        "largest_power": float(growth.norms[peak]),
        "largest_power_at": peak,
    }


def memory(matrix: Matrix, settings: Settings, box: Box) -> Finding:
    """Fisher memory and a linear decoder's, of the linear network that W and its source column make."""
    W, v = matrix.W, matrix.source
    if v is None:
        return {"left_out": ["Memory is left out where no block of the input map feeds the matrix"]}
    radius = 0.0 if analysis.is_nilpotent(W) else analysis.spectral_radius(W)
    finding: Finding = {"source": matrix.source_name}
    if radius > 1 + analysis.rounding_of_radius(len(W), matrix.precision):
        reason = (
            "Memory is left out where the spectral radius is above 1: noise grows without end, "
            "and a decoder reads best what entered last before its horizon"
        )
        return finding | {"left_out": [reason]}
    finding["decoder"] = analysis.decoder_memory(*_as_real(W, v), lags=range(settings.steps), noise=NOISE)
    if radius >= 1:
        reason = (
            "Fisher memory is left out where the spectral radius is not below 1, and noise accumulates without bound"
        )
        return finding | {"left_out": [reason]}
    return finding | {
        "fisher": analysis.fisher_memory_curve(W, v, settings.steps),
        "fisher_total": analysis.total_fisher_memory(W, v),
    }


def _as_real(W: NDArray[Any], v: Real | Complex) -> tuple[Real, Real]:
    """The same network on [Re h | Im h]."""
    if np.isrealobj(W) and np.isrealobj(v):
        return W, np.asarray(v.real)
    return np.block([[W.real, -W.imag], [W.imag, W.real]]), np.concatenate((v.real, v.imag))


MATRIX_PARTS: dict[str, Callable[[Matrix, Settings, Box], Finding]] = {
    "spectrum": spectrum,
    "pseudospectrum": pseudospectrum,
    "nonnormality": nonnormality,
    "transient": transient,
    "memory": memory,
}


# ---- of a model on data


def dynamics(model: SequenceModel, batch: Batch) -> list[Finding]:
    """Of each layer: Lyapunov exponents, singular values of its step Jacobian, their mean, gradients against lag."""
    torch.set_flush_denormal(True)  # as in training
    flows = gradient_flows(model, batch)
    torch.set_flush_denormal(False)
    lengths, findings = Parts.of(batch).lengths, []
    for cell, flow, read in zip(model.cell_list(), flows, read_by_cells(model, batch), strict=True):
        common = len(read) if lengths is None else int(lengths.min())  # as far as all sequences go
        finding = {
            **flow._asdict(),
            "gradient_kept": float(flow.gradient[common - 1] / flow.gradient[0]) if flow.gradient[0] else math.nan,
            "zero_gradients": float(flow.zero_fraction.mean()),
            "saturated": float(flow.saturation.mean()),
        }
        with torch.no_grad():
            step = analysis.StepMap(cell)
            finding["affine"] = step.is_affine(step.drive(read[:1])[0])
        jacobians = analysis.each_step_jacobian(cell, read[:common])
        findings.append(finding | _along_the_trajectory(jacobians, common, finding["affine"]))
    return findings


def _along_the_trajectory(jacobians: Iterator[Tensor], steps: int, affine: bool) -> Finding:
    """What the Jacobians of all steps show, each (B, N, N) and held one at a time.

    Where one matrix is the Jacobian of every step, the exponents are the logarithms of its eigenvalues, no mean over
    so many steps: with a period longer than the sequences a stable oscillator came out as chaotic.
    """
    total: Real = np.zeros(())
    singular: list[Real] = []
    first: Real | None = None  # as long as it is the Jacobian of every step
    looked_at = set(np.linspace(0, steps - 1, min(_JACOBIANS, steps)).round().astype(int).tolist())

    def watched() -> Iterator[Real]:
        nonlocal total, first
        for t, tensor in enumerate(jacobians):
            J = tensor.numpy()
            if t == 0 and affine:
                first = J[0].copy()
            if first is not None and np.abs(J - first).max() > _SAME * np.abs(first).max():
                first = None
            total = total + J.mean(0)
            if t in looked_at:
                singular.append(np.linalg.svd(J, compute_uv=False))
            yield J

    exponents = analysis.lyapunov_spectrum(watched(), warmup=int(_WARMUP * steps))
    if first is not None:
        with np.errstate(divide="ignore"):  # log 0
            exponents[:] = -np.sort(-np.log(np.abs(analysis.eigenvalues(first))))
    return {
        "lyapunov": exponents,  # (sequences, N)
        "largest_lyapunov": float(exponents[:, 0].mean()),
        "jacobian_singular_values": np.concatenate(singular),
        "mean_jacobian": total / steps,
    }
