"""Loops whose turns stand in the source: short rows, and lengths that the caller has not varied."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_calls import optimised
from lowering import floats, program_of, sources

import graphjit as gj
from graphjit.codegen.call import KernelCall
from graphjit.kernels.target import target
from graphjit.runtime.compiler import compile_count
from graphjit.runtime.kernel import LoopKernel
from graphjit.tree import flatten


def normalized(x: gj.Tensor) -> gj.Tensor:
    centred = x - x.mean(-1, keepdims=True)
    return centred * gj.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


def pairs(x: gj.Tensor) -> gj.Tensor:
    return gj.sqrt(((x[:, None] - x[None]) ** 2).sum(-1) + 1)


def coupled(x: gj.Tensor) -> tuple[gj.Tensor, gj.Tensor]:
    """Halves of rows, read and stored with a stride between them."""
    half = x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    scale = gj.tanh(a)
    return gj.concat([b * gj.exp(scale), a], axis=1), scale.sum(1)


def first_columns(x: gj.Tensor) -> gj.Tensor:
    """Of rows whose length is the caller's choice."""
    return (gj.softmax(x[:, :2], 1) * gj.exp(x[:, -2:])).sum(1)


FUNCTIONS: dict[str, Callable[[gj.Tensor], Any]] = {
    "first columns": gj.value_and_grad(lambda x: (first_columns(x) ** 2).sum()),
    "softmax": lambda x: gj.softmax(x, 1), "normalized": normalized, "coupled": coupled, "pairs": pairs,
    "gradient": gj.value_and_grad(lambda x: (normalized(x) ** 3).sum()), "largest": lambda x: (x.max(1), x.argmax(1)),
    "columns": lambda x: (x.sum(0), (x * x).max(0), x + gj.arange(x.shape[1])),
    "pooled": lambda x: x.reshape(-1, 2, x.shape[1] // 2).max((1, 2)) + x.reshape(-1, x.shape[1] // 2, 2).sum((1, 2)),
    "sums of columns": lambda x: (x.sum(0), gj.exp(x).sum(0)),
    "variance": lambda x: x.var(0),
    "rows of a table": lambda x: (x[gj.arange(5) % x.shape[0]] * x[0]).sum(1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [2, 4, 6, 8, 12, 14, 16, 18, 24, 30, 34, 128, 132])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_eager_mode(name: str, width: int, dtype: Any) -> None:
    f, x = FUNCTIONS[name], floats(37, width, dtype=dtype)
    for got, want in zip(flatten(gj.compile(f)(x))[0], flatten(f(gj.tensor(x)))[0], strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=2e-5 if dtype is np.float32 else 1e-12, atol=2e-5)


def vectors(function: Callable[..., Any], *shape: int) -> list[bool]:
    """Of each generated kernel, whether it computes with vectors."""
    steps = program_of(function, floats(*shape)).steps
    return [re.search(r"(fadd|fmul|fsub|@llvm\.\w+\.v\d+f32)[^\n]*<\d+ x float>", optimised(step.kernel)) is not None
            for step in steps if isinstance(step, KernelCall) and isinstance(step.kernel, LoopKernel)]


@pytest.mark.parametrize("width", [3, 5, 8, 12, 16, 32, 96])
@pytest.mark.parametrize("name", ["softmax", "normalized", "pairs", "variance", "sums of columns"])
def test_rows_of_any_width_are_computed_in_vectors(name: str, width: int) -> None:
    found = vectors(FUNCTIONS[name], 400, width)
    assert found and all(found)


def test_what_lies_apart_by_a_known_stride_is_computed_in_vectors() -> None:
    copied, computed = vectors(coupled, 500, 6)
    assert computed and not copied


@pytest.mark.parametrize("width", [20, 32, 100])
def test_what_lies_apart_by_a_stride_of_the_callers_choice_is_too(width: int) -> None:
    step = gj.value_and_grad(lambda x: (first_columns(x) ** 2).sum())
    assert vectors(step, 500, width)[0]
    assert any(" in apart(" in text for text in sources(program_of(step, floats(500, width))))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [17, 40])
def test_rows_apart_may_be_updated_in_their_place(width: int, threads: int) -> None:
    """Some columns of a state, by values that its other columns and a scratch array hold."""
    start = floats(203, width)
    state = gj.tensor(start)

    @gj.compile
    def step(x: gj.Tensor) -> gj.Tensor:
        p = gj.softmax(state[:, :3] - x[:, 5:8], 1)
        state.assign(gj.concat([state[:, :3] - 0.5 * p * p.sum(1, keepdims=True), x[:, 3:]], 1))
        return (p * state[:, :3]).sum(1)
    before = gj.get_num_threads()
    gj.set_num_threads(threads)
    try:
        out = step(floats(203, width, seed=1))
    finally:
        gj.set_num_threads(before)
    other = floats(203, width, seed=1).astype(np.float64)
    z = np.exp(start[:, :3].astype(np.float64) - other[:, 5:8])
    p = z / z.sum(1, keepdims=True)
    right = np.concatenate([start[:, :3] - 0.5 * p, other[:, 3:]], 1)
    np.testing.assert_allclose(state.numpy(), right, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(out, (p * right[:, :3]).sum(1), rtol=2e-5, atol=1e-6)


def test_short_axes_of_arguments_in_containers_are_known() -> None:
    def rates(p: dict[str, gj.Tensor], t: gj.Tensor) -> gj.Tensor:
        return (p["a"] * gj.exp(-t[:, None] * p["k"])).sum(1)
    held, alone = gj.compile(rates), gj.compile(lambda a, k, t: rates({"a": a, "k": k}, t))
    a, k, t = floats(3), floats(3, seed=1), floats(50)
    np.testing.assert_array_equal(held({"a": a, "k": k}, t), alone(a, k, t))
    assert any("range(3)" in text for text in sources(held.latest.program))
    assert not any("range(3)" in text for text in sources(alone.latest.program))
    before = compile_count()
    held({"a": a, "k": k}, floats(20))
    assert compile_count() == before


def series(p: dict[str, gj.Tensor], x: gj.Tensor) -> gj.Tensor:
    z = x[:, None] * p["k"]
    return ((gj.sin(z) * p["a"]).sum(1) ** 2).sum()


def penalized(p: dict[str, gj.Tensor], x: gj.Tensor) -> tuple[gj.Tensor, gj.Tensor, dict[str, gj.Tensor]]:
    """Something is computed from the parameters before they turn out to be some."""
    tanhs, view = gj.tanh(p["a"]) * p["k"], p["a"].detach()[None]
    value, slopes = gj.value_and_grad(series)(p, x)
    return (view * tanhs).sum(1) + value, slopes["a"] + tanhs, slopes


@pytest.mark.parametrize("function", [
    gj.value_and_grad(series), penalized, gj.grad(lambda p, x: penalized(p, x)[1].sum())],
    ids=["alone", "used before", "twice"])
def test_lengths_of_parameters_in_containers_are_known(function: Callable[..., Any]) -> None:
    p, x = {"a": floats(20), "k": floats(20, seed=1)}, floats(50, seed=2)
    step = gj.compile(function)
    wanted = function({name: gj.tensor(value) for name, value in p.items()}, x)
    for got, want in zip(flatten(step(p, x))[0], flatten(wanted)[0], strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=2e-4, atol=2e-4)
    assert any(re.search(r"(range|lanes)\(20\)", text) for text in sources(step.latest.program))
    before = compile_count()
    step(p, floats(31))
    assert compile_count() == before


def test_lengths_of_arguments_of_which_derivatives_are_asked_are_the_callers() -> None:
    slope = gj.compile(gj.grad(lambda x, t: (gj.sin(x) * t).sum()))
    slope(floats(50), floats(50))
    before = compile_count()
    np.testing.assert_allclose(slope(floats(20), np.ones(20, np.float32)), np.cos(floats(20)), rtol=1e-5)
    assert compile_count() == before


@pytest.mark.parametrize("nested", [False, True])
def test_arguments_in_containers_that_require_gradients_are_parameters(nested: bool) -> None:
    def gradient(p: Any, x: gj.Tensor) -> gj.Tensor:
        k = p["k"] if nested else p
        (gj.sin(x[:, None] * k).sum(1) ** 2).sum().backward()
        return k.grad
    k, x = gj.tensor(floats(20), requires_grad=True), floats(50)
    step = gj.compile(gradient)
    step({"k": k} if nested else k, x)
    assert any("range(20)" in text or "lanes(20)" in text for text in sources(step.latest.program)) == nested


def test_short_axes_behind_the_first_are_known_and_others_the_callers_choice() -> None:
    step = gj.compile(lambda x: gj.softmax(x * 2, 1))

    def loops(*shape: int) -> list[str]:
        step(floats(*shape))
        return sources(step.latest.program)
    for width in (2, 6, 16):
        assert all(re.search(rf"(range|lanes)\({width}\)", text) for text in loops(40, width))
        assert loops(9, width) == loops(40, width)
    for widths in ((17, 20, 63), (64, 65, 300)):  # rows that are short, and others: they have loops of their own
        first, *others = widths
        wanted = loops(40, first)
        before = compile_count()
        for width in others:
            assert loops(11, width) == wanted
        assert compile_count() == before


def test_a_length_of_the_model_is_known_beside_one_of_the_callers() -> None:
    w = gj.tensor(floats(3))
    step = gj.compile(lambda x, v: ((x @ gj.ones((5, 3)) + v) * gj.tanh(v) + w).sum(1))
    step(floats(20, 5), floats(3))
    assert any("range(3)" in text for text in sources(step.latest.program))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 37])
def test_last_vectors_of_rows_begin_before_the_end(rows: int, dtype: Any) -> None:
    """Rows that do not fill vectors: what is left over is a whole vector, too, some of whose numbers are known."""
    for width in (*range(1, 36), 47, 63, 100, 127):
        x, bias = floats(rows, width, dtype=dtype), floats(width, seed=1, dtype=dtype)
        for step, args in ((lambda x, bias=bias: gj.tanh(x + gj.tensor(bias)), (x,)),
                           (lambda x, b: gj.exp(x) * b, (x, bias)),
                           (lambda b, x: gj.log(gj.exp(b)[:, None] + x.T ** 2), (bias, x))):
            got, want = gj.compile(step)(*args), step(*map(gj.tensor, args))
            rtol, atol = (2e-6, 1e-6) if dtype is np.float32 else (1e-14, 1e-14)
            np.testing.assert_allclose(got.data, want.data, rtol=rtol, atol=atol)


def test_last_vectors_are_those_of_loops_that_read_nothing_they_store() -> None:
    bias, x, y = gj.tensor(floats(30)), floats(50, 30), gj.tensor(floats(50, 30))

    def into(x: gj.Tensor) -> None:
        y.assign(gj.tanh(y + bias) * x)
    step = gj.compile(lambda x: gj.tanh(x + bias))
    step(x)
    last = f"lanes({30 - target().lanes(4)}, 30)"
    assert any(last in text for text in sources(step.latest.program))
    wanted = np.tanh(y.numpy() + bias.numpy()) * x
    step = gj.compile(into)
    step(x)
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert not any(last in text for text in sources(step.latest.program))
