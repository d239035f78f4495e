"""Transforms of transforms, with backward(), without grad, and inside a trace."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from tracing import traced

from graphjit import (
    GradientError,
    compile,
    cos,
    custom_vjp,
    enable_grad,
    exp,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    no_grad,
    sin,
    tanh,
    tensor,
    value_and_grad,
    vjp,
    where,
)
from graphjit.tape import state
from graphjit.tree import flatten

RNG = np.random.default_rng(0)
A, B, V = RNG.standard_normal((3, 4)), RNG.standard_normal(4), RNG.standard_normal((3, 4))


def close(a, b, rtol=1e-10):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


# ---- composition

def test_third_derivative():
    third = grad(grad(grad(lambda x: sin(x) * x)))
    close(third(np.float64(0.7)), -3 * np.sin(0.7) - 0.7 * np.cos(0.7))


def test_forward_over_reverse_and_the_other_way():
    def g(x):
        return (sin(x) * (x * x).sum()).sum()
    want = hvp(g, B, V[0])
    close(jvp(grad(g), (B,), (V[0],))[1], want)
    close(grad(lambda x: jvp(g, (x,), (V[0],))[1])(B), want)
    close(grad(lambda x: (grad(g)(x) * V[0]).sum())(B), want)
    close(vjp(grad(g), B)[1](V[0])[0], want)
    third = jvp(lambda x: hvp(g, x, V[0]), (B,), (V[1],))[1]
    close(third, grad(lambda x: (hvp(g, x, V[0]) * V[1]).sum())(B), rtol=1e-8)


def test_inner_and_outer_variables_are_not_confused():
    # d/dx (x * d/dy (x + y)) = 1, and not 2
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0).item() == 1.0
    assert grad(lambda x: x * jvp(lambda y: x * y, (2.0,), (1.0,))[1])(3.0).item() == 6.0


def test_backward_passes_through():
    x, w = tensor(B, requires_grad=True), tensor(2 * B, requires_grad=True)
    g = grad(lambda t: (t * t * t * w).sum())(x)  # 3 x**2 w
    assert g.requires_grad
    g.sum().backward()
    close(x.grad, 6 * B * 2 * B)
    close(w.grad, 3 * B * B)


def test_backward_inside_of_grad():
    w = tensor(2.0, requires_grad=True)

    def g(x):
        (w * 3).backward()
        return x * x * w
    assert grad(g)(5.0).item() == 20.0
    assert w.grad.item() == 3.0


def test_a_pullback_is_differentiable_in_its_cotangent():
    _, pullback = vjp(lambda x: x * B, B)
    u = tensor(V[0], requires_grad=True)
    (pullback(u)[0] * V[1]).sum().backward()
    close(u.grad, B * V[1])


def test_a_pullback_alone_links_nothing_to_its_own_inputs():
    _, pullback = vjp(lambda x: sin(x) * x, B)

    def g(u):
        return (pullback(u)[0] ** 2).sum()
    slope = np.cos(B) * B + np.sin(B)
    for got in (grad(g)(V[0]), compile(grad(g))(V[0]), traced(grad(g), V[0])):
        close(got, 2 * V[0] * slope ** 2)
    assert not grad(g)(V[0]).requires_grad and not hvp(g, V[0], B).requires_grad
    close(hvp(g, V[0], B), 2 * B * slope ** 2)
    assert pullback(tensor(B, requires_grad=True))[0].requires_grad


def test_a_pullback_can_be_called_again():
    _, pullback = vjp(sin, A)
    close(pullback(V)[0], pullback(V)[0].numpy())
    with no_grad():
        close(pullback(2 * V)[0], 2 * V * np.cos(A))


def test_results_are_detached_where_no_one_can_differentiate_them():
    p = tensor(B)
    for _ in range(3):
        p = p - 0.1 * grad(lambda x: (x ** 4).sum())(p)
    assert not p.requires_grad and p.is_leaf
    w = tensor(B, requires_grad=True)
    value, g = value_and_grad(lambda x: (x ** 2).sum() + (w ** 2).sum())(B)
    assert value.requires_grad and not g.requires_grad  # the gradient does not depend on w


def test_under_no_grad_transforms_work_and_are_detached():
    w = tensor(B, requires_grad=True)
    with no_grad():
        g = grad(lambda x: (x * x * w).sum())(w)
        h = hvp(lambda x: (x * x * w).sum(), w, w)
        _, tangent = jvp(lambda x: x * w, (w,), (w,))
        assert not state.grad_enabled
    assert not (g.requires_grad or h.requires_grad or tangent.requires_grad)
    close(g, 2 * B * B)
    with no_grad(), enable_grad():
        assert grad(lambda x: (x * x * w).sum())(w).requires_grad


def test_older_tapes_are_left_alone():
    x = tensor(B, requires_grad=True)
    y = x * 2
    y.sum().backward()  # releases the tape of y
    close(grad(lambda t: (t * t * y).sum())(y), 2 * (2 * B) ** 2)
    z = x * x
    grad(lambda t: (t * z).sum())(B)
    z.sum().backward()
    close(x.grad, 2 + 2 * B)


def test_arguments_are_not_written():
    a, t = B.copy(), tensor(B)

    def g(x):
        x[0] = 7.0
        return (x * x).sum()
    assert grad(g)(a).tolist() == grad(g)(t).tolist() == [0.0, *(2 * B[1:]).tolist()]
    assert a.tolist() == t.tolist() == B.tolist()


def test_updating_an_argument_later_does_not_disturb_a_pullback():
    x = tensor(B)
    _, pullback = vjp(lambda t: t * t, x)
    x.assign(np.zeros(4))
    close(pullback(np.ones(4))[0], 2 * B)


def test_depth_is_no_limit():
    def deep(x):
        for _ in range(50_000):
            x = x + 1.0
        return x
    assert grad(deep)(1.0).item() == 1.0


def test_nothing_is_kept_alive():
    gc.disable()
    try:
        seen = []

        def g(x):
            y = sin(x)
            seen.append(weakref.ref(y._value))
            return (y * y).sum()
        results = [grad(g)(B), hvp(g, B, B), jacobian(g)(B), jvp(g, (B,), (B,)), value_and_grad(g)(B)]
        assert [r() for r in seen] == [None] * len(seen) and results
    finally:
        gc.enable()


# ---- inside a trace: the same numbers

W = tensor(RNG.standard_normal(4), requires_grad=True)


@custom_vjp
def wave(x):
    return sin(x)


wave.defvjp(lambda x: (sin(x), cos(x)), lambda residual, g: (g * residual,))


def model(x):
    return (tanh(x * W) * exp(-x * x) + wave(x)).sum()


def by_backward(x, v):
    p = tensor(x, requires_grad=True)
    (model(p) * 2).backward()
    return p.grad * v


def through_backward(x, v):
    p = tensor(x, requires_grad=True)
    (grad(model)(p) * v).sum().backward()
    return p.grad


def bounded_step(x, v):
    with no_grad():
        g = grad(model)(x)
    return where(g > v, x - g, x)


PROGRAMS = {
    "grad": lambda x, v: grad(model)(x),
    "value_and_grad": lambda x, v: value_and_grad(model)(x),
    "vjp": lambda x, v: vjp(lambda t: (sin(t), t * W), x)[1]((v, 2 * v)),
    "jvp": lambda x, v: jvp(lambda t: {"s": sin(t), "w": t * W}, (x,), (v,)),
    "hvp": lambda x, v: hvp(model, x, v),
    "jacobian": lambda x, v: jacobian(lambda t: (t * W).sum(axis=1))(x),
    "wide jacobian": lambda x, v: jacobian(lambda t: t * x)(W[0]),
    "hessian": lambda x, v: hessian(lambda t: model(t * W))(x[0]),
    "grad of grad": lambda x, v: grad(lambda t: (grad(model)(t) * v).sum())(x),
    "jvp of grad": lambda x, v: jvp(grad(model), (x,), (v,)),
    "grad of jvp": lambda x, v: grad(lambda t: jvp(model, (t,), (v,))[1])(x),
    "jvp of hvp": lambda x, v: jvp(lambda t: hvp(model, t, v), (x,), (v,))[1],
    "grad of hvp": lambda x, v: grad(lambda t: (hvp(model, t, v) * v).sum())(x),
    "jacobian of vjp": lambda x, v: jacobian(lambda t: vjp(wave, t)[1](v[0])[0])(x[0]),
    "backward": by_backward,
    "grad, then backward": through_backward,
    "without grad": bounded_step,
    "a parameter": lambda x, v: grad(lambda w: (w * x).sum() ** 2)(W),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("run", [traced, lambda f, *xs: compile(f)(*xs)], ids=["traced", "compiled"])
def test_a_trace_gives_the_same(run, name):
    program = PROGRAMS[name]
    ours, spec = flatten(run(program, A, V))
    W.grad = None
    eager, like = flatten(program(tensor(A), tensor(V)))
    W.grad = None
    assert spec == like
    for a, b in zip(ours, eager, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        close(a, b)


INSIDE = {
    "grad": lambda f: grad(f)(A),
    "backward": lambda f: by_backward_of(f),
    "jvp": lambda f: jvp(f, (A,), (V,)),
    "hvp": lambda f: hvp(f, A, V),
    "vjp": lambda f: vjp(f, A)[1](2.0),
    "jacobian": lambda f: jacobian(f)(A),
    "grad of grad": lambda f: grad(lambda x: (grad(f)(x) * V).sum())(A),
    "compiled grad": lambda f: compile(grad(f))(A),
    "compiled grad of compiled grad": lambda f: compile(grad(lambda x: (compile(grad(f))(x) * V).sum()))(A),
    "grad through a compiled gradient": lambda f: grad(lambda x: (compile(grad(f))(x) * V).sum())(A),
}


def by_backward_of(f):
    x = tensor(A, requires_grad=True)
    W.grad = None
    f(x).backward()
    return x.grad, W.grad


@pytest.mark.parametrize("name", INSIDE)
def test_transforms_of_a_compiled_function(name):
    ours, eager = (flatten(INSIDE[name](f))[0] for f in (compile(model), model))
    W.grad = None
    for a, b in zip(ours, eager, strict=True):
        close(a, b)


def test_the_pullback_of_a_compiled_function_anywhere():
    f = compile(lambda x: sin(x) * x * W)
    _, pullback = vjp(f, B)
    slope = (np.cos(B) * B + np.sin(B)) * W.numpy()
    close(pullback(V[0])[0], V[0] * slope)
    close(compile(lambda u: pullback(u)[0])(V[0]), V[0] * slope)
    for wrap in (lambda f: f, compile, lambda f: lambda *xs: traced(f, *xs)):
        close(wrap(grad(lambda u: (pullback(u)[0] ** 2).sum()))(V[0]), 2 * V[0] * slope ** 2)


def test_second_derivatives_where_one_input_depends_on_another():
    def f(x, y):
        return (x * x * y).sum()

    def g(f):
        x = tensor(B, requires_grad=True)
        f(x, x * 3).backward(create_graph=True)  # 3 x**3
        first, x.grad = x.grad, None
        (first * V[0]).sum().backward()
        return first, x.grad
    for a, b in zip(g(compile(f)), g(f), strict=True):
        close(a, b)


def test_overwriting_the_argument_of_a_compiled_function():
    x = tensor(B)
    loss = compile(lambda x: (x * x * W).sum())(x)
    x.assign(np.zeros(4))
    with pytest.raises(GradientError, match="overwritten in place"):
        loss.backward()


def test_second_derivatives_of_a_function_that_changes_state():
    calls, key = tensor(0.0, label="calls"), tensor(1.0, label="key")

    def counted(x):
        calls.assign(calls + 1)
        return sin(x).sum()

    def keyed(x):
        key.assign(key + 1)
        return sin(x * (key - 1)).sum()
    close(grad(lambda x: grad(compile(counted))(x).sum())(B), -np.sin(B))
    assert calls.item() == 1.0
    with pytest.raises(GradientError, match=r"changes the state it reads \(key\)"):
        grad(lambda x: grad(compile(keyed))(x).sum())(B)
    key.assign(1.0)
    close(compile(grad(lambda x: grad(keyed)(x).sum()))(B), -np.sin(B))
    assert key.item() == 2.0


def test_a_gradient_step_on_state():
    def step(x):
        loss, g = value_and_grad(lambda w: (w * x).sum() ** 2)(w)
        w.assign(w - 0.1 * g)
        return loss
    w = tensor(B)
    want = [step(V[0]).item(), step(V[0]).item(), w.tolist()]
    w.assign(B)
    got = [float(traced(step, V[0])), float(traced(step, V[0])), w.tolist()]
    close(got[:2], want[:2])
    close(got[2], want[2])


def test_python_floats_are_float32_in_a_trace_too():
    assert traced(lambda x: grad(lambda t: t * t)(2.0) + x, np.float32([1.0])).dtype == np.float32
