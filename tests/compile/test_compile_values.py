"""Same program, two modes, same answer: arguments, results and state of compiled functions."""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

import graphjit as gj
from graphjit.tree import flatten

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
Y = RNG.standard_normal((3, 4)).astype(np.float32)


def check(f, *args, rtol=1e-6, **kwargs):
    """Call eagerly and twice compiled; containers, types, dtypes and values must agree."""
    compiled = gj.compile(f)
    with gj.eager():
        want, spec = flatten(compiled(*args, **kwargs))
    for _ in range(2):
        got, found = flatten(compiled(*args, **kwargs))
        assert found == spec
        for a, b in zip(got, want, strict=True):
            if isinstance(b, gj.Tensor):
                assert type(a) is gj.Tensor
                assert a.dtype == b.dtype
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)
            else:
                assert type(a) is type(b)
                np.testing.assert_equal(a, b)
    assert compiled.trace_count == 1
    return compiled


# ---- arguments

@dataclass
class Batch:
    x: object
    y: object
    name: str = "batch"
    weights: dict = field(default_factory=dict)


class Point(NamedTuple):
    a: object
    b: object


class Mode(enum.Enum):
    ADD = 1
    MUL = 2


def test_functions_of_arrays_and_tensors():
    def f(x, y):
        return gj.exp(x) * y + 1
    check(f, X, Y)
    check(f, gj.tensor(X), Y)
    check(f, gj.tensor(X), gj.tensor(Y))
    check(f, X, Y[0])
    check(f, X, np.float32(2))
    check(f, X, np.float64(2))
    check(f, np.float64(1), np.int32(2))


def test_defaults_keywords_and_variadics():
    def f(x, y=2, *rest, scale=3.0, **named):
        return x * y * scale + sum(rest) + sum(named.values())
    check(f, X)
    check(f, X, Y)
    check(f, X, Y, X, 1.0, scale=2.0, other=Y, more=1)
    check(f, x=X, y=Y)
    assert float(gj.compile(f)(x=np.float64(2), scale=5.0)) == 20


def test_nested_arguments_and_results():
    def f(batch, point, tree, pair):
        total = batch.x + batch.y + batch.weights["w"] + point.a * point.b
        return {"total": total, "same": [tree["k"][0], None, (pair[0] * 2, "text", 3, True, 2.5)],
                "batch": Batch(total, None, "out", {"z": total * 2}), "point": Point(total, "b"), "empty": [(), {}]}
    check(f, Batch(X, Y, weights={"w": X}), Point(X, Y), {"k": [gj.tensor(Y), (None, X)]}, (X, 1))


def test_results_without_tensors():
    check(lambda x: None, X)
    check(lambda x: (1, "a", None, True, 2.5, Mode.ADD), X)
    check(lambda x: {}, X)
    check(lambda x: x.shape, X)
    check(lambda x: (x.ndim, x.dtype, len(x)), X)


def test_no_arguments():
    check(lambda: gj.arange(5) * 2)
    t = gj.tensor(X)
    check(lambda: t * 2)


def test_static_arguments_trace_again():
    def f(x, n, flag, mode):
        y = x * n
        if flag:
            y = y + 1
        return y * 2 if mode is Mode.MUL else y[..., :n]
    g = gj.compile(f)
    cases = [(2, True, Mode.MUL), (2, False, Mode.MUL), (1, True, Mode.ADD), (1, False, Mode.ADD), (2, True, Mode.ADD)]
    for _ in range(2):
        for case in cases:
            np.testing.assert_allclose(g(X, *case), f(X, *case), rtol=1e-6)
    assert g.trace_count == len(cases)
    assert g.reasons[1] == "flag: was True, is False"


def test_ints_bools_and_floats_are_told_apart():
    f = gj.compile(lambda x, k: x * k)
    ints = np.array([1, 2, 3])
    for k, dtype in ((1, np.int64), (True, np.int64), (1.0, np.float64), ("", None), (2, np.int64)):
        if dtype is not None:
            out = f(ints, k)
            assert out.dtype == dtype, k
            np.testing.assert_array_equal(out, ints * k)
    assert f.trace_count == 4


def test_floats_are_known_only_at_run_time():
    def f(x, s, t):
        return x * s + t, gj.exp(x * s), s * t
    g = gj.compile(f)
    for s, t in ((1.0, 2.0), (0.5, -1.0), (float("inf"), 0.0), (-0.0, 1e300), (float("nan"), 1.0)):
        with np.errstate(all="ignore"):
            got, want = g(X, s, t), f(gj.tensor(X), s, t)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
        assert got[0].dtype == want[0].dtype == np.float32
        np.testing.assert_equal(float(got[2]), want[2])
    assert g.trace_count == 1


@pytest.mark.parametrize("f", [
    lambda s: gj.exp(s), lambda s: gj.tensor(s) * 2, lambda s: gj.sqrt(s * 2) + s, lambda s: gj.full((2,), s),
    lambda s: gj.where(gj.tensor([True, False]), s, 0.0), lambda s: gj.maximum(s, 1.0),
    lambda s: gj.tensor([1, 2]) * s, lambda s: gj.ones(2, dtype="float64") * s, lambda s: gj.ones(2) * s,
    lambda s: gj.clip(gj.arange(4.0), 0.0, s), lambda s: gj.stack([gj.tensor(s), gj.tensor(1.0)]),
    lambda s: gj.tensor([1.0, 2.0]) ** s, lambda s: s ** gj.tensor([1.0, 2.0]),
], ids=range(13))
def test_dtypes_of_what_is_made_from_a_float(f):
    got, want = gj.compile(f)(0.7), f(0.7)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 100])
def test_arrays_of_all_layouts(n):
    base = RNG.standard_normal((n, n)).astype(np.float32)
    f = gj.compile(lambda x, y: (x * 2 + y, (x @ y).sum(axis=0)))
    for x in (base, base.T, base[::-1], np.asfortranarray(base), base.astype(">f4"), base.T.astype(">f4"),
              np.broadcast_to(base[0], (n, n)), base[:, ::-1], np.ma.filled(base)):
        before = x.copy()
        for _ in range(3):
            a, b = f(x, base)
            np.testing.assert_allclose(a, x * 2 + base, rtol=1e-5)
            np.testing.assert_allclose(b, (x.astype(np.float64) @ base).sum(axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(x, before)
    wide = RNG.standard_normal((2 * n, 2 * n)).astype(np.float32)[::2, 1::2]
    np.testing.assert_allclose(f(wide, base)[0], wide * 2 + base, rtol=1e-5)


@pytest.mark.parametrize("n", [4, 20_000])
def test_byte_order_is_not_part_of_the_values(n):
    f = gj.compile(lambda x: x * 2)
    x = np.arange(n, dtype=np.float64)
    for _ in range(3):
        np.testing.assert_array_equal(f(x.astype(">f8")), x * 2)
        np.testing.assert_array_equal(f(x), x * 2)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                                   "float32", "float64"])
def test_all_dtypes_pass(dtype):
    x = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    check(lambda x: (x, x.T, x[1:], gj.where(x > 0, x, x), x.sum()), x)


@pytest.mark.parametrize("bad", [
    np.zeros(3, np.float16), np.zeros(3, complex), np.array(["a", "b"]), np.array([object(), None]),
    np.array(["2020-01-01"], "datetime64[D]"), np.zeros(3, np.longdouble) if np.longdouble != np.float64 else
    np.zeros(3, complex), np.zeros(2, [("a", "f4")])], ids=lambda a: str(a.dtype))
def test_arrays_that_are_not_held(bad):
    f = gj.compile(lambda x: x * 2)
    for call in (lambda: f(bad), lambda: f([bad]), lambda: f(x=bad)):
        with pytest.raises((gj.DTypeError, gj.ArgumentError)) as error:
            call()
        assert len(str(error.value).splitlines()) <= 15
        assert "test_compile_values.py" in str(error.value)
    np.testing.assert_array_equal(f(np.ones(2)), [2, 2])


def test_arguments_that_cannot_be_taken():
    class Unhashable:
        __hash__ = None
    f = gj.compile(lambda x: x)
    with pytest.raises(gj.ArgumentError, match="Unhashable"):
        f(Unhashable())

    class Foreign:  # a tensor of another library: its values can change without notice
        def __array__(self, dtype=None, copy=None):
            return np.ones(3)
    with pytest.raises(gj.ArgumentError, match="asarray"):
        f(Foreign())
    with pytest.raises(TypeError, match="argument"):
        f()
    with pytest.raises(TypeError, match="argument"):
        f(X, X)
    np.testing.assert_array_equal(f(X), X)
    with pytest.raises(gj.ArgumentError):
        gj.compile(3)


def test_empty_and_single_element_arrays():
    def f(x):
        return x * 2, x.sum(axis=0), gj.concat([x, x])
    g = gj.compile(f)
    for shape in ((0, 4), (1, 4), (3, 0), (3, 4), (1, 1)):
        x = np.ones(shape, np.float32)
        for a, b in zip(g(x), f(gj.tensor(x)), strict=True):
            assert a.shape == b.shape
            np.testing.assert_array_equal(a, b)


# ---- results

@pytest.mark.parametrize("n", [3, 300])
def test_results_are_the_callers_own(n):
    state = gj.tensor(np.ones((n, n)))
    held = np.ones((n, n))

    @gj.compile
    def f(x):
        state.assign(state + 1)
        return x, x * 1, x.T, x[1:], state, state * 1, gj.tensor(held), gj.zeros((n, n)), x * 1
    x = np.ones((n, n))
    first = [t.data for t in f(x)]
    values = [a.copy() for a in first]
    second = [t.data for t in f(x)]
    for a, b in zip(first, values, strict=True):
        np.testing.assert_array_equal(a, b, err_msg="a later call changed an earlier result")
    everything = [*first, *second, x, state.data, held]
    for i, a in enumerate(everything):
        for b in everything[i + 1:]:
            assert not np.shares_memory(a, b)
    for a in second:
        a[...] = 77
    third = f(x)
    assert (x == 1).all()
    assert (held == 1).all()
    np.testing.assert_array_equal(state, np.full((n, n), 4.0))
    np.testing.assert_array_equal(third[1], x)
    np.testing.assert_array_equal(third[7], np.zeros((n, n)))


def test_one_tensor_returned_twice_is_one_tensor():
    f = gj.compile(lambda x: [y := x * 2, y, {"y": y}])
    a, b, c = f(X)
    assert a is b is c["y"]
    d, e = gj.compile(lambda x: (x, x))(X)
    assert d is e


def test_arrays_among_the_results():
    held = np.arange(3.0)

    @gj.compile
    def f(x):
        return x * 2, np.ones(2), held
    a, b = f(X), f(X)
    assert isinstance(a[1], np.ndarray)
    a[1][...] = 5
    a[2][...] = 7
    np.testing.assert_array_equal(b[1], [1, 1])
    np.testing.assert_array_equal(f(X)[1], [1, 1])


def test_results_can_be_used_and_written_like_any_tensor():
    y = gj.compile(lambda x: x * 2)(X)
    y[0] = 5.0
    y.assign(y + 1)
    assert y.is_leaf
    y.requires_grad = True
    (y * y).sum().backward()
    np.testing.assert_allclose(y.grad, 2 * y.numpy())


def test_labels_and_scalars():
    out = gj.compile(lambda x: x.sum())(X)
    assert out.shape == ()
    assert float(out) == pytest.approx(float(X.sum()), rel=1e-5)


# ---- state

def test_assigned_state():
    t = gj.tensor(np.zeros(3))

    @gj.compile
    def f(x):
        before = t * 1
        t.assign(t + x)
        t.assign(t * 2)
        return before, t + 0
    eager = np.zeros(3)
    for i in range(3):
        before, after = f(np.arange(3.0))
        np.testing.assert_array_equal(before, eager)
        eager = (eager + np.arange(3.0)) * 2
        np.testing.assert_array_equal(after, eager, err_msg=str(i))
        np.testing.assert_array_equal(t, eager)


def test_item_assignment_to_state_arguments_and_intermediates():
    def make(wrap):
        t = gj.tensor(np.zeros((3, 4)))

        def f(x, i):
            y = x * 2
            y[0] = 7.0
            y[:, 1] = x[:, 0]
            t[1:] = y[:2]
            t[0, i] += 1.0
            x[2] = 0.0
            return y, t * 1, x
        return t, wrap(f)
    t, f = make(lambda f: f)
    u, g = make(gj.compile)
    x = np.arange(12.0).reshape(3, 4)
    for i in (0, 3):
        for a, b in zip(g(x.copy(), i), f(gj.tensor(x), i), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(u, t)


def test_inputs_are_never_written():
    for n in (3, 200):
        x = np.ones((n, n))
        t = gj.tensor(x)

        @gj.compile
        def f(x):
            x[0] = 5.0
            x += 1
            x.assign(x * 2)
            return x
        np.testing.assert_array_equal(f(x)[0], [12.0] * n)
        np.testing.assert_array_equal(f(t)[0], [12.0] * n)
        assert (x == 1).all()
        assert (t.numpy() == 1).all()


def test_swapped_state():
    a, b = gj.tensor([1.0, 2.0]), gj.tensor([3.0, 4.0])

    @gj.compile
    def swap():
        old = a * 1
        a.assign(b)
        b.assign(old)
    swap()
    np.testing.assert_array_equal(a, [3, 4])
    np.testing.assert_array_equal(b, [1, 2])

    @gj.compile
    def shift():
        a.assign(gj.flip(a))
        b.assign(gj.roll(b, 1))
    shift()
    np.testing.assert_array_equal(a, [4, 3])
    np.testing.assert_array_equal(b, [2, 1])


def test_state_of_other_dtypes():
    i, flag = gj.tensor(np.array([1, 2])), gj.tensor(np.array([True, False]))

    @gj.compile
    def f():
        i.assign(i + 1.9)
        flag.assign(flag == False)  # noqa: E712
        return i.sum()
    assert f().item() == 2 + 3
    assert flag.tolist() == [False, True]


@pytest.mark.parametrize("n", [10, 40_000])
def test_state_that_is_also_an_argument(n):
    w = gj.tensor(np.ones(n))

    @gj.compile
    def f(x):
        w.assign(w + 1)
        w.assign(w * (x / x))
        return x.sum() / n, w.sum() / n, x * 1
    for i in range(1, 4):
        a, b, c = f(w if i % 2 else w.data)
        assert (float(a), float(b)) == (i, i + 1)
        np.testing.assert_array_equal(c, np.full(n, i))


def test_two_functions_share_state():
    t = gj.tensor(np.zeros(2))

    @gj.compile
    def add(x):
        t.assign(t + x)

    @gj.compile
    def read():
        return t * 1
    for i in range(1, 4):
        add(np.ones(2))
        np.testing.assert_array_equal(read(), [i, i])
        t.assign(t + 0)


# ---- random numbers

def test_random_numbers_are_eagers_and_never_repeat():
    def f(x):
        return (gj.random.uniform((4,)), gj.random.normal((3,)), gj.random.bernoulli(0.5, (8,)),
                gj.random.randint(0, 100, (5,)), gj.random.permutation(6), gj.nn.functional.dropout(x, 0.5))
    x = np.ones((5, 5), np.float32)
    gj.manual_seed(7)
    want = [f(x) for _ in range(3)]
    gj.manual_seed(7)
    g = gj.compile(f)
    got = [g(x) for _ in range(3)]
    for a, b in zip(got, want, strict=True):
        for s, t in zip(a, b, strict=True):
            np.testing.assert_allclose(s, t, rtol=1e-6)
            if s.dtype.kind != "f":
                np.testing.assert_array_equal(s, t)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[5], b[5])
    assert (got[0][5].numpy() != got[1][5].numpy()).any()
    gj.manual_seed(7)
    mixed = [f(x)[0], g(x)[0], f(x)[0]]
    for a, b in zip(mixed, want, strict=True):
        np.testing.assert_array_equal(a, b[0])


# ---- the decorator

class Counter:
    def __init__(self, k):
        self.k = k

    @gj.compile
    def times(self, x, *, plus=0.0):
        """The docstring."""
        return x * self.k + plus

    @gj.compile(keep_grads=True)
    def with_options(self, x):
        return x + self.k

    @staticmethod
    @gj.compile
    def static(x):
        return x + 1

    @gj.compile
    @staticmethod
    def static_inside(x):
        return x + 2

    @classmethod
    @gj.compile
    def of_class(cls, x):
        return x * len(cls.__name__)

    @property
    @gj.compile
    def doubled(self):
        return gj.tensor(X) * 2 * self.k


def test_methods():
    a, b = Counter(2), Counter(3)
    for c in (a, b, a):
        np.testing.assert_allclose(c.times(X), X * c.k)
        np.testing.assert_allclose(c.times(X, plus=1.5), X * c.k + 1.5, rtol=1e-5)
        np.testing.assert_allclose(c.with_options(X), X + c.k)
        np.testing.assert_allclose(c.doubled, X * 2 * c.k)
        np.testing.assert_allclose(c.static(X), X + 1)
        np.testing.assert_allclose(c.static_inside(X), X + 2)
        np.testing.assert_allclose(c.of_class(X), X * 7)
        np.testing.assert_allclose(Counter.times(c, X), X * c.k)
    assert Counter.times.__doc__ == "The docstring."
    assert Counter.times.__name__ == "times"
    assert Counter.times.trace_count == 4


def test_it_looks_like_the_function():
    @gj.compile
    def f(x, y=1):
        """Adds."""
        return x + y
    assert f.__name__ == "f"
    assert f.__doc__ == "Adds."
    assert "f" in repr(f)
    import inspect
    assert list(inspect.signature(f).parameters) == ["x", "y"]
    assert copy.deepcopy({"f": f})["f"](X).shape == X.shape
    g = gj.compile(gj.compile(f))
    np.testing.assert_array_equal(g(X), X + 1)


def test_decorated_with_arguments():
    @gj.compile()
    def f(x):
        return x + 1

    @gj.compile(keep_grads=True)
    def g(x):
        return x + 1
    np.testing.assert_array_equal(f(X), g(X))


def test_nested_compiled_functions_are_inlined():
    @gj.compile
    def inner(x):
        return gj.exp(x)

    @gj.compile
    def outer(x):
        return inner(x) + inner(x * 2)
    np.testing.assert_allclose(outer(X), np.exp(X) + np.exp(2 * X), rtol=1e-5)
    assert (inner.trace_count, outer.trace_count) == (0, 1)
    inner(X)
    assert inner.trace_count == 1


def test_recursion_and_loops_unroll():
    @gj.compile
    def power(x, n):
        return x if n == 0 else power(x, n - 1) * x
    np.testing.assert_allclose(power(X, 3), X ** 4, rtol=1e-5)

    def total(xs):
        out = 0
        for i, x in enumerate(xs):
            out = out + x * i
        return out
    check(total, X)
    check(total, [X, Y, X])


def test_graph_of_a_function_never_called():
    f = gj.compile(lambda x: x)
    with pytest.raises(gj.TraceError, match="not been called"):
        _ = f.graph
    f(X)
    f.clear_cache()
    with pytest.raises(gj.TraceError):
        f.source()
    np.testing.assert_array_equal(f(X), X)


def test_generators_are_refused():
    @gj.compile
    def f(x):
        yield x
    with pytest.raises(gj.TraceError, match="generator"):
        f(X)


@pytest.mark.parametrize("values", [[1.0, 2.0], [[1.0, 2.0], [3, 4]], (0.5, True)])
def test_lists_of_numbers_are_arrays_where_an_array_belongs(values):
    for function in (lambda v: gj.exp(v), lambda v: gj.tensor(v) * 2, lambda v: gj.tensor(v, dtype="float64").sum()):
        compiled = gj.compile(function)
        want, got = function(values), compiled(values)
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)


def test_ragged_lists_of_numbers_are_an_error():
    with pytest.raises(gj.GraphjitError, match="cannot be made a tensor"):
        gj.compile(lambda v: gj.exp(v))([[1.0, 2.0], [3.0]])
