"""``Table``: samples with class labels, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphjit.data.dataset import TensorDataset
from graphjit.op import Array


@dataclass(frozen=True, eq=False)
class Table:
    """Samples with labels.

    Attributes:
        name: which it is.
        x: (samples, features), float32; pixels of images are scaled to 0..1 (those of scikit-learn's digits stay
            0..16).
        y: (samples,), int64, the class of each.
        classes: names of the classes. features: names of the columns, () where they have none.
        shape: of one sample, channels first: (1, 28, 28) of an image, (1, 140) of a series, (features,) of a row.
        test: the samples that the data set keeps for testing, or None where it leaves the choice to the user.
    """

    name: str
    x: Array
    y: Array
    classes: tuple[str, ...]
    features: tuple[str, ...]
    shape: tuple[int, ...]
    test: Table | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        held_out = "" if self.test is None else f" and {len(self.test)} for testing"
        return f"Table({self.name!r}: {len(self)} samples{held_out} of shape {self.shape}, {len(self.classes)} classes)"

    def images(self) -> Array:
        """The samples in their shape, (samples, \\*shape), float32: what convolutions take. A view of ``x``."""
        return self.x.reshape(len(self.x), *self.shape)

    def dataset(self, *, flat: bool = True) -> TensorDataset:
        """Samples and labels as a data set; ``flat=False``: the samples in their shape."""
        return TensorDataset(self.x if flat else self.images(), self.y)


def make_table(name: str, x: object, y: object, classes: object, *, features: object = (),
               shape: tuple[int, ...] = (), test: Table | None = None) -> Table:
    """A Table of whatever arrays and names there are; the shape is that of a row when not given."""
    rows = np.ascontiguousarray(x, np.float32)
    return Table(name, rows, np.ascontiguousarray(y, np.int64), _names(classes), _names(features),
                 shape or rows.shape[1:], test)


def _names(values: object) -> tuple[str, ...]:
    return tuple(str(v) for v in values)  # type: ignore[attr-defined]  # any iterable: arrays, lists, ranges
