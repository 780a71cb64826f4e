"""Whether every model is right on a GPU: values, gradients, waits of the host, mixed precision and resume.

    python benchmarks/gpu_models.py                     # every model and the options below, about a minute
    python benchmarks/gpu_models.py ExpRNN LSTM         # some of them
    python benchmarks/gpu_models.py --device cpu        # the same checks where there is no GPU, but for the waits

One line a case, and exit status 1 if one of them fails. The columns:

- *loss*, *gradient*: how far a float32 training step on the device is off float64 in the loop on the CPU, the gradient
  by the parameter that is off most, relative to its largest entry. In brackets what the CPU's own float32 is off in
  the same loop: ten times that, or 1e-5 where it is less, is taken for rounding.
- *waits*: how often the host waits for the GPU in forward, backward and optimizer step, after two steps that may;
  none may.
- *bf16*: how far the loss is off float32 under autocast, relative; 3 % may be. Orthogonal maps must stay in float32.
- *resumed*: six steps against three, a checkpoint and three more, with Lightning's ``deterministic``: bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic runs need, before CUDA starts

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import CopyMemory, Parts, Task
from lit_rnn import models
from lit_rnn.models import SequenceModel
from lit_rnn.parametrizations import OrthogonalMap

B, T, SYMBOLS, N = 16, 64, 10, 32
TASK = Task("text", "symbols", SYMBOLS, "next_symbol", SYMBOLS, None, "all", 2.3, "perplexity", False)
DATA = CopyMemory(delay=4, train_samples=48, val_samples=8, batch_size=8, seed=1)  # every DataModule moves alike
ROUNDING, MIXED = 1e-5, 0.03
NEEDED: dict[str, dict[str, Any]] = {
    "NRU": {"memory_size": 16},
    "StatisticalRU": {"statistics_size": 16, "summary_size": 8},
    "DtrivRNN": {"rebase_every": 2},
}


@dataclass
class Case:
    """A model with its options, and which marks its batches have."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.model, self.label)))

    def built(self, task: Task) -> SequenceModel:
        torch.manual_seed(3)
        made: SequenceModel = getattr(models, self.model)(task, N, **NEEDED.get(self.model, {}), **self.options)
        return made

    def batch(self) -> Parts:
        g = torch.Generator().manual_seed(4)
        inputs, targets = (torch.randint(SYMBOLS, (B, T), generator=g) for _ in range(2))
        made = {
            "mask": torch.rand(B, T, generator=g) < 0.5,
            "lengths": torch.randint(1, T + 1, (B,), generator=g),
            "reset": torch.rand(B, T, generator=g) < 0.05,
        }
        made["reset"][:, 0] = True
        return Parts(inputs, targets, **{name: made[name] for name in self.marks})


def _recorded() -> list[Case]:
    """Where CUDA graphs run the steps."""
    if not torch.cuda.is_available():
        return []
    graphed = {"backend": "graphed"}
    made = [Case(name, graphed, label="graphed") for name in ("JANET", "NRU", "GORU", "SLSTM", "EURNN", "LEM")]
    made += [Case("LSTM", {**graphed, "layers": 2, "peepholes": True}, label="graphed peepholes")]
    made += [Case("NRU", graphed, (mark,), f"graphed {mark}") for mark in ("lengths", "mask", "reset")]
    # GORU's step reads a parameter, whose own node the pass around the chunks keeps meanwhile
    return [
        *made,
        *(Case(name, {**graphed, "checkpoint_every": 8}, (), "graphed recomputed") for name in ("JANET", "GORU")),
    ]


def cases() -> list[Case]:
    names = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
    drops = {f"{place}_dropout": 0.2 for place in ("input", "output", "weight")}
    deep = {"layers": 2, "encoder_size": N, "norm": "layer", "residual": True, "mixing": "glu"}
    return [
        *map(Case, names),
        *(Case(name, {}, (mark,), mark) for name in ("ExpRNN", "LSTM", "NRU") for mark in ("lengths", "mask", "reset")),
        Case("ExpRNN", {"unitary": True}, label="unitary"),
        Case("ExpRNN", {"checkpoint_every": 8}, label="recomputed"),
        Case("VanillaRNN", {"nonlinearity": "relu"}, label="relu"),
        *_recorded(),
        Case("GRU", {"layers": 2, **drops, "layer_dropout": 0.2}, label="dropout"),
        Case("GRU", deep, ("lengths",), "deep form, lengths"),
    ]


def quiet(model: SequenceModel) -> SequenceModel:
    model.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer
    return model


def gradients(model: SequenceModel, batch: Any) -> tuple[float, dict[str, Tensor]]:
    loss = model.training_step(batch, 0)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), {name: grad.detach().cpu().clone() for name, grad in found.items()}


def off(found: tuple[float, dict[str, Tensor]], exact: tuple[float, dict[str, Tensor]]) -> tuple[float, float]:
    """Relative, of the loss and of the worst gradient."""
    if found[1].keys() != exact[1].keys():
        raise AssertionError(f"gradients of {sorted(found[1].keys() ^ exact[1].keys())} are on one side alone")
    wide = {name: grad.to(exact[1][name].dtype) for name, grad in found[1].items()}
    by = [float((wide[name] - grad).abs().max() / grad.abs().max().clamp_min(1e-30)) for name, grad in exact[1].items()]
    return abs(found[0] - exact[0]) / abs(exact[0]), max(by)


def place_of(stack: traceback.StackSummary) -> str:
    """The innermost line of the package, as file:line; empty where none is."""
    package = str(Path(models.__file__).parents[1])
    ours = [frame for frame in stack if frame.filename.startswith(package)]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""


@contextlib.contextmanager
def watched(device: torch.device) -> Iterator[Counter[str]]:
    """Counts by place in our code where the host waits for the GPU."""
    waits: Counter[str] = Counter()
    if device.type != "cuda":
        yield waits
        return

    def count(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if "synchroniz" in str(message):
            waits[place_of(traceback.extract_stack()) or f"{Path(filename).name}:{lineno}"] += 1

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = count
            yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_values(case: Case, device: torch.device) -> tuple[list[str], list[str]]:
    """What is shown of one training step, and what is wrong with it."""
    given = case.batch()
    exact = quiet(case.built(TASK))
    rounded, model = copy.deepcopy(exact), copy.deepcopy(exact).to(device)
    for reference in (exact, rounded):
        reference.options.backend = "loop"
    batch: Any = DATA.transfer_batch_to_device(given, device, 0)
    truth = gradients(exact.double(), given)
    found, own = off(gradients(model, batch), truth), off(gradients(rounded, given), truth)
    limits = [max(ROUNDING, 10 * number) for number in own]
    wrong = [
        f"{what} is off by {number:.1e}, {limit:.1e} may be"
        for what, number, limit in zip(("the loss", "a gradient"), found, limits, strict=True)
        if not number <= limit
    ]
    shown = [f"{number:.0e} ({rounding:.0e})" for number, rounding in zip(found, own, strict=True)]

    optimizer: Any = model.configure_optimizers()

    def step() -> Tensor:
        loss = model.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    for _ in range(2):
        step()
    with watched(device) as waits:
        step()
        step()
    shown.append(", ".join(f"{place} x{count}" for place, count in waits.items()) or "none")
    wrong += ["the host waits"] * bool(waits)

    maps = {type(module).__name__: module() for module in model.modules() if isinstance(module, OrthogonalMap)}
    with torch.no_grad():
        plain = float(model.training_step(batch, 0).detach())
    with torch.autocast(device.type, torch.bfloat16):
        mixed_loss = model.training_step(batch, 0)
        coarse = [
            name
            for name, module in ((type(m).__name__, m) for m in model.modules() if isinstance(m, OrthogonalMap))
            if module().dtype != maps[name].dtype
        ]
    mixed_loss.backward()
    optimizer.step()
    mixed = abs(float(mixed_loss.detach()) - plain) / abs(plain)
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    shown.append(f"{mixed:.0e}")
    wrong += [f"bf16 is off by {mixed:.1%}"] * (not mixed <= MIXED) + ["bf16 leaves no numbers"] * (not finite)
    wrong += [f"{name} is in half precision" for name in coarse]
    return shown, wrong


def check_resume(case: Case, device: torch.device, folder: Path) -> tuple[list[str], list[str]]:
    """Six steps against three and three."""

    def trainer(steps: int) -> pl.Trainer:
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        accelerator = "gpu" if device.type == "cuda" else device.type
        return pl.Trainer(
            accelerator=accelerator,
            devices=1,
            max_steps=steps,
            deterministic=True,
            enable_model_summary=False,
            limit_val_batches=0,
            **options,
        )

    try:
        whole, half, resumed = (case.built(DATA.task) for _ in range(3))
        trainer(6).fit(whole, datamodule=copy.copy(DATA))
        first = trainer(3)
        first.fit(half, datamodule=copy.copy(DATA))
        first.save_checkpoint(folder / "half.ckpt")
        trainer(6).fit(resumed, datamodule=copy.copy(DATA), ckpt_path=str(folder / "half.ckpt"))
    finally:
        torch.use_deterministic_algorithms(False)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    differ = max(
        float((a.double() - b.double()).abs().max()) if not a.is_complex() else float((a - b).abs().max())
        for a, b in pairs
    )
    same = differ == 0
    return ["bit for bit" if same else f"off by {differ:.0e}"], [] if same else ["a resumed run differs"]


def checked(case: Case, device: torch.device) -> tuple[list[str], list[str]]:
    """The line of a case, and what is wrong, errors among it."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(lambda: check_values(case, device), 4)]
        if not case.marks:
            jobs.append((lambda: check_resume(case, device, Path(folder)), 1))
        else:
            jobs.append((lambda: (["-"], []), 1))
        shown, wrong = [], []
        for job, columns in jobs:
            try:
                told, faults = job()
            except Exception as error:  # the next case goes on
                place = place_of(traceback.extract_tb(error.__traceback__))
                words = " ".join(str(error).split())[:300].replace("|", "/")
                told, faults = ["-"] * columns, [f"{place} {type(error).__name__}: {words}"]
            shown += told
            wrong += faults
    return shown, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of cases; all of them if none is given")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    chosen = parser.parse_args(arguments)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("--device is cuda, but there is no CUDA device here: give --device cpu.", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    named = [case for case in cases() if not chosen.models or case.name in chosen.models or case.model in chosen.models]
    if not named:
        known = ", ".join(case.name for case in cases())
        print(f"None of {', '.join(chosen.models)} is a case; there are {known}.", file=sys.stderr)
        return 2
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, T = {T}, B = {B}, n = {N}\n")
    heads = ["case", "backend", "loss", "gradient", "waits", "bf16", "resumed", "seconds", ""]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    failed = 0
    for case in named:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice, and a GPU that is there and not used
            shown, wrong = checked(case, device)
        failed += bool(wrong)
        backends = "-"
        with contextlib.suppress(Exception):
            backends = ", ".join(sorted(set(case.built(TASK).to(device).backends())))
        seconds = f"{time.perf_counter() - start:.1f}"
        print("| " + " | ".join([case.name, backends, *shown, seconds, "; ".join(wrong) or "right"]) + " |", flush=True)
    print(f"\n{len(named) - failed} of {len(named)} are right.")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
