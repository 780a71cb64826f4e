"""Checkpoints from both doors: the command line, and a Trainer in Python."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from datamodules import CopyMemory, PixelDigits, Task, UserError
from lit_rnn.models import GRU, LSTM, DtrivRNN, ExpRNN, NnRNN, VanillaRNN, load
from lit_rnn.runs.endings import how_to_go_on
from tests.trainers import quiet_trainer

BUILD: dict[str, Any] = {
    "ExpRNN": lambda task, optimizer: ExpRNN(task, 8, init="cayley", optimizer=optimizer),
    "DtrivRNN": lambda task, optimizer: DtrivRNN(task, 8, rebase_every=3, project_every=2, optimizer=optimizer),
    "VanillaRNN": lambda task, optimizer: VanillaRNN(task, 8, "relu", "identity", 0.5, optimizer=optimizer),
    "LSTM": lambda task, optimizer: LSTM(task, 8, layers=2, learn_initial_state=True, optimizer=optimizer),
    "GRU": lambda task, optimizer: GRU(task, 8, optimizer=optimizer),
}
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture
def data() -> CopyMemory:
    return CopyMemory(delay=5, train_samples=32, val_samples=8, batch_size=8)


def trained(model: pl.LightningModule, data: pl.LightningDataModule, folder: Path, epochs: int = 1) -> Path:
    """Train in Python and save."""
    trainer = quiet_trainer(max_epochs=epochs, default_root_dir=folder)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", BUILD)
def test_from_python(name: str, data: CopyMemory, tmp_path: Path) -> None:
    model = BUILD[name](data.task, ADAM)
    path = trained(model, data, tmp_path)
    torch.load(path, weights_only=True)
    back = load(path)
    assert type(back) is type(model) and equal(back, model)
    assert back.task == data.task and isinstance(back.task, Task)
    assert back.training, "as built, not in eval mode"
    assert back.optimizer_steps == 4
    inputs = data.split("val")[torch.arange(4).numpy()][0]
    with torch.no_grad():
        assert torch.equal(back(inputs), model(inputs))
    optimizer = back.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[-1]["lr"] == 1e-3


@pytest.mark.parametrize("name", ["DtrivRNN", "LSTM"])
def test_from_the_command_line(cli: Any, config: Any, name: str) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r", "--model", name).status == 0
    for file in ("best", "last"):
        back = load(f"r/checkpoints/{file}.ckpt")
        assert type(back).__name__ == name
        kept = torch.load(f"r/checkpoints/{file}.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(tensor, kept[key]) for key, tensor in back.state_dict().items())


def test_init_is_where_the_run_began(cli: Any, config: Any) -> None:
    """The weights that the seed gives, not those after a step; for `analyze --against init`."""
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    start, end = (load(f"r/checkpoints/{file}.ckpt") for file in ("init", "last"))
    torch.manual_seed(1)
    expected = ExpRNN(CopyMemory(delay=5).task, 8)
    assert start.optimizer_steps == 0 and equal(start.cells, expected.cells) and equal(start.decoder, expected.decoder)
    assert not equal(end.cells, start.cells)
    assert "optimizer_states" not in torch.load("r/checkpoints/init.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resume_keeps_init_and_writes_none_elsewhere(cli: Any, config: Any) -> None:
    path = config()
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    before = Path("r/checkpoints/init.ckpt").read_bytes()
    for folder in ("r", "s"):
        resume = ("--ckpt_path", "r/checkpoints/last.ckpt", "--run_dir", folder, "--trainer.max_steps", -1)
        assert cli("fit", "-c", path, *resume).status == 0
    assert Path("r/checkpoints/init.ckpt").read_bytes() == before
    assert not Path("s/checkpoints/init.ckpt").exists(), "its run began in the other folder"


@pytest.mark.parametrize("name", BUILD)
def test_load_from_checkpoint_of_the_class(name: str, data: CopyMemory, tmp_path: Path) -> None:
    """Lightning's own way works too."""
    model = BUILD[name](data.task, ADAM)
    path = trained(model, data, tmp_path)
    assert equal(type(model).load_from_checkpoint(path, weights_only=True), model)


def test_a_loaded_model_trains_on(data: CopyMemory, tmp_path: Path) -> None:
    """And its hooks count on from where it was: rebases fall on the steps they would have."""
    (tmp_path / "a").mkdir()
    path = trained(BUILD["DtrivRNN"](data.task, ADAM), data, tmp_path)
    back = load(path)
    trained(back, data, tmp_path / "a")
    assert back.optimizer_steps == 8


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resumed_in_python(data: CopyMemory, tmp_path: Path) -> None:
    """The uninterrupted run, bit for bit, without the command line: one epoch and then the second."""
    torch.manual_seed(3)
    model = BUILD["DtrivRNN"](data.task, ADAM)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    (tmp_path / "whole").mkdir()
    trained(model, data, tmp_path / "whole", 2)

    first = BUILD["DtrivRNN"](data.task, ADAM)
    first.load_state_dict(start)

    def again() -> CopyMemory:
        return CopyMemory(delay=5, train_samples=32, val_samples=8, batch_size=8)

    def trainer(epochs: int) -> pl.Trainer:
        saving = pl.callbacks.ModelCheckpoint(
            dirpath=tmp_path / f"{epochs}", save_on_train_epoch_end=True, filename="x"
        )
        return quiet_trainer(max_epochs=epochs, callbacks=[saving], enable_checkpointing=True)

    trainer(1).fit(first, datamodule=again())
    second = BUILD["DtrivRNN"](data.task, ADAM)
    trainer(2).fit(second, datamodule=again(), ckpt_path=tmp_path / "1" / "x.ckpt", weights_only=True)
    assert equal(second, model)


@pytest.mark.parametrize("wrong", [lambda p: torch.optim.Adam(p), functools.partial(torch.optim.Adam, [])])
def test_an_optimizer_that_has_no_name_is_refused(data: CopyMemory, wrong: Any) -> None:
    with pytest.raises(UserError, match=r"model\.init_args\.optimizer"):
        ExpRNN(data.task, 8, optimizer=wrong)
    with pytest.raises(UserError, match=r"model\.init_args\.lr_scheduler"):
        ExpRNN(data.task, 8, lr_scheduler=wrong)


def test_an_optimizer_option_that_no_checkpoint_can_hold(data: CopyMemory, tmp_path: Path) -> None:
    """Refused when given, not when the checkpoint is to be read."""
    try:
        model = ExpRNN(data.task, 8, optimizer=functools.partial(torch.optim.Adam, lr=torch.nn.Linear(1, 1)))
    except UserError as error:
        assert "optimizer" in str(error)
    else:
        pytest.fail(f"accepted: {model.options.optimizer}")


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adam, ADAM, {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}, None],
    ids=["class", "partial", "mapping", "none"],
)
def test_ways_to_give_an_optimizer(data: CopyMemory, optimizer: Any, tmp_path: Path) -> None:
    model = ExpRNN(data.task, 8, optimizer=optimizer)
    built = model.configure_optimizers()
    assert isinstance(built, torch.optim.RMSprop if optimizer is None else torch.optim.Adam)
    assert [group["lr"] for group in built.param_groups] == [pytest.approx(1e-4), 1e-3]
    assert equal(load(trained(model, data, tmp_path)), model)


def test_task_as_a_dict(data: CopyMemory) -> None:
    import dataclasses

    assert ExpRNN(dataclasses.asdict(data.task), 8).task == data.task


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.ckpt"):
        load(tmp_path / "none.ckpt")
    (tmp_path / "odd.ckpt").write_bytes(b"PK\x03\x04" + bytes(500))
    with pytest.raises(UserError, match=r"odd\.ckpt"):
        load(tmp_path / "odd.ckpt")


def test_cut_anywhere(data: CopyMemory, tmp_path: Path) -> None:
    whole = trained(ExpRNN(data.task, 4), data, tmp_path).read_bytes()
    path = tmp_path / "cut.ckpt"
    for size in [*range(0, len(whole), 211), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            load(path)


def test_a_model_of_python_is_tested_by_the_command_line(
    cli: Any, config: Any, data: CopyMemory, tmp_path: Path
) -> None:
    path = trained(ExpRNN(data.task, 8), data, tmp_path)
    done = cli("test", "-c", config(), "--ckpt_path", path, "--run_dir", "r")
    assert done.status == 0 and "test loss" in done.out


def test_digits_in_python(tmp_path: Path) -> None:
    data = PixelDigits(batch_size=600)
    assert equal(load(trained(model := GRU(data.task, 4), data, tmp_path)), model)


@pytest.mark.parametrize("own", [None, {"recurrent": functools.partial(torch.optim.SGD, lr=1e-2)}])
def test_nnrnn_goes_on_from_before_theta_was_a_group(
    own: Any, data: CopyMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it always had been: nothing decays here, and so the same numbers move by the same rules."""

    def model() -> NnRNN:
        torch.manual_seed(0)
        scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
        return NnRNN(data.task, 4, optimizer=ADAM, lr_scheduler=scheduler, group_optimizers=own)

    whole = model()
    trained(whole, data, tmp_path / "whole", epochs=2)

    def with_theta_in_other(self: NnRNN) -> Any:
        groups = dict(named(self))
        of_theta = {id(parameter) for parameter in groups.pop("blocks")}
        taken = {id(parameter) for name in ("recurrent", "upper") for parameter in groups[name]}
        other = [parameter for parameter in self.parameters() if id(parameter) not in taken]
        assert of_theta < {id(parameter) for parameter in other}
        return {**groups, "other": other}

    named = NnRNN.parameter_groups
    with monkeypatch.context() as before:
        before.setattr(NnRNN, "parameter_groups", with_theta_in_other)
        path = trained(model(), data, tmp_path / "half")
    kept = torch.load(path, weights_only=True)
    assert [group["name"] for group in kept["optimizer_states"][0]["param_groups"]] == ["recurrent", "upper", "other"]
    back = model()
    quiet_trainer(max_epochs=2, default_root_dir=tmp_path).fit(back, datamodule=data, ckpt_path=path)
    assert back.optimizer_steps == 8 and equal(back, whole)


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_folder_of_any_name(cli: Any, config: Any) -> None:
    """Lightning takes what has :: in it for another file system's; the sentence to go on with is one for a shell."""
    name = "läuf a::b $HOME #[1]"
    assert cli("fit", "-c", config(), "--run_dir", name).status == 0
    for command, which in (("test", "best"), ("fit", "last")):
        done = cli(command, "--run_dir", name, "--ckpt_path", which, "--trainer.max_epochs", 3)
        assert done.status == 0, done.err
    words = shlex.split(how_to_go_on(Path(name)).partition(": ")[2])
    assert words[words.index("--run_dir") + 1] == name
