"""The plain RNN."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datamodules.errors import require
from datamodules.task import Task
from lit_rnn.activations import NonlinearityOrModReLU
from lit_rnn.cells import Cell, LayerNormRNNCell, VanillaRNNCell
from lit_rnn.dtypes import as_plain
from lit_rnn.init import Fill, chain_, dense_, fbchain_, gaussian_, identity_, orthogonal_, source_
from lit_rnn.models.base import SequenceModel

Init = Literal["orthogonal", "identity", "gaussian", "chain", "fbchain"]
VanillaInputInit = Literal["cell", "gaussian", "source", "xavier", "xavier_normal", "torch", "kaiming", "uniform"]
InputBias = Literal["zero", "torch"]

_INPUT_INITS: dict[str, Fill] = {
    "gaussian": dense_,
    "source": source_,
    "xavier": functools.partial(nn.init.xavier_normal_, gain=2**0.5),
}
_STRONG_GROWTH = 1e3


@torch.no_grad()
def growth(W: Tensor, steps: int) -> float:
    """Largest |W^k|_2 over k = 1, 2, 4, .., steps and n - 1: how much a linear network amplifies. Cost O(n^3 log T)."""
    power, best = W.double(), 0.0
    chosen = {steps, min(steps, len(W) - 1)}  # a chain is at its largest just before it ends
    for k in sorted(chosen | {2**i for i in range(steps.bit_length())}):
        W_k = torch.linalg.matrix_power(power, k)
        best = max(best, torch.linalg.matrix_norm(W_k, 2).item() if W_k.isfinite().all() else math.inf)
    return best


class VanillaRNN(SequenceModel):
    """h_t = f(W h_{t-1} + V x_t + b), W free after its named start.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        nonlinearity: f; ``modrelu`` has a threshold beside b, as in RNN-orth of the nnRNN paper (Kerg et al. 2019).
        init: Start of W: ``orthogonal`` (lam Q), ``identity`` (lam I), ``gaussian`` (N(0, lam^2 / n)), ``chain``
            (alpha below the diagonal) or ``fbchain`` (beta above it, too), the last two of Orhan and Pitkow 2020.
        lam: Scale of the first three.
        alpha: Gain along the chain; null: 1.02 for chain, 0.99 for fbchain, as in their code.
        beta: Gain of the feedback.
        input_init: Start of V: ``gaussian`` (std 0.9 / sqrt(n)), ``source`` (0.9 times the rectangular identity: input
            k drives only unit k), ``xavier`` (here normal with gain sqrt 2, the NRU paper's) or another name of
            `SequenceModel`; null or ``cell``: source for chains, else gaussian.
        input_bias: Start of b: ``zero`` (but with ``input_init: torch``, which draws b, too), or ``torch``:
            U(-1/sqrt(I), 1/sqrt(I)) whatever V starts at, as in the nnRNN paper's RNN-orth.
        layer_norm: LayerNorm inside f: with relu and xavier the RNN-orth and RNN-id of the NRU paper.
        linear: f = identity, as ``nonlinearity: identity``; b stays, in what the input gives.
        orthogonal_penalty: c; c |W^T W - I|_F^2 is added to the training loss (Vorontsov et al. 2017).
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("init", "lam", "alpha", "beta", "input_bias", "orthogonal_penalty"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        nonlinearity: NonlinearityOrModReLU = "tanh",
        init: Init = "orthogonal",
        lam: float = 1.0,
        alpha: float | None = None,
        beta: float = 0.04,
        input_init: VanillaInputInit | None = None,
        input_bias: InputBias = "zero",
        layer_norm: bool = False,
        linear: bool = False,
        orthogonal_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        require(orthogonal_penalty >= 0, "model.init_args.orthogonal_penalty", orthogonal_penalty, "0 or positive")
        super().__init__(task, hidden_size, **kwargs)
        self._warn_of_growth()

    def unread(self) -> dict[str, str]:
        init = self.options.init
        gains = ("alpha", "beta") if init == "fbchain" else ("alpha",) if init == "chain" else ("lam",)
        return super().unread() | {key: f"init: {init}" for key in ("lam", "alpha", "beta") if key not in gains}

    def _warn_of_growth(self) -> None:
        """Tell of a start that explodes over the task's length; tanh and LayerNorm hold it down."""
        options, length = self.options, self.task.length
        if options.layer_norm or self._nonlinearity() == "tanh" or length is None:
            return
        factor = growth(self.cell_list()[0].recurrent_matrices()["recurrent"], length)
        if factor >= _STRONG_GROWTH:
            of = {"chain": "alpha", "fbchain": "alpha and beta"}.get(options.init, "lam")
            warnings.warn(
                f"VanillaRNN starts with a linear growth of {factor:.3g} over {length} steps ({options.init}); "
                f"lower model.init_args.{of} if the loss is not a number.",
                stacklevel=2,
            )

    def _nonlinearity(self) -> NonlinearityOrModReLU:
        """The name of f."""
        named: NonlinearityOrModReLU = self.options.nonlinearity
        if not self.options.linear:
            return named
        accepted = "tanh, which is replaced, or identity where model.init_args.linear is true"
        require(named in ("tanh", "identity"), "model.init_args.nonlinearity", named, accepted)
        accepted = "false where model.init_args.linear is true: LayerNorm is not linear"
        require(not self.options.layer_norm, "model.init_args.layer_norm", True, accepted)
        return "identity"

    def _start(self) -> Fill:
        """The function that fills W."""
        o = self.options
        if o.init == "chain":
            return functools.partial(chain_, alpha=1.02 if o.alpha is None else o.alpha)
        if o.init == "fbchain":
            return functools.partial(fbchain_, alpha=0.99 if o.alpha is None else o.alpha, beta=o.beta)
        fill = {"orthogonal": orthogonal_, "identity": identity_, "gaussian": gaussian_}[o.init]
        return functools.partial(fill, lam=o.lam)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        cell = LayerNormRNNCell if o.layer_norm else VanillaRNNCell
        own = _INPUT_INITS["source" if o.init in ("chain", "fbchain") else "gaussian"]
        input_ = _INPUT_INITS.get(o.input_init, own)
        built = cell(input_size, o.hidden_size, self._nonlinearity(), self._start(), o.learn_initial_state, input_)
        if o.input_init not in (None, "cell", *_INPUT_INITS):
            built.start_input_(o.input_init)
        if o.input_bias == "torch":
            nn.init.uniform_(built.input.bias, -(input_size**-0.5), input_size**-0.5)
        return built

    def penalty(self) -> Tensor | None:
        strength = self.options.orthogonal_penalty
        if not strength:
            return None
        matrices = [as_plain(matrix) for cell in self.cell_list() for matrix in cell.recurrent_matrices().values()]
        with torch.autocast(self.device.type, enabled=False):  # W^T W - I cancels
            return strength * sum(((W.mT @ W).sub(torch.eye(len(W), device=W.device)) ** 2).sum() for W in matrices)
