"""Samples of linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit import linalg as la
from graphjit.errors import ArgumentError, ShapeError

from .make import INF, error, fixed, integers, name, normal, sample

LAPACK = 2000.0
# triangular, so that they stay invertible in every dtype
PLAIN = np.array([[3.0, 1.2, 0.5], [0, 2.5, -1.5], [0, 0, 4.0]])
DIAGONAL = np.diag([4.0, 9.0, 2.5])


def square(*shape: int) -> Any:
    """Well-conditioned matrices."""
    return lambda rng: (rng.normal(size=shape) + 3 * np.eye(shape[-1]),)


def positive(*shape: int) -> Any:
    def make(rng: np.random.Generator) -> Any:
        a = rng.normal(size=shape)
        return (a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1]),)
    return make


def with_right(*shape: int, make: Any = square, right: tuple[int, ...]) -> Any:
    return lambda rng: (*make(*shape)(rng), rng.normal(size=right))


SQUARES = ((3, 3), (2, 3, 3), (1, 1), (0, 0), (0, 2, 2), (2, 1, 2, 2))

for _op, _reference in (("inv", np.linalg.inv), ("det", np.linalg.det), ("slogdet", np.linalg.slogdet)):
    _function = getattr(la, _op)
    sample(_op, "triangular", _function, fixed(PLAIN), _reference, rtol=LAPACK)
    sample(_op, "stack", _function, fixed(np.stack([PLAIN, PLAIN.T])), _reference, rtol=LAPACK)
    sample(_op, "diagonal", _function, fixed(DIAGONAL), _reference, rtol=LAPACK)
    for _shape in SQUARES:  # the second derivative of det of one number is 0, but for rounding
        sample(_op, name(_shape), _function, square(*_shape), _reference, rtol=LAPACK,
               second=(_op, _shape) != ("det", (1, 1)))  # fmt: skip
sample("det", "singular", la.det, fixed(np.array([[1.0, 2, 3], [2, 4, 6], [1, 0, 1]])), np.linalg.det,
       second=False, rtol=LAPACK)  # fmt: skip
sample("det", "ints", la.det, integers("int32", 0, 5, (3, 3)), np.linalg.det, rtol=LAPACK)


def _gradient_of_det(x: Any) -> Any:
    from graphjit.transforms import grad

    return grad(lambda t: la.det(t).sum())(x)


sample("cofactor", "gradient of det", _gradient_of_det, square(2, 3, 3),
       lambda x: np.linalg.det(x)[:, None, None] * np.swapaxes(np.linalg.inv(x), -1, -2), rtol=LAPACK)  # fmt: skip
sample("cofactor", "of a singular matrix", _gradient_of_det, fixed(np.diag([2.0, 3.0, 0.0])),
       lambda x: np.diag([0.0, 0.0, 6.0]).astype(x.dtype), grad=False, rtol=LAPACK)  # fmt: skip

for _b in ((3, 2), (3,), (2, 3, 1)):
    sample("solve", name("triangular", _b), la.solve, lambda rng, b=_b: (PLAIN, rng.normal(size=b)),
           np.linalg.solve, rtol=LAPACK)  # fmt: skip
for _a, _b in (((3, 3), (3, 2)), ((3, 3), (3,)), ((2, 3, 3), (2, 3, 1)), ((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 2)),
               ((2, 3, 3), (3,)), ((0, 0), (0, 2)), ((0, 2, 2), (2, 3))):  # fmt: skip
    sample("solve", name(_a, _b), la.solve, with_right(*_a, right=_b), np.linalg.solve, rtol=LAPACK)
    for _upper in (True, False):
        def _triangular(a: Any, b: Any, upper: bool = _upper) -> Any:
            return np.linalg.solve(np.triu(a) if upper else np.tril(a), b)

        def _solve(a: Any, b: Any, upper: bool = _upper) -> Any:
            return la.solve_triangular(a, b, upper=upper)

        if _a == (3, 3):
            sample("solve_triangular", name("plain", _b, _upper), _solve,
                   lambda rng, b=_b: (PLAIN, rng.normal(size=b)), _triangular, rtol=LAPACK)  # fmt: skip
        sample("solve_triangular", name(_a, _b, _upper), _solve, with_right(*_a, right=_b), _triangular,
               rtol=LAPACK)  # fmt: skip

sample("cholesky", "diagonal", la.cholesky, fixed(DIAGONAL), np.linalg.cholesky, rtol=LAPACK)
sample("cholesky", "diagonals", la.cholesky, fixed(np.stack([DIAGONAL, 2 * DIAGONAL])), np.linalg.cholesky,
       rtol=LAPACK)  # fmt: skip
sample("cholesky", "upper", lambda x: la.cholesky(x, upper=True), fixed(DIAGONAL), np.linalg.cholesky, rtol=LAPACK)
for _shape in SQUARES:
    sample("cholesky", name(_shape), la.cholesky, positive(*_shape), np.linalg.cholesky, rtol=LAPACK)
    sample("eigh", name("values", _shape), lambda x: la.eigh(x).eigenvalues, positive(*_shape), np.linalg.eigvalsh,
           rtol=LAPACK)  # fmt: skip
sample("cholesky", "upper, full", lambda x: la.cholesky(x, upper=True), positive(3, 3),
       lambda x: np.linalg.cholesky(x).T, rtol=LAPACK)  # fmt: skip

# vectors are free in sign: what is compared is not


def _again(x: Any) -> Any:
    w, v = la.eigh(x)
    return w, (v * w[..., None, :].exp()) @ v.mT


def _again_reference(x: Any) -> Any:
    w, v = np.linalg.eigh(x)
    return w, (v * np.exp(w)[..., None, :]) @ np.swapaxes(v, -1, -2)


sample("eigh", "function of a matrix", _again, fixed(np.diag([1.0, 2.0, -1.5]) + 0.3), _again_reference, rtol=LAPACK)
sample("eigh", "functions of matrices", _again, fixed(np.stack([np.diag([1.0, 2.0]) + 0.3, np.diag([0.5, -1.0])])),
       _again_reference, rtol=LAPACK)  # fmt: skip
sample("eigh", "equal values", lambda x: la.eigh(x).eigenvalues, fixed(np.eye(3)), np.linalg.eigvalsh, grad=False,
       rtol=LAPACK)  # fmt: skip

SHAPES = ((3, 3), (5, 3), (3, 5), (2, 4, 3), (2, 3, 4), (1, 1), (4, 1), (1, 4))


def _signs(q: Any, r: Any) -> Any:
    """Q @ R and R.T @ R: R up to the sign of its rows."""
    return q @ r, r.mT @ r if hasattr(r, "requires_grad") else np.swapaxes(r, -1, -2) @ r


def _svd(x: Any) -> Any:
    u, s, vh = la.svd(x)
    return s, (u * s[..., None, :] ** 1.5) @ vh


def _svd_reference(x: Any) -> Any:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return s, (u * s[..., None, :] ** x.dtype.type(1.5)) @ vh


for _shape in SHAPES:
    sample("qr", name("product", _shape), lambda x: _signs(*la.qr(x)), normal(_shape),
           lambda x: _signs(*np.linalg.qr(x)), rtol=LAPACK)  # fmt: skip
    sample("qr", name("q", _shape), lambda x: la.qr(x).Q ** 2, normal(_shape), lambda x: np.linalg.qr(x)[0] ** 2,
           rtol=LAPACK)  # fmt: skip
    sample("svd", name("values", _shape), lambda x: la.svd(x).S, normal(_shape),
           lambda x: np.linalg.svd(x, compute_uv=False), rtol=LAPACK)  # fmt: skip
    sample("svd", name("function", _shape), _svd, normal(_shape), _svd_reference, rtol=LAPACK)
for _shape in ((0, 3), (3, 0), (0, 4, 3)):
    sample("qr", name(_shape), lambda x: tuple(la.qr(x)), normal(_shape), lambda x: tuple(np.linalg.qr(x)))
    sample("svd", name(_shape), lambda x: tuple(la.svd(x)), normal(_shape),
           lambda x: tuple(np.linalg.svd(x, full_matrices=False)))  # fmt: skip
sample("svd", "values that are equal", lambda x: la.svd(x).S, fixed(np.eye(3)), lambda x: np.ones(3, x.dtype),
       grad=False, rtol=LAPACK)  # fmt: skip

# ---- norms

for _ord in (None, 1, 2, 3, 0.5, -1, INF, -INF):
    for _static in ({}, {"axis": 1}, {"axis": -1, "keepdims": True}):
        _shape = (3, 4) if _static else (5,)
        _op = {INF: "max", -INF: "min"}.get(_ord, "sum")  # type: ignore[arg-type]
        sample(_op, name("norm", _ord, _static), lambda x, o=_ord, s=_static: la.norm(x, o, **s), normal(_shape),
               lambda x, o=_ord, s=_static: np.linalg.norm(x, o, **s), rtol=100)  # fmt: skip
sample("sum", "norm 0", lambda x: la.norm(x, 0), fixed(np.array([0.0, 2, 0, -1])), lambda x: np.linalg.norm(x, 0),
       grad=False)  # fmt: skip
for _ord in ("fro", "nuc", 1, -1, 2, -2, INF, -INF):
    _op = "svd" if _ord in ("nuc", 2, -2) else "sum"
    for _axes in (None, (0, 1), (2, 0)):
        _shape = (4, 5) if _axes is None else (2, 3, 4)
        sample(_op, name("matrix norm", _ord, _axes), lambda x, o=_ord, a=_axes: la.norm(x, o, a), normal(_shape),
               lambda x, o=_ord, a=_axes: np.linalg.norm(x, o, a), rtol=LAPACK)  # fmt: skip
    sample(_op, name("matrix_norm", _ord), lambda x, o=_ord: la.matrix_norm(x, True, o), normal((2, 3, 4)),
           lambda x, o=_ord: np.linalg.matrix_norm(x, keepdims=True, ord=o), rtol=LAPACK)  # fmt: skip
sample("sum", "norm of all", la.norm, normal((2, 3, 4)), np.linalg.norm, rtol=100)
sample("sum", "vector_norm", lambda x: la.vector_norm(x, (0, 2)), normal((2, 3, 4)),
       lambda x: np.linalg.vector_norm(x, axis=(0, 2)), rtol=100)  # fmt: skip


def _slope_at_zero(x: Any) -> Any:
    from graphjit.transforms import grad

    return grad(lambda t: la.norm(t) + la.norm(t, 3) + la.norm(t, axis=0).sum())(x)


sample("sum", "norm at 0", _slope_at_zero, fixed(np.zeros(3)), lambda x: np.zeros(3, x.dtype), grad=False)
for _k in (0, 1, -1, 5):
    sample("slice", f"diagonal {_k}", lambda x, k=_k: la.diagonal(x, k), normal((2, 3, 4)),
           lambda x, k=_k: np.diagonal(x, k, -2, -1))  # fmt: skip
    sample("sum", f"trace {_k}", lambda x, k=_k: la.trace(x, k), normal((2, 3, 4)),
           lambda x, k=_k: np.trace(x, k, -2, -1), rtol=100)  # fmt: skip

# ---- errors

for _op in ("inv", "det", "slogdet", "cholesky", "eigh"):
    error(_op, "not square", getattr(la, _op), normal((2, 3)), ShapeError)
for _op in ("inv", "det", "qr", "svd"):
    error(_op, "vector", getattr(la, _op), normal((3,)), ShapeError)
error("solve", "rows", la.solve, normal((2, 2), (3,)), ShapeError)
error("solve", "scalar", la.solve, normal((2, 2), ()), ShapeError)
error("solve", "batches", la.solve, normal((2, 2, 2), (3, 2, 2)), ShapeError)
error("solve", "not square", la.solve, normal((2, 3), (2,)), ShapeError)
error("svd", "full", lambda x: la.svd(x, full_matrices=True), normal((2, 3)), ArgumentError)
error("sum", "norm of a cube", lambda x: la.norm(x, 2), normal((2, 2, 2)), ShapeError)
error("sum", "vector norm by name", lambda x: la.norm(x, "fro"), normal((2,)), ArgumentError)
error("sum", "matrix norm of order 3", lambda x: la.norm(x, 3), normal((2, 2)), ArgumentError)
error("slice", "diagonal of a vector", la.diagonal, normal((2,)), ShapeError)
