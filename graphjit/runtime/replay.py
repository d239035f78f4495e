"""A program's steps one by one, each run as often as wanted: what profiling measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.codegen.call import HostCall, Step
from graphjit.ir import Input
from graphjit.runtime.program import Program
from graphjit.runtime.threads import pool

BURST = 1e-4    # seconds that a burst of repetitions takes at least
ROWS = 1 << 14  # and its most rows
BURSTS = 8


@contextmanager
def replay(program: Program, arrays: Sequence[Any], written: Sequence[Input]) -> Iterator[Replay]:
    """The program laid open on these arguments, which it can be run on. State is put back as it was at the end.

    Args:
        program: of which no other thread runs anything meanwhile.
        arrays: of the arguments' types.
        written: the states that it writes.
    """
    with program.lock:
        kept = {node: program.fixed[node].copy() for node in written}
        stage(program, arrays)
        program._point(arrays)
        helpers = pool() if program._shares else None
        block = helpers.ask(program.threads) if helpers is not None else 0
        try:
            yield Replay(program, arrays, written, block)
        finally:
            for node, array in kept.items():
                np.copyto(program.fixed[node], array)
            program.status[0] = 0
            program.held.clear()
            if helpers is not None and block:
                helpers.free.release()


def stage(program: Program, arrays: Sequence[Any]) -> None:
    """Copy the small arguments into the arena."""
    for i, staged in program._staged:
        staged[...] = arrays[i]


class Replay:
    """A program under measurement."""

    def __init__(self, program: Program, arrays: Sequence[Any], written: Sequence[Input], block: int) -> None:
        self.program = program
        self.arrays = arrays
        self.written = written
        self.block = block

    def steps(self, budget: float) -> Iterator[tuple[Step, float, int]]:
        """Each step in order, with the seconds it takes and how often it was run to find out."""
        program, row = self.program, 0
        for step in program.steps:
            if isinstance(step, HostCall):
                seconds, calls = timed(self._host_calls(step), budget)
            else:
                before = {s: program.fixed[s].copy() for s in self.written if s in step.writes}
                run = self._rows(program.table[row])
                seconds, calls = timed(run, budget)
                for state, array in before.items():  # leave to the next step what one run leaves
                    np.copyto(program.fixed[state], array)
                if before:
                    run(1)
                row += 1
            yield step, seconds, calls

    def whole(self, budget: float) -> float:
        """Seconds of a run of all steps."""
        run, block = self.program._run_with, self.block

        def times(n: int) -> None:
            for _ in range(n):
                stage(self.program, self.arrays)  # the arena gives their memory to others once they are read
                run(block)
        return timed(times, budget)[0]

    def _rows(self, row: np.ndarray[Any, Any]) -> Callable[[int], None]:
        """Run one row n times, as a table of n equal rows: the driver's time for each is some ns."""
        table = np.tile(row, (1, 1))
        driver, status, block = self.program._run, self.program.status.ctypes.data, self.block

        def times(n: int) -> None:
            nonlocal table
            if len(table) < n:
                table = np.tile(row, (n, 1))
            driver(table.ctypes.data, n, status, block)
        return times

    def _host_calls(self, step: HostCall) -> Callable[[int], None]:
        def times(n: int) -> None:
            for _ in range(n):
                self.program._host(step.node)
        return times


def timed(times: Callable[[int], None], budget: float) -> tuple[float, int]:
    """Seconds of one run, the best of several bursts within about ``budget`` seconds, and the number of runs."""
    times(1)
    n, calls, bursts, best, spent = 1, 1, 0, float("inf"), 0.0
    while True:
        begin = time.perf_counter()
        times(n)
        taken = time.perf_counter() - begin
        calls += n
        spent += taken
        best = min(best, taken / n)
        if taken < BURST and n < ROWS:
            n = min(n * 4, ROWS)
            continue
        bursts += 1
        if bursts == BURSTS or spent > budget:
            return best, calls
