"""The callback that watches matrices: what it logs, when, what it costs, and that training does not notice."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Adding
from lit_rnn import analysis
from lit_rnn.callbacks.watch import Account, _numbers
from lit_rnn.init import fbchain_
from lit_rnn.models import load
from tests.lit_rnn.conftest import rows

pytestmark = pytest.mark.usefixtures("_no_pictures")


def watching(**options: Any) -> dict[str, Any]:
    return {"callbacks": [{"class_path": "WatchMatrices", "init_args": options}]}


def watched(folder: str | Path) -> dict[int, dict[str, float]]:
    """What was logged of matrices and gradients, by step."""
    wanted = ("matrix/", "gradient/", "layer")
    found = {
        int(row["step"]): {key: float(value) for key, value in row.items() if key.startswith(wanted)}
        for row in rows(folder)
        if any(key.startswith(wanted) for key in row)
    }
    return {step: values for step, values in found.items() if values}


# ---- what is logged


def test_numbers_are_those_of_the_weights_at_that_step(cli: Any, config: Any) -> None:
    """Against NumPy on the checkpoint of the same step."""
    model = {"class_path": "VanillaRNN", "init_args": {"hidden_size": 8, "init": "gaussian"}}
    assert cli("fit", "-c", config(model=model, trainer=watching(every_n_steps=4)), "--run_dir", "r").status == 0
    logged = watched("r")
    assert list(logged) == [3, 7], "the steps that were taken last, counted from 0"
    W = load("r/checkpoints/last.ckpt").cells[0].recurrent.weight.detach().double().numpy()
    values = np.linalg.eigvals(W)
    last = {key.removeprefix("matrix/recurrent/"): value for key, value in logged[7].items()}
    assert last["spectral_radius"] == pytest.approx(abs(values).max(), rel=1e-9)
    assert last["spectral_norm"] == pytest.approx(np.linalg.norm(W, 2), rel=1e-12)
    departure = math.sqrt(np.linalg.norm(W) ** 2 - (abs(values) ** 2).sum())
    assert last["henrici"] == pytest.approx(departure, rel=1e-9)
    assert last["drift"] == pytest.approx(abs(W.T @ W - np.eye(8)).max(), rel=1e-9)
    # sigma_min(z I - W) = eps somewhere on the circle of radius rho_eps, and nowhere below it
    circle = last["pseudospectral_radius"] * np.exp(1j * np.linspace(0, 2 * np.pi, 4001))
    nearest = np.linalg.svd(circle[:, None, None] * np.eye(8) - W, compute_uv=False)[:, -1].min()
    assert nearest == pytest.approx(0.01, rel=1e-4)


def test_gradient_is_that_of_the_loss_by_the_state(cli: Any, config: Any) -> None:
    """A linear recurrence read out at its end: dL/dh_{T-k} = (W^T)^k dL/dh_T, of squared error by hand."""
    data = {"class_path": "Adding", "init_args": {"length": 9, "train_samples": 32, "val_samples": 8, "batch_size": 8}}
    model = {"class_path": "VanillaRNN", "init_args": {"hidden_size": 6, "nonlinearity": "identity"}}
    path = config(model=model, data=data, trainer=watching(every_n_steps=8, samples=5))
    assert cli("fit", "-c", path, "--run_dir", "r").status == 0
    (logged,) = watched("r").values()
    trained = load("r/checkpoints/last.ckpt")
    W, V = trained.cells[0].recurrent.weight, trained.cells[0].input
    x, target = Adding(**data["init_args"], seed=1).split("val")[np.arange(5)]
    h = torch.zeros(5, 6)
    for step in x.unbind(1):
        h = h @ W.mT + V(step)
    gradient = 2 * (trained.decoder(h) - target) @ trained.decoder.weight
    for lag in range(9):
        if f"gradient/lag_{lag}" in logged:
            assert logged[f"gradient/lag_{lag}"] == pytest.approx(gradient.norm(dim=1).mean().item(), rel=1e-4)
        gradient = gradient @ W
    assert {f"gradient/lag_{lag}" for lag in (0, 2, 4, 6, 8)} | {"gradient/zero_fraction"} <= logged.keys()


def test_gates_and_layers_come_apart(cli: Any, config: Any) -> None:
    model = {"class_path": "LSTM", "init_args": {"hidden_size": 6, "layers": 2}}
    assert cli("fit", "-c", config(model=model, trainer=watching(every_n_steps=8)), "--run_dir", "r").status == 0
    (logged,) = watched("r").values()
    for layer in (0, 1):
        for gate in ("input", "forget", "cell", "output"):
            assert f"matrix/layer {layer} {gate}/spectral_radius" in logged
        assert f"layer {layer} gradient/lag_0" in logged


def test_eigenvalues_that_float64_gets_wrong_are_left_out() -> None:
    numbers = _numbers(fbchain_(torch.empty(60, 60, dtype=torch.float64)), 0.01)
    assert numbers.keys() == {"spectral_norm", "pseudospectral_radius", "drift"}
    assert 0.8 < numbers["pseudospectral_radius"] < 1.1, "where the eigenvalues reach to 0.4"


def test_an_orthogonal_matrix_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes an SVD for each eigenvalue: minutes for a thousand of them."""
    W = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    W[0, 1] += 2e-5
    searched = analysis.pseudospectral_radius(W, 0.01)
    monkeypatch.setattr(analysis, "pseudospectral_radius", lambda *_: pytest.fail("searched"))
    assert _numbers(W, 0.01)["pseudospectral_radius"] == pytest.approx(searched, rel=1e-4)
    with pytest.raises(pytest.fail.Exception):
        _numbers(torch.triu(W), 0.01)


def test_weights_that_are_no_numbers_do_not_end_a_run() -> None:
    assert _numbers(torch.full((3, 3), math.nan), 0.01) == {}


# ---- training does not notice


@pytest.mark.parametrize("model", ["DtrivRNN", "LSTM"])
def test_weights_are_the_same_with_and_without(cli: Any, config: Any, model: str) -> None:
    options = {"class_path": model, "init_args": {"hidden_size": 6}}
    for folder, trainer in (("r", watching(every_n_steps=1)), ("s", watching(budget=0.0))):
        assert cli("fit", "-c", config(model=options, trainer=trainer), "--run_dir", folder).status == 0
    ours, theirs = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("r", "s"))
    assert len(watched("r")) == 8 and not watched("s")
    assert all(torch.equal(tensor, theirs["state_dict"][key]) for key, tensor in ours["state_dict"].items())
    assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_logs_what_the_uninterrupted_one_does(cli: Any, config: Any, step: int) -> None:
    path = config(trainer=watching(every_n_steps=2))
    assert cli("fit", "-c", path, "--run_dir", "whole").status == 0
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", step).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    assert rows("r") == rows("whole")


def test_accumulated_gradients_are_one_step(cli: Any, config: Any) -> None:
    trainer = {**watching(every_n_steps=1), "accumulate_grad_batches": 2}
    assert cli("fit", "-c", config(trainer=trainer), "--run_dir", "r").status == 0
    assert list(watched("r")) == [0, 1, 2, 3]


# ---- when


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def simulated(
    share: float, epoch_seconds: float, cost: Callable[[int], float], trial: float, epochs: int, stops: int = 0
) -> tuple[list[int], float]:
    """The epochs that are watched, and the largest share of the time that was ever spent, over one run."""
    clock = Clock()
    account, largest, seen = Account(share, clock), 0.0, []
    account.start()

    def estimate() -> float:
        clock.now += trial
        return cost(0)

    for epoch in range(1, epochs + 1):
        clock.now += epoch_seconds
        if account.is_due(epoch, estimate):
            with account.paying():
                clock.now += cost(epoch)
            seen.append(epoch)
        largest = max(largest, account.spent / account.seconds)
        if stops and epoch == stops:
            state = json.loads(json.dumps(account.state()))
            clock.now += 1e5  # a night between the sessions
            account = Account(share, clock)
            account.resume(state)
            account.start()
    return seen, largest


@pytest.mark.parametrize("epoch_seconds", [0.01, 0.3, 4.0, 60.0, 3000.0])
@pytest.mark.parametrize("seconds", [0.002, 0.1, 1.0, 40.0])
@pytest.mark.parametrize("stops", [0, 700])
def test_the_share_holds_at_every_moment(epoch_seconds: float, seconds: float, stops: int) -> None:
    """For whatever epochs and watches take, with 30 % of noise, and across a resume; and not much is left unused."""
    noise = random.Random(0)
    epochs = 2000
    seen, largest = simulated(0.02, epoch_seconds, lambda _: seconds * noise.uniform(0.7, 1.3), 0.2, epochs, stops)
    assert largest <= 0.02
    after_the_wait = max(epochs * epoch_seconds - 15, 0)
    affordable = min(0.02 * after_the_wait / seconds, after_the_wait / epoch_seconds)
    assert len(seen) >= affordable / 3 - 2, "a safety of 1.5, and periods that are powers of two"


def test_a_watch_that_takes_no_time_is_due_at_every_epoch() -> None:
    """As where there is no matrix to watch."""
    assert simulated(0.02, 5.0, lambda _: 0.0, 0.0, 6) == ([3, 4, 5, 6], 0.0)


def test_epochs_of_a_slower_machine_are_among_those_of_a_faster_one() -> None:
    slow, _ = simulated(0.02, 5.0, lambda _: 3.0, 0.1, 500)
    fast, _ = simulated(0.02, 5.0, lambda _: 0.3, 0.1, 500)
    assert len(fast) > 4 * len(slow) > 0 and set(slow) <= set(fast)


def test_an_estimate_that_was_too_low_is_paid_off() -> None:
    """The first watch takes a hundred times what the pieces promised: silence until it is paid."""
    seen, _ = simulated(0.02, 1.0, lambda epoch: 20.0 if epoch else 0.2, 0.1, 10_000)
    assert seen[0] < 100 and seen[1] >= 20 / 0.02
    assert 20 * len(seen) < 0.02 * 10_000


def test_the_first_seconds_of_a_run_are_not_watched(cli: Any, config: Any) -> None:
    """So that short runs stay bit for bit what they were, and no estimate costs more than it may."""
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    assert not watched("r")
    seen, largest = simulated(0.02, 0.5, lambda _: 0.001, 0.25, 20)
    assert not seen and largest == 0


def test_the_default_watches_a_run_that_can_afford_it(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs as long as a minute each, by a clock that runs ahead."""
    epochs = iter(range(0, 10**6, 7))
    monkeypatch.setattr(Account, "seconds", property(lambda self: float(next(epochs))))
    assert cli("fit", "-c", config(trainer={"max_epochs": 6}), "--run_dir", "r").status == 0
    logged = watched("r")
    assert logged and set(logged) <= {3, 7, 11, 15, 19, 23}, "at the ends of epochs"
    assert all("matrix/recurrent/henrici" in values for values in logged.values())


def test_the_config_replaces_the_default(cli: Any, config: Any) -> None:
    """One account, not two: Lightning refuses two stateful callbacks of a kind."""
    assert cli("fit", "-c", config(trainer=watching(budget=0.05)), "--run_dir", "r").status == 0
    kept = torch.load("r/checkpoints/last.ckpt", weights_only=True)["callbacks"]
    assert [key for key in kept if "WatchMatrices" in key] == ["WatchMatrices"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_steps": 0}, ["every_n_steps", "0"]),
        ({"budget": 2.0}, ["budget", "2.0", "share"]),
        ({"eps": 0.0}, ["eps", "positive"]),
        ({"samples": 0}, ["samples", "0"]),
        ({"period": 3}, ["period"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_options(refused: Any, config: Any, options: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(trainer=watching(**options)), "--run_dir", "r")
    assert all(word in sentence for word in words), sentence
