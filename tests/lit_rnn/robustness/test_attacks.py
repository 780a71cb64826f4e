"""Attacks against closed forms: linear scores, exact boxes, eps = 0, a network whose loss is flat."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from datamodules.errors import UserError
from lit_rnn.cells import VanillaRNNCell
from lit_rnn.robustness import (
    additive_noise,
    fgsm,
    multiplicative_noise,
    off_by,
    pgd,
    random_draws,
    random_search,
    salt_and_pepper,
    smooth_certify,
    symbol_swap,
    wrong_label,
    zero_gradient_fraction,
)
from lit_rnn.robustness.attacks import Threat
from lit_rnn.robustness.draws import Draws
from lit_rnn.robustness.objective import predicted_class
from lit_rnn.robustness.state import frozen
from lit_rnn.scan import scan

F64 = torch.float64
B, T, I = 6, 5, 2  # noqa: E741
NORMS = (math.inf, 2.0)
dual = {math.inf: 1, 2.0: 2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=F64)


class Net(nn.Module):
    """An RNN classifier with dropout, so that its mode shows."""

    def __init__(self, seed: int = 0, classes: int = 3, n: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.cell = VanillaRNNCell(I, n)
            self.dropout = nn.Dropout(0.5)
            self.decoder = nn.Linear(n, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.dropout(scan(self.cell, x.transpose(0, 1))[0][-1]))


w = draw(T, I, seed=9)


def score(x: Tensor) -> Tensor:
    return (x * w).flatten(1).sum(1)


def linear(x: Tensor) -> Tensor:
    return torch.stack((score(x), -score(x)), dim=1)


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "random_search": random_search,
    "random_draws": random_draws,
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
each_norm = pytest.mark.parametrize("norm", NORMS)


# ---- closed forms


@each_norm
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_linear_optimum_is_eps_times_the_dual_norm(attack: Any, loss: str, norm: float) -> None:
    x, y, eps = draw(B, T, I), torch.tensor([0, 1] * 3), 0.1
    moved = attack(linear, x, y, eps, norm=norm, loss=loss)
    drop = (score(x) - score(moved)) * (1 - 2 * y)
    expected = eps * torch.linalg.vector_norm(w, ord=dual[norm])
    torch.testing.assert_close(drop, expected.expand(B), rtol=1e-10, atol=1e-12)


@each_norm
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_pgd_alone_reaches_the_linear_optimum(steps: int, norm: float) -> None:
    """From any random start, however few its steps: not because it was handed the single step's answer."""
    x, y, seen = draw(B, T, I), torch.zeros(B, dtype=torch.int64), []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return linear(x)

    moved = pgd(watched, x, y, 0.1, norm=norm, steps=steps, restarts=1, seed=steps)
    best = 0.1 * torch.linalg.vector_norm(w, ord=dual[norm])
    torch.testing.assert_close(score(x) - score(moved), best.expand(B), rtol=1e-10, atol=1e-12)
    # x as it is without a gradient, then the start, steps and the end: nothing else was tried
    assert len(seen) == 1 + (steps + 1) + 1 and torch.equal(seen[0], x)
    assert not torch.equal(seen[1], x) and not any(torch.equal(tried, moved) for tried in seen[:2])


def test_step_rules() -> None:
    """a, a (1 - 1/k), ..., along a constant gradient, and the default lengths."""
    x, y = torch.zeros(1, 4, 1, dtype=F64), torch.zeros(1, dtype=torch.int64)

    def steps(**options: Any) -> list[float]:
        seen: list[float] = []

        def up(x: Tensor) -> Tensor:
            seen.append(float(x.detach()[0, 0, 0]))
            return x.flatten(1)

        pgd(up, x, y, 100.0, steps=4, random_start=False, loss=lambda z, _: z.sum(1), **options)
        return seen[1:6]  # after x as it is

    assert steps(step_rule="constant", step_size=1.0) == [0, 1, 2, 3, 4]
    assert steps(step_size=1.0) == [0, 1, 1.75, 2.25, 2.5]
    assert steps(step_rule="constant")[1] == 62.5 and steps(step_size=None)[1] == 100


def test_an_iterative_attack_is_not_handed_the_single_step() -> None:
    """A gradient that turns on the way: FGSM's point is the higher one here, and PGD does not return it."""
    x, y = torch.zeros(1, 1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)

    def hill(x: Tensor) -> Tensor:  # rises to 0.5, falls, and has a spike at 1 that no gradient on the way points to
        z = x[:, 0]
        return torch.where(z > 0.99, 50.0 * z, z - z.square())

    single = fgsm(hill, x, y, 1.0, loss=lambda z, _: z.sum(1))
    assert float(hill(single)) == 50.0
    moved = pgd(
        hill, x, y, 1.0, steps=11, random_start=False, step_size=0.05, step_rule="constant", loss=lambda z, _: z.sum(1)
    )
    assert float(hill(moved)) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_the_box_is_exact(attack: Any) -> None:
    x, y = torch.rand(B, T, I, generator=generator(), dtype=F64), torch.zeros(B, dtype=torch.int64)
    moved = attack(linear, x, y, 0.3, bounds=(0, 1))
    expected = (x - 0.3 * w.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-15)
    assert torch.equal(moved == 0, expected == 0) and torch.equal(moved == 1, expected == 1)


@pytest.mark.parametrize("norm", NORMS)
def test_minimal_distance(norm: float) -> None:
    """The decision falls at |f| / |w|_dual, neither before nor after."""
    x = draw(B, T, I)
    y = linear(x).argmax(1)
    distance = score(x).abs() / torch.linalg.vector_norm(w, ord=dual[norm])
    for factor, fooled in ((0.999, False), (1.001, True)):
        for k in range(B):
            moved = pgd(linear, x[k : k + 1], y[k : k + 1], factor * float(distance[k]), norm=norm)
            assert bool(linear(moved).argmax(1) != y[k]) is fooled


def test_the_gradient_of_a_linear_rnn() -> None:
    """v^T W^{T-t} U at step t, so FGSM moves by the signs of these numbers."""
    cell = VanillaRNNCell(I, 4, nonlinearity="identity").double()
    v = draw(4)
    x, y = draw(1, T, I), torch.zeros(1, 1, dtype=F64)
    moved = fgsm(lambda x: (scan(cell, x.transpose(0, 1))[0][-1] @ v)[:, None], x, y - 1e3, 0.1, loss="squared_error")
    W, U = cell.recurrent.weight.detach().numpy(), cell.input.weight.detach().numpy()
    rows = [v.numpy() @ np.linalg.matrix_power(W, T - 1 - t) @ U for t in range(T)]
    np.testing.assert_array_equal(np.sign((moved - x)[0].numpy()), np.sign(rows))


@each_norm
def test_targeted_and_regression(norm: float) -> None:
    x, eps = draw(B, T, I), 0.1
    size = eps * torch.linalg.vector_norm(w, ord=dual[norm])
    moved = pgd(linear, x, torch.ones(B, dtype=torch.int64), eps, norm=norm, targeted=True)
    torch.testing.assert_close(score(moved), score(x) - size, rtol=1e-10, atol=1e-12)
    y = score(x)[:, None] + torch.tensor([1.0, -1.0], dtype=F64).repeat(3)[:, None]
    moved = pgd(lambda x: score(x)[:, None], x, y, eps, norm=norm, loss="squared_error")
    error = (score(moved) - y[:, 0]).abs()
    torch.testing.assert_close(error, 1 + size.expand(B), rtol=1e-10, atol=1e-12)


def test_a_loss_of_ones_own() -> None:
    x = draw(B, T, I)
    moved = pgd(lambda x: x, x, x, 0.1, loss=lambda z, y: z.flatten(1).sum(1))
    torch.testing.assert_close(moved, x + 0.1, rtol=0, atol=1e-12)


def test_an_answer_of_nan_is_wrong() -> None:
    outputs = torch.tensor([[math.nan] * 3, [2.0, math.nan, 1.0], [math.inf, 0.0, 1.0], [2.0, 0.0, 1.0]])
    assert predicted_class(outputs).tolist() == [-1, -1, -1, 0], "of infinity the probabilities are NaN"
    assert wrong_label(outputs, torch.tensor([0, 1, 0, 0])).tolist() == [True, True, True, False]
    assert off_by(0.5)(torch.tensor([[math.nan], [0.6], [0.5]]), torch.zeros(3, 1)).tolist() == [True, True, False]


def test_who_is_fooled() -> None:
    """Any step that counts being wrong; numbers off by more than a tolerance; a target reached at all of them."""
    from lit_rnn.robustness.objective import Objective, off_by

    z = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [3.0, 0.0]]])
    y = torch.tensor([[0, 0], [0, 0]])

    def fooled(y: Tensor, **options: Any) -> list[bool]:
        return Objective(lambda x: x, **options)(options.pop("z", z), y)[1].tolist()

    assert fooled(y, loss="margin") == [True, False]
    assert fooled(y, loss="margin", scored=torch.tensor([[True, False], [True, True]])) == [False, False]
    assert fooled(1 - y, loss="margin", targeted=True) == [False, False]
    assert fooled(y, loss="margin", targeted=True) == [False, True]
    numbers = torch.tensor([[1.03, 2.0], [1.0, 1.95], [1.0, 2.0]])
    to, objective = torch.tensor([1.0, 2.0]).expand(3, 2), Objective(lambda x: x, "overshoot", wrong=off_by(0.04))
    values, wrong = objective(numbers, to)
    assert wrong.tolist() == [False, True, False]
    torch.testing.assert_close(values, torch.tensor([0.015, -0.025, 0.0]))
    torch.testing.assert_close(Objective(lambda x: x, "undershoot")(numbers, to)[0], -values)
    assert Objective(lambda x: x, "squared_error")(numbers, to)[1].tolist() == [False] * 3, "numbers have no line"


@pytest.mark.parametrize(
    ("blank", "loss"), [(-1, "cross_entropy"), (-1, "margin"), (9, "margin"), (math.nan, "squared_error")]
)
def test_what_stands_at_steps_that_are_not_scored_does_not_matter(blank: float, loss: str) -> None:
    """A nan there made every gradient nan, so that no attack moved: a perfect robustness."""
    x = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0))
    scored = torch.tensor([[False, True, False, True]]).expand(3, 4)
    y = torch.ones(3, 4, dtype=torch.long) if loss != "squared_error" else torch.ones(3, 4, 2)
    shown = scored if y.dim() == 2 else scored[..., None]
    for attack in (fgsm, pgd, random_search):
        moved = attack(lambda x: x, x, y.where(shown, blank), 0.1, loss=loss, scored=scored)
        assert torch.equal(moved, attack(lambda x: x, x, y, 0.1, loss=loss, scored=scored))
        assert (moved != x)[:, scored[0]].all()


def test_only_scored_steps_count() -> None:
    x = torch.zeros(2, T, I, dtype=F64)
    scored = torch.tensor([[True, True, False, False, False], [False, False, False, True, False]])
    y = torch.full_like(x, -1)
    moved = pgd(lambda x: x, x, y, 0.1, loss="squared_error", random_start=False, scored=scored)
    assert torch.equal(moved, 0.1 * scored[:, :, None].expand_as(x).double())


# ---- inside ball and box


@each_attack
@each_norm
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_stays_in_ball_and_box(attack: Any, norm: float, dtype: torch.dtype) -> None:
    net, eps = Net().to(dtype), 0.4
    x = torch.rand(B, T, I, generator=generator(1)).to(dtype)
    y = torch.tensor([0, 1, 2] * 2)
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return net(x)

    options: dict[str, Any] = {} if attack is fgsm else {"early_stop": False}
    moved = attack(model, x, y, eps, norm=norm, bounds=(0, 1), **options)
    for iterate in [*seen, moved]:
        delta = (iterate.double() - x.double()).flatten(1)
        assert iterate.min() >= 0 and iterate.max() <= 1
        assert torch.linalg.vector_norm(delta, ord=norm, dim=1).max() <= eps, "not by rounding either"
    assert len(seen) >= (1 if attack is fgsm else 41)


@each_norm
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("eps", [1e-3, 0.1, 3.0])
def test_rounding_leads_no_input_out_of_the_ball(norm: float, dtype: torch.dtype, eps: float) -> None:
    """Of inputs of every size, held against eps in float64; what the ball takes away is rounding, not more."""
    x = (draw(40, 9, 3) * (10 ** (3 * draw(40, 9, 3, seed=1))).clamp(1e-4, 1e3)).to(dtype)
    moved = Threat(x, eps, norm, None, None).project(x + (10 * eps * draw(40, 9, 3, seed=2)).to(dtype))
    delta = (moved.double() - x.double()).flatten(1)
    assert torch.linalg.vector_norm(delta, ord=norm, dim=1).max() <= eps
    x = torch.zeros(40, 9, 3, dtype=dtype)  # here next to nothing is lost
    moved = Threat(x, eps, norm, None, None).project(9 + x)
    sizes = torch.linalg.vector_norm(moved.double().flatten(1), ord=norm, dim=1)
    assert eps * (1 - 2 * torch.finfo(dtype).eps) <= sizes.min() and sizes.max() <= eps


@each_attack
@each_norm
def test_eps_zero_returns_the_input_bit_for_bit(attack: Any, norm: float) -> None:
    x = torch.rand(B, T, I, generator=generator()).clamp_min(0.2)
    x[0, 0, 0] = -0.0
    moved = attack(Net(), x, torch.zeros(B, dtype=torch.int64), 0.0, norm=norm, bounds=(0, 1))
    assert moved.numpy().tobytes() == x.numpy().tobytes() and moved.data_ptr() != x.data_ptr()


@each_attack
@each_norm
def test_what_is_masked_stays_bit_for_bit(attack: Any, norm: float) -> None:
    """The adding task's value channel, and padding that is never touched."""
    x, y = draw(B, T, I).float(), torch.zeros(B, dtype=torch.int64)
    lengths = torch.arange(T) < torch.tensor([5, 4, 3, 2, 1, 5])[:, None]
    mask = lengths[:, :, None] & torch.tensor([True, False])
    moved = attack(Net(), x, y, 0.3, norm=norm, mask=mask)
    assert torch.equal(moved[~mask], x[~mask]) and not torch.equal(moved[mask], x[mask])


@each_norm
def test_starts_are_uniform_in_the_ball_of_what_is_free(norm: float) -> None:
    """d free numbers: of L-inf each alone is uniform; of L2 (|delta| / eps)^d is, and so is the direction."""
    count, d = 3000, 3
    mask = torch.zeros(count, T, I, dtype=torch.bool)
    mask[::2, 0, 0] = mask[::2, 3] = True
    mask[1::2, 1:4, 1] = True
    threat = Threat(torch.zeros(count, T, I, dtype=F64), 0.4, norm, None, mask)
    free = threat.sample(Draws.of(3, count))[mask].view(count, d).numpy() / 0.4

    def follows(values: np.ndarray, law: Any) -> bool:
        return bool(stats.kstest(values, law.cdf).pvalue > 1e-3)

    if norm == math.inf:
        assert all(follows(column, stats.uniform(-1, 2)) for column in free.T)
        return
    size = np.linalg.norm(free, axis=1)
    assert follows(size**d, stats.uniform())
    for column in (free / size[:, None]).T:  # of the sphere in three dimensions, by Archimedes
        assert follows(column, stats.uniform(-1, 2))


# ---- bookkeeping


def test_early_stop_computes_only_who_is_not_fooled() -> None:
    x = draw(B, T, I)
    y = linear(x).argmax(1)
    y[:2] = 1 - y[:2]  # wrong to begin with
    sizes: list[int] = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return linear(x)

    moved = pgd(model, x, y, 10.0, early_stop=True, restarts=3)
    assert torch.equal(moved[:2], x[:2])
    assert bool((linear(moved).argmax(1) != y).all())
    assert sizes[:2] == [B, B - 2] and len(sizes) < 40 and sizes == sorted(sizes, reverse=True)


def test_restarts_find_higher_peaks() -> None:
    x = draw(B, T, I)

    def peaks(x: Tensor) -> Tensor:
        return torch.sin(9 * x) + x

    def height(restarts: int) -> Tensor:
        moved = pgd(
            peaks,
            x,
            x,
            1.0,
            steps=10,
            step_size=0.02,
            step_rule="constant",
            restarts=restarts,
            loss=lambda z, _: z.sum((1, 2)),
        )
        return peaks(moved).sum((1, 2))

    once, often = height(1), height(8)
    assert bool((often >= once).all()) and bool((often > once + 1).any())


@each_attack
def test_seeds_and_global_random_state(attack: Any) -> None:
    net, x, y = Net(), draw(B, T, I).float(), torch.zeros(B, dtype=torch.int64)
    state = torch.random.get_rng_state()
    first = attack(net, x, y, 0.1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(attack(net, x, y, 0.1), first)


@each_attack
def test_the_model_comes_back_as_it_was(attack: Any) -> None:
    net = Net()
    net.cell.eval()
    net.decoder.weight.requires_grad_(False)
    net.cell.input.bias.grad = torch.full_like(net.cell.input.bias, 3.0)
    modes = [module.training for module in net.modules()]
    before = {name: (p.detach().clone(), p.requires_grad, p.grad) for name, p in net.named_parameters()}
    x, y = draw(B, T, I).float(), torch.zeros(B, dtype=torch.int64)
    copy = x.clone()
    moved = attack(net, x, y, 0.1)
    assert not moved.requires_grad and not x.requires_grad and torch.equal(x, copy)
    assert [module.training for module in net.modules()] == modes
    for name, p in net.named_parameters():
        value, flag, grad = before[name]
        assert torch.equal(p, value) and p.requires_grad == flag and p.grad is grad, name

    def broken(x: Tensor) -> Tensor:
        raise ArithmeticError

    net.forward = broken  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError):
        attack(net, x, y, 0.1)
    assert [module.training for module in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [flag for _, flag, _ in before.values()]


def test_swaps_smoothing_and_gradients_give_the_model_back_too() -> None:
    net, x, y = Net(), draw(3, T, I).float(), torch.zeros(3, dtype=torch.int64)

    def symbols(x: Tensor) -> Tensor:
        return net(nn.functional.one_hot(x, I).float())

    net.cell.eval()
    modes, state = [module.training for module in net.modules()], torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    zero_gradient_fraction(net, x, y)
    smooth_certify(net, x, 0.1, n0=5, n=5)
    wrapped = nn.ModuleList([net])
    wrapped.forward = symbols  # type: ignore[method-assign]
    symbol_swap(wrapped, torch.ones(3, T, dtype=torch.int64), y, 2, I, queries=8)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context: Any) -> None:
    net, x, y = Net(), draw(B, T, I).float(), torch.zeros(B, dtype=torch.int64)
    expected = pgd(net, x, y, 0.1, steps=3)
    with context():
        assert torch.equal(pgd(net, x.clone(), y.clone(), 0.1, steps=3), expected)


def test_cudnn_is_off_however_tf32_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own context for that ends where the new switches of TF32 were used."""
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())  # there may be no GPU
    precision = torch.backends.cudnn.rnn.fp32_precision
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    try:
        with frozen(nn.Identity(), torch.device("cuda")):
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.rnn.fp32_precision = precision


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN is on CUDA only")
@each_norm
def test_cudnn_layers_are_attacked_in_evaluation_mode(norm: float) -> None:
    """cuDNN's own layers refuse a backward pass there."""
    lstm, decoder = nn.LSTM(I, 8, batch_first=True).cuda().eval(), nn.Linear(8, 3).cuda()
    net = nn.ModuleList([lstm, decoder])
    net.forward = lambda x: decoder(lstm(x)[0][:, -1])  # type: ignore[method-assign]
    x, y = draw(B, T, I).float().cuda(), torch.zeros(B, dtype=torch.int64, device="cuda")
    assert not torch.equal(pgd(net, x, y, 0.1, norm=norm, steps=3), x)
    assert not lstm.training and torch.backends.cudnn.enabled


# ---- gradient masking


class Saturated(nn.Module):
    """Logits 120 apart: in float32 the cross-entropy's gradient is exactly zero."""

    def forward(self, x: Tensor) -> Tensor:
        s = 60 + x.flatten(1).sum(1)
        return torch.stack((s, -s), dim=1)


def test_a_saturated_network_is_attacked_by_its_margin() -> None:
    x, y = torch.zeros(B, T, I), torch.zeros(B, dtype=torch.int64)
    assert torch.equal(fgsm(Saturated(), x, y, 7.0), x)
    moved = fgsm(Saturated(), x, y, 7.0, loss="margin")
    assert torch.equal(moved, torch.full_like(x, -7.0)) and bool((Saturated()(moved).argmax(1) == 1).all())
    assert bool((Saturated()(pgd(Saturated(), x, y, 7.0, loss="margin")).argmax(1) == 1).all())
    assert torch.equal(zero_gradient_fraction(Saturated(), x, y), torch.ones(T, dtype=F64))
    assert torch.equal(zero_gradient_fraction(Saturated(), x, y, loss="margin"), torch.zeros(T, dtype=F64))


def test_a_contracting_network_hides_its_past() -> None:
    x, y = torch.zeros(B, T, I), torch.zeros(B, dtype=torch.int64)
    fraction = zero_gradient_fraction(lambda x: x[:, -1] * torch.ones(2), x, y)
    assert fraction.tolist() == [1, 1, 1, 1, 0]


# ---- without gradients


def test_random_search_takes_a_float64_model_and_float32_inputs() -> None:
    """As of a run with trainer.precision 64-true, whose data are in float32."""
    x = torch.tensor([[[0.2], [0.1]], [[0.3], [0.4]]])

    def net(inputs: Tensor) -> Tensor:
        total = inputs.double().sum((1, 2))
        return torch.stack([total, -total], 1)

    moved = random_search(net, x, torch.zeros(2, dtype=torch.long), 0.2, queries=50)
    assert moved.dtype == x.dtype and (moved - x).abs().max() <= 0.2 + 1e-6
    assert net(moved).argmax(1).tolist() == [1, 0], "0.3 - 2 * 0.2 is negative, 0.7 - 2 * 0.2 is not"


@each_norm
@pytest.mark.parametrize("early_stop", [False, True])
def test_random_search_does_not_beat_the_optimum_and_comes_near(norm: float, early_stop: bool) -> None:
    """Nobody is fooled within reach, and half of the random starts are worse than x: it must climb from there."""
    x = draw(B, T, I)
    x = x + (10 - score(x))[:, None, None] * w / (w * w).sum()  # every score is 10
    y = torch.zeros(B, dtype=torch.int64)
    best = 0.1 * torch.linalg.vector_norm(w, ord=dual[norm])
    drop = score(x) - score(random_search(linear, x, y, 0.1, norm=norm, early_stop=early_stop, queries=300))
    assert bool((drop <= best * (1 + 1e-12)).all()) and bool((drop > 0.8 * best).all())


@each_norm
def test_random_draws_are_the_best_of_many(norm: float) -> None:
    x, y = draw(B, T, I), torch.zeros(B, dtype=torch.int64)
    best = 0.1 * torch.linalg.vector_norm(w, ord=dual[norm])
    drops = [
        score(x) - score(random_draws(linear, x, y, 0.1, norm=norm, draws=draws, early_stop=False)) for draws in (1, 30)
    ]
    assert bool((drops[0] <= drops[1]).all()) and bool((drops[1] > 0).all()) and bool((drops[1] < 0.9 * best).all())


def test_noise() -> None:
    x = torch.rand(40, 50, 2, generator=generator(), dtype=F64) + 1
    for noise, scale in ((additive_noise, torch.ones_like(x)), (multiplicative_noise, x)):
        normal = (noise(x, 0.3, seed=4) - x) / scale / 0.3
        assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.05
        assert torch.equal(noise(x, 0.0), x) and torch.equal(noise(x, 0.3, seed=4), noise(x, 0.3, seed=4))
        clipped = noise(x, 3.0, bounds=(1, 2))
        assert clipped.min() == 1 and clipped.max() == 2
        half = noise(x, 0.3, mask=torch.tensor([True, False]))
        assert torch.equal(half[..., 1], x[..., 1]) and not torch.equal(half[..., 0], x[..., 0])
    salted = salt_and_pepper(x, 0.2, bounds=(1, 2))
    changed = salted != x
    assert abs(changed.double().mean() - 0.2) < 0.03 and set(salted[changed].tolist()) == {1.0, 2.0}
    assert abs((salted[changed] == 1).double().mean() - 0.5) < 0.05
    assert torch.equal(salt_and_pepper(x, 0.0, bounds=(1, 2)), x)
    assert set(salt_and_pepper(x, 1.0, bounds=(1, 2)).flatten().tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("search", ["greedy", "random"])
def test_swaps(search: Any) -> None:
    """Logit = how many zeros there are: k swaps take away k of them, and no attack can do more."""
    x = torch.zeros(4, 6, dtype=torch.int64)
    x[:, :2] = 3
    y = torch.zeros(4, dtype=torch.int64)

    def model(x: Tensor) -> Tensor:
        zeros = (x == 0).sum(1).float()
        return torch.stack((zeros, 2.5 * torch.ones_like(zeros)), dim=1)

    for swaps in range(4):
        moved = symbol_swap(model, x, y, swaps, 5, search=search)
        assert int((moved != x).sum(1).max()) <= swaps and moved.dtype == torch.int64
        assert moved.min() >= 0 and moved.max() < 5
        assert bool((model(moved)[:, 0] == (4 - swaps if swaps <= 2 else model(moved)[:, 0])).all())
        assert bool((model(moved).argmax(1) == 1).all()) == (swaps >= 2)
    assert torch.equal(symbol_swap(model, x, y, 0, 5), x)
    held = symbol_swap(model, x, y, 3, 5, search=search, mask=torch.arange(6) < 2)
    assert torch.equal(held[:, 2:], x[:, 2:])


# ---- bad input


def test_bad_input_is_told_in_a_sentence() -> None:
    x, y = torch.rand(B, T, I, generator=generator()), torch.zeros(B, dtype=torch.int64)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("eps", {"eps": -0.1}),
        ("eps", {"eps": math.nan}),
        ("eps is 1.5", {"eps": 1.5, "bounds": (0, 1)}),
        ("eps is 4", {"eps": 4, "bounds": (0, 1), "norm": 2}),
        ("norm is 1", {"norm": 1}),
        ("bounds", {"bounds": (0.5, 1)}),
        ("bounds", {"bounds": (1, 0)}),
        ("mask", {"mask": torch.ones(3)}),
        ("loss is 'hinge'", {"loss": "hinge"}),
    ]
    for attack in ATTACKS.values():
        for words, options in bad:
            with pytest.raises(UserError, match=words):
                attack(Net(), x, y, **{"eps": 0.1, **options})
        with pytest.raises(UserError, match="symbol_swap"):
            attack(Net(), x.long(), y, 0.1)
    with pytest.raises(UserError, match="draws"):
        random_draws(Net(), x, y, 0.1, draws=0)
    for options in ({"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"step_rule": "x"}):
        with pytest.raises(UserError, match=next(iter(options))):
            pgd(Net(), x, y, 0.1, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="take pgd"):
        symbol_swap(Net(), x, y, 1, 5)
    with pytest.raises(UserError, match="vocabulary"):
        symbol_swap(Net(), torch.full((2, 3), 5), y[:2], 1, 5)


# ---- another library


@pytest.mark.filterwarnings("ignore")
@each_norm
def test_against_adversarial_robustness_toolbox(norm: float) -> None:
    """FGSM to the bit; PGD from the same start, with the same steps, to rounding."""
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    net = Net().eval()
    x, y = torch.rand(B, T, I, generator=generator()), torch.tensor([0, 1, 2] * 2)
    classifier = PyTorchClassifier(net, nn.CrossEntropyLoss(), (T, I), 3, clip_values=(0.0, 1.0), device_type="cpu")
    one_hot = nn.functional.one_hot(y, 3).numpy()
    theirs = FastGradientMethod(classifier, norm=norm, eps=0.1).generate(x.numpy(), one_hot)
    np.testing.assert_allclose(fgsm(net, x, y, 0.1, (0, 1), norm).numpy(), theirs, rtol=0, atol=1e-6)
    attack = ProjectedGradientDescentPyTorch(
        classifier, norm=norm, eps=0.1, eps_step=0.02, max_iter=10, num_random_init=0, verbose=False
    )
    theirs = torch.from_numpy(attack.generate(x.numpy(), one_hot))
    ours = pgd(net, x, y, 0.1, norm, (0, 1), steps=10, step_size=0.02, step_rule="constant", random_start=False)
    loss = [nn.functional.cross_entropy(net(moved), y, reduction="none") for moved in (ours, theirs)]
    assert bool((loss[0] >= loss[1] - 1e-5).all())
    torch.testing.assert_close(loss[0], loss[1], rtol=1e-2, atol=1e-4)


def test_what_is_held_may_lie_outside_the_box() -> None:
    """As the noise behind an image does: the box is that of the pixels, and the noise stays as it is."""
    x = torch.cat((draw(B, 2, I).sigmoid(), 5 * draw(B, T - 2, I, seed=1)), dim=1)
    pixels = torch.zeros(B, T, I, dtype=torch.bool)
    pixels[:, :2] = True
    y = torch.zeros(B, dtype=torch.long)
    moved = fgsm(linear, x, y, 0.3, bounds=(0, 1), mask=pixels)
    expected = (x - 0.3 * w.sign()).clamp(0, 1)  # the score falls
    assert torch.equal(moved[:, 2:], x[:, 2:])
    torch.testing.assert_close(moved[:, :2], expected[:, :2])
    with pytest.raises(UserError, match="bounds"):
        fgsm(linear, x, y, 0.3, bounds=(0, 1), mask=~pixels)
    for noise in (additive_noise, multiplicative_noise, salt_and_pepper):
        noisy = noise(x, 0.9, bounds=(0, 1), mask=pixels)
        assert torch.equal(noisy[:, 2:], x[:, 2:]) and not torch.equal(noisy, x)
        assert noisy[:, :2].min() >= 0 and noisy[:, :2].max() <= 1
        with pytest.raises(UserError, match="bounds"):
            noise(x, 0.9, bounds=(0, 1), mask=~pixels)
