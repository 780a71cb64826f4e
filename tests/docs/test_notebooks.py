"""The tutorials run from top to bottom, and their committed outputs are what they give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is in the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="nbclient is in the extra `test`")
from jupyter_client.manager import AsyncKernelManager  # noqa: E402  # they come with nbclient
from jupyter_core.utils import run_sync  # noqa: E402

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def outputs(cell: Any) -> list[str]:
    """What kind of things a cell shows: two streams in a row are one."""
    kinds = [output.get("name") or max(output.get("data", {"error": 0})) for output in cell.get("outputs", [])]
    return [kind for before, kind in zip([None, *kinds], kinds, strict=False) if kind != before]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all notebooks: to start it, and what they import, takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        # the tree under test, as `make` installs it
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("notebooks")))  # they work in a folder of their own
        manager = AsyncKernelManager(kernel_name="python3")
        yield manager
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)


# the client's event loop and sockets are not ours
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_committed(path: Path, kernel: Any) -> None:
    committed = nbformat.read(path, as_version=4)
    executed = nbformat.read(path, as_version=4)
    executed.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # of what the one before has named
    client = nbclient.NotebookClient(executed, km=kernel, timeout=300)
    client.execute()
    client.kc.stop_channels()  # the kernel is not its own: it would leave its sockets open
    for before, after in zip(committed.cells, executed.cells[1:], strict=True):
        assert outputs(before) == outputs(after), before.source
        assert "stderr" not in outputs(after), after.outputs


def test_the_notebooks_are_ready_for_colab() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        assert '"google.colab" in sys.modules' in first.source and "%pip install" in first.source, path.name
        assert path.stat().st_size < 400_000, f"{path.name} is large"
