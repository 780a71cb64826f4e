"""The closure that an optimizer's step may be given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """The loss that ``closure`` computes, with its gradients, inside a step that records none; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
