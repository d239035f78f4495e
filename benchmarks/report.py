"""A run as markdown tables and as a bar chart; what `benchmarks/README.md` shows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.results import Record, Run, geometric_mean
from benchmarks.workloads import TABLE, WORKLOADS

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
NONE = "-"
KEPT = 0.1  # of the rounds, or they say little
UNDISTURBED = 0.9  # least share of one core for a figure that can be relied on

# A title and a colour for each family (Okabe and Ito's palette, which colour-blind people can tell apart).
FAMILIES = {"jax": ("JAX jit", "#0072B2"), "torch": ("PyTorch eager", "#D55E00"),
            "torch.compile": ("torch.compile", "#E69F00"), "pytensor": ("PyTensor Numba", "#009E73"),
            "mygrad": ("MyGrad", "#CC79A7"), "numpy": ("NumPy by hand", "#999999")}


# ---- text


def duration(seconds: float | None) -> str:
    """Three digits and a unit: "1.23 us", "278 us", "68.5 ms"."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= size * 0.9995 or unit == "ns":
            return f"{digits(seconds / size)} {unit}"
    raise AssertionError


def digits(value: float) -> str:
    """Three significant digits, and all before the point."""
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{rounded:.{max(0, decimals)}f}"


def ratio_text(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, the first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(record: Record | None, read: Callable[[Record], float | None]) -> str:
    """A figure of a record, or why there is none."""
    if record is None:
        return ""
    if record.status != "ok":
        return record.status
    return duration(read(record))


def summary(run: Run) -> str:
    """graphjit beside the best peer, on each workload."""
    header = ["workload", "graphjit", "best peer", "its time", "ratio", "target", "roofline", "share", "JAX scan of 16"]
    rows = []
    for name in run.workloads:
        best, w = run.best_peer(name), WORKLOADS[name]
        share = run.share(name)
        scan = run.find(name, "jax-scan")
        rows.append([
            name, cell(run.find(name, "graphjit"), lambda r: r.seconds),
            PEERS[best.peer].title if best else NONE, duration(best.seconds if best else None),
            ratio_text(run.ratio(name)), ratio_text(w.target) if w in TABLE else NONE,
            duration(run.machine.roofline(name)) if share is not None else NONE,
            NONE if share is None else f"{100 * share:.0f} %",
            f"({duration(scan.seconds)})" if scan and scan.counts else NONE])
    return table(header, rows)


def means(run: Run) -> str:
    """Geometric means of the ratios, in a sentence."""
    def over(names: Iterable[str]) -> str:
        return ratio_text(geometric_mean(r for r in map(run.ratio, names) if r is not None))

    main = [name for name in run.workloads if WORKLOADS[name] in TABLE]
    other = [name for name in run.workloads if WORKLOADS[name] not in TABLE]
    parts = [f"{len(names)} {what}: {over(names)}" for names, what in
             ((main, "workloads of the table"), (other, "others")) if names]
    return "Geometric mean of the ratios, " + "; ".join(parts) + "."


def peers_of(run: Run) -> list[str]:
    measured = {r.peer for r in run.records if r.status not in ("missing", "unsupported", "skipped")}
    return [name for name in PEERS if name in measured]


def matrix(run: Run, read: Callable[[Record], float | None], names: Sequence[str]) -> str:
    """A figure for each workload and framework."""
    rows = [[name, *(cell(run.find(name, peer), read) for peer in names)] for name in run.workloads]
    return table(["workload", *(PEERS[name].title for name in names)], rows)


def scaling(run: Run) -> str:
    """How much faster graphjit is than on one thread."""
    rows = []
    for name in run.workloads:
        own = run.find(name, "graphjit")
        if own is not None and own.counts and own.turns:
            one, many = own.turns
            rows.append([name, duration(one), duration(many), f"{one / many:.2f}x"])
    return table(["workload", "1 thread", f"{run.machine.threads} threads", "faster"], rows)


def first_calls(run: Run) -> str:
    """Seconds of first calls: cold, warm, with another batch size."""
    names = [name for name in peers_of(run) if PEERS[name].cached]
    header = ["workload", *(f"{PEERS[name].title} {what}" for name in names for what in _kinds(name))]
    rows = []
    for workload in run.workloads:
        records = [run.find(workload, name) for name in names]
        rows.append([workload, *(cell(record, read) for name, record in zip(names, records, strict=True)
                                 for read in _kinds(name).values())])
    return table(header, rows)


def _kinds(peer: str) -> dict[str, Callable[[Record], float | None]]:
    kinds: dict[str, Callable[[Record], float | None]] = {"cold": lambda r: r.cold}
    if not PEERS[peer].slow:
        kinds |= {"warm": lambda r: r.warm, "new size": lambda r: r.resized}
    return kinds


def megabytes(run: Run) -> str:
    """Peak memory of each process."""
    names = peers_of(run)
    rows = []
    for workload in run.workloads:
        found = [run.find(workload, name) for name in names]
        rows.append([workload, *(f"{r.peak / 2**20:.0f}" if r and r.peak else "" for r in found)])
    return table(["workload", *(PEERS[name].title for name in names)], rows)


def troubles(run: Run) -> list[str]:
    """What was not measured or is not right, a line each."""
    missing = sorted({PEERS[r.peer].package for r in run.records if r.status == "missing"})
    lines = [f"{package} is not installed" for package in missing]
    lines += [f"{r.workload}, {PEERS[r.peer].title}: {r.status}: {r.detail}" for r in run.records
              if r.status in ("wrong", "timeout", "error")]
    disturbed = [f"{r.workload} in {PEERS[r.peer].title} ({r.busy:.0%})" for r in run.records
                 if r.counts and r.busy is not None and r.busy < UNDISTURBED]
    if disturbed and run.machine.threads == 1:
        lines.append("something else ran, and this share of the core was left: " + ", ".join(disturbed))
    apart = [f"{r.workload} in {PEERS[r.peer].title} ({r.kept:.0%})" for r in run.records if r.counts and r.kept < KEPT]
    if apart:
        lines.append("few rounds, this share, had cores of their own: " + ", ".join(apart))
    return lines


def heading(run: Run) -> str:
    m = run.machine
    peaks = ", ".join(f"{rate / 1e9:.0f} GF/s {dtype}" for dtype, rate in m.flops.items())
    copies = ", ".join(f"{run.machine.bytes_per_second(size) / 1e9:.0f} GB/s for {label}" for size, label in
                       ((1 << 18, "256 kB"), (1 << 21, "2 MB"), (1 << 27, "128 MB")))
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    noise = "" if m.quiet else " **The machine was not quiet: these figures say little.**"
    return (f"{m.threads} of {m.cores} cores of {m.name}; measured peak {peaks}; copying {copies}. {versions}. "
            f"Took {m.seconds / 60:.0f} minutes.{noise}")


def markdown(run: Run) -> str:
    """The whole report."""
    threads = f"{run.machine.threads} thread" + "s" * (run.machine.threads > 1)
    parts = [
        f"## {threads.capitalize()}", heading(run), means(run), summary(run),
        *(["### graphjit on one thread and on all", "In turns, in one process.", scaling(run)]
          if run.machine.threads > 1 else []),
        "### Time of a step", matrix(run, lambda r: r.seconds, peers_of(run)),
        "### First calls", "Beyond import; warm: a second process with what the first left on disk.", first_calls(run),
        "### Peak memory of the process, MB", megabytes(run)]
    found = troubles(run)
    if found:
        parts += ["### Not measured, or wrong", "\n".join(f"* {line}" for line in found)]
    return "\n\n".join(parts) + "\n"


# ---- chart


def bars(run: Run) -> dict[str, list[float]]:
    """For each family, its best form's time over graphjit's on each workload; nan where none."""
    heights: dict[str, list[float]] = {}
    for family in FAMILIES:
        forms = [p.name for p in PEERS.values() if p.family == family and p.contest]
        row = []
        for workload in run.workloads:
            own = run.find(workload, "graphjit")
            records = [run.find(workload, form) for form in forms]
            times = [r.seconds for r in records if r is not None and r.counts]
            row.append(min(times) / own.seconds if times and own is not None and own.counts else math.nan)
        if not all(map(math.isnan, row)):
            heights[family] = row
    return heights


def chart(run: Run, path: Path) -> None:
    """Bars of how many times longer each framework takes than graphjit, on a logarithmic scale."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    heights, names = bars(run), run.workloads
    drawn = [h for row in heights.values() for h in row if h > 0]
    low, high = min([0.8, *drawn]) / 1.1, max([2.0, *drawn]) * 1.1
    ticks = [m * 10.0**e for e in range(-2, 5) for m in (1, 2, 5)]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(max(8.0, 1.5 + 0.62 * len(names)), 4.4), layout="constrained")
        axes = figure.subplots()
        width = 0.84 / max(len(heights), 1)
        for k, (family, row) in enumerate(heights.items()):
            title, colour = FAMILIES[family]
            places = [i - 0.42 + (k + 0.5) * width for i in range(len(names))]
            axes.bar(places, [h - 1 for h in row], width, bottom=1, color=colour, label=title)
        axes.axhline(1, color="black", linewidth=1.2)
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel("time of a step, graphjit = 1")
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
        threads = run.machine.threads
        axes.set_title(f"How many times longer than graphjit, {threads} thread{'s' * (threads > 1)}", loc="left")
        figure.legend(loc="outside lower center", ncols=max(len(heights), 1), frameon=False)
        figure.savefig(path, dpi=150)


# ---- files


def publish(run: Run, folder: Path) -> list[Path]:
    """Write results.json, results.md, a chart for each number of threads, and the table into README.md.

    A run replaces the earlier one on as many threads; the other stays.
    """
    data_path = folder / "results.json"
    data: dict[str, Any] = json.loads(data_path.read_text(encoding="utf-8")) if data_path.exists() else {}
    data[str(run.machine.threads)] = run.to_json()
    runs = [Run.from_json(data[key]) for key in sorted(data, key=int)]
    data_path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text_path = folder / "results.md"
    intro = "# Results of `python -m benchmarks`\n\nRatios are graphjit's time over that of the best peer."
    sections = [intro, *map(markdown, runs)]
    text_path.write_text("\n\n".join(sections), encoding="utf-8")
    chart_path = folder / chart_name(run.machine.threads)
    chart(run, chart_path)
    readme = folder / "README.md"
    if readme.exists():
        readme.write_text(shown(readme.read_text(encoding="utf-8"), runs), encoding="utf-8")
    return [data_path, text_path, chart_path]


def chart_name(threads: int) -> str:
    return "chart.png" if threads == 1 else f"chart-{threads}.png"


def shown(readme: str, runs: Sequence[Run]) -> str:
    """The text of README.md with the charts and tables between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = []
    for run in runs:
        threads = run.machine.threads
        title = f"### {threads} thread{'s' * (threads > 1)}"
        parts += [title, heading(run), means(run), f"![bars: how many times longer than graphjit each framework takes]"
                  f"({chart_name(threads)})", summary(run)]
    return before + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after
