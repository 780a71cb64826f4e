"""The scripts that complete the command line in bash and zsh."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lit_rnn.__main__ import COMMANDS, main
from lit_rnn.commands.completion import lightning_options
from lit_rnn.commands.sentences import BASES, known_names
from lit_rnn.optim.schedule import NOT_PLAIN

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


def write(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    capsys.readouterr()
    assert main(["--completion", shell]) == 0
    path = folder / f"complete.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # of a process of its own: other tests of this one define models and data, which would be offered too
    line = [sys.executable, "-m", "lit_rnn", "--completion", "bash"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    path = tmp_path_factory.mktemp("bash") / "complete.bash"
    path.write_text(printed)
    return path


def completed(script: Path, line: str, folder: Path) -> list[str]:
    """What bash offers for the last word of a line."""
    code = (
        f"source {script}\nset -f\nCOMP_WORDS=($1)\n[[ $1 == *' ' ]] && COMP_WORDS+=('')\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_shtab_lit_rnn\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", code, "-", line], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.split()


@needs_bash
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lit_rnn ", set(COMMANDS)),
        ("lit_rnn pre", {"predict"}),
        ("lit_rnn fit --trainer.max_", {"--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time"}),
        ("lit_rnn fit --run", {"--run_dir"}),
        ("lit_rnn fit --model Ex", {"ExpRNN"}),
        ("lit_rnn test --data Pixel", {"PixelCIFAR10", "PixelDigits", "PixelMNIST"}),
        ("lit_rnn fit --model.init_args.map ", {"exp", "cayley"}),
        ("lit_rnn fit --model.init_args.optimizer RMS", {"RMSprop", "RMSpropTF"}),
        ("lit_rnn fit --trainer.deterministic t", {"true"}),
        ("lit_rnn predict --prob", {"--probabilities"}),
        ("lit_rnn fit --config mi", {"mine.yaml"}),
        ("lit_rnn study --export ", {"wandb", "slurm"}),
        ("lit_rnn analyze --run_dir my", {"mylar"}),
        ("lit_rnn attack --data Co", {"CopyMemory"}),
        ("lit_rnn compare --pic", {"--picture"}),
        ("lit_rnn compare my", {"mylar"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_in_bash(script: Path, tmp_path: Path, line: str, offered: set[str]) -> None:
    (tmp_path / "mylar").mkdir()
    (tmp_path / "mine.yaml").touch()
    found = set(completed(script, line, tmp_path))
    assert (offered <= found) if line.endswith("map ") else (found == offered)


def test_options_are_those_that_the_classes_take() -> None:
    offered = set(lightning_options("fit")._option_string_actions)
    for top, base in BASES.items():
        loaded = {cls.__name__: cls for cls in _all_below(base)}
        shipped = [loaded[name] for name in known_names(base) if loaded[name].__module__.startswith(("lit_", "datam"))]
        taken = {key for cls in shipped for key in ArgumentParser().add_class_arguments(cls, skip={"task"})}
        known = {option.rpartition(".")[2] for option in offered if option.startswith(f"--{top}.init_args.")}
        assert known - {"class_path", "lr"} == taken - {"lr"}


def _all_below(base: type) -> set[type]:
    return {base}.union(*(_all_below(cls) for cls in base.__subclasses__()))


def test_names_are_those_that_can_be_used() -> None:
    actions = lightning_options("fit")._option_string_actions
    assert not {*NOT_PLAIN, "SparseAdam"} & {
        *(actions["--model.init_args.lr_scheduler"].choices or ()),
        *(actions["--model.init_args.optimizer"].choices or ()),
    }


def test_in_zsh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("zsh", tmp_path, capsys)
    text = path.read_text()
    assert text.startswith("#compdef lit_rnn")
    assert all(word in text for word in (*COMMANDS, "--trainer.max_epochs", "--model.init_args.hidden_size", "ExpRNN"))
    if not shutil.which("zsh"):
        pytest.skip("there is no zsh to read the script")
    subprocess.run(["zsh", "-n", str(path)], check=True)


@pytest.mark.parametrize(("given", "shown"), [([], "not given"), (["fish"], "fish"), (["bash", "zsh"], "bash zsh")])
def test_other_shells(capsys: pytest.CaptureFixture[str], given: list[str], shown: str) -> None:
    assert main(["--completion", *given]) == 2
    assert capsys.readouterr().err == f"lit_rnn: --completion is {shown}, but it must be bash or zsh.\n"
