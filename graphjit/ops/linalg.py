"""Linear equations: inverse, solutions, determinants, Cholesky's factor; by LAPACK, for stacks of matrices.

Gradient formulas: M. Giles, "Collected matrix derivative results", 2008; for Cholesky I. Murray,
"Differentiation of the Cholesky decomposition", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import NumericalError, ShapeError
from graphjit.op import Array, Host, Op, register
from graphjit.ops import lapack
from graphjit.ops.contract import matmul
from graphjit.ops.creation import arange, tril, triu
from graphjit.ops.elementwise import where
from graphjit.ops.movement import cut
from graphjit.ops.rules import need_float, operands_text
from graphjit.ops.shape import expand_dims, joined, reshape_to
from graphjit.ops.statistics import floating
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Shape, TensorType, broadcast_shapes

# ---- what all rows share


def numerical(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy or SciPy routine whose failure is a NumericalError."""
    def call(*arrays: Array, **how: Any) -> Any:
        try:
            return function(*arrays, **how)
        except np.linalg.LinAlgError as error:
            raise NumericalError(f"{name}: {str(error).lower()}",
                                 detail=tuple(f"operand {i}: {TensorType(a.shape, a.dtype)}"
                                              for i, a in enumerate(arrays)),
                                 hint="Look for linearly dependent rows, or for NaN.") from None
    return call


def need_matrix(name: str, x: TensorType, square: bool = False) -> None:
    """Raise unless x is a (stack of) floating matrices."""
    if x.ndim < 2:
        raise ShapeError(f"{name} needs a matrix, or a stack of them along leading axes, not {x}")
    if square and x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name} needs square matrices, not {x}")
    need_float(name, x)


def matrices(x: TensorLike, name: str, square: bool = False) -> Tensor:
    """An operand that is a (stack of) matrices; integers become float64."""
    t = floating(x)
    need_matrix(name, t._type, square)
    return t


def square_rule(name: str) -> Callable[[TensorType], TensorType]:
    def infer(x: TensorType) -> TensorType:
        need_matrix(name, x, square=True)
        return TensorType(x.shape, x.dtype)
    return infer


def checked(infer: Callable[..., TensorType], eager: Callable[..., Array]) -> Callable[..., Array]:
    """An eager rule that runs the shape rule first, once for the same types."""
    passed: set[Hashable] = set()

    def rule(*arrays: Array, **params: Any) -> Array:
        key = (*[(a.shape, a.dtype) for a in arrays], *params.items())
        if key not in passed:
            infer(*(TensorType(a.shape, a.dtype) for a in arrays), **params)
            if len(passed) > 1000:
                passed.clear()
            passed.add(key)
        return eager(*arrays, **params)
    return rule


def pack(parts: Sequence[Array], batch: Shape) -> Array:
    """Several results as one: flattened behind the batch axes and joined."""
    return np.concatenate([p.reshape(*batch, math.prod(p.shape[len(batch):])) for p in parts], axis=-1)


def unpack(x: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The parts of a packed result, of these shapes behind the batch axes."""
    out: list[Tensor] = []
    at = 0
    for shape in shapes:
        size = joined(shape)
        out.append(reshape_to(cut(x, x.ndim - 1, at, size), (*x.shape[:-1], *shape)))
        at += size
    return out


def symmetric(x: Tensor) -> Tensor:
    """The symmetric part, which is x itself where x is symmetric: gradients then are symmetric too."""
    return (x + x.mT) * 0.5


# ---- inverse and equations

INV = register(Op(
    "inv", checked(square_rule("inv"), numerical("inv", lapack.inv)), square_rule("inv"),
    lambda g, out, x: (-matmul(out.mT, matmul(g, out.mT)),), Host(small=True)))


def _infer_solve(a: TensorType, b: TensorType, **_: Any) -> TensorType:
    need_matrix("solve", a, square=True)
    need_matrix("solve", b)
    if a.dtype != b.dtype or a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"solve: a right side of {int(b.shape[-2])} rows for matrices of {int(a.shape[-1])}",
                         detail=operands_text((a, b)))
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return TensorType((*batch, *b.shape[-2:]), b.dtype)


def _solve_vjp(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    back = apply(SOLVE, a.mT, g)
    return lambda: -matmul(back, out.mT), back


SOLVE: Op = register(Op("solve", checked(_infer_solve, numerical("solve", lapack.solve)), _infer_solve,
                        _solve_vjp, Host(small=True)))


def _solve_triangular_vjp(g: Tensor, out: Tensor, a: Tensor, b: Tensor, upper: bool) -> tuple[Any, Any]:
    back = apply(SOLVE_TRIANGULAR, a.mT, g, upper=not upper)
    return lambda: (triu if upper else tril)(-matmul(back, out.mT)), back


SOLVE_TRIANGULAR: Op = register(Op(
    "solve_triangular", checked(_infer_solve, numerical("solve_triangular", lapack.solve_triangular)), _infer_solve,
    _solve_triangular_vjp, Host(small=True)))


@composed
def inv(x: TensorLike) -> Tensor:
    """The inverse of a square matrix, or of each of a stack.

    Args:
        x: floating (..., n, n).

    Raises:
        NumericalError: a singular matrix. ShapeError: matrices that are not square.

    >>> import graphjit as gj
    >>> gj.linalg.inv([[2.0, 1.0], [1.0, 1.0]]).tolist()
    [[1.0, -1.0], [-1.0, 2.0]]
    """
    return apply(INV, matrices(x, "inv", square=True))


def _right_sides(name: str, a: TensorLike, b: TensorLike) -> tuple[Tensor, Tensor, bool]:
    s, t = promoted(floating(a), floating(b))
    need_matrix(name, s._type, square=True)
    if t.ndim == 0:
        raise ShapeError(f"{name} needs a right side of at least one dimension")
    return (s, expand_dims(t, 1), True) if t.ndim == 1 else (s, t, False)


@composed
def solve(a: TensorLike, b: TensorLike) -> Tensor:
    """The x with a @ x = b.

    Args:
        a: floating (..., n, n).
        b: (..., n, k), or (n,) for one right side; batch axes broadcast.

    Raises:
        NumericalError: a singular matrix. ShapeError: shapes that do not fit.

    >>> import graphjit as gj
    >>> gj.linalg.solve([[2.0, 0.0], [0.0, 4.0]], [2.0, 2.0]).tolist()
    [1.0, 0.5]
    """
    s, t, vector = _right_sides("solve", a, b)
    out = apply(SOLVE, s, t)
    return out.squeeze(-1) if vector else out


@composed
def solve_triangular(a: TensorLike, b: TensorLike, *, upper: bool) -> Tensor:
    """The x with a @ x = b, for a triangular matrix a; the other triangle is not looked at.

    Args:
        a: floating (..., n, n).
        b: (..., n, k), or (n,) for one right side; batch axes broadcast.
        upper: whether the triangle is the upper one.

    Raises:
        NumericalError: a 0 on the diagonal. ShapeError: shapes that do not fit.
    """
    s, t, vector = _right_sides("solve_triangular", a, b)
    out = apply(SOLVE_TRIANGULAR, s, t, upper=bool(upper))
    return out.squeeze(-1) if vector else out


# ---- determinants

def _infer_det(x: TensorType) -> TensorType:
    need_matrix("det", x, square=True)
    return TensorType(x.shape[:-2], x.dtype)


def _cofactor(x: Array) -> Array:
    """det(x) * inv(x).T, by singular values, so that it has a meaning for singular matrices too."""
    n = x.shape[-1]
    u, s, vh = np.linalg.svd(x)
    others = np.where(np.eye(n, dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    out: Array = sign[..., None, None] * ((u * others[..., None, :]) @ vh)
    return out.astype(x.dtype, copy=False)


def _cofactor_vjp(h: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    # d(det A * A^-T) = tr(A^-1 dA) C - C dA^T A^-T
    back = inv(x).mT
    return (_full((h * out).sum(axis=(-2, -1))) * back - matmul(back, matmul(h.mT, out)),)


def _full(x: Tensor) -> Tensor:
    """With two axes of length one at the end."""
    return expand_dims(x, (-2, -1))


COFACTOR = register(Op("cofactor", checked(square_rule("cofactor"), numerical("det", _cofactor)),
                       square_rule("cofactor"), _cofactor_vjp, Host()))
DET = register(Op("det", checked(_infer_det, lambda x: np.asarray(np.linalg.det(x))), _infer_det,
                  lambda g, out, x: (_full(g) * apply(COFACTOR, x),), Host(small=True)))


def _infer_slogdet(x: TensorType) -> TensorType:
    need_matrix("slogdet", x, square=True)
    return TensorType((*x.shape[:-2], 2), x.dtype)


def _slogdet(x: Array) -> Array:
    return np.stack(np.linalg.slogdet(x), axis=-1)


def _slogdet_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    _, slope = unpack(g, ((), ()))
    return (_full(slope) * inv(x).mT,)


SLOGDET = register(Op("slogdet", checked(_infer_slogdet, _slogdet), _infer_slogdet, _slogdet_vjp, Host(small=True)))


@composed
def det(x: TensorLike) -> Tensor:
    """The determinant of a square matrix, or of each of a stack: shape (...,) for (..., n, n).

    Its gradient is right for singular matrices too; its second derivative needs an invertible one.

    >>> import graphjit as gj
    >>> gj.linalg.det([[2.0, 1.0], [0.0, 4.0]]).item()
    8.0
    """
    return apply(DET, matrices(x, "det", square=True))


class SlogdetResult(NamedTuple):
    """What ``slogdet`` gives."""

    sign: Tensor
    logabsdet: Tensor


@composed
def slogdet(x: TensorLike) -> SlogdetResult:
    """Sign and logarithm of the absolute value of the determinant: without overflow for large matrices.

    Args:
        x: floating (..., n, n).

    Returns:
        (sign, logabsdet), each of shape (...,); 0 and -inf for a singular matrix.
    """
    return SlogdetResult(*unpack(apply(SLOGDET, matrices(x, "slogdet", square=True)), ((), ())))


# ---- Cholesky

def _cholesky_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    n = out.shape[-1]
    place = arange(n)
    product = matmul(out.mT, tril(g))
    half = where(expand_dims(place, 1) == place, product * 0.5, tril(product))
    left = apply(SOLVE_TRIANGULAR, out.mT, half, upper=True)
    return (apply(SOLVE_TRIANGULAR, out.mT, left.mT, upper=True).mT,)


CHOLESKY = register(Op(
    "cholesky", checked(square_rule("cholesky"), numerical("cholesky", lapack.cholesky)),
    square_rule("cholesky"), _cholesky_vjp, Host(small=True)))


@composed
def cholesky(x: TensorLike, *, upper: bool = False) -> Tensor:
    """The lower triangular L with x = L @ L.mT, for symmetric positive definite x.

    Args:
        x: floating (..., n, n); its symmetric part counts.
        upper: give L.mT instead.

    Raises:
        NumericalError: x is not positive definite.

    >>> import graphjit as gj
    >>> gj.linalg.cholesky([[4.0, 2.0], [2.0, 5.0]]).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    lower = apply(CHOLESKY, symmetric(matrices(x, "cholesky", square=True)))
    return lower.mT if upper else lower


__all__ = [
    "SlogdetResult", "cholesky", "det", "inv", "slogdet", "solve", "solve_triangular",
]
