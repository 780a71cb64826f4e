"""plan.json: what the runs of a study's folder are, so that a table never mixes runs of different options."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from datamodules.arguments import OURS
from datamodules.errors import UserError, as_in_yaml
from lit_rnn.commands.study.local import has_diverged
from lit_rnn.commands.study.search.space import short
from lit_rnn.commands.study.subject import Run, Setting
from lit_rnn.files import is_folder_name, parse_yaml, read_json, read_yaml, write_json
from lit_rnn.runs.checkpoints import is_started
from lit_rnn.runs.folder import kept_code, kept_fingerprint, newest_config, numbered
from lit_rnn.runs.lock import in_use
from lit_rnn.runs.options import COUNTS_OR_SHARES, flat, makes_a_difference, number
from lit_rnn.runs.results import is_finished

Planned = Mapping[str, Any]
R = TypeVar("R", Run, Run | None)
_NAME = "plan.json"


def planned(run: Run) -> dict[str, Any]:
    """What a run is: its options, and the texts of its configs."""
    return {"arguments": run.arguments(), "configs": [_text(one) for one in run.setting.configs]}


def _text(config: str) -> str:
    try:
        return Path(config).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"config {config} cannot be read ({error.strerror}): put it back.") from error


def read(folder: Path) -> dict[str, Planned]:
    """The plan of a study's folder, by run; empty where there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / _NAME
    found = read_json(path) if path.is_file() else {}
    for name, entry in found.items():
        if not is_folder_name(name):  # a folder of that name may be renamed
            raise UserError(f"{path} is damaged (it names the run {name!r}, a path): recreate it or remove it.")
        if not (isinstance(entry, dict) and all(_are_texts(entry.get(key)) for key in ("arguments", "configs"))):
            raise UserError(f"{path} is damaged (it does not say what {name} is): recreate it or remove it.")
    return found


def check(runs: Sequence[Run], folder: Path, plan: Mapping[str, Planned]) -> None:
    """Refuse a folder in which a run has begun as something else than it is now.

    A run that no plan names is taken at its own config's word, and so is one that went on by hand.

    Raises:
        UserError: naming the first such run, and what differs; or if the folder holds another study.
    """
    ours = {run.name for run in runs}
    if plan and not any(name in ours or _same(name, runs, plan) for name in plan):
        others = f"{next(iter(plan))} and others" if len(plan) > 1 else next(iter(plan))
        raise UserError(
            f"{folder} holds another study, with the runs {others} and none of this one: name another folder with "
            "--study_dir."
        )
    for run in runs:
        place = folder / run.name
        finished = is_finished(place)
        if not finished and not is_started(place) and not has_diverged(folder, run):
            continue
        differs = difference(plan[run.name], run) if run.name in plan else None
        if differs is None and (run.name not in plan or len(numbered(place, "config.yaml")) > 1):
            differs = _from_config(run, place)
        if differs is not None:
            raise UserError(
                f"{place} is {'a finished' if finished else 'an unfinished'} run with other options or base configs "
                f"than the study has now ({differs}): name another folder with --study_dir, or remove that run's."
            )


def check_idle(place: Path) -> None:
    """Refuse a run that is trained by somebody else, such as a task of an array.

    Raises:
        UserError: saying so.
    """
    if in_use(place):
        raise UserError(f"{place} is trained by another process: wait until that ends.")


def texts(settings: Iterable[Setting]) -> dict[str, str]:
    """What is in the configs of settings, by name."""
    return {config: _text(config) for setting in settings for config in setting.configs}


def unchanged(begun: Mapping[str, str], runs: Iterable[R]) -> Iterator[R]:
    """The runs, as long as their configs say what they did when the study began: each run reads them when it starts.

    Args:
        begun: `texts` of then.
        runs: What is to be run next.

    Raises:
        UserError: naming the config that says something else, and what.
    """
    for run in runs:
        for config in () if run is None or run.command == "test" else run.setting.configs:
            if (differs := _first(_leaves(begun[config]), _leaves(_text(config)), "")) is not None:
                raise UserError(
                    f"{config} has changed since the study began ({differs}), so that runs of one table would differ: "
                    "put it back and give the same command again, or name another folder with --study_dir."
                )
        yield run


def claim(runs: Sequence[Run], folder: Path) -> list[str]:
    """Write down what the runs are. One that has begun under another name, as where its grid had one value, is renamed.

    What the base configs say counts, not where they lie nor how they are written.

    Returns:
        A line for every run that was renamed.

    Raises:
        UserError: as `check` does, or if one that would be renamed is being trained.
    """
    plan = read(folder)
    check(runs, folder, plan)
    told = _rename(runs, folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _NAME, {**plan, **{run.name: planned(run) for run in runs}})
    return told


def _rename(runs: Sequence[Run], folder: Path, plan: dict[str, Planned]) -> list[str]:
    """Give runs of the plan that the study has under another name this name; their entries in ``plan`` move along."""
    names = {run.name for run in runs}
    free = [name for name in plan if name not in names and (folder / name).is_dir()]
    told = []
    for run in runs:
        if not free or (folder / run.name).exists():
            continue
        same = next((name for name in free if _same(name, [run], plan)), None)
        if same is not None:
            free.remove(same)
            check_idle(folder / same)
            (folder / same).rename(folder / run.name)
            if (folder / f"{same}.log").is_file():
                (folder / f"{same}.log").rename(folder / f"{run.name}.log")
            plan[run.name] = plan.pop(same)
            told.append(f"{same} is {run.name} now")
    return told


def _same(name: str, runs: Sequence[Run], plan: Mapping[str, Planned]) -> bool:
    """Whether a run of the plan is one of these, maybe under another name."""
    return any(difference(plan[name], run) is None for run in runs)


# ---- what differs


def same_options(was: Any, now: Sequence[str]) -> bool:
    """Whether arguments that were written down are these, but for where the base configs lie."""
    return _are_texts(was) and _first(_options(was), _options(now), "") is None


def same_configs(was: Any, now: Sequence[str]) -> bool:
    """Whether texts of base configs that were written down say what these do."""
    return (
        _are_texts(was)
        and len(was) == len(now)
        and all(_first(_leaves(one), _leaves(other), "") is None for one, other in zip(was, now, strict=True))
    )


def _are_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(part, str) for part in given)


def difference(entry: Planned, run: Run) -> str | None:
    """What of a planned run is another thing now, in words; None if nothing is."""
    now = planned(run)
    if (differs := _first(_options(entry["arguments"]), _options(now["arguments"]), "")) is not None:
        return differs
    told, texts = entry["configs"], now["configs"]
    if len(told) == len(run.setting.bases):  # as of a plan from before overlays in a grid were in it
        texts = texts[: len(told)]
    if told == texts:
        return None
    if len(told) != len(texts):
        return f"it has {len(texts)} base configs, and had {len(told)}"
    for was, text, config in zip(told, texts, run.setting.configs, strict=False):
        if (differs := _first(_leaves(was), _leaves(text), f" in {Path(config).name}")) is not None:
            return differs
    return None


def _first(was: Mapping[str, Any], now: Mapping[str, Any], where: str) -> str | None:
    for key in {**was, **now}:
        if key not in was:
            return f"{key} was not given{where}, and is {as_in_yaml(now[key])}"
        if key not in now:
            return f"{key} was {as_in_yaml(was[key])}{where}, and is not given"
        counts = key.rpartition(".")[2] in COUNTS_OR_SHARES and type(was[key]) is not type(now[key])
        if was[key] != now[key] or counts:
            return f"{key} was {as_in_yaml(was[key])}{where}, and is {as_in_yaml(now[key])}"
    return None


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Options and what they mean; not the base configs, which may lie elsewhere in another copy of lit_rnn."""
    pairs = itertools.zip_longest(arguments[::2], arguments[1::2], fillvalue="")
    named = {key.removeprefix("--"): value for key, value in pairs if key != "-c"}
    return {key: _meant(_read(value), key) for key, value in named.items()}


@functools.cache
def _read(text: str) -> Any:
    """The value of an option; a text is itself, also where YAML would see a comment in it, or would not read it."""
    with contextlib.suppress(UserError):
        found = parse_yaml(text, "an option")
        if not isinstance(found, str) and (found is not None or text == "null"):
            return found
    return text


@functools.cache
def _leaves(text: str) -> dict[str, Any]:
    """What a config says, by dotted key."""
    return _flat(parse_yaml(text, "a base config"))


def _flat(config: Any) -> dict[str, Any]:
    return {key: _meant(value, key) for key, value in flat(config)}


def _meant(value: Any, key: str) -> Any:
    """What is written in more than one way in one: 1e-3, which YAML reads as text, and a shipped class in full."""
    if isinstance(value, list):
        return [_meant(one, key) for one in value]
    if isinstance(value, Mapping):
        return {name: _meant(one, str(name)) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    if key.endswith("class_path"):
        return value.rpartition(".")[2] if value.partition(".")[0] in OURS else value
    found = number(value)
    return value if found is None else found


def _from_config(run: Run, place: Path) -> str | None:
    """The same by the config that the run itself has written, of plain values and classes."""
    path = newest_config(place)
    if path is None:
        return "it holds no config.yaml"
    held = _plain(_flat(read_yaml(path, "config")))
    written: dict[str, Any] = {}
    for config in run.setting.configs:
        written |= _leaves(_text(config))
    written |= _flat(_options(run.arguments()))
    in_full = {_of_class(key): key for key in held}
    given = _plain({in_full[_of_class(key)]: value for key, value in written.items() if _of_class(key) in in_full})
    return _first({key: held[key] for key in given}, given, "")


def _of_class(key: str) -> str:
    """A key by which a class may be named alone, or with options beside it."""
    return short(key).removesuffix(".class_path")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a config, a class by its last name: which folder it is written in full with may differ."""
    kept = {key: value for key, value in config.items() if not isinstance(value, Mapping | list)}
    named = {key: str(value).rpartition(".")[2] for key, value in kept.items() if key.endswith("class_path")}
    return kept | named


def drifted(runs: Sequence[Run], folder: Path) -> list[str]:
    """A line for every option that finished runs of an arm have differently though its grid does not vary it.

    So it is where a new version has another default, or files, or code of the user's own, have another content. The
    first run that each version has begun on each content is looked at; options that only some versions have are no
    difference.
    """
    told = []
    for arm in dict.fromkeys(run.setting.arm for run in runs):
        ours = [run for run in runs if run.setting.arm == arm and is_finished(folder / run.name)]
        firsts = {_told_apart_by(folder / run.name): run for run in reversed(ours)}
        held: dict[str, dict[Any, str]] = {}  # what the configs say, by key, and the first run with each value
        for run in reversed(firsts.values()):
            for name, code in (pair for begun in kept_code(folder / run.name) for pair in begun.items()):
                held.setdefault(f"code in {name}, by its fingerprint", {}).setdefault(code, run.name)
        for run in reversed(firsts.values()) if len(firsts) > 1 else ():
            varied = {_of_class(key) for key, _ in run.setting.values}
            files = kept_fingerprint(folder / run.name)
            if files is not None and not any(one.partition(".")[0] in ("config", "data") for one in varied):
                held.setdefault("files, by their fingerprint", {}).setdefault(files, run.name)
            for key, value in _resolved(folder / run.name):
                if not any(f"{short(key)}.".startswith(f"{one}.") for one in varied):
                    held.setdefault(key, {}).setdefault(value, run.name)
        told += [
            f"{arm} has runs of different {key}: "
            + ", ".join(f"{as_in_yaml(value)} (as {name})" for value, name in values.items())
            for key, values in held.items()
            if len(values) > 1
        ]
    return told


def _told_apart_by(place: Path) -> tuple[Any, ...]:
    return *_version(place), kept_fingerprint(place), str(kept_code(place))


def _version(place: Path) -> tuple[Any, Any]:
    path = place / "versions.json"
    told = read_json(path) if path.is_file() else {}
    return told.get("commit"), told.get("lit_rnn")


def _resolved(place: Path) -> Iterator[tuple[str, Any]]:
    """The plain values of a run's config that make it what it is."""
    path = newest_config(place)
    config = {} if path is None else _flat(read_yaml(path, "config"))
    for key, value in config.items():
        told = key.startswith(("model.", "data.", "trainer.")) and not key.endswith("class_path")
        if told and not isinstance(value, Mapping | list) and makes_a_difference(key):
            yield key, value
