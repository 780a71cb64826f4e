"""W&B: everything reaches the run, in sections; and no lost server, key or service stops one."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from datamodules import UserError
from lit_rnn.loggers import WandbDashboard
from tests.forked import forked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_tiny: Any) -> Path:
    """A run folder after `fit` and `test`, offline, with the best checkpoint as an artifact."""
    folder = tmp_path_factory.mktemp("wandb")
    watch = {"class_path": "WatchMatrices", "init_args": {"every_n_steps": 4}}
    write_tiny(folder / "c.yaml", {"trainer": {"callbacks": [watch], "gradient_clip_val": 1e-3}})
    overlay = ("-c", "c.yaml", "-c", "configs/loggers/wandb.yaml", "--run_dir", "r")
    for options in (
        ("fit", *overlay, "--trainer.logger.init_args.log_model", "true"),
        ("test", *overlay, "--ckpt_path", "best"),
    ):
        done = forked(folder, *options, WANDB_MODE="offline")
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and "wandb" not in done.stdout.lower(), "its banners"
    assert {path.name for path in folder.iterdir()} == {"c.yaml", "r"}, "outside the run folder"
    return folder / "r"


@pytest.fixture
def records(run: Path, wandb_records: Any) -> list[dict[str, list[Any]]]:
    """What the two commands wrote, the first one first."""
    return [wandb_records(file) for file in sorted(run.rglob("*.wandb"))]


def test_the_run_says_what_it_is(records: Any, wandb_items: Any, run: Path) -> None:
    """Its name has task, model and size; its config is flat, short, and without what is not set."""
    (began,) = records[0]["run"]
    assert began.display_name == "copy_memory ExpRNN 8, seed 1" and began.project == "lit_rnn"
    config = wandb_items(began.config.update)
    for change in records[0].get("config", []):
        config |= wandb_items(change.update)
    wanted = {
        "model": "ExpRNN",
        "model.hidden_size": 8,
        "data": "CopyMemory",
        "data.delay": 5,
        "seed_everything": 1,
        "trainer.max_epochs": 2,
        "trainer.callbacks": "WatchMatrices",
        "task": "copy_memory",
        "parameters": json.loads((run / "fit.json").read_text())["parameters"],
    }
    assert {key: config.get(key) for key in wanted} == wanted
    ours = {key: value for key, value in config.items() if key != "_wandb"}
    assert not any(isinstance(value, dict) or value is None for value in ours.values())
    assert "Namespace" not in json.dumps(config) and "init_args" not in json.dumps(ours)


def test_metrics_are_in_four_sections(records: Any, wandb_items: Any, run: Path) -> None:
    rows = [wandb_items(row.item) for row in records[0]["history"]]
    assert [row["trainer/global_step"] for row in rows if "train/loss_step" in row] == list(range(8))
    for name in ("val/loss", "val/accuracy", "train/loss", "recurrent/drift"):
        assert sum(name in row for row in rows) == 2, name
    keys = {key for row in rows for key in row if "/" in key and not key.startswith(("pictures/", "tables/"))}
    assert {key.partition("/")[0] for key in keys} == {"train", "val", "recurrent", "grad", "lr-RMSprop", "trainer"}
    assert {"recurrent/recurrent/spectral_radius", "grad/lag_0", "grad/zero_fraction"} <= keys
    text = (run / "metrics.csv").read_text()
    assert "matrix/recurrent/spectral_radius" in text and "gradient/lag_0" in text and "grad/norm" not in text

    # norms before clipping, of the whole and of the groups, at every logged step
    norms = [row for row in rows if "grad/norm" in row]
    assert [row["trainer/global_step"] for row in norms] == list(range(8))
    for row in norms:
        parts = row["grad/norm_recurrent"], row["grad/norm_other"]
        assert row["grad/norm"] == pytest.approx((parts[0] ** 2 + parts[1] ** 2) ** 0.5, rel=1e-9)
        assert row["grad/norm"] > 1e-3

    axes = {one.name or one.glob_name: one for one in records[0]["metric"]}
    for section in ("train/*", "val/*", "recurrent/*", "grad/*"):
        assert axes[section].step_metric or axes[section].step_metric_index, section
    assert axes["val/accuracy"].summary.max and axes["val/loss"].summary.min
    assert axes["trainer/global_step"].options.hidden


def test_the_best_value_is_in_the_summary(records: Any, wandb_items: Any, run: Path) -> None:
    summary: dict[str, Any] = {}
    for change in records[0]["summary"]:
        summary |= wandb_items(change.update)
    result = json.loads((run / "fit.json").read_text())
    for key in ("loss", "value", "chance", "steps", "parameters"):
        assert summary[f"fit/{key}"] == pytest.approx(result[key])
    values = [
        wandb_items(row.item)["val/accuracy"]
        for row in records[0]["history"]
        if "val/accuracy" in wandb_items(row.item)
    ]
    assert summary["val/accuracy"]["max"] == max(values) and summary["val/accuracy"]["last"] == values[-1]


def test_pictures_and_tables_are_shown(records: Any, wandb_items: Any, run: Path) -> None:
    rows = [wandb_items(row.item) for row in records[0]["history"]]
    shown = {key for row in rows for key in row if key.startswith(("pictures/", "tables/"))}
    names = {"pictures/task", "pictures/spectrum", "tables/spectra", "tables/predictions"}
    assert names <= {"/".join(key.split("/")[:2]) for key in shown}
    for name in ("task", "spectrum"):
        (image,) = (run / "wandb").glob(f"offline*/files/media/images/pictures/{name}*.png")
        assert image.read_bytes() == (run / "pictures" / f"{name}.png").read_bytes()
    (table,) = (run / "wandb").glob("offline*/files/media/table/tables/spectra*.json")
    held = json.loads(table.read_text())
    assert held["columns"][:2] == ["matrix", "units"] and held["data"][0][:2] == ["recurrent", 8]
    assert held["data"][0][2:] == pytest.approx([1] * 4, abs=1e-5), "the moduli of an orthogonal matrix"
    (table,) = (run / "wandb").glob("offline*/files/media/table/tables/predictions*.json")
    rows = json.loads(table.read_text())["data"]
    assert len(rows) == 6 and all(len(row[1].split()) == 20 for row in rows)


def test_the_best_checkpoint_is_an_artifact_where_that_is_asked(records: Any, run: Path) -> None:
    (artifact,) = (one for one in records[0]["artifact"] if one.type != "run_table")
    assert artifact.type == "model" and set(artifact.aliases) == {"latest", "best"}
    (entry,) = artifact.manifest.contents
    assert entry.path == "model.ckpt" and entry.size == (run / "checkpoints" / "best.ckpt").stat().st_size


def test_another_command_goes_on_with_the_same_run(records: Any, wandb_items: Any, run: Path) -> None:
    ids = [one["run"][0].run_id for one in records]
    assert len(ids) == 2 and len(set(ids)) == 1
    assert json.loads((run / "wandb.json").read_text())["id"] == ids[0]
    keys = {key for row in records[1]["history"] for key in wandb_items(row.item)}
    assert "test/loss" in keys
    assert [end.exit_code for one in records for end in one["exit"]] == [0, 0]


# ---- what may not stop a run


@pytest.fixture
def dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WandbDashboard]]:
    """A logger of a run folder, in an environment that says nothing of W&B but where its server is."""
    import wandb

    wandb.teardown()  # settings that another test of this process left
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no netrc
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")

    def make(url: str, key: str = "k" * 40, **options: Any) -> WandbDashboard:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        (tmp_path / "r").mkdir(exist_ok=True)
        logger = WandbDashboard(save_dir=str(tmp_path / "r"), project="p", **options)
        logger.belong(tmp_path / "r", "a name")
        return logger

    yield make
    wandb.teardown()  # its settings and its service are the process's
    wandb.run = None  # where the service died, it is still there


def closed() -> str:
    """The address of a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def history(folder: Path, rows: int, wandb_records: Any, wandb_items: Any) -> list[Any]:
    """The losses in the .wandb file, once as many are there: wandb's service writes behind."""
    files = sorted(folder.rglob("*.wandb"))
    for _ in range(100):
        read = [row for file in files for row in wandb_records(file).get("history", [])]
        found = [wandb_items(row.item).get("train/loss") for row in read]
        if len(found) >= rows:
            break
        time.sleep(0.2)
    return found


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("no server", "does not answer"),
        ("no key", "no key: set WANDB_API_KEY"),
        ("says nothing", "does not answer: ReadTimeout"),  # a connection is made, and that is all
        ("says nothing to the run", "CommError"),
    ],
)
def test_it_goes_offline_at_once(
    which: str,
    why: str,
    dashboard: Any,
    server: Any,
    tmp_path: Path,
    wandb_records: Any,
    wandb_items: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("lit_rnn.loggers.wandb._LOOK", 1.0)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    server.silent = ("HEAD", "POST") if which == "says nothing" else ("POST",)
    logger = dashboard(server.url if "nothing" in which else closed(), "" if which == "no key" else "k" * 40)
    start = time.monotonic()
    with pytest.warns(UserWarning, match="W&B goes offline") as told:
        logger.log_metrics({"train/loss": 1.5}, 0)
    assert time.monotonic() - start < 30
    (warning,) = told
    text = str(warning.message)
    assert why in text and "run goes on" in text
    glob = text.rpartition("wandb sync --include-online ")[2]
    logger.finalize("success")
    found = [path for path in Path("/").glob(glob.lstrip("/")) if path.is_dir()]  # what is to be synced is there
    assert len(found) == 1 + (which == "says nothing to the run"), found  # of this one also what it began
    assert history(tmp_path / "r", 1, wandb_records, wandb_items) == [1.5]


@pytest.mark.parametrize("how", ["cut off", "silent"])
def test_a_server_that_is_lost_in_between_changes_nothing(
    how: str, dashboard: Any, server: Any, tmp_path: Path, wandb_records: Any, wandb_items: Any
) -> None:
    logger = dashboard(server.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_hyperparams({"a": 1})
        logger.log_metrics({"train/loss": 1.0}, 0)
        assert "UpsertBucket" in [name for name, _ in server.asked], "it was online"
        if how == "cut off":
            server.cut_off()
        server.silent = ("GET", "HEAD", "POST", "PUT")
        start = time.monotonic()
        for step in range(1, 50):
            logger.log_metrics({"train/loss": 1.0 + step}, step)
        assert time.monotonic() - start < 10, "a step waits for the network"
    with pytest.warns(UserWarning, match="W&B takes no more notes") as told:
        logger.finalize("success")
    assert time.monotonic() - start < 40
    assert len(told) == 1 and "wandb sync" in str(told[0].message)
    assert history(tmp_path / "r", 50, wandb_records, wandb_items) == [1.0 + step for step in range(50)]


def test_a_resume_goes_on_with_the_run_of_the_server(dashboard: Any, server: Any, tmp_path: Path) -> None:
    for _ in range(2):
        logger = dashboard(server.url)
        logger.log_metrics({"train/loss": 1.0}, 0)
        logger.finalize("success")
    ids = {given["name"] for name, given in server.asked if name == "UpsertBucket" and given.get("name")}
    told = json.loads((tmp_path / "r" / "wandb.json").read_text())
    assert ids == {told["id"]} and told["project"] == "p" and told["url"].endswith(f"/runs/{told['id']}")
    assert {given["displayName"] for name, given in server.asked if name == "UpsertBucket"} >= {"a name"}


def test_the_death_of_its_service_changes_nothing(dashboard: Any) -> None:
    logger = dashboard(closed(), mode="offline")
    logger.log_metrics({"train/loss": 1.0}, 0)
    services = [child for child in psutil.Process().children() if "wandb-core" in " ".join(child.cmdline())]
    assert services
    for child in services:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(1, 50):
            logger.log_metrics({"train/loss": 1.0}, step)
            logger.summarize({"fit/loss": 1.0})
        logger.finalize("failed")
    assert [str(one.message)[:26] for one in told] == ["W&B takes no more notes (C"], [str(one.message) for one in told]


def test_an_id_that_is_no_text_is_damage(dashboard: Any, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "wandb.json").write_text('{"id": ["x"]}')
    with pytest.raises(UserError, match=r"wandb\.json is damaged \(id is not text\)"):
        dashboard(closed(), mode="offline")


def test_what_wandb_refuses_is_a_sentence(dashboard: Any) -> None:
    logger = dashboard(closed(), mode="offline", id="a/b")
    with pytest.raises(UserError, match=r"^trainer\.logger: W&B refuses its options: "):
        logger.log_metrics({"train/loss": 1.0}, 0)
