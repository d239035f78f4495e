"""``DataLoader``: a data set in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np

from graphjit.data.dataset import batch_of
from graphjit.errors import ArgumentError
from graphjit.op import Array
from graphjit.ops.random import Generator, permutation


class DataLoader:
    """Iterates over a data set in batches: tuples of NumPy arrays whose first axis counts the samples.

    Args:
        dataset: a ``Dataset``, or anything with ``len()`` that gives samples by index.
        batch_size: samples in a batch; the last one has what is left.
        shuffle: whether each pass takes the samples in a new random order.
        drop_last: leave out the last batch if it is smaller.
        collate_fn: makes a batch of a list of samples, instead of stacking their fields.
        seed: repeats the orders; without it, and without ``generator``, ``gj.manual_seed`` does.
        generator: where the orders come from.

    Raises:
        ArgumentError: a batch size below 1, both a seed and a generator, or a data set without length.

    >>> from graphjit import data
    >>> loader = data.DataLoader(data.TensorDataset([1.0, 2.0, 3.0]), batch_size=2)
    >>> [x.tolist() for x, in loader]
    [[1.0, 2.0], [3.0]]
    """

    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, *, drop_last: bool = False,
                 collate_fn: Callable[[list[Any]], Any] | None = None, seed: int | None = None,
                 generator: Generator | None = None) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"batch_size is a whole number from 1 up, not {batch_size!r}")
        if seed is not None and generator is not None:
            raise ArgumentError("a DataLoader takes a seed or a generator, not both")
        if not isinstance(dataset, Sized):
            raise ArgumentError(f"a {type(dataset).__name__} is not a data set: it needs len() and indexing",
                                hint="gj.data.TensorDataset(x, y) makes one of arrays.")
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.collate_fn = collate_fn
        self.generator = generator if seed is None else Generator(seed)

    def __len__(self) -> int:
        """The number of batches."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        # drawn here, not at the first batch: two passes started one after the other differ whoever is first
        order = permutation(n, generator=self.generator).data if self.shuffle else np.arange(n)
        return self._batches(order)

    def _batches(self, order: Array) -> Iterator[Any]:
        for i in range(len(self)):
            places = order[i * self.batch_size:(i + 1) * self.batch_size]
            if self.collate_fn is not None:
                yield self.collate_fn([self.dataset[int(j)] for j in places])
            else:
                yield batch_of(self.dataset, places)
