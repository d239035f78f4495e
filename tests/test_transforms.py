"""grad, value_and_grad, vjp, jvp, hvp, jacobian, hessian: values, containers, errors."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from graphjit import (
    ArgumentError,
    GradientError,
    ShapeError,
    Tensor,
    cos,
    exp,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    no_grad,
    sin,
    tensor,
    value_and_grad,
    vjp,
)
from graphjit.tape import state
from graphjit.tree import flatten

RNG = np.random.default_rng(0)
A, B, V = RNG.standard_normal((3, 4)), RNG.standard_normal(4), RNG.standard_normal((3, 4))


def f(x, y):
    return (sin(x * y) * exp(-x * x)).sum()


def f_x(x, y):
    return exp(-x * x) * (y * cos(x * y) - 2 * x * sin(x * y))


def close(a, b, rtol=1e-10):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


# ---- values

def test_grad_is_the_gradient():
    close(grad(f)(A, B), f_x(tensor(A), B).numpy())


def test_grad_of_a_python_float():
    g = grad(lambda x: x * x * x)(2.0)
    assert isinstance(g, Tensor) and g.shape == () and g.dtype == np.float32 and g.item() == 12.0


def test_grad_keeps_dtype():
    assert grad(f)(A.astype(np.float32), B).dtype == np.float32
    assert grad(f)(np.float64(2.0), 1.0).dtype == np.float64


def test_value_and_grad_of_several_arguments():
    value, (gx, gy) = value_and_grad(f, argnums=(0, 1))(A, B)
    close(value, f(tensor(A), B))
    close(gx, grad(f)(A, B))
    close(gy, grad(f, argnums=1)(A, B))
    assert gy.shape == (4,)
    close(grad(f, argnums=-1)(A, B), gy)
    (only,) = grad(f, argnums=[1])(A, B)
    close(only, gy)


def test_aux_comes_along():
    def with_aux(x):
        y = x * x
        return y.sum(), {"y": y, "note": "kept", "n": None}
    value, aux = value_and_grad(with_aux, has_aux=True)(B)[0]
    g, again = grad(with_aux, has_aux=True)(B)
    close(value, (B * B).sum())
    close(g, 2 * B)
    close(aux["y"], B * B)
    assert again["note"] == "kept" and again["n"] is None and not again["y"].requires_grad


def test_aux_of_whole_matrices():
    def with_aux(x):
        return (x * x * x).sum(), [x * 2]
    h, (aux,) = hessian(with_aux, has_aux=True)(B)
    close(h, np.diag(6 * B))
    close(aux, 2 * B)
    j, (aux,) = jacobian(lambda x: (x * x, [x * 2]), has_aux=True)(B)
    close(j, np.diag(2 * B))
    assert not aux.requires_grad


def test_keyword_arguments_are_passed_on():
    assert grad(lambda x, *, power: x ** power)(2.0, power=3).item() == 12.0


def test_vjp():
    out, pullback = vjp(lambda x, y: {"s": sin(x), "p": (x * y, None)}, A, B)
    gx, gy = pullback({"s": V, "p": (2 * V, None)})
    close(out["s"], np.sin(A))
    close(gx, V * np.cos(A) + 2 * V * B)
    close(gy, (2 * V * A).sum(0))
    gx, gy = pullback({"s": V, "p": (None, None)})
    close(gx, V * np.cos(A))
    assert gy.tolist() == [0.0] * 4


def test_vjp_with_aux():
    out, pullback, aux = vjp(lambda x: (x * x, "aux"), 3.0, has_aux=True)
    assert out.item() == 9.0 and aux == "aux" and pullback(1.0)[0].item() == 6.0


def test_jvp():
    out, tangent = jvp(lambda x, y: (sin(x), x * y), (A, B), (V, 2 * B))
    close(out[1], A * B)
    close(tangent[0], V * np.cos(A))
    close(tangent[1], V * B + A * 2 * B)
    out, tangent = jvp(sin, A, V)
    close(tangent, V * np.cos(A))
    _, tangent = jvp(lambda x, y: x * y, (A, B), (None, B))
    close(tangent, A * B)


def test_jvp_of_what_does_not_depend():
    out, tangent, aux = jvp(lambda x: (tensor(B), "aux"), (A,), (V,), has_aux=True)
    close(out, B)
    assert tangent.tolist() == [0.0] * 4 and aux == "aux"


def test_integer_results_have_no_derivative():
    def g(x):
        return x * x, (x > 0).astype(np.int64)
    _, tangent = jvp(g, (A,), (V,))
    close(tangent[0], 2 * A * V)
    assert tangent[1].dtype == np.int64 and not tangent[1].any()
    _, pullback = vjp(g, A)
    close(pullback((V, None))[0], 2 * A * V)


def test_hvp_is_the_hessian_times_the_vector():
    def g(x):
        return (sin(x) * (x * x).sum()).sum()
    h = hessian(g)(B)
    close(hvp(g, B, V[0]), h.numpy() @ V[0])
    close(h, h.T)
    (hx,) = hvp(g, (B,), (V[0],))
    close(hx, h.numpy() @ V[0])


def test_hvp_of_a_linear_function_is_zero():
    close(hvp(lambda x: (x * B).sum(), B, B), np.zeros(4))


@pytest.mark.parametrize("wide", [False, True])
def test_jacobian_by_rows_and_by_columns(wide):
    m = RNG.standard_normal((2, 5))

    def g(x):
        return (m * x).sum(axis=-1) ** 2 if wide else x[:, None] * m.T
    x = RNG.standard_normal(5)
    j = jacobian(g)(x)
    if wide:
        assert j.shape == (2, 5)
        close(j, 2 * (m @ x)[:, None] * m)
    else:
        assert j.shape == (5, 2, 5)
        close(j, m.T[:, :, None] * np.eye(5)[:, None, :])


def test_jacobian_keeps_dtypes_and_takes_empty_arrays():
    assert jacobian(lambda x: x * x)(B.astype(np.float32)).dtype == np.float32
    assert jacobian(lambda x: x * x)(np.ones((0, 2))).shape == (0, 2, 0, 2)
    assert jacobian(lambda x: x.sum())(np.ones((0, 2))).shape == (0, 2)


def test_hessian_of_several_arguments():
    (xx, xy), (yx, yy) = hessian(lambda x, y: (x * x * y).sum(), argnums=(0, 1))(B, 2 * B)
    close(xx, np.diag(4 * B))
    close(xy, np.diag(2 * B))
    close(yx, xy)
    assert not yy.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_matches_torch():
    torch = pytest.importorskip("torch")

    def g(x, y):
        return ((x * y).sum(axis=1) ** 3).sum()

    def h(x, y):
        return ((x * y).sum(dim=1) ** 3).sum()
    a, b, v = torch.tensor(A), torch.tensor(B), torch.tensor(V)
    close(grad(g)(A, B), torch.func.grad(h)(a, b))
    close(hvp(lambda x: g(x, B), A, V), torch.func.jvp(torch.func.grad(lambda x: h(x, b)), (a,), (v,))[1])
    close(hessian(g, argnums=1)(A, B), torch.func.hessian(h, argnums=1)(a, b))
    ours, theirs = hessian(g, argnums=(0, 1))(A, B), torch.func.hessian(h, argnums=(0, 1))(a, b)
    close(ours[0][1], theirs[0][1])


# ---- containers

class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Params:
    w: Any
    b: Any = None


TREES = [
    {"w": A, "b": [B, None]}, [A, B], (A, (B,)), Pair(A, {"b": B}), Params(A, B), Params([A, B]),
    {"p": Params(A), "q": B},
]


def total(tree) -> Tensor:
    leaves, _ = flatten(tree)
    out = tensor(0.0, dtype="float64")
    for x in leaves:
        out = out + (sin(x) * B).sum() * out.detach().exp() + (x * x * x).sum()
    return out


@pytest.mark.parametrize("tree", TREES, ids=lambda t: type(t).__name__)
def test_gradients_are_nested_like_the_argument(tree):
    leaves, spec = flatten(tree)
    for found in (grad(total)(tree), hvp(total, tree, tree), vjp(total, tree)[1](1.0)[0]):
        parts, like = flatten(found)
        assert like == spec and type(found) is type(tree)
        assert [p.shape for p in parts] == [x.shape for x in leaves]
    h = hessian(total)(tree)
    rows = flatten(h)[0]
    assert len(rows) == len(leaves) ** 2 and rows[-1].shape == leaves[-1].shape * 2
    _, tangent = jvp(total, (tree,), (tree,))
    gradients, _ = flatten(grad(total)(tree))
    close(tangent, sum((g.numpy() * x).sum() for g, x in zip(gradients, leaves, strict=True)))


def test_modules_are_leaves():
    from graphjit import nn

    @dataclasses.dataclass(eq=False)
    class Scale(nn.Module):
        factor: float = 2.0

    module = Scale()
    assert flatten([module, 1.0])[0] == [module, 1.0]
    with pytest.raises(ArgumentError, match="argument 0 holds Scale"):
        grad(lambda m: tensor(m.factor))(module)


def test_jacobians_have_the_results_structure_outside():
    j = jacobian(lambda p: {"sum": p["x"].sum(), "all": [p["x"] * p["y"]]})({"x": B, "y": 2 * B})
    assert j["sum"]["x"].tolist() == [1.0] * 4 and j["sum"]["y"].tolist() == [0.0] * 4
    close(j["all"][0]["x"], np.diag(2 * B))
    close(j["all"][0]["y"], np.diag(B))
    both = jacobian(lambda x, y: [x * y], argnums=(0, 1))(B, 2 * B)
    close(both[0][1], np.diag(B))


def test_hvp_takes_positional_arguments_as_a_tuple():
    hx, hy = hvp(lambda x, y: (x * x * y).sum(), (B, 2 * B), (B, None))
    close(hx, 4 * B * B)
    close(hy, 2 * B * B)


# ---- errors; after each the library works on

def works():
    assert state.grad_enabled and state.trace is None
    assert grad(lambda x: x * x)(3.0).item() == 6.0


@pytest.mark.parametrize("transform", [grad, value_and_grad, hessian])
@pytest.mark.parametrize("result", [lambda x: x * x, lambda x: (x.sum(), x.sum()), lambda x: (x > 0).any()])
def test_a_result_that_is_no_scalar(transform, result):
    with pytest.raises(GradientError, match="must return one floating number"):
        transform(result)(B)
    works()


def test_integer_arguments():
    for call in (lambda: grad(f)(np.arange(3), B), lambda: grad(f)(3, B), lambda: vjp(sin, np.arange(3)),
                 lambda: jacobian(sin)(True), lambda: hvp(f, (np.arange(3), B), (B, B))):
        with pytest.raises(GradientError, match="only floats have derivatives"):
            call()
    works()


def test_arguments_that_are_no_arrays():
    with pytest.raises(ArgumentError, match="argument 0 holds str"):
        grad(lambda s: tensor(1.0))("x")
    with pytest.raises(ArgumentError, match="the function returned str"):
        vjp(lambda x: "x", 1.0)
    with pytest.raises(ArgumentError, match="pair"):
        grad(lambda x: x, has_aux=True)(1.0)
    works()


@pytest.mark.parametrize("argnums", [2, -3, (0, 2), (0, 0), (0, -2), "0", None, 0.0, True])
def test_argnums_that_do_not_exist(argnums):
    with pytest.raises(ArgumentError, match="argnums"):
        grad(f, argnums=argnums)(A, B)
    works()


def test_directions_that_do_not_fit():
    _, pullback = vjp(lambda x: {"a": x}, A)
    with pytest.raises(ShapeError, match="cotangent of shape"):
        pullback({"a": B})
    with pytest.raises(ArgumentError, match=r"must be nested like {'a'"):
        pullback(A)
    with pytest.raises(ShapeError, match="tangent of shape"):
        jvp(sin, (A,), (B,))
    with pytest.raises(ArgumentError, match="2 primals but 1 tangents"):
        jvp(lambda x, y: x * y, (A, B), (A,))
    with pytest.raises(ArgumentError, match="must be nested like"):
        hvp(total, {"w": A}, {"v": A})
    works()


def test_an_op_without_derivative_says_so():
    with pytest.raises(GradientError, match="sinc_of_test has no derivative: no one needs it"):
        grad(lambda x: without_derivative(x).sum())(B)
    works()


def without_derivative(x):
    from graphjit.apply import apply
    from graphjit.op import Elementwise, Op
    from graphjit.ops.rules import same
    return apply(Op("sinc_of_test", np.sinc, same("sinc", "f"), None, Elementwise("?"), "no one needs it"), x)


def test_an_error_in_the_function_comes_through():
    def g(x):
        raise KeyError("mine")
    for transform in (grad, jacobian):
        with pytest.raises(KeyError, match="mine"):
            transform(g)(1.0)
    with no_grad(), pytest.raises(KeyError):
        vjp(g, 1.0)
    works()


def test_names_are_kept():
    assert grad(f).__name__ == "f"
