"""What a user installs: the wheel, the Docker image's recipe, the tested versions, and what `make` says and skips."""

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import lit_rnn
from lit_rnn.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path, **env: object) -> subprocess.CompletedProcess[str]:
    """Run a command in another folder: for pip as if there were no network, for make as if nobody had called `make`."""
    env = {"PIP_NO_INDEX": 1, "MAKEFLAGS": "", "MAKELEVEL": 0} | env
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {name: str(value) for name, value in env.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def output_of(*command: object, cwd: Path, **env: object) -> str:
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def module(path: Path) -> Any:
    """A Python file that no package holds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


dockerfile = module(ROOT / ".ci/dockerfile.py")
STEPS = dockerfile.read((ROOT / "Dockerfile").read_text())


def docker(instruction: str) -> list[str]:
    """The arguments of every line of the Dockerfile with this instruction, continued lines joined."""
    return [step.argument for step in STEPS if step.name == instruction]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree to build in: in the checkout itself, setuptools would pick up what an earlier build left in build/."""
    return dockerfile.copy_context(ROOT, tmp_path / "source")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder: nothing of the checkout is importable from it, only what PYTHONPATH names or pip installed."""
    (folder := tmp_path / "elsewhere").mkdir()
    return folder


def run_installed(target: Path, *arguments: str, cwd: Path) -> str:
    """Run Python with what pip installed under `target`, having made sure that it is not the checkout that answers."""
    where = "from importlib.util import find_spec as f; print(f('lit_rnn').origin, f('datamodules').origin)"
    found = output_of(sys.executable, "-c", where, cwd=cwd, PYTHONPATH=target).split()
    assert found == [str(target / "lit_rnn/__init__.py"), str(target / "datamodules/__init__.py")]
    return output_of(sys.executable, *arguments, cwd=cwd, PYTHONPATH=target)


def test_wheel_works_outside_the_source_tree(source: Path, elsewhere: Path, tmp_path: Path) -> None:
    pip, target = (sys.executable, "-m", "pip"), tmp_path / "site"
    output_of(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source, cwd=elsewhere)
    (wheel,) = tmp_path.glob("*.whl")

    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {p.relative_to(ROOT).as_posix() for top in ("lit_rnn", "datamodules") for p in (ROOT / top).rglob("*.py")}
    configs = {f"lit_rnn/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.yaml")}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "lit_rnn/scan").iterdir() if p.suffix in (".cpp", ".h")}
    assert held == modules | configs | sources | {"lit_rnn/published.yaml"} and sources
    assert "lit_rnn/configs/quickstart.yaml" in held

    output_of(*pip, "install", "--no-deps", "--target", target, wheel, cwd=elsewhere)
    # Without --config this is the quickstart, and there is none here but the wheel's.
    assert "CopyMemory" in run_installed(target, "-m", "lit_rnn", "fit", "--print_config", cwd=elsewhere)
    compiles = "from lit_rnn.scan.native import library; print(*map(library, ('plain', 'gated', 'rotations')))"
    assert run_installed(target, "-c", compiles, cwd=elsewhere).count("CDLL") == 3


def test_docker_recipe_installs_and_starts(source: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Run the Dockerfile's install lines on what its COPY copies, in an otherwise empty folder, then its entry point.

    This proves that the build context is complete (every file that the build needs passes .dockerignore), that the
    lines are right, and that the command line starts from what they install. It does not prove anything about the base
    image, about the download of the dependencies (--no-deps: they are those of this environment), or about the GPU.
    """
    assert docker("COPY") == [". ."], "this test copies the whole build context"
    target = tmp_path / "site"
    lines = [line for line in docker("RUN") if line.startswith("pip install")]
    assert lines
    for line in lines:
        offline = ("--no-deps", "--no-build-isolation", "--target", target)
        output_of(sys.executable, "-m", *shlex.split(line), *offline, cwd=source)

    python, *arguments = json.loads(docker("ENTRYPOINT")[-1])
    assert python == "python"
    assert "fit" in run_installed(target, *arguments, "--help", cwd=elsewhere)


def test_docker_volumes_are_the_default_folders() -> None:
    here = PurePosixPath(docker("WORKDIR")[-1])
    assert [str(here / "data"), str(here / "runs")] == json.loads(docker("VOLUME")[-1])


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    text = '# a comment\nENV A=1 \\\n    B="two words"\n\nRUN x && \\\n  y\nCMD ["a b", "c"]\n'
    steps = dockerfile.read(text)
    assert [step.name for step in steps] == ["ENV", "RUN", "CMD"]
    assert steps[0].pairs == {"A": "1", "B": "two words"}
    assert steps[1].argument == "x && y" and steps[2].words == ["a b", "c"]
    check = dockerfile.health_check(dockerfile.Step("HEALTHCHECK", '--interval=1m --timeout=2m CMD ["x", "y"]'))
    assert check == ["x", "y"]
    with pytest.raises(SystemExit, match="SHELL is not understood"):
        dockerfile.read('SHELL ["bash"]')


def test_docker_steps_run_the_lines_of_the_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which commands `make docker-steps` runs, as whom, where and with which network; here none of them is."""
    ran: list[tuple[str, str, list[str], bool]] = []

    def inside(image: Any, command: list[str], network: bool) -> None:
        ran.append((image.user, image.folder, command, network))
        if "--trainer.max_steps" in command:
            (run := image.here("/runs/x")).mkdir(parents=True)
            (run / "fit.json").touch()

    monkeypatch.setattr(dockerfile.Image, "inside", inside)
    dockerfile.main(str(tmp_path))
    built = [one for one in ran if one[3]]
    assert [command for _, _, command, _ in built] == [["sh", "-c", line] for line in docker("RUN")]
    assert {user for user, _, _, _ in built} == {"root"}
    assert built[1][1] == "/src" and (tmp_path / "src" / "lit_rnn" / "__init__.py").is_file()
    after = [one for one in ran if not one[3]]
    assert {user for user, _, _, _ in after} == set(docker("USER")) != {"root"}
    entry = json.loads(docker("ENTRYPOINT")[-1])
    assert [*entry, *json.loads(docker("CMD")[-1])] in [command for _, _, command, _ in after]
    assert dockerfile.health_check(STEPS[[step.name for step in STEPS].index("HEALTHCHECK")]) in [
        one[2] for one in after
    ]
    assert ran.index(after[0]) > ran.index(built[-1]), "no network is left when its user comes"


def test_the_health_check_trains_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (step,) = (step for step in STEPS if step.name == "HEALTHCHECK")
    command = dockerfile.health_check(step)
    assert command[:3] == json.loads(docker("ENTRYPOINT")[-1])
    monkeypatch.chdir(tmp_path)
    assert main(command[3:]) == 0
    assert "epoch 1  step 1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "it leaves nothing"


def project() -> dict[str, Any]:
    """The metadata in pyproject.toml."""
    told: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return told


def test_nothing_is_said_in_two_files() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup.sections() == ["options.extras_require"] and "optional-dependencies" in project()["dynamic"]


def test_docker_labels_say_what_the_package_says() -> None:
    labels = {name: value for step in STEPS if step.name == "LABEL" for name, value in step.pairs.items()}
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    told = project()
    assert (said["title"], said["description"], said["licenses"]) == (
        told["name"],
        told["description"],
        told["license"],
    )
    assert said["version"] == lit_rnn.__version__
    assert said["base.name"].endswith(docker("FROM")[0])


def test_the_image_holds_no_more_than_it_is_built_from(source: Path) -> None:
    wanted = {"setup.py", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert {path.name for path in source.iterdir()} == wanted | {"lit_rnn", "datamodules", "configs"}
    assert not list(source.rglob("__pycache__"))


def test_compose_says_what_the_image_says() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(compose) == {"services", "volumes"}
    for name, service in compose["services"].items():
        mounted = dict(volume.split(":") for volume in service["volumes"])
        assert set(mounted) == set(compose["volumes"]) and list(mounted.values()) == json.loads(docker("VOLUME")[-1])
        command = service["command"]
        folder = command[command.index("--run_dir") + 1]
        assert folder.startswith(mounted["runs"] + "/"), name
    assert compose["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("script", ["fresh", "docker-steps"])
def test_what_needs_debootstrap_is_skipped_with_the_reason(script: str, tmp_path: Path) -> None:
    (tools := tmp_path / "tools").mkdir()
    for name in ("bash", "dirname", "id"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = run("bash", ROOT / ".ci" / script, cwd=tmp_path, PATH=tools)
    reason = "there is no debootstrap" if os.getuid() == 0 else "it needs root"
    assert done.returncode == 0 and done.stdout.startswith(f"make {script} is skipped: {reason}"), done


def test_docker_install_lines_are_those_of_the_readme() -> None:
    readme = {line.strip().removeprefix("$ ") for line in (ROOT / "README.md").read_text().splitlines()}
    for line in docker("RUN"):
        assert not line.startswith("pip") or line in readme, f"README.md does not show `{line}`"


UNPINNED = {"aeon"}  # its numba wants an older numpy than the tested one


def required(*left_out: str) -> list[Requirement]:
    """What pyproject.toml and the extras of setup.cfg ask for, but those ``left_out``."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {name: text.split("\n") for name, text in setup["options.extras_require"].items()}
    kept = [line for name, lines in extras.items() if name not in left_out for line in lines if line]
    every = [Requirement(line) for line in (*project()["dependencies"], *kept)]
    return [requirement for requirement in every if requirement.name not in UNPINNED]


def pins(file: str) -> dict[str, str]:
    """The versions of a file of constraints, by package."""
    lines = (ROOT / file).read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in pinned)
    return {canonicalize_name(pin.name): s.version for pin in pinned for s in pin.specifier}


def test_constraints_pin_every_requirement_within_its_range() -> None:
    pinned = pins("constraints.txt")
    for requirement in required():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt does not pin {requirement.name}"
        assert version in requirement.specifier, f"the package wants {requirement}, constraints.txt has {version}"


def test_the_lowest_constraints_are_the_lower_bounds() -> None:
    """So that none is promised that `make oldest` does not try; what only developers run it does not."""
    pinned = pins("constraints-lowest.txt")
    for requirement in required("dev"):
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints-lowest.txt does not pin {requirement.name}"
        assert [Version(version)] == [*map(Version, bounds)], f"{requirement}, constraints-lowest.txt has {version}"


def test_the_oldest_python_is_the_tested_one() -> None:
    """An older one is refused by pip and by make: what was never run there is not promised."""
    oldest = project()["requires-python"].removeprefix(">=")
    tested = re.search(r"tested, with Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert tested is not None and tested[1] == oldest
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in makefile
    assert f"No Python {oldest} or newer" in makefile


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose Python is a shell script: it notes what it is asked for, and copies itself where a venv goes."""
    (folder := tmp_path / "checkout").mkdir()
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    script = """\
        #!/bin/sh
        echo "$*" >> asked
        case "$*" in
            *ensurepip*) exit ${NO_ENSUREPIP:-0} ;;
            "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
            *"pip install"*) exit ${NO_NETWORK:-0} ;;
        esac
        """
    python = folder / "python3.11"
    python.write_text(re.sub(r"(?m)^ {8}", "", script))
    python.chmod(0o755)
    return folder


def test_make_installs_again_only_when_the_requirements_change(checkout: Path) -> None:
    def installs() -> list[str]:
        return [line for line in (checkout / "asked").read_text().splitlines() if "pip install" in line]

    make = ("make", "PYTHON=./python3.11", "run")
    assert run(*make, cwd=checkout, NO_NETWORK=1).returncode != 0
    output_of(*make, cwd=checkout)
    assert len(installs()) == 2, "a failed installation is tried again"
    output_of(*make, cwd=checkout)
    assert len(installs()) == 2
    for changed in ("setup.cfg", "constraints.txt"):
        before = len(installs())
        os.utime(checkout / changed, (soon := (checkout / ".venv/.installed").stat().st_mtime + 1, soon))
        output_of(*make, cwd=checkout)
        assert len(installs()) == before + 1
        os.utime(checkout / changed, (0, 0))
    assert all("-c constraints.txt -e ." in line for line in installs())


@pytest.mark.parametrize(
    ("python", "package"), [("./python3.11", "python3.11-venv"), ("", "python3 python3-venv")], ids=["no venv", "none"]
)
def test_make_names_the_missing_debian_package(checkout: Path, python: str, package: str) -> None:
    done = run("make", f"PYTHON={python}", "test", cwd=checkout, NO_ENSUREPIP=1)
    assert done.returncode != 0
    sentence, *rest = done.stderr.splitlines()
    assert sentence.endswith(f"on Debian, apt install {package}.")
    assert all(line.startswith("make: ***") for line in rest)
    assert not (checkout / ".venv").exists()


@pytest.fixture
def bare(source: Path, tmp_path: Path) -> dict[str, str]:
    """The checkout with its tests in another folder, and an environment in which no compiler is found."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tools := tmp_path / "tools").mkdir()
    make = shutil.which("make")
    assert make is not None
    (tools / "make").symlink_to(make)
    (modules := tmp_path / "modules").mkdir()
    (modules / "sitecustomize.py").write_text("import sys\nsys.modules['ziglang'] = None\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CXX", "PYTEST", "OMP_", "XDG_"))}
    places = {"PATH": str(tools), "HOME": str(tmp_path / "home"), "PYTHONPATH": str(modules)}
    return kept | places | {"MAKEFLAGS": "", "MAKELEVEL": "0"}


@pytest.mark.parametrize("brought", [False, True], ids=["no compiler", "ziglang alone"])
def test_both_commands_without_a_compiler_on_the_path(brought: bool, bare: dict[str, str], source: Path) -> None:
    """Cut small, in this environment as it is installed; `make fresh` installs one on a bare system."""
    if brought:
        pytest.importorskip("ziglang")
        del bare["PYTHONPATH"]

    def make(target: str, arguments: str) -> subprocess.CompletedProcess[str]:
        installed = [part for name in ("", "-test") for part in ("-o", f"{sys.prefix}/.installed{name}")]
        call = ["make", f"VENV={sys.prefix}", *installed, target, f"ARGS={arguments}"]
        done = subprocess.run(call, cwd=source, env=bare, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    done = make("run", "--trainer.fast_dev_run 1 --data.init_args.delay 20")
    assert f"scan backend {'native' if brought else 'fused'}" in done.stdout and "no C++" not in done.stdout
    assert done.stderr.count("no C++ compiler") == (not brought)
    if not brought:
        again = [sys.executable, "-c", "from lit_rnn.scan.native import library; assert not library('plain')"]
        done = subprocess.run(again, cwd=source, env=bare, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), "it is said once"
    some = "exprnn" if brought else "exprnn or choices"  # choices would compile all there is
    tests = make("test", f"-n 0 -p no:cacheprovider tests/lit_rnn/scan/test_scan.py -k '{some}'")
    assert tests.stdout.count("tests of it are skipped") == 1  # of compiled, if of nothing else
    assert ("native and compiled" in tests.stdout) == (not brought)
    assert " passed" in tests.stdout
