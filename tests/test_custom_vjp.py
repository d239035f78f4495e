"""custom_vjp: the user's own pullbacks, in every composition; check_grads, which finds wrong ones."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from tracing import traced

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import (
    ArgumentError,
    GradientError,
    ShapeError,
    compile,
    cos,
    custom_vjp,
    exp,
    grad,
    hvp,
    jacobian,
    jvp,
    no_grad,
    sin,
    tensor,
    vjp,
)
from graphjit.testing import check_grads

X, Y = np.linspace(-1.0, 1.0, 5), np.linspace(0.5, 2.0, 5)


def close(a, b, rtol=1e-10):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


def make(fwd=None, bwd=None):
    """sin(x) * y, with this derivative or the right one."""
    @custom_vjp
    def sine_times(x, y):
        """sin(x) * y"""
        return sin(x) * y
    sine_times.defvjp(fwd or (lambda x, y: (sin(x) * y, (x, y))),
                      bwd or (lambda saved, g: (g * cos(saved[0]) * saved[1], g * sin(saved[0]))))
    return sine_times


# ---- values

def test_it_is_the_function():
    f = make()
    assert f.__name__ == "sine_times" and f.__doc__ == "sin(x) * y" and "sine_times" in repr(f)
    close(f(tensor(X), Y), np.sin(X) * Y)
    assert not f(tensor(X), Y).requires_grad


def test_backward_uses_the_given_pullback():
    f = make(bwd=lambda saved, g: (g * 100.0, None))
    x, y = tensor(X, requires_grad=True), tensor(Y, requires_grad=True)
    out = f(x, y)
    assert out.requires_grad and out.op == "sine_times"
    close(out, np.sin(X) * Y)
    out.sum().backward()
    assert x.grad.tolist() == [100.0] * 5 and y.grad is None


def test_only_where_a_gradient_is_wanted():
    calls = []

    def fwd(x, y):
        calls.append("fwd")
        return sin(x) * y, (x, y)
    f = make(fwd)
    f(tensor(X), Y)
    with no_grad():
        f(tensor(X, requires_grad=True), Y)
    assert calls == []
    f(tensor(X, requires_grad=True), Y)
    assert calls == ["fwd"]


def test_nested_arguments_results_residuals():
    @custom_vjp
    def f(params, n, scale=2.0):
        return {"sum": params["w"] * scale + params["b"][0], "n": n, "none": None}

    def bwd(saved, g):
        assert g["none"] is None and saved["n"] == 3
        return {"w": g["sum"] * saved["scale"], "b": [g["sum"], None]}, None, None
    f.defvjp(lambda params, n, scale: (
        {"sum": params["w"] * scale + params["b"][0], "n": n, "none": None}, {"n": n, "scale": scale}), bwd)
    params = {"w": tensor(X, requires_grad=True), "b": [tensor(Y, requires_grad=True), "static"]}
    out = f(params, 3, scale=5.0)
    assert out["n"] == 3
    out["sum"].sum().backward()
    assert params["w"].grad.tolist() == [5.0] * 5 and params["b"][0].grad.tolist() == [1.0] * 5
    assert not f(params, n=3)["sum"].detach().requires_grad


def test_several_results_of_which_one_is_used():
    @custom_vjp
    def f(x):
        return sin(x), cos(x), (x > 0)
    f.defvjp(lambda x: ((sin(x), cos(x), (x > 0)), x),
             lambda x, g: (g[0] * cos(x) - g[1] * sin(x) + 0 * g[2],))
    for i, want in ((0, np.cos(X)), (1, -np.sin(X))):
        x = tensor(X, requires_grad=True)
        out = f(x)
        assert not out[2].requires_grad
        out[i].sum().backward()
        close(x.grad, want)


def test_gradients_are_cast_to_their_argument():
    x = tensor(X.astype(np.float32), requires_grad=True)
    make()(x, Y).sum().backward()
    assert x.grad.dtype == np.float32


# ---- composition

def test_it_composes():
    f = make()

    def plain(x, y):
        return sin(x) * y
    for transform in (
            lambda f: grad(lambda x: f(x, Y).sum())(X),
            lambda f: jvp(f, (X, Y), (Y, X)),
            lambda f: hvp(lambda x, y: (f(x, y) ** 2).sum(), (X, Y), (Y, X)),
            lambda f: grad(lambda x: (grad(lambda x: f(x, Y).sum())(x) ** 2).sum())(X),
            lambda f: jacobian(f, argnums=(0, 1))(X, Y),
            lambda f: compile(grad(lambda x: f(x, Y).sum()))(X),
            lambda f: grad(lambda x: compile(f)(x, Y).sum())(X),
            lambda f: traced(grad(lambda x: (grad(lambda x: f(x, Y).sum())(x) ** 2).sum()), X),
            lambda f: traced(lambda x: vjp(f, x, Y)[1](x), X)):
        for ours, theirs in zip(np.atleast_1d(transform(f)), np.atleast_1d(transform(plain)), strict=True):
            close(np.asarray(ours), np.asarray(theirs))


def test_residuals_know_what_they_depend_on():
    @custom_vjp
    def f(x):
        return sin(x)
    f.defvjp(lambda x: (sin(x), cos(x)), lambda slope, g: (g * slope,))
    close(grad(grad(lambda x: f(x)))(np.float64(0.3)), -np.sin(0.3))
    check_grads(f, (X,), order=3)


def test_the_second_derivative_is_that_of_bwd():
    @custom_vjp
    def straight_through(x):
        return x.round()
    straight_through.defvjp(lambda x: (x.round(), x), lambda x, g: (g * x * x,))
    assert grad(straight_through)(3.0).item() == 9.0
    assert grad(grad(straight_through))(3.0).item() == 6.0


def test_a_chain_of_them():
    f = make()

    def deep(x):
        for _ in range(2000):
            x = f(x, 1.0)
        return x
    assert grad(deep)(0.1).item() > 0


def test_what_it_saved_is_freed_by_backward():
    gc.disable()
    try:
        f = make(lambda x, y: (sin(x) * y, (exp(x), y)), lambda saved, g: (g * saved[0], None))
        seen = []
        g = custom_vjp(lambda x: x)

        def fwd(x):
            saved = exp(x)
            seen.append(weakref.ref(saved._value))
            return sin(x), saved
        g.defvjp(fwd, lambda saved, g: (g * saved,))
        out = g(f(tensor(X, requires_grad=True), Y)).sum()
        assert seen[0]() is not None
        out.backward()
        assert seen[0]() is None
    finally:
        gc.enable()


# ---- errors

def test_without_defvjp():
    f = custom_vjp(lambda x: x * 2)
    assert f(tensor(1.0)).item() == 2.0
    with pytest.raises(GradientError, match=r"<lambda> has no derivative yet[\s\S]*defvjp"):
        grad(f)(1.0)


def test_defvjp_of_what_is_no_function():
    with pytest.raises(ArgumentError, match="two functions"):
        custom_vjp(sin).defvjp(sin, None)


@pytest.mark.parametrize("returned, got",
                         [(lambda g: (g,), "1"), (lambda g: (g, g, g), "3"), (lambda g: g, "Tensor")])
def test_a_wrong_number_of_cotangents(returned, got):
    f = make(bwd=lambda saved, g: returned(g))
    with pytest.raises(GradientError, match=f"bwd of sine_times must return a tuple of 2 .* returned {got}"):
        grad(lambda x: f(x, Y).sum())(X)


def test_a_cotangent_of_a_wrong_shape():
    f = make(bwd=lambda saved, g: (g.sum(), None))
    with pytest.raises(ShapeError, match=r"bwd of sine_times: the cotangent of argument 0 has shape \(\)"):
        grad(lambda x: f(x, Y).sum())(X)


def test_cotangents_nested_otherwise():
    f = custom_vjp(lambda p: p["a"])
    f.defvjp(lambda p: (p["a"], None), lambda saved, g: (g,))
    with pytest.raises(ArgumentError, match="bwd of <lambda>: the cotangent of argument 0 must be nested"):
        grad(lambda p: f(p).sum())({"a": X})


def test_fwd_that_gives_no_pair():
    f = make(lambda x, y: sin(x) * y)
    with pytest.raises(GradientError, match="fwd of sine_times must return a pair"):
        grad(lambda x: f(x, Y).sum())(X)


def test_keyword_only_arguments():
    f = custom_vjp(lambda x, *, n: x * n)
    with pytest.raises(ArgumentError, match="keyword-only"):
        f(tensor(1.0), n=2)


# ---- check_grads

def test_right_derivatives_pass():
    check_grads(lambda x, p: {"a": sin(x) * p["w"], "b": [exp(p["w"]).sum(), None], "n": (x > 0)},
                (X, {"w": Y.astype(np.float32), "n": 3}), order=3)
    check_grads(lambda x: x.sum() * 0, (X,))
    check_grads(lambda x: x.softmax().sum(), (X,))  # constant but for rounding
    check_grads(compile(lambda x: (sin(x) * x).sum()), (X,))
    check_grads(lambda x: 1e6 * x, (2.0,))


def test_activations_with_rules_of_their_own():
    plain = (lambda x: x * (gj.erf(x / 2**0.5) + 1) / 2, lambda x: x / (exp(-x) + 1),
             lambda x: exp(x) / exp(x).sum(-1, keepdims=True))
    for rule, by_steps in zip((F.gelu, F.silu, gj.softmax), plain, strict=True):
        for f in (rule, lambda x, rule=rule: grad(lambda x: sin(rule(x)).sum())(x)):
            check_grads(f, (X,), order=2)
            check_grads(compile(f), (X,))
        got, wanted = (grad(lambda x, f=f: sin(f(x)).sum())(X) for f in (rule, by_steps))
        np.testing.assert_allclose(got.data, wanted.data, rtol=1e-12, atol=1e-14)
    check_grads(lambda x: F.gelu(x, "tanh"), (X,), order=3)
    check_grads(lambda x: x.softmax(0), (X,), order=3)


def test_a_wrong_first_derivative_is_reported():
    f = make(bwd=lambda saved, g: (g * cos(saved[0]) * saved[1], 1.001 * g * sin(saved[0])))
    with pytest.raises(AssertionError) as found:
        check_grads(f, (X, Y))
    lines = str(found.value).splitlines()
    assert lines[0].startswith("derivative 1 of sine_times")
    assert lines[2].endswith(": agrees") and "argument 0 float64[5]" in lines[2]
    assert lines[3].endswith(": DIFFERS") and "argument 1 float64[5]" in lines[3]


def test_a_wrong_second_derivative_is_reported():
    f = make(bwd=lambda saved, g: (g * cos(saved[0]) * saved[1].detach(), g * sin(saved[0])))
    check_grads(f, (X, Y), order=1)
    with pytest.raises(AssertionError, match="derivative 2 of sine_times"):
        check_grads(f, (X, Y))


def test_a_lost_gradient_is_reported():
    with pytest.raises(AssertionError, match="computed 0,"):
        check_grads(lambda x: sin(x.detach()), (X,), order=1)


# ---- never stale

def test_compiled_code_sees_what_the_pullback_reads():
    slope = 2.0
    f = custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda saved, g: (g * slope,))
    g = compile(lambda x: grad(lambda t: f(t).sum())(x))
    assert g(X).tolist() == [2.0] * 5
    slope = 3.0
    assert g(X).tolist() == [3.0] * 5
    f.defvjp(lambda x: (x, None), lambda saved, g: (g * 7,))
    assert g(X).tolist() == [7.0] * 5


def test_compiled_transforms_see_what_their_function_reads():
    from functools import partial
    scale = 2.0

    def f(power, x):
        return (x ** power * scale).sum()
    gradients = [compile(grad(partial(f, 2))), compile(partial(grad(f, argnums=1), 2)),
                 compile(lambda x: hvp(partial(f, 3), x, 1 / 3 + 0 * x))]
    for value in (2.0, 5.0):
        scale = value
        for g in gradients:
            close(g(X), 2 * X * scale)


def test_fwd_may_call_the_function_itself():
    @gj.custom_vjp
    def f(x):
        return x * x

    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * x * 3,))
    assert float(gj.grad(f)(2.0)) == 6.0
    assert float(gj.compile(gj.grad(f))(2.0)) == 6.0
    assert float(f(3.0)) == 9.0
