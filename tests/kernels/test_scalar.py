"""The table of kernel functions: compiled against the NumPy twins, types, casts, integers, reductions, Threefry."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import call, optimised

from graphjit.kernels import vmath
from graphjit.kernels.irmath import B1, F32, F64, FLOATS, I8, I32, I64, INTS, SCALARS, TYPES, U8, U16, U64, V
from graphjit.kernels.scalar import CASTS, TABLE, Row
from graphjit.kernels.threefry import threefry2x32_numpy
from graphjit.runtime.compiler import LoopKernel
from graphjit.runtime.frontend import lower

every_type = pytest.mark.parametrize("kind", SCALARS, ids=str)
every_float = pytest.mark.parametrize("kind", FLOATS, ids=str)
every_int = pytest.mark.parametrize("kind", INTS, ids=str)


def dtype_of(kind: Any) -> np.dtype:
    return np.dtype(str(kind))


def compiled(lines: list[str], inputs: list[Any], outputs: list[Any]) -> Any:
    """One loop that runs every line; x0, x1 ... are the inputs and y0, y1 ... the outputs at element i."""
    names = [f"x{k}" for k in range(len(inputs))] + [f"y{k}" for k in range(len(outputs))]
    body = "".join(f"    for i in range(start, stop):\n        {line}\n" for line in lines)
    for k, kind in enumerate(inputs):
        if kind is B1:  # in memory a byte
            body = body.replace(f"x{k}[i]", f"b1(x{k}[i])")
    source = f"def loops({', '.join(names)}, start, stop):\n{body}"
    kernel = LoopKernel("loops", source, tuple(f"*{kind}" for kind in [*inputs, *outputs]))
    return lambda *arrays: call(kernel, *arrays, stop=arrays[0].size)


def values(kind: Any) -> np.ndarray:
    """Numbers of a type, its extremes among them."""
    dtype = dtype_of(kind)
    if kind == B1:
        return np.array([False, True])
    if kind in FLOATS:
        return np.array([0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -7.25, 100, np.inf, -np.inf, np.nan], dtype)
    info = np.iinfo(dtype)
    numbers = {info.min, info.min + 1, 0, 1, 2, 3, 5, 7, 63, 100, info.max // 2, info.max - 1, info.max}
    return np.array(sorted(numbers | {-n for n in numbers if info.min <= -n <= info.max}), dtype)


def same(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    if want.dtype.kind != "f":
        return np.asarray(got == want)
    close = np.abs(got - want) <= 4 * np.spacing(np.abs(want))
    return (got == want) | (np.isnan(got) & np.isnan(want)) | close


# Checked by themselves below, or (elementary functions) in test_vmath.
APART = {"threefry", "where", "fma"} | set(CASTS) | set(vmath.__all__)


@every_type
def test_compiled_functions_agree_with_their_twins_and_keep_the_type(kind):
    """Every pair of values; results written to an array of the type the row promises, without a cast."""
    apart = APART - {"pow_"} if kind in INTS else APART
    rows = {name: row for name, row in TABLE.items() if kind in row.accepts and name not in apart}
    x, y = (np.array(v) for v in zip(*itertools.product(values(kind), repeat=2), strict=True))
    if kind in INTS:
        with np.errstate(all="ignore"):
            exponents = np.abs(y % 8)  # NumPy refuses negative powers of integers
    lines, outputs, wanted = [], [], []
    for k, (name, row) in enumerate(rows.items()):
        second = "x2" if name == "pow_" and kind in INTS else "x1"
        operands = ["x0[i]", f"{second}[i]"][: row.arity]
        lines.append(f"y{k}[i] = {name}({', '.join(operands)})")
        result = row.result(*[kind] * row.arity)
        outputs.append(np.empty(x.size, dtype_of(result)))
        columns = [x, exponents if second == "x2" else y][: row.arity]
        wanted.append(np.asarray(row.quiet_twin(*columns)))
    inputs = [x, y, exponents if kind in INTS else y]
    run = compiled(lines, [kind] * 3, [TYPES[o.dtype.name] for o in outputs])
    run(*inputs, *outputs)
    with np.errstate(all="ignore"):
        for name, got, want in zip(rows, outputs, wanted, strict=True):
            assert want.dtype == got.dtype, name
            ok = same(got, want)
            assert ok.all(), (name, x[~ok][:3], y[~ok][:3], got[~ok][:3], want[~ok][:3])


@pytest.mark.parametrize(
    "expression", ["add(x, f64(x))", "mul(i32(x), i64(x))", "where(x, x, x)", "sin(i32(x))", "shl(x, x)", "exp(1)"]
)
def test_mixed_or_foreign_types_are_an_error(expression):
    source = f"def f(x, start, stop):\n    y = {expression}\n"
    with pytest.raises(TypeError, match="no rule for"):
        lower(LoopKernel("f", source, ("float32",)), "f")


def test_where_and_fma():
    run = compiled(["y0[i] = where(x0[i] > x1[i], x0[i], x1[i])", "y1[i] = fma(x0[i], x1[i], x0[i])"],
                   [F64] * 2, [F64] * 2)
    x, z = np.array([1 + 2.0**-30, 2, np.nan]), np.array([1 - 2.0**-30, 3, 1])
    chosen, fused = np.empty(3), np.empty(3)
    run(x, z, chosen, fused)
    np.testing.assert_array_equal(chosen, [1 + 2.0**-30, 3, 1])
    assert fused[0] == 2 + 2.0**-30  # x z = 1 - 2**-60 would round to 1 by itself ...
    assert (x[0] * z[0] + x[0]) == fused[0]
    assert fused[1] == 8 and np.isnan(fused[2])


# ---- casts --------------------------------------------------------------------------------------------------


@every_type
def test_casts_are_those_of_astype(kind):
    x = values(kind)
    if kind in FLOATS:
        large = [1e9, -1e9, 127.9, -128.9, 255.9, 2.0**31 - 128, -(2.0**31), 2.0**40]
        x = np.concatenate([x, np.array(large, x.dtype)])
    targets = list(CASTS.items())
    run = compiled([f"y{k}[i] = {name}(x0[i])" for k, (name, _) in enumerate(targets)], [kind], [t for _, t in targets])
    outputs = [np.empty(x.size, dtype_of(t)) for _, t in targets]
    run(x, *outputs)
    for (name, to), got in zip(targets, outputs, strict=True):
        with np.errstate(all="ignore"):
            want = x.astype(got.dtype)
        defined = np.ones(x.size, bool)
        if kind in FLOATS and to in INTS:  # what does not fit NumPy leaves to the platform
            info = np.iinfo(got.dtype)
            defined = (np.trunc(x) >= info.min) & (np.trunc(x) <= info.max)
        np.testing.assert_array_equal(got[defined], want[defined], err_msg=name)


@every_float
def test_casts_of_what_does_not_fit_are_defined(kind):
    """Saturation, 0 for NaN, and the wraparound of x86 for negative numbers to unsigned ones."""
    x = np.array([np.nan, np.inf, -np.inf, -1.0, 300.0], dtype_of(kind))
    run = compiled(["y0[i] = i32(x0[i])", "y1[i] = i64(x0[i])", "y2[i] = u8(x0[i])", "y3[i] = u64(x0[i])"], [kind],
                   [I32, I64, U8, U64])
    y = np.empty(5, np.int32), np.empty(5, np.int64), np.empty(5, np.uint8), np.empty(5, np.uint64)
    run(x, *y)
    assert y[0].tolist() == [0, 2**31 - 1, -(2**31), -1, 300]
    assert y[1].tolist() == [0, 2**63 - 1, -(2**63), -1, 300]
    assert y[2][[0, 3, 4]].tolist() == [0, 255, 44]
    assert y[3].tolist() == [0, 2**64 - 1, 2**63, 2**64 - 1, 300]


# ---- integers -----------------------------------------------------------------------------------------------


@every_int
def test_integer_division_and_power_on_random_numbers(kind):
    rng = np.random.default_rng(0)
    dtype = dtype_of(kind)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, 20_000, dtype=dtype, endpoint=True)
    y = rng.integers(info.min, info.max, x.size, dtype=dtype, endpoint=True)
    y[::2] = rng.integers(max(info.min, -9), 9, y[::2].size).astype(dtype)
    n = rng.integers(0, 100, x.size).astype(dtype)
    lines = ["y0[i] = floor_divide(x0[i], x1[i])", "y1[i] = remainder(x0[i], x1[i])", "y2[i] = pow_(x0[i], x2[i])"]
    outputs = [np.empty_like(x) for _ in lines]
    compiled(lines, [kind] * 3, [kind] * 3)(x, y, n, *outputs)
    with np.errstate(all="ignore"):
        for got, want in zip(outputs, (np.floor_divide(x, y), np.remainder(x, y), np.power(x, n)), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", [I8, U8], ids=str)
def test_every_pair_of_bytes(kind):
    """Also proves the division by way of floats."""
    every = np.arange(256).astype(dtype_of(kind))
    x, y = (v.ravel() for v in np.meshgrid(every, every))
    lines = ["y0[i] = floor_divide(x0[i], x1[i])", "y1[i] = remainder(x0[i], x1[i])"]
    lines += ["y2[i] = shl(x0[i], x1[i])", "y3[i] = shr(x0[i], x1[i])"]
    outputs = [np.empty_like(x) for _ in lines]
    compiled(lines, [kind] * 2, [kind] * 4)(x, y, *outputs)
    with np.errstate(all="ignore"):
        wanted = [ufunc(x, y) for ufunc in (np.floor_divide, np.remainder, np.left_shift, np.right_shift)]
    for got, want in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


# ---- reductions ---------------------------------------------------------------------------------------------


def reduction(name: str, kind: Any) -> LoopKernel:
    body = f"    a = x[0]\n    for i in range(start, stop):\n        a = {name}(a, x[i])\n    y[0] = a\n"
    source = f"def f(x, y, start, stop):\n{body}"
    return LoopKernel("f", source, (f"*{kind}",) * 2)


REDUCTIONS = [("radd", np.add), ("rmul", np.multiply), ("rmax", np.maximum), ("rmin", np.minimum)]


@every_float
@pytest.mark.parametrize("name, ufunc", REDUCTIONS)
def test_float_reductions_are_vectorised_and_keep_nan(name, ufunc, kind):
    x = np.random.default_rng(0).uniform(0.9, 1.1, 1003).astype(dtype_of(kind))
    kernel, y = reduction(name, kind), np.empty(1, x.dtype)
    call(kernel, x, y, stop=x.size)
    np.testing.assert_allclose(y[0], ufunc(x[0], ufunc.reduce(x.astype(np.float64))), rtol=200 * np.finfo(x.dtype).eps)
    text = optimised(kernel)
    element = "float" if kind is F32 else "double"
    assert re.search(r"vector\.body", text) and re.search(rf"<\d+ x {element}>", text)
    for at in (3, 500, 1002):
        broken = x.copy()
        broken[at] = np.nan
        call(kernel, broken, y, stop=x.size)
        assert np.isnan(y[0])


@every_float
def test_ranks_are_in_the_order_of_floats(kind):
    tiny = np.finfo(dtype_of(kind)).smallest_subnormal
    x = np.array([-np.inf, -1e30, -1, -tiny, -0.0, 0.0, tiny, 1, 1e30, np.inf, np.nan, -np.nan], dtype_of(kind))
    ranks, back = np.empty(x.size, f"i{x.itemsize}"), np.empty_like(x)
    run = compiled(["y0[i] = rank(x0[i])", "y1[i] = unrank(rank(x0[i]))"], [kind], [TYPES[ranks.dtype.name], kind])
    run(x, ranks, back)
    assert (ranks[:-2] < ranks[1:-1]).all() and ranks[-2] == ranks[-1]
    np.testing.assert_array_equal(back.view(ranks.dtype)[:-2], x.view(ranks.dtype)[:-2])
    assert np.isnan(back[-2:]).all()


@pytest.mark.parametrize("kind", [I8, I32, U16, I64], ids=str)
def test_integer_reductions_wrap_and_compare(kind):
    dtype = dtype_of(kind)
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, 999, dtype=dtype, endpoint=True)
    lines = [f"y{k}[0] = {name}(y{k}[0], x0[i])" for k, (name, _) in enumerate(REDUCTIONS)]
    results = [x[:1].copy() for _ in lines]
    compiled(lines, [kind], [kind] * len(lines))(x, *results)
    for (name, ufunc), result in zip(REDUCTIONS, results, strict=True):
        assert result[0] == ufunc(x[0], ufunc.reduce(x, dtype=dtype)).astype(dtype), name


# ---- Threefry -----------------------------------------------------------------------------------------------

# Random123's kat_vectors for threefry2x32 with 20 rounds: key, counter, first word
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), 0x6B200159),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), 0xC4923A9C),
]


THREEFRY = LoopKernel("f", """
def f(k0, k1, c0, c1, y, start, stop):
    for i in range(start, stop):
        y[i] = threefry(k0, k1, c0[i], c1[i])
""", ("uint32", "uint32", *["*uint32"] * 3))


@pytest.mark.parametrize("key, counter, word", KNOWN_ANSWERS)
def test_threefry_gives_the_published_answers(key, counter, word):
    assert threefry2x32_numpy(*key, *counter) == word
    y = np.empty(40, np.uint32)
    call(THREEFRY, *key, *(np.full(40, c, np.uint32) for c in counter), y, stop=40)
    assert (y == word).all()


def test_threefry_gives_both_published_words():
    from graphjit.kernels.threefry import block

    with np.errstate(over="ignore"):
        words = block(*(np.array([w], np.uint32) for w in (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)))
    assert [int(w[0]) for w in words] == [0xC4923A9C, 0x483DF7A0]


word = st.integers(0, 2**32 - 1)


@given(word, word, word)
@settings(max_examples=30, deadline=None)
def test_threefry_is_the_same_in_numpy_and_in_kernels(k0, k1, start):
    c0 = (start + np.arange(50, dtype=np.uint64)).astype(np.uint32)
    c1 = c0[::-1].copy()
    y = np.empty(50, np.uint32)
    call(THREEFRY, k0, k1, c0, c1, y, stop=50)
    np.testing.assert_array_equal(y, threefry2x32_numpy(k0, k1, c0, c1))


def test_threefry_is_vectorised_and_its_twin_broadcasts():
    assert re.search(r"(add|xor) (nuw |nsw )*<\d+ x i32>", optimised(THREEFRY))
    assert threefry2x32_numpy(1, 2, np.zeros((3, 1)), np.arange(4)).shape == (3, 4)
    assert threefry2x32_numpy(1, 2, 3, 4).shape == ()


def test_a_formula_of_the_wrong_type_is_our_error():
    wrong = Row(lambda x: x.const(1.0, F64), np.float64, 1, FLOATS)
    with pytest.raises(TypeError, match="formula gives float64"):
        wrong.apply("wrong", [V(None, F32.llvm(1.0), F32)])
