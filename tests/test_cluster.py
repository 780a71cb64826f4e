"""The files of cluster/, as far as a machine without a cluster can try them: syntax, schemas, command lines."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.config_parser import resolve

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "cluster"
FILES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in FILES if name.endswith((".sbatch", ".sh"))]
MANIFESTS = [name for name in FILES if name.endswith(".yaml")]
SBATCH = {  # the long options of sbatch that are used, and what they take
    "partition": r"[\w-]+",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "job-name": r"\w+",
    "output": r"[\w%.-]+",
    "open-mode": "append|truncate",
    "requeue": "",
    "signal": r"(B:)?USR1@\d+",
}


def test_every_file_has_three_lines_to_edit() -> None:
    assert len(SCRIPTS) == 3 and len(MANIFESTS) == 2
    for name in FILES:
        text = (FOLDER / name).read_text()
        assert text.count("# <- edit") == 3 and "dit the three lines" in text.replace("\n# ", " "), name


# ---- scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_reads_it(name: str) -> None:
    done = subprocess.run(["bash", "-n", FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@pytest.mark.parametrize("path", [*(f"cluster/{name}" for name in SCRIPTS), ".ci/fresh", ".ci/docker-steps"])
def test_shellcheck_finds_nothing(path: str) -> None:
    found = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([found, "-x", path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.endswith(".sbatch")])
def test_sbatch_is_given_what_it_knows(name: str) -> None:
    """All before the first command: sbatch reads no further."""
    lines = (FOLDER / name).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert directives == [line for line in lines[:first] if line.startswith("#SBATCH")]
    options = [word for line in directives for word in shlex.split(line, comments=False)[1:]]
    given = dict(word.removeprefix("--").partition("=")[::2] for word in options[: len(options)] if word[:2] == "--")
    for option, value in given.items():
        assert option in SBATCH and re.fullmatch(SBATCH[option], value), f"--{option}={value}"
    assert given["gpus-per-node"] == given["ntasks-per-node"], "a task for each GPU"
    assert (int(given["nodes"]) > 1) == (name == "slurm_nodes.sbatch")


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[list[str]]]]:
    """Run a script with launchers that only note how they are called; the status of the run is given."""
    (tools := tmp_path / "tools").mkdir()
    for tool in ("srun", "torchrun", "scontrol"):
        status = "0" if tool == "scontrol" else "${STATUS:-0}"
        noted = (
            f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {tool} \"$@\" >> {tmp_path}/noted"
        )
        (tools / tool).write_text(f"#!/bin/sh\n{noted}\nexit {status}\n")
        (tools / tool).chmod(0o755 | stat.S_IXUSR)

    def run(name: str, status: int = 0) -> tuple[int, list[list[str]]]:
        (tmp_path / "noted").write_text("")
        slurm = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "17"}
        slurm |= {"SLURM_CPUS_PER_TASK": "4", "STATUS": str(status)}
        env = os.environ | slurm | {"PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", FOLDER / name], env=env, capture_output=True, text=True)
        assert done.stderr == "", done.stderr
        return done.returncode, [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]

    return run


def fit_options(words: list[str]) -> list[str]:
    """What follows `-m lit_rnn fit`."""
    at = words.index("-m")
    assert words[at : at + 3] == ["-m", "lit_rnn", "fit"], words
    return words[at + 3 :]


def check_command(options: list[str], processes: int, nodes: int) -> None:
    """Our own parser takes it, and it is the line that may be repeated: in one folder, with --resume auto."""
    assert options[options.index("--resume") + 1] == "auto"
    config = resolve(options)
    assert config["run_dir"] and config["resume"] == "auto"
    assert (int(config["trainer"]["devices"]), config["trainer"]["num_nodes"]) == (processes, nodes)
    assert config["trainer"]["strategy"] == ("ddp" if processes * nodes > 1 else "auto")
    whole = yaml.safe_load((ROOT / "configs/pixel_mnist/exprnn.yaml").read_text())["data"]["init_args"]["batch_size"]
    assert config["data"]["init_args"]["batch_size"] * processes * nodes == whole, "a step sees what the paper's does"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_command_of_a_script_is_one_of_ours(name: str, launched: Any) -> None:
    status, calls = launched(name)
    assert status == 0 and len(calls) == 1
    launcher, *words = calls[0]
    assert launcher == ("torchrun" if name == "torchrun.sh" else "srun")
    check_command(fit_options(words), processes=4, nodes=2)
    if launcher == "srun":  # which, since 22.05, does not take it from sbatch: a task would have a single core
        assert words[: words.index("python")] == ["--wait=120", "--cpus-per-task=4"]
    if launcher == "torchrun":
        ours = dict(zip(words[: words.index("-m") : 2], words[1 : words.index("-m") : 2], strict=True))
        assert (ours["--nnodes"], ours["--nproc-per-node"]) == ("2", "4")
        assert ours["--rdzv-endpoint"] == "node0:29500" and ours["--rdzv-id"] == "lit_rnn-runs/mnist"
        from torch.distributed.run import parse_args

        assert parse_args(words).max_restarts == 3, "torchrun's own parser takes it"


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.endswith(".sbatch")])
@pytest.mark.parametrize("status", [0, 1, 2, 137, 138, 143])
def test_slurm_queues_again_what_usr1_has_stopped(name: str, status: int, launched: Any) -> None:
    """And nothing else: not what failed, and not what was cancelled (TERM)."""
    ended, calls = launched(name, status)
    assert ended == status
    assert [call for call in calls if call[0] == "scontrol"] == (
        [["scontrol", "requeue", "17"]] if status == 138 else []
    )


# ---- manifests


def manifest(name: str) -> dict[str, Any]:
    (document,) = yaml.safe_load_all((FOLDER / name).read_text())
    assert isinstance(document, dict)
    return document


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The templates of a manifest's pods."""
    if document["kind"] == "Job":
        yield document["spec"]["template"]
    else:
        yield from (one["template"] for one in document["spec"]["pytorchReplicaSpecs"].values())


def validate(document: dict[str, Any]) -> None:
    """Raise unless Kubernetes' own schemas take it; of Kubeflow's kind, what its reference says, and the pods."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    if document["kind"] == "Job":
        validator.validate(document, "1.31", strict=True)
        return
    assert document["apiVersion"] == "kubeflow.org/v1" and document["kind"] == "PyTorchJob"
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    spec = document["spec"]
    assert set(spec) <= {"elasticPolicy", "nprocPerNode", "pytorchReplicaSpecs", "runPolicy"}
    assert isinstance(spec["nprocPerNode"], str), "a text in its schema"
    policy = {"activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "suspend", "ttlSecondsAfterFinished"}
    assert set(spec["runPolicy"]) <= policy and spec["runPolicy"]["cleanPodPolicy"] in ("None", "Running", "All")
    assert (
        set(spec["pytorchReplicaSpecs"]) <= {"Master", "Worker"}
        and spec["pytorchReplicaSpecs"]["Master"]["replicas"] == 1
    )
    for replica in spec["pytorchReplicaSpecs"].values():
        assert set(replica) == {"replicas", "restartPolicy", "template"}
        assert replica["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **replica["template"]}
        validator.validate(pod, "1.31", strict=True)
        assert [one["name"] for one in pod["spec"]["containers"]] == ["pytorch"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_schema(name: str) -> None:
    validate(manifest(name))


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("key", ["backoffLimit", "restartPolicy", "image", "name", "terminationGracePeriodSeconds"])
def test_a_wrong_manifest_is_not(name: str, key: str) -> None:
    """Misspelling a key of the job or its pod, wherever it stands, is noticed."""

    def misspelt(value: Any) -> Any:
        if isinstance(value, dict):
            return {f"{inner}x" if inner == key else inner: misspelt(below) for inner, below in value.items()}
        return [misspelt(item) for item in value] if isinstance(value, list) else value

    document = copy.deepcopy(manifest(name))
    document["spec"] = misspelt(document["spec"])
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    with pytest.raises(Exception, match=rf"(?s){key}|properties|required|Pod|set"):
        validate(document)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_command_of_a_manifest_is_one_of_ours(name: str) -> None:
    document = manifest(name)
    nodes = (
        1
        if document["kind"] == "Job"
        else sum(one["replicas"] for one in document["spec"]["pytorchReplicaSpecs"].values())
    )
    for pod in pods(document):
        (container,) = pod["spec"]["containers"]
        words = [*container.get("command", ["python", "-m", "lit_rnn"]), *container["args"]]  # the image's entry point
        check_command(fit_options(words), processes=1, nodes=nodes)
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert set(mounted.values()) == {one["name"] for one in pod["spec"]["volumes"]}
        assert {"/data", "/runs", "/dev/shm"} == set(mounted)
        run_dir = words[words.index("--run_dir") + 1]
        assert run_dir.startswith("/runs/")
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    if document["kind"] == "PyTorchJob":
        assert document["spec"]["nprocPerNode"] == words[words.index("--trainer.devices") + 1]


def test_a_command_that_is_not_ours_is_noticed() -> None:
    with pytest.raises(UserError, match="trainer"):
        resolve(["--config", "quickstart.yaml", "--trainer.num_node", "2"])
