"""What may happen between steps and epochs: ``Callback``, and the ones that come with the house."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphjit.checkpoint import save_checkpoint
from graphjit.errors import ArgumentError
from graphjit.nn.module import Module
from graphjit.optim import Optimizer
from graphjit.optim.lr_scheduler import LRScheduler
from graphjit.training.history import History, direction
from graphjit.training.steps import Step


@dataclass
class State:
    """A training as its callbacks see it.

    Attributes:
        model, optimizer, scheduler, loaders: what was given to ``fit``; loaders by name.
        epochs: how many there shall be. epoch: the one that runs or has just ended, from 1; 0 before the first.
        history: of the epochs that ended.
        step: steps of this call of ``fit`` so far. steps: in an epoch; None where the loader does not say.
        loss: of the last step.
        train_step, eval_step: what is called with each batch; compiled functions unless eager.
        first_seconds: time of the first step, in which tracing and compiling fall.
        names: of the series that the history will have, as far as they are known beforehand.
        saved: the checkpoint written last.
    """

    model: Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    loaders: Mapping[str, Any]
    epochs: int
    history: History
    train_step: Step
    eval_step: Step
    names: frozenset[str]
    steps: int | None = None
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    first_seconds: float = 0.0
    saved: Path | None = None

    def stop(self, reason: str) -> None:
        """End the training after this epoch; ``history.stopped`` will say why."""
        self.history.stopped = reason

    def save(self, path: str | os.PathLike[str], extra: Any = None) -> Path:
        """Write a checkpoint from which ``fit(..., resume=path)`` goes on after this epoch.

        Raises:
            CheckpointError: the disk refuses.
        """
        stateful = {name: it for name, it in self.loaders.items() if hasattr(it, "state_dict")}
        self.saved = save_checkpoint(path, self.model, self.optimizer, self.scheduler, epoch=self.epoch,
                                     history=self.history, extra=extra, loaders=stateful)
        return self.saved

    def check(self, monitor: str) -> None:
        """Raise now where a series will not be there at the end of the epoch.

        Raises:
            ArgumentError: it will not.
        """
        if monitor not in self.names:
            raise ArgumentError(f"there will be no {monitor!r} to look at",
                                hint=f"There will be {', '.join(sorted(self.names))}. "
                                     "val_... needs a validation loader, loaders=(train, validation).")

    def watched(self, monitor: str) -> list[float]:
        """A series, once an epoch has ended.

        Raises:
            ArgumentError: there is none of this name.
        """
        if monitor not in self.history:
            raise ArgumentError(f"there is no {monitor!r} in the history", hint=f"There are {', '.join(self.history)}.")
        return self.history[monitor]


class Callback:
    """Base of the callbacks: a subclass defines what it needs. They are called in the order in which they are given.

    What a callback must know after a resume it reads from ``state.history``, which is resumed too.

    >>> import numpy as np, graphjit as gj
    >>> from graphjit import training
    >>> class Shout(training.Callback):
    ...     def on_epoch_end(self, state):
    ...         print(f"epoch {state.epoch} of {state.epochs}")
    >>> model = gj.nn.Linear(2, 1)
    >>> batches = [(np.ones((4, 2)), np.ones((4, 1)))]
    >>> opt = gj.optim.SGD(model.parameters(), lr=0.1)
    >>> history = training.fit(model, gj.nn.functional.mse_loss, opt, batches, 2, callbacks=[Shout()])
    epoch 1 of 2
    epoch 2 of 2
    """

    def on_begin(self, state: State) -> None:
        """Before the first epoch, a resumed one too."""

    def on_step(self, state: State) -> None:
        """After each training step."""

    def on_epoch_end(self, state: State) -> None:
        """After the evaluation; the history holds this epoch."""

    def on_end(self, state: State) -> None:
        """At the end, also that by an error or Ctrl-C."""


def overridden(callbacks: list[Callback], name: str) -> list[Callable[[State], None]]:
    """The methods of this name that do something."""
    return [getattr(c, name) for c in callbacks if getattr(type(c), name, None) is not getattr(Callback, name)]


class EarlyStopping(Callback):
    """Ends the training when a value has not become better for too long.

    Args:
        monitor: name of the series in the history.
        patience: so many epochs in a row without progress end it.
        min_delta: by how much better counts.
        mode: 'min' or 'max'; None: 'min' for names that end in 'loss', else 'max'.

    Raises:
        ArgumentError: a patience below 1, another mode; in ``fit``: a series that will not be there.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 10, min_delta: float = 0.0,
                 mode: str | None = None) -> None:
        if patience < 1 or min_delta < 0:
            raise ArgumentError(f"patience is at least 1, min_delta at least 0; not {patience} and {min_delta}")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self._sign = direction(monitor, mode)

    def on_begin(self, state: State) -> None:
        state.check(self.monitor)

    def on_epoch_end(self, state: State) -> None:
        best, at = math.inf, 0
        for epoch, value in enumerate(state.watched(self.monitor), 1):
            if self._sign * value < best - self.min_delta:  # a NaN is no progress
                best, at = self._sign * value, epoch
        if state.epoch - at >= self.patience:
            state.stop(f"{self.monitor} has not become better since epoch {at}")


class _Saving(Callback):
    """Base of those that write checkpoints."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def on_begin(self, state: State) -> None:
        # a folder that cannot be made is better known before the first epoch than after it
        folder = Path(self.path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError(f"checkpoints cannot be written to {folder}: {error}") from error
        if not os.access(folder, os.W_OK):
            raise ArgumentError(f"checkpoints cannot be written to {folder}: permission denied")


class BestModel(_Saving):
    """Writes a checkpoint whenever a value is the best so far; the file at the end is that of the best epoch.

    Args:
        path: the file. monitor, mode: as those of ``EarlyStopping``.

    Raises:
        ArgumentError: another mode; in ``fit``: a series that will not be there, a folder that cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_loss", mode: str | None = None) -> None:
        super().__init__(path)
        self.monitor = monitor
        self.mode = mode
        direction(monitor, mode)

    def on_begin(self, state: State) -> None:
        super().on_begin(state)
        state.check(self.monitor)

    def on_epoch_end(self, state: State) -> None:
        last = state.watched(self.monitor)[-1]
        if not math.isnan(last) and state.history.best(self.monitor, self.mode)[0] == state.epoch:
            state.save(self.path)


class Checkpoint(_Saving):
    """Writes a checkpoint every few epochs, and after the last one; ``fit(..., resume=path)`` goes on from it.

    Args:
        path: the file; ``{epoch}`` in it becomes the number of the epoch, otherwise the newest replaces the older.
        every: epochs from one to the next.

    Raises:
        ArgumentError: ``every`` below 1; in ``fit``: a folder that cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        if every < 1:
            raise ArgumentError(f"a checkpoint is written every so many epochs, at least 1, not {every}")
        super().__init__(path)
        self.every = every

    def on_epoch_end(self, state: State) -> None:
        if state.epoch % self.every == 0 or state.epoch == state.epochs or state.history.stopped:
            state.save(self.path.replace("{epoch}", str(state.epoch)))
