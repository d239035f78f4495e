"""Values and lengths at the edges: compiled gives what eager gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import Array, compiled, floats, kernels

import graphjit as gj
from graphjit.tree import flatten

INF, NAN = np.inf, np.nan
X = np.round(floats(5, 5) * 4)


def arrays(result: Any) -> list[Array]:
    return [np.array(gj.tensor(t).data) for t in flatten(result)[0]]


def assert_equal(function: Callable[..., Any], *args: Any) -> None:
    """Eager and compiled results are the same, bit for bit."""
    eager = arrays(function(*(gj.tensor(a) if isinstance(a, np.ndarray) else a for a in args)))
    found = arrays(compiled(function, *args)(*args))
    for i, (a, b) in enumerate(zip(found, eager, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape, f"result {i}: {a.dtype}{a.shape}, not {b.dtype}{b.shape}"
        np.testing.assert_array_equal(a, b, err_msg=f"result {i}")
        if a.dtype.kind == "f":
            kept = ~np.isnan(a)
            np.testing.assert_array_equal(np.signbit(a[kept]), np.signbit(b[kept]), err_msg=f"signs of result {i}")


# ---- values

def test_nan_and_infinity() -> None:
    x = np.array([[NAN, 1, -INF], [INF, -2, 0.5], [2.5, -2.5, 3]], np.float32)

    def f(x: gj.Tensor) -> Any:
        return x.max(0), x.max(1), x.min(), gj.maximum(x, x.T), gj.minimum(x.T, 0.5), x == x, gj.isnan(x), \
            gj.where(x > 0, x, -1), gj.clip(x, -1, 1), gj.argmax(x, 0), gj.argmin(x), gj.relu(x), gj.sign(x), x < 0
    assert_equal(f, x)


def test_the_branch_not_taken_poisons_nothing() -> None:
    def loss(x: gj.Tensor) -> gj.Tensor:
        return gj.where(x > 0, gj.sqrt(gj.where(x > 0, x, 1)), 0).sum()
    assert_equal(lambda x: gj.value_and_grad(loss)(x), np.array([-1.0, 0.0, 4.0, NAN]))


def test_signs_of_zero() -> None:
    def f(x: gj.Tensor) -> Any:
        return x - 0.0, x - (-0.0), x * 1, x / 1, x + 0.0, -gj.negative(x), gj.pad(x, 1, -0.0), gj.pad(x, 1, 0.0), \
            x ** 0.5, x ** 2
    assert_equal(f, np.array([0.0, -0.0, 1.0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [-3, -2, 3, 4, 5, 6])
def test_small_powers_are_products(n: int, dtype: Any) -> None:
    big, small = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    edges = [0.0, -0.0, INF, -INF, NAN, big, -big, small, -small, 1.0, -1.0]
    usual = np.append(np.logspace(-30, 30, 4001), floats(4001))
    x = np.append(edges, usual).astype(dtype)
    f = compiled(lambda x: x ** n, x)
    assert "pow" not in f.source()
    with np.errstate(all="ignore"):
        wanted = x ** dtype(n)
    found = np.array(f(x).data)
    np.testing.assert_array_max_ulp(found, wanted, 3)
    np.testing.assert_array_equal(np.signbit(found)[:2], np.signbit(wanted)[:2])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integers_wrap_around(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([[info.min, info.max, 0], [1, 2, info.max - 1], [info.min + 1, 3, 100]], dtype)

    def f(x: gj.Tensor) -> Any:
        return x + x, x * x, x - 1, -x, x.sum(0), x.max(1), x.min(), gj.prod(x, 1), x // 3, x % 3, x << 1, x >> 1, \
            ~x, x ** 3, gj.cumsum(x, 0), x @ x, gj.abs(x), x.astype(np.uint8), x.astype(np.float32), x == x.T
    assert_equal(f, x)


def test_bools_and_bytes() -> None:
    def f(x: gj.Tensor) -> Any:
        return x & x.T, x | True, x ^ x.T, ~x, x.sum(0), x.any(0), x.all(1), x.max(0), x + x.T, x * x.T, \
            x.astype(np.int32) + 1, gj.where(x, x, False), x.mean(), x.astype(np.uint8) * 200, gj.pad(x, 1, True)
    assert_equal(f, X > 0)


def test_every_dtype_reaches_every_other() -> None:
    for dtype in ("bool", "int8", "uint16", "int64", "float32", "float64"):
        assert_equal(lambda x: tuple(x.astype(to) for to in ("bool", "int8", "uint8", "int32", "float32", "float64")),
                     np.arange(6).reshape(2, 3).astype(dtype))


# ---- lengths

@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1,), (1, 1), (2, 0, 2)])
def test_lengths_of_zero_and_one(shape: tuple[int, ...]) -> None:
    def f(x: gj.Tensor) -> Any:
        out: list[Any] = [x + x, x.T, x.sum(0), x.sum(), x.prod(-1), gj.concat([x, x]), x[1:], gj.cumsum(x, 0), x @ x.mT
                          if x.ndim > 1 else x @ x, x.reshape(-1), gj.pad(x, 1), gj.any(x > 0, 0), gj.exp(x * 0).sum(0)]
        return out + ([x.max(0), gj.argmax(x, 0), gj.softmax(x, 0)] if x.shape[0] else [])
    assert_equal(f, np.ones(shape, np.float32))


def test_empty_parts() -> None:
    def f(x: gj.Tensor) -> Any:
        return gj.concat([x, x[:0]]), gj.concat([x[:0], x[5:]]), x[:0].sum(0), x[:, :0].sum(1), x[:, :0] @ x[:0], \
            x[:0] @ x
    assert_equal(f, X)


def test_folds_along_axes_of_length_one() -> None:
    def f(x: gj.Tensor) -> Any:
        return x[:1].sum(0), x[:1].max(0, keepdims=True) + x, x[:, :1].sum(1), x[:1, :1].sum(), \
            x.reshape(5, 1, 5).sum(1), x.reshape(1, 5, 1, 5).sum((0, 2)), x.reshape(1, 25).min(0)
    assert_equal(f, X)


def test_scalars() -> None:
    assert_equal(lambda x, y: (x + 1, x * y, x.reshape(1, 1) + y, gj.stack([x, x]), y.sum() * x, y[0, 0], x.sum()),
                 np.float32(3), X)


def test_an_argument_of_length_one_stretches() -> None:
    """Its axis is like any other, until another operand is longer."""
    w = gj.tensor(X[0])
    assert_equal(lambda x, y: (x + w, x * y, (x * y).sum(0), gj.maximum(y.T, x)), X[:1, :1], X)
    assert_equal(lambda x, y: gj.grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(x, y), X[:1], X)


def test_views_of_views() -> None:
    def f(x: gj.Tensor) -> Any:
        return x.T[1:, ::-1].reshape(-1)[3:].reshape(-1, 1)[::2].T, x[::-1].T[::2].flatten(), \
            x.reshape(5, 5, 1).permute_dims(2, 1, 0)[0, 1:], gj.broadcast_to(x[0], (3, 5, 5)).sum(0), \
            gj.broadcast_to(x[:, None], (5, 4, 5)).reshape(20, 5) + 1, \
            gj.tile(x, (2, 2)).T @ gj.flip(gj.tile(x, (2, 2)))
    assert_equal(f, X)


def test_arrays_that_are_not_contiguous() -> None:
    stretched = np.broadcast_to(X[0, :1], (5,))
    assert_equal(lambda x, y, z: (x + y, x @ y, x.sum(0), z * x[0]), X.T, X[::-1, ::-1], stretched)


# ---- results

def test_results_have_memory_of_their_own() -> None:
    big = floats(200, 200)
    state, captured = gj.tensor(big), big * 2

    def f(x: gj.Tensor) -> Any:
        y = x + 1
        return y, y * 1, y.T, y.reshape(-1), y[::2], x, x.T, state, state.T, gj.tensor(captured), gj.ones(3)
    found = compiled(f, big)
    assert_equal(f, big)
    held = [t.data for t in found(big)] + [t.data for t in found(big)] + [big, state.data, captured]
    for i, a in enumerate(held):
        assert not any(np.shares_memory(a, b) for b in held[:i]), f"result {i} shares memory"


def test_results_of_a_call_outlive_the_next() -> None:
    for n in (3, 300):
        f = compiled(lambda x: (x * 2, x.sum(0)), floats(n, n))
        first = f(floats(n, n, seed=1))
        before = arrays(first)
        f(floats(n, n, seed=2))
        for a, b in zip(arrays(first), before, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- state that is overwritten while it is read

STEPS = [
    "s.assign(s + s.T)", "s.assign(s[::-1])", "s.assign(s - s.mean(0))", "s.assign(s - s.max(1, keepdims=True))",
    "s.assign(s @ s)", "s.assign(gj.cumsum(s, 0))", "s.assign(gj.take(s, [1, 0, 2], 0))",
    "t = s * x; s.assign(t + t.T)", "t = s * x; s.assign(t.sum(0) + t)", "s.assign(s * 0.5 + x); s.assign(s.T)",
    "s[1:] = s[:-1]", "s[:, 0] = s[0]",
    "s.assign(v * s); v.assign(s.sum(1))", "u = s * 1; s.assign(r); r.assign(u)", "s.assign(r.T); r.assign(s.T)",
    "s.assign(r); r.assign(s)", "v.assign(v[::-1] + s[0]); s.assign(s + v)", "s.assign(gj.softmax(s, 0) @ s)",
    "s.assign(gj.concat([s[1:], s[:1]]))", "r.assign(s.T * 2); s.assign(r.T + s)", "s.assign(s); v.assign(v * 1)",
]


@pytest.mark.parametrize("body", STEPS)
def test_state_is_read_before_it_is_overwritten(body: str) -> None:
    results = []
    for change in (gj.compile, lambda f: f):
        names: dict[str, Any] = {"gj": gj}
        states = {"s": gj.tensor(floats(3, 3)), "r": gj.tensor(floats(3, 3, seed=1)), "v": gj.tensor(floats(3, seed=2))}
        text = f"def step(x):\n    x = x + 1\n    old = s * 1\n    {body}\n    return old, s.T, r * 2, v\n"
        exec(text, names | states, names)
        step = change(names["step"])
        results.append([a for n in range(3) for a in arrays(step(floats(3, 3, seed=n + 5)))]
                       + [t.data for t in states.values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_state_that_is_read_where_it_is_written_is_updated_in_place() -> None:
    s, v = gj.tensor(floats(3, 3)), gj.tensor(floats(3))

    def step(x: gj.Tensor) -> None:
        s.assign(s * 0.9 + x)
        v.assign(v + x.sum(0))
    assert kernels(step, floats(3, 3)) == ["mul add", "sum add"]


# ---- arithmetic that does not depend on where it is done

def test_a_value_has_the_same_bits_wherever_it_is_computed_again() -> None:
    """Were a * b + c contracted here and not there, x == max(x) would hold nowhere, and gradients be lost."""
    a, b, c = (floats(40, 50, seed=i) for i in range(3))

    def along(axis: int | None) -> Callable[..., Any]:
        def loss(a: gj.Tensor, b: gj.Tensor, c: gj.Tensor) -> gj.Tensor:
            return ((a * b + c).max(axis, keepdims=True) * (a * b)).sum()
        return lambda *args: gj.grad(loss, argnums=2)(*args)
    for axis in (None, 0, 1):
        eager, found = along(axis)(a, b, c), compiled(along(axis), a, b, c)(a, b, c)
        assert np.count_nonzero(found.data) == np.count_nonzero(eager.data)
        np.testing.assert_allclose(found.data, eager.data, rtol=1e-4, atol=1e-3)
    assert_equal(lambda a, b, c: (a * b + c, a * b - c * a, gj.floor(a * b + c), a / b + c, gj.square(a) + b), a, b, c)


N = 10_000_000


@pytest.mark.parametrize("function, count", [
    (lambda x: x.sum(), N),
    (lambda x: x.reshape(2000, 5000).sum(1), 5000),
    (lambda x: x.reshape(5000, 2000).sum(0), 5000),
    (lambda x: x.reshape(N // 10, 10).sum(0), N // 10),
    (lambda x: x.reshape(100, 1000, 100).sum((0, 2)), 10_000),
    (lambda x: x.reshape(-1, 5000)[:, :4000:2].sum(1), 2000),
    (lambda x: gj.where(x > 0, x, 0).sum(), N),
    (lambda x: x.mean() * N, N),
], ids=["all", "rows", "columns", "narrow", "outer and inner", "strided", "masked", "mean"])
def test_sums_of_many_float32_are_as_good_as_pairwise(function: Callable[..., Any], count: int) -> None:
    x = np.full(N, 0.1, np.float32)
    found = compiled(function, x)(x).data.astype(np.float64) / count
    eps = float(np.finfo(np.float32).eps)
    assert np.abs(found / np.float64(x[0]) - 1).max() <= np.log2(count) * eps / 2


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_integers_divided_by_known_numbers(dtype: str) -> None:
    """Which stand in the source, and are divided by in another way."""
    info = np.iinfo(dtype)
    edges = [info.min, info.min + 1, info.max - 1, info.max, 0, 1, 2, 3, 7, 41, 100]
    x = np.array(edges + [-n for n in edges[5:] if info.min < 0], dtype)
    known = [1, 2, 3, 7, 8, 100, 0, int(info.max), *([-1, -3, -8, int(info.min)] if info.min < 0 else [])]

    def f(x: gj.Tensor) -> Any:
        return [(x // gj.tensor(n, dtype=dtype), x % gj.tensor(n, dtype=dtype), x % n, x // n) for n in known]
    with np.errstate(all="ignore"):
        assert_equal(f, x)
