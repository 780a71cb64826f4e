"""The gated baselines and the NRU."""

from __future__ import annotations

from typing import Any, Literal

from datamodules.errors import require, whole_or_null
from datamodules.task import Task
from lit_rnn.cells import Cell, GateInit, GRUCell, JANETCell, LSTMCell, NRUCell, NRUForm, StatisticalRUCell
from lit_rnn.models.base import SequenceModel


def _unread_by_chrono(options: Any) -> dict[str, str]:
    return {"chrono_integers": "t_max: null"} if options.t_max is None else {"forget_bias": f"t_max: {options.t_max}"}


class LSTM(SequenceModel):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), with chrono and chain starts.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        forget_bias: Start of the forget gate's bias.
        peepholes: Graves' form (2013), the NRU paper's baseline.
        t_max: Chrono start for memories of up to t_max steps (Tallec and Ollivier 2018); null takes forget_bias.
        chrono_integers: Draw the chrono start from whole numbers 1 to t_max, as the NRU paper's code does.
        init: Start of each gate's matrices: plain (torch's), orthogonal, chain, mixed (Orhan and Pitkow 2020), glorot
            (the NRU paper's), xavier (Glorot uniform, the uRNN papers') or xavier_normal_joint (the nnRNN paper's).
        output_matrix: o_t sees V_o c_t, V_o (n, n), as in the baseline of the uRNN papers; with it they have forget
            bias 1, init xavier and a trained initial state.
        last_hidden_size: Width of the last layer; null: n, as of the others. With ``tied_decoder`` that of the
            embedding, as in AWD-LSTM (Merity et al. 2018).
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("forget_bias", "t_max", "chrono_integers", "init"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        forget_bias: float = 1.0,
        peepholes: bool = False,
        t_max: int | None = None,
        chrono_integers: bool = False,
        init: GateInit = "plain",
        output_matrix: bool = False,
        last_hidden_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        key = "model.init_args.last_hidden_size"
        whole_or_null(last_hidden_size, key, 1)
        layers = kwargs.get("layers", 1) > 1 and not kwargs.get("residual") and not kwargs.get("bidirectional")
        alone = "null, or another width where there are several layers, without residual and bidirectional"
        require(last_hidden_size is None or layers, key, last_hidden_size, alone)
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _unread_by_chrono(self.options)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        is_last = len(getattr(self, "cells", ())) == o.layers - 1  # those below are there already
        return LSTMCell(
            input_size,
            o.last_hidden_size if is_last and o.last_hidden_size is not None else o.hidden_size,
            o.forget_bias,
            o.learn_initial_state,
            o.peepholes,
            o.t_max,
            o.chrono_integers,
            o.init,
            o.output_matrix,
        )


class GRU(SequenceModel):
    """Gated recurrent unit (Cho et al. 2014).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        reset: The reset gate acts ``after`` the candidate's product (torch) or ``before`` it (the original).
        init: Start of each gate's matrices, as for `LSTM`.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("init",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        reset: Literal["after", "before"] = "after",
        init: GateInit = "plain",
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return GRUCell(input_size, o.hidden_size, o.learn_initial_state, o.reset, o.init)


class JANET(SequenceModel):
    """An LSTM with its forget gate only (van der Westhuizen and Lasenby 2018).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        beta: What is taken off the gate where it lets new values in; 1 in the paper, 0 in the NRU paper.
        t_max: Chrono start for memories of up to t_max steps; null takes forget_bias.
        chrono_integers: Draw the chrono start from whole numbers 1 to t_max, as the NRU paper's code does.
        forget_bias: Start of the forget gate's bias without t_max.
        init: Start of each gate's matrices, as for `LSTM`.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("forget_bias", "t_max", "chrono_integers", "init"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        beta: float = 1.0,
        t_max: int | None = None,
        chrono_integers: bool = False,
        forget_bias: float = 1.0,
        init: GateInit = "glorot",
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        return super().unread() | _unread_by_chrono(self.options)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return JANETCell(
            input_size,
            o.hidden_size,
            o.beta,
            o.t_max,
            o.chrono_integers,
            o.forget_bias,
            o.init,
            o.learn_initial_state,
        )


class StatisticalRU(SequenceModel):
    """Statistical recurrent unit: moving averages at several time scales (Oliva et al. 2017).

    Args:
        task: The Task, or its dict.
        hidden_size: Width of the output.
        statistics_size: How many statistics are averaged.
        summary_size: Width of what the next statistics see of the averages.
        alphas: Decays of the averages, each in [0, 1).
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        statistics_size: int,
        summary_size: int,
        alphas: tuple[float, ...] = (0.0, 0.5, 0.9, 0.99, 0.999),
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return StatisticalRUCell(
            input_size, o.hidden_size, o.statistics_size, o.summary_size, tuple(o.alphas), o.learn_initial_state
        )


class NRU(SequenceModel):
    """Non-saturating recurrent unit: ReLU state beside an additive memory (Chandar et al. 2019).

    Args:
        task: The Task, or its dict.
        hidden_size: Width of the state that the decoder reads.
        memory_size: Width of the memory; heads times it (in the paper's form, it alone) must be a perfect square.
        heads: How many vectors are written and erased at each step.
        use_relu: ReLU on their weights and, before they are normalised, on the vectors.
        layer_norm: LayerNorm inside the state's ReLU.
        form: ``released`` (the authors' code) or ``paper``.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        memory_size: int,
        heads: int = 4,
        use_relu: bool = False,
        layer_norm: bool = False,
        form: NRUForm = "released",
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return NRUCell(
            input_size, o.hidden_size, o.memory_size, o.heads, o.use_relu, o.layer_norm, o.form, o.learn_initial_state
        )
