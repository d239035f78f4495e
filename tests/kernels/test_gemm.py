"""Matrix products against NumPy in double precision, with unreadable pages around every operand."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from graphjit.kernels import tile_product
from graphjit.kernels.blocked import blocked_kernel
from graphjit.kernels.blocked_loops import NAMES
from graphjit.kernels.gemm import GemmPlan, element_of, plan
from graphjit.kernels.packing import Packing
from graphjit.kernels.target import target
from graphjit.runtime.compiler import compile_kernels

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]

# ---- operands in memory that notices ------------------------------------------------------------------------------


def place(values: np.ndarray, layout: str, at_end: bool = True) -> np.ndarray:
    """A copy of the values that lies in guarded memory as the layout says."""
    *batch, rows, cols = values.shape
    size = values.dtype.itemsize

    def new(*shape: int) -> np.ndarray:
        return guarded(int(np.prod(shape)) * size, at_end).view(values.dtype).reshape(shape)

    match layout:
        case "row":
            out = new(*batch, rows, cols)
        case "column":
            out = np.moveaxis(new(*batch, cols, rows), -1, -2)
        case "wide":  # rows of a larger matrix, from the middle of it
            out = new(*batch, rows, cols + 7)[..., 3 : 3 + cols]
        case "strided":
            out = new(*batch, rows, 3 * cols)[..., 1::3]
        case "reversed":
            out = new(*batch, rows, cols)[..., ::-1, ::-1]
        case "interleaved":  # the batch innermost
            out = new(rows, cols, *batch)
            if batch:
                out = np.moveaxis(out, range(-len(batch), 0), range(len(batch)))
        case _:
            raise ValueError(layout)
    out[...] = values
    return out


LAYOUTS = ["row", "column", "wide", "strided", "reversed", "interleaved"]

# ---- running a plan -----------------------------------------------------------------------------------------


def strides_of(x: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // x.itemsize for stride in x.strides)


def plan_for(a: np.ndarray, b: np.ndarray, c: np.ndarray, accumulate: bool = False, epilogue: str = "store",
             e: Sequence[np.ndarray] = ()) -> GemmPlan:
    (*a_batch, am, ak), (*b_batch, bk, bn), (*c_batch, cm, cn) = map(strides_of, (a, b, c))
    return plan(c.shape[-2], c.shape[-1], a.shape[-1], a.dtype, (am, ak), (bk, bn), (cm, cn), c.shape[:-2],
                tuple(a_batch), tuple(b_batch), tuple(c_batch), accumulate, epilogue, [strides_of(x) for x in e])


def run(gemm: GemmPlan, a: np.ndarray, b: np.ndarray, c: np.ndarray, e: Sequence[np.ndarray] = (),
        cuts: Sequence[int] = ()) -> None:
    """Compute all units, in pieces from cut to cut, the last piece first."""
    (address,) = compile_kernels([gemm.kernel])
    workspace = guarded(gemm.workspace, True)
    addresses = {"a": a, "b": b, "c": c, "workspace": workspace} | {f"e{i}": x for i, x in enumerate(e)}
    values = [addresses[slot].ctypes.data if isinstance(slot, str) else slot for slot in gemm.slots]
    slots = np.array(values, np.int64)
    assert len(slots) == gemm.kernel.nargs
    edges = [0, *sorted(min(cut, gemm.extent) for cut in cuts), gemm.extent]
    for start, stop in reversed(list(pairwise(edges))):
        workspace[...] = 0xFF  # NaN: nothing may depend on what the last call left
        ENTRY(address)(slots.ctypes.data, start, stop)


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray, accumulate: bool = False, epilogue: str = "store",
            e: Sequence[np.ndarray] = (), cuts: Sequence[int] = ()) -> None:
    run(plan_for(a, b, c, accumulate, epilogue, e), a, b, c, e, cuts)


EPILOGUES: dict[str, Callable[..., np.ndarray]] = {
    "store": lambda x: x,
    "bias": lambda x, bias: x + bias,
    "bias_relu": lambda x, bias: np.maximum(x + bias, 0),
}


def check(a: np.ndarray, b: np.ndarray, c: np.ndarray, accumulate: bool = False, epilogue: str = "store",
          e: Sequence[np.ndarray] = (), cuts: Sequence[int] = ()) -> None:
    """The product is right to the rounding of one chain of sums, and cutting it changes no bit."""
    wide = [x.astype(np.float64) for x in (a, b, c)]
    want = wide[0] @ wide[1] + (wide[2] if accumulate else 0)
    scale = abs(wide[0]) @ abs(wide[1]) + (abs(wide[2]) if accumulate else 0)
    want = EPILOGUES[epilogue](want, *(x.astype(np.float64) for x in e))
    scale = scale + (abs(e[0]) if e else 0)
    before = c.copy()
    product(a, b, c, accumulate, epilogue, e)
    whole = c.copy()
    c[...] = before
    product(a, b, c, accumulate, epilogue, e, cuts)
    np.testing.assert_array_equal(c, whole)
    bound = (a.shape[-1] + 3) * np.finfo(a.dtype).eps * scale
    assert (abs(whole - want) <= bound).all()


# ---- correctness --------------------------------------------------------------------------------------------


def normal(rng: np.random.Generator, dtype: np.dtype[Any], *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


SHAPES = [
    (1, 1, 1), (1, 16, 5), (1, 300, 70), (5, 1, 9), (130, 1, 40), (3, 4, 0), (8, 32, 16), (64, 128, 784), (37, 29, 53),
    (100, 16, 2), (32, 10, 64), (17, 33, 1), (7, 47, 15), (9, 49, 17), (600, 40, 30), (40, 1100, 70), (20, 60, 1300),
    (70, 1030, 400), (900, 1025, 130), (11, 13, 200), (21, 5, 37), (60, 333, 65),
    (66, 35, 300), (24, 33, 100), (150, 65, 48), (90, 50, 700),
]  # fmt: skip


@pytest.fixture(params=["as planned", "tile unit"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products on the CPU's tile unit, where there is one, whether that pays or not; then as they are planned."""
    if request.param == "tile unit":
        prefer_tiles(monkeypatch)


def prefer_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    if not target().tile_unit:
        pytest.skip("this CPU has no tile unit")
    monkeypatch.setattr(tile_product, "cycles", lambda problem, element: 0.0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layouts", ["row row row", "column row row", "row column row", "column column row",
                                     "row row column", "row column column", "row strided row", "row row strided",
                                     "reversed reversed reversed"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_shapes_and_layouts(dtype: np.dtype[Any], layouts: str) -> None:
    rng = np.random.default_rng(0)
    for number, (m, n, k) in enumerate(SHAPES):
        at_end = number % 2 == 0
        shapes = (m, k), (k, n), (m, n)
        a, b, c = (place(normal(rng, dtype, *shape), layout, at_end)
                   for shape, layout in zip(shapes, layouts.split(), strict=True))
        check(a, b, c, cuts=(1, n // 2))


@st.composite
def products(draw: st.DrawFn) -> dict[str, Any]:
    size = st.one_of(st.sampled_from([0, 1, 1, 2, 8, 16, 32, 48]), st.integers(1, 70))
    m, n, k = draw(size), draw(size), draw(size)
    batch = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    at_end = draw(st.booleans())

    def operand(rows: int, cols: int, broadcasts: bool) -> np.ndarray:
        kept = [1 if broadcasts and draw(st.booleans()) else length for length in batch]
        values = place(normal(rng, dtype, *kept, rows, cols), draw(st.sampled_from(LAYOUTS)), at_end)
        return np.broadcast_to(values, (*batch, rows, cols))

    a, b = operand(m, k, True), operand(k, n, True)
    c = place(normal(rng, dtype, *batch, m, n), draw(st.sampled_from(LAYOUTS)), at_end)
    epilogue = draw(st.sampled_from(list(EPILOGUES)))
    e: list[np.ndarray] = []
    if epilogue != "store":
        e = [np.broadcast_to(place(normal(rng, dtype, 1, n), "row")[0], c.shape)]
    cuts = draw(st.lists(st.integers(0, 100), max_size=3))
    return {"a": a, "b": b, "c": c, "accumulate": draw(st.booleans()), "epilogue": epilogue, "e": e, "cuts": cuts}


@settings(max_examples=300, deadline=None)
@given(products(), st.booleans())
def test_any_product(case: dict[str, Any], tiles: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if tiles and target().tile_unit:
            prefer_tiles(patch)
        _any_product(case)


def _any_product(case: dict[str, Any]) -> None:
    try:
        plan_for(*(case[name] for name in ("a", "b", "c", "accumulate", "epilogue", "e")))
        plain = np.empty(case["c"].shape, case["c"].dtype)
        plan_for(case["a"], case["b"], plain, case["accumulate"], case["epilogue"], case["e"])
    except ValueError as refusal:
        assert "contiguous" in str(refusal)
        return
    check(**case)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_lies_beside_c_stays(dtype: np.dtype[Any], layout: str, accumulate: bool) -> None:
    """The last vectors of rows are stored by instructions of many widths."""
    rng = np.random.default_rng(0)
    for n in range(1, 52):
        for m, k in ((1, 40), (3, 5), (8, 1), (15, 20)):
            around = normal(rng, dtype, m, n + 7)
            a, b = place(normal(rng, dtype, m, k), "row"), place(normal(rng, dtype, k, n), layout)
            before = around.copy()
            product(a, b, around[:, 3 : 3 + n], accumulate)
            np.testing.assert_array_equal(around[:, :3], before[:, :3])
            np.testing.assert_array_equal(around[:, 3 + n :], before[:, 3 + n :])
            want = a.astype(np.float64) @ b + (before[:, 3 : 3 + n] if accumulate else 0)
            np.testing.assert_allclose(around[:, 3 : 3 + n], want, rtol=0, atol=1e3 * np.finfo(dtype).eps)


@pytest.mark.skipif(not target().assembly, reason="tiles in IR have no such kernel")
def test_the_kernel_of_small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing is packed of, or cut in, takes the kernel that has little to work out; all else the others."""
    monkeypatch.setattr(tile_product, "fits", lambda *_: False)  # a tile unit has kernels of its own

    def kernel(m: int, n: int, k: int, b_layout: str = "row", batch: int = 1) -> str:
        rng = np.random.default_rng(0)
        a, b = normal(rng, FLOATS[0], batch, m, k), place(normal(rng, FLOATS[0], batch, k, n), b_layout)
        c = normal(rng, FLOATS[0], batch, m, n)
        check(a, b, c, cuts=(1, m // 2, m + 1))
        return plan_for(a, b, c).kernel.name

    for small in ((2, 2, 2), (64, 128, 100), (100, 16, 2), (13, 257, 17), (1, 138, 8)):
        assert kernel(*small) == kernel(*small, batch=3) == "gemm_unpacked_float32"
    assert kernel(64, 128, 128, "column") == kernel(8, 1000, 1000) == kernel(40, 65, 2000) == "gemm_float32"
    assert kernel(1, 70, 300, "column") == "dot_float32"


@pytest.mark.parametrize("a_layout", ["row", "wide"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_single_column(dtype: np.dtype[Any], a_layout: str) -> None:
    """Rows of A that are read each to its end, and those that are left over, give the bits that tiles do."""
    rng, lanes = np.random.default_rng(0), target().lanes(dtype.itemsize)
    for k in (1, lanes - 1, lanes, 2 * lanes, 3 * lanes + 1, 5 * lanes, 8 * lanes - 1, 8 * lanes, 8 * lanes + 1):
        for m in (11, 12, 13, 23, 40):
            a, b = place(normal(rng, dtype, m, k), a_layout), place(normal(rng, dtype, k, 1), "row")
            c = place(np.zeros((m, 1), dtype), "row")
            check(a, b, c, cuts=range(1, m))  # a row alone goes through a tile
            check(a, b, place(normal(rng, dtype, m, 1), "row"), accumulate=True, cuts=(5,))
            check(a, b, c, epilogue="bias", e=[place(normal(rng, dtype, m, 1), "row")], cuts=(3,))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_few_columns(dtype: np.dtype[Any]) -> None:
    """Columns that take turns in memory are taken apart, where there is nothing else between them."""
    rng, lanes = np.random.default_rng(0), target().lanes(dtype.itemsize)
    for n in range(2, 11):
        for k in (1, lanes - 1, lanes, lanes + 1, 3 * lanes - 1, 4 * lanes):
            a = place(normal(rng, dtype, 2, 6, k), "row")
            for layout in ("row", "wide"):
                b = place(normal(rng, dtype, 2, k, n), layout)
                check(a, b, place(np.zeros((2, 6, n), dtype), "row"), cuts=(5,))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize(("m", "k", "n"), [(57, 16, 16), (16, 16, 57), (200, 4, 65), (24, 100, 33)])
def test_an_empty_piece_adds_nothing(m: int, k: int, n: int, layout: str, dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    for forms in ("row", "column"):
        a, b = place(normal(rng, dtype, m, k), forms), place(normal(rng, dtype, k, n), forms)
        check(a, b, place(normal(rng, dtype, m, n), layout), accumulate=True, cuts=[0, 10_000, 10_000])


@pytest.mark.parametrize("layout", ["column", "strided"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_panels_stay_packed_for_all_blocks_of_rows(dtype: np.dtype[Any], layout: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of rows, near and far B, several blocks of k, a batch, last columns that fill no vector."""
    rng = np.random.default_rng(0)
    kept, machine = 0, replace(target(), l1=48 << 10, l2=1 << 20)  # what is near, and stays, depends on its caches
    for module in ("gemm", "blocked", "blocking"):
        monkeypatch.setattr(f"graphjit.kernels.{module}.target", lambda: machine)
    for m, n, k, batch in ((1700, 70, 300, ()), (1100, 1130, 700, ()), (2100, 37, 90, (2,))):
        a, b = normal(rng, dtype, *batch, m, k), place(normal(rng, dtype, *batch, k, n), layout)
        c = place(normal(rng, dtype, *batch, m, n), "row")
        gemm = plan_for(a, b, c)
        kept += gemm.kernel == blocked_kernel(element_of(dtype)) and gemm.slots[NAMES.index("panel_step")] > 0
        check(a, b, c, accumulate=k > 500, cuts=(1, m // 2, m - 1))
    fetched = target().assembly or layout == "strided"  # or gathered; else what is far away does not stay
    assert kept == 2 + fetched or target().tile_unit


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_tall_transposes_are_packed(dtype: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside panels of B that are packed and such that are not, with rows and columns left over, by several blocks of k
    and of rows; rows that displace each other sooner than others."""
    rng = np.random.default_rng(0)
    machine = replace(target(), l1=48 << 10, l2=1 << 20)
    for module in ("gemm", "blocked", "blocking"):
        monkeypatch.setattr(f"graphjit.kernels.{module}.target", lambda: machine)
    packs, at = [], NAMES.index("a_packing")
    for m, n, k, batch in ((2048, 70, 300, ()), (1030, 300, 520, ()), (2048, 128, 140, (2,)), (700, 30, 300, ())):
        a, b = place(normal(rng, dtype, *batch, m, k), "column"), normal(rng, dtype, *batch, k, n)
        c = place(normal(rng, dtype, *batch, m, n), "row")
        gemm = plan_for(a, b, c)
        packs.append(gemm.kernel == blocked_kernel(element_of(dtype)) and gemm.slots[at] == Packing.COPY)
        check(a, b, c, accumulate=k > 500, cuts=(1, m // 2, m - 1))
    assert packs == [True, True, True, False] or target().tile_unit


@pytest.mark.parametrize("epilogue", ["bias", "bias_relu"])
@pytest.mark.parametrize("layout", ["row", "column", "strided"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_epilogues_of_several_blocks_and_matrices(dtype: np.dtype[Any], layout: str, epilogue: str) -> None:
    """A bias is added once, behind the last block of k, for each column or for each row."""
    rng = np.random.default_rng(0)
    for m, n, k in ((40, 70, 900), (33, 17, 1), (5, 200, 2500), (64, 128, 784), (300, 9, 40)):
        for batch in ((), (3,)):
            a, b = normal(rng, dtype, *batch, m, k), normal(rng, dtype, *batch, n, k).swapaxes(-1, -2)
            for bias in (normal(rng, dtype, n), normal(rng, dtype, m, 1)):
                c = place(normal(rng, dtype, *batch, m, n), layout)
                for accumulate in (False, True):
                    check(a, b, c, accumulate, epilogue, [np.broadcast_to(bias, c.shape)], cuts=(1, m // 2))


def test_a_rectified_bias_keeps_nan_and_has_no_negative_zero() -> None:
    for k in (3, 1000):
        a, b = np.zeros((40, k), np.float32), np.zeros((k, 35), np.float32)
        a[3, 1], b[0, 7] = np.nan, -np.inf
        bias = np.where(np.arange(35) % 2, -1, -0.0).astype(np.float32)
        c = np.full((40, 35), 7, np.float32)
        product(a, b, c, epilogue="bias_relu", e=[np.broadcast_to(bias, c.shape)])
        assert np.isnan(c[3]).all() and np.isnan(c[:, 7]).all()
        rest = np.delete(np.delete(c, 3, 0), 7, 1)
        assert (rest == 0).all() and not np.signbit(rest).any()


# ---- the tile unit, which splits float32 numbers in three ----------------------------------------------------


def test_tiles_are_as_exact_as_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_tiles(monkeypatch)
    rng = np.random.default_rng(0)
    for depth in (40, 300, 3000):
        a, b = rng.standard_normal((64, depth)).astype(np.float32), rng.random((depth, 64)).astype(np.float32)
        c = np.empty((64, 64), np.float32)
        product(a, b, c)
        chain = np.zeros((64, 64), np.float32)
        for k in range(depth):  # a multiply-add: the product is exact, the sum rounded
            chain = (chain + a[:, k, None].astype(np.float64) * b[k]).astype(np.float32)
        exact = a.astype(np.float64) @ b
        assert np.sqrt(((c - exact) ** 2).mean()) <= np.sqrt(((chain - exact) ** 2).mean())


def test_tiles_with_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_tiles(monkeypatch)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 700)).astype(np.float32), rng.standard_normal((700, 60)).astype(np.float32)
    huge = np.finfo(np.float32).max
    a[3, 5], a[4, 650], a[5, 7], a[6, 8], a[7, 9] = np.inf, -np.inf, np.nan, huge, huge / 4 * 3
    b[8:10] *= 0.1  # no overflow
    b[100, 50], b[11, 3], b[12] = np.inf, huge, 0
    b[7, 9] = 0
    b[5, 2] = 0  # infinity times zero
    a[:, 11] = 1e-3
    a[9] = [1, 0] * 350  # exact parts of which the lower ones are zero
    a[:, 100] = np.where(np.arange(50) % 2, 1, -2)
    c = np.empty((50, 60), np.float32)
    product(a, b, c)
    with np.errstate(invalid="ignore", over="ignore"):
        want = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
        scale = abs(a).astype(np.float64) @ abs(b)
    np.testing.assert_array_equal(np.isnan(c), np.isnan(want))
    np.testing.assert_array_equal(np.isposinf(c), np.isposinf(want))
    np.testing.assert_array_equal(np.isneginf(c), np.isneginf(want))
    fine = np.isfinite(want)
    assert fine.sum() > 2500 and (abs(c[fine] - want[fine]) <= 1e-5 * scale[fine]).all()
    whole = c.copy()
    product(a, b, c, cuts=(1, 2))
    np.testing.assert_array_equal(c, whole)


def test_tiles_that_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial products of either sign overflow where the whole product is of one."""
    prefer_tiles(monkeypatch)
    rng = np.random.default_rng(0)
    a, b = (np.full(shape, 1e-3, np.float32) for shape in ((40, 96), (96, 48)))
    a[::3, 7], b[7] = 1e30 * rng.uniform(1, 2, 14), 1e30 * rng.uniform(1, 2, 48)
    c = np.empty((40, 48), np.float32)
    product(a, b, c)
    assert np.isposinf(c[::3]).all() and np.isfinite(np.delete(c, np.s_[::3], 0)).all()


@pytest.mark.parametrize("layouts", ["row row", "column column"])
def test_tiles_with_tiny_numbers_among_others(monkeypatch: pytest.MonkeyPatch, layouts: str) -> None:
    """Of any size down to the smallest denormal: the parts of one number leave those of its neighbours alone."""
    prefer_tiles(monkeypatch)
    rng = np.random.default_rng(0)

    def mixed(*shape: int) -> np.ndarray:
        tiny = np.ldexp(rng.uniform(-2, 2, shape), -rng.integers(90, 151, shape))
        return np.where(rng.random(shape) < 0.5, tiny, rng.standard_normal(shape)).astype(np.float32)

    a, b = (place(mixed(*shape), layout)
            for shape, layout in zip(((50, 300), (300, 70)), layouts.split(), strict=True))
    c = np.empty((50, 70), np.float32)
    product(a, b, c)
    assert (abs(c - a.astype(np.float64) @ b) <= 1e-6 * (abs(a).astype(np.float64) @ abs(b))).all()


@pytest.mark.parametrize("layouts", ["row row row", "column row row", "row column row"])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 128, 784), (128, 784, 64), (784, 100, 33), (200, 90, 1100),
                                           (64, 128, 128), (37, 300, 500), (900, 33, 50)])
def test_the_way_for_several_cores_gives_the_same_bits(m: int, n: int, k: int, layouts: str) -> None:
    """Which operand all shares read decides by rows or columns, and which operand is A, not the order of a sum."""
    rng = np.random.default_rng(m + n + k)
    a, b, c = (place(normal(rng, FLOATS[0], *shape), layout)
               for shape, layout in zip(((m, k), (k, n), (m, n)), layouts.split(), strict=True))
    found = []
    for cores in (1, 2, 4):
        gemm = plan(m, n, k, a.dtype, strides_of(a), strides_of(b), strides_of(c), cores=cores)
        c[...] = np.nan
        run(gemm, a, b, c)
        found.append(c.tobytes())
    assert found[0] == found[1] == found[2]
