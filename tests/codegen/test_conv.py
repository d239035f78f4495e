"""Convolution, compiled: what the eager rules give, in a layout that stays, whatever the batch."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreeing import Array, agree, names

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.codegen import contractions
from graphjit.codegen.call import KernelCall
from graphjit.ir import Apply, Input
from graphjit.kernels.target import target
from graphjit.op import View
from graphjit.passes import unfolded
from graphjit.passes.layout import base_layout, is_contiguous
from graphjit.runtime.compiler import IRKernel
from graphjit.runtime.program import Program
from graphjit.types import Extent


def pair(rng: np.random.Generator, rank: int, low: int, high: int) -> Any:
    return tuple(int(n) for n in rng.integers(low, high, rank)) if rank == 2 else int(rng.integers(low, high))


def spans(kernel: tuple[int, ...], dilation: Any, padding: Any) -> list[int]:
    """The shortest axes that a window fits."""
    apart, pads = np.broadcast_to(dilation, len(kernel)), np.broadcast_to(padding, len(kernel))
    return [max(1, int(d * (k - 1) + 1 - 2 * p)) for k, d, p in zip(kernel, apart, pads, strict=True)]


def convolution(rng: np.random.Generator) -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """Shapes of input and weight, and how."""
    rank = int(rng.integers(1, 3))
    groups = int(rng.choice([1, 1, 1, 2]))
    how = {"stride": pair(rng, rank, 1, 4), "padding": pair(rng, rank, 0, 4), "dilation": pair(rng, rank, 1, 4),
           "groups": groups}
    kernel = tuple(int(n) for n in rng.integers(1, 5, rank))
    sizes = [n + int(rng.integers(0, 7)) for n in spans(kernel, how["dilation"], how["padding"])]
    inner, outer = (int(rng.choice([1, 2, 3, 8, 17])) for _ in range(2))
    return [(int(rng.integers(1, 4)), inner * groups, *sizes), (outer * groups, inner, *kernel)], how


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(3))
def test_convolutions_agree(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    functions: list[Callable[..., Any]] = []
    arrays: list[list[Array]] = []
    for _ in range(8):
        shapes, how = convolution(rng)
        f = F.conv1d if len(shapes[0]) == 3 else F.conv2d
        functions.append(lambda x, w, b, f=f, how=how: f(x, w, b, **how))
        arrays.append([rng.normal(size=s).astype(dtype) for s in (*shapes, shapes[1][:1])])
    agree(functions, arrays, 1e-4 if dtype == "float32" else 1e-11)


def test_convolutions_as_products_of_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether that pays or not."""
    monkeypatch.setattr(unfolded, "WEIGHTS", 0)
    for dtype in ("float32", "float64"):
        for seed in range(3):
            test_convolutions_agree(dtype, seed)
        test_few_and_many_channels_agree(dtype)
        test_pools_between_convolutions_agree(dtype)
    test_training_agrees_and_threads_change_no_bit()


@pytest.mark.parametrize(("shape", "window", "how"), [
    ((3, 128, 4, 4), (130, 128, 3, 3), {"padding": 1}), ((2, 96, 8, 8), (200, 96, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 128, 9), (160, 128, 5), {"padding": 2, "dilation": 2}), ((5, 48, 6, 6), (90, 48, 1, 1), {}),
])
def test_few_places_of_many_weights_are_products_of_rows(shape: tuple[int, ...], window: tuple[int, ...],
                                                         how: dict[str, int]) -> None:
    """Values, gradients, the same bits on any number of threads; a new batch size needs no new kernel."""
    rng = np.random.default_rng(2)
    convolve = F.conv2d if len(shape) == 4 else F.conv1d
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in (shape, window, window[:1]))

    def f(x: Any, w: Any, b: Any) -> Any:
        return gj.value_and_grad(lambda *a: (gj.relu(convolve(*a, **how)) ** 2).sum(), argnums=(0, 1, 2))(x, w, b)

    assert not {"contract", "conv_last_input_grad"} & set(names(f, x, w, b))
    found, before = [], gj.get_num_threads()
    for threads in (1, 2, 3):
        gj.set_num_threads(threads)
        try:
            step = gj.compile(f)
            value, gradients = step(x, w, b)
            found.append([value.numpy(), *(g.numpy() for g in gradients)])
            kernels = kernel_set(step.latest.program)
            step(np.concatenate([x, x]), w, b)
            assert kernel_set(step.latest.program) == kernels
        finally:
            gj.set_num_threads(before)
    assert len({b"".join(a.tobytes() for a in each) for each in found}) == 1
    value, gradients = f(*(gj.tensor(a, dtype="float64") for a in (x, w, b)))
    for got, wanted in zip(found[0], [value, *gradients], strict=True):
        scale = float(np.abs(wanted.numpy()).max())
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5 * scale)


def test_windows_of_one_element_are_copied_nowhere() -> None:
    x, w, v = (np.ones(shape, np.float32) for shape in ((2, 64, 7, 7), (65, 64, 1, 1), (66, 65, 1, 1)))
    found = names(lambda x, w, v: F.conv2d(gj.relu(F.conv2d(gj.exp(x), w)), v), x, w, v)
    assert found.count("matmul") == 2 and "contract" not in found
    assert found.count("copy") == 2  # what the caller gives and gets is in the caller's order


@pytest.mark.parametrize(("shape", "window", "how"), [
    ((3, 12, 9, 8), (20, 3, 3, 3), {"groups": 4, "padding": 1}), ((2, 32, 30), (64, 8, 5), {"groups": 4, "stride": 2}),
    ((5, 64, 12, 12), (64, 16, 3, 3), {"groups": 4, "padding": 1}), ((2, 16, 7, 7), (8, 8, 1, 1), {"groups": 2}),
    ((2, 10, 8, 8), (10, 5, 3, 3), {"groups": 2, "dilation": 2, "padding": (2, 1)}),
])
def test_groups_are_convolutions_of_their_own(shape: tuple[int, ...], window: tuple[int, ...],
                                              how: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    convolve, transpose = (F.conv2d, F.conv_transpose2d) if len(shape) == 4 else (F.conv1d, F.conv_transpose1d)
    x, w, b = (rng.standard_normal(s) for s in (shape, window, window[:1]))
    agree([lambda x, w, b: gj.relu(convolve(gj.tanh(x), w, b, **how)), lambda y, w: transpose(y, w, **how)],
          [[x, w, b], [rng.standard_normal(convolve(gj.tensor(x), gj.tensor(w), **how).shape), w]], 1e-10)
    if window[1] > 3:
        assert not {"conv", "conv_input_grad", "conv_weight_grad"} & set(names(
            lambda x, w: gj.grad(lambda x, w: convolve(x, w, **how).sum(), argnums=(0, 1))(x, w), x, w))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "kernel", "how"), [
    ((3, 8, 9, 8), (3, 3), {"padding": 1}), ((2, 32, 30), (5,), {"stride": 2, "padding": 2}),
    ((2, 17, 12, 11), (3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    ((1, 9, 10, 13), (5, 5), {"stride": 3, "padding": 2}), ((2, 16, 9, 9), (3, 3), {"stride": 2, "dilation": 2}),
    ((2, 10, 12, 12), (3, 3), {"dilation": (2, 3), "padding": (2, 1)}), ((2, 8, 7, 6), (1, 1), {"stride": 2}),
    ((2, 12, 14), (3,), {"stride": 4, "dilation": 2, "padding": 3}), ((2, 8, 9), (2,), {"stride": 5}),
    ((2, 8, 41, 33), (3, 3), {"stride": 2, "padding": 1}),
])
def test_windows_of_single_channels_are_sums_of_products(shape: tuple[int, ...], kernel: tuple[int, ...],
                                                         how: dict[str, Any], dtype: str) -> None:
    rng = np.random.default_rng(4)
    convolve, transpose = (F.conv2d, F.conv_transpose2d) if len(kernel) == 2 else (F.conv1d, F.conv_transpose1d)
    channels = shape[1]
    how = {**how, "groups": channels}
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (shape, (channels, 1, *kernel), (channels,)))
    y = rng.standard_normal(convolve(gj.tensor(x), gj.tensor(w), **how).shape).astype(dtype)
    agree([lambda x, w, b: gj.relu(convolve(gj.tanh(x), w, b, **how)), lambda y, w: transpose(y, w, **how)],
          [[x, w, b], [y, w]], 1e-4 if dtype == "float32" else 1e-10)
    assert not {"conv", "conv_input_grad", "conv_weight_grad"} & set(names(
        lambda x, w: gj.grad(lambda x, w: convolve(x, w, **how).sum(), argnums=(0, 1))(x, w), x, w))


def test_large_windows_of_single_channels_stay_convolutions() -> None:
    x, w, v = (np.ones(shape, np.float32) for shape in ((1, 8, 9, 9), (8, 1, 7, 7), (8, 1, 3, 3)))
    assert "conv" in names(lambda x, w: F.conv2d(x, w, groups=8), x, w)
    assert "conv" in names(lambda x, v: F.conv2d(x, v, groups=8, stride=6), x, v)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_a_number_stays_in_its_channel(stride: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 9, 9)).astype(np.float32), rng.standard_normal((8, 1, 3, 3)).astype(np.float32)
    x[1, 2, 4, 4], w[5, 0, 0, 0] = np.nan, np.inf

    def loss(x: Any, w: Any) -> Any:
        return (F.conv2d(x, w, stride=stride, groups=8) ** 2).sum()

    f = gj.value_and_grad(loss, argnums=(0, 1))
    (_, fast), (_, slow) = gj.compile(f)(x, w), f(gj.tensor(x), gj.tensor(w))
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(np.isfinite(a.numpy()), np.isfinite(b.numpy()))
        finite = np.isfinite(b.numpy())
        np.testing.assert_allclose(a.numpy()[finite], b.numpy()[finite], 1e-4, 1e-4)


@pytest.mark.skipif(not target().tile_unit, reason="this CPU has no tile unit")
def test_convolutions_on_the_tile_unit_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether that pays or not."""
    monkeypatch.setattr(contractions, "WORTH", np.inf)
    monkeypatch.setattr(contractions, "MANY", 1)
    for seed in range(3):
        test_convolutions_agree("float32", seed)
    test_few_and_many_channels_agree("float32")
    test_what_is_not_a_number_stays_where_it_is()


@pytest.mark.skipif(not target().tile_unit, reason="this CPU has no tile unit")
@pytest.mark.parametrize("rank", [1, 2])
def test_many_channels_take_the_tile_unit(rank: int) -> None:
    """All kernels that other batches take come with the first; threads change no bit."""
    rng = np.random.default_rng(rank)
    shapes = [(32, 48, 3), (32, 32, 3)] if rank == 1 else [(32, 48, 3, 3), (32, 32, 3, 3)]
    weights = [rng.standard_normal(s).astype(np.float32) for s in shapes]

    def f(x: Any, *weights: Any) -> list[Any]:
        def net(x: Any, *weights: Any) -> Any:
            for w in weights:
                x = gj.relu((F.conv1d if rank == 1 else F.conv2d)(x, w, padding=1))
            return (x * x).mean()
        return gj.grad(net, argnums=(0, 1, 2))(x, *weights)

    def program(n: int, threads: int = 1) -> tuple[list[bytes], Program]:
        before = gj.get_num_threads()
        gj.set_num_threads(threads)
        try:
            step = gj.compile(f)
            x = rng.standard_normal((n, 48, *(30,) * rank)).astype(np.float32) if threads == 1 else kept[0]
            kept[:] = [x]
            return [g.numpy().tobytes() for g in step(x, *weights)], step.latest.program
        finally:
            gj.set_num_threads(before)

    def products(p: Program) -> set[str]:
        return {kernel.name for kernel in kernel_set(p) if isinstance(kernel, IRKernel)} - {"driver"}

    kept: list[Array] = []
    large, small = (products(program(n)[1]) for n in (32, 1))
    found, compiled = program(9)
    windows = [s.title for s in compiled.kernels if "windows" in s.kernel.name]
    assert len(windows) >= 3 * rank - 2
    assert large == small == products(compiled)
    for threads in (2, 3):
        assert program(9, threads)[0] == found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pools_between_convolutions_agree(dtype: str) -> None:
    """After a convolution a pool runs with the channels last; ties go to the first of equals."""
    rng = np.random.default_rng(5)
    functions: list[Callable[..., Any]] = []
    arrays: list[list[Array]] = []
    for kernel, how in ((2, {}), (3, {"stride": 2, "padding": 1}), (3, {"stride": 1}), ((1, 2), {"stride": (2, 1)}),
                        (5, {"stride": 3, "padding": 2}), ((10, 11), {})):  # fmt: skip
        for pool in (F.max_pool2d, F.avg_pool2d):
            for channels in (3, 9):
                functions.append(lambda x, w, pool=pool, k=kernel, how=how: pool(gj.relu(F.conv2d(x, w)), k, **how))
                arrays.append([rng.integers(-3, 3, (2, 2, 11, 12)).astype(dtype),
                               rng.integers(-1, 2, (channels, 2, 2, 2)).astype(dtype)])
    agree(functions, arrays, 1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_and_many_channels_agree(dtype: str) -> None:
    """Neighbours computed together, tails of vectors, bias and relu in the product, results stored into borders."""
    rng = np.random.default_rng(8)
    functions: list[Callable[..., Any]] = []
    arrays: list[list[Array]] = []
    for inner, outer, size, pool in ((1, 8, 12, 2), (8, 3, 14, 2), (16, 8, 15, 3), (5, 20, 9, 2), (4, 33, 8, 1),
                                     (2, 1, 16, 2)):  # fmt: skip
        for rank in (1, 2):
            conv, largest = (F.conv1d, F.max_pool1d) if rank == 1 else (F.conv2d, F.max_pool2d)

            def twice(conv: Any, largest: Any, pool: int, x: Any, w: Any, b: Any, v: Any) -> Any:
                x = gj.relu(conv(x, w, b, padding=1))
                return gj.relu(conv(largest(x, pool) if pool > 1 else x, v, padding=1))

            functions.append(functools.partial(twice, conv, largest, pool))
            shapes = [(2, inner, *(size,) * rank), (outer, inner, *(3,) * rank), (outer,), (inner, outer, *(3,) * rank)]
            arrays.append([rng.normal(size=s).astype(dtype) for s in shapes])
    agree(functions, arrays, 1e-4 if dtype == "float32" else 1e-11)


def test_what_is_not_a_number_stays_where_it_is() -> None:
    """Places computed together do not share their windows."""
    x = np.ones((1, 4, 6, 12), np.float32)
    x[0, 1, 2, 3], x[0, 0, 5, 11] = np.inf, np.nan
    w = np.random.default_rng(9).normal(size=(8, 4, 3, 3)).astype(np.float32)
    found, wanted = gj.compile(F.conv2d)(x, w).numpy(), F.conv2d(x, w).numpy()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 3, stride=2)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(4 * 5 * 5, 3)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(gj.relu(self.a(x)), 2)
        x = gj.relu(self.norm(self.b(x)))
        return self.head(self.c(x).flatten(1))


def training(seed: int = 0) -> Any:
    gj.manual_seed(seed)
    net = Net()
    opt = optim.SGD(net.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss
    return step


def batch(n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 1, 28, 28)).astype(np.float32), rng.integers(0, 3, n)


def program(n: int) -> Program:
    step = gj.compile(training())
    step(*batch(n))
    found: Program = step.latest.program
    return found


def kernel_set(p: Program) -> set[Any]:
    return {kernel for s in p.steps if isinstance(s, KernelCall) for kernel in (s.kernel, *s.also)}


def test_activations_stay_channels_last() -> None:
    """No activation is copied into another order: where they are flattened for a small head, its weight is instead."""
    graph = program(4).lowered.graph
    turned = [n for n in graph.nodes if isinstance(n, Apply) and n.op.name in ("copy", "pad")
              and isinstance(n.args[0], Apply) and isinstance(n.args[0].op.lower, View)
              and not isinstance(base_layout(n.args[0])[0], Input) and n.args[0].type.ndim == 4
              and not is_contiguous(base_layout(n.args[0])[1]) and isinstance(n.type.shape[0], Extent)]
    names = [n.op.name for n in graph.nodes if isinstance(n, Apply)]
    assert turned == []
    assert not {"conv", "conv_input_grad", "conv_weight_grad", "max_pool", "max_pool_grad"} & set(names)
    assert names.count("contract") == 6 and names.count("conv_last_input_grad") == 2


def enlarged(x: gj.Tensor) -> gj.Tensor:
    return gj.repeat(gj.repeat(x, 2, axis=2), 2, axis=3)


BETWEEN: dict[str, Callable[[gj.Tensor], gj.Tensor]] = {
    "enlarged": enlarged, "rolled": lambda x: gj.roll(x, (1, -1), (2, 3)) + x,
    "means of blocks": lambda x: x.reshape(*x.shape[:2], 3, 2, 4, 2).mean((3, 5)),
    "blocks": lambda x: gj.tanh(x.reshape(*x.shape[:2], 6, 4, 2)).sum(4, keepdims=True).reshape(*x.shape[:2], 6, 4),
    "largest of blocks": lambda x: x.reshape(*x.shape[:2], 3, 2, 8).max(3),
    "beside what was before": lambda x: gj.concatenate([enlarged(F.max_pool2d(x, 2)), x], axis=1),
    "flat and back": lambda x: (x.reshape(*x.shape[:2], -1) * 2).reshape(x.shape),
    "joined with channels": lambda x: gj.tanh(x.reshape(x.shape[0], -1, 4)).reshape(x.shape),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_changes_places_alone_stays_channels_last(name: str) -> None:
    def net(x: gj.Tensor, w: gj.Tensor, v: gj.Tensor) -> gj.Tensor:
        h = BETWEEN[name](F.relu(F.conv2d(x, w, padding=1)))
        return F.conv2d(h.reshape(*h.shape[:3], -1), gj.concatenate([v] * (h.shape[1] // 5), axis=1), padding=1)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        arrays = [rng.normal(size=shape).astype(dtype) for shape in ((2, 3, 6, 8), (5, 3, 3, 3), (4, 5, 3, 3))]
        arrays[2] = arrays[2] if "beside" not in name else rng.normal(size=(4, 5, 3, 3)).astype(dtype)
        agree([net], [arrays], 3e-5 if dtype == np.float32 else 1e-11)


def test_an_enlarged_image_and_its_gradient_are_read_along_channels() -> None:
    """No loop between two convolutions steps over the channels to go from place to place."""
    w, v = (gj.tensor(np.ones((16, 16, 3, 3), np.float32), requires_grad=True) for _ in range(2))

    def step(x: gj.Tensor) -> Any:
        return gj.value_and_grad(lambda w: F.conv2d(enlarged(F.relu(F.conv2d(x, w, padding=1))), v, padding=1).sum())(w)
    f = gj.compile(step)
    f(np.ones((2, 16, 8, 8), np.float32))
    between = [s.source for s in f.latest.program.steps if isinstance(s, KernelCall) and s.source
               and s.title in ("copy", "sum")]
    assert between and all(re.search(r"i\d+ \* s\d+\] = ", text) is None for text in between)


def test_another_batch_needs_no_new_kernel() -> None:
    assert kernel_set(program(4)) == kernel_set(program(7)) == kernel_set(program(1))


def test_training_agrees_and_threads_change_no_bit() -> None:
    x, y = batch(6)
    losses = []
    for threads in (1, 2):
        before = gj.get_num_threads()
        gj.set_num_threads(threads)
        try:
            step = gj.compile(training())
            losses.append([step(x, y).item() for _ in range(4)])
        finally:
            gj.set_num_threads(before)
    assert losses[0] == losses[1]
    eager = training()
    np.testing.assert_allclose(losses[0], [eager(x, y).item() for _ in range(4)], rtol=1e-4)


@pytest.mark.parametrize(("shape", "window", "parts"), [
    ((12, 3, 40, 40), (8, 3, 3, 3), 4), ((7, 4, 40, 40), (8, 4, 3, 3), 7), ((9, 8, 500), (8, 8, 5), 3),
    ((11, 3, 40, 40), (8, 3, 3, 3), 0), ((12, 3, 6, 6), (8, 3, 3, 3), 0),
])
def test_a_long_sum_is_cut_into_parts(shape: tuple[int, ...], window: tuple[int, ...], parts: int) -> None:
    """The gradient by a weight sums over all images: parts of them, whose number their length decides."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (shape, window))

    def f(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        return gj.grad(lambda w: ((F.conv2d if x.ndim == 4 else F.conv1d)(x, w) ** 2).mean())(w)
    found, before = [], gj.get_num_threads()
    for threads in (1, 2, 3):
        gj.set_num_threads(threads)
        try:
            step = gj.compile(f)
            found.append(step(x, w).numpy())
        finally:
            gj.set_num_threads(before)
        adding = [s.title for s in step.latest.program.kernels if re.match("add . parts", s.title)]
        assert adding == ([f"add {parts} parts"] if parts else [])
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    np.testing.assert_allclose(found[0], f(gj.tensor(x), gj.tensor(w)).numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("shape", "window", "how"), [
    ((10, 32, 6, 6), (16, 32, 5, 5), {"stride": 2, "padding": 2}), ((8, 64, 4, 4), (32, 64, 3, 3), {"padding": 1}),
    ((5, 48, 12), (16, 48, 5), {"stride": 2}),
])
def test_a_small_result_of_many_channels(shape: tuple[int, ...], window: tuple[int, ...], how: dict[str, int]) -> None:
    """Weights are larger than what comes out, and there is no bias: as the last convolutions of a residual network."""
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (shape, window))
    convolve = F.conv2d if len(shape) == 4 else F.conv1d
    compiled = gj.compile(lambda x, w: convolve(x, w, **how))
    expected = convolve(gj.tensor(x, dtype="float64"), gj.tensor(w, dtype="float64"), **how).numpy()
    np.testing.assert_allclose(compiled(x, w).numpy(), expected, rtol=1e-4, atol=1e-4)
