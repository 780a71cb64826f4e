"""What the recurrences cost, beside what a user would write otherwise.

    python benchmarks/speed.py                            every row
    python benchmarks/speed.py exprnn nru/80 --rounds 11  some groups, some rows
    python benchmarks/speed.py --list                     their names
    python benchmarks/speed.py --write-readme benchmarks/results/DATE.json

Every row is a pair, measured in turn (A B A B ...) in one run: the median of the pairs' ratios and their range. Forward
and backward, denormals flushed for both sides, first calls (compilation) apart. The raw numbers go to
benchmarks/results/DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import loading
import measure
import passes
import starting
import tables
import torch
from children import CELLS
from measure import Bar, Pairs, Row, SkipError, Tick
from passes import (
    CONFIGS,
    EXPECTED_PASSES,
    Pass,
    Size,
    bare_products,
    described,
    from_config,
    ours,
    size_of,
    spent,
    stepwise,
    torch_relu_rnn,
)
from reference import loop_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from datamodules.errors import UserError, require
from lit_rnn.cells import Cell, ExpRNNCell, GRUCell, LSTMCell, NRUCell, OrthogonalCell, VanillaRNNCell
from lit_rnn.memory import keep_freed_memory
from lit_rnn.scan import Backend, choose_backend, supports

HERE = Path(__file__).parent
BACKENDS: list[Backend] = [name for name in get_args(Backend) if name != "auto"]

# Environments of glibc's allocator. "heap": as it is; the loop's many small tensors then leave gaps between each other,
# a third more memory or two, as chance has it. "mapped": pages of its own for each tensor, that is no gaps. "kept": as
# the command line sets it, see `keep_freed_memory`.
ALLOCATORS: dict[str, dict[str, str]] = {
    "heap": {},
    "mapped": {"MALLOC_MMAP_THRESHOLD_": "16384"},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)},
}

# One config per cell and published size; each names the options that its config does not have.
CONFIGURED: list[tuple[str, dict[str, Any]]] = [
    ("copying/dtrivrnn.yaml", {}),
    ("copying/scornn.yaml", {}),
    ("copying/householderrnn.yaml", {}),
    ("copying/nnrnn.yaml", {}),
    ("copying/vanillarnn.yaml", {"nonlinearity": "tanh"}),
    ("nonnormal_paper/adding_750/chain.yaml", {}),
    ("nonnormal_paper/copying_500/chain.yaml", {}),
    ("pixel_mnist/eurnn.yaml", {}),
    ("copying/eurnn.yaml", {}),
    ("copying/urnn.yaml", {}),
    ("copying/fullurnn.yaml", {}),
    ("copying/scurnn.yaml", {}),
    ("copying/exprnn.yaml", {"unitary": True}),
    ("copying/goru.yaml", {}),
    ("copying/lstm.yaml", {"output_matrix": False}),
    ("pixel_mnist/lstm_permuted.yaml", {}),
    ("copying/gru.yaml", {}),
    ("pixel_mnist/gru_permuted.yaml", {}),
    ("nru_paper/copying_100/lstm.yaml", {}),
    ("nru_paper/psmnist/lstm.yaml", {}),
    ("nru_paper/copying_100/gru.yaml", {}),
    ("nru_paper/psmnist/gru.yaml", {}),
    ("nru_paper/copying_100/janet.yaml", {}),
    ("nru_paper/psmnist/janet.yaml", {}),
    ("nru_paper/copying_100/statisticalru.yaml", {}),
    ("nru_paper/psmnist/statisticalru.yaml", {}),
    ("nru_paper/copying_100/rnn_orth.yaml", {}),
    ("nru_paper/psmnist/rnn_orth.yaml", {}),
    ("nru_paper/copying_100/nru.yaml", {"form": "paper"}),
    ("pixel_mnist/lipschitzrnn.yaml", {}),
    ("pixel_mnist/antisymmetricrnn.yaml", {}),
    ("pixel_mnist/cornn.yaml", {}),
    ("pixel_mnist/lem.yaml", {}),
    ("pixel_mnist/unicornn_permuted.yaml", {}),
    ("pixel_digits/slstm.yaml", {}),
    ("pixel_digits/mingru.yaml", {}),
    ("pixel_digits/minlstm.yaml", {}),
    ("pixel_digits/lru.yaml", {}),
    ("pixel_digits/linoss.yaml", {}),
    ("pixel_digits/deltaproduct.yaml", {}),
]

LAYERS: list[tuple[str, Callable[[int, int], Cell], int, Size]] = [  # the cells that torch has a layer of
    ("LSTM", LSTMCell, 68, Size(200, 20, 10, "all")),
    ("LSTM", LSTMCell, 128, Size(200, 20, 10, "all")),
    ("LSTM", LSTMCell, 128, Size(100, 128, 1, "all")),
    ("GRU", GRUCell, 82, Size(120, 10, 10, "all")),
    ("GRU", GRUCell, 128, Size(200, 20, 10, "all")),
    ("tanh", VanillaRNNCell, 128, Size(200, 20, 10, "all")),
    ("relu", functools.partial(VanillaRNNCell, nonlinearity="relu"), 128, Size(200, 20, 10, "all")),
]


class Suite:
    """The rows, at full size or ``tiny``: every T and B cut to what only shows that a row runs."""

    def __init__(self, backend: Backend = "auto", threads: int = 2, tiny: bool = False) -> None:
        self.backend, self.threads, self.tiny = backend, threads, tiny
        self.passes = 0 if tiny else EXPECTED_PASSES  # compiling is not tiny

    def rows(self) -> list[Row]:
        rows = [row for group in tables.GROUPS for row in getattr(self, group)()]
        return [replace(row, bar=replace(row.bar, value=None)) for row in rows] if self.tiny else rows

    def size(self, T: int, B: int, width: int, reads: Any) -> Size:
        return Size(min(T, 12) if self.tiny else T, min(B, 3) if self.tiny else B, width, reads)

    def pair(
        self,
        build: Callable[[], tuple[Cell, Size]],
        theirs: Callable[[Cell, Tensor, Size], Pass],
        explained: bool = True,
    ) -> Any:
        """A row's ``measure``: `scan` against ``theirs`` on the same inputs, built when the row's turn comes.

        ``explained``: profile one more pass, and note what it spends its time on.
        """

        def run(rounds: int, tick: Tick) -> Pairs:
            cell, size = build()
            x = size.inputs()
            mine = self.ours(cell, x, size)
            pairs = measure.in_turn(mine, theirs(cell, x, size), rounds, tick, self.choice(cell, size))
            pairs.note = spent(mine) if explained else ""
            return pairs

        return run

    def choice(self, cell: Cell, size: Size, backend: Backend | None = None) -> str:
        """What runs ``cell`` if ``backend`` (the suite's unless given) is asked for."""
        return choose_backend(backend or self.backend, cell, self.passes * size.T)

    def ours(self, cell: Cell, x: Tensor, size: Size, backend: Backend | None = None, **options: Any) -> Pass:
        return ours(cell, x, size, backend or self.backend, expected_passes=self.passes, **options)

    @staticmethod
    def user_loop(cell: Cell, x: Tensor, size: Size) -> Pass:
        assert isinstance(cell, OrthogonalCell | NRUCell)
        return stepwise(loop_of(cell), x, size, cell.output_size)

    # ---- the groups

    def exprnn(self) -> Iterator[Row]:
        return self.plain("exprnn", "ExpRNN", ExpRNNCell)

    def recurrence(self) -> Iterator[Row]:
        def cell(width: int, n: int) -> Cell:
            W = nn.Linear(n, n, bias=False)
            nn.init.orthogonal_(W.weight)
            return OrthogonalCell(width, n, W)

        return self.plain("recurrence", "modReLU RNN, W given,", cell)

    def plain(self, group: str, title: str, make: Callable[[int, int], Cell]) -> Iterator[Row]:
        # pixel MNIST, and copying over 1,000 steps
        sizes = (
            (170, self.size(784, 128, 1, "last"), 1.6),
            (190, self.size(1020, 20, 10, "all"), 2.3),
            (512, self.size(784, 128, 1, "last"), 1.2),
        )
        for n, size, bar in sizes:

            def build(n: int = n, size: Size = size) -> tuple[Cell, Size]:
                return make(size.I, n), size

            def products(cell: Cell, x: Tensor, size: Size) -> Pass:
                return bare_products(cell.hidden_size, size)

            def layer(cell: Cell, x: Tensor, size: Size) -> Pass:
                return torch_relu_rnn(cell.hidden_size, x, size)

            others = {
                "loop": ("per-step autograd loop", Bar("faster", bar), self.user_loop),
                "torch": ("torch.nn.RNN(relu)", Bar("faster", 1 if n == 512 else None), layer),
                "products": ("bare matrix products", Bar("share", 1.7), products),
            }
            for name, (against, asked, theirs) in others.items():
                yield Row(
                    f"{group}/{n}/{name}",
                    f"{title} n = {n}, {size}",
                    against,
                    asked,
                    self.pair(build, theirs, name == "loop"),
                )

    def nru(self) -> Iterator[Row]:
        sizes = (
            (80, 64, self.size(120, 10, 10, "all"), 4.5),
            (212, 256, self.size(784, 100, 1, "last"), 2.9),
        )
        for H, M, size, bar in sizes:

            def build(H: int = H, M: int = M, size: Size = size) -> tuple[Cell, Size]:
                return NRUCell(size.I, H, M, 4), size

            work, against = f"NRU H{H} M{M} k4, {size}", "per-step autograd loop of the released form"
            yield Row(f"nru/{H}", work, against, Bar("faster", bar), self.pair(build, self.user_loop))

    def cells(self) -> Iterator[Row]:
        return self.configured("cells", CONFIGURED, 1.5)

    def parallel(self) -> Iterator[Row]:
        paths = (f"pixel_digits/{name}.yaml" for name in ("lru", "linoss", "mingru", "minlstm", "deltaproduct"))
        return Suite("parallel", self.threads, self.tiny).configured("parallel", [(path, {}) for path in paths], 1)

    def configured(self, group: str, configs: Sequence[tuple[str, dict[str, Any]]], bar: float) -> Iterator[Row]:
        for path, options in configs:
            model, arguments, data = described(path, **options)
            size = self.size(*size_of(data))
            changed = "".join(f"-{key if value is True else value}" for key, value in options.items())

            def build(path: str = path, options: dict[str, Any] = options, size: Size = size) -> tuple[Cell, Size]:
                return from_config(path, **options)[0].cell_list()[0], size

            def loop(cell: Cell, x: Tensor, size: Size) -> Pass:
                return self.ours(cell, x, size, "loop")

            yield Row(
                f"{group}/{path.removesuffix('.yaml')}{changed}",
                f"{model} n = {arguments['hidden_size']}, {size}",
                "its loop",
                Bar("faster", bar),
                self.pair(build, loop),
            )

    def fit(self) -> Iterator[Row]:
        yield Row(
            "fit/exprnn",
            "fit of configs/pixel_mnist/exprnn.yaml, one epoch" + (" of 3 steps" if self.tiny else ""),
            "its bare training steps",
            Bar("share", 1.05),
            self.measure_fit,
            most_rounds=3,
        )
        yield Row(
            "fit/small",
            "fit of ExpRNN n = 16, 22 steps, batch 4, without what one of 3 updates takes",
            "its bare training steps",
            Bar("share", 2),
            self.measure_small_fit,
            most_rounds=3,
        )

    def fit_by_command_line(self, config: str, folder: str, *options: str) -> None:
        run = ["--run_dir", tempfile.mkdtemp(dir=folder), "--threads", str(self.threads)]
        passes.fit(config, *options, *run, "--model.init_args.backend", self.backend)

    def measure_small_fit(self, rounds: int, tick: Tick) -> Pairs:
        """What Lightning and our callbacks add to a step, of which the network itself takes little."""
        sizes, steps = {"delay": 2, "batch_size": 4, "train_samples": 8000}, 30 if self.tiny else 1000
        model, data = from_config("quickstart.yaml", sizes, hidden_size=16)
        options = ["--model.init_args.hidden_size", "16", "--trainer.limit_val_batches", "0"]
        options += [word for key, value in sizes.items() for word in (f"--data.init_args.{key}", str(value))]
        batches = list(itertools.islice(data.train_dataloader(), steps))
        optimizer = model.configure_optimizers()

        def bare() -> None:
            passes.train(model, optimizer, batches)

        with tempfile.TemporaryDirectory() as folder:

            def fit(updates: int) -> float:
                limits = ["--trainer.max_steps", str(updates)]
                return measure.seconds(lambda: self.fit_by_command_line("quickstart.yaml", folder, *options, *limits))

            pairs = Pairs(backend=self.choice(model.cell_list()[0], size_of(data)), first=fit(3))
            measure.prepare(self.threads)
            bare()
            for _ in range(rounds):
                pairs.ours.append(fit(3 + steps) - fit(3))
                pairs.theirs.append(measure.seconds(bare))
                tick()
        pairs.note = f"{steps:,} steps"
        return pairs

    def measure_fit(self, rounds: int, tick: Tick) -> Pairs:
        """On data of MNIST's shape and size, the same batches for both; in this process, so without its imports."""
        config = "pixel_mnist/exprnn.yaml"
        with tempfile.TemporaryDirectory() as folder:
            loading.write_mnist(Path(folder), train=12, test=2)
            model, data = from_config(config, {"root": folder, "seed": 1, "verify": False})
            batches, val = (list(loader) for loader in (data.train_dataloader(), data.val_dataloader()))
            limits = ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"] if self.tiny else []
            batches = batches[:3] if self.tiny else batches
            optimizer = model.configure_optimizers()

            def whole() -> None:
                options = ["--data.init_args.root", folder, "--data.init_args.verify", "false", *limits]
                self.fit_by_command_line(config, folder, *options, "--trainer.max_epochs", "1")

            def bare() -> None:
                passes.train(model, optimizer, batches)

            @torch.no_grad()
            def validation() -> None:
                for inputs, targets in val:
                    model.loss_of(model(inputs), targets)

            name = self.choice(model.cell_list()[0], size_of(data))
            pairs = Pairs(backend=name, first=measure.seconds(whole))  # it imports what a run imports late
            measure.prepare(self.threads)
            bare()
            for _ in range(rounds):
                pairs.ours.append(measure.seconds(whole))
                pairs.theirs.append(measure.seconds(bare))
                tick()
            share = measure.seconds(validation) / pairs.theirs[-1]
            pairs.note = (
                f"{len(batches)} steps; a bare pass over the {len(val)} validation batches, which fit also makes, "
                f"takes {share:.3f} of the bare steps' time"
            )
            return pairs

    def busy(self) -> Iterator[Row]:
        yield Row(
            "busy/quickstart",
            "training steps of configs/quickstart.yaml beside one busy process",
            "the same on its own",
            Bar("share", 1.8),
            self.measure_busy,
            most_rounds=3,
        )

    def measure_busy(self, rounds: int, tick: Tick) -> Pairs:
        """By the command line in processes of its own, which says how threads wait, unless the environment does."""
        limits = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"] if self.tiny else []
        model, data = from_config("quickstart.yaml")
        pairs = Pairs(backend=self.choice(model.cell_list()[0], size_of(data)))

        def fit() -> float:
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    "-m",
                    "lit_rnn",
                    "fit",
                    "--config",
                    str(CONFIGS / "quickstart.yaml"),
                    *limits,
                ]
                command += ["--run_dir", f"{folder}/run", "--threads", str(self.threads)]
                command += ["--model.init_args.backend", self.backend]
                done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
                if done.returncode:
                    raise SkipError(f"fit ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
                return json.loads(Path(folder, "run/fit.json").read_text())["seconds"]

        pairs.first = fit()
        for _ in range(rounds):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                pairs.ours.append(fit())
            finally:
                other.kill()
                other.wait()
            pairs.theirs.append(fit())
            tick()
        return pairs

    def memory(self) -> Iterator[Row]:
        size = Size(100, 64, 1, "last") if self.tiny else Size(784, 128, 1, "last")
        work, against = f"ExpRNN n = 170, {size}", "per-step autograd loop"
        # what auto chooses has its rows under that name
        others = {b for b in self.able(ExpRNNCell(1, 170)) if b != self.choice(ExpRNNCell(1, 170), size, "auto")}
        for backend, allocator in itertools.product(("auto", *sorted(others)), ALLOCATORS):

            def run(rounds: int, tick: Tick, backend: str = backend, allocator: str = allocator) -> Pairs:
                name = self.choice(ExpRNNCell(1, 170), size, backend)
                pairs = Pairs("MiB", backend=name)
                for _ in range(rounds):
                    pairs.ours.append(self.peak("exprnn", size, backend, allocator)["above"])
                    pairs.theirs.append(self.peak("exprnn", size, "reference", allocator)["above"])
                    tick()
                return pairs

            bar = Bar("share", 0.35 if backend in ("auto", "fused") else None)
            most = 5 if allocator == "heap" else 1
            yield Row(f"memory/{backend}/{allocator}", work, against, bar, run, most_rounds=most)

    def able(self, cell: Cell) -> list[Backend]:
        """The backends beside loop that run ``cell``; tiny ones only."""
        return [b for b in BACKENDS if b != "loop" and supports(b, cell) and not (self.tiny and b == "compiled")]

    def peak(self, cell: str, size: Size, backend: str, allocator: str = "heap", **options: Any) -> dict[str, float]:
        """Peak memory in MiB, see `children.peak_of`."""
        task = {"cell": cell, "size": size, "backend": backend, **options}
        child = measure.in_process("memory", self.threads, ALLOCATORS[allocator], **task)
        return {name: found / 2**20 for name, found in measure.answer(child).items()}

    def length(self) -> Iterator[Row]:
        shortest, *lengths = (50, 100, 200) if self.tiny else (500, 1000, 2000, 4000, 8000)
        for name, path in (("exprnn", "pixel_mnist/exprnn.yaml"), ("janet", "nru_paper/psmnist/janet.yaml")):
            model, arguments, data = described(path)
            B = 3 if self.tiny else data.batch_size
            for T in lengths:

                def run(rounds: int, tick: Tick, path: str = path, T: int = T, B: int = B) -> Pairs:
                    cell = from_config(path)[0].cell_list()[0]
                    sizes = [Size(steps, B, 1, "last") for steps in (T, shortest)]
                    long, short = (self.ours(cell, size.inputs(), size) for size in sizes)
                    pairs = measure.in_turn(long, short, rounds, tick, self.choice(cell, sizes[0]))
                    pairs.ours = [value / T for value in pairs.ours]
                    pairs.theirs = [value / shortest for value in pairs.theirs]
                    return pairs

                work = f"{model} n = {arguments['hidden_size']}, T = {T}, B = {B}, per step"
                yield Row(f"length/{name}/{T}", work, f"T = {shortest}, per step", Bar("same", 0.1), run)

    def unequal(self) -> Iterator[Row]:
        """Lengths drawn evenly from 1 to T, against a batch of their mean."""
        paths = {
            "exprnn_last": ("pixel_mnist/exprnn.yaml", "last"),
            "exprnn_all": ("copying/exprnn.yaml", "all"),
            "exprnn_short": ("quickstart.yaml", "all"),
            "lstm_last": ("pixel_mnist/lstm_permuted.yaml", "last"),
            "nru_last": ("nru_paper/psmnist/nru.yaml", "last"),
        }
        for name, (path, reads) in paths.items():
            model, arguments, data = described(path)
            T, B, width, _ = size_of(data)
            size = self.size(T, B, width, reads)

            def run(rounds: int, tick: Tick, path: str = path, size: Size = size) -> Pairs:
                cell = from_config(path)[0].cell_list()[0]
                lengths = torch.randint(1, size.T + 1, (size.B,))
                even = size._replace(T=round(float(lengths.float().mean())))
                same: Backend = "native" if self.backend == "auto" and supports("native", cell) else self.backend
                mine = self.ours(cell, size.inputs(), size, same, lengths=lengths)
                theirs = self.ours(cell, even.inputs(), even, same)
                return measure.in_turn(mine, theirs, rounds, tick, self.choice(cell, even, same))

            work = f"{model} n = {arguments['hidden_size']}, {size}, lengths 1 to T"
            yield Row(f"unequal/{name}", work, "equal lengths, as many steps", Bar("share", 1.2), run)

    def documents(self) -> Iterator[Row]:
        """A chunk of truncated backpropagation goes on from a state, but where a document begins."""
        size, begin = self.size(150, 32, 50, "all"), 8
        for name, make in (("ExpRNN", ExpRNNCell), ("LSTM", LSTMCell)):

            def run(rounds: int, tick: Tick, make: Callable[[int, int], Cell] = make) -> Pairs:
                cell = make(size.I, 256)
                none, some = (torch.zeros(size.T * size.B, dtype=torch.bool) for _ in range(2))
                some[torch.randperm(len(some))[:begin]] = True
                mine, theirs = (
                    self.ours(cell, size.inputs(), size, state=cell.initial_state(size.B), reset=reset.view(size.T, -1))
                    for reset in (some, none)
                )
                return measure.in_turn(mine, theirs, rounds, tick, self.choice(cell, size))

            work = f"{name} n = 256, {size}, {begin} documents begin"
            yield Row(f"documents/{name}", work, "a chunk in which none begins", Bar("share", 1.2), run)

    def one_thread(self) -> Iterator[Row]:
        for name, make, n, size in LAYERS:
            size = self.size(*size)

            def run(
                rounds: int, tick: Tick, make: Callable[[int, int], Cell] = make, n: int = n, size: Size = size
            ) -> Pairs:
                cell, x = make(size.I, n), size.inputs()
                mine, theirs = (self.ours(cell, x, size, backend) for backend in ("native", "torch"))
                with measure.one_thread():
                    return measure.in_turn(mine, theirs, rounds, tick, "native")

            yield Row(f"one_thread/{name}/{n}/{size.T}", f"{name} n = {n}, {size}", "torch's layer", Bar("faster"), run)

    def loading(self) -> Iterator[Row]:
        for name, kind in loading.KINDS.items():

            def run(rounds: int, tick: Tick, kind: loading.Kind = kind) -> Pairs:
                with tempfile.TemporaryDirectory() as folder, measure.one_thread():
                    loading.write_mnist(Path(folder))
                    return measure.in_turn(*loading.epochs(Path(folder), kind), rounds, tick, "")

            work = f"an epoch of {loading.IMAGES:,} images, {kind.name}"
            yield Row(f"loading/{name}", work, "torchvision's data set in torch's DataLoader", Bar("faster"), run)

    def start(self) -> Iterator[Row]:
        for name, one in starting.STARTS.items():

            def run(rounds: int, tick: Tick, one: starting.Start = one) -> Pairs:
                pairs = Pairs()
                for _ in range(rounds):
                    pairs.ours.append(starting.seconds(one.arguments))
                    pairs.theirs.append(starting.seconds(("-c", one.against)))
                    tick()
                return pairs

            yield Row(f"start/{name}", f"`{one.name}`", f"`{one.against}`", Bar("share", one.most), run, most_rounds=5)

    def ddp(self) -> Iterator[Row]:
        size, steps = (Size(50, 8, 1, "last"), 3) if self.tiny else (Size(784, 128, 1, "last"), 10)

        def per_sample(world: int) -> float:
            with tempfile.TemporaryDirectory() as folder:
                task = {"store": f"{folder}/store", "size": size, "steps": steps, "backend": self.backend}
                ranks = [
                    measure.in_process("rank", 1, ALLOCATORS["kept"], rank=rank, world=world, **task)
                    for rank in range(world)
                ]
                return max(measure.answer(child)["seconds"] for child in ranks) / (steps * world * size.B)

        def run(rounds: int, tick: Tick) -> Pairs:
            pairs = Pairs(backend=self.choice(ExpRNNCell(1, 170), size))
            for _ in range(rounds):
                pairs.ours.append(per_sample(2))
                pairs.theirs.append(per_sample(1))
                tick()
            return pairs

        work = f"training ExpRNN n = 170, {size} a process, 2 processes of 1 thread, per sample"
        yield Row("ddp/exprnn", work, "1 process of 1 thread", Bar("faster", 1.7), run, most_rounds=5)

    def long(self) -> Iterator[Row]:
        size = Size(400, 4, 1, "last") if self.tiny else Size(20_000, 32, 1, "last")
        every = round(size.T**0.5)
        work = f"ExpRNN n = 256, {size}, checkpoint_every = {every}"
        for backend in dict.fromkeys((self.backend, "loop")):

            def time(rounds: int, tick: Tick, backend: Backend = backend) -> Pairs:
                cell, x = CELLS["exprnn256"](size.I), size.inputs()
                chunked, whole = (self.ours(cell, x, size, backend, checkpoint_every=k) for k in (every, None))
                return measure.in_turn(chunked, whole, rounds, tick, self.choice(cell, size, backend))

            def space(which: str, rounds: int, tick: Tick, backend: Backend = backend) -> Pairs:
                pairs = Pairs("MiB", backend=self.choice(CELLS["exprnn256"](size.I), size, backend))
                for _ in range(rounds):
                    pairs.ours.append(self.peak("exprnn256", size, backend, checkpoint_every=every)[which])
                    unchunked = self.peak("exprnn256", size, backend)["above"] if which == "above" else 4096.0
                    pairs.theirs.append(unchunked)
                    tick()
                return pairs

            above, process = (functools.partial(space, which) for which in ("above", "whole"))
            yield Row(f"long/{backend}/time", work, "without recomputation", Bar("share", 1.4), time, most_rounds=3)
            yield Row(f"long/{backend}/memory", work, "without recomputation", Bar("share"), above, most_rounds=1)
            yield Row(f"long/{backend}/process", work, "4 GiB", Bar("share", 1), process, most_rounds=1)

    def ops(self) -> Iterator[Row]:
        size = Size(40 if self.tiny else 280, 10, 10, "all")
        for cell in ("exprnn", "nru", "lstm"):
            for backend in self.able(CELLS[cell](size.I)):

                def run(rounds: int, tick: Tick, cell: str = cell, backend: Backend = backend) -> Pairs:
                    tasks = [{"cell": cell, "size": size, "backend": who} for who in (backend, "loop")]
                    found, loop = (
                        measure.answer(measure.in_process("ops", self.threads, {}, **task)) for task in tasks
                    )
                    tick()
                    often = [f"{name} {count:.3g}" for name, count in found["operators"].items() if count][:4]
                    note = (
                        f"{found['allocations']:.3g} allocations per step; most often {', '.join(often) or 'nothing'}"
                    )
                    return Pairs("ops", [found["work"]], [loop["work"]], backend, note=note)

                yield Row(f"ops/{cell}/{backend}", f"{cell}, per time step", "loop", Bar("faster"), run, most_rounds=1)


def chosen(rows: list[Row], names: list[str]) -> list[Row]:
    """The rows that ``names`` mean: a group, a row, or all rows below a name."""
    for name in names:
        require(any(is_below(row, name) for row in rows), "rows", name, "a name that --list shows, or its beginning")
    return [row for row in rows if not names or any(is_below(row, name) for name in names)]


def is_below(row: Row, name: str) -> bool:
    return row.name == name or row.name.startswith(f"{name.rstrip('/')}/")


def new_file(folder: Path, date: str) -> Path:
    """folder/DATE.json, or DATE-2.json where that is taken."""
    numbered = (folder / f"{date}-{number}.json" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{date}.json"], numbered) if not path.exists())


def measure_all(rows: list[Row], run: dict[str, Any], file: Path | None, console: Console) -> None:
    """Measure row by row into ``run`` and, after each, ``file``."""
    text = TextColumn("{task.description}")
    with Progress(text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        whole = progress.add_task("rows", total=len(rows))
        for row in rows:
            rounds = min(run["rounds"], row.most_rounds)
            task = progress.add_task(row.name, total=rounds)
            try:
                entry = tables.record(row, row.measure(rounds, functools.partial(progress.advance, task)))
            except (SkipError, UserError) as error:  # such as a backend that does not run this cell
                entry = tables.record(row, None, str(error))
            progress.remove_task(task)
            progress.advance(whole)
            run["rows"].append(entry)
            console.print(tables.line(entry), highlight=False, soft_wrap=True)
            if file is not None:
                file.write_text(json.dumps(run, indent=1) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"all, unless named: {', '.join(tables.GROUPS)}, or a row of --list")
    parser.add_argument("--rounds", type=int, default=7, help="pairs per row; rows that take minutes have fewer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", choices=get_args(Backend), default="auto", help="what runs our side")
    parser.add_argument("--json", type=Path, help="benchmarks/results/DATE.json unless given")
    tables.add_options(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    require(options.rounds >= 1, "--rounds", options.rounds, "a whole number of at least 1")
    require(options.threads >= 1, "--threads", options.threads, "a whole number of at least 1")
    if options.write_readme:
        return tables.write_readme(HERE / "README.md", options.write_readme)
    measure.prepare(options.threads)
    keep_freed_memory()
    rows = chosen(Suite(options.backend, options.threads, options.tiny).rows(), options.rows)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.list:
        console.print("\n".join(row.name for row in rows), highlight=False)
        return None
    date = datetime.date.today().isoformat()
    results = {"date": date, "machine": measure.machine(options.threads), "rounds": options.rounds}
    results |= {"backend": options.backend, "tiny": options.tiny, "rows": []}
    console.print(tables.machine_words(results), highlight=False)
    file = options.json
    if file is None and not options.tiny:
        (HERE / "results").mkdir(exist_ok=True)
        file = new_file(HERE / "results", date)
    measure_all(rows, results, file, console)
    for table in tables.terminal(results["rows"]):
        console.print(table)
    if file is not None:
        console.print(f"Raw numbers: {file}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    return measure.status("speed", lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
