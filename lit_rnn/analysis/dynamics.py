"""What a recurrence does along a driven trajectory: step Jacobians, Lyapunov exponents, gradients against lag."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from datamodules.errors import require, whole
from lit_rnn.analysis.arrays import Real, array, each_near_one
from lit_rnn.analysis.steps import JACOBIAN_ENTRIES, StepMap, check_driven, flat_state
from lit_rnn.cells import Cell, State
from lit_rnn.cells.base import check_step, start_of
from lit_rnn.dtypes import as_inputs, as_precise

Step = Callable[[Tensor, Tensor], Tensor]

_WALL = 0.01  # within this of a bound a unit counts as saturated


# ---- Lyapunov exponents


def lyapunov_spectrum(jacobians: Iterable[ArrayLike | Tensor], warmup: int = 0) -> Real:
    """Exponents lambda_i = mean over t of log |R_ii|, in natural log per step, descending, (n,).

    Q_t R_t = J_t Q_{t-1} with Q_0 = I, every step, in float64. Their sum is the mean of log |det J_t|, for every T. The
    mean over T steps has a bias of O(1 / T), less if Q has turned into place first. A singular J_t gives -inf, or where
    rounding leaves something of a zero its logarithm: -36 or so in that step.
    lambda > 0: small differences grow, by e^lambda a step.

    Args:
        jacobians: J_1, J_2, ..., an array or an iterator of (n, n); of (B, n, n) for B trajectories, which gives
            (B, n).
        warmup: How many of the first J_t turn Q without being counted.

    Raises:
        UserError: for a J_t that is not square or not finite, or of another shape than the first; where no step is left
            after the warm-up.

    Source: Benettin et al. 1980; Engelken, Wolf and Abbott 2023; Vogt et al. 2022. Cost O(n^3) a step.
    """
    warmup = whole(warmup, "warmup")
    Q, total, steps = np.zeros(0), np.zeros(0), 0
    for given in jacobians:
        J = array(given, "jacobians")
        ok = J.ndim >= 2 and J.size > 0 and J.shape[-1] == J.shape[-2] and (steps == 0 or J.shape == Q.shape)
        require(
            ok,
            "jacobians",
            f"one of shape {J.shape}",
            "square matrices of one shape, (n, n) or (B, n, n), B and n at least 1",
        )
        J, exponents = each_near_one(J)
        Q, R = np.linalg.qr(J @ Q if steps else J)
        steps += 1
        with np.errstate(divide="ignore"):  # log 0
            logarithms = np.log(np.abs(np.diagonal(R, axis1=-2, axis2=-1))) + exponents[..., None] * math.log(2)
        total = total + logarithms if steps > warmup + 1 else logarithms
    require(steps > warmup, "jacobians", f"{steps} matrices with a warm-up of {warmup}", "more than the warm-up")
    return -np.sort(-total / (steps - warmup), axis=-1)


def lyapunov_spectrum_of(step: Step, state: ArrayLike | Tensor, inputs: ArrayLike | Tensor, warmup: int = 0) -> Real:
    """`lyapunov_spectrum` of any step map, state_t = step(u_t, state_{t-1}), driven by ``inputs``.

    Args:
        step: From u_t and the flat joint state (n,) to the next one, of torch operations that `torch.func.vmap` takes.
        state: The state before the first step, (n,), real.
        inputs: u_1 .. u_T along the first axis.
        warmup: How many first steps move the state and turn Q without being counted.
    """
    h, u = torch.from_numpy(array(state, "state")), torch.from_numpy(array(inputs, "inputs"))
    require(h.ndim == 1 and len(h) > 0, "state", f"an array of shape {tuple(h.shape)}", "a flat vector (n,)")
    require(u.ndim >= 1 and len(u) > 0, "inputs", f"an array of shape {tuple(u.shape)}", "steps along its first axis")
    return lyapunov_spectrum(_jacobians_of(step, h, u), warmup)


def _jacobians_of(step: Step, h: Tensor, inputs: Tensor) -> Iterator[Tensor]:
    jacobian = torch.func.vmap(torch.func.jacrev(step, argnums=1))
    for part in inputs.split(max(1, min(1024, JACOBIAN_ENTRIES // len(h) ** 2))):
        states = []
        for u in part:
            states.append(h)
            h = step(u, h)
        yield from jacobian(part, torch.stack(states))


# ---- Jacobians of cells


def step_jacobians(cell: Cell, x: Tensor, state: State | None = None) -> Tensor:
    """J[t, b] = d state_t / d state_{t-1} along the trajectory that x drives, (T, B, N, N) in float64.

    Of the joint state: (h, c) of an LSTM, (h, m) of an NRU; N is the sum of its widths, those of complex tensors twice
    ([Re | Im]). The cell is copied, not changed.

    Args:
        cell: Any cell.
        x: (T, B, I).
        state: The state before the first step; None takes the cell's own.

    Raises:
        UserError: for an x that is not (T, B, I), and a state that is not as the cell's own for B sequences.

    Cost N steps of the cell, forward and backward, for each of T B; 8 T B N^2 bytes: `each_step_jacobian` holds one
    time step at a time.
    """
    return torch.stack(list(each_step_jacobian(cell, x, state)))


def each_step_jacobian(cell: Cell, x: Tensor, state: State | None = None) -> Iterator[Tensor]:
    """The Jacobians of `step_jacobians` one after the other, each (B, N, N), for T too long to hold them all."""
    step = StepMap(cell)
    drive = step.drive(x)
    flat = step.start(x.shape[1]) if state is None else step.flat(state, x.shape[1])
    for u in drive:
        flat, jacobian = step.with_jacobian(u, flat)
        yield jacobian


# ---- gradients through time


class GradientFlow(NamedTuple):
    """Of one layer's joint state s_{T-k}, by lag k = 0 .. T - 1 from the last step; arrays (T,)."""

    gradient: Real  # |dL / ds_{T-k}|, the total derivative through all later steps; mean over sequences
    zero_fraction: Real  # share of that gradient's entries that are exactly zero
    saturation: Real  # share of units at a bound of their nonlinearity, see `gradient_against_lag`
    state_norm: Real  # |s_{T-k}|; mean over sequences


class Wiring(Protocol):
    """What stands between the cells of a stack."""

    def read_by(self, layer: int, y: Tensor) -> Tensor:
        """What a cell reads, of what the layer below gave."""

    def joined(self, layer: int, below: Tensor, y: Tensor, lengths: Tensor | None) -> Tensor:
        """What a layer gives, of what the layer below and its own cell gave."""


def states_and_gradients(
    cells: Cell | Sequence[Cell],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    lengths: Tensor | None = None,
    wiring: Wiring | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """For each cell of the stack the joint states s_1 .. s_T and dL/ds_t, both (T, B, N), in the cells' own precision.

    The derivative by each part of s_t with the others held: an LSTM's c_t acts on what follows, not through the h_t of
    its own step. So dL/ds_{t-1} = J_t^T dL/ds_t where the loss sees only the last output.

    Args:
        cells: A cell, or cells on top of each other.
        x: (T, B, I), what the first one reads.
        loss: From the last one's outputs (T, B, output_size) to the loss, summed over sequences.
        lengths: (B,), where sequences are shorter than T: behind its end a state stands still, and outputs are zero.
        wiring: What stands between the cells; None: each reads the outputs of the one below.

    Raises:
        UserError: for an x that is not (T, B, I).
    """
    cells = [cells] if isinstance(cells, Cell) else list(cells)
    check_driven(x, cells[0].input_size if wiring is None else x.shape[-1])
    real = None if lengths is None else (torch.arange(len(x), device=x.device)[:, None] < lengths)[..., None]
    with torch.inference_mode(False), torch.enable_grad():
        y = x.clone() if real is None else x.where(real, 0)  # a batch made in inference mode cannot enter a graph
        layers, graph = list[list[State]](), list[Tensor]()
        for layer, cell in enumerate(cells):
            below = y
            y = below if wiring is None else wiring.read_by(layer, below)
            w = cell.weights()
            state, states, outputs = as_precise(start_of(cell, y.shape[1]), w), list[State](), list[Tensor]()
            for t, u in enumerate(as_precise((cell.drive(y, w),), w)[0]):
                stepped = cell.step(u, state, w)
                if not states:  # they are all alike
                    check_step(cell, stepped, state)
                out, reached = stepped
                own = reached if len(reached) == 1 else tuple(part.clone() for part in reached)
                # what no parameter reaches, such as a clock, has a gradient too
                own = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in own)
                out = next((mine for mine, part in zip(own, reached, strict=True) if part is out), out)
                outputs.append(out if real is None else out.where(real[t], 0))
                graph.extend(own)
                if real is not None:
                    own = tuple(new.where(real[t], old) for new, old in zip(own, state, strict=True))
                state = own
                states.append(state)
            y = as_inputs(torch.stack(outputs), y)
            y = y if wiring is None else wiring.joined(layer, below, y, lengths)
            layers.append(states)
        gradients = iter(torch.autograd.grad(loss(y), graph, materialize_grads=True))
    return [
        (
            torch.stack([flat_state(state).detach() for state in states]),
            torch.stack([flat_state(tuple(next(gradients) for _ in state)).detach() for state in states]),
        )
        for states in layers
    ]


def gradient_against_lag(
    cells: Cell | Sequence[Cell],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    lengths: Tensor | None = None,
    wiring: Wiring | None = None,
) -> list[GradientFlow]:
    """How the loss's gradient fares on its way back through time, one `GradientFlow` per cell.

    In the cells' own precision, so that a gradient that vanishes in training vanishes here: where sign() of it hides a
    tiny scale, the share of exact zeros does not hide.

    Saturation is read off the first state tensor, as a cell need not show its nonlinearity: a unit counts that is
    exactly 0 (relu and modReLU below their threshold) or within 0.01 of -1 or 1, if no unit goes beyond that bound
    anywhere (tanh, sigmoid and their mixtures; elu at -1). Complex units count at 0 only.

    Args:
        cells: A cell, or cells on top of each other.
        x: (T, B, I), what the first one reads.
        loss: From the last one's outputs (T, B, output_size) to the loss, summed over sequences.
        lengths: (B,), where sequences are shorter than T: a lag counts back from each sequence's own last step, and
            means are over those that reach so far back.
        wiring: As in `states_and_gradients`.
    """
    cells = [cells] if isinstance(cells, Cell) else list(cells)
    return [
        GradientFlow(
            gradient=_by_lag(_norm(gradients), lengths),
            zero_fraction=_by_lag((gradients == 0).double().mean(2), lengths),
            saturation=_by_lag(_saturated(cell, states).double().mean(2), lengths),
            state_norm=_by_lag(_norm(states), lengths),
        )
        for cell, (states, gradients) in zip(cells, states_and_gradients(cells, x, loss, lengths, wiring), strict=True)
    ]


def _norm(values: Tensor) -> Tensor:
    """Of (T, B, N), (T, B); relative to the largest entry, whose square may vanish where it does not."""
    values = values.double()
    largest = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return (values / largest).norm(dim=-1) * largest[..., 0]


def _by_lag(values: Tensor, lengths: Tensor | None) -> Real:
    """Means over sequences of (T, B), from the last step back."""
    if lengths is None:
        return values.mean(1).flip(0).cpu().numpy()
    steps = lengths - 1 - torch.arange(int(lengths.max()), device=values.device)[:, None]
    found = values.gather(0, steps.clamp(min=0)).where(steps >= 0, 0)
    return (found.sum(1) / (steps >= 0).sum(1)).cpu().numpy()


def _saturated(cell: Cell, states: Tensor) -> Tensor:
    first = cell.initial_state(1)[0]
    h = states[..., : first.shape[-1]]
    if first.is_complex():
        return (h == 0) & (states[..., first.shape[-1] : 2 * first.shape[-1]] == 0)
    below, above = h.min() >= -1, h.max() <= 1
    return (h == 0) | (below & (h < _WALL - 1)) | (above & (h > 1 - _WALL))
