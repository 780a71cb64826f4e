"""The Dockerfile as data, and its lines run in a folder: `python3 .ci/dockerfile.py ROOT [NAME=VALUE ...]`.

Only what this Dockerfile uses is understood, and anything else is refused. Standard library alone: it also runs
outside of .venv. tests/test_install.py reads the Dockerfile by it, too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
KNOWN = (
    *("FROM", "ARG", "LABEL", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
)


class Step(NamedTuple):
    """One instruction, continued lines joined."""

    name: str
    argument: str

    @property
    def words(self) -> list[str]:
        """A JSON list where it is one, else words as a shell splits them."""
        return json.loads(self.argument) if self.argument.startswith("[") else shlex.split(self.argument)

    @property
    def pairs(self) -> dict[str, str]:
        """Of ARG, ENV and LABEL: name=value."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}


def read(text: str) -> list[Step]:
    """Every instruction of a Dockerfile, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    steps = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, argument = line.strip().partition(" ")
            if name not in KNOWN:
                raise SystemExit(f"Dockerfile: {name} is not understood: teach .ci/dockerfile.py what it does.")
            steps.append(Step(name, argument.strip()))
    return steps


def health_check(step: Step) -> list[str]:
    """The command of a HEALTHCHECK."""
    options, _, command = step.argument.partition("CMD ")
    if not command or not all(word.startswith("--") for word in options.split()):
        raise SystemExit(
            f"Dockerfile: HEALTHCHECK {step.argument} is not understood: it must be [--option=...] CMD [...]."
        )
    return Step("CMD", command).words


def copy_context(source: Path, to: Path) -> Path:
    """Copy what `COPY . .` copies. In .dockerignore the last matching line wins, `!` takes back, `**/` is any depth."""
    rules = []
    for line in (source / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            rules.append((re.compile(f"{pattern}(/.*)?"), not line.startswith("!")))

    def left_out(folder: str, names: list[str]) -> list[str]:
        paths = {name: (Path(folder).relative_to(source) / name).as_posix() for name in names}
        return [n for n in names if ([False] + [out for rule, out in rules if rule.fullmatch(paths[n])])[-1]]

    return shutil.copytree(source, to, ignore=left_out, dirs_exist_ok=True)


class Image:
    """What the steps so far have made of a folder.

    Args:
        root: The folder, with a system in it.
        outside: NAME=VALUE that only RUN sees, such as a proxy.
    """

    def __init__(self, root: Path, outside: list[str]) -> None:
        self.root, self.outside = root, outside
        self.environment = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}
        self.arguments: dict[str, str] = {}
        self.user, self.folder = "root", "/"
        self.labels: dict[str, str] = {}
        self.volumes: list[str] = []
        self.check: list[str] = []
        self.entry: list[str] = []
        self.command: list[str] = []

    def inside(self, command: list[str], network: bool) -> None:
        """Run a command as the user, in the folder, with the environment so far."""
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        names = [f"{name}={value}" for name, value in {"HOME": home, **self.environment}.items()]
        if network:
            names += [*self.outside, *(f"{name}={value}" for name, value in self.arguments.items())]
        call = [*([] if network else ["unshare", "--net"]), "chroot", f"--userspec={self.user}:{self.user}"]
        in_folder = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command]
        subprocess.run([*call, str(self.root), "env", "-i", *names, *in_folder], check=True, stdin=subprocess.DEVNULL)

    def here(self, path: str) -> Path:
        """Where a path of the image lies on this machine."""
        return self.root / os.path.normpath(os.path.join(self.folder, path)).lstrip("/")

    def take(self, step: Step) -> None:
        match step.name:
            case "FROM":
                assert step.argument == "python:3.11-slim", (
                    "the stand-in for the base image is Debian 12 with Python 3.11"
                )
            case "ARG":
                self.arguments |= step.pairs
            case "LABEL":
                self.labels |= step.pairs
            case "ENV":
                self.environment |= step.pairs
            case "RUN":
                self.inside(["sh", "-c", step.argument], network=True)
            case "WORKDIR":
                self.folder = os.path.join(self.folder, step.argument)
                self.here(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                assert step.words == [".", "."], "only the whole context is copied, and owned by root"
                copy_context(CHECKOUT, self.here("."))
            case "USER":
                self.user = step.argument
            case "VOLUME":
                self.volumes += step.words
            case "HEALTHCHECK":
                self.check = health_check(step)
            case "ENTRYPOINT":
                self.entry = step.words
            case "CMD":
                self.command = step.words


def main(root: str, *outside: str) -> None:
    """Make the image in ``root``, then run what it is for, without a network."""
    image = Image(Path(root), list(outside))
    for step in read((CHECKOUT / "Dockerfile").read_text()):
        start = time.monotonic()
        print(f"{step.name} {step.argument}", flush=True)
        image.take(step)
        if step.name == "RUN":
            print(f"  {time.monotonic() - start:.0f} s", flush=True)
    assert image.user != "root", "the image runs as root"
    for volume in image.volumes:
        image.inside(["sh", "-c", 'touch "$0/probe" && rm "$0/probe"', volume], network=False)
    image.inside(["sh", "-c", "! touch /src/probe 2>/dev/null"], network=False)
    for what, command in (
        ("its command", [*image.entry, *image.command]),
        ("its health check", image.check),
        ("a run in its volume", [*image.entry, "fit", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"]),
    ):
        assert command, f"the Dockerfile has not said {what}"
        print(f"As {image.user}, without a network, {what}: {shlex.join(command)}", flush=True)
        start = time.monotonic()
        image.inside(command, network=False)
        print(f"  {time.monotonic() - start:.0f} s", flush=True)
    found = sorted(str(path.relative_to(root)) for path in image.here(image.volumes[-1]).rglob("fit.json"))
    assert found, f"the run left nothing in {image.volumes[-1]}"
    print("docker-steps: every line ran, and the image trains.")


if __name__ == "__main__":
    main(*sys.argv[1:])
