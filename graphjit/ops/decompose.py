"""Orthogonal decompositions: QR, singular values, eigenvalues; by LAPACK, for stacks of matrices.

An op has one result, so each packs its factors along one flat last axis and the function takes them apart.
Gradient formulas: for QR, H.-J. Liao et al., "Differentiable programming tensor networks", 2019; for the
others J. Townsend, "Differentiating the singular value decomposition", 2016, and M. Giles, "Collected matrix
derivative results", 2008. Singular vectors and eigenvectors have no derivative where their values coincide: a
gradient that flows through them is then not finite. One that flows through the values alone always is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import ArgumentError
from graphjit.op import Array, Host, Op, register
from graphjit.ops import lapack
from graphjit.ops.contract import matmul
from graphjit.ops.creation import arange, eye, tril
from graphjit.ops.elementwise import where
from graphjit.ops.join import concat
from graphjit.ops.linalg import (
    SOLVE_TRIANGULAR,
    checked,
    matrices,
    need_matrix,
    numerical,
    pack,
    symmetric,
    unpack,
)
from graphjit.ops.movement import cut
from graphjit.ops.shape import expand_dims, joined
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Shape, TensorType

# ---- QR


def _short(x: TensorType | Tensor) -> int:
    """The lesser side of a matrix."""
    m, n = x.shape[-2:]
    return n if n <= m else m


def _qr_shapes(x: TensorType | Tensor) -> tuple[Shape, Shape]:
    m, n, k = *x.shape[-2:], _short(x)
    return (m, k), (k, n)


def _infer_qr(x: TensorType) -> TensorType:
    need_matrix("qr", x)
    q, r = _qr_shapes(x)
    return TensorType((*x.shape[:-2], joined(q) + joined(r)), x.dtype)


def _qr(x: Array) -> Array:
    q, r = lapack.qr(x)
    return pack((q, r), x.shape[:-2])


def _qr_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    q, r = unpack(out, _qr_shapes(x))
    gq, gr = unpack(g, _qr_shapes(x))
    m, n = x.shape[-2:]
    if m >= n:
        return (_qr_square_vjp(q, r, gq, gr),)
    # x = [y z], r = [u v]: y = q u is decomposed, z = q v follows
    last = x.ndim - 1
    z, u = cut(x, last, m, n - m), cut(r, last, 0, m)
    gu, gv = cut(gr, last, 0, m), cut(gr, last, m, n - m)
    gy = _qr_square_vjp(q, u, gq + matmul(z, gv.mT), gu)
    return (concat([gy, matmul(q, gv)], axis=-1),)


def _qr_square_vjp(q: Tensor, r: Tensor, gq: Tensor, gr: Tensor) -> Tensor:
    product = matmul(r, gr.mT) - matmul(gq.mT, q)
    mirrored = tril(product) + tril(product, -1).mT  # the lower triangle copied to the upper
    right = gq + matmul(q, mirrored)
    return apply(SOLVE_TRIANGULAR, r, right.mT, upper=True).mT  # right @ inv(r).mT


QR = register(Op("qr", checked(_infer_qr, numerical("qr", _qr)), _infer_qr, _qr_vjp, Host()))


class QRResult(NamedTuple):
    """What ``qr`` gives."""

    Q: Tensor
    R: Tensor


@composed
def qr(x: TensorLike) -> QRResult:
    """The reduced QR decomposition x = Q @ R: Q with orthonormal columns, R upper triangular.

    Args:
        x: floating (..., m, n); k = min(m, n).

    Returns:
        Q (..., m, k) and R (..., k, n). For gradients the first k columns must be independent.

    >>> import graphjit as gj
    >>> q, r = gj.linalg.qr([[3.0, 1.0], [4.0, 2.0]])
    >>> gj.round(q @ r).tolist()
    [[3.0, 1.0], [4.0, 2.0]]
    """
    t = matrices(x, "qr")
    return QRResult(*unpack(apply(QR, t), _qr_shapes(t)))


# ---- singular values

def _svd_shapes(x: TensorType | Tensor) -> tuple[Shape, Shape, Shape]:
    m, n, k = *x.shape[-2:], _short(x)
    return (m, k), (k,), (k, n)


def _infer_svd(x: TensorType) -> TensorType:
    need_matrix("svd", x)
    return TensorType((*x.shape[:-2], sum(joined(s) for s in _svd_shapes(x))), x.dtype)


def _svd(x: Array) -> Array:
    if 0 in x.shape[-2:]:
        return np.zeros((*x.shape[:-2], 0), x.dtype)
    return pack(lapack.svd(x), x.shape[:-2])


def _differences(values: Tensor) -> Tensor:
    """values[j] - values[i], and 1 on the diagonal."""
    place = arange(values.shape[-1])
    apart = expand_dims(values, -2) - expand_dims(values, -1)
    return where(expand_dims(place, 1) == place, 1, apart)


def _svd_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    u, s, vh = unpack(out, _svd_shapes(x))
    gu, gs, gvh = unpack(g, _svd_shapes(x))
    m, n = x.shape[-2:]
    vectors = (gu != 0).any(axis=(-2, -1), keepdims=True) | (gvh != 0).any(axis=(-2, -1), keepdims=True)
    apart = _differences(s * s)
    ugu, vgv = matmul(u.mT, gu), matmul(vh, gvh.mT)
    row = expand_dims(s, -2)
    middle = (ugu - ugu.mT) / apart * row + expand_dims(s, -1) * ((vgv - vgv.mT) / apart)
    middle = where(vectors, middle, 0) + _diagonal(gs)
    result = matmul(u, matmul(middle, vh))
    if m > n:
        result = result + where(vectors, matmul((gu - matmul(u, ugu)) / row, vh), 0)
    elif n > m:
        rest = gvh - matmul(vgv.mT, vh)
        result = result + where(vectors, matmul(u, rest / expand_dims(s, -1)), 0)
    return (result,)


def _diagonal(values: Tensor) -> Tensor:
    return eye(values.shape[-1], dtype=values.dtype) * expand_dims(values, -2)


SVD = register(Op("svd", checked(_infer_svd, numerical("svd", _svd)), _infer_svd, _svd_vjp, Host()))


class SVDResult(NamedTuple):
    """What ``svd`` gives."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@composed
def svd(x: TensorLike, full_matrices: bool = False) -> SVDResult:
    """The reduced singular value decomposition x = U @ diag(S) @ Vh.

    Args:
        x: floating (..., m, n); k = min(m, n).
        full_matrices: only False, the reduced form, is computed.

    Returns:
        U (..., m, k) and Vh (..., k, n) with orthonormal columns and rows, S (..., k) descending. The sign of
        a pair of vectors is arbitrary.

    Raises:
        NumericalError: it did not converge, as NaN in x may cause.

    >>> import graphjit as gj
    >>> gj.linalg.svd([[3.0, 0.0], [0.0, 4.0]]).S.tolist()
    [4.0, 3.0]
    """
    if full_matrices:
        raise ArgumentError("svd computes the reduced form only", hint="Leave full_matrices=False.")
    t = matrices(x, "svd")
    return SVDResult(*unpack(apply(SVD, t), _svd_shapes(t)))


# ---- eigenvalues

def _eigh_shapes(x: TensorType | Tensor) -> tuple[Shape, Shape]:
    n = x.shape[-1]
    return (n,), (n, n)


def _infer_eigh(x: TensorType) -> TensorType:
    need_matrix("eigh", x, square=True)
    return TensorType((*x.shape[:-2], sum(joined(s) for s in _eigh_shapes(x))), x.dtype)


def _eigh(x: Array) -> Array:
    return pack(np.linalg.eigh(x), x.shape[:-2])


def _eigh_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    w, v = unpack(out, _eigh_shapes(x))
    gw, gv = unpack(g, _eigh_shapes(x))
    vectors = (gv != 0).any(axis=(-2, -1), keepdims=True)
    turn = where(vectors, matmul(v.mT, gv) / _differences(w), 0)
    off = 1 - eye(w.shape[-1], dtype=w.dtype)
    return (matmul(v, matmul(turn * off + _diagonal(gw), v.mT)),)


EIGH = register(Op("eigh", checked(_infer_eigh, numerical("eigh", _eigh)), _infer_eigh, _eigh_vjp, Host()))


class EighResult(NamedTuple):
    """What ``eigh`` gives."""

    eigenvalues: Tensor
    eigenvectors: Tensor


@composed
def eigh(x: TensorLike) -> EighResult:
    """Eigenvalues, ascending, and eigenvectors, the columns, of a symmetric matrix.

    Args:
        x: floating (..., n, n); its symmetric part counts.

    Returns:
        eigenvalues (..., n) and eigenvectors (..., n, n): x @ v[:, i] = w[i] * v[:, i]. The sign of a vector
        is arbitrary.

    Raises:
        NumericalError: it did not converge, as NaN in x may cause.

    >>> import graphjit as gj
    >>> gj.linalg.eigh([[2.0, 0.0], [0.0, 1.0]]).eigenvalues.tolist()
    [1.0, 2.0]
    """
    t = symmetric(matrices(x, "eigh", square=True))
    return EighResult(*unpack(apply(EIGH, t), _eigh_shapes(t)))


__all__ = ["EighResult", "QRResult", "SVDResult", "eigh", "qr", "svd"]
