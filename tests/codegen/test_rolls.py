"""What is rolled is read where it lies, by the loops that compute with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreeing import agree, names
from lowering import floats, kernels, program_of, sources

import graphjit as gj
from graphjit.runtime.compiler import compile_count

Array = np.ndarray[Any, Any]


def laplacian(u: gj.Tensor) -> gj.Tensor:
    """On a torus."""
    around = [gj.roll(u, s, axis) for axis in range(u.ndim) for s in (1, -1)]
    total = around[0]
    for each in around[1:]:
        total = total + each
    return total - len(around) * u


def heat(u: gj.Tensor) -> gj.Tensor:
    for _ in range(3):
        u = u + 0.1 * laplacian(u)
    return u


def neighbours(u: gj.Tensor) -> gj.Tensor:
    """All eight of a cell."""
    return sum((gj.roll(u, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j), gj.zeros(()))


STENCILS: dict[str, Callable[[gj.Tensor], Any]] = {
    "laplacian": laplacian, "heat": heat, "neighbours": neighbours,
    "energy": lambda s: (s * (gj.roll(s, 1, 0) + gj.roll(s, -2, 1))).mean(),
    "of rows": lambda u: (gj.tanh(u) * gj.roll(u, 2, 1)).sum(1),
    "of columns": lambda u: (u * gj.roll(u, 3, 0)).sum(0),
    "columns moved": lambda u: (u * gj.roll(u, -1, 1)).sum(0) + gj.roll(u, 1, 1).max(0),
    "softmax": lambda u: gj.softmax(gj.roll(u, 1, 1) + u, 1),
    "twice": lambda u: gj.roll(gj.roll(u, 1, 0), -1, 0) + gj.roll(gj.roll(u, 2, 1), 2, 1) * u,
    "scaled": lambda u: gj.roll(0.5 * -u, 1, 1) + gj.roll(2 - u, 1, 0),
    "of another axis": lambda u: gj.roll(u.T, 1, 1).T * u,
    "of a part": lambda u: gj.roll(u[1:, ::2], 1, 0) * u[1:, ::2] + gj.roll(u[0], 1)[::2],
    "a part of it": lambda u: gj.roll(u, 1, 0)[1:] * gj.roll(u, -1, 1)[1:] + gj.roll(u, 2, 1)[1:, :2].sum(),
    "broadcast": lambda u: gj.roll(u, 1, 1) * u[:, :1] + gj.roll(u[0], 1, 0) + gj.roll(gj.ones((1, 1)) * u[:1], 1, 1),
    "product": lambda u: gj.roll(u, 1, 1) @ gj.roll(u, 1, 0).T,
    "dear": lambda u: gj.exp(gj.sin(gj.roll(u, 1, 1))) + gj.roll(gj.exp(u), -1, 1),
    "flat": lambda u: gj.roll(u, 3) + u,
    "largest": lambda u: (gj.maximum(gj.roll(u, 1, 1), u).max(1, keepdims=True) - gj.roll(u, 1, 0)) ** 2,
}


@pytest.mark.parametrize("shape", [(5, 7), (2, 3), (3, 16), (17, 4), (40, 33), (16, 128), (70, 200)], ids=str)
@pytest.mark.parametrize("name", STENCILS)
def test_values_and_gradients_are_those_of_eager_mode(name: str, shape: tuple[int, int]) -> None:
    agree([STENCILS[name]], [[floats(*shape)]], 2e-5)


@pytest.mark.parametrize("name", STENCILS)
def test_they_are_so_in_float64_and_of_states(name: str) -> None:
    x = floats(24, 20, dtype=np.float64)
    agree([STENCILS[name]], [[x]], 1e-12)
    held = gj.tensor(x)
    got, want = gj.compile(lambda: STENCILS[name](held))(), STENCILS[name](held)
    np.testing.assert_allclose(got.data, want.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(9,), (6, 5, 4), (3, 20, 17), (4, 3, 2, 6)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, bool])
def test_any_axes_and_types(shape: tuple[int, ...], dtype: Any) -> None:
    x = (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)
    for shifts in np.ndindex(*(3,) * len(shape)):
        each = tuple(s * 2 - 1 if i % 2 else -s for i, s in enumerate(shifts))
        axes = tuple(range(len(shape)))

        def moved(x: Any, each: Any = each, axes: Any = axes) -> Any:
            return gj.where(x == gj.roll(x, each, axes), x, gj.roll(x, each, axes))
        np.testing.assert_array_equal(gj.compile(moved)(x), np.roll(x, each, axes))


def test_a_stencil_is_one_kernel_that_copies_nothing() -> None:
    x = floats(60, 50)
    assert len(kernels(laplacian, x)) == len(kernels(neighbours, x)) == 1
    assert len(kernels(heat, x)) == 3
    assert len(kernels(gj.grad(lambda u: (heat(u) ** 2).sum()), x)) == 6
    assert "concat" not in names(heat, x)


def test_inner_loops_run_from_cut_to_cut() -> None:
    (text,) = sources(program_of(laplacian, floats(60, 50)))
    assert "for part in range(3):" in text
    (text,) = sources(program_of(lambda u: u - gj.roll(u, 1, 0), floats(60, 50)))
    assert "part" not in text


def test_a_new_size_needs_no_kernel() -> None:
    step = gj.compile(gj.grad(lambda u: (heat(u) ** 2).sum()))
    step(floats(60, 50))
    before = compile_count()
    for shape in ((61, 40), (33, 90)):
        x = floats(*shape)
        got, want = step(x), gj.grad(lambda u: (heat(u) ** 2).sum())(gj.tensor(x))
        np.testing.assert_allclose(got.data, want.data, rtol=2e-5, atol=1e-5)
    assert compile_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_a_field_that_is_replaced_is_read_as_it_was(threads: int) -> None:
    """No turn may read what another one has written already."""
    u = floats(90, 64, dtype=np.float64)
    field, right = gj.tensor(u), u

    @gj.compile
    def step() -> gj.Tensor:
        moved = gj.roll(field, 1, 0) + gj.roll(field, -1, 1)
        field.assign(0.5 * moved + field)
        return (field * gj.roll(field, 1, 1)).sum()
    before = gj.get_num_threads()
    gj.set_num_threads(threads)
    try:
        for _ in range(3):
            total = step()
            right = 0.5 * (np.roll(right, 1, 0) + np.roll(right, -1, 1)) + right
            np.testing.assert_allclose(field.numpy(), right, rtol=1e-12)
            np.testing.assert_allclose(float(total), (right * np.roll(right, 1, 1)).sum(), rtol=1e-9)
    finally:
        gj.set_num_threads(before)


def test_a_large_field_has_the_same_bits_on_threads() -> None:
    step = gj.compile(gj.value_and_grad(lambda u: (heat(u) ** 2).sum()))
    x, found = floats(700, 513), []
    before = gj.get_num_threads()
    try:
        for threads in (1, 2):
            gj.set_num_threads(threads)
            found.append([np.asarray(v) for v in step(x)])
    finally:
        gj.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    want = gj.value_and_grad(lambda u: (heat(u) ** 2).sum())(gj.tensor(x))
    np.testing.assert_allclose(found[0][1], want[1].data, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_that_run_strip_by_strip_see_all_of_it(threads: int) -> None:
    """What is rolled is computed again by a second loop, and that loop is in no group with what computes the field."""
    def step(x: gj.Tensor) -> tuple[gj.Tensor, ...]:
        moved = gj.roll(gj.exp(x * 0.1), 7000, 0)
        return moved.sum(1), moved.sum(0), (gj.tanh(moved) * moved).sum(0)
    x, before = floats(20000, 400), gj.get_num_threads()
    gj.set_num_threads(threads)
    try:
        got, want = gj.compile(step)(x), step(gj.tensor(x))
    finally:
        gj.set_num_threads(before)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b.data, rtol=1e-5)


def test_streaming_of_populations() -> None:
    """Each in a direction of its own, as in a lattice Boltzmann method."""
    moves = [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1)]

    def step(f: gj.Tensor) -> gj.Tensor:
        f = gj.stack([gj.roll(f[k], move, (0, 1)) for k, move in enumerate(moves)])
        rho = f.sum(0)
        return f + 0.6 * (rho / 9 - f)

    def twice(f: gj.Tensor) -> gj.Tensor:
        return (step(step(f)) ** 2).sum()
    agree([twice, step], [[np.abs(floats(9, 20, 31)) + 1]] * 2, 2e-5)
