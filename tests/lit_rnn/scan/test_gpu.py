"""The backend `triton` without a GPU: its kernels in Triton's interpreter, and compiled ahead of time."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.scan import choose_backend, gpu, streamed, supports
from lit_rnn.scan.fused import Fused
from lit_rnn.scan.gpu import Plan
from lit_rnn.scan.packed import Block
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept, add_product_, pieces_of
from lit_rnn.scan.streamed import StreamedPlan

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import gpu_check
import registers

needs_triton = pytest.mark.skipif(not gpu.has_triton(), reason="Triton is not installed")


@needs_triton
def test_the_kernels_are_the_loop() -> None:
    """In outputs, final state and every gradient: see `interpreted.py` for the cases."""
    script = Path(__file__).with_name("interpreted.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=script.parents[3])
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) >= 30
    assert {case: what for case, what in found.items() if what != "equal"} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_gpu_is_checked_by(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of gpu_check.py, beside the backend `fused` on the CPU."""
    monkeypatch.setattr(gpu_check, "DEVICE", "cpu")
    for last_only in (False, True):
        assert gpu_check.error(Fused, kind, 5, 4, 3, last_only) < 1e-5


@needs_triton
@pytest.mark.parametrize(
    ("name", "kind", "n", "capability"),
    [
        ("forward", "modrelu", 170, 80),
        ("backward", "modrelu", 190, 90),
        ("backward", COMPLEX, 64, 90),
    ],
)
def test_a_matrix_stays_in_registers(
    name: str, kind: str, n: int, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert_it_fits(registers.usage(name, kind, n, 100, capability))


@needs_triton
def test_a_group_shares_a_matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each step waits, reads the others' states, stores its own and then says so, with a barrier between any two:
    the interpreter, which runs one program after another, does not show it."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    usage = registers.usage("forward", "relu", 256, 100, 90)
    assert_it_fits(usage)
    order = re.findall(r"\.acquire|\.release|bar\.sync|st\.global|ld\.global(?:\.v\d)?\.b32", usage.ptx)
    step = r"\.acquire( bar\.sync)+( ld\S+( bar\.sync)*)+( bar\.sync)+( st\.global)+( bar\.sync)+ \.release$"
    assert re.search(step, " ".join(order))


def assert_it_fits(usage: registers.Usage) -> None:
    """Nothing is spilled to memory, and shared memory is far below what a processor has."""
    assert usage.registers <= 255 and usage.spilled == 0
    assert usage.shared <= 4 * 2**10
    assert "fma.rn.f32" in usage.ptx and "tf32" not in usage.ptx


@needs_triton
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_how_a_step_is_spread_over_threads(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which Triton decides: a thread has units of every tile, so that few sums pass between threads, and states go to
    the threads that multiply from them in two parts, of four tiles and two."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptx = registers.usage(name, "relu", 170, 128, 90).ptx
    assert ptx.count("shfl.sync") == 18
    assert ptx.count("bar.sync") <= 8


@needs_triton
@pytest.mark.parametrize(
    ("name", "n", "capability", "precision"),
    [("forward", 1024, 80, "high"), ("backward", 1024, 90, "highest"), ("backward", 2048, 90, "high")],
)
def test_a_matrix_that_is_streamed(
    name: str, n: int, capability: int, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is spilled, and products are in TF32 only where torch is told to allow it; the drive may be bfloat16."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(streamed, "rounds_as_ieee", lambda: precision == "highest")
    usage = registers.usage(name, "modrelu", n, 128, capability, "streamed", drive="bf16")
    assert usage.registers <= 255 and usage.spilled == 0
    assert usage.shared <= 32 * 2**10
    assert ("tf32" in usage.ptx) == (precision == "high") != ("fma.rn.f32" in usage.ptx)


@pytest.mark.parametrize("n", [1, 170, 512, 1024, 2048, 5000])
@pytest.mark.parametrize("batch", [1, 128, 200, 5000])
def test_plans_of_a_stream(n: int, batch: int) -> None:
    """Every unit and every row is someone's, and programs that wait for one another all run at once."""
    plan = StreamedPlan.of(n, batch, 132)
    assert n <= plan.group * plan.own * plan.block < n + plan.own * plan.block
    assert (plan.groups(batch) - 1) * plan.rows < batch <= plan.groups(batch) * plan.rows
    assert plan.group == 1 or plan.groups(batch) * plan.group <= 132


@pytest.mark.parametrize("n", [1, 64, 65, 170, 190, 256, 512])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("batch", [1, 128, 200, 1000])
def test_plans(n: int, planes: int, batch: int) -> None:
    """Every unit and every row is someone's, what a program holds fits, and a launch of groups runs at once."""
    plan = Plan.of(n, planes, batch, 4, 132)
    assert plan is not None
    assert n <= plan.side < n + plan.group * plan.block
    held = planes * plan.side * plan.own * plan.block * 4
    assert held <= (gpu.ALONE if plan.group == 1 else gpu.SHARED)
    groups, chunks = plan.groups(batch, 132)
    assert (groups - 1) * chunks * plan.rows < batch <= groups * chunks * plan.rows
    assert chunks == 1 or plan.group > 1
    assert plan.group == 1 or groups * plan.group <= 132


@pytest.mark.parametrize("n", [170, 512])
def test_a_batch_of_none_is_no_launch(n: int) -> None:
    plan = Plan.of(n, 1, 0, 4, 132)
    assert plan is not None and plan.groups(0, 132)[0] == 0


class Kernel:
    """Notes on which device it would be launched."""

    def __init__(self, current: list[torch.device]) -> None:
        self.current, self.launched = current, list[torch.device]()

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        return lambda *_, **__: self.launched.append(self.current[-1])


def test_a_launch_is_where_its_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, whatever it is given: on another one that is a fault of the GPU."""
    kernel = Kernel([torch.device("cuda:0")])

    @contextlib.contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        kernel.current.append(tensor.device)
        yield
        kernel.current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    with FakeTensorMode():
        memory = torch.empty(3, device="cuda:1")
        gpu.launched(kernel, 2, 1, (memory,), (), {"WAIT": True}, 8, 2)
    assert kernel.launched == [torch.device("cuda:1")] * 2


@pytest.mark.parametrize("engine", [gpu.Triton, streamed.Streamed])
def test_a_step_beyond_32_bits_is_refused(engine: type[Dense], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "processors_of", lambda device: 132)
    h = torch.empty(2**28, 9, device="meta")
    kept = Kept((Block(1, len(h)),), h, h, None)
    with pytest.raises(UserError, match=r"for 268,435,456 sequences of 9 numbers', but it must be fused"):
        engine("relu", torch.empty(9, 9, device="meta"), None).forward(h, kept)


def test_triton_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a compiler for its launcher: ``auto`` must know before the first launch."""
    error = RuntimeError("Failed to find C compiler.\n")
    active = SimpleNamespace(get_current_device=Mock(side_effect=error))
    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=SimpleNamespace(active=active)))
    monkeypatch.setattr(gpu, "has_triton", lambda: True)
    assert gpu.lacking.__wrapped__() == "Triton, which does not start (Failed to find C compiler.)"
    active.get_current_device.side_effect = None
    assert gpu.lacking.__wrapped__() is None
    monkeypatch.setattr(gpu, "has_triton", lambda: False)
    assert gpu.lacking.__wrapped__() == "Python package triton, which is not installed"


@pytest.mark.parametrize(("rows", "pieces"), [(100, 1), (100, 4), (103, 4), (3, 3)])
def test_a_product_over_many_rows(rows: int, pieces: int) -> None:
    a, b, total = torch.randn(rows, 5).double(), torch.randn(rows, 4).double(), torch.randn(5, 4).double()
    expected = total.numpy() + np.einsum("ni,nj->ij", a.numpy(), b.numpy())
    add_product_(total, a, b, pieces)
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-13, atol=1e-13)


def test_a_gpu_has_work_for_many_sums_of_few_tiles() -> None:
    with FakeTensorMode():
        found = [pieces_of(torch.empty(784 * 128, n, device="cuda")) for n in (170, 512, 1024)]
        few = pieces_of(torch.empty(600, 170, device="cuda"))
    assert (found, few) == ([28, 4, 1], 2)
    assert pieces_of(torch.empty(784 * 128, 170)) == 1


def test_what_fits_a_gpu() -> None:
    assert Plan.of(170, 1, 128, 4, 132) == Plan(1, 1, 6, 32)
    assert Plan.of(1000, 1, 128, 4, 132) is not None
    assert Plan.of(1000, 2, 128, 4, 132) is None
    assert Plan.of(20_000, 1, 128, 4, 132) is None
    assert Plan.of(512, 1, 1, 4, 4) is None


def test_it_is_for_gpus() -> None:
    cell = cells.ExpRNNCell(3, 8)
    for name in ("triton", "streamed"):
        assert not supports(name, cell)
        with pytest.raises(UserError, match=rf"backend is '{name}', .* runs on an NVIDIA GPU alone"):
            choose_backend(name, cell)


def test_it_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    there = 170, "relu", torch.float32, torch.device("cuda")
    monkeypatch.setattr(gpu, "processors_of", lambda device: 132)
    for lacking in ("a compiler", None):
        monkeypatch.setattr(gpu, "lacking", lambda lacking=lacking: lacking)
        assert gpu.runs_on(*there) == (lacking is None and not torch.version.hip)
    assert not gpu.runs_on(170, "relu", torch.bfloat16, torch.device("cuda"))
    assert not gpu.runs_on(170, "relu", torch.float32, torch.device("cpu"))
