"""A schedule that looks at a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphjit.errors import ArgumentError
from graphjit.optim.lr_scheduler.base import LRScheduler, outside
from graphjit.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Times ``factor`` where a metric has not become better for more than ``patience`` epochs.

    Args:
        optimizer: whose learning rates are written.
        mode: 'min' where a smaller metric is better, or 'max'.
        factor: below 1. patience: epochs without progress that are let pass.
        threshold: by how much better counts: a share of the best ('rel') or a difference ('abs'), as
            ``threshold_mode`` says.
        cooldown: epochs after a reduction that do not count.
        min_lr: a bound below, for all groups or one each. eps: a smaller change is left out.

    >>> import graphjit as gj
    >>> opt = gj.optim.SGD([gj.nn.Parameter([1.0])], lr=0.5)
    >>> scheduler = gj.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=1)
    >>> for loss in (1.0, 0.9, 0.95, 0.95):
    ...     scheduler.step(loss)
    >>> opt.lr
    0.25
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ArgumentError(f"mode is 'min' or 'max', threshold_mode 'rel' or 'abs'; not {mode!r} and "
                                f"{threshold_mode!r}")
        if factor >= 1:
            raise ArgumentError(f"ReduceLROnPlateau takes a factor below 1, not {factor!r}")
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        super().__init__(optimizer)
        groups = len(optimizer.param_groups)
        self.min_lrs = [float(min_lr)] * groups if isinstance(min_lr, (int, float)) else list(min_lr)
        if len(self.min_lrs) != groups:
            raise ArgumentError(f"ReduceLROnPlateau: {len(self.min_lrs)} min_lrs for {groups} groups")

    def _begin(self) -> None:
        self.last_epoch = 0
        self._write(self._rates())

    def step(self, metrics: Any = None) -> None:
        """One epoch further.

        Args:
            metrics: the metric of this epoch, a number or a scalar tensor.
        """
        outside(self, "step()")
        if metrics is None:
            raise ArgumentError("ReduceLROnPlateau.step() takes the metric it looks at")
        current = float(metrics)
        self.last_epoch += 1
        if self._better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = self._rates()
        if self.num_bad_epochs > self.patience:
            lower = [max(rate * self.factor, least) for rate, least in zip(rates, self.min_lrs, strict=True)]
            rates = [new if rate - new > self.eps else rate for rate, new in zip(rates, lower, strict=True)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._write(rates)

    def _better(self, now: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * now > sign * self.best * (1 + sign * self.threshold)
        return sign * now > sign * self.best + self.threshold
