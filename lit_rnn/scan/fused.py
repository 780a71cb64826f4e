"""The plain recurrence h_t = f(W h_{t-1} + u_t) with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t alone for every real nonlinearity here, so that h is all that is kept, and z
for complex states. The sum over t is one product over all steps, and there is no graph per step. `native` does the
two recursions in C++.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.activations import COMPLEX_EPS, NONLINEARITIES, ComplexModReLU, ModReLU
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.plain import PlainCell
from lit_rnn.scan import native


class _Real(NamedTuple):
    """A real nonlinearity: in place, with a tensor to write to, and its derivative by the value it gave."""

    apply_: Callable[[Tensor, Tensor | None, Tensor], object]
    slope: Callable[[Tensor], Tensor]


def _modrelu_(z: Tensor, bias: Tensor | None, scratch: Tensor) -> None:
    assert bias is not None
    torch.sign(z, out=scratch)
    z.abs_().add_(bias).relu_().mul_(scratch)


_KINDS: dict[str, _Real] = {
    "tanh": _Real(lambda z, *_: z.tanh_(), lambda h: 1 - h * h),
    "relu": _Real(lambda z, *_: z.relu_(), lambda h: (h > 0).to(h.dtype)),
    "elu": _Real(lambda z, *_: torch.nn.functional.elu_(z), lambda h: torch.where(h > 0, 1.0, h + 1)),
    "identity": _Real(lambda z, *_: z, torch.ones_like),
    # beyond its threshold modReLU moves z by a constant; inside it gives 0
    "modrelu": _Real(_modrelu_, lambda h: (h != 0).to(h.dtype)),
}


def kind_of(cell: Cell) -> str | None:
    """The name of a plain cell's nonlinearity, None for a cell that is not plain."""
    if not isinstance(cell, PlainCell) or type(cell).step is not PlainCell.step:
        return None
    activation = cell.activation
    if isinstance(activation, ModReLU):
        return "complex modrelu" if isinstance(activation, ComplexModReLU) else "modrelu"
    return next((name for name, f in NONLINEARITIES.items() if f is activation), None)


def run_plain(
    cell: PlainCell, u: Tensor, state: State, W: Tensor, backend: Literal["fused", "native"], last_only: bool
) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size), or (1, B, output_size), and final state of a plain cell with drive u (T, B, n)."""
    kind = kind_of(cell)
    assert kind is not None
    engine = native if backend == "native" else _Torch
    bias: Tensor | None = cell.activation.bias if isinstance(cell.activation, ModReLU) else None
    with torch.autocast(u.device.type, enabled=False):  # the states stay in W's precision
        bias = bias if bias is None else bias.to(W.real.dtype)
        h = _Recurrence.apply(u.to(W.dtype), state[0].to(W.dtype), W, bias, kind, engine, last_only)
    return cell.read(h), (h[-1],)


class _Torch:
    """The two recursions in torch's own operations, on any device."""

    @staticmethod
    def forward(kind: str, u: Tensor, h0: Tensor, W: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        if kind == "complex modrelu":
            return _complex_forward(u, h0, W, bias)
        h, before, W_T, scratch = torch.empty_like(u), h0, W.mT, torch.empty_like(h0)
        apply_ = _KINDS[kind].apply_
        for u_t, h_t in zip(u.unbind(0), h.unbind(0), strict=True):
            torch.addmm(u_t, before, W_T, out=h_t)
            apply_(h_t, bias, scratch)
            before = h_t
        return h, h

    @staticmethod
    def backward(
        kind: str, grad: Tensor | None, grad_last: Tensor | None, W: Tensor, state: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if kind == "complex modrelu":
            return _complex_backward(grad, grad_last, W, state, bias)
        delta = _KINDS[kind].slope(state)  # f' of every step, turned into delta from the end
        carried = _last(grad, grad_last).clone()
        for t in range(len(delta) - 1, 0, -1):
            delta[t].mul_(carried)
            if grad is None:
                torch.mm(delta[t], W, out=carried)
            else:
                torch.addmm(grad[t - 1], delta[t], W, out=carried)
        delta[0].mul_(carried)
        return delta, None if bias is None else (delta * state.sign()).sum((0, 1))


def _last(grad: Tensor | None, grad_last: Tensor | None) -> Tensor:
    last = grad_last if grad is None else grad[-1]
    assert last is not None
    return last


def _complex_forward(u: Tensor, h0: Tensor, W: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """z is what the backward reads: h does not tell where a unit below its threshold was."""
    assert bias is not None
    z, h, before, W_T = torch.empty_like(u), torch.empty_like(u), h0, W.mT
    for u_t, z_t, h_t in zip(u.unbind(0), z.unbind(0), h.unbind(0), strict=True):
        torch.addmm(u_t, before, W_T, out=z_t)
        modulus = (z_t.real.square() + z_t.imag.square()).add_(COMPLEX_EPS).sqrt_()
        torch.mul(z_t, (modulus + bias).relu_().div_(modulus), out=h_t)
        before = h_t
    return h, z


def _complex_backward(
    grad: Tensor | None, grad_last: Tensor | None, W: Tensor, z: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    assert bias is not None
    # h = s z with s = relu(r + b) / r: by z it is s g + z (s' / r) Re(conj(z) g), and s' = -b / r^2 where s > 0
    r = (z.real.square() + z.imag.square()).add_(COMPLEX_EPS).sqrt_()
    alive = (r + bias > 0).to(r.dtype)
    scale, bend = alive * (r + bias) / r, -alive * bias / r**3
    W_conj, delta, total = W.conj(), torch.empty_like(z), _last(grad, grad_last)
    by_bias = torch.zeros_like(bias)
    for t in range(len(z) - 1, -1, -1):
        along = z[t].real * total.real + z[t].imag * total.imag
        by_bias += (alive[t] * along / r[t]).sum(0)
        torch.add(total * scale[t], z[t] * (bend[t] * along), out=delta[t])
        if t:
            total = delta[t] @ W_conj if grad is None else torch.addmm(grad[t - 1], delta[t], W_conj)
    return delta, by_bias


def refuse_a_graph() -> None:
    """A gradient of this gradient would silently be zero."""
    if torch.is_grad_enabled():
        raise UserError(
            "Only the loop gives gradients of gradients: set model.init_args.backend to loop (scan: backend='loop')."
        )


class _Recurrence(torch.autograd.Function):
    """(T, B, n) states from the drive, or the last one alone, (1, B, n)."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        h0: Tensor,
        W: Tensor,
        bias: Tensor | None,
        kind: str,
        engine: type[_Torch] | ModuleType,
        last_only: bool,
    ) -> Tensor:
        h, kept = engine.forward(kind, u, h0, W, bias)
        ctx.kind, ctx.engine, ctx.last_only = kind, engine, last_only
        ctx.save_for_backward(h0, W, h, bias, *(() if kept is h else (kept,)))
        return h[-1:].clone() if last_only else h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        h0, W, h, bias, *kept = ctx.saved_tensors
        state = kept[0] if kept else h
        grads = (None, grad[0]) if ctx.last_only else (grad, None)
        delta, by_bias = ctx.engine.backward(ctx.kind, *grads, W, state, bias)
        by_u, by_h0, by_W, needs_bias = ctx.needs_input_grad[:4]
        start = delta[0] @ W.conj() if by_h0 else None
        weights = None
        if by_W:
            weights = delta[0].mT @ h0.conj()
            if len(delta) > 1:
                weights = torch.addmm(weights, delta[1:].flatten(0, 1).mT, h[:-1].flatten(0, 1).conj())
        return delta if by_u else None, start, weights, by_bias if needs_bias else None, None, None, None
