"""What no constructor would notice is refused before it: text for a number, half a sequence, a bool, NaN."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

import numpy as np
import pytest
import torch

import datamodules
from datamodules import (
    CopyMemory,
    Parity,
    PixelDigits,
    SequenceDataModule,
    SequenceFiles,
    Task,
    UserError,
)
from lit_rnn import models
from lit_rnn.cells import LSTMCell
from lit_rnn.class_paths import subclasses
from lit_rnn.models import LSTM, SequenceModel

TASK = Task("t", "values", 2, "label", 3, None, "last", 1.0, "accuracy", True)
NAN, INF = float("nan"), float("inf")
BAD = {int: [1.5, "3", True, NAN, INF, None], float: ["fast", False, NAN, INF, 1e300, None], bool: ["maybe", 1, None]}
OURS = [
    cls
    for base, module in ((SequenceDataModule, datamodules), (SequenceModel, models))
    for cls in sorted(subclasses(base), key=lambda cls: cls.__name__)
    if getattr(module, cls.__name__, None) is cls
]


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_every_option_of_every_class(cls: Any) -> None:
    for name, kind in get_type_hints(cls.__init__).items():
        for bad in BAD.get(kind, []):
            with pytest.raises(UserError, match=rf"{cls.options_at}.{name} is .*, but it must be"):
                cls(**{name: bad})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CopyMemory(batch_size=1.5), "data.init_args.batch_size is 1.5, but it must be a whole number."),
        (lambda: CopyMemory(5.5), "data.init_args.delay is 5.5, but it must be a whole number."),
        (lambda: CopyMemory(seed="x"), "data.init_args.seed is 'x', but it must be null or a whole number."),
        (lambda: SequenceFiles("x", standardize="maybe"), "standardize is 'maybe', but it must be true or false."),
        (lambda: SequenceFiles("x", missing="no"), "missing is 'no', but it must be refuse or forward_fill."),
        (lambda: SequenceFiles("x", metric=3), "data.init_args.metric is 3, but it must be null or text."),
        (lambda: Parity(val_lengths=[2, "x"]), "val_lengths is [2, 'x'], but it must be null or a list, each a whole"),
        (lambda: Parity(curriculum=3), "data.init_args.curriculum is 3, but it must be null or a mapping."),
        (
            lambda: datamodules.PennTreebank(carry="no"),
            "carry is 'no', but it must be true or false or a number that is finite in float32.",
        ),
        (lambda: PixelDigits(permutation_seed="x"), "must be a whole number or one of urnn, nnrnn, eunn, nru."),
        (lambda: LSTM(TASK, "8"), "model.init_args.hidden_size is '8', but it must be a whole number."),
        (
            lambda: LSTM(TASK, 8, forget_bias=NAN),
            "model.init_args.forget_bias is nan, but it must be a number that is finite in float32.",
        ),
        (lambda: LSTMCell(3, 8.5), "model.init_args.hidden_size is 8.5, but it must be a whole number."),
        (lambda: replace(TASK, chance="x"), "task.chance is 'x', but it must be a number that is finite in float32."),
        (
            lambda: SequenceFiles.from_arrays(np.zeros((9, 3)), np.arange(9) % 2, batch_size=1.5),
            "data.init_args.batch_size is 1.5, but it must be a whole number.",
        ),
    ],
)
def test_the_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        make()
    assert sentence in str(refused.value)


def test_numbers_of_numpy_become_pythons() -> None:
    """A checkpoint with others cannot be read again: it was written, and the run was lost."""
    task = replace(TASK, input_size=np.int64(2), chance=np.float64(math.log(3)), higher_is_better=np.bool_(True))
    assert task == replace(TASK, chance=math.log(3))
    assert all(type(value).__module__ == "builtins" for value in vars(task).values())
    model = LSTM(task, np.int32(4), output_dropout=np.float32(0.5))
    torch.save(dict(model.hparams), file := io.BytesIO())
    file.seek(0)
    held = torch.load(file, weights_only=True)
    assert (held["hidden_size"], held["output_dropout"]) == (4, 0.5) and held["task"]["chance"] == task.chance
    assert Parity(val_lengths=np.array([50, 60])).other_tasks().keys() == {50, 60}


class Own(SequenceDataModule):
    """Of somebody else, with annotations of all sorts."""

    def __init__(self, rate: float, where: NotImported, batch_size="all", **kwargs):  # type: ignore[name-defined,no-untyped-def]  # noqa: F821
        super().__init__(**kwargs)
        self.given = rate, where, batch_size

    def split(self, name: Any) -> Any:
        raise NotImplementedError


def test_what_is_not_known_is_left_alone() -> None:
    assert Own(1, object, "all", seed=3).given == (1, object, "all")
    with pytest.raises(UserError, match=r"data.init_args.num_workers is '1', but it must be a whole number"):
        Own(1, None, num_workers="1")
    with pytest.raises(TypeError, match="nope"):
        CopyMemory(nope=1)


@pytest.mark.parametrize(
    ("kind", "given"),
    [(list[float], np.arange(3.0)), (float, INF), (float, "fast"), (dict[str, Any], TASK), ([int], 3), ("1 / 0", 3)],
    ids=str,
)
def test_a_class_of_somebody_else_is_given_what_it_was_given(kind: Any, given: Any) -> None:
    class Theirs(Own):
        def __init__(self, x: kind) -> None:  # type: ignore[valid-type]
            self.x = x

    Theirs.__init__.__annotations__["x"] = kind
    assert Theirs(given).x is given and Theirs(x=given).x is given


class HasSpectrum(Protocol):
    def spectrum(self) -> float: ...


class Summed:
    """A mixin that takes another kind of what is below it."""

    def __init__(self, *args: Any, batch_size: Any, **kwargs: Any) -> None:
        super().__init__(*args, batch_size=sum(batch_size), **kwargs)


def test_constructors_of_all_sorts() -> None:
    class Places(Own):
        def __init__(self, a: int, /, *sizes: int, mode: str = "x", **more: Any) -> None:
            self.given: Any = a, sizes, mode, more

    class Middle(Own):
        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(1, None, **kwargs)

    class Shadowing(Middle):
        def __init__(self, num_workers: list[int]) -> None:
            super().__init__(num_workers[0])

    class Bare(SequenceDataModule):
        split = Own.split

    class WithMixin(Summed, Bare, HasSpectrum, Generic[TypeVar("T")]):  # type: ignore[misc]
        pass

    assert Places(1, 2, 3, 4, mode="y", a="z").given == (1, (2, 3, 4), "y", {"a": "z"})
    assert Shadowing([1]).num_workers == 0
    assert WithMixin(batch_size=(2, 3)).batch_size == 5 and WithMixin[int](batch_size=(2,)).batch_size == 2
    with pytest.raises(TypeError, match="positional"):
        type("Keyword", (Own,), {"__init__": lambda self, *, x: None})(3)


def test_numbers_of_numpy_in_a_list_are_pythons_too() -> None:
    given = [np.int64(50), 60]
    assert [type(one) for one in Parity(val_lengths=given).other_tasks()] == [int, int]
    assert type(given[0]) is np.int64  # the caller's stays
    assert models.StatisticalRU(TASK, 3, 2, 2, alphas=np.array([0.0, 0.5])).options.alphas == [0.0, 0.5]


def test_a_class_is_as_it_was(tmp_path: Path) -> None:
    assert list(inspect.signature(CopyMemory).parameters)[:2] == ["delay", "symbols"]
    assert pickle.loads(pickle.dumps(TASK)) == copy.deepcopy(TASK) == TASK
    assert datamodules.PixelMNIST(root=tmp_path).root == tmp_path  # type: ignore[arg-type]  # a Path is a path
