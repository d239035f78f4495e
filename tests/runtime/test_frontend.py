"""The language of loop kernels: what its statements and types mean, and what is no part of it."""

import numpy as np
import pytest
from kernel_calls import Pointer, call, in_numba, jitted, poison, scope_of

import graphjit as gj
from graphjit.runtime.compiler import LoopKernel
from graphjit.runtime.frontend import lower


def kernel(body, *args, names="x, y"):
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return LoopKernel("f", f"def f({names}, start, stop):\n{lines}", args)


BODIES = {
    "a name that is assigned again": """
total = 0
for i in range(start, stop):
    total = total + x[i]
    y[i] = total
""",
    "a loop inside of a loop, by steps": """
for first in range(start, stop, 3):
    last = minimum(first + 3, stop)
    for i in range(first, last):
        y[i] = x[first] * 10 + i
""",
    "branches": """
for i in range(start, stop):
    if x[i] > 2 and x[i] != 5 or i == 0:
        y[i] = 1
    else:
        if x[i] < 0:
            y[i] = -x[i]
""",
    "what is not so": """
for i in range(start, stop):
    if not (x[i] > 2 or i == 0):
        y[i] = 1
""",
    "the first place": """
place = stop
for i in range(start, stop):
    value = x[i]
    if value < 0:
        place = i
        break
y[0] = place
""",
    "a loop that never runs": """
for i in range(stop, start):
    y[i] = 7
for i in range(3):
    y[i] += 2
""",
    "division towards minus infinity": """
for i in range(start, stop):
    y[i] = (x[i] - 4) // 3 * 100 + (x[i] - 4) % 3
""",
    "a parameter that is assigned": """
start = maximum(start, 2)
for i in range(start, stop):
    y[i] -= x[i]
""",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_statements_mean_what_they_do_in_python(body):
    made = kernel(body, "*int64", "*int64")
    x = np.array([3, 1, -4, 1, -5, 9, 2, 6, 5])
    got, want = np.zeros(9, np.int64), np.zeros(9, np.int64)
    call(made, x, got, stop=9)
    scope_of(made)["f"](Pointer(x, 0), Pointer(want, 0), 0, 9)
    np.testing.assert_array_equal(got, want)
    again = np.zeros(9, np.int64)
    jitted(made)(x.ctypes.data, again.ctypes.data, 0, 9)
    np.testing.assert_array_equal(again, want)


def layer(x, w, y):
    s = gj.tanh(x) @ w
    s = gj.exp(s - s.max(1, keepdims=True))
    return (s / s.sum(1, keepdims=True) - y).square().sum()


def indices(x, w, y):
    order = gj.argmax(x, 1)
    return gj.where(x > 0, x, w), gj.cumsum(y.reshape(-1), 0), w[order], (x * 3).astype("int32") // 2 % 5


def columns(x, w, y):
    s = gj.exp(x - x.max(0)) * w
    return s / s.sum(0), (s - y).square().sum(0), gj.tanh(w[:, 0])


# LLVM may add up a row in any order, and Numba has it look at loops otherwise; all else is the same to the last bit
@pytest.mark.parametrize("function, digits", [
    (gj.value_and_grad(layer, argnums=(0, 1, 2)), 1e-6), (indices, 0), (columns, 0)],
    ids=["layer", "indices", "columns"])
@pytest.mark.parametrize("n", [9, 16, 20])
def test_plain_numba_compiles_the_same_from_the_source(function, n, digits):
    args = np.random.default_rng(0).standard_normal((3, n, n), np.float32)
    compiled = gj.compile(function)
    compiled(*args)
    program = compiled.latest.program
    expected = [np.array(x) for x in program.run(args)]
    poison(program)
    in_numba(program)
    before = jitted.cache_info().misses + jitted.cache_info().hits
    for x, y in zip(program.run(args), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=digits, atol=digits)
    assert jitted.cache_info().misses + jitted.cache_info().hits > before + 1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_integers_of_two_types_become_int64(dtype):
    made = kernel("for i in range(start, stop):\n    y[i] = x[i] + i * 3000000000", f"*{dtype}", "*int64")
    x, y = np.array([100, 1, 2], dtype), np.zeros(3, np.int64)
    call(made, x, y, stop=3)
    np.testing.assert_array_equal(y, x + np.arange(3) * 3_000_000_000)


def test_numbers_take_the_type_beside_them():
    made = kernel("for i in range(start, stop):\n    y[i] = 0.1 * x[i] + f32(0.1)", "*float32", "*float32")
    x, y = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    call(made, x, y, stop=40)
    np.testing.assert_array_equal(y, np.float32(0.1) * x + np.float32(0.1))


@pytest.mark.parametrize("body, message", [
    ("y[0] = x[0] + z", "z is not defined"),
    ("for i in range(3):\n    v = x[i]\ny[0] = v", "v is not defined"),
    ("y[0] = sinus(x[0])", "no kernel function sinus"),
    ("y[0] = f64(x[0])", "float64 stored as float32"),
    ("y[0] = x[0] + f64(1)", "operands of types float32 and float64"),
    ("y[x[0]] = x[0]", "float32 for an integer"),
    ("v = x[0]\nv = 1", "v is float32 and int64"),
    ("i = 1\nfor i in range(3):\n    y[i] = x[i]", "i is a loop's"),
    ("for i in range(3, 0, -1):\n    y[i] = x[i]", "loops step by a positive number"),
    ("while 1:\n    y[0] = x[0]", "no statement of kernels"),
    ("y[0] = [x[0]]", "no expression of kernels"),
    ("y[0] = exp(x=x[0])", "no expression of kernels"),
])
def test_what_is_no_kernel_is_an_error(body, message):
    with pytest.raises((NameError, TypeError), match=message):
        lower(kernel(body, "*float32", "*float32"), "f")


def test_a_kernel_has_a_type_for_each_parameter():
    with pytest.raises(TypeError, match="4 parameters for 1 types"):
        lower(kernel("y[0] = x[0]", "*float32"), "f")


def test_a_kernel_may_have_many_parameters():
    names = [f"x{k}" for k in range(70)]
    sums = "".join(f"y[i] += {name}[i]\n" for name in names)
    made = kernel("for i in range(start, stop):\n    " + sums.replace("\n", "\n    ").rstrip(), *["*int64"] * 71,
                  names=", ".join([*names, "y"]))
    x, y = np.arange(70 * 5).reshape(70, 5), np.zeros(5, np.int64)
    call(made, *x, y, stop=5)
    np.testing.assert_array_equal(y, x.sum(0))
