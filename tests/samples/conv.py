"""Samples of convolution and pooling; the references are written out from the definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import conv as cv
from graphjit.ops import pool as pl

from .make import INF, NAN, error, fixed, integers, name, normal, sample

SUMS = 100.0


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * rank


def _taps(kernel: tuple[int, ...], places: tuple[int, ...], stride: Any, dilation: Any) -> Any:
    """Each element of the windows, and the index of what it covers in the padded operand."""
    for t in itertools.product(*map(range, kernel)):
        yield t, (..., *(slice(k * d, k * d + (n - 1) * s + 1, s)
                         for k, n, s, d in zip(t, places, stride, dilation, strict=True)))


def conv(x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    rank = w.ndim - 2
    stride, dilation = _tuple(stride, rank), _tuple(dilation, rank)
    span = [d * (k - 1) for k, d in zip(w.shape[2:], dilation, strict=True)]
    if padding == "same":
        pads = [(m // 2, m - m // 2) for m in span]
    else:
        pads = [(p, p) for p in _tuple(0 if padding == "valid" else padding, rank)]
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    places = tuple((n - m - 1) // s + 1 for n, m, s in zip(x.shape[2:], span, stride, strict=True))
    out = np.zeros((x.shape[0], w.shape[0], *places), x.dtype)
    part, depth = w.shape[0] // groups, w.shape[1]
    for o in range(w.shape[0]):
        piece = x[:, o // part * depth:(o // part + 1) * depth]
        for t, at in _taps(w.shape[2:], places, stride, dilation):
            factors = w[(o, slice(None), *t)].reshape(1, -1, *(1,) * rank)
            out[:, o] += (piece[at] * factors).sum(1, dtype=x.dtype)
    return out if b is None else out + np.reshape(b, (-1, *(1,) * rank))


def conv_transpose(x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                   groups: int = 1, dilation: Any = 1) -> Any:
    rank = w.ndim - 2
    stride, dilation, padding, more = (_tuple(v, rank) for v in (stride, dilation, padding, output_padding))
    wide = [(n - 1) * s + d * (k - 1) + 1 + m
            for n, s, d, k, m in zip(x.shape[2:], stride, dilation, w.shape[2:], more, strict=True)]
    part, depth = w.shape[0] // groups, w.shape[1]
    out = np.zeros((x.shape[0], depth * groups, *wide), x.dtype)
    for c in range(w.shape[0]):
        first = c // part * depth
        for t, at in _taps(w.shape[2:], x.shape[2:], stride, dilation):
            factors = w[(c, slice(None), *t)].reshape(1, -1, *(1,) * rank)
            out[:, first:first + depth][at] += x[:, c:c + 1] * factors
    out = out[(..., *(slice(p, n - p) for p, n in zip(padding, wide, strict=True)))]
    return out if b is None else out + np.reshape(b, (-1, *(1,) * rank))


# ---- convolution

for _x, _w, _how in (
    ((2, 3, 9), (4, 3, 3), {}),
    ((2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ((1, 4, 9), (4, 1, 3), {"groups": 4, "padding": "same", "dilation": 2}),
    ((3, 1, 8), (2, 1, 4), {"padding": "same"}),
    ((2, 3, 9), (4, 3, 1), {"stride": 3}),
    ((2, 2, 5), (1, 2, 5), {"padding": "valid"}),
    ((0, 3, 9), (4, 3, 3), {}),
):
    _args = normal(_x, _w, _w[:1])
    sample("conv", name("1d", _x, _w, _how), lambda x, w, b, h=_how: cv.conv1d(x, w, b, **h), _args,
           lambda x, w, b, h=_how: conv(x, w, b, **h), rtol=SUMS)  # fmt: skip
for _x, _w, _how in (
    ((2, 3, 6, 7), (4, 3, 3, 2), {}),
    ((2, 4, 6, 7), (6, 2, 2, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    ((1, 1, 5, 5), (1, 1, 3, 3), {"padding": "same"}),
    ((2, 3, 4, 4), (2, 3, 1, 1), {}),
):
    _args = normal(_x, _w, _w[:1])
    sample("conv", name("2d", _x, _w, _how), lambda x, w, b, h=_how: cv.conv2d(x, w, b, **h), _args,
           lambda x, w, b, h=_how: conv(x, w, b, **h), rtol=SUMS)  # fmt: skip
sample("conv", "without batch and bias", cv.conv1d, normal((3, 9), (4, 3, 3)), lambda x, w: conv(x[None], w)[0],
       rtol=SUMS)  # fmt: skip
sample("conv", "ints", cv.conv1d, integers("int32", 0, 9, (2, 3, 9), (4, 3, 3)), conv)
sample("conv", "relu of a batch", lambda x, w: cv.conv2d(x, w, padding=1).relu(), normal((5, 2, 4, 4), (3, 2, 3, 3)),
       lambda x, w: np.maximum(conv(x, w, padding=1), 0), rtol=SUMS)  # fmt: skip

for _x, _w, _how in (
    ((2, 4, 5), (4, 3, 3), {}),
    ((2, 4, 5), (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 4, 5), (4, 3, 2), {"stride": 3, "groups": 2, "dilation": 2}),
    ((2, 4, 3, 5), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}),
    ((0, 4, 5), (4, 3, 3), {}),
):
    _args = normal(_x, _w, (_w[1] * _how.get("groups", 1),))  # type: ignore[operator,attr-defined]
    _function = cv.conv_transpose1d if len(_x) == 3 else cv.conv_transpose2d
    sample("conv_input_grad", name("transpose", _x, _w, _how),
           lambda x, w, b, f=_function, h=_how: f(x, w, b, **h), _args,
           lambda x, w, b, h=_how: conv_transpose(x, w, b, **h), rtol=SUMS)  # fmt: skip


def _weight_grad(g: Any, x: Any) -> Any:
    from graphjit.apply import apply

    return apply(cv.CONV_WEIGHT_GRAD, g, x, kernel=(3,), stride=(2,), padding=((1, 1),), dilation=(1,), groups=2)


def _weight_grad_reference(g: Any, x: Any) -> Any:
    out = np.zeros((g.shape[1], x.shape[1] // 2, 3), g.dtype)
    for at in np.ndindex(*out.shape):
        one = np.zeros_like(out)
        one[at] = 1
        out[at] = (conv(x, one, stride=2, padding=1, groups=2) * g).sum()
    return out


sample("conv_weight_grad", "groups", _weight_grad, normal((2, 4, 5), (2, 6, 9)), _weight_grad_reference, rtol=SUMS)
sample("conv_weight_grad", "no images", _weight_grad, normal((0, 4, 5), (0, 6, 9)), _weight_grad_reference)

error("conv", "channels", cv.conv1d, normal((2, 3, 9), (4, 2, 3)), ShapeError)
error("conv", "groups", lambda x, w: cv.conv1d(x, w, groups=2), normal((2, 3, 9), (4, 3, 3)), ShapeError)
error("conv", "too short", cv.conv1d, normal((2, 3, 4), (4, 3, 5)), ShapeError)
error("conv", "dimensions", cv.conv1d, normal((2, 3, 4, 4), (4, 3, 3)), ShapeError)
error("conv", "bias", cv.conv1d, normal((2, 3, 9), (4, 3, 3), (3,)), ShapeError)
error("conv", "empty window", cv.conv1d, normal((2, 3, 9), (4, 3, 0)), ShapeError)
error("conv", "bool", cv.conv1d, integers("bool", 0, 2, (2, 3, 9), (4, 3, 3)), DTypeError)
error("conv", "stride", lambda x, w: cv.conv1d(x, w, stride=0), normal((2, 3, 9), (4, 3, 3)), ArgumentError)
error("conv", "padding", lambda x, w: cv.conv1d(x, w, padding="full"), normal((2, 3, 9), (4, 3, 3)), ArgumentError)
error("conv", "same with stride", lambda x, w: cv.conv1d(x, w, stride=2, padding="same"),
      normal((2, 3, 9), (4, 3, 3)), ArgumentError)  # fmt: skip
error("conv_input_grad", "output padding", lambda x, w: cv.conv_transpose1d(x, w, output_padding=1),
      normal((2, 4, 5), (4, 3, 3)), ArgumentError)  # fmt: skip
error("conv_input_grad", "nothing left", lambda x, w: cv.conv_transpose1d(x, w, padding=4),
      normal((2, 4, 3), (4, 3, 3)), ShapeError)  # fmt: skip


# ---- pooling

def pool(x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
         mean: bool = False, count_include_pad: bool = True) -> Any:
    """Window by window, as PyTorch defines it."""
    rank = x.ndim - 2
    kernel, padding, dilation = (_tuple(v, rank) for v in (kernel, padding, dilation))
    stride = kernel if stride is None else _tuple(stride, rank)
    places: list[int] = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        places.append(count - (ceil_mode and (count - 1) * s >= n + p))
    out = np.zeros((*x.shape[:2], *places), x.dtype)
    for at in np.ndindex(*places):
        first = [a * s - p for a, s, p in zip(at, stride, padding, strict=True)]
        index = [[i for i in range(f, f + d * k, d) if 0 <= i < n]
                 for f, k, d, n in zip(first, kernel, dilation, x.shape[2:], strict=True)]
        held = int(np.prod([*map(len, index)]))
        window = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *index)].reshape(*x.shape[:2], held)
        if count_include_pad:
            held = int(np.prod([min(f + k, n + p) - f
                                for f, k, n, p in zip(first, kernel, x.shape[2:], padding, strict=True)]))
        out[(..., *at)] = window.sum(-1, dtype=x.dtype) / held if mean else window.max(-1)
    return out


_WINDOWS: tuple[Any, ...] = (
    ((2, 3, 10), {"kernel_size": 2}),
    ((2, 3, 10), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((2, 3, 10), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((2, 3, 7), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((2, 2, 6, 7), {"kernel_size": 2}),
    ((1, 2, 6, 7), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    ((2, 1, 5, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((0, 2, 6), {"kernel_size": 2}),
    ((2, 3, 7), {"kernel_size": 7}),
    ((2, 3, 4, 5), {"kernel_size": (4, 5), "stride": 2}),
)
for _shape, _how in _WINDOWS:
    _rest = {k: v for k, v in _how.items() if k != "kernel_size"}
    _max = pl.max_pool1d if len(_shape) == 3 else pl.max_pool2d
    _mean: Any = pl.avg_pool1d if len(_shape) == 3 else pl.avg_pool2d
    sample("max_pool", name(_shape, _how), lambda x, f=_max, h=_how: f(x, **h), normal(_shape),
           lambda x, k=_how["kernel_size"], r=_rest: pool(x, k, **r))  # fmt: skip
    for _count in (True, False):
        sample("sum_pool", name(_shape, _how, _count),
               lambda x, f=_mean, h=_how, c=_count: f(x, count_include_pad=c, **h), normal(_shape),
               lambda x, k=_how["kernel_size"], r=_rest, c=_count: pool(
                   x, k, mean=True, count_include_pad=c, **r))  # fmt: skip
sample("max_pool", "dilation", lambda x: pl.max_pool1d(x, 3, 1, 1, 2), normal((2, 3, 10)),
       lambda x: pool(x, 3, 1, 1, 2))  # fmt: skip
sample("max_pool", "without batch", lambda x: pl.max_pool1d(x, 2), normal((3, 10)), lambda x: pool(x[None], 2)[0])
sample("max_pool", "ints", lambda x: pl.max_pool1d(x, 3, 2, 1), integers("int32", -9, 0, (2, 3, 10)),
       lambda x: pool(x, 3, 2, 1))  # fmt: skip
sample("max_pool", "NaN and infinity", lambda x: pl.max_pool1d(x, 2),
       fixed(np.array([[[NAN, 1, -INF, -INF, 1, INF, 2, NAN]]])), lambda x: pool(x, 2), grad=False)  # fmt: skip


def _first_of_equals(x: Any) -> Any:
    """The gradient of the sum of all maxima."""
    from graphjit.transforms import grad

    return grad(lambda t: pl.max_pool1d(t, 3, 2, 1).sum())(x)


sample("max_pool_grad", "first of equals", _first_of_equals,
       fixed(np.array([[[1.0, 1, 0, 2, 2, 2, -INF, -INF, -INF]]])),
       lambda x: np.array([[[1, 0, 0, 2, 0, 1, 0, 1, 0]]]).astype(x.dtype), grad=False)  # fmt: skip


def _rows(op: Any, **how: Any) -> Any:
    from graphjit.apply import apply

    return lambda *xs: apply(op, *xs, **how)


_how3: Any = {"kernel": (3,), "stride": (2,), "padding": ((1, 1),)}
_SHUFFLED = np.random.default_rng(3).permutation(18).reshape(1, 2, 9) / 4


def _picked(x: Any, h: Any) -> Any:
    wide, other = (np.pad(a, [(0, 0), (0, 0), (1, 1)], constant_values=-INF) for a in (x, h))
    out = np.zeros((1, 2, 5), x.dtype)
    for c, a in np.ndindex(2, 5):
        out[0, c, a] = other[0, c, 2 * a + np.argmax(wide[0, c, 2 * a:2 * a + 3])]
    return out


def _put(x: Any, g: Any) -> Any:
    wide = np.pad(x, [(0, 0), (0, 0), (1, 1)], constant_values=-INF)
    out = np.zeros_like(wide)
    for c, a in np.ndindex(2, 5):
        out[0, c, 2 * a + np.argmax(wide[0, c, 2 * a:2 * a + 3])] += g[0, c, a]
    return out[..., 1:-1]


sample("max_pool_pick", "row", _rows(pl.MAX_POOL_PICK, dilation=(1,), **_how3),
       lambda rng: (_SHUFFLED, rng.normal(size=(1, 2, 9))), _picked)  # fmt: skip
sample("max_pool_grad", "row", _rows(pl.MAX_POOL_GRAD, dilation=(1,), **_how3),
       lambda rng: (_SHUFFLED, rng.normal(size=(1, 2, 5))), _put)  # fmt: skip


def _spread(g: Any) -> Any:
    out = np.zeros((*g.shape[:2], 11), g.dtype)
    for a in range(5):
        out[..., 2 * a:2 * a + 3] += g[..., a:a + 1]
    return out[..., 1:-1]


sample("sum_pool_grad", "row", _rows(pl.SUM_POOL_GRAD, size=(9,), **_how3), normal((1, 2, 5)), _spread)

sample("sum", "adaptive even", lambda x: pl.adaptive_avg_pool2d(x, (2, None)), normal((2, 3, 4, 5)),
       lambda x: x.reshape(2, 3, 2, 2, 5).mean(3))  # fmt: skip
sample("matmul", "adaptive uneven", lambda x: pl.adaptive_avg_pool1d(x, 3), normal((2, 3, 7)),
       lambda x: np.stack([x[..., :3].mean(-1), x[..., 2:5].mean(-1), x[..., 4:].mean(-1)], -1), rtol=SUMS)  # fmt: skip
sample("sum", "adaptive to one", lambda x: pl.adaptive_avg_pool1d(x, 1), normal((3, 7)),
       lambda x: x.mean(-1, keepdims=True), rtol=SUMS)  # fmt: skip

error("max_pool", "too short", lambda x: pl.max_pool1d(x, 7), normal((1, 2, 6)), ShapeError)
error("max_pool", "padding", lambda x: pl.max_pool1d(x, 2, padding=2), normal((1, 2, 6)), ArgumentError)
error("max_pool", "dimensions", lambda x: pl.max_pool2d(x, 2), normal((2, 6)), ShapeError)
error("max_pool", "bool", lambda x: pl.max_pool1d(x, 2), integers("bool", 0, 2, (1, 2, 6)), DTypeError)
error("sum_pool", "kernel", lambda x: pl.avg_pool1d(x, 0), normal((1, 2, 6)), ArgumentError)
error("sum_pool", "adaptive size", lambda x: pl.adaptive_avg_pool1d(x, 0), normal((1, 2, 6)), ArgumentError)
