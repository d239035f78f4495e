"""The programs whose generated source is kept in ``golden/``: one for each form a kernel takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from lowering import floats

import graphjit as gj

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def chain() -> Case:
    """Element-wise, with a bias along the rows and a mask."""
    return lambda x, y, b: gj.where(y > 0, gj.tanh(x + b) * y, 0.5), (floats(6, 4), floats(6, 4), floats(4))


def cross_entropy() -> Case:
    """Softmax and cross-entropy with its gradient: one row kernel."""
    def f(x: gj.Tensor, y: gj.Tensor) -> Any:
        return gj.value_and_grad(lambda x: -(gj.log_softmax(x, 1) * y).sum() / x.shape[0])(x)
    return f, (floats(6, 4), np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]])


def layer_norm() -> Case:
    """Statistics of each row, then the row itself."""
    weight, bias = gj.tensor(floats(4)), gj.tensor(floats(4, seed=1))

    def f(x: gj.Tensor) -> gj.Tensor:
        centred = x - x.mean(-1, keepdims=True)
        return centred * gj.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * weight + bias
    return f, (floats(6, 4),)


def batch_norm() -> Case:
    """Statistics of each column, and running ones kept as state: the column form."""
    running = gj.tensor(floats(4), label="running")

    def f(x: gj.Tensor) -> gj.Tensor:
        mean = x.mean(0)
        running.assign(running * 0.9 + mean * 0.1)
        return (x - mean) * gj.rsqrt(((x - mean) * (x - mean)).mean(0) + 1e-5)
    return f, (floats(6, 4),)


def bias_gradient() -> Case:
    """A sum along the batch of what is masked first."""
    return lambda g, y: gj.where(y > 0, g, 0).sum(0), (floats(6, 4), floats(6, 4, seed=1))


def adam() -> Case:
    """A parameter and its moments, updated in place by one kernel."""
    p, m, v = (gj.tensor(floats(5, 4, seed=i), label=name) for i, name in enumerate("pmv"))
    lr = gj.tensor(np.float32(1e-3), label="lr")

    def f(g: gj.Tensor) -> None:
        m.assign(m * 0.9 + g * 0.1)
        v.assign(v * 0.999 + g * g * 0.001)
        p.assign(p - lr * m / (gj.sqrt(v) + 1e-8))
    return f, (floats(5, 4),)


def embedding() -> Case:
    """Rows picked from a table, scaled; the indices are checked first."""
    table = gj.tensor(floats(9, 4), label="table")
    return lambda ids: gj.take(table, ids, 0) * 2.0, (np.array([1, 8, 3]),)


def transpose() -> Case:
    """A copy in another order."""
    return lambda x: gj.concat([x.T, x.T[:1]]), (floats(6, 4),)


PROGRAMS = {case.__name__: case for case in (
    chain, cross_entropy, layer_norm, batch_norm, bias_gradient, adam, embedding, transpose)}
