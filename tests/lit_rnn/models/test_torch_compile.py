"""torch.compile of a whole model: what is around the scan is compiled, the scan is left as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules import CopyMemory
from lit_rnn import models


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks at it itself
def test_a_compiled_model_is_the_model() -> None:
    """Outputs and gradients, bit for bit, and as few operations for many steps as for few."""
    task = CopyMemory(delay=2).task
    model = models.ExpRNN(task, 4, embedding_size=3)
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    seen = []
    for steps in (3, 40):
        torch._dynamo.reset()
        sizes.clear()
        inputs = torch.arange(2 * steps).view(2, steps) % task.input_size
        found, expected = torch.compile(model, backend=backend)(inputs), model(inputs)
        assert torch.equal(found, expected)
        pair = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (found, expected)]
        assert all(map(torch.equal, *pair))
        seen.append(list(sizes))
    torch._dynamo.reset()
    assert seen[0] == seen[1] and 1 <= len(seen[0]) <= 2
