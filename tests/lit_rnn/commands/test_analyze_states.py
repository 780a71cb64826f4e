"""What `analyze` says of states: fixed points, the linear probe, and whether Newton's method would do."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import brentq

from datamodules import CopyMemory, Parity, PermutationWord, PixelDigits, Task
from datamodules.batch import Parts
from lit_rnn.analysis import lyapunov_spectrum
from lit_rnn.class_paths import class_path
from lit_rnn.commands.analyze import pictures
from lit_rnn.commands.analyze.measure import dynamics
from lit_rnn.commands.analyze.states import pictures as states_pictures
from lit_rnn.commands.analyze.states.measure import _projected
from lit_rnn.commands.analyze.subject import matrices
from lit_rnn.models import LRU, DeltaProduct, ExpRNN, LinOSS, SequenceModel, VanillaRNN
from lit_rnn.report import style
from lit_rnn.scan import scan
from tests.pictures import checked

PARITY: dict[str, Any] = {"length": 8, "val_lengths": None, "train_samples": 8, "val_samples": 8, "test_samples": 8}


def task() -> Any:
    return Parity(**PARITY).task


def save(model: SequenceModel, data: dict[str, Any] | None = None, name: str = "last", steps: int = 0) -> str:
    """A run folder with the checkpoint, on Parity."""
    path = Path(f"r/checkpoints/{name}.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save({**kept, "lit_rnn": {"class_path": class_path(type(model)), "optimizer_steps": steps}}, path)
    section = {"class_path": "datamodules.Parity", "init_args": {**PARITY, "seed": 1}}
    Path("r/config.yaml").write_text(yaml.safe_dump({"data": data or section}))
    return "r"


def found(name: str = "states") -> dict[str, Any]:
    (moment,) = json.loads(Path("r/analysis/last/analysis.json").read_text())["matrices"][name].values()
    return dict(moment)


def bistable() -> VanillaRNN:
    """h = tanh([[1, 0.6], [0.6, 1]] h), which does not see its input: two stable points, and a saddle at 0."""
    model = VanillaRNN(task(), 2, learn_initial_state=True).double()
    cell: Any = model.cell_list()[0]
    with torch.no_grad():
        cell.recurrent.weight.copy_(torch.tensor([[1, 0.6], [0.6, 1]], dtype=torch.float64))
        cell.input.weight.zero_()
        cell.initial[0].copy_(torch.tensor([0.3, -0.2]))
    return model


def counting() -> DeltaProduct:
    """One reflection for every 1: its state is -1 or 1, the parity of what it has read (by hand, no training)."""
    model = DeltaProduct(task(), 1, householder=1, learn_initial_state=True).double()
    cell: Any = model.cell_list()[0]
    q, k, v, beta = cell.input_matrices()
    with torch.no_grad():
        for matrix, value in ((q, 1e4), (k, 1e4), (v, 0.0), (beta, -1e4)):
            matrix.fill_(value)
        beta[:, 1] = 1e4
        cell.initial[0].fill_(1.0)
    return model


def permuting(data: PermutationWord) -> DeltaProduct:
    """Its state is the permutation matrix of what was read, from the identity on; a swap is one reflection, a 3-cycle
    are two (by hand, no training)."""
    model = DeltaProduct(data.task, 3, learn_initial_state=True).double()
    cell: Any = model.cell_list()[0]
    high, low = (brentq(lambda a, s=sign: a / (1 + math.exp(-a)) - s / 4, 0.0, sign) for sign in (1, -1))
    _, k, v, beta = cell.input_matrices()
    with torch.no_grad():
        cell.initial[0].copy_(torch.eye(3).flatten())
        v.zero_()
        k.fill_(1.0)
        beta.fill_(-1e4)
        for symbol, image in enumerate(itertools.permutations(range(3))):
            swaps = swaps_of(list(image))
            for step, (i, j) in enumerate(swaps):
                k[3 * step : 3 * step + 3, symbol] = 0
                k[3 * step + i, symbol], k[3 * step + j, symbol] = high, low
                beta[step, symbol] = 1e4
    return model


def swaps_of(image: list[int]) -> list[tuple[int, int]]:
    """Swaps that, one after another, bring the point in every place i to image[i]."""
    now, found = list(range(len(image))), []
    for i, goal in enumerate(image):
        if now[i] != goal:
            found.append((now[i], goal))
            now = [goal if p == now[i] else now[i] if p == goal else p for p in now]
    return found


def test_fixed_points_of_a_network_made_by_hand(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = checked(monkeypatch)
    done = cli("analyze", "--run_dir", save(bistable()), "--only", "fixed_points")
    assert done.status == 0, done.err
    assert drawn() == 1
    told, s = found(), brentq(lambda s: math.tanh(1.6 * s) - s, 0.1, 2.0, xtol=1e-15)
    # all start in the basin of one stable point, or where the saddle is nearer
    assert told["fixed_count"] == len(told["fixed_kinds"]) and set(told["fixed_kinds"]) <= {"stable", "unstable"}
    with np.load("r/analysis/last/analysis.npz") as arrays:
        (key,) = (key for key in arrays.files if key.startswith("states") and key.endswith("fixed_points"))
        points, values = arrays[key], arrays[key.replace("fixed_points", "fixed_eigenvalues")]
    for kind, point, own in zip(told["fixed_kinds"], points, values, strict=True):
        place, slope = (s, 1 - s * s) if kind == "stable" else (0.0, 1.0)
        assert np.abs(point) == pytest.approx([place, place], abs=1e-7)
        assert np.sort(own.real) == pytest.approx([0.4 * slope, 1.6 * slope], abs=1e-6)
    sentence = " ".join(done.out.split())
    assert f"{told['stable_count']} stable" in sentence and "the input held at symbol" in sentence


@pytest.fixture
def _no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "draw_page", lambda *_: False)


@pytest.mark.parametrize("N", [1, 2, 5])
def test_the_plane_is_that_of_the_largest_variances(N: int) -> None:
    """Along orthonormal axes with uncorrelated coordinates of known variance; an axis has no sign."""
    rng = np.random.default_rng(0)
    axes, centre = np.linalg.qr(rng.normal(size=(N, N)))[0], rng.normal(size=N)
    raw = rng.normal(size=(60, N))
    raw = np.linalg.qr(raw - raw.mean(0))[0]  # columns of mean 0, length 1, at right angles
    deviations = np.array([3.0, 0.5, 1.0, 0.2, 0.1])[:N]
    own = raw * deviations
    every = (centre + own @ axes.T).reshape(12, 5, N)
    result = _projected(every[:, :2], every.reshape(60, N), (centre + np.arange(1, N + 1) @ axes.T)[None])
    ranked = np.argsort(-deviations)[:2]
    assert result["plane_explained"] == pytest.approx(deviations[ranked] ** 2 / (deviations**2).sum(), rel=1e-12)
    shown = own.reshape(12, 5, N)[:, :2]
    for axis in range(2):
        found = result["plane_trajectories"][..., axis]
        expected = shown[..., ranked[axis]] if axis < N else np.zeros((12, 2))
        sign = np.sign((found * expected).sum()) or 1.0
        np.testing.assert_allclose(sign * found, expected, atol=1e-12)
        point = 1 + ranked[axis] if axis < N else 0
        assert sign * result["plane_points"][0, axis] == pytest.approx(point, abs=1e-12)


@pytest.mark.usefixtures("_no_pages")
def test_the_probe_reads_parity_where_it_is_kept(cli: Any) -> None:
    done = cli("analyze", "--run_dir", save(counting()), "--only", "probe")
    assert done.status == 0, done.err
    told = found()
    assert told["probe_accuracy"] == told["probe_beyond"] == 1.0 and told["probe_trained"] == 8
    assert told["probe_elements"] == 2 and 0.5 <= told["probe_chance"] < 0.6 and len(told["probe_by_step"]) == 32
    assert "state tells 2 elements apart with accuracy 1 up to step 8, 1 beyond" in " ".join(done.out.split())
    cli("analyze", "--run_dir", save(bistable()), "--only", "probe")  # which sees nothing
    told = found()
    assert abs(told["probe_accuracy"] - 0.5) < 0.1 and abs(told["probe_beyond"] - 0.5) < 0.1


@pytest.mark.usefixtures("_no_pages")
def test_the_probe_of_a_group_before_and_after(cli: Any) -> None:
    """Of S3: a state that stands still before, and the element itself behind."""
    options = {**PARITY, "group": "S3", "seed": 1}
    data, section = PermutationWord(**options), {"class_path": "datamodules.PermutationWord", "init_args": options}
    before = permuting(data)
    with torch.no_grad():
        before.cell_list()[0].input_matrices()[3].fill_(-1e4)
    save(before, section, "init")
    done = cli("analyze", "--run_dir", save(permuting(data), section, steps=5), "--against", "init", "--only", "probe")
    assert done.status == 0, done.err
    moments = json.loads(Path("r/analysis/last-against-init/analysis.json").read_text())["matrices"]["states"]
    first, last = moments["step 0"], moments["step 5"]
    assert last["probe_elements"] == 6 and last["probe_accuracy"] == last["probe_beyond"] == 1.0
    assert set(last["probe_by_step"]) == {1.0} and last["probe_chance"] < 0.25
    assert abs(first["probe_beyond"] - 1 / 6) < 0.05 and first["probe_accuracy"] < 0.25


def test_the_probe_needs_a_task_that_tracks(refused: Any) -> None:
    copying = {"class_path": "datamodules.CopyMemory", "init_args": {"delay": 5, "val_samples": 8}}
    run = save(VanillaRNN(CopyMemory(delay=5).task, 2), copying)
    sentence = refused("analyze", "--run_dir", run, "--only", "probe")
    assert "--only names probe" in sentence and "PermutationWord" in sentence and "copy" in sentence


def test_what_reads_from_the_end_too_has_no_trajectory(refused: Any) -> None:
    digits = {"class_path": "datamodules.PixelDigits", "init_args": {}}
    run = save(VanillaRNN(PixelDigits().task, 2, bidirectional=True), digits)
    assert refused("analyze", "--run_dir", run, "--only", "fixed_points").endswith("whose trajectory is another.")


@pytest.mark.usefixtures("_no_pages")
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: ExpRNN(task(), 4, linear=True), "one iteration, as the cell is linear"),
        (counting, "one iteration, as the cell is linear"),
        (lambda: VanillaRNN(task(), 4, init="identity", lam=0.5), "below 0, so that it converges fast"),
        (lambda: VanillaRNN(task(), 4, "relu", init="identity", lam=2.0), "not below 0: it may need"),
    ],
    ids=["linear", "delta product", "tanh", "relu"],
)
@pytest.mark.filterwarnings("ignore:VanillaRNN starts with a linear growth")
def test_newtons_method(cli: Any, made: Any, said: str) -> None:
    """From the largest Lyapunov exponent, which is log 2 for relu(2 h + ..) while all units are above zero."""
    model = made()
    if said.startswith("not"):
        torch.nn.init.ones_(model.cell_list()[0].input.weight)
    done = cli("analyze", "--run_dir", save(model), "--only", "dynamics")
    assert done.status == 0, done.err
    text = " ".join(done.out.split())
    assert "Newton's method" in text and said in text
    told = found("mean Jacobian")
    assert told["affine"] is (not said.startswith(("below", "not")))
    if said.startswith("not"):
        assert told["largest_lyapunov"] == pytest.approx(math.log(2), rel=1e-6) and "λ1 is 0.693" in text


def test_a_stable_oscillator_is_not_chaotic() -> None:
    """A = 0.01, dt = 1/2: modulus (1 + dt^2 A)^(-1/2), and a period of 126 steps, far longer than the sequences."""
    model = LinOSS(task(), 2, state_size=1)
    cell: Any = model.cell_list()[0]
    with torch.no_grad():
        cell.a.fill_(0.01)
        cell.b.zero_()
    (told,) = dynamics(model, Parity(**PARITY).split("val")[np.arange(3)])
    assert told["lyapunov"].shape == (3, 4)
    assert told["lyapunov"] == pytest.approx(-math.log1p(0.0025) / 2, rel=1e-5)  # the cell is of float32
    jacobians = np.tile(np.array([[1, -0.005], [0.5, 1]]) / 1.0025, (8, 1, 1))
    assert lyapunov_spectrum(jacobians)[0] > 0.05, "a mean over these few steps has the other sign"


def test_what_is_kept_of_the_gradient_is_of_the_same_sequences() -> None:
    """All of it by an orthogonal step, whatever part of the loss the longest sequence has."""
    torch.manual_seed(0)
    label = Task("t", "values", 2, "label", 3, None, "last", 1.0, "accuracy", True)
    model = ExpRNN(label, 4, linear=True).double()
    inputs = torch.randn(3, 9, 2, dtype=torch.float64)
    (told,) = dynamics(model, Parts(inputs, torch.tensor([0, 1, 2]), lengths=torch.tensor([4, 9, 7])))
    assert len(told["gradient"]) == 9 and told["gradient_kept"] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("made", [LRU, LinOSS])
def test_the_input_direction_of_a_state_space_cell(made: Any) -> None:
    """One step from nothing moves the state along it: its column that is longest."""
    torch.manual_seed(0)
    model = made(task(), 4).double()
    (matrix,) = matrices(model, model)
    assert matrix.source is not None and matrix.source_name.startswith("input column")
    cell = model.cell_list()[0]
    moved = []
    for column in range(2):
        x = torch.zeros(1, 1, 2, dtype=torch.float64)
        x[0, 0, column] = 1.0
        _, state = scan(cell, x)
        moved.append(torch.cat(state, dim=-1)[0].detach().numpy())
    if made is LinOSS:  # z and s, each [Re | Im]; W is the same for both
        moved = [np.concatenate([part[:4] + 1j * part[4:] for part in np.split(one, 2)]) for one in moved]
    longest = max(moved, key=np.linalg.norm)
    np.testing.assert_allclose(matrix.source, longest, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("moments", "probe", "columns"), [(1, False, 2), (1, True, 3), (2, False, 4)])
def test_a_page_is_as_wide_as_its_widest_row(moments: int, probe: bool, columns: int, monkeypatch: Any) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(style, "save", lambda figure, path: saved.append(figure))
    found: dict[str, Any] = {
        "fixed_kinds": ["stable"],
        "plane_trajectories": np.zeros((3, 1, 2)),
        "plane_points": np.ones((1, 2)),
        "plane_explained": [1.0],
        "fixed_eigenvalues": np.array([[0.5j]]),
    }
    if probe:
        found |= {"probe_by_step": np.ones(3), "probe_chance": 0.5, "probe_trained": 2, "probe_elements": 2}
    pictures.draw_page("title", dict.fromkeys("ab"[:moments], found), Path("x.png"), states_pictures.PANELS)
    assert saved[0].get_figwidth() == 3.5 * columns and len(saved[0].axes) == columns
    assert all(axes.axison for axes in saved[0].axes)
