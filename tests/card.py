"""A GPU that is not there: torch's FakeTensorMode with tensors on ``cuda``, which says what a real one would wait for.

A fake tensor has a shape, a type and a device, and no numbers: an operation on tensors of two devices raises, and so
does one that needs a number on the host, as ``item()``, ``bool(tensor)`` or a mask of unknown size does.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

META, CUDA = torch.device("meta"), torch.device("cuda:0")

# what reads on the host without saying so in its name: whether a decomposition was found
_LOOKS = ("_linalg_check_errors", "_linalg_svd", "_linalg_eigh", "_linalg_eigvals", "linalg_eig", "linalg_matrix_exp")


class Card(TorchDispatchMode):
    """Counts ``waits``: by operation, how often the host waits for the GPU, copies from and to it included.

    Without a GPU autograd cannot go back through tensors on ``cuda``: it asks the driver. So C++, autograd with it,
    is told that they are on ``meta``, and what it makes there is made on ``cuda``; Python sees ``cuda``. Autocast asks
    in C++ as well: see `autocast`.
    """

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told, self.waits = told, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            device = args[0].device
            return META if self.told and device.type == "cuda" else device
        kwargs = kwargs or {}
        if not any(isinstance(leaf, FakeTensor) or _is_cuda(leaf) for leaf in tree_leaves((args, kwargs))):
            with _disable_current_modes():  # what the host does with its own is real
                return func(*args, **kwargs)
        if self.told:
            args, kwargs = tree_map(
                lambda value: CUDA if isinstance(value, torch.device) and value == META else value, (args, kwargs)
            )
        before = _devices(args, kwargs)
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and len(before | _devices(result, {})) > 1:
            source = _devices(args[1:2] if name == "copy_" else args[:1], {})
            if "cuda" in source or not (kwargs.get("non_blocking") or True in args[2:]):
                self.waits[f"a copy from {source.pop()}"] += 1
        elif name in _LOOKS and "cuda" in before:
            self.waits[name] += 1
        return result


def _is_cuda(leaf: Any) -> bool:
    return isinstance(leaf, torch.device) and leaf.type in ("cuda", "meta")


def _devices(args: Any, kwargs: Mapping[str, Any]) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}


@contextmanager
def card(told: bool = True) -> Iterator[Card]:
    """In here ``to("cuda")`` works, on tensors from before too, and gives fake ones.

    What fails, fails with the line of ours that did it, and nothing else: pytest would print fake tensors, outside.
    """
    failed = None
    with FakeTensorMode(allow_non_fake_inputs=True), Card(told) as mode:
        try:
            yield mode
        except AssertionError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
            failed = f"{ours[-1].filename}:{ours[-1].lineno}: {ours[-1].line}: {type(error).__name__}: {error}"
    assert failed is None, failed


@contextmanager
def cuda_autocast(dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """``torch.autocast("cuda")``, which turns itself off where there is no GPU."""
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
