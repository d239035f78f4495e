"""Compiled functions are differentiable when called eagerly, and compose with every transform."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((3, 4)), RNG.standard_normal(4)


def leaf(a):
    return gj.tensor(a, requires_grad=True)


def close(a, b, rtol=1e-10):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=1e-12)


def gradients(f, *arrays, use=lambda out: out):
    """Gradients of sum(use(f(*arrays))) with respect to all arrays, by an eager backward()."""
    tensors = [leaf(a) for a in arrays]
    out = use(f(*tensors))
    out.sum().backward()
    return [None if t.grad is None else t.grad.numpy() for t in tensors]


def same_gradients(f, *arrays, use=lambda out: out):
    for got, want in zip(gradients(gj.compile(f), *arrays, use=use), gradients(f, *arrays, use=use), strict=True):
        if want is None:
            assert got is None
        else:
            close(got, want)


# ---- one call

def test_arguments():
    same_gradients(lambda x, y: gj.tanh(x) * y, A, B)


def test_a_scalar_result_needs_no_sum():
    x = leaf(A)
    gj.compile(lambda x: (x * x).sum())(x).backward()
    close(x.grad, 2 * A)


def test_captured_parameters():
    def run(wrap):
        w, b = leaf(A), leaf(B)
        f = wrap(lambda x: gj.tanh(x * w + b))
        (f(2 * A) * 3).sum().backward()
        return w.grad, b.grad
    for got, want in zip(run(gj.compile), run(lambda f: f), strict=True):
        close(got, want)


def test_a_model_and_an_eager_loss():
    def run(wrap):
        gj.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        forward = wrap(lambda x: model(x))
        opt = optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(4):
            opt.zero_grad()
            loss = (forward(A) ** 2).mean()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        return losses, forward
    got, forward = run(gj.compile)
    close(got, run(lambda f: f)[0])
    assert forward.trace_count == 1


@pytest.mark.parametrize("use", [lambda o: o[0], lambda o: o[1], lambda o: o[2]["c"], lambda o: o[0] + o[2]["c"],
                                 lambda o: o[0] * o[1]])
def test_several_results_of_which_some_are_used(use):
    def f(x, y):
        h = gj.exp(x)
        return h * y, (h * h).sum(), {"c": x + y, "n": None, "i": (x > 0), "s": "text"}
    same_gradients(f, A, B, use=use)


def test_eager_operations_before_and_after():
    g = gj.compile(lambda x: gj.sin(x) * x)

    def mixed(x, y):
        return gj.exp(g(x * 2) + y) * x

    def plain(x, y):
        return gj.exp(g.function(x * 2) + y) * x
    for got, want in zip(gradients(mixed, A, B), gradients(plain, A, B), strict=True):
        close(got, want)


def test_compiled_functions_in_a_chain():
    f, g = gj.compile(lambda x: x * x), gj.compile(lambda x: gj.sin(x))
    x = leaf(A)
    f(g(f(x))).sum().backward()
    y = leaf(A)
    f.function(g.function(f.function(y))).sum().backward()
    close(x.grad, y.grad)


def test_the_same_function_called_twice_before_backward():
    f = gj.compile(lambda x: gj.exp(x) * x)
    x, y = leaf(A), leaf(A + 1)
    (f(x) * f(y)).sum().backward()
    u, v = leaf(A), leaf(A + 1)
    (f.function(u) * f.function(v)).sum().backward()
    close(x.grad, u.grad)
    close(y.grad, v.grad)


def test_one_tensor_as_two_arguments():
    x = leaf(A)
    gj.compile(lambda a, b: a * gj.sin(b))(x, x).sum().backward()
    close(x.grad, np.sin(A) + A * np.cos(A))


def test_an_argument_that_is_also_captured():
    x = leaf(A)
    gj.compile(lambda a: a * gj.sin(x))(x).sum().backward()
    close(x.grad, np.sin(A) + A * np.cos(A))


@dataclass
class Pair:
    x: object
    scale: float


def test_nested_arguments_keywords_and_floats():
    def f(tree, pair, *, bias, power=2):
        return (tree["w"] * tree["more"][0] + pair.x * pair.scale) ** power + bias

    def run(g):
        t = [leaf(A), leaf(B), leaf(A + 1), leaf(B + 1)]
        g({"w": t[0], "more": [t[1], None]}, Pair(t[2], 1.5), bias=t[3]).sum().backward()
        return [x.grad.numpy() for x in t]
    for got, want in zip(run(gj.compile(f)), run(f), strict=True):
        close(got, want)


def test_arguments_without_gradients_among_others():
    def f(x, y, z):
        return x * y + z
    x, z = leaf(A), leaf(B)
    out = gj.compile(f)(x, A, z)
    out.sum().backward()
    close(x.grad, A)
    close(z.grad, np.full(4, 3.0))


def test_results_that_are_inputs():
    w = leaf(B)

    def f(x):
        return x, x * 2, w, x.reshape(-1)
    same_gradients(f, A, use=lambda o: o[0])
    same_gradients(f, A, use=lambda o: (o[0] + o[1]) * o[2])
    w.zero_grad()
    gj.compile(f)(leaf(A))[2].sum().backward()
    close(w.grad, np.ones(4))


def test_results_that_do_not_depend_on_anything():
    f = gj.compile(lambda x: (x * 2, gj.ones(3), x.detach() * 2, (x > 0).astype("float64")))
    x = leaf(A)
    a, b, c, d = f(x)
    assert a.requires_grad
    assert not (b.requires_grad or c.requires_grad or d.requires_grad)
    (a.sum() + b.sum() + c.sum() + d.sum()).backward()
    close(x.grad, np.full((3, 4), 2.0))


def test_a_gradient_that_is_constant_or_missing():
    same_gradients(lambda x, y: x + 0 * y, A, B)
    f = gj.compile(lambda x, y: x * 3)
    x, y = leaf(A), leaf(B)
    f(x, y).sum().backward()
    close(x.grad, np.full((3, 4), 3.0))
    assert y.grad is None


def test_large_arrays():
    big = RNG.standard_normal((200, 300))
    same_gradients(lambda x: gj.tanh(x) * x, big)
    same_gradients(lambda x, y: (gj.tanh(x), x @ y.T), big, big + 1, use=lambda o: o[1])


def test_float32_and_strided_arguments():
    def f(x):
        return gj.tanh(x) * x
    x, y = leaf(A.astype(np.float32).T), leaf(A.astype(np.float32).T)
    gj.compile(f)(x).sum().backward()
    f(y).sum().backward()
    assert x.grad.dtype == np.float32
    close(x.grad, y.grad, rtol=1e-5)


def test_gradient_argument_and_accumulation():
    f = gj.compile(lambda x: x * x)
    x = leaf(A)
    f(x).backward(A)
    close(x.grad, 2 * A * A)
    f(x).backward(np.ones_like(A))
    close(x.grad, 2 * A * A + 2 * A)


def test_retain_graph():
    x = leaf(A)
    y = gj.compile(lambda x: gj.exp(x).sum())(x)
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, 2 * np.exp(A))
    with pytest.raises(gj.GradientError, match="retain_graph"):
        y.backward()


def test_no_grad_keeps_nothing_for_a_backward():
    w = leaf(B)
    f = gj.compile(lambda x: gj.tanh(gj.exp(x) * w))
    with gj.no_grad():
        y = f(leaf(A))
    assert not y.requires_grad
    assert f.latest.backward is None
    assert len(f.latest.program.results) == 1
    assert f(leaf(A)).requires_grad
    assert len(f.latest.program.results) > 1
    assert not f.function(A).detach().requires_grad


def test_no_grad_inside():
    def f(x):
        with gj.no_grad():
            h = gj.exp(x)
        return h * x
    same_gradients(f, A)


def test_what_backward_needs_is_freed_by_it():
    f = gj.compile(lambda x: gj.tanh(x))
    a = np.zeros((100, 100))
    x = leaf(B)
    t = gj.tensor(a)
    kept = weakref.ref(t)
    y = gj.compile(lambda x, t: (x.sum() * t))(x, t).sum()
    del t
    y.backward()
    gc.collect()
    assert kept() is None
    assert f(A) is not None


def test_a_result_may_be_overwritten_before_backward():
    for n in (4, 40_000):  # staged in the arena, and in memory of its own
        x = leaf(np.linspace(0, 1, n))
        y, mask = gj.compile(lambda x: (gj.exp(x) * (x.detach() * 2), x.detach() * 2))(x)
        want = np.exp(x.numpy()) * x.numpy() * 2
        mask[...] = 0.0
        mask.data[...] = 0.0
        y.sum().backward()
        close(x.grad, want)
        z, e = gj.compile(lambda x: (gj.exp(x), gj.exp(x)))(x)
        assert not np.shares_memory(z.data, e.data)


def test_what_backward_needs_cannot_be_overwritten_unnoticed():
    for requires_grad in (True, False):
        w = gj.tensor(B, requires_grad=requires_grad)
        x = leaf(A)
        y = gj.compile(lambda x, w: x * w)(x, w)
        w.assign(B * 0)
        with pytest.raises(gj.GradientError, match="overwritten"):
            y.sum().backward()
        v = gj.tensor(B, requires_grad=requires_grad)
        y = gj.compile(lambda x, v=v: x * v)(x)
        v.assign(B * 0)
        with pytest.raises(gj.GradientError, match="overwritten"):
            y.sum().backward()


def test_state_changed_by_the_call_itself():
    def run(wrap):
        gj.manual_seed(1)
        bn = nn.BatchNorm1d(4).double()
        f = wrap(lambda x: bn(x) ** 2)
        x = leaf(A)
        for _ in range(3):
            (f(x) * B).sum().backward()
        return x.grad, bn.weight.grad, bn.running_mean, bn.num_batches_tracked
    for got, want in zip(run(gj.compile), run(lambda f: f), strict=True):
        close(got, want)


def test_dropout_masks_belong_to_their_call():
    def run(wrap):
        gj.manual_seed(1)
        drop = nn.Dropout(0.5)
        f = wrap(lambda x: drop(x * x))
        x, y = leaf(A), leaf(A)
        a, b = f(x), f(y)
        b.sum().backward()
        a.sum().backward()
        return x.grad, y.grad
    (gx, gy), (hx, hy) = run(gj.compile), run(lambda f: f)
    close(gx, hx)
    close(gy, hy)
    assert (gx.numpy() != gy.numpy()).any()


def test_integer_and_indexed_arguments():
    def f(w, i):
        return (w[i] * w.take(i, axis=0)).sum()
    i = np.array([0, 2, 2])
    x, y = leaf(A), leaf(A)
    gj.compile(f)(x, i).backward()
    f(y, i).backward()
    close(x.grad, y.grad)


def test_batch_sizes_need_no_new_kernels_backward():
    f = gj.compile(lambda x, w: gj.tanh(x @ w).sum())
    from graphjit.runtime.compiler import compile_count
    w = RNG.standard_normal((4, 5))
    counts = []
    for n in (8, 9, 1, 3, 64):
        x = leaf(np.ones((n, 4)))
        f(x, leaf(w)).backward()
        counts.append(compile_count())
        close(x.grad, (1 - np.tanh(np.ones((n, 4)) @ w) ** 2) @ w.T)
    assert counts[1:] == counts[:1] * 4


def test_custom_vjp_inside():
    @gj.custom_vjp
    def clipped(x):
        return x * 1
    clipped.defvjp(lambda x: (x * 1, x), lambda x, g: (gj.clip(g, -0.1, 0.1) * x,))
    same_gradients(lambda x: clipped(x * 3) * A, A)


def test_grad_inside():
    same_gradients(lambda x: gj.grad(lambda t: (t ** 3).sum())(x) * x, A)


def test_requires_grad_is_part_of_the_signature():
    f = gj.compile(lambda x: x * 2)
    assert not f(A).requires_grad
    assert not f(gj.tensor(A)).requires_grad
    assert f(leaf(A)).requires_grad
    assert not f(gj.tensor(A)).requires_grad
    assert f.trace_count == 2


# ---- second derivatives

def test_create_graph():
    f = gj.compile(lambda x: (gj.sin(x) * x * x).sum())

    def second(g):
        x = leaf(B)
        g(x).backward(create_graph=True)
        first = x.grad
        x.grad = None
        (first * first).sum().backward()
        return first, x.grad
    for got, want in zip(second(f), second(f.function), strict=True):
        close(got, want)


def test_create_graph_with_captured_parameters():
    def second(wrap):
        w = leaf(B)
        f = wrap(lambda x: (gj.exp(w * x)).sum())
        x = leaf(B + 1)
        f(x).backward(create_graph=True)
        g = x.grad
        x.grad, w.grad = None, None
        (g * g).sum().backward()
        return x.grad, w.grad
    for got, want in zip(second(gj.compile), second(lambda f: f), strict=True):
        close(got, want)


@pytest.mark.parametrize("transform", [
    lambda f: gj.grad(f), lambda f: gj.grad(lambda x: (gj.grad(f)(x) ** 2).sum()), lambda f: gj.hessian(f),
    lambda f: lambda x: gj.hvp(f, x, B + 1), lambda f: lambda x: gj.jvp(f, (x,), (B + 1,))[1],
    lambda f: lambda x: gj.vjp(f, x)[1](2.0)[0], lambda f: gj.jacobian(f), lambda f: gj.jacobian(gj.grad(f)),
    lambda f: lambda x: gj.value_and_grad(f)(x)[1],
], ids=["grad", "grad grad", "hessian", "hvp", "jvp", "vjp", "jacobian", "jacobian grad", "value_and_grad"])
def test_transforms_of_a_compiled_function_and_compiled_transforms(transform):
    def f(x):
        return (gj.sin(x) * x * x).sum()
    want = transform(f)(B)
    close(transform(gj.compile(f))(B), want)
    close(gj.compile(transform(f))(B), want)
    close(gj.compile(transform(gj.compile(f)))(B), want)


def test_transforms_with_several_arguments_and_aux():
    def f(x, y):
        return (gj.tanh(x) * y).sum(), {"aux": x * y, "n": 3}
    want = gj.value_and_grad(f, argnums=(0, 1), has_aux=True)(A, B)
    got = gj.compile(gj.value_and_grad(f, argnums=(0, 1), has_aux=True))(A, B)
    (v, aux), grads = got
    (w, wanted_aux), wanted = want
    close(v, w)
    close(aux["aux"], wanted_aux["aux"])
    assert aux["n"] == 3
    for g, h in zip(grads, wanted, strict=True):
        close(g, h)


def test_gradients_of_trees():
    def f(p, x):
        return (gj.tanh(x * p["w"] + p["b"][0]) ** 2).sum()
    p = {"w": A, "b": [B, None]}
    want = gj.grad(f)(p, A)
    for g in (gj.compile(gj.grad(f)), gj.grad(gj.compile(f))):
        got = g(p, A)
        close(got["w"], want["w"])
        close(got["b"][0], want["b"][0])
        assert got["b"][1] is None


def test_a_second_derivative_through_changed_state_says_so():
    bn = nn.BatchNorm1d(4).double()
    count = gj.tensor(np.zeros(4))

    def f(x):
        count.assign(count + 1)
        return (x * x * count).sum() + bn(x).sum() * 0
    x = leaf(A)
    y = gj.compile(f)(x)
    with pytest.raises(gj.GradientError, match="compile"):
        y.backward(create_graph=True)
    g = gj.compile(gj.grad(f))(A)
    assert np.isfinite(g.numpy()).all()


def test_second_derivative_of_values_at_the_time_of_the_call():
    w = gj.tensor(B)
    f = gj.compile(lambda x: (w * x * x * x).sum())
    x = leaf(B)
    y = f(x)
    y.backward(create_graph=True)
    g = x.grad
    x.grad = None
    g.sum().backward()
    close(x.grad, 6 * B * B)


# ---- backward inside

def test_backward_inside_a_compiled_function_that_is_called_by_another():
    w = leaf(B)

    @gj.compile
    def loss(x):
        return (gj.tanh(w * x)).sum()

    @gj.compile(keep_grads=True)
    def step(x):
        w.zero_grad()
        out = loss(x)
        out.backward()
        return out
    step(A)
    v = leaf(B)
    gj.tanh(v * A).sum().backward()
    close(w.grad, v.grad)
    assert loss.trace_count == 0, "inside of a compiled function it is inlined"


def test_backward_inside_reaching_a_tensor_computed_outside():
    w = leaf(B)
    h = w * 2

    @gj.compile
    def step(x):
        (h * x).sum().backward()
    with pytest.raises(gj.GradientError, match="computed outside"):
        step(A)


@pytest.mark.parametrize("keep", [False, True])
def test_backward_inside_for_an_argument(keep):
    def f(w, x):
        w.grad = None
        loss = (gj.tanh(w) * x).sum()
        loss.backward()
        return w.grad * 1, loss
    w, v = leaf(B), leaf(B)
    g = gj.compile(f, keep_grads=keep)
    for _ in range(2):
        for got, want in zip(g(w, A), f(v, A), strict=True):
            close(got, want)
        if keep:
            close(w.grad, v.grad)
        else:
            with pytest.raises(gj.GradientError, match="stayed inside"):
                _ = w.grad
    assert g.trace_count == 1


def test_backward_inside_adds_to_no_gradient_of_an_argument():
    w = leaf(B)

    @gj.compile(keep_grads=True)
    def f(w, x):
        (w * x).sum().backward()
    f(w, B)
    close(w.grad, B)
    with pytest.raises(gj.GradientError, match=r"argument w of .*f has a gradient already"):
        f(w, B)
    w.zero_grad()
    f(w, B)
    close(w.grad, B)
    with pytest.raises(gj.GradientError, match="computed outside"):
        f(w * 2, B)


def test_a_loss_whose_tape_was_walked_inside_is_plain():
    w = leaf(B)

    @gj.compile
    def step(x):
        w.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        return loss
    loss = step(A)
    assert not loss.requires_grad


def test_cross_entropy_of_a_compiled_model():
    labels = np.array([0, 1, 1])

    def run(wrap):
        gj.manual_seed(0)
        model = nn.Linear(4, 2).double()
        f = wrap(lambda x, y: F.cross_entropy(model(x), y))
        f(A, labels).backward()
        return model.weight.grad
    close(run(gj.compile), run(lambda f: f))
