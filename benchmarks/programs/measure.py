"""One program in a process of its own: all frameworks on it, in turns.

``python -m benchmarks.programs.measure '{"program": "unet", "frameworks": ["graphjit", "jax"], "seconds": 2}'``
prints one line of JSON; ``run`` starts that as `benchmarks.measure` starts its processes.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROUND, prepare, start
from benchmarks.programs import PROGRAMS
from benchmarks.programs.agreement import TOLERANCES, Found, disagreements
from benchmarks.programs.frameworks import FRAMEWORKS, Framework
from benchmarks.programs.outcome import Entry, Outcome
from benchmarks.programs.program import Case, is_double, leaves

Call = Callable[[], Any]
LEAST = 5  # rounds, however long they take
REST = 0.02  # seconds until threads that found no more work sleep: OpenMP's look for some milliseconds


# ---- in the process that measures


def main(text: str) -> None:
    print(json.dumps(asdict(measure(**json.loads(text)))), flush=True)


def measure(program: str, frameworks: list[str], seconds: float, threads: int = 1) -> Outcome:
    case = PROGRAMS[program].case()
    outcome = Outcome(program, {name: Entry() for name in frameworks})
    calls: dict[str, list[Call]] = {}
    found: dict[str, Found] = {}
    for name, entry in outcome.entries.items():
        if not FRAMEWORKS[name].installed:
            entry.status = "missing"
            continue
        try:
            calls[name], found[name], entry.first = begun(FRAMEWORKS[name], case, threads)
        except Exception as e:  # a framework's own: its column says so, and the others go on
            entry.status, entry.detail = "error", f"{type(e).__name__}: {e}"[:500]
    for name, text in disagreements(found, TOLERANCES["float64" if is_double(case.params) else "float32"]).items():
        outcome.entries[name].status, outcome.entries[name].detail = "wrong", text

    forms = {(name, i): call for name, each in calls.items() for i, call in enumerate(each)}
    times = in_turns(forms, seconds, threads)
    for name, each in calls.items():
        outcome.entries[name].rounds = min((times[name, i] for i in range(len(each))), key=np.median)
    if threads > 1 and "graphjit" in calls:
        outcome.alone, outcome.together = on_one_thread_and_more(case, calls["graphjit"][0], seconds / 2, threads)
    return outcome


def begun(framework: Framework, case: Case, threads: int) -> tuple[list[Call], Found, float]:
    """The calls of a framework, what they give, and the seconds the first one took."""
    xp = framework.load()
    prepare(framework.package, threads)
    calls = xp.calls(partial(case.loss, xp), case.params, case.data)
    start = time.perf_counter()
    value, gradients = calls[0]()
    first = time.perf_counter() - start
    arrays = [np.asarray(g, np.float64) for g in leaves(gradients)]
    if [g.shape for g in arrays] != [p.shape for p in leaves(case.params)]:
        raise ValueError("the gradients have other shapes than the parameters")
    return calls, Found(float(value), arrays), first


def in_turns(calls: dict[Any, Call], seconds: float, threads: int) -> dict[Any, list[float]]:
    """Seconds a call of each, in rounds of some milliseconds that take turns: the clock of a machine drifts.

    Before each round is one that does not count: it finds the caches as others left them. On several threads there is
    a rest before that, or the others' threads would still be at work.
    """
    counts = {key: max(1, round(ROUND / estimate(call))) for key, call in calls.items()}
    times: dict[Any, list[float]] = {key: [] for key in calls}
    gc.collect()
    end = time.perf_counter() + seconds
    while calls and (time.perf_counter() < end or min(map(len, times.values())) < LEAST):
        for key, call in calls.items():
            if threads > 1:
                time.sleep(REST)
            once(call, counts[key])
            times[key].append(float(f"{once(call, counts[key]):.5g}"))
    return times


def once(call: Call, count: int) -> float:
    """Seconds a call, of a round of them."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def estimate(call: Call) -> float:
    """Seconds that the fastest of some calls takes."""
    return min(once(call, 1) for _ in range(4))


def on_one_thread_and_more(case: Case, call: Call, seconds: float, threads: int) -> tuple[list[float], list[float]]:
    """Rounds of graphjit on one thread, and on all."""
    xp = FRAMEWORKS["graphjit"].load()
    alone = xp.alone(partial(case.loss, xp), case.params, case.data)
    times = in_turns({"alone": alone, "together": call}, seconds, threads)
    return times["alone"], times["together"]


# ---- in the process that starts it


def run(program: str, frameworks: list[str], seconds: float, threads: int, cache: Path, limit: float) -> Outcome:
    """Measure a program in a fresh process."""
    job = {"program": program, "frameworks": frameworks, "seconds": seconds, "threads": threads}
    found = start("benchmarks.programs.measure", [json.dumps(job)], threads, cache, limit)
    if "status" in found:  # no framework said anything
        return Outcome(program, {name: Entry(found["status"], found["detail"]) for name in frameworks})
    return Outcome.from_json(found)


if __name__ == "__main__":
    main(sys.argv[1])
