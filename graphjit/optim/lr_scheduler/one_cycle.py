"""The one-cycle policy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphjit.errors import ArgumentError
from graphjit.optim.group import INITIAL
from graphjit.optim.lr_scheduler.base import LRScheduler, outside
from graphjit.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """Up to ``max_lr``, then down to almost nothing, and the momentum the other way round (Smith and Topin, 2019).
    A ``step()`` belongs after each batch.

    Args:
        optimizer: whose learning rates (and momenta or first betas) are written.
        max_lr: the highest rate, for all groups or one each.
        total_steps: how many steps the cycle has; or give ``epochs`` and ``steps_per_epoch``.
        pct_start: the share of the way up.
        anneal_strategy: 'cos' or 'linear'.
        cycle_momentum: whether the momentum goes between ``max_momentum`` and ``base_momentum``.
        div_factor: max_lr over the first rate. final_div_factor: the first rate over the last.
        three_phase: down as slowly as up, and a third phase to the last rate.
        last_epoch: see ``LRScheduler``.

    >>> import graphjit as gj
    >>> opt = gj.optim.SGD([gj.nn.Parameter([1.0])], lr=0.1, momentum=0.9)
    >>> scheduler = gj.optim.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=10, pct_start=0.5)
    >>> for batch in range(4):
    ...     scheduler.step()
    >>> opt.lr, opt.momentum
    (1.0, 0.85)
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1:
            raise ArgumentError("OneCycleLR needs total_steps, or epochs and steps_per_epoch, above 0")
        if not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"OneCycleLR: pct_start is from 0 to 1, anneal_strategy 'cos' or 'linear'; not "
                                f"{pct_start!r} and {anneal_strategy!r}")
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ArgumentError(f"{type(optimizer).__name__} has no momentum to cycle",
                                hint="Pass cycle_momentum=False.")
        groups = len(optimizer.param_groups)
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.max_lrs = _each("max_lr", max_lr, groups)
        self.max_momentums = _each("max_momentum", max_momentum, groups)
        self.base_momentums = _each("base_momentum", base_momentum, groups)
        if last_epoch == -1:
            outside(self, "making a schedule")
            for group, top in zip(optimizer.param_groups, self.max_lrs, strict=True):
                group[INITIAL] = top / div_factor
        self.final_div_factor = final_div_factor
        turn = float(pct_start * total_steps) - 1
        self.ends = [turn, 2 * turn, total_steps - 1] if three_phase else [turn, total_steps - 1]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates for ``last_epoch``; it sets the momenta too."""
        if self.last_epoch > self.total_steps:
            raise ArgumentError(f"step {self.last_epoch} of a cycle of {self.total_steps}",
                                hint="Make a new OneCycleLR, or give it more total_steps.")
        phase = next((i for i, end in enumerate(self.ends) if self.last_epoch <= end), len(self.ends) - 1)
        begin, end = self.ends[phase - 1] if phase else 0.0, self.ends[phase]
        share = (self.last_epoch - begin) / (end - begin) if end != begin else 1.0
        rates = []
        for i, group in enumerate(self.optimizer.param_groups):
            first, top, high, low = (self.base_lrs[i], self.max_lrs[i], self.max_momentums[i],
                                     self.base_momentums[i])
            last = first / self.final_div_factor
            way = [first, top, first, last] if len(self.ends) == 3 else [first, top, last]
            rates.append(self._between(way[phase], way[phase + 1], share))
            if self.cycle_momentum:
                momenta = [high, low, high, high][:len(way)]
                found = self._between(momenta[phase], momenta[phase + 1], share)
                if "betas" in group:
                    group["betas"] = (found, group["betas"][1])
                else:
                    group["momentum"] = found
        return rates

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _each(name: str, value: float | Sequence[float], groups: int) -> list[float]:
    found = [float(value)] * groups if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(found) != groups:
        raise ArgumentError(f"OneCycleLR: {len(found)} of {name} for {groups} groups")
    return found
