"""Matrix routines on matrices of all sizes and in stacks: NumPy's results, and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.errors import NumericalError
from graphjit.ops import lapack

Array = np.ndarray[Any, Any]
SQUARE = [(5, 5), (40, 40), (3, 40, 40), (2, 2, 5, 5), (1, 7, 7), (0, 4, 4), (30, 0, 0), (2, 25, 25)]
TALL = [(5, 3), (3, 5), (40, 30), (30, 40), (2, 40, 30), (2, 30, 40), (4, 0), (0, 4), (2, 1), (1, 1), (7, 6, 2)]


def tolerance(x: Array) -> dict[str, float]:
    return {"rtol": 1e-3, "atol": 1e-3} if x.dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SQUARE)
def test_inverses_and_solutions(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) + 3 * np.eye(shape[-1])).astype(dtype)
    b = rng.standard_normal((*shape[:-1], 3)).astype(dtype)
    for got, wanted in ((lapack.inv(x), np.linalg.inv(x)), (lapack.solve(x, b), np.linalg.solve(x, b)),
                        (lapack.solve(x, b[..., ::2]), np.linalg.solve(x, b[..., ::2])),
                        (lapack.inv(x.swapaxes(-1, -2)), np.linalg.inv(x.swapaxes(-1, -2)))):
        assert got.dtype == wanted.dtype and got.flags.c_contiguous
        np.testing.assert_allclose(got, wanted, **tolerance(x))


@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("upper", [False, True])
def test_triangles(shape: tuple[int, ...], upper: bool) -> None:
    rng = np.random.default_rng(3)
    whole = rng.standard_normal(shape) + 9 * np.eye(shape[-1])
    x, b = (np.triu if upper else np.tril)(whole), rng.standard_normal((*shape[:-1], 3))
    wanted = np.linalg.solve(x, b)
    turned = np.ascontiguousarray(whole.swapaxes(-1, -2)).swapaxes(-1, -2)
    for a in (whole, turned):  # what is in the other triangle does not count
        np.testing.assert_allclose(lapack.solve_triangular(a, b, upper), wanted, rtol=1e-9, atol=1e-9)
    found = lapack.solve_triangular(whole, b[..., ::2], upper)
    np.testing.assert_allclose(found, wanted[..., ::2], rtol=1e-9, atol=1e-9)


def test_one_matrix_for_many_right_sides() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 40)) + 9 * np.eye(40), rng.standard_normal((3, 40, 2))
    np.testing.assert_allclose(lapack.solve(a, b), np.linalg.solve(a, b), rtol=1e-9)
    np.testing.assert_allclose(lapack.solve(np.stack([a, 2 * a]), b[0]), np.linalg.solve(np.stack([a, 2 * a]), b[0]),
                               rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", TALL)
def test_factors(shape: tuple[int, ...], dtype: Any) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    for got, wanted in zip(lapack.qr(x), np.linalg.qr(x), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, **tolerance(x))
    u, s, vh = lapack.svd(x)
    for got, wanted in zip((u, s, vh), np.linalg.svd(x, full_matrices=False), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
    np.testing.assert_allclose((u * s[..., None, :]) @ vh, x, **tolerance(x))


@pytest.mark.parametrize("n", [3, 40])
def test_what_is_singular_or_no_number_is_an_error(n: int) -> None:
    zero, nan = np.zeros((n, n), np.float32), np.full((n, n), np.nan, np.float32)
    for f in (gj.linalg.inv, lambda x: gj.linalg.solve(x, x),
              lambda x: gj.linalg.solve_triangular(x, x, upper=True)):
        with pytest.raises(NumericalError, match="singular matrix"):
            f(gj.tensor(zero))
    with pytest.raises(NumericalError, match="did not converge"):
        gj.linalg.svd(gj.tensor(nan))
    assert np.isnan(gj.linalg.inv(gj.tensor(nan)).numpy()).all()
