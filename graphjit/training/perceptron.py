"""Training in one call: plain SGD on mini-batches, with the learning rate as a function of the epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.data import DataLoader, TensorDataset
from graphjit.errors import ArgumentError
from graphjit.nn.module import Module
from graphjit.optim import SGD
from graphjit.optim.lr_scheduler import LambdaLR
from graphjit.training.history import History
from graphjit.training.loop import fit
from graphjit.training.metrics import Metrics, accuracy
from graphjit.training.steps import Loss


def train_perceptron(model: Module, loss: Loss, data: Any, epochs: int, *, lr: float = 0.1,
                     schedule: Callable[[int], float] | None = None, batch_size: int = 32, seed: int | None = None,
                     metrics: Metrics | None = None, eager: bool = False, progress: bool | None = None) -> History:
    """What ``nn.MLP.train(loss, data, epochs)`` runs; see there. ``fit`` has all choices."""
    if schedule is not None and not callable(schedule):
        raise ArgumentError(f"schedule is a function of the epoch, not {schedule!r}",
                            hint="As in schedule=lambda epoch: 1.0 - 0.9 * epoch / 40.")
    if isinstance(data, tuple) and len(data) == 2:
        arrays = TensorDataset(*data)
        if metrics is None and _are_classes(arrays.tensors[1]):
            metrics = {"accuracy": accuracy}
        data = DataLoader(arrays, batch_size, shuffle=True, seed=seed)
    optimizer = SGD(model.parameters(), lr=lr if schedule is None else 1.0)
    scheduler = None if schedule is None else LambdaLR(optimizer, schedule)
    return fit(model, loss, optimizer, data, epochs, scheduler=scheduler, metrics=metrics, eager=eager,
               progress=progress)


def _are_classes(y: Any) -> bool:
    """Whether targets are class numbers, or 1 and -1."""
    return y.dtype.kind in "iub" or bool(np.isin(y, (-1, 1)).all())
