"""dtriv is expRNN with a base point that follows the weights: the same networks, other coordinates."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules import PixelMNIST
from lit_rnn.cells import DtrivRNNCell, ExpRNNCell
from lit_rnn.models import DtrivRNN
from lit_rnn.parametrizations import Exponential
from lit_rnn.scan import scan
from tests.oracles.maps import skew_matrix
from tests.trainers import quiet_trainer

T, B, I = 6, 3, 2  # noqa: E741


def pair(n: int, seed: int = 0, turn: float = 1.0) -> tuple[ExpRNNCell, DtrivRNNCell, np.ndarray]:
    """An expRNN and a dtriv cell that are one network: exp(A) . exp(0) = exp(A)."""
    rng = np.random.default_rng(seed)
    free = turn * rng.normal(size=n * (n - 1) // 2)
    static, dynamic = ExpRNNCell(I, n).double(), DtrivRNNCell(I, n).double()
    with torch.no_grad():
        static.recurrent.skew.copy_(torch.tensor(free))
        dynamic.recurrent.skew.zero_()
        dynamic.recurrent.base.copy_(torch.tensor(linalg.expm(skew_matrix(free, n))))
        for cell in (static, dynamic):
            draw = np.random.default_rng(seed + 1)
            cell.input.weight.copy_(torch.tensor(draw.normal(size=(n, I))))
            cell.activation.bias.copy_(torch.tensor(draw.uniform(-0.3, 0.3, size=n)))
    return static, dynamic, free


def series(n: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(T, B, I))), torch.tensor(rng.normal(size=(B, n)))


def loss_of(cell: torch.nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return (scan(cell, x, backend="loop")[0][-1] - target).square().sum()


def test_dtriv_starts_as_the_same_network() -> None:
    static, dynamic, _ = pair(6)
    x, _ = series(6)
    torch.testing.assert_close(scan(dynamic, x, backend="loop"), scan(static, x, backend="loop"), rtol=0, atol=1e-12)


def test_rebase_changes_neither_outputs_nor_the_other_gradients() -> None:
    _, cell, _ = pair(6)
    x, target = series(6)
    with torch.no_grad():
        cell.recurrent.skew.copy_(torch.linspace(-1, 1, 15))
    rest = [cell.input.weight, cell.activation.bias]
    before = loss_of(cell, x, target)
    gradients = torch.autograd.grad(before, rest)
    cell.recurrent.rebase_()
    after = loss_of(cell, x, target)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(after, rest), gradients, rtol=0, atol=1e-11)


def test_at_a_common_point_the_coordinates_differ_by_the_differential_of_exp() -> None:
    """With G = dl/dW from a plain loop: expRNN has <G, L(A, E_k)>, dtriv just rebased has <G, W E_k>."""
    n = 6
    static, dynamic, free = pair(n)
    x, target = series(n)
    A = skew_matrix(free, n)
    W = torch.tensor(linalg.expm(A), requires_grad=True)
    h = torch.zeros(B, n, dtype=torch.float64)
    for x_t in x:
        z = h @ W.T + x_t @ static.input.weight.detach().T
        h = z.sign() * torch.relu(z.abs() + static.activation.bias.detach())
    (h - target).square().sum().backward()
    G = W.grad.numpy()
    loss_of(static, x, target).backward()
    loss_of(dynamic, x, target).backward()
    in_static, in_dynamic = [], []
    for i, j in zip(*np.triu_indices(n, 1), strict=True):
        E = np.zeros((n, n))
        E[i, j], E[j, i] = 1.0, -1.0
        in_static.append(np.sum(G * linalg.expm_frechet(A, E, compute_expm=False)))
        in_dynamic.append(np.sum(G * (linalg.expm(A) @ E)))
    scale = np.abs(G).max()
    assert np.abs(np.subtract(in_static, in_dynamic)).max() > 1e-2 * scale
    np.testing.assert_allclose(static.recurrent.skew.grad.numpy(), in_static, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(dynamic.recurrent.skew.grad.numpy(), in_dynamic, rtol=0, atol=1e-11 * scale)


def test_generators_of_one_torus_add() -> None:
    """exp(A) exp(A') = exp(A + A') where A and A' commute, here in one maximal torus."""
    n = 6
    static, dynamic, _ = pair(n)
    first, second = np.random.default_rng(2).uniform(-1, 1, size=(2, n // 2))

    def torus(angles: np.ndarray) -> np.ndarray:
        return linalg.block_diag(*[[[0.0, s], [-s, 0.0]] for s in angles])

    upper = np.triu_indices(n, 1)
    with torch.no_grad():
        static.recurrent.skew.copy_(torch.tensor(torus(first + second)[upper]))
        dynamic.recurrent.base.copy_(torch.tensor(linalg.expm(torus(first))))
        dynamic.recurrent.skew.copy_(torch.tensor(torus(second)[upper]))
    x, _ = series(n)
    torch.testing.assert_close(scan(dynamic, x, backend="loop"), scan(static, x, backend="loop"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop"])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_in_the_plane_training_does_not_see_the_base(optimizer: str, every: int) -> None:
    """SO(2) is abelian: the coordinates agree up to a shift, so expRNN and dtriv take the same path whenever one
    rebases, also with an optimizer whose state outlives the rebase."""
    static, dynamic, _ = pair(2)
    x, target = series(2)
    options = [getattr(torch.optim, optimizer)(cell.parameters(), lr=1e-2) for cell in (static, dynamic)]
    start = static.recurrent().detach().clone()
    for step in range(1, 11):
        for cell, option in zip((static, dynamic), options, strict=True):
            option.zero_grad()
            loss_of(cell, x, target).backward()
            option.step()
        if step % every == 0:
            dynamic.recurrent.rebase_()
        torch.testing.assert_close(dynamic.recurrent(), static.recurrent(), rtol=0, atol=1e-9)
        torch.testing.assert_close(dynamic.input.weight, static.input.weight, rtol=0, atol=1e-9)
    assert (static.recurrent() - start).abs().max() > 1e-2


# -- the model's hooks -----------------------------------------------------------------------------


def lightning_warnings(test: Callable[..., None]) -> Callable[..., None]:
    """What Lightning says of its own code, and of loaders without workers or absent."""
    for message in (".*LeafSpec.*is deprecated:FutureWarning", ".*does not have many workers", ".*no `val_dataloader`"):
        test = pytest.mark.filterwarnings(f"ignore:{message}")(test)
    return test


def train(steps: int, n: int = 6, bend: float = 0.0, each: int = 1, **options: int) -> tuple[Exponential, Tensor]:
    """`steps` optimizer steps on noise, of ``each`` batches; the map as trained, and its base before."""
    torch.manual_seed(0)
    model = DtrivRNN(PixelMNIST().task, n, **options)
    (module,) = (m for m in model.modules() if isinstance(m, Exponential))
    with torch.no_grad():
        module.base.add_(bend * torch.randn(n, n))
    before = module.base.clone()
    count = 4 * steps * each
    data = TensorDataset(torch.rand(count, 9, 1), torch.randint(10, (count,)))
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, accumulate_grad_batches=each)
    trainer.fit(model, DataLoader(data, batch_size=4))
    assert trainer.global_step == steps
    return module, before


def drift(W: Tensor) -> float:
    return (W.double().T @ W.double() - torch.eye(len(W), dtype=torch.float64)).abs().max().item()


@lightning_warnings
@pytest.mark.parametrize(
    ("steps", "each", "rebased"),
    [(2, 1, False), (3, 1, True), (4, 1, False), (6, 1, True), (2, 3, False), (3, 2, True)],
)
def test_model_rebases_after_every_third_step(steps: int, each: int, rebased: bool) -> None:
    """Of the optimizer, however many batches its gradients are accumulated over."""
    module, before = train(steps, each=each, rebase_every=3)
    assert bool(module.skew.any()) is not rebased
    assert torch.equal(module.base, before) is (steps < 3)
    assert drift(module().detach()) < 1e-5


@lightning_warnings
def test_model_projects_a_base_that_has_drifted() -> None:
    """Rebasing multiplies by a rotation and so keeps a drift; only the projection removes it."""
    drifted, before = train(2, bend=0.02, rebase_every=1, project_every=1000)
    assert drift(before) > 1e-2
    assert math.isclose(np.linalg.cond(drifted.base.numpy()), np.linalg.cond(before.numpy()), rel_tol=1e-3)
    projected, _ = train(2, bend=0.02, rebase_every=1, project_every=1)
    assert drift(projected.base) < 1e-5


@lightning_warnings
@pytest.mark.parametrize(("steps", "projected"), [(2, False), (3, False), (4, True)])
def test_the_second_rebase_projects_at_twice_the_period(steps: int, projected: bool) -> None:
    """After MK steps. The released code counts a rebase before the first step and projects K steps earlier."""
    module, before = train(steps, bend=0.02, rebase_every=2, project_every=2)
    assert drift(before) > 1e-2
    assert (drift(module.base) < 1e-5) is projected


def test_the_gradient_behind_a_rebase_is_that_at_zero() -> None:
    """<G, W E_k> by a model that has just rebased; the released code's is once more that at the old A."""
    model = DtrivRNN(PixelMNIST().task, 6, rebase_every=1, backend="loop").double()
    module = model.cell_list()[0].recurrent
    with torch.no_grad():
        module.skew.copy_(torch.linspace(-1, 1, 15))
    x, G = torch.rand(2, 5, 1, dtype=torch.float64), torch.randn(2, 10, dtype=torch.float64)
    W = module().detach().clone().requires_grad_()
    cell = model.cell_list()[0]
    h = torch.zeros(2, 6, dtype=torch.float64)
    for x_t in x.unbind(1):
        z = h @ W.T + x_t @ cell.input.weight.detach().T
        h = z.sign() * torch.relu(z.abs() + cell.activation.bias.detach())
    ((h @ model.decoder.weight.T + model.decoder.bias) * G).sum().backward()
    model.after_step(1)
    assert not module.skew.any()
    (model(x) * G).sum().backward()
    S = W.detach().T @ W.grad
    expected = (S - S.T)[tuple(np.triu_indices(6, 1))]
    torch.testing.assert_close(module.skew.grad, expected, rtol=0, atol=1e-11)
