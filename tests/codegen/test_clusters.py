"""What fuses into one kernel, and what must not."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering import clusters, compiled, floats, kernels, program_of, sources

import graphjit as gj
from graphjit.codegen.call import KernelCall
from graphjit.codegen.cluster import LARGEST

X, Y, B = floats(6, 5), floats(6, 5, seed=1), floats(5, seed=2)
SQUARE = floats(5, 5, seed=3)


def count(function: Any, *args: Any) -> int:
    return len(kernels(function, *args))


def groups(function: Any, *args: Any) -> list[list[str]]:
    return clusters(compiled(function, *args).graph)


# ---- one kernel

def test_a_chain_with_broadcasting_casts_and_transposes_is_one_kernel() -> None:
    def f(x: gj.Tensor, y: gj.Tensor, b: gj.Tensor) -> gj.Tensor:
        return gj.exp((x * b).T + 1.0).astype(np.float64) - y.T
    assert count(f, X, Y, B) == 1


def test_slices_of_inputs_are_folded_into_the_loads() -> None:
    assert count(lambda x: x[1:, ::2] * x[:-1, ::-2] + x[0, 0], X) == 1


def test_softmax_cross_entropy_is_one_row_kernel() -> None:
    def f(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        return (gj.log_softmax(x, 1) * y).sum(1)
    assert count(f, X, Y) == 1


def test_layer_norm_is_one_kernel_along_rows_and_along_columns() -> None:
    for axis in (0, 1):
        def f(x: gj.Tensor, axis: int = axis) -> gj.Tensor:
            centred = x - x.mean(axis, keepdims=True)
            return centred * gj.rsqrt((centred * centred).mean(axis, keepdims=True) + 1e-5)
        assert count(f, X) == 1, f"axis {axis}"


def test_reductions_of_the_same_data_along_the_same_axes_are_siblings() -> None:
    assert count(lambda x: (x.sum(0), (x * x).sum(0), x.max(0)), X) == 1


def test_several_results_of_one_loop_are_stored_by_one_kernel() -> None:
    def f(x: gj.Tensor, y: gj.Tensor) -> tuple[gj.Tensor, ...]:
        z = x + y
        return z, gj.exp(z), (z * y).T
    assert count(f, X, Y) == 1


def test_gathered_rows_are_read_where_they_are_used() -> None:
    rows = np.array([0, 5, 2])
    assert kernels(lambda x, i: gj.take(x, i, 0) * 2 + 1, X, rows)[1:] == ["take mul add"]


def test_an_update_of_a_parameter_and_its_moments_is_one_kernel() -> None:
    p, m, v = (gj.tensor(floats(4, 3, seed=s)) for s in range(3))

    def step(g: gj.Tensor) -> None:
        m.assign(m * 0.9 + g * 0.1)
        v.assign(v * 0.999 + g * g * 0.001)
        p.assign(p - m / (gj.sqrt(v * v) + 1e-8))
    assert count(step, floats(4, 3)) == 1


# ---- several kernels

def test_a_path_through_a_product_separates_its_ends() -> None:
    """Merging exp with the addition would make a circle through the product."""
    def f(x: gj.Tensor) -> gj.Tensor:
        a = gj.exp(x)
        return a + a @ x
    found = groups(f, SQUARE)
    assert ["exp"] in found and ["add"] in found


def test_a_path_through_another_cluster_separates_its_ends() -> None:
    """The row sums of a stand between a and what is added to them as columns."""
    def f(x: gj.Tensor) -> gj.Tensor:
        a = gj.exp(x)
        return a.sum(1) + a.sum(0)
    assert count(f, SQUARE) >= 2


def test_values_are_not_read_in_the_same_loops_through_slices() -> None:
    for read in (lambda y: y[1:], lambda y: y[::-1], lambda y: y.reshape(5, 6)):
        def f(x: gj.Tensor, read: Any = read) -> tuple[gj.Tensor, ...]:
            y = gj.exp(x)  # read as it is, too: else the view would be one of x
            return read(y) * 2.0, y.sum()
        assert not [group for group in groups(f, X) if {"exp", "mul"} <= set(group)]


def test_a_value_is_not_read_at_two_points_of_the_same_loops() -> None:
    def f(x: gj.Tensor) -> gj.Tensor:
        y = gj.exp(x)
        return y + y.T
    assert sorted(groups(f, SQUARE)) == [["add"], ["exp"]]


def test_a_full_fold_stays_apart_from_its_element_wise_users() -> None:
    found = groups(lambda x: x / x.sum(), X)
    assert ["div"] in found and ["sum"] in found


def normalized(x: gj.Tensor) -> gj.Tensor:
    centred = x - x.mean((0, 1), keepdims=True)
    return centred * gj.rsqrt((centred * centred).mean((0, 1), keepdims=True) + 1e-5)


def test_a_fold_to_few_neighbours_does_so_too_as_threads_share_its_rows() -> None:
    few, many, w = gj.tensor(floats(60, 20, 32)), gj.tensor(floats(60, 20, 128)), floats(1)
    assert len(kernels(lambda w: normalized(many * w), w)) == 1
    found = [s for s in program_of(lambda w: normalized(few * w), w).steps if isinstance(s, KernelCall)]
    assert [s.tail for s in found] == [True, True, False]  # in chunks, in chunks, by rows
    for x in (few, many):
        step = gj.compile(gj.grad(lambda x: (normalized(x) ** 3).sum()))
        want = gj.grad(lambda x: (normalized(x) ** 3).sum())(x)
        np.testing.assert_allclose(step(x), want.data, rtol=1e-5, atol=1e-4)


def test_columns_are_cut_where_lines_end() -> None:
    """What two threads write into one line over and over goes from core to core each time."""
    x = gj.tensor(floats(30, 20, 128))
    (one,) = [s for s in program_of(lambda w: normalized(x * w), floats(1)).steps if isinstance(s, KernelCall)]
    assert one.strict and one.align == 64 and one.extent == 128


def test_folds_along_different_axes_stay_apart() -> None:
    assert all(len(g) == 1 for g in groups(lambda x: (x.sum(0), x.sum(1), x.sum()), X))


def test_results_of_library_kernels_and_host_calls_are_in_memory() -> None:
    assert kernels(lambda x: gj.cumsum(x * 2, 0) + 1, X) == ["mul", "cumsum", "add"]
    assert kernels(lambda x: gj.linalg.inv(x + 5 * gj.eye(5)) * 2, SQUARE)[-2:] == ["inv", "mul"]


def test_clusters_stay_small_enough_for_the_compiler_below() -> None:
    def f(x: gj.Tensor) -> gj.Tensor:
        for i in range(3 * LARGEST):
            x = x * x + i
        return x
    found = [len(g) for g in groups(f, X)]
    assert max(found) <= LARGEST and sum(found) == 6 * LARGEST


def test_cheap_values_are_computed_again_and_not_stored() -> None:
    """Both folds read the whole of x + 1: computing it twice beats storing and loading it; not so for exp(x)."""
    cheap = program_of(lambda x: ((x + 1).sum(0), (x + 1).max(1)), X)
    assert len(cheap.steps) == 2 and all("+ " in text for text in sources(cheap))
    dear = program_of(lambda x: (gj.exp(x).sum(0), gj.exp(x).max(1)), X)
    assert sum("exp(" in text for text in sources(dear)) == 1


# ---- index maps where lengths are equal by chance

def test_equal_lengths_are_not_equal_axes() -> None:
    x = SQUARE

    def f(x: gj.Tensor) -> tuple[gj.Tensor, ...]:
        return x + x.T, gj.softmax(x @ x.T, 0), x.sum(0) + x.T, x - x.sum(1), x * x[0], (x.T - x.max(0)).sum(1)
    for got, expected in zip(compiled(f, x)(x), f(gj.tensor(x)), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
