"""Tables for classification that scikit-learn holds or makes, offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.data.dataset import TensorDataset
from graphjit.errors import ArgumentError
from graphjit.op import Array

HELD = ("breast_cancer", "digits", "iris", "wine")
MADE = ("blobs", "circles", "moons")
SOURCES = (*HELD, *MADE)


@dataclass(frozen=True)
class Table:
    """Samples with labels.

    Attributes:
        name: which it is.
        x: (samples, features), float32. y: (samples,), int64, the class of each.
        classes: names of the classes. features: names of the columns.
    """

    name: str
    x: Array
    y: Array
    classes: tuple[str, ...]
    features: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    def dataset(self) -> TensorDataset:
        """Samples and labels as a data set."""
        return TensorDataset(self.x, self.y)


def load(name: str, *, samples: int = 1000, noise: float = 0.1, seed: int = 0) -> Table:
    """A table by its name; needs scikit-learn (``pip install graphjit[data]``).

    Args:
        name: 'breast_cancer', 'digits', 'iris', 'wine'; or 'blobs', 'circles', 'moons', which are made.
        samples, noise, seed: of those that are made: how many points, the standard deviation of what is added
            to them, and what repeats them.

    Raises:
        ArgumentError: an unknown name, or scikit-learn is missing.
    """
    if name not in SOURCES:
        raise ArgumentError(f"there is no data set {name!r}", hint=f"There are {', '.join(SOURCES)}.")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ArgumentError(f"the data set {name!r} needs scikit-learn, which is not installed",
                            hint='pip install "graphjit[data]"') from error
    if name in HELD:
        bunch = getattr(datasets, f"load_{name}")()
        return _table(name, bunch.data, bunch.target, bunch.target_names, bunch.feature_names)
    make: dict[str, Callable[[], tuple[Any, ...]]] = {
        "moons": lambda: datasets.make_moons(samples, noise=noise, random_state=seed),
        "circles": lambda: datasets.make_circles(samples, noise=noise, factor=0.5, random_state=seed),
        "blobs": lambda: datasets.make_blobs(samples, cluster_std=10 * noise, random_state=seed)[:2],
    }
    x, y = make[name]()
    return _table(name, x, y, range(int(y.max()) + 1), ("x", "y"))


def _table(name: str, x: Any, y: Any, classes: Any, features: Any) -> Table:
    return Table(name, np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int64),
                 tuple(str(c) for c in classes), tuple(str(f) for f in features))
