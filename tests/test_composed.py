"""Functions run as one: values, tape and gradients of their operations, of whatever kinds the arguments are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_table import CASES, Case, leaves

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import composed as room
from graphjit.composed import composed
from graphjit.errors import BoundsError, GraphjitError, ShapeError
from graphjit.ops.elementwise import multiply
from graphjit.tensor import Tensor


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second call is the written-down one."""
    monkeypatch.setattr(room, "MET", 1)
    yield


def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is written down from here on."""
    found: list[Any] = []
    real = room._written

    def record(*args: Any) -> Any:
        found.append(real(*args))
        return found[-1]
    monkeypatch.setattr(room, "_written", record)
    return found


def run(function: Any, arrays: list[Any], grad: bool) -> tuple[list[Any], list[Any]]:
    """Results and gradients of their weighted sum."""
    args = [gj.tensor(a, requires_grad=grad and a.dtype.kind == "f") for a in arrays]
    outs = leaves(function(*args))
    total = sum((t * gj.tensor(np.cos(np.arange(t.size)).reshape(t.shape).astype(t.dtype))).sum()
                for t in outs if t.requires_grad)
    if isinstance(total, Tensor):
        total.backward()
    return [t.numpy() for t in outs], [t.grad.numpy() for t in args if t.grad is not None]


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_a_function_of_the_table_run_as_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for grad in (False, case.sample.grad):
        arrays = case.arrays()
        monkeypatch.setattr(room, "MET", 1 << 30)
        wanted = run(case.sample.function, arrays, grad)
        monkeypatch.setattr(room, "MET", 1)
        for _ in range(3):
            for found, known in zip(run(case.sample.function, arrays, grad), wanted, strict=True):
                assert len(found) == len(known)
                for a, b in zip(found, known, strict=True):
                    assert a.dtype == b.dtype and a.shape == b.shape
                    np.testing.assert_array_equal(a, b)


def test_the_tape_is_that_of_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = written(monkeypatch)

    def tape(t: Tensor) -> list[Any]:
        return [t.op, *map(tape, t.prev)]

    function = composed(lambda x, y: gj.softmax(x * y, -1).mean() + x.T.sum())
    x, y = gj.tensor(np.ones((2, 3)), requires_grad=True), gj.tensor(np.full((2, 3), 2.0))
    first, second = function(x, y), function(x, y)
    assert plans[-1] is not None and tape(first) == tape(second)
    once, again = gj.grad(lambda x: function(x, y))(x), gj.grad(lambda x: function(x, y))(x)
    np.testing.assert_array_equal(once.numpy(), again.numpy())


def test_second_derivatives_go_through_what_is_run_as_one() -> None:
    x = gj.tensor(np.linspace(-1.0, 1.0, 5), requires_grad=True)
    for function in (gj.softmax, F.gelu, F.silu, gj.logsumexp):
        found = []
        for _ in range(3):
            first = (gj.tensor(np.arange(5.0)) * function(x)).sum()
            x.grad = None
            first.backward(create_graph=True)
            assert x.grad is not None
            slope = (x.grad * gj.tensor(np.arange(5.0)[::-1].copy())).sum()
            x.grad = None
            slope.backward()
            found.append(x.grad.numpy())
        np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
        np.testing.assert_array_equal(found[2], found[1])


def test_arguments_that_compare_equal_are_told_apart() -> None:
    seen: list[Any] = []

    @composed
    def times(x: Tensor, by: Any) -> Tensor:
        seen.append(by)
        return x * by

    x = gj.tensor([1.0, 2.0])
    for by in (1, True, 1.0, 0, 0.0, -0.0, False):
        for _ in range(3):
            want = np.float32([1.0, 2.0]) * np.float32(by)
            np.testing.assert_array_equal(np.signbit(times(x, by).numpy()), np.signbit(want))
    assert [repr(by) for by in seen[::2]] == ["1", "True", "1.0", "0", "0.0", "-0.0", "False"]


def test_the_same_tensor_twice_is_not_two_tensors() -> None:
    square = composed(lambda x, y: multiply(x, y))
    x, y = gj.tensor([3.0], requires_grad=True), gj.tensor([3.0], requires_grad=True)
    for _ in range(3):
        for a, b, wanted in ((x, x, 6.0), (x, y, 3.0)):
            x.grad = None
            square(a, b).sum().backward()
            assert x.grad is not None and x.grad.item() == wanted


def test_tensors_by_name_stay_with_their_names() -> None:
    minus = composed(lambda x, *, y: x - y)
    x, y = gj.tensor([5.0]), gj.tensor([2.0])
    assert [minus(x, y=y).item() for _ in range(3)] == [3.0] * 3


def test_errors_come_from_the_function_each_time() -> None:
    x, labels = gj.zeros((2, 3)), gj.tensor([0, 2])
    for _ in range(3):
        assert F.cross_entropy(x, labels).item() == pytest.approx(np.log(3))
        with pytest.raises(BoundsError, match="label 3 is out of range") as caught:
            F.cross_entropy(x, gj.tensor([0, 3]))
        assert "test_composed.py" in str(caught.value)  # the line here, not one of what was written down
        with pytest.raises(ShapeError, match="axis 2 is out of range"):
            gj.softmax(x, 2)
        with pytest.raises(GraphjitError, match="axis must be an integer, not True"):
            gj.softmax(x, True)


def test_a_function_that_reads_more_is_never_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = written(monkeypatch)
    state = gj.tensor([1.0])
    scaled = composed(lambda x: x * state)
    chosen = composed(lambda x: x if x.sum().item() > 0 else -x)
    x = gj.tensor([2.0])
    for k in (1.0, 2.0, 3.0):
        state.assign(gj.tensor([k]))
        assert scaled(x).item() == 2.0 * k
        assert chosen(x * (1 if k < 3 else -1)).item() == 2.0
    assert plans == [None, None]


def test_a_view_made_by_a_plan_keeps_what_it_showed() -> None:
    for _ in range(3):
        x = gj.tensor([[1.0, 2.0], [3.0, 4.0]])
        flat, parts = x.flatten(), gj.unstack(x)
        x.assign(gj.zeros((2, 2)))
        assert flat.tolist() == [1.0, 2.0, 3.0, 4.0] and parts[1].tolist() == [3.0, 4.0]
        parts[0].assign(gj.ones((2,)))
        assert x.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_plans_hold_no_arrays_of_their_calls() -> None:
    x = gj.tensor(np.ones((3, 4)), requires_grad=True)
    for _ in range(3):
        gj.softmax(x).sum().backward()
    array = weakref.ref(x.data)
    del x
    gj.tensor(1.0, requires_grad=True).backward()
    gc.collect()
    assert array() is None


def test_calls_that_are_kept_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT", 4)
    plans = written(monkeypatch)
    shifted = composed(lambda x, n: x + n)
    x = gj.tensor([1.0])
    assert [shifted(x, n).item() for n in range(30)] == [n + 1.0 for n in range(30)]
    assert shifted(x, 29).item() == 30.0 and shifted(x, 0).item() == 1.0
    kept = [shifted.__globals__[name] for name in ("plans", "met")]
    assert len(plans) == 31 and all(len(c) <= 6 for c in kept)
