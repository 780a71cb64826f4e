"""The text that ``predict`` draws from a language model."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules import TextDataModule
from lit_rnn.models import SequenceModel, sample


class TextSample(Callback):
    """Writes ``sample.txt`` and prints it: the prompt, and what the model goes on with.

    Args:
        folder: Of the run.
        data: Whose vocabulary it is.
        prompt: What the model reads first, behind the end of a line (a space, where the text has no lines).
        temperature: As in `lit_rnn.models.sampling.sample`.
        count: How many symbols are drawn.
        seed: Of the draws.
    """

    def __init__(
        self, folder: Path, data: TextDataModule, prompt: str, temperature: float, count: int, seed: int
    ) -> None:
        self.folder, self.data, self.prompt = folder, data, prompt
        self.temperature, self.count, self.seed = temperature, count, seed

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vocabulary = self.data.vocabulary  # before the work: a prompt may be refused
        self._read = torch.cat((torch.tensor([vocabulary.start]), vocabulary.encode(self.prompt, "--prompt").long()))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, SequenceModel):
            return
        drawn = sample(pl_module, self._read, self.count, self.temperature, self.seed)
        text = self.data.vocabulary.decode([*self._read[1:].tolist(), *drawn.tolist()])
        path = self.folder / "sample.txt"
        path.write_text(text + "\n", encoding="utf-8")
        print(f"sample at temperature {self.temperature:g}: {path}\n{text}", flush=True)
