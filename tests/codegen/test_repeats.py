"""Unrolled loops and equal layers: each cluster is written once, however often it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import count
from typing import Any

import numpy as np
import pytest
from golden_programs import PROGRAMS
from hypothesis import HealthCheck, given, settings
from lowering import compiled, floats
from programs import Program, programs

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.codegen import cluster, fusions, kinds, lower, order, repeats
from graphjit.codegen.arguments import Written
from graphjit.codegen.call import Address, KernelCall, Scratch
from graphjit.codegen.fusions import Fused
from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.periods import fuse
from graphjit.ir import Graph
from graphjit.kernels import gemm
from graphjit.passes import optimize
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Trace, tracing
from graphjit.tree import flatten
from graphjit.types import TensorType


def recurrent(steps: int) -> gj.CompiledFunction:
    """A training step of a recurrent network unrolled over so many steps."""
    gj.manual_seed(0)
    cell, head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)
    opt = optim.Adam([*cell.parameters(), *head.parameters()])

    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(head(cell(x)[0][:, -1]), y)
        loss.backward()
        opt.step()
        return loss
    return compiled(step, floats(6, steps, 4), np.array([0, 1, 2, 0, 1, 2]))


def layered(layers: int) -> gj.CompiledFunction:
    """The gradient of a network of equal layers."""
    weights = [gj.tensor(floats(8, 8, seed=i) * 0.3, requires_grad=True) for i in range(layers)]

    def loss(x: gj.Tensor) -> gj.Tensor:
        for w in weights:
            x = gj.tanh(x @ w) + x
        out = (x * x).mean()
        out.backward()
        return out
    return compiled(loss, floats(5, 8))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the kernels that are written; nothing is known to begin with."""
    titles: list[str] = []
    write = LoopWriter.write

    def count(self: LoopWriter) -> Written:
        found = write(self)
        titles.append(found.title)
        return found
    monkeypatch.setattr(repeats, "_kept", {})
    monkeypatch.setattr(LoopWriter, "write", count)
    return titles


@pytest.mark.parametrize(("make", "few", "many"), [(recurrent, 4, 16), (layered, 3, 12)])
def test_a_longer_program_of_the_same_parts_writes_no_more_kernels(
        make: Callable[[int], Any], few: int, many: int, written: list[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    make(few)
    short = len(written)
    written.clear()
    monkeypatch.setattr(repeats, "_kept", {})
    long = make(many)
    assert 0 < len(written) <= short + 2, written
    assert len(long.latest.program.kernels) > 2 * len(written)


def test_a_longer_program_of_equal_products_plans_no_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for products whose operands lie otherwise, in the first and the last step."""
    planned: list[Any] = []
    plan = gemm.plan

    def count(*args: Any, **kwargs: Any) -> gemm.GemmPlan:
        planned.append(args)
        return plan(*args, **kwargs)
    monkeypatch.setattr(gemm, "plan", count)
    found = []
    for steps in (4, 16):
        planned.clear()
        kernels = recurrent(steps).latest.program.kernels
        found.append(len(planned))
        assert len(planned) == len(set(planned))
        assert sum(k.title.startswith("matmul") for k in kernels) > steps * 2
    assert 0 < found[1] <= found[0] + 1


def test_another_length_of_a_loop_writes_only_what_reads_its_argument(written: list[str]) -> None:
    recurrent(8)
    before = len(written)
    recurrent(11)
    assert len(written) - before < before / 2


def of_any_size() -> dict[str, tuple[Callable[..., Any], Callable[[int, int], tuple[Any, ...]]]]:
    """Functions, and their arguments for two lengths."""
    gj.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    opt = optim.Adam([*net.parameters(), *conv.parameters()])
    table = gj.tensor(floats(11, 6), requires_grad=True)

    def trained(model: nn.Module, x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    def attention(i: gj.Tensor) -> tuple[gj.Tensor, ...]:
        x = table[i]
        n, t, _ = x.shape
        q = x.reshape(n, t, 2, 3).permute_dims(0, 2, 1, 3)
        a = gj.where(gj.tril(gj.ones((t, t))) > 0, q @ q.mT, -1e9).softmax(-1)
        return gj.value_and_grad(lambda w: (w[i] * (a @ q).permute_dims(0, 2, 1, 3).reshape(n, t, 6)).mean())(table)

    def turned(x: gj.Tensor) -> list[gj.Tensor]:
        return [x.mT + 1, gj.flip(x, axis=0) * x, x[::2] * 3, x.mean(0), x.sum(1), (x * x).sum(), x.mT.max(0),
                gj.softmax(x, 0), x[1:] - x[:-1], gj.concat([x, x * 2]), x.reshape(-1) - x.mean()]
    return {
        "network": (lambda x, y: trained(net, x, y), lambda n, m: (floats(n, 6), np.arange(n) % 3)),
        "images": (lambda x, y: trained(conv, x, y), lambda n, m: (floats(n, 1, 6, 6), np.arange(n) % 3)),
        "attention": (attention, lambda n, m: (np.arange(n * m).reshape(n, m) % 11,)),
        "turned": (turned, lambda n, m: (floats(n, m),)),
        "stacked": (lambda x: (x.mT.sum(0), (x + x.mean((0, 2), keepdims=True)).permute_dims(2, 0, 1) * 2),
                    lambda n, m: (floats(n, 4, m),))}


@pytest.mark.parametrize("name", ["network", "images", "attention"])
def test_a_new_batch_size_writes_nothing(written: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, arguments = of_any_size()[name]
    step = gj.compile(function)
    for n in (9, 5):
        step(*arguments(n, 4))
    written.clear()

    def fuse_anew(self: cluster.Fusion) -> list[cluster.Cluster]:
        raise AssertionError("this graph has been fused")
    monkeypatch.setattr(cluster.Fusion, "run", fuse_anew)
    for n in (7, 33, 2, 3000):
        step(*arguments(n, 4))
    assert not written


def test_the_work_of_fusing_grows_with_the_program_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[order.Order] = []
    start = order.Order.__init__

    def keep(self: order.Order, *args: Any) -> None:
        start(self, *args)
        orders.append(self)
    monkeypatch.setattr(order.Order, "__init__", keep)
    layered(10)
    layered(40)
    a, b = (found.work / len(found.bits) for found in orders)
    assert b < 1.5 * a


def exactly(call: KernelCall) -> list[Any]:
    """All of a call, scratch memory by its size."""
    slots = [(type(s.buffer), s.buffer.nbytes, s.buffer.common) if isinstance(s, Address)
             and isinstance(s.buffer, Scratch) else s for s in call.slots]
    others = [getattr(call, f.name) for f in fields(call) if f.name not in ("slots", "spans")]
    return [slots, list(map(type, call.slots)), call.spans(), *others]


def all_of(c: cluster.Cluster) -> list[Any]:
    return [c.extents, list(map(type, c.extents)), c.reduced, list(c.members.items()), c.levels, c.fold_axes]


def fused(graph: Graph) -> Fused:
    """A graph fused from what is known, compared with the graph fused anew."""
    found, (anew, clusters) = Fused(graph), fuse(graph)
    assert [all_of(c) for c in found.clusters] == [all_of(c) for c in clusters]
    assert {n: found.readers(n) for n in anew.readers} == anew.readers
    return found


@pytest.fixture(scope="module")
def checked() -> Any:
    """Whatever is not written anew is written nevertheless, and compared."""
    hits: list[str] = []

    def write(*args: Any) -> KernelCall:
        known = len(repeats._kept)
        call = repeats.write_cluster(*args)
        if len(repeats._kept) == known:
            hits.append(call.title)
            with pytest.MonkeyPatch.context() as nothing_known:
                nothing_known.setattr(repeats, "_kept", {})
                assert exactly(call) == exactly(repeats.write_cluster(*args))
        return call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_kept", {})
        patch.setattr(lower, "write_cluster", write)
        patch.setattr(lower, "Fused", fused)
        yield hits


def test_what_is_filled_in_equals_what_would_be_written(checked: list[str]) -> None:
    recurrent(5)
    layered(4)
    for make in PROGRAMS.values():
        function, args = make()
        for n in (1, 2):
            compiled(lambda *a, f=function: f(*a), *args) if n == 1 else compiled(function, *args)
    assert len(checked) > 20


@pytest.mark.parametrize("name", of_any_size())
def test_so_it_is_for_other_lengths(checked: list[str], name: str) -> None:
    function, arguments = of_any_size()[name]
    step, filled = gj.compile(function), len(checked)
    step(*arguments(9, 4))
    step(*arguments(7, 5))  # optimizers have their states by now
    for n, m in [(2, 2), (3, 1), (4, 4), (6, 2), (8, 6), (1, 1), (1, 3), (33, 5),
                 (2101, 13)]:  # long enough for folds to be in several chunks
        if n > 1 or name != "network":  # which finds no variance in one row
            step(*arguments(n, m))
    assert len(checked) > filled


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_so_it_is_for_random_programs(checked: list[str], program: Program) -> None:
    trace = Trace()
    with tracing(trace):
        inside = [Tensor._of(trace.argument(TensorType(x.shape, x.dtype), "x")) for x in program.arguments()]
        outputs = [value_of(t).data for t in flatten(program.with_gradients()(*inside))[0]]
    for _ in range(2):
        graph = trace.graph(outputs)  # type: ignore[arg-type]  # nodes in a trace
        lower.lower(optimize(graph), len(outputs), [s.node for s in trace.written()])


def test_constants_and_literals_are_told_apart(checked: list[str]) -> None:
    x = np.ones((3, 4), np.float32)
    for k in range(5):
        np.testing.assert_allclose(gj.compile(lambda x, k=k: x * (k + 0.1) + k)(x), x * np.float32(k + 0.1) + k)


def test_the_first_kinds_are_not_taken_for_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_numbers", {})
    monkeypatch.setattr(kinds, "_next", count())
    monkeypatch.setattr(fusions, "_kept", {})
    monkeypatch.setattr(repeats, "_kept", {})
    x = np.arange(4.0)
    np.testing.assert_array_equal(gj.compile(lambda x: -x)(x), -x)
    np.testing.assert_array_equal(gj.compile(lambda x: x @ x)(np.eye(2)), np.eye(2))
    np.testing.assert_array_equal(gj.compile(lambda x: x @ x)(x), 14.0)
