"""Small matrices: kernels of their own give what LAPACK gives, and refuse what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import floats, program_of

import graphjit as gj
from graphjit.codegen.call import HostCall
from graphjit.codegen.small_matrices import SMALL
from graphjit.errors import NumericalError
from graphjit.tree import flatten

Function = Callable[..., Any]
la = gj.linalg
ONE: dict[str, Function] = {
    "inv": la.inv, "det": la.det, "slogdet": lambda x: tuple(la.slogdet(x)),
    "cholesky": lambda x: la.cholesky(x @ x.mT + gj.eye(x.shape[-1], dtype=x.dtype)),
    "upper cholesky": lambda x: la.cholesky(x @ x.mT + gj.eye(x.shape[-1], dtype=x.dtype), upper=True),
    "inverse of the transpose": lambda x: la.inv(x.mT), "of a part": lambda x: la.inv(x[..., ::2, ::2])}
TWO: dict[str, Function] = {
    "solve": la.solve, "transposed": lambda a, b: la.solve(a.mT, b),
    "lower": lambda a, b: la.solve_triangular(a, b, upper=False),
    "upper": lambda a, b: la.solve_triangular(a.mT, b[..., ::-1], upper=True)}


def matrices(*shape: int, dtype: Any, seed: int = 0) -> Any:
    """Well-conditioned ones whose largest numbers are not on the diagonal."""
    return floats(*shape, dtype=dtype, seed=seed) + 4 * np.roll(np.eye(shape[-1], dtype=dtype), 1, 0) \
        + 2 * np.eye(shape[-1], dtype=dtype)


def hosts(function: Function, *args: Any) -> int:
    return sum(isinstance(step, HostCall) for step in program_of(function, *args).steps)


def agree(function: Function, *args: Any) -> None:
    tolerance = 3e-4 if args[0].dtype == np.float32 else 1e-11
    found, wanted = gj.compile(function)(*args), function(*map(gj.tensor, args))
    for got, want in zip(flatten(found)[0], flatten(wanted)[0], strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        scale = float(np.abs(want.data).max(initial=1))
        np.testing.assert_allclose(got.data, want.data, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 32])
@pytest.mark.parametrize("name", ONE)
def test_of_one_operand(name: str, n: int, dtype: Any) -> None:
    for batch in ((), (3,), (2, 1, 3)):
        x = matrices(*batch, n, n, dtype=dtype)
        agree(ONE[name], x)
        assert not hosts(ONE[name], x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("name", TWO)
def test_of_two_operands(name: str, n: int, dtype: Any) -> None:
    for of_a, of_b, k in (((), (), 2), ((3,), (3,), 1), ((), (4,), 3), ((2, 1), (5,), 2), ((3,), (), 20)):
        a, b = matrices(*of_a, n, n, dtype=dtype), floats(*of_b, n, k, dtype=dtype, seed=1)
        agree(TWO[name], a, b)
        assert not hosts(TWO[name], a, b)


@pytest.mark.parametrize("name", ["inv", "det", "slogdet", "cholesky"])
def test_gradients(name: str) -> None:
    def total(x: gj.Tensor) -> gj.Tensor:
        return sum((t * t).sum() for t in flatten(ONE[name](x))[0])
    agree(gj.grad(total), matrices(3, 4, 4, dtype=np.float64))


def test_gradients_of_solutions() -> None:
    a, b = matrices(3, 4, 4, dtype=np.float64), floats(3, 4, 2, dtype=np.float64)
    for f in (TWO["solve"], TWO["lower"], TWO["upper"]):
        step = gj.grad(lambda a, b, f=f: (f(a, b) ** 3).sum(), argnums=(0, 1))
        agree(step, a, b)
        assert not hosts(step, a, b)


def test_a_vector_is_one_right_side() -> None:
    for of_a in ((), (3,)):
        agree(la.solve, matrices(*of_a, 4, 4, dtype=np.float64), floats(4, dtype=np.float64))


def test_threads_share_many_and_change_no_bits() -> None:
    x, found, before = matrices(20_000, 3, 3, dtype=np.float64), [], gj.get_num_threads()
    try:
        for threads in (1, 2):
            gj.set_num_threads(threads)
            found.append(gj.compile(lambda x: (la.inv(x), la.det(x)))(x))
    finally:
        gj.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one.data, two.data)


def test_large_ones_are_left_to_lapack() -> None:
    x = matrices(SMALL + 1, SMALL + 1, dtype=np.float64)
    agree(la.inv, x)
    assert hosts(la.inv, x) == 1


def test_what_has_no_matrices_or_no_rows() -> None:
    for shape in ((0, 3, 3), (2, 0, 0)):
        agree(lambda x: (la.inv(x), la.det(x)), np.zeros(shape))


REFUSED: dict[str, tuple[Function, Any]] = {
    "inv": (la.inv, np.array([[1.0, 2.0], [2.0, 4.0]])), "zero": (la.inv, np.zeros((3, 3))),
    "solve": (lambda x: la.solve(x, x), np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])),
    "triangle": (lambda x: la.solve_triangular(x, x, upper=True), np.array([[1.0, 2.0], [0.0, 0.0]])),
    "cholesky": (la.cholesky, np.array([[1.0, 2.0], [2.0, 1.0]])),
    "one of many": (la.inv, np.stack([np.eye(2), np.zeros((2, 2)), np.eye(2)]))}


@pytest.mark.parametrize("name", REFUSED)
def test_singular_ones_are_refused_and_state_stays(name: str) -> None:
    function, x = REFUSED[name]
    count = gj.tensor(1.0)

    @gj.compile
    def step(x: gj.Tensor) -> gj.Tensor:
        count.assign(count + 1)
        return function(x)
    good = np.broadcast_to(np.eye(x.shape[-1]), x.shape).copy()
    np.testing.assert_allclose(step(good), good)
    with pytest.raises(NumericalError, match=r"singular|positive definite") as caught:
        step(x)
    assert "test_small_matrices.py" in str(caught.value)
    assert count.item() == 2
    np.testing.assert_allclose(step(good), good)


def test_determinants_of_singular_ones_are_zero() -> None:
    x = np.array([[[1.0, 2.0], [2.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    sign, logarithm = gj.compile(lambda x: tuple(la.slogdet(x)))(x)
    np.testing.assert_array_equal(sign.data, [0, -1, 0])
    np.testing.assert_array_equal(logarithm.data, [-np.inf, 0, -np.inf])
    np.testing.assert_array_equal(gj.compile(la.det)(x).data, [0, -1, 0])


def test_nan_is_no_error() -> None:
    x = np.full((2, 3, 3), np.nan)
    for f in (la.inv, la.det, la.cholesky):
        with np.errstate(all="ignore"):
            wanted = np.isnan(f(gj.tensor(x)).data)
        np.testing.assert_array_equal(np.isnan(gj.compile(f)(x).data), wanted)
        assert wanted.any()
