"""A sample of `kills.py`, which kills a run at every one of its file events; by hand it takes them all."""

from __future__ import annotations

import pytest

from tests.lit_rnn.runs import kills


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_killed_run_goes_on_as_if_nothing_had_been(capsys: pytest.CaptureFixture[str]) -> None:
    failed = kills.main_(events=4, moments=1, names=["plateau"])
    said = capsys.readouterr().out
    assert failed == 0 and said.splitlines()[-1].endswith(" kills survived, 0 not"), said
