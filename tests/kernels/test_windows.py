"""Convolutions on the tile unit, against NumPy, however they are cut."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphjit.kernels.problem import Axis, Windows
from graphjit.kernels.target import target
from graphjit.kernels.tile_window_sums import plan_sums
from graphjit.kernels.tile_windows import WindowsPlan, plan_windows
from graphjit.runtime.compiler import compile_kernels

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
GUARD = 77.0
Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.skipif(not target().tile_unit, reason="this CPU has no tile unit")


class Case(NamedTuple):
    """Places of the result (images, lines, places), taps, channels of both sides, stride and dilation."""

    kept: tuple[int, int, int]
    taps: tuple[int, int]
    channels: int
    n: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    def operands(self, seed: int = 0, draw: Callable[..., Array] | None = None) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        images, *kept = self.kept
        sizes = [(m - 1) * s + (t - 1) * d + 1
                 for m, s, t, d in zip(kept, self.stride, self.taps, self.dilation, strict=True)]
        draw = draw or mixed
        return draw(rng, images, *sizes, self.channels), draw(rng, *self.taps, self.channels, self.n)

    def view(self, x: Array) -> Array:
        """The windows (images, lines, places, taps, taps, channels)."""
        image, line, place, channel = x.strides
        (s0, s1), (d0, d1) = self.stride, self.dilation
        return np.lib.stride_tricks.as_strided(
            x, (*self.kept, *self.taps, self.channels), (image, s0 * line, s1 * place, d0 * line, d1 * place, channel))


def mixed(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers about one, and between them some of any size down to the smallest denormal."""
    tiny = np.ldexp(rng.uniform(-2, 2, shape), -rng.integers(90, 151, shape))
    return np.where(rng.random(shape) < 0.1, tiny, rng.standard_normal(shape)).astype(np.float32)


def plain(rng: np.random.Generator, *shape: int) -> Array:
    """Huge numbers times tiny ones would show the bits that these lose."""
    return rng.standard_normal(shape).astype(np.float32)


def strides(x: Array) -> list[int]:
    return [s // x.itemsize for s in x.strides]


def compute(case: Case, x: Array, w: Array, bias: Array | None = None, relu: bool = False, pieces: int = 1) -> Array:
    """In so many pieces; each line of the result with a guard behind it."""
    wide = np.full((*case.kept[:2], case.kept[2] + 1, case.n + 3), GUARD, np.float32)
    a, b, c = strides(case.view(x)), strides(w), strides(wide)
    axes = [Axis(*each) for each in zip(case.kept, a, c, strict=False)]
    taps = [Axis(*each) for each in zip(case.taps, a[3:], b, strict=False)]
    plan = plan_windows(Windows((axes[0],), axes[1], axes[2], *taps, Axis(case.channels, 1, b[2]), case.n),
                        bias is not None, relu)
    assert plan is not None
    run(plan, {"a": x, "b": w, "c": wide, "bias": bias}, np.linspace(0, plan.extent, pieces + 1).astype(int).tolist())
    out = wide[:, :, :-1, :case.n].copy()
    wide[:, :, :-1, :case.n] = GUARD
    assert (wide == GUARD).all()
    return out


def run(plan: WindowsPlan, arrays: dict[str, Array | None], cuts: Sequence[int]) -> None:
    scratch = np.full(plan.workspace + 64, 0xFF, np.uint8)  # NaN
    at = {name: x.ctypes.data for name, x in arrays.items() if x is not None}
    at["workspace"] = -(-scratch.ctypes.data // 64) * 64
    slots = np.array([at[s] if isinstance(s, str) else s for s in plan.slots], np.int64)
    call = ENTRY(compile_kernels([plan.kernel])[0])
    for start, stop in pairwise(cuts):
        if start < stop:
            call(slots.ctypes.data, start, stop)


def exact(case: Case, x: Array, w: Array) -> Array:
    found: Array = np.einsum("nyxtuk,tukm->nyxm", case.view(x).astype("float64"), w.astype("float64"))
    return found


def summed(case: Case, x: Array, g: Array, parts: int = 1, pieces: int = 1) -> Array:
    """The gradient by the weight, for each part of the images, in so many pieces."""
    wide = np.full((parts, *case.taps, case.channels + 1, case.n + 3), GUARD, np.float32)
    a, b, (part, *c) = strides(case.view(x)), strides(g), strides(wide)
    images = case.kept[0] // parts
    axes = [Axis(*each) for each in zip((images, *case.kept[1:]), a, b, strict=False)]
    taps = [Axis(*each) for each in zip(case.taps, a[3:], c, strict=False)]
    plan = plan_sums(Windows((axes[0],), axes[1], axes[2], *taps, Axis(case.channels, 1, c[2]), case.n),
                     Axis(parts, images * a[0], images * b[0]), part)
    assert plan is not None
    run(plan, {"a": x, "b": g, "c": wide}, np.linspace(0, plan.extent, pieces + 1).astype(int).tolist())
    out = wide[..., :-1, :case.n].copy()
    wide[..., :-1, :case.n] = GUARD
    assert (wide == GUARD).all()
    return out


def exact_sums(case: Case, x: Array, g: Array, parts: int = 1) -> Array:
    view = case.view(x).astype("float64").reshape(parts, -1, *case.kept[1:], *case.taps, case.channels)
    found: Array = np.einsum("pnyxtuk,pnyxm->ptukm", view, g.astype("float64").reshape(*view.shape[:4], case.n))
    return found


def cotangent(case: Case, seed: int = 0, draw: Callable[..., Array] = mixed) -> Array:
    return draw(np.random.default_rng(seed + 99), *case.kept, case.n)


CASES = [
    Case((2, 14, 14), (3, 3), 64, 64), Case((3, 7, 7), (3, 3), 40, 50), Case((2, 5, 33), (3, 2), 7, 17),
    Case((2, 8, 9), (3, 3), 33, 20, (2, 2)), Case((2, 8, 9), (3, 3), 32, 20, (1, 1), (2, 2)),
    Case((1, 6, 5), (5, 4), 20, 33, (3, 2), (2, 3)), Case((1, 3, 100), (1, 5), 48, 70), Case((2, 40, 1), (7, 1), 5, 1),
    Case((2, 4, 6), (1, 1), 100, 30, (2, 2)), Case((1, 1, 1), (1, 1), 1, 1), Case((1, 70, 60), (3, 3), 40, 130),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_windows(case: Case) -> None:
    x, w = case.operands()
    whole, wanted = compute(case, x, w), exact(case, x, w)
    np.testing.assert_allclose(whole, wanted, rtol=0, atol=3e-6 * np.sqrt(w[..., 0].size))
    np.testing.assert_array_equal(compute(case, x, w, pieces=3), whole)
    bias = np.random.default_rng(1).standard_normal(case.n).astype(np.float32)
    np.testing.assert_array_equal(compute(case, x, w, bias), whole + bias)
    np.testing.assert_array_equal(compute(case, x, w, bias, True), np.maximum(whole + bias, 0))


@pytest.mark.parametrize("case", [*CASES, Case((4, 6, 6), (3, 3), 70, 20)], ids=str)
def test_sums(case: Case) -> None:
    x, g = case.operands()[0], cotangent(case)
    for parts in {1, case.kept[0]}:
        whole, wanted = summed(case, x, g, parts), exact_sums(case, x, g, parts)
        np.testing.assert_allclose(whole, wanted, rtol=0, atol=1e-5 * np.sqrt(g[..., 0].size))
        np.testing.assert_array_equal(summed(case, x, g, parts, pieces=2), whole)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_windows(data: st.DataObject) -> None:
    def some(*most: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(1, m)) for m in most)
    case = Case(some(2, 12, 20), some(4, 4), *some(70, 40), some(3, 3), some(3, 3))  # type: ignore[arg-type]
    x, w = case.operands(data.draw(st.integers(0, 9)))
    np.testing.assert_allclose(compute(case, x, w), exact(case, x, w), rtol=0, atol=3e-6 * np.sqrt(w[..., 0].size))
    g = cotangent(case)
    np.testing.assert_allclose(summed(case, x, g), exact_sums(case, x, g), rtol=0,
                               atol=1e-5 * np.sqrt(g[..., 0].size))


def test_as_exact_as_multiply_adds() -> None:
    case = Case((1, 8, 8), (3, 3), 64, 32)
    x, w = case.operands()
    view = case.view(x).reshape(1, 8, 8, -1)
    chain = np.zeros((1, 8, 8, 32), np.float32)
    for k, row in enumerate(w.reshape(-1, 32)):  # a multiply-add: the product is exact, the sum rounded
        chain = (chain + view[..., k, None].astype(np.float64) * row).astype(np.float32)
    wanted = exact(case, x, w)
    assert ((compute(case, x, w) - wanted) ** 2).mean() <= ((chain - wanted) ** 2).mean()


@pytest.mark.parametrize("case", [Case((2, 9, 9), (3, 3), 32, 40), Case((2, 6, 20), (3, 2), 9, 20, (2, 1)),
                                  Case((1, 5, 16), (2, 3), 20, 33, (1, 1), (1, 2))], ids=str)  # fmt: skip
def test_what_is_not_finite_stays_where_it_is(case: Case) -> None:
    """Nothing reaches places whose windows it is not in; what overflows has the sign of a chain's infinity."""
    x, w = case.operands(draw=plain)
    huge = np.finfo(np.float32).max
    flat = x.reshape(x.shape[0], -1, case.channels)
    flat[0, 3, 2], flat[0, 40, 5], flat[-1, 44] = np.inf, np.nan, -np.inf
    flat[0, 60], flat[-1, 5, 0] = 1e30 * np.abs(flat[0, 60]), huge / 4 * 3
    w[0, 1, 4, 1], w[0, 0, 1, 2], w[1, 1, 3, 0] = 0, np.inf, np.nan
    w[..., 3] = 1e30 * np.abs(w[..., 3])
    with np.errstate(all="ignore"):
        found, wanted = compute(case, x, w), exact(case, x, w).astype(np.float32)
        scale = np.einsum("nyxtuk,tukm->nyxm", case.view(abs(x)).astype("float64"), abs(w).astype("float64"))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[np.isinf(wanted)], wanted[np.isinf(wanted)])
    fine = np.isfinite(wanted)
    assert fine.any() and (abs(found[fine] - wanted[fine]) <= 1e-5 * scale[fine]).all()
    np.testing.assert_array_equal(compute(case, x, w, pieces=4), found)


@pytest.mark.parametrize("case", [Case((2, 9, 9), (3, 3), 32, 48), Case((2, 6, 20), (3, 2), 9, 20, (2, 1)),
                                  Case((1, 5, 16), (2, 3), 20, 33, (1, 1), (1, 2))], ids=str)  # fmt: skip
def test_sums_of_what_is_not_finite(case: Case) -> None:
    x, g = case.operands(draw=plain)[0], cotangent(case, draw=plain)
    flat, huge = x.reshape(-1, case.channels), np.finfo(np.float32).max
    flat[3, 2], flat[-1, 5], flat[44, 3], flat[60, 7] = np.inf, np.nan, -np.inf, huge / 16
    flat[30:40, 8], g.reshape(-1, case.n)[:, 9] = 1e30, 1e30 * np.abs(g.reshape(-1, case.n)[:, 9])
    g[0, 1, 2, 4], g[0, 0, 1, 2] = np.inf, np.nan
    with np.errstate(all="ignore"):
        found, wanted = summed(case, x, g)[0], exact_sums(case, x, g)[0].astype(np.float32)
        scale = np.einsum("nyxtuk,nyxm->tukm", case.view(abs(x)).astype("float64"), abs(g).astype("float64"))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[np.isinf(wanted)], wanted[np.isinf(wanted)])
    fine = np.isfinite(wanted)
    assert fine.any() and (abs(found[fine] - wanted[fine]) <= 1e-5 * scale[fine]).all()


def test_what_it_does_not_compute() -> None:
    one = Axis(1, 0, 0)
    plain = Windows((), one, Axis(20, 32, 32), one, one, Axis(32, 1, 32), 32)
    assert plan_windows(plain) is not None
    for channels in (Axis(32, 2, 32), Axis(0, 1, 32)):
        assert plan_windows(Windows((), one, plain.places, one, one, channels, 32)) is None
    assert plan_windows(Windows((one,) * 3, one, plain.places, one, one, plain.channels, 32)) is None
    for plan in (plan_windows, functools.partial(plan_sums, parts=one, part_c=0)):
        assert plan(Windows((), one, Axis(1 << 24, 32, 32), one, one, plain.channels, 32)) is None
