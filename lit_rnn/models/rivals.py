"""The recurrences that people choose today, under the same protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from datamodules.errors import require
from datamodules.task import Task
from lit_rnn.cells import (
    Cell,
    CoRNNCell,
    DeltaProductCell,
    Discretization,
    LEMCell,
    LinOSSCell,
    LRUCell,
    MinGRUCell,
    MinLSTMCell,
    SLSTMCell,
    UnICORNNCell,
)
from lit_rnn.models.base import SequenceModel
from lit_rnn.optim import split_off, with_other


class CoRNN(SequenceModel):
    """Coupled oscillators: y'' = tanh(W y + W' y' + V x + b) - gamma y - epsilon y' (Rusch and Mishra 2021).

    2n^2 + n(I + 1) + O(n + 1) parameters: 134,154 on pixel MNIST with n = 256.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt of the Euler step.
        gamma: Squared frequency.
        epsilon: Damping.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return CoRNNCell(input_size, o.hidden_size, o.step_size, o.gamma, o.epsilon, o.learn_initial_state)


class UnICORNN(SequenceModel):
    """Undamped, independent oscillators in several layers (Rusch and Mishra 2021).

    n(I + 3) numbers in the first layer and n(n + 3) in each other: 136,202 parameters on pixel MNIST with three layers
    of 256, the decoder's among them.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt, the longest step.
        alpha: Squared frequency.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.19,
        alpha: float = 30.65,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return UnICORNNCell(input_size, o.hidden_size, o.step_size, o.alpha, o.learn_initial_state)


class LEM(SequenceModel):
    """Long expressive memory: two equations with learned time steps (Rusch et al. 2022).

    4n(n + I + 1) + O(n + 1) parameters: 67,850 on pixel MNIST with n = 128, where the paper's 68K counts each bias
    twice.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt, the largest step.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, step_size: float = 1.0, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return LEMCell(input_size, o.hidden_size, o.step_size, o.learn_initial_state)


class SLSTM(SequenceModel):
    """sLSTM: an LSTM with an exponential input gate, normalised and stabilised (Beck et al. 2024).

    The cell alone, with one head: neither the convolution before it nor the projections behind it of an xLSTM block.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        **kwargs: Options of `SequenceModel`, without learn_initial_state: the state that it starts from is empty.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        accepted = "false: SLSTM starts from a memory that is empty, n_0 = 0"
        require(not o.learn_initial_state, "model.init_args.learn_initial_state", o.learn_initial_state, accepted)
        return SLSTMCell(input_size, o.hidden_size)


# what multiplies the state depends on the input alone
_UNREAD = {"recurrent_lr_ratio": "a recurrence that has no parameters"}


class MinGRU(SequenceModel):
    """minGRU: a GRU whose one gate does not see the state (Feng et al. 2024).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        positive: Candidates above zero, as released; else linear ones.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, positive: bool = True, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _UNREAD

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return MinGRUCell(input_size, o.hidden_size, o.positive, o.learn_initial_state)


class MinLSTM(SequenceModel):
    """minLSTM: an LSTM whose gates do not see the state and add up to 1 (Feng et al. 2024).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        positive: Candidates above zero, as released; else linear ones.
        forget_bias: Added to the forget gate's bias at the start.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("forget_bias",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        positive: bool = True,
        forget_bias: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _UNREAD

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return MinLSTMCell(input_size, o.hidden_size, o.positive, o.forget_bias, o.learn_initial_state)


class LRU(SequenceModel):
    """Linear recurrent unit: a diagonal complex recurrence inside the unit circle (Orvieto et al. 2023).

    With several layers, ``encoder_size`` n, ``norm: layer`` and ``residual: true`` it has the shape of the published
    network, which has batch norm in the place of LayerNorm.

    Three groups: ``recurrent`` (nu and theta), ``gamma`` and ``other``. The first two take `recurrent_lr_ratio`, and no
    weight decay, which would pull |lambda| to 1/e and gamma to 1. So it is in Zucchet's `minimal-LRU`, where B is
    with them and their rate is half that of the rest. A run of a version without ``gamma`` goes on as it began.

    Args:
        task: The Task, or its dict.
        hidden_size: n, width of what each layer gives.
        state_size: Complex units of the state; null takes n.
        r_min: Smallest modulus to start with.
        r_max: Largest.
        max_phase: Largest phase to start with.
        glu: The published layer's nonlinearity behind the recurrence; false: all of it is linear.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("r_min", "r_max", "max_phase"))
    decays_recurrent = False

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        state_size: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        glu: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return LRUCell(
            input_size, o.hidden_size, o.state_size, o.r_min, o.r_max, o.max_phase, o.glu, o.learn_initial_state
        )

    def unread(self) -> dict[str, str]:
        alone = "gamma" in (self.options.group_optimizers or ())  # else it takes recurrent_lr_ratio as well
        return {key: beside for key, beside in super().unread().items() if alone or key != "recurrent_lr_ratio"}

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        gammas = [cell.log_gamma for cell in self.cell_list() if isinstance(cell, LRUCell)]
        return with_other(self, recurrent=super().parameter_groups()["recurrent"], gamma=gammas)

    def group_options(self) -> dict[str, dict[str, Any]]:
        options = super().group_options()
        return {**options, "gamma": options["recurrent"]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also of a checkpoint from when gamma was part of the group ``other``, whose rate and decay it keeps."""
        split_off(checkpoint, self, self.parameter_groups(), "gamma", "other", {"lr_ratio": 1.0})
        super().on_load_checkpoint(checkpoint)


class LinOSS(SequenceModel):
    """Linear oscillatory state-space model: forced harmonic oscillators, uncoupled (Rusch and Rus 2025).

    Layers, encoder, norm and residual as for `LRU`. The group ``recurrent`` (a and b, behind A and dt) takes no weight
    decay, which would pull A to 0 and dt to 1/2; the released code decays nothing. A run of a version that decayed them
    goes on as it began.

    Args:
        task: The Task, or its dict.
        hidden_size: n, width of what each layer gives.
        state_size: Oscillators, complex ones; null takes n.
        discretization: ``IM``, which forgets, or ``IMEX``, which keeps volume.
        glu: The published layer's nonlinearity behind the recurrence; false: all of it is linear.
        **kwargs: Options of `SequenceModel`.
    """

    decays_recurrent = False

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        state_size: int | None = None,
        discretization: Discretization = "IM",
        glu: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return LinOSSCell(input_size, o.hidden_size, o.state_size, o.discretization, o.glu, o.learn_initial_state)


class DeltaProduct(SequenceModel):
    """Several generalised Householder steps on a matrix for every input (Siems et al. 2025).

    Args:
        task: The Task, or its dict.
        hidden_size: n, a multiple of heads.
        householder: Steps for each input.
        heads: How many matrices, each of key_size times n / heads numbers.
        key_size: Their height; null takes n / heads.
        negative: Eigenvalues of a step in (-1, 1) instead of (0, 1).
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        householder: int = 2,
        heads: int = 1,
        key_size: int | None = None,
        negative: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _UNREAD

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return DeltaProductCell(
            input_size, o.hidden_size, o.householder, o.heads, o.key_size, o.negative, o.learn_initial_state
        )
