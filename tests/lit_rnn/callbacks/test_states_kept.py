"""Callbacks for which a checkpoint would keep one state are refused in a sentence, where Lightning speaks of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from pytorch_lightning.trainer.connectors.callback_connector import _validate_callbacks_list

from datamodules import UserError
from lit_rnn import callbacks
from lit_rnn.callbacks import Drift, LastCheckpoint, Solved, Summary, WatchMatrices
from lit_rnn.commands.fit.settings import _keeps_state, check_states

STATEFUL = {"Solved", "LastCheckpoint", "WatchMatrices", "Summary"}  # of ours


class Own(Callback):
    """A user's, with a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"a": 1}


def test_ours_that_keep_a_state() -> None:
    ours = {name: cls for name, cls in vars(callbacks).items() if isinstance(cls, type) and issubclass(cls, Callback)}
    assert {name for name, cls in ours.items() if _keeps_state(cls.__new__(cls))} == STATEFUL


@pytest.mark.parametrize(
    "make",
    [Solved, LastCheckpoint, WatchMatrices, lambda: Summary(Path()), Own, Timer, lambda: EarlyStopping("val/loss")],
    ids=["Solved", "LastCheckpoint", "WatchMatrices", "Summary", "Own", "Timer", "EarlyStopping"],
)
def test_one_given_twice(make: Any) -> None:
    """Lightning refuses the same, but for `LastCheckpoint`, whose second state took the place of the first."""
    one, other = make(), make()
    name = type(one).__name__
    if name != "LastCheckpoint":
        with pytest.raises(RuntimeError, match="more than one stateful"):
            _validate_callbacks_list([one, other])
    with pytest.raises(UserError, match=rf"trainer\.callbacks names {name} twice.*: leave one out") as error:
        check_states([one, Drift(), other], [])
    assert ("give it another" in str(error.value)) == (name == "EarlyStopping") and "\n" not in str(error.value)


def test_one_that_every_run_has() -> None:
    best = ModelCheckpoint(monitor="val/accuracy", mode="max", save_top_k=3)
    told = "names ModelCheckpoint with the monitor val/accuracy, which every run has: leave it out, or give it another"
    with pytest.raises(UserError, match=told):
        check_states([best], [ModelCheckpoint(monitor="val/accuracy", mode="max")])


def test_those_that_go_together() -> None:
    """Other monitors, other modes, and what keeps no state."""
    together = [
        *(EarlyStopping("val/loss"), EarlyStopping("val/accuracy", mode="max"), Solved()),
        *(ModelCheckpoint(monitor="val/loss"), ModelCheckpoint(every_n_train_steps=5), Drift(), Drift()),
    ]
    added = [ModelCheckpoint(monitor="val/accuracy", mode="max"), WatchMatrices(), LastCheckpoint()]
    _validate_callbacks_list([*together, *added])
    check_states(together, added)


def test_a_config_with_two(refused: Any, config: Any) -> None:
    chosen = [{"class_path": "Solved", "init_args": {"below_chance": share}} for share in (0.5, 0.1)]
    sentence = refused("fit", "-c", config(trainer={"callbacks": chosen}), "--run_dir", "r")
    assert sentence == (
        "lit_rnn: trainer.callbacks names Solved twice, but a checkpoint keeps one state for both: leave one out."
    )
