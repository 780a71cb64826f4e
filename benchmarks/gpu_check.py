"""The backends `triton` and `streamed` on the GPU at hand: is it right, and how fast is it, form by form.

python benchmarks/gpu_check.py [--seconds 170] [--workers 14] [--only check|time]

First every nonlinearity at several sizes in float32 beside the loop in float64: states, and gradients by drive, initial
state, W and thresholds, as ||found - exact|| / ||exact||. Many processes share that work: most of it is compiling.
Then times of forward and backward, medians of CUDA events, beside the loop, `fused` and cuDNN; and of other ways to
cut the work into programs (`lit_rnn.scan.gpu.Plan`). The exit status is 1 where something is wrong beyond rounding;
such a way, which no user gets, is only named then. Run it before gpu.py: there a kernel that hangs takes the whole row
with it, unless ``--backends`` leaves it out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from arguments import whole
from torch import Tensor

from lit_rnn.activations import NONLINEARITIES, complex_modrelu, modrelu
from lit_rnn.cells import ExpRNNCell
from lit_rnn.scan import scan
from lit_rnn.scan.drive import halves
from lit_rnn.scan.fused import Fused, matrix_on_halves
from lit_rnn.scan.gpu import Plan, Triton
from lit_rnn.scan.packed import Block
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Recurrence
from lit_rnn.scan.streamed import Streamed

DEVICE = "cuda"
TOLERANCE = 1e-4  # of float32 after a hundred steps forward and back
# Where f has a kink, float32 may put a unit on its other side: the gradient of that row then is another one. So the
# worst twentieth of the rows is left out, and of a gradient summed over all rows less is asked.
KINKED, SUMMED = ("relu", "leaky_relu", "modrelu", COMPLEX), 200
CASES = ((1, 1), (7, 3), (7, 200), (100, 128))  # T, B
SIZES: dict[int, tuple[str, ...]] = {n: ("tanh", "modrelu", COMPLEX) for n in (512, 256, 190, 64)}
SIZES |= {170: KINDS, 5: KINDS}
STREAMED: dict[int, tuple[str, ...]] = {1024: ("tanh", "modrelu", COMPLEX), 170: KINDS}
# rows, group, own, block, warps
PLANS: dict[int, list[tuple[int, ...]]] = {
    170: [(1, 1, 3, 64, 8), (1, 1, 6, 32, 16)],
    512: [(4, 8, 2, 32, 8)],
}
LONG = {170: 784, 190: 1020, 512: 784}  # T of the timed passes, B = 128


class Planned(Triton):
    """With a plan of ours."""

    chosen: Plan

    def plan(self, *_: Any) -> Plan:
        return self.chosen


def planned(numbers: tuple[int, ...]) -> type[Planned]:
    return type("Planned", (Planned,), {"chosen": Plan(*numbers)})


# ---- right?


def looped(kind: str, u: Tensor, h0: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    """The states (T, B, width), of complex ones as halves."""
    states, h = [], h0
    for u_t in u:
        if kind == COMPLEX:
            assert bias is not None
            z = torch.complex(*h.chunk(2, -1)) @ W.mT + torch.complex(*u_t.chunk(2, -1))
            h = halves(complex_modrelu(z, bias))
        else:
            z = h @ W.mT + u_t
            h = modrelu(z, bias) if bias is not None else NONLINEARITIES[kind](z)  # type: ignore[index]
        states.append(h)
    return torch.stack(states)


def orthogonal(n: int, kind: str) -> Tensor:
    A = torch.randn(n, n, dtype=torch.complex128 if kind == COMPLEX else torch.float64)
    return torch.linalg.qr(A)[0].to(DEVICE)


def error(engine: Any, kind: str, n: int, T: int, B: int, last_only: bool) -> float:
    """The largest of the relative errors of states and gradients in float32."""
    torch.manual_seed(n + T + B)
    width = n * (1 + (kind == COMPLEX))
    W = orthogonal(n, kind)
    u, h0 = (torch.randn(*shape, width, dtype=torch.float64, device=DEVICE) for shape in ((T, B), (B,)))
    bias = -0.3 * torch.rand(n, dtype=torch.float64, device=DEVICE) if "modrelu" in kind else None
    g = torch.randn(1 if last_only else T, B, width, dtype=torch.float64, device=DEVICE)

    def results(single: bool) -> list[Tensor]:
        real = torch.float32 if single else torch.float64
        M = W.to(real.to_complex() if kind == COMPLEX else real).requires_grad_()
        leaves = [tensor.detach().to(real).requires_grad_() for tensor in (u, h0)]
        b = None if bias is None else bias.to(real).requires_grad_()
        if single:
            on_halves = matrix_on_halves(M) if kind == COMPLEX else M
            blocks = (Block(T, B),)
            arguments = kind, engine, True, last_only, blocks, leaves[0].flatten(0, 1), None, None, leaves[1]
            y = Recurrence.apply(*arguments, on_halves, b).unflatten(0, (-1, B))
        else:
            y = looped(kind, *leaves, M, b)
            y = y[-1:] if last_only else y
        wanted = [*leaves, M, *([] if b is None else [b])]
        return [y.detach(), *torch.autograd.grad(y, wanted, g.to(real))]

    worst = 0.0
    for number, (found, exact) in enumerate(zip(results(True), results(False), strict=True)):
        off = found.to(exact.dtype) - exact
        if number < 3 and kind in KINKED:  # each row of the batch, but for the worst of many
            rows = [tensor.movedim(-2, 0).flatten(1).norm(dim=1) for tensor in (off, exact)]
            each = (rows[0] / rows[1].clamp_min(1e-30)).sort().values
            share = each[-1 - B // 20]
        else:
            share = off.norm() / exact.norm().clamp_min(1e-30)
            share = share / SUMMED if kind in KINKED else share
        worst = max(worst, float(share)) if share.isfinite() else float("nan")
    return worst


Unit = tuple[str, int, Any]


def units() -> list[Unit]:
    """What is compiled once each, the slowest first."""
    plans: list[Unit] = [("plan", n, plan) for n in reversed(PLANS) for plan in PLANS[n]]
    streams: list[Unit] = [("streamed", n, kind) for n, kinds in STREAMED.items() for kind in kinds]
    return plans[:2] + [("check", n, kind) for n, kinds in SIZES.items() for kind in kinds] + streams + plans[2:]


def work(unit: Unit) -> None:
    """Prints a line of JSON for each case."""
    what, n, which = unit
    if what == "plan":
        cases = [(planned(which), "modrelu", n, 7, 128, last_only) for last_only in (False, True)]
    else:
        engine = Streamed if what == "streamed" else Triton
        cases = [(engine, which, n, T, B, last) for T, B in CASES for last in (False, True)]
    for case in cases:
        label = [what, n, str(which), *case[3:]]
        try:
            found: float | str = error(*case)
        except Exception as failure:
            found = f"{type(failure).__name__}: {failure}"[:300]
            traceback.print_exc()
        print(json.dumps([*label, found]), flush=True)


def check(workers: int, seconds: float) -> bool:
    """Whether all is right, with a table."""
    began = time.monotonic()
    names = [json.dumps(unit) for unit in units()]
    command = [sys.executable, __file__, "--work"]
    lines, complaints = [], []
    with contextlib.ExitStack() as files:
        # a full pipe would hold up who has much to complain
        logs = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
        processes = [
            subprocess.Popen([*command, *names[i::workers]], stdout=subprocess.PIPE, stderr=log, text=True)
            for i, log in enumerate(logs)
        ]
        for process, log in zip(processes, logs, strict=True):
            try:
                out, _ = process.communicate(timeout=max(0.01, seconds - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                for late in processes:  # all at once, so that what they found is shown in time
                    late.kill()
                out, _ = process.communicate()
                complaints.append("a worker did not end in time")
            lines += [json.loads(line) for line in out.splitlines() if line.startswith("[")]
            log.seek(0)
            err = log.read()
            complaints += [err[-1500:]] if "Traceback" in err else []
    table: dict[tuple[str, int, str], list[Any]] = {}
    for what, n, which, T, B, last_only, found in lines:
        table.setdefault((what, n, which), []).append((found, T, B, last_only))
    print(f"{'':9}{'n':>5} {'nonlinearity or plan':32} cases  largest relative error")
    right, expected = True, sum(2 if unit[0] == "plan" else 2 * len(CASES) for unit in units())
    for (what, n, which), rows in sorted(table.items()):
        wrong = [row for row in rows if isinstance(row[0], str) or not row[0] <= TOLERANCE]
        largest = max((row[0] for row in rows if not isinstance(row[0], str)), default=float("nan"))
        print(f"{what:9}{n:5} {which:32} {len(rows):5}  {largest:.2g}{'' if not wrong else '  WRONG'}")
        for found, T, B, last_only in wrong[:3]:
            print(f"{'':12}T = {T}, B = {B}, {'last' if last_only else 'all'}: {found}")
        right &= not wrong or what == "plan"
    print(f"{len(lines)} of {expected} cases in {time.monotonic() - began:.0f} s")
    for complaint in complaints[:4]:
        print("----", complaint)
    return right and len(lines) == expected


# ---- fast?


def milliseconds(call: Callable[[], Any], rounds: int = 10) -> float:
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def passes(n: int, T: int, B: int = 128) -> dict[str, Callable[[], Any]]:
    """Forward and backward of a whole pass from the inputs to all gradients, by name."""
    torch.manual_seed(0)
    cell = ExpRNNCell(1, n).to(DEVICE)
    cudnn = torch.nn.RNN(1, n, nonlinearity="relu").to(DEVICE)
    x = torch.randn(T, B, 1, device=DEVICE)
    g = torch.randn(B, n, device=DEVICE)

    def ours(backend: Any) -> Callable[[], Any]:
        def run() -> None:
            y, _ = scan(cell, x, backend=backend, last_only=True)
            torch.autograd.grad(y[-1], list(cell.parameters()), g)

        return run

    def theirs() -> None:
        torch.autograd.grad(cudnn(x)[0][-1], list(cudnn.parameters()), g)

    def exponential() -> None:
        W = cell.weights()
        torch.autograd.grad(W, [p for p in cell.parameters() if p.requires_grad], W.detach(), allow_unused=True)

    def by(engine: Any, back: bool) -> Callable[[], Any]:
        """The recurrence alone, with W given, from V x."""
        W, h0 = orthogonal(n, "modrelu").float().requires_grad_(), torch.zeros(B, n, device=DEVICE)
        bias = torch.full((n,), -0.01, device=DEVICE, requires_grad=True)
        V = torch.randn(n, 1, device=DEVICE, requires_grad=True)
        inputs = x.flatten(0, 1), V, None, h0, W, bias

        def run() -> None:
            y = Recurrence.apply("modrelu", engine, True, True, (Block(T, B),), *inputs)
            if back:
                torch.autograd.grad(y, [V, W, bias], g)

        return run

    found = {f"whole pass, backend {name}": ours(name) for name in ("triton", "streamed", "fused", "loop")}
    found |= {"whole pass, cuDNN RNN(relu)": theirs, "exp(A) and its backward": exponential}
    found |= {"recurrence, fused": by(Fused, True)}
    ways: list[tuple[str, Any]] = [(f"plan {plan}", planned(plan)) for plan in PLANS.get(n, [])]
    for way, engine in [("plan chosen", Triton), *ways, ("streamed", Streamed)]:
        name = f"recurrence, {way}"
        found |= {f"{name}, forward": by(engine, False), f"{name}, and backward": by(engine, True)}
    return found


def timed(seconds: float) -> None:
    began = time.monotonic()
    calls = [(n, name, call) for n, T in LONG.items() for name, call in passes(n, T).items()]
    cudnn = [(n, f"{name}, TF32", call) for n, name, call in calls if "cuDNN" in name]
    print(f"B = 128, T by n: {LONG} (ms)")
    # what has not run on a GPU yet comes last: what hangs takes the rest with it
    for n, name, call in sorted([*calls, *cudnn], key=lambda each: "streamed" in each[1]):
        if time.monotonic() - began > seconds:
            print("no time left")
            return
        torch.backends.cudnn.allow_tf32 = "TF32" in name
        slow = "loop" in name or "fused" in name
        try:
            found = f"{milliseconds(call, 3 if slow else 10):9.3f}"
        except Exception as failure:
            found = f"{type(failure).__name__}: {str(failure)[:200]}"
        print(f"    n = {n:4}  {name:60} {found}", flush=True)


def timed_apart(seconds: float) -> None:
    """`timed` in a process that can be ended: a kernel that hangs cannot be interrupted."""
    try:
        subprocess.run([sys.executable, __file__, "--only", "time", "--seconds", str(seconds)], timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        print("ended: the last of these has hung")


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=170, help="for all of it")
    parser.add_argument("--workers", type=whole(), default=14)
    parser.add_argument("--only", choices=("check", "time"))
    parser.add_argument("--work", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.work is not None:
        for unit in arguments.work:
            what, n, which = json.loads(unit)
            work((what, n, tuple(which) if what == "plan" else which))
        return 0
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    import triton

    began = time.monotonic()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}", flush=True)
    right = arguments.only == "time" or check(arguments.workers, arguments.seconds * 0.55)
    left = max(1.0, arguments.seconds - (time.monotonic() - began))
    if arguments.only != "check":
        (timed if arguments.only == "time" else timed_apart)(left)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
