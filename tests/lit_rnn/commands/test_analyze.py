"""The analyze command: its numbers against NumPy on the checkpoint's weights, and what it leaves on disk."""

from __future__ import annotations

import json
import math
import re
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from datamodules import Adding, CopyMemory, PixelMNIST, UserError
from lit_rnn.__main__ import main
from lit_rnn.cells import Cell, VanillaRNNCell
from lit_rnn.class_paths import class_path
from lit_rnn.commands.analyze import pictures
from lit_rnn.commands.analyze.findings import plain
from lit_rnn.commands.analyze.page import _file_names
from lit_rnn.commands.analyze.pictures import _levels, _pseudospectrum
from lit_rnn.commands.analyze.subject import Matrix, matrices
from lit_rnn.init import fbchain_
from lit_rnn.models import (
    GRU,
    JANET,
    LRU,
    LSTM,
    NRU,
    SLSTM,
    LipschitzRNN,
    ScuRNN,
    SequenceModel,
    StatisticalRU,
    VanillaRNN,
    load,
)
from lit_rnn.models.probes import extrapolated
from tests.pictures import checked

ADDING: dict[str, Any] = {"length": 12, "train_samples": 32, "val_samples": 8, "test_samples": 8, "batch_size": 8}
QUICK = ("--points", 8, "--steps", 6, "--samples", 3)
NO_PICTURES = ("--only", "spectrum")


def save(model: SequenceModel, path: Path, data: Any = None) -> Path:
    """A checkpoint; in a run folder with a config where there is ``data``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "lit_rnn": {"class_path": class_path(type(model)), "optimizer_steps": 0},
    }
    torch.save(kept, path)
    if data is not None:
        section = {"class_path": class_path(type(data)), "init_args": {**ADDING, "seed": 1}}
        (path.parents[1] / "config.yaml").write_text(yaml.safe_dump({"data": section}))
    return path


def adding() -> Adding:
    return Adding(**ADDING, seed=1)


def report(folder: str | Path = "r/analysis/last") -> dict[str, Any]:
    return json.loads((Path(folder) / "analysis.json").read_text())


def complexes(pairs: list[list[float]]) -> np.ndarray:
    return np.array([complex(*pair) for pair in pairs])


# ---- a run, from one end to the other


@pytest.fixture
def _no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a small analysis is its pictures."""
    monkeypatch.setattr(pictures, "draw_page", lambda *_: False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_tiny: Any) -> Path:
    """A run folder of a tanh network after eight steps, taken apart against its start."""
    folder = tmp_path_factory.mktemp("analyze")
    changes = {
        "model": {"class_path": "VanillaRNN", "init_args": {"hidden_size": 6, "init": "gaussian"}},
        "data": {"class_path": "Adding", "init_args": ADDING},
        "trainer": {"callbacks": [{"class_path": "WatchMatrices", "init_args": {"every_n_steps": 4}}]},
    }
    assert main(["fit", "-c", write_tiny(folder / "c.yaml", changes), "--run_dir", str(folder / "r")]) == 0
    options = ["--run_dir", folder / "r", "--against", "init", *QUICK]
    with pytest.MonkeyPatch.context() as patch:
        drawn = checked(patch)
        assert main(["analyze", *(str(option) for option in options)]) == 0 and drawn() == 2
    return folder / "r"


@pytest.fixture(scope="module")
def numbers(run: Path) -> dict[str, Any]:
    return report(run / "analysis" / "last-against-init")["matrices"]


def weights(run: Path) -> dict[str, np.ndarray]:
    paths = {"step 0": "init", "step 8": "last"}
    models = {label: load(run / "checkpoints" / f"{name}.ckpt") for label, name in paths.items()}
    return {label: model.cells[0].recurrent.weight.detach().double().numpy() for label, model in models.items()}


def test_files(run: Path) -> None:
    folder = run / "analysis" / "last-against-init"
    files = {"analysis.html", "analysis.json", "analysis.npz", "recurrent.png", "mean-jacobian.png"}
    assert {path.name for path in folder.iterdir()} == files
    for name in ("recurrent", "mean-jacobian"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_page_opens_offline(run: Path) -> None:
    text = (run / "analysis" / "last-against-init" / "analysis.html").read_text()
    assert text.count("data:image/png;base64,") == text.count("<img") == 2
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    for words in (
        "recurrent",
        "mean Jacobian",
        "step 0",
        "step 8",
        "spectral radius",
        "Lyapunov",
        "checkpoints/init.ckpt",
    ):
        assert words in text, words


def test_the_start_is_the_true_one(run: Path, numbers: dict[str, Any]) -> None:
    """The eigenvalues that the run itself wrote down before its first step."""
    with np.load(run / "pictures" / "spectrum_start.npz") as start:
        expected = np.sort_complex(start["recurrent"])
    assert np.sort_complex(complexes(numbers["recurrent"]["step 0"]["eigenvalues"])) == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("label", ["step 0", "step 8"])
def test_numbers_of_the_matrix(run: Path, numbers: dict[str, Any], label: str) -> None:
    W, found = weights(run)[label], numbers["recurrent"][label]
    values, vectors = np.linalg.eig(W)
    assert found["spectral_radius"] == pytest.approx(abs(values).max(), rel=1e-9)
    assert found["spectral_norm"] == pytest.approx(np.linalg.norm(W, 2), rel=1e-12)
    assert found["singular_values"] == pytest.approx(np.linalg.svd(W, compute_uv=False), rel=1e-12)
    assert found["eigenvector_condition"] == pytest.approx(np.linalg.cond(vectors), rel=1e-6)
    departure = math.sqrt(np.linalg.norm(W) ** 2 - (abs(values) ** 2).sum())
    assert found["henrici"] == pytest.approx(departure, rel=1e-9)
    assert found["henrici_normalized"] == pytest.approx(departure / np.linalg.norm(W), rel=1e-9)
    assert found["powers"] == pytest.approx([np.linalg.norm(np.linalg.matrix_power(W, k), 2) for k in range(7)])
    assert found["eigenvalues_in_double"] is True
    angles = np.linspace(0, 2 * np.pi, 2001)
    support = [np.linalg.eigvalsh((t * W + (t * W).conj().T) / 2)[-1] for t in np.exp(1j * angles)]
    assert found["numerical_radius"] == pytest.approx(max(support), rel=1e-5)
    for eps in (1e-4, 1e-3, 1e-2, 1e-1):  # sigma_min = eps is touched on the circle, from outside
        angle, width = 0.0, math.pi
        for _ in range(3):
            angles = angle + np.linspace(-width, width, 2001)
            circle = found[f"pseudospectral_radius_{eps:g}"] * np.exp(1j * angles)
            sigma = np.linalg.svd(circle[:, None, None] * np.eye(6) - W, compute_uv=False)[:, -1]
            angle, width = angles[sigma.argmin()], width / 500
        assert sigma.min() == pytest.approx(eps, rel=1e-4)


def test_the_grid_is_kept(run: Path, numbers: dict[str, Any]) -> None:
    with np.load(run / "analysis" / "last-against-init" / "analysis.npz") as arrays:
        sigma, W = (arrays[f"recurrent/step 8/{key}"] for key in ("sigma", "matrix"))
    assert np.array_equal(W, weights(run)["step 8"])
    x, y = (np.array(numbers["recurrent"]["step 8"][key]) for key in "xy")
    z = x + 1j * y[:, None]
    expected = np.linalg.svd(z[..., None, None] * np.eye(6) - W, compute_uv=False)[..., -1]
    assert sigma.shape == (8, 8) and sigma == pytest.approx(expected, rel=1e-5)
    assert numbers["recurrent"]["step 0"]["x"] == numbers["recurrent"]["step 8"]["x"], "side by side on one scale"


def test_dynamics_are_those_on_validation_data(run: Path, numbers: dict[str, Any]) -> None:
    """J_t = diag(1 - h_t^2) W along the first three validation sequences, by hand."""
    model = load(run / "checkpoints" / "last.ckpt").double()
    cell = model.cells[0]
    W, V, b = (p.detach().numpy() for p in (cell.recurrent.weight, cell.input.weight, cell.input.bias))
    inputs, targets = (part.double().numpy() for part in adding().split("val")[np.arange(3)][:2])
    h, jacobians = np.zeros((3, 6)), []
    for t in range(12):
        h = np.tanh(h @ W.T + inputs[:, t] @ V.T + b)
        jacobians.append((1 - h**2)[:, :, None] * W)
    J = np.stack(jacobians)
    found = numbers["mean Jacobian"]["step 8"]
    with np.load(run / "analysis" / "last-against-init" / "analysis.npz") as arrays:
        assert arrays["mean Jacobian/step 8/matrix"] == pytest.approx(J.mean((0, 1)), abs=1e-9)
        amplified = arrays["mean Jacobian/step 8/jacobian_singular_values"]
        assert amplified == pytest.approx(np.linalg.svd(J.reshape(-1, 6, 6), compute_uv=False), rel=1e-6)
    D, d = (p.detach().numpy() for p in (model.decoder.weight, model.decoder.bias))
    slope, flow = 2 * (h @ D.T + d - targets) @ D, []  # of the squared error of each sequence
    for t in reversed(range(12)):
        flow.append(np.linalg.norm(slope, axis=1).mean())
        slope = np.einsum("bi,bij->bj", slope, J[t])
    assert found["gradient"] == pytest.approx(flow, rel=1e-4)
    assert found["gradient_kept"] == pytest.approx(flow[-1] / flow[0], rel=1e-4)
    assert found["spectral_norm"] == pytest.approx(np.linalg.norm(J.mean((0, 1)), 2), rel=1e-9)
    counted = J[1:]  # a tenth of the steps turns Q
    volume = np.log(abs(np.linalg.det(counted))).mean(0)
    assert np.array(found["lyapunov"]).sum(1) == pytest.approx(volume, rel=1e-6), "the exponents add up to log |det J|"
    assert found["largest_lyapunov"] == pytest.approx(np.mean([row[0] for row in found["lyapunov"]]))
    assert found["saturation"][0] == pytest.approx((abs(h) > 0.99).mean())
    assert found["state_norm"][0] == pytest.approx(np.linalg.norm(h, axis=1).mean(), rel=1e-5)
    assert "fisher" not in found, "a Jacobian has no input"


def test_what_was_watched_is_shown(numbers: dict[str, Any]) -> None:
    history = numbers["recurrent"]["step 8"]["history"]
    assert history["spectral_radius"][0] == [4, 8] and "history" not in numbers["recurrent"]["step 0"]
    assert history["spectral_radius"][1][-1] == pytest.approx(numbers["recurrent"]["step 8"]["spectral_radius"])


# ---- every kind of network

LAYERS: dict[str, tuple[Callable[[Any], SequenceModel], dict[str, int], int]] = {
    "LSTM": (lambda task: LSTM(task, 4), dict.fromkeys(("input", "forget", "cell", "output"), 4), 8),
    "GRU": (lambda task: GRU(task, 4), dict.fromkeys(("reset", "update", "candidate"), 4), 4),
    "JANET": (lambda task: JANET(task, 4), dict.fromkeys(("forget", "candidate"), 4), 4),
    "NRU": (lambda task: NRU(task, 4, 4, heads=1), {"hidden": 4}, 8),
    "ScuRNN": (lambda task: ScuRNN(task, 4), {"recurrent": 4}, 8),
    "LipschitzRNN": (lambda task: LipschitzRNN(task, 4), {"A": 4, "W": 4}, 4),
    "two layers": (lambda task: VanillaRNN(task, 4, layers=2), {"layer 0 recurrent": 4, "layer 1 recurrent": 4}, 4),
    "SLSTM": (lambda task: SLSTM(task, 4), dict.fromkeys(("input", "forget", "cell", "output"), 4), 16),
    "LRU": (lambda task: LRU(task, 4, 3), {"recurrent": 6}, 6),
    "StatisticalRU": (lambda task: StatisticalRU(task, 4, statistics_size=2, summary_size=2), {}, 10),
}


@pytest.mark.usefixtures("_no_pages")
@pytest.mark.parametrize("name", LAYERS)
def test_gates_apart_and_the_joint_state(cli: Any, name: str) -> None:
    build, expected, joint = LAYERS[name]
    torch.manual_seed(0)
    path = save(build(adding().task), Path("r/checkpoints/last.ckpt"), adding())
    done = cli("analyze", "--ckpt_path", path, "--only", "spectrum", "dynamics", *QUICK)
    assert done.status == 0, done.err
    found = report()["matrices"]
    jacobians = [name for name in found if name.endswith("mean Jacobian")]
    assert list(found) == [*expected, *jacobians] and len(jacobians) == (2 if name == "two layers" else 1)
    sizes = {name: len(finding["step 0"]["eigenvalues"]) for name, finding in found.items()}
    assert sizes == {**expected, **dict.fromkeys(jacobians, joint)}
    assert all(name in done.out for name in found)


@pytest.mark.parametrize("build", [LAYERS["LSTM"][0], LAYERS["ScuRNN"][0]], ids=["gates", "complex"])
def test_a_signal_enters_by_the_longest_column_of_its_own_block(build: Callable[[Any], SequenceModel]) -> None:
    model = build(CopyMemory(delay=3).task)
    V = model.cells[0].input.weight.detach()
    n = 4
    for gate, matrix in enumerate(matrices(model, model)):
        block = torch.complex(V[:n], V[n:]) if len(V) == 2 * n else V[gate * n : (gate + 1) * n]
        longest = block.abs().square().sum(0).argmax()
        assert matrix.source is not None and np.array_equal(matrix.source, block[:, longest].to(matrix_type(matrix)))
        assert matrix.source_name == f"input column {longest + 1} of 10, the longest"


def matrix_type(matrix: Matrix) -> torch.dtype:
    return torch.complex128 if np.iscomplexobj(matrix.W) else torch.float64


def test_another_checkpoint_shows_the_same_column() -> None:
    """The later model chooses, so that memories compare."""
    torch.manual_seed(0)
    task = CopyMemory(delay=3).task
    one, other = VanillaRNN(task, 4), VanillaRNN(task, 4)
    (chosen,), (alone,) = list(matrices(one, other)), list(matrices(other, other))
    assert chosen.source_name == alone.source_name
    column = int(alone.source_name.split()[2]) - 1
    assert np.array_equal(chosen.source, one.cells[0].input.weight[:, column].detach().double().numpy())


# ---- where float64 is not enough


@pytest.mark.usefixtures("_no_pages")
def test_a_chain_with_feedback_in_high_precision(cli: Any) -> None:
    """Eigenvalues 2 sqrt(alpha beta) cos(pi j / 61), where LAPACK gives a radius above 0.7."""
    model = VanillaRNN(adding().task, 60, init="fbchain", alpha=0.99, beta=0.04)
    W = fbchain_(torch.empty(60, 60), 0.99, 0.04).double().numpy()
    alpha, beta = W[1, 0], W[0, 1]  # as float32 has them
    path = save(model, Path("m.ckpt"))
    assert cli("analyze", "--ckpt_path", path, *NO_PICTURES).status == 0
    found = report("analysis/m")["matrices"]["recurrent"]["step 0"]
    expected = 2 * math.sqrt(alpha * beta) * np.cos(np.pi * np.arange(1, 61) / 61)
    assert np.sort(complexes(found["eigenvalues"]).real) == pytest.approx(np.sort(expected), abs=1e-8)
    assert found["eigenvalues_in_double"] is False


@pytest.mark.parametrize("in_double", [True, False])
def test_the_picture_says_which_eigenvalues_it_shows(in_double: bool) -> None:
    x = np.linspace(-1, 1, 5)
    finding = {
        "x": x,
        "y": x,
        "sigma": abs(x + 1j * x[:, None]),
        "numerical_range": np.exp(1j * x),
        "eigenvalues": np.zeros(1, dtype=complex),
        "eigenvalues_in_double": in_double,
    }
    axes = Figure().subplots()
    _pseudospectrum([axes], {"step 1": finding})
    assert ("high precision" in axes.get_title()) is not in_double


def test_contours_stay_above_rounding() -> None:
    """None below about 1e-13 |W|, where sigma_min is no number but noise; and not too many."""
    deep = np.geomspace(1e-20, 3.0, 400).reshape(20, 20)
    for sigma in (deep, np.linspace(0, 2, 400).reshape(20, 20), np.full((4, 4), 0.7)):
        levels = _levels([sigma])
        assert 2 <= len(levels) <= 16 and (np.diff(levels) > 0).all()
        assert levels.min() >= np.log10(1e-13 * sigma.max()) and levels.max() >= np.log10(sigma.max())


# ---- what is left out is said


@pytest.mark.usefixtures("_no_pages")
def test_without_data_dynamics_are_left_out(cli: Any) -> None:
    save(VanillaRNN(adding().task, 4), Path("m.ckpt"))
    done = cli("analyze", "--ckpt_path", "m.ckpt", "--only", "spectrum")
    assert done.status == 0 and "Dynamics" not in done.out, "not asked for"
    done = cli("analyze", "--ckpt_path", "m.ckpt", *QUICK)
    assert done.status == 0 and "Dynamics are left out: m.ckpt is not in a run folder" in " ".join(done.out.split())
    assert "mean Jacobian" not in report("analysis/m")["matrices"]
    assert "Dynamics are left out" in Path("analysis/m/analysis.html").read_text()
    assert any("Dynamics" in sentence for sentence in report("analysis/m")["left_out"])


@pytest.mark.usefixtures("_no_pages")
def test_data_may_be_given(cli: Any) -> None:
    save(VanillaRNN(adding().task, 4), Path("m.ckpt"))
    named = ("--data", "Adding", "--data.length", "20", "--data.init_args.val_samples", "8")
    done = cli("analyze", "--ckpt_path", "m.ckpt", "--only", "dynamics", *named, *QUICK)
    assert done.status == 0 and "left out" not in done.out
    assert "mean Jacobian" in report("analysis/m")["matrices"]
    Path("other.yaml").write_text("model: {}\n")  # says nothing of data
    done = cli("analyze", "--ckpt_path", "m.ckpt", "--only", "dynamics", "--config", "other.yaml", *named, *QUICK)
    assert done.status == 0 and "left out" not in done.out
    Path("broken.yaml").write_text("data: [")
    for wrong, said in (
        (("--config", "other.yaml"), "a config with data.class_path"),
        (("--config", "broken.yaml"), "broken.yaml is not YAML"),
        (("--data", "CopyMemory", "--data.delay", "5"), "was trained on"),
        (("--data", "Nothing"), "--data is 'Nothing'"),
        (("--data.long", "5", "--data", "Adding"), "long"),
        (("--date", "Adding"), "--date is not an option"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ):
        done = cli("analyze", "--ckpt_path", "m.ckpt", "--only", "dynamics", *wrong, *QUICK)
        assert done.status == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.usefixtures("_no_pages")
def test_offline_dynamics_are_left_out(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(urllib.request, "urlretrieve", offline)
    section = {"class_path": "datamodules.pixels.PixelMNIST", "init_args": {"batch_size": 8}}
    task = PixelMNIST(batch_size=8).task
    path = save(VanillaRNN(task, 4), Path("r/checkpoints/last.ckpt"))
    Path("r/config.yaml").write_text(yaml.safe_dump({"data": section}))
    done = cli("analyze", "--ckpt_path", path, "--only", "spectrum")
    assert done.status == 0
    done = cli("analyze", "--ckpt_path", path, "--only", "dynamics")
    assert done.status == 2 and "could not be put there" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.usefixtures("_no_pages")
@pytest.mark.parametrize(("lam", "left_out"), [(1.0 + 1e-7, "Fisher memory is"), (1.1, "Memory is")])
def test_memory_is_left_out_where_it_would_tell_of_the_horizon(cli: Any, lam: float, left_out: str) -> None:
    """Fisher's where noise adds up without end; the decoder's too where it grows, and the first input drowns all."""
    save(VanillaRNN(adding().task, 4, init="identity", lam=lam), Path("m.ckpt"))
    done = cli("analyze", "--ckpt_path", "m.ckpt", "--only", "memory", *QUICK)
    said = " ".join(done.out.split())
    assert done.status == 0 and f"{left_out} left out" in said and "recurrent, step 0" in said
    found = report("analysis/m")["matrices"]["recurrent"]["step 0"]
    assert "fisher" not in found and ("decoder" in found) == (lam < 1.01)


@pytest.mark.usefixtures("_no_pages")
def test_kreiss_constant_of_an_orthogonal_network_is_one(cli: Any) -> None:
    """Its float32 weights have rho = 1 + 1e-7: an infinite K beside powers that stay at 1 contradicted the theorem."""
    model = VanillaRNN(adding().task, 30, init="orthogonal")
    model.cells[0].recurrent.weight.data *= 1 + 3e-7
    save(model, Path("m.ckpt"))
    assert cli("analyze", "--ckpt_path", "m.ckpt", "--only", "transient", *QUICK).status == 0
    found = report("analysis/m")["matrices"]["recurrent"]["step 0"]
    assert found["kreiss_lower_bound"] == 1.0 and found["largest_power"] == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("_no_pages")
def test_only_what_is_asked_for(cli: Any) -> None:
    save(VanillaRNN(adding().task, 4), Path("m.ckpt"))
    assert cli("analyze", "--ckpt_path", "m.ckpt", "--only", "nonnormality", "--out", "here").status == 0
    found = report("here")
    assert found["parts"] == ["nonnormality"] and "henrici" in found["matrices"]["recurrent"]["step 0"]
    assert not {"spectral_radius", "powers", "x"} & found["matrices"]["recurrent"]["step 0"].keys()


# ---- what is compared


@pytest.mark.usefixtures("_no_pages")
def test_checkpoints_of_two_runs(cli: Any) -> None:
    torch.manual_seed(0)
    for name in ("one", "two"):
        save(VanillaRNN(adding().task, 4), Path(name, "checkpoints", "last.ckpt"), adding())
    done = cli("analyze", "--run_dir", "one", "--against", "two/checkpoints/last.ckpt", *NO_PICTURES)
    assert done.status == 0 and "two, step 0" in done.out and "one, step 0" in done.out
    found = report("one/analysis/last-against-last")["matrices"]["recurrent"]
    assert list(found) == ["two, step 0", "one, step 0"]
    assert found["two, step 0"]["singular_values"] != found["one, step 0"]["eigenvalues"]


# ---- bad input


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """The contents of an LSTM's checkpoint."""
    return torch.load(save(LSTM(adding().task, 4), tmp_path / "m.ckpt"), weights_only=True)


@pytest.mark.parametrize("damage", ["option", "class", "module", "weights", "no model"])
def test_checkpoint_of_another_version(refused: Any, kept: dict[str, Any], damage: str) -> None:
    if damage == "option":
        kept["hyper_parameters"]["gone"] = 1
    elif damage == "weights":
        kept["state_dict"]["cells.0.renamed"] = kept["state_dict"].pop("cells.0.recurrent.weight")
    else:
        names = {"class": "lit_rnn.models.gated.Gone", "module": "lit_rnn.gone.LSTM", "no model": "torch.nn.Linear"}
        kept["lit_rnn"]["class_path"] = names[damage]
    torch.save(kept, "other.ckpt")
    sentence = refused("analyze", "--ckpt_path", "other.ckpt")
    told = "another version" if damage in ("option", "weights") else "no loaded SequenceModel"
    assert "other.ckpt" in sentence and told in sentence


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(refused: Any, kept: dict[str, Any], value: float) -> None:
    kept["state_dict"]["cells.0.recurrent.weight"][0, 0] = value
    torch.save(kept, "bad.ckpt")
    sentence = refused("analyze", "--ckpt_path", "bad.ckpt")
    assert "bad.ckpt" in sentence and "cells.0.recurrent.weight" in sentence and "NaN" in sentence


def test_broken_checkpoint(refused: Any, kept: dict[str, Any]) -> None:
    torch.save(kept, "whole.ckpt")
    whole = Path("whole.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "cut.ckpt" in refused("analyze", "--ckpt_path", "cut.ckpt")
    assert "whole.ckpt" not in refused("analyze", "--ckpt_path", "none.ckpt")


class OddCell(VanillaRNNCell):
    shape = (4, 3)

    def recurrent_matrices(self) -> dict[str, torch.Tensor]:
        return {"odd": torch.zeros(self.shape)}


class OddRNN(SequenceModel):
    def build_cell(self, input_size: int) -> Cell:
        return OddCell(input_size, self.options.hidden_size)


@pytest.mark.parametrize("shape", [(4, 3), (0, 0), (4,)])
def test_matrix_that_is_not_square(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OddCell, "shape", shape)
    model = OddRNN(asdict(adding().task), 4)
    with pytest.raises(UserError, match=r"'?odd'?.* (square|\(n, n\))"):
        list(matrices(model, model))


def test_architecture_without_a_recurrent_matrix(refused: Any, tmp_path: Path) -> None:
    save(LAYERS["StatisticalRU"][0](adding().task), tmp_path / "s.ckpt")
    sentence = refused("analyze", "--ckpt_path", "s.ckpt")
    assert "StatisticalRU" in sentence and "no square recurrent matrix" in sentence and "--only dynamics" in sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["ckpt_path", "--run_dir"]),
        (["--ckpt_path", "last"], ["last", "--run_dir"]),
        (["--run_dir", "nowhere"], ["nowhere"]),
        (["--ckpt_path", "m.ckpt", "--only", "spectrum", "poles"], ["poles", "pseudospectrum", "dynamics"]),
        (["--ckpt_path", "m.ckpt", "--only", "dynamics"], ["dynamics", "m.ckpt", "run folder"]),
        (["--ckpt_path", "m.ckpt", "--points", 1], ["--points", "1", "at least 2"]),
        (["--ckpt_path", "m.ckpt", "--steps", 0], ["--steps", "0"]),
        (["--ckpt_path", "m.ckpt", "--samples", 0], ["--samples", "0"]),
        (["--ckpt_path", "m.ckpt", "--threads", "few"], ["--threads", "few"]),
        (["--ckpt_path", "m.ckpt", "--against", "init"], ["init", "m.ckpt"]),
        (["--ckpt_path", "m.ckpt", "--against", "none.ckpt"], ["--against", "none.ckpt", "init or a checkpoint file"]),
        (["--ckpt_path", "m.ckpt", "--steps", 10**9], ["--steps", "at most 1,000,000"]),
        (["--ckpt_path", "m.ckpt", "--against", "gru.ckpt"], ["gru.ckpt", "GRU", "LSTM"]),
        (["--ckpt_path", "m.ckpt", "--against", "wide.ckpt"], ["wide.ckpt", "sizes"]),
        (["--ckpt_path", "m.ckpt", "--out", "m.ckpt"], ["--out", "m.ckpt"]),
        (["--ckpt_path", "m.ckpt", "--onyl", "spectrum"], ["--onyl"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if value and str(value[0]).startswith("--") else "",
)
def test_bad_options(refused: Any, kept: dict[str, Any], tmp_path: Path, options: list[Any], words: list[str]) -> None:
    save(GRU(adding().task, 4), tmp_path / "gru.ckpt")
    save(LSTM(adding().task, 5), tmp_path / "wide.ckpt")
    sentence = refused("analyze", *options)
    assert all(word in sentence for word in words), sentence


# ---- small things


def test_time_is_extrapolated_exactly_where_it_is_a_power() -> None:
    for power in (2, 3):
        small, large, whole = (0.7 + 0.01 * n**power for n in (4, 8, 100))
        assert extrapolated(small, large, 100 / 8, power) == pytest.approx(whole)
    assert extrapolated(2.0, 1.0, 10.0, 3) == 1.0, "noise"


@pytest.mark.usefixtures("_no_pages")
def test_large_matrices_are_estimated_first(cli: Any) -> None:
    save(VanillaRNN(adding().task, 128, init="gaussian"), Path("large.ckpt"))
    save(VanillaRNN(adding().task, 127, init="gaussian"), Path("small.ckpt"))
    done = cli("analyze", "--ckpt_path", "large.ckpt", "--only", "nonnormality")
    (line,) = (line for line in done.out.splitlines() if "small pieces" in line)
    assert re.fullmatch(r"about \d:\d\d:\d\d to \d:\d\d:\d\d \(h:mm:ss\) and \d+ MiB beyond .*", line)
    assert "small pieces" not in cli("analyze", "--ckpt_path", "small.ckpt", "--only", "nonnormality").out


def test_json_holds_what_json_can() -> None:
    given = {"a": np.array([1.0, math.inf, math.nan]), "b": 1 + 2j, "c": Path("x/y"), "d": (True, 3, -math.inf)}
    text = json.dumps(plain(given), allow_nan=False)
    assert json.loads(text) == {"a": [1.0, "infinity", None], "b": [1.0, 2.0], "c": "x/y", "d": [True, 3, "-infinity"]}


def test_every_picture_has_a_name_of_its_own() -> None:
    """Of matrices that a user has named, in any letters."""
    names = ["layer 0 W", "w", "W", "Ω", "Σ", "w-2"]
    assert list(_file_names(names).values()) == ["layer-0-w", "w", "w-2", "matrix", "matrix-2", "w-2-2"]
