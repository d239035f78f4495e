"""Accuracy and speed of the kernel library's elementary functions: `python -m benchmarks.vmath [name ...]`.

For each function and dtype: the largest error in units in the last place over a sweep of the whole range, the time
for an element in a kernel whose data stays in L2, NumPy's (or SciPy's) time for it, and the ratio of the two.

The sweep, the references and the error measure serve `tests/kernels/test_vmath.py` too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

from graphjit.kernels import reference
from graphjit.runtime import driver
from graphjit.runtime.compiler import LoopKernel, compile_kernels, pack_args

Array = np.ndarray[Any, Any]
EXTENDED = np.finfo(np.longdouble).nmant >= 63  # x87: a reference for float64 that is 11 bits finer


@dataclass(frozen=True)
class Function:
    """How an elementary function is judged.

    Attributes:
        numpy: what users have today; also the exact reference in a wider type where NumPy computes it there.
        usual: range of the arguments that are timed.
        extended: None, or the name of the mpmath function that stands in for a missing long double one.
        bound: the largest error allowed, in units in the last place; 0: NumPy's own result in the same type.
    """

    numpy: Callable[..., Any]
    usual: tuple[float, float] = (-8.0, 8.0)
    extended: str | None = None
    bound: float = 2.0
    arity: int = 1


def _sigmoid(x: Array) -> Array:
    t = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, t, np.ones_like(t)) / (1 + t))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


FUNCTIONS: dict[str, Function] = {
    "exp": Function(np.exp),
    "exp2": Function(np.exp2),
    "expm1": Function(np.expm1),
    "log": Function(np.log, (1e-3, 1e3)),
    "log1p": Function(np.log1p, (-0.9, 1e3)),
    "log2": Function(np.log2, (1e-3, 1e3)),
    "log10": Function(np.log10, (1e-3, 1e3)),
    "sigmoid": Function(_sigmoid),
    "softplus": Function(_softplus),
    "sin": Function(np.sin),
    "cos": Function(np.cos),
    "tan": Function(np.tan, bound=4.0),
    "asin": Function(np.arcsin, (-1, 1)),
    "acos": Function(np.arccos, (-1, 1)),
    "atan": Function(np.arctan),
    "atan2": Function(np.arctan2, arity=2),
    "sinh": Function(np.sinh),
    "cosh": Function(np.cosh),
    "tanh": Function(np.tanh),
    "asinh": Function(np.arcsinh),
    "acosh": Function(np.arccosh, (1, 100)),
    "atanh": Function(np.arctanh, (-1, 1)),
    "erf": Function(scipy.special.erf, (-4, 4), "erf"),
    "erfc": Function(scipy.special.erfc, (-4, 4), "erfc"),
    "erfinv": Function(scipy.special.erfinv, (-1, 1), "erfinv"),
    "lgamma": Function(reference.lgamma, (0, 12), "loggamma"),
    "digamma": Function(scipy.special.digamma, (0, 12), "digamma"),
    "pow_": Function(np.power, (0.1, 4), bound=4.0, arity=2),
    "remainder": Function(np.remainder, (-100, 100), bound=0.0, arity=2),
    "floor_divide": Function(np.floor_divide, (-100, 100), bound=0.0, arity=2),
}


def loop_kernel(name: str, dtype: np.dtype[Any], arity: int = 1) -> LoopKernel:
    """The loop `y[i] = name(x0[i], ...)` over contiguous memory."""
    inputs = [f"x{k}" for k in range(arity)]
    source = (
        f"def k_{name}({', '.join(inputs)}, y, start, stop):\n"
        f"    for i in range(start, stop):\n"
        f"        y[i] = {name}({', '.join(f'{x}[i]' for x in inputs)})\n"
    )
    return LoopKernel(f"k_{name}", source, (f"*{dtype.name}",) * (arity + 1))


def kernel_runs(name: str, xs: Sequence[Array], y: Array, count: int) -> Callable[[], Any]:
    """What runs the loop over a function `count` times as programs run it: called by the compiled driver."""
    kernel = loop_kernel(name, y.dtype, len(xs))
    entry, _ = compile_kernels([kernel, driver.kernel()])
    slots = pack_args([array.ctypes.data for array in (*xs, y)], kernel.args)
    table = np.tile(np.array([entry, slots.ctypes.data, 0, y.size, 0, 0], np.int64), (count, 1))
    status = np.zeros(1, np.int64)
    call = driver.runner(release_gil=False)
    return lambda kept=(slots, table, status): call(kept[1].ctypes.data, count, kept[2].ctypes.data, 0)


def run(name: str, *xs: Array) -> Array:
    """The kernel function of arrays of one dtype."""
    y = np.empty_like(xs[0])
    kernel_runs(name, xs, y, 1)()
    return y


def sweep(dtype: type, count: int, rng: np.random.Generator) -> Array:
    """About `count` finite numbers: of all exponents and signs, and denser where functions bend."""
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    n = count // 10
    parts: list[Array] = [rng.integers(0, np.iinfo(bits).max, 3 * n, dtype=bits, endpoint=True).view(dtype)]
    parts += [rng.uniform(-s, s, n) for s in (1.0, 2.5, 10.0, 100.0, 800.0)]
    parts += [1 + rng.uniform(-0.3, 0.3, n), np.exp(rng.uniform(-40, 40, n)) * rng.choice([-1, 1], n)]
    x: Array = np.concatenate([part.astype(dtype) for part in parts])
    return np.asarray(x[np.isfinite(x)])


def exact(name: str, *xs: Array) -> Array:
    """The function in a wider type than that of xs (see `Function.bound`)."""
    function = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        if function.bound == 0:
            return np.asarray(function.numpy(*xs))
        if xs[0].dtype == np.float32:
            return np.asarray(function.numpy(*(x.astype(np.float64) for x in xs)))
        if function.extended is None:
            return np.asarray(function.numpy(*(x.astype(np.longdouble) for x in xs)))
    return _multiple_precision(function, xs[0])


def _multiple_precision(function: Function, x: Array) -> Array:
    import mpmath  # type: ignore[import-untyped]  # only references need it

    precise = getattr(mpmath, str(function.extended))

    def one(value: Any) -> np.longdouble:
        try:
            y = precise(mpmath.mpf(float(value)))
        except (ValueError, OverflowError):  # poles, and erfc of huge numbers
            return np.longdouble(function.numpy(value))
        y = mpmath.re(y)  # loggamma of x < 0 is complex, its real part log|gamma|
        high = float(y)
        return np.longdouble(high) + np.longdouble(float(y - high) if np.isfinite(high) else 0)

    with mpmath.workdps(40), np.errstate(all="ignore"):
        return np.array([one(value) for value in x])


def ulps(y: Array, want: Array) -> Array:
    """|y - want| in units in the last place of y's type at want; 0 where both overflow, infinite where one does."""
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(y.dtype)
        exponent = np.maximum(np.frexp(np.abs(want))[1] - info.nmant - 1, info.minexp - info.nmant)
        error = np.abs(y.astype(want.dtype) - want) / np.ldexp(want.dtype.type(1), exponent)
        same = (y == rounded) | (np.isnan(y) & np.isnan(want))
    return np.where(same & ~np.isfinite(rounded), 0, np.where(np.isnan(error), np.inf, error))


def arguments(name: str, dtype: type, count: int, rng: np.random.Generator) -> tuple[Array, ...]:
    """Arguments that judge a function over its whole domain."""
    function = FUNCTIONS[name]
    if function.arity == 1:
        x = sweep(dtype, count, rng)
        if name == "erfinv":
            tail = 1 - np.exp(rng.uniform(np.log(np.finfo(dtype).eps), 0, count // 2))
            return (np.concatenate([x[np.abs(x) < 1], tail.astype(dtype)]),)
        if name in ("lgamma", "digamma"):  # between negative integers both have zeros, where errors are absolute
            return (np.concatenate([x[x > 0], rng.uniform(0, 6, count // 2).astype(dtype)]),)
        return (x,)
    x, y = (rng.permutation(sweep(dtype, count, rng)) for _ in range(2))
    n = min(x.size, y.size)
    x, y = x[:n], y[:n]
    if name == "pow_":  # results all over the range, not only 0 and infinity
        x = np.abs(x)
        with np.errstate(all="ignore"):
            span = np.where(np.abs(np.log(x)) > 1e-3, np.abs(np.log(x)), 1)
            y = (rng.uniform(-1.02, 1.02, n) * np.log(float(np.finfo(dtype).max)) / span).astype(dtype)
    return x, y


def largest_error(name: str, dtype: type, count: int, rng: np.random.Generator) -> tuple[float, tuple[float, ...]]:
    """The largest error in ulps over `arguments`, and where it is."""
    xs = arguments(name, dtype, count, rng)
    want = exact(name, *xs)
    error = ulps(run(name, *xs), want)
    worst = int(np.argmax(error))
    return float(error[worst]), tuple(float(x[worst]) for x in xs)


def _best(call: Callable[[], Any], repeats: int = 7, inner: int = 30) -> float:
    times = []
    call()
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            call()
        times.append((time.perf_counter() - start) / inner)
    return min(times)


def _nanoseconds(name: str, dtype: type, rng: np.random.Generator, size: int = 8192) -> tuple[float, float]:
    """For an element: ours, NumPy's."""
    function = FUNCTIONS[name]
    low, high = function.usual
    xs: list[Array] = [rng.uniform(low, high, size).astype(dtype) for _ in range(function.arity)]
    y = np.empty_like(xs[0])
    ours = _best(kernel_runs(name, xs, y, 30), inner=1) / 30
    if isinstance(function.numpy, np.ufunc):
        theirs = _best(lambda: function.numpy(*xs, out=y))
    else:
        theirs = _best(lambda: function.numpy(*xs))
    return ours / size * 1e9, theirs / size * 1e9


def main(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    print(f"{'function':14}{'dtype':9}{'max ulp':>8}{'ns':>8}{'NumPy ns':>10}{'ratio':>7}")
    for name in names or FUNCTIONS:
        for dtype in (np.float32, np.float64):
            count = 1_000_000 if dtype is np.float32 else 200_000
            if dtype is np.float64 and FUNCTIONS[name].extended:
                count = 2_000
            with np.errstate(all="ignore"):
                error, _ = largest_error(name, dtype, count, rng)
                ours, theirs = _nanoseconds(name, dtype, rng)
            print(f"{name:14}{dtype.__name__:9}{error:8.2f}{ours:8.2f}{theirs:10.2f}{theirs / ours:7.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
