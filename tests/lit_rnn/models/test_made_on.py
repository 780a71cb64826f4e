"""A command on other data than the checkpoint's says so; training does not go on there."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from datamodules import (
    Adding,
    CopyMemory,
    Denoise,
    Parenthesis,
    PixelCIFAR10,
    PixelDigits,
    PixelMNIST,
    SequenceDataModule,
    UserError,
)
from lit_rnn.models import VanillaRNN, made_on
from tests.trainers import quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.usefixtures("_no_pictures"),
]
DIGITS = {"class_path": "PixelDigits", "init_args": {"permute": True, "batch_size": 400, "val_size": 7, "test_size": 9}}


@pytest.mark.parametrize(
    ("data", "key", "kept", "value"),
    [
        (DIGITS, "permutation_seed", "92916", "1"),
        (DIGITS, "permute", "true", "false"),
        ({}, "delay", "5", "6"),
        ({}, "protocol", "'common'", "exprnn"),
        ({}, "variable", "false", "true"),
    ],
)
def test_commands(cli: Any, config: Any, refused: Any, data: Any, key: str, kept: str, value: str) -> None:
    assert cli("fit", "-c", config(data=data, trainer={"max_steps": 1}), "--run_dir", "r").status == 0
    more = ("--run_dir", "r", "--ckpt_path", "last")
    changed = (f"--data.init_args.{key}", value)
    for command in ("test", "validate", "predict") if key == "permute" else ("test",):
        with pytest.warns(UserWarning, match=rf"data\.init_args\.{key} is .*{value}.* made on {kept}") as told:
            assert cli(command, *more, *changed).status == 0
        assert len(told) == 1
        assert cli(command, *more, "--data.init_args.batch_size", "4").status == 0  # no warning, which is an error
    sentence = refused("fit", *more, *changed, "--trainer.max_steps", "2")
    assert f"data.init_args.{key}" in sentence and kept in sentence and "same data" in sentence


def test_a_published_order_by_its_name_or_its_seed() -> None:
    """Null is the protocol's; an order that is not used is none."""
    assert PixelMNIST(permute=True).definition() == PixelMNIST(permute=True, permutation_seed="urnn").definition()
    each, shared = (PixelMNIST(pad_to=800, noise=noise).definition() for noise in ("each", "shared"))
    assert each != shared
    with pytest.warns(UserWarning, match="permutation_seed is 1, which has no effect|noise is 'shared', which has no"):
        assert PixelMNIST(permutation_seed=1, noise="shared").definition() == PixelMNIST().definition()
    by_name, by_seed = (PixelMNIST(permute=True, permutation_seed=seed).definition() for seed in ("nnrnn", 1234))
    assert by_name == by_seed != PixelMNIST(permute=True).definition()


PIXELS = {"permute": True, "pixels_per_step": 8, "val_size": 9, "split_seed": 1, "pad_to": 1100}


@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (CopyMemory, {"delay": 9, "symbols": 3, "alphabet": 4, "protocol": "exprnn", "variable": True, "raw": True}),
        (Denoise, {"delay": 90, "symbols": 3, "alphabet": 4, "protocol": "goru"}),
        (Adding, {"length": 90, "protocol": "urnn", "mark_first": True}),
        (Parenthesis, {"length": 9, "types": 3, "noise": 4, "most": 5}),
        (PixelDigits, {**PIXELS, "test_size": 9}),
        (PixelMNIST, {**PIXELS, "protocol": "nru", "dataset": "kmnist"}),
        (PixelCIFAR10, {**PIXELS, "colour": "gray"}),
    ],
)
def test_every_option_that_counts(cls: type[SequenceDataModule], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        assert key in {name for name in cls.task_options if cls(**{key: value}).definition()[name] == value}
        checkpoint = {"lit_rnn": {"data": made_on.note(cls())}, "hyper_parameters": {"task": {}}}
        now = cls(**{key: value})
        assert made_on.differences(checkpoint, now, now.task)[f"data.init_args.{key}"][1] == value
    # these where there is one
    assert set(changes) | {"permutation_seed", "noise", "same_length"} >= set(cls.task_options)


def test_in_python(tmp_path: Any) -> None:
    """Other classes, tasks that differ in what no option says, and checkpoints without a note."""

    def data(cls: Any = CopyMemory, **options: Any) -> Any:
        return cls(**options, train_samples=8, val_samples=4, test_samples=4, batch_size=4)

    trainer, copying = quiet_trainer(max_steps=1, num_sanity_val_steps=0), data()
    trainer.fit(VanillaRNN(copying.task, 4), copying)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")

    def test(other: Any, **changes: Any) -> None:
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # inside pytest.warns too
        model = VanillaRNN({**vars(other.task), **changes}, 4)
        quiet_trainer().test(model, other, ckpt_path=path, verbose=False, weights_only=True)

    test(copying)
    with pytest.warns(UserWarning, match=r"data.class_path is 'datamodules.denoising.Denoise', but .*CopyMemory"):
        test(data(Denoise))
    with pytest.warns(UserWarning, match=r"task\.chance is 2\.0, but .* 0\.17"):
        test(copying, chance=2.0)
    # another metric begins afresh, and takes the weights
    with pytest.warns(UserWarning, match=r"task\.metric is 'f1', but the checkpoint was made on 'accuracy'"):
        test(copying, metric="f1")
    with pytest.raises(UserError, match=r"data\.init_args\.delay is 7"):
        other = data(delay=7)
        trainer = quiet_trainer(max_steps=2, num_sanity_val_steps=0)
        trainer.fit(VanillaRNN(other.task, 4), other, ckpt_path=path, weights_only=True)
    kept = torch.load(path, weights_only=True)
    del kept["lit_rnn"]["data"]
    torch.save(kept, path)
    test(data(delay=7))
