"""Constrained matrices stay constrained while they train, and go wherever their manifold says they can.

Drift: max |W^H W - I|, measured here in complex128. The loss is Re <G, W> with a fixed random G, which pulls W against
its constraint at every step.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn.optim import RiemannianAdam, RiemannianRMSprop, RiemannianSGD
from lit_rnn.parametrizations import (
    Cayley,
    Exponential,
    FreeUnitary,
    Householder,
    RestrictedUnitary,
    Rotations,
    ScaledCayley,
    UnitaryScaledCayley,
)

Build = Callable[[int], Any]

SIZES = (1, 2, 3, 17)
EVEN_SIZES = (2, 18)
POWERS_OF_TWO = (2, 16)
MAPS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "Exponential": (Exponential, SIZES),
    "Exponential-trivialized": (lambda n: Exponential(n, trivialized=True), SIZES),
    "Exponential-unitary": (lambda n: Exponential(n, unitary=True), SIZES),
    "Exponential-unitary-trivialized": (lambda n: Exponential(n, trivialized=True, unitary=True), SIZES),
    "Cayley": (Cayley, SIZES),
    "Cayley-trivialized": (lambda n: Cayley(n, trivialized=True), SIZES),
    "Cayley-unitary": (lambda n: Cayley(n, unitary=True), SIZES),
    "Cayley-unitary-trivialized": (lambda n: Cayley(n, trivialized=True, unitary=True), SIZES),
    "ScaledCayley": (ScaledCayley, SIZES),
    "UnitaryScaledCayley": (UnitaryScaledCayley, SIZES),
    "RestrictedUnitary": (RestrictedUnitary, SIZES),
    "Householder": (Householder, SIZES),
    "Rotations": (lambda n: Rotations(n, capacity=min(n, 4)), EVEN_SIZES),
    "Rotations-unitary": (lambda n: Rotations(n, capacity=min(n, 4), unitary=True), EVEN_SIZES),
    "Rotations-fft": (lambda n: Rotations(n, layout="fft"), POWERS_OF_TWO),
    "Rotations-fft-unitary": (lambda n: Rotations(n, layout="fft", unitary=True), POWERS_OF_TWO),
}

each_map = pytest.mark.parametrize("name", MAPS)


def drift_of(W: Tensor) -> float:
    M = W.detach().numpy().astype(np.complex128)
    return float(abs(M.conj().T @ M - np.eye(len(M))).max())


def worst(modules: Iterable[Any]) -> float:
    """By our own measure and by the map's."""
    return max(max(drift_of(m()), float(m.drift())) for m in modules)


def train(modules: list[Any], steps: int, optimizer: torch.optim.Optimizer | None = None) -> float:
    """The worst drift at ten looks. Trivialized maps rebase right after each, so their base carries it on.

    The default is RMSprop for 1,000 steps at lr 1e-3, or the same path in fewer: the rate times the steps and the
    averaging time times the rate are kept. Elementwise rules treat several modules as if each were alone.
    """
    parameters = [p for m in modules for p in m.parameters()]
    optimizer = optimizer or torch.optim.RMSprop(parameters, lr=1 / steps, alpha=0.99 ** (1000 / steps))
    starts = [m().detach().clone() for m in modules]
    pulls = [torch.randn_like(W).conj() for W in starts]
    seen = 0.0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        torch.stack([(G * m()).real.sum() for G, m in zip(pulls, modules, strict=True)]).sum().backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            seen = max(seen, worst(modules))
            for m in modules:
                if getattr(m, "base", None) is not None:
                    m.rebase_()
    for m, start in zip(modules, starts, strict=True):
        assert m.size == 1 or (m() - start).abs().max() > 0.02, "nothing has moved"
    return max(seen, worst(modules))


# -- drift -----------------------------------------------------------------------------------------


@each_map
def test_drift_in_single_precision(name: str) -> None:
    """At n = 1, 2, 3 and 17, or what the design admits, trained side by side.

    Without a base a map has no memory: its drift depends on where the parameters are, so 200 steps along the same path
    show what 1,000 would.
    """
    build, sizes = MAPS[name]
    modules = [build(n) for n in sizes]
    assert all(m().dtype in (torch.float32, torch.complex64) for m in modules)
    assert train(modules, 200) <= 1e-5


@pytest.mark.parametrize("name", [name for name in MAPS if "trivialized" in name])
def test_a_moving_base_does_not_add_up_drift(name: str) -> None:
    """1,000 steps, and a rebase every 100."""
    assert train([MAPS[name][0](17)], 1000) <= 1e-5


@each_map
def test_drift_at_128_in_single_precision(name: str) -> None:
    """The same path in 100 steps for the exponential, whose drift is near the bound, and in 20 for the others."""
    assert train([MAPS[name][0](128)], 100 if name.startswith("Exponential") else 20) <= 1e-5


@pytest.mark.parametrize("name", ["Exponential", "Cayley", "ScaledCayley", "RestrictedUnitary", "Householder"])
def test_drift_at_512_in_single_precision(name: str) -> None:
    """The same path in 3 steps."""
    assert train([MAPS[name][0](512)], 3) <= 1e-4


@pytest.mark.parametrize("name", ["Exponential", "Exponential-unitary", "Exponential-trivialized", "Cayley-unitary"])
def test_a_map_computed_in_double_precision_and_cast_reaches_1e_6(name: str) -> None:
    m = MAPS[name][0](128)
    m.double_precision = True
    assert train([m], 10) <= 1e-6
    assert m().dtype in (torch.float32, torch.complex64)


@each_map
def test_drift_in_double_precision(name: str) -> None:
    """As Lightning's ``precision: 64-true`` makes it: `Module.double` after construction. The same path in 40 steps."""
    build, sizes = MAPS[name]
    modules = [build(n).double() for n in sizes]
    assert all(m().dtype in (torch.float64, torch.complex128) for m in modules)
    assert train(modules, 40) <= 1e-12


@each_map
def test_autocast_does_not_reach_the_map(name: str) -> None:
    build, sizes = MAPS[name]
    m = build(sizes[-1])
    train([m], 10)
    plain = m()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = m()
    assert W.dtype == plain.dtype and drift_of(W) <= 1e-5
    assert (W - plain).abs().max() <= 1e-6


def riemannian(modules: list[Any], build: Callable[..., Any], **options: Any) -> torch.optim.Optimizer:
    return build([{"params": [p for m in modules for p in m.parameters()], "manifold": True}], **options)


def test_a_thousand_riemannian_rmsprop_steps() -> None:
    modules = [FreeUnitary(n) for n in SIZES]
    assert train(modules, 1000, riemannian(modules, RiemannianRMSprop, lr=1e-3)) <= 1e-5


def test_riemannian_rmsprop_at_128() -> None:
    modules = [FreeUnitary(128)]
    assert train(modules, 50, riemannian(modules, RiemannianRMSprop, lr=1e-3)) <= 1e-5


@pytest.mark.parametrize("retraction", ["cayley", "qr", "polar", "exp"])
@pytest.mark.parametrize("build", [RiemannianSGD, RiemannianRMSprop, RiemannianAdam])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.complex64, 1e-5), (torch.complex128, 1e-12)])
def test_riemannian_steps_with_every_retraction(
    build: Callable[..., Any], retraction: str, dtype: torch.dtype, bound: float
) -> None:
    modules = [FreeUnitary(n) if dtype == torch.complex64 else FreeUnitary(n).double() for n in (2, 17)]
    assert all(m().dtype == dtype for m in modules)
    lr = 1e-1 if build is RiemannianAdam else 1e-2
    assert train(modules, 100, riemannian(modules, build, lr=lr, retraction=retraction)) <= bound


@pytest.mark.parametrize(("n", "layout"), [(17, "tunable"), (1, "tunable"), (18, "fft"), (3, "fft")])
@pytest.mark.parametrize("unitary", [False, True])
def test_sizes_that_rotations_do_not_admit_are_refused(n: int, layout: Any, unitary: bool) -> None:
    with pytest.raises(UserError, match=rf"^(?=.*size)(?=.*{n})[^\n]*\.\Z"):
        Rotations(n, layout=layout, unitary=unitary)


# -- reach -----------------------------------------------------------------------------------------


def haar(n: int, kind: str) -> Tensor:
    """A random target in SO(n), in the other component of O(n), or in U(n)."""
    rng = np.random.default_rng(7)
    Q, R = np.linalg.qr(rng.normal(size=(n, n)) + (1j * rng.normal(size=(n, n)) if kind == "U" else 0))
    Q = Q * (np.diag(R) / abs(np.diag(R)))
    if kind != "U" and np.linalg.det(Q) * (1 if kind == "SO" else -1) < 0:
        Q[:, 0] = -Q[:, 0]
    return torch.tensor(Q)


def descend(module: Any, target: Tensor, evaluations: int = 400) -> None:
    """L-BFGS on 1/2 |W - T|^2: gradients only, a line search, and no rate to tune."""
    optimizer = torch.optim.LBFGS(
        module.parameters(),
        max_iter=evaluations,
        max_eval=2 * evaluations,
        history_size=30,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (module() - target).abs().square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)


def nearest(build: Callable[[], Any], target: Tensor, starts: int) -> tuple[float, float]:
    """The smallest max |W - T| and |W - T|^2 over the starts, up to the first that arrives."""
    gaps: list[tuple[float, float]] = []
    for seed in range(starts):
        torch.manual_seed(seed)
        module = build().double()
        descend(module, target)
        gap = (module() - target).detach().abs()
        gaps.append((gap.max().item(), gap.square().sum().item()))
        if gaps[-1][0] < 1e-4:
            break
    return min(gaps)


@torch.no_grad()
def reflected(module: Any) -> Any:
    """A trivialization around a base of determinant -1."""
    module.base[:, 0].neg_()
    return module


REACHES: dict[str, tuple[str, int, Callable[[], Any]]] = {
    "Exponential": ("SO", 5, lambda: Exponential(5)),
    "Exponential-trivialized": ("SO", 5, lambda: Exponential(5, trivialized=True)),
    "Cayley": ("SO", 5, lambda: Cayley(5)),
    "Cayley-trivialized": ("SO", 5, lambda: Cayley(5, trivialized=True)),
    "ScaledCayley-even": ("SO", 5, lambda: ScaledCayley(5, negatives=2)),
    "ScaledCayley-even-released": ("SO", 5, lambda: ScaledCayley(5, negatives=2, released_order=True)),
    "Householder-even": ("SO", 5, lambda: Householder(5, 4)),
    "Householder-full": ("SO", 6, lambda: Householder(6)),
    "Rotations": ("SO", 6, lambda: Rotations(6, 6)),
    "ScaledCayley-odd": ("O-", 5, lambda: ScaledCayley(5, negatives=3)),
    "ScaledCayley-odd-released": ("O-", 5, lambda: ScaledCayley(5, negatives=3, released_order=True)),
    "Householder-odd": ("O-", 5, lambda: Householder(5)),
    "Exponential-reflected": ("O-", 5, lambda: reflected(Exponential(5, trivialized=True))),
    "Cayley-reflected": ("O-", 5, lambda: reflected(Cayley(5, trivialized=True))),
    "Exponential-unitary": ("U", 4, lambda: Exponential(4, unitary=True)),
    "Exponential-unitary-trivialized": ("U", 4, lambda: Exponential(4, unitary=True, trivialized=True)),
    "Cayley-unitary": ("U", 4, lambda: Cayley(4, unitary=True)),
    "Cayley-unitary-trivialized": ("U", 4, lambda: Cayley(4, unitary=True, trivialized=True)),
    "UnitaryScaledCayley": ("U", 4, lambda: UnitaryScaledCayley(4)),
    "RestrictedUnitary-small": ("U", 3, lambda: RestrictedUnitary(3)),
}


@pytest.mark.parametrize("name", REACHES)
def test_a_random_target_is_reached(name: str) -> None:
    """Ten random starts: the loss has other stationary points in some of these coordinates."""
    kind, n, build = REACHES[name]
    assert nearest(build, haar(n, kind), starts=10)[0] < 1e-4


MISSES: dict[str, tuple[str, int, Callable[[], Any]]] = {
    "Exponential": ("O-", 5, lambda: Exponential(5)),
    "Exponential-trivialized": ("O-", 5, lambda: Exponential(5, trivialized=True)),
    "Cayley": ("O-", 5, lambda: Cayley(5)),
    "Cayley-trivialized": ("O-", 5, lambda: Cayley(5, trivialized=True)),
    "ScaledCayley-even": ("O-", 5, lambda: ScaledCayley(5, negatives=2)),
    "ScaledCayley-odd": ("SO", 5, lambda: ScaledCayley(5, negatives=3)),
    "Householder-even": ("O-", 5, lambda: Householder(5, 4)),
    "Householder-odd": ("SO", 5, lambda: Householder(5)),
    "Rotations": ("O-", 6, lambda: Rotations(6, 6)),
}


@pytest.mark.parametrize("name", MISSES)
def test_the_other_component_is_at_distance_two(name: str) -> None:
    """|W - T|^2 >= 4 when det W = -det T: T^T W has an eigenvalue -1. Descent comes as near as that, and no nearer."""
    kind, n, build = MISSES[name]
    _, squared = nearest(build, haar(n, kind), starts=3)
    assert squared == pytest.approx(4, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        ("SO", lambda: Rotations(8, 2)),
        ("SO", lambda: Rotations(8, layout="fft")),
        ("O-", lambda: Householder(8, 1)),
        ("U", lambda: Rotations(8, 2, unitary=True)),
        ("U", lambda: RestrictedUnitary(8)),
    ],
    ids=["Rotations", "Rotations-fft", "Householder", "Rotations-unitary", "RestrictedUnitary"],
)
def test_maps_of_too_few_dimensions_miss_a_random_target(kind: str, build: Callable[[], Any]) -> None:
    """5 to 16 of 28, and 13 to 49 of 64 dimensions."""
    assert nearest(build, haar(8, kind), starts=2)[0] > 0.05


HALF_TURN = torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("unitary", [False, True])
def test_only_cayley_without_a_base_or_a_diagonal_misses_the_eigenvalue_minus_one(unitary: bool) -> None:
    """I + W = 2 (I + A)^-1, so for a T with T v = -v, |W - T| >= |(W + I) v| >= 2 / sqrt(1 + |A|^2): only an infinite
    A gets there. The others do: exp at the angle pi, D and a base by moving the origin."""
    target = HALF_TURN.to(torch.complex128) if unitary else HALF_TURN
    others: list[Callable[[], Any]] = [
        lambda: Exponential(4, unitary=unitary),
        lambda: Cayley(4, unitary=unitary, trivialized=True),
        (lambda: UnitaryScaledCayley(4)) if unitary else (lambda: ScaledCayley(4, negatives=2)),
    ]
    for build in others:
        assert nearest(build, target, starts=10)[0] < 1e-4
    torch.manual_seed(0)
    m = Cayley(4, unitary=unitary).double()
    for evaluations in (5, 20, 20):
        descend(m, target, evaluations)
        gap = torch.linalg.matrix_norm(m().detach() - target, 2).item()
        size = torch.linalg.matrix_norm(m.generator().detach(), 2).item()
        assert gap >= 2 / math.sqrt(1 + size**2) * (1 - 1e-9)
        assert gap > 0
    assert size > 20  # the price of coming near


def test_cayley_keeps_a_small_generator_where_it_reaches() -> None:
    """The same budget, for a quarter turn."""
    torch.manual_seed(0)
    m = Cayley(4).double()
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    target = torch.block_diag(quarter, torch.eye(2, dtype=torch.float64))
    descend(m, target, 45)
    assert (m() - target).abs().max() < 1e-4
    assert torch.linalg.matrix_norm(m.generator().detach(), 2) < 1.01
