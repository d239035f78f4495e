"""Loops that tracing has unrolled: nests take equal numbers of their turns, so few kernels compute many turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import Array, compiled, floats

import graphjit as gj
from graphjit.codegen import cluster, fusions, periods
from graphjit.ir import Apply, Graph
from graphjit.runtime.kernel import LoopKernel, identity
from graphjit.tensor import Tensor

Loss = Callable[..., Tensor]


def walk(steps: int) -> Loss:
    """A recurrence element by element, its parameters scalars: their gradients are sums over all turns."""
    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = total = 0 * x
        for i in range(steps):
            z = gj.sqrt(x * x + b * b + 0.1 * i)
            x = x + 0.01 * (a * y - gj.exp(-z) * x)
            y = y * gj.exp(-0.1 * z * a) - 0.01 * b * gj.maximum(x, 0.0)
            total = total + x * y
        return total.mean()
    return loss


def orbits(steps: int) -> Loss:
    """Few bodies that fold each turn."""
    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        x, v, far = x.reshape(-1, 2), 0 * x.reshape(-1, 2), gj.tensor(0.0)
        for _ in range(steps):
            r = gj.sqrt((x * x).sum(-1, keepdims=True) + 0.1)
            v = v - 0.01 * a * x / r ** 3 + 0.001 * b
            x = x + 0.01 * v
            far = far + ((x - b) ** 2).sum()
        return far
    return loss


def recurrent(steps: int) -> Loss:
    """A product each turn, and a bias whose gradient is a sum over all turns."""
    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        w, bias = b * gj.eye(8) + a, gj.ones(8) * a
        h = total = x.reshape(-1, 8)
        for _ in range(steps):
            h = gj.tanh(h @ w * 0.1 + bias)
            total = total + h
        return (total * total).mean()
    return loss


def run(loss: Loss) -> Any:
    return compiled(gj.value_and_grad(loss, argnums=(0, 1, 2)), floats(16), np.float32(0.5), np.float32(0.3))


def kernels(loss: Loss) -> Counter[str]:
    """How often each loop kernel is called."""
    return Counter(identity(k.kernel) for k in run(loss).latest.program.kernels if isinstance(k.kernel, LoopKernel))


@pytest.mark.parametrize("steps", [7, 41])
@pytest.mark.parametrize("make", [walk, orbits, recurrent], ids=lambda make: make.__name__)
def test_values_and_gradients_are_those_of_eager_mode(make: Callable[[int], Loss], steps: int) -> None:
    function = gj.value_and_grad(make(steps), argnums=(0, 1, 2))
    data = floats(16).astype(np.float64), np.float64(0.5), np.float64(0.3)
    value, found = gj.compile(function)(*data)
    expected, gradients = function(*data)
    np.testing.assert_allclose(value.numpy(), expected.numpy(), rtol=1e-10)
    for a, b in zip(found, gradients, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [walk, orbits, recurrent], ids=lambda make: make.__name__)
def test_twice_the_turns_take_no_more_kernels(make: Callable[[int], Loss]) -> None:
    few, many = kernels(make(48)), kernels(make(96))
    assert sum(many.values()) > 1.3 * sum(few.values())
    assert len(many) <= len(few) + 4
    assert len(many) < 0.4 * sum(many.values())


def test_a_loop_that_one_nest_can_hold_is_one() -> None:
    @gj.compile
    def short(x: Tensor) -> Tensor:
        for _ in range(6):
            x = gj.exp(-x * x) + 0.5 * x
        return x
    short(floats(100))
    assert [k.kernel.name for k in short.latest.program.kernels] == ["k_neg_mul_exp_add"]


def clusters(graph: Graph) -> list[cluster.Cluster]:
    return periods.fuse(graph)[1]


def test_gradients_are_cut_where_the_turns_they_belong_to_are(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Graph] = []

    def fuse(graph: Graph) -> Any:
        graphs.append(graph)
        return periods.fuse(graph)
    monkeypatch.setattr(fusions, "fuse", fuse)
    monkeypatch.setattr(fusions, "_kept", {})
    run(orbits(60))
    found = clusters(max(graphs, key=lambda graph: len(graph.nodes)))
    sizes = Counter(tuple(sorted(Counter(n.op.name for n in c.members).items())) for c in found)
    assert max(len(c.members) for c in found) <= cluster.LARGEST
    # three kinds of nests for the turns and one for the way back, but for the ends
    assert sum(count for _, count in sizes.most_common(4)) > 0.8 * len(found)
    assert all(len({loop for loop, _ in c.turns}) == len(c.turns) for c in found)


def test_turns_begin_where_the_least_is_handed_on() -> None:
    @gj.compile
    def chain(x: Tensor) -> Tensor:
        for _ in range(40):
            a, b, c = gj.exp(x), gj.tanh(x), gj.sqrt(x)
            x = a * b + c
        return x
    chain(floats(10))
    nodes = [n for n in chain.graph.nodes if isinstance(n, Apply)]
    start = next(i for i, n in enumerate(nodes) if n.op.name == "add")  # from the end of the first turn on
    at = {n: i for i, n in enumerate(nodes[start:-1])}
    assert periods._narrowest(at, 5) == 1
    names: list[Array] = [np.array([n.op.name for n in c.members]) for c in clusters(chain.graph)]
    assert len(names) > 2
    assert all((a[-1], len(a) % 5) == ("add", 0) for a in names)
