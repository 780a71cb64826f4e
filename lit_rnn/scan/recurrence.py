"""The plain recurrence h_t = f(W h_{t-1} + u_t) as one operation with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t for every real nonlinearity here, so that h is all that is kept; of complex z_t the
modulus as well. Complex states are real ones here, [Re | Im] (B, 2n) as the outputs show them. The sum over t is a
product over many steps at once, and there is no graph per step. An `Engine` does the two recursions: `fused` in
torch's own operations, `native` in C++, `rotations` in C++ without a matrix, `triton` on a GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.scan.drive import Drive, DriveGradients
from lit_rnn.scan.packed import Blocks, Chain, ends, size

KINDS = ("identity", "relu", "leaky_relu", "tanh", "elu", "modrelu", "complex modrelu")  # as in vectors.h
COMPLEX = KINDS[-1]
TILE, TILES_ON_GPU = 64, 256  # units on a side of a tile of cuBLAS's products, and tiles that a GPU does at once


class Kept(NamedTuple):
    """What the backward of some steps reads, in packed rows.

    Args:
        blocks: The steps.
        before: The states before the first of them, (B, width) for the B rows that it is of.
        h: The states after each step, (N, width).
        modulus: |z| of complex states, (N, n); None where no backward follows.
    """

    blocks: Blocks
    before: Tensor
    h: Tensor
    modulus: Tensor | None


class Loss(NamedTuple):
    """The loss's gradients by the states of some steps.

    Args:
        each: Its own by every state, (N, width); None where it sees the last of every row alone.
        ended: Its own by those then, (B, width).
        last: By the states of the last step, with all that comes through later ones.
    """

    each: Tensor | None
    ended: Tensor
    last: Tensor


class Engine(ABC):
    """Some steps of the recurrence, forward and backward, with W in whatever form.

    Args:
        kind: f, of `KINDS`.
        W: What W is made of, real.
        bias: The thresholds of modReLU, (n,).
    """

    many_blocks: ClassVar[bool] = False
    """Whether it takes steps of ever fewer rows at once, rather than block by block."""

    def __init__(self, kind: str, W: Tensor, bias: Tensor | None) -> None:
        self.kind, self.W, self.bias = kind, W, bias

    @abstractmethod
    def forward(self, u: Tensor, kept: Kept) -> None:
        """From the drive u (N, width) and the states before, fills the rest of ``kept``."""

    @abstractmethod
    def backward(
        self, loss: Loss, kept: Kept, previous: Callable[[], Tensor], delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Fills delta (N, width) and adds to ``by_W``; gives the gradients by kept.before and by the bias.

        ``previous`` gives the state (N, width) that each of kept.h comes from.
        """


class Dense(Engine):
    """W as a (width, width) matrix, forward h W^T, backward delta W."""

    @abstractmethod
    def deltas(self, loss: Loss, kept: Kept, delta: Tensor) -> Tensor | None:
        """`backward` without the gradients by W and kept.before."""

    def backward(
        self, loss: Loss, kept: Kept, previous: Callable[[], Tensor], delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        by_bias = self.deltas(loss, kept, delta)
        if by_W is not None:
            add_product_(by_W, delta, previous(), pieces_of(delta))
        return delta[: len(kept.before)] @ self.W, by_bias


def pieces_of(rows: Tensor) -> int:
    """How many sums `add_product_` does best: on a GPU as many as give work to all of it, where a product over very
    many rows has few tiles (n = 170: 186 of 1,750 microseconds of a pass, on an H200)."""
    tiles = (-(-rows.shape[1] // TILE)) ** 2
    return max(1, min(TILES_ON_GPU // tiles, len(rows) // TILES_ON_GPU)) if rows.is_cuda else 1


def add_product_(total: Tensor, a: Tensor, b: Tensor, pieces: int) -> None:
    """total += a^T b of two tensors of many rows, in so many sums."""
    rows = len(a) // pieces
    if pieces > 1:
        first, second = (tensor[: rows * pieces].unflatten(0, (pieces, rows)) for tensor in (a, b))
        total += torch.bmm(first.mT, second).sum(0)
        a, b = a[rows * pieces :], b[rows * pieces :]
    if len(a):
        total.addmm_(a.mT, b)


def refuse_a_graph() -> None:
    """A gradient of this gradient would silently be zero."""
    if torch.is_grad_enabled():
        raise UserError(
            "Only the loop, without checkpoint_every, gives gradients of gradients: set model.init_args.backend "
            "to loop (scan: backend='loop') and model.init_args.checkpoint_every to null."
        )


class Recurrence(torch.autograd.Function):
    """Packed states (N, width) from the drive, or only the last of every row, (R, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        engine: Callable[[str, Tensor, Tensor | None], Engine],
        keep: bool,
        last_only: bool,
        blocks: Blocks,
        x: Tensor,
        V: Tensor | None,
        c: Tensor | None,
        h0: Tensor,
        W: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        drive, run = Drive(x, V, c), engine(kind, W, bias)
        parts = drive.parts(blocks)
        whole = keep or not last_only
        chain = Chain.begun(h0, size(blocks) if whole else max(size(part.blocks) for part in parts))
        modulus = h0.new_empty(len(x), h0.shape[1] // 2) if kind == COMPLEX and keep else None
        final = torch.empty_like(h0)
        for part in parts:
            u = drive.of(part.rows).contiguous()
            for piece in part.pieces(run.many_blocks):
                before, h = chain.at(piece) if whole else chain.again(piece)
                m = None if modulus is None else modulus[piece.rows]
                run.forward(u[piece.inside(part)], Kept(piece.blocks, before, h, m))
                if not whole:
                    final[: len(before)] = h[ends(piece.blocks, h.device)]  # later pieces overwrite what goes on
        ctx.kind, ctx.engine, ctx.last_only, ctx.blocks = kind, engine, last_only, blocks
        ctx.save_for_backward(x, V, c, W, bias, chain.memory, modulus)
        if not whole:
            return final
        return chain.states[ends(blocks, h0.device)] if last_only else chain.states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, W, bias, memory, modulus = ctx.saved_tensors
        drive = Drive(x, V, c)
        by_drive, (by_h0, by_W, by_bias) = DriveGradients(drive, ctx.needs_input_grad[5:8]), ctx.needs_input_grad[8:]
        weights = torch.zeros_like(W) if by_W else None
        thresholds = torch.zeros_like(bias) if by_bias else None
        parts = drive.parts(ctx.blocks)
        chain = Chain(memory, ctx.blocks[0].rows)
        room = memory.new_empty(max(size(part.blocks) for part in parts), memory.shape[1])
        run = ctx.engine(ctx.kind, W, bias)
        through: Tensor | None = None  # the loss's gradient by a piece's last states, through later ones
        for part in reversed(parts):
            delta = room[: size(part.blocks)]
            for piece in reversed(part.pieces(run.many_blocks)):
                before, h = chain.at(piece)
                each = None if ctx.last_only else grad[piece.rows]
                direct = grad[: piece.stay] if each is None else each[-piece.stay :]
                loss = Loss(each, grad[: len(before)], _grown(through, direct, ctx.last_only))
                kept = Kept(piece.blocks, before, h, None if modulus is None else modulus[piece.rows])
                previous, d = partial(chain.previous, piece), delta[piece.inside(part)]
                through, by_thresholds = run.backward(loss, kept, previous, d, weights)
                if thresholds is not None:
                    thresholds += by_thresholds
            by_drive.add(part.rows, delta)
        return (*(None,) * 5, by_drive.x, by_drive.V, by_drive.c, through if by_h0 else None, weights, thresholds)


def _grown(through: Tensor | None, direct: Tensor, last_only: bool) -> Tensor:
    """The gradient by a piece's last states (rows, .), of which the first go on: through those after them, and the
    loss's own, which with ``last_only`` sees only those that end here."""
    if through is None:
        return direct
    going = through if last_only else through + direct[: len(through)]
    return going if len(going) == len(direct) else torch.cat((going, direct[len(going) :]))
