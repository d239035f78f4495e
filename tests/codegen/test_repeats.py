"""Unrolled loops and equal layers: each cluster is written once, however often it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
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
from graphjit.codegen import cluster, lower, repeats
from graphjit.codegen.call import Address, KernelCall, Scratch
from graphjit.codegen.loops import LoopWriter
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

    def count(self: LoopWriter) -> KernelCall:
        call = write(self)
        titles.append(call.title)
        return call
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


def test_another_length_of_a_loop_writes_only_what_reads_its_argument(written: list[str]) -> None:
    recurrent(8)
    before = len(written)
    recurrent(11)
    assert len(written) - before < before / 2


def test_the_work_of_fusing_grows_with_the_program_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[cluster.Order] = []
    start = cluster.Order.__init__

    def keep(self: cluster.Order, *args: Any) -> None:
        start(self, *args)
        orders.append(self)
    monkeypatch.setattr(cluster.Order, "__init__", keep)
    layered(10)
    layered(40)
    a, b = (found.work / len(found.bits) for found in orders)
    assert b < 1.5 * a


def exactly(call: KernelCall) -> list[Any]:
    """All of a call, scratch memory by its size."""
    slots = [(type(s.buffer), s.buffer.nbytes, s.buffer.common) if isinstance(s, Address)
             and isinstance(s.buffer, Scratch) else s for s in call.slots]
    return [slots, *(getattr(call, f.name) for f in fields(call) if f.name != "slots")]


@pytest.fixture(scope="module")
def checked() -> Any:
    """Whatever is not written anew is written nevertheless, and compared."""
    hits: list[str] = []

    def write(*args: Any) -> KernelCall:
        known = len(repeats._kept)
        call = repeats.write_cluster(*args)
        if len(repeats._kept) == known:
            hits.append(call.title)
            assert exactly(call) == exactly(LoopWriter(*args).write())
        return call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_kept", {})
        patch.setattr(lower, "write_cluster", write)
        yield hits


def test_what_is_filled_in_equals_what_would_be_written(checked: list[str]) -> None:
    recurrent(5)
    layered(4)
    for make in PROGRAMS.values():
        function, args = make()
        for n in (1, 2):
            compiled(lambda *a, f=function: f(*a), *args) if n == 1 else compiled(function, *args)
    assert len(checked) > 20


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
