"""Loops that follow a product, by strips or tiles: the same values as one after the other, and where that is done."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.codegen.call import KernelCall
from graphjit.kernels import blocked
from graphjit.kernels.gemm import element_of, plan_handing
from graphjit.kernels.target import target
from graphjit.kernels.tile_follower import tile_follower
from graphjit.nn import functional as F
from graphjit.runtime.compiler import LoopKernel, compile_kernels, pack_args

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
UPDATE = LoopKernel("k_follow", """\
def k_follow(p0, p1, p2, start, stop):
    for i0 in range(start, stop):
        v0 = p0[i0] + p1[i0]
        p0[i0] = v0
        p2[i0] = v0 * v0
""", ("*float32", "*float32", "*float32"))

pytestmark = pytest.mark.skipif(not (target().tile_unit or target().assembly), reason="no tiles that fetch ahead")


def whole_numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small ones: their products and sums are exact, in whatever order."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


def follow(a: np.ndarray, b: np.ndarray, bounds: Sequence[int], kept: np.ndarray, how: str = "strips",
           near: int = 2) -> np.ndarray:  # fmt: skip
    """Add a @ b to ``kept`` by a product and its follower, rows in these pieces; the squares of the sums. The product
    is told of so many arrays that the follower goes through."""
    (m, k), n = a.shape, b.shape[1]
    found = plan_handing(m, n, k, np.float32, *(tuple(s // 4 for s in x.strides) for x in (a, b)), how)
    assert found is not None
    assert found.extent == m
    kernel, words = UPDATE, 0
    if how == "tiles":
        made = tile_follower(UPDATE, 1, element_of(a.dtype))
        assert made is not None
        kernel, words = made
    product, follower = compile_kernels([found.kernel, kernel])
    squares = np.full((m, n), np.nan, np.float32)
    own = pack_args([kept.ctypes.data, 0, squares.ctypes.data], UPDATE.args)
    arrays = [own.ctypes.data, own.ctypes.data + 16][:near] + [0] * (2 - near)
    handed = np.array([follower, own.ctypes.data, own.ctypes.data + 8, *arrays, *[0] * words], np.int64)
    memory = np.full(found.workspace + 64, 0xA5, np.uint8)
    address = {"a": a.ctypes.data, "b": b.ctypes.data, "workspace": -(-memory.ctypes.data // 64) * 64,
               "follower": handed.ctypes.data}
    slots = np.array([address.get(s, 0) if isinstance(s, str) else s for s in found.slots], np.int64)
    for start, stop in pairwise(bounds):
        ENTRY(product)(slots.ctypes.data, start, stop)
    return squares


DEEP = pytest.param(130, 512, 64, marks=pytest.mark.skipif(
    not target().tile_unit, reason="so many steps of k are more than one block where there is no tile unit"))


@pytest.mark.parametrize(("m", "k", "n"), [(32, 32, 32), (64, 64, 784), (100, 40, 300), (33, 1, 17), (5, 70, 200),
                                           DEEP, (130, 128, 64), (40, 33, 6000), (200, 96, 50),
                                           (120, 200, 1000), (130, 400, 200)])  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("how", "near"), [("strips", 0), ("strips", 1), ("strips", 2), pytest.param(
    "tiles", 0, marks=pytest.mark.skipif(target().tile_unit or not target().assembly, reason="no tiles in registers"))])
def test_a_follower_sees_each_element_once(m: int, k: int, n: int, turned: bool, how: str, near: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(blocked, "hands_on_tiles", lambda *_: True)
    a = np.ascontiguousarray(whole_numbers((m, k), 1).T).T if turned else whole_numbers((m, k), 1)
    b = np.ascontiguousarray(whole_numbers((k, n), 2).T).T if turned else whole_numbers((k, n), 2)
    if turned and k == 400 and not target().tile_unit:  # two blocks, as B is transposed before
        assert plan_handing(m, n, k, np.float32, (1, m), (1, k), how) is None
        return
    for bounds in ([0, m], [0, m // 2, m], [0, 1, m // 3, m]):
        kept = whole_numbers((m, n), 3)
        expected = kept + a @ b
        squares = follow(a, b, bounds, kept, how, near)
        np.testing.assert_array_equal(kept, expected)
        np.testing.assert_array_equal(squares, expected * expected)


def test_infinities_are_handed_on_as_the_product_has_them() -> None:
    a, b = whole_numbers((64, 64), 1), whole_numbers((64, 64), 2)
    a[3, 5], b[7, 9] = np.inf, 3e38
    kept = np.zeros((64, 64), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    follow(a, b, [0, 64], kept)
    np.testing.assert_array_equal(kept, expected)


# ---- compiled steps ---------------------------------------------------------------------------------------------


def training(optimizer: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], list[Any]]:
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 256), nn.Tanh(), nn.Linear(256, 300), nn.Tanh(), nn.Linear(300, 3))
    opt = optimizer(model.parameters(), **options)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss
    return step, list(model.parameters())


def followed(compiled: Any) -> list[KernelCall]:
    return [k for k in compiled.latest.program.kernels if k.then is not None]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("optimizer", "options"), [
    (optim.SGD, {"lr": 0.1}), (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}), (optim.Adam, {}),
    (optim.AdamW, {"weight_decay": 0.1})])  # fmt: skip
def test_updates_follow_the_products_of_their_gradients(optimizer: Callable[..., Any], options: dict[str, float],
                                                        threads: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((48, 300)).astype(np.float32), rng.integers(0, 3, 48)
    before = gj.get_num_threads()
    try:
        gj.set_num_threads(threads)
        step, eager = training(optimizer, **options)
        losses = [float(step(x, y)) for _ in range(4)]
        step, compiled = training(optimizer, **options)
        fast = gj.compile(step)
        np.testing.assert_allclose([float(fast(x, y)) for _ in range(4)], losses, rtol=2e-5)
    finally:
        gj.set_num_threads(before)
    assert len(followed(fast)) == 2, fast.explain()
    for p, q in zip(eager, compiled, strict=True):
        # Adam divides a gradient by its size: where that is tiny, by noise
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-3, atol=1e-4)


def test_a_gradient_that_is_wanted_elsewhere_is_stored() -> None:
    gj.manual_seed(0)
    layer = nn.Linear(300, 256)
    opt = optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        layer(x).square().mean().backward()
        opt.step()
        return layer.weight.grad
    x = np.random.default_rng(0).standard_normal((48, 300)).astype(np.float32)
    fast = gj.compile(step)
    old = layer.weight.numpy().copy()
    gradient = fast(x)
    assert not followed(fast)
    np.testing.assert_allclose(layer.weight.numpy(), old - 0.1 * gradient.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(target().tile_unit, reason="products on the tile unit hide a loop's time, whatever it reads")
def test_a_loop_that_reads_nothing_else_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    x, w, other = (rng.standard_normal(shape).astype(np.float32) for shape in ((400, 64), (64, 300), (400, 300)))
    alone, beside = gj.compile(lambda: gj.tanh(gj.tensor(x) @ w)), gj.compile(lambda o: gj.tanh(gj.tensor(x) @ w) * o)
    np.testing.assert_allclose(alone().numpy(), np.tanh(x @ w), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(beside(other).numpy(), np.tanh(x @ w) * other, rtol=1e-4, atol=1e-5)
    assert not followed(alone) and len(followed(beside)) == 1


@pytest.mark.skipif(target().tile_unit or not target().assembly, reason="no tiles in registers")
@pytest.mark.parametrize(("m", "k", "n"), [(150, 40, 300), (128, 64, 128), (20, 8, 12)])
def test_arithmetic_behind_a_product_is_done_in_its_tiles(m: int, k: int, n: int,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind those that the kernel of small products would store."""
    monkeypatch.setattr(blocked, "hands_on_tiles", lambda *_: True)  # however large this machine's caches are
    x, w, other = (whole_numbers(shape, i) for i, shape in enumerate([(m, k), (k, n), (m, n)]))
    fast = gj.compile(lambda x, o: (x @ gj.tensor(w)) * 0.5 + o)
    np.testing.assert_array_equal(fast(x, other).numpy(), (x @ w) * 0.5 + other)
    [call] = followed(fast)
    assert call.words > 0


def test_threads_and_strips_leave_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((48, 300)).astype(np.float32), rng.integers(0, 3, 48)
    before, found = gj.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            gj.set_num_threads(threads)
            step, parameters = training(optim.SGD, lr=0.1, momentum=0.9)
            fast = gj.compile(step)
            for _ in range(3):
                fast(x, y)
            assert followed(fast)
            found.append([p.numpy().copy() for p in parameters])
    finally:
        gj.set_num_threads(before)
    for other in found[1:]:
        for p, q in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(p, q)
