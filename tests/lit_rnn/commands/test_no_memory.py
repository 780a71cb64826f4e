"""An allocation that fails, wherever in a command it does: one sentence."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import warnings
from pathlib import Path
from typing import Any

import pytest

from lit_rnn.__main__ import main
from tests.lit_rnn.runs.mounts import forked

TOO_LARGE = [
    "analyze --run_dir r --only pseudospectrum --points 10000",
    "attack --run_dir r --ckpt_path last --attacks swaps --samples 8 --data.init_args.delay 30000000",
]


@pytest.mark.usefixtures("_no_pictures")
def test_an_analysis_that_does_not_fit_is_a_sentence(cli: Any, config: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0

    def work() -> None:
        used = re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())
        assert used is not None
        resource.setrlimit(resource.RLIMIT_AS, ((int(used[1]) << 10) + (1 << 28),) * 2)
        for line in TOO_LARGE:
            err = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other data
                status = main(line.split())
            told = err.getvalue().splitlines()
            assert status == 2 and len(told) == 1, (line, status, told)
            assert re.match(r"lit_rnn: There is not enough memory \([\d.]+ GiB at once", told[0]), told
        os._exit(0)

    assert forked(work) == 0
