"""What the measurements mean: agreement of the losses, the best peer, ratios, shares of the roofline. All pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS

TOLERANCE = 1e-3  # relative, between the losses of two frameworks


@dataclass
class Record:
    """One workload in one framework.

    Attributes:
        status: "ok"; "wrong": other numbers than the others'; "missing": not installed; "unsupported"; "skipped":
            compiles too long to be measured here by default; "timeout"; "error".
        detail: of a status other than "ok".
        rounds: seconds a step, quantiles over rounds of steps, of each process.
        numbers: the first losses, or the value and the sums of the gradients.
        cold, warm: seconds of the first call, with an empty cache on disk and in a second process.
        resized: seconds of the first call with another batch size.
        imported: seconds of importing the framework.
        peak: bytes of memory the process used at most.
        turns: seconds a step on one thread and on all, measured in turns in one process.
        busy: processor time over time while measuring; below 1 on one thread, something else was running.
        kept: the share of rounds in which the cores were cores of their own: see ``apart``.
    """

    workload: str
    peer: str
    status: str = "ok"
    detail: str = ""
    rounds: list[float] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    cold: float | None = None
    warm: float | None = None
    resized: float | None = None
    imported: float | None = None
    peak: int | None = None
    turns: list[float] = field(default_factory=list)
    busy: float | None = None
    kept: float = 1.0

    @property
    def seconds(self) -> float:
        """A step's time: the median over all rounds; infinite when it was not measured."""
        return float(np.median(self.rounds)) if self.rounds else math.inf

    @property
    def counts(self) -> bool:
        return self.status == "ok" and bool(self.rounds)


@dataclass
class Machine:
    """What this machine can do at most, on the threads of the run.

    Attributes:
        flops: multiplications and additions a second, by dtype and, after that, what does them.
        bandwidth: bytes read and written a second by copying, by the bytes of both sides together.
    """

    name: str
    cores: int
    threads: int
    flops: dict[str, float]
    bandwidth: dict[int, float]
    versions: dict[str, str] = field(default_factory=dict)
    quiet: bool = False
    seconds: float = 0.0  # that the whole run took

    def at_its_best(self, other: Machine) -> Machine:
        """The same machine, looked at twice: what it does in a quiet moment is what it can do."""
        flops = {name: max(rate, other.flops[name]) for name, rate in self.flops.items()}
        bandwidth = {size: max(rate, other.bandwidth[size]) for size, rate in self.bandwidth.items()}
        return replace(self, flops=flops, bandwidth=bandwidth)

    def bytes_per_second(self, nbytes: int) -> float:
        """Bandwidth for a working set of that size: of the nearest measured one."""
        return self.bandwidth[min(self.bandwidth, key=lambda size: abs(math.log(size / max(nbytes, 1))))]

    def roofline(self, workload: str) -> float:
        """Seconds that a step takes at least: its arithmetic at the peak, then its unavoidable traffic."""
        w = WORKLOADS[workload]
        fastest = max(rate for name, rate in self.flops.items() if name.startswith(w.dtype))
        return w.flops / fastest + w.bytes / self.bytes_per_second(w.bytes)


@dataclass
class Run:
    """All that one call of ``python -m benchmarks`` measured."""

    machine: Machine
    records: list[Record]

    @property
    def workloads(self) -> list[str]:
        """Those measured, in the order of the table."""
        measured = {r.workload for r in self.records}
        return [name for name in WORKLOADS if name in measured]

    def find(self, workload: str, peer: str) -> Record | None:
        return next((r for r in self.records if (r.workload, r.peer) == (workload, peer)), None)

    def best_peer(self, workload: str) -> Record | None:
        """The fastest of the frameworks that graphjit is compared with, among those whose losses are right."""
        rivals = [r for r in self.records if r.workload == workload and PEERS[r.peer].contest and r.counts]
        return min(rivals, key=lambda r: r.seconds, default=None)

    def ratio(self, workload: str, peer: str = "graphjit") -> float | None:
        """Time of graphjit, or of another one, over that of the best peer."""
        own, best = self.find(workload, peer), self.best_peer(workload)
        if own is None or best is None or not own.counts:
            return None
        return own.seconds / best.seconds

    def share(self, workload: str) -> float | None:
        """Share of the roofline that graphjit reaches; None where there is next to nothing to do."""
        own = self.find(workload, "graphjit")
        w = WORKLOADS[workload]
        if own is None or not own.counts or w.flops + w.bytes < 1000:
            return None
        return self.machine.roofline(workload) / own.seconds

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Run:
        machine = dict(data["machine"])
        machine["bandwidth"] = {int(size): rate for size, rate in machine["bandwidth"].items()}
        return Run(Machine(**machine), [Record(**r) for r in data["records"]])


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean of the logarithms; nan of nothing."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def mark_wrong(records: Sequence[Record]) -> None:
    """Set the status of those of one workload whose numbers are not those of the others.

    What is right is the median of all frameworks, number by number.
    """
    judged = [r for r in records if r.status == "ok" and r.numbers]
    finite = [r.numbers for r in judged if np.isfinite(r.numbers).all()]
    right = np.median(finite, axis=0) if finite else np.nan
    for r in judged:
        error = float(np.max(np.abs(np.array(r.numbers) - right) / np.maximum(np.abs(right), 1e-6)))
        if not error <= TOLERANCE:  # also nan
            r.status, r.detail = "wrong", f"numbers differ by {error:.1e}: {r.numbers}"
