"""Two bounds with two names: on singular values, and on eigenvalues."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, PixelDigits
from datamodules.errors import UserError
from lit_rnn import models
from lit_rnn.cells import ExpRNNCell, GRUCell, LSTMCell, VanillaRNNCell
from lit_rnn.models import SequenceModel
from lit_rnn.parametrizations import (
    SpectralNormBound,
    SpectralRadiusBound,
    constrain_recurrent,
    spectral_norm_penalty,
    spectral_radius_with_gradient,
)
from lit_rnn.scan import scan

F64 = torch.float64
BOUNDS = (SpectralNormBound, SpectralRadiusBound)
each_bound = pytest.mark.parametrize("bound", BOUNDS)


def norm(W: Tensor) -> float:
    return float(torch.linalg.matrix_norm(W.detach().double(), ord=2))


def radius(W: Tensor) -> float:
    return float(torch.linalg.eigvals(W.detach().double()).abs().max())


def rotation(r: float, degrees: float) -> Tensor:
    a = math.radians(degrees)
    return r * torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=F64)


def ginibre(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=F64) / n**0.5


@pytest.mark.parametrize("c", [0.5, 3.0, 50.0])
def test_a_shear_passes_the_radius_and_still_amplifies(c: float) -> None:
    W = torch.tensor([[1, c], [0, 1]], dtype=F64)
    held = SpectralRadiusBound(1.0)(W)
    assert torch.equal(held, W)
    assert norm(torch.linalg.matrix_power(held, 100)) > 100 * c
    held = SpectralNormBound(1.0)(W)
    assert norm(held) == pytest.approx(1, rel=1e-12)
    assert all(norm(torch.linalg.matrix_power(held, k)) <= 1 + 1e-9 for k in (2, 10, 100))


@pytest.mark.parametrize("degrees", [60.0, 90.0, 17.0])
@pytest.mark.parametrize("r", [0.9, 1.0, 1.6])
def test_a_rotation_is_not_misjudged(r: float, degrees: float) -> None:
    """The power method's Rayleigh quotient would say r cos(theta), for every real vector."""
    W = rotation(r, degrees)
    S = torch.tensor([[1.0, 5.0], [0.0, 1.0]], dtype=F64)
    for A in (W, S @ W @ torch.linalg.inv(S)):
        held = SpectralRadiusBound(1.0)(A)
        if r < 1:
            assert torch.equal(held, A)
        torch.testing.assert_close(held, A * min(1, 1 / r), rtol=1e-10, atol=1e-12)
    assert radius(SpectralRadiusBound(0.5)(W)) == pytest.approx(0.5)


@each_bound
def test_inside_is_untouched_bit_for_bit_and_outside_is_scaled(bound: Any) -> None:
    size = norm if bound is SpectralNormBound else radius
    for dtype in (torch.float32, F64):
        W = ginibre(12).to(dtype)
        s = size(W)
        assert torch.equal(bound(s * 1.001)(W), W)
        held = bound(s / 2)(W)
        torch.testing.assert_close(held, W / 2, rtol=1e-6, atol=0)
        assert size(held) <= s / 2 * (1 + 1e-6) and held.dtype == dtype
    assert torch.equal(bound(1.0)(0.1 * torch.eye(3)), 0.1 * torch.eye(3)), "small matrices are not scaled up"


@each_bound
def test_zero_nilpotent_and_not_finite(bound: Any) -> None:
    zero = torch.zeros(3, 3)
    assert torch.equal(bound(1.0)(zero), zero)
    nilpotent = torch.diag(torch.full((4,), 7.0), 1)
    held = bound(1.0)(nilpotent)
    assert torch.equal(held, nilpotent) if bound is SpectralRadiusBound else norm(held) == pytest.approx(1)
    broken = torch.eye(3)
    broken[0, 1] = math.nan
    assert bool(bound(1.0)(broken).isnan().any())


def test_gradients() -> None:
    """To finite differences; none through rho where its eigenvalue is defective, and finite at ties and zero."""
    W = (3 * ginibre(5)).requires_grad_()
    for bound in BOUNDS:
        assert torch.autograd.gradcheck(bound(1.0), W)
        assert torch.autograd.gradcheck(bound(100.0), W)
    assert torch.autograd.gradcheck(
        SpectralRadiusBound(1.0, blocks=2), torch.cat([3 * ginibre(4, 1), ginibre(4, 2) / 9]).requires_grad_()
    )
    assert torch.autograd.gradcheck(SpectralRadiusBound(0.5), rotation(0.9, 60.0).requires_grad_())
    symmetric = torch.diag(torch.tensor([3.0, 2.0, -1.0], dtype=F64)).requires_grad_()
    (gradient,) = torch.autograd.grad(spectral_radius_with_gradient(symmetric), symmetric)
    assert torch.equal(gradient, torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=F64)))
    defective = torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(SpectralRadiusBound(1.0)(defective).sum(), defective)
    torch.testing.assert_close(gradient, torch.full((2, 2), 0.5, dtype=F64))
    for start in (torch.eye(4, dtype=F64), torch.zeros(4, 4, dtype=F64)):  # ties, and nothing
        for bound in BOUNDS:
            free = start.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(bound(0.5)(free).square().sum(), free)
            assert bool(gradient.isfinite().all())
    W = ginibre(4).requires_grad_()
    with pytest.raises(UserError, match="no gradients of gradients"):  # d^2 rho would lack what x and y change
        torch.autograd.grad(spectral_radius_with_gradient(W), W, create_graph=True)


def test_a_pull_on_the_leading_eigenvalues_does_not_shrink_the_others() -> None:
    """A loss that wants them larger, which the bound forbids: with the scale a constant, all others go to zero."""
    lead = rotation(1.0, 30.0)
    W = nn.Parameter(1.2 * torch.block_diag(lead, rotation(0.9, 70.0), rotation(0.8, 110.0)))
    pull, bound = torch.block_diag(lead, torch.zeros(4, 4, dtype=F64)), SpectralRadiusBound(1.0)
    optimizer = torch.optim.SGD([W], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (-(bound(W) * pull).sum()).backward()
        optimizer.step()
    moduli = torch.linalg.eigvals(bound(W).detach()).abs().sort(descending=True)[0]
    expected = torch.tensor([1.0, 1.0, 0.9, 0.9, 0.8, 0.8], dtype=F64)
    torch.testing.assert_close(moduli, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["spectral_norm", "spectral_radius"])
@pytest.mark.parametrize("make", [VanillaRNNCell, LSTMCell, GRUCell])
def test_cells_are_held_gate_by_gate(kind: Any, make: Any) -> None:
    cell = make(2, 6)
    with torch.no_grad():
        cell.recurrent.weight.copy_(
            torch.cat([ginibre(6, k) * 4.0 ** (k - 1) for k in range(len(cell.recurrent.weight) // 6)])
        )
    before = {name: W.detach().clone() for name, W in cell.recurrent_matrices().items()}
    original = cell.recurrent.weight
    constrain_recurrent(cell, kind, 0.8)
    size = norm if kind == "spectral_norm" else radius
    for name, W in cell.recurrent_matrices().items():
        assert size(W) == pytest.approx(min(0.8, size(before[name])), rel=1e-6)
        torch.testing.assert_close(W, before[name] * min(1, 0.8 / size(before[name])), rtol=1e-5, atol=1e-7)
    assert cell.recurrent_parameters() == [cell.recurrent.parametrizations.weight.original]
    assert cell.recurrent_parameters()[0].shape == original.shape
    calls: list[int] = []
    cell.recurrent.parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
    y, _ = scan(cell, torch.randn(9, 3, 2))
    assert len(calls) == 1, "once per pass"
    y.sum().backward()
    assert bool(cell.recurrent_parameters()[0].grad.isfinite().all())


def test_what_cannot_be_constrained_is_refused() -> None:
    with pytest.raises(UserError, match="ExpRNNCell builds W"):
        constrain_recurrent(ExpRNNCell(2, 4), "spectral_norm")
    with pytest.raises(UserError, match="one of none, spectral_norm, spectral_radius"):
        constrain_recurrent(VanillaRNNCell(2, 4), "spectral")  # type: ignore[arg-type]
    for bound in (0.0, -1.0, math.inf):
        with pytest.raises(UserError, match="constraint_bound"):
            constrain_recurrent(VanillaRNNCell(2, 4), "spectral_norm", bound)
    task = PixelDigits().task
    for name in ("ExpRNN", "ScoRNN", "NnRNN", "LipschitzRNN", "AntisymmetricRNN"):
        with pytest.raises(UserError, match=r"recurrent_constraint is 'spectral_radius', but it must be 'none'"):
            getattr(models, name)(task, 8, recurrent_constraint="spectral_radius")
    for sizes in ((155, 50), (5, 4), (4, 4)):  # a matrix (p, r) is no W, whatever its shape
        with pytest.raises(UserError, match="'none': StatisticalRUCell has no recurrent matrix"):
            models.StatisticalRU(task, 4, *sizes, recurrent_constraint="spectral_norm")
    with pytest.raises(UserError, match="norm_penalty"):
        models.LSTM(task, 4, norm_penalty=-1.0)


def test_the_penalty_is_half_the_squared_norms() -> None:
    cell = LSTMCell(2, 5)
    exact = sum(norm(W) ** 2 for W in cell.recurrent_matrices().values()) / 2
    assert float(spectral_norm_penalty([cell]).detach()) == pytest.approx(exact, rel=1e-6)
    W = nn.Linear(5, 5, bias=False)
    cell.recurrent_matrices = lambda: {"W": W.weight}  # type: ignore[method-assign]
    spectral_norm_penalty([cell]).backward()
    U, s, Vh = torch.linalg.svd(W.weight.detach())
    torch.testing.assert_close(W.weight.grad, s[0] * torch.outer(U[:, 0], Vh[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_penalty_of_coarse_weights_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    cell = LSTMCell(2, 5).to(dtype)
    penalty = spectral_norm_penalty([cell])
    exact = sum(norm(W) ** 2 for W in cell.recurrent_matrices().values()) / 2
    assert float(penalty.detach()) == pytest.approx(exact, rel=1e-6)
    penalty.backward()
    assert cell.recurrent.weight.grad is not None and bool(cell.recurrent.weight.grad.any())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_penalty_of_weights_of_no_numbers_is_none(bad: float) -> None:
    """It raises nothing: the loss is what tells a run that has diverged."""
    cell = LSTMCell(2, 5)
    cell.recurrent.weight.data[3, 1] = bad
    assert bool(spectral_norm_penalty([cell]).isnan())


# ---- in a model


def test_what_penalties_add_to_the_training_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """c |W^T W - I|_F^2 + d / 2 |W|_2^2 over both layers, with the gradient 4 c W (W^T W - I) + d sigma u v^T."""
    c, d, n = 0.3, 0.7, 5
    task, x, y = PixelDigits().task, torch.rand(3, 6, 1, dtype=F64), torch.tensor([1, 2, 3])
    losses, slopes = [], []
    for options in ({}, {"orthogonal_penalty": c, "norm_penalty": d}):
        torch.manual_seed(0)
        model = models.VanillaRNN(task, n, init="gaussian", layers=2, **options).double()
        monkeypatch.setattr(model, "log", lambda *_, **__: None)
        losses.append(model.training_step((x, y), 0))
        W = [cell.recurrent.weight for cell in model.cell_list()]
        slopes.append(torch.autograd.grad(losses[-1], W))
    eye, W = torch.eye(n, dtype=F64), [one.detach() for one in W]
    size = sum(c * float((one.mT @ one - eye).square().sum()) + d / 2 * norm(one) ** 2 for one in W)
    assert (losses[1] - losses[0]).item() == pytest.approx(size, rel=1e-9)
    for one, without, with_them in zip(W, *slopes, strict=True):
        u, sigma, v = torch.linalg.svd(one)
        expected = 4 * c * one @ (one.mT @ one - eye) + d * sigma[0] * torch.outer(u[:, 0], v[0])
        torch.testing.assert_close(with_them - without, expected, rtol=1e-9, atol=1e-9)


def train(cli: Any, config: Any, folder: str, **options: Any) -> Any:
    init_args = {"hidden_size": 8, "optimizer": {"class_path": "SGD", "init_args": {"lr": 2.0}}, **options}
    done = cli("fit", "-c", config(model={"class_path": "VanillaRNN", "init_args": init_args}), "--run_dir", folder)
    assert done.status == 0 and done.err == "", done.err
    return models.load(f"{folder}/checkpoints/last.ckpt")


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_is_held_and_its_checkpoint_loads(cli: Any, config: Any) -> None:
    for kind, size in (("spectral_norm", norm), ("spectral_radius", radius)):
        model = train(cli, config, kind, recurrent_constraint=kind, constraint_bound=0.9)
        (W,) = model.cells[0].recurrent_matrices().values()
        assert size(W) == pytest.approx(0.9, rel=1e-5)
        (free,) = model.parameter_groups()["recurrent"]
        assert not torch.equal(free, W)
    assert norm(W) > 0.9 + 1e-3, "the radius does not hold the norm"


@pytest.mark.usefixtures("_no_pictures")
def test_the_penalty_pulls_in_a_run(cli: Any, config: Any) -> None:
    sizes = []
    for strength in (0.0, 0.1):
        sgd = {"class_path": "SGD", "init_args": {"lr": 0.1}}
        model: SequenceModel = train(cli, config, f"penalty-{strength}", norm_penalty=strength, optimizer=sgd)
        sizes.append(norm(next(iter(model.cell_list()[0].recurrent_matrices().values()))))
    assert sizes[1] < sizes[0]


def test_a_bad_constraint_is_told_by_the_command_line(cli: Any, config: Any) -> None:
    done = cli("fit", "-c", config(), "--model.recurrent_constraint", "spectral_norm")
    assert done.status == 2 and "ExpRNNCell builds W" in done.err
    assert CopyMemory().task.inputs == "symbols"
