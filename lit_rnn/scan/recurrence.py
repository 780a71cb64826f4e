"""The plain recurrence h_t = f(W h_{t-1} + u_t) as one operation with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t for every real nonlinearity here, so that h is all that is kept; of complex z_t the
modulus as well. Complex states are real ones here, [Re | Im] (B, 2n) as the outputs show them. The sum over t is a
product over many steps at once, and there is no graph per step. An `Engine` does the two recursions: `fused` in
torch's own operations, `native` in C++, `rotations` in C++ without a matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.scan.drive import Drive, DriveGradients
from lit_rnn.scan.packed import Blocks, Trail, size, split, together

KINDS = ("identity", "relu", "leaky_relu", "tanh", "elu", "modrelu", "complex modrelu")  # as in vectors.h
COMPLEX = KINDS[-1]


class Kept(NamedTuple):
    """What the backward of some steps reads: h (1 + steps, B, width) behind the state before them, and |z| if complex.

    The modulus is (steps, B, n), and None where no backward follows.
    """

    h: Tensor
    modulus: Tensor | None


class Engine(ABC):
    """Some steps of the recurrence, forward and backward, with W in whatever form.

    Args:
        kind: f, of `KINDS`.
        W: What W is made of, real.
        bias: The thresholds of modReLU, (n,).
    """

    def __init__(self, kind: str, W: Tensor, bias: Tensor | None) -> None:
        self.kind, self.W, self.bias = kind, W, bias

    @abstractmethod
    def forward(self, u: Tensor, kept: Kept) -> None:
        """From the drive u (steps, B, width) and kept.h[0], fills the rest of ``kept``."""

    @abstractmethod
    def backward(
        self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Fills delta (steps, B, width) and adds to ``by_W``; gives the gradients by kept.h[0] and by the bias.

        ``through`` is the gradient by the last of these states, ``direct`` the loss's own by each of them, if any.
        """


class Dense(Engine):
    """W as a (width, width) matrix, forward h W^T, backward delta W."""

    @abstractmethod
    def deltas(self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor) -> Tensor | None:
        """`backward` without the gradients by W and kept.h[0]."""

    def backward(
        self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        by_bias = self.deltas(direct, through, kept, delta)
        if by_W is not None:
            by_W.addmm_(delta.flatten(0, 1).mT, kept.h[:-1].flatten(0, 1))
        return delta[0] @ self.W, by_bias


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
        drive = Drive(x, V, c)
        parts = drive.parts(blocks)
        trail = Trail(together(parts), keep or not last_only)
        memory, final = h0.new_empty(trail.size, h0.shape[1]), torch.empty_like(h0)
        modulus = h0.new_empty(len(x), h0.shape[1] // 2) if kind == COMPLEX and keep else None
        run = engine(kind, W, bias)
        last = h0
        for part in parts:
            driven = split(drive.of(part.rows).contiguous(), part.blocks)
            for number, (u, m) in enumerate(zip(driven, part.of(modulus), strict=True), part.number):
                h = trail.enter(memory, number, last)
                run.forward(u, Kept(h, m))
                last = h[-1]
                if last_only:
                    trail.put_ended(last, final, number)
        ctx.kind, ctx.engine, ctx.last_only, ctx.blocks = kind, engine, last_only, blocks
        ctx.save_for_backward(x, V, c, W, bias, memory, modulus)
        return final if last_only else trail.states(memory)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, W, bias, memory, modulus = ctx.saved_tensors
        drive = Drive(x, V, c)
        by_drive, (by_h0, by_W, by_bias) = DriveGradients(drive, ctx.needs_input_grad[5:8]), ctx.needs_input_grad[8:]
        weights = torch.zeros_like(W) if by_W else None
        thresholds = torch.zeros_like(bias) if by_bias else None
        parts = drive.parts(ctx.blocks)
        trail = Trail(together(parts))
        room = memory.new_empty(max(size(part.blocks) for part in parts), memory.shape[1])
        run = ctx.engine(ctx.kind, W, bias)
        through: Tensor | None = None  # the loss's gradient by a block's last states, through later ones
        for part in reversed(parts):
            delta = room[: size(part.blocks)]
            direct = part.of(None if ctx.last_only else grad)
            here = enumerate(zip(split(delta, part.blocks), direct, part.of(modulus), strict=True), part.number)
            for number, (d, by_h, m) in reversed(list(here)):
                through = _grown(through, grad[: d.shape[1]] if by_h is None else by_h[-1], ctx.last_only)
                kept = Kept(trail.block(memory, number), m)
                through, by_thresholds = run.backward(by_h, through, kept, d, weights)
                if thresholds is not None:
                    thresholds += by_thresholds
            by_drive.add(part.rows, delta)
        return (*(None,) * 5, by_drive.x, by_drive.V, by_drive.c, through if by_h0 else None, weights, thresholds)


def _grown(through: Tensor | None, direct: Tensor, last_only: bool) -> Tensor:
    """The gradient by a block's last states (rows, .), of which the first go on: through those after them, and the
    loss's own, which with ``last_only`` sees only those that end here."""
    if through is None:
        return direct
    going = through if last_only else through + direct[: len(through)]
    return going if len(going) == len(direct) else torch.cat((going, direct[len(going) :]))
