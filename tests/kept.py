"""A checkpoint by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from datamodules import PixelDigits
from lit_rnn.class_paths import class_path
from lit_rnn.models import VanillaRNN


def keep(W: torch.Tensor, path: Path) -> None:
    """A checkpoint of a plain network with this recurrent matrix."""
    model = VanillaRNN(PixelDigits(pixels_per_step=8).task, len(W))
    model.state_dict()["cells.0.recurrent.weight"].copy_(W)
    made = {"class_path": class_path(VanillaRNN), "optimizer_steps": 7}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "lit_rnn": made}, path)
