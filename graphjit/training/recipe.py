"""``Settings``: a training in names and numbers, and what they stand for: data, model, optimizer, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from graphjit import nn, optim
from graphjit.data import Table, TensorDataset, load, random_split
from graphjit.errors import ArgumentError
from graphjit.op import Array
from graphjit.ops.random import Generator
from graphjit.optim import Optimizer, lr_scheduler

TEST, VALIDATION = 0.2, 0.1  # shares of the samples that are held out, where the data come without a test part
CHANNELS = (16, 32)          # of the cnn's convolutions
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU,
    "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus,
}
INITS: dict[str, Callable[[nn.Parameter], object] | None] = {
    "default": None, "xavier": nn.init.xavier_uniform_,
    "kaiming": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
}
RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 0.02, "rmsprop": 1e-3, "adagrad": 1e-2}
DECAYS = {"constant": 1.0, "exponential": 0.95, "step": 0.2, "cosine": 0.0, "linear": 0.05, "plateau": 0.2,
          "onecycle": 0.0}
MODELS = ("mlp", "cnn")


@dataclass(frozen=True)
class Settings:
    """What is trained, and how: the options of ``graphjit train``. Made by ``Settings.of``, which checks them.

    Attributes:
        dataset: a name of ``data.SOURCES``, or the path of a CSV or NPZ file. folder: where its files lie.
        grey: turn colours to grey.
        model: 'mlp' or 'cnn'. activation: a name of ``ACTIVATIONS``. hidden: widths of the hidden layers.
        norm: whether a batch normalisation follows each of them. dropout: share of activations dropped.
        init: of the weights, a name of ``INITS``; biases begin at 0 then.
        optimizer: a name of ``RATES``, which holds the usual ``lr``. momentum: of sgd. weight_decay: L2.
        schedule: a name of ``DECAYS``. decay: the factor of the learning rate in each epoch (exponential), in each
            third of the training (step), when the validation loss no longer falls (plateau), in all (linear).
        epochs: passes over the training samples. batch_size: samples in a step.
        train_samples: how many to train on; None for all there are.
        patience: epochs without a better validation loss after which to stop; None for never.
        seed: repeats split, starting values, batches and dropout. eager: run the same code uncompiled.
    """

    dataset: str = "digits"
    folder: str | None = None
    grey: bool = False
    model: str = "mlp"
    activation: str = "relu"
    hidden: tuple[int, ...] = (128, 64)
    norm: bool = True
    dropout: float = 0.2
    init: str = "default"
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    decay: float = 1.0
    epochs: int = 25
    batch_size: int = 32
    train_samples: int | None = None
    patience: int | None = None
    seed: int = 0
    eager: bool = False

    @classmethod
    def of(cls, preset: str = "default", **given: Any) -> Settings:
        """The settings of a preset with some given otherwise; None counts as not given.

        Raises:
            ArgumentError: a name that there is not, or a number out of its range.

        >>> from graphjit.training.recipe import Settings
        >>> Settings.of(optimizer="sgd").lr, Settings.of("study", activation="tanh").hidden
        (0.02, (128, 128, 128))
        """
        names = {f.name for f in fields(cls)}
        if unknown := sorted(given.keys() - names):
            raise ArgumentError(f"there is no setting {unknown[0]!r}", hint=f"There are {', '.join(sorted(names))}.")
        chosen = {**PRESETS[_one_of("preset", preset, PRESETS)],
                  **{name: value for name, value in given.items() if value is not None}}
        chosen["hidden"] = tuple(chosen.get("hidden", cls.hidden))
        chosen.setdefault("lr", RATES[_one_of("optimizer", chosen.get("optimizer", cls.optimizer), RATES)])
        chosen.setdefault("decay", DECAYS[_one_of("schedule", chosen.get("schedule", cls.schedule), DECAYS)])
        made = cls(**chosen)
        made._check()
        return made

    def _check(self) -> None:
        for what, value, known in (("model", self.model, MODELS), ("activation", self.activation, ACTIVATIONS),
                                   ("init", self.init, INITS)):
            _one_of(what, value, known)
        positive = [self.lr, self.epochs, self.batch_size, *self.hidden]
        positive += [n for n in (self.train_samples, self.patience) if n is not None]
        share = [self.dropout, self.momentum, self.decay]
        if not (all(0 < v < math.inf for v in positive) and 0 <= self.weight_decay < math.inf
                and all(0 <= v <= 1 for v in share) and self.dropout < 1 and self.seed >= 0):
            raise ArgumentError(f"settings out of range: {self}",
                                hint="Sizes and rates are positive, shares and factors between 0 and 1.")

    def asdict(self) -> dict[str, Any]:
        """As a dict of numbers, strings and lists, for JSON."""
        return {**asdict(self), "hidden": list(self.hidden)}


# the network and the training that studies of activations on images are made with: 134,794 parameters on 784 inputs
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "study": {"hidden": (128, 128, 128), "norm": False, "dropout": 0.0, "init": "xavier", "optimizer": "sgd",
              "momentum": 0.9, "schedule": "exponential", "grey": True},
}


def _one_of(what: str, value: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    if value not in known:
        raise ArgumentError(f"there is no {what} {value!r}", hint=f"There are {', '.join(known)}.")
    return value


# ---- data

@dataclass(frozen=True)
class Parts:
    """Samples to train on, to validate and to test with, scaled by the training ones.

    Attributes:
        train, val, test: the samples, flat for an mlp.
        shape: of one sample, channels first. classes: their names.
        mean, deviation: what was taken away and divided by, those of each column; one deviation for all numbers of
            an image or a series.
    """

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: Array
    deviation: Array

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.train), len(self.val), len(self.test)

    def original(self, x: Array) -> Array:
        """Samples as they were before they were scaled, each of shape ``shape``."""
        out: Array = (x.reshape(len(x), -1) * self.deviation + self.mean).reshape(len(x), *self.shape)
        return out


def prepare(settings: Settings, *, download: bool = True,
            progress: Callable[[str, int, int | None], object] | None = None) -> Parts:
    """Load the data and cut them into parts, the same ones for the same seed.

    Args:
        settings: those of the data and, for the shape of a sample, of the model.
        download, progress: as in ``data.load``.

    Raises:
        DatasetUnavailable: the files are not at hand. ArgumentError: more training samples asked for than there are,
        or a cnn on samples that are neither images nor series.
    """
    table = load(settings.dataset, folder=settings.folder, seed=settings.seed, grey=settings.grey,
                 download=download, progress=progress)
    if settings.model == "cnn" and len(table.shape) == 1:
        raise ArgumentError(f"a cnn needs images or series, the samples of {settings.dataset} are rows of a table",
                            hint="Train an mlp on them.")
    train, val, test = _split(table, settings.seed)
    if settings.train_samples is not None:
        if settings.train_samples > len(train[0]):
            raise ArgumentError(f"{settings.train_samples} training samples asked for, but {settings.dataset} "
                                f"has {len(train[0])}")
        train = tuple(a[:settings.train_samples] for a in train)
    mean = train[0].mean(0, dtype=np.float64).astype(np.float32)
    # pixels of images are of one unit; divided each by its own, those at the edge would be mostly noise
    deviation = np.asarray((train[0] - mean).std(0 if len(table.shape) == 1 else None), np.float32)
    deviation = np.where(deviation == 0, np.float32(1), deviation)

    def part(x: Array, y: Array) -> TensorDataset:
        scaled = (x - mean) / deviation
        return TensorDataset(scaled.reshape(len(x), *table.shape) if settings.model == "cnn" else scaled, y)
    return Parts(part(*train), part(*val), part(*test), table.shape, table.classes, mean, deviation)


def _split(table: Table, seed: int) -> tuple[tuple[Array, ...], ...]:
    """Arrays x, y of the training, validation and test samples."""
    generator = Generator(seed)
    if table.test is not None:
        held = random_split(table.dataset(), [1 - VALIDATION, VALIDATION], generator=generator)
        return (*(part.batch(range(len(part))) for part in held), (table.test.x, table.test.y))
    parts = random_split(table.dataset(), [1 - TEST - VALIDATION, VALIDATION, TEST], generator=generator)
    return tuple(part.batch(range(len(part))) for part in parts)


# ---- model

def build(settings: Settings, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """The model of these settings for samples of this shape.

    * mlp: Linear, BatchNorm1d, activation, Dropout for each hidden width, then a Linear to the classes;
    * cnn: twice Conv (3 wide), BatchNorm, activation and MaxPool (2 wide), then an mlp on what is left.

    Before a BatchNorm there is no bias: it would have no effect, and Adam would make a random walk of its rounding.

    Args:
        shape: (features,), (channels, length) or (channels, height, width). classes: outputs.

    >>> from graphjit.training.recipe import Settings, build
    >>> model = build(Settings.of("study"), (1, 28, 28), 10)
    >>> sum(p.size for p in model.parameters())
    134794
    """
    layers: list[nn.Module] = []
    features = math.prod(shape)
    if settings.model == "cnn":
        convolutions, features = _convolutions(settings, shape)
        layers += [*convolutions, nn.Flatten()]
    for width in settings.hidden:
        layers += [nn.Linear(features, width, bias=not settings.norm),
                   *([nn.BatchNorm1d(width)] if settings.norm else []), ACTIVATIONS[settings.activation]()]
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
        features = width
    model = nn.Sequential(*layers, nn.Linear(features, classes))
    start = INITS[settings.init]
    if start is not None:
        for layer in model:
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                start(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return model


def _convolutions(settings: Settings, shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """The convolutions of a cnn and how many numbers they leave."""
    channels, *lengths = shape
    series = len(lengths) == 1
    conv, norm, pool = ((nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d) if series
                        else (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d))
    layers: list[nn.Module] = []
    for width in CHANNELS:
        layers += [conv(channels, width, 3, padding=1, bias=not settings.norm),
                   *([norm(width)] if settings.norm else []), ACTIVATIONS[settings.activation](), pool(2)]
        channels, lengths = width, [n // 2 for n in lengths]
    if not all(lengths):
        raise ArgumentError(f"samples of shape {shape} are too small for a cnn that halves them twice")
    return layers, channels * math.prod(lengths)


# ---- optimizer, schedule

def make_optimizer(settings: Settings, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """The optimizer of these settings."""
    lr, decay = settings.lr, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay)
        case "adamw":
            return optim.AdamW(parameters, lr=lr, weight_decay=decay)
        case "rmsprop":
            return optim.RMSprop(parameters, lr=lr, weight_decay=decay)
        case "adagrad":
            return optim.Adagrad(parameters, lr=lr, weight_decay=decay)
        case _:
            return optim.Adam(parameters, lr=lr, weight_decay=decay)


def make_scheduler(settings: Settings, optimizer: Optimizer, steps: int) -> Any:
    """The schedule of these settings for so many steps in an epoch; None for a constant rate."""
    epochs, decay = settings.epochs, settings.decay
    match settings.schedule:
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, gamma=decay)
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=max(1, math.ceil(epochs / 3)), gamma=decay)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        case "linear":
            return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=decay, total_iters=epochs)
        case "plateau":
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=decay, patience=2)
        case "onecycle":
            return lr_scheduler.OneCycleLR(optimizer, max_lr=settings.lr, total_steps=epochs * steps)
        case _:
            return None


def file_name(dataset: str) -> str:
    """A data set's name, or that of its file, as part of a folder's name."""
    name = Path(dataset).stem if Path(dataset).suffix else dataset
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
