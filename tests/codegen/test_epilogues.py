"""Products take a bias and relu with them where nothing else needs what lies between, and only there."""

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn

RNG = np.random.default_rng(0)


def array(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def titles(f):
    return [kernel.title for kernel in f.latest.program.kernels]


def check(function, *args, **tolerance):
    f = gj.compile(function)
    for _ in range(2):
        out, wanted = f(*args), function(*map(gj.tensor, args))
        outs, all_wanted = (out, wanted) if isinstance(out, tuple) else ((out,), (wanted,))
        for got, right in zip(outs, all_wanted, strict=True):
            np.testing.assert_allclose(got, right, **({"rtol": 2e-5, "atol": 1e-5} | tolerance))
    return titles(f)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m, k, n", [(100, 2, 16), (1, 7, 5), (33, 16, 1), (5, 1, 9), (64, 100, 130), (3, 0, 4)])
def test_bias_and_relu_go_with_the_product(m, k, n, dtype):
    x, w, b = array(m, k, dtype=dtype), array(n, k, dtype=dtype), array(n, dtype=dtype)
    assert check(lambda x, w, b: gj.relu(x @ w.T + b), x, w, b) == [f"matmul {m}x{k}x{n} bias relu"]
    assert check(lambda x, w, b: b + x @ w.T, x, w, b) == [f"matmul {m}x{k}x{n} bias"]


def test_biases_of_other_layouts():
    x, w = array(4, 3), array(3, 6)
    assert check(lambda x, w, b: x @ w + b[0], x, w, array(1, 6)) == ["matmul 4x3x6 bias"]
    assert check(lambda x, w, b: x @ w + b[::2], x, w, array(12)) == ["matmul 4x3x6 bias"]
    assert check(lambda x, w, b: x @ w + b[:, 1], x, w, array(6, 2)) == ["matmul 4x3x6 bias"]
    assert check(lambda x, w, b: x @ w + b[::-1], x, w, array(6)) == ["matmul 4x3x6 bias"]
    assert check(lambda x, w, b: gj.relu(x @ w + b), array(5, 4, 3), array(5, 3, 6), array(6)) == [
        "matmul 4x3x6 batch 5 bias relu"]
    assert check(lambda x, w, b: x @ w + gj.exp(b), x, w, array(6))[-1] == "matmul 4x3x6 bias"


def test_a_product_may_be_the_bias_of_another():
    x, w = array(1, 5), array(5, 7)
    assert check(lambda x, w: gj.relu(x @ w + (x * 2) @ w), x, w)[1:] == ["matmul 1x5x7", "matmul 1x5x7 bias relu"]


@pytest.mark.parametrize("function", [
    lambda x, w, b: (gj.relu(x @ w + b), x @ w),
    lambda x, w, b: (lambda z: (gj.relu(z), gj.tanh(z)))(x @ w + b),
    lambda x, w, b: (lambda z: (gj.relu(z), z.T))(x @ w + b),
    lambda x, w, b: (lambda z: gj.relu(z + b) + z)(x @ w),
    lambda x, w, b: gj.relu(x @ w + x @ w),
    lambda x, w, b: gj.relu(x @ w + b).sum(axis=0),
    lambda x, w, b: x @ w + b[0],
    lambda x, w, b: x @ w + gj.reshape(b, (6, 1)),
    lambda x, w, b: (x @ w).T + b,
    lambda x, w, b: (x @ w).sum(axis=0) + b,
    lambda x, w, b: x @ w - b,
], ids=range(11))
def test_other_uses_keep_their_values(function):
    assert not [t for t in check(function, array(6, 3), array(3, 6), array(6)) if t.endswith("bias relu")]


def test_a_bias_of_another_type_is_left_alone():
    assert not [t for t in check(lambda x, w, b: x @ w + b, array(4, 3), array(3, 6), array(6, dtype="float64"))
                if "bias" in t]


def test_special_values():
    x = np.array([[np.nan], [np.inf], [-np.inf], [0.0], [-0.0], [3.0]], np.float32)
    f = gj.compile(lambda x, w, b: gj.relu(x @ w + b))
    w, b = np.ones((1, 17), np.float32), np.zeros(17, np.float32)
    np.testing.assert_array_equal(f(x, w, b), np.maximum(x @ w + b, 0))
    assert titles(f) == ["matmul 6x1x17 bias relu"]


def test_a_result_that_is_a_state():
    w, b, kept = array(3, 6), array(6), gj.tensor(np.zeros((4, 6), np.float32))

    @gj.compile
    def f(x):
        kept.assign(gj.relu(x @ gj.tensor(w) + gj.tensor(b)))
        return kept * 2
    x = array(4, 3)
    for _ in range(2):
        np.testing.assert_allclose(f(x), np.maximum(x @ w + b, 0) * 2, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept, np.maximum(x @ w + b, 0), rtol=1e-5, atol=1e-6)


def test_a_network_and_its_gradients():
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 1))
    parameters = list(model.parameters())

    x = array(20, 5)
    with gj.no_grad():
        found = check(lambda x: model(x), x)
    assert found == ["matmul 20x5x8 bias relu", "matmul 20x8x7 bias relu", "matmul 20x7x1 bias"]
    step = gj.compile(lambda x: (model(x) ** 2).sum())
    for call in (step, step.function):
        for p in parameters:
            p.grad = None
        call(gj.tensor(x)).backward()
        found = [p.grad.numpy().copy() for p in parameters]
        if call is step:
            compiled = found
    for got, right in zip(compiled, found, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)


def test_threads_give_the_same_bits(monkeypatch):
    monkeypatch.setattr("graphjit.runtime.threads._chosen", [])
    x, w, b = array(300, 200), array(200, 300), array(300)
    out = []
    for n in (1, 2, 3):
        gj.set_num_threads(n)
        out.append(gj.compile(lambda x, w, b: gj.relu(x @ w + b))(x, w, b).numpy())
    assert all((o == out[0]).all() for o in out)
