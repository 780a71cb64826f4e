"""Named initialisers, one in-place function each, in the column convention h_t = f(W h_{t-1} + V x_t + b).

Those for skew generators fill an (n, n) tensor A = -A^T. All but `haar_` are block diagonal with blocks
[[0, s], [-s, 0]]; for odd n the last row and column stay zero, which leaves W one eigenvalue 1. A block's rotation
angle is |s| under W = exp(A) and 2 arctan |s| under the Cayley map (I + A)^-1 (I - A): one name, two spectra.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from datamodules.errors import whole

Fill = Callable[[Tensor], Tensor]
SkewInit = Fill
SkewInitName = Literal["henaff", "cayley", "cayley_circle", "haar", "torus"]
InputInit = Literal["cell", "torch", "kaiming", "xavier", "xavier_normal", "uniform"]
DecoderInit = Literal["torch", "kaiming", "xavier", "xavier_normal", "tensorflow", "eunn"]


@torch.no_grad()
def _blocks_(A: Tensor, s: Tensor) -> Tensor:
    """Fill A with the blocks [[0, s_i], [-s_i, 0]] along its diagonal."""
    first = torch.arange(0, 2 * len(s), 2, device=A.device)
    A.zero_()
    A[first, first + 1] = s
    A[first + 1, first] = -s
    return A


def henaff_(A: Tensor) -> Tensor:
    """Blocks with s ~ U(-pi, pi): under exp, rotations by any angle (Henaff et al. 2016; expRNN's current code)."""
    return _blocks_(A, A.new_empty(len(A) // 2).uniform_(-math.pi, math.pi))


def cayley_(A: Tensor) -> Tensor:
    """Blocks with s = -tan(u / 2), u ~ U(0, pi/2) (Helfrich et al. 2018).

    The angles are u in [0, pi/2] under the Cayley map; under exp they are |s| in [0, 1] rad, which is what expRNN's
    "cayley" initialisation means.
    """
    return _blocks_(A, -torch.tan(A.new_empty(len(A) // 2).uniform_(0, math.pi / 2) / 2))


def cayley_circle_(A: Tensor) -> Tensor:
    """Blocks with s = -|tan(u / 2)|, u ~ U(0, 2 pi): scuRNN's start on adding (Maduranga et al. 2019, their code).

    `cayley_` over the whole circle. Under the Cayley map the angles are min(u, 2 pi - u), uniform in [0, pi], with the
    same orientation everywhere, as s is never positive. |s| is half-Cauchy: its median is 1, one in n is beyond 2n/pi,
    and u = pi, where tan has its pole, is no number of floating point, so that all are finite. A block with a large s
    turns by nearly pi, and gradients move it by ~ 1/s^2: it stays there.
    """
    return _blocks_(A, -torch.tan(A.new_empty(len(A) // 2).uniform_(0, 2 * math.pi) / 2).abs())


def torus_(A: Tensor) -> Tensor:
    """Blocks that make exp(A) uniform on the maximal torus of SO(n): s ~ U(-pi, pi) (GeoTorch).

    The same law as `henaff_`; it has its own name because both are used in the literature.
    """
    return henaff_(A)


@torch.no_grad()
def haar_(A: Tensor) -> Tensor:
    """The principal logarithm of a Haar-distributed rotation, so that exp(A) is uniform on SO(n).

    Sampled and taken apart in float64. Cost O(n^3), once.
    """
    n = len(A)
    gaussian = torch.randn(n, n, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.sign(torch.diagonal(r))  # else QR's own sign convention shows (Mezzadri 2007)
    if n and torch.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    logarithm = _rotation_log(q.numpy())
    A.copy_(torch.from_numpy(logarithm - logarithm.T) / 2)
    return A


def _rotation_log(Q: np.ndarray) -> np.ndarray:
    """Real logarithm of a rotation through its real Schur form, exact for every angle including pi.

    Q is normal, so its real Schur form is block diagonal: 2x2 rotations, and eigenvalues +1 and (in pairs) -1.
    """
    T, Z = scipy.linalg.schur(Q, output="real")
    log_T = np.zeros_like(T)
    negative: list[int] = []
    i = 0
    while i < len(T):
        if i + 1 < len(T) and T[i + 1, i] != 0:
            angle = math.atan2(T[i + 1, i] - T[i, i + 1], T[i, i] + T[i + 1, i + 1])
            log_T[i + 1, i], log_T[i, i + 1] = angle, -angle
            i += 2
            continue
        if T[i, i] < 0:
            negative.append(i)
        i += 1
    for a, b in zip(negative[::2], negative[1::2], strict=True):  # det 1: the -1s pair up to rotations by pi
        log_T[b, a], log_T[a, b] = math.pi, -math.pi
    return Z @ log_T @ Z.T


SKEW_INITS: dict[SkewInitName, SkewInit] = {
    "henaff": henaff_,
    "cayley": cayley_,
    "cayley_circle": cayley_circle_,
    "haar": haar_,
    "torus": torus_,
}


@torch.no_grad()
def identity_(W: Tensor, lam: float = 1.0) -> Tensor:
    """W = lam I (Le et al. 2015 with lam = 1)."""
    return nn.init.eye_(W).mul_(lam)


def orthogonal_(W: Tensor, lam: float = 1.0) -> Tensor:
    """W = lam Q with Q a random dense orthogonal matrix (Saxe et al. 2014)."""
    return nn.init.orthogonal_(W, gain=lam)


def gaussian_(W: Tensor, lam: float = 1.0) -> Tensor:
    """W_ij ~ N(0, lam^2 / n): by the circular law the eigenvalues fill the disk of radius lam."""
    return nn.init.normal_(W, std=lam / len(W) ** 0.5)


@torch.no_grad()
def fbchain_(W: Tensor, alpha: float = 0.99, beta: float = 0.04) -> Tensor:
    """W_ij = alpha [j = i - 1] + beta [j = i + 1]: a chain with feedback (Orhan and Pitkow 2020).

    Unit 1 is the source: the chain is below the diagonal, because W multiplies a column. (The released torch code has
    it above, which sends the signal from unit n to unit 1.) Eigenvalues 2 sqrt(alpha beta) cos(pi j / (n + 1)).
    """
    n = len(W)
    W.zero_()
    W.diagonal(-1).fill_(alpha)
    if n > 1:
        W.diagonal(1).fill_(beta)
    return W


def chain_(W: Tensor, alpha: float = 1.02) -> Tensor:
    """W_ij = alpha [j = i - 1]: unit 1 drives unit 2 drives unit 3 (Orhan and Pitkow 2020). Nilpotent."""
    return fbchain_(W, alpha, 0.0)


@torch.no_grad()
def ramp_(W: Tensor, span: float = 0.01) -> Tensor:
    """W_ij = span (i - j) / (n - 1): constant along diagonals, rising from -span to span with the offset i - j.

    The profile that trained LSTMs show in their sigmoid gates (Orhan and Pitkow 2020).
    """
    position = torch.arange(len(W), dtype=W.dtype, device=W.device)
    return W.copy_(span * (position[:, None] - position) / max(len(W) - 1, 1))


def source_(V: Tensor, scale: float = 0.9) -> Tensor:
    """V = scale times the rectangular identity (n, I): input k drives only unit k (Orhan and Pitkow 2020)."""
    return identity_(V, scale)


def dense_(V: Tensor, scale: float = 0.9) -> Tensor:
    """V_ij ~ N(0, scale^2 / n) for V (n, I): std scale / sqrt(n) (Orhan and Pitkow 2020, as their code reads it)."""
    return nn.init.normal_(V, std=scale / len(V) ** 0.5)


def torch_(V: Tensor) -> Tensor:
    """V_ij ~ U(-1/sqrt(I), 1/sqrt(I)) for V (n, I): the start of `torch.nn.Linear`."""
    return nn.init.kaiming_uniform_(V, a=5**0.5)


def kaiming_(V: Tensor) -> Tensor:
    """V_ij ~ N(0, 2 / I) for V (n, I): He et al. 2015, for ReLU; expRNN's input map, and its decoder on copying."""
    return nn.init.kaiming_normal_(V, nonlinearity="relu")


def xavier_(V: Tensor) -> Tensor:
    """V_ij ~ U(-b, b), b = sqrt(6 / (n + I)), for V (n, I): Glorot and Bengio 2010; uRNN, scuRNN, oRNN, TF, Keras."""
    return nn.init.xavier_uniform_(V)


def xavier_normal_(V: Tensor) -> Tensor:
    """V_ij ~ N(0, 2 / (n + I)) for V (n, I): nnRNN's input map (std 0.062 for n = 512, I = 1) and NRU's decoder."""
    return nn.init.xavier_normal_(V)


def small_(V: Tensor) -> Tensor:
    """V_ij ~ U(-0.01, 0.01): the input maps of scoRNN, EUNN and GORU."""
    return nn.init.uniform_(V, -0.01, 0.01)


INPUT_INITS: dict[InputInit, Fill] = {
    "torch": torch_,
    "kaiming": kaiming_,
    "xavier": xavier_,
    "xavier_normal": xavier_normal_,
    "uniform": small_,
}


def eunn_decoder_(decoder: nn.Linear, input_size: int) -> nn.Linear:
    """U(-b, b) with b = sqrt(6 / (I + O)), biases 0.01: the decoder (n to O) of EUNN's and GORU's released scripts.

    Glorot's formula, but I is the width of the network's inputs and not n, so that n does not matter: b is 0.56 on
    copying (I = 10, O = 9) and 0.74 on pixel MNIST (I = 1, O = 10), where Glorot's own would be 0.21 at n = 128.

    Args:
        decoder: Filled.
        input_size: I.
    """
    bound = (6 / (input_size + decoder.out_features)) ** 0.5
    nn.init.uniform_(decoder.weight, -bound, bound)
    nn.init.constant_(decoder.bias, 0.01)
    return decoder


def decoder_(decoder: nn.Linear, init: DecoderInit, input_size: int) -> nn.Linear:
    """Start a decoder by name: ``torch`` as it is, ``eunn`` by `eunn_decoder_`, else `INPUT_INITS` and zero biases.

    ``tensorflow`` is what TensorFlow 1's ``get_variable`` gives by default: Glorot uniform, of the biases too, a
    vector (O,) having O on both sides: U(-sqrt(3/O), sqrt(3/O)), 0.58 on copying (O = 9).
    """
    if init == "eunn":
        return eunn_decoder_(decoder, input_size)
    if init == "tensorflow":
        bound = (3 / decoder.out_features) ** 0.5
        nn.init.uniform_(decoder.bias, -bound, bound)
        xavier_(decoder.weight)
        return decoder
    if init != "torch":
        INPUT_INITS[init](decoder.weight)
        nn.init.zeros_(decoder.bias)
    return decoder


@torch.no_grad()
def chrono_(bias: Tensor, t_max: int, integers: bool = False) -> Tensor:
    """A forget gate's bias log u, so that it forgets over u steps (Tallec and Ollivier 2018).

    Args:
        bias: Filled; the input gate's bias is its negative.
        t_max: Longest time to remember, at least 2: u ~ U(1, t_max - 1).
        integers: u uniform on 1, 2, .., t_max instead, as in the NRU paper's code.
    """
    whole(t_max, "model.init_args.t_max", 2)
    u = torch.randint_like(bias, 1, t_max + 1) if integers else torch.empty_like(bias).uniform_(1, t_max - 1)
    return bias.copy_(torch.log(u))
