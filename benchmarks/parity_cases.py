"""What ``benchmarks.parity`` compares: each layer, loss, optimizer and schedule, with names both sides share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


class Layer(NamedTuple):
    """A module of both sides: its class, arguments, and what it is called with."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    inputs: tuple[Array, ...]
    call: dict[str, Any]

    def __str__(self) -> str:
        return _label(self.name, self.args, self.options, self.call)


class Update(NamedTuple):
    """An optimizer: its class and hyperparameters."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return _label(self.name, (), self.options, {})


class Schedule(NamedTuple):
    """A schedule: its class and arguments; those of 'SequentialLR' are schedules themselves."""

    name: str
    options: dict[str, Any]
    parts: tuple[Schedule, ...] = ()
    optimizer: str = "SGD"

    def __str__(self) -> str:
        return _label(self.name, tuple(p.name for p in self.parts), self.options, {})


def _label(name: str, args: tuple[Any, ...], options: dict[str, Any], call: dict[str, Any]) -> str:
    shown = [str(a) for a in args]
    shown += [f"{k}={'...' if isinstance(v, np.ndarray) or callable(v) else v}"
              for k, v in (*options.items(), *call.items())]
    return f"{name}({', '.join(shown)})"


def normal(*shape: int) -> Array:
    return RNG.normal(0.5, 1.5, shape)


def layer(name: str, args: tuple[Any, ...], *shapes: tuple[int, ...], call: dict[str, Any] | None = None,
          **options: Any) -> Layer:
    return Layer(name, args, options, tuple(normal(*s) for s in shapes), call or {})


def recurrent(name: str, *states: tuple[int, ...], shape: tuple[int, ...] = (4, 2, 3), **options: Any) -> Layer:
    return layer(name, (3, 5), shape, *states, **options)


IMAGE, SIGNAL, WORDS = (2, 4, 6, 5), (2, 4, 7), (5, 2, 8)
PADDING = np.array([[False] * 5, [False] * 3 + [True] * 2])
SOME = RNG.random((5, 5)) < 0.3
SOME[:, 0] = False
IDS = RNG.integers(0, 7, (2, 3))

LAYERS = [
    layer("Linear", (4, 3), (5, 4)), layer("Linear", (4, 3), (2, 5, 4), bias=False),
    layer("Bilinear", (3, 4, 2), (5, 3), (5, 4)), layer("Bilinear", (3, 4, 2), (2, 5, 3), (2, 5, 4), bias=False),
    layer("Conv1d", (4, 6, 3), SIGNAL), layer("Conv1d", (4, 6, 3), SIGNAL, stride=2, padding=2, dilation=2, groups=2),
    layer("Conv1d", (4, 3, 3), (4, 7), padding="same", bias=False),
    layer("Conv2d", (4, 6, 3), IMAGE),
    layer("Conv2d", (4, 6, (3, 2)), IMAGE, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    layer("Conv2d", (4, 3, 3), IMAGE, padding="same", bias=False),
    layer("ConvTranspose1d", (4, 6, 3), SIGNAL),
    layer("ConvTranspose1d", (4, 6, 3), SIGNAL, stride=2, padding=1, output_padding=1, groups=2),
    layer("ConvTranspose2d", (4, 6, 3), IMAGE),
    layer("ConvTranspose2d", (4, 6, (3, 2)), IMAGE, stride=2, padding=1, output_padding=1, groups=2, bias=False),
    layer("MaxPool1d", (3,), SIGNAL, stride=2, padding=1), layer("MaxPool2d", (2,), IMAGE, ceil_mode=True),
    layer("AvgPool1d", (3,), SIGNAL, padding=1), layer("AvgPool2d", (2,), IMAGE, padding=1, count_include_pad=False),
    layer("AdaptiveAvgPool1d", (3,), SIGNAL), layer("AdaptiveAvgPool2d", ((3, None),), IMAGE),
    layer("BatchNorm1d", (4,), (6, 4)), layer("BatchNorm1d", (4,), SIGNAL, momentum=None, affine=False),
    layer("BatchNorm2d", (4,), IMAGE), layer("BatchNorm2d", (4,), IMAGE, track_running_stats=False, eps=0.1),
    layer("LayerNorm", (4,), (6, 4)), layer("LayerNorm", ((6, 5),), IMAGE, bias=False),
    layer("GroupNorm", (2, 4), IMAGE), layer("GroupNorm", (4, 4), (3, 4), affine=False, eps=0.1),
    layer("RMSNorm", (4,), (6, 4)), layer("RMSNorm", ((6, 5),), IMAGE, eps=0.1, elementwise_affine=False),
    Layer("Embedding", (7, 3), {"padding_idx": 2}, (IDS,), {}),
    *(layer(name, (), (3, 4)) for name in ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Sigmoid", "Tanh", "Softplus",
                                           "Hardtanh")),
    layer("LeakyReLU", (0.3,), (3, 4)), layer("ELU", (0.5,), (3, 4)), layer("GELU", ("tanh",), (3, 4)),
    layer("Softplus", (2.0, 1.0), (3, 4)), layer("Hardtanh", (-0.5, 2.0), (3, 4)),
    layer("Softmax", (1,), (3, 4)), layer("LogSoftmax", (0,), (3, 4)), layer("Flatten", (), (2, 3, 4)),
    recurrent("RNN"), recurrent("RNN", (4, 2, 5), num_layers=2, nonlinearity="relu", bidirectional=True),
    recurrent("LSTM"), recurrent("LSTM", num_layers=2, bidirectional=True, batch_first=True, bias=False),
    recurrent("LSTM", (2, 2, 5), (2, 2, 5), bidirectional=True), recurrent("LSTM", (1, 5), (1, 5), shape=(4, 3)),
    recurrent("GRU"), recurrent("GRU", (2, 4, 5), num_layers=2, batch_first=True),
    recurrent("GRU", (2, 5), shape=(4, 3), bidirectional=True),
    layer("MultiheadAttention", (8, 2), WORDS, WORDS, WORDS),
    layer("MultiheadAttention", (8, 2), (2, 5, 8), (2, 5, 3), (2, 5, 6), kdim=3, vdim=6, batch_first=True,
          add_bias_kv=True, add_zero_attn=True, call={"key_padding_mask": PADDING, "attn_mask": SOME}),
    layer("MultiheadAttention", (8, 4), (3, 8), (5, 8), (5, 8), bias=False,
          call={"average_attn_weights": False, "attn_mask": normal(3, 5)}),
    layer("TransformerEncoderLayer", (8, 2, 16), WORDS, dropout=0.0, call={"src_mask": SOME}),
    layer("TransformerEncoderLayer", (8, 2, 16), (2, 5, 8), dropout=0.0, activation="gelu", batch_first=True,
          norm_first=True, bias=False, call={"src_key_padding_mask": PADDING}),
]


def losses() -> list[Layer]:
    scores, other, shares = normal(6, 4), normal(6, 4), RNG.uniform(0.05, 0.95, (6, 4))
    soft, weight, labels = RNG.dirichlet(np.ones(4), 6), np.array([0.5, 1.0, 2.0, 0.1]), RNG.integers(0, 4, 6)
    signs, pixels = RNG.choice([-1, 1], 6), RNG.integers(0, 4, (6, 3))
    kinds: list[tuple[str, dict[str, Any], tuple[Array, ...]]] = [
        ("MSELoss", {}, (scores, other)), ("L1Loss", {}, (scores, other)),
        ("SmoothL1Loss", {}, (scores, other)), ("SmoothL1Loss", {"beta": 0.5}, (scores, other)),
        ("HuberLoss", {}, (scores, other)), ("HuberLoss", {"delta": 2.0}, (scores, other)),
        ("CrossEntropyLoss", {}, (scores, labels)), ("CrossEntropyLoss", {}, (normal(6, 4, 3), pixels)),
        ("CrossEntropyLoss", {"weight": weight, "label_smoothing": 0.2, "ignore_index": 1}, (scores, labels)),
        ("CrossEntropyLoss", {"weight": weight, "label_smoothing": 0.2}, (scores, soft)),
        ("NLLLoss", {"weight": weight, "ignore_index": 2}, (scores, labels)),
        ("BCELoss", {"weight": weight}, (shares, soft)), ("BCELoss", {}, (shares, np.round(shares))),
        ("BCEWithLogitsLoss", {"weight": weight, "pos_weight": 2 * weight}, (scores, soft)),
        ("HingeEmbeddingLoss", {"margin": 1.5}, (scores[:, 0].copy(), signs)),
        ("MultiMarginLoss", {}, (scores, labels)),
        ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": weight}, (scores, labels)),
        ("KLDivLoss", {}, (np.log(shares), soft)), ("KLDivLoss", {"log_target": True}, (np.log(shares), np.log(soft))),
        ("CosineEmbeddingLoss", {"margin": 0.2}, (scores, other, signs)),
    ]
    found = [Layer(name, (), {**options, "reduction": reduction}, inputs, {})
             for name, options, inputs in kinds for reduction in ("mean", "sum", "none")]
    return [*found, Layer("KLDivLoss", (), {"reduction": "batchmean"}, (np.log(shares), soft), {})]


LOSSES = losses()

OPTIMIZERS = [
    Update("SGD", {}), Update("SGD", {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    Update("SGD", {"momentum": 0.9, "nesterov": True, "maximize": True}),
    Update("Adam", {}), Update("Adam", {"betas": (0.5, 0.9), "weight_decay": 0.1, "amsgrad": True}),
    Update("AdamW", {}), Update("AdamW", {"amsgrad": True, "maximize": True}),
    Update("RMSprop", {}), Update("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    Update("RMSprop", {"centered": True, "momentum": 0.5, "alpha": 0.9, "maximize": True}),
    Update("Adagrad", {}), Update("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    Update("LBFGS", {}), Update("LBFGS", {"line_search_fn": "strong_wolfe", "history_size": 3}),
]

SCHEDULES = [
    Schedule("StepLR", {"step_size": 7, "gamma": 0.5}), Schedule("MultiStepLR", {"milestones": [3, 11, 11, 25]}),
    Schedule("ExponentialLR", {"gamma": 0.9}), Schedule("LinearLR", {}),
    Schedule("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 12}),
    Schedule("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}), Schedule("CosineAnnealingLR", {"T_max": 40}),
    Schedule("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    Schedule("OneCycleLR", {"max_lr": 0.5, "total_steps": 31}),
    Schedule("OneCycleLR", {"max_lr": 0.5, "epochs": 8, "steps_per_epoch": 4, "anneal_strategy": "linear",
                            "three_phase": True, "pct_start": 0.4}, optimizer="Adam"),
    Schedule("ReduceLROnPlateau", {"patience": 2, "cooldown": 1, "min_lr": 1e-4}),
    Schedule("ReduceLROnPlateau", {"mode": "max", "factor": 0.5, "threshold": 0.2, "threshold_mode": "abs"}),
    Schedule("SequentialLR", {"milestones": [4, 15]}, (
        Schedule("LinearLR", {"start_factor": 0.2, "total_iters": 4}), Schedule("CosineAnnealingLR", {"T_max": 11}),
        Schedule("ExponentialLR", {"gamma": 0.8}))),
]
