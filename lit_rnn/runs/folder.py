"""A run's folder, runs/<name>/: how it is chosen, and when it may be written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import yaml

from datamodules.errors import UserError
from lit_rnn.files import cannot_make, check_folder, read_bytes, read_json, refuse_links, remove_partial
from lit_rnn.runs.checkpoints import best_checkpoint, initial_checkpoint, is_started, last_checkpoint
from lit_rnn.runs.endings import diverged
from lit_rnn.runs.launched import first_process as first_process
from lit_rnn.runs.lock import Lock
from lit_rnn.runs.results import is_finished
from lit_rnn.yaml_limits import SafeLoader, YAMLLimitError, check_yaml

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

RUNS = Path("runs")
_HINT = " with --run_dir"
_CHOSEN = "LIT_RNN_RUN_DIR"  # tells the processes that Lightning launches which folder the first one chose


def keeps_files(trainer: Trainer) -> bool:
    """Whether a run leaves anything on disk: fast_dev_run does not."""
    return not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by Lightning at run time


def number_of(path: Path) -> int:
    """1 for NAME.yaml, 2 for NAME-2.yaml."""
    return int(path.stem.rpartition("-")[2]) if "-" in path.stem else 1


def numbered(folder: Path, name: str) -> list[Path]:
    """The files NAME.EXT, NAME-2.EXT, ... of a run folder, the oldest first."""
    stem, _, extension = name.rpartition(".")
    named = [path for path in folder.glob(f"{stem}*.{extension}") if re.fullmatch(rf"{stem}(-\d{{1,9}})?", path.stem)]
    return sorted(named, key=number_of)


def newest_versions(folder: Path) -> dict[str, Any]:
    """What the newest versions.json of a run says; empty where there is none."""
    paths = numbered(folder, "versions.json")
    return read_json(paths[-1]) if paths else {}


def kept_fingerprint(folder: Path) -> str | None:
    """What tells the files that a run has read from others, as its newest versions.json keeps it."""
    found = newest_versions(folder).get("fingerprint")
    return found if _is_shown(found) else None


def kept_code(folder: Path) -> list[dict[str, str]]:
    """What tells the code of the user's own from other code, by module, each time that a run was begun with another.

    What is damaged is passed over.
    """
    found = []
    for path in numbered(folder, "versions.json"):
        with contextlib.suppress(UserError):
            code = read_json(path).get("own_code")
            pairs = code.items() if isinstance(code, dict) else ()
            found.append({name: told for name, told in pairs if _is_shown(name) and _is_shown(told)})
    return found


def _is_shown(told: Any) -> TypeGuard[str]:
    """Whether it may go to the terminal."""
    return isinstance(told, str) and told.isprintable() and 0 < len(told) <= 64


def newest_config(folder: Path) -> Path | None:
    """The config of the last command that trained here: config.yaml, or config-<highest number>.yaml of a resume.

    A damaged one is passed over where there is another.
    """
    named, damaged = numbered(folder, "config.yaml"), damaged_configs(folder)
    whole = [path for path in named if path not in damaged]
    return next(reversed(whole or named), None)


def damaged_configs(folder: Path) -> list[Path]:
    """Those of a run folder's configs that a kill or a full disk has cut short."""
    return [path for path in numbered(folder, "config.yaml") if is_cut(path)]


def is_cut(path: Path) -> bool:
    """Whether a config that `fit` wrote is no more whole."""
    try:
        text = read_bytes(path).decode()
        check_yaml(text)
        config = yaml.load(text, Loader=SafeLoader)
    except YAMLLimitError:
        return False  # hostile it may be, and whoever reads it says so
    except (OSError, ValueError, yaml.YAMLError):
        return True
    # run_dir stands behind the sections, of which a part alone would pass for a config
    return not isinstance(config, dict) or (text.startswith("# pytorch_lightning") and "run_dir" not in config)


def _numbered(name: str) -> list[Path]:
    """The folders runs/<name>-<number> that exist, oldest first."""
    found = [path for path in RUNS.glob(f"{name}-*") if path.name[len(name) + 1 :].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[len(name) + 1 :]))


def newest(name: str) -> Path | None:
    """The newest of the folders that `Claim.fresh` made for ``name``."""
    return next(reversed(_numbered(name)), None)


def proposed(name: str) -> Path:
    """runs/<name>-<next number>."""
    existing = _numbered(name)
    return RUNS / f"{name}-{int(existing[-1].name[len(name) + 1 :]) + 1 if existing else 1}"


def forget_choice() -> None:
    """Let the next run of this process choose its own folder."""
    os.environ.pop(_CHOSEN, None)


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be written or has links out of it; leaves nothing behind.

    Raises:
        UserError: saying which folder, and what to do.
    """
    refuse_links(folder)
    check_folder(folder, "run_dir", _HINT)


def check_free(folder: Path) -> None:
    """Refuse to start where a run is: it would be overwritten.

    Raises:
        UserError: saying how to go on with it.
    """
    if is_finished(folder):
        raise UserError(f"run_dir {folder} already holds a finished run; name another folder with --run_dir.")
    if (folder / "config.yaml").is_file():
        what, way = "an unfinished run", "go on with it by adding --ckpt_path last"
        if not is_started(folder):
            what, way = "a run that ended before its first checkpoint", "start it again with --resume auto"
        raise UserError(f"run_dir {folder} already holds {what}; {way}, or name another folder with --run_dir.")


def clear(folder: Path) -> None:
    """Remove what a run left that ended before its first checkpoint, so that it can start again."""
    left = [
        *numbered(folder, "config.yaml"),
        *numbered(folder, "versions.json"),
        folder / "metrics.csv",
        diverged(folder),
    ]
    left += [folder / "pictures" / name for name in ("states.npz", "spectrum_start.npz")]
    for path in [*left, initial_checkpoint(folder), best_checkpoint(folder)]:
        path.unlink(missing_ok=True)


class Claim:
    """Makes a run folder, or takes the one that is there; what was made since can be taken back.

    A refused command leaves nothing. One process at a time trains in a folder: `Lock`.

    Args:
        folder: The folder.
        trains: Whether the command trains.
        made: Folders that were made for it already, the innermost first.

    Raises:
        UserError: if the folder cannot be made, or another process trains in it.
    """

    def __init__(self, folder: Path, trains: bool, made: Sequence[Path] = ()) -> None:
        self.folder, self._trains = folder, trains
        self._made = list(made) or _missing(folder)
        self._lock: Lock | None = None
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if trains and first_process():
                self._lock = Lock(folder)
                for place in (folder, folder / "checkpoints", folder / "pictures"):
                    remove_partial(place)
        self._before = set(folder.iterdir())  # by now nobody else writes here
        self._checkpoint = _stamp(last_checkpoint(folder))
        if trains:
            try:
                check_folder(folder / "checkpoints", "run_dir", _HINT)
                with _told(folder):
                    (folder / "checkpoints").mkdir(exist_ok=True)
            except UserError:
                self.take_back()
                self.release()
                raise

    @classmethod
    def fresh(cls, name: str, trains: bool) -> Claim:
        """runs/<name>-<next number>, agreed on by all processes of the run, and by no other run."""
        if _CHOSEN in os.environ:
            return cls(Path(os.environ[_CHOSEN]), trains)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 or int(os.environ.get("SLURM_NTASKS", 1)) > 1:
            raise UserError(
                "run_dir is not given, but several processes were started from outside (torchrun, Slurm): "
                "name one folder for all of them with --run_dir."
            )
        while True:
            folder = proposed(name)
            made = _missing(folder)
            with _told(folder):
                try:
                    folder.mkdir(parents=True)
                except FileExistsError:  # another run was faster
                    continue
            os.environ[_CHOSEN] = str(folder)
            return cls(folder, trains, made)

    @property
    def has_trained(self) -> bool:
        """Whether a checkpoint was saved since."""
        return _stamp(last_checkpoint(self.folder)) != self._checkpoint

    def take_back(self) -> None:
        """Remove what is new, unless the command has trained."""
        if self.has_trained or not first_process():
            return
        with contextlib.suppress(OSError):  # the folder may be lost, or another run's lie beside it
            if self._made:
                shutil.rmtree(self.folder)
                for above in self._made[1:]:
                    above.rmdir()
            elif self._trains:  # nobody else writes here
                for path in set(self.folder.iterdir()) - self._before:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def release(self) -> None:
        """Let others train here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_make(folder, "run_dir", error, _HINT) from error


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.absolute().parents) if not path.exists()]


def _stamp(path: Path) -> tuple[int, int] | None:
    """What is another one for a file that was replaced."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None
