"""Studies: trainings that are kept in run folders, drawn, and asked for predictions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphjit.data import DataLoader
from graphjit.errors import ArgumentError, TrainingDiverged
from graphjit.nn import functional as F
from graphjit.op import Array
from graphjit.ops.random import Generator, manual_seed, permutation
from graphjit.training.callbacks import Callback, Checkpoint, EarlyStopping, State
from graphjit.training.evaluation import predict
from graphjit.training.folders import CONFIG, HISTORY, MODEL, RESULT, Run, new_folder, write_json
from graphjit.training.history import History
from graphjit.training.loop import fit
from graphjit.training.recipe import Parts, Settings, build, file_name, make_optimizer, make_scheduler, prepare


@dataclass
class Result:
    """What came of a training.

    Attributes:
        folder: where it is kept; None when nothing was written.
        history: a list for each metric, one number an epoch.
        samples: numbers of training, validation and test samples. parameters: number of learned values.
        compile_seconds: how much longer the first step took than later ones; 0 when eager.
        kernels, traces: compiled kernels and traced signatures of the step.
        seconds: all in all.
    """

    settings: Settings
    folder: Path | None
    history: History
    samples: tuple[int, int, int]
    parameters: int
    compile_seconds: float
    kernels: int
    traces: int
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """Share of the test samples classified rightly, at the end."""
        return self.history["test_accuracy"][-1]

    def summary(self) -> dict[str, Any]:
        """The numbers at the end, for JSON."""
        last = {name: values[-1] if math.isfinite(values[-1]) else None
                for name, values in self.history.items() if values}
        return {"folder": None if self.folder is None else str(self.folder), "epochs": self.history.epochs,
                "stopped": self.history.stopped, **last,
                "samples": dict(zip(("train", "val", "test"), self.samples, strict=True)),
                "parameters": self.parameters, "compile_seconds": self.compile_seconds, "kernels": self.kernels,
                "traces": self.traces, "total_seconds": self.seconds}

    def asdict(self) -> dict[str, Any]:
        """Everything as nested dicts and lists, for JSON."""
        return {"settings": self.settings.asdict(), "history": json.loads(self.history.to_json()),
                "result": self.summary()}


class _Watch(Callback):
    """Notes what the first step took and what the compiler did."""

    first_seconds = 0.0
    kernels = traces = 0

    def on_end(self, state: State) -> None:
        self.first_seconds = state.first_seconds
        self.kernels = getattr(state.train_step, "compile_count", 0)  # a plain function when eager
        self.traces = getattr(state.train_step, "trace_count", 0)


def train(settings: Settings, runs: str | Path | None = None, callbacks: Sequence[Callback] = (),
          parts: Parts | None = None) -> Result:
    """Train what the settings say and, if ``runs`` is given, keep it in a new folder there.

    Args:
        settings: see there; equal seeds give equal batches, starting values and dropout masks.
        runs: the folder of all runs; made if there is none. With None nothing is written.
        callbacks: for ``fit``.
        parts: what ``prepare(settings)`` gave, where it is known already.

    Raises:
        DatasetUnavailable: the data are not at hand; no folder has been made then.
        TrainingDiverged: the loss is no longer finite; the history until then is kept.

    >>> from graphjit.training.study import Settings, train
    >>> result = train(Settings.of(dataset="iris", hidden=(8,), epochs=2))
    >>> result.samples, len(result.history["val_accuracy"])
    ((105, 15, 30), 2)
    """
    begin = time.perf_counter()
    parts = prepare(settings) if parts is None else parts
    manual_seed(settings.seed)
    model = build(settings, parts.shape, len(parts.classes))
    parameters = sum(p.size for p in model.parameters())
    loaders = _loaders(settings, parts)
    optimizer = make_optimizer(settings, list(model.parameters()))
    scheduler = make_scheduler(settings, optimizer, len(loaders["train"]))
    folder = None
    watch = _Watch()
    used: list[Callback] = [watch, *callbacks]
    if runs is not None:
        folder = new_folder(runs, "-".join((file_name(settings.dataset), settings.model, settings.activation,
                                            str(settings.seed))))
        write_json(folder / CONFIG, {"settings": settings.asdict(), "shape": list(parts.shape),
                                     "classes": list(parts.classes)})
        used.append(Checkpoint(folder / MODEL))
    if settings.patience is not None:
        used.append(EarlyStopping(patience=settings.patience))
    try:
        history = fit(model, F.cross_entropy, optimizer, loaders, settings.epochs, scheduler=scheduler,
                      callbacks=used, eager=settings.eager, progress=False)
    except TrainingDiverged as error:
        if folder is not None:
            History(error.history).to_json(folder / HISTORY)
        raise
    compiling = watch.first_seconds - history["step_seconds"][-1] if watch.traces and history.epochs else 0.0
    result = Result(settings, folder, history, parts.sizes, parameters, max(0.0, compiling), watch.kernels,
                    watch.traces, time.perf_counter() - begin)
    if folder is not None:
        history.to_json(folder / HISTORY)
        write_json(folder / RESULT, result.summary())
    return result


def _loaders(settings: Settings, parts: Parts) -> dict[str, DataLoader]:
    # batch statistics need two samples: a last batch of one is left out
    lone = settings.norm and len(parts.train) % settings.batch_size == 1
    large = max(settings.batch_size, 1024)
    return {"train": DataLoader(parts.train, settings.batch_size, shuffle=True, seed=settings.seed, drop_last=lone),
            "val": DataLoader(parts.val, large), "test": DataLoader(parts.test, large)}


# ---- predictions

@dataclass(frozen=True)
class Examples:
    """Test samples and what a model takes them for.

    Attributes:
        index: (n,), their places among the test samples. true, predicted: (n,), class numbers.
        probability: (n,), that the model gives to the class it predicts.
        samples: (n, *shape), as loaded. classes: names. accuracy: of all test samples. of: how many those are.
    """

    index: Array
    true: Array
    predicted: Array
    probability: Array
    samples: Array
    classes: tuple[str, ...]
    accuracy: float
    of: int

    def asdict(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON; without the samples themselves."""
        rows = zip(self.index.tolist(), self.true.tolist(), self.predicted.tolist(), self.probability.tolist(),
                   strict=True)
        return {"accuracy": self.accuracy, "of": self.of, "examples": [
            {"index": i, "true": self.classes[t], "predicted": self.classes[p], "probability": share}
            for i, t, p, share in rows]}


def examples(run: Run, count: int = 10, seed: int = 0) -> Examples:
    """What the model of a run predicts for test samples chosen at random, by ``seed``.

    Raises:
        ArgumentError: the data no longer are what the model was trained on. CheckpointError: see ``Run.model``.
    """
    model = run.model()
    parts = prepare(run.settings)
    if parts.shape != run.shape or parts.classes != run.classes:
        raise ArgumentError(f"{run.settings.dataset} is not what {run.folder} was trained on: samples of shape "
                            f"{parts.shape} in {len(parts.classes)} classes, not {run.shape} in {len(run.classes)}")
    x, y = parts.test.tensors
    out = predict(model, x)
    guess = out.argmax(1)
    chosen = np.sort(permutation(len(x), generator=Generator(seed)).numpy()[:count])
    share = np.exp(out[chosen] - out[chosen].max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return Examples(chosen, y[chosen], guess[chosen], share.max(1), parts.original(x[chosen]), parts.classes,
                    float((guess == y).mean()), len(x))


# ---- pictures

PICTURES = {"loss_curves": "Loss", "accuracy_curves": "Accuracy", "test_loss": "Test loss",
            "test_accuracy": "Test accuracy", "lr_schedule": "Learning rate", "overfitting_gap": "Overfitting gap"}


def draw(histories: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Draw loss and accuracy curves, test loss and accuracy, learning rate and overfitting gap, one PNG each.

    Args:
        histories: a history, or label -> history, which all go into the same pictures.
        folder: where to; made if need be. name: of what was trained, for the titles.

    Returns:
        The files.

    Raises:
        ArgumentError: matplotlib is not installed; a file that cannot be written.
    """
    from graphjit import plots

    paths = [folder / f"{picture}.png" for picture in PICTURES]
    for path, (picture, title) in zip(paths, PICTURES.items(), strict=True):
        getattr(plots, picture)(histories, path=path, title=f"{title}: {name}")
    return paths
