"""The plain recurrence h_t = f(W h_{t-1} + u_t) with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t alone for every real nonlinearity here, so that h is all that is kept. The sum over t is one
product over all steps, and there is no graph per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.activations import NONLINEARITIES, ComplexModReLU, ModReLU
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.plain import PlainCell

_EPS = 1e-5  # of `complex_modrelu`


class _Real(NamedTuple):
    """A real nonlinearity: in place, and its derivative by the value it gave."""

    apply_: Callable[[Tensor, Tensor | None], object]
    slope: Callable[[Tensor], Tensor]


def _modrelu_(z: Tensor, bias: Tensor | None) -> None:
    assert bias is not None
    sign = torch.sign(z)
    z.abs_().add_(bias).relu_().mul_(sign)


_KINDS: dict[str, _Real] = {
    "tanh": _Real(lambda z, _: z.tanh_(), lambda h: 1 - h * h),
    "relu": _Real(lambda z, _: z.relu_(), lambda h: (h > 0).to(h.dtype)),
    "elu": _Real(lambda z, _: torch.nn.functional.elu_(z), lambda h: torch.where(h > 0, 1.0, h + 1)),
    "identity": _Real(lambda z, _: z, torch.ones_like),
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


def run_fused(cell: PlainCell, u: Tensor, state: State, W: Tensor) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size) and final state of a plain cell with drive u (T, B, n)."""
    kind = kind_of(cell)
    assert kind is not None
    bias = cell.activation.bias if isinstance(cell.activation, ModReLU) else None
    with torch.autocast(u.device.type, enabled=False):  # the states stay in W's precision
        u, h0 = u.to(W.dtype), state[0].to(W.dtype)
        h = _ComplexModReLU.apply(u, h0, W, bias) if kind == "complex modrelu" else _Plain.apply(u, h0, W, bias, kind)
    return cell.read(h), (h[-1],)


def _refuse_a_graph() -> None:
    """A gradient of this gradient would silently be zero."""
    if torch.is_grad_enabled():
        raise UserError("backend fused gives no gradients of gradients: set model.init_args.backend to loop.")


def _products(delta: Tensor, h0: Tensor, h: Tensor, W: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Gradients by u, h_0 and W, from delta (T, B, n)."""
    by_h0 = delta[0] @ W.conj() if needs[1] else None
    by_W = None
    if needs[2]:
        by_W = delta[0].mT @ h0.conj()
        if len(delta) > 1:
            by_W = torch.addmm(by_W, delta[1:].flatten(0, 1).mT, h[:-1].flatten(0, 1).conj())
    return delta if needs[0] else None, by_h0, by_W


class _Plain(torch.autograd.Function):
    """Real states."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, h0: Tensor, W: Tensor, bias: Tensor | None, kind: str) -> Tensor:
        h, before, W_T = torch.empty_like(u), h0, W.mT
        apply_ = _KINDS[kind].apply_
        for u_t, h_t in zip(u.unbind(0), h.unbind(0), strict=True):
            torch.addmm(u_t, before, W_T, out=h_t)
            apply_(h_t, bias)
            before = h_t
        ctx.kind = kind
        ctx.save_for_backward(h0, W, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_a_graph()
        h0, W, h = ctx.saved_tensors
        delta = _KINDS[ctx.kind].slope(h)  # f' of every step, turned into delta from the end
        carried = grad[-1].clone()
        for g, d in zip(reversed(grad.unbind(0)[:-1]), reversed(delta.unbind(0)[1:]), strict=True):
            d.mul_(carried)
            torch.addmm(g, d, W, out=carried)
        delta[0].mul_(carried)
        by_bias = (delta * h.sign()).sum((0, 1)) if ctx.needs_input_grad[3] else None
        return *_products(delta, h0, h, W, ctx.needs_input_grad), by_bias, None


class _ComplexModReLU(torch.autograd.Function):
    """Complex states; z is kept as well, because h does not tell where a unit below its threshold was."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, h0: Tensor, W: Tensor, bias: Tensor) -> Tensor:
        z, h, before, W_T = torch.empty_like(u), torch.empty_like(u), h0, W.mT
        for u_t, z_t, h_t in zip(u.unbind(0), z.unbind(0), h.unbind(0), strict=True):
            torch.addmm(u_t, before, W_T, out=z_t)
            modulus = (z_t.real.square() + z_t.imag.square()).add_(_EPS).sqrt_()
            torch.mul(z_t, (modulus + bias).relu_().div_(modulus), out=h_t)
            before = h_t
        ctx.save_for_backward(h0, W, z, h, bias)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_a_graph()
        h0, W, z, h, bias = ctx.saved_tensors
        # h = s z with s = relu(r + b) / r: by z it is s g + z (s' / r) Re(conj(z) g), and s' = -b / r^2 where s > 0
        r = (z.real.square() + z.imag.square()).add_(_EPS).sqrt_()
        alive = (r + bias > 0).to(r.dtype)
        scale, bend = alive * (r + bias) / r, -alive * bias / r**3
        W_conj, delta, total = W.conj(), torch.empty_like(z), grad.clone()
        for t in range(len(z) - 1, -1, -1):
            along = z[t].real * total[t].real + z[t].imag * total[t].imag
            torch.add(total[t] * scale[t], z[t] * (bend[t] * along), out=delta[t])
            if t:
                total[t - 1].addmm_(delta[t], W_conj)
        by_bias = None
        if ctx.needs_input_grad[3]:
            by_bias = ((z.real * total.real + z.imag * total.imag) * alive / r).sum((0, 1))
        return *_products(delta, h0, h, W, ctx.needs_input_grad), by_bias
