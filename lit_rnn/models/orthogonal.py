"""The orthogonal and unitary architectures: a cell each, and what its optimizer must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from datamodules.errors import one_of, require
from datamodules.task import Task
from lit_rnn.activations import ModReLU, NonlinearityOrModReLU
from lit_rnn.cells import (
    Cell,
    EURNNCell,
    FullURNNCell,
    GORUCell,
    HouseholderRNNCell,
    NnRNNCell,
    RealEURNNCell,
    ScoRNNCell,
    ScuRNNCell,
    URNNCell,
)
from lit_rnn.init import SKEW_INITS, SkewInitName
from lit_rnn.models.base import SequenceModel
from lit_rnn.optim import split_off, with_other
from lit_rnn.parametrizations import OrthogonalMap, SchurForm, UnitaryScaledCayley
from lit_rnn.parametrizations.rotations import RotationLayout
from lit_rnn.parametrizations.schur import UpperEntries


class OrthogonalRNN(SequenceModel):
    """What models with a constrained W share: a rate of its own for W's parameters, and no weight decay on them.

    Decay would pull the generator to zero, that is W to the identity.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        recurrent_lr_ratio: Learning rate of the parameters behind W over that of the rest.
        double_precision_map: Compute W in float64 and cast it: drift at the rounding of the cast.
        modrelu_bias: Start of modReLU's b; null leaves it to the cell. Released: U(-0.01, 0.01) in expRNN, nnRNN,
            scuRNN and uRNN, 0 in scoRNN, oRNN and Wisdom et al.'s pixel MNIST; 0 in EURNN's complex network, 0.01 in
            its real one (there an eps inside modReLU).
        linear: f = identity and no b: h_t = W h_{t-1} + V x_t, the linear recurrence.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("double_precision_map", "modrelu_bias"))
    decays_recurrent = False

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        recurrent_lr_ratio: float = 0.1,
        double_precision_map: bool = False,
        modrelu_bias: float | None = None,
        linear: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, recurrent_lr_ratio=recurrent_lr_ratio, **kwargs)
        for module in self.modules():
            if isinstance(module, OrthogonalMap):
                module.double_precision = double_precision_map
        thresholds = [module.bias for module in self.modules() if isinstance(module, ModReLU)]
        accepted = "null where f is not modReLU"
        require(modrelu_bias is None or bool(thresholds), "model.init_args.modrelu_bias", modrelu_bias, accepted)
        if modrelu_bias is not None:
            for bias in thresholds:
                nn.init.constant_(bias, modrelu_bias)

    @staticmethod
    def check_init(init: str) -> None:
        one_of(init, "model.init_args.init", SKEW_INITS)


class OneRateRNN(OrthogonalRNN):
    """Those whose paper has one learning rate for all parameters: ``recurrent_lr_ratio`` is 1 unless it is given."""

    def __init__(
        self, task: dict[str, Any] | Task, hidden_size: int, recurrent_lr_ratio: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(task, hidden_size, recurrent_lr_ratio, **kwargs)


class ScoRNN(OrthogonalRNN):
    """scoRNN: W = (I + A)^-1 (I - A) D with fixed signs D (Helfrich et al. 2018).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        negatives: rho, the entries of D that are -1; null takes n // 2. The released script takes n/10 on pixel MNIST.
        init: Spectrum that A starts with; see `lit_rnn.init`.
        released_order: D last, as in the released code, instead of first, as in the paper.
        **kwargs: Options of `OrthogonalRNN`.
    """

    training_options = frozenset(("init",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        negatives: int | None = None,
        init: SkewInitName = "cayley",
        released_order: bool = False,
        **kwargs: Any,
    ) -> None:
        self.check_init(init)
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        init = SKEW_INITS[o.init]
        return ScoRNNCell(
            input_size, o.hidden_size, o.negatives, init, o.released_order, o.learn_initial_state, o.linear
        )


class ScuRNN(OrthogonalRNN):
    """scuRNN: complex W = (I + A)^-1 (I - A) diag(e^{i theta}), theta trained (Maduranga et al. 2019).

    Three groups: ``recurrent`` (A), ``phase`` (theta), ``other``. The paper gives each its own optimizer (RMSprop on A,
    Adagrad on theta, Adam for the rest): ``group_optimizers``.

    Args:
        task: The Task, or its dict.
        hidden_size: n, complex units.
        init: Spectrum that the real part of A starts with.
        phase_lr_ratio: Learning rate of theta over that of the rest.
        learn_initial_state: Train h_0, as the paper does.
        released_order: D = diag(e^{i theta}) last, as in the released code, instead of first, as in the paper.
        **kwargs: Options of `OrthogonalRNN`.
    """

    training_options = frozenset(("init", "phase_lr_ratio"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        init: SkewInitName = "cayley",
        phase_lr_ratio: float = 1.0,
        learn_initial_state: bool = True,
        released_order: bool = False,
        **kwargs: Any,
    ) -> None:
        self.check_init(init)
        require(phase_lr_ratio >= 0, "model.init_args.phase_lr_ratio", phase_lr_ratio, "0 or positive")
        super().__init__(task, hidden_size, learn_initial_state=learn_initial_state, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        init = SKEW_INITS[o.init]
        return ScuRNNCell(input_size, o.hidden_size, init, o.learn_initial_state, o.released_order, o.linear)

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        phases = [module.phase for module in self.modules() if isinstance(module, UnitaryScaledCayley)]
        ours = {id(phase) for phase in phases}
        recurrent = [p for p in super().parameter_groups()["recurrent"] if id(p) not in ours]
        return with_other(self, recurrent=recurrent, phase=phases)

    def group_options(self) -> dict[str, dict[str, Any]]:
        return {**super().group_options(), "phase": {"lr_ratio": self.options.phase_lr_ratio, "weight_decay": 0.0}}


class URNN(OneRateRNN):
    """Restricted-capacity uRNN: W = D3 R2 F^-1 D2 P R1 F D1 (Arjovsky et al. 2016).

    Args:
        task: The Task, or its dict.
        hidden_size: n, complex units.
        learn_initial_state: Train h_0, as the paper does.
        **kwargs: Options of `OneRateRNN`.
    """

    cell_class: type[URNNCell | FullURNNCell] = URNNCell

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        learn_initial_state: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, learn_initial_state=learn_initial_state, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return self.cell_class(input_size, o.hidden_size, o.learn_initial_state, o.linear)


class FullURNN(URNN):
    """Full-capacity uRNN: W any unitary matrix, moved by a Riemannian step (Wisdom et al. 2016).

    The group ``recurrent`` lives on U(n) and takes one of `lit_rnn.optim`'s RiemannianSGD, RiemannianRMSprop and
    RiemannianAdam (the default), as ``optimizer`` (the rest then takes torch's own step of that name) or in
    ``group_optimizers``. The released copying script takes RiemannianSGD for W and the Theano RMSprop for the rest.
    With RiemannianRMSprop, as released for MNIST, copying is not learnt: delay 300, 450 steps of 20 sequences, n = 128:
    loss 0.08 (chance 0.065), against 0.002 with the default and below 1e-4 as released. Arguments as `URNN`.
    """

    cell_class = FullURNNCell
    default_optimizer: ClassVar = {"class_path": "lit_rnn.optim.RiemannianAdam", "init_args": {"lr": 1e-3}}
    unnamed_optimizer: ClassVar = {"class_path": "lit_rnn.optim.RiemannianRMSprop", "init_args": {"lr": 1e-3}}

    def group_options(self) -> dict[str, dict[str, Any]]:
        options = super().group_options()
        return {**options, "recurrent": {**options["recurrent"], "manifold": True}}

    def not_averaged(self) -> str | None:
        return "W itself is averaged, and a mean of unitary matrices is not unitary (ExpRNN with unitary averages A)"


def _unread_by_rotations(options: Any) -> dict[str, str]:
    return {"capacity": "layout: fft"} if options.layout == "fft" else {}


class EURNN(OneRateRNN):
    """EURNN: W layers of 2x2 rotations, complex or real (Jing et al. 2017).

    Args:
        task: The Task, or its dict.
        hidden_size: n: even, a power of two for layout fft.
        capacity: Layers of layout tunable: even, 2 to n.
        layout: Which coordinates are paired.
        unitary: Complex W; false gives the real network.
        **kwargs: Options of `OneRateRNN`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        capacity: int = 2,
        layout: RotationLayout = "tunable",
        unitary: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _unread_by_rotations(self.options)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        cell_class = EURNNCell if o.unitary else RealEURNNCell
        return cell_class(input_size, o.hidden_size, o.capacity, o.layout, o.learn_initial_state, o.linear)


class GORU(OneRateRNN):
    """Gated orthogonal recurrent unit: gates around real 2x2 rotations (Jing et al. 2019).

    Args:
        task: The Task, or its dict.
        hidden_size: n: even, a power of two for layout fft.
        capacity: Layers of layout tunable.
        layout: Which coordinates are paired.
        released_biases: b_c = 0.011, b_g ~ U(-sqrt(3/n), sqrt(3/n)) at the start, as in the released code.
        **kwargs: Options of `OneRateRNN`.
    """

    training_options = frozenset(("released_biases",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        capacity: int = 2,
        layout: RotationLayout = "fft",
        released_biases: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _unread_by_rotations(self.options)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        require(not o.linear, "model.init_args.linear", o.linear, "false: GORU's gates are not linear")
        return GORUCell(input_size, o.hidden_size, o.capacity, o.layout, o.learn_initial_state, o.released_biases)


class HouseholderRNN(OneRateRNN):
    """oRNN: W a product of Householder reflections (Mhammedi et al. 2017).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        reflections: m, from 1 to n; null takes n.
        nonlinearity: ``modrelu``, as in the other orthogonal networks, or ``leaky_relu`` (slope 0.1, bias inside), as
            released, tanh, relu, elu or identity (bias inside, too).
        learn_initial_state: Train h_0, as the paper does.
        **kwargs: Options of `OneRateRNN`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        reflections: int | None = None,
        nonlinearity: NonlinearityOrModReLU = "modrelu",
        learn_initial_state: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, learn_initial_state=learn_initial_state, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        accepted = "modrelu, which is replaced, or identity where model.init_args.linear is true"
        fits = not o.linear or o.nonlinearity in ("modrelu", "identity")
        require(fits, "model.init_args.nonlinearity", o.nonlinearity, accepted)
        return HouseholderRNNCell(
            input_size, o.hidden_size, o.reflections, o.learn_initial_state, o.nonlinearity, o.linear
        )


class NnRNN(OrthogonalRNN):
    """nnRNN: W = P (Theta + T) P^T, held near orthogonal by a penalty and by decay (Kerg et al. 2019).

    Four groups: ``recurrent`` (the generator of P), ``upper`` (T, with its own decay), ``blocks`` (Theta, at the rate
    of the rest, never decayed: that would pull gamma to 0), ``other``.

    Args:
        task: The Task, or its dict.
        hidden_size: n, even.
        init: Spectrum that the generator of P starts with.
        gain_penalty: delta; delta sum_i (gamma_i - 1)^2 is added to the training loss.
        upper_decay: L2 weight decay of T, for optimizers that take ``weight_decay``.
        upper: The entries of T: ``outside_blocks`` of Theta, or ``released``: the authors' code has one more inside
            each 2x2 block, n/2 in all; see `lit_rnn.parametrizations.SchurForm`.
        **kwargs: Options of `OrthogonalRNN`.
    """

    training_options = frozenset(("init", "gain_penalty", "upper_decay"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        init: SkewInitName = "henaff",
        gain_penalty: float = 1e-4,
        upper_decay: float = 1e-6,
        upper: UpperEntries = "outside_blocks",
        **kwargs: Any,
    ) -> None:
        self.check_init(init)
        require(gain_penalty >= 0, "model.init_args.gain_penalty", gain_penalty, "0 or positive")
        require(upper_decay >= 0, "model.init_args.upper_decay", upper_decay, "0 or positive")
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return NnRNNCell(input_size, o.hidden_size, SKEW_INITS[o.init], o.learn_initial_state, o.upper, o.linear)

    def _forms(self) -> list[SchurForm]:
        return [module for module in self.modules() if isinstance(module, SchurForm)]

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        forms = self._forms()
        return with_other(
            self,
            recurrent=[form.basis.skew for form in forms],
            upper=[form.upper for form in forms],
            blocks=[parameter for form in forms for parameter in (form.angles, form.gains)],
        )

    def group_options(self) -> dict[str, dict[str, Any]]:
        own = {"upper": {"weight_decay": self.options.upper_decay}, "blocks": {"weight_decay": 0.0}}
        return {**super().group_options(), **own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also of a checkpoint from when Theta was part of the group ``other``."""
        split_off(checkpoint, self, self.parameter_groups(), "blocks", "other", self.group_options()["blocks"])
        super().on_load_checkpoint(checkpoint)

    def penalty(self) -> Tensor | None:
        if not self.options.gain_penalty:
            return None
        return self.options.gain_penalty * sum(form.penalty() for form in self._forms())
