"""Rows of few vectors: loops whose last vector is masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import guarded
from lowering import compiled, floats, program_of, sources

import graphjit as gj
from graphjit.kernels.target import target
from graphjit.runtime.compiler import compile_count

masked = pytest.mark.skipif(not target().masks, reason="this CPU has no masks")
Array = np.ndarray[Any, Any]


def laplacian(x: gj.Tensor) -> gj.Tensor:
    return x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * x[1:-1, 1:-1]


FUNCTIONS: dict[str, Callable[[gj.Tensor], Any]] = {
    "dear": lambda x: gj.tanh(x[:, 1:]) * x[:, :-1],
    "folded": lambda x: gj.exp(x[:, 1:] - x[:, :-1]).sum(),
    "largest": lambda x: gj.sinh(x[:, 1:]).max(),
    "by rows": lambda x: gj.log1p(x[:, 1:] ** 2).sum(1),
    "by columns": lambda x: (gj.cos(x[:, 1:]) * x[:, :-1]).sum(0),
    "huge angles": lambda x: gj.sin(1e6 * x[:, 1:]),
    "stencil": lambda x: (laplacian(x) ** 2).sum() + x[0, 0] * 0,
    "stencil's gradient": gj.grad(lambda x: (laplacian(x) ** 3).sum()),
    "gradient of edges": gj.grad(lambda x: (x[:, 3:] * x[:, :-3] ** 2).sum() + (x[1:, :2] * x[:-1, -2:]).sum()),
}


def in_guarded_memory(values: Array) -> Array:
    """A copy of the values that ends where memory does."""
    found = guarded(values.nbytes, True).view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [5, 9, 10, 17, 18, 26, 33, 34, 49, 63, 64, 65, 97, 98, 130])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_eager_mode(name: str, width: int, dtype: Any) -> None:
    x = in_guarded_memory(floats(41, width, dtype=dtype))
    got, want = gj.compile(FUNCTIONS[name])(x), FUNCTIONS[name](gj.tensor(x))
    scale = max(1.0, float(abs(want.data).max()))
    np.testing.assert_allclose(got.data / scale, want.data / scale, rtol=2e-5 if dtype is np.float32 else 1e-12,
                               atol=2e-6 if dtype is np.float32 else 1e-13)


@masked
@pytest.mark.parametrize("name", ["dear", "folded", "largest", "huge angles"])
def test_what_is_dear_is_computed_by_masked_vectors(name: str) -> None:
    assert any("in few(" in text for text in sources(program_of(FUNCTIONS[name], floats(40, 29))))
    assert not any("in few(" in text for text in sources(program_of(FUNCTIONS[name], floats(40, 290))))


@masked
def test_cheap_loops_are_as_they_were() -> None:
    assert not any("in few(" in text for text in sources(program_of(lambda x: x[:, 1:] + x[:, :-1], floats(40, 29))))


@masked
def test_sums_of_regions_with_short_rows_are_one_loop() -> None:
    step = gj.grad(laplacian_energy)
    assert any("in few(" in text for text in sources(program_of(step, floats(20, 30))))
    assert not any("in few(" in text for text in sources(program_of(step, floats(20, 300))))


def laplacian_energy(x: gj.Tensor) -> gj.Tensor:
    return (laplacian(x) ** 2).sum()


def test_other_lengths_of_the_same_kind_compile_nothing() -> None:
    step = compiled(FUNCTIONS["dear"], floats(30, 20))
    step(floats(30, 200))
    before = compile_count()
    for width in (19, 40, 64, 65, 1000):
        x = floats(11, width)
        np.testing.assert_allclose(step(x).data, np.tanh(x[:, 1:]) * x[:, :-1], rtol=1e-5, atol=1e-6)
    assert compile_count() == before
