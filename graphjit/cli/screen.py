"""What the commands print and write: lines, tables, progress, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from graphjit.errors import GraphjitError
from graphjit.training.callbacks import Callback, State

BAR_EVERY = 16  # steps between two updates of the bar, whose drawing takes as long as some steps


def screen(json_path: str | None = None) -> Console:
    """Where people read: the standard output, or the standard error if JSON goes to the former."""
    console = Console(stderr=json_path == "-", highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a file or a pipe: tables need not be narrow
        console.width = max(console.width, 160)
    return console


def write_results(json_path: str | None, content: Any, console: Console) -> None:
    """Write JSON where ``--json`` says."""
    text = json.dumps(content, indent=2)
    if json_path == "-":
        print(text)
    elif json_path is not None:
        Path(json_path).write_text(text + "\n", encoding="utf-8")
        console.print(f"written to {json_path}")


def draw_if_possible(console: Console, picture: Callable[[], list[Path]]) -> None:
    """Draw; without matplotlib say so in one line."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        console.print('no pictures: matplotlib is not installed (pip install "graphjit[plots]")', markup=False)
        return
    paths = picture()
    if len(paths) == 1:
        console.print(f"picture       {paths[0]}")
    elif paths:
        console.print(f"pictures      {paths[0].parent}: {', '.join(p.stem for p in paths)}")


def plain_table(*heads: str) -> Table:
    """A table without lines, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def microseconds(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def error_text(error: GraphjitError) -> str:
    """What was wrong and what to do, without the line of Python that people at a shell did not write."""
    return "\n".join(["Error: " + error.problem, *("  " + line for line in error.detail),
                      *(["  " + error.hint] if error.hint else [])])


@contextmanager
def downloading(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for each file that is fetched, told of by calls of what it gives; only on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with _shown(Progress(*columns, console=console, transient=True)) as progress:
        bars: dict[str, TaskID] = {}

        def told(file: str, done: int, total: int | None) -> None:
            if file not in bars:
                bars[file] = progress.add_task(file)
                console.print(f"fetching {file}")
            progress.update(bars[file], completed=done, total=total)
        yield told


@contextmanager
def counting(console: Console, what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar that each call of what it gives moves on by one; only on a terminal."""
    with _shown(_steps(console)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.update(bar, advance=1)


def _steps(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


@contextmanager
def _shown(progress: Progress) -> Iterator[Progress]:
    """Start and stop a progress display on a terminal; elsewhere it stays silent."""
    if not progress.console.is_terminal:
        yield progress
        return
    with progress:
        yield progress


@contextmanager
def epoch_lines(console: Console) -> Iterator[Callback]:
    """A callback that prints a line for each epoch and, on a terminal, shows a bar of the steps below them."""
    console.print(f"{'epoch':>5}  {'loss':>8}  {'val loss':>8}  {'val acc':>8}  {'us/step':>8}")
    with _shown(_steps(console)) as progress:
        yield _EpochLines(progress)


class _EpochLines(Callback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bar = progress.add_task("compiling", total=None)

    def on_step(self, state: State) -> None:
        if state.step % BAR_EVERY == 0:
            total = state.steps * state.epochs if state.steps else None
            self.progress.update(self.bar, description="training", completed=state.step, total=total)

    def on_epoch_end(self, state: State) -> None:
        last = {name: values[-1] for name, values in state.history.items() if values}
        self.progress.console.print(
            f"{state.epoch:>5}  {last['train_loss']:>8.4f}  {last['val_loss']:>8.4f}  {last['val_accuracy']:>7.2%}  "
            f"{last['step_seconds'] * 1e6:>8.1f}")
