"""Every test: one torch thread, a fixed seed, no network, no leftovers in the source tree, nothing that needs C++."""

from __future__ import annotations

import functools
import gc
import logging
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from lightning_fabric.utilities import registry

from datamodules import UserError
from lit_rnn.report import style
from lit_rnn.scan.compiler import find_compiler, torch_compiles
from lit_rnn.scan.native import library
from lit_rnn.threads import use_threads
from tests import pictures
from tests.logs import Logs

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
use_threads(1)
if torch.cuda.device_count() == 0:
    torch.cuda._cached_device_count = 0  # else torch asks for a driver at every step of an optimizer and of an export


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.default_generator.manual_seed(1)  # `torch.manual_seed` keeps a traceback for each absent accelerator
    yield


@pytest.fixture(scope="session", autouse=True)
def _written_without_waiting() -> Iterator[None]:
    """No test cuts the power: nothing waits for the disk, which a run asks for thirty times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)  # a closed one is refused still
        yield


@pytest.fixture(scope="session", autouse=True)
def _installed_packages_read_once() -> Iterator[None]:
    """Every Trainer reads what each of 200 installed packages adds to it: an eighth of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def _pictures_without_pixels() -> Iterator[None]:
    """All that is drawn is drawn, but laid out and written only where a test looks at it: it is most of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", pictures.save_a_dot)
        yield


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Logs:
    """What this test logs."""
    made = Logs()
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, made])
    return made


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of this test are whole."""
    pictures.render(monkeypatch)


# now: tests hide compilers
CANNOT_COMPILE = [
    backend
    for backend, is_able in (("native", find_compiler() is not None), ("compiled", torch_compiles()))
    if not is_able
]


# Tests that fork this process come first: behind torch.compile and torch.export, a fork has to start Python anew.
FORKING = (
    "tests/lit_rnn/runs/",
    "tests/test_golden.py",
    "tests/lit_rnn/commands/test_fuzz.py",
    "tests/lit_rnn/commands/study/test_estimate.py",
    "tests/lit_rnn/commands/study/test_runs.py",
    "tests/lit_rnn/commands/test_no_memory.py",
    "tests/lit_rnn/loggers/test_wandb.py",
    "tests/lit_rnn/models/test_objectives.py",
    "tests/lit_rnn/robustness/test_training.py",
    "tests/lit_rnn/security/test_names_and_links.py",
)
# Files with tests of ten seconds come where the second of two workers begins, so that none is left with one at the end.
LONG = (
    "tests/test_install.py",
    "tests/test_cluster.py",
    "tests/docs/test_notebooks.py",
    "tests/docs/test_site.py",
    "tests/lit_rnn/export/test_programs.py",
    "tests/lit_rnn/scan/test_gpu.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    forking, long, others = [], [], []
    for item in items:
        kind = forking if item.nodeid.startswith(FORKING) else long if item.nodeid.startswith(LONG) else others
        kind.append(item)
    half = max(0, len(items) // 2 - len(forking))
    items[:] = [*forking, *others[:half], *long, *others[half:]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What this makes stays: to look for garbage in it was a third of the time, and would go on at every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_configure() -> None:
    if "native" in CANNOT_COMPILE:
        library("plain")  # says so, once on this machine: not in what a test reads


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """A test that meets a backend that this machine cannot compile, or what this torch cannot export, is skipped."""
    try:
        return (yield)
    except (UserError, AssertionError) as error:  # AssertionError: another UserError was expected
        if "C++ compiler" in str(error) and CANNOT_COMPILE:
            pytest.skip("no C++ compiler for this backend")
        if "torch 2.12" in str(error) and torch.__version__ < "2.12":
            pytest.skip("this torch is too old for programs of lit_rnn.export")
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CANNOT_COMPILE:
        backends = " and ".join(CANNOT_COMPILE)
        terminalreporter.write_line(f"No C++ compiler here for backend {backends}: tests of it are skipped.")
