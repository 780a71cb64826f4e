"""Optimizers of single groups in one optimizer object: as the parts alone, from YAML, Python and checkpoints."""

from __future__ import annotations

import copy
import functools
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, RMSprop

from datamodules import CopyMemory, UserError
from lit_rnn import models
from lit_rnn.models import LRU, FullURNN, NnRNN, ScuRNN, VanillaRNN, load
from lit_rnn.optim import GroupedOptimizer, RiemannianAdam, RiemannianSGD, RMSpropTF, build_optimizer

TASK = CopyMemory(delay=5).task
FACTORIES: dict[str, Any] = {
    "adam": functools.partial(Adam, lr=0.01),
    "rmsprop": functools.partial(RMSprop, lr=0.02, momentum=0.5),
    "adagrad": functools.partial(Adagrad, lr=0.03, initial_accumulator_value=0.1),
    "tf": functools.partial(RMSpropTF, lr=0.04, momentum=0.5),
}


def parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(3, 2, generator=generator)) for name in FACTORIES}


def named(given: dict[str, torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"name": name, "params": [parameter]} for name, parameter in given.items()]


def train(optimizers: list[torch.optim.Optimizer], given: dict[str, torch.nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        sum((parameter**4).sum() for parameter in given.values()).backward()
        for optimizer in optimizers:
            optimizer.step()


def grouped(given: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
    return build_optimizer(named(given), FACTORIES["adam"], {k: v for k, v in FACTORIES.items() if k != "adam"})


def assert_equal(a: dict[str, torch.nn.Parameter], b: dict[str, torch.nn.Parameter]) -> None:
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_the_separate_optimizers_bit_for_bit() -> None:
    alone, together = parameters(), parameters()
    train([FACTORIES[name]([parameter]) for name, parameter in alone.items()], alone, 7)
    train([grouped(together)], together, 7)
    assert_equal(alone, together)


def test_a_saved_state_continues_bit_for_bit() -> None:
    whole, first = parameters(), parameters()
    train([grouped(whole)], whole, 9)
    optimizer = grouped(first)
    train([optimizer], first, 4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = copy.deepcopy(first)
    again = grouped(second)
    again.load_state_dict(torch.load(file, weights_only=True))
    train([again], second, 5)
    assert_equal(whole, second)
    third = copy.deepcopy(first)
    train([grouped(third)], third, 5)
    assert not torch.equal(third["adagrad"], whole["adagrad"])


def test_a_copy_is_whole_and_independent() -> None:
    whole, first = parameters(), parameters()
    train([grouped(whole)], whole, 9)
    optimizer = grouped(first)
    train([optimizer], first, 4)
    before = {name: parameter.detach().clone() for name, parameter in first.items()}
    twin = copy.deepcopy(optimizer)
    theirs = {group["name"]: group["params"][0] for group in twin.param_groups}
    train([twin], theirs, 5)
    assert_equal(whole, theirs)
    assert_equal(before, first)  # type: ignore[arg-type]
    train([optimizer], first, 5)
    assert_equal(whole, first)


def test_schedulers_hooks_and_scalers_see_one_optimizer() -> None:
    given = parameters()
    optimizer = grouped(given)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    train([optimizer], given, 2)
    scheduler.step()
    before = {name: parameter.detach().clone() for name, parameter in given.items()}
    assert [group["lr"] for group in optimizer.param_groups] == [0.0] * 4
    optimizer.param_groups[1]["momentum"] = optimizer.param_groups[3]["momentum"] = 0.0
    train([optimizer], given, 3)
    assert_equal(before, given)  # type: ignore[arg-type]
    assert len(steps) == 5


def test_a_scaler_skips_a_step_that_is_not_finite() -> None:
    given = parameters()
    optimizer = grouped(given)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(sum(parameter.sum() for parameter in given.values())).backward()
    given["tf"].grad.fill_(torch.inf)  # type: ignore[union-attr]
    scaler.step(optimizer)
    assert_equal(parameters(), given)
    scaler.update()
    train([optimizer], given, 1)
    expected = parameters()
    train([grouped(expected)], expected, 1)
    assert_equal(expected, given)


def test_a_closure_is_evaluated_once() -> None:
    given = parameters()
    optimizer, calls = grouped(given), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum((parameter**4).sum() for parameter in given.values())
        loss.backward()
        calls.append(loss)
        return loss

    loss = optimizer.step(closure)
    assert calls == [loss]
    expected = parameters()
    train([grouped(expected)], expected, 1)
    assert_equal(expected, given)


def test_a_group_added_later_is_refused() -> None:
    optimizer = grouped(parameters())
    with pytest.raises(UserError, match="group_optimizers"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})


# ---- of models


def rates(model: Any) -> dict[str, float]:
    built = model.configure_optimizers()
    optimizer = built["optimizer"] if isinstance(built, dict) else built
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_scurnns_three_optimizers() -> None:
    own = {"recurrent": functools.partial(RMSprop, lr=1e-4), "phase": functools.partial(Adagrad, lr=1e-5)}
    with pytest.warns(UserWarning, match=r"_lr_ratio is 0\.5, which has no effect with group_optimizers"):
        model = ScuRNN(
            TASK,
            6,
            recurrent_lr_ratio=0.5,
            phase_lr_ratio=0.5,
            optimizer=functools.partial(Adam, lr=1e-3),
            group_optimizers=own,
        )
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, GroupedOptimizer)
    parts = {group["name"]: type(part) for part, group in zip(optimizer.parts, optimizer.param_groups, strict=True)}
    assert parts == {"recurrent": RMSprop, "phase": Adagrad, "other": Adam}
    assert rates(model) == {"recurrent": 1e-4, "phase": 1e-5, "other": 1e-3}, "no ratio on a rate of one's own"


def test_a_ratio_stays_on_groups_without_their_own() -> None:
    model = ScuRNN(
        TASK, 6, recurrent_lr_ratio=0.5, optimizer=functools.partial(Adam, lr=1e-3), group_optimizers={"phase": Adagrad}
    )
    assert rates(model) == {"recurrent": 5e-4, "phase": 1e-2, "other": 1e-3}


@pytest.mark.parametrize(
    ("own", "decay"),
    [
        (torch.optim.AdamW, 1e-3),  # whose default is 0.01
        (functools.partial(Adam, weight_decay=0.2), 0.2),
        ({"class_path": "torch.optim.Adam", "init_args": {"weight_decay": 0.0}}, 1e-3),
    ],
)
def test_a_groups_decay_is_the_models_unless_its_optimizer_says_otherwise(own: Any, decay: float) -> None:
    model = NnRNN(TASK, 6, upper_decay=1e-3, optimizer=SGD, group_optimizers={"upper": own})
    (group,) = (group for group in model.configure_optimizers().param_groups if group["name"] == "upper")
    assert group["weight_decay"] == decay


@pytest.mark.parametrize(("name", "kept"), [("LRU", {"nu", "theta", "log_gamma"}), ("LinOSS", {"a", "b"})])
def test_no_decay_on_what_a_state_space_recurs_by(name: str, kept: set[str]) -> None:
    """A step of AdamW without gradients multiplies by 1 - lr * decay, and these by 1."""
    own = functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    model = getattr(models, name)(TASK, 4, layers=2, recurrent_lr_ratio=0.25, optimizer=own)
    optimizer = model.configure_optimizers()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for path, parameter in model.named_parameters():
        ours = path.rpartition(".")[2] in kept and path.startswith("cells.")
        torch.testing.assert_close(parameter.detach(), before[path] * (1 if ours else 0.95))
        assert of[id(parameter)] == (0.025 if ours else 0.1), path


@pytest.mark.parametrize("own", [None, {"recurrent": functools.partial(SGD, lr=0.1, momentum=0.5)}])
def test_an_lru_from_before_gamma_was_a_group_goes_on_as_it_began(own: Any) -> None:
    def model() -> LRU:
        torch.manual_seed(0)
        decays = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5)
        return LRU(TASK, 4, layers=2, recurrent_lr_ratio=0.5, optimizer=decays, group_optimizers=own)

    def move(one: LRU, optimizer: Any) -> None:
        for number, parameter in enumerate(one.parameters()):
            parameter.grad = (number + 1) * torch.ones_like(parameter)
        optimizer.step()

    def before() -> tuple[LRU, Any]:
        """With the groups of then, all of which decayed."""
        one = model()
        groups: dict[str, Any] = {"recurrent": [p for cell in one.cell_list() for p in (cell.nu, cell.theta)]}
        ours = {id(parameter) for parameter in groups["recurrent"]}
        groups["other"] = [parameter for parameter in one.parameters() if id(parameter) not in ours]
        made = [{"name": name, "params": groups[name]} for name in groups]
        made[0]["lr_ratio"] = 0.5
        return one, build_optimizer(made, one.options.optimizer, one.options.group_optimizers)

    whole, optimizer = before()
    move(whole, optimizer)
    checkpoint = {
        "optimizer_states": [copy.deepcopy(optimizer.state_dict())],
        "lit_rnn": {"optimizer_steps": 1},
        "state_dict": {name: tensor.clone() for name, tensor in whole.state_dict().items()},
    }
    move(whole, optimizer)
    back = model()
    back.on_load_checkpoint(checkpoint)
    back.load_state_dict(checkpoint["state_dict"])  # type: ignore[arg-type]
    again = back.configure_optimizers()
    again.load_state_dict(checkpoint["optimizer_states"][0])  # type: ignore[index]
    assert [group["name"] for group in again.param_groups] == ["recurrent", "gamma", "other"]
    move(back, again)
    theirs = dict(whole.named_parameters())
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in back.named_parameters())


def test_an_unknown_group_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"group_optimizers .*'phase'.*recurrent, other\.$"):
        VanillaRNN(TASK, 6, group_optimizers={"phase": Adam}).configure_optimizers()


def test_what_the_optimizer_refuses_names_its_key() -> None:
    with pytest.raises(UserError, match=r"^model\.init_args\.group_optimizers\.other cannot be built.*foo"):
        VanillaRNN(TASK, 6, group_optimizers={"other": functools.partial(Adam, foo=1)}).configure_optimizers()
    with pytest.raises(UserError, match=r"^model\.init_args\.group_optimizers\.other is 'LBFGS'"):
        VanillaRNN(TASK, 6, group_optimizers={"other": torch.optim.LBFGS}).configure_optimizers()
    with pytest.raises(UserError, match=r"^model\.init_args\.group_optimizers\.other is <function"):
        VanillaRNN(TASK, 6, group_optimizers={"other": lambda groups: Adam(groups)})


PLAIN = functools.partial(RiemannianSGD, lr=1e-3, metric="canonical")
THEANO = functools.partial(RMSpropTF, lr=1e-3, initial_accumulator=1e-3, eps=0.0)


def test_fullurnn_as_the_released_copying_script() -> None:
    """One step by hand: Cayley along G W^H - W G^H on the group, the Theano RMSprop on the rest."""
    model = FullURNN(TASK, 5, optimizer=THEANO, group_optimizers={"recurrent": PLAIN}).double()
    optimizer = model.configure_optimizers()
    inputs, targets = CopyMemory(delay=5, train_samples=4).split("train")[torch.arange(4).numpy()][:2]
    model.loss_of(model(torch.as_tensor(inputs)), torch.as_tensor(targets)).backward()
    expected = {}
    for name, parameter in model.named_parameters():
        p, g = parameter.detach().clone(), parameter.grad
        if any(parameter is q for q in model.parameter_groups()["recurrent"]):
            A, identity = g @ p.mH - p @ g.mH, torch.eye(5)
            expected[name] = torch.linalg.inv(identity + 5e-4 * A) @ (identity - 5e-4 * A) @ p
        else:
            expected[name] = p - 1e-3 * g / torch.sqrt(0.9 * 1e-3 + 0.1 * g**2)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=0, atol=1e-14)


def test_fullurnn_needs_a_riemannian_optimizer_for_its_matrices_alone() -> None:
    wrong: list[tuple[Any, Any, str]] = [
        (RMSprop, None, r"^model\.init_args\.optimizer is 'RMSprop'.*RiemannianSGD"),
        (PLAIN, {"recurrent": Adam}, r"^model\.init_args\.group_optimizers\.recurrent is 'Adam'.*RiemannianSGD"),
        (RMSprop, {"other": Adam}, r"^model\.init_args\.optimizer is 'RMSprop'.*RiemannianSGD"),
    ]
    for optimizer, own, words in wrong:
        with pytest.raises(UserError, match=words):
            FullURNN(TASK, 5, optimizer=optimizer, group_optimizers=own).configure_optimizers()
    assert isinstance(FullURNN(TASK, 5).configure_optimizers(), RiemannianAdam)


# ---- of the command line and checkpoints

OWN = {
    "recurrent": {"class_path": "RiemannianSGD", "init_args": {"lr": 1e-3, "metric": "canonical"}},
    "other": {"class_path": "Adagrad", "init_args": {"lr": 0.02}},
}
MODEL = {
    "class_path": "FullURNN",
    "init_args": {
        "hidden_size": 6,
        "optimizer": {"class_path": "RMSpropTF", "init_args": {"lr": 0.002, "eps": 0.0}},
        "group_optimizers": OWN,
        "lr_scheduler": {"class_path": "StepLR", "init_args": {"step_size": 1, "gamma": 0.5}},
    },
}

quick = pytest.mark.usefixtures("_no_pictures")


@quick
def test_from_yaml_into_checkpoints_and_back(cli: Any, config: Any) -> None:
    lr = ("--model.init_args.group_optimizers.recurrent.init_args.lr", 0.005)
    assert cli("fit", "-c", config(model=MODEL), "--run_dir", "r", *lr).status == 0
    header = Path("r/metrics.csv").read_text().splitlines()[0]
    assert "lr-GroupedOptimizer/recurrent" in header and "lr-GroupedOptimizer/other" in header
    kept = torch.load("r/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["group_optimizers"]
    assert kept["recurrent"]["class_path"].endswith("RiemannianSGD") and kept["recurrent"]["init_args"]["lr"] == 0.005
    back = load("r/checkpoints/last.ckpt")
    assert rates(back) == {"recurrent": 0.005, "other": 0.02}
    assert back.options.optimizer["class_path"].endswith("RMSpropTF")
    assert cli("test", "--run_dir", "r", "--ckpt_path", "best").status == 0


@quick
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_resumed_run_is_the_uninterrupted_one(cli: Any, config: Any, step: int) -> None:
    path = config(model=MODEL, trainer={"max_epochs": 3})
    assert cli("fit", "-c", path, "--run_dir", "whole").status == 0
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", step).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    whole, resumed = (torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "r"))
    assert all(torch.equal(tensor, resumed["state_dict"][key]) for key, tensor in whole["state_dict"].items())
    (a,), (b,) = whole["optimizer_states"], resumed["optimizer_states"]
    assert a["param_groups"] == b["param_groups"] and a["state"].keys() == b["state"].keys()
    for index, state in a["state"].items():
        assert all(torch.equal(tensor, b["state"][index][key]) for key, tensor in state.items())


def test_short_names_in_python_are_those_of_the_command_line() -> None:
    """Kept in full, as a checkpoint must have them; what is one's own, or of two modules, has to be named in full."""
    given: dict[str, Any] = {"optimizer": "Adam", "lr_scheduler": "StepLR", "group_optimizers": "RMSpropTF"}
    specs: dict[str, Any] = {key: {"class_path": name} for key, name in given.items()}
    specs["lr_scheduler"]["init_args"] = {"step_size": 1}
    specs["group_optimizers"] = {"recurrent": specs["group_optimizers"]}
    model = VanillaRNN(TASK, 4, **specs)
    kept = model.hparams
    assert kept["optimizer"]["class_path"] == "torch.optim.Adam"
    assert kept["lr_scheduler"]["class_path"] == "torch.optim.lr_scheduler.StepLR"
    assert kept["group_optimizers"]["recurrent"]["class_path"] == "lit_rnn.optim.RMSpropTF"
    assert specs["optimizer"] == {"class_path": "Adam"}  # what was given stays as it was
    recurrent, other = model.configure_optimizers()["optimizer"].parts
    assert (type(recurrent), type(other)) == (RMSpropTF, Adam)

    class OfMine(SGD):
        """Found by its full name alone."""

    mine = f"{__name__}.{OfMine.__qualname__}"
    assert VanillaRNN(TASK, 4, optimizer={"class_path": mine}).hparams["optimizer"]["class_path"] == mine
    plateau = "ReduceLROnPlateau"
    both = f"torch.optim.lr_scheduler.{plateau} or pytorch_lightning.cli.{plateau}"
    for key, name, meant in (("optimizer", "OfMine", mine), ("lr_scheduler", plateau, both)):
        with pytest.raises(UserError, match=rf"{key} is '{name}'.*\(did you mean {re.escape(meant)}\?\)"):
            VanillaRNN(TASK, 4, **{key: {"class_path": name}})


def test_an_unknown_group_on_the_command_line(refused: Any, config: Any) -> None:
    words = refused("fit", "-c", config(), "--model.init_args.group_optimizers", "{phase: {class_path: Adam}}")
    assert "group_optimizers" in words and "'phase'" in words and "recurrent, other" in words


@quick
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resume_with_another_optimizer_of_a_group_is_refused(cli: Any, refused: Any, config: Any) -> None:
    path = config(model=MODEL)
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    words = refused("fit", "--run_dir", "r", "--ckpt_path", "last", "--model.init_args.group_optimizers.other", "Adam")
    assert "group_optimizers.other is 'Adam'" in words and "Adagrad" in words
