"""A trained model at work: its loss and metrics, and what it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.data import DataLoader, TensorDataset
from graphjit.errors import ArgumentError
from graphjit.jit import compile, eager
from graphjit.nn.module import Module
from graphjit.op import Array
from graphjit.training.metrics import Metrics
from graphjit.training.steps import Loss, eval_step, evaluating, measure
from graphjit.transforms import no_grad


def evaluate(model: Module, loss: Loss, loader: Any, *, metrics: Metrics | None = None,
             eager: bool = False) -> dict[str, float]:
    """Mean loss and metrics over all batches, in evaluation mode, without gradients.

    Args:
        model, loss, metrics, eager: as in ``fit``.
        loader: gives batches ``(input, ..., target)``.

    Returns:
        ``{"loss": ..., "accuracy": ...}``

    Raises:
        ArgumentError: no batch, or batches of another form.

    >>> import numpy as np, graphjit as gj
    >>> from graphjit import training
    >>> model = gj.nn.Linear(2, 1)
    >>> sorted(training.evaluate(model, gj.nn.functional.mse_loss, [(np.ones((3, 2)), np.ones((3, 1)))]))
    ['loss']
    """
    found = measure(eval_step(model, loss, metrics, eager), model, loader, "test")
    return {name.removeprefix("test_"): value for name, value in found.items()}


def predict(model: Module, x: Any, *, batch_size: int = 1024, eager: bool = False) -> Array:
    """The model's outputs for all samples, in evaluation mode, without gradients.

    Args:
        model: called with each batch.
        x: an array, its first axis the samples; or a loader, of whose batches only the first array is used.
        batch_size: samples at a time, of an array.
        eager: run the same code uncompiled.

    Returns:
        (samples, ...), in the order of the samples.

    Raises:
        ArgumentError: no samples.

    >>> import numpy as np, graphjit as gj
    >>> gj.training.predict(gj.nn.Linear(2, 3), np.ones((5, 2))).shape
    (5, 3)
    """
    batches = x if isinstance(x, DataLoader) else DataLoader(TensorDataset(x), batch_size)
    step, parts = compile(model), []
    with no_grad(), evaluating(model):
        for batch in batches:
            first = batch[0] if isinstance(batch, (tuple, list)) else batch
            parts.append(_outputs(step, first, eager))
    if not parts:
        raise ArgumentError("predict() got no samples")
    return np.concatenate(parts)


def _outputs(step: Any, x: Any, uncompiled: bool) -> Array:
    if uncompiled:
        with eager():
            found = step(x)
    else:
        found = step(x)
    array: Array = found.numpy()
    return array
