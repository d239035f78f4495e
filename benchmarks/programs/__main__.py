"""``python -m benchmarks.programs``: programs that users write, in graphjit, JAX and PyTorch. See ../README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.__main__ import names
from benchmarks.programs import PROGRAMS
from benchmarks.programs.frameworks import choose
from benchmarks.programs.measure import run
from benchmarks.programs.outcome import OWN, Outcome, header, notes, row
from benchmarks.report import table


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.list:
        listing()
        return 0
    try:
        programs = [PROGRAMS[name].name for name in names(args.only)] or list(PROGRAMS)
        frameworks = [framework.name for framework in choose(names(args.peers))]
    except KeyError as e:
        print(f"there is no program or framework named {e}; see --list", file=sys.stderr)
        return 2
    print(table(header(frameworks, args.threads), []), flush=True)
    outcomes: list[Outcome] = []
    for name in programs:
        with tempfile.TemporaryDirectory(prefix="graphjit-programs-") as folder:
            outcomes.append(run(name, frameworks, args.seconds, args.threads, Path(folder), args.limit))
        print("| " + " | ".join(row(outcomes[-1], args.threads)) + " |", flush=True)
    print("\n" + "\n".join(notes(outcomes)))
    if args.json:
        args.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n", encoding="utf-8")
    return 1 if any(o.entries[OWN].status not in ("ok", "missing") for o in outcomes if OWN in o.entries) else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m benchmarks.programs", description="Programs that users write.")
    p.add_argument("--only", metavar="NAMES", help="programs, by commas")
    p.add_argument("--list", action="store_true", help="programs and what they are")
    p.add_argument("--peers", metavar="NAMES", help="frameworks, by commas: graphjit,jax,torch")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores (default 1)")
    p.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of timing a program (default 2)")
    p.add_argument("--limit", type=float, default=300.0, metavar="S", help="seconds a process may take")
    p.add_argument("--json", type=Path, metavar="PATH", help="write what was measured here")
    return p


def listing() -> None:
    for program in PROGRAMS.values():
        print(f"{program.name:12} {program.text}")


if __name__ == "__main__":
    sys.exit(main())
