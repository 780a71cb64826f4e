"""Every real map onto orthogonal matrices (and one, the Schur form, around them) is its dense float64 construction.

Conventions: h_t = f(W h_{t-1} + ...), columns. The exponential itself has its tests in test_parametrizations.py; what
is known of one map alone is in test_cayley.py and test_products.py.
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

from datamodules import UserError
from lit_rnn.parametrizations import Cayley, Householder, Rotations, ScaledCayley, SchurForm
from tests.oracles.maps import (
    FFT,
    TUNABLE,
    Array,
    Numbers,
    cayley_dense,
    half,
    householder_dense,
    rotations_dense,
    scaled_dense,
    schur_dense,
)
from tests.oracles.modules import check_copies, check_gradients, close, fill, numbers, value

F64 = torch.float64


# -- the maps under test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A map at one size: how to build it, its dense construction, and what its manifold is."""

    build: Callable[[], Any]
    dense: Callable[[Numbers], Array]
    n: int
    free: int  # numbers it registers
    dimension: int  # of the manifold it reaches, seen from a generic point
    det: int | None  # None: not orthogonal


def cases() -> Iterator[tuple[str, Case]]:
    for n in (1, 2, 3, 5, 8):
        yield f"Cayley-{n}", Case(lambda n=n: Cayley(n), lambda p, n=n: cayley_dense(p, n), n, half(n), half(n), 1)
        yield (
            f"Cayley-trivialized-{n}",
            Case(lambda n=n: Cayley(n, trivialized=True), lambda p, n=n: cayley_dense(p, n), n, half(n), half(n), 1),
        )
        for rho in sorted({0, 1, n // 2, n}):
            for released in (False, True):
                yield (
                    f"ScaledCayley-{n}-{rho}{'-released' * released}",
                    Case(
                        lambda n=n, r=rho, o=released: ScaledCayley(n, negatives=r, released_order=o),
                        lambda p, n=n, r=rho, o=released: scaled_dense(p, n, r, o),
                        n,
                        half(n),
                        half(n),
                        (-1) ** rho,
                    ),
                )
        for m in sorted({1, (n + 1) // 2, n}):
            yield (
                f"Householder-{n}-{m}",
                Case(
                    lambda n=n, m=m: Householder(n, m),
                    lambda p, n=n, m=m: householder_dense(p, n, m),
                    n,
                    m * n - m * (m - 1) // 2,
                    m * n - m * (m + 1) // 2,  # a reflection does not see the length of its vector
                    (-1) ** m,
                ),
            )
    for n, capacity in ((2, 2), (4, 2), (4, 4), (8, 4), (8, 8)):
        pairs = TUNABLE[n][:capacity]
        count = capacity * (n - 1) // 2
        yield (
            f"Rotations-tunable-{n}-{capacity}",
            Case(
                lambda n=n, c=capacity: Rotations(n, c),
                lambda p, n=n, x=pairs: rotations_dense(p, n, x),
                n,
                count,
                count,
                1,
            ),
        )
    for n, layers in FFT.items():
        count = n * int(math.log2(n)) // 2
        yield (
            f"Rotations-fft-{n}",
            Case(
                lambda n=n: Rotations(n, layout="fft"),
                lambda p, n=n, x=layers: rotations_dense(p, n, x),
                n,
                count,
                count,
                1,
            ),
        )
    for n in (2, 4, 8):
        yield (
            f"SchurForm-{n}",
            # P may turn inside each of the n/2 invariant planes without moving W
            Case(lambda n=n: SchurForm(n), lambda p, n=n: schur_dense(p, n), n, n * n - n // 2, n * n - n, None),
        )
        yield (
            f"SchurForm-released-{n}",
            # any real matrix
            Case(
                lambda n=n: SchurForm(n, upper="released"),
                lambda p, n=n: schur_dense(p, n, released=True),
                n,
                n * n,
                n * n,
                None,
            ),
        )


CASES = dict(cases())
ORTHOGONAL = [name for name, case in CASES.items() if case.det is not None]
each_map = pytest.mark.parametrize("name", CASES)


def make(name: str, seed: int = 0) -> Any:
    return fill(CASES[name].build().double(), seed)


# -- every map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_map
def test_map_is_its_dense_construction(name: str, seed: int) -> None:
    module, case = make(name, seed), CASES[name]
    W = module()
    assert W.shape == (case.n, case.n) and W.dtype == F64
    close(W.detach(), case.dense(numbers(module)))


@each_map
def test_free_numbers_are_counted_as_the_formula_says(name: str) -> None:
    assert sum(p.numel() for p in CASES[name].build().parameters()) == CASES[name].free


@each_map
def test_reaches_a_manifold_of_the_dimension_it_promises(name: str) -> None:
    """The rank of dW / d(free numbers) at a generic point."""
    module, case = make(name, seed=3), CASES[name]
    keys, values = zip(*module.named_parameters(), strict=True)
    columns = torch.autograd.functional.jacobian(
        lambda *args: functional_call(module, dict(zip(keys, args, strict=True)), ()), tuple(v.detach() for v in values)
    )
    J = torch.cat([c.reshape(case.n**2, -1) for c in columns], dim=1)
    assert J.shape[1] == case.free
    rank = int(torch.linalg.matrix_rank(J, atol=1e-9)) if J.numel() else 0
    assert rank == case.dimension


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_matrix_is_orthogonal_and_of_the_determinant_promised(name: str) -> None:
    for seed in range(5):
        module = make(name, seed)
        W = value(module)
        close(W.T @ W, np.eye(CASES[name].n), atol=1e-13)
        close(np.linalg.det(W), CASES[name].det)
        assert float(module.drift()) <= 1e-13


@each_map
def test_drift_is_the_largest_entry_of_the_defect(name: str) -> None:
    """For maps that have none, a base point off the manifold shows that it is measured. Of a Schur form, P drifts."""
    module = make(name)
    module = module.basis if name.startswith("SchurForm") else module
    if "base" in dict(module.named_buffers()):
        with torch.no_grad():
            module.base.mul_(1.01).add_(0.003)
    W = value(module)
    measured = float(module.drift())
    close(measured, np.abs(W.T @ W - np.eye(len(W))).max(), atol=1e-13)
    if "trivialized" in name:
        assert measured > 1e-3


@each_map
def test_gradcheck(name: str) -> None:
    module = make(name, seed=2)
    if any(parameter.numel() for parameter in module.parameters()):
        check_gradients(module)
    else:
        assert CASES[name].n == 1


@each_map
def test_nothing_is_cached_between_calls(name: str) -> None:
    module = make(name)
    module()
    fill(module, seed=7)
    close(value(module), CASES[name].dense(numbers(module)))


@each_map
def test_a_copy_is_independent_and_a_state_dict_is_complete(name: str) -> None:
    check_copies(make(name), CASES[name].build().double())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Cayley(64),
        lambda: Cayley(65, trivialized=True),
        lambda: ScaledCayley(65),
        lambda: ScaledCayley(64, released_order=True),
        lambda: Householder(65),
        lambda: Householder(64, 7),
        lambda: Rotations(64, 8),
        lambda: Rotations(64, 64),
        lambda: Rotations(64, layout="fft"),
        lambda: SchurForm(64),  # T = 0 and gains 1 at the start
    ],
    ids=["cayley", "trivialized", "scaled", "released", "full", "thin", "tunable", "full capacity", "fft", "schur"],
)
def test_single_precision_stays_orthogonal_under_autocast(build: Callable[[], nn.Module]) -> None:
    """Orthogonal maps run in float32 or better, whatever the precision around them."""
    module = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = module()
    assert W.dtype == torch.float32
    assert np.abs(W.detach().double().numpy() @ W.detach().double().numpy().T - np.eye(len(W))).max() < 2e-5
    W.square().sum().backward()  # constant on the manifold
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (lambda: Rotations(5), "5"),
        (lambda: Rotations(1), "1"),
        (lambda: Rotations(8, 3), "3"),
        (lambda: Rotations(8, 0), "0"),
        (lambda: Rotations(8, 10), "10"),
        (lambda: Rotations(6, layout="fft"), "6"),
        (lambda: Rotations(12, layout="fft"), "12"),
        (lambda: Rotations(8, layout="butterfly"), "butterfly"),
        (lambda: Rotations(5, unitary=True), "5"),
        (lambda: Rotations(8, 3, unitary=True), "3"),
        (lambda: Rotations(8, 10, unitary=True), "10"),
        (lambda: Rotations(6, layout="fft", unitary=True), "6"),
        (lambda: Householder(4, 5), "5"),
        (lambda: Householder(4, -1), "-1"),
        (lambda: ScaledCayley(4, negatives=5), "5"),
        (lambda: ScaledCayley(4, negatives=-1), "-1"),
        (lambda: SchurForm(7), "7"),
        (lambda: SchurForm(1), "1"),
        (lambda: SchurForm(4, upper="all"), "all"),
    ],
)
def test_what_a_design_does_not_admit_is_refused_in_a_sentence(build: Callable[[], object], given: str) -> None:
    with pytest.raises(UserError) as refusal:
        build()
    sentence = str(refusal.value)
    assert given in sentence and sentence.endswith(".") and len(sentence.split()) > 5
