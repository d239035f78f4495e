"""A bar that moves, and a line for each epoch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from graphjit.training.callbacks import Callback, State

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 0.1  # seconds between two updates of the bar, whose drawing takes as long as some steps


class ProgressBar(Callback):
    """On the error stream: a line for each epoch, and on a terminal a bar below them.

    Uses rich, imported when the training begins.
    """

    _bar: Progress
    _task: TaskID

    def on_begin(self, state: State) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False, markup=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   TextColumn("loss {task.fields[loss]:.4g}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._before = state.epoch
        left = state.epochs - state.epoch
        self._task = self._bar.add_task("training", total=None if state.steps is None else left * state.steps, loss=0.0)
        self._shown = time.monotonic()
        self._headed = False
        self._bar.start()

    def on_step(self, state: State) -> None:
        now = time.monotonic()
        if now - self._shown > EVERY:
            self._shown = now
            self._bar.update(self._task, completed=state.step, loss=state.loss)

    def on_epoch_end(self, state: State) -> None:
        row = {name: values[-1] for name, values in state.history.items() if name not in ("seconds", "step_seconds")}
        row["ms/step"] = state.history["step_seconds"][-1] * 1e3
        widths = {name: max(len(name), 9) for name in row}
        if not self._headed:
            self._headed = True
            self._print("epoch  " + "  ".join(f"{name:>{widths[name]}}" for name in row))
        self._print(f"{state.epoch:>5}  " + "  ".join(f"{value:>{widths[name]}.4g}" for name, value in row.items()))
        total = (state.epochs - self._before) * state.step // (state.epoch - self._before)
        self._bar.update(self._task, completed=state.step, total=total, loss=state.loss)

    def on_end(self, state: State) -> None:
        self._bar.stop()
        if state.history.stopped:
            self._print(f"stopped: {state.history.stopped}")

    def _print(self, line: str) -> None:
        self._bar.console.print(line, soft_wrap=True)
