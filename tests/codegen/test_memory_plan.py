"""Memory and order: no buffer is overwritten while someone still wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lowering import floats, program_of
from programs import Program as RandomProgram
from programs import programs

import graphjit as gj
from graphjit.codegen.call import Address, HostCall, KernelCall, Scratch
from graphjit.ir import Apply, Input
from graphjit.runtime import threads
from graphjit.runtime.memory import ALIGN, Lifetime, padded, plan_memory
from graphjit.runtime.program import Program

FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None,
               suppress_health_check=list(HealthCheck))


@st.composite
def lifetimes(draw: Any) -> list[Lifetime]:
    out: list[Lifetime] = []
    for i in range(draw(st.integers(0, 20))):
        first = draw(st.integers(-1, 10))
        out.append(Lifetime(i, draw(st.integers(0, 1000)), first, draw(st.integers(first, 11))))
    return out


@FEW
@given(lifetimes())
def test_buffers_alive_together_lie_apart(lives: list[Lifetime]) -> None:
    plan = plan_memory(lives)
    places = [(plan.offsets[x.key], plan.offsets[x.key] + padded(x.nbytes), x) for x in lives]
    assert all(at % ALIGN == 0 and end <= plan.size for at, end, _ in places)
    for i, (at, end, a) in enumerate(places):
        for other_at, other_end, b in places[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert end <= other_at or other_end <= at
    most = max((sum(padded(x.nbytes) for x in lives if x.first <= t <= x.last) for t in range(-1, 12)), default=0)
    assert most <= plan.size <= plan.total


def check(program: Program) -> None:
    """Follow the program step by step: who owns each byte of the arena, and which states are overwritten."""
    owner = np.full(program.plan.size, -1)
    names: dict[Any, int] = {}
    states = {node for step in program.steps for node in step.writes if isinstance(node, Input)}
    written: set[Any] = set()

    def span(buffer: Any) -> slice | None:
        if buffer not in program.plan.offsets:
            return None
        at = program.plan.offsets[buffer]
        return slice(at, at + (buffer.nbytes if isinstance(buffer, Scratch) else buffer.type.nbytes))

    def take(buffer: Any) -> None:
        found = span(buffer)
        if found is not None:
            owner[found] = names.setdefault(buffer, len(names))

    def want(buffer: Any, what: str) -> None:
        found = span(buffer)
        if found is not None:
            assert (owner[found] == names.get(buffer, -2)).all(), f"{what} reads {buffer}, overwritten or never written"
        elif isinstance(buffer, Apply):
            assert buffer in written, f"{what} reads {buffer} before it is written"
        elif buffer in states:
            assert buffer not in written, f"{what} reads the old value of a state that was overwritten"

    for node in program.arguments:
        take(node)
    for i, step in enumerate(program.steps):
        partial = {n for n in step.writes if n in written}  # several steps assemble one result
        for node in step.reads:
            if node not in step.writes or node in partial:
                want(node, step.title)
        for node in [*step.writes, *(s.buffer for s in getattr(step, "slots", ()) if isinstance(s, Address)
                                     and isinstance(s.buffer, Scratch))]:
            if node not in partial:
                take(node)
            elif not isinstance(node, Input):
                want(node, step.title)
        written.update(step.writes)
        if isinstance(step, HostCall) or step.checks:
            assert not states & written, f"step {i} may fail after state was changed"
    for buffer, _ in program.results:
        if buffer not in states:
            want(buffer, "the result")


@FEW
@given(programs())
def test_random_programs_read_what_was_written(program: RandomProgram) -> None:
    check(program_of(program.with_gradients(), *program.arguments()))


def test_state_is_written_after_all_checks_and_readers() -> None:
    w, count = gj.tensor(floats(8, 4)), gj.tensor(0)

    def step(x: gj.Tensor, ids: gj.Tensor) -> tuple[gj.Tensor, ...]:
        old = w * 1
        count.assign(count + 1)
        w.assign(w - 0.1 * (x.T @ gj.take(w, ids, 0)).sum())
        return old, gj.take(w, ids, 0), gj.linalg.norm(gj.linalg.qr(x)[1]), w.sum(0)
    program = program_of(step, floats(6, 4), np.array([0, 7, 3, 3, 1, 2]))
    check(program)
    assert any(isinstance(s, HostCall) for s in program.steps)


def test_buffers_of_a_long_chain_share_their_memory() -> None:
    def f(x: gj.Tensor) -> gj.Tensor:
        for _ in range(20):
            x = gj.tanh(x @ x)
        return x
    plan = program_of(f, floats(16, 16)).plan
    assert plan.size < plan.total / 5


def test_large_arguments_and_results_are_not_copied() -> None:
    x = floats(200, 200)
    program = program_of(lambda x: (x + 1, (x * 2).T, x[:2] * 3), x)
    assert not any(node in program.plan.offsets for node in program.arguments)
    kernels = [s for s in program.steps if isinstance(s, KernelCall)]
    assert program.plan.size < x.nbytes + 4096 * len(kernels)


def test_what_a_thread_has_for_itself_is_no_one_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_chosen", [3])
    monkeypatch.setattr("graphjit.runtime.bound.grains", lambda kernels, *_: [-(-k.extent // 3) for k in kernels])
    a, b = floats(64, 512), floats(512, 300)
    program = program_of(lambda a, b: gj.softmax(gj.tanh(a @ b) @ b.T, 1).sum(0), a, b)
    places: list[set[int]] = [set() for _ in range(program.threads)]
    common: set[int] = set()
    for call, row in zip(program.kernels, program.table, strict=True):
        first = (row[1] - program.slots.ctypes.data) // 8
        for i, slot in enumerate(call.slots):
            if isinstance(slot, Address) and slot.buffer in program.plan.offsets:
                own = isinstance(slot.buffer, Scratch) and not slot.buffer.common
                nbytes = slot.buffer.nbytes if isinstance(slot.buffer, Scratch) else slot.buffer.type.nbytes
                for thread, place in enumerate(places):
                    begin = int(program.slots[thread, first + i]) - slot.offset
                    lines = range(begin // ALIGN, (begin + nbytes - 1) // ALIGN + 1)
                    (place if own else common).update(lines)
    end = (program.arena_address + program.plan.size) // ALIGN
    assert all(places) and common and max(map(max, places)) < end
    for i, place in enumerate(places):
        assert not place & common
        assert all(not place & other for other in places[:i])
