"""What an attack borrows of a model, and gives back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from datamodules.errors import UserError

Model = Callable[..., Tensor]
"""From inputs to outputs; where sequences have unequal lengths, from inputs and lengths (B,)."""


def tensor(given: object, key: str) -> Tensor:
    """What was given; raises `UserError` if it is no tensor, such as an array of NumPy."""
    if not isinstance(given, Tensor):
        raise UserError(f"{key} is of type {type(given).__name__}, but it must be a torch.Tensor.")
    return given


def read(model: Model, x: Tensor, lengths: Tensor | None) -> Tensor:
    """What ``model`` says of inputs; raises `UserError` unless it is a tensor."""
    outputs: object = model(x) if lengths is None else model(x, lengths)
    if not isinstance(outputs, Tensor):
        raise UserError(f"The model returns {type(outputs).__name__}, but an attack reads a tensor of its outputs.")
    return outputs


@contextmanager
def frozen(model: Model, device: torch.device) -> Iterator[None]:
    """Evaluation mode, weights that take no gradient, gradients of inputs on, and everything restored on leaving.

    Given back are the mode of every submodule, every ``requires_grad`` flag and the global random state of the CPU and
    of ``device``; ``.grad`` is never written, as attacks take gradients only of inputs. A callable that is no
    `nn.Module` is called as it is.

    On CUDA, cuDNN is off inside: its recurrent layers refuse a backward pass in evaluation mode.

    Raises:
        UserError: for what cannot be called.
    """
    if not callable(model):
        raise UserError(f"model is of type {type(model).__name__}, but it must be callable on inputs.")
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    flags = [parameter.requires_grad for parameter in parameters]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if device.type == "cuda":
            stack.enter_context(_without_cudnn())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        try:
            for module in modules:
                module.training = False
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for parameter, flag in zip(parameters, flags, strict=True):
                parameter.requires_grad_(flag)


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """``torch.backends.cudnn.flags`` sets what allows TF32 as well, and refuses where that was set anew
    (``torch.backends.fp32_precision``)."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
