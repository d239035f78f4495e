"""What the machine can do at most: `python -m benchmarks.roofline [threads]` prints one line of JSON.

The peak of fused multiply-adds is measured with chains of them in registers; that of float32 products on a tile unit,
where there is one, with chains of tile products, six for one; the bandwidth by copying, for working sets from the
innermost cache to main memory. On several threads all run at once.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.kernels.target import target
from graphjit.runtime.roofline import tile_chains

SIZES = [1 << k for k in range(14, 29)]  # bytes, of both sides of a copy


def main(threads: int) -> None:
    flops = {name: fma_peak(name, threads) for name in ("float32", "float64")}
    if target().tile_unit:
        flops["float32 in tiles"] = tile_peak(threads)
    print(json.dumps({"flops": flops,
                      "bandwidth": {size: copy_bandwidth(size, threads) for size in SIZES}}))


def fma_peak(dtype: str, threads: int) -> float:
    """Operations a second."""
    from benchmarks.gemm import peak_runner

    return _together([peak_runner(np.dtype(dtype).type) for _ in range(threads)])


def tile_peak(threads: int) -> float:
    """float32 operations a second of products on the tile unit."""
    from benchmarks.gemm import repeated

    kernel, flops = tile_chains()
    return _together([(repeated(kernel, [0], 1), flops) for _ in range(threads)])


def _together(runners: list[tuple[Callable[[int], None], int]]) -> float:
    seconds = best_seconds([functools.partial(run, 100) for run, _ in runners])
    return float(sum(flops for _, flops in runners)) * 100 / seconds


def copy_bandwidth(nbytes: int, threads: int) -> float:
    """Bytes read and written a second, each thread copying its part."""
    part = nbytes // (2 * threads)
    pairs = [(np.zeros(part, np.uint8), np.ones(part, np.uint8)) for _ in range(threads)]
    repeats = max(1, (1 << 22) // nbytes)

    def copy(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    return nbytes * repeats / best_seconds([functools.partial(copy, *pair) for pair in pairs])


def best_seconds(tasks: list[Callable[[], None]], budget: float = 0.06) -> float:
    """Shortest time in which all tasks run side by side."""
    if len(tasks) == 1:
        return min(_times(tasks[0], budget))
    barrier, ends = threading.Barrier(len(tasks)), [0.0] * len(tasks)
    best = [float("inf")]
    rounds = 20

    def work(i: int) -> None:
        for _ in range(rounds):
            barrier.wait()
            start = time.perf_counter()
            tasks[i]()
            ends[i] = time.perf_counter() - start
            if barrier.wait() == 0:
                best[0] = min(best[0], max(ends))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(tasks))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return best[0]


def _times(task: Callable[[], None], budget: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
