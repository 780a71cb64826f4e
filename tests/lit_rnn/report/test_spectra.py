"""Spectra of gates and layers: whole titles, one legend, a panel for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lit_rnn.report.spectra import Spectrum, draw_spectra
from lit_rnn.report.states import draw_states
from tests.pictures import checked

GATES = ("input", "forget", "cell", "output")


@pytest.mark.parametrize("names", [("recurrent",), GATES, [f"layer {k} {gate}" for k in range(2) for gate in GATES]])
def test_spectra(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20) + 1j * rng.normal(size=20)
    spectrum = Spectrum({"before training": values, "after": values / 2}, "ρ 0.9, ‖W‖ 1\nHenrici 0.2", {"reach": 1.5})
    drawn = checked(monkeypatch)
    draw_spectra(dict.fromkeys(names, spectrum), tmp_path / "p" / "spectra.png")
    assert drawn() == 1 and (tmp_path / "p" / "spectra.png").stat().st_size > 5000


def test_states_of_two_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    panels = ("norm", "distance", "gradient")
    stored = {f"{s} {layer} {p}": rng.random(300) for s in (0, 1000, 20_000) for layer in (0, 1) for p in panels}
    stored["0 0 gradient"] = np.zeros(300)
    drawn = checked(monkeypatch)
    draw_states(stored, tmp_path / "states.png")
    assert drawn() == 1
