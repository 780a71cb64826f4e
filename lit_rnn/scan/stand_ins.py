"""Parameters as leaves of a backward inside another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from lit_rnn.cells.base import Cell


class StandIns:
    """Leaves of their own on the memory of parameters, for a backward whose gradients go on to these.

    A parameter's hooks are for what is added to its ``.grad``: they run once, behind the whole backward. And its own
    node may be there already, held by another graph or by DistributedDataParallel, on a stream that a recording
    (`lit_rnn.scan.segment`) may not wait for.

    Args:
        cell: Whose.
        parameters: Those whose gradients are asked for.
    """

    def __init__(self, cell: Cell, parameters: Sequence[Tensor]) -> None:
        self._cell = cell
        self._others = {parameter: nn.Parameter(parameter.detach()) for parameter in parameters}
        # the parameters as well: what a step finds in a list, for one, is not replaced
        self.leaves = [*self._others.values(), *parameters]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """In here the cell has them for its parameters."""
        places = [
            (module._parameters, name, own)
            for module in self._cell.modules()
            for name, own in module._parameters.items()
            if own is not None and own in self._others
        ]
        for parameters, name, own in places:
            parameters[name] = self._others[own]
        try:
            yield
        finally:
            for parameters, name, own in places:
                parameters[name] = own

    def by_parameter(self, found: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients by the parameters, from those by the leaves."""
        return [*map(plus, found[: len(self._others)], found[len(self._others) :])]


def plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of gradients; None is zero."""
    return b if a is None else a if b is None else a + b
