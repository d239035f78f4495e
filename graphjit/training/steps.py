"""The steps of a training: what is compiled, and what goes through it batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError
from graphjit.jit import CompiledFunction, compile, eager
from graphjit.nn.module import Module
from graphjit.nn.utils import clip_grad_norm_
from graphjit.optim import LBFGS, Optimizer
from graphjit.tensor import Tensor
from graphjit.training.metrics import Metrics, fitting
from graphjit.transforms import no_grad

Loss = Callable[[Any, Any], Tensor]                    # outputs, targets -> scalar, a mean over the batch
Measured = tuple[Tensor, dict[str, Tensor]]            # the loss, and the metrics by name
Step = CompiledFunction | Callable[..., Measured]      # of the arrays of a batch


def train_step(model: Module, loss: Loss, optimizer: Optimizer, metrics: Metrics | None, clip_norm: float | None,
               uncompiled: bool) -> Step:
    """Forward, backward and update as one function of a batch."""
    forward = _forward(model, loss, metrics)

    def step(*batch: Any) -> Measured:
        optimizer.zero_grad()
        value, measured = forward(*batch)
        value.backward()
        if clip_norm is not None:
            clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return value, measured

    return _searching(optimizer, forward, uncompiled) if isinstance(optimizer, LBFGS) else _wrapped(step, uncompiled)


def _searching(optimizer: LBFGS, forward: Callable[..., Measured], uncompiled: bool) -> Step:
    """A step of an optimizer that asks for the loss several times: only that is compiled."""
    run = _wrapped(forward, uncompiled)

    def step(*batch: Any) -> Measured:
        first: list[Measured] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            first.append(run(*batch))
            first[-1][0].backward()
            return first[-1][0]

        optimizer.step(closure)
        return first[0]

    return step


def eval_step(model: Module, loss: Loss, metrics: Metrics | None, uncompiled: bool) -> Step:
    """Loss and metrics as one function of a batch."""
    return _wrapped(_forward(model, loss, metrics), uncompiled)


def _forward(model: Module, loss: Loss, metrics: Metrics | None) -> Callable[..., Measured]:
    def forward(*batch: Any) -> Measured:
        output, target = model(*batch[:-1]), batch[-1]
        value = loss(output, target)
        with no_grad():
            chosen = fitting(output, target) if metrics is None else metrics
            return value, {name: metric(output, target) for name, metric in chosen.items()}

    return forward


def _wrapped(function: Callable[..., Any], uncompiled: bool) -> Step:
    compiled = compile(function)
    if not uncompiled:
        return compiled

    def run(*batch: Any) -> Any:
        with eager():
            return compiled(*batch)

    return run


class Means:
    """Losses and metrics of batches, and their means, each batch with the weight of its size."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sizes: list[int] = []
        self._measured: list[dict[str, Tensor]] = []

    def add(self, batch: Any, found: Measured) -> float:
        """Take up what a batch gave; gives its loss."""
        loss = found[0].item()
        self.losses.append(loss)
        self.sizes.append(len(batch[-1]))
        self._measured.append(found[1])  # read at the end of the epoch, not between steps
        return float(loss)

    def means(self, part: str) -> dict[str, float]:
        """``{part}_loss`` and ``{part}_...`` of each metric."""
        if not self.losses:
            raise ArgumentError(f"the {part} loader gave no batch",
                                hint="It has no samples, or drop_last drops its only batch.")
        names = self._measured[0]
        values = {"loss": self.losses, **{name: [m[name].item() for m in self._measured] for name in names}}
        return {f"{part}_{name}": float(np.average(v, weights=self.sizes)) for name, v in values.items()}


def checked(batch: Any) -> Any:
    """A batch, if it is inputs and targets.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        what = f"{len(batch)} array" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise ArgumentError(f"a batch is a tuple of inputs and targets, not {what}",
                            hint="gj.data.TensorDataset(x, y), or the loader's collate_fn, makes such batches.")
    return batch


def measure(step: Step, model: Module, loader: Any, part: str) -> dict[str, float]:
    """Means over all batches, in evaluation mode, without gradients."""
    found = Means()
    with no_grad(), evaluating(model):
        for batch in loader:
            found.add(batch, step(*checked(batch)))
    return found.means(part)


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Afterwards every module is in training or evaluation mode as before."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            if module.training != training:
                module.training = training
