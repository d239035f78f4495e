"""A multi-layer perceptron trained to classify a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from graphjit import nn, optim
from graphjit.data import DataLoader, Table, TensorDataset, load, random_split
from graphjit.jit import CompiledFunction, compile
from graphjit.nn import functional as F
from graphjit.op import Array
from graphjit.ops.random import Generator, manual_seed
from graphjit.tensor import Tensor
from graphjit.transforms import no_grad

TEST, VALIDATION = 0.2, 0.1  # shares of the samples that are held out


@dataclass(frozen=True)
class Settings:
    """What is trained, and how: the options of ``graphjit train``."""

    dataset: str = "digits"
    epochs: int = 25
    batch_size: int = 32
    lr: float = 1e-3
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    seed: int = 0
    eager: bool = False


@dataclass(frozen=True)
class Epoch:
    """A pass over the training samples.

    Attributes:
        loss: mean of the training losses. accuracy: share of the validation samples classified rightly.
        step_seconds: median time of a step.
    """

    number: int
    loss: float
    accuracy: float
    step_seconds: float


@dataclass
class Result:
    """What came of a training.

    Attributes:
        samples: numbers of training, validation and test samples. parameters: number of learned values.
        compile_seconds: how much longer the first calls took than later ones; 0 when eager.
        kernels, traces: compiled kernels and traced signatures of the step.
        test_accuracy: share of the test samples classified rightly, at the end.
    """

    settings: Settings
    samples: tuple[int, int, int]
    parameters: int
    epochs: list[Epoch] = field(default_factory=list)
    compile_seconds: float = 0.0
    kernels: int = 0
    traces: int = 0
    test_accuracy: float = 0.0
    seconds: float = 0.0

    def asdict(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON."""
        return asdict(self)


def mlp(features: int, hidden: Sequence[int], classes: int, dropout: float) -> nn.Sequential:
    """Linear, BatchNorm1d, ReLU, Dropout for each hidden width, then a Linear to the classes.

    >>> from graphjit.training import mlp
    >>> [type(m).__name__ for m in mlp(4, [8], 3, 0.1)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear']
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def train(settings: Settings, on_step: Callable[[], object] = lambda: None,
          on_epoch: Callable[[Epoch], object] = lambda epoch: None) -> Result:
    """Train an ``mlp`` with Adam on mini-batches, the whole step compiled, or the same code eagerly.

    Args:
        settings: see there; equal seeds give equal batches, starting values and dropout masks.
        on_step, on_epoch: called after each.
    """
    begin = time.perf_counter()
    table = load(settings.dataset, seed=settings.seed)
    training, validation, test = _split(table, settings.seed)
    manual_seed(settings.seed)
    model = mlp(table.x.shape[1], settings.hidden, len(table.classes), settings.dropout)
    opt = optim.Adam(model.parameters(), lr=settings.lr)

    def train_step(x: Array, y: Array) -> Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    def predict(x: Array) -> Tensor:
        return model(x).argmax(axis=1)  # type: ignore[no-any-return]  # what a module gives is its own business

    step, label = (train_step, predict) if settings.eager else (compile(train_step), compile(predict))

    def accuracy(samples: TensorDataset) -> float:
        x, y = samples.tensors
        model.eval()
        with no_grad():
            right = label(x).numpy() == y
        model.train()
        return float(right.mean())

    # batch statistics need two samples: a last batch of one is left out
    loader = DataLoader(training, settings.batch_size, shuffle=True, seed=settings.seed,
                        drop_last=len(training) % settings.batch_size == 1)
    result = Result(settings, (len(training), len(validation), len(test)),
                    sum(p.size for p in model.parameters()))
    for number in range(1, settings.epochs + 1):
        losses, sizes, times = [], [], []
        for x, y in loader:
            start = time.perf_counter()
            losses.append(step(x, y).item())
            times.append(time.perf_counter() - start)
            sizes.append(len(y))
            on_step()
        start = time.perf_counter()
        right = accuracy(validation)
        if number == 1:
            first = times[0] + time.perf_counter() - start
        epoch = Epoch(number, float(np.average(losses, weights=sizes)), right, statistics.median(times))
        result.epochs.append(epoch)
        on_epoch(epoch)
    if isinstance(step, CompiledFunction):
        result.compile_seconds = first - epoch.step_seconds
        result.kernels, result.traces = step.compile_count, step.trace_count
    result.test_accuracy = accuracy(test)
    result.seconds = time.perf_counter() - begin
    return result


def _split(table: Table, seed: int) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Training, validation and test samples, columns scaled by mean and deviation of the training ones."""
    rest = 1 - TEST - VALIDATION
    parts = random_split(table.dataset(), [rest, VALIDATION, TEST], generator=Generator(seed))
    arrays = [part.batch(range(len(part))) for part in parts]
    x = arrays[0][0]
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1
    training, validation, test = (TensorDataset((x - mean) / deviation, y) for x, y in arrays)
    return training, validation, test
