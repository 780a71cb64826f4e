"""Published sizes of the orthogonal and unitary models, from the parameter counts of their equations.

Everywhere: V (2n columns where it is complex), one bias per unit, and the affine readout of what the cell gives out.
"""

from typing import Any

import pytest

from datamodules import PixelMNIST, Task
from lit_rnn import models
from lit_rnn.models.base import count_parameters

MNIST = PixelMNIST().task
IN, OUT = 1, 10
# log-magnitude frames of TIMIT: 129 bins in, 129 bins out
FRAMES = Task("frames", "values", 129, "frame_per_step", 129, None, "all", 1.0, "mse", False)


def size(name: str, n: int, task: Task = MNIST, **options: Any) -> int:
    return count_parameters(getattr(models, name)(task, n, **options))


def half(n: int) -> int:
    return n * (n - 1) // 2


def real(recurrent: int, n: int) -> int:
    """V, b and the readout of h beside the recurrent numbers."""
    return recurrent + n * IN + n + n * OUT + OUT


def unitary(recurrent: int, n: int, i: int = IN, o: int = OUT) -> int:
    """V, b, the initial state and the readout of [Re h | Im h] beside the recurrent numbers."""
    return recurrent + 2 * n * i + n + 2 * n + 2 * n * o + o


# -- published numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [None, 17])
@pytest.mark.parametrize(("n", "published"), [(170, 16_415), (360, 68_950), (512, 136_970)])
def test_scornn_has_the_published_size_that_of_exprnn(n: int, published: int, negatives: int | None) -> None:
    assert real(half(n), n) == published
    assert size("ScoRNN", n, negatives=negatives) == size("ExpRNN", n) == published


@pytest.mark.parametrize(("n", "published"), [(116, 16_482), (250, 69_010)])
def test_scurnn_has_the_published_size(n: int, published: int) -> None:
    assert unitary(n * n + n, n) == published
    assert size("ScuRNN", n) == published


@pytest.mark.parametrize("n", [1, 7, 512])
def test_restricted_urnn_has_the_size_stated_in_its_code(n: int) -> None:
    assert unitary(7 * n, n) == 32 * n + 10
    assert size("URNN", n) == 32 * n + 10


@pytest.mark.parametrize("n", [1, 7, 116])
def test_full_urnn_has_the_size_stated_in_its_code(n: int) -> None:
    """n^2 is what is free in U(n), of the 2n^2 reals that are stored."""
    assert unitary(n * n, n) == n * n + 25 * n + 10
    assert size("FullURNN", n) == n * n + 25 * n + 10


@pytest.mark.parametrize(("n", "published"), [(128, 82_945), (192, 136_641), (256, 198_529)])
def test_full_urnn_has_the_published_size_on_frames(n: int, published: int) -> None:
    assert unitary(n * n, n, 129, 129) == published
    assert size("FullURNN", n, FRAMES) == published


@pytest.mark.parametrize(
    ("n", "options", "thousands"),
    [(1024, {"capacity": 2, "unitary": False}, 13), (512, {"layout": "fft", "unitary": False}, 8)],
)
def test_eurnn_has_the_size_of_its_published_row(n: int, options: dict[str, Any], thousands: int) -> None:
    """Real tunable, 13K. Real FFT is quoted with 9K (unconfirmed): its formula gives 8,458."""
    assert size("EURNN", n, **options) // 1000 == thousands


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "capacity"), [(2, 2), (6, 4), (128, 2), (64, 64)])
def test_tunable_eurnn(n: int, capacity: int) -> None:
    angles = capacity * (n - 1) // 2
    assert size("EURNN", n, capacity=capacity, unitary=False) == real(angles, n)
    # complex: two angles per rotation and n phases; V has 2n columns, Re h alone is read, h_0 is zero
    assert size("EURNN", n, capacity=capacity) == real(2 * angles + n, n) + n * IN


@pytest.mark.parametrize(("n", "log"), [(2, 1), (8, 3), (128, 7), (512, 9)])
def test_fft_eurnn(n: int, log: int) -> None:
    assert size("EURNN", n, layout="fft", unitary=False) == real(n * log // 2, n)
    assert size("EURNN", n, layout="fft") == real(n * log + n, n) + n * IN


@pytest.mark.parametrize(
    ("n", "angles", "options"), [(128, 448, {}), (8, 12, {}), (6, 10, {"layout": "tunable", "capacity": 4})]
)
def test_goru(n: int, angles: int, options: dict[str, Any]) -> None:
    """Two dense gates, three input maps, three biases, the rotations, and the readout."""
    assert size("GORU", n, **options) == 2 * n * n + 3 * n * IN + 3 * n + angles + n * OUT + OUT


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 3), (32, 32), (128, 16)])
def test_householder_rnn(n: int, m: int) -> None:
    """The lower trapezoid of m vectors, and a trained initial state."""
    assert size("HouseholderRNN", n, reflections=m) == real(m * n - m * (m - 1) // 2, n) + n


@pytest.mark.parametrize("n", [2, 8, 128])
def test_nnrnn(n: int) -> None:
    """P n(n-1)/2, angles and gains n, T n(n-2)/2: n^2 - n/2, the a = 1, b = in + out - 1/2 of the released script."""
    assert half(n) + n + n * (n - 2) // 2 == n * n - n // 2
    assert size("NnRNN", n) == real(n * n - n // 2, n)
    # the released T is the whole strict upper triangle: one entry more in each of n/2 blocks
    assert size("NnRNN", n, upper="released") == real(half(n) + n + half(n), n) == real(n * n, n)


@pytest.mark.parametrize("map_name", ["exp", "cayley"])
@pytest.mark.parametrize("name", ["ExpRNN", "DtrivRNN"])
def test_the_map_does_not_change_the_size(name: str, map_name: str) -> None:
    assert size(name, 16, map=map_name) == real(half(16), 16)
    # skew-Hermitian: n^2 numbers; V and the readout see 2n columns, h_0 is zero
    assert size(name, 16, map=map_name, unitary=True) == unitary(16 * 16, 16) - 2 * 16


def test_the_count_is_of_what_is_trained() -> None:
    model = models.ScoRNN(MNIST, 8)
    before = count_parameters(model)
    model.decoder.bias.requires_grad_(False)
    assert before - count_parameters(model) == OUT
