"""LSTM and GRU, as torch defines them and as the NRU paper ran them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import one_of, require
from lit_rnn.cells.base import Cell, State
from lit_rnn.init import Fill, chain_, chrono_, dense_, orthogonal_, ramp_, source_, xavier_, xavier_normal_

GateInit = Literal["plain", "orthogonal", "chain", "mixed", "glorot", "xavier", "xavier_normal_joint"]

# per start: the recurrent matrix of sigmoid gates, that of the candidate, every input matrix
_STARTS: dict[GateInit, tuple[Fill, Fill, Fill]] = {
    "orthogonal": (orthogonal_, orthogonal_, dense_),
    "chain": (chain_, chain_, source_),
    "mixed": (ramp_, chain_, source_),
    "glorot": (orthogonal_, orthogonal_, xavier_normal_),
    "xavier": (xavier_, xavier_, xavier_),
}


def _uniform_(hidden_size: int, *parameters: Tensor) -> None:
    """U(-1/sqrt(n), 1/sqrt(n)) everywhere, torch's own start."""
    for parameter in parameters:
        nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)


def gates_start_(input: nn.Linear, recurrent: nn.Linear, init: GateInit, candidate: int) -> None:
    """Start every gate's (n, n) and (n, I) block by ``init``; biases follow ``plain`` or are zero.

    ``plain``: torch's. ``orthogonal``, ``chain``, ``mixed``: the treatments of Orhan and Pitkow 2020; ``mixed`` is a
    chain in the candidate (block number ``candidate``) and a rising ramp in the sigmoid gates. ``glorot``: orthogonal
    recurrent and Glorot normal input matrices, as in the NRU paper. ``xavier``: Glorot uniform throughout, as in the
    uRNN papers. ``xavier_normal_joint``: Glorot normal, [W V] of a gate (n, n + I) being one matrix, as in the nnRNN
    paper: all N(0, 2 / (2n + I)).
    """
    one_of(init, "model.init_args.init", get_args(GateInit))
    n = recurrent.in_features
    _uniform_(n, input.weight, input.bias, recurrent.weight)
    if init == "plain":
        return
    nn.init.zeros_(input.bias)
    if init == "xavier_normal_joint":
        for weight in (recurrent.weight, input.weight):
            nn.init.normal_(weight, std=(2 / (2 * n + input.in_features)) ** 0.5)
        return
    sigmoid_, candidate_, input_ = _STARTS[init]
    for block, (W, V) in enumerate(zip(recurrent.weight.split(n), input.weight.split(n), strict=True)):
        with torch.no_grad():  # the blocks are views of the parameters
            (candidate_ if block == candidate else sigmoid_)(W)
            input_(V)


class LSTMCell(Cell):
    """i, f, o = sigma(.), g = tanh(.) of U x_t + W h_{t-1} + b;  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t).

    Gates in torch's order i, f, g, o, and one bias vector where torch keeps two that only ever act as their sum:
    4n(n + I + 1) parameters. With peepholes (Graves 2013), i and f also see w c_{t-1} and o sees w c_t, elementwise:
    3n more. State (h, c). A step costs one (B, n) x (n, 4n) product.

    With an output matrix, o_t = sigma(U_o x_t + W_o h_{t-1} + V_o c_t + b_o), V_o (n, n): the baseline of the uRNN
    papers (Arjovsky et al. 2016, Wisdom et al. 2016), which also trains h_0 and c_0 from zero. n^2 more, and a second
    product, (B, n) x (n, n).

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate).

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        forget_bias: Start of the forget gate's bias; 1 as in the baselines of the uRNN and NRU papers.
        learn_initial_state: Train (h_0, c_0) instead of keeping them zero.
        peepholes: Graves' form; the weights w start at U(0, 1).
        t_max: Chrono start: forget bias log u, input bias -log u (`lit_rnn.init.chrono_`), instead of ``forget_bias``.
        chrono_integers: The NRU paper's law of u.
        init: Start of the matrices, gate by gate: `gates_start_`.
        output_matrix: Train V_o, from Glorot uniform; without ``peepholes``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        forget_bias: float = 1.0,
        learn_initial_state: bool = False,
        peepholes: bool = False,
        t_max: int | None = None,
        chrono_integers: bool = False,
        init: GateInit = "plain",
        output_matrix: bool = False,
    ) -> None:
        accepted = "false where model.init_args.peepholes is true: the output gate sees c_t by one or the other"
        require(not (output_matrix and peepholes), "model.init_args.output_matrix", output_matrix, accepted)
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), learn_initial_state)
        self.input = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peephole = nn.Parameter(torch.rand(3, hidden_size)) if peepholes else None
        gates_start_(self.input, self.recurrent, init, candidate=2)
        input_bias, forget = self.input.bias.detach().split(hidden_size)[:2]
        nn.init.constant_(forget, forget_bias)
        if t_max is not None:
            input_bias.copy_(-chrono_(forget, t_max, chrono_integers))
        self.output = nn.Linear(hidden_size, hidden_size, bias=False) if output_matrix else None
        if self.output is not None:
            xavier_(self.output.weight)

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h, c = state
        i, f, g, o = torch.addmm(u, h, w.mT).chunk(4, dim=-1)
        if self.peephole is None:
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            if self.output is not None:
                o = torch.addmm(o, c, self.output.weight.mT)
            h = torch.sigmoid(o) * torch.tanh(c)
            return h, (h, c)
        w_i, w_f, w_o = self.peephole.unbind()
        c = torch.sigmoid(f + w_f * c) * c + torch.sigmoid(i + w_i * c) * torch.tanh(g)
        h = torch.sigmoid(o + w_o * c) * torch.tanh(c)
        return h, (h, c)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("input", "forget", "cell", "output"), self.recurrent.weight.chunk(4), strict=True))


class GRUCell(Cell):
    """r, z = sigma(U x_t + W h_{t-1} + b);
    c = tanh(U_c x_t + b_c + r (W_c h_{t-1} + b_h));  h_t = (1 - z) c + z h_{t-1}.

    torch's form: the reset gate acts after the candidate's product. Gates in torch's order r, z, c; of its second
    bias only b_h, the one that is not redundant, is kept: 3n(n + I + 1) + n parameters. A step costs one
    (B, n) x (n, 3n) product.

    With ``reset`` before, the original form, c = tanh(U_c x_t + b_c + W_c (r h_{t-1})): no b_h, and the product with
    W_c waits for r.

    Source: Cho et al. 2014.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        learn_initial_state: Train h_0 instead of keeping it zero.
        reset: ``after`` the candidate's product, or ``before`` it (the original; the NRU paper's).
        init: Start of the matrices, gate by gate: `gates_start_`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        learn_initial_state: bool = False,
        reset: Literal["after", "before"] = "after",
        init: GateInit = "plain",
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.input = nn.Linear(input_size, 3 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size)) if reset == "after" else None
        gates_start_(self.input, self.recurrent, init, candidate=2)
        if self.candidate_bias is not None and init == "plain":
            _uniform_(hidden_size, self.candidate_bias)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        W, b = self.recurrent.weight, self.candidate_bias
        return W, None if b is None else torch.cat((b.new_zeros(2 * self.hidden_size), b))

    def step(self, u: Tensor, state: State, w: tuple[Tensor, Tensor | None]) -> tuple[Tensor, State]:
        (h,) = state
        W, b = w
        sizes = (2 * self.hidden_size, self.hidden_size)
        u_gates, u_candidate = u.split(sizes, dim=-1)
        if b is None:
            W_gates, W_candidate = W.split(sizes)
            r, z = torch.sigmoid(torch.addmm(u_gates, h, W_gates.mT)).chunk(2, dim=-1)
            c = torch.tanh(torch.addmm(u_candidate, r * h, W_candidate.mT))
        else:
            gates, candidate = torch.addmm(b, h, W.mT).split(sizes, dim=-1)
            r, z = torch.sigmoid(u_gates + gates).chunk(2, dim=-1)
            c = torch.tanh(u_candidate + r * candidate)
        h = c + z * (h - c)
        return h, (h,)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("reset", "update", "candidate"), self.recurrent.weight.chunk(3), strict=True))
