"""Attacks on value inputs, in the inputs' own units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from datamodules.errors import UserError, number, one_of, require, whole
from lit_rnn.robustness.draws import Draws, Seed
from lit_rnn.robustness.objective import Loss, Objective, Wrong
from lit_rnn.robustness.search import Search
from lit_rnn.robustness.state import Model, frozen, tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Bounds = tuple[float, float]
StepRule = Literal["linear", "constant"]


def _norms(delta: Tensor) -> Tensor:
    """The L2 norm of each example, with as many axes as ``delta``."""
    return delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.dim() - 1))


def _over_examples(flags: Tensor, like: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (like.dim() - 1))


class Threat:
    """The set an attack may move in: {x + d: |d| <= eps, x + d in the box, d = 0 outside the mask}.

    |d| is that of the numbers as they are, held against eps in float64: rounding leads none out of the ball.

    Args:
        x: The inputs (B, ...), floating.
        eps: Radius in the units of x: of each element for L-inf, of the whole sequence for L2.
        norm: inf or 2.
        bounds: (low, high), the box of valid inputs; None for none.
        mask: What may be changed, true or 1, broadcastable to x; None for all.

    Raises:
        UserError: for no examples, symbols, a norm other than these, an eps that is negative or wider than the box, an
            input outside its box, a mask of the wrong shape.
    """

    def __init__(self, x: Tensor, eps: float, norm: float, bounds: Sequence[float] | None, mask: Tensor | None) -> None:
        check_examples(x)
        if not x.is_floating_point():
            raise UserError(
                f"inputs are {x.dtype}, symbols, but this attack must move values: "
                "take symbol_swap, or attack the embedding."
            )
        self.x = x.detach().clone()
        self.mask = expand_mask(x, mask)
        self.bounds = check_bounds(x[self.mask], bounds)  # what is held still may lie outside, as noise does
        self.norm = number(norm, "norm", "inf or 2", lambda p: p in (math.inf, 2.0))
        self.eps = number(eps, "eps", "0 or positive, in the units of the input", lambda r: 0 <= r < math.inf)
        if self.bounds is not None:
            widest = (self.bounds[1] - self.bounds[0]) * (1.0 if self.norm == math.inf else x[0].numel() ** 0.5)
            require(
                self.eps <= widest * (1 + 1e-6),
                "eps",
                eps,
                f"at most {widest:g}, which reaches across the data's range",
            )
        if self.norm == math.inf:
            self._low, self._high = self._pulled(self.x - self.eps), self._pulled(self.x + self.eps)

    def _pulled(self, moved: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """What rounding has put out of the ball goes towards x, by the least that its numbers allow, until it is in."""
        x, mask = self.x[rows], self.mask[rows]
        while True:
            delta = torch.where(mask, moved.double() - x.double(), 0.0)
            outside = (delta.abs() if self.norm == math.inf else _norms(delta)) > self.eps
            if not outside.any():
                return moved
            nearer = moved + torch.finfo(x.dtype).eps * (x - moved)  # which near 0 is more than the next number
            moved = torch.where(outside, torch.nextafter(nearer, x), moved)

    def project(self, moved: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Admissible inputs near ``moved``: onto the ball, then into the box, which does not leave the ball."""
        x, mask = self.x[rows], self.mask[rows]
        if self.norm == math.inf:
            moved = torch.maximum(torch.minimum(moved, self._high[rows]), self._low[rows])
        else:
            delta = torch.where(mask, moved.double() - x.double(), 0.0)
            moved = (x.double() + delta * (self.eps / _norms(delta).clamp_min(self.eps))).to(x.dtype)
            moved = self._pulled(moved, rows)
        if self.bounds is not None:
            moved = moved.clamp(*self.bounds)
        return torch.where(mask, moved, x)

    def ascent(self, gradient: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The unit step that a linear function grows most along: sign(g), or g / |g|; zero where the gradient is."""
        # an exploding gradient still has a direction
        gradient = torch.where(self.mask[rows], torch.nan_to_num(gradient), 0.0)
        if self.norm == math.inf:
            return gradient.sign()
        tiny = torch.finfo(gradient.dtype).tiny
        gradient = gradient / _over_examples(gradient.flatten(1).abs().amax(1), gradient).clamp_min(tiny)
        return gradient / _norms(gradient).clamp_min(tiny)

    def sample(self, draws: Draws) -> Tensor:
        """Inputs drawn uniformly from the ball, then put into the box."""
        shape, dtype = self.x.shape[1:], self.x.dtype
        if self.norm == math.inf:
            delta = self.eps * (2 * draws.uniform(*shape, dtype=dtype) - 1).to(self.x.device)
        else:
            delta = draws.normal(*shape, dtype=dtype).to(self.x.device) * self.mask
            radius = draws.uniform(dtype=dtype).to(self.x.device)
            free = self.mask.flatten(1).sum(1).clamp_min(1)
            radius = _over_examples(self.eps * radius ** (1 / free), delta)
            delta = delta * radius / _norms(delta).clamp_min(torch.finfo(dtype).tiny)
        return self.project(self.x + delta)


def check_examples(x: Tensor, key: str = "x") -> None:
    """Refuse inputs (B, T, ...) without examples or steps, of which every share and mean would be 0 / 0.

    Raises:
        UserError: naming ``key``.
    """
    given = f"a tensor of shape {tuple(tensor(x, key).shape)}"
    require(x.numel() > 0, key, given, "of at least one example, and at least one step of it")


def check_bounds(x: Tensor, bounds: Sequence[float] | None, key: str = "bounds") -> Bounds | None:
    """The box as two floats.

    Raises:
        UserError: naming ``key``, if it is empty, or an input lies outside it.
    """
    if bounds is None:
        return None
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    require(low < high, key, bounds, "a lower and a higher number")
    inside = bool(((x >= low) & (x <= high)).all())
    require(inside, key, bounds, "a box that holds the inputs" if inside else _range_of(x))
    return low, high


def _range_of(x: Tensor) -> str:
    return f"a box that holds the inputs, which reach from {x.min().item():g} to {x.max().item():g}"


def expand_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask as bool, of the shape of x.

    Raises:
        UserError: if it cannot be broadcast.
    """
    if mask is None:
        return torch.ones_like(x, dtype=torch.bool)
    try:
        return tensor(mask, "mask").to(x.device).bool().expand_as(x).clone()
    except RuntimeError:
        require(False, "mask", tuple(mask.shape), f"broadcastable to the inputs' shape {tuple(x.shape)}")
        raise


def slope(objective: Objective, x: Tensor, y: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The objective's gradient in the inputs, its values, and who is fooled."""
    x = x.detach().clone().requires_grad_()  # cloned: x may have been made in inference mode
    values, fooled = objective(x, y, rows)
    if not values.requires_grad:
        raise UserError(
            "No gradient reaches the inputs, as the model detaches what it reads or gives, or runs without gradients: "
            "take random_search, which needs none."
        )
    (gradient,) = torch.autograd.grad(values.sum(), x)
    return gradient, values.detach(), fooled


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    bounds: Sequence[float] | None = None,
    norm: float = math.inf,
    loss: Loss = "cross_entropy",
    targeted: bool = False,
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """One step of length eps along the gradient's sign (L-inf) or direction (L2), clipped to the box.

    x' = clip(x + eps sign(dl/dx)). On a linear score under L-inf this is the optimum, in the box too; the score falls
    by eps |w|_1 without a box, and by eps |w|_2 under L2. Arguments, returns and raises as `pgd`.

    Source: Goodfellow et al. 2015.
    """
    threat = Threat(x, eps, norm, bounds, mask)
    if eps == 0:
        return x.clone()
    with frozen(model, x.device):
        objective = Objective(model, loss, targeted, scored, lengths=lengths)
        gradient, _, _ = slope(objective, threat.x, tensor(y, "y").clone())
        return threat.project(threat.x + threat.eps * threat.ascent(gradient))


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float = math.inf,
    bounds: Sequence[float] | None = None,
    steps: int = 40,
    step_size: float | None = None,
    step_rule: StepRule = "linear",
    random_start: bool = True,
    restarts: int = 1,
    loss: Loss = "cross_entropy",
    targeted: bool = False,
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    wrong: Wrong | None = None,
    early_stop: bool = False,
    seed: Seed = 0,
    lengths: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent on the loss: x_{k+1} = P(x_k + a_k s_k), s the sign or the direction of the gradient.

    P goes onto the ball, then into the box. Each start ends with a full step from x along the last gradient, which is
    the optimum where the model is linear, whatever the start. Of x, all iterates and these ends, the worst comes back,
    example by example: one that fools before one that does not, then the one of larger loss. A fooled example takes no
    further restart, and with ``early_stop`` no further step: it is no longer computed.

    Args:
        model: From inputs to logits (B, C), values (B, O), or either at every step (B, T, .). A module is put into
            evaluation mode meanwhile; see `lit_rnn.robustness.state.frozen`.
        x: (B, T, I) values.
        y: Labels, or the numbers to predict; with ``targeted`` what the model shall be made to say.
        eps: Radius in the units of x: of each element for L-inf, of the whole sequence for L2. 0 returns x bit for bit.
        norm: inf or 2.
        bounds: (low, high) of valid inputs.
        steps: Gradient steps per restart.
        step_size: a, or the first one; by default 10 eps / steps where it falls, 2.5 eps / steps where it does not.
        step_rule: ``linear``: a falls to zero by equal amounts, so that long steps look around and short ones settle;
            ``constant``.
        random_start: Start from a uniform draw of the ball instead of x.
        restarts: How often to start.
        loss: ``cross_entropy``, ``margin``, ``squared_error``, ``overshoot``, ``undershoot``, or a function of outputs
            and y.
        targeted: Minimise the loss to y instead.
        mask: What may be changed, broadcastable to x: (I,) for channels, (B, T, 1) to spare padding.
        scored: (B, T) bool: steps that count, where there is a target per step.
        wrong: When a prediction is wrong; see `lit_rnn.robustness.objective.Objective`.
        early_stop: Leave an example alone once it is fooled; one that is misclassified to begin with comes back as is.
        seed: Of the random starts.
        lengths: (B,): the model is called as model(x, lengths). Hold the padding with ``mask``.

    Returns:
        The perturbed inputs, shaped as x, detached.

    Raises:
        UserError: for symbols, no examples, and options that cannot work.

    Source: Madry et al. 2018; several restarts because one run overstates robustness (Carlini et al. 2019).
    """
    threat = Threat(x, eps, norm, bounds, mask)
    steps, restarts = whole(steps, "steps", 1), whole(restarts, "restarts", 1)
    if step_size is not None:
        step_size = number(step_size, "step_size", "positive, or none", lambda a: a > 0)
    one_of(step_rule, "step_rule", get_args(StepRule))
    if eps == 0:
        return x.clone()
    falls = step_rule == "linear"
    first = (10 if falls else 2.5) * threat.eps / steps if step_size is None else step_size
    drawn = Draws.of(seed, len(x))
    with frozen(model, x.device):
        search = Search(Objective(model, loss, targeted, scored, wrong, lengths), threat.x, y)
        for restart in range(restarts):
            start = threat.sample(drawn) if random_start else threat.x
            rows = search.open() if restart or early_stop else search.rows
            moved = start[rows]
            for step in range(steps + 1):
                if not len(rows):
                    break
                gradient, values, fooled = slope(search.objective, moved, search.y[rows], rows)
                search.offer(moved, values, fooled, rows)
                if early_stop:
                    rows, moved, gradient = rows[~fooled], moved[~fooled], gradient[~fooled]
                ahead = threat.ascent(gradient, rows)
                length = first * (1 - step / steps) if falls else first
                further = moved + length * ahead if step < steps else threat.x[rows] + threat.eps * ahead
                moved = threat.project(further, rows)
            if len(rows):
                search.judge(moved, rows)
        return search.x


def random_draws(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float = math.inf,
    bounds: Sequence[float] | None = None,
    draws: int = 100,
    loss: Loss = "margin",
    targeted: bool = False,
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    wrong: Wrong | None = None,
    early_stop: bool = True,
    seed: Seed = 0,
    lengths: Tensor | None = None,
) -> Tensor:
    """The worst of ``draws`` uniform draws from the ball: the noise that a gradient attack in that ball must beat.

    Arguments, returns and raises as `pgd`.
    """
    threat = Threat(x, eps, norm, bounds, mask)
    draws = whole(draws, "draws", 1)
    if eps == 0:
        return x.clone()
    drawn = Draws.of(seed, len(x))
    with frozen(model, x.device), torch.no_grad():
        search = Search(Objective(model, loss, targeted, scored, wrong, lengths), threat.x, y)
        for rows in search.rounds(draws, early_stop):
            search.judge(threat.sample(drawn)[rows], rows)
        return search.x


def random_search(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float = math.inf,
    bounds: Sequence[float] | None = None,
    queries: int = 500,
    window: float = 0.5,
    loss: Loss = "margin",
    targeted: bool = False,
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    wrong: Wrong | None = None,
    early_stop: bool = True,
    seed: Seed = 0,
    lengths: Tensor | None = None,
) -> Tensor:
    """A search without gradients: windows of time are redrawn at the edge of the ball, and kept when the loss grows.

    It starts from a random vertex (L-inf: every element at +-eps) or direction (L2). Each query changes one window of
    each example: under L-inf one new sign per channel, under L2 Gaussian numbers are added and the whole is put back
    onto the ball. The window shrinks from ``window`` T to one step. An opponent for the honesty of gradient attacks:
    it must not beat them.

    After Square Attack (Andriushchenko et al. 2020), with windows of time for squares.

    Args:
        queries: Evaluations of the model per example.
        window: Share of the T steps that the first windows cover, in (0, 1].

    Other arguments, returns and raises as `pgd`.
    """
    threat = Threat(x, eps, norm, bounds, mask)
    queries = whole(queries, "queries", 1)
    window = number(window, "window", "above 0 and at most 1", lambda share: 0 < share <= 1)
    if eps == 0:
        return x.clone()
    drawn = Draws.of(seed, len(x))
    length = x.shape[1]

    def normal(*shape: int) -> Tensor:
        return drawn.normal(*shape, dtype=x.dtype).to(x.device)

    with frozen(model, x.device), torch.no_grad():
        search = Search(Objective(model, loss, targeted, scored, wrong, lengths), threat.x, y)
        directions, height = normal(*x.shape[1:]), torch.full_like(search.value, -math.inf)
        for query, rows in enumerate(search.rounds(queries, early_stop)):
            proposals = directions
            if query:
                span = max(1, round(window * length * (1 - query / queries) ** 2))
                starts = drawn.whole(0, length - span + 1, 1).to(x.device)
                steps = torch.arange(length, device=x.device)
                inside = ((steps >= starts) & (steps < starts + span)).view(len(x), length, *[1] * (x.dim() - 2))
                changed = normal(1, *x.shape[2:]) if threat.norm == math.inf else directions + normal(*x.shape[1:])
                proposals = torch.where(inside, changed, directions)
            moved = threat.project(threat.x[rows] + threat.eps * threat.ascent(proposals[rows], rows), rows)
            values = search.judge(moved, rows)
            higher = values > height[rows]  # than the search's own place: x may be higher than all its neighbours
            taken = rows[higher]
            directions[taken], height[taken] = proposals[taken], values[higher]
        return search.x
