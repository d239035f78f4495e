"""Data that an op has no meaning for: the same error eagerly and compiled, and everything works on afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.errors import BoundsError, DataDependentError, GraphjitError, NumericalError

GOOD, BAD = np.array([0, 3, -4]), np.array([0, 4, 1])
X = np.arange(12.0).reshape(4, 3)

CASES: tuple[tuple[str, Callable[..., Any], tuple[Any, ...], tuple[Any, ...], type[Exception]], ...] = (
    ("x[i]", lambda x, i: x[i], (X, GOOD), (X, BAD), BoundsError),
    ("x[i, j]", lambda x, i, j: x[i, j], (X, GOOD, GOOD // 2), (X, GOOD, BAD), BoundsError),
    ("below", lambda x, i: x[i], (X, GOOD), (X, GOOD - 1), BoundsError),
    ("unsigned", lambda x, i: x[i], (X, np.array([3], "uint64")), (X, np.array([2**64 - 1], "uint64")), BoundsError),
    ("take", lambda x, i: gj.take(x, i, 0), (X, GOOD), (X, BAD), BoundsError),
    ("along axis", lambda x, i: gj.take_along_axis(x, i[:, None], 0), (X, GOOD), (X, BAD), BoundsError),
    ("scatter_add", lambda x, i: gj.scatter_add(x, i, x[:3]), (X, GOOD), (X, BAD), BoundsError),
    ("x[i] = 0", lambda x, i: x._with_item(i, 0), (X, GOOD), (X, BAD), BoundsError),
    ("inv", gj.linalg.inv, (np.eye(2),), (np.ones((2, 2)),), NumericalError),
    ("solve", gj.linalg.solve, (np.eye(2), np.ones(2)), (np.zeros((2, 2)), np.ones(2)), NumericalError),
    ("cholesky", gj.linalg.cholesky, (np.eye(2),), (-np.eye(2),), NumericalError),
    ("solve_triangular", lambda a, b: gj.linalg.solve_triangular(a, b, upper=True), (np.eye(2), np.ones(2)),
     (np.diag([1.0, 0.0]), np.ones(2)), NumericalError),
)


@pytest.mark.parametrize("id, function, good, bad, error", CASES, ids=[c[0] for c in CASES])
def test_raises_in_both_modes_and_works_on(id: str, function: Any, good: Any, bad: Any, error: Any) -> None:
    compiled = gj.compile(lambda *xs: function(*xs))
    for call in (lambda *xs: function(*map(gj.tensor, xs)), compiled):
        before = call(*good).numpy().copy()
        with pytest.raises(error) as caught:
            call(*bad)
        assert isinstance(caught.value, GraphjitError)
        assert len(str(caught.value).splitlines()) <= 15
        np.testing.assert_array_equal(call(*good).numpy(), before)


def test_bad_data_leaves_state_as_it_was() -> None:
    count = gj.tensor(np.zeros(3))

    @gj.compile
    def step(x: Any, i: Any) -> Any:
        count.assign(count + 1)
        return x[i]

    step(X, GOOD)
    with pytest.raises(BoundsError):
        step(X, BAD)
    assert count.tolist() == [1, 1, 1]


def test_masks_depend_on_data() -> None:
    mask = X > 4

    @gj.compile
    def read(x: Any, m: Any) -> Any:
        return x[m]

    with pytest.raises(DataDependentError, match="depends on data") as caught:
        read(X, mask)
    assert "gj.where" in str(caught.value)
    np.testing.assert_array_equal(gj.tensor(X)[mask].numpy(), X[mask])

    @gj.compile
    def write(x: Any, m: Any, v: Any) -> Any:
        return x._with_item(m, v)

    np.testing.assert_array_equal(write(X, mask, 0.0).numpy(), np.where(mask, 0, X))
    with pytest.raises(DataDependentError):
        write(X, mask, np.ones(int(mask.sum())))
    t = gj.tensor(X)
    t[mask] = np.ones(int(mask.sum()))
    np.testing.assert_array_equal(t.numpy(), np.where(mask, 1, X))


def test_assignment_follows_numpy() -> None:
    for index, value in ((0, 5.0), ((slice(None), 1), np.arange(4)), (GOOD, -1.0), ((GOOD, 0), np.arange(3.0)),
                         (slice(None, None, -2), np.zeros((2, 1))), (X > 3, 2.5)):  # fmt: skip
        wanted, t = X.copy(), gj.tensor(X)
        wanted[index] = value
        t[index] = value
        np.testing.assert_array_equal(t.numpy(), wanted)


def test_assignment_in_a_compiled_function() -> None:
    buffer = gj.tensor(np.zeros((4, 3)))

    @gj.compile
    def remember(row: Any, at: Any) -> None:
        buffer[at] = row

    remember(np.ones(3), np.array(2))
    remember(2 * np.ones(3), np.array(-4))
    np.testing.assert_array_equal(buffer.numpy(), [[2] * 3, [0] * 3, [1] * 3, [0] * 3])


def test_a_whole_assignment_does_not_share_memory() -> None:
    t, u = gj.tensor([1.0, 2.0]), gj.tensor([3.0, 4.0])
    t[...] = u
    u[0] = 9.0
    assert t.tolist() == [3, 4]
