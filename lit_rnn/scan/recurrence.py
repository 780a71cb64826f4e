"""The plain recurrence h_t = f(W h_{t-1} + u_t) as one operation with its backward through time written out.

With delta_t the loss's gradient by z_t = W h_{t-1} + u_t,

    delta_t = f'(z_t) (dL/dh_t directly + W^T delta_{t+1}),   dL/dW = sum_t delta_t h_{t-1}^T,   dL/du_t = delta_t,

and f' follows from h_t alone for every real nonlinearity here, so that h is all that is kept; of complex z_t the
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

KINDS = ("identity", "relu", "leaky_relu", "tanh", "elu", "modrelu", "complex modrelu")  # as in vectors.h
COMPLEX = KINDS[-1]


class Kept(NamedTuple):
    """What the backward of some steps reads: h (1 + steps, B, width) behind the state before them, and |z| if complex.

    The modulus is (steps, B, n), and None where no backward follows.
    """

    h: Tensor
    modulus: Tensor | None

    def of(self, part: slice) -> Kept:
        return Kept(self.h[part.start : part.stop + 1], None if self.modulus is None else self.modulus[part])


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
    """(T, B, width) states from the drive, or the last one alone, (1, B, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        engine: Callable[[str, Tensor, Tensor | None], Engine],
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
        complex_kept = kind == COMPLEX and keep
        kept = Kept(h, h0.new_empty(len(x), len(h0), h0.shape[1] // 2) if complex_kept else None)
        h[0] = h0
        run = engine(kind, W, bias)
        for part in parts:
            here = kept.of(part if whole else slice(0, part.stop - part.start))
            run.forward(drive.of(part).contiguous(), here)
            if not whole:
                h[0] = here.h[-1]
        ctx.kind, ctx.engine, ctx.last_only = kind, engine, last_only
        ctx.save_for_backward(x, V, c, W, bias, *kept)
        return h[:1].clone() if not whole else h[-1:].clone() if last_only else h[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, W, bias, *saved = ctx.saved_tensors
        drive, kept = Drive(x, V, c), Kept(*saved)
        by_drive, (by_h0, by_W, by_bias) = DriveGradients(drive, ctx.needs_input_grad[4:7]), ctx.needs_input_grad[7:]
        weights = torch.zeros_like(W) if by_W else None
        thresholds = torch.zeros_like(bias) if by_bias else None
        parts = drive.parts()
        room = torch.empty_like(kept.h[parts[0]])
        run = ctx.engine(ctx.kind, W, bias)
        # the loss's gradient by a part's last state
        through = grad[0] if ctx.last_only else torch.zeros_like(kept.h[0])
        for part in reversed(parts):
            direct = None if ctx.last_only else grad[part]
            if direct is not None:
                through = through + direct[-1]
            delta = room[: part.stop - part.start]
            through, by_thresholds = run.backward(direct, through, kept.of(part), delta, weights)
            by_drive.add(part, delta)
            if thresholds is not None:
                thresholds += by_thresholds
        return (*(None,) * 4, by_drive.x, by_drive.V, by_drive.c, through if by_h0 else None, weights, thresholds)
