"""Products summed over segments, against NumPy, however they are cut."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from graphjit.kernels.segments import plan_segments, rows_together
from graphjit.runtime.compiler import compile_kernels

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
GUARD = 77.0


def run(m: int, n: int, k: int, batch: tuple[int, ...], segments: tuple[int, ...], dtype: str, columns: bool,
        pieces: int, moving: bool = False) -> tuple[Any, Any]:
    """What the kernel makes in so many pieces, and what it should. ``columns``: A is stored transposed. ``moving``:
    each place of the first axis of the batch has its own B."""
    rng = np.random.default_rng(m * n + k)
    shape = (*batch, *segments, k, m) if columns else (*batch, *segments, m, k)
    a = rng.normal(size=shape).astype(dtype)
    own = [length if moving and i == 0 else 1 for i, length in enumerate(batch)]
    b = rng.normal(size=(*own, *segments, k, n)).astype(dtype)
    wide = np.full((*batch, m, n + 3), GUARD, dtype)
    size = a.itemsize
    a_strides = [s // size for s in a.strides]
    rows, depth = (a_strides[-1], a_strides[-2]) if columns else (a_strides[-2], a_strides[-1])
    c_strides = [s // size for s in wide.strides]
    found = plan_segments(m, n, k, dtype, (rows, depth), n, n + 3, batch, a_strides[:len(batch)],
                          c_strides[:len(batch)], segments, a_strides[len(batch):-2],
                          [s // size for s in b.strides[len(batch):-2]],
                          b_batch=[s // size if moving and i == 0 else 0 for i, s in enumerate(b.strides[:len(batch)])])
    scratch = np.full(found.workspace + 64, 0xFF, np.uint8)
    at = {"a": a.ctypes.data, "b": b.ctypes.data, "c": wide.ctypes.data, "workspace": scratch.ctypes.data}
    slots = np.array([at[s] if isinstance(s, str) else s for s in found.slots], np.int64)
    call = ENTRY(compile_kernels([found.kernel])[0])
    cuts = sorted({*np.linspace(0, found.extent, pieces + 1).astype(int).tolist()})
    for start, stop in pairwise(cuts):
        call(slots.ctypes.data, start, stop)
    assert (wide[..., n:] == GUARD).all()
    if columns:
        a = a.swapaxes(-1, -2)
    product = np.matmul(a.astype("float64"), b.astype("float64"))
    return wide[..., :n], product.sum(tuple(range(len(batch), len(batch) + len(segments))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "n", "k", "batch", "segments", "columns"), [
    (14, 16, 24, (3, 5), (3,), False), (35, 70, 9, (2,), (2, 3), False), (1, 1, 1, (), (2,), False),
    (150, 33, 5, (2, 3, 2), (2, 2), False), (24, 16, 14, (3,), (4, 6), True), (100, 70, 7, (2,), (3, 9), True),
    (40, 20, 3, (), (5, 2), True), (7, 5, 0, (2,), (2,), False),
])  # fmt: skip
def test_segments(m: int, n: int, k: int, batch: tuple[int, ...], segments: tuple[int, ...], columns: bool,
                  dtype: str) -> None:
    whole, wanted = run(m, n, k, batch, segments, dtype, columns, 1)
    np.testing.assert_allclose(whole, wanted, rtol=1e-4 if dtype == "float32" else 1e-12,
                               atol=1e-4 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(run(m, n, k, batch, segments, dtype, columns, 3)[0], whole)


@pytest.mark.parametrize(("m", "n", "batch", "segments", "columns"), [
    (14, 16, (3, 5), (3,), False), (35, 70, (2,), (2, 3), False), (24, 16, (4, 3), (4, 6), True),
    (24, 17, (4, 3, 2), (8,), True),
])  # fmt: skip
def test_parts_with_operands_of_their_own(m: int, n: int, batch: tuple[int, ...], segments: tuple[int, ...],
                                          columns: bool) -> None:
    whole, wanted = run(m, n, 9, batch, segments, "float32", columns, 1, moving=True)
    np.testing.assert_allclose(whole, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(run(m, n, 9, batch, segments, "float32", columns, 5, moving=True)[0], whole)


def test_too_many_axes() -> None:
    with pytest.raises(ValueError, match="batch axes"):
        plan_segments(1, 1, 1, "float32", (1, 1), 1, 1, (2,) * 4, (1,) * 4, (1,) * 4, (2,), (1,), (1,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("places", "channels", "n", "kernel", "stride"), [
    (14, 16, 8, (3, 3), 1), (28, 1, 8, (3, 3), 1), (12, 5, 3, (1, 4), 2), (9, 4, 1, (2, 2), 1), (8, 7, 2, (3, 5), 3)])
@pytest.mark.parametrize("relu", [False, True])
def test_rows_computed_together(places: int, channels: int, n: int, kernel: tuple[int, int], stride: int, relu: bool,
                                dtype: str) -> None:
    """Windows of lines: neighbours share a vector, and what is not a number stays with those whose window it is in."""
    rng = np.random.default_rng(places)
    lines, width = 4 + kernel[0], stride * (places - 1) + kernel[1]
    x = rng.normal(size=(lines, width, channels)).astype(dtype)
    x[2, 3], x[lines - 1, width - 1, 0] = np.inf, np.nan
    w, bias = rng.normal(size=(*kernel, channels, n)).astype(dtype), rng.normal(size=n).astype(dtype)
    out = np.full((5, places, n), GUARD, dtype)
    k, outer = (channels, kernel[0]) if channels > 2 else (kernel[0], 1)
    depth, b_row = (1, n) if channels > 2 else (width * channels, kernel[1] * channels * n)
    row, line = stride * channels, width * channels
    together = rows_together(places, n, k, row, channels, n, kernel[1], dtype)
    found = plan_segments(places, n, k, dtype, (row, depth), b_row, n, (5,), (line,), (places * n,), (outer, kernel[1]),
                          (line, channels), (kernel[1] * channels * n, channels * n), True, together, relu)  # fmt: skip
    scratch = np.full(found.workspace + 64, 0xFF, np.uint8)
    at = {"a": x.ctypes.data, "b": w.ctypes.data, "c": out.ctypes.data, "bias": bias.ctypes.data,
          "workspace": scratch.ctypes.data}
    slots = np.array([at[s] if isinstance(s, str) else s for s in found.slots], np.int64)
    ENTRY(compile_kernels([found.kernel])[0])(slots.ctypes.data, 0, found.extent)
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, (0, 1))[:, ::stride].astype("float64")
    with np.errstate(all="ignore"):
        wanted = np.einsum("yxckl,klcn->yxn", view, w.astype("float64")) + bias
        wanted = np.where(wanted <= 0, 0, wanted) if relu else wanted
    np.testing.assert_allclose(out, wanted, rtol=1e-4 if dtype == "float32" else 1e-12,
                               atol=1e-4 if dtype == "float32" else 1e-12)
