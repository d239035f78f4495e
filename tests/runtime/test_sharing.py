"""Rows shared out among threads: every unit once, whoever comes when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from graphjit.codegen.call import KernelCall
from graphjit.ir import Input, Node
from graphjit.runtime import driver
from graphjit.runtime.compiler import IRKernel, compile_kernels
from graphjit.runtime.machine import I64
from graphjit.runtime.shares import grains
from graphjit.runtime.sharing import ASLEEP, LINE, PART, REST, SLEEPS, STOPPED, TIMES, WAITED
from graphjit.runtime.threads import Pool
from graphjit.types import TensorType

UNITS = 64


def emit_count(b: Any, values: Any) -> None:
    """counts[unit] += 1 for each unit, by the slots of the thread that runs it; not atomic: two at once would show."""
    counts, start, stop = values
    counts = b.inttoptr(counts, I64.as_pointer())
    before, body, done = b.block, b.append_basic_block("body"), b.append_basic_block("done")
    b.branch(body)
    b.position_at_end(body)
    unit = b.phi(I64)
    unit.add_incoming(start, before)
    place = b.gep(counts, [unit])
    b.store(b.add(b.load(place), I64(1)), place)
    following = b.add(unit, I64(1))
    unit.add_incoming(following, body)
    b.cbranch(b.icmp_signed("<", following, stop), body, done)
    b.position_at_end(done)


def emit_meet(b: Any, values: Any) -> None:
    """flags[start] = 1, and wait until flags[1 + start] is 1."""
    flags, start, _ = values
    mine = b.gep(b.inttoptr(flags, I64.as_pointer()), [start])
    b.store_atomic(I64(1), mine, "seq_cst", 8)
    wait, done = b.append_basic_block("wait"), b.append_basic_block("done")
    b.branch(wait)
    b.position_at_end(wait)
    seen = b.load_atomic(b.gep(mine, [I64(1)]), "seq_cst", 8)
    b.cbranch(b.icmp_signed("==", seen, ir.Constant(I64, 1)), done, wait)
    b.position_at_end(done)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield compile_kernels([IRKernel("count", (), 1, emit_count), IRKernel("meet", (), 1, emit_meet)])


class Counting:
    """Rows that count how often each unit of each row runs, in memory of each thread's own."""

    def __init__(self, entry: int, threads: int, rows: list[tuple[int, int]]) -> None:
        self.counts = np.zeros((threads, len(rows), UNITS), np.int64)
        self.slots = np.array([[c.ctypes.data for c in own] for own in self.counts])
        self.stops = [stop for stop, _ in rows]
        self.table = np.array([(entry, self.slots[0, i:].ctypes.data, 0, stop, grain, self.slots.strides[0])
                               for i, (stop, grain) in enumerate(rows)], np.int64)
        self.status = np.zeros(1, np.int64)

    def run(self, block: int) -> None:
        self.counts[...] = 0
        assert driver.run(self.table.ctypes.data, len(self.table), self.status.ctypes.data, block) == driver.FINISHED

    def check(self) -> None:
        for row, stop in enumerate(self.stops):
            assert self.counts[:, row].sum(0).tolist() == [1] * stop + [0] * (UNITS - stop)


ROWS = [(64, 7), (1, 1), (2, 1), (64, 1), (5, 0), (33, -8), (3, 2), (64, -9), (2, -1), (64, 64)]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_every_unit_runs_once(entries: list[int], threads: int) -> None:
    """With workers that wake, fall asleep, and come too late for a job as they like."""
    pool = Pool(threads)
    counting = Counting(entries[0], threads, ROWS * 20)
    for _ in range(200):
        block = pool.ask(threads)
        assert block
        counting.run(block)
        pool.free.release()
        counting.check()
    pool.stop()


def test_a_pool_serves_programs_of_fewer_threads(entries: list[int]) -> None:
    pool = Pool(4)
    programs = [Counting(entries[0], threads, ROWS * 5) for threads in (4, 2, 3)]
    for turn in range(300):
        threads = (4, 2, 3)[turn % 3]
        block = pool.ask(threads)
        programs[turn % 3].run(block)
        pool.free.release()
        programs[turn % 3].check()
    pool.stop()


def test_programs_that_share_a_pool_take_turns(entries: list[int]) -> None:
    """Who cannot have the pool runs alone."""
    pool, failed = Pool(2), []

    def run() -> None:
        counting = Counting(entries[0], 2, ROWS * 5)
        for _ in range(100):
            block = pool.ask(2)
            counting.run(block)
            if block:
                pool.free.release()
            try:
                counting.check()
            except AssertionError as error:
                failed.append(error)
    running = [threading.Thread(target=run) for _ in range(3)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    pool.stop()
    assert failed == []


def test_no_one_waits_for_a_worker_that_sleeps(entries: list[int]) -> None:
    pool = Pool(3)
    pool.stop()
    pool.block[STOPPED] = 0
    counting = Counting(entries[0], 3, ROWS)
    counting.run(pool.ask(3))
    counting.check()


class Meeting:
    """One row of two units: the first waits until the second has begun, and that until it is let go."""

    def __init__(self, entry: int) -> None:
        self.flags, self.status = np.zeros(3, np.int64), np.zeros(1, np.int64)
        slots = np.array([[self.flags.ctypes.data]] * 2)
        self.kept = slots, np.array([(entry, slots.ctypes.data, 0, 2, 1, 8)], np.int64)

    def begin(self, block: int) -> threading.Thread:
        self.flags[:] = 0
        thread = threading.Thread(target=driver.run, args=(self.kept[1].ctypes.data, 1, self.status.ctypes.data, block))
        thread.start()
        return thread

    def let_go(self) -> None:
        self.flags[2] = 1


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(1e-4)


def test_threads_run_their_parts_at_the_same_time(entries: list[int]) -> None:
    pool, meeting = Pool(2), Meeting(entries[1])
    pool.block[TIMES] = 0  # no rest: the machine may be busy
    running = meeting.begin(pool.ask(2))
    meeting.let_go()
    running.join()
    pool.stop()


def test_who_waits_for_a_worker_sleeps_and_then_does_without_it(entries: list[int]) -> None:
    """The worker is held up in its chunk until the caller sleeps. When that has cost much of its time, it rests."""
    pool, meeting, counting = Pool(2), Meeting(entries[1]), Counting(entries[0], 2, ROWS)
    block, own = pool.block, pool.block[PART + LINE:]
    for times in (0, 1 << 26, 0):
        block[TIMES] = own[REST] = 0
        running = meeting.begin(pool.ask(2))
        wait_for(lambda: meeting.flags[1] and own[0] & WAITED)
        assert running.is_alive()
        block[TIMES] = times
        meeting.let_go()
        running.join()
        wait_for(lambda: own[SLEEPS])
        assert block[ASLEEP] == 1
        assert (own[REST] != 0) == (times != 0)
        own[REST] = 1 << 62  # for ever
        counting.run(pool.address)
        assert own[SLEEPS] == 1
        assert counting.counts[1].sum() == 0  # the caller did all
        counting.check()
        pool.free.release()
    pool.stop()


def buffer(n: int) -> Input:
    return Input(TensorType((n,), np.dtype(np.float32)))


def call(cost: float, extent: int, align: int = 1, tail: bool = False, reads: Sequence[Input] = (),
         writes: Sequence[Input] = (), cuts: dict[Node, int] | None = None) -> KernelCall:
    kernel = IRKernel("count", (), 1, emit_count)
    return KernelCall(kernel, (), (), extent, tuple(reads), tuple(writes), "k", align=align, tail=tail, cost=cost,
                      nbytes=1 << 20, cuts=cuts or {})


def shared(kernels: Sequence[KernelCall], threads: int = 2, in_place: Mapping[Node, Node] | None = None) -> list[int]:
    return grains(kernels, threads, in_place or {})


def test_shares_are_even_and_end_where_blocks_do() -> None:
    for extent, align, tail in [(128, 13, False), (64, 13, False), (8, 2, False), (7, 1, False), (6, 1, False),
                                (9, 1, True)]:
        [grain] = shared([call(40e3, extent, align, tail)])
        units, grain, negative = extent - tail, abs(grain), grain < 0
        most = -(-units // (grain * 2)) * grain
        assert negative == tail
        assert most <= 1.05 * -(-units // 2) or (most == grain and grain % align == 0)


def test_a_strict_kernel_is_cut_nowhere_else() -> None:
    for extent, wanted in ((32, 0), (64, 0), (96, 64), (128, 64), (500, 256)):
        kernel = call(400e3, extent, 64)
        kernel.strict = True
        [grain] = shared([kernel])
        assert grain % 64 == 0 and (grain == wanted if extent < 500 else 0 < grain <= wanted)


def test_what_saves_little_is_not_shared() -> None:
    assert shared([call(40e3, 64), call(200.0, 64)]) == [32, 0]
    assert shared([call(1e3, 64)] * 50) == [0] * 50
    assert shared([call(40e3, 64), *[call(1e3, 64)] * 400]) == [0] * 401
    assert shared([call(40e3, 1), call(40e3, 0), call(40e3, 2, tail=True)]) == [0, 0, 0]
    assert shared([call(40e3, 64)], threads=1) == [0]


def test_what_moves_between_cores_counts() -> None:
    chain, state, new = [buffer(1 << 14) for _ in range(8)], buffer(1 << 16), buffer(1 << 16)
    first = call(60e3, 64, reads=[state], writes=chain[:1])
    last = call(20e3, 64, reads=chain[-1:], writes=[new])
    # each share reads all of what the others wrote, or what it wrote itself
    across = [call(9e3, 64, reads=[x], writes=[y], cuts={x: 0, y: 128}) for x, y in pairwise(chain)]
    along = [call(9e3, 64, reads=[x], writes=[y]) for x, y in pairwise(chain)]
    assert shared([first, *across, last], in_place={new: state}) == [32, *[0] * 7, 32]
    assert shared([first, *along, last], in_place={new: state}) == [32] * 9
