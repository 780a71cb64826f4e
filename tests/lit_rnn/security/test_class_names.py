"""SECURITY.md, "Names of classes": a class that a checkpoint names is looked up, never imported, and fits its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_rnn.models import ExpRNN, load

from .conftest import Watch, change_checkpoint, change_config

PROGRAMS: dict[str, dict[str, Any]] = {
    "subprocess.Popen": {"args": "touch CALLED", "shell": True},
    "subprocess.run": {"args": "touch CALLED", "shell": True},
    "os.system": {"command": "touch CALLED"},
    "posix.system": {"command": "touch CALLED"},
    "builtins.exec": {"source": "open('CALLED', 'w')"},
    "builtins.open": {"file": "CALLED", "mode": "w"},
    "functools.partial": {"func": "os.system"},
    "pathlib.Path.touch": {"self": "CALLED"},
    "runpy.run_path": {"path_name": "PLANTED.py"},
    "importlib.import_module": {"name": "PLANTED"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "call", "source": "local"},
    "torch.load": {"f": "x.ckpt", "weights_only": False},
    "lit_rnn.models.load": {"path": "x.ckpt", "trust": ["PLANTED"]},
}
NAMES: list[Any] = [
    *("PLANTED", "PLANTED.Net", "PLANTED.Data", "PLANTED.call", "PLANTED:Net", "./PLANTED.Net", "PLANTED.py"),
    *("", " ", ".", "..", "...", ".ExpRNN", "lit_rnn.models.", "lit_rnn.models..ExpRNN", "lit_rnn..models.ExpRNN"),
    *("lit_rnn.models.ExpRNN ", " lit_rnn.models.ExpRNN", "lit_rnn.models.ExpRNN\n", "lit_rnn.models.ExpRNN\0"),
    *("lit_rnn.models.ExpRNN.__init__", "lit_rnn.models.ExpRNN.mro", "lit_rnn.models.ExpRNN()"),
    *("lit_rnn.models.ExpRNN.__init__.__globals__.__builtins__.exec", "lit_rnn.models.os.system"),
    "lit_rnn.models.\N{CYRILLIC CAPITAL LETTER IE}xpRNN",
    "\N{FULLWIDTH LATIN SMALL LETTER L}it_rnn.models.ExpRNN",
    "lit_rnn\N{FULLWIDTH FULL STOP}models\N{FULLWIDTH FULL STOP}ExpRNN",
    *("torch.nn.Linear", "torch.optim.Adam", "datamodules.CopyMemory", "pytorch_lightning.LightningModule"),
    *("A" * 100_000, "." * 100_000, "PLANTED." * 1000 + "Net"),
    *(None, 0, 1.5, True, b"lit_rnn.models.ExpRNN", ["subprocess", "Popen"], ["lit_rnn.models.ExpRNN"]),
    *(("PLANTED", "Net"), {"class_path": "lit_rnn.models.ExpRNN"}, {"class_path": "PLANTED.Net"}, {}, []),
]


def with_name(value: Any, planted: str) -> Any:
    """``value`` with PLANTED as the planted module's name."""
    if isinstance(value, str):
        return value.replace("PLANTED", planted)
    if isinstance(value, dict):
        return {key: with_name(entry, planted) for key, entry in value.items()}
    return type(value)(with_name(entry, planted) for entry in value) if isinstance(value, (list, tuple)) else value


def bare(file: Path, class_path: Any, hyper_parameters: dict[str, Any]) -> Path:
    """The issue's checkpoint: primitives alone, and the name of a program."""
    mark = {"class_path": class_path, "optimizer_steps": 1}
    torch.save({"lit_rnn": mark, "hyper_parameters": hyper_parameters, "state_dict": {}}, file)
    return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_not_run(program: str, here: Path, denied: Watch, planted: str) -> None:
    file = bare(here / "x.ckpt", program, with_name(PROGRAMS[program], planted))
    with denied():
        load(file)


def test_no_name_is_a_trick(run: Path, denied: Watch, planted: str, here: Path) -> None:
    file = run / "checkpoints" / "last.ckpt"
    for name in with_name(NAMES, planted):
        change_checkpoint(file, lambda checkpoint, name=name: checkpoint["lit_rnn"].update(class_path=name))
        try:
            with denied():
                load(file)
        except BaseException as error:
            raise AssertionError(f"{str(name)[:100]!r}") from error


def test_the_sentence_has_the_name_and_the_option(run: Path, told: Callable[..., str], planted: str) -> None:
    change_checkpoint(run / "checkpoints" / "last.ckpt", lambda c: c["lit_rnn"].update(class_path=f"{planted}.Net"))
    sentence = told("analyze", "--run_dir", "run")
    assert f"{planted}.Net" in sentence and "--trust" in sentence


@pytest.mark.parametrize("command", ["analyze", "attack", "test", "predict", "validate", "fit"])
@pytest.mark.parametrize("name", ["subprocess.Popen", "PLANTED.Net"])
def test_every_command_refuses(command: str, name: str, run: Path, told: Callable[..., str], planted: str) -> None:
    for file in ("last.ckpt", "best.ckpt"):
        bare(run / "checkpoints" / file, with_name(name, planted), PROGRAMS["subprocess.Popen"])
    told(command, "--run_dir", "run", "--ckpt_path", "last")
    if command != "fit":
        told(command, "--ckpt_path", run / "checkpoints" / "best.ckpt")


SPECS: dict[str, Any] = {
    "program": {"class_path": "os.system", "init_args": {"command": "touch CALLED"}},
    "imports": {"class_path": "PLANTED.Step", "init_args": {"lr": 0.1}},
    "function": {"class_path": "PLANTED.call"},
    "another kind": {"class_path": "lit_rnn.models.ExpRNN"},
    "text": "PLANTED.Step",
    "list": ["PLANTED.Step"],
    "nested": {"class_path": {"class_path": "PLANTED.Step"}},
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("place", ["optimizer", "lr_scheduler", "group_optimizers"])
def test_the_hyperparameters_name_no_program(
    place: str, spec: str, run: Path, denied: Watch, planted: str, here: Path
) -> None:
    value = with_name(SPECS[spec], planted)
    value = {"recurrent": value} if place == "group_optimizers" else value
    file = change_checkpoint(
        run / "checkpoints" / "last.ckpt", lambda checkpoint: checkpoint["hyper_parameters"].update({place: value})
    )
    with denied():
        load(file)


def test_a_lambda_by_name_is_not_called(run: Path, denied: Watch, planted: str, here: Path) -> None:
    schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": f"{planted}.call"}}
    file = change_checkpoint(
        run / "checkpoints" / "last.ckpt", lambda c: c["hyper_parameters"].update(lr_scheduler=schedule)
    )
    with denied():
        load(file).configure_optimizers()


HINTS: dict[str, dict[str, Any]] = {
    "Lightning's own class_path": {"_class_path": "PLANTED.Net"},
    "Lightning's own instantiator": {"_instantiator": "PLANTED.call"},
    "adversarial": {"adversarial": {"class_path": "PLANTED.call", "init_args": {}}},
    "backend": {"backend": "PLANTED.call"},
    "task": {"task": {"class_path": "PLANTED.call", "metric": "PLANTED.call"}},
    "hidden_size": {"hidden_size": {"class_path": "PLANTED.call"}},
    "decoder_init": {"decoder_init": "PLANTED.call"},
    "unknown": {"PLANTED": "PLANTED.call", "__class__": "PLANTED.Net", "self": 1, "cls": "PLANTED.Net"},
}


@pytest.mark.parametrize("hint", HINTS)
def test_other_entries_name_nothing(hint: str, run: Path, untouched: Watch, planted: str, here: Path) -> None:
    """Refused or without effect; in no case imported or called."""
    file = run / "checkpoints" / "last.ckpt"
    change_checkpoint(file, lambda checkpoint: checkpoint["hyper_parameters"].update(with_name(HINTS[hint], planted)))
    with untouched():
        try:
            assert type(load(file)) is ExpRNN
        except Exception as error:
            assert type(error).__name__ == "UserError", repr(error)


def own(run: Path, module: str) -> Path:
    """The run as if it were one of the class Net of ``module``."""
    for file in ("last.ckpt", "best.ckpt", "init.ckpt"):
        change_checkpoint(
            run / "checkpoints" / file,
            lambda checkpoint: (
                checkpoint["lit_rnn"].update(class_path=f"{module}.Net"),
                checkpoint["hyper_parameters"].update(_class_path=f"{module}.Net"),
            ),
        )
    change_config(run, "model", "class_path", value=f"{module}.Net")
    return run / "checkpoints" / "last.ckpt"


def test_load_takes_a_class_of_your_own_where_you_say_so(run: Path, denied: Watch, planted: str, here: Path) -> None:
    file = own(run, planted)
    with denied():
        load(file)
    with denied():
        load(file, trust=["json"])
    model = load(file, trust=[planted])
    assert type(model).__module__ == planted and isinstance(model, ExpRNN)
    assert type(load(file)) is type(model), "a class that the program has loaded needs no trust"


COMMANDS = {
    "fit": ("--ckpt_path", "last", "--trainer.max_epochs", "3"),
    "test": ("--ckpt_path", "last"),
    "predict": ("--ckpt_path", "best"),
    "validate": ("--ckpt_path", "last"),
    "analyze": ("--only", "spectrum"),
    "attack": ("--attacks", "random_swaps", "--samples", "2", "--queries", "2"),
}


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("command", COMMANDS)
def test_trust_is_an_option_of_every_command(
    command: str, run: Path, cli: Callable[..., Any], told: Callable[..., str], planted: str
) -> None:
    own(run, planted)
    arguments = (command, "--run_dir", "run", *COMMANDS[command])
    assert "--trust" in told(*arguments)
    told(*arguments, "--trust", "no_such_module")
    told(*arguments, "--trust")
    for module in ("subprocess", "json"):
        told(*arguments, "--trust", module)
    word = planted if command in ("fit", "attack") else f"{planted}.Net"
    done = cli(*arguments, "--trust", "json", "--trust", word)
    assert done.status == 0, done
    assert planted in sys.modules


def test_trust_where_no_class_is_named(run: Path, cli: Callable[..., Any], planted: str, tmp_path: Path) -> None:
    assert cli("compare", "run", "--trust", planted).status == 0
    assert planted in sys.modules
    study = {"base": "tiny.yaml", "seeds": [1], "grid": {"model.init_args.hidden_size": [4]}}
    (tmp_path / "tiny.yaml").write_text((run / "config.yaml").read_text().replace("run_dir:", "run_dir: null #"))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert cli("study", "study.yaml", "--dry_run", "--trust", planted).status == 0


@pytest.mark.parametrize("name", ["subprocess.Popen", "PLANTED.call", "PLANTED.Watch", "PLANTED.Net.mro"])
def test_trust_makes_no_program_a_model(
    name: str, run: Path, refused: Callable[..., str], planted: str, tmp_path: Path
) -> None:
    (tmp_path / "IMPORTED").touch()
    for file in ("last.ckpt", "best.ckpt"):
        bare(run / "checkpoints" / file, with_name(name, planted), PROGRAMS["subprocess.Popen"])
    for command in ("analyze", "attack", "test"):
        refused(command, "--run_dir", "run", "--ckpt_path", "last", "--trust", "subprocess", "--trust", planted)


def test_the_config_and_the_checkpoint_name_the_same(
    run: Path, config: Callable[..., str], told: Callable[..., str]
) -> None:
    other = config("other.yaml", model={"class_path": "LSTM", "init_args": {"hidden_size": 8}})
    told("test", "-c", other, "--ckpt_path", run / "checkpoints" / "last.ckpt")
