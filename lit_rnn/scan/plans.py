"""What gated.cpp has to know of each cell that it computes: its products, its widths, its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_rnn import cells
from lit_rnn.activations import NONLINEARITIES, ModReLU
from lit_rnn.cells.base import Cell
from lit_rnn.cells.linear import Constant
from lit_rnn.scan.checks import is_just
from lit_rnn.scan.recurrence import KINDS

KERNELS = (
    "janet",
    "lstm",
    "gru",
    "goru",
    "reset before",
    "euler",
    "layer norm",
    "statistical",
    "nru",
    "lstm with output matrix",
    "slstm",
    "lem",
    "cornn",
    "unicornn",
    "pairs",
    "mingru",
    "minlstm",
)  # as in gated.cpp
_LONGEST = 256  # as in nru.h
_TOLD = ("beta", "step_size", "gamma", "epsilon", "alpha")  # numbers of cells; made tensors, they may learn
NUMBERS = 16  # a cell has at most so many of them


class Product(NamedTuple):
    """W times columns of the state's record, added to columns of z."""

    rows: int  # of W: the columns of z
    columns: int  # of W: those of the record
    reads: int = 0  # the first column read
    writes: int = 0  # the first column of z
    fresh: int = 0  # how many of the columns read are this step's; the others are those before it

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns


class Plan(NamedTuple):
    """What C++ has to know of a cell; the fields of ``Shape`` in gated.cpp."""

    kind: str
    sizes: tuple[int, ...]  # of the struct of that cell
    state: int  # width of the state, its tensors side by side
    drive: int  # width of the drive
    kept: int  # width of z
    products: tuple[Product, ...]
    vectors: int = 0  # how many numbers the cell's vectors are
    beside: int = 0  # columns of the record behind the state, for the second product to read
    drive_at: int = 0  # where in z the drive goes
    numbers: tuple[float, ...] = ()
    outputs: slice | None = None  # columns of the state that are read; None: those of its first tensor
    drives_again: bool = False  # z stays the drive: not kept, but formed again in the backward

    @property
    def record(self) -> int:
        return self.state + self.beside


class Parts(NamedTuple):
    """A cell as C++ takes it."""

    plan: Plan
    matrices: tuple[Tensor, ...]  # one for each product
    vectors: tuple[Tensor | None, ...] = ()
    drive: nn.Module | None = None  # the map of the inputs that C++ is driven by; None: the cell's own drive


def _janet(cell: cells.JANETCell, w: Tensor) -> Parts:
    n = cell.hidden_size
    return Parts(Plan("janet", (n,), n, 2 * n, 2 * n, (Product(2 * n, n),), numbers=(cell.beta,)), (w,))


def _lstm(cell: cells.LSTMCell, w: Tensor) -> Parts:
    n = cell.hidden_size
    if cell.output is None:
        vectors = 0 if cell.peephole is None else 3 * n
        return Parts(Plan("lstm", (n,), 2 * n, 4 * n, 4 * n, (Product(4 * n, n),), vectors), (w,), (cell.peephole,))
    products = Product(4 * n, n), Product(n, n, reads=n, writes=3 * n, fresh=n)
    return Parts(Plan("lstm with output matrix", (n,), 2 * n, 4 * n, 4 * n, products), (w, cell.output.weight))


def _gru(cell: cells.GRUCell, w: tuple[Tensor, Tensor | None]) -> Parts:
    n = cell.hidden_size
    W, b = w
    if b is not None:  # C++ takes the candidate first: q has no drive, which then is one block
        return Parts(_reset_after("gru", n), (W.roll(n, 0),), (b[2 * n :],))
    products = Product(2 * n, n), Product(n, n, reads=n, writes=2 * n, fresh=n)
    return Parts(Plan("reset before", (n,), n, 3 * n, 3 * n, products, beside=n), W.split((2 * n, n)))


def _goru(cell: cells.GORUCell, w: tuple[Tensor, Tensor]) -> Parts:
    n = cell.hidden_size
    return Parts(_reset_after("goru", n), (w[0].roll(n, 0),), (cell.activation.bias,))


def _reset_after(kind: str, n: int) -> Plan:
    return Plan(kind, (n,), n, 3 * n, 4 * n, (Product(3 * n, n),), vectors=n, drive_at=n)


def _euler(cell: cells.LipschitzRNNCell | cells.AntisymmetricRNNCell, w: Tensor) -> Parts:
    n, linear = cell.hidden_size, type(cell).step is cells.LipschitzRNNCell.step
    kept, numbers = n + linear * n, (cell.step_size,)
    plan = Plan("euler", (n, linear), n, n, kept, (Product(kept, n),), drive_at=linear * n, numbers=numbers)
    return Parts(plan, (w,))


def _layer_norm(cell: cells.LayerNormRNNCell, w: Tensor) -> Parts:
    n, norm = cell.hidden_size, cell.norm
    f = next(name for name, f in NONLINEARITIES.items() if f is cell.activation)
    sizes, numbers = (n, KINDS.index(f)), (norm.eps,)
    plan = Plan("layer norm", sizes, n, n, n + 1, (Product(n, n),), vectors=2 * n, numbers=numbers)
    return Parts(plan, (w,), (norm.weight, norm.bias))


def _statistical(cell: cells.StatisticalRUCell, w: tuple[Tensor, Tensor]) -> Parts:
    r, p = cell.summary.out_features, cell.input.out_features
    total = p * len(cell.alphas)
    products = Product(r, total), Product(p, r, reads=total, writes=r, fresh=r)
    sizes = r, p, len(cell.alphas)
    plan = Plan("statistical", sizes, total, p, r + p, products, vectors=r, beside=r, drive_at=r, numbers=cell.alphas)
    return Parts(plan, (cell.summary.weight, w[0]), (cell.summary.bias,))


def _nru(cell: cells.NRUCell, w: Any) -> Parts:
    H, M, side, parts = cell.hidden_size, cell.memory_size, *_nru_sizes(cell)
    sizes = (H, M, cell.products, parts, side, M // side)
    gates, released = cell.products * (parts + 2 * side), cell.form == "released"
    products = Product(H, H + M), Product(gates, H + M, writes=H, fresh=H)
    drive, vectors = (H, gates) if released else (H + gates, 0)
    plan = Plan("nru", sizes, H + M, drive, H + gates, products, vectors)
    return Parts(plan, (w.hidden, w.gates), (w.bias if released else None,))


def _slstm(cell: cells.SLSTMCell, w: Tensor) -> Parts:
    n = cell.hidden_size
    return Parts(Plan("slstm", (n,), 4 * n, 4 * n, 4 * n, (Product(4 * n, n),)), (w,))


def _lem(cell: cells.LEMCell, w: Tensor) -> Parts:
    n = cell.hidden_size
    products = Product(3 * n, n), Product(n, n, reads=n, writes=3 * n, fresh=n)
    plan = Plan("lem", (n,), 2 * n, 4 * n, 4 * n, products, numbers=(cell.step_size,))
    return Parts(plan, w.split((3 * n, n)))


def _cornn(cell: cells.CoRNNCell, w: Tensor) -> Parts:
    n, numbers = cell.hidden_size, (cell.step_size, cell.gamma, cell.epsilon)
    return Parts(Plan("cornn", (n,), 2 * n, n, n, (Product(n, 2 * n),), numbers=numbers), (w,))


def _unicornn(cell: cells.UnICORNNCell, w: tuple[Tensor, Tensor]) -> Parts:
    n = cell.hidden_size
    return Parts(Plan("unicornn", (n,), 2 * n, n, n, (), vectors=2 * n, numbers=(cell.alpha,)), (), w)


def _linear(kind: str, sizes: tuple[int, ...], state: int, drive: int, vectors: int = 0) -> Plan:
    return Plan(kind, sizes, state, drive, drive, (), vectors, drives_again=True)


def _lru(cell: cells.LRUCell, w: Constant) -> Parts:
    N = cell.units
    plan = _linear("pairs", (N, False), 2 * N, 2 * N, 6 * N)._replace(outputs=slice(0, 2 * N))
    return Parts(plan, (), (w.A, w.into), cell.B)


def _linoss(cell: cells.LinOSSCell, w: Constant) -> Parts:
    N = 2 * cell.units  # real and imaginary parts alike
    plan = _linear("pairs", (N, True), 2 * N, N, 6 * N)._replace(outputs=slice(N, 2 * N))
    return Parts(plan, (), (w.A, w.into), cell.B)


def _mingru(cell: cells.MinGRUCell, w: None) -> Parts:
    n = cell.hidden_size
    return Parts(_linear("mingru", (n, cell.positive), n, 2 * n), (), (), cell.input)


def _minlstm(cell: cells.MinLSTMCell, w: None) -> Parts:
    n = cell.hidden_size
    return Parts(_linear("minlstm", (n, cell.positive), n, 3 * n), (), (), cell.input)


def _nru_sizes(cell: cells.NRUCell) -> tuple[int, int]:
    """Length of q, and how many parts the p of one outer product has."""
    return cell.write.out_features // cell.products, 2 * cell.heads // cell.products


# by what a step does: a subclass that changes it is another cell
_PARTS: dict[Any, Callable[..., Parts]] = {
    cells.JANETCell.step: _janet,
    cells.LSTMCell.step: _lstm,
    cells.GRUCell.step: _gru,
    cells.GORUCell.step: _goru,
    cells.LipschitzRNNCell.step: _euler,
    cells.AntisymmetricRNNCell.step: _euler,
    cells.LayerNormRNNCell.step: _layer_norm,
    cells.StatisticalRUCell.step: _statistical,
    cells.NRUCell.step: _nru,
    cells.SLSTMCell.step: _slstm,
    cells.LEMCell.step: _lem,
    cells.CoRNNCell.step: _cornn,
    cells.UnICORNNCell.step: _unicornn,
}

# linear in their state: all have the same step, and say in these what it is
_LINEAR: dict[type[Cell], Callable[..., Parts]] = {
    cells.LRUCell: _lru,
    cells.LinOSSCell: _linoss,
    cells.MinGRUCell: _mingru,
    cells.MinLSTMCell: _minlstm,
}
_SAID_IN = ("step", "terms", "drive", "candidate", "read", "seen")


def _linear_kind(cell: Cell) -> type[Cell] | None:
    """The class of `_LINEAR` that ``cell`` is, with nothing of its step changed."""

    def says_the_same(kind: type[Cell]) -> bool:
        return all(getattr(type(cell), name, None) is getattr(kind, name, None) for name in _SAID_IN)

    return next((kind for kind in _LINEAR if isinstance(cell, kind) and says_the_same(kind)), None)


def is_gated(cell: Cell) -> bool:
    """Whether gated.cpp computes what ``cell`` does."""
    if isinstance(cell, cells.NRUCell):
        same = type(cell)._separate is cells.NRUCell._separate and is_just(cell.norm, nn.Identity)
        plain = cell.separable and same and _nru_sizes(cell)[0] <= _LONGEST
    elif isinstance(cell, cells.LayerNormRNNCell):
        norm: nn.Module = cell.norm
        whole = isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.bias is not None
        plain = cell.activation in NONLINEARITIES.values() and whole and is_just(norm, nn.LayerNorm)
    elif isinstance(cell, cells.GORUCell):
        plain = is_just(cell.activation, ModReLU)
    elif isinstance(cell, cells.StatisticalRUCell):
        same = type(cell).weights is cells.StatisticalRUCell.weights and is_just(cell.summary, nn.Linear)
        plain = len(cell.alphas) <= NUMBERS and cell.summary.bias is not None and same
    else:
        plain = not any(isinstance(getattr(cell, name, None), Tensor) for name in _TOLD)
    return plain and (type(cell).step in _PARTS or _linear_kind(cell) is not None)


def parts_of(cell: Cell, w: Any) -> Parts:
    """A cell that `is_gated`, with what its ``weights()`` gave."""
    kind = _linear_kind(cell)
    return _PARTS[type(cell).step](cell, w) if kind is None else _LINEAR[kind](cell, w)
