"""The tutorials run from top to bottom, and their committed outputs are what they give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is in the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="nbclient is in the extra `test`")
ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def outputs(cell: Any) -> list[str]:
    """What kind of things a cell shows: two streams in a row are one."""
    kinds = [output.get("name") or max(output.get("data", {"error": 0})) for output in cell.get("outputs", [])]
    return [kind for before, kind in zip([None, *kinds], kinds, strict=False) if kind != before]


# the client's event loop and sockets are not ours
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_committed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the tree under test, as `make` installs it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # notebooks work in a folder of their own
    committed = nbformat.read(path, as_version=4)
    executed = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(executed, timeout=300, kernel_name="python3").execute()
    for before, after in zip(committed.cells, executed.cells, strict=True):
        assert outputs(before) == outputs(after), before.source
        assert "stderr" not in outputs(after), after.outputs


def test_the_notebooks_are_ready_for_colab() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        assert '"google.colab" in sys.modules' in first.source and "%pip install" in first.source, path.name
        assert path.stat().st_size < 400_000, f"{path.name} is large"
