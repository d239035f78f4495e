"""What the measurements of programs mean, and their table. All pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.programs.frameworks import FRAMEWORKS
from benchmarks.report import NONE, duration, ratio_text
from benchmarks.results import geometric_mean

OWN = "graphjit"


@dataclass
class Entry:
    """A program in a framework.

    Attributes:
        status: "ok"; "wrong": another value or gradient than the others'; "missing": not installed; "error";
            "timeout".
        detail: of a status other than "ok".
        first: seconds of the first call, nothing compiled before.
        rounds: seconds a call, of each round.
    """

    status: str = "ok"
    detail: str = ""
    first: float | None = None
    rounds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """A call's time; infinite when it was not measured, or the answer was wrong."""
        return float(np.median(self.rounds)) if self.status == "ok" and self.rounds else math.inf


@dataclass
class Outcome:
    """A program in all frameworks.

    Attributes:
        entries: by framework. Their rounds took turns: the first of one was beside the first of each other.
        alone, together: rounds of graphjit on one thread and on all, in turns.
    """

    program: str
    entries: dict[str, Entry]
    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)

    @property
    def best_peer(self) -> str | None:
        """The fastest framework that graphjit is compared with."""
        rivals = {name: e.seconds for name, e in self.entries.items() if name != OWN and math.isfinite(e.seconds)}
        return min(rivals, key=lambda name: rivals[name], default=None)

    @property
    def ratio(self) -> float | None:
        """Time of graphjit over that of the better peer: the median over rounds that were beside each other."""
        peer = self.best_peer
        if peer is None or OWN not in self.entries or not math.isfinite(self.entries[OWN].seconds):
            return None
        return paired(self.entries[OWN].rounds, self.entries[peer].rounds)

    @property
    def speedup(self) -> float | None:
        """How many times as fast graphjit is on all threads as on one."""
        return paired(self.alone, self.together) if self.alone else None

    @staticmethod
    def from_json(data: dict[str, Any]) -> Outcome:
        entries = {name: Entry(**entry) for name, entry in data["entries"].items()}
        return Outcome(data["program"], entries, data["alone"], data["together"])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median ratio of two lists of times that were taken in turns."""
    return float(np.median(np.array(ours) / np.array(theirs)))


# ---- text


def header(frameworks: Sequence[str], threads: int) -> list[str]:
    titles = [FRAMEWORKS[name].title for name in frameworks]
    scaling = ["1 thread", f"{threads} threads", "faster"] if threads > 1 else []
    return ["program", *titles, "ratio", *(f"first call, {title}" for title in titles), *scaling]


def row(outcome: Outcome, threads: int) -> list[str]:
    """A framework's time or what became of it, the ratio to the better peer, first calls in seconds."""
    entries = outcome.entries.values()
    times = [duration(e.seconds) if e.status == "ok" else e.status for e in entries]
    firsts = [NONE if e.first is None else f"{e.first:.2f}" for e in entries]
    cells = [outcome.program, *times, ratio_text(outcome.ratio), *firsts]
    if threads > 1:
        faster = outcome.speedup
        cells += [duration(median(outcome.alone)), duration(median(outcome.together)),
                  NONE if faster is None else f"{faster:.2f}x"]
    return cells


def median(times: Sequence[float]) -> float | None:
    return float(np.median(times)) if times else None


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """The means of the ratios, what is not installed, and what went wrong."""
    lines = []
    ratios = [o.ratio for o in outcomes if o.ratio is not None]
    if ratios:
        lines.append(f"Geometric mean of {len(ratios)} ratios to the better peer: {geometric_mean(ratios):.2f}.")
    speedups = [o.speedup for o in outcomes if o.speedup is not None]
    if speedups:
        lines.append(f"On more threads graphjit is {geometric_mean(speedups):.2f} times as fast as on one.")
    missing = {name for o in outcomes for name, e in o.entries.items() if e.status == "missing"}
    lines += [f"* {FRAMEWORKS[name].title} is not installed" for name in sorted(missing)]
    lines += [f"* {o.program}, {FRAMEWORKS[name].title}: {e.status}: {e.detail}"
              for o in outcomes for name, e in o.entries.items() if e.status not in ("ok", "missing")]
    return lines
