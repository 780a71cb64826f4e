"""A call that is refused as a user should meet it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from datamodules import UserError


def refusal(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    sentence = str(caught.value)
    assert argument in sentence and "\n" not in sentence and len(sentence.split()) > 4, sentence


def refuses_what_is_no_count(call: Callable[[Any], Any], argument: str, least: int) -> None:
    """Its sentence names the argument, and the least count that is accepted."""
    for given in (2.5, 5.0, np.float64(5), math.nan, least - 1, True, np.True_, "5"):
        with pytest.raises(UserError, match=rf"^{argument} is .*, but it must be a whole number of at least {least}"):
            call(given)
