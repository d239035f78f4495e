"""LAPACK's routines for stacks of matrices: SciPy's, and for many small matrices NumPy's, which loops over them in C.

SciPy's are the faster ones, and are what triangular solves (by its BLAS) and Cholesky's factor use. NumPy brings a
BLAS of its own: where large matrices take turns between the two, the threads of one wait for those of the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.op import Array
from graphjit.types import DType

SMALL = 24  # rows and columns of matrices that NumPy takes, if there are several


@functools.cache
def _routines(dtype: DType, *names: str) -> list[Callable[..., Any]]:
    from scipy.linalg.lapack import get_lapack_funcs
    found: list[Callable[..., Any]] = get_lapack_funcs(names, dtype=dtype)
    return found


@functools.cache
def _trsm(dtype: DType) -> Callable[..., Any]:
    from scipy.linalg.blas import get_blas_funcs
    found: Callable[..., Any] = get_blas_funcs("trsm", dtype=dtype)
    return found


def _many_small(x: Array) -> bool:
    return bool(math.prod(x.shape[:-2]) > 1 and max(x.shape[-2:]) <= SMALL)


def _check(info: int | bool, problem: str) -> None:
    if info:
        raise np.linalg.LinAlgError(problem)


def inv(x: Array) -> Array:
    """The inverse of each matrix of (..., n, n)."""
    if _many_small(x) or not x.size:
        return np.linalg.inv(x)
    out = np.empty_like(x, order="C")
    getrf, getri = _routines(x.dtype, "getrf", "getri")
    for i in np.ndindex(*x.shape[:-2]):
        lu, pivots, info = getrf(x[i].T)  # the inverse of the transpose, as this lies in LAPACK's order
        _check(info, "Singular matrix")
        found, info = getri(lu, pivots, overwrite_lu=True)
        _check(info, "Singular matrix")
        out[i] = found.T
    return out


def solve(a: Array, b: Array) -> Array:
    """x with a @ x = b, for (..., n, n) and (..., n, k)."""
    if not b.size or ((a.ndim > 2 or b.ndim > 2) and a.shape[-1] <= SMALL):
        return np.linalg.solve(a, b)
    if a.ndim > 2 or b.ndim > 2:
        return _solve_each(a, b)
    (gesv,) = _routines(a.dtype, "gesv")
    *_, found, info = gesv(a, b)
    _check(info, "Singular matrix")
    return np.ascontiguousarray(found)


def _solve_each(a: Array, b: Array) -> Array:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    out = np.empty(b.shape, b.dtype)
    for i in np.ndindex(*batch):
        out[i] = solve(a[i], b[i])
    return out


def solve_triangular(a: Array, b: Array, upper: bool) -> Array:
    """x with a @ x = b, for the upper or lower triangles of (..., n, n) and (..., n, k)."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.array(np.broadcast_to(b, (*batch, *b.shape[-2:])), order="C")
    if out.size:
        _check(not a.diagonal(0, -2, -1).all(), "Singular matrix")
        trsm, a = _trsm(a.dtype), np.broadcast_to(a, (*batch, *a.shape[-2:]))
        for i in np.ndindex(*batch):  # xᵀ aᵀ = bᵀ, as they lie in BLAS's order: nothing is turned
            x = out[i].T
            if a[i].flags.f_contiguous:
                found = trsm(1.0, a[i], x, side=1, lower=not upper, trans_a=1, overwrite_b=1)
            else:
                found = trsm(1.0, a[i].T, x, side=1, lower=upper, overwrite_b=1)
            if found is not x:
                out[i] = found.T
    return out


def qr(x: Array) -> tuple[Array, Array]:
    """Orthonormal columns q (..., m, k) and upper triangular r (..., k, n), k the lesser of m and n."""
    if _many_small(x) or not x.size:
        q, r = np.linalg.qr(x)
        return q, r
    *batch, m, n = x.shape
    k = min(m, n)
    q, r = np.empty((*batch, m, k), x.dtype), np.empty((*batch, k, n), x.dtype)
    geqrf, orgqr = _routines(x.dtype, "geqrf", "orgqr")
    for i in np.ndindex(*batch):
        factors, tau, _, info = geqrf(np.array(x[i], order="F"), overwrite_a=True)
        _check(info, "QR did not succeed")
        r[i] = np.triu(factors[:k])
        found, _, info = orgqr(factors[:, :k], tau, overwrite_a=True)
        _check(info, "QR did not succeed")
        q[i] = found
    return q, r


def svd(x: Array) -> tuple[Array, Array, Array]:
    """u (..., m, k), s (..., k), vh (..., k, n) with x = (u * s) @ vh, k the lesser of m and n."""
    if _many_small(x) or not x.size:
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        return u, s, vh
    *batch, m, n = x.shape
    k = min(m, n)
    u, s, vh = (np.empty((*batch, *shape), x.dtype) for shape in ((m, k), (k,), (k, n)))
    (gesdd,) = _routines(x.dtype, "gesdd")
    for i in np.ndindex(*batch):
        left, s[i], right, info = gesdd(x[i] if m >= n else x[i].T, full_matrices=False)  # tall ones take less time
        _check(info, "SVD did not converge")
        u[i], vh[i] = (left, right) if m >= n else (right.T, left.T)
    return u, s, vh


def cholesky(x: Array) -> Array:
    """The lower triangular factor of each matrix of (..., n, n)."""
    out = np.empty_like(x, order="C")
    if out.size:
        (potrf,) = _routines(x.dtype, "potrf")
        for i in np.ndindex(*x.shape[:-2]):
            out[i], info = potrf(x[i], lower=True, clean=True)
            _check(info, "Matrix is not positive definite")
    return out
