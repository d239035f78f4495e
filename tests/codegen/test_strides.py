"""Innermost loops whose elements lie apart: what is vectorised, and that the values are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import compiled, floats, kernels, program_of, sources

import graphjit as gj
from graphjit.tree import flatten

Function = Callable[[gj.Tensor], Any]


def every_other(x: gj.Tensor) -> Any:
    return gj.stack([x[:, 0] * 2 - x[:, 1], x[:, 1] + x[:, 2]], axis=1)


def gated(x: gj.Tensor) -> Any:
    return gj.stack([gj.sigmoid(x[:, 0]), gj.exp(x[:, 1])], axis=1)


def transposed(x: gj.Tensor) -> Any:
    return gj.exp(x.T) - 1


def row_minus_column(x: gj.Tensor) -> Any:
    return ((x[:, None] - x[None]) ** 2).sum(-1) ** 0.5


def limits(function: Function, *shape: int) -> bool:
    """Whether strides are hidden from LLVM, which would have vectors for a stride of one only."""
    return any("= minimum(s" in text for text in sources(program_of(function, floats(*shape))))


def test_strided_loads_are_vectors() -> None:
    assert limits(transposed, 40, 30)


def test_strided_stores_are_vectors_where_there_is_enough_to_compute() -> None:
    assert limits(gated, 400, 3) and not limits(every_other, 400, 3)


@pytest.mark.parametrize("f", [every_other, gated, transposed, row_minus_column])
@pytest.mark.parametrize("n", [1, 7, 67])
def test_values_are_those_of_eager_mode(f: Function, n: int) -> None:
    x = floats(n, 3)
    np.testing.assert_allclose(compiled(f, x)(x).data, f(gj.tensor(x)).data, rtol=1e-5, atol=1e-6)


# ---- few columns: they are unrolled

def column_folds(x: gj.Tensor) -> Any:
    return x.sum(0), x.max(0), (x * x).mean(0), gj.prod(x * 0.1 + 1, 0), (gj.tanh(x) * x[:, :1]).sum(0)


def forces(x: gj.Tensor) -> Any:
    """A short axis kept, two long ones in the nest."""
    apart = x[:, None] - x[None]
    return (apart * gj.exp(-(apart * apart).sum(-1, keepdims=True))).sum(1)


@pytest.mark.parametrize("f", [column_folds, forces])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 3), (300, 3), (300, 1), (7, 15), (700, 15)])
def test_folds_of_few_columns_are_those_of_eager_mode(f: Function, dtype: Any, shape: tuple[int, int]) -> None:
    x = floats(*shape, dtype=dtype)
    wanted, found = f(gj.tensor(x)), compiled(f, x)(x)
    for got, want in zip(flatten(found)[0], flatten(wanted)[0], strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=1e-5, atol=1e-5)


def test_folds_of_few_columns_of_many_rows_are_exact() -> None:
    x = floats(70001, 3) + 100
    np.testing.assert_allclose(compiled(lambda x: x.sum(0), x)(x).data, x.astype(np.float64).sum(0), rtol=1e-7)
    i = np.arange(70001 * 3).reshape(-1, 3)
    np.testing.assert_array_equal(compiled(lambda x: x.sum(0), i)(i).data, i.sum(0))


def test_rows_that_fill_vectors_are_folded_along_themselves() -> None:
    """Though the one store there is steps along another axis: it is made once a row."""
    def distances(x: gj.Tensor) -> gj.Tensor:
        return ((x[:, None] - x[None]) ** 2).sum(-1)
    for width in (32, 3):
        (text,) = sources(program_of(distances, floats(40, width)))
        assert "t0" not in text  # an array of folds


def test_rows_of_a_table_are_added_up_along_themselves() -> None:
    """What a gather picks varies along the axis of the indices, so its own axis is innermost."""
    def bag(table: gj.Tensor, i: gj.Tensor, weight: gj.Tensor) -> gj.Tensor:
        return (table[i] * weight[:, :, None]).sum(1)
    (text,) = (s for s in sources(program_of(bag, floats(9, 40), np.ones((7, 21), int), floats(7, 21))) if "f32" in s)
    assert re.search(r"= p\d\[i2 \+ v\d+ \* \w+\]", text)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("shape", "axes"), [
    ((200, 640), (1, 0)), ((1000, 64), (1, 0)), ((150, 64, 3, 3), (2, 3, 1, 0)), ((17_000, 7), (1, 0)),
    ((130, 500), (1, 0)), ((3, 3, 50, 37), (3, 2, 0, 1)), ((8, 20, 70, 40), (3, 2, 1, 0)), ((5, 40, 60), (2, 1, 0)),
    ((6, 150, 3, 300), (0, 3, 2, 1)),
])
def test_what_lies_apart_is_read_a_line_at_a_time(shape: tuple[int, ...], axes: tuple[int, ...], threads: int) -> None:
    rng = np.random.default_rng(0)
    x, before = rng.standard_normal(shape), gj.get_num_threads()
    y = rng.standard_normal(x.transpose(axes).shape)
    gj.set_num_threads(threads)
    try:
        f = gj.compile(lambda x, y: (gj.permute_dims(x, axes) * 2.0 + y, gj.permute_dims(x, axes) + 1.0))
        both, alone = f(x, y)
    finally:
        gj.set_num_threads(before)
    np.testing.assert_array_equal(both.numpy(), x.transpose(axes) * 2.0 + y)
    np.testing.assert_array_equal(alone.numpy(), x.transpose(axes) + 1.0)


def test_large_results_are_put_in_order_by_a_kernel() -> None:
    w = gj.tensor(floats(130, 200))
    x = floats(7, 5)
    for f, wanted in ((lambda x: (w * x.sum()).T, (w.numpy() * x.sum()).T), (lambda x: x.T, x.T),
                      (lambda x: (x * 2).T, (x * 2).T), (lambda x: x[:, ::2], x[:, ::2]), (lambda x: x[2:], x[2:])):
        got = compiled(f, x)(x).numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert got.flags.c_contiguous
    assert len(kernels(lambda x: x.T, x)) == len(kernels(lambda x: x[:, ::2], x)) == 1
    assert not kernels(lambda x: x[2:], x)  # in order already


def test_what_is_a_result_both_in_order_and_turned_is_computed_once() -> None:
    x = floats(40, 30)
    y, z, again = compiled(lambda x: (y := gj.exp(x), y.T, y), x)(x)
    np.testing.assert_array_equal(y.numpy(), z.numpy().T)
    np.testing.assert_array_equal(y.numpy(), again.numpy())


def test_what_follows_folded_rows_in_another_order_is_a_loop_of_its_own() -> None:
    x, y = floats(70, 90), floats(90, 70, seed=1)

    def f(x: gj.Tensor, y: gj.Tensor) -> tuple[gj.Tensor, ...]:
        rows = gj.softmax(x, 1)
        return rows.T + y, (rows.T * y).sum(1), rows.T
    assert len(kernels(f, x, y)) > 1
    assert len(kernels(lambda x, y: gj.softmax(x, 1) + y.T, x, y)) == 1
    for got, wanted in zip(compiled(f, x, y)(x, y), f(gj.tensor(x), gj.tensor(y)), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


Steps = Callable[..., Any]


def both_ways(x: gj.Tensor, y: gj.Tensor) -> tuple[gj.Tensor, ...]:
    return (x.T * y).sum(), (x.T * y).sum(0), (x.T - y).max(1)


def turned_gradient(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
    return gj.grad(lambda x: (gj.softmax(x, 1).T * y).sum() + (x.T * gj.tanh(x)).max())(x)


@pytest.mark.parametrize("f", [both_ways, turned_gradient])
@pytest.mark.parametrize(("n", "dtype"), [(256, np.float32), (192, np.float64)])
def test_folds_of_what_lies_apart_by_powers_of_two_read_it_turned(f: Steps, n: int, dtype: Any) -> None:
    """Lines of memory would displace each other before their next number is asked for."""
    x, y = floats(n, n, dtype=dtype), floats(n, n, seed=1, dtype=dtype)
    assert [k for k in kernels(f, x, y) if "turn" in k]
    small = x[:100, :100].copy(), y[:100, :100].copy()
    assert not [k for k in kernels(f, *small) if "turn" in k]
    for args in ((x, y), small):
        wanted = f(*(gj.tensor(a, dtype="float64") for a in args))
        for got, want in zip(flatten(compiled(f, *args)(*args))[0], flatten(wanted)[0], strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-4, atol=1e-5)


def test_what_is_stretched_or_short_is_not_turned() -> None:
    x, row = floats(256, 256), floats(256)
    assert not [k for k in kernels(lambda x, r: (x * r[:, None]).sum(0), x, row) if "turn" in k]
    assert not [k for k in kernels(lambda x: x.T.sum(0), x) if "turn" in k]
    assert not [k for k in kernels(lambda x: (x.T * x.T).sum(1), x) if "turn" in k]
