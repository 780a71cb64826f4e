"""Numbers that a change of structure must not move: a cut quickstart, `analyze` of a kept checkpoint, `attack` of it.

Equal to nine digits where the figures were recorded (same torch, same vector instructions), of which the libraries of
linear algebra change the last ones by the maker of the processor; elsewhere roughly.
After a change that is meant to move them: ``python -m tests.test_golden``, and say in the commit why.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import forked

GOLDEN = Path(__file__).with_name("golden")
CHECKPOINT = GOLDEN / "checkpoint.ckpt"
QUICKSTART = "--config configs/quickstart.yaml --model.init_args.backend loop --trainer.max_epochs 2 "
QUICKSTART += "--data.init_args.train_samples 640 --data.init_args.val_samples 64 --trainer.log_every_n_steps 1"
ANALYZE = f"--ckpt_path {CHECKPOINT} --data PixelDigits --data.init_args.pixels_per_step 8 --steps 20 --points 20"
ATTACK = f"--ckpt_path {CHECKPOINT} --data PixelDigits --data.init_args.pixels_per_step 8 --data.init_args.seed 1 "
ATTACK += "--samples 20 --steps 5 --restarts 1 --queries 10 --draws 2 --eps 0.05 0.1 --smoothing_samples 2"
VOLATILE = {"seconds", "versions", "checkpoint", "path", "date", "machine", "ckpt_path", "python"}


def call(command: str, options: str, folder: Path) -> None:
    done = forked(folder, command, *options.split(), "--threads", "1")
    assert done.returncode == 0, done.stderr


def quickstart(folder: Path) -> list[dict[str, str]]:
    call("fit", f"{QUICKSTART} --run_dir run", folder)
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def analyze(folder: Path) -> Any:
    call("analyze", f"{ANALYZE} --out analysis", folder)
    return steady(json.loads((folder / "analysis" / "analysis.json").read_text()))


def attack(folder: Path) -> Any:
    call("attack", f"{ATTACK} --out attack", folder)
    return steady(json.loads((folder / "attack" / "attack.json").read_text()))


PARTS = {"metrics": quickstart, "analysis": analyze, "attack": attack}


def steady(value: Any) -> Any:
    """The same without what depends on the day or the place."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word with where it stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
    for key, item in items or ():
        yield from leaves(item, f"{path}/{key}")


def here() -> dict[str, str]:
    """What all but the last digits depend on."""
    import torch

    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}


@pytest.mark.parametrize("name", PARTS)
def test_numbers_have_not_moved(name: str, tmp_path: Path) -> None:
    golden = dict(leaves(json.loads((GOLDEN / f"{name}.json").read_text())))
    found = dict(leaves(PARTS[name](tmp_path)))
    assert found.keys() == golden.keys()
    recorded_here = here() == json.loads((GOLDEN / "machine.json").read_text())
    relative, absolute = (1e-9, 1e-12) if recorded_here else (0.05, 0.05)
    for path, value in golden.items():
        assert _close(value, found[path], relative, absolute), f"{path}: {found[path]} instead of {value}"


def _close(golden: Any, found: Any, relative: float, absolute: float) -> bool:
    try:
        return math.isclose(float(golden), float(found), rel_tol=relative, abs_tol=absolute)
    except (TypeError, ValueError):
        return golden == found


def record() -> None:
    """Write the golden files anew from this machine."""
    for name, part in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / f"{name}.json").write_text(json.dumps(part(Path(folder)), indent=0) + "\n")
    (GOLDEN / "machine.json").write_text(json.dumps(here()) + "\n")


if __name__ == "__main__":
    record()
