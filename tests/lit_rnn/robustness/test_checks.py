"""The checks of Carlini et al.: a sound table passes all, and each fault is found by its own check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import UserError
from lit_rnn.robustness import AttackResult, honesty_checks, worst_case

N = 100
BOX = (0.0, 1.0)


def result(attack: str, kind: Any, eps: float, share: float, norm: Any = math.inf, **options: Any) -> AttackResult:
    fooled = np.arange(N) < round(share * N)
    options = {"box": BOX, "settings": {"steps": 1}, **options}
    return AttackResult(attack, kind, norm, eps, fooled, fooled.astype(float), **options)


def sound() -> list[AttackResult]:
    twice = {"settings": {"steps": 80}}
    return [
        result("clean", "clean", 0.0, 0.02),
        result("uniform", "noise", 0.1, 0.05),
        result("fgsm", "single_step", 0.1, 0.5),
        result("fgsm", "single_step", 0.5, 0.8),
        result("search", "gradient_free", 0.1, 0.4),
        result("transfer", "transfer", 0.1, 0.3),
        result("pgd", "iterative", 0.1, 0.6, settings={"steps": 40}),
        result("pgd", "iterative", 0.5, 0.95, settings={"steps": 40}),
        result("pgd", "iterative", 1.0, 1.0, settings={"steps": 40}),
        result("pgd", "iterative", 0.1, 0.605, **twice),
        result("pgd", "iterative", 9.0, 0.9, 2, settings={"steps": 40}),
    ]


def passed(results: list[AttackResult], **options: Any) -> dict[str, bool | None]:
    options = {"chance": 0.1, "nearest_other_class": 9.0, "zero_gradients": {"cross_entropy": [0.0, 0.1]}, **options}
    checks = honesty_checks(results, **options)
    assert all(check.sentence.endswith(".") for check in checks)
    return {check.name: check.passed for check in checks}


def test_a_sound_table_passes() -> None:
    found = passed(sound())
    assert len(found) == 14 and all(value is True for value in found.values()), found


FAULTS: dict[str, tuple[int, Any]] = {
    "iterative beats single step": (2, lambda: result("fgsm", "single_step", 0.1, 0.7)),
    "success grows with eps": (7, lambda: result("pgd", "iterative", 0.5, 0.5, settings={"steps": 40})),
    "large eps reaches chance": (8, lambda: result("pgd", "iterative", 1.0, 0.6, settings={"steps": 40})),
    "unbounded attack succeeds": (8, lambda: result("pgd", "iterative", 1.0, 0.97, settings={"steps": 40})),
    "more steps change little": (9, lambda: result("pgd", "iterative", 0.1, 0.7, settings={"steps": 80})),
    "gradients beat noise and transfer": (5, lambda: result("transfer", "transfer", 0.1, 0.7)),
    "gradients beat queries": (4, lambda: result("search", "gradient_free", 0.1, 0.7)),
    "curve goes to zero": (8, lambda: result("pgd", "iterative", 1.0, 0.97, settings={"steps": 40})),
    "clean accuracy": (0, lambda: result("uniform", "noise", 0.01, 0.05)),
    "hyper-parameters are stored": (4, lambda: result("search", "gradient_free", 0.1, 0.4, settings={})),
    "claims stop at the next class": (10, lambda: result("pgd", "iterative", 9.0, 0.2, 2, settings={"steps": 40})),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(name: str) -> None:
    table = sound()
    place, fault = FAULTS[name]
    table[place] = fault()
    if name == "large eps reaches chance":
        table[7] = result("pgd", "iterative", 0.5, 0.6, settings={"steps": 40})
        table[3] = result("fgsm", "single_step", 0.5, 0.6)
    assert passed(table)[name] is False


def test_masking_and_unequal_examples() -> None:
    name = "no gradient masking"
    assert passed(sound(), zero_gradients={"cross_entropy": [0.0, 1.0]})[name] is False
    shares = {"cross_entropy": torch.tensor([1.0, 0.9, 0.0]), "margin": torch.zeros(3)}
    found = {check.name: check for check in honesty_checks(sound(), zero_gradients=shares)}
    assert "2 of 3 time steps (first 1, last 2)" in found[name].sentence
    assert "attack with margin" in found[name].sentence
    assert passed(sound(), zero_gradients={"cross_entropy": [math.nan, 0.0]})[name] is True, "nothing measured there"
    shares["margin"] = torch.tensor([1.0, 0.0, 0.0])
    found = {check.name: check for check in honesty_checks(sound(), zero_gradients=shares)}
    assert "without gradients" in found[name].sentence
    short = AttackResult("fgsm", "single_step", math.inf, 0.2, np.ones(3, dtype=bool), np.ones(3))
    assert passed([*sound(), short])["worst attack per example"] is False
    with pytest.raises(UserError):
        worst_case([*sound(), short])


def test_small_sizes_do_not_make_an_evaluation_fail() -> None:
    """Without an eps as wide as the box nothing says that the accuracy must come to zero."""
    table = [result("clean", "clean", 0.0, 0.02), result("pgd", "iterative", 0.1, 0.3, settings={"steps": 40})]
    (check,) = (one for one in honesty_checks(table) if one.name == "curve goes to zero")
    assert check.passed is None
    assert check.sentence == "Not checked: no eps is as wide as the box, and 70.0% remain right."
    table.append(result("pgd", "iterative", 0.2, 1.0, settings={"steps": 40}))
    assert passed(table)["curve goes to zero"] is True


def test_an_empty_table_claims_nothing() -> None:
    found = passed([result("clean", "clean", 0.0, 0.02)], zero_gradients=None)
    assert found["clean accuracy"] is True
    assert [name for name, value in found.items() if value is None and name.startswith("gradients beat")]
    assert False not in found.values()


def test_worst_case_is_per_example() -> None:
    a = AttackResult("a", "noise", math.inf, 0.1, np.array([True, False, False]), np.zeros(3))
    b = AttackResult("b", "noise", math.inf, 0.1, np.array([False, True, False]), np.zeros(3))
    assert worst_case([a, b]).tolist() == [True, True, False]
    assert "Linf <= 0.1" in a.threat and "untargeted" in a.threat
