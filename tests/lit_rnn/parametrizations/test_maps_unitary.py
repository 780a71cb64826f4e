"""Every complex map onto unitary matrices is its dense complex128 construction, and drift is measured with a conjugate.

What is known of one map alone is in test_skew_hermitian.py and test_unitary_products.py.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from lit_rnn.parametrizations import (
    Cayley,
    Exponential,
    FreeUnitary,
    RestrictedUnitary,
    Rotations,
    UnitaryScaledCayley,
    drift,
)
from tests.oracles.maps import (
    FFT,
    TUNABLE,
    Array,
    Numbers,
    cayley_dense,
    defect,
    exponential_dense,
    half,
    random_unitary,
    restricted_dense,
    rotations_dense,
    scaled_dense,
)
from tests.oracles.modules import check_copies, check_gradients, close, fill, numbers, value

C128 = torch.complex128


# -- the maps under test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A map at one size: how to build it, its dense construction, and what its manifold is."""

    build: Callable[[], Any]
    dense: Callable[[Numbers], Array]
    n: int
    shapes: dict[str, tuple[int, ...]]  # of the free numbers
    dimension: int | None  # of the manifold it reaches, seen from a generic point; None: no closed form at this size


def cases() -> Iterator[tuple[str, Case]]:
    for n in (1, 2, 3, 5, 8):
        skew_hermitian = {"skew": (half(n),), "symmetric": (half(n + 1),)}
        for trivialized in (False, True):
            for map_class, dense in ((Exponential, exponential_dense), (Cayley, cayley_dense)):
                yield (
                    f"{map_class.__name__}{'-trivialized' * trivialized}-{n}",
                    Case(
                        lambda n=n, m=map_class, t=trivialized: m(n, trivialized=t, unitary=True),
                        lambda p, n=n, f=dense: f(p, n),
                        n,
                        skew_hermitian,
                        n * n,
                    ),
                )
        yield (
            f"UnitaryScaledCayley-{n}",  # n^2 + n numbers for n^2 dimensions
            Case(
                lambda n=n: UnitaryScaledCayley(n),
                lambda p, n=n: scaled_dense(p, n),
                n,
                {**skew_hermitian, "phase": (n,)},
                n * n,
            ),
        )
        yield (
            f"RestrictedUnitary-{n}",
            # seven of the 7n numbers do not matter: length and phase of each vector, two of three global phases, and a
            # turn of both mirrors in the plane they span (R2 R_b with b = F^-1 D2 Pi v1 only sees the angle between)
            Case(
                lambda n=n: RestrictedUnitary(n),
                lambda p, n=n: restricted_dense(p, n),
                n,
                {"phases": (3, n), "reflections": (2, 2, n)},
                7 * n - 7 if n == 8 else None,
            ),
        )
    for n, capacity in ((2, 2), (4, 2), (4, 4), (8, 4), (8, 8)):
        pairs = TUNABLE[n][:capacity]
        count = capacity * (n - 1) // 2
        yield (
            f"Rotations-tunable-{n}-{capacity}",
            Case(
                lambda n=n, c=capacity: Rotations(n, c, unitary=True),
                lambda p, n=n, x=pairs: rotations_dense(p, n, x),
                n,
                {"theta": (count,), "phi": (count,), "omega": (n,)},
                capacity * (n - 1) + n,  # e^{i phi} on the column that enters a rotation: no angle is lost
            ),
        )
    for n, layers in FFT.items():
        count = n * int(math.log2(n)) // 2
        yield (
            f"Rotations-fft-{n}",
            Case(
                lambda n=n: Rotations(n, layout="fft", unitary=True),
                lambda p, n=n, x=layers: rotations_dense(p, n, x),
                n,
                {"theta": (count,), "phi": (count,), "omega": (n,)},
                n * int(math.log2(n)) + n,
            ),
        )


CASES = dict(cases())
each_map = pytest.mark.parametrize("name", CASES)


def make(name: str, seed: int = 0) -> Any:
    return fill(CASES[name].build().double(), seed)


# -- every map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_map
def test_map_is_its_dense_construction(name: str, seed: int) -> None:
    module, case = make(name, seed), CASES[name]
    W = module()
    assert W.shape == (case.n, case.n)
    assert W.dtype == C128, "double() must bring the complex parts along"
    close(W.detach(), case.dense(numbers(module)))


@each_map
def test_free_numbers_are_real_and_as_many_as_the_formula_says(name: str) -> None:
    parameters = dict(CASES[name].build().named_parameters())
    assert {key: tuple(p.shape) for key, p in parameters.items()} == CASES[name].shapes
    assert not any(p.is_complex() for p in parameters.values())


@each_map
def test_reaches_a_manifold_of_the_dimension_it_promises(name: str) -> None:
    """The rank of d(Re W, Im W) / d(free numbers) at a generic point."""
    module, case = make(name, seed=3), CASES[name]
    keys, values = zip(*module.named_parameters(), strict=True)
    columns = torch.autograd.functional.jacobian(
        lambda *args: torch.view_as_real(functional_call(module, dict(zip(keys, args, strict=True)), ())),
        tuple(v.detach() for v in values),
    )
    J = torch.cat([c.reshape(2 * case.n**2, -1) for c in columns], dim=1)
    rank = int(torch.linalg.matrix_rank(J, atol=1e-9))
    assert rank == case.dimension if case.dimension is not None else rank <= case.n**2


@each_map
def test_matrix_is_unitary_and_not_real(name: str) -> None:
    bilinear = []
    for seed in range(5):
        module = make(name, seed)
        W = value(module)
        assert defect(W) <= 1e-13
        assert float(module.drift()) <= 1e-13
        bilinear.append(np.abs(W.T @ W - np.eye(len(W))).max())
    assert max(bilinear) > 0.5


@each_map
def test_gradcheck(name: str) -> None:
    check_gradients(make(name, seed=2))


@each_map
def test_nothing_is_cached_between_calls(name: str) -> None:
    module = make(name)
    module()
    fill(module, seed=7)
    close(value(module), CASES[name].dense(numbers(module)))


@each_map
def test_a_copy_is_independent_and_a_state_dict_is_complete(name: str) -> None:
    """The fixed random permutation of the restricted product belongs to the network: it must travel too."""
    module = make(name)
    torch.manual_seed(99)
    check_copies(module, CASES[name].build().double())


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "exp": lambda: Exponential(65, unitary=True),
    "exp trivialized": lambda: Exponential(64, trivialized=True, unitary=True),
    "cayley": lambda: Cayley(65, unitary=True),
    "cayley trivialized": lambda: Cayley(64, trivialized=True, unitary=True),
    "scaled": lambda: UnitaryScaledCayley(65),
    "restricted": lambda: RestrictedUnitary(65),
    "tunable": lambda: Rotations(64, 64, unitary=True),
    "fft": lambda: Rotations(64, layout="fft", unitary=True),
}


@pytest.mark.parametrize("build", SINGLE.values(), ids=SINGLE)
def test_single_precision_stays_unitary_under_autocast(build: Callable[[], Any]) -> None:
    """Unitary maps run in complex64 or better, whatever the precision around them."""
    module = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = module()
    assert W.dtype == torch.complex64
    measured = defect(W.detach().to(C128).numpy())
    assert measured < 2e-5
    close(float(module.drift()), measured, atol=2e-6)
    (W.real.square() + W.imag.square()).sum().backward()  # constant on the manifold
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize("build", SINGLE.values(), ids=SINGLE)
def test_moved_to_double_precision_a_fresh_map_is_unitary_to_its_rounding(build: Callable[[], Any]) -> None:
    """Module.double() leaves complex tensors alone: a base point has to be brought along, and made unitary again."""
    module = build().double()
    for computed_in_double in (False, True):  # which asks for no more than is there
        module.double_precision = computed_in_double
        assert module().dtype == C128
        assert defect(value(module)) < 1e-12


@pytest.mark.parametrize("name", ["exp trivialized", "cayley trivialized", "free"])
def test_built_where_double_precision_is_the_default(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        module = (SINGLE | {"free": lambda: FreeUnitary(8)})[name]()
        assert {tensor.dtype.to_real() for tensor in (*module.parameters(), *module.on_group())} == {torch.float64}
        assert module().dtype == C128
        assert defect(value(module)) < 1e-12
    finally:
        torch.set_default_dtype(torch.float32)


# -- drift -----------------------------------------------------------------------------------------


def test_drift_conjugates() -> None:
    """iI is unitary and not orthogonal; a complex symmetric involution is orthogonal in the bilinear sense only."""
    assert float(drift(1j * torch.eye(3, dtype=C128))) == 0
    s = math.sqrt(2)
    bilinear = torch.tensor([[s, 1j], [-1j, s]], dtype=C128)  # W^T W = I
    close((bilinear.T @ bilinear).numpy(), np.eye(2), atol=1e-15)
    close(float(drift(bilinear)), abs(2 * s), atol=1e-12)
    scaled = 1.01 * torch.tensor(random_unitary(5, 0))
    close(float(drift(scaled)), 1.01**2 - 1, atol=1e-13)


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_drift_sees_a_base_that_has_left_the_group(map_class: Callable[..., Any]) -> None:
    module = fill(map_class(5, trivialized=True, unitary=True).double())
    with torch.no_grad():
        module.base.add_(0.01j)
    assert defect(value(module)) > 1e-3
    close(float(module.drift()), defect(value(module)), atol=1e-13)
