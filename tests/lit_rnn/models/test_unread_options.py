"""Options that the others leave without effect are told; so is a precision that the weights do not take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch.optim import SGD

from datamodules import Adding, UserError
from lit_rnn import models

TASK = Adding(length=6).task
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [  # unread, then beside what it is read, and the key
    ("EURNN", {"capacity": 4, "layout": "fft"}, {"capacity": 4}, "capacity is 4, which has no effect with layout: fft"),
    ("GORU", {"capacity": 4}, {"capacity": 4, "layout": "tunable"}, "capacity is 4, which .* layout: fft"),
    ("DtrivRNN", {"rebase_every": None, "project_every": 7}, {"project_every": 7}, "project_every is 7, .* null"),
    ("VanillaRNN", {"alpha": 1.0}, {"alpha": 1.0, "init": "chain"}, "alpha is 1.0, .* init: orthogonal"),
    ("VanillaRNN", {"beta": 0.1, "init": "chain"}, {"beta": 0.1, "init": "fbchain"}, "beta is 0.1, .* init: chain"),
    ("VanillaRNN", {"lam": 0.9, "init": "fbchain"}, {"lam": 0.9}, "lam is 0.9, .* init: fbchain"),
    ("LSTM", {"forget_bias": 2.0, "t_max": 5}, {"forget_bias": 2.0}, "forget_bias is 2.0, .* t_max: 5"),
    ("LSTM", {"chrono_integers": True}, {"chrono_integers": True, "t_max": 5}, "chrono_integers is True, .* null"),
    ("JANET", {"forget_bias": 2.0, "t_max": 5}, {"forget_bias": 2.0}, "forget_bias is 2.0, .* t_max: 5"),
    ("JANET", {"chrono_integers": True}, {"chrono_integers": True, "t_max": 5}, "chrono_integers is True, .* null"),
    ("MinGRU", {"recurrent_lr_ratio": 0.5}, {}, "recurrent_lr_ratio is 0.5, .* no parameters"),
    ("MinLSTM", {"recurrent_lr_ratio": 0.5}, {}, "recurrent_lr_ratio is 0.5, .* no parameters"),
    ("DeltaProduct", {"recurrent_lr_ratio": 0.5}, {}, "recurrent_lr_ratio is 0.5, .* no parameters"),
    (
        "GRU",
        {"recurrent_lr_ratio": 0.5, "group_optimizers": {"recurrent": SGD}},
        {"recurrent_lr_ratio": 0.5},
        "recurrent_lr_ratio is 0.5, .* its own",
    ),
    (
        "LRU",
        {"recurrent_lr_ratio": 0.5, "group_optimizers": {"recurrent": SGD, "gamma": SGD}},
        {"recurrent_lr_ratio": 0.5, "group_optimizers": {"recurrent": SGD}},  # gamma takes it
        "recurrent_lr_ratio is 0.5, .* its own",
    ),
    (
        "ScuRNN",
        {"phase_lr_ratio": 0.5, "group_optimizers": {"phase": SGD}},
        {"phase_lr_ratio": 0.5},
        "phase_lr_ratio is 0.5, .* its own",
    ),
    (
        "GRU",
        {"constraint_bound": 0.5},
        {"constraint_bound": 0.5, "recurrent_constraint": "spectral_norm"},
        "constraint_bound is 0.5, .* recurrent_constraint: none",
    ),
]


@pytest.mark.parametrize(("name", "unread", "read", "sentence"), CASES)
def test_an_option_without_effect_is_told(
    name: str, unread: dict[str, Any], read: dict[str, Any], sentence: str
) -> None:
    with pytest.warns(UserWarning, match=rf"model\.init_args\.{sentence}") as caught:
        getattr(models, name)(TASK, 8, **unread)
    assert len(caught) == 1
    getattr(models, name)(TASK, 8, **read)  # a warning would be an error


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_a_gradient_scaler_takes_no_complex_weights(precision: str) -> None:
    trainer: Any = SimpleNamespace(precision=precision)
    for name in ("FullURNN", "URNN"):  # of the second all weights are real
        model = getattr(models, name)(TASK, 4)
        model._trainer = trainer
        if (name, precision) == ("FullURNN", "16-mixed"):
            with pytest.raises(UserError, match=r"trainer\.precision is '16-mixed', but it must be bf16-mixed"):
                model.configure_optimizers()
        else:
            model.configure_optimizers()
