"""One workload in one framework, measured in a process of its own.

``python -m benchmarks.measure '{"workload": "mnist", "peer": "jax", "budget": 1.0}'`` prints one line of JSON;
``run`` starts that pinned to as many cores as there are threads, with a time limit and clean environment.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import Alone, Watch
from benchmarks.peers import PEERS, Runner, Unsupported
from benchmarks.workloads import WORKLOADS

ROUND = 0.005   # seconds of steps between two looks at the clock
WARM_UP = 0.1   # seconds before the first look
TURNS = 6       # of steps that are compared with each other
WAITS = 8       # times as long as the budget it may take to find rounds in which all cores are there
QUANTILES = 9   # of the rounds that are kept; the middle one is their median
COMPARED = 3    # numbers that all frameworks have to agree on
ROOT = Path(__file__).resolve().parent.parent
HOBBLING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "GRAPHJIT_EAGER", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES",
            "NUMBA_DISABLE_JIT", "JAX_PLATFORMS", "PYTHONDONTWRITEBYTECODE")


# ---- in the process that measures


def main(text: str) -> None:
    job = json.loads(text)
    try:
        result = measure(**job)
    except Unsupported as e:
        result = {"status": "unsupported", "detail": str(e)}
    except Exception as e:  # a peer's own: its row says so, and the others go on
        result = {"status": "error", "detail": f"{type(e).__name__}: {e}"[:500]}
    print(json.dumps(result), flush=True)


def measure(workload: str, peer: str, budget: float, threads: int = 1, first: bool = True,
            best: float = math.inf) -> dict[str, Any]:
    """Times of one pair; ``first``: also what only its first process has to find out; ``best``: see `Alone`."""
    w, form = WORKLOADS[workload], PEERS[peer]
    start = time.perf_counter()
    importlib.import_module(f"benchmarks.peers.{form.room}")
    prepare(form.package, threads)
    imported = time.perf_counter() - start
    runner = form.build(w)

    start = time.perf_counter()
    result = runner.step()
    runner.wait(result)
    found: dict[str, Any] = {"imported": imported, "first": time.perf_counter() - start + runner.compiled}
    if not w.like:
        found["numbers"] = compared(runner, runner.numbers(result))

    watch = Watch(threads) if threads > 1 else Alone(best)
    found["rounds"], found["busy"], found["kept"] = rounds(runner, budget, watch)
    found["peak"] = peak_memory()
    if first and runner.resized is not None and not form.slow:
        start = time.perf_counter()
        runner.wait(runner.resized())
        found["resized"] = time.perf_counter() - start
    if not first and threads > 1 and runner.alone is not None:
        found["turns"] = turns([runner.alone(), runner], budget, watch)
    watch.close()
    if first and w.like:
        found["numbers"] = compared(form.build(WORKLOADS[w.like]), [])
    return found


def prepare(package: str, threads: int) -> None:
    """What a framework does once a process and is no part of a first call."""
    if package == "torch":
        import torch

        torch.set_num_threads(threads)
    elif package == "jax":
        import jax

        jax.devices()


def compared(runner: Runner, numbers: list[float]) -> list[float]:
    """The first numbers, with those of more calls when they are too few."""
    while len(numbers) < COMPARED:
        numbers += runner.numbers(runner.step())
    return numbers[:COMPARED]


def rounds(runner: Runner, budget: float, watch: Watch | Alone) -> tuple[list[float], float, float]:
    """Seconds a step over many rounds, as quantiles of them; processor time over time; the share of all rounds that
    these are: those between two moments in which the ``watch`` finds all cores there. If it finds few, all count."""

    def once(count: int) -> float:
        result = None
        start = time.perf_counter()
        for _ in range(count):
            result = step()
        runner.wait(result)
        return (time.perf_counter() - start) / count

    step = runner.step
    estimate, end = once(1), time.perf_counter() + min(WARM_UP, budget)
    while time.perf_counter() < end:
        estimate = min(estimate, once(1))
    count = max(1, round(ROUND / estimate))
    gc.collect()
    times: list[float] = []
    kept: list[float] = []
    busy, begin, apart = 0.0, time.perf_counter(), watch.apart()
    while True:
        start = time.process_time()
        times.append(once(count))
        busy += time.process_time() - start
        before, apart = apart, watch.apart()
        if before and apart:
            kept.append(times[-1])
        spent = time.perf_counter() - begin
        enough = len(kept) >= 5 and sum(kept) * count >= budget
        if enough or spent > WAITS * budget:
            break
    chosen = kept if len(kept) >= 5 else times
    quantiles = np.quantile(chosen, np.linspace(0.02, 0.98, QUANTILES)) / runner.steps
    return [float(f"{t:.5g}") for t in quantiles], busy / (sum(times) * count), len(kept) / len(times)


def turns(runners: Sequence[Runner], budget: float, watch: Watch | Alone) -> list[float]:
    """Seconds a step of each, measured in turns: the clock of a machine drifts."""
    times = [[rounds(runner, budget / TURNS, watch)[0] for runner in runners] for _ in range(TURNS)]
    return [float(np.median(each)) for each in zip(*times, strict=True)]


def peak_memory() -> int:
    """Bytes this process held at most."""
    try:  # of this process alone; ru_maxrss also knows the one it was forked from
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---- in the process that starts it


def run(job: dict[str, Any], cache: Path, limit: float) -> dict[str, Any]:
    """Measure a pair in a fresh process; what it found, or why not."""
    return start("benchmarks.measure", [json.dumps(job)], job["threads"], cache, limit)


def start(module: str, arguments: list[str], threads: int, cache: Path, limit: float) -> dict[str, Any]:
    """Run a module pinned to the last cores; the JSON of its last line, or a status."""
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment(threads, cache),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores(threads))) if hasattr(os, "sched_setaffinity") else None)
    try:
        out, err = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # its session: a compiler it started goes too
        child.communicate()
        return {"status": "timeout", "detail": f"more than {limit:g} s"}
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    try:
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = err.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        return {"status": "error", "detail": last[0][:500]}
    return found


def cores(threads: int) -> set[int]:
    """The last ones this process may use: the first is where others run."""
    return set(sorted(os.sched_getaffinity(0))[-threads:])


def environment(threads: int, cache: Path) -> dict[str, str]:
    """This environment without what slows a peer down, with the thread counts, and all caches in one folder."""
    env = {name: value for name, value in os.environ.items() if name not in HOBBLING}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
              "GRAPHJIT_NUM_THREADS")
    env |= dict.fromkeys(counts, str(threads))
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    folders = {"GRAPHJIT_CACHE_DIR": "graphjit", "JAX_COMPILATION_CACHE_DIR": "jax", "NUMBA_CACHE_DIR": "numba",
               "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    env |= {name: str(cache / folder) for name, folder in folders.items()}
    env["PYTENSOR_FLAGS"] = f"base_compiledir={cache / 'pytensor'}"
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    env["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes that outlives the measurement
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return env


if __name__ == "__main__":
    main(sys.argv[1])
