"""What may be changed without changing the answer, the range of values, and several pixels at a step."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodules import Adding, CopyMemory, Denoise, PixelDigits, PixelMNIST, UserError
from datamodules.task import Task

SMALL = {"train_samples": 16, "val_samples": 16, "test_samples": 16, "batch_size": 8, "seed": 0}


def examples(data):
    return data.split("val")[np.arange(16)]


def test_adding_holds_its_marks_and_what_is_added():
    data = Adding(length=9, **SMALL)
    inputs, targets = examples(data)[:2]
    free = data.changeable(inputs)
    assert free.sum() == 16 * 7 and not free[..., 1].any()
    changed = torch.where(free, torch.rand_like(inputs), inputs)
    again = (changed[..., 0] * changed[..., 1]).sum(1, keepdim=True)
    torch.testing.assert_close(again, targets)
    assert data.bounds == (0.0, 1.0) and inputs.min() >= 0 and inputs.max() <= 1


def test_copying_holds_its_symbols_and_the_marker():
    data = CopyMemory(delay=4, symbols=3, **SMALL)
    inputs = examples(data)[0]
    free = data.changeable(inputs)
    assert free.shape == inputs.shape and not free[:, :3].any()
    assert torch.equal(free.sum(1), torch.full((16,), 10 - 3 - 1)) and not free[inputs == 9].any()
    assert data.bounds is None


def test_denoising_lets_only_the_blanks_behind_the_marker_go():
    """A blank among the symbols that is changed is one more symbol to recall."""
    data = Denoise(delay=6, symbols=2, **SMALL)
    inputs = examples(data)[0]
    assert torch.equal(data.changeable(inputs), (torch.arange(9) > 6).expand(16, 9))


def test_blank_steps_are_held():
    data = PixelMNIST(protocol="nru")
    free = data.changeable(torch.zeros(2, 785, 1))
    assert free[:, :784].all() and not free[:, 784].any()
    data = PixelMNIST(protocol="nru", pixels_per_step=28)
    assert data.task.length == 29
    free = data.changeable(torch.zeros(2, 29, 28))
    assert free[:, :28].all() and not free[:, 28].any()


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize("pixels", [1, 4, 8, 64])
def test_several_pixels_at_a_step(permute, pixels):
    """Step t shows pixels t k to (t + 1) k - 1 of the order that one at a time has."""
    one, many = (PixelDigits(permute=permute, pixels_per_step=k) for k in (1, pixels))
    x, y = one.split("val")[np.arange(5)]
    grouped, labels = many.split("val")[np.arange(5)]
    assert grouped.shape == (5, 64 // pixels, pixels) and torch.equal(labels, y)
    assert torch.equal(grouped.flatten(1), x.flatten(1))
    name = f"{'permuted_' if permute else ''}pixel_digits" if pixels == 1 else None
    task = many.task
    assert isinstance(task, Task) and (task.length, task.input_size) == (64 // pixels, pixels)
    assert task.name == (name or one.task.name + f"_by_{pixels}") and task.chance == pytest.approx(math.log(10))
    assert many.changeable(grouped).all()
    if not permute and pixels == 8:  # rows of the images
        order = np.random.RandomState(0).permutation(1797)[360:540]
        np.testing.assert_array_equal(grouped[0].numpy() * 16, load_digits().images[order[0]])


def test_pixels_that_do_not_divide_the_image_are_refused():
    for pixels in (0, -1, 5, 128):
        with pytest.raises(UserError, match="a divisor of the image's 64 pixels"):
            PixelDigits(pixels_per_step=pixels)
