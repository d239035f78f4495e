"""Eager reverse mode: what backward() gives, keeps, frees and refuses."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from graphjit import (
    DTypeError,
    GradientError,
    ShapeError,
    Tensor,
    enable_grad,
    exp,
    no_grad,
    sin,
    tanh,
    tensor,
    where,
)
from graphjit.tape import state


def leaf(data, dtype="float64") -> Tensor:
    return tensor(data, dtype=dtype, requires_grad=True)


# ---- values of gradients

def test_a_product():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * y).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]
    assert y.grad.tolist() == [1.0, 2.0]


def test_broadcasting_is_undone():
    row, column, one = leaf(np.ones((1, 3))), leaf(np.ones((2, 1))), leaf(2.0)
    (row * column * one * np.arange(6.0).reshape(2, 3)).sum().backward()
    assert row.grad.tolist() == [[6.0, 10.0, 14.0]]
    assert column.grad.tolist() == [[6.0], [24.0]]
    assert one.grad.shape == () and one.grad.item() == 15.0


def test_a_tensor_used_twice():
    x = leaf(3.0)
    y = x * x
    (y * y).backward()
    assert x.grad.item() == 4 * 27


def test_diamonds_are_walked_once():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2 ** 60 paths
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0 ** 60


def test_gradients_accumulate_over_calls():
    x = leaf([1.0, 2.0])
    for _ in range(3):
        (x * x).sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    x.zero_grad()
    assert x.grad is None


def test_a_cotangent_may_be_given():
    x = leaf([1.0, 2.0])
    (x * x).backward(np.array([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 40.0]


def test_a_gradient_has_its_tensors_dtype():
    x = tensor([1.0, 2.0], requires_grad=True)
    (x * np.array([1.0, 2.0])).sum().backward()
    assert x.grad.dtype == np.float32
    x.grad = np.array([1.0, 2.0])
    assert x.grad.dtype == np.float32


def test_an_intermediate_result_gets_no_grad():
    x = leaf(2.0)
    y = x * x
    (y * 3).backward()
    assert y.grad is None and x.grad.item() == 12.0


def test_a_leaf_is_its_own_gradient():
    x = leaf(2.0)
    x.backward()
    assert x.grad.item() == 1.0


def test_gradients_of_two_leaves_do_not_share_memory():
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    g = tensor([1.0, 1.0], dtype="float64")
    (x + y).backward(g)
    x.grad[0] = 5.0
    assert y.grad.tolist() == g.tolist() == [1.0, 1.0]
    y.grad.assign([7.0, 7.0])
    assert x.grad.tolist() == [5.0, 1.0] and g.tolist() == [1.0, 1.0]


def test_matches_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4,))
    x, y = leaf(a), leaf(b)
    u, v = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    (tanh(x * y) / (1 + exp(-x)) - where(x > y, sin(x), y * y)).sum().backward()
    (torch.tanh(u * v) / (1 + torch.exp(-u)) - torch.where(u > v, torch.sin(u), v * v)).sum().backward()
    np.testing.assert_allclose(x.grad, u.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(y.grad, v.grad.numpy(), rtol=1e-12)


def test_second_derivatives_by_create_graph():
    x = leaf(2.0)
    (x * x * x).backward(create_graph=True)
    first = x.grad
    x.zero_grad()
    first.backward()
    assert first.item() == 12.0 and x.grad.item() == 12.0


# ---- the life of a tape

def test_a_second_backward_raises():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradientError, match="went through this graph before"):
        y.backward()
    assert x.grad.tolist() == [2.0]


def test_retain_graph_keeps_the_tape():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0]


def test_two_losses_that_share_a_part():
    x = leaf(3.0)
    shared = x * x
    (shared * 2).backward(retain_graph=True)
    (shared * 3).backward()
    assert x.grad.item() == 30.0
    with pytest.raises(GradientError):
        (shared * 4).backward()


def chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x + 1.0
    return x


def test_depth_is_no_limit():
    x = leaf(1.0)
    chain(x, 50_000).backward()
    assert x.grad.item() == 1.0


@pytest.mark.parametrize("walked", [False, True])
def test_a_deep_tape_is_freed_without_overflowing_the_stack(walked):
    x = leaf(1.0)
    y = chain(x, 200_000)
    if walked:
        y.backward(retain_graph=True)
    del y
    assert x.requires_grad


def test_backward_frees_what_was_saved(no_gc):
    x = leaf(np.ones(3))
    y = x * x
    saved = weakref.ref(y._value)
    loss = (y * y).sum()
    del y
    assert saved() is not None
    loss.backward()
    assert saved() is None
    assert loss.item() == 3.0


def test_a_dropped_result_frees_its_tape(no_gc):
    x = leaf(np.ones(3))
    y = x * x
    saved = weakref.ref(y._value)
    z = sin(y)
    del y, z
    assert saved() is None


@pytest.fixture
def no_gc():
    gc.disable()
    yield
    gc.enable()


def test_leaves_that_nobody_holds_cost_nothing():
    x, y = leaf(2.0), leaf(3.0)
    z = x * y
    del y
    z.backward()
    assert x.grad.item() == 3.0


# ---- what it refuses

def test_backward_from_nothing_differentiable():
    with pytest.raises(GradientError, match="does not require a gradient"):
        (tensor(1.0) * 2).backward()


def test_backward_from_an_array_needs_a_cotangent():
    with pytest.raises(GradientError, match="starts from a scalar"):
        (leaf([1.0, 2.0]) * 2).backward()


def test_backward_with_a_cotangent_of_another_shape():
    with pytest.raises(ShapeError, match="gradient of shape"):
        (leaf([1.0, 2.0]) * 2).backward(np.ones(3))


def test_integers_have_no_gradient():
    with pytest.raises(DTypeError, match="only floating tensors"):
        tensor([1, 2], requires_grad=True)
    x = leaf([1.0, 2.0])
    assert not x.astype("int64").requires_grad
    assert not (x > 1).requires_grad


def test_a_gradient_of_another_shape_is_refused():
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError, match="does not fit"):
        x.grad = np.ones(3)


def test_a_failed_backward_leaves_no_mode_behind():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    for _ in range(2):
        with pytest.raises(GradientError):
            y.backward()
        assert state.grad_enabled
    (x * 2).sum().backward()
    assert x.grad.tolist() == [4.0]


# ---- writing in place

def test_overwriting_what_was_saved_raises():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (x * w).sum()
    w.assign([0.0, 0.0])
    with pytest.raises(GradientError, match="overwritten in place"):
        y.backward()
    (x * w).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_overwriting_by_index_raises_too():
    x, w = leaf([1.0, 2.0]), tensor([3.0, 4.0], dtype="float64")
    y = (x * w).sum()
    w[0] = 0.0
    with pytest.raises(GradientError, match="overwritten in place"):
        y.backward()


def test_overwriting_before_the_use_is_fine():
    x, w = leaf([1.0, 2.0]), tensor([3.0, 4.0], dtype="float64")
    w[0] = 0.0
    (x * w).sum().backward()
    w[1] = 9.0
    assert x.grad.tolist() == [0.0, 4.0]


@pytest.mark.parametrize("view", [lambda t: t.reshape(4), lambda t: t[0], lambda t: t.T, lambda t: t.detach(),
                                  lambda t: t.detach()[1:].reshape(2)])
def test_views_keep_what_they_showed(view):
    t = tensor([[1.0, 2.0], [3.0, 4.0]])
    v = view(t)
    before = v.tolist()
    t.assign(np.zeros((2, 2)))
    assert v.tolist() == before
    assert t.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("view", [lambda t: t.reshape(4), lambda t: t.T, lambda t: t.detach()])
def test_writing_to_a_view_leaves_its_base(view, computed):
    t = tensor(np.arange(4.0).reshape(2, 2), requires_grad=True)
    if computed:
        t = t * 1
    with no_grad():
        v = view(t)
        v[0] = 9.0
    assert t.tolist() == [[0, 1], [2, 3]]


def test_writing_to_a_detached_result_leaves_what_the_tape_saved():
    x = leaf([1.0, 2.0])
    y = x * x
    z = (y * y).sum()
    y.detach().assign([0.0, 0.0])
    z.backward()
    assert x.grad.tolist() == [4.0, 32.0]


def test_many_live_views():
    t = tensor(np.arange(1000.0))
    rows = [t[i] for i in range(1000)]
    t.assign(np.zeros(1000))
    assert [r.item() for r in rows] == list(range(1000))


def test_setting_items_of_a_computed_tensor_is_recorded():
    x, v = leaf([1.0, 2.0, 3.0]), leaf(5.0)
    y = x * x
    y[1] = v * 2
    (y * [1.0, 10.0, 100.0]).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 600.0]
    assert v.grad.item() == 20.0


def test_setting_items_of_a_leaf_that_requires_grad_raises():
    x = leaf([1.0, 2.0])
    with pytest.raises(GradientError, match="on a leaf"):
        x[0] = 3.0
    with no_grad():
        x[0] = 3.0
    assert x.tolist() == [3.0, 2.0]


def test_assigning_to_a_computed_tensor_raises():
    with pytest.raises(GradientError, match="computed tensor"):
        (leaf([1.0]) * 2).assign([1.0])


# ---- modes

def test_no_grad():
    x = leaf(2.0)
    with no_grad():
        assert not (x * x).requires_grad
        with enable_grad():
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_no_grad_decorates():
    @no_grad()
    def f(x):
        return x * x

    @no_grad
    def g(x):
        return x * x
    x = leaf(2.0)
    assert not f(x).requires_grad and not g(x).requires_grad
    assert f.__name__ == "f" and (x * x).requires_grad


def test_no_grad_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert state.grad_enabled


def test_detach_cuts():
    x = leaf(2.0)
    (x * x.detach()).backward()
    assert x.grad.item() == 2.0


def test_each_thread_has_its_own_mode():
    import threading
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]
