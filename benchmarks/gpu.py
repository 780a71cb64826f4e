"""The recurrences on a GPU: every backend that can, beside a per-step loop and cuDNN.

    python benchmarks/gpu.py FOLDER                       every row, in about three minutes
    python benchmarks/gpu.py FOLDER --rows exprnn170 nru  some of them
    python benchmarks/gpu.py --list                       their names
    python benchmarks/gpu.py --write-readme benchmarks/results/gpu-DATE.json

Every work has a process of its own. They get ready at the same time, which is when all compiling and recording is done,
and are measured one after another, each alone on the device. FOLDER gets gpu.json (the raw numbers), gpu.md (the table)
and gpu.log (what went wrong).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import measure
import numpy as np
import passes
import tables
import torch
from arguments import whole
from measure import Bar, Pairs, Row
from passes import EXPECTED_PASSES, Size, from_config
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.cells import Cell, EURNNCell, ExpRNNCell, GORUCell, GRUCell, JANETCell, LSTMCell, NRUCell, RealEURNNCell
from lit_rnn.scan import Backend, scan, supports

HERE = Path(__file__).parent
LOOP, CUDNN = "loop", "cudnn"
TF32 = "streamed_tf32"
VARIANTS = {TF32: "streamed"}
"""Ways to run a backend that its users have not by default: torch's setting for TF32, by which exp(A) and the gradients
by W are less precise as well."""
CHECKED = 40  # steps over which a backend is compared with the CPU's float64
PASSES = 5  # in a round, of what is quick; its time in the round is their median


class Work(NamedTuple):
    """A recurrence, forward and backward.

    Args:
        title: What it is called.
        build: The cell, by the width of its inputs.
        size: Of its batches.
        loop: How many times as fast as the loop it has to be.
        cudnn: And as torch's relu layer on cuDNN, where that is asked.
    """

    title: str
    build: Callable[[int], Cell]
    size: Size
    loop: float | None
    cudnn: float | None = None


WORKS = {
    "exprnn170": Work("ExpRNN n = 170", lambda width: ExpRNNCell(width, 170), Size(784, 128, 1, "last"), 30, 1),
    "exprnn190": Work("ExpRNN n = 190", lambda width: ExpRNNCell(width, 190), Size(1020, 128, 10, "all"), 30, 0.8),
    "exprnn512": Work("ExpRNN n = 512", lambda width: ExpRNNCell(width, 512), Size(784, 128, 1, "last"), 30, 0.8),
    "exprnn1024": Work("ExpRNN n = 1024", lambda width: ExpRNNCell(width, 1024), Size(784, 128, 1, "last"), None),
    "exprnn2048": Work("ExpRNN n = 2048", lambda width: ExpRNNCell(width, 2048), Size(784, 128, 1, "last"), None),
    "nru": Work("NRU H212 M256 k4", lambda width: NRUCell(width, 212, 256, 4), Size(784, 100, 1, "last"), 10),
    "lstm_peepholes": Work(
        "LSTM with peepholes n = 200", lambda width: LSTMCell(width, 200, peepholes=True), Size(784, 100, 1, "last"), 10
    ),
    "janet": Work("JANET n = 283", lambda width: JANETCell(width, 283), Size(784, 100, 1, "last"), 10),
    "goru": Work("GORU n = 128", lambda width: GORUCell(width, 128), Size(784, 128, 1, "last"), 10),
    "eurnn": Work(
        "EURNN n = 512, real, FFT", lambda width: RealEURNNCell(width, 512, layout="fft"), Size(784, 128, 1, "last"), 10
    ),
    "eurnn_complex": Work("EURNN n = 512, complex", lambda width: EURNNCell(width, 512), Size(784, 128, 1, "last"), 10),
    "lstm": Work("LSTM n = 200", lambda width: LSTMCell(width, 200), Size(784, 100, 1, "last"), None),
    "gru": Work("GRU n = 232", lambda width: GRUCell(width, 232), Size(784, 100, 1, "last"), None),
}
FIT = "fit"


class Contender:
    """A way to run a work forward and backward.

    Args:
        work: Which.
        cell: Of it, on the device.
        who: A backend, or `CUDNN` for torch's relu layer of the same sizes.
    """

    def __init__(self, work: Work, cell: Cell, who: str, size: Size) -> None:
        self.cell, self.who, self.size = cell, who, size
        self.device = next(cell.parameters()).device
        self.layer: nn.Module = cell
        if who == CUDNN:
            self.layer = nn.RNN(size.I, cell.hidden_size, nonlinearity="relu").to(self.device)
        self.first = 0.0  # seconds of its first pass
        self.peak = 0.0  # MiB of a pass, above what is there before it
        self.error: float | None = None  # against float64 on the CPU

    def run(self, x: Tensor, gradient: Tensor) -> Tensor:
        self.layer.zero_grad()
        last = self.size.reads == "last"
        with varied(self.who):
            outputs, _ = self.layer(x) if self.who == CUDNN else self.scanned(x, last)
            (outputs[-1] if last else outputs).backward(gradient)
        return outputs

    def scanned(self, x: Tensor, last: bool) -> tuple[Tensor, Any]:
        backend: Any = VARIANTS.get(self.who, self.who)
        return scan(self.cell, x, backend=backend, last_only=last, expected_passes=EXPECTED_PASSES)

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Fresh inputs, and what comes back from the loss."""
        with self.device:
            return self.size.inputs(), self.size.gradient(self.cell.output_size)

    def begin(self) -> None:
        """The first pass, which compiles and records."""
        begun = time.perf_counter()
        self.run(*self.drawn())
        _wait(self.device)
        self.first = time.perf_counter() - begun

    def look(self) -> None:
        """Another pass, at whose memory is looked."""
        drawn = self.drawn()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.run(*drawn)
            self.peak = (torch.cuda.max_memory_allocated() - before) / 2**20
            torch.cuda.empty_cache()  # others get ready beside

    def seconds(self) -> float:
        """Of a pass on fresh inputs."""
        drawn = self.drawn()
        _wait(self.device)
        if self.device.type != "cuda":
            begun = time.perf_counter()
            self.run(*drawn)
            return time.perf_counter() - begun
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.run(*drawn)
        end.record()
        _wait(self.device)
        return start.elapsed_time(end) / 1e3

    def found(self, x: Tensor) -> list[Tensor]:
        """Outputs and gradients of all parameters, of a loss that weighs all outputs."""
        self.layer.zero_grad()
        with varied(self.who):
            outputs, _ = self.scanned(x, False)
            weights = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view_as(outputs)
            outputs.backward(weights.to(outputs))
        learned = [p.grad for p in self.cell.parameters() if p.grad is not None]
        return [part.detach().double().cpu() for part in (outputs, *learned)]


@contextlib.contextmanager
def varied(who: str) -> Iterator[None]:
    """In here passes run as this one of `VARIANTS`."""
    torch.set_float32_matmul_precision("high" if who == TF32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def farthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of any tensor, over its largest entry."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(found, expected, strict=True)
    )


def able(cell: Cell, asked: Sequence[str]) -> list[str]:
    """The backends that can run the cell where it is: the loop first, those that compile last."""
    names = [name for name in get_args(Backend) if name not in ("auto", LOOP, "native", "compiled")]
    found = [LOOP, *(name for name in (*names, "compiled") if name in asked and supports(name, cell))]
    return [*found, *(variant for variant, name in VARIANTS.items() if variant in asked and name in found)]


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside when the time is over."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def prepared(
    work: Work, device: torch.device, asked: Sequence[str], until: float, tiny: bool
) -> tuple[list[Contender], dict[str, str]]:
    """All ways to run a work, ready to be measured, and why others are not."""
    begun = time.monotonic()
    size = work.size._replace(T=12, B=3) if tiny else work.size
    torch.manual_seed(1)
    reference = work.build(size.I).double()
    x = size._replace(T=min(CHECKED, size.T)).inputs()
    expected = Contender(work, reference, LOOP, size).found(x.double())
    cell = work.build(size.I)
    cell.load_state_dict(reference.state_dict())
    cell.to(device)
    ready: list[Contender] = []
    failed: dict[str, str] = {}
    for who in (*able(cell, asked), *([CUDNN] if work.cudnn is not None else [])):
        contender = Contender(work, cell, who, size)
        try:
            with limited(until - time.monotonic()):
                contender.begin()
                if who != CUDNN:
                    contender.error = farthest(contender.found(x.to(device)), expected)
                contender.look()
            ready.append(contender)
            print(f"{who}: ready after {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
        except Exception as error:  # whatever it is, the other rows are measured
            failed[who] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            traceback.print_exc()
    return ready, failed


def timed(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of a pass in every round, one contender after the other."""
    times: dict[str, list[float]] = {contender.who: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            once = contender.seconds()
            passes = [once] if once > 0.05 else [contender.seconds() for _ in range(PASSES)]
            times[contender.who].append(statistics.median(passes))
    return times


def entries(name: str, work: Work, ready: Sequence[Contender], failed: dict[str, str], rounds: int) -> list[Any]:
    """The rows of a work: every backend beside the loop, and beside cuDNN; the fastest has the bars."""
    times = timed(ready, rounds)
    own = {who: statistics.median(times[who]) for who in times if who not in (LOOP, CUDNN)}
    best = min((who for who in own if who != TF32), key=lambda who: own[who], default=None)
    found = []
    for against, words, value in (
        (LOOP, "per-step autograd loop", work.loop),
        (CUDNN, "torch.nn.RNN(relu), cuDNN", work.cudnn),
    ):
        for contender in ready:
            who = contender.who
            if who not in own or against not in times:
                continue
            row = Row(
                f"gpu/{name}/{who}/{against}", str_of(work), words, Bar("faster", value if who == best else None), no
            )
            pairs = Pairs(ours=times[who], theirs=times[against], backend=who, first=contender.first)
            loop = next((each.error for each in ready if each.who == LOOP), None)
            pairs.note = (
                f"{contender.peak:,.0f} MiB; {contender.error:.1e} from float64 on the CPU (loop {loop or 0:.1e})"
            )
            found.append(tables.record(row, pairs))
    for who, why in failed.items():
        row = Row(f"gpu/{name}/{who}", f"{str_of(work)}, {who}", "per-step autograd loop", Bar("faster"), no)
        found.append(tables.record(row, None, why))
    return found


def explain(contender: Contender) -> None:
    """Into the log: what a pass spends the device's time on."""
    drawn, kinds = contender.drawn(), torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if contender.device.type == "cuda" else kinds.CPU]) as profile:
        contender.run(*drawn)
        _wait(contender.device)
    events = profile.key_averages()
    times = {
        event.key[:100]: (event.self_device_time_total or event.self_cpu_time_total, event.count) for event in events
    }
    whole, count = (sum(pair[place] for pair in times.values()) for place in (0, 1))
    print(f"{contender.who}: {count} kernels, {whole / 1e3:.2f} ms", file=sys.stderr)
    for key, (spent, often) in sorted(times.items(), key=lambda item: -item[1][0])[:12]:
        print(f"    {spent / 1e3:8.2f} ms {often:7} times  {key}", file=sys.stderr)


def no(*_: Any) -> Pairs:
    raise NotImplementedError


def str_of(work: Work) -> str:
    return f"{work.title}, {work.size}"


# ---- a whole fit


def write_images(root: Path, trained: int) -> None:
    """Random images in the files and the number of MNIST's."""
    generator = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", trained), ("t10k", 10_000)):
        images = generator.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        labels = generator.integers(0, 10, count, dtype=np.uint8).tobytes()
        heads = (
            b"".join(number.to_bytes(4, "big") for number in numbers)
            for numbers in ((2051, count, 28, 28), (2049, count))
        )
        for kind, head, content in zip(("images-idx3", "labels-idx1"), heads, (images, labels), strict=True):
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + content)


def fit_entries(device: torch.device, backend: str, seconds: float, go: Callable[[], None], tiny: bool) -> list[Any]:
    """A fit of about so many ``seconds`` by the command line, over as many bare steps on batches on the device."""
    config = "pixel_mnist/exprnn_permuted.yaml"
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), 60_000)
        model, data = from_config(config, {"root": folder, "verify": False}, backend=backend)
        model.to(device)
        optimizer = model.configure_optimizers()
        whole_epoch = len(data.train_dataloader())
        loaded = [tuple(part.to(device) for part in batch) for batch in itertools.islice(data.train_dataloader(), 40)]

        def bare(steps: int) -> float:
            _wait(device)
            begun = time.perf_counter()
            passes.train(model, optimizer, itertools.islice(itertools.cycle(loaded), steps))
            _wait(device)
            return time.perf_counter() - begun

        runs = itertools.count()

        def fit(steps: int) -> float:
            limits = ["--trainer.max_epochs", str(max(1, steps // whole_epoch))]
            limits += ["--trainer.limit_train_batches", str(min(steps, whole_epoch))]
            limits += ["--trainer.limit_val_batches", "1"] if steps < whole_epoch // 4 else []
            arguments = ["--data.init_args.root", folder, *limits]
            arguments += ["--data.init_args.verify", "false", "--model.init_args.backend", backend]
            arguments += [
                "--run_dir",
                f"{folder}/run-{next(runs)}",
                "--trainer.accelerator",
                "auto" if device.type == "cuda" else "cpu",
            ]
            begun = time.perf_counter()
            passes.fit(config, *arguments)
            return time.perf_counter() - begun

        bare(2)
        first = fit(3)
        go()
        bare(3)
        steps = 3 if tiny else int(seconds / bare(10) * 10)
        if steps > whole_epoch:
            steps -= steps % whole_epoch
        fewest, whole, of_bare = fit(3), fit(steps), bare(steps)
        title = f"fit of configs/{config}, random images, {steps} steps"
        again = title.replace("fit of", "without what one of 3 steps takes: fit of")
        rows = []
        rest = of_bare * (steps - 3) / steps
        for name, what, ours, theirs in (("whole", title, whole, of_bare), ("steps", again, whole - fewest, rest)):
            row = Row(f"gpu/fit/{backend}/{name}", what, "its bare training steps", Bar("share", 1.05), no)
            pairs = Pairs(ours=[ours], theirs=[theirs], backend=backend, first=first)
            rows.append(tables.record(row, pairs))
        return rows


# ---- processes

MARK = "gpu.py says: "


def say(**told: Any) -> None:
    print(MARK + json.dumps(told), flush=True)


def serve(name: str, options: argparse.Namespace) -> None:
    """The process of one work: get ready, say so, wait for a line, measure, say what was found."""
    until = options.until or time.monotonic() + options.prepare
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 on both sides

    def go() -> None:
        say(ready=True)
        sys.stdin.readline()

    if name == FIT:
        probe = ExpRNNCell(1, 170).to(device)
        can = [
            who
            for who in ("triton", "graphed", "fused")
            if who in get_args(Backend) and supports(cast(Any, who), probe)
        ]
        say(rows=fit_entries(device, can[0], options.fit_seconds, go, options.tiny))
        return
    ready, failed = prepared(WORKS[name], device, options.backends, until, options.tiny)
    go()
    rows = entries(name, WORKS[name], ready, failed, options.rounds)
    if name in options.profile:
        for contender in ready:
            explain(contender)
    say(rows=rows)


class Process:
    """The process of one work, seen from outside."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("w") as errors:
            pipe = subprocess.PIPE
            environment = {**os.environ, "OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # all at once
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment
            )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(MARK):
                    self._lines.put(json.loads(line.removeprefix(MARK)))
        self._lines.put({"ended": self._process.wait()})

    def told(self, seconds: float) -> dict[str, Any]:
        """What it says next; raises `SkipError` where it says nothing in time or ends."""
        try:
            found = self._lines.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            raise measure.SkipError(f"it took longer than {seconds:.0f} s") from None
        if "ended" in found:
            raise measure.ended(found["ended"], self.log.read_text())
        return found

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._reader.join()


def card(device: str) -> dict[str, Any]:
    """What the numbers depend on."""
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = None
    on_gpu = torch.device(device).type == "cuda"
    return {
        "card": torch.cuda.get_device_name() if on_gpu else "no GPU",
        "capability": ".".join(map(str, torch.cuda.get_device_capability())) if on_gpu else "",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "triton": version,
        "python": platform.python_version(),
    }


def measure_all(names: Sequence[str], options: argparse.Namespace, run: dict[str, Any], file: Path) -> None:
    """Start the processes of ``names`` together, measure them one by one, and keep each in ``file``."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        given = ["--until", str(begun + options.prepare), "--rounds", str(options.rounds), "--device", options.device]
        given += ["--fit-seconds", str(options.fit_seconds), "--backends", *options.backends]
        given += ["--profile", *options.profile]
        given += ["--tiny"] if options.tiny else []
        processes = [
            Process(name, [sys.executable, __file__, "--work", name, *given], Path(folder, name)) for name in names
        ]
        waiting = dict.fromkeys(processes, "")
        for process in waiting:
            try:
                process.told(options.prepare + 15 - (time.monotonic() - begun))
            except measure.SkipError as error:
                waiting[process] = str(error)
                process.end()
        print(f"all are ready after {time.monotonic() - begun:.0f} s", flush=True)
        for process, why in waiting.items():
            try:
                if why:
                    raise measure.SkipError(why)
                left = options.seconds - (time.monotonic() - begun)
                process.go()
                most = options.most + 4 * options.fit_seconds * (process.name == FIT)
                rows = process.told(min(left, most))["rows"]
            except (measure.SkipError, OSError) as error:
                row = Row(f"gpu/{process.name}", process.name, "", Bar("faster"), no)
                rows = [tables.record(row, None, str(error))]
            process.end()
            run["rows"] += rows
            run["seconds"] = round(time.monotonic() - begun)
            file.write_text(json.dumps(run, indent=1) + "\n")
            file.with_suffix(".md").write_text(tables.markdown(run["rows"], tables.ON_A_GPU) + "\n")
            logs = (f"==== {each.name}\n{each.log.read_text()[-12000:]}" for each in processes)
            file.with_suffix(".log").write_text("\n".join(logs))  # all of it after every work: a machine may be taken
            for row in rows:
                print(tables.line(row), flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where gpu.json, gpu.md and gpu.log go")
    names = [*WORKS, FIT]
    parser.add_argument("--rows", nargs="+", default=names, choices=names, metavar="ROW", help=f"of {', '.join(names)}")
    backends = [*(name for name in get_args(Backend) if name not in ("auto", LOOP)), *VARIANTS]
    parser.add_argument("--backends", nargs="+", default=backends, choices=backends, help="beside the loop")
    parser.add_argument("--rounds", type=whole(), default=3)
    parser.add_argument("--seconds", type=float, default=200, help="for all; rows that are not measured then never are")
    parser.add_argument("--prepare", type=float, default=60, help="seconds to get ready, in which all is compiled")
    parser.add_argument("--most", type=float, default=45, help="seconds that one work may be measured")
    parser.add_argument("--fit-seconds", type=float, default=10)
    parser.add_argument("--profile", nargs="*", default=[], metavar="ROW", help="say in the log where the time goes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--commit", help="of this tree, where it is a copy without git")
    tables.add_options(parser)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # of the clock that all processes share
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.list:
        print("\n".join((*WORKS, FIT)))
        return
    if options.write_readme:
        tables.write_readme(HERE / "README.md", options.write_readme, tables.ON_A_GPU)
        return
    if options.work:
        serve(options.work, options)
        return
    require(options.folder is not None, "folder", "nothing", "a folder for gpu.json, gpu.md and gpu.log")
    require(
        options.device == "cpu" or torch.cuda.is_available(),
        "--device",
        options.device,
        "cpu on this machine, where torch finds no GPU",
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    found = {"date": datetime.date.today().isoformat(), "commit": options.commit or measure.commit()}
    found |= {"machine": card(options.device), "rounds": options.rounds, "tiny": options.tiny, "rows": []}
    print(tables.card_words(found), flush=True)
    measure_all(options.rows, options, found, options.folder / "gpu.json")


def main(arguments: Sequence[str] | None = None) -> int:
    return measure.status("gpu", lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
