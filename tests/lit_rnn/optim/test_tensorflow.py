"""RMSpropTF and AdamTF against the update rules of TensorFlow 1 and of the uRNN papers' Theano code, in NumPy."""

from __future__ import annotations

import copy
import functools
import io
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import UserError
from lit_rnn.optim import AdamTF, RMSpropTF
from tests.oracles.optim import Array, Rule, TensorflowAdam, tensorflow_rmsprop, theano_rmsprop

Arrays = list[Array]


def followed(p: Arrays, gradients: list[Arrays], rule: Callable[[], Rule]) -> Arrays:
    """Every array by a rule of its own."""
    rules = [rule() for _ in p]
    for step in gradients:
        p = [one(x, g) for one, x, g in zip(rules, p, step, strict=True)]
    return p


def tensorflow(p: Arrays, gradients: list[Arrays], lr: float, momentum: float = 0.0) -> Arrays:
    return followed(p, gradients, lambda: tensorflow_rmsprop(lr, momentum=momentum))


def theano(p: Arrays, gradients: list[Arrays], lr: float) -> Arrays:
    return followed(p, gradients, lambda: theano_rmsprop(lr))


def adam(p: Arrays, gradients: list[Arrays], lr: float, b1: float = 0.9, b2: float = 0.999) -> Arrays:
    return followed(p, gradients, lambda: TensorflowAdam(lr, b1, b2))


def problem(steps: int = 30) -> tuple[Arrays, list[Arrays]]:
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (5,), ()]
    scales = 10.0 ** rng.uniform(-5, 1, steps)
    return (
        [rng.normal(size=shape) for shape in shapes],
        [[scale * rng.normal(size=shape) for shape in shapes] for scale in scales],
    )


def run(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], gradients: list[Arrays]) -> Arrays:
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.as_tensor(gradient)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


def as_parameters(arrays: Arrays) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor(array)) for array in arrays]


def close(ours: Arrays, expected: Arrays, atol: float = 1e-13) -> None:
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_defaults_are_tensorflows(momentum: float) -> None:
    p, gradients = problem()
    parameters = as_parameters(p)
    ours = run(RMSpropTF(parameters, lr=0.01, momentum=momentum), parameters, gradients)
    close(ours, tensorflow(p, gradients, 0.01, momentum))


def test_theanos() -> None:
    p, gradients = problem()
    parameters = as_parameters(p)
    close(
        run(RMSpropTF(parameters, lr=0.01, initial_accumulator=1e-3, eps=0.0), parameters, gradients),
        theano(p, gradients, 0.01),
    )


def test_the_first_step_in_closed_form() -> None:
    """lr g / sqrt(0.9 + 0.1 g^2); torch's takes lr g / (sqrt(0.1 g^2)): with g = 1e-3 three thousand times that."""
    g = 1e-3
    ours, theirs = as_parameters([np.zeros(1)]), as_parameters([np.zeros(1)])
    (step,) = run(RMSpropTF(ours, lr=1.0), ours, [[np.full(1, g)]])
    (torchs,) = run(torch.optim.RMSprop(theirs, lr=1.0, alpha=0.9), theirs, [[np.full(1, g)]])
    assert step[0] == pytest.approx(-g / math.sqrt(0.9 + 0.1 * g**2 + 1e-10), rel=1e-14)
    assert torchs[0] / step[0] == pytest.approx(3000, rel=1e-3)


def small(gradients: list[Arrays]) -> list[Arrays]:
    """Near epsilon, where its place decides."""
    return [[1e-6 * g for g in step] for step in gradients]


def test_tensorflows_adam() -> None:
    p, gradients = problem()
    parameters, theirs = as_parameters(p), as_parameters(p)
    ours = run(AdamTF(parameters, lr=0.01, betas=(0.8, 0.99)), parameters, small(gradients))
    close(ours, adam(p, small(gradients), 0.01, 0.8, 0.99))
    torchs = run(torch.optim.Adam(theirs, lr=0.01, betas=(0.8, 0.99)), theirs, small(gradients))
    assert abs(torchs[0] - ours[0]).max() > 1e-3


def test_adams_first_step_in_closed_form() -> None:
    """lr g / (|g| + eps / sqrt(1 - b2)): half of lr at g = 3e-7, where torch's is 0.97 lr."""
    g = 1e-8 / math.sqrt(0.001)
    ours, theirs = as_parameters([np.zeros(1)]), as_parameters([np.zeros(1)])
    (step,) = run(AdamTF(ours, lr=1.0), ours, [[np.full(1, g)]])
    (torchs,) = run(torch.optim.Adam(theirs, lr=1.0), theirs, [[np.full(1, g)]])
    assert step[0] == pytest.approx(-0.5, rel=1e-12) and torchs[0] == pytest.approx(-g / (g + 1e-8), rel=1e-9)


def test_adam_without_epsilon_is_torchs() -> None:
    p, gradients = problem()
    ours, theirs = as_parameters(p), as_parameters(p)
    options = {"lr": 0.01, "eps": 0.0, "weight_decay": 0.1}
    expected = run(torch.optim.Adam(theirs, **options), theirs, gradients)
    close(run(AdamTF(ours, **options), ours, gradients), expected)


def test_adam_counts_the_steps_of_every_parameter() -> None:
    """One whose gradient comes later has its first step later; options by group."""
    p, gradients = problem(12)
    parameters = as_parameters(p)
    optimizer = AdamTF(
        [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.1, "betas": (0.5, 0.9)}], lr=0.01
    )
    for number, step in enumerate(gradients):
        for k, (parameter, g) in enumerate(zip(parameters, step, strict=True)):
            parameter.grad = None if k == 2 and number < 5 else torch.as_tensor(g)
        optimizer.step()
    close([parameters[0].detach().numpy()], adam(p[:1], [step[:1] for step in gradients], 0.01))
    close([parameters[1].detach().numpy()], adam(p[1:2], [step[1:2] for step in gradients], 0.1, 0.5, 0.9))
    close([parameters[2].detach().numpy()], adam(p[2:], [step[2:] for step in gradients[5:]], 0.1, 0.5, 0.9))


def test_adams_complex_parameters_are_pairs_of_real_ones() -> None:
    rng = np.random.default_rng(1)
    z, *steps = (rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2)) for _ in range(11))
    parameters = as_parameters([z])
    (ours,) = run(AdamTF(parameters, lr=0.1), parameters, [[g] for g in steps])
    real, imaginary = adam([z.real, z.imag], [[g.real, g.imag] for g in steps], 0.1)
    close([ours], [real + 1j * imaginary])


def test_eps_outside_from_zero_is_torchs() -> None:
    p, gradients = problem()
    ours, theirs = as_parameters(p), as_parameters(p)
    options = {"lr": 0.01, "alpha": 0.95, "eps": 1e-6, "weight_decay": 0.1}
    expected = run(torch.optim.RMSprop(theirs, **options), theirs, gradients)
    close(run(RMSpropTF(ours, **options, initial_accumulator=0.0, eps_inside=False), ours, gradients), expected, 0)


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    gradients = [[rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))] for _ in range(10)]
    parameters = as_parameters([z])
    (ours,) = run(RMSpropTF(parameters, lr=0.1, momentum=0.5, weight_decay=0.0), parameters, gradients)
    parts = [[g[0].real, g[0].imag] for g in gradients]
    real, imaginary = tensorflow([z.real, z.imag], parts, 0.1, 0.5)
    close([ours], [real + 1j * imaginary])


def test_options_by_group() -> None:
    p, gradients = problem()
    parameters = as_parameters(p)
    groups = [
        {"params": parameters[:1]},
        {"params": parameters[1:], "lr": 0.1, "initial_accumulator": 1e-3, "eps": 0.0},
    ]
    ours = run(RMSpropTF(groups, lr=0.01), parameters, gradients)
    close(ours[:1], tensorflow(p, gradients, 0.01)[:1])
    close(ours[1:], theano(p, gradients, 0.1)[1:])


@pytest.mark.parametrize("make", [functools.partial(RMSpropTF, momentum=0.9), AdamTF], ids=["rmsprop", "adam"])
def test_weights_without_gradients_stay(make: Any) -> None:
    p, gradients = problem(3)
    parameters = as_parameters(p)
    optimizer = make(parameters, lr=0.01)
    for parameter, gradient in zip(parameters[1:], gradients[0][1:], strict=True):
        parameter.grad = torch.as_tensor(gradient)
    optimizer.step()
    np.testing.assert_array_equal(parameters[0].detach(), p[0])
    assert parameters[0] not in optimizer.state
    assert all(
        (parameter.detach().numpy() != before).all() for parameter, before in zip(parameters[1:], p[1:], strict=True)
    )
    make(as_parameters(p)).step()  # none at all


@pytest.mark.parametrize("eps_inside", [True, False])
def test_without_epsilon_a_gradient_that_is_always_zero_moves_nothing(eps_inside: bool) -> None:
    """The accumulator underflows to 0 in the end: 0 / 0."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([parameter], alpha=0.5, initial_accumulator=1e-3, eps=0.0, eps_inside=eps_inside)
    parameter.grad = torch.tensor([0.0, 1e-30])
    for _ in range(200):
        optimizer.step()
    assert not optimizer.state[parameter]["square_avg"].any()
    assert torch.isfinite(parameter).all() and parameter[0] == 1.0


@pytest.mark.parametrize("make", [functools.partial(RMSpropTF, momentum=0.9), AdamTF], ids=["rmsprop", "adam"])
def test_a_saved_state_continues_bit_for_bit(make: Any) -> None:
    p, gradients = problem()
    whole, first = as_parameters([*p, p[0] + 1j]), as_parameters([*p, p[0] + 1j])
    gradients = [[*step, step[0] * (1 - 2j)] for step in gradients]
    expected = run(make(whole, lr=0.01), whole, gradients)
    optimizer = make(first, lr=0.01)
    run(optimizer, first, gradients[:10])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = copy.deepcopy(first)
    again = make(second, lr=0.7)
    again.load_state_dict(torch.load(file, weights_only=True))
    close(run(again, second, gradients[10:]), expected, 0)
    third = copy.deepcopy(first)
    assert abs(run(make(third, lr=0.01), third, gradients[10:])[0] - expected[0]).max() > 1e-6


def test_a_closure_is_evaluated_once_with_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer, calls = RMSpropTF([parameter], lr=0.1), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == 1.0 and calls == [1.0] and parameter.item() < 1


@pytest.mark.parametrize("name", ["lr", "alpha", "eps", "initial_accumulator", "momentum", "weight_decay"])
def test_a_negative_option_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is -0\.1, but it must be"):
        RMSpropTF(as_parameters([np.ones(1)]), **{name: -0.1})


@pytest.mark.parametrize(
    ("option", "accepted"),
    [
        ({"eps": -0.1}, "eps is -0.1, but it must be 0 or positive"),
        ({"betas": (0.9, -0.1)}, "betas is (0.9, -0.1), but it must be 0 or positive"),
        ({"betas": (0.9, 1.0)}, "betas is (0.9, 1.0), but it must be two numbers from 0 to below 1"),
        ({"betas": (0.9,)}, "betas is (0.9,), but it must be two numbers"),
    ],
)
def test_adams_options_are_checked(option: dict[str, Any], accepted: str) -> None:
    with pytest.raises(UserError, match=re.escape(accepted)):
        AdamTF(as_parameters([np.ones(1)]), **option)


@pytest.mark.parametrize("make", [RMSpropTF, AdamTF])
def test_a_sparse_gradient_is_refused(make: Any) -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match=f"{make.__name__} got a sparse gradient"):
        make(embedding.parameters()).step()
