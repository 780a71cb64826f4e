"""The rivals beside the code that their authors released, in outputs, last states and all gradients.

None of their code is here. What it gave in float64 is kept in ``tests/golden/rivals.json``: for each model repository
and commit, what was called (``code``) and how, the shapes of the inputs (T, B, I) and of the parameters by their names
there, and all that it ``gave``, every number as the shortest decimal that reads back as the same float64.

So that whoever has their code can make the file again, weights and inputs come from a formula: the numbers sin(j^2),
j = 1, 2, .., fill the inputs, then the parameters in the order of the file, then c, of the shape of the outputs
(T, B, n), each row by row. Gradients are those of the sum of c y. Made with torch 2.15.0 and float64 as its default;
LRU and LinOSS with jax 0.10.2 and ``jax_enable_x64``, flax 0.12.8 and equinox 0.13.8.

A function here says which of their parameters is which of ours; gradients come back through it under their names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.cells.base import State
from lit_rnn.cells.minimal import positive
from lit_rnn.scan import scan

Numbers = dict[str, Tensor]
Run = tuple[Tensor, Numbers]  # outputs (T, B, n), and the last states by their names

ROOT = Path(__file__).parents[3]
KEPT: dict[str, dict[str, Any]] = json.loads((ROOT / "tests" / "golden" / "rivals.json").read_text())


class Scan(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return scan(self.cell, x, state, backend="loop")


def run(cell: Cell, x: Tensor, ours: Numbers, state: State | None = None) -> tuple[Tensor, State]:
    """The cell with these numbers, all of them."""
    ours = {f"cell.{name}": value for name, value in ours.items()}
    return torch.func.functional_call(Scan(cell.double()), ours, (x, state), strict=True)


def cornn(x: Tensor, p: Numbers) -> Run:
    """i2h reads [x; z; y]."""
    V, W_z, W_y = p["i2h.weight"].split((3, 4, 4), dim=1)
    ours = {"input.weight": V, "input.bias": p["i2h.bias"], "recurrent.weight": torch.cat((W_y, W_z))}
    y, state = run(cells.CoRNNCell(3, 4, step_size=0.3, gamma=1.5, epsilon=0.7), x, ours)
    return y, dict(zip(("hy", "hz"), state, strict=True))


def unicornn(x: Tensor, p: Numbers) -> Run:
    ours = {"input.weight": p["DIs.0.fc.weight"], "input.bias": p["DIs.0.fc.bias"]}
    ours |= {"w": p["RNNs.0.weight_hh"], "c": p["RNNs.0.c_"]}
    y, state = run(cells.UnICORNNCell(3, 4, step_size=0.4, alpha=2.5), x, ours)
    return y, dict(zip(("hy", "hz"), state, strict=True))


def lem(x: Tensor, p: Numbers) -> Run:
    """Their first gate is y's, their second z's; i_z goes into y, i_y into z. Every map has a bias of its own."""

    def rows(kind: str) -> tuple[Tensor, Tensor]:
        r, s, y, z = p[f"inp2hid.{kind}"].chunk(4)
        r_h, s_h, z_h = p[f"hid2hid.{kind}"].chunk(3)
        return torch.cat((s, r, z, y)), torch.cat((s_h, r_h, z_h, p[f"transform_z.{kind}"]))

    (V, W), (b, b_h) = rows("weight"), rows("bias")
    ours = {"input.weight": V, "input.bias": b + b_h, "recurrent.weight": W}
    y, state = run(cells.LEMCell(3, 4, step_size=0.7), x, ours)
    return y, dict(zip(("y", "z"), state, strict=True))


def slstm(x: Tensor, p: Numbers) -> Run:
    """One head."""
    ours = {"input.weight": p["V"], "input.bias": p["_bias_"], "recurrent.weight": p["_recurrent_kernel_"][0]}
    y, state = run(cells.SLSTMCell(3, 4), x, ours)
    return y, dict(zip(("y", "c", "n", "m"), state, strict=True))


def state_space(B: Tensor, B_im: Tensor, C: Tensor, C_im: Tensor, D: Tensor) -> Numbers:
    """Re(C h) = Re C Re h - Im C Im h; their D is a vector."""
    return {"B.weight": torch.cat((B, B_im)), "C.weight": torch.cat((C, -C_im), dim=1), "D.weight": torch.diag(D)}


def lru_numbers(p: Numbers, at: str = "") -> Numbers:
    ours = {"nu": p[f"{at}nu_log"], "theta": p[f"{at}theta_log"], "log_gamma": p[f"{at}gamma_log"]}
    return ours | state_space(*(p[at + name] for name in ("B_re", "B_im", "C_re", "C_im", "D")))


def lru(x: Tensor, p: Numbers) -> Run:
    return run(cells.LRUCell(4, 4, state_size=3, glu=False), x, lru_numbers(p))[0], {}


def lru_layer(x: Tensor, p: Numbers) -> Run:
    """A layer norm before the cell, with flax's epsilon, and a skip connection over both."""
    ours = lru_numbers(p, "seq.")
    ours["glu.weight"] = torch.cat((p["out1.kernel"].mT, p["out2.kernel"].mT))
    ours["glu.bias"] = torch.cat((p["out1.bias"], p["out2.bias"]))
    normed = layer_norm(x, (4,), p["normalization.scale"], p["normalization.bias"], eps=1e-6)
    return x + run(cells.LRUCell(4, 4, state_size=3), normed, ours)[0], {}


def linoss_numbers(p: Numbers, at: str = "") -> Numbers:
    (B, B_im), (C, C_im) = (p[at + name].unbind(-1) for name in "BC")
    return {"a": p[f"{at}A_diag"], "b": p[f"{at}steps"]} | state_space(B, B_im, C, C_im, p[f"{at}D"])


def linoss_im(x: Tensor, p: Numbers) -> Run:
    return run(cells.LinOSSCell(4, 4, 3, "IM", glu=False), x, linoss_numbers(p))[0], {}


def linoss_imex(x: Tensor, p: Numbers) -> Run:
    return run(cells.LinOSSCell(4, 4, 3, "IMEX", glu=False), x, linoss_numbers(p))[0], {}


def linoss_gated(x: Tensor, p: Numbers) -> Run:
    ours = linoss_numbers(p, "ssm.")
    ours |= {f"glu.{kind}": torch.cat((p[f"glu.w1.{kind}"], p[f"glu.w2.{kind}"])) for kind in ("weight", "bias")}
    return run(cells.LinOSSCell(4, 4, 3), x, ours)[0], {}


def minimal(kind: type[cells.MinGRUCell | cells.MinLSTMCell]) -> Callable[[Tensor, Numbers], Run]:
    """The cell behind its inputs, from g of a start that is learned, and a map of h to the outputs."""

    def with_their(x: Tensor, p: Numbers) -> Run:
        ours = {f"input.{name}": p[f"to_hidden_and_gate.{name}"] for name in ("weight", "bias")}
        h, (last,) = run(kind(3, 6), x, ours, (positive(p["init_hidden_state"]).expand(x.shape[1], -1),))
        return linear(h, p["to_out.weight"], p["to_out.bias"]), {"next_hidden": last}

    return with_their


def deltaproduct(householder: int, negative: bool) -> Callable[[Tensor, Numbers], Run]:
    """The whole layer without convolution and gates, so with a map of y to the outputs."""

    def with_their(x: Tensor, p: Numbers) -> Run:
        cell = cells.DeltaProductCell(3, 6, householder, heads=2, key_size=2, negative=negative)
        V = torch.cat([p[f"{name}_proj.weight"] for name in ("q", "k", "v", "b")])
        y, (H,) = run(cell, x, {"input.weight": V, "scale": p["o_norm.weight"]})
        return linear(y, p["o_proj.weight"]), {"recurrent_state": cell.matrices(H)}

    return with_their


OURS: dict[str, Callable[[Tensor, Numbers], Run]] = {
    "CoRNN": cornn,
    "UnICORNN": unicornn,
    "LEM": lem,
    "SLSTM": slstm,
    "LRU": lru,
    "LRU, layer": lru_layer,
    "LinOSS, IM": linoss_im,
    "LinOSS, IMEX": linoss_imex,
    "LinOSS, gated": linoss_gated,
    "MinGRU": minimal(cells.MinGRUCell),
    "MinLSTM": minimal(cells.MinLSTMCell),
    "DeltaProduct": deltaproduct(2, negative=True),
    "DeltaProduct, not negative": deltaproduct(3, negative=False),
}


def sines(shapes: Iterable[Sequence[int]]) -> list[Tensor]:
    """Tensors of these shapes, filled one behind the other with sin(j^2), j = 1, 2, .."""
    shapes = list(map(tuple, shapes))
    sizes = list(map(math.prod, shapes))
    j = torch.arange(1, sum(sizes) + 1, dtype=torch.float64)
    return [part.reshape(shape) for part, shape in zip(torch.sin(j**2).split(sizes), shapes, strict=True)]


@pytest.mark.parametrize("name", sorted(KEPT.keys() | OURS.keys()))
def test_equals_what_their_code_gave(name: str) -> None:
    """Within 1e-12 of the largest number of each tensor."""
    kept = KEPT[name]
    x, *theirs, c = sines((kept["inputs"], *kept["parameters"].values(), np.shape(kept["gave"]["outputs"])))
    p = dict(zip(kept["parameters"], theirs, strict=True))
    by = [tensor.requires_grad_() for tensor in (x, *theirs)]
    y, last = OURS[name](x, p)
    gradients = zip(("inputs", *p), torch.autograd.grad((c * y).sum(), by), strict=True)
    gives = {"outputs": y} | {f"last {key}": value for key, value in last.items()}
    gives |= {f"gradient by {key}": value for key, value in gradients}
    assert gives.keys() == kept["gave"].keys()
    for key, value in gives.items():
        gave = np.array(kept["gave"][key])
        np.testing.assert_allclose(value.detach(), gave, rtol=0, atol=1e-12 * np.abs(gave).max(), err_msg=key)


def test_the_page_names_what_was_called() -> None:
    page = (ROOT / "docs" / "models" / "rivals.md").read_text()
    for kept in KEPT.values():
        assert f"| `{kept['repository']}`, {kept['commit'][:7]} |" in page
