"""Samples of sorting and searching."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops import sorting as so

from .make import INF, NAN, error, fixed, integers, name, normal, sample

TIES = np.array([[2.0, 1, NAN, 2, 1], [INF, -INF, 0, 0, NAN], [0, -0.0, 0, 3, 3]])


def descending(x: Any, axis: int) -> Any:
    """The places of a stable descending order, NaN first, by Python's own sort."""
    def order(row: Any) -> list[int]:
        return sorted(range(len(row)), key=lambda i: (row[i] == row[i], -row[i] if row[i] == row[i] else 0))

    return np.apply_along_axis(order, axis, x).astype("int64")


def ascending(x: Any, axis: int) -> Any:
    return np.argsort(x, axis, kind="stable")


for _axis in (0, -1):
    for _down, _order in ((False, ascending), (True, descending)):
        _how: Any = {"axis": _axis, "descending": _down}
        for _id, _args in (("ties", fixed(TIES)), ("normal", normal((3, 4)))):
            sample("argsort", name(_id, _how), lambda x, h=_how: so.argsort(x, **h), _args,
                   lambda x, a=_axis, o=_order: o(x, a), grad=False)  # fmt: skip
        sample("argsort", name("sort ties", _how), lambda x, h=_how: so.sort(x, **h), fixed(TIES),
               lambda x, a=_axis, o=_order: np.take_along_axis(x, o(x, a), a), grad=False)  # fmt: skip
        sample("argsort", name("sort", _how), lambda x, h=_how: so.sort(x, **h), normal((5, 4)),
               lambda x, a=_axis, o=_order: np.take_along_axis(x, o(x, a), a))  # fmt: skip
sample("argsort", "ints", so.argsort, integers("uint8", 0, 5, (3, 7)), lambda x: ascending(x, -1))
sample("argsort", "ints descending", lambda x: so.sort(x, descending=True), integers("uint8", 0, 5, (3, 7)),
       lambda x: np.flip(np.sort(x), -1))  # fmt: skip
sample("argsort", "empty", so.sort, normal((3, 0)), np.sort)
sample("argsort", "one", so.sort, normal((1, 1)), np.sort)
sample("argsort", "method", lambda x: x.sort(), normal((4,)), np.sort)
for _k in (0, 1, 3, 5):
    _op = "largest" if _k else "argsort"
    sample(_op, f"topk {_k}", lambda x, k=_k: so.topk(x, k), normal((2, 5)), lambda x, k=_k: (
        np.flip(np.sort(x), -1)[:, :k], descending(x, -1)[:, :k]))  # fmt: skip
    if _k:
        sample("largest", f"topk {_k} of ties", lambda x, k=_k: so.topk(x, k), fixed(TIES), lambda x, k=_k: (
            np.take_along_axis(x, descending(x, -1)[:, :k], -1), descending(x, -1)[:, :k]), grad=False)  # fmt: skip
        sample("largest", f"topk {_k} of ints", lambda x, k=_k: so.topk(x, k).indices, integers("uint8", 0, 9, (4, 30)),
               lambda x, k=_k: np.argsort(-x.astype(int), -1, kind="stable")[:, :k])  # fmt: skip
sample("argsort", "topk of many", lambda x: so.topk(x, 70), normal((2, 90)), lambda x: (
    np.flip(np.sort(x), -1)[:, :70], descending(x, -1)[:, :70]), grad=False)  # fmt: skip
sample("largest", "topk along 0", lambda x: so.topk(x, 2, axis=0), normal((4, 3)),
       lambda x: (np.flip(np.sort(x, 0), 0)[:2], descending(x, 0)[:2]))  # fmt: skip

_SORTED = np.array([-1.0, 0, 0, 0.5, 2])
for _side in ("left", "right"):
    sample("searchsorted", _side, lambda x, v, s=_side: so.searchsorted(x, v, s),
           fixed(_SORTED, np.array([[0, -5], [0.5, 9.0]])), lambda x, v, s=_side: np.searchsorted(x, v, s),
           grad=False)  # fmt: skip
sample("searchsorted", "scalar", so.searchsorted, fixed(_SORTED, np.array(0.25)),
       lambda x, v: np.asarray(np.searchsorted(x, v)), grad=False)  # fmt: skip
sample("searchsorted", "empty", so.searchsorted, fixed(np.zeros(0), np.array([1.0])), np.searchsorted, grad=False)
sample("searchsorted", "ints", so.searchsorted, fixed(np.array([1, 3, 5]), np.array([3, 4])), np.searchsorted)

error("argsort", "scalar", so.argsort, normal(()), ShapeError)
error("argsort", "axis", lambda x: so.sort(x, 1), normal((3,)), ShapeError)
error("argsort", "k too large", lambda x: so.topk(x, 4), normal((3,)), ArgumentError)
error("argsort", "k negative", lambda x: so.topk(x, -1), normal((3,)), ArgumentError)
error("searchsorted", "matrix", so.searchsorted, normal((2, 2), (1,)), ShapeError)
error("searchsorted", "side", lambda x, v: so.searchsorted(x, v, "top"), normal((2,), (1,)), ArgumentError)


def apart(rng: np.random.Generator) -> tuple[Any]:
    """No two so near that differences for a gradient change their order."""
    return (rng.permutation(40).reshape(4, 5, 2) / 8,)


for _axis in (None, 0, 1, -1):
    for _keepdims in (False, True):
        _how = {"axis": _axis, "keepdims": _keepdims}
        sample("argsort", name("median", _how), lambda x, h=_how: so.median(x, **h), apart,
               lambda x, h=_how: np.median(x, **h))  # fmt: skip
        for _q in (0.0, 0.3, 1.0, [0.25, 0.5], [[0.1], [0.9]]):
            sample("argsort", name("quantile", _q, _how), lambda x, h=_how, q=_q: so.quantile(x, q, **h), apart,
                   lambda x, h=_how, q=_q: np.quantile(x, q, **h).astype(x.dtype))  # fmt: skip
sample("argsort", "quantile, q a tensor", so.quantile, fixed(np.array([3.0, 1, 2, 7]), np.array([0.2, 0.9, -0.1, 1.5])),
       lambda x, q: np.quantile(x, q.clip(0, 1)).astype(x.dtype), grad=False)
sample("argsort", "quantile of ints", lambda x: so.quantile(x, 0.3), integers("int64", 0, 99, (9,)),
       lambda x: np.quantile(x, 0.3))
sample("argsort", "median with NaN", lambda x: so.median(x, axis=1), fixed(TIES),
       lambda x: np.median(x, axis=1), grad=False)
sample("argsort", "median of infinities", lambda x: so.median(x, axis=1),
       fixed(np.array([[INF, INF, 1.0, 2], [INF, INF, INF, 2], [-INF, -INF, 2, -INF]])),
       lambda x: np.array([INF, INF, -INF], x.dtype), grad=False)
error("argsort", "quantile out of range", lambda x: so.quantile(x, 1.5), fixed(np.ones(3)), ArgumentError)
error("argsort", "quantile of nothing", lambda x: so.quantile(x, 0.5, axis=1), fixed(np.ones((3, 0))), ShapeError)
