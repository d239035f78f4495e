"""Where two good answers exist: the one graphjit gives (NumPy's conventions, PyTorch's subgradients)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import graphjit as gj
from graphjit.ir import Apply
from graphjit.tensor import Tensor
from graphjit.trace import Trace, tracing
from graphjit.types import Extent, TensorType

INF, NAN = np.inf, np.nan


def slope(function: Callable[..., Any], *values: Any) -> list[list[Any]]:
    """Gradients of the sum of a function's result."""
    xs = [gj.tensor(np.asarray(v, float), requires_grad=True) for v in values]
    function(*xs).sum().backward()
    return [(x * 0 if x.grad is None else x.grad).tolist() for x in xs]


@pytest.mark.parametrize(("function", "at", "gradient"), [
    (gj.relu, [-1, 0, 1], [0, 0, 1]),
    (gj.abs, [-1, 0, 1], [-1, 0, 1]),
    (gj.sign, [-1, 0, 1], [0, 0, 0]),
    (gj.floor, [0.5, 1], [0, 0]),
    (lambda x: gj.clip(x, -1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
    (lambda x: gj.max(x), [1, 3, 3, 3, 3], [0, 0.25, 0.25, 0.25, 0.25]),
    (lambda x: gj.min(x), [1, 3, 1], [0.5, 0, 0.5]),
    (lambda x: gj.max(x), [1, NAN], [0, 0]),
    (gj.prod, [2, 0, 3], [0, 6, 0]),
    (gj.prod, [2, 0, 0], [0, 0, 0]),
    (lambda x: gj.cumprod(x, 0), [2, 0, 3], [1, 8, 0]),
    (gj.std, [2, 2, 2], [0, 0, 0]),
    (gj.var, [2, 2, 2], [0, 0, 0]),
    (gj.logsumexp, [-INF, -INF], [0, 0]),
    (gj.logsumexp, [0, -INF], [1, 0]),
    (lambda x: x ** 0, [0, 1], [0, 0]),
    (lambda x: x ** 1, [0, 2], [1, 1]),
    (lambda x: x ** 2, [0, 3], [0, 6]),
    (lambda x: 0 ** x, [2.0, 1.0], [0, 0]),
    (lambda x: gj.where(x > 0, gj.log(gj.where(x > 0, x, 1)), 0), [0, 2], [0, 0.5]),
    (lambda x: x.astype("float32"), [1.5], [1]),
    (lambda x: gj.tril(x), [[1, 2], [3, 4]], [[1, 0], [1, 1]]),
    (lambda x: gj.copysign(x, -1.0), [-2, 0, 2], [1, 0, -1]),
    (lambda x: gj.hypot(x, 0.0), [-2, 0, 3], [-1, 0, 1]),
    (lambda x: gj.logaddexp(x, -INF), [-INF, 0, 1], [1, 1, 1]),
    (gj.median, [3, 1, 2], [0, 0, 1]),
    (gj.median, [4, 1, 3, 2], [0, 0, 0.5, 0.5]),
])
def test_gradient_at_the_edge(function: Any, at: Any, gradient: Any) -> None:
    assert slope(function, at) == [gradient]


def test_ties_of_two_share_the_gradient() -> None:
    for function in (gj.maximum, gj.minimum):
        assert slope(function, [1, 2, 2], [1, 3, 1])[0][0] == 0.5
        assert slope(function, [1.0], [1.0]) == [[0.5], [0.5]]


def test_where_both_are_equal_hypot_is_smooth() -> None:
    found = gj.hessian(lambda x: gj.hypot(x[0], x[1]))(np.array([2.0, 2.0])).numpy()
    np.testing.assert_allclose(found, np.array([[1, -1], [-1, 1]]) / np.sqrt(32), rtol=1e-14)


def test_where_both_are_equal_logaddexp_is_smooth() -> None:
    found = gj.hessian(lambda x: gj.logaddexp(x[0], x[1]))(np.array([0.5, 0.5])).numpy()
    np.testing.assert_allclose(found, [[0.25, -0.25], [-0.25, 0.25]], rtol=1e-14)
    np.testing.assert_allclose(slope(gj.logaddexp, [0.5], [0.5]), [[0.5], [0.5]], rtol=1e-14)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 4e-6), ("float64", 1e-14)])
def test_lgamma_has_derivatives_of_any_order(dtype: str, rtol: float) -> None:
    below, above = np.array([-6.3, -2.5, -0.7], dtype), np.geomspace(1e-3, 1e3, 50).astype(dtype)
    first = gj.grad(lambda x: gj.lgamma(x).sum())
    second = gj.grad(lambda x: first(x).sum())
    third = gj.grad(lambda x: second(x).sum())
    for x in (below, above):
        np.testing.assert_allclose(first(x).numpy(), scipy.special.psi(x), rtol=rtol)
        np.testing.assert_allclose(second(x).numpy(), scipy.special.polygamma(1, x), rtol=rtol)
    np.testing.assert_allclose(third(above).numpy(), scipy.special.polygamma(2, above), rtol=rtol)


def test_prod_with_zeros_differentiates_twice() -> None:
    x = gj.tensor(np.array([2.0, 0.0, 3.0, 0.0]), requires_grad=True)
    gj.prod(x).backward(create_graph=True)
    part = x.grad[1]
    x.zero_grad()
    part.backward()  # the derivative of x0 * x2 * x3
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 6.0]


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), (0, 1), (1, 2), None])
def test_sums_of_many_float32_are_accurate(axis: Any) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (1000, 7, 300)).astype(np.float32)
    for array in (x, x.T, x[::2, :, ::3]):
        exact = array.sum(axis=axis, dtype=np.float64)
        assert np.abs(gj.sum(array, axis).numpy() / exact - 1).max() < 20 * np.finfo(np.float32).eps
        assert np.abs(gj.mean(array, axis).numpy() / array.mean(axis=axis, dtype=np.float64) - 1).max() < 3e-6


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "bool"])
def test_the_mean_of_integers_is_float64(dtype: str) -> None:
    x = np.array([1, 0, 1], dtype)
    for function in (gj.mean, gj.var, gj.std, gj.logsumexp, gj.softmax):
        assert function(x).dtype == np.float64


def test_small_integers_are_summed_in_64_bits() -> None:
    assert gj.sum(np.full(10, 100, np.int8)).item() == 1000
    assert gj.sum(np.full(10, 100, np.uint8)).dtype == np.uint64
    assert gj.prod(np.full(10, 10, np.int32)).item() == 10 ** 10
    assert gj.sum(np.array([True, True])).dtype == np.int64


def test_views_are_not_changed_with_their_base() -> None:
    x = gj.tensor([1.0, 2.0, 3.0, 4.0])
    views = [x.reshape(2, 2), x.flip(), x.broadcast_to(2, 4), x.T]
    before = [v.numpy().copy() for v in views]
    x.assign(0.0)
    for view, kept in zip(views, before, strict=True):
        np.testing.assert_array_equal(view.numpy(), kept)


def test_functions_take_numbers_and_arrays() -> None:
    assert gj.sum(3.0).item() == 3.0
    assert gj.reshape(2.5, (1, 1)).dtype == np.float32
    assert gj.stack([1.0, 2.0]).dtype == np.float32
    assert gj.concat([np.ones(2), [1, 2]]).dtype == np.float64
    assert gj.broadcast_to(7, (2,)).tolist() == [7, 7]


# ---- the caller's lengths: the same program for a batch of one and of many

def program(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[list[str], list[list[bool]]]:
    """The ops recorded, and for each axis of each result whether its length is the caller's."""
    trace = Trace()
    with tracing(trace):
        args = [Tensor._of(trace.argument(TensorType(s, np.dtype(np.float32)), "x")) for s in shapes]
        for arg, shape in zip(args, shapes, strict=True):  # only the first axis is a batch
            node: Any = arg._value.data
            object.__setattr__(node, "type", TensorType((Extent(shape[0]), *shape[1:]), node.type.dtype))
        out = trace.read(function(*args)).data
    nodes = trace.graph([out]).nodes
    return ([n.op.name for n in nodes if isinstance(n, Apply)],
            [[isinstance(m, Extent) for m in n.type.shape] for n in nodes])


@pytest.mark.parametrize("function", [
    lambda x: x.reshape(-1, 6),
    lambda x: x.reshape(x.shape[0], -1).sum(1),
    lambda x: x.flatten(1).T,
    lambda x: x.reshape(-1),
    lambda x: gj.reshape(x, (x.shape[0] * 2, 3)),
    lambda x: x.transpose(1, 0, 2).mT.reshape(2, -1),
    lambda x: gj.expand_dims(x, 0) + gj.expand_dims(x, 1),
    lambda x: x.mean(0) + x,
    lambda x: x - x.mean(0, keepdims=True),
    lambda x: gj.softmax(x) * gj.max(x, (1, 2), keepdims=True),
    lambda x: gj.concat([x, x * 2]).sum(),
    lambda x: gj.stack([x, x], 1),
    lambda x: gj.roll(x, 1, 0),
    lambda x: gj.tile(x, (2, 1, 1)),
    lambda x: gj.repeat(x, 2, 0),
    lambda x: gj.pad(x, 1),
    lambda x: gj.broadcast_to(x[:, 0], (4, x.shape[0], 3)),
    lambda x: gj.ones(x.shape) + gj.arange(x.shape[0]).reshape(-1, 1, 1),
    lambda x: gj.cumsum(x, 0) + gj.flip(x, 0),
    lambda x: gj.split(x, 3, 2)[1] * gj.zeros_like(x),
    lambda x: gj.squeeze(x[:, :1, :1], (1, 2)),
    lambda x: gj.var(x, 0) + gj.std(x.reshape(-1)),
    lambda x: gj.diff(x, axis=0, append=x[:1]),
    lambda x: gj.quantile(x, 0.3, axis=1, keepdims=True) * gj.median(x),
], ids=range(24))
def test_the_program_does_not_depend_on_the_batch(function: Any) -> None:
    assert program(function, (1, 2, 3)) == program(function, (32, 2, 3)) == program(function, (2, 2, 3))
