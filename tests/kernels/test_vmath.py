"""The elementary functions of kernels: error in units in the last place, edges, vectorisation, same bits everywhere."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from kernel_calls import optimised

from benchmarks.vmath import EXTENDED, FUNCTIONS, arguments, exact, largest_error, loop_kernel, run, sweep, ulps
from graphjit.kernels import reference, vmath
from graphjit.kernels.scalar import TABLE

DTYPES = [np.float32, np.float64]
CASES = list(itertools.product(FUNCTIONS, DTYPES))
UNARY = [name for name, function in FUNCTIONS.items() if function.arity == 1]

every_function = pytest.mark.parametrize("name, dtype", CASES)
every_unary = pytest.mark.parametrize("name, dtype", list(itertools.product(UNARY, DTYPES)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_every_elementary_function_is_judged():
    assert set(vmath.__all__) <= set(FUNCTIONS)
    assert set(FUNCTIONS) <= set(TABLE)


def need_reference(name: str, dtype: type) -> None:
    if dtype is np.float64 and FUNCTIONS[name].extended:
        pytest.importorskip("mpmath")
    elif dtype is np.float64 and not EXTENDED:
        pytest.skip("no long double wider than double")


@every_function
def test_error_stays_within_its_bound(name, dtype, rng):
    need_reference(name, dtype)
    costly = dtype is np.float64 and FUNCTIONS[name].extended
    error, at = largest_error(name, dtype, 500 if costly else 100_000, rng)
    assert error <= FUNCTIONS[name].bound, f"{error} ulp at {at}"


@pytest.mark.slow
@every_function
def test_error_stays_within_its_bound_on_a_dense_sweep(name, dtype, rng):
    need_reference(name, dtype)
    costly = dtype is np.float64 and FUNCTIONS[name].extended
    for _ in range(4):
        error, at = largest_error(name, dtype, 3_000 if costly else 2_000_000, rng)
        assert error <= FUNCTIONS[name].bound, f"{error} ulp at {at}"


@pytest.mark.slow
@pytest.mark.parametrize("name", UNARY)
def test_every_199th_float32(name):
    step = 199
    for first in range(0, 2**32, 2**28):
        x = np.arange(first, first + 2**28, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        if name in ("lgamma", "digamma"):
            x = x[x > 0]
        if x.size:
            error = ulps(run(name, x), exact(name, x))
            worst = int(np.argmax(error))
            assert error[worst] <= FUNCTIONS[name].bound, f"{error[worst]} ulp at {x[worst]!r}"


# ---- edges --------------------------------------------------------------------------------------------------


def edges(dtype: type) -> np.ndarray:
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny / 4, info.tiny, 0.5, 1.0, 1 + info.eps, 2.0, 3.0, 10.0]
    positive += [89.0, 104.0, 710.0, 746.0, 1e30, info.max, np.inf]
    return np.array([*positive, *(-p for p in positive), np.nan], dtype)


def assert_same_up_to_last_places(
    got: np.ndarray, want: np.ndarray, places: float, at: Any, least: float = 0
) -> None:
    """Equal class (NaN, infinity, zero), equal sign also of zeros, and close; places of numbers >= least."""
    for y, expected, *x in zip(got, want, *at, strict=True):
        if np.isnan(expected):
            assert np.isnan(y), (x, y, expected)
        else:
            assert np.signbit(y) == np.signbit(expected), (x, y, expected)
            with np.errstate(over="ignore"):
                place = np.spacing(max(abs(expected), y.dtype.type(least)))
            assert y == expected or abs(y - expected) <= places * place, (x, y, expected)


def c99_lgamma(x: np.ndarray) -> np.ndarray:
    """SciPy's is infinite for denormal x already."""
    tiny = (np.abs(x) < np.finfo(x.dtype).tiny) & (x != 0)
    return np.where(tiny, -np.log(np.abs(x)), FUNCTIONS["lgamma"].numpy(x))


def odd_erfinv(x: np.ndarray) -> np.ndarray:
    """SciPy's loses the sign of -0."""
    return np.where(x == 0, x, FUNCTIONS["erfinv"].numpy(x))


@every_function
def test_edges_are_those_of_numpy(name, dtype):
    function = FUNCTIONS[name]
    xs = tuple(np.array(x) for x in zip(*itertools.product(edges(dtype), repeat=function.arity), strict=True))
    with np.errstate(all="ignore"):
        want = {"lgamma": c99_lgamma, "erfinv": odd_erfinv}.get(name, function.numpy)(*xs)
    rough = name in ("lgamma", "digamma")  # SciPy's near their zeros, and both between negative integers
    places, least = (64, 1) if rough else (2 * function.bound + 1, 0)
    assert_same_up_to_last_places(run(name, *xs), want, places, xs, least)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "erfinv"])
def test_odd_functions_are_odd(name, dtype, rng):
    x = sweep(dtype, 5_000, rng)
    np.testing.assert_array_equal(run(name, -x), -run(name, x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_or_zero_is_exp_where_that_is_normal(dtype, rng):
    x = np.concatenate([edges(dtype), sweep(dtype, 20_000, rng), rng.uniform(-800, 0, 20_000).astype(dtype)])
    got, want, least = run("exp_or_zero", x), run("exp", x), np.finfo(dtype).smallest_normal
    normal = ~(want <= least * dtype(1.01))
    np.testing.assert_array_equal(got[normal], want[normal])
    assert ((got == 0) | (got >= least))[~normal].all() and ((want > 0) & (want < least)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_in_sum_is_exp_or_nothing(dtype, rng):
    x = np.concatenate([edges(dtype), sweep(dtype, 20_000, rng), rng.uniform(-800, 0, 20_000).astype(dtype)])
    got, want, least = run("exp_in_sum", x), run("exp", x), dtype(2.0) ** (-100 if dtype == np.float32 else -900)
    counts = ~(want <= least * dtype(1.01))
    np.testing.assert_array_equal(got[counts], want[counts])
    assert ((got == 0) | (got >= least * dtype(0.99)))[~counts].all() and (got[~counts] == 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_exact(dtype):
    n = np.arange(-20, 21).astype(dtype)
    np.testing.assert_array_equal(run("exp2", n), np.ldexp(dtype(1), n.astype(int)))
    np.testing.assert_array_equal(run("log2", np.ldexp(dtype(1), n.astype(int))), n)
    np.testing.assert_array_equal(run("pow_", n, np.full_like(n, 2)), n * n)
    np.testing.assert_array_equal(run("pow_", n, np.full_like(n, 3)), n * n * n)
    np.testing.assert_array_equal(run("log10", np.power(dtype(10), np.arange(8).astype(dtype))), np.arange(8))


# ---- how they run -------------------------------------------------------------------------------------------


@every_function
def test_loops_are_vectorised(name, dtype):
    """Several lanes in the loop's own arithmetic, and no call left but to the vector forms of rare paths."""
    text = optimised(loop_kernel(name, np.dtype(dtype), FUNCTIONS[name].arity))
    kind = {"float32": "float", "float64": "double"}[dtype.__name__]
    body = "".join(part for part in re.split(r"\n(?=define )", text) if not re.match(r'define .*@"?graphjit\.', part))
    loops = [block for block in re.split(r"\n(?=\w[\w.]*:)", body) if re.match(r"vector\.body", block)]
    assert loops, "no vector loop"
    for loop in loops:
        assert re.search(rf"<\d+ x {kind}>", loop)
        called = set(re.findall(r"call .*?@\"?([\w.$]+)", loop))
        scalar = {c for c in called if not c.startswith("llvm.") and not re.fullmatch(r"graphjit\..*\.(x\d+|lanes)", c)}
        assert not scalar


@every_unary
def test_an_element_has_the_same_bits_wherever_it_stands(name, dtype, rng):
    """In a vector, in the remainder after the last vector, alone."""
    x = arguments(name, dtype, 300, rng)[0][:67]
    whole = run(name, x)
    for cut in (1, 5, 17):
        np.testing.assert_array_equal(run(name, x[cut:].copy()), whole[cut:])
    np.testing.assert_array_equal([run(name, x[i : i + 1])[0] for i in range(x.size)], whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_one_huge_argument_among_usual_ones(name, dtype, rng):
    x = rng.uniform(-9, 9, 100).astype(dtype)
    usual = run(name, x)
    x[::13] = np.ldexp(rng.uniform(0.5, 1, x[::13].size), rng.integers(60, 120, x[::13].size)).astype(dtype)
    got = run(name, x)
    huge = np.zeros(x.size, bool)
    huge[::13] = True
    np.testing.assert_array_equal(got[~huge], usual[~huge])
    np.testing.assert_allclose(got[huge], FUNCTIONS[name].numpy(x[huge].astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.03, 0.5, 1.0])
def test_unusual_powers_among_usual_ones(dtype, share, rng):
    """Negative bases, zeros, overflow, denormals: as alone, and next to them nothing changes."""
    x, y = (rng.uniform(0.1, 4, 131).astype(dtype) for _ in range(2))
    usual = run("pow_", x, y)
    unusual = rng.uniform(size=x.size) < share
    pairs = np.array([(-1.5, 3), (-2.5, 2), (0, 2), (-0.0, -1), (1e-3, 1e5), (1e3, 1e5), (-2, 0.5), (1, np.nan)], dtype)
    x[unusual], y[unusual] = pairs[rng.integers(0, len(pairs), np.count_nonzero(unusual))].T
    got = run("pow_", x, y)
    np.testing.assert_array_equal(got[~unusual], usual[~unusual])
    np.testing.assert_array_equal(got, [run("pow_", x[i : i + 1], y[i : i + 1])[0] for i in range(x.size)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_powers_of_bases_near_one(dtype, rng):
    """Where the error of the logarithm is multiplied most."""
    if dtype is np.float64 and not EXTENDED:
        pytest.skip("no long double wider than double")
    x = (1 + rng.uniform(1e-4, 0.1, 200_000) * rng.choice([-1, 1], 200_000)).astype(dtype)
    largest = np.log(float(np.finfo(dtype).max)) * rng.choice([-0.98, 0.98], x.size)
    y = (largest / np.log(x.astype(np.float64))).astype(dtype)
    error = ulps(run("pow_", x, y), exact("pow_", x, y))
    assert error.max() <= FUNCTIONS["pow_"].bound


# ---- eager twins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "lgamma", "digamma", "sigmoid", "softplus"])
def test_eager_twins_agree_and_keep_type_and_shape(name, dtype, rng):
    eager = getattr(reference, name)
    x = rng.uniform(0.05, 0.95, (3, 5)).astype(dtype)
    y = eager(x)
    assert isinstance(y, np.ndarray) and y.dtype == dtype and y.shape == x.shape
    places = 64 if name == "lgamma" else 8  # SciPy's near its zeros
    np.testing.assert_allclose(y.ravel(), run(name, x.ravel()), rtol=places * np.finfo(dtype).eps)
    zero_d = eager(np.array(0.5, dtype))
    assert isinstance(zero_d, np.ndarray) and zero_d.shape == () and zero_d.dtype == dtype
    assert isinstance(eager(dtype(0.5)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_eager_sigmoid_and_softplus_do_not_warn_or_overflow(dtype):
    x = np.array([-np.inf, -1e4, -100, 0, 100, 1e4, np.inf, np.nan], dtype)
    np.testing.assert_allclose(reference.sigmoid(x), run("sigmoid", x), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(reference.softplus(x), run("softplus", x), rtol=4 * np.finfo(dtype).eps)
