"""Eager gradients by the written-down rules and walks: those of the rules' Tensor operations, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_table import CASES, Case, leaves

import graphjit as gj
from graphjit import composed, replay, walks
from graphjit.errors import GradientError, GraphjitError
from graphjit.nn import functional as F
from graphjit.nn.recurrent import steps
from graphjit.op import Elementwise, Op
from graphjit.tensor import Tensor

OFTEN = 2 * max(replay.MET, walks.MET)
FLOATING = [c for c in CASES if c.sample.grad and c.has_floats]


def forget() -> None:
    for kept in (replay._pulls, replay._met, walks._walks, walks._met):
        kept.clear()  # type: ignore[attr-defined]  # dicts all


Arrays = list[np.ndarray[Any, Any]]


def gradients(function: Callable[..., Any], arrays: Arrays, record: bool = False) -> Arrays | None:
    """Of the results' sum, weighted so that no two elements count the same; None where it has none."""
    args = [gj.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    outs = [t for t in leaves(function(*args)) if t.requires_grad]
    if not outs:
        return None
    total = sum((out * gj.tensor(np.cos(np.arange(out.size)).reshape(out.shape).astype(out.dtype))).sum()
                for out in outs)
    try:
        total.backward(create_graph=record)
    except GradientError:
        return None
    return [t.grad.numpy() for t in args if t.grad is not None]


@pytest.mark.parametrize("case", FLOATING, ids=[c.id for c in FLOATING])
def test_gradients_are_those_of_the_tensor_operations(case: Case) -> None:
    wanted = gradients(case.sample.function, case.arrays(), record=True)
    if wanted is None:
        return
    for _ in range(walks.MET + 2):
        found = gradients(case.sample.function, case.arrays())
        assert found is not None and len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a, b)


def test_no_rule_of_the_table_is_left_to_its_operations() -> None:
    forget()
    for _ in range(replay.MET + 1):
        for case in FLOATING:
            gradients(case.sample.function, case.arrays())
    assert [key for key, times in replay._met.items() if times < 0] == []


def step(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    h = gj.relu(x @ w.T + b)
    return (h * h).mean() + 0.1 * (w * w).sum() + (w.sum(0) * b[:3]).sum()


def arguments(n: int = 5) -> list[Tensor]:
    rng = np.random.default_rng(n)
    return [gj.tensor(rng.standard_normal(shape), dtype="float32", requires_grad=shape != (n, 3))
            for shape in ((n, 3), (4, 3), (4,))]


def test_walks_of_several_forms_take_turns() -> None:
    forget()
    wanted = {}
    for n in (5, 6, 1):
        x, w, b = arguments(n)
        step(x, w, b).backward(create_graph=True)
        wanted[n] = [w.grad.numpy(), b.grad.numpy()]
    for _ in range(OFTEN):
        for n in (5, 6, 1):
            x, w, b = arguments(n)
            step(x, w, b).backward()
            for found, grad in zip((w.grad, b.grad), wanted[n], strict=True):
                np.testing.assert_array_equal(found.numpy(), grad)
    assert sum(map(len, walks._walks.values())) == 3


def known(function: Callable[[], Tensor]) -> None:
    """Walk the function's tape so often that its walk is written down."""
    forget()
    for _ in range(OFTEN):
        function().backward()
    assert walks._walks


def test_a_product_of_two_is_not_taken_for_a_square() -> None:
    x, y = gj.tensor([2.0, 3.0], requires_grad=True), gj.tensor([5.0, 7.0], requires_grad=True)
    known(lambda: (x * y).sum())
    x.grad = y.grad = None
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]
    known(lambda: (x * x).sum())
    x.grad = None
    (x * y).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0] and y.grad.tolist() == [2.0, 3.0]


def test_other_parameters_are_another_form() -> None:
    x = gj.tensor(np.arange(9.0).reshape(3, 3), requires_grad=True)
    c = gj.tensor([1.0, 10.0, 100.0])
    known(lambda: (x.sum(0) * c).sum())
    x.grad = None
    (x.sum(1) * c).sum().backward()
    assert x.grad.tolist() == [[1.0] * 3, [10.0] * 3, [100.0] * 3]


def test_gradients_of_slices_are_added_to_their_parts() -> None:
    x = gj.tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)

    def loss() -> Tensor:
        y = x * 2
        rows = sum((y[i] * (i + 1)).sum() for i in range(3))
        return rows + (y[:, 1:3] * 10).sum() + (y[::2, ::-1] * gj.tensor([1.0, 2.0, 3.0, 4.0])).sum() + y[1, 1] * 100
    known(loss)
    x.grad = None
    loss().backward()
    found = x.grad.numpy()
    x.grad = None
    loss().backward(create_graph=True)
    np.testing.assert_array_equal(found, x.grad.numpy())
    [walk] = [w for walks_of in walks._walks.values() for w in walks_of]
    assert "add" in walk.compute.__code__.co_names


def test_memory_is_used_again_only_where_nothing_else_sees_it() -> None:
    @replay.on_arrays
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        a = x + y
        b = a.T * 2
        c = a * 3
        return c - x, b + a.T, a * a

    rng = np.random.default_rng(0)
    x, y = (gj.tensor(rng.standard_normal((3, 3))) for _ in range(2))
    before = x.tolist(), y.tolist()
    wanted = f(x, y)
    with gj.no_grad():
        for _ in range(2):
            for found, t in zip(f(x, y), wanted, strict=True):
                np.testing.assert_array_equal(found.numpy(), t.numpy())
    assert before == (x.tolist(), y.tolist())


def test_a_result_that_is_an_operand_is_a_copy() -> None:
    @replay.on_arrays
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return y.T, y

    x, y = gj.tensor([1.0]), gj.tensor([[1.0, 2.0]])
    with gj.no_grad():
        turned, same = f(x, y)
    y.assign([[5.0, 6.0]])
    assert turned.tolist() == [[1.0], [2.0]] and same.tolist() == [[1.0, 2.0]]


def test_a_known_tape_is_released_and_says_so() -> None:
    x = gj.tensor([1.0, 2.0], requires_grad=True)
    known(lambda: (x * 2).sum())
    out = (x * 2).sum()
    out.backward()
    with pytest.raises(GradientError, match="released"):
        out.backward()
    kept = (x * 2).sum()
    x.grad = None
    kept.backward(retain_graph=True)
    kept.backward()
    assert x.grad.tolist() == [4.0, 4.0]


def test_a_known_tape_notices_what_was_overwritten() -> None:
    x, c = gj.tensor([1.0, 2.0], requires_grad=True), gj.tensor([1.0, 1.0])
    known(lambda: (x * c).sum())
    for written in (x, c):
        out = (x * c).sum()
        written.assign([3.0, 3.0])
        with pytest.raises(GradientError, match="overwritten"):
            out.backward()
    x.grad = None
    (x * c).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_a_frozen_leaf_gets_no_gradient_from_a_known_tape() -> None:
    x, y = gj.tensor([1.0], requires_grad=True), gj.tensor([2.0], requires_grad=True)
    known(lambda: (x * y).sum())
    x.grad = y.grad = None
    y.requires_grad = False
    (x * y).sum().backward()
    assert x.grad.tolist() == [2.0] and y.grad is None


def test_gradients_that_share_memory_are_known_as_views() -> None:
    x, y = gj.tensor([1.0, 2.0], requires_grad=True), gj.tensor([3.0, 4.0], requires_grad=True)
    g = gj.tensor([1.0, 1.0])
    for _ in range(OFTEN):
        x.grad = y.grad = None
        (x + y).backward(g)
        x.grad.assign([7.0, 7.0])
        assert y.grad.tolist() == [1.0, 1.0] and g.tolist() == [1.0, 1.0]


def test_a_rule_that_looks_at_values_goes_its_own_way() -> None:
    double = Op("looking", lambda x: 2 * x, lambda x: x, lambda g, out, x: (g * 2 if x.sum().item() > 0 else g * 0,),
                Elementwise("{0} + {0}"))
    from graphjit.apply import apply
    x = gj.tensor([1.0, 2.0], requires_grad=True)
    for sign in (1, -1) * OFTEN:
        x.grad = None
        apply(double, x * sign).sum().backward()
        assert x.grad.tolist() == ([2.0, 2.0] if sign > 0 else [0.0, 0.0])


def test_floating_point_warnings_stay_silent() -> None:
    x = gj.tensor([0.0, 1e30], dtype="float32", requires_grad=True)
    with np.errstate(all="raise"):
        known(lambda: (gj.sqrt(x) * 1e30 * (x * x)).sum())


def test_an_op_without_derivative_is_an_error_each_time() -> None:
    flat = Op("flat", np.sin, lambda x: x, None, Elementwise("sin({0})"), why="it is a test")
    from graphjit.apply import apply
    x = gj.tensor([1.0], requires_grad=True)
    for _ in range(OFTEN):
        with pytest.raises(GraphjitError, match="it is a test"):
            apply(flat, x).sum().backward()


def test_rules_of_their_own_are_part_of_known_walks() -> None:
    forget()
    x = gj.tensor(np.linspace(-1.0, 1.0, 16).reshape(4, 4), requires_grad=True)
    c = gj.tensor(np.arange(16.0).reshape(4, 4))

    def gradient(axis: int, record: bool) -> Any:
        x.grad = None
        out = (F.gelu(gj.softmax(x * 2, axis)) * F.silu(x) * c).sum() + (steps(x * c)[1] * steps(x)[2]).sum()
        out.backward(create_graph=record)
        assert x.grad is not None
        return x.grad.numpy()

    for axis in (0, 1):
        wanted = gradient(axis, True)
        for _ in range(composed.MET + walks.MET + 2):
            np.testing.assert_array_equal(gradient(axis, False), wanted)
    assert sum(map(len, walks._walks.values())) == 2
    np.testing.assert_array_equal(gradient(0, False), gradient(0, True))
    y = gj.softmax(x).sum()
    y.backward()
    with pytest.raises(GradientError, match="released"):
        y.backward()
