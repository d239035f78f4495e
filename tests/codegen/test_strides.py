"""Innermost loops whose elements lie apart: what is vectorised, and that the values are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import compiled, floats, program_of, sources

import graphjit as gj

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
    assert limits(transposed, 40, 30) and limits(row_minus_column, 40, 3)


def test_strided_stores_are_vectors_where_there_is_enough_to_compute() -> None:
    assert limits(gated, 400, 3) and not limits(every_other, 400, 3)


@pytest.mark.parametrize("f", [every_other, gated, transposed, row_minus_column])
@pytest.mark.parametrize("n", [1, 7, 67])
def test_values_are_those_of_eager_mode(f: Function, n: int) -> None:
    x = floats(n, 3)
    np.testing.assert_allclose(compiled(f, x)(x).data, f(gj.tensor(x)).data, rtol=1e-5, atol=1e-6)
