"""What is imported for what: a command that only prints its options needs no torch, a cell no Lightning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import datamodules
from lit_rnn import robustness
from lit_rnn.commands.analyze import measure, settings
from lit_rnn.robustness.effort import NAMES

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "pytorch_lightning", "matplotlib", "scipy", "sklearn", "torchvision", "torchmetrics")
ABOVE = ("pytorch_lightning", "lightning_fabric", "matplotlib", "sklearn", "torchvision", "torchmetrics", "rich")


def loaded(*code: str, among: Sequence[str]) -> set[str]:
    """Which of some packages a fresh Python has imported after some code."""
    told = f"import sys\nprint('LOADED', *({{*{tuple(among)!r}}} & set(sys.modules)))"
    quick = "import gc\ngc.disable()"
    line = [sys.executable, "-c", "\n".join([quick, *code, told])]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("command", ["compare", "study", "analyze", "attack"])
def test_help_needs_no_torch(command: str) -> None:
    code = ("from lit_rnn.__main__ import main", "try:", f" main(['{command}', '--help'])", "except SystemExit: pass")
    assert loaded(*code, among=HEAVY) == set()


def test_help_and_misspelt_commands_need_nothing() -> None:
    code = ("from lit_rnn.__main__ import main", "main([])", "main(['fti'])", "main(['--version'])")
    assert loaded(*code, among=HEAVY) == set()


def test_the_library_needs_neither_lightning_nor_pictures() -> None:
    packages = ("cells", "analysis", "scan", "robustness", "init", "parametrizations", "optim", "activations")
    code = [f"import lit_rnn.{name}" for name in packages]
    code += ["import lit_rnn.robustness.attacks, lit_rnn.robustness.certified, lit_rnn.robustness.worst"]
    above = ("lit_rnn.export", *ABOVE)
    assert loaded(*code, "lit_rnn.robustness.pgd", among=("torch", *above)) == {"torch"}


def test_errors_and_tasks_need_no_torch() -> None:
    assert loaded("from datamodules import Task, UserError", among=HEAVY) == set()


@pytest.mark.parametrize("package", [datamodules, robustness], ids=lambda package: package.__name__)
def test_names_that_come_on_demand(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert all(getattr(package, name) is not None for name in names) and set(names) <= set(vars(package))
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}  # type: ignore[attr-defined]
    assert not modules & set(names), "a module, once imported, would stand for the name"
    with pytest.raises(AttributeError, match="has no attribute 'Adition'"):
        package.Adition  # type: ignore[attr-defined]  # noqa: B018
    first = f"from {package.__name__} import {sorted(names)[0]}"  # type: ignore[attr-defined]
    assert loaded(first, among=[package.__name__, "torch"]) == {package.__name__, "torch"}  # type: ignore[attr-defined]


def test_lightning_is_quiet_and_a_study_knows_short_names_of_every_kind() -> None:
    """In a process of its own: here, other tests have imported everything; Lightning sets its levels when it is."""
    names = ("GRU", "PixelDigits", "WatchMatrices", "RMSpropTF")
    options = ["--model", names[0], "--data", names[1], "--trainer.callbacks+", names[2], "--trainer.max_epochs", "1"]
    options += ["--model.init_args.hidden_size", "4", "--model.init_args.optimizer", names[3]]
    code = "from lit_rnn.commands.quiet import quiet_lightning\nquiet_lightning()\nimport logging, pytorch_lightning\n"
    code += "logging.getLogger('pytorch_lightning.utilities.rank_zero').info('GPU available')\n"
    code += f"from lit_rnn.commands.config_parser import resolve\nprint(resolve({options}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "GPU available" not in done.stdout + done.stderr
    assert all(f".{name}'" in done.stdout for name in names)


def test_matplotlib_is_quiet_where_it_cannot_write_at_home() -> None:
    """It wrote two lines of its own under every command, of a folder that no user of one knows."""
    code = "import contextlib\nfrom lit_rnn.__main__ import main\nwith contextlib.suppress(SystemExit):\n"
    code += "    main(['compare', '--help'])\nimport matplotlib\nprint(matplotlib.get_configdir())"
    home = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    home["HOME"] = os.devnull
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=home)
    assert "matplotlib-" in done.stdout and not done.stderr


def test_what_help_lists_is_what_there_is() -> None:
    assert tuple(robustness.ATTACKS) == NAMES
    assert set(measure.MATRIX_PARTS) == set(settings.MATRIX_PARTS)
