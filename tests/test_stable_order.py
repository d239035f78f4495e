"""Sorting is stable for every dtype, ascending and descending, with NaN and both zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.types import DTYPES

Array = np.ndarray[Any, Any]
SHAPES = [(1,), (0,), (50,), (7, 9), (0, 3), (3, 0), (4, 5, 6), (3, 300), (9, 12, 10)]


def samples(dtype: str, shape: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(len(shape) + sum(shape))
    if dtype == "bool":
        return [rng.random(shape) < 0.5]
    if dtype.startswith("float"):
        plain = rng.standard_normal(shape).astype(dtype)
        nan = np.where(rng.random(shape) < 0.3, np.nan, plain)
        special = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-40], shape)
        return [plain, np.round(plain), nan.astype(dtype), -nan.astype(dtype), special.astype(dtype)]
    info = np.iinfo(dtype)
    whole = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    ends = whole.copy()
    ends.reshape(-1)[:1], ends.reshape(-1)[1:2] = info.min, info.max
    return [whole, ends, rng.integers(0, 9, shape).astype(dtype)]


def stable_order(x: Array, axis: int, descending: bool) -> Array:
    """As written down: equal elements, all NaN among them, keep their order."""
    def order(row: Array) -> list[int]:
        nan = np.isnan(row) if row.dtype.kind == "f" else np.zeros(len(row), bool)
        values = [0 if hole else value for value, hole in zip(row.tolist(), nan, strict=True)]
        sign = -1 if descending else 1
        return sorted(range(len(row)), key=lambda i: (sign * int(nan[i]), sign * values[i]))
    if not x.size:
        return np.zeros(x.shape, np.int64)
    return np.apply_along_axis(lambda row: np.array(order(row), np.int64), axis, x)


@pytest.mark.parametrize("dtype", [np.dtype(d).name for d in DTYPES])
@pytest.mark.parametrize("shape", SHAPES)
def test_order(dtype: str, shape: tuple[int, ...]) -> None:
    for x in samples(dtype, shape):
        for axis in range(x.ndim):
            for descending in (False, True):
                found = gj.argsort(gj.tensor(x), axis, descending=descending).numpy()
                np.testing.assert_array_equal(found, stable_order(x, axis, descending))
                ordered = gj.sort(gj.tensor(x), axis, descending=descending).numpy()
                np.testing.assert_array_equal(ordered, np.take_along_axis(x, found, axis))
