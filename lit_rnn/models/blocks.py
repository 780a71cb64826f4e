"""What may stand around the cells: dropouts, norms, a mixing of units, pooling, and the sequence turned round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datamodules.batch import near, within
from datamodules.errors import require, whole_or_null
from datamodules.task import Task

Norm = Literal["none", "layer", "rms"]
Pooling = Literal["last", "mean", "max"]

NORMS: dict[Norm, type[nn.LayerNorm] | type[nn.RMSNorm]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
Mixing = Literal["none", "glu", "mlp"]
WIDER = 4  # the inner width of an MLP over n
EMBEDDING_BOUND = 0.1  # of its uniform start, Merity et al. 2018


class GatedMixer(nn.Module):
    """(W_1 g + b_1) sigma(W_2 g + b_2), g = gelu(y): what stands behind the recurrence in the layers of S4, LRU and
    LinOSS; 2n(n + 1) numbers.

    Source: Dauphin et al. 2017, "Language Modeling with Gated Convolutional Networks"; Orvieto et al. 2023.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gated = nn.Linear(size, 2 * size)

    def forward(self, y: Tensor) -> Tensor:
        return nn.functional.glu(self.gated(nn.functional.gelu(y)))


class MLPMixer(nn.Module):
    """W_2 gelu(W_1 y + b_1) + b_2, 4n units inside as in a transformer (Vaswani et al. 2017); 8n^2 + 5n numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(size, WIDER * size), nn.Linear(WIDER * size, size)

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.narrow(nn.functional.gelu(self.wide(y)))
        return out


MIXERS: dict[Mixing, type[GatedMixer] | type[MLPMixer]] = {"glu": GatedMixer, "mlp": MLPMixer}


@dataclass(frozen=True)
class Dropouts:
    """Shares of what is dropped in training, what stays being scaled by 1 / (1 - p); one mask for a whole pass.

    Source: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models"; Gal and Ghahramani 2016.

    Args:
        embedding: Of symbols: whole rows of the embedding.
        input: Of what the first cell reads, the same units at all steps.
        layer: Of what each other cell reads, the same units at all steps.
        output: Of what the decoder reads, the same units at all steps.
        weight: Of the entries of W (DropConnect): of the first matrix that ``weights()`` gives, all gates in one.
        branch: Of what each layer's cell and its mixing give, before what the layer reads is added, the same units at
            all steps.
    """

    embedding: float
    input: float
    layer: float
    output: float
    weight: float
    branch: float

    @classmethod
    def of(cls, options: Any) -> Dropouts:
        """Those that a model's options name ``embedding_dropout`` and so on."""
        shares = {name: getattr(options, f"{name}_dropout") for name in cls.__dataclass_fields__}
        for name, share in shares.items():
            require(0 <= share < 1, f"model.init_args.{name}_dropout", share, "from 0 to below 1")
        return cls(**shares)

    def any(self) -> bool:
        return any(getattr(self, name) for name in self.__dataclass_fields__)


def mask(shape: Sequence[int], share: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """0 with probability ``share``, else 1 / (1 - share); drawn on the CPU, in the precision and place of ``like``."""
    kept = torch.rand(tuple(shape), generator=generator) >= share
    dtype = like.dtype.to_real()
    return kept.to(like.device, dtype, non_blocking=True) / (1 - share)


def check_options(options: Any, task: Task) -> None:
    """Refuse blocks that have no meaning for a task.

    Raises:
        UserError: naming the option.
    """
    o, key = options, "model.init_args"
    symbols = task.inputs == "symbols"
    size = o.embedding_size
    whole_or_null(size, f"{key}.embedding_size", 1)
    require(size is None or symbols, f"{key}.embedding_size", size, f"null: the inputs of {task.name} are values")
    wanted = "0 without an embedding: give model.init_args.embedding_size"
    encoded = o.encoder_size
    whole_or_null(encoded, f"{key}.encoder_size", 1)
    accepted = "null beside model.init_args.embedding_size, which is an encoder"
    require(encoded is None or size is None, f"{key}.encoder_size", encoded, accepted)
    require(not o.embedding_dropout or size is not None, f"{key}.embedding_dropout", o.embedding_dropout, wanted)
    between = "where model.init_args.layers is at least 2: they stand between layers"
    blocks = o.layers > 1 or encoded is not None
    or_over = "where model.init_args.encoder_size is given or layers is at least 2"
    require(o.norm == "none" or blocks, f"{key}.norm", o.norm, f"none, or another {or_over}")
    require(not o.residual or blocks, f"{key}.residual", o.residual, f"false, or true {or_over}")
    require(not o.layer_dropout or o.layers > 1, f"{key}.layer_dropout", o.layer_dropout, f"0, or more {between}")
    per_step = f"for {task.name}, which has a target at every step"
    require(o.pooling == "last" or not task.per_step, f"{key}.pooling", o.pooling, f"last {per_step}")
    require(not o.bidirectional or not task.per_step, f"{key}.bidirectional", o.bidirectional, f"false {per_step}")
    if o.tied_decoder:
        accepted = "false without an embedding: give model.init_args.embedding_size"
        require(size is not None, f"{key}.tied_decoder", True, accepted)
        accepted = f"false for {task.name}, whose classes are not its symbols"
        same = task.classifies and task.target_size == task.input_size and task.labels == 1
        require(same, f"{key}.tied_decoder", True, accepted)


def pooled(y: Tensor, lengths: Tensor | None, how: Pooling, both_ways: bool) -> Tensor:
    """(B, .) of a sequence's outputs (T, B, .), or of (1, B, .), which are the last already.

    Args:
        y: Zero behind each sequence's end.
        lengths: (B,), None where all have T steps.
        how: ``last``, or the ``mean`` or ``max`` over the sequence's own steps, unit by unit.
        both_ways: The second half of the units have read from the end: their last step is the first.
    """
    lengths = None if lengths is None else near(lengths, y)
    if how == "mean":
        return y.sum(0) / (len(y) if lengths is None else lengths[:, None])
    if how == "max":
        return (y if lengths is None else y.where(within(lengths, len(y)).mT[..., None], -torch.inf)).amax(0)
    if len(y) == 1:
        return y[0]
    last = y[-1] if lengths is None else y[lengths - 1, torch.arange(y.shape[1], device=y.device)]
    half = y.shape[2] // 2
    return torch.cat((last[:, :half], y[0, :, half:]), dim=-1) if both_ways else last


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (T, B, .) with each sequence turned round, what is behind its end left there."""
    if lengths is None:
        return x.flip(0)
    lengths = near(lengths, x)
    steps = torch.arange(len(x), device=x.device)[:, None]
    steps = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, steps[..., None].expand_as(x))
