"""expRNN and dtriv."""

from __future__ import annotations

from typing import Any, Literal

from datamodules.errors import one_of, whole_or_null
from datamodules.task import Task
from lit_rnn.cells import Cell, DtrivRNNCell, ExpRNNCell, UnitaryExpRNNCell
from lit_rnn.init import SKEW_INITS, SkewInitName
from lit_rnn.models.orthogonal import OrthogonalRNN
from lit_rnn.parametrizations import Cayley, Exponential, SkewMap

MapName = Literal["exp", "cayley"]
MAPS: dict[MapName, type[SkewMap]] = {"exp": Exponential, "cayley": Cayley}


class ExpRNN(OrthogonalRNN):
    """expRNN: h_t = modReLU(exp(A) h_{t-1} + V x_t; b), A skew-symmetric (Lezcano-Casado and Martinez-Rubio 2019).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        init: Spectrum that A starts with; see `lit_rnn.init`, and how an angle reads under either map.
        map: ``exp``, or ``cayley``: (I + A)^-1 (I - A).
        unitary: Complex h, A skew-Hermitian, W in U(n).
        recurrent_lr_ratio: Learning rate of A over that of the rest; the released README recommends 0.1.
        **kwargs: Options of `OrthogonalRNN`.
    """

    cell_class = ExpRNNCell

    training_options = frozenset(("init",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        init: SkewInitName = "henaff",
        map: MapName = "exp",
        unitary: bool = False,
        recurrent_lr_ratio: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.check_init(init)
        one_of(map, "model.init_args.map", MAPS)
        super().__init__(task, hidden_size, recurrent_lr_ratio=recurrent_lr_ratio, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        arguments = (input_size, o.hidden_size, SKEW_INITS[o.init], o.learn_initial_state, MAPS[o.map])
        if o.unitary:
            return UnitaryExpRNNCell(*arguments, self.cell_class.trivialized, o.linear)
        return self.cell_class(*arguments, o.linear)


class DtrivRNN(ExpRNN):
    """expRNN whose base point follows the weights: every K steps B <- B exp(A), A <- 0 (Lezcano-Casado 2019).

    As in the paper, a gradient is taken at the A that the step starts from: at A = 0 behind a rebase, which lies
    between two steps and so changes coordinates and nothing else. The optimizer's statistics of A stay as they are
    then, as in the released code. That code differs otherwise, and its runs are not repeated step by step:

    - It rebases within a pass, behind the exponential, so that in the first pass and in every K-th after it the
      gradient is still by the old A, while the step starts from 0; with K = 1 that is every step.
    - Its first pass moves exp(A_0) into B, with such a gradient at A_0. Here B is exp(A_0) and A is 0 from the start.
    - It counts that first rebase, and so projects after (M - 1)K, (2M - 1)K, .. steps, in float32 and seen from the
      next pass on; here after MK, 2MK, .., in float64 and seen at once.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        rebase_every: K, in optimizer steps; null never rebases, which is expRNN around its initial rotation.
        project_every: M: every M-th rebase projects B to its nearest orthogonal matrix; null never does. The released
            scripts use 30 on copying, 100 on MNIST and TIMIT, and count from a rebase before the first step.
        **kwargs: Options of `ExpRNN`.
    """

    cell_class = DtrivRNNCell

    training_options = frozenset(("rebase_every", "project_every"))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        rebase_every: int | None = 100,
        project_every: int | None = 100,
        **kwargs: Any,
    ) -> None:
        for key, every in (("rebase_every", rebase_every), ("project_every", project_every)):
            whole_or_null(every, f"model.init_args.{key}", 1)
        super().__init__(task, hidden_size, **kwargs)

    def unread(self) -> dict[str, str]:
        never = self.options.rebase_every is None
        return super().unread() | ({"project_every": "rebase_every: null"} if never else {})

    def not_averaged(self) -> str | None:
        if self.options.rebase_every is None:
            return None
        return "A is measured from a base that moves, and has no mean (rebase_every: null keeps the base)"

    def after_step(self, step: int) -> None:
        every, project_every = self.options.rebase_every, self.options.project_every
        if every is None or step % every:
            return
        for module in self.modules():
            if isinstance(module, SkewMap):
                module.rebase_()
                if project_every is not None and (step // every) % project_every == 0:
                    module.project_()
