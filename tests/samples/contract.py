"""Samples of matmul and of what is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import contract as ct
from graphjit.ops.einsum import einsum

from .make import error, integers, name, normal, sample

SUMS = 60.0  # sums of a few products, in another order

# ---- matmul

for _a, _b in (
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 1, 3, 4), (2, 4, 5)),
    ((1, 3, 4), (2, 4, 5)),
    ((3, 4), (2, 4, 5)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((1, 1), (1, 1)),
    ((17, 33), (33, 19)),
    ((0, 4), (4, 2)),
    ((3, 0), (0, 2)),
    ((0, 3, 4), (4, 2)),
    ((2, 3, 0), (2, 0, 4)),
):
    sample("matmul", name(_a, _b), ct.matmul, normal(_a, _b), np.matmul, rtol=SUMS)
for _kind in ("int8", "int32", "int64", "uint8"):
    sample("matmul", _kind, ct.matmul, integers(_kind, 0, 9, (2, 3, 4), (4, 5)), np.matmul)
    sample("matmul", f"{_kind} batch", ct.matmul, integers(_kind, 0, 9, (2, 1, 3, 4), (2, 4, 5)), np.matmul)
    sample(
        "matmul",
        f"{_kind} transposed",
        lambda x, y: x.mT @ y.mT,
        integers(_kind, 0, 9, (4, 3), (5, 4)),
        lambda x, y: x.T @ y.T,
    )
sample("matmul", "transposed", lambda x, y: x.mT @ y.mT, normal((4, 3), (5, 4)), lambda x, y: x.T @ y.T, rtol=SUMS)
sample("matmul", "flipped", lambda x, y: x[::-1] @ y[:, ::2], normal((3, 4), (4, 5)),
       lambda x, y: x[::-1] @ y[:, ::2], rtol=SUMS)  # fmt: skip
sample("matmul", "with itself", lambda x: x @ x, normal((3, 3)), lambda x: x @ x, rtol=SUMS)
sample("matmul", "method", lambda x, y: x.matmul(y), normal((3, 4), (4, 5)), np.matmul, rtol=SUMS)
sample("matmul", "array on the left", lambda y: np.ones((2, 3)) @ y, normal((3, 4)),
       lambda y: np.ones((2, 3)) @ y, rtol=SUMS, dtypes=("float64",))  # fmt: skip
sample("matmul", "chain", lambda x, y, z: ct.matmul(ct.matmul(x, y).relu(), z), normal((3, 4), (4, 5), (5, 2)),
       lambda x, y, z: np.maximum(x @ y, 0) @ z, rtol=SUMS)  # fmt: skip

for _a, _b in (((4,), (4,)), ((), (2, 3)), ((3, 4), (2, 4, 5)), ((3, 4), (4,))):
    _op = "mul" if len(_a) < 2 else "matmul"
    sample(_op, name("dot", _a, _b), ct.dot, normal(_a, _b), np.dot, rtol=SUMS)
for _a, _b, _axis in (((3, 4), (3, 4), -1), ((2, 3, 4), (3, 4), -2), ((3, 4), (3, 4), 0), ((4,), (4,), -1)):
    sample("sum", name("vecdot", _a, _b, _axis), lambda x, y, a=_axis: ct.vecdot(x, y, axis=a), normal(_a, _b),
           lambda x, y, a=_axis: np.vecdot(x, y, axis=a), rtol=SUMS)  # fmt: skip
sample("sum", "vecdot int32", ct.vecdot, integers("int32", 0, 9, (2, 3), (2, 3)), np.vecdot)
for _a, _b in (((3,), (4,)), ((2, 3), (4,)), ((), (2,)), ((0,), (2,))):
    sample("mul", name("outer", _a, _b), ct.outer, normal(_a, _b), np.outer)

for _a, _b, _axes, _op in (
    ((2, 3), (3, 4), 1, "matmul"),
    ((2, 3, 4), (3, 4, 5), 2, "matmul"),
    ((2, 3, 4), (4, 3, 5), ([1, 2], [1, 0]), "matmul"),
    ((2, 3), (3, 5), (-1, -2), "matmul"),
    ((2, 3, 4), (5, 3), ([1], [1]), "matmul"),
    ((0, 3), (3, 2), 1, "matmul"),
    ((2, 3), (4, 5), 0, "mul"),
    ((2, 3), (2, 3), 2, "sum"),
):
    sample(_op, name("tensordot", _a, _b, _axes), lambda x, y, a=_axes: ct.tensordot(x, y, a), normal(_a, _b),
           lambda x, y, a=_axes: np.tensordot(x, y, a), rtol=SUMS)  # fmt: skip


# ---- einsum

def _einsum(op: str, subscripts: str, *shapes: tuple[int, ...]) -> None:
    def reference(*xs: Any) -> Any:
        return np.einsum(subscripts, *xs).astype(xs[0].dtype)

    sample(op, name("einsum", subscripts, *shapes), lambda *xs: einsum(subscripts, *xs), normal(*shapes),
           reference, rtol=2 * SUMS)  # fmt: skip


_einsum("matmul", "ij,jk->ik", (2, 3), (3, 4))
_einsum("matmul", "ij,jk->ki", (2, 3), (3, 4))
_einsum("matmul", "ij,jk", (2, 3), (3, 4))
_einsum("matmul", "bij,bjk->bik", (2, 3, 4), (2, 4, 5))
_einsum("matmul", "bij,bj->bi", (2, 3, 4), (2, 4))
_einsum("matmul", "...ij,...jk->...ik", (2, 1, 3, 4), (2, 4, 5))
_einsum("matmul", "bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5))
_einsum("matmul", "bhqk,bkhd->bqhd", (2, 3, 4, 6), (2, 6, 3, 5))
_einsum("matmul", "nlhd,hdo->nlo", (2, 3, 4, 5), (4, 5, 6))
_einsum("matmul", "ij,jk,kl->il", (2, 3), (3, 4), (4, 5))
_einsum("matmul", "ij,jk,kl,lm->im", (2, 3), (3, 4), (4, 5), (5, 2))
_einsum("matmul", "ii,ij->j", (3, 3), (3, 2))
_einsum("matmul", "ij,jk->ik", (0, 3), (3, 4))
_einsum("slice", "ii->i", (3, 3))
_einsum("slice", "ii", (3, 3))
_einsum("slice", "iij->ji", (3, 3, 2))
_einsum("slice", "iji->j", (3, 2, 3))
_einsum("permute_dims", "ij->ji", (2, 3))
_einsum("permute_dims", "ba", (2, 3))
_einsum("sum", "ijk->ik", (2, 3, 4))
_einsum("sum", "i...->...", (2, 3, 4))
_einsum("sum", "bi,bi->b", (2, 3), (2, 3))
_einsum("sum", "ij,ij->", (2, 3), (2, 3))
_einsum("matmul", "...i,...i", (2, 3), (3,))
_einsum("mul", "i,j->ij", (2,), (3,))
_einsum("mul", "i,ij->ij", (3,), (3, 2))
_einsum("mul", "ij,ij->ij", (1, 3), (2, 3))
_einsum("mul", ",ij->ij", (), (2, 3))
_einsum("mul", "a,b,c->cba", (2,), (3,), (4,))
sample("matmul", "einsum by numbers", lambda x, y: einsum(x, [0, 1], y, [1, 2], [2, 0]), normal((2, 3), (3, 4)),
       lambda x, y: (x @ y).T, rtol=SUMS)  # fmt: skip
sample("matmul", "einsum ints", lambda x, y: einsum("ij,jk->ik", x, y), integers("int32", 0, 9, (2, 3), (3, 4)),
       np.matmul)  # fmt: skip

# ---- errors

error("matmul", "lengths", ct.matmul, normal((2, 3), (2, 3)), ShapeError)
error("matmul", "lengths, flattened", ct.matmul, normal((5, 2, 3), (2, 3)), ShapeError)
error("matmul", "batches", ct.matmul, normal((2, 2, 3), (3, 3, 2)), ShapeError)
error("matmul", "scalar", ct.matmul, normal((), (2, 3)), ShapeError)
error("matmul", "bool", ct.matmul, integers("bool", 0, 2, (2, 3), (3, 2)), DTypeError)
error("matmul", "vecdot lengths", ct.vecdot, normal((3,), (1,)), ShapeError)
error("matmul", "tensordot lengths", ct.tensordot, normal((2, 3), (3, 2, 4)), ShapeError)
error("matmul", "tensordot axes", lambda x, y: ct.tensordot(x, y, ([0], [1, 0])), normal((2, 3), (2, 3)), ShapeError)
error("matmul", "einsum operands", lambda x: einsum("ij,jk", x), normal((2, 2)), ArgumentError)
error("matmul", "einsum axes", lambda x: einsum("ijk", x), normal((2, 2)), ShapeError)
error("matmul", "einsum letters", lambda x: einsum("i1", x), normal((2, 2)), ArgumentError)
error("matmul", "einsum result", lambda x: einsum("ij->ik", x), normal((2, 2)), ArgumentError)
error("matmul", "einsum twice", lambda x: einsum("ij->ii", x), normal((2, 2)), ArgumentError)
error("matmul", "einsum diagonal", lambda x: einsum("ii", x), normal((2, 3)), ShapeError)
error("matmul", "einsum lost axes", lambda x: einsum("...i->i", x), normal((2, 3)), ArgumentError)
error("matmul", "einsum lengths", lambda x, y: einsum("ij,jk", x, y), normal((2, 3), (2, 3)), ShapeError)
