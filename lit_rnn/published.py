"""Published figures, each with its status and source: what `published.yaml` holds, read and checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.files import read_yaml

STATUSES = {
    "confirmed": "read in the paper itself or in its authors' released code",
    "secondary": "quoted by another paper or page, which is named, and not checked against the original",
    "unconfirmed": "from memory of the paper, not checked against it: not to be cited",
}
NO_VALUE = "did not converge"


@dataclass(frozen=True)
class Published:
    """One published figure. It prints with its status, always: nowhere is its bare value to be had as text.

    Args:
        paper: Authors and year, or the name of a repository.
        where: Table, figure or page in it.
        name: The model as it is called there.
        task: As `Task.name`, where there is such a task here.
        protocol: Data, length and choice of the model, in words.
        metric: As `Task.metric`, where there is such a metric here.
        value: As printed, in ``unit``.
        status: One of `STATUSES`.
        source: Where the figure was read.
        split: ``test`` or ``val``.
        unit: ``%`` is a hundredth of the metric's own unit.
        spread: As printed behind ±, in ``unit``.
        of: The whole, of a count.
        model: Our class, if there is one.
        size: ``hidden_size``.
        parameters: As printed.
        options: Options of our class that make it this model.
        data: Options of our data module that the figure is for; others are not comparable.
    """

    paper: str
    where: str
    name: str
    task: str
    protocol: str
    metric: str
    value: str
    status: str
    source: str
    split: str = "test"
    unit: str = ""
    spread: str | None = None
    of: int | None = None
    model: str | None = None
    size: int | None = None
    parameters: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> float | None:
        """The value in the metric's own unit: 94.9 % is 0.949. None where the run did not converge."""
        return None if self.value == NO_VALUE else float(self._in_unit(self.value))

    @property
    def decimals(self) -> int:
        """How many are printed of a number, in the metric's own unit: three of 94.9 %."""
        return 0 if self.value == NO_VALUE else len(str(self._in_unit(self.value)).partition(".")[2])

    @property
    def note(self) -> str:
        """Where it was read, and how it came about."""
        return f"{self.paper}, {self.where}. Protocol: {self.protocol}. Read in: {self.source}."

    def _in_unit(self, text: str) -> Decimal:
        """All printed digits are kept: 95.0 % is 0.950."""
        return Decimal(text).scaleb(-2 if self.unit == "%" else 0)

    def __str__(self) -> str:
        """Value, spread and status: 0.949 [secondary]."""
        if self.number is None:
            figure = self.value
        elif self.of is not None:
            figure = f"{self.value} of {self.of}"
        else:
            spread = "" if self.spread is None else f" ± {self._in_unit(self.spread)}"
            figure = f"{self._in_unit(self.value)}{spread}"
        return f"{figure} [{self.status}]"


@functools.cache
def published() -> tuple[Published, ...]:
    """Every figure of `published.yaml`, in its order."""
    return read_published(Path(__file__).with_suffix(".yaml"))


def read_published(path: Path) -> tuple[Published, ...]:
    """The figures of a YAML file: a list of blocks, each with what its ``rows`` share; a row's own word wins.

    Raises:
        UserError: naming the block and the row, if a figure lacks its status, its source or another key, has a key
            that there is not, or a value that is no number.
    """
    blocks = read_yaml(path, "published figures")
    if not isinstance(blocks, list):
        raise UserError(f"{path} must hold a list of blocks with rows.")
    found = []
    for number, block in enumerate(blocks, 1):
        rows = block.get("rows") if isinstance(block, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise UserError(f"{path}: block {number} has no rows.")
        shared = {key: value for key, value in block.items() if key != "rows"}
        for place, row in enumerate(rows, 1):
            found.append(_figure({**shared, **row}, f"{path}: block {number}, row {place}"))
    return tuple(found)


_NEEDED = ("paper", "where", "name", "task", "protocol", "metric", "value", "status", "source")


def _figure(given: Mapping[str, Any], where: str) -> Published:
    known = [one.name for one in fields(Published)]
    for key in given:
        if key not in known:
            raise UserError(f"{where}: {key} is not a key; accepted: {', '.join(known)}.")
    for key in _NEEDED:
        if given.get(key) in (None, ""):
            raise UserError(f"{where} has no {key}: a published figure needs {', '.join(_NEEDED)}.")
    if given["status"] not in STATUSES:
        raise UserError(f"{where}: status is {given['status']!r}, but it must be one of {', '.join(STATUSES)}.")
    if given.get("split", "test") not in ("test", "val"):
        raise UserError(f"{where}: split is {given['split']!r}, but it must be test or val.")
    texts = {key: str(given[key]) for key in ("value", "spread", "parameters") if given.get(key) is not None}
    for key in ("value", "spread"):
        if key in texts and texts[key] != NO_VALUE and not _is_number(texts[key]):
            raise UserError(f"{where}: {key} is {texts[key]!r}, but it must be a number, or {NO_VALUE!r}.")
    return Published(**{**given, **texts})


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
