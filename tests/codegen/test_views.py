"""Views of what is computed meet what they undo; sums of what slices were given are stored once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import Array, compiled, floats

import graphjit as gj
from graphjit.ir import Apply
from graphjit.tree import flatten

Function = Callable[..., Any]
X, Y = floats(12, 14), floats(12, 14, seed=1)


def names(function: Function, *arrays: Array) -> list[str]:
    program = compiled(function, *arrays).latest.program
    return [n.op.name for n in program.lowered.graph.nodes if isinstance(n, Apply)]


def agrees(function: Function, *arrays: Array) -> None:
    wanted = function(*(gj.tensor(a, dtype="float64") for a in arrays))
    for got, want in zip(flatten(compiled(function, *arrays)(*arrays))[0], flatten(wanted)[0], strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)


def grad(function: Function) -> Function:
    return lambda *args: gj.grad(lambda *args: function(*args).sum(), argnums=tuple(range(len(args))))(*args)


@pytest.mark.parametrize(("function", "gone"), [
    (lambda x, y: gj.pad(x, 2) ** 2 + 0 * y.sum(), "pad"),
    (lambda x, y: gj.stack([x, y], 2) ** 2, "concat"),
    (lambda x, y: gj.sin(gj.concat([x, y], 1)), "concat"),
    (lambda x, y: gj.repeat(x, 2, 1) ** 3 + y.sum(), "pad"),
    (lambda x, y: gj.exp(gj.concat([x, y], 0) * 2)[13:, ::2], "concat"),
])
def test_gradients_undo_what_was_put_together(function: Function, gone: str) -> None:
    assert gone not in names(grad(function), X, Y)
    agrees(grad(function), X, Y)
    agrees(lambda x, y: (function(x, y), grad(function)(x, y)), X, Y)


@pytest.mark.parametrize("function", [
    lambda x, y: gj.exp(x + y[:1])[2:, 1::3], lambda x, y: gj.exp(x + y[:, :1])[1:5][1:, :3],
    lambda x, y: (gj.tanh(x) * y)[::2][1::2] + y.sum(), lambda x, y: (gj.concat([x, y], 1) + 1)[:, 10:20],
    lambda x, y: (gj.pad(x, 3) * 2)[2:9, 3:8], lambda x, y: (gj.pad(x, 3) * 2)[4:9, 3:8],
    lambda x, y: (gj.concat([x, y], 1) * 2)[:, 14:20], lambda x, y: (x > y)[3:],
    lambda x, y: (x.astype("int32") * 2)[3:], lambda x, y: (gj.exp(x.reshape(-1)) * 2).reshape(12, 14) + y,
    lambda x, y: gj.exp(x.reshape(14, 12)).reshape(12, 14), lambda x, y: gj.split(gj.tanh(x * y + x[0]), 2, 1),
    lambda x, y: (gj.exp(x)[3:], gj.exp(x)), lambda x, y: (gj.exp(x)[3:], gj.exp(x)[:3]), lambda x, y: gj.exp(x)[3:3],
    lambda x, y: gj.exp(x.sum())[None][:1] + y,
])
def test_parts_of_what_is_computed_are_those_of_eager_mode(function: Function) -> None:
    agrees(function, X, Y)
    for n in (1, 5):
        if n > 4 or "12" not in str(function):
            agrees(lambda x: gj.exp(x * 2 + 1)[:, 2:][1:], floats(n, 7))


def test_a_part_is_computed_with_what_reads_it() -> None:
    found = compiled(lambda x, y: gj.exp(x * y)[2:].sum(1), X, Y).latest.program.kernels
    assert len(found) == 1


def test_what_others_read_stays_whole() -> None:
    program = compiled(lambda x: (y := gj.exp(x), (y[1:] - y[:-1]).sum()), X).latest.program
    assert sum(n.op.name == "exp" for n in program.lowered.graph.nodes if isinstance(n, Apply)) == 1


def coupling(x: gj.Tensor, *weights: gj.Tensor) -> gj.Tensor:
    """A normalizing flow: one half shifts and scales the other, then they change places."""
    total = gj.zeros(())
    for w in weights:
        a, b = x[:, :7], x[:, 7:]
        scale = gj.tanh(a @ w)
        b = b * gj.exp(scale) + scale
        total = total + scale.sum(1)
        x = gj.concat([b, a], axis=1)
    return 0.5 * (x * x).sum(1) - total


def test_what_is_stored_into_one_array_may_depend_on_another_part_of_it() -> None:
    weights = [floats(7, 7, seed=s) * 0.05 for s in range(4)]
    agrees(grad(coupling), X, *weights)


def test_steps_of_a_loop_read_what_is_computed_at_once() -> None:
    def f(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        z, h = gj.tanh(x * 2 + 1), gj.zeros(8)
        for t in range(12):
            h = gj.tanh((h + z[t]) @ w)
        return h
    arrays = floats(12, 8), floats(8, 8, seed=1)
    assert names(f, *arrays).count("tanh") == 13
    agrees(f, *arrays)


@pytest.mark.parametrize("function", [
    lambda x: deep(x)[1:], lambda x: deep(x.reshape(-1)).reshape(12, 14),
    lambda x: gj.grad(lambda x: sum(((x[k % 4:k % 4 + 2] * x[1:3]).sum() for k in range(700)), start=gj.zeros(())))(x),
], ids=["slice", "reshape", "sum"])
def test_graphs_may_be_deeper_than_the_stack(function: Function) -> None:
    agrees(function, X)


def deep(x: gj.Tensor) -> gj.Tensor:
    for _ in range(1500):
        x = gj.tanh(x) * 1.5
    return x


# ---- sums of regions

def laplacian(u: gj.Tensor) -> gj.Tensor:
    return u[1:-1, 1:-1] * 4 - u[:-2, 1:-1] - u[2:, 1:-1] - u[1:-1, :-2] - u[1:-1, 2:]


def heat(u: gj.Tensor) -> gj.Tensor:
    for _ in range(3):
        u = gj.pad(u[1:-1, 1:-1] - 0.1 * laplacian(u), 1)
    return u


def lags(u: gj.Tensor) -> gj.Tensor:
    return sum((u[:, k:k + 6] * (k + 1.5) for k in range(8)), start=gj.zeros(6))


def many(u: gj.Tensor) -> gj.Tensor:
    return sum((gj.sin(u[k % 9:k % 9 + 3, k % 5:k % 5 + 4]) for k in range(40)), start=gj.zeros(4))


@pytest.mark.parametrize("function", [
    lambda u: laplacian(u) ** 2, heat, lags, many, lambda u: gj.sin(u) + (u[1:] - u[:-1]).sum() ** 2 * u,
    lambda u: (v := u.reshape(-1), (v[1:] - v[:-1]) ** 2 + (v[2:-1] * v[1:-2]).sum())[1],
    lambda u: (v := u.reshape(3, 4, 14), (v[1:, 1:] * v[:-1, :-1]) ** 2)[1],
], ids=["laplacian", "heat", "lags", "many", "others", "vector", "cube"])
def test_gradients_by_slices_that_overlap(function: Function) -> None:
    assert "add_regions" in names(grad(function), X) and "pad" not in names(grad(lambda u: laplacian(u) ** 2), X)
    agrees(grad(function), X)
    agrees(lambda u: gj.hvp(lambda u: function(u).sum(), (u,), (gj.cos(u),))[0], X)


def test_threads_change_no_bit_of_a_sum_of_regions() -> None:
    u, found, before = floats(200, 5000), [], gj.get_num_threads()
    for threads in (1, 2, 3):
        gj.set_num_threads(threads)
        try:
            found.append(compiled(grad(lambda u: laplacian(u) ** 2), u)(u)[0].numpy().tobytes())
        finally:
            gj.set_num_threads(before)
    assert found[0] == found[1] == found[2]


# ---- gradients by rows that are taken several times

PLACES = np.random.default_rng(0).integers(0, 50, (3, 200))


def edges(u: gj.Tensor) -> gj.Tensor:
    """Of a graph: what its ends have to do with each other."""
    source, target, others = PLACES
    return (gj.take(u, source, 0) * gj.take(u, target, 0)).sum() + (gj.exp(u[others]) * u[0]).sum() + (u * u).sum()


def test_gradients_by_rows_taken_several_times_are_one() -> None:
    found = names(grad(edges), floats(50, 7))
    assert found.count("take_grads") == 1 and "take_grad" not in found
    agrees(grad(edges), floats(50, 7))
    agrees(lambda u: gj.hvp(edges, (u,), (gj.cos(u),))[0], floats(50, 7))


def test_gradients_that_something_else_reads_stay_apart() -> None:
    def both(u: gj.Tensor) -> tuple[gj.Tensor, gj.Tensor]:
        first, second = (gj.grad(lambda v, i=i: (v[PLACES[i]] ** 3).sum())(u) for i in (0, 1))
        return first + second, first
    assert names(both, floats(50, 7)).count("take_grad") == 2
    agrees(both, floats(50, 7))


# ---- outer products

def repeated(a: gj.Tensor) -> gj.Tensor:
    """A matrix times several vectors, from both sides."""
    v, b = a[0, :5], a[:5, :5] * 2
    for _ in range(3):
        v = gj.tanh((v @ b) @ b)
    return (v * (b @ v)).sum() + (a * a).sum()


def test_sums_of_outer_products_are_one_product() -> None:
    a = floats(12, 9)
    found = compiled(grad(repeated), a).latest.program.lowered.graph.nodes
    outer = [n for n in found if isinstance(n, Apply) and n.op.name == "matmul" and n.type.shape == (5, 5)]
    assert [n.args[0].type.shape for n in outer] == [(5, 7)]
    agrees(grad(repeated), a)
    agrees(lambda a: gj.hvp(repeated, (a,), (gj.cos(a),))[0], a)


def test_few_outer_products_stay_as_they_are() -> None:
    def two(a: gj.Tensor, v: gj.Tensor) -> gj.Tensor:
        return gj.tanh(a @ gj.tanh(a @ v)).sum()
    assert "concat" not in names(grad(two), floats(6, 6), floats(6))
    agrees(grad(two), floats(6, 6), floats(6))
