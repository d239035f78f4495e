"""Convolutions and products of the sizes that tiles, strips and threads are for: values and gradients are those of
eager mode in float64, and the same bits on any number of threads.

60 of them, always the same ones, by default; ``GRAPHJIT_FUZZ=2000`` draws 600 anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from test_programs import assert_same_bits, examples

import graphjit as gj
import graphjit.nn.functional as F

Array = np.ndarray[Any, Any]
MOST = 30_000_000  # multiply-adds
SIZES = [1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 128, 130, 256]
ACTIVATIONS: dict[str, Callable[[gj.Tensor], gj.Tensor]] = {
    "none": lambda x: x, "tanh": gj.tanh, "gelu": F.gelu, "silu": F.silu, "softmax": lambda x: gj.softmax(x, axis=-1),
    "sums": lambda x: gj.sigmoid(x).sum(0)}


class Layer(NamedTuple):
    """What is computed from operands of these shapes."""

    what: str
    shapes: Sequence[tuple[int, ...]]
    function: Callable[..., gj.Tensor]

    def __repr__(self) -> str:
        return f"{self.what} of {self.shapes}"


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    rank = draw(st.integers(1, 2))

    def each(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(draw(st.sampled_from(values)) for _ in range(rank))
    images, groups = draw(st.sampled_from([1, 2, 5, 10, 16, 33])), draw(st.sampled_from([1, 1, 1, 2, 4]))
    channels, n = (groups * draw(st.sampled_from([1, 3, 8, 16, 17, 32, 48, 64])) for _ in range(2))
    places = each([1, 3, 4, 6, 7, 12, 14, 28] if rank == 2 else [1, 5, 12, 33, 64, 140])
    taps, stride, dilation = each([1, 2, 3, 5, 7]), each([1, 1, 2, 3]), each([1, 1, 2])
    padding = tuple(draw(st.sampled_from([0, k // 2, k - 1])) for k in taps)
    assume(all(m + 2 * p > d * (k - 1) for m, p, d, k in zip(places, padding, dilation, taps, strict=True)))
    assume(images * channels * n // groups * np.prod(places) * np.prod(taps) <= MOST)
    bias = [(n,)] if draw(st.booleans()) else []
    name = draw(st.sampled_from(["none", "tanh", "gelu", "silu"]))
    convolve = (F.conv1d, F.conv2d)[rank - 1]
    how: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    how = {k: v if rank == 2 else v[0] for k, v in how.items()}

    def function(x: gj.Tensor, w: gj.Tensor, *bias: gj.Tensor) -> gj.Tensor:
        y = convolve(x, w, *bias, groups=groups, **how)
        return ACTIVATIONS[name](y / (channels * np.prod(taps) / groups) ** 0.5)
    return Layer(f"{name} of a convolution, {groups} groups, {how}",
                 [(images, channels, *places), (n, channels // groups, *taps), *bias], function)


@st.composite
def products(draw: st.DrawFn) -> Layer:
    batch = draw(st.sampled_from([(), (), (3,), (2, 4)]))
    m, k, n = (draw(st.sampled_from(SIZES)) for _ in range(3))
    assume(m * k * n * np.prod(batch) <= MOST)
    turned_a, turned_b = draw(st.booleans()), draw(st.booleans())
    shapes = [(*batch, *((k, m) if turned_a else (m, k))), (*batch, *((n, k) if turned_b else (k, n))), (n,)]
    name = draw(st.sampled_from(sorted(ACTIVATIONS)))

    def function(a: gj.Tensor, b: gj.Tensor, bias: gj.Tensor) -> gj.Tensor:
        a, b = gj.swapaxes(a, -1, -2) if turned_a else a, gj.swapaxes(b, -1, -2) if turned_b else b
        return ACTIVATIONS[name](a @ b / k**0.5 + bias)
    return Layer(f"{name} of a product, turned {turned_a, turned_b}", shapes, function)


def values_of(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Numbers about one, and between them some of any size down to the smallest denormal."""
    tiny = np.ldexp(rng.uniform(-2, 2, shape), -rng.integers(20, 151, shape))
    return np.where(rng.random(shape) < 0.1, tiny, rng.standard_normal(shape)).astype(np.float32)


@examples(60)
@given(st.one_of(convolutions(), products()), st.integers(0, 2**32 - 1))
def test_compiled_equals_eager_in_double(layer: Layer, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [values_of(shape, rng) for shape in layer.shapes]
    wide = [gj.tensor(x.astype(np.float64)) for x in arrays]
    value = layer.function(*wide)
    weights = rng.standard_normal(value.shape)
    which = tuple(range(len(arrays)))

    def both(*operands: gj.Tensor) -> list[gj.Tensor]:
        def total(*operands: gj.Tensor) -> gj.Tensor:
            y = layer.function(*operands)
            return (y * weights.astype(y.dtype)).sum()
        return [layer.function(*operands), *gj.grad(total, argnums=which)(*operands)]

    expected, found, threads = [x.numpy() for x in both(*wide)], [], gj.get_num_threads()
    for n in (1, 3):
        gj.set_num_threads(n)
        try:
            found.append([x.numpy() for x in gj.compile(both)(*arrays)])
        finally:
            gj.set_num_threads(threads)
    for got, wanted in zip(found[0], expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-5 * (1 + abs(wanted).max(initial=0)))
    assert_same_bits(found[1], found[0])
