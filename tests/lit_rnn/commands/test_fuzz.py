"""A few of the odd configs and command lines of tests/fuzz.py, always the same, and what its judge lets pass."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests import fuzz

CASE = fuzz.Case(("fit", "-c", "case.yaml"), {"case.yaml": b"model: {class_path: x}"})


def test_odd_configs_and_command_lines(tmp_path: Path) -> None:
    """``python tests/fuzz.py`` tries thousands."""
    faults: list[str] = []

    def tell(case: fuzz.Case, did: fuzz.Ended, what: str | None) -> None:
        faults.extend([f"{what}: {case}\n{did.err}"] if what else [])

    fuzz.many(12, 4, tell, fuzz.make_run(tmp_path / "made"))
    assert not faults, faults


SENTENCE = "lit_rnn: model.class_path is x.\n"


@pytest.mark.parametrize(
    ("status", "err", "left", "word"),
    [
        (None, "", (), "hangs"),
        (1, "Traceback (most recent call last):\nValueError: a\n", (), "traceback"),
        (-9, "", (), "status -9"),
        (1, SENTENCE, (), "status 1"),
        (2, SENTENCE + SENTENCE, (), "not one sentence"),
        (2, "model.class_path is x.\n", (), "not one sentence"),
        (2, SENTENCE, ("runs",), "leaves"),
        (2, "lit_rnn: model is <class 'int'>.\n", (), "jargon"),
        (2, "lit_rnn: No.\n", (), "names neither"),
    ],
)
def test_the_judge_finds(status: int | None, err: str, left: tuple[str, ...], word: str) -> None:
    assert word in str(fuzz.fault(CASE, fuzz.Ended(status, "", err, False, 1.0, left)))


def test_the_judge_lets_pass() -> None:
    assert fuzz.fault(CASE, fuzz.Ended(2, "", SENTENCE, False, 1.0, ())) is None
    assert fuzz.fault(CASE, fuzz.Ended(0, "", "", True, 1.0, ("runs",))) is None
    assert fuzz.fault(CASE, fuzz.Ended(None, "", "", True, 1.0, ("runs",))) is None, "it trains, and would go on"


def test_a_case_that_hangs_takes_nothing_with_it(tmp_path: Path) -> None:
    def work() -> int:
        child = os.fork()
        if child == 0:
            time.sleep(600)
        Path("child").write_text(str(child))
        time.sleep(600)
        return 0

    (tmp_path / "here").mkdir()
    status, seconds = fuzz.in_a_fork(work, tmp_path / "here", 0.5)
    assert status is None and seconds < 5
    child = Path(tmp_path / "here" / "child").read_text()
    state = Path(f"/proc/{child}/stat")
    until = time.monotonic() + 10  # the signal is sent; a busy machine may take its time
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)
