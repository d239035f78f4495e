"""Errors of compiled functions: of graphjit's own kinds, naming the user's line; afterwards everything works on."""

from __future__ import annotations

import random
import re
import sys
import warnings

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim

X = np.arange(6.0).reshape(2, 3)
OTHER = gj.tensor(X)


def line_of(function, marker="HERE"):
    """Number of the line of a function that holds a marker."""
    import inspect
    lines, start = inspect.getsourcelines(function)
    (found,) = [i for i, text in enumerate(lines) if f"# {marker}" in text]
    return start + found


def refuses(error, function, *args, match=None, compiled=None):
    """The compiled function raises this error at its line marked HERE, twice; then another one works."""
    f = compiled or gj.compile(function)
    for _ in range(2):
        with pytest.raises(error, match=match) as caught:
            f(*args)
        text = str(caught.value)
        assert f"test_compile_errors.py:{line_of(function)} " in text, text
        assert len(text.splitlines()) <= 15
        assert len(text) < 1500
    assert f.trace_count == 0
    np.testing.assert_array_equal(gj.compile(lambda x: x * 2)(X), X * 2)
    return text


# ---- data that is not there yet

def test_if():
    def f(x):
        if x.sum() > 0:  # HERE
            return x
        return -x
    text = refuses(gj.DataDependentError, f, X, match="condition")
    assert "gj.where" in text


def test_while():
    def f(x):
        while x.max() < 10:  # HERE
            x = x * 2
        return x
    refuses(gj.DataDependentError, f, X)


def test_and_or_not():
    def f(x):
        return (x > 0).any() and x.sum()  # HERE
    refuses(gj.DataDependentError, f, X)

    def g(x):
        return not x.sum()  # HERE
    refuses(gj.DataDependentError, g, X)


@pytest.mark.parametrize("ask", [
    lambda t: float(t.sum()), lambda t: int(t.sum()), lambda t: t.sum().item(), lambda t: t.tolist(),
    lambda t: t.numpy(), lambda t: t.data, lambda t: np.asarray(t), lambda t: np.array(t), lambda t: np.sin(t),
    lambda t: np.sum(t), lambda t: bool(t.sum()), lambda t: [0, 1][t.astype(int)[0, 0]],
    lambda t: range(t.astype(int)[0, 0]), lambda t: 1.0 in t, lambda t: sorted(t.reshape(-1)), lambda t: max(t[0]),
    lambda t: np.ones(2)[t.astype(int)[0]],
    lambda t: f"{t.sum().item():.2f}", lambda t: np.concatenate([t, t]),
], ids=range(19))
@pytest.mark.parametrize("where", ["argument", "computed", "captured"])
def test_asking_for_values(ask, where):
    def f(x):
        t = {"argument": x, "computed": x * 2, "captured": OTHER}[where]
        return ask(t)
    g = gj.compile(f)
    with pytest.raises(gj.DataDependentError) as caught:
        g(X)
    text = str(caught.value)
    assert "test_compile_errors.py" in text
    assert "known only when the program runs" in text
    np.testing.assert_array_equal(gj.compile(lambda x: x * 2)(X), X * 2)


def test_where_the_tensor_was_made_is_told():
    def f(x):
        y = x * 2  # MADE
        z = y
        return float(z.sum())  # HERE
    text = refuses(gj.DataDependentError, f, X)
    assert "made at" in text

    def g(x):
        y = x @ x.T  # MADE
        z = [y]
        if z[0]:  # HERE
            return y
        return x
    text = refuses(gj.DataDependentError, g, X)
    assert f"made at {__file__}:{line_of(g, 'MADE')} in g" in text


def test_printing_shows_the_type(capsys):
    @gj.compile
    def f(x):
        print(x, x * 2, OTHER, [x])
        return x
    f(X)
    out = capsys.readouterr().out
    assert out.count("float64[2, 3]") == 4
    assert "0." not in out, "values of captured tensors would be those of the first call"
    with pytest.raises(gj.DataDependentError, match="format"):
        gj.compile(lambda x: f"{x.sum():.3f}")(X)
    assert f"{gj.tensor(1.25):.1f}" == "1.2"


def test_shapes_that_depend_on_data():
    def f(x):
        return x[x > 0]  # HERE
    refuses(gj.GraphjitError, f, X)

    def g(x, i):
        return F.one_hot(i)  # HERE
    refuses(gj.GraphjitError, g, X, np.array([1, 2]))


def test_iterating_over_an_axis_is_fine_over_a_scalar_not():
    np.testing.assert_array_equal(gj.compile(lambda x: [r * 2 for r in x])(X)[1], X[1] * 2)

    def f(x):
        return list(x.sum())  # HERE
    refuses(gj.ArgumentError, f, X)


# ---- tensors that outlive their trace

def test_leaked_tensors():
    kept = []

    @gj.compile
    def f(x):
        y = x * 2
        kept[:] = [y, x]
        return y
    f(X)
    y, x = kept
    for use in (lambda: y + 1, lambda: float(y.sum()), lambda: y.numpy(), lambda: y.shape, lambda: np.asarray(y),
                lambda: gj.compile(lambda x: x + y)(X), lambda: y.backward(), lambda: y.assign(0),
                lambda: OTHER.assign(y), lambda: gj.exp(x), lambda: gj.tensor(y), lambda: bool(y.sum())):
        with pytest.raises(gj.LeakedTensorError) as error:
            use()
        assert "test_compile_errors.py" in str(error.value)
    with pytest.raises(gj.LeakedTensorError, match=f"py:{f.function.__code__.co_firstlineno + 2} "):
        y + 1
    assert "made at" in repr(y)
    np.testing.assert_array_equal(f(X), X * 2)


def test_a_leaked_tensor_as_argument_and_result():
    kept = []

    @gj.compile
    def f(x):
        kept.append(x * 1)
        return x
    f(X)
    for call in (lambda: f(kept[0]), lambda: gj.compile(lambda x: x)(kept[0]), lambda: gj.compile(lambda: kept[0])(),
                 lambda: gj.compile(lambda x: [x, {"a": kept[0]}])(X)):
        with pytest.raises(gj.LeakedTensorError):
            call()
    np.testing.assert_array_equal(f(X), X)


# ---- wrong shapes, dtypes, values

@pytest.mark.parametrize("error, wrong, words", [
    (gj.ShapeError, lambda x: x + gj.ones(4), ["(2, 3)", "(4,)"]),
    (gj.ShapeError, lambda x: x @ x, ["matmul", "float64[2, 3]"]),
    (gj.ShapeError, lambda x: x.reshape(4, 5), ["[2, 3]"]),
    (gj.ShapeError, lambda x: x.sum(axis=5), ["5"]),
    (gj.ShapeError, lambda x: gj.concat([x, gj.ones((5, 5))]), ["5"]),
    (gj.ShapeError, lambda x: x.permute_dims(0, 0), ["0"]),
    (gj.GraphjitError, lambda x: x[5], ["5"]),
    (gj.GraphjitError, lambda x: x[0, 0, 0], []),
    (gj.DTypeError, lambda x: x & x, ["float64"]),
    (gj.DTypeError, lambda x: x.astype("float16"), ["float16"]),
    (gj.DTypeError, lambda x: x.take(x[0]), ["float64"]),
    (gj.ArgumentError, lambda x: gj.tensor([[1.0, 2.0], [3.0]]) + x, ["list"]),
    (gj.ArgumentError, lambda x: x + gj.tensor("text"), ["str"]),
    (gj.ArgumentError, lambda x: x + gj.tensor([object()]), []),
    (gj.DTypeError, lambda x: x + np.ones((2, 3), complex), ["complex"]),
    (gj.DTypeError, lambda x: x * np.ones((2, 3), np.float16), ["float16"]),
    (gj.GraphjitError, lambda x: x + np.array(["a", "b", "c"]), []),
    (gj.GradientError, lambda x: x.sum().backward(), ["requires_grad"]),
    (gj.GradientError, lambda x: gj.grad(lambda y: y * 2)(x), ["scalar", "one floating number"]),
    (gj.TraceError, lambda x: nn.Parameter(np.ones(3)), ["outside"]),
    (gj.TraceError, lambda x: optim.SGD([OTHER], lr=0.1), ["outside"]),
    (gj.TraceError, lambda x: OTHER.requires_grad_(), ["requires_grad"]),
    (gj.ShapeError, lambda x: OTHER.assign(gj.ones((7, 7))), ["7"]),
    (gj.ShapeError, lambda x: nn.Linear(4, 2)(x) if False else F.linear(x, gj.ones((2, 4))), ["linear"]),
    (gj.ArgumentError, lambda x: F.dropout(x, 1.5), ["1.5"]),
], ids=range(25))
def test_wrong_operands(error, wrong, words):
    f = gj.compile(lambda x: wrong(x))
    for _ in range(2):
        with pytest.raises(error) as caught:
            f(X)
        text = str(caught.value)
        assert f"test_compile_errors.py:{wrong.__code__.co_firstlineno} " in text, text
        assert any(w in text for w in words) or not words, text
        assert len(text.splitlines()) <= 15
    assert f.trace_count == 0
    np.testing.assert_array_equal(gj.compile(lambda x: x * 2)(X), X * 2)


def test_the_users_own_errors_pass_and_leave_nothing():
    w = nn.Parameter(np.ones(3))
    opt = optim.Adam([w], lr=0.1)
    fail = True

    @gj.compile
    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()
        if fail:
            raise KeyError("mine")
        return w.sum()
    with pytest.raises(KeyError, match="mine"):
        step(X)
    assert w.grad is None
    np.testing.assert_array_equal(w, np.ones(3))
    fail = False
    assert float(step(X)) == pytest.approx(2.7)
    assert opt.state_dict()["state"][0]["step"].item() == 1


def test_an_error_in_a_nested_compiled_function():
    @gj.compile
    def inner(x):
        return x @ x

    def outer(x):
        return inner(x)
    with pytest.raises(gj.ShapeError, match=f"py:{inner.function.__code__.co_firstlineno + 2} in inner"):
        gj.compile(outer)(X)
    np.testing.assert_array_equal(gj.compile(outer)(np.eye(2)), np.eye(2))


def test_deep_recursion_is_the_users_error():
    @gj.compile
    def f(x):
        return f(x)
    with pytest.raises(RecursionError):
        f(X)
    np.testing.assert_array_equal(gj.compile(lambda x: x * 2)(X), X * 2)


# ---- data found wrong while the program runs

def state_of(model, opt):
    return [t.numpy().copy() for t in (*model.state_dict().values(),
                                       *(t for s in opt.state_dict()["state"].values() for t in s.values()))]


@pytest.mark.parametrize("bad", [7, -1, 3])
def test_labels_out_of_range_leave_the_state_unchanged(bad):
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    opt = optim.Adam(model.parameters(), lr=0.1)
    losses = []

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)  # HERE
        loss.backward()
        opt.step()
        return loss
    f = gj.compile(step)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    good, wrong = np.array([0, 1, 2, 0]), np.array([0, 1, bad, 0])
    losses.append(float(f(x, good)))
    before, seed = state_of(model, opt), gj.random.default_generator().state
    for _ in range(2):
        with pytest.raises(gj.BoundsError, match=str(bad)) as error:
            f(x, wrong)
        assert f"test_compile_errors.py:{line_of(step)} " in str(error.value)
    for a, b in zip(state_of(model, opt), before, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(gj.random.default_generator().state, seed)
    assert np.isfinite(float(f(x, good)))
    assert f.trace_count == 1


@pytest.mark.parametrize("pick", [
    lambda x, i: x[i], lambda x, i: x.take(i, axis=0), lambda x, i: F.embedding(i, x),
    lambda x, i: gj.take_along_axis(x, i.reshape(-1, 1), axis=0), lambda x, i: gj.scatter_add(x, i, x[:2]),
], ids=["index", "take", "embedding", "take_along_axis", "scatter_add"])
def test_indices_out_of_range(pick):
    f = gj.compile(lambda x, i: pick(x, i))
    for bad in ([0, 5], [-9, 0]):
        f(X, np.array([0, 1]))
        with pytest.raises(gj.BoundsError, match=str(max(bad, key=abs))) as error:
            f(X, np.array(bad))
        assert "test_compile_errors.py" in str(error.value)
        f(X, np.array([1, 0]))
    assert f.trace_count == 1


def test_singular_matrices():
    f = gj.compile(lambda a: gj.linalg.inv(a))
    good = np.array([[2.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(f(good), np.linalg.inv(good))
    with pytest.raises(gj.NumericalError) as error:
        f(np.zeros((2, 2)))
    assert "test_compile_errors.py" in str(error.value)
    np.testing.assert_allclose(f(good), np.linalg.inv(good))


def test_infinities_and_nans_are_values():
    x = np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 1e308]])

    def g(x):
        return x * 10, 1 / x, gj.log(x), x.max(), gj.isnan(x)
    with gj.eager():
        want = gj.compile(g)(x)
    for a, b in zip(gj.compile(g)(x), want, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- our own faults

def test_a_kernel_that_does_not_compile(monkeypatch):
    from graphjit.kernels import scalar
    f = gj.compile(lambda x: gj.exp(x) * 1.2345 + gj.exp(-x) * 77)
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", "")  # where an earlier run may have left the kernel
    with monkeypatch.context() as patch:
        patch.delitem(scalar.TABLE, "exp")
        with pytest.raises(gj.InternalCompilerError) as error:
            f(X)
    text = str(error.value)
    assert "GRAPHJIT_EAGER=1" in text
    assert "test_compile_errors.py" in text
    assert "numba" not in text.lower() and "llvmlite" not in text
    assert len(text.splitlines()) <= 15
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    path = re.search(r"\S+\.py(?= reproduces)", text)
    assert path is not None
    with gj.eager():
        np.testing.assert_allclose(f(X), f.function(gj.tensor(X)))
    np.testing.assert_allclose(f(X), f.function(gj.tensor(X)), rtol=1e-12)


def test_tracebacks_show_the_users_frames_and_few_of_ours():
    def f(x):
        return x @ x
    try:
        gj.compile(f)(X)
    except gj.ShapeError:
        import traceback
        frames = traceback.extract_tb(sys.exc_info()[2])
        assert any(frame.name == "f" for frame in frames)
        assert not any(name in frame.filename for frame in frames for name in ("numba", "llvmlite"))


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), lambda: random.random(), lambda: np.random.normal(size=3)])
def test_numbers_of_a_global_generator_are_warned_of(draw):
    f = gj.compile(lambda x: x * draw())
    with pytest.warns(gj.TraceWarning, match="constants of the compiled program") as caught:
        f(np.ones(3))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(np.ones(3))
        gj.compile(lambda x: x + np.random.default_rng(0).normal())(np.ones(3))
