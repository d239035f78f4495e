"""``LRScheduler``: what the schedules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from graphjit.errors import ArgumentError, TraceError
from graphjit.optim.group import INITIAL
from graphjit.optim.optimizer import Optimizer
from graphjit.tape import state


class LRScheduler:
    """Base of the schedules. A subclass defines ``get_lr()``: the rates of all groups for ``self.last_epoch``.

    Args:
        optimizer: whose learning rates are written; the first ones already when the schedule is made.
        last_epoch: the epoch to go on after; -1 to begin. The groups' ``"initial_lr"`` must be known then, and
            rates that follow from those before stay as they are until the next ``step()``.

    Attributes:
        last_epoch: how many steps were made. base_lrs: the rates that each group started from.
    """

    _functions: ClassVar[tuple[str, ...]] = ()  # attributes that are no part of the state

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        outside(self, "making a schedule")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"{type(self).__name__} takes an optimizer, not a {type(optimizer).__name__}")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault(INITIAL, group["lr"])
            elif INITIAL not in group:
                raise ArgumentError(f"{INITIAL!r} of group {i} is not known, so no schedule can go on",
                                    hint="Load the optimizer's state first, or begin with last_epoch=-1.")
        self.base_lrs: list[float] = [group[INITIAL] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._begin()

    def get_lr(self) -> list[float]:
        """The rates of all groups for ``last_epoch``, as they follow from the ones there are."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def step(self) -> None:
        """One epoch (or batch, as the schedule is meant) further: write the new rates."""
        outside(self, "step()")
        self.last_epoch += 1
        self._write(self.get_lr())

    def _begin(self) -> None:
        """The first step, when the schedule is made."""
        self.step()

    def _restart(self) -> None:
        """Back to epoch 0 and its rates, whatever the rates are now."""
        self.last_epoch = 0
        self._write(self.get_lr())

    def _write(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rates written last, one for each group."""
        outside(self, "get_last_lr()")
        return list(self._last_lr)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """All that the schedule knows but the optimizer and functions: numbers, strings and lists of them."""
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self).items()
                if name != "optimizer" and name not in self._functions}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict()`` gave. The rates themselves come with the optimizer's.

        Raises:
            ArgumentError: it lacks what this schedule needs; nothing has been changed then.
        """
        here = self.state_dict()
        if missing := here.keys() - state_dict.keys():
            raise ArgumentError(f"a state_dict does not fit {type(self).__name__}",
                                detail=tuple(f"{name} is missing" for name in sorted(missing)))
        for name, value in here.items():
            given = state_dict[name]
            setattr(self, name, list(given) if isinstance(value, list) else given)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(last_epoch={self.last_epoch}, lr={self._last_lr})"


class Chained(LRScheduler):
    """A schedule that multiplies the rates there are, so that several of them may act on one optimizer.

    A subclass defines ``factor(epoch)``: the share of the first rate (above ``_floor``) in an epoch.
    """

    @property
    def _floor(self) -> float:
        return 0.0

    def factor(self, epoch: int) -> float:
        """The share of the first rate that is left in an epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define factor()")

    def get_lr(self) -> list[float]:
        now, before = self.factor(self.last_epoch), self.factor(self.last_epoch - 1) if self.last_epoch else 1.0
        if now == before:
            return self._rates()
        floor = self._floor
        return [floor + (base - floor) * now if before == 0 else floor + (rate - floor) * (now / before)
                for base, rate in zip(self.base_lrs, self._rates(), strict=True)]

    def _begin(self) -> None:
        if self.last_epoch == -1:
            self.step()
        else:  # the rates there are belong to this epoch
            self.last_epoch += 1
            self._write(self._rates())

    def _restart(self) -> None:
        self.last_epoch = 0
        first, floor = self.factor(0), self._floor
        self._write([floor + (base - floor) * first for base in self.base_lrs])


def outside(scheduler: object, what: str) -> None:
    """Raise inside of a trace, where a schedule would stand still."""
    if state.trace is not None:
        raise TraceError(f"{type(scheduler).__name__}: {what} inside a compiled function",
                         hint="Call it outside, after the step. Inside, opt.lr reads and writes the rate.")
