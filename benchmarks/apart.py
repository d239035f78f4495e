"""Whether the cores of this process are, at this moment, cores of their own.

Virtual processors may be hyper-threads of one core for some seconds, and of several cores for the next ones, as their
host likes it. Two threads that multiply and add then take twice as long together as one does alone. Rounds of a
measurement on several threads next to such a moment say nothing about a program; `measure` leaves them out, for all
peers alike.

``python -m benchmarks.apart N`` answers each line it reads with one: 1, these are N cores, or 0. It is a process of its
own, so that it adds nothing to the memory of the one that is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

SECONDS = 3e-4  # of multiply-adds
SLOWER = 1.4  # times as long as ever seen: something else computes on that core


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


def main(threads: int) -> None:
    from benchmarks.gemm import peak_runner

    run, _ = peak_runner(np.float32)
    count = max(1, int(SECONDS / min(_once(run, 10) / 10 for _ in range(100))))
    best = min(_once(run, count) for _ in range(100))
    cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else [None] * threads
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
