"""What many runs say, in sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lit_rnn.commands.attack.many.measure import Row, shown_sizes
from lit_rnn.commands.attack.words import SPECTRAL, size_words

_NORM_WORDS = {"inf": "L∞", "2": "L2", "swaps": "swaps"}
_HIGH, _ROBUST = 0.9, 0.5


def short(setting: str) -> str:
    """A setting without the names of what varies: gru-recurrent_constraint=none as gru, none."""
    return re.sub(r"-\w+=", ", ", setting)


def words_of(column: str) -> str:
    """A column's name as a person reads it."""
    kind, _, rest = column.partition("_")
    if kind == "worst":
        norm, _, eps = rest.partition("_")
        return f"{_NORM_WORDS[norm]} {size_words(float(eps))}"
    return f"ε½ {_NORM_WORDS[rest]}" if kind == "half" else SPECTRAL.get(column, column.replace("_", " "))


def findings(settings: Sequence[Row]) -> list[str]:
    """The three claims of Sengupta and Friston 2018, asked of these settings; counts, not conclusions."""
    lines = []
    _, fallen = shown_sizes(settings)
    accurate = [s for s in settings if s["clean"] >= _HIGH]
    inside = [s for s in accurate if s.get("spectral_radius", math.inf) <= 1 + 1e-3]
    for key in fallen:
        weak, weak_inside = ([s for s in some if s[key] < _ROBUST] for some in (accurate, inside))
        lines.append(
            f"Of {len(accurate)} settings with a clean accuracy of at least {_HIGH:.0%}, {len(weak)} fall below "
            f"{_ROBUST:.0%} at {words_of(key)}; of the {len(inside)} of them whose recurrent matrices all have "
            f"spectral radius at most 1, {len(weak_inside)}."
        )
    departures = [s["henrici"] for s in settings if s.get("henrici") is not None]
    if departures:
        lines.append(
            f"Henrici's departure over |W|_F after training, the largest of each model's matrices, lies between "
            f"{min(departures):.2f} and {max(departures):.2f} (0 is normal, 1 nilpotent)."
        )
    return lines
