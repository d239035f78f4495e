"""``python -m benchmarks``: graphjit beside every installed peer on every workload. See README.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure, report
from benchmarks.apart import Patience
from benchmarks.kinds import Workload
from benchmarks.peers import PEERS, Peer, choose
from benchmarks.results import Machine, Record, Run, mark_wrong
from benchmarks.workloads import TABLE, WORKLOADS

HERE = Path(__file__).resolve().parent
QUIET = 0.08  # share of all cores that may be at work before a run that is to be published


@dataclass(frozen=True)
class Options:
    threads: int
    budget: float  # seconds of timing a process
    everything: bool
    limit: float  # seconds a process may take
    patience: float = 0.0  # seconds to wait for quiet moments, in all


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.list:
        listing()
        return 0
    try:
        workloads = [WORKLOADS[name] for name in names(args.only)] or list(WORKLOADS.values())
        peers = choose(names(args.peers))
    except KeyError as e:
        print(f"there is no workload or peer named {e}; see --list", file=sys.stderr)
        return 2
    busy = busy_share()
    if busy > QUIET:
        print(f"warning: the machine is not quiet, {busy:.0%} of it is at work: the figures will say little")
    options = Options(args.threads, 0.05 if args.quick else args.budget, args.all or bool(args.peers), args.limit,
                      args.patience)
    run = measure_all(workloads, peers, options, quiet=busy <= QUIET)
    print("\n" + report.markdown(run))
    if args.json:
        args.json.write_text(json.dumps(run.to_json(), indent=1) + "\n", encoding="utf-8")
    whole = not (args.quick or args.only or args.peers)
    folder = args.out or (HERE if whole and run.machine.quiet else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        print("wrote", *(str(path) for path in report.publish(run, folder)))
    elif whole:
        print("nothing written: the machine was not quiet; --out DIR writes all the same")
    return 1 if any(r.status in ("wrong", "error") and r.peer in ("graphjit", "eager") for r in run.records) else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m benchmarks", description="graphjit beside every installed peer.")
    p.add_argument("--only", metavar="NAMES", help="workloads, by commas")
    p.add_argument("--peers", metavar="NAMES", help="frameworks or forms of them, by commas: graphjit,eager,jax")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores (default 1)")
    p.add_argument("--budget", type=float, default=0.6, metavar="S", help="seconds of timing a process")
    p.add_argument("--limit", type=float, default=150.0, metavar="S", help="seconds a process may take")
    p.add_argument("--patience", type=float, default=0.0, metavar="S",
                   help="seconds to wait, in all, for moments in which nobody else computes on these cores")
    p.add_argument("--quick", action="store_true", help="few steps: whether all is right, not how fast it is")
    p.add_argument("--all", action="store_true", help="peers that compile for long run every workload too")
    p.add_argument("--json", type=Path, metavar="PATH", help="write what was measured here too")
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="where results.md, results.json and chart.png go (a whole run: benchmarks/)")
    p.add_argument("--list", action="store_true", help="workloads and peers")
    return p


def names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def listing() -> None:
    print("workloads")
    for w in WORKLOADS.values():
        print(f"  {w.name:16} {w.text}" + ("" if w in TABLE else "   (other)"))
    print("peers")
    for peer in PEERS.values():
        print(f"  {peer.name:16} {peer.title}" + ("" if peer.installed else "   (not installed)"))


# ---- measuring


def measure_all(workloads: Sequence[Workload], peers: Sequence[Peer], options: Options, quiet: bool) -> Run:
    begin, records = time.perf_counter(), []
    patience = Patience(measure.cores(options.threads), options.patience)
    machine = look_at_machine(options, quiet, patience)
    for w in workloads:
        with tempfile.TemporaryDirectory(prefix="graphjit-benchmarks-") as folder:
            found = measure_workload(w, peers, options, Path(folder), patience)
        mark_wrong(found)
        for r in found:
            print(line(r), flush=True)
        records += found
    machine = machine.at_its_best(look_at_machine(options, quiet, patience))
    machine.seconds = time.perf_counter() - begin
    return Run(machine, records)


def measure_workload(w: Workload, peers: Sequence[Peer], options: Options, folder: Path,
                     patience: Patience) -> list[Record]:
    """All peers on one workload: each in a process with an empty cache, then those that keep one again, graphjit last.

    The clock of a machine drifts: graphjit is timed before and after the others.
    """
    records = {peer: Record(w.name, peer.name) for peer in peers if peer.takes(w, everything=True)}
    for peer, record in records.items():
        if not peer.installed:
            record.status = "missing"
        elif not peer.takes(w, options.everything):
            record.status, record.detail = "skipped", "compiles for long: --all"
        else:
            add(record, one(w, peer, options, folder, patience, first=True), first=True)
    for peer, record in reversed(records.items()):
        if peer.cached and not peer.slow and record.status == "ok":
            add(record, one(w, peer, options, folder, patience, first=False), first=False)
    return list(records.values())


def one(w: Workload, peer: Peer, options: Options, folder: Path, patience: Patience, first: bool) -> dict[str, Any]:
    patience.wait()
    job = {"workload": w.name, "peer": peer.name, "budget": options.budget, "threads": options.threads, "first": first,
           "best": patience.best}
    return measure.run(job, folder / peer.name, options.limit)


def add(record: Record, found: dict[str, Any], first: bool) -> None:
    """Take in what a process found."""
    record.status, record.detail = found.get("status", "ok"), found.get("detail", "")
    if record.status != "ok":
        return
    record.rounds += found["rounds"]
    record.peak, record.imported = found["peak"], found["imported"]
    record.busy = min(found["busy"], record.busy or 1e9)
    record.kept = min(found["kept"], record.kept)
    if first:
        record.numbers, record.cold, record.resized = found["numbers"], found["first"], found.get("resized")
    else:
        record.warm, record.turns = found["first"], found.get("turns", [])


def line(r: Record) -> str:
    """Progress."""
    if r.status != "ok":
        return f"{r.workload:15} {PEERS[r.peer].title:28} {r.status} {r.detail}"
    firsts = f"first call {report.duration(r.cold)}" + (f", warm {report.duration(r.warm)}" if r.warm else "")
    return f"{r.workload:15} {PEERS[r.peer].title:28} {report.duration(r.seconds):>8}   {firsts}"


# ---- the machine


def look_at_machine(options: Options, quiet: bool, patience: Patience) -> Machine:
    patience.wait()
    with tempfile.TemporaryDirectory() as folder:
        found = measure.start("benchmarks.roofline", [str(options.threads)], options.threads, Path(folder), 60.0)
    if "status" in found:
        raise RuntimeError(f"the roofline could not be measured: {found['detail']}")
    versions = {}
    for package in ("graphjit", "numpy", "numba", *(peer.package for peer in PEERS.values())):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a peer that is not installed, or graphjit from a checkout
            continue
    return Machine(processor(), os.cpu_count() or 1, options.threads, found["flops"],
                   {int(size): rate for size, rate in found["bandwidth"].items()}, versions, quiet)


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(text.split(":", 1)[1].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def busy_share(seconds: float = 1.0) -> float:
    """Share of all cores that is at work now; 0 where it cannot be known."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]  # of the bench extra
    except ImportError:
        return 0.0
    return float(psutil.cpu_percent(seconds)) / 100


if __name__ == "__main__":
    sys.exit(main())
