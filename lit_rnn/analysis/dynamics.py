"""What a recurrence does along a driven trajectory: step Jacobians, Lyapunov exponents, gradients against lag."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import require
from lit_rnn.analysis.arrays import Real, array
from lit_rnn.cells import Cell, State

Step = Callable[[Tensor, Tensor], Tensor]


# ---- Lyapunov exponents


def lyapunov_spectrum(jacobians: Iterable[ArrayLike | Tensor], warmup: int = 0) -> Real:
    """Exponents lambda_i = mean over t of log R_ii in natural log per step, descending, (n,).

    Q_t R_t = J_t Q_{t-1} with R_ii > 0 and Q_0 = I, at every step, in float64. They sum to the mean of log |det J_t|.
    The bias of an average over T steps is O(1 / T), less once Q has turned during the warm-up; a singular J_t gives
    -inf.

    Args:
        jacobians: J_1, J_2, ... each (n, n), or (B, n, n) for B trajectories, which gives (B, n); an array, a sequence
            or an iterator.
        warmup: How many of the first J_t turn Q without being counted.

    Raises:
        UserError: for a J_t that is not square or not finite; where no step is left after the warm-up.

    Source: Benettin et al. 1980; Engelken, Wolf and Abbott 2023. Cost O(n^3) a step.
    """
    require(warmup >= 0, "warmup", warmup, "a whole number of at least 0")
    Q: NDArray[Any] | None = None
    total, steps = np.zeros(0), 0
    for steps, given in enumerate(jacobians, start=1):
        J = array(given, "jacobians")
        ok = J.ndim >= 2 and J.shape[-1] == J.shape[-2] > 0 and (Q is None or J.shape == Q.shape)
        require(ok, "jacobians", f"one of shape {J.shape}", "square matrices (n, n) of one shape")
        if Q is None:
            Q, total = np.broadcast_to(np.eye(J.shape[-1]), J.shape), np.zeros(J.shape[:-1])
        Q, R = np.linalg.qr(J @ Q)
        diagonal = np.diagonal(R, axis1=-2, axis2=-1)
        sign = np.where(diagonal < 0, -1.0, 1.0)
        Q = Q * sign[..., None, :]
        if steps > warmup:
            with np.errstate(divide="ignore"):
                total = total + np.log(np.abs(diagonal))
    require(steps > warmup, "jacobians", f"{steps} of them with a warm-up of {warmup}", "more than the warm-up")
    return -np.sort(-total / (steps - warmup), axis=-1)


def lyapunov_spectrum_of(step: Step, state: ArrayLike | Tensor, inputs: ArrayLike | Tensor, warmup: int = 0) -> Real:
    """`lyapunov_spectrum` of state_t = step(u_t, state_{t-1}) along the trajectory driven by ``inputs``.

    Args:
        step: From u_t and the flat joint state (n,) to the next; of torch operations that `torch.func.vmap` can take.
        state: The state before the first step, (n,), real.
        inputs: u_1 .. u_T along the first axis.
        warmup: Steps at the start that move the state and turn Q without being counted.
    """
    h = torch.from_numpy(array(state, "state"))
    u = torch.from_numpy(array(inputs, "inputs"))
    require(h.ndim == 1 and len(h) > 0, "state", f"an array of shape {tuple(h.shape)}", "a flat vector (n,)")
    require(u.ndim >= 1 and len(u) > warmup, "inputs", f"{len(u)} steps", f"more than the warm-up of {warmup}")
    return lyapunov_spectrum(_jacobians_of(step, h, u), warmup)


_AT_ONCE = 256  # steps


def _jacobians_of(step: Step, h: Tensor, inputs: Tensor) -> Iterator[Tensor]:
    jacobian = torch.func.vmap(torch.func.jacrev(step, argnums=1))
    for part in inputs.split(_AT_ONCE):
        states = []
        for u in part:
            states.append(h)
            h = step(u, h)
        yield from jacobian(part, torch.stack(states))


# ---- Jacobians of cells


def _double(cell: Cell) -> Cell:
    """A copy in double precision, complex parameters too."""
    cell = copy.deepcopy(cell).eval()
    for tensor in (*cell.parameters(), *cell.buffers()):
        if tensor.is_complex() or tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return cell


def flat_state(state: State) -> Tensor:
    """The joint state as one real vector per sequence, (B, N): its tensors side by side, [Re | Im] of complex ones."""
    return torch.cat([part for tensor in state for part in _real_parts(tensor)], dim=-1)


def _real_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.real, tensor.imag) if tensor.is_complex() else (tensor,)


def _unflat(flat: Tensor, like: State) -> State:
    sizes = [part.shape[-1] for tensor in like for part in _real_parts(tensor)]
    parts = iter(flat.split(sizes, dim=-1))
    return tuple(torch.complex(next(parts), next(parts)) if tensor.is_complex() else next(parts) for tensor in like)


def each_step_jacobian(cell: Cell, x: Tensor, state: State | None = None) -> Iterator[Tensor]:
    """The matrices of `step_jacobians` one time step at a time, (B, N, N): for T too long to hold them all."""
    require(x.ndim == 3, "x", f"a tensor of shape {tuple(x.shape)}", "time first, (T, B, I)")
    with torch.inference_mode(False), torch.no_grad():
        cell = _double(cell)
        x = x.detach().clone().to(torch.float64)
        w = cell.weights()
        drive = cell.drive(x, w)
        like = cell.initial_state(x.shape[1]) if state is None else _double_state(state)
        flat = flat_state(like)
    size = flat.shape[-1]
    directions = torch.eye(size, dtype=torch.float64)
    for u in drive:
        with torch.inference_mode(False), torch.enable_grad():
            # a copy of each sequence for each row of its Jacobian: rows of the batch do not see each other
            before = flat.repeat_interleave(size, 0).requires_grad_()
            after = flat_state(cell.step(u.repeat_interleave(size, 0), _unflat(before, like), w)[1])
            (rows,) = torch.autograd.grad(after, before, directions.repeat(len(u), 1))
        flat = after.detach()[::size]
        yield rows.reshape(len(u), size, size)


def _double_state(state: State) -> State:
    return tuple(t.detach().clone().to(torch.complex128 if t.is_complex() else torch.float64) for t in state)


def step_jacobians(cell: Cell, x: Tensor, state: State | None = None) -> Tensor:
    """J[t, b] = d state_t / d state_{t-1} along the trajectory that x drives, (T, B, N, N) in float64.

    The joint state: (h, c) of an LSTM, (h, m) of an NRU; N is the sum of the state's widths, complex ones counted twice
    ([Re | Im]). The cell is copied, not changed.

    Args:
        cell: Any cell.
        x: (T, B, I).
        state: The state before the first step; None takes the cell's own.

    Cost N steps of the cell for each of T B; 8 T B N^2 bytes (`each_step_jacobian` holds one t at a time).
    """
    return torch.stack(list(each_step_jacobian(cell, x, state)))


# ---- gradients through time


class GradientFlow(NamedTuple):
    """Of one layer, arrays (T,) by lag k = 0 .. T - 1: at the state s_{T-k} of the step k before the last."""

    gradient: Real  # |dL / ds_{T-k}|, the total derivative through all later steps; mean over sequences
    zero_fraction: Real  # share of that gradient's entries that are exactly zero
    saturation: Real  # share of units that hardly answer to their input
    state_norm: Real  # |s_{T-k}|; mean over sequences


def states_and_gradients(
    cells: Cell | Sequence[Cell], x: Tensor, loss: Callable[[Tensor], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each cell of the stack the joint states s_1 .. s_T and dL/ds_t, both (T, B, N), in the cells' own precision.

    Args:
        cells: A cell, or cells on top of each other.
        x: (T, B, I), what the first one reads.
        loss: From the last one's outputs (T, B, output_size) to the loss, summed over sequences.
    """
    cells = [cells] if isinstance(cells, Cell) else list(cells)
    with torch.inference_mode(False), torch.enable_grad():
        y, layers = x.clone(), list[list[State]]()  # a batch made in inference mode cannot enter a graph
        for cell in cells:
            w = cell.weights()
            state, states, outputs = cell.initial_state(y.shape[1]), list[State](), list[Tensor]()
            for u in cell.drive(y, w):
                out, state = cell.step(u, state, w)
                outputs.append(out)
                states.append(state)
            y = torch.stack(outputs)
            layers.append(states)
        flat = [part for states in layers for state in states for part in state]
        gradients = iter(torch.autograd.grad(loss(y), flat, allow_unused=True))
    result = []
    for states in layers:
        pairs = [[(part.detach(), next(gradients)) for part in state] for state in states]
        joint = torch.stack([flat_state(tuple(part for part, _ in pair)) for pair in pairs])
        gradient = torch.stack(
            [flat_state(tuple(torch.zeros_like(p) if g is None else g for p, g in pair)) for pair in pairs]
        )
        result.append((joint, gradient))
    return result


def gradient_against_lag(
    cells: Cell | Sequence[Cell], x: Tensor, loss: Callable[[Tensor], Tensor]
) -> list[GradientFlow]:
    """How the loss's gradient fares on its way back through time: one `GradientFlow` per cell.

    In the cells' own precision, as training sees it. Arguments as `states_and_gradients`.
    """
    cells = [cells] if isinstance(cells, Cell) else list(cells)
    flows = []
    for cell, (states, gradients) in zip(cells, states_and_gradients(cells, x, loss), strict=True):
        flows.append(
            GradientFlow(
                _mean_norm(gradients),
                _numpy((gradients == 0).double().mean((1, 2)).flip(0)),
                _saturation(cell, states),
                _mean_norm(states),
            )
        )
    return flows


def _numpy(values: Tensor) -> Real:
    return np.asarray(values.cpu().numpy(), dtype=np.float64)


def _mean_norm(values: Tensor) -> Real:
    return _numpy(values.double().square().sum(-1).sqrt().mean(1).flip(0))


def _saturation(cell: Cell, states: Tensor) -> Real:
    h = states[..., : cell.state_sizes[0]]
    bounded = bool(h.abs().max() <= 1)
    at_wall = (h == 0) | ((h.abs() > 0.99) & bounded)
    return _numpy(at_wall.double().mean((1, 2)).flip(0))
