"""``fit``: a model trained epoch by epoch."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from graphjit.checkpoint import Checkpoint, load_checkpoint
from graphjit.data import Dataset
from graphjit.errors import ArgumentError, TrainingDiverged
from graphjit.nn.module import Module
from graphjit.optim import Optimizer
from graphjit.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from graphjit.training.callbacks import Callback, State, overridden
from graphjit.training.history import History
from graphjit.training.metrics import Metrics
from graphjit.training.steps import Loss, Means, checked, eval_step, measure, modes_kept, train_step

PARTS = ("train", "val", "test")


def fit(model: Module, loss: Loss, optimizer: Optimizer, loaders: Any, epochs: int, *,
        scheduler: LRScheduler | None = None, schedule_by: str | None = None, monitor: str | None = None,
        callbacks: Sequence[Callback] = (), metrics: Metrics | None = None, clip_norm: float | None = None,
        eager: bool = False, progress: bool | None = None, resume: str | os.PathLike[str] | None = None) -> History:
    """Train a model: the whole step, forward, backward and update, is one compiled function.

    After each epoch the model is evaluated (evaluation mode, no gradients) on the validation and test samples there
    are. Then the schedule moves on, and the callbacks are called.

    Args:
        model: called with the inputs of a batch. Its modules are afterwards in the modes they were in before.
        loss: ``loss(output, target)``, a scalar that is a mean over the batch: a function or a module.
        optimizer: of the model's parameters.
        loaders: what gives batches ``(input, ..., target)`` of NumPy arrays each time it is iterated over, a
            ``DataLoader`` or a list; or a tuple of two or three of them, for training, validation, test; or a dict
            with the keys 'train', 'val', 'test'.
        epochs: passes over the training samples, those before a resume counted.
        scheduler: a learning-rate schedule of the optimizer.
        schedule_by: 'epoch' or 'step', after which it moves; None: 'step' for ``OneCycleLR``, else 'epoch'.
        monitor: what ``ReduceLROnPlateau`` looks at; None: 'val_loss', or 'train_loss' without validation.
        callbacks: called between steps and epochs, see ``Callback``.
        metrics: name -> ``metric(output, target)``, a scalar that is a mean over the batch. None: ``accuracy`` where
            targets are class numbers, that is integers with one axis less than the outputs.
        clip_norm: bound of the norm of all gradients together.
        eager: run the same code uncompiled.
        progress: whether to show a bar and a line for each epoch; None: on a terminal.
        resume: a checkpoint of ``Checkpoint`` or ``BestModel`` to go on from. Weights, optimizer, schedule, random
            numbers and the order of samples go on as if there had been no stop: the results are the same bits.

    Returns:
        The history. After Ctrl-C it is that of the epochs that ended, and its ``stopped`` is 'interrupted'.

    Raises:
        ArgumentError: loaders that give no batch or batches of another form, a series that is monitored but not there.
        CheckpointError: a checkpoint to resume from that does not fit; nothing has been changed then.
        TrainingDiverged: a loss that is not finite. It holds the history; checkpoints stay as they are.

    >>> import graphjit as gj
    >>> from graphjit import data, nn, optim, training
    >>> _ = gj.manual_seed(0)
    >>> x = gj.random.normal((64, 2)).numpy(); y = (x[:, 0] > x[:, 1]).astype(int)
    >>> loader = data.DataLoader(data.TensorDataset(x, y), batch_size=16, shuffle=True, seed=0)
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> opt = optim.Adam(model.parameters(), lr=0.02)
    >>> history = training.fit(model, nn.functional.cross_entropy, opt, loader, epochs=10)
    >>> history.epochs, history["train_accuracy"][-1] > 0.9
    (10, True)
    """
    parts = _parts(loaders)
    by_step = _by_step(scheduler, schedule_by)
    state = State(model, optimizer, scheduler, parts, epochs, History(),
                  train_step(model, loss, optimizer, metrics, clip_norm, eager),
                  eval_step(model, loss, metrics, eager), _names(parts, metrics),
                  steps=len(parts["train"]) if hasattr(parts["train"], "__len__") else None)
    monitor = monitor or ("val_loss" if "val" in parts else "train_loss")
    if isinstance(scheduler, ReduceLROnPlateau):
        state.check(monitor)
    if resume is not None:
        stateful = {name: it for name, it in parts.items() if hasattr(it, "state_dict")}
        found = load_checkpoint(resume, model, optimizer, scheduler, loaders=stateful, random_state=True)
        state.history, state.epoch = _history(found), found.epoch
    if progress or (progress is None and sys.stderr.isatty()):
        from graphjit.training.progress import ProgressBar
        callbacks = [*callbacks, ProgressBar()]
    with modes_kept(model):
        if not model.training:
            model.train()
        _run(state, list(callbacks), by_step, monitor)
    return state.history


def _run(state: State, callbacks: list[Callback], by_step: bool, monitor: str) -> None:
    """All epochs that are left; what was begun is ended, whatever happens."""
    on_step, on_epoch_end = overridden(callbacks, "on_step"), overridden(callbacks, "on_epoch_end")
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.on_begin(state)
            begun.append(callback)
        while state.epoch < state.epochs and not state.history.stopped:
            _epoch(state, on_step, by_step, monitor)
            for call in on_epoch_end:
                call(state)
    except KeyboardInterrupt:
        state.stop("interrupted")
    finally:
        state.epoch = state.history.epochs  # one that did not end does not count
        for callback in begun:
            callback.on_end(state)


def _epoch(state: State, on_step: list[Callable[[State], None]], by_step: bool, monitor: str) -> None:
    """One pass over the training samples, the evaluation, and their row in the history."""
    begin = time.perf_counter()
    scheduler, step, rate, found, times = state.scheduler, state.train_step, _rate(state), Means(), []
    state.epoch += 1
    for batch in state.loaders["train"]:
        checked(batch)
        start = time.perf_counter()
        state.loss = found.add(batch, step(*batch))
        times.append(time.perf_counter() - start)
        state.step += 1
        if not math.isfinite(state.loss):
            raise _diverged(state, "training loss", state.loss, len(times))
        for call in on_step:
            call(state)
        if by_step and scheduler is not None:
            rate = _rate(state)
            scheduler.step()
    row = found.means("train")
    state.first_seconds = state.first_seconds or times[0]
    for part, loader in state.loaders.items():
        if part != "train":
            row |= measure(state.eval_step, state.model, loader, part)
            if not math.isfinite(row[f"{part}_loss"]):
                raise _diverged(state, f"loss of the {part} samples", row[f"{part}_loss"], 0)
    row["lr"] = rate
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(row.get(monitor))
    elif scheduler is not None and not by_step:
        scheduler.step()
    row |= {"seconds": time.perf_counter() - begin, "step_seconds": statistics.median(times)}
    state.history.append(row)


def _rate(state: State) -> float:
    rate: float = state.optimizer.param_groups[0]["lr"]
    return rate


def _diverged(state: State, what: str, value: float, step: int) -> TrainingDiverged:
    where = f"step {step} of epoch {state.epoch}" if step else f"the end of epoch {state.epoch}"
    kept = (f"the last checkpoint is {state.saved}",) if state.saved is not None else ()
    return TrainingDiverged(f"the {what} is {value} at {where}", history=state.history, epoch=state.epoch, step=step,
                            detail=kept, hint="Lower the learning rate, bound the gradients (clip_norm=1.0), or look "
                                              "for values that are not finite in the samples.")


def _parts(loaders: Any) -> dict[str, Any]:
    """Loaders by name: 'train' first, then those of 'val' and 'test' there are.

    Raises:
        ArgumentError: something else than ``fit`` takes.
    """
    if isinstance(loaders, Mapping):
        unknown = loaders.keys() - set(PARTS)
        if unknown or "train" not in loaders:
            raise ArgumentError(f"loaders are 'train', 'val', 'test', not {', '.join(map(str, loaders))}")
        found = {name: loaders[name] for name in PARTS if loaders.get(name) is not None}
    else:
        given = loaders if isinstance(loaders, tuple) else (loaders,)
        if not 1 <= len(given) <= len(PARTS):
            raise ArgumentError(f"a tuple of loaders is (train, val) or (train, val, test), not {len(given)} of them")
        found = {name: it for name, it in zip(PARTS, given, strict=False) if it is not None}
    for name, it in found.items():
        if isinstance(it, Dataset) or not isinstance(it, Iterable):
            raise ArgumentError(f"the {name} loader is a {type(it).__name__}, which gives no batches",
                                hint="gj.data.DataLoader(dataset, batch_size=32, shuffle=True) gives them.")
        if isinstance(it, Iterator):
            raise ArgumentError(f"the {name} loader can be iterated over only once, each epoch needs it anew",
                                hint="Give a DataLoader or a list.")
    return found


def _by_step(scheduler: LRScheduler | None, chosen: str | None) -> bool:
    """Whether the schedule moves after each step.

    Raises:
        ArgumentError: an unknown choice, or one that the schedule does not bear.
    """
    if chosen not in (None, "epoch", "step"):
        raise ArgumentError(f"schedule_by is 'epoch' or 'step', not {chosen!r}")
    if chosen == "step" and isinstance(scheduler, ReduceLROnPlateau):
        raise ArgumentError("ReduceLROnPlateau looks at what is known after an epoch: schedule_by='epoch'")
    return chosen == "step" or (chosen is None and isinstance(scheduler, OneCycleLR))


def _history(found: Checkpoint) -> History:
    """The history of the epochs before; not known, NaN, where the checkpoint was written without one."""
    if {len(values) for values in found.history.values()} == {found.epoch}:
        return History(found.history)
    return History({"train_loss": [math.nan] * found.epoch})


def _names(parts: Iterable[str], metrics: Metrics | None) -> frozenset[str]:
    measured = ("loss", *(("accuracy",) if metrics is None else metrics))
    return frozenset({"lr", *(f"{part}_{name}" for part in parts for name in measured)})
