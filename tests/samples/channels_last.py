"""Samples of the rows that only the compiler makes: convolution and pooling with the channels last."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.op import TABLE
from graphjit.ops.channels_last import CONTRACT, INPUT_GRAD, OVERLAP_ADD, POOLS, WINDOWS, border
from graphjit.ops.regions import ADD_REGIONS, ADDED_ROWS, TAKE_GRADS

from .make import Shape, name, normal, sample

DERIVED: dict[str, Any] = {"grad": False, "second": False}

# ---- windows

for _shape, _how in (
    ((2, 9, 3), {"kernel": (3,), "stride": (1,), "dilation": (1,)}),
    ((2, 9, 1), {"kernel": (2,), "stride": (2,), "dilation": (3,)}),
    ((1, 5, 6, 2), {"kernel": (2, 3), "stride": (2, 1), "dilation": (1, 2)}),
    ((0, 5, 3), {"kernel": (5,), "stride": (1,), "dilation": (1,)}),
):
    def _windows(x: Any, kernel: Shape, stride: Shape, dilation: Shape) -> Any:
        places = [(n - d * (k - 1) - 1) // s + 1
                  for n, k, s, d in zip(x.shape[1:-1], kernel, stride, dilation, strict=True)]  # fmt: skip
        out = np.empty((x.shape[0], *places, *kernel, x.shape[-1]), x.dtype)
        for at in np.ndindex(*places, *kernel):
            rank = len(kernel)
            here = tuple(at[i] * stride[i] + at[rank + i] * dilation[i] for i in range(rank))
            out[(slice(None), *at)] = x[(slice(None), *here)]
        return out

    sample("windows_last", name(_shape, _how), lambda x, h=_how: apply(WINDOWS, x, **h), normal(_shape),
           lambda x, h=_how, f=_windows: f(x, **h), **DERIVED)  # fmt: skip

# ---- contract

for _a, _b, _axes, _leading, _text in (
    ((4, 5), (5, 3), 1, False, "mk,kn->mn"),
    ((2, 3, 4, 5), (4, 5, 6), 2, False, "abkl,kln->abn"),
    ((4, 5), (4, 3), 1, True, "km,kn->mn"),
    ((2, 3, 4, 5), (2, 3, 17), 2, True, "klab,kln->abn"),
    ((2, 3, 1), (1, 1), 1, False, "abk,kn->abn"),
    ((3, 0), (0, 2), 1, False, "mk,kn->mn"),
    ((0, 3), (3, 2), 1, False, "mk,kn->mn"),
):
    sample("contract", name(_a, _b, _axes, _leading),
           lambda a, b, n=_axes, first=_leading: apply(CONTRACT, a, b, axes=n, leading=first), normal(_a, _b),
           lambda a, b, t=_text: np.einsum(t, a, b), rtol=50.0, **DERIVED)  # fmt: skip

for _relu in ({}, {"relu": True}):
    sample("contract", f"bias{' and relu' if _relu else ''}",
           lambda a, b, c, relu=_relu: apply(CONTRACT, a, b, c, axes=2, leading=False, **relu),
           normal((2, 3, 4, 5), (4, 5, 6), (6,)),
           lambda a, b, c, relu=_relu: np.maximum(out := np.einsum("abkl,kln->abn", a, b) + c, 0 if relu else out),
           rtol=50.0, **DERIVED)  # fmt: skip

# ---- the gradient by the input

for _size, _kernel, _stride, _padding, _dilation in (
    ((9,), (3,), (1,), ((0, 0),), (1,)),
    ((9,), (3,), (2,), ((1, 1),), (1,)),
    ((10,), (2,), (3,), ((0, 0),), (1,)),
    ((9,), (1,), (1,), ((2, 0),), (1,)),
    ((11,), (3,), (2,), ((3, 1),), (4,)),
    ((7, 8), (3, 2), (2, 1), ((1, 1), (0, 3)), (1, 2)),
    ((7, 8), (2, 3), (3, 2), ((0, 1), (2, 2)), (3, 1)),
):
    _places = tuple((n + low + high - d * (k - 1) - 1) // s + 1 for n, k, s, (low, high), d in
                    zip(_size, _kernel, _stride, _padding, _dilation, strict=True))  # fmt: skip
    _params: dict[str, Any] = {
        "size": _size, "places": _places, "stride": _stride, "padding": _padding, "dilation": _dilation,
        "around": tuple(border(n, m, k, s, low, d) for n, m, k, s, (low, _), d in
                        zip(_size, _places, _kernel, _stride, _padding, _dilation, strict=True)),
    }  # fmt: skip

    def _bordered(g: Any, h: dict[str, Any] = _params) -> Any:
        return np.pad(g, [(0, 0), *h["around"], (0, 0)])

    def _input_grad(g: Any, w: Any, h: dict[str, Any] = _params) -> Any:
        low = [a for a, _ in h["around"]]
        out = np.zeros((g.shape[0], *h["size"], w.shape[-1]), g.dtype)
        for at in np.ndindex(*h["places"], *w.shape[:-2]):
            rank = len(h["size"])
            x = [at[i] * h["stride"][i] + at[rank + i] * h["dilation"][i] - h["padding"][i][0] for i in range(rank)]
            if all(0 <= i < n for i, n in zip(x, h["size"], strict=True)):
                from_g = g[(slice(None), *(a + i for a, i in zip(at[:rank], low, strict=True)))]
                out[(slice(None), *x)] += from_g @ w[at[rank:]]
        return out

    sample("conv_last_input_grad", name(_size, _kernel, _stride, _padding, _dilation),
           lambda g, w, h=_params: apply(INPUT_GRAD, g, w, **h),
           lambda rng, f=_bordered, shape=(2, *_places, 3), k=_kernel:
               (f(rng.normal(size=shape)), rng.normal(size=(*k, 3, 2))),
           _input_grad, rtol=100.0, **DERIVED)  # fmt: skip

# ---- windows added up where they overlap

for _size, _kernel, _stride, _padding, _dilation in (
    ((9,), (3,), (1,), ((0, 0),), (1,)),
    ((10,), (2,), (3,), ((2, 1),), (2,)),
    ((7, 8), (3, 2), (2, 1), ((1, 1), (0, 3)), (1, 2)),
    ((5, 4), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
):
    _params = {"size": _size, "kernel": _kernel, "stride": _stride, "padding": _padding, "dilation": _dilation}
    _places = tuple((n + low + high - d * (k - 1) - 1) // s + 1 for n, k, s, (low, high), d in
                    zip(_size, _kernel, _stride, _padding, _dilation, strict=True))  # fmt: skip

    def _overlap_add(g: Any, h: dict[str, Any] = _params) -> Any:
        rank, out = len(h["size"]), np.zeros((g.shape[0], *h["size"], g.shape[-1]), g.dtype)
        for at in np.ndindex(*g.shape[1:-1]):
            x = [at[i] * h["stride"][i] + at[rank + i] * h["dilation"][i] - h["padding"][i][0] for i in range(rank)]
            if all(0 <= i < n for i, n in zip(x, h["size"], strict=True)):
                out[(slice(None), *x)] += g[(slice(None), *at)]
        return out

    sample("overlap_add_last", name(_size, _kernel, _stride, _padding, _dilation),
           lambda g, h=_params: apply(OVERLAP_ADD, g, **h), normal((2, *_places, *_kernel, 3)), _overlap_add,
           rtol=50.0, **DERIVED)  # fmt: skip

# ---- sums of regions

for _size, _parts in (
    ((9,), (((5,), (0,), 1.0), ((9,), (0,), -1.0), ((3,), (6,), 0.5))),
    ((4, 6), (((2, 5), (1, 1), -1.0), ((4, 1), (0, 5), 2.0))),
    ((3, 1, 4), (((1, 1, 2), (2, 0, 1), 1.0),)),
    ((0, 3), (((0, 2), (0, 1), 1.0),)),
):
    def _add_regions(*parts: Any, n: Any = _size, how: Any = _parts) -> Any:
        return sum(f * np.pad(p, [(a, whole - a - m) for whole, a, m in zip(n, at, p.shape, strict=True)])
                   for p, (_, at, f) in zip(parts, how, strict=True))

    sample("add_regions", name(_size, len(_parts)), lambda *parts, n=_size, how=_parts: apply(
        ADD_REGIONS, *parts, size=n, starts=tuple(at for _, at, _ in how), factors=tuple(f for *_, f in how)),
        normal(*(shape for shape, *_ in _parts)), _add_regions, rtol=10.0, **DERIVED)  # fmt: skip

for _axis, _many in ((0, 2), (1, 3), (2, 1)):
    def _take_grads(*operands: Any, axis: int = _axis) -> Any:
        out = np.zeros((4, 5, 6), operands[1].dtype)
        for idx, src in zip(operands[::2], operands[1::2], strict=True):
            for k, at in enumerate(idx):
                np.moveaxis(out, axis, 0)[at] += np.take(src, k, axis)
        return out

    def _places_and_sources(rng: Any, axis: int = _axis, many: int = _many) -> Any:
        shape = [4, 5, 6]
        size, shape[axis] = shape[axis], 7
        return [x for _ in range(many) for x in (rng.integers(0, size, 7), rng.normal(size=shape))]

    sample("take_grads", name(_axis, _many), lambda *x, a=_axis: apply(TAKE_GRADS, *x, axis=a, size=(4, 5, 6)[a]),
           _places_and_sources, _take_grads, rtol=10.0, **DERIVED)  # fmt: skip

for _row, _weighted in (((), False), ((3,), False), ((6,), True), ((2, 5), True), ((40,), True)):
    def _added_rows(idx: Any, x: Any, places: Any, *weights: Any) -> Any:
        out = np.zeros((4, *x.shape[1:]), x.dtype)
        for q, (to, at) in enumerate(zip(idx, places, strict=True)):
            out[to] += x[at] * weights[0][q] if weights else x[at]
        return out

    def _rows_and_places(rng: Any, row: Shape = _row, weighted: bool = _weighted) -> Any:
        weights = [rng.normal(size=(9, *(1,) * len(row)))] if weighted else []
        return rng.integers(0, 4, 9), rng.normal(size=(5, *row)), rng.integers(0, 5, 9), *weights

    sample("added_rows", name(_row, _weighted), lambda *x: apply(ADDED_ROWS, *x, size=4), _rows_and_places,
           _added_rows, rtol=10.0, **DERIVED)  # fmt: skip

# ---- pools

for _row, _other in POOLS.items():
    for _size, _how in (
        ((9,), {"kernel": (2,), "stride": (2,), "padding": ((0, 0),), "dilation": (1,)}),
        ((7, 8), {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1)}),
        ((7, 8), {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}),
    ):
        if _row.name.startswith("sum"):
            _how = {k: v for k, v in _how.items() if k != "dilation"}
        _places = TABLE["sum_pool"].eager(np.zeros((1, 1, *_size)), **{
            k: v for k, v in _how.items() if k != "dilation"}).shape[2:]  # fmt: skip
        _x, _g = (2, *_size, 9), (2, *_places, 9)
        _shapes = {"max_pool_grad": [_x, _g], "max_pool_pick": [_x, _x], "sum_pool_grad": [_g]}.get(_row.name, [_x])
        if _row.name == "sum_pool_grad":
            _how = {"size": _size, **_how}
        sample(_other.name, name(_size, _how), lambda *xs, r=_other, h=_how: apply(r, *xs, **h), normal(*_shapes),
               lambda *xs, r=_row, h=_how: np.moveaxis(r.eager(*(np.moveaxis(x, -1, 1) for x in xs), **h), 1, -1),
               rtol=50.0, **DERIVED)  # fmt: skip
