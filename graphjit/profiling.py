"""``Profile``: how long each kernel of a compiled function takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.codegen.call import HostCall, KernelCall, Step
from graphjit.errors import TraceError, Where
from graphjit.runtime.compiler import IRKernel
from graphjit.runtime.program import Program
from graphjit.runtime.replay import replay
from graphjit.runtime.roofline import bound
from graphjit.signature import Signature
from graphjit.tables import amount, microseconds, place, size, table
from graphjit.tape import state
from graphjit.types import DType

if TYPE_CHECKING:
    from graphjit.jit import CompiledFunction

BUDGET = 0.3  # seconds that measuring takes, about


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One row of a program and what it took.

    Attributes:
        number: its place in the program. title, extent: what it is and how far its outermost loop runs.
        flops, nbytes: estimates of its work and of the memory it must touch.
        us: microseconds of one run, the best of several bursts. share: of the sum over all rows.
        calls: how often it was run to find out.
        bound_us: what the roofline of one core allows. where: the user's lines.
    """

    number: int
    title: str
    extent: int
    flops: int
    nbytes: int
    us: float
    share: float
    calls: int
    bound_us: float
    where: tuple[Where, ...]

    @property
    def gflops(self) -> float:
        """Operations per nanosecond."""
        return self.flops / self.us / 1e3 if self.us else 0.0

    @property
    def gbytes(self) -> float:
        """Bytes per nanosecond."""
        return self.nbytes / self.us / 1e3 if self.us else 0.0


class Profile:
    """The time of each kernel of a compiled function. It prints as a table.

    Attributes:
        name: of the function.
        rows: a ``KernelTime`` for each kernel, in the order they run.
        step_us: microseconds of all kernels run one after the other, without Python's part of the call.
        threads: on how many kernels could run.

    >>> import graphjit as gj
    >>> f = gj.compile(lambda x: (gj.exp(x) * 2).sum())
    >>> report = f.profile(np.ones(1000))
    >>> len(report.rows), report.rows[0].us > 0
    (1, True)
    """

    def __init__(self, name: str, rows: Sequence[KernelTime], step_us: float, threads: int) -> None:
        self.name = name
        self.rows = tuple(rows)
        self.step_us = step_us
        self.threads = threads

    @property
    def bound_us(self) -> float:
        """What the roofline of one core allows for all kernels."""
        return sum(r.bound_us for r in self.rows)

    def __str__(self) -> str:
        head = [f"{self.name}   {len(self.rows)} kernels, {self.step_us:.1f} us on {threads_text(self.threads)}; "
                f"roofline of one core {self.bound_us:.1f} us", ""]
        columns = ["#", "kernel", "extent", "flops", "bytes", "us", "share", "GF/s", "GB/s", "calls", "from"]
        cells = [[str(r.number), r.title, str(r.extent), amount(r.flops), size(r.nbytes), microseconds(r.us),
                  f"{100 * r.share:.0f} %", f"{r.gflops:.1f}", f"{r.gbytes:.1f}", str(r.calls), place(r.where)]
                 for r in self.rows]
        return "\n".join(head + table(columns, cells, left=("kernel", "from")))

    __repr__ = __str__

    def chrome_trace(self) -> dict[str, Any]:
        """One step as a trace in the Chrome trace event format, for chrome://tracing or ui.perfetto.dev."""
        events: list[dict[str, Any]] = []
        at = 0.0
        for r in self.rows:
            events.append({"name": r.title, "cat": "kernel", "ph": "X", "pid": 0, "tid": 0, "ts": at, "dur": r.us,
                           "args": {"number": r.number, "extent": r.extent, "flops": r.flops, "bytes": r.nbytes,
                                    "GF/s": round(r.gflops, 3), "GB/s": round(r.gbytes, 3), "from": place(r.where)}})
            at += r.us
        names = [{"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": self.name}}]
        return {"traceEvents": [*names, *events], "displayTimeUnit": "ns"}

    def save(self, path: str | Path) -> None:
        """Write ``chrome_trace()`` to a JSON file."""
        Path(path).write_text(json.dumps(self.chrome_trace()), encoding="utf-8")


def profile(compiled: CompiledFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Profile:
    """Run a compiled function once, then time each of its kernels on the same arguments.

    State moves on by that one call only: what the timed runs write is put back.

    Raises:
        TraceError: in eager mode, or inside a compiled function.
    """
    if state.trace is not None or state.eager:
        raise TraceError("profile() has nothing to measure here: the function runs uncompiled",
                         hint="Leave gj.eager() and unset GRAPHJIT_EAGER.")
    compiled(*args, **kwargs)
    ran = compiled.latest
    program = ran.program
    budget = BUDGET / (len(program.steps) + 1)
    measured: list[tuple[Step, float, int]] = []
    with replay(program, Signature(args, kwargs).arrays, [s.held for s in ran.writes]) as run:
        measured.extend(run.steps(budget))
        step = run.whole(budget)
    total = sum(seconds for _, seconds, _ in measured) or 1.0
    memory = footprint(program)
    rows = [KernelTime(i, title(s), extent(s), *work(s), 1e6 * seconds, seconds / total, calls,
                       1e6 * bound(*work(s), main_dtype(s), memory, multiplies(s)), s.where)
            for i, (s, seconds, calls) in enumerate(measured)]
    threads = program.threads if program._shares else 1
    ran.measured = Profile(ran.name.rpartition("<locals>.")[2], rows, 1e6 * step, threads)
    return ran.measured


# ---- what a step is

def title(step: Step) -> str:
    return f"{step.title} (NumPy)" if isinstance(step, HostCall) else step.title


def extent(step: Step) -> int:
    return 1 if isinstance(step, HostCall) else int(step.extent)


def work(step: Step) -> tuple[int, int]:
    """Estimates of operations and of bytes touched."""
    if isinstance(step, HostCall):
        return 0, sum(n.type.nbytes for n in (*step.reads, *step.writes))
    return int(step.flops), int(step.nbytes)


def multiplies(step: Step) -> bool:
    """Whether it is a product from the hand-made kernels."""
    return isinstance(step, KernelCall) and isinstance(step.kernel, IRKernel)


def main_dtype(step: Step) -> DType:
    """The dtype of the largest result."""
    return max((n.type for n in step.writes), key=lambda t: t.nbytes).dtype if step.writes else np.dtype(np.float32)


def footprint(program: Program) -> int:
    """Bytes of all memory the program works on."""
    outside = sum(a.nbytes for a in program.fixed.values()) + sum(a.nbytes for a in program.constants.values())
    return program.plan.size + outside + sum(n.type.nbytes for n in (*program.arguments, *program.fresh)
                                             if n not in program.plan.offsets)


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
