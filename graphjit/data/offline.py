"""Tables that scikit-learn holds or makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.data.catalog import Source
from graphjit.data.table import Table, make_table
from graphjit.errors import DatasetUnavailable

MADE = ("blobs", "circles", "moons")


def load_offline(source: Source, samples: int, noise: float, seed: int) -> Table:
    """One of scikit-learn's tables.

    Args:
        source: which.
        samples, noise, seed: of those that are made: how many points, the standard deviation of what is added to
            them, and what repeats them.

    Raises:
        DatasetUnavailable: scikit-learn is missing.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DatasetUnavailable(f"the data set {source.name!r} needs scikit-learn, which is not installed",
                                 hint='pip install "graphjit[data]"') from error
    if source.name not in MADE:
        bunch = getattr(datasets, f"load_{source.name}")()
        return make_table(source.name, bunch.data, bunch.target, bunch.target_names, features=bunch.feature_names,
                          shape=source.shape)
    make: dict[str, Callable[[], tuple[Any, ...]]] = {
        "moons": lambda: datasets.make_moons(samples, noise=noise, random_state=seed),
        "circles": lambda: datasets.make_circles(samples, noise=noise, factor=0.5, random_state=seed),
        "blobs": lambda: datasets.make_blobs(samples, cluster_std=10 * noise, random_state=seed)[:2],
    }
    x, y = make[source.name]()
    return make_table(source.name, x, y, source.classes, features=("x", "y"), shape=source.shape)
