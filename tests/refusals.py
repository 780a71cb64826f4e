"""A call that is refused as a user should meet it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datamodules import UserError


def refusal(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    sentence = str(caught.value)
    assert argument in sentence and "\n" not in sentence and len(sentence.split()) > 4, sentence
