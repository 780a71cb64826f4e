"""The plain recurrence h_t = f(W h_{t-1} + u_t) with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t alone for every real nonlinearity here, so that h is all that is kept; of complex z_t the
modulus as well. Complex states are real ones here, [Re | Im] (B, 2n) as the outputs show them, and W a real
(2n, 2n) matrix. The sum over t is a product over many steps at once, and there is no graph per step. `native` does the
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
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.scan import native
from lit_rnn.scan.drive import Drive, DriveGradients, drive_of, halves


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
        return native.COMPLEX if isinstance(activation, ComplexModReLU) else "modrelu"
    return next((name for name, f in NONLINEARITIES.items() if f is activation), None)


def run_plain(
    cell: PlainCell, x: Tensor, state: State, W: Tensor, backend: Literal["fused", "native"], last_only: bool
) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size), or (1, B, output_size), and final state of a plain cell."""
    kind = kind_of(cell)
    assert kind is not None
    engine = native if backend == "native" else _Torch
    drive = drive_of(cell, x, W, W.dtype.to_real())
    bias: Tensor | None = cell.activation.bias if isinstance(cell.activation, ModReLU) else None
    with torch.autocast(x.device.type, enabled=False):  # the states stay in W's precision
        bias = bias if bias is None else bias.to(W.dtype.to_real())
        h0 = state[0].to(W.dtype)
        if kind == native.COMPLEX:
            h0, W = halves(h0), _on_halves(W)
        inputs = (*drive, h0, W, bias)
        keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
        h = _Recurrence.apply(kind, engine, keep, last_only, *inputs)
    if kind != native.COMPLEX:
        return cell.read(h), (h[-1],)
    if type(cell).read is UnitaryCell.read:  # shows halves, which the states here are already
        return h[..., : cell.output_size], (_complex(h[-1]),)
    return cell.read(_complex(h)), (_complex(h[-1]),)


def _complex(h: Tensor) -> Tensor:
    return torch.complex(*h.chunk(2, dim=-1))


def _on_halves(W: Tensor) -> Tensor:
    """The real (2n, 2n) matrix that does to [Re | Im] what W (n, n) does to complex numbers."""
    return torch.cat((torch.cat((W.real, -W.imag), dim=1), torch.cat((W.imag, W.real), dim=1)))


class _Torch:
    """The two recursions in torch's own operations, on any device."""

    @staticmethod
    def prepared(kind: str, M: Tensor) -> Tensor:
        return M

    @staticmethod
    def forward(
        kind: str, u: Tensor, h0: Tensor, M: Tensor, bias: Tensor | None, h: Tensor, modulus: Tensor | None
    ) -> None:
        if kind == native.COMPLEX:
            return _complex_forward(u, h0, M, bias, h, modulus)
        before, scratch = h0, torch.empty_like(h0)
        apply_ = _KINDS[kind].apply_
        for u_t, h_t in zip(u.unbind(0), h.unbind(0), strict=True):
            torch.addmm(u_t, before, M, out=h_t)
            apply_(h_t, bias, scratch)
            before = h_t
        return None

    @staticmethod
    def backward(
        kind: str,
        grad: Tensor | None,
        grad_last: Tensor,
        M: Tensor,
        h: Tensor,
        modulus: Tensor | None,
        bias: Tensor | None,
        delta: Tensor,
    ) -> Tensor | None:
        if kind == native.COMPLEX:
            return _complex_backward(grad, grad_last, M, h, modulus, bias, delta)
        delta.copy_(_KINDS[kind].slope(h))  # f' of every step, turned into delta from the end
        carried = grad_last.clone()
        for t in range(len(delta) - 1, 0, -1):
            delta[t].mul_(carried)
            if grad is None:
                torch.mm(delta[t], M, out=carried)
            else:
                torch.addmm(grad[t - 1], delta[t], M, out=carried)
        delta[0].mul_(carried)
        return None if bias is None else (delta * h.sign()).sum((0, 1))


def _pairs(h: Tensor) -> Tensor:
    """[Re | Im], (..., 2n), as (..., 2, n)."""
    return h.unflatten(-1, (2, -1))


def _complex_forward(u: Tensor, h0: Tensor, M: Tensor, bias: Tensor | None, h: Tensor, modulus: Tensor | None) -> None:
    assert bias is not None
    before, scratch = h0, torch.empty_like(h0)
    for t, (u_t, h_t) in enumerate(zip(u.unbind(0), h.unbind(0), strict=True)):
        torch.addmm(u_t, before, M, out=h_t)
        torch.square(h_t, out=scratch)
        r = torch.sum(_pairs(scratch), -2, out=None if modulus is None else modulus[t])
        r.add_(COMPLEX_EPS).sqrt_()
        _pairs(h_t).mul_((r + bias).relu_().div_(r).unsqueeze(-2))
        before = h_t


def _complex_backward(
    grad: Tensor | None,
    grad_last: Tensor,
    M: Tensor,
    h: Tensor,
    modulus: Tensor | None,
    bias: Tensor | None,
    delta: Tensor,
) -> Tensor:
    assert bias is not None and modulus is not None
    # h = s z with s = relu(r + b) / r: by z it is s g + z (s' / r) Re(conj(z) g), and s' = -b / r^2 where s > 0;
    # where s = 0 all of it is 0, so that z = h / s is not missed
    alive = modulus + bias > 0
    scale = torch.where(alive, (modulus + bias) / modulus, 0)
    z = _pairs(h) * torch.where(alive, modulus / (modulus + bias), 0).unsqueeze(-2)
    bend = -bias / modulus**3
    total = grad_last
    by_bias = torch.zeros_like(bias)
    for t in range(len(h) - 1, -1, -1):
        g = _pairs(total)
        along = (z[t] * g).sum(-2)
        by_bias += (along / modulus[t]).sum(0)
        torch.add(g * scale[t].unsqueeze(-2), z[t] * (bend[t] * along).unsqueeze(-2), out=_pairs(delta[t]))
        if t:
            total = delta[t] @ M if grad is None else torch.addmm(grad[t - 1], delta[t], M)
    return by_bias


def refuse_a_graph() -> None:
    """A gradient of this gradient would silently be zero."""
    if torch.is_grad_enabled():
        raise UserError(
            "Only the loop gives gradients of gradients: set model.init_args.backend to loop (scan: backend='loop')."
        )


class _Recurrence(torch.autograd.Function):
    """(T, B, width) states from the drive, or the last one alone, (1, B, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        engine: type[_Torch] | ModuleType,
        keep: bool,
        last_only: bool,
        x: Tensor,
        V: Tensor | None,
        c: Tensor | None,
        h0: Tensor,
        W: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        drive = Drive(x, V, c)
        parts = drive.parts()
        whole = keep or not last_only
        # behind the state before each step that after it; those of one part after another where the last is all we need
        h = h0.new_empty(1 + (len(x) if whole else parts[0].stop), *h0.shape)
        modulus = None
        if kind == native.COMPLEX and keep:
            modulus = h0.new_empty(len(x), len(h0), len(W) // 2)
        h[0] = h0
        M = engine.prepared(kind, W.mT)
        for part in parts:
            here = h[part.start :] if whole else h
            states = here[1 : 1 + part.stop - part.start]
            engine.forward(kind, drive.of(part), here[0], M, bias, states, None if modulus is None else modulus[part])
            if not whole:
                h[0] = states[-1]
        ctx.kind, ctx.engine, ctx.last_only = kind, engine, last_only
        ctx.save_for_backward(x, V, c, W, bias, h, modulus)
        return h[:1].clone() if not whole else h[-1:].clone() if last_only else h[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, W, bias, h, modulus = ctx.saved_tensors
        drive = Drive(x, V, c)
        by_drive, (by_h0, by_W, by_bias) = DriveGradients(drive, ctx.needs_input_grad[4:7]), ctx.needs_input_grad[7:]
        weights = torch.zeros_like(W) if by_W else None
        thresholds = torch.zeros_like(bias) if by_bias else None
        parts = drive.parts()
        room = torch.empty_like(h[parts[0]])
        M = ctx.engine.prepared(ctx.kind, W)
        # the loss's gradient by a part's last state
        through = grad[0] if ctx.last_only else torch.zeros_like(h[0])
        for part in reversed(parts):
            direct = None if ctx.last_only else grad[part]
            if direct is not None:
                through = through + direct[-1]
            delta, r = room[: part.stop - part.start], None if modulus is None else modulus[part]
            found = ctx.engine.backward(ctx.kind, direct, through, M, h[1:][part], r, bias, delta)
            by_drive.add(part, delta)
            if weights is not None:
                weights.addmm_(delta.flatten(0, 1).mT, h[part].flatten(0, 1))
            if thresholds is not None:
                thresholds += found
            through = delta[0] @ W
        return (*(None,) * 4, by_drive.x, by_drive.V, by_drive.c, through if by_h0 else None, weights, thresholds)
