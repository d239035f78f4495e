"""``DataLoader``: a data set in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

import numpy as np

from graphjit.data.dataset import batch_of
from graphjit.data.prefetch import Prefetched
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
        transform: called with each whole batch; what it gives is the batch.
        prefetch: batches that a background thread makes ahead of their use; 0: none. The batches are the same,
            bit for bit, and come in the same order. They are made one after the other, so a transform with a
            random generator of its own draws the same numbers too; one that draws from the default generator
            would compete with the training step for its numbers.
        seed: repeats the orders: that of pass k depends on the seed and k only. Without it, and without
            ``generator``, ``gj.manual_seed`` repeats them.
        generator: where the orders come from.

    Attributes:
        epoch: passes begun so far.

    Raises:
        ArgumentError: a batch size below 1, a negative prefetch, both a seed and a generator, or a data set
            without length.

    What goes wrong in the data set, ``collate_fn`` or ``transform`` is raised where the batch is asked for. Leaving
    a loop early ends the background thread.

    >>> from graphjit import data
    >>> loader = data.DataLoader(data.TensorDataset([1.0, 2.0, 3.0]), batch_size=2)
    >>> [x.tolist() for x, in loader]
    [[1.0, 2.0], [3.0]]
    >>> doubled = data.DataLoader([1.0, 2.0], batch_size=2, transform=lambda batch: (2 * batch[0],), prefetch=1)
    >>> [x.tolist() for x, in doubled]
    [[2.0, 4.0]]
    """

    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, *, drop_last: bool = False,
                 collate_fn: Callable[[list[Any]], Any] | None = None,
                 transform: Callable[[Any], Any] | None = None, prefetch: int = 0, seed: int | None = None,
                 generator: Generator | None = None) -> None:
        _check_count("batch_size", batch_size, 1)
        _check_count("prefetch", prefetch, 0)
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
        self.transform = transform
        self.prefetch = prefetch
        self.generator = generator if seed is None else Generator(seed)
        self.epoch = 0

    def __len__(self) -> int:
        """The number of batches."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        # drawn here, not at the first batch: two passes started one after the other differ whoever is first
        order = permutation(n, generator=self.generator).data if self.shuffle else np.arange(n)
        self.epoch += 1
        batches = self._batches(order)
        return Prefetched(batches, self.prefetch) if self.prefetch else batches

    def _batches(self, order: Array) -> Iterator[Any]:
        for i in range(len(self)):
            places = order[i * self.batch_size:(i + 1) * self.batch_size]
            if self.collate_fn is not None:
                batch = self.collate_fn([self.dataset[int(j)] for j in places])
            else:
                batch = batch_of(self.dataset, places)
            yield batch if self.transform is None else self.transform(batch)

    def state_dict(self) -> dict[str, Any]:
        """What the orders of the passes to come depend on, between two passes, in plain numbers (JSON holds them).

        Returns:
            ``epoch``: passes begun; ``generator``: seed and number of draws of the loader's generator, or None
            where the orders come from the default one, whose state is the program's.

        >>> from graphjit import data
        >>> loader = data.DataLoader(list(range(9)), batch_size=9, shuffle=True, seed=3)
        >>> first = next(iter(loader))
        >>> state, (second,) = loader.state_dict(), next(iter(loader))
        >>> loader.load_state_dict(state)
        >>> bool((next(iter(loader))[0] == second).all())
        True
        """
        state = None if self.generator is None else [int(n) for n in self.generator.state]
        return {"epoch": self.epoch, "generator": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was called.

        Raises:
            ArgumentError: no such state, or that of a loader with a generator where this one has none (or the
                other way round). Nothing has changed then.
        """
        try:
            epoch, draws = state["epoch"], state["generator"]
        except (KeyError, TypeError):
            raise ArgumentError("this is no state of a DataLoader: it has 'epoch' and 'generator'") from None
        _check_count("epoch", epoch, 0)
        if (draws is None) != (self.generator is None):
            mine, other = ("no", "one with a") if self.generator is None else ("a", "one without")
            raise ArgumentError(f"the state is of {other} generator, this DataLoader has {mine} generator of its own",
                                hint="Make it with seed= (or generator=) as the one whose state was kept.")
        if self.generator is not None:
            self.generator.state = draws
        self.epoch = epoch


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name} is a whole number from {least} up, not {value!r}")
