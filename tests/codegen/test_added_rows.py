"""Rows that are taken and added up at other places: messages along the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreeing import agree, names
from lowering import floats

import graphjit as gj
from graphjit.errors import BoundsError

NODES, EDGES = 23, 90
RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.integers(0, NODES, EDGES), RNG.integers(0, NODES, EDGES)


def sent(x: gj.Tensor) -> gj.Tensor:
    return gj.take(x, SOURCE, axis=0)


def received(rows: gj.Tensor, like: gj.Tensor) -> gj.Tensor:
    return gj.scatter_add(gj.zeros(like.shape, dtype=rows.dtype), TARGET, rows)


def attention(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
    score = gj.exp(gj.tanh(sent(x.sum(1)) - gj.take(x[:, 0], TARGET, axis=0) + w))
    total = gj.scatter_add(gj.zeros((NODES,), dtype=x.dtype), TARGET, score)
    return received(sent(x) * score[:, None], x) / (total[:, None] + 1)


LAYERS: dict[str, Callable[[gj.Tensor, gj.Tensor], gj.Tensor]] = {
    "sum": lambda x, w: received(sent(x), x) * w.sum(),
    "weighted": lambda x, w: received(sent(x) * w[:, None], x),
    "weight first": lambda x, w: received(w.reshape(-1, 1) * sent(x), x),
    "attention": attention,
    "twice": lambda x, w: received(sent(gj.tanh(received(sent(x), x))) * w[:, None], x),
    "into others": lambda x, w: gj.scatter_add(x, TARGET, sent(x) * w[:, None]),
    "read elsewhere": lambda x, w: received(sent(x) * w[:, None], x) + (sent(x) ** 2).mean(),
    "of a part": lambda x, w: received(sent(x[:, 1:]) * w[:, None], x[:, 1:]),
    "one weight": lambda x, w: received(sent(x) * w[:1, None], x),
    "mean of neighbours": lambda x, w: received(sent(x), x) / gj.maximum(received(w[:, None] ** 0, x[:, :1]), 1),
    "both ends": lambda x, w: received((sent(x) - gj.take(x, TARGET, axis=0)) * w[:, None], x),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [2, 7, 16, 33, 64, 130])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_eager_mode(name: str, width: int, dtype: Any) -> None:
    agree([LAYERS[name]], [[floats(NODES, width, dtype=dtype), floats(EDGES, seed=1, dtype=dtype)]],
          3e-5 if dtype is np.float32 else 1e-12)


def test_no_message_is_stored() -> None:
    x, w = floats(NODES, 8), floats(EDGES)
    assert "take" not in names(LAYERS["weighted"], x, w)
    found = names(gj.grad(lambda x, w: (LAYERS["weighted"](x, w) ** 2).sum()), x, w)
    assert found.count("added_rows") == 2 and "take" not in found and "take_grad" not in found


def test_rows_of_numbers_and_of_matrices() -> None:
    def layer(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        return received(sent(x) * w.reshape(-1, *(1,) * (x.ndim - 1)), x)
    for shape in ((NODES,), (NODES, 1), (NODES, 3, 4), (NODES, 0)):
        x, w = floats(*shape), floats(EDGES)
        right = np.zeros(shape)
        np.add.at(right, TARGET, x[SOURCE].astype(np.float64) * w.reshape(-1, *(1,) * (x.ndim - 1)))
        np.testing.assert_allclose(gj.compile(layer)(x, w), right, rtol=1e-5, atol=1e-5)


def test_integers_are_added_up_as_well() -> None:
    x = np.arange(NODES * 3).reshape(NODES, 3)
    right = np.zeros_like(x)
    np.add.at(right, TARGET, x[SOURCE])
    np.testing.assert_array_equal(gj.compile(lambda x: received(sent(x), x))(x), right)


def test_an_edge_to_nowhere_raises_and_leaves_all_as_it_was() -> None:
    seen = gj.tensor(floats(NODES, 4))
    before = seen.numpy().copy()

    @gj.compile
    def step(x: gj.Tensor, source: gj.Tensor) -> None:
        seen.assign(gj.scatter_add(gj.zeros((NODES, 4)), TARGET, gj.take(x, source, axis=0)))
    wrong = SOURCE.copy()
    wrong[3] = NODES
    with pytest.raises(BoundsError):
        step(floats(NODES, 4), wrong)
    np.testing.assert_array_equal(seen.numpy(), before)
    step(floats(NODES, 4), SOURCE)


def test_the_same_bits_on_threads() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.integers(0, 3000, 40000), rng.integers(0, 3000, 40000)

    @gj.compile
    def layer(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        rows = gj.take(x, source, axis=0) * w[:, None]
        return gj.scatter_add(gj.zeros((3000, 150)), target, rows)
    x, w, found, before = floats(3000, 150), floats(40000), [], gj.get_num_threads()
    try:
        for threads in (1, 2):
            gj.set_num_threads(threads)
            found.append(np.asarray(layer(x, w)))
    finally:
        gj.set_num_threads(before)
    np.testing.assert_array_equal(*found)
