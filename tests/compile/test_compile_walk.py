"""Two equal models go through the same random changes, one trained eagerly, one compiled: they stay equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.nn import functional as F

WALKS, STEPS = 8, 24
FEATURES, CLASSES = 5, 3


class Twin:
    """A model, its optimizer and what its step reads from outside."""

    def __init__(self, compiled: bool, seed: int) -> None:
        gj.manual_seed(seed)
        # no bias before the norm: its gradient is 0, and Adam would walk on the rounding
        self.model = nn.Sequential(nn.Linear(FEATURES, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3),
                                   nn.Linear(8, CLASSES))
        self.model.double()
        self.opt: optim.Optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scale = 1.0
        self.limit: float | None = None
        self.saved = copy.deepcopy(self.model.state_dict())
        mode: Callable[[Any], Any] = gj.compile if compiled else lambda function: function
        self.step, self.predict = mode(self._step), mode(self._predict)

    def _step(self, x: Any, y: Any) -> gj.Tensor:
        self.opt.zero_grad()
        loss = F.cross_entropy(self.model(x), y) * self.scale
        loss.backward()
        if self.limit is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.limit)
        self.opt.step()
        return loss

    def _predict(self, x: Any) -> gj.Tensor:
        return self.model(x)  # type: ignore[no-any-return]


def new_layer(twin: Twin, rng: np.random.Generator) -> None:
    layer = nn.Linear(8, CLASSES).double()
    layer.weight.assign(rng.standard_normal((CLASSES, 8)))
    twin.model[4] = layer
    twin.opt = optim.Adam(twin.model.parameters(), lr=0.01)


def new_weights(twin: Twin, rng: np.random.Generator) -> None:
    weight = twin.model[0].weight
    weight.assign(rng.standard_normal(weight.shape) / 3)


def freeze(twin: Twin, rng: np.random.Generator) -> None:
    for p in twin.model[0].parameters():
        p.requires_grad = bool(rng.integers(2))


def hyperparameter(twin: Twin, rng: np.random.Generator) -> None:
    group = twin.opt.param_groups[0]
    group["lr"] = float(rng.choice([0.05, 0.02, 0.1]))
    group["weight_decay"] = float(rng.choice([0.0, 0.01]))


def save(twin: Twin, rng: np.random.Generator) -> None:
    twin.saved = copy.deepcopy(twin.model.state_dict())


CHANGES: dict[str, Callable[[Twin, np.random.Generator], object]] = {
    "nothing": lambda twin, rng: None,
    "train": lambda twin, rng: twin.model.train(),
    "eval": lambda twin, rng: twin.model.eval(),
    "dropout": lambda twin, rng: setattr(twin.model[3], "p", float(rng.choice([0.0, 0.3, 0.6]))),
    "activation": lambda twin, rng: twin.model.__setitem__(2, [nn.ReLU, nn.Tanh, nn.SiLU][rng.integers(3)]()),
    "scale": lambda twin, rng: setattr(twin, "scale", float(rng.choice([1.0, 0.5]))),
    "limit": lambda twin, rng: setattr(twin, "limit", [None, 0.5, 2.0][rng.integers(3)]),
    "layer": new_layer,
    "weights": new_weights,
    "freeze": freeze,
    "hyperparameter": hyperparameter,
    "save": save,
    "load": lambda twin, rng: twin.model.load_state_dict(twin.saved),
    "statistics": lambda twin, rng: twin.model[1].reset_running_stats(),
    "gradients": lambda twin, rng: twin.model.zero_grad(),
}


@pytest.mark.parametrize("seed", range(WALKS))
def test_twins_stay_equal(seed: int) -> None:
    twins = Twin(False, seed), Twin(True, seed)
    rng = np.random.default_rng(seed)
    done: list[str] = []
    for number in range(STEPS):
        change = str(rng.choice(list(CHANGES)))
        done.append(change)
        own = int(rng.integers(2**31))
        n = int(rng.choice([4, 7, 16]))
        x, y = rng.standard_normal((n, FEATURES)), rng.integers(0, CLASSES, n)
        results = []
        for twin in twins:
            gj.manual_seed(number)
            CHANGES[change](twin, np.random.default_rng(own))
            loss = twin.step(x, y).item()
            with gj.no_grad():
                scores = twin.predict(x).numpy()
            results.append([np.array(loss), scores, *(t.numpy() for t in twin.model.state_dict().values())])
        for eager, compiled in zip(*results, strict=True):
            np.testing.assert_allclose(compiled, eager, rtol=1e-9, atol=1e-11, err_msg=f"after {', '.join(done)}")
