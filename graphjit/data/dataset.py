"""Collections of samples that are read by index, one at a time or many at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.arrays import to_array
from graphjit.errors import ArgumentError, BoundsError, ShapeError
from graphjit.op import Array
from graphjit.ops.random import Generator, permutation
from graphjit.tensor import Tensor, TensorLike


class Dataset:
    """Base of data sets. A subclass defines ``__len__`` and ``__getitem__``, which gives a sample: a tuple
    (or a dict, or one alone) of arrays and numbers.

    >>> from graphjit import data
    >>> class Squares(data.Dataset):
    ...     def __len__(self): return 5
    ...     def __getitem__(self, i): return float(i), float(i * i)
    >>> [field.tolist() for field in Squares().batch([1, 3])]
    [[1.0, 3.0], [1.0, 9.0]]
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__()")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def batch(self, indices: Sequence[int] | Array) -> Any:
        """The samples at these places, each field stacked into an array along a new first axis."""
        return collate([self[int(i)] for i in indices])


class TensorDataset(Dataset):
    """Arrays of equal first length; sample i is the tuple of their i-th rows.

    Args:
        tensors: arrays, Tensors or nested lists; arrays are not copied.

    Raises:
        ShapeError: different numbers of rows. ArgumentError: no array at all.

    >>> from graphjit import data
    >>> x, y = data.TensorDataset([[1.0], [2.0]], [0, 1])[1]
    >>> x.tolist(), int(y)
    ([2.0], 1)
    """

    def __init__(self, *tensors: TensorLike) -> None:
        if not tensors:
            raise ArgumentError("TensorDataset needs at least one array")
        self.tensors = tuple(to_array(t) for t in tensors)
        if any(t.ndim == 0 or len(t) != len(self.tensors[0]) for t in self.tensors):
            raise ShapeError("TensorDataset needs arrays of equally many rows",
                             detail=("shapes: " + ", ".join(str(t.shape) for t in self.tensors),))

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(t[index] for t in self.tensors)

    def batch(self, indices: Sequence[int] | Array) -> tuple[Array, ...]:
        """The rows at these places, copied."""
        return tuple(t[np.asarray(indices, np.int64)] for t in self.tensors)


class Subset(Dataset):
    """The samples of another data set at some places.

    Args:
        dataset: which they are taken from.
        indices: whole numbers from 0 (negative ones count from the end), in the order of the subset.

    Raises:
        ArgumentError: indices that are no list of whole numbers. BoundsError: one outside of the data set.

    >>> from graphjit import data
    >>> list(data.Subset(["a", "b", "c"], [2, 0]))
    ['c', 'a']
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | Array) -> None:
        places = np.asarray(indices)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
            raise ArgumentError(f"a Subset takes a list of whole numbers, not {places.dtype}{list(places.shape)}",
                                hint="np.flatnonzero(mask) gives the places where a mask is true.")
        n = len(dataset)
        wrong = (places < -n) | (places >= n)
        if wrong.any():
            raise BoundsError(f"index {places[wrong][0]} is outside of the {n} samples there are")
        self.dataset = dataset
        self.indices = places.astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def batch(self, indices: Sequence[int] | Array) -> Any:
        """The samples at these places of the subset."""
        return batch_of(self.dataset, self.indices[np.asarray(indices, np.int64)])


def batch_of(dataset: Any, indices: Sequence[int] | Array) -> Any:
    """A batch of a Dataset, or of whatever else gives samples by index."""
    if isinstance(dataset, Dataset):
        return dataset.batch(indices)
    return collate([dataset[int(i)] for i in indices])


def random_split(dataset: Any, lengths: Sequence[float], generator: Generator | None = None) -> list[Subset]:
    """Cut a data set at random into parts that share no sample.

    Args:
        dataset: what is cut.
        lengths: numbers of samples that add up to all, or fractions that add up to 1 (what rounding leaves
            goes to the first parts, one each).
        generator: the default one if None.

    Raises:
        ArgumentError: lengths that do not add up.
    """
    n = len(dataset)
    counts = list(lengths)
    if all(0 <= f <= 1 for f in lengths) and math.isclose(sum(lengths), 1) and n != 1:
        counts = [math.floor(n * f) for f in lengths]
        for i in range(n - int(sum(counts))):
            counts[i % len(counts)] += 1
    if sum(counts) != n or any(c != int(c) or c < 0 for c in counts):
        raise ArgumentError(f"lengths {tuple(lengths)} do not add up to the {n} samples there are",
                            hint="Give whole numbers, or fractions that add up to 1.")
    order = permutation(n, generator=generator).data
    ends = itertools.accumulate(int(c) for c in counts)
    return [Subset(dataset, order[end - int(c):end]) for c, end in zip(counts, ends, strict=True)]


def collate(samples: Sequence[Any]) -> Any:
    """Samples as one batch: tuples and dicts field by field, each stacked along a new first axis.

    Raises:
        ArgumentError: samples of different shapes, or of what is no array.

    >>> from graphjit import data
    >>> x, y = data.collate([([1.0, 2.0], 0), ([3.0, 4.0], 1)])
    >>> x.shape, y.tolist()
    ((2, 2), [0, 1])
    """
    if not samples:
        raise ArgumentError("a batch of no samples")
    if isinstance(samples[0], Mapping):
        return {key: _stack([s[key] for s in samples]) for key in samples[0]}
    if isinstance(samples[0], tuple):
        if len({len(s) for s in samples}) != 1:
            raise ArgumentError("samples of one batch have different numbers of fields")
        return tuple(_stack(list(field)) for field in zip(*samples, strict=True))
    return (_stack(list(samples)),)


def _stack(values: list[Any]) -> Array:
    arrays = [v.data if isinstance(v, Tensor) else to_array(v) for v in values]
    if len({a.shape for a in arrays}) != 1:
        shapes = ", ".join(sorted({str(a.shape) for a in arrays})[:6])
        raise ArgumentError("samples of one batch have different shapes", detail=(f"shapes: {shapes}",),
                            hint="Pad them, or pass collate_fn= to the DataLoader.")
    return np.stack(arrays)
