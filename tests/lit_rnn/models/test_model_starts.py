"""`input_init` and `decoder_init` of every model: laws by hand, gate by gate, and a random stream that stays."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from datamodules import CopyMemory, PixelMNIST, Task
from datamodules.errors import UserError
from lit_rnn import models
from lit_rnn.cells import Cell, ExpRNNCell, LSTMCell, State
from lit_rnn.models import SequenceModel

COPY = CopyMemory(delay=10).task  # 10 symbols in, 9 classes out
N = 64
BOTH: dict[str, dict[str, Any]] = {
    "ExpRNN": {},
    "DtrivRNN": {},
    "ScoRNN": {},
    "ScuRNN": {},
    "URNN": {},
    "FullURNN": {},
    "EURNN": {},
    "GORU": {},
    "HouseholderRNN": {},
    "NnRNN": {},
    "VanillaRNN": {},
    "LSTM": {},
    "GRU": {},
    "JANET": {},
    "NRU": {"memory_size": 16},
    "StatisticalRU": {"statistics_size": 20, "summary_size": 5},
    "LipschitzRNN": {},
    "AntisymmetricRNN": {},
}
GATES = {"LSTM": 4, "GRU": 3, "JANET": 2, "GORU": 3}


def build(name: str, hidden: int = N, task: Task = COPY, **options: Any) -> SequenceModel:
    torch.manual_seed(7)
    return getattr(models, name)(task, hidden, **BOTH[name], **options)


def numbers(W: Tensor) -> np.ndarray:
    return W.detach().flatten().double().numpy()


def is_uniform(W: Tensor, bound: float) -> bool:
    x = numbers(W)
    return bool(np.abs(x).max() <= bound and stats.kstest(x, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-4)


def is_normal(W: Tensor, std: float) -> bool:
    return bool(stats.kstest(numbers(W), "norm", args=(0, std)).pvalue > 1e-4)


def input_blocks(model: SequenceModel) -> tuple[Tensor, ...]:
    weight = model.cell_list()[0].input.weight
    return weight.chunk(GATES.get(type(model).__name__, 1))


LAWS: dict[str, Callable[[Tensor], bool]] = {  # of a matrix (rows, fan in)
    "torch": lambda V: is_uniform(V, V.shape[1] ** -0.5),
    "kaiming": lambda V: is_normal(V, (2 / V.shape[1]) ** 0.5),
    "xavier": lambda V: is_uniform(V, (6 / sum(V.shape)) ** 0.5),
    "xavier_normal": lambda V: is_normal(V, (2 / sum(V.shape)) ** 0.5),
    "uniform": lambda V: is_uniform(V, 0.01),
}


@pytest.mark.parametrize("init", LAWS)
@pytest.mark.parametrize("name", [name for name in BOTH if name != "VanillaRNN"])
def test_every_input_map_starts_as_named_gate_by_gate(name: str, init: str) -> None:
    for V in input_blocks(build(name, input_init=init)):
        assert LAWS[init](V)


@pytest.mark.parametrize("init", [init for init in LAWS if init != "xavier"])
def test_the_vanilla_network_takes_the_same_names(init: str) -> None:
    (V,) = input_blocks(build("VanillaRNN", input_init=init))
    assert LAWS[init](V)


def test_the_vanilla_networks_xavier_stays_the_nru_papers() -> None:
    (V,) = input_blocks(build("VanillaRNN", input_init="xavier"))
    assert is_normal(V, 2 / (N + 10) ** 0.5)


@pytest.mark.parametrize("name", BOTH)
def test_every_decoder_starts_as_named(name: str) -> None:
    for init in ("torch", "kaiming", "xavier", "xavier_normal"):
        decoder = build(name, decoder_init=init).decoder
        assert LAWS[init](decoder.weight)
        assert is_uniform(decoder.bias, decoder.in_features**-0.5) if init == "torch" else not decoder.bias.any()
    decoder = build(name, decoder_init="eunn").decoder
    assert is_uniform(decoder.weight, math.sqrt(6 / (10 + 9)))
    assert (decoder.bias == 0.01).all()
    decoder = build(name, decoder_init="tensorflow").decoder
    assert LAWS["xavier"](decoder.weight) and 0 < decoder.bias.abs().max() <= math.sqrt(6 / (9 + 9))


def test_published_standard_deviations() -> None:
    """expRNN's copying decoder, nnRNN's input map on pixel MNIST, EUNN's bound there."""
    assert build("ExpRNN", 190, decoder_init="kaiming").decoder.weight.std().item() == pytest.approx(0.103, abs=0.005)
    assert build("ExpRNN", 190).decoder.weight.std().item() == pytest.approx(0.042, abs=0.002)
    pixels = PixelMNIST(batch_size=2).task
    V = build("NnRNN", 512, pixels, input_init="xavier_normal").cell_list()[0].input.weight
    assert V.std().item() == pytest.approx(0.062, abs=0.006)
    assert is_uniform(build("EURNN", 128, pixels, decoder_init="eunn").decoder.weight, math.sqrt(6 / 11))
    many = Task(**{**asdict(COPY), "target_size": 2000})
    assert is_uniform(build("ScoRNN", 8, many, decoder_init="tensorflow").decoder.bias, math.sqrt(6 / 4000))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "JANET"])
def test_a_gate_of_one_matrix(name: str) -> None:
    """torch's xavier_normal_ of a gate's (n, n + I), as nnRNN's LSTM has it: fans n + I and n."""
    cell = build(name, init="xavier_normal_joint").cell_list()[0]
    for gate in torch.cat((cell.recurrent.weight, cell.input.weight), dim=1).split(N):
        assert is_normal(gate, (2 / (N + N + 10)) ** 0.5) and is_normal(gate[:, N:], (2 / (N + N + 10)) ** 0.5)
    assert set(cell.input.bias.tolist()) <= {0.0, 1.0}  # 1 where a forget gate is


def test_the_defaults_draw_what_they_always_drew() -> None:
    """The cell, then torch's own Linear, and nothing else."""
    cells: dict[str, Callable[[], Cell]] = {"ExpRNN": lambda: ExpRNNCell(10, N), "LSTM": lambda: LSTMCell(10, N)}
    for name, cell in cells.items():
        model, after = build(name, input_init="cell", decoder_init="torch"), torch.rand(())
        assert all(map(torch.equal, build(name).parameters(), model.parameters()))
        torch.manual_seed(7)
        parts = (cell(), nn.Linear(N, 9))
        expected = [parameter for part in parts for parameter in part.parameters()]
        assert all(map(torch.equal, model.parameters(), expected))
        assert torch.rand(()) == after


def test_biases_are_the_cells_own_but_for_torchs_start_of_a_plain_one() -> None:
    forget = build("LSTM", input_init="torch").cell_list()[0].input.bias[N : 2 * N]
    assert (forget == 1).all()
    for name in ("LipschitzRNN", "VanillaRNN"):
        assert not build(name, input_init="xavier_normal").cell_list()[0].input.bias.any()
        assert is_uniform(build(name, input_init="torch").cell_list()[0].input.bias, 10**-0.5)


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("input_init", "cell, torch, kaiming, xavier, xavier_normal, uniform"),
        ("decoder_init", "torch, kaiming, xavier, xavier_normal, tensorflow, eunn"),
    ],
)
def test_an_unknown_name_is_one_sentence(key: str, accepted: str) -> None:
    with pytest.raises(UserError, match=f"model.init_args.{key} is 'glorot', but it must be one of {accepted}."):
        build("ExpRNN", **{key: "glorot"})


def test_a_cell_without_an_input_map_is_one_sentence() -> None:
    class Sum(Cell):
        """h_t = h_{t-1} + x_t."""

        def __init__(self) -> None:
            super().__init__(10, 10, learn_initial_state=True)

        def weights(self) -> None: ...

        def drive(self, x: Tensor, w: None) -> Tensor:
            return x

        def step(self, u: Tensor, state: State, w: None) -> tuple[Tensor, State]:
            return state[0] + u, (state[0] + u,)

        def recurrent_matrices(self) -> dict[str, Tensor]:
            return {}

    class Adder(SequenceModel):
        def build_cell(self, input_size: int) -> Cell:
            return Sum()

    with pytest.raises(UserError, match="input_init is 'xavier', but it must be 'cell': Sum has a map of its own"):
        Adder(COPY, 10, input_init="xavier")
