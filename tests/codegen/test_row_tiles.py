"""Short rows as the lanes of vectors: where they are, right values, the same bits however rows are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_calls import call, in_numba, in_pieces, in_python, poison
from lowering import Array, compiled, floats, program_of, sources

import graphjit as gj
import graphjit.nn.functional as F
from graphjit.kernels.row_tiles import mover
from graphjit.runtime.compiler import compile_kernels
from graphjit.runtime.kernel import LoopKernel
from graphjit.tree import flatten

Function = Callable[..., Any]


def distances(x: gj.Tensor, c: gj.Tensor) -> Any:
    """Of points to centres, whose number is the length of an argument's first axis."""
    d = (x * x).sum(1, keepdims=True) - 2 * x @ c.T + (c * c).sum(1)
    return (gj.softmax(-d) * d).sum(1)


def attention(x: gj.Tensor, c: gj.Tensor) -> Any:
    """With a mask that differs from row to row, and a scale that differs from head to head."""
    x = gj.stack([x, x * x, -x])
    scores = (x @ c.T) * gj.reshape(gj.exp(x[:, 0, 0]), (3, 1, 1))
    allowed = gj.arange(x.shape[1])[:, None] >= gj.arange(c.shape[0])
    return gj.softmax(gj.where(allowed, scores, -1e9)) @ c


def normalized(x: gj.Tensor, c: gj.Tensor) -> Any:
    y = gj.exp(0.1 * x) @ c.T
    centred = y - y.mean(-1, keepdims=True)
    z = centred / gj.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return z * c[:, 0] + c[:, 1], y.max(1), z.argmax(1)


def classified(x: gj.Tensor, c: gj.Tensor) -> Any:
    labels = gj.remainder(gj.arange(x.shape[0]), c.shape[0])
    return F.cross_entropy(x @ c.T, labels, label_smoothing=0.1)


def picked(x: gj.Tensor, c: gj.Tensor) -> Any:
    """Rows of a table that is read at a point of its own for each number."""
    at = gj.remainder(gj.arange(x.shape[0] * c.shape[0]).reshape(x.shape[0], c.shape[0]) * 7, x.shape[0])
    return gj.logsumexp(gj.take(x[:, 0], at) * (x[:, 1:2] + c[:, 0]), axis=1)


def gradients(f: Function) -> Function:
    def loss(x: gj.Tensor, c: gj.Tensor) -> Any:
        return sum((gj.tanh(y) * y).sum() for y in flatten(f(x, c))[0] if y.dtype.kind == "f")
    return gj.value_and_grad(loss, argnums=(0, 1))


FUNCTIONS = {f.__name__: f for f in (distances, attention, normalized, classified, picked)}
FUNCTIONS |= {f"gradients of {name}": gradients(f) for name, f in FUNCTIONS.items()}


def tiled(f: Function, *args: Any) -> bool:
    return any("to_lanes" in text or "from_lanes" in text for text in sources(program_of(f, *args)))


def arrays(found: Any) -> list[Array]:
    return [np.asarray(t.data) for t in flatten(found)[0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows, length", [(1, 5), (7, 2), (31, 3), (32, 9), (33, 10), (70, 17), (40, 63), (9, 100)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_eager_mode(name: str, rows: int, length: int, dtype: Any) -> None:
    f, x, c = FUNCTIONS[name], floats(rows, 4, dtype=dtype), floats(length, 4, seed=1, dtype=dtype)
    assert tiled(f, x, c) or length > 63
    for got, want in zip(arrays(gj.compile(f)(x, c)), arrays(f(gj.tensor(x), gj.tensor(c))), strict=True):
        rtol, atol = (1e-4, 2e-5) if dtype is np.float32 else (1e-11, 1e-12)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_how_rows_are_cut_changes_no_bit(name: str) -> None:
    x, c = floats(75, 4), floats(11, 4, seed=1)
    step = compiled(FUNCTIONS[name], x, c)
    wanted = arrays(step(x, c))
    program = step.latest.program
    poison(program)
    in_pieces(program, backwards=True)
    for got, want in zip(arrays(step(x, c)), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("run", [in_python, in_numba])
@pytest.mark.parametrize("name", ["distances", "normalized", "picked"])
def test_their_source_means_what_is_compiled(name: str, run: Callable[[Any], None]) -> None:
    """Python looks at the bounds of each access."""
    x, c = floats(35, 4), floats(5, 4, seed=1)
    step = compiled(FUNCTIONS[name], x, c)
    wanted = arrays(step(x, c))
    run(step.latest.program)
    for got, want in zip(arrays(step(x, c)), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_not_finite_leaves_the_others_alone() -> None:
    x, c = floats(40, 4), floats(12, 4, seed=1)
    wanted = compiled(distances, x, c)(x, c).data
    for value in (np.nan, np.inf, -np.inf, 3e38):
        x[[3, 37]] = value
        got = compiled(distances, x, c)(x, c).data
        others = np.setdiff1d(np.arange(40), [3, 37])
        np.testing.assert_array_equal(got[others], wanted[others])
        assert not np.isfinite(got[[3, 37]]).any()


def test_rows_of_the_model_are_tiled_where_a_loop_of_known_turns_would_not_do() -> None:
    def of(width: int, rows: int = 100) -> bool:
        w = gj.tensor(floats(3, width))
        return tiled(lambda x: gj.softmax(x @ w, 1), floats(rows, 3))
    assert [width for width in (4, 8, 9, 10, 16, 33, 63, 64, 128) if of(width)] == [9, 10, 16, 33, 63]


def test_what_is_only_added_up_is_not_tiled() -> None:
    x = floats(100, 20)
    assert not tiled(lambda x: (x * x).sum(1), x) and not tiled(lambda x: x.max(1), x)
    assert tiled(lambda x: gj.exp(x).sum(1), x)


def test_rows_that_do_not_lie_in_order_are_left_alone() -> None:
    x = floats(100, 40)
    assert not tiled(lambda x: gj.softmax(x[:, ::2], 1), x)
    assert tiled(lambda x: gj.softmax(x[:, 5:35], 1), x)


@pytest.mark.parametrize("code", ["uint8", "float32", "int64"])
@pytest.mark.parametrize("lanes", [16, 32])
def test_statements_bring_rows_to_lanes_and_back(code: str, lanes: int) -> None:
    kernel = LoopKernel("there_and_back", f"""\
def there_and_back(there, back, x, y, tile, row, length, start, stop):
    to_lanes(there, x, start * row, row, stop - start, length, tile, {lanes})
    from_lanes(back, y, start * row, row, stop - start, length, tile, {lanes})
""", ("int64", "int64", f"*{code}", f"*{code}", f"*{code}", "int64", "int64"))
    movers = compile_kernels([mover(name, np.dtype(code).itemsize) for name in ("to_lanes", "from_lanes")])
    for rows in (1, 2, 5, lanes - 1, lanes):
        for length in (1, 2, 3, 4, 7, 16, 21, 40):
            x = np.arange(1, (rows + 2) * (length + 3) + 1).astype(code).reshape(rows + 2, length + 3)
            y, tile = np.zeros_like(x), np.full((length + 8, lanes), 255, code)
            call(kernel, *movers, x, y, tile, x.shape[1], length, start=1, stop=1 + rows)
            np.testing.assert_array_equal(y[1:-1, :length], x[1:-1, :length])
            assert not y[[0, -1]].any() and not y[:, length:].any()
            np.testing.assert_array_equal(tile[:length, :rows], x[1:-1, :length].T)
            assert ((tile[:length, rows:] == tile[:length, [rows - 1]]) | (tile[:length, rows:] == 0)).all()
