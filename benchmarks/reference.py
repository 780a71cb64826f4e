"""The other side of the tables: recurrences as a user writes them from the papers, one step at a time.

Each loop takes x (T, B, I) and returns the list of its T outputs (B, n); autograd does the rest. `loop_of` gives it
the numbers of one of our cells, and `disagreement` says how far outputs and gradients then are from `scan`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_rnn.cells import NRUCell, OrthogonalCell
from lit_rnn.scan import Backend, scan

Read = Callable[[nn.Parameter], Tensor]  # what is asked of a parameter: its value or its gradient


class ExpRNNLoop(nn.Module):
    """h_t = modReLU(W h_{t-1} + V x_t; b), W = exp(A) once per sequence: Lezcano-Casado and Martinez-Rubio 2019.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        exponential: W = exp(A), A = -A^T the part of ``A`` above the diagonal, mirrored; else W is ``A`` as it stands.
    """

    def __init__(self, input_size: int, hidden_size: int, exponential: bool = True) -> None:
        super().__init__()
        self.exponential = exponential
        self.A = nn.Parameter(torch.zeros(hidden_size, hidden_size))
        self.V = nn.Linear(input_size, hidden_size, bias=False)
        self.b = nn.Parameter(torch.zeros(hidden_size))

    def modrelu(self, z: Tensor) -> Tensor:
        return torch.sign(z) * torch.relu(torch.abs(z) + self.b)

    def matrix(self) -> Tensor:
        above = self.A.triu(1)
        return torch.matrix_exp(above - above.T) if self.exponential else self.A

    def forward(self, x: Tensor) -> list[Tensor]:
        W = self.matrix()
        h = x.new_zeros(x.shape[1], len(W))
        outputs = []
        for x_t in x:
            h = self.modrelu(self.V(x_t) + h @ W.T)
            outputs.append(h)
        return outputs

    @staticmethod
    def counterparts(cell: OrthogonalCell, read: Read) -> dict[str, Tensor]:
        if isinstance(cell.recurrent, nn.Linear):
            A = read(cell.recurrent.weight)
        else:
            entries, n = read(cell.recurrent.skew), cell.hidden_size
            A = entries.new_zeros(n, n)
            A[tuple(torch.triu_indices(n, n, 1))] = entries
        return {"A": A, "V.weight": read(cell.input.weight), "b": read(cell.activation.bias)}


class NRULoop(nn.Module):
    """The non-saturating recurrent unit in its released form (Chandar et al. 2019): linear maps of concatenations.

    h_t = ReLU(W [x_t; h_{t-1}; m_{t-1}] + b). Of c = [h_t; m_{t-1}]: alpha and beta in R^k, and for writing and for
    erasing [p; q] in R^{2s}, s = sqrt(k M), whose outer product p q^T becomes k rows of M, each of L5 norm 1.
    m_t = m_{t-1} + mean over the heads of alpha_i v_i - beta_i u_i.
    """

    def __init__(self, input_size: int, hidden_size: int, memory_size: int, heads: int) -> None:
        super().__init__()
        self.sizes, self.heads, self.side = (hidden_size, memory_size), heads, math.isqrt(heads * memory_size)
        self.hidden = nn.Linear(input_size + hidden_size + memory_size, hidden_size)
        self.alpha = nn.Linear(hidden_size + memory_size, heads)
        self.beta = nn.Linear(hidden_size + memory_size, heads)
        self.write = nn.Linear(hidden_size + memory_size, 2 * self.side)
        self.erase = nn.Linear(hidden_size + memory_size, 2 * self.side)

    def vectors(self, factors: Tensor) -> Tensor:
        p, q = factors.chunk(2, dim=1)
        outer = torch.bmm(p.unsqueeze(2), q.unsqueeze(1))
        return nn.functional.normalize(outer.view(len(p), self.heads, -1), p=5, dim=2, eps=1e-12)

    def forward(self, x: Tensor) -> list[Tensor]:
        h, m = (x.new_zeros(x.shape[1], size) for size in self.sizes)
        outputs = []
        for x_t in x:
            h = torch.relu(self.hidden(torch.cat((x_t, h, m), dim=1)))
            c = torch.cat((h, m), dim=1)
            written = self.alpha(c).unsqueeze(2) * self.vectors(self.write(c))
            erased = self.beta(c).unsqueeze(2) * self.vectors(self.erase(c))
            m = m + (written - erased).mean(1)
            outputs.append(h)
        return outputs

    @staticmethod
    def counterparts(cell: NRUCell, read: Read) -> dict[str, Tensor]:
        columns = [read(linear.weight) for linear in (cell.input, cell.recurrent, cell.memory)]
        found = {"hidden.weight": torch.cat(columns, dim=1), "hidden.bias": read(cell.input.bias)}
        for name in ("alpha", "beta", "write", "erase"):
            linear = cell.get_submodule(name)
            found |= {f"{name}.weight": read(linear.weight), f"{name}.bias": read(linear.bias)}
        return found


Loop = ExpRNNLoop | NRULoop


def loop_of(cell: OrthogonalCell | NRUCell) -> Loop:
    """The loop of the same recurrence, with the numbers of ``cell``."""
    loop: Loop
    if isinstance(cell, NRUCell):
        loop = NRULoop(cell.input_size, cell.hidden_size, cell.memory_size, cell.heads)
    else:
        loop = ExpRNNLoop(cell.input_size, cell.hidden_size, not isinstance(cell.recurrent, nn.Linear))
    loop.to(next(cell.parameters()).dtype)
    loop.load_state_dict(loop.counterparts(cell, lambda parameter: parameter.detach()))
    return loop


def disagreement(cell: OrthogonalCell | NRUCell, x: Tensor, backend: Backend) -> float:
    """Largest difference between loop and scan over outputs and all gradients, each over its largest entry."""
    loop = loop_of(cell)
    cell.zero_grad()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    theirs, ours = torch.stack(loop(inputs[0])), scan(cell, inputs[1], backend=backend)[0]
    gradient = torch.randn_like(theirs)
    theirs.backward(gradient)
    ours.backward(gradient)
    wanted = {name: parameter.grad for name, parameter in loop.named_parameters()}
    wanted |= {"outputs": theirs.detach(), "x": inputs[0].grad}
    found = loop.counterparts(cell, lambda parameter: parameter.grad)
    found |= {"outputs": ours.detach(), "x": inputs[1].grad}
    assert wanted.keys() == found.keys()
    return max(float((wanted[key] - found[key]).abs().max() / wanted[key].abs().max()) for key in wanted)
