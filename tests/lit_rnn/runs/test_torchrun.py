"""cluster/torchrun.sh for real: a process is killed, a node cut off and brought back; the run is none the worse."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FAULTS = '''
"""In the second epoch, the second process dies with nothing said; when it has been begun again, the link goes down."""
import os
import signal
import time
from pathlib import Path
from pytorch_lightning import Callback


class Faults(Callback):
    def __init__(self, link: bool) -> None:
        self.link = link

    def on_fit_start(self, trainer, pl_module):
        self.again = Path("killed").exists()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != 3:
            return
        if not self.again:
            if trainer.global_rank == 1:
                Path("killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif self.link and trainer.global_rank == 0:
            Path("cut me off").touch()
            while not Path("cut").exists():
                time.sleep(0.05)
'''
SECONDS_WITHOUT_A_LINK = 2


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Nodes:
    """Two network namespaces with a link between them, each with a name of its own for the host.

    Raises:
        CalledProcessError: where making them is not permitted.
    """

    def __init__(self, folder: Path) -> None:
        self.names = [f"lit_rnn-{os.getpid()}-{i}" for i in (0, 1)]
        self.links = [f"lit{os.getpid()}n{i}" for i in (0, 1)]
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n10.77.0.1 node0\n10.77.0.2 node1\n")

    def make(self) -> None:
        (a, b), (c, d) = self.names, self.links
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", c, "netns", a, "type", "veth", "peer", "name", d, "netns", b)
        for i, (name, link) in enumerate(zip(self.names, self.links, strict=True)):
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", link)
            for up in ("lo", link):
                ip("-n", name, "link", "set", up, "up")
        subprocess.run([*self.inside(0), "true"], check=True, capture_output=True, text=True)

    def inside(self, i: int) -> list[str]:
        """What starts a command on a node."""
        names = f'mount --bind "{self.hosts}" /etc/hosts && hostname node{i} && exec "$@"'
        return ["ip", "netns", "exec", self.names[i], "unshare", "--mount", "--uts", "sh", "-c", names, "sh"]

    def cut(self, seconds: float) -> None:
        """Take the second node's end of the link down for so long."""
        ip("-n", self.names[1], "link", "set", self.links[1], "down")
        (self.hosts.parent / "cut").touch()
        time.sleep(seconds)
        ip("-n", self.names[1], "link", "set", self.links[1], "up")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes | str]:
    """Or why there are none."""
    lacking = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if lacking:
        yield f"{' and '.join(lacking)} is not installed"
        return
    made = Nodes(tmp_path)
    why = None
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        why = f"network namespaces are not permitted: {error.stderr.strip()}"
    yield why or made
    made.remove()


@pytest.mark.parametrize("count", [1, 2], ids=["one node", "two nodes"])
def test_a_run_goes_on_where_a_process_was_killed_and_a_node_cut_off(
    count: int, nodes: Nodes | str, tmp_path: Path, cli: Any
) -> None:
    """By the script with its three lines edited, two processes on one node or one on each of two."""
    if count == 2 and isinstance(nodes, str):
        pytest.skip(nodes)
    if count == 1 and isinstance(nodes, Nodes):
        pytest.skip("two nodes can be tried here, which do the same")
    data = {"delay": 5, "train_samples": 32, "val_samples": 8, "batch_size": 8}
    config: dict[str, Any] = {
        "threads": 1,
        "model": {"class_path": "ExpRNN", "init_args": {"hidden_size": 8}},
        "data": {"class_path": "CopyMemory", "init_args": data},
        "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu"},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "faults.py").write_text(FAULTS)
    faults = {"callbacks": [{"class_path": "faults.Faults", "init_args": {"link": count == 2}}]}
    (tmp_path / "faults.yaml").write_text(yaml.safe_dump({"trainer": faults}))
    meet = "node0:29500"
    if count == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            meet = f"127.0.0.1:{probe.getsockname()[1]}"
    run = "run=(--config c.yaml --config faults.yaml --data.init_args.num_workers 0 --run_dir r)"
    edited = iter((f"nodes={count} processes={2 // count}", f"meet={meet}", run))
    lines = (ROOT / "cluster" / "torchrun.sh").read_text().splitlines()
    script = "\n".join(next(edited) if line.endswith("# <- edit") else line for line in lines)
    overlay = "--config cluster/multi_node.yaml"  # its workers are processes, too: none here
    (tmp_path / "torchrun.sh").write_text(script.replace(overlay, f"{overlay} --data.init_args.num_workers 0"))
    (tmp_path / "torchrun").write_text(f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "LIT_RNN", "MASTER_"))}
    env |= {"PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1", "PATH": f"{tmp_path}:{env['PATH']}"}
    call = ["timeout", "--kill-after=5", "300", "bash", "torchrun.sh"]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    calls = [call] if isinstance(nodes, str) else [[*nodes.inside(i), *call] for i in (0, 1)]
    started = [subprocess.Popen(one, cwd=tmp_path, env=env, **pipe) for one in calls]
    if isinstance(nodes, Nodes):
        while not (tmp_path / "cut me off").exists() and all(one.poll() is None for one in started):
            time.sleep(0.05)
        nodes.cut(SECONDS_WITHOUT_A_LINK)
    said = [one.communicate()[0] for one in started]
    assert [one.returncode for one in started] == [0] * len(started), said
    assert (tmp_path / "killed").is_file() and (tmp_path / "cut").is_file() is (count == 2)
    out = said[0]
    assert out.count("ExpRNN with") == 2, "it began, and went on"
    assert out.count("epoch 1  step 2 ") == out.count("epoch 2  step 4 ") == 1, out

    # 32 samples, 8 a process, 2 epochs: as one process that nothing happened to, with batches twice as large
    whole = cli("fit", "-c", "c.yaml", "--data.init_args.batch_size", 16, "--run_dir", "whole")
    assert whole.status == 0, whole.err
    ours, theirs = (json.loads((tmp_path / name / "fit.json").read_text()) for name in ("r", "whole"))
    assert ours["steps"] == theirs["steps"] == 4
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
