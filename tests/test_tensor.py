"""Tensor: making, looking, converting, writing in place, NumPy beside it, and the errors of all that."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphjit as gj
from graphjit import ArgumentError, DTypeError, GradientError, ShapeError, Tensor, no_grad, tensor
from graphjit.operators import Operators
from graphjit.tensor import held

A = np.arange(4.0)


# ---- making

@pytest.mark.parametrize("data, dtype, shape", [
    (1.5, "float32", ()), (2, "int64", ()), (True, "bool", ()), ([1.0, 2.0], "float32", (2,)),
    ([[1, 2], [3, 4]], "int64", (2, 2)), ([], "float32", (0,)), ([True, False], "bool", (2,)),
    (np.float64(2.0), "float64", ()), (np.ones(3), "float64", (3,)),
    (np.ones((0, 2), np.int8), "int8", (0, 2)),
    (np.arange(3, dtype=">f4"), "float32", (3,)), ((1, 2.5), "float32", (2,)), (range(3), "int64", (3,)),
    (np.ones((2, 3)).T, "float64", (3, 2)),
])
def test_making(data, dtype, shape):
    t = tensor(data)
    assert t.dtype == dtype and t.shape == shape and t.ndim == len(shape) and t.size == np.prod(shape)
    np.testing.assert_array_equal(t.numpy(), np.asarray(data))


def test_a_dtype_may_be_asked_for():
    assert tensor(0.1, dtype="float64").item() == 0.1
    assert tensor([[0.1]], dtype=float).tolist() == [[0.1]]
    assert tensor([1.7], dtype=int).tolist() == [1]
    assert tensor(np.arange(3), dtype=np.float32).dtype == np.float32
    assert gj.compile(lambda: tensor([0.1], dtype="float64") * 1)().item() == 0.1


def test_data_is_copied():
    a = np.ones(3)
    t, u = tensor(a), tensor(tensor(a))
    a[0] = 5
    u[1] = 7
    assert t.tolist() == [1, 1, 1] and u.tolist() == [1, 7, 1]


def test_tensors_over_the_callers_array_do_not_write_to_it():
    a = np.ones(3)
    for t in (Tensor(a), gj.astype(a, "float64"), Tensor(tensor(a))):
        t[0] = 5.0
        t.assign([7.0, 8.0, 9.0])
        assert t.tolist() == [7, 8, 9]
    assert a.tolist() == [1, 1, 1]


@pytest.mark.parametrize("data, message", [
    ([[1, 2], [3]], "equal lengths"), ("text", "not numbers"), (["a", "b"], "not numbers"),
    ([[1], "a"], "cannot be made a tensor"), (None, "object, not numbers"), ({"a": 1}, "object, not numbers"),
    (np.array([1, None]), "object, not numbers"), (object(), "not numbers"),
    (np.array(["2020-01-01"], "datetime64[D]"), "not numbers"), ([tensor(1.0), tensor(2.0)], "gj.stack"),
    ([[tensor(1.0)]], "gj.stack"),
])
def test_what_cannot_be_made(data, message):
    for make in (tensor, gj.exp, lambda d: gj.add(d, 1), lambda d: tensor(d, dtype="float64"), Tensor):
        with pytest.raises(ArgumentError) as found:
            make(data)
        assert message in str(found.value) and "test_tensor.py" in str(found.value)
    assert tensor([1.0]).tolist() == [1.0]


@pytest.mark.parametrize(
    "data", [1j, np.ones(2, np.complex64), np.ones(2, np.float16), np.ones(2, np.longdouble)])
def test_dtypes_that_are_not_held(data):
    for make in (tensor, gj.exp, lambda d: tensor(1.0) + d):
        with pytest.raises(DTypeError, match="does not hold dtype"):
            make(data)
    with pytest.raises(DTypeError, match="is not a dtype"):
        tensor(1.0, dtype="floaty")
    with pytest.raises(DTypeError):
        tensor(1.0).astype("complex64")


def test_long_data_is_abridged_in_errors():
    with pytest.raises(ArgumentError) as found:
        tensor([list(range(100)), [1]])
    lines = str(found.value).splitlines()
    assert len(lines) <= 15 and all(len(line) < 300 for line in lines)


# ---- looking

def test_conversions():
    t = tensor([[1.0, 2.0]])
    assert t.tolist() == [[1.0, 2.0]] and t[0, 1].item() == 2.0
    assert float(t[0, 0]) == 1.0 and int(t[0, 1]) == 2
    assert bool(t[0, 0]) and not bool(tensor(0)) and len(t) == 1 and [r.tolist() for r in t] == [[1.0, 2.0]]
    assert [10, 20, 30][tensor(1)] == 20 and 2.0 in t and 5.0 not in t
    assert tensor([[7]]).item() == 7 and list(range(3))[tensor(1):] == [1, 2]


@pytest.mark.parametrize("use, message", [
    (lambda t: bool(t), "ambiguous"), (lambda t: t if t else None, "ambiguous"),
    (lambda t: float(t), "not one number"), (lambda t: int(t), "not one number"),
    (lambda t: t.item(), "not one number"), (lambda t: [1, 2][t], "not an index"),
    (lambda t: len(t.sum()), "no length"), (lambda t: list(t.sum()), "iterated"),
    (lambda t: [1, 2][tensor(1.0)], "not an index"),
])
def test_conversions_that_have_no_meaning(use, message):
    with pytest.raises(ArgumentError, match=message):
        use(tensor([1.0, 2.0]))


def test_repr():
    assert repr(tensor([1.0, 2.5])) == "Tensor([1. , 2.5], dtype=float32)"
    assert repr(tensor(1.0, requires_grad=True, label="w")) == \
        "Tensor(1., dtype=float32, requires_grad=True, label='w')"


def test_what_the_tape_knows():
    x = tensor(1.0, requires_grad=True, label="x")
    y = x * 2
    assert x.is_leaf and x.op == "" and x.prev == ()
    assert not y.is_leaf and y.op == "mul" and y.prev[0] is x and y.requires_grad
    assert y.detach().is_leaf and not y.detach().requires_grad


def test_tensors_are_keys():
    a, b = tensor(1.0), tensor(1.0)
    assert {a: 1, b: 2}[a] == 1 and a in {a} and len({a, b}) == 2


def test_copies_and_pickles():
    x = tensor([1.0, 2.0], requires_grad=True, label="x")
    for y in (copy.deepcopy(x), copy.copy(x), pickle.loads(pickle.dumps(x))):
        assert y.tolist() == [1.0, 2.0] and y.requires_grad and y.label == "x"
        with no_grad():
            y[0] = 5.0
        assert x.tolist() == [1.0, 2.0]
        (y * y).sum().backward()
        assert y.grad.tolist() == [10.0, 4.0] and x.grad is None
    shared = copy.deepcopy([x, x])
    assert shared[0] is shared[1]
    with pytest.raises(GradientError, match="without history"):
        copy.deepcopy(x * 2)


def test_requires_grad_can_be_switched():
    x = tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad
    x.requires_grad = False
    assert not (x * 2).requires_grad
    with pytest.raises(GradientError, match="computed tensor"):
        (tensor([1.0], requires_grad=True) * 2).requires_grad = False


def test_data_can_be_replaced():
    x = tensor([1.0], requires_grad=True)
    x.data = np.array([2.0, 3.0])
    assert x.shape == (2,) and x.requires_grad
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_every_declared_method_is_attached():
    import ast
    import inspect
    import textwrap
    (body,) = (node.body for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(Operators))))
               if isinstance(node, ast.If))
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    names += [node.target.id for node in body if isinstance(node, ast.AnnAssign)]
    assert len(names) > 100
    assert [name for name in names if not hasattr(Tensor, name)] == []


# ---- writing in place

def test_assign_casts_and_broadcasts():
    x = tensor(np.zeros((2, 2), np.float32))
    before = x.numpy()
    assert x.assign(np.array([1.0, 2.0])) is x
    assert x.tolist() == [[1, 2], [1, 2]] and x.dtype == np.float32 and x.numpy() is before
    x.assign(3)
    assert x.tolist() == [[3, 3], [3, 3]]
    with pytest.raises(ShapeError):
        x.assign(np.ones(3))
    assert x.tolist() == [[3, 3], [3, 3]]


def test_assign_of_itself_rearranged():
    x = tensor(np.arange(6.0))
    x.assign(x.flip(0))
    assert x.tolist() == [5, 4, 3, 2, 1, 0]


def test_items():
    x = tensor(np.zeros((2, 3)))
    x[0] = 1
    x[:, 1:] += 2
    x[1, np.array([0])] = tensor([5.0])
    assert x.tolist() == [[1, 3, 3], [5, 2, 2]]
    with pytest.raises((ShapeError, ArgumentError)):
        x[0] = np.ones(7)
    with pytest.raises(IndexError):
        x[9] = 0
    assert x.tolist() == [[1, 3, 3], [5, 2, 2]]


def test_augmented_assignment_makes_a_new_tensor():
    x = tensor([1.0, 2.0])
    y = x
    x += 1
    assert x.tolist() == [2, 3] and y.tolist() == [1, 2]


# ---- NumPy beside it

@pytest.mark.parametrize(
    "operator", ["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "@"])
def test_operators_with_arrays_give_tensors(operator):
    a, b = A + 1, A + 2
    number = "np.float64(2)" if operator != "@" else "a"
    for expression in (f"a {operator} t", f"t {operator} a", f"{number} {operator} t"):
        got = eval(expression, {"a": a, "t": tensor(b), "np": np})
        want = eval(expression, {"a": a, "t": b, "np": np})
        assert isinstance(got, Tensor)
        np.testing.assert_allclose(got, want)
        assert got.dtype == want.dtype


def test_operators_on_arrays_are_differentiated():
    t = tensor(A, requires_grad=True)
    (A * t + np.float64(3) * t).sum().backward()
    assert t.grad.tolist() == (A + 3).tolist()


def test_numpy_functions_see_the_array():
    t = tensor(A)
    assert isinstance(np.exp(t), np.ndarray) and np.mean(t) == 1.5 and np.stack([t, t]).shape == (2, 4)
    assert np.allclose(t, A) and np.shape(t) == (4,) and np.ndim(t) == 1 and np.asarray(t).base is None
    np.testing.assert_array_equal(np.array([t, t]), [A, A])
    b = A.copy()
    b += t
    assert type(b) is np.ndarray and b.tolist() == (2 * A).tolist()


def test_numpy_does_not_lose_gradients_unnoticed():
    t = tensor(A, requires_grad=True)
    for lost in (np.exp, np.sum, lambda t: np.stack([t, A]), np.linalg.norm):
        with pytest.raises(GradientError, match=r"would lose it[\s\S]*detach"):
            lost(t)
    assert np.allclose(t, A) and np.isfinite(t).all() and np.argmax(t) == 3
    with no_grad():
        assert np.sum(t) == 6.0
    assert np.sum(t.detach()) == 6.0


def test_python_numbers_are_weak_and_numpys_are_not():
    t = tensor([1.0], dtype="float32")
    assert (t * 2.5).dtype == np.float32 and (t + 1).dtype == np.float32
    assert (t * np.float64(2)).dtype == np.float64 and (np.float64(2) * t).dtype == np.float64
    assert gj.exp(np.float64(1)).dtype == np.float64
    assert (tensor([1]) * 2.5).dtype == np.float64
    with pytest.raises(DTypeError, match="does not fit"):
        tensor([1], dtype="uint8") + 300


def test_held_reads_outside_of_traces_only():
    t = tensor(A)
    assert held(t) is t.numpy()


def test_a_labelled_number_is_a_variable():
    a, b = tensor(2.0, label="a"), tensor(-3.0, label="b")
    (a * b + a ** 2).backward()
    assert (float(a.grad), float(b.grad)) == (1.0, 2.0)
    for other in (tensor(2.0), tensor(2, label="n"), tensor([2.0], label="v"),
                  tensor(2.0, label="c", requires_grad=False),
                  tensor(2.0, label="i", dtype="int32"), tensor(np.float32(2), label="s")):
        assert not other.requires_grad


def test_writing_to_a_leaf_leaves_what_was_taken_of_it() -> None:
    t, factor = gj.tensor([1.0, 2.0, 3.0, 4.0]), gj.tensor(2.0, requires_grad=True)
    part, product = t[1:3], factor * t
    t[1:] = t[:-1]
    assert t.tolist() == [1.0, 1.0, 2.0, 3.0] and part.tolist() == [2.0, 3.0]
    with pytest.raises(GradientError, match="overwritten in place"):
        product.sum().backward()
    t[np.int64(-1)] = 7
    t[::2] = part[::-1]
    assert t.tolist() == [3.0, 1.0, 2.0, 7.0]


def test_writing_to_a_tensor_over_an_array_leaves_the_array() -> None:
    array = np.arange(4.0)
    t = gj.Tensor(array)
    t[2] = -1.0
    assert t.tolist() == [0.0, 1.0, -1.0, 3.0] and array.tolist() == [0.0, 1.0, 2.0, 3.0]
