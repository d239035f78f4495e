"""Products are stored where they are wanted: splitting and merging heads moves nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering import compiled, floats, kernels

import graphjit as gj
from graphjit.tree import flatten

B, T, H, D = 3, 6, 2, 4
X, W = floats(B, T, H * D), floats(H * D, 3 * H * D, seed=1)


def split(x: gj.Tensor) -> gj.Tensor:
    return x.reshape(B, T, H, D).permute_dims(0, 2, 1, 3)


def merged(x: gj.Tensor) -> gj.Tensor:
    return x.permute_dims(0, 2, 1, 3).reshape(B, T, H * D)


def attention(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
    """Heads by slices of one product."""
    q, k, v = (split(part) for part in gj.split(x @ w, 3, axis=-1))
    return merged((q @ k.mT) @ v)


def stacked(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
    """Heads by an axis of its own."""
    q = (x @ w).reshape(B, T, 3, H, D).permute_dims(2, 0, 3, 1, 4)
    return merged((q[0] @ q[1].mT) @ q[2])


def check(function: Any, *args: Any) -> list[str]:
    got, wanted = compiled(function, *args)(*args), function(*(gj.tensor(a) for a in args))
    for x, y in zip(flatten(got)[0], flatten(wanted)[0], strict=True):
        np.testing.assert_allclose(x.data, y.data, rtol=2e-5, atol=1e-5)
    return kernels(function, *args)


def test_merged_heads_are_copied_nowhere() -> None:
    for heads in (attention, stacked):
        assert not [k for k in check(lambda x, w, heads=heads: heads(x, w) @ w, X, W) if "copy" in k]


def test_gradients_of_heads_are_stored_side_by_side() -> None:
    for heads in (attention, stacked):
        def f(x: gj.Tensor, w: gj.Tensor, heads: Any = heads) -> Any:
            return gj.value_and_grad(lambda x, w: (gj.tanh(heads(x, w)) ** 2).sum(), argnums=(0, 1))(x, w)
        # small numbers: products of products of large ones have few digits left
        titles = check(f, X / 4, W / 4)
        assert not [k for k in titles if "copy" in k], titles


def test_a_product_read_elsewhere_keeps_its_own_buffer() -> None:
    def f(x: gj.Tensor, w: gj.Tensor) -> tuple[gj.Tensor, ...]:
        y = split(x) @ split(x).mT @ split(x)
        return y, merged(y) @ w, y.sum()
    check(f, X, W)


def test_parts_of_parts_reach_their_place() -> None:
    def f(x: gj.Tensor, w: gj.Tensor) -> tuple[gj.Tensor, ...]:
        y, z = x @ w, x[:, ::-1] @ w
        inner = gj.concat([y, gj.exp(y), z], axis=1).reshape(B, 3, T, -1).permute_dims(1, 2, 0, 3)
        outer = gj.concat([inner.reshape(3, T, -1), inner.reshape(3, T, -1) * 2], axis=0)
        rows = gj.concat([(x @ w).mT, (z * 2).mT], axis=1)
        return outer, rows, gj.pad(gj.stack([x @ w, z], axis=1).reshape(B, 2, -1), ((0, 0), (1, 2), (0, 0)))
    check(f, X, W)


def test_columns_of_a_product_may_lie_apart() -> None:
    def f(x: gj.Tensor, w: gj.Tensor) -> tuple[gj.Tensor, ...]:
        y = (x @ w).permute_dims(0, 2, 1)
        return gj.concat([y, y.reshape(B, -1, T) + 1], axis=2), gj.concat([(x @ w).permute_dims(1, 2, 0)], axis=0), \
            (x @ w).permute_dims(2, 1, 0).reshape(3 * H * D, -1) @ floats(T * B, 5, seed=4)
    check(f, X, W)
