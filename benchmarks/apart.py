"""Whether the cores of this process are, at this moment, cores of their own.

Virtual processors may be hyper-threads of one core for some seconds, and of several cores for the next ones, as their
host likes it. Two threads that multiply and add then take twice as long together as one does alone. And the other
hyper-thread of a core may be at work for somebody else: then a loop of Python takes up to twice as long. Rounds of a
measurement next to such a moment say nothing about a program; `measure` leaves them out, for all peers alike.

``python -m benchmarks.apart N`` answers each line it reads with one: 1, these are N cores, or 0. It is a process of its
own, so that it adds nothing to the memory of the one that is measured.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

SECONDS = 3e-4  # of multiply-adds
SLOWER = 1.4  # times as long as ever seen: something else computes on that core
STEPS = 3000  # of a loop of Python, some 35 microseconds
LOOPS = 20  # of them, of which the median says whether it is quiet


class Watch:
    """Asks such a process."""

    def __init__(self, threads: int) -> None:
        self._child = subprocess.Popen([sys.executable, "-m", "benchmarks.apart", str(threads)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def apart(self) -> bool:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("?\n")
        return self._child.stdout.readline() == "1\n"

    def close(self) -> None:
        self._child.communicate()


class Alone:
    """Whether this thread has its core for itself.

    Args:
        best: the fewest seconds that `python_loop` was ever seen to take on this machine.
    """

    def __init__(self, best: float = float("inf")) -> None:
        self.best = best

    def apart(self) -> bool:
        found = python_loop()
        self.best = min(self.best, found)
        return found < SLOWER * self.best

    def close(self) -> None:
        pass


def python_loop() -> float:
    """Seconds that a short loop of Python takes. No objects are made: where they lie decides as much as a neighbour."""
    start, flag = time.perf_counter(), False
    for _ in itertools.repeat(None, STEPS):
        flag = not flag
        flag = not flag
    return time.perf_counter() - start


class Patience:
    """Waits until nobody else computes on the cores that are measured, in all for as long as it is told.

    Attributes:
        best: the fewest seconds that `python_loop` was seen to take.
    """

    def __init__(self, cores: set[int], seconds: float) -> None:
        self.cores, self.left = cores, seconds
        self.best = min(self._look()[0] for _ in range(100))

    def wait(self) -> None:
        """Come back in a quiet moment, or with no patience left."""
        while True:
            start = time.perf_counter()
            fastest, usual = self._look()
            self.best = min(self.best, fastest)
            if usual < SLOWER * self.best or self.left <= 0:
                return
            time.sleep(0.2)
            self.left -= time.perf_counter() - start

    def _look(self) -> tuple[float, float]:
        """The least seconds of some loops, and those that they usually take on the slowest of the cores."""
        pins = hasattr(os, "sched_setaffinity")
        before = os.sched_getaffinity(0) if pins else set()
        found = []
        try:
            for core in self.cores:
                if pins:
                    os.sched_setaffinity(0, {core})
                found.append(sorted(python_loop() for _ in range(LOOPS)))
        finally:
            if pins:
                os.sched_setaffinity(0, before)
        return min(each[0] for each in found), max(each[LOOPS // 2] for each in found)


def main(threads: int) -> None:
    cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else [None] * threads
    if len(cores) < threads:  # some share one
        for _ in sys.stdin:
            print(0, flush=True)
        return
    from benchmarks.gemm import peak_runner

    run, _ = peak_runner(np.float32)
    count = max(1, int(SECONDS / min(_once(run, 10) / 10 for _ in range(100))))
    best = min(_once(run, count) for _ in range(100))
    barrier, times = threading.Barrier(threads + 1), [0.0] * threads

    def work(i: int) -> None:
        if cores[i] is not None:
            os.sched_setaffinity(0, {cores[i]})
        while True:
            barrier.wait()
            times[i] = _once(run, count)
            barrier.wait()

    for i in range(threads):
        threading.Thread(target=work, args=(i,), daemon=True).start()
    for _ in sys.stdin:
        barrier.wait()
        barrier.wait()
        print(int(max(times) < SLOWER * best), flush=True)


def _once(run: Callable[[int], None], count: int) -> float:
    """Seconds of this thread's own: others that take turns with it on its core do not count."""
    start = time.thread_time()
    run(count)
    return time.thread_time() - start


if __name__ == "__main__":
    main(int(sys.argv[1]))
