"""Twenty training steps beside the released update rules, in NumPy.

Nothing of this side is taken from lit_rnn: the network, its backward pass, the maps' gradients and the optimizers (the
last two in `tests.oracles`) are written out from the papers and from what the released scripts of scoRNN, scuRNN and
Wisdom et al. do. The options of our side are those of the shipped configs, so that a config that says something else
fails here.

A gradient of a complex array is dL/dRe + i dL/dIm, as in torch. Both sides must have equal A, W and all else after
every step, whatever numbers they keep:
- scoRNN steps a full skew A with V^T - V, which is the gradient of our n(n-1)/2 free numbers.
- scuRNN steps all entries of A with the gradient's projection on the skew-Hermitian matrices. The gradient of our
  free numbers is twice that, but equal to it on the diagonal: 4 times its epsilon under the root, which the configs
  give, is the same step off the diagonal only. The last test says what is left.
- Its Adam and scoRNN's are TensorFlow's, which adds epsilon to the root of a v that still has its bias.

Not taken over from the releases: float32, their initial numbers, modReLU's divisor (r here, r + 1e-5 there) and, of
the full uRNN, the gradient of the top half of [[Re, Im], [-Im, Re]] alone: its rules act on the true gradient here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.random import RandomState

import lit_rnn.models
import lit_rnn.optim
from datamodules import CopyMemory
from lit_rnn.commands.configs import config_folder
from lit_rnn.models import SequenceModel
from lit_rnn.runs.config import with_full_names
from tests.oracles.maps import Array, Numbers, cayley_gradient, cayley_of
from tests.oracles.optim import (
    CayleyStep,
    RMSProp,
    Rule,
    TensorflowAdagrad,
    TensorflowAdam,
    keras_rmsprop,
    tensorflow_rmsprop,
    theano_rmsprop,
)

N, SYMBOLS, LENGTH, BATCH, STEPS = 8, 10, 8, 4, 20
TASK = CopyMemory(delay=4).task  # 10 symbols in, 9 classes out at every step


def scurnn_rmsprop(lr: float, on_diagonal: float = 1e-8) -> RMSProp:
    inside = np.full((N, N), 1e-8)
    np.fill_diagonal(inside, on_diagonal)
    return RMSProp(lr, start=0.0, inside=np.repeat(inside, 2, axis=1))


# ---- the network: z = W h + V x, h = z / r relu(r + b) with r = sqrt(|z|^2 + e), o = Re(C* h) + c


def loss_and_gradients(p: Numbers, x: Array, y: Array, e: float) -> tuple[float, Numbers]:
    """Mean cross-entropy over all steps, and its gradients through time. x and y are (T, B); real modReLU has e = 0."""
    W, V, b, C, c = (p[name] for name in ("W", "V", "b", "C", "c"))
    h = np.broadcast_to(p["h0"], (x.shape[1], len(b)))
    tape, loss, share = [], 0.0, 1.0 / x.size
    for x_t, y_t in zip(x, y, strict=True):
        z = h @ W.T + V.T[x_t]
        modulus = np.sqrt(abs(z) ** 2 + e)
        opened = modulus + b > 0
        new = z * np.where(opened, modulus + b, 0.0) / modulus
        o = (new @ C.conj().T).real + c
        o = o - o.max(1, keepdims=True)
        q = np.exp(o) / np.exp(o).sum(1, keepdims=True)
        right = np.arange(len(y_t)), y_t
        loss -= share * np.log(q[right]).sum()
        q[right] -= 1.0
        tape.append((x_t, h, z, modulus, opened, new, share * q))
        h = new
    g = {name: np.zeros_like(value) for name, value in p.items()}
    back = np.zeros_like(h)
    for x_t, before, z, modulus, opened, new, delta in reversed(tape):
        g["C"] += delta.T @ new
        g["c"] += delta.sum(0)
        back = back + delta @ C
        inner = (back.conj() * z).real * opened / modulus  # of h = s z by the numerator of s
        g["b"] += inner.sum(0)
        s = np.where(opened, modulus + b, 0.0) / modulus
        z_bar = s * back + inner * (1.0 - s) * z / modulus
        g["W"] += z_bar.T @ before.conj()
        np.add.at(g["V"].T, x_t, z_bar)
        back = z_bar @ W.conj()
    g["h0"] += back.sum(0)
    return float(loss), g


# ---- the recurrent matrix: what the scripts do with dL/dW


@dataclass
class Real:
    """scoRNN: A by ``rule``; ``transposed`` where the script's row vectors, h W, are kept."""

    A: Array
    d: Array
    rule: Rule
    transposed: bool = False

    def matrix(self) -> Array:
        W = cayley_of(self.A) * self.d
        return W.T if self.transposed else W

    def gradient(self, G: Array) -> Array:
        V = cayley_gradient(G.T if self.transposed else G, self.A, np.diag(self.d))
        return V.T - V

    def step(self, W: Array, G: Array) -> Array:
        self.A = self.rule(self.A, self.gradient(G))
        return self.matrix()


@dataclass
class Complex:
    """scuRNN: A by ``rule``, theta by ``phase_rule``; ``transposed`` as in `Real`."""

    A: Array
    theta: Array
    rule: Rule
    phase_rule: Rule
    transposed: bool = False

    def matrix(self) -> Array:
        W = cayley_of(self.A) * np.exp(1j * self.theta)
        return W.T if self.transposed else W

    def gradient(self, G: Array) -> tuple[Array, Array]:
        G, d = (G.T if self.transposed else G).conj() / 2, np.exp(1j * self.theta)
        update = cayley_gradient(G, self.A, np.diag(d))
        return update.T - update.conj(), 2 * (1j * np.diag(G.T @ cayley_of(self.A)) * d).real

    def step(self, W: Array, G: Array) -> Array:
        of_A, of_theta = self.gradient(G)
        self.theta = self.phase_rule(self.theta, of_theta)
        self.A = self.rule(self.A, of_A)
        return self.matrix()


@dataclass
class Oracle:
    numbers: Numbers
    recurrent: Real | Complex | CayleyStep
    rest: Callable[[], Rule]
    rules: dict[str, Rule] = field(default_factory=dict)

    @property
    def e(self) -> float:
        return 0.0 if isinstance(self.recurrent, Real) else 1e-5

    def train(self, x: Array, y: Array) -> float:
        loss, g = loss_and_gradients(self.numbers, x, y, self.e)
        new = {"W": self.recurrent.step(self.numbers["W"], g.pop("W"))}
        if isinstance(self.recurrent, Real):
            new["h0"] = self.numbers["h0"]  # stays zero
        for name in g.keys() - new:
            new[name] = self.rules.setdefault(name, self.rest())(self.numbers[name], g[name])
        self.numbers = new
        return loss

    def everything(self) -> Numbers:
        return self.numbers | {k: v for k, v in vars(self.recurrent).items() if k in ("A", "theta")}


# ---- what the scripts run, by the config that names them


@dataclass
class Released:
    """The rules of the rest, of A (or W's own step), and of theta."""

    rest: Callable[[], Rule]
    recurrent: Any
    phase: Rule | None = None


def released(config: str, exactly: bool = False) -> Released:
    """``exactly``: with the epsilon that ours has four times as large, on the diagonal of scuRNN's A."""
    folder, model = config.split("/")[0], class_name(config)
    if model == "ScoRNN":
        adding = folder == "adding"
        rest = functools.partial(TensorflowAdam if adding else tensorflow_rmsprop, 1e-3)
        return Released(rest, recurrent=tensorflow_rmsprop(1e-4))
    if model == "ScuRNN":
        return Released(
            lambda: TensorflowAdam(1e-3),
            recurrent=scurnn_rmsprop(1e-4, on_diagonal=1e-8 if exactly else 4e-8),
            phase=TensorflowAdagrad(1e-3 if folder in ("adding", "pixel_mnist") else 1e-4),
        )
    if folder == "pixel_mnist":  # natGradRMS, in Keras
        lr = 1e-4 if "_512" in config else 1e-3
        return Released(lambda: keras_rmsprop(lr), recurrent=CayleyStep(1e-6, keras_rmsprop(lr)))
    return Released(lambda: theano_rmsprop(1e-3), recurrent=CayleyStep(1e-3))


def class_name(config: str) -> str:
    return yaml.safe_load((config_folder() / config).read_text())["model"]["class_path"]


CONFIGS = [
    path.relative_to(config_folder()).as_posix()
    for pattern in ("scornn", "scurnn", "fullurnn")
    for path in sorted(config_folder().glob(f"*/{pattern}*.yaml"))
    if path.parent.name != "timit" or pattern != "scornn"  # of which nothing is released
]


def small_model(config: str, **changes: Any) -> SequenceModel:
    """The config's model with its optimizers at a small size, in float64."""
    run = yaml.safe_load((config_folder() / config).read_text())
    assert "gradient_clip_val" not in run["trainer"]  # no script clips
    options = run["model"]["init_args"] | {"hidden_size": N, "backend": "loop"} | changes
    if "negatives" in options:
        options["negatives"] = 3
    options = with_full_names(options, "model.init_args")
    torch.manual_seed(7)
    return getattr(lit_rnn.models, run["model"]["class_path"])(TASK, **options).double()


def real(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()


def as_complex(stacked: Array, axis: int) -> Array:
    re, im = np.split(stacked, 2, axis)
    return re + 1j * im


def numbers_of(model: SequenceModel) -> Numbers:
    """All numbers of a model in the oracle's terms, A and theta among them."""
    cell, state = model.cells[0], {name.removeprefix("cells.0."): real(v) for name, v in model.state_dict().items()}
    found = {"W": real(cell.recurrent()), "b": state["activation.bias"], "c": state["decoder.bias"]}
    V, C = state["input.weight"], state["decoder.weight"]
    if hasattr(cell.recurrent, "generator"):
        found["A"] = real(cell.recurrent.generator())
    if hasattr(cell.recurrent, "phase"):
        found["theta"] = real(cell.recurrent.phase)
    if not np.iscomplexobj(found["W"]):
        return found | {"V": V, "C": C, "h0": np.zeros(N)}
    return found | {"V": as_complex(V, 0), "C": as_complex(C, 1), "h0": as_complex(state["initial.0"], 0)}


def oracle_of(model: SequenceModel, rules: Released) -> Oracle:
    """The released system at a model's numbers."""
    numbers, kept, recurrent = numbers_of(model), model.cells[0].recurrent, rules.recurrent
    A, theta = (numbers.pop(name, None) for name in ("A", "theta"))
    if theta is not None:
        recurrent = Complex(A, theta, recurrent, rules.phase, kept.released_order)
    elif A is not None:
        recurrent = Real(A, real(kept.signs), recurrent, kept.released_order)
    return Oracle(numbers, recurrent, rules.rest)


def batches(seed: int) -> list[tuple[Array, Array]]:
    """Random symbols and answers, time first."""
    random = RandomState(seed)
    shape = LENGTH, BATCH
    return [(random.randint(SYMBOLS, size=shape), random.randint(SYMBOLS - 1, size=shape)) for _ in range(STEPS)]


def train_step(model: SequenceModel, optimizer: torch.optim.Optimizer, x: Array, y: Array) -> float:
    optimizer.zero_grad()
    logits = model(torch.from_numpy(x.T.copy()))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y.T.copy()).flatten())
    loss.backward()
    optimizer.step()
    return loss.item()


# ---- tests


SCORNN, SCURNN = "copying/scornn.yaml", "copying/scurnn.yaml"
LAST = {"released_order": True}  # D last
OPTIONS: list[Any] = [(config, options) for config in (SCORNN, SCURNN) for options in ({}, LAST)]


@pytest.mark.parametrize(("config", "options"), OPTIONS)
def test_the_oracle_is_right_by_differences(config: str, options: dict[str, Any]) -> None:
    """Slopes of its loss along random directions, against its gradients; those of A and theta by the scripts' rules."""
    oracle, random, (x, y) = oracle_of(small_model(config, **options), released(config)), RandomState(1), batches(0)[0]
    numbers, recurrent = oracle.numbers, oracle.recurrent
    assert np.abs(recurrent.matrix() - numbers["W"]).max() < 1e-14
    _, g = loss_and_gradients(numbers, x, y, oracle.e)

    def draw(like: Array) -> Array:
        direction = random.standard_normal(like.shape)
        return direction + 1j * random.standard_normal(like.shape) if np.iscomplexobj(like) else direction

    def slope(along: Callable[[float], Numbers]) -> float:
        ahead, behind = (loss_and_gradients(numbers | along(h), x, y, oracle.e)[0] for h in (3e-6, -3e-6))
        return (ahead - behind) / 6e-6

    def inner(a: Array, b: Array) -> float:
        return float((a.conj() * b).real.sum())

    for name, value in numbers.items():
        to = draw(value)
        found = slope(lambda h, name=name, value=value, to=to: {name: value + h * to})
        assert found == pytest.approx(inner(g[name], to), rel=1e-6, abs=1e-10), name

    to = draw(recurrent.A)
    to = to - to.conj().T
    found = slope(lambda h: {"W": replace(recurrent, A=recurrent.A + h * to).matrix()})
    if isinstance(recurrent, Real):  # of free numbers, each of which stands at two places
        assert found == pytest.approx(inner(recurrent.gradient(g["W"]), to) / 2, rel=1e-6)
    else:
        of_A, of_theta = recurrent.gradient(g["W"])
        assert found == pytest.approx(inner(of_A, to), rel=1e-6)
        turn = draw(recurrent.theta)
        found = slope(lambda h: {"W": replace(recurrent, theta=recurrent.theta + h * turn).matrix()})
        assert found == pytest.approx(inner(of_theta, turn), rel=1e-6)


@pytest.mark.parametrize(("config", "options"), [(config, {}) for config in CONFIGS] + OPTIONS[1::2])
def test_training_is_the_released_one(config: str, options: dict[str, Any]) -> None:
    model = small_model(config, **options)
    train_both(model, oracle_of(model, released(config)), model.configure_optimizers())


@pytest.mark.parametrize("config", ["copying/fullurnn.yaml", "pixel_mnist/fullurnn.yaml"])
def test_long_steps_tell_the_retraction(config: str) -> None:
    """At the released rates, other retractions than Cayley's are within 1e-10 as well."""
    model = small_model(config)
    oracle, optimizer = oracle_of(model, released(config)), model.configure_optimizers()
    oracle.recurrent.lr *= 1e3
    (group,) = (group for group in optimizer.param_groups if group["name"] == "recurrent")
    group["lr"] *= 1e3
    train_both(model, oracle, optimizer)


def train_both(model: SequenceModel, oracle: Oracle, optimizer: torch.optim.Optimizer) -> None:
    """Twenty steps on both sides: equal to 1e-10, and to a millionth of the way that they went."""
    start = oracle.everything()
    for step, (x, y) in enumerate(batches(3), 1):
        assert train_step(model, optimizer, x, y) == pytest.approx(oracle.train(x, y), rel=0, abs=1e-10)
        found, wanted = numbers_of(model), oracle.everything()
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            way = np.abs(value - start[name]).max()
            assert way > 1e-7 or (name == "h0" and way == 0), name  # scoRNN's h_0 is zero
            assert np.abs(found[name] - value).max() < min(1e-10, 1e-6 * way + 1e-15), (name, step)


def test_an_epsilon_on_the_diagonal_is_all_that_differs() -> None:
    """A first step of scuRNN beside the script's own: the diagonal of A by what the epsilons say, all else equal."""
    model, (x, y) = small_model(SCURNN), batches(3)[0]
    oracle = oracle_of(model, released(SCURNN, exactly=True))
    start, (_, g) = oracle.everything(), loss_and_gradients(oracle.numbers, x, y, oracle.e)
    mean = 0.1 * np.diag(oracle.recurrent.gradient(g["W"])[0]).imag ** 2
    ratio = np.ones((N, N))
    np.fill_diagonal(ratio, np.sqrt((mean + 1e-8) / (mean + 4e-8)))
    assert (ratio.diagonal() < 1 - 1e-6).all()
    train_step(model, model.configure_optimizers(), x, y)
    oracle.train(x, y)
    found, theirs = numbers_of(model), oracle.everything()
    for name in theirs.keys() - {"W"}:  # which follows from A
        step = theirs[name] - start[name]
        assert np.abs(found[name] - start[name] - (ratio if name == "A" else 1.0) * step).max() < 1e-13, name
