"""The command line: ``graphjit train``, ``graphjit doctor``."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from graphjit import __version__
from graphjit.data import SOURCES
from graphjit.errors import GraphjitError
from graphjit.training import Epoch, Result, Settings
from graphjit.training import train as run_training

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Differentiate and train on the CPU.")
console = Console(highlight=False)
DEFAULT = Settings()
BAR_EVERY = 16  # steps between two updates of the bar, whose drawing takes as long as some steps


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is not a list of layer widths such as 128,64")
    return tuple(int(part) for part in parts)


def _hidden(text: str) -> str:
    _widths(text)
    return text


def _dataset(name: str) -> str:
    if name not in SOURCES:
        raise typer.BadParameter(f"there is no data set {name!r}; there are {', '.join(SOURCES)}")
    return name


def _rate(lr: float) -> float:
    if not 0 < lr < float("inf"):
        raise typer.BadParameter(f"{lr} is not a positive number")
    return lr


def _writable(path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {path.parent}")
    return path


@app.command()
def train(
    dataset: Annotated[str, typer.Option(callback=_dataset, metavar="NAME",
                                         help=f"One of {', '.join(SOURCES)}.")] = DEFAULT.dataset,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training samples.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(min=2, help="Samples in a step.")] = DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(callback=_rate, help="Learning rate of Adam.")] = DEFAULT.lr,
    hidden: Annotated[str, typer.Option(callback=_hidden, help="Widths of the hidden layers.")] = "128,64",
    dropout: Annotated[float, typer.Option(min=0.0, max=0.99,
                                           help="Share of activations dropped.")] = DEFAULT.dropout,
    seed: Annotated[int, typer.Option(min=0, help="Repeats everything.")] = DEFAULT.seed,
    eager: Annotated[bool, typer.Option("--eager", help="Run the very same code uncompiled.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the kernels.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", callback=_writable, dir_okay=False,
                                                   metavar="PATH", help="Write the results there.")] = None,
) -> None:
    """Train a classifier: an MLP with BatchNorm1d and Dropout, the whole step compiled."""
    settings = Settings(dataset, epochs, batch_size, lr, _widths(hidden), dropout, seed, eager)
    if threads is not None:
        from graphjit.runtime.threads import set_num_threads
        set_num_threads(threads)
    result = _with_bar(settings)
    _summary(result)
    if json_path is not None:
        json_path.write_text(json.dumps(result.asdict(), indent=2) + "\n")
        console.print(f"written to {json_path}")


def _with_bar(settings: Settings) -> Result:
    """Train with a line for each epoch and, on a terminal, a bar below them."""
    mode = "eager" if settings.eager else "compiled"
    console.print(f"[bold]{settings.dataset}[/]  {mode}, seed {settings.seed}")
    console.print(f"{'epoch':>5}  {'loss':>8}  {'val acc':>8}  {'us/step':>8}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("compiling", total=None)
        steps = 0

        def on_step() -> None:
            nonlocal steps
            steps += 1
            if steps % BAR_EVERY == 0:
                progress.update(bar, completed=steps)

        def on_epoch(epoch: Epoch) -> None:
            total = settings.epochs * steps // epoch.number
            progress.update(bar, description="training", completed=steps, total=total)
            progress.console.print(f"{epoch.number:>5}  {epoch.loss:>8.4f}  {epoch.accuracy:>7.2%}  "
                                   f"{epoch.step_seconds * 1e6:>8.1f}")

        return run_training(settings, on_step, on_epoch)


def _summary(result: Result) -> None:
    training, validation, test = result.samples
    console.print(f"samples       {training} training, {validation} validation, {test} test")
    console.print(f"parameters    {result.parameters}")
    if not result.settings.eager:
        console.print(f"compile time  {result.compile_seconds:.2f} s: {result.traces} traces, "
                      f"{result.kernels} kernels compiled")
    console.print(f"time per step {result.epochs[-1].step_seconds * 1e6:.1f} us, "
                  f"all in all {result.seconds:.1f} s")
    console.print(f"[bold]test accuracy {result.test_accuracy:.2%}[/]")


@app.command()
def doctor() -> None:
    """Show versions, what the CPU can do, the kernel cache and the threads."""
    from graphjit.kernels.target import target
    from graphjit.runtime import cache
    from graphjit.runtime.machine import target_cpu
    from graphjit.runtime.threads import get_num_threads

    name, features = target_cpu()
    machine = target()
    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512bw", "neon", "sve")
    table = Table(show_header=False, box=None)
    table.add_row("graphjit", __version__)
    for package in ("numpy", "numba", "llvmlite", "scipy", "scikit-learn"):
        table.add_row(package, _version(package))
    table.add_row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    table.add_row("cpu", f"{name}: " + " ".join(f for f in wanted if f"+{f}" in features.split(",")))
    table.add_row("vector width", f"{machine.vector * 8} bits, {machine.lanes(4)} float32")
    table.add_row("data caches", f"{machine.l1 // 1024} kB, {machine.l2 // 1024} kB")
    folder = cache.directory()
    if folder is None:
        table.add_row("kernel cache", "off")
    else:
        # a batch of kernels is one file under several names: hard links count once
        found = [path.stat() for path in folder.glob(f"*{cache.SUFFIX}")]
        size = sum({info.st_ino: info.st_size for info in found}.values())
        table.add_row("kernel cache", f"{folder}: {len(found)} kernels, {size / 1e6:.1f} MB")
    table.add_row("threads", str(get_num_threads()))
    console.print(table)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="graphjit")
    except GraphjitError as error:
        Console(stderr=True, highlight=False, markup=False).print(f"Error: {error}")
        sys.exit(1)
