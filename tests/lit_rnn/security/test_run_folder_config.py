"""SECURITY.md, "A config found in a run folder" and "YAML": what lies there names no program and leads nowhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.__main__ import main
from lit_rnn.runs import config as run_config

from .conftest import Watch, change_config
from .test_class_names import with_name

OUTSIDE = "OUTSIDE"
LAMBDA = "torch.optim.lr_scheduler.LambdaLR"
TIMES = "torch.optim.lr_scheduler.MultiplicativeLR"
FROM = "pytorch_lightning.callbacks."
LOGGERS = "pytorch_lightning.loggers."


def classes(class_path: Any, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


PLANTED: list[tuple[str, Any]] = [
    ("model", classes("PLANTED.Net", hidden_size=8)),
    ("model", classes("subprocess.Popen", args="touch CALLED", shell=True)),
    ("model", classes("torch.nn.Linear", in_features=1, out_features=1)),
    ("model", "PLANTED.Net"),
    ("data", classes("PLANTED.Data", delay=5)),
    ("data", classes("subprocess.Popen", args="touch CALLED", shell=True)),
    ("data", "PLANTED.Data"),
    ("model.init_args.optimizer", classes("os.system", command="touch CALLED")),
    ("model.init_args.optimizer", classes("PLANTED.Step", lr=0.1)),
    ("model.init_args.optimizer", "PLANTED.Step"),
    ("model.init_args.lr_scheduler", classes("PLANTED.Plan", step_size=1)),
    ("model.init_args.lr_scheduler", classes(LAMBDA, lr_lambda="PLANTED.call")),
    ("model.init_args.lr_scheduler", classes(LAMBDA, lr_lambda="math.exp")),
    ("model.init_args.lr_scheduler", classes(TIMES, lr_lambda="PLANTED.call")),
    ("model.init_args.group_optimizers", {"recurrent": classes("PLANTED.Step", lr=0.1)}),
    ("model.init_args.group_optimizers", {"recurrent": classes("os.system", command="touch CALLED")}),
    ("model.init_args.adversarial", classes("PLANTED.call")),
    ("model.init_args.backend", classes("PLANTED.call")),
    ("model.init_args.decoder_init", classes("PLANTED.call")),
    ("model.init_args.hidden_size", classes("PLANTED.call")),
    ("data.init_args.delay", classes("PLANTED.call")),
    ("trainer.callbacks", [classes("PLANTED.Watch")]),
    ("trainer.callbacks", classes("PLANTED.Watch")),
    ("trainer.callbacks", "PLANTED.Watch"),
    ("trainer.callbacks", [classes("os.system", command="touch CALLED")]),
    ("trainer.callbacks", [classes(FROM + "LambdaCallback", on_test_start="PLANTED.call")]),
    ("trainer.callbacks", [classes("LambdaCallback", setup="os.getcwd")]),
    ("trainer.callbacks", [classes(FROM + "StochasticWeightAveraging", swa_lrs=0.1, avg_fn="PLANTED.call")]),
    ("trainer.callbacks", [classes("StochasticWeightAveraging", swa_lrs=0.1)]),
    ("trainer.callbacks", [classes("WeightAveraging", avg_fn="PLANTED.call")]),
    ("trainer.callbacks", [classes(FROM + "ModelCheckpoint", dirpath=OUTSIDE)]),
    ("trainer.callbacks", [classes(FROM + "ModelCheckpoint", dirpath="run/../OUTSIDE")]),
    ("trainer.callbacks", [classes("lit_rnn.callbacks.PredictionFile", folder="elsewhere")]),
    ("trainer.logger", classes("PLANTED.Log", save_dir="run")),
    ("trainer.logger", [classes("PLANTED.Log", save_dir="run")]),
    ("trainer.logger", classes("os.system", command="touch CALLED")),
    ("trainer.logger", classes(LOGGERS + "CSVLogger", save_dir=OUTSIDE)),
    ("trainer.logger", classes(LOGGERS + "CSVLogger", save_dir="run/../OUTSIDE")),
    ("trainer.logger", classes(LOGGERS + "MLFlowLogger", tracking_uri="sqlite:///OUTSIDE.db")),
    ("trainer.strategy", classes("PLANTED.Net")),
    ("trainer.strategy", classes("pytorch_lightning.strategies.SingleDeviceStrategy", device="cpu")),
    ("trainer.accelerator", classes("PLANTED.Net")),
    ("trainer.plugins", [classes("PLANTED.Net")]),
    ("trainer.plugins", classes("PLANTED.Net")),
    ("trainer.profiler", classes("PLANTED.Net")),
    ("trainer.profiler", classes("pytorch_lightning.profilers.SimpleProfiler", dirpath=OUTSIDE, filename="x")),
    ("trainer.max_time", classes("PLANTED.call")),
    ("trainer.devices", classes("PLANTED.call")),
    ("trainer", "PLANTED.Net"),
    ("trainer.precision", classes("PLANTED.call")),
    ("PLANTED.Net", classes("PLANTED.Net")),
    ("model.class_path", ["PLANTED", "Net"]),
    ("model.class_path", {"PLANTED": "Net"}),
]


@pytest.mark.parametrize(("place", "value"), PLANTED, ids=[f"{n}-{place}" for n, (place, _) in enumerate(PLANTED)])
def test_a_planted_config_is_refused(
    place: str, value: Any, run: Path, told: Callable[..., str], planted: str, tmp_path: Path
) -> None:
    value = json.loads(json.dumps(with_name(value, planted)).replace(OUTSIDE, str(tmp_path / "outside")))
    keys = [place] if place.startswith("PLANTED") else place.split(".")
    change_config(run, *keys, value=value)
    told("test", "--run_dir", "run", "--ckpt_path", "last")


@pytest.mark.parametrize("folder", ["~/x", "$HOME/x", "local:///x", "simplecache::/x"])
def test_no_folder_is_read_as_another(
    folder: str, run: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lightning expands looks like a folder inside, to whoever stands in the run folder."""
    change_config(run, "trainer", "callbacks", value=[classes(FROM + "ModelCheckpoint", dirpath=folder)])
    monkeypatch.chdir(run)
    assert folder in refused("test", "--run_dir", ".", "--ckpt_path", "last")


def test_what_a_class_says_itself_names_no_folder(run: Path) -> None:
    """``./mlruns`` is in every config with MLflow, and read of none."""
    change_config(run, "trainer", "logger", value=classes(LOGGERS + "MLFlowLogger", save_dir="./mlruns"))
    run_config.check(run / "config.yaml")


@pytest.mark.parametrize(
    ("logger", "key", "variable"),
    [
        (
            {"class_path": LOGGERS + "MLFlowLogger", "init_args": {"tracking_uri": "http://a"}},
            "tracking_uri",
            "MLFLOW_TRACKING_URI",
        ),
        (
            {"class_path": "lit_rnn.loggers.WandbDashboard", "dict_kwargs": {"settings": {"base_url": "http://a"}}},
            "base_url",
            "WANDB_BASE_URL",
        ),
    ],
    ids=["mlflow", "wandb"],
)
def test_no_server_is_told_that_you_have_not_named(
    logger: dict[str, Any], key: str, variable: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be sent the key to yours."""
    change_config(run, "trainer", "logger", value=logger)
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f"{key} is 'http://a', but it must be what {variable} says"):
        run_config.check(run / "config.yaml")
    monkeypatch.setenv(variable, "http://a")
    run_config.check(run / "config.yaml")


@pytest.mark.parametrize("command", ["fit", "validate", "predict", "attack"])
def test_every_command_refuses_it(command: str, run: Path, told: Callable[..., str], planted: str) -> None:
    change_config(run, "data", value=classes(f"{planted}.Data", delay=5))
    told(command, "--run_dir", "run", "--ckpt_path", "last")


@pytest.mark.parametrize("kind", ["class", "bomb"])
def test_analyze_goes_without_such_data_and_says_so(
    kind: str, run: Path, cli: Callable[..., Any], told: Callable[..., str], planted: str
) -> None:
    if kind == "class":
        change_config(run, "data", value=classes(f"{planted}.Data", delay=5))
    else:
        (run / "config.yaml").write_text(BOMB)
    why = f"{planted}.Data" if kind == "class" else "refused:"
    assert why in told("analyze", "--run_dir", "run", "--ckpt_path", "last", "--only", "spectrum", "dynamics")
    done = cli("analyze", "--run_dir", "run", "--ckpt_path", "last", "--points", "4", "--steps", "4")
    assert done.status == 0 and planted not in sys.modules, done
    said = "".join(done.out.split())
    assert "Dynamicsareleftout" in said and why in said


def test_the_config_of_a_resume_is_no_better(run: Path, told: Callable[..., str], planted: str) -> None:
    first = (run / "config.yaml").read_text()
    change_config(run, "trainer", "callbacks", value=[classes(f"{planted}.Watch")])
    (run / "config.yaml").rename(run / "config-2.yaml")
    (run / "config.yaml").write_text(first)
    told("test", "--run_dir", "run", "--ckpt_path", "last")


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("command", ["fit", "test", "predict", "validate", "analyze", "attack"])
def test_commands_write_where_the_checkpoint_lies(
    command: str, run: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    change_config(run, "run_dir", value=str(tmp_path / "elsewhere"))
    change_config(run, "trainer", "default_root_dir", value=str(tmp_path / "elsewhere"))
    change_config(run, "ckpt_path", value=str(tmp_path / "other.ckpt"))
    more = {
        "fit": ("--trainer.max_epochs", "3"),
        "analyze": ("--only", "spectrum"),
        "attack": ("--attacks", "random_swaps", "--samples", "2", "--queries", "2"),
    }
    done = cli(command, "--ckpt_path", run / "checkpoints" / "last.ckpt", *more.get(command, ()))
    assert done.status in (0, 2), done  # default_root_dir may be refused
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "planted.py"}


DEEP = "[" * 51 + "]" * 51
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: 1}}\n" for n in range(1, 40))
TEXTS = {
    "bomb": BOMB,
    "merges": MERGES,
    "loop": "x: &x [*x]",
    "loop by key": "x: &x {y: *x}",
    "deep": f"x: {DEEP}",
    "very deep": f"x: {'[' * 100_000}",
    "deep blocks": "\n".join(" " * n + "x:" for n in range(200)),
    "deep dashes": "- " * 20_000 + "x",
    "long": "x: '" + "y" * 1_000_000 + "'",
    "many": "x: [" + "y, " * 100_000 + "]",
    "many keys": "\n".join(f"k{n}: 1" for n in range(100_000)),
    "apply": "x: !!python/object/apply:os.system ['touch CALLED']",
    "new": "x: !!python/object/new:os.system ['touch CALLED']",
    "name": "x: !!python/name:os.system",
    "module": "x: !!python/module:antigravity",
    "tuple": "x: !!python/tuple [1]",
    "tagged root": "!!python/object/apply:os.system ['touch CALLED']",
    "two documents": "x: 1\n---\nx: !!python/object/apply:os.system ['touch CALLED']",
    "not yaml": "{",
    "bytes": "\0\1\2",
    "text": "just a text",
    "list": "[1, 2]",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_hostile_yaml_in_a_run_folder_is_refused(kind: str, run: Path, told: Callable[..., str]) -> None:
    text = TEXTS[kind]
    honest = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text if text.startswith(("!!", "{", "\0", "just", "[")) else honest + text + "\n")
    told("test", "--run_dir", "run", "--ckpt_path", "last")


# one text for each limit, and what is no config at all
@pytest.mark.parametrize("kind", ["bomb", "merges", "deep", "long", "apply", "two documents", "bytes", "text"])
def test_hostile_yaml_of_your_own_is_refused(kind: str, told: Callable[..., str], tmp_path: Path) -> None:
    """In a config, in a study, and in the base of a study."""
    mine, study = tmp_path / "mine.yaml", tmp_path / "study.yaml"
    mine.write_text(TEXTS[kind])
    study.write_text(TEXTS[kind])
    told("fit", "-c", mine, "--run_dir", "new")
    told("study", study, "--dry_run")
    study.write_text(yaml.safe_dump({"base": str(mine), "seeds": [1], "grid": {"model.init_args.layers": [1]}}))
    told("study", study, "--dry_run")


OPTIONS = ["--model.init_args.optimizer", "--trainer.callbacks", "--data", "--model"]


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        *((option, kind) for option in OPTIONS for kind in ("bomb", "deep", "apply")),
        *((OPTIONS[0], kind) for kind in ("very deep", "many", "long")),
    ],
)
def test_hostile_yaml_on_the_command_line(
    option: str, kind: str, config: Callable[..., str], cli: Callable[..., Any], untouched: Watch
) -> None:
    text = TEXTS[kind].replace("x: ", "", 1) if kind != "bomb" else "{" + BOMB.strip().replace("\n", ", ") + "}"
    path = config()
    with untouched():
        done = cli("fit", "-c", path, option, text, "--run_dir", "new")
    assert done.status == 2 and done.err.startswith("lit_rnn: ") and len(done.err.splitlines()) == 1, done


def test_aliases_within_the_limits_work(config: Callable[..., str], capfd: pytest.CaptureFixture[str]) -> None:
    path = Path(config())
    text = path.read_text().replace("train_samples: 32", "train_samples: &n 8")
    path.write_text(text.replace("val_samples: 8", "val_samples: *n"))
    assert "*n" in path.read_text() and "&n" in path.read_text()
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(path), "--print_config"])
    assert not end.value.code
    init_args = yaml.safe_load(capfd.readouterr().out)["data"]["init_args"]
    assert init_args["train_samples"] == init_args["val_samples"] == 8


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000, '{"class_path": "os.system"}', "\0", "NaN"])
def test_reports_that_are_planted_run_nothing(
    text: str, run: Path, cli: Callable[..., Any], untouched: Callable[[], Any]
) -> None:
    """fit.json, metrics.csv and versions.json of somebody else, in a comparison: a table, or one sentence."""
    for name in ("fit.json", "metrics.csv", "versions.json"):
        (run / name).write_text(text)
    with untouched():
        done = cli("compare", "run")
    assert done.status in (0, 2), done
    if done.status == 2:
        assert done.err.startswith("lit_rnn: ") and len(done.err.splitlines()) == 1, done.err
