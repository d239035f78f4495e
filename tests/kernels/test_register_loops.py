"""Loops as code on a tile's registers: the bits of the product and the loop one after the other, whatever the loop."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_programs import examples

from graphjit.kernels import blocked, register_code
from graphjit.kernels.gemm import element_of, plan, plan_handing
from graphjit.kernels.target import target
from graphjit.kernels.tile_follower import tile_follower
from graphjit.runtime.compiler import LoopKernel, compile_kernels, pack_args

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
SHAPES = [(1, 3, 16), (9, 7, 33), (14, 1, 40), (27, 32, 15), (40, 64, 96), (61, 33, 50)]
ODD = [np.nan, np.inf, -np.inf, -0.0, 1e-40, -1e-40, 3e38]

pytestmark = pytest.mark.skipif(not target().assembly or target().tile_unit, reason="no tiles in registers")


@pytest.fixture(autouse=True)
def _any_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it pays or not."""
    monkeypatch.setattr(blocked, "hands_on_tiles", lambda *_: True)
    monkeypatch.setattr(register_code, "LONGEST", 1000)
    tile_follower.cache_clear()


def loop_of(head: Sequence[str], body: Sequence[str], dtype: str, arrays: int) -> LoopKernel:
    """A loop: `g` is the product's array, `p0`, `p1`, ... others, `u` and `c` numbers."""
    names = ["g", *(f"p{i}" for i in range(arrays)), "u", "c"]
    lines = [f"def k_loop({', '.join(names)}, start, stop):", *(f"    {x}" for x in ["v = u[0]", *head]),
             "    for i in range(start, stop):", *(f"        {x}" for x in body)]  # fmt: skip
    return LoopKernel("k_loop", "\n".join(lines) + "\n", ("*" + dtype,) * (arrays + 2) + (dtype,))


def both_ways(loop: LoopKernel, shape: tuple[int, int, int], bounds: Sequence[int], odd: bool = False) -> None:
    """Run product and loop, and the product with the loop in its tiles: the same bits everywhere."""
    (m, k, n), dtype = shape, np.dtype(loop.args[-1])
    rng = np.random.default_rng(m)
    a, b = rng.standard_normal((k, m)).astype(dtype).T, rng.standard_normal((k, n)).astype(dtype)
    others = [rng.standard_normal((m, n)).astype(dtype) for _ in loop.args[3:]]
    if odd:
        for x in (b, *others):
            x.ravel()[:: max(3, x.size // 9)] = rng.choice(ODD, x.ravel()[:: max(3, x.size // 9)].size)
    strides = [tuple(s // dtype.itemsize for s in x.strides) for x in (a, b)]
    handed, alone = plan_handing(m, n, k, dtype, *strides, "tiles"), plan(m, n, k, dtype, *strides, (n, 1))
    made = tile_follower(loop, 0, element_of(dtype))
    assert handed is not None and made is not None
    follower, product, plain, after = compile_kernels([made.kernel, handed.kernel, alone.kernel, loop])
    number = np.array([0.75], dtype)
    memory = np.zeros(max(handed.workspace, alone.workspace) + 64, np.uint8)
    address = {"a": a.ctypes.data, "b": b.ctypes.data, "workspace": -(-memory.ctypes.data // 64) * 64}

    def slots_of(given: Sequence[int | str], more: dict[str, int]) -> np.ndarray:
        return np.array([(address | more).get(s, 0) if isinstance(s, str) else s for s in given], np.int64)

    def arguments(c: int, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return pack_args([c, *(x.ctypes.data for x in arrays), number.ctypes.data, -0.5], loop.args)

    c, expected, found = np.empty((m, n), dtype), [x.copy() for x in others], [x.copy() for x in others]
    with np.errstate(all="ignore"):
        slots = slots_of(alone.slots, {"c": c.ctypes.data})
        ENTRY(plain)(slots.ctypes.data, 0, alone.extent)
        own = arguments(c.ctypes.data, expected)
        ENTRY(after)(own.ctypes.data, 0, m * n)
        own = arguments(0, found)
        told = np.array([follower, own.ctypes.data, 0, 0, 0, *[0] * made.words], np.int64)
        slots = slots_of(handed.slots, {"follower": told.ctypes.data})
        for start, stop in pairwise(bounds):
            ENTRY(product)(slots.ctypes.data, start, stop)
    for x, y in zip(expected, found, strict=True):
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(np.signbit(y) & (y == 0), np.signbit(x) & (x == 0))


LOOPS = {
    "sgd": ([], ["a = p0[i]", "b = g[i]", "x = b * c", "y = a - x", "p0[i] = y"], 1),
    "momentum": (["w = ne(v, {f}(0.0))", "d = {f}(1.0) - v"], [
        "a = p0[i]", "b = g[i]", "e = p1[i]", "x = e * v", "y = b + x", "z = where(w, y, b)", "q = a * d", "r = q + z",
        "s = abs_(r)", "t = lt(s, c)", "o = where(t, {f}(0.0), r)", "h = o * c", "j = e - h", "p0[i] = o",
        "p1[i] = j"], 2),
    "adam": ([], [
        "a = p0[i]", "b = g[i]", "e = p1[i]", "w = p2[i]", "x = b - a", "y = x * v", "z = a + y", "q = b * b",
        "r = e * v", "s = q * c", "t = r + s", "o = abs_(t)", "h = sqrt(o)", "j = h + v", "k = z / j", "f = w - k",
        "p0[i] = z", "p1[i] = o", "p2[i] = f"], 3),
    "signs": ([], [
        "a = p0[i]", "b = g[i]", "x = gt(b, a)", "y = -b", "z = where(x, y, a)", "q = le(z, c)", "r = where(q, c, z)",
        "s = square(r)", "t = ge(s, v)", "o = where(t, v, s)", "p0[i] = o", "p1[i] = g[i]"], 2),
    "a condition that does not differ, turned": (["w = eq(v, {f}(0.5))", "q = gt(c, {f}(0.0))"], [
        "a = p0[i]", "b = g[i]", "x = where(w, a, b)", "y = where(q, b, a)", "z = x / y", "p0[i] = z"], 1),
    "stored as it is": ([], ["p0[i] = g[i]", "p1[i] = c"], 2),
    "four arrays": ([], ["a = p0[i] + p1[i]", "b = p2[i] * p3[i]", "x = a + b", "y = x - g[i]", "p3[i] = y"], 4),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_in_registers_leaves_the_bits_of_the_loop(name: str, dtype: str) -> None:
    head, body, arrays = LOOPS[name]
    cast = "f32" if dtype == "float32" else "f64"
    head, body = ([line.replace("{f}", cast) for line in lines] for lines in (head, body))
    loop = loop_of(head, body, dtype, arrays)
    for m, k, n in SHAPES:
        for bounds in ([0, m], [0, m // 2, m]):
            both_ways(loop, (m, k, n), bounds)
        both_ways(loop, (m, k, n), [0, m], odd=True)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[str], int]:
    """Straight code of up to twelve operations over three arrays, and what it stores."""
    arrays = draw(st.integers(1, 3))
    lines = [f"l{i} = {array}[i]" for i, array in enumerate(["g", *(f"p{i}" for i in range(arrays))])]
    numbers, masks = [f"l{i}" for i in range(arrays + 1)], []
    for count in range(draw(st.integers(1, 12))):
        name, uniform = f"x{count}", [*numbers, "v", "c"]
        kind = draw(st.sampled_from(["+", "-", "*", "/", "neg", "abs_", "sqrt", "square", "compare", "where"]))
        x, y = draw(st.sampled_from(numbers)), draw(st.sampled_from(uniform))
        if kind == "compare":
            lines.append(f"{name} = {draw(st.sampled_from(['lt', 'le', 'gt', 'ge', 'eq', 'ne']))}({y}, {x})")
            masks.append(name)
            continue
        if kind == "where":
            if not masks:
                continue
            lines.append(f"{name} = where({draw(st.sampled_from(masks))}, {y}, {x})")
        elif kind in "+-*/":
            first, second = draw(st.permutations([x, y]))
            lines.append(f"{name} = {first} {kind} {second}")
        else:
            lines.append(f"{name} = -{x}" if kind == "neg" else f"{name} = {kind}({x})")
        numbers.append(name)
    stores = draw(st.lists(st.integers(0, arrays - 1), min_size=1, unique=True))
    return [*lines, *(f"p{i}[i] = {draw(st.sampled_from(numbers))}" for i in stores)], arrays


@examples(60)
@given(bodies(), st.sampled_from(SHAPES), st.booleans())
def test_any_arithmetic_leaves_the_bits_of_the_loop(
        body: tuple[list[str], int], shape: tuple[int, int, int], odd: bool) -> None:  # fmt: skip
    loop = loop_of([], body[0], "float32", body[1])
    assume(tile_follower(loop, 0, element_of(np.dtype(np.float32))) is not None)
    both_ways(loop, shape, [0, shape[0]], odd)


@pytest.mark.parametrize("body", [
    ["x = exp(g[i])", "p0[i] = x"],                   # no arithmetic
    ["x = g[i] + p0[i + 1]", "p0[i] = x"],            # another element
    ["p0[i] = g[i]", "x = p0[i] + p1[i]", "p1[i] = x"],  # reads what it has written
    ["g[i] = p0[i]"],                                 # the product itself
    ["x = p0[i]", "y = p1[i]", "p0[i] = y", "p1[i] = x"],  # arrays change places
])  # fmt: skip
def test_other_loops_are_left_alone(body: list[str]) -> None:
    loop = loop_of([], body, "float32", 2)
    assert tile_follower(loop, 0, element_of(np.dtype(np.float32))) is None


def test_where_a_loop_stands_in_a_program_makes_no_other_kernel() -> None:
    element, loop = element_of(np.dtype(np.float32)), loop_of([], LOOPS["sgd"][1], "float32", 1)
    moved = LoopKernel("k_moved", loop.source.replace("k_loop", "k_moved").replace("b * c", "b * c  # train.py:7 mul"),
                       loop.args)  # fmt: skip
    first, second = (tile_follower(each, 0, element) for each in (loop, moved))
    assert first is not None and second is not None and first.kernel.key == second.kernel.key


def test_loops_with_many_conditions_are_left_alone() -> None:
    head = [f"w{i} = gt(v, f32({i}.0))" for i in range(3)]
    body = ["x = where(w0, g[i], c)", "y = where(w1, x, p0[i])", "z = where(w2, y, x)", "p0[i] = z"]
    element = element_of(np.dtype(np.float32))
    assert tile_follower(loop_of(head[:2], [*body[:2], "p0[i] = y"], "float32", 1), 0, element) is not None
    assert tile_follower(loop_of(head, body, "float32", 1), 0, element) is None


def test_long_loops_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    loops = {name: loop_of([], [line.replace("{f}", "f32") for line in LOOPS[name][1]], "float32", LOOPS[name][2])
             for name in ("sgd", "adam")}  # fmt: skip
    element = element_of(np.dtype(np.float32))
    tile_follower.cache_clear()
    assert tile_follower(loops["sgd"], 0, element) is not None
    assert tile_follower(loops["adam"], 0, element) is not None  # eighteen
    more = [f"x{i} = {f'x{i - 1}' if i else 'g[i]'} * c" for i in range(20)]
    longer = loop_of([], [*more, "p0[i] = x19"], "float32", 1)
    assert tile_follower(longer, 0, element) is None
