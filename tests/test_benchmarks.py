"""The benchmarks compare equal things, and count what they say they count. (Times are not tested.)"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from datamodules import PixelMNIST
from lit_rnn import cells, graphs
from lit_rnn.cells import Cell, ExpRNNCell, NRUCell, OrthogonalCell
from lit_rnn.scan import Backend, supports
from tests.recording import Rerun

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import children  # noqa: E402
import gpu  # noqa: E402
import gpu_check  # noqa: E402
import gpu_hazards  # noqa: E402
import gpu_models  # noqa: E402
import loading  # noqa: E402
import pseudospectra  # noqa: E402
import reference  # noqa: E402
import resume  # noqa: E402
import roofline  # noqa: E402
import speed  # noqa: E402
import starting  # noqa: E402
import tables  # noqa: E402
from measure import Bar, Pairs, Ratio, Row, SkipError, in_turn  # noqa: E402
from passes import Size, bare_products, from_config  # noqa: E402

CELLS = {
    "ExpRNN": lambda: ExpRNNCell(3, 6),
    "modReLU RNN": lambda: OrthogonalCell(3, 6, nn.Linear(6, 6, bias=False)),
    "NRU": lambda: NRUCell(3, 5, 9, 4),
}


@pytest.mark.parametrize("backend", [name for name in get_args(Backend) if name != "compiled"])
@pytest.mark.parametrize("build", CELLS.values(), ids=CELLS)
def test_the_users_loop_is_the_same_recurrence(build, backend: Backend) -> None:
    cell = build().double()
    for B in (1, 3) if backend == "auto" or supports(backend, cell) else ():
        assert reference.disagreement(cell, torch.randn(7, B, 3, dtype=torch.float64), backend) < 1e-12


def test_disagreement_sees_a_wrong_step() -> None:
    class Wrong(ExpRNNCell):
        def step(self, u, state, w):
            y, state = super().step(u, state, w)
            return y * (1 + 1e-6), state

    wrong = Wrong(3, 6).double()
    assert reference.disagreement(wrong, torch.randn(7, 2, 3, dtype=torch.float64), "loop") > 1e-7


def test_bare_products_are_those_of_backpropagation_through_time() -> None:
    """T products (B, n) x (n, n) each way and one (n, TB) x (TB, n): 6 T B n^2 floating point operations."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        bare_products(5, Size(7, 3, 1, "last"))()
    assert counted.get_total_flops() == 6 * 7 * 3 * 5**2


def test_every_cell_is_measured() -> None:
    models = (from_config(path, **options)[0] for path, options in speed.CONFIGURED)
    measured = {type(model.cell_list()[0]) for model in models} | {ExpRNNCell, NRUCell}
    shared = {"Cell", "PlainCell", "OrthogonalCell", "UnitaryCell", "LinearCell"}  # of which the others are made
    exported = {getattr(cells, name) for name in cells.__all__ if name not in shared}
    assert measured == {cls for cls in exported if inspect.isclass(cls) and issubclass(cls, Cell)}


def test_row_names_differ() -> None:
    names = [row.name for row in speed.Suite().rows()]
    assert len(names) == len(set(names))
    assert {name.partition("/")[0] for name in names} == set(tables.GROUPS)


def test_ratio_is_the_median_of_the_pairs_ratios() -> None:
    """Not the ratio of the medians, which is 2 / 4 here."""
    pairs = Pairs(ours=[1.0, 2.0, 6.0], theirs=[5.0, 4.0, 3.0])
    assert Ratio.of(Bar("faster"), pairs) == Ratio(2.0, 0.5, 5.0)
    assert Ratio.of(Bar("share"), pairs) == Ratio(0.5, 0.2, 2.0)


@pytest.mark.parametrize(
    ("bar", "inside", "outside"),
    [(Bar("faster", 1.6), 1.6, 1.59), (Bar("share", 0.35), 0.35, 0.36), (Bar("same", 0.1), 0.91, 1.11)],
    ids=str,
)
def test_bars(bar: Bar, inside: float, outside: float) -> None:
    assert bar.met(inside) is True
    assert bar.met(outside) is False
    assert Bar(bar.kind).met(inside) is None


@pytest.mark.usefixtures("_garbage_stays")
def test_measurements_alternate_and_warming_up_does_not_count() -> None:
    calls: list[str] = []
    pairs = in_turn(lambda: calls.append("A"), lambda: calls.append("B"), 3, lambda: None, "loop")
    assert "".join(calls) == "ABAB" + "ABABAB"
    assert len(pairs.ours) == len(pairs.theirs) == 3


def test_peak_memory_of_a_known_allocation() -> None:
    # 64 MiB, touched; in a process of its own, which has no freed memory to take them from
    program = "import json, torch, children; print(json.dumps(children.peak_of(lambda: torch.ones(2**24))))"
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert 63 < found["above"] / 2**20 < 66  # the kernel counts pages in lots
    assert found["whole"] > found["above"]


def test_operators_of_a_known_pass() -> None:
    """The transposed view, the copy of 1 to a tensor inside the sum and what autograd wraps around do not count."""
    a = torch.randn(4, 4, requires_grad=True)

    def run() -> None:
        for _ in range(5):
            (a.T.contiguous() @ a + 1).relu()

    counts, allocations = children.profiled(run)
    assert counts == {"clone": 5, "mm": 5, "add": 5, "clamp_min": 5}
    assert allocations >= 5


def test_mnist_as_files(tmp_path: Path) -> None:
    loading.write_mnist(tmp_path, train=12, test=2)
    data = PixelMNIST(root=str(tmp_path), verify=False)
    images, labels = data.images("train")
    assert images.shape == (55_000, 784, 1)
    assert labels.bincount().min() > 5_000


@pytest.fixture
def _garbage_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for it before each pass takes most of the time of tests that do not compare times."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.mark.usefixtures("_garbage_stays")
def test_a_run_keeps_its_raw_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    assert speed.main(["recurrence/170", "--tiny", "--rounds", "3", "--threads", "1", "--json", str(kept)]) == 0
    rows = {row["name"]: row for row in json.loads(kept.read_text())["rows"]}
    assert list(rows) == ["recurrence/170/loop", "recurrence/170/torch", "recurrence/170/products"]
    for row in rows.values():
        assert len(row["ours"]) == len(row["theirs"]) == 3
    assert "modReLU RNN" in capsys.readouterr().out


@pytest.mark.usefixtures("_garbage_stays")
def test_rows_of_other_kinds_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small: of one thread, of documents, of loading, and of processes, one of which is longer than the other."""
    start = starting.Start("little", ("-c", "pass"), "sum(range(3 * 10**7))", 1.0)
    monkeypatch.setattr(starting, "STARTS", {"little": start})
    kept, rows = tmp_path / "kept.json", ["one_thread/GRU/82", "documents/LSTM", "loading/rows", "start/little"]
    assert speed.main([*rows, "--tiny", "--rounds", "1", "--json", str(kept)]) == 0
    found = {row["name"]: row for row in json.loads(kept.read_text())["rows"]}
    assert list(found) == ["documents/LSTM", "one_thread/GRU/82/12", "loading/rows", "start/little"]
    assert all(len(row["ours"]) == len(row["theirs"]) == 1 for row in found.values())
    assert found["start/little"]["ours"] < found["start/little"]["theirs"]


@pytest.mark.parametrize("given", [["exprn"], ["--rounds", "0"], ["--threads", "0"], ["--write-readme", "nowhere"]])
def test_bad_input_is_a_sentence(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith("speed: ") and said.count("\n") == 1 and given[-1] in said


@pytest.mark.parametrize(
    ("script", "given"),
    [
        ("gpu", ["folder", "--rounds", "0"]),
        ("gpu", ["folder", "--device", "tpu"]),
        ("gpu_check", ["--workers", "0"]),
        ("gpu_check", []),  # without a GPU
        ("gpu_hazards", []),  # without a GPU
        ("gpu_models", ["--device", "cuda:1"]),
        ("maps", ["cost", "--sizes", "0"]),
        ("pseudospectra", ["grid", "--points", "1"]),
        ("registers", ["--kinds", "step"]),
        ("resume", ["--pairs", "0"]),
        ("roofline", ["--rows", "nru", "--write-readme"]),
        ("soak", ["--minutes", "0"]),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_every_script_refuses_what_it_cannot_do(
    script: str, given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it measures, with status 2, by argparse's sentence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as left:
        (module.parsed if script == "pseudospectra" else module.main)(given)
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and ": error: " in said[-1] and said[0].startswith("usage: ")


def test_only_results_of_its_own_go_into_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text("{")
    of_a_gpu, of_a_cpu = (str(next((BENCHMARKS / "results").glob(some))) for some in ("gpu-*.json", "2*.json"))
    for main, given, why in (
        (speed.main, str(tmp_path / "broken.json"), "damaged"),
        (speed.main, of_a_gpu, "a run of this script"),
        (gpu.main, of_a_cpu, "a run of this script"),
    ):
        assert main(["--write-readme", given]) == 2
        said = capsys.readouterr().err
        assert why in said and given in said and said.count("\n") == 1


def test_the_first_call_on_a_gpu_comes_before_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would compile and record what the first call is there to show."""
    work = gpu.WORKS["exprnn170"]._replace(build=lambda width: ExpRNNCell(width, 6))
    passes: list[str] = []
    begin, found = gpu.Contender.begin, gpu.Contender.found
    monkeypatch.setattr(gpu.Contender, "begin", lambda one: (passes.append(f"{one.who}, first"), begin(one))[1])
    monkeypatch.setattr(gpu.Contender, "found", lambda one, x: (passes.append(f"{one.who}, check"), found(one, x))[1])
    ready, _ = gpu.prepared(work, torch.device("cpu"), ["fused"], time.monotonic() + 60, tiny=True)
    exact, *others = passes
    assert exact == "loop, check" and others == [
        *(f"{who}, {what}" for who in ("loop", "fused") for what in ("first", "check")),
        "cudnn, first",
    ]
    assert all(one.first > 0 for one in ready) and ready[1].error is not None and ready[1].error < 1e-5


def test_the_fastest_backend_that_users_get_has_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    work = gpu.WORKS["exprnn170"]
    times = {"loop": 9.0, "fused": 3.0, "triton": 2.0, "streamed": 4.0, gpu.TF32: 1.0, gpu.CUDNN: 2.5}
    ready = [gpu.Contender(work, ExpRNNCell(1, 2), who, work.size) for who in times]
    for one in ready:
        one.error = 1e-6
        monkeypatch.setattr(one, "seconds", lambda seconds=times[one.who]: seconds)
    rows = gpu.entries("exprnn170", work, ready, {}, rounds=2)
    barred = {row["name"]: row["bar"]["value"] for row in rows if row["bar"]["value"] is not None}
    assert barred == {"gpu/exprnn170/triton/loop": 30, "gpu/exprnn170/triton/cudnn": 1} and len(rows) == 8


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.99949, "s", "999 ms"),
        (0.9996, "s", "1.00 s"),
        (1.5e-5, "s", "0.015 ms"),
        (1234.0, "ops", "1,234 ops"),
        (5.25, "ops", "5.25 ops"),
        (1234.4, "MiB", "1,234 MiB"),
    ],
)
def test_numbers_are_shown_without_exponents(value: float, unit: str, shown: str) -> None:
    assert tables.show(value, unit) == shown


def test_the_grid_is_checked_at_all_of_its_points_where_they_are_few() -> None:
    assert pseudospectra.grid(3, 4, 1).row_count == 7


def test_a_skipped_row_says_why() -> None:
    row = Row("long/auto/time", "ExpRNN", "without recomputation", Bar("share", 1.4), lambda rounds, tick: Pairs())
    assert tables.line(tables.record(row, None, "no such keyword.")) == "long/auto/time: skipped: no such keyword."


def test_readme_shows_the_kept_numbers() -> None:
    readme = (BENCHMARKS / "README.md").read_text()
    runs = [BENCHMARKS / name for name in re.findall(r"^- `(results/\S+\.json)`", readme, re.MULTILINE)]
    on_a_gpu = [run for run in runs if run.name.startswith("gpu-")]
    assert tables.filled(readme, [run for run in runs if run not in on_a_gpu]) == readme
    if on_a_gpu:
        assert tables.filled(readme, on_a_gpu, tables.ON_A_GPU) == readme


def test_readme_names_what_was_not_measured(tmp_path: Path) -> None:
    run = json.loads(next((BENCHMARKS / "results").glob("2026*.json")).read_text())
    (tmp_path / "kept.json").write_text(json.dumps({**run, "rows": []}))
    text = tables.filled("<!-- measured: start -->\n<!-- measured: end -->", [tmp_path / "kept.json"])
    assert f"\nNot measured yet: `python benchmarks/speed.py {' '.join(tables.GROUPS)}`.\n" in text


def test_every_backend_that_can_is_a_row_of_the_gpus_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU and cut small: beside the loop all, beside cuDNN plain cells, and one that fails says why."""
    monkeypatch.setattr(gpu, "PASSES", 1)
    work = gpu.WORKS["exprnn170"]._replace(build=lambda width: ExpRNNCell(width, 6))
    run = gpu.Contender.run

    def fail(contender: gpu.Contender, *given: torch.Tensor) -> torch.Tensor:
        if contender.who == "parallel":
            raise RuntimeError("no such kernel")
        return run(contender, *given)

    monkeypatch.setattr(gpu.Contender, "run", fail)
    monkeypatch.setattr(gpu, "able", lambda *_: ["loop", "fused", "parallel"])
    monkeypatch.setattr(gpu.Contender, "found", lambda self, x: [torch.ones(1)])
    ready, failed = gpu.prepared(work, torch.device("cpu"), ["fused"], time.monotonic() + 60, tiny=True)
    rows = gpu.entries("exprnn170", work, ready, failed, rounds=2)
    assert [row["name"].removeprefix("gpu/exprnn170/") for row in rows] == ["fused/loop", "fused/cudnn", "parallel"]
    assert [row["bar"]["value"] for row in rows] == [30, 1, None] and len(rows[0]["ours"]) == 2
    assert rows[2]["skipped"] == "RuntimeError: no such kernel"
    table = tables.markdown(rows, tables.ON_A_GPU)
    assert "| exprnn170/fused/cudnn | ExpRNN n = 170, T = 784, B = 128 | torch.nn.RNN(relu), cuDNN | fused |" in table


def test_a_work_that_ends_or_hangs_is_a_row_that_says_so(tmp_path: Path) -> None:
    said = (
        f"print('noise'); print({gpu.MARK!r} + '{{\"ready\": true}}', flush=True); input(); raise SystemExit('broken')"
    )
    process = gpu.Process("nru", [sys.executable, "-c", said], tmp_path / "log")
    assert process.told(20) == {"ready": True}
    with pytest.raises(SkipError, match="longer than 0 s"):
        process.told(0)
    process.go()
    with pytest.raises(SkipError, match="ended with status 1: broken"):
        process.told(20)
    process.end()
    with pytest.raises(TimeoutError), gpu.limited(0.02):
        time.sleep(5)


def test_a_check_that_fails_at_length_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of two workers waits for the second, which has more to say than a pipe takes."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys, time; from pathlib import Path\n"
        f"(what, n, which), done = json.loads(sys.argv[2]), Path({str(tmp_path / 'done')!r})\n"
        "if n == 2:\n    sys.stderr.write('Traceback ' + 10**6 * 'x')\n    done.touch()\n"
        "while not done.exists():\n    time.sleep(0.01)\n"
        "print(json.dumps([what, n, which, 1, 1, True, 1e-7]), flush=True)\n"
    )
    monkeypatch.setattr(gpu_check, "__file__", str(worker))
    monkeypatch.setattr(gpu_check, "units", lambda: [("check", 1, "relu"), ("check", 2, "relu")])
    assert not gpu_check.check(workers=2, seconds=60)  # two units of eight cases
    said = capsys.readouterr().out
    assert "2 of 16 cases" in said and "did not end in time" not in said


def test_what_never_ran_on_a_gpu_is_timed_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call, cuDNN's also with TF32; one that fails says why, and one that hangs ends."""
    monkeypatch.setattr(gpu_check, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_check, "LONG", {5: 3, 6: 3})
    monkeypatch.setattr(gpu_check, "milliseconds", lambda call, rounds: (call(), 1.0)[1])
    try:
        gpu_check.timed(60)
    finally:
        torch.backends.cudnn.allow_tf32 = True
    said = capsys.readouterr().out.splitlines()[1:]
    assert len(said) == 2 * 12 and sum("1.000" in line for line in said) == 2 * (3 + 1 + 1 + 1)
    assert ["streamed" in line[:50] for line in said] == [False] * (2 * 9) + [True] * (2 * 3)
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=subprocess.TimeoutExpired("", 1)))
    gpu_check.timed_apart(1)
    assert "hung" in capsys.readouterr().out


def test_what_a_step_must_cost() -> None:
    """JANET, n units, one input: the drive (n -> 2n) forward and dV, the state's product forward, dh and dW."""
    n, B = 5, 3
    work = gpu.Work("JANET", lambda width: cells.JANETCell(width, n), Size(9, B, 1, "all"), None)
    launches, moved, flops = roofline.of_the_loop(work)
    assert flops == 2 * (2 * B * 2 * n) + 3 * (2 * B * n * 2 * n)
    assert roofline.least_bytes(work) == 4 * B * (4 * 2 * n + 3 * n) < moved
    with roofline.Counted() as counted:
        a = torch.ones(2, 3)
        (a.T @ a).relu().view(9)
    assert (counted.launches, counted.bytes) == (3, 4 * (6 + 6 + 6 + 9 + 9 + 9)) and launches > 9


def test_random_images_as_files(tmp_path: Path) -> None:
    gpu.write_images(tmp_path, 6_000)
    images, labels = PixelMNIST(root=str(tmp_path), verify=False, val_size=1_000).images("train")
    assert images.shape == (5_000, 784, 1) and labels.max() == 9 and 0.4 < images.double().mean() / 255 < 0.6


def test_both_loaders_give_the_same_images(tmp_path: Path) -> None:
    loading.write_mnist(tmp_path)
    for kind in loading.KINDS.values():
        data = PixelMNIST(str(tmp_path), val_size=1, verify=False, **kind.options)
        own = data.split("test")[np.arange(30)][0]
        theirs = loading.datasets.MNIST(tmp_path, train=False, transform=loading.transforms.ToTensor())
        steps = 28 if kind.options else 784
        for index in (0, 7, 29):
            assert torch.equal(own[index][:steps], kind.shape(theirs[index][0])[:steps])


def test_models_are_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A right one, one that is off by a thousandth in its own backend, and one that cannot be built."""
    assert gpu_models.main(["--device", "cpu", "LRU"]) == 0
    assert "| none | " in (out := capsys.readouterr().out) and "bit for bit" in out and "1 of 1 are right" in out
    monkeypatch.setattr(gpu_models, "check_resume", lambda *_: (["-"], []))
    right = gpu_models.gradients

    def wrong(model, batch):
        loss, found = right(model, batch)
        return loss, {name: grad * (1 + 1e-3 * (model.options.backend != "loop")) for name, grad in found.items()}

    monkeypatch.setattr(gpu_models, "gradients", wrong)
    monkeypatch.setattr(gpu_models, "cases", lambda: [gpu_models.Case("ExpRNN"), gpu_models.Case("LSTM", {"no": 1})])
    assert gpu_models.main(["--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"a gradient is off by \S+, \S+ may be", out) and "unexpected keyword" in out
    assert "0 of 2 are right" in out


def test_the_moments_of_a_start_are_those_of_the_last_process(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    assert resume.begun(marks) is None
    marks.write_text("imported 1.5 1.0\n1 2.0 1.25\n2 2.5 1.5\nimported 9.25 2.5\n")
    assert resume.begun(marks) is None, "the second has made no step yet"
    with marks.open("a") as file:
        file.write("31 11.0 4.0\n32 11.5")  # being written
    begun = resume.begun(marks)
    assert begun == (9.25, 2.5, 11.0, 4.0, 31) and begun.since(8.0) == (3.0, 4.0, 1.25, 2.5)
    pairs = [resume.Pair(resume.Took(9.0, 5.0, 8.0, 4.5), resume.Took(n, 4.0, 4.5, 3.5), 5) for n in (6.0, 5.5, 9.0)]
    assert "| from the kill to the next step | 6.00 | 5.50 to 9.00 | 4.00 |" in resume.table(pairs)


@pytest.mark.parametrize("case", ["recomputed", "garbage", "hook", "attack"])
def test_a_hazard_is_told_from_the_loop(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, under a stand-in for CUDA graphs; a case that finds other numbers is wrong."""
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)
    monkeypatch.setattr(Rerun, "made", [])
    monkeypatch.setattr(gpu_hazards, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_hazards, "still_works", lambda: None)
    given = torch.randn(120, 2, 1)  # more than are recorded at once
    monkeypatch.setattr(gpu_hazards, "inputs", lambda: given)
    thresholds = gc.get_threshold()
    try:
        gpu_hazards.CASES[case]()
    finally:
        gc.set_threshold(*thresholds)
        torch.backends.fp32_precision = "none"
    if case in ("recomputed", "hook"):
        monkeypatch.setattr(gpu_hazards, "ROUNDING", -1.0)
        with pytest.raises(AssertionError):
            gpu_hazards.CASES[case]()
