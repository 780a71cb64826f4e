"""What ``auto`` takes on a GPU: every backend that can run the cell, measured once for each shape and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from datamodules.errors import UserError
from lit_rnn.cells.base import Cell
from lit_rnn.dtypes import dtype_name, rounds_as_ieee
from lit_rnn.files import WriteError, in_whole, make_folder, read_json, write_json
from lit_rnn.scan.cache import cache_folder

log = logging.getLogger(__name__)

Times = Mapping[str, float | None]  # milliseconds of a pass by backend; None where it failed in this process

MEASURE_FROM = 20_000  # time steps to come from which measuring pays: it takes about as long as the loop for 3,000
_ENOUGH = 0.5  # seconds of passes of one backend

NAMES: dict[str, Callable[[torch.device], str]] = {"cuda": torch.cuda.get_device_name}
"""Of the devices on which backends are measured."""


def measures(device: torch.device) -> bool:
    """Whether ``auto`` measures on this device, and it is there."""
    return device.type in NAMES and (device.type != "cuda" or torch.cuda.is_available())


class Shape(NamedTuple):
    """What a measurement is of.

    Args:
        cell: Whose passes.
        steps: T.
        batch: B.
        learns: With the backward.
    """

    cell: Cell
    steps: int
    batch: int
    learns: bool

    @property
    def device(self) -> torch.device:
        return next(self.cell.parameters()).device

    @property
    def key(self) -> str:
        """Such as ``JANETCell 3f2a91c4, n = 283, T = 784, B = 100, float32, forward and backward``.

        What a cell is beside its hidden size is in the eight characters: its class, options and parameters' shapes.
        """
        cell, like = self.cell, next(self.cell.parameters())
        shapes = [tuple(parameter.shape) for parameter in cell.parameters()]
        whole = type(cell).__module__, type(cell).__qualname__, cell.extra_repr(), str(cell), shapes
        digest = hashlib.sha256(repr(whole).encode()).hexdigest()[:8]
        mixed = torch.is_autocast_enabled(like.device.type)
        dtype = torch.get_autocast_dtype(like.device.type) if mixed else like.dtype
        tf32 = "" if rounds_as_ieee() else " with TF32"
        precision = f"{dtype_name(dtype)}{' autocast' if mixed else ''}{tf32}"
        way = "forward and backward" if self.learns else "forward"
        name = f"{type(cell).__qualname__} {digest}"
        return f"{name}, n = {cell.hidden_size}, T = {self.steps}, B = {self.batch}, {precision}, {way}"


_first: dict[tuple[torch.device, str], int] = {}


def representative(shape: Shape) -> Shape:
    """The first shape of this process that has as many binary digits in T, and all else alike.

    It is measured for the others too: batches of sequences of unequal lengths have another T each time.
    """
    T = shape.steps
    key = shape.device, shape._replace(steps=1 << T.bit_length()).key
    return shape._replace(steps=_first.setdefault(key, T))


def file_of(device: torch.device) -> Path:
    """Where the measurements on such a device, with this torch and this lit_rnn, are kept."""
    name = f"{NAMES[device.type](device)} torch {torch.__version__} lit_rnn {_code()}"
    return cache_folder() / f"autotune-{re.sub(r'[^A-Za-z0-9._]+', '-', name)}.json"


@functools.cache
def _code() -> str:
    """What tells the code of cells and backends from that of yesterday: the version number does not change as often."""
    package = Path(__file__).parents[1]
    texts = [path.read_bytes() for name in ("cells", "scan") for path in sorted((package / name).glob("*.*"))]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:8]


def files() -> list[Path]:
    """Those of all devices with this lit_rnn."""
    return sorted(cache_folder().glob(f"autotune-*-{_code()}.json"))


def forget() -> None:
    """Remove all measurements, those with other versions of lit_rnn too."""
    for path in cache_folder().glob("autotune-*.json"):
        path.unlink()


def read(path: Path) -> dict[str, dict[str, float]]:
    """The times that a file holds, by `Shape.key`.

    Raises:
        UserError: if it is damaged.
    """
    measured = read_json(path, ["measured"])["measured"]
    with in_whole(path):
        found = {
            str(key): {str(name): float(ms) for name, ms in times.items() if ms is not None}  # files of before: failed
            for key, times in measured.items()
        }
    return found


_known: dict[Path, dict[str, dict[str, float]]] = {}
_failed: dict[tuple[Path, str], set[str]] = {}  # what failed may run the next time: not on disk


def _kept(path: Path) -> dict[str, dict[str, float]]:
    """What is kept, read again whenever something is missing: another process may have measured it."""
    if not path.exists():
        return {}
    try:
        return read(path)
    except UserError as error:
        log.warning("%s Backends are measured again.", error)
        return {}


def times_of(shape: Shape, names: Sequence[str]) -> Times:
    """What is known of these backends."""
    path, key = file_of(shape.device), shape.key
    failed = dict.fromkeys(_failed.get((path, key), ()))
    if not set(names) <= {*_known.get(path, {}).get(key, {}), *failed}:
        _known[path] = _kept(path)
    known = {**failed, **_known.get(path, {}).get(key, {})}
    return {name: known[name] for name in names if name in known}


def fastest(times: Times) -> str | None:
    """The backend of the least time."""
    ran = {name: ms for name, ms in times.items() if ms is not None}
    return min(ran, key=lambda name: ran[name], default=None)


def remembered(shape: Shape, names: Sequence[str]) -> str | None:
    """The fastest of ``names``, None unless all have been measured."""
    times = times_of(shape, names)
    return fastest(times) if len(times) == len(names) else None


def measured(shape: Shape, names: Sequence[str], a_pass: Callable[[str], Callable[[], object]]) -> str | None:
    """The fastest of ``names``, those measured that have not been: by passes that ``a_pass`` makes for each."""
    times = dict(times_of(shape, names))
    if missing := [name for name in names if name not in times]:
        new = {name: _tried(a_pass(name), name, shape.device) for name in missing}
        times |= new
        _keep(shape, new)
        log.info("%s: %s (ms): %s is taken", shape.key, listed(times), fastest(times) or "none")
    return fastest(times)


def listed(times: Times) -> str:
    """Such as ``graphed 31.2, loop 504, compiled failed``, in milliseconds."""
    order = sorted(times.items(), key=lambda item: (item[1] is None, item[1]))
    return ", ".join(f"{name} failed" if ms is None else f"{name} {ms:.3g}" for name, ms in order)


def _tried(run: Callable[[], object], name: str, device: torch.device) -> float | None:
    try:
        return round(1e3 * seconds(run, device), 4)
    except Exception as error:  # whatever a backend meets on this device, another runs
        log.warning("backend %s cannot be measured: %s: %s", name, type(error).__name__, error)
        return None


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median time of some passes, behind one that compiles and records."""
    run()
    found: list[float] = []
    while len(found) < 5 and sum(found) < _ENOUGH:
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _keep(shape: Shape, times: Times) -> None:
    """Beside what other processes have kept meanwhile; a backend that failed for this process alone."""
    path, key = file_of(shape.device), shape.key
    _failed.setdefault((path, key), set()).update(name for name, ms in times.items() if ms is None)
    found = {name: ms for name, ms in times.items() if ms is not None}
    if not found:
        return
    kept = _kept(path)
    kept[key] = {**kept.get(key, {}), **found}
    _known[path] = kept
    try:
        make_folder(path.parent, "XDG_CACHE_HOME")
        write_json(
            path, {"device": NAMES[shape.device.type](shape.device), "torch": torch.__version__, "measured": kept}
        )
    except (UserError, WriteError) as error:
        log.warning("what was measured is not kept: %s", error)
