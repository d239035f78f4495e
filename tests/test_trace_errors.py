"""What a compiled function cannot do: ask for values, leak tensors.

Each error names the user's lines, and the library works on afterwards.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphjit as gj
from graphjit import DataDependentError, GradientError, LeakedTensorError, TraceError, tensor
from graphjit.tape import state

X = np.arange(4.0)
W = tensor(X, requires_grad=True, label="w")


def works():
    assert state.trace is None and state.grad_enabled
    np.testing.assert_array_equal(gj.compile(lambda x: x * 2)(X), X * 2)
    assert gj.grad(lambda x: x * x)(3.0).item() == 6.0


def line_of(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def by_if(x):
    y = x.sum()  # made
    if y > 0:  # asked
        return x
    return -x


def by_condition_of_two(x):
    y = x * 2  # made
    return y if y.any() and y.all() else x  # asked


def by_while(x):
    y = x + 1  # made
    while y:  # asked
        y = y - 1
    return y


def by_float(x):
    y = x.sum()  # made
    return x * float(y)  # asked


def by_int(x):
    y = x.sum()  # made
    return x * int(y)  # asked


def by_item(x):
    y = x.max()  # made
    return x * y.item()  # asked


def by_tolist(x):
    y = x * 2  # made
    return y.tolist()  # asked


def by_data(x):
    y = x * 2  # made
    return y.data  # asked


def by_numpy_method(x):
    y = x * 2  # made
    return y.numpy()  # asked


def by_numpy_function(x):
    y = x * 2  # made
    return np.exp(y)  # asked


def by_numpy_reduction(x):
    y = x * 2  # made
    return np.sum(y)  # asked


def by_asarray(x):
    y = x * 2  # made
    return np.asarray(y)  # asked


def by_array_of_tensors(x):
    y = x * 2  # made
    return np.array([y, y])  # asked


def by_range(x):
    n = x.argmax()  # made
    return sum(range(n))  # asked


def by_index(x):
    n = x.argmax()  # made
    return [1, 2, 3][n]  # asked


def by_membership(x):
    y = x * 2  # made
    return 1.0 in y  # asked


ASKING = [
    by_if, by_condition_of_two, by_while, by_float, by_int, by_item, by_tolist, by_data, by_numpy_method,
    by_numpy_function, by_numpy_reduction, by_asarray, by_array_of_tensors, by_range, by_index, by_membership,
]


@pytest.mark.parametrize("function", ASKING, ids=lambda f: f.__name__)
def test_asking_for_a_value(function):
    with pytest.raises(DataDependentError) as found:
        gj.compile(function)(X)
    text = str(found.value)
    assert "known only when the program runs" in text and len(text.splitlines()) <= 15
    assert f"test_trace_errors.py:{line_of(function, '# asked')} in {function.__name__}" in text
    if function not in (by_if, by_condition_of_two, by_membership):  # there the condition itself is a tensor
        assert f"made at {__file__}:{line_of(function, '# made')}" in text
    works()


@pytest.mark.parametrize("ask", [float, bool, np.exp, lambda w: w.item(), lambda w: w.data, np.asarray])
def test_a_tensor_from_outside_is_not_baked_in(ask):
    w = tensor(2.0, label="weight")
    with pytest.raises(DataDependentError, match="it is weight from outside"):
        gj.compile(lambda x: x * ask(w))(X)
    works()


def test_types_are_known():
    @gj.compile
    def f(x):
        assert len(x) == 4 and x.shape == (4,) and x.ndim == 1 and x.size == 4 and x.dtype == np.float64
        assert np.shape(x) == (4,) and "float64[4]" in repr(x * 2) and "float64[4]" in repr(W)
        return sum(x)  # iterating over an axis is fine
    assert f(X).item() == X.sum()


def test_leaked_tensors():
    kept = []

    @gj.compile
    def f(x):
        y = x * 3  # made
        kept.append(y)
        kept.append(x)
        return x
    f(X)
    y, x = kept
    for use in (lambda t: t + 1, lambda t: t.sum(), lambda t: t.shape, lambda t: t.dtype, lambda t: t.data,
                float, bool, np.exp, lambda t: t.detach(), lambda t: gj.compile(lambda x: x + t)(X),
                lambda t: W.assign(t), lambda t: gj.grad(lambda x: (x * t).sum())(X),
                lambda t: gj.grad(lambda x: x.sum())(t)):
        with pytest.raises(LeakedTensorError, match="finished trace") as found:
            use(y)
        assert f"test_trace_errors.py:{line_of(test_leaked_tensors, '# made')} in f" in str(found.value)
        with pytest.raises(LeakedTensorError, match="an argument of the traced function"):
            use(x)
    assert "float64[4]" in repr(y)
    works()


def test_a_failing_function_leaves_no_trace():
    w = tensor(1.0)

    @gj.compile
    def f(x):
        w.assign(w + x.sum())
        raise KeyError("mine")
    for _ in range(2):
        with pytest.raises(KeyError):
            f(X)
        assert w.item() == 1.0
    works()


def test_an_error_in_a_gradient_rule_leaves_no_trace():
    @gj.custom_vjp
    def f(x):
        return x
    f.defvjp(lambda x: (x, None), lambda saved, g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gj.compile(gj.grad(lambda x: f(x).sum()))(X)
    works()


def test_shape_errors_are_the_same_in_both_modes():
    def f(x):
        return x @ np.ones(3)
    for run in (f, gj.compile(f), gj.grad(lambda x: f(x).sum())):
        with pytest.raises(gj.ShapeError) as found:
            run(tensor(X))
        assert f"test_trace_errors.py:{line_of(f, 'np.ones')}" in str(found.value)
    works()


def test_overwriting_what_the_tape_saved_raises_in_both_modes():
    def f(x):
        v = tensor(x, requires_grad=True)
        loss = (v * w).sum()
        w.assign(x)
        loss.backward()
        return v.grad
    w = tensor(X)
    for run in (f, gj.compile(f)):
        with pytest.raises(GradientError, match="overwritten in place"):
            run(X)
    works()


def test_backward_of_what_was_computed_outside():
    loss = (W * W).sum()

    @gj.compile
    def f(x):
        (loss * x.sum()).backward()
        return x
    with pytest.raises(GradientError, match="computed outside"):
        f(X)
    works()


def test_setting_requires_grad_of_a_captured_tensor():
    w = tensor(X)

    @gj.compile
    def f(x):
        w.requires_grad = True
        return x
    with pytest.raises(TraceError, match="requires_grad"):
        f(X)
    assert not w.requires_grad
    works()
