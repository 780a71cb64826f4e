"""Plain cells by `Recurrence`, and its two recursions in torch's own operations, on any device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.activations import COMPLEX_EPS, LEAK, NONLINEARITIES, ComplexModReLU, ModReLU, identity
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.dtypes import described
from lit_rnn.scan.checks import is_just
from lit_rnn.scan.drive import drive_of, halves
from lit_rnn.scan.gpu import Triton
from lit_rnn.scan.packed import Blocks, ends
from lit_rnn.scan.plain import Native
from lit_rnn.scan.recurrence import COMPLEX, Dense, Engine, Kept, Loss, Recurrence
from lit_rnn.scan.rotations import Layers, Rotated
from lit_rnn.scan.streamed import Streamed


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
    "leaky_relu": _Real(
        lambda z, *_: torch.nn.functional.leaky_relu_(z, LEAK), lambda h: (h > 0).to(h.dtype).clamp_min_(LEAK)
    ),
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
        known = {COMPLEX: ComplexModReLU, "modrelu": ModReLU}
        return next((name for name, kind in known.items() if is_just(activation, kind)), None)
    if activation is identity and isinstance(cell, UnitaryCell):
        return COMPLEX  # with b = 0: relu(r) / r is 1
    return next((name for name, f in NONLINEARITIES.items() if f is activation), None)


def run_plain(
    cell: PlainCell,
    x: Tensor,
    state: State,
    w: Tensor | Layers,
    backend: Literal["fused", "native", "triton", "streamed"],
    last_only: bool,
    blocks: Blocks,
) -> tuple[Tensor, State]:
    """Packed outputs (N, output_size), or the last (R, output_size), and final state of a plain cell with w for W."""
    kind = kind_of(cell)
    assert kind is not None
    engine: Callable[[str, Tensor, Tensor | None], Engine]
    on_halves: Callable[[Tensor], Tensor]
    if isinstance(w, Layers):
        W, engine, on_halves = w.numbers, functools.partial(Rotated, w.partners), halves
    else:
        engines: dict[str, type[Dense]] = {"native": Native, "fused": Fused, "triton": Triton, "streamed": Streamed}
        W, engine, on_halves = w, engines[backend], matrix_on_halves
    accepted = "complex numbers" if kind == COMPLEX else "real numbers"
    require(W.is_complex() == (kind == COMPLEX), f"weights() of {type(cell).__name__}", described(W), accepted)
    drive = drive_of(cell, x, W, W.dtype.to_real(), blocks, reads_bf16=backend in ("triton", "streamed"))
    bias: Tensor | None = None
    if isinstance(cell.activation, ModReLU):
        bias = cell.activation.bias
    elif kind == COMPLEX:  # a linear cell
        bias = W.new_zeros(cell.hidden_size, dtype=W.dtype.to_real())
    with torch.autocast(x.device.type, enabled=False):  # the states stay in W's precision
        bias = bias if bias is None else bias.to(W.dtype.to_real())
        h0 = state[0].to(W.dtype)
        if kind == COMPLEX:
            h0, W = halves(h0), on_halves(W)
        inputs = (*drive, h0, W, bias)
        keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
        h = Recurrence.apply(kind, engine, keep, last_only, blocks, *inputs)
    final = h if last_only else h[ends(blocks, h.device)]
    if kind != COMPLEX:
        return cell.read(h), (final,)
    if type(cell).read is UnitaryCell.read:  # shows halves, which the states here are already
        return h[..., : cell.output_size], (_complex(final),)
    return cell.read(_complex(h)), (_complex(final),)


def _complex(h: Tensor) -> Tensor:
    return torch.complex(*h.chunk(2, dim=-1))


def matrix_on_halves(W: Tensor) -> Tensor:
    """The real (2n, 2n) matrix that does to [Re | Im] what W (n, n) does to complex numbers."""
    return torch.cat((torch.cat((W.real, -W.imag), dim=1), torch.cat((W.imag, W.real), dim=1)))


class Fused(Dense):
    """The two recursions in torch's own operations, on any device."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        shape = tuple(kept.blocks[0])
        M, before, scratch = self.W.mT, kept.before, torch.empty_like(kept.before)
        modulus = None if kept.modulus is None else kept.modulus.unflatten(0, shape)
        for t, (u_t, h_t) in enumerate(zip(u.unflatten(0, shape), kept.h.unflatten(0, shape), strict=True)):
            torch.addmm(u_t, before, M, out=h_t)
            if self.kind == COMPLEX:
                assert self.bias is not None
                _complex_modrelu_(h_t, self.bias, scratch, None if modulus is None else modulus[t])
            else:
                _KINDS[self.kind].apply_(h_t, self.bias, scratch)
            before = h_t

    def deltas(self, loss: Loss, kept: Kept, delta: Tensor) -> Tensor | None:
        shape = tuple(kept.blocks[0])
        direct = None if loss.each is None else loss.each.unflatten(0, shape)
        h, delta = kept.h.unflatten(0, shape), delta.unflatten(0, shape)
        if self.kind == COMPLEX:
            assert self.bias is not None and kept.modulus is not None
            return _complex_deltas(direct, loss.last, self.W, h, kept.modulus.unflatten(0, shape), self.bias, delta)
        delta.copy_(_KINDS[self.kind].slope(h))  # f' of every step, turned into delta from the end
        carried = loss.last.clone()
        for t in range(len(delta) - 1, 0, -1):
            delta[t].mul_(carried)
            if direct is None:
                torch.mm(delta[t], self.W, out=carried)
            else:
                torch.addmm(direct[t - 1], delta[t], self.W, out=carried)
        delta[0].mul_(carried)
        return None if self.bias is None else (delta * h.sign()).sum((0, 1))


def _pairs(h: Tensor) -> Tensor:
    """[Re | Im], (..., 2n), as (..., 2, n)."""
    return h.unflatten(-1, (2, -1))


def _complex_modrelu_(z: Tensor, bias: Tensor, scratch: Tensor, modulus: Tensor | None) -> None:
    torch.square(z, out=scratch)
    r = torch.sum(_pairs(scratch), -2, out=modulus)
    r.add_(COMPLEX_EPS).sqrt_()
    _pairs(z).mul_((r + bias).relu_().div_(r).unsqueeze(-2))


def _complex_deltas(
    direct: Tensor | None,
    through: Tensor,
    W: Tensor,
    h: Tensor,
    modulus: Tensor,
    bias: Tensor,
    delta: Tensor,
) -> Tensor:
    # h = s z with s = relu(r + b) / r: by z it is s g + z (s' / r) Re(conj(z) g), and s' = -b / r^2 where s > 0;
    # where s = 0 all of it is 0, so that z = h / s is not missed
    alive = modulus + bias > 0
    scale = torch.where(alive, (modulus + bias) / modulus, 0)
    z = _pairs(h) * torch.where(alive, modulus / (modulus + bias), 0).unsqueeze(-2)
    bend = -bias / modulus**3
    total = through
    by_bias = torch.zeros_like(bias)
    for t in range(len(h) - 1, -1, -1):
        g = _pairs(total)
        along = (z[t] * g).sum(-2)
        by_bias += (along / modulus[t]).sum(0)
        torch.add(g * scale[t].unsqueeze(-2), z[t] * (bend[t] * along).unsqueeze(-2), out=_pairs(delta[t]))
        if t:
            total = delta[t] @ W if direct is None else torch.addmm(direct[t - 1], delta[t], W)
    return by_bias
