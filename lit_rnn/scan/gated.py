"""The cells beyond the plain recurrence on the CPU, as one call into C++ (`gated.cpp`).

Every one is one product of the state, z = W s_{t-1} + u_t, and a function of s_{t-1} and z that gives s_t; or two of
them, the second product reading what the first function gave. With delta_t the loss's gradient by z_t, the gradient by
u_t is delta_t, and that by W is sum_t delta_t s_{t-1}^T: products over many steps, formed here. C++ runs the two
recursions, keeps the states and what z became, and sums the gradients by the vectors of a cell (biases, peepholes).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_rnn import cells
from lit_rnn.activations import NONLINEARITIES
from lit_rnn.cells.base import Cell, State
from lit_rnn.scan.drive import Drive, DriveGradients, drive_of
from lit_rnn.scan.native import function, packed, pointer, runs_natively
from lit_rnn.scan.recurrence import KINDS, refuse_a_graph

_CELLS = (
    "janet",
    "lstm",
    "gru",
    "goru",
    "reset before",
    "euler",
    "layer norm",
    "statistical",
    "nru",
    "lstm with output matrix",
)  # as in gated.cpp
_LONGEST = 256  # as in gated.cpp


class _Product(NamedTuple):
    """W times columns of the state's record, added to columns of z."""

    reads: int = 0  # the first column read
    writes: int = 0  # the first column of z
    fresh: int = 0  # how many of the columns read are this step's; the others are those before it


class _Plan(NamedTuple):
    """What C++ has to know of a cell; the fields of ``Shape`` in gated.cpp."""

    kind: str
    sizes: tuple[int, ...]  # of the struct of that cell
    kept: int  # width of z
    products: tuple[_Product, ...] = (_Product(),)
    beside: int = 0  # columns of the record behind the state, for the second product to read
    drive_at: int = 0  # where in z the drive goes
    numbers: tuple[float, ...] = ()


class _Parts(NamedTuple):
    """A cell as C++ takes it."""

    plan: _Plan
    matrices: tuple[Tensor, ...]  # one for each product
    vectors: tuple[Tensor | None, ...] = ()


def _janet(cell: cells.JANETCell, w: Tensor) -> _Parts:
    n = cell.hidden_size
    return _Parts(_Plan("janet", (n,), 2 * n, numbers=(cell.beta,)), (w,))


def _lstm(cell: cells.LSTMCell, w: Tensor) -> _Parts:
    n = cell.hidden_size
    if cell.output is None:
        return _Parts(_Plan("lstm", (n,), 4 * n), (w,), (cell.peephole,))
    products = _Product(), _Product(reads=n, writes=3 * n, fresh=n)
    return _Parts(_Plan("lstm with output matrix", (n,), 4 * n, products), (w, cell.output.weight))


def _gru(cell: cells.GRUCell, w: tuple[Tensor, Tensor | None]) -> _Parts:
    n = cell.hidden_size
    W, b = w
    if b is not None:  # C++ takes the candidate first: q has no drive, which then is one block
        return _Parts(_Plan("gru", (n,), 4 * n, drive_at=n), (W.roll(n, 0),), (b[2 * n :],))
    products = _Product(), _Product(reads=n, writes=2 * n, fresh=n)
    return _Parts(_Plan("reset before", (n,), 3 * n, products, beside=n), W.split((2 * n, n)))


def _goru(cell: cells.GORUCell, w: tuple[Tensor, Tensor]) -> _Parts:
    n = cell.hidden_size
    return _Parts(_Plan("goru", (n,), 4 * n, drive_at=n), (w[0].roll(n, 0),), (cell.activation.bias,))


def _euler(cell: cells.LipschitzRNNCell | cells.AntisymmetricRNNCell, w: Tensor) -> _Parts:
    n, width = cell.hidden_size, len(w)
    plan = _Plan("euler", (n, width > n), width, drive_at=width - n, numbers=(cell.step_size,))
    return _Parts(plan, (w,))


def _layer_norm(cell: cells.LayerNormRNNCell, w: Tensor) -> _Parts:
    n, norm = cell.hidden_size, cell.norm
    f = next(name for name, f in NONLINEARITIES.items() if f is cell.activation)
    return _Parts(_Plan("layer norm", (n, KINDS.index(f)), n + 1, numbers=(norm.eps,)), (w,), (norm.weight, norm.bias))


def _statistical(cell: cells.StatisticalRUCell, w: Tensor) -> _Parts:
    r, p = cell.summary.out_features, cell.input.out_features
    total = p * len(cell.alphas)
    products = _Product(), _Product(reads=total, writes=r, fresh=r)
    plan = _Plan("statistical", (r, p, len(cell.alphas)), r + p, products, r, r, cell.alphas)
    return _Parts(plan, (cell.summary.weight, cell.recurrent.weight), (cell.summary.bias,))


def _nru(cell: cells.NRUCell, w: Any) -> _Parts:
    H, M, side, parts = cell.hidden_size, cell.memory_size, *_nru_sizes(cell)
    sizes = (H, M, cell.products, parts, side, M // side)
    products = _Product(), _Product(writes=H, fresh=H)
    plan = _Plan("nru", sizes, H + len(w.gates), products)
    return _Parts(plan, (w.hidden, w.gates), (w.bias if cell.form == "released" else None,))


def _nru_sizes(cell: cells.NRUCell) -> tuple[int, int]:
    """Length of q, and how many parts the p of one outer product has."""
    return cell.write.out_features // cell.products, 2 * cell.heads // cell.products


# by what a step does: a subclass that changes it is another cell
_PARTS: dict[Any, Callable[..., _Parts]] = {
    cells.JANETCell.step: _janet,
    cells.LSTMCell.step: _lstm,
    cells.GRUCell.step: _gru,
    cells.GORUCell.step: _goru,
    cells.LipschitzRNNCell.step: _euler,
    cells.AntisymmetricRNNCell.step: _euler,
    cells.LayerNormRNNCell.step: _layer_norm,
    cells.StatisticalRUCell.step: _statistical,
    cells.NRUCell.step: _nru,
}


def is_gated(cell: Cell) -> bool:
    """Whether gated.cpp computes what ``cell`` does."""
    if isinstance(cell, cells.NRUCell):
        plain = cell.separable and isinstance(cell.norm, nn.Identity) and _nru_sizes(cell)[0] <= _LONGEST
    elif isinstance(cell, cells.LayerNormRNNCell):
        plain = cell.activation in NONLINEARITIES.values()
    else:
        plain = True
    return plain and type(cell).step in _PARTS


def runs_gated(cell: Cell) -> bool:
    """Whether gated.cpp computes what ``cell`` does, and can here."""
    like = cell.recurrent_parameters()[0]
    return is_gated(cell) and runs_natively("gated", like.dtype, like.device)


def run_gated(cell: Cell, x: Tensor, state: State, w: Any, last_only: bool) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size), or (1, B, output_size), and final state of such a cell."""
    plan, matrices, vectors = _PARTS[type(cell).step](cell, w)
    given = [vector for vector in vectors if vector is not None]
    dtype = matrices[0].dtype
    drive = drive_of(cell, x, w, dtype)
    with torch.autocast(x.device.type, enabled=False):  # the states stay in W's precision
        vector = torch.cat([vector.flatten() for vector in given]).to(dtype) if given else None
        beside = state[0].new_zeros(x.shape[1], plan.beside)
        start = torch.cat((*state, beside), dim=-1).to(dtype)
        inputs = (*drive, start, vector, *matrices)
        keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
        y, final = _Gated.apply(plan, state[0].shape[-1], last_only, keep, *inputs)
    y = final[None, :, : state[0].shape[-1]] if last_only else y
    if isinstance(cell, cells.StatisticalRUCell):
        y = torch.relu(cell.output(y))
    return y, final[:, : final.shape[-1] - plan.beside].split(cell.state_sizes, dim=-1)


class _Gated(torch.autograd.Function):
    """The first columns of all states, (T, B, seen), None if ``last_only``, and the record (B, .) of the last."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        seen: int,
        last_only: bool,
        keep: bool,
        x: Tensor,
        V: Tensor | None,
        c: Tensor | None,
        start: Tensor,
        vector: Tensor | None,
        *matrices: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        drive = Drive(x, V, c)
        parts = drive.parts()
        whole = keep or not last_only
        states = start.new_empty(1 + (len(x) if whole else parts[0].stop), *start.shape)
        states[0] = start
        kept = start.new_empty(len(x) if keep else 1, len(start), plan.kept)
        call = _Call("forward", plan, seen, keep, drive.width, states, vector, matrices)
        for part in parts:
            here = (states[part.start :] if whole else states)[: 1 + part.stop - part.start]
            call(len(here) - 1, drive.of(part).contiguous(), here, kept[part] if keep else kept)
            if not whole:
                states[0] = here[-1]
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.seen = plan, seen
        ctx.save_for_backward(x, V, c, states, kept, vector, *matrices)
        return None if last_only else states[1:, :, :seen], here[-1].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, states, kept, vector, *matrices = ctx.saved_tensors
        _, _, _, _, by_x, by_V, by_c, by_start, _, *by_W = ctx.needs_input_grad
        drive, at, parts = Drive(x, V, c), ctx.plan.drive_at, Drive(x, V, c).parts()
        by_drive = DriveGradients(drive, (by_x, by_V, by_c))
        by_matrices = [torch.zeros_like(W) if needed else None for W, needed in zip(matrices, by_W, strict=True)]
        total = torch.zeros_like(states[0])
        if grad_last is not None:
            total += grad_last
        by = None if vector is None else vector.new_zeros(torch.get_num_threads(), len(vector))
        room = torch.empty_like(kept[parts[0]])
        call = _Call("backward", ctx.plan, ctx.seen, True, drive.width, states, vector, matrices)
        for part in reversed(parts):
            here, delta = states[part.start : part.stop + 1], room[: part.stop - part.start]
            direct = None if grad is None else grad[part].contiguous()
            call(len(delta), direct, here, kept[part], total, delta, by)
            by_drive.add(part, delta[..., at : at + drive.width])
            for product, by_matrix in zip(ctx.plan.products, by_matrices, strict=True):
                if by_matrix is not None:
                    _add_by_matrix(by_matrix, product, here, delta)
        found = by_drive.x, by_drive.V, by_drive.c, total if by_start else None, None if by is None else by.sum(0)
        return (*(None,) * 4, *found, *by_matrices)


def _add_by_matrix(by: Tensor, product: _Product, states: Tensor, delta: Tensor) -> None:
    """Adds sum_t delta_t s^T over these steps and all rows, s what the product reads."""
    reads, writes, fresh = product
    by_z = delta[..., writes : writes + len(by)].flatten(0, 1).mT
    now, before = states[1:, :, reads : reads + fresh], states[:-1, :, reads + fresh : reads + by.shape[1]]
    for columns, part in zip(by.split((fresh, by.shape[1] - fresh), dim=1), (now, before), strict=True):
        if part.shape[-1]:
            columns.addmm_(by_z, part.flatten(0, 1))


class _Call:
    """Calls into gated.cpp, some steps at a time: ``Shape``, numbers and packed weights, in the memory that C++ reads.

    Args:
        name: ``forward`` or ``backward``.
        plan: The cell.
        seen: How many columns of the states the outputs are.
        keep: Whether a backward follows.
        drive: Width of the drive.
        states: The records of all steps, (., B, record).
        vector: The cell's vectors, one after another.
        matrices: W of each product.
    """

    def __init__(
        self,
        name: Literal["forward", "backward"],
        plan: _Plan,
        seen: int,
        keep: bool,
        drive: int,
        states: Tensor,
        vector: Tensor | None,
        matrices: Sequence[Tensor],
    ) -> None:
        products = [(p.reads, W.shape[1], p.writes, W.shape[0]) for p, W in zip(plan.products, matrices, strict=True)]
        numbers = [
            *(_CELLS.index(plan.kind), 0, states.shape[1], torch.get_num_threads()),
            *(states.shape[-1], plan.kept, keep, drive, plan.drive_at, seen),
            *(0 if vector is None else len(vector), len(products)),
            *(number for product in (*products, (0, 0, 0, 0))[:2] for number in product),
            *plan.sizes,
        ]
        self.shape = (ctypes.c_int * 26)(*numbers)
        self.numbers = (ctypes.c_double * 16)(*plan.numbers)
        weights = [packed("gated", W.mT if name == "forward" else W) for W in matrices]
        self.weights = [None if vector is None else vector.contiguous(), *weights, None][:3]
        self.run = function("gated", name, states.dtype)

    def __call__(self, steps: int, *tensors: Tensor | None) -> None:
        self.shape[1] = steps
        self.run(self.shape, self.numbers, *map(pointer, (*self.weights, *tensors)))
