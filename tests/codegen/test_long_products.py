"""Small products of long sums: cut into parts that threads share, and added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering import compiled, floats, kernels

import graphjit as gj


def product(layout: str, a: Any, b: Any) -> Any:
    match layout:
        case "TN":
            return a.T @ b
        case "NT":
            return a @ b.T
        case "TT":
            return a.T @ b.T
        case "computed":
            return gj.tanh(a) @ gj.tanh(b)
        case _:
            return a @ b


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NN", "TN", "NT", "TT", "computed"])
@pytest.mark.parametrize("sizes", [(32, 1000, 32), (3, 100000, 4), (100, 1797, 10), (17, 6000, 65), (90, 6007, 10)],
                         ids=str)
def test_parts_give_the_whole(sizes: tuple[int, int, int], layout: str, dtype: Any) -> None:
    m, k, n = sizes
    a, b = floats(m, k, dtype=dtype), floats(k, n, seed=1, dtype=dtype)
    given = a.T.copy() if layout in ("TN", "TT") else a, b.T.copy() if layout in ("NT", "TT") else b
    f = compiled(lambda a, b: product(layout, a, b), *given)
    x, y = (np.tanh(v) if layout == "computed" else v for v in (a.astype(np.float64), b.astype(np.float64)))
    right, size = x @ y, np.abs(x) @ np.abs(y)
    found, before = [], gj.get_num_threads()
    try:
        for threads in (1, 2):
            gj.set_num_threads(threads)
            found.append(np.asarray(f(*given)))
    finally:
        gj.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    assert (np.abs(found[0] - right) <= 40 * np.finfo(dtype).eps * size + 1e-30).all()


def test_which_products_are_cut() -> None:
    def titles(m: int, k: int, n: int) -> list[str]:
        return kernels(lambda a, b: a @ b, floats(m, k), floats(k, n))
    assert titles(32, 1000, 32) == ["matmul 32x250x32 batch 4", "add 4 parts"]
    assert titles(32, 1002, 32) == ["matmul 32x167x32 batch 6", "add 6 parts"]
    for sizes in ((32, 100, 32), (32, 1009, 32), (128, 1000, 128), (128, 256, 100), (1, 100000, 8)):
        assert titles(*sizes) == [f"matmul {'x'.join(map(str, sizes))}"]  # little work, a prime, large, short, a vector


def test_another_length_needs_no_kernel() -> None:
    step = gj.compile(lambda x, g: gj.tanh(x).T @ g)
    step(floats(64, 32), floats(64, 16))
    before = step.compile_count
    for rows in (2000, 2003, 4096, 7):
        step(floats(rows, 32), floats(rows, 16))
    assert step.compile_count == before
