"""Calls with containers, keywords and static arguments: the short way knows what is alike and what is not."""

import dataclasses
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import graphjit as gj
from graphjit import jit, nn, shortcut

X = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(3, dtype=np.float32)
Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class Weights:
    w: object
    name: str = "w"


class Scaled:
    def __init__(self, by):
        self.by = by

    @gj.compile
    def apply(self, x, more=0.0):
        return x * self.by + more


@pytest.fixture(params=["native", "python"], autouse=True)
def _way(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(shortcut, "fields_are_known", lambda: False)


@pytest.fixture
def short(monkeypatch):
    """From here on calls fail that do not take the short way."""
    def only():
        def looked_at(*_):
            raise AssertionError("a call was taken apart the long way")
        monkeypatch.setattr(jit, "Signature", looked_at)
    return only


TWO, THREE = Scaled(2.0), Scaled(3.0)
LAYER = nn.Linear(3, 2)
CALLS = {
    "dict": (lambda p: p["w"] * p["b"], ({"w": X, "b": B},), {}),
    "keys of other kinds": (lambda p: p[1] * p[(2, "b")], ({1: X, (2, "b"): B},), {}),
    "list": (lambda p: p[0] * p[1], ([X, B],), {}),
    "nested": (lambda p, x: p["l"][0]["w"] * p["l"][1][0] + x, ({"l": [{"w": X}, (B, None)], "n": None}, X), {}),
    "named tuple": (lambda p: p.a * p.b, (Pair(X, B),), {}),
    "dataclass": (lambda p, x: p.w * x, (Weights(B), X), {}),
    "keywords": (lambda x, b, by: x * b * by, (X,), {"by": 0.5, "b": B}),
    "only keywords": (lambda x, b: x * b, (), {"b": B, "x": X}),
    "integer": (lambda x, n: x ** n, (X, 2), {}),
    "bool, string, None": (lambda x, up, how, no: x + 1 if up and how == "so" and no is None else x,
                           (X, True, "so", None), {}),
    "scalar of NumPy": (lambda x, by: x * by, (X, np.float32(2)), {}),
    "array of no axes": (lambda x, by: x[0] * by, ([X], np.array(2.0, np.float32)), {}),
    "function": (lambda f, x: f(x), (gj.tanh, X), {}),
    "method": (Scaled.apply.function, (TWO, X), {}),
    "nothing": (lambda p: gj.tensor(B) * 2, ({},), {}),
    "not contiguous": (lambda p: p["w"] + 1, ({"w": X.T},), {}),
    "tensor": (lambda p: p[0] + 1, ([gj.tensor(X)],), {}),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_of_every_kind_take_the_short_way(case, short):
    function, args, kwargs = CALLS[case]
    f = gj.compile(function)
    with gj.eager():
        right = np.asarray(f(*args, **kwargs))
    np.testing.assert_allclose(f(*args, **kwargs), right, rtol=1e-6)
    short()
    for _ in range(2):
        np.testing.assert_allclose(f(*args, **kwargs), right, rtol=1e-6)
    assert f.trace_count == 1


def test_a_module_and_an_object_as_arguments(short):
    apply = gj.compile(lambda layer, x: layer(x))
    with gj.no_grad():
        right = np.asarray(LAYER(X))
        apply(LAYER, X)
        TWO.apply(X)
        short()
        np.testing.assert_allclose(apply(LAYER, X), right, rtol=1e-6)
        np.testing.assert_array_equal(TWO.apply(X), X * 2)


def test_objects_have_programs_of_their_own():
    for _ in range(3):
        for each, by in ((TWO, 2), (THREE, 3)):
            np.testing.assert_array_equal(each.apply(X), X * by)
            np.testing.assert_array_equal(each.apply(X, more=1.0), X * by + 1)
    THREE.by = 4.0
    np.testing.assert_array_equal(THREE.apply(X), X * 4)
    THREE.by = 3.0


def described(p, *more, **named):
    """A number that tells apart what the function was given."""
    leaves, _ = jit.flatten((p, more, named))
    total = gj.tensor(np.float32(0))
    for k, leaf in enumerate(leaves):
        total = total + (k + 1) * (gj.sum(leaf) if isinstance(leaf, (gj.Tensor, float)) else len(repr(leaf)))
    return total + 1000 * len(repr(jit.flatten((p, more, named))[1]))


OTHERS = [
    ({"a": X, "b": B},), ({"a": X, "c": B},), ({"a": X},), ({"a": X, "b": B, "c": B},), ({"b": X, "a": B},),
    ([X, B],), ((X, B),), ([X, B, B],), ([X, [B]],), ([X, None],), (X, B), (Pair(X, B),), (Weights(B),),
    (Weights(B, "other"),), (X, 1), (X, True), (X, "1"), (X, None), (X, 2), (OrderedDict(a=X, b=B),),
    ({"a": {"a": X}, "b": B},), ({"a": X[:1], "b": B},), ({"a": X.astype(np.float64), "b": B},),
    ({"a": 1, "b": B},), ({"a": 1.0, "b": B},), ([],), ({},), (X,), (None,), ({"a": gj.tensor(X, requires_grad=True)},),
]


def test_what_is_not_alike_is_told_apart():
    f = gj.compile(described)
    right = []
    for args in OTHERS:
        with gj.eager():
            right.append(np.asarray(f(*args)))
    for turn in range(3):
        order = np.random.default_rng(turn).permutation(len(OTHERS))
        for i in order:
            np.testing.assert_allclose(f(*OTHERS[i]), right[i], rtol=1e-6, err_msg=repr(OTHERS[i]))
            np.testing.assert_allclose(f(*OTHERS[i]), right[i], rtol=1e-6, err_msg=repr(OTHERS[i]))
            f(p=X, named={"a": B})


def test_keys_in_another_order_are_the_same_arguments(short):
    f = gj.compile(lambda p: p["w"] - p["b"])
    np.testing.assert_array_equal(f({"w": X, "b": B}), X - B)
    short()
    np.testing.assert_array_equal(f({"b": B, "w": X}), X - B)


def test_sizes_in_turns(short):
    f = gj.compile(lambda p, x, n: (p["w"] * x).sum() * n)
    for n in (2, 3):
        for rows in (1, 2, 5):
            f({"w": B}, np.ones((rows, 3), np.float32), n)
    short()
    for rows in (5, 1, 2, 1, 5):
        for n in (3, 2):
            assert float(f({"w": B}, np.ones((rows, 3), np.float32), n)) == 3 * rows * n
    assert f.trace_count == 6


def test_a_container_that_holds_a_tensor_with_gradient():
    f = gj.compile(lambda p: (p["w"] ** 2).sum())
    plain, leaf = {"w": X}, {"w": gj.tensor(X, requires_grad=True)}
    for _ in range(2):
        assert float(f(plain)) == float((X ** 2).sum())
        out = f(leaf)
        assert out.requires_grad
        leaf["w"].grad = None
        out.backward()
        np.testing.assert_array_equal(leaf["w"].grad, 2 * X)


def test_parameters_in_a_dict_train():
    rng = np.random.default_rng(0)
    start = {"layers": [{"w": rng.standard_normal((3, 4)), "b": np.zeros(4)}, {"w": rng.standard_normal((4, 1))}]}
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 1))

    def loss(p, x, y):
        first, last = p["layers"]
        return ((gj.tanh(x @ first["w"] + first["b"]) @ last["w"] - y) ** 2).mean()

    def step(p, x, y, lr):
        value, g = gj.value_and_grad(loss)(p, x, y)
        return value, {"layers": [{k: w - lr * g["layers"][i][k] for k, w in layer.items()}
                                  for i, layer in enumerate(p["layers"])]}
    results = []
    for run in (step, gj.compile(step)):
        p, values = start, []
        for _ in range(5):
            value, p = run(p, x, y, lr=0.1)
            values.append(float(value))
        results.append(values)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)
    assert results[0][-1] < results[0][0]
