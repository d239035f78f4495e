"""Products that sum over shared axes: the row ``matmul``, and all others composed of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.op import Array, Library, Op, register
from graphjit.operators import attach
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import expand_dims, joined, reshape_to, squeeze
from graphjit.promotion import agreeing, promoted
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    TensorType,
    broadcast_shapes,
    normalize_axis,
)

Label = Hashable
Labels = tuple[Label, ...]


def _fit(x: TensorType, y: TensorType) -> None:
    """Raise unless the last axis of x has the length of the last but one of y, and the dtypes agree."""
    if x.dtype != y.dtype or x.dtype.kind not in "fiu":
        raise DTypeError("matmul needs two operands of one numeric dtype", detail=operands_text((x, y)),
                         hint="Convert with x.astype(...).")
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: {int(x.shape[-1])} columns do not fit {int(y.shape[-2])} rows",
                         detail=operands_text((x, y)),
                         hint="The last axis of the first operand and the last but one of the second must be "
                              "equal; x.mT swaps the last two.")


def _infer_matmul(x: TensorType, y: TensorType) -> TensorType:
    if x.ndim < 2 or y.ndim < 2:
        raise ShapeError("the op matmul needs at least two dimensions", detail=operands_text((x, y)))
    _fit(x, y)
    try:
        batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ShapeError as error:
        raise ShapeError(f"matmul: batch {error.problem}", detail=operands_text((x, y)),
                         hint=error.hint) from None
    return TensorType((*batch, x.shape[-2], y.shape[-1]), x.dtype)


def _matmul(x: Array, y: Array) -> Array:
    if x.dtype.kind == "b":
        raise TypeError("no products of truth values")
    out: Array = x @ y
    return out


MATMUL = register(Op("matmul", _matmul, _infer_matmul,
                     lambda g, out, x, y: (lambda: matmul(g, y.mT), lambda: matmul(x.mT, g)),
                     Library("matmul"), text="{0} @ {1}"))


def _product_vjp(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    row, column = x.ndim == 1, y.ndim == 1
    if column:
        g, y = expand_dims(g, -1), expand_dims(y, -1)
    if row:
        g, x = expand_dims(g, -2), expand_dims(x, 0)
    left, right = matmul(g, y.mT), matmul(x.mT, g)
    return squeeze(left, -2) if row else left, squeeze(right, -1) if column else right


def _infer_product(x: TensorType, y: TensorType) -> TensorType:
    row, column = x.ndim == 1, y.ndim == 1
    made = _infer_matmul(x.with_shape((1, *x.shape)) if row else x, y.with_shape((*y.shape, 1)) if column else y)
    return made.with_shape((*made.shape[:-2], *made.shape[-2:][row:2 - column]))


# a product with a vector as one step, for eager code; a trace records a product of matrices between reshapes
PRODUCT = Op("matmul", _matmul, _infer_product, _product_vjp, Library("matmul"), text="{0} @ {1}")


# ---- functions

def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """Matrix product, as ``x @ y``.

    Args:
        x: numeric, (..., m, k), or (k,) standing for one row.
        y: numeric, (..., k, n), or (k,) standing for one column.

    Returns:
        (..., m, n), batch axes broadcast together; without m or n where x or y is 1-d.

    Raises:
        ShapeError: an operand is 0-d, or lengths differ. DTypeError: bool operands.

    >>> import graphjit as gj
    >>> gj.matmul([[1, 2], [3, 4]], [1, 1]).tolist()
    [3, 7]
    """
    found = agreeing(x, y)
    a, b = promoted(x, y) if found is None else found
    if state.trace is not None:
        m, n = a.ndim, b.ndim
    else:
        p: Any = a._value.data
        q: Any = b._value.data
        m, n = p.ndim, q.ndim
        if (m == 1 <= n or n == 1 <= m) and p.shape[-1] == q.shape[-2:][0] and p.dtype.kind != "b":
            return apply(PRODUCT, a, b)
    if m == n == 2 or m > 2 < n:
        return apply(MATMUL, a, b)
    return _matmul_in_steps(a, b)


@composed
def _matmul_in_steps(a: Tensor, b: Tensor) -> Tensor:
    """The product where an operand is a vector, or one matrix stands for many."""
    if not a.ndim or not b.ndim:
        raise ShapeError("matmul has no meaning for scalars", detail=operands_text((a._type, b._type)),
                         hint="Use x * y.")
    if a.ndim == 1 and b.ndim == 1:
        return vecdot(a, b)
    row, column = a.ndim == 1, b.ndim == 1
    if row:
        a = reshape_to(a, (1, *a.shape))
    if column:
        b = reshape_to(b, (*b.shape, 1))
    if b.ndim == 2 and a.ndim > 2:
        # one large product instead of many small ones, in the gradients too
        _fit(a._type, b._type)
        lead = a.shape[:-1]
        out = apply(MATMUL, a.reshape((joined(lead), a.shape[-1])), b).reshape((*lead, b.shape[1]))
    else:
        out = apply(MATMUL, a, b)
    if row:
        return reshape_to(out, (*out.shape[:-2], out.shape[-1]))
    return reshape_to(out, out.shape[:-1]) if column else out


@composed
def vecdot(x: TensorLike, y: TensorLike, axis: int = -1) -> Tensor:
    """Inner products along an axis; the other axes broadcast.

    Args:
        x, y: numeric, of equal length along ``axis``.
        axis: counted from the end if negative; otherwise x and y need equally many dimensions.

    Raises:
        ShapeError: lengths differ.

    >>> import graphjit as gj
    >>> gj.vecdot([[1, 2], [3, 4]], [10, 1]).tolist()
    [12, 34]
    """
    a, b = promoted(x, y)
    if axis >= 0 and a.ndim != b.ndim:
        raise ShapeError(f"vecdot along axis {axis} of operands of {a.ndim} and {b.ndim} dimensions",
                         hint="Count the axis from the end.")
    along = [normalize_axis(axis, t.ndim) for t in (a, b)]
    if a.shape[along[0]] != b.shape[along[1]]:
        raise ShapeError(f"vecdot: lengths along axis {axis} differ",
                         detail=operands_text((a._type, b._type)))
    need_numeric("vecdot", a)
    return (a * b).sum(axis=axis, dtype=a.dtype)


@composed
def dot(x: TensorLike, y: TensorLike) -> Tensor:
    """NumPy's ``dot``: inner product of vectors, product of matrices, scaling by a scalar; otherwise a sum
    over the last axis of x and the last but one of y.

    >>> import graphjit as gj
    >>> gj.dot([1, 2, 3], [4, 5, 6]).item()
    32
    """
    a, b = promoted(x, y)
    if not a.ndim or not b.ndim:
        return a * b
    if b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, ([-1], [-2]))


@composed
def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """Every product of an element of x and one of y, both flattened: (x.size, y.size).

    >>> import graphjit as gj
    >>> gj.outer([1, 2], [3, 4]).tolist()
    [[3, 4], [6, 8]]
    """
    a, b = promoted(x, y)
    return a.reshape((joined(a.shape), 1)) * b.reshape((1, joined(b.shape)))


@composed
def tensordot(x: TensorLike, y: TensorLike, axes: int | Sequence[Any] = 2) -> Tensor:
    """Sum of products over chosen axes.

    Args:
        x, y: numeric.
        axes: a number n: the last n axes of x with the first n of y; or two axes or two lists of axes, those
            of x and the matching ones of y.

    Returns:
        The axes of x that are left, then those of y.

    Raises:
        ShapeError: an axis does not exist or matching lengths differ.

    >>> import graphjit as gj
    >>> gj.tensordot(gj.ones((2, 3, 4)), gj.ones((4, 3)), axes=([1, 2], [1, 0])).shape
    (2,)
    """
    a, b = promoted(x, y)
    need_numeric("tensordot", a)
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: {axes} axes of operands of {a.ndim} and {b.ndim} dimensions",
                             detail=operands_text((a._type, b._type)))
        of_a, of_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        if not isinstance(axes, (tuple, list)) or len(axes) != 2:
            raise ArgumentError(f"tensordot: axes must be a number or a pair, not {axes!r}")
        of_a, of_b = ([normalize_axis(i, t.ndim) for i in (s if isinstance(s, (tuple, list)) else (s,))]
                      for s, t in zip(axes, (a, b), strict=True))
    if len(of_a) != len(of_b) or len(set(of_a)) != len(of_a) or len(set(of_b)) != len(of_b):
        raise ShapeError(f"tensordot: axes {axes!r} do not pair axes of x with axes of y")
    for i, j in zip(of_a, of_b, strict=True):
        if a.shape[i] != b.shape[j]:
            raise ShapeError(f"tensordot: axis {i} of x and axis {j} of y have different lengths",
                             detail=operands_text((a._type, b._type)))
    pair = dict(zip(of_b, of_a, strict=True))
    la = tuple(range(a.ndim))
    lb = tuple(pair.get(j, a.ndim + j) for j in range(b.ndim))
    out = tuple(i for i in la if i not in of_a) + tuple(a.ndim + j for j in range(b.ndim) if j not in pair)
    return contract(a, la, b, lb, out)[0]


# ---- contraction

Part = tuple[Tensor, Labels]


def contract(a: Tensor, la: Labels, b: Tensor, lb: Labels, keep: Labels) -> Part:
    """Multiply, and sum over the labels that are not in ``keep``."""
    a, la = _sum_out(a, la, {*lb, *keep})
    b, lb = _sum_out(b, lb, {*la, *keep})
    shared = [label for label in la if label in lb]
    batch = [label for label in keep if label in shared]
    summed = [label for label in shared if label not in batch]
    free_a, free_b = ([label for label in keep if label in ls and label not in shared] for ls in (la, lb))
    if free_a and free_b and keep.index(free_b[0]) < keep.index(free_a[0]):
        a, la, free_a, b, lb, free_b = b, lb, free_b, a, la, free_a
    out = (*batch, *free_a, *free_b)
    if not summed or not (free_a or free_b):
        # nothing that a matrix product would save: products of broadcast operands, then a sum
        order = (*out, *summed)
        product = _spread(a, la, order) * _spread(b, lb, order)
        axes = tuple(range(len(out), len(order)))
        return (product.sum(axis=axes, dtype=product.dtype) if axes else product), out
    lengths = dict(zip((*la, *lb), (*a.shape, *b.shape), strict=True))
    sizes = {key: tuple(lengths[label] for label in group)
             for key, group in (("batch", batch), ("a", free_a), ("b", free_b), ("summed", summed))}
    left = arrange(a, la, (*batch, *free_a, *summed))
    right = arrange(b, lb, (*batch, *summed, *free_b))
    inner = joined(sizes["summed"])
    product = apply(MATMUL, left.reshape((*sizes["batch"], joined(sizes["a"]), inner)),
                    right.reshape((*sizes["batch"], inner, joined(sizes["b"]))))
    return product.reshape((*sizes["batch"], *sizes["a"], *sizes["b"])), out


def _sum_out(t: Tensor, labels: Labels, keep: set[Label]) -> Part:
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    if not axes:
        return t, labels
    return t.sum(axis=axes, dtype=t.dtype), tuple(label for label in labels if label in keep)


def arrange(t: Tensor, labels: Labels, order: Sequence[Label]) -> Tensor:
    """Sum over the labels that are not in ``order``, and permute to it."""
    t, labels = _sum_out(t, labels, set(order))
    axes = tuple(labels.index(label) for label in order)
    return t if axes == tuple(range(t.ndim)) else t.permute_dims(axes)


def _spread(t: Tensor, labels: Labels, order: Sequence[Label]) -> Tensor:
    """Permuted to ``order``, with axes of length one for the labels it lacks."""
    t = arrange(t, labels, [label for label in order if label in labels])
    if t.ndim == len(order):
        return t
    lengths = iter(t.shape)
    return t.reshape(tuple(next(lengths) if label in labels else 1 for label in order))


def need_numeric(name: str, t: Tensor) -> None:
    if t.dtype.kind == "b":
        raise DTypeError(f"{name} needs numeric operands, not {t._type}", hint="Convert with x.astype(...).")


def _rmatmul(self: Tensor, other: TensorLike) -> Tensor:
    return matmul(as_tensor(other), self)


attach(__matmul__=matmul, __rmatmul__=_rmatmul, matmul=matmul, dot=dot)

__all__ = ["dot", "matmul", "outer", "tensordot", "vecdot"]
